//! The watch of a system that does not tell: looks at all sockets again and again.
//!
//! In: a [`Polled`] system. Out: events, a process always before its connections. One thread.
//! A connection that begins and ends between two looks is not seen: so [`Pace`] looks more
//! often while there is coming and going, and never for more than [`SHARE`] of the time.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use agentmon_core::Event;
use agentmon_core::Timestamp;
use agentmon_core::event::{Body, Connection, FlowPhase, ProcessPhase};
use agentmon_core::time::{Clock, Mono};

use crate::config::Collect;
use crate::files::Files;
use crate::packages::Packages;
use crate::platform::{Coverage, Look, Polled, Seen};
use crate::processes::Processes;
use crate::sockets::{Owner, Sockets};

/// One part in this many of the time goes into looking.
const SHARE: u32 = 50;
/// Shortest pause between two looks, while there is coming and going.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// All processes are looked at as often as this, so that a parent is known when it has ended.
const PROCESSES_EVERY: Duration = Duration::from_secs(2);

/// How long to wait for the next look.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    usual: Duration,
    next: Duration,
}

impl Pace {
    /// `usual`: where nothing comes or goes.
    #[must_use]
    pub const fn new(usual: Duration) -> Self {
        Self { usual, next: usual }
    }

    /// After a look that took `took` and found so many sockets come or gone: half the pause
    /// while there are any, a quarter more while there are none.
    pub fn after(&mut self, changed: usize, took: Duration) -> Duration {
        self.next = if changed > 0 { self.next / 2 } else { self.next + self.next / 4 };
        self.next = self.next.max(PAUSE_MIN.min(self.usual)).min(self.usual);
        self.next.max(took * (SHARE - 1))
    }
}

/// The watch.
pub struct Poll<P> {
    clock: Arc<dyn Clock>,
    coverage: Coverage,
    processes: Processes<P>,
    sockets: Sockets,
    pace: Pace,
    next_look: Mono,
    next_processes: Mono,
    lost: BTreeMap<&'static str, u64>,
}

impl<P> std::fmt::Debug for Poll<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Poll").field("coverage", &self.coverage).finish_non_exhaustive()
    }
}

impl<P: Polled> Poll<P> {
    /// Nothing is looked at yet.
    ///
    /// # Errors
    /// What the system says about a new thread.
    pub fn open(config: &Collect, clock: Arc<dyn Clock>, system: P) -> anyhow::Result<Self> {
        let coverage = system.coverage();
        let files = Files::start_with(P::SIGNER)?;
        // No lists of packages here: an empty folder's.
        let processes = Processes::new(system, files, Packages::start(Path::new("")));
        Ok(Self {
            sockets: Sockets::new(processes.boot(), config.loopback),
            pace: Pace::new(Duration::from_millis(config.scan_ms)),
            clock,
            coverage,
            processes,
            next_look: Mono::default(),
            next_processes: Mono::default(),
            lost: BTreeMap::new(),
        })
    }

    fn look(&mut self) -> anyhow::Result<Vec<Connection>> {
        let (now, mono) = (self.clock.wall(), self.clock.mono());
        if mono >= self.next_processes {
            self.processes.scan(now, mono);
            self.next_processes = self.clock.mono().plus(PROCESSES_EVERY);
        }
        let mut all: Vec<Seen> = Vec::new();
        self.processes.proc().sockets(&mut all)?;
        let before = self.sockets.len();
        let over = self.sockets.dumped(&all, false, now, mono);
        let come = (self.sockets.len() + over.len()).saturating_sub(before);
        for pid in self.sockets.orphans() {
            let Some(known) = self.processes.see(pid, ProcessPhase::Start, now) else { continue };
            let program = &known.process.program;
            let owner = Owner {
                process: program.id,
                pid,
                name: program.name.clone(),
                container: None,
                how: "scan",
            };
            self.sockets.owned(pid, &owner, mono);
        }
        let end = self.clock.mono();
        self.next_look = end.plus(self.pace.after(come + over.len(), end.since(mono)));
        Ok(over)
    }

    fn events(&mut self, connections: Vec<Connection>, now: Timestamp) -> Vec<Event> {
        let mut events = Vec::with_capacity(connections.len());
        for mut connection in connections {
            let pid = connection.pid;
            // A pid alone may have become somebody else's.
            let known = self.processes.get(pid);
            let same = known.is_some_and(|k| Some(k.process.program.id) == connection.process);
            connection.user = known.filter(|_| same).and_then(|k| k.process.program.user.clone());
            if let Some(process) = same.then(|| self.processes.tell(pid)).flatten() {
                events.push(Event { time: now, body: Body::Process(Box::new(process)) });
            }
            if connection.process.is_none() && connection.phase == FlowPhase::End {
                *self.lost.entry("host.without_owner").or_default() += 1;
            }
            events.push(Event { time: now, body: Body::Connection(Box::new(connection)) });
        }
        events
    }
}

impl<P: Polled> Look for Poll<P> {
    fn coverage(&self) -> &Coverage {
        &self.coverage
    }

    fn missed(&self) -> Vec<&'static str> {
        P::MISSED.to_vec()
    }

    fn snapshot(&mut self) -> anyhow::Result<Vec<Event>> {
        self.look()?;
        let (now, mono) = (self.clock.wall(), self.clock.mono());
        let connections = self.sockets.all(now, mono);
        Ok(self.events(connections, now))
    }

    fn step(&mut self, out: &mut Vec<Event>) -> anyhow::Result<Duration> {
        let (now, mono) = (self.clock.wall(), self.clock.mono());
        if mono >= self.next_look {
            let over = self.look()?;
            let due = self.sockets.due(now, mono);
            // What ended is told last: its process may be told with what is due.
            out.extend(self.events(due, now));
            out.extend(self.events(over, now));
            let late = self.processes.late_hashes();
            out.extend(
                late.into_iter().map(|p| Event { time: now, body: Body::Process(Box::new(p)) }),
            );
            self.processes.forget(mono);
            self.lost.insert("host.process_missed", self.processes.missed);
            self.lost.insert("drop.host.sockets_full", self.sockets.full);
        }
        Ok(self.next_look.since(self.clock.mono()))
    }

    fn wait(&self, timeout: Duration) -> io::Result<()> {
        std::thread::sleep(timeout);
        Ok(())
    }

    fn lost(&self) -> &BTreeMap<&'static str, u64> {
        &self.lost
    }
}

#[cfg(test)]
#[path = "poll_tests.rs"]
mod tests;
