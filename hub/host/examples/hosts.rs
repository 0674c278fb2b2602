//! Many hosts that report to one hub, by the real wire.
//!
//! `cargo run -p agentmon-host --example hosts AGENTMON [HOSTS [EVENTS [SECONDS]]]`
//!
//! Starts AGENTMON (the hub's program) with a store of its own, enrols HOSTS sensors, and lets
//! each send a batch of EVENTS connections every second over TLS, as its forwarder would:
//! numbered, repeated until acknowledged. [`WORKERS`] threads play the hosts. Prints how many
//! events were sent, how many the hub stored, how late the slowest acknowledgement came, and
//! the hub's CPU time and memory.

#![allow(clippy::print_stdout, reason = "a measuring program's output")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use agentmon_core::event::{Body, Connection, Direction, Endpoint, FlowPhase};
use agentmon_core::time::{Clock, SystemClock};
use agentmon_core::wire::{self, Batch, Health};
use agentmon_core::{Event, Timestamp};
use agentmon_router::forward::client::{HubClient, Timeouts};
use agentmon_router::join::Join;
use anyhow::Context as _;

/// Threads that play hosts.
const WORKERS: usize = 20;
/// Where the hub listens, on the loopback.
const HUB: &str = "127.0.0.1:18787";
/// A batch is sent so often before its host gives up.
const TRIES: usize = 300;

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let program = PathBuf::from(args.next().context("which agentmon?")?);
    let hosts: usize = args.next().map_or(Ok(500), |n| n.parse())?;
    let events: usize = args.next().map_or(Ok(20), |n| n.parse())?;
    let seconds: u64 = args.next().map_or(Ok(20), |n| n.parse())?;
    let dir = std::env::temp_dir().join(format!("agentmon-hosts-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let config = dir.join("hub.toml");
    std::fs::write(&config, format!("server.listen = \"{HUB}\"\n"))?;
    let mut serve = ask(&program, &dir);
    let log = std::fs::File::create(dir.join("hub.log"))?;
    let hub = serve.args(["serve", "--config"]).arg(&config).stderr(log).stdout(Stdio::null());
    let mut hub = hub.spawn().context("the hub")?;
    let result = run(&program, &dir, &hub, (hosts, events, seconds));
    Command::new("kill").arg(hub.id().to_string()).status()?;
    hub.wait()?;
    match &result {
        Ok(()) => std::fs::remove_dir_all(&dir)?,
        Err(_) => println!("left in {}", dir.display()),
    }
    result
}

fn ask(program: &Path, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg("--data").arg(dir.join("data"));
    command
}

/// What a question to the hub's command answers.
fn answer(program: &Path, dir: &Path, args: &[&str]) -> anyhow::Result<String> {
    let out = ask(program, dir).args(args).output()?;
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    anyhow::ensure!(out.status.success(), "{args:?}: {said}");
    Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned())
}

