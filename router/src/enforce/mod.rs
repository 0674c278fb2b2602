//! The one part that acts: holds DNS questions and the first packets of connections, and
//! stops those that a list speaks against. Off unless switched on, and then only said, not
//! done, until `dry_run` is switched off.
//!
//! In: packets that the rules of `kernel::hold` hand to an NFQUEUE. Out: a verdict for each,
//! answers, and events about what was listed. Threads: the queue's own, which does nothing
//! but judge; and the collector's, which watches over it and tells what was done.
//!
//! queue -> `judge` (`packet`, `dns_wire`, lists) -> exceptions -> verdict, `reply` -> `told`.
//!
//! Whatever happens here must not cost the network anything. Hence:
//! - without a reader the rules let everything pass (`bypass`): agentmon stopped, killed or
//!   not yet started;
//! - the queue is short ([`Config::length`]) and open when full: what comes faster than it
//!   can be judged goes on unjudged;
//! - the rules hold only while the kernel sees this program's `pulse`: when it is frozen or
//!   starved, or the queue's thread does not come on, they match nothing after one second.
//!   Of the packets then in the queue, at most [`Config::length`], some wait until the
//!   program wakes and are lost when it is ended; clients ask again;
//! - a watchdog ends the whole program when one verdict takes longer than [`STALL_TICKS`]
//!   times [`TICK`]: gone is better than hung, and the supervisor starts it anew;
//! - the queue's thread waits for nobody: what is to be told is given away without waiting,
//!   and counted where it cannot be;
//! - what cannot be read goes on.
//!
//! Whom it answers: only clients of the house, never the internet, and with packets as long
//! as theirs (see `reply`): it cannot be made to send anybody more than it was sent.
//!
//! Not judged, but counted and told: DNS over TCP, TLS and QUIC. Over HTTPS it is a
//! connection like others: put the addresses of such resolvers on a list.

mod exceptions;
mod gate;
mod heart;
mod judge;
mod pulse;
mod reply;
mod told;

mod queue;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use agentmon_core::Event;
use agentmon_core::time::Mono;
use serde::{Deserialize, Serialize};

use crate::collect::{Collector, Context, Delivery};
use crate::counters::Counter;
use crate::sys;
pub use exceptions::{
    AddError, Case as ExceptionCase, Exception, Exceptions, FOR_MAX, Rule, duration,
};
pub use gate::{Gate, InForce};
use heart::Heart;
pub use judge::{Judgement, Listed, Question, Unjudged, judge};
use pulse::Pulse;
pub use pulse::{ANSWER, PULSE, REFUSE};
use queue::Held;
pub use reply::nxdomain;
use told::{Case, Folds};
pub use told::{RULE, SOURCE};

/// How often the watchdog looks, and the pulse beats.
const TICK: Duration = Duration::from_millis(250);
/// So many looks in a row at one and the same verdict, and the pulse stops.
const PULSE_TICKS: u32 = 2;
/// So many mean that it hangs: 3 s of the program's own time, so that a program that was
/// frozen and wakes is not ended for it.
const STALL_TICKS: u32 = 12;
/// The kernel's patience with the pulse: without one for so long the rules match nothing.
pub const PULSE_KEEP: Duration = Duration::from_secs(1);
/// How often the queue's thread is woken until it has noticed that it should stop.
const WAKE_EVERY: Duration = Duration::from_millis(20);
/// Most verdicts waiting to be told.
const TOLD_MAX: usize = 256;
/// Longest name of an interface (`IFNAMSIZ`, less its end).
const INTERFACE_BYTES_MAX: usize = 15;
/// Most interfaces.
const INTERFACES_MAX: usize = 32;

/// How something is stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Block {
    /// With an answer: a question with "no such name", a connection with a refusal.
    #[default]
    Nxdomain,
    /// Without one.
    Drop,
}

/// Settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether DNS questions and first packets are held and judged by the lists with
    /// `block = true`. Needs firewall rules: `agentmon-router setup --rules` adds them.
    pub enabled: bool,
    /// Judge everything and stop nothing: what would have been stopped is told.
    pub dry_run: bool,
    /// How listed things are stopped: `nxdomain` answers questions with "no such name" and
    /// refuses connections, `drop` says nothing.
    pub block: Block,
    /// Whether first packets to listed addresses are stopped, not only questions.
    pub addresses: bool,
    /// Interfaces whose packets are held, such as `br-lan`. None: all.
    pub interfaces: Vec<String>,
    /// Number of the NFQUEUE.
    pub queue: u16,
    /// Most packets held at a time; further ones pass. Each waits some microseconds, or,
    /// should this program hang, until it is ended.
    pub length: u32,
    /// Verdicts about the same client and name are told together, once in so many seconds.
    pub repeat_seconds: u64,
    /// How single lists are blocked, where it is not as `block` says: `trackers = "drop"`.
    pub lists: BTreeMap<String, Block>,
    /// What is let through although it is listed: `what`, a name with all below it, an
    /// address or a network; `device`, a MAC, an address or a network; `until`, RFC 3339;
    /// `why`. See also `agentmon-router allow`.
    pub exceptions: Vec<Exception>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: false,
            // Whoever switches it on sees first what it would do.
            dry_run: true,
            block: Block::Nxdomain,
            addresses: true,
            interfaces: Vec::new(),
            queue: 17,
            length: 32,
            repeat_seconds: 60,
            lists: BTreeMap::new(),
            exceptions: Vec::new(),
        }
    }
}

impl Config {
    /// Whether the values make sense.
    ///
    /// # Errors
    /// The key, and what is allowed.
    pub fn validate(&self) -> Result<(), (String, String)> {
        let wrong = |key: &str, why: String| Err((key.to_owned(), why));
        if !(1..=64).contains(&self.length) {
            return wrong("length", format!("want 1 to 64 packets, not {}", self.length));
        }
        if !(1..=86_400).contains(&self.repeat_seconds) {
            return wrong("repeat_seconds", "want 1 to 86400 seconds".into());
        }
        if self.interfaces.len() > INTERFACES_MAX {
            return wrong("interfaces", format!("want at most {INTERFACES_MAX}"));
        }
        if let Some(bad) = self.interfaces.iter().find(|name| !is_interface(name)) {
            let shown = agentmon_core::name::printable(bad.as_bytes(), 40);
            return wrong("interfaces", format!("`{shown}` is no interface's name"));
        }
        let most = exceptions::CONFIGURED_MAX;
        if self.exceptions.len() > most {
            return wrong("exceptions", format!("want at most {most}"));
        }
        for (i, exception) in self.exceptions.iter().enumerate() {
            if let Err((key, why)) = exception.rule() {
                return wrong(&format!("exceptions[{i}].{key}"), why);
            }
        }
        Ok(())
    }

    /// How what this list has is stopped.
    #[must_use]
    pub fn block_of(&self, list: &str) -> Block {
        self.lists.get(list).copied().unwrap_or(self.block)
    }
}

/// Only what can stand in a rule without quoting.
fn is_interface(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'@');
    (1..=INTERFACE_BYTES_MAX).contains(&name.len()) && name.bytes().all(plain)
}

/// The collector.
#[derive(Debug)]
pub struct Source {
    config: Config,
    gate: Gate,
}

impl Source {
    /// Not yet holding anything.
    #[must_use]
    pub const fn new(config: Config, gate: Gate) -> Self {
        Self { config, gate }
    }
}

impl Collector for Source {
    fn name(&self) -> &str {
        "enforce"
    }

    fn run(&mut self, context: &Context) -> anyhow::Result<()> {
        self.gate.configure(&self.config.exceptions);
        let heart = Arc::new(Heart::default());
        let (told, cases) = sync_channel(TOLD_MAX);
        let held = Held::open(&self.config, context, self.gate.clone(), Arc::clone(&heart), told)?;
        let mode = match (self.config.dry_run, held.answers()) {
            (true, _) => "dry run",
            (false, true) => "ok",
            (false, false) => "ok, but questions are dropped and not answered (CAP_NET_RAW)",
        };
        context.state.set(format!(
            "{mode}: no packet so far; rules must hand them over \
             (agentmon-router setup --rules)"
        ));
        let pulse = Pulse::open()?;
        let thread = std::thread::Builder::new().name("enforce-queue".into());
        let worker = thread.spawn(move || held.serve())?;
        let mut guard = Guard::new(&self.config, context, heart, pulse, mode);
        guard.watch(&worker, &cases);
        worker.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the queue's thread died")))
    }
}

