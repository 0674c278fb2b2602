//! Detectors over history: what a single event cannot show.
//!
//! In: rows of the store, chosen by a statement. Out: findings, and what was learnt. One
//! folder or file per detector, one line in [`registry`]; [`round`] decides which of them
//! judge which moment, [`service`] is the thread they run on.
//!
//! Rules for a detector:
//! - It judges by event time: `now` is an argument, windows end there. The same rows give
//!   the same findings, on whatever day they are asked for.
//! - It reads on the connection it is given, and keeps nothing in memory that the tables do
//!   not say: what a run learnt may not have been committed, and a run may be repeated.
//! - It looks back from `now` as far as [`Windowed::reach`] says and no further, so that
//!   late events are judged by a run of their own.
//! - Its scoring is a pure function with a table of tests.

pub(crate) mod backtest;
#[cfg(test)]
mod backtest_tests;
pub(crate) mod baseline;
pub mod beacon;
mod board;
pub(crate) mod leaks;
mod plan;
pub mod programs;
pub mod retro;
pub(crate) mod round;
#[cfg(test)]
mod round_tests;
#[cfg(test)]
mod rules;
pub(crate) mod service;
pub mod unreported;

use std::time::Duration;

use agentmon_core::Timestamp;
use agentmon_core::finding::Finding;
use duckdb::Connection;
use serde::{Deserialize, Serialize};

use crate::store::StoreError;

/// What a run learnt: statements on the writer's thread, in the transaction that stores its
/// findings. Short: every sensor waits meanwhile.
pub(crate) type Learnt = Box<dyn FnOnce(&Connection) -> Result<(), StoreError> + Send>;

/// One windowed detector: a question to the store and a scoring function.
pub(crate) trait Windowed: Send {
    /// The rule or family: `beacon`, `exfil`. Its section in hub.toml is `[detect.NAME]`.
    fn name(&self) -> &'static str;

    /// How often, in event time (a round without new events does nothing).
    fn every(&self) -> Duration;

    /// How far back from `now` one run looks, at least an hour. An hour that got late events
    /// and lies further back is judged by a run of its own, at its own time.
    fn reach(&self) -> Duration {
        self.every().saturating_add(Duration::from_secs(3_600))
    }

    /// Judges silence: runs by the hub's clock, whether anything has arrived or not.
    fn by_clock(&self) -> bool {
        false
    }

    /// Judges what is stored up to `now`: the newest event time stored, never ahead of the
    /// hub's clock, or the end of an earlier window into which late events fell. No writes.
    ///
    /// # Errors
    /// What DuckDB says; counted, and tried again in a later round.
    fn run(&mut self, db: &Connection, now: Timestamp) -> Result<Vec<Finding>, StoreError>;

    /// What the run just made has learnt.
    fn learn(&mut self) -> Option<Learnt> {
        None
    }
}

/// Settings of the detectors over history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether they run at all.
    pub enabled: bool,
    /// Findings are kept and shown (`agentmon alerts status:learning`), but nothing is told
    /// except what is known to be bad (lists, threat intelligence, authority) or watched.
    pub learning: bool,
    /// Seconds between two rounds; a detector may run less often, never more.
    pub round_seconds: u64,
    /// A detector's run that takes longer is stopped, counted and tried again later.
    pub run_seconds_max: u64,
    /// What is normal for each device, and what is not.
    pub baseline: baseline::Config,
    /// What calls home again and again.
    pub beacon: beacon::detector::Config,
    /// What leaves, what hides, what spreads, who is silent.
    pub leaks: leaks::Config,
    /// What was done before a list named it.
    pub retro: retro::Config,
    /// Programs of hosts: new, unknown, replaced.
    pub programs: programs::Config,
    /// Connections of a host that its own agent does not tell of.
    pub unreported: unreported::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            learning: false,
            round_seconds: 60,
            run_seconds_max: 120,
            baseline: baseline::Config::default(),
            beacon: beacon::detector::Config::default(),
            leaks: leaks::Config::default(),
            retro: retro::Config::default(),
            programs: programs::Config::default(),
            unreported: unreported::Config::default(),
        }
    }
}

impl Config {
    /// Whether the values make sense.
    ///
    /// # Errors
    /// The key below `detect` and what is allowed.
    pub fn validate(&self) -> Result<(), (String, String)> {
        let within = |key: &str, n: u64, from: u64, to: u64| {
            let wrong = || Err((key.to_owned(), format!("want {from} to {to}")));
            if (from..=to).contains(&n) { Ok(()) } else { wrong() }
        };
        within("round_seconds", self.round_seconds, 1, 86_400)?;
        within("run_seconds_max", self.run_seconds_max, 1, 3_600)?;
        self.baseline.validate()?;
        self.beacon.validate()?;
        self.programs.validate()?;
        self.leaks.validate().map_err(|(key, allowed)| (format!("leaks.{key}"), allowed))
    }
}

/// The detectors that these settings ask for, in the order they run.
pub(crate) fn registry(config: &Config) -> Vec<Box<dyn Windowed>> {
    fn on<D: Windowed + 'static>(enabled: bool, detector: D) -> Option<Box<dyn Windowed>> {
        enabled.then(|| Box::new(detector) as Box<dyn Windowed>)
    }
    let all = [
        on(config.baseline.enabled, baseline::Baseline::new(&config.baseline)),
        on(config.beacon.enabled, beacon::detector::Detector::new(&config.beacon)),
        on(config.retro.enabled, retro::Retro::default()),
        on(config.programs.enabled, programs::Programs::new(&config.programs)),
        on(config.unreported.enabled, unreported::Unreported),
    ];
    let leaks = leaks::all(&config.leaks);
    let leaks = leaks.into_iter().filter_map(|detector| on(config.leaks.enabled, detector));
    all.into_iter().flatten().chain(leaks).collect()
}
