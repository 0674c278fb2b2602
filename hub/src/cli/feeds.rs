//! `agentmon feeds`: the lists for routers, and what is wrong with them.

use super::args::{FeedsAction, FeedsArgs};
use super::backend::ask;
use super::context::{Context, Exit, Look};
use super::directory::Directory;
use super::print::{Format, Printer};
use super::sheet::{Cell, Column, Kind, Paint, Row, Sheet};
use crate::answer::FEED_COLUMNS;
use crate::control::{Reply, Request};

const COLUMNS: &[Column] = &[
    Column::new("NAME", |r, _| r.plain("name")),
    Column::new("ENTRIES", |r, _| r.count("entries")).right(),
    Column::new("REFUSED", |r, _| r.count("refused")).right(),
    Column::new("CHANGED", |r, l| r.when("changed", l)),
    Column::new("CHECKED", |r, l| r.when("checked", l)),
    Column::new("LICENCE", |r, _| r.plain("licence")),
    Column::new("STATE", state),
    Column::new("FROM", |r, _| r.plain("origin")),
];

fn state(row: &Row<'_>, _: &Look) -> Cell {
    let text = row.text("state");
    Cell::new(text).paint(if text == "ok" { Paint::Good } else { Paint::Warn })
}

fn sheet() -> Sheet {
    let kind = |name| if matches!(name, "changed" | "checked") { Kind::Time } else { Kind::Plain };
    let fields: Vec<(&str, Kind)> = FEED_COLUMNS.iter().map(|name| (*name, kind(*name))).collect();
    Sheet::new(&fields, COLUMNS)
}

/// The lists, or what is to be done with one.
pub(crate) fn run(args: &FeedsArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    if let Some(FeedsAction::Accept { name }) = &args.action {
        ask(context.hub, &Request::AcceptFeed { name: name.clone() }, &mut |_| Ok(()))?;
        context.say(&format!("the next content of {name} is taken, however small"));
        return Ok(Exit::Fine);
    }
    let (sheet, mut rows) = (sheet(), Vec::new());
    ask(context.hub, &Request::Feeds, &mut |reply| {
        if let Reply::Row { values } = reply {
            rows.push(values);
        }
        Ok(())
    })?;
    let format = args.format.format();
    if rows.is_empty() && format == Format::Table {
        context.say("no lists; set some in hub.toml, section [lists]");
    }
    let mut printer = Printer::new(format, &sheet, &context.look, context.out);
    let names = Directory::default();
    rows.into_iter().try_for_each(|row| printer.record(&sheet.record(row, &names)))?;
    printer.finish()?;
    Ok(Exit::Fine)
}
