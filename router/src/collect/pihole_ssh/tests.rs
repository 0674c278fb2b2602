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
