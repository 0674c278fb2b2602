//! Sections of which there can be many: lists of names, Pi-holes.
//!
//! In: one such section. Out: a table for the daemon's configuration, kept in the
//! [`Reader`]; or mistakes. Each is tried alone, so that a mistake is told where it stands.

use toml::{Table, Value as Toml};

use super::form::read;
use super::schema::{self, LIST, OTHER_PIHOLE};
use super::settings::{Inline, Reader, hint, on_base, put, shown};
use super::syntax::{Section, Value};

/// Longest name of a list in findings.
const LIST_NAME_BYTES_MAX: usize = 64;

/// What one of them says.
struct Said {
    on: bool,
    table: Table,
    /// Option, line and full name of what is in the table.
    places: Vec<(&'static str, usize, String)>,
    whole: bool,
}

impl Reader {
    /// The options of a section of this type.
    fn said(&mut self, kind: &'static str, section: &Section, key: &str) -> Said {
        let mut said = Said { on: true, table: Table::new(), places: Vec::new(), whole: true };
        for entry in &section.options {
            let key = format!("{key}.{}", shown(&entry.name));
            let Some(setting) = schema::of(kind).find(|s| s.option == entry.name) else {
                let known = schema::of(kind).map(|setting| setting.option);
                let text = format!("no such option{}", hint(&entry.name, known));
                self.say(entry.line, key, text);
                said.whole = false;
                continue;
            };
            if entry.value == Value::One(String::new()) {
                continue;
            }
            match (setting.option, read(setting.form, &entry.value)) {
                (_, Err(text)) => {
                    self.say(entry.line, key, text);
                    said.whole = false;
                }
                ("enabled", Ok(Toml::Boolean(value))) => said.on = value,
                (option, Ok(value)) => {
                    said.places.push((option, entry.line, key));
                    said.table.insert(option.to_owned(), value);
                }
            }
        }
        said
    }

    /// A section of type `list`.
    pub(super) fn list(&mut self, section: &Section) {
        let number = self.lists.len() + 1;
        let name = section.name.clone().unwrap_or_else(|| format!("list{number}"));
        let key = format!("agentmon.{}", shown(&name));
        let mut said = self.said(LIST, section, &key);
        let domains = match said.table.remove("domain") {
            Some(Toml::Array(names)) => texts(names),
            _ => Vec::new(),
        };
        if name.len() > LIST_NAME_BYTES_MAX {
            let text = format!("want a name of at most {LIST_NAME_BYTES_MAX} letters");
            return self.say(section.line, key, text);
        }
        if !said.on {
            return;
        }
        let problem = match (said.table.contains_key("path"), domains.is_empty()) {
            (false, true) => "want `option path` or `list domain`",
            (true, false) => "`option path` and `list domain` exclude each other: make two lists",
            (false, false) => {
                // Becomes the path of a file that `place` writes.
                said.table.insert("path".into(), Toml::String("/".into()));
                let (index, name) = (self.lists.len(), name.clone());
                self.service.inline.push(Inline { name, index, domains });
                ""
            }
            (true, true) => "",
        };
        if !problem.is_empty() {
            return self.say(section.line, key, problem);
        }
        said.table.insert("name".into(), Toml::String(name));
        let place = format!("tier0.blocklist.lists[{}]", self.lists.len());
        for (option, line, key) in said.places {
            self.places.push((format!("{place}.{option}"), line, key));
        }
        self.places.push((place, section.line, key));
        self.lists.push(Toml::Table(said.table));
    }

    /// A section of type `other_pihole`.
    pub(super) fn other_pihole(&mut self, section: &Section) {
        let Some(name) = section.name.clone() else {
            let text = "wants a name: it is how `status` calls this Pi-hole";
            return self.say(section.line, "agentmon", format!("an `{OTHER_PIHOLE}` {text}"));
        };
        let key = format!("agentmon.{}", shown(&name));
        let mut said = self.said(OTHER_PIHOLE, section, &key);
        if !said.on || !said.whole {
            return;
        }
        if !said.table.contains_key("url") {
            return self.say(section.line, key, "want `option url`");
        }
        said.table.insert("name".into(), Toml::String(name.to_ascii_lowercase()));
        if let Err((option, problem)) = alone(&said.table) {
            let place = said.places.into_iter().find(|(known, ..)| *known == option);
            let (_, line, key) = place.unwrap_or(("", section.line, format!("{key}.{option}")));
            return self.say(line, key, problem);
        }
        self.places.push(("collect.pihole.others".into(), section.line, key));
        self.piholes.push(Toml::Table(said.table));
    }
}

/// Whether the daemon takes it, as the only Pi-hole; else the option and what is wrong.
fn alone(one: &Table) -> Result<(), (String, String)> {
    let mut pihole = Table::from_iter([
        ("enabled".to_owned(), Toml::Boolean(true)),
        // The first one's files are not for this one.
        ("password_file".to_owned(), Toml::String(String::new())),
        ("certificate".to_owned(), Toml::String(String::new())),
    ]);
    pihole.extend(one.clone());
    let mut table = Table::new();
    put(&mut table, "collect.pihole", Toml::Table(pihole));
    on_base(&table).map(drop).map_err(|error| {
        let option = error.key.rsplit('.').next().unwrap_or_default().to_owned();
        (option, error.problem)
    })
}

fn texts(values: Vec<Toml>) -> Vec<String> {
    values.into_iter().filter_map(|v| v.as_str().map(str::to_owned)).collect()
}
