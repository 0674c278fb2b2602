//! How often all rules of the hub cry wolf: days of a home on which nothing happens.
//!
//! In: how many devices, how many days to learn from and to judge, a seed. Out: what a person
//! would have been told, one row for each alert that was made.
//!
//! The days are the demo's routine without its attacks, and people who also read what nobody
//! there has read before ([`demo::quiet_day`]), each day with a seed of its own. They are put
//! into a store in a folder of their own as ingest would have stored them; then the detectors
//! of a registry judge the last days, moment after moment, through the writer: what they find
//! is fused, learnt from and repeated as in a running hub. Deterministic, up to the store's
//! order of equals.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use agentmon_core::event::{Body, FlowPhase, Mac};
use agentmon_core::time::SystemClock;
use agentmon_core::{Event, Timestamp};
use agentmon_router::counters::Counters;
use duckdb::{Appender, Connection, params};
use serde::Serialize;

use crate::demo;
use crate::detect::{self, registry};
use crate::store::found::Run;
use crate::store::writer::Writer;
use crate::store::{Limits, StoreError, open_write};

/// 2026-11-24T00:00:00Z, a Tuesday.
const END: i64 = 1_795_478_400;
const DAY_US: u64 = 86_400_000_000;
const HOUR: Duration = Duration::from_secs(3_600);
/// From this score on an alert is of medium severity: what the goal counts.
const MEDIUM: f64 = 0.4;

/// What to make and to judge.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// In the home, at most 200.
    pub devices: usize,
    /// Days to learn from.
    pub learnt: u64,
    /// Days to judge, after those.
    pub judged: u64,
    /// Hours between two moments at which detectors judge.
    pub step_hours: u64,
    /// Polls come so many times as rarely as in a real home.
    pub pace: f64,
    /// For all that is random.
    pub seed: u64,
    /// Which detectors, and their thresholds.
    pub detect: detect::Config,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            devices: 80,
            learnt: 10,
            judged: 3,
            step_hours: 1,
            pace: 1.0,
            seed: 1,
            detect: detect::Config::default(),
        }
    }
}

/// One alert.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Alarm {
    /// Which of the judged days, from 1.
    pub day: u64,
    /// The rule that leads.
    pub rule: String,
    /// The device.
    pub device: String,
    /// What it is about.
    pub subject: String,
    /// As a person sees it.
    pub severity: String,
    /// From 0 to 1.
    pub score: f64,
    /// In words.
    pub why: String,
}

/// All figures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Devices that were there.
    pub devices: u64,
    /// Connections of all days.
    pub flows: u64,
    /// Questions of all days.
    pub questions: u64,
    /// Days judged.
    pub days: u64,
    /// Alerts of medium severity or more.
    pub alarms: Vec<Alarm>,
    /// Alerts below that.
    pub notes: u64,
}

impl Report {
    /// Alarms of the worst day.
    #[must_use]
    pub fn worst(&self) -> usize {
        let of = |day| self.alarms.iter().filter(|alarm| alarm.day == day).count();
        (1..=self.days).map(of).max().unwrap_or(0)
    }

    /// Alarms of a day, on average.
    #[must_use]
    pub fn each_day(&self) -> f64 {
        self.alarms.len() as f64 / self.days.max(1) as f64
    }
}

/// Makes the days in `folder` (which is empty) and judges them.
///
/// # Errors
/// What the store says, or a detector.
pub fn measure(folder: &Path, plan: &Plan) -> Result<Report, StoreError> {
    let db = open_write(folder, &Limits::default())?;
    let days = plan.learnt + plan.judged;
    for day in 0..days {
        let seed = plan.seed.wrapping_mul(1_000).wrapping_add(day);
        let end = start_of(plan).plus(Duration::from_micros((day + 1) * DAY_US));
        fill(&db, &demo::quiet_day(seed, end, plan.devices, plan.pace))?;
    }
    arrive(&db)?;
    drop(db);
    let clock = Arc::new(SystemClock);
    let mut writer = Writer::open(folder, &Limits::default(), Counters::default(), clock)?;
    judge(&mut writer, plan)?;
    let report = report(&writer, plan)?;
    writer.close()?;
    Ok(report)
}

/// The begin of the first day.
fn start_of(plan: &Plan) -> Timestamp {
    Timestamp::from_secs(END).minus(Duration::from_micros((plan.learnt + plan.judged) * DAY_US))
}

