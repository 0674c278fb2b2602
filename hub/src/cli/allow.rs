//! `agentmon allow` and `agentmon fp`: what a person says of alerts, its list, and taking it
//! back.

use clap::Args;
use serde_json::Value;

use super::args::FormatArgs;
use super::backend::one_row;
use super::context::{Context, Exit, Look};
use super::directory::Directory;
use super::list;
use super::print::Printer;
use super::sheet::{Cell, Column, Kind, Paint, Row, Sheet};
use super::{units, when};
use crate::alert::feedback::New;
use crate::control::Request;

#[derive(Args, Debug, Default)]
pub(crate) struct AllowArgs {
    /// A name, with everything below it
    #[arg(long, value_name = "NAME")]
    domain: Option<String>,
    /// An address or a network
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<String>,
    /// Only on this device: its name, MAC or address
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// Only what this rule says; rules that tell known-bad things must be named, with a comment
    #[arg(long, value_name = "RULE")]
    rule: Option<String>,
    /// What is seen from then on is told again
    #[arg(long, value_name = "TIME", conflicts_with = "for_")]
    until: Option<String>,
    /// For so long from now on: 8h, 7d
    #[arg(long = "for", id = "for_", value_name = "AGE")]
    for_: Option<String>,
    /// Why; kept, and shown with what it silences
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
    /// What is in force: allowances and false positives
    #[arg(long, conflicts_with_all = ["domain", "ip", "device", "rule", "undo"])]
    list: bool,
    /// With --list, also what was taken back or has ended
    #[arg(long, requires = "list")]
    all: bool,
    /// Takes one back, by its number: alerts are as they would have been without it
    #[arg(long, value_name = "N", conflicts_with_all = ["domain", "ip", "device", "rule"])]
    undo: Option<i64>,
    #[command(flatten)]
    format: FormatArgs,
}

#[derive(Args, Debug)]
pub(crate) struct FpArgs {
    /// Number of the alert, from `agentmon alerts`
    id: i64,
    /// Only what this rule says of it; a rule that tells known-bad things must be named
    #[arg(long, value_name = "RULE")]
    rule: Option<String>,
    /// Why; kept with the alert
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
    /// It was none: takes it back
    #[arg(long, conflicts_with = "rule")]
    undo: bool,
}

/// Allows, lists, or takes back.
pub(crate) fn run(args: &AllowArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    if args.list {
        return show(args, context);
    }
    if let Some(id) = args.undo {
        let alerts = send(&Request::Forget { id }, context)?.1;
        context.say(&format!("feedback {id} is taken back; {}", became(alerts)));
        return Ok(Exit::Fine);
    }
    let feedback = New {
        domain: args.domain.clone(),
        ip: args.ip.clone(),
        device: args.device.clone(),
        rule: args.rule.clone(),
        subject: None,
        until: until(args, &context.look)?,
        comment: args.comment.clone(),
    };
    let (id, alerts) = send(&Request::Allow { feedback }, context)?;
    context.say(&format!("allowed (feedback {id}); {}", became(alerts)));
    context.say(&format!("take it back: agentmon allow --undo {id}"));
    Ok(Exit::Fine)
}

/// Calls an alert a false positive, or takes that back.
pub(crate) fn dismiss(args: &FpArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    if args.undo {
        let sql = "SELECT id FROM feedback WHERE alert = ? AND kind = 'fp' AND undone IS NULL";
        let mut ids = Vec::new();
        super::backend::query(context.hub, sql, vec![args.id.into()], &mut |row| {
            ids.extend(row.first().and_then(Value::as_i64));
            Ok(())
        })?;
        anyhow::ensure!(!ids.is_empty(), "alert {} is not called a false positive", args.id);
        for id in ids {
            let alerts = send(&Request::Forget { id }, context)?.1;
            context.say(&format!("feedback {id} is taken back; {}", became(alerts)));
        }
        return Ok(Exit::Fine);
    }
    let (rule, comment) = (args.rule.clone(), args.comment.clone());
    let feedback = New { rule, comment, ..New::default() };
    let request = Request::FalsePositive { alert: args.id, feedback };
    let (id, alerts) = send(&request, context)?;
    let about = args.id;
    context.say(&format!("alert {about} is a false positive (feedback {id}); {}", became(alerts)));
    Ok(Exit::Fine)
}

