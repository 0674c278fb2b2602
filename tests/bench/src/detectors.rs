//! `docs/detectors.md`: every detector with what it needs, from where on it speaks, what it
//! costs, where it runs, and the scenario that shows it.
//!
//! In: the rules of tier-0 and of the syslog receiver, the scenarios, and measured costs. Out:
//! the table as Markdown (`./dev bench --detectors > docs/detectors.md`). A test here keeps it
//! equal to the code, apart from the measured column and from what follows [`HISTORY`] (the hub
//! keeps that itself, see its `detect/rules.rs`), and fails when a detector of tier-0 has
//! no scenario, or its scenario no benign twin.
//!
//! The cost of a detector is the time of an event with only this one on, less the time with
//! none on: what is shared (the memory of names) is told in a row of its own.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use agentmon_core::tier0::Tier0Config;
use agentmon_core::tier0::rules::RULES;
use agentmon_router::collect::syslog::{self, alarm};
use agentmon_router::enforce;
use anyhow::Context as _;

use crate::tier0::{Kind, compared_ns, list, only, sample};

const HEAD: &str = "\
# Detectors

What agentmon finds by itself, next to the collector. Written by `./dev bench --detectors`; a
test keeps it equal to the code, apart from the measured column. Thresholds are the defaults;
`config/router.toml` says how to change them. The cost is what a detector adds to an event, in
nanoseconds of one core of an x86-64 server, with a list of a million names; an event also
takes the shared work of the first row.

| detector | tells | needs | default threshold | cost per event | runs on | shown by |
|---|---|---|---|---|---|---|
";
/// Where the hub's own detectors begin.
const HISTORY: &str = "\n## Over history";
const SHARED: &str = "(all)";
/// Less than this is noise.
const NOISE_NS: f64 = 10.0;
/// As of the receiver's findings, which come of what it does anyway.
const NO_COST: &str = "none to speak of";

/// One line of the table.
struct Row {
    name: String,
    tells: String,
    needs: String,
    threshold: String,
    runs: String,
    shown_by: String,
}

/// All of it, with a cost for each name.
fn table(rows: &[Row], cost: impl Fn(&str) -> String) -> String {
    let mut text = HEAD.to_owned();
    for row in rows {
        let Row { name, tells, needs, threshold, runs, shown_by } = row;
        let cost = cost(name);
        // Writing to a String cannot fail.
        _ = writeln!(
            text,
            "| `{name}` | {tells} | {needs} | {threshold} | {cost} | {runs} | {shown_by} |"
        );
    }
    text
}

/// Every detector, those of tier-0 first.
fn rows() -> anyhow::Result<Vec<Row>> {
    let config = Tier0Config::default();
    let scenarios = scenarios(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios"))?;
    let mut rows = vec![Row {
        name: SHARED.to_owned(),
        tells: "who had which address from which name".to_owned(),
        needs: "DNS answers".to_owned(),
        threshold: String::new(),
        runs: "router, hub".to_owned(),
        shown_by: String::new(),
    }];
    rows.extend(RULES.iter().map(|rule| Row {
        name: rule.name.to_owned(),
        tells: rule.tells.to_owned(),
        needs: rule.needs.to_owned(),
        threshold: (rule.threshold)(&config),
        runs: rule.runs.to_owned(),
        shown_by: scenarios.get(rule.name).cloned().unwrap_or_default(),
    }));
    let receiver = syslog::Config::default();
    rows.extend(alarm::RULES.iter().map(|rule| Row {
        name: rule.name.to_owned(),
        tells: rule.tells.to_owned(),
        needs: "syslog".to_owned(),
        threshold: (rule.threshold)(&receiver),
        runs: "where syslog is received".to_owned(),
        shown_by: scenarios.get(rule.name).cloned().unwrap_or_default(),
    }));
    rows.push(Row {
        name: enforce::RULE.to_owned(),
        tells: "what was done about something listed, and why".to_owned(),
        needs: "`[enforce]`, a list with `block`".to_owned(),
        threshold: "any hit, once enforcement is on".to_owned(),
        runs: "router".to_owned(),
        // Packets of the real kernel, not events.
        shown_by: "the lab: enforce, with a device that asks for other names".to_owned(),
    });
    Ok(rows)
}

/// For each rule that a scenario expects: the scenarios and their silent twins.
fn scenarios(folder: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let mut expected = BTreeMap::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let file = entry?.path().join("expect.toml");
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let expect: toml::Table = text.parse().with_context(|| file.display().to_string())?;
        expected.insert(name_of(&file), expect);
    }
    let findings = |name: &str| {
        let all = expected.get(name).and_then(|e| e.get("finding")).and_then(|f| f.as_array());
        all.map(Vec::as_slice).unwrap_or_default()
    };
    let mut shown: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, expect) in &expected {
        let twin = expect.get("twin").and_then(|twin| twin.as_str()).unwrap_or_default();
        if !expected.contains_key(twin) || !findings(twin).is_empty() {
            continue;
        }
        for rule in findings(name).iter().filter_map(|finding| finding.get("rule")?.as_str()) {
            let pairs = shown.entry(rule.to_owned()).or_default();
            let pair = format!("{name}, not {twin}");
            if !pairs.contains(&pair) {
                pairs.push(pair);
            }
        }
    }
    Ok(shown.into_iter().map(|(rule, pairs)| (rule, pairs.join("; "))).collect())
}

