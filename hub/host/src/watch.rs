//! Watches processes and sockets, on one thread.
//!
//! In: the kernel by [`crate::linux`]. Out: events, a process always before its connections.
//! Methods, from the best down; what is missing is said by [`Watch::coverage`]:
//!
//! | method | needs | without it |
//! |---|---|---|
//! | `kernel`: eBPF tells of connections, owners and programs, in all network namespaces | root, a kernel with BTF; for UDP cgroup v2 | the next ones |
//! | `events`: the kernel tells of starts of processes and ends of sockets | root, the machine's own network namespace | short programs and connections are missed |
//! | `ends`: of ends of sockets only | `CAP_NET_ADMIN` | short connections are missed, byte totals are late |
//! | `scan`: dumps of all sockets, and who holds them | nothing; root for others' | - |
//!
//! With eBPF, dumps only find what is older than this program, and the counts of what lasts.
//! Without it, the descriptors of a new process are looked at 1, 2, 3 ... 512 ms after its
//! start: that is how a connection of a program that lives for milliseconds has its owner. One
//! that a program begins later and ends between two dumps has none; where the same account
//! alone went to the same place before, it is told as `likely`.
//!
//! Budget: a dump and a walk at most [`SHARE`] of the time, with eBPF [`SHARE_KERNEL`].

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use agentmon_core::event::{Body, Connection, FlowPhase, ProcessPhase};
use agentmon_core::service::proto::UDP;
use agentmon_core::time::{Clock, Mono};
use agentmon_core::{Event, Timestamp};
use agentmon_router::sys::{self, Ready};

