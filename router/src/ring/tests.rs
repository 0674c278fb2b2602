//! The ring against a model, against crashes, and against files that are not rings.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use agentmon_core::time::{SimClock, Timestamp};

use super::*;

/// SplitMix64: enough randomness for tests, printed as one number.
struct Random(u64);

impl Random {
    /// From `AGENTMON_SEED`, or new; says which on standard error.
    fn seeded() -> Self {
        let given = std::env::var("AGENTMON_SEED").ok().and_then(|s| s.parse().ok());
        let seed = given.unwrap_or_else(|| {
            use std::hash::{BuildHasher, Hasher};
            std::collections::hash_map::RandomState::new().build_hasher().finish()
        });
        eprintln!("AGENTMON_SEED={seed}");
        Self(seed)
    }
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

fn clock() -> Arc<SimClock> {
    Arc::new(SimClock::at(Timestamp::from_secs(1_795_000_000)))
}

fn config(path: &Path, bytes_max: u64) -> Config {
    Config { path: path.to_owned(), bytes_max, ..Config::default() }
}

fn open(path: &Path, bytes_max: u64) -> (Ring, Counters) {
    let counters = Counters::default();
    let ring = Ring::open(&config(path, bytes_max), &counters, clock()).unwrap();
    (ring, counters)
}

/// Bytes that say which event they are, so that a mix-up shows.
fn payload(id: u64, len: usize) -> Vec<u8> {
    id.to_le_bytes().iter().copied().cycle().take(len.max(8)).collect()
}

fn events(n: u64, len: usize) -> Vec<Vec<u8>> {
    (0..n).map(|id| payload(id, len)).collect()
}

fn place(key: &str, value: &[u8]) -> Checkpoint {
    Checkpoint { key: key.into(), value: value.into() }
}

/// Empties the ring and returns everything that was in it.
fn drain(ring: &Ring) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(peeked) = ring.peek(700, 100_000).unwrap() {
        ring.ack(peeked.epoch, peeked.last_seq()).unwrap();
        all.extend(peeked.events);
    }
    all
}

#[test]
fn what_goes_in_comes_out_once_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let (ring, counters) = open(&dir.path().join("ring.db"), RING_BYTES_MIN);
    ring.append(&events(10, 50), &[place("log", b"10")]).unwrap();
    let peeked = ring.peek(4, usize::MAX).unwrap().unwrap();
    assert_eq!((peeked.first_seq, peeked.last_seq()), (1, 4));
    assert_eq!(peeked.events, events(4, 50));
    assert_eq!(ring.peek(4, usize::MAX).unwrap(), Some(peeked.clone()));
    ring.ack(peeked.epoch, 3).unwrap();
    assert_eq!(ring.peek(1, 0).unwrap().unwrap().events, [payload(3, 50)]);
    // Neither another epoch nor a number beyond the end deletes what was not meant.
    ring.ack(peeked.epoch ^ 1, 9).unwrap();
    assert_eq!(ring.status().pending, 7);
    ring.ack(peeked.epoch, 1_000).unwrap();
    assert_eq!(ring.peek(1, usize::MAX).unwrap(), None);
    assert_eq!(counters.snapshot()["accepted"], 10);
    assert_eq!(counters.snapshot()["acked"], 10);
    assert_eq!(ring.checkpoints()["log"], b"10");
}

#[test]
fn an_event_the_hub_never_takes_is_dropped_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (ring, counters) = open(&dir.path().join("ring.db"), RING_BYTES_MIN);
    ring.append(&events(3, 50), &[]).unwrap();
    let epoch = ring.status().epoch;
    ring.refuse(epoch, 2).unwrap();
    ring.refuse(epoch ^ 1, 1).unwrap();
    assert_eq!(ring.status().pending, 3);
    ring.refuse(epoch, 1).unwrap();
    assert!(ring.status().conserves());
    assert_eq!(counters.snapshot()["drop.ring.refused"], 1);
    assert_eq!(drain(&ring), [payload(1, 50), payload(2, 50)]);
}

