//! Detectors over the past with other thresholds: what they would have found, beside what was.
//!
//! In: a connection of one's own to read on, the settings in force, other values of some of
//! them, a span. Out: [`Row`]s: each thing that was found, is found, or both. Runs where the
//! store is, on the thread of whoever asks; writes nothing but temporary tables of its
//! connection, which go with it.
//!
//! Only detectors whose section of the settings is touched run again, at the moments at which
//! rounds would have run them, no more often than once in [`Wish::step`]. Baselines are those
//! of then: the tables of habits and hours are copied as they were at the begin (days are
//! bits, and bits of later days are taken off), and learn on as the moments pass.
//!
//! What cannot be known: in which order events had arrived, flows that were open then, what a
//! reset has forgotten since. What goes by the clock (silence, new entries of lists) is not tried.
//!
//! Bounds: [`RUNS_MAX`] runs, the caller's deadline.

use std::collections::BTreeMap;
use std::time::Duration;

use agentmon_core::Timestamp;
use agentmon_core::finding::{Finding, Severity};
use anyhow::Context as _;
use duckdb::{Connection, params};
use serde_json::{Value, json};

use super::{Config, Windowed, baseline, registry};
use crate::alert;
use crate::control::{Reply, Request};
use crate::store::StoreError;
use crate::store::found::HUB;
use crate::store::query::Deadline;

/// Runs of detectors in one test of the past: a week of all of them by the hour is 1,400.
pub(crate) const RUNS_MAX: usize = 20_000;
/// The span where none is given.
const SPAN: Duration = Duration::from_secs(7 * 86_400);
/// What the detector of baselines may leave out between two moments without missing an hour.
const STEP_MAX: Duration = Duration::from_secs(5 * 3_600);

/// What to try.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) since: Timestamp,
    pub(crate) until: Timestamp,
    /// Detectors run no more often than this.
    pub(crate) step: Duration,
    /// `SECTION.KEY=VALUE`, with or without `detect.` before it.
    pub(crate) set: Vec<String>,
    /// Compare with what the settings in force find when they are run again, not with what
    /// was stored then.
    pub(crate) again: bool,
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BacktestError {
    /// The wish makes no sense.
    #[error("{0}")]
    Wish(String),
    /// What the store says.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// One rule's word on one subject of one device, however often it was said.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Told {
    /// One of its addresses.
    pub(crate) client: Option<String>,
    pub(crate) mac: Option<String>,
    pub(crate) first: Timestamp,
    /// The highest, with its sentence.
    pub(crate) score: f64,
    pub(crate) why: String,
    pub(crate) times: u64,
}

/// One line of the comparison.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) rule: String,
    pub(crate) subject: String,
    pub(crate) was: Option<Told>,
    pub(crate) now: Option<Told>,
}

impl Row {
    /// `gained`, `lost`, `same`.
    pub(crate) const fn change(&self) -> &'static str {
        match (&self.was, &self.now) {
            (None, _) => "gained",
            (_, None) => "lost",
            _ => "same",
        }
    }
}

/// The columns of a row of the answer.
pub(crate) const COLUMNS: [&str; 11] = [
    "change",
    "rule",
    "subject",
    "client",
    "mac",
    "score",
    "was_score",
    "first_seen",
    "times",
    "why",
    "severity",
];

/// Answers a request, as rows; ends with the deadline.
///
/// # Errors
/// As [`run`], and when the time is over.
pub(crate) fn answer(
    db: &Connection,
    config: &Config,
    request: &Request,
) -> anyhow::Result<Vec<Reply>> {
    let Request::Backtest { set, since_us, until_us, step_s, again, timeout_ms, .. } = request
    else {
        anyhow::bail!("no test of the past was asked for");
    };
    let newest = "SELECT epoch_us(max(time)) FROM (
        SELECT max(time) AS time FROM flows UNION ALL SELECT max(time) FROM dns)";
    let until = match until_us {
        Some(until) => Some(*until),
        None => db.query_row(newest, [], |row| row.get(0))?,
    };
    let until = Timestamp::from_micros(until.context("the store has no events")?);
    let wish = Wish {
        since: since_us.map_or(until.minus(SPAN), Timestamp::from_micros),
        until,
        step: Duration::from_secs(*step_s),
        set: set.clone(),
        again: *again,
    };
    let deadline = Deadline::start(db, *timeout_ms);
    let rows = run(db, config, &wish);
    if deadline.stop() && rows.is_err() {
        return Err(StoreError::TimedOut(*timeout_ms).into());
    }
    let rows = rows?;
    let mut replies = vec![Reply::Columns {
        names: COLUMNS.map(str::to_owned).to_vec(),
        types: vec!["VARCHAR".to_owned(); COLUMNS.len()],
    }];
    let count = rows.len() as u64;
    replies.extend(rows.iter().filter_map(values).map(|values| Reply::Row { values }));
    replies.push(Reply::Done { count, truncated: false });
    Ok(replies)
}

