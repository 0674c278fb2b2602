//! Tier 0: what can be said about an event in microseconds, next to the collector.
//!
//! In: events in the order the collectors deliver them, and ticks of event time. Out:
//! findings. Runs on the router's pipeline thread and again inside the hub: same crate, so
//! same verdict. Pure: no I/O, no clock, no randomness.
//!
//! Adding a detector = one file with a `Config`, an `on_event` (and `on_tick` if it
//! waits for something), one field and one line in [`Engine`].

pub mod blocklist;
pub mod dga;
pub mod direct_ip;
pub mod firewall;

use serde::{Deserialize, Serialize};

use crate::event::{Body, Event};
use crate::finding::Finding;
use crate::names::{Names, NamesConfig};
use crate::time::Timestamp;

/// Settings of all tier-0 detectors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tier0Config {
    /// The memory of DNS answers.
    pub names: NamesConfig,
    /// Names on a list.
    pub blocklist: blocklist::Config,
    /// Names that look generated.
    pub dga: dga::Config,
    /// Connections that no DNS answer explains.
    pub direct_ip: direct_ip::Config,
    /// Packets the firewall stopped.
    pub firewall: firewall::Config,
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
    names: Names,
    blocklist: blocklist::Detector,
    dga: dga::Detector,
    direct_ip: direct_ip::Detector,
    firewall: firewall::Detector,
}

impl Engine {
    /// Detectors with empty memories; `lists` may be empty.
    #[must_use]
    pub fn new(config: &Tier0Config, lists: blocklist::Blocklist) -> Self {
        Self {
            names: Names::new(config.names.clone()),
            blocklist: blocklist::Detector::new(&config.blocklist, lists),
            dga: dga::Detector::new(&config.dga),
            direct_ip: direct_ip::Detector::new(&config.direct_ip),
            firewall: firewall::Detector::new(&config.firewall),
        }
    }

    /// New settings and lists; what was learned (names, open questions) stays.
    pub fn reconfigure(&mut self, config: &Tier0Config, lists: blocklist::Blocklist) {
        self.names.reconfigure(config.names.clone());
        self.blocklist = blocklist::Detector::new(&config.blocklist, lists);
        self.dga.reconfigure(&config.dga);
        self.direct_ip.reconfigure(&config.direct_ip);
        self.firewall.reconfigure(&config.firewall);
    }

    /// Looks at one event: attaches to a flow the name by which its client had resolved
    /// the destination, and appends what the detectors think to `found`.
    pub fn on_event(&mut self, event: &mut Event, found: &mut Vec<Found>) {
        let time = event.time;
        match &mut event.body {
            Body::Dns(dns) => {
                self.names.learn(time, dns);
                self.blocklist.on_dns(time, dns, found);
                self.dga.on_dns(time, dns, found);
                self.direct_ip.on_dns(time, dns, found);
            }
            Body::Flow(flow) => {
                if flow.resolved.is_none() {
                    let at = flow.start.unwrap_or(time);
                    flow.resolved = self.names.resolve(flow.src.ip, flow.dst.ip, at);
                }
                self.direct_ip.on_flow(time, flow, found);
            }
            Body::Firewall(packet) => self.firewall.on_packet(time, packet, found),
            Body::Device(_) | Body::Finding(_) | Body::Gap(_) => {}
        }
    }

    /// Time goes on: detectors that wait for something decide. `now` is event time.
    pub fn on_tick(&mut self, now: Timestamp, found: &mut Vec<Found>) {
        self.direct_ip.on_tick(now, found);
        self.dga.on_tick(now, found);
        self.firewall.on_tick(now, found);
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
}
