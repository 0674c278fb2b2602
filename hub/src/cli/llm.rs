//! `agentmon llm`: the models that are asked for a second opinion, and what they said.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::args::{FormatArgs, ListArgs};
use super::backend::{ask, one_row, query};
use super::condition::{Term, Terms};
use super::context::{Context, Exit, Look};
use super::directory::Directory;
use super::filter::Key;
use super::list::{self, Wanted};
use super::print::{Format, Printer};
use super::sheet::{Cell, Column, Kind, Paint, Row, Sheet};
use super::text;
use crate::answer::LLM_COLUMNS;
use crate::control::{Reply, Request};

/// `llm`.
#[derive(Debug, Args)]
pub(crate) struct LlmArgs {
    #[command(subcommand)]
    pub(crate) action: Option<LlmAction>,
    #[command(flatten)]
    pub(crate) format: FormatArgs,
}

/// What to see of it.
#[derive(Debug, Subcommand)]
pub(crate) enum LlmAction {
    /// Both tiers (as without any)
    Status,
    /// What was said of which alert
    Opinions(ListArgs),
    /// Every question: when, to whom, what it cost, what came of it
    Calls(ListArgs),
    /// One question and its answer, word by word, as JSON
    Call {
        /// Its number
        id: i64,
    },
    /// Asks once more and tells what is said differently now; nothing is stored
    Replay {
        /// The call's number
        id: i64,
    },
}

const TIERS: &[Column] = &[
    Column::new("TIER", |r, _| r.plain("tier")).right(),
    Column::new("STATE", state),
    Column::new("MODEL", |r, _| r.plain("model")),
    Column::new("WAITING", |r, _| r.count("waiting")).right(),
    Column::new("TODAY", |r, _| r.count("requests")).right(),
    Column::new("TOKENS", |r, _| r.count("tokens")).right(),
    Column::new("USD", usd).right(),
];

fn state(row: &Row<'_>, _: &Look) -> Cell {
    let text = row.text("state");
    let paint = match text {
        "ready" => Paint::Good,
        "off" => Paint::Dim,
        _ => Paint::Warn,
    };
    Cell::new(text).paint(paint)
}

fn usd(row: &Row<'_>, _: &Look) -> Cell {
    let micro = row.number("micro_usd").unwrap_or_default();
    Cell::new(&format!("{}.{:04}", micro / 1_000_000, micro % 1_000_000 / 100))
}

const OPINION_TERMS: &Terms = &[
    (Key::Rule, Term::Text("rule")),
    (Key::Domain, Term::Domain(&["subject"])),
    (Key::Name, Term::Text("subject")),
    (Key::Status, Term::Text("verdict")),
    (Key::Severity, Term::Severity("severity")),
];

const OPINIONS: &[Column] = &[
    Column::new("TIME", |r, l| r.when("time", l)),
    Column::new("ALERT", |r, _| r.plain("alert")).right(),
    Column::new("TIER", |r, _| r.plain("tier")).right(),
    Column::new("VERDICT", |r, _| r.plain("verdict")),
    Column::new("SURE", |r, _| r.plain("confidence")),
    Column::new("CATEGORY", |r, _| r.plain("category")),
    Column::new("CAME OF IT", |r, _| r.plain("advice")),
    Column::new("SUBJECT", |r, _| r.plain("subject")),
    Column::new("IT SAYS", |r, _| r.plain("note")),
];

const OPINIONS_SELECT: &str = "SELECT * FROM (SELECT o.time, o.alert, o.tier, o.verdict, \
     o.confidence, o.category, o.advice, a.rule, a.severity, a.subject, o.facts, o.note, o.call \
     FROM llm_opinions o LEFT JOIN alerts a ON a.id = o.alert)";

const CALL_TERMS: &Terms =
    &[(Key::Status, Term::Text("outcome")), (Key::Name, Term::Text("model"))];

const CALLS: &[Column] = &[
    Column::new("ID", |r, _| r.plain("id")).right(),
    Column::new("TIME", |r, l| r.when("time", l)),
    Column::new("TIER", |r, _| r.plain("tier")).right(),
    Column::new("MODEL", |r, _| r.plain("model")),
    Column::new("ALERTS", |r, _| r.count("cases")).right(),
    Column::new("MS", |r, _| r.count("latency_ms")).right(),
    Column::new("READ", |r, _| r.count("read")).right(),
    Column::new("WRITTEN", |r, _| r.count("written")).right(),
    Column::new("USD", usd).right(),
    Column::new("OUTCOME", |r, _| r.plain("outcome")),
];

const CALLS_SELECT: &str = "SELECT id, time, tier, endpoint, model, answered, prompt, cases, \
     latency_ms, read, cached, written, micro_usd, outcome FROM llm_calls";

fn opinions() -> Sheet {
    let fields = [
        "alert",
        "tier",
        "verdict",
        "confidence",
        "category",
        "advice",
        "rule",
        "severity",
        "subject",
        "facts",
        "note",
        "call",
    ];
    sheet(&fields, OPINIONS)
}

