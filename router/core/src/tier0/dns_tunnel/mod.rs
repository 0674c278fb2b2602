//! Data hidden in DNS names: rule `dns-tunnel`.
//!
//! Whoever controls a domain's server gets every name asked below it, through any resolver:
//! a way out of a network that lets nothing else out (ATT&CK T1071.004, T1048). In: DNS
//! exchanges, and connections for what speaks against it. Out, once per `repeat_seconds`:
//! - `DOMAIN`, of one client: it sends data below that domain;
//! - `DOMAIN`, of nobody: several devices do, each too little to be told alone.
//!
//! Method, in the spirit of ibHH (Ozery, Nadler, Shabtai 2023, arXiv 2307.02614): count only
//! what *new* names say ([`information`]), weigh it ([`trail`]: long names, odd bytes and odd
//! types more), and let it fade, for each (device, domain) and each domain, in tables of
//! fixed size. Length or entropy of a single name decides nothing: scanners' fingerprints,
//! mail blocklists, cache busters and counters are new names too, but say little each, are
//! shared, or are connected to. Names that a device asks for and never connects to, while it
//! does with others ([`habits`]), are suspicious in smaller numbers. Data goes to the domain's owner, so those who run
//! reputation services (`allow`) are no tunnel's end.
//!
//! Budget: 1 us per exchange; 2.2 MB, allocated at the start. Invariants: nothing grows;
//! what was full is counted; refused questions never left and do not count.

mod habits;
mod information;
mod trail;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::moment::Moment;
use super::question::Question;
use super::recent::Recent;
use super::sketch::{Kept, Seen, Table, mix, of_ip};
use super::{ConfigError, Found, positive, score_range};
use crate::event::{Dns, Flow, FlowPhase};
use crate::finding::Finding;
use crate::names::who;
use crate::time::Mono;
use habits::Habits;
use information::Information;
use trail::{Trail, Use, Weight};

/// Names remembered as asked, in an hour: twice what 500 devices ask for.
const NAMES_MAX: usize = 200_000;
/// Labels remembered as used, in a day.
const LABELS_MAX: usize = 300_000;
/// Rows of four (device, domain) pairs.
const PAIRS_ROWS: usize = 2_048;
/// Rows of four domains.
const DOMAINS_ROWS: usize = 1_024;
/// Most (device, domain) remembered as told.
const TOLD_MAX: usize = 4_096;
/// Least names: fewer are an accident.
const NAMES_LEAST: f32 = 3.9;
/// How much more the whole network must send than one device.
const NETWORK: f32 = 2.0;
/// What part of `many_names` is told of names that nobody connects to.
const NEVER_CONNECTED: f32 = 0.4;
/// What part of `weight` is told of long names below a domain that one device has to itself.
const ALONE: f32 = 0.35;
/// Names in the domain of a key for the whole network.
const EVERYBODY: u64 = 0;

/// Settings of the dns-tunnel rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether the rule is on.
    pub enabled: bool,
    /// Weighted bits in new names below one domain, fading by half in 15 minutes, that are
    /// a tunnel. A name of 200 random characters weighs 3,700, a fingerprint 10.
    pub weight: u32,
    /// The same for long names that trickle, fading by half in 6 hours.
    pub trickle_weight: u32,
    /// So many new short names of one client below one domain, fading by half in 15
    /// minutes, are told too; fewer when they come at once or lead to no connection.
    pub many_names: u32,
    /// The same is told once in this many seconds.
    pub repeat_seconds: u64,
    /// How grave it is, 0 to 1.
    pub score: f64,
    /// Domains that may be told things: the house's own, and services that are asked by
    /// fingerprint or address. With all below them.
    pub allow: Vec<String>,
}

/// Reputation services that document look-ups by DNS: scanners and mail filters ask them
/// about fingerprints and addresses. Taken from their own documentation, November 2026.
const SERVICES: [&str; 14] = [
    "abuseat.org",
    "barracudacentral.org",
    "cymru.com",
    "dnswl.org",
    "e5.sk",
    "mcafee.com",
    "senderbase.org",
    "sophosxl.net",
    "spamcop.net",
    "spamhaus.net",
    "spamhaus.org",
    "surbl.org",
    "trendmicro.com",
    "uribl.com",
];

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            weight: 8_000,
            trickle_weight: 24_000,
            many_names: 240,
            repeat_seconds: 3_600,
            score: 0.7,
            allow: SERVICES.map(str::to_owned).into(),
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
        for (key, n) in [
            ("weight", self.weight),
            ("trickle_weight", self.trickle_weight),
            ("many_names", self.many_names),
        ] {
            positive(key, u64::from(n))?;
        }
        super::domains("allow", &self.allow)?;
        score_range("score", self.score)
    }
}

