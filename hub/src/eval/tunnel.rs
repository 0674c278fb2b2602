//! How soon tunnels through DNS are found, and what is taken for one.
//!
//! In: recorded questions ([`super::tsv`]). Out: figures. Each file of positives is one tool;
//! it is played as recorded and at a hundredth of its speed, each time through a new engine
//! with the default settings. The negatives are played as recorded. Only findings of rule
//! `dns-tunnel` count as found; those of other rules are told by number.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agentmon_core::event::{Body, Event};
use agentmon_core::tier0::blocklist::Blocklist;
use agentmon_core::tier0::{Engine, Found, Tier0Config};
use agentmon_core::time::Timestamp;
use anyhow::Context as _;
use serde::Serialize;

use super::tsv::{self, Row, Rows};

/// The rule that is judged.
const RULE: &str = "dns-tunnel";
/// 2026-01-01: a clock that is set.
const BEGIN: Timestamp = Timestamp::from_secs(1_767_225_600);
/// Quiet time passes in steps like this.
const TICK: Duration = Duration::from_secs(30);
/// How many times slower the second play is.
const SLOWER: u32 = 100;
/// When a tool is found in time, as recorded.
const IN_TIME_SECONDS: f64 = 60.0;
/// The same at a hundredth of its speed.
const IN_TIME_SLOW_SECONDS: f64 = 600.0;
/// Most findings about negatives that are kept.
const SAID_MAX: usize = 50;

/// What came of a measurement.
#[derive(Debug, Serialize)]
pub struct Report {
    /// One for each file of positives.
    pub tools: Vec<Tool>,
    /// Every tool was found in time.
    pub all_found_in_time: bool,
    /// Ordinary questions, where given.
    pub negatives: Option<Quiet>,
}

/// One tool.
#[derive(Debug, Serialize)]
pub struct Tool {
    /// File name.
    pub file: String,
    /// Its questions.
    pub queries: usize,
    /// Rows that could not be read.
    pub bad_rows: usize,
    /// As recorded.
    pub first_finding: Option<First>,
    /// At a hundredth of its speed.
    pub first_finding_at_hundredth: Option<First>,
    /// Within 60 s, and within 10 minutes at a hundredth of its speed.
    pub found_in_time: bool,
}

/// The first finding about a tool.
#[derive(Debug, Serialize)]
pub struct First {
    /// Since the tool's begin, in the time of the play.
    pub seconds: f64,
    /// The tool's questions until then.
    pub queries: usize,
    /// The domain.
    pub subject: String,
    /// 0 to 1.
    pub score: f64,
    /// In words.
    pub why: String,
}

/// What was said of ordinary questions.
#[derive(Debug, Serialize)]
pub struct Quiet {
    /// File name.
    pub file: String,
    /// Rows read.
    pub queries: usize,
    /// Different clients.
    pub clients: usize,
    /// First to last question.
    pub hours: f64,
    /// Rows that could not be read.
    pub bad_rows: usize,
    /// Findings of the rule: none are right.
    pub findings: u64,
    /// The first of them.
    pub said: Vec<Said>,
    /// Findings of other rules, by rule.
    pub findings_of_other_rules: BTreeMap<String, u64>,
}

/// A finding about ordinary questions.
#[derive(Debug, Serialize)]
pub struct Said {
    /// Since the begin of the recording.
    pub seconds: f64,
    /// Whose questions; none: several clients'.
    pub client: Option<IpAddr>,
    /// The domain.
    pub subject: String,
    /// 0 to 1.
    pub score: f64,
    /// In words.
    pub why: String,
}

/// Plays a file or folder of positives, a file of negatives, or both.
///
/// # Errors
/// When a file cannot be read or holds no questions.
pub fn measure(positives: Option<&Path>, negatives: Option<&Path>) -> anyhow::Result<Report> {
    let mut tools = Vec::new();
    for file in positives.map(files).transpose()?.unwrap_or_default() {
        tools.push(tool(&file, &tsv::read(&file, true)?));
    }
    let negatives = match negatives {
        Some(file) => Some(quiet(file, &tsv::read(file, false)?)),
        None => None,
    };
    let all_found_in_time = tools.iter().all(|tool| tool.found_in_time);
    Ok(Report { tools, all_found_in_time, negatives })
}

/// The file, or every `.tsv` and `.tsv.gz` in the folder.
fn files(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let listed = std::fs::read_dir(path).with_context(|| format!("opening {}", path.display()))?;
    let mut files: Vec<PathBuf> = listed.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| {
        let name = name_of(file);
        name.ends_with(".tsv") || name.ends_with(".tsv.gz")
    });
    files.sort();
    anyhow::ensure!(!files.is_empty(), "{} holds no .tsv or .tsv.gz file", path.display());
    Ok(files)
}

