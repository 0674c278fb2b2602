//! Measures ingest: flows of a made-up home, sent by real HTTPS clients to a hub of this
//! process until they are committed. Prints events per second of wall and of CPU time,
//! and bytes per row on disk.
//!
//! `cargo run --release -p agentmon-hub --example ingest -- [EVENTS] [SENSORS] [BATCH]`
#![allow(clippy::print_stdout, reason = "a program for people")]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use agentmon_core::event::{Body, Endpoint, Flow, FlowPhase, Mac, Resolved, TcpState, Volume};
use agentmon_core::time::{Clock, SystemClock};
use agentmon_core::wire::{self, Batch, Health};
use agentmon_core::{Event, Timestamp};
use agentmon_hub::config::{Config, Place};
use agentmon_hub::serve::Hub;
use agentmon_router::forward::client::{HubClient, Timeouts};
use agentmon_router::join::Join;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

struct Server {
    ip: IpAddr,
    name: String,
    port: u16,
    proto: u8,
}

/// A home: 40 devices, 3,000 servers of which few get most connections, a fifth of the
/// flows DNS to the router itself.
struct Home {
    rng: SmallRng,
    servers: Vec<Server>,
    now: Timestamp,
}

impl Home {
    fn new(seed: u64, start: Timestamp) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let servers = (0..3_000)
            .map(|n| {
                let quic = rng.random_bool(0.3);
                Server {
                    ip: IpAddr::V4(Ipv4Addr::from(rng.random_range(0x1000_0000..0xd000_0000u32))),
                    name: format!(
                        "{}.site-{}.example",
                        ["www", "api", "cdn", "static", "img", "edge-7f3a"][n % 6],
                        n / 3
                    ),
                    port: if rng.random_bool(0.9) { 443 } else { rng.random_range(1..10_000) },
                    proto: if quic { 17 } else { 6 },
                }
            })
            .collect();
        Self { rng, servers, now: start }
    }

    /// Log-normal: exp of a normal of that middle and width.
    fn spread(&mut self, middle: f64, width: f64) -> f64 {
        let (a, b): (f64, f64) = (self.rng.random_range(1e-9..1.0), self.rng.random());
        let normal = (-2.0 * a.ln()).sqrt() * (b * std::f64::consts::TAU).cos();
        (middle.ln() + normal * width).exp()
    }

    fn flow(&mut self) -> Event {
        // 20 flows a second end in a busy home.
        let gap = self.spread(0.03, 1.0).min(10.0);
        self.now = self.now.plus(Duration::from_secs_f64(gap));
        let device = self.rng.random_range(0..40u8);
        let src = IpAddr::V4(Ipv4Addr::new(192, 168, 1, 10 + device));
        let sport = self.rng.random_range(32_768..61_000u16);
        let dns = self.rng.random_bool(0.2);
        let pick =
            (self.spread(30.0, 2.0) as usize + usize::from(device) * 37) % self.servers.len();
        let bytes_out =
            self.spread(if dns { 70.0 } else { 2_500.0 }, if dns { 0.2 } else { 1.5 }) as u64 + 40;
        let bytes_in =
            self.spread(if dns { 150.0 } else { 9_000.0 }, if dns { 0.5 } else { 2.0 }) as u64 + 40;
        let duration = self.spread(if dns { 0.02 } else { 8.0 }, 1.5);
        let (dst, port, proto, name) = if dns {
            (IpAddr::V4(Ipv4Addr::new(192, 168, 1, 1)), 53, 17, None)
        } else {
            let s = &self.servers[pick];
            (s.ip, s.port, s.proto, Some(s.name.parse().expect("made above")))
        };
        let idle = if proto == 17 { 30.0 } else { 120.0 };
        let whole = Duration::from_secs_f64(duration + idle + self.rng.random_range(0.0..1.0));
        let nat = (!dns).then(|| Endpoint::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7)), sport));
        let age =
            (self.spread(80.0, 2.0) * if self.rng.random_bool(0.6) { 1.0 } else { 500.0 }) as u64;
        let body = Body::Flow(Flow {
            id: self.rng.random(),
            phase: FlowPhase::End,
            proto,
            src: Endpoint::new(src, sport),
            dst: Endpoint::new(dst, port),
            nat_src: nat,
            nat_dst: None,
            start: Some(self.now.minus(whole)),
            duration_ms: Some((duration * 1e3) as u64),
            volume: Some(Volume {
                bytes_out,
                bytes_in,
                packets_out: bytes_out / 300 + 1,
                packets_in: bytes_in / 1_100 + 1,
            }),
            tcp_state: (proto == 6).then_some(if self.rng.random_bool(0.9) {
                TcpState::TimeWait
            } else {
                TcpState::Close
            }),
            replied: self.rng.random_bool(0.98),
            offloaded: false,
            iface: Some("br-lan".into()),
            mac: Some(Mac([0, 0, 0x5e, 0, 0x53, device])),
            resolved: name.map(|name| Resolved { name, age_ms: age }),
        });
        Event { time: self.now, body }
    }
}

