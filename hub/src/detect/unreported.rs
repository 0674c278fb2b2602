//! `unreported`: connections of a host that its own agent did not tell of.
//!
//! In: flows as routers saw them, connections as agents on hosts told them; a router's tuple
//! before it translates addresses is the host's own. Out: one finding for each address of a
//! host, about an hour: how many connections nobody on the host owned up to, and where they
//! went. Either the agent is blind (containers, virtual machines behind the host's address), or
//! somebody goes around it.
//!
//! Judged only while the agent was there: it told of something of this address before and
//! after; what happened while it was being restarted (it tells of that, [`RESTART_S`] at most)
//! nobody could tell. An agent that only looks now and then owes no short connections: of it only flows of
//! [`LOOKED_AT`] and longer count.

use std::net::IpAddr;
use std::time::Duration;

use agentmon_core::Timestamp;
use agentmon_core::finding::Finding;
use duckdb::{Connection, params};
use serde::{Deserialize, Serialize};

use super::Windowed;
use crate::store::StoreError;
use crate::store::found::FINDINGS_MAX;

/// As in findings.
const RULE: &str = "unreported";
const EVERY: Duration = Duration::from_secs(900);
const WINDOW: Duration = Duration::from_secs(3_600);
/// An agent's last words on a connection may come with its next batch.
const LATE: Duration = Duration::from_secs(120);
/// Clocks and the moment at which a connection is first seen differ.
const APART_S: i64 = 600;
/// So long before an agent's start it may have been away for the start alone.
const RESTART_S: i64 = 900;
/// A connection that lasts is seen by an agent that only looks.
const LOOKED_AT: Duration = Duration::from_secs(120);
/// Fewer are an accident.
const FEW: u64 = 3;
/// Places named in the sentence.
const PLACES_MAX: usize = 3;

/// Settings of the detector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether it runs.
    pub enabled: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { enabled: true }
    }
}

/// The detector.
#[derive(Debug)]
pub(super) struct Unreported;

impl Windowed for Unreported {
    fn name(&self) -> &'static str {
        RULE
    }

    fn every(&self) -> Duration {
        EVERY
    }

    fn reach(&self) -> Duration {
        WINDOW + LATE
    }

    fn run(&mut self, db: &Connection, now: Timestamp) -> Result<Vec<Finding>, StoreError> {
        let until = now.minus(LATE);
        let mut statement = db.prepare(SQL)?;
        let mut rows = statement.query(params![
            until.minus(WINDOW).micros(),
            until.micros(),
            APART_S,
            i64::try_from(LOOKED_AT.as_millis()).unwrap_or(i64::MAX),
            i64::try_from(FINDINGS_MAX).unwrap_or(i64::MAX),
            RESTART_S,
        ])?;
        let mut findings = Vec::new();
        while let Some(row) = rows.next()? {
            let seen = Seen {
                address: row.get(0)?,
                host: row.get(1)?,
                missed: row.get(2)?,
                all: row.get(3)?,
                places: row.get(4)?,
            };
            findings.extend(finding(&seen));
        }
        Ok(findings)
    }
}

