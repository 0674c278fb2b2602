//! One transaction: rows, cursors, health and counters together or not at all.
//!
//! In: a [`Staging`]. Out: a committed transaction, or an error and the file as before.
//! Runs on the writer thread.

use std::collections::HashMap;
use std::net::IpAddr;

use agentmon_core::Timestamp;
use agentmon_router::counters::Counters;
use duckdb::{Connection, params};

use super::StoreError;
use super::memory::{Memory, Reported};
use super::peers::Peers;
use super::rows::{
    CollectorRows, CounterRows, CursorRows, HubCounterRows, NameRows, OpenKeyRows, Rows,
};
use super::staging::{Contact, Staging};
use crate::alert::watch::{self, Hit, Watches};
use crate::alert::{self, News, rules};
use crate::authority::judge::Waits;

/// Names every counter and collector may have; what is longer is cut by the wire.
const COLLECTORS_MAX: usize = 64;

/// Writes everything; the caller has begun the transaction and commits or rolls back.
///
/// # Errors
/// What DuckDB says.
pub(super) fn flush(
    connection: &Connection,
    mut staging: Staging,
    memory: &mut Memory,
    counters: &Counters,
) -> Result<Vec<News>, StoreError> {
    staging.dns.append(connection)?;
    memory.peers.flush(connection)?;
    staging.done.append(connection)?;
    staging.firewall.append(connection)?;
    staging.gaps.append(connection)?;
    staging.processes.append(connection)?;
    staging.connections.append(connection)?;
    flush_open(connection, &mut staging, memory)?;
    flush_devices(connection, memory)?;
    let mut news = alert::fuse(connection, &staging.found, &mut memory.numbers)?;
    news.extend(follow(connection, &staging.followed, memory)?);
    if staging.found.iter().any(|seen| rules::of(&seen.finding.rule).waits) {
        memory.watches = Watches::load(connection)?;
    }
    for (sensor, contact) in &staging.contacts {
        flush_contact(connection, *sensor, contact, memory)?;
    }
    flush_cursors(connection, &staging)?;
    memory.arrivals.flush(connection)?;
    flush_counters(connection, memory, counters)?;
    Ok(news)
}

/// Alerts that these connections make of notes.
///
/// # Errors
/// What DuckDB says.
pub(super) fn follow(
    connection: &Connection,
    hits: &[Hit],
    memory: &mut Memory,
) -> Result<Vec<News>, StoreError> {
    let news = watch::follow(connection, hits)?;
    if !hits.is_empty() {
        memory.watches = Watches::load(connection)?;
    }
    Ok(news)
}

/// What became known of devices.
///
/// # Errors
/// What DuckDB says.
pub(super) fn flush_devices(
    connection: &Connection,
    memory: &mut Memory,
) -> Result<(), StoreError> {
    let mut written = memory.devices.rows();
    written.devices.upsert(connection, &["mac"])?;
    written.names.upsert(connection, &["mac", "source"])?;
    written.addresses.upsert(connection, &["mac", "ip", "stay"])
}

fn flush_open(
    connection: &Connection,
    staging: &mut Staging,
    memory: &mut Memory,
) -> Result<(), StoreError> {
    if staging.closed.rows > 0 {
        let stage = staging.closed.stage(connection)?;
        connection.execute_batch(&format!(
            "DELETE FROM flows_open AS f USING {stage} s WHERE f.sensor = s.sensor AND f.id = s.id;
             DROP TABLE {stage}"
        ))?;
    }
    staging.take_open(memory).append(connection)
}

fn flush_cursors(connection: &Connection, staging: &Staging) -> Result<(), StoreError> {
    let mut rows = CursorRows::default();
    for ((sensor, epoch), cursor) in &staging.cursors {
        rows.sensor.append_value(*sensor);
        rows.epoch.append_value(*epoch);
        rows.seq.append_value(cursor.seq);
        rows.events.append_value(cursor.events);
        rows.bad.append_value(cursor.bad);
        rows.updated.push(cursor.updated);
        rows.rows += 1;
    }
    rows.upsert(connection, &["sensor", "epoch"])?;
    for (sensor, epoch) in &staging.old_epochs {
        let sql = "DELETE FROM ingest_cursor WHERE sensor = ? AND epoch = ?";
        connection.execute(sql, params![sensor, epoch])?;
    }
    Ok(())
}

