//! Addresses: with a port, out of their IPv6 clothes, and which of them are public.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Address and port; for ICMP the port is 0 on the source and `type << 8 | code` on the
/// destination side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Endpoint {
    /// IPv4 or IPv6.
    pub ip: IpAddr,
    /// Port in host order.
    pub port: u16,
}

impl Endpoint {
    /// Shorthand.
    #[must_use]
    pub const fn new(ip: IpAddr, port: u16) -> Self {
        Self { ip, port }
    }
}
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::net::SocketAddr::new(self.ip, self.port).fmt(f)
    }
}

/// `::ffff:192.0.2.1` -> `192.0.2.1`; all else unchanged.
#[must_use]
pub fn unmap(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

/// A globally routable unicast address: not private, loopback, link-local, shared (RFC
/// 6598), documentation, multicast or reserved (IANA special-purpose address registries).
///
/// The documentation ranges (RFC 5737, RFC 3849) count as public on purpose: no real
/// traffic carries them, and laboratories use them as "the internet".
#[must_use]
pub fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            !(v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_broadcast()
                || a == 0
                || a >= 240
                || (a == 100 && (64..128).contains(&b))
                || (a == 192 && b == 0 && c == 0)
                || (a == 198 && (18..20).contains(&b)))
        }
        IpAddr::V6(v6) => {
            let s = v6.segments();
            // Global unicast is 2000::/3; 64:ff9b::/96 is NAT64 to public IPv4 (RFC 6052).
            (s[0] & 0xe000 == 0x2000) || (s[0] == 0x64 && s[1] == 0xff9b)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_addresses() {
        for public in ["8.8.8.8", "203.0.113.7", "2001:db8::1", "2a00:1450::1", "64:ff9b::808:808"]
        {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for private in [
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "127.0.0.1",
            "169.254.1.1",
            "100.64.0.1",
            "224.0.0.251",
            "255.255.255.255",
            "0.0.0.0",
            "198.18.0.1",
            "::1",
            "fe80::1",
            "fd00::1",
            "ff02::fb",
            "::ffff:10.0.0.1",
        ] {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
    }
}
