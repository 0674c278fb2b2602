//! One open flow, and how long it lasted.
//!
//! The kernel ends an entry when it *expires*; the last packet came one time-out earlier
//! (2 minutes for a closed TCP connection, 30 s for a DNS query). What is known about the
//! last packet, best first:
//! 1. counters that did not move since a dump: the dump's own estimate (state time-out
//!    minus `CTA_TIMEOUT` = how long it had been idle, to 1 s);
//! 2. expiry minus time-out, where expiry is `CTA_TIMESTAMP_STOP` or, without timestamps
//!    (OpenWrt), the moment DESTROY was read: the kernel's collector may be late, up to
//!    the time to the next dump;
//! 3. an entry that lived shorter than its time-out did not expire, it was deleted: its
//!    end is then the best guess.
//!
//! All on the monotonic clock, in signed nanoseconds: a flow may be older than its zero.

use std::time::Duration;

use agentmon_core::event::{Flow, FlowPhase};
use agentmon_core::time::{Mono, Timestamp};

use super::decode::Raw;
use super::normalise::Facts;
use super::timeouts::Timeouts;

/// How much earlier than its time-out an entry may seem to have expired: the nap before
/// its NEW was read, and the kernel's tick.
const EXPIRY_SLACK_NS: i64 = 250_000_000;

/// Both clocks, read together.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Wall time.
    pub wall: Timestamp,
    /// Monotonic time.
    pub mono: Mono,
}

impl Now {
    /// Monotonic time, signed.
    #[must_use]
    pub fn mono_ns(&self) -> i64 {
        i64::try_from(self.mono.nanos()).unwrap_or(i64::MAX)
    }
    /// How long ago a wall time was, if that is possible at all.
    #[must_use]
    pub fn age_of(&self, time: Timestamp) -> Option<i64> {
        let age = self.wall.nanos().checked_sub(time.nanos())?;
        (age >= 0).then_some(age)
    }
}

/// One open flow: enough to end it without the kernel's help.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) facts: Facts,
    pub(super) id: u64,
    /// A record with this id has left.
    pub(super) reported: bool,
    /// Its NEW was seen, or cannot be expected any more.
    pub(super) announced: bool,
    pub(super) start: Option<Timestamp>,
    /// Monotonic time of the first packet, or of the first sight where the start is unknown.
    pub(super) began: i64,
    /// Monotonic time of the last movement known.
    pub(super) active: i64,
    /// Bytes in the last `Update` record; `None`: there was none.
    pub(super) reported_bytes: Option<u64>,
    /// Number of the last dump that showed it, or that was the latest when it began.
    pub(super) seen_in: u32,
    /// How many dumps showed it.
    pub(super) sightings: u32,
    /// The wall clock was set during its life: the kernel's stamps do not subtract.
    pub(super) clock_set: bool,
}

impl Entry {
    /// First seen now; `start` as far as it is known.
    pub(super) fn new(raw: &Raw, start: Option<Timestamp>, now: Now) -> Self {
        let age = start.and_then(|s| now.age_of(s)).unwrap_or(0);
        let began = now.mono_ns().saturating_sub(age);
        Self {
            facts: Facts::new(raw),
            id: 0,
            reported: false,
            announced: false,
            start,
            began,
            active: began,
            reported_bytes: None,
            seen_in: 0,
            sightings: 0,
            clock_set: false,
        }
    }

    /// A dump shows the flow: when did it move last?
    pub(super) fn seen(&mut self, raw: &Raw, timeouts: &Timeouts, now: Now) {
        let before = self.facts.volume;
        self.facts.update(raw);
        let still = self.sightings > 0 && before.is_some() && before == self.facts.volume;
        self.sightings = self.sightings.saturating_add(1);
        if still {
            return;
        }
        let left = i64::from(raw.timeout.unwrap_or(0)).saturating_mul(1_000_000_000);
        // Offloaded flows and ones with a time-out of their own may have more left than
        // their state allows: not idle then.
        let idle = self.timeout(timeouts).saturating_sub(left).max(0);
        let active = now.mono_ns().saturating_sub(idle);
        self.active = active.clamp(self.active, now.mono_ns().max(self.active));
    }

    /// A record of the flow as it is now.
    pub(super) fn record(&self, phase: FlowPhase) -> Flow {
        let mut flow = self.facts.flow(phase);
        flow.id = self.id;
        flow.start = self.start;
        if phase != FlowPhase::Start {
            flow.duration_ms = self.start.map(|_| millis(self.active.saturating_sub(self.began)));
        }
        flow
    }

    /// The kernel says that it is over.
    pub(super) fn destroyed(&mut self, raw: &Raw, timeouts: &Timeouts, now: Now) {
        let before = self.facts.volume;
        self.facts.update(raw);
        if self.sightings > 0 && before.is_some() && before == self.facts.volume {
            return;
        }
        let expiry = match self.kernel_life(raw, now) {
            Some(life) => self.began.saturating_add(life),
            None => now.mono_ns(),
        };
        let last = last_packet(self.began, expiry, self.timeout(timeouts));
        self.active = last.clamp(self.active, now.mono_ns().max(self.active));
    }

    fn timeout(&self, timeouts: &Timeouts) -> i64 {
        let state = self.facts.tcp_state.map(|s| s as u8);
        nanos(timeouts.of(self.facts.proto, state, self.facts.is_assured()))
    }

    /// Start to expiry by the kernel's own wall stamps, if no clock was set in between.
    fn kernel_life(&self, raw: &Raw, now: Now) -> Option<i64> {
        if self.clock_set || self.start.is_none() {
            return None;
        }
        let (start, stop) = (stamp(raw.start_ns)?, stamp(raw.stop_ns)?);
        let life = stop.nanos().checked_sub(start.nanos())?;
        let most = now.mono_ns().saturating_sub(self.began).saturating_add(EXPIRY_SLACK_NS);
        (0..=most).contains(&life).then_some(life)
    }
}

/// Expiry minus time-out; or expiry itself, when the entry did not live that long.
pub(super) const fn last_packet(began: i64, expiry: i64, timeout: i64) -> i64 {
    let idle_from = expiry.saturating_sub(timeout);
    if idle_from.saturating_add(EXPIRY_SLACK_NS) < began {
        expiry
    } else if idle_from < began {
        began
    } else {
        idle_from
    }
}

/// A kernel stamp as wall time; zero means "not set".
pub(super) fn stamp(ns: Option<u64>) -> Option<Timestamp> {
    ns.filter(|n| *n > 0).and_then(|n| i64::try_from(n).ok()).map(Timestamp::from_nanos)
}

pub(super) fn nanos(d: Duration) -> i64 {
    i64::try_from(d.as_nanos()).unwrap_or(i64::MAX)
}

pub(super) fn millis(ns: i64) -> u64 {
    u64::try_from(ns).unwrap_or(0) / 1_000_000
}
