//! `agentmon eval day`: how often all rules over history cry wolf on days without an attack.

use std::io::Write;

use anyhow::Context as _;
use clap::Args;

use super::context::{Exit, Look};
use super::print::table;
use super::sheet::Cell;
use super::text;
use crate::eval::day::{Plan, Report, measure};

/// What the project asks: at most so many alerts of medium or more in a day of 80 devices.
const ALARMS_MAX: usize = 3;

pub(super) const HELP: &str = "\
Examples:
  agentmon eval day                                     80 devices, 10 days to learn, 3 judged
  agentmon eval day --seed 7 --days 7 --json
  agentmon eval day --pace 4 --step 4 --exit-code       sooner done
The days are made up and put into a store of their own, which is deleted.";

#[derive(Args, Debug)]
pub(crate) struct EvalDayArgs {
    /// Devices of the home
    #[arg(long, value_name = "N", default_value_t = 80, value_parser = clap::value_parser!(u64).range(1..=200))]
    devices: u64,
    /// Days before, from which the detectors learn
    #[arg(long, value_name = "DAYS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=60))]
    learn: u64,
    /// Days judged
    #[arg(long, value_name = "DAYS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=30))]
    days: u64,
    /// Hours between two rounds
    #[arg(long, value_name = "HOURS", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=24))]
    step: u64,
    /// Polls come so many times as rarely as in a real home
    #[arg(long, value_name = "TIMES", default_value_t = 1.0)]
    pace: f64,
    /// Another one gives other days
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// One JSON object
    #[arg(long)]
    json: bool,
    /// Exit with 1 when any day has more than 3 alerts of medium severity or more
    #[arg(long)]
    exit_code: bool,
}

pub(super) fn run(args: &EvalDayArgs, out: &mut dyn Write, look: &Look) -> anyhow::Result<Exit> {
    anyhow::ensure!((0.1..=1_000.0).contains(&args.pace), "--pace: want 0.1 to 1000");
    let folder = tempfile::tempdir().context("making a folder for the days")?;
    let plan = Plan {
        devices: usize::try_from(args.devices).unwrap_or(usize::MAX),
        learnt: args.learn,
        judged: args.days,
        step_hours: args.step,
        pace: args.pace,
        seed: args.seed,
        ..Plan::default()
    };
    let report = measure(folder.path(), &plan)?;
    if args.json {
        writeln!(out, "{}", text::safe_json(serde_json::to_string(&report)?))?;
    } else {
        tables(&report, out, look)?;
    }
    let missed = args.exit_code && report.worst() > ALARMS_MAX;
    Ok(if missed { Exit::Found } else { Exit::Fine })
}

fn tables(report: &Report, out: &mut dyn Write, look: &Look) -> anyhow::Result<()> {
    let rows = report.alarms.iter().map(|alarm| {
        let score = format!("{:.2}", alarm.score);
        let cells = [&alarm.day.to_string(), &alarm.rule, &alarm.device, &score, &alarm.why];
        cells.map(|text| Cell::new(text)).to_vec()
    });
    let titles =
        [("DAY", true), ("RULE", false), ("DEVICE", false), ("SCORE", true), ("WHY", false)];
    table(out, &titles, rows.collect(), look)?;
    writeln!(
        out,
        "{} devices, {} connections, {} questions; {} days judged: {:.1} alerts a day of medium \
         or more, {} on the worst; {} below that",
        report.devices,
        report.flows,
        report.questions,
        report.days,
        report.each_day(),
        report.worst(),
        report.notes,
    )?;
    Ok(())
}
