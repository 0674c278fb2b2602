//! Tier 0: what can be said about an event in microseconds, next to the collector.
//!
//! In: events in the order the collectors deliver them, and ticks of event time. Out:
//! findings. Runs on the router's pipeline thread and again inside the hub: same crate, so
//! same verdict. Pure: no I/O, no clock, no randomness.
//!
//! Adding a detector = one file with a `Config`, an `on_event` (and `on_tick` if it
//! waits for something), one field and one line in [`Engine`], one row in [`rules`].
//!
//! Invariants: every memory has a maximum, reaching it is counted ([`Engine::status`]);
//! windows and grace periods run in steady time, so that a jump of the wall clock neither
//! makes nor kills a finding; the same thing is said once per window, not once per packet.

pub mod blocklist;
mod clients;
pub mod dga;
pub mod direct_ip;
pub mod dns_bypass;
pub mod dns_rebinding;
pub mod dns_tunnel;
pub mod firewall;
mod locals;
pub mod long_flow;
mod moment;
pub mod new_device;
pub mod nxdomain_burst;
pub mod ports;
pub mod query_rate;
mod question;
mod recent;
pub mod rules;
pub mod scan;
mod sketch;
pub mod sum;
#[cfg(test)]
mod tests;
pub mod unusual_port;
pub mod watched;

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::event::{Body, Dns, DnsStatus, Event};
use crate::finding::Finding;
use crate::name::Name;
use crate::names::{Names, NamesConfig};
use crate::time::Timestamp;
use locals::Locals;
use moment::{Moment, Steady};
use question::Question;
use rules::Made;

/// Settings of all tier-0 detectors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tier0Config {
    /// Own networks besides the private ranges: a public prefix of the house. Public IPv6
    /// addresses of devices in the neighbour table are known without this.
    pub local: Vec<IpNet>,
    /// The memory of DNS answers.
    pub names: NamesConfig,
    /// Names on a list.
    pub blocklist: blocklist::Config,
    /// Names that look generated.
    pub dga: dga::Config,
    /// Connections that no DNS answer explains.
    pub direct_ip: direct_ip::Config,
    /// Names resolved past the house's resolver.
    pub dns_bypass: dns_bypass::Config,
    /// Public names that stand for private addresses.
    pub dns_rebinding: dns_rebinding::Config,
    /// Data hidden in DNS names.
    pub dns_tunnel: dns_tunnel::Config,
    /// Packets the firewall stopped.
    pub firewall: firewall::Config,
    /// One port tried at many addresses.
    pub host_scan: scan::HostScan,
    /// Connections that stay open for hours.
    pub long_flow: long_flow::Config,
    /// Devices that were never seen before.
    pub new_device: new_device::Config,
    /// Many names that do not exist.
    pub nxdomain_burst: nxdomain_burst::Config,
    /// Many ports of one address tried.
    pub port_scan: scan::PortScan,
    /// Far more questions than usual.
    pub query_rate: query_rate::Config,
    /// Ports a device never used before.
    pub unusual_port: unusual_port::Config,
    /// Names a person wants to know of.
    pub watched: watched::Config,
}

impl Tier0Config {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// The first key whose value makes no sense, with its section in front.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.names.validate().map_err(|e| e.within("names"))?;
        self.blocklist.validate().map_err(|e| e.within("blocklist"))?;
        self.dga.validate().map_err(|e| e.within("dga"))?;
        self.direct_ip.validate().map_err(|e| e.within("direct_ip"))?;
        self.dns_bypass.validate().map_err(|e| e.within("dns_bypass"))?;
        self.dns_rebinding.validate().map_err(|e| e.within("dns_rebinding"))?;
        self.dns_tunnel.validate().map_err(|e| e.within("dns_tunnel"))?;
        self.firewall.validate().map_err(|e| e.within("firewall"))?;
        self.host_scan.validate().map_err(|e| e.within("host_scan"))?;
        self.long_flow.validate().map_err(|e| e.within("long_flow"))?;
        self.new_device.validate().map_err(|e| e.within("new_device"))?;
        self.nxdomain_burst.validate().map_err(|e| e.within("nxdomain_burst"))?;
        self.port_scan.validate().map_err(|e| e.within("port_scan"))?;
        self.query_rate.validate().map_err(|e| e.within("query_rate"))?;
        self.unusual_port.validate().map_err(|e| e.within("unusual_port"))?;
        self.watched.validate().map_err(|e| e.within("watched"))
    }
}

