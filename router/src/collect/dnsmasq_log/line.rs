//! One message of dnsmasq or Pi-hole, taken apart.
//!
//! In: a message without its prefix. Out: what it says, borrowed from it. Pure; the common
//! shapes take 20 to 60 ns. The grammar (read in dnsmasq's `log_query` and Pi-hole FTL's
//! additions to it):
//!
//! ```text
//! message = [ "TCP " | "UDP " ] [ ID " " [ CLIENT "/" PORT " " ] ] body [ " (EDE: " TEXT ")" ]
//! body    = WORD "[" TYPE "] " NAME " from " CLIENT
//!         | "forwarded " NAME " to " SERVER
//!         | SOURCE " " NAME " is " VALUE
//! ```
//!
//! Names are bytes and may hold blanks, even ` is `; TXT answers are printed as they are.
//! So an answer is not divided here for good: [`Answer::splits`] gives every reading, and
//! the joiner takes the one whose name was asked for.
//!
//! Invariants: never panics; what is not understood is [`What::Unknown`], never dropped
//! here; an unknown `SOURCE` before a known kind of value is still an answer.

use std::net::{IpAddr, Ipv4Addr};

use memchr::memmem;
use serde::{Deserialize, Serialize};

use super::dhcp::{self, Lease};
use super::types::number_of;

/// What one message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Serial number of the query (`log-queries=extra`), 0 without.
    pub id: u32,
    /// What happened.
    pub what: What<'a>,
}

/// The kinds of message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What<'a> {
    /// A client asked.
    Query {
        /// Record type; 0 for a name of a type that we do not know.
        qtype: u16,
        /// As printed.
        name: &'a [u8],
        /// Who asked.
        client: IpAddr,
    },
    /// The question went to a server.
    Forwarded {
        /// As printed.
        name: &'a [u8],
        /// `ADDRESS` or `ADDRESS#PORT`.
        to: &'a [u8],
    },
    /// An answer, or a part of one.
    Answer(Answer<'a>),
    /// `reply query is duplicate`: answered together with the query before.
    Duplicate,
    /// A device got an address.
    Lease(Lease<'a>),
    /// The resolver began anew: cache empty, serial numbers from 1.
    Started,
    /// The resolver drops queries: too many at once.
    Overload,
    /// An answer was thrown away because it points into the local network.
    Rebind(&'a [u8]),
    /// The resolver's log queue was full: so many lines are missing.
    LinesLost(u64),
    /// Belongs to DNSSEC validation, not to a client's exchange.
    Dnssec,
    /// Understood and not needed.
    Other,
    /// Not understood.
    Unknown,
}

/// Where an answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// `reply`: a server.
    Upstream,
    /// `cached`, `cached-stale`.
    Cache,
    /// Hosts file, DHCP, configuration.
    Local,
    /// A block list or rule.
    Blocked,
}

/// `SOURCE NAME is VALUE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// Where it came from.
    pub origin: Origin,
    /// The source as printed, where it says more than `origin`.
    pub source: &'a [u8],
    /// The source is none of the known ones.
    pub unknown_source: bool,
    /// `NAME is VALUE`.
    pub text: &'a [u8],
    /// Extended DNS error (RFC 8914), as printed.
    pub ede: Option<&'a [u8]>,
}

/// What a name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// An address.
    Address(IpAddr),
    /// There is an alias; the next answer has its name.
    Cname,
    /// The name exists, the type does not. The type asked for, where it is said.
    NoData(Option<u16>),
    /// No such name.
    NxDomain,
    /// Another error.
    Rcode(u16),
    /// Pi-hole threw the upstream's answer away.
    Blocked,
    /// Keys and signatures.
    Dnssec,
    /// The answer was cut; the client will ask by TCP.
    Truncated,
    /// Anything else: `<HTTPS>`, a name, the text of a TXT record.
    Text(&'a [u8]),
}

impl<'a> Message<'a> {
    /// Reads one message.
    #[must_use]
    pub fn parse(message: &'a [u8]) -> Self {
        let message = message.trim_ascii_end();
        let message = match message {
            [b'T', b'C', b'P', b' ', rest @ ..] | [b'U', b'D', b'P', b' ', rest @ ..] => rest,
            _ => message,
        };
        let (id, has_client, body) = serial(message);
        let what = body_of(body);
        let what = match what {
            // With a serial number but no client: one of the resolver's own questions.
            What::Answer(_) if id != 0 && !has_client => What::Dnssec,
            _ => what,
        };
        Self { id, what }
    }
}

