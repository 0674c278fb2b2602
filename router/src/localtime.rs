//! Local time to UTC, for logs that name no zone and no year.
//!
//! In: what a clock on the wall said ([`Civil`]), possibly without its year. Out: a
//! [`Timestamp`]. Pure but for [`Zone::system`], which reads the system's zone once.
//!
//! Invariants: any input gives some time; an hour that exists twice (clocks set back) is
//! taken so that time goes on; one that never was (clocks set forward) is read with the
//! offset before the jump; a missing year is the latest that does not lie in the future.

use std::fs;

use agentmon_core::time::{Timestamp, civil_from_days, days_from_civil};
use serde::{Deserialize, Serialize};
use tz::TimeZone;

/// A log's clock may be this far ahead of ours before a date counts as last year's.
const AHEAD_SECONDS_MAX: i64 = 86_400;
/// Lines may be this much out of order in an hour that exists twice.
const DISORDER_SECONDS_MAX: i64 = 60;

/// What stood in the log, in local time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Civil {
    /// `None` where the log has no year.
    pub year: Option<i64>,
    /// 1 to 12.
    pub month: u32,
    /// 1 to 31.
    pub day: u32,
    /// Seconds since midnight, 0 to 86,400.
    pub second: u32,
}

/// Where local time comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ZoneSetting {
    /// The system's own zone.
    #[default]
    Local,
    /// A fixed distance to UTC in seconds, east positive.
    Fixed(i32),
    /// A POSIX TZ string, as `CET-1CEST,M3.5.0,M10.5.0/3`.
    Posix(String),
}

/// The text is no zone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown time zone {0:?}: want \"local\", \"utc\", an offset as \"+02:00\", or a POSIX TZ \
     string as \"CET-1CEST,M3.5.0,M10.5.0/3\""
)]
pub struct ZoneError(String);

impl TryFrom<String> for ZoneSetting {
    type Error = ZoneError;
    fn try_from(text: String) -> Result<Self, ZoneError> {
        match text.as_str() {
            "local" => Ok(Self::Local),
            "utc" | "UTC" | "Z" => Ok(Self::Fixed(0)),
            other => match offset_seconds(other.as_bytes()) {
                Some(seconds) => Ok(Self::Fixed(seconds)),
                None if TimeZone::from_posix_tz(other).is_ok() => Ok(Self::Posix(text)),
                None => Err(ZoneError(text)),
            },
        }
    }
}

impl From<ZoneSetting> for String {
    fn from(setting: ZoneSetting) -> Self {
        match setting {
            ZoneSetting::Local => "local".into(),
            ZoneSetting::Fixed(0) => "utc".into(),
            ZoneSetting::Fixed(s) => {
                let sign = if s < 0 { '-' } else { '+' };
                let minutes = s.unsigned_abs() / 60;
                format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60)
            }
            ZoneSetting::Posix(text) => text,
        }
    }
}

