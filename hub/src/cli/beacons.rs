//! `agentmon beacons`: what calls home again and again, by our own profile.
//!
//! The store scores (its times are many); this prints. RITA's profile is
//! [`super::beacons_rita`].

use anyhow::bail;

use super::args::{BeaconProfile, BeaconsArgs};
use super::backend::ask;
use super::beacons_rita as rita;
use super::context::{Context, Exit};
use super::directory::Directory;
use super::list;
use super::print::Printer;
use super::sheet::{Cell, Column, Kind, Row, Sheet};
use super::{units, when};
use crate::control::{Reply, Request};
use crate::detect::beacon::answer;

const COLUMNS: &[Column] = &[
    Column::new("RANK", |r, _| number(r, "rank")).right(),
    Column::new("SCORE", |r, _| number(r, "score")).right(),
    Column::new("DEVICE", |r, _| r.host("src", "device")),
    Column::new("TO", |r, _| r.plain("dst")),
    Column::new("EVERY", |r, _| every(r)).right(),
    Column::new("JITTER", |r, _| percent(r, "jitter")).right(),
    Column::new("MISSED", |r, _| percent(r, "missed")).right(),
    Column::new("BEATS", |r, _| r.count("beats")).right(),
    Column::new("BYTES", |r, _| r.bytes("bytes")).right(),
    Column::new("BY", |r, _| r.plain("via")),
    Column::new("WHY", |r, _| Cell::new(&r.list("why"))),
];

fn number(row: &Row<'_>, key: &str) -> Cell {
    row.value(key).as_f64().map_or_else(Cell::default, |s| Cell::new(&format!("{s:.2}")))
}

fn percent(row: &Row<'_>, key: &str) -> Cell {
    let percent = |part: f64| Cell::new(&format!("{:.0} %", part * 100.0));
    row.value(key).as_f64().map_or_else(Cell::default, percent)
}

fn every(row: &Row<'_>) -> Cell {
    let seconds = row.value("period_s").as_f64().unwrap_or(0.0);
    Cell::new(&match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7_200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3_600.0),
    })
}

fn sheet() -> Sheet {
    let kind = |key: &'static str| match key {
        "bytes" | "bytes_out" | "bytes_in" => (key, Kind::Bytes),
        "time" | "last_seen" => (key, Kind::Time),
        key => (key, Kind::Plain),
    };
    let mut fields: Vec<_> = answer::COLUMNS.map(kind).to_vec();
    fields.push(("device", Kind::DeviceAt("src", Some("mac"))));
    Sheet::new(&fields, COLUMNS)
}

/// By the profile asked for; highest first.
pub(crate) fn run(args: &BeaconsArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    match args.profile {
        BeaconProfile::Rita => rita::run(args, context),
        BeaconProfile::Agentmon => own(args, context),
    }
}

fn own(args: &BeaconsArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let look = &context.look;
    if args.since.is_some()
        || args.sensor.is_some()
        || !args.internal.is_empty()
        || args.rolling
        || args.intel
    {
        bail!(
            "--since, --sensor, --internal, --rolling and --intel are of --profile rita; --until says which day"
        );
    }
    let until = args.until.as_deref().map(|text| when::parse(text, look.now, &look.zone));
    let until = until.transpose().map_err(|error| anyhow::anyhow!("--until: {error}"))?;
    let request = Request::Beacons { until_us: until.map(|t| t.micros()), score: args.min_score };
    let mut rows = Vec::new();
    ask(context.hub, &request, &mut |reply| {
        if let Reply::Row { values } = reply {
            rows.push(values);
        }
        Ok(())
    })?;
    let names = Directory::load(context.hub)?;
    let format = args.format.format();
    let limit = usize::try_from(list::limit(args.limit, format)).unwrap_or(usize::MAX);
    let (sheet, n) = (sheet(), rows.len());
    let mut printer = Printer::new(format, &sheet, &context.look, context.out);
    for row in rows.into_iter().take(limit) {
        printer.record(&sheet.record(row, &names))?;
    }
    printer.finish()?;
    if n > limit {
        let n = units::plural(n as u64, "row", "rows");
        context.say(&format!("only the first {limit} of {n}: --limit N"));
    }
    Ok(Exit::Fine)
}
