//! What the router says about itself, and the socket it says it by.
//!
//! The Unix socket answers one request line per connection: `{"op":"status"}` with one JSON
//! line, `{"op":"tail","last":N,"follow":BOOL}` with one event per line ([`tail_line`]).
//! One thread waits for connections; each gets a thread of its own, at most
//! [`CONNECTIONS_MAX`]. Request lines are at most [`REQUEST_BYTES_MAX`] bytes; who does not
//! read or write is cut off after [`PATIENCE`].

mod server;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::forward::ForwardStatus;
use crate::pipeline::Tier0Status;
use crate::ring::RingStatus;
use crate::ring::snapshot::SnapshotStatus;
use crate::uci::setup::NOTE_NAME;

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
#[derive(Clone, Debug, Serialize)]
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
}
