//! Collectors: each reads one source on a thread of its own and delivers events.
//!
//! A collector is three functions: `run` (I/O, short, returns its error), `decode` (bytes
//! to raw, pure, fuzzed), `normalise` (raw to event, pure). It never retries in secret: it
//! returns the error and the supervisor starts it again with back-off. State that must
//! survive that restart lives in `self`; state that must survive the process goes into
//! the [`Checkpoint`] that travels with the events and is committed with them.

#[cfg(target_os = "linux")]
pub mod adguard;
#[cfg(target_os = "linux")]
pub mod conntrack;
#[cfg(target_os = "linux")]
pub mod dnsmasq_log;
#[cfg(target_os = "linux")]
pub mod firewall;
#[cfg(target_os = "linux")]
mod gaps;
#[cfg(target_os = "linux")]
pub mod leases;
#[cfg(target_os = "linux")]
pub mod neighbours;
#[cfg(target_os = "linux")]
pub mod passive_dns;
#[cfg(target_os = "linux")]
pub mod pihole;
#[cfg(target_os = "linux")]
pub mod pihole_ftl;
#[cfg(target_os = "linux")]
pub mod pihole_ssh;
#[cfg(target_os = "linux")]
pub mod replay;
#[cfg(target_os = "linux")]
pub mod syslog;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use agentmon_core::Event;
use agentmon_core::time::{Clock, Mono};

use crate::counters::Counters;

/// Whether events of that source were read from a resolver's log, wherever it came from: one
/// exchange may be told by such a log and by its packets.
#[cfg(target_os = "linux")]
#[must_use]
pub(crate) fn is_log(source: &str) -> bool {
    [dnsmasq_log::SOURCE, pihole::SOURCE, pihole_ssh::SOURCE, syslog::SOURCE, adguard::SOURCE]
        .contains(&source)
}

/// Most deliveries waiting for the pipeline, over all collectors: 65,536 events, about 25 MB
/// at the worst, and what the pipeline does in a fifth of a second.
pub const DELIVERIES_MAX: usize = 64;
/// Most events a collector puts into one delivery.
pub const DELIVERY_EVENTS_MAX: usize = 1_024;

/// What a collector hands over in one piece: it is committed in one piece.
#[derive(Debug, Default)]
pub struct Delivery {
    /// What was seen, oldest first.
    pub events: Vec<Event>,
    /// Where to go on after a restart, once these events are safe.
    pub checkpoint: Option<Checkpoint>,
}

/// A collector's place in its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The collector's own name (with its file or address where there may be several).
    pub key: String,
    /// Its own encoding, a few KiB at most.
    pub value: Vec<u8>,
}

/// The pipeline is gone: the program is stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the pipeline has stopped")]
pub struct Closed;

/// Where collectors deliver to. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Outbox {
    sender: SyncSender<Delivery>,
    tally: Option<Arc<Tally>>,
}

/// How much one collector delivered, and when last.
pub struct Tally {
    events: AtomicU64,
    /// Monotonic nanoseconds; 0: never.
    last: AtomicU64,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tally").field("events", &self.events()).finish_non_exhaustive()
    }
}

impl Tally {
    /// Nothing so far.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { events: AtomicU64::new(0), last: AtomicU64::new(0), clock })
    }

    /// Events delivered.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    /// Milliseconds since the last of them, if there was one.
    #[must_use]
    pub fn age_ms(&self, now: Mono) -> Option<u64> {
        let last = self.last.load(Ordering::Relaxed);
        let age = now.since(Mono::from_nanos(last)).as_millis();
        (last > 0).then(|| u64::try_from(age).unwrap_or(u64::MAX))
    }

    fn note(&self, events: usize) {
        if events > 0 {
            self.events.fetch_add(events as u64, Ordering::Relaxed);
            self.last.store(self.clock.mono().nanos(), Ordering::Relaxed);
        }
    }
}

impl Outbox {
    /// A bounded queue of [`DELIVERIES_MAX`]; the receiver belongs to the pipeline.
    #[must_use]
    pub fn channel() -> (Self, Receiver<Delivery>) {
        let (sender, receiver) = sync_channel(DELIVERIES_MAX);
        (Self { sender, tally: None }, receiver)
    }

