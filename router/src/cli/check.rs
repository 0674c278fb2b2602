//! `check`: is the configuration right, and what does the kernel lack? Changes nothing.
//!
//! What the kernel lacks is told, but is no fault of the configuration: the exit code is
//! about the latter, unless `--kernel` asks about the former.

use std::path::{Path, PathBuf};

use super::args::Args;
use super::{Io, Outcome, Result, config_path};
use crate::config::{Config, DEFAULT_PATH};
use crate::kernel::probe::probe;
use crate::{join, lists, uci};

pub(super) fn run(mut args: Args, io: &mut Io<'_>) -> Result {
    if args.flag("--print-default") {
        args.done()?;
        io.out.write_all(Config::default().to_toml()?.as_bytes())?;
        return Ok(Outcome::Fine);
    }
    let kernel_counts = args.flag("--kernel");
    let given = args.value("--config")?.map(PathBuf::from);
    let uci = args.value("--uci")?.map(PathBuf::from);
    args.done()?;
    if let Some(uci) = uci {
        anyhow::ensure!(given.is_none(), "`--uci` and `--config` exclude each other");
        let Some(config) = from_uci(&uci, io)? else { return Ok(Outcome::Found) };
        return with(config, kernel_counts, io);
    }
    let config = match &config_path(given.as_deref()) {
        None => {
            writeln!(io.out, "{DEFAULT_PATH}: not there; the defaults are in force")?;
            Config::default()
        }
        Some(path) => match Config::load(path) {
            Ok(config) => {
                writeln!(io.out, "{}: ok", path.display())?;
                config
            }
            Err(error) => {
                writeln!(io.out, "{error}")?;
                return Ok(Outcome::Found);
            }
        },
    };
    with(config, kernel_counts, io)
}

/// The configuration that OpenWrt's settings stand for; `None` after their mistakes.
fn from_uci(path: &Path, io: &mut Io<'_>) -> anyhow::Result<Option<Config>> {
    let settings = match uci::load(path) {
        Ok(settings) => settings,
        Err(problems) => {
            for problem in problems {
                writeln!(io.out, "{problem}")?;
            }
            return Ok(None);
        }
    };
    if let Err(error) = settings.service.hub.identity() {
        writeln!(io.out, "{}: {error:#}", path.display())?;
        return Ok(None);
    }
    writeln!(io.out, "{}: ok", path.display())?;
    if !settings.service.enabled {
        writeln!(io.out, "agentmon.main.enabled is 0: the service does not start")?;
    }
    Ok(Some(settings.config))
}

/// What the configuration names, and the kernel.
fn with(config: Config, kernel_counts: bool, io: &mut Io<'_>) -> Result {
    let mut outcome = Outcome::Fine;
    let config = config.resolved();
    match lists::check(&config.tier0) {
        Ok(reports) => {
            for report in reports {
                writeln!(
                    io.out,
                    "list {}",
                    agentmon_core::name::printable(report.to_string().as_bytes(), 1_000)
                )?;
            }
        }
        Err(error) => {
            writeln!(io.out, "{error:#}")?;
            outcome = Outcome::Found;
        }
    }
    if config.forward.enabled {
        match join::load(&config.forward.identity) {
            Ok(Some(join)) => writeln!(io.out, "hub: {} (as {})", join.url, join.name)?,
            Ok(None) => writeln!(io.out, "hub: not joined yet; see agentmon-router help join")?,
            Err(error) => {
                writeln!(io.out, "{error}")?;
                outcome = Outcome::Found;
            }
        }
    }
    for check in probe((&config.collect).into()) {
        writeln!(io.out, "{} {check}", if check.ok { "   ok" } else { " LACK" })?;
        if kernel_counts && !check.ok {
            outcome = Outcome::Found;
        }
    }
    Ok(outcome)
}
