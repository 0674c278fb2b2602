//! `run`: the service. Signals become calls here and nowhere else.
//!
//! SIGTERM, SIGINT: stop in order. SIGHUP: reload. They are blocked in every thread and
//! waited for on this one, so that no code runs inside a signal handler.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::args::Args;
use super::{Outcome, Result, config_path};
use crate::config::Config;
use crate::logging::{self, LogHandle};
use crate::supervisor::{self, RouterHandle};
use crate::sys::{self, Signal};

/// How often to look whether a part has ended by itself.
const LOOK_EVERY: Duration = Duration::from_secs(5);

pub(super) fn run(mut args: Args) -> Result {
    let given = args.value("--config")?.map(PathBuf::from);
    args.done()?;
    let config = load(given.as_deref())?;
    sys::limit_memory_arenas();
    // Before the first thread, so that all inherit it.
    sys::block_signals()?;
    let log = logging::init(&config.log)?;
    let router = supervisor::start(config)?;
    router.on_reload(sys::ask_own_reload);
    tracing::info!("agentmon-router {} runs", env!("CARGO_PKG_VERSION"));
    loop {
        match sys::wait_signal(LOOK_EVERY)? {
            Some(Signal::Stop) => {
                tracing::info!("stopping");
                router.stop();
                return Ok(Outcome::Fine);
            }
            Some(Signal::Reload) => reload(given.as_deref(), &router, &log),
            None if router.is_broken() => {
                router.stop();
                anyhow::bail!("a part of the router has ended by itself; see the log")
            }
            None => {}
        }
    }
}

fn load(given: Option<&Path>) -> anyhow::Result<Config> {
    Ok(match config_path(given) {
        Some(path) => Config::load(&path)?,
        None => Config::default(),
    })
}

fn reload(given: Option<&Path>, router: &RouterHandle, log: &LogHandle) {
    let result = load(given).and_then(|config| {
        let levels = config.log.clone();
        router.reload(config)?;
        log.reload(&levels);
        Ok(())
    });
    match result {
        Ok(()) => tracing::info!("configuration reloaded"),
        Err(error) => {
            tracing::error!("configuration refused, the old one stays: {error:#}");
            router.refused(&error);
        }
    }
}
