//! Watches processes and sockets, on one thread.
//!
//! In: the kernel by [`crate::linux`]. Out: events, a process always before its connections.
//! Methods, in the order they are tried; what is missing is said by [`Watch::coverage`]:
//!
//! | method | needs | without it |
//! |---|---|---|
//! | dumps of all sockets, and who holds them | nothing; root for others' | - |
//! | ends of sockets | `CAP_NET_ADMIN` | short connections are missed, byte totals are late |
//! | owners of TCP connections, by a program in the kernel (eBPF) | root, a kernel with BTF | those that end between two looks have no owner |
//! | starts of processes | root, the machine's own network namespace | programs that end within a second are missed |
//!
//! After a process began, its descriptors are looked at 1, 2, 3 ... 512 ms later: that is how
//! a connection of a program that lives for milliseconds has its owner. A connection that a
//! program begins later and ends between two dumps has none; where the same account alone
//! went to the same place before, it is told as `likely`.
//!
//! Budget: a dump and a walk at most [`SHARE`] of the time, whatever they cost.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use agentmon_core::event::{Body, Connection, FlowPhase, ProcessPhase};
use agentmon_core::time::{Clock, Mono};
use agentmon_core::{Event, Timestamp};
use agentmon_router::sys::{self, Ready};

use crate::config::Collect;
use crate::files::Files;
use crate::linux::connector::{Connector, ProcEvent};
use crate::linux::diag::{Diag, Ends, Looked, Seen};
use crate::linux::ebpf::{Owners, Told};
use crate::linux::procfs::ProcFs;
use crate::packages::{DPKG, Packages};
pub use crate::platform::Coverage;
use crate::platform::Look;
use crate::processes::Processes;
use crate::sockets::{Owner, Sockets};

/// When the descriptors of a new process are looked at, in milliseconds after its start.
/// Each costs about 40 us.
const LOOKS_MS: [u64; 26] = [
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 18, 20, 24, 28, 32, 48, 64, 96, 128, 192, 256,
    512,
];
/// With more new processes than this at once, every third look must do.
const CLOSELY_MAX: usize = 8;
/// Processes looked at at once; beyond, the oldest wait is given up, counted.
const CHASED_MAX: usize = 4_096;
/// One part in this many of the time goes into dumps and walks.
const SHARE: u32 = 50;
/// A dump for a process that has just begun may cost more: one part in this many.
const SHARE_CHASE: u32 = 2;
/// How often old processes are forgotten, and late hashes told.
const TIDY_EVERY: Duration = Duration::from_secs(2);
/// What is not seen whatever the program may do.
const MISSED: [&str; 2] = [
    "sockets of containers (other network namespaces)",
    "the owner of a connection that a program which runs for longer ends between two looks",
];

/// A process that is looked at because it is new.
#[derive(Debug)]
struct Chase {
    begun: Mono,
    look: usize,
    /// Sockets of it that are known to be its own.
    settled: HashSet<u32>,
}

/// The watch.
pub struct Watch {
    config: Collect,
    clock: Arc<dyn Clock>,
    diag: Diag,
    ends: Option<Ends>,
    connector: Option<Connector>,
    owners: Option<Owners>,
    coverage: Coverage,
    processes: Processes<ProcFs>,
    sockets: Sockets,
    chased: BTreeMap<u32, Chase>,
    claims: HashMap<u32, u32>,
    next_scan: Mono,
    next_dump: Mono,
    next_tidy: Mono,
    /// Things missed, by reason.
    pub lost: BTreeMap<&'static str, u64>,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("coverage", &self.coverage).finish_non_exhaustive()
    }
}

