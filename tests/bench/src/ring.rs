//! The router's ring: how fast it takes events, and what it writes to disk for each.
//!
//! Flow records as the wire encodes them, in batches of 1,000 as the pipeline commits them:
//! into an empty ring, into a full one (every append evicts), and through it (append, peek,
//! acknowledge). The peer is SQLite as it comes, one transaction per event: what the ring
//! would be without batches and settings of its own. "Written" is what the kernel charges
//! this process (`write_bytes` in /proc/self/io), so the files must be on a real disk.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

use agentmon_core::event::{Body, Endpoint, Event, Flow, FlowPhase, TcpState, Volume};
use agentmon_core::time::{SystemClock, Timestamp};
use agentmon_core::wire::encode_event;
use agentmon_router::counters::Counters;
use agentmon_router::ring::{Config, Ring};
use anyhow::Context as _;

use crate::measure::Stopwatch;
use crate::report::{Figure, Goal, Peer, Report, talk};

const BATCH: usize = 1_000;
const BATCHES: usize = 400;
/// About a third of what is appended fits: the rest is evicted.
const SMALL_RING_BYTES: u64 = 16 * 1024 * 1024;
const LARGE_RING_BYTES: u64 = 256 * 1024 * 1024;
/// The peer is slow.
const PEER_EVENTS: usize = 2_000;

/// One stretch of work.
struct Measured {
    per_second: f64,
    bytes_per_event: f64,
}

pub(crate) fn run(report: &mut Report) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let batches: Vec<Vec<Vec<u8>>> = (0..BATCHES).map(batch).collect();
    let encoded: usize = batches.iter().flatten().map(Vec::len).sum();
    let events = (BATCH * BATCHES) as f64;
    report.add(Figure::new("encoded flow record", encoded as f64 / events, "B"))?;

    talk("ring: the peer, SQLite as it comes");
    let peer = plain_sqlite(&dir.path().join("plain.db"), batches.iter().flatten())?;
    let peer_named = |value| Peer::measured("SQLite, a transaction per event", value);

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
    let config = Config { path: path.to_owned(), bytes_max };
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
    let (before, watch) = (written()?, Stopwatch::start());
    work()?;
    let seconds = watch.elapsed().as_secs_f64();
    let bytes = written()? - before;
    let events = events as f64;
    Ok(Measured { per_second: events / seconds, bytes_per_event: bytes as f64 / events })
}

/// Bytes this process has sent to storage.
fn written() -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/self/io")?;
    let line = text.lines().find_map(|l| l.strip_prefix("write_bytes: "));
    Ok(line.context("/proc/self/io has no write_bytes")?.parse()?)
}

/// Flow records that differ as real ones do.
fn batch(n: usize) -> Vec<Vec<u8>> {
    (0..BATCH).map(|i| encode_event(&flow((n * BATCH + i) as u32))).collect()
}

fn flow(n: u32) -> Event {
    // Spread over addresses, ports and sizes by a multiplicative hash (Knuth).
    let mixed = n.wrapping_mul(2_654_435_761);
    let address = |base: u32, spread: u32| IpAddr::V4(Ipv4Addr::from(base + mixed % spread));
    let time = Timestamp::from_nanos(1_795_000_000_000_000_000 + i64::from(n) * 1_000_003);
    let body = Body::Flow(Flow {
        id: u64::from(mixed) << 32 | u64::from(n),
        phase: FlowPhase::End,
        proto: 6,
        src: Endpoint::new(address(0xc0a8_0002, 80), 1_024 + (mixed >> 16) as u16 / 2),
        dst: Endpoint::new(address(0xcb00_7100, 256), 443),
        nat_src: Some(Endpoint::new(address(0xc633_6401, 1), 1_024 + (mixed >> 17) as u16)),
        nat_dst: None,
        start: Some(time),
        duration_ms: Some(u64::from(mixed % 600_000)),
        volume: Some(Volume {
            bytes_out: u64::from(mixed % 100_000),
            bytes_in: u64::from(mixed % 1_000_000),
            packets_out: u64::from(mixed % 100),
            packets_in: u64::from(mixed % 1_000),
        }),
        tcp_state: Some(TcpState::TimeWait),
        replied: true,
        offloaded: false,
        iface: Some("br-lan".into()),
        mac: None,
        resolved: None,
    });
    Event { time, body }
}
