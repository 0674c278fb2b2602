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

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use agentmon_core::Timestamp;
use agentmon_core::event::Mac;
use agentmon_core::finding::{Finding, Severity};
use duckdb::Connection;

use crate::store::StoreError;
use crate::store::rows::{AlertKeyRows, AlertRows, FindingRows, Rows};

/// A finding as it arrived.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) time: Timestamp,
    pub(crate) sensor: i32,
    pub(crate) sensor_time: Option<Timestamp>,
    /// The device, from the finding or from the client's address.
    pub(crate) mac: Option<Mac>,
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

/// An alert as it will stand.
#[derive(Debug)]
struct Alert {
    id: i64,
    rule: String,
    subject: String,
    client: Option<String>,
    mac: Option<String>,
    first: Timestamp,
    last: Timestamp,
    findings: u64,
    score: f64,
    why: String,
    acked: Option<Acked>,
    /// Came from the file.
    old: bool,
}

#[derive(Debug)]
struct Acked {
    at: Option<Timestamp>,
    note: Option<String>,
    severity: Severity,
}

impl Alert {
    fn severity(&self) -> Severity {
        Severity::from_score(self.score)
    }

    fn new(id: i64, seen: &Seen) -> Self {
        let finding = &seen.finding;
        Self {
            id,
            rule: finding.rule.clone(),
            subject: finding.subject.clone(),
            client: finding.client.map(|ip| ip.to_string()),
            mac: seen.mac.map(|mac| mac.to_string()),
            first: seen.time,
            last: seen.time,
            findings: 0,
            score: f64::NEG_INFINITY,
            why: String::new(),
            acked: None,
            old: false,
        }
    }

    fn count(&mut self, seen: &Seen) {
        self.first = self.first.min(seen.time);
        self.last = self.last.max(seen.time);
        self.findings = self.findings.saturating_add(1);
        let score = score(&seen.finding);
        if score > self.score {
            self.score = score;
            self.why.clone_from(&seen.finding.why);
        }
    }

    /// True when the worst is now worse than what had been acknowledged.
    fn reopens(&self) -> bool {
        self.acked.as_ref().is_some_and(|a| self.severity() > a.severity)
    }
}

/// A score from the network may be anything; what is stored is 0 to 1.
fn score(finding: &Finding) -> f64 {
    if finding.score.is_finite() { finding.score.clamp(0.0, 1.0) } else { 0.0 }
}

fn key(seen: &Seen) -> String {
    let finding = &seen.finding;
    let who = seen.mac.map(|mac| mac.to_string());
    let who = who.or_else(|| finding.client.map(|ip| ip.to_string())).unwrap_or_default();
    format!("{}|{who}|{}", finding.rule, finding.subject)
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
    let keys: Vec<String> = found.iter().map(key).collect();
    let mut alerts = load(connection, &keys)?;
    let mut rows = FindingRows::default();
    for (seen, key) in found.iter().zip(&keys) {
        let alert = alerts.entry(key.clone()).or_insert_with(|| {
            let id = numbers.alert;
            numbers.alert += 1;
            Alert::new(id, seen)
        });
        alert.count(seen);
        push_finding(&mut rows, numbers.finding, alert.id, seen);
        numbers.finding += 1;
    }
    rows.append(connection)?;
    save(connection, &alerts)
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
    let (status, at) = if undo { ("open", None) } else { ("acked", Some(now.micros())) };
    let changed = connection.execute(
        "UPDATE alerts SET status = ?, acked_at = make_timestamp(?), ack_note = coalesce(?, ack_note)
         WHERE id = ?",
        duckdb::params![status, at, note, id],
    )?;
    Ok(changed > 0)
}

/// The alerts of these keys that the file has.
fn load(connection: &Connection, keys: &[String]) -> Result<BTreeMap<String, Alert>, StoreError> {
    let mut stage = AlertKeyRows::default();
    for key in keys.iter().collect::<BTreeSet<_>>() {
        stage.dedup_key.push(key);
        stage.rows += 1;
    }
    let table = stage.stage(connection)?;
    let mut alerts = BTreeMap::new();
    {
        let mut statement = connection.prepare(&format!(
            "SELECT a.dedup_key, a.id, a.rule, a.subject, a.client, a.mac, epoch_us(a.first_seen),
                 epoch_us(a.last_seen), a.findings, a.score, a.why, a.status = 'acked',
                 epoch_us(a.acked_at), a.ack_note
             FROM alerts a SEMI JOIN {table} k ON a.dedup_key = k.dedup_key"
        ))?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            alerts.insert(row.get(0)?, read(row)?);
        }
    }
    connection.execute_batch(&format!("DROP TABLE {table}"))?;
    Ok(alerts)
}

fn read(row: &duckdb::Row<'_>) -> Result<Alert, StoreError> {
    let score: f64 = row.get(9)?;
    let acked = Acked {
        at: row.get::<_, Option<i64>>(12)?.map(Timestamp::from_micros),
        note: row.get(13)?,
        severity: Severity::from_score(score),
    };
    Ok(Alert {
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
        old: true,
    })
}

fn save(
    connection: &Connection,
    alerts: &BTreeMap<String, Alert>,
) -> Result<Vec<News>, StoreError> {
    let (mut old, mut new, mut news) = (AlertRows::default(), AlertRows::default(), Vec::new());
    for (key, alert) in alerts {
        let reopened = alert.reopens();
        push_alert(if alert.old { &mut old } else { &mut new }, key, alert, reopened);
        if reopened || !alert.old {
            news.push(News {
                id: alert.id,
                new: !alert.old,
                severity: alert.severity(),
                rule: alert.rule.clone(),
                subject: alert.subject.clone(),
                client: alert.client.as_ref().and_then(|ip| ip.parse().ok()),
                why: alert.why.clone(),
            });
        }
    }
    new.append(connection)?;
    old.upsert(connection, &["id"])?;
    Ok(news)
}

fn push_alert(rows: &mut AlertRows, key: &str, alert: &Alert, reopened: bool) {
    rows.id.append_value(alert.id);
    rows.dedup_key.push(key);
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
    let acked = alert.acked.as_ref().filter(|_| !reopened);
    rows.status.push(if acked.is_some() { "acked" } else { "open" });
    rows.acked_at.option(acked.and_then(|a| a.at));
    // The note stays when it opens again: it says what was known before.
    rows.ack_note.option(alert.acked.as_ref().and_then(|a| a.note.as_deref()));
    rows.rows += 1;
}
