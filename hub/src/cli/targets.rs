//! `agentmon targets`: who is told of alerts, and how that goes.

use clap::Args;

use super::args::FormatArgs;
use super::backend::ask;
use super::context::{Context, Exit, Look};
use super::directory::Directory;
use super::print::{Format, Printer};
use super::sheet::{Cell, Column, Kind, Paint, Row, Sheet};
use crate::answer::TARGET_COLUMNS;
use crate::control::{Reply, Request};

/// `targets`.
#[derive(Debug, Args)]
pub(crate) struct TargetsArgs {
    #[command(flatten)]
    pub(crate) format: FormatArgs,
}

const COLUMNS: &[Column] = &[
    Column::new("NAME", |r, _| r.plain("name")),
    Column::new("KIND", |r, _| r.plain("kind")),
    Column::new("WAITING", |r, _| r.count("waiting")).right(),
    Column::new("SENT", |r, _| r.count("sent")).right(),
    Column::new("FAILED", |r, _| r.count("failed")).right(),
    Column::new("GIVEN UP", |r, _| r.count("given_up")).right(),
    Column::new("LAST SENT", |r, l| r.when("last_sent", l)),
    Column::new("STATE", state),
];

fn state(row: &Row<'_>, _: &Look) -> Cell {
    match row.text("error") {
        "" => Cell::new("ok").paint(Paint::Good),
        error => Cell::new(error).paint(Paint::Warn),
    }
}

fn sheet() -> Sheet {
    let kind = |name| if name == "last_sent" { Kind::Time } else { Kind::Plain };
    let fields: Vec<(&str, Kind)> =
        TARGET_COLUMNS.iter().map(|name| (*name, kind(*name))).collect();
    Sheet::new(&fields, COLUMNS)
}

/// The targets.
pub(crate) fn run(args: &TargetsArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let (sheet, mut rows) = (sheet(), Vec::new());
    ask(context.hub, &Request::Targets, &mut |reply| {
        if let Reply::Row { values } = reply {
            rows.push(values);
        }
        Ok(())
    })?;
    let format = args.format.format();
    if rows.is_empty() && format == Format::Table {
        context.say("nobody is told of alerts; set targets in hub.toml, section [deliver]");
    }
    let mut printer = Printer::new(format, &sheet, &context.look, context.out);
    let names = Directory::default();
    rows.into_iter().try_for_each(|row| printer.record(&sheet.record(row, &names)))?;
    printer.finish()?;
    Ok(Exit::Fine)
}

/// A made-up alert to one of them.
pub(crate) fn test(name: &str, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let request = Request::TestTarget { name: name.to_owned() };
    ask(context.hub, &request, &mut |_| Ok(()))?;
    context.say(&format!("{name} has taken a test alert"));
    Ok(Exit::Fine)
}