fn calls() -> Sheet {
    let fields = [
        "tier",
        "endpoint",
        "model",
        "answered",
        "prompt",
        "cases",
        "latency_ms",
        "read",
        "cached",
        "written",
        "micro_usd",
        "outcome",
    ];
    let mut all = vec![("id", Kind::Plain), ("time", Kind::Time)];
    all.extend(fields.map(|name| (name, Kind::Plain)));
    Sheet::new(&all, CALLS)
}

fn sheet(fields: &[&'static str], columns: &'static [Column]) -> Sheet {
    let mut all = vec![("time", Kind::Time)];
    all.extend(fields.iter().map(|name| (*name, Kind::Plain)));
    Sheet::new(&all, columns)
}

/// What is wanted of the models.
pub(crate) fn run(args: &LlmArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    match &args.action {
        None | Some(LlmAction::Status) => status(args.format.format(), context),
        Some(LlmAction::Opinions(wanted)) => {
            show(wanted, &opinions(), OPINIONS_SELECT, OPINION_TERMS, context)
        }
        Some(LlmAction::Calls(wanted)) => show(wanted, &calls(), CALLS_SELECT, CALL_TERMS, context),
        Some(LlmAction::Call { id }) => call(*id, context),
        Some(LlmAction::Replay { id }) => replay(*id, context),
    }
}

fn show(
    args: &ListArgs,
    sheet: &Sheet,
    select: &str,
    terms: &'static Terms,
    context: &mut Context<'_>,
) -> anyhow::Result<Exit> {
    let wanted = Wanted::read(args, None, context)?;
    let condition = wanted.condition(terms, "time")?;
    let sql = format!("{select} WHERE {} ORDER BY time DESC LIMIT ?", condition.sql);
    list::run(context, &wanted, sheet, &sql, condition)?;
    Ok(Exit::Fine)
}

fn status(format: Format, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let fields: Vec<(&str, Kind)> = LLM_COLUMNS.iter().map(|name| (*name, Kind::Plain)).collect();
    let (sheet, mut rows) = (Sheet::new(&fields, TIERS), Vec::new());
    ask(context.hub, &Request::LlmStatus, &mut |reply| {
        if let Reply::Row { values } = reply {
            rows.push(values);
        }
        Ok(())
    })?;
    let mut printer = Printer::new(format, &sheet, &context.look, context.out);
    let names = Directory::default();
    rows.into_iter().try_for_each(|row| printer.record(&sheet.record(row, &names)))?;
    printer.finish()?;
    Ok(Exit::Fine)
}

fn call(id: i64, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let names = [
        "id",
        "time",
        "tier",
        "endpoint",
        "model",
        "answered",
        "prompt",
        "request",
        "response",
        "cases",
        "latency_ms",
        "read",
        "cached",
        "written",
        "micro_usd",
        "outcome",
    ];
    let sql = format!("SELECT {} FROM llm_calls WHERE id = ?", names.join(", "));
    let mut found = None;
    query(context.hub, &sql, vec![id.into()], &mut |values| {
        found = Some(values);
        Ok(())
    })?;
    let Some(values) = found else {
        anyhow::bail!("there is no call {id}; see `agentmon llm calls`");
    };
    let whole = |name: &str, value: Value| match (name, &value) {
        // Kept as text; shown as what it is.
        ("request" | "response", Value::String(text)) => {
            serde_json::from_str(text).unwrap_or(value)
        }
        _ => value,
    };
    let object: serde_json::Map<String, Value> =
        names.iter().zip(values).map(|(name, v)| ((*name).to_owned(), whole(name, v))).collect();
    writeln!(context.out, "{}", text::safe_json(Value::Object(object).to_string()))?;
    Ok(Exit::Fine)
}

fn replay(id: i64, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let Some((_, row)) = one_row(context.hub, &Request::LlmReplay { id })? else {
        anyhow::bail!("the hub gave no answer");
    };
    let verdicts = |at: usize| -> serde_json::Map<String, Value> {
        let text = row.get(at).and_then(Value::as_str).unwrap_or_default();
        serde_json::from_str(text).unwrap_or_default()
    };
    let (before, now) = (verdicts(0), verdicts(1));
    if before.is_empty() || now.is_empty() {
        anyhow::bail!("an answer is no object: {}", text::safe(&Value::from(row).to_string()));
    }
    let mut changed = 0_u64;
    let keys: std::collections::BTreeSet<_> = before.keys().chain(now.keys()).collect();
    for key in keys {
        let word = |all: &serde_json::Map<String, Value>| {
            let verdict = all.get(key).map(|v| v["verdict"].as_str().unwrap_or("?").to_owned());
            verdict.unwrap_or_else(|| "-".to_owned())
        };
        let (was, is) = (word(&before), word(&now));
        let mark = if was == is { "same" } else { "changed" };
        changed += u64::from(was != is);
        writeln!(
            context.out,
            "{:<6}  {:<10}  {:<10}  {mark}",
            text::safe(key),
            text::safe(&was),
            text::safe(&is)
        )?;
    }
    context.say(&format!("{changed} verdicts changed"));
    Ok(Exit::Fine)
}
