//! What the store knows of cases, calls and opinions.
//!
//! In: a connection. Out: cases to ask about, earlier opinions, a day's spending; statements
//! that keep calls and opinions. Reads on a reader's connection; writes run inside the
//! writer's transaction that also stores what was found.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use agentmon_core::Timestamp;
use agentmon_core::event::Mac;
use agentmon_core::finding::Severity;
use agentmon_core::suffix;
use duckdb::{Connection, params};

use super::advise::Advice;
use super::answer::{Confidence, Judgement, Verdict};
use super::case::{self, Case, FACTS_MAX};
use super::wire::Usage;
use crate::alert::rules::{self, OPINION};
use crate::destinations::Destinations;
use crate::store::StoreError;

/// Names are looked at in the questions of so many days.
const LOOK_DAYS: u32 = 30;
/// Calls are kept so long, opinions with them.
const KEEP_DAYS: u32 = 90;
/// Longest request or response kept.
const TEXT_MAX: usize = 256 * 1_024;

/// A case, and whom a finding about it concerns.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) case: Case,
    pub(super) client: Option<IpAddr>,
    pub(super) mac: Option<Mac>,
}

/// The open alerts nobody has an opinion about: the gravest, then the newest.
///
/// # Errors
/// What DuckDB says.
pub(super) fn pending(
    connection: &Connection,
    least: Severity,
    most: usize,
    now: Timestamp,
) -> Result<Vec<Pending>, StoreError> {
    let words: Vec<String> = Severity::ALL
        .iter()
        .filter(|s| **s >= least)
        .map(|s| format!("'{}'", s.as_str()))
        .collect();
    let sql = format!(
        "SELECT a.id, a.rule, a.score, a.subject, a.client, a.mac, a.findings,
             epoch_us(a.first_seen),
             (SELECT string_agg(DISTINCT p.rule, ' ') FROM alert_parts p WHERE p.alert = a.id),
             (SELECT max_by(f.evidence, f.score) FROM findings f WHERE f.alert = a.id)
         FROM alerts a
         WHERE a.status = 'open' AND a.severity IN ({})
             AND NOT EXISTS (FROM llm_opinions o WHERE o.alert = a.id
                 AND (o.expires > make_timestamp(?) OR o.time >= a.last_seen))
         ORDER BY a.score DESC, a.last_seen DESC, a.id LIMIT {most}",
        words.join(", ")
    );
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query([now.micros()])?;
    let mut pending = Vec::new();
    while let Some(row) = rows.next()? {
        pending.push(read(row, now)?);
    }
    add_context(connection, &mut pending, now)?;
    Ok(pending)
}

/// Of these rules those that this program has, in order: a sensor may have made up others.
fn known_rules(rules: &str) -> (String, bool) {
    let own = |rule: &&str| *rule != OPINION && rules::of(rule).name == *rule;
    let mut known: Vec<&str> = rules.split(' ').filter(own).collect();
    known.sort_unstable();
    let bad = known.iter().any(|rule| rules::of(rule).known_bad);
    (if known.is_empty() { "another rule".to_owned() } else { known.join(" ") }, bad)
}

fn read(row: &duckdb::Row<'_>, now: Timestamp) -> Result<Pending, StoreError> {
    let (client, mac): (Option<String>, Option<String>) = (row.get(4)?, row.get(5)?);
    let findings: u64 = row.get(6)?;
    let since = now.since(Timestamp::from_micros(row.get(7)?));
    let (rule, parts): (String, Option<String>) = (row.get(1)?, row.get(8)?);
    let evidence: Option<String> = row.get(9)?;
    let (rules, known_bad) = known_rules(parts.as_deref().unwrap_or(&rule));
    let mut facts = vec![
        format!("told {findings} times, by: {rules}"),
        format!("first told {} ago", age(since)),
    ];
    let evidence: serde_json::Map<String, serde_json::Value> =
        evidence.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    let numbers = evidence.iter().filter_map(|(key, value)| case::number(key, value.as_str()?));
    facts.extend(numbers.take(FACTS_MAX / 2));
    let subject: String = row.get(3)?;
    let case = Case {
        alert: row.get(0)?,
        rules,
        known_bad,
        score: row.get(2)?,
        subject: case::subject(&subject),
        facts,
    };
    Ok(Pending {
        case,
        client: client.and_then(|c| c.parse().ok()),
        mac: mac.and_then(|m| m.parse().ok()),
    })
}

/// In the largest unit that fits, rounded down: `3 days`.
fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    let (n, unit) = match seconds {
        0..60 => (seconds, "seconds"),
        60..3_600 => (seconds / 60, "minutes"),
        3_600..86_400 => (seconds / 3_600, "hours"),
        _ => (seconds / 86_400, "days"),
    };
    format!("{n} {unit}")
}

