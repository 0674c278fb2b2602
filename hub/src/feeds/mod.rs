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

mod fetch;
mod keep;
mod service;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use agentmon_core::tier0::blocklist::{self, Format, ListConfig, ListKind};
use serde::{Deserialize, Serialize};

pub use keep::{Feed, accept, all};
pub use service::{Served, Service};

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

/// One list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Source {
    /// What findings call it.
    pub name: String,
    /// Where it is fetched from: https, or http.
    pub url: String,
    /// Or the file it is read from.
    pub path: PathBuf,
    /// How grave a hit is, 0 to 1.
    pub score: f64,
    /// As in the router's configuration.
    pub format: Format,
    /// `bad`, `allow` or `watch`.
    pub kind: ListKind,
    /// Whether `enforce` may act by it.
    pub block: bool,
    /// Of lists that say how many sources name an address: at least so many.
    pub sources_min: u32,
    /// Its licence.
    pub licence: String,
    /// How often it is fetched, in seconds.
    pub refresh_seconds: u64,
}

impl Default for Source {
    fn default() -> Self {
        let list = ListConfig::default();
        Self {
            name: String::new(),
            url: String::new(),
            path: PathBuf::new(),
            score: list.score,
            format: list.format,
            kind: list.kind,
            block: list.block,
            sources_min: list.sources_min,
            licence: String::new(),
            refresh_seconds: 86_400,
        }
    }
}

impl Source {
    /// Its address or file, as people see it.
    #[must_use]
    pub fn origin(&self) -> String {
        if self.url.is_empty() { self.path.display().to_string() } else { self.url.clone() }
    }

    fn list(&self) -> ListConfig {
        ListConfig {
            name: self.name.clone(),
            path: format!("{}.txt", self.name).into(),
            score: self.score,
            format: self.format,
            kind: self.kind,
            block: self.block,
            sources_min: self.sources_min,
            licence: self.licence.clone(),
            about: blocklist::About { origin: self.origin(), ..blocklist::About::default() },
        }
    }

    fn check(&self) -> Result<(), (&'static str, String)> {
        // It becomes a file's name.
        let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        if self.name.is_empty() || self.name.len() > 64 || !self.name.bytes().all(fine) {
            return Err(("name", "want 1 to 64 letters, digits, `-` and `_`".into()));
        }
        let web = ["https://", "http://"].iter().any(|scheme| self.url.starts_with(scheme));
        match (self.url.is_empty(), self.path.as_os_str().is_empty()) {
            (true, true) | (false, false) => Err(("url", "want either `url` or `path`".into())),
            (false, _) if !web => Err(("url", "want an address with https:// or http://".into())),
            (true, _) if !self.path.is_absolute() => Err(("path", "want an absolute path".into())),
            _ if !(300..=2_592_000).contains(&self.refresh_seconds) => {
                Err(("refresh_seconds", "want 300 to 2592000 seconds".into()))
            }
            _ => Ok(()),
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
