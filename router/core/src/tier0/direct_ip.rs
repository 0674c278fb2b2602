//! Connections that no DNS answer explains: rule `direct-ip`.
//!
//! In: flows of local clients to public addresses, and the memory of names. Out: a finding
//! for each (client, address) that the client never resolved, once per `repeat_seconds`;
//! when a client does so with many addresses (its own resolver over HTTPS, a game, a
//! peer-to-peer program), one finding says so in place of hundreds.
//!
//! An answer reaches the client before the client connects, but may reach us after the
//! connection, so a verdict waits for `grace_seconds`. How late answers are: on the wire
//! (passive DNS) 0.15 s at most, the kernel's batch and the reader's nap; in the resolver's
//! log 0.5 s, since dnsmasq writes each line at once, the log is looked at five times a
//! second and an answer ends with 0.3 s of silence; conntrack's own nap lets the connection
//! come later too. The default is six times that, and lets the alert be at the hub within
//! five seconds of the connection. Answers that came late and were in time are counted:
//! where there are many, or a resolver's log comes over a network, wait longer.
//!
//! Answers from before the start are unknown, so what is connected to during
//! `startup_grace_seconds` is learnt and not reported as long as it keeps being used. Where
//! no DNS answer is ever seen nothing is said.
//!
//! Budget: 0.2 us per flow. Invariants: all memories bounded and counted; grace periods run
//! in steady time; an answer explains a connection whatever the wall clock did in between.

use std::collections::{HashSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::clients::Clients;
use super::locals::{Locals, within};
use super::moment::Moment;
use super::recent::Recent;
use super::sum::Sum;
use super::{ConfigError, Found, positive, score_range};
use crate::event::{Flow, Mac};
use crate::finding::Finding;
use crate::names::{Names, who};
use crate::service::{Service, proto};
use crate::time::Mono;

/// Most (client, address) pairs remembered as told, and as learnt at the start.
const PAIRS_MAX: usize = 8_192;
/// Most verdicts waiting for the grace period.
const PENDING_MAX: usize = 4_096;
/// Subject of the finding about many addresses.
const MANY_ADDRESSES: &str = "many addresses";
/// How long what was learnt at the start is kept without being used.
const LEARNT_KEEP: Duration = Duration::from_secs(86_400);

/// Settings of the direct-ip rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether the rule is on.
    pub enabled: bool,
    /// How long to wait for the DNS answer that explains a connection. 3 suits answers seen
    /// on the wire or in a log on this machine; a log from afar may need more.
    pub grace_seconds: u64,
    /// For so long after the start, unexplained addresses are learnt and not reported:
    /// nobody knows what was resolved before. `status` shows how long this still takes.
    pub startup_grace_seconds: u64,
    /// The same client and address are reported once in this many seconds.
    pub repeat_seconds: u64,
    /// More unexplained addresses of one client than this within `repeat_seconds` are one
    /// finding.
    pub many: u32,
    /// How grave it is, 0 to 1.
    pub score: f64,
    /// Destinations that are never reported: `198.51.100.0/24`, `2001:db8::/32`.
    pub allow: Vec<IpNet>,
    /// Clients that are never reported.
    pub ignore_clients: Vec<IpNet>,
    /// Ports used by address everywhere: `123/udp` is NTP.
    pub allow_services: Vec<Service>,
    /// The resolvers clients may ask by address (ports 53 and 853). Empty: any.
    pub resolvers: Vec<IpNet>,
    /// Whether ICMP (ping) counts as a connection.
    pub icmp: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            grace_seconds: 3,
            startup_grace_seconds: 300,
            repeat_seconds: 3_600,
            many: 20,
            score: 0.5,
            allow: Vec::new(),
            ignore_clients: Vec::new(),
            allow_services: vec![Service { port: 123, proto: proto::UDP }],
            resolvers: Vec::new(),
            icmp: false,
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
        positive("many", u64::from(self.many))?;
        if self.grace_seconds > 300 {
            return Err(ConfigError::new("grace_seconds", "must be at most 300"));
        }
        score_range("score", self.score)
    }

    /// A connection this rule has an opinion about.
    fn concerns(&self, flow: &Flow, own: impl Fn(IpAddr) -> bool) -> bool {
        let (client, dst) = (flow.src.ip, flow.dst.ip);
        let icmp = flow.proto == proto::ICMP || flow.proto == proto::ICMPV6;
        own(client)
            && !own(dst)
            && !(dst.is_multicast() || client.is_unspecified() || client.is_loopback())
            // Redirected to a machine of ours: it never left.
            && flow.nat_dst.is_none_or(|to| !own(to.ip))
            && (self.icmp || !icmp)
            && !self.is_allowed(flow)
    }

    fn is_allowed(&self, flow: &Flow) -> bool {
        let service = Service { port: flow.dst.port, proto: flow.proto };
        let transport = flow.proto == proto::UDP || flow.proto == proto::TCP;
        let dns = transport && (service.port == 53 || service.port == 853);
        self.allow_services.contains(&service)
            || (dns && (self.resolvers.is_empty() || within(&self.resolvers, flow.dst.ip)))
            || within(&self.allow, flow.dst.ip)
            || within(&self.ignore_clients, flow.src.ip)
    }
}

