//! Connection tracking: what listening costs, and whether anything is lost.
//!
//! The same bursts go past our collector (default configuration), `conntrack -E` and
//! ulogd2, one after the other in one network namespace. CPU is what the kernel charges
//! the listening process, divided by the events it has told; every flow makes two events,
//! NEW and DESTROY. The expected number comes from the sender and from the kernel's own
//! statistics, never from a listener.

mod subject;

use std::io::{Read as _, Write as _};
use std::time::Duration;

use agentmon_core::event::{Body, FlowPhase};
use agentmon_router::collect::conntrack::{Config, Source};
use agentmon_router::collect::{Collector as _, Context, Outbox, State, Stop};
use agentmon_router::counters::Counters;
use anyhow::{Context as _, bail};

use crate::flood::Flood;
use crate::measure::{Cpu, Stopwatch, cpu, status_bytes};
use crate::report::{Figure, Goal, Peer, Report, talk};
use subject::{Kind, Seen, Subject};

/// The burst: as fast as one core sends.
const BURST_FLOWS: u32 = 1_000_000;
/// The calm stretch: what a busy office does.
const CALM_FLOWS: u32 = 20_000;
const CALM_PER_SECOND: u32 = 2_000;
/// One fifth of the peer's CPU per event.
const RATIO_MAX: f64 = 0.2;
/// Longest wait until all flows of a burst have ended.
const DRAIN_PATIENCE: Duration = Duration::from_secs(90);

/// What one listener did in one burst.
struct Outcome {
    seen: Seen,
    expected: u64,
    cpu: Cpu,
    rss_bytes: u64,
}

impl Outcome {
    fn us_per_event(&self) -> f64 {
        self.cpu.total() * 1e6 / self.seen.events.max(1) as f64
    }
    fn lost_percent(&self) -> f64 {
        let lost = self.expected.saturating_sub(self.seen.events);
        100.0 * lost as f64 / self.expected.max(1) as f64
    }
}

pub(crate) fn run(report: &mut Report) -> anyhow::Result<()> {
    let mut flood = Flood::new()?;
    let loads = [("burst of 1M flows", BURST_FLOWS, 0), ("calm", CALM_FLOWS, CALM_PER_SECOND)];
    for (load, flows, per_second) in loads {
        let mut measured = |kind: Kind| {
            talk(&format!("conntrack: {load}: {}", kind.name()));
            // A folder for each run: nobody counts the lines of an earlier one.
            let folder = tempfile::tempdir()?;
            measure(kind, &mut flood, flows, per_second, folder.path())
        };
        let ours = measured(Kind::Collector)?;
        let mut peers = Vec::new();
        for kind in [Kind::Conntrack, Kind::Ulogd] {
            peers.push((
                kind,
                kind.missing().map_or_else(|| measured(kind).map(Ok), |why| Ok(Err(why)))?,
            ));
        }
        tell(report, load, &ours, &peers, per_second == 0)?;
    }
    Ok(())
}

/// The figures of one load. Goals are set for the burst.
fn tell(
    report: &mut Report,
    load: &str,
    ours: &Outcome,
    peers: &[(Kind, Result<Outcome, String>)],
    goals: bool,
) -> anyhow::Result<()> {
    let lost = ours.expected.saturating_sub(ours.seen.events);
    let mut lost = Figure::new(&format!("{load}: events lost"), lost as f64, "events");
    let mut enobufs = Figure::new(&format!("{load}: ENOBUFS"), ours.seen.enobufs as f64, "times");
    if goals {
        lost = lost.goal(Goal::AtMost(0.0));
        enobufs = enobufs.goal(Goal::AtMost(0.0));
    }
    report.add(lost)?;
    report.add(enobufs)?;
    type Value = (&'static str, &'static str, fn(&Outcome) -> f64, bool);
    const VALUES: [Value; 3] = [
        ("CPU per event", "us", Outcome::us_per_event, true),
        ("events lost", "%", Outcome::lost_percent, false),
        ("memory", "MB", |o| o.rss_bytes as f64 / 1e6, false),
    ];
    for (what, unit, value, has_goal) in VALUES {
        for (kind, outcome) in peers {
            let peer = match outcome {
                Ok(theirs) => Peer::measured(kind.name(), value(theirs)),
                Err(why) => Peer::missing(kind.name(), why),
            };
            let mut figure = Figure::new(&format!("{load}: {what}"), value(ours), unit).peer(peer);
            if goals && has_goal {
                figure = figure.goal(Goal::RatioAtMost(RATIO_MAX));
            }
            report.add(figure)?;
        }
    }
    Ok(())
}