impl Watch {
    /// Opens what may be opened.
    ///
    /// # Errors
    /// A kernel that does not tell of sockets at all.
    pub fn open(config: &Collect, clock: Arc<dyn Clock>) -> anyhow::Result<Self> {
        let diag = Diag::open()?;
        let mut lines = vec![("sockets".to_owned(), "ok".to_owned())];
        let ends = config.events.then(Ends::open).transpose().unwrap_or_else(|error| {
            lines.push(("ends".into(), format!("{error}; short connections are missed")));
            None
        });
        let connector = config.events.then(Connector::open).transpose().unwrap_or_else(|error| {
            lines.push(("processes".into(), format!("{error}; short programs are missed")));
            None
        });
        let owners = match config.events && config.ebpf {
            true => Owners::open().map_or_else(
                |error| {
                    let line = format!(
                        "{error:#}; of short connections of long-running programs no owner is known"
                    );
                    lines.push(("kernel".into(), line));
                    None
                },
                Some,
            ),
            false => None,
        };
        if sys::user_id() != 0 {
            let line = "not root: sockets of other accounts have no owner";
            lines.push(("owners".into(), line.into()));
        }
        let method = match (&ends, &connector) {
            (Some(_), Some(_)) if owners.is_some() => "kernel",
            (Some(_), Some(_)) => "events",
            (Some(_), None) => "ends",
            _ => "scan",
        };
        let packages = Packages::start(std::path::Path::new(DPKG));
        let processes = Processes::new(ProcFs::default(), Files::start()?, packages);
        Ok(Self {
            sockets: Sockets::new(processes.boot(), config.loopback),
            config: config.clone(),
            diag,
            ends,
            connector,
            owners,
            coverage: Coverage { lines, method },
            processes,
            chased: BTreeMap::new(),
            claims: HashMap::new(),
            next_scan: Mono::default(),
            next_dump: Mono::default(),
            next_tidy: Mono::default(),
            clock,
            lost: BTreeMap::new(),
        })
    }

    /// What this watch sees and what not.
    #[must_use]
    pub fn coverage(&self) -> &Coverage {
        &self.coverage
    }

