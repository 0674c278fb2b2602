//! Real SQLite files in every shape that FTL's upgrades leave, and in bad shape.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use agentmon_core::event::{Dns, DnsStatus};
use agentmon_core::wire::{self, Batch};
use proptest::prelude::*;
use rusqlite::Connection;
use tempfile::TempDir;

use super::*;

/// 2026-11-23T14:32:07Z.
const NOW: i64 = 1_795_444_327;
/// A row of the oldest shape: id, time, type, status, domain, client, forward.
const ROW: (i64, i64, &str) = (1, 2, "www.example.com");

/// Statements that bring a file of one version to the shape of the next. (FTL rewrites the
/// schema where version 10 copies here; rows from before keep their texts in place.)
const STEPS: &[(i64, &str)] = &[
    (
        2,
        "CREATE TABLE counters (id INTEGER PRIMARY KEY, value INTEGER);
         INSERT INTO counters VALUES (0, 1), (1, 0); INSERT INTO ftl VALUES (2, 1500000000)",
    ),
    (3, "CREATE TABLE network (id INTEGER PRIMARY KEY, ip TEXT, hwaddr TEXT, name TEXT)"),
    (4, ""),
    (5, "CREATE TABLE network_addresses (network_id INTEGER, ip TEXT, lastSeen INTEGER)"),
    (6, "CREATE TABLE message (id INTEGER PRIMARY KEY, timestamp INTEGER, type TEXT)"),
    (7, "ALTER TABLE queries ADD COLUMN additional_info TEXT"),
    (8, ""),
    (9, "CREATE TABLE aliasclient (id INTEGER PRIMARY KEY, name TEXT)"),
    (
        10,
        "CREATE TABLE query_storage (id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp INTEGER,
            type INTEGER, status INTEGER, domain INTEGER, client INTEGER, forward INTEGER,
            additional_info TEXT);
          INSERT INTO query_storage SELECT * FROM queries;
          DROP TABLE queries;
          CREATE TABLE domain_by_id (id INTEGER PRIMARY KEY, domain TEXT UNIQUE);
          CREATE TABLE client_by_id (id INTEGER PRIMARY KEY, ip TEXT, name TEXT);
          CREATE TABLE forward_by_id (id INTEGER PRIMARY KEY, forward TEXT UNIQUE);
          CREATE VIEW queries AS SELECT id, timestamp, type, status FROM query_storage",
    ),
    (11, "CREATE TABLE addinfo_by_id (id INTEGER PRIMARY KEY, type INTEGER, content)"),
    (
        12,
        "ALTER TABLE query_storage ADD COLUMN reply_type INTEGER;
          ALTER TABLE query_storage ADD COLUMN reply_time REAL;
          ALTER TABLE query_storage ADD COLUMN dnssec INTEGER",
    ),
    (13, "ALTER TABLE query_storage ADD COLUMN regex_id INTEGER"),
    (14, "ALTER TABLE ftl ADD COLUMN description TEXT"),
    (15, "CREATE TABLE session (id INTEGER PRIMARY KEY, sid TEXT, csrf TEXT)"),
    (16, "ALTER TABLE session ADD COLUMN app BOOL"),
    (17, "ALTER TABLE query_storage RENAME COLUMN regex_id TO list_id"),
    (18, "ALTER TABLE session ADD COLUMN cli BOOL"),
    (19, "ALTER TABLE session ADD COLUMN x_forwarded_for TEXT"),
    (20, "CREATE INDEX network_addresses_network_id ON network_addresses (network_id)"),
    (21, "ALTER TABLE query_storage ADD COLUMN ede INTEGER"),
];

struct File {
    dir: TempDir,
    path: PathBuf,
}

