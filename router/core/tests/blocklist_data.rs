//! Real lists, and very many names that are on none.
//!
//! - One list in six syntaxes loads as one set. Needs `AGENTMON_TEST_DATA`, a folder with
//!   `blocklists/six-formats` (its licence is unknown, so it stays out of the repository),
//!   and says so when that is not set.
//! - 400,000 names that are not listed are not found. The full test of ten million
//!   against three million is in the benchmark `blocklist`; it prints the count.

#![allow(clippy::print_stderr, reason = "what could not be tested is said aloud")]

use std::collections::HashSet;

use agentmon_core::Name;
use agentmon_core::tier0::blocklist::{Blocklist, Builder};

const FILES: [&str; 6] =
    ["adblock.txt", "dnsmasq.txt", "domains.txt", "hosts.txt", "unbound.conf", "wildcard.txt"];

fn name(text: &str) -> Name {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn load(folder: &str, file: &str) -> Blocklist {
    let path = format!("{folder}/blocklists/six-formats/{file}");
    let text = std::fs::read(&path).unwrap_or_else(|e| panic!("reading {path}: {e}"));
    let mut builder = Builder::new(10_000);
    let report = builder.list(file, 0.8, &text);
    assert!(report.is_clean(), "{file}: {report}");
    builder.build()
}

fn lines(folder: &str, file: &str) -> Vec<String> {
    let path = format!("{folder}/blocklists/six-formats/{file}");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("reading {path}: {e}"));
    text.lines().map(str::to_owned).collect()
}

/// The parents of a name, itself first.
fn parents(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(name), |name| name.split_once('.').map(|(_, rest)| rest))
}

#[test]
fn six_syntaxes_are_one_set() {
    let Ok(folder) = std::env::var("AGENTMON_TEST_DATA") else {
        eprintln!("NOT TESTED: one list in six syntaxes: AGENTMON_TEST_DATA is not set");
        return;
    };
    let lists = FILES.map(|file| load(&folder, file));
    let (names, zones) =
        (lines(&folder, "expected-names.txt"), lines(&folder, "expected-zones.txt"));
    assert!(names.len() > 1_000 && zones.len() > 500);
    let set: HashSet<&str> = zones.iter().map(String::as_str).collect();
    let mut asked = 0;
    let mut check = |text: &str| {
        let expected = parents(text).any(|parent| set.contains(parent));
        for (list, file) in lists.iter().zip(FILES) {
            let found = list.lookup(&name(text)).is_some();
            assert_eq!(found, expected, "{text} in {file}");
        }
        asked += 1;
    };
    for entry in names.iter().chain(&zones) {
        check(entry);
        check(&format!("below.{entry}"));
        check(&format!("x{entry}"));
        parents(entry).skip(1).for_each(&mut check);
    }
    eprintln!("{asked} names judged alike by six syntaxes");
}

/// Numbers far apart for numbers near each other (Steele et al. 2014, SplitMix64's mix).
fn scattered(n: u64) -> u64 {
    let z = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb)
}

#[test]
fn names_that_are_not_listed_are_not_found() {
    let listed = |n: u64| format!("ad{}.{:x}-example.net", n % 4_000, scattered(n));
    let text: String = (0..100_000).map(|n| format!("0.0.0.0 {}\n", listed(n))).collect();
    let mut builder = Builder::new(100_000);
    assert!(builder.list("made-up", 0.8, text.as_bytes()).is_clean());
    let list = builder.build();
    assert!((0..100_000).step_by(97).all(|n| list.lookup(&name(&listed(n))).is_some()));
    let wrong: Vec<String> = (1_000_000..1_400_000)
        .map(|n| format!("www.h{}.{:x}-example.net", n % 4_000, scattered(n)))
        .filter(|text| list.lookup(&name(text)).is_some())
        .collect();
    assert!(wrong.is_empty(), "{} of 400,000 are found: {:?}", wrong.len(), wrong.first());
}
