//! One line of AdGuard Home's querylog.json -> one DNS event.
//!
//! In: a JSON object (client, time, question, the DNS answer in base64, the verdict). Out:
//! the exchange, or why there is none. Pure; the collector's thread;
//! memory a few times the line.
//!
//! Form: AdGuard Home's `internal/querylog`; the order of keys is free, empty ones are left
//! out, and versions differ (`Rule` before there were `Rules`).
//!
//! Invariants: any bytes give an event or an error, in time linear in their number; a field
//! of the wrong kind is left out and the rest kept; only the client and the name must be
//! there. The time is that of the question: the log has the answer's, and how long it took.

use std::net::IpAddr;
use std::time::Duration;

use agentmon_core::Event;
use agentmon_core::dns_wire;
use agentmon_core::event::{ANSWERS_MAX, Answer, Body, Dns, DnsStatus, TEXT_BYTES_MAX, unmap};
use agentmon_core::name::{Name, cut, printable};
use agentmon_core::time::Timestamp;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::SOURCE;
use crate::collect::dnsmasq_log::exchange::name_of;
use crate::collect::dnsmasq_log::prefix::Stamper;
use crate::localtime::Zone;

/// Longest that a question is believed to have taken.
const ELAPSED_MAX: Duration = Duration::from_secs(60);

/// Why a line is no exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Not one JSON object.
    #[error("no JSON object")]
    Json,
    /// No client's address.
    #[error("no client's address in `IP`")]
    Client,
    /// No name.
    #[error("no name in `QH`")]
    Name,
}

/// What was read of a line.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The exchange.
    pub event: Event,
    /// Something of it could not be read.
    pub imperfect: bool,
}

/// Reads one line. `now` dates an entry whose own time cannot be read.
///
/// # Errors
/// [`EntryError`].
pub fn decode(line: &[u8], now: Timestamp) -> Result<Entry, EntryError> {
    let entry: Map<String, Value> = serde_json::from_slice(line).map_err(|_| EntryError::Json)?;
    let text = |key: &str| entry.get(key).and_then(Value::as_str);
    let client: IpAddr =
        text("IP").and_then(|ip| ip.trim().parse().ok()).ok_or(EntryError::Client)?;
    let name = text("QH").filter(|name| !name.is_empty()).ok_or(EntryError::Name)?;
    let (name, mended) = name_of(name.as_bytes());
    let elapsed = entry.get("Elapsed").and_then(Value::as_u64).map(Duration::from_nanos);
    let answered = text("T").and_then(time);
    let time = answered.unwrap_or(now).minus(elapsed.unwrap_or_default().min(ELAPSED_MAX));
    let none = Map::new();
    let result = entry.get("Result").and_then(Value::as_object).unwrap_or(&none);
    let told = Told::of(&entry, result);
    let upstream = text("Upstream").filter(|text| !text.is_empty());
    let cached = entry.get("Cached").and_then(Value::as_bool).unwrap_or(false);
    let (status, blocked_by) = verdict(result, cached, told.rcode.is_some() || upstream.is_some());
    let imperfect = mended || answered.is_none() || told.unreadable;
    let dns = Dns {
        client: unmap(client),
        mac: None,
        name,
        qtype: text("QT").and_then(dns_wire::type_number).unwrap_or(0),
        status,
        rcode: told.rcode,
        answers: told.answers,
        ttl: told.ttl,
        upstream: upstream.map(|text| printable(text.as_bytes(), TEXT_BYTES_MAX)),
        latency_us: elapsed.and_then(|elapsed| u32::try_from(elapsed.as_micros()).ok()),
        blocked_by,
        source: SOURCE.to_owned(),
    };
    Ok(Entry { event: Event { time, body: Body::Dns(dns) }, imperfect })
}

/// `2026-03-23T13:16:49.123456789+01:00`.
fn time(text: &str) -> Option<Timestamp> {
    Stamper::new(Zone::utc()).rfc3339(text.as_bytes())
}

