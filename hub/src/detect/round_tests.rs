//! Rounds over a real file, with events as sensors send them and a clock that is told what
//! time it is.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use agentmon_core::event::Body;
use agentmon_core::finding::Finding;
use agentmon_core::sample;
use agentmon_core::time::{Clock, SimClock};
use agentmon_core::wire::{self, Batch, Health};
use agentmon_core::{Event, Timestamp};
use agentmon_router::counters::Counters;
use duckdb::Connection;
use serde_json::Value;

use super::board::Board;
use super::round::{Rounds, marks_of};
use super::{Learnt, Windowed};
use crate::ingest::Incoming;
use crate::store::handle::Handle;
use crate::store::writer::Writer;
use crate::store::{Limits, StoreError};

const NOW: i64 = 1_795_444_327;
const HOUR: i64 = 3_600;

fn at(s: i64) -> Timestamp {
    Timestamp::from_secs(NOW + s)
}

fn dns(s: i64, client: &str, name: &str) -> Event {
    Event { time: at(s), body: Body::Dns(sample::dns(client, name, &["203.0.113.1"])) }
}

/// A hub without a network: store, clock, rounds when told to.
pub(super) struct Hub {
    pub(super) store: Handle,
    thread: Option<JoinHandle<Result<(), StoreError>>>,
    pub(super) clock: Arc<SimClock>,
    counters: Counters,
    pub(super) rounds: Rounds,
    board: Arc<Board>,
    seq: u64,
}

impl Hub {
    pub(super) fn open(dir: &Path, detectors: Vec<Box<dyn Windowed>>) -> Self {
        let clock = Arc::new(SimClock::at(at(0)));
        let counters = Counters::default();
        let limits = Limits::default();
        let writer = Writer::open(dir, &limits, counters.clone(), clock.clone()).unwrap();
        let (store, thread) = Handle::start(writer).unwrap();
        let board = Arc::new(Board::default());
        let mut rounds =
            Rounds::new(store.clone(), clock.clone(), counters.clone(), Arc::clone(&board));
        rounds.set(detectors, 60);
        Self { store, thread: Some(thread), clock, counters, rounds, board, seq: 1 }
    }
    /// Closes the store; the next one begins where this ended.
    pub(super) fn close(mut self) -> u64 {
        self.store.stop();
        self.thread.take().unwrap().join().unwrap().unwrap();
        self.seq
    }
    pub(super) fn send(&mut self, events: &[Event]) {
        let bytes = events.iter().map(wire::encode_event).collect();
        let sent = self.clock.wall();
        let health = Health::default();
        let batch = Batch { epoch: 1, first_seq: self.seq, events: bytes, health, sent };
        self.seq += u64::try_from(events.len()).unwrap();
        self.store.store_blocking(Incoming::from_batch(&batch, 1, sent, None)).unwrap();
    }
    pub(super) fn wait(&self, seconds: i64) {
        self.clock.advance(Duration::from_secs(u64::try_from(seconds).unwrap()));
    }
    pub(super) fn turn(&mut self) {
        self.rounds.turn().unwrap();
    }
    pub(super) fn text(&self, sql: &str) -> String {
        let reader = self.store.readers().get().unwrap();
        reader
            .query_row(sql, [], |row| row.get::<_, Option<String>>(0))
            .unwrap()
            .unwrap_or_default()
    }
    pub(super) fn board(&self, pointer: &str) -> Value {
        self.board.json().pointer(pointer).cloned().unwrap()
    }
}

/// Notes the moments it is asked about, and finds what it is told to.
#[derive(Clone, Default)]
struct Spy {
    moments: Arc<Mutex<Vec<i64>>>,
    fails: Arc<AtomicUsize>,
    score: Arc<Mutex<Option<f64>>>,
    learns: bool,
}

impl Spy {
    fn seen(&self) -> Vec<i64> {
        std::mem::take(&mut self.moments.lock().unwrap())
    }
}

