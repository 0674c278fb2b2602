//! The hub: batches over HTTPS to committed rows, and what a row takes on disk.
//!
//! A real `agentmon serve` with default settings; two sensors, enrolled as people do it,
//! send batches as large as the router's at the same time, each batch when the last one was
//! acknowledged, with the router's own client (the hub's CA is the only one it trusts). An
//! acknowledgement means committed. The batches are encoded before the clock starts. Rows
//! are counted by asking the hub, bytes in the file after the hub has ended (it folds its
//! log into the file then). The peer ([`hub_peer`]) stores the very same batches.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use agentmon_core::time::{Clock as _, SystemClock};
use agentmon_core::wire::{Batch, Health, encode_batch, encode_event};
use agentmon_router::forward::client::{HubClient, Timeouts};
use agentmon_router::join::Join;
use anyhow::{Context as _, anyhow, bail, ensure};

use crate::hub_peer;
use crate::measure::{Stopwatch, cpu, status_bytes};
use crate::report::{Figure, Goal, Peer, Report, talk};
use crate::synthetic::Home;
use crate::world::{dies_with_us, program, scratch};

const SENSORS: u64 = 2;
/// As the router sends them.
const BATCH_EVENTS: usize = 5_000;
/// Of each sensor.
const BATCHES: usize = 100;
const START_PATIENCE: Duration = Duration::from_secs(30);
const STOP_PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn run(report: &mut Report) -> anyhow::Result<()> {
    let folder = scratch()?;
    let mut hub = Hub::start(folder.path())?;
    let empty = hub.file_bytes()?;
    let (mut sensors, mut all) = (Vec::new(), Vec::new());
    for number in 1..=SENSORS {
        let join = hub.enroll(&format!("sensor{number}"))?;
        let client = HubClient::new(&join, Timeouts::default()).map_err(|e| anyhow!(e))?;
        let bodies = Arc::new(batches(number)?);
        all.push(Arc::clone(&bodies));
        sensors.push((client, bodies));
    }
    talk("hub: sending");
    let before = cpu(hub.pid())?;
    let watch = Stopwatch::start();
    let workers: Vec<_> = sensors
        .into_iter()
        .map(|(client, bodies)| std::thread::spawn(move || send(&client, &bodies)))
        .collect();
    for worker in workers {
        worker.join().map_err(|_| anyhow!("a sending thread panicked"))??;
    }
    let seconds = watch.elapsed().as_secs_f64();
    let used = cpu(hub.pid())?.since(before).total();
    let resident = status_bytes(hub.pid(), "VmHWM")? as f64 / 1e6;

    let expected = SENSORS as usize * BATCHES * BATCH_EVENTS;
    let rows = hub.rows()?;
    ensure!(rows == expected as u64, "{rows} rows of {expected} events");
    hub.stop()?;
    let bytes = hub.file_bytes()?.saturating_sub(empty) as f64;
    let rows = rows as f64;
    talk("hub: the peer");
    let peer = hub_peer::run(&folder.path().join("peer.db"), all.iter().flat_map(|b| b.iter()))?;
    let peer_named = |value| Peer::measured(hub_peer::NAME, value);
    report.add(
        Figure::new("HTTPS to committed rows", rows / seconds, "events/s")
            .peer(peer_named(peer.per_second))
            .goal(Goal::AtLeast(100_000.0)),
    )?;
    report.add(
        Figure::new("CPU of the hub", used * 1e6 / rows, "us/event").peer(peer_named(peer.cpu_us)),
    )?;
    report.add(
        Figure::new("on disk", bytes / rows, "bytes/row")
            .peer(peer_named(peer.bytes_per_row))
            .goal(Goal::AtMost(30.0)),
    )?;
    report.add(Figure::new("resident memory, most", resident, "MB"))
}