/// In the order of [`COLUMNS`]; what is found now comes before what was.
fn values(row: &Row) -> Option<Vec<Value>> {
    let told = row.now.as_ref().or(row.was.as_ref())?;
    Some(vec![
        json!(row.change()),
        json!(row.rule),
        json!(row.subject),
        json!(told.client),
        json!(told.mac),
        json!(row.now.as_ref().map(|now| now.score)),
        json!(row.was.as_ref().map(|was| was.score)),
        json!(told.first.to_string()),
        json!(told.times),
        json!(told.why),
        json!(Severity::from_score(told.score).as_str()),
    ])
}

/// Rule, device (or lone address), subject.
type Key = (String, String, String);
type All = BTreeMap<Key, Told>;

/// Runs the detectors again and compares.
///
/// # Errors
/// Settings that do not exist, too many moments, or what DuckDB says.
pub(crate) fn run(
    db: &Connection,
    config: &Config,
    wish: &Wish,
) -> Result<Vec<Row>, BacktestError> {
    let wrong = |why: String| Err(BacktestError::Wish(why));
    let (changed, sections) = patched(config, &wish.set).map_err(BacktestError::Wish)?;
    if wish.since >= wish.until {
        return wrong("--since lies after --until: nothing lies between".into());
    }
    let touched = |section: &str| sections.is_empty() || sections.iter().any(|s| s == section);
    let moments = moments(&registry(&changed), &touched, wish);
    if moments.len() > RUNS_MAX {
        return wrong(format!(
            "{} runs of detectors are too many (at most {RUNS_MAX}): a later --since, an earlier \
             --until, or a longer --step",
            moments.len()
        ));
    }
    let was = match wish.again {
        true => replay(db, config, &touched, wish)?,
        false => stored(db, &touched, wish)?,
    };
    let now = replay(db, &changed, &touched, wish)?;
    Ok(compare(was, now))
}

/// The settings with other values, and the sections they are of.
fn patched(config: &Config, set: &[String]) -> Result<(Config, Vec<String>), String> {
    let mut all = toml::Table::try_from(config).map_err(|e| e.to_string())?;
    let mut sections = Vec::new();
    for line in set {
        let (key, text) = line.split_once('=').ok_or(format!("`{line}`: want KEY=VALUE"))?;
        let key = key.trim();
        let key = key.strip_prefix("detect.").unwrap_or(key);
        let (section, name) = key
            .split_once('.')
            .ok_or(format!("`{key}`: want detect.SECTION.KEY, as in hub.toml"))?;
        let known: Vec<String> =
            all.iter().filter(|(_, v)| v.is_table()).map(|(k, _)| k.clone()).collect();
        let table = all.get_mut(section).and_then(toml::Value::as_table_mut);
        let table = table.ok_or(format!("`{section}`: no such section; {}", known.join(", ")))?;
        let names = table.keys().cloned().collect::<Vec<_>>().join(", ");
        let old = table.get_mut(name).ok_or(format!("`{key}`: no such setting; {names}"))?;
        *old = value(text.trim(), old);
        sections.push(section.to_owned());
    }
    let config: Config = all.try_into().map_err(|e| format!("--set: {}", toml_says(&e)))?;
    config.validate().map_err(|(key, allowed)| format!("detect.{key}: {allowed}"))?;
    Ok((config, sections))
}

/// As TOML, or as text; a whole number where a fraction was is one too.
fn value(text: &str, old: &toml::Value) -> toml::Value {
    let parsed = format!("x = {text}").parse::<toml::Table>().ok().and_then(|mut t| t.remove("x"));
    match (parsed, old) {
        (Some(toml::Value::Integer(n)), toml::Value::Float(_)) => toml::Value::Float(n as f64),
        (Some(value), _) => value,
        (None, _) => toml::Value::String(text.to_owned()),
    }
}

/// The first line: the rest points into a file that there is not.
fn toml_says(error: &toml::de::Error) -> String {
    error.message().lines().next().unwrap_or_default().to_owned()
}

