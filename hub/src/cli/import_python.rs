//! `agentmon import agentmon-py`: the history and the configuration of the Python program.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;

use super::context::Context;
use super::import::{SpanArgs, To, Unit, bar, lists, passed};
use super::units;
use crate::import::python::{self, Database, Summary};
use crate::import::{Span, python_config};

/// Largest configuration read.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// `agentmon-py`.
#[derive(Args, Clone, Debug)]
pub(crate) struct PythonArgs {
    /// Its database (events.db); stop the program first
    #[arg(required_unless_present = "config", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Its configuration (agentmon.toml): the hub's own is printed to standard output, what
    /// has no equal to standard error; names of clients become addresses by it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Name under which the history appears in `agentmon sensors`
    #[arg(long, value_name = "NAME", default_value = "agentmon-py")]
    sensor: String,
    /// A block list to hold the names against (hosts file, plain domains, adblock);
    /// its file name is what findings call it
    #[arg(long, value_name = "FILE")]
    blocklist: Vec<PathBuf>,
    #[command(flatten)]
    span: SpanArgs,
}

/// The configuration first: it knows the addresses of clients.
pub(super) fn run(args: &PythonArgs, context: &mut Context<'_>) -> anyhow::Result<()> {
    let span = args.span.read(context)?;
    let names = match &args.config {
        Some(path) => config(path, context)?,
        None => HashMap::new(),
    };
    for file in &args.files {
        history(file, args, span, &names, context)?;
    }
    Ok(())
}

fn config(path: &Path, context: &mut Context<'_>) -> anyhow::Result<HashMap<String, IpAddr>> {
    let size = std::fs::metadata(path).with_context(|| path.display().to_string())?.len();
    anyhow::ensure!(size <= CONFIG_BYTES_MAX, "{}: larger than 1 MiB", path.display());
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let mapped = python_config::map(&text).with_context(|| path.display().to_string())?;
    write!(context.out, "{}", mapped.hub)?;
    for line in &mapped.report {
        context.say(line);
    }
    Ok(mapped.names)
}

fn history(
    file: &Path,
    args: &PythonArgs,
    span: Span,
    names: &HashMap<String, IpAddr>,
    context: &mut Context<'_>,
) -> anyhow::Result<()> {
    let (config, lists, fingerprint) = lists(&args.blocklist)?;
    let database = Database::open(file)?;
    let bar = bar(file, database.rows()?, Unit::Rows);
    let hub = &mut *context.hub;
    let mut send = To { hub, sensor: &args.sensor, progress: &|| () };
    let progress = |rows: u64| bar.set_position(rows);
    let lists = (lists, fingerprint.as_str());
    let summary = python::python(&database, names, &config, lists, span, &progress, &mut send)
        .with_context(|| format!("importing {}", file.display()));
    bar.finish_and_clear();
    context.say(&told(file, &summary?));
    Ok(())
}

fn told(file: &Path, s: &Summary) -> String {
    let mut text = format!(
        "{}: {} (schema {}); {} and {} were new",
        file.display(),
        units::plural(s.rows, "row", "rows"),
        s.version,
        units::plural(s.new_events, "event", "events"),
        units::plural(s.new_findings, "finding", "findings"),
    );
    text.push_str(&passed(s.passed));
    if s.bad > 0 {
        let n = units::plural(s.bad, "row", "rows");
        text.push_str(&format!("; {n} made no sense: left out"));
    }
    if s.nameless > 0 {
        text.push_str(&format!(
            "; {} of clients without a known address (as {}): left out, name their addresses in \
             client_resolver.mappings of --config",
            units::plural(s.nameless, "row", "rows"),
            s.unknown.join(", ")
        ));
    }
    if s.version > python::VERSION_KNOWN {
        text.push_str("; that schema is newer than this program: what is new in it was not read");
    }
    if s.alerts > 0 {
        let n = units::plural(s.alerts, "alert", "alerts");
        text.push_str(&format!("; its {n} and what it learnt are made anew of the same events"));
    }
    if s.proposals > 0 {
        let n = units::plural(s.proposals, "proposal", "proposals");
        text.push_str(&format!("; {n} that wait there for a person: not taken"));
    }
    for domain in &s.dismissed {
        text.push_str(&format!("\n  called false there: agentmon allow --domain {domain}"));
    }
    text
}
