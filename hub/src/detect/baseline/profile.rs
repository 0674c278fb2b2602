//! Days as bits, and what they say of a device. Pure but for [`load`].
//!
//! A habit is remembered by the local days on which it showed: the newest, and one bit for
//! it and each of the 63 before. Setting a bit twice changes nothing, the order does not
//! matter, and no day weighs more than another however loud it was.

use std::collections::HashMap;
use std::time::Duration;

use agentmon_core::Timestamp;
use duckdb::{Connection, params};

use super::{EVERYBODY, KEPT_DAYS, Local};
use crate::store::StoreError;

/// Days over which new things are counted.
const FRESH_DAYS: u64 = 14;
/// More new things than this in [`FRESH_DAYS`], and new things are what is usual.
const FRESH_MAX: u32 = 2;

/// The days on which something showed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Days {
    /// The day of bit 0.
    pub(crate) newest: i32,
    /// Bit `i`: the day `newest - i`.
    pub(crate) bits: u64,
}

impl Days {
    /// It showed on that day; false where that is known, or too long ago to matter.
    pub(crate) fn see(&mut self, day: i32) -> bool {
        let before = *self;
        let ahead = i64::from(day) - i64::from(self.newest);
        if self.bits == 0 {
            *self = Self { newest: day, bits: 1 };
        } else if ahead > 0 {
            let shifted = u32::try_from(ahead).ok().and_then(|n| self.bits.checked_shl(n));
            *self = Self { newest: day, bits: shifted.unwrap_or(0) | 1 };
        } else if let Some(bit) = u32::try_from(-ahead).ok().and_then(|n| 1u64.checked_shl(n)) {
            self.bits |= bit;
        }
        *self != before
    }

    /// Days before that one, as far as they are remembered.
    pub(crate) fn before(self, day: i32) -> u32 {
        let skip = i64::from(self.newest) - i64::from(day) + 1;
        match u32::try_from(skip) {
            Ok(skip) => self.bits.checked_shr(skip).unwrap_or(0).count_ones(),
            Err(_) => self.bits.count_ones(),
        }
    }
}

/// What is known of a device before a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Profile {
    /// Days on which it was there, today not counted.
    pub(crate) days: u32,
    /// It was there on enough of them.
    pub(crate) learnt: bool,
    pub(crate) domains: u32,
    /// Of the last two weeks, those of its learning not counted.
    pub(crate) fresh_domains: u32,
    pub(crate) places: u32,
    pub(crate) fresh_places: u32,
}

impl Profile {
    /// It asks for the same few names day after day: a machine's life, not a person's.
    pub(crate) const fn keeps_to_domains(&self, most: u32) -> bool {
        self.learnt && self.domains <= most && self.fresh_domains <= FRESH_MAX
    }

    /// It goes to the same few places.
    pub(crate) const fn keeps_to_places(&self, most: u32) -> bool {
        self.learnt && self.places <= most && self.fresh_places <= FRESH_MAX
    }
}

/// The profiles of all, before `now`.
///
/// # Errors
/// What DuckDB says.
pub(super) fn load(
    db: &Connection,
    local: &Local,
    now: Timestamp,
    learning_days: u32,
) -> Result<HashMap<String, Profile>, StoreError> {
    let sql = "SELECT d.who, any_value(d.day), any_value(d.bits),
             count(*) FILTER (h.kind = 'domain'),
             count(*) FILTER (h.kind = 'domain' AND h.first_seen >= fresh),
             count(*) FILTER (h.kind = 'place'),
             count(*) FILTER (h.kind = 'place' AND h.first_seen >= fresh)
         FROM (SELECT *, greatest(make_timestamp($1), first_seen + to_days($2)) AS fresh
               FROM habits WHERE kind = 'day') d
             LEFT JOIN habits h ON h.who = d.who AND h.kind IN ('domain', 'place')
         GROUP BY d.who";
    let fresh = now.minus(Duration::from_secs(FRESH_DAYS * 86_400)).micros();
    let learning = i32::try_from(learning_days.min(KEPT_DAYS)).unwrap_or(i32::MAX);
    let mut statement = db.prepare(sql)?;
    let mut rows = statement.query(params![fresh, learning])?;
    let today = local.day(now);
    let mut profiles = HashMap::new();
    while let Some(row) = rows.next()? {
        let days = Days { newest: row.get(1)?, bits: row.get(2)? }.before(today);
        let profile = Profile {
            days,
            learnt: days >= learning_days,
            domains: row.get(3)?,
            fresh_domains: row.get(4)?,
            places: row.get(5)?,
            fresh_places: row.get(6)?,
        };
        profiles.insert(row.get(0)?, profile);
    }
    Ok(profiles)
}

/// How many devices there are.
pub(super) fn devices(profiles: &HashMap<String, Profile>) -> usize {
    profiles.len() - usize::from(profiles.contains_key(EVERYBODY))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn days_are_counted_once_each_and_forgotten_after_64() {
        let mut days = Days::default();
        assert!(days.see(100) && !days.see(100));
        assert!(days.see(98) && !days.see(98));
        assert_eq!((days.before(100), days.before(101), days.before(99)), (1, 2, 1));
        assert!(days.see(161));
        assert_eq!((days.bits.count_ones(), days.before(161)), (3, 2));
        assert!(days.see(163), "98 is too long ago now");
        assert_eq!(days.before(200), 3);
        assert!(!days.see(98), "and is not taken again");
        assert!(days.see(1_000));
        assert_eq!(days, Days { newest: 1_000, bits: 1 });
    }

    proptest! {
        #[test]
        fn bits_are_a_set_of_the_last_64_days(
            mut seen in prop::collection::vec(0i32..200, 1..80), day in 0i32..250,
        ) {
            let mut days = Days::default();
            for d in &seen {
                days.see(*d);
            }
            let newest = *seen.iter().max().unwrap();
            let expected: BTreeSet<i32> =
                seen.iter().copied().filter(|d| newest - d < 64).collect();
            prop_assert_eq!(days.newest, newest);
            prop_assert_eq!(days.bits.count_ones() as usize, expected.len());
            prop_assert_eq!(days.before(day) as usize, expected.iter().filter(|d| **d < day).count());
            seen.reverse();
            let mut again = Days::default();
            for d in &seen {
                again.see(*d);
            }
            prop_assert_eq!(again, days, "in any order");
        }
        #[test]
        fn any_days_never_panic(newest in prop::num::i32::ANY, bits in prop::num::u64::ANY, day in prop::num::i32::ANY) {
            let mut days = Days { newest, bits };
            days.before(day);
            days.see(day);
        }
    }
}