impl Windowed for Spy {
    fn name(&self) -> &'static str {
        "spy"
    }
    fn every(&self) -> Duration {
        Duration::from_secs(600)
    }
    fn reach(&self) -> Duration {
        Duration::from_secs(2 * 3_600)
    }
    fn run(&mut self, _: &Connection, now: Timestamp) -> Result<Vec<Finding>, StoreError> {
        self.moments.lock().unwrap().push(now.secs() - NOW);
        match self.fails.load(Ordering::SeqCst) {
            0 => {}
            1 => return Err(StoreError::Db("made to fail".into())),
            _ => panic!("made to panic"),
        }
        let found = self.score.lock().unwrap().map(|score| Finding {
            rule: "spy".into(),
            subject: "s.example".into(),
            client: Some(sample::ip("192.0.2.9")),
            mac: None,
            score,
            why: format!("score {score}"),
            evidence: vec![],
        });
        Ok(found.into_iter().collect())
    }
    fn learn(&mut self) -> Option<Learnt> {
        self.learns.then(|| {
            Box::new(|c: &Connection| Ok(c.execute_batch("INSERT INTO nowhere VALUES (1)")?))
                as Learnt
        })
    }
}

fn spied(dir: &Path) -> (Hub, Spy) {
    let spy = Spy::default();
    (Hub::open(dir, vec![Box::new(spy.clone())]), spy)
}

#[test]
fn a_round_without_new_events_does_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (mut hub, spy) = spied(dir.path());
    hub.turn();
    assert!(spy.seen().is_empty(), "an empty store");
    hub.send(&[dns(-60, "192.0.2.1", "a.example")]);
    hub.turn();
    assert_eq!(spy.seen(), [-60]);
    hub.wait(HOUR);
    hub.turn();
    assert!(spy.seen().is_empty(), "time alone is no news");
    hub.send(&[dns(HOUR - 5, "192.0.2.1", "a.example")]);
    hub.turn();
    hub.turn();
    assert_eq!(spy.seen(), [HOUR - 5]);
    assert_eq!(hub.board("/detectors/spy/runs"), 2);
    assert_eq!(hub.board("/rounds"), 5);
}

#[test]
fn a_detector_judges_no_more_often_than_it_wants() {
    let dir = tempfile::tempdir().unwrap();
    let (mut hub, spy) = spied(dir.path());
    for minute in 0..30 {
        hub.send(&[dns(minute * 60, "192.0.2.1", "a.example")]);
        hub.turn();
        hub.wait(60);
    }
    assert_eq!(spy.seen(), [0, 600, 1200]);
    // The last events are judged though nothing newer ever comes.
    hub.wait(600);
    hub.turn();
    assert_eq!(spy.seen(), [29 * 60]);
}

#[test]
fn what_a_sensor_dates_ahead_of_the_clock_moves_nothing_forward() {
    let dir = tempfile::tempdir().unwrap();
    let (mut hub, spy) = spied(dir.path());
    hub.send(&[dns(250, "192.0.2.1", "a.example")]);
    hub.turn();
    assert_eq!(spy.seen(), [0]);
}

#[test]
fn a_clock_that_jumps_back_and_forth_leaves_nothing_unjudged() {
    let dir = tempfile::tempdir().unwrap();
    let (mut hub, spy) = spied(dir.path());
    hub.send(&[dns(0, "192.0.2.1", "a.example")]);
    hub.turn();
    hub.clock.set_wall(at(-9 * 24 * HOUR));
    hub.send(&[dns(-9 * 24 * HOUR, "192.0.2.1", "b.example")]);
    hub.turn();
    assert_eq!(spy.seen(), [0], "not due by either clock");
    hub.wait(600);
    hub.turn();
    assert_eq!(spy.seen(), [-9 * 24 * HOUR + 600]);
    hub.clock.set_wall(at(2 * HOUR));
    hub.send(&[dns(2 * HOUR, "192.0.2.1", "c.example")]);
    hub.turn();
    assert_eq!(spy.seen(), [2 * HOUR], "one round for the whole jump");
}

