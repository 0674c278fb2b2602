//! Findings that sum up others: a burst of generated names says what each of the names
//! said before it.
//!
//! In: the rule and subject of findings about one client. Out: which of them says the other
//! one too, so that whoever tells people tells them once. Pure; each detector knows its own
//! subjects.
//!
//! Invariants: nothing sums up itself; of two findings at most one sums up the other.

use std::net::{IpAddr, SocketAddr};

/// What a finding says besides its own subject, about the same client and by the same rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sum<'a> {
    /// Whatever the rule found.
    All,
    /// Whatever the rule found, besides what stands under this subject.
    AllBut(&'a str),
    /// What concerns services of this address.
    Address(&'a str),
}

/// The rules that have findings which sum up others.
pub const RULES: [&str; 4] = ["dga", "direct-ip", "firewall", "unusual-port"];

impl<'a> Sum<'a> {
    /// What a finding of this rule and subject sums up; `None` for one about a single thing.
    #[must_use]
    pub fn of(rule: &str, subject: &'a str) -> Option<Self> {
        match rule {
            "dga" => super::dga::sum(subject),
            "direct-ip" => super::direct_ip::sum(subject),
            "firewall" => super::firewall::sum(subject),
            "unusual-port" => super::unusual_port::sum(subject),
            _ => None,
        }
    }

    /// Whether it says what a finding of the same rule about `subject` says.
    #[must_use]
    pub fn covers(self, rule: &str, subject: &str) -> bool {
        match self {
            Self::All => !matches!(Sum::of(rule, subject), Some(Sum::All)),
            Self::AllBut(more) => Sum::of(rule, subject).is_none() && subject != more,
            Self::Address(address) => is_at(subject, address),
        }
    }
}

/// `192.0.2.1:23/tcp`, `192.0.2.1/icmp`, `[2001:db8::1]:23/tcp` are at their address.
fn is_at(place: &str, address: &str) -> bool {
    let Some((place, _proto)) = place.rsplit_once('/') else { return false };
    let ip = place.parse::<SocketAddr>().map(|at| at.ip()).or_else(|_| place.parse::<IpAddr>());
    ip.is_ok() && ip.ok() == address.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_are_those_with_sums() {
        let subjects = ["burst", "many addresses", "fan-out", "many ports"];
        for (rule, subject) in RULES.iter().zip(subjects) {
            assert!(Sum::of(rule, subject).is_some(), "{rule}");
        }
    }

    #[track_caller]
    fn check(rule: &str, wide: &str, narrow: &str, expected: bool) {
        let covers = |a, b| Sum::of(rule, a).is_some_and(|sum| sum.covers(rule, b));
        assert_eq!(covers(wide, narrow), expected, "{rule}: {wide} over {narrow}");
        assert!(!expected || !covers(narrow, wide), "{rule}: {narrow} over {wide} as well");
    }

    #[test]
    fn wide_says_narrow_and_never_the_other_way() {
        check("dga", "burst", "qxkzv.example", true);
        check("dga", "burst", "unknown names", true);
        check("dga", "burst", "burst", false);
        check("dga", "unknown names", "qxkzv.example", true);
        check("dga", "unknown names", "burst", false);
        check("dga", "unknown names", "unknown names", false);
        check("dga", "a.example", "b.example", false);
        check("direct-ip", "many addresses", "203.0.113.9:443/tcp", true);
        check("direct-ip", "many addresses", "many addresses", false);
        check("firewall", "fan-out", "192.0.2.1:23/tcp", true);
        check("firewall", "fan-out", "many ports of 192.0.2.1", true);
        check("firewall", "fan-out", "fan-out", false);
        check("unusual-port", "many ports", "4444/tcp", true);
        check("blocklist", "burst", "a.example", false);
    }

    #[test]
    fn many_ports_are_those_of_one_address() {
        let v4 = "many ports of 192.0.2.1";
        check("firewall", v4, "192.0.2.1:23/tcp", true);
        check("firewall", v4, "192.0.2.1/icmp", true);
        check("firewall", v4, "192.0.2.10:23/tcp", false);
        check("firewall", v4, "192.0.2.2:23/tcp", false);
        check("firewall", v4, v4, false);
        let v6 = "many ports of 2001:db8::1";
        check("firewall", v6, "[2001:db8::1]:23/tcp", true);
        check("firewall", v6, "2001:db8::1/icmpv6", true);
        check("firewall", v6, "[2001:db8::1:2]:23/tcp", false);
        check("firewall", "many ports of x", "x:23/tcp", false);
        check("firewall", v6, "nowhere", false);
    }
}
