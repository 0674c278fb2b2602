//! The addresses of the machine this runs on.
//!
//! In: the kernel's tables in `/proc`. Out: addresses, none where the tables cannot be read.
//! Called at the start and at reloads; some milliseconds with a large routing table.

use std::collections::BTreeSet;
use std::net::IpAddr;

/// The addresses this machine has now, besides loopback.
///
/// From the kernel's tables: `net/fib_trie` (an address in the line before `/32 host
/// LOCAL`) and `net/if_inet6` (32 hexadecimal digits first). By way of `/proc/self`, which
/// a service that may see only its own processes has too.
#[must_use]
pub fn read() -> BTreeSet<IpAddr> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let mut all = ipv4_of(&read("/proc/self/net/fib_trie"));
    all.extend(ipv6_of(&read("/proc/self/net/if_inet6")));
    all.retain(|ip| !ip.is_loopback());
    all
}

fn ipv4_of(trie: &str) -> BTreeSet<IpAddr> {
    let lines = trie.lines().zip(trie.lines().skip(1));
    lines
        .filter(|(_, next)| next.contains("/32 host LOCAL"))
        .filter_map(|(line, _)| line.rsplit(' ').next()?.parse().ok())
        .collect()
}

fn ipv6_of(table: &str) -> BTreeSet<IpAddr> {
    let addresses = table.lines().filter_map(|line| {
        let bits = u128::from_str_radix(line.split(' ').next()?, 16).ok()?;
        Some(std::net::Ipv6Addr::from(bits))
    });
    // Link-local addresses need a zone and are no way to reach a hub.
    addresses.filter(|ip| !ip.is_unicast_link_local()).map(IpAddr::V6).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_from_the_kernel() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 192.0.2.0\n        /24 link UNICAST\n     |-- 192.0.2.7\n        /32 host LOCAL\n     |-- 192.0.2.255\n        /32 link BROADCAST\n";
        assert_eq!(ipv4_of(trie), ["192.0.2.7".parse().unwrap()].into());
        let table = "00000000000000000000000000000001 01 80 10 80       lo\nfe800000000000000000000000000001 02 40 20 80     eth0\n20010db8000000000000000000000007 02 40 00 80     eth0\nnonsense\n";
        let expected = ["::1", "2001:db8::7"].map(|ip| ip.parse().unwrap());
        assert_eq!(ipv6_of(table), expected.into());
    }
}
