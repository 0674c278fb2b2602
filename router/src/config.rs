//! The router's configuration: one TOML file, all of it optional.
//!
//! In: the file's text. Out: a [`Config`] in which every value has been checked, or the
//! file, line and key of the first that makes no sense and what is allowed. Nothing is
//! opened or bound before that. Each part's settings stand in the part's own file; their
//! doc comments are the user's documentation.

use std::fmt;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use agentmon_core::tier0::Tier0Config;
use serde::{Deserialize, Serialize};
use toml::de::{DeTable, DeValue};

use crate::collect::{
    adguard, conntrack, dnsmasq_log, firewall, leases, neighbours, passive_dns, pihole, pihole_ftl,
    pihole_ssh, replay, syslog,
};
use crate::pipeline::naming;
use crate::{enforce, forward, lists, logging, ring, status, ubus};

/// Where the file is looked for.
pub const DEFAULT_PATH: &str = "/etc/agentmon/router.toml";
/// Largest configuration file.
pub const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Everything that can be set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the ring, the identity and the status socket are, unless they say otherwise.
    pub state_dir: PathBuf,
    /// Log lines on standard error.
    pub log: logging::Config,
    /// The buffer in which events wait for the hub.
    pub ring: ring::Config,
    /// The way to the hub.
    pub forward: forward::Config,
    /// The socket that `agentmon-router status` asks.
    pub status: status::Config,
    /// OpenWrt's message bus.
    pub ubus: ubus::Config,
    /// The detectors next to the collectors.
    pub tier0: Tier0Config,
    /// Stopping what a list speaks against.
    pub enforce: enforce::Config,
    /// Names of devices.
    pub devices: naming::Config,
    /// Lists that the hub has compiled.
    pub hub_lists: lists::hub::Config,
    /// The sources of events.
    pub collect: CollectConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state_dir: "/var/lib/agentmon-router".into(),
            log: logging::Config::default(),
            ring: ring::Config::default(),
            forward: forward::Config::default(),
            status: status::Config::default(),
            ubus: ubus::Config::default(),
            tier0: Tier0Config::default(),
            enforce: enforce::Config::default(),
            devices: naming::Config::default(),
            hub_lists: lists::hub::Config::default(),
            collect: CollectConfig::default(),
        }
    }
}

/// Settings of all collectors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CollectConfig {
    /// Connections, from the kernel.
    pub conntrack: conntrack::Config,
    /// Packets the firewall stopped.
    pub firewall: firewall::Config,
    /// DNS messages seen on the wire.
    pub passive_dns: passive_dns::Config,
    /// The log of dnsmasq or Pi-hole.
    pub dnsmasq_log: dnsmasq_log::Config,
    /// The query log of AdGuard Home.
    pub adguard: adguard::Config,
    /// The syslog of other machines.
    pub syslog: syslog::Config,
    /// The log of a Pi-hole (v6) elsewhere, by its web interface.
    pub pihole: pihole::Config,
    /// The long-term database of a Pi-hole on this machine.
    pub pihole_ftl: pihole_ftl::Config,
    /// The log of a Pi-hole elsewhere, by SSH.
    pub pihole_ssh: pihole_ssh::Config,
    /// DHCP leases.
    pub leases: leases::Config,
    /// The kernel's neighbour table.
    pub neighbours: neighbours::Config,
    /// Recorded events, for tests.
    pub replay: replay::Config,
}

/// What is wrong with a configuration, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// The file; empty for a configuration that was not read from one.
    pub file: PathBuf,
    /// Line, from 1; `None` where the key does not stand in the file.
    pub line: Option<usize>,
    /// The full key, `ring.bytes_max`; empty for a file that is no TOML.
    pub key: String,
    /// What is wrong and what is allowed.
    pub problem: String,
}

