//! The forwarder, step by step with a simulated clock, against a TLS server.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use agentmon_core::Timestamp;
use agentmon_core::time::SimClock;

use super::*;
use crate::ring;
use crate::testhub::{Asked, Say, TestHub};

struct Bench {
    forwarder: Forwarder,
    ring: Arc<Ring>,
    clock: Arc<SimClock>,
    counters: Counters,
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(SimClock::at(Timestamp::from_secs(1_795_000_000)));
        let counters = Counters::default();
        let config = ring::Config { path: dir.path().join("ring.db"), ..ring::Config::default() };
        let ring = Arc::new(Ring::open(&config, &counters, clock.clone()).unwrap());
        let config = Config { identity: dir.path().join("identity.json"), ..Config::default() };
        let parts = Parts {
            ring: Arc::clone(&ring),
            wake: Arc::default(),
            stop: Stop::default(),
            clock: clock.clone(),
            counters: counters.clone(),
            collectors: Arc::new(|| vec![("replay".into(), "ok".into())]),
        };
        let forwarder = Forwarder::new(parts, Shared::new(config));
        Self { forwarder, ring, clock, counters, dir }
    }

    fn joined(hub: &TestHub) -> Self {
        let bench = Self::new();
        bench.join(hub, "secret");
        bench
    }

    fn join(&self, hub: &TestHub, token: &str) {
        join::save(&self.dir.path().join("identity.json"), &hub.join(token)).unwrap();
    }

    fn append(&self, n: u32) {
        let events: Vec<_> = (0..n).map(|i| i.to_le_bytes().to_vec()).collect();
        self.ring.append(&events, &[]).unwrap();
    }

    /// Steps until there is nothing to do for a while; returns how long.
    fn settle(&mut self) -> Duration {
        for _ in 0..100 {
            let pause = self.forwarder.step();
            if !pause.is_zero() {
                return pause;
            }
        }
        panic!("never at rest");
    }

    fn status(&self) -> ForwardStatus {
        self.forwarder.shared.status(self.clock.mono())
    }

    #[track_caller]
    fn state_says(&self, parts: &[&str]) {
        let state = self.status().state;
        assert!(parts.iter().all(|part| state.contains(part)), "{state}");
    }

    /// Nothing was lost or deleted: as many wait as were appended.
    #[track_caller]
    fn still_waiting(&self, n: u64) {
        let status = self.ring.status();
        assert_eq!((status.pending, status.acked, status.conserves()), (n, 0, true));
    }
}

fn good(asked: &Asked) -> Say {
    Say::acked(&asked.batch())
}

/// Numbers of the events a hub got, batch by batch.
fn got(hub: &TestHub) -> Vec<(u64, u64)> {
    let batches = hub.asked().into_iter().map(|a| a.batch());
    batches.filter_map(|b| b.last_seq().map(|last| (b.first_seq, last))).collect()
}

#[test]
fn everything_arrives_once_with_the_sensors_health() {
    let hub = TestHub::start(good);
    let mut bench = Bench::joined(&hub);
    bench.append(12_000);
    bench.settle();
    assert_eq!(got(&hub), [(1, 5_000), (5_001, 10_000), (10_001, 12_000)]);
    let first = hub.asked().remove(0);
    assert_eq!((first.method.as_str(), first.path.as_str()), ("POST", "/v1/ingest"));
    assert_eq!(first.authorization, "Bearer secret");
    assert_eq!(first.content_type, wire::CONTENT_TYPE);
    let batch = first.batch();
    assert_eq!(batch.events.get(7), Some(&7u32.to_le_bytes().to_vec()));
    assert_eq!((batch.health.pending, batch.sent), (7_000, bench.clock.wall()));
    assert_eq!(batch.health.collectors, [("replay".to_owned(), "ok".to_owned())]);
    assert!(batch.health.counters.contains(&("accepted".to_owned(), 12_000)));
    let status = bench.ring.status();
    assert_eq!((status.pending, status.acked), (0, 12_000));
    assert_eq!(bench.counters.snapshot()["forward.events"], 12_000);
    assert!(bench.status().connected);
}

