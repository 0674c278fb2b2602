//! What the kernel does not remember for us: when a flow began, when it last moved, and
//! which flows are open.
//!
//! In: decoded messages with the time they were read, and dumps framed by
//! [`Tracker::begin_dump`] and [`Tracker::finish_dump`]. Out: flow records. Pure: time is
//! an argument. Runs on the conntrack thread. Budget: about 200 bytes a flow, at most
//! `flows_max` flows; one hash look-up per event.
//!
//! Invariants:
//! - a destroyed flow gives exactly one `End` record, tracked or not;
//! - a flow that vanished without DESTROY (lost event, hardware offload) is ended after
//!   two complete dumps without it;
//! - every record of a flow carries the same id;
//! - durations are measured on the monotonic clock, never negative; a wall clock that
//!   jumps neither makes one long nor ends anything;
//! - a full table costs the start time of further flows, never the flows themselves.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::net::IpAddr;
use std::time::Duration;

use agentmon_core::event::{Flow, FlowPhase};
use agentmon_core::time::Timestamp;
use xxhash_rust::xxh3::xxh3_64;

use super::decode::Raw;
use super::entry::{Entry, Now, last_packet, millis, nanos, stamp};
use super::normalise::Facts;
use super::timeouts::Timeouts;

/// A wall clock that moves this much against the monotonic one has been set. NTP slews by
/// 0.5 ms/s at most, 7.5 ms between two dumps.
const JUMP_NS: u64 = 2_000_000_000;
/// Starts are rounded to this before they go into a flow's id, so that the NEW event's
/// stamp and the kernel's own start (some microseconds apart) give the same id.
const ID_ROUNDING_NS: i64 = 2_000_000_000;
/// Event stamps older than this are not believed: the queue is never that long.
const EVENT_AGE_MAX_NS: i64 = 60_000_000_000;
/// A flow younger than this gives no `Update`; most end within seconds.
const UPDATE_AGE_MIN: Duration = Duration::from_secs(10);

/// What a dump showed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DumpSummary {
    /// Entries in it.
    pub entries: u64,
    /// Flows whose NEW should have come and did not.
    pub missed_new: u64,
    /// Flows ended because two dumps did not show them.
    pub vanished: u64,
}

/// What the session turns into counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Flows not remembered because the table was full.
    pub full: u64,
    /// DESTROYs of flows that were not remembered.
    pub untracked_ends: u64,
    /// Times the wall clock was set.
    pub clock_jumps: u64,
}

type Keyed = BuildHasherDefault<KeyHasher>;

/// The open flows.
#[derive(Debug)]
pub struct Tracker {
    flows: HashMap<u64, Box<Entry>, Keyed>,
    flows_max: usize,
    /// Silence allowed by protocol and state.
    pub timeouts: Timeouts,
    /// Number of the latest dump; 0 before the first.
    dump: u32,
    /// While a dump runs: flows that ended meanwhile. A piece of the dump made before
    /// their end must not bring them back.
    ended: Option<HashSet<u64, Keyed>>,
    /// Flows first seen by the running dump.
    discovered: Vec<u64>,
    entries: u64,
    /// A flow was turned away since the last dump: one that a dump discovers may be old, and
    /// known to the pipeline.
    refused: bool,
    /// Wall minus monotonic time, to notice that the clock was set.
    offset: Option<i64>,
    /// Wall time of the machine's start: no flow is older.
    boot: Timestamp,
    stats: Stats,
}

impl Tracker {
    /// Empty; at most `flows_max` flows will be remembered.
    #[must_use]
    pub fn new(flows_max: usize) -> Self {
        Self {
            flows: HashMap::default(),
            flows_max,
            timeouts: Timeouts::default(),
            dump: 0,
            ended: None,
            discovered: Vec::new(),
            entries: 0,
            refused: false,
            offset: None,
            boot: Timestamp::from_nanos(i64::MIN),
            stats: Stats::default(),
        }
    }

    /// Open flows remembered.
    #[must_use]
    pub fn open(&self) -> usize {
        self.flows.len()
    }

    /// Losses since the last call.
    pub fn take_stats(&mut self) -> Stats {
        std::mem::take(&mut self.stats)
    }

