//! Points in time as a person types them, and as a table shows them.
//!
//! In: `--since` and `--until` texts, the current time and the local zone. Out: a
//! [`Timestamp`]. Pure: now and zone are arguments. Dates without a zone are local;
//! machine output is always RFC 3339 in UTC ([`Timestamp`]'s own form).

use std::time::Duration;

use agentmon_core::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// Longest distance into the past that is taken: 100 years.
const AGO_SECONDS_MAX: u64 = 100 * 366 * 86_400;

/// What `--since` and `--until` take, for messages.
pub(crate) const FORMS: &str = "want an age (90s, 15m, 24h, 7d, 2w, 1h30m), a local date or time \
     (2026-11-01, \"2026-11-01 14:30\", 14:30, today, yesterday), or RFC 3339 \
     (2026-11-01T13:30:00Z)";

/// Reads a point in time.
///
/// # Errors
/// A sentence that says what is allowed.
pub(crate) fn parse(text: &str, now: Timestamp, zone: &TimeZone) -> Result<Timestamp, String> {
    let text = text.trim();
    read(text, now, zone).ok_or_else(|| format!("`{text}` is no point in time: {FORMS}"))
}

fn read(text: &str, now: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let here = zoned(now, zone);
    match text {
        "now" => return Some(now),
        "today" => return here.start_of_day().ok().map(|z| from_jiff(z.timestamp())),
        "yesterday" => {
            return here.yesterday().ok()?.start_of_day().ok().map(|z| from_jiff(z.timestamp()));
        }
        _ => {}
    }
    if let Some(age) = duration(text) {
        return Some(now.minus(age));
    }
    if let Some(seconds) = text.strip_prefix('@') {
        return Some(Timestamp::from_secs(seconds.parse().ok()?));
    }
    if let Ok(instant) = text.parse::<jiff::Timestamp>() {
        return Some(from_jiff(instant));
    }
    if let Ok(time) = text.parse::<jiff::civil::Time>()
        && text.contains(':')
        && !text.contains('-')
    {
        return local(here.datetime().date().to_datetime(time), zone);
    }
    local(text.parse::<DateTime>().ok()?, zone)
}

/// A local date and time; in a gap or fold of the zone the usual ("compatible") choice.
fn local(civil: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    zone.to_timestamp(civil).ok().map(from_jiff)
}

/// Reads an age: numbers with units `s m h d w`, as `90s`, `1h30m`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let mut seconds: u64 = 0;
    let mut digits = String::new();
    for c in text.chars() {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        let unit = match c {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            'w' => 604_800,
            _ => return None,
        };
        let amount: u64 = digits.parse().ok()?;
        digits.clear();
        seconds = seconds.checked_add(amount.checked_mul(unit)?)?;
    }
    (digits.is_empty() && !text.is_empty() && seconds <= AGO_SECONDS_MAX)
        .then(|| Duration::from_secs(seconds))
}

/// Shown in a table: the time of day for today, else month, day and time; with the year
/// where it is not this one.
pub(crate) fn short(time: Timestamp, now: Timestamp, zone: &TimeZone) -> String {
    let (t, n) = (zoned(time, zone), zoned(now, zone));
    let pattern = if t.date() == n.date() {
        "%H:%M:%S"
    } else if t.year() == n.year() {
        "%b %d %H:%M:%S"
    } else {
        "%Y-%m-%d %H:%M:%S"
    };
    t.strftime(pattern).to_string()
}

/// The time of day alone, in a sentence that has its date elsewhere.
pub(crate) fn clock(time: Timestamp, zone: &TimeZone) -> String {
    zoned(time, zone).strftime("%H:%M:%S").to_string()
}

/// Shown in a detail view: date, time and zone.
pub(crate) fn long(time: Timestamp, zone: &TimeZone) -> String {
    zoned(time, zone).strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
}

/// As a DuckDB TIMESTAMP parameter: UTC, microseconds, no zone.
pub(crate) fn sql(time: Timestamp) -> String {
    time.to_string().trim_end_matches('Z').replace('T', " ")
}