/// A setting that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{key}` {problem}")]
pub struct ConfigError {
    /// Which key, dots between sections: `blocklist.lists[2].score`.
    pub key: String,
    /// What is wrong and what is allowed; reads on from the key.
    pub problem: String,
}

impl ConfigError {
    /// Shorthand.
    #[must_use]
    pub fn new(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { key: key.into(), problem: problem.into() }
    }
    /// Puts the name of the enclosing section in front of the key.
    #[must_use]
    pub fn within(mut self, section: &str) -> Self {
        self.key = format!("{section}.{}", self.key);
        self
    }
}

/// Zero would switch a thing off in a way nobody expects.
pub(crate) fn positive(key: &str, value: u64) -> Result<(), ConfigError> {
    if value > 0 { Ok(()) } else { Err(ConfigError::new(key, "must be at least 1")) }
}

/// Scores lie between 0 and 1.
pub(crate) fn score_range(key: &str, score: f64) -> Result<(), ConfigError> {
    if (0.0..=1.0).contains(&score) {
        return Ok(());
    }
    Err(ConfigError::new(key, format!("must lie between 0 and 1, is {score}")))
}

/// A list of domains: names in lower case, as names are kept.
pub(crate) fn domains(key: &str, list: &[String]) -> Result<(), ConfigError> {
    let bad =
        |text: &&String| Name::parse(text.as_bytes()).ok().is_none_or(|n| n.as_str() != **text);
    match list.iter().find(bad) {
        Some(text) => {
            let problem = format!("holds `{text}`; want a domain in lower case: `example.com`");
            Err(ConfigError::new(key, problem))
        }
        None => Ok(()),
    }
}

/// Is the name one of these domains or below one?
fn is_below(name: &Name, domains: &[String]) -> bool {
    domains.iter().any(|domain| name.is_at_or_below(domain))
}

/// A finding and when it was made.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Event time.
    pub time: Timestamp,
    /// The opinion.
    pub finding: Finding,
}

/// All tier-0 detectors over one memory of names.
#[derive(Debug)]
pub struct Engine {
    steady: Steady,
    locals: Locals,
    names: Names,
    blocklist: blocklist::Detector,
    dga: dga::Detector,
    direct_ip: direct_ip::Detector,
    dns_bypass: dns_bypass::Detector,
    dns_rebinding: dns_rebinding::Detector,
    dns_tunnel: dns_tunnel::Detector,
    firewall: firewall::Detector,
    new_device: new_device::Detector,
    long_flow: long_flow::Detector,
    nxdomain_burst: nxdomain_burst::Detector,
    query_rate: query_rate::Detector,
    scan: scan::Detector,
    unusual_port: unusual_port::Detector,
    watched: watched::Detector,
    made: Made,
}

impl Engine {
    /// Detectors with empty memories; `lists` may be empty.
    #[must_use]
    pub fn new(config: &Tier0Config, lists: blocklist::Blocklist) -> Self {
        Self {
            steady: Steady::default(),
            locals: Locals::new(&config.local),
            names: Names::new(config.names.clone()),
            blocklist: blocklist::Detector::new(&config.blocklist, lists),
            dga: dga::Detector::new(&config.dga),
            direct_ip: direct_ip::Detector::new(&config.direct_ip),
            dns_bypass: dns_bypass::Detector::new(&config.dns_bypass),
            dns_rebinding: dns_rebinding::Detector::new(&config.dns_rebinding),
            dns_tunnel: dns_tunnel::Detector::new(&config.dns_tunnel),
            firewall: firewall::Detector::new(&config.firewall),
            new_device: new_device::Detector::new(&config.new_device),
            long_flow: long_flow::Detector::new(&config.long_flow),
            nxdomain_burst: nxdomain_burst::Detector::new(&config.nxdomain_burst),
            query_rate: query_rate::Detector::new(&config.query_rate),
            scan: scan::Detector::new(&config.port_scan, &config.host_scan),
            unusual_port: unusual_port::Detector::new(&config.unusual_port),
            watched: watched::Detector::new(&config.watched),
            made: Made::default(),
        }
    }

