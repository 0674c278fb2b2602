//! The collector as a whole, with a real `sshd`: its connection is cut, the log rotated.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use agentmon_core::time::SystemClock;

use super::*;
use crate::collect::{Outbox, State as StateLine, Stop};
use crate::counters::Counters;
use crate::ssh::sshd::Sshd;

fn context() -> (Context, Receiver<Delivery>) {
    let (outbox, receiver) = Outbox::channel();
    let context = Context {
        outbox,
        stop: Stop::default(),
        clock: Arc::new(SystemClock),
        counters: Counters::default(),
        state: StateLine::default(),
    };
    (context, receiver)
}

struct Lab {
    sshd: Sshd,
    config: Config,
    written: u32,
}

impl Lab {
    fn new() -> Option<Self> {
        let sshd = Sshd::start()?;
        let target = sshd.target.clone();
        let config = Config {
            enabled: true,
            host: target.host,
            port: target.port,
            user: target.user,
            key: target.key,
            known_hosts: target.known_hosts,
            log: sshd.at("pihole.log").to_str().unwrap().to_owned(),
            timezone: "utc".to_owned().try_into().unwrap(),
            from_start: true,
            poll_ms: 200,
            copy_folder: sshd.at("copies"),
            ..Config::default()
        };
        config.validate().unwrap();
        Some(Self { sshd, config, written: 0 })
    }

    /// One question and its answer.
    fn ask(&mut self) {
        self.written += 1;
        let n = self.written;
        let lines = format!(
            "Nov 23 14:00:00 dnsmasq[7]: {n} 192.0.2.9/5353 query[A] n{n}.example.com from 192.0.2.9\n\
             Nov 23 14:00:00 dnsmasq[7]: {n} 192.0.2.9/5353 forwarded n{n}.example.com to 192.0.2.53\n\
             Nov 23 14:00:00 dnsmasq[7]: {n} 192.0.2.9/5353 reply n{n}.example.com is 198.51.100.7\n"
        );
        let mut log = OpenOptions::new().append(true).create(true).open(&self.config.log).unwrap();
        log.write_all(lines.as_bytes()).unwrap();
    }

    /// As Pi-hole's logrotate does it.
    fn copytruncate(&self) {
        fs::copy(&self.config.log, format!("{}.1", self.config.log)).unwrap();
        OpenOptions::new().write(true).open(&self.config.log).unwrap().set_len(0).unwrap();
    }
}

/// Names of the questions told until `until` of them are there, and the last checkpoint.
fn names(
    receiver: &Receiver<Delivery>,
    until: usize,
    told: &mut Vec<String>,
) -> Option<Checkpoint> {
    let mut last = None;
    while told.len() < until {
        let delivery = receiver.recv_timeout(Duration::from_secs(60)).expect("events in a minute");
        for event in delivery.events {
            match event.body {
                Body::Dns(dns) => {
                    assert_eq!(dns.source, SOURCE);
                    told.push(dns.name.to_string());
                }
                other => panic!("{other:?}"),
            }
        }
        last = delivery.checkpoint.or(last);
    }
    last
}

fn expected(n: u32) -> Vec<String> {
    (1..=n).map(|n| format!("n{n}.example.com")).collect()
}

#[test]
fn the_log_is_told_once_over_rotation_restart_and_lost_connections() {
    let Some(mut lab) = Lab::new() else { return };
    let mut told = Vec::new();
    (0..500).for_each(|_| lab.ask());
    let (first, receiver) = context();
    let mut source = Source::new(lab.config.clone());
    let stop = first.stop.clone();
    let state = first.state.clone();
    let thread = std::thread::spawn(move || source.run(&first).map_err(|e| format!("{e:#}")));
    names(&receiver, 500, &mut told);
    assert!(state.get().starts_with("ok: "), "{}", state.get());
    lab.ask();
    lab.copytruncate();
    lab.ask();
    let checkpoint = names(&receiver, 502, &mut told);
    stop.stop();
    thread.join().unwrap().unwrap();
    let checkpoint = receiver.try_iter().filter_map(|d| d.checkpoint).last().or(checkpoint);
    // Restarted, with the log rotated meanwhile.
    lab.ask();
    lab.copytruncate();
    lab.ask();
    let (second, receiver) = context();
    let mut source = Source::new(lab.config.clone());
    let checkpoint = checkpoint.unwrap();
    assert_eq!(source.checkpoint_key().as_ref(), Some(&checkpoint.key));
    source.restore(&checkpoint.value);
    let (stop, state) = (second.stop.clone(), second.state.clone());
    let thread = std::thread::spawn(move || {
        (source.run(&second).map_err(|e| format!("{e:#}")), source, second)
    });
    names(&receiver, 504, &mut told);
    assert!(state.get().starts_with("ok: "), "{}", state.get());
    // The connection is cut; there is no server; then there is.
    lab.sshd.cut();
    let (outcome, mut source, context) = thread.join().unwrap();
    assert!(outcome.unwrap_err().contains("ssh ended"), "no reason");
    let refused = source.run(&context).map_err(|e| format!("{e:#}")).unwrap_err();
    assert!(refused.contains("refused"), "{refused}");
    lab.ask();
    lab.sshd.run();
    let thread = std::thread::spawn(move || source.run(&context).map_err(|e| format!("{e:#}")));
    names(&receiver, 505, &mut told);
    stop.stop();
    thread.join().unwrap().unwrap();
    assert_eq!(told, expected(505));
}

