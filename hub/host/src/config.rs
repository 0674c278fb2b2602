//! Settings: one TOML file, every value with a default.
//!
//! In: text. Out: a [`Config`] that was checked as a whole. `config/host.toml` shows all
//! of it; a test compares.

use std::path::{Path, PathBuf};

use agentmon_router::{forward, logging, ring};
use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// The usual file; the program runs without it.
pub const DEFAULT_PATH: &str = "/etc/agentmon/host.toml";
/// Largest file read.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Everything that can be set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where ring and identity are, unless they say otherwise.
    pub state_dir: PathBuf,
    /// Log lines on standard error.
    pub log: logging::Config,
    /// What is watched.
    pub collect: Collect,
    /// The buffer in which events wait for the hub.
    pub ring: ring::Config,
    /// The way to the hub.
    pub forward: forward::Config,
}

/// What is watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Collect {
    /// All sockets and their owners are looked at this often, in milliseconds; less often
    /// where that would take more than a fiftieth of the time, and ten times less often where
    /// eBPF tells of all that is new.
    pub scan_ms: u64,
    /// Whether the kernel is asked to tell of processes and of the ends of sockets (root).
    pub events: bool,
    /// Whether a program in the kernel (eBPF) tells of connections, owners and programs, those
    /// of containers too (root, BTF).
    pub ebpf: bool,
    /// Whether connections of the machine to itself are told.
    pub loopback: bool,
}

impl Default for Collect {
    fn default() -> Self {
        Self { scan_ms: 1_000, events: true, ebpf: true, loopback: false }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state_dir: PathBuf::from("/var/lib/agentmon-host"),
            log: logging::Config::default(),
            collect: Collect::default(),
            ring: ring::Config::default(),
            forward: forward::Config::default(),
        }
    }
}

impl Config {
    /// The file named, else the usual one where it exists, else the defaults.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn find(given: Option<&Path>) -> anyhow::Result<Self> {
        let usual = Path::new(DEFAULT_PATH);
        match given.or_else(|| usual.exists().then_some(usual)) {
            Some(path) => Self::load(path),
            None => Ok(Self::default()),
        }
    }

    fn load(path: &Path) -> anyhow::Result<Self> {
        let size = std::fs::metadata(path).with_context(|| path.display().to_string())?.len();
        anyhow::ensure!(
            size <= FILE_BYTES_MAX,
            "{}: longer than {FILE_BYTES_MAX} bytes",
            path.display()
        );
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    /// Reads and checks.
    ///
    /// # Errors
    /// What is wrong, with its line or key.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let config: Self = toml::from_str(text)?;
        let wrong =
            |part: &str, (key, why): (&str, String)| anyhow::anyhow!("`{part}.{key}`: {why}");
        config.log.validate().map_err(|(key, why)| anyhow::anyhow!("`log.{key}`: {why}"))?;
        config.ring.validate().map_err(|e| wrong("ring", e))?;
        config.forward.validate().map_err(|e| wrong("forward", e))?;
        let scan = 50..=60_000;
        anyhow::ensure!(
            scan.contains(&config.collect.scan_ms),
            "`collect.scan_ms`: want 50 to 60000"
        );
        Ok(config)
    }

    /// With every path spelled out.
    #[must_use]
    pub fn resolved(mut self) -> Self {
        let or = |path: &mut PathBuf, name: &str| {
            if path.as_os_str().is_empty() {
                *path = self.state_dir.join(name);
            }
        };
        or(&mut self.ring.path, "ring.db");
        or(&mut self.ring.snapshot_path, "ring.snapshot");
        or(&mut self.forward.identity, "identity.json");
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_shows_every_default() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/host.toml");
        let text = std::fs::read_to_string(path).unwrap();
        let shown: toml::Table = toml::from_str(&text).unwrap();
        let defaults: toml::Table =
            toml::from_str(&toml::to_string(&Config::default()).unwrap()).unwrap();
        assert_eq!(shown, defaults);
        assert_eq!(Config::parse(&text).unwrap(), Config::default());
    }

    #[test]
    fn wrong_values_are_refused_with_their_key() {
        let says = |text: &str, word: &str| {
            let error = format!("{:#}", Config::parse(text).unwrap_err());
            assert!(error.contains(word), "{error}");
        };
        says("[collect]\nscan_ms = 1", "collect.scan_ms");
        says("[collect]\nscan = 1", "unknown field `scan`");
        says("[ring]\nbytes_max = 5", "ring.bytes_max");
        says("[log]\nlevel = \"loud\"", "log.level");
    }
}
