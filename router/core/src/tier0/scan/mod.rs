//! Connections to many places that do not answer: rules `port-scan` and `host-scan`.
//!
//! In: flows, and packets the firewall stopped. Out, once per client and `repeat_seconds`:
//! - `port-scan`, about an address: a client tried many of its ports;
//! - `host-scan`, about a port: a client tried it at many addresses it had not looked up
//!   (ATT&CK T1046; how Mirai and its like spread).
//!
//! What was answered with more than a refusal does not count: file transfer opens many ports
//! of one server, and a browser many addresses. Ports that browsers, mail and games use
//! ([`super::ports`]) count towards a host scan only when a connection has ended without an
//! answer; the rest at once. Resolvers ask many servers, so port 53 does not count there.
//! What was *only* stopped is rule `firewall`'s: here it adds to what got through.
//!
//! Budget: 0.2 us per flow; 1.2 MB. Invariants: tables of fixed size, distinct counts in 32
//! bytes each; windows in steady time.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::locals::Locals;
use super::moment::Moment;
use super::ports::{self, Use};
use super::recent::Recent;
use super::sketch::{Distinct, Kept, Table, mix, of_ip};
use super::{ConfigError, Found, positive, score_range};
use crate::event::{Firewall, Flow, FlowPhase, Mac, TcpState, Verdict};
use crate::finding::Finding;
use crate::names::who;
use crate::service::{Service, has_ports, proto};
use crate::time::Mono;

/// Rows of four (client, address) pairs.
const ADDRESSES_ROWS: usize = 2_048;
/// Rows of four (client, service) pairs.
const SERVICES_ROWS: usize = 512;
/// Most (client, subject) remembered as told.
const TOLD_MAX: usize = 1_024;
/// Most different ones a sketch counts well.
const DISTINCT_MOST: u32 = 300;
/// IP bytes from which on a responder has said more than no: a TCP handshake with a little
/// after it; a refusal is one packet of 40.
const ANSWER_BYTES: u64 = 150;

/// Settings of the port-scan rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PortScan {
    /// Whether the rule is on.
    pub enabled: bool,
    /// Span in which ports are counted.
    pub window_seconds: u64,
    /// So many unanswered ports of one address are a scan.
    pub ports: u32,
    /// The same is told once in this many seconds.
    pub repeat_seconds: u64,
    /// How grave it is, 0 to 1.
    pub score: f64,
}

impl Default for PortScan {
    fn default() -> Self {
        let (window_seconds, ports) = (300, 15);
        Self { enabled: true, window_seconds, ports, repeat_seconds: 3_600, score: 0.6 }
    }
}

impl PortScan {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// The first key whose value makes no sense.
    pub fn validate(&self) -> Result<(), ConfigError> {
        validate(self.window_seconds, self.repeat_seconds, ("ports", self.ports), self.score)
    }
}

/// Settings of the host-scan rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HostScan {
    /// Whether the rule is on.
    pub enabled: bool,
    /// Span in which addresses are counted.
    pub window_seconds: u64,
    /// One port unanswered at so many addresses is a scan.
    pub addresses: u32,
    /// The same is told once in this many seconds.
    pub repeat_seconds: u64,
    /// How grave it is, 0 to 1.
    pub score: f64,
}

impl Default for HostScan {
    fn default() -> Self {
        let (window_seconds, addresses) = (300, 40);
        Self { enabled: true, window_seconds, addresses, repeat_seconds: 3_600, score: 0.6 }
    }
}

impl HostScan {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// The first key whose value makes no sense.
    pub fn validate(&self) -> Result<(), ConfigError> {
        validate(
            self.window_seconds,
            self.repeat_seconds,
            ("addresses", self.addresses),
            self.score,
        )
    }
}

fn validate(
    window: u64,
    repeat: u64,
    (key, least): (&str, u32),
    score: f64,
) -> Result<(), ConfigError> {
    positive("window_seconds", window)?;
    positive("repeat_seconds", repeat)?;
    if !(4..=DISTINCT_MOST).contains(&least) {
        return Err(ConfigError::new(key, format!("must lie between 4 and {DISTINCT_MOST}")));
    }
    score_range("score", score)
}

