//! `agentmon export`: the rows of a table or of a statement, as a file.

use std::fs::File;
use std::path::{Path, PathBuf};

use agentmon_core::Timestamp;
use anyhow::{Context as _, bail};

use super::backend::one_row;
use super::context::{Context, Exit};
use super::{units, when};
use crate::control::Request;
use crate::store::export::Format;

/// Tables, and the time by which `--since` counts.
const TABLES: &[(&str, &str)] = &[
    ("flows", "time"),
    ("dns", "time"),
    ("firewall", "time"),
    ("findings", "time"),
    ("alerts", "last_seen"),
    ("gaps", "time"),
    ("devices", "last_seen"),
    ("device_addresses", "last_seen"),
    ("device_names", "last_seen"),
    ("processes", "time"),
    ("process_conns", "time"),
    ("programs", "last_seen"),
    ("connections", "time"),
    ("story", "time"),
    ("incidents", "last_seen"),
    ("zeek_conn", "time"),
];

/// Behind the options.
pub(crate) const HELP: &str = "\
Examples:
  agentmon export flows --since 7d -o week.parquet
  agentmon export dns --since 2026-11-01 --until 2026-11-02 --format json -o day.ndjson
  agentmon export \"SELECT domain, count(*) AS n FROM dns GROUP BY 1\" -o - | head
Times are UTC. A running hub makes the file; it is readable by its owner only.
See also: agentmon sql";

#[derive(clap::Args, Debug)]
pub(crate) struct ExportArgs {
    /// A table (flows, dns, firewall, findings, alerts, gaps, devices, processes, ...), or one
    /// reading SQL statement
    #[arg(value_name = "TABLE|SQL")]
    what: String,
    /// What the file is to be [default: by its name's end, else csv]
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<Format>,
    /// Where to; `-` is stdout
    #[arg(long, short = 'o', value_name = "FILE")]
    output: PathBuf,
    /// Only rows from this time on (of a table)
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    since: Option<String>,
    /// Only rows up to this time (of a table)
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    until: Option<String>,
    /// Replace the file where there is one
    #[arg(long)]
    force: bool,
    /// Give up after this long
    #[arg(long, value_name = "AGE", default_value = "10m")]
    timeout: String,
}

/// The hub makes the file; it is taken to where it was wanted.
pub(crate) fn run(args: &ExportArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let to_stdout = args.output == Path::new("-");
    if !to_stdout && !args.force && args.output.exists() {
        bail!("{} is there already; --force replaces it", args.output.display());
    }
    let timeout = when::duration(&args.timeout)
        .with_context(|| format!("--timeout {}: want an age as 90s or 5m", args.timeout))?;
    let request = Request::Export {
        sql: statement(args, context)?,
        format: args.format.unwrap_or_else(|| by_name(&args.output)),
        timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
    };
    let (_, row) = one_row(context.hub, &request)?.context("the hub made no file")?;
    let path = row.first().and_then(|v| v.as_str()).context("the hub named no file")?;
    let rows = row.get(1).and_then(serde_json::Value::as_u64).unwrap_or(0);
    let made = Path::new(path);
    let taken = match to_stdout {
        true => File::open(made).and_then(|mut file| std::io::copy(&mut file, context.out)),
        false => take(made, &args.output),
    };
    drop(std::fs::remove_file(made));
    let bytes = taken.with_context(|| format!("writing {}", args.output.display()))?;
    context.say(&format!("{}, {}", units::plural(rows, "row", "rows"), units::bytes(bytes)));
    Ok(Exit::Fine)
}

/// Copies it beside its place, then names it: the place holds the old or the whole new file.
fn take(made: &Path, place: &Path) -> std::io::Result<u64> {
    let mut beside = place.as_os_str().to_owned();
    beside.push(".part");
    let beside = PathBuf::from(beside);
    // With the mode of the original: what it holds is nobody else's business.
    let result = std::fs::copy(made, &beside).and_then(|bytes| {
        File::open(&beside)?.sync_all()?;
        std::fs::rename(&beside, place)?;
        Ok(bytes)
    });
    if result.is_err() {
        drop(std::fs::remove_file(&beside));
    }
    result
}

fn by_name(path: &Path) -> Format {
    match path.extension().and_then(|e| e.to_str()) {
        Some("json" | "ndjson" | "jsonl") => Format::Json,
        Some("parquet") => Format::Parquet,
        _ => Format::Csv,
    }
}

fn statement(args: &ExportArgs, context: &Context<'_>) -> anyhow::Result<String> {
    let what = args.what.trim();
    let word = what.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let Some((table, time)) = TABLES.iter().find(|(name, _)| *name == what) else {
        if word {
            let names: Vec<&str> = TABLES.iter().map(|(name, _)| *name).collect();
            bail!("`{what}` is none of {}; other tables by SQL: FROM {what}", names.join(", "));
        }
        if args.since.is_some() || args.until.is_some() {
            bail!("--since and --until are for tables; in SQL write WHERE time >= ...");
        }
        return Ok(what.to_owned());
    };
    let look = &context.look;
    let mut sql = format!("SELECT * FROM {table} WHERE true");
    for (option, text, sign) in [("since", &args.since, ">="), ("until", &args.until, "<=")] {
        let Some(text) = text else { continue };
        let point: Timestamp = when::parse(text, look.now, &look.zone)
            .map_err(|error| anyhow::anyhow!("--{option}: {error}"))?;
        sql.push_str(&format!(" AND {time} {sign} TIMESTAMP '{}'", when::sql(point)));
    }
    sql.push_str(&format!(" ORDER BY {time}"));
    Ok(sql)
}