#[test]
fn a_new_life_has_a_new_epoch_and_batches_do_not_cross() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ring.db");
    let (ring, counters) = open(&path, RING_BYTES_MIN);
    counters.counter("conntrack.enobufs").add(3);
    ring.append(&events(5, 50), &[place("log", b"here")]).unwrap();
    drop(ring);
    let (ring, counters) = open(&path, RING_BYTES_MIN);
    assert_eq!(counters.snapshot()["conntrack.enobufs"], 3);
    assert_eq!(ring.checkpoints()["log"], b"here");
    ring.append(&events(5, 50), &[]).unwrap();
    let old = ring.peek(100, usize::MAX).unwrap().unwrap();
    assert_eq!(old.events.len(), 5);
    ring.ack(old.epoch, old.last_seq()).unwrap();
    let new = ring.peek(100, usize::MAX).unwrap().unwrap();
    assert_eq!((new.first_seq, new.events.len()), (6, 5));
    assert_ne!(old.epoch, new.epoch);
    // An answer to the old life that comes late means nothing now.
    ring.ack(old.epoch, 8).unwrap();
    assert_eq!(ring.status().pending, 5);
}

#[test]
fn lives_whose_events_are_gone_are_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ring.db");
    for life in 0..20 {
        let (ring, _) = open(&path, RING_BYTES_MIN);
        // By eviction in the first ten lives (half a ring each), by acknowledgement after.
        (0..5).for_each(|_| ring.append(&events(1_000, 100), &[]).unwrap());
        if life >= 10 {
            drain(&ring);
        }
        let (known, stored) = ring.lock().store.as_ref().unwrap().lives();
        assert_eq!(known, stored);
        assert!(known <= if life < 10 { 3 } else { 1 }, "{known} in life {life}");
    }
}

#[test]
fn a_full_ring_drops_the_oldest_and_counts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ring.db");
    let (ring, counters) = open(&path, RING_BYTES_MIN);
    for round in 0..60u64 {
        let batch: Vec<_> = (0..500).map(|i| payload(round * 500 + i, 100)).collect();
        ring.append(&batch, &[]).unwrap();
        let on_disk: u64 = ["ring.db", "ring.db-wal"]
            .iter()
            .filter_map(|name| fs::metadata(dir.path().join(name)).ok())
            .map(|meta| meta.len())
            .sum();
        assert!(on_disk <= RING_BYTES_MIN, "{on_disk} bytes");
    }
    let status = ring.status();
    assert!(status.conserves(), "{status:?}");
    assert_eq!(status.accepted, 30_000);
    // 1 MiB less slack, at 100 bytes and overhead: about 9,000 stay.
    assert!((7_000..10_000).contains(&status.pending), "{status:?}");
    assert_eq!(counters.snapshot()["drop.ring.evicted"], 30_000 - status.pending);
    drop(ring);
    let (ring, counters) = open(&path, RING_BYTES_MIN);
    assert_eq!(ring.status().dropped, status.dropped);
    assert_eq!(counters.snapshot()["accepted"], 30_000);
    let left = drain(&ring);
    let expected: Vec<_> = (30_000 - status.pending..30_000).map(|i| payload(i, 100)).collect();
    assert!(left == expected);
}

#[test]
fn a_batch_larger_than_the_ring_keeps_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let (ring, _) = open(&dir.path().join("ring.db"), RING_BYTES_MIN);
    ring.append(&events(3, 50), &[]).unwrap();
    ring.append(&events(1_000, 3_000), &[]).unwrap();
    let status = ring.status();
    assert!(status.conserves() && status.dropped["evicted"] > 500, "{status:?}");
    assert_eq!(drain(&ring).last(), Some(&payload(999, 3_000)));
    // One event beyond the wire's bound is refused alone.
    ring.append(&[vec![0; 70_000], payload(7, 8)], &[]).unwrap();
    assert_eq!(ring.status().dropped["too_large"], 1);
    assert_eq!(drain(&ring), [payload(7, 8)]);
    assert!(ring.status().conserves());
}

