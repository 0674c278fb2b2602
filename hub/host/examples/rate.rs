//! What the agent costs: idle, and under a stream of short connections.
//!
//! `cargo run --release -p agentmon-host --example rate PROGRAM [RATE [SECONDS]]`
//!
//! Runs PROGRAM (`agentmon-host`) with a ring and without a hub, first beside nothing of this
//! program's own, then beside RATE connections a second to a server in this process, loopback
//! told: so each is two to the agent, one out and one in. Prints CPU time in percent of a core
//! (all threads, `/proc/PID/task/*/schedstat`), memory, and how many connections stand in the
//! ring with this process as owner. CPU time is the figure; whatever else runs on the machine
//! starts processes too, which the agent is told of.

#![allow(clippy::print_stdout, reason = "a measuring program's output")]

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

use agentmon_core::event::{Body, Direction, FlowPhase};
use agentmon_core::time::{Clock, SystemClock};
use agentmon_core::wire;
use agentmon_router::counters::Counters;
use agentmon_router::ring::{self, Ring};
use anyhow::Context as _;

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let program = args.next().context("which agentmon-host?")?;
    let rate: u32 = args.next().map_or(Ok(1_000), |n| n.parse())?;
    let seconds: u64 = args.next().map_or(Ok(10), |n| n.parse())?;
    let dir = std::env::temp_dir().join(format!("agentmon-rate-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let ring = dir.join("ring.db");
    let config = dir.join("host.toml");
    fs::write(
        &config,
        format!(
            "state_dir = {dir:?}\n[collect]\nloopback = true\n[ring]\npath = {ring:?}\n\
             bytes_max = 268435456\n[forward]\nenabled = false\n"
        ),
    )?;
    let mut agent = Command::new(program).arg("--config").arg(&config).arg("run").spawn()?;
    let measured = measure(&agent, rate, Duration::from_secs(seconds));
    // Asked to end: what waits is written first.
    Command::new("kill").arg(agent.id().to_string()).status()?;
    agent.wait()?;
    let (port, made) = measured?;
    let found = count(&ring, port)?;
    println!("in the ring: {} of {made} out, {} of {made} in, with their owner", found.0, found.1);
    fs::remove_dir_all(&dir)?;
    Ok(())
}

/// Port of the server, and connections made.
fn measure(agent: &Child, rate: u32, span: Duration) -> anyhow::Result<(u16, u64)> {
    std::thread::sleep(Duration::from_secs(5));
    let busy = cpu(agent.id())?;
    std::thread::sleep(span);
    tell("idle", cpu(agent.id())?.saturating_sub(busy), span, agent.id())?;

    let server = TcpListener::bind("127.0.0.1:0")?;
    let to = server.local_addr()?;
    std::thread::spawn(move || server.incoming().for_each(drop));
    let clock = SystemClock;
    let (busy, start) = (cpu(agent.id())?, clock.mono());
    let (mut made, mut failed) = (0u64, 0u64);
    while clock.mono().since(start) < span {
        let due = (clock.mono().since(start).as_secs_f64() * f64::from(rate)) as u64;
        while made + failed < due {
            match TcpStream::connect(to) {
                Ok(_) => made += 1,
                Err(_) => failed += 1,
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let took = clock.mono().since(start);
    std::thread::sleep(Duration::from_secs(2));
    let name = format!("{:.0} connections/s", made as f64 / took.as_secs_f64());
    tell(&name, cpu(agent.id())?.saturating_sub(busy), took, agent.id())?;
    anyhow::ensure!(failed == 0, "{failed} connections failed");
    Ok((to.port(), made))
}

fn tell(name: &str, busy: Duration, span: Duration, pid: u32) -> anyhow::Result<()> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        status.lines().find_map(|l| l.strip_prefix(name)).map_or("?", str::trim).to_owned()
    };
    println!(
        "{name:<20} CPU {:.3} % of a core; RSS {}, at most {}",
        100.0 * busy.as_secs_f64() / span.as_secs_f64(),
        field("VmRSS:"),
        field("VmHWM:"),
    );
    Ok(())
}

/// CPU time of all threads.
fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let mut ns = 0u64;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        ns += text.split(' ').next().unwrap_or_default().parse::<u64>()?;
    }
    Ok(Duration::from_nanos(ns))
}

/// Ended connections of this process to and from that port.
fn count(path: &Path, port: u16) -> anyhow::Result<(u64, u64)> {
    let config =
        ring::Config { path: path.to_owned(), bytes_max: 268_435_456, ..Default::default() };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let ring = Ring::open(&config, &Counters::default(), clock)?;
    let (mut out, mut inward) = (0, 0);
    while let Some(some) = ring.peek(10_000, 16 << 20)? {
        for event in &some.events {
            let Body::Connection(c) = wire::decode_event(event)?.body else { continue };
            if c.phase != FlowPhase::End || c.pid != std::process::id() {
                continue;
            }
            out += u64::from(c.direction == Direction::Out && c.remote.port == port);
            inward += u64::from(c.direction == Direction::In && c.local.port == port);
        }
        let last = some.first_seq + some.events.len() as u64 - 1;
        ring.ack(some.epoch, last)?;
    }
    Ok((out, inward))
}
