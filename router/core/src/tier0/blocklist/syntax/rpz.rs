//! Response policy zones: `d CNAME .` under an `$ORIGIN`, triggers by name and by answer.
//!
//! Format: zone files (RFC 1035 section 5) with the actions of
//! draft-vixie-dnsop-dns-rpz. Owners are relative to the zone unless they end with its name;
//! `.` and `*.` refuse the name, `rpz-drop.` drops the question, `rpz-passthru.` exempts it;
//! `24.0.2.0.192.rpz-ip` is about answers with addresses of 192.0.2.0/24. Targets that lead
//! elsewhere, and triggers by client or name server, are unsupported.
//!
//! Invariant: what a line says of those that follow is bounded: an origin, and at most
//! [`RECORD_LINES_MAX`] lines of a record in parentheses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::{Each, Entry, Format, What, word, words_of};
use crate::tier0::blocklist::address::Indicator;
use crate::tier0::blocklist::report::Why;

/// Longest zone name kept.
const ORIGIN_BYTES_MAX: usize = 255;
/// A SOA record takes five or six lines.
const RECORD_LINES_MAX: u8 = 10;

/// What lines before said.
#[derive(Debug, Default)]
pub(in crate::tier0::blocklist) struct State {
    /// The zone's name with a dot before it and none behind.
    origin: Vec<u8>,
    /// Lines left in which a parenthesis may be closed.
    inside: u8,
}

/// Whether the line belongs to a zone file; its entry is handed on.
pub(super) fn takes<'a>(
    full: &[u8],
    line: &'a [u8],
    state: &mut State,
    each: Each<'_, 'a>,
) -> bool {
    if state.inside > 0 {
        state.inside = if line.contains(&b')') { 0 } else { state.inside - 1 };
        return true;
    }
    if let Some(rest) = line.strip_prefix(b"$") {
        let mut words = words_of(rest);
        match (words.next(), words.next()) {
            (Some(b"ORIGIN"), Some(zone)) if zone.len() <= ORIGIN_BYTES_MAX => {
                let zone = zone.strip_suffix(b".").unwrap_or(zone);
                state.origin = if zone.is_empty() { Vec::new() } else { [b".", zone].concat() };
            }
            (Some(b"TTL"), _) => {}
            _ => each(Err(Why::Setting)),
        }
        return true;
    }
    let Some(record) = record(full, line) else { return false };
    match record.kind {
        Kind::Other => {
            if line.contains(&b'(') && !line.contains(&b')') {
                state.inside = RECORD_LINES_MAX;
            }
        }
        Kind::Cname => each(policy(record.owner, record.target, state)),
        Kind::Address => match word::sink(record.target) {
            Some(true) => each(owner(record.owner, state)),
            _ => each(Err(Why::Leads)),
        },
    }
    true
}

enum Kind {
    Cname,
    Address,
    /// The zone's own: SOA, NS, and what no policy is made of.
    Other,
}

struct Record<'a> {
    owner: &'a [u8],
    kind: Kind,
    target: &'a [u8],
}

/// `owner [ttl] [IN] TYPE target`; `None`: no line of a zone file.
fn record<'a>(full: &[u8], line: &'a [u8]) -> Option<Record<'a>> {
    let mut words = words_of(line);
    // A line that begins with a blank has the owner of the one before: only the zone's own
    // records are written so.
    let indented = full.first().is_some_and(u8::is_ascii_whitespace);
    let first = words.next()?;
    let (mut owner, mut rest) = (first, words);
    if indented && type_of(first).is_some() {
        (owner, rest) = (b"@", words_of(line));
    }
    // At most a time to live, a class and a type.
    for _ in 0..3 {
        let word = rest.next()?;
        if let Some(kind) = type_of(word) {
            let target = rest.next()?;
            let kind = if owner == b"@" { Kind::Other } else { kind };
            return Some(Record { owner, kind, target });
        }
        let lasts = word.first().is_some_and(u8::is_ascii_digit);
        if !lasts && !word.eq_ignore_ascii_case(b"IN") {
            return None;
        }
    }
    None
}

fn type_of(word: &[u8]) -> Option<Kind> {
    let is = |name: &[u8]| word.eq_ignore_ascii_case(name);
    if is(b"CNAME") {
        Some(Kind::Cname)
    } else if is(b"A") || is(b"AAAA") {
        Some(Kind::Address)
    } else if is(b"SOA") || is(b"NS") || is(b"TXT") || is(b"MX") {
        Some(Kind::Other)
    } else {
        None
    }
}

fn policy<'a>(name: &'a [u8], target: &[u8], state: &State) -> Result<Entry<'a>, Why> {
    match target {
        b"." | b"*." | b"rpz-drop." | b"rpz-drop" => owner(name, state),
        b"rpz-passthru." | b"rpz-passthru" => owner(name, state).map(|e| e.allowing(true)),
        _ => Err(Why::Leads),
    }
}

/// What the owner of a record is about.
fn owner<'a>(name: &'a [u8], state: &State) -> Result<Entry<'a>, Why> {
    let absolute = name.strip_suffix(b".");
    let name = match absolute {
        Some(name) if !state.origin.is_empty() => {
            name.strip_suffix(state.origin.as_slice()).unwrap_or(name)
        }
        Some(name) => name,
        None => name,
    };
    if let Some(trigger) = name.strip_suffix(b".rpz-ip") {
        let net = answer(trigger).ok_or(Why::NotAName)?;
        return Ok(Entry::new(What::Net(net), Format::Rpz));
    }
    let other: [&[u8]; 3] = [b".rpz-client-ip", b".rpz-nsdname", b".rpz-nsip"];
    if other.iter().any(|end| name.ends_with(end)) {
        return Err(Why::ClientRule);
    }
    Entry::name(name, Format::Rpz)
}

/// `24.0.2.0.192` or `128.1.zz.db8.2001`: the length, then the address from its end.
fn answer(trigger: &[u8]) -> Option<Indicator> {
    let mut labels = std::str::from_utf8(trigger).ok()?.split('.');
    let length: u8 = labels.next()?.parse().ok()?;
    let groups: Vec<&str> = labels.rev().take(9).collect();
    let is_v4 = groups.len() == 4 && groups.iter().all(|g| g.parse::<u8>().is_ok());
    let ip = if is_v4 {
        IpAddr::V4(groups.join(".").parse::<Ipv4Addr>().ok()?)
    } else {
        let text = groups.join(":").replace("zz", "");
        // `zz` at an end leaves one colon of two.
        let text = match (groups.first(), groups.last()) {
            (Some(&"zz"), _) => format!(":{text}"),
            (_, Some(&"zz")) => format!("{text}:"),
            _ => text,
        };
        IpAddr::V6(text.parse::<Ipv6Addr>().ok()?)
    };
    Some(Indicator::net(IpNet::new(ip, length).ok()?))
}
