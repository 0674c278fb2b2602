//! `agentmon authority`: check a policy, explain one decision, try it on the past, have grants
//! proposed from what was seen, and hold agents' own settings beside it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use agentmon_core::authority::{Authority, Policy, lint};
use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::Value;

use super::agents::verdict;
use super::args::ListArgs;
use super::backend::query;
use super::condition::{Condition, Term, Terms};
use super::context::{Context, Exit};
use super::directory::Directory;
use super::filter::Key;
use super::list::Wanted;
use super::print::Printer;
use super::sheet::{Column, Kind, Sheet};
use super::text::safe;
use crate::authority::catalogue::Agents;
use crate::authority::learn::Seen;
use crate::authority::replay::{OUTWARD, Past, SELECT};
use crate::authority::{policy_path, read_policy};
use crate::control::QUERY_ROWS_MAX;

/// How far back a policy is tried and learnt from.
pub(super) const SINCE_LONG: &str = "7d";

#[derive(Args, Debug)]
pub(crate) struct AuthorityArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// What in a policy is wrong, dead, shadowed or over; exit code 1 when there is something
    Check {
        /// The policy [default: authority.toml in the data directory]
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Why a connection is allowed or not: by its id, as `agentmon authority test --json` has it
    Explain {
        /// The connection's id
        #[arg(value_name = "CONNECTION")]
        id: u64,
    },
    /// What a policy would have said of the connections of the past
    Test {
        /// The policy [default: authority.toml in the data directory]
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
        #[command(flatten)]
        list: ListArgs,
    },
    /// What an agent's own settings allow it, beside what it reached; exit code 1 when it
    /// reached more
    #[command(after_help = "\
Examples:
  agentmon authority audit --claude-settings ~/.claude/settings.json
  agentmon authority audit --codex-config ~/.codex/config.toml --since 30d
  agentmon authority audit --cursor-sandbox ~/.cursor/sandbox.json --json
denied: its settings forbid it; beyond: no entry allows it and its maker does not need it;
unused: an entry that nothing used; shared: counters of thousands of programs; own: its service's")]
    Audit(super::audit::AuditArgs),
    /// The smallest grants that would have allowed what a process did; you decide which to keep
    Learn {
        /// Its id in the policy or the catalogue, or a program's name
        #[arg(long, value_name = "ID")]
        process: String,
        #[command(flatten)]
        list: ListArgs,
    },
}

/// What filter words mean for connections of processes.
pub(crate) const TERMS: &Terms = &[
    (Key::Proc, Term::Text("c.name")),
    (Key::Client, Term::Address(&["c.src"])),
    (Key::Src, Term::Address(&["c.src"])),
    (Key::Dst, Term::AddressOrName("c.dst", "c.domain")),
    (Key::Domain, Term::Domain(&["c.domain"])),
    (Key::Port, Term::Number("c.dport")),
    (Key::Proto, Term::Protocol("c.proto")),
    (Key::Sensor, Term::Sensor("c.sensor")),
];

/// One of the five.
pub(crate) fn run(args: &AuthorityArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    match &args.action {
        Action::Check { file } => check(file.as_deref(), context),
        Action::Explain { id } => explain(*id, context),
        Action::Test { policy, list } => test(policy.as_deref(), list, context),
        Action::Audit(args) => super::audit::run(args, context),
        Action::Learn { process, list } => learn(process, list, context),
    }
}

fn policy(file: Option<&Path>, folder: &Path) -> anyhow::Result<(PathBuf, Policy)> {
    let path = file.map_or_else(|| policy_path(folder), Path::to_owned);
    let policy = read_policy(&path)?.with_context(|| {
        format!("{}: there is no policy; write one, or name one", path.display())
    })?;
    Ok((path, policy))
}

/// A policy ready to decide by, or all that is wrong with it.
pub(super) fn compile(policy: &Policy, agents: &Agents) -> anyhow::Result<Authority> {
    Authority::compile(policy, &agents.catalogue()).map_err(|problems| {
        let lines: Vec<String> =
            problems.iter().map(|p| safe(&p.to_string()).into_owned()).collect();
        anyhow::anyhow!("{}", lines.join("\n"))
    })
}