/// What the network knows of names, and what kind of network addresses are in.
fn add_context(
    connection: &Connection,
    pending: &mut [Pending],
    now: Timestamp,
) -> Result<(), StoreError> {
    let domains: HashMap<String, String> = pending
        .iter()
        .filter_map(|p| Some((p.case.subject.clone(), registrable(&p.case.subject)?)))
        .collect();
    let known = names(connection, domains.values(), now)?;
    let networks = Destinations::built_in();
    for one in pending {
        let context = match domains.get(&one.case.subject) {
            Some(domain) => match known.get(domain) {
                Some(facts) => facts.clone(),
                None => vec![format!("nobody asked for it in {LOOK_DAYS} days")],
            },
            None => address(&one.case.subject)
                .map(|ip| {
                    vec![format!(
                        "the address is in a network of the kind {}",
                        networks.of(ip).class.as_str()
                    )]
                })
                .unwrap_or_default(),
        };
        one.case.facts.extend(context);
        one.case.facts.truncate(FACTS_MAX);
    }
    Ok(())
}

fn registrable(subject: &str) -> Option<String> {
    let name: agentmon_core::Name = subject.parse().ok()?;
    let domain = suffix::domain(name.as_str()).unwrap_or(name.as_str()).to_owned();
    address(subject).is_none().then_some(domain)
}

/// The address of `203.0.113.9`, `203.0.113.9:443/tcp`, `[2001:db8::1]:443/tcp`.
fn address(subject: &str) -> Option<IpAddr> {
    let host = subject.split('/').next()?;
    if let Ok(ip) = host.parse() {
        return Some(ip);
    }
    let (host, _) = host.rsplit_once(':')?;
    host.trim_matches(['[', ']']).parse().ok()
}

fn names<'a>(
    connection: &Connection,
    domains: impl Iterator<Item = &'a String>,
    now: Timestamp,
) -> Result<HashMap<String, Vec<String>>, StoreError> {
    let domains: Vec<duckdb::types::Value> =
        domains.map(|d| duckdb::types::Value::Text(d.clone())).collect();
    if domains.is_empty() {
        return Ok(HashMap::new());
    }
    let places = vec!["?"; domains.len()].join(", ");
    let sql = format!(
        "SELECT domain, count(*), count(DISTINCT coalesce(mac, client)), count(DISTINCT name),
             epoch_us(min(time)), 100 * count(*) FILTER (status = 'nxdomain') // count(*)
         FROM dns WHERE domain IN ({places}) AND time > make_timestamp({}) - INTERVAL {LOOK_DAYS} DAY
         GROUP BY domain",
        now.micros()
    );
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query(duckdb::params_from_iter(domains))?;
    let mut known = HashMap::new();
    while let Some(row) = rows.next()? {
        let (asked, devices, names): (i64, i64, i64) = (row.get(1)?, row.get(2)?, row.get(3)?);
        let first = now.since(Timestamp::from_micros(row.get(4)?));
        let gone: i64 = row.get(5)?;
        let facts = vec![
            format!("asked for {asked} times by {devices} devices"),
            format!("{names} different names below it"),
            format!("first asked for {} ago", age(first)),
            format!("{gone} percent of the answers said that there is no such name"),
        ];
        known.insert(row.get(0)?, facts);
    }
    Ok(known)
}

/// An earlier opinion about the same, that still holds.
///
/// # Errors
/// What DuckDB says.
pub(super) fn earlier(
    connection: &Connection,
    digest: &str,
    now: Timestamp,
) -> Result<Option<Verdict>, StoreError> {
    let sql = "SELECT verdict, category, confidence, facts, note FROM llm_opinions
         WHERE digest = ? AND expires > make_timestamp(?) AND call IS NOT NULL
         ORDER BY time DESC LIMIT 1";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query(params![digest, now.micros()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let (judgement, confidence): (String, String) = (row.get(0)?, row.get(2)?);
    let facts: String = row.get(3)?;
    let verdict = Verdict {
        judgement: Judgement::ALL
            .into_iter()
            .find(|j| j.as_str() == judgement)
            .unwrap_or(Judgement::Unknown),
        category: row.get(1)?,
        confidence: Confidence::ALL
            .into_iter()
            .find(|c| c.as_str() == confidence)
            .unwrap_or(Confidence::Low),
        facts: facts.split_whitespace().map(str::to_owned).collect(),
        note: row.get(4)?,
    };
    Ok(Some(verdict))
}