/// The section of the settings that a rule is of; none, where it is no detector's over history
/// (authority, advice), goes by what lists or the table of programs say today, or judges the
/// clock.
fn section(rule: &str) -> Option<&'static str> {
    Some(match rule {
        "new-domain" | "off-profile" | "volume-anomaly" => "baseline",
        "beacon" => "beacon",
        "unreported" => "unreported",
        "destination" | "exfil" | "exfil-dns" | "fan-out" | "home-peer" | "inner-scan"
        | "lasting-address" | "lateral" | "long" | "off-hours" | "rare-port" | "strobe" => "leaks",
        _ => return None,
    })
}

/// The section that a detector is set by.
fn section_of_detector(name: &str) -> &str {
    match name {
        "baseline" | "beacon" | "programs" | "unreported" => name,
        _ => "leaks",
    }
}

/// When which detector judges: times, and positions in the registry.
fn moments(
    detectors: &[Box<dyn Windowed>],
    touched: &dyn Fn(&str) -> bool,
    wish: &Wish,
) -> Vec<(Timestamp, usize)> {
    let mut moments = Vec::new();
    for (at, detector) in detectors.iter().enumerate() {
        if detector.by_clock() || !touched(section_of_detector(detector.name())) {
            continue;
        }
        let step = detector.every().max(wish.step.min(STEP_MAX)).max(Duration::from_secs(1));
        let us = i64::try_from(step.as_micros()).unwrap_or(i64::MAX);
        let mut moment = Timestamp::from_micros((wish.since.micros().div_euclid(us) + 1) * us);
        while moment < wish.until && moments.len() <= RUNS_MAX {
            moments.push((moment, at));
            moment = moment.plus(step);
        }
        moments.push((wish.until, at));
    }
    moments.sort_by_key(|(moment, at)| (*moment, *at));
    moments
}

/// What these settings find, with the baselines of then.
fn replay(
    db: &Connection,
    config: &Config,
    touched: &dyn Fn(&str) -> bool,
    wish: &Wish,
) -> Result<All, StoreError> {
    baseline::as_of(db, &config.baseline, wish.since)?;
    let mut detectors = registry(config);
    let mut all = All::new();
    for (moment, at) in moments(&detectors, touched, wish) {
        let Some(detector) = detectors.get_mut(at) else { continue };
        for finding in detector.run(db, moment)? {
            let (key, told) = told(db, &finding, moment)?;
            add(&mut all, key, told);
        }
        if let Some(learnt) = detector.learn() {
            learnt(db)?;
        }
    }
    Ok(all)
}

/// A finding with its device, where only the address is told.
fn told(db: &Connection, finding: &Finding, time: Timestamp) -> Result<(Key, Told), StoreError> {
    let client = finding.client.map(|ip| ip.to_string());
    let mac = match (finding.mac, &client) {
        (Some(mac), _) => Some(mac.to_string()),
        (None, None) => None,
        (None, Some(ip)) => {
            let sql = "SELECT max(device) FROM address_owners WHERE address = $1
                 AND owned_since <= make_timestamp($2) AND owned_until > make_timestamp($2)";
            db.query_row(sql, params![ip, time.micros()], |row| row.get(0))?
        }
    };
    let who = mac.clone().or_else(|| client.clone()).unwrap_or_default();
    let key = (finding.rule.clone(), who, finding.subject.clone());
    let (score, why) = (alert::score(finding), finding.why.clone());
    Ok((key, Told { client, mac, first: time, score, why, times: 1 }))
}

/// What the hub had found and stored.
fn stored(db: &Connection, touched: &dyn Fn(&str) -> bool, wish: &Wish) -> Result<All, StoreError> {
    let sql = "SELECT rule, subject, client, mac, epoch_us(time), score, why FROM findings
         WHERE sensor = ? AND time > make_timestamp(?) AND time <= make_timestamp(?) ORDER BY id";
    let mut statement = db.prepare(sql)?;
    let mut rows = statement.query(params![HUB, wish.since.micros(), wish.until.micros()])?;
    let mut all = All::new();
    while let Some(row) = rows.next()? {
        let (rule, subject): (String, String) = (row.get(0)?, row.get(1)?);
        if !section(&rule).is_some_and(touched) {
            continue;
        }
        let (client, mac): (Option<String>, Option<String>) = (row.get(2)?, row.get(3)?);
        let who = mac.clone().or_else(|| client.clone()).unwrap_or_default();
        let first = Timestamp::from_micros(row.get(4)?);
        let told = Told { client, mac, first, score: row.get(5)?, why: row.get(6)?, times: 1 };
        add(&mut all, (rule, who, subject), told);
    }
    Ok(all)
}

