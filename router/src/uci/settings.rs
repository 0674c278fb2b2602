//! From the sections of `/etc/config/agentmon` to the daemon's configuration.
//!
//! In: the file's text. Out: [`Settings`], or everything that is wrong with it. Pure: what
//! the settings name (lists, certificates) is looked at by `place`.
//!
//! Each option is tried alone on top of OpenWrt's defaults, so that a mistake is told where
//! it stands; then all together, for what contradicts each other.

use std::path::PathBuf;

use toml::{Table, Value as Toml};

use super::form::{is_list, read};
use super::schema::{self, Form, LIST, MANY, OTHER_PIHOLE, SECTIONS, Setting};
use super::syntax::{self, Entry, Section, Value};
use super::value::nearest;
use super::{PROBLEMS_MAX, Problem};
use crate::config::{Config, ConfigError};
use crate::join::Join;

/// Where OpenWrt differs from the daemon's own defaults: state in memory, a router's
/// amounts, OpenWrt's files.
pub const BASE: &str = r#"
state_dir = "/var/run/agentmon"
[ring]
path = "/tmp/agentmon/ring.db"
bytes_max = 16777216
snapshot_path = "/etc/agentmon/ring.snapshot"
[forward]
identity = "/etc/agentmon/identity.json"
[tier0.blocklist]
entries_max = 1000000
[hub_lists]
bytes_max = 16777216
[collect.conntrack]
buffer_bytes = 8388608
[collect.dnsmasq_log]
paths = ["/tmp/dnsmasq.log"]
[collect.adguard]
path = "/var/lib/adguardhome/data/querylog.json"
[collect.pihole]
password_file = "/etc/agentmon/pihole.password"
certificate = "/etc/agentmon/pihole.pem"
[collect.pihole_ssh]
copy_folder = "/tmp/agentmon"
[collect.leases]
paths = ["/tmp/dhcp.leases", "/tmp/hosts/odhcpd", "/tmp/odhcpd.leases"]
"#;
/// Least seconds between two copies of the ring: each rewrites all that waits.
const SNAPSHOT_SECONDS_MIN: i64 = 60;
/// Most copies of rejected packets in a second that may be set.
const REJECTS_RATE_MAX: u64 = 100_000;

/// What the file says.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// For the daemon.
    pub config: Config,
    /// For the service around it.
    pub service: Service,
}

/// What the daemon itself need not know.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Whether it runs at all.
    pub enabled: bool,
    /// Whether to install the table `inet agentmon`.
    pub nft_table: bool,
    /// Whether to copy what fw4 rejects.
    pub log_rejects: bool,
    /// Most copies in a second.
    pub log_rejects_rate: u64,
    /// How to reach the hub, where that is said here.
    pub hub: Hub,
    /// Lists whose names stand in the file itself.
    pub inline: Vec<Inline>,
}

impl Default for Service {
    fn default() -> Self {
        let (hub, inline) = (Hub::default(), Vec::new());
        Self {
            enabled: true,
            nft_table: true,
            log_rejects: true,
            log_rejects_rate: 100,
            hub,
            inline,
        }
    }
}

/// `config hub 'hub'`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hub {
    /// The decoded join line.
    pub join: Option<Join>,
    /// In place of the line's, or without one.
    pub url: Option<String>,
    /// The sensor's name.
    pub name: Option<String>,
    /// A file with the bearer token.
    pub token_file: Option<PathBuf>,
    /// A file with the hub's CA.
    pub ca: Option<PathBuf>,
}

/// `list domain` of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inline {
    /// The list's name.
    pub name: String,
    /// Index in `tier0.blocklist.lists`.
    pub index: usize,
    /// Names as they stand there.
    pub domains: Vec<String>,
}

/// Reads a whole file.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(text: &[u8]) -> Result<Settings, Vec<Problem>> {
    let sections = syntax::parse(text)
        .map_err(|error| vec![problem(Some(error.line), String::new(), error.problem)])?;
    let mut reader = Reader::default();
    for section in &sections {
        reader.section(section);
    }
    reader.finish()
}

fn problem(line: Option<usize>, key: impl Into<String>, problem: impl Into<String>) -> Problem {
    Problem { file: PathBuf::new(), line, key: key.into(), problem: problem.into() }
}

fn base() -> Table {
    BASE.parse().expect("the base is TOML, a test reads it")
}

