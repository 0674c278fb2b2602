//! Programs on the network: the first use of one, one nobody vouches for, one that was
//! replaced under the same path.
//!
//! In: processes with a connection, as agents on hosts told them; the table `programs`, which
//! is what these detectors have learnt. Out: findings of the rules below, one for each program
//! and host, and the table kept up to date.
//!
//! | rule | tells | silent twin |
//! |---|---|---|
//! | `new-program` | the first network use of a program on a host | a new version of one that is known |
//! | `unknown-program` | ... of one without signature or package | one of a package, or signed |
//! | `program-replaced` | another content under the same path | an upgrade, a build, the same signer |
//!
//! A program is its file without the version in its path ([`gather::FAMILY`]). "Nobody vouches" means
//! something only on a host whose agent tells of packages or signatures at all.
//!
//! Invariants: at most [`PROGRAMS_MAX`] programs in one run, at most [`FINDINGS_MAX`] findings;
//! nothing is new within the first `learning_days` of a host; what came late is never taken for
//! the replacement of what came after it.

mod gather;
mod judge;
#[cfg(test)]
mod tests;

use std::time::Duration;

use agentmon_core::Timestamp;
use agentmon_core::finding::Finding;
use duckdb::{Connection, params};
use serde::{Deserialize, Serialize};

use super::{Learnt, Windowed};
use crate::store::StoreError;
use crate::store::found::FINDINGS_MAX;

const EVERY: Duration = Duration::from_secs(300);
/// Most programs of one run; the next window has the rest.
pub(super) const PROGRAMS_MAX: usize = 20_000;

/// Settings of these detectors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether they run.
    pub enabled: bool,
    /// Days of a host's history before a program of it can be new.
    pub learning_days: u32,
    /// Files, and folders with all below them (ending in `/`), that none of these rules tells of.
    pub allow: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self { enabled: true, learning_days: 7, allow: Vec::new() }
    }
}

impl Config {
    /// Whether the values make sense.
    ///
    /// # Errors
    /// The key below `detect.programs` and what is allowed.
    pub fn validate(&self) -> Result<(), (String, String)> {
        if self.learning_days > 365 {
            return Err(("programs.learning_days".into(), "want 0 to 365".into()));
        }
        let whole = |path: &String| path.starts_with('/') || path.get(1..2) == Some(":");
        match self.allow.iter().find(|path| !whole(path)) {
            Some(path) => {
                Err(("programs.allow".into(), format!("`{path}`: want a whole path: /opt/tool/")))
            }
            None => Ok(()),
        }
    }

    fn allows(&self, exe: &str) -> bool {
        let fits = |path: &String| {
            exe == path || (path.ends_with(['/', '\\']) && exe.starts_with(path.as_str()))
        };
        self.allow.iter().any(fits)
    }
}

/// The detector of all three rules.
pub(super) struct Programs {
    config: Config,
    seen: Vec<gather::Seen>,
}

impl Programs {
    pub(super) fn new(config: &Config) -> Self {
        Self { config: config.clone(), seen: Vec::new() }
    }
}

impl Windowed for Programs {
    fn name(&self) -> &'static str {
        "programs"
    }

    fn every(&self) -> Duration {
        EVERY
    }

    fn run(&mut self, db: &Connection, now: Timestamp) -> Result<Vec<Finding>, StoreError> {
        self.seen = gather::seen(db, now.minus(self.reach()), now)?;
        let news = self.seen.iter().filter(|s| !self.config.allows(&s.exe));
        let mut found: Vec<Finding> =
            news.filter_map(|seen| judge::finding(seen, self.config.learning_days)).collect();
        found.sort_by(|a, b| b.score.total_cmp(&a.score));
        found.truncate(FINDINGS_MAX);
        Ok(found)
    }

    fn learn(&mut self) -> Option<Learnt> {
        let rows: Vec<serde_json::Value> =
            std::mem::take(&mut self.seen).iter().map(gather::Seen::row).collect();
        (!rows.is_empty()).then(|| -> Learnt {
            Box::new(move |db| {
                let rows = serde_json::Value::from(rows).to_string();
                db.execute(&gather::known(), params![rows])?;
                db.execute(&gather::new(), params![rows])?;
                Ok(())
            })
        })
    }
}
