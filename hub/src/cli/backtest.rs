//! `agentmon backtest`: what detectors would have found in the past with other thresholds.
//!
//! The store runs them ([`crate::detect::backtest`]); this prints: what changed for each rule,
//! or each finding gained and lost.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context as _;
use serde_json::Value;

use super::args::FormatArgs;
use super::backend::ask;
use super::context::{Context, Exit};
use super::directory::Directory;
use super::print::Printer;
use super::sheet::{Cell, Column, Kind, Paint, Row, Sheet};
use super::{list, units, when};
use crate::config::Config;
use crate::control::{Reply, Request};
use crate::detect::backtest::COLUMNS;

/// What `agentmon serve` reads unless told otherwise.
const CONFIG_FILE: &str = "/etc/agentmon/hub.toml";

pub(super) const HELP: &str = "\
Examples:
  agentmon backtest --set detect.leaks.burst_bytes=20000000 --since 7d
  agentmon backtest --set detect.baseline.volume_z=4 --set detect.baseline.up_mib=50 --findings
  agentmon backtest --again --set detect.beacon.score=0.95 --since 2026-11-01 --until 2026-11-08 --json
A finding is one rule, device and subject, however often it was said. Baselines are those of
then. Nothing is written: settings are changed in hub.toml, section [detect].
See also: agentmon alerts, agentmon baseline, agentmon eval day";

#[derive(clap::Args, Debug)]
pub(crate) struct BacktestArgs {
    /// Another value of a setting of hub.toml, as detect.leaks.burst_bytes=20000000; again for
    /// more. Only detectors of the sections named run; without one, all of them
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// From this time on [default: seven days before the end]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    since: Option<String>,
    /// Up to this time [default: the newest event]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    until: Option<String>,
    /// Detectors run no more often than once in so many minutes; the hub's rounds run some of
    /// them every five
    #[arg(long, value_name = "MINUTES", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=300))]
    step: u64,
    /// Compare with what the settings in force find when they run again, not with what the hub
    /// had found: where history was imported, or thresholds have changed since
    #[arg(long)]
    again: bool,
    /// Each finding that is gained or lost, not only how many
    #[arg(long)]
    findings: bool,
    /// With --findings: those too that are the same
    #[arg(long, requires = "findings")]
    all: bool,
    /// Give up after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
    /// At most this many rows [default: 50 in a table, all in --json and --csv]
    #[arg(long, short = 'n', value_name = "N")]
    limit: Option<u64>,
    /// Configuration whose [detect] holds where no hub runs [default: /etc/agentmon/hub.toml
    /// where there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    format: FormatArgs,
}

const FINDINGS: &[Column] = &[
    Column::new("CHANGE", change),
    Column::new("FIRST SEEN", |r, l| r.when("first_seen", l)),
    Column::new("SEVERITY", |r, _| r.severity("severity")),
    Column::new("RULE", |r, _| r.plain("rule")),
    Column::new("CLIENT", |r, _| r.host("client", "device")),
    Column::new("TIMES", |r, _| r.count("times")).right(),
    Column::new("WHY", |r, _| r.plain("why")),
];

fn change(row: &Row<'_>, _: &super::context::Look) -> Cell {
    match row.text("change") {
        "gained" => Cell::new("+").paint(Paint::Note),
        "lost" => Cell::new("-").paint(Paint::Dim),
        _ => Cell::new("="),
    }
}

fn findings_sheet() -> Sheet {
    let kind = |key: &'static str| match key {
        "first_seen" => (key, Kind::Time),
        key => (key, Kind::Plain),
    };
    let mut fields: Vec<_> = COLUMNS.map(kind).to_vec();
    fields.push(("device", Kind::DeviceAt("client", Some("mac"))));
    Sheet::new(&fields, FINDINGS)
}

const RULES: &[Column] = &[
    Column::new("RULE", |r, _| r.plain("rule")),
    Column::new("WERE", |r, _| r.plain("were")).right(),
    Column::new("ARE", |r, _| r.plain("are")).right(),
    Column::new("SAME", |r, _| r.plain("same")).right(),
    Column::new("GAINED", |r, _| r.plain("gained")).right(),
    Column::new("LOST", |r, _| r.plain("lost")).right(),
];

fn rules_sheet() -> Sheet {
    let fields = ["rule", "were", "are", "same", "gained", "lost"].map(|key| (key, Kind::Plain));
    Sheet::new(&fields, RULES)
}

/// Asks the store, and prints by rule or by finding.
pub(crate) fn run(args: &BacktestArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let rows = rows(args, context)?;
    let format = args.format.format();
    let limit = usize::try_from(list::limit(args.limit, format)).unwrap_or(usize::MAX);
    let (sheet, records): (Sheet, Vec<Vec<Value>>) = if args.findings {
        let kept = |row: &Vec<Value>| args.all || row.first() != Some(&Value::from("same"));
        (findings_sheet(), rows.into_iter().filter(kept).collect())
    } else {
        (rules_sheet(), by_rule(&rows))
    };
    let (n, names) = (records.len(), Directory::load(context.hub)?);
    let mut printer = Printer::new(format, &sheet, &context.look, context.out);
    for row in records.into_iter().take(limit) {
        printer.record(&sheet.record(row, &names))?;
    }
    printer.finish()?;
    if n > limit {
        let n = units::plural(n as u64, "row", "rows");
        context.say(&format!("only the first {limit} of {n}: --limit N"));
    }
    Ok(Exit::Fine)
}

fn rows(args: &BacktestArgs, context: &mut Context<'_>) -> anyhow::Result<Vec<Vec<Value>>> {
    let look = &context.look;
    let time = |text: &Option<String>, option: &str| {
        let time = text.as_deref().map(|text| when::parse(text, look.now, &look.zone));
        let time = time.transpose().map_err(|error| anyhow::anyhow!("{option}: {error}"))?;
        anyhow::Ok(time.map(|time| time.micros()))
    };
    let usual = PathBuf::from(CONFIG_FILE);
    let file = args.config.clone().or_else(|| usual.is_file().then_some(usual));
    let config = file.map(|file| Config::load(&file)).transpose().context("--config")?;
    let request = Request::Backtest {
        set: args.set.clone(),
        since_us: time(&args.since, "--since")?,
        until_us: time(&args.until, "--until")?,
        step_s: args.step * 60,
        again: args.again,
        timeout_ms: args.timeout * 1_000,
        detect: config.map(|config| Box::new(config.detect)),
    };
    let mut rows = Vec::new();
    ask(context.hub, &request, &mut |reply| {
        if let Reply::Row { values } = reply {
            rows.push(values);
        }
        Ok(())
    })?;
    Ok(rows)
}

/// Counts, by rule; one row for each that said anything.
fn by_rule(rows: &[Vec<Value>]) -> Vec<Vec<Value>> {
    let mut rules: BTreeMap<&str, [u64; 3]> = BTreeMap::new();
    for row in rows {
        let text = |at: usize| row.get(at).and_then(Value::as_str).unwrap_or_default();
        let [same, gained, lost] = rules.entry(text(1)).or_default();
        match text(0) {
            "gained" => *gained += 1,
            "lost" => *lost += 1,
            _ => *same += 1,
        }
    }
    let row = |(rule, [same, gained, lost]): (&str, [u64; 3])| {
        let counts = [same + lost, same + gained, same, gained, lost];
        [Value::from(rule)].into_iter().chain(counts.map(Value::from)).collect()
    };
    rules.into_iter().map(row).collect()
}
