//! IP protocols and ports in words: `443/tcp`, `icmp`.
//!
//! Numbers: IANA's registry "Protocol Numbers"; only what is met in practice has a word.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Protocol numbers used by name in code.
#[allow(missing_docs, reason = "the names are the registry's own")]
pub mod proto {
    pub const ICMP: u8 = 1;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const ICMPV6: u8 = 58;
}

/// Number and word.
const WORDS: &[(u8, &str)] = &[
    (1, "icmp"),
    (2, "igmp"),
    (4, "ipip"),
    (6, "tcp"),
    (17, "udp"),
    (33, "dccp"),
    (41, "ipv6"),
    (47, "gre"),
    (50, "esp"),
    (51, "ah"),
    (58, "icmpv6"),
    (89, "ospf"),
    (103, "pim"),
    (112, "vrrp"),
    (132, "sctp"),
    (136, "udplite"),
];

/// `6` -> `tcp`; numbers without a word stay numbers.
#[must_use]
pub fn proto_name(number: u8) -> Cow<'static, str> {
    match WORDS.iter().find(|(n, _)| *n == number) {
        Some((_, word)) => Cow::Borrowed(*word),
        None => Cow::Owned(number.to_string()),
    }
}

/// The inverse of [`proto_name`], without regard to case.
#[must_use]
pub fn proto_number(text: &str) -> Option<u8> {
    match WORDS.iter().find(|(_, word)| word.eq_ignore_ascii_case(text)) {
        Some((number, _)) => Some(*number),
        None => text.parse().ok(),
    }
}

/// Whether the protocol's packets carry ports.
#[must_use]
pub const fn has_ports(number: u8) -> bool {
    matches!(number, 6 | 17 | 33 | 132 | 136)
}

/// A port of a protocol: `123/udp`. Protocols without ports: `icmp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Service {
    /// In host order; without meaning where the protocol has none.
    pub port: u16,
    /// IP protocol number.
    pub proto: u8,
}

impl Service {
    /// `203.0.113.9:443/tcp`, `[2001:db8::9]:443/tcp`, `203.0.113.9/icmp`.
    #[must_use]
    pub fn at(self, ip: IpAddr) -> String {
        let word = proto_name(self.proto);
        if has_ports(self.proto) {
            format!("{}/{word}", SocketAddr::new(ip, self.port))
        } else {
            format!("{ip}/{word}")
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = proto_name(self.proto);
        if has_ports(self.proto) { write!(f, "{}/{word}", self.port) } else { f.write_str(&word) }
    }
}

/// The text is no port and protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a port and protocol (want `123/udp`, or `icmp` where there are no ports)")]
pub struct ServiceError;

impl FromStr for Service {
    type Err = ServiceError;
    fn from_str(text: &str) -> Result<Self, ServiceError> {
        let (port, word) = match text.split_once('/') {
            Some((port, word)) => (Some(port), word),
            None => (None, text),
        };
        let proto = proto_number(word).ok_or(ServiceError)?;
        let port = match port {
            Some(port) if has_ports(proto) => port.parse().map_err(|_| ServiceError)?,
            None if !has_ports(proto) => 0,
            _ => return Err(ServiceError),
        };
        Ok(Self { port, proto })
    }
}

impl Serialize for Service {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for Service {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <Cow<'de, str>>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<&str>) {
        let got = text.parse::<Service>().ok().map(|s| s.to_string());
        assert_eq!(got.as_deref(), expected, "{text}");
    }

    #[test]
    fn text_forms() {
        check("123/udp", Some("123/udp"));
        check("443/TCP", Some("443/tcp"));
        check("5060/132", Some("5060/sctp"));
        check("icmp", Some("icmp"));
        check("253", Some("253"));
        check("8/icmp", None);
        check("tcp", None);
        check("65536/tcp", None);
        check("/tcp", None);
        check("", None);
        let https = Service { port: 443, proto: proto::TCP };
        assert_eq!(https.at("2001:db8::9".parse().unwrap()), "[2001:db8::9]:443/tcp");
        assert_eq!(
            Service { port: 2048, proto: proto::ICMP }.at("192.0.2.1".parse().unwrap()),
            "192.0.2.1/icmp"
        );
    }

    #[test]
    fn every_number_reads_back() {
        for n in 0..=u8::MAX {
            assert_eq!(proto_number(&proto_name(n)), Some(n));
        }
    }
}
