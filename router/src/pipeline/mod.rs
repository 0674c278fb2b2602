//! From the collectors to the ring: one thread.
//!
//! In: deliveries from a bounded queue. Out: transactions in the ring, a ring of the
//! forwarder's bell, and the newest events for `tail`. On the way each event gets the
//! client's MAC where it lacks one, look-ups seen twice become one ([`twins`]), each passes
//! tier-0 and the model behind the status page, and is encoded; what tier-0 finds follows its
//! cause. Records of flows that just begun are for tier-0 alone.
//!
//! Invariants: a delivery's events and its checkpoint are committed together or not at all;
//! a commit at the latest [`FLUSH_EVERY`] after its first event, [`FLUSH_URGENT`] when
//! something was found, or after the start; while the ring cannot be written at most [`PENDING_BYTES_MAX`] wait
//! here, the rest is given up, counted.
//!
//! Budget: 10 us per event, tier-0 included; asleep when nothing comes (one tick a second).

mod event_time;
mod hits;
mod hosts;
mod known;
mod known_ports;
mod macs;
pub mod naming;
pub mod recent;
#[cfg(test)]
mod tests;
mod twins;

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use agentmon_core::Name;
use agentmon_core::event::{Body, Dns, Event, FlowPhase};
use agentmon_core::finding::Finding;
use agentmon_core::tier0::blocklist::Blocklist;
use agentmon_core::tier0::{Engine, Found, Tier0Config};
use agentmon_core::time::{Clock, Mono, Timestamp};
use agentmon_core::wire::encode_event;

use crate::collect::{Checkpoint, DELIVERIES_MAX, Delivery, Stop, is_log, passive_dns};
use crate::counters::{Counter, Counters};
use crate::model::Model;
use crate::ratelimit::LogLimit;
use crate::ring::{Ring, RingError, Unstored};
use crate::sys::release_memory;
use crate::wake::Wake;
use event_time::EventTime;
use known::Known;
use known_ports::KnownPortsFile;
use macs::Macs;
use naming::Naming;
use recent::Recent;
use twins::Twins;

/// A commit when this many events wait: SQLite then writes 200 bytes per event, not 4,000.
const FLUSH_EVENTS: usize = 1_000;
/// Or this many bytes, so that the log stays within its room.
const FLUSH_BYTES: usize = 256 * 1024;
/// Or this long after the first.
const FLUSH_EVERY: Duration = Duration::from_secs(1);
/// Or this long, when something was found: alerts are waited for.
const FLUSH_URGENT: Duration = Duration::from_millis(100);
/// Detectors that wait for something are asked this often.
const TICK: Duration = Duration::from_secs(1);
/// How often to look while a detector waits for its time to come: a verdict that is due is
/// not kept for most of a second more.
const LOOK: Duration = Duration::from_millis(250);
/// More events than this between two ticks are a burst: memory is given back after it.
const BURST_EVENTS: u64 = 20_000;
/// A smaller difference between the clocks is NTP's fine tuning.
const CLOCK_SET_LEAST: Duration = Duration::from_secs(2);
/// Most bytes that wait here while the ring cannot be written.
const PENDING_BYTES_MAX: usize = 1024 * 1024;

/// What the pipeline works with.
pub struct Parts {
    /// Where collectors deliver.
    pub inbox: Receiver<Delivery>,
    /// Where events go.
    pub ring: Arc<Ring>,
    /// Rung after each commit.
    pub wake: Arc<Wake>,
    /// When to end: what was delivered before is still committed.
    pub stop: Stop,
    /// Monotonic time for ticks and flushes.
    pub clock: Arc<dyn Clock>,
    /// The program's counters.
    pub counters: Counters,
    /// What the router knows about its network right now.
    pub model: Arc<Model>,
}

/// The pipeline as other threads see it.
#[derive(Debug, Default)]
pub struct Shared {
    requests: Mutex<VecDeque<Request>>,
    status: Mutex<Tier0Status>,
    /// The newest events.
    pub recent: Recent,
}

