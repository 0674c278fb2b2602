//! A public name that stands for a private address: rule `dns-rebinding`.
//!
//! A page of the attacker's site is allowed to talk to its own name; when that name next
//! stands for the router's or a printer's address, the page talks to that (CERT/CC
//! VU#800094, "DNS rebinding"). In: DNS exchanges with their answers. Out, once per client
//! and domain and `repeat_seconds`: the name, graver when it stood for a public address
//! before.
//!
//! Innocent answers of that shape do not count: the resolver's own data (hosts file, DHCP,
//! static), names of the house and reverse look-ups, refusals (`0.0.0.0`, or `127.0.0.1` for
//! a name on the resolver's list), blocklists asked by address or fingerprint, which answer
//! `127.0.0.x` (RFC 5782), and domains that are made for it (`allow`: media servers and NAS
//! give each device a name with a certificate). A domain that has only ever had private
//! addresses is a company's split horizon or a developer's aid as well as an attack's
//! second half: it is told as less grave.
//!
//! Budget: 0.1 us per exchange. Invariants: 130 kB; a bounded memory of what was told.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::moment::Moment;
use super::question::{Question, is_fingerprint};
use super::recent::Recent;
use super::sketch::Seen;
use super::{ConfigError, Found, domains, is_below, positive, score_range};
use crate::event::{Dns, DnsStatus};
use crate::finding::Finding;

/// Names remembered as standing for public addresses, in a day.
const PUBLIC_MAX: usize = 50_000;
/// Most (client, domain) remembered as told.
const TOLD_MAX: usize = 2_048;

/// Domains that give private addresses on purpose: each device of a house a name of its own.
/// Documented by their makers (Plex, Synology, Ubiquiti, Western Digital, Tailscale, AVM).
const MADE_FOR_IT: [&str; 7] = [
    "direct.quickconnect.to",
    "id.ui.direct",
    "myfritz.net",
    "mycloud.com",
    "plex.direct",
    "remotewd.com",
    "ts.net",
];

/// Settings of the dns-rebinding rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether the rule is on.
    pub enabled: bool,
    /// Domains that may stand for private addresses, with all below them: the house's own,
    /// the company's behind a VPN, and those made for it.
    pub allow: Vec<String>,
    /// The same is told once in this many seconds.
    pub repeat_seconds: u64,
    /// How grave it is for a name that stood for a public address before, 0 to 1.
    pub score: f64,
    /// How grave it is for any other.
    pub private_score: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            allow: MADE_FOR_IT.map(str::to_owned).into(),
            repeat_seconds: 3_600,
            score: 0.7,
            private_score: 0.4,
        }
    }
}

impl Config {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// The first key whose value makes no sense.
    pub fn validate(&self) -> Result<(), ConfigError> {
        positive("repeat_seconds", self.repeat_seconds)?;
        domains("allow", &self.allow)?;
        score_range("score", self.score)?;
        score_range("private_score", self.private_score)
    }
}

/// The detector.
#[derive(Debug)]
pub(super) struct Detector {
    config: Config,
    /// Names that stood for a public address.
    public: Seen,
    told: Recent<(IpAddr, u64)>,
}

impl Detector {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            config: config.clone(),
            public: Seen::new(PUBLIC_MAX, Duration::from_secs(86_400)),
            told: Recent::each(TOLD_MAX, config.repeat_seconds),
        }
    }

    pub(super) fn reconfigure(&mut self, config: &Config) {
        self.config = config.clone();
        self.told.every(config.repeat_seconds);
    }

    pub(super) fn on_dns(
        &mut self,
        at: Moment,
        dns: &Dns,
        question: &Question<'_>,
        found: &mut Vec<Found>,
    ) {
        if !self.config.enabled || dns.answers.is_empty() {
            return;
        }
        let Some(inside) = dns.addresses().find(|ip| is_inside(*ip)) else {
            if dns.addresses().any(|ip| !ip.is_unspecified()) {
                self.public.first(question.name_hash, at.steady);
            }
            return;
        };
        if is_usual(dns, question, inside) || is_below(&dns.name, &self.config.allow) {
            return;
        }
        let mixed = dns.addresses().any(|ip| !is_inside(ip) && !ip.is_unspecified());
        let changed = mixed || self.public.contains(question.name_hash);
        // A change is news even where the domain was told of before.
        let key = question.domain_hash ^ u64::from(changed);
        if !self.told.first((question.device, key), at.steady) {
            return;
        }
        let finding = tell(&self.config, dns, inside, changed);
        found.push(Found { time: at.time, finding });
    }

    pub(super) fn status(&self) -> [(&'static str, u64); 2] {
        [
            ("tier0.dns_rebinding.evicted", self.told.evicted()),
            ("tier0.dns_rebinding.saturated", self.public.saturated()),
        ]
    }
}