    /// New settings and lists; what was learned (names, open questions, what was said
    /// already) stays.
    pub fn reconfigure(&mut self, config: &Tier0Config, lists: blocklist::Blocklist) {
        self.locals.reconfigure(&config.local);
        self.names.reconfigure(config.names.clone());
        self.blocklist.reconfigure(&config.blocklist, lists);
        self.dga.reconfigure(&config.dga);
        self.direct_ip.reconfigure(&config.direct_ip);
        self.dns_bypass.reconfigure(&config.dns_bypass);
        self.dns_rebinding.reconfigure(&config.dns_rebinding);
        self.dns_tunnel.reconfigure(&config.dns_tunnel);
        self.firewall.reconfigure(&config.firewall);
        self.new_device.reconfigure(&config.new_device);
        self.long_flow.reconfigure(&config.long_flow);
        self.nxdomain_burst.reconfigure(&config.nxdomain_burst);
        self.query_rate.reconfigure(&config.query_rate);
        self.scan.reconfigure(&config.port_scan, &config.host_scan);
        self.unusual_port.reconfigure(&config.unusual_port);
        self.watched.reconfigure(&config.watched);
    }

    /// Machines that may ask any resolver: those that ask for others, and the one this runs
    /// on.
    pub fn set_resolvers(&mut self, resolvers: &[IpAddr]) {
        self.dns_bypass.set_resolvers(resolvers);
    }

    /// Remembers the addresses of an answer before its event is looked at, for connections
    /// that follow at once.
    pub fn learn(&mut self, time: Timestamp, dns: &crate::event::Dns) {
        let at = self.steady.at(time);
        self.names.learn_device(at.time, dns);
    }

    /// Looks at one event: attaches to a flow the name by which its client had resolved
    /// the destination, and appends what the detectors think to `found`.
    pub fn on_event(&mut self, event: &mut Event, found: &mut Vec<Found>) {
        let (at, before) = (self.steady.at(event.time), found.len());
        match &mut event.body {
            Body::Dns(dns) => {
                self.names.learn_device(at.time, dns);
                self.blocklist.on_dns(at, dns, found);
                self.dga.on_dns(at, dns, found);
                let question = Question::of(dns);
                self.dns_bypass.on_dns(at, dns, found);
                self.dns_rebinding.on_dns(at, dns, &question, found);
                self.dns_tunnel.on_dns(at, dns, &question, found);
                let told = self.dga.told_missing(question.device, at.steady);
                self.nxdomain_burst.on_dns(at, dns, &question, told, found);
                self.query_rate.on_dns(at, dns, &question, found);
                self.watched.on_dns(at, dns, self.blocklist.lists(), found);
            }
            Body::Flow(flow) => {
                if flow.resolved.is_none() {
                    let when = flow.start.unwrap_or(at.time);
                    let (client, mac, dst) = (flow.src.ip, flow.mac, flow.dst.ip);
                    flow.resolved = self.names.resolve_device(client, mac, dst, when);
                }
                self.blocklist.on_flow(at, flow, &self.locals, found);
                self.direct_ip.on_flow(at, flow, &self.locals);
                self.dns_bypass.on_flow(at, flow, &self.locals, found);
                self.dns_tunnel.on_flow(at, flow);
                self.long_flow.on_flow(at, flow, &self.locals, found);
                self.scan.on_flow(at, flow, &self.locals, found);
                self.unusual_port.on_flow(at, flow, &self.locals, found);
            }
            Body::Firewall(packet) => {
                self.firewall.on_packet(at, packet, &self.locals, found);
                self.scan.on_packet(at, packet, &self.locals, found);
            }
            Body::Device(device) => {
                self.locals.learn(device.ip, at.steady);
                self.new_device.on_device(at, device, &self.locals);
            }
            Body::Finding(_) | Body::Gap(_) | Body::Process(_) | Body::Connection(_) => {}
        }
        self.decide(at, found);
        self.made.count(found.get(before..).unwrap_or_default());
    }

    /// Time goes on: detectors that wait for something decide. `now` is event time.
    pub fn on_tick(&mut self, now: Timestamp, found: &mut Vec<Found>) {
        let (at, before) = (self.steady.at(now), found.len());
        self.decide(at, found);
        self.made.count(found.get(before..).unwrap_or_default());
    }