/// The sensor's row, and of its counters and collectors what has changed.
fn flush_contact(
    connection: &Connection,
    sensor: i32,
    contact: &Contact,
    memory: &mut Memory,
) -> Result<(), StoreError> {
    let health = &contact.health;
    connection.execute(
        "UPDATE sensors SET last_seen = make_timestamp(?), last_sent = make_timestamp(?),
             address = coalesce(?, address), version = ?, pending = ?, ring_bytes = ?
         WHERE id = ?",
        params![
            contact.received.micros(),
            clamp(contact.sent).micros(),
            contact.address,
            health.version,
            health.pending,
            health.ring_bytes,
            sensor
        ],
    )?;
    let new = Reported {
        counters: health.counters.iter().cloned().collect(),
        collectors: health.collectors.iter().take(COLLECTORS_MAX).cloned().collect(),
    };
    let old = memory.reported.entry(sensor).or_default();
    let (mut counters, mut collectors) = (CounterRows::default(), CollectorRows::default());
    for (name, value) in new.counters.iter().filter(|(n, v)| old.counters.get(*n) != Some(v)) {
        counters.sensor.append_value(sensor);
        counters.name.push(name);
        counters.value.append_value(*value);
        counters.rows += 1;
    }
    for (name, state) in new.collectors.iter().filter(|(n, s)| old.collectors.get(*n) != Some(s)) {
        collectors.sensor.append_value(sensor);
        collectors.name.push(name);
        collectors.state.push(state);
        collectors.rows += 1;
    }
    counters.upsert(connection, &["sensor", "name"])?;
    collectors.upsert(connection, &["sensor", "name"])?;
    // Gone ones go, so that made-up names cannot pile up.
    for name in old.counters.keys().filter(|n| !new.counters.contains_key(*n)) {
        let sql = "DELETE FROM sensor_counters WHERE sensor = ? AND name = ?";
        connection.execute(sql, params![sensor, name])?;
    }
    for name in old.collectors.keys().filter(|n| !new.collectors.contains_key(*n)) {
        let sql = "DELETE FROM sensor_collectors WHERE sensor = ? AND name = ?";
        connection.execute(sql, params![sensor, name])?;
    }
    *old = new;
    Ok(())
}

/// A wrong clock may say anything; the column shows years that people can read.
fn clamp(time: Timestamp) -> Timestamp {
    time.clamp(Timestamp::EPOCH, Timestamp::from_secs(4_102_444_800))
}

/// The hub's own counters, as far as they have changed. They go on from what the file has.
pub(super) fn flush_counters(
    connection: &Connection,
    memory: &mut Memory,
    counters: &Counters,
) -> Result<(), StoreError> {
    let now = counters.snapshot();
    // One that has never counted is no news.
    let changed = now
        .iter()
        .filter(|(name, value)| memory.counters.get(*name).copied().unwrap_or(0) != **value);
    let mut rows = HubCounterRows::default();
    for (name, value) in changed {
        rows.name.push(name);
        rows.value.append_value(*value);
        rows.rows += 1;
    }
    rows.upsert(connection, &["name"])?;
    memory.counters = now;
    Ok(())
}

/// Writes the names that came late to flows stored without one; returns how many rows.
///
/// # Errors
/// What DuckDB says.
pub(super) fn name_late(
    connection: &Connection,
    peers: &mut Peers,
    late: &[(crate::correlate::Waiting, agentmon_core::event::Resolved)],
) -> Result<usize, StoreError> {
    let mut rows = NameRows::default();
    for (flow, resolved) in late {
        rows.time.push(flow.time);
        rows.sensor.append_value(flow.sensor);
        rows.proto.append_value(flow.proto);
        rows.src.show(flow.src);
        rows.sport.append_value(flow.sport);
        rows.dst.show(flow.dst);
        rows.dport.append_value(flow.dport);
        rows.name.push(resolved.name.as_str());
        peers.number(flow.dst, Some(resolved.name.as_str()));
        rows.name_age_ms.append_value(resolved.age_ms);
        rows.rows += 1;
    }
    let times = || late.iter().map(|(flow, _)| flow.time.micros());
    let (Some(from), Some(to)) = (times().min(), times().max()) else { return Ok(0) };
    peers.flush(connection)?;
    let stage = rows.stage(connection)?;
    // The bounds let zone maps skip all but the newest row groups.
    let named = connection.execute(
        &format!(
            "UPDATE flows_done AS f SET peer = s.peer, name_age_ms = s.name_age_ms
             FROM (SELECT *, {PEER} AS peer FROM {stage} o) s
                 JOIN peers p ON p.dst = s.dst AND p.name IS NULL
             WHERE f.time BETWEEN make_timestamp(?) AND make_timestamp(?) AND f.peer = p.id
                 AND f.time = s.time AND f.sensor = s.sensor AND f.proto = s.proto
                 AND f.src = s.src AND f.sport = s.sport AND f.dport = s.dport"
        ),
        params![from, to],
    )?;
    connection.execute_batch(&format!("DROP TABLE {stage}"))?;
    Ok(named)
}

