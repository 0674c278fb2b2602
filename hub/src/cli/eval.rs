//! `agentmon eval`: what a detector is worth on labelled data.

use agentmon_core::time::SystemClock;
use serde_json::{Map, Value, json};

use super::args::{EvalArgs, EvalDgaArgs, EvalKind};
use super::context::{Exit, Look};
use super::print::table;
use super::sheet::Cell;
use super::text;
use crate::eval::dga::{Figures, RATES, Report, measure};
use crate::eval::names;

/// What the project asks of the score: recall at 1 % and 0.1 %, and the part of harmless
/// names flagged.
const GOAL_RECALL: [f64; 2] = [0.80, 0.60];
const GOAL_FLAGGED: f64 = 0.001;

/// Reads no store.
pub(crate) fn run(
    args: &EvalArgs,
    out: &mut dyn std::io::Write,
    look: &Look,
) -> anyhow::Result<Exit> {
    match &args.kind {
        EvalKind::Dga(args) => dga(args, out, look),
        EvalKind::Tunnel(args) => super::eval_tunnel::run(args, out),
        EvalKind::Beacon(args) => super::eval_beacon::run(args, out, look),
        EvalKind::Day(args) => super::eval_day::run(args, out, look),
    }
}

fn dga(args: &EvalDgaArgs, out: &mut dyn std::io::Write, look: &Look) -> anyhow::Result<Exit> {
    let report = read(args)?;
    if args.json {
        writeln!(out, "{}", text::safe_json(json_of(&report).to_string()))?;
    } else {
        tables(&report, out, look)?;
    }
    let missed = args.exit_code && !meets_goals(&report.whole);
    Ok(if missed { Exit::Found } else { Exit::Fine })
}

fn read(args: &EvalDgaArgs) -> anyhow::Result<Report> {
    let positives = names::read(&args.positives)?;
    let negatives = names::read(&args.negatives)?;
    let mut report = measure(&positives, &negatives, &SystemClock);
    if !args.positives.is_dir() {
        report.families.clear();
    }
    Ok(report)
}

fn meets_goals(figures: &Figures) -> bool {
    let recall = figures.recall.iter().zip(GOAL_RECALL).all(|(is, goal)| *is >= goal);
    recall && figures.flagged_negatives <= GOAL_FLAGGED
}

/// `tpr_at_fpr_1e-2` and so on, in the order of [`RATES`].
fn recall_fields(fields: &mut Map<String, Value>, recall: [f64; 3]) {
    for (rate, recall) in RATES.iter().zip(recall) {
        fields.insert(format!("tpr_at_fpr_{rate:e}"), json!(recall));
    }
}

fn fields_of(figures: &Figures) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("auc".into(), json!(figures.auc));
    recall_fields(&mut fields, figures.recall);
    fields.insert("flagged_positives".into(), json!(figures.flagged_positives));
    fields.insert("flagged_negatives".into(), json!(figures.flagged_negatives));
    fields
}

fn json_of(report: &Report) -> Value {
    let mut fields = fields_of(&report.whole);
    fields.insert("ns_per_name".into(), json!(report.ns_per_name));
    fields.insert("threshold".into(), json!(report.threshold));
    fields.insert("positives".into(), json!(report.positives));
    fields.insert("negatives".into(), json!(report.negatives));
    fields.insert("bad_lines".into(), json!(report.bad_lines));
    fields.insert("without_tld".into(), fields_of(&report.without_tld).into());
    let families = report.families.iter().map(|family| {
        let mut fields = Map::new();
        fields.insert("family".into(), json!(family.name));
        fields.insert("names".into(), json!(family.names));
        recall_fields(&mut fields, family.recall);
        fields.insert("flagged".into(), json!(family.flagged));
        Value::from(fields)
    });
    fields.insert("families".into(), families.collect());
    fields.into()
}

fn tables(report: &Report, out: &mut dyn std::io::Write, look: &Look) -> anyhow::Result<()> {
    let lines = |about: [(&str, String); 4]| {
        about.map(|(key, value)| vec![Cell::new(key), Cell::new(&value)]).to_vec()
    };
    let about = lines([
        ("names", format!("{} positive, {} negative", report.positives, report.negatives)),
        ("lines without a name", report.bad_lines.to_string()),
        ("time for one name", format!("{:.0} ns", report.ns_per_name)),
        ("default threshold", report.threshold.to_string()),
    ]);
    table(out, &[("what", false), ("value", false)], about, look)?;
    writeln!(out)?;
    let figures = [("whole names", &report.whole), ("without TLD", &report.without_tld)];
    let lines = figures.map(|(title, f)| {
        let [hundredth, thousandth, rare] = f.recall;
        let rest = [hundredth, thousandth, rare, f.flagged_positives].map(part);
        let mut cells = vec![title.to_owned(), format!("{:.4}", f.auc)];
        cells.extend(rest);
        cells.push(format!("{:.3} %", f.flagged_negatives * 100.0));
        cells.iter().map(|c| Cell::new(c)).collect::<Vec<Cell>>()
    });
    let titles = [
        ("", false),
        ("auc", true),
        ("at 1 %", true),
        ("at 0.1 %", true),
        ("at 0.01 %", true),
        ("flagged", true),
        ("false alarms", true),
    ];
    table(out, &titles, lines.to_vec(), look)?;
    if report.families.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    let families = report.families.iter().map(|f| {
        let [hundredth, thousandth, rare] = f.recall;
        let mut cells = vec![Cell::new(&f.name), Cell::new(&f.names.to_string())];
        cells.extend([hundredth, thousandth, rare, f.flagged].map(|x| Cell::new(&part(x))));
        cells
    });
    let titles = [
        ("family", false),
        ("names", true),
        ("at 1 %", true),
        ("at 0.1 %", true),
        ("at 0.01 %", true),
        ("flagged", true),
    ];
    table(out, &titles, families.collect(), look)
}

fn part(value: f64) -> String {
    format!("{value:.3}")
}