impl File {
    /// A file begun as version 1, with `rows` rows, upgraded to `version`.
    fn of(version: i64, rows: i64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pihole FTL?#%.db");
        let file = Self { dir, path };
        file.run(
            "CREATE TABLE queries (id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp INTEGER NOT NULL,
                type INTEGER NOT NULL, status INTEGER NOT NULL, domain TEXT NOT NULL,
                client TEXT NOT NULL, forward TEXT);
             CREATE TABLE ftl (id INTEGER PRIMARY KEY NOT NULL, value BLOB NOT NULL);
             CREATE INDEX idx_queries_timestamps ON queries (timestamp);
             INSERT INTO ftl VALUES (0, 1), (1, 0)",
        );
        for n in 0..rows {
            let (kind, status, name) = ROW;
            file.run(&format!(
                "INSERT INTO queries (timestamp, type, status, domain, client, forward) VALUES
                 ({}, {kind}, {status}, '{name}', '192.0.2.31', '192.0.2.53#53')",
                NOW - 86_400 + n * 10
            ));
        }
        file.upgrade(1, version);
        file
    }

    /// As FTL does it, step by step.
    fn upgrade(&self, from: i64, to: i64) {
        for (to, sql) in STEPS.iter().filter(|(step, _)| (from + 1..=to).contains(step)) {
            self.run(sql);
            self.run(&format!("UPDATE ftl SET value = {to} WHERE id = 0"));
        }
    }

    fn open(&self) -> Connection {
        Connection::open(&self.path).unwrap()
    }

    fn run(&self, sql: &str) {
        self.open().execute_batch(sql).unwrap();
    }

    /// A row of version 12 and later, its texts in tables.
    fn linked(&self, id: i64, name: &str, (kind, status, reply): (i64, i64, i64), seconds: f64) {
        self.run(&format!(
            "INSERT OR IGNORE INTO domain_by_id (domain) VALUES ('{name}');
             INSERT OR IGNORE INTO client_by_id VALUES (7, '2001:db8::25', 'laptop');
             INSERT OR IGNORE INTO forward_by_id VALUES (3, '2001:db8::53#5335');
             INSERT OR IGNORE INTO addinfo_by_id VALUES (4, 1, 'track.example.net');
             INSERT INTO query_storage (id, timestamp, type, status, domain, client, forward,
                additional_info, reply_type, reply_time)
             SELECT {id}, {NOW} - 3600.25, {kind}, {status}, id, 7, 3, 4, {reply}, {seconds}
             FROM domain_by_id WHERE domain = '{name}'"
        ));
    }
}

/// What a hub keeps: by epoch the events by number; what lies below the newest is known.
#[derive(Default)]
struct Store {
    events: BTreeMap<(u64, u64), Event>,
    newest: BTreeMap<u64, u64>,
    batches: usize,
}

impl Store {
    fn take(&mut self, batch: &Batch) -> u64 {
        self.batches += 1;
        let newest = self.newest.entry(batch.epoch).or_default();
        let mut new = 0;
        for (seq, event) in (batch.first_seq..).zip(&batch.events) {
            if seq > *newest {
                *newest = seq;
                new += 1;
                let event = wire::decode_event(event).unwrap();
                self.events.insert((batch.epoch, seq), event);
            }
        }
        new
    }

    fn import(&mut self, path: &Path) -> anyhow::Result<Summary> {
        let mut config = Tier0Config::default();
        config.blocklist.repeat_seconds = 1;
        let mut builder = config.blocklist.builder();
        builder.list("test", 0.8, b"listed.example");
        let mut send = |batch: Batch| Ok(self.take(&batch));
        let now = Timestamp::from_secs(NOW);
        let (database, lists) = (Database::open(path)?, (builder.build(), "test"));
        pihole_ftl(&database, now, &config, lists, Span::default(), &|_| (), &mut send)
    }

    fn dns(&self) -> Vec<(i64, Dns)> {
        let dns = |event: &Event| match &event.body {
            Body::Dns(dns) => Some((event.time.secs(), dns.clone())),
            _ => None,
        };
        self.events.values().filter_map(dns).collect()
    }
}

#[track_caller]
fn refused(path: &Path, says: &[&str]) {
    let error = format!("{:#}", Store::default().import(path).unwrap_err());
    assert!(says.iter().all(|part| error.contains(part)), "{error}");
}

#[test]
fn every_version_is_read() {
    for version in 1..=VERSION_KNOWN {
        let file = File::of(version, 3);
        let mut store = Store::default();
        let summary = store.import(&file.path).unwrap();
        let want = Summary { version, rows: 3, new_events: 3, ..Summary::default() };
        assert_eq!(summary, want, "version {version}");
        let (time, dns) = store.dns().remove(0);
        assert_eq!((time, dns.name.as_str(), dns.qtype), (NOW - 86_400, "www.example.com", 1));
        assert_eq!(
            (dns.client.to_string(), dns.status),
            ("192.0.2.31".into(), DnsStatus::Forwarded)
        );
        assert_eq!((dns.upstream.as_deref(), dns.rcode), (Some("192.0.2.53#53"), None));
    }
}

