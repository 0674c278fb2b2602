//! Rotation, truncation and lost connections, over this machine's disk as SFTP shows it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;

use proptest::prelude::*;

use super::*;

/// The disk, with nothing told that SFTP does not tell.
struct Disk;

fn about(meta: &fs::Metadata) -> About {
    let changed = u32::try_from(meta.mtime()).unwrap();
    About { size: meta.len(), changed, mode: Some(meta.mode()) }
}

fn there<T>(outcome: io::Result<T>) -> io::Result<Option<T>> {
    match outcome {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

impl Files for Disk {
    type File = File;
    type Error = io::Error;
    fn open(&mut self, path: &str) -> io::Result<Option<File>> {
        there(File::open(path))
    }
    fn close(&mut self, _: File) -> io::Result<()> {
        Ok(())
    }
    fn read(&mut self, file: &File, at: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut space = vec![0; length.min(READ_BYTES as usize)];
        let n = file.read_at(&mut space, at)?;
        space.truncate(n);
        Ok(space)
    }
    fn about(&mut self, path: &str) -> io::Result<Option<About>> {
        Ok(there(fs::metadata(path))?.map(|meta| about(&meta)))
    }
    fn about_open(&mut self, file: &File) -> io::Result<About> {
        Ok(about(&file.metadata()?))
    }
    fn list(&mut self, folder: &str) -> io::Result<Vec<(String, About)>> {
        let entries = fs::read_dir(folder)?.map(|entry| {
            let entry = entry?;
            Ok((entry.file_name().into_string().unwrap(), about(&entry.metadata()?)))
        });
        entries.collect()
    }
}

struct Log {
    dir: tempfile::TempDir,
    /// Files are dated by hand: a second each.
    now: u64,
}

impl Log {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), now: 1_000 }
    }
    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
    fn path(&self) -> String {
        self.at("dns.log").to_str().unwrap().to_owned()
    }
    fn dated(&mut self, file: &File) {
        self.now += 1;
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(self.now);
        file.set_modified(time).unwrap();
    }
    fn append(&mut self, text: &str) {
        let mut file =
            OpenOptions::new().append(true).create(true).open(self.at("dns.log")).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        self.dated(&file);
    }
    /// Empty files count too, so that many are kept.
    fn shift(&self) {
        for n in (1..50).rev() {
            let _none = fs::rename(
                self.at(&format!("dns.log.{n}")),
                self.at(&format!("dns.log.{}", n + 1)),
            );
        }
    }
    fn rename(&mut self) {
        self.shift();
        let _none = fs::rename(self.at("dns.log"), self.at("dns.log.1"));
        let file = File::create(self.at("dns.log")).unwrap();
        self.dated(&file);
    }
    fn copytruncate(&mut self) {
        self.shift();
        fs::copy(self.at("dns.log"), self.at("dns.log.1")).unwrap();
        self.dated(&File::options().write(true).open(self.at("dns.log.1")).unwrap());
        let file = OpenOptions::new().write(true).open(self.at("dns.log")).unwrap();
        file.set_len(0).unwrap();
        self.dated(&file);
    }
    fn follow(&self) -> Follower<File> {
        Follower::new(&self.path(), true)
    }
    /// As after a restart: only the encoded place is left.
    fn again(&self, follower: &Follower<File>) -> Follower<File> {
        let saved = serde_json::to_vec(&follower.place().unwrap()).unwrap();
        Follower::resume(&self.path(), serde_json::from_slice(&saved).unwrap())
    }
}

/// All lines up to the second idle moment: a look may only find out that the file is another.
fn drain(follower: &mut Follower<File>) -> Vec<String> {
    let (mut found, mut idle) = (Vec::new(), 0);
    while idle < 2 {
        match follower.step(&mut Disk).unwrap() {
            Step::Line(line) => found.push(String::from_utf8_lossy(line).into_owned()),
            Step::Loss(loss) => found.push(format!("!{}", loss.reason)),
            Step::Idle => idle += 1,
        }
    }
    found
}

#[track_caller]
fn reads(follower: &mut Follower<File>, expected: &[&str]) {
    assert_eq!(drain(follower), expected);
}

