//! Connections that no DNS answer explains: rule `direct-ip`.
//!
//! In: flows of local clients to public addresses, and the memory of names. Out: a finding
//! for each (client, address) that the client never resolved, once per `repeat_seconds`;
//! when a client does so with many addresses (its own resolver over HTTPS, a game, a
//! peer-to-peer program), one finding says so in place of hundreds.
//!
//! DNS may be seen later than the connection it explains (a log is written in blocks), so a
//! verdict waits for `grace_seconds`. Answers from before the start are unknown, so what is
//! connected to during `startup_grace_seconds` is learnt and not reported as long as it
//! keeps being used. Where no DNS answer is ever seen nothing is said.
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
use super::{ConfigError, Found, positive, score_range};
use crate::event::{Flow, Mac};
use crate::finding::Finding;
use crate::names::Names;
use crate::service::{Service, proto};
use crate::time::Mono;

/// Most (client, address) pairs remembered as told, and as learnt at the start.
const PAIRS_MAX: usize = 8_192;
/// Most verdicts waiting for the grace period.
const PENDING_MAX: usize = 4_096;
/// How long what was learnt at the start is kept without being used.
const LEARNT_KEEP: Duration = Duration::from_secs(86_400);

/// Settings of the direct-ip rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether the rule is on.
    pub enabled: bool,
    /// How long to wait for the DNS answer that explains a connection.
    pub grace_seconds: u64,
    /// For so long after the start, unexplained addresses are learnt and not reported.
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
            grace_seconds: 5,
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
            told: Recent::new(PAIRS_MAX, Duration::from_secs(config.repeat_seconds)),
            learnt: Recent::new(PAIRS_MAX, LEARNT_KEEP),
            many: Clients::new(),
            saturated: 0,
            blind: 0,
            folded: 0,
        }
    }

    pub(super) fn reconfigure(&mut self, config: &Config) {
        self.config = config.clone();
        self.told.reconfigure(PAIRS_MAX, Duration::from_secs(config.repeat_seconds));
    }

    /// Puts the question; [`Self::decide`] answers it when the grace period is over.
    pub(super) fn on_flow(&mut self, at: Moment, flow: &Flow, locals: &Locals) {
        let started = *self.started.get_or_insert(at.steady);
        let own = |ip| locals.contain(ip, at.steady);
        if !self.config.enabled || flow.resolved.is_some() || !self.config.concerns(flow, own) {
            return;
        }
        let pair = (flow.src.ip, flow.dst.ip);
        if self.learnt.refresh(&pair, at.steady) {
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
        self.started.get_or_insert(at.steady);
        while self.pending.front().is_some_and(|p| p.due <= at.steady) {
            let Some(pending) = self.pending.pop_front() else { return };
            self.waiting.remove(&(pending.client, pending.dst));
            if !names.sees_answers() {
                self.blind += 1;
            } else if self.config.enabled
                && !names.explains(pending.client, pending.mac, pending.dst)
            {
                self.report(at, &pending, found);
            }
        }
    }

    fn report(&mut self, at: Moment, pending: &Pending, found: &mut Vec<Found>) {
        if !self.told.first((pending.client, pending.dst), at.steady) {
            return;
        }
        let window = Duration::from_secs(self.config.repeat_seconds);
        let many = self.many.state(pending.client, at.steady);
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

    pub(super) fn status(&self) -> [(&'static str, u64); 6] {
        let size = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        [
            ("tier0.direct_ip.blind", self.blind),
            ("tier0.direct_ip.evicted", self.told.evicted() + self.many.evicted()),
            ("tier0.direct_ip.folded", self.folded),
            ("tier0.direct_ip.learnt", size(self.learnt.len())),
            ("tier0.direct_ip.pending", size(self.pending.len())),
            ("tier0.direct_ip.saturated", self.saturated),
        ]
    }
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
        subject: "many addresses".into(),
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
mod tests {
    use super::super::Tier0Config;
    use super::super::tests::{Script, dns, flow};
    use super::*;
    use crate::event::{Body, Device, DeviceSource, Endpoint};

    /// No learning at the start, unless a test is about it.
    fn script() -> Script {
        script_with(|_| {})
    }
    fn script_with(change: impl Fn(&mut Config)) -> Script {
        let mut config = Tier0Config::default();
        config.direct_ip.startup_grace_seconds = 0;
        change(&mut config.direct_ip);
        config.validate().unwrap();
        let mut s = Script::new(config, "direct-ip");
        // DNS is seen here, of these clients as well.
        for client in ["192.168.1.5", "192.168.1.6", "fd00::5", "2001:db8:1::5"] {
            s.dns(0, dns(client, "other.example", &["203.0.113.250"]));
        }
        s
    }
    const WEB: &str = "203.0.113.9:443";

    #[test]
    fn an_unexplained_connection_is_told_after_the_grace_period() {
        let mut s = script();
        s.flow(0, flow("192.168.1.5", WEB));
        s.tick(4);
        s.said(&[]);
        s.tick(5);
        s.said(&["203.0.113.9:443/tcp"]);
        // Once an hour.
        s.flow(100, flow("192.168.1.5", WEB));
        s.flow(200, flow("192.168.1.5", "203.0.113.9:80"));
        s.tick(300);
        s.said(&[]);
        s.flow(600, flow("192.168.1.6", WEB));
        s.tick(605);
        s.said(&["203.0.113.9:443/tcp"]);
    }

    #[test]
    fn an_answer_before_or_a_little_after_explains_it() {
        let mut s = script();
        s.dns(0, dns("192.168.1.5", "a.example", &["203.0.113.9"]));
        s.flow(1, flow("192.168.1.5", WEB));
        s.tick(60);
        s.said(&[]);
        let mut s = script();
        s.flow(0, flow("192.168.1.5", WEB));
        s.dns(3, dns("192.168.1.5", "a.example", &["203.0.113.9"]));
        s.tick(60);
        s.said(&[]);
        // Somebody else's answer does not.
        s.flow(70, flow("192.168.1.6", WEB));
        s.tick(80);
        s.said(&["203.0.113.9:443/tcp"]);
    }

    #[track_caller]
    fn silent(change: impl Fn(&mut Config), flow: Flow) {
        let mut s = script_with(change);
        s.flow(0, flow);
        s.tick(60);
        s.said(&[]);
    }

    #[test]
    fn what_is_left_alone() {
        let to = |dst: &str| flow("192.168.1.5", dst);
        let udp = |dst: &str| Flow { proto: proto::UDP, ..to(dst) };
        silent(|_| {}, to("192.168.2.1:80"));
        silent(|_| {}, udp("224.0.0.251:5353"));
        silent(|_| {}, udp("[ff02::fb]:5353"));
        silent(|_| {}, Flow { proto: proto::ICMP, ..to("203.0.113.9:2048") });
        silent(|_| {}, flow("198.51.100.7", "203.0.113.9:443"));
        silent(|_| {}, udp("203.0.113.9:123"));
        silent(|_| {}, udp("203.0.113.9:53"));
        silent(|_| {}, to("203.0.113.9:853"));
        silent(|c| c.allow = vec!["203.0.113.0/24".parse().unwrap()], to(WEB));
        silent(|c| c.ignore_clients = vec!["192.168.1.5/32".parse().unwrap()], to(WEB));
        silent(|c| c.allow_services = vec!["443/tcp".parse().unwrap()], to(WEB));
        silent(|c| c.enabled = false, to(WEB));
        let redirected = Endpoint::new("192.168.1.1".parse().unwrap(), 53);
        silent(|_| {}, Flow { nat_dst: Some(redirected), ..to(WEB) });
    }

    #[track_caller]
    fn told(change: impl Fn(&mut Config), flow: Flow, subject: &str) {
        let mut s = script_with(change);
        s.flow(0, flow);
        s.tick(60);
        s.said(&[subject]);
    }

    #[test]
    fn what_is_not() {
        let udp = |dst: &str| Flow { proto: proto::UDP, ..flow("192.168.1.5", dst) };
        let net = |text: &str| vec![text.parse().unwrap()];
        told(|_| {}, udp("203.0.113.9:443"), "203.0.113.9:443/udp");
        told(
            |c| c.resolvers = net("198.51.100.53/32"),
            udp("203.0.113.9:53"),
            "203.0.113.9:53/udp",
        );
        let ping = Flow { proto: proto::ICMP, ..flow("192.168.1.5", "203.0.113.9:2048") };
        told(|c| c.icmp = true, ping, "203.0.113.9/icmp");
        let v6 = || flow("fd00::5", "[2001:db8::9]:443");
        told(|_| {}, v6(), "[2001:db8::9]:443/tcp");
    }

    /// With IPv6, clients have public addresses: known from the neighbour table.
    #[test]
    fn a_neighbour_with_a_public_address_is_a_client() {
        let connects = || flow("2001:db8:1::5", "[2001:db8:2::9]:443");
        silent(|_| {}, connects());
        let mut s = script();
        let body = Body::Device(Device {
            mac: Mac([2, 0, 0, 0, 0, 1]),
            ip: "2001:db8:1::5".parse().unwrap(),
            hostname: None,
            iface: None,
            source: DeviceSource::Neighbour,
        });
        s.event(0, body);
        s.flow(1, connects());
        s.tick(60);
        s.said(&["[2001:db8:2::9]:443/tcp"]);
    }

    #[test]
    fn without_any_dns_nothing_is_said() {
        let mut config = Tier0Config::default();
        config.direct_ip.startup_grace_seconds = 0;
        let mut s = Script::new(config, "direct-ip");
        s.flow(0, flow("192.168.1.5", WEB));
        s.tick(60);
        s.said(&[]);
        assert_eq!(s.status("tier0.direct_ip.blind"), 1);
    }

    #[test]
    fn the_start_is_for_learning() {
        let mut s = script_with(|c| c.startup_grace_seconds = 300);
        s.tick(0);
        s.flow(299, flow("192.168.1.5", WEB));
        s.flow(320, flow("192.168.1.5", WEB));
        s.flow(320, flow("192.168.1.5", "203.0.113.10:443"));
        s.tick(330);
        s.said(&["203.0.113.10:443/tcp"]);
        // Learnt for as long as it is used.
        for hour in 1..60 {
            s.flow(hour * 3600, flow("192.168.1.5", WEB));
            s.tick(hour * 3600 + 10);
        }
        s.said(&[]);
    }

    #[test]
    fn many_addresses_are_one_finding() {
        let mut s = script_with(|c| c.many = 3);
        for i in 0..50 {
            s.flow(i, flow("192.168.1.5", &format!("203.0.113.{i}:6881")));
        }
        s.tick(60);
        let first = ["203.0.113.0:6881/tcp", "203.0.113.1:6881/tcp", "203.0.113.2:6881/tcp"];
        s.said(&[&first[..], &["many addresses"]].concat());
        assert_eq!(s.status("tier0.direct_ip.folded"), 46);
    }

    #[test]
    fn bounded() {
        let mut s = script();
        for i in 0..6_000u32 {
            let dst = std::net::Ipv4Addr::from(0xcb00_0000 + i);
            s.flow(0, flow("192.168.1.5", &format!("{dst}:1")));
        }
        assert_eq!(s.status("tier0.direct_ip.pending"), PENDING_MAX as u64);
        assert_eq!(s.status("tier0.direct_ip.saturated"), 6_000 - PENDING_MAX as u64);
    }

    /// The clock is set, by years or back by a day, at every point of a sequence: nothing
    /// is said that is not said without the jump, and nothing is left out.
    #[test]
    fn a_clock_that_is_set_changes_nothing() {
        for jump in [1_700_000_000i64, 40_000, -86_400] {
            for at in 0..5 {
                let mut s = script();
                let t = |step: i64| step + if step > at { jump } else { 0 };
                s.dns(t(0), dns("192.168.1.5", "a.example", &["203.0.113.9"]));
                s.flow(t(1), flow("192.168.1.5", WEB));
                s.flow(t(2), flow("192.168.1.5", "203.0.113.10:443"));
                for step in 3..6 {
                    s.tick(t(step));
                }
                s.said(&[]);
                for step in 6..10 {
                    s.tick(t(step));
                }
                s.said(&["203.0.113.10:443/tcp"]);
            }
        }
    }
}