/// A verdict that waits.
#[derive(Debug)]
struct Pending {
    due: Mono,
    client: IpAddr,
    dst: IpAddr,
    service: Service,
    mac: Option<Mac>,
    iface: Option<String>,
}

impl Pending {
    fn pair(&self) -> (IpAddr, IpAddr) {
        (who(self.mac, self.client), self.dst)
    }
}

/// How many unexplained addresses a client used in the current window.
#[derive(Debug, Default)]
struct Many {
    since: Mono,
    count: u32,
}

/// The detector.
#[derive(Debug)]
pub(super) struct Detector {
    config: Config,
    started: Option<Mono>,
    pending: VecDeque<Pending>,
    /// The pairs in `pending`.
    waiting: HashSet<(IpAddr, IpAddr)>,
    told: Recent<(IpAddr, IpAddr)>,
    learnt: Recent<(IpAddr, IpAddr)>,
    many: Clients<Many>,
    /// How much of the learning is left.
    learning: Duration,
    /// Connections whose answer was seen after them, but in time.
    late: u64,
    /// Flows not judged because too many waited.
    saturated: u64,
    /// Verdicts not given because no DNS answer was ever seen.
    blind: u64,
    /// Findings left out in favour of one about many addresses.
    folded: u64,
}

impl Detector {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            config: config.clone(),
            started: None,
            pending: VecDeque::new(),
            waiting: HashSet::new(),
            told: Recent::each(PAIRS_MAX, config.repeat_seconds),
            learnt: Recent::new(PAIRS_MAX, LEARNT_KEEP),
            many: Clients::new(),
            learning: Duration::from_secs(config.startup_grace_seconds),
            late: 0,
            saturated: 0,
            blind: 0,
            folded: 0,
        }
    }

    pub(super) fn reconfigure(&mut self, config: &Config) {
        self.config = config.clone();
        self.told.every(config.repeat_seconds);
    }

    /// Puts the question; [`Self::decide`] answers it when the grace period is over.
    pub(super) fn on_flow(&mut self, at: Moment, flow: &Flow, locals: &Locals) {
        let started = *self.started.get_or_insert(at.steady);
        let own = |ip| locals.contain(ip, at.steady);
        if !self.config.enabled || flow.resolved.is_some() || !self.config.concerns(flow, own) {
            return;
        }
        let pair = (who(flow.mac, flow.src.ip), flow.dst.ip);
        // At the very start the address may have been seen before its device was known.
        let by_address = (flow.src.ip, flow.dst.ip);
        if self.learnt.refresh(&pair, at.steady) || self.learnt.refresh(&by_address, at.steady) {
            return;
        }
        if at.steady.since(started) < Duration::from_secs(self.config.startup_grace_seconds) {
            self.learnt.first(pair, at.steady);
            return;
        }
        if self.told.contains(&pair, at.steady) || self.waiting.contains(&pair) {
            return;
        }
        if self.pending.len() >= PENDING_MAX {
            self.saturated += 1;
            return;
        }
        self.waiting.insert(pair);
        self.pending.push_back(Pending {
            due: at.steady.plus(Duration::from_secs(self.config.grace_seconds)),
            client: flow.src.ip,
            dst: flow.dst.ip,
            service: Service { port: flow.dst.port, proto: flow.proto },
            mac: flow.mac,
            iface: flow.iface.clone(),
        });
    }

    /// Judges what has waited long enough. Called after every event and tick.
    pub(super) fn decide(&mut self, at: Moment, names: &Names, found: &mut Vec<Found>) {
        // The start is the first event of any kind, not the first flow.
        let started = *self.started.get_or_insert(at.steady);
        let learning = Duration::from_secs(self.config.startup_grace_seconds);
        self.learning = learning.saturating_sub(at.steady.since(started));
        while self.pending.front().is_some_and(|p| p.due <= at.steady) {
            let Some(pending) = self.pending.pop_front() else { return };
            self.waiting.remove(&pending.pair());
            if !names.sees_answers() {
                self.blind += 1;
            } else if names.explains(pending.client, pending.mac, pending.dst) {
                self.late += 1;
            } else if self.config.enabled {
                self.report(at, &pending, found);
            }
        }
    }

    pub(super) fn is_waiting(&self) -> bool {
        !self.pending.is_empty()
    }

    fn report(&mut self, at: Moment, pending: &Pending, found: &mut Vec<Found>) {
        if !self.told.first(pending.pair(), at.steady) {
            return;
        }
        let window = Duration::from_secs(self.config.repeat_seconds);
        let many = self.many.state(pending.pair().0, at.steady);
        if many.count == 0 || at.steady.since(many.since) >= window {
            *many = Many { since: at.steady, count: 0 };
        }
        many.count = many.count.saturating_add(1);
        let finding = match many.count.checked_sub(self.config.many) {
            None | Some(0) => one(pending, &self.config),
            Some(1) => several(pending, &self.config),
            Some(_) => {
                self.folded += 1;
                return;
            }
        };
        found.push(Found { time: at.time, finding });
    }

    pub(super) fn status(&self) -> [(&'static str, u64); 8] {
        let size = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        // Rounded up: 0 means that it is over.
        let learning = self.learning.as_millis().div_ceil(1_000);
        let learning = if self.config.enabled { learning } else { 0 };
        [
            ("tier0.direct_ip.blind", self.blind),
            ("tier0.direct_ip.evicted", self.told.evicted() + self.many.evicted()),
            ("tier0.direct_ip.folded", self.folded),
            ("tier0.direct_ip.late_answers", self.late),
            ("tier0.direct_ip.learning_seconds", u64::try_from(learning).unwrap_or(u64::MAX)),
            ("tier0.direct_ip.learnt", size(self.learnt.len())),
            ("tier0.direct_ip.pending", size(self.pending.len())),
            ("tier0.direct_ip.saturated", self.saturated),
        ]
    }
}

