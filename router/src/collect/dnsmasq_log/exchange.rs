//! One DNS exchange in the making: the question, what is known of its answer, the event.
//!
//! Pure data of the joiner; serialised into the checkpoint while it is open.

use std::net::IpAddr;

use agentmon_core::event::{ANSWERS_MAX, Answer, Body, Dns, DnsStatus, Event, TEXT_BYTES_MAX};
use agentmon_core::name::{LABEL_OCTETS_MAX, Name, printable};
use agentmon_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::line::Origin;
use super::value::Value;

/// What the events of this collector are marked with.
pub(crate) const SOURCE: &str = "dnsmasq-log";

/// A question that waits for its answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Exchange {
    /// Its number in the joiner.
    pub(super) seq: u64,
    /// dnsmasq's serial number, 0 without extra logging.
    pub(super) id: u32,
    /// The process that took it.
    pub(super) pid: u32,
    /// [`key_of`] its name as printed.
    pub(super) key: u64,
    pub(super) name: Name,
    pub(super) qtype: u16,
    pub(super) client: IpAddr,
    pub(super) time: Timestamp,
    pub(super) fine: bool,
    /// Where it was forwarded to, last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) upstream: Option<String>,
}

/// What an exchange came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Outcome {
    pub(super) status: DnsStatus,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) rcode: Option<u16>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) answers: Vec<Answer>,
    /// Answers beyond [`ANSWERS_MAX`].
    #[serde(default)]
    pub(super) cut: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) blocked_by: Option<String>,
}

impl Outcome {
    /// Begins with an answer from `origin`; `source` is the list or file, as printed.
    pub(super) fn of(origin: Origin, source: &[u8]) -> Self {
        let status = match origin {
            Origin::Upstream => DnsStatus::Forwarded,
            Origin::Cache => DnsStatus::Cached,
            Origin::Local => DnsStatus::Local,
            Origin::Blocked => DnsStatus::Blocked,
        };
        let named = origin == Origin::Blocked || source.first() == Some(&b'/');
        let blocked_by = named.then(|| printable(source, TEXT_BYTES_MAX));
        Self { status, blocked_by, ..Self::default() }
    }

    /// One more value, in the order of the lines.
    pub(super) fn add(&mut self, value: Value<'_>) {
        match value {
            Value::Address(ip) => self.push(Answer::Address(ip)),
            Value::Cname | Value::NoData(_) | Value::Truncated | Value::Dnssec => {}
            Value::NxDomain => self.rcode = Some(3),
            Value::Rcode(code) => self.rcode = Some(code),
            Value::Blocked => self.block("upstream answer refused by the resolver"),
            Value::Text(text) => self.push(Answer::Other(printable(text, TEXT_BYTES_MAX))),
        }
        // Whatever is no error says that there was none.
        if self.rcode.is_none() && !matches!(value, Value::Blocked | Value::Truncated) {
            self.rcode = Some(0);
        }
    }

    /// The resolver kept the answer to itself.
    pub(super) fn block(&mut self, by: &str) {
        self.status = DnsStatus::Blocked;
        self.blocked_by = Some(by.to_owned());
        self.answers.clear();
        self.rcode = None;
    }

    /// The answer is forged or broken (DNSSEC): what the client got is an error.
    pub(super) fn refuse_bogus(&mut self, reason: &str) {
        let text = if reason.is_empty() { "DNSSEC bogus" } else { reason };
        self.answers = vec![Answer::Other(format!("EDE: {text}"))];
        self.rcode = Some(2);
    }

    pub(super) fn push(&mut self, answer: Answer) {
        if self.answers.len() < ANSWERS_MAX {
            self.answers.push(answer);
        } else {
            self.cut = self.cut.saturating_add(1);
        }
    }

    /// A server's error may be followed by the next server's answer.
    pub(super) fn is_failure(&self) -> bool {
        self.status == DnsStatus::Forwarded && self.rcode.is_some_and(|code| code != 0 && code != 3)
    }

    /// A name that local data points to nowhere is blocked, however the list is kept.
    fn settle(&mut self, source_hint: &str) {
        let mut addresses = self
            .answers
            .iter()
            .filter_map(|a| if let Answer::Address(ip) = a { Some(ip) } else { None })
            .peekable();
        if self.status == DnsStatus::Local
            && addresses.peek().is_some()
            && addresses.all(IpAddr::is_unspecified)
        {
            self.status = DnsStatus::Blocked;
            self.blocked_by.get_or_insert_with(|| source_hint.to_owned());
        }
        if self.status != DnsStatus::Blocked {
            self.blocked_by = None;
        }
    }
}

