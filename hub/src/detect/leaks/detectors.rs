//! The detectors as the rounds run them: how often, how far back, and which rules together.
//!
//! Rules that ask the same of the store share a run. Long histories are read every half hour,
//! the last hour every five minutes: a burst is told within one of these after it.

use std::time::Duration;

use agentmon_core::Timestamp;
use agentmon_core::finding::Finding;
use duckdb::Connection;

use super::place::{self, Allowed, Ground};
use super::{Config, DAY_S, dns, exfil, long, off_hours, silent, spread, strange};
use crate::destinations::{Destinations, Following};
use crate::detect::Windowed;
use crate::store::StoreError;

const MINUTE: Duration = Duration::from_secs(60);

/// A run: rows to findings.
type Judge = fn(&Connection, &Ground, &Config, Timestamp) -> Result<Vec<Finding>, StoreError>;

/// One detector.
pub(crate) struct Leaks {
    name: &'static str,
    every: Duration,
    reach: Duration,
    by_clock: bool,
    judge: Judge,
    config: Config,
    allowed: Allowed,
    /// Of the store's folder, once one is known.
    destinations: Option<Following>,
}

impl std::fmt::Debug for Leaks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leaks").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Windowed for Leaks {
    fn name(&self) -> &'static str {
        self.name
    }

    fn every(&self) -> Duration {
        self.every
    }

    fn reach(&self) -> Duration {
        self.reach
    }

    fn by_clock(&self) -> bool {
        self.by_clock
    }

    fn run(&mut self, db: &Connection, now: Timestamp) -> Result<Vec<Finding>, StoreError> {
        if self.destinations.is_none() {
            self.destinations = place::data_dir(db).map(Following::new);
        }
        let table = self.destinations.as_mut().map_or_else(Destinations::built_in, Following::now);
        let ground = Ground::read(db, &self.allowed, table)?;
        (self.judge)(db, &ground, &self.config, now)
    }
}

/// All of them, by these settings.
pub(crate) fn all(config: &Config) -> Vec<Leaks> {
    let day = Duration::from_secs(DAY_S);
    let hour = 60 * MINUTE;
    let leaks = |name, every, reach, judge: Judge| Leaks {
        name,
        every,
        reach,
        by_clock: false,
        judge,
        config: config.clone(),
        // The configuration was refused where it makes no sense.
        allowed: Allowed::new(&config.allow).unwrap_or_default(),
        destinations: None,
    };
    vec![
        leaks("exfil", 15 * MINUTE, day, exfil::run),
        leaks("exfil-dns", 30 * MINUTE, day, |db, _, config, now| dns::run(db, config, now)),
        leaks("long", 15 * MINUTE, day, long::run),
        leaks("strange", 15 * MINUTE, day, strange::run),
        leaks("spread", 5 * MINUTE, hour, spread::run),
        leaks("off-hours", 20 * MINUTE, 2 * hour, |db, ground, _, now| {
            off_hours::run(db, ground, now)
        }),
        Leaks {
            by_clock: true,
            ..leaks("sensor-silent", MINUTE, hour, |db, _, _, now| silent::run(db, now))
        },
    ]
}
