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

use std::net::IpAddr;

use memchr::memmem;
use serde::{Deserialize, Serialize};

use super::dhcp::{self, Lease};
use super::notice::notice;
use super::source::{known_source, unknown_source};
use super::types::number_of;
use super::value::{Value, address};

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
    /// The answer that follows is forged or broken (DNSSEC): the resolver prints it and
    /// tells its client of an error instead. With the reason, where it is said.
    Bogus(Option<&'a [u8]>),
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
    if let Some(what) = known_source(body) {
        return what;
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
    notice(body).unwrap_or_else(|| unknown_source(body))
}

pub(super) fn answer<'a>(origin: Origin, source: &'a [u8], rest: &'a [u8]) -> What<'a> {
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

/// ` (EDE: TEXT)` and ` (DNSSEC signed)` at the end.
pub(super) fn without_note(text: &[u8]) -> (&[u8], Option<&[u8]>) {
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
pub(super) fn split_last<'a>(text: &'a [u8], word: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
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

#[cfg(test)]
#[path = "line_tests.rs"]
mod tests;
