//! Killed in the middle of it: a child process stores batches as fast as it can and says
//! after each commit how far it is; it is killed at some instant, the file opened again.
//!
//! Checks C2 and C3: what was acknowledged is there, rows and cursor agree, and sending
//! everything again stores each event once.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use agentmon_core::Event;
use agentmon_core::event::{Body, Endpoint, Flow, FlowPhase, Volume};
use agentmon_core::time::{Clock, SystemClock};
use agentmon_core::wire::{self, Batch, Health};
use agentmon_router::counters::Counters;

use super::Limits;
use super::writer::Writer;
use crate::ingest::Incoming;

const BATCH: u64 = 500;
const DIR: &str = "AGENTMON_TEST_CRASH_DIR";

fn writer(dir: &Path) -> Writer {
    Writer::open(
        dir,
        &Limits { memory_mib: 256, threads: 1, log_mib: 1 },
        Counters::default(),
        Arc::new(SystemClock),
    )
    .unwrap()
}

/// Event `seq` carries its own number as bytes, so that sums show every loss and double.
fn send(writer: &mut Writer, first_seq: u64) -> u64 {
    let now = SystemClock.wall();
    let event = |seq: u64| {
        let flow = Flow {
            id: seq,
            phase: FlowPhase::End,
            proto: 6,
            src: Endpoint::new([192, 0, 2, 1].into(), 1),
            dst: Endpoint::new([203, 0, 113, 1].into(), 443),
            nat_src: None,
            nat_dst: None,
            start: None,
            duration_ms: None,
            volume: Some(Volume { bytes_out: seq, ..Volume::default() }),
            tcp_state: None,
            replied: true,
            offloaded: false,
            iface: None,
            mac: None,
            resolved: None,
        };
        wire::encode_event(&Event { time: now, body: Body::Flow(flow) })
    };
    let events = (first_seq..first_seq + BATCH).map(event).collect();
    let batch = Batch { epoch: 1, first_seq, events, health: Health::default(), sent: now };
    writer.store(vec![Incoming::from_batch(&batch, 1, now, None)]).unwrap()[0].acked.unwrap()
}

fn child(dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "store::crash_tests::store_until_killed", "--nocapture"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
#[ignore = "run by killed_in_the_middle in a process of its own"]
fn store_until_killed() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let mut writer = writer(dir.as_ref());
    let from: u64 = std::fs::read_to_string(Path::new(&dir).join("from")).unwrap().parse().unwrap();
    let mut out = std::io::stdout();
    for n in 0.. {
        let acked = send(&mut writer, from + n * BATCH);
        writeln!(out, "acked {acked}").unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn killed_in_the_middle() {
    let dir = tempfile::tempdir().unwrap();
    let mut next = 1;
    // The instants are whatever the machine's load makes them; each run has others.
    for round in 0..4u64 {
        std::fs::write(dir.path().join("from"), next.to_string()).unwrap();
        let mut child = child(dir.path());
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut acked = next - 1;
        let mut take = |lines: &mut dyn Iterator<Item = std::io::Result<String>>, most: usize| {
            let numbers =
                lines.map_while(Result::ok).filter_map(|l| l.strip_prefix("acked ")?.parse().ok());
            numbers.take(most).for_each(|n: u64| acked = n);
        };
        take(&mut lines, 5 + usize::try_from(round).unwrap() * 7);
        std::thread::sleep(Duration::from_millis(round * 3));
        child.kill().unwrap();
        // What it had said before it died counts too.
        take(&mut lines, usize::MAX);
        child.wait().unwrap();
        assert!(acked >= next + 4 * BATCH, "the child did not work: {acked}");

        let mut writer = writer(dir.path());
        let one = |sql: &str| -> i64 {
            writer.readers().get().unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
        };
        let stored = u64::try_from(one("SELECT max(seq)::BIGINT FROM ingest_cursor")).unwrap();
        assert!(stored >= acked, "acknowledged {acked}, stored {stored}");
        assert_eq!(stored % BATCH, 0, "no half batch");
        check(stored, &one);
        // The sender did not hear the last answers and sends from where it had heard.
        let mut again = acked + 1;
        while again <= stored + BATCH {
            send(&mut writer, again);
            again += BATCH;
        }
        let one = |sql: &str| -> i64 {
            writer.readers().get().unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
        };
        check(again - 1, &one);
        next = again;
    }
}

/// Exactly the events 1 to `last` are there.
#[track_caller]
fn check(last: u64, one: &dyn Fn(&str) -> i64) {
    let last = i64::try_from(last).unwrap();
    assert_eq!(one("SELECT count(*) FROM flows_done"), last);
    assert_eq!(one("SELECT sum(bytes_out)::BIGINT FROM flows_done"), last * (last + 1) / 2);
    assert_eq!(one("SELECT sum(events)::BIGINT FROM ingest_cursor"), last);
}
