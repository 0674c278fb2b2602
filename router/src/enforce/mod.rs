//! The one part that acts: holds DNS questions, and drops those for listed names. Off unless
//! switched on.
//!
//! In: packets that a firewall rule hands to an NFQUEUE (udp to port 53). Out: a verdict for
//! each, and a record of each question dropped. Threads: the queue's own, which does nothing
//! but judge; and the collector's, which watches over it.
//!
//! queue -> `packet` -> `dns_wire` -> block lists -> verdict -> delivery.
//!
//! Whatever happens here must not cost the network its DNS. Hence:
//! - without a reader the rule lets everything pass (`bypass`): agentmon stopped, killed or
//!   not yet started;
//! - the queue is short ([`Config::length`]) and open when full: a program that hangs delays
//!   at most so many questions, all others pass it by;
//! - the queue's thread waits for nobody: records of drops are given away without waiting,
//!   and counted where they cannot be;
//! - a watchdog ends the whole program when one verdict takes longer than [`STALL_TICKS`]
//!   times [`TICK`]: gone is better than hung, and the supervisor starts it anew;
//! - what cannot be read goes on.
//!
//! Questions over TCP, TLS, HTTPS or QUIC are not held.

mod heart;
mod judge;
mod queue;

use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use agentmon_core::tier0::blocklist::Blocklist;
use serde::{Deserialize, Serialize};

use crate::collect::neighbours::Neighbours;
use crate::collect::{Collector, Context};
use crate::sys;
use heart::Heart;
pub use judge::{Judgement, SOURCE, Stopped, judge};
use queue::Held;

/// How often the watchdog looks.
const TICK: Duration = Duration::from_millis(250);
/// So many looks in a row at one and the same verdict mean that it hangs: 3 s of the
/// program's own time, so that a program that was frozen and wakes is not ended for it.
const STALL_TICKS: u32 = 12;
/// How often the queue's thread is woken until it has noticed that it should stop.
const WAKE_EVERY: Duration = Duration::from_millis(20);

/// Settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether questions for listed names are dropped. Needs a firewall rule that hands DNS
    /// questions to the queue (kmod-nft-queue on OpenWrt).
    pub enabled: bool,
    /// Number of the NFQUEUE.
    pub queue: u16,
    /// Most questions held at a time; further ones pass. Each waits some microseconds, or,
    /// should this program hang, until it is ended.
    pub length: u32,
    /// The score, 0 to 1, from which on a list is enforced.
    pub score_min: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { enabled: false, queue: 17, length: 32, score_min: 0.6 }
    }
}

impl Config {
    /// Whether the values make sense.
    ///
    /// # Errors
    /// The key, and what is allowed.
    pub fn validate(&self) -> Result<(), (&'static str, String)> {
        if !(1..=64).contains(&self.length) {
            return Err(("length", format!("want 1 to 64 questions, not {}", self.length)));
        }
        if !(0.0..=1.0).contains(&self.score_min) {
            return Err(("score_min", format!("want a score from 0 to 1, not {}", self.score_min)));
        }
        Ok(())
    }
}

/// The lists in force, shared with whoever loads new ones. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<RwLock<Arc<Blocklist>>>);

impl Gate {
    /// Puts other lists in force.
    pub fn set(&self, lists: Blocklist) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(lists);
    }

    /// The lists in force, by a handle: asked for with every packet.
    fn lists(&self) -> Arc<Blocklist> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The collector.
#[derive(Debug)]
pub struct Source {
    config: Config,
    gate: Gate,
    neighbours: Neighbours,
}

impl Source {
    /// Not yet holding anything.
    #[must_use]
    pub const fn new(config: Config, gate: Gate, neighbours: Neighbours) -> Self {
        Self { config, gate, neighbours }
    }
}

impl Collector for Source {
    fn name(&self) -> &str {
        "enforce"
    }

    fn run(&mut self, context: &Context) -> anyhow::Result<()> {
        let heart = Arc::new(Heart::default());
        let (gate, neighbours) = (self.gate.clone(), self.neighbours.clone());
        let held = Held::open(&self.config, context, gate, neighbours, Arc::clone(&heart))?;
        let waiting = format!(
            "ok: no question so far; a firewall rule must hand them over, such as: \
             udp dport 53 queue flags bypass to {}",
            self.config.queue
        );
        context.state.set(waiting);
        let thread = std::thread::Builder::new().name("enforce-queue".into());
        let worker = thread.spawn(move || held.serve())?;
        watch(&worker, &heart, context);
        worker.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the queue's thread died")))
    }
}

/// Until the worker has ended, by itself or because it should.
fn watch(worker: &JoinHandle<anyhow::Result<()>>, heart: &Heart, context: &Context) {
    let (mut last, mut ticks) = (None, 0);
    while !worker.is_finished() {
        if context.stop.is_set() {
            // It sits in a system call, which ends early; a wake-up that comes just before
            // the call is lost, hence again and again.
            sys::interrupt(worker);
            std::thread::sleep(WAKE_EVERY);
            continue;
        }
        let beat = heart.busy_with();
        ticks = if beat.is_some() && beat == last { ticks + 1 } else { 0 };
        last = beat;
        if ticks >= STALL_TICKS {
            tracing::error!("a held DNS question hangs: ending the program, so that DNS goes on");
            std::process::abort();
        }
        if let Some(line) = heart.line() {
            context.state.set(line);
        }
        std::thread::sleep(TICK);
    }
}

#[cfg(test)]
mod tests;