fn check(file: Option<&Path>, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let folder = context.hub.folder();
    let (path, policy) = policy(file, &folder)?;
    let agents = Agents::of_dir(&folder)?;
    let problems = lint::lint(&policy, &agents.catalogue(), context.look.now);
    for problem in &problems {
        writeln!(context.out, "{}", safe(&problem.to_string()))?;
    }
    if problems.is_empty() {
        let rules = compile(&policy, &agents)?.rules();
        context.say(&format!("{}: {rules} rules, nothing to say against them", path.display()));
        return Ok(Exit::Fine);
    }
    Ok(Exit::Found)
}

/// Connections in the wanted time, oldest first.
pub(super) fn past(
    context: &mut Context<'_>,
    wanted: &Wanted,
    mut each: impl FnMut(&Past),
) -> anyhow::Result<()> {
    let condition = wanted.condition(TERMS, "c.time")?;
    let sql =
        format!("{SELECT} WHERE {OUTWARD} AND {} ORDER BY c.time, c.id LIMIT ?", condition.sql);
    let mut params = condition.params;
    params.push(QUERY_ROWS_MAX.into());
    let mut rows = 0;
    query(context.hub, &sql, params, &mut |row| {
        rows += 1;
        if let Some(past) = Past::read(&row) {
            each(&past);
        }
        Ok(())
    })?;
    if rows >= QUERY_ROWS_MAX {
        context.say(&format!(
            "only the first {QUERY_ROWS_MAX} connections were looked at; narrow the time"
        ));
    }
    Ok(())
}

fn explain(id: u64, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let folder = context.hub.folder();
    let (path, policy) = policy(None, &folder)?;
    let agents = Agents::of_dir(&folder)?;
    let authority = compile(&policy, &agents)?;
    let mut found = None;
    let mut condition = Condition::new();
    condition.and("c.id = CAST(? AS UBIGINT)", [Value::from(id.to_string())]);
    query(
        context.hub,
        &format!("{SELECT} WHERE {}", condition.sql),
        condition.params,
        &mut |row| {
            found = Past::read(&row);
            Ok(())
        },
    )?;
    let past = found
        .with_context(|| format!("no connection {id}; agentmon authority test --json tells ids"))?;
    let (identity, decision) = past.decide(&authority);
    let out = &mut context.out;
    let mut line = |name: &str, text: &str| writeln!(out, "{name:<12} {}", safe(text));
    line(
        "connection",
        &format!("{} {}:{} ({}) from {}", past.time, past.place(), past.port, past.ip, past.src),
    )?;
    match &past.process {
        None => line("process", "nobody knows")?,
        Some(process) => {
            let all = std::iter::once(&process.program).chain(&process.ancestors);
            for (n, program) in all.enumerate() {
                let exe = program.exe.as_deref().unwrap_or("?");
                let counts = identity.is_some_and(|i| i.above == n);
                let mark = if counts { "  <- counts" } else { "" };
                line(
                    if n == 0 { "process" } else { "started by" },
                    &format!("{} ({}) {exe}{mark}", program.name, program.pid),
                )?;
            }
        }
    }
    let subject = decision.subject.unwrap_or("nobody the policy knows");
    let by = decision.strength.map(|s| format!(", known by {}", s.as_str())).unwrap_or_default();
    line("subject", &format!("{subject}{by}"))?;
    line("verdict", decision.verdict.as_str())?;
    if let (Some(rule), Some(place)) = (decision.rule, decision.place) {
        line("because of", &format!("`{rule}`, {place} in {}", path.display()))?;
    }
    if let Some(comment) = decision.comment {
        line("comment", comment)?;
    }
    if decision.weak {
        line("note", "a grant would allow it to a process that is better known (`require`)")?;
    }
    Ok(Exit::Fine)
}

const COLUMNS: &[Column] = &[
    Column::new("GRANT", verdict),
    Column::new("WOULD", |r, _| r.plain("mode")),
    Column::new("SUBJECT", |r, _| r.plain("subject")),
    Column::new("PROGRAM", |r, _| r.plain("program")),
    Column::new("HOST", |r, _| r.plain("host")),
    Column::new("DESTINATION", |r, _| r.plain("destination")),
    Column::new("PORT", |r, _| r.plain("port")).right(),
    Column::new("CONNECTIONS", |r, _| r.count("connections")).right(),
    Column::new("RULE", |r, _| r.plain("rule")),
    Column::new("LAST", |r, l| r.when("last", l)),
];

