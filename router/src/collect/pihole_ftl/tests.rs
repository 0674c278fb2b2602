//! The collector against real SQLite files that grow, are locked, replaced and damaged.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use agentmon_core::time::{Clock as _, SimClock};
use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use crate::collect::{Outbox, State, Stop};
use crate::counters::Counters;

/// 2026-11-23 14:00 UTC
const NOW: i64 = 1_795_442_400;

struct Rig {
    dir: TempDir,
    source: Source,
    context: Context,
    receiver: Receiver<Delivery>,
    clock: Arc<SimClock>,
    committed: Option<Checkpoint>,
}

impl Rig {
    fn new(from_start: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pihole-FTL.db");
        let config = Config { enabled: true, path, from_start, ..Config::default() };
        config.validate().unwrap();
        let (outbox, receiver) = Outbox::channel();
        let clock = Arc::new(SimClock::at(Timestamp::from_secs(NOW)));
        let context = Context {
            outbox,
            stop: Stop::default(),
            clock: clock.clone(),
            counters: Counters::default(),
            state: State::default(),
        };
        let source = Source::new(config);
        Self { dir, source, context, receiver, clock, committed: None }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("pihole-FTL.db")
    }

    fn run(&self, sql: &str) {
        Connection::open(self.path()).unwrap().execute_batch(sql).unwrap();
    }

    /// A file of version 21, begun at a time.
    fn file(&self, begun: i64) {
        self.run(&format!(
            "CREATE TABLE ftl (id INTEGER PRIMARY KEY, value BLOB, description TEXT);
             INSERT INTO ftl VALUES (0, 21, ''), (1, 0, ''), (2, {begun}, '');
             CREATE TABLE query_storage (id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp INTEGER,
                 type INTEGER, status INTEGER, domain INTEGER, client INTEGER);
             CREATE TABLE network (id INTEGER PRIMARY KEY, hwaddr TEXT, interface TEXT);
             CREATE TABLE network_addresses (network_id INTEGER, ip TEXT, lastSeen INTEGER,
                 name TEXT)"
        ));
    }

    fn rows(&self, names: &[&str]) {
        for name in names {
            self.run(&format!(
                "INSERT INTO query_storage (timestamp, type, status, domain, client)
                 VALUES ({}, 1, 2, '{name}', '192.0.2.31')",
                self.clock.wall().nanos() / 1_000_000_000 - 120
            ));
        }
    }

    /// What one look tells, as words.
    fn look(&mut self) -> anyhow::Result<Vec<String>> {
        self.source.look(&self.context)?;
        let mut told = Vec::new();
        for delivery in self.receiver.try_iter() {
            self.committed = delivery.checkpoint.or(self.committed.take());
            told.extend(delivery.events.into_iter().map(|event| match event.body {
                Body::Dns(dns) => dns.name.as_str().to_owned(),
                Body::Gap(gap) => gap.reason,
                Body::Device(d) => format!("{} {} {:?}", d.mac, d.ip, d.hostname),
                other => format!("{other:?}"),
            }));
        }
        Ok(told)
    }

    fn restart(&mut self) {
        let config = self.source.config.clone();
        self.source = Source::new(config);
        let committed = self.committed.as_ref().expect("a place was committed");
        assert_eq!(self.source.checkpoint_key().as_ref(), Some(&committed.key));
        self.source.restore(&committed.value);
    }
}

#[test]
fn rows_are_told_once_over_restarts() {
    let mut rig = Rig::new(false);
    rig.file(1);
    rig.rows(&["before.example"]);
    assert!(rig.look().unwrap().is_empty(), "what was there is history");
    rig.rows(&["a.example", "b.example"]);
    assert_eq!(rig.look().unwrap(), ["a.example", "b.example"]);
    rig.restart();
    assert!(rig.look().unwrap().is_empty());
    rig.rows(&["c.example"]);
    rig.restart();
    assert_eq!(rig.look().unwrap(), ["c.example"]);
}

#[test]
fn from_the_start_and_more_than_one_delivery() {
    let mut rig = Rig::new(true);
    rig.file(1);
    rig.run(&format!(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
         INSERT INTO query_storage (timestamp, type, status, domain, client)
         SELECT {NOW} - 9000 + i, 1, 2, 'n' || i || '.example', '192.0.2.31' FROM n"
    ));
    let told = rig.look().unwrap();
    assert_eq!((told.len(), told.first().unwrap().as_str()), (3_000, "n1.example"));
    assert_eq!(rig.context.counters.snapshot()["pihole_ftl.rows"], 3_000);
}

#[test]
fn a_young_row_waits_until_it_is_final() {
    let mut rig = Rig::new(true);
    rig.file(1);
    rig.rows(&["old.example"]);
    rig.run(&format!(
        "INSERT INTO query_storage (timestamp, type, status, domain, client)
         VALUES ({NOW} - 5, 1, 0, 'young.example', '192.0.2.31')"
    ));
    assert_eq!(rig.look().unwrap(), ["old.example"]);
    rig.run("UPDATE query_storage SET status = 2");
    rig.clock.advance(Duration::from_secs(90));
    assert_eq!(rig.look().unwrap(), ["young.example"]);
}

#[test]
fn a_file_that_was_begun_anew() {
    let mut rig = Rig::new(false);
    rig.file(1);
    rig.rows(&["a.example", "b.example"]);
    rig.look().unwrap();
    let old = rig.dir.path().join("old");
    std::fs::copy(rig.path(), &old).unwrap();
    rig.rows(&["c.example"]);
    assert_eq!(rig.look().unwrap(), ["c.example"]);
    // An older copy was put back: what it holds was read.
    std::fs::copy(&old, rig.path()).unwrap();
    assert_eq!(rig.look().unwrap(), ["pihole-database-older"]);
    // Pi-hole made a new one: all of it is new.
    std::fs::remove_file(rig.path()).unwrap();
    rig.file(2);
    rig.rows(&["new.example"]);
    rig.restart();
    assert_eq!(rig.look().unwrap(), ["pihole-database-new", "new.example"]);
    assert!(rig.look().unwrap().is_empty());
}

