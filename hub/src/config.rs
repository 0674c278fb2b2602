//! `hub.toml`: what an operator may set. Everything has a default; nothing is bound or
//! opened before the whole file is valid.
//!
//! Errors name the file, the line and the key, and say what is allowed.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use agentmon_router::collect::syslog;
use agentmon_router::logging;
use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use crate::store::days::plan::Retention;
use crate::{deliver, detect, feeds, llm, store, tls};

/// The port sensors send to.
pub const PORT: u16 = 8787;
/// Largest configuration file.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// All settings of the hub.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where sensors connect.
    pub server: Server,
    /// The database.
    pub store: Store,
    /// How long what is kept, and in how much space.
    pub retention: Retention,
    /// Lists for routers: what nobody should talk to.
    pub lists: feeds::Config,
    /// Detectors over history.
    pub detect: detect::Config,
    /// Syslog that this machine takes in itself, as a router would.
    pub syslog: syslog::Config,
    /// Who is told of alerts.
    pub deliver: deliver::Config,
    /// Whom to ask for a second opinion.
    pub llm: llm::Config,
    /// What is logged and how.
    pub log: logging::Config,
}

/// Settings of the HTTPS server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Address and port to listen on.
    pub listen: SocketAddr,
    /// Names and addresses sensors reach this hub by, beside its host name and its own
    /// addresses; the first one is what join lines carry.
    pub names: Vec<String>,
    /// Most connections at a time.
    pub connections_max: usize,
    /// Most connections at a time from one address.
    pub connections_per_address_max: usize,
    /// A request must be complete after this many seconds.
    pub request_seconds: u64,
    /// Most batches decoded at a time; each takes up to 64 MiB of memory.
    pub ingests_max: usize,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], PORT)),
            names: Vec::new(),
            connections_max: 256,
            connections_per_address_max: 32,
            request_seconds: 60,
            ingests_max: 4,
        }
    }
}

/// Settings of the database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// Memory DuckDB may use, in MiB; the process takes about 100 MiB on top.
    pub memory_mib: u32,
    /// Threads DuckDB runs queries with.
    pub threads: u32,
}

impl Default for Store {
    fn default() -> Self {
        // Fixed, not measured: the same file means the same on every machine.
        Self { memory_mib: 1_024, threads: 2 }
    }
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// What is wrong, with file, line and key.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let size = std::fs::metadata(path).with_context(|| path.display().to_string())?.len();
        if size > FILE_BYTES_MAX {
            bail!("{}: larger than {FILE_BYTES_MAX} bytes", path.display());
        }
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Self::parse(&text, path)
    }

    /// Reads and checks a text; `path` is for messages.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str, path: &Path) -> anyhow::Result<Self> {
        let config: Self = toml::from_str(text).map_err(|error| {
            let line = error.span().map(|span| line_of(text, span.start));
            let line = line.map(|n| format!(":{n}")).unwrap_or_default();
            anyhow::anyhow!("{}{line}: {}", path.display(), error.message())
        })?;
        if let Err((key, allowed)) = config.validate() {
            let line = line_of_key(text, &key);
            let line = line.map(|n| format!(":{n}")).unwrap_or_default();
            bail!("{}{line}: `{key}`: {allowed}", path.display());
        }
        Ok(config)
    }

    /// Whether the values make sense.
    ///
    /// # Errors
    /// The key and what is allowed.
    pub fn validate(&self) -> Result<(), (String, String)> {
        fn within(key: &'static str, n: u64, from: u64, to: u64) -> Result<(), (String, String)> {
            if (from..=to).contains(&n) {
                Ok(())
            } else {
                Err((key.to_owned(), format!("want {from} to {to}")))
            }
        }
        let server = &self.server;
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        within("server.connections_max", count(server.connections_max), 1, 10_000)?;
        within(
            "server.connections_per_address_max",
            count(server.connections_per_address_max),
            1,
            10_000,
        )?;
        within("server.request_seconds", server.request_seconds, 1, 600)?;
        within("server.ingests_max", count(server.ingests_max), 1, 64)?;
        within("store.memory_mib", self.store.memory_mib.into(), 128, 1 << 20)?;
        within("store.threads", self.store.threads.into(), 1, 256)?;
        self.retention
            .validate()
            .map_err(|(key, allowed)| (format!("retention.{key}"), allowed))?;
        self.lists.validate()?;
        self.detect.validate().map_err(|(key, allowed)| (format!("detect.{key}"), allowed))?;
        self.deliver.validate()?;
        self.llm.validate()?;
        if server.names.len() > 50 {
            return Err(("server.names".into(), "at most 50 names".into()));
        }
        for name in &server.names {
            tls::check_name(name).map_err(|e| ("server.names".to_owned(), e.to_string()))?;
        }
        self.syslog.validate().map_err(|(key, wanted)| (format!("syslog.{key}"), wanted))?;
        self.log.validate().map_err(|(key, allowed)| (format!("log.{key}"), allowed))
    }

    /// The store's limits.
    #[must_use]
    pub fn limits(&self) -> store::Limits {
        let (memory_mib, threads) = (self.store.memory_mib, self.store.threads);
        store::Limits { memory_mib, threads, ..store::Limits::default() }
    }

    /// Whether a running hub can take this over from `old`: what is bound or opened at the
    /// start cannot change.
    ///
    /// # Errors
    /// The key that needs a restart.
    pub fn check_reload(&self, old: &Self) -> Result<(), &'static str> {
        let names = self.server.names.clone();
        if self.server.listen != old.server.listen {
            return Err("server.listen");
        }
        if self.server != (Server { names, ..old.server.clone() }) {
            return Err("server");
        }
        if self.store != old.store {
            return Err("store");
        }
        if self.syslog != old.syslog {
            return Err("syslog");
        }
        if self.log.format != old.log.format {
            return Err("log.format");
        }
        Ok(())
    }
}

