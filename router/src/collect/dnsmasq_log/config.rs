//! Settings of the DNS log collector, and which of them make sense.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::localtime::ZoneSetting;

/// Most log files.
pub const PATHS_MAX: usize = 16;

/// Settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether this collector runs.
    pub enabled: bool,
    /// The log files, or named pipes, each read on a thread of its own.
    pub paths: Vec<PathBuf>,
    /// The zone of dates in the log: "local", "utc", "+02:00", or a POSIX TZ string.
    pub timezone: ZoneSetting,
    /// At the very first start, read what the file holds already (false: only what is added).
    pub from_start: bool,
    /// How often to look for new lines, in milliseconds (50 to 10000).
    pub poll_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: false,
            paths: vec![PathBuf::from("/var/log/pihole/pihole.log")],
            timezone: ZoneSetting::Local,
            from_start: false,
            poll_ms: 200,
        }
    }
}

impl Config {
    /// The same settings for each file alone: a collector reads one.
    pub fn each(&self) -> impl Iterator<Item = Self> + '_ {
        self.paths.iter().map(|path| Self { paths: vec![path.clone()], ..self.clone() })
    }

    /// Whether the values make sense together.
    ///
    /// # Errors
    /// The key, and what is wrong with its value.
    pub fn validate(&self) -> Result<(), (&'static str, String)> {
        let paths = |problem: String| Err(("paths", problem));
        if self.enabled && self.paths.is_empty() {
            return paths("name at least one log file, or set enabled = false".into());
        }
        if self.paths.len() > PATHS_MAX {
            return paths(format!("want at most {PATHS_MAX} log files, not {}", self.paths.len()));
        }
        for (i, path) in self.paths.iter().enumerate() {
            if path.file_name().is_none() || !path.is_absolute() {
                return paths(format!("{} is no absolute path of a file", path.display()));
            }
            if self.paths.iter().take(i).any(|other| other == path) {
                return paths(format!("{} stands there twice", path.display()));
            }
        }
        if !(50..=10_000).contains(&self.poll_ms) {
            return Err(("poll_ms", format!("want 50 to 10000, not {}", self.poll_ms)));
        }
        Ok(())
    }
}
