//! UCI as rpcd offers it to a page: the file the package installs, changed in memory.
//!
//! In: the text of a UCI file and the calls `get`, `set`, `add`, `delete`. Out: the same
//! shapes rpcd gives, and the file's text after the changes, for the program that reads it.

use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value, json};

use super::bus::{Failure, NOT_FOUND};

/// ubus status: an argument is missing or makes no sense.
const INVALID_ARGUMENT: u8 = 2;

/// One configuration file.
#[derive(Debug)]
pub struct Uci {
    sections: Mutex<Vec<Section>>,
}

#[derive(Clone, Debug)]
struct Section {
    kind: String,
    name: String,
    options: Map<String, Value>,
}

impl Uci {
    /// Reads the plain form that packages install: one statement a line, values in single
    /// quotes.
    ///
    /// # Panics
    /// When a line is of another form.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut sections: Vec<Section> = Vec::new();
        for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
            let (statement, quoted) = line.split_once(" '").expect("a quoted value");
            let value = quoted.strip_suffix('\'').expect("a closing quote").to_owned();
            match statement.split(' ').collect::<Vec<_>>()[..] {
                ["config", kind] => {
                    sections.push(Section {
                        kind: kind.to_owned(),
                        name: value,
                        options: Map::new(),
                    });
                }
                ["option", name] => put(&mut sections, name, json!(value)),
                ["list", name] => extend(&mut sections, name, value),
                _ => panic!("no UCI: {line}"),
            }
        }
        Self { sections: Mutex::new(sections) }
    }

    /// The value of one option, as it stands now.
    #[must_use]
    pub fn get(&self, section: &str, option: &str) -> Option<Value> {
        self.with(|all| all.iter().find(|one| one.name == section)?.options.get(option).cloned())
    }

    /// The names of all sections of a kind.
    #[must_use]
    pub fn names(&self, kind: &str) -> Vec<String> {
        self.with(|all| {
            all.iter().filter(|one| one.kind == kind).map(|one| one.name.clone()).collect()
        })
    }

    /// The file's text as it would be written now.
    #[must_use]
    pub fn text(&self) -> String {
        let quoted = |value: &Value| {
            format!("'{}'", value.as_str().unwrap_or_default().replace('\'', "'\\''"))
        };
        let mut text = String::new();
        let mut line = |words: String| writeln!(text, "{words}").expect("a string takes all");
        for one in self.with(|all| all.clone()) {
            line(format!("config {} '{}'", one.kind, one.name));
            for (name, value) in &one.options {
                match value {
                    Value::Array(all) => {
                        all.iter().for_each(|v| line(format!("\tlist {name} {}", quoted(v))));
                    }
                    value => line(format!("\toption {name} {}", quoted(value))),
                }
            }
        }
        text
    }

    /// A call of the object `uci`.
    ///
    /// # Errors
    /// The status rpcd answers with.
    pub fn call(&self, method: &str, arguments: &Value) -> Result<Value, Failure> {
        match method {
            "get" => self.read(arguments),
            "add" => self.add(arguments),
            "set" => self.set(arguments),
            "delete" => self.delete(arguments),
            "changes" => Ok(json!({ "changes": {} })),
            _ => Err(Failure::Status(INVALID_ARGUMENT)),
        }
    }

    fn read(&self, arguments: &Value) -> Result<Value, Failure> {
        match (arguments["section"].as_str(), arguments["option"].as_str()) {
            (Some(section), Some(option)) => {
                let value = self.get(section, option).ok_or(Failure::Status(NOT_FOUND))?;
                Ok(json!({ "value": value }))
            }
            _ => Ok(json!({ "values": self.values() })),
        }
    }

    fn values(&self) -> Map<String, Value> {
        let section = |(index, one): (usize, &Section)| {
            let mut value = one.options.clone();
            value.insert(".anonymous".into(), json!(false));
            value.insert(".type".into(), json!(one.kind));
            value.insert(".name".into(), json!(one.name));
            value.insert(".index".into(), json!(index));
            (one.name.clone(), Value::Object(value))
        };
        self.with(|all| all.iter().enumerate().map(section).collect())
    }

    fn add(&self, arguments: &Value) -> Result<Value, Failure> {
        let (Some(kind), Some(name)) = (arguments["type"].as_str(), arguments["name"].as_str())
        else {
            return Err(Failure::Status(INVALID_ARGUMENT));
        };
        let options = arguments["values"].as_object().cloned().unwrap_or_default();
        let section = Section { kind: kind.to_owned(), name: name.to_owned(), options };
        self.with(|all| all.push(section));
        Ok(json!({ "section": name }))
    }

    fn set(&self, arguments: &Value) -> Result<Value, Failure> {
        let values = arguments["values"].as_object().cloned().unwrap_or_default();
        self.change(arguments, |one| one.options.extend(values))
    }

    fn delete(&self, arguments: &Value) -> Result<Value, Failure> {
        if let Some(options) = arguments["options"].as_array() {
            let gone = |name: &String| options.iter().any(|o| o.as_str() == Some(name));
            return self.change(arguments, |one| one.options.retain(|name, _| !gone(name)));
        }
        let name = arguments["section"].as_str().unwrap_or_default();
        self.with(|all| all.retain(|one| one.name != name));
        Ok(json!({}))
    }

    fn change(&self, arguments: &Value, act: impl FnOnce(&mut Section)) -> Result<Value, Failure> {
        let name = arguments["section"].as_str().unwrap_or_default();
        self.with(|all| {
            let found = all.iter_mut().find(|one| one.name == name);
            act(found.ok_or(Failure::Status(NOT_FOUND))?);
            Ok(json!({}))
        })
    }

    fn with<T>(&self, use_it: impl FnOnce(&mut Vec<Section>) -> T) -> T {
        use_it(&mut self.sections.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn put(sections: &mut [Section], name: &str, value: Value) {
    let section = sections.last_mut().expect("a section before the first option");
    section.options.insert(name.to_owned(), value);
}

fn extend(sections: &mut [Section], name: &str, value: String) {
    let section = sections.last_mut().expect("a section before the first list");
    let list = section.options.entry(name).or_insert_with(|| json!([]));
    list.as_array_mut().expect("a list").push(json!(value));
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# c\nconfig agentmon 'main'\n\toption enabled '1'\n\nconfig list 'x'\n\tlist domain 'a.example'\n\tlist domain 'b.example'\n";

    #[test]
    fn a_file_is_read_changed_and_written() {
        let uci = Uci::parse(TEXT);
        assert_eq!(uci.get("x", "domain"), Some(json!(["a.example", "b.example"])));
        uci.call("set", &json!({ "section": "main", "values": { "note": "it's" } })).expect("set");
        uci.call("delete", &json!({ "section": "main", "options": ["enabled"] })).expect("delete");
        uci.call("add", &json!({ "type": "list", "name": "y", "values": {} })).expect("add");
        uci.call("delete", &json!({ "section": "x" })).expect("delete");
        assert_eq!(
            uci.text(),
            "config agentmon 'main'\n\toption note 'it'\\''s'\nconfig list 'y'\n"
        );
        let gone = uci.call("set", &json!({ "section": "x", "values": {} }));
        assert_eq!(gone, Err(Failure::Status(NOT_FOUND)));
    }
}
