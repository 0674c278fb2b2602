//! `agentmon serve`: the hub alone, for sensors on other machines; what a service runs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use agentmon_core::time::SystemClock;
use agentmon_router::logging;
use anyhow::Context as _;

use super::args::ServeArgs;
use super::context::Exit;
use crate::config::{Config, Place};
use crate::serve;

/// Read when it is there and no other file is named.
const CONFIG_FILE: &str = "/etc/agentmon/hub.toml";

/// Serves until SIGTERM or Ctrl-C. Nothing is opened before the configuration is valid.
pub(crate) fn run(args: &ServeArgs, data: &Path) -> anyhow::Result<Exit> {
    let file = args.config.clone().or_else(usual_file);
    let mut config = match &file {
        Some(file) => Config::load(file)?,
        None => Config::default(),
    };
    if let Some(listen) = args.listen {
        config.server.listen = listen;
    }
    if let Err((key, allowed)) = config.validate() {
        anyhow::bail!("`{key}`: {allowed}");
    }
    if args.check {
        return Ok(Exit::Fine);
    }
    let log = logging::init(&config.log).context("starting the log")?;
    let data_dir = std::path::absolute(data).context("--data")?;
    let place = Place { data_dir, config_file: file };
    serve::run(config, place, Arc::new(SystemClock), Some(log), |_| ())?;
    Ok(Exit::Fine)
}

fn usual_file() -> Option<PathBuf> {
    let file = PathBuf::from(CONFIG_FILE);
    file.exists().then_some(file)
}
