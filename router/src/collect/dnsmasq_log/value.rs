//! What an answer says about a name: the word behind ` is `.
//!
//! In: bytes. Out: a [`Value`]; what is no known word stays text. Pure; an address takes
//! about 10 ns.

use std::net::{IpAddr, Ipv4Addr};

use super::types::number_of;

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
