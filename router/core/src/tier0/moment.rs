//! The time detectors go by: what the clock said, and how much time has really passed.
//!
//! Event time comes from wall clocks and log lines. It jumps (a router without a battery
//! clock starts in the past until NTP sets it), and sources disagree by seconds or deliver
//! yesterday's backlog. [`Steady`] turns it into time that only goes forward and only as
//! fast as events say it does, so that a jump neither ends a grace period nor splits a
//! window. Pure; one comparison per event.

use std::time::Duration;

use crate::time::{Mono, Timestamp};

/// A step of event time longer than this, in either direction, is a jump of the clock or a
/// change of source and not time that passed: ticks come every second, so real silence is
/// no longer than that. (A suspended machine counts as a jump, rightly: nothing was seen.)
const STEP_MAX: Duration = Duration::from_secs(600);
/// What a jump forward counts for: something, so that sparse replays come to decisions.
const JUMP_COUNTS_AS: Duration = Duration::from_secs(1);

/// One moment in both times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    /// Event time: what findings are stamped with.
    pub(super) time: Timestamp,
    /// Time passed: what windows, grace periods and repeats are measured in.
    pub(super) steady: Mono,
}

/// Makes [`Moment`]s of timestamps.
#[derive(Debug, Default)]
pub(super) struct Steady {
    newest: Option<Timestamp>,
    passed: Mono,
}

impl Steady {
    pub(super) fn at(&mut self, time: Timestamp) -> Moment {
        let newest = self.newest.unwrap_or(time);
        let forward = time.since(newest);
        if forward <= STEP_MAX {
            self.passed = self.passed.plus(forward);
        } else {
            self.passed = self.passed.plus(JUMP_COUNTS_AS);
        }
        // A little behind the newest is disorder between sources; far behind is a jump.
        self.newest = Some(if newest.since(time) > STEP_MAX { time } else { newest.max(time) });
        Moment { time, steady: self.passed }
    }

    /// The time that has passed.
    pub(super) const fn passed(&self) -> Mono {
        self.passed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Event times in seconds and the steady seconds expected after each.
    #[track_caller]
    fn check(steps: &[(i64, u64)]) {
        let mut steady = Steady::default();
        for (time, expected) in steps {
            let moment = steady.at(Timestamp::from_secs(*time));
            assert_eq!(moment.steady.nanos() / 1_000_000_000, *expected, "at {time}");
        }
    }

    #[test]
    fn goes_forward_with_events_and_not_with_jumps() {
        check(&[(100, 0), (101, 1), (160, 60)]);
        // Disorder between sources does not make time run faster.
        check(&[(100, 0), (95, 0), (100, 0), (95, 0), (102, 2)]);
        // From the factory date to today, and on.
        check(&[(100, 0), (105, 5), (1_795_000_000, 6), (1_795_000_010, 16)]);
        // Set back by a day, and on.
        check(&[(200_000, 0), (100_000, 0), (100_010, 10)]);
    }
}
