//! A device that connects to a port it never used: rule `unusual-port`.
//!
//! In: connections of our devices to the internet. Out, once per device and port: a port
//! that is neither well known ([`super::ports`]) nor in the device's own profile, after the
//! device has been watched for `learning_seconds`; when a device uses `many` such ports
//! within `repeat_seconds` (file sharing, a game, a scan), one finding says so.
//!
//! A device does the same things every day, so a new port is a new program: something
//! installed, or something that got in (ATT&CK T1571, non-standard port). Only connections
//! that were answered or have just begun count, and of UDP only ports below 1024: calls and
//! games agree on high ports anew each time.
//!
//! Budget: 0.1 us per flow. Invariants: at most [`PORTS_MAX`] ports for each of a bounded
//! number of devices; a full profile is counted and learns no more; time is steady time; what
//! was learnt is kept over a restart by whoever runs this ([`KnownPorts`]).

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::clients::{CLIENTS_MAX, Clients};
use super::locals::Locals;
use super::moment::Moment;
use super::sum::Sum;
use super::{ConfigError, Found, ports, positive, score_range};
use crate::event::{Flow, FlowPhase};
use crate::finding::Finding;
use crate::names::device_key;
use crate::service::{Service, proto};
use crate::time::Mono;

/// Most ports in a device's profile, besides the well-known.
pub const PORTS_MAX: usize = 64;
/// UDP ports from here on are agreed on for each call or game.
const UDP_PORTS_END: u16 = 1_024;
/// Subject of a finding about many ports.
const MANY_PORTS: &str = "many ports";

/// Settings of the unusual-port rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether the rule is on.
    pub enabled: bool,
    /// For so long after a device was first seen its ports are learnt and not told.
    pub learning_seconds: u64,
    /// More new ports of one device than this within `repeat_seconds` are one finding.
    pub many: u32,
    /// Span for `many`.
    pub repeat_seconds: u64,
    /// Ports that are never told: `4444/tcp`.
    pub allow_services: Vec<Service>,
    /// How grave it is, 0 to 1; a connection by address counts a third more.
    pub score: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            learning_seconds: 86_400,
            many: 5,
            repeat_seconds: 86_400,
            allow_services: Vec::new(),
            score: 0.3,
        }
    }
}

impl Config {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// The first key whose value makes no sense.
    pub fn validate(&self) -> Result<(), ConfigError> {
        positive("many", u64::from(self.many))?;
        positive("repeat_seconds", self.repeat_seconds)?;
        score_range("score", self.score)
    }
}

/// What is known of the devices' ports, to be kept over a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownPorts {
    /// At most [`DEVICES_MAX`].
    pub devices: Vec<DevicePorts>,
}

/// Most devices whose ports are known.
pub const DEVICES_MAX: usize = CLIENTS_MAX;

/// What is known of one device's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevicePorts {
    /// As in [`crate::names::who`].
    pub device: IpAddr,
    /// How long it was watched.
    pub watched: Duration,
    /// At most [`PORTS_MAX`].
    pub ports: Vec<Service>,
}

/// One device.
#[derive(Debug, Default)]
struct Profile {
    /// First flow.
    since: Option<Mono>,
    /// How long it was watched in earlier lives.
    before: Duration,
    /// At most [`PORTS_MAX`].
    ports: Vec<Service>,
    told: u32,
    told_since: Mono,
}

impl Profile {
    /// How long the device was watched.
    fn watched(&self, now: Mono) -> Duration {
        let here = self.since.map_or(Duration::ZERO, |since| now.since(since));
        self.before.saturating_add(here)
    }
}

/// The detector.
#[derive(Debug)]
pub(super) struct Detector {
    config: Config,
    devices: Clients<Profile>,
    /// Ports not learnt because a profile was full.
    saturated: u64,
    /// Findings left out in favour of one about many ports.
    folded: u64,
    /// Ports learnt and devices first seen in this life.
    changes: u64,
}

