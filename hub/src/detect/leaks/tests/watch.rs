//! `off-hours` and `sensor-silent`.

use super::super::off_hours::{Hours, odd};
use super::*;

const MB: u64 = 1_000_000;

/// Busy from 7 to 22 on all of so many days, asleep else; judged at three at night.
fn sleeper(days: i64, night: u64) -> Hours {
    let hour_of = |ago: i64| (3 - ago).rem_euclid(24);
    (1..=days * 24)
        .map(|ago| (ago, if (7..22).contains(&hour_of(ago)) { 200 * MB } else { night }))
        .collect()
}

#[test]
fn busy_at_an_hour_of_sleep() {
    #[track_caller]
    fn check(bytes: u64, earlier: &Hours, expected: bool) {
        assert_eq!(odd(bytes, 1, earlier).is_some(), expected);
    }
    check(80 * MB, &sleeper(14, 0), true);
    // A pulse at night hides nothing, and is nothing.
    check(80 * MB, &sleeper(14, 300_000), true);
    check(MB, &sleeper(14, 0), false);
    // Too short a past; a device that is never asleep.
    check(80 * MB, &sleeper(5, 0), false);
    check(80 * MB, &sleeper(14, 150 * MB), false);
    // Once before, an hour later: the clock was changed, or it is a habit.
    let mut once = sleeper(14, 0);
    once.insert(4 * 24 - 1, 80 * MB);
    check(80 * MB, &once, false);
    check(80 * MB, &Hours::new(), false);
}

#[test]
fn weekends_are_judged_apart_where_there_are_enough() {
    // Asleep at three on weekdays, awake at weekends; four weeks; judged on a Tuesday and on a
    // Sunday (weekday 1 and 6).
    let day_of = |weekday: i64, ago: i64| (weekday - (ago + 20) / 24).rem_euclid(7);
    let with_weekends = |weekday: i64| -> Hours {
        let mut hours = sleeper(28, 0);
        for (ago, bytes) in &mut hours {
            if day_of(weekday, *ago) >= 5 {
                *bytes = 200 * MB;
            }
        }
        hours
    };
    assert!(odd(80 * MB, 1, &with_weekends(1)).is_some());
    assert!(odd(80 * MB, 6, &with_weekends(6)).is_none());
}

#[test]
fn off_hours_over_the_store() {
    let night = |home: &Home, day: i64| {
        // The last full hour: 13:00 to 14:00 of a device that is only there in the evening.
        home.talk(Talk {
            ago: day * DAY + 3_000,
            out: 60 * MB,
            inward: MB,
            ..Talk::to(4, "x.known.example", "192.0.2.90")
        });
    };
    let evenings = |home: &Home| {
        for day in 0..20 {
            for hour in [17, 18, 19] {
                let ago = day * DAY + hour * HOUR;
                home.talk(Talk {
                    ago,
                    inward: 50 * MB,
                    ..Talk::to(4, "x.known.example", "192.0.2.90")
                });
            }
        }
    };
    let home = Home::new();
    evenings(&home);
    night(&home, 0);
    let found = home.one("off-hours", "activity");
    assert!(found.why.contains("never busy on"), "{}", found.why);

    let home = Home::new();
    evenings(&home);
    (0..20).for_each(|day| night(&home, day));
    home.silent();
}

fn sensor(home: &Home, id: u8, seen: i64, sent: i64, pending: u64) {
    home.sql(&format!(
        "INSERT INTO sensors BY NAME SELECT {id} AS id, 'attic' AS name, 'x' AS token_hash,
             {} AS enrolled_at, {} AS last_seen, {} AS last_sent, {pending} AS pending;
         INSERT INTO ingest_cursor VALUES ({id}, 1, 9, 9, 0, {})",
        time(30 * DAY),
        time(seen),
        time(sent),
        time(seen)
    ));
}

#[test]
fn a_silent_sensor_is_named() {
    let home = Home::new();
    sensor(&home, 1, 2 * HOUR, 2 * HOUR, 0);
    let found = home.one("sensor-silent", "sensor attic");
    assert_eq!((found.client, evidence(&found, "silent_s")), (None, "7200"));
    assert!(found.why.contains("sensor attic has been silent for 2h 0m"), "{}", found.why);
    home.sql(&format!("UPDATE sensors SET revoked_at = {}", time(60)));
    home.silent();
}

#[test]
fn lags_gaps_and_wrong_clocks_are_told_and_a_healthy_sensor_is_not() {
    #[track_caller]
    fn check(change: &str, expected: &str) {
        let home = Home::new();
        sensor(&home, 1, 20, 20, 3);
        home.silent();
        home.sql(change);
        let findings = home.findings();
        assert!(findings.iter().any(|f| f.why.contains(expected)), "{findings:?}");
    }
    check("UPDATE sensors SET pending = 200000", "many events wait");
    check("UPDATE sensors SET last_sent = last_sent - INTERVAL 1 HOUR", "its clock is wrong");
    check(
        "UPDATE ingest_cursor SET updated = updated - INTERVAL 3 HOUR",
        "no event of it has come",
    );
    check(
        &format!(
            "INSERT INTO gaps BY NAME SELECT {} AS time, 1 AS sensor, 'conntrack' AS collector,
                 {} AS since, 'overrun' AS reason, 70 AS lost",
            time(100),
            time(160)
        ),
        "it lost events",
    );
    check("INSERT INTO sensor_collectors VALUES (1, 'dns', 'failed: no such file')", "not well");
}
