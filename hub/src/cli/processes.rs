//! `agentmon processes`: programs of hosts that talked, with what is above them.

use super::args::ListArgs;
use super::condition::{Term, Terms};
use super::context::{Context, Exit};
use super::filter::Key;
use super::list::{self, SINCE_DEFAULT, Wanted};
use super::sheet::{Cell, Column, Kind, Row, Sheet};

/// What filter words mean for `processes`.
pub(crate) const TERMS: &Terms =
    &[(Key::Proc, Term::Text("name")), (Key::Sensor, Term::Sensor("sensor"))];

const COLUMNS: &[Column] = &[
    Column::new("TIME", |r, l| r.when("time", l)),
    Column::new("HOST", |r, _| r.plain("host")),
    Column::new("PID", |r, _| r.plain("pid")).right(),
    Column::new("PROGRAM", |r, _| r.plain("name")),
    Column::new("ABOVE IT", |r, _| above(r)),
    Column::new("USER", |r, _| r.plain("user")),
    Column::new("CONNECTIONS", |r, _| r.count("connections")).right(),
    Column::new("SENT", |r, _| r.bytes("bytes_out")).right(),
    Column::new("PACKAGE", |r, _| r.plain("package")),
    Column::new("FILE", |r, _| r.plain("exe")),
];

/// Names of the nearest ancestors.
fn above(row: &Row<'_>) -> Cell {
    let list = row.value("ancestors").as_array().cloned().unwrap_or_default();
    let names: Vec<&str> = list.iter().filter_map(|p| p.get("name")?.as_str()).take(4).collect();
    Cell::new(&names.join(" < "))
}

fn sheet() -> Sheet {
    Sheet::new(
        &[
            ("time", Kind::Time),
            ("sensor", Kind::Plain),
            ("host", Kind::Plain),
            ("process", Kind::Plain),
            ("pid", Kind::Plain),
            ("name", Kind::Plain),
            ("exe", Kind::Plain),
            ("sha256", Kind::Plain),
            ("argv", Kind::Plain),
            ("user", Kind::Plain),
            ("package", Kind::Plain),
            ("start", Kind::Time),
            ("ancestors", Kind::Json),
            ("connections", Kind::Plain),
            ("bytes_out", Kind::Bytes),
        ],
        COLUMNS,
    )
}

/// Newest first, each process once.
pub(crate) fn run(args: &ListArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let wanted = Wanted::read(args, Some(SINCE_DEFAULT), context)?;
    let condition = wanted.condition(TERMS, "time")?;
    let sql = format!(
        "WITH told AS (SELECT * FROM processes WHERE {} \
           QUALIFY row_number() OVER (PARTITION BY sensor, process ORDER BY time DESC) = 1), \
         used AS (SELECT sensor, process, count(*) AS n, sum(bytes_out) AS sent \
           FROM connections WHERE process IS NOT NULL AND direction <> 'listen' GROUP BY ALL) \
         SELECT time, (SELECT s.name FROM sensors s WHERE s.id = t.sensor), host, t.process, pid, name, \
           exe, sha256, argv, user_name, package, start, ancestors, coalesce(n, 0), coalesce(sent, 0)::UBIGINT \
         FROM told t LEFT JOIN used u ON u.sensor = t.sensor AND u.process = t.process \
         ORDER BY time DESC, t.process LIMIT ?",
        condition.sql
    );
    list::run(context, &wanted, &sheet(), &sql, condition)?;
    Ok(Exit::Fine)
}
