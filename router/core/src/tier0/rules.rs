//! The rules: one line for each detector, for status, documentation and tests.
//!
//! In: nothing, or the settings for the thresholds they stand for. Out: what each rule is
//! called, what it says, what it needs to see, from where on it speaks. The table of
//! detectors in the documentation is made of this.
//!
//! Invariants: sorted by name; every finding's rule is here; every rule counts its findings.

use super::{Found, Tier0Config};

/// What everybody should know about a detector.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// As in [`Finding::rule`](crate::finding::Finding::rule).
    pub name: &'static str,
    /// Its section below `tier0` in the configuration.
    pub section: &'static str,
    /// The status key under which its findings are counted.
    pub findings: &'static str,
    /// What it tells, in a few words.
    pub tells: &'static str,
    /// The events it is made of.
    pub needs: &'static str,
    /// From where on it speaks, in words, with the numbers of these settings.
    pub threshold: fn(&Tier0Config) -> String,
    /// Where it runs.
    pub runs: &'static str,
}

/// Tier-0 rules run wherever events pass.
const EVERYWHERE: &str = "router, hub";

/// Every rule, by name.
pub static RULES: [Rule; 15] = [
    Rule {
        name: "blocklist",
        section: "blocklist",
        findings: "tier0.blocklist.findings",
        tells: "a name on a list was asked for, an address on one connected to",
        needs: "DNS exchanges, flows, a list",
        threshold: |_| "any hit".into(),
        runs: EVERYWHERE,
    },
    Rule {
        name: "dga",
        section: "dga",
        findings: "tier0.dga.findings",
        tells: "names that look generated",
        needs: "DNS questions with their outcome",
        threshold: |c| {
            let c = &c.dga;
            format!(
                "{} missing domains of value {} in {} s; one of value {}",
                c.burst, c.suspicious, c.window_seconds, c.strong
            )
        },
        runs: EVERYWHERE,
    },
    Rule {
        name: "direct-ip",
        section: "direct_ip",
        findings: "tier0.direct_ip.findings",
        tells: "a connection that no DNS answer explains",
        needs: "flows, DNS answers",
        threshold: |c| format!("no answer within {} s", c.direct_ip.grace_seconds),
        runs: EVERYWHERE,
    },
    Rule {
        name: "dns-bypass",
        section: "dns_bypass",
        findings: "tier0.dns_bypass.findings",
        tells: "names resolved past the house's resolver",
        needs: "flows, DNS questions",
        threshold: |_| "any foreign resolver".into(),
        runs: EVERYWHERE,
    },
    Rule {
        name: "dns-rebinding",
        section: "dns_rebinding",
        findings: "tier0.dns_rebinding.findings",
        tells: "a public name that stands for a private address",
        needs: "DNS answers",
        threshold: |_| "any such answer".into(),
        runs: EVERYWHERE,
    },
    Rule {
        name: "dns-tunnel",
        section: "dns_tunnel",
        findings: "tier0.dns_tunnel.findings",
        tells: "data hidden in DNS names",
        needs: "DNS questions; connections, to tell names nobody uses",
        threshold: |c| {
            let c = &c.dns_tunnel;
            format!(
                "{} weighted bits in 15 min, {} in 6 h, {} short names in 15 min or {} in 2, \
                 below one domain",
                c.weight,
                c.trickle_weight,
                c.many_names,
                c.at_once()
            )
        },
        runs: EVERYWHERE,
    },
    Rule {
        name: "firewall",
        section: "firewall",
        findings: "tier0.firewall.findings",
        tells: "packets the firewall stopped",
        needs: "firewall events",
        threshold: |c| {
            let c = &c.firewall;
            format!(
                "any place; {} addresses or {} ports in {} s",
                c.scan_addresses, c.scan_ports, c.scan_seconds
            )
        },
        runs: EVERYWHERE,
    },
    Rule {
        name: "host-scan",
        section: "host_scan",
        findings: "tier0.host_scan.findings",
        tells: "one port tried at many addresses",
        needs: "flows, firewall events",
        threshold: |c| {
            format!("{} addresses in {} s", c.host_scan.addresses, c.host_scan.window_seconds)
        },
        runs: EVERYWHERE,
    },
    Rule {
        name: "long-flow",
        section: "long_flow",
        findings: "tier0.long_flow.findings",
        tells: "a connection that stays open for hours",
        needs: "flows with updates",
        threshold: |c| format!("{} h", c.long_flow.seconds / 3_600),
        runs: EVERYWHERE,
    },
    Rule {
        name: "new-device",
        section: "new_device",
        findings: "tier0.new_device.findings",
        tells: "a device that was never seen before",
        needs: "leases or the neighbour table",
        threshold: |c| format!("any, once {} s are learnt", c.new_device.learn_seconds),
        runs: EVERYWHERE,
    },
    Rule {
        name: "nxdomain-burst",
        section: "nxdomain_burst",
        findings: "tier0.nxdomain_burst.findings",
        tells: "many names that do not exist",
        needs: "DNS questions with their outcome",
        threshold: |c| {
            let c = &c.nxdomain_burst;
            format!(
                "{} missing names in {} s, {} below few domains",
                c.names, c.window_seconds, c.names_of_few
            )
        },
        runs: EVERYWHERE,
    },
    Rule {
        name: "port-scan",
        section: "port_scan",
        findings: "tier0.port_scan.findings",
        tells: "many ports of one address tried",
        needs: "flows, firewall events",
        threshold: |c| format!("{} ports in {} s", c.port_scan.ports, c.port_scan.window_seconds),
        runs: EVERYWHERE,
    },
    Rule {
        name: "query-rate",
        section: "query_rate",
        findings: "tier0.query_rate.findings",
        tells: "far more questions than usual",
        needs: "DNS questions",
        threshold: |c| {
            let c = &c.query_rate;
            format!(
                "{} below one domain or {} in {} s, and {} times the usual",
                c.queries, c.queries_all, c.window_seconds, c.times_usual
            )
        },
        runs: EVERYWHERE,
    },
    Rule {
        name: "unusual-port",
        section: "unusual_port",
        findings: "tier0.unusual_port.findings",
        tells: "a port a device never used",
        needs: "flows",
        threshold: |c| format!("{} h of learning", c.unusual_port.learning_seconds / 3_600),
        runs: EVERYWHERE,
    },
    Rule {
        name: "watched",
        section: "watched",
        findings: "tier0.watched.findings",
        tells: "a device asks for a watched name for the first time",
        needs: "DNS questions, names to watch",
        threshold: |_| "the first question of a device".into(),
        runs: EVERYWHERE,
    },
];

