//! A DNS exchange: what a client asked, how it ended, what it was told.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Mac, unmap};
use crate::name::Name;

/// How a DNS exchange ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DnsStatus {
    /// Seen a query, no word on its fate.
    #[default]
    Unknown,
    /// Answered by an upstream server.
    Forwarded,
    /// Answered from the cache (stale answers included).
    Cached,
    /// Answered from local data: hosts file, DHCP, configuration.
    Local,
    /// Refused by the resolver's block list, rule or upstream filter.
    Blocked,
    /// No answer within the collector's patience.
    Timeout,
}

impl DnsStatus {
    /// The word stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Forwarded => "forwarded",
            Self::Cached => "cached",
            Self::Local => "local",
            Self::Blocked => "blocked",
            Self::Timeout => "timeout",
        }
    }
}

/// One thing a DNS answer said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// A or AAAA.
    Address(IpAddr),
    /// The next name of a CNAME chain.
    Cname(Name),
    /// Any other record as printable text, at most [`TEXT_BYTES_MAX`](super::TEXT_BYTES_MAX) bytes.
    Other(String),
}

/// One DNS exchange: what a client asked and what it was told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dns {
    /// Who asked.
    pub client: IpAddr,
    /// The client's MAC where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// What was asked for.
    pub name: Name,
    /// Record type number (RFC 1035 section 3.2.2 and IANA's registry); 1 = A, 28 = AAAA.
    pub qtype: u16,
    /// How it ended.
    #[serde(default)]
    pub status: DnsStatus,
    /// Response code (RFC 1035 section 4.1.1, RFC 6895): 0 NOERROR, 3 NXDOMAIN. `None`: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rcode: Option<u16>,
    /// At most [`ANSWERS_MAX`](super::ANSWERS_MAX).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<Answer>,
    /// Smallest time to live of the address answers in seconds, where seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u32>,
    /// The server that answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// Query to answer in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_us: Option<u32>,
    /// Which list or rule blocked it, where the resolver says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked_by: Option<String>,
    /// Collector that saw it: `dnsmasq-log`, `syslog`, `adguard`, `passive-dns`, `replay`.
    pub source: String,
}

impl Dns {
    /// Refused by the resolver: it says so, or every address it gave leads nowhere
    /// (`0.0.0.0`, `::`), as seen from outside.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        let mut addresses = self.addresses().peekable();
        let sunk = addresses.peek().is_some() && addresses.all(|ip| ip.is_unspecified());
        sunk || self.status == DnsStatus::Blocked
    }

    /// The addresses among the answers.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.answers.iter().filter_map(|a| match a {
            Answer::Address(ip) => Some(*ip),
            _ => None,
        })
    }

    /// Where a client may go after this answer: its addresses, and the address hints of
    /// HTTPS and SVCB records, which clients use at once (RFC 9460 section 7.3).
    pub fn destinations(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses().chain(self.hints())
    }

    /// From the text that [`crate::dns_wire`] makes of such records.
    fn hints(&self) -> impl Iterator<Item = IpAddr> {
        let is_service = matches!(self.qtype, 64 | 65);
        let texts = self.answers.iter().filter(move |_| is_service).filter_map(|a| match a {
            Answer::Other(text) => Some(text.as_str()),
            _ => None,
        });
        let hints = texts.flat_map(|text| text.split(' ')).filter_map(|parameter| {
            parameter.strip_prefix("ipv4hint=").or_else(|| parameter.strip_prefix("ipv6hint="))
        });
        hints.flat_map(|hints| hints.split(',')).filter_map(|hint| hint.parse().ok().map(unmap))
    }
}
