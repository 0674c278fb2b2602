//! Findings become alerts: what a person is told, once.
//!
//! In: the findings of one transaction. Out: finding rows, alerts made or counted on in
//! the same transaction, and the new ones to speak of after the commit. Runs inside the
//! writer.
//!
//! Rules: findings of one rule, one device (or address, where no device is known) and
//! one subject are one alert. It counts its findings and shows its worst. An alert that
//! was acknowledged counts on silently and opens again only when its severity rises above
//! what had been acknowledged. Nothing closes by itself.
//!
//! An alert follows the device: its address may change. What was told of an address shortly
//! before its device became known is that device's (see [`book`]).
//!
//! A finding that sums up others (a burst of generated names, a scan) folds their alerts
//! into its own (see `book`): they stay as they are, with their findings and under their
//! own key, but a person is told only the sum.

mod book;
mod rows;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use agentmon_core::Timestamp;
use agentmon_core::event::Mac;
use agentmon_core::finding::{Finding, Severity};
use duckdb::Connection;

use crate::store::StoreError;
use crate::store::rows::{FindingRows, Rows};
use book::Book;
pub(crate) use book::key;

/// A finding as it arrived.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) time: Timestamp,
    pub(crate) sensor: i32,
    pub(crate) sensor_time: Option<Timestamp>,
    /// The device, from the finding or from the client's address.
    pub(crate) mac: Option<Mac>,
    /// Since when the device has the client's address, where that is known.
    pub(crate) there_since: Option<Timestamp>,
    pub(crate) finding: Finding,
}

/// An alert that was made or opened again: to be told once it is committed.
#[derive(Clone, Debug, PartialEq)]
pub struct News {
    /// The alert's id.
    pub id: i64,
    /// Made just now; else opened again.
    pub new: bool,
    /// Severity of its worst finding.
    pub severity: Severity,
    /// Which detector.
    pub rule: String,
    /// What it is about.
    pub subject: String,
    /// The client.
    pub client: Option<IpAddr>,
    /// The worst finding's sentence.
    pub why: String,
}

impl News {
    /// One log line, for those that matter.
    pub fn log(&self) {
        if self.severity < Severity::Medium {
            return;
        }
        let client = self.client.map_or_else(|| "-".to_owned(), |ip| ip.to_string());
        tracing::warn!(
            id = self.id, severity = self.severity.as_str(), rule = %self.rule,
            subject = %self.subject, client, why = %self.why,
            "{}", if self.new { "new alert" } else { "alert opened again" }
        );
    }
}

/// The next free numbers; kept by the writer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Numbers {
    pub(crate) finding: i64,
    pub(crate) alert: i64,
}

impl Numbers {
    /// # Errors
    /// What DuckDB says.
    pub(crate) fn load(connection: &Connection) -> Result<Self, StoreError> {
        let next = |table: &str| {
            let sql = format!("SELECT coalesce(max(id), 0) + 1 FROM {table}");
            connection.query_row(&sql, [], |row| row.get(0))
        };
        Ok(Self { finding: next("findings")?, alert: next("alerts")? })
    }
}

/// Stores the findings and what they make of alerts.
///
/// # Errors
/// What DuckDB says; the caller rolls back.
pub(crate) fn fuse(
    connection: &Connection,
    found: &[Seen],
    numbers: &mut Numbers,
) -> Result<Vec<News>, StoreError> {
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let mut book = Book::default();
    rows::load(connection, found, &mut book)?;
    let mut rows = FindingRows::default();
    for seen in found {
        let alert = book.count(seen, &mut numbers.alert);
        push_finding(&mut rows, numbers.finding, alert, seen);
        numbers.finding += 1;
    }
    rows.append(connection)?;
    rows::save(connection, &book)?;
    Ok(book.news())
}

/// Marks an alert as seen, or open again; false when there is none of that id.
///
/// # Errors
/// What DuckDB says.
pub fn acknowledge(
    connection: &Connection,
    id: i64,
    note: Option<&str>,
    undo: bool,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let at = (!undo).then(|| now.micros());
    let changed = connection.execute(
        "UPDATE alerts SET acked_at = make_timestamp(?), ack_note = coalesce(?, ack_note),
             status = CASE WHEN NOT ? THEN 'acked' WHEN folded_into IS NULL THEN 'open' ELSE 'folded' END
         WHERE id = ?",
        duckdb::params![at, note, undo, id],
    )?;
    Ok(changed > 0)
}

fn push_finding(rows: &mut FindingRows, id: i64, alert: i64, seen: &Seen) {
    let finding = &seen.finding;
    rows.id.append_value(id);
    rows.time.push(seen.time);
    rows.sensor.append_value(seen.sensor);
    rows.rule.push(&finding.rule);
    rows.subject.push(&finding.subject);
    rows.client.show_option(finding.client);
    rows.mac.show_option(seen.mac);
    rows.score.append_value(score(finding));
    rows.severity.push(Severity::from_score(score(finding)).as_str());
    rows.why.push(&finding.why);
    let evidence: serde_json::Map<String, serde_json::Value> =
        finding.evidence.iter().map(|(k, v)| (k.clone(), v.as_str().into())).collect();
    rows.evidence.push(&serde_json::Value::Object(evidence).to_string());
    rows.alert.append_value(alert);
    rows.sensor_time.option(seen.sensor_time);
    rows.rows += 1;
}

/// A score from the network may be anything; what is stored is 0 to 1.
pub(crate) fn score(finding: &Finding) -> f64 {
    if finding.score.is_finite() { finding.score.clamp(0.0, 1.0) } else { 0.0 }
}
