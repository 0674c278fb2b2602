//! What the beacon detector is worth: beacons of known truth among ordinary traffic.
//!
//! In: what devices did with services on an ordinary day, made up or of a store; periods,
//! jitters and losses to try. Out: for each of their combinations, how many of the planted are
//! heard, and how many findings they make; of the background alone, its findings, by day; of
//! independent events, how many are taken for beacons.
//!
//! Every beacon is planted at a device of the background, with a destination of its own:
//! connections of about the same size. The same code as in the rounds judges them
//! ([`hear`], [`rank`](crate::detect::beacon::rank)). Deterministic: the same seed, the same
//! figures.

use std::collections::HashMap;
use std::net::IpAddr;

use agentmon_core::Timestamp;
use agentmon_core::event::{Body, Flow, FlowPhase};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde::Serialize;

use crate::demo;
use crate::destinations::Destinations;
use crate::detect::beacon::find::{Beacon, hear};
use crate::detect::beacon::rank::FINDING;
use crate::detect::beacon::services::{Gather, Service, Services, Target, Use};
use crate::detect::beacon::synth::{self, Beat};

const DAY: f64 = 86_400.0;
/// Within a day; slower ones get two weeks.
const DAY_PERIOD_MAX: f64 = 10_800.0;
const SLOW_DAYS: f64 = 14.0;
/// Score from which a beacon is heard, and below which chance has to stay.
const HEARD: f64 = 0.9;
const CHANCE: f64 = 0.3;
/// Means of the gaps of independent events.
const MEANS: [f64; 4] = [60.0, 432.0, 2_160.0, 8_640.0];
/// What planted names end in.
const PLANTED: &str = ".planted.example";

/// What to try.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Seconds.
    pub periods: Vec<f64>,
    /// Parts of the period.
    pub jitters: Vec<f64>,
    /// Parts of the beats that are missing.
    pub losses: Vec<f64>,
    /// Beacons of each combination.
    pub trials: usize,
    /// For all that is random.
    pub seed: u64,
}

/// One combination.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cell {
    /// Seconds.
    pub period_s: f64,
    /// Part of the period.
    pub jitter: f64,
    /// Part of the beats.
    pub loss: f64,
    /// Days looked at.
    pub days: f64,
    /// Part of the planted that score 0.9 or more.
    pub recall: f64,
    /// Part of them that are findings.
    pub findings: f64,
    /// Part of the heard whose period was told within 10 %.
    pub period_right: f64,
    /// Findings about anything else in the same run.
    pub false_alarms: usize,
}

/// Independent events.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Chance {
    /// Events a day.
    pub events: f64,
    /// Part of the series that score 0.3 or more.
    pub above_0_3: f64,
    /// Part of them that score 0.9 or more.
    pub above_0_9: f64,
}

/// All figures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Devices of the background.
    pub devices: usize,
    /// Services of the background.
    pub services: usize,
    /// Services of the background that beat (score 0.9 or more).
    pub background_rhythms: usize,
    /// Findings about the background.
    pub background_findings: usize,
    /// What they are about.
    pub background_found: Vec<String>,
    /// By period, jitter and loss.
    pub cells: Vec<Cell>,
    /// By rate.
    pub chance: Vec<Chance>,
}

impl Report {
    /// Recall over all cells of a jitter.
    #[must_use]
    pub fn recall_at(&self, jitter: f64) -> f64 {
        let cells = self.cells.iter().filter(|c| (c.jitter - jitter).abs() < 1e-9);
        let (n, sum) = cells.fold((0.0, 0.0), |(n, sum), c| (n + 1.0, sum + c.recall));
        if n > 0.0 { sum / n } else { 1.0 }
    }
}

