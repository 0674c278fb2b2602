//! The collector as a whole: files in, deliveries out, killed anywhere.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};

use agentmon_core::time::{SimClock, SystemClock};

use super::reader::histories::sample;
use super::reader::tests::show;
use super::*;
use crate::collect::{Outbox, State as StateLine, Stop};

/// 2026-11-23 14:00 UTC
const NOW: Timestamp = Timestamp::from_secs(1_795_442_400);

fn config(path: &Path) -> Config {
    Config {
        enabled: true,
        paths: vec![path.to_owned()],
        timezone: "utc".to_owned().try_into().unwrap(),
        from_start: true,
        poll_ms: 50,
    }
}

fn context() -> (Context, Receiver<Delivery>) {
    let (outbox, receiver) = Outbox::channel();
    let context = Context {
        outbox,
        stop: Stop::default(),
        clock: Arc::new(SimClock::at(NOW)),
        counters: Counters::default(),
        state: StateLine::default(),
    };
    (context, receiver)
}

/// Reads what is there, as one delivery.
fn read_once(source: &mut Source) -> Delivery {
    let (context, receiver) = context();
    source.read_all(&context).unwrap();
    source.deliver(&context).unwrap();
    receiver.recv().unwrap()
}

fn restored(config: &Config, checkpoint: Option<&Checkpoint>) -> Source {
    let mut source = Source::new(config.clone());
    if let Some(checkpoint) = checkpoint {
        assert_eq!(source.checkpoint_key().as_ref(), Some(&checkpoint.key));
        source.restore(&checkpoint.value);
    }
    source
}

/// The log grows line by line; each line is delivered; the process dies after each
/// delivery, before or after it is committed.
#[test]
fn killed_behind_every_line_before_and_after_the_commit() {
    for extra in [false, true] {
        let log = sample(extra);
        let whole = {
            let mut out = Vec::new();
            let mut reader = Reader::new(Zone::utc());
            log.iter().for_each(|line| reader.line(line.as_bytes(), NOW, &mut out));
            reader.finish(&mut out);
            out
        };
        for kill in 0..log.len() {
            for committed in [false, true] {
                let dir = tempfile::tempdir().unwrap();
                let config = config(&dir.path().join("dns.log"));
                let mut file = std::fs::File::create(&config.paths[0]).unwrap();
                let (mut stored, mut checkpoint) = (Vec::new(), None);
                let mut source = restored(&config, None);
                for (i, line) in log.iter().enumerate() {
                    writeln!(file, "{line}").unwrap();
                    let delivery = read_once(&mut source);
                    if i != kill || committed {
                        stored.extend(delivery.events);
                        checkpoint = delivery.checkpoint;
                    }
                    if i == kill {
                        source = restored(&config, checkpoint.as_ref());
                    }
                }
                stored.extend(read_once(&mut source).events);
                source.reader.finish(&mut stored);
                assert_eq!(stored, whole, "killed behind line {kill}, committed: {committed}");
            }
        }
    }
}

#[test]
fn deliveries_are_bounded_and_a_checkpoint_is_small() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir.path().join("dns.log"));
    let mut file = std::fs::File::create(&config.paths[0]).unwrap();
    for i in 0..5_000 {
        writeln!(file, "Nov 23 13:00:00 dnsmasq[1]: query[A] n{i}.example from 192.0.2.31")
            .unwrap();
    }
    writeln!(file, "Nov 23 13:00:00 dnsmasq[1]: started, version 2.90 cachesize 150").unwrap();
    let mut source = restored(&config, None);
    let (context, receiver) = context();
    source.read_all(&context).unwrap();
    source.deliver(&context).unwrap();
    let deliveries: Vec<Delivery> = receiver.try_iter().collect();
    assert_eq!(deliveries.iter().map(|d| d.events.len()).sum::<usize>(), 5_000);
    for delivery in &deliveries {
        assert!(delivery.events.len() <= DELIVERY_EVENTS_MAX);
        assert!(delivery.checkpoint.as_ref().unwrap().value.len() < 150_000);
    }
    assert!(deliveries.last().unwrap().checkpoint.as_ref().unwrap().value.len() < 600);
    assert_eq!(context.counters.snapshot()["dnsmasq_log.evicted"], 5_000 - 512);
}

/// What is not read is counted, by reason.
#[test]
fn long_and_half_lines_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir.path().join("dns.log"));
    let path = &config.paths[0];
    std::fs::write(path, format!("\0\0{}\ndnsmasq: query[A] a.exa", "x".repeat(9_000))).unwrap();
    let mut source = restored(&config, None);
    let (context, _receiver) = context();
    source.read_all(&context).unwrap();
    std::fs::rename(path, dir.path().join("dns.log.1")).unwrap();
    std::fs::write(path, "dnsmasq: query[A] b.example from 192.0.2.31\n").unwrap();
    source.read_all(&context).unwrap();
    source.deliver(&context).unwrap();
    let counts = context.counters.snapshot();
    let of = |name: &str| counts[name];
    assert_eq!((of("drop.tail.line_too_long"), of("drop.tail.half_line")), (1, 1));
    assert_eq!((of("tail.nul_bytes"), of("dnsmasq_log.queries")), (2, 1));
}

#[test]
fn a_bad_checkpoint_is_no_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir.path().join("dns.log"));
    std::fs::write(
        &config.paths[0],
        "Nov 23 13:00:00 dnsmasq[1]: query[A] a.example from 192.0.2.31\n",
    )
    .unwrap();
    let mut source = restored(&config, None);
    source.restore(b"{not json");
    assert!(source.restore_failed);
    source.read_all(&context().0).unwrap();
    assert_eq!(source.reader.counts().queries, 1);
}

