//! Events of several batches become rows of one transaction.
//!
//! In: [`Incoming`] batches and the writer's [`Memory`]. Out: rows by table, in memory.
//! Runs on the writer thread; no I/O here: [`super::commit`] writes what this collects.

use std::collections::HashMap;
use std::time::Duration;

use agentmon_core::Timestamp;
use agentmon_core::event::{Body, Direction, Flow, FlowPhase, Mac};
use agentmon_core::finding::Finding;
use agentmon_core::tier0::new_device;
use agentmon_core::wire::Health;
use agentmon_router::counters::Counters;

use super::fill::{
    name_of, push_connection, push_dns, push_done, push_firewall, push_gap, push_open, push_process,
};
use super::memory::{Cursor, EPOCHS_MAX, IMPORT_EPOCHS_MAX, Memory, OPEN_FLOWS_MAX};
use super::rows::{
    ConnectionRows, DnsRows, DoneRows, FirewallRows, GapRows, OpenKeyRows, OpenRows, ProcessRows,
};
use crate::alert::Seen;
use crate::alert::watch::Hit;
use crate::correlate::Waiting;
use crate::devices::Devices;
use crate::ingest::{Incoming, Stamped};

/// A device first seen longer ago than this is not new: sensors' clocks differ, and a batch
/// may have waited.
const NEW_FOR: Duration = Duration::from_secs(3_600);
/// What a finding about one is worth.
const KNOWN_SCORE: f64 = 0.1;

/// What became of one batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Events stored.
    pub stored: u64,
    /// Events that had been stored before.
    pub repeated: u64,
    /// Events that could not be read; counted by reason.
    pub bad: u64,
    /// The sender may forget everything up to this number; `None`: it had sent no events.
    pub acked: Option<u64>,
    /// Up to where this epoch is stored, whatever this batch held.
    pub cursor: Option<u64>,
}

/// The newest state of a sensor in this transaction.
#[derive(Debug)]
pub(super) struct Contact {
    pub(super) health: Health,
    pub(super) sent: Timestamp,
    pub(super) received: Timestamp,
    pub(super) address: Option<String>,
}

/// An open flow's newest record.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) flow: Flow,
    pub(super) time: Timestamp,
    pub(super) sensor_time: Option<Timestamp>,
    pub(super) epoch: u64,
    pub(super) received: Timestamp,
}

/// Rows of one transaction.
#[derive(Debug, Default)]
pub(super) struct Staging {
    pub(super) dns: DnsRows,
    pub(super) done: DoneRows,
    pub(super) firewall: FirewallRows,
    pub(super) gaps: GapRows,
    pub(super) processes: ProcessRows,
    pub(super) connections: ConnectionRows,
    /// By (sensor, id).
    pub(super) open: HashMap<(i32, u64), Open>,
    /// Rows of `flows_open` that are over or replaced.
    pub(super) closed: OpenKeyRows,
    pub(super) found: Vec<Seen>,
    /// Connections to watched names.
    pub(super) followed: Vec<Hit>,
    pub(super) contacts: HashMap<i32, Contact>,
    pub(super) cursors: HashMap<(i32, u64), Cursor>,
    /// Epochs to forget.
    pub(super) old_epochs: Vec<(i32, u64)>,
}

