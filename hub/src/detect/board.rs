//! What `agentmon status` says of the detectors over history.
//!
//! In: each run's outcome. Out: one JSON object. Shared by the thread `detect` and whoever
//! asks; since the start of the process only.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use agentmon_core::Timestamp;
use serde_json::{Map, Value, json};

/// Longest error text kept.
const ERROR_CHARS_MAX: usize = 300;

#[derive(Clone, Debug, Default)]
struct Line {
    judged: Option<Timestamp>,
    took: Duration,
    runs: u64,
    findings: u64,
    errors: u64,
    error: Option<String>,
}

#[derive(Debug, Default)]
struct Inner {
    at: Option<Timestamp>,
    took: Duration,
    rounds: u64,
    findings: u64,
    lines: BTreeMap<&'static str, Line>,
}

/// How the rounds went.
#[derive(Debug, Default)]
pub(crate) struct Board(Mutex<Inner>);

impl Board {
    fn line(&self, name: &'static str, change: impl FnOnce(&mut Line)) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(inner.lines.entry(name).or_default());
    }

    /// These detectors there are now.
    pub(crate) fn keep(&self, names: &[&'static str]) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.lines.retain(|name, _| names.contains(name));
        for name in names {
            inner.lines.entry(name).or_default();
        }
    }

    pub(crate) fn ran(&self, name: &'static str, now: Timestamp, took: Duration, found: usize) {
        self.line(name, |line| {
            (line.judged, line.took, line.error) = (Some(now), took, None);
            line.runs += 1;
            line.findings += u64::try_from(found).unwrap_or(0);
        });
    }

    pub(crate) fn failed(&self, name: &'static str, now: Timestamp, took: Duration, error: &str) {
        self.line(name, |line| {
            (line.judged, line.took) = (Some(now), took);
            line.errors += 1;
            line.error = Some(error.chars().take(ERROR_CHARS_MAX).collect());
        });
    }

    /// A round is over.
    pub(crate) fn round(&self, at: Timestamp, took: Duration, found: usize) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (inner.at, inner.took) = (Some(at), took);
        inner.rounds += 1;
        inner.findings += u64::try_from(found).unwrap_or(0);
    }

    /// All of it.
    pub(crate) fn json(&self) -> Value {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let time = |t: Option<Timestamp>| t.map(|t| t.to_string());
        let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        let detectors: Map<String, Value> = inner
            .lines
            .iter()
            .map(|(name, line)| {
                let value = json!({
                    "judged": time(line.judged), "took_ms": ms(line.took), "runs": line.runs,
                    "findings": line.findings, "errors": line.errors, "error": line.error,
                });
                ((*name).to_owned(), value)
            })
            .collect();
        json!({
            "last_round": time(inner.at), "took_ms": ms(inner.took), "rounds": inner.rounds,
            "findings": inner.findings, "detectors": detectors,
        })
    }
}
