//! Local days and hours of UTC moments: habits follow the sun and the office, not UTC.
//!
//! Pure but for reading the system's zone. A day is numbered by its local date, so that the
//! days on which clocks change have 23 or 25 hours and still are one.

use agentmon_core::Timestamp;
use agentmon_core::time::days_from_civil;
use jiff::civil::Weekday;
use jiff::tz::TimeZone;

/// A zone.
#[derive(Clone, Debug)]
pub(crate) struct Local(TimeZone);

/// An hour of the week, pooled: working days are alike, and so are the two others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Slot {
    pub(crate) weekend: bool,
    pub(crate) hour: u8,
}

impl Slot {
    /// As stored and shown: `weekday 14`.
    pub(crate) fn label(self) -> String {
        format!("{} {:02}", if self.weekend { "weekend" } else { "weekday" }, self.hour)
    }

    /// The same kind of day, at most an hour apart (around midnight too).
    pub(crate) fn is_near(self, other: Self) -> bool {
        let apart = (i32::from(self.hour) - i32::from(other.hour)).rem_euclid(24);
        self.weekend == other.weekend && matches!(apart, 0 | 1 | 23)
    }
}

impl Default for Local {
    fn default() -> Self {
        Self(TimeZone::system())
    }
}

impl Local {
    /// `local`, a zone's name, or a POSIX TZ string.
    ///
    /// # Errors
    /// A sentence that says what is allowed.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "local" => Ok(Self::default()),
            "utc" | "UTC" => Ok(Self(TimeZone::UTC)),
            name => {
                TimeZone::get(name).or_else(|_| TimeZone::posix(name)).map(Self).map_err(|_| {
                    "want local, utc, a name as Europe/Berlin, or a POSIX TZ string".to_owned()
                })
            }
        }
    }

    fn at(&self, time: Timestamp) -> jiff::ZonedDateTime {
        let time = jiff::Timestamp::from_microsecond(time.micros()).unwrap_or_default();
        time.to_zoned_datetime(self.0.clone())
    }

    /// The local date, as days since 1970-01-01.
    pub(crate) fn day(&self, time: Timestamp) -> i32 {
        let date = self.at(time).date();
        let month = u32::try_from(date.month()).unwrap_or(1);
        let days =
            days_from_civil(i64::from(date.year()), month, u32::try_from(date.day()).unwrap_or(1));
        i32::try_from(days).unwrap_or(0)
    }

    /// The hour of the week.
    pub(crate) fn slot(&self, time: Timestamp) -> Slot {
        let here = self.at(time);
        let weekend = matches!(here.weekday(), Weekday::Saturday | Weekday::Sunday);
        Slot { weekend, hour: u8::try_from(here.hour()).unwrap_or(0) }
    }

    /// The begin of the next local day.
    pub(crate) fn tomorrow(&self, time: Timestamp) -> Timestamp {
        let next = self.at(time).tomorrow().and_then(|day| day.start_of_day());
        let next = next.map(|day| Timestamp::from_micros(day.timestamp().as_microsecond()));
        // Only at the end of the calendar; then any step forward will do.
        next.unwrap_or_else(|_| time.plus(std::time::Duration::from_secs(86_400)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn berlin() -> Local {
        Local::parse("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
    }
    fn at(text: &str) -> Timestamp {
        Timestamp::from_secs(text.parse::<jiff::Timestamp>().unwrap().as_second())
    }

    #[track_caller]
    fn check(text: &str, slot: &str) {
        assert_eq!(berlin().slot(at(text)).label(), slot);
    }

    #[test]
    fn hours_are_local_also_when_the_clocks_change() {
        check("2026-11-23T14:32:07Z", "weekday 15");
        check("2026-07-04T22:30:00Z", "weekend 00");
        // 25 October 2026: 02:00 to 03:00 comes twice.
        check("2026-10-25T00:30:00Z", "weekend 02");
        check("2026-10-25T01:30:00Z", "weekend 02");
        check("2026-10-25T02:30:00Z", "weekend 03");
        let (day, next) = (at("2026-10-24T22:00:00Z"), at("2026-10-25T23:00:00Z"));
        assert_eq!(berlin().tomorrow(day), next, "25 hours");
        assert_eq!(berlin().day(day) + 1, berlin().day(next));
        assert_eq!(berlin().tomorrow(at("2026-03-28T23:00:00Z")), at("2026-03-29T22:00:00Z"));
    }

    #[test]
    fn a_zone_is_refused_with_what_is_allowed() {
        assert!(Local::parse("Nowhere/Atlantis").unwrap_err().contains("Europe/Berlin"));
        assert!(Local::parse("utc").is_ok() && Local::parse("local").is_ok());
    }

    proptest! {
        #[test]
        fn days_follow_each_other(secs in 0i64..4_000_000_000) {
            let (zone, time) = (berlin(), Timestamp::from_secs(secs));
            let next = zone.tomorrow(time);
            prop_assert!(next > time);
            prop_assert_eq!(zone.day(next), zone.day(time) + 1);
            let last = Timestamp::from_secs(next.secs() - 1);
            prop_assert_eq!(zone.day(last), zone.day(time));
        }
        #[test]
        fn any_time_has_a_day(nanos in proptest::num::i64::ANY) {
            let time = Timestamp::from_nanos(nanos);
            berlin().day(time);
            berlin().slot(time);
            berlin().tomorrow(time);
        }
    }
}
