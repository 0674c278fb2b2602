//! Where something may go, as one word: `api.example.com:443`, `*.example.com`,
//! `10.0.0.0/8:53/udp`, `lan:dns`, `ai:anthropic`.
//!
//! `PLACE[:PORT[-PORT]][/PROTO]`. A place is a name, `*.name` (below it), `.name` (it and
//! below it), an address or network (IPv6 in brackets where a port follows), `lan` (any
//! address that is not public), `loopback`, `*` or `any`, or a class: two words with a colon of
//! which the second is no port. Ports have numbers or one of a few names.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use crate::name::{Name, printable};
use crate::service::{proto_name, proto_number};

/// Longest text of a pattern.
const PATTERN_BYTES_MAX: usize = 300;

/// Words for ports.
const PORTS: [(&str, u16); 11] = [
    ("dns", 53),
    ("http", 80),
    ("https", 443),
    ("imaps", 993),
    ("mdns", 5_353),
    ("ntp", 123),
    ("ollama", 11_434),
    ("smtp", 25),
    ("ssh", 22),
    ("submission", 587),
    ("tls-dns", 853),
];

/// Where, without port and protocol.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// Anywhere.
    Any,
    /// An address that is not public, loopback included.
    Lan,
    /// The machine itself.
    Loopback,
    /// This name.
    Exact(Name),
    /// What is below this name.
    Below(Name),
    /// This name and what is below it.
    AtOrBelow(Name),
    /// An address or network.
    Net(IpNet),
    /// Everything of a class.
    Class(String),
}

/// Where something may go.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern {
    /// Where.
    pub place: Place,
    /// First and last port; `None`: any.
    pub ports: Option<(u16, u16)>,
    /// IP protocol; `None`: any.
    pub proto: Option<u8>,
}

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Nothing there, or far too much.
    #[error("empty, or longer than {PATTERN_BYTES_MAX} bytes")]
    Length,
    /// The port makes no sense.
    #[error("`{0}` is no port: write 443, 8000-8100 or a name such as https")]
    Port(String),
    /// The place makes no sense.
    #[error("`{0}` is no name, address, network or class")]
    Place(String),
    /// A star elsewhere than in front.
    #[error("`*` stands for whole labels in front only: write *.example.com")]
    Star,
}

impl Pattern {
    /// Whether port and protocol fit.
    #[must_use]
    pub fn fits(&self, port: u16, proto: u8) -> bool {
        self.ports.is_none_or(|(low, high)| (low..=high).contains(&port))
            && self.proto.is_none_or(|p| p == proto)
    }

    /// Whether everything this one is for is also what `other` is for. Classes are equal or
    /// not: they are opened before.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        let ports = match (self.ports, other.ports) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some((a, b)), Some((c, d))) => c <= a && b <= d,
        };
        let proto = other.proto.is_none() || self.proto == other.proto;
        ports && proto && self.place.is_within(&other.place)
    }
}

impl Place {
    fn is_within(&self, other: &Self) -> bool {
        match (self, other) {
            (_, Self::Any) => true,
            (Self::Exact(a), Self::AtOrBelow(b)) | (Self::AtOrBelow(a), Self::AtOrBelow(b)) => {
                a.is_at_or_below(b.as_str())
            }
            (Self::Below(a), Self::AtOrBelow(b) | Self::Below(b)) => a.is_at_or_below(b.as_str()),
            (Self::Exact(a) | Self::AtOrBelow(a), Self::Below(b)) => {
                a != b && a.is_at_or_below(b.as_str())
            }
            (Self::Net(a), Self::Net(b)) => b.contains(a),
            (Self::Loopback, Self::Lan) => true,
            (Self::Net(a), Self::Loopback) => {
                a.network().is_loopback() && a.broadcast().is_loopback()
            }
            (a, b) => a == b,
        }
    }
}

impl FromStr for Pattern {
    type Err = PatternError;
    fn from_str(text: &str) -> Result<Self, PatternError> {
        let text = text.trim();
        if text.is_empty() || text.len() > PATTERN_BYTES_MAX {
            return Err(PatternError::Length);
        }
        let (rest, proto) = split_proto(text);
        // An address of IPv6 has colons of its own: brackets divide it from a port.
        if let Some((inside, after)) = rest.strip_prefix('[').and_then(|r| r.split_once(']')) {
            let ports = after.strip_prefix(':').map(ports).transpose()?;
            let place = net(inside).filter(|_| after.is_empty() || ports.is_some());
            let place = place.ok_or_else(|| PatternError::Place(shown(text)))?;
            return Ok(Self { place: Place::Net(place), ports, proto });
        }
        if let Some(place) = net(rest) {
            return Ok(Self { place: Place::Net(place), ports: None, proto });
        }
        match rest.rsplit_once(':') {
            None => Ok(Self { place: place(rest)?, ports: None, proto }),
            Some((front, last)) => match ports(last) {
                Ok(ports) => Ok(Self { place: place_or_class(front)?, ports: Some(ports), proto }),
                Err(_) if is_class(rest) => {
                    Ok(Self { place: Place::Class(rest.to_owned()), ports: None, proto })
                }
                Err(error) => Err(error),
            },
        }
    }
}