/// What the client was told.
#[derive(Default)]
struct Told {
    rcode: Option<u16>,
    answers: Vec<Answer>,
    ttl: Option<u32>,
    unreadable: bool,
}

impl Told {
    /// From the DNS message; where there is none, from the rewrite that made it up.
    fn of(entry: &Map<String, Value>, result: &Map<String, Value>) -> Self {
        let Some(answer) = entry.get("Answer") else { return Self::rewritten(result) };
        let bytes = answer.as_str().and_then(|text| STANDARD.decode(text).ok());
        let message = bytes.and_then(|bytes| dns_wire::decode(&bytes).ok()).filter(|m| m.response);
        let Some(message) = message else {
            return Self { unreadable: true, ..Self::rewritten(result) };
        };
        Self {
            rcode: Some(message.rcode),
            ttl: message.address_ttl(),
            unreadable: message.incomplete,
            answers: message.into_answers(),
        }
    }

    fn rewritten(result: &Map<String, Value>) -> Self {
        let mut told = Self::default();
        let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned();
        let rewrite = result.get("DNSRewriteResult").and_then(Value::as_object);
        let response = rewrite.and_then(|r| r.get("Response")).and_then(Value::as_object);
        let of_type = |number| list(response.and_then(|r| r.get(number))).unwrap_or_default();
        let aliases = of_type("5").into_iter().filter_map(|value| {
            let name = value.as_str()?.trim_end_matches('.');
            Name::parse(name.as_bytes()).ok().map(Answer::Cname)
        });
        let addresses = list(result.get("IPList")).unwrap_or_default();
        let addresses = addresses.into_iter().chain(of_type("1")).chain(of_type("28"));
        let addresses = addresses.filter_map(|ip| ip.as_str()?.parse().ok().map(unmap));
        told.answers = aliases.chain(addresses.map(Answer::Address)).take(ANSWERS_MAX).collect();
        let code = rewrite.and_then(|r| r.get("RCode")).and_then(Value::as_u64);
        told.rcode = code.and_then(|code| u16::try_from(code).ok());
        if told.rcode.is_none() && !told.answers.is_empty() {
            told.rcode = Some(0);
        }
        told
    }
}

/// How it ended, and what blocked it.
fn verdict(
    result: &Map<String, Value>,
    cached: bool,
    answered: bool,
) -> (DnsStatus, Option<String>) {
    let filtered = result.get("IsFiltered").and_then(Value::as_bool).unwrap_or(false);
    match result.get("Reason").and_then(Value::as_u64) {
        Some(reason @ (3..=6 | 8)) => (DnsStatus::Blocked, Some(rule(result, reason))),
        // Safe search, rewrites and the hosts file: an answer of its own.
        Some(7 | 9..=11) => (DnsStatus::Local, None),
        // A reason that is not known, or is no number.
        Some(reason) if filtered => (DnsStatus::Blocked, Some(rule(result, reason))),
        None if filtered => (DnsStatus::Blocked, Some(rule(result, 0))),
        _ if cached => (DnsStatus::Cached, None),
        _ if answered => (DnsStatus::Forwarded, None),
        _ => (DnsStatus::Unknown, None),
    }
}

/// The rule or service that blocked, else the reason in words.
fn rule(result: &Map<String, Value>, reason: u64) -> String {
    let rules = result.get("Rules").and_then(Value::as_array);
    let first = rules.and_then(|rules| rules.first()).and_then(|rule| rule.get("Text"));
    let texts = [first, result.get("Rule"), result.get("ServiceName")];
    let text = texts.into_iter().flatten().filter_map(Value::as_str).find(|text| !text.is_empty());
    text.map_or_else(
        || {
            let word = match reason {
                4 => "safe browsing",
                5 => "parental control",
                6 => "invalid",
                8 => "blocked service",
                _ => "filter",
            };
            word.to_owned()
        },
        |text| cut(printable(text.as_bytes(), TEXT_BYTES_MAX), TEXT_BYTES_MAX),
    )
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
