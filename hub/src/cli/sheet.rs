//! Rows of an answer, typed enough to be shown: what a list command prints.
//!
//! A [`Sheet`] says which fields a record has (JSON keys and CSV columns, in order) and
//! which columns the table shows (often two fields in one cell). Values keep the store's
//! exact numbers; closed number lists (protocols, record types) become their names once,
//! on the way in, for every format.

use std::time::Duration;

use agentmon_core::Timestamp;
use serde_json::Value;

use super::context::Look;
use super::directory::Directory;
use super::places::{self, Part};
use super::{text, units, when};

/// What a field's value stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    /// Shown as it is.
    Plain,
    /// RFC 3339 in machine output, local time in a table.
    Time,
    /// Exact in machine output, with a prefix in a table.
    Bytes,
    /// Milliseconds.
    Millis,
    /// IP protocol number, as its name.
    Protocol,
    /// DNS record type number, as its name.
    RecordType,
    /// DNS response code, as its name.
    ResponseCode,
    /// JSON text of the store, as JSON.
    Json,
    /// No column of the query: the name of the device at that address field, by that MAC
    /// field where there is one.
    DeviceAt(&'static str, Option<&'static str>),
    /// No column of the query: what is known of the network of that address field.
    NetworkOf(&'static str, Part),
}

/// One field of a record.
#[derive(Clone, Debug)]
pub(crate) struct Field {
    pub(crate) key: String,
    pub(crate) kind: Kind,
}

/// Colour of a cell, by meaning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Paint {
    #[default]
    Plain,
    Dim,
    Good,
    Note,
    Warn,
    Bad,
    Worst,
}

impl Paint {
    /// By the severity's word.
    pub(crate) fn of_severity(word: &str) -> Self {
        match word {
            "critical" => Self::Worst,
            "high" => Self::Bad,
            "medium" => Self::Warn,
            "low" => Self::Note,
            _ => Self::Dim,
        }
    }
}

/// One cell of a table: text that is safe to print, and its colour.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) text: String,
    pub(crate) paint: Paint,
}

impl Cell {
    pub(crate) fn new(text: &str) -> Self {
        Self { text: text::safe(text).into_owned(), paint: Paint::Plain }
    }
    pub(crate) const fn paint(mut self, paint: Paint) -> Self {
        self.paint = paint;
        self
    }
}

/// One column of a table.
#[derive(Clone, Copy)]
pub(crate) struct Column {
    pub(crate) title: &'static str,
    pub(crate) right: bool,
    pub(crate) cell: fn(&Row<'_>, &Look) -> Cell,
}

impl Column {
    pub(crate) const fn new(title: &'static str, cell: fn(&Row<'_>, &Look) -> Cell) -> Self {
        Self { title, right: false, cell }
    }
    pub(crate) const fn right(mut self) -> Self {
        self.right = true;
        self
    }
}

/// The shape of one command's output.
pub(crate) struct Sheet {
    pub(crate) fields: Vec<Field>,
    pub(crate) columns: &'static [Column],
}

impl Sheet {
    /// Fields in the order of the query's columns; derived ones stand anywhere between.
    pub(crate) fn new(fields: &[(&str, Kind)], columns: &'static [Column]) -> Self {
        let field = |(key, kind): &(&str, Kind)| Field { key: (*key).to_owned(), kind: *kind };
        Self { fields: fields.iter().map(field).collect(), columns }
    }

    /// A record out of one row of the query's answer.
    pub(crate) fn record(&self, answer: Vec<Value>, names: &Directory) -> Record {
        let mut answer = answer.into_iter();
        let mut values: Vec<Value> = Vec::with_capacity(self.fields.len());
        for field in &self.fields {
            values.push(match field.kind {
                Kind::DeviceAt(..) | Kind::NetworkOf(..) => Value::Null,
                kind => translate(kind, answer.next().unwrap_or(Value::Null)),
            });
        }
        let mut record = Record { values };
        for (i, field) in self.fields.iter().enumerate() {
            if let Kind::DeviceAt(address, mac) = field.kind {
                let row = self.row(&record);
                let at = row.time("time").or_else(|| row.time("last_seen"));
                let mac = mac.map(|key| row.text(key)).filter(|m| !m.is_empty());
                let name = names.name(row.text(address), mac, at).map(Value::from);
                if let Some(slot) = record.values.get_mut(i) {
                    *slot = name.unwrap_or(Value::Null);
                }
            }
            if let Kind::NetworkOf(address, part) = field.kind {
                let text = self.row(&record).text(address);
                let found = names.destinations().and_then(|table| table.of_text(text));
                let said = found.map(|found| places::value(&found, part));
                if let (Some(slot), Some(said)) = (record.values.get_mut(i), said) {
                    *slot = said;
                }
            }
        }
        record
    }