/// How a try ended, as far as it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// On its way.
    Open,
    /// Over, and nothing came back but perhaps a refusal.
    Unanswered,
    /// The responder spoke.
    Answered,
    /// The firewall stopped it.
    Stopped,
}

/// A try at a place.
#[derive(Clone, Copy, Debug)]
struct Try {
    client: IpAddr,
    mac: Option<Mac>,
    dst: IpAddr,
    service: Service,
    fate: Fate,
    /// The client had looked the address up.
    named: bool,
}

impl Try {
    /// Whose try it counts as: the device's, whichever of its addresses it uses.
    fn who(&self) -> IpAddr {
        who(self.mac, self.client)
    }
}

/// Different places tried within a window.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    since: Mono,
    passed: Distinct,
    stopped: Distinct,
    answered: Distinct,
}

impl Window {
    /// Counts a place; unanswered ones that got through, and all unanswered.
    fn count(&mut self, at: Mono, span: Duration, place: u64, fate: Fate) -> (u32, u32) {
        if at.since(self.since) >= span {
            *self = Self { since: at, ..Self::default() };
        }
        match fate {
            Fate::Open | Fate::Unanswered => self.passed.insert(place),
            Fate::Answered => {
                self.passed.insert(place);
                self.answered.insert(place);
            }
            Fate::Stopped => self.stopped.insert(place),
        }
        let answered = self.answered.count();
        let tried = self.passed.with(self.stopped).count();
        (self.passed.count().saturating_sub(answered), tried.saturating_sub(answered))
    }
}

impl Kept for Window {
    fn worth(&self, at: Mono) -> f32 {
        self.passed.with(self.stopped).count() as f32 - at.since(self.since).as_secs_f32() / 10.0
    }
}

/// Both detectors: they look at the same tries.
#[derive(Debug)]
pub(super) struct Detector {
    ports: PortScan,
    hosts: HostScan,
    by_address: Table<Window>,
    by_service: Table<Window>,
    told_ports: Recent<(IpAddr, IpAddr)>,
    told_hosts: Recent<(IpAddr, u16, u8)>,
}

impl Detector {
    pub(super) fn new(ports: &PortScan, hosts: &HostScan) -> Self {
        Self {
            ports: ports.clone(),
            hosts: hosts.clone(),
            by_address: Table::new(ADDRESSES_ROWS),
            by_service: Table::new(SERVICES_ROWS),
            told_ports: Recent::each(TOLD_MAX, ports.repeat_seconds),
            told_hosts: Recent::each(TOLD_MAX, hosts.repeat_seconds),
        }
    }

    pub(super) fn reconfigure(&mut self, ports: &PortScan, hosts: &HostScan) {
        self.told_ports.every(ports.repeat_seconds);
        self.told_hosts.every(hosts.repeat_seconds);
        (self.ports, self.hosts) = (ports.clone(), hosts.clone());
    }

    pub(super) fn on_flow(
        &mut self,
        at: Moment,
        flow: &Flow,
        locals: &Locals,
        found: &mut Vec<Found>,
    ) {
        let seen = Try {
            client: flow.src.ip,
            mac: flow.mac,
            dst: flow.dst.ip,
            service: Service { port: flow.dst.port, proto: flow.proto },
            fate: fate(flow),
            named: flow.resolved.is_some(),
        };
        self.on_try(at, seen, locals, found);
    }

    pub(super) fn on_packet(
        &mut self,
        at: Moment,
        packet: &Firewall,
        locals: &Locals,
        found: &mut Vec<Found>,
    ) {
        if packet.verdict == Verdict::Logged {
            return;
        }
        let seen = Try {
            client: packet.src.ip,
            mac: packet.mac,
            dst: packet.dst.ip,
            service: Service { port: packet.dst.port, proto: packet.proto },
            fate: Fate::Stopped,
            named: false,
        };
        self.on_try(at, seen, locals, found);
    }

