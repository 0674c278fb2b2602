//! Which moments a detector judges in a round. Pure.
//!
//! In: when it judged last, the newest event time, the hours into which events fell since.
//! Out: moments to judge, oldest first.
//!
//! Invariants: without new events nothing is judged; every hour that got events is within
//! reach of some moment judged after they were stored; however long the hub or a sensor was
//! away, the present is judged once, and the past in windows that do not overlap.

use std::time::Duration;

use agentmon_core::Timestamp;

/// The grain in which late events are remembered.
pub(crate) const HOUR: Duration = Duration::from_secs(3_600);

/// What a detector wants.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    pub(crate) every: Duration,
    pub(crate) reach: Duration,
}

/// Where it stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    /// The newest moment it judged; `None`: it never ran.
    pub(crate) judged: Option<Timestamp>,
    /// How long ago it last ran, by the monotonic clock.
    pub(crate) idle: Duration,
}

/// The moments to judge at `now`, given the begins of the hours that got events since it ran.
pub(crate) fn moments(
    wish: Wish,
    standing: Standing,
    now: Timestamp,
    hours: &[Timestamp],
) -> Vec<Timestamp> {
    if hours.is_empty() {
        return Vec::new();
    }
    let Some(judged) = standing.judged else { return vec![now] };
    // Time that stands still or went back must not keep a detector from what has arrived.
    let due = now.since(judged) >= wish.every || standing.idle >= wish.every;
    if !due {
        return Vec::new();
    }
    let mut moments = past(wish.reach.max(HOUR), now, hours);
    moments.push(now);
    moments
}

/// The ends of windows of `reach` that cover the hours which the one ending `now` does not.
fn past(reach: Duration, now: Timestamp, hours: &[Timestamp]) -> Vec<Timestamp> {
    let mut hours: Vec<_> = hours.iter().copied().filter(|hour| *hour < now.minus(reach)).collect();
    hours.sort_unstable();
    let mut moments: Vec<Timestamp> = Vec::new();
    for hour in hours {
        let covered = |end: &Timestamp| hour.plus(HOUR) <= *end;
        if !moments.last().is_some_and(covered) {
            moments.push(hour.plus(reach).min(now));
        }
    }
    moments.retain(|end| *end < now);
    moments
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Hours in, hours out; `now` is hour 1000.
    #[track_caller]
    fn check(reach: u64, judged: Option<i64>, hours: &[i64], expected: &[i64]) {
        let at = |h: i64| Timestamp::from_secs(h * 3_600);
        let wish = Wish { every: HOUR, reach: HOUR * u32::try_from(reach).unwrap() };
        let standing = Standing { judged: judged.map(at), idle: Duration::ZERO };
        let hours: Vec<_> = hours.iter().copied().map(at).collect();
        let got: Vec<_> =
            moments(wish, standing, at(1000), &hours).iter().map(|t| t.secs() / 3_600).collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn the_present_once_and_late_hours_each_once() {
        check(2, Some(990), &[], &[]);
        check(2, None, &[10, 500, 999], &[1000]);
        check(2, Some(999), &[999], &[1000]);
        check(2, Some(1000), &[999], &[]);
        // Downtime of ten hours, in which sensors kept their events.
        check(24, Some(990), &[990, 991, 995, 999], &[1000]);
        check(4, Some(990), &[990, 991, 992, 993, 994, 995, 999], &[994, 998, 1000]);
        // A router comes back after three hours.
        check(2, Some(999), &[996, 997, 999], &[998, 1000]);
        check(2, Some(999), &[999, 996, 993], &[995, 998, 1000]);
        // The clock went back: nothing until it has been idle.
        check(2, Some(2000), &[999], &[]);
    }

    #[test]
    fn time_that_stands_still_keeps_nothing_unjudged() {
        let now = Timestamp::from_secs(3_600_000);
        let wish = Wish { every: HOUR, reach: 2 * HOUR };
        let standing = |judged: Timestamp| Standing { judged: Some(judged), idle: HOUR };
        let hours = [now.minus(HOUR)];
        assert_eq!(moments(wish, standing(now), now, &hours), [now]);
        assert_eq!(moments(wish, standing(now.plus(9 * HOUR)), now, &hours), [now]);
    }

    proptest! {
        #[test]
        fn every_hour_is_within_reach_of_one_moment(
            reach in 1u32..50, hours in prop::collection::btree_set(0i64..1000, 1..60), late in 0u64..3600,
        ) {
            let reach = HOUR * reach;
            let now = Timestamp::from_secs(3_600_000).plus(Duration::from_secs(late));
            let hours: Vec<_> = hours.into_iter().map(|h| Timestamp::from_secs(h * 3_600)).collect();
            let standing = Standing { judged: Some(Timestamp::EPOCH), idle: Duration::ZERO };
            let moments = moments(Wish { every: HOUR, reach }, standing, now, &hours);
            prop_assert_eq!(moments.last(), Some(&now));
            prop_assert!(moments.is_sorted());
            for hour in &hours {
                let whole = |end: &Timestamp| end.minus(reach) <= *hour && hour.plus(HOUR) <= *end;
                let tail = *hour >= now.minus(reach);
                prop_assert!(tail || moments.iter().any(whole), "{hour} in {moments:?}");
            }
            // Windows of the past overlap by less than an hour.
            let ends = &moments[..moments.len() - 1];
            prop_assert!(ends.windows(2).all(|w| w[1].since(w[0]) > reach.saturating_sub(HOUR)));
        }
    }
}
