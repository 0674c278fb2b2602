//! From the sections of `/etc/config/agentmon` to the daemon's configuration.
//!
//! In: the file's text. Out: [`Settings`], or everything that is wrong with it. Pure: what
//! the settings name (lists, certificates) is looked at by `place`.
//!
//! Each option is tried alone on top of OpenWrt's defaults, so that a mistake is told where
//! it stands; then all together, for what contradicts each other.

use std::path::{Path, PathBuf};

use toml::{Table, Value as Toml};

use super::schema::{self, Form, LIST, SECTIONS, Setting};
use super::syntax::{self, Entry, Section, Value};
use super::value::{bytes, count, flag, fraction, nearest, seconds};
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
[collect.leases]
paths = ["/tmp/dhcp.leases", "/tmp/hosts/odhcpd", "/tmp/odhcpd.leases"]
"#;
/// Longest name of a list in findings.
const LIST_NAME_BYTES_MAX: usize = 64;
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
struct Reader {
    /// What differs from the base.
    table: Table,
    service: Service,
    lists: Vec<Toml>,
    /// Key of the daemon, where it was set, and how it is called here.
    places: Vec<(String, usize, String)>,
    seen: Vec<&'static str>,
    problems: Vec<Problem>,
}

impl Reader {
    fn say(&mut self, line: usize, key: impl Into<String>, text: impl Into<String>) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(problem(Some(line), key, text));
        }
    }

    fn section(&mut self, section: &Section) {
        if section.kind == LIST {
            return self.list(section);
        }
        let of_kind: Vec<_> = SECTIONS.iter().filter(|(kind, _)| *kind == section.kind).collect();
        let name = match (&of_kind[..], &section.name) {
            ([], _) => {
                let kinds = SECTIONS.iter().map(|(kind, _)| *kind).chain([LIST]);
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

    /// A section of type `list`.
    fn list(&mut self, section: &Section) {
        let number = self.lists.len() + 1;
        let name = section.name.clone().unwrap_or_else(|| format!("list{number}"));
        let key = format!("agentmon.{}", shown(&name));
        let (mut on, mut table, mut domains) = (true, Table::new(), Vec::new());
        for entry in &section.options {
            let key = format!("{key}.{}", shown(&entry.name));
            let Some(setting) = schema::of(LIST).find(|s| s.option == entry.name) else {
                let known = schema::of(LIST).map(|setting| setting.option);
                let text = format!("no such option{}", hint(&entry.name, known));
                self.say(entry.line, key, text);
                continue;
            };
            if entry.value == Value::One(String::new()) {
                continue;
            }
            match (setting.option, read(setting.form, &entry.value)) {
                (_, Err(text)) => self.say(entry.line, key, text),
                ("enabled", Ok(Toml::Boolean(value))) => on = value,
                ("domain", Ok(Toml::Array(names))) => domains = texts(names),
                (option, Ok(value)) => {
                    self.places.push((
                        format!("tier0.blocklist.lists[{}].{option}", self.lists.len()),
                        entry.line,
                        key,
                    ));
                    table.insert(option.to_owned(), value);
                }
            }
        }
        if name.len() > LIST_NAME_BYTES_MAX {
            return self.say(
                section.line,
                key,
                format!("want a name of at most {LIST_NAME_BYTES_MAX} letters"),
            );
        }
        if !on {
            return;
        }
        match (table.contains_key("path"), domains.is_empty()) {
            (false, true) => {
                return self.say(section.line, key, "want `option path` or `list domain`");
            }
            (true, false) => {
                let text = "`option path` and `list domain` exclude each other: make two lists";
                return self.say(section.line, key, text);
            }
            (false, false) => {
                // Becomes the path of a file that `place` writes.
                table.insert("path".into(), Toml::String("/".into()));
                let (index, name) = (self.lists.len(), name.clone());
                self.service.inline.push(Inline { name, index, domains });
            }
            (true, true) => {}
        }
        table.insert("name".into(), Toml::String(name));
        self.places.push((
            format!("tier0.blocklist.lists[{}]", self.lists.len()),
            section.line,
            key,
        ));
        self.lists.push(Toml::Table(table));
    }

    fn finish(mut self) -> Result<Settings, Vec<Problem>> {
        if self.problems.is_empty() {
            if !self.lists.is_empty() {
                put(
                    &mut self.table,
                    "tier0.blocklist.lists",
                    Toml::Array(std::mem::take(&mut self.lists)),
                );
            }
            match on_base(&self.table) {
                Ok(config) => return Ok(Settings { config, service: self.service }),
                Err(error) => self.together(&error),
            }
        }
        Err(self.problems)
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

const fn is_list(form: Form) -> bool {
    matches!(form, Form::Texts | Form::Paths | Form::Nets)
}

/// The value in its form. A list may also be written as one option with blanks between.
fn read(form: Form, value: &Value) -> Result<Toml, String> {
    let integer = |n: u64| Toml::Integer(i64::try_from(n).unwrap_or(i64::MAX));
    match (form, value) {
        (Form::Texts | Form::Paths | Form::Nets, value) => {
            let values: Vec<&str> = match value {
                Value::One(text) => text.split_whitespace().collect(),
                Value::Many(values) => values.iter().map(String::as_str).collect(),
            };
            let one = |text: &&str| match form {
                Form::Paths => path(text),
                Form::Nets => net(text),
                _ => Ok(Toml::String((*text).to_owned())),
            };
            values.iter().map(one).collect::<Result<_, _>>().map(Toml::Array)
        }
        (_, Value::Many(values)) => {
            let last = values.last().map_or("", String::as_str);
            Err(format!("one value is wanted: `option ... '{}'` in place of `list`", shown(last)))
        }
        (Form::Flag, Value::One(text)) => flag(text).map(Toml::Boolean),
        (Form::Seconds, Value::One(text)) => seconds(text).map(integer),
        (Form::Bytes, Value::One(text)) => bytes(text).map(integer),
        (Form::Count, Value::One(text)) => count(text).map(integer),
        (Form::Fraction, Value::One(text)) => fraction(text).map(Toml::Float),
        (Form::Path, Value::One(text)) => path(text),
        (Form::Text, Value::One(text)) => Ok(Toml::String(text.clone())),
    }
}

fn path(text: &str) -> Result<Toml, String> {
    let plain = !text.chars().any(char::is_control);
    if Path::new(text).is_absolute() && plain {
        return Ok(Toml::String(text.to_owned()));
    }
    Err(format!("'{}' is no absolute path; it begins with /", shown(text)))
}

/// A lone address is a network of one.
fn net(text: &str) -> Result<Toml, String> {
    let text = text.trim();
    match (text.parse::<std::net::IpAddr>(), text.split_once('/')) {
        (Ok(one), _) => Ok(Toml::String(format!("{one}/{}", if one.is_ipv4() { 32 } else { 128 }))),
        (_, Some((address, bits)))
            if address.parse::<std::net::IpAddr>().is_ok() && bits.parse::<u8>().is_ok() =>
        {
            Ok(Toml::String(text.to_owned()))
        }
        _ => Err(format!("'{}' is no address or network; use e.g. 192.168.1.0/24", shown(text))),
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
fn on_base(settings: &Table) -> Result<Config, ConfigError> {
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
fn put(table: &mut Table, key: &str, value: Toml) {
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

fn texts(values: Vec<Toml>) -> Vec<String> {
    values.into_iter().filter_map(|v| v.as_str().map(str::to_owned)).collect()
}

/// The name here of a key of the daemon.
fn uci_name(key: &str) -> String {
    let known = schema::SETTINGS.iter().find(|s| s.key == key);
    known.map_or_else(|| key.to_owned(), |s| format!("agentmon.{}.{}", s.section, s.option))
}

fn hint<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    nearest(word, known).map_or_else(String::new, |known| format!("; did you mean `{known}`?"))
}

fn choice(known: &[&(&str, &str)]) -> String {
    let names: Vec<_> = known.iter().map(|(_, name)| *name).collect();
    format!("; there are {}", names.join(", "))
}

fn shown(text: &str) -> String {
    agentmon_core::name::printable(text.as_bytes(), 60)
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
