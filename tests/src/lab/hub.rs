//! The hub of the lab: `agentmon serve` in `hub`, asked by the `agentmon` command.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

use super::proc::{Proc, command};
use super::wait::{eventually, want};
use super::world::{HUB, World};

/// Port the hub listens on.
pub const PORT: u16 = 8787;

/// The hub, running or not; its data stays.
#[derive(Debug)]
pub struct Hub {
    program: PathBuf,
    data: PathBuf,
    config: PathBuf,
    log: PathBuf,
    proc: Option<Proc>,
}

impl Hub {
    /// Starts a new hub with default settings.
    #[must_use]
    pub fn start(world: &World) -> Self {
        Self::start_with(world, &world.file("hub"), "")
    }

    /// Starts a new hub with data in `data` and more settings (TOML).
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn start_with(world: &World, data: &Path, settings: &str) -> Self {
        let config = world.file("hub.toml");
        let text = format!("server.listen = \"{HUB}:{PORT}\"\n{settings}");
        std::fs::write(&config, text).expect("test folder is writable");
        let program = world.binary("agentmon");
        let (data, log) = (data.to_owned(), world.file("hub.log"));
        let mut hub = Self { program, data, config, log, proc: None };
        hub.resume();
        hub
    }

    /// Starts it again after [`Self::stop`] or [`Self::kill`].
    ///
    /// # Panics
    /// When it does not come up.
    pub fn resume(&mut self) {
        let (data, config) = (self.data.to_string_lossy(), self.config.to_string_lossy());
        let args = ["--data", &data, "serve", "--config", &config];
        let said_before = std::fs::read(&self.log).map_or(0, |log| log.len());
        let mut proc = Proc::start("hub", &self.log, &self.program, &args);
        eventually(30.0, "the hub is ready", || {
            assert!(proc.is_running(), "the hub has ended: {}", proc.log_text());
            let log = proc.log_text();
            let new = log.get(said_before..).unwrap_or_default();
            want(new.contains("the hub is ready"), || new.to_owned())
        });
        self.proc = Some(proc);
    }

    /// Asks it to end and waits until it has.
    ///
    /// # Panics
    /// When it is not running or ends with an error.
    pub fn stop(&mut self) {
        let status = self.proc.take().expect("the hub runs").stop();
        assert!(status.success(), "the hub ended with {status}");
    }

    /// SIGKILL.
    ///
    /// # Panics
    /// When it is not running.
    pub fn kill(&mut self) {
        self.proc.take().expect("the hub runs").kill();
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        self.proc.as_mut().is_some_and(Proc::is_running)
    }

    /// The process, while it runs.
    ///
    /// # Panics
    /// When it is not running.
    #[must_use]
    pub fn proc(&self) -> &Proc {
        self.proc.as_ref().expect("the hub runs")
    }

    /// The line with which a sensor joins; `address` is how it reaches the hub.
    ///
    /// # Panics
    /// When the hub refuses.
    #[must_use]
    pub fn enroll(&self, sensor: &str, address: &str) -> String {
        let out = self.cli(&["enroll", sensor, "--address", address]);
        out.unwrap_or_else(|e| panic!("enroll {sensor}: {e}")).trim().to_owned()
    }

    /// Rows of a query as JSON objects.
    ///
    /// # Panics
    /// When the hub refuses it.
    #[track_caller]
    #[must_use]
    pub fn sql(&self, query: &str) -> Vec<Value> {
        self.try_sql(query).unwrap_or_else(|e| panic!("{query}: {e}"))
    }

    /// Rows of a query as JSON objects.
    ///
    /// # Errors
    /// What the command said.
    pub fn try_sql(&self, query: &str) -> Result<Vec<Value>, String> {
        let lines = self.cli(&["sql", "--json", query])?;
        let row = |line: &str| serde_json::from_str(line).map_err(|e| format!("{e}: {line}"));
        lines.lines().map(row).collect()
    }

    /// The one number a query gives.
    ///
    /// # Panics
    /// When it gives anything else.
    #[track_caller]
    #[must_use]
    pub fn number(&self, query: &str) -> u64 {
        let rows = self.sql(query);
        let row = rows.first().and_then(Value::as_object).and_then(|row| row.values().next());
        // Sums are HUGEINT, which JSON carries as text where it does not fit.
        let number = row.and_then(|v| v.as_u64().or_else(|| v.as_str()?.parse().ok()));
        number.unwrap_or_else(|| panic!("{query}: want one number, not {rows:?}"))
    }

    /// Waits until a query gives exactly `expected`.
    ///
    /// # Panics
    /// When it does not within `seconds` (stretched).
    #[track_caller]
    pub fn reaches(&self, seconds: f64, query: &str, expected: u64) {
        eventually(seconds, query, || {
            let got = self.number(query);
            want(got == expected, || format!("{got}, want {expected}"))
        });
    }

    /// Runs `agentmon ARGS` against this hub's data.
    ///
    /// # Errors
    /// What it said, when it failed.
    pub fn cli(&self, args: &[&str]) -> Result<String, String> {
        let data = self.data.to_string_lossy();
        let mut all = vec!["--data", &*data];
        all.extend(args);
        let out = command("hub", &self.program, &all).stdin(Stdio::null()).output();
        let out = out.map_err(|e| e.to_string())?;
        if out.status.success() {
            return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
        }
        Err(String::from_utf8_lossy(&out.stderr).into_owned())
    }
}