/// Spans in which an agent told of an address, flows of it in there, and those that no
/// connection of the agent is like.
const SQL: &str = "WITH told AS (
        SELECT c.sensor, c.src, min(c.time) AS since, max(c.time) AS until,
            coalesce(bool_or(k.state <> 'ok'), false) AS looks
        FROM process_conns c LEFT JOIN sensor_collectors k ON k.sensor = c.sensor AND k.name = 'ends'
        WHERE c.time BETWEEN make_timestamp($1) - INTERVAL 1 HOUR AND make_timestamp($2) + INTERVAL 1 HOUR
            AND c.direction = 'out'
        GROUP BY ALL),
    restarts AS (
        SELECT g.sensor, g.time + INTERVAL 1 MINUTE AS until,
            coalesce(max(c.time), g.time - to_seconds($6)) AS since
        FROM gaps g LEFT JOIN process_conns c ON c.sensor = g.sensor AND c.time < g.time
            AND c.time > g.time - to_seconds($6)
        WHERE g.reason = 'restart' AND g.time > make_timestamp($1) - INTERVAL 1 HOUR
            AND g.time < make_timestamp($2) + INTERVAL 1 HOUR
        GROUP BY g.sensor, g.time),
    seen AS (
        SELECT t.sensor AS host, f.src, f.proto, f.sport, f.dst, f.dport,
            coalesce(f.start, f.time) AS began, f.name
        FROM flows f JOIN told t ON t.src = f.src AND t.sensor <> f.sensor
        WHERE f.time BETWEEN make_timestamp($1) AND make_timestamp($2) AND f.proto IN (6, 17)
            AND f.replied AND coalesce(f.start, f.time) > t.since + INTERVAL 1 MINUTE
            AND f.time < t.until
            AND NOT EXISTS (FROM restarts r WHERE r.sensor = t.sensor
                AND coalesce(f.start, f.time) BETWEEN r.since AND r.until)
            AND (NOT t.looks OR coalesce(f.duration_ms, 0) >= $4)),
    judged AS (
        SELECT s.*, NOT EXISTS (FROM process_conns c
            WHERE c.sensor = s.host AND c.proto = s.proto AND c.src = s.src AND c.sport = s.sport
                AND ((c.dst = s.dst AND c.dport = s.dport) OR (s.proto = 17 AND c.direction = 'listen'))
                AND abs(epoch(coalesce(c.start, c.time)) - epoch(s.began)) < $3) AS missed
        FROM seen s)
    SELECT src, any_value(n.name), count(*) FILTER (WHERE missed), count(*),
        coalesce(string_agg(DISTINCT coalesce(j.name, dst) || ':' || dport, ', ') FILTER (WHERE missed), '')
    FROM judged j LEFT JOIN sensors n ON n.id = j.host
    GROUP BY src HAVING count(*) FILTER (WHERE missed) > 0
    ORDER BY 3 DESC LIMIT $5";

/// One address in one window.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    address: String,
    host: Option<String>,
    missed: u64,
    all: u64,
    places: String,
}