#[test]
fn an_idle_sensor_reports_its_health() {
    let hub = TestHub::start(good);
    let mut bench = Bench::joined(&hub);
    let pause = bench.settle();
    assert_eq!(pause, Duration::from_secs(30));
    bench.clock.advance(Duration::from_secs(29));
    bench.settle();
    assert_eq!(hub.asked().len(), 1);
    bench.clock.advance(Duration::from_secs(1));
    bench.settle();
    let asked = hub.asked();
    assert_eq!(asked.len(), 2);
    assert!(asked.iter().all(|a| a.batch().events.is_empty()));
    assert_eq!(bench.status().last_ack_seconds, Some(0));
}

#[test]
fn the_last_word_of_an_orderly_stop_is_how_things_stand() {
    let hub = TestHub::start(good);
    let mut bench = Bench::joined(&hub);
    bench.settle();
    bench.append(7);
    bench.forwarder.parts.stop.stop();
    bench.forwarder.parts.collectors = Arc::new(|| panic!("they are gone by now"));
    bench.forwarder.run();
    let batches: Vec<_> = hub.asked().iter().map(Asked::batch).collect();
    assert_eq!(batches.iter().map(|b| b.events.len()).collect::<Vec<_>>(), [0, 7, 0]);
    let last = &batches[2].health;
    assert_eq!((last.pending, last.collectors.len()), (0, 1));
    assert_eq!(batches[2].health.ring_bytes, bench.ring.status().bytes);
}

#[test]
fn an_orderly_stop_without_a_hub_waits_for_nothing() {
    let mut bench = Bench::new();
    bench.append(7);
    bench.forwarder.parts.stop.stop();
    bench.forwarder.run();
    bench.still_waiting(7);
}

#[test]
fn only_what_was_acknowledged_is_deleted() {
    let mut first = true;
    let hub = TestHub::start(move |asked| {
        let batch = asked.batch();
        if std::mem::take(&mut first) { Say::acked_to(batch.epoch, 4) } else { Say::acked(&batch) }
    });
    let mut bench = Bench::joined(&hub);
    bench.append(10);
    bench.settle();
    assert_eq!(got(&hub), [(1, 10), (5, 10)]);
    assert_eq!(bench.ring.status().acked, 10);
}

#[test]
fn a_lost_answer_means_the_same_batch_again() {
    let mut first = true;
    let hub = TestHub::start(
        move |asked| {
            if std::mem::take(&mut first) { Say::HangUp } else { good(asked) }
        },
    );
    let mut bench = Bench::joined(&hub);
    bench.append(10);
    let pause = bench.settle();
    assert!(pause <= Duration::from_secs(1), "{pause:?}");
    bench.still_waiting(10);
    bench.clock.advance(pause);
    bench.settle();
    let asked = hub.asked();
    let identity = |i: usize| {
        let batch = asked.get(i).unwrap().batch();
        (batch.epoch, batch.first_seq, batch.events)
    };
    // In between the hub is asked how far it got; this one does not say.
    assert_eq!(asked.get(1).unwrap().batch().events.len(), 0);
    assert_eq!(identity(0), identity(2));
    assert_eq!((asked.len(), bench.ring.status().acked), (3, 10));
}

#[test]
fn a_hub_that_says_how_far_it_got_is_not_sent_the_batch_again() {
    let mut taken = None;
    let hub = TestHub::start(move |asked| {
        let batch = asked.batch();
        match (batch.last_seq(), taken) {
            // Stored, and the answer lost.
            (Some(last), None) => {
                taken = Some(last);
                Say::HangUp
            }
            (last, cursor) => {
                let cursor = last.max(cursor).unwrap();
                let acked = last.unwrap_or(batch.first_seq - 1);
                let (epoch, start) = (batch.epoch, "{\"epoch\":");
                Say::Http(
                    200,
                    "",
                    format!("{start}{epoch},\"acked\":{acked},\"cursor\":{cursor}}}"),
                )
            }
        }
    });
    let mut bench = Bench::joined(&hub);
    bench.append(10);
    let pause = bench.settle();
    bench.append(5);
    bench.clock.advance(pause);
    bench.settle();
    assert_eq!(got(&hub), [(1, 10), (11, 15)]);
    let status = bench.ring.status();
    assert_eq!((status.acked, status.pending, status.conserves()), (15, 0, true));
}