/// Version 1 has nothing but its first row to be known by, and deletes it one day.
#[test]
fn a_file_of_version_1_that_lost_its_first_rows() {
    let mut rig = Rig::new(true);
    rig.run(
        "CREATE TABLE ftl (id INTEGER PRIMARY KEY, value BLOB); INSERT INTO ftl VALUES (0, 1);
         CREATE TABLE queries (id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp INTEGER,
             type INTEGER, status INTEGER, domain TEXT, client TEXT)",
    );
    let row = |rig: &Rig, name: &str| {
        let time = rig.clock.wall().nanos() / 1_000_000_000 - 120;
        rig.run(&format!(
            "INSERT INTO queries (timestamp, type, status, domain, client)
             VALUES ({time}, 1, 2, '{name}', '192.0.2.31')"
        ));
    };
    ["a.example", "b.example"].iter().for_each(|name| row(&rig, name));
    assert_eq!(rig.look().unwrap(), ["a.example", "b.example"]);
    rig.run("DELETE FROM queries WHERE id = 1");
    row(&rig, "c.example");
    rig.restart();
    assert_eq!(rig.look().unwrap(), ["c.example"]);
    // FTL upgrades it: now it is known by when its counters began.
    rig.run("UPDATE ftl SET value = 2 WHERE id = 0; INSERT INTO ftl VALUES (2, 1795442400)");
    assert!(rig.look().unwrap().is_empty());
    row(&rig, "d.example");
    assert_eq!(rig.look().unwrap(), ["d.example"]);
    // Begun anew, and longer already: row 4 is another one.
    rig.run(
        "DELETE FROM queries; UPDATE ftl SET value = 1795449999 WHERE id = 2;
             DELETE FROM sqlite_sequence",
    );
    rig.clock.advance(Duration::from_secs(60));
    (0..5).for_each(|n| row(&rig, &format!("new{n}.example")));
    assert_eq!(rig.look().unwrap().len(), 6, "a gap, and all of it");
}

#[test]
fn bad_files_are_told_and_nothing_is_skipped() {
    let mut rig = Rig::new(true);
    let refuses = |rig: &mut Rig, says: &str| {
        let error = format!("{:#}", rig.look().unwrap_err());
        assert!(error.contains(says), "{error}");
    };
    refuses(&mut rig, "pihole-FTL.db");
    std::fs::write(rig.path(), "<html>").unwrap();
    refuses(&mut rig, "no SQLite database");
    std::fs::remove_file(rig.path()).unwrap();
    rig.file(1);
    rig.rows(&["a.example"]);
    let whole = std::fs::read(rig.path()).unwrap();
    std::fs::write(rig.path(), &whole[..whole.len() / 2]).unwrap();
    refuses(&mut rig, "half a copy");
    std::fs::write(rig.path(), &whole).unwrap();
    rig.run("UPDATE ftl SET value = 99 WHERE id = 0; ALTER TABLE query_storage RENAME domain TO q");
    refuses(&mut rig, "version 99 is newer");
    std::fs::write(rig.path(), &whole).unwrap();
    // A version that is not known, and has what is needed, is read.
    rig.run(
        "UPDATE ftl SET value = 99 WHERE id = 0; ALTER TABLE query_storage ADD COLUMN later BLOB",
    );
    assert_eq!(rig.look().unwrap(), ["a.example"]);
}

#[test]
fn devices_of_the_network_table() {
    let mut rig = Rig::new(false);
    rig.file(1);
    rig.run(&format!(
        "INSERT INTO network VALUES (1, '00:00:5e:00:53:01', 'eth0'), (2, 'ip-192.0.2.9', 'eth0');
         INSERT INTO network_addresses VALUES (1, '192.0.2.7', {NOW}, 'laptop.lan'),
            (1, 'nonsense', {NOW}, 'x'), (1, '2001:db8::7', {NOW}, NULL), (2, '192.0.2.9', 1, 'y')"
    ));
    let told = rig.look().unwrap();
    let expected =
        [r#"00:00:5e:00:53:01 192.0.2.7 Some("laptop.lan")"#, "00:00:5e:00:53:01 2001:db8::7 None"];
    assert_eq!(told, expected);
    assert!(rig.look().unwrap().is_empty(), "not with every look");
    rig.clock.advance(DEVICES_EVERY);
    assert_eq!(rig.look().unwrap().len(), 2);
}

#[test]
fn an_unreadable_checkpoint_is_told() {
    let mut rig = Rig::new(false);
    rig.source.restore(b"[]");
    assert!(rig.source.restore_failed && rig.source.place.is_none());
}

/// The whole loop on its thread.
#[test]
fn it_runs_until_told_to_stop() {
    let mut rig = Rig::new(true);
    rig.file(1);
    rig.rows(&["a.example"]);
    let (mut source, context) = (rig.source, rig.context.clone());
    let thread = std::thread::spawn(move || source.run(&context));
    assert!(rig.receiver.recv().unwrap().checkpoint.is_some());
    assert_eq!(rig.receiver.recv().unwrap().events.len(), 1);
    while !rig.context.state.is_caught_up() {
        std::thread::yield_now();
    }
    rig.context.stop.stop();
    thread.join().unwrap().unwrap();
    rig.committed = None;
}