/// A ring whose first 1,000 events were on their way to the hub when they were evicted.
fn evicted_on_the_way(path: &Path) -> (Ring, u64) {
    let (ring, _) = open(path, RING_BYTES_MIN);
    ring.append(&events(2_000, 100), &[]).unwrap();
    let sent = ring.peek(1_000, usize::MAX).unwrap().unwrap();
    ring.sending(sent.epoch, sent.first_seq, sent.last_seq());
    for _ in 0..20 {
        ring.append(&events(1_000, 100), &[]).unwrap();
        assert!(ring.status().conserves(), "{:?}", ring.status());
    }
    let status = ring.status();
    assert!(status.in_doubt == 1_000 && status.dropped["evicted"] > 1_000, "{status:?}");
    (ring, sent.epoch)
}

#[test]
fn what_was_evicted_on_its_way_is_counted_when_the_hub_has_said_so() {
    let dir = tempfile::tempdir().unwrap();
    let check = |name: &str, say: fn(&Ring, u64), acked: u64| {
        let path = dir.path().join(name);
        let (ring, epoch) = evicted_on_the_way(&path);
        let before = ring.status();
        say(&ring, epoch);
        let after = ring.status();
        assert!(after.conserves(), "{after:?}");
        assert_eq!((after.in_doubt, after.acked, after.pending), (0, acked, before.pending));
        let evicted = before.dropped["evicted"] + 1_000 - acked;
        assert_eq!(after.dropped["evicted"], evicted, "{name}");
        // And so it stays.
        ring.append(&events(1, 8), &[]).unwrap();
        let written = ring.status();
        drop(ring);
        let again = open(&path, RING_BYTES_MIN).0.status();
        assert_eq!((again.acked, again.dropped), (written.acked, written.dropped), "{name}");
    };
    check("taken", |ring, epoch| ring.ack(epoch, 1_000).unwrap(), 1_000);
    check("half", |ring, epoch| ring.ack(epoch, 400).unwrap(), 400);
    check("not", |ring, _| ring.not_taken(), 0);
    check("next", |ring, epoch| ring.sending(epoch, 9_000, 9_001), 0);
}

#[test]
fn a_doubt_that_outlives_the_router_counts_as_evicted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ring.db");
    let before = evicted_on_the_way(&path).0.status();
    let after = open(&path, RING_BYTES_MIN).0.status();
    assert!(after.conserves() && after.in_doubt == 0, "{after:?}");
    assert_eq!(after.dropped["evicted"], before.dropped["evicted"] + 1_000);
}

#[test]
fn an_emptied_ring_gives_its_space_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ring.db");
    let (ring, _) = open(&path, 16 * 1024 * 1024);
    ring.append(&events(60_000, 100), &[]).unwrap();
    assert_eq!(drain(&ring).len(), 60_000);
    assert!(fs::metadata(&path).unwrap().len() < 100_000);
    ring.append(&events(10, 100), &[]).unwrap();
    assert_eq!(drain(&ring), events(10, 100));
}

#[test]
fn a_smaller_size_evicts_at_once_and_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ring.db");
    let (ring, _) = open(&path, 16 * 1024 * 1024);
    ring.append(&events(60_000, 100), &[]).unwrap();
    ring.resize(6 * 1024 * 1024).unwrap();
    let status = ring.status();
    assert!(status.conserves() && status.pending < 60_000 && status.pending > 30_000, "{status:?}");
    assert!(fs::metadata(&path).unwrap().len() <= 5 * 1024 * 1024);
    drop(ring);
    let (ring, _) = open(&path, 4 * 1024 * 1024);
    let status = ring.status();
    assert!(status.conserves() && status.pending < 30_000 && status.pending > 10_000, "{status:?}");
    assert_eq!(drain(&ring).last(), Some(&payload(59_999, 100)));
}

