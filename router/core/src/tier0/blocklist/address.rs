//! Addresses and networks on lists, and the hashes they are known by.
//!
//! An entry is a network, of one address mostly, and perhaps a port: `203.0.113.9`,
//! `203.0.113.0/24`, `203.0.113.9:8080`, `[2001:db8::1]:443`. In the compiled form it is a
//! hash among those of the names; a look-up hashes the address once for each length of
//! network that is on a list at all ([`Spans`]), the longest first.
//!
//! Pure. Budget: 50 ns for each length, nothing allocated. Invariants: a hash here begins
//! with a byte that no name's text has, so that names and addresses never meet; IPv4 in IPv6
//! clothes is IPv4.

use std::fmt;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use xxhash_rust::xxh3::xxh3_64;

use crate::event::is_public;

/// Shorter prefixes cover millions of strangers: no list means that.
const V4_PREFIX_MIN: u8 = 8;
/// A provider's whole allocation is a /20 to /32.
const V6_PREFIX_MIN: u8 = 16;
const V4_BITS: u8 = 32;
const V6_BITS: u8 = 128;

/// A network on a list, of one address mostly, and perhaps one port of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Indicator {
    net: IpNet,
    port: Option<u16>,
}

impl Indicator {
    /// Of one address.
    #[must_use]
    pub fn host(ip: IpAddr, port: Option<u16>) -> Self {
        Self { net: IpNet::from(ip.to_canonical()), port }
    }

    /// Of a network.
    #[must_use]
    pub fn net(net: IpNet) -> Self {
        let v4 = match net {
            IpNet::V6(v6) if v6.prefix_len() >= 96 => v6.addr().to_ipv4_mapped().zip(Some(v6)),
            _ => None,
        };
        let v4 = v4.and_then(|(v4, v6)| Ipv4Net::new(v4, v6.prefix_len() - 96).ok());
        Self { net: v4.map_or(net, IpNet::V4).trunc(), port: None }
    }

    /// The network.
    #[must_use]
    pub const fn network(self) -> IpNet {
        self.net
    }

    /// The port, where only one is meant.
    #[must_use]
    pub const fn port(self) -> Option<u16> {
        self.port
    }

    /// The shortest prefix that is taken from a list.
    pub(super) fn is_too_wide(self) -> bool {
        let least = if self.is_v4() { V4_PREFIX_MIN } else { V6_PREFIX_MIN };
        self.net.prefix_len() < least
    }

    /// Whether it lies in the internet: what a list says of private networks is about
    /// somebody else's.
    pub(super) fn is_public(self) -> bool {
        is_public(self.net.network()) && is_public(self.net.broadcast())
    }

    const fn is_v4(self) -> bool {
        matches!(self.net, IpNet::V4(_))
    }

    /// The hash it is known by.
    pub(super) fn hash(self) -> u64 {
        // Kind, length, port (0: any), address: no name's text begins with these kinds.
        let mut key = [0; 20];
        let port = self.port.unwrap_or(0).to_be_bytes();
        let octets: &[u8] = match self.net {
            IpNet::V4(net) => &net.network().octets(),
            IpNet::V6(net) => &net.network().octets(),
        };
        let head = [if self.is_v4() { 4 } else { 6 }, self.net.prefix_len(), port[0], port[1]];
        for (to, from) in key.iter_mut().zip(head.iter().chain(octets)) {
            *to = *from;
        }
        xxh3_64(key.get(..4 + octets.len()).unwrap_or_default())
    }
}

impl fmt::Display for Indicator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.net.prefix_len() == self.net.max_prefix_len();
        match (self.port, whole) {
            (Some(port), _) => std::net::SocketAddr::new(self.net.addr(), port).fmt(f),
            (None, true) => self.net.addr().fmt(f),
            (None, false) => self.net.fmt(f),
        }
    }
}

/// Which lengths of networks are on a list, so that only those are looked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Spans {
    /// Bit `length - 1`.
    pub(super) v4: u32,
    /// Bit `length - 1`.
    pub(super) v6: u128,
    /// Bit 0: IPv4 with a port, bit 1: IPv6 with a port.
    pub(super) ports: u8,
}

impl Spans {
    pub(super) fn add(&mut self, indicator: Indicator) {
        if indicator.port.is_some() {
            self.ports |= if indicator.is_v4() { 1 } else { 2 };
            return;
        }
        let length = u32::from(indicator.net.prefix_len());
        match (indicator.net, length.checked_sub(1)) {
            (IpNet::V4(_), Some(bit)) => self.v4 |= 1 << bit,
            (IpNet::V6(_), Some(bit)) => self.v6 |= 1 << bit,
            (_, None) => {}
        }
    }

    pub(super) fn merge(&mut self, other: Self) {
        self.v4 |= other.v4;
        self.v6 |= other.v6;
        self.ports |= other.ports;
    }