#[derive(Default)]
pub(super) struct Reader {
    /// What differs from the base.
    table: Table,
    pub(super) service: Service,
    pub(super) lists: Vec<Toml>,
    pub(super) piholes: Vec<Toml>,
    /// Key of the daemon, where it was set, and how it is called here.
    pub(super) places: Vec<(String, usize, String)>,
    seen: Vec<&'static str>,
    problems: Vec<Problem>,
}

impl Reader {
    pub(super) fn say(&mut self, line: usize, key: impl Into<String>, text: impl Into<String>) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(problem(Some(line), key, text));
        }
    }

    fn section(&mut self, section: &Section) {
        match section.kind.as_str() {
            LIST => return self.list(section),
            OTHER_PIHOLE => return self.other_pihole(section),
            _ => {}
        }
        let of_kind: Vec<_> = SECTIONS.iter().filter(|(kind, _)| *kind == section.kind).collect();
        let name = match (&of_kind[..], &section.name) {
            ([], _) => {
                let kinds = SECTIONS.iter().map(|(kind, _)| *kind).chain(MANY);
                let text = format!(
                    "no section type `{}`{}",
                    shown(&section.kind),
                    hint(&section.kind, kinds)
                );
                return self.say(section.line, "agentmon", text);
            }
            // `config hub` alone is clear enough where there is only one.
            ([(_, name)], None) => *name,
            (_, None) => {
                let text = format!("a `{}` needs a name{}", section.kind, choice(&of_kind));
                return self.say(section.line, "agentmon", text);
            }
            (known, Some(name)) => match known.iter().find(|(_, k)| k == name) {
                Some((_, name)) => *name,
                None => {
                    let text = format!("no {} `{}`{}", section.kind, shown(name), choice(known));
                    return self.say(section.line, "agentmon", text);
                }
            },
        };
        if self.seen.contains(&name) {
            return self.say(section.line, format!("agentmon.{name}"), "stands there twice");
        }
        self.seen.push(name);
        for entry in &section.options {
            let key = format!("agentmon.{name}.{}", shown(&entry.name));
            match schema::of(name).find(|setting| setting.option == entry.name) {
                Some(setting) => self.option(setting, entry, key),
                None => {
                    let known = schema::of(name).map(|setting| setting.option);
                    let text = format!("no such option{}", hint(&entry.name, known));
                    self.say(entry.line, key, text);
                }
            }
        }
    }

    /// One known option: its value alone, and on top of the defaults.
    fn option(&mut self, setting: &Setting, entry: &Entry, key: String) {
        if entry.value == Value::One(String::new()) && !is_list(setting.form) {
            return;
        }
        let value = match read(setting.form, &entry.value) {
            Ok(value) => value,
            Err(text) => return self.say(entry.line, key, text),
        };
        if setting.key.is_empty() {
            if let Err(text) = self.service.set(setting, value) {
                self.say(entry.line, key, text);
            }
            return;
        }
        if let Err(text) = alone(setting, &value) {
            return self.say(entry.line, key, text);
        }
        put(&mut self.table, setting.key, value);
        self.places.push((setting.key.to_owned(), entry.line, key));
    }

    fn finish(mut self) -> Result<Settings, Vec<Problem>> {
        if self.problems.is_empty() {
            for (key, many) in [
                ("tier0.blocklist.lists", std::mem::take(&mut self.lists)),
                ("collect.pihole.others", std::mem::take(&mut self.piholes)),
            ] {
                if !many.is_empty() {
                    put(&mut self.table, key, Toml::Array(many));
                }
            }
            self.one_of_ssh();
            match on_base(&self.table) {
                Ok(config) => return Ok(Settings { config, service: self.service }),
                Err(error) => self.together(&error),
            }
        }
        Err(self.problems)
    }

    /// A Pi-hole's database holds what its log says: who names the first alone wants no log.
    fn one_of_ssh(&mut self) {
        let set = |key: &str| self.places.iter().any(|(known, ..)| known == key);
        if set("collect.pihole_ssh.database") && !set("collect.pihole_ssh.log") {
            put(&mut self.table, "collect.pihole_ssh.log", Toml::String(String::new()));
        }
    }

    /// A mistake that only all settings together make.
    fn together(&mut self, error: &ConfigError) {
        let place = self.places.iter().filter(|(key, ..)| error.key.starts_with(key.as_str()));
        let (line, key) = match place.max_by_key(|(key, ..)| key.len()) {
            Some((_, line, key)) => (Some(*line), key.clone()),
            // Not set here: the default contradicts something that is.
            None => (None, uci_name(&error.key)),
        };
        self.problems.push(problem(line, key, &*error.problem));
    }
}