    /// Everything that is open now, with its processes; for `once`.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn snapshot(&mut self) -> anyhow::Result<Vec<Event>> {
        self.scan()?;
        let (now, mono) = (self.clock.wall(), self.clock.mono());
        let connections = self.sockets.all(now, mono);
        Ok(self.events(connections, now))
    }

    /// One look at the world: appends what is to be told, says how long there is nothing to do
    /// unless the kernel has news.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn step(&mut self, out: &mut Vec<Event>) -> anyhow::Result<Duration> {
        let (now, mono) = (self.clock.wall(), self.clock.mono());
        self.take_processes(now, mono)?;
        self.take_owners(now, mono);
        self.chase(mono);
        let wanted = !self.claims.is_empty() && mono >= self.next_dump;
        if mono >= self.next_scan {
            let over = self.scan()?;
            out.extend(self.events(over, now));
        } else if wanted {
            let over = self.dump(SHARE_CHASE)?;
            out.extend(self.events(over, now));
        }
        let over = self.take_ends(now, mono)?;
        let due = self.sockets.due(now, mono);
        out.extend(self.events(due, now));
        out.extend(self.events(over, now));
        if mono >= self.next_tidy {
            self.next_tidy = mono.plus(TIDY_EVERY);
            let late = self.processes.late_hashes();
            out.extend(
                late.into_iter().map(|p| Event { time: now, body: Body::Process(Box::new(p)) }),
            );
            self.processes.forget(mono);
            self.count();
        }
        Ok(self.pause(self.clock.mono()))
    }

    /// Waits for news, at most `timeout`.
    ///
    /// # Errors
    /// What `poll` says.
    pub fn wait(&self, timeout: Duration) -> std::io::Result<()> {
        let read = Ready { read: true, write: false };
        let ends = self.ends.as_ref().map(|e| (e.socket().as_fd(), read));
        let starts = self.connector.as_ref().map(|c| (c.socket().as_fd(), read));
        let all: Vec<_> = ends.into_iter().chain(starts).collect();
        sys::wait_many(&all, timeout).map(drop)
    }

    fn pause(&self, mono: Mono) -> Duration {
        let looks = self.chased.values().filter_map(due);
        let claims = (!self.claims.is_empty()).then_some(self.next_dump);
        let next = looks.chain(claims).fold(self.next_scan, std::cmp::Ord::min);
        next.since(mono)
    }

    fn take_processes(&mut self, now: Timestamp, mono: Mono) -> anyhow::Result<()> {
        let Some(connector) = &mut self.connector else { return Ok(()) };
        let mut events = Vec::new();
        if connector.take(&mut events)? {
            *self.lost.entry("host.process_overrun").or_default() += 1;
            self.next_scan = mono;
        }
        for event in events {
            match event {
                ProcEvent::Fork(parent, child) => self.processes.forked(parent, child, now),
                ProcEvent::Exec(pid) => {
                    self.processes.executed(pid, now);
                    if self.chased.len() >= CHASED_MAX {
                        *self.lost.entry("host.chase_full").or_default() += 1;
                    } else {
                        let chase = Chase { begun: mono, look: 0, settled: HashSet::new() };
                        self.chased.insert(pid, chase);
                    }
                }
                ProcEvent::Exit(pid) => {
                    self.processes.exited(pid, mono);
                    self.sockets.ended(pid);
                    self.chased.remove(&pid);
                }
            }
        }
        Ok(())
    }

    /// What the program in the kernel told of who began which connection.
    fn take_owners(&mut self, now: Timestamp, mono: Mono) {
        let Some(owners) = &mut self.owners else { return };
        let mut all: Vec<Told> = Vec::new();
        owners.take(&mut all);
        for told in all {
            let seen = self.processes.see(told.pid, ProcessPhase::Start, now);
            let is_it = seen.is_some_and(|known| known.began_at(told.start_ns));
            if !is_it {
                self.processes.ghost(told.pid, &told.name, told.start_ns, now);
                *self.lost.entry("host.process_ghosts").or_default() += 1;
            }
            let Some(known) = self.processes.get(told.pid) else { continue };
            let process = &known.process;
            let owner = Owner {
                process: process.program.id,
                pid: told.pid,
                name: process.program.name.clone(),
                container: process.container.clone(),
                how: "kernel",
            };
            self.sockets.begun(told.local, told.remote, owner, mono);
        }
    }

    /// Looks at the descriptors of new processes whose time has come.
    fn chase(&mut self, mono: Mono) {
        let proc = self.processes.proc();
        // Only what the kernel's program does not tell: UDP.
        let easy = self.owners.is_some() || self.chased.len() > CLOSELY_MAX;
        let stride = if easy { 3 } else { 1 };
        for (pid, chase) in &mut self.chased {
            if due(chase).is_none_or(|at| at > mono) {
                continue;
            }
            chase.look += stride;
            let new = proc.sockets(*pid).into_iter().filter(|inode| !chase.settled.contains(inode));
            self.claims.extend(new.map(|inode| (inode, *pid)));
        }
        self.chased.retain(|_, chase| due(chase).is_some());
    }

    /// Asks for all sockets and gives those their owners that were claimed.
    fn dump(&mut self, share: u32) -> anyhow::Result<Vec<Connection>> {
        let (now, mono) = (self.clock.wall(), self.clock.mono());
        let mut all: Vec<Seen> = Vec::new();
        self.diag.dump(&mut all)?;
        let over = self.sockets.dumped(&all, self.ends.is_some(), now, mono);
        let orphans = self.sockets.orphans();
        let there: HashSet<u32> = all.iter().map(|s| s.inode).collect();
        for (inode, pid) in std::mem::take(&mut self.claims) {
            if !there.contains(&inode) {
                continue;
            }
            if let Some(chase) = self.chased.get_mut(&pid) {
                chase.settled.insert(inode);
            }
            if orphans.contains(&inode) {
                self.owned(inode, pid, "exec", now, mono);
            }
        }
        let took = self.clock.mono().since(mono);
        self.next_dump = self.clock.mono().plus(took * share);
        Ok(over)
    }

    /// The same, and looks for the owners of all others.
    fn scan(&mut self) -> anyhow::Result<Vec<Connection>> {
        let begun = self.clock.mono();
        let over = self.dump(SHARE_CHASE)?;
        let (now, mono) = (self.clock.wall(), self.clock.mono());
        if self.connector.is_none() {
            self.processes.scan(now, mono);
        }
        let orphans = self.sockets.orphans();
        if !orphans.is_empty() {
            let owners = self.processes.proc().owners();
            for inode in orphans {
                if let Some(pid) = owners.get(&inode) {
                    self.owned(inode, *pid, "scan", now, mono);
                }
            }
        }
        let end = self.clock.mono();
        let rest = (end.since(begun) * SHARE).max(Duration::from_millis(self.config.scan_ms));
        self.next_scan = end.plus(rest);
        Ok(over)
    }

    fn owned(&mut self, inode: u32, pid: u32, how: &'static str, now: Timestamp, mono: Mono) {
        let Some(known) = self.processes.see(pid, ProcessPhase::Start, now) else { return };
        let process = &known.process;
        let owner = Owner {
            process: process.program.id,
            pid,
            name: process.program.name.clone(),
            container: process.container.clone(),
            how,
        };
        self.sockets.owned(inode, &owner, mono);
    }

    fn take_ends(&mut self, now: Timestamp, mono: Mono) -> anyhow::Result<Vec<Connection>> {
        let Some(ends) = &mut self.ends else { return Ok(Vec::new()) };
        let mut all = Vec::new();
        if ends.take(&mut all)? == Looked::Overrun {
            *self.lost.entry("host.ends_overrun").or_default() += 1;
        }
        Ok(all.iter().filter_map(|seen| self.sockets.over(seen, now, mono)).collect())
    }

    /// Connections as events, each after its process.
    fn events(&mut self, connections: Vec<Connection>, now: Timestamp) -> Vec<Event> {
        let mut events = Vec::with_capacity(connections.len());
        for mut connection in connections {
            // A pid alone may have become somebody else's.
            let pid = connection.pid;
            let same = self
                .processes
                .get(pid)
                .is_some_and(|k| Some(k.process.program.id) == connection.process);
            if let Some(process) = same.then(|| self.processes.tell(pid)).flatten() {
                events.push(Event { time: now, body: Body::Process(Box::new(process)) });
            }
            let uid = connection.user.as_deref().and_then(|uid| uid.parse().ok());
            connection.user = uid.map(|uid| self.processes.user(uid));
            if connection.process.is_none() && connection.phase == FlowPhase::End {
                *self.lost.entry("host.without_owner").or_default() += 1;
            }
            events.push(Event { time: now, body: Body::Connection(Box::new(connection)) });
        }
        events
    }

    fn count(&mut self) {
        for (name, value) in [
            ("host.process_missed", self.processes.missed),
            ("drop.host.sockets_full", self.sockets.full),
        ] {
            self.lost.insert(name, value);
        }
    }
}

impl Look for Watch {
    fn coverage(&self) -> &Coverage {
        Self::coverage(self)
    }
    fn missed(&self) -> Vec<&'static str> {
        let missed = MISSED.iter().take(if self.owners.is_some() { 1 } else { MISSED.len() });
        missed.copied().collect()
    }
    fn snapshot(&mut self) -> anyhow::Result<Vec<Event>> {
        Self::snapshot(self)
    }
    fn step(&mut self, out: &mut Vec<Event>) -> anyhow::Result<Duration> {
        Self::step(self, out)
    }
    fn wait(&self, timeout: Duration) -> std::io::Result<()> {
        Self::wait(self, timeout)
    }
    fn lost(&self) -> &BTreeMap<&'static str, u64> {
        &self.lost
    }
}

fn due(chase: &Chase) -> Option<Mono> {
    Some(chase.begun.plus(Duration::from_millis(*LOOKS_MS.get(chase.look)?)))
}
