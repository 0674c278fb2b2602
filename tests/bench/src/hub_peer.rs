//! The hub's peer: the same batches into a plain SQLite table, a transaction per batch.
//!
//! What a straightforward collector does, and how Pi-hole keeps its long-term data: rows of
//! the same columns as the hub's `flows`, addresses as text, one index on the time. It
//! decodes the same encoded bodies; it has no network, no TLS, no second sensor at the same
//! time and correlates nothing, so the comparison favours it.

use std::path::Path;

use agentmon_core::event::{Body, Flow};
use agentmon_core::time::Timestamp;
use agentmon_core::wire::{decode_batch, decode_event};
use anyhow::bail;
use rusqlite::{Connection, Statement, params};

use crate::measure::{Stopwatch, cpu};

pub(crate) const NAME: &str = "SQLite, a transaction per batch";

/// The table of the hub's finished flows, as SQLite spells it.
const TABLE: &str = "CREATE TABLE flows (
    time INTEGER NOT NULL, sensor INTEGER NOT NULL, proto INTEGER NOT NULL,
    src TEXT NOT NULL, sport INTEGER NOT NULL, dst TEXT NOT NULL, dport INTEGER NOT NULL,
    nat_src TEXT, nat_sport INTEGER, start INTEGER, duration_ms INTEGER,
    bytes_out INTEGER, bytes_in INTEGER, packets_out INTEGER, packets_in INTEGER,
    tcp_state TEXT, replied INTEGER NOT NULL, iface TEXT, mac TEXT, name TEXT,
    name_age_ms INTEGER);
    CREATE INDEX flows_by_time ON flows (time)";
const INSERT: &str = "INSERT INTO flows VALUES \
    (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

/// What it came to.
pub(crate) struct Measured {
    pub(crate) per_second: f64,
    pub(crate) cpu_us: f64,
    pub(crate) bytes_per_row: f64,
}

/// Stores all bodies, one after the other.
pub(crate) fn run<'a>(
    path: &Path,
    bodies: impl Iterator<Item = &'a Vec<u8>>,
) -> anyhow::Result<Measured> {
    let mut conn = Connection::open(path)?;
    conn.pragma_update(None, "journal_mode", "wal")?;
    conn.pragma_update(None, "synchronous", "normal")?;
    conn.execute_batch(TABLE)?;
    let me = std::process::id();
    let (before, watch, mut rows) = (cpu(me)?, Stopwatch::start(), 0u64);
    for body in bodies {
        let batch = decode_batch(body)?;
        let tx = conn.transaction()?;
        {
            let mut insert = tx.prepare(INSERT)?;
            for event in &batch.events {
                let event = decode_event(event)?;
                let Body::Flow(flow) = event.body else { bail!("only flows were sent") };
                store(&mut insert, event.time, &flow)?;
                rows += 1;
            }
        }
        tx.commit()?;
    }
    let seconds = watch.elapsed().as_secs_f64();
    let used = cpu(me)?.since(before).total();
    conn.close().map_err(|(_, error)| error)?;
    let (bytes, rows) = (std::fs::metadata(path)?.len() as f64, rows as f64);
    Ok(Measured {
        per_second: rows / seconds,
        cpu_us: used * 1e6 / rows,
        bytes_per_row: bytes / rows,
    })
}

fn store(insert: &mut Statement<'_>, time: Timestamp, flow: &Flow) -> rusqlite::Result<()> {
    let text = |shown: &dyn std::fmt::Display| shown.to_string();
    let volume = flow.volume.as_ref();
    let signed = |n: u64| n.cast_signed();
    insert.execute(params![
        time.micros(),
        1,
        flow.proto,
        text(&flow.src.ip),
        flow.src.port,
        text(&flow.dst.ip),
        flow.dst.port,
        flow.nat_src.map(|end| text(&end.ip)),
        flow.nat_src.map(|end| end.port),
        flow.start.map(Timestamp::micros),
        flow.duration_ms.map(signed),
        volume.map(|v| signed(v.bytes_out)),
        volume.map(|v| signed(v.bytes_in)),
        volume.map(|v| signed(v.packets_out)),
        volume.map(|v| signed(v.packets_in)),
        flow.tcp_state.map(|state| state.as_str()),
        flow.replied,
        flow.iface.as_deref(),
        flow.mac.as_ref().map(|mac| text(mac)),
        flow.resolved.as_ref().map(|r| r.name.as_str()),
        flow.resolved.as_ref().map(|r| signed(r.age_ms)),
    ])?;
    Ok(())
}
