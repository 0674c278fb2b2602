//! `agentmon sensors` and `agentmon enroll`: who sends, how late, what was lost.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;

use super::args::{EnrollArgs, FormatArgs, ListArgs, SensorsAction, SensorsArgs};
use super::backend::{ask, one_row};
use super::condition::{Term, Terms};
use super::context::{Context, Exit, Look};
use super::directory::Directory;
use super::filter::Key;
use super::list::{self, Wanted};
use super::print::Printer;
use super::sheet::{Cell, Column, Kind, Paint, Row, Sheet};
use super::units;
use crate::control::Request;

/// A sensor sends at least its health this often; silent for longer, it is late.
const LATE_AFTER: Duration = Duration::from_secs(120);
/// Clocks further apart than this make wrong times.
const SKEW_MAX: Duration = Duration::from_secs(5);

const TERMS: &Terms = &[
    (Key::Sensor, Term::Text("name")),
    (Key::Name, Term::Text("name")),
    (Key::Proc, Term::Nothing),
];

const COLUMNS: &[Column] = &[
    Column::new("NAME", |r, _| r.plain("name")),
    Column::new("STATE", state),
    Column::new("LAST SEEN", |r, l| r.when("last_seen", l)),
    Column::new("WAITING", |r, _| r.count("pending")).right(),
    Column::new("RING", |r, _| r.bytes("ring_bytes")).right(),
    Column::new("DROPPED", |r, _| r.count("dropped").paint(Paint::Warn)).right(),
    Column::new("VERSION", |r, _| r.plain("version")),
    Column::new("TROUBLE", trouble),
];

fn state(row: &Row<'_>, look: &Look) -> Cell {
    if row.time("revoked_at").is_some() {
        return Cell::new("revoked").paint(Paint::Dim);
    }
    if row.flag("local") {
        return Cell::new("imported").paint(Paint::Dim);
    }
    let Some(seen) = row.time("last_seen") else {
        return Cell::new("never seen").paint(Paint::Note);
    };
    let silent = look.now.since(seen);
    if silent > LATE_AFTER {
        return Cell::new(&format!("silent {}", units::duration(silent))).paint(Paint::Warn);
    }
    match row.time("last_sent").map(|sent| sent.distance(seen)) {
        Some(skew) if skew > SKEW_MAX => {
            Cell::new(&format!("clock off by {}", units::duration(skew))).paint(Paint::Warn)
        }
        _ => Cell::new("ok").paint(Paint::Good),
    }
}

/// How many collectors lack something; `sensors show NAME` says what.
fn trouble(row: &Row<'_>, _: &Look) -> Cell {
    let names = row.value("trouble").as_array().map(Vec::as_slice).unwrap_or_default();
    let name = |v: &Value| v.as_str().and_then(|s| s.split(':').next()).map(str::to_owned);
    let names: Vec<String> = names.iter().filter_map(name).collect();
    Cell::new(&names.join(", ")).paint(Paint::Warn)
}

fn sheet() -> Sheet {
    Sheet::new(
        &[
            ("name", Kind::Plain),
            ("local", Kind::Plain),
            ("enrolled_at", Kind::Time),
            ("revoked_at", Kind::Time),
            ("last_seen", Kind::Time),
            ("last_sent", Kind::Time),
            ("version", Kind::Plain),
            ("pending", Kind::Plain),
            ("ring_bytes", Kind::Bytes),
            ("dropped", Kind::Plain),
            ("trouble", Kind::Plain),
        ],
        COLUMNS,
    )
}

/// The list, or what is to be done with one sensor.
pub(crate) fn run(args: &SensorsArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    match &args.action {
        None => all(&args.list, context),
        Some(SensorsAction::Show { name, format }) => show(name, *format, context),
        Some(SensorsAction::Revoke { name }) => revoke(name, context),
    }
}

fn all(args: &ListArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let wanted = Wanted::read(args, None, context)?;
    let condition = wanted.condition(TERMS, "coalesce(last_seen, enrolled_at)")?;
    let sql = format!(
        "SELECT name, token_hash IS NULL, enrolled_at, revoked_at, last_seen, last_sent, version, pending, ring_bytes, \
         (SELECT sum(c.value) FROM sensor_counters c \
           WHERE c.sensor = id AND starts_with(c.name, 'drop.')), \
         (SELECT list(c.name || ': ' || c.state ORDER BY c.name) FROM sensor_collectors c \
           WHERE c.sensor = id AND NOT regexp_matches(c.state, '^(ok|done)\\b')) \
         FROM sensors WHERE {} ORDER BY name LIMIT ?",
        condition.sql
    );
    list::run(context, &wanted, &sheet(), &sql, condition)?;
    Ok(Exit::Fine)
}

const DETAIL: &[Column] = &[
    Column::new("WHAT", |r, _| r.plain("what")),
    Column::new("NAME", |r, _| r.plain("name")),
    Column::new("VALUE", |r, _| r.plain("value")),
];

fn show(name: &str, format: FormatArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let sheet =
        Sheet::new(&[("what", Kind::Plain), ("name", Kind::Plain), ("value", Kind::Plain)], DETAIL);
    let sql = "SELECT what, x.name, x.value FROM ( \
           SELECT 'collector' AS what, sensor, name, state AS value FROM sensor_collectors \
           UNION ALL SELECT 'counter', sensor, name, value::VARCHAR FROM sensor_counters) x \
         JOIN sensors s ON s.id = x.sensor WHERE s.name = ? ORDER BY what, x.name";
    let records =
        list::collect(context, &Directory::default(), &sheet, sql, vec![Value::from(name)])?;
    if records.is_empty() {
        known(name, context)?;
        context.say("it has not reported anything yet");
    }
    let format = format.format();
    let mut printer = Printer::new(format, &sheet, &context.look, context.out);
    records.iter().try_for_each(|record| printer.record(record))?;
    printer.finish()?;
    Ok(Exit::Fine)
}

/// Fails for a name nobody enrolled.
fn known(name: &str, context: &mut Context<'_>) -> anyhow::Result<()> {
    let sheet = Sheet::new(&[("name", Kind::Plain)], &[]);
    let params = vec![Value::from(name)];
    let sql = "SELECT name FROM sensors WHERE name = ?";
    let found = list::collect(context, &Directory::default(), &sheet, sql, params)?;
    if found.is_empty() {
        anyhow::bail!("there is no sensor `{name}`; see `agentmon sensors`");
    }
    Ok(())
}

fn revoke(name: &str, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    ask(context.hub, &Request::Revoke { name: name.to_owned() }, &mut |_| Ok(()))?;
    context.say(&format!(
        "sensor {name} is refused from now on; `agentmon enroll {name}` lets it in again"
    ));
    Ok(Exit::Fine)
}

/// Prints the join line alone, so that it can be piped to the sensor.
pub(crate) fn enroll(args: &EnrollArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let request = Request::Enroll { name: args.name.clone(), address: args.address.clone() };
    let (columns, row) = one_row(context.hub, &request)?.context("the hub made no join line")?;
    let at = columns.iter().position(|c| c == "join").unwrap_or(0);
    let line = row.get(at).and_then(Value::as_str).context("the hub made no join line")?;
    writeln!(context.out, "{}", super::text::safe(line))?;
    context.say(&format!(
        "on the sensor: agentmon-router join  (then paste this line; it is a secret, and it \
         replaces any earlier one of {})",
        args.name
    ));
    Ok(Exit::Fine)
}