/// `10.0.0.0/8/udp` is a network and a protocol: what is behind the last stroke is one only if
/// it is a word.
fn split_proto(text: &str) -> (&str, Option<u8>) {
    let Some((rest, last)) = text.rsplit_once('/') else { return (text, None) };
    if last.is_empty() || !last.bytes().all(|b| b.is_ascii_alphabetic()) {
        return (text, None);
    }
    proto_number(last).map_or((text, None), |proto| (rest, Some(proto)))
}

fn ports(text: &str) -> Result<(u16, u16), PatternError> {
    let bad = || PatternError::Port(shown(text));
    if let Some((_, port)) = PORTS.iter().find(|(word, _)| *word == text) {
        return Ok((*port, *port));
    }
    let one = |text: &str| -> Result<u16, PatternError> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if digits { text.parse().map_err(|_| bad()) } else { Err(bad()) }
    };
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let (low, high) = (one(low)?, one(high)?);
    if low <= high { Ok((low, high)) } else { Err(bad()) }
}

fn net(text: &str) -> Option<IpNet> {
    let net: Option<IpNet> = text.parse().ok();
    net.map(|net| net.trunc()).or_else(|| Some(IpNet::from(text.parse::<IpAddr>().ok()?)))
}

fn is_class(text: &str) -> bool {
    let word = |w: &str| {
        !w.is_empty() && w.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    text.split_once(':').is_some_and(|(kind, name)| word(kind) && word(name))
}

fn place_or_class(text: &str) -> Result<Place, PatternError> {
    if is_class(text) { Ok(Place::Class(text.to_owned())) } else { place(text) }
}

fn place(text: &str) -> Result<Place, PatternError> {
    let bad = || PatternError::Place(shown(text));
    match text {
        "*" | "any" => return Ok(Place::Any),
        "lan" => return Ok(Place::Lan),
        "loopback" => return Ok(Place::Loopback),
        _ => {}
    }
    if let Some(net) = net(text) {
        return Ok(Place::Net(net));
    }
    // A mistyped address is not a name.
    if text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'/' | b':')) {
        return Err(bad());
    }
    let name = |text: &str| -> Result<Name, PatternError> {
        if text.contains('*') {
            return Err(PatternError::Star);
        }
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        let good = text.bytes().all(plain);
        Name::parse(text.as_bytes()).ok().filter(|n| good && n.as_str() != ".").ok_or_else(bad)
    };
    if let Some(rest) = text.strip_prefix("*.") {
        return Ok(Place::Below(name(rest)?));
    }
    match text.strip_prefix('.') {
        Some(rest) => Ok(Place::AtOrBelow(name(rest)?)),
        None => Ok(Place::Exact(name(text)?)),
    }
}