    /// Whether its records tell of networks.
    pub(crate) fn tells_networks(&self) -> bool {
        self.fields.iter().any(|field| matches!(field.kind, Kind::NetworkOf(..)))
    }

    /// A record with the sheet that explains it.
    pub(crate) fn row<'a>(&'a self, record: &'a Record) -> Row<'a> {
        Row { sheet: self, record }
    }
}

fn translate(kind: Kind, value: Value) -> Value {
    let number = |f: fn(u64) -> String| value.as_u64().map(|n| Value::from(f(n)));
    let translated = match kind {
        Kind::Protocol => number(units::protocol),
        Kind::RecordType => number(units::record_type),
        Kind::ResponseCode => number(units::response_code),
        Kind::Json => value.as_str().and_then(|text| serde_json::from_str(text).ok()),
        _ => None,
    };
    translated.unwrap_or(value)
}

/// The values of one record, in the order of the sheet's fields.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) values: Vec<Value>,
}

/// A record and its sheet.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    pub(crate) sheet: &'a Sheet,
    pub(crate) record: &'a Record,
}

impl<'a> Row<'a> {
    /// A value by its key; null where there is none.
    pub(crate) fn value(&self, key: &str) -> &'a Value {
        let at = self.sheet.fields.iter().position(|f| f.key == key);
        debug_assert!(at.is_some(), "no field `{key}` in this sheet");
        at.and_then(|i| self.record.values.get(i)).unwrap_or(&Value::Null)
    }
    /// A text; empty for null.
    pub(crate) fn text(&self, key: &str) -> &'a str {
        self.value(key).as_str().unwrap_or_default()
    }
    /// A whole number.
    pub(crate) fn number(&self, key: &str) -> Option<u64> {
        self.value(key).as_u64()
    }
    /// True only where it says so.
    pub(crate) fn flag(&self, key: &str) -> bool {
        self.value(key).as_bool().unwrap_or_default()
    }
    /// A time. Asked of sheets without that field too.
    pub(crate) fn time(&self, key: &str) -> Option<Timestamp> {
        let at = self.sheet.fields.iter().position(|f| f.key == key)?;
        self.record.values.get(at)?.as_str().and_then(when::from_answer)
    }
    /// The texts of a list, joined.
    pub(crate) fn list(&self, key: &str) -> String {
        let items = self.value(key).as_array().map(Vec::as_slice).unwrap_or_default();
        items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
    }

    /// Cell: the text as it is.
    pub(crate) fn plain(&self, key: &str) -> Cell {
        match self.value(key) {
            Value::Null => Cell::default(),
            Value::String(text) => Cell::new(text),
            other => Cell::new(&other.to_string()),
        }
    }
    /// Cell: a time of the local zone.
    pub(crate) fn when(&self, key: &str, look: &Look) -> Cell {
        let time = self.time(key);
        time.map_or_else(Cell::default, |t| Cell::new(&when::short(t, look.now, &look.zone)))
    }
    /// Cell: bytes with a prefix.
    pub(crate) fn bytes(&self, key: &str) -> Cell {
        self.number(key).map_or_else(Cell::default, |n| Cell::new(&units::bytes(n)))
    }
    /// Cell: a count with thousands divided; nothing for zero, which only makes noise.
    pub(crate) fn count(&self, key: &str) -> Cell {
        match self.number(key) {
            None | Some(0) => Cell::default(),
            Some(n) => Cell::new(&units::count(n)),
        }
    }
    /// Cell: milliseconds as a duration.
    pub(crate) fn millis(&self, key: &str) -> Cell {
        let ms = self.number(key).map(Duration::from_millis);
        ms.map_or_else(Cell::default, |d| Cell::new(&units::duration(d)))
    }
    /// Cell: a severity in its colour.
    pub(crate) fn severity(&self, key: &str) -> Cell {
        self.plain(key).paint(Paint::of_severity(self.text(key)))
    }
    /// Cell: `name (address)`, or the address alone.
    pub(crate) fn host(&self, address: &str, name: &str) -> Cell {
        Cell::new(&host(self.text(address), self.text(name)))
    }
}

/// `name (address)`, or whichever there is.
pub(crate) fn host(address: &str, name: &str) -> String {
    match (address, name) {
        (address, "") => address.to_owned(),
        ("", name) => name.to_owned(),
        (address, name) => format!("{name} ({address})"),
    }
}
