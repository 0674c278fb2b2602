//! Sheets on paper: a table for a person, JSON lines or CSV for a program.
//!
//! JSON and CSV are written as rows arrive; a table is laid out when all rows are there,
//! so its rows are bounded by the command's limit. Every text passes [`super::text`].

use std::io::Write;

use comfy_table::{Attribute, CellAlignment, Color, ContentArrangement, Table, presets};
use serde_json::Value;

use super::context::Look;
use super::sheet::{Cell, Paint, Record, Sheet};
use super::text;

/// Output formats of list commands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    /// Laid out for a terminal.
    #[default]
    Table,
    /// One JSON object per line.
    Json,
    /// RFC 4180 with a header line.
    Csv,
}

/// Writes records of one sheet.
pub(crate) struct Printer<'a> {
    format: Format,
    sheet: &'a Sheet,
    look: &'a Look,
    out: &'a mut dyn Write,
    lines: Vec<Vec<Cell>>,
    started: bool,
}

impl<'a> Printer<'a> {
    pub(crate) fn new(
        format: Format,
        sheet: &'a Sheet,
        look: &'a Look,
        out: &'a mut dyn Write,
    ) -> Self {
        Self { format, sheet, look, out, lines: Vec::new(), started: false }
    }

    /// One more record.
    pub(crate) fn record(&mut self, record: &Record) -> anyhow::Result<()> {
        self.start()?;
        match self.format {
            Format::Json => writeln!(self.out, "{}", json_line(self.sheet, record))?,
            Format::Csv => {
                let fields: Vec<String> = record.values.iter().map(csv_value).collect();
                csv_line(self.out, &fields)?;
            }
            Format::Table => {
                let row = self.sheet.row(record);
                self.lines
                    .push(self.sheet.columns.iter().map(|c| (c.cell)(&row, self.look)).collect());
            }
        }
        Ok(())
    }

    /// All records are there. An empty CSV still has its header.
    pub(crate) fn finish(mut self) -> anyhow::Result<()> {
        self.start()?;
        if self.format == Format::Table && !self.lines.is_empty() {
            let titles = self.sheet.columns.iter().map(|c| (c.title, c.right)).collect::<Vec<_>>();
            table(self.out, &titles, self.lines, self.look)?;
        }
        Ok(())
    }

    fn start(&mut self) -> anyhow::Result<()> {
        if !std::mem::replace(&mut self.started, true) && self.format == Format::Csv {
            let keys: Vec<String> = self.sheet.fields.iter().map(|f| f.key.clone()).collect();
            csv_line(self.out, &keys)?;
        }
        Ok(())
    }
}

/// `{"key":value,...}` in the order of the fields.
pub(crate) fn json_line(sheet: &Sheet, record: &Record) -> String {
    let mut line = String::from("{");
    for (i, (field, value)) in sheet.fields.iter().zip(&record.values).enumerate() {
        if i > 0 {
            line.push(',');
        }
        line.push_str(&Value::from(field.key.as_str()).to_string());
        line.push(':');
        line.push_str(&value.to_string());
    }
    line.push('}');
    text::safe_json(line)
}

/// A value as the text of a CSV field: lists of texts divided by spaces.
pub(crate) fn csv_value(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.iter().all(Value::is_string) => {
            items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
        }
        other => other.to_string(),
    }
}

/// RFC 4180 ends records with CRLF.
pub(crate) fn csv_line(out: &mut dyn Write, fields: &[String]) -> std::io::Result<()> {
    let fields: Vec<_> = fields.iter().map(|f| text::csv_field(f)).collect();
    write!(out, "{}\r\n", fields.join(","))
}