/// All detectors at all moments of the judged days. The baselines begin with what was before.
fn judge(writer: &mut Writer, plan: &Plan) -> Result<(), StoreError> {
    let begin = start_of(plan).plus(Duration::from_micros(plan.learnt * DAY_US));
    let mut detectors = registry(&plan.detect);
    for hours in (0..=plan.judged * 24).step_by(usize::try_from(plan.step_hours).unwrap_or(1)) {
        let now = begin.plus(HOUR * u32::try_from(hours).unwrap_or(u32::MAX));
        for detector in &mut detectors {
            let name = detector.name();
            if hours == 0 && name != "baseline" {
                continue;
            }
            let reader = writer.readers().get()?;
            let findings = detector.run(&reader, now)?;
            drop(reader);
            let learnt = detector.learn();
            writer.found(Run { detector: name, now, round: None, findings, learnt })?;
        }
    }
    Ok(())
}

fn report(writer: &Writer, plan: &Plan) -> Result<Report, StoreError> {
    let reader = writer.readers().get()?;
    let count = |sql: &str| reader.query_row(sql, [], |row| row.get::<_, u64>(0));
    let begin = start_of(plan).plus(Duration::from_micros(plan.learnt * DAY_US));
    let sql = "SELECT greatest(0, epoch_us(first_seen) - 1 - ?) // ? + 1, rule,
             coalesce(mac, client, ''), subject, severity, score, why
         FROM alerts WHERE status = 'open' AND score >= ? ORDER BY first_seen, id";
    let mut statement = reader.prepare(sql)?;
    let rows = statement.query_map(params![begin.micros(), DAY_US, MEDIUM], |row| {
        Ok(Alarm {
            day: row.get(0)?,
            rule: row.get(1)?,
            device: row.get(2)?,
            subject: row.get(3)?,
            severity: row.get(4)?,
            score: row.get(5)?,
            why: row.get(6)?,
        })
    })?;
    Ok(Report {
        devices: count("SELECT count(*) FROM devices")?,
        flows: count("SELECT count(*) FROM flows")?,
        questions: count("SELECT count(*) FROM dns")?,
        days: plan.judged,
        alarms: rows.collect::<Result<_, _>>()?,
        notes: count("SELECT count(*) FROM alerts WHERE score < 0.4")?,
    })
}

/// A day's events as ingest stores them.
fn fill(db: &Connection, events: &[Event]) -> Result<(), StoreError> {
    db.execute_batch(
        "CREATE OR REPLACE TEMP TABLE f (us BIGINT, proto UTINYINT, src VARCHAR, sport USMALLINT,
             dst VARCHAR, dport USMALLINT, duration_ms UBIGINT, bytes_out UBIGINT,
             bytes_in UBIGINT, replied BOOLEAN, mac VARCHAR, name VARCHAR);
         CREATE OR REPLACE TEMP TABLE d (us BIGINT, client VARCHAR, mac VARCHAR, name VARCHAR,
             domain VARCHAR, qtype USMALLINT, answer VARCHAR)",
    )?;
    let devices = append(db.appender("f")?, db.appender("d")?, events)?;
    db.execute_batch(
        "INSERT INTO peers SELECT (SELECT coalesce(max(id), 0) FROM peers) + row_number() OVER (),
                 dst, name
             FROM (SELECT DISTINCT dst, name FROM f ANTI JOIN peers p
                 ON p.dst = f.dst AND p.name IS NOT DISTINCT FROM f.name);
         INSERT INTO flows_done BY NAME
             SELECT f.* EXCLUDE (us, dst, name), make_timestamp(us) AS time, 1 AS sensor,
                 p.id AS peer, false AS offloaded,
                 make_timestamp(us - 1000 * coalesce(duration_ms, 0)::BIGINT) AS start
             FROM f JOIN peers p ON p.dst = f.dst AND p.name IS NOT DISTINCT FROM f.name
             ORDER BY us;
         INSERT INTO dns_hot BY NAME
             SELECT d.* EXCLUDE (us, answer), make_timestamp(us) AS time, 1 AS sensor,
                 'forwarded' AS status, 'made up' AS source,
                 CASE WHEN answer IS NOT NULL THEN [answer] END AS answers
             FROM d ORDER BY us",
    )?;
    for (mac, ip) in devices {
        let sql = "INSERT INTO devices BY NAME SELECT ? AS mac, make_timestamp(?) AS first_seen,
                 make_timestamp(?) AS last_seen WHERE NOT EXISTS (FROM devices WHERE mac = ?)";
        let mac = mac.to_string();
        let begin = events.first().map_or(0, |event| event.time.micros());
        let new = db.execute(sql, params![mac, begin, END * 1_000_000, mac])?;
        if new > 0 {
            let sql = "INSERT INTO device_addresses
                 SELECT mac, ?, first_seen, last_seen, 0 FROM devices WHERE mac = ?";
            db.execute(sql, params![ip.to_string(), mac])?;
        }
    }
    Ok(())
}