/// What there is to say. A host that runs containers has such connections every day: low; all
/// at once and most of them is somebody who goes around the agent.
fn finding(seen: &Seen) -> Option<Finding> {
    if seen.missed < FEW {
        return None;
    }
    let most = seen.missed * 2 > seen.all;
    let score = if most { 0.6 } else { 0.35 };
    let host = seen.host.as_deref().unwrap_or(&seen.address);
    let places: Vec<&str> = seen.places.split(", ").take(PLACES_MAX).collect();
    let finding = Finding {
        rule: RULE.into(),
        subject: format!("{host} at {}", seen.address),
        client: seen.address.parse::<IpAddr>().ok(),
        mac: None,
        score,
        why: format!(
            "{} of {} connections of {host} in an hour were not told by its own agent, as to {}",
            seen.missed,
            seen.all,
            places.join(", ")
        ),
        evidence: Vec::new(),
    };
    Some(
        finding
            .with("unreported", seen.missed)
            .with("connections", seen.all)
            .with("places", places.join(", "))
            .with("benign_if", "containers or virtual machines run behind this host's address"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Limits, open_write};

    /// 2026-11-23T15:00:00Z.
    const NOW: Timestamp = Timestamp::from_secs(1_795_446_000);

    /// Flows of the router (sensor 2) and connections of the agent (sensor 1), by source port
    /// from 0; the first and the last connection only say that the agent was there.
    fn run(flows: u32, told: u32, ends: &str, duration_ms: u32) -> Vec<Finding> {
        run_and(flows, told, ends, duration_ms, "")
    }

    /// And what else happened.
    fn run_and(flows: u32, told: u32, ends: &str, duration_ms: u32, also: &str) -> Vec<Finding> {
        let dir = tempfile::tempdir().unwrap();
        let db = open_write(dir.path(), &Limits::default()).unwrap();
        db.execute_batch(&format!(
            "INSERT INTO sensor_collectors (sensor, name, state) SELECT 1, 'ends', '{ends}' WHERE '{ends}' <> '';
             INSERT INTO peers VALUES (1, '203.0.113.5', 'www.example.com');
             INSERT INTO flows_done (time, sensor, proto, src, sport, peer, dport, start, duration_ms, replied, offloaded)
                SELECT '2026-11-23 14:20:00', 2, 6, '192.0.2.1', 40000 + n, 1, 443,
                    '2026-11-23 14:20:00'::TIMESTAMP - to_milliseconds({duration_ms}), {duration_ms}, true, false FROM range({flows}) r(n);
             INSERT INTO process_conns (time, sensor, id, open, direction, proto, src, sport, dst, dport, start, how)
                SELECT '2026-11-23 14:20:01', 1, n, false, 'out', 6, '192.0.2.1', 40000 + n, '203.0.113.5', 443,
                    '2026-11-23 14:19:59', 'exec' FROM range({told}) r(n);
             INSERT INTO process_conns (time, sensor, id, open, direction, proto, src, sport, dst, dport, how)
                SELECT t, 1, 1000, true, 'out', 6, '192.0.2.1', 1, '203.0.113.9', 1, 'scan'
                FROM (VALUES ('2026-11-23 14:00:00'::TIMESTAMP), ('2026-11-23 14:50:00')) v(t);"
        ))
        .unwrap();
        db.execute_batch(also).unwrap();
        Unreported.run(&db, NOW).unwrap()
    }

    /// At that time the agent said that it began.
    fn began(at: &str) -> String {
        format!(
            "INSERT INTO gaps VALUES ('2026-11-23 {at}', 1, 'watch', '2026-11-23 {at}', 'restart', NULL)"
        )
    }

    #[test]
    fn an_agent_that_is_restarted_owes_nothing_for_the_while() {
        assert_eq!(run_and(10, 0, "", 1_000, &began("14:22:00")), []);
        // Long before, and long after: it was not away for that.
        assert_eq!(run_and(10, 0, "", 1_000, &began("14:10:00")).len(), 1);
        assert_eq!(run_and(10, 0, "", 1_000, &began("14:45:00")).len(), 1);
        // Killed for longer than a restart takes.
        let killed = "UPDATE flows_done SET time = time - INTERVAL 14 MINUTE, start = start - INTERVAL 14 MINUTE;";
        assert_eq!(run_and(10, 0, "", 1_000, &(killed.to_owned() + &began("14:22:00"))).len(), 1);
    }

    #[test]
    fn while_the_hub_was_away_or_the_agent_is_late_nothing_is_owed_yet() {
        // Its last word so far is older than the connections: they are judged when it has told.
        let late = "DELETE FROM process_conns WHERE time > '2026-11-23 14:10:00'";
        assert_eq!(run_and(10, 0, "", 1_000, late), []);
        assert_eq!(run(10, 10, "", 1_000), [], "and then all is told");
    }

    #[test]
    fn what_an_agent_does_not_tell_is_told_of_it() {
        let found = run(10, 2, "", 1_000);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].rule.as_str(), found[0].severity().as_str()), (RULE, "high"));
        assert_eq!(
            found[0].why,
            "8 of 10 connections of 192.0.2.1 in an hour were not told by its own agent, as to www.example.com:443"
        );
        assert_eq!(run(10, 6, "", 1_000)[0].severity().as_str(), "low");
    }

    #[test]
    fn all_told_or_too_few_or_too_short_for_one_that_looks_is_nothing() {
        assert_eq!(run(10, 10, "", 1_000), []);
        assert_eq!(run(10, 8, "", 1_000), []);
        assert_eq!(run(10, 0, "not permitted", 1_000), []);
        assert_eq!(run(10, 0, "not permitted", 600_000).len(), 1);
    }
}