    fn on_try(&mut self, at: Moment, seen: Try, locals: &Locals, found: &mut Vec<Found>) {
        let group = seen.dst.is_multicast() || seen.dst.is_unspecified();
        if group || !has_ports(seen.service.proto) || !locals.contain(seen.client, at.steady) {
            return;
        }
        if self.ports.enabled {
            self.port_scan(at, seen, found);
        }
        if self.hosts.enabled && counts_for_hosts(seen) {
            self.host_scan(at, seen, found);
        }
    }

    fn port_scan(&mut self, at: Moment, seen: Try, found: &mut Vec<Found>) {
        let config = &self.ports;
        let span = Duration::from_secs(config.window_seconds);
        let (window, _) = self.by_address.entry(mix(of_ip(seen.who()), of_ip(seen.dst)), at.steady);
        let place = mix(u64::from(seen.service.port), u64::from(seen.service.proto));
        let (passed, all) = window.count(at.steady, span, place, seen.fate);
        let least = config.ports;
        if seen.fate == Fate::Answered || all < least || passed * 2 < least {
            return;
        }
        if self.told_ports.first((seen.who(), seen.dst), at.steady) {
            let why = format!(
                "tried about {all} ports of {} within {} s that did not answer",
                seen.dst, config.window_seconds
            );
            let finding = tell("port-scan", seen.dst.to_string(), config.score, seen, why);
            let finding = finding.with("ports", all).with("latest", seen.service.at(seen.dst));
            found.push(Found { time: at.time, finding });
        }
    }

    fn host_scan(&mut self, at: Moment, seen: Try, found: &mut Vec<Found>) {
        let config = &self.hosts;
        let span = Duration::from_secs(config.window_seconds);
        let service = u64::from(seen.service.port) << 8 | u64::from(seen.service.proto);
        let (window, _) = self.by_service.entry(mix(of_ip(seen.who()), service), at.steady);
        let (passed, all) = window.count(at.steady, span, of_ip(seen.dst), seen.fate);
        let least = config.addresses;
        if seen.fate == Fate::Answered || all < least || passed * 2 < least {
            return;
        }
        let key = (seen.who(), seen.service.port, seen.service.proto);
        if self.told_hosts.first(key, at.steady) {
            let why = format!(
                "tried port {} at about {all} addresses within {} s that it had not looked up and \
                 that did not answer",
                seen.service, config.window_seconds
            );
            let subject = format!("port {}", seen.service);
            let finding = tell("host-scan", subject, config.score, seen, why);
            let finding = finding.with("addresses", all).with("latest", seen.dst);
            found.push(Found { time: at.time, finding });
        }
    }

    pub(super) fn status(&self) -> [(&'static str, u64); 2] {
        [
            ("tier0.host_scan.evicted", self.by_service.evicted() + self.told_hosts.evicted()),
            ("tier0.port_scan.evicted", self.by_address.evicted() + self.told_ports.evicted()),
        ]
    }
}

fn counts_for_hosts(seen: Try) -> bool {
    let usual = match ports::known(seen.service) {
        Some(Use::Play | Use::Vpn) => return false,
        Some(Use::Common | Use::Push) => true,
        None => false,
    };
    let resolver = matches!(seen.service.port, 53 | 123 | 853);
    let too_early = usual && seen.fate == Fate::Open;
    !(seen.named || resolver || too_early)
}

fn fate(flow: &Flow) -> Fate {
    let refused = flow.tcp_state.is_some_and(|state| state == TcpState::Close)
        || flow.proto == proto::TCP && flow.tcp_state.is_none();
    let spoke = match flow.volume {
        Some(volume) => volume.bytes_in >= ANSWER_BYTES || flow.proto != proto::TCP,
        None => !refused,
    };
    match flow.phase {
        _ if flow.replied && spoke => Fate::Answered,
        FlowPhase::End => Fate::Unanswered,
        FlowPhase::Start | FlowPhase::Update => Fate::Open,
    }
}

fn tell(rule: &str, subject: String, score: f64, seen: Try, why: String) -> Finding {
    Finding {
        rule: rule.into(),
        subject,
        client: Some(seen.client),
        mac: seen.mac,
        score,
        why,
        evidence: Vec::new(),
    }
}

#[cfg(test)]
mod tests;
