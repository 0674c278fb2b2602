//! What time it is for the detectors: event time, which goes on when nothing happens.
//!
//! In: the time of each event as it arrives, and monotonic time. Out: the event time now:
//! that of the latest event plus the monotonic time passed since. The wall clock is never
//! asked, so that a jump of it (a router boots in 1970 until NTP sets it) closes no window
//! and opens none (invariant C6). Pure.
//!
//! Events of several collectors arrive a little out of order: an older one does not turn
//! time back. One that is older by more than [`LATE_MOST`] does: then the source's clock
//! was set back, or a recording of an earlier day is being replayed.

use std::time::Duration;

use agentmon_core::Timestamp;
use agentmon_core::time::Mono;

/// The latest an event may be, without time being turned back for it.
const LATE_MOST: Duration = Duration::from_secs(600);

/// Event time; nothing known before the first event.
#[derive(Debug, Default)]
pub(super) struct EventTime {
    latest: Option<(Timestamp, Mono)>,
}

impl EventTime {
    /// An event of that time has arrived.
    pub(super) fn saw(&mut self, time: Timestamp, now: Mono) {
        let keep = self.now(now).is_some_and(|at| time < at && at.since(time) <= LATE_MOST);
        if !keep {
            self.latest = Some((time, now));
        }
    }

    /// The wall clock, by which collectors stamp, was set: time goes on from there.
    pub(super) fn clock_set(&mut self, from: Timestamp, to: Timestamp) {
        if let Some((time, _)) = &mut self.latest {
            let moved = to.nanos().saturating_sub(from.nanos());
            *time = Timestamp::from_nanos(time.nanos().saturating_add(moved));
        }
    }

    /// Event time now.
    pub(super) fn now(&self, now: Mono) -> Option<Timestamp> {
        self.latest.map(|(time, seen)| time.plus(now.since(seen)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Events as (event time, arrival) in seconds; then event time at `now`.
    #[track_caller]
    fn check(events: &[(i64, u64)], now: u64, expected: Option<i64>) {
        let mono = |s: u64| Mono::from_nanos(s * 1_000_000_000);
        let mut time = EventTime::default();
        events.iter().for_each(|&(at, seen)| time.saw(Timestamp::from_secs(at), mono(seen)));
        assert_eq!(time.now(mono(now)), expected.map(Timestamp::from_secs));
    }

    #[test]
    fn goes_on_while_nothing_happens() {
        check(&[], 100, None);
        check(&[(1_000, 10)], 10, Some(1_000));
        check(&[(1_000, 10)], 75, Some(1_065));
    }

    #[test]
    fn late_events_do_not_turn_it_back_but_a_set_clock_does() {
        check(&[(1_000, 10), (995, 12)], 20, Some(1_010));
        check(&[(1_000, 10), (400, 10)], 20, Some(1_010));
        check(&[(1_000, 10), (399, 10)], 20, Some(409));
        // NTP sets the clock of a router that had booted in 1970.
        check(&[(60, 60), (1_795_000_000, 70)], 75, Some(1_795_000_005));
    }
}