impl Detector {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            config: config.clone(),
            devices: Clients::new(),
            saturated: 0,
            folded: 0,
            changes: 0,
        }
    }

    pub(super) fn reconfigure(&mut self, config: &Config) {
        self.config = config.clone();
    }

    pub(super) fn on_flow(
        &mut self,
        at: Moment,
        flow: &Flow,
        locals: &Locals,
        found: &mut Vec<Found>,
    ) {
        let config = &self.config;
        let own = |ip| locals.contain(ip, at.steady);
        if !config.enabled || !own(flow.src.ip) || own(flow.dst.ip) {
            return;
        }
        let profile = self.devices.state(flow.mac.map_or(flow.src.ip, device_key), at.steady);
        self.changes += u64::from(profile.since.is_none() && profile.before.is_zero());
        profile.since.get_or_insert(at.steady);
        let watched = profile.watched(at.steady);
        let service = Service { port: flow.dst.port, proto: flow.proto };
        if !config.concerns(flow, service) || profile.ports.contains(&service) {
            return;
        }
        if profile.ports.len() < PORTS_MAX {
            profile.ports.push(service);
            self.changes += 1;
        } else {
            self.saturated += 1;
        }
        if watched < Duration::from_secs(config.learning_seconds) {
            return;
        }
        if profile.told == 0
            || at.steady.since(profile.told_since) >= Duration::from_secs(config.repeat_seconds)
        {
            (profile.told, profile.told_since) = (0, at.steady);
        }
        profile.told = profile.told.saturating_add(1);
        let finding = match profile.told.checked_sub(config.many) {
            None | Some(0) => one(config, flow, service, watched),
            Some(1) => several(config, flow, service),
            Some(_) => {
                self.folded += 1;
                return;
            }
        };
        found.push(Found { time: at.time, finding });
    }

    /// A number that changes whenever there is more to keep.
    pub(super) const fn changes(&self) -> u64 {
        self.changes
    }

    /// Whether some device's ports are still learnt and not told.
    pub(super) fn is_learning(&self, now: Mono) -> bool {
        let span = Duration::from_secs(self.config.learning_seconds);
        self.config.enabled && self.devices.iter().any(|(_, p)| p.watched(now) < span)
    }

    /// What is known, in the order of the devices' addresses.
    pub(super) fn known(&self, now: Mono) -> KnownPorts {
        let of = |(device, profile): (IpAddr, &Profile)| DevicePorts {
            device,
            watched: profile.watched(now),
            ports: profile.ports.clone(),
        };
        let mut devices: Vec<_> = self.devices.iter().map(of).collect();
        devices.sort_unstable_by_key(|known| known.device);
        KnownPorts { devices }
    }

    /// What an earlier life knew.
    pub(super) fn remember(&mut self, kept: KnownPorts, now: Mono) {
        for known in kept.devices.into_iter().take(DEVICES_MAX) {
            let profile = self.devices.state(known.device, now);
            profile.before = profile.before.max(known.watched);
            for service in known.ports.into_iter().take(PORTS_MAX) {
                if profile.ports.len() < PORTS_MAX && !profile.ports.contains(&service) {
                    profile.ports.push(service);
                }
            }
        }
    }

    pub(super) fn status(&self) -> [(&'static str, u64); 4] {
        [
            ("tier0.unusual_port.devices", u64::try_from(self.devices.len()).unwrap_or(u64::MAX)),
            ("tier0.unusual_port.evicted", self.devices.evicted()),
            ("tier0.unusual_port.folded", self.folded),
            ("tier0.unusual_port.saturated", self.saturated),
        ]
    }
}

impl Config {
    fn concerns(&self, flow: &Flow, service: Service) -> bool {
        let transport = match service.proto {
            proto::TCP => true,
            proto::UDP => service.port < UDP_PORTS_END,
            _ => false,
        };
        let alive = flow.phase == FlowPhase::Start || flow.replied;
        transport
            && alive
            && flow.dst.port != 0
            && !flow.dst.ip.is_multicast()
            && !self.allow_services.contains(&service)
            && ports::known(service).is_none()
    }
}

/// For [`super::sum::Sum`].
pub(super) fn sum(subject: &str) -> Option<Sum<'_>> {
    (subject == MANY_PORTS).then_some(Sum::All)
}

fn one(config: &Config, flow: &Flow, service: Service, watched: Duration) -> Finding {
    let to = match &flow.resolved {
        Some(resolved) => resolved.name.to_string(),
        None => flow.dst.ip.to_string(),
    };
    let days = watched.as_secs() / 86_400;
    let finding = Finding {
        rule: "unusual-port".into(),
        subject: service.to_string(),
        client: Some(flow.src.ip),
        mac: flow.mac,
        score: if flow.resolved.is_some() { config.score } else { config.score * 4.0 / 3.0 }
            .min(1.0),
        why: format!(
            "connected to port {service} of {to}, which it had not used in {}, and which is \
             not a well-known one",
            if days > 1 { format!("{days} days") } else { "the time it was watched".into() }
        ),
        evidence: Vec::new(),
    };
    finding.with("service", service).with("address", flow.dst.ip).with("destination", to)
}