#[test]
fn an_answer_that_makes_no_sense_deletes_nothing() {
    let turn = AtomicUsize::new(0);
    let hub = TestHub::start(move |asked| {
        let batch = asked.batch();
        match turn.fetch_add(1, Ordering::Relaxed) {
            0 => Say::acked_to(batch.epoch ^ 1, 10),
            1 => Say::acked_to(batch.epoch, 11),
            2 => Say::acked_to(batch.epoch, 0),
            3 => Say::Http(200, "", "<html>".into()),
            4 => Say::Http(200, "", "x".repeat(100_000)),
            5 => Say::Http(302, "Location: https://192.0.2.1/\r\n", String::new()),
            _ => Say::Http(500, "", "\u{1b}[31moops".into()),
        }
    });
    let mut bench = Bench::joined(&hub);
    bench.append(10);
    for _ in 0..7 {
        let pause = bench.settle();
        bench.still_waiting(10);
        assert!(!bench.status().connected);
        bench.clock.advance(pause.max(Duration::from_secs(60)));
    }
    assert_eq!(hub.asked().len(), 7);
    bench.state_says(&["500: \\x1b[31moops"]);
}

#[test]
fn back_off_grows_and_ends_with_success() {
    let healthy = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let switch = Arc::clone(&healthy);
    let hub =
        TestHub::start(
            move |asked| {
                if switch.load(Ordering::SeqCst) { good(asked) } else { Say::status(500) }
            },
        );
    let mut bench = Bench::joined(&hub);
    bench.append(1);
    let mut waited = Duration::ZERO;
    for _ in 0..2_000 {
        let pause = bench.settle();
        waited += pause;
        bench.clock.advance(pause);
    }
    // An hour away costs about two attempts a minute, not a storm.
    let attempts = hub.asked().len() as u32;
    assert!(waited / attempts > Duration::from_secs(20), "{attempts} in {waited:?}");
    healthy.store(true, Ordering::SeqCst);
    bench.clock.advance(Duration::from_secs(60));
    bench.settle();
    assert!(bench.status().connected);
    assert_eq!(bench.forwarder.backoff.failures(), 0);
}

#[test]
fn a_refused_token_is_said_and_a_new_one_taken_at_once() {
    let hub = TestHub::start(|asked| {
        if asked.authorization == "Bearer new" {
            good(asked)
        } else {
            Say::Http(401, "", "revoked".into())
        }
    });
    let mut bench = Bench::joined(&hub);
    bench.append(5);
    bench.settle();
    bench.state_says(&["refuses the token", "401: revoked", "join again"]);
    bench.clock.advance(Duration::from_secs(50));
    bench.settle();
    assert_eq!(hub.asked().len(), 1);
    bench.still_waiting(5);
    bench.join(&hub, "new");
    bench.settle();
    assert_eq!(bench.ring.status().acked, 5);
}

#[test]
fn a_busy_hub_is_left_alone_as_long_as_it_asks() {
    let turn = AtomicUsize::new(0);
    let hub = TestHub::start(move |asked| match turn.fetch_add(1, Ordering::Relaxed) {
        0 => Say::Http(503, "Retry-After: 40\r\n", "full".into()),
        _ => good(asked),
    });
    let mut bench = Bench::joined(&hub);
    bench.append(5);
    bench.settle();
    bench.state_says(&["busy", "503: full"]);
    bench.clock.advance(Duration::from_secs(35));
    bench.settle();
    assert_eq!(hub.asked().len(), 1);
    bench.clock.advance(Duration::from_secs(10));
    bench.settle();
    assert_eq!(bench.ring.status().acked, 5);
}

#[test]
fn too_large_batches_are_halved_and_a_hopeless_event_dropped_alone() {
    let hub = TestHub::start(|asked| {
        let batch = asked.batch();
        let poison = batch.events.iter().any(|e| e == &7u32.to_le_bytes().to_vec());
        if batch.events.len() > 30 || poison { Say::status(413) } else { Say::acked(&batch) }
    });
    let mut bench = Bench::joined(&hub);
    bench.append(100);
    let pause = bench.settle();
    assert_eq!((bench.ring.status().acked, pause > Duration::ZERO), (7, true));
    bench.clock.advance(pause);
    bench.settle();
    let status = bench.ring.status();
    assert_eq!((status.acked, status.pending), (99, 0));
    assert_eq!(status.dropped["refused"], 1);
    assert!(status.conserves());
}

