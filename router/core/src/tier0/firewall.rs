//! Packets the firewall stopped: rule `firewall`.
//!
//! In: stopped packets, tens of thousands an hour on a public address. Out, in order of
//! gravity:
//! - `fan-out` / `many ports of A`: one client tried many addresses, or many ports of one
//!   address, within a minute: a scan, or malware looking for its like;
//! - `A:port/proto`: a local client was stopped on its way to that place, once per
//!   `repeat_seconds`, and once more when it keeps trying;
//! - `inbound`: what the internet knocked at, as one line of numbers per `repeat_seconds`.
//!
//! Budget: 0.2 us per packet. Invariants: memory is bounded by clients and by
//! [`TRIED_MAX`] addresses and ports for each; findings are bounded per client and window;
//! inbound noise never makes more than one finding per window.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::clients::Clients;
use super::locals::Locals;
use super::moment::Moment;
use super::recent::Recent;
use super::sum::Sum;
use super::{ConfigError, Found, positive, score_range};
use crate::event::{Firewall, Verdict, is_public};
use crate::finding::Finding;
use crate::names::who;
use crate::service::Service;
use crate::time::Mono;

/// Most (client, address, port) remembered as told.
const TOLD_MAX: usize = 8_192;
/// Most addresses and ports counted exactly for one client and window, and most sources of
/// inbound packets.
pub const TRIED_MAX: usize = 64;
/// Most findings about single places per client and window; a scan is told as a scan.
const SINGLES_MAX: u32 = 10;

/// Subject of a finding about many addresses.
const FAN_OUT: &str = "fan-out";
/// How the subject of a finding about many ports of one address begins.
const MANY_PORTS_OF: &str = "many ports of ";

/// Settings of the firewall rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether the rule is on.
    pub enabled: bool,
    /// The same client and place are reported once in this many seconds; also the span of
    /// the inbound summary.
    pub repeat_seconds: u64,
    /// So many stopped packets to one place within `repeat_seconds` mean that the client
    /// insists.
    pub insist_packets: u32,
    /// Span in which addresses and ports are counted for a scan.
    pub scan_seconds: u64,
    /// So many addresses tried within `scan_seconds` are a scan.
    pub scan_addresses: usize,
    /// So many ports of one address tried within `scan_seconds` are a scan.
    pub scan_ports: usize,
    /// How grave a single stopped place is, 0 to 1.
    pub score: f64,
    /// How grave it is when the client insists.
    pub insist_score: f64,
    /// How grave a scan is.
    pub scan_score: f64,
    /// Whether to sum up what came from the internet.
    pub inbound: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            repeat_seconds: 3_600,
            // A TCP connection attempt is up to 7 packets; five attempts are a retry loop.
            insist_packets: 35,
            scan_seconds: 60,
            scan_addresses: 25,
            scan_ports: 15,
            score: 0.3,
            insist_score: 0.4,
            scan_score: 0.7,
            inbound: true,
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
        positive("scan_seconds", self.scan_seconds)?;
        positive("insist_packets", u64::from(self.insist_packets))?;
        for (key, n) in [("scan_addresses", self.scan_addresses), ("scan_ports", self.scan_ports)] {
            if !(2..=TRIED_MAX).contains(&n) {
                return Err(ConfigError::new(key, format!("must lie between 2 and {TRIED_MAX}")));
            }
        }
        score_range("score", self.score)?;
        score_range("insist_score", self.insist_score)?;
        score_range("scan_score", self.scan_score)
    }
}

/// A place a packet was stopped on its way to.
type Place = (IpAddr, Service);

/// What one client was stopped from.
#[derive(Debug, Default)]
struct Client {
    tries: Tries,
    scan: Scan,
}

/// Packets by place within `repeat_seconds`.
#[derive(Debug, Default)]
struct Tries {
    since: Mono,
    /// Findings about single places.
    singles: u32,
    /// At most [`TRIED_MAX`] places.
    packets: HashMap<Place, u32>,
}