fn several(config: &Config, flow: &Flow, service: Service) -> Finding {
    let finding = Finding {
        rule: "unusual-port".into(),
        subject: MANY_PORTS.into(),
        client: Some(flow.src.ip),
        mac: flow.mac,
        score: config.score,
        why: format!(
            "connected to more than {} ports it had not used before: a new game or \
             file-sharing program, or a scan",
            config.many
        ),
        evidence: Vec::new(),
    };
    finding.with("ports", config.many + 1).with("latest", service.at(flow.dst.ip))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tier0::Tier0Config;
    use crate::tier0::tests::{Script, flow};

    const CAMERA: &str = "192.168.1.5";

    /// A device known for an hour, which is enough here.
    fn watched() -> Script {
        let mut config = Tier0Config::default();
        config.unusual_port.learning_seconds = 3_600;
        let mut s = Script::new(config, "unusual-port");
        for minute in 0..61 {
            s.flow(minute * 60, flow(CAMERA, "203.0.113.9:443"));
            s.flow(minute * 60, flow(CAMERA, "203.0.113.9:7000"));
        }
        s.said(&[]);
        s
    }

    #[test]
    fn a_port_of_its_own_is_told_once() {
        let mut s = watched();
        s.flow(4_000, flow(CAMERA, "203.0.113.9:7000"));
        s.flow(4_001, flow(CAMERA, "203.0.113.9:4444"));
        s.flow(4_002, flow(CAMERA, "203.0.113.10:4444"));
        s.said(&["4444/tcp"]);
    }

    #[test]
    fn well_known_high_udp_and_unanswered_ones_are_not() {
        let mut s = watched();
        for place in ["203.0.113.9:8883", "203.0.113.9:993", "203.0.113.9:27015"] {
            s.flow(4_000, flow(CAMERA, place));
        }
        s.flow(4_001, Flow { proto: 17, ..flow(CAMERA, "203.0.113.9:33333") });
        s.flow(4_001, Flow { phase: FlowPhase::End, ..flow(CAMERA, "203.0.113.9:4444") });
        s.flow(4_001, flow(CAMERA, "192.168.1.9:4444"));
        s.said(&[]);
    }

    #[test]
    fn a_new_device_is_learnt() {
        let mut s = watched();
        s.flow(4_000, flow("192.168.1.6", "203.0.113.9:4444"));
        s.said(&[]);
    }

    /// What one life learnt, the next one knows; a device half learnt goes on from there.
    #[test]
    fn a_restart_forgets_nothing() {
        let s = watched();
        let (kept, changes) = s.engine.known_ports();
        assert_eq!(changes, 2, "a device and a port");
        assert_eq!(kept.devices.len(), 1);
        assert_eq!(kept.devices[0].watched, Duration::from_secs(3_600));
        let mut config = Tier0Config::default();
        config.unusual_port.learning_seconds = 3_600;
        let mut next = Script::new(config.clone(), "unusual-port");
        next.engine.remember_ports(kept.clone());
        assert_eq!(next.engine.known_ports(), (kept.clone(), 0));
        next.flow(0, flow(CAMERA, "203.0.113.9:7000"));
        next.flow(1, flow(CAMERA, "203.0.113.9:4444"));
        next.said(&["4444/tcp"]);
        // Ten minutes less: so long it is learnt still.
        let mut half = kept;
        half.devices[0].watched = Duration::from_secs(3_000);
        let mut next = Script::new(config, "unusual-port");
        next.engine.remember_ports(half);
        next.flow(0, flow(CAMERA, "203.0.113.9:4444"));
        next.flow(300, flow(CAMERA, "203.0.113.9:4445"));
        next.said(&[]);
        next.flow(600, flow(CAMERA, "203.0.113.9:4446"));
        next.said(&["4446/tcp"]);
    }

    #[test]
    fn nobody_makes_it_remember_without_bounds() {
        let device = |n: u32| DevicePorts {
            device: std::net::Ipv4Addr::from(n).into(),
            watched: Duration::MAX / 4,
            ports: (1..=1_000).map(|port| Service { port, proto: proto::TCP }).collect(),
        };
        let mut s = watched();
        s.engine.remember_ports(KnownPorts { devices: (0..3_000).map(device).collect() });
        let (known, _) = s.engine.known_ports();
        assert!(known.devices.len() <= DEVICES_MAX);
        assert!(known.devices.iter().all(|known| known.ports.len() <= PORTS_MAX));
    }

    #[test]
    fn many_are_one() {
        let mut s = watched();
        for port in 0..200 {
            s.flow(4_000 + port, flow(CAMERA, &format!("203.0.113.9:{}", 20_000 + port)));
        }
        let expected =
            ["20000/tcp", "20001/tcp", "20002/tcp", "20003/tcp", "20004/tcp", MANY_PORTS];
        s.said(&expected);
        assert_eq!(s.status("tier0.unusual_port.folded"), 194);
        assert_eq!(s.status("tier0.unusual_port.saturated"), 200 - (PORTS_MAX as u64 - 1));
    }
}
