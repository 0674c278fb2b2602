//! What a person at the router should know: findings folded into alerts, in memory.
//!
//! In: findings. Out: rows, and what is news. Pure; called under the model's lock. The hub
//! keeps the lasting record; these are for the router's own page and bus, by the same rules:
//! findings of one rule, one subject and one device (or address, where no device is known)
//! are one alert; it shows its worst finding; one that was acknowledged counts on silently
//! and opens again only when its severity rises above what had been acknowledged.
//!
//! An alert's id is made of these three, so that it is the same after a restart, and asking
//! for it never means another. At most [`ALERTS_MAX`], 2 KB each at the very most. When the
//! table is full an acknowledged one makes room, else one of the lowest severity, the oldest
//! first: a flood of small findings cannot push a grave one out.

use std::net::IpAddr;
use std::time::Duration;

use agentmon_core::event::Mac;
use agentmon_core::finding::{Finding, Severity};
use agentmon_core::name::{cut, printable};
use agentmon_core::time::Timestamp;
use xxhash_rust::xxh3::xxh3_64;

/// Most alerts kept.
pub const ALERTS_MAX: usize = 256;
/// Longest rule and subject.
pub const SUBJECT_BYTES_MAX: usize = 255;
/// Longest reason.
pub const WHY_BYTES_MAX: usize = 400;
/// Longest piece of evidence, key included.
pub const EVIDENCE_BYTES_MAX: usize = 120;
/// Most pieces of evidence.
pub const EVIDENCE_MAX: usize = 10;
/// Longest note of who acknowledges.
pub const NOTE_BYTES_MAX: usize = 200;

/// How long before its device was known an address's alert may lie: the neighbour table is
/// read at least so often.
const ADOPT_WITHIN: Duration = Duration::from_secs(300);

/// One alert.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    /// Made of rule, subject and device.
    pub id: u64,
    /// Its first finding.
    pub first: Timestamp,
    /// Its last finding.
    pub time: Timestamp,
    /// How many findings.
    pub count: u64,
    /// Of its worst finding.
    pub score: f64,
    /// Which detector.
    pub rule: String,
    /// What it is about.
    pub subject: String,
    /// The device.
    pub mac: Option<Mac>,
    /// The device's address in its last finding.
    pub ip: Option<IpAddr>,
    /// The worst finding's sentence.
    pub why: String,
    /// The worst finding's numbers, `key: value`.
    pub evidence: Vec<String>,
    /// The severity that somebody acknowledged.
    pub acked: Option<Severity>,
    /// What they said.
    pub note: String,
    order: u64,
}

impl Alert {
    /// The score as a word.
    #[must_use]
    pub fn severity(&self) -> Severity {
        Severity::from_score(self.score)
    }

    /// The id as text: JSON numbers are not that long.
    #[must_use]
    pub fn id_text(&self) -> String {
        format!("{:016x}", self.id)
    }

    /// One line for a list.
    #[must_use]
    pub fn title(&self) -> String {
        let what = match self.rule.as_str() {
            "blocklist" if self.subject.parse::<std::net::IpAddr>().is_ok() => {
                "Address on a block list"
            }
            "blocklist" => "Name on a block list",
            "watched" => "Watched name",
            "dga" if self.subject == "burst" => return "Many names that look generated".into(),
            "dga" if self.subject == "unknown names" => {
                return "Many names that do not exist".into();
            }
            "dga" => "Name that looks generated",
            "direct-ip" => "Connection without a name",
            "enforced" => "Listed, and held",
            "firewall" => "Stopped by the firewall",
            "log-late" => "A log comes late",
            "log-silent" => "A log fell silent",
            "new-device" if self.mac.is_none() => return "Many new devices".into(),
            "new-device" => "Device never seen before",
            other => other,
        };
        format!("{what}: {}", self.subject)
    }

    /// The id of the same thing about nobody but its address.
    fn address_id(&self) -> Option<u64> {
        self.ip.map(|ip| id(&self.rule, &ip.to_string(), &self.subject))
    }