#[test]
fn texts_in_tables_and_in_place() {
    for version in [12, 21] {
        let file = File::of(version, 1);
        file.linked(2, "a.example", (16, 2, 2), 0.0253);
        file.linked(3, "b.example", (2, 9, 4), 700.0);
        file.linked(4, "c.example", (110, 0, 8), -1.0);
        let mut store = Store::default();
        let summary = store.import(&file.path).unwrap();
        assert_eq!((summary.rows, summary.bad, summary.new_events), (4, 0, 4));
        let rows = store.dns();
        let shown: Vec<_> = rows
            .iter()
            .map(|(_, d)| (d.name.as_str(), d.qtype, d.status.as_str(), d.rcode, d.latency_us))
            .collect();
        assert_eq!(
            shown,
            [
                ("www.example.com", 1, "forwarded", None, None),
                ("a.example", 65, "forwarded", Some(3), Some(25_300)),
                ("b.example", 28, "blocked", None, None),
                ("c.example", 10, "unknown", Some(5), None),
            ]
        );
        assert_eq!(rows[1].1.client.to_string(), "2001:db8::25");
        assert_eq!(rows[1].1.upstream.as_deref(), Some("2001:db8::53#5335"));
        assert_eq!(rows[2].1.blocked_by.as_deref(), Some("gravity (CNAME) track.example.net"));
        assert_eq!(rows[1].0, NOW - 3_601, "fractions of a second are read");
    }
}

/// Again, grown, and with its oldest rows deleted: each row is stored once.
#[test]
fn rows_are_stored_once() {
    let file = File::of(12, 5);
    let mut store = Store::default();
    assert_eq!(store.import(&file.path).unwrap().new_events, 5);
    assert_eq!(store.import(&file.path).unwrap().new_events, 0);
    file.run("DELETE FROM query_storage WHERE id IN (1, 2, 4)");
    file.linked(9, "listed.example", (1, 3, 4), 0.0);
    let third = store.import(&file.path).unwrap();
    assert_eq!((third.rows, third.new_events, third.new_findings), (3, 1, 1));
    let again = store.import(&file.path).unwrap();
    assert_eq!((again.new_events, again.new_findings), (0, 0));
    // The file was deleted and begun anew.
    let other = File::of(12, 2);
    other.run("UPDATE ftl SET value = 1600000000 WHERE id = 2");
    assert_eq!(store.import(&other.path).unwrap().new_events, 2);
    assert_eq!(store.dns().len(), 8);
}

/// Version 1 is known by nothing but its rows, and the oldest are deleted.
#[test]
fn rows_of_version_1_are_stored_once() {
    let file = File::of(1, 3);
    for day in 2..5 {
        file.run(&format!(
            "INSERT INTO queries (timestamp, type, status, domain, client) VALUES
             ({NOW} - 86400 * 9 + 86400 * {day}, 1, 2, 'listed.example', '192.0.2.31'),
             ({NOW} - 86400 * 9 + 86400 * {day} + 5, 1, 2, 'www.example.com', '192.0.2.31')"
        ));
    }
    let mut store = Store::default();
    let first = store.import(&file.path).unwrap();
    assert_eq!((first.rows, first.new_events, first.new_findings), (9, 9, 3));
    let again = store.import(&file.path).unwrap();
    assert_eq!((again.rows, again.new_events, again.new_findings), (9, 0, 0));
    // A whole day is gone, as FTL deletes them, and one came.
    file.run(&format!(
        "DELETE FROM queries WHERE id < 4;
         INSERT INTO queries (timestamp, type, status, domain, client)
         VALUES ({NOW} - 7200, 1, 2, 'c.example', '192.0.2.31')"
    ));
    let later = store.import(&file.path).unwrap();
    assert_eq!((later.rows, later.new_events, later.new_findings), (7, 1, 0));
    // Of a day that lost its first row, the rest comes again: no more than that.
    file.run("DELETE FROM queries WHERE id = 4");
    assert_eq!(store.import(&file.path).unwrap().new_events, 1);
    assert_eq!(store.import(&file.path).unwrap().new_events, 0);
}

