//! Alerts from the file and back.

use std::collections::BTreeSet;

use agentmon_core::Timestamp;
use agentmon_core::finding::Severity;
use agentmon_core::tier0::sum::RULES;
use duckdb::{Connection, params};

use super::Seen;
use super::book::{self, Acked, Alert, Book, FOLD_WITHIN, Folded};
use crate::store::StoreError;
use crate::store::rows::{AlertKeyRows, AlertRows, Rows};

/// Most alerts read because something might be folded: those of the whole network within
/// two hours, of the rules that have sums.
const CANDIDATES_MAX: u32 = 4_096;

/// The columns [`read`] wants.
const COLUMNS: &str = "a.dedup_key, a.id, a.rule, a.subject, a.client, a.mac, \
     epoch_us(a.first_seen), epoch_us(a.last_seen), a.findings, a.score, a.why, \
     a.status = 'acked', epoch_us(a.acked_at), a.ack_note, a.folded_into, u.score";
/// Alerts and what they are folded into.
const FROM: &str = "alerts a LEFT JOIN alerts u ON u.id = a.folded_into";

/// Reads the alerts these findings belong to, and those that they may fold or that may
/// fold them.
///
/// # Errors
/// What DuckDB says.
pub(super) fn load(
    connection: &Connection,
    found: &[Seen],
    book: &mut Book,
) -> Result<(), StoreError> {
    let mut stage = AlertKeyRows::default();
    let keys = found.iter().map(book::key).chain(found.iter().filter_map(book::address_key));
    for key in keys.collect::<BTreeSet<_>>() {
        stage.dedup_key.push(&key);
        stage.rows += 1;
    }
    let table = stage.stage(connection)?;
    let sql = format!(
        "SELECT {COLUMNS} FROM {FROM} SEMI JOIN {table} k ON a.dedup_key = k.dedup_key ORDER BY a.id"
    );
    collect(connection, &sql, params![], book)?;
    connection.execute_batch(&format!("DROP TABLE {table}"))?;

    let folding = |seen: &&Seen| RULES.contains(&seen.finding.rule.as_str());
    let times = || found.iter().filter(folding).map(|seen| seen.time);
    let (Some(from), Some(to)) = (times().min(), times().max()) else { return Ok(()) };
    let sql = format!(
        "FROM (SELECT {COLUMNS} FROM {FROM}
             WHERE a.rule IN ('{}') AND a.status <> 'folded'
                 AND a.last_seen BETWEEN make_timestamp(?) AND make_timestamp(?)
             ORDER BY a.id DESC LIMIT {CANDIDATES_MAX}) ORDER BY id",
        RULES.join("', '")
    );
    let (from, to) = (from.minus(FOLD_WITHIN).micros(), to.plus(FOLD_WITHIN).micros());
    collect(connection, &sql, params![from, to], book)
}

fn collect(
    connection: &Connection,
    sql: &str,
    params: &[&dyn duckdb::ToSql],
    book: &mut Book,
) -> Result<(), StoreError> {
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query(params)?;
    while let Some(row) = rows.next()? {
        book.add(read(row)?);
    }
    Ok(())
}

fn read(row: &duckdb::Row<'_>) -> Result<Alert, StoreError> {
    let score: f64 = row.get(9)?;
    let acked = Acked {
        at: row.get::<_, Option<i64>>(12)?.map(Timestamp::from_micros),
        note: row.get(13)?,
        severity: Severity::from_score(score),
    };
    let folded = row.get::<_, Option<i64>>(14)?.zip(row.get::<_, Option<f64>>(15)?);
    Ok(Alert {
        key: row.get(0)?,
        id: row.get(1)?,
        rule: row.get(2)?,
        subject: row.get(3)?,
        client: row.get(4)?,
        mac: row.get(5)?,
        first: Timestamp::from_micros(row.get(6)?),
        last: Timestamp::from_micros(row.get(7)?),
        findings: row.get(8)?,
        score,
        why: row.get(10)?,
        acked: row.get::<_, bool>(11)?.then_some(acked),
        folded: folded.map(|(into, score)| Folded { into, severity: Severity::from_score(score) }),
        old: true,
        changed: false,
        unfolded: false,
    })
}

/// Writes what has changed.
///
/// # Errors
/// What DuckDB says.
pub(super) fn save(connection: &Connection, book: &Book) -> Result<(), StoreError> {
    let (mut old, mut new) = (AlertRows::default(), AlertRows::default());
    for alert in book.changed() {
        push(if alert.old { &mut old } else { &mut new }, alert);
    }
    new.append(connection)?;
    old.upsert(connection, &["id"])?;
    for (from, into) in book.moved() {
        let sql = "UPDATE alerts SET folded_into = ? WHERE folded_into = ?";
        connection.execute(sql, params![into, from])?;
    }
    Ok(())
}

fn push(rows: &mut AlertRows, alert: &Alert) {
    rows.id.append_value(alert.id);
    rows.dedup_key.push(&alert.key);
    rows.rule.push(&alert.rule);
    rows.subject.push(&alert.subject);
    rows.client.option(alert.client.as_deref());
    rows.mac.option(alert.mac.as_deref());
    rows.first_seen.push(alert.first);
    rows.last_seen.push(alert.last);
    rows.findings.append_value(alert.findings);
    rows.score.append_value(alert.score);
    rows.severity.push(alert.severity().as_str());
    rows.why.push(&alert.why);
    rows.status.push(alert.status());
    rows.acked_at.option(alert.still_acked().and_then(|a| a.at));
    // The note stays when it opens again: it says what was known before.
    rows.ack_note.option(alert.acked.as_ref().and_then(|a| a.note.as_deref()));
    rows.folded_into.append_option(alert.folded.map(|f| f.into));
    rows.rows += 1;
}
