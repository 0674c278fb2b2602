//! A file system that somebody else fills: the ring on a real tmpfs of 3 MiB.
//!
//! The test starts itself again inside a mount namespace of its own, where it may mount the
//! tmpfs; everything goes away with that process. Needs root or unprivileged user
//! namespaces; where neither is there it says so loudly, and fails when
//! `AGENTMON_REQUIRE_LAB` is set.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use agentmon_core::time::SystemClock;
use agentmon_router::counters::Counters;
use agentmon_router::ring::{Config, RING_BYTES_MIN, Ring, RingError, Unstored};

/// Set in the inner process: where the tmpfs is.
const INSIDE: &str = "AGENTMON_TEST_TMPFS";

#[test]
fn a_full_file_system_loses_nothing_silently_and_heals() {
    if let Ok(dir) = std::env::var(INSIDE) {
        return inside(Path::new(&dir));
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let script = "mount -t tmpfs -o size=3m none \"$1\" && exec \"$2\" --exact \
                  a_full_file_system_loses_nothing_silently_and_heals --nocapture";
    let mut command = Command::new("unshare");
    command.args(if is_root() { &["--mount"][..] } else { &["--mount", "--map-root-user"] });
    command.args(["sh", "-c", script, "sh"]).arg(dir.path());
    command.arg(std::env::current_exe().expect("this program")).env(INSIDE, dir.path());
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => return skipped(&error.to_string()),
    };
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() && !out.contains("running 1 test") {
        return skipped(&err);
    }
    assert!(output.status.success(), "{out}{err}");
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    Path::new("/proc/self").metadata().is_ok_and(|meta| meta.uid() == 0)
}

fn skipped(why: &str) {
    eprintln!("SKIPPED: a tmpfs cannot be mounted in a namespace: {why}");
    assert!(std::env::var_os("AGENTMON_REQUIRE_LAB").is_none(), "{why}");
}

fn batch(from: u64) -> Vec<Vec<u8>> {
    (from..from + 100).map(|i| i.to_le_bytes().repeat(25)).collect()
}

fn inside(dir: &Path) {
    let path = dir.join("ring.db");
    let config = Config { path: path.clone(), bytes_max: RING_BYTES_MIN, ..Config::default() };
    let counters = Counters::default();
    let ring = Ring::open(&config, &counters, Arc::new(SystemClock)).expect("there is room");
    ring.append(&batch(0), &[]).expect("there is room");

    // Somebody else takes every byte that is left.
    let hog = dir.join("hog");
    let mut size = 64 * 1024;
    while size >= 64 {
        let mut content = std::fs::read(&hog).unwrap_or_default();
        content.resize(content.len() + size, 7);
        if std::fs::write(&hog, &content).is_err() {
            content.truncate(content.len() - size);
            std::fs::write(&hog, &content).expect("it fitted before");
            size /= 2;
        }
    }
    let (mut next, mut refused) = (100, 0);
    for _ in 0..50 {
        match ring.append(&batch(next), &[]) {
            Ok(()) => {}
            Err(RingError::DiskFull { .. }) => {
                ring.give_up(100, Unstored::DiskFull);
                refused += 100;
            }
            Err(error) => panic!("{error}"),
        }
        next += 100;
        assert!(ring.status().conserves(), "{:?}", ring.status());
    }
    assert!(refused > 0, "the file system was not full");

    // An acknowledgement that cannot be written yet is not forgotten, nor sent again.
    let first = ring.peek(50, usize::MAX).expect("readable").expect("something waits");
    drop(ring.ack(first.epoch, first.last_seq()));
    let second = ring.peek(50, usize::MAX).expect("readable").expect("something waits");
    assert_eq!(second.first_seq, first.last_seq() + 1);

    std::fs::remove_file(&hog).expect("ours");
    ring.append(&batch(next), &[]).expect("there is room again");
    let status = ring.status();
    assert!(status.conserves() && status.acked == 50, "{status:?}");
    assert_eq!(status.dropped.get("disk_full"), Some(&refused));
    assert_eq!(counters.snapshot()["drop.ring.disk_full"], refused);
    drop(ring);

    let again = Ring::open(&config, &Counters::default(), Arc::new(SystemClock)).expect("sound");
    assert_eq!(again.status().dropped, status.dropped);
    assert_eq!(again.status().pending, status.pending);
    let mut events = Vec::new();
    while let Some(peeked) = again.peek(500, usize::MAX).expect("readable") {
        again.ack(peeked.epoch, peeked.last_seq()).expect("there is room");
        events.extend(peeked.events);
    }
    assert!(events.ends_with(&batch(next)), "the newest are there");
}