/// FTL upgraded a file of version 1: what was imported before is known after, in either shape
/// of table and with its texts in tables, and new rows are new.
#[test]
fn an_upgrade_of_version_1_stores_nothing_twice() {
    for version in [2, 9, 10, 12, VERSION_KNOWN] {
        let file = File::of(1, 9);
        file.run(&format!(
            "UPDATE queries SET timestamp = timestamp - 86400, domain = 'listed.example'
             WHERE id < 4;
             INSERT INTO queries (timestamp, type, status, domain, client)
             VALUES ({NOW} - 7200, 1, 2, 'a.example', '192.0.2.31')"
        ));
        let mut store = Store::default();
        let before = store.import(&file.path).unwrap();
        assert_eq!((before.version, before.new_events, before.new_findings), (1, 10, 3));
        file.upgrade(1, version);
        file.run(&format!("UPDATE ftl SET value = {NOW} - 7100 WHERE id = 2"));
        let after = store.import(&file.path).unwrap();
        assert_eq!((after.version, after.rows), (version, 10));
        assert_eq!((after.new_events, after.new_findings), (0, 0), "version {version}");
        let table = if version < 10 { "queries" } else { "query_storage" };
        file.run(&format!(
            "INSERT INTO {table} (timestamp, type, status, domain, client) VALUES
             ({NOW} - 7000, 1, 2, 'b.example', '192.0.2.31'),
             ({NOW} - 6990, 1, 2, 'listed.example', '192.0.2.31')"
        ));
        let grown = store.import(&file.path).unwrap();
        assert_eq!((grown.rows, grown.new_events, grown.new_findings), (12, 2, 1));
        let again = store.import(&file.path).unwrap();
        assert_eq!((again.new_events, again.new_findings), (0, 0));
        // First seen after its upgrade: each row once as well.
        let mut other = Store::default();
        assert_eq!(other.import(&file.path).unwrap().new_events, 12);
        assert_eq!(other.dns(), store.dns());
    }
}

#[test]
fn what_may_still_change_waits() {
    let file = File::of(21, 1);
    file.run(&format!(
        "INSERT INTO query_storage (id, timestamp, type, status, domain, client)
         VALUES (2, {NOW} - 5, 1, 14, 'young.example', '192.0.2.31'),
                (3, {NOW} - 4, 1, 2, 'younger.example', '192.0.2.31')"
    ));
    let summary = Store::default().import(&file.path).unwrap();
    assert_eq!((summary.rows, summary.waiting, summary.new_events), (1, 1, 1));
    // A clock that is wrong is no reason to wait for years.
    file.run(&format!("UPDATE query_storage SET timestamp = {NOW} + 99999 WHERE id > 1"));
    assert_eq!(Store::default().import(&file.path).unwrap().new_events, 3);
}

#[test]
fn rows_without_sense_are_counted() {
    let file = File::of(21, 1);
    file.run(
        "INSERT INTO query_storage (timestamp, type, status, domain, client) VALUES
            ('yesterday', 1, 2, 'a.example', '192.0.2.1'), (1e300, 1, 2, 'a.example', '192.0.2.1'),
            (1700000000, 1, 2, 'a.example', 'localhost'), (1700000000, 1, 2, 77, '192.0.2.1'),
            (1700000000, 1, 2, x'00ff2e', '192.0.2.1'), (1700000000, 'A', 'x', 'fine.example', '192.0.2.1'),
            (1700000000, 1, 2, 'hidden', '0.0.0.0')",
    );
    let mut store = Store::default();
    let summary = store.import(&file.path).unwrap();
    assert_eq!((summary.rows, summary.hidden), (8, 1));
    assert_eq!(summary.bad + summary.new_events, 8);
    assert!(summary.bad >= 4, "{summary:?}");
    let fine = store.dns().into_iter().find(|(_, d)| d.name.as_str() == "fine.example").unwrap().1;
    assert_eq!((fine.qtype, fine.status), (0, DnsStatus::Unknown));
}

#[test]
fn a_newer_version_is_read_as_far_as_it_can_be() {
    let file = File::of(21, 2);
    file.run("UPDATE ftl SET value = 30 WHERE id = 0");
    assert_eq!(Store::default().import(&file.path).unwrap().version, 30);
    file.run("ALTER TABLE query_storage RENAME COLUMN domain TO name");
    refused(&file.path, &["version 30 is newer", "(21)", "column domain", "update agentmon"]);
    let file = File::of(21, 0);
    file.run("UPDATE ftl SET value = 30; DROP VIEW queries; DROP TABLE query_storage");
    refused(&file.path, &["no table of queries", "version 30 is newer"]);
    // Texts moved to somewhere else.
    let file = File::of(21, 0);
    file.linked(1, "a.example", (1, 2, 4), 0.0);
    file.run("UPDATE ftl SET value = 30; ALTER TABLE domain_by_id RENAME TO names");
    refused(&file.path, &["none of its rows makes sense", "version 30 is newer"]);
}

