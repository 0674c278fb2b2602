//! Every way a log file changes under its reader, one by one, and then at random.

use std::fs::{self, OpenOptions};
use std::hash::{BuildHasher, Hasher};
use std::io::Write;
use std::path::PathBuf;

use super::*;

struct Log {
    dir: tempfile::TempDir,
}

impl Log {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }
    fn path(&self) -> PathBuf {
        self.at("dns.log")
    }
    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
    fn append(&self, name: &str, text: &str) {
        let mut file = OpenOptions::new().append(true).create(true).open(self.at(name)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }
    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.at(from), self.at(to)).unwrap();
    }
    /// As logrotate and Pi-hole do it.
    fn copytruncate(&self, to: &str) {
        fs::copy(self.path(), self.at(to)).unwrap();
        OpenOptions::new().write(true).open(self.path()).unwrap().set_len(0).unwrap();
    }
    fn follow(&self) -> Follower {
        Follower::new(self.path(), true)
    }
    /// As after a restart: only the encoded position is left.
    fn again(&self, follower: &Follower) -> Follower {
        let saved = serde_json::to_vec(&follower.position().unwrap()).unwrap();
        Follower::resume(self.path(), serde_json::from_slice(&saved).unwrap())
    }
}

/// All lines up to the next idle moment; a loss appears as `!reason`.
fn drain(follower: &mut Follower) -> Vec<String> {
    let mut found = Vec::new();
    loop {
        match follower.step().unwrap() {
            Step::Line(line) => found.push(String::from_utf8_lossy(line).into_owned()),
            Step::Loss(loss) => found.push(format!("!{}", loss.reason)),
            Step::Idle => return found,
        }
    }
}

#[track_caller]
fn reads(follower: &mut Follower, expected: &[&str]) {
    assert_eq!(drain(follower), expected);
}

#[test]
fn waits_for_the_newline() {
    let log = Log::new();
    let mut f = log.follow();
    reads(&mut f, &[]);
    log.append("dns.log", "one\ntw");
    reads(&mut f, &["one"]);
    reads(&mut f, &[]);
    log.append("dns.log", "o\n");
    reads(&mut f, &["two"]);
    assert_eq!(f.progress(), (8, 8));
}

#[test]
fn first_sight_skips_what_is_there_and_the_half_line() {
    let log = Log::new();
    log.append("dns.log", "old\nhal");
    let mut f = Follower::new(log.path(), false);
    reads(&mut f, &[]);
    log.append("dns.log", "f\nnew\n");
    reads(&mut f, &["new"]);
    // A file that appears later is new from its first line on.
    let log = Log::new();
    let mut f = Follower::new(log.path(), false);
    reads(&mut f, &[]);
    log.append("dns.log", "first\n");
    reads(&mut f, &["first"]);
}

#[test]
fn rename_with_a_writer_that_changes_over_late() {
    let log = Log::new();
    log.append("dns.log", "1\n");
    let mut f = log.follow();
    reads(&mut f, &["1"]);
    log.rename("dns.log", "dns.log.1");
    log.append("dns.log.1", "2\n");
    reads(&mut f, &["2"]);
    log.append("dns.log", "");
    reads(&mut f, &[]);
    log.append("dns.log.1", "3\n");
    reads(&mut f, &["3"]);
    log.append("dns.log.1", "4\n");
    log.append("dns.log", "5\n");
    reads(&mut f, &["4", "5"]);
    assert_eq!(f.counts().rotated, 1);
}

#[test]
fn several_rotations_between_two_polls() {
    for restart in [false, true] {
        let log = Log::new();
        log.append("dns.log", "1\n");
        let mut f = log.follow();
        reads(&mut f, &["1"]);
        log.append("dns.log", "2\n");
        log.rename("dns.log", "dns.log.1");
        log.append("dns.log", "3\n");
        log.rename("dns.log.1", "dns.log.2");
        log.rename("dns.log", "dns.log.1");
        log.append("dns.log", "4\n");
        if restart {
            f = log.again(&f);
        }
        reads(&mut f, &["2", "3", "4"]);
    }
}

