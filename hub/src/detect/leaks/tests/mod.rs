//! Each rule over a real file: what it finds, and the twin of the same shape it must not.
//!
//! Rows are written as the store has them; the network has three weeks of history, four
//! devices, and a judge who asks at one moment.

mod exfil;
mod stays;
mod strange;
mod watch;

use std::time::Duration;

use agentmon_core::Timestamp;
use agentmon_core::finding::Finding;
use duckdb::Connection;

use super::{Config, all};
use crate::detect::Windowed;
use crate::store::{Limits, open_write};

/// When it is judged: 2026-11-23T14:32:07Z, a Monday.
const NOW: i64 = 1_795_444_327;
const HOUR: i64 = 3_600;
const DAY: i64 = 86_400;

/// A network with a past.
struct Home {
    dir: tempfile::TempDir,
    db: Connection,
    config: Config,
    rows: std::cell::RefCell<Vec<String>>,
}

/// One connection, `ago` seconds before the judgement.
#[derive(Clone, Copy)]
struct Talk<'a> {
    ago: i64,
    lasts: i64,
    device: u8,
    name: Option<&'a str>,
    dst: &'a str,
    port: u16,
    proto: u8,
    out: u64,
    inward: u64,
    replied: bool,
    open: bool,
    /// The row says no MAC: whose it was is known by the address alone.
    without_mac: bool,
}

impl<'a> Talk<'a> {
    fn to(device: u8, name: &'a str, dst: &'a str) -> Self {
        Self {
            ago: 60,
            lasts: 10,
            device,
            name: Some(name),
            dst,
            port: 443,
            proto: 6,
            out: 1_000,
            inward: 5_000,
            replied: true,
            open: false,
            without_mac: false,
        }
    }
    fn address(device: u8, dst: &'a str) -> Self {
        Self { name: None, ..Self::to(device, "", dst) }
    }
}