fn sheet() -> Sheet {
    let plain = |key| (key, Kind::Plain);
    let mut fields = [
        "verdict",
        "mode",
        "subject",
        "known_by",
        "program",
        "host",
        "destination",
        "port",
        "connections",
        "rule",
        "place",
        "connection",
    ]
    .map(plain)
    .to_vec();
    fields.push(("last", Kind::Time));
    Sheet::new(&fields, COLUMNS)
}

fn test(file: Option<&Path>, list: &ListArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let wanted = Wanted::read(list, Some(SINCE_LONG), context)?;
    let folder = context.hub.folder();
    let (_, policy) = policy(file, &folder)?;
    let authority = compile(&policy, &Agents::of_dir(&folder)?)?;
    // What would be told first, then what is allowed.
    let mut sums: BTreeMap<Vec<String>, (u64, u64, agentmon_core::Timestamp)> = BTreeMap::new();
    past(context, &wanted, |past| {
        let (_, d) = past.decide(&authority);
        let mode = format!("{:?}", d.mode).to_lowercase();
        let order = match mode.as_str() {
            "alert" => "0",
            "flag" => "1",
            "learn" => "2",
            _ => "3",
        };
        let process = past.process.as_ref();
        let or = |text: Option<&str>| text.unwrap_or_default().to_owned();
        let key = vec![
            order.into(),
            d.verdict.as_str().into(),
            mode,
            or(d.subject),
            or(d.strength.map(|s| s.as_str())),
            or(process.map(|p| p.program.name.as_str())),
            or(process.map(|p| p.host.as_str())),
            past.place(),
            past.port.to_string(),
            or(d.rule),
            or(d.place),
        ];
        let sum = sums.entry(key).or_insert((0, past.id, past.time));
        *sum = (sum.0 + 1, past.id, sum.2.max(past.time));
    })?;
    let told = sums.keys().any(|key| key.first().is_some_and(|order| order == "0"));
    let (sheet, names) = (sheet(), Directory::default());
    let mut printer = Printer::new(wanted.format, &sheet, &context.look, context.out);
    for (key, (connections, id, last)) in
        sums.into_iter().take(usize::try_from(wanted.limit).unwrap_or(usize::MAX))
    {
        let part = |n: usize| Value::from(key.get(n).cloned().unwrap_or_default());
        let mut values: Vec<Value> = (1..9).map(part).collect();
        values.extend([
            connections.into(),
            part(9),
            part(10),
            id.to_string().into(),
            last.to_string().into(),
        ]);
        printer.record(&sheet.record(values, &names))?;
    }
    printer.finish()?;
    Ok(if told { Exit::Found } else { Exit::Fine })
}

fn learn(process: &str, list: &ListArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let wanted = Wanted::read(list, Some(SINCE_LONG), context)?;
    let folder = context.hub.folder();
    let mut policy = read_policy(&policy_path(&folder))?.unwrap_or_default();
    // Named, so that who nobody has defined is known by name.
    let asked = format!("authority = [{{process = {}}}]", Value::from(process));
    policy.authority = toml::from_str::<Policy>(&asked)?.authority;
    policy.exception.clear();
    let authority = compile(&policy, &Agents::of_dir(&folder)?)?;
    let (mut seen, mut connections) = (Seen::default(), 0u64);
    past(context, &wanted, |past| {
        let identity = past.process.as_ref().and_then(|p| authority.identify(p));
        if identity.and_then(|i| authority.id_of(i)) == Some(process) {
            connections += 1;
            seen.add(past.time, past.domain.as_ref(), past.ip, past.port, past.proto);
        }
    })?;
    if connections == 0 {
        context.say(&format!(
            "{process}: no connection seen since {}",
            list.since.as_deref().unwrap_or(SINCE_LONG)
        ));
        return Ok(Exit::Fine);
    }
    let out = &mut context.out;
    writeln!(out, "# Proposed from {connections} connections; keep the lines you agree with.")?;
    writeln!(out, "[[authority]]\nprocess = {}\nallowed = [", Value::from(process))?;
    for p in seen.proposals() {
        let many = if p.names > 1 { format!(", {} names", p.names) } else { String::new() };
        writeln!(
            out,
            "  {}, # {} connections on {} days{many}",
            Value::from(safe(&p.pattern).as_ref()),
            p.connections,
            p.days
        )?;
    }
    writeln!(out, "]\notherwise = \"alert\"")?;
    Ok(Exit::Fine)
}