#[derive(Debug, Default)]
struct Domain {
    trail: Trail,
    seen: Use,
}

impl Kept for Domain {
    fn worth(&self, at: Mono) -> f32 {
        self.trail.worth(at)
    }
}

/// Why it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Data,
    Trickle,
    ManyNames,
}

/// The detector.
#[derive(Debug)]
pub(super) struct Detector {
    config: Config,
    names: Seen,
    labels: Seen,
    pairs: Table<Trail>,
    domains: Table<Domain>,
    told: Recent<u64>,
    habits: Habits,
}

impl Detector {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            config: config.clone(),
            names: Seen::new(NAMES_MAX, Duration::from_secs(3_600)),
            labels: Seen::new(LABELS_MAX, Duration::from_secs(86_400)),
            pairs: Table::new(PAIRS_ROWS),
            domains: Table::new(DOMAINS_ROWS),
            told: Recent::each(TOLD_MAX, config.repeat_seconds),
            habits: Habits::default(),
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
        if !self.config.enabled || question.sub.is_empty() || question.leads_nowhere() {
            return;
        }
        let own = mix(question.name_hash, question.device_hash);
        let first_of_device = self.names.first(own, at.steady);
        if first_of_device {
            self.habits.asks(question.device_hash, at.steady);
        }
        if !self.names.first(question.name_hash, at.steady) {
            if first_of_device && let Some(domain) = self.domains.get_mut(question.domain_hash) {
                domain.seen.shared = domain.seen.shared.saturating_add(1);
                domain.seen.by(question.device_hash);
            }
            return;
        }
        if dns.is_refused() || super::is_below(&dns.name, &self.config.allow) {
            return;
        }
        self.weigh(at, dns, question, found);
    }

    /// A name that nobody has asked for within the last hour or two.
    fn weigh(&mut self, at: Moment, dns: &Dns, question: &Question<'_>, found: &mut Vec<Found>) {
        let pair = self.pairs.get_mut(question.pair());
        let before = pair.and_then(|pair| pair.before.clone());
        let before = before.as_ref().map(|name| name.as_str());
        let before = before.and_then(|name| name.strip_suffix(question.domain));
        let before = before.and_then(|sub| sub.strip_suffix('.'));
        let info = Information::of(question, before, &mut self.labels, at.steady);
        let weight = Weight::of(dns, question, info);
        if weight.fast <= 0.0 {
            return;
        }
        let (domain, _) = self.domains.entry(question.domain_hash, at.steady);
        domain.seen.by(question.device_hash);
        domain.seen.names = domain.seen.names.saturating_add(1);
        domain.trail.fade(at.steady);
        domain.trail.add(&dns.name, weight);
        let (pair, _) = self.pairs.entry(question.pair(), at.steady);
        pair.fade(at.steady);
        pair.add(&dns.name, weight);
        let grounds = Grounds {
            trust: domain.seen.trust(),
            unused: domain.seen.is_never_connected()
                && self.habits.connects(question.device_hash, at.steady),
            alone: domain.seen.is_alone(),
        };
        if let Some(reason) = self.config.judge(pair, grounds) {
            if self.told.first(question.pair(), at.steady) {
                let tell = tell(&self.config, dns, question, reason, pair, &domain.seen);
                found.push(Found { time: at.time, finding: tell });
            }
            return;
        }
        let all = Grounds { trust: grounds.trust * NETWORK, unused: false, alone: false };
        let everybody = self.config.judge(&domain.trail, all);
        let devices = domain.seen.devices();
        if let Some(reason) = everybody.filter(|r| *r != Reason::ManyNames && devices > 1)
            && self.told.first(mix(question.domain_hash, EVERYBODY), at.steady)
        {
            let mut finding =
                tell(&self.config, dns, question, reason, &domain.trail, &domain.seen);
            (finding.client, finding.mac) = (None, None);
            found.push(Found { time: at.time, finding });
        }
    }

    /// Somebody connects to what a name below the domain stands for.
    pub(super) fn on_flow(&mut self, at: Moment, flow: &Flow) {
        let Some(resolved) = flow.resolved.as_ref() else { return };
        if !self.config.enabled || flow.phase == FlowPhase::Update {
            return;
        }
        self.habits.connected(of_ip(who(flow.mac, flow.src.ip)), at.steady);
        let domain = xxhash_rust::xxh3::xxh3_64(resolved.name.domain().as_bytes());
        if let Some(domain) = self.domains.get_mut(domain) {
            domain.seen.connections = domain.seen.connections.saturating_add(1);
        }
    }

    pub(super) fn status(&self) -> [(&'static str, u64); 4] {
        let size = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        [
            ("tier0.dns_tunnel.domains", size(self.domains.len())),
            (
                "tier0.dns_tunnel.evicted",
                self.pairs.evicted() + self.domains.evicted() + self.told.evicted(),
            ),
            ("tier0.dns_tunnel.pairs", size(self.pairs.len())),
            ("tier0.dns_tunnel.saturated", self.names.saturated() + self.labels.saturated()),
        ]
    }
}