fn name_of(file: &Path) -> String {
    let folder = file.parent().and_then(Path::file_name);
    folder.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Where the table lies.
fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/detectors.md")
}

/// Measures, and gives the table for `docs/detectors.md`.
pub(crate) fn markdown() -> anyhow::Result<String> {
    let lists = list()?;
    let samples: Vec<_> = Kind::ALL.iter().map(|(kind, word)| (*word, sample(1, *kind))).collect();
    let none = only(None)?;
    let measured = |rule| -> anyhow::Result<Vec<(f64, f64)>> {
        let with = only(rule)?;
        let both = |events: &Vec<_>| compared_ns([&none, &with], &lists, events);
        Ok(samples.iter().map(|(_, events)| both(events)).collect())
    };
    let words = |costs: &[f64]| {
        let told = costs.iter().zip(&samples).filter(|(ns, _)| **ns >= NOISE_NS);
        let told: Vec<_> = told.map(|(ns, (word, _))| format!("{word} {ns:.0} ns")).collect();
        if told.is_empty() { NO_COST.to_owned() } else { told.join(", ") }
    };
    let mut costs: BTreeMap<&str, String> = BTreeMap::new();
    let shared: Vec<f64> = measured(None)?.into_iter().map(|(first, _)| first).collect();
    costs.insert(SHARED, words(&shared));
    for rule in &RULES {
        let more: Vec<f64> = measured(Some(rule.name))?.into_iter().map(|(_, more)| more).collect();
        costs.insert(rule.name, words(&more));
    }
    let table =
        table(&rows()?, |name| costs.get(name).cloned().unwrap_or_else(|| NO_COST.to_owned()));
    let written = std::fs::read_to_string(file()).unwrap_or_default();
    let history = written.find(HISTORY).and_then(|at| written.get(at..)).unwrap_or_default();
    Ok(table + history)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The measured column of a table, by detector.
    fn costs(text: &str) -> BTreeMap<String, String> {
        let cells = |line: &str| line.split(" | ").map(str::to_owned).collect::<Vec<_>>();
        let rows = text.lines().filter(|line| line.starts_with("| `")).map(cells);
        rows.filter_map(|cells| {
            Some((cells.first()?.trim_matches(['|', ' ', '`']).to_owned(), cells.get(4)?.clone()))
        })
        .collect()
    }

    #[test]
    fn the_table_is_current() {
        let whole = std::fs::read_to_string(file()).expect("docs/detectors.md");
        let ends = whole.find(HISTORY).unwrap_or(whole.len());
        let (written, history) = whole.split_at(ends);
        let costs = costs(written);
        let cost = |name: &str| costs.get(name).cloned().unwrap_or_else(|| "to be measured".into());
        let current = table(&rows().unwrap(), cost);
        if std::env::var_os("AGENTMON_BLESS").is_some() {
            std::fs::write(file(), current + history).unwrap();
            return;
        }
        assert!(
            written == current,
            "docs/detectors.md is not what the code says: `./dev bench --detectors > \
             docs/detectors.md` measures and writes it, AGENTMON_BLESS=1 cargo test -p \
             agentmon-bench writes it with the costs it has"
        );
    }

    #[test]
    fn every_detector_is_shown_by_a_scenario_with_a_twin() {
        for row in rows().unwrap().iter().filter(|row| row.name != SHARED) {
            assert!(!row.shown_by.is_empty(), "{} has no scenario in tests/scenarios", row.name);
            for cell in [&row.tells, &row.needs, &row.threshold, &row.runs, &row.shown_by] {
                assert!(!cell.is_empty() && !cell.contains('|'), "{}: {cell}", row.name);
            }
        }
    }

    /// A scenario whose twin is missing or not silent shows nothing.
    #[test]
    fn scenarios_without_a_silent_twin_do_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let folder = folder.path().join(name);
            std::fs::create_dir(&folder).unwrap();
            std::fs::write(folder.join("expect.toml"), text).unwrap();
        };
        write("a", "twin = 'a2'\n[[finding]]\nrule = 'dga'\n[[finding]]\nrule = 'dga'\n");
        write("a2", "twin = 'a'\n");
        write("b", "twin = 'gone'\n[[finding]]\nrule = 'scan'\n");
        write("c", "twin = 'a'\n[[finding]]\nrule = 'beacon'\n");
        let found = scenarios(folder.path()).unwrap();
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [("dga".into(), "a, not a2".into())]);
    }

    #[test]
    fn the_measured_column_is_found() {
        let row = |cost: &str| format!("{HEAD}| `x-y` | t | n | 3 in 4 s | {cost} | r | s |\n");
        let expected = [("x-y".to_owned(), "DNS 40 ns".to_owned())];
        assert!(costs(&row("DNS 40 ns")).into_iter().eq(expected));
    }
}