impl Exchange {
    /// Whether `raw`, as printed, is the name that was asked for.
    pub(super) fn is_named(&self, raw: &[u8], key: u64) -> bool {
        self.key == key
            && (self.name.as_str().as_bytes().eq_ignore_ascii_case(raw)
                || name_of(raw).0 == self.name)
    }

    /// The event. `answered` is the time of the last line of the answer and whether it has
    /// fractions of a second.
    pub(super) fn into_event(
        self,
        mut outcome: Outcome,
        answered: Option<(Timestamp, bool)>,
    ) -> Event {
        outcome.settle("config");
        if !takes_addresses(self.qtype) {
            // The text of a TXT record may look like an address; it is none.
            for answer in &mut outcome.answers {
                if let Answer::Address(ip) = answer {
                    *answer = Answer::Other(ip.to_string());
                }
            }
        }
        let latency_us = answered
            .filter(|(at, fine)| *fine && self.fine && *at >= self.time)
            .and_then(|(at, _)| u32::try_from(at.since(self.time).as_micros()).ok());
        let dns = Dns {
            client: self.client,
            mac: None,
            name: self.name,
            qtype: self.qtype,
            status: outcome.status,
            rcode: outcome.rcode,
            answers: outcome.answers,
            ttl: None,
            upstream: self.upstream,
            latency_us,
            blocked_by: outcome.blocked_by,
            source: SOURCE.to_owned(),
        };
        Event { time: self.time, body: Body::Dns(dns) }
    }
}

/// Types whose answers hold addresses: A, AAAA, ANY, SVCB and HTTPS with their hints, and
/// types that we could not read.
const fn takes_addresses(qtype: u16) -> bool {
    matches!(qtype, 0 | 1 | 28 | 64 | 65 | 255)
}

/// A number for comparing names as printed, without regard to case.
pub(super) fn key_of(raw: &[u8]) -> u64 {
    let mut space = [0u8; 256];
    match space.get_mut(..raw.len()) {
        Some(lower) => {
            lower.copy_from_slice(raw);
            lower.make_ascii_lowercase();
            xxh3_64(lower)
        }
        None => xxh3_64(&raw.to_ascii_lowercase()),
    }
}

/// The name in `raw`; true when it is no proper name and was mended: empty labels left
/// out, long labels cut.
pub(crate) fn name_of(raw: &[u8]) -> (Name, bool) {
    if let Ok(name) = Name::parse(raw) {
        return (name, false);
    }
    let mut mended = Vec::with_capacity(raw.len().min(LABEL_OCTETS_MAX * 4));
    for label in raw.split(|b| *b == b'.').filter(|label| !label.is_empty()) {
        let label = label.get(..label.len().min(LABEL_OCTETS_MAX)).unwrap_or_default();
        // 253 octets of text are 255 on the wire.
        if mended.len() + label.len() + 1 > 253 {
            break;
        }
        if !mended.is_empty() {
            mended.push(b'.');
        }
        mended.extend_from_slice(label);
    }
    let root = || Name::parse(b".").expect("the root is a name");
    (Name::parse(&mended).unwrap_or_else(|_| root()), true)
}

/// The name under which `ip` is looked up (RFC 1035 section 3.5, RFC 3596 section 2.5).
pub(super) fn reverse_name(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(v6) => {
            let mut text = String::with_capacity(72);
            for octet in v6.octets().iter().rev() {
                for nibble in [octet & 15, octet >> 4] {
                    text.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
                    text.push('.');
                }
            }
            text.push_str("ip6.arpa");
            text
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_mended_not_dropped() {
        assert_eq!(name_of(b"a..b.example").0.as_str(), "a.b.example");
        assert!(name_of(b"a..b.example").1);
        assert_eq!(name_of(b"").0.as_str(), ".");
        assert_eq!(name_of(&[b'a'; 300]).0.as_str().len(), LABEL_OCTETS_MAX);
        let long = b"label.".repeat(80);
        assert!(name_of(&long).0.as_str().starts_with("label.label."));
        assert!(!name_of(b"WwW.example.com").1);
    }

    #[test]
    fn reverse_names() {
        assert_eq!(reverse_name("192.0.2.31".parse().unwrap()), "31.2.0.192.in-addr.arpa");
        assert_eq!(
            reverse_name("2001:db8::25".parse().unwrap()),
            "5.2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"
        );
    }

    #[test]
    fn keys_ignore_case_and_length() {
        assert_eq!(key_of(b"WwW.Example"), key_of(b"www.example"));
        assert_ne!(key_of(b"a"), key_of(b"b"));
        assert_eq!(key_of(&[b'A'; 400]), key_of(&[b'a'; 400]));
    }
}
