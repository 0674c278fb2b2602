//! `exfil-dns`: data in names, over days.
//!
//! In: for each device and registrable domain the distinct names of the last week. Out: a
//! finding for those whose names carry much that no name needs: the sum over distinct names of
//! what stands before the domain, in bytes. The router's `dns-tunnel` speaks within minutes of
//! a fast tunnel; this finds the one of a few names an hour, and it knows the past: a virus
//! scanner's look-ups (answered from 127.0.0.0/8, or of weeks) and a delivery network's hashes
//! (connected to afterwards, or asked for by others) have names of the same shape.
//! ATT&CK T1048.003, T1071.004.

use std::net::IpAddr;
use std::time::Duration;

use agentmon_core::Timestamp;
use agentmon_core::finding::Finding;
use duckdb::{Connection, params};

use super::place::{self, Who};
use super::weigh::Weighed;
use super::{Config, DAY_S, FINDINGS_MAX, LEARNING, LEARNING_MOST, SCORE_MIN};
use crate::store::StoreError;

/// As in findings.
pub(crate) const RULE: &str = "exfil-dns";
/// Fewer names or bytes in a week carry nothing worth the trouble.
const NAMES_MIN: u64 = 100;
const BYTES_MIN: u64 = 4_096;

/// What a device asked for below a domain within a week.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Asked {
    /// Distinct names, and what stands before the domain in them.
    pub(crate) names: u64,
    pub(crate) bytes: u64,
    pub(crate) questions: u64,
    /// Questions for TXT, NULL, CNAME, MX, KEY or private types.
    pub(crate) carriers: u64,
    /// Answered by an address of 127.0.0.0/8: a list's verdict.
    pub(crate) verdicts: u64,
    /// Connections to names below it.
    pub(crate) connections: u64,
    /// Devices that asked below it, in a month.
    pub(crate) devices: u64,
    /// Asked for by this device for more than two weeks.
    pub(crate) old: bool,
    pub(crate) learning: bool,
}

/// How grave it is.
pub(crate) fn weigh(asked: &Asked) -> Option<Weighed> {
    let each = asked.bytes / asked.names.max(1);
    let once = asked.names * 10 >= asked.questions * 6;
    let verdicts = asked.verdicts * 2 >= asked.names;
    let visited = asked.connections * 10 >= asked.names;
    // Short words again and again, a list's verdicts, names that are visited: names.
    if asked.names < NAMES_MIN || asked.bytes < BYTES_MIN || each < 16 || verdicts || visited {
        return None;
    }
    let weighed = Weighed::new(0.3)
        .when(once, 0.1, "hardly any name was asked for twice")
        .when(each >= 40, 0.1, "long names")
        .when(asked.carriers * 2 >= asked.questions, 0.15, "of types that carry data back")
        .when(asked.bytes >= 65_536, 0.1, "more than 64 kB")
        .when(asked.old, -0.2, "but it has done so for weeks")
        .when(asked.devices >= 3, -0.25, "but others do so too")
        .at_most(LEARNING_MOST, asked.learning, LEARNING);
    (weighed.score() >= SCORE_MIN).then_some(weighed)
}