/// Where the hub's files are.
#[derive(Clone, Debug)]
pub struct Place {
    /// The data directory.
    pub data_dir: PathBuf,
    /// The configuration file, read again on SIGHUP; `None`: defaults only.
    pub config_file: Option<PathBuf>,
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|b| *b == b'\n').count() + 1
}

/// The line where `section.key` is set, by looking for the key within the section.
fn line_of_key(text: &str, key: &str) -> Option<usize> {
    let (section, key) = key.rsplit_once('.')?;
    let mut current = "";
    for (n, line) in (1..).zip(text.lines().map(str::trim)) {
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.split(']').next()) {
            current = name.trim();
        }
        let set = line.split('=').next().unwrap_or_default().trim();
        if (current == section && set == key) || set == format!("{section}.{key}") {
            return Some(n);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> anyhow::Result<Config> {
        Config::parse(text, Path::new("hub.toml"))
    }

    #[track_caller]
    fn refused(text: &str, says: &[&str]) {
        let error = format!("{:#}", parse(text).unwrap_err());
        for part in says {
            assert!(error.contains(part), "`{part}` is not in: {error}");
        }
    }

    #[test]
    fn the_defaults_are_valid_and_an_empty_file_means_them() {
        Config::default().validate().unwrap();
        assert_eq!(parse("").unwrap(), Config::default());
        let written = toml::to_string(&Config::default()).unwrap();
        assert_eq!(parse(&written).unwrap(), Config::default());
    }

    /// Every key of `value`, with its value, as `a.b = 1`.
    fn keys(prefix: &str, table: &toml::Table, into: &mut Vec<String>) {
        for (key, value) in table {
            match value {
                toml::Value::Table(inner) => keys(&format!("{prefix}{key}."), inner, into),
                value => into.push(format!("{prefix}{key} = {value}")),
            }
        }
    }

    #[test]
    fn the_example_shows_every_setting_with_its_default() {
        let example = include_str!("../../config/hub.toml");
        assert_eq!(parse(example).unwrap(), Config::default());
        let listed = |text: &str| {
            let mut all = Vec::new();
            keys("", &text.parse().unwrap(), &mut all);
            all.sort();
            all
        };
        assert_eq!(listed(example), listed(&toml::to_string(&Config::default()).unwrap()));
    }

    #[test]
    fn errors_name_file_line_and_key() {
        refused("[server]\nlissten = '1.2.3.4:5'\n", &["hub.toml:2", "lissten", "listen"]);
        refused("[server]\n\nlisten = 'nowhere'\n", &["hub.toml:3"]);
        refused(
            "[server]\nrequest_seconds = 0\n",
            &["hub.toml:2", "server.request_seconds", "1 to 600"],
        );
        refused("# x\n[store]\nmemory_mib = 5\n", &["hub.toml:3", "store.memory_mib", "128"]);
        refused("[server]\nnames = ['a b']\n", &["hub.toml:2", "server.names", "a b"]);
        refused("[syslog]\nallow = ['x']\n", &["hub.toml:2", "invalid IP"]);
        refused("[syslog]\nenabled = true\nudp = []\n", &["hub.toml:3", "syslog.udp"]);
        refused("[log]\nlevel = 'loud'\n", &["hub.toml:2", "log.level", "debug"]);
        refused("[log]\nformat = 'xml'\n", &["hub.toml:2", "xml", "json"]);
        refused("nonsense", &["hub.toml:1"]);
        refused("[nonsense]\n", &["hub.toml:1", "nonsense", "server"]);
    }

    #[test]
    fn what_is_bound_needs_a_restart() {
        let old = Config::default();
        let mut new = old.clone();
        new.server.names = vec!["hub.example".into()];
        new.log.level = "debug".into();
        assert_eq!(new.check_reload(&old), Ok(()));
        new.syslog.enabled = true;
        assert_eq!(new.check_reload(&old), Err("syslog"));
        new.server.listen = "127.0.0.1:1".parse().unwrap();
        assert_eq!(new.check_reload(&old), Err("server.listen"));
    }
}