#[test]
fn what_is_no_such_database_is_told() {
    let file = File::of(21, 1);
    let other = file.dir.path().join("other");
    refused(&other, &["other", "No such file"]);
    std::fs::write(&other, "").unwrap();
    refused(&other, &["it is empty"]);
    std::fs::write(&other, "<html>404</html>").unwrap();
    refused(&other, &["no SQLite database"]);
    let sqlite = file.dir.path().join("sqlite");
    Connection::open(&sqlite).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    refused(&sqlite, &["not Pi-hole's", "`ftl`"]);
    let file = File::of(9, 1);
    file.run("DELETE FROM ftl WHERE id = 0");
    refused(&file.path, &["no version"]);
    let file = File::of(9, 1);
    file.run("ALTER TABLE queries RENAME COLUMN client TO who");
    refused(&file.path, &["column client", "whole copy"]);
}

#[test]
fn half_a_copy_is_told() {
    let file = File::of(21, 2_000);
    let whole = std::fs::read(&file.path).unwrap();
    let half = file.dir.path().join("half.db");
    std::fs::write(&half, &whole[..whole.len() / 2]).unwrap();
    refused(&half, &["half a copy", "VACUUM INTO"]);
}

/// In write-ahead mode: while FTL has it open, and a copy of the file alone, beside which
/// nothing may appear.
#[test]
fn write_ahead_files() {
    let file = File::of(21, 3);
    let ftl = file.open();
    ftl.pragma_update(None, "journal_mode", "wal").unwrap();
    ftl.execute_batch(
        "INSERT INTO query_storage (timestamp, type, status, domain, client)
        VALUES (1700000000, 1, 2, 'live.example', '192.0.2.31')",
    )
    .unwrap();
    let mut store = Store::default();
    assert_eq!(store.import(&file.path).unwrap().new_events, 4, "rows of the -wal file too");
    ftl.execute_batch(
        "INSERT INTO query_storage (timestamp, type, status, domain, client)
        VALUES (1700000001, 1, 2, 'more.example', '192.0.2.31')",
    )
    .unwrap();
    assert_eq!(store.import(&file.path).unwrap().new_events, 1, "FTL goes on writing");
    drop(ftl);
    let folder = file.dir.path().join("copy");
    std::fs::create_dir(&folder).unwrap();
    let copy = folder.join("pihole-FTL.db");
    std::fs::copy(&file.path, &copy).unwrap();
    assert_eq!(Store::default().import(&copy).unwrap().new_events, 5);
    let there: Vec<_> =
        std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(there, ["pihole-FTL.db"]);
}

#[test]
fn rows_in_a_row_make_few_batches() {
    let file = File::of(21, 0);
    file.run(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 45000)
         INSERT INTO query_storage (timestamp, type, status, domain, client)
         SELECT 1700000000 + i, 1, 2, CASE i % 100 WHEN 0 THEN 'listed.example' ELSE 'a.example' END,
            '192.0.2.31' FROM n",
    );
    let mut store = Store::default();
    let summary = store.import(&file.path).unwrap();
    assert_eq!((summary.rows, summary.new_events), (45_000, 45_000));
    assert!(summary.new_findings > 100, "{summary:?}");
    assert!(store.batches < 20, "{}", store.batches);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// One byte of a good file changed, anywhere: read, or refused, but no panic.
    #[test]
    fn damage_never_panics(at: usize, byte: u8) {
        let file = File::of(21, 3);
        file.linked(9, "a.example", (1, 2, 4), 0.1);
        let mut bytes = std::fs::read(&file.path).unwrap();
        let at = at % bytes.len();
        bytes[at] = byte;
        let damaged = file.dir.path().join("damaged.db");
        std::fs::write(&damaged, bytes).unwrap();
        if let Ok(summary) = Store::default().import(&damaged) {
            prop_assert!(summary.new_events + summary.bad <= summary.rows);
        }
    }
}