/// Places tried within `scan_seconds`.
#[derive(Debug, Default)]
struct Scan {
    since: Mono,
    /// At most [`TRIED_MAX`].
    places: HashSet<Place>,
    /// Ports among `places` by address.
    ports: HashMap<IpAddr, usize>,
}

impl Scan {
    /// Counts a place; the number of addresses, and of this address's ports, so far.
    fn count(&mut self, place: Place) -> (usize, usize) {
        if self.places.len() < TRIED_MAX && self.places.insert(place) {
            *self.ports.entry(place.0).or_default() += 1;
        }
        (self.ports.len(), self.ports.get(&place.0).copied().unwrap_or(0))
    }
}

/// What came from outside since the last summary.
#[derive(Debug, Default)]
struct Inbound {
    since: Mono,
    packets: u64,
    sources: HashSet<IpAddr>,
    latest: Option<Service>,
}

/// What a finding said, besides about a single place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Said {
    Single(Place),
    FanOut,
    Ports(IpAddr),
}

/// The detector.
#[derive(Debug)]
pub(super) struct Detector {
    config: Config,
    clients: Clients<Client>,
    told: Recent<(IpAddr, Said)>,
    inbound: Inbound,
    /// Findings about single places left out because the client had too many.
    folded: u64,
}

impl Detector {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            config: config.clone(),
            clients: Clients::new(),
            told: Recent::each(TOLD_MAX, config.repeat_seconds),
            inbound: Inbound::default(),
            folded: 0,
        }
    }

    pub(super) fn reconfigure(&mut self, config: &Config) {
        self.config = config.clone();
        self.told.every(config.repeat_seconds);
    }

    pub(super) fn on_packet(
        &mut self,
        at: Moment,
        packet: &Firewall,
        locals: &Locals,
        found: &mut Vec<Found>,
    ) {
        let group = packet.dst.ip.is_multicast() || is_broadcast(packet.dst.ip);
        if !self.config.enabled || packet.verdict == Verdict::Logged || group {
            return;
        }
        if !locals.contain(packet.src.ip, at.steady) {
            return self.count_inbound(at, packet);
        }
        self.single(at, packet, found);
        self.scan(at, packet, found);
    }

    /// The first packet to a place, and the one that shows that the client insists.
    fn single(&mut self, at: Moment, packet: &Firewall, found: &mut Vec<Found>) {
        let place = place(packet);
        let who = who(packet.mac, packet.src.ip);
        let tries = &mut self.clients.state(who, at.steady).tries;
        if at.steady.since(tries.since) >= Duration::from_secs(self.config.repeat_seconds) {
            *tries = Tries { since: at.steady, ..Tries::default() };
        }
        let mut packets = 1;
        if tries.packets.len() < TRIED_MAX || tries.packets.contains_key(&place) {
            let count = tries.packets.entry(place).or_default();
            *count = count.saturating_add(1);
            packets = *count;
        }
        let subject = || place.1.at(place.0);
        if packets == self.config.insist_packets {
            let why =
                format!("the firewall stopped {packets} packets on their way to {}", subject());
            let tell = tell(at, packet, subject(), self.config.insist_score, why);
            found.push(Found { finding: tell.finding.with("packets", packets), ..tell });
        } else if self.told.first((who, Said::Single(place)), at.steady) {
            tries.singles = tries.singles.saturating_add(1);
            if tries.singles > SINGLES_MAX {
                self.folded += 1;
                return;
            }
            let why = format!("the firewall stopped it on its way to {}", subject());
            found.push(tell(at, packet, subject(), self.config.score, why));
        }
    }

    /// Many places.
    fn scan(&mut self, at: Moment, packet: &Firewall, found: &mut Vec<Found>) {
        let client = who(packet.mac, packet.src.ip);
        let (dst, config) = (packet.dst.ip, &self.config);
        let scan = &mut self.clients.state(client, at.steady).scan;
        if at.steady.since(scan.since) >= Duration::from_secs(config.scan_seconds) {
            *scan = Scan { since: at.steady, ..Scan::default() };
        }
        let (addresses, ports) = scan.count(place(packet));
        let mut scanned = |subject: String, key: &str, count: usize| {
            let why = format!(
                "the firewall stopped it on its way to {count} {key} within {} s",
                config.scan_seconds
            );
            let tell = tell(at, packet, subject, config.scan_score, why);
            found.push(Found { finding: tell.finding.with(key, count), ..tell });
        };
        if addresses >= config.scan_addresses && self.told.first((client, Said::FanOut), at.steady)
        {
            scanned(FAN_OUT.into(), "addresses", addresses);
        }
        if ports >= config.scan_ports && self.told.first((client, Said::Ports(dst)), at.steady) {
            scanned(format!("{MANY_PORTS_OF}{dst}"), "ports", ports);
        }
    }

    fn count_inbound(&mut self, at: Moment, packet: &Firewall) {
        let inbound = &mut self.inbound;
        if inbound.packets == 0 {
            inbound.since = at.steady;
        }
        inbound.packets += 1;
        inbound.latest = Some(service(packet));
        if inbound.sources.len() < TRIED_MAX {
            inbound.sources.insert(packet.src.ip);
        }
    }

    /// Sums up what came from outside when its time is over. Called after every event and
    /// tick.
    pub(super) fn decide(&mut self, at: Moment, found: &mut Vec<Found>) {
        let span = Duration::from_secs(self.config.repeat_seconds);
        if self.inbound.packets == 0 || at.steady.since(self.inbound.since) < span {
            return;
        }
        let inbound = std::mem::take(&mut self.inbound);
        if !(self.config.enabled && self.config.inbound) {
            return;
        }
        let sources = inbound.sources.len();
        let more = if sources == TRIED_MAX { "at least " } else { "" };
        let mut finding = Finding {
            rule: "firewall".into(),
            subject: "inbound".into(),
            client: None,
            mac: None,
            score: 0.1,
            why: format!(
                "the firewall stopped {} packets from {more}{sources} outside addresses",
                inbound.packets
            ),
            evidence: Vec::new(),
        };
        finding = finding.with("packets", inbound.packets).with("sources", sources);
        if let Some(latest) = inbound.latest {
            finding = finding.with("latest", latest);
        }
        found.push(Found { time: at.time, finding });
    }

    pub(super) fn status(&self) -> [(&'static str, u64); 3] {
        [
            ("tier0.firewall.clients", u64::try_from(self.clients.len()).unwrap_or(u64::MAX)),
            ("tier0.firewall.evicted", self.told.evicted() + self.clients.evicted()),
            ("tier0.firewall.folded", self.folded),
        ]
    }
}