    /// To be called before each batch: notices that the wall clock was set.
    pub fn observe(&mut self, now: Now) {
        let offset = now.wall.nanos().saturating_sub(now.mono_ns());
        let before = self.offset.replace(offset).unwrap_or(offset);
        if offset.abs_diff(before) < JUMP_NS {
            return;
        }
        self.stats.clock_jumps += 1;
        let shift = offset.saturating_sub(before);
        self.boot = shifted(self.boot, shift);
        // A router without a battery clock boots in 1970; what was stamped then becomes
        // true with the first setting. Plausible stamps stay what the clock said.
        for entry in self.flows.values_mut() {
            entry.clock_set = true;
            if let Some(start) = entry.start.filter(|s| !s.is_plausible()) {
                entry.start = Some(shifted(start, shift));
            }
        }
    }

    /// A NEW event; the record is its `Start`, unless that has left already.
    pub fn on_new(&mut self, raw: &Raw, now: Now) -> Option<Flow> {
        let start = event_time(raw, now);
        let key = key(raw);
        if let Some(entry) = self.flows.get_mut(&key) {
            // A dump was faster than the event.
            if entry.announced {
                return None;
            }
            entry.announced = true;
            entry.start = entry.start.or(Some(start));
            return Some(report(entry, key, FlowPhase::Start));
        }
        let mut entry = Entry::new(raw, Some(start), now);
        entry.announced = true;
        entry.seen_in = self.dump;
        let flow = report(&mut entry, key, FlowPhase::Start);
        self.insert(key, entry);
        Some(flow)
    }

    /// A DESTROY event; the record is the flow's `End`.
    pub fn on_destroy(&mut self, raw: &Raw, now: Now) -> Flow {
        let key = key(raw);
        if let Some(ended) = self.ended.as_mut().filter(|e| e.len() < self.flows_max) {
            ended.insert(key);
        }
        let Some(mut entry) = self.flows.remove(&key) else {
            self.stats.untracked_ends += 1;
            return self.untracked_end(raw, key, now);
        };
        entry.destroyed(raw, &self.timeouts, now);
        report(&mut entry, key, FlowPhase::End)
    }

    /// Nothing but the message itself is known.
    fn untracked_end(&self, raw: &Raw, key: u64, now: Now) -> Flow {
        let facts = Facts::new(raw);
        let mut flow = facts.flow(FlowPhase::End);
        flow.start = self.kernel_start(raw, now);
        flow.id = flow_id(key, flow.start);
        if let (Some(start), Some(stop)) = (flow.start, stamp(raw.stop_ns)) {
            let timeout = self.timeouts.of(raw.orig.proto, raw.tcp_state, facts.is_assured());
            let stop = stop.min(now.wall).nanos();
            let last = last_packet(start.nanos(), stop, nanos(timeout));
            flow.duration_ms = Some(millis(last.saturating_sub(start.nanos())));
        }
        flow
    }

    /// The kernel's start, where it lies between the machine's start and now.
    fn kernel_start(&self, raw: &Raw, now: Now) -> Option<Timestamp> {
        stamp(raw.start_ns).filter(|s| (self.boot..=now.wall).contains(s))
    }

    /// A dump begins; `uptime` is how long the machine has been running.
    pub fn begin_dump(&mut self, uptime: Option<Duration>, now: Now) {
        self.dump = self.dump.saturating_add(1);
        self.ended = Some(HashSet::default());
        self.discovered.clear();
        self.entries = 0;
        if let Some(uptime) = uptime {
            // One second more: uptime and wall time are not read at the same moment.
            self.boot = now.wall.minus(uptime + Duration::from_secs(1));
        }
    }

    /// One entry of the dump; the record is an `Update`, if there is news.
    pub fn on_dump(&mut self, raw: &Raw, now: Now) -> Option<Flow> {
        self.entries += 1;
        let key = key(raw);
        if self.has_ended(key) {
            return None;
        }
        let Some(entry) = self.flows.get_mut(&key) else {
            self.discover(raw, key, now);
            return None;
        };
        entry.seen_in = self.dump;
        entry.seen(raw, &self.timeouts, now);
        let young = now.mono_ns().saturating_sub(entry.began) < nanos(UPDATE_AGE_MIN);
        let moved = Some(entry.facts.volume.map_or(0, |v| v.bytes()));
        if entry.sightings < 2 || young || entry.reported_bytes == moved {
            return None;
        }
        entry.reported_bytes = moved;
        Some(report(entry, key, FlowPhase::Update))
    }

    /// Ended since the dump began; with that memory full, rather yes than a phantom.
    fn has_ended(&self, key: u64) -> bool {
        let full = |ended: &HashSet<u64, Keyed>| ended.len() >= self.flows_max;
        self.ended.as_ref().is_some_and(|ended| ended.contains(&key) || full(ended))
    }

