//! Is this hour's volume unlike the device's own hours? Pure.
//!
//! In: hours of the device's past, one hour. Out: how far it is off, or nothing.
//!
//! Method: y = ln(1 + bytes); z = (y - median) / max(1.4826 MAD, [`SIGMA_MIN`]), over the
//! hours of the past weeks that lie near in the day, working days and others apart, hours
//! without a byte counted as zero; the median absolute deviation stands for the deviation
//! (Hampel 1974; 1.4826 makes it one for normal values). Who sends nothing most hours has a
//! median of nothing, so z alone is not enough: an odd hour is also several times as large as
//! the device's third-busiest day had in its busiest hour. Two odd days move neither.
//!
//! Poisoning: hours once told as odd are left out, unless odd hours came on [`ODD_DAYS`] days
//! within [`ODD_WITHIN_DAYS`]: then that is how it is now.

use std::collections::{BTreeMap, BTreeSet};

use super::zone::Slot;

/// Odd hours on so many days are no longer odd.
pub(crate) const ODD_DAYS: usize = 3;
const ODD_WITHIN_DAYS: i32 = 14;
/// Below this, a device that always moves exactly as much would be odd for a few bytes more:
/// a factor of 1.4 to both sides.
const SIGMA_MIN: f64 = 0.35;
/// Hours that are compared, at least.
const HOURS_MIN: usize = 12;
/// Which of the busiest days stands for what it can do.
const BUSIEST: usize = 3;

/// One hour of the past.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Hour {
    /// Local day.
    pub(crate) day: i32,
    pub(crate) slot: Slot,
    pub(crate) bytes: u64,
    /// Told as odd when it was.
    pub(crate) odd: bool,
}

/// From where on an hour is odd.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Limits {
    pub(crate) z: f64,
    pub(crate) bytes: u64,
    /// Times the busiest hour of the third-busiest day.
    pub(crate) times: f64,
    pub(crate) days: usize,
}

/// How an odd hour differs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Odd {
    pub(crate) z: f64,
    /// What an hour like this one usually moves.
    pub(crate) median: u64,
    /// The busiest hour of the third-busiest day.
    pub(crate) busy: u64,
}

/// Whether `bytes` in that hour are odd for who had these hours.
pub(crate) fn odd(past: &[Hour], day: i32, slot: Slot, bytes: u64, limits: &Limits) -> Option<Odd> {
    if bytes < limits.bytes {
        return None;
    }
    let usual = usual(past, day);
    let days: BTreeSet<i32> = usual.iter().map(|hour| hour.day).collect();
    if days.len() < limits.days {
        return None;
    }
    let busy = busy(&usual);
    if (bytes as f64) < busy as f64 * limits.times {
        return None;
    }
    let values = near(&usual, &days, slot);
    let (median, sigma) = spread(&values)?;
    let z = ((bytes as f64).ln_1p() - median) / sigma;
    (z >= limits.z).then(|| Odd { z, median: median.exp_m1().round() as u64, busy })
}

/// Without what was odd, unless that has become a habit.
fn usual(past: &[Hour], day: i32) -> Vec<Hour> {
    let recent = |hour: &&Hour| hour.odd && day.saturating_sub(hour.day) <= ODD_WITHIN_DAYS;
    let odd: BTreeSet<i32> = past.iter().filter(recent).map(|hour| hour.day).collect();
    // Today's own hours do not vouch for each other.
    let habit = odd.iter().filter(|odd| **odd != day).count() >= ODD_DAYS;
    let learnt = |hour: &&Hour| hour.day != day && (!hour.odd || habit);
    past.iter().filter(learnt).copied().collect()
}

/// The third of the days' busiest hours.
fn busy(usual: &[Hour]) -> u64 {
    let mut most: BTreeMap<i32, u64> = BTreeMap::new();
    for hour in usual {
        let day = most.entry(hour.day).or_default();
        *day = (*day).max(hour.bytes);
    }
    let mut most: Vec<u64> = most.into_values().collect();
    most.sort_unstable_by(|a, b| b.cmp(a));
    most.get(BUSIEST - 1).or(most.last()).copied().unwrap_or(0)
}