use crate::config::Collect;
use crate::files::Files;
use crate::flows::Flows;
use crate::linux::connector::{Connector, ProcEvent};
use crate::linux::containers;
use crate::linux::diag::{Diag, Ends, Groups, Looked, Seen};
use crate::linux::ebpf::{self, Flow, Kernel, Told, Way};
use crate::linux::procfs::ProcFs;
use crate::linux::routes::Routes;
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
/// The same where the kernel's part tells of everything new.
const SHARE_KERNEL: u32 = 2_000;
/// Then dumps are this many times rarer,
const RARER: u32 = 10;
/// or so rare, while a socket's own port is not known.
const PORTS_EVERY: Duration = Duration::from_secs(1);
/// What the kernel's part told is taken at most this often: waking up costs more than reading.
const DRAIN_EVERY: Duration = Duration::from_millis(100);
/// How long to wait after a dump that failed.
const DUMP_AGAIN: Duration = Duration::from_secs(1);
/// A dump for a process that has just begun may cost more: one part in this many.
const SHARE_CHASE: u32 = 2;
/// How often old processes are forgotten, and late hashes told.
const TIDY_EVERY: Duration = Duration::from_secs(2);
/// What is not seen without eBPF.
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
    kernel: Option<Kernel>,
    drained: Mono,
    coverage: Coverage,
    processes: Processes<ProcFs>,
    sockets: Sockets,
    flows: Flows,
    told: Vec<Told>,
    /// Told while something else was asked for.
    waiting: Vec<Event>,
    routes: Routes,
    flows_due: Mono,
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
        let mut say = |name: &str, line: String| lines.push((name.to_owned(), line));
        let mut kernel = None;
        if config.events && config.ebpf {
            match Kernel::open() {
                Ok(open) => {
                    say(
                        "kernel",
                        open.without_udp().map_or("ok".into(), |why| {
                            format!("not for UDP: {why}; owners of short sockets of it are missed")
                        }),
                    );
                    kernel = Some(open);
                }
                Err(error) => say(
                    "kernel",
                    format!(
                        "{}; containers, and of long-running programs short connections, are missed",
                        ebpf::short(&error)
                    ),
                ),
            }
        }
        // What the kernel's part tells need not be told twice.
        let udp_told = kernel.as_ref().is_some_and(|k| k.without_udp().is_none());
        let wanted = config.events && !udp_told;
        let groups = if kernel.is_some() { Groups::Udp } else { Groups::All };
        let ends = wanted.then(|| Ends::open(groups)).transpose().unwrap_or_else(|error| {
            say("ends", format!("{error}; short connections are missed"));
            None
        });
        let wanted = config.events && kernel.is_none();
        let connector = wanted.then(Connector::open).transpose().unwrap_or_else(|error| {
            say("processes", format!("{error}; short programs are missed"));
            None
        });
        if sys::user_id() != 0 {
            say("owners", "not root: sockets of other accounts have no owner".into());
        }
        let method = match (&kernel, &ends, &connector) {
            (Some(_), ..) => "kernel",
            (None, Some(_), Some(_)) => "events",
            (None, Some(_), None) => "ends",
            _ => "scan",
        };
        let packages = Packages::start(std::path::Path::new(DPKG));
        let processes = Processes::new(ProcFs::default(), Files::start()?, packages);
        Ok(Self {
            sockets: Sockets::new(processes.boot(), config.loopback),
            flows: Flows::new(processes.boot(), processes.netns().unwrap_or(0), config.loopback),
            config: config.clone(),
            diag,
            ends,
            connector,
            kernel,
            drained: Mono::default(),
            coverage: Coverage { lines, method },
            processes,
            told: Vec::new(),
            waiting: Vec::new(),
            routes: Routes::default(),
            flows_due: Mono::default(),
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
        let told = self.take_kernel(now, mono);
        out.extend(told);
        self.chase(mono);
        let wanted = !self.claims.is_empty() && mono >= self.next_dump;
        if mono >= self.next_scan {
            let over = self.scan()?;
            out.extend(self.events(over, now));
        } else if wanted {
            let over = self.dump(SHARE_CHASE)?;
            out.extend(self.events(over, now));
        }
        out.append(&mut self.waiting);
        let over = self.take_ends(now, mono)?;
        let due = self.sockets.due(now, mono);
        out.extend(self.events(due, now));
        let grown = self.flows.grown(mono);
        out.extend(self.events(grown, now));
        if self.flows_due <= mono {
            self.flows_due = mono.plus(TIDY_EVERY);
            let due = self.flows.due(now, mono);
            out.extend(self.events(due, now));
        }
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
        // Records that come while this naps are read all at once.
        if let Some(rest) = self.kernel.as_ref().and_then(|_| self.rest()) {
            sys::wait_many(&[], rest.min(timeout))?;
        }
        let read = Ready { read: true, write: false };
        let news = self.kernel.as_ref().map(|k| (k.news(), read));
        let ends = self.ends.as_ref().map(|e| (e.socket().as_fd(), read));
        let starts = self.connector.as_ref().map(|c| (c.socket().as_fd(), read));
        let all: Vec<_> = ends.into_iter().chain(starts).chain(news).collect();
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
                ProcEvent::Fork(parent, child) => self.processes.forked(parent, child, 0, now),
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

    /// Until when what the kernel's part tells may wait.
    fn rest(&self) -> Option<Duration> {
        let rest = self.drained.plus(DRAIN_EVERY).since(self.clock.mono());
        (!rest.is_zero()).then_some(rest)
    }

    /// What the kernel's part told, in its order.
    fn take_kernel(&mut self, now: Timestamp, mono: Mono) -> Vec<Event> {
        let Some(kernel) = &mut self.kernel else { return Vec::new() };
        let mut all = std::mem::take(&mut self.told);
        let lost = kernel.take(&mut all);
        self.drained = mono;
        if lost > 0 {
            *self.lost.entry("host.kernel_overrun").or_default() += u64::from(lost);
            self.next_scan = mono;
        }
        let mut out = Vec::new();
        let me = std::process::id();
        for told in all.drain(..) {
            match told {
                Told::Began(flow) | Told::Ended(flow) if Routes::is_a_question(&flow, me) => {}
                Told::Fork(f) => self.processes.forked(f.parent, f.pid, f.start_ns, now),
                Told::Exec(exec) => self.processes.became(&exec, now),
                Told::Exit(step) => self.processes.left(step.pid, now, mono),
                Told::Began(flow) => {
                    let flow = self.whole(flow);
                    let owner = self.owner(&flow, now);
                    let told = self.flows.began(&flow, owner, now, mono);
                    out.extend(self.events(told, now));
                }
                Told::Ended(flow) => {
                    let told = self.ended(&flow, now, mono);
                    out.extend(self.events(told, now));
                }
            }
        }
        self.told = all;
        out
    }

    fn ended(&mut self, flow: &Flow, now: Timestamp, mono: Mono) -> Vec<Connection> {
        if !self.flows.has(flow) && self.flows.is_ours(flow) {
            let ends = (flow.local, flow.remote);
            if let Some(over) = self.sockets.over_by_ends(ends, flow.volume, now, mono) {
                return vec![over];
            }
        }
        let owner = self.owner(flow, now);
        self.flows.ended(flow, owner, now, mono)
    }

    /// With the address that this machine would send from, where the socket has none.
    fn whole(&mut self, mut flow: Flow) -> Flow {
        let open = flow.proto == UDP && flow.local.ip.is_unspecified() && flow.local.port != 0;
        let ours = open && self.flows.is_ours(&flow);
        let mono = self.clock.mono();
        if let Some(ip) = ours.then(|| self.routes.source(flow.remote, mono)).flatten() {
            flow.local.ip = ip;
        }
        flow
    }

    fn owner(&mut self, flow: &Flow, now: Timestamp) -> Option<Owner> {
        let ours = self.flows.is_ours(flow);
        if flow.pid == 0 {
            // It waited before the kernel's part was there.
            let listener = self.sockets.listener(flow.proto, flow.local.port);
            let listener = listener.filter(|_| ours && flow.way == Way::In)?;
            return Some(Owner { how: "listener", ..listener });
        }
        let known = self.processes.told(flow.pid, &flow.name, flow.start_ns, now)?;
        let process = &known.process;
        let elsewhere = || containers::name(flow.netns.into(), None, containers::NAMES.as_ref());
        let container = process.container.clone().or_else(|| (!ours).then(elsewhere));
        Some(Owner {
            process: process.program.id,
            pid: flow.pid,
            name: process.program.name.clone(),
            container,
            how: "kernel",
        })
    }

    /// Looks at the descriptors of new processes whose time has come.
    fn chase(&mut self, mono: Mono) {
        let proc = self.processes.proc();
        let stride = if self.chased.len() > CLOSELY_MAX { 3 } else { 1 };
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
        if let Err(error) = self.diag.dump(&mut all) {
            // Needs no privilege to be opened again. What could not be asked is asked later.
            tracing::debug!("{error}");
            *self.lost.entry("host.dump_failed").or_default() += 1;
            self.diag = Diag::open()?;
            self.next_dump = mono.plus(DUMP_AGAIN);
            return Ok(Vec::new());
        }
        let mut over = Vec::new();
        if self.kernel.is_some() {
            // What began before the dump was taken is known after this.
            let told = self.take_kernel(now, mono);
            self.waiting.extend(told);
            over = self.flows.dumped(&all, now, mono);
            let told = self.flows.told();
            let others = all.iter().filter(|s| !told.has(s)).cloned().collect::<Vec<_>>();
            over.extend(self.sockets.dumped(&others, self.ends.is_some(), now, mono));
        } else {
            over.extend(self.sockets.dumped(&all, self.ends.is_some(), now, mono));
        }
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
        let mut over = self.dump(SHARE_CHASE)?;
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
            self.sockets.unclaimed();
        }
        let sockets = &self.sockets;
        over.extend(self.flows.adopt(|proto, port| sockets.listener(proto, port), mono));
        let end = self.clock.mono();
        let every = Duration::from_millis(self.config.scan_ms);
        let (share, every) = match self.kernel {
            Some(_) if self.flows.waits(mono) => (SHARE, PORTS_EVERY.max(every)),
            Some(_) => (SHARE_KERNEL, every * RARER),
            None => (SHARE, every),
        };
        self.next_scan = end.plus((end.since(begun) * share).max(every));
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
            ("host.process_ghosts", self.processes.ghosts),
            ("drop.host.sockets_full", self.sockets.full),
            ("drop.host.flows_full", self.flows.full),
            ("host.ends_lost", self.flows.lost_ends),
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
        if self.kernel.is_some() { Vec::new() } else { MISSED.to_vec() }
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