/// `router.toml:12: `ring.bytes_max`: want 2097152 to 4294967296 bytes`.
impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.file.as_os_str().is_empty() {
            write!(f, "{}:", self.file.display())?;
        }
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        if self.file.as_os_str().is_empty() && self.line.is_none() {
            f.write_str("configuration:")?;
        }
        if !self.key.is_empty() {
            write!(f, " `{}`:", self.key)?;
        }
        write!(f, " {}", self.problem)
    }
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`]: unreadable, no TOML, an unknown key, or a value out of range.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |why: String| ConfigError {
            file: path.to_owned(),
            line: None,
            key: String::new(),
            problem: why,
        };
        let file = fs::File::open(path).map_err(|e| unreadable(e.to_string()))?;
        let mut text = String::new();
        let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
        read.map_err(|e| unreadable(e.to_string()))?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(unreadable(format!("longer than {FILE_BYTES_MAX} bytes")));
        }
        Self::parse(&text).map_err(|error| ConfigError { file: path.to_owned(), ..error })
    }

    /// Reads and checks a text.
    ///
    /// # Errors
    /// As [`Config::load`], without the file's name.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|error| ConfigError {
            file: PathBuf::new(),
            line: error.span().map(|span| line_of(text, span.start)),
            key: error.span().and_then(|span| key_at(text, span.start)).unwrap_or_default(),
            problem: error.message().replace('\n', "; "),
        })?;
        config
            .validate()
            .map_err(|error| ConfigError { line: locate(text, &error.key), ..error })?;
        Ok(config)
    }

    /// Whether all values make sense together.
    ///
    /// # Errors
    /// The first that does not; without file and line.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let under = |section: &'static str| {
            move |(key, problem): (&str, String)| problem_at(format!("{section}.{key}"), problem)
        };
        if !self.state_dir.is_absolute() {
            return Err(problem_at("state_dir", "want an absolute path"));
        }
        self.log.validate().map_err(|(key, problem)| problem_at(format!("log.{key}"), problem))?;
        self.ring.validate().map_err(under("ring"))?;
        self.forward.validate().map_err(under("forward"))?;
        self.ubus.validate().map_err(under("ubus"))?;
        self.tier0.validate().map_err(|e| problem_at(format!("tier0.{}", e.key), e.problem))?;
        self.enforce
            .validate()
            .map_err(|(key, problem)| problem_at(format!("enforce.{key}"), problem))?;
        self.devices.validate().map_err(under("devices"))?;
        self.hub_lists.validate().map_err(under("hub_lists"))?;
        self.collect.conntrack.validate().map_err(under("collect.conntrack"))?;
        self.collect.passive_dns.validate().map_err(under("collect.passive_dns"))?;
        self.collect.neighbours.validate().map_err(under("collect.neighbours"))?;
        if self.collect.firewall.enabled
            && self.collect.passive_dns.enabled
            && self.collect.firewall.group == self.collect.passive_dns.group
        {
            return Err(problem_at(
                "collect.passive_dns.group",
                "want another group than collect.firewall.group: one reader holds a group",
            ));
        }
        self.collect.dnsmasq_log.validate().map_err(under("collect.dnsmasq_log"))?;
        self.collect.adguard.validate().map_err(under("collect.adguard"))?;
        self.collect.syslog.validate().map_err(under("collect.syslog"))?;
        self.collect.pihole.validate().map_err(under("collect.pihole"))?;
        self.collect.pihole_ftl.validate().map_err(under("collect.pihole_ftl"))?;
        self.collect.pihole_ssh.validate().map_err(under("collect.pihole_ssh"))?;
        self.collect.leases.validate().map_err(under("collect.leases"))?;
        self.collect.replay.validate().map_err(under("collect.replay"))?;
        Ok(())
    }

    /// The same with every path filled in.
    #[must_use]
    pub fn resolved(mut self) -> Self {
        let dir = self.state_dir.clone();
        let fill = |path: &mut PathBuf, name: &str| {
            // An absolute path replaces the directory, an empty one takes the usual name.
            *path = if path.as_os_str().is_empty() { dir.join(name) } else { dir.join(&*path) };
        };
        fill(&mut self.ring.path, "ring.db");
        fill(&mut self.ring.snapshot_path, "ring.snapshot");
        fill(&mut self.forward.identity, "identity.json");
        fill(&mut self.status.socket, "status.sock");
        fill(&mut self.devices.known_path, "known-devices");
        self
    }

    /// The file [`Config::default`] corresponds to.
    ///
    /// # Errors
    /// None for the default; a value that TOML cannot hold otherwise.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }
}

fn problem_at(key: impl Into<String>, problem: impl Into<String>) -> ConfigError {
    let (key, problem) = (key.into(), problem.into());
    ConfigError { file: PathBuf::new(), line: None, key, problem }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|b| *b == b'\n').count() + 1
}

/// The line in which `a.b[2].c` stands, or the innermost part of it that is there.
fn locate(text: &str, key: &str) -> Option<usize> {
    let root = DeTable::parse(text).ok()?;
    let mut found = None;
    let mut table = Some(root.get_ref());
    let mut list: Option<&toml::de::DeArray<'_>> = None;
    for part in key.split(['.', '[']).filter(|part| !part.is_empty()) {
        let next = match (table, list, part.strip_suffix(']')) {
            (_, Some(list), Some(index)) => list.get(index.parse::<usize>().ok()?),
            (Some(table), _, None) => table.iter().find_map(|(name, value)| {
                (name.get_ref().as_ref() == part).then(|| {
                    found = Some(name.span().start);
                    value
                })
            }),
            _ => None,
        };
        let Some(next) = next else { break };
        (table, list) = match next.get_ref() {
            DeValue::Table(table) => (Some(table), None),
            DeValue::Array(list) => (None, Some(list)),
            _ => (None, None),
        };
    }
    found.map(|offset| line_of(text, offset))
}

/// The full key at a place in the text: the table's name and the key of the line.
fn key_at(text: &str, offset: usize) -> Option<String> {
    let line = line_of(text, offset);
    let mut table = String::new();
    for (i, content) in text.lines().enumerate().take(line) {
        let content = content.trim();
        if let Some(header) = content.strip_prefix('[') {
            table = header.trim_matches(['[', ']', ' ']).to_owned();
        } else if i + 1 == line {
            let (key, _) = content.split_once('=')?;
            let dot = if table.is_empty() { "" } else { "." };
            return Some(format!("{table}{dot}{}", key.trim()));
        }
    }
    (!table.is_empty()).then_some(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(text: &str, says: &[&str]) {
        let error = Config::parse(text).unwrap_err();
        let shown = ConfigError { file: "router.toml".into(), ..error }.to_string();
        assert!(says.iter().all(|part| shown.contains(part)), "{shown}");
        assert!(!shown.contains('\n'));
    }

    #[test]
    fn an_empty_file_is_the_default() {
        assert_eq!(Config::parse("").unwrap(), Config::default());
        let text = Config::default().to_toml().unwrap();
        assert_eq!(Config::parse(&text).unwrap(), Config::default());
    }

    #[test]
    fn a_problem_names_file_line_key_and_what_is_allowed() {
        refused("[ring]\n\nbytes = 3\n", &["router.toml:3:", "`ring.bytes`", "bytes_max"]);
        refused("[rings]\n", &["router.toml:1:", "unknown field `rings`", "`ring`"]);
        refused("[ring]\nbytes_max = \"big\"\n", &["router.toml:2:", "`ring.bytes_max`", "u64"]);
        refused("[ring]\nbytes_max = 5\n", &["router.toml:2:", "`ring.bytes_max`", "2097152"]);
        refused("ring.bytes_max = 5\n", &["router.toml:1:", "`ring.bytes_max`"]);
        refused("state_dir = \"x\"\n", &["router.toml:1:", "`state_dir`", "absolute"]);
        refused("[log]\nlevel = \"x\"\n", &["router.toml:2:", "`log.level`", "debug"]);
        refused("[log.modules]\nring = \"x\"\n", &["router.toml:2:", "`log.modules.ring`"]);
        refused("[forward]\nbatch_events = 0\n", &["router.toml:2:", "`forward.batch_events`"]);
        refused("[collect.replay]\npace = -1.0\n", &["router.toml:2:", "`collect.replay.pace`"]);
        refused(
            "[collect.dnsmasq_log]\nenabled = true\npaths = []\n",
            &["router.toml:3:", "`collect.dnsmasq_log.paths`"],
        );
        refused("[ring\n", &["router.toml:1:"]);
        refused("a = \n", &["router.toml:1:"]);
    }

    #[test]
    fn places_in_lists_are_found() {
        let text = "x = 1\n[[t.lists]]\nname = \"a\"\n[[t.lists]]\nname = \"b\"\nscore = 7\n";
        assert_eq!(locate(text, "t.lists[1].score"), Some(6));
        assert_eq!(locate(text, "t.lists[1].path"), Some(2));
        assert_eq!(locate(text, "nowhere"), None);
    }

    #[test]
    fn paths_are_below_the_state_directory_unless_absolute() {
        let text =
            "state_dir = \"/s\"\n[ring]\npath = \"/tmp/r.db\"\n[forward]\nidentity = \"me\"\n";
        let config = Config::parse(text).unwrap().resolved();
        assert_eq!(config.ring.path, Path::new("/tmp/r.db"));
        assert_eq!(config.forward.identity, Path::new("/s/me"));
        assert_eq!(config.status.socket, Path::new("/s/status.sock"));
        assert_eq!(config.clone().resolved(), config);
    }

    proptest::proptest! {
        #[test]
        fn any_text_never_panics(text in "[\\[\\]a-z.=\"0-9\n ]{0,120}") {
            drop(Config::parse(&text));
            let line = locate(&text, &text);
            proptest::prop_assert!(line.is_none_or(|line| line <= line_of(&text, text.len())));
        }
    }
}
