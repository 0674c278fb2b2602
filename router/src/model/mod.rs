//! What the router knows about its network right now, for its own page, bus and command
//! line: devices, who talks most, the newest flows, alerts, events a second.
//!
//! In: every event and finding, from the pipeline thread. Out: copies, for whoever asks. All
//! of it in memory and bounded; a restart begins anew (the hub keeps history). One lock,
//! held for one event (60 to 200 ns; a finding 6 us) or for copying what was asked for.
//!
//! Memory when everything is full and every text at its longest: alerts 550 KB, open
//! flows 540 KB, devices 500 KB, rows 210 KB, news 150 KB; 2 MB together (a test counts
//! them). With the names of a real home it is half of that.

pub mod alerts;
pub mod devices;
mod history;
pub mod news;
pub mod talk;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use agentmon_core::event::{Body, Event, Flow, Mac};
use agentmon_core::finding::Finding;
use agentmon_core::time::{Mono, Timestamp};

use crate::counters::Counters;
pub use alerts::Alert;
use alerts::Alerts;
pub use devices::Device;
use devices::Devices;
use history::History;
pub use history::{STEP, STEPS};
pub use news::News;
use talk::Flows;
pub use talk::Row;

/// Everything. Shared by reference.
#[derive(Debug)]
pub struct Model {
    inner: Mutex<Inner>,
    /// Alerts to tell.
    pub news: News,
}

impl Default for Model {
    fn default() -> Self {
        Self::new(&Counters::default())
    }
}

#[derive(Debug, Default)]
struct Inner {
    history: History,
    devices: Devices,
    flows: Flows,
    alerts: Alerts,
}

/// An alert, and what a person calls its device.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// The alert.
    pub alert: Alert,
    /// Name, MAC or address; empty where it concerns nobody in particular.
    pub device: String,
}

/// A flow, and what a person calls its device.
#[derive(Clone, Debug, PartialEq)]
pub struct Shown {
    /// The flow.
    pub row: Row,
    /// Name, MAC or address.
    pub device: String,
}

/// Who talked much lately.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Talker {
    /// What a person calls it.
    pub device: String,
    /// Its MAC.
    pub mac: Option<Mac>,
    /// Its newest address.
    pub ip: Option<IpAddr>,
    /// Its own name.
    pub name: Option<String>,
    /// In the last minutes.
    pub bytes: u64,
    /// In the last minutes.
    pub flows: u64,
}

/// How full the memories are, and what had to be forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Sizes {
    /// Devices known.
    pub devices: u64,
    /// Devices forgotten to make room.
    pub devices_evicted: u64,
    /// Flows remembered.
    pub flows_open: u64,
    /// Flows for which there was no room.
    pub flows_untracked: u64,
    /// Alerts kept.
    pub alerts: u64,
    /// Alerts forgotten to make room.
    pub alerts_evicted: u64,
}

/// Which alerts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AlertFilter {
    /// Last finding not before.
    pub since: Option<Timestamp>,
    /// At least.
    pub severity: Option<agentmon_core::finding::Severity>,
    /// Of this rule.
    pub rule: Option<String>,
    /// Of this device, by name, MAC or address.
    pub device: Option<String>,
    /// Only those nobody acknowledged.
    pub open: bool,
}

impl Model {
    /// Nothing known yet.
    #[must_use]
    pub fn new(counters: &Counters) -> Self {
        Self { inner: Mutex::default(), news: News::new(counters) }
    }

    /// One event that passed the pipeline.
    pub fn observe(&self, event: &Event, now: Mono) {
        let mut inner = self.lock();
        match &event.body {
            Body::Dns(dns) => inner.devices.asked(dns, event.time),
            Body::Device(device) => inner.devices.learn(device, event.time),
            Body::Flow(flow) => inner.flow(flow, event.time, now),
            Body::Finding(finding) => {
                let told = inner.found(finding, event.time);
                drop(inner);
                if let Some(told) = told {
                    self.news.push(told, now);
                }
            }
            // Who was stopped may be anybody out there.
            Body::Firewall(_) | Body::Gap(_) | Body::Process(_) | Body::Connection(_) => {}
        }
    }

    /// What tier-0 found.
    pub fn found(&self, finding: &Finding, time: Timestamp, now: Mono) {
        let told = self.lock().found(finding, time);
        if let Some(told) = told {
            self.news.push(told, now);
        }
    }

    /// Once a second: so many events up to now.
    pub fn tick(&self, now: Mono, events: u64) {
        self.lock().history.tick(now, events);
    }

    /// The wall clock was set from `from` to `to`.
    pub fn clock_set(&self, from: Timestamp, to: Timestamp) {
        let mut inner = self.lock();
        inner.devices.clock_set(from, to);
        inner.flows.clock_set(from, to);
        inner.alerts.clock_set(from, to);
    }

    /// Events a second of the last [`STEPS`] steps, newest last.
    #[must_use]
    pub fn per_second(&self) -> Vec<f64> {
        self.lock().history.per_second()
    }

    /// The `n` devices with most bytes in the last minutes, most first.
    #[must_use]
    pub fn talkers(&self, n: usize, now: Mono) -> Vec<Talker> {
        let inner = self.lock();
        let mut sums: Vec<_> =
            inner.devices.list().iter().map(|d| (d.recent.sums(now), d)).collect();
        sums.retain(|((bytes, flows), _)| *bytes > 0 || *flows > 0);
        sums.sort_unstable_by_key(|(sums, _)| std::cmp::Reverse(*sums));
        let talker = |((bytes, flows), d): ((u64, u64), &Device)| Talker {
            device: d.label(),
            mac: d.mac,
            ip: d.ips.first().copied(),
            name: d.name.clone(),
            bytes,
            flows,
        };
        sums.into_iter().take(n).map(talker).collect()
    }