#[derive(Debug)]
enum Request {
    /// Commit everything delivered so far, then answer.
    Flush(SyncSender<()>),
    /// New settings and lists for tier-0.
    Reconfigure(Box<(Tier0Config, Blocklist)>),
    /// What the detectors of names say about one.
    Verdict(Name, SyncSender<Vec<Finding>>),
    /// Who else tells of look-ups.
    LookUps(LookUps),
    /// Names of devices, and where the known ones are kept.
    Devices(naming::Config),
}

/// Who tells of look-ups besides their packets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LookUps {
    /// A resolver's log is read here: records of packets wait for its lines.
    pub log_is_read: bool,
    /// Machines that ask for others, whose log another sensor reads: what they ask names
    /// connections, but is not told of them.
    pub resolvers: Vec<IpAddr>,
    /// This machine's addresses: what it asks resolvers itself passes nobody by.
    pub own: Vec<IpAddr>,
}

/// What `status` says about tier-0: sizes of its memories and what it found, by name.
pub type Tier0Status = BTreeMap<&'static str, u64>;

impl Shared {
    /// Commits everything delivered before this call; false when that takes longer than
    /// `patience`.
    pub fn flush(&self, patience: Duration) -> bool {
        let (done, wait) = sync_channel(1);
        self.ask(Request::Flush(done));
        wait.recv_timeout(patience).is_ok()
    }

    /// New settings and lists from the next event on.
    pub fn reconfigure(&self, config: Tier0Config, lists: Blocklist) {
        self.ask(Request::Reconfigure(Box::new((config, lists))));
    }

    /// Asks what the detectors say about a name: between two events, at the latest with the
    /// next tick.
    pub fn verdict(&self, name: Name) -> Receiver<Vec<Finding>> {
        let (answer, wait) = sync_channel(1);
        self.ask(Request::Verdict(name, answer));
        wait
    }

    /// What to make of look-ups from the next one on.
    pub fn look_ups(&self, known: LookUps) {
        self.ask(Request::LookUps(known));
    }

    /// Names of devices, and where those seen so far are kept.
    pub fn devices(&self, config: naming::Config) {
        self.ask(Request::Devices(config));
    }

