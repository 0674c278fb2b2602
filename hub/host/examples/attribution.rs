//! How many short connections get their process, beside polling in the same run.
//!
//! `cargo run --release -p agentmon-host --example attribution [CONNECTIONS]`
//!
//! Four watches at once: as shipped (eBPF), without that
//! (the kernel tells of processes and ends), and two that only look, every second and every 100 ms. Three kinds of traffic on the loopback: curl,
//! one process per connection, answered at once and after 50 ms; and connections of 50 ms
//! inside one process that goes on. Prints, for each, how many connections have the right
//! process, and the CPU time each watch took.

#![allow(clippy::print_stdout, reason = "a measuring program's output")]

use std::collections::{HashMap, HashSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use agentmon_core::event::{Body, Direction};
use agentmon_core::time::{Clock, SystemClock};
use agentmon_host::config::Collect;
use agentmon_host::watch::Watch;

/// Owner and how it was found, by the client's port.
type Found = HashMap<u16, (u32, String)>;

fn main() -> anyhow::Result<()> {
    let connections: usize = std::env::args().nth(1).map_or(Ok(150), |n| n.parse())?;
    for (kind, hold) in [("curl", 0), ("curl", 50), ("one process", 50)] {
        let server = TcpListener::bind("127.0.0.1:0")?;
        let to = server.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let watches =
            [(true, true, 1_000), (true, false, 1_000), (false, false, 1_000), (false, false, 100)]
                .map(|(events, ebpf, scan_ms)| {
                    let collect = Collect { scan_ms, events, ebpf, loopback: true };
                    let open = Arc::new(AtomicBool::new(false));
                    (watch(collect, to, Arc::clone(&stop), Arc::clone(&open)), open)
                });
        // To open one takes a second or more.
        while watches.iter().any(|(_, open)| !open.load(Ordering::SeqCst)) {
            std::thread::sleep(Duration::from_millis(50));
        }
        std::thread::sleep(Duration::from_secs(1));
        std::thread::spawn(move || serve(&server, Duration::from_millis(hold)));
        let clock = SystemClock;
        let start = clock.mono();
        let truth = traffic(kind, connections, to)?;
        let took = clock.mono().since(start);
        std::thread::sleep(Duration::from_secs(3));
        stop.store(true, Ordering::SeqCst);
        println!(
            "{kind}, held {hold} ms: {} connections, {:.0} ms each",
            truth.len(),
            took.as_secs_f64() * 1e3 / truth.len().max(1) as f64
        );
        for (name, (watch, _)) in
            ["shipped", "without eBPF", "looking, 1 s", "looking, 100 ms"].iter().zip(watches)
        {
            let (found, cpu, ran) =
                watch.join().map_err(|_| anyhow::anyhow!("a watch panicked"))??;
            tell(name, &truth, &found, cpu, ran);
        }
    }
    Ok(())
}

fn tell(name: &str, truth: &HashMap<u16, u32>, found: &Found, cpu: Duration, ran: Duration) {
    let is =
        |port: &u16, pid: &u32| found.get(port).is_some_and(|(p, how)| p == pid && how != "likely");
    let right = truth.iter().filter(|(port, pid)| is(port, pid)).count();
    let likely =
        |port: &u16, pid: &u32| found.get(port).is_some_and(|(p, how)| p == pid && how == "likely");
    let guessed = truth.iter().filter(|(port, pid)| likely(port, pid)).count();
    let wrong = truth
        .iter()
        .filter(|(port, pid)| found.get(port).is_some_and(|(p, _)| *p != 0 && p != *pid))
        .count();
    println!(
        "  {name:<16} right {:.1} % ({right}), likely and right {guessed}, wrong {wrong}, told {}; CPU {:.2} %",
        100.0 * right as f64 / truth.len().max(1) as f64,
        truth.keys().filter(|port| found.contains_key(port)).count(),
        100.0 * cpu.as_secs_f64() / ran.as_secs_f64(),
    );
}

fn serve(server: &TcpListener, hold: Duration) {
    for stream in server.incoming().flatten() {
        std::thread::spawn(move || {
            let mut stream = stream;
            let mut request = [0; 1_024];
            let asked = stream.read(&mut request);
            std::thread::sleep(hold);
            let answered = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n");
            drop((asked, answered));
        });
    }
}

/// Makes the connections; who made each, by its port.
fn traffic(kind: &str, connections: usize, to: SocketAddr) -> anyhow::Result<HashMap<u16, u32>> {
    let mut truth = HashMap::new();
    for _ in 0..connections {
        if kind == "curl" {
            let child = Command::new("curl")
                .args(["-s", "-o", "/dev/null", "-w", "%{local_port}", &format!("http://{to}/")])
                .stdout(Stdio::piped())
                .spawn()?;
            let pid = child.id();
            let said = child.wait_with_output()?;
            truth.insert(String::from_utf8_lossy(&said.stdout).parse()?, pid);
        } else {
            let mut stream = TcpStream::connect(to)?;
            truth.insert(stream.local_addr()?.port(), std::process::id());
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
            stream.read_to_end(&mut Vec::new())?;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(truth)
}

type Watched = JoinHandle<anyhow::Result<(Found, Duration, Duration)>>;

fn watch(
    collect: Collect,
    to: SocketAddr,
    stop: Arc<AtomicBool>,
    open: Arc<AtomicBool>,
) -> Watched {
    std::thread::spawn(move || {
        let opened = Watch::open(&collect, Arc::new(SystemClock));
        // Also one that could not be opened is not waited for.
        open.store(true, Ordering::SeqCst);
        let mut watch = opened?;
        let (mut found, mut seen) = (Found::new(), HashSet::new());
        let (clock, mut out) = (SystemClock, Vec::new());
        let (start, busy) = (clock.mono(), thread_cpu()?);
        while !stop.load(Ordering::SeqCst) {
            let pause = watch.step(&mut out)?;
            for event in out.drain(..) {
                let Body::Connection(c) = event.body else { continue };
                if c.direction == Direction::Out && c.remote.port == to.port() {
                    seen.insert(c.local.port);
                    let entry = found.entry(c.local.port).or_default();
                    if c.pid != 0 {
                        *entry = (c.pid, c.how);
                    }
                }
            }
            watch.wait(pause.min(Duration::from_millis(250)))?;
        }
        Ok((found, thread_cpu()?.saturating_sub(busy), clock.mono().since(start)))
    })
}

/// CPU time of the calling thread, by `/proc/thread-self/schedstat` (nanoseconds).
fn thread_cpu() -> anyhow::Result<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let ns = text.split(' ').next().unwrap_or_default().parse()?;
    Ok(Duration::from_nanos(ns))
}
