//! What was seen: the normalised records every collector produces and everything behind
//! it consumes.
//!
//! Wall time is stamped once, by the collector. Texts are printable ASCII (see
//! [`crate::name`]); addresses are plain IPv4 or IPv6 (IPv4-mapped addresses are turned
//! into IPv4 at the border by [`unmap`]).
//!
//! One file per kind of record; `ndjson` is their text form, [`crate::wire`] the binary
//! one.

mod address;
mod device;
mod dns;
mod firewall;
mod flow;
mod mac;
mod ndjson;
mod process;

use serde::{Deserialize, Serialize};

use crate::finding::Finding;
use crate::time::Timestamp;

pub use address::{Endpoint, is_public, unmap};
pub use device::{Device, DeviceSource, HOST_NAME_BYTES_MAX, host_name};
pub use dns::{Answer, Dns, DnsStatus};
pub use firewall::{Firewall, Verdict};
pub use flow::{Flow, FlowPhase, Resolved, TcpState, Volume};
pub use mac::{Mac, MacError, MacKind};
pub use process::{
    ANCESTORS_MAX, ARGUMENT_BYTES_MAX, ARGUMENTS_MAX, Connection, Direction, PATH_BYTES_MAX,
    Process, ProcessPhase, Program,
};

/// Longest free text field (interface, host name, prefix, upstream) in bytes.
pub const TEXT_BYTES_MAX: usize = 255;
/// Most answers kept of one DNS exchange; a response holds rarely more than 16.
pub const ANSWERS_MAX: usize = 32;

/// One observation.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// When it was seen (wall time of the collector, or the log line's own time).
    pub time: Timestamp,
    /// What was seen.
    pub body: Body,
}

/// The kinds of observation.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// A DNS exchange: query, status, answers.
    Dns(Dns),
    /// A connection, as the kernel's connection tracking sees it.
    Flow(Flow),
    /// A packet that the firewall rejected or dropped.
    Firewall(Firewall),
    /// A device showed itself: a lease or a neighbour entry.
    Device(Device),
    /// A tier-0 detector's opinion, made next to the collector.
    Finding(Finding),
    /// Something was not seen: the time span and the reason.
    Gap(Gap),
    /// A program began or ended on a host. Boxed, as what follows: a host's events are large,
    /// and a router sees none.
    Process(Box<Process>),
    /// A connection with the process it belongs to.
    Connection(Box<Connection>),
}

impl Body {
    /// The word used in counters, logs and `tail`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Dns(_) => "dns",
            Self::Flow(_) => "flow",
            Self::Firewall(_) => "firewall",
            Self::Device(_) => "device",
            Self::Finding(_) => "finding",
            Self::Gap(_) => "gap",
            Self::Process(_) => "process",
            Self::Connection(_) => "connection",
        }
    }
}

/// A span of time in which a collector may have missed something.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gap {
    /// Which collector.
    pub collector: String,
    /// Begin of the span.
    pub from: Timestamp,
    /// Why: `enobufs`, `log-lost`, `restart`.
    pub reason: String,
    /// How many things were missed, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<u64>,
}
