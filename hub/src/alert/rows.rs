//! Alerts and their parts from the file and back.

use std::collections::{BTreeMap, BTreeSet};

use agentmon_core::Timestamp;
use agentmon_core::finding::Severity;
use agentmon_core::tier0::sum::RULES;
use duckdb::{Connection, params};

use super::Seen;
use super::book::{self, Acked, Alert, Book, FOLD_WITHIN, Folded};
use super::judge::{Facts, Followed, Part, Verdict};
use crate::store::StoreError;
use crate::store::rows::{AlertKeyRows, AlertRows, PartRows, Rows};

/// Most alerts read because something might be folded: those of the whole network within
/// two hours, of the rules that have sums.
const CANDIDATES_MAX: u32 = 4_096;

/// The columns [`read`] wants.
const COLUMNS: &str = "a.id, a.dedup_key, a.topic, a.client, a.mac, \
     epoch_us(a.first_seen), epoch_us(a.last_seen), a.findings, a.score, a.reasons, a.status, \
     epoch_us(a.acked_at), a.ack_note, coalesce(a.acked_score, a.score), a.folded_into, u.score, \
     a.seen_by, a.devices, epoch_us(a.topic_since), a.learned, a.rule, a.subject, a.why";
/// Alerts and what they are folded into.
const FROM: &str = "alerts a LEFT JOIN alerts u ON u.id = a.folded_into";
/// The columns of a part.
const PARTS: &str = "p.alert, p.rule, p.subject, epoch_us(p.first_seen), epoch_us(p.last_seen), \
     p.findings, p.score, epoch_us(p.worst), p.why, epoch_us(p.followed_at), p.followed, \
     coalesce(p.learning, false)";

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
    let keys = found.iter().map(book::alert_key).chain(found.iter().map(book::key));
    let keys = keys.chain(found.iter().filter_map(book::address_key));
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

/// Reads one alert.
///
/// # Errors
/// What DuckDB says.
pub(super) fn load_one(
    connection: &Connection,
    id: i64,
    book: &mut Book,
) -> Result<(), StoreError> {
    collect(connection, &format!("SELECT {COLUMNS} FROM {FROM} WHERE a.id = ?"), params![id], book)
}

/// Reads the alerts of these keys.
///
/// # Errors
/// What DuckDB says.
pub(super) fn load_keys(
    connection: &Connection,
    keys: &[String],
    book: &mut Book,
) -> Result<(), StoreError> {
    let list = serde_json::to_string(keys).unwrap_or_default();
    let sql = format!(
        "SELECT {COLUMNS} FROM {FROM} \
         WHERE a.dedup_key IN (SELECT unnest(from_json(?, '[\"VARCHAR\"]'))) ORDER BY a.id"
    );
    collect(connection, &sql, params![list], book)
}

/// Reads all alerts.
///
/// # Errors
/// What DuckDB says.
pub(super) fn load_all(connection: &Connection, book: &mut Book) -> Result<(), StoreError> {
    collect(connection, &format!("SELECT {COLUMNS} FROM {FROM} ORDER BY a.id"), params![], book)
}

fn collect(
    connection: &Connection,
    sql: &str,
    params: &[&dyn duckdb::ToSql],
    book: &mut Book,
) -> Result<(), StoreError> {
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query(params)?;
    let mut alerts = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let alert = read(row)?;
        if !book.has(&alert.key) {
            alerts.insert(alert.id, alert);
        }
    }
    drop(rows);
    parts(connection, &mut alerts)?;
    for alert in alerts.into_values() {
        book.add(alert);
    }
    Ok(())
}

/// Reads the parts of these alerts.
fn parts(connection: &Connection, alerts: &mut BTreeMap<i64, Alert>) -> Result<(), StoreError> {
    if alerts.is_empty() {
        return Ok(());
    }
    let ids: Vec<i64> = alerts.keys().copied().collect();
    let list = serde_json::to_string(&ids).unwrap_or_default();
    let sql = format!(
        "SELECT {PARTS} FROM alert_parts p \
         WHERE p.alert IN (SELECT unnest(from_json(?, '[\"BIGINT\"]')))"
    );
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query([list])?;
    let mut begun = BTreeSet::new();
    while let Some(row) = rows.next()? {
        let Some(alert) = alerts.get_mut(&row.get(0)?) else { continue };
        if begun.insert(alert.id) {
            alert.parts.clear();
        }
        let time = |at| -> Result<_, StoreError> { Ok(Timestamp::from_micros(row.get(at)?)) };
        let key: (String, String) = (row.get(1)?, row.get(2)?);
        let mut part = Part::of(&key, time(7)?, row.get(6)?, &row.get::<_, String>(8)?);
        (part.first, part.last, part.findings) = (time(3)?, time(4)?, row.get(5)?);
        let followed = row.get::<_, Option<i64>>(9)?.zip(row.get::<_, Option<String>>(10)?);
        part.followed =
            followed.map(|(at, text)| Followed { at: Timestamp::from_micros(at), text });
        part.learning = row.get(11)?;
        alert.parts.insert(key, part);
    }
    Ok(())
}