    /// The same, with what is delivered counted.
    #[must_use]
    pub fn counted(self, tally: Arc<Tally>) -> Self {
        Self { tally: Some(tally), ..self }
    }

    /// Hands over and waits while the pipeline is behind: the source (a file, a socket
    /// buffer of 4 MiB) is the better queue.
    ///
    /// # Errors
    /// [`Closed`] when the program is stopping.
    pub fn send(&self, delivery: Delivery) -> Result<(), Closed> {
        let events = delivery.events.len();
        self.sender.send(delivery).map_err(|_| Closed)?;
        self.note(events);
        Ok(())
    }

    /// Hands over without waiting; a full queue gives the delivery back, to be counted.
    ///
    /// # Errors
    /// The delivery, when the queue is full or the program is stopping.
    pub fn try_send(&self, delivery: Delivery) -> Result<(), Delivery> {
        let events = delivery.events.len();
        self.sender.try_send(delivery).map_err(|e| match e {
            TrySendError::Full(d) | TrySendError::Disconnected(d) => d,
        })?;
        self.note(events);
        Ok(())
    }

    fn note(&self, events: usize) {
        if let Some(tally) = &self.tally {
            tally.note(events);
        }
    }
}

/// The wish to stop, shared by all threads.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Asks all threads to stop.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
    /// Whether to stop.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
    /// Sleeps for `duration` in steps of at most 100 ms; true when asked to stop meanwhile.
    #[must_use]
    pub fn sleep(&self, duration: Duration) -> bool {
        let mut left = duration;
        while !self.is_set() && !left.is_zero() {
            let step = left.min(Duration::from_millis(100));
            std::thread::sleep(step);
            left -= step;
        }
        self.is_set()
    }
}

/// What every collector is given.
#[derive(Clone)]
pub struct Context {
    /// Where events go.
    pub outbox: Outbox,
    /// When to end.
    pub stop: Stop,
    /// Wall and monotonic time.
    pub clock: Arc<dyn Clock>,
    /// Where losses are counted.
    pub counters: Counters,
    /// One line for `status`: what the collector sees or lacks right now.
    pub state: State,
}

/// A collector's one-line state, shown by `status`: `ok`, or what is missing and how to
/// mend it.
#[derive(Clone, Debug, Default)]
pub struct State {
    line: Arc<std::sync::Mutex<String>>,
    caught_up: Arc<AtomicBool>,
}

impl State {
    /// Replaces the line.
    pub fn set(&self, line: impl Into<String>) {
        *self.line.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = line.into();
    }
    /// The line now.
    #[must_use]
    pub fn get(&self) -> String {
        self.line.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
    /// All that was there has been delivered: who reads a source once may stop.
    pub fn caught_up(&self) {
        self.caught_up.store(true, Ordering::Relaxed);
    }
    /// Whether the end was reached once.
    #[must_use]
    pub fn is_caught_up(&self) -> bool {
        self.caught_up.load(Ordering::Relaxed)
    }
}

/// One source of events.
pub trait Collector: Send {
    /// Its name in `status`, counters and configuration: `conntrack`, `firewall`,
    /// `passive-dns`, `dnsmasq-log`, `pihole`, `pihole-ftl`,
    /// `pihole-ssh`, `adguard`, `syslog`, `leases`, `neighbours`, `replay`.
    fn name(&self) -> &str;

    /// The key under which this collector's [`Checkpoint`]s are kept, if it makes any.
    fn checkpoint_key(&self) -> Option<String> {
        None
    }

    /// Takes over the last committed checkpoint; called once, before the first `run`. A
    /// value it cannot read means: start as if there were none, and say so.
    fn restore(&mut self, _value: &[u8]) {}

    /// Reads until asked to stop. The supervisor restarts it after an error.
    ///
    /// # Errors
    /// Whatever made the source unreadable, with what to do about it in the text.
    fn run(&mut self, context: &Context) -> anyhow::Result<()>;
}
