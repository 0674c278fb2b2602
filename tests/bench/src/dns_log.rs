//! The DNS log: from lines in a file to tier-0's verdict, and what a verdict takes.
//!
//! The real collector reads a log from its beginning and delivers to the tier-0 engine
//! with a block list of a million names. "Of one core" is by CPU time of the whole process,
//! reading the file included, so that it does not depend on who else uses the machine.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use agentmon_core::event::Event;
use agentmon_core::tier0::blocklist::{Blocklist, Builder};
use agentmon_core::tier0::{Engine, Tier0Config};
use agentmon_core::time::{Clock as _, SystemClock};
use agentmon_router::collect::dnsmasq_log::{Config, Source};
use agentmon_router::collect::{Collector as _, Context, Delivery, Outbox, State, Stop};
use agentmon_router::counters::Counters;
use anyhow::ensure;

use crate::measure::{cpu, quantile_us, tool};
use crate::report::{Figure, Goal, Peer, Report, talk};
use crate::synthetic::{Home, block_list};

const LINES: u64 = 3_000_000;
const BLOCKED_NAMES: usize = 1_000_000;
/// One in so many of the names that are asked for stands on the list.
const BLOCKED_EVERY: usize = 20;
/// Verdicts timed one by one.
const VERDICTS: usize = 300_000;

pub(crate) fn run(report: &mut Report) -> anyhow::Result<()> {
    let folder = crate::world::scratch()?;
    let log = folder.path().join("pihole.log");
    let mut home = Home::new(1);
    let blocked = list(&home)?;
    talk(&format!("dns-log: {} names in {} KB", blocked.len(), blocked.size_bytes() / 1_000));
    let lines = write_log(&mut home, &log)?;

    let counters = Counters::default();
    let (seconds, sample) =
        read(&log, lines, Engine::new(&Tier0Config::default(), blocked), &counters)?;
    for (name, value) in counters.snapshot().iter().filter(|(_, value)| **value > 0) {
        talk(&format!("dns-log: {name} {value}"));
    }
    let peer = match awk(&log)? {
        Some(seconds) => Peer::measured(AWK, lines as f64 / seconds),
        None => Peer::missing(AWK, "not installed (apt-get install mawk)"),
    };
    report.add(
        Figure::new("parse, join, normalise, tier-0", lines as f64 / seconds, "lines/s of a core")
            .peer(peer)
            .goal(Goal::AtLeast(300_000.0)),
    )?;
    let mut times = verdicts(sample, Engine::new(&Tier0Config::default(), list(&home)?));
    for (what, part, goal) in
        [("p50", 0.5, None), ("p99", 0.99, Some(Goal::AtMost(5.0))), ("p99.9", 0.999, None)]
    {
        let mut figure =
            Figure::new(&format!("tier-0 verdict {what}"), quantile_us(&mut times, part), "us");
        figure.goal = goal;
        report.add(figure)?;
    }
    Ok(())
}

/// A yardstick that everybody knows: it only counts queries.
const AWK: &str = "awk counting queries";

fn list(home: &Home) -> anyhow::Result<Blocklist> {
    let mut builder = Builder::new(BLOCKED_NAMES);
    let report =
        builder.list("made-up", 0.9, block_list(home, BLOCKED_NAMES, BLOCKED_EVERY).as_bytes());
    ensure!(report.is_clean(), "the list is not clean: {report:?}");
    Ok(builder.build())
}

fn write_log(home: &mut Home, path: &Path) -> anyhow::Result<u64> {
    let mut file = std::fs::File::create(path)?;
    let mut lines = 0;
    let mut text = String::new();
    while lines < LINES {
        text.clear();
        for _ in 0..10_000 {
            lines += home.dns_log(&mut text);
        }
        file.write_all(text.as_bytes())?;
    }
    Ok(lines)
}

/// CPU seconds from the first line to the last verdict, and some of the events.
fn read(
    log: &Path,
    lines: u64,
    mut engine: Engine,
    counters: &Counters,
) -> anyhow::Result<(f64, Vec<Event>)> {
    let config = Config {
        enabled: true,
        paths: vec![log.to_owned()],
        timezone: "utc".to_owned().try_into()?,
        from_start: true,
        ..Config::default()
    };
    let mut source = Source::new(config);
    let (outbox, deliveries) = Outbox::channel();
    let stop = Stop::default();
    let context = Context {
        outbox,
        stop: stop.clone(),
        clock: Arc::new(SystemClock),
        counters: counters.clone(),
        state: State::default(),
    };
    let (me, read) = (std::process::id(), counters.counter("dnsmasq_log.lines"));
    let before = cpu(me)?;
    let collector = std::thread::spawn(move || source.run(&context));
    let sample = judge(&deliveries, &mut engine, || read.get() >= lines);
    let used = cpu(me)?.since(before).total();
    stop.stop();
    drop(deliveries);
    collector.join().map_err(|_| anyhow::anyhow!("the collector panicked"))??;
    ensure!(read.get() == lines, "{} of {lines} lines read", read.get());
    Ok((used, sample))
}

/// Tier-0 over everything that is delivered; keeps a sample of what it saw.
fn judge(
    deliveries: &Receiver<Delivery>,
    engine: &mut Engine,
    all_read: impl Fn() -> bool,
) -> Vec<Event> {
    let mut sample = Vec::with_capacity(VERDICTS);
    let mut found = Vec::new();
    while let Ok(delivery) = deliveries.recv() {
        let keep = VERDICTS - sample.len();
        sample.extend(delivery.events.iter().take(keep).cloned());
        for mut event in delivery.events {
            engine.on_event(&mut event, &mut found);
            found.clear();
        }
        // The last lines are delivered after they are counted: a few hundred of millions.
        if all_read() {
            break;
        }
    }
    sample
}

/// Each verdict's time in nanoseconds; the clock itself takes about 50 of them.
fn verdicts(events: Vec<Event>, mut engine: Engine) -> Vec<u64> {
    let clock = SystemClock;
    let mut found = Vec::new();
    let mut times = Vec::with_capacity(events.len());
    for mut event in events {
        let start = clock.mono();
        engine.on_event(&mut event, &mut found);
        times.push(clock.mono().nanos() - start.nanos());
        found.clear();
    }
    times
}

/// CPU seconds of awk over the same file; `None`: not installed.
fn awk(log: &Path) -> anyhow::Result<Option<f64>> {
    let Some(awk) = tool("awk") else { return Ok(None) };
    let mut child = std::process::Command::new(awk)
        .arg("/ query\\[/ { n++ } END { exit n == 0 }")
        .arg(log)
        .spawn()?;
    let used = crate::measure::cpu_until_end(&child)?;
    ensure!(child.wait()?.success(), "awk found no queries");
    Ok(Some(used.total()))
}
