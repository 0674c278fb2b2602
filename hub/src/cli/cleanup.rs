//! `agentmon cleanup`: older days become files, and what is kept no longer is deleted.

use std::path::PathBuf;

use super::backend::ask;
use super::context::{Context, Exit};
use super::directory::Directory;
use super::print::Printer;
use super::sheet::{Column, Kind, Sheet};
use super::{args::FormatArgs, units};
use crate::config::Config;
use crate::control::{Reply, Request};

/// What `agentmon serve` reads unless told otherwise.
const CONFIG_FILE: &str = "/etc/agentmon/hub.toml";

#[derive(clap::Args, Debug)]
pub(crate) struct CleanupArgs {
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Configuration whose [retention] holds where no hub runs [default:
    /// /etc/agentmon/hub.toml where there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    format: FormatArgs,
}

const COLUMNS: &[Column] = &[
    Column::new("ACTION", |r, _| r.plain("action")),
    Column::new("TABLE", |r, _| r.plain("table")),
    Column::new("DAY", |r, _| r.plain("day")),
    Column::new("ROWS", |r, _| r.count("rows")).right(),
    Column::new("BYTES", |r, _| r.bytes("bytes")).right(),
];

/// Prints what was done, or would be.
pub(crate) fn run(args: &CleanupArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let usual = PathBuf::from(CONFIG_FILE);
    let file = args.config.clone().or_else(|| usual.is_file().then_some(usual));
    let rules = file.map(|file| Config::load(&file)).transpose()?.map(|config| config.retention);
    let sheet = Sheet::new(
        &[
            ("action", Kind::Plain),
            ("table", Kind::Plain),
            ("day", Kind::Plain),
            ("rows", Kind::Plain),
            ("bytes", Kind::Bytes),
        ],
        COLUMNS,
    );
    let names = Directory::default();
    let mut rows = Vec::new();
    let request = Request::Cleanup { dry_run: args.dry_run, rules };
    ask(context.hub, &request, &mut |reply| {
        if let Reply::Row { values } = reply {
            rows.push(values);
        }
        Ok(())
    })?;
    let mut printer = Printer::new(args.format.format(), &sheet, &context.look, context.out);
    let count = u64::try_from(rows.len()).unwrap_or(u64::MAX);
    for values in rows {
        printer.record(&sheet.record(values, &names))?;
    }
    printer.finish()?;
    let days = units::plural(count, "thing", "things");
    context.say(&match (count, args.dry_run) {
        (0, _) => "nothing to do".to_owned(),
        (_, true) => format!("{days} to do; nothing was changed"),
        (_, false) => format!("{days} done"),
    });
    Ok(Exit::Fine)
}
