//! What long block lists cost: compiling, checking, looking up, and false hits.
//!
//! `cargo run --release -p agentmon-core --example blocklist_speed [NAMES...]`
//!
//! For each number of made-up names (100,000, 1 million and 3 million by default): seconds
//! of processor time to compile them and the most memory that took, bytes of the compiled
//! form and the time to check and open it, then 10 million look-ups of names that are not
//! listed (how many are found all the same, and the mean processor time) and a sample of
//! them timed one by one. Times of single look-ups include about 30 ns of reading the clock,
//! and whatever else the machine does.

#![allow(clippy::print_stdout, reason = "a measuring program's output")]

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use agentmon_core::Name;
use agentmon_core::tier0::blocklist::{Blocklist, Check, Config, ListConfig, compile};
use agentmon_core::time::{Clock, Mono, SystemClock};

/// Names asked for.
const ASKED: u64 = 10_000_000;
/// So many at a time.
const BATCH: u64 = 1_000_000;
/// Of which so many are timed one by one.
const TIMED: usize = 500_000;

fn main() -> anyhow::Result<()> {
    let numbers: Result<Vec<u64>, _> = std::env::args().skip(1).map(|n| n.parse()).collect();
    let numbers = match numbers? {
        given if given.is_empty() => vec![100_000, 1_000_000, 3_000_000],
        given => given,
    };
    for number in numbers {
        measure(number)?;
    }
    Ok(())
}

fn measure(number: u64) -> anyhow::Result<()> {
    let list = ListConfig { name: "made-up".into(), path: "-".into(), ..ListConfig::default() };
    let config = Config { lists: vec![list], entries_max: usize::MAX, ..Config::default() };
    let (mut form, memory, start) = (Vec::new(), resident_most(), processor());
    form.try_reserve_exact(usize::try_from(number)? * 8 + 300_000)?;
    let mut passes = 0;
    let mut read = |_: &ListConfig, each: &mut dyn FnMut(&[u8])| -> io::Result<()> {
        passes += 1;
        let mut text = String::new();
        for i in 0..number {
            writeln!(text, "0.0.0.0 {}", listed(i)).map_err(io::Error::other)?;
            if text.len() > 60_000 {
                each(text.as_bytes());
                text.clear();
            }
        }
        each(text.as_bytes());
        Ok(())
    };
    let reports = compile(&config, 0, &mut read, &mut form)?;
    anyhow::ensure!(reports.iter().all(|report| report.is_clean()), "{reports:?}");
    println!(
        "{number} names: compiled in {:.2} s by {passes} passes, {:.1} MB of memory besides the \
         form of {:.2} MB",
        processor().saturating_sub(start).as_secs_f64(),
        (resident_most().saturating_sub(memory) as f64 - form.len() as f64).max(0.0) / 1e6,
        form.len() as f64 / 1e6
    );
    let start = now();
    let mut check = Check::default();
    form.chunks(64 * 1024).for_each(|chunk| check.feed(chunk));
    check.finish()?;
    let checked = since(start);
    let lists = Blocklist::open(Arc::new(form))?;
    println!("  checked in {checked:.1?}, opened in {:.1?}", since(start).saturating_sub(checked));
    anyhow::ensure!(lists.len() as u64 == number, "{} names", lists.len());
    look_up(&lists, number)
}

fn look_up(lists: &Blocklist, number: u64) -> anyhow::Result<()> {
    for i in (0..number).step_by(997) {
        let name: Name = format!("www.{}", listed(i)).parse()?;
        anyhow::ensure!(lists.lookup(&name).is_some(), "{name} is not found");
    }
    let (mut wrong, mut spent, mut singles) = (0u64, Duration::ZERO, Vec::new());
    for from in (0..ASKED).step_by(usize::try_from(BATCH)?) {
        let names: Vec<Name> =
            (from..from + BATCH).map(|i| asked(i).parse()).collect::<Result<_, _>>()?;
        let start = processor();
        wrong += names.iter().filter(|name| lists.lookup(name).is_some()).count() as u64;
        spent += processor().saturating_sub(start);
        if from == 0 {
            for name in names.iter().take(TIMED) {
                let start = now();
                std::hint::black_box(lists.lookup(name));
                singles.push(since(start));
            }
        }
    }
    singles.sort_unstable();
    let at = |part: usize| singles.get(singles.len() * part / 1_000).copied().unwrap_or_default();
    println!(
        "  {ASKED} names that are not listed: {wrong} found; {:.0} ns each; one by one p50 {:?}, \
         p99 {:?}, p99.9 {:?}",
        spent.as_secs_f64() * 1e9 / ASKED as f64,
        at(500),
        at(990),
        at(999)
    );
    Ok(())
}

/// A name on the list.
fn listed(i: u64) -> String {
    format!("ad{:x}.{:x}-example.net", i % 4_000, scattered(i))
}

/// A name of three or four labels that is not.
fn asked(i: u64) -> String {
    let scattered = scattered(i ^ 0x5555);
    let host = ["www", "api.eu", "img7", "static"][(scattered % 4) as usize];
    format!("{host}.{scattered:x}.example.com")
}

/// Splitmix64: a permutation, so that all names differ.
fn scattered(i: u64) -> u64 {
    let mut z = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Time this thread had a processor (`sched-stats.rst`).
fn processor() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0))
}

fn now() -> Mono {
    SystemClock.mono()
}

fn since(start: Mono) -> Duration {
    now().since(start)
}

/// Most resident memory so far, in bytes (proc(5)).
fn resident_most() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1_024
}
