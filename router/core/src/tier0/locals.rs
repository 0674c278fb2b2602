//! Which addresses are ours: clients of the house, not the internet.
//!
//! Private addresses are; so are the networks of the configuration, and the public IPv6
//! addresses of devices that showed themselves (neighbour table, leases): with IPv6 every
//! device has some, under a prefix that changes. A neighbour's public IPv4 address is the
//! provider's gateway, so those do not count.
//!
//! Bounded by [`SEEN_MAX`] addresses, forgotten after [`SEEN_KEEP`] without a sign of life.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::recent::Recent;
use crate::event::is_public;
use crate::time::Mono;

/// Most IPv6 addresses remembered: 80 devices with a dozen privacy addresses, four times.
const SEEN_MAX: usize = 4_096;
/// The neighbour table is reported every few minutes; a privacy address lives for a day.
const SEEN_KEEP: Duration = Duration::from_secs(86_400);

#[derive(Debug)]
pub(super) struct Locals {
    nets: Vec<IpNet>,
    seen: Recent<IpAddr>,
}

impl Locals {
    pub(super) fn new(nets: &[IpNet]) -> Self {
        Self { nets: nets.to_vec(), seen: Recent::new(SEEN_MAX, SEEN_KEEP) }
    }

    pub(super) fn reconfigure(&mut self, nets: &[IpNet]) {
        self.nets = nets.to_vec();
    }

    /// A device has shown itself at this address.
    pub(super) fn learn(&mut self, ip: IpAddr, now: Mono) {
        if ip.is_ipv6() && is_public(ip) && !self.seen.refresh(&ip, now) {
            self.seen.first(ip, now);
        }
    }

    pub(super) fn contain(&self, ip: IpAddr, now: Mono) -> bool {
        !is_public(ip) || within(&self.nets, ip) || self.seen.contains(&ip, now)
    }

    pub(super) fn len(&self) -> usize {
        self.seen.len()
    }
}

pub(super) fn within(nets: &[IpNet], ip: IpAddr) -> bool {
    nets.iter().any(|net| net.contains(&ip))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_configured_and_neighbours() {
        let mut locals = Locals::new(&["198.51.100.0/24".parse().unwrap()]);
        let now = Mono::from_nanos(0);
        let check = |locals: &Locals, ip: &str, expected: bool| {
            assert_eq!(locals.contain(ip.parse().unwrap(), now), expected, "{ip}");
        };
        check(&locals, "192.168.1.5", true);
        check(&locals, "198.51.100.7", true);
        check(&locals, "203.0.113.7", false);
        check(&locals, "2001:db8::5", false);
        locals.learn("2001:db8::5".parse().unwrap(), now);
        locals.learn("203.0.113.7".parse().unwrap(), now);
        check(&locals, "2001:db8::5", true);
        check(&locals, "203.0.113.7", false);
        assert_eq!(locals.len(), 1);
    }
}