/// Watches over the queue's thread, and tells what it did.
struct Guard<'a> {
    context: &'a Context,
    heart: Arc<Heart>,
    pulse: Pulse,
    mode: &'static str,
    folds: Folds,
    /// Looks in a row at the same packet in hand.
    ticks: u32,
    last: Option<u64>,
    looked: Mono,
    beaten: Option<Mono>,
    lapses: Counter,
    untold: Counter,
    full: Counter,
}

impl<'a> Guard<'a> {
    fn new(
        config: &Config,
        context: &'a Context,
        heart: Arc<Heart>,
        pulse: Pulse,
        mode: &'static str,
    ) -> Self {
        let counter = |name: &str| context.counters.counter(name);
        Self {
            context,
            heart,
            pulse,
            mode,
            folds: Folds::new(Duration::from_secs(config.repeat_seconds)),
            ticks: 0,
            last: None,
            looked: context.clock.mono(),
            beaten: None,
            lapses: counter("enforce.lapses"),
            untold: counter("drop.enforce.pipeline_full"),
            full: counter("drop.enforce.folds_full"),
        }
    }

    /// Until the worker has ended, by itself or because it should.
    fn watch(&mut self, worker: &JoinHandle<anyhow::Result<()>>, cases: &Receiver<Case>) {
        self.beat();
        while !worker.is_finished() {
            if self.context.stop.is_set() {
                // It sits in a system call, which ends early; a wake-up that comes just before
                // the call is lost, hence again and again.
                sys::interrupt(worker);
                std::thread::sleep(WAKE_EVERY);
                continue;
            }
            let left = TICK.saturating_sub(self.context.clock.mono().since(self.looked));
            let mut events = Vec::new();
            match cases.recv_timeout(left) {
                Ok(case) => self.folds.add(case, self.context.clock.mono(), &mut events),
                Err(RecvTimeoutError::Timeout) => {}
                // The worker is just ending.
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(WAKE_EVERY),
            }
            if self.context.clock.mono().since(self.looked) >= TICK {
                self.look(&mut events);
            }
            self.deliver(events);
        }
        let mut events = Vec::new();
        for case in cases.try_iter() {
            self.folds.add(case, self.context.clock.mono(), &mut events);
        }
        self.folds.due(self.context.clock.mono(), true, &mut events);
        self.deliver(events);
    }

    /// Looks whether the worker comes on.
    fn look(&mut self, events: &mut Vec<Event>) {
        self.looked = self.context.clock.mono();
        let busy = self.heart.busy_with();
        self.ticks = if busy.is_some() && busy == self.last { self.ticks + 1 } else { 0 };
        self.last = busy;
        if self.ticks >= STALL_TICKS {
            tracing::error!("a held packet hangs: ending the program, so that the network goes on");
            std::process::abort();
        }
        if self.ticks < PULSE_TICKS {
            self.beat();
        }
        if let Some(line) = self.heart.line() {
            self.context.state.set(format!("{}: {line}", self.mode));
        }
        self.folds.due(self.looked, false, events);
        self.full.add(self.folds.take_full());
    }

    fn beat(&mut self) {
        let now = self.context.clock.mono();
        if self.beaten.is_some_and(|last| now.since(last) > PULSE_KEEP) {
            // For a while nothing was held: this program, or the machine, was too slow.
            self.lapses.inc();
        }
        if self.pulse.beat() {
            self.beaten = Some(now);
        }
    }

    /// Never waits: the pulse would stop.
    fn deliver(&self, events: Vec<Event>) {
        let count = events.len() as u64;
        if count == 0 {
            return;
        }
        if self.context.outbox.try_send(Delivery { events, checkpoint: None }).is_err() {
            self.untold.add(count);
        }
    }
}

#[cfg(test)]
mod tests;
