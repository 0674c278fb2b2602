//! `agentmon authority audit`: the list an agent was given, beside what it really reached.
//!
//! In: settings files of agents, connections of the past. Out: one line for each place the
//! agent reached, worst first: denied by its settings, beyond what they allow, its own
//! service's, allowed; and entries nothing ever used. An agent's own settings are its word for
//! itself; this is what was seen from outside.

use std::collections::BTreeMap;
use std::path::PathBuf;

use agentmon_core::Timestamp;
use agentmon_core::authority::{Authority, Grant, Mode, Policy, Verdict, policy::Some1};
use anyhow::Context as _;
use clap::Args;
use serde_json::Value;

use super::args::ListArgs;
use super::authority::{SINCE_LONG, past};
use super::context::{Context, Exit, Look};
use super::directory::Directory;
use super::list::Wanted;
use super::print::Printer;
use super::sheet::{Cell, Column, Kind as Field, Paint, Row, Sheet};
use crate::authority::catalogue::Agents;
use crate::authority::settings::{self, Given, Kind};

#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("settings").required(true).multiple(true)
    .args(["claude_settings", "codex_config", "cursor_sandbox"]))]
pub(crate) struct AuditArgs {
    /// Claude Code's settings.json (or the sandbox runtime's); of user, project and local, each
    #[arg(long, value_name = "FILE")]
    claude_settings: Vec<PathBuf>,
    /// Codex's config.toml
    #[arg(long, value_name = "FILE")]
    codex_config: Vec<PathBuf>,
    /// Cursor's sandbox.json
    #[arg(long, value_name = "FILE")]
    cursor_sandbox: Vec<PathBuf>,
    #[command(flatten)]
    list: ListArgs,
}

const COLUMNS: &[Column] = &[
    Column::new("AGENT", |r, _| r.plain("agent")),
    Column::new("IS", is),
    Column::new("HOST", |r, _| r.plain("host")),
    Column::new("BY", |r, _| r.plain("program")),
    Column::new("DESTINATION", |r, _| r.plain("destination")),
    Column::new("PORT", |r, _| r.plain("port")).right(),
    Column::new("CONNECTIONS", |r, _| r.count("connections")).right(),
    Column::new("SENT", |r, _| r.bytes("bytes_out")).right(),
    Column::new("ENTRY", |r, _| r.plain("entry")),
    Column::new("LAST", |r, l| r.when("last", l)),
];

fn is(row: &Row<'_>, _: &Look) -> Cell {
    let paint = match row.text("is") {
        "denied" | "beyond" => Paint::Bad,
        "given" => Paint::Good,
        "unused" => Paint::Note,
        _ => Paint::Dim,
    };
    row.plain("is").paint(paint)
}

fn sheet() -> Sheet {
    let plain = ["agent", "is", "host", "program", "destination", "port", "connections"];
    let mut fields = plain.map(|key| (key, Field::Plain)).to_vec();
    fields.extend([("bytes_out", Field::Bytes), ("entry", Field::Plain), ("last", Field::Time)]);
    Sheet::new(&fields, COLUMNS)
}

/// What is told apart; worst first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    order: u8,
    agent: &'static str,
    host: String,
    program: String,
    place: String,
    port: u16,
    entry: String,
}

/// By `order`.
const WORDS: [&str; 6] = ["denied", "beyond", "unused", "shared", "own", "given"];

#[derive(Default)]
struct Sum {
    connections: u64,
    bytes_out: u64,
    last: Option<Timestamp>,
}

/// What one kind of agent was given, ready to decide by.
struct Ready {
    agent: &'static str,
    given: Given,
    listed: Authority,
    own: Authority,
    shared: Authority,
}

impl Ready {
    fn new(kind: Kind, files: &[PathBuf], agents: &Agents) -> anyhow::Result<Self> {
        let mut given = Given::default();
        for file in files {
            let shown = || file.display().to_string();
            let text = crate::authority::read_text(file)?
                .with_context(|| format!("{}: no such file", shown()))?;
            let more = settings::read(kind, &text).with_context(shown)?;
            given.allowed.extend(more.allowed);
            given.denied.extend(more.denied);
            given.notes.extend(more.notes);
        }
        let agent = kind.agent();
        let entry = agents.get(agent);
        let of = |allowed: Vec<String>, denied: Vec<String>| {
            let grant = Grant {
                process: Some1(vec![agent.to_owned()]),
                allowed: Some1(allowed),
                denied: Some1(denied),
                otherwise: Some(Mode::Learn),
                ..Grant::default()
            };
            let policy = Policy { authority: vec![grant], ..Policy::default() };
            super::authority::compile(&policy, agents)
        };
        let mut own = vec!["loopback".to_owned(), "lan:dns".to_owned()];
        own.extend(
            entry
                .into_iter()
                .flat_map(|a| [&a.needs, &a.telemetry, &a.optional])
                .flatten()
                .cloned(),
        );
        let shared = entry.map(|a| a.shared.clone()).unwrap_or_default();
        Ok(Self {
            agent,
            listed: of(given.allowed.clone(), given.denied.clone())?,
            own: of(own, Vec::new())?,
            shared: of(shared, Vec::new())?,
            given,
        })
    }
}