/// What a tier has used on the day of `now` (UTC).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Spent {
    pub(super) requests: u64,
    pub(super) tokens: u64,
    pub(super) micro_usd: u64,
}

/// # Errors
/// What DuckDB says.
pub(super) fn spent(
    connection: &Connection,
    tier: u8,
    now: Timestamp,
) -> Result<Spent, StoreError> {
    let sql = "SELECT count(*)::UBIGINT, coalesce(sum(read + written), 0)::UBIGINT,
             coalesce(sum(micro_usd), 0)::UBIGINT
         FROM llm_calls WHERE tier = ? AND time >= date_trunc('day', make_timestamp(?))";
    Ok(connection.query_row(sql, params![tier, now.micros()], |row| {
        Ok(Spent { requests: row.get(0)?, tokens: row.get(1)?, micro_usd: row.get(2)? })
    })?)
}

/// A call as it is kept.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) time: Timestamp,
    pub(super) tier: u8,
    pub(super) endpoint: String,
    pub(super) model: String,
    pub(super) answered: String,
    pub(super) prompt: u32,
    pub(super) request: String,
    pub(super) response: String,
    pub(super) cases: usize,
    pub(super) latency: Duration,
    pub(super) usage: Usage,
    pub(super) micro_usd: u64,
    pub(super) outcome: String,
}

/// An opinion as it is kept.
#[derive(Clone, Debug)]
pub(super) struct Opinion {
    pub(super) alert: i64,
    pub(super) tier: u8,
    /// From the call kept with it; else an earlier opinion.
    pub(super) fresh: bool,
    pub(super) digest: String,
    pub(super) verdict: Verdict,
    pub(super) advice: Advice,
    pub(super) expires: Timestamp,
}

fn bounded(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}

/// Keeps a call and the opinions that came of it (or only opinions).
///
/// # Errors
/// What DuckDB says.
pub(super) fn keep(
    connection: &Connection,
    call: Option<&Call>,
    opinions: &[Opinion],
    now: Timestamp,
) -> Result<(), StoreError> {
    let id = call.map(|call| keep_call(connection, call)).transpose()?;
    let mut insert = connection.prepare(
        "INSERT INTO llm_opinions VALUES (make_timestamp(?), ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,
             make_timestamp(?))",
    )?;
    for opinion in opinions {
        let verdict = &opinion.verdict;
        let advice = match opinion.advice {
            Advice::Note => "note",
            Advice::ProbablyBenign => "probably-benign",
            Advice::Raise(_) => "raised",
        };
        insert.execute(params![
            now.micros(),
            opinion.alert,
            opinion.tier,
            id.filter(|_| opinion.fresh),
            opinion.digest,
            verdict.judgement.as_str(),
            verdict.category,
            verdict.confidence.as_str(),
            verdict.facts.join(" "),
            verdict.note,
            advice,
            opinion.expires.micros()
        ])?;
    }
    Ok(())
}

fn keep_call(connection: &Connection, call: &Call) -> Result<i64, StoreError> {
    let sql = "INSERT INTO llm_calls VALUES (nextval('llm_call'), make_timestamp(?), ?, ?, ?, ?, ?,
             ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id";
    Ok(connection.query_row(
        sql,
        params![
            call.time.micros(),
            call.tier,
            call.endpoint,
            call.model,
            bounded(&call.answered),
            call.prompt,
            bounded(&call.request),
            bounded(&call.response),
            u32::try_from(call.cases).unwrap_or(u32::MAX),
            u64::try_from(call.latency.as_millis()).unwrap_or(u64::MAX),
            call.usage.read,
            call.usage.cached,
            call.usage.written,
            call.micro_usd,
            call.outcome
        ],
        |row| row.get(0),
    )?)
}

/// Calls and opinions older than [`KEEP_DAYS`] go.
///
/// # Errors
/// What DuckDB says.
pub(super) fn forget(connection: &Connection, now: Timestamp) -> Result<(), StoreError> {
    for table in ["llm_calls", "llm_opinions"] {
        let sql = format!(
            "DELETE FROM {table} WHERE time < make_timestamp(?) - INTERVAL {KEEP_DAYS} DAY"
        );
        connection.execute(&sql, [now.micros()])?;
    }
    Ok(())
}

/// The tier and the body of a call.
///
/// # Errors
/// What DuckDB says.
pub(super) fn request(
    connection: &Connection,
    id: i64,
) -> Result<Option<(u8, String, String)>, StoreError> {
    let sql = "SELECT tier, request, response FROM llm_calls WHERE id = ?";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([id])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    Ok(Some((row.get(0)?, row.get(1)?, row.get(2)?)))
}