#[test]
fn from_the_begin_and_from_the_end() {
    let mut log = Log::new();
    let mut absent = Follower::new(&log.path(), false);
    reads(&mut absent, &[]);
    assert!(!absent.is_open());
    log.append("one\ntw");
    reads(&mut absent, &["one"]);
    reads(&mut log.follow(), &["one"]);
    let mut end = Follower::new(&log.path(), false);
    reads(&mut end, &[]);
    log.append("o\nthree\n");
    reads(&mut end, &["three"]);
    reads(&mut absent, &["two", "three"]);
}

#[test]
fn renamed_while_the_writer_goes_on() {
    let mut log = Log::new();
    log.append("one\n");
    let mut follower = log.follow();
    reads(&mut follower, &["one"]);
    log.rename();
    let mut old = OpenOptions::new().append(true).open(log.at("dns.log.1")).unwrap();
    old.write_all(b"two\n").unwrap();
    reads(&mut follower, &["two"]);
    old.write_all(b"three\n").unwrap();
    log.append("four\n");
    reads(&mut follower, &["three", "four"]);
    assert_eq!(follower.counts().rotated, 1);
}

#[test]
fn copied_and_truncated_with_lines_unread() {
    for grows in ["five\n", "five, which is longer than everything that was there before it\n"] {
        let mut log = Log::new();
        log.append("one\n");
        let mut follower = log.follow();
        reads(&mut follower, &["one"]);
        log.append("two\nthr");
        reads(&mut follower, &["two"]);
        log.append("ee\nfour\n");
        log.copytruncate();
        log.append(grows);
        reads(&mut follower, &["three", "four", grows.trim_end()]);
        assert_eq!((follower.counts().truncated, follower.counts().lost_rotated), (1, 0));
    }
}

#[test]
fn rotated_several_times_while_away() {
    let mut log = Log::new();
    log.append("one\n");
    let mut follower = log.follow();
    reads(&mut follower, &["one"]);
    log.append("two\n");
    log.rename();
    log.append("three\n");
    log.copytruncate();
    log.append("four\n");
    reads(&mut log.again(&follower), &["two", "three", "four"]);
    follower.disconnected();
    reads(&mut follower, &["two", "three", "four"]);
    reads(&mut follower, &[]);
}

#[test]
fn what_was_compressed_is_told_as_lost() {
    let mut log = Log::new();
    log.append("one\n");
    let mut follower = log.follow();
    reads(&mut follower, &["one"]);
    log.rename();
    fs::rename(log.at("dns.log.1"), log.at("dns.log.1.gz")).unwrap();
    log.append("three\n");
    reads(&mut log.again(&follower), &["!log-rotated-away", "three"]);
    // Who had it open has missed nothing.
    reads(&mut follower, &["three"]);
}

#[test]
fn a_copy_moved_into_place_is_not_read_again() {
    let mut log = Log::new();
    log.append("one\ntwo\n");
    let mut follower = log.follow();
    reads(&mut follower, &["one", "two"]);
    fs::copy(log.at("dns.log"), log.at("new")).unwrap();
    fs::rename(log.at("new"), log.at("dns.log")).unwrap();
    log.append("three\n");
    reads(&mut follower, &["three"]);
}

#[test]
fn names_of_files() {
    for (path, fine) in [
        ("/var/log/a.log", true),
        ("/a", true),
        ("a.log", false),
        ("/var/", false),
        ("/a\0b", false),
    ] {
        assert_eq!(is_path(path), fine, "{path}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever is done between two looks: each line comes once, in order, over restarts.
    #[test]
    fn every_line_once(acts in proptest::collection::vec((0u8..8, 1usize..400), 1..40)) {
        let mut log = Log::new();
        let mut follower = log.follow();
        let (mut written, mut read) = (0u32, Vec::new());
        log.append("line 0\n");
        read.extend(drain(&mut follower));
        for (act, size) in acts {
            match act {
                0..=3 => {
                    written += 1;
                    log.append(&format!("line {written}{}\n", " ".repeat(size)));
                }
                4 => log.rename(),
                5 => log.copytruncate(),
                6 => read.extend(drain(&mut follower)),
                _ => {
                    read.extend(drain(&mut follower));
                    follower = log.again(&follower);
                }
            }
        }
        read.extend(drain(&mut follower));
        let read: Vec<_> = read.iter().map(|line| line.trim_end().to_owned()).collect();
        let expected: Vec<_> = (0..=written).map(|n| format!("line {n}")).collect();
        prop_assert_eq!(read, expected);
    }
}
