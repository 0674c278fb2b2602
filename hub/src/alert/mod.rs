//! Findings become alerts: what a person is told, once.
//!
//! In: the findings of one transaction. Out: finding rows, alerts made or counted on in
//! the same transaction, and the new ones to speak of after the commit. Runs inside the
//! writer.
//!
//! Rules: findings about one device (or address, where no device is known) and one domain or
//! address are one alert, whichever rules they are of; about what only one rule speaks of,
//! one alert for each subject. It counts its findings, and [`judge`] makes one score of what
//! its detectors say, of what the network knows ([`facts`]) and of what people said
//! ([`feedback`]); [`rules`] has what each rule's word is worth. An alert that was
//! acknowledged counts on silently and opens again only when its severity rises above what
//! had been acknowledged. Nothing closes by itself.
//!
//! A watched name alone is a note; it becomes an alert when its device connects there
//! ([`watch`]).
//!
//! An alert follows the device: its address may change. What was told of an address shortly
//! before its device became known is that device's (see [`book`]).
//!
//! While the hub learns (`[detect] learning`), what is not known bad is kept with the status
//! `learning` and told only when it is found again afterwards.
//!
//! A finding that sums up others (a burst of generated names, a scan) folds their alerts
//! into its own (see `book`): they stay as they are, with their findings and under their
//! own key, but a person is told only the sum.

mod book;
mod facts;
pub(crate) mod feedback;
pub(crate) mod judge;
mod rows;
pub(crate) mod rules;
pub(crate) mod say;
#[cfg(test)]
mod tests;
pub(crate) mod topic;
pub(crate) mod watch;

use std::net::IpAddr;

use agentmon_core::Timestamp;
use agentmon_core::event::Mac;
use agentmon_core::finding::{Finding, Severity};
use duckdb::Connection;

use crate::store::StoreError;
use crate::store::rows::{FindingRows, Rows};
pub(crate) use book::key;
use book::{Acked, Book};

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
    /// The hub was learning: of this, only what is known bad is told.
    pub(crate) learning: bool,
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
    let mut book = Book::new(feedback::load(connection)?);
    rows::load(connection, found, &mut book)?;
    let mut rows = FindingRows::default();
    for seen in found {
        let alert = book.count(seen, &mut numbers.alert);
        push_finding(&mut rows, numbers.finding, alert, seen);
        numbers.finding += 1;
    }
    rows.append(connection)?;
    facts::fill(connection, &mut book)?;
    watch::look_back(connection, found, &mut book)?;
    book.judge();
    rows::save(connection, &book)?;
    Ok(book.news())
}

/// Judges every alert anew, after people's words have changed; how many became another.
///
/// # Errors
/// What DuckDB says.
pub(crate) fn rejudge(connection: &Connection) -> Result<u64, StoreError> {
    let mut book = Book::new(feedback::load(connection)?);
    rows::load_all(connection, &mut book)?;
    let mut changed = 0;
    for alert in book.all_mut() {
        alert.changed = alert.differs();
        changed += u64::from(alert.changed);
    }
    rows::save(connection, &book)?;
    Ok(changed)
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
    let mut book = Book::new(feedback::load(connection)?);
    rows::load_one(connection, id, &mut book)?;
    let Some(alert) = book.all_mut().next() else { return Ok(false) };
    let known: Option<String> =
        connection.query_row("SELECT ack_note FROM alerts WHERE id = ?", [id], |row| row.get(0))?;
    alert.acked = (!undo).then(|| Acked {
        at: Some(now),
        note: note.map(str::to_owned).or_else(|| known.clone()),
        score: alert.verdict.score,
    });
    alert.changed = true;
    rows::save(connection, &book)?;
    let sql = "UPDATE alerts SET ack_note = coalesce(?, ?) WHERE id = ?";
    connection.execute(sql, duckdb::params![note, known, id])?;
    Ok(true)
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
