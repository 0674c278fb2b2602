//! The router's ring: how fast it takes events, and what it writes to disk for each.
//!
//! Flow records as the wire encodes them, in batches of 1,000 as the pipeline commits them:
//! into an empty ring, into a full one (every append evicts), and through it (append, peek,
//! acknowledge). The peer is a plain SQLite table, one transaction per event (write-ahead
//! log, synchronous NORMAL): what a straightforward program does. "Written" is what the
//! kernel charges this process (`write_bytes` in /proc/self/io), so the files must be on a
//! real disk.

use std::path::Path;
use std::sync::Arc;

use agentmon_core::time::SystemClock;
use agentmon_core::wire::encode_event;
use agentmon_router::counters::Counters;
use agentmon_router::ring::{Config, Ring};

use crate::measure::{Stopwatch, cpu, written_bytes};
use crate::report::{Figure, Goal, Peer, Report, talk};
use crate::synthetic::Home;
use crate::world::scratch;

const BATCH: usize = 1_000;
const BATCHES: usize = 400;
/// About a third of what is appended fits: the rest is evicted.
const SMALL_RING_BYTES: u64 = 16 * 1024 * 1024;
const LARGE_RING_BYTES: u64 = 256 * 1024 * 1024;
/// The peer is slow.
const PEER_EVENTS: usize = 20_000;
const PEER: &str = "SQLite, a transaction per event";

/// One stretch of work.
struct Measured {
    per_second: f64,
    cpu_us: f64,
    bytes_per_event: f64,
}

pub(crate) fn run(report: &mut Report) -> anyhow::Result<()> {
    let dir = scratch()?;
    let mut home = Home::new(1);
    let mut batch = || (0..BATCH).map(|_| encode_event(&home.flow())).collect();
    let batches: Vec<Vec<Vec<u8>>> = (0..BATCHES).map(|_| batch()).collect();
    let encoded: usize = batches.iter().flatten().map(Vec::len).sum();
    let events = (BATCH * BATCHES) as f64;
    report.add(Figure::new("encoded flow record", encoded as f64 / events, "B"))?;

    talk("ring: the peer");
    let peer = plain_sqlite(&dir.path().join("plain.db"), batches.iter().flatten())?;
    let peer_named = |value| Peer::measured(PEER, value);
    if peer.bytes_per_event == 0.0 {
        talk(&format!("ring: {} IS NO DISK: written bytes mean nothing", dir.path().display()));
    }

    for (what, bytes_max, acknowledge) in [
        ("append", LARGE_RING_BYTES, false),
        ("append to a full ring", SMALL_RING_BYTES, false),
        ("append, peek, acknowledge", SMALL_RING_BYTES, true),
    ] {
        talk(&format!("ring: {what}"));
        let path = dir.path().join(format!("{bytes_max}-{acknowledge}.db"));
        let measured = through_ring(&path, bytes_max, &batches, acknowledge)?;
        report.add(
            Figure::new(what, measured.per_second, "events/s")
                .peer(peer_named(peer.per_second))
                .goal(Goal::AtLeast(100_000.0)),
        )?;
        report.add(
            Figure::new(&format!("CPU: {what}"), measured.cpu_us, "us/event")
                .peer(peer_named(peer.cpu_us)),
        )?;
        report.add(
            Figure::new(&format!("written: {what}"), measured.bytes_per_event, "B/event")
                .peer(peer_named(peer.bytes_per_event)),
        )?;
    }
    Ok(())
}

fn through_ring(
    path: &Path,
    bytes_max: u64,
    batches: &[Vec<Vec<u8>>],
    acknowledge: bool,
) -> anyhow::Result<Measured> {
    let config = Config { path: path.to_owned(), bytes_max, ..Config::default() };
    let ring = Ring::open(&config, &Counters::default(), Arc::new(SystemClock))?;
    let measured = measure(batches.iter().map(Vec::len).sum(), || {
        for batch in batches {
            ring.append(batch, &[])?;
            if acknowledge && let Some(peeked) = ring.peek(BATCH, usize::MAX)? {
                ring.ack(peeked.epoch, peeked.last_seq())?;
            }
        }
        Ok(())
    })?;
    anyhow::ensure!(ring.status().conserves(), "the account does not add up");
    Ok(measured)
}

fn plain_sqlite<'a>(
    path: &Path,
    events: impl Iterator<Item = &'a Vec<u8>>,
) -> anyhow::Result<Measured> {
    let conn = rusqlite::Connection::open(path)?;
    conn.pragma_update(None, "journal_mode", "wal")?;
    conn.pragma_update(None, "synchronous", "normal")?;
    conn.execute_batch("CREATE TABLE events(seq INTEGER PRIMARY KEY, data BLOB)")?;
    let mut insert = conn.prepare("INSERT INTO events(data) VALUES (?)")?;
    measure(PEER_EVENTS, || {
        for event in events.take(PEER_EVENTS) {
            insert.execute([event])?;
        }
        Ok(())
    })
}

fn measure(events: usize, work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Measured> {
    let me = std::process::id();
    let (written, used, watch) = (written_bytes(me)?, cpu(me)?, Stopwatch::start());
    work()?;
    let seconds = watch.elapsed().as_secs_f64();
    let used = cpu(me)?.since(used).total();
    let bytes = written_bytes(me)? - written;
    let events = events as f64;
    Ok(Measured {
        per_second: events / seconds,
        cpu_us: used * 1e6 / events,
        bytes_per_event: bytes as f64 / events,
    })
}