fn tell(config: &Config, dns: &Dns, inside: IpAddr, changed: bool) -> Finding {
    let (score, before) = if changed {
        (
            config.score,
            ", and for a public address too: a page of that site may reach into this network",
        )
    } else {
        (config.private_score, ": a public domain that points into this network")
    };
    let finding = Finding {
        rule: "dns-rebinding".into(),
        subject: dns.name.as_str().to_owned(),
        client: Some(dns.client),
        mac: dns.mac,
        score,
        why: format!("{} stands for the {} address {inside}{before}", dns.name, kind(inside)),
        evidence: Vec::new(),
    };
    finding
        .with("address", inside)
        .with("public_before", changed)
        .with("ttl", dns.ttl.map_or_else(|| "unknown".to_owned(), |ttl| ttl.to_string()))
        .with("source", &dns.source)
}

/// Inside the house or the asking machine: RFC 1918, 1122, 3927, 4193, 4291, 6598.
fn is_inside(ip: IpAddr) -> bool {
    kind_of(ip).is_some()
}

fn kind(ip: IpAddr) -> &'static str {
    kind_of(ip).unwrap_or("public")
}

fn kind_of(ip: IpAddr) -> Option<&'static str> {
    match ip.to_canonical() {
        IpAddr::V4(v4) => kind_v4(v4),
        IpAddr::V6(v6) => kind_v6(v6),
    }
}

fn kind_v4(ip: Ipv4Addr) -> Option<&'static str> {
    let [a, b, ..] = ip.octets();
    match ip {
        _ if ip.is_loopback() => Some("loopback"),
        _ if ip.is_private() => Some("private"),
        _ if ip.is_link_local() => Some("link-local"),
        _ if a == 100 && (64..128).contains(&b) => Some("carrier's private"),
        _ => None,
    }
}

fn kind_v6(ip: Ipv6Addr) -> Option<&'static str> {
    match ip {
        _ if ip.is_loopback() => Some("loopback"),
        _ if ip.is_unique_local() => Some("private"),
        _ if ip.is_unicast_link_local() => Some("link-local"),
        _ => None,
    }
}

/// Answers of that shape that no attacker gave.
fn is_usual(dns: &Dns, question: &Question<'_>, inside: IpAddr) -> bool {
    let own = matches!(dns.status, DnsStatus::Local | DnsStatus::Blocked);
    let asked_about = question.has_address() || question.sub.split('.').any(is_fingerprint);
    own || question.leads_nowhere()
        || dns.name.is_reverse()
        || (inside.is_loopback() && asked_about)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tier0::Tier0Config;
    use crate::tier0::tests::{Script, dns};

    const CLIENT: &str = "192.168.1.5";

    /// What is said of answers, one after the other.
    #[track_caller]
    fn check(answers: &[(&str, &[&str])], expected: &[&str]) {
        let mut s = Script::new(Tier0Config::default(), "dns-rebinding");
        for (second, (name, addresses)) in (0..).zip(answers) {
            s.dns(second, dns(CLIENT, name, addresses));
        }
        s.said(expected);
    }

    #[test]
    fn every_kind_of_inside() {
        for address in
            ["192.168.1.1", "10.0.0.1", "172.16.9.9", "127.0.0.1", "169.254.1.1", "100.64.0.1"]
        {
            check(&[("a.evil.example", &[address])], &["a.evil.example"]);
        }
        for address in ["::1", "fe80::1", "fd00::1", "::ffff:192.168.1.1"] {
            check(&[("a.evil.example", &[address])], &["a.evil.example"]);
        }
        check(&[("a.evil.example", &["203.0.113.9"])], &[]);
    }

    #[test]
    fn a_change_is_graver_and_news() {
        let name = "a.evil.example";
        check(&[(name, &["203.0.113.9"]), (name, &["192.168.1.1"])], &[name]);
        check(
            &[(name, &["192.168.1.1"]), (name, &["203.0.113.9"]), (name, &["192.168.1.1"])],
            &[name, name],
        );
        let mut s = Script::new(Tier0Config::default(), "dns-rebinding");
        s.dns(0, dns(CLIENT, name, &["203.0.113.9", "192.168.1.1"]));
        assert!(s.found[0].finding.score >= 0.7, "both at once");
    }

    #[test]
    fn once_for_a_domain() {
        check(
            &[("a.evil.example", &["10.0.0.1"]), ("b.evil.example", &["10.0.0.1"])],
            &["a.evil.example"],
        );
    }

    #[test]
    fn innocent() {
        check(&[("nas.fritz.box", &["192.168.1.2"])], &[]);
        check(&[("tv.local", &["192.168.1.2"])], &[]);
        check(&[("nas", &["192.168.1.2"])], &[]);
        check(&[("1-2-3-4.abc.plex.direct", &["192.168.1.2"])], &[]);
        check(&[("4.3.2.192.list.example", &["127.0.0.2"])], &[]);
        check(&[("d41d8cd98f00b204e9800998ecf8427e.av.example", &["127.0.0.4"])], &[]);
        check(&[("ads.example", &["0.0.0.0"])], &[]);
        check(&[("ads.example", &["::"])], &[]);
        let mut s = Script::new(Tier0Config::default(), "dns-rebinding");
        for status in [DnsStatus::Local, DnsStatus::Blocked] {
            s.dns(0, Dns { status, ..dns(CLIENT, "nas.house.example", &["192.168.1.2"]) });
        }
        s.said(&[]);
    }
}
