//! Devices that were never seen before: rule `new-device`.
//!
//! In: leases and neighbour entries. Out: one finding for each MAC that shows itself for the
//! first time after the learning period; what is there at the beginning is the household.
//! A randomised MAC ranks lower: it may well be a known phone with a new face. So does a
//! virtual machine's or a container's. An address says nothing here: a known device with a
//! new one is no news. More than [`Config::many`] within an hour are told as one.
//!
//! The finding waits [`GATHER`] for the name that comes a moment after the first sign of
//! life (a device asks who has its address before its lease is written).
//!
//! What is known can be taken out and put back ([`Engine::known_devices`]), so that a restart
//! does not begin to learn anew.
//!
//! Budget: 0.2 us per sighting. Invariants: at most [`KNOWN_MAX`] devices are known, the one
//! unseen for longest makes room, counted (worst that follows: a second finding about it); at
//! most [`GATHER_MAX`] wait; all spans in steady time.
//!
//! [`Engine::known_devices`]: super::Engine::known_devices

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::locals::Locals;
use super::moment::Moment;
use super::{ConfigError, Found, positive, score_range};
use crate::event::{Device, DeviceSource, Mac, MacKind, host_name, is_public};
use crate::finding::Finding;
use crate::time::Mono;

/// The rule's name.
pub const RULE: &str = "new-device";
/// Most devices known: years of a home with guests; 100 KB.
pub const KNOWN_MAX: usize = 4_096;
/// How long to wait for a name.
const GATHER: Duration = Duration::from_secs(5);
/// Most devices that wait for it.
const GATHER_MAX: usize = 64;
/// Span in which new devices are counted.
const MANY_WITHIN: Duration = Duration::from_secs(3_600);
/// Subject of a finding about many.
const MANY: &str = "many";

/// Settings of the new-device rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether the rule is on.
    pub enabled: bool,
    /// For so long after the very first start, devices are learnt and not told, in seconds:
    /// those that are asleep or away come back within a day. What was learnt outlives
    /// restarts; `status` shows how long it still takes.
    pub learn_seconds: u64,
    /// More new devices than this within an hour are one finding.
    pub many: u32,
    /// How grave it is, 0 to 1.
    pub score: f64,
    /// How grave it is when the MAC is randomised, or of a virtual machine or container.
    pub random_score: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { enabled: true, learn_seconds: 86_400, many: 10, score: 0.45, random_score: 0.25 }
    }
}

impl Config {
    /// Checks what types cannot.
    ///
    /// # Errors
    /// The first key whose value makes no sense.
    pub fn validate(&self) -> Result<(), ConfigError> {
        positive("many", self.many.into())?;
        score_range("score", self.score)?;
        score_range("random_score", self.random_score)
    }
}

/// What is known, to be kept over a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownDevices {
    /// Devices seen, longest unseen first.
    pub macs: Vec<Mac>,
    /// How long was learnt already.
    pub learnt: Duration,
}

#[derive(Debug)]
struct Fresh {
    due: Mono,
    mac: Mac,
    ip: IpAddr,
    iface: Option<String>,
    /// Who calls it what; the name of the best source.
    name: Option<(DeviceSource, String)>,
}

#[derive(Debug)]
pub(super) struct Detector {
    config: Config,
    /// With the last sighting.
    known: HashMap<Mac, Mono>,
    fresh: Vec<Fresh>,
    /// Learnt up to here.
    learnt: Duration,
    /// `learnt` was brought up to date then.
    as_of: Option<Mono>,
    hour: (Mono, u32),
    /// Devices made known so far: whoever keeps them sees that there are more.
    changes: u64,
    evicted: u64,
    folded: u64,
}