/// The running thread: events come by themselves, over a rotation, and it stops when asked.
#[test]
fn runs_until_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir.path().join("dns.log"));
    let path = config.paths[0].clone();
    let (mut context, receiver) = context();
    context.clock = Arc::new(SystemClock);
    let (stop, state, counters) =
        (context.stop.clone(), context.state.clone(), context.counters.clone());
    let mut source = Source::new(config);
    let thread = std::thread::spawn(move || source.run(&context).map(|()| source));
    let write = |text: &str| {
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    };
    // Deliveries without events only move the place.
    let next_events = || loop {
        let delivery = receiver.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(delivery.checkpoint.is_some());
        if !delivery.events.is_empty() {
            return delivery.events.iter().map(show).collect::<Vec<_>>();
        }
    };
    let waited = receiver.recv_timeout(Duration::from_millis(200));
    assert!(matches!(waited, Err(RecvTimeoutError::Timeout)));
    assert!(state.get().contains("is not there: set log-facility="), "{}", state.get());
    write(
        "dnsmasq: query[A] a.example from 192.0.2.31\ndnsmasq: cached a.example is 203.0.113.1\n",
    );
    assert_eq!(next_events(), ["31 1 a.example cached 0 =203.0.113.1"]);
    std::fs::rename(&path, dir.path().join("dns.log.1")).unwrap();
    write(
        "dnsmasq: query[A] b.example from 192.0.2.31\ndnsmasq: cached b.example is 203.0.113.2\n",
    );
    assert_eq!(next_events(), ["31 1 b.example cached 0 =203.0.113.2"]);
    assert_eq!(counters.snapshot()["tail.rotated"], 1);
    assert!(state.get().starts_with("ok: "), "{}", state.get());
    stop.stop();
    let source = thread.join().unwrap().unwrap();
    assert_eq!(source.name(), "dnsmasq-log");
}

/// Killed right after the first start, which skips what the log held: a place was committed
/// already, so that what is written meanwhile is not skipped too.
#[test]
fn the_first_place_is_committed_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { from_start: false, ..config(&dir.path().join("dns.log")) };
    let path = config.paths[0].clone();
    std::fs::write(&path, "dnsmasq: query[A] old.example from 192.0.2.31\n").unwrap();
    let (context, receiver) = context();
    let stop = context.stop.clone();
    let mut source = Source::new(config.clone());
    let thread = std::thread::spawn(move || source.run(&context));
    let first = receiver.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!(first.events, []);
    stop.stop();
    thread.join().unwrap().unwrap();
    std::fs::write(&path, "dnsmasq: query[A] old.example from 192.0.2.31\ndnsmasq: query[A] new.example from 192.0.2.31\n").unwrap();
    let mut source = restored(&config, first.checkpoint.as_ref());
    read_once(&mut source);
    assert_eq!(source.reader.counts().queries, 1);
}

/// A log dated in another zone would tear answers and connections apart: the state says so.
#[test]
fn a_wrong_time_zone_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir.path().join("dns.log"));
    let path = config.paths[0].clone();
    std::fs::write(&path, "Nov 20 10:00:00 dnsmasq[1]: reading /etc/resolv.conf\n").unwrap();
    let (context, _receiver) = context();
    let (stop, state) = (context.stop.clone(), context.state.clone());
    let mut source = Source::new(config);
    let thread = std::thread::spawn(move || source.run(&context));
    let wait_for = |text: &str| {
        for _ in 0..400 {
            if state.get().contains(text) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("no {text:?} in {:?}", state.get());
    };
    // What was there before may be old.
    wait_for("ok: ");
    let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
    writeln!(file, "Nov 23 15:00:00 dnsmasq[1]: query[A] a.example from 192.0.2.31").unwrap();
    wait_for("60 min ahead: set timezone");
    writeln!(file, "Nov 23 14:00:02 dnsmasq[1]: query[A] a.example from 192.0.2.31").unwrap();
    wait_for("ok: ");
    stop.stop();
    thread.join().unwrap().unwrap();
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let good = config(Path::new("/var/log/dns.log"));
    assert_eq!(good.validate(), Ok(()));
    let refused = |change: fn(&mut Config), part: &str| {
        let mut config = good.clone();
        change(&mut config);
        let (key, problem) = config.validate().unwrap_err();
        assert!(problem.contains(part) || key == part, "{key}: {problem}");
    };
    let two = Config { paths: vec!["/a".into(), "/b".into()], ..good.clone() };
    let each: Vec<_> = two.each().map(|c| c.paths).collect();
    assert_eq!(each, [[PathBuf::from("/a")], [PathBuf::from("/b")]]);
    assert!(Source::new(two).run(&context().0).is_err());
    refused(|c| c.paths.clear(), "at least one");
    refused(|c| c.paths.push("/var/log/dns.log".into()), "twice");
    refused(|c| c.paths = vec!["dns.log".into()], "absolute");
    refused(|c| c.paths = (0..20).map(|i| format!("/{i}").into()).collect(), "at most 16");
    refused(|c| c.poll_ms = 1, "poll_ms");
    let error = toml::from_str::<Config>("timezone = \"Mars\"").unwrap_err().to_string();
    assert!(error.contains("unknown time zone"), "{error}");
    assert!(toml::from_str::<Config>("path = \"x\"").is_err());
}
