//! The past again over a real store: two weeks of a camera as rounds judged them, then other
//! thresholds over the same days.

use std::time::Duration;

use super::backtest::{BacktestError, Row, Wish, run};
use super::baseline::tests::{CAMERA, DAY, HOUR, MIB, To, asks, at, camera, goes};
use super::round_tests::Hub;
use super::{Config, registry};
use crate::control::{Reply, Request};
use crate::direct;
use crate::store::{Limits, open_read, open_write};

const ADDRESS: &str = "192.168.1.7";

fn config() -> Config {
    let mut config = Config::default();
    config.baseline.timezone = "utc".into();
    // It would hear the camera, and takes long.
    config.beacon.enabled = false;
    config
}

fn upload(s: i64, name: &str, up: u64) -> agentmon_core::Event {
    let to = To { address: ADDRESS, dst: "203.0.113.99:443", name: Some(name), up, lasts: 600 };
    goes(s, &to)
}

/// Eleven days as always, an upload on each of two more, a name of its own on the first, and a
/// last day as always.
fn two_weeks(dir: &std::path::Path) {
    // The days to learn from are judged as one, as after an import.
    let mut hub = Hub::open(dir, Vec::new());
    hub.clock.set_wall(at(0));
    for day in 0..11 {
        camera(&mut hub, day, ADDRESS, vec![]);
    }
    hub.rounds.set(registry(&config()), 60);
    let s = 11 * DAY + 10 * HOUR;
    let first =
        vec![asks(s, ADDRESS, "www.fresh.example"), upload(s + 900, "a.small.example", 60 * MIB)];
    camera(&mut hub, 11, ADDRESS, first);
    camera(&mut hub, 12, ADDRESS, vec![upload(s + DAY, "b.large.example", 900 * MIB)]);
    camera(&mut hub, 13, ADDRESS, vec![]);
    // What is known by now of that name must not count for then.
    let known = hub
        .text("SELECT count(*)::VARCHAR FROM habits WHERE what = 'fresh.example' AND who <> '*'");
    assert_eq!(known, "1");
    hub.close();
}

fn wish(set: &[&str]) -> Wish {
    Wish {
        since: at(11 * DAY),
        until: at(14 * DAY),
        // Among them all moments at which rounds ran.
        step: Duration::from_secs(3 * 3_600),
        set: set.iter().map(|line| (*line).to_owned()).collect(),
        again: false,
    }
}

/// `change rule subject`, in order.
fn changes(rows: &[Row]) -> Vec<String> {
    let text = |row: &Row| format!("{} {} {}", row.change(), row.rule, row.subject);
    rows.iter().map(text).collect()
}

#[test]
fn the_past_is_judged_anew_with_what_was_known_then() {
    let dir = tempfile::tempdir().unwrap();
    two_weeks(dir.path());
    let db = open_read(dir.path(), &Limits::default()).unwrap();
    let try_with = |set: &[&str]| run(&db, &config(), &wish(set)).unwrap();
    let names = |rows: &[Row], change: &str| -> Vec<String> {
        changes(rows).into_iter().filter(|row| row.starts_with(change)).collect()
    };

    // The same settings find the same again: nothing that was learnt later is known.
    let same = try_with(&["baseline.volume_z=6", "leaks.burst_bytes=100000000"]);
    assert_eq!(names(&same, "gained").len() + names(&same, "lost").len(), 0, "{same:#?}");
    for told in ["new-domain fresh.example", "exfil large.example", "volume-anomaly upload"] {
        assert!(names(&same, "same").contains(&format!("same {told}")), "{told}: {same:#?}");
    }
    let device = CAMERA.to_string();
    for row in &same {
        let (was, now) = (row.was.as_ref().unwrap(), row.now.as_ref().unwrap());
        assert_eq!((was.mac.as_ref(), now.mac.as_ref()), (Some(&device), Some(&device)));
        assert_eq!((was.score, was.why.as_str()), (now.score, now.why.as_str()), "{}", row.rule);
    }

    // A lower threshold gains, a higher one loses, and of other sections nothing is said.
    let low = try_with(&["detect.leaks.burst_bytes=20000000"]);
    assert_eq!(names(&low, "gained"), ["gained exfil small.example"], "{low:#?}");
    assert!(names(&low, "lost").is_empty() && low.iter().all(|row| row.rule != "new-domain"));
    let high = try_with(&["leaks.burst_bytes=2000000000", "leaks.drip_bytes=2000000000"]);
    assert_eq!(names(&high, "lost"), ["lost exfil large.example"], "{high:#?}");
    assert!(names(&high, "gained").is_empty());

    // Longer to learn than there was: all that rests on it is lost.
    let slow = try_with(&["baseline.learning_days=30"]);
    assert!(names(&slow, "same").is_empty() && !names(&slow, "lost").is_empty(), "{slow:#?}");
    let off = try_with(&["baseline.enabled=false"]);
    assert_eq!(names(&off, "lost"), names(&slow, "lost"));
    drop(db);
    where_nothing_had_been_found(dir.path());
}