    fn discover(&mut self, raw: &Raw, key: u64, now: Now) {
        let mut entry = Entry::new(raw, self.kernel_start(raw, now), now);
        entry.seen_in = self.dump;
        entry.seen(raw, &self.timeouts, now);
        if self.insert(key, entry) {
            self.discovered.push(key);
        }
    }

    /// The dump is over and the events that came meanwhile were read. `complete`: it
    /// reached its end without loss. Gives `Start` for flows whose NEW was lost and `End`
    /// for flows that are gone.
    pub fn finish_dump(
        &mut self,
        complete: bool,
        now: Now,
        mut give: impl FnMut(Flow),
    ) -> DumpSummary {
        self.ended = None;
        let refused = std::mem::take(&mut self.refused);
        let mut missed_new = 0;
        for key in std::mem::take(&mut self.discovered) {
            let Some(entry) = self.flows.get_mut(&key).filter(|e| !e.announced) else { continue };
            entry.announced = true;
            // A first dump shows what was there before us. And a table that was full may
            // have turned this flow away when its NEW came: its `Start` has left then.
            if self.dump <= 1 || refused {
                continue;
            }
            // It was not in the dump before, so it began since then.
            entry.start = entry.start.or(Some(now.wall));
            missed_new += 1;
            give(report(entry, key, FlowPhase::Start));
        }
        let vanished = if complete { self.end_vanished(give) } else { self.keep_all() };
        DumpSummary { entries: self.entries, missed_new, vanished }
    }

    fn end_vanished(&mut self, mut give: impl FnMut(Flow)) -> u64 {
        let dump = self.dump;
        let mut count = 0;
        for (key, mut entry) in self.flows.extract_if(|_, e| e.seen_in.saturating_add(2) <= dump) {
            count += 1;
            give(report(&mut entry, key, FlowPhase::End));
        }
        count
    }

    /// An incomplete dump proves no absence.
    fn keep_all(&mut self) -> u64 {
        let dump = self.dump;
        self.flows.values_mut().for_each(|entry| entry.seen_in = dump);
        0
    }

    fn insert(&mut self, key: u64, entry: Entry) -> bool {
        if self.flows.len() >= self.flows_max {
            self.stats.full += 1;
            self.refused = true;
            return false;
        }
        self.flows.insert(key, Box::new(entry));
        true
    }
}

/// The flow's record under its id, which the first record fixes.
fn report(entry: &mut Entry, key: u64, phase: FlowPhase) -> Flow {
    if !entry.reported {
        entry.id = flow_id(key, entry.start);
        entry.reported = true;
    }
    entry.record(phase)
}

/// The event's own stamp where the kernel gives one, else the time it was read.
fn event_time(raw: &Raw, now: Now) -> Timestamp {
    stamp(raw.event_ns)
        .filter(|t| now.age_of(*t).is_some_and(|age| age <= EVENT_AGE_MAX_NS))
        .unwrap_or(now.wall)
}

/// The kernel's id and the original tuple: unique among live flows.
fn key(raw: &Raw) -> u64 {
    let mut bytes = [0u8; 44];
    let orig = &raw.orig;
    let mut rest = bytes.as_mut_slice();
    let mut put = |part: &[u8]| {
        if let Some((place, after)) = std::mem::take(&mut rest).split_at_mut_checked(part.len()) {
            place.copy_from_slice(part);
            rest = after;
        }
    };
    put(&raw.id.to_be_bytes());
    put(&raw.zone.to_be_bytes());
    put(&[orig.proto, u8::from(orig.src.is_ipv6())]);
    put(&octets(orig.src));
    put(&octets(orig.dst));
    put(&orig.src_port.to_be_bytes());
    put(&orig.dst_port.to_be_bytes());
    xxh3_64(&bytes)
}

fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The same for one flow in every process that knows its start.
fn flow_id(key: u64, start: Option<Timestamp>) -> u64 {
    let start = start.map_or(i64::MIN, |s| {
        s.nanos().saturating_add(ID_ROUNDING_NS / 2).div_euclid(ID_ROUNDING_NS)
    });
    let joined = u128::from(key) << 64 | u128::from(start.cast_unsigned());
    xxh3_64(&joined.to_be_bytes())
}

fn shifted(time: Timestamp, by: i64) -> Timestamp {
    Timestamp::from_nanos(time.nanos().saturating_add(by))
}

/// Keys are hashes already.
#[derive(Clone, Copy, Debug, Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64(bytes);
    }
    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

#[cfg(test)]
mod tests;
