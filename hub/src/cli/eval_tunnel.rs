//! `agentmon eval tunnel`: figures as lines for a person, or as one JSON object.

use std::io::Write;

use super::args::EvalTunnelArgs;
use super::context::Exit;
use super::text;
use crate::eval::tunnel::{First, Report, measure};

/// Reads no store.
pub(super) fn run(args: &EvalTunnelArgs, out: &mut dyn Write) -> anyhow::Result<Exit> {
    let report = measure(args.positives.as_deref(), args.negatives.as_deref())?;
    if args.json {
        writeln!(out, "{}", text::safe_json(serde_json::to_string(&report)?))?;
    } else {
        lines(&report, out)?;
    }
    let alarms = report.negatives.as_ref().map_or(0, |quiet| quiet.findings);
    let missed = args.exit_code && (!report.all_found_in_time || alarms > 0);
    Ok(if missed { Exit::Found } else { Exit::Fine })
}

fn lines(report: &Report, out: &mut dyn Write) -> anyhow::Result<()> {
    let when = |first: &Option<First>| match first {
        Some(first) => format!("after {:.1} s, {} queries", first.seconds, first.queries),
        None => "never".to_owned(),
    };
    for tool in &report.tools {
        let (full, slow) = (when(&tool.first_finding), when(&tool.first_finding_at_hundredth));
        let file = text::safe(&tool.file);
        writeln!(out, "{file}: {full}; at a hundredth of its speed {slow}")?;
    }
    let Some(quiet) = &report.negatives else { return Ok(()) };
    writeln!(
        out,
        "{}: {} findings in {} queries of {} clients within {:.1} h",
        text::safe(&quiet.file),
        quiet.findings,
        quiet.queries,
        quiet.clients,
        quiet.hours,
    )?;
    for said in &quiet.said {
        writeln!(out, "  {}", text::safe(&said.why))?;
    }
    Ok(())
}
