//! Settings of the collector of Pi-hole's database, and which of them make sense.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether this collector runs. Where the log can be read, that is better: it is a minute
    /// earlier and has the answers.
    pub enabled: bool,
    /// The file.
    pub path: PathBuf,
    /// At the very first start, read what the file holds already (false: only what is added).
    pub from_start: bool,
    /// How often to look for new rows, in seconds (5 to 3600); Pi-hole writes once a minute.
    pub poll_seconds: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: false,
            path: PathBuf::from("/etc/pihole/pihole-FTL.db"),
            from_start: false,
            poll_seconds: 30,
        }
    }
}

impl Config {
    /// Whether the values make sense together.
    ///
    /// # Errors
    /// The key, and what is wrong with its value.
    pub fn validate(&self) -> Result<(), (&'static str, String)> {
        if self.path.file_name().is_none() || !self.path.is_absolute() {
            return Err(("path", format!("{} is no absolute path", self.path.display())));
        }
        if !(5..=3_600).contains(&self.poll_seconds) {
            return Err(("poll_seconds", format!("want 5 to 3600, not {}", self.poll_seconds)));
        }
        Ok(())
    }
}
