//! `agentmon feeds`: the lists for routers, what is wrong with them, and what they say.

use std::net::IpAddr;

use agentmon_core::name::Name;
use clap::{Args, Subcommand};
use ipnet::IpNet;
use serde_json::Value;

use super::args::FormatArgs;
use super::backend::{ask, query};
use super::context::{Context, Exit, Look};
use super::directory::Directory;
use super::print::{Format, Printer};
use super::sheet::{Cell, Column, Kind, Paint, Row, Sheet};
use crate::answer::FEED_COLUMNS;
use crate::control::{Reply, Request};
use crate::feeds::known::KNOWN;

/// What `--help` ends with.
pub(crate) const HELP: &str = "\
Examples:
  agentmon feeds                              each list, how many entries, what is wrong
  agentmon feeds --json | jq -r .report       what became of each list's lines
  agentmon feeds find evil.example 203.0.113.9    which lists name it, since when, and why
  agentmon feeds known                        feeds of publishers that a name is enough for
  agentmon feeds accept NAME                  it is meant to be so much smaller
Lists are set in hub.toml, section [lists]; routers fetch what is compiled of them, and history
is searched for what is new on them.
See also: agentmon-router score NAME, agentmon alerts rule:blocklist, rule:retro-hunt";

/// `feeds`.
#[derive(Debug, Args)]
pub(crate) struct FeedsArgs {
    #[command(subcommand)]
    pub(crate) action: Option<FeedsAction>,
    #[command(flatten)]
    pub(crate) format: FormatArgs,
}

/// What to do with a list.
#[derive(Debug, Subcommand)]
pub(crate) enum FeedsAction {
    /// Takes the list's next content, however much smaller it is
    Accept {
        /// The list
        name: String,
    },
    /// Which lists name these, or a network or name around them
    Find {
        /// Names and addresses
        #[arg(required = true, value_name = "NAME|ADDRESS")]
        values: Vec<String>,
        #[command(flatten)]
        format: FormatArgs,
    },
    /// The publishers' feeds that are known by name, with their licences
    Known {
        #[command(flatten)]
        format: FormatArgs,
    },
}

const FOUND: &[Column] = &[
    Column::new("VALUE", |r, _| r.plain("value")),
    Column::new("LIST", |r, _| r.plain("list")),
    Column::new("ENTRY", |r, _| r.plain("entry")),
    Column::new("THREAT", |r, _| r.plain("threat")),
    Column::new("SEEN", |r, l| r.when("first_seen", l)),
    Column::new("LISTED", |r, l| r.when("added", l)),
    Column::new("GONE", |r, l| r.when("gone", l)),
    Column::new("REFERENCE", |r, _| r.plain("reference")),
];

const KNOWN_COLUMNS: &[Column] = &[
    Column::new("FEED", |r, _| r.plain("feed")),
    Column::new("WHAT", |r, _| r.plain("about")),
    Column::new("SCORE", |r, _| r.plain("score")),
    Column::new("LICENCE", |r, _| r.plain("licence")),
    Column::new("FROM", |r, _| r.plain("url")),
];

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
    match &args.action {
        Some(FeedsAction::Accept { name }) => {
            ask(context.hub, &Request::AcceptFeed { name: name.clone() }, &mut |_| Ok(()))?;
            context.say(&format!("the next content of {name} is taken, however small"));
            return Ok(Exit::Fine);
        }
        Some(FeedsAction::Find { values, format }) => return find(values, format, context),
        Some(FeedsAction::Known { format }) => return known(format, context),
        None => {}
    }
    let (sheet, mut rows) = (sheet(), Vec::new());
    ask(context.hub, &Request::Feeds, &mut |reply| {
        if let Reply::Row { values } = reply {
            rows.push(values);
        }
        Ok(())
    })?;
    if rows.is_empty() && args.format.format() == Format::Table {
        context.say("no lists; set some in hub.toml, section [lists]");
    }
    print(context, &args.format, &sheet, rows)
}

/// What `find` prints of an entry, beside the value it was found for.
const ENTRY: &str = "list, entry, threat, first_seen, added, gone, reference, page, expires, \
     (SELECT max(licence) FROM indicator_lists l WHERE l.list = i.list) AS licence";

/// Which lists name these.
fn find(values: &[String], format: &FormatArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let time = |key: &&str| matches!(*key, "first_seen" | "added" | "gone" | "expires");
    let keys = [
        "value",
        "list",
        "entry",
        "threat",
        "first_seen",
        "added",
        "gone",
        "reference",
        "page",
        "expires",
        "licence",
    ]
    .map(|key| (key, if time(&key) { Kind::Time } else { Kind::Plain }));
    let sheet = Sheet::new(&keys, FOUND);
    let mut rows = Vec::new();
    for value in values {
        let wanted = around(value)?;
        let marks = vec!["?"; wanted.len()].join(", ");
        let sql = format!(
            "SELECT {ENTRY} FROM indicators i WHERE value IN ({marks}) \
             ORDER BY gone NULLS FIRST, length(value) DESC, added, list"
        );
        let params = wanted.into_iter().map(Value::from).collect();
        query(context.hub, &sql, params, &mut |row| {
            rows.push([vec![value.as_str().into()], row].concat());
            Ok(())
        })?;
    }
    if rows.is_empty() && format.format() == Format::Table {
        context.say("on no list of this hub; see agentmon feeds");
        return Ok(Exit::Fine);
    }
    print(context, format, &sheet, rows)
}

/// The names and networks that a name or an address is found by.
fn around(value: &str) -> anyhow::Result<Vec<String>> {
    if let Ok(address) = value.parse::<IpAddr>() {
        let address = address.to_canonical();
        let most = IpNet::from(address).max_prefix_len();
        let nets = (1..most).rev().filter_map(|length| IpNet::new(address, length).ok());
        let nets = nets.map(|net| net.trunc().to_string());
        return Ok(std::iter::once(address.to_string()).chain(nets).collect());
    }
    let name = Name::parse(value.as_bytes())
        .map_err(|e| anyhow::anyhow!("`{value}` is neither an address nor a name: {e}"))?;
    let mut rest = Some(name.as_str());
    let parents = std::iter::from_fn(|| {
        let this = rest?;
        rest = this.split_once('.').map(|(_, parent)| parent);
        Some(this.to_owned())
    });
    Ok(parents.collect())
}

/// The feeds that a name is enough for.
fn known(format: &FormatArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let keys = ["feed", "about", "score", "licence", "url", "refresh_seconds", "keep_days"];
    let sheet = Sheet::new(&keys.map(|key| (key, Kind::Plain)), KNOWN_COLUMNS);
    let rows = KNOWN.iter().map(|known| {
        vec![
            known.name.into(),
            known.about.into(),
            known.score.into(),
            known.licence.into(),
            known.url.into(),
            known.refresh_seconds.into(),
            known.keep_days.into(),
        ]
    });
    print(context, format, &sheet, rows.collect())
}

fn print(
    context: &mut Context<'_>,
    format: &FormatArgs,
    sheet: &Sheet,
    rows: Vec<Vec<Value>>,
) -> anyhow::Result<Exit> {
    let mut printer = Printer::new(format.format(), sheet, &context.look, context.out);
    let names = Directory::default();
    rows.into_iter().try_for_each(|row| printer.record(&sheet.record(row, &names)))?;
    printer.finish()?;
    Ok(Exit::Fine)
}
