//! Connections, from the kernel's connection tracking by netlink.
//!
//! In: NEW and DESTROY events of ctnetlink and a dump of the table every
//! [`Config::dump_seconds`]. Out: flow records ([`FlowPhase::Start`] when a flow begins,
//! `Update` for long flows that moved, `End` with the final counters). Runs on a thread of
//! its own. Budget: 2 us of CPU per event, receive to delivery; memory see `track`.
//!
//! bytes -> [`decode`] (kernel terms) -> [`normalise`] (common terms) -> [`track`] (time,
//! identity) -> delivery; [`session`] does the I/O.
//!
//! Invariants:
//! - a lost event is counted, told as a [`Gap`], and repaired by a dump;
//! - nothing here can hold up a packet: the kernel drops our copy of an event rather than
//!   wait. That is why `NETLINK_BROADCAST_ERROR` stays off. With it the kernel keeps every
//!   finished flow until its DESTROY was read, and those count against
//!   `nf_conntrack_max`: with a stopped reader the table stood full for good, and 87,856
//!   of 350,000 new flows were refused; without it, none (measured on Linux 6.18). A lost
//!   DESTROY costs us the last bytes of a flow; a full table costs the network.
//!
//! [`FlowPhase::Start`]: agentmon_core::event::FlowPhase::Start
//! [`Gap`]: agentmon_core::event::Gap

#[cfg(test)]
pub(crate) mod captured;
pub mod decode;
mod dump;
mod entry;
pub mod normalise;
mod session;
mod status;
pub mod timeouts;
pub mod track;

pub use entry::Now;

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::neighbours::Neighbours;
use super::{Collector, Context};

/// Settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether this collector runs.
    pub enabled: bool,
    /// Also report flows of the machine with itself (127.0.0.0/8, ::1).
    pub loopback: bool,
    /// Most open flows remembered, about 250 bytes each. More open flows are still
    /// reported when they end, but without start and duration.
    pub flows_max: usize,
    /// Seconds between two dumps of the connection table. A dump gives the byte counts of
    /// long flows and makes the kernel report expired flows at once.
    pub dump_seconds: u64,
    /// Seconds between two dumps while the kernel sends no events (hardware offload).
    pub poll_seconds: u64,
    /// Least seconds between two extra dumps after lost events.
    pub resync_seconds: u64,
    /// Milliseconds to let events gather after a busy read: fewer wake-ups halve the CPU
    /// time. The first event after a silence is read at once.
    pub nap_ms: u64,
    /// Receive buffer for events in bytes. The kernel accounts about 1,300 bytes an event
    /// against twice this number; it is memory only while we are behind.
    pub buffer_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            loopback: false,
            // A home of 80 devices has 2,000 to 8,000 flows open.
            flows_max: 32_768,
            dump_seconds: 15,
            poll_seconds: 5,
            resync_seconds: 10,
            nap_ms: 20,
            // 52,000 events: the kernel's garbage collector and a dump of a large table end
            // tens of thousands of flows at once.
            buffer_bytes: 32 * 1024 * 1024,
        }
    }
}

impl Config {
    /// Whether the values make sense.
    ///
    /// # Errors
    /// The key, and what is allowed.
    pub fn validate(&self) -> Result<(), (&'static str, String)> {
        let within = |key, value: u64, range: RangeInclusive<u64>| {
            let (least, most) = (range.start(), range.end());
            if range.contains(&value) {
                Ok(())
            } else {
                Err((key, format!("want {least} to {most}, not {value}")))
            }
        };
        within("flows_max", self.flows_max as u64, 1..=4_194_304)?;
        within("dump_seconds", self.dump_seconds, 1..=3_600)?;
        within("poll_seconds", self.poll_seconds, 1..=3_600)?;
        within("resync_seconds", self.resync_seconds, 1..=3_600)?;
        within("nap_ms", self.nap_ms, 0..=1_000)?;
        within("buffer_bytes", self.buffer_bytes as u64, 65_536..=1_073_741_824)
    }
}

/// The collector.
#[derive(Debug)]
pub struct Source {
    config: Config,
    neighbours: Neighbours,
    tracker: track::Tracker,
}

impl Source {
    /// Not yet reading; flows will carry no device.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self::with_neighbours(config, Neighbours::default())
    }

    /// Not yet reading; MAC and interface come from that table.
    #[must_use]
    pub fn with_neighbours(config: Config, neighbours: Neighbours) -> Self {
        let tracker = track::Tracker::new(config.flows_max);
        Self { config, neighbours, tracker }
    }
}

impl Collector for Source {
    fn name(&self) -> &str {
        "conntrack"
    }

    fn run(&mut self, context: &Context) -> anyhow::Result<()> {
        session::run(&self.config, &self.neighbours, &mut self.tracker, context)
    }
}
