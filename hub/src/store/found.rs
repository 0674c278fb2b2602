//! What the hub's own detectors found: into findings and alerts, like a sensor's.
//!
//! In: the outcome of one run. Out: one transaction with its findings, the alerts they make,
//! what the detector learnt and how far it has judged. Runs on the writer thread.
//!
//! Invariants: a run that was committed is not repeated, one that was not leaves nothing
//! behind; what stands in a window is found by every run that sees it and is told again only
//! after [`REPEAT_AFTER`], or when it has become worse.

use std::collections::HashMap;
use std::time::Duration;

use agentmon_core::Timestamp;
use agentmon_core::finding::Finding;
use duckdb::{Connection, params};

use super::StoreError;
use super::arrivals::Opened;
use super::staging::Staging;
use super::writer::Writer;
use crate::alert::{self, Seen};
use crate::detect::Learnt;

/// The number by which the hub itself stands in `findings`; sensors count from 1.
pub(crate) const HUB: i32 = 0;
/// The same thing about the same device is stored again after this, as the tier-0 detectors do.
const REPEAT_AFTER: Duration = Duration::from_secs(3_600);
/// Most findings of one run: more is no news but a broken threshold.
pub(crate) const FINDINGS_MAX: usize = 1_000;

/// The outcome of one run.
pub(crate) struct Run {
    /// Which detector.
    pub(crate) detector: &'static str,
    /// The moment it judged.
    pub(crate) now: Timestamp,
    /// All before this round is judged now; `None`: there are more moments to come.
    pub(crate) round: Option<i64>,
    pub(crate) findings: Vec<Finding>,
    pub(crate) learnt: Option<Learnt>,
}

/// How far a detector has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The newest moment it judged.
    pub(crate) judged: Timestamp,
    /// What came before this round was judged.
    pub(crate) round: i64,
}

/// How far the detectors have come, by name.
///
/// # Errors
/// What DuckDB says.
pub(crate) fn marks(connection: &Connection) -> Result<HashMap<String, Mark>, StoreError> {
    let mut statement =
        connection.prepare("SELECT detector, epoch_us(judged), round FROM detect_marks")?;
    let rows = statement.query_map([], |row| {
        let judged = Timestamp::from_micros(row.get(1)?);
        Ok((row.get(0)?, Mark { judged, round: row.get(2)? }))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The begins of the hours that got events after the round a detector has judged.
///
/// # Errors
/// What DuckDB says.
pub(crate) fn hours_since(
    connection: &Connection,
    judged: i64,
    upto: i64,
) -> Result<Vec<Timestamp>, StoreError> {
    let sql = "SELECT epoch_us(hour) FROM arrivals WHERE round > ? AND round <= ? ORDER BY hour";
    let mut statement = connection.prepare(sql)?;
    let rows =
        statement.query_map([judged, upto], |row| Ok(Timestamp::from_micros(row.get(0)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

impl Writer {
    /// Begins a round of detectors.
    pub(crate) fn open_round(&mut self) -> Opened {
        self.memory_mut().arrivals.open()
    }

    /// Stores what a run found and learnt; returns how many findings were news.
    ///
    /// # Errors
    /// What DuckDB says, or the statements of what was learnt; then nothing is stored.
    pub(crate) fn found(&mut self, run: Run) -> Result<usize, StoreError> {
        let Run { detector, now, round, mut findings, learnt } = run;
        let excess = findings.len().saturating_sub(FINDINGS_MAX);
        findings.truncate(FINDINGS_MAX);
        let counters = self.counters().clone();
        counters.counter("drop.detect.findings_full").add(u64::try_from(excess).unwrap_or(0));
        let (routes, arrived) = (self.routes(), self.now());
        let (told, news, queued) = self.transaction(|connection, memory| {
            let mut staging = Staging::default();
            for finding in findings {
                staging.finding(now, HUB, None, finding, memory);
            }
            let found = unheard(connection, staging.found, now)?;
            let news = alert::fuse(connection, &found, &mut memory.numbers)?;
            if let Some(learnt) = learnt {
                learnt(connection)?;
            }
            mark(connection, detector, now, round)?;
            let queued = routes.enqueue(connection, &news, arrived, &counters)?;
            Ok::<_, StoreError>((found.len(), news, queued))
        })?;
        self.announce(&news, queued);
        Ok(told)
    }
}

/// Without what was told of the same thing a short while before (or after: late windows).
fn unheard(
    connection: &Connection,
    found: Vec<Seen>,
    now: Timestamp,
) -> Result<Vec<Seen>, StoreError> {
    if found.is_empty() {
        return Ok(found);
    }
    let sql = "SELECT concat_ws('|', rule, coalesce(mac, client, ''), subject), max(score)
         FROM findings WHERE sensor = ? AND time > make_timestamp(?) AND time < make_timestamp(?)
         GROUP BY ALL";
    let (from, to) = (now.minus(REPEAT_AFTER).micros(), now.plus(REPEAT_AFTER).micros());
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map(params![HUB, from, to], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let mut told: HashMap<String, f64> = rows.collect::<Result<_, _>>()?;
    let news = found.into_iter().filter(|seen| {
        let score = alert::score(&seen.finding);
        let told = told.entry(alert::key(seen)).or_insert(f64::NEG_INFINITY);
        let worse = score > *told;
        *told = told.max(score);
        worse
    });
    Ok(news.collect())
}

/// The newest moment judged stays; the round is the one that was completed.
fn mark(
    connection: &Connection,
    detector: &str,
    now: Timestamp,
    round: Option<i64>,
) -> Result<(), StoreError> {
    let sql = "UPDATE detect_marks SET round = coalesce(?, round),
             judged = CASE WHEN ? IS NULL THEN greatest(judged, make_timestamp(?))
                 ELSE make_timestamp(?) END
         WHERE detector = ?";
    let now = now.micros();
    if connection.execute(sql, params![round, round, now, now, detector])? == 0 {
        let sql =
            "INSERT INTO detect_marks (detector, judged, round) VALUES (?, make_timestamp(?), ?)";
        connection.execute(sql, params![detector, now, round.unwrap_or(0)])?;
    }
    Ok(())
}