/// Beside what was seen.
pub(super) fn run(args: &AuditArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let wanted = Wanted::read(&args.list, Some(SINCE_LONG), context)?;
    let agents = Agents::of_dir(&context.hub.folder())?;
    let who = Authority::compile(&Policy::default(), &agents.catalogue()).unwrap_or_default();
    let mut all = Vec::new();
    for (kind, files) in [
        (Kind::Claude, &args.claude_settings),
        (Kind::Codex, &args.codex_config),
        (Kind::Cursor, &args.cursor_sandbox),
    ] {
        if !files.is_empty() {
            all.push(Ready::new(kind, files, &agents)?);
        }
    }
    let mut sums: BTreeMap<Line, Sum> = BTreeMap::new();
    past(context, &wanted, |past| {
        let Some(process) = &past.process else { return };
        let subject = who.identify(process).and_then(|i| who.id_of(i));
        let Some(ready) = all.iter().find(|r| Some(r.agent) == subject) else { return };
        let decision = past.decide(&ready.listed).1;
        let by = |authority: &Authority| past.decide(authority).1.verdict == Verdict::Allowed;
        let order = match decision.verdict {
            Verdict::Denied => 0,
            Verdict::Allowed => 5,
            _ if by(&ready.own) => 4,
            _ if by(&ready.shared) => 3,
            _ => 1,
        };
        let line = Line {
            order,
            agent: ready.agent,
            host: process.host.clone(),
            program: process.program.name.clone(),
            place: past.place(),
            port: past.port,
            entry: decision.rule.unwrap_or_default().to_owned(),
        };
        let sum = sums.entry(line).or_default();
        sum.connections += 1;
        sum.bytes_out = sum.bytes_out.saturating_add(past.bytes_out);
        sum.last = sum.last.max(Some(past.time));
    })?;
    for ready in &all {
        ready.given.notes.iter().for_each(|note| context.say(&format!("{}: {note}", ready.agent)));
        if !sums.keys().any(|line| line.agent == ready.agent) {
            context.say(&format!("{}: no connection of it was seen", ready.agent));
        }
        let unused = ready.given.allowed.iter().filter(|entry| {
            !sums.keys().any(|line| line.agent == ready.agent && line.entry == **entry)
        });
        let unused: Vec<Line> = unused
            .map(|entry| Line {
                order: 2,
                agent: ready.agent,
                host: String::new(),
                program: String::new(),
                place: String::new(),
                port: 0,
                entry: entry.clone(),
            })
            .collect();
        sums.extend(unused.into_iter().map(|line| (line, Sum::default())));
    }
    print(sums, &wanted, context)
}

fn print(
    sums: BTreeMap<Line, Sum>,
    wanted: &Wanted,
    context: &mut Context<'_>,
) -> anyhow::Result<Exit> {
    let beyond = sums.keys().any(|line| line.order < 2);
    let (sheet, names) = (sheet(), Directory::default());
    let mut printer = Printer::new(wanted.format, &sheet, &context.look, context.out);
    let limit = usize::try_from(wanted.limit).unwrap_or(usize::MAX);
    for (line, sum) in sums.into_iter().take(limit) {
        let port = if line.port == 0 { Value::Null } else { line.port.into() };
        let values: Vec<Value> = vec![
            line.agent.into(),
            WORDS.get(usize::from(line.order)).copied().unwrap_or("").into(),
            line.host.into(),
            line.program.into(),
            line.place.into(),
            port,
            sum.connections.into(),
            sum.bytes_out.into(),
            line.entry.into(),
            sum.last.map_or(Value::Null, |t| t.to_string().into()),
        ];
        printer.record(&sheet.record(values, &names))?;
    }
    printer.finish()?;
    Ok(if beyond { Exit::Found } else { Exit::Fine })
}