/// As after an import: rounds have never run, only settings can be compared.
fn where_nothing_had_been_found(dir: &std::path::Path) {
    let db = open_write(dir, &Limits::default()).unwrap();
    assert!(db.execute("DELETE FROM findings", []).unwrap() > 0);
    drop(db);
    let set = "leaks.burst_bytes=20000000";
    // Through the same door as the command, read-only: the store is as it was.
    let before = size(dir);
    let ask = |again| {
        let request = Request::Backtest {
            set: vec![set.to_owned()],
            since_us: Some(at(11 * DAY).micros()),
            until_us: None,
            step_s: 4 * 3_600,
            again,
            timeout_ms: 600_000,
            detect: Some(Box::new(config())),
        };
        let mut rows = Vec::new();
        direct::answer(dir, &request, &mut |reply| {
            if let Reply::Row { values } = reply {
                let text = |n: usize| values[n].as_str().unwrap_or_default();
                rows.push(format!("{} {} {}", text(0), text(1), text(2)));
            }
            Ok(())
        })
        .unwrap();
        rows
    };
    let stored = ask(false);
    assert!(stored.iter().all(|row| row.starts_with("gained")), "{stored:#?}");
    let again = ask(true);
    assert!(again.contains(&"gained exfil small.example".to_owned()), "{again:?}");
    assert!(again.contains(&"same exfil large.example".to_owned()), "{again:?}");
    assert_eq!(size(dir), before);
}

fn size(dir: &std::path::Path) -> Vec<(std::ffi::OsString, u64)> {
    let entries = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    let mut all: Vec<_> = entries
        .filter(|e| e.file_type().unwrap().is_file())
        .map(|e| (e.file_name(), e.metadata().unwrap().len()))
        .collect();
    all.sort();
    all
}

#[test]
fn too_much_and_nothing_are_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    crate::store::open_write(dir.path(), &Limits::default()).unwrap();
    let db = open_read(dir.path(), &Limits::default()).unwrap();
    let refused = |wish: &Wish| match run(&db, &config(), wish) {
        Err(BacktestError::Wish(why)) => why,
        other => panic!("{other:?}"),
    };
    let none = Wish { until: at(11 * DAY), ..wish(&[]) };
    assert!(refused(&none).contains("--since lies after --until"));
    let much = Wish { since: at(-4_000 * DAY), ..wish(&[]) };
    assert!(refused(&much).contains("a longer --step"), "{}", refused(&much));
    let request = Request::Backtest {
        set: vec![],
        since_us: None,
        until_us: None,
        step_s: 3_600,
        again: false,
        timeout_ms: 1_000,
        detect: None,
    };
    drop(db);
    let error = direct::answer(dir.path(), &request, &mut |_| Ok(())).unwrap_err();
    assert!(error.to_string().contains("the store has no events"), "{error}");
}