/// Findings made since the start, by rule.
#[derive(Debug, Default)]
pub(super) struct Made([u64; RULES.len()]);

impl Made {
    pub(super) fn count(&mut self, new: &[Found]) {
        for found in new {
            let row = RULES.iter().position(|rule| rule.name == found.finding.rule);
            debug_assert!(row.is_some(), "`{}` is not in RULES", found.finding.rule);
            if let Some(count) = row.and_then(|row| self.0.get_mut(row)) {
                *count += 1;
            }
        }
    }

    pub(super) fn status(&self) -> impl Iterator<Item = (&'static str, u64)> {
        RULES.iter().zip(self.0).map(|(rule, count)| (rule.findings, count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorted_and_named_alike() {
        assert!(RULES.is_sorted_by(|a, b| a.name < b.name));
        for rule in &RULES {
            assert_eq!(rule.section, rule.name.replace('-', "_"));
            assert_eq!(rule.findings, format!("tier0.{}.findings", rule.section));
        }
    }

    /// The sections exist, and the thresholds are made of their values.
    #[test]
    fn every_rule_has_its_settings() {
        let config = Tier0Config::default();
        let json = serde_json::to_value(&config).unwrap();
        for rule in &RULES {
            assert_eq!(json[rule.section]["enabled"], true, "{}", rule.name);
            let text = (rule.threshold)(&config);
            assert!(!text.is_empty() && text.is_ascii(), "{}: {text}", rule.name);
        }
    }
}