/// `5801 192.0.2.31/64520 ` or `5801 ` before the body.
fn serial(message: &[u8]) -> (u32, bool, &[u8]) {
    let digits = message.iter().take_while(|b| b.is_ascii_digit()).count();
    if digits == 0 || digits > 10 || message.get(digits) != Some(&b' ') {
        return (0, false, message);
    }
    let (number, rest) = message.split_at(digits);
    let id = number.iter().fold(0u32, |n, d| n.wrapping_mul(10).wrapping_add(u32::from(d - b'0')));
    let rest = rest.get(1..).unwrap_or_default();
    let token = memchr::memchr(b' ', rest).unwrap_or(rest.len());
    let (client, after) = rest.split_at(token);
    let is_client = client.first().is_some_and(|b| b.is_ascii_hexdigit() || *b == b':')
        && client.last().is_some_and(u8::is_ascii_digit)
        && memchr::memchr(b'/', client).is_some();
    // 0 means "none": a counter that wrapped is as good as any other number.
    let id = id.max(1);
    if is_client { (id, true, after.get(1..).unwrap_or_default()) } else { (id, false, rest) }
}

fn body_of(body: &[u8]) -> What<'_> {
    match body {
        [b'q', b'u', b'e', b'r', b'y', b'[', rest @ ..] => query(rest).unwrap_or(What::Unknown),
        [b'f', b'o', b'r', b'w', b'a', b'r', b'd', b'e', b'd', b' ', rest @ ..] => {
            split_last(rest, b" to ")
                .map_or(What::Unknown, |(name, to)| What::Forwarded { name, to })
        }
        [b'r', b'e', b'p', b'l', b'y', b' ', rest @ ..] => answer(Origin::Upstream, b"", rest),
        [b'c', b'a', b'c', b'h', b'e', b'd', b' ', rest @ ..] => answer(Origin::Cache, b"", rest),
        _ => rarer(body),
    }
}

/// `A] www.example.com from 192.0.2.31`.
fn query(rest: &[u8]) -> Option<What<'_>> {
    let end = memchr::memchr(b']', rest)?;
    let (kind, rest) = rest.split_at(end);
    let (name, client) = split_last(rest.strip_prefix(b"] ")?, b" from ")?;
    let client = address(client)?;
    let name = if name.is_empty() { b"." } else { name };
    Some(What::Query { qtype: number_of(kind).unwrap_or(0), name, client })
}

fn rarer(body: &[u8]) -> What<'_> {
    for (source, origin) in SOURCES {
        if let Some(rest) = body.strip_prefix(source.as_bytes())
            && let Some(rest) = rest.strip_prefix(b" ")
        {
            let reason = if *origin == Origin::Blocked { source.as_bytes() } else { b"" };
            return answer(*origin, reason, rest);
        }
    }
    if body.first() == Some(&b'/') {
        return hosts_file(body);
    }
    if let Some(bracket) = memchr::memchr(b'[', body)
        && body
            .get(..bracket)
            .is_some_and(|w| w.iter().all(|b| b.is_ascii_alphabetic() || *b == b'-'))
    {
        let (word, rest) = body.split_at(bracket);
        if word.starts_with(b"dnssec") {
            return What::Dnssec;
        }
        return query(rest.get(1..).unwrap_or_default()).unwrap_or(What::Unknown);
    }
    if let Some(what) = dhcp::parse(body) {
        return what;
    }
    if body.starts_with(b"blocked upstream with ")
        && let What::Answer(a) = unknown_source(body)
    {
        return What::Answer(Answer { unknown_source: false, ..a });
    }
    notice(body).unwrap_or_else(|| unknown_source(body))
}

/// Sources of answers besides `reply` and `cached`; a longer one before what begins it.
const SOURCES: &[(&str, Origin)] = &[
    ("gravity blocked (CNAME)", Origin::Blocked),
    ("gravity blocked", Origin::Blocked),
    ("cached-stale", Origin::Cache),
    ("config", Origin::Local),
    ("DHCP", Origin::Local),
    ("auth", Origin::Local),
    ("Pi-hole hostname", Origin::Local),
    ("regex denied (CNAME)", Origin::Blocked),
    ("regex denied", Origin::Blocked),
    ("exactly denied (CNAME)", Origin::Blocked),
    ("exactly denied", Origin::Blocked),
    ("regex blacklisted (CNAME)", Origin::Blocked),
    ("regex blacklisted", Origin::Blocked),
    ("exactly blacklisted (CNAME)", Origin::Blocked),
    ("exactly blacklisted", Origin::Blocked),
    ("special domain", Origin::Blocked),
    ("Mozilla canary domain", Origin::Blocked),
    ("Apple iCloud Private Relay domain", Origin::Blocked),
    ("Designated Resolver domain", Origin::Blocked),
    ("Rate-limiting", Origin::Blocked),
    ("to be blocked (gravity database is not available)", Origin::Blocked),
    ("to be refused (gravity database is not available)", Origin::Blocked),
    ("to be dropped (gravity database is not available)", Origin::Blocked),
];