#[test]
fn something_that_finds_everything_too_large_does_not_empty_the_ring() {
    let hub = TestHub::start(|_| Say::status(413));
    let mut bench = Bench::joined(&hub);
    bench.append(1_000);
    let mut waited = Duration::ZERO;
    while waited < Duration::from_secs(3_600) {
        let pause = bench.settle();
        waited += pause;
        bench.clock.advance(pause);
    }
    let status = bench.ring.status();
    // About two a minute, once the waits have grown.
    assert!((60..=400).contains(&status.dropped["refused"]), "{:?}", status.dropped);
    assert!(status.conserves());
    assert!(hub.asked().len() < 450, "{} requests in an hour", hub.asked().len());
}

#[test]
fn a_version_the_hub_refuses_is_said() {
    let hub = TestHub::start(|_| Say::Http(426, "", "batch version 1 is too old".into()));
    let mut bench = Bench::joined(&hub);
    bench.append(1);
    bench.settle();
    bench.state_says(&["426: batch version 1 is too old", "update"]);
    bench.still_waiting(1);
}

#[test]
fn another_ca_is_not_trusted_and_sees_no_token() {
    let (known, impostor) = (TestHub::start(good), TestHub::start(good));
    let mut bench = Bench::new();
    let mut join = impostor.join("secret");
    join.ca_pem.clone_from(&known.ca_pem);
    join::save(&bench.dir.path().join("identity.json"), &join).unwrap();
    bench.append(1);
    bench.settle();
    bench.state_says(&["CA known since joining"]);
    bench.still_waiting(1);
    assert!(impostor.asked().is_empty());
}

#[test]
fn a_certificate_for_another_name_is_not_trusted() {
    let hub = TestHub::start_as("hub.example", good);
    let mut bench = Bench::joined(&hub);
    bench.append(1);
    bench.settle();
    bench.state_says(&["not valid for name", "enrol with the address in use"]);
    assert!(hub.asked().is_empty());
}

#[test]
fn a_clock_nobody_has_set_is_named_as_the_suspect() {
    let hub = TestHub::start_as("hub.example", good);
    let mut bench = Bench::joined(&hub);
    bench.clock.set_wall(Timestamp::from_secs(60));
    bench.settle();
    bench.state_says(&["clock says 1970-01-01T00:01:00"]);
}

#[test]
fn a_hub_that_hangs_is_noticed() {
    let hub = TestHub::start(|_| Say::Never);
    let short = Timeouts { answer: Duration::from_millis(300), ..Timeouts::default() };
    let client = HubClient::new(&hub.join("secret"), short).unwrap();
    let refusal = client.ingest(b"x").unwrap_err();
    assert!(matches!(&refusal, Refusal::Unreachable(why) if why.contains("timeout")), "{refusal}");
    assert_eq!(hub.asked().len(), 1);
}

#[test]
fn joining_needs_no_restart() {
    let hub = TestHub::start(good);
    let mut bench = Bench::new();
    bench.append(3);
    assert_eq!(bench.settle(), IDENTITY_EVERY);
    bench.state_says(&["not joined", "identity.json", "agentmon-router join"]);
    fs::write(bench.dir.path().join("identity.json"), "{").unwrap();
    bench.settle();
    bench.state_says(&["identity.json", "join again"]);
    bench.join(&hub, "secret");
    bench.settle();
    assert_eq!(bench.ring.status().acked, 3);
    assert_eq!(bench.status().sensor.as_deref(), Some("attic"));
}

#[test]
fn a_new_configuration_is_taken_over() {
    let (old, new) = (TestHub::start(good), TestHub::start(good));
    let mut bench = Bench::joined(&old);
    bench.settle();
    let identity = bench.dir.path().join("other.json");
    join::save(&identity, &new.join("secret")).unwrap();
    let config = Config { identity: identity.clone(), ..Config::default() };
    bench.forwarder.shared.reconfigure(config.clone());
    bench.append(3);
    bench.settle();
    assert_eq!((got(&old).len(), got(&new).len()), (0, 1));
    bench.forwarder.shared.reconfigure(Config { enabled: false, ..config });
    bench.append(3);
    bench.settle();
    assert_eq!(got(&new).len(), 1);
    bench.state_says(&["off"]);
}

#[test]
fn settings_out_of_range_are_refused() {
    let refused = |c: Config| c.validate().unwrap_err().0;
    let base = Config::default;
    assert!(base().validate().is_ok());
    assert_eq!(refused(Config { batch_events: 0, ..base() }), "batch_events");
    assert_eq!(refused(Config { batch_bytes: 1, ..base() }), "batch_bytes");
    assert_eq!(refused(Config { health_seconds: 0, ..base() }), "health_seconds");
}
