//! `agentmon sql`: one read-only statement of the person's own, held to the hub's rules
//! for untrusted SQL.

use std::io::Read as _;

use anyhow::Context as _;

use super::args::SqlArgs;
use super::backend::ask;
use super::context::{Context, Exit, Look};
use super::directory::Directory;
use super::list;
use super::print::{Format, Printer, table};
use super::sheet::{Cell, Field, Kind, Record, Sheet};
use super::{units, when};
use crate::control::{Reply, Request};
use crate::store::sandbox::SQL_BYTES_MAX;

/// The tables and their columns, for a person; a test holds it against the store.
pub(crate) const VIEWS: &str = include_str!("../../../docs/sql.md");

/// Prints whatever columns the statement has.
pub(crate) fn run(args: &SqlArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let Some(text) = args.statement.as_deref() else {
        context.out.write_all(VIEWS.as_bytes())?;
        return Ok(Exit::Fine);
    };
    let timeout = when::duration(&args.timeout)
        .with_context(|| format!("--timeout {}: want an age as 90s or 5m", args.timeout))?;
    let format = args.format.format();
    let limit = list::limit(args.limit, format);
    let request = Request::Query {
        sql: statement(text)?,
        params: Vec::new(),
        timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
        untrusted: true,
    };
    let mut sheet = Sheet { fields: Vec::new(), columns: &[] };
    let mut lines = Vec::new();
    let mut rows = 0u64;
    let (hub, out, look) = (&mut *context.hub, &mut *context.out, &context.look);
    let outcome = ask(hub, &request, &mut |reply| {
        match reply {
            Reply::Columns { names, types } => {
                sheet.fields = fields(names, types);
                // The header line of CSV stands also above no rows.
                Printer::new(format, &sheet, look, out).finish()?;
            }
            Reply::Row { values } => {
                rows += 1;
                if rows <= limit {
                    let record = sheet.record(values, &Directory::default());
                    row(format, &sheet, &record, look, out, &mut lines)?;
                }
            }
            Reply::Done { .. } | Reply::Failed { .. } | Reply::Warning { .. } => {}
        }
        Ok(())
    })?;
    if format == Format::Table && !sheet.fields.is_empty() {
        let numeric = |f: &Field| f.kind == Kind::Bytes;
        let titles: Vec<_> =
            sheet.fields.iter().map(|f| (super::text::safe(&f.key), numeric(f))).collect();
        let titles: Vec<(&str, bool)> = titles.iter().map(|(t, n)| (t.as_ref(), *n)).collect();
        table(context.out, &titles, lines, &context.look)?;
    }
    if rows > limit || outcome.truncated {
        let shown = units::plural(limit.min(rows), "row", "rows");
        context.say(&format!("only the first {shown}; use --limit N, --json or --csv for more"));
    }
    Ok(Exit::Fine)
}

fn statement(text: &str) -> anyhow::Result<String> {
    if text != "-" {
        return Ok(text.to_owned());
    }
    let mut sql = String::new();
    let most = u64::try_from(SQL_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    std::io::stdin().take(most).read_to_string(&mut sql).context("reading stdin")?;
    Ok(sql)
}

fn row(
    format: Format,
    sheet: &Sheet,
    record: &Record,
    look: &Look,
    out: &mut dyn std::io::Write,
    lines: &mut Vec<Vec<Cell>>,
) -> anyhow::Result<()> {
    match format {
        Format::Table => {
            let row = sheet.row(record);
            lines.push(
                sheet.fields.iter().map(|f| cell(&row.plain(&f.key), f.kind, look)).collect(),
            );
            Ok(())
        }
        Format::Json => Ok(writeln!(out, "{}", super::print::json_line(sheet, record))?),
        Format::Csv => {
            let fields: Vec<String> = record.values.iter().map(super::print::csv_value).collect();
            Ok(super::print::csv_line(out, &fields)?)
        }
    }
}

/// Times of the statement's answer are shown as stored, in UTC: its text speaks UTC too.
fn cell(plain: &Cell, kind: Kind, _: &Look) -> Cell {
    match kind {
        Kind::Time => Cell::new(&plain.text.replace('T', " ").replace(".000000Z", "Z")),
        _ => plain.clone(),
    }
}

/// Keys must differ in a JSON object: a second `a` becomes `a_2`. `Bytes` here only means:
/// a number, aligned to the right.
fn fields(names: Vec<String>, types: Vec<String>) -> Vec<Field> {
    let mut out: Vec<Field> = Vec::with_capacity(names.len());
    for (name, kind) in names.into_iter().zip(types) {
        let kind = match kind.as_str() {
            "TIMESTAMP" => Kind::Time,
            t if t.ends_with("INT") || t.ends_with("INTEGER") || t == "DOUBLE" => Kind::Bytes,
            _ => Kind::Plain,
        };
        let taken = |key: &str| out.iter().any(|f: &Field| f.key == key);
        let mut key = name.clone();
        let mut n = 2;
        while taken(&key) {
            key = format!("{name}_{n}");
            n += 1;
        }
        out.push(Field { key, kind });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_gets_a_key_of_its_own() {
        let names = ["a", "a", "a_2", "a", "count_star()"].map(str::to_owned).to_vec();
        let types = vec!["BIGINT".to_owned(); 5];
        let got = fields(names, types);
        let keys: Vec<&str> = got.iter().map(|f| f.key.as_str()).collect();
        assert_eq!(keys, ["a", "a_2", "a_2_2", "a_3", "count_star()"]);
    }

    /// The columns that the text tells of are those of the store, in their order.
    #[test]
    fn the_views_are_as_told() {
        let dir = tempfile::tempdir().unwrap();
        let limits = crate::store::Limits::default();
        let connection = crate::store::open_write(dir.path(), &limits).unwrap();
        let mut told = 0;
        for section in VIEWS.split("\n## ").skip(1) {
            let table = section.lines().next().unwrap();
            let row =
                |line: &str| line.strip_prefix("| `")?.split_once('`').map(|(c, _)| c.to_owned());
            let columns: Vec<String> = section.lines().filter_map(row).collect();
            if columns.is_empty() {
                continue;
            }
            let mut described = connection.prepare(&format!("DESCRIBE {table}")).unwrap();
            let real = described.query_map([], |row| row.get::<_, String>(0)).unwrap();
            let real: Vec<String> = real.collect::<Result<_, _>>().unwrap();
            assert_eq!(columns, real, "{table}");
            told += 1;
        }
        assert_eq!(told, 8);
    }
}
