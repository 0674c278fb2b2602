//! From the ring to the hub: one thread, one request at a time.
//!
//! In: the ring, and a bell that the pipeline rings after each commit. Out: batches by
//! HTTPS; what the hub acknowledges is deleted, nothing else. With every batch goes the
//! sensor's health; an idle sensor sends health alone every [`Config::health_seconds`].
//!
//! Invariants: C2 (deleted only after an acknowledgement of this very epoch, and never
//! beyond what was sent); a hub that is away costs ring space and one attempt a minute.
//!
//! Budget: a batch of at most [`Config::batch_bytes`] before compression, held about three
//! times while it is encoded: 2 MiB.

pub mod backoff;
pub mod client;
mod shared;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use agentmon_core::time::{Clock, Mono};
use agentmon_core::wire::{self, Batch, Health};

use crate::collect::Stop;
use crate::counters::{Counter, Counters};
use crate::join::{self, Join};
use crate::ratelimit::LogLimit;
use crate::ring::{Peeked, Ring};
use crate::wake::Wake;
use backoff::Backoff;
use client::{HubClient, Refusal, Timeouts};

pub use shared::{Config, ForwardStatus, Shared};

/// How often to look for an identity while there is none, or for a new one.
const IDENTITY_EVERY: Duration = Duration::from_secs(2);
/// Wait after the hub refused the token or the version: only a person can help.
const REFUSED_WAIT: Duration = Duration::from_secs(60);
/// How long an orderly stop may go on sending.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// What the forwarder works with.
pub struct Parts {
    /// Where events wait.
    pub ring: Arc<Ring>,
    /// Rung after each commit, and to stop.
    pub wake: Arc<Wake>,
    /// When to end.
    pub stop: Stop,
    /// Both clocks.
    pub clock: Arc<dyn Clock>,
    /// The program's counters.
    pub counters: Counters,
    /// The collectors' names and states, for the health report.
    pub collectors: Arc<dyn Fn() -> Vec<(String, String)> + Send + Sync>,
}

/// The thread's own state.
pub struct Forwarder {
    parts: Parts,
    shared: Arc<Shared>,
    config: Config,
    generation: u64,
    hub: Option<Hub>,
    /// The collectors' names and states, as last reported.
    collectors: Vec<(String, String)>,
    identity_seen: Option<(SystemTime, u64)>,
    backoff: Backoff,
    /// Epoch, first and last number of a batch of which nobody knows whether the hub has it.
    unanswered: Option<(u64, u64, u64)>,
    /// Halved when the hub finds batches too large; grows again with success.
    events_max: usize,
    not_before: Mono,
    next_health: Mono,
    limit: LogLimit,
    count: Counts,
}

struct Hub {
    client: HubClient,
    url: String,
}

struct Counts {
    batches: Counter,
    events: Counter,
    bytes: Counter,
    failures: Counter,
}

impl Forwarder {
    /// Not yet sending.
    #[must_use]
    pub fn new(parts: Parts, shared: Arc<Shared>) -> Self {
        let counter = |name| parts.counters.counter(name);
        let count = Counts {
            batches: counter("forward.batches"),
            events: counter("forward.events"),
            bytes: counter("forward.bytes"),
            failures: counter("forward.failures"),
        };
        Self {
            backoff: Backoff::new(parts.ring.status().epoch),
            parts,
            shared,
            config: Config::default(),
            generation: 0,
            hub: None,
            collectors: Vec::new(),
            identity_seen: None,
            unanswered: None,
            events_max: 1,
            not_before: Mono::default(),
            next_health: Mono::default(),
            limit: LogLimit::default(),
            count,
        }
    }

    /// Sends until asked to stop; then, when the hub is there, what is still waiting.
    pub fn run(&mut self) {
        while !self.parts.stop.is_set() {
            let pause = self.step();
            if !pause.is_zero() {
                self.parts.wake.wait(pause);
            }
        }
        let end = self.now().plus(LAST_WORDS);
        while self.now() < end && self.is_connected() && self.has_waiting() {
            self.step();
        }
        // So that the hub does not show for ever what was true some seconds before.
        if self.now() < end && self.is_connected() {
            self.send(None);
        }
    }

    /// One look at the world: sends at most one batch, and says how long there is nothing
    /// to do unless the bell rings.
    fn step(&mut self) -> Duration {
        self.take_config();
        if !self.config.enabled {
            self.state("off (forward.enabled = false)", false);
            return Duration::from_secs(3600);
        }
        self.take_identity();
        let now = self.now();
        if now < self.not_before {
            return self.not_before.since(now).min(IDENTITY_EVERY);
        }
        if self.hub.is_none() {
            return IDENTITY_EVERY;
        }
        if let Some(unanswered) = self.unanswered {
            self.ask_about(unanswered);
            return Duration::ZERO;
        }
        let waiting = match self.parts.ring.peek(self.events_max, self.config.batch_bytes) {
            Ok(waiting) => waiting,
            Err(error) => {
                self.complain("ring", &format!("cannot read the ring: {error}"));
                return IDENTITY_EVERY;
            }
        };
        if waiting.is_none() && now < self.next_health {
            return self.next_health.since(now).min(Duration::from_secs(3600));
        }
        self.send(waiting);
        Duration::ZERO
    }