    fn ask(&self, request: Request) {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).push_back(request);
    }

    /// Tier-0's state, at most a second old.
    #[must_use]
    pub fn status(&self) -> Tier0Status {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The thread's own state.
pub struct Pipeline {
    parts: Parts,
    shared: Arc<Shared>,
    engine: Engine,
    macs: Macs,
    naming: Naming,
    known: Known,
    known_ports: KnownPortsFile,
    look_ups: LookUps,
    twins: Twins,
    time: EventTime,
    found: Vec<Found>,
    pending: Pending,
    /// The first commit was made: until then a person waits for a sign of life.
    seen_alive: bool,
    next_tick: Mono,
    next_look: Mono,
    /// Events at the last tick.
    counted: u64,
    burst: bool,
    /// Both clocks at the last tick, or at the start: the clock may be set before the first.
    clocks: (Timestamp, Mono),
    limit: LogLimit,
    count: Counts,
}

/// Encoded, not yet committed.
#[derive(Default)]
struct Pending {
    events: Vec<Vec<u8>>,
    bytes: usize,
    checkpoints: Vec<Checkpoint>,
    /// When to commit, at the latest.
    due: Option<Mono>,
    /// The last attempt failed: no other before `due`.
    blocked: Option<Unstored>,
}

struct Counts {
    events: Counter,
    starts: Counter,
    findings: Counter,
    commits: Counter,
    twins: Counter,
    relayed: Counter,
}

impl Pipeline {
    /// Not yet running.
    #[must_use]
    pub fn new(parts: Parts, shared: Arc<Shared>, config: &Tier0Config, lists: Blocklist) -> Self {
        let counter = |name| parts.counters.counter(name);
        let count = Counts {
            events: counter("pipeline.events"),
            starts: counter("pipeline.flow_starts"),
            findings: counter("tier0.findings"),
            commits: counter("pipeline.commits"),
            twins: counter("pipeline.dns_seen_twice"),
            relayed: counter("pipeline.dns_passed_on"),
        };
        let clocks = (parts.clock.wall(), parts.clock.mono());
        Self {
            next_tick: clocks.1.plus(TICK),
            next_look: clocks.1.plus(LOOK),
            parts,
            shared,
            engine: Engine::new(config, lists),
            macs: Macs::default(),
            naming: Naming::default(),
            known: Known::default(),
            known_ports: KnownPortsFile::default(),
            look_ups: LookUps::default(),
            twins: Twins::default(),
            time: EventTime::default(),
            found: Vec::new(),
            pending: Pending::default(),
            seen_alive: false,
            counted: 0,
            burst: false,
            clocks,
            limit: LogLimit::default(),
            count,
        }
    }

    /// Works until asked to stop; then commits what was delivered before. May be called
    /// again after it panicked.
    pub fn run(&mut self) {
        self.answer_requests();
        loop {
            match self.parts.inbox.recv_timeout(self.patience()) {
                Ok(delivery) => self.take(delivery),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if self.parts.stop.is_set() {
                break;
            }
            self.answer_requests();
            self.tick_if_due();
            self.flush_if_due();
        }
        self.drain();
        for event in self.twins.all() {
            self.pass(event, self.parts.clock.mono());
        }
        self.flush();
        self.answer_requests();
        self.known.write(&self.engine, self.parts.clock.mono());
        self.known_ports.write(&self.engine, self.parts.clock.mono());
    }

    /// How long nothing is due.
    fn patience(&self) -> Duration {
        let now = self.parts.clock.mono();
        let look = if self.engine.is_waiting() { self.next_look } else { self.next_tick };
        let due = self.next_tick.min(look);
        self.pending.due.map_or(due, |flush| flush.min(due)).since(now)
    }

    fn drain(&mut self) {
        for _ in 0..2 * DELIVERIES_MAX {
            match self.parts.inbox.try_recv() {
                Ok(delivery) => self.take(delivery),
                Err(_) => return,
            }
        }
    }

    fn take(&mut self, delivery: Delivery) {
        let now = self.parts.clock.mono();
        self.count.events.add(delivery.events.len() as u64);
        for event in delivery.events {
            self.observe(event, now);
        }
        if let Some(checkpoint) = delivery.checkpoint {
            self.pending.checkpoints.retain(|other| other.key != checkpoint.key);
            self.pending.checkpoints.push(checkpoint);
            self.pending.due_within(FLUSH_EVERY, now);
        }
    }

    fn observe(&mut self, mut event: Event, now: Mono) {
        self.time.saw(event.time, now);
        self.macs.attach(&mut event.body);
        let named = self.named(&event);
        self.observe_alone(event, now);
        if let Some(event) = named {
            self.pass(event, now);
        }
    }

    /// A device's name that this event gives away, or that the configuration has for it.
    fn named(&mut self, event: &Event) -> Option<Event> {
        let device = match &event.body {
            Body::Device(device) => self.naming.listed(device),
            Body::Dns(dns) => self.naming.heard(dns, |ip| self.macs.get(ip)),
            _ => None,
        };
        Some(Event { time: event.time, body: Body::Device(device?) })
    }

    fn observe_alone(&mut self, mut event: Event, now: Mono) {
        match event.body {
            Body::Dns(dns) if dns.source == passive_dns::SOURCE => {
                self.passed_by(event.time, dns, now);
            }
            Body::Dns(ref mut dns) if is_log(&dns.source) => {
                self.twins.log(&mut event.time, dns, now);
                self.pass(event, now);
            }
            _ => self.pass(event, now),
        }
    }

    /// A look-up whose packets passed by.
    fn passed_by(&mut self, time: Timestamp, dns: Dns, now: Mono) {
        // A connection may follow at once.
        self.engine.learn(time, &dns);
        if self.look_ups.resolvers.contains(&dns.client) {
            self.count.relayed.inc();
        } else if !self.look_ups.log_is_read {
            self.pass(Event { time, body: Body::Dns(dns) }, now);
        } else if let Some(event) = self.twins.passive(time, dns, now) {
            self.pass(event, now);
        }
    }

    /// One event through tier-0 into the batch, and what was found behind it.
    fn pass(&mut self, mut event: Event, now: Mono) {
        self.engine.on_event(&mut event, &mut self.found);
        self.parts.model.observe(&event, now);
        if matches!(&event.body, Body::Flow(flow) if flow.phase == FlowPhase::Start) {
            self.count.starts.inc();
        } else {
            self.pending.push(&event);
            let wait = if self.seen_alive { FLUSH_EVERY } else { FLUSH_URGENT };
            self.pending.due_within(wait, now);
        }
        self.take_findings(now);
    }

    fn take_findings(&mut self, now: Mono) {
        for found in self.found.drain(..) {
            self.count.findings.inc();
            self.parts.model.found(&found.finding, found.time, now);
            self.pending.push(&Event { time: found.time, body: Body::Finding(found.finding) });
            self.pending.due_within(FLUSH_URGENT, now);
        }
    }

    fn tick_if_due(&mut self) {
        let now = self.parts.clock.mono();
        if now < self.next_tick {
            if self.engine.is_waiting() && now >= self.next_look {
                self.look(now);
            }
            return;
        }
        self.next_tick = now.plus(TICK);
        self.watch_clock(now);
        self.watch_memory();
        self.release_twins(now);
        self.parts.model.tick(now, self.count.events.get());
        self.look(now);
        self.known.tick(&self.engine, now);
        self.known_ports.tick(&self.engine, now);
        self.naming.tick(now);
        let mut status: Tier0Status = self.engine.status().into_iter().collect();
        status.insert("pipeline.addresses", self.macs.len() as u64);
        status.insert("pipeline.dns_held", self.twins.len() as u64);
        *self.shared.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }

    /// Lets detectors decide what is due.
    fn look(&mut self, now: Mono) {
        self.next_look = now.plus(LOOK);
        if let Some(time) = self.time.now(now) {
            self.engine.on_tick(time, &mut self.found);
            self.take_findings(now);
        }
    }

    /// Packets' records that no log has told.
    fn release_twins(&mut self, now: Mono) {
        let due = if self.look_ups.log_is_read { self.twins.due(now) } else { self.twins.all() };
        for event in due {
            self.pass(event, now);
        }
        self.count.twins.add(std::mem::take(&mut self.twins.same));
        self.count.relayed.add(std::mem::take(&mut self.twins.relayed));
    }

    /// After a burst the allocator holds what the queue took.
    fn watch_memory(&mut self) {
        let counted = self.count.events.get();
        let now_bursting = counted - self.counted > BURST_EVENTS;
        self.counted = counted;
        if self.burst && !now_bursting {
            release_memory();
        }
        self.burst = now_bursting;
    }

    /// Tells tier-0 when the wall clock was set: it and the monotonic clock disagree about
    /// how long the last tick was.
    fn watch_clock(&mut self, now: Mono) {
        let wall = self.parts.clock.wall();
        let (wall_before, before) = std::mem::replace(&mut self.clocks, (wall, now));
        let expected = wall_before.plus(now.since(before));
        if expected.distance(wall) > CLOCK_SET_LEAST {
            tracing::info!("the clock was set from {expected} to {wall}");
            self.parts.counters.counter("pipeline.clock_set").inc();
            self.engine.clock_set(expected, wall);
            self.parts.model.clock_set(expected, wall);
            self.time.clock_set(expected, wall);
        }
    }

    fn answer_requests(&mut self) {
        loop {
            let request = {
                let mut requests =
                    self.shared.requests.lock().unwrap_or_else(PoisonError::into_inner);
                requests.pop_front()
            };
            match request {
                None => return,
                Some(Request::Flush(done)) => {
                    self.drain();
                    self.flush();
                    if done.try_send(()).is_err() {
                        tracing::debug!("who asked for a commit does not wait any more");
                    }
                }
                Some(Request::Verdict(name, answer)) => {
                    // Who asked may have lost patience.
                    drop(answer.try_send(self.engine.verdict(&name)));
                }
                Some(Request::Reconfigure(new)) => self.engine.reconfigure(&new.0, new.1),
                Some(Request::LookUps(known)) => {
                    let may: Vec<IpAddr> =
                        known.resolvers.iter().chain(&known.own).copied().collect();
                    self.engine.set_resolvers(&may);
                    self.look_ups = known;
                }
                Some(Request::Devices(config)) => {
                    self.naming.reconfigure(&config);
                    self.known.open(&config.known_path, &mut self.engine);
                    self.known_ports.open(&config.known_path, &mut self.engine);
                }
            }
        }
    }

    fn flush_if_due(&mut self) {
        let pending = &self.pending;
        let full = pending.events.len() >= FLUSH_EVENTS || pending.bytes >= FLUSH_BYTES;
        let due = pending.due.is_some_and(|due| due <= self.parts.clock.mono());
        match pending.blocked {
            None if due || full => self.flush(),
            Some(_) if due => self.flush(),
            Some(why) => self.give_up_excess(why),
            None => {}
        }
    }

    /// Commits what waits. When the ring cannot be written it goes on waiting, as much as
    /// there is room for.
    fn flush(&mut self) {
        if self.pending.events.is_empty() && self.pending.checkpoints.is_empty() {
            return;
        }
        match self.parts.ring.append(&self.pending.events, &self.pending.checkpoints) {
            Ok(()) => {
                self.count.commits.inc();
                self.seen_alive |= !self.pending.events.is_empty();
                self.shared.recent.push(&self.pending.events);
                self.pending.clear();
                self.parts.wake.ring();
            }
            Err(error) => self.cannot_write(&error),
        }
    }

    fn cannot_write(&mut self, error: &RingError) {
        let now = self.parts.clock.mono();
        let (cause, why) = match error {
            RingError::DiskFull { .. } => ("disk-full", Unstored::DiskFull),
            _ => ("ring", Unstored::Io),
        };
        self.pending.blocked = Some(why);
        self.pending.due = Some(now.plus(FLUSH_EVERY));
        self.give_up_excess(why);
        if let Some(more) = self.limit.allow(cause, now) {
            let waiting = self.pending.events.len();
            tracing::error!("{error}; {waiting} events wait in memory, detection goes on{more}");
        }
    }
}

impl Pipeline {
    fn give_up_excess(&mut self, why: Unstored) {
        let n = self.pending.trim();
        if n > 0 {
            self.parts.ring.give_up(n, why);
        }
    }
}

/// What could not be committed when the program ends is on record, if not in the ring.
impl Drop for Pipeline {
    fn drop(&mut self) {
        let left = self.pending.events.len() as u64;
        if left > 0 {
            self.parts.ring.give_up(left, Unstored::Io);
            tracing::error!("{left} events could not be stored and are lost");
        }
    }
}

impl Pending {
    fn push(&mut self, event: &Event) {
        let encoded = encode_event(event);
        self.bytes += encoded.len();
        self.events.push(encoded);
    }

    fn due_within(&mut self, wait: Duration, now: Mono) {
        let due = now.plus(wait);
        self.due = Some(self.due.map_or(due, |earlier| earlier.min(due)));
    }

    fn clear(&mut self) {
        self.events.clear();
        self.checkpoints.clear();
        self.bytes = 0;
        self.due = None;
        self.blocked = None;
    }

    /// Drops the oldest until the rest fits; returns how many.
    fn trim(&mut self) -> u64 {
        let mut excess = self.bytes.saturating_sub(PENDING_BYTES_MAX);
        let gone = self.events.iter().take_while(|event| {
            let more = excess > 0;
            excess = excess.saturating_sub(event.len());
            more
        });
        let n = gone.count();
        self.events.drain(..n);
        self.bytes = self.events.iter().map(Vec::len).sum();
        n as u64
    }
}