#[test]
fn dated_rotation_and_deleted_files() {
    let log = Log::new();
    log.append("dns.log", "1\n");
    let mut f = log.follow();
    reads(&mut f, &["1"]);
    log.rename("dns.log", "dns.log-20260508");
    log.append("dns.log-20260509", "2\n");
    log.append("dns.log", "3\n");
    let mut again = log.again(&f);
    reads(&mut f, &["2", "3"]);
    reads(&mut again, &["2", "3"]);
    // Removed under the reader: what was written to it is still read.
    log.append("dns.log", "4\n");
    fs::remove_file(log.path()).unwrap();
    reads(&mut f, &["4"]);
    log.append("dns.log", "5\n");
    reads(&mut f, &["5"]);
}

#[test]
fn compressed_between_is_a_loss() {
    let log = Log::new();
    log.append("dns.log", "1\n");
    let mut f = log.follow();
    reads(&mut f, &["1"]);
    log.rename("dns.log", "dns.log.2");
    log.append("dns.log.1.gz", "not readable");
    log.append("dns.log", "3\n");
    reads(&mut f, &["!log-rotated-away", "3"]);
    assert_eq!(f.counts().lost_rotated, 1);
}

#[test]
fn gone_while_away_is_a_loss() {
    let log = Log::new();
    log.append("dns.log", "a long enough first line\n");
    let mut f = log.follow();
    drain(&mut f);
    log.append("dns.log.1.gz", "not readable");
    fs::remove_file(log.path()).unwrap();
    log.append("dns.log", "another file with another text\n");
    let mut again = log.again(&f);
    reads(&mut again, &["!log-rotated-away", "another file with another text"]);
    reads(&mut again, &[]);
}

#[test]
fn no_log_at_all_after_a_restart_waits() {
    let log = Log::new();
    log.append("dns.log", "1\n2\n");
    let mut f = log.follow();
    reads(&mut f, &["1", "2"]);
    log.rename("dns.log", "elsewhere");
    let mut again = log.again(&f);
    reads(&mut again, &[]);
    assert_eq!(again.position(), f.position());
    log.rename("elsewhere", "dns.log");
    log.append("dns.log", "3\n");
    reads(&mut again, &["3"]);
}

#[test]
fn copytruncate_reads_the_rest_from_the_copy() {
    for restart in [false, true] {
        let log = Log::new();
        log.append("dns.log", "1\n");
        let mut f = log.follow();
        reads(&mut f, &["1"]);
        log.append("dns.log", "2\nhal");
        reads(&mut f, &["2"]);
        log.append("dns.log", "f\n3\n");
        log.copytruncate("dns.log.1");
        log.append("dns.log", "4\n");
        if restart {
            f = log.again(&f);
        }
        reads(&mut f, &["half", "3", "4"]);
        log.append("dns.log", "5\n");
        reads(&mut f, &["5"]);
    }
}

#[test]
fn truncated_and_grown_past_the_old_offset() {
    let log = Log::new();
    log.append("dns.log", "1\n");
    let mut f = log.follow();
    reads(&mut f, &["1"]);
    fs::write(log.path(), "2\n3\n4\n").unwrap();
    let mut again = log.again(&f);
    reads(&mut f, &["2", "3", "4"]);
    assert_eq!(f.counts().truncated, 1);
    reads(&mut again, &["!log-rotated-away", "2", "3", "4"]);
}

#[test]
fn a_writer_with_its_own_offset_leaves_nuls() {
    let log = Log::new();
    let mut writer = fs::File::create(log.path()).unwrap();
    writer.write_all(&b"x".repeat(300)).unwrap();
    writer.write_all(b"\n").unwrap();
    let mut f = log.follow();
    assert_eq!(drain(&mut f).len(), 1);
    writer.set_len(0).unwrap();
    writer.write_all(b"after\n").unwrap();
    reads(&mut f, &["after"]);
    assert_eq!(f.counts().lines.nul_bytes, 301);
}