fn read(row: &duckdb::Row<'_>) -> Result<Alert, StoreError> {
    let status: String = row.get(10)?;
    let acked = Acked {
        at: row.get::<_, Option<i64>>(11)?.map(Timestamp::from_micros),
        note: row.get(12)?,
        score: row.get(13)?,
    };
    let folded = row.get::<_, Option<i64>>(14)?.zip(row.get::<_, Option<f64>>(15)?);
    // What it says as a whole, until its parts are read; one without parts (of a damaged file)
    // keeps that.
    let last = Timestamp::from_micros(row.get(6)?);
    let mut whole =
        Part::of(&(row.get(20)?, row.get(21)?), last, row.get(8)?, &row.get::<_, String>(22)?);
    whole.findings = row.get(7)?;
    Ok(Alert {
        id: row.get(0)?,
        key: row.get(1)?,
        topic: row.get(2)?,
        client: row.get(3)?,
        mac: row.get(4)?,
        first: Timestamp::from_micros(row.get(5)?),
        last,
        findings: row.get(7)?,
        parts: BTreeMap::from([((row.get(20)?, row.get(21)?), whole)]),
        touched: BTreeSet::new(),
        facts: Facts {
            seen_by: row.get::<_, Option<u64>>(16)?.unwrap_or_default(),
            devices: row.get::<_, Option<u64>>(17)?.unwrap_or_default(),
            since: row.get::<_, Option<i64>>(18)?.map(Timestamp::from_micros),
            learned: row.get::<_, Option<bool>>(19)?.unwrap_or_default(),
        },
        verdict: Verdict::default(),
        acked: (status == "acked").then_some(acked),
        folded: folded.map(|(into, score)| Folded { into, severity: Severity::from_score(score) }),
        stored: (row.get(8)?, row.get::<_, Option<String>>(9)?.unwrap_or_default()),
        was: status,
        changed: false,
    })
}

/// Writes what has changed.
///
/// # Errors
/// What DuckDB says.
pub(super) fn save(connection: &Connection, book: &Book) -> Result<(), StoreError> {
    let (mut old, mut new) = (AlertRows::default(), AlertRows::default());
    let mut parts = PartRows::default();
    for alert in book.changed() {
        push(if alert.is_new() { &mut new } else { &mut old }, alert);
        let touched = alert.touched.iter().filter_map(|key| alert.parts.get(key));
        touched.for_each(|part| push_part(&mut parts, alert.id, part));
    }
    new.append(connection)?;
    old.upsert(connection, &["id"])?;
    parts.upsert(connection, &["alert", "rule", "subject"])?;
    for (from, into) in book.moved() {
        let sql = "UPDATE alerts SET folded_into = ? WHERE folded_into = ?";
        connection.execute(sql, params![into, from])?;
    }
    Ok(())
}

fn push(rows: &mut AlertRows, alert: &Alert) {
    let (verdict, facts) = (&alert.verdict, &alert.facts);
    rows.id.append_value(alert.id);
    rows.dedup_key.push(&alert.key);
    rows.topic.option(alert.topic.as_deref());
    rows.rule.push(&verdict.rule);
    rows.subject.push(&verdict.subject);
    rows.client.option(alert.client.as_deref());
    rows.mac.option(alert.mac.as_deref());
    rows.first_seen.push(alert.first);
    rows.last_seen.push(alert.last);
    rows.findings.append_value(alert.findings);
    rows.score.append_value(verdict.score);
    rows.severity.push(alert.severity().as_str());
    rows.why.push(&verdict.why);
    rows.reasons.push(&alert.reasons());
    rows.status.push(alert.status());
    rows.acked_at.option(alert.still_acked().and_then(|a| a.at));
    // The note stays when it opens again: it says what was known before.
    rows.ack_note.option(alert.acked.as_ref().and_then(|a| a.note.as_deref()));
    rows.acked_score.append_option(alert.still_acked().map(|a| a.score));
    rows.folded_into.append_option(alert.folded.map(|f| f.into));
    let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    rows.seen_by.append_value(small(facts.seen_by));
    rows.devices.append_value(small(facts.devices));
    rows.topic_since.option(facts.since);
    rows.learned.append_value(facts.learned);
    rows.rows += 1;
}

fn push_part(rows: &mut PartRows, alert: i64, part: &Part) {
    rows.alert.append_value(alert);
    rows.rule.push(&part.rule);
    rows.subject.push(&part.subject);
    rows.first_seen.push(part.first);
    rows.last_seen.push(part.last);
    rows.findings.append_value(part.findings);
    rows.score.append_value(part.score);
    rows.worst.push(part.worst);
    rows.why.push(&part.why);
    rows.followed_at.option(part.followed.as_ref().map(|f| f.at));
    rows.followed.option(part.followed.as_ref().map(|f| f.text.as_str()));
    rows.learning.append_value(part.learning);
    rows.rows += 1;
}