    /// Less is the first to make room.
    fn worth(&self) -> (bool, Severity, u64) {
        (self.acked.is_none(), self.severity(), self.order)
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Alerts {
    list: Vec<Alert>,
    order: u64,
    evicted: u64,
}

impl Alerts {
    /// Newest finding first.
    pub(super) fn list(&self) -> Vec<&Alert> {
        let mut list: Vec<_> = self.list.iter().collect();
        list.sort_unstable_by_key(|alert| std::cmp::Reverse(alert.order));
        list
    }

    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    /// One finding; `Some` when a person should be told: a new alert, or one that opened
    /// again.
    pub(super) fn found(
        &mut self,
        finding: &Finding,
        mac: Option<Mac>,
        time: Timestamp,
    ) -> Option<Alert> {
        self.order += 1;
        let new = alert(finding, mac, time, self.order);
        self.adopt(&new);
        let Some(known) = self.list.iter_mut().find(|known| known.id == new.id) else {
            self.insert(new.clone());
            return Some(new);
        };
        let rose = new.severity() > known.severity();
        known.count = known.count.saturating_add(1);
        known.time = known.time.max(new.time);
        (known.order, known.ip) = (new.order, new.ip.or(known.ip));
        if new.score > known.score {
            (known.score, known.why, known.evidence) = (new.score, new.why, new.evidence);
        }
        let opens = known.acked.is_some_and(|acked| known.severity() > acked);
        if opens {
            known.acked = None;
        }
        (opens || (rose && known.acked.is_none())).then(|| known.clone())
    }

    /// What was told of the address a moment before anybody knew whose it is, is told of the
    /// device: one alert, not two.
    fn adopt(&mut self, new: &Alert) {
        let (Some(mac), Some(old)) = (new.mac, new.address_id()) else { return };
        if self.list.iter().any(|known| known.id == new.id) {
            return;
        }
        let fits = |known: &&mut Alert| known.id == old && known.mac.is_none();
        let recent = |known: &&mut Alert| known.time.distance(new.time) <= ADOPT_WITHIN;
        if let Some(known) = self.list.iter_mut().find(fits).filter(recent) {
            (known.id, known.mac) = (new.id, Some(mac));
        }
    }

    /// Somebody has seen it. False when there is no such alert.
    pub(super) fn ack(&mut self, id: u64, note: &str) -> bool {
        // Somebody may have the id in hand that it had while only its address was known.
        let was = |alert: &Alert| alert.mac.is_some() && alert.address_id() == Some(id);
        let is = |alert: &&mut Alert| alert.id == id || was(alert);
        let Some(alert) = self.list.iter_mut().find(is) else { return false };
        alert.acked = Some(alert.severity());
        alert.note = printable(note.as_bytes(), NOTE_BYTES_MAX);
        true
    }

    pub(super) fn clock_set(&mut self, from: Timestamp, to: Timestamp) {
        for alert in &mut self.list {
            alert.first = super::moved(alert.first, from, to);
            alert.time = super::moved(alert.time, from, to);
        }
    }

    fn insert(&mut self, new: Alert) {
        if self.list.len() < ALERTS_MAX {
            self.list.push(new);
            return;
        }
        self.evicted += 1;
        let least = self.list.iter_mut().min_by_key(|alert| alert.worth());
        if let Some(least) = least.filter(|least| least.worth() < new.worth()) {
            *least = new;
        }
    }
}

fn alert(finding: &Finding, mac: Option<Mac>, time: Timestamp, order: u64) -> Alert {
    let pair =
        |(key, value): &(String, String)| safe(&format!("{key}: {value}"), EVIDENCE_BYTES_MAX);
    let (rule, subject) =
        (safe(&finding.rule, SUBJECT_BYTES_MAX), safe(&finding.subject, SUBJECT_BYTES_MAX));
    let who = match (mac, finding.client) {
        (Some(mac), _) => mac.to_string(),
        (None, Some(ip)) => ip.to_string(),
        (None, None) => String::new(),
    };
    Alert {
        id: id(&rule, &who, &subject),
        first: time,
        time,
        count: 1,
        // A score that is no number is worth nothing.
        score: if finding.score.is_finite() { finding.score.clamp(0.0, 1.0) } else { 0.0 },
        rule,
        subject,
        mac,
        ip: finding.client,
        why: safe(&finding.why, WHY_BYTES_MAX),
        evidence: finding.evidence.iter().take(EVIDENCE_MAX).map(pair).collect(),
        acked: None,
        note: String::new(),
        order,
    }
}

/// Rule and device hold no NUL, so that no two triples make one text.
fn id(rule: &str, who: &str, subject: &str) -> u64 {
    xxh3_64(format!("{rule}\0{who}\0{subject}").as_bytes())
}

/// Printable and short. Names in texts are escaped already; that is not done twice.
fn safe(text: &str, max: usize) -> String {
    let is_safe = text.bytes().all(|b| (b' '..=b'~').contains(&b));
    let text = if is_safe { text.to_owned() } else { printable(text.as_bytes(), max) };
    let mut text = cut(text, max);
    // What was cut off must not be held.
    text.shrink_to_fit();
    text
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const T: Timestamp = Timestamp::from_secs(1_795_000_000);

    fn finding(subject: &str, score: f64) -> Finding {
        Finding {
            rule: "blocklist".into(),
            subject: subject.into(),
            client: Some("192.168.1.7".parse().unwrap()),
            mac: None,
            score,
            why: format!("asked for {subject}"),
            evidence: vec![("list".into(), "malware".into())],
        }
    }

    pub(in crate::model) fn sample(subject: &str) -> Alert {
        alert(&finding(subject, 0.8), None, T, 1)
    }

    /// Scores of one alert's findings, `a` for an acknowledgement; expected: which were told.
    #[track_caller]
    fn check(story: &[&str], told: &[bool]) {
        let mut alerts = Alerts::default();
        let mut said = Vec::new();
        for step in story {
            match step.parse() {
                Ok(score) => said.push(alerts.found(&finding("x", score), None, T).is_some()),
                Err(_) => assert!(alerts.ack(alerts.list[0].id, "seen")),
            }
        }
        assert_eq!(said, told);
        assert_eq!((alerts.list.len(), alerts.list[0].count), (1, said.len() as u64));
    }

    #[test]
    fn an_alert_is_told_once_and_again_when_it_gets_worse() {
        check(&["0.8", "0.8", "0.4"], &[true, false, false]);
        check(&["0.4", "0.5", "0.8"], &[true, false, true]);
        check(&["0.4", "a", "0.4", "0.5"], &[true, false, false]);
        check(&["0.4", "a", "0.7", "0.7"], &[true, true, false]);
        check(&["0.7", "a", "0.4", "0.7", "0.9"], &[true, false, false, true]);
        check(&["NaN", "0.2"], &[true, true]);
    }

    /// One thing found twice, at addresses, by MACs where there are; how many alerts.
    #[track_caller]
    fn found_twice(first: (&str, Option<Mac>), second: (&str, Option<Mac>), apart: u64, n: usize) {
        let mut alerts = Alerts::default();
        let at = |ip: &str| Finding { client: ip.parse().ok(), ..finding("x", 0.8) };
        let id = alerts.found(&at(first.0), first.1, T).unwrap().id;
        alerts.found(&at(second.0), second.1, T.plus(Duration::from_secs(apart)));
        assert_eq!(alerts.list.len(), n);
        assert!(alerts.ack(id, ""), "the id that was told is still good");
    }

    #[test]
    fn alerts_follow_the_device() {
        const A: Option<Mac> = Some(Mac([0, 0, 0x5e, 0, 0x53, 1]));
        const B: Option<Mac> = Some(Mac([0, 0, 0x5e, 0, 0x53, 2]));
        found_twice(("192.168.1.7", A), ("192.168.1.8", A), 9_999, 1);
        found_twice(("192.168.1.7", A), ("fd00::a1:b2", A), 9_999, 1);
        found_twice(("192.168.1.7", A), ("192.168.1.7", B), 9_999, 2);
        // The device became known just after, or much later.
        found_twice(("192.168.1.7", None), ("192.168.1.7", A), 60, 1);
        found_twice(("192.168.1.7", None), ("192.168.1.7", A), 9_999, 2);
        found_twice(("192.168.1.7", None), ("192.168.1.8", A), 60, 2);
    }

    #[test]
    fn it_shows_its_worst_finding() {
        let mut alerts = Alerts::default();
        alerts.found(&finding("x", 0.8), None, T);
        let mild = Finding { why: "less".into(), ..finding("x", 0.4) };
        alerts.found(&mild, None, T.plus(std::time::Duration::from_secs(1)));
        let alert = alerts.list()[0];
        assert_eq!((alert.score, alert.why.as_str()), (0.8, "asked for x"));
        assert_eq!(alert.evidence, ["list: malware"]);
        assert_eq!((alert.first, alert.time.secs() - T.secs()), (T, 1));
        assert_eq!(alert.title(), "Name on a block list: x");
    }

    #[test]
    fn another_device_or_subject_is_another_alert() {
        let mut alerts = Alerts::default();
        alerts.found(&finding("x", 0.8), None, T);
        alerts.found(&finding("y", 0.8), None, T);
        let later = T.plus(Duration::from_secs(3_600));
        alerts.found(&finding("x", 0.8), Some(Mac([0, 0, 0x5e, 0, 0, 1])), later);
        let ids: Vec<_> = alerts.list().iter().map(|a| a.id_text()).collect();
        assert_eq!(ids.len(), 3);
        assert!(ids.iter().all(|id| id.len() == 16), "{ids:?}");
        // The same after a restart.
        let mut again = Alerts::default();
        again.found(&finding("x", 0.2), None, T);
        assert_eq!(again.list()[0].id_text(), ids[2]);
        assert!(!again.ack(7, ""), "no such alert");
    }

    #[test]
    fn hostile_texts_are_short_and_printable() {
        let nasty = "\x1b[31m<b>\n\u{202e}".repeat(300);
        let hostile = Finding {
            rule: nasty.clone(),
            subject: nasty.clone(),
            why: nasty.clone(),
            evidence: vec![(nasty.clone(), nasty); 50],
            ..finding("x", f64::INFINITY)
        };
        let mut alerts = Alerts::default();
        let alert = alerts.found(&hostile, None, T).unwrap();
        let texts = [&alert.rule, &alert.subject, &alert.why];
        let mut texts = texts.into_iter().chain(&alert.evidence);
        assert!(
            texts
                .all(|t| t.len() <= WHY_BYTES_MAX && t.bytes().all(|b| (b' '..=b'~').contains(&b)))
        );
        assert_eq!((alert.evidence.len(), alert.score), (EVIDENCE_MAX, 0.0));
    }

    #[test]
    fn a_flood_of_small_findings_pushes_no_grave_one_out() {
        let mut alerts = Alerts::default();
        alerts.found(&finding("grave", 0.9), None, T);
        alerts.found(&finding("seen", 0.9), None, T);
        let seen = alerts.list()[0].id;
        alerts.ack(seen, "");
        for n in 0..3 * ALERTS_MAX {
            alerts.found(&finding(&format!("small{n}"), 0.1), None, T);
        }
        let subjects: Vec<_> = alerts.list().iter().map(|a| a.subject.clone()).collect();
        assert_eq!(subjects.len(), ALERTS_MAX);
        assert!(subjects.contains(&"grave".to_owned()) && !subjects.contains(&"seen".to_owned()));
        assert_eq!(subjects[0], format!("small{}", 3 * ALERTS_MAX - 1));
        assert_eq!(alerts.evicted(), 2 + 2 * ALERTS_MAX as u64);
        // A table of grave ones does not take a small one in, but it is told all the same.
        for n in 0..2 * ALERTS_MAX {
            alerts.found(&finding(&format!("grave{n}"), 0.9), None, T);
        }
        assert!(alerts.found(&finding("small", 0.1), None, T).is_some());
        assert!(alerts.list().iter().all(|a| a.score == 0.9));
    }
}
