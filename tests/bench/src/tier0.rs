//! The whole of tier-0, every detector on: time for each event, memory, and what ten times
//! the load changes.
//!
//! The office of [`office`](crate::office): 500 devices, 100,000 different names an hour, a
//! list of a million. So that figures do not depend on who else uses the machine, single events
//! are timed in several rounds, of which the shortest time of each event counts (about 40 ns of
//! reading the clock included), and means are the thread's processor time. Memory is what the
//! process grows by while an empty engine sees an hour of events that are made one at a time;
//! the list is not part of it, a router maps it.
//!
//! The peer is what a resolver does for each question: Pi-hole asks an SQLite table of the
//! same names whether this one is on it.

use std::hint::black_box;

use agentmon_core::event::{Body, Event};
use agentmon_core::tier0::blocklist::{Blocklist, Builder};
use agentmon_core::tier0::rules::RULES;
use agentmon_core::tier0::{Engine, Tier0Config};
use agentmon_core::time::{Clock as _, SystemClock};
use anyhow::{Context as _, ensure};
use rusqlite::Connection;

use crate::measure::{quantile_us, status_bytes, thread_ns};
use crate::office::{EXCHANGES_AN_HOUR, LISTED, Office};
use crate::report::{Figure, Goal, Peer, Report, talk};

/// Events of each kind that are timed one by one, and over which a mean is taken.
const SAMPLE: u32 = 200_000;
/// Repetitions; the least is told.
const ROUNDS: usize = 3;

pub(crate) fn run(report: &mut Report) -> anyhow::Result<()> {
    memory(report)?;
    let lists = list()?;
    talk(&format!("tier0: {} names in {} KB", lists.len(), lists.size_bytes() / 1_000));
    single_events(report, lists.clone())?;
    load(report, lists)
}

pub(crate) fn list() -> anyhow::Result<Blocklist> {
    let mut builder = Builder::new(LISTED as usize);
    let report = builder.list("made-up", 0.9, Office::block_list().as_bytes());
    ensure!(report.is_clean(), "the list is not clean: {report:?}");
    Ok(builder.build())
}

/// Everything on, and nothing waits for the first minutes to pass.
fn config() -> Tier0Config {
    let mut config = Tier0Config::default();
    config.direct_ip.startup_grace_seconds = 0;
    config
}

fn resident() -> anyhow::Result<u64> {
    status_bytes(std::process::id(), "VmRSS")
}

/// An hour of an office in an engine, `load` times as busy: bytes the process has grown by
/// since it had `before`.
fn grown(load: u32, before: u64) -> anyhow::Result<u64> {
    let mut office = Office::new(1, load);
    let mut engine = Engine::new(&config(), Blocklist::default());
    let mut found = Vec::with_capacity(64);
    for mut event in office.devices() {
        engine.on_event(&mut event, &mut found);
    }
    for n in 0..EXCHANGES_AN_HOUR * load {
        let mut both = [office.dns(), office.flow()];
        for event in &mut both {
            engine.on_event(event, &mut found);
        }
        if n % 20 == 0 {
            engine.on_event(&mut office.packet(), &mut found);
        }
        if n % 60 == 0 {
            let [_, last] = &both;
            engine.on_tick(last.time, &mut found);
        }
        found.clear();
    }
    let grown = resident()?.saturating_sub(before);
    for (key, value) in engine.status().into_iter().filter(|(_, value)| *value > 0) {
        talk(&format!("tier0: load {load}: {key} {value}"));
    }
    Ok(grown)
}

fn memory(report: &mut Report) -> anyhow::Result<()> {
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let before = resident()?;
    let hour = grown(1, before)?;
    report.add(
        Figure::new("state, 500 devices, 100k names an hour", megabytes(hour), "MB")
            .goal(Goal::AtMost(16.0)),
    )?;
    // In the space the first one leaves behind.
    let busy = grown(10, before)?;
    report.add(Figure::new("state, ten times the load", megabytes(busy), "MB"))
}