/// For [`super::sum::Sum`].
pub(super) fn sum(subject: &str) -> Option<Sum<'_>> {
    match subject.strip_prefix(MANY_PORTS_OF) {
        Some(address) => Some(Sum::Address(address)),
        None => (subject == FAN_OUT).then_some(Sum::All),
    }
}

fn is_broadcast(ip: IpAddr) -> bool {
    // Directed broadcasts (192.168.1.255) cannot be told without the netmask; most home
    // networks are /24, and no device has the address that ends in 255 there.
    matches!(ip, IpAddr::V4(v4) if v4.octets()[3] == 255 && !is_public(ip))
}

fn service(packet: &Firewall) -> Service {
    Service { port: packet.dst.port, proto: packet.proto }
}

fn place(packet: &Firewall) -> Place {
    (packet.dst.ip, service(packet))
}

fn tell(at: Moment, packet: &Firewall, subject: String, score: f64, why: String) -> Found {
    let mut finding = Finding {
        rule: "firewall".into(),
        subject,
        client: Some(packet.src.ip),
        mac: packet.mac,
        score,
        why,
        evidence: Vec::new(),
    };
    finding = finding.with("verdict", packet.verdict.as_str());
    let texts = [
        ("prefix", Some(&packet.prefix).filter(|p| !p.is_empty())),
        ("in", packet.in_iface.as_ref()),
        ("out", packet.out_iface.as_ref()),
    ];
    for (key, text) in texts {
        if let Some(text) = text {
            finding = finding.with(key, text.trim());
        }
    }
    Found { time: at.time, finding }
}

#[cfg(test)]
mod tests;
