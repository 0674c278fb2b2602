//! A full disk: the batch is refused as such, nothing of it is stored, and when there is
//! room again the same writer goes on.
//!
//! The full disk is a limit on the size of files (`RLIMIT_FSIZE`), set and lifted from
//! outside with prlimit(1): the kernel then fails writes with EFBIG, as ENOSPC would.

use std::process::Command;
use std::sync::Arc;

use agentmon_core::Event;
use agentmon_core::event::{Answer, Body, Dns};
use agentmon_core::sample;
use agentmon_core::time::{Clock, SystemClock};
use agentmon_core::wire::{self, Batch, Health};
use agentmon_router::counters::Counters;

use super::writer::Writer;
use super::{Limits, StoreError};
use crate::ingest::Incoming;

const DIR: &str = "AGENTMON_TEST_DISK_DIR";
const LOG_MIB: &str = "AGENTMON_TEST_LOG_MIB";

fn limit(bytes: &str) {
    let pid = std::process::id().to_string();
    let status =
        Command::new("prlimit").args(["--pid", &pid, &format!("--fsize={bytes}:")]).status();
    assert!(status.unwrap().success());
}

/// 2,000 exchanges that do not compress.
fn send(writer: &mut Writer, first_seq: u64) -> Result<(), StoreError> {
    let now = SystemClock.wall();
    let event = |seq: u64| {
        let noise = seq.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let name = format!("{noise:016x}{:016x}.example", noise.rotate_left(17));
        let square = u128::from(noise) * u128::from(noise);
        let body = Body::Dns(Dns {
            client: std::net::Ipv4Addr::from((noise >> 32) as u32).into(),
            answers: vec![Answer::Other(format!("{square:032x}"))],
            latency_us: Some((noise >> 8) as u32),
            ..sample::dns("192.0.2.9", &name, &[])
        });
        wire::encode_event(&Event { time: now, body })
    };
    let events = (first_seq..first_seq + 2_000).map(event).collect();
    let batch = Batch { epoch: 1, first_seq, events, health: Health::default(), sent: now };
    writer.store(vec![Incoming::from_batch(&batch, 1, now, None)]).map(drop)
}

#[test]
#[ignore = "run by the other tests in a process of its own"]
fn fill_the_disk() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let log_mib = std::env::var(LOG_MIB).unwrap().parse().unwrap();
    let limits = Limits { memory_mib: 256, threads: 1, log_mib };
    let mut writer =
        Writer::open(dir.as_ref(), &limits, Counters::default(), Arc::new(SystemClock)).unwrap();
    let count = |writer: &Writer| -> i64 {
        let reader = writer.readers().get().unwrap();
        reader.query_row("SELECT count(*) FROM dns", [], |row| row.get(0)).unwrap()
    };
    let mut next = 1;
    for round in 0..3 {
        limit(&(2_000_000 * (round + 1)).to_string());
        let error = loop {
            match send(&mut writer, next) {
                Ok(()) => next += 2_000,
                Err(error) => break error,
            }
            assert!(next < 1_000_000, "the disk never got full");
        };
        assert!(matches!(error, StoreError::DiskFull(_)), "{error}");
        assert!(matches!(send(&mut writer, next), Err(StoreError::DiskFull(_))), "still full");
        limit("unlimited");
        assert_eq!(count(&writer), i64::try_from(next).unwrap() - 1, "nothing of it is stored");
        send(&mut writer, next).unwrap();
        next += 2_000;
        assert_eq!(count(&writer), i64::try_from(next).unwrap() - 1);
    }
    writer.close().unwrap();
}

#[test]
fn a_full_disk_loses_nothing() {
    check("64");
}

/// Here it is the folding in of the log that fails, after the commit: DuckDB then refuses
/// everything until the file is opened anew.
#[test]
fn a_full_disk_in_a_checkpoint_loses_nothing() {
    check("1");
}

#[track_caller]
fn check(log_mib: &str) {
    let dir = tempfile::tempdir().unwrap();
    // The signal's default would kill the process; ignored, the write fails instead.
    let test = "exec \"$0\" --ignored --exact store::disk_tests::fill_the_disk --nocapture";
    let out = Command::new("sh")
        .args(["-c", &format!("trap '' XFSZ; {test}")])
        .arg(std::env::current_exe().unwrap())
        .env(DIR, dir.path())
        .env(LOG_MIB, log_mib)
        .output()
        .unwrap();
    let text = [out.stdout, out.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(out.status.success(), "{text}");
    assert!(text.contains("1 passed"), "{text}");
    // And another process finds it sound.
    let connection = super::open_read(dir.path(), &Limits::default()).unwrap();
    let rows: i64 = connection.query_row("SELECT count(*) FROM dns", [], |row| row.get(0)).unwrap();
    assert!(rows > 0 && rows % 2_000 == 0, "{rows}");
}