/// Each event timed for itself, in the mix of a day.
fn single_events(report: &mut Report, lists: Blocklist) -> anyhow::Result<()> {
    let mut least = one_round(&lists);
    for _ in 1..ROUNDS {
        for (least, again) in least.iter_mut().zip(one_round(&lists)) {
            least.iter_mut().zip(again).for_each(|(least, again)| *least = again.min(*least));
        }
    }
    let goals = [Some(Goal::AtMost(10.0)), Some(Goal::AtMost(2.0)), None];
    for ((what, times), goal) in ["DNS event", "flow", "packet"].iter().zip(&mut least).zip(goals) {
        let mut at = |part| quantile_us(times, part);
        report.add(Figure::new(&format!("{what} p50"), at(0.5), "us"))?;
        report.add(Figure { goal, ..Figure::new(&format!("{what} p99"), at(0.99), "us") })?;
        report.add(Figure::new(&format!("{what} max"), at(1.0), "us"))?;
    }
    Ok(())
}

/// Nanoseconds of each DNS event, flow and packet, the same events in every round.
fn one_round(lists: &Blocklist) -> [Vec<u64>; 3] {
    let clock = SystemClock;
    let (mut office, mut found) = (Office::new(2, 1), Vec::with_capacity(64));
    let mut engine = Engine::new(&config(), lists.clone());
    let mut timed = |mut event: Event| {
        let start = clock.mono();
        engine.on_event(&mut event, &mut found);
        let took = clock.mono().nanos() - start.nanos();
        found.clear();
        took
    };
    let mut times: [Vec<u64>; 3] = Default::default();
    let [dns, flows, packets] = &mut times;
    for event in office.devices() {
        let _unmeasured = timed(event);
    }
    for n in 0..2 * SAMPLE {
        dns.push(timed(office.dns()));
        flows.push(timed(office.flow()));
        if n % 20 == 0 {
            packets.push(timed(office.packet()));
        }
        // The first half fills the memories.
        if n == SAMPLE {
            [&mut *dns, &mut *flows, &mut *packets].into_iter().for_each(Vec::clear);
        }
    }
    times
}

/// Mean processor time at the ordinary load, beside the peer; and at ten times of it.
fn load(report: &mut Report, lists: Blocklist) -> anyhow::Result<()> {
    let events = |load| sample(load, Kind::Dns);
    let (ordinary, busy) = (events(1), events(10));
    let one = mean_ns(&config(), &lists, &ordinary)?;
    let peer = Peer::measured("SQLite table of the list", sqlite_ns(&ordinary)?);
    report.add(Figure::new("DNS event, mean", one, "ns of CPU").peer(peer))?;
    let ten = mean_ns(&config(), &lists, &busy)?;
    let same = Peer::measured("ordinary load", one);
    report.add(
        Figure::new("DNS event, ten times the load", ten, "ns of CPU")
            .peer(same)
            .goal(Goal::RatioAtMost(1.25)),
    )?;
    let flows = sample(1, Kind::Flow);
    let flow = mean_ns(&config(), &lists, &flows)?;
    report.add(Figure::new("flow, mean", flow, "ns of CPU").goal(Goal::AtMost(2_000.0)))
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Dns,
    Flow,
    Packet,
}

