//! Attacks are found and their benign twins are not, however the events arrive.

use std::collections::BTreeMap;

use agentmon_tests::scenario::script::Script;
use agentmon_tests::scenario::{Variant, all, logs, scripts};

const HOUR: i64 = 3_600;
const DAY: i64 = 86_400;

#[track_caller]
fn check(variant: Variant) {
    let seed = std::env::var("AGENTMON_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    let mut complaints = Vec::new();
    for scenario in all() {
        let said = scenario.play(variant, seed);
        complaints.extend(said.into_iter().map(|c| format!("{}: {c}", scenario.name)));
    }
    let text = complaints.join("\n");
    assert!(complaints.is_empty(), "{variant:?}, AGENTMON_SEED={seed}:\n{text}");
}

#[test]
fn as_seen() {
    check(Variant::AsSeen);
}

#[test]
fn shuffled_within_the_collectors_lateness() {
    check(Variant::Shuffled);
}

#[test]
fn delivered_twice() {
    check(Variant::Doubled);
}

#[test]
fn with_a_wrong_clock() {
    for seconds in [-DAY, -HOUR, HOUR, DAY] {
        check(Variant::Shifted(seconds));
    }
}

#[test]
fn with_a_clock_that_jumps() {
    for seconds in [-DAY, -HOUR, HOUR, DAY] {
        check(Variant::Jumped(seconds));
    }
}

#[test]
fn every_attack_has_a_silent_twin() {
    let loud: BTreeMap<_, _> = all()
        .into_iter()
        .map(|s| (s.name, (s.expect.twin, !s.expect.finding.is_empty())))
        .collect();
    assert!(loud.len() >= 8, "only {} scenarios", loud.len());
    for (name, (twin, is_loud)) in &loud {
        let other = loud.get(twin).unwrap_or_else(|| panic!("{name}: there is no twin {twin}"));
        assert_eq!(&other.0, name, "{name} and {twin} do not name each other");
        assert_ne!(other.1, *is_loud, "{name} and {twin}: one must be found, one silent");
    }
}

#[test]
fn the_files_are_what_the_scripts_write() {
    for (name, seed, write) in scripts::ALL {
        let mut script = Script::new(seed);
        write(&mut script);
        let file = format!("{}/scenarios/{name}/events.ndjson", env!("CARGO_MANIFEST_DIR"));
        is_written(&file, &script.ndjson());
    }
    for (name, write) in logs::ALL {
        is_written(
            &format!("{}/scenarios/{name}/messages.txt", env!("CARGO_MANIFEST_DIR")),
            &write(),
        );
    }
}

#[track_caller]
fn is_written(file: &str, text: &str) {
    let written = std::fs::read_to_string(file).unwrap_or_else(|e| panic!("{file}: {e}"));
    assert!(written == text, "{file} is not what its script writes: run make-scenarios");
}