fn run(
    program: &Path,
    dir: &Path,
    hub: &Child,
    (hosts, events, seconds): (usize, usize, u64),
) -> anyhow::Result<()> {
    for _ in 0..600 {
        let log = std::fs::read_to_string(dir.join("hub.log")).unwrap_or_default();
        if log.contains("the hub is ready") {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let mut clients = Vec::with_capacity(hosts);
    for host in 0..hosts {
        let line = answer(program, dir, &["enroll", &format!("host{host}"), "--address", HUB])?;
        let join = Join::decode(&line)?;
        clients
            .push((host, HubClient::new(&join, Timeouts::default()).map_err(anyhow::Error::msg)?));
    }
    println!("{hosts} hosts enrolled");
    let (sent, again, slowest) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let totals = Arc::new((sent, again, slowest));
    let busy = cpu(hub.id())?;
    let clock = SystemClock;
    let start = clock.mono();
    let mut workers = Vec::new();
    while !clients.is_empty() {
        let rest = clients.split_off(clients.len().saturating_sub(hosts.div_ceil(WORKERS)));
        let totals = Arc::clone(&totals);
        workers.push(std::thread::spawn(move || play(&rest, events, seconds, &totals)));
    }
    for worker in workers {
        worker.join().map_err(|_| anyhow::anyhow!("a worker panicked"))??;
    }
    let took = clock.mono().since(start);
    let (sent, again, slowest) = &*totals;
    let sent = sent.load(Ordering::SeqCst);
    let stored =
        answer(program, dir, &["sql", "--json", "SELECT count(*) AS n FROM process_conns"])?;
    let status = std::fs::read_to_string(format!("/proc/{}/status", hub.id()))?;
    let memory = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).map_or("?", str::trim);
    println!(
        "{sent} events in {:.1} s ({:.0} a second), stored {stored}; {} batches sent again, \
         slowest acknowledgement {} ms; hub: CPU {:.0} % of a core, at most {memory}",
        took.as_secs_f64(),
        sent as f64 / took.as_secs_f64(),
        again.load(Ordering::SeqCst),
        slowest.load(Ordering::SeqCst),
        100.0 * cpu(hub.id())?.saturating_sub(busy).as_secs_f64() / took.as_secs_f64(),
    );
    anyhow::ensure!(stored.contains(&format!(":{sent}")), "some are lost");
    Ok(())
}

fn play(
    hosts: &[(usize, HubClient)],
    events: usize,
    seconds: u64,
    (sent, again, slowest): &(AtomicU64, AtomicU64, AtomicU64),
) -> anyhow::Result<()> {
    let clock = SystemClock;
    let start = clock.mono();
    for second in 0..seconds {
        for (host, client) in hosts {
            let first_seq = second * events as u64 + 1;
            let batch = Batch {
                epoch: 7,
                first_seq,
                events: (0..events)
                    .map(|n| event(*host, first_seq + n as u64, clock.wall()))
                    .collect(),
                health: Health::default(),
                sent: clock.wall(),
            };
            let body = wire::encode_batch(&batch)?;
            let begun = clock.mono();
            let mut tries = 0;
            while let Err(refusal) = client.ingest(&body) {
                if tries == 0 && again.load(Ordering::SeqCst) == 0 {
                    println!("sent again, since: {refusal}");
                }
                tries += 1;
                again.fetch_add(1, Ordering::SeqCst);
                anyhow::ensure!(tries < TRIES, "host{host}: {refusal}");
                std::thread::sleep(Duration::from_millis(200));
            }
            let ms = u64::try_from(clock.mono().since(begun).as_millis())?;
            slowest.fetch_max(ms, Ordering::SeqCst);
            sent.fetch_add(events as u64, Ordering::SeqCst);
        }
        let next = start.plus(Duration::from_secs(second + 1));
        std::thread::sleep(next.since(clock.mono()));
    }
    Ok(())
}

/// The `n`th connection of a host, different from all others.
fn event(host: usize, n: u64, now: Timestamp) -> Vec<u8> {
    let port = 32_768 + u16::try_from(n % 28_000).unwrap_or(0);
    let local = format!("10.{}.{}.2", host / 250, host % 250).parse();
    let remote = format!("203.0.113.{}", n % 250).parse();
    let any = std::net::IpAddr::from([192, 0, 2, 1]);
    wire::encode_event(&Event {
        time: now,
        body: Body::Connection(Box::new(Connection {
            id: n << 16 | host as u64,
            phase: FlowPhase::End,
            process: Some(n % 50),
            pid: 100 + (n % 50) as u32,
            name: Some("curl".into()),
            proto: 6,
            local: Endpoint::new(local.unwrap_or(any), port),
            remote: Endpoint::new(remote.unwrap_or(any), 443),
            direction: Direction::Out,
            start: Some(now),
            duration_ms: Some(50),
            volume: None,
            user: Some("root".into()),
            container: None,
            how: "kernel".into(),
            resolved: None,
        })),
    })
}

/// CPU time of all threads.
fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let mut ns = 0u64;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        ns += text.split(' ').next().unwrap_or_default().parse::<u64>()?;
    }
    Ok(Duration::from_nanos(ns))
}