fn became(alerts: i64) -> String {
    let alerts = u64::try_from(alerts).unwrap_or_default();
    format!("{} judged anew", units::plural(alerts, "alert is", "alerts are"))
}

fn send(request: &Request, context: &mut Context<'_>) -> anyhow::Result<(i64, i64)> {
    let row = one_row(context.hub, request)?.map(|(_, values)| values).unwrap_or_default();
    let number = |at: usize| row.get(at).and_then(Value::as_i64).unwrap_or_default();
    Ok((number(0), number(1)))
}

/// The end, in the hub's terms.
fn until(args: &AllowArgs, look: &Look) -> anyhow::Result<Option<i64>> {
    if let Some(text) = &args.for_ {
        let age = when::duration(text);
        let age = age.ok_or_else(|| anyhow::anyhow!("--for {text}: want an age as 8h or 7d"))?;
        return Ok(Some(look.now.plus(age).micros()));
    }
    let Some(text) = &args.until else { return Ok(None) };
    let time = when::parse(text, look.now, &look.zone);
    let time = time.map_err(|error| anyhow::anyhow!("--until: {error}"))?;
    anyhow::ensure!(time > look.now, "--until {text} is past; for an age write --for {text}");
    Ok(Some(time.micros()))
}

const COLUMNS: &[Column] = &[
    Column::new("NO", |r, _| r.plain("id")).right(),
    Column::new("WHAT", |r, _| r.plain("kind")),
    Column::new("ABOUT", about),
    Column::new("MADE", |r, l| r.when("made", l)),
    Column::new("UNTIL", end),
    Column::new("ALERTS", |r, _| r.count("alerts")).right(),
    Column::new("COMMENT", |r, _| r.plain("comment")),
];

/// All that must fit, in filter words.
fn about(row: &Row<'_>, _: &Look) -> Cell {
    let words = [
        ("domain", row.text("domain")),
        ("ip", row.text("net")),
        ("subject", row.text("subject")),
        ("device", row.text("device_name")),
        ("rule", row.text("rule")),
    ];
    let words = words.iter().filter(|(_, value)| !value.is_empty());
    Cell::new(&words.map(|(key, value)| format!("{key}:{value}")).collect::<Vec<_>>().join(" "))
}

fn end(row: &Row<'_>, look: &Look) -> Cell {
    if row.time("undone").is_some() {
        return Cell::new("taken back").paint(Paint::Dim);
    }
    match row.time("until") {
        Some(time) if time <= look.now => Cell::new("has ended").paint(Paint::Dim),
        Some(_) => row.when("until", look),
        None => Cell::default(),
    }
}

fn sheet() -> Sheet {
    Sheet::new(
        &[
            ("id", Kind::Plain),
            ("kind", Kind::Plain),
            ("domain", Kind::Plain),
            ("net", Kind::Plain),
            ("subject", Kind::Plain),
            ("device", Kind::Plain),
            ("device_name", Kind::Plain),
            ("rule", Kind::Plain),
            ("made", Kind::Time),
            ("until", Kind::Time),
            ("undone", Kind::Time),
            ("alert", Kind::Plain),
            ("comment", Kind::Plain),
            ("alerts", Kind::Plain),
        ],
        COLUMNS,
    )
}

/// With how many alerts say that it has a hand in them.
fn show(args: &AllowArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let which = if args.all {
        "true"
    } else {
        "undone IS NULL AND (until IS NULL OR until > CAST(? AS TIMESTAMP))"
    };
    let sql = format!(
        "SELECT id, kind, domain, net, subject, device, \
           coalesce((SELECT d.hostname FROM devices d WHERE d.mac = device), device), rule, made, \
           until, undone, alert, comment, \
           (SELECT count(*) FROM alerts a WHERE contains(a.reasons, '(feedback ' || f.id || ')')) \
         FROM feedback f WHERE {which} ORDER BY id DESC"
    );
    let params = if args.all { vec![] } else { vec![Value::from(when::sql(context.look.now))] };
    let sheet = sheet();
    let records = list::collect(context, &Directory::default(), &sheet, &sql, params)?;
    let mut printer = Printer::new(args.format.format(), &sheet, &context.look, context.out);
    records.iter().try_for_each(|record| printer.record(record))?;
    printer.finish()?;
    if records.is_empty() {
        context.say("nothing is allowed, and nothing was called a false positive");
    }
    Ok(Exit::Fine)
}
