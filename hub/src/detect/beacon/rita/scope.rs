//! Which connections count: those that leave one's own networks, and those that ask a proxy
//! to leave for them.
//!
//! In: addresses and [`Settings`]. Out: yes or no. Pure.

use std::net::IpAddr;

use super::Settings;

/// Networks that are one's own unless settings say otherwise: RFC 1918, RFC 4193's local
/// half.
pub const INTERNAL: [&str; 4] = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fd00::/8"];

impl Settings {
    /// Is it one of one's own?
    #[must_use]
    pub fn is_internal(&self, ip: IpAddr) -> bool {
        self.internal.iter().any(|net| net.contains(&ip))
    }

    /// Does a connection count? `proxied`: the source asked a proxy at `dst` to go on.
    #[must_use]
    pub fn keeps(&self, src: IpAddr, dst: IpAddr, proxied: bool) -> bool {
        if nowhere(src) || nowhere(dst) {
            return false;
        }
        match (self.is_internal(src), self.is_internal(dst)) {
            (true, false) => true,
            (true, true) => proxied,
            (false, true) => self.external_to_internal || proxied,
            (false, false) => false,
        }
    }

    /// Does a question count? Those within one's own networks do: resolvers are there.
    #[must_use]
    pub fn keeps_question(&self, src: IpAddr, dst: Option<IpAddr>) -> bool {
        if nowhere(src) || dst.is_some_and(nowhere) {
            return false;
        }
        let to = dst.is_some_and(|dst| self.is_internal(dst));
        self.is_internal(src) || to && self.external_to_internal
    }
}

/// Addresses that lead to no other network: groups, everybody, nobody, oneself, link-local.
fn nowhere(ip: IpAddr) -> bool {
    let special = match ip {
        IpAddr::V4(ip) => ip.is_broadcast() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    special || ip.is_multicast() || ip.is_unspecified() || ip.is_loopback()
}