/// What speaks for and against a domain besides its names.
#[derive(Clone, Copy, Debug)]
struct Grounds {
    /// How much more it takes to be suspicious.
    trust: f32,
    /// The device connects to what it asks for, but never to names of these.
    unused: bool,
    /// Nobody else asks below the domain.
    alone: bool,
}

impl Config {
    fn judge(&self, trail: &Trail, grounds: Grounds) -> Option<Reason> {
        let more = |sum: f32, limit: u32| sum >= limit as f32 * grounds.trust;
        let alone = grounds.alone && trail.long >= self.weight as f32 * ALONE;
        if (alone || more(trail.fast, self.weight)) && trail.names >= NAMES_LEAST {
            Some(Reason::Data)
        } else if more(trail.slow, self.trickle_weight) && trail.names_slow >= NAMES_LEAST {
            Some(Reason::Trickle)
        } else if self.are_many(trail, grounds) {
            Some(Reason::ManyNames)
        } else {
            None
        }
    }
}

impl Config {
    /// So many short names are too many within [`trail::BURST`].
    pub(super) const fn at_once(&self) -> u32 {
        self.many_names.saturating_mul(5) / 12
    }

    fn are_many(&self, trail: &Trail, grounds: Grounds) -> bool {
        let Grounds { trust, unused, .. } = grounds;
        let many = self.many_names as f32 * trust;
        trail.burst >= self.at_once() as f32 * trust
            || trail.short >= many * if unused { NEVER_CONNECTED } else { 1.0 }
            || unused && trail.short_slow >= many
    }
}

fn tell(
    config: &Config,
    dns: &Dns,
    question: &Question<'_>,
    reason: Reason,
    trail: &Trail,
    seen: &Use,
) -> Finding {
    let (names, bits, span) = match reason {
        Reason::Trickle => (trail.names_slow, trail.bits_slow, "6 hours"),
        Reason::Data | Reason::ManyNames => (trail.names, trail.bits, "15 minutes"),
    };
    let odd = trail.odd * 2.0 >= trail.names;
    let (score, what) = match reason {
        Reason::ManyNames => (config.score * 0.7, "as a slow tunnel or a search for names does"),
        Reason::Data if odd || trail.fast >= config.weight as f32 * 8.0 => {
            ((config.score * 1.2).min(1.0), "as a tunnel through DNS does")
        }
        Reason::Data | Reason::Trickle => (config.score, "as a tunnel through DNS does"),
    };
    let finding = Finding {
        rule: "dns-tunnel".into(),
        subject: question.domain.to_owned(),
        client: Some(dns.client),
        mac: dns.mac,
        score,
        why: format!(
            "sent about {:.0} bytes in {names:.0} new names below {} within {span}, {what}",
            bits / 8.0,
            question.domain,
        ),
        evidence: Vec::new(),
    };
    let yes = |yes: bool| if yes { "yes" } else { "no" };
    finding
        .with("names", format!("{names:.0}"))
        .with("bits_per_name", format!("{:.0}", bits / names.max(1.0)))
        .with("odd_names", format!("{:.0}", trail.odd))
        .with("type", dns.qtype)
        .with("devices", seen.devices())
        .with("names_shared", yes(seen.is_shared()))
        .with("connected_to", yes(seen.is_connected()))
        .with("latest", &dns.name)
        .with("source", &dns.source)
}

#[cfg(test)]
mod tests;
