//! The router program as it is packaged (size profile): memory, CPU and its own size.
//!
//! `agentmon-router run` with default settings, a block list of 100,000 names and a DNS log
//! that grows, in a network namespace with 100 new flows a second. No hub: everything stays
//! in the ring, on disk beside this program.

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::flood::Flood;
use crate::measure::{Cpu, Stopwatch, cpu, status_bytes};
use crate::report::{Figure, Goal, Report, talk};
use crate::synthetic::{Home, block_list};
use crate::world::{scratch, small_program};

const FLOWS_PER_SECOND: u32 = 100;
const SECONDS: u32 = 40;
/// Questions written into the DNS log a second: what 80 devices ask at a busy time.
const QUESTIONS_PER_SECOND: u32 = 30;
const BLOCKED_NAMES: usize = 100_000;
const BLOCKED_EVERY: usize = 20;
const START_PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn run(report: &mut Report) -> anyhow::Result<()> {
    let program = small_program("agentmon-router")?;
    let size = std::fs::metadata(&program)?.len();
    report
        .add(Figure::new("size of the program", size as f64 / 1e6, "MB").goal(Goal::AtMost(5.0)))?;

    let folder = scratch()?;
    let mut home = Home::new(1);
    let config = prepare(folder.path(), &home)?;
    let router = Router::start(&program, &config, &folder.path().join("router.log"))?;
    let before = cpu(router.pid())?;
    let watch = Stopwatch::start();
    let mut flood = Flood::new()?;
    let mut log = std::fs::File::options().append(true).open(folder.path().join("dns.log"))?;
    let mut flows = 0;
    for _ in 0..SECONDS {
        let mut lines = String::new();
        for _ in 0..QUESTIONS_PER_SECOND {
            home.dns_log(&mut lines);
        }
        log.write_all(lines.as_bytes())?;
        flows += flood.send(FLOWS_PER_SECOND, FLOWS_PER_SECOND)?;
    }
    let seconds = watch.elapsed().as_secs_f64();
    let used: Cpu = cpu(router.pid())?.since(before);
    let resident = status_bytes(router.pid(), "VmHWM")? as f64 / 1e6;
    let events = router.events(&program, &config)?;
    talk(&format!("router: {flows} flows in {seconds:.0} s, {events} events through the pipeline"));
    if events < u64::from(flows) {
        bail!("the router has seen {events} events of {flows} flows: it was not at work");
    }
    report.add(Figure::new("resident memory, most", resident, "MB").goal(Goal::AtMost(15.0)))?;
    let percent = 100.0 * used.total() / seconds;
    report
        .add(Figure::new("CPU at 100 flows/s", percent, "% of a core").goal(Goal::AtMost(2.0)))?;
    router.stop()
}

/// Files the router reads, and its configuration.
fn prepare(folder: &Path, home: &Home) -> anyhow::Result<std::path::PathBuf> {
    std::fs::write(folder.join("dns.log"), "")?;
    std::fs::write(folder.join("blocked"), block_list(home, BLOCKED_NAMES, BLOCKED_EVERY))?;
    let (path, config) = (folder.display(), folder.join("router.toml"));
    let text = format!(
        r#"state_dir = "{path}/state"
tier0.blocklist.lists = [{{ name = "made-up", path = "{path}/blocked", score = 0.4 }}]
collect.dnsmasq_log.enabled = true
collect.dnsmasq_log.paths = ["{path}/dns.log"]
collect.dnsmasq_log.timezone = "utc"
"#
    );
    std::fs::create_dir_all(folder.join("state"))?;
    std::fs::write(&config, text)?;
    Ok(config)
}

/// The running program.
struct Router(Child);

impl Router {
    /// Starts it and waits until it answers.
    fn start(program: &Path, config: &Path, log: &Path) -> anyhow::Result<Self> {
        let child = Command::new(program)
            .args(["run", "--config"])
            .arg(config)
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(log)?)
            .spawn()?;
        let mut router = Self(child);
        let watch = Stopwatch::start();
        while router.events(program, config).is_err() {
            let said = || std::fs::read_to_string(log).unwrap_or_default();
            if let Some(status) = router.0.try_wait()? {
                bail!("agentmon-router ended early: {status}: {}", said());
            }
            if watch.elapsed() > START_PATIENCE {
                bail!("agentmon-router does not answer: {}", said());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(router)
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    /// What has come through its pipeline, by its own status.
    fn events(&self, program: &Path, config: &Path) -> anyhow::Result<u64> {
        let mut status = Command::new(program);
        let out = status.args(["status", "--json", "--config"]).arg(config).output()?;
        let status: serde_json::Value = serde_json::from_slice(&out.stdout)
            .with_context(|| String::from_utf8_lossy(&out.stderr).into_owned())?;
        let events = status.pointer("/counters/pipeline.events").and_then(|v| v.as_u64());
        events.with_context(|| format!("no pipeline.events in {status}"))
    }

    fn stop(mut self) -> anyhow::Result<()> {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let status = self.0.wait()?;
        if !status.success() {
            bail!("agentmon-router ended with {status}");
        }
        Ok(())
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        // Already gone is as good as killed.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