    fn send(&mut self, waiting: Option<Peeked>) {
        let batch = self.batch(waiting);
        let Some(hub) = &self.hub else { return };
        let sent = batch.events.len();
        let range = batch.last_seq().map(|last| (batch.epoch, batch.first_seq, last));
        if let Some((epoch, first, last)) = range {
            self.parts.ring.sending(epoch, first, last);
        }
        let result = match wire::encode_batch(&batch) {
            Ok(body) => hub.client.ingest(&body).map(|ack| (ack, body.len())),
            Err(wire::WireError::TooLarge { .. }) => Err(Refusal::TooLarge),
            Err(error) => Err(Refusal::Other(error.to_string())),
        };
        match result {
            Ok((ack, bytes)) => {
                self.count.bytes.add(bytes as u64);
                self.acknowledged(&batch, ack);
            }
            Err(refusal) => {
                if refusal.leaves_doubt() {
                    self.unanswered = range;
                } else {
                    self.parts.ring.not_taken();
                }
                self.refused(&refusal, sent, &batch);
            }
        }
    }

    /// A batch went out and no answer came: before the next one, the hub is asked how far
    /// it got. Otherwise an event that was evicted meanwhile could not be accounted for.
    fn ask_about(&mut self, (epoch, first, last): (u64, u64, u64)) {
        let peeked = Peeked { epoch, first_seq: last + 1, events: Vec::new() };
        let batch = self.batch(Some(peeked));
        let Some(hub) = &self.hub else { return };
        let result = match wire::encode_batch(&batch) {
            Ok(body) => hub.client.ingest(&body),
            Err(error) => Err(Refusal::Other(error.to_string())),
        };
        match result {
            Ok(ack) => {
                self.unanswered = None;
                if ack.epoch == epoch && ack.cursor.is_some_and(|cursor| cursor >= last) {
                    self.taken(epoch, first, last);
                } else {
                    self.parts.ring.not_taken();
                }
                self.acknowledged(&batch, ack);
            }
            Err(refusal) => self.refused(&refusal, 0, &batch),
        }
    }

    /// The hub has stored that much.
    fn taken(&self, epoch: u64, first: u64, last: u64) {
        if let Err(error) = self.parts.ring.ack(epoch, last) {
            // Not lost and not sent again: the ring deletes them when it can.
            self.complain("ack", &format!("acknowledged events stay in the ring: {error}"));
        }
        self.count.events.add(last + 1 - first);
    }

    fn batch(&mut self, waiting: Option<Peeked>) -> Batch {
        let ring = self.parts.ring.status();
        let peeked =
            waiting.unwrap_or(Peeked { epoch: ring.epoch, first_seq: 0, events: Vec::new() });
        // What still waits once the hub has taken this batch.
        let pending = ring.pending.saturating_sub(peeked.events.len() as u64);
        // Collectors are stopped first: what they said last stands.
        if !self.parts.stop.is_set() {
            self.collectors = (self.parts.collectors)();
        }
        let mut counters: Vec<_> = self.parts.counters.snapshot().into_iter().collect();
        counters.truncate(wire::COUNTERS_MAX);
        Batch {
            epoch: peeked.epoch,
            first_seq: peeked.first_seq,
            events: peeked.events,
            health: Health {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                counters,
                pending,
                ring_bytes: ring.bytes,
                collectors: self.collectors.clone(),
            },
            sent: self.parts.clock.wall(),
        }
    }

    fn acknowledged(&mut self, batch: &Batch, ack: client::Ack) {
        let now = self.now();
        if let Some(last) = batch.last_seq() {
            if ack.epoch != batch.epoch || ack.acked > last || ack.acked < batch.first_seq {
                let why = format!(
                    "sent {}..={last} of epoch {:x}, it acknowledges {} of {:x}",
                    batch.first_seq, batch.epoch, ack.acked, ack.epoch
                );
                self.refused(&Refusal::Other(why), batch.events.len(), batch);
                return;
            }
            self.taken(ack.epoch, batch.first_seq, ack.acked);
        }
        self.count.batches.inc();
        if self.backoff.failures() > 0 || !self.is_connected() {
            tracing::info!("connected to {}", self.url());
        }
        self.backoff.reset();
        // By an eighth: after a 413 most attempts should fit, not every other.
        let grown = self.events_max.saturating_add(self.events_max / 8 + 1);
        self.events_max = self.config.batch_events.min(grown);
        self.next_health = now.plus(Duration::from_secs(self.config.health_seconds));
        self.shared.note(|status, acked| {
            "connected".clone_into(&mut status.state);
            status.connected = true;
            *acked = Some(now);
        });
    }

