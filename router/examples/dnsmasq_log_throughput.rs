//! `cargo run --release -p agentmon-router --example dnsmasq_log_throughput [LINES] [SEED]`
//!
//! How many lines of a dnsmasq log one core reads: parsed and joined to exchanges; the
//! same through the file follower; and with tier 0 over a block list of a million domains.
//! The log is made up, the same for the same seed: a home's mix of cached, forwarded (with
//! aliases), blocked and reverse questions, with and without `log-queries=extra`.

#![allow(clippy::print_stdout, reason = "its figures are its purpose")]

use std::fmt::Write as _;
use std::time::Duration;

use agentmon_core::Event;
use agentmon_core::tier0::{Engine, Found, Tier0Config};
use agentmon_core::time::Timestamp;
use agentmon_router::collect::dnsmasq_log::Reader;
use agentmon_router::localtime::Zone;
use agentmon_router::tail::{Follower, Step};

/// 2026-11-23 14:00 UTC
const NOW: Timestamp = Timestamp::from_secs(1_795_442_400);
const DOMAINS: usize = 1_000_000;

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % n
    }
}

/// A log of about `lines` lines.
fn make_log(lines: usize, extra: bool, random: &mut Random) -> String {
    let mut log = String::with_capacity(lines * 100);
    let (mut made, mut serial) = (0, 0);
    while made < lines {
        serial += 1;
        let second = made / 200;
        let client = format!("192.168.1.{}", 10 + random.below(75));
        let stamp = format!(
            "Nov 23 {:02}:{:02}:{:02} dnsmasq[1234]: ",
            second / 3_600 % 24,
            second / 60 % 60,
            second % 60
        );
        let id = match extra {
            true => format!("{serial} {client}/{} ", 1_024 + random.below(64_000)),
            false => String::new(),
        };
        let host =
            ["www", "api", "cdn-7f3a", "edge", "telemetry.eu-west-1"][random.below(5) as usize];
        let name = format!("{host}.site{}.example{}.com", random.below(400), random.below(3_000));
        let ip = format!("203.0.113.{}", random.below(255));
        let mut line = |text: String| {
            made += 1;
            writeln!(log, "{stamp}{id}{text}").expect("writing to a string");
        };
        let kind = random.below(10);
        let qtype = ["A", "A", "AAAA", "HTTPS"][random.below(4) as usize];
        line(format!("query[{qtype}] {name} from {client}"));
        match kind {
            0..=3 => line(format!("cached {name} is {ip}")),
            4 | 5 => line(format!("gravity blocked {name} is 0.0.0.0")),
            6 => {
                line(format!("forwarded {name} to 127.0.0.1#5335"));
                line(format!("reply {name} is NODATA"));
            }
            _ => {
                line(format!("forwarded {name} to 127.0.0.1#5335"));
                line(format!("reply {name} is <CNAME>"));
                line(format!("reply {name}.cdn.example.net is <CNAME>"));
                line(format!("reply e{kind}.edge.example.net is {ip}"));
                line(format!("reply e{kind}.edge.example.net is 203.0.113.7"));
            }
        }
    }
    log
}

/// Time this thread has spent on a processor: what else the machine does costs nothing.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("this is Linux");
    let ns = text.split(' ').next().and_then(|ns| ns.parse().ok());
    Duration::from_nanos(ns.expect("its first number is the time in nanoseconds"))
}

/// Runs `work` three times; prints the best.
fn measure(what: &str, lines: usize, mut work: impl FnMut() -> usize) {
    let mut best = Duration::MAX;
    let mut events = 0;
    for _ in 0..3 {
        let start = cpu_time();
        events = work();
        best = best.min(cpu_time().saturating_sub(start));
    }
    let ns = best.as_nanos() as f64 / lines as f64;
    println!("{what:34} {:9.0} lines/s {ns:7.0} ns/line  {events} events", 1e9 / ns);
}

fn read(log: &[u8], mut with: impl FnMut(&mut Vec<Event>)) -> usize {
    let mut reader = Reader::new(Zone::utc());
    let (mut out, mut events) = (Vec::new(), 0);
    for line in log.split(|b| *b == b'\n') {
        reader.line(line, NOW, &mut out);
        if out.len() > 500 {
            events += out.len();
            with(&mut out);
            out.clear();
        }
    }
    reader.finish(&mut out);
    events + out.len()
}

fn follow(path: &std::path::Path) -> usize {
    let mut follower = Follower::new(path, true);
    let mut reader = Reader::new(Zone::utc());
    let (mut out, mut events) = (Vec::new(), 0);
    loop {
        match follower.step().expect("the file was just written") {
            Step::Line(line) => reader.line(line, NOW, &mut out),
            Step::Idle => break,
            Step::Loss(loss) => panic!("{loss:?}"),
        }
        if out.len() > 500 {
            events += out.len();
            out.clear();
        }
    }
    reader.finish(&mut out);
    events + out.len()
}

fn main() {
    let mut args = std::env::args().skip(1).filter_map(|a| a.parse::<u64>().ok());
    let lines = usize::try_from(args.next().unwrap_or(1_000_000)).expect("a number of lines");
    let seed = args.next().unwrap_or(7) | 1;
    let mut list = String::new();
    for i in 0..DOMAINS {
        writeln!(list, "ads{i}.tracker{}.example", i % 7_919).expect("writing to a string");
    }
    let config = Tier0Config::default();
    let mut builder = config.blocklist.builder();
    builder.list("made-up", 0.9, list.as_bytes());
    let mut engine = Engine::new(&config, builder.build());
    for extra in [false, true] {
        let log = make_log(lines, extra, &mut Random(seed));
        let lines = log.bytes().filter(|b| *b == b'\n').count();
        let form = if extra { "extra" } else { "plain" };
        measure(&format!("{form}: parse and join"), lines, || read(log.as_bytes(), |_| {}));
        let file = std::env::temp_dir().join(format!("agentmon-throughput-{}", std::process::id()));
        std::fs::write(&file, &log).expect("the temporary folder is writable");
        measure(&format!("{form}: follow, parse and join"), lines, || follow(&file));
        std::fs::remove_file(&file).expect("it was just written");
        measure(&format!("{form}: parse, join and tier 0"), lines, || {
            let mut found: Vec<Found> = Vec::new();
            read(log.as_bytes(), |events| {
                events.iter_mut().for_each(|event| engine.on_event(event, &mut found));
                found.clear();
            })
        });
    }
}