impl Kind {
    /// The word in the table of detectors.
    pub(crate) const ALL: [(Self, &'static str); 3] =
        [(Self::Dns, "DNS"), (Self::Flow, "flow"), (Self::Packet, "packet")];
}

/// Events of one kind, with those of the others before them where answers are needed.
pub(crate) fn sample(load: u32, kind: Kind) -> Vec<Event> {
    let mut office = Office::new(3, load);
    let mut event = |_| match kind {
        Kind::Dns => office.dns(),
        Kind::Flow => {
            drop(office.dns());
            office.flow()
        }
        Kind::Packet => office.packet(),
    };
    (0..SAMPLE).map(&mut event).collect()
}

/// Mean processor time of an event: the least of some rounds, each with a new engine whose
/// memories the first half fills.
fn mean_ns(config: &Tier0Config, lists: &Blocklist, events: &[Event]) -> anyhow::Result<f64> {
    let mut least = f64::INFINITY;
    for _ in 0..ROUNDS {
        let mut engine = Engine::new(config, lists.clone());
        let (mut events, mut found) = (events.to_vec(), Vec::with_capacity(64));
        let (first, second) = events.split_at_mut(SAMPLE as usize / 2);
        first.iter_mut().for_each(|event| {
            engine.on_event(event, &mut found);
            found.clear();
        });
        let start = thread_ns()?;
        second.iter_mut().for_each(|event| {
            engine.on_event(event, &mut found);
            found.clear();
        });
        least = least.min((thread_ns()? - start) as f64 / second.len() as f64);
    }
    Ok(least)
}

/// What the second settings add to an event: both engines see the same events in turns, some
/// hundred at a time; the median difference, so that what else the machine does is left out.
/// The first number is what the first settings take.
pub(crate) fn compared_ns(
    settings: [&Tier0Config; 2],
    lists: &Blocklist,
    events: &[Event],
) -> (f64, f64) {
    const TURN: usize = 500;
    let mut engines = settings.map(|settings| Engine::new(settings, lists.clone()));
    let (mut first, mut more) = (Vec::new(), Vec::new());
    for (turn, events) in events.chunks_exact(TURN).enumerate() {
        let mut took = [0.0; 2];
        // Who goes second finds the processor warm: they take turns at it.
        let order = if turn % 2 == 0 { [0, 1] } else { [1, 0] };
        for which in order {
            if let (Some(engine), Some(took)) = (engines.get_mut(which), took.get_mut(which)) {
                *took = time_of(engine, events.to_vec()) / TURN as f64;
            }
        }
        first.push(took[0]);
        more.push(took[1] - took[0]);
    }
    // The first half fills the memories.
    let median = |mut all: Vec<f64>| {
        let mut late = all.split_off(all.len() / 2);
        late.sort_by(f64::total_cmp);
        late.get(late.len() / 2).copied().unwrap_or_default()
    };
    (median(first), median(more))
}

/// Nanoseconds for all of them.
fn time_of(engine: &mut Engine, mut events: Vec<Event>) -> f64 {
    let mut found = Vec::with_capacity(64);
    let start = SystemClock.mono();
    for event in &mut events {
        engine.on_event(event, &mut found);
        found.clear();
    }
    SystemClock.mono().since(start).as_nanos() as f64
}

/// The settings with only this rule on; `None`: with none.
pub(crate) fn only(rule: Option<&str>) -> anyhow::Result<Tier0Config> {
    let mut json = serde_json::to_value(config())?;
    for other in &RULES {
        let section = json.get_mut(other.section).context("a rule without a section")?;
        let switch = section.get_mut("enabled").context("a section without a switch")?;
        *switch = (rule == Some(other.name)).into();
    }
    Ok(serde_json::from_value(json)?)
}

/// One look-up of the name in a table of the list.
fn sqlite_ns(events: &[Event]) -> anyhow::Result<f64> {
    let mut database = Connection::open_in_memory()?;
    database.execute_batch("CREATE TABLE list (name TEXT PRIMARY KEY) WITHOUT ROWID")?;
    let all = database.transaction()?;
    {
        let mut insert = all.prepare("INSERT OR IGNORE INTO list VALUES (?)")?;
        for line in Office::block_list().lines() {
            insert.execute([line.trim_start_matches("0.0.0.0 ")])?;
        }
    }
    all.commit()?;
    let mut ask = database.prepare("SELECT EXISTS (SELECT 1 FROM list WHERE name = ?)")?;
    let start = thread_ns()?;
    for event in events {
        if let Body::Dns(dns) = &event.body {
            black_box(ask.query_row([dns.name.as_str()], |row| row.get::<_, bool>(0))?);
        }
    }
    Ok((thread_ns()? - start) as f64 / events.len().max(1) as f64)
}