    fn refused(&mut self, refusal: &Refusal, sent: usize, batch: &Batch) {
        self.count.failures.inc();
        let wait = match refusal {
            Refusal::TooLarge if sent > 1 => {
                self.events_max = (sent / 2).max(1);
                return;
            }
            // At the pace of failures: something before the hub that finds everything too
            // large must not empty the ring.
            Refusal::TooLarge if sent == 1 => {
                self.drop_oversized(batch);
                self.backoff.after_failure()
            }
            Refusal::Token(_) | Refusal::Version(_) => self.backoff.about(REFUSED_WAIT),
            Refusal::Busy { after: Some(after), .. } => {
                self.backoff.after_failure().max(self.backoff.about(*after))
            }
            _ => self.backoff.after_failure(),
        };
        self.not_before = self.now().plus(wait);
        let clock = self.parts.clock.wall();
        let unset = if clock.is_plausible() {
            String::new()
        } else {
            format!("; this machine's clock says {clock}, certificates need the real time")
        };
        let line = format!("{refusal}{unset}");
        self.state(&format!("{line}; next attempt within {} s", wait.as_secs() + 1), false);
        self.complain("hub", &format!("{}: {line}; events wait in the ring", self.url()));
    }

    /// One event alone that the hub finds too large would block all others for ever.
    fn drop_oversized(&mut self, batch: &Batch) {
        self.complain("too-large", "the hub finds a single event too large; it is dropped");
        if let Err(error) = self.parts.ring.refuse(batch.epoch, batch.first_seq) {
            self.complain("ack", &format!("a dropped event stays in the ring: {error}"));
        }
    }

    /// Takes over a changed configuration; everything is tried again at once.
    fn take_config(&mut self) {
        let Some((config, generation)) = self.shared.newer_than(self.generation) else { return };
        (self.config, self.generation) = (config, generation);
        self.hub = None;
        self.identity_seen = None;
        self.events_max = self.config.batch_events;
        self.not_before = self.now();
        self.next_health = self.now();
    }

    /// Reads the identity file when it is new or changed: joining needs no restart.
    fn take_identity(&mut self) {
        let seen = stamp(&self.config.identity);
        if seen == self.identity_seen && (self.hub.is_some() || seen.is_some()) {
            return;
        }
        self.identity_seen = seen;
        let path = &self.config.identity;
        let loaded = join::load(path).map_err(|error| error.to_string());
        let hub = loaded.and_then(|found| found.map(|join| Hub::new(&join)).transpose());
        match hub {
            Ok(Some((hub, sensor))) => {
                self.shared.note(|status, _| {
                    status.url = Some(hub.url.clone());
                    status.sensor = Some(sensor);
                    "connecting".clone_into(&mut status.state);
                    status.connected = false;
                });
                self.hub = Some(hub);
                self.backoff.reset();
                self.not_before = self.now();
                self.next_health = self.now();
            }
            Ok(None) => {
                self.hub = None;
                let line =
                    format!("not joined ({} is missing): agentmon-router join", path.display());
                self.state(&line, false);
            }
            Err(error) => {
                self.hub = None;
                self.complain("identity", &error);
                self.state(&error, false);
            }
        }
    }

    fn state(&self, line: &str, connected: bool) {
        self.shared.note(|status, _| {
            line.clone_into(&mut status.state);
            status.connected = connected;
        });
    }

    fn complain(&self, cause: &'static str, line: &str) {
        if let Some(more) = self.limit.allow(cause, self.now()) {
            tracing::warn!("{line}{more}");
        }
    }

    fn is_connected(&self) -> bool {
        self.shared.status(self.now()).connected
    }
    fn has_waiting(&self) -> bool {
        matches!(self.parts.ring.peek(1, 1), Ok(Some(_)))
    }
    fn url(&self) -> &str {
        self.hub.as_ref().map_or("hub", |hub| &hub.url)
    }
    fn now(&self) -> Mono {
        self.parts.clock.mono()
    }
}

impl Hub {
    fn new(join: &Join) -> Result<(Self, String), String> {
        let client = HubClient::new(join, Timeouts::default())?;
        Ok((Self { client, url: join.url.clone() }, join.name.clone()))
    }
}

/// Tells two versions of a file apart; `None`: not there.
fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, crate::disk::number(&meta)))
}
