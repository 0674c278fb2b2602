//! OpenWrt's way to set agentmon up: `/etc/config/agentmon` instead of a TOML file.
//!
//! In: the text of that file. Out: the daemon's own [`Config`](crate::config::Config), what
//! the service around it needs to know ([`Service`]), and every mistake in the words of the
//! file: `agentmon.conntrack.dump_interval: '5x' is not a duration; use e.g. 15s`.
//!
//! `syntax` reads the form, `schema` is the one table of all settings, `form` and `value`
//! read values, `settings` puts them together (`many` the sections that may be repeated), `place` writes what the daemon reads
//! (on tmpfs) and `setup` what the kernel must be told. Runs as root in the init script
//! (`agentmon-router uci ...`), once per start or reload; some milliseconds.
//!
//! Invariants: all mistakes are told at once, each with its line; nothing is written when
//! there is one; nothing here ever writes to flash.

mod form;
mod many;
pub mod place;
pub mod schema;
pub mod settings;
pub mod setup;
pub mod syntax;
mod value;

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

pub use settings::{Service, Settings};

/// Where OpenWrt keeps it.
pub const DEFAULT_PATH: &str = "/etc/config/agentmon";
/// Most mistakes told at once.
pub const PROBLEMS_MAX: usize = 20;

/// One mistake in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// Line, from 1; `None` where nothing stands there.
    pub line: Option<usize>,
    /// `agentmon.conntrack.dump_interval`; empty for a file that is no UCI.
    pub key: String,
    /// What is wrong, and what is allowed.
    pub problem: String,
}

/// `/etc/config/agentmon:12: agentmon.ring.size: '5x' is no size; use e.g. 32M`.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        if !self.key.is_empty() {
            write!(f, " {}:", self.key)?;
        }
        write!(f, " {}", self.problem)
    }
}

/// Reads and checks a file.
///
/// # Errors
/// Everything that is wrong with it, at most [`PROBLEMS_MAX`].
pub fn load(path: &Path) -> Result<Settings, Vec<Problem>> {
    let named = |mut problems: Vec<Problem>| {
        problems.iter_mut().for_each(|problem| path.clone_into(&mut problem.file));
        problems
    };
    let text = read(path).map_err(|error| {
        let problem = error.to_string();
        named(vec![Problem { file: PathBuf::new(), line: None, key: String::new(), problem }])
    })?;
    settings::parse(&text).map_err(named)
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    // One byte more than allowed tells the reader that there is more.
    let limit = syntax::FILE_BYTES_MAX as u64 + 1;
    std::fs::File::open(path)?.take(limit).read_to_end(&mut text)?;
    Ok(text)
}
