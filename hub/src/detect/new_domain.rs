//! `new-domain`: a registrable domain that nobody in the network had asked for before.
//!
//! In: DNS exchanges up to `now`. Out: one finding for each domain whose first exchange lies
//! in the window, once the history is [`Config::learning_days`] old. Mostly it is a person who
//! reads something new, hence informational: what else speaks against the name makes it more.

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
const RULE: &str = "new-domain";
const SCORE: f64 = 0.15;
const EVERY: Duration = Duration::from_secs(300);
const REACH: Duration = Duration::from_secs(2 * 3_600);

/// Settings of the detector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether it runs.
    pub enabled: bool,
    /// Days of history before anything can be new.
    pub learning_days: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { enabled: true, learning_days: 7 }
    }
}

/// The detector.
#[derive(Debug)]
pub(super) struct NewDomain {
    learning: Duration,
}

impl NewDomain {
    pub(super) fn new(config: &Config) -> Self {
        Self { learning: Duration::from_secs(u64::from(config.learning_days) * 86_400) }
    }
}

impl Windowed for NewDomain {
    fn name(&self) -> &'static str {
        RULE
    }

    fn every(&self) -> Duration {
        EVERY
    }

    fn reach(&self) -> Duration {
        REACH
    }

    fn run(&mut self, db: &Connection, now: Timestamp) -> Result<Vec<Finding>, StoreError> {
        let sql = format!(
            "WITH fresh AS (
                 SELECT domain, min(time) AS first, arg_min(client, time) AS client, count(*) AS n,
                     count(DISTINCT coalesce(mac, client)) AS devices
                 FROM dns WHERE time > make_timestamp($1) AND time <= make_timestamp($2)
                     AND status <> 'local' GROUP BY domain)
             SELECT domain, epoch_us(first), client, n, devices FROM fresh
             WHERE (SELECT min(hour) FROM arrivals) <= make_timestamp($3)
                 AND NOT EXISTS (FROM dns d WHERE d.domain = fresh.domain
                     AND d.time <= make_timestamp($1))
             ORDER BY first LIMIT {FINDINGS_MAX}"
        );
        let from = now.minus(REACH).micros();
        let mut statement = db.prepare(&sql)?;
        let learnt = now.minus(self.learning).micros();
        let mut rows = statement.query(params![from, now.micros(), learnt])?;
        let mut findings = Vec::new();
        while let Some(row) = rows.next()? {
            let (domain, first): (String, i64) = (row.get(0)?, row.get(1)?);
            let (client, n, devices): (String, i64, i64) = (row.get(2)?, row.get(3)?, row.get(4)?);
            let client: Option<IpAddr> = client.parse().ok();
            findings.push(finding(domain, Timestamp::from_micros(first), client, n, devices));
        }
        Ok(findings)
    }
}

fn finding(
    domain: String,
    first: Timestamp,
    client: Option<IpAddr>,
    questions: i64,
    devices: i64,
) -> Finding {
    Finding {
        rule: RULE.into(),
        why: format!("nobody here had asked for {domain} before {first}"),
        subject: domain,
        client,
        mac: None,
        score: SCORE,
        evidence: Vec::new(),
    }
    .with("first_seen", first)
    .with("questions", questions)
    .with("devices", devices)
}