impl Detector {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            config: config.clone(),
            known: HashMap::new(),
            fresh: Vec::new(),
            learnt: Duration::ZERO,
            as_of: None,
            hour: (Mono::from_nanos(0), 0),
            changes: 0,
            evicted: 0,
            folded: 0,
        }
    }

    pub(super) fn reconfigure(&mut self, config: &Config) {
        self.config = config.clone();
    }

    pub(super) fn on_device(&mut self, at: Moment, device: &Device, locals: &Locals) {
        // A public IPv4 address is the provider's gateway, as a rule.
        let outside = device.ip.is_ipv4() && is_public(device.ip);
        if !device.mac.is_device() || (outside && !locals.contain(device.ip, at.steady)) {
            return;
        }
        if let Some(seen) = self.known.get_mut(&device.mac) {
            *seen = at.steady;
            if let Some(fresh) = self.fresh.iter_mut().find(|fresh| fresh.mac == device.mac) {
                fresh.gather(device);
            }
            return;
        }
        self.know(device.mac, at.steady);
        if !self.config.enabled || self.left() > Duration::ZERO {
            return;
        }
        if self.fresh.len() >= GATHER_MAX {
            self.folded += 1;
            return;
        }
        let (due, mac, ip) = (at.steady.plus(GATHER), device.mac, device.ip);
        let mut fresh = Fresh { due, mac, ip, iface: None, name: None };
        fresh.gather(device);
        self.fresh.push(fresh);
    }

    fn know(&mut self, mac: Mac, now: Mono) {
        if self.known.len() >= KNOWN_MAX {
            let oldest = self.known.iter().min_by_key(|(mac, seen)| (**seen, **mac));
            if let Some(oldest) = oldest.map(|(mac, _)| *mac) {
                self.known.remove(&oldest);
                self.evicted += 1;
            }
        }
        self.known.insert(mac, now);
        self.changes += 1;
    }

    /// How long still to learn.
    pub(super) fn left(&self) -> Duration {
        Duration::from_secs(self.config.learn_seconds).saturating_sub(self.learnt)
    }

    pub(super) const fn takes(&self) -> u64 {
        self.config.learn_seconds
    }

    /// Time goes on; tells what has gathered its name.
    pub(super) fn decide(&mut self, at: Moment, found: &mut Vec<Found>) {
        let since = self.as_of.replace(at.steady).unwrap_or(at.steady);
        self.learnt = self.learnt.saturating_add(at.steady.since(since));
        while let Some(due) = self.fresh.iter().position(|fresh| fresh.due <= at.steady) {
            let fresh = self.fresh.remove(due);
            self.tell(at, &fresh, found);
        }
    }

    fn tell(&mut self, at: Moment, fresh: &Fresh, found: &mut Vec<Found>) {
        if self.hour.1 == 0 || at.steady.since(self.hour.0) >= MANY_WITHIN {
            self.hour = (at.steady, 0);
        }
        self.hour.1 = self.hour.1.saturating_add(1);
        let finding = match self.hour.1.checked_sub(self.config.many) {
            None | Some(0) => one(fresh, &self.config),
            Some(1) => many(&self.config),
            Some(_) => {
                self.folded += 1;
                return;
            }
        };
        found.push(Found { time: at.time, finding });
    }

    pub(super) fn is_waiting(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// Changes whenever a device became known.
    pub(super) const fn changes(&self) -> u64 {
        self.changes
    }

    pub(super) fn known(&self) -> KnownDevices {
        let mut all: Vec<_> = self.known.iter().map(|(mac, seen)| (*seen, *mac)).collect();
        all.sort_unstable();
        KnownDevices { macs: all.into_iter().map(|(_, mac)| mac).collect(), learnt: self.learnt }
    }

    /// What an earlier life knew; in its order, before anything seen in this one.
    pub(super) fn remember(&mut self, kept: &KnownDevices) {
        self.learnt = self.learnt.max(kept.learnt);
        for (nth, mac) in (0..).zip(kept.macs.iter().rev().take(KNOWN_MAX).rev()) {
            if mac.is_device() && self.known.len() < KNOWN_MAX {
                self.known.entry(*mac).or_insert(Mono::from_nanos(nth));
            }
        }
    }

    pub(super) fn status(&self) -> [(&'static str, u64); 4] {
        let left = if self.config.enabled { self.left().as_secs_f64().ceil() } else { 0.0 };
        [
            ("tier0.new_device.evicted", self.evicted),
            ("tier0.new_device.folded", self.folded),
            ("tier0.new_device.known", u64::try_from(self.known.len()).unwrap_or(u64::MAX)),
            ("tier0.new_device.learning_seconds", left as u64),
        ]
    }
}

impl Fresh {
    fn gather(&mut self, seen: &Device) {
        // The address a person knows it by is the one of the old internet.
        if seen.ip.is_ipv4() && self.ip.is_ipv6() {
            self.ip = seen.ip;
        }
        if self.iface.is_none() {
            self.iface.clone_from(&seen.iface);
        }
        let better = |rank| self.name.as_ref().is_none_or(|(by, _)| by.rank() < rank);
        let name = seen.hostname.as_deref().and_then(|name| host_name(name.as_bytes()));
        if let Some(name) = name.filter(|_| better(seen.source.rank())) {
            self.name = Some((seen.source, name));
        }
    }
}

fn one(fresh: &Fresh, config: &Config) -> Finding {
    let kind = fresh.mac.kind();
    let (what, score) = match kind {
        MacKind::Registered => ("a device that was never seen before".to_owned(), config.score),
        MacKind::Random => {
            let what = "a device with a randomised MAC that was never seen before; it may be a \
                        known one with a new MAC";
            (what.to_owned(), config.random_score)
        }
        MacKind::Virtual(whose) => {
            (format!("a virtual device ({whose}) that was never seen before"), config.random_score)
        }
    };
    let called = fresh.name.as_ref();
    let called = called.map_or(String::new(), |(_, name)| format!(", called {name}"));
    let mut finding = Finding {
        rule: RULE.into(),
        subject: fresh.mac.to_string(),
        client: Some(fresh.ip),
        mac: Some(fresh.mac),
        score,
        why: format!("{what}: at {}{called}", fresh.ip),
        evidence: Vec::new(),
    }
    .with("mac_kind", kind.as_str());
    if let Some((source, name)) = &fresh.name {
        finding = finding.with("name", name).with("name_source", source.as_str());
    }
    match &fresh.iface {
        Some(iface) => finding.with("interface", iface),
        None => finding,
    }
}

fn many(config: &Config) -> Finding {
    Finding {
        rule: RULE.into(),
        subject: MANY.into(),
        client: None,
        mac: None,
        score: config.score,
        why: format!(
            "more than {} devices that were never seen before within an hour; further ones are \
             not told singly",
            config.many
        ),
        evidence: Vec::new(),
    }
    .with("devices", format_args!("more than {}", config.many))
}

#[cfg(test)]
mod tests {
    use super::super::blocklist::Blocklist;
    use super::super::{Engine, Tier0Config};
    use super::*;
    use crate::event::{Body, Event};
    use crate::time::Timestamp;

    const LEARN: u64 = 600;

    fn engine() -> Engine {
        let new_device = Config { learn_seconds: LEARN, ..Config::default() };
        Engine::new(&Tier0Config { new_device, ..Tier0Config::default() }, Blocklist::default())
    }

    /// Plays `SECOND MAC ADDRESS [NAME [SOURCE]]`, a tick each second; shows the findings.
    fn play(engine: &mut Engine, seen: &[&str]) -> Vec<String> {
        let at = |second: u64| Timestamp::from_secs(1_795_000_000 + second as i64);
        let (mut found, mut now) = (Vec::new(), 0);
        for line in seen.iter().copied().chain(["end"]) {
            let mut words = line.split(' ');
            let second = words.next().and_then(|word| word.parse().ok()).unwrap_or(now + 10);
            for tick in now..second {
                engine.on_tick(at(tick), &mut found);
            }
            now = second;
            let Some(mac) = words.next() else { continue };
            let ip = words.next().unwrap().parse().unwrap();
            let hostname = words.next().map(Into::into);
            let source = words.next().and_then(DeviceSource::from_word);
            let source = source.unwrap_or(DeviceSource::Lease);
            let device = Device { mac: mac.parse().unwrap(), ip, hostname, iface: None, source };
            engine.on_event(&mut Event { time: at(now), body: Body::Device(device) }, &mut found);
        }
        let shown =
            |f: &Found| format!("{} {} {}", f.finding.subject, f.finding.score, f.finding.why);
        found.iter().map(shown).collect()
    }

    #[track_caller]
    fn check(seen: &[&str], expected: &[&str]) {
        let found = play(&mut engine(), seen);
        let fits = found.iter().zip(expected).all(|(found, part)| found.contains(part));
        assert!(fits && found.len() == expected.len(), "{found:#?}");
    }

    const TV: &str = "00:00:5e:00:53:01";
    const CAM: &str = "00:00:5e:00:53:02";
    const PHONE: &str = "da:a1:19:00:53:03";

    #[test]
    fn who_is_there_at_the_beginning_is_the_household() {
        check(&[&format!("0 {TV} 192.0.2.1"), &format!("599 {CAM} 192.168.1.2")], &[]);
    }

    #[test]
    fn a_new_one_is_told_once_with_the_name_that_comes_a_moment_later() {
        check(
            &[
                &format!("0 {TV} 192.168.1.1"),
                &format!("700 {CAM} fe80::2"),
                &format!("702 {CAM} 192.168.1.2 cam"),
                &format!("900 {CAM} 192.168.1.3 cam"),
            ],
            &[&format!(
                "{CAM} 0.45 a device that was never seen before: at 192.168.1.2, called cam"
            )],
        );
    }

    #[test]
    fn a_known_device_with_a_new_address_is_no_news() {
        check(
            &[
                &format!("0 {TV} 192.168.1.1"),
                &format!("700 {TV} 192.168.1.99"),
                &format!("710 {TV} fd00::9"),
            ],
            &[],
        );
    }

    #[test]
    fn what_makes_up_its_mac_ranks_lower() {
        check(
            &[
                &format!("0 {TV} 192.168.1.1"),
                &format!("700 {PHONE} 192.168.1.3 phone"),
                "700 02:42:ac:11:00:02 172.17.0.2",
            ],
            &[
                "da:a1:19:00:53:03 0.25 a device with a randomised MAC",
                "0.25 a virtual device (Docker)",
            ],
        );
    }

    #[test]
    fn the_best_source_names_it() {
        check(
            &[
                "0 00:00:5e:00:53:01 192.168.1.1",
                "700 00:00:5e:00:53:02 192.168.1.2 b.lan ptr",
                "701 00:00:5e:00:53:02 192.168.1.2 desk static",
                "702 00:00:5e:00:53:02 192.168.1.2 b lease",
            ],
            &["called desk"],
        );
    }

    #[test]
    fn what_names_nothing_is_no_name() {
        check(
            &[
                "0 00:00:5e:00:53:01 192.168.1.1",
                "700 00:00:5e:00:53:02 192.168.1.2 localhost",
                "701 00:00:5e:00:53:02 192.168.1.2 192.168.1.1 static",
                "702 00:00:5e:00:53:02 192.168.1.2 b.lan ptr",
            ],
            &["called b.lan"],
        );
    }

    #[test]
    fn the_providers_gateway_and_groups_are_no_devices() {
        check(
            &[
                "0 00:00:5e:00:53:01 192.168.1.1",
                "700 00:00:5e:00:53:09 203.0.113.1",
                "700 ff:ff:ff:ff:ff:ff 192.168.1.9",
                "700 00:00:00:00:00:00 192.168.1.9",
            ],
            &[],
        );
    }

    #[test]
    fn a_flood_is_one_finding_and_bounded() {
        let mut engine = engine();
        play(
            &mut engine,
            &["0 00:00:5e:00:53:01 192.168.1.1", "601 00:00:5e:00:53:01 192.168.1.1"],
        );
        let flood: Vec<String> = (0..5_000)
            .map(|n| {
                format!("{} da:a1:19:00:{:02x}:{:02x} 192.168.1.9", 700 + n / 10, n / 256, n % 256)
            })
            .collect();
        let flood: Vec<&str> = flood.iter().map(String::as_str).collect();
        let found = play(&mut engine, &flood);
        assert_eq!(found.len(), 11, "{found:#?}");
        assert!(found[10].starts_with("many 0.45"));
        let status: HashMap<_, _> = engine.status().into_iter().collect();
        assert_eq!(status["tier0.new_device.known"], KNOWN_MAX as u64);
        assert!(
            status["tier0.new_device.evicted"] >= 900 && status["tier0.new_device.folded"] > 4_000
        );
    }

    #[test]
    fn a_restart_does_not_begin_to_learn_anew() {
        let mut first = engine();
        play(&mut first, &["0 00:00:5e:00:53:01 192.168.1.1", "700 00:00:5e:00:53:02 192.168.1.2"]);
        let (kept, _) = first.known_devices();
        assert_eq!(kept.macs, [TV, CAM].map(|mac| mac.parse().unwrap()));
        let mut second = engine();
        second.remember_devices(&kept);
        let seen = ["0 00:00:5e:00:53:02 192.168.1.7", "1 00:00:5e:00:53:03 192.168.1.3"];
        let found = play(&mut second, &seen);
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].starts_with("00:00:5e:00:53:03"));
        assert_eq!(second.known_devices().0.macs.len(), 3);
    }
}