/// ln(1 + bytes) of hours like this one; all of the device's where those are few.
fn near(usual: &[Hour], days: &BTreeSet<i32>, slot: Slot) -> Vec<f64> {
    let logs = |hours: &mut dyn Iterator<Item = &Hour>, expected: usize| {
        let mut values: Vec<f64> = hours.map(|hour| (hour.bytes as f64).ln_1p()).collect();
        // Hours in which nothing passed have no row.
        values.resize(values.len().max(expected), 0.0);
        values
    };
    let alike: BTreeSet<i32> =
        usual.iter().filter(|h| h.slot.weekend == slot.weekend).map(|h| h.day).collect();
    let mut close = usual.iter().filter(|hour| hour.slot.is_near(slot));
    let values = logs(&mut close, alike.len() * 3);
    if values.len() >= HOURS_MIN {
        return values;
    }
    logs(&mut usual.iter(), days.len() * 24)
}

/// Median and robust deviation; nothing of too few values.
fn spread(values: &[f64]) -> Option<(f64, f64)> {
    if values.len() < HOURS_MIN {
        return None;
    }
    let middle = median(values.to_vec())?;
    let mad = median(values.iter().map(|v| (v - middle).abs()).collect())?;
    Some((middle, (1.4826 * mad).max(SIGMA_MIN)))
}