#[test]
fn the_same_content_moved_into_place_is_not_read_again() {
    let log = Log::new();
    log.append("dns.log", "1\n2\n");
    let mut f = log.follow();
    reads(&mut f, &["1", "2"]);
    fs::copy(log.path(), log.at("tmp")).unwrap();
    log.append("tmp", "3\n");
    log.rename("tmp", "dns.log");
    let mut again = log.again(&f);
    reads(&mut f, &["3"]);
    reads(&mut again, &["3"]);
}

#[test]
fn restart_inside_a_line_that_is_too_long() {
    let log = Log::new();
    log.append("dns.log", &format!("1\n{}", "x".repeat(20_000)));
    let mut f = log.follow();
    reads(&mut f, &["1"]);
    let mut again = log.again(&f);
    log.append("dns.log", "yyy\n2\n");
    reads(&mut f, &["2"]);
    reads(&mut again, &["2"]);
    assert_eq!(f.counts().lines.too_long, 1);
}

#[test]
fn an_unreadable_log_is_an_error() {
    let log = Log::new();
    fs::create_dir(log.path()).unwrap();
    assert!(log.follow().step().is_err());
    // A pipe without a writer must not block.
    let log = Log::new();
    let made = std::process::Command::new("mkfifo").arg(log.path()).status().unwrap();
    assert!(made.success());
    let error = log.follow().step().unwrap_err().to_string();
    assert!(error.contains("no regular file"), "{error}");
}

/// A small generator: the tests need no better one, and the seed is all of its state.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// The writer's side of the model: it numbers its lines and writes them in pieces.
struct Writer {
    log: Log,
    file: fs::File,
    pending: Vec<u8>,
    written: u64,
}

impl Writer {
    fn new() -> Self {
        let log = Log::new();
        let file = OpenOptions::new().append(true).create(true).open(log.path()).unwrap();
        Self { log, file, pending: Vec::new(), written: 0 }
    }
    fn write(&mut self, random: &mut Random) {
        for _ in 0..random.below(40) {
            let filler = "abcdefghij".repeat(usize::try_from(random.below(12)).unwrap());
            self.pending.extend(format!("{} {filler}\n", self.written).bytes());
            self.written += 1;
        }
        let all = random.below(3) > 0;
        let n = if all { self.pending.len() } else { self.pending.len() / 2 };
        let rest = self.pending.split_off(n);
        self.file.write_all(&self.pending).unwrap();
        self.pending = rest;
    }
    /// A writer changes files between lines.
    fn finish_line(&mut self) {
        self.file.write_all(&self.pending).unwrap();
        self.pending.clear();
    }
    fn shift(&self) {
        let numbers = (1..).take_while(|n| self.log.at(&format!("dns.log.{n}")).exists()).count();
        for n in (1..=numbers).rev() {
            self.log.rename(&format!("dns.log.{n}"), &format!("dns.log.{}", n + 1));
        }
    }
    fn rotate(&mut self, random: &mut Random) {
        self.shift();
        self.log.rename("dns.log", "dns.log.1");
        // The writer learns of it late.
        self.write(random);
        self.finish_line();
        self.file = OpenOptions::new().append(true).create(true).open(self.log.path()).unwrap();
    }
    fn copytruncate(&mut self) {
        // Of a line half written at that moment, one half is lost to everyone.
        self.finish_line();
        self.shift();
        // Coarser than any file system's time stamps, as real rotations are.
        std::thread::sleep(std::time::Duration::from_millis(12));
        self.log.copytruncate("dns.log.1");
    }
}

/// The reader's side: what it has read, and how much of that was committed with a position.
struct Reader {
    follower: Follower,
    read: Vec<u64>,
    committed: (usize, Option<Vec<u8>>),
}