impl Service {
    fn set(&mut self, setting: &Setting, value: Toml) -> Result<(), String> {
        let text = || value.as_str().unwrap_or_default().to_owned();
        let on = value.as_bool().unwrap_or_default();
        match (setting.section, setting.option) {
            ("main", "enabled") => self.enabled = on,
            ("main", "nft_table") => self.nft_table = on,
            ("main", "log_rejects") => self.log_rejects = on,
            ("main", "log_rejects_rate") => {
                let rate = value.as_integer().and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
                if !(1..=REJECTS_RATE_MAX).contains(&rate) {
                    return Err(format!("want 1 to {REJECTS_RATE_MAX}, not {rate}"));
                }
                self.log_rejects_rate = rate;
            }
            ("hub", "join") => {
                self.hub.join = Some(Join::decode(&text()).map_err(|error| error.to_string())?);
            }
            ("hub", "url") => self.hub.url = Some(text()),
            ("hub", "name") => self.hub.name = Some(text()),
            ("hub", "token_file") => self.hub.token_file = Some(text().into()),
            ("hub", "ca") => self.hub.ca = Some(text().into()),
            _ => {}
        }
        Ok(())
    }
}

/// Whether the daemon takes this value; each of a list by itself, so that the wrong one is
/// named.
fn alone(setting: &Setting, value: &Toml) -> Result<(), String> {
    let try_one = |value: Toml| {
        let mut table = Table::new();
        put(&mut table, setting.key, value);
        on_base(&table).map(drop).map_err(|error| error.problem)
    };
    if let Toml::Array(values) = value {
        for one in values {
            let text = one.as_str().unwrap_or_default();
            try_one(Toml::Array(vec![one.clone()]))
                .map_err(|problem| format!("'{}': {problem}", shown(text)))?;
        }
        return try_one(value.clone());
    }
    if setting.option == "snapshot_interval" {
        let n = value.as_integer().unwrap_or(0);
        if (1..SNAPSHOT_SECONDS_MIN).contains(&n) {
            return Err(format!("want 0, or at least {SNAPSHOT_SECONDS_MIN}s: flash wears"));
        }
    }
    let unit = match setting.form {
        Form::Seconds => " (seconds)",
        Form::Bytes => " (bytes)",
        _ => "",
    };
    try_one(value.clone()).map_err(|problem| format!("{problem}{unit}"))
}

/// The configuration of OpenWrt's defaults and these settings.
pub(super) fn on_base(settings: &Table) -> Result<Config, ConfigError> {
    let mut table = base();
    merge(&mut table, settings);
    // A table of plain values can always be written down.
    Config::parse(&toml::to_string(&table).unwrap_or_default())
}

fn merge(into: &mut Table, from: &Table) {
    for (key, value) in from {
        match (into.get_mut(key), value) {
            (Some(Toml::Table(inner)), Toml::Table(more)) => merge(inner, more),
            _ => drop(into.insert(key.clone(), value.clone())),
        }
    }
}

/// Sets `a.b.c`.
pub(super) fn put(table: &mut Table, key: &str, value: Toml) {
    match key.split_once('.') {
        None => drop(table.insert(key.to_owned(), value)),
        Some((first, rest)) => {
            let inner = table.entry(first).or_insert_with(|| Toml::Table(Table::new()));
            if let Toml::Table(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}

/// The name here of a key of the daemon.
fn uci_name(key: &str) -> String {
    let known = schema::SETTINGS.iter().find(|s| s.key == key);
    known.map_or_else(|| key.to_owned(), |s| format!("agentmon.{}.{}", s.section, s.option))
}

pub(super) fn hint<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    nearest(word, known).map_or_else(String::new, |known| format!("; did you mean `{known}`?"))
}

fn choice(known: &[&(&str, &str)]) -> String {
    let names: Vec<_> = known.iter().map(|(_, name)| *name).collect();
    format!("; there are {}", names.join(", "))
}

pub(super) fn shown(text: &str) -> String {
    agentmon_core::name::printable(text.as_bytes(), 60)
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
