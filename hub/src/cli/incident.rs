//! `agentmon incident`: what was found about one device at about the same time, as one story.
//!
//! The list is the view `incidents`; one of them is its alerts in the order in which they were
//! first found, with what each stands for.

use anyhow::Context as _;
use clap::Args;
use serde_json::{Value, json};

use super::args::ListArgs;
use super::condition::{Term, Terms};
use super::context::{Context, Exit, Look};
use super::directory::Directory;
use super::filter::Key;
use super::fused::{self, Techniques};
use super::list::{self, Wanted};
use super::print::{Format, json_line};
use super::sheet::{Cell, Column, Kind, Paint, Record, Row, Sheet, host};
use super::{text, units, when};

/// Most alerts of one incident told; a person reads the first ones.
const STEPS_MAX: u64 = 200;

#[derive(Args, Debug)]
pub(crate) struct IncidentArgs {
    #[command(flatten)]
    pub(crate) list: ListArgs,
    /// Closed and acknowledged ones too
    #[arg(long)]
    all: bool,
}

/// What filter words mean for incidents.
pub(crate) const TERMS: &Terms = &[
    (Key::Severity, Term::Severity("severity")),
    (Key::Rule, Term::AnyText("rules")),
    (Key::Client, Term::Address(&["client"])),
    (Key::Src, Term::Address(&["client"])),
    (Key::Device, Term::Device("mac", &["client"], "last_seen")),
    (Key::Status, Term::Text("status")),
];

const COLUMNS: &[Column] = &[
    Column::new("ID", |r, _| r.plain("id")).right(),
    Column::new("OPENED", |r, l| r.when("opened", l)),
    Column::new("LAST SEEN", |r, l| r.when("last_seen", l)),
    Column::new("SEVERITY", |r, _| r.severity("severity")),
    Column::new("DEVICE", |r, _| r.host("client", "client_name")),
    Column::new("ALERTS", |r, _| r.count("alerts")).right(),
    Column::new("RULES", |r, _| Cell::new(&r.list("rules"))),
    Column::new("WORST", worst),
];

fn worst(row: &Row<'_>, _: &Look) -> Cell {
    match row.text("status") {
        "open" => row.plain("why"),
        status => Cell::new(&format!("[{status}] {}", row.text("why"))).paint(Paint::Dim),
    }
}

/// The fields of an incident, in the order of [`SELECT`].
pub(crate) fn sheet() -> Sheet {
    Sheet::new(
        &[
            ("id", Kind::Plain),
            ("severity", Kind::Plain),
            ("score", Kind::Plain),
            ("client", Kind::Plain),
            ("client_name", Kind::DeviceAt("client", Some("mac"))),
            ("mac", Kind::Plain),
            ("opened", Kind::Time),
            ("last_seen", Kind::Time),
            ("status", Kind::Plain),
            ("alerts", Kind::Plain),
            ("findings", Kind::Plain),
            ("rules", Kind::Plain),
            ("why", Kind::Plain),
        ],
        COLUMNS,
    )
}

/// Columns of [`sheet`].
pub(crate) const SELECT: &str = "SELECT id, severity, score, client, mac, opened, last_seen, \
     status, alerts, findings, rules, why FROM incidents";

/// One by its number, or the list.
pub(crate) fn run(args: &IncidentArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    if let [one] = args.list.words.as_slice()
        && let Ok(id) = one.parse::<i64>()
    {
        return one_incident(id, args.list.format.format(), context);
    }
    let wanted = Wanted::read(&args.list, None, context)?;
    let mut condition = wanted.condition(TERMS, "last_seen")?;
    if !args.all && !wanted.words.iter().any(|w| w.key == Key::Status) {
        condition.and("status = 'open'", []);
    }
    let sql = format!("{SELECT} WHERE {} ORDER BY last_seen DESC, id DESC LIMIT ?", condition.sql);
    list::run(context, &wanted, &sheet(), &sql, condition)?;
    Ok(Exit::Fine)
}

/// The alerts of an incident in the order in which they were found.
const STEPS: &str = "SELECT min(i.time), max(i.time), a.id, a.severity, a.score, a.rule, \
     a.subject, a.status, a.why, count(DISTINCT i.finding), list_sort(list(DISTINCT i.rule)) \
     FROM incident_findings i JOIN alerts a ON a.id = i.told_by WHERE i.incident = ? \
     GROUP BY ALL ORDER BY 1, a.id LIMIT ?";

const STEP_COLUMNS: &[Column] = &[
    Column::new("TIME", |r, l| r.when("time", l)),
    Column::new("SEVERITY", |r, _| r.severity("severity")),
    Column::new("RULE", |r, _| r.plain("rule")),
    Column::new("ALERT", |r, _| r.plain("alert")).right(),
    Column::new("WHY", |r, _| r.plain("why")),
];

