//! `baseline`: what is normal for each device and for the network, and what is not.
//!
//! In: DNS exchanges and flows up to `now`. Out: findings of the rules `new-domain`,
//! `off-profile` and `volume-anomaly`; habits and hours in their tables. The files follow the
//! data: [`gather`] (what the window holds), [`judge`] with [`profile`] and [`volume`] (pure:
//! what of it is unlike before), [`learn`] (what is remembered).
//!
//! What is remembered, for [`KEPT_DAYS`] days:
//! - *habits*: that a device (or the network, [`EVERYBODY`]) asked for a domain, went to a
//!   place or a port, was active at an hour of the week; one bit for each local day, so that
//!   a thousand times on one day weigh as much as once;
//! - *hours*: bytes up and down, flows and questions of each hour.
//!
//! Invariants:
//! - A device is judged by what was known of it before the run, and only after
//!   `learning_days` days on which it was there.
//! - Running twice over the same rows changes nothing: bits are set, hours replaced.
//! - An hour told as odd is no part of what is usual until odd hours come on
//!   [`volume::ODD_DAYS`] days; a place counts as a habit after as many days.
//! - Days and hours of the week are local: a day of 23 or 25 hours is one day.

mod gather;
mod judge;
mod learn;
mod profile;
#[cfg(test)]
pub(in crate::detect) mod tests;
pub(crate) mod volume;
mod zone;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use agentmon_core::Timestamp;
use agentmon_core::finding::Finding;
use duckdb::Connection;
use serde::{Deserialize, Serialize};

use super::{Learnt, Windowed};
use crate::destinations::Destinations;
use crate::store::StoreError;
pub(crate) use learn::{as_of, reset};
pub(crate) use zone::Local;

/// The name by which the network as a whole stands among devices.
pub(crate) const EVERYBODY: &str = "*";
/// Days of habits and hours: as many as a word has bits.
pub(crate) const KEPT_DAYS: u32 = 64;
const EVERY: Duration = Duration::from_secs(900);
const REACH: Duration = Duration::from_secs(6 * 3_600);

/// Settings of the detector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether it runs.
    pub enabled: bool,
    /// Days on which a device must have been there before it is judged.
    pub learning_days: u32,
    /// The zone of days and hours: `local`, a name as `Europe/Berlin`, or a POSIX TZ string.
    pub timezone: String,
    /// Robust standard deviations above its usual before a device's hour is odd.
    pub volume_z: f64,
    /// Mebibytes a device must send in an hour before that can be odd.
    pub up_mib: u64,
    /// Mebibytes a device must receive in an hour before that can be odd.
    pub down_mib: u64,
    /// A device with more domains (or places) than this has no profile to leave.
    pub profile_max: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            learning_days: 7,
            timezone: "local".into(),
            volume_z: 6.0,
            up_mib: 100,
            down_mib: 2_000,
            profile_max: 60,
        }
    }
}

impl Config {
    /// Whether the values make sense.
    pub(super) fn validate(&self) -> Result<(), (String, String)> {
        let within = |key: &str, n: u64, from: u64, to: u64| {
            let wrong = || Err((format!("baseline.{key}"), format!("want {from} to {to}")));
            if (from..=to).contains(&n) { Ok(()) } else { wrong() }
        };
        within("learning_days", self.learning_days.into(), 1, u64::from(KEPT_DAYS) - 1)?;
        within("up_mib", self.up_mib, 1, 1 << 30)?;
        within("down_mib", self.down_mib, 1, 1 << 30)?;
        within("profile_max", self.profile_max.into(), 0, 100_000)?;
        if !(1.0..=1_000.0).contains(&self.volume_z) {
            return Err(("baseline.volume_z".into(), "want 1 to 1000".into()));
        }
        let zone = Local::parse(&self.timezone);
        zone.map(drop).map_err(|why| ("baseline.timezone".into(), why))
    }
}

/// The kinds of habits, as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// It was there on that day; `what` is empty.
    Day,
    /// A registrable domain.
    Domain,
    /// A provider, or a network of addresses.
    Place,
    /// A port of a public address: `443/tcp`.
    Port,
    /// An hour of the week it was active in: `weekday 14`.
    Hour,
}

impl Kind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Domain => "domain",
            Self::Place => "place",
            Self::Port => "port",
            Self::Hour => "hour",
        }
    }
}

/// What a habit is about: who, and what.
pub(crate) type Key = (String, Kind, String);

/// The detector.
pub(super) struct Baseline {
    config: Config,
    local: Local,
    destinations: Arc<Destinations>,
    learnt: Option<learn::Changes>,
}

impl Baseline {
    pub(super) fn new(config: &Config) -> Self {
        let local = Local::parse(&config.timezone).unwrap_or_default();
        let destinations = Destinations::built_in();
        Self { config: config.clone(), local, destinations, learnt: None }
    }
}

impl Windowed for Baseline {
    fn name(&self) -> &'static str {
        "baseline"
    }

    fn every(&self) -> Duration {
        EVERY
    }

    fn reach(&self) -> Duration {
        REACH
    }

    fn run(&mut self, db: &Connection, now: Timestamp) -> Result<Vec<Finding>, StoreError> {
        self.learnt = None;
        let resets = learn::resets(db)?;
        let from = self.from(db, now, &resets)?;
        let mut seen = gather::gather(db, &self.local, &self.destinations, from, now)?;
        seen.forget(&resets);
        let profiles = profile::load(db, &self.local, now, self.config.learning_days)?;
        let (findings, odd) = judge::judge(db, &seen, &profiles, &self.config, &self.local)?;
        self.learnt = Some(learn::changes(db, seen, odd, &self.local, now)?);
        Ok(findings)
    }

    fn learn(&mut self) -> Option<Learnt> {
        let changes = self.learnt.take()?;
        Some(Box::new(move |connection| changes.write(connection)))
    }
}

impl Baseline {
    /// Where the window begins: the whole history when nothing has been learnt yet.
    fn from(
        &self,
        db: &Connection,
        now: Timestamp,
        resets: &HashMap<String, Timestamp>,
    ) -> Result<Timestamp, StoreError> {
        let sql = "SELECT count(*) FROM (FROM habits LIMIT 1)";
        let known: i64 = db.query_row(sql, [], |row| row.get(0))?;
        let back = if known == 0 && !resets.contains_key(EVERYBODY) {
            let sql = "SELECT epoch_us(min(hour)) FROM arrivals";
            let oldest: Option<i64> = db.query_row(sql, [], |row| row.get(0))?;
            let kept = now.minus(Duration::from_secs(u64::from(KEPT_DAYS - 1) * 86_400));
            oldest.map_or(kept, |us| Timestamp::from_micros(us).max(kept)).min(now.minus(REACH))
        } else {
            now.minus(REACH)
        };
        Ok(Timestamp::from_secs(back.secs().div_euclid(3_600) * 3_600))
    }
}