/// Writes something else where the ring is, opens, and checks that a new ring begins, that
/// the old bytes are kept beside it, and that it says so.
#[track_caller]
fn check_damaged(spoil: impl FnOnce(&Path), lost: u64, accepted: u64) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ring.db");
    let (ring, _) = open(&path, RING_BYTES_MIN);
    ring.append(&events(2_000, 100), &[place("log", b"here")]).unwrap();
    drop(ring);
    spoil(&path);
    let spoilt = fs::read(&path).unwrap();
    let (ring, counters) = open(&path, RING_BYTES_MIN);
    assert_eq!(counters.snapshot()["ring.damaged_files"], 1);
    let aside = damage::set_aside_files(&path);
    assert_eq!(aside.len(), 1);
    // Opening may have touched the header; the rest is as it was.
    assert!(fs::read(&aside[0]).unwrap().iter().skip(4096).eq(spoilt.iter().skip(4096)));
    let status = ring.status();
    assert!(status.conserves(), "{status:?}");
    assert_eq!((status.pending, status.accepted), (0, accepted));
    assert_eq!(status.dropped.get("damaged").copied().unwrap_or(0), lost);
    ring.append(&events(3, 50), &[]).unwrap();
    assert_eq!(drain(&ring), events(3, 50));
}

#[test]
fn damaged_files_are_set_aside() {
    // Not a database at all: nothing can be carried over.
    check_damaged(|p| fs::write(p, b"garbage ".repeat(5_000)).unwrap(), 0, 0);
    // Cut short in the middle.
    check_damaged(
        |p| {
            let bytes = fs::read(p).unwrap();
            fs::write(p, bytes.get(..bytes.len() / 2).unwrap()).unwrap();
        },
        2_000,
        2_000,
    );
    // One page overwritten: the account is still readable.
    check_damaged(
        |p| {
            let mut bytes = fs::read(p).unwrap();
            let middle = bytes.len() / 2 / 4096 * 4096;
            bytes.iter_mut().skip(middle).take(4096).for_each(|b| *b = 0xa5);
            fs::write(p, bytes).unwrap();
        },
        2_000,
        2_000,
    );
    // Rows are missing although every page is sound.
    check_damaged(
        |p| {
            let conn = rusqlite::Connection::open(p).unwrap();
            conn.execute_batch("DELETE FROM events WHERE seq = 700; PRAGMA journal_mode=delete;")
                .unwrap();
        },
        2_000,
        2_000,
    );
    // A table is gone.
    check_damaged(
        |p| {
            let conn = rusqlite::Connection::open(p).unwrap();
            conn.execute_batch("DROP TABLE epochs; PRAGMA journal_mode=delete;").unwrap();
        },
        2_000,
        2_000,
    );
}

#[test]
fn set_aside_files_are_few() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ring.db");
    for day in 0..5 {
        fs::write(&path, b"garbage ".repeat(100 + day)).unwrap();
        let at = Timestamp::from_secs(1_795_000_000 + 86_400 * day as i64);
        let clock = Arc::new(SimClock::at(at));
        drop(Ring::open(&config(&path, RING_BYTES_MIN), &Counters::default(), clock).unwrap());
    }
    let aside = damage::set_aside_files(&path);
    assert_eq!(aside.len(), damage::DAMAGED_FILES_MAX);
    assert_eq!(fs::metadata(&aside[0]).unwrap().len(), 8 * 104);
}

#[test]
fn damage_found_while_running_is_survived() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ring.db");
    let (ring, counters) = open(&path, RING_BYTES_MIN);
    ring.append(&events(2_000, 100), &[place("log", b"here")]).unwrap();
    // Another connection could not; this is what bad memory or flash does.
    ring.lock().store.as_ref().unwrap().execute("DELETE FROM events WHERE seq = 3");
    assert_eq!(ring.peek(100, usize::MAX).unwrap(), None);
    let status = ring.status();
    assert!(status.conserves(), "{status:?}");
    assert_eq!((status.pending, status.dropped["damaged"]), (0, 2_000));
    assert_eq!(counters.snapshot()["ring.damaged_files"], 1);
    ring.append(&events(3, 50), &[]).unwrap();
    assert_eq!(drain(&ring), events(3, 50));
    drop(ring);
    let (ring, _) = open(&path, RING_BYTES_MIN);
    assert_eq!(ring.checkpoints()["log"], b"here");
    assert_eq!(ring.status().dropped["damaged"], 2_000);
}