impl Home {
    /// Devices 1 to 4, known for three weeks, each with a connection a day to news.example.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let db = open_write(dir.path(), &Limits::default()).unwrap();
        let home = Self { dir, db, config: Config::default(), rows: Vec::new().into() };
        for device in 1..=4 {
            home.device(device, 21 * DAY);
            for day in 0..21 {
                let ago = day * DAY + 9 * HOUR;
                home.talk(Talk { ago, ..Talk::to(device, "www.news.example", "192.0.2.80") });
            }
        }
        home
    }

    fn sql(&self, sql: &str) {
        self.db.execute_batch(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
    }

    fn device(&self, n: u8, since_s: i64) {
        let (mac, first, last) = (mac(n), time(since_s), time(0));
        self.sql(&format!(
            "INSERT INTO devices BY NAME SELECT '{mac}' AS mac, 'device-{n}' AS hostname,
                 {first} AS first_seen, {last} AS last_seen"
        ));
        for ip in [address(n), format!("2001:db8:77::{n}")] {
            self.lives_at(n, &ip, since_s);
        }
    }

    fn lives_at(&self, n: u8, ip: &str, since_s: i64) {
        let (mac, first, last) = (mac(n), time(since_s), time(0));
        self.sql(&format!(
            "INSERT INTO device_addresses VALUES ('{mac}', '{ip}', {first}, {last}, {since_s})"
        ));
    }

    fn talk(&self, talk: Talk<'_>) {
        let src = if talk.dst.contains(':') {
            format!("2001:db8:77::{}", talk.device)
        } else {
            address(talk.device)
        };
        self.talk_from(&src, talk);
    }

    fn talk_from(&self, src: &str, t: Talk<'_>) {
        let mac =
            if t.without_mac { "NULL::VARCHAR".into() } else { format!("'{}'", mac(t.device)) };
        let name = t.name.map_or("NULL::VARCHAR".into(), |name| format!("'{name}'"));
        self.rows.borrow_mut().push(format!(
            "({}, {}, '{src}', '{}', {}, {}, {}, {}, {}, {}, {mac}, {name}, {})",
            time(t.ago),
            t.proto,
            t.dst,
            t.port,
            time(t.ago + t.lasts),
            t.lasts * 1_000,
            t.out,
            t.inward,
            t.replied,
            t.open
        ));
    }

    /// Writes down what was said so far.
    fn flush(&self) {
        let rows = std::mem::take(&mut *self.rows.borrow_mut());
        if rows.is_empty() {
            return;
        }
        let columns = "time, proto, src, dst, dport, start, duration_ms, bytes_out, bytes_in,
            replied, mac, name, open";
        for part in rows.chunks(2_000) {
            self.sql(&format!(
                "CREATE OR REPLACE TEMP TABLE told AS SELECT * FROM (VALUES {}) t({columns});
                 INSERT INTO peers SELECT (SELECT coalesce(max(id), 0) FROM peers)
                     + row_number() OVER (), dst, name
                 FROM (SELECT DISTINCT dst, name FROM told WHERE NOT open) t
                 WHERE NOT EXISTS (FROM peers p
                     WHERE p.dst = t.dst AND p.name IS NOT DISTINCT FROM t.name);
                 INSERT INTO flows_done BY NAME
                     SELECT t.* EXCLUDE (dst, name, open), 1 AS sensor, 40000 AS sport,
                         p.id AS peer, false AS offloaded
                     FROM told t JOIN peers p
                         ON p.dst = t.dst AND p.name IS NOT DISTINCT FROM t.name
                     WHERE NOT t.open;
                 INSERT INTO flows_open BY NAME
                     SELECT * EXCLUDE (open), 1 AS sensor, 40000 AS sport, false AS offloaded
                     FROM told WHERE open;
                 INSERT INTO arrivals SELECT DISTINCT date_trunc('hour', time), 1 FROM told
                     WHERE date_trunc('hour', time) NOT IN (SELECT hour FROM arrivals)",
                part.join(", ")
            ));
        }
    }

    fn asks(&self, ago: i64, device: u8, name: &str, qtype: u16, answer: &str) {
        self.sql(&format!(
            "INSERT INTO dns_hot BY NAME SELECT {} AS time, 1 AS sensor, '{}' AS client, '{}' AS mac,
                 '{name}' AS name, '{}' AS domain, {qtype} AS qtype, 'forwarded' AS status,
                 ['{answer}'] AS answers, 'test' AS source",
            time(ago),
            address(device),
            mac(device),
            name.parse::<agentmon_core::Name>().unwrap().domain(),
        ));
    }

    /// What networks are, in this test's world.
    fn networks(&self, text: &str) {
        crate::destinations::write(&crate::destinations::file(self.dir.path()), text).unwrap();
    }

    /// All findings now, the gravest first.
    fn findings(&self) -> Vec<Finding> {
        self.findings_at(0)
    }

    fn findings_at(&self, ago: i64) -> Vec<Finding> {
        self.flush();
        let now = Timestamp::from_secs(NOW).minus(Duration::from_secs(ago.unsigned_abs()));
        let mut findings = Vec::new();
        for mut detector in all(&self.config) {
            let name = detector.name();
            findings.extend(detector.run(&self.db, now).unwrap_or_else(|e| panic!("{name}: {e}")));
        }
        findings.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.subject.cmp(&b.subject)));
        findings
    }

    /// The one finding there must be.
    #[track_caller]
    fn one(&self, rule: &str, subject: &str) -> Finding {
        let findings = self.findings();
        let mut told: Vec<_> = findings.iter().filter(|f| f.score >= 0.4).collect();
        let found =
            told.pop().filter(|f| told.is_empty() && f.rule == rule && f.subject == subject);
        found.unwrap_or_else(|| panic!("not only {rule} {subject}: {findings:#?}")).clone()
    }

    /// Nothing of medium severity or more.
    #[track_caller]
    fn silent(&self) {
        let findings = self.findings();
        let grave: Vec<_> = findings.iter().filter(|f| f.score >= 0.4).collect();
        assert!(grave.is_empty(), "{grave:#?}");
    }
}

fn mac(n: u8) -> String {
    format!("00:00:5e:00:53:{n:02x}")
}

fn address(n: u8) -> String {
    format!("192.168.77.{n}")
}

fn time(ago: i64) -> String {
    format!("make_timestamp({})", (NOW - ago) * 1_000_000)
}

#[track_caller]
fn evidence<'a>(finding: &'a Finding, key: &str) -> &'a str {
    let found = finding.evidence.iter().find(|(k, _)| k == key);
    &found.unwrap_or_else(|| panic!("no {key} in {finding:#?}")).1
}

#[test]
fn ordinary_weeks_are_silent() {
    assert_eq!(Home::new().findings(), []);
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    assert_eq!(Config::default().validate(), Ok(()));
    let wrong = Config { drip_bytes: 1, ..Config::default() };
    assert_eq!(wrong.validate().unwrap_err().0, "drip_bytes");
    let wrong = Config { allow: vec!["a b".into()], ..Config::default() };
    assert_eq!(wrong.validate().unwrap_err().0, "allow");
}