/// Lays out a table without lines, as wide as the terminal; columns of numbers are
/// aligned to the right.
pub(crate) fn table(
    out: &mut dyn Write,
    titles: &[(&str, bool)],
    lines: Vec<Vec<Cell>>,
    look: &Look,
) -> anyhow::Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    match look.width {
        Some(width) => {
            table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
        }
        None => {
            table.set_content_arrangement(ContentArrangement::Disabled);
        }
    }
    if look.color {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    let title =
        |(text, _): &(&str, bool)| comfy_table::Cell::new(text).add_attribute(Attribute::Bold);
    table.set_header(titles.iter().map(title));
    for line in lines {
        table.add_row(line.into_iter().map(styled));
    }
    for (column, (_, right)) in table.column_iter_mut().zip(titles) {
        column.set_padding((0, 2));
        if *right {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for line in table.lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

fn styled(cell: Cell) -> comfy_table::Cell {
    let out = comfy_table::Cell::new(cell.text);
    match cell.paint {
        Paint::Plain => out,
        Paint::Dim => out.fg(Color::DarkGrey),
        Paint::Good => out.fg(Color::Green),
        Paint::Note => out.fg(Color::Cyan),
        Paint::Warn => out.fg(Color::Yellow),
        Paint::Bad => out.fg(Color::Red),
        Paint::Worst => out.fg(Color::Red).add_attribute(Attribute::Bold),
    }
}

#[cfg(test)]
mod tests {
    use agentmon_core::Timestamp;
    use jiff::tz::TimeZone;

    use super::super::directory::Directory;
    use super::super::sheet::{Column, Kind};
    use super::*;

    const COLUMNS: &[Column] = &[
        Column::new("NAME", |r, _| r.plain("name")),
        Column::new("BYTES", |r, _| r.bytes("bytes")).right(),
        Column::new("SEVERITY", |r, _| r.severity("severity")),
    ];

    fn print(format: Format, color: bool, width: Option<u16>, rows: Vec<Vec<Value>>) -> String {
        let sheet = Sheet::new(
            &[("name", Kind::Plain), ("bytes", Kind::Bytes), ("severity", Kind::Plain)],
            COLUMNS,
        );
        let look = Look { zone: TimeZone::UTC, now: Timestamp::EPOCH, width, color };
        let mut out = Vec::new();
        let mut printer = Printer::new(format, &sheet, &look, &mut out);
        for row in rows {
            printer.record(&sheet.record(row, &Directory::default())).unwrap();
        }
        printer.finish().unwrap();
        String::from_utf8(out).unwrap()
    }

    fn hostile() -> Vec<Vec<Value>> {
        vec![
            vec!["a,\"b\"\x1b[2J".into(), 1_476.into(), "high".into()],
            vec![Value::Null, u64::MAX.into(), Value::Null],
        ]
    }

    #[test]
    fn json_is_exact_and_never_raw() {
        assert_eq!(
            print(Format::Json, false, None, hostile()),
            "{\"name\":\"a,\\\"b\\\"\\u001b[2J\",\"bytes\":1476,\"severity\":\"high\"}\n\
             {\"name\":null,\"bytes\":18446744073709551615,\"severity\":null}\n"
        );
        assert_eq!(print(Format::Json, false, None, vec![]), "");
    }

    #[test]
    fn csv_follows_rfc_4180() {
        assert_eq!(
            print(Format::Csv, false, None, hostile()),
            "name,bytes,severity\r\n\"a,\"\"b\"\"\\x1b[2J\",1476,high\r\n,18446744073709551615,\r\n"
        );
        assert_eq!(print(Format::Csv, false, None, vec![]), "name,bytes,severity\r\n");
    }

    #[test]
    fn tables_fit_and_colour_only_when_asked() {
        let plain = print(Format::Table, false, None, hostile());
        assert!(plain.contains("a,\"b\"\\x1b[2J") && plain.contains("1.48 kB"), "{plain}");
        assert!(!plain.contains('\x1b'));
        let coloured = print(Format::Table, true, Some(60), hostile());
        assert!(coloured.contains("\x1b["));
        assert!(!coloured.contains("\x1b[2J"));
        let long = vec![vec!["x".repeat(200).into(), 1.into(), "low".into()]];
        for line in print(Format::Table, false, Some(60), long).lines() {
            assert!(line.chars().count() <= 60, "{line}");
        }
        assert_eq!(print(Format::Table, false, None, vec![]), "");
    }
}
