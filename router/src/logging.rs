//! Logs of both programs: text or JSON lines on standard error, with levels per module.
//!
//! The environment variable [`ENV`] overrides the configured levels, in the form
//! `info,forward=debug,agentmon_hub::ingest=trace`. Levels can be changed while running.
//! A panic of any thread becomes one error line.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

/// Overrides the configured levels.
pub const ENV: &str = "AGENTMON_LOG";
/// What a level may be.
const LEVELS: &str = "off, error, warn, info, debug, trace";

/// Settings of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Least severe level that is logged: off, error, warn, info, debug or trace.
    pub level: String,
    /// `text` or `json` (one object per line).
    pub format: Format,
    /// Other levels for single modules: `forward = "debug"`.
    pub modules: BTreeMap<String, String>,
}

impl Default for Config {
    fn default() -> Self {
        Self { level: "info".into(), format: Format::Text, modules: BTreeMap::new() }
    }
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people and syslog.
    #[default]
    Text,
    /// For programs.
    Json,
}

impl Config {
    /// Whether the levels exist.
    ///
    /// # Errors
    /// The key below `[log]` and what is allowed.
    pub fn validate(&self) -> Result<(), (String, String)> {
        let modules = self.modules.iter().map(|(name, level)| (format!("modules.{name}"), level));
        for (key, level) in std::iter::once(("level".to_owned(), &self.level)).chain(modules) {
            if level.parse::<LevelFilter>().is_err() {
                return Err((
                    key,
                    format!("`{}` is no level: want one of {LEVELS}", printable(level)),
                ));
            }
        }
        Ok(())
    }

    fn targets(&self) -> Targets {
        if let Ok(spec) = std::env::var(ENV) {
            return parse_spec(&spec);
        }
        let level = self.level.parse().unwrap_or(LevelFilter::INFO);
        let modules = self.modules.iter().flat_map(|(name, level)| {
            let level = level.parse().unwrap_or(LevelFilter::INFO);
            full_names(name).map(move |name| (name, level))
        });
        base(level).with_targets(modules)
    }
}

fn printable(text: &str) -> String {
    agentmon_core::name::printable(text.as_bytes(), 64)
}

/// Our own modules at `level`, everybody else's no chattier than warnings.
fn base(level: LevelFilter) -> Targets {
    let ours = ["agentmon", "agentmon_core", "agentmon_router", "agentmon_hub", "agentmon_host"];
    Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_targets(ours.map(|target| (target, level)))
}

/// `forward` names the module in either program; a full path stands for itself.
fn full_names(name: &str) -> impl Iterator<Item = String> {
    let full = name.contains("::") || name.starts_with("agentmon");
    let prefixes: &[&str] =
        if full { &[""] } else { &["agentmon_router::", "agentmon_hub::", "agentmon_core::"] };
    let name = name.to_owned();
    prefixes.iter().map(move |prefix| format!("{prefix}{name}"))
}

/// `level,module=level,...`; what is not understood is passed over, because a typing error
/// in the environment must not keep the program from starting.
fn parse_spec(spec: &str) -> Targets {
    let parts = || spec.split(',').map(str::trim).filter(|part| !part.is_empty());
    let level = parts().find_map(|part| part.parse().ok()).unwrap_or(LevelFilter::INFO);
    let modules = parts().filter_map(|part| {
        let (name, level) = part.split_once('=')?;
        Some((name.trim(), level.trim().parse::<LevelFilter>().ok()?))
    });
    base(level).with_targets(
        modules.flat_map(|(name, level)| full_names(name).map(move |name| (name, level))),
    )
}

/// Changes the levels of a running log.
#[derive(Clone, Debug)]
pub struct LogHandle {
    filter: reload::Handle<Targets, Registry>,
}

impl LogHandle {
    /// Other levels from now on; the format stays as it was at the start.
    pub fn reload(&self, config: &Config) {
        // Fails only when the log itself is gone.
        drop(self.filter.reload(config.targets()));
    }
}

/// Starts the log of this process; once, early in `main`.
///
/// # Errors
/// When a log was started before.
pub fn init(config: &Config) -> anyhow::Result<LogHandle> {
    let (filter, handle) = reload::Layer::new(config.targets());
    let layer = fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry();
    match config.format {
        Format::Text => registry.with(layer.with_filter(filter)).try_init()?,
        Format::Json => {
            registry.with(layer.json().flatten_event(true).with_filter(filter)).try_init()?;
        }
    }
    std::panic::set_hook(Box::new(|info| {
        let thread = std::thread::current();
        tracing::error!("thread {} panicked: {info}", thread.name().unwrap_or("?"));
    }));
    Ok(LogHandle { filter: handle })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Level;

    #[track_caller]
    fn check(targets: &Targets, target: &str, most: Level) {
        let on = |level| targets.would_enable(target, &level);
        let enabled = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE]
            .into_iter()
            .filter(|level| on(*level))
            .max();
        assert_eq!(enabled, Some(most), "{target}");
    }

    #[test]
    fn levels_by_module() {
        let config = Config {
            modules: BTreeMap::from([
                ("forward".to_owned(), "debug".to_owned()),
                ("agentmon_router::ring".to_owned(), "error".to_owned()),
            ]),
            ..Config::default()
        };
        config.validate().unwrap();
        let targets = config.targets();
        check(&targets, "agentmon_router::forward::client", Level::DEBUG);
        check(&targets, "agentmon_router::ring::store", Level::ERROR);
        check(&targets, "agentmon_router::pipeline", Level::INFO);
        check(&targets, "rustls::client", Level::WARN);
    }

    #[test]
    fn the_environment_form() {
        let targets = parse_spec("warn, forward=trace ,nonsense,x=y");
        check(&targets, "agentmon_hub::forward", Level::TRACE);
        check(&targets, "agentmon_hub::ingest", Level::WARN);
    }

    #[test]
    fn a_wrong_level_names_its_key() {
        let config = Config { level: "loud".into(), ..Config::default() };
        let (key, allowed) = config.validate().unwrap_err();
        assert_eq!(key, "level");
        assert!(allowed.contains("off, error, warn"), "{allowed}");
    }
}
