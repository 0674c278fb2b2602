//! What the network knows of an alert's topic: how many devices talk to it, and since when.
//!
//! In: the new alerts of a transaction. Out: their [`Facts`], from the events of the days
//! before. Runs within the writer's transaction, one pass over [`DAYS`] days of names and one
//! over connections, only where an alert about a domain or an address was made.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use agentmon_core::Timestamp;
use duckdb::{Connection, params};

use super::book::Book;
use super::judge::Facts;
use crate::store::StoreError;

/// How far back is looked. A week holds every weekday.
const DAYS: u64 = 7;
/// Most topics looked up in one transaction; more are a flood, in which none stands out.
const TOPICS_MAX: usize = 256;

/// Fills in the facts of the alerts made in this transaction.
///
/// # Errors
/// What DuckDB says.
pub(super) fn fill(connection: &Connection, book: &mut Book) -> Result<(), StoreError> {
    let new = || book.changed().filter(|alert| alert.is_new());
    let topics: BTreeSet<String> = new().filter_map(|a| a.topic.clone()).collect();
    let Some(now) = new().map(|alert| alert.last).max().filter(|_| !topics.is_empty()) else {
        return Ok(());
    };
    if topics.len() > TOPICS_MAX {
        return Ok(());
    }
    let from = now.minus(Duration::from_secs(DAYS * 86_400));
    let (devices, oldest) = network(connection, from)?;
    let learned = oldest.is_some_and(|oldest| oldest <= from);
    let known = talkers(connection, &topics, from, now)?;
    for alert in book.all_mut().filter(|alert| alert.is_new()) {
        let Some(topic) = &alert.topic else { continue };
        let (seen_by, since) = known.get(topic).copied().unwrap_or_default();
        alert.facts = Facts { seen_by, devices, since, learned };
    }
    Ok(())
}

/// Devices of these days, and the oldest event kept.
fn network(
    connection: &Connection,
    from: Timestamp,
) -> Result<(u64, Option<Timestamp>), StoreError> {
    let sql = "SELECT (SELECT count(DISTINCT mac) FROM device_addresses WHERE last_seen >= make_timestamp(?)),
         epoch_us(least((SELECT min(time) FROM dns_hot), (SELECT min(time) FROM flows_done)))";
    let row = connection.query_row(sql, [from.micros()], |row| {
        Ok((row.get(0)?, row.get::<_, Option<i64>>(1)?.map(Timestamp::from_micros)))
    })?;
    Ok(row)
}

/// How many devices talked to each topic, and when the first did.
fn talkers(
    connection: &Connection,
    topics: &BTreeSet<String>,
    from: Timestamp,
    to: Timestamp,
) -> Result<BTreeMap<String, (u64, Option<Timestamp>)>, StoreError> {
    // A list of texts as one parameter: JSON, taken apart by DuckDB.
    let list = serde_json::to_string(topics).unwrap_or_default();
    let sql = "WITH t AS (SELECT unnest(from_json(?, '[\"VARCHAR\"]')) AS topic)
         SELECT topic, count(DISTINCT who), epoch_us(min(time)) FROM (
             SELECT domain AS topic, coalesce(mac, client) AS who, time FROM dns_hot
                 WHERE time BETWEEN make_timestamp(?) AND make_timestamp(?)
                     AND domain IN (SELECT topic FROM t)
             UNION ALL
             SELECT p.dst, coalesce(f.mac, f.src), coalesce(f.start, f.time)
                 FROM flows_done f JOIN peers p ON p.id = f.peer
                 WHERE f.time BETWEEN make_timestamp(?) AND make_timestamp(?)
                     AND p.dst IN (SELECT topic FROM t))
         GROUP BY topic";
    let mut statement = connection.prepare(sql)?;
    let (from, to) = (from.micros(), to.micros());
    let mut rows = statement.query(params![list, from, to, from, to])?;
    let mut known = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let since = row.get::<_, Option<i64>>(2)?.map(Timestamp::from_micros);
        known.insert(row.get(0)?, (row.get(1)?, since));
    }
    Ok(known)
}