/// The median; `None` of nothing.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    let half = values.len() / 2;
    values.sort_unstable_by(f64::total_cmp);
    let high = values.get(half).copied()?;
    if values.len() % 2 == 1 {
        return Some(high);
    }
    values.get(half.checked_sub(1)?).map(|low| f64::midpoint(*low, high))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;
    const LIMITS: Limits = Limits { z: 6.0, bytes: 100 * MIB, times: 3.0, days: 7 };
    const TODAY: i32 = 100;

    fn slot(hour: u8) -> Slot {
        Slot { weekend: false, hour }
    }
    /// Two weeks in which each hour moved about so much.
    fn weeks(bytes: impl Fn(i32, u8) -> u64) -> Vec<Hour> {
        let hours = (TODAY - 14..TODAY).flat_map(|day| (0..24).map(move |hour| (day, hour)));
        hours
            .map(|(day, hour)| Hour { day, slot: slot(hour), bytes: bytes(day, hour), odd: false })
            .filter(|hour| hour.bytes > 0)
            .collect()
    }
    #[track_caller]
    fn check(past: &[Hour], mib: u64, expected: bool) {
        let got = odd(past, TODAY, slot(14), mib * MIB, &LIMITS);
        assert_eq!(got.is_some(), expected, "{got:?}");
    }

    #[test]
    fn far_more_than_ever_is_odd_and_a_little_more_is_not() {
        let steady = weeks(|_, _| 10 * MIB);
        check(&steady, 99, false);
        check(&steady, 101, true);
        let busy = weeks(|_, hour| if hour == 20 { 500 * MIB } else { MIB });
        check(&busy, 500, false);
        check(&busy, 1_400, false);
        check(&busy, 1_600, true);
        // Silent but for a burst now and then.
        let bursts = weeks(|day, hour| if hour == 14 && day % 4 == 0 { 300 * MIB } else { 0 });
        check(&bursts, 300, false);
    }

    #[test]
    fn nothing_is_odd_before_it_is_known() {
        let few: Vec<_> = weeks(|_, _| MIB).into_iter().filter(|h| h.day >= TODAY - 6).collect();
        check(&few, 10_000, false);
        check(&[], 10_000, false);
        let seven: Vec<_> = weeks(|_, _| MIB).into_iter().filter(|h| h.day >= TODAY - 7).collect();
        check(&seven, 10_000, true);
    }

    #[test]
    fn two_odd_days_move_nothing() {
        let mut past = weeks(|_, _| 10 * MIB);
        for hour in past.iter_mut().filter(|hour| hour.day > TODAY - 3) {
            hour.bytes = 5_000 * MIB;
        }
        check(&past, 1_000, true);
    }

    #[test]
    fn what_was_told_as_odd_is_learnt_when_it_comes_on_a_third_day() {
        let past = |days: &[i32]| {
            let mut past = weeks(|_, _| 10 * MIB);
            let nightly = days.iter().map(|back| Hour {
                day: TODAY - back,
                slot: slot(14),
                bytes: 2_000 * MIB,
                odd: true,
            });
            past.retain(|h| !(h.slot.hour == 14 && days.contains(&(TODAY - h.day))));
            past.extend(nightly);
            past
        };
        check(&past(&[1]), 2_000, true);
        check(&past(&[1, 2]), 2_000, true);
        check(&past(&[1, 2, 3]), 2_000, false);
        check(&past(&[1, 2, 3]), 7_000, true);
        // Many odd hours of one day are one day.
        let mut day = weeks(|_, _| 10 * MIB);
        for hour in day.iter_mut().filter(|hour| hour.day == TODAY - 1) {
            (hour.bytes, hour.odd) = (2_000 * MIB, true);
        }
        check(&day, 2_000, true);
    }

    #[test]
    fn medians() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0]), Some(3.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
        assert_eq!(median(vec![9.0, 1.0, 2.0]), Some(2.0));
    }

    fn hours() -> impl Strategy<Value = Vec<Hour>> {
        let hour = (TODAY - 30..=TODAY, 0u8..24, any::<bool>(), any::<u64>(), any::<bool>());
        let hour = hour.prop_map(|(day, hour, weekend, bytes, odd)| Hour {
            day,
            slot: Slot { weekend, hour },
            bytes: bytes >> (bytes % 64),
            odd,
        });
        prop::collection::vec(hour, 0..400)
    }

    proptest! {
        #[test]
        fn more_is_never_less_odd(past in hours(), at in 0u8..24, bytes in any::<u64>(), more in any::<u64>()) {
            let less = odd(&past, TODAY, slot(at), bytes, &LIMITS);
            let more = odd(&past, TODAY, slot(at), bytes.saturating_add(more), &LIMITS);
            if let Some(less) = less {
                prop_assert!(less.z.is_finite() && less.z >= LIMITS.z);
                prop_assert!(more.is_some_and(|more| more.z >= less.z));
            }
        }
        #[test]
        fn one_day_can_be_anything(past in hours(), at in 0u8..24, loud in any::<u64>()) {
            // What one day of the past was like changes what is told by no more than that
            // the third-busiest day is the fourth.
            let quiet: Vec<_> = past.iter().filter(|h| h.day != TODAY - 5).copied().collect();
            let mut shouted = quiet.clone();
            let day = Hour { day: TODAY - 5, slot: slot(at), bytes: loud, odd: false };
            shouted.extend((0..24).map(|hour| Hour { slot: slot(hour), ..day }));
            let third = busy(&usual(&quiet, TODAY));
            let mut most: BTreeMap<i32, u64> = BTreeMap::new();
            for hour in usual(&quiet, TODAY) {
                let day = most.entry(hour.day).or_default();
                *day = (*day).max(hour.bytes);
            }
            let mut most: Vec<_> = most.into_values().collect();
            most.sort_unstable_by(|a, b| b.cmp(a));
            if let Some(second) = most.get(BUSIEST - 2) {
                prop_assert!(busy(&usual(&shouted, TODAY)) <= (*second).max(third));
            }
        }
        #[test]
        fn the_order_of_hours_does_not_matter(past in hours(), bytes in any::<u64>()) {
            let mut turned = past.clone();
            turned.reverse();
            prop_assert_eq!(odd(&past, TODAY, slot(3), bytes, &LIMITS), odd(&turned, TODAY, slot(3), bytes, &LIMITS));
        }
    }
}