fn answer<'a>(origin: Origin, source: &'a [u8], rest: &'a [u8]) -> What<'a> {
    let (text, ede) = without_note(rest);
    match text {
        b"query is duplicate" => return What::Duplicate,
        // Fixed words in the place of a name, or none there at all.
        b"opcode is not implemented" | b"reply is truncated" | b"is truncated" => {
            return What::Other;
        }
        _ => {}
    }
    if memmem::find(text, b" is ").is_none() {
        return What::Unknown;
    }
    What::Answer(Answer { origin, source, unknown_source: false, text, ede })
}

/// `/etc/hosts nas.example.com is 192.0.2.5`; the path may hold blanks.
fn hosts_file(body: &[u8]) -> What<'_> {
    let Some(space) = memchr::memchr(b' ', body) else { return What::Unknown };
    let (path, rest) = body.split_at(space);
    // Pi-hole before version 5 kept its lists in hosts form.
    let list = path.ends_with(b"/gravity.list") || path.ends_with(b"/black.list");
    let origin = if list { Origin::Blocked } else { Origin::Local };
    match answer(origin, path, rest.get(1..).unwrap_or_default()) {
        // A free text is an answer only for a reverse look-up, which prints the address.
        What::Answer(a) if a.splits().any(|(n, v)| v.is_sure() || address(n).is_some()) => {
            What::Answer(a)
        }
        _ => unknown_source(body),
    }
}

/// `NEW WORDS name is VALUE`: taken for an answer if the value is of a kind we know. The
/// words decide whether it reads as blocked.
fn unknown_source(body: &[u8]) -> What<'_> {
    let (text, ede) = without_note(body);
    let Some((before, value)) = split_last(text, b" is ") else { return What::Unknown };
    let Some(space) = memchr::memrchr(b' ', before) else { return What::Unknown };
    if !Value::parse(value).is_sure() {
        return What::Unknown;
    }
    let (source, _) = before.split_at(space);
    let text = text.get(space + 1..).unwrap_or_default();
    let blocks = ["block", "denied", "deny", "blacklist", "refuse", "drop", "filter", "sinkhole"];
    let lower = source.to_ascii_lowercase();
    let blocked = blocks.iter().any(|word| memmem::find(&lower, word.as_bytes()).is_some());
    let origin = if blocked { Origin::Blocked } else { Origin::Local };
    What::Answer(Answer { origin, source, unknown_source: true, text, ede })
}

/// Begins of messages that matter for health, and of those that say nothing about clients.
fn notice(body: &[u8]) -> Option<What<'_>> {
    if body.starts_with(b"started, ") {
        return Some(What::Started);
    }
    if body.starts_with(b"Maximum number of concurrent DNS queries reached") {
        return Some(What::Overload);
    }
    if let Some(name) = body.strip_prefix(b"possible DNS-rebind attack detected: ") {
        return Some(What::Rebind(name));
    }
    if let Some(rest) = body.strip_prefix(b"overflow: ") {
        let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
        let number = std::str::from_utf8(rest.get(..digits)?).ok()?.parse().ok()?;
        return Some(What::LinesLost(number));
    }
    if body.starts_with(b"validation ") {
        return Some(What::Dnssec);
    }
    OTHERS.iter().any(|begin| body.starts_with(begin.as_bytes())).then_some(What::Other)
}

const OTHERS: &[&str] = &[
    "ipset add ",
    "nftset add ",
    "non-query opcode ",
    "compile time options: ",
    "using ",
    "read ",
    "reading ",
    "ignoring ",
    "exiting on receipt of ",
    "cleared cache",
    "reducing DNS packet size ",
    "server ",
    "cache size ",
    "queries ",
    "pool memory ",
    "child processes ",
    "DNS service limited ",
    "DNSSEC ",
    "asynchronous logging ",
    "warning: ",
    "nameserver ",
    "no servers found",
    "failed to ",
    "inotify",
    "listening on ",
    "bad ",
    "time ",
    "Insecure DS reply ",
    "host ",
    "Host ",
    "Total ",
];

/// ` (EDE: TEXT)` and ` (DNSSEC signed)` at the end.
fn without_note(text: &[u8]) -> (&[u8], Option<&[u8]>) {
    if text.last() != Some(&b')') {
        return (text, None);
    }
    if let Some(text) = text.strip_suffix(b" (DNSSEC signed)") {
        return (text, None);
    }
    let Some(at) = memmem::rfind(text, b" (EDE: ") else { return (text, None) };
    let (before, note) = text.split_at(at);
    let note = note.strip_prefix(b" (EDE: ").and_then(|n| n.strip_suffix(b")"));
    (before, note)
}