#[test]
fn a_router_back_after_three_hours_is_judged() {
    let dir = tempfile::tempdir().unwrap();
    let (mut hub, spy) = spied(dir.path());
    for hour in 0..6 {
        hub.send(&[dns(hour * HOUR, "192.0.2.1", "a.example")]);
        hub.turn();
        hub.wait(HOUR);
    }
    spy.seen();
    // NOW is 32:07 past the hour, so the begin of an hour is 1927 s before.
    let begin = |hour: i64| hour * HOUR - NOW.rem_euclid(HOUR);
    let late: Vec<_> = (0..9).map(|n| dns(HOUR + n * 1_200, "192.0.2.7", "late.example")).collect();
    hub.send(&late);
    hub.send(&[dns(6 * HOUR, "192.0.2.1", "a.example")]);
    hub.turn();
    let seen = spy.seen();
    assert_eq!(seen, [begin(3), begin(5), 6 * HOUR], "each late hour within one window");
    hub.turn();
    assert!(spy.seen().is_empty());
}

#[test]
fn after_downtime_the_present_is_judged_once() {
    let dir = tempfile::tempdir().unwrap();
    let (mut hub, spy) = spied(dir.path());
    hub.send(&[dns(0, "192.0.2.1", "a.example")]);
    hub.turn();
    let seq = hub.close();
    let (mut hub, again) = spied(dir.path());
    hub.seq = seq;
    hub.wait(200 * HOUR);
    hub.send(&[dns(200 * HOUR, "192.0.2.1", "a.example")]);
    hub.turn();
    assert_eq!((spy.seen(), again.seen()), (vec![0], vec![200 * HOUR]));
    // A restart by itself repeats nothing.
    let seq = hub.close();
    let (mut hub, third) = spied(dir.path());
    hub.seq = seq;
    hub.wait(201 * HOUR);
    hub.turn();
    assert!(third.seen().is_empty());
}

#[test]
fn a_flood_of_late_hours_is_worked_off_round_by_round() {
    let dir = tempfile::tempdir().unwrap();
    let (mut hub, spy) = spied(dir.path());
    hub.send(&[dns(0, "192.0.2.1", "a.example")]);
    hub.turn();
    spy.seen();
    let past: Vec<_> = (1..=100).map(|n| dns(-n * HOUR, "192.0.2.1", "old.example")).collect();
    hub.send(&past);
    hub.wait(600);
    let mut seen = Vec::new();
    for _ in 0..4 {
        hub.turn();
        let now = spy.seen();
        assert!(now.len() <= 24);
        seen.extend(now);
    }
    assert!(seen.is_sorted(), "{seen:?}");
    assert_eq!(seen.len(), 51, "99 hours in windows of two, and the present");
    assert_eq!(marks_of(&hub.store)["spy"].judged, at(0));
}

#[test]
fn the_same_finding_is_one_alert_and_is_told_again_after_an_hour_or_when_worse() {
    let dir = tempfile::tempdir().unwrap();
    let (mut hub, spy) = spied(dir.path());
    let mut turn = |score: f64, seconds: i64| {
        *spy.score.lock().unwrap() = Some(score);
        let now = hub.clock.wall().secs() - NOW;
        hub.send(&[dns(now, "192.0.2.9", "a.example")]);
        hub.turn();
        let said = hub.text(
            "SELECT concat((SELECT count(*) FROM findings WHERE sensor = 0), ' ', count(*), ' ',
                 max(score), ' ', any_value(status)) FROM alerts",
        );
        hub.wait(seconds);
        said
    };
    assert_eq!(turn(0.5, 600), "1 1 0.5 open");
    assert_eq!(turn(0.5, 600), "1 1 0.5 open");
    assert_eq!(turn(0.7, 600), "2 1 0.7 open", "worse");
    assert_eq!(turn(0.6, 2 * 3_600), "2 1 0.7 open");
    assert_eq!(turn(0.6, 600), "3 1 0.7 open");
    assert_eq!(hub.board("/findings"), 3);
}

