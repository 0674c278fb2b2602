//! Copies: what is in them, when none is made, and that a hub stores nothing twice.

use std::collections::BTreeMap;

use agentmon_core::time::{SimClock, Timestamp};

use super::*;
use crate::collect::Checkpoint;
use crate::ring::RING_BYTES_MIN;

struct Bench {
    dir: tempfile::TempDir,
    clock: Arc<SimClock>,
    counters: Counters,
}

/// A ring with its copies.
struct Life {
    ring: Arc<Ring>,
    snapshots: Snapshots,
}

/// What our hub does: per epoch, only what is above the last number is new.
#[derive(Default)]
struct Hub {
    cursors: BTreeMap<u64, u64>,
    stored: Vec<u64>,
}

impl Hub {
    fn take_all(&mut self, ring: &Ring) {
        while let Some(batch) = ring.peek(7, usize::MAX).unwrap() {
            self.take(&batch);
            ring.ack(batch.epoch, batch.last_seq()).unwrap();
        }
    }
    fn take(&mut self, batch: &crate::ring::Peeked) {
        let cursor = self.cursors.entry(batch.epoch).or_insert(0);
        for (seq, event) in (batch.first_seq..).zip(&batch.events) {
            if seq > *cursor {
                self.stored.push(u64::from_le_bytes(event[..8].try_into().unwrap()));
                *cursor = seq;
            }
        }
    }
}

impl Bench {
    fn new() -> Self {
        let clock = Arc::new(SimClock::at(Timestamp::from_secs(1_795_000_000)));
        Self { dir: tempfile::tempdir().unwrap(), clock, counters: Counters::default() }
    }
    fn config(&self) -> Config {
        Config {
            path: self.dir.path().join("tmp/ring.db"),
            bytes_max: RING_BYTES_MIN,
            snapshot_seconds: 3_600,
            snapshot_path: self.copy(),
        }
    }
    fn copy(&self) -> PathBuf {
        self.dir.path().join("flash/ring.snapshot")
    }
    fn start(&self) -> Life {
        let clock: Arc<dyn Clock> = Arc::clone(&self.clock) as _;
        restore(&self.config()).unwrap();
        let ring = Ring::open(&self.config(), &self.counters, Arc::clone(&clock)).unwrap();
        let ring = Arc::new(ring);
        let snapshots = Snapshots::new(Arc::clone(&ring), &self.config(), &self.counters, clock);
        Life { ring, snapshots }
    }
    /// The memory is gone.
    fn power_cut(&self, life: Life) {
        drop(life);
        fs::remove_dir_all(self.dir.path().join("tmp")).unwrap();
    }
    fn count(&self, name: &str) -> u64 {
        self.counters.snapshot()[name]
    }
}

impl Life {
    fn add(&self, numbers: std::ops::Range<u64>) {
        let events: Vec<Vec<u8>> = numbers.map(|n| n.to_le_bytes().repeat(4)).collect();
        self.ring.append(&events, &[]).unwrap();
    }
    #[track_caller]
    fn state(&self, expected: &str) {
        let state = self.snapshots.status().unwrap().state;
        assert!(state.starts_with(expected), "{state}");
    }
}

#[test]
fn after_a_power_cut_nothing_copied_is_lost_and_nothing_is_stored_twice() {
    let (bench, mut hub) = (Bench::new(), Hub::default());
    let life = bench.start();
    life.add(0..30);
    life.snapshots.take();
    // The hub gets more than the copy has, and a part of it without the answer arriving.
    life.add(30..50);
    let batch = life.ring.peek(20, usize::MAX).unwrap().unwrap();
    hub.take(&batch);
    life.ring.ack(batch.epoch, batch.last_seq()).unwrap();
    let batch = life.ring.peek(20, usize::MAX).unwrap().unwrap();
    hub.take(&batch);
    bench.power_cut(life);

    // 40..50 were neither copied nor sent: they are lost. The rest comes once.
    let life = bench.start();
    assert_eq!(life.ring.status().pending, 30);
    life.add(100..120);
    hub.take_all(&life.ring);
    assert_eq!(hub.stored, (0..40).chain(100..120).collect::<Vec<_>>());
    assert!(life.ring.status().conserves());
    // The same copy once more: everything in it is known by now.
    bench.power_cut(life);
    let life = bench.start();
    assert_eq!(life.ring.status().pending, 30);
    life.add(200..210);
    hub.take_all(&life.ring);
    assert_eq!(hub.stored, (0..40).chain(100..120).chain(200..210).collect::<Vec<_>>());
}

