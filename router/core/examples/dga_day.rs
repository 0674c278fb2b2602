//! What the `dga` rule says on ordinary days: findings a day for 75 devices.
//!
//! `cargo run --release -p agentmon-core --example dga_day -- NAMES`
//!
//! NAMES holds names really asked for, one per line or as a MISP warning list (`.json`).
//! 75 devices ask 100,000 times a day for a week: each has its own favourites, few names
//! are asked for by all and many by one (Zipf's law); 3 in 100 questions are for names that
//! do not exist (mistyped, search domains appended). No malware. Also prints the time for
//! scoring one name.

#![allow(clippy::print_stdout, reason = "a measuring program's output")]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use agentmon_core::event::{Answer, Body, Dns, DnsStatus, Event};
use agentmon_core::tier0::dga::score;
use agentmon_core::tier0::{Engine, Tier0Config};
use agentmon_core::time::{Clock, SystemClock};
use agentmon_core::{Name, Timestamp};
use anyhow::{Context, Result};

const DEVICES: u64 = 75;
const DAYS: i64 = 7;
const QUESTIONS_A_DAY: i64 = 100_000;
const MISSING_PERCENT: u64 = 3;

fn main() -> Result<()> {
    let path = std::env::args().nth(1).context("usage: dga_day NAMES")?;
    let names = read(&path)?;
    time(&names);
    let mut engine =
        Engine::new(&Tier0Config::default(), Tier0Config::default().blocklist.builder().build());
    let mut random = Random(2_026);
    let (mut found, mut days) = (Vec::new(), Vec::new());
    for day in 0..DAYS {
        for i in 0..QUESTIONS_A_DAY {
            let seconds = day * 86_400 + i * 86_400 / QUESTIONS_A_DAY;
            let mut event = question(&names, &mut random, 1_795_000_000 + seconds)?;
            engine.on_event(&mut event, &mut found);
        }
        let mut counts = BTreeMap::<String, u32>::new();
        for found in found.drain(..).filter(|f| f.finding.rule == "dga") {
            *counts.entry(found.finding.severity().as_str().to_owned()).or_default() += 1;
            if day == 0 {
                println!("  {:.2} {}", found.finding.score, found.finding.why);
            }
        }
        days.push(counts);
    }
    for (day, counts) in days.iter().enumerate() {
        println!("day {}: {counts:?}", day + 1);
    }
    Ok(())
}

fn read(path: &str) -> Result<Vec<Name>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    let names = |lines: &mut dyn Iterator<Item = &str>| -> Vec<Name> {
        lines.filter_map(|line| line.split('\t').next()?.parse().ok()).collect()
    };
    if path.ends_with(".json") {
        let list: serde_json::Value = serde_json::from_str(&text)?;
        let list = list["list"].as_array().context("a MISP warning list")?;
        return Ok(names(&mut list.iter().filter_map(|name| name.as_str())));
    }
    Ok(names(&mut text.lines()))
}

fn time(names: &[Name]) {
    let clock = SystemClock;
    let mut best = f64::INFINITY;
    for _ in 0..20 {
        let begin = clock.mono();
        std::hint::black_box(names.iter().map(|name| score(name).value).sum::<f64>());
        best = best.min(clock.mono().since(begin).as_nanos() as f64 / names.len() as f64);
    }
    println!("{best:.0} ns to score a name, of {}", names.len());
}

/// SplitMix64 (Steele et al. 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 33) % n
    }
}

/// A device asks: for what everybody does, or for one of its own names. The place of a name
/// in either order is drawn so that its logarithm is spread evenly (Zipf).
fn question(names: &[Name], random: &mut Random, seconds: i64) -> Result<Event> {
    let device = random.below(DEVICES);
    let count = names.len() as u64;
    let rank = (count as f64).powf(random.below(1 << 30) as f64 / f64::from(1 << 30)) as u64;
    let own = if random.below(2) == 0 { device + 1 } else { 0 };
    // A permutation of the names for each device: a multiplier that is odd and not theirs.
    let place = (rank + own * 7_919).wrapping_mul(1_000_003) % count;
    let name = names.get(place as usize).context("no names")?;
    let missing = random.below(100) < MISSING_PERCENT;
    let name = if missing { mistyped(name, random) } else { name.clone() };
    let client = IpAddr::V4(Ipv4Addr::from(0xc0a8_0100 + device as u32));
    let answer = Answer::Address(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)));
    let dns = Dns {
        client,
        mac: None,
        name,
        qtype: 1,
        status: DnsStatus::Forwarded,
        rcode: Some(if missing { 3 } else { 0 }),
        answers: if missing { Vec::new() } else { vec![answer] },
        ttl: Some(300),
        upstream: None,
        latency_us: None,
        blocked_by: None,
        source: "made".into(),
    };
    Ok(Event { time: Timestamp::from_secs(seconds), body: Body::Dns(dns) })
}

/// A letter changed or left out of the registered label, or a search domain behind.
fn mistyped(name: &Name, random: &mut Random) -> Name {
    let mut bytes = name.as_str().as_bytes().to_vec();
    let at = random.below(bytes.len() as u64) as usize;
    match random.below(3) {
        0 => bytes.extend(b".lan"),
        1 if bytes[at] != b'.' => bytes[at] = b'a' + random.below(26) as u8,
        _ if bytes[at] != b'.' => drop(bytes.remove(at)),
        _ => bytes.extend(b".office.example"),
    }
    Name::parse(&bytes).unwrap_or_else(|_| name.clone())
}
