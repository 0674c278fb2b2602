//! The outbox: what has to be told to whom, in the store.
//!
//! In: the news of a transaction, in that transaction: an alert is stored with its rows here
//! or not at all. Out: rows with their alerts as they stand now; and, when a receiver took
//! them, rows of `deliveries` in their place. A hub that is killed in between sends again,
//! with the same key.

use agentmon_core::Timestamp;
use agentmon_core::finding::Severity;
use agentmon_router::counters::Counters;
use duckdb::{Connection, params};

use super::config::Target;
use super::notice::{Notice, Reason, plain};
use super::plan::{Settled, Waiting};
use crate::alert::News;
use crate::store::StoreError;

/// Most rows that wait for one target; about 100 bytes each.
pub(super) const WAITING_MAX: u64 = 50_000;
/// Rows looked at in one go.
pub(super) const LOOK_MAX: u32 = 1_000;
/// What became of rows is kept so long.
const KEEP_DAYS: u32 = 90;

/// Puts the news into the outbox of every target that wants them; how many rows.
///
/// # Errors
/// What DuckDB says; the caller rolls back.
pub(crate) fn enqueue(
    connection: &Connection,
    news: &[News],
    targets: &[Target],
    now: Timestamp,
    counters: &Counters,
) -> Result<usize, StoreError> {
    let mut rows = 0;
    for target in targets {
        let wanted: Vec<_> =
            news.iter().filter(|news| target.wants(news.severity, &news.rule)).collect();
        if wanted.is_empty() {
            continue;
        }
        let room = WAITING_MAX.saturating_sub(waiting(connection, &target.name)?);
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        let mut insert = connection.prepare(
            "INSERT INTO outbox VALUES (nextval('outbox_row'), ?, ?, ?, ?, make_timestamp(?), 0, NULL)",
        )?;
        for news in wanted.iter().take(room) {
            let reason = if news.new { Reason::New } else { Reason::Again };
            let severity = news.severity.as_str();
            insert.execute(params![
                target.name,
                news.id,
                reason.as_str(),
                severity,
                now.micros()
            ])?;
            rows += 1;
        }
        let over = wanted.len().saturating_sub(room);
        if over > 0 {
            counters.counter("drop.deliver.outbox_full").add(over as u64);
        }
    }
    Ok(rows)
}

/// How many rows wait for a target.
pub(super) fn waiting(connection: &Connection, target: &str) -> Result<u64, StoreError> {
    let sql = "SELECT count(*) FROM outbox WHERE target = ?";
    Ok(connection.query_row(sql, [target], |row| row.get(0))?)
}

/// A row and what is told of its alert.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) waiting: Waiting,
    pub(super) notice: Notice,
}

/// The rows that wait for a target: the urgent ones, then the oldest.
///
/// # Errors
/// What DuckDB says.
pub(super) fn look(connection: &Connection, target: &Target) -> Result<Vec<Row>, StoreError> {
    let words: Vec<String> = Severity::ALL.iter().map(|s| format!("'{}'", s.as_str())).collect();
    let sql = format!(
        "SELECT o.id, o.alert, o.reason, o.severity, epoch_us(o.queued),
             a.severity, a.score, a.rule, a.subject, a.client, a.mac, d.hostname,
             epoch_us(a.first_seen), epoch_us(a.last_seen), a.findings, a.why, a.status
         FROM outbox o LEFT JOIN alerts a ON a.id = o.alert LEFT JOIN devices d ON d.mac = a.mac
         WHERE o.target = ?
         ORDER BY list_position([{}], o.severity) >= ? DESC, o.id LIMIT {LOOK_MAX}",
        words.join(", ")
    );
    let urgent = Severity::ALL.iter().position(|s| *s == target.urgent).unwrap_or(0) + 1;
    let mut statement = connection.prepare(&sql)?;
    let mut found = statement.query(params![target.name, urgent as u64])?;
    let mut rows = Vec::new();
    while let Some(row) = found.next()? {
        rows.push(read(row)?);
    }
    Ok(rows)
}