fn step_sheet() -> Sheet {
    Sheet::new(
        &[
            ("time", Kind::Time),
            ("until", Kind::Time),
            ("alert", Kind::Plain),
            ("severity", Kind::Plain),
            ("score", Kind::Plain),
            ("rule", Kind::Plain),
            ("subject", Kind::Plain),
            ("status", Kind::Plain),
            ("why", Kind::Plain),
            ("findings", Kind::Plain),
            ("rules", Kind::Plain),
        ],
        STEP_COLUMNS,
    )
}

fn one_incident(id: i64, format: Format, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let names = Directory::load(context.hub)?;
    let sheet = sheet();
    let sql = format!("{SELECT} WHERE id = ?");
    let found = list::collect(context, &names, &sheet, &sql, vec![id.into()])?;
    let found = found.into_iter().next();
    let incident = found
        .with_context(|| format!("there is no incident {id}; see `agentmon incident --all`"))?;
    let params = vec![id.into(), STEPS_MAX.into()];
    let steps = list::collect(context, &names, &step_sheet(), STEPS, params)?;
    match format {
        Format::Json => {
            let line = as_json(&sheet, &incident, &steps);
            writeln!(context.out, "{}", text::safe_json(line.to_string()))?;
        }
        Format::Csv => fused::records(Format::Csv, &step_sheet(), &steps, context)?,
        Format::Table => print(&sheet.row(&incident), &steps, context)?,
    }
    Ok(Exit::Fine)
}

fn as_json(sheet: &Sheet, incident: &Record, steps: &[Record]) -> Value {
    let object = |sheet: &Sheet, record: &Record| -> Value {
        serde_json::from_str(&json_line(sheet, record)).unwrap_or_default()
    };
    let mut all = object(sheet, incident);
    let step = step_sheet();
    let chain: Vec<Value> = steps.iter().map(|record| object(&step, record)).collect();
    let techniques = Techniques::of(rules(steps).iter().map(String::as_str));
    if let Value::Object(all) = &mut all {
        all.insert("chain".into(), json!(chain));
        all.insert("attack".into(), techniques.json());
    }
    all
}

fn rules(steps: &[Record]) -> Vec<String> {
    let sheet = step_sheet();
    let lists = steps.iter().map(|record| sheet.row(record).list("rules"));
    lists.flat_map(|l| l.split(", ").map(str::to_owned).collect::<Vec<_>>()).collect()
}

fn print(row: &Row<'_>, steps: &[Record], context: &mut Context<'_>) -> anyhow::Result<()> {
    let look = context.look.clone();
    let long = |key: &str| row.time(key).map(|t| when::long(t, &look.zone)).unwrap_or_default();
    let (id, severity, score) =
        (row.plain("id").text, row.plain("severity").text, row.plain("score").text);
    let device = text::safe(&host(row.text("client"), row.text("client_name"))).into_owned();
    let out = &mut *context.out;
    writeln!(out, "Incident {id}: {severity} (score {score}), {}", row.plain("status").text)?;
    writeln!(out, "  device    {device} {}", row.plain("mac").text)?;
    writeln!(out, "  from      {}", long("opened"))?;
    writeln!(out, "  to        {}", long("last_seen"))?;
    let alerts = units::plural(row.number("alerts").unwrap_or_default(), "alert", "alerts");
    let findings = units::plural(row.number("findings").unwrap_or_default(), "finding", "findings");
    writeln!(out, "  made of   {alerts}, {findings}\n")?;
    writeln!(out, "What happened")?;
    let sheet = step_sheet();
    for step in steps.iter().map(|record| sheet.row(record)) {
        let time = step.time("time").map(|t| when::short(t, look.now, &look.zone));
        let (severity, rule) = (step.plain("severity").text, step.list("rules"));
        let why = step.plain("why").text;
        let (time, id) = (time.unwrap_or_default(), step.plain("alert").text);
        let times = match step.number("findings").unwrap_or_default() {
            0 | 1 => String::new(),
            n => format!(", {} times", units::count(n)),
        };
        writeln!(out, "  {time}  {severity:<8}  {}: {why} (alert {id}{times})", text::safe(&rule))?;
    }
    Techniques::of(rules(steps).iter().map(String::as_str)).print(out)?;
    let device = row.plain(if row.text("mac").is_empty() { "client" } else { "mac" }).text;
    let (since, until) = (row.time("opened"), row.time("last_seen"));
    if let (Some(since), Some(until)) = (since, until) {
        context.say(&format!(
            "all of it: agentmon timeline --device {device} --since {since} --until {until}"
        ));
    }
    Ok(())
}