/// Findings up to `now`.
pub(crate) fn run(
    db: &Connection,
    config: &Config,
    now: Timestamp,
) -> Result<Vec<Finding>, StoreError> {
    let sql = format!(
        "WITH asked AS (
             SELECT coalesce(d.mac, o.device, d.client) AS who, any_value(coalesce(d.mac, o.device)) AS mac,
                 arg_max(d.client, d.time) AS client, d.domain, d.name, count(*) AS n,
                 count(*) FILTER (d.qtype NOT IN (1, 2, 6, 12, 28, 33, 64, 65)) AS carriers,
                 bool_or(starts_with(coalesce(d.answers[1], ''), '127.')) AS verdict
             FROM dns d LEFT JOIN address_owners o ON d.mac IS NULL AND o.address = d.client
                 AND d.time >= o.owned_since AND d.time < o.owned_until
             WHERE d.time > make_timestamp($1) AND d.time <= make_timestamp($2)
                 AND d.status <> 'local' AND NOT ends_with(d.domain, '.arpa') AND d.name <> d.domain
             GROUP BY who, d.domain, d.name),
         sums AS (
             SELECT who, any_value(mac) AS mac, any_value(client) AS client, domain, count(*) AS names,
                 sum(strlen(name) - strlen(domain) - 1)::UBIGINT AS bytes, sum(n)::UBIGINT AS questions,
                 sum(carriers)::UBIGINT AS carriers, count(*) FILTER (verdict) AS verdicts
             FROM asked GROUP BY who, domain
             HAVING names >= {NAMES_MIN} AND bytes >= {BYTES_MIN}
             ORDER BY bytes DESC LIMIT {FINDINGS_MAX})
         SELECT who, mac, client, domain, names, bytes, questions, carriers, verdicts,
             (SELECT count(*) FROM flows f WHERE f.time > make_timestamp($1)
                 AND f.time <= make_timestamp($2) AND ends_with(f.name, '.' || sums.domain)),
             (SELECT count(DISTINCT coalesce(p.mac, p.client)) FROM dns p
                 WHERE p.domain = sums.domain AND p.time > make_timestamp($3)
                 AND p.time <= make_timestamp($2)),
             (SELECT epoch_us(min(p.time)) FROM dns p WHERE p.domain = sums.domain
                 AND coalesce(p.mac, p.client) = coalesce(sums.mac, sums.client)
                 AND p.time <= make_timestamp($2)),
             (SELECT epoch_us(min(hour)) FROM arrivals)
         FROM sums ORDER BY bytes DESC"
    );
    let ago = |days: u64| now.minus(Duration::from_secs(days * DAY_S)).micros();
    let mut statement = db.prepare(&sql)?;
    let mut rows = statement.query(params![ago(7), now.micros(), ago(30)])?;
    let learning = Duration::from_secs(u64::from(config.learning_days) * DAY_S);
    let mut findings = Vec::new();
    while let Some(row) = rows.next()? {
        let since = |us: Option<i64>| us.map(|us| now.since(Timestamp::from_micros(us)));
        let (first, history) = (since(row.get(11)?), since(row.get(12)?));
        let asked = Asked {
            names: row.get(4)?,
            bytes: row.get(5)?,
            questions: row.get(6)?,
            carriers: row.get(7)?,
            verdicts: row.get(8)?,
            connections: row.get(9)?,
            devices: row.get(10)?,
            old: first.is_some_and(|age| age > Duration::from_secs(14 * DAY_S)),
            learning: history.is_none_or(|age| age < learning),
        };
        let (mac, client): (Option<String>, String) = (row.get(1)?, row.get(2)?);
        let (Some(who), Ok(address)) =
            (Who::new(mac.as_deref(), &client), client.parse::<IpAddr>())
        else {
            continue;
        };
        findings
            .extend(weigh(&asked).map(|weighed| told(who, address, row.get(3), &asked, &weighed)));
    }
    findings.into_iter().collect()
}

fn told(
    who: Who,
    client: IpAddr,
    domain: duckdb::Result<String>,
    asked: &Asked,
    weighed: &Weighed,
) -> Result<Finding, StoreError> {
    let domain = domain?;
    let what = format!(
        "{} distinct names below {domain} within a week carry {}",
        crate::cli::units::count(asked.names),
        place::bytes(asked.bytes)
    );
    let finding = place::finding(RULE, who, client, domain, weighed.score())
        .with("names", asked.names)
        .with("bytes", asked.bytes)
        .with("bytes_a_name", asked.bytes / asked.names.max(1))
        .with("questions", asked.questions)
        .with("of_carrying_types", asked.carriers)
        .with("connections", asked.connections)
        .with("devices_asking", asked.devices)
        .with("benign_if", "a virus scanner, a mail filter or telemetry you know asks in names");
    Ok(Finding { why: weighed.why(&what), ..finding })
}