fn shown(text: &str) -> String {
    printable(text.as_bytes(), 80)
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Any => f.write_str("*")?,
            Place::Lan => f.write_str("lan")?,
            Place::Loopback => f.write_str("loopback")?,
            Place::Exact(name) => write!(f, "{name}")?,
            Place::Below(name) => write!(f, "*.{name}")?,
            Place::AtOrBelow(name) => write!(f, ".{name}")?,
            Place::Net(net) if self.ports.is_some() && net.addr().is_ipv6() => {
                write!(f, "[{net}]")?
            }
            Place::Net(net) => write!(f, "{net}")?,
            Place::Class(name) => f.write_str(name)?,
        }
        match self.ports {
            Some((low, high)) if low == high => write!(f, ":{low}")?,
            Some((low, high)) => write!(f, ":{low}-{high}")?,
            None => {}
        }
        match self.proto {
            Some(proto) => write!(f, "/{}", proto_name(proto)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let shown = match text.parse::<Pattern>() {
            Ok(p) => format!("{:?} {:?} {:?}", p.place, p.ports, p.proto),
            Err(e) => format!("{e}"),
        };
        assert_eq!(shown, expected, "{text}");
    }

    #[test]
    fn places() {
        check("api.example.com", "Exact(Name(api.example.com)) None None");
        check("API.Example.com:443", "Exact(Name(api.example.com)) Some((443, 443)) None");
        check("*.example.com:https/tcp", "Below(Name(example.com)) Some((443, 443)) Some(6)");
        check(".example.com", "AtOrBelow(Name(example.com)) None None");
        check("10.1.2.3/8", "Net(10.0.0.0/8) None None");
        check("10.0.0.0/8:53/udp", "Net(10.0.0.0/8) Some((53, 53)) Some(17)");
        check("192.0.2.7:8000-8100", "Net(192.0.2.7/32) Some((8000, 8100)) None");
        check("2001:db8::/32", "Net(2001:db8::/32) None None");
        check("[2001:db8::1]:443", "Net(2001:db8::1/128) Some((443, 443)) None");
        check("lan:dns", "Lan Some((53, 53)) None");
        check("ai:anthropic", "Class(\"ai:anthropic\") None None");
        check("ai:anthropic:443", "Class(\"ai:anthropic\") Some((443, 443)) None");
        check("*:443", "Any Some((443, 443)) None");
        check("nas", "Exact(Name(nas)) None None");
    }

    #[test]
    fn what_is_none() {
        check("", "empty, or longer than 300 bytes");
        check("10.0.0.300", "`10.0.0.300` is no name, address, network or class");
        check("10.0.0.0/99", "`10.0.0.0/99` is no name, address, network or class");
        check("a.*.example", "`*` stands for whole labels in front only: write *.example.com");
        check(
            "example.com:99999",
            "`99999` is no port: write 443, 8000-8100 or a name such as https",
        );
        check(
            "example.com:90-80",
            "`90-80` is no port: write 443, 8000-8100 or a name such as https",
        );
        check(
            "https://example.com",
            "`//example.com` is no port: write 443, 8000-8100 or a name such as https",
        );
        check("exa mple.com", "`exa mple.com` is no name, address, network or class");
        check("a..b", "`a..b` is no name, address, network or class");
        check("[::1]443", "`[::1]443` is no name, address, network or class");
    }

    #[track_caller]
    fn within(a: &str, b: &str, expected: bool) {
        let read = |text: &str| text.parse::<Pattern>().unwrap();
        assert_eq!(read(a).is_within(&read(b)), expected, "{a} within {b}");
    }

    #[test]
    fn what_covers_what() {
        within("a.example", "*", true);
        within("a.example:443", "a.example", true);
        within("a.example", "a.example:443", false);
        within("a.example", "*.example", true);
        within("example", "*.example", false);
        within("example", ".example", true);
        within("*.a.example", "*.example", true);
        within(".a.example", "*.example", true);
        within("*.example", "*.a.example", false);
        within("10.1.0.0/16", "10.0.0.0/8", true);
        within("10.0.0.0/8", "10.1.0.0/16", false);
        within("10.1.0.0/16:53/udp", "10.0.0.0/8:1-100", true);
        within("10.1.0.0/16:53", "10.0.0.0/8:53/udp", false);
        within("loopback", "lan", true);
        within("127.0.0.0/8", "loopback", true);
    }

    proptest::proptest! {
        #[test]
        fn any_text_reads_or_says_why_and_shows_as_itself(text in "\\PC{0,60}") {
            if let Ok(pattern) = text.parse::<Pattern>() {
                proptest::prop_assert_eq!(pattern.to_string().parse::<Pattern>(), Ok(pattern));
            }
        }

        #[test]
        fn what_is_shown_reads_back(place in "(\\*\\.|\\.)?[a-z]{1,6}(\\.[a-z]{1,6}){0,3}|10\\.[0-9]\\.0\\.0/16|lan|loopback|\\*|ai:[a-z]{1,4}|\\[2001:db8::[0-9]\\]",
                                   port in proptest::option::of(1u16..), udp in proptest::bool::ANY) {
            let port = port.map(|p| format!(":{p}")).unwrap_or_default();
            let text = format!("{place}{port}{}", if udp { "/udp" } else { "" });
            // A class whose name is a port's is a place with a port, and a single word may be one.
            if let Ok(pattern) = text.parse::<Pattern>() {
                proptest::prop_assert_eq!(pattern.to_string().parse::<Pattern>(), Ok(pattern.clone()));
                proptest::prop_assert!(pattern.is_within(&pattern));
            }
        }
    }
}