/// Divides at the last `word`, which begins and ends with a blank.
fn split_last<'a>(text: &'a [u8], word: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let mut end = text.len();
    // The last blank ends the word, nearly always.
    while let Some(space) = memchr::memrchr(b' ', text.get(..end)?) {
        if let Some(before) = text.get(..=space)?.strip_suffix(word) {
            return Some((before, text.get(space + 1..)?));
        }
        end = space;
    }
    None
}

/// IPv4 or IPv6 as text; a scope (`%br-lan`) is left out.
#[must_use]
pub(super) fn address(text: &[u8]) -> Option<IpAddr> {
    if let Some(v4) = ipv4(text) {
        return Some(IpAddr::V4(v4));
    }
    if text.len() > 64 || memchr::memchr(b':', text).is_none() {
        return None;
    }
    let text = text.split(|b| *b == b'%').next()?;
    std::str::from_utf8(text).ok()?.parse::<IpAddr>().ok().map(agentmon_core::event::unmap)
}

/// Four decimal numbers up to 255.
fn ipv4(text: &[u8]) -> Option<Ipv4Addr> {
    if text.len() > 15 {
        return None;
    }
    let mut octets = [0u8; 4];
    let mut parts = text.split(|b| *b == b'.');
    for octet in &mut octets {
        let part = parts.next()?;
        if part.is_empty() || part.len() > 3 {
            return None;
        }
        let mut value = 0u16;
        for digit in part {
            if !digit.is_ascii_digit() {
                return None;
            }
            value = value * 10 + u16::from(digit - b'0');
        }
        *octet = u8::try_from(value).ok()?;
    }
    parts.next().is_none().then_some(Ipv4Addr::from(octets))
}

impl<'a> Answer<'a> {
    /// Every way to read the text as `NAME is VALUE`, shortest name first. Nearly always
    /// there is one.
    pub fn splits(&self) -> impl Iterator<Item = (&'a [u8], Value<'a>)> + use<'a> {
        const IS: &[u8] = b" is ";
        let text = self.text;
        memmem::find_iter(text, IS)
            .filter_map(move |at| Some((text.get(..at)?, Value::parse(text.get(at + IS.len()..)?))))
    }
}

impl<'a> Value<'a> {
    /// Reads what stands behind ` is `.
    #[must_use]
    pub fn parse(text: &'a [u8]) -> Self {
        if let Some(ip) = address(text) {
            return Self::Address(ip);
        }
        match text {
            b"<CNAME>" => Self::Cname,
            b"NODATA" => Self::NoData(None),
            b"NODATA-IPv4" => Self::NoData(Some(1)),
            b"NODATA-IPv6" => Self::NoData(Some(28)),
            b"NXDOMAIN" => Self::NxDomain,
            b"SERVFAIL" => Self::Rcode(2),
            b"REFUSED" => Self::Rcode(5),
            b"FORMERR" => Self::Rcode(1),
            b"not implemented" | b"NOTIMP" => Self::Rcode(4),
            b"no DS" | b"no DS/cut" => Self::Dnssec,
            b"truncated" => Self::Truncated,
            _ => Self::parse_phrase(text),
        }
    }

    fn parse_phrase(text: &'a [u8]) -> Self {
        const DNSSEC: [&[u8]; 6] =
            [b"DNSKEY keytag ", b"DS keytag ", b"DS for keytag ", b"BOGUS", b"SECURE", b"INSECURE"];
        if text.starts_with(b"blocked due to ") || text.starts_with(b"blocked during ") {
            return Self::Blocked;
        }
        if text.starts_with(b"truncated[") {
            return Self::Truncated;
        }
        if DNSSEC.iter().any(|begin| text.starts_with(begin)) {
            return Self::Dnssec;
        }
        Self::Text(text)
    }

    /// The record type whose presence or absence this is, where it shows.
    #[must_use]
    pub fn record_type(&self) -> Option<u16> {
        match self {
            Self::Address(IpAddr::V4(_)) => Some(1),
            Self::Address(IpAddr::V6(_)) => Some(28),
            Self::NoData(kind) => *kind,
            Self::Text(text) => number_of(text.strip_prefix(b"<")?.strip_suffix(b">")?),
            _ => None,
        }
    }

    /// No free text, which may look like anything.
    #[must_use]
    pub fn is_sure(&self) -> bool {
        match self {
            Self::Text(text) => text.starts_with(b"<") && text.ends_with(b">"),
            _ => true,
        }
    }
}

/// `error is 23`: a response code without a name.
#[must_use]
pub(super) fn bare_rcode(name: &[u8], value: Value<'_>) -> Option<u16> {
    if name != b"error" {
        return None;
    }
    match value {
        Value::Rcode(code) => Some(code),
        Value::Text(text) if text.len() <= 5 => std::str::from_utf8(text).ok()?.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
#[path = "line_tests.rs"]
mod tests;