/// Reads a time out of an answer of the store: RFC 3339 UTC.
pub(crate) fn from_answer(text: &str) -> Option<Timestamp> {
    text.parse::<jiff::Timestamp>().ok().map(from_jiff)
}

fn zoned(time: Timestamp, zone: &TimeZone) -> jiff::ZonedDateTime {
    let instant = jiff::Timestamp::from_nanosecond(i128::from(time.nanos()))
        .expect("every i64 of nanoseconds (1677 to 2262) lies within jiff's years -9999 to 9999");
    instant.to_zoned_datetime(zone.clone())
}

fn from_jiff(instant: jiff::Timestamp) -> Timestamp {
    // Beyond 1677 to 2262 the nearest end: such a bound still means "everything".
    let ns = instant.as_nanosecond();
    let end = if ns < 0 { i64::MIN } else { i64::MAX };
    Timestamp::from_nanos(i64::try_from(ns).unwrap_or(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-23T14:32:07Z.
    const NOW: Timestamp = Timestamp::from_secs(1_795_444_327);

    fn berlin() -> TimeZone {
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap()
    }

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let got = parse(text, NOW, &berlin()).unwrap();
        assert_eq!(got.to_string().replace(".000000Z", "Z"), expected);
    }

    #[test]
    fn every_form_of_a_point_in_time() {
        check("now", "2026-11-23T14:32:07Z");
        check("24h", "2026-11-22T14:32:07Z");
        check("90s", "2026-11-23T14:30:37Z");
        check("15m", "2026-11-23T14:17:07Z");
        check("7d", "2026-11-16T14:32:07Z");
        check("2w", "2026-11-09T14:32:07Z");
        check("1h30m", "2026-11-23T13:02:07Z");
        check("0s", "2026-11-23T14:32:07Z");
        check("today", "2026-11-22T23:00:00Z");
        check("yesterday", "2026-11-21T23:00:00Z");
        check("2026-11-01", "2026-10-31T23:00:00Z");
        check("2026-07-01", "2026-06-30T22:00:00Z");
        check("2026-11-01 14:30", "2026-11-01T13:30:00Z");
        check("2026-11-01T14:30:15", "2026-11-01T13:30:15Z");
        check("14:30", "2026-11-23T13:30:00Z");
        check("2026-11-01T13:30:00Z", "2026-11-01T13:30:00Z");
        check("2026-11-01T13:30:00+02:00", "2026-11-01T11:30:00Z");
        check("@1795444327", "2026-11-23T14:32:07Z");
        // The hour that does not exist when summer time begins.
        check("2026-03-29 02:30", "2026-03-29T01:30:00Z");
    }

    #[test]
    fn anything_else_is_refused_with_the_forms() {
        for text in ["", "h", "24", "24x", "h24", "-24h", "1.5h", "2026-13-01", "noon", "@", "@x"] {
            let error = parse(text, NOW, &berlin()).unwrap_err();
            assert!(error.contains("24h") && error.contains("RFC 3339"), "{text}: {error}");
        }
        for text in ["99999999999999999999h", "36601d", "18446744073709551615w"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn tables_show_no_more_of_a_time_than_needed() {
        #[track_caller]
        fn check(secs: i64, expected: &str) {
            assert_eq!(short(Timestamp::from_secs(secs), NOW, &berlin()), expected);
        }
        check(1_795_444_327, "15:32:07");
        check(1_795_388_399, "Nov 22 23:59:59");
        check(0, "1970-01-01 01:00:00");
        assert_eq!(long(NOW, &berlin()), "2026-11-23 15:32:07 CET");
        assert_eq!(sql(NOW), "2026-11-23 14:32:07.000000");
    }

    proptest::proptest! {
        #[test]
        fn any_text_never_panics(text in ".{0,40}") {
            drop(parse(&text, NOW, &berlin()));
        }
        #[test]
        fn any_time_is_shown(ns in proptest::num::i64::ANY) {
            let time = Timestamp::from_nanos(ns);
            proptest::prop_assert!(!short(time, NOW, &berlin()).is_empty());
            proptest::prop_assert!(!long(time, &berlin()).is_empty());
        }
    }
}