/// One listener, one load: start, send, wait until every flow has ended, ask.
fn measure(
    kind: Kind,
    flood: &mut Flood,
    flows: u32,
    per_second: u32,
    folder: &std::path::Path,
) -> anyhow::Result<Outcome> {
    let subject = Subject::start(kind, folder)?;
    let before = cpu(subject.pid())?;
    let made_before = Made::read()?;
    let watch = Stopwatch::start();
    let sent = flood.send(flows, per_second)?;
    let rate = f64::from(sent) / watch.elapsed().as_secs_f64();
    talk(&format!("conntrack: {sent} flows made, {rate:.0} a second"));
    drain()?;
    settle(subject.pid())?;
    let used = cpu(subject.pid())?.since(before);
    let rss_bytes = status_bytes(subject.pid(), "VmHWM")?;
    let lost_before = made_before.lost_since()?;
    if lost_before > 0 {
        talk(&format!("conntrack: the kernel itself dropped {lost_before} packets"));
    }
    let expected = 2 * u64::from(sent).saturating_sub(lost_before);
    Ok(Outcome { seen: subject.finish()?, expected, cpu: used, rss_bytes })
}

/// What the kernel's connection tracking dropped before it became a flow.
struct Made {
    dropped: u64,
}

impl Made {
    /// `/proc/net/stat/nf_conntrack`: names in the first line, a line of hexadecimal
    /// numbers for each CPU.
    fn read() -> anyhow::Result<Self> {
        let path = "/proc/net/stat/nf_conntrack";
        let text = std::fs::read_to_string(path).context(path)?;
        let mut lines = text.lines().map(|l| l.split_ascii_whitespace().collect::<Vec<_>>());
        let names = lines.next().unwrap_or_default();
        let mut dropped = 0;
        let rows: Vec<Vec<&str>> = lines.collect();
        for wanted in ["drop", "insert_failed"] {
            let column = names
                .iter()
                .position(|n| *n == wanted)
                .with_context(|| format!("{path} has no {wanted}"))?;
            for row in &rows {
                let value = row.get(column).and_then(|v| u64::from_str_radix(v, 16).ok());
                dropped += value.with_context(|| format!("{path}: {text}"))?;
            }
        }
        Ok(Self { dropped })
    }
    fn lost_since(&self) -> anyhow::Result<u64> {
        Ok(Self::read()?.dropped.saturating_sub(self.dropped))
    }
}

/// Waits until the table is empty. The kernel's own collector ends expired flows, a few
/// tens of thousands a second once it looks, which is at the latest after a minute; a
/// listener that dumps the table ends them earlier, all at once.
fn drain() -> anyhow::Result<()> {
    let watch = Stopwatch::start();
    loop {
        let count = std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count")?;
        if count.trim() == "0" {
            talk(&format!(
                "conntrack: all flows over after {:.1} s",
                watch.elapsed().as_secs_f64()
            ));
            return Ok(());
        }
        if watch.elapsed() > DRAIN_PATIENCE {
            bail!("{} flows do not end", count.trim());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Waits until a listener has worked off what had piled up for it.
fn settle(pid: u32) -> anyhow::Result<()> {
    let watch = Stopwatch::start();
    let mut before = cpu(pid)?.total();
    loop {
        std::thread::sleep(Duration::from_millis(500));
        let now = cpu(pid)?.total();
        // One clock tick is noise.
        if now - before < 0.015 || watch.elapsed() > DRAIN_PATIENCE {
            return Ok(());
        }
        before = now;
    }
}

/// What this program does as a part of the benchmark, in a process of its own.
pub(crate) fn role(role: &[&str]) -> anyhow::Result<()> {
    match role {
        ["collector"] => collect(),
        // For a profiler: the load alone, inside a namespace of one's own.
        ["flood", count, per_second] => {
            crate::world::prepare()?;
            Flood::new()?.send(count.parse()?, per_second.parse()?)?;
            drain()
        }
        _ => bail!("no role {role:?}"),
    }
}

/// The collector alone, until standard input ends.
fn collect() -> anyhow::Result<()> {
    let (outbox, deliveries) = Outbox::channel();
    let stop = Stop::default();
    let counters = Counters::default();
    let context = Context {
        outbox,
        stop: stop.clone(),
        clock: std::sync::Arc::new(agentmon_core::time::SystemClock),
        counters: counters.clone(),
        state: State::default(),
    };
    let collector = std::thread::spawn(move || Source::new(Config::default()).run(&context));
    let stopper = std::thread::spawn(move || {
        // Data or the end, both mean: enough.
        drop(std::io::stdin().read(&mut [0]));
        stop.stop();
    });
    let mut seen = Seen::default();
    for delivery in deliveries {
        for event in delivery.events {
            if let Body::Flow(flow) = event.body {
                seen.events += u64::from(flow.phase != FlowPhase::Update);
            }
        }
    }
    let result = collector.join().map_err(|_| anyhow::anyhow!("the collector panicked"))?;
    result?;
    drop(stopper.join());
    for (name, value) in counters.snapshot() {
        if name == "conntrack.enobufs" {
            seen.enobufs = value;
        }
        talk(&format!("collector: {name} {value}"));
    }
    writeln!(std::io::stdout(), "{}", serde_json::to_string(&seen)?)?;
    Ok(())
}