/// `+02:00`, `-0530`, `+02`: seconds east of UTC.
#[must_use]
pub fn offset_seconds(text: &[u8]) -> Option<i32> {
    let (sign, rest) = match text.split_first()? {
        (b'+', rest) => (1, rest),
        (b'-', rest) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes): (&[u8], &[u8]) = match rest {
        [_, _] => (rest, b"00"),
        [a @ .., b':', x, y] if a.len() == 2 => (a, &[*x, *y]),
        [_, _, _, _] => rest.split_at(2),
        _ => return None,
    };
    let number = |digits: &[u8]| match digits {
        [a @ b'0'..=b'9', b @ b'0'..=b'9'] => Some(i32::from(a - b'0') * 10 + i32::from(b - b'0')),
        _ => None,
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    (hours <= 18 && minutes < 60).then_some(sign * (hours * 3_600 + minutes * 60))
}

/// A zone ready for use.
#[derive(Clone, Debug)]
pub struct Zone {
    table: Option<TimeZone>,
    fixed: i32,
}

impl Zone {
    /// Universal time.
    #[must_use]
    pub const fn utc() -> Self {
        Self { table: None, fixed: 0 }
    }

    /// The zone of a setting.
    #[must_use]
    pub fn of(setting: &ZoneSetting) -> Self {
        match setting {
            ZoneSetting::Local => Self::system(),
            ZoneSetting::Fixed(seconds) => Self { table: None, fixed: *seconds },
            ZoneSetting::Posix(text) => {
                Self { table: TimeZone::from_posix_tz(text).ok(), fixed: 0 }
            }
        }
    }

    /// The system's zone: `TZ`, then `/etc/localtime` (a TZif file, RFC 9636), then
    /// OpenWrt's `/etc/TZ` (a POSIX TZ string), else UTC.
    #[must_use]
    pub fn system() -> Self {
        let from_text = |text: String| TimeZone::from_posix_tz(text.trim()).ok();
        let table = std::env::var("TZ")
            .ok()
            .filter(|text| !text.is_empty())
            .and_then(from_text)
            .or_else(|| TimeZone::from_tz_data(&fs::read("/etc/localtime").ok()?).ok())
            .or_else(|| from_text(fs::read_to_string("/etc/TZ").ok()?));
        Self { table, fixed: 0 }
    }

    /// Seconds east of UTC at that moment.
    fn offset(&self, unix: i64) -> i64 {
        let Some(table) = &self.table else { return i64::from(self.fixed) };
        match table.find_local_time_type(unix) {
            Ok(kind) => i64::from(kind.ut_offset()),
            // Behind the end of a table without a rule: as it was last.
            Err(_) => {
                let zone = table.as_ref();
                let last = zone.transitions().last().map_or(0, |t| t.local_time_type_index());
                zone.local_time_types().get(last).map_or(0, |kind| i64::from(kind.ut_offset()))
            }
        }
    }

    /// The moment a clock in this zone showed `civil`.
    ///
    /// `after` is the time of the line before, which decides about hours that exist twice;
    /// `now` is when the line was written or read at the latest, which decides the year.
    #[must_use]
    pub fn to_utc(&self, civil: Civil, after: Option<Timestamp>, now: Timestamp) -> Timestamp {
        let in_year = |year| self.in_year(year, civil, after);
        if let Some(year) = civil.year {
            return in_year(year);
        }
        let limit = now.secs().saturating_add(AHEAD_SECONDS_MAX);
        let (this_year, ..) = civil_from_days(limit.div_euclid(86_400));
        // One more on each side for the zone; eight back find a 29 February.
        (this_year - 8..=this_year + 1)
            .rev()
            .filter(|year| civil.day <= days_in_month(*year, civil.month))
            .map(in_year)
            .find(|t| t.secs() <= limit)
            .unwrap_or(now)
    }

    fn in_year(&self, year: i64, civil: Civil, after: Option<Timestamp>) -> Timestamp {
        let days = days_from_civil(year, civil.month, civil.day);
        let local = days * 86_400 + i64::from(civil.second);
        // Offsets half a day before and behind: no zone changes twice in between.
        let (before, behind) = (self.offset(local - 50_000), self.offset(local + 50_000));
        let (first, second) = (local - before, local - behind);
        let first_real = self.offset(first) == before;
        let second_real = self.offset(second) == behind;
        let unix = match (first_real, second_real) {
            (true, true) if second > first => match after {
                Some(last) if first < last.secs() - DISORDER_SECONDS_MAX => second,
                _ => first,
            },
            (false, true) => second,
            _ => first,
        };
        Timestamp::from_secs(unix)
    }
}

/// 28 to 31.
fn days_in_month(year: i64, month: u32) -> u32 {
    let (next_year, next_month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    let days = days_from_civil(next_year, next_month, 1) - days_from_civil(year, month, 1);
    u32::try_from(days).unwrap_or(31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BERLIN: &str = "CET-1CEST,M3.5.0,M10.5.0/3";

    fn zone(text: &str) -> Zone {
        Zone::of(&ZoneSetting::try_from(text.to_owned()).unwrap())
    }
    fn civil(year: Option<i64>, month: u32, day: u32, hour: u32, minute: u32) -> Civil {
        Civil { year, month, day, second: hour * 3_600 + minute * 60 }
    }
    /// 2026-11-23 14:00 UTC
    const NOW: Timestamp = Timestamp::from_secs(1_795_442_400);

    #[track_caller]
    fn check(text: &str, civil: Civil, after: Option<i64>, expected: &str) {
        let t = zone(text).to_utc(civil, after.map(Timestamp::from_secs), NOW).to_string();
        assert_eq!(t.split('.').next(), Some(expected));
    }

    #[test]
    fn zones() {
        check("utc", civil(Some(2026), 3, 23, 13, 16), None, "2026-03-23T13:16:00");
        check("+02:00", civil(Some(2026), 3, 23, 13, 16), None, "2026-03-23T11:16:00");
        check("-0530", civil(Some(2026), 3, 23, 13, 16), None, "2026-03-23T18:46:00");
        check(BERLIN, civil(Some(2026), 1, 1, 0, 30), None, "2025-12-31T23:30:00");
        check(BERLIN, civil(Some(2026), 7, 1, 12, 0), None, "2026-07-01T10:00:00");
    }

    #[test]
    fn the_year_is_the_latest_that_is_not_in_the_future() {
        check("utc", civil(None, 11, 23, 13, 59), None, "2026-11-23T13:59:00");
        check("utc", civil(None, 11, 24, 13, 0), None, "2026-11-24T13:00:00");
        check("utc", civil(None, 11, 25, 13, 0), None, "2025-11-25T13:00:00");
        check("utc", civil(None, 12, 31, 23, 59), None, "2025-12-31T23:59:00");
        check("utc", civil(None, 1, 1, 0, 0), None, "2026-01-01T00:00:00");
        check("utc", civil(None, 2, 29, 8, 0), None, "2024-02-29T08:00:00");
        // New Year's Eve read in the first minute of the year, both ways over the zone.
        let new_year = Timestamp::from_secs(1_767_225_600);
        for text in ["utc", "+02:00", "-08:00", BERLIN] {
            let t = zone(text).to_utc(civil(None, 12, 31, 23, 0), None, new_year);
            assert!(t.distance(new_year).as_secs() < 86_400, "{text} {t}");
        }
        // A day that no year has.
        check("utc", civil(None, 2, 30, 0, 0), None, "2026-11-23T14:00:00");
    }

    #[test]
    fn clocks_set_back_and_forward() {
        // 2026-10-25 03:00 CEST -> 02:00 CET; 01:00 UTC = 1,792,890,000.
        let twice = civil(Some(2026), 10, 25, 2, 30);
        let change = 1_792_890_000;
        check(BERLIN, twice, None, "2026-10-25T00:30:00");
        check(BERLIN, twice, Some(change - 1_860), "2026-10-25T00:30:00");
        check(BERLIN, twice, Some(change - 90), "2026-10-25T01:30:00");
        check(BERLIN, twice, Some(change + 1_700), "2026-10-25T01:30:00");
        check(BERLIN, civil(Some(2026), 10, 25, 3, 0), None, "2026-10-25T02:00:00");
        // 2026-03-29 02:00 CET -> 03:00 CEST: 02:30 never was.
        check(BERLIN, civil(Some(2026), 3, 29, 1, 59), None, "2026-03-29T00:59:00");
        check(BERLIN, civil(Some(2026), 3, 29, 2, 30), None, "2026-03-29T01:30:00");
        check(BERLIN, civil(Some(2026), 3, 29, 3, 0), None, "2026-03-29T01:00:00");
    }

    #[test]
    fn settings_read_back_and_refuse() {
        for text in ["local", "utc", "+02:00", "-05:30", BERLIN] {
            let setting = ZoneSetting::try_from(text.to_owned()).unwrap();
            assert_eq!(String::from(setting), text);
        }
        for text in ["", "+2", "+99:00", "+02:61", "Europe", "+0200x"] {
            assert!(ZoneSetting::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