/// Events into two tables, connections with the names that led there; the devices there are.
fn append(
    mut flows: Appender<'_>,
    mut dns_rows: Appender<'_>,
    events: &[Event],
) -> Result<BTreeSet<(Mac, IpAddr)>, StoreError> {
    let mut names = HashMap::<(IpAddr, IpAddr), &str>::new();
    let mut devices = BTreeSet::new();
    for event in events {
        let us = event.time.micros();
        match &event.body {
            Body::Dns(dns) => {
                let name = dns.name.as_str();
                names.extend(dns.destinations().map(|address| ((dns.client, address), name)));
                dns_rows.append_row(params![
                    us,
                    dns.client.to_string(),
                    dns.mac.map(|mac| mac.to_string()),
                    name,
                    dns.name.domain(),
                    dns.qtype,
                    dns.destinations().next().map(|ip| ip.to_string())
                ])?;
                devices.extend(dns.mac.map(|mac| (mac, dns.client)));
            }
            Body::Flow(flow) if flow.phase == FlowPhase::End => {
                let volume = flow.volume.unwrap_or_default();
                flows.append_row(params![
                    us,
                    flow.proto,
                    flow.src.ip.to_string(),
                    flow.src.port,
                    flow.dst.ip.to_string(),
                    flow.dst.port,
                    flow.duration_ms,
                    volume.bytes_out,
                    volume.bytes_in,
                    flow.replied,
                    flow.mac.map(|mac| mac.to_string()),
                    names.get(&(flow.src.ip, flow.dst.ip)).copied()
                ])?;
            }
            _ => {}
        }
    }
    Ok(devices)
}

/// What has arrived when, all of it before the first round.
fn arrive(db: &Connection) -> Result<(), StoreError> {
    let sql = "INSERT INTO arrivals SELECT DISTINCT date_trunc('hour', time), 1 FROM flows";
    Ok(db.execute_batch(sql)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Thinly peopled by polls, and without the detector of beacons, whose false alarms on
    /// such a day are counted in [`super::super::beacon`]: it takes most of a minute where
    /// nothing is optimised. `agentmon eval day` has all of it.
    fn plan() -> Plan {
        let mut plan = Plan { learnt: 7, judged: 1, step_hours: 6, pace: 20.0, ..Plan::default() };
        plan.detect.beacon.enabled = false;
        plan
    }

    #[test]
    fn a_day_of_eighty_devices_raises_at_most_three_alarms_and_an_upload_one_more() {
        let dir = tempfile::tempdir().unwrap();
        let plan = plan();
        let quiet = measure(dir.path(), &plan).unwrap();
        assert_eq!(quiet.devices, 80);
        assert!(quiet.flows > 50_000, "too little happens: {}", quiet.flows);
        assert!(quiet.worst() <= 3, "{:#?}", quiet.alarms);
        // Baselines were learnt, or this shows nothing.
        let clock = Arc::new(SystemClock);
        let mut writer =
            Writer::open(dir.path(), &Limits::default(), Counters::default(), clock).unwrap();
        let learnt = "SELECT count(*) FROM habits WHERE kind = 'day' AND who <> '*' AND bit_count(bits) >= 8";
        let one = |writer: &Writer, sql: &str| {
            writer.readers().get().unwrap().query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap()
        };
        assert_eq!(one(&writer, learnt), 80);
        // The same day with one upload in it: silence is no blindness.
        let upload = format!(
            "INSERT INTO peers SELECT max(id) + 1, '203.0.113.250', 'drop.bigupload.example' FROM peers;
             INSERT INTO flows_done BY NAME
                 SELECT * REPLACE (make_timestamp({END}000000 - 60000000) AS time,
                     (SELECT max(id) FROM peers) AS peer, 4200000000 AS bytes_out)
                 FROM flows_done WHERE mac IS NOT NULL LIMIT 1"
        );
        writer.change(|c| c.execute_batch(&upload).map_err(StoreError::from)).unwrap();
        judge(&mut writer, &Plan { learnt: 8, judged: 0, ..plan.clone() }).unwrap();
        for mut detector in registry(&plan.detect) {
            let now = Timestamp::from_secs(END);
            let findings = detector.run(&writer.readers().get().unwrap(), now).unwrap();
            let (detector, learnt) = (detector.name(), detector.learn());
            writer.found(Run { detector, now, round: None, findings, learnt }).unwrap();
        }
        let told = report(&writer, &plan).unwrap().alarms;
        let more: Vec<_> = told.iter().filter(|alarm| !quiet.alarms.contains(alarm)).collect();
        assert!(!more.is_empty() && more.iter().all(|a| a.device == more[0].device), "{more:#?}");
        assert!(more.iter().any(|a| a.subject.contains("bigupload.example")), "{more:#?}");
    }
}