fn add(all: &mut All, key: Key, told: Told) {
    let Some(known) = all.get_mut(&key) else {
        all.insert(key, told);
        return;
    };
    known.times += told.times;
    known.first = known.first.min(told.first);
    if told.score > known.score {
        (known.score, known.why) = (told.score, told.why);
    }
}

fn compare(mut was: All, now: All) -> Vec<Row> {
    let mut rows: Vec<Row> = now
        .into_iter()
        .map(|(key, now)| {
            let was = was.remove(&key);
            Row { rule: key.0, subject: key.2, was, now: Some(now) }
        })
        .collect();
    let lost = was.into_iter();
    rows.extend(lost.map(|((rule, _, subject), was)| Row {
        rule,
        subject,
        was: Some(was),
        now: None,
    }));
    let order = |row: &Row| match row.change() {
        "gained" => 0,
        "lost" => 1,
        _ => 2,
    };
    rows.sort_by(|a, b| (&a.rule, order(a)).cmp(&(&b.rule, order(b))));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(set: &[&str], expected: Result<&str, &str>) {
        let set: Vec<String> = set.iter().map(|line| (*line).to_owned()).collect();
        match (patched(&Config::default(), &set), expected) {
            (Ok((_, sections)), Ok(expected)) => assert_eq!(sections.join(" "), expected),
            (Err(got), Err(expected)) => assert!(got.contains(expected), "{got}"),
            (got, _) => panic!("{got:?}"),
        }
    }

    #[test]
    fn settings_are_those_of_the_configuration() {
        check(&[], Ok(""));
        check(&["detect.leaks.burst_bytes=2000000"], Ok("leaks"));
        check(&["baseline.volume_z=4", "detect.beacon.enabled = false"], Ok("baseline beacon"));
        check(&["baseline.timezone=Europe/Berlin"], Ok("baseline"));
        check(&["leaks.allow=[\"a.example\"]"], Ok("leaks"));
        check(&["burst_bytes"], Err("want KEY=VALUE"));
        check(&["learning=true"], Err("want detect.SECTION.KEY"));
        check(
            &["leak.burst_bytes=1"],
            Err("no such section; baseline, beacon, leaks, programs, retro, unreported"),
        );
        check(&["leaks.burst=1"], Err("`leaks.burst`: no such setting; "));
        check(&["leaks.burst_bytes=many"], Err("invalid type: string"));
        check(&["leaks.burst_bytes=1"], Err("detect.leaks.burst_bytes: want 1000000 to"));
        check(&["leaks.allow=[\"a b\"]"], Err("detect.leaks.allow"));
        let set = ["baseline.volume_z=4".to_owned()];
        let (config, _) = patched(&Config::default(), &set).unwrap();
        assert_eq!(config.baseline.volume_z, 4.0);
    }

    /// Or what they found would be called lost.
    #[test]
    fn every_rule_over_history_is_of_a_section_or_cannot_be_tried() {
        let not = [
            "ancestry",
            "authority",
            "new-program",
            "program-replaced",
            "retro-hunt",
            "second-opinion",
            "sensor-silent",
            "unknown-program",
        ];
        for rule in crate::detect::rules::RULES {
            assert_eq!(section(rule.name).is_none(), not.contains(&rule.name), "{}", rule.name);
        }
        let all = toml::Table::try_from(Config::default()).unwrap();
        for detector in registry(&Config::default()) {
            assert!(all.contains_key(section_of_detector(detector.name())));
        }
    }

    fn told(score: f64) -> Told {
        let first = Timestamp::from_secs(1);
        Told { client: None, mac: None, first, score, why: score.to_string(), times: 1 }
    }

    #[test]
    fn what_is_compared_is_rule_device_and_subject() {
        let key = |text: &str| {
            let words: Vec<String> = text.split(' ').map(str::to_owned).collect();
            (words[0].clone(), words[1].clone(), words[2].clone())
        };
        let all = |keys: &[&str]| {
            let mut all = All::new();
            keys.iter().for_each(|text| add(&mut all, key(text), told(0.5)));
            all
        };
        let was = all(&["exfil a x", "exfil b x", "long a y"]);
        let mut now = all(&["exfil a x", "exfil a x", "exfil c x"]);
        add(&mut now, key("exfil a x"), told(0.9));
        let rows = compare(was, now);
        let text: Vec<String> = rows
            .iter()
            .map(|row| format!("{} {} {}", row.rule, row.change(), row.subject))
            .collect();
        assert_eq!(text, ["exfil gained x", "exfil lost x", "exfil same x", "long lost y"]);
        let same = rows[2].now.as_ref().unwrap();
        assert_eq!((same.times, same.score, same.why.as_str()), (3, 0.9, "0.9"));
    }
}