#[test]
fn a_detector_that_fails_stops_no_other_and_comes_again() {
    let dir = tempfile::tempdir().unwrap();
    let (bad, good) = (Spy::default(), Spy::default());
    struct Other(Spy);
    impl Windowed for Other {
        fn name(&self) -> &'static str {
            "other"
        }
        fn every(&self) -> Duration {
            self.0.every()
        }
        fn run(&mut self, db: &Connection, now: Timestamp) -> Result<Vec<Finding>, StoreError> {
            self.0.run(db, now)
        }
    }
    let detectors: Vec<Box<dyn Windowed>> =
        vec![Box::new(bad.clone()), Box::new(Other(good.clone()))];
    let mut hub = Hub::open(dir.path(), detectors);
    for (round, how) in [(1, 1), (2, 2)] {
        bad.fails.store(how, Ordering::SeqCst);
        hub.wait(600);
        hub.send(&[dns(round * 600, "192.0.2.1", "a.example")]);
        hub.turn();
        assert_eq!(good.seen(), [round * 600]);
        assert_eq!(hub.counters.counter("detect.spy.errors").get(), u64::try_from(round).unwrap());
    }
    assert_eq!(hub.board("/detectors/spy/errors"), 2);
    assert!(hub.board("/detectors/spy/error").as_str().unwrap().contains("panicked"));
    assert!(!marks_of(&hub.store).contains_key("spy"), "nothing is judged that failed");
    bad.fails.store(0, Ordering::SeqCst);
    bad.seen();
    hub.turn();
    assert!(bad.seen().is_empty(), "it sits out a round after the second failure");
    hub.turn();
    assert_eq!(bad.seen(), [1200]);
    assert_eq!(hub.board("/detectors/spy/error"), Value::Null);
}

#[test]
fn what_cannot_be_learnt_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let spy = Spy { learns: true, ..Spy::default() };
    *spy.score.lock().unwrap() = Some(0.5);
    let mut hub = Hub::open(dir.path(), vec![Box::new(spy)]);
    hub.send(&[dns(0, "192.0.2.1", "a.example")]);
    hub.turn();
    assert_eq!(hub.text("SELECT concat((SELECT count(*) FROM findings), (SELECT count(*) FROM alerts), (SELECT count(*) FROM detect_marks))"), "000");
    assert_eq!(hub.board("/detectors/spy/errors"), 1);
    hub.send(&[dns(1, "192.0.2.1", "b.example")]);
    assert_eq!(
        hub.text("SELECT string_agg(name, ' ' ORDER BY time) FROM dns"),
        "a.example b.example"
    );
}

#[test]
fn a_run_that_takes_too_long_is_stopped() {
    struct Slow;
    impl Windowed for Slow {
        fn name(&self) -> &'static str {
            "slow"
        }
        fn every(&self) -> Duration {
            Duration::from_secs(60)
        }
        fn run(&mut self, db: &Connection, _: Timestamp) -> Result<Vec<Finding>, StoreError> {
            let sql = "SELECT count(*) FROM range(100000000) a, range(100000) b
                       WHERE a.range % 7 = b.range % 11";
            let _: i64 = db.query_row(sql, [], |row| row.get(0))?;
            Ok(vec![])
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let mut hub = Hub::open(dir.path(), vec![]);
    hub.rounds.set(vec![Box::new(Slow)], 1);
    hub.send(&[dns(0, "192.0.2.1", "a.example")]);
    hub.turn();
    assert!(hub.board("/detectors/slow/error").as_str().unwrap().contains("longer than 1 s"));
}
