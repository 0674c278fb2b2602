//! `beacon`: a device that calls the same place again and again, where nothing explains it.
//!
//! In: flows and DNS exchanges of the last day, and every sixth hour of the last two weeks.
//! Out: one finding for each device and service whose rhythm scores and ranks high.

use std::time::Duration;

use agentmon_core::Timestamp;
use agentmon_core::event::Mac;
use agentmon_core::finding::Finding;
use duckdb::Connection;
use serde::{Deserialize, Serialize};

use super::find::{Beacon, Span, Via, find};
use super::rank::{FINDING, SCORE_MAX};
use crate::destinations::Destinations;
use crate::detect::Windowed;
use crate::store::StoreError;
use crate::store::found::FINDINGS_MAX;

/// As in findings.
const RULE: &str = "beacon";
/// A rhythm below this is none.
const SCORE_MIN: f64 = 0.8;
const EVERY: Duration = Duration::from_secs(3_600);
/// Hours between two looks at two weeks.
const SLOW_HOURS: i64 = 6;
/// Reasons told with a finding.
const REASONS_MAX: usize = 4;

/// Settings of the detector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether it runs.
    pub enabled: bool,
    /// A rhythm that scores less (0 to 1) is none.
    pub score: f64,
    /// A rhythm is told from this rank on (0: all of it is explained, 1: nothing is).
    pub rank: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { enabled: true, score: SCORE_MIN, rank: FINDING }
    }
}

impl Config {
    /// Whether the values make sense.
    pub(in crate::detect) fn validate(&self) -> Result<(), (String, String)> {
        for (key, value) in [("score", self.score), ("rank", self.rank)] {
            if !(0.0..=1.0).contains(&value) {
                return Err((format!("beacon.{key}"), "want 0 to 1".to_owned()));
            }
        }
        Ok(())
    }
}

/// The detector.
#[derive(Debug, Default)]
pub(in crate::detect) struct Detector {
    config: Config,
}

impl Detector {
    pub(in crate::detect) fn new(config: &Config) -> Self {
        Self { config: config.clone() }
    }
}

impl Windowed for Detector {
    fn name(&self) -> &'static str {
        RULE
    }

    fn every(&self) -> Duration {
        EVERY
    }

    /// What beats slower than a few hours is looked for further back, without a promise.
    fn reach(&self) -> Duration {
        Span::Day.length()
    }

    fn run(&mut self, db: &Connection, now: Timestamp) -> Result<Vec<Finding>, StoreError> {
        let slow = (now.secs() / 3_600) % SLOW_HOURS == 0;
        let spans: &[Span] = if slow { &[Span::Day, Span::Fortnight] } else { &[Span::Day] };
        let beacons = find(db, now, spans, &Destinations::built_in(), self.config.score)?;
        let ranked = beacons.iter().filter(|b| b.rank.rank >= self.config.rank);
        Ok(ranked.take(FINDINGS_MAX).map(finding).collect())
    }
}

/// What is told of a beacon.
fn finding(beacon: &Beacon) -> Finding {
    let rhythm = &beacon.rhythm;
    let how = match beacon.via {
        Via::Dns => "asks for",
        Via::Flows | Via::Domain => "calls",
    };
    let finding = Finding {
        rule: RULE.into(),
        why: format!(
            "{how} {} about every {}, {} times, give or take {:.0} %",
            beacon.target,
            every(rhythm.period),
            rhythm.beats,
            rhythm.jitter * 100.0,
        ),
        subject: beacon.target.clone(),
        client: beacon.client,
        mac: beacon.device.parse::<Mac>().ok(),
        score: beacon.rank.rank * SCORE_MAX,
        evidence: Vec::new(),
    };
    let reasons = &beacon.rank.reasons;
    let finding = finding
        .with("period_s", rhythm.period.round())
        .with("jitter", format!("{:.2}", rhythm.jitter))
        .with("missed", format!("{:.2}", rhythm.missed))
        .with("beats", rhythm.beats)
        .with("rhythm", format!("{:.3}", rhythm.score))
        .with("heard_by", beacon.via.as_str())
        .with("bytes_out", beacon.bytes_out)
        .with("bytes_in", beacon.bytes_in)
        .with("devices", beacon.devices);
    reasons.iter().take(REASONS_MAX).fold(finding, |f, reason| f.with("because", reason))
}

/// Seconds in words.
fn every(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7_200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3_600.0),
    }
}
