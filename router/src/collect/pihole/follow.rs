//! Where in the numbered log one is, and what a page of it means.
//!
//! In: the place, and a page. Out: which lines are new and what is missing. Pure.
//!
//! FTL numbers its log lines from 0 at its start and keeps the newest 515. A page asked for
//! with `nextID=N` begins at `N`, or later if that line is gone already, and names the number
//! that the next line will have and FTL's process. So a page that is shorter than the
//! numbers say has lost lines, and another process or a smaller number means that FTL began
//! anew.

use std::time::Duration;

use agentmon_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::answer::LogPage;

/// Shortest pause between two pages.
const PAUSE_LEAST: Duration = Duration::from_millis(50);
/// Most lines that should come together between two looks: a quarter of FTL's buffer, so
/// that the rate may quadruple from one look to the next.
const LINES_A_LOOK: u64 = 128;

/// How far the log was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// FTL's process, where it says so.
    pub(super) pid: Option<u64>,
    /// Number of the next line.
    pub(super) next: u64,
    /// Time of the last line.
    pub(super) last: Timestamp,
}

/// What a page means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// Nothing was read before: go on behind this page.
    Begin,
    /// FTL began anew: ask for all that it has.
    AskAll,
    /// Read these.
    Read {
        /// How many lines at the front are known.
        skip: usize,
        /// Number of the first new line.
        first: u64,
        /// Lines that were not shown.
        lost: u64,
        /// FTL began anew: something may be missing, whatever the numbers say.
        restarted: bool,
    },
}

/// What `page` means at `place`; `all`: it was asked for without a number.
pub(super) fn plan(place: Option<&Place>, page: &LogPage, all: bool) -> Plan {
    let Some(place) = place else { return Plan::Begin };
    let got = u64::try_from(page.lines.len()).unwrap_or(u64::MAX);
    let other = matches!((place.pid, page.pid), (Some(a), Some(b)) if a != b);
    let restarted = other || page.next_id < place.next;
    if restarted && !all {
        return Plan::AskAll;
    }
    let expected = page.next_id - if restarted { 0 } else { place.next };
    let new = got.min(expected);
    let skip = usize::try_from(got - new).unwrap_or(usize::MAX);
    Plan::Read { skip, first: page.next_id - new, lost: expected - new, restarted }
}

/// How long to wait after `lines` came in `elapsed`.
pub(super) fn pause(lines: u64, elapsed: Duration, most: Duration) -> Duration {
    if lines == 0 {
        return most;
    }
    let elapsed = elapsed.max(PAUSE_LEAST);
    let nanos = elapsed.as_nanos().saturating_mul(u128::from(LINES_A_LOOK)) / u128::from(lines);
    let wanted = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
    wanted.clamp(PAUSE_LEAST, most.max(PAUSE_LEAST))
}

#[cfg(test)]
mod tests {
    use super::super::answer::LogLine;
    use super::*;
    use proptest::prelude::*;

    fn page(lines: usize, next_id: u64, pid: Option<u64>) -> LogPage {
        LogPage { lines: vec![LogLine::default(); lines], next_id, pid, bad: 0 }
    }

    #[track_caller]
    fn check(at: (u64, Option<u64>), page: &LogPage, all: bool, expected: Plan) {
        let place = Place { next: at.0, pid: at.1, last: Timestamp::EPOCH };
        assert_eq!(plan(Some(&place), page, all), expected);
    }

    const fn read(skip: usize, first: u64, lost: u64, restarted: bool) -> Plan {
        Plan::Read { skip, first, lost, restarted }
    }

    #[test]
    fn pages() {
        let one = Some(1);
        assert_eq!(plan(None, &page(515, 9_000, one), false), Plan::Begin);
        check((100, one), &page(0, 100, one), false, read(0, 100, 0, false));
        check((100, one), &page(3, 103, one), false, read(0, 100, 0, false));
        // 600 new lines, of which the buffer still has 515.
        check((100, one), &page(515, 700, one), false, read(0, 185, 85, false));
        // A line written while the page was made.
        check((100, one), &page(3, 104, one), false, read(0, 101, 1, false));
        // More than asked for.
        check((100, one), &page(10, 103, one), false, read(7, 100, 0, false));
        // Another process: first ask for everything.
        check((100, one), &page(3, 203, Some(2)), false, Plan::AskAll);
        check((100, one), &page(203, 203, Some(2)), true, read(0, 0, 0, true));
        check((100, one), &page(515, 600, Some(2)), true, read(0, 85, 85, true));
        // The same without a process, as before v6.0.
        check((100, None), &page(0, 7, None), false, Plan::AskAll);
        check((100, None), &page(7, 7, None), true, read(0, 0, 0, true));
        check((100, None), &page(7, 107, one), false, read(0, 100, 0, false));
        // It came back to itself between the two questions.
        check((100, one), &page(110, 110, one), true, read(100, 100, 0, false));
    }

    #[track_caller]
    fn waits(lines: u64, elapsed_ms: u64, expected_ms: u64) {
        let most = Duration::from_secs(1);
        let got = pause(lines, Duration::from_millis(elapsed_ms), most);
        assert_eq!(got, Duration::from_millis(expected_ms), "{lines} lines in {elapsed_ms} ms");
    }

    #[test]
    fn the_busier_the_sooner() {
        waits(0, 1_000, 1_000);
        waits(40, 1_000, 1_000);
        waits(128, 1_000, 1_000);
        waits(256, 1_000, 500);
        waits(1_280, 1_000, 100);
        waits(515, 50, 50);
        waits(u64::MAX, 0, 50);
    }

    proptest! {
        #[test]
        fn any_numbers(next: u64, pid: Option<u64>, got in 0usize..600, to: u64, now: Option<u64>, all: bool) {
            let place = Place { next, pid, last: Timestamp::EPOCH };
            if let Plan::Read { skip, first, lost, restarted } =
                plan(Some(&place), &page(got, to, now), all)
            {
                prop_assert!(skip <= got);
                prop_assert_eq!(first + (got - skip) as u64, to);
                if !restarted {
                    prop_assert_eq!(place.next + lost, first);
                }
            }
        }

        #[test]
        fn pauses_are_bounded(lines: u64, elapsed in 0u64..1_000_000, most in 100u64..10_000) {
            let most = Duration::from_millis(most);
            let pause = pause(lines, Duration::from_millis(elapsed), most);
            prop_assert!(pause >= PAUSE_LEAST && pause <= most);
        }
    }
}
