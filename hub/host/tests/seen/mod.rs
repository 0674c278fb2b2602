//! A watch on the real kernel, for tests: what it told so far, and patience for what it will.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use agentmon_core::Event;
use agentmon_core::event::{Body, Connection, Direction, FlowPhase, Process};
use agentmon_core::time::{Clock, SystemClock};
use agentmon_host::config::Collect;
use agentmon_host::watch::Watch;

/// Says why a test is left out; where the checks installed what is missing, that is a failure.
pub fn leave_out(what: &str, fatal: bool) {
    let line = format!("HOST TEST LEFT OUT: missing: {what}");
    assert!(!fatal || std::env::var("AGENTMON_REQUIRE_LAB").as_deref() != Ok("1"), "{line}");
    writeln!(std::io::stderr(), "\n{line}\n").expect("standard error can be written");
}

/// Has the test go on?
pub fn curl_is_here() -> bool {
    if Command::new("curl").arg("--version").stdout(Stdio::null()).status().is_ok() {
        return true;
    }
    leave_out("curl (apt-get install curl)", true);
    false
}

/// How long to wait for what must come.
pub fn patience() -> Duration {
    let factor = std::env::var("AGENTMON_PATIENCE").ok().and_then(|p| p.parse().ok()).unwrap_or(1);
    Duration::from_secs(60) * factor
}

/// A watch and what it told so far.
pub struct Seen {
    pub watch: Watch,
    pub events: Vec<Event>,
}

impl Seen {
    pub fn new(events: bool, ebpf: bool) -> Self {
        let collect = Collect { scan_ms: 50, events, ebpf, loopback: true };
        Self { watch: Watch::open(&collect, Arc::new(SystemClock)).unwrap(), events: Vec::new() }
    }

    pub fn connection(
        &self,
        to: SocketAddr,
        way: Direction,
        phase: FlowPhase,
    ) -> Option<Connection> {
        self.events.iter().find_map(|e| match &e.body {
            Body::Connection(c) if c.phase == phase && c.direction == way => {
                let end = if way == Direction::Out { c.remote } else { c.local };
                (end.port == to.port() && c.process.is_some()).then(|| (**c).clone())
            }
            _ => None,
        })
    }

    pub fn process(&self, id: u64) -> Option<Process> {
        self.events.iter().rev().find_map(|e| match &e.body {
            Body::Process(p) if p.program.id == id => Some((**p).clone()),
            _ => None,
        })
    }

    /// Every connection told that is like this, newest first.
    pub fn find(&self, like: impl Fn(&Connection) -> bool) -> Option<Connection> {
        self.events.iter().rev().find_map(|e| match &e.body {
            Body::Connection(c) if like(c) => Some((**c).clone()),
            _ => None,
        })
    }

    pub fn until<T>(&mut self, what: &str, mut done: impl FnMut(&Self) -> Option<T>) -> T {
        let clock = SystemClock;
        let end = clock.mono().plus(patience());
        loop {
            if let Some(found) = done(self) {
                return found;
            }
            assert!(clock.mono() < end, "not seen: {what}");
            let mut events = Vec::new();
            let pause = self.watch.step(&mut events).unwrap();
            self.events.append(&mut events);
            self.watch.wait(pause.min(Duration::from_millis(20))).unwrap();
        }
    }
}