/// For [`super::sum::Sum`].
pub(super) fn sum(subject: &str) -> Option<Sum<'_>> {
    (subject == MANY_ADDRESSES).then_some(Sum::All)
}

fn one(pending: &Pending, config: &Config) -> Finding {
    let subject = pending.service.at(pending.dst);
    let finding = Finding {
        why: format!("connected to {subject} without having resolved a name for it"),
        subject,
        ..finding(pending, config)
    };
    finding.with("address", pending.dst).with("service", pending.service)
}

fn several(pending: &Pending, config: &Config) -> Finding {
    let finding = Finding {
        subject: MANY_ADDRESSES.into(),
        why: format!(
            "connected to more than {} public addresses without having resolved a name for \
             them: it resolves names elsewhere (DNS over HTTPS, VPN), or it is a peer-to-peer \
             program or a game",
            config.many
        ),
        ..finding(pending, config)
    };
    finding.with("addresses", config.many + 1).with("latest", pending.service.at(pending.dst))
}

fn finding(pending: &Pending, config: &Config) -> Finding {
    let finding = Finding {
        rule: "direct-ip".into(),
        subject: String::new(),
        client: Some(pending.client),
        mac: pending.mac,
        score: config.score,
        why: String::new(),
        evidence: Vec::new(),
    };
    let finding = finding.with("waited_seconds", config.grace_seconds);
    match &pending.iface {
        Some(iface) => finding.with("interface", iface),
        None => finding,
    }
}

#[cfg(test)]
mod tests;