    /// The devices, last seen first, with how many open alerts each has.
    #[must_use]
    pub fn devices(&self, n: usize) -> Vec<(Device, u64)> {
        let inner = self.lock();
        let mut list: Vec<&Device> = inner.devices.list().iter().collect();
        list.sort_by_key(|d| std::cmp::Reverse((d.last_seen, d.mac)));
        // Each alert is looked up once: this is done while the pipeline waits.
        let alerts = inner.alerts.list();
        let whose = alerts.iter().filter(|alert| alert.acked.is_none());
        let whose: Vec<_> =
            whose.filter_map(|alert| inner.devices.who(alert.mac, alert.ip)).collect();
        let open = |d: &Device| whose.iter().filter(|w| std::ptr::eq(**w, d)).count() as u64;
        list.into_iter().take(n).map(|d| (d.clone(), open(d))).collect()
    }

    /// The newest flows, of one device when it is named.
    #[must_use]
    pub fn flows(&self, n: usize, device: Option<&str>) -> Vec<Shown> {
        let inner = self.lock();
        let wanted = |row: &&Row| {
            device.is_none_or(|word| {
                [(row.mac, row.src.ip), (None, row.dst.ip)].iter().any(|(mac, ip)| {
                    inner.devices.who(*mac, Some(*ip)).is_some_and(|d| d.is(word))
                        || word.parse() == Ok(*ip)
                })
            })
        };
        let shown = |row: &Row| {
            let device = inner.label(row.mac, Some(row.src.ip));
            Shown { row: row.clone(), device }
        };
        inner.flows.rows().into_iter().filter(wanted).take(n).map(shown).collect()
    }

    /// The newest alerts that match, and how many match.
    #[must_use]
    pub fn alerts(&self, n: usize, filter: &AlertFilter) -> (Vec<Told>, usize) {
        let inner = self.lock();
        let mut list = inner.alerts.list();
        list.retain(|alert| inner.matches(alert, filter));
        let total = list.len();
        let told =
            |alert: &Alert| Told { alert: alert.clone(), device: inner.label(alert.mac, alert.ip) };
        (list.into_iter().take(n).map(told).collect(), total)
    }

    /// Somebody has seen an alert. False when there is none of that id.
    #[must_use]
    pub fn ack(&self, id: u64, note: &str) -> bool {
        self.lock().alerts.ack(id, note)
    }

    /// How full the memories are.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        let inner = self.lock();
        Sizes {
            devices: inner.devices.list().len() as u64,
            devices_evicted: inner.devices.evicted(),
            flows_open: inner.flows.open() as u64,
            flows_untracked: inner.flows.untracked(),
            alerts: inner.alerts.list().len() as u64,
            alerts_evicted: inner.alerts.evicted(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// The traffic belongs to the originator when it is one of ours, else to the responder.
    fn flow(&mut self, flow: &Flow, time: Timestamp, now: Mono) {
        let traffic = self.flows.record(flow, time, now);
        if traffic == talk::Traffic::default() {
            return;
        }
        if !self.devices.talked((flow.mac, flow.src.ip), traffic, time, now) {
            let responder = flow.nat_dst.unwrap_or(flow.dst).ip;
            self.devices.talked((None, responder), traffic.turned(), time, now);
        }
    }

    fn found(&mut self, finding: &Finding, time: Timestamp) -> Option<Told> {
        let known = self.devices.who(finding.mac, finding.client).and_then(|d| d.mac);
        let mac = finding.mac.or(known);
        let alert = self.alerts.found(finding, mac, time)?;
        let device = self.label(alert.mac, alert.ip);
        Some(Told { alert, device })
    }

    fn label(&self, mac: Option<Mac>, ip: Option<IpAddr>) -> String {
        let known = self.devices.who(mac, ip).map(Device::label);
        let mac = || mac.map(|mac| mac.to_string());
        known.or_else(mac).or_else(|| ip.map(|ip| ip.to_string())).unwrap_or_default()
    }

    fn matches(&self, alert: &Alert, filter: &AlertFilter) -> bool {
        let is_device = |word: &String| {
            self.devices.who(alert.mac, alert.ip).is_some_and(|d| d.is(word))
                || alert.ip.is_some_and(|ip| word.parse() == Ok(ip))
                || alert.mac.is_some_and(|mac| word.parse() == Ok(mac))
        };
        filter.since.is_none_or(|since| alert.time >= since)
            && filter.severity.is_none_or(|least| alert.severity() >= least)
            && filter.rule.as_ref().is_none_or(|rule| *rule == alert.rule)
            && filter.device.as_ref().is_none_or(is_device)
            && !(filter.open && alert.acked.is_some())
    }
}

/// A time by a clock that had not been set, by the clock as it is now.
fn moved(time: Timestamp, from: Timestamp, to: Timestamp) -> Timestamp {
    if time.is_plausible() || !to.is_plausible() {
        return time;
    }
    // Both steps are exact: an implausible time is no later than `from` by much.
    to.minus(from.since(time)).plus(time.since(from))
}
