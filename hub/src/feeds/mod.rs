//! Lists: gathered from files and the web, kept, compiled into one file, handed to routers.
//!
//! ```text
//! [lists] in hub.toml -> fetch (web, conditional) or read (file) -> inspect -> keep
//!     DATA/lists/NAME.txt, NAME.json -> compile -> DATA/lists/compiled.bin -> GET /v1/lists
//! ```
//!
//! One thread looks every [`LOOK_EVERY`] what is due. Invariants: what is kept of a list is
//! the last content that was a list: an error page, an archive, an empty or much smaller one
//! is refused, said, and the old stays; a fetch is bounded in bytes (also unpacked), time and
//! redirections, and repeated no oftener than its back-off allows; where content is from,
//! of when, and under which licence is kept with it.

mod derive;
mod facts;
mod fetch;
mod keep;
pub(crate) mod known;
mod parse;
mod service;
mod shared_hosts;
mod source;
mod table;
#[cfg(test)]
mod table_tests;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use agentmon_core::tier0::blocklist::{self, ListConfig};
use serde::{Deserialize, Serialize};

pub use keep::{Feed, accept, all};
pub use parse::Form;
pub use service::{Served, Service};
pub use source::Source;

/// The folder below the data directory.
pub const FOLDER: &str = "lists";
/// How often to look whether something is due.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The lists.
    pub sources: Vec<Source>,
    /// Names, addresses and networks that no router reports because of a list.
    pub allow: Vec<String>,
    /// Names that every router watches.
    pub watched: Vec<String>,
    /// Known-bad parts of names.
    pub patterns: Vec<String>,
    /// How grave a name is that a pattern finds, 0 to 1.
    pub pattern_score: f64,
    /// Most entries over all lists; each takes 8 bytes at every router.
    pub entries_max: usize,
    /// Longest text of one list in bytes, unpacked.
    pub bytes_max: u64,
    /// A list that has lost more than so many of a hundred entries is not taken, until
    /// `agentmon feeds accept NAME`.
    pub shrink_percent: u8,
    /// The certificates trusted for lists from the web.
    pub ca_file: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        let defaults = blocklist::Config::default();
        Self {
            sources: Vec::new(),
            allow: Vec::new(),
            watched: Vec::new(),
            patterns: Vec::new(),
            pattern_score: defaults.pattern_score,
            entries_max: defaults.entries_max,
            bytes_max: 128 * 1024 * 1024,
            shrink_percent: defaults.shrink_percent,
            ca_file: "/etc/ssl/certs/ca-certificates.crt".into(),
        }
    }
}

impl Config {
    /// Whether the values make sense.
    ///
    /// # Errors
    /// The key and what is allowed.
    pub fn validate(&self) -> Result<(), (String, String)> {
        for (i, source) in self.sources.iter().enumerate() {
            let at = |key: &str| format!("lists.sources[{i}].{key}");
            source.check().map_err(|(key, allowed)| (at(key), allowed))?;
            if self.sources.iter().take(i).any(|other| other.name == source.name) {
                return Err((at("name"), "there is another list of that name".into()));
            }
        }
        if !(1 << 16..=1 << 30).contains(&self.bytes_max) {
            return Err(("lists.bytes_max".into(), "want 65536 to 1073741824 bytes".into()));
        }
        let as_lists = self.compiled_of(&self.sources.iter().map(Source::list).collect::<Vec<_>>());
        as_lists.validate().map_err(|e| (format!("lists.{}", e.key), e.problem))?;
        let watched = agentmon_core::tier0::watched::Config {
            names: self.watched.clone(),
            ..agentmon_core::tier0::watched::Config::default()
        };
        watched.validate().map_err(|e| (format!("lists.watched ({})", e.key), e.problem))
    }

    /// What is compiled: these lists with the configuration's own settings.
    fn compiled_of(&self, lists: &[ListConfig]) -> blocklist::Config {
        blocklist::Config {
            lists: lists.to_vec(),
            allow: self.allow.clone(),
            patterns: self.patterns.clone(),
            pattern_score: self.pattern_score,
            entries_max: self.entries_max,
            shrink_percent: self.shrink_percent,
            ..blocklist::Config::default()
        }
    }
}