/// Writes the names that came late to hosts' connections; returns how many rows.
///
/// # Errors
/// What DuckDB says.
pub(super) fn name_connections(
    connection: &Connection,
    due: &[Waits],
) -> Result<usize, StoreError> {
    let named = due.iter().filter_map(|w| Some((w, w.connection.resolved.as_ref()?)));
    let rows: Vec<serde_json::Value> = named
        .map(|(w, resolved)| {
            serde_json::json!({
                "sensor": w.sensor,
                "id": w.connection.id,
                "name": resolved.name.as_str(),
            })
        })
        .collect();
    let Some(from) = due.iter().map(|w| w.time.micros()).min().filter(|_| !rows.is_empty()) else {
        return Ok(0);
    };
    // The bound lets zone maps skip all but the newest row groups.
    Ok(connection.execute(
        "UPDATE process_conns AS c SET domain = s.name
         FROM (SELECT unnest(from_json(?, '[{\"sensor\": \"INTEGER\", \"id\": \"UBIGINT\",
             \"name\": \"VARCHAR\"}]'), recursive := true)) s
         WHERE c.time >= make_timestamp(?) AND c.sensor = s.sensor AND c.id = s.id
             AND c.domain IS NULL",
        params![serde_json::Value::from(rows).to_string(), from],
    )?)
}

/// Open flows whose end will never come become finished ones, with what was last known.
///
/// Gone is a flow of an earlier life of its sensor that nothing was heard of for
/// [`GONE_AFTER_RESTART`], or any that was silent longer than conntrack keeps an idle
/// connection. Where the same connection is known under a new id (the sensor restarted
/// and found it in the kernel's table again, its counters going on), the old record is
/// contained in the new one and only dropped.
///
/// # Errors
/// What DuckDB says.
pub(super) fn sweep_open(
    connection: &Connection,
    memory: &mut Memory,
    now: Timestamp,
) -> Result<usize, StoreError> {
    let gone = find_gone(connection, memory, now)?;
    if gone.is_empty() {
        return Ok(0);
    }
    let mut keys = OpenKeyRows::default();
    for ((sensor, id), (dst, name)) in &gone {
        memory.peers.number(*dst, name.as_deref());
        keys.sensor.append_value(*sensor);
        keys.id.append_value(*id);
        keys.rows += 1;
    }
    memory.peers.flush(connection)?;
    let stage = keys.stage(connection)?;
    let columns = super::rows::DoneRows::COLUMNS.join(", ");
    // As a literal, so that older days need not be looked at.
    let oldest =
        format!("SELECT epoch_us(min(time)) FROM flows_open SEMI JOIN {stage} USING (sensor, id)");
    let oldest: i64 = connection.query_row(&oldest, [], |row| row.get(0))?;
    let same = "f.sensor = g.sensor AND f.proto = g.proto AND f.src = g.src AND f.sport = g.sport
        AND f.dst = g.dst AND f.dport = g.dport AND f.time >= g.time
        AND coalesce(f.bytes_out, 0) >= coalesce(g.bytes_out, 0)
        AND coalesce(f.bytes_in, 0) >= coalesce(g.bytes_in, 0)
        AND (f.start IS NULL OR f.start <= g.time)";
    connection.execute_batch(&format!(
        "INSERT INTO flows_done ({columns})
             SELECT {columns} FROM (
                 SELECT *, {PEER} AS peer FROM flows_open o SEMI JOIN {stage} USING (sensor, id)
             ) g
             WHERE NOT EXISTS (FROM flows_open f WHERE {same} AND (f.time > g.time OR f.id > g.id))
                 AND NOT EXISTS (FROM flows f WHERE NOT f.open
                     AND f.time >= make_timestamp({oldest}) AND {same});
         DELETE FROM flows_open AS f USING {stage} s WHERE f.sensor = s.sensor AND f.id = s.id;
         DROP TABLE {stage}"
    ))?;
    memory.open.retain(|key| !gone.contains_key(key));
    Ok(gone.len())
}

/// The number in `peers` for row `o`, which has a destination and a name.
const PEER: &str = "(SELECT max(p.id) FROM peers p
    WHERE p.dst = o.dst AND p.name IS NOT DISTINCT FROM o.name)";

/// (sensor, id) of the flows whose end will not come, with where they went.
type Gone = HashMap<(i32, u64), (IpAddr, Option<String>)>;

fn find_gone(connection: &Connection, memory: &Memory, now: Timestamp) -> Result<Gone, StoreError> {
    let sql = "SELECT sensor, id, epoch, epoch_us(received), dst, name FROM flows_open
         WHERE received < make_timestamp(?)";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([now.minus(GONE_AFTER_RESTART).micros()])?;
    let mut gone = Gone::new();
    while let Some(row) = rows.next()? {
        let (sensor, id): (i32, u64) = (row.get(0)?, row.get(1)?);
        let current = memory.newest_epoch(sensor) == Some(row.get(2)?);
        let silent = now.since(Timestamp::from_micros(row.get(3)?));
        if !current || silent > GONE_AFTER_SILENCE {
            let dst: String = row.get(4)?;
            let address = dst
                .parse()
                .map_err(|_| StoreError::Db(format!("flows_open.dst: {dst:?} is no address")))?;
            gone.insert((sensor, id), (address, row.get(5)?));
        }
    }
    Ok(gone)
}

/// Time for a restarted sensor to say which flows it still sees (a dump every 10-30 s).
pub(super) const GONE_AFTER_RESTART: std::time::Duration = std::time::Duration::from_secs(600);
/// `nf_conntrack_tcp_timeout_established`'s default is 5 days (kernel,
/// `net/netfilter/nf_conntrack_proto_tcp.c`); a day more for a hub that was away.
pub(super) const GONE_AFTER_SILENCE: std::time::Duration =
    std::time::Duration::from_secs(6 * 86_400);