impl Staging {
    /// Takes in a batch: exactly the part that is not stored yet.
    pub(super) fn add(
        &mut self,
        batch: Incoming,
        memory: &mut Memory,
        counters: &Counters,
    ) -> Outcome {
        let (at, last) = ((batch.sensor, batch.epoch), batch.last_seq());
        let known = memory.cursors.get(&at).copied();
        // What is below the cursor has been stored; a hole above it is the sender's loss
        // (its ring evicts the oldest), which its own counters report.
        let repeated = known.map_or(0, |c| c.seq.saturating_add(1).saturating_sub(batch.first_seq));
        let repeated = usize::try_from(repeated).unwrap_or(usize::MAX).min(batch.events.len());
        // What is imported comes from this machine.
        let most = if batch.address.is_some() { EPOCHS_MAX } else { IMPORT_EPOCHS_MAX };
        let mut outcome = Outcome { repeated: as_u64(repeated), acked: last, ..Outcome::default() };
        let contact = Contact {
            health: batch.health,
            sent: batch.sent,
            received: batch.received,
            address: batch.address,
        };
        self.contacts.insert(batch.sensor, contact);
        // Whose an address is, is known for the whole batch: a device is often seen a moment
        // after its first packet.
        let sightings = batch.events.iter().skip(repeated).flatten();
        for stamped in sightings {
            if let Body::Device(device) = &stamped.event.body
                && !memory.devices.see(stamped.event.time, device)
            {
                counters.counter("drop.ingest.devices_full").inc();
            }
        }
        for item in batch.events.into_iter().skip(repeated) {
            match item {
                Ok(stamped) => {
                    self.event(stamped, at, batch.received, memory, counters);
                    outcome.stored += 1;
                }
                Err(reason) => {
                    counters.counter(&format!("drop.ingest.{reason}")).inc();
                    outcome.bad += 1;
                }
            }
        }
        if let Some(seq) = last.filter(|last| known.is_none_or(|c| *last > c.seq)) {
            let mut cursor = known.unwrap_or_default();
            cursor.seq = seq;
            cursor.events = cursor.events.saturating_add(outcome.stored);
            cursor.bad = cursor.bad.saturating_add(outcome.bad);
            cursor.updated = batch.received;
            memory.cursors.insert(at, cursor);
            self.cursors.insert(at, cursor);
            let old = memory.drop_old_epochs(batch.sensor, most);
            self.old_epochs.extend(old.into_iter().map(|epoch| (batch.sensor, epoch)));
        }
        outcome.cursor = memory.cursors.get(&at).map(|cursor| cursor.seq);
        outcome
    }

    fn event(
        &mut self,
        stamped: Stamped,
        at: (i32, u64),
        received: Timestamp,
        memory: &mut Memory,
        counters: &Counters,
    ) {
        let Stamped { event, sensor_time } = stamped;
        let (time, (sensor, epoch)) = (event.time, at);
        // What the hub's detectors read.
        if !matches!(event.body, Body::Device(_) | Body::Finding(_)) {
            memory.arrivals.see(time);
        }
        match event.body {
            Body::Dns(dns) => {
                memory.correlator.learn(time, &dns, &memory.devices);
                let mac = dns.mac.or_else(|| memory.devices.mac_of(dns.client, time));
                push_dns(&mut self.dns, time, sensor, mac, &dns, sensor_time);
            }
            Body::Flow(mut flow) => {
                name(&mut flow, time, memory);
                self.followed.extend(memory.watches.saw(&flow, began(&flow, time)));
                let flow = Open { flow, time, sensor_time, epoch, received };
                self.flow(sensor, flow, memory, counters);
            }
            Body::Firewall(packet) => {
                let mac = packet.mac.or_else(|| memory.devices.mac_of(packet.src.ip, time));
                push_firewall(&mut self.firewall, time, sensor, mac, &packet, sensor_time);
            }
            // Seen before all others, above.
            Body::Device(_) => {}
            Body::Finding(finding) => self.finding(time, sensor, sensor_time, finding, memory),
            Body::Gap(gap) => push_gap(&mut self.gaps, time, sensor, &gap),
            Body::Process(p) => {
                memory.judge.process(sensor, &p);
                push_process(&mut self.processes, time, sensor, &p, sensor_time);
            }
            Body::Connection(mut c) => {
                if c.resolved.is_none() && c.direction == Direction::Out {
                    let (began, ip) = (c.start.unwrap_or(time), c.local.ip);
                    let mac = memory.devices.mac_of(ip, began);
                    c.resolved = memory.correlator.resolve(ip, mac, c.remote.ip, began);
                }
                push_connection(&mut self.connections, time, sensor, &c, sensor_time);
                for finding in memory.judge.connection(time, sensor, &c) {
                    self.finding(time, sensor, sensor_time, finding, memory);
                }
            }
        }
    }