/// Measures. `background`: of one day.
#[must_use]
pub fn measure(background: &[Services], plan: &Plan) -> Report {
    let networks = Destinations::built_in();
    let alone: Vec<Beacon> =
        background.iter().flat_map(|home| hear(home, &networks, CHANCE)).collect();
    let findings = alone.iter().filter(|b| is_finding(b));
    let found: Vec<String> = findings.map(|b| format!("{} {}", b.device, b.target)).collect();
    let mut rng = StdRng::seed_from_u64(plan.seed);
    let mut cells = Vec::new();
    for period in &plan.periods {
        for jitter in &plan.jitters {
            for missed in &plan.losses {
                let beat = Beat { period: *period, jitter: *jitter, missed: *missed };
                cells.push(cell(&mut rng, beat, plan.trials, background, found.len(), &networks));
            }
        }
    }
    Report {
        devices: background.iter().map(|home| home.devices).sum(),
        services: background.iter().map(|home| home.all.len()).sum(),
        background_rhythms: alone.iter().filter(|b| b.rhythm.score >= HEARD).count(),
        background_findings: found.len(),
        background_found: found,
        cells,
        chance: MEANS.map(|mean| chance(&mut rng, mean, plan.trials, &networks)).to_vec(),
    }
}

fn is_finding(beacon: &Beacon) -> bool {
    beacon.rhythm.score >= 0.8 && beacon.rank.rank >= FINDING
}

fn cell(
    rng: &mut StdRng,
    beat: Beat,
    trials: usize,
    background: &[Services],
    known: usize,
    networks: &Destinations,
) -> Cell {
    let days = if beat.period > DAY_PERIOD_MAX { SLOW_DAYS } else { 1.0 };
    let devices: Vec<&Service> = background.iter().flat_map(|home| &home.all).collect();
    let services = (0..trials).map(|i| {
        let times = synth::beats(rng, beat, days * DAY);
        // Prime steps: all devices get their turn.
        let host = devices.get((i * 7_919) % devices.len().max(1));
        service(i, host.map_or("device", |s| s.device.as_str()), times)
    });
    let services = Services { all: services.collect(), devices: trials, ..Services::default() };
    let heard = hear(&services, networks, 0.0);
    let high: Vec<&Beacon> = heard.iter().filter(|b| b.rhythm.score >= HEARD).collect();
    let part = |n: usize, of: usize| n as f64 / of.max(1) as f64;
    let right = |b: &&&Beacon| (b.rhythm.period / beat.period - 1.0).abs() <= 0.1;
    Cell {
        period_s: beat.period,
        jitter: beat.jitter,
        loss: beat.missed,
        days,
        recall: part(high.len(), trials),
        findings: part(heard.iter().filter(|b| is_finding(b)).count(), trials),
        period_right: part(high.iter().filter(right).count(), high.len()),
        false_alarms: known,
    }
}

fn service(i: usize, device: &str, times: Vec<i64>) -> Service {
    let name = format!("b{i}{PLANTED}");
    let n = times.len() as u64;
    let flows = Use {
        times,
        bytes_out: n * 420,
        bytes_in: n * 640,
        spread: 0.03,
        ports: Some((443, 443)),
        ..Use::default()
    };
    let target = Target { flows: Some(Box::new(flows)), questions: None };
    Service {
        device: device.to_owned(),
        client: None,
        group: name.clone(),
        named: true,
        targets: [(name, target)].into(),
        devices: 1,
    }
}

fn chance(rng: &mut StdRng, mean: f64, trials: usize, networks: &Destinations) -> Chance {
    let all = (0..trials).map(|i| service(i, "device", synth::chance(rng, mean, DAY)));
    let services = Services { all: all.collect(), devices: 1, ..Services::default() };
    let heard = hear(&services, networks, 0.0);
    let above = |score: f64| {
        heard.iter().filter(|b| b.rhythm.score >= score).count() as f64 / trials.max(1) as f64
    };
    Chance { events: DAY / mean, above_0_3: above(CHANCE), above_0_9: above(HEARD) }
}

/// A use in the making, as DuckDB gathers one of stored flows.
#[derive(Default)]
struct Made {
    using: Use,
    logs: f64,
    squares: f64,
}

impl Made {
    fn flow(&mut self, start: i64, flow: &Flow) {
        let (using, volume) = (&mut self.using, flow.volume.unwrap_or_default());
        using.times.push(start);
        using.bytes_out += volume.bytes_out;
        using.bytes_in += volume.bytes_in;
        let (port, (low, high)) = (flow.dst.port, using.ports.unwrap_or((u16::MAX, 0)));
        using.ports = Some((low.min(port), high.max(port)));
        using.address = Some(flow.dst.ip);
        let log = (volume.bytes_out as f64).ln_1p();
        self.logs += log;
        self.squares += log * log;
    }

