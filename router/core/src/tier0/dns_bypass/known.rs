//! Public resolvers that take questions over HTTPS, by name and by address.
//!
//! Taken in November 2026 from what their operators publish: developers.google.com/speed/
//! public-dns, developers.cloudflare.com/1.1.1.1, quad9.net/service, support.opendns.com,
//! adguard-dns.io/kb, help.nextdns.io, cleanbrowsing.org/filters, controld.com/free-dns,
//! mullvad.net/help, alidns.com, docs.dnspod.cn, dns0.eu, support.mozilla.org (canary name).
//! The configuration adds to it. Not all there are: a private one is found by nobody's list,
//! but by connections that no DNS answer explains (rule `direct-ip`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Asked by browsers that use their own resolver unless this does not exist (Mozilla).
pub(super) const CANARY: &str = "use-application-dns.net";

/// Names of resolvers; those below them too.
pub(super) const NAMES: [&str; 32] = [
    "adfree.usableprivacy.net",
    "chrome.cloudflare-dns.com",
    "cloudflare-dns.com",
    "dns-family.adguard.com",
    "dns-unfiltered.adguard.com",
    "dns.adguard-dns.com",
    "dns.adguard.com",
    "dns.alidns.com",
    "dns.controld.com",
    "dns.digitale-gesellschaft.ch",
    "dns.google",
    "dns.mullvad.net",
    "dns.nextdns.io",
    "dns.quad9.net",
    "dns.switch.ch",
    "dns.twnic.tw",
    "dns0.eu",
    "dns10.quad9.net",
    "dns11.quad9.net",
    "dns9.quad9.net",
    "doh.apple.com",
    "doh.cleanbrowsing.org",
    "doh.dns.apple.com",
    "doh.dns.sb",
    "doh.familyshield.opendns.com",
    "doh.opendns.com",
    "doh.pub",
    "doh.xfinity.com",
    "family.adguard-dns.com",
    "freedns.controld.com",
    "one.one.one.one",
    "unfiltered.adguard-dns.com",
];

/// IPv4 resolvers that speak HTTPS on their own address.
const V4: [[u8; 4]; 30] = [
    [1, 0, 0, 1],
    [1, 0, 0, 2],
    [1, 0, 0, 3],
    [1, 1, 1, 1],
    [1, 1, 1, 2],
    [1, 1, 1, 3],
    [1, 12, 12, 12],
    [8, 8, 4, 4],
    [8, 8, 8, 8],
    [9, 9, 9, 9],
    [9, 9, 9, 10],
    [9, 9, 9, 11],
    [76, 76, 2, 0],
    [76, 76, 10, 0],
    [94, 140, 14, 14],
    [94, 140, 14, 15],
    [94, 140, 15, 15],
    [94, 140, 15, 16],
    [120, 53, 53, 53],
    [149, 112, 112, 10],
    [149, 112, 112, 11],
    [149, 112, 112, 112],
    [185, 228, 168, 168],
    [185, 228, 169, 168],
    [193, 110, 81, 0],
    [194, 242, 2, 2],
    [208, 67, 220, 220],
    [208, 67, 222, 222],
    [223, 5, 5, 5],
    [223, 6, 6, 6],
];

/// The same for IPv6.
const V6: [[u16; 8]; 12] = [
    [0x2001, 0x4860, 0x4860, 0, 0, 0, 0, 0x8844],
    [0x2001, 0x4860, 0x4860, 0, 0, 0, 0, 0x8888],
    [0x2606, 0x4700, 0x4700, 0, 0, 0, 0, 0x1001],
    [0x2606, 0x4700, 0x4700, 0, 0, 0, 0, 0x1111],
    [0x2606, 0x4700, 0x4700, 0, 0, 0, 0, 0x1112],
    [0x2606, 0x4700, 0x4700, 0, 0, 0, 0, 0x1113],
    [0x2620, 0xfe, 0, 0, 0, 0, 0, 0x9],
    [0x2620, 0xfe, 0, 0, 0, 0, 0, 0xfe],
    [0x2620, 0x119, 0x35, 0, 0, 0, 0, 0x35],
    [0x2620, 0x119, 0x53, 0, 0, 0, 0, 0x53],
    [0x2a10, 0x50c0, 0, 0, 0, 0, 0xad1, 0xff],
    [0x2a10, 0x50c0, 0, 0, 0, 0, 0xad2, 0xff],
];

/// Whether a resolver known by its address is there.
pub(super) fn is_address(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => V4.iter().any(|octets| Ipv4Addr::from(*octets) == v4),
        IpAddr::V6(v6) => V6.iter().any(|segments| Ipv6Addr::from(*segments) == v6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::is_public;

    #[test]
    fn the_tables_are_in_order() {
        assert!(NAMES.is_sorted_by(|a, b| a < b));
        assert!(V4.is_sorted_by(|a, b| a < b) && V6.is_sorted_by(|a, b| a < b));
        assert!(V4.iter().all(|a| is_public(Ipv4Addr::from(*a).into())));
        assert!(is_address("1.1.1.1".parse().unwrap()));
        assert!(is_address("2620:fe::fe".parse().unwrap()));
        assert!(!is_address("203.0.113.9".parse().unwrap()));
    }
}