#[test]
fn what_is_not_ours_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ring.db");
    let error = |path: &Path| {
        let counters = Counters::default();
        Ring::open(&config(path, RING_BYTES_MIN), &counters, clock()).unwrap_err()
    };
    let (ring, _) = open(&path, RING_BYTES_MIN);
    ring.append(&events(3, 50), &[]).unwrap();
    drop(ring);
    let conn = rusqlite::Connection::open(&path).unwrap();
    conn.execute_batch("PRAGMA user_version = 9").unwrap();
    drop(conn);
    assert!(matches!(error(&path), RingError::Newer { found: 9, .. }));
    let other = dir.path().join("other.db");
    rusqlite::Connection::open(&other).unwrap().execute_batch("CREATE TABLE t(x)").unwrap();
    assert!(matches!(error(&other), RingError::Foreign { .. }));
    assert_eq!(damage::set_aside_files(&path).len() + damage::set_aside_files(&other).len(), 0);
}

/// What the file must hold, kept in the plainest way.
#[derive(Default)]
struct Model {
    pending: VecDeque<Vec<u8>>,
    accepted: u64,
    acked: u64,
    dropped: u64,
}

impl Model {
    /// Takes over how many the ring dropped by itself, since pages cannot be predicted.
    fn evict_like(&mut self, status: &RingStatus) {
        let evicted = status.dropped.values().sum::<u64>() - self.dropped;
        self.pending.drain(..evicted as usize);
        self.dropped += evicted;
    }

    #[track_caller]
    fn check(&self, ring: &Ring) {
        let status = ring.status();
        assert!(status.conserves(), "{status:?}");
        let account = (status.accepted, status.acked, status.pending);
        assert_eq!(account, (self.accepted, self.acked, self.pending.len() as u64));
        assert!(status.bytes <= status.capacity, "{status:?}");
        let head = ring.peek(50, 20_000).unwrap().map(|p| p.events).unwrap_or_default();
        assert_eq!(head.is_empty(), self.pending.is_empty());
        assert!(self.pending.iter().zip(&head).all(|(a, b)| a == b));
    }
}

#[test]
fn behaves_like_the_model_under_random_actions() {
    let mut random = Random::seeded();
    for _ in 0..4 {
        model_run(&mut random, 150);
    }
}