#[test]
fn without_a_log_it_says_so() {
    let Some(lab) = Lab::new() else { return };
    let (context, _receiver) = context();
    let (stop, state) = (context.stop.clone(), context.state.clone());
    let mut source = Source::new(lab.config.clone());
    let thread = std::thread::spawn(move || source.run(&context).map_err(|e| format!("{e:#}")));
    while !state.is_caught_up() {
        assert!(!thread.is_finished());
        std::thread::sleep(Duration::from_millis(20));
    }
    stop.stop();
    thread.join().unwrap().unwrap();
    assert!(state.get().contains("has no"), "{}", state.get());
}

/// A database of version 21, as FTL writes it: the newest rows are in its write-ahead log.
fn ftl(path: &std::path::Path) -> rusqlite::Connection {
    let connection = rusqlite::Connection::open(path).unwrap();
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL;
             CREATE TABLE ftl (id INTEGER PRIMARY KEY, value BLOB, description TEXT);
             INSERT INTO ftl VALUES (0, 21, ''), (1, 0, ''), (2, 1795000000, '');
             CREATE TABLE query_storage (id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp INTEGER,
                 type INTEGER, status INTEGER, domain INTEGER, client INTEGER);
             CREATE TABLE network (id INTEGER PRIMARY KEY, hwaddr TEXT, interface TEXT);
             CREATE TABLE network_addresses (network_id INTEGER, ip TEXT, lastSeen INTEGER,
                 name TEXT);
             PRAGMA wal_checkpoint(TRUNCATE);",
        )
        .unwrap();
    connection
}

fn row(connection: &rusqlite::Connection, n: u32) {
    connection
        .execute_batch(&format!(
            "INSERT INTO query_storage
             VALUES ({n}, 1700000000 + {n}, 1, 2, 'n{n}.example.com', '192.0.2.9');"
        ))
        .unwrap();
}

#[test]
fn the_database_is_copied_and_each_row_told_once() {
    let Some(lab) = Lab::new() else { return };
    let path = lab.sshd.at("pihole-FTL.db");
    let copies = lab.config.copy_folder.clone();
    fs::create_dir(&copies).unwrap();
    let config = Config { database: path.to_str().unwrap().to_owned(), ..lab.config.clone() };
    config.validate().unwrap();
    let writer = ftl(&path);
    (1..=300).for_each(|n| row(&writer, n));
    assert!(fs::metadata(path.with_extension("db-wal")).unwrap().len() > 100_000);
    let (mut told, mut committed) = (Vec::new(), None::<Checkpoint>);
    for rows in [300, 301] {
        if rows == 301 {
            row(&writer, 301);
        }
        let (context, receiver) = context();
        let mut source = database::Source::new(config.clone());
        if let Some(checkpoint) = &committed {
            assert_eq!(source.checkpoint_key().as_ref(), Some(&checkpoint.key));
            source.restore(&checkpoint.value);
        }
        let (stop, state) = (context.stop.clone(), context.state.clone());
        let thread = std::thread::spawn(move || source.run(&context).map_err(|e| format!("{e:#}")));
        while !state.is_caught_up() && !thread.is_finished() {
            std::thread::sleep(Duration::from_millis(20));
        }
        stop.stop();
        thread.join().unwrap().unwrap();
        assert!(state.get().contains(&format!("row {rows}")), "{}", state.get());
        for delivery in receiver.try_iter() {
            committed = delivery.checkpoint.or(committed);
            told.extend(delivery.events.into_iter().filter_map(|event| match event.body {
                Body::Dns(dns) => Some(dns.name.to_string()),
                _ => None,
            }));
        }
    }
    assert_eq!(told, expected(301));
    assert_eq!(fs::read_dir(&copies).unwrap().count(), 0, "a copy stays behind");
}

#[test]
fn a_database_too_long_or_absent_is_told() {
    let Some(lab) = Lab::new() else { return };
    let path = lab.sshd.at("pihole-FTL.db");
    let database = path.to_str().unwrap().to_owned();
    let copy_folder = lab.sshd.at("");
    let config = Config { database, copy_folder, copy_bytes_max: 4_096, ..lab.config.clone() };
    let (context, _receiver) = context();
    let problem = || {
        let outcome = database::Source::new(config.clone()).run(&context);
        outcome.map_err(|e| format!("{e:#}")).unwrap_err()
    };
    assert!(problem().contains("there is no"), "{}", problem());
    row(&ftl(&path), 1);
    assert!(problem().contains("copy_bytes_max"), "{}", problem());
}