#[test]
fn a_ring_that_is_there_is_not_replaced() {
    let bench = Bench::new();
    let life = bench.start();
    life.add(0..5);
    life.snapshots.take();
    life.add(5..9);
    drop(life);
    assert_eq!(restore(&bench.config()).unwrap(), None);
    assert_eq!(bench.start().ring.status().pending, 9);
    let off = Config { snapshot_seconds: 0, ..bench.config() };
    fs::remove_dir_all(bench.dir.path().join("tmp")).unwrap();
    assert_eq!(restore(&off).unwrap(), None, "not when switched off");
}

#[test]
fn the_same_is_not_written_twice_and_nothing_is_not_written() {
    let bench = Bench::new();
    let life = bench.start();
    life.snapshots.take();
    life.state("ok: nothing waits");
    assert!(!bench.copy().exists() && bench.count("snapshot.bytes") == 0);
    life.add(0..5);
    life.snapshots.take();
    life.snapshots.take();
    life.state("ok");
    let bytes = fs::metadata(bench.copy()).unwrap().len();
    assert_eq!((bench.count("snapshot.files"), bench.count("snapshot.bytes")), (1, bytes));
    assert_eq!(life.snapshots.status().unwrap().events, 5);
    life.add(5..6);
    life.snapshots.take();
    assert_eq!(bench.count("snapshot.files"), 2);
    let all = life.ring.peek(99, usize::MAX).unwrap().unwrap();
    life.ring.ack(all.epoch, all.last_seq()).unwrap();
    life.snapshots.take();
    assert!(!bench.copy().exists(), "what the hub has needs no copy");
    let left = fs::read_dir(bench.dir.path().join("tmp")).unwrap().flatten();
    let left: Vec<_> = left.map(|e| e.file_name().into_string().unwrap()).collect();
    assert!(left.iter().all(|name| !name.contains("copy")), "{left:?}");
}

#[test]
fn the_collectors_places_stay_behind() {
    let bench = Bench::new();
    let life = bench.start();
    let place = Checkpoint { key: "log".into(), value: b"17".to_vec() };
    life.ring.append(&[vec![1; 20]], &[place]).unwrap();
    life.snapshots.take();
    bench.power_cut(life);
    let life = bench.start();
    assert_eq!(life.ring.status().pending, 1);
    assert!(life.ring.checkpoints().is_empty());
}

#[test]
fn a_copy_that_is_no_use_is_told_and_the_ring_begins_empty() {
    let bench = Bench::new();
    fs::create_dir_all(bench.dir.path().join("flash")).unwrap();
    for bad in [b"not a database, though long enough to look at".to_vec(), vec![0; 5], Vec::new()] {
        fs::write(bench.copy(), &bad).unwrap();
        let error = restore(&bench.config()).unwrap_err().to_string();
        assert!(error.contains("ring.snapshot"), "{error}");
        assert!(!bench.config().path.exists());
    }
    fs::write(bench.copy(), vec![0; 3 << 20]).unwrap();
    assert!(restore(&bench.config()).unwrap_err().to_string().contains("larger than"));
    // Cut in the middle, as a disk does that lies about having synced.
    fs::remove_file(bench.copy()).unwrap();
    let life = bench.start();
    life.add(0..3_000);
    life.snapshots.take();
    bench.power_cut(life);
    let whole = fs::read(bench.copy()).unwrap();
    fs::write(bench.copy(), &whole[..whole.len() / 2]).unwrap();
    assert!(restore(&bench.config()).is_err());
    assert!(!bench.config().path.exists());
}

#[test]
fn a_disk_that_cannot_be_written_is_told_and_tried_again() {
    let bench = Bench::new();
    let life = bench.start();
    life.add(0..5);
    // A file where the folder should be: as good as a read-only disk, also for root.
    fs::write(bench.dir.path().join("flash"), "").unwrap();
    life.snapshots.take();
    life.state("off: ");
    assert_eq!(bench.count("snapshot.failures"), 1);
    fs::remove_file(bench.dir.path().join("flash")).unwrap();
    life.snapshots.take();
    life.state("ok");
    assert!(bench.copy().exists());
}

#[test]
fn copies_are_made_in_the_interval_and_not_before() {
    let bench = Bench::new();
    let Life { ring, snapshots } = bench.start();
    ring.append(&[vec![1; 20]], &[]).unwrap();
    let snapshots = Arc::new(snapshots);
    let stop = Stop::default();
    let (worker, end) = (Arc::clone(&snapshots), stop.clone());
    let thread = std::thread::spawn(move || worker.run(&end));
    bench.clock.advance(Duration::from_secs(3_599));
    snapshots.wake();
    assert_eq!(snapshots.due_in(), Some(Duration::from_secs(1)));
    assert!(!bench.copy().exists(), "an hour has not passed");
    bench.clock.advance(Duration::from_secs(2));
    snapshots.wake();
    for _ in 0..300 {
        if bench.copy().exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(bench.copy().exists());
    stop.stop();
    snapshots.wake();
    thread.join().unwrap();
}