fn model_run(random: &mut Random, actions: u32) {
    let dir = tempfile::tempdir().unwrap();
    let mut path = dir.path().join("ring-0.db");
    let size = RING_BYTES_MIN;
    let (mut ring, _) = open(&path, size);
    let mut model = Model::default();
    let mut id = 0;
    for step in 0..actions {
        match random.below(20) {
            0..=9 => {
                let (n, len) = (random.below(1_500), 8 + random.below(600) as usize);
                let batch: Vec<_> = (id..id + n).map(|id| payload(id, len)).collect();
                id += n;
                let full_before = ring.status().bytes;
                ring.append(&batch, &[place("id", &id.to_le_bytes())]).unwrap();
                model.pending.extend(batch);
                model.accepted += n;
                let dropped = model.dropped;
                model.evict_like(&ring.status());
                // Nothing is thrown away while there is room.
                let capacity = ring.status().capacity;
                let wanted = n * (len as u64 + 20) * 5 / 4 + 100_000;
                let tight = wanted > (capacity - full_before).min(capacity / 2);
                assert!(model.dropped == dropped || tight, "{n} of {len} into {full_before}");
            }
            10..=15 => {
                let Some(peeked) = ring.peek(random.below(2_000) as usize + 1, 300_000).unwrap()
                else {
                    continue;
                };
                let n = random.below(peeked.events.len() as u64 + 1);
                ring.ack(peeked.epoch, (peeked.first_seq + n).saturating_sub(1)).unwrap();
                model.pending.drain(..n as usize);
                model.acked += n;
            }
            16 => {
                drop(ring);
                ring = open(&path, size).0;
            }
            17 | 18 => {
                // A crash: what is on disk at this instant is all that is left.
                let copy = dir.path().join(format!("ring-{}.db", step + 1));
                fs::copy(&path, &copy).unwrap();
                fs::copy(damage::suffixed(&path, "-wal"), damage::suffixed(&copy, "-wal")).unwrap();
                drop(ring);
                path = copy;
                ring = open(&path, size).0;
                assert_eq!(
                    ring.checkpoints().get("id").map(Vec::as_slice).unwrap_or(&[0; 8]),
                    id.to_le_bytes()
                );
            }
            _ => {
                // Somebody else fills the disk: either it still fits, or nothing changes.
                ring.choke(true);
                let batch: Vec<_> = (id..id + 400).map(|id| payload(id, 200)).collect();
                match ring.append(&batch, &[place("id", &(id + 400).to_le_bytes())]) {
                    Ok(()) => model.pending.extend(batch),
                    Err(RingError::DiskFull { .. }) => {
                        ring.give_up(400, Unstored::DiskFull);
                        model.dropped += 400;
                    }
                    Err(error) => panic!("{error}"),
                }
                id += 400;
                model.accepted += 400;
                ring.choke(false);
                model.evict_like(&ring.status());
                // What was given up is on record with the next commit at the latest.
                ring.append(&[], &[]).unwrap();
            }
        }
        model.check(&ring);
    }
    assert!(model.pending == drain(&ring));
}

/// Not a test by itself: the process that `survives_sigkill` kills.
#[test]
fn helper_that_gets_killed() {
    let Ok(path) = std::env::var("AGENTMON_TEST_RING") else { return };
    let (ring, _) = open(Path::new(&path), RING_BYTES_MIN);
    let mut id = ring.status().accepted;
    loop {
        let batch: Vec<_> = (id..id + 300).map(|id| payload(id, 120)).collect();
        id += 300;
        ring.append(&batch, &[place("id", &id.to_le_bytes())]).unwrap();
        if let Some(peeked) = ring.peek(200, usize::MAX).unwrap() {
            ring.ack(peeked.epoch, peeked.last_seq()).unwrap();
        }
        eprintln!("committed {id}");
    }
}

#[test]
fn survives_sigkill() {
    let mut random = Random::seeded();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ring.db");
    let mut epochs = std::collections::BTreeSet::new();
    for _ in 0..12 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "ring::tests::helper_that_gets_killed", "--nocapture"])
            .env("AGENTMON_TEST_RING", &path)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let wanted = 1 + random.below(40) as usize;
        let said = lines.map_while(Result::ok).filter_map(|line| {
            line.strip_prefix("committed ").and_then(|id| id.parse::<u64>().ok())
        });
        let committed = said.take(wanted).last().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();

        let (ring, counters) = open(&path, RING_BYTES_MIN);
        let status = ring.status();
        assert!(!counters.snapshot().contains_key("drop.ring.damaged"), "{status:?}");
        assert!(status.conserves() && status.accepted >= committed, "{status:?}, {committed}");
        assert!(epochs.insert(status.epoch));
        assert_eq!(ring.checkpoints()["id"], status.accepted.to_le_bytes());
        let begin = status.accepted - status.pending;
        let peeked = ring.peek(usize::MAX, usize::MAX).unwrap();
        for (id, event) in (begin..).zip(peeked.map(|p| p.events).unwrap_or_default()) {
            assert_eq!(event, payload(id, 120));
        }
    }
}
