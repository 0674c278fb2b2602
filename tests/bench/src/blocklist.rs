//! Three million listed names: bytes, look-ups, and what is found though it is not listed.
//!
//! The set is compiled once to a file and mapped, as a router has it. Look-ups are of names
//! of three or four labels, each judged with all its parents, one in twenty on the list. Ten
//! million further names are on no list: how many are found all the same is a figure, and
//! must be 0.
//!
//! Peers on the same names, with the same walk over the parents: a `HashSet` of strings, as
//! most programs have it (its bytes are what the process grows by), and an `fst::Set`, a
//! minimal automaton (its bytes are the file's).

use std::collections::HashSet;
use std::fs::File;
use std::hint::black_box;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;
use std::sync::Arc;

use agentmon_core::Name;
use agentmon_core::tier0::blocklist::{Blocklist, Config, ListConfig, compile};
use agentmon_core::time::{Clock as _, SystemClock};
use agentmon_router::sys::Map;
use anyhow::ensure;

use crate::measure::{status_bytes, thread_ns};
use crate::report::{Figure, Goal, Peer, Report, talk};

/// Names on the list.
const LISTED: u64 = 3_000_000;
/// Names looked up for the time of one.
const ASKED: u64 = 500_000;
/// One of so many of them is on the list.
const LISTED_EVERY: u64 = 20;
/// Names that are on no list.
const OTHERS: u64 = 10_000_000;
/// Made and parsed so many at a time.
const BATCH: u64 = 500_000;
/// Repetitions of the timed look-ups; the least is told.
const ROUNDS: usize = 3;

pub(crate) fn run(report: &mut Report) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let file = compiled(&dir.path().join("set"))?;
    let bytes = file.metadata()?.len() as f64;
    let start = SystemClock.mono();
    let list = Blocklist::open(Arc::new(Map::of(&file)?))?;
    let opened_ms = SystemClock.mono().since(start).as_secs_f64() * 1e3;
    ensure!(list.len() as u64 == LISTED, "{} names are in the set", list.len());
    let asked = asked()?;
    let ours = fastest(&asked, |name| list.lookup(name).is_some())?;
    let wrong = wrong(&list)?;
    talk(&format!("blocklist: {wrong} of {OTHERS} names that are not listed are found"));
    // First of the two: it would grow into the memory that sorting the other's names freed.
    let (set_bytes, set_ns) = hash_set(&asked)?;
    let (fst_bytes, fst_ns) = automaton(&dir.path().join("fst"), &asked)?;

    let megabytes = |bytes: f64| bytes / 1e6;
    let size = || Figure::new("3 million names", megabytes(bytes), "MB");
    let automaton = |value| Peer::measured("fst", value);
    let strings = |value| Peer::measured("HashSet<String>", value);
    report.add(size().peer(automaton(megabytes(fst_bytes))).goal(Goal::AtMost(28.0)))?;
    report.add(size().peer(strings(megabytes(set_bytes))))?;
    let look_up = || Figure::new("look-up with all parents", ours, "ns of CPU");
    report.add(look_up().peer(automaton(fst_ns)).goal(Goal::AtMost(500.0)))?;
    report.add(look_up().peer(strings(set_ns)))?;
    report.add(Figure::new("mapped and opened", opened_ms, "ms").goal(Goal::AtMost(50.0)))?;
    let what = "found of 10 million that are not listed";
    report.add(Figure::new(what, wrong as f64, "names").goal(Goal::AtMost(0.0)))
}

/// The names in the compiled form, in a file.
fn compiled(path: &Path) -> anyhow::Result<File> {
    let list = ListConfig { name: "made-up".into(), path: "-".into(), ..ListConfig::default() };
    let config = Config { lists: vec![list], entries_max: usize::MAX, ..Config::default() };
    let mut read = |_: &ListConfig, each: &mut dyn FnMut(&[u8])| -> io::Result<()> {
        for from in (0..LISTED).step_by(1_000) {
            let text: String = (from..from + 1_000).map(|n| listed(n) + "\n").collect();
            each(text.as_bytes());
        }
        Ok(())
    };
    let mut out = BufWriter::new(File::create(path)?);
    let reports = compile(&config, 0, &mut read, &mut out)?;
    out.flush()?;
    ensure!(reports.iter().all(agentmon_core::tier0::blocklist::ListReport::is_clean));
    Ok(File::open(path)?)
}

/// Mean processor time of a look-up, the least of some rounds.
fn fastest(asked: &[Name], found: impl Fn(&Name) -> bool) -> anyhow::Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let start = thread_ns()?;
        let hits = asked.iter().filter(|name| found(black_box(name))).count() as u64;
        let spent = thread_ns()? - start;
        ensure!(hits == ASKED / LISTED_EVERY, "{hits} of the names asked for are found");
        best = best.min(spent as f64 / asked.len() as f64);
    }
    Ok(best)
}

fn wrong(list: &Blocklist) -> anyhow::Result<u64> {
    let mut wrong = 0;
    for from in (ASKED..ASKED + OTHERS).step_by(usize::try_from(BATCH)?) {
        for n in from..from + BATCH {
            wrong += u64::from(list.lookup(&other(n).parse()?).is_some());
        }
    }
    Ok(wrong)
}

/// Bytes of an `fst::Set` of the names, in a mapped file, and the time of a look-up.
fn automaton(path: &Path, asked: &[Name]) -> anyhow::Result<(f64, f64)> {
    let mut names: Vec<String> = (0..LISTED).map(listed).collect();
    names.sort_unstable();
    let mut builder = fst::SetBuilder::new(BufWriter::new(File::create(path)?))?;
    builder.extend_iter(&names)?;
    builder.finish()?;
    drop(names);
    let file = File::open(path)?;
    let set = fst::Set::new(Map::of(&file)?)?;
    let ns = fastest(asked, |name| parents(name).any(|parent| set.contains(parent)))?;
    Ok((file.metadata()?.len() as f64, ns))
}

/// Bytes the process grows by for a `HashSet` of the names, and the time of a look-up.
fn hash_set(asked: &[Name]) -> anyhow::Result<(f64, f64)> {
    let resident = || status_bytes(std::process::id(), "VmRSS");
    let before = resident()?;
    let set: HashSet<String> = (0..LISTED).map(listed).collect();
    let bytes = resident()?.saturating_sub(before);
    let ns = fastest(asked, |name| parents(name).any(|parent| set.contains(parent)))?;
    Ok((bytes as f64, ns))
}

/// A name and all its parents, as look-ups go through them.
fn parents(name: &Name) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(name.as_str()), |name| name.split_once('.').map(|(_, rest)| rest))
}

fn asked() -> anyhow::Result<Vec<Name>> {
    let name = |n| match n % LISTED_EVERY {
        0 => format!("www.{}", listed(scattered(n) % LISTED)),
        _ => other(n),
    };
    Ok((0..ASKED).map(|n| name(n).parse()).collect::<Result<_, _>>()?)
}

/// A name on the list.
fn listed(n: u64) -> String {
    format!("ad{}.{:x}-example.net", n % 4_000, scattered(n))
}

/// One of three or four labels that is not.
fn other(n: u64) -> String {
    let scattered = scattered(n ^ 0x5555);
    let host = ["www", "api.eu", "img7", "static"][(scattered % 4) as usize];
    format!("{host}.{scattered:x}.example.com")
}

/// Numbers far apart for numbers near each other: the mix of SplitMix64 (Steele et al. 2014).
fn scattered(n: u64) -> u64 {
    let z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb)
}