/// User and system seconds of this process.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("proc is mounted");
    let fields: Vec<f64> = stat
        .rsplit_once(')')
        .expect("a name in brackets")
        .1
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|n| n.parse().expect("ticks"))
        .collect();
    (fields[0] + fields[1]) / 100.0
}

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1).map(|a| a.parse::<u64>());
    let mut next = |default| args.next().transpose().map(|n| n.unwrap_or(default));
    let (events, sensors, size) = (next(1_000_000)?, next(1)?, next(5_000)?);
    let dir = tempfile::tempdir()?;
    let mut config = Config::default();
    config.server.listen = "127.0.0.1:0".parse()?;
    let place = Place { data_dir: dir.path().to_owned(), config_file: None };
    let hub = Hub::start(config, place, Arc::new(SystemClock), None)?;
    let now = SystemClock.wall();
    let mut work = Vec::new();
    for sensor in 0..sensors {
        let join = Join::decode(&hub.enroll(&format!("s{sensor}"), None)?)?;
        let count = events / sensors / size;
        let mut home = Home::new(sensor, now.minus(Duration::from_secs(events / sensors / 20)));
        let batches: Vec<Vec<Vec<u8>>> = (0..count)
            .map(|_| (0..size).map(|_| wire::encode_event(&home.flow())).collect())
            .collect();
        work.push((join, batches));
    }
    let (cpu0, wall0) = (cpu(), SystemClock.mono());
    let threads: Vec<_> = work
        .into_iter()
        .map(|(join, batches)| {
            std::thread::spawn(move || {
                let client = HubClient::new(&join, Timeouts::default()).expect("a good CA");
                let mut bytes = 0;
                for (n, events) in (0..).zip(batches) {
                    let batch = Batch {
                        epoch: 1,
                        first_seq: 1 + n * size,
                        events,
                        health: Health::default(),
                        sent: SystemClock.wall(),
                    };
                    let body = wire::encode_batch(&batch).expect("within bounds");
                    bytes += body.len();
                    while let Err(refusal) = client.ingest(&body) {
                        println!("{refusal}");
                        std::thread::sleep(Duration::from_millis(100));
                    }
                }
                bytes
            })
        })
        .collect();
    let sent: usize = threads.into_iter().map(|t| t.join().expect("no panic")).sum();
    let (cpu1, wall1) = (cpu(), SystemClock.mono());
    let n = (events / sensors / size * size * sensors) as f64;
    let wall = wall1.since(wall0).as_secs_f64();
    println!(
        "{n} flows, {sensors} sensors, batches of {size}: {:.0}/s wall ({wall:.1} s), {:.2} µs CPU each = {:.0}/s on 2 full cores, {:.1} bytes each on the wire",
        n / wall,
        (cpu1 - cpu0) / n * 1e6,
        2.0 * n / (cpu1 - cpu0),
        sent as f64 / n
    );
    let peak = std::fs::read_to_string("/proc/self/status")?;
    println!("{}", peak.lines().find(|l| l.starts_with("VmHWM")).unwrap_or_default());
    hub.stop()?;
    if let Ok(keep) = std::env::var("KEEP") {
        std::fs::copy(dir.path().join("hub.duckdb"), keep)?;
    }
    let file = std::fs::metadata(dir.path().join("hub.duckdb"))?.len();
    println!(
        "{:.1} bytes on disk each ({file}), stop {:.1} s",
        file as f64 / n,
        SystemClock.mono().since(wall1).as_secs_f64()
    );
    let connection =
        agentmon_hub::store::open_read(dir.path(), &agentmon_hub::store::Limits::default())?;
    let used: i64 = connection.query_row(
        "SELECT used_blocks * block_size FROM pragma_database_size()",
        [],
        |r| r.get(0),
    )?;
    println!("{:.1} bytes in use each; the rest is free for later rows", used as f64 / n);
    let mut statement = connection.prepare("SELECT column_name, string_agg(DISTINCT compression, ','), count(DISTINCT block_id) AS blocks, count(*) FROM pragma_storage_info('flows_done') WHERE segment_type != 'VALIDITY' GROUP BY ALL ORDER BY blocks DESC")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        println!(
            "{:12} {:30} {:5} blocks {:5} segments",
            row.get::<_, String>(0)?,
            row.get::<_, String>(1)?,
            row.get::<_, i64>(2)?,
            row.get::<_, i64>(3)?
        );
    }
    Ok(())
}