/// One sensor's day, encoded.
fn batches(seed: u64) -> anyhow::Result<Vec<Vec<u8>>> {
    let now = SystemClock.wall();
    let mut home = Home::since(seed, now.minus(Duration::from_secs(24 * 3_600)));
    let mut first_seq = 1;
    let mut bodies = Vec::new();
    for _ in 0..BATCHES {
        let events: Vec<Vec<u8>> = (0..BATCH_EVENTS).map(|_| encode_event(&home.flow())).collect();
        let batch = Batch { epoch: seed, first_seq, events, health: Health::default(), sent: now };
        first_seq += BATCH_EVENTS as u64;
        bodies.push(encode_batch(&batch)?);
    }
    Ok(bodies)
}

fn send(client: &HubClient, bodies: &[Vec<u8>]) -> anyhow::Result<()> {
    for (number, body) in bodies.iter().enumerate() {
        let ack = client.ingest(body).map_err(|refusal| anyhow!("batch {number}: {refusal}"))?;
        let last = ((number + 1) * BATCH_EVENTS) as u64;
        ensure!(ack.acked == last, "batch {number} ends at {last}, the hub says {}", ack.acked);
    }
    Ok(())
}

/// The running program and its data.
pub(crate) struct Hub {
    child: Child,
    program: PathBuf,
    data: PathBuf,
}

impl Hub {
    pub(crate) fn start(folder: &Path) -> anyhow::Result<Self> {
        let (program, data) = (program("agentmon")?, folder.join("data"));
        let (config, log) = (folder.join("hub.toml"), folder.join("hub.log"));
        // A port that was free a moment ago.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        std::fs::write(&config, format!("server.listen = \"127.0.0.1:{port}\"\n"))?;
        let mut command = dies_with_us(&program);
        command.arg("--data").arg(&data).args(["serve", "--config"]).arg(&config);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log)?)
            .spawn()?;
        let mut hub = Self { child, program, data };
        let watch = Stopwatch::start();
        loop {
            let said = std::fs::read_to_string(&log)?;
            if said.contains("the hub is ready") {
                return Ok(hub);
            }
            if let Some(status) = hub.child.try_wait()? {
                bail!("agentmon serve ended early: {status}: {said}");
            }
            ensure!(watch.elapsed() < START_PATIENCE, "agentmon serve is not ready: {said}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn ask(&self, args: &[&str]) -> anyhow::Result<String> {
        let out = Command::new(&self.program).arg("--data").arg(&self.data).args(args).output()?;
        let said = String::from_utf8_lossy(&out.stderr);
        ensure!(out.status.success(), "agentmon {args:?}: {}: {said}", out.status);
        Ok(String::from_utf8(out.stdout)?)
    }

    pub(crate) fn enroll(&self, name: &str) -> anyhow::Result<Join> {
        let line = self.ask(&["enroll", name, "--address", "127.0.0.1"])?;
        Ok(Join::decode(line.trim())?)
    }

    fn rows(&self) -> anyhow::Result<u64> {
        let line = self.ask(&["sql", "--json", "SELECT count(*) AS n FROM flows"])?;
        let row: serde_json::Value = serde_json::from_str(&line).with_context(|| line.clone())?;
        row.get("n").and_then(serde_json::Value::as_u64).with_context(|| line)
    }

    /// All of the data folder: the database, and its log while it runs.
    fn file_bytes(&self) -> anyhow::Result<u64> {
        let mut bytes = 0;
        for entry in std::fs::read_dir(&self.data)? {
            let data = entry?.metadata()?;
            bytes += if data.is_file() { data.len() } else { 0 };
        }
        Ok(bytes)
    }

    /// Ends it; it folds its log into the database.
    fn stop(&mut self) -> anyhow::Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let watch = Stopwatch::start();
        loop {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "agentmon serve ended with {status}");
                return Ok(());
            }
            ensure!(watch.elapsed() < STOP_PATIENCE, "agentmon serve does not end");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        // Already gone is as good as killed.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
