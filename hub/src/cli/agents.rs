//! `agentmon agents`: which AI agents ran on which host, what they contacted, and what of it
//! lay outside their grant.
//!
//! What an agent started counts as the agent. A destination is told as what the catalogue
//! says it is to this agent: needed, telemetry of its own, optional, shared with thousands of
//! programs, or other.

use std::collections::BTreeMap;

use agentmon_core::Timestamp;
use agentmon_core::authority::{Authority, Policy};
use anyhow::Context as _;
use serde_json::Value;

use super::args::ListArgs;
use super::authority::{compile, past};
use super::context::{Context, Exit, Look};
use super::directory::Directory;
use super::list::{SINCE_DEFAULT, Wanted};
use super::print::Printer;
use super::sheet::{Cell, Column, Kind, Paint, Row, Sheet};
use crate::authority::catalogue::{self, Agents};
use crate::authority::{policy_path, read_policy};

const COLUMNS: &[Column] = &[
    Column::new("HOST", |r, _| r.plain("host")),
    Column::new("AGENT", |r, _| r.plain("agent")),
    Column::new("KNOWN BY", |r, _| r.plain("known_by")),
    Column::new("BY", |r, _| r.plain("program")),
    Column::new("DESTINATION", |r, _| r.plain("destination")),
    Column::new("PORT", |r, _| r.plain("port")).right(),
    Column::new("IS", is),
    Column::new("GRANT", verdict),
    Column::new("CONNECTIONS", |r, _| r.count("connections")).right(),
    Column::new("SENT", |r, _| r.bytes("bytes_out")).right(),
    Column::new("LAST", |r, l| r.when("last", l)),
];

fn is(row: &Row<'_>, _: &Look) -> Cell {
    let cell = row.plain("is");
    if row.text("is") == "other" { cell.paint(Paint::Note) } else { cell }
}

pub(super) fn verdict(row: &Row<'_>, _: &Look) -> Cell {
    let paint = match row.text("verdict") {
        "allowed" | "excepted" => Paint::Good,
        "no-grant" => Paint::Dim,
        _ => Paint::Bad,
    };
    row.plain("verdict").paint(paint)
}

fn sheet() -> Sheet {
    let plain = |key| (key, Kind::Plain);
    let mut fields = [
        "host",
        "agent",
        "title",
        "known_by",
        "program",
        "destination",
        "port",
        "is",
        "verdict",
        "connections",
    ]
    .map(plain)
    .to_vec();
    fields.extend([
        ("bytes_out", Kind::Bytes),
        ("first", Kind::Time),
        ("last", Kind::Time),
        plain("source"),
        plain("source_date"),
    ]);
    Sheet::new(&fields, COLUMNS)
}

/// What is told apart; what lies outside a grant comes first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    inside: bool,
    host: String,
    agent: String,
    known_by: &'static str,
    program: String,
    place: String,
    port: u16,
    is: &'static str,
    verdict: String,
}

#[derive(Default)]
struct Sum {
    connections: u64,
    bytes_out: u64,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
}

/// By host, agent and destination; what lies outside first.
pub(crate) fn run(args: &ListArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let wanted = Wanted::read(args, Some(SINCE_DEFAULT), context)?;
    let folder = context.hub.folder();
    let agents = Agents::of_dir(&folder)?;
    let policy = read_policy(&policy_path(&folder))?.unwrap_or_default();
    let authority = compile(&policy, &agents).context("authority.toml")?;
    // By the catalogue alone: a policy may call an agent something else.
    let who = Authority::compile(&Policy::default(), &agents.catalogue()).unwrap_or_default();
    let parts = [
        ("needs", catalogue::parts(&agents, |a| &a.needs)),
        ("telemetry", catalogue::parts(&agents, |a| &a.telemetry)),
        ("optional", catalogue::parts(&agents, |a| &a.optional)),
        ("shared", catalogue::parts(&agents, |a| &a.shared)),
    ];
    let mut sums: BTreeMap<Line, Sum> = BTreeMap::new();
    past(context, &wanted, |past| {
        let Some(process) = &past.process else { return };
        let Some(identity) = who.identify(process) else { return };
        let Some(agent) = who.id_of(identity).filter(|id| agents.get(id).is_some()) else { return };
        let (_, decision) = past.decide(&authority);
        let is_part =
            |(_, part): &&(&str, Authority)| past.decide(part).1.verdict.as_str() == "allowed";
        let is = parts.iter().find(is_part).map_or("other", |(word, _)| *word);
        let verdict = decision.verdict.as_str().to_owned();
        let key = Line {
            inside: matches!(verdict.as_str(), "allowed" | "excepted" | "no-grant"),
            host: process.host.clone(),
            agent: agent.to_owned(),
            known_by: identity.strength.as_str(),
            program: process.program.name.clone(),
            place: past.place(),
            port: past.port,
            is,
            verdict,
        };
        let sum = sums.entry(key).or_default();
        sum.connections += 1;
        sum.bytes_out = sum.bytes_out.saturating_add(past.bytes_out);
        sum.first = Some(sum.first.map_or(past.time, |t| t.min(past.time)));
        sum.last = Some(sum.last.map_or(past.time, |t| t.max(past.time)));
    })?;
    if sums.is_empty() {
        context.say(
            "no AI agent of the catalogue was seen; agentmon-host on a host tells of its processes",
        );
    }
    let (sheet, names) = (sheet(), Directory::default());
    let mut printer = Printer::new(wanted.format, &sheet, &context.look, context.out);
    let limit = usize::try_from(wanted.limit).unwrap_or(usize::MAX);
    for (line, sum) in sums.into_iter().take(limit) {
        let entry = agents.get(&line.agent);
        let time = |t: Option<Timestamp>| t.map_or(Value::Null, |t| t.to_string().into());
        let values: Vec<Value> = vec![
            line.host.into(),
            line.agent.into(),
            entry.map(|a| a.title.clone()).into(),
            line.known_by.into(),
            line.program.into(),
            line.place.into(),
            line.port.into(),
            line.is.into(),
            line.verdict.into(),
            sum.connections.into(),
            sum.bytes_out.into(),
            time(sum.first),
            time(sum.last),
            entry.map(|a| a.source.clone()).into(),
            entry.map(|a| a.date.clone()).into(),
        ];
        printer.record(&sheet.record(values, &names))?;
    }
    printer.finish()?;
    Ok(Exit::Fine)
}
