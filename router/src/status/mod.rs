//! What the router says about itself, and the socket it says it by.
//!
//! The Unix socket answers one request line per connection: `{"op":"status"}` with one JSON
//! line, `{"op":"tail","last":N,"follow":BOOL}` with one event per line,
//! `{"op":"call","method":"alerts","arguments":{}}` with one JSON line ([`api`]; the same
//! that ubus offers).
//! One thread waits for connections; each gets a thread of its own, at most
//! [`CONNECTIONS_MAX`]. Request lines are at most [`REQUEST_BYTES_MAX`] bytes; who does not
//! read or write is cut off after [`PATIENCE`].

pub mod api;
mod exceptions;
mod rows;
mod server;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agentmon_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::forward::ForwardStatus;
use crate::kernel::Check;
use crate::model::{Sizes, Talker};
use crate::pipeline::Tier0Status;
use crate::ring::RingStatus;
use crate::ring::snapshot::SnapshotStatus;
use crate::uci::setup::NOTE_NAME;

pub use rows::told_alert;
pub use server::Server;

/// Most connections at once; a further one is closed.
pub const CONNECTIONS_MAX: usize = 8;
/// Longest request line.
pub const REQUEST_BYTES_MAX: u64 = 4_096;
/// A peer that does not read or write for so long is cut off.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Largest note about what could not be set up.
const NOTE_BYTES_MAX: u64 = 64 * 1024;
/// Most events `tail` asks for at once.
pub const TAIL_MAX: usize = crate::pipeline::recent::EVENTS_MAX;

/// Settings of the status socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The socket. Empty: `status.sock` in the state directory.
    pub socket: PathBuf,
    /// Whether members of the socket's group may ask too (mode 0660 instead of 0600). The
    /// group is that of the state directory when it has the set-group-ID bit.
    pub group_may_ask: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { socket: PathBuf::new(), group_may_ask: false }
    }
}

/// Everything at a glance.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// Since the start of the process.
    pub uptime_seconds: u64,
    /// The collectors that are switched on.
    pub collectors: Vec<CollectorStatus>,
    /// The account of the ring.
    pub ring: RingStatus,
    /// The way to the hub.
    pub forward: ForwardStatus,
    /// The detectors.
    pub tier0: Tier0Status,
    /// The ring's copy on flash, where that is switched on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotStatus>,
    /// What is off although it is switched on, and why.
    pub lacks: Vec<Lack>,
    /// Lists that the hub has compiled.
    pub hub_lists: crate::lists::hub::HubLists,
    /// The message bus: `ok`, `off: ` and why, or what is wrong.
    pub ubus: String,
    /// The memories behind devices, flows and alerts.
    pub model: Sizes,
    /// All counters by name.
    pub counters: BTreeMap<String, u64>,
}

/// Something that is off although it is switched on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lack {
    /// What: `rules for DNS copies`.
    pub what: String,
    /// Why.
    pub detail: String,
    /// What to do about it.
    #[serde(default)]
    pub mend: String,
}

/// What the one who started the router could not set up for it: the note of
/// [`uci::setup`](crate::uci::setup), where there is one. The router itself may not be
/// allowed to look. Unreadable is as good as none.
#[must_use]
pub fn noted(state_dir: &Path) -> Vec<Lack> {
    #[derive(Deserialize)]
    struct Noted {
        ok: bool,
        what: String,
        detail: String,
        mend: Option<String>,
    }
    let mut text = Vec::new();
    let read = File::open(state_dir.join(NOTE_NAME))
        .and_then(|file| file.take(NOTE_BYTES_MAX).read_to_end(&mut text));
    let noted: Vec<Noted> = match read {
        Ok(_) => serde_json::from_slice(&text).unwrap_or_default(),
        Err(_) => return Vec::new(),
    };
    let lack = |n: Noted| Lack { what: n.what, detail: n.detail, mend: n.mend.unwrap_or_default() };
    noted.into_iter().filter(|note| !note.ok).map(lack).collect()
}

/// One collector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectorStatus {
    /// Its name.
    pub name: String,
    /// `ok`, or what is wrong.
    pub state: String,
    /// Events it delivered since it was switched on.
    #[serde(default)]
    pub events: u64,
    /// Milliseconds since the last of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_event_ms: Option<u64>,
}

/// Everything behind the status page.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What `status` says.
    pub status: Status,
    /// Wall time of the report.
    pub now: Timestamp,
    /// When the process started, by the clock as it is now.
    pub started: Timestamp,
    /// When the configuration in force was read.
    pub loaded: Timestamp,
    /// Why the last reload was refused.
    pub refused: Option<String>,
    /// Whether events are sent to a hub at all.
    pub forwards: bool,
    /// Collectors that are switched off.
    pub off: Vec<&'static str>,
    /// The ring's file.
    pub ring_path: PathBuf,
    /// Events a second, newest last.
    pub per_second: Vec<f64>,
    /// Who talked most.
    pub talkers: Vec<Talker>,
    /// Alerts nobody acknowledged.
    pub alerts_open: u64,
    /// Of these, high or critical.
    pub alerts_high: u64,
    /// What the kernel offers and lacks.
    pub kernel: Vec<Check>,
    /// When that was looked at.
    pub kernel_checked: Option<Timestamp>,
    /// What the process takes.
    pub resources: Resources,
}

/// What this process takes of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Resident memory.
    pub rss_bytes: u64,
    /// Processor time since the start.
    pub cpu_ms: u64,
    /// Threads.
    pub threads: u64,
}

impl Resources {
    /// From `/proc/self/status` and `/proc/self/stat`, zeros where they cannot be read.
    #[must_use]
    pub fn own() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        Self::parse(&read("/proc/self/status"), &read("/proc/self/stat"))
    }

    fn parse(status: &str, stat: &str) -> Self {
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let word = line.and_then(|line| line.split_whitespace().next());
            word.and_then(|word| word.parse::<u64>().ok()).unwrap_or(0)
        };
        // proc(5): the name in brackets may hold anything; utime and stime are the 12th and
        // 13th field behind it, in hundredths of a second.
        let behind = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks = behind.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.filter_map(|word| word.parse::<u64>().ok()).sum();
        Self {
            rss_bytes: field("VmRSS:").saturating_mul(1024),
            cpu_ms: ticks.saturating_mul(10),
            threads: field("Threads:"),
        }
    }
}

/// What may be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// One line: [`Status`].
    Status,
    /// Events as they are committed.
    Tail {
        /// So many of the past first.
        last: usize,
        /// Go on with those to come.
        follow: bool,
    },
    /// One line: `{"answer":{..}}` or `{"error":".."}`; see [`api`].
    Call {
        /// The method.
        method: String,
        /// Its arguments.
        #[serde(default)]
        arguments: serde_json::Map<String, serde_json::Value>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_resources_are_read() {
        let status = "Name:\tx\nVmRSS:\t    9216 kB\nThreads:\t7\n";
        let stat = "12 (a) b) S 1 2 3 4 5 6 7 8 9 10 31 11 0 0 20";
        let expected = Resources { rss_bytes: 9_437_184, cpu_ms: 420, threads: 7 };
        assert_eq!(Resources::parse(status, stat), expected);
        assert_eq!(Resources::parse("", ""), Resources::default());
        assert!(Resources::own().rss_bytes > 1_000_000);
    }
}
