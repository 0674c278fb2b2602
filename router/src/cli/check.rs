//! `check`: is the configuration right, and what does the kernel lack? Changes nothing.
//!
//! What the kernel lacks is told, but is no fault of the configuration: the exit code is
//! about the latter, unless `--kernel` asks about the former.

use std::path::PathBuf;

use super::args::Args;
use super::{Io, Outcome, Result, config_path};
use crate::config::{Config, DEFAULT_PATH};
use crate::kernel::probe::probe;
use crate::{join, lists};

pub(super) fn run(mut args: Args, io: &mut Io<'_>) -> Result {
    if args.flag("--print-default") {
        args.done()?;
        io.out.write_all(Config::default().to_toml()?.as_bytes())?;
        return Ok(Outcome::Fine);
    }
    let kernel_counts = args.flag("--kernel");
    let given = args.value("--config")?.map(PathBuf::from);
    args.done()?;
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
    let mut outcome = Outcome::Fine;
    let config = config.resolved();
    if let Err(error) = lists::load(&config.tier0) {
        writeln!(io.out, "{error:#}")?;
        outcome = Outcome::Found;
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