    /// Everything that may be listed and covers the address: with the port first, then the
    /// longest network.
    pub(super) fn covering(
        self,
        ip: IpAddr,
        port: Option<u16>,
    ) -> impl Iterator<Item = Indicator> + Clone {
        let ip = ip.to_canonical();
        let (bits, wanted, ports) = match ip {
            IpAddr::V4(_) => (V4_BITS, u128::from(self.v4), self.ports & 1),
            IpAddr::V6(_) => (V6_BITS, self.v6, self.ports & 2),
        };
        let exact = port.filter(|_| ports != 0).map(|port| Indicator::host(ip, Some(port)));
        let lengths = (1..=bits).rev().filter(move |length| wanted >> (length - 1) & 1 == 1);
        let nets = lengths.filter_map(move |length| {
            let net = match ip {
                IpAddr::V4(ip) => IpNet::V4(Ipv4Net::new(ip, length).ok()?.trunc()),
                IpAddr::V6(ip) => IpNet::V6(Ipv6Net::new(ip, length).ok()?.trunc()),
            };
            Some(Indicator { net, port: None })
        });
        exact.into_iter().chain(nets)
    }
}

/// The networks that make up a range, at most [`RANGE_NETS_MAX`]; `None` for none or more.
pub(super) fn range(from: IpAddr, to: IpAddr) -> Option<Vec<Indicator>> {
    let nets: Vec<IpNet> = match (from, to) {
        (IpAddr::V4(a), IpAddr::V4(b)) if a <= b => {
            ipnet::Ipv4Subnets::new(a, b, 0).map(IpNet::V4).take(RANGE_NETS_MAX + 1).collect()
        }
        (IpAddr::V6(a), IpAddr::V6(b)) if a <= b => {
            ipnet::Ipv6Subnets::new(a, b, 0).map(IpNet::V6).take(RANGE_NETS_MAX + 1).collect()
        }
        _ => return None,
    };
    (nets.len() <= RANGE_NETS_MAX).then(|| nets.into_iter().map(Indicator::net).collect())
}

/// Two for each bit of an IPv4 address.
const RANGE_NETS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn net(text: &str) -> Indicator {
        Indicator::net(text.parse().unwrap())
    }

    #[test]
    fn longest_first_and_only_what_is_there() {
        let mut spans = Spans::default();
        for text in ["198.51.100.0/24", "203.0.113.9/32", "10.0.0.0/8", "2001:db8::/32"] {
            spans.add(net(text));
        }
        spans.add(Indicator::host(ip("203.0.113.9"), Some(80)));
        let shown = |text: &str, port| -> Vec<String> {
            spans.covering(ip(text), port).map(|i| i.to_string()).collect()
        };
        let v4 = ["203.0.113.7:81", "203.0.113.7", "203.0.113.0/24", "203.0.0.0/8"];
        assert_eq!(shown("203.0.113.7", Some(81)), v4);
        assert_eq!(shown("::ffff:203.0.113.7", None), v4[1..]);
        assert_eq!(shown("2001:db8:7::1", Some(81)), ["2001:db8::/32"]);
    }

    #[test]
    fn hashes_differ_by_everything() {
        let one = net("203.0.113.0/24");
        let others = ["203.0.113.0/25", "203.0.112.0/24", "2001:db8::/24", "203.0.113.0/32"];
        assert!(others.iter().all(|other| net(other).hash() != one.hash()));
        let host = Indicator::host(ip("203.0.113.0"), Some(80));
        assert_ne!(host.hash(), net("203.0.113.0/32").hash());
        assert_eq!(Indicator::host(ip("::ffff:192.0.2.1"), None), net("192.0.2.1/32"));
        assert_eq!(net("::ffff:192.0.2.0/120"), net("192.0.2.0/24"));
        assert_eq!(net("203.0.113.77/24").hash(), one.hash(), "host bits mean nothing");
    }

    #[test]
    fn what_covers_strangers_or_is_private() {
        assert!(net("1.0.0.0/7").is_too_wide() && !net("1.0.0.0/8").is_too_wide());
        assert!(net("2000::/15").is_too_wide() && !net("2001::/16").is_too_wide());
        assert!(net("203.0.113.0/24").is_public() && net("2001:db8::/32").is_public());
        for private in ["10.0.0.0/8", "192.168.1.1/32", "127.0.0.0/8", "fe80::/64", "0.0.0.0/8"] {
            assert!(!net(private).is_public(), "{private}");
        }
    }

    #[test]
    fn ranges_become_networks() {
        let shown = |a: &str, b: &str| {
            let nets = range(ip(a), ip(b))?;
            Some(nets.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(shown("192.0.2.0", "192.0.2.255").as_deref(), Some("192.0.2.0/24"));
        assert_eq!(
            shown("192.0.2.1", "192.0.2.4").as_deref(),
            Some("192.0.2.1 192.0.2.2/31 192.0.2.4")
        );
        assert_eq!(shown("192.0.2.4", "192.0.2.1"), None);
        assert_eq!(shown("192.0.2.4", "2001:db8::1"), None);
        assert!(shown("0.0.0.1", "255.255.255.254").is_some());
    }
}