fn read(row: &duckdb::Row<'_>) -> Result<Row, StoreError> {
    let (queued_as, status): (String, Option<String>) = (row.get(3)?, row.get(16)?);
    // An alert that retention took away meanwhile: what is left is its number.
    let text = |i| -> Result<String, StoreError> {
        Ok(row.get::<_, Option<String>>(i)?.map(|text| plain(&text)).unwrap_or_default())
    };
    let option = |i| -> Result<Option<String>, StoreError> {
        Ok(row.get::<_, Option<String>>(i)?.map(|text| plain(&text)))
    };
    let severity = row.get::<_, Option<String>>(5)?.unwrap_or_else(|| queued_as.clone());
    let queued = Timestamp::from_micros(row.get(4)?);
    let time = |i| -> Result<Timestamp, StoreError> {
        Ok(row.get::<_, Option<i64>>(i)?.map_or(queued, Timestamp::from_micros))
    };
    let (client, mac) = (option(9)?, option(10)?);
    let device = option(11)?.or_else(|| mac.clone()).or_else(|| client.clone());
    let notice = Notice {
        row: row.get(0)?,
        id: row.get(1)?,
        reason: Reason::of(&row.get::<_, String>(2)?),
        severity: word(&severity),
        score: row.get::<_, Option<f64>>(6)?.unwrap_or_default(),
        rule: text(7)?,
        subject: text(8)?,
        device: device.unwrap_or_default(),
        client,
        mac,
        first_seen: time(12)?,
        last_seen: time(13)?,
        findings: row.get::<_, Option<u64>>(14)?.unwrap_or_default(),
        why: text(15)?,
    };
    let open = status.is_none_or(|status| status == "open");
    Ok(Row { waiting: Waiting { severity: word(&queued_as), queued, open }, notice })
}

fn word(word: &str) -> Severity {
    Severity::ALL.into_iter().find(|s| s.as_str() == word).unwrap_or(Severity::Critical)
}

/// These rows are done.
///
/// # Errors
/// What DuckDB says.
pub(super) fn settle(
    connection: &Connection,
    rows: &[i64],
    settled: Settled,
    now: Timestamp,
) -> Result<(), StoreError> {
    let list: Vec<String> = rows.iter().map(i64::to_string).collect();
    let list = list.join(", ");
    connection.execute(
        &format!(
            "INSERT INTO deliveries SELECT id, target, alert, reason, queued, make_timestamp(?), ?,
                 attempts + CASE WHEN ? IN ('sent', 'refused') THEN 1 ELSE 0 END, error
             FROM outbox WHERE id IN ({list})"
        ),
        params![now.micros(), settled.as_str(), settled.as_str()],
    )?;
    connection.execute(&format!("DELETE FROM outbox WHERE id IN ({list})"), [])?;
    Ok(())
}

/// These rows were tried in vain.
///
/// # Errors
/// What DuckDB says.
pub(super) fn failed(connection: &Connection, rows: &[i64], why: &str) -> Result<(), StoreError> {
    let list: Vec<String> = rows.iter().map(i64::to_string).collect();
    let sql = format!(
        "UPDATE outbox SET attempts = attempts + 1, error = ? WHERE id IN ({})",
        list.join(", ")
    );
    connection.execute(&sql, [why])?;
    Ok(())
}

/// Rows of targets that are no more go; how many.
///
/// # Errors
/// What DuckDB says.
pub(super) fn tidy(connection: &Connection, targets: &[Target]) -> Result<usize, StoreError> {
    let names: Vec<String> = targets.iter().map(|t| format!("'{}'", t.name)).collect();
    let sql = if names.is_empty() {
        "DELETE FROM outbox".to_owned()
    } else {
        format!("DELETE FROM outbox WHERE target NOT IN ({})", names.join(", "))
    };
    Ok(connection.execute(&sql, [])?)
}

/// Accounts older than [`KEEP_DAYS`] go.
///
/// # Errors
/// What DuckDB says.
pub(super) fn forget(
    connection: &Connection,
    target: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    let sql = format!(
        "DELETE FROM deliveries
         WHERE target = ? AND settled < make_timestamp(?) - INTERVAL {KEEP_DAYS} DAY"
    );
    connection.execute(&sql, params![target, now.micros()])?;
    Ok(())
}
