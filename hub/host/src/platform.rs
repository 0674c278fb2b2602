//! What a system must give, and what is the same on all.
//!
//! | trait | what it gives | who has it |
//! |---|---|---|
//! | [`Facts`] | processes: who runs, since when, of which file, for whom | all |
//! | [`Polled`] | sockets with their owners, by looking | Windows, macOS |
//! | [`Look`] | events, one look after the other | [`crate::poll`] for the above; on Linux `watch`, which is told by the kernel |
//!
//! Nothing here is made safe to tell: [`crate::processes`] does that for all of them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use agentmon_core::event::{Endpoint, Volume};
use agentmon_core::time::Clock;
use agentmon_core::{Event, Timestamp};

use crate::config::Collect;
use crate::files::Signer;

/// A file, as the system tells files apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FileId {
    /// Device, or volume.
    pub dev: u64,
    /// Inode, or the file's number in the volume.
    pub ino: u64,
    /// Last change in nanoseconds since 1970.
    pub mtime_ns: i128,
    /// Bytes.
    pub size: u64,
}

/// A process as the system shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Raw {
    /// The parent's pid.
    pub ppid: u32,
    /// When it began, in the system's own measure: it tells two processes of one pid apart.
    pub start_ticks: u64,
    /// What it calls itself.
    pub comm: Vec<u8>,
    /// The file it runs.
    pub exe: Option<Vec<u8>>,
    /// Whether that file is gone.
    pub deleted: bool,
    /// The file itself, also where its name is gone.
    pub file: Option<FileId>,
    /// Arguments.
    pub argv: Vec<Vec<u8>>,
    /// Its effective account, as a number of [`Facts::user`].
    pub uid: u32,
    /// Inode of its network namespace, where there are such.
    pub netns: Option<u64>,
    /// Who signed what runs, where the system itself keeps that with the process.
    pub signer: Option<String>,
    /// The service it is there for, where many share one program.
    pub service: Option<String>,
}

/// A socket as the system told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Names it among all that ever were: the kernel's own name for it, or a hash of its ends
    /// and owner.
    pub cookie: u64,
    /// What its owner is found by: the inode, or the owner's pid. 0 in a report of its end.
    pub inode: u32,
    /// IP protocol.
    pub proto: u8,
    /// Ours.
    pub local: Endpoint,
    /// The other end; unspecified with port 0 where there is none.
    pub remote: Endpoint,
    /// Waits for connections, or (UDP) belongs to no one connection.
    pub listens: bool,
    /// Its owner's number.
    pub uid: u32,
    /// What TCP counts: payload without headers, and segments.
    pub volume: Option<Volume>,
}

/// What is open to the program and what is not, each with one line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Name and `ok`, or what is missing and how to mend it.
    pub lines: Vec<(String, String)>,
    /// `kernel`: owners are told too; `events`: starts and ends are told; `ends`: only ends; `scan`: neither.
    pub method: &'static str,
}

/// Processes of a system. A process may be gone at any step: that is `None`, never an error.
pub trait Facts: Send {
    /// `linux`, `macos`, `windows`.
    const OS: &'static str;

    /// The machine's name.
    fn host(&self) -> String;
    /// Names this boot, so that pids of two boots differ.
    fn boot(&self) -> String;
    /// Pids of all processes.
    fn pids(&self) -> Vec<u32>;
    /// Its [`Raw::start_ticks`] alone, cheaper than all of it.
    fn start(&self, pid: u32) -> Option<u64>;
    /// Everything.
    fn read(&self, pid: u32) -> Option<Raw>;
    /// A [`Raw::start_ticks`] as time.
    fn started(&self, start_ticks: u64, now: Timestamp) -> Option<Timestamp>;
    /// An account's name.
    fn user(&self, uid: u32) -> Option<String>;
    /// Opens the file a process runs.
    ///
    /// # Errors
    /// Gone, or not ours to read.
    fn open_exe(&self, pid: u32) -> io::Result<File>;
    /// Inode of this program's own network namespace, where there are such.
    fn own_netns(&self) -> Option<u64> {
        None
    }
    /// What another network namespace is called, by a process in it.
    fn container(&self, _pid: u32, netns: u64) -> String {
        format!("net:{netns}")
    }
}

/// A system whose sockets are known by looking.
pub trait Polled: Facts {
    /// All sockets of TCP and UDP that are open, with the owner's pid as [`Seen::inode`].
    ///
    /// # Errors
    /// What the system says.
    fn sockets(&self, found: &mut Vec<Seen>) -> anyhow::Result<()>;
    /// Who signed a file, if the signature is good. Slow; asked for once per file.
    const SIGNER: Signer;
    /// What it gives, and what could be mended.
    fn coverage(&self) -> Coverage;
    /// What it cannot give.
    const MISSED: &'static [&'static str];
}

/// Looks at processes and sockets, on one thread.
pub trait Look {
    /// What it sees and what not.
    fn coverage(&self) -> &Coverage;
    /// What cannot be seen here, whatever is mended: told by `check`.
    fn missed(&self) -> Vec<&'static str>;
    /// Everything that is open now, with its processes.
    ///
    /// # Errors
    /// What the system says.
    fn snapshot(&mut self) -> anyhow::Result<Vec<Event>>;
    /// Appends what is to be told, a process always before its connections; says how long
    /// there is nothing to do unless there is news.
    ///
    /// # Errors
    /// What the system says.
    fn step(&mut self, out: &mut Vec<Event>) -> anyhow::Result<Duration>;
    /// Waits for news, at most `timeout`.
    ///
    /// # Errors
    /// What the system says.
    fn wait(&self, timeout: Duration) -> io::Result<()>;
    /// Things missed, by reason, since it was opened.
    fn lost(&self) -> &BTreeMap<&'static str, u64>;
}

/// What this system has.
///
/// # Errors
/// A system that does not tell of sockets at all.
pub fn open(config: &Collect, clock: Arc<dyn Clock>) -> anyhow::Result<Box<dyn Look>> {
    #[cfg(target_os = "linux")]
    return Ok(Box::new(crate::watch::Watch::open(config, clock)?));
    #[cfg(target_os = "windows")]
    return Ok(Box::new(crate::poll::Poll::open(config, clock, crate::windows::Windows::open()?)?));
    #[cfg(target_os = "macos")]
    return Ok(Box::new(crate::poll::Poll::open(config, clock, crate::macos::Macos::open()?)?));
}
