//! Which process: what an agent on a host saw of its programs, and of who owns a connection.
//!
//! Two kinds of record. A [`Process`] is told once when it begins (and again when it becomes
//! another program, or ends), with the identity of each ancestor as it was at that moment: a
//! parent that has ended since cannot be asked any more. A [`Connection`] names its process
//! by [`Program::id`], which is made of the machine's boot, the pid and the start, so that a
//! pid that is used again is somebody else.
//!
//! Command lines are without secrets before they come here: the host agent sees to it.
//! Invariants: texts are printable and bounded; at most [`ANCESTORS_MAX`] ancestors, nearest
//! first.

use serde::{Deserialize, Serialize};

use super::{Endpoint, FlowPhase, Resolved, Volume};
use crate::time::Timestamp;

/// Most ancestors kept: a shell in an editor in a session is about eight deep.
pub const ANCESTORS_MAX: usize = 16;
/// Most arguments kept of a command line.
pub const ARGUMENTS_MAX: usize = 64;
/// Longest argument kept, in bytes.
pub const ARGUMENT_BYTES_MAX: usize = 1_024;
/// Longest path of a program kept, in bytes (`PATH_MAX` is 4096; real ones are below 300).
pub const PATH_BYTES_MAX: usize = 1_024;

/// Why a process is told of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProcessPhase {
    /// It was there already when the agent first looked.
    #[default]
    Running,
    /// It began, or was first seen.
    Start,
    /// It became another program (`execve`).
    Exec,
    /// It ended.
    Exit,
}

impl ProcessPhase {
    /// The word stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Start => "start",
            Self::Exec => "exec",
            Self::Exit => "exit",
        }
    }
}

/// What is known of one program that runs, or ran.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Names the process among all of this host: made of boot, pid and start.
    #[serde(default)]
    pub id: u64,
    /// The kernel's number, used again sooner or later.
    #[serde(default)]
    pub pid: u32,
    /// What it calls itself (on Linux 15 bytes it may set): weak evidence.
    pub name: String,
    /// The file it was started from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe: Option<String>,
    /// The file is gone, or another stands in its place.
    #[serde(default)]
    pub deleted: bool,
    /// SHA-256 of the file, lower-case hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// Its arguments, the program's own name first, without secrets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub argv: Vec<String>,
    /// The account it runs as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Who signed it, as the system found the signature to be good: a team, a subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
    /// The installed package its file belongs to: `deb:git`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
}

/// A process began, changed or ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Why it is told.
    #[serde(default)]
    pub phase: ProcessPhase,
    /// `linux`, `macos`, `windows`.
    pub os: String,
    /// The host's name.
    pub host: String,
    /// What runs.
    pub program: Program,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Timestamp>,
    /// Its parent, the parent's parent and so on, as they were when it began.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ancestors: Vec<Program>,
    /// The container or network namespace it is in, where that is not the host's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
}

/// Who began a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// The local side.
    #[default]
    Out,
    /// The remote side: accepted.
    In,
    /// Nobody yet: a socket that waits.
    Listen,
}

impl Direction {
    /// The word stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::In => "in",
            Self::Listen => "listen",
        }
    }
}

/// A connection as the host sees it, with the process it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// Names the connection among all of this host.
    pub id: u64,
    /// Start, update or end.
    #[serde(default)]
    pub phase: FlowPhase,
    /// [`Program::id`] of its owner; `None` where nobody could be found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<u64>,
    /// The owner's pid, 0 where unknown.
    #[serde(default)]
    pub pid: u32,
    /// The owner's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// IP protocol number: 6 TCP, 17 UDP.
    pub proto: u8,
    /// The host's own end: what a router sees before it translates addresses.
    pub local: Endpoint,
    /// The other end.
    pub remote: Endpoint,
    /// Who began.
    #[serde(default)]
    pub direction: Direction,
    /// When it was first seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Timestamp>,
    /// First seen to last seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// What passed, where the system says so; `out` is sent by this host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<Volume>,
    /// The account that owns the socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The network namespace, where that is not the host's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// How the owner was found: `exec`, `scan`, `none`.
    #[serde(default)]
    pub how: String,
    /// How the process came to the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved: Option<Resolved>,
}