    fn flow(&mut self, sensor: i32, flow: Open, memory: &mut Memory, counters: &Counters) {
        let key = (sensor, flow.flow.id);
        let staged = self.open.remove(&key).is_some();
        let in_file = memory.open.remove(&key);
        if in_file {
            self.closed.sensor.append_value(sensor);
            self.closed.id.append_value(flow.flow.id);
            self.closed.rows += 1;
        }
        if flow.flow.phase == FlowPhase::End {
            let peer = memory.peers.number(flow.flow.dst.ip, name_of(&flow.flow));
            push_done(&mut self.done, sensor, &flow, peer);
            wait(sensor, &flow, memory);
        } else if in_file || staged || memory.open.len() + self.open.len() < OPEN_FLOWS_MAX {
            self.open.insert(key, flow);
        } else {
            counters.counter("drop.ingest.open_flows_full").inc();
        }
    }

    pub(super) fn finding(
        &mut self,
        time: Timestamp,
        sensor: i32,
        sensor_time: Option<Timestamp>,
        mut finding: Finding,
        memory: &Memory,
    ) {
        let devices = &memory.devices;
        let by_address = || devices.mac_of(finding.client?, time);
        let mac = finding.mac.or_else(by_address);
        let there_since = mac.zip(finding.client).and_then(|(m, ip)| devices.since(m, ip, time));
        if let Some(mac) = mac.filter(|_| finding.rule == new_device::RULE) {
            finding = known_here(finding, mac, time, devices);
        }
        let learning = memory.learning;
        self.found.push(Seen { time, sensor, sensor_time, mac, there_since, learning, finding });
    }

    /// The rows of `flows_open`, and what remembers them.
    pub(super) fn take_open(&mut self, memory: &mut Memory) -> OpenRows {
        let mut rows = OpenRows::default();
        for ((sensor, id), open) in std::mem::take(&mut self.open) {
            push_open(&mut rows, sensor, &open);
            memory.open.insert((sensor, id));
        }
        rows
    }
}

/// What the hub knows of a device that is new to a sensor: its maker, and whether it is new at
/// all; a sensor forgets when its memory is lost.
fn known_here(finding: Finding, mac: Mac, time: Timestamp, devices: &Devices) -> Finding {
    let mut finding = match devices.vendor(mac) {
        Some(vendor) => finding.with("vendor", vendor),
        None => finding,
    };
    let first = devices.first_seen(mac).filter(|first| time.since(*first) > NEW_FOR);
    if let Some(first) = first {
        finding.score = finding.score.min(KNOWN_SCORE);
        finding.why = format!("{}; not new to the hub, which saw it first at {first}", finding.why);
        finding = finding.with("first_seen", first);
    }
    finding
}

fn as_u64(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// Fills in device and name where the sensor did not know them. A connection is of the device
/// that began it: its address may be another's by the time it ends.
fn name(flow: &mut Flow, time: Timestamp, memory: &Memory) {
    let began = began(flow, time);
    let at = |time| memory.devices.mac_of(flow.src.ip, time);
    flow.mac = flow.mac.or_else(|| at(began)).or_else(|| at(time));
    if flow.resolved.is_none() {
        flow.resolved = memory.correlator.resolve(flow.src.ip, flow.mac, flow.dst.ip, began);
    }
}

fn began(flow: &Flow, time: Timestamp) -> Timestamp {
    let by_duration =
        || flow.duration_ms.map(|ms| time.minus(std::time::Duration::from_millis(ms)));
    flow.start.or_else(by_duration).unwrap_or(time)
}

/// A finished flow without a name waits for an answer that comes late. An open one does
/// not: its next record asks again.
fn wait(sensor: i32, open: &Open, memory: &mut Memory) {
    let flow = &open.flow;
    if flow.resolved.is_some() {
        return;
    }
    let waiting = Waiting {
        time: open.time,
        sensor,
        proto: flow.proto,
        src: flow.src.ip,
        sport: flow.src.port,
        dst: flow.dst.ip,
        dport: flow.dst.port,
        began: began(flow, open.time),
        replied: flow.replied,
    };
    memory.correlator.wait(waiting, flow.mac);
}