fn name_of(file: &Path) -> String {
    file.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Plays rows, each so many times as late; `hear` gets what is found with the number of the
/// row that made it, and says whether to go on.
fn play(rows: &[Row], slower: u32, mut hear: impl FnMut(Duration, usize, &Found) -> bool) {
    let mut engine = Engine::new(&Tier0Config::default(), Blocklist::default());
    let (mut now, mut found) = (Duration::ZERO, Vec::new());
    for (number, row) in rows.iter().enumerate() {
        let at = row.at.saturating_mul(slower);
        while now + TICK < at {
            now += TICK;
            engine.on_tick(BEGIN.plus(now), &mut found);
        }
        now = at;
        let mut event = Event { time: BEGIN.plus(at), body: Body::Dns(row.dns.clone()) };
        engine.on_event(&mut event, &mut found);
        for found in found.drain(..) {
            if !hear(at, number, &found) {
                return;
            }
        }
    }
}

fn tool(file: &Path, rows: &Rows) -> Tool {
    let full = first(&rows.rows, 1);
    let slow = first(&rows.rows, SLOWER);
    let in_time = |first: &Option<First>, limit| first.as_ref().is_some_and(|f| f.seconds <= limit);
    Tool {
        file: name_of(file),
        queries: rows.rows.iter().filter(|row| row.tunnel).count(),
        bad_rows: rows.bad,
        found_in_time: in_time(&full, IN_TIME_SECONDS) && in_time(&slow, IN_TIME_SLOW_SECONDS),
        first_finding: full,
        first_finding_at_hundredth: slow,
    }
}

/// The first finding that a question of the tunnel made, counted from the tunnel's begin.
fn first(rows: &[Row], slower: u32) -> Option<First> {
    let begin = rows.iter().find(|row| row.tunnel)?.at.saturating_mul(slower);
    let mut first = None;
    play(rows, slower, |at, number, found| {
        let rows = rows.get(..=number).unwrap_or_default();
        let by_tunnel = rows.last().is_some_and(|row| row.tunnel);
        if found.finding.rule != RULE || !by_tunnel {
            return true;
        }
        first = Some(First {
            seconds: at.saturating_sub(begin).as_secs_f64(),
            queries: rows.iter().filter(|row| row.tunnel).count(),
            subject: found.finding.subject.clone(),
            score: found.finding.score,
            why: found.finding.why.clone(),
        });
        false
    });
    first
}

fn quiet(file: &Path, rows: &Rows) -> Quiet {
    let (mut said, mut others, mut findings) = (Vec::new(), BTreeMap::<String, u64>::new(), 0);
    play(&rows.rows, 1, |at, _, found| {
        let finding = &found.finding;
        if finding.rule != RULE {
            *others.entry(finding.rule.clone()).or_default() += 1;
            return true;
        }
        findings += 1;
        if said.len() < SAID_MAX {
            said.push(Said {
                seconds: at.as_secs_f64(),
                client: finding.client,
                subject: finding.subject.clone(),
                score: finding.score,
                why: finding.why.clone(),
            });
        }
        true
    });
    let clients: BTreeSet<IpAddr> = rows.rows.iter().map(|row| row.dns.client).collect();
    let ends = rows.rows.first().zip(rows.rows.last());
    let span = ends.map_or(Duration::ZERO, |(first, last)| last.at.saturating_sub(first.at));
    Quiet {
        file: name_of(file),
        queries: rows.rows.len(),
        clients: clients.len(),
        hours: span.as_secs_f64() / 3_600.0,
        bad_rows: rows.bad,
        findings,
        said,
        findings_of_other_rules: others,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    /// A file of questions, one every `seconds`.
    fn written(dir: &Path, name: &str, seconds: f64, names: impl Iterator<Item = String>) {
        let mut file = std::fs::File::create(dir.join(name)).unwrap();
        writeln!(file, "t_s\tqtype\tname").unwrap();
        for (n, name) in names.enumerate() {
            writeln!(file, "{}\tA\t{name}", n as f64 * seconds).unwrap();
        }
    }

    /// Letters and digits without a pattern.
    fn scatter(n: usize, length: usize) -> String {
        let mut state = n as u64 + 1;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            b"abcdefghijklmnopqrstuvwxyz234567"[(state >> 59) as usize] as char
        };
        (0..length).map(|_| next()).collect()
    }

    #[test]
    fn a_tool_and_a_quiet_day() {
        let dir = tempfile::tempdir().unwrap();
        let tools = dir.path().join("tools");
        std::fs::create_dir(&tools).unwrap();
        let long = |n| format!("{}.{}.{}.evil.example", scatter(n, 60), scatter(n + 9_999, 60), n);
        written(&tools, "fast.tsv", 0.5, (0..200).map(long));
        written(&tools, "shy.tsv", 0.5, (0..3).map(long));
        let hosts = (0..5_000).map(|n| format!("www{}.shop{}.example", n % 9, n % 70));
        written(dir.path(), "day.tsv", 17.0, hosts);
        let report = measure(Some(&tools), Some(&dir.path().join("day.tsv"))).unwrap();
        let found: Vec<(&str, bool)> =
            report.tools.iter().map(|t| (t.file.as_str(), t.found_in_time)).collect();
        assert_eq!(found, [("fast.tsv", true), ("shy.tsv", false)]);
        let first = report.tools[0].first_finding.as_ref().unwrap();
        assert_eq!(first.subject, "evil.example");
        assert_eq!(first.queries, (first.seconds / 0.5) as usize + 1);
        let quiet = report.negatives.unwrap();
        assert_eq!((quiet.queries, quiet.clients, quiet.findings), (5_000, 1, 0));
        assert!(!report.all_found_in_time && quiet.hours > 23.0);
    }

    #[test]
    fn a_folder_without_tables_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(measure(Some(dir.path()), None).is_err());
        assert!(measure(None, Some(&dir.path().join("none"))).is_err());
    }
}
