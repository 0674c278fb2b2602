//! `agentmon eval beacon`: beacons of known truth among ordinary traffic, heard or not.

use std::io::Write;
use std::path::PathBuf;

use agentmon_core::Timestamp;
use anyhow::Context as _;
use clap::Args;

use super::context::{Exit, Look};
use super::print::table;
use super::sheet::Cell;
use super::text;
use crate::detect::beacon::find::Span;
use crate::detect::beacon::services::{self, Services};
use crate::eval::beacon::{Plan, Report, home, measure};
use crate::store::{self, Limits};

/// What the project asks: recall at a jitter of 20 % and of 50 %, and false alarms a day.
const GOALS: [(f64, f64); 2] = [(0.2, 0.95), (0.5, 0.9)];
const FALSE_ALARMS_MAX: usize = 3;

#[derive(Args, Debug)]
pub(crate) struct EvalBeaconArgs {
    /// Data directory of a store that no hub has open: its last day is the background
    /// [default: a made-up day of 80 devices]
    #[arg(long, value_name = "DIR")]
    background: Option<PathBuf>,
    /// Periods in seconds; above three hours two weeks are looked at
    #[arg(
        long,
        value_name = "SECONDS",
        value_delimiter = ',',
        default_values_t = [30.0, 60.0, 300.0, 1800.0, 3600.0, 7200.0, 10800.0, 21600.0, 43200.0, 86400.0]
    )]
    periods: Vec<f64>,
    /// Jitters, as parts of the period
    #[arg(long, value_name = "PART", value_delimiter = ',', default_values_t = [0.0, 0.2, 0.5])]
    jitters: Vec<f64>,
    /// Parts of the beats that are missing
    #[arg(long, value_name = "PART", value_delimiter = ',', default_values_t = [0.0, 0.1, 0.3])]
    losses: Vec<f64>,
    /// Beacons of each period, jitter and loss
    #[arg(long, value_name = "N", default_value_t = 40)]
    trials: usize,
    /// Another one gives other beacons
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// One JSON object
    #[arg(long)]
    json: bool,
    /// Exit with 1 when recall is below 0.95 at a jitter of 20 % or 0.9 at 50 %, or there are
    /// more than 3 false alarms
    #[arg(long)]
    exit_code: bool,
}

pub(super) fn run(args: &EvalBeaconArgs, out: &mut dyn Write, look: &Look) -> anyhow::Result<Exit> {
    let part = |value: &f64| (0.0..1.0).contains(value);
    anyhow::ensure!(
        args.jitters.iter().chain(&args.losses).all(part),
        "--jitters and --losses are parts of one: 0 to below 1"
    );
    anyhow::ensure!(args.periods.iter().all(|p| *p >= 10.0), "--periods from 10 s on");
    let plan = Plan {
        periods: args.periods.clone(),
        jitters: args.jitters.clone(),
        losses: args.losses.clone(),
        trials: args.trials.clamp(1, 10_000),
        seed: args.seed,
    };
    let background = match &args.background {
        Some(folder) => vec![stored(folder)?],
        None => vec![home(args.seed), home(args.seed.wrapping_add(1))],
    };
    let report = measure(&background, &plan);
    if args.json {
        writeln!(out, "{}", text::safe_json(serde_json::to_string(&report)?))?;
    } else {
        tables(&report, out, look)?;
    }
    let good = GOALS.iter().all(|(jitter, least)| report.recall_at(*jitter) >= *least)
        && report.background_findings <= FALSE_ALARMS_MAX;
    Ok(if args.exit_code && !good { Exit::Found } else { Exit::Fine })
}

/// The last day of a store.
fn stored(folder: &std::path::Path) -> anyhow::Result<Services> {
    let db = store::open_read(folder, &Limits::default())?;
    let newest = "SELECT epoch_us(max(time)) FROM (
        SELECT max(time) AS time FROM flows UNION ALL SELECT max(time) FROM dns)";
    let newest: Option<i64> = db.query_row(newest, [], |row| row.get(0))?;
    let newest = Timestamp::from_micros(newest.context("the store has no events")?);
    Ok(services::read(&db, newest.minus(Span::Day.length()), newest, 1)?)
}

fn tables(report: &Report, out: &mut dyn Write, look: &Look) -> anyhow::Result<()> {
    let number = |value: f64| Cell::new(&format!("{value:.2}"));
    let rows: Vec<Vec<Cell>> = report
        .cells
        .iter()
        .map(|c| {
            vec![
                Cell::new(&format!("{:.0} s", c.period_s)),
                number(c.jitter),
                number(c.loss),
                number(c.recall),
                number(c.findings),
                number(c.period_right),
                Cell::new(&c.false_alarms.to_string()),
            ]
        })
        .collect();
    let titles = ["PERIOD", "JITTER", "LOSS", "RECALL", "FOUND", "PERIOD RIGHT", "FALSE ALARMS"];
    table(out, &titles.map(|title| (title, true)), rows, look)?;
    writeln!(
        out,
        "background: {} devices, {} services, {} of them beat, {} findings",
        report.devices, report.services, report.background_rhythms, report.background_findings,
    )?;
    for found in &report.background_found {
        writeln!(out, "  {}", text::safe(found))?;
    }
    for chance in &report.chance {
        writeln!(
            out,
            "{:.0} independent events a day: {:.3} score 0.3 or more, {:.3} score 0.9 or more",
            chance.events, chance.above_0_3, chance.above_0_9,
        )?;
    }
    Ok(())
}