impl Reader {
    fn new(log: &Log) -> Self {
        Self { follower: log.follow(), read: Vec::new(), committed: (0, None) }
    }
    fn read(&mut self, most: u64) {
        for _ in 0..most {
            match self.follower.step().unwrap() {
                Step::Line(line) => {
                    let text = std::str::from_utf8(line).unwrap();
                    self.read.push(text.split(' ').next().unwrap().parse().unwrap());
                }
                Step::Idle => return,
                Step::Loss(loss) => panic!("{loss:?} after line {:?}", self.read.last()),
            }
        }
    }
    fn commit(&mut self) {
        let value = self.follower.position().map(|p| serde_json::to_vec(&p).unwrap());
        self.committed = (self.read.len(), value);
    }
    fn kill(&mut self, log: &Log) {
        self.read.truncate(self.committed.0);
        self.follower = match &self.committed.1 {
            Some(value) => Follower::resume(log.path(), serde_json::from_slice(value).unwrap()),
            None => log.follow(),
        };
    }
}

fn model(seed: u64) {
    let mut random = Random(seed | 1);
    let mut writer = Writer::new();
    let mut reader = Reader::new(&writer.log);
    reader.read(1);
    reader.commit();
    for _ in 0..random.below(120) {
        match random.below(16) {
            0 => writer.rotate(&mut random),
            1 => writer.copytruncate(),
            2 => reader.kill(&writer.log),
            3 | 4 => reader.commit(),
            5..=8 => {
                let most = random.below(60);
                reader.read(most);
            }
            _ => writer.write(&mut random),
        }
        let expected: Vec<u64> = (0..reader.read.len() as u64).collect();
        assert_eq!(reader.read, expected, "seed {seed}");
    }
    writer.finish_line();
    writer.write(&mut random);
    writer.finish_line();
    reader.read(u64::MAX);
    let expected: Vec<u64> = (0..writer.written).collect();
    assert_eq!(reader.read, expected, "seed {seed}");
}

/// Any history of writing, rotating, copying and truncating, and of reading, committing
/// and being killed: every line once, in order. `AGENTMON_SEED` repeats one.
#[test]
fn every_line_exactly_once_in_any_history() {
    if let Ok(seed) = std::env::var("AGENTMON_SEED") {
        return model(seed.parse().expect("AGENTMON_SEED is a number"));
    }
    let base = std::hash::RandomState::new().build_hasher().finish();
    for i in 0..60u64 {
        let seed = base ^ i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        eprintln!("seed {seed}");
        model(seed);
    }
}

/// A writer and a reader at the same time, with rotations under both.
#[test]
fn a_writer_at_full_speed() {
    const LINES: u64 = 200_000;
    let log = Log::new();
    log.append("dns.log", "");
    let mut reader = Reader::new(&log);
    reader.read(1);
    let path = log.path();
    let writer = std::thread::spawn(move || {
        let open = || OpenOptions::new().append(true).create(true).open(&path).unwrap();
        let mut file = open();
        for block in 0..LINES / 100 {
            let text: String =
                (0..100).map(|i| format!("{} abcdefghij\n", block * 100 + i)).collect();
            let (first, second) = text.split_at(text.len() / 3);
            file.write_all(first.as_bytes()).unwrap();
            file.write_all(second.as_bytes()).unwrap();
            if block % 150 == 149 {
                for n in (1..20u32).rev() {
                    let name = |n| path.with_extension(format!("log.{n}"));
                    if name(n).exists() {
                        fs::rename(name(n), name(n + 1)).unwrap();
                    }
                }
                fs::rename(&path, path.with_extension("log.1")).unwrap();
                file = open();
            }
        }
    });
    loop {
        let written = writer.is_finished();
        reader.read(u64::MAX);
        if written {
            break;
        }
    }
    writer.join().unwrap();
    let wrong = reader.read.iter().copied().zip(0..).find(|(got, want)| got != want);
    assert_eq!((wrong, reader.read.len() as u64), (None, LINES), "{:?}", reader.follower.counts());
    assert_eq!(reader.follower.counts().rotated, LINES / 100 / 150);
}
