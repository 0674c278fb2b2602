//! The router of the lab: `agentmon-router run` in `rtr`.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::dhcp::leases;
use super::dns::resolver_log;
use super::hub::Hub;
use super::proc::{Proc, command, output};
use super::wait::eventually;
use super::world::{HUB, World};

/// The sensor's name at the hub.
pub const NAME: &str = "rtr";

/// The router, running or not; its state stays.
#[derive(Debug)]
pub struct Sensor {
    program: PathBuf,
    config: PathBuf,
    log: PathBuf,
    proc: Option<Proc>,
}

impl Sensor {
    /// Enrols at `hub` and starts with all collectors on and quick reports.
    #[must_use]
    pub fn start(world: &World, hub: &Hub) -> Self {
        Self::start_with(world, hub, HUB, "")
    }

    /// Reaches the hub by `address` (a proxy's, say), with more settings (TOML,
    /// dotted keys).
    ///
    /// # Panics
    /// When it cannot join or does not come up.
    #[must_use]
    pub fn start_with(world: &World, hub: &Hub, address: &str, settings: &str) -> Self {
        let mut sensor = Self::prepare(world, settings);
        sensor.set_up_kernel();
        sensor.join(&hub.enroll(NAME, address));
        sensor.resume();
        sensor
    }

    /// Writes the configuration; nothing runs yet.
    ///
    /// # Panics
    /// When the test folder cannot be written.
    #[must_use]
    pub fn prepare(world: &World, settings: &str) -> Self {
        let program = world.binary("agentmon-router");
        let (config, log) = (world.file("router.toml"), world.file("router.log"));
        let sensor = Self { program, config, log, proc: None };
        sensor.configure(world, settings);
        sensor
    }

    /// Writes another configuration; a running router is not told.
    ///
    /// # Panics
    /// When the test folder cannot be written.
    pub fn configure(&self, world: &World, settings: &str) {
        let state = world.file("router-state");
        std::fs::create_dir_all(&state).expect("test folder is writable");
        let text = base_settings(world, &state, settings) + settings;
        std::fs::write(&self.config, text).expect("test folder is writable");
    }

    /// `agentmon-router join` with the line on its standard input.
    ///
    /// # Panics
    /// When it refuses.
    pub fn join(&self, line: &str) {
        let config = self.config.to_string_lossy();
        let mut join = command("rtr", &self.program, &["join", "--config", &config]);
        let mut child = join.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
        let mut stdin = child.stdin.take().expect("piped");
        std::io::Write::write_all(&mut stdin, line.as_bytes()).expect("join reads its input");
        drop(stdin);
        let out = child.wait_with_output().expect("own child");
        assert!(out.status.success(), "join: {}", String::from_utf8_lossy(&out.stderr));
    }

    /// `agentmon-router setup --rules`: its own table, for DNS as it passes by.
    ///
    /// # Panics
    /// When it refuses.
    pub fn set_up_kernel(&self) {
        let config = self.config.to_string_lossy();
        drop(output("rtr", &self.program, &["setup", "--rules", "--config", &config]));
    }

    /// Starts it (again).
    pub fn resume(&mut self) {
        let config = self.config.to_string_lossy();
        let args = ["run", "--config", &config];
        self.proc = Some(Proc::start("rtr", &self.log, &self.program, &args));
    }

    /// Waits until its own status says that all collectors see.
    ///
    /// # Panics
    /// When it does not within 20 s (stretched).
    pub fn is_seeing(&self) {
        eventually(20.0, "agentmon-router status", || self.status().map(drop));
    }

    /// `agentmon-router status --json`.
    ///
    /// # Errors
    /// What it said, when it failed.
    pub fn status(&self) -> Result<serde_json::Value, String> {
        let config = self.config.to_string_lossy();
        let out = command("rtr", &self.program, &["status", "--json", "--config", &config])
            .stdin(Stdio::null())
            .output()
            .map_err(|e| e.to_string())?;
        serde_json::from_slice(&out.stdout)
            .map_err(|e| format!("{e}: {}", String::from_utf8_lossy(&out.stderr)))
    }

    /// SIGKILL.
    ///
    /// # Panics
    /// When it is not running.
    pub fn kill(&mut self) {
        self.proc.take().expect("the router runs").kill();
    }

    /// SIGTERM.
    ///
    /// # Panics
    /// When it is not running or ends with an error.
    pub fn stop(&mut self) {
        let status = self.proc.take().expect("the router runs").stop();
        assert!(status.success(), "the router ended with {status}");
    }

    /// The process, while it runs.
    ///
    /// # Panics
    /// When it is not running.
    #[must_use]
    pub fn proc(&self) -> &Proc {
        self.proc.as_ref().expect("the router runs")
    }
}

/// Dotted keys, so that a test can add keys of the same tables, or set these otherwise.
fn base_settings(world: &World, state: &Path, own: &str) -> String {
    let path = |path: &Path| format!("[\"{}\"]", path.display());
    let base = [
        ("state_dir", format!("\"{}\"", state.display())),
        ("collect.dnsmasq_log.enabled", "true".to_owned()),
        ("collect.dnsmasq_log.paths", path(&resolver_log(world))),
        ("collect.dnsmasq_log.from_start", "true".to_owned()),
        ("collect.leases.paths", path(&leases(world))),
        ("collect.leases.poll_ms", "300".to_owned()),
    ];
    let kept = base.iter().filter(|(key, _)| !own.contains(key));
    kept.map(|(key, value)| format!("{key} = {value}\n")).collect()
}