    fn done(self) -> Use {
        let n = self.using.times.len().max(1) as f64;
        let spread = (self.squares / n - (self.logs / n).powi(2)).max(0.0).sqrt();
        Use { spread, ..self.using }
    }
}

/// The ordinary part of the made-up day of a home of 40 devices.
#[must_use]
pub fn home(seed: u64) -> Services {
    let day = demo::day(seed, Timestamp::from_secs(1_800_000_000), 0);
    let planted: Vec<(IpAddr, &str)> =
        day.planted.iter().filter_map(|p| Some((p.client, p.subject.as_deref()?))).collect();
    let is_planted = |client: IpAddr, target: &str| {
        planted.iter().any(|(ip, subject)| *ip == client && target.contains(subject))
    };
    services(&day, &is_planted)
}

/// What the devices of a day did, without what is left out.
fn services(day: &demo::Day, left_out: &dyn Fn(IpAddr, &str) -> bool) -> Services {
    let mut uses: HashMap<(IpAddr, String, bool, bool), Made> = HashMap::new();
    let mut names: HashMap<(IpAddr, IpAddr), String> = HashMap::new();
    for event in &day.events {
        let seconds = event.time.secs();
        match &event.body {
            Body::Dns(dns) => {
                for ip in dns.addresses() {
                    names.insert((dns.client, ip), dns.name.as_str().to_owned());
                }
                let key = (dns.client, dns.name.as_str().to_owned(), true, true);
                let using = &mut uses.entry(key).or_default().using;
                using.times.push(seconds);
                using.ttl = using.ttl.max(dns.ttl);
            }
            Body::Flow(flow) if flow.phase == FlowPhase::End => {
                let name = names.get(&(flow.src.ip, flow.dst.ip));
                let target = name.cloned().unwrap_or_else(|| flow.dst.ip.to_string());
                let key = (flow.src.ip, target, name.is_some(), false);
                let start = flow.start.map_or(seconds, Timestamp::secs);
                uses.entry(key).or_default().flow(start, flow);
            }
            _ => {}
        }
    }
    let mut gather = Gather::default();
    for ((client, target, named, questions), made) in uses {
        if !left_out(client, &target) {
            let (device, using) = (client.to_string(), made.done());
            gather.add(&device, Some(client), (&target, named), using, questions);
        }
    }
    gather.done()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole of the made-up day: its beacon is found, and its twin is not.
    #[test]
    fn the_beacon_of_the_made_up_day_is_found() {
        let day = demo::day(demo::SEED, Timestamp::from_secs(1_800_000_000), 0);
        let beacon = day.planted.iter().find(|p| p.name == "beacon").unwrap();
        let found = hear(&services(&day, &|_, _| false), &Destinations::built_in(), 0.8);
        let findings: Vec<&Beacon> = found.iter().filter(|b| is_finding(b)).collect();
        let subject = beacon.subject.as_deref().unwrap();
        let right = |b: &&Beacon| b.client == Some(beacon.client) && b.target.contains(subject);
        assert!(findings.iter().any(right), "{findings:?}");
        for twin in day.twins.iter().filter(|t| t.of == "beacon") {
            assert!(!findings.iter().any(|b| b.target.contains(&twin.subject)), "{findings:?}");
        }
    }

    /// The project's goals, on a few cells; all of them are the command's to measure.
    #[test]
    fn planted_beacons_are_heard_and_the_ordinary_day_is_quiet() {
        let plan = Plan {
            periods: vec![60.0, 3_600.0, 43_200.0],
            jitters: vec![0.2, 0.5],
            losses: vec![0.0],
            trials: 12,
            seed: 5,
        };
        let report = measure(&[home(1), home(2)], &plan);
        assert_eq!((report.devices, report.cells.len()), (80, 6));
        assert!(report.recall_at(0.2) >= 0.95 && report.recall_at(0.5) >= 0.9, "{report:?}");
        assert!(report.background_findings <= 3, "{:?}", report.background_found);
        assert!(report.background_rhythms > 100, "what polls is shown");
        assert!(report.cells.iter().all(|c| c.findings >= 0.9), "{report:?}");
        let quiet = report.chance.iter().filter(|c| c.events >= 40.0);
        assert!(quiet.map(|c| c.above_0_3).all(|part| part <= 0.1), "{:?}", report.chance);
    }
}