    /// Whether a verdict waits for its time to come, within seconds.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.direct_ip.is_waiting() || self.new_device.is_waiting()
    }

    /// What the detectors of names say about one, as if it had been asked for and answered.
    /// Remembers nothing.
    #[must_use]
    pub fn verdict(&self, name: &Name) -> Vec<Finding> {
        let dns = Dns {
            client: IpAddr::V4(Ipv4Addr::LOCALHOST),
            mac: None,
            name: name.clone(),
            qtype: 1,
            status: DnsStatus::Forwarded,
            rcode: Some(0),
            answers: Vec::new(),
            ttl: None,
            upstream: None,
            latency_us: None,
            blocked_by: None,
            source: "score".into(),
        };
        let listed = self.blocklist.verdict(&dns).into_iter();
        let watched = self.watched.verdict(&dns, self.blocklist.lists());
        listed.chain(self.dga.verdict(&dns)).chain(watched).collect()
    }

    /// What the lists say about an address, as if it had been connected to.
    #[must_use]
    pub fn verdict_of_address(&self, ip: IpAddr, port: Option<u16>) -> Vec<Finding> {
        let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
        self.blocklist.verdict_of_address(client, ip, port).into_iter().collect()
    }

    fn decide(&mut self, at: Moment, found: &mut Vec<Found>) {
        self.direct_ip.decide(at, &self.names, found);
        self.firewall.decide(at, found);
        self.new_device.decide(at, found);
    }

    /// The devices known, to be kept over a restart, and a number that changes whenever there
    /// is a new one.
    #[must_use]
    pub fn known_devices(&self) -> (new_device::KnownDevices, u64) {
        (self.new_device.known(), self.new_device.changes())
    }

    /// The number of [`Self::known_devices`] alone.
    #[must_use]
    pub const fn known_changes(&self) -> u64 {
        self.new_device.changes()
    }

    /// Whether devices are still learnt and not told.
    #[must_use]
    pub fn is_learning_devices(&self) -> bool {
        !self.new_device.left().is_zero()
    }

    /// How many seconds that takes in all.
    #[must_use]
    pub const fn learning_devices_takes(&self) -> u64 {
        self.new_device.takes()
    }

    /// The devices an earlier life knew.
    pub fn remember_devices(&mut self, kept: &new_device::KnownDevices) {
        self.new_device.remember(kept);
    }

    /// The ports each device is known to use, to be kept over a restart, and a number that
    /// changes whenever there is a new one.
    #[must_use]
    pub fn known_ports(&self) -> (unusual_port::KnownPorts, u64) {
        (self.unusual_port.known(self.steady.passed()), self.unusual_port.changes())
    }

    /// The number of [`Self::known_ports`] alone.
    #[must_use]
    pub const fn known_ports_changes(&self) -> u64 {
        self.unusual_port.changes()
    }

    /// Whether the ports of some device are still learnt and not told.
    #[must_use]
    pub fn is_learning_ports(&self) -> bool {
        self.unusual_port.is_learning(self.steady.passed())
    }

    /// The ports an earlier life knew.
    pub fn remember_ports(&mut self, kept: unusual_port::KnownPorts) {
        self.unusual_port.remember(kept, self.steady.passed());
    }

    /// The wall clock was set from `from` to `to`. Detectors do not mind; the ages of names
    /// stay true.
    pub fn clock_set(&mut self, from: Timestamp, to: Timestamp) {
        self.names.clock_set(from, to);
    }

    /// The memory of names, for status.
    #[must_use]
    pub const fn names(&self) -> &Names {
        &self.names
    }

    /// The lists in force, for `score` and status.
    #[must_use]
    pub const fn blocklist(&self) -> &blocklist::Blocklist {
        self.blocklist.lists()
    }

    /// Names and values for `status`: findings made, memories' sizes, and what had to be
    /// forgotten or left unsaid because a maximum was reached.
    #[must_use]
    pub fn status(&self) -> Vec<(&'static str, u64)> {
        let size = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let mut status = vec![
            ("tier0.blocklist.entries", size(self.blocklist().len())),
            ("tier0.blocklist.evicted", self.blocklist.evicted()),
            ("tier0.blocklist.bytes", size(self.blocklist().size_bytes())),
            ("tier0.local_addresses", size(self.locals.len())),
            ("tier0.names.entries", size(self.names.len())),
            ("tier0.names.evicted", self.names.evicted()),
            ("tier0.watched.evicted", self.watched.evicted()),
        ];
        status.extend(self.made.status());
        status.extend(self.dga.status());
        status.extend(self.direct_ip.status());
        status.extend(self.dns_bypass.status());
        status.extend(self.dns_rebinding.status());
        status.extend(self.dns_tunnel.status());
        status.extend(self.firewall.status());
        status.extend(self.new_device.status());
        status.extend(self.long_flow.status());
        status.extend(self.nxdomain_burst.status());
        status.extend(self.query_rate.status());
        status.extend(self.scan.status());
        status.extend(self.unusual_port.status());
        status.sort_unstable();
        status
    }
}
