//! The alerts a transaction is about, and what its findings do to them.
//!
//! In: alerts from the file, then findings one by one. Out: the alerts as they will stand
//! and the news. Pure; the outcome is the same however findings are divided into
//! transactions.
//!
//! An alert is about one device and one topic (see [`super::topic`]); each rule's word on each
//! subject is one of its parts, and [`super::judge`] makes one score of them. Merging findings
//! into parts commutes: the same findings in any order make the same parts.
//!
//! Folding: when a sum (see [`Sum`]) is found about a client, the alerts it covers, of the
//! same client and within [`FOLD_WITHIN`] of it, fold into its alert; what it covers and
//! comes later within that time does so at once. A folded alert keeps its key and counts
//! on silently; it unfolds when its severity rises above that of the sum, or when another
//! rule speaks of it that no sum tells. One that a person has acknowledged, allowed or dismissed is left as
//! it is.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use agentmon_core::Timestamp;
use agentmon_core::finding::{Finding, Severity};
use agentmon_core::tier0::sum::{self, Sum};

use super::feedback::Feedback;
use super::judge::{self, Facts, Followed, Part, Verdict};
use super::topic::Topic;
use super::{News, Seen, score};

/// How far apart in time a single finding and the sum that covers it may lie. The time
/// within which detectors say the same thing once.
pub(super) const FOLD_WITHIN: Duration = Duration::from_secs(3_600);
/// How long before its first sighting a device may have been at its address: the neighbour
/// table is read at least so often.
const ADOPT_WITHIN: Duration = Duration::from_secs(300);
/// Most alerts of one rule and client looked at for folding. Detectors stop at 20 an hour;
/// beyond this, which only a forged sensor reaches, the oldest stay unfolded.
const FOLD_MAX: usize = 1_024;

/// Most parts of an alert; what more subjects of one domain are found goes to the part that
/// stands for the whole domain.
pub(super) const PARTS_MAX: usize = 64;

/// A part's rule and subject.
pub(super) type PartKey = (String, String);

/// An alert as it will stand.
#[derive(Debug)]
pub(super) struct Alert {
    pub(super) id: i64,
    pub(super) key: String,
    pub(super) topic: Option<String>,
    pub(super) client: Option<String>,
    pub(super) mac: Option<String>,
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
    pub(super) findings: u64,
    pub(super) parts: BTreeMap<PartKey, Part>,
    /// Parts that are not as they came from the file.
    pub(super) touched: BTreeSet<PartKey>,
    pub(super) facts: Facts,
    pub(super) verdict: Verdict,
    pub(super) acked: Option<Acked>,
    pub(super) folded: Option<Folded>,
    /// Its score and reasons in the file.
    pub(super) stored: (f64, String),
    /// Its status in the file; empty for a new one.
    pub(super) was: String,
    /// Is not as it came from the file.
    pub(super) changed: bool,
}

/// What a person had acknowledged.
#[derive(Debug)]
pub(super) struct Acked {
    pub(super) at: Option<Timestamp>,
    pub(super) note: Option<String>,
    /// As grave as it was then.
    pub(super) score: f64,
}

/// The alert that tells people instead.
#[derive(Clone, Copy, Debug)]
pub(super) struct Folded {
    pub(super) into: i64,
    /// How bad that one is.
    pub(super) severity: Severity,
}

impl Alert {
    fn new(id: i64, seen: &Seen) -> Self {
        let finding = &seen.finding;
        Self {
            id,
            key: alert_key(seen),
            topic: Topic::of(&finding.subject).text(),
            client: finding.client.map(|ip| ip.to_string()),
            mac: seen.mac.map(|mac| mac.to_string()),
            first: seen.time,
            last: seen.time,
            findings: 0,
            parts: BTreeMap::new(),
            touched: BTreeSet::new(),
            facts: Facts::default(),
            verdict: Verdict::default(),
            acked: None,
            folded: None,
            stored: (0.0, String::new()),
            was: String::new(),
            changed: true,
        }
    }

    /// Not in the file yet.
    pub(super) fn is_new(&self) -> bool {
        self.was.is_empty()
    }

    /// The device: its MAC, or the address of one that is not known.
    fn who(&self) -> &str {
        self.mac.as_deref().or(self.client.as_deref()).unwrap_or_default()
    }

    pub(super) fn severity(&self) -> Severity {
        Severity::from_score(self.verdict.score)
    }

    /// What its detectors say, without what the network or a person makes of it.
    fn own_severity(&self) -> Severity {
        Severity::from_score(self.parts.values().map(|part| part.score).fold(0.0, f64::max))
    }

    /// The word stored.
    pub(super) fn status(&self) -> &'static str {
        if self.still_acked().is_some() {
            "acked"
        } else if let Some(silence) = self.verdict.silence {
            silence.as_str()
        } else if self.folded.is_some() {
            "folded"
        } else {
            "open"
        }
    }

    /// What was acknowledged, unless the worst is now worse than that.
    pub(super) fn still_acked(&self) -> Option<&Acked> {
        let known = |acked: &&Acked| self.severity() <= Severity::from_score(acked.score);
        self.acked.as_ref().filter(known)
    }

    fn count(&mut self, seen: &Seen) {
        self.changed = true;
        let client = seen.finding.client.map(|ip| ip.to_string());
        if seen.time < self.first || (seen.time == self.first && client < self.client) {
            self.client = client.or_else(|| self.client.take());
        }
        self.first = self.first.min(seen.time);
        self.last = self.last.max(seen.time);
        self.findings = self.findings.saturating_add(1);
        let key = self.part_key(&seen.finding);
        let part = Part {
            learning: seen.learning,
            ..Part::of(&key, seen.time, score(&seen.finding), &seen.finding.why)
        };
        let more = match self.parts.get_mut(&key) {
            Some(known) => {
                known.merge(part);
                false
            }
            None => self.parts.insert(key.clone(), part).is_none(),
        };
        self.touched.insert(key);
        // What is said anew may be more than the sum tells; if not, it folds again.
        let more = more && self.sole().is_none();
        if self.folded.is_some_and(|folded| more || self.own_severity() > folded.severity) {
            self.folded = None;
        }
    }

    fn part_key(&self, finding: &Finding) -> PartKey {
        let key = (finding.rule.clone(), finding.subject.clone());
        if self.parts.len() < PARTS_MAX || self.parts.contains_key(&key) {
            return key;
        }
        (key.0, self.topic.clone().unwrap_or(key.1))
    }

    /// Judges it anew.
    pub(super) fn judge(&mut self, feedback: &[Feedback]) {
        let parts: Vec<&Part> = self.parts.values().collect();
        let verdict = judge::judge(&parts, self.who(), &self.facts, feedback);
        self.changed |= verdict != self.verdict;
        self.verdict = verdict;
    }

    /// How its score came about, as stored.
    pub(super) fn reasons(&self) -> String {
        serde_json::to_string(&self.verdict.reasons).unwrap_or_default()
    }

    /// Whether the file says something else.
    pub(super) fn differs(&self) -> bool {
        let (score, reasons) = &self.stored;
        self.was != self.status() || *score != self.verdict.score || *reasons != self.reasons()
    }

    /// A connection to a watched name: what was a note becomes an alert. False when that part
    /// is not here or had been followed no later.
    pub(super) fn follow(&mut self, key: &PartKey, followed: Followed) -> bool {
        let Some(part) = self.parts.get_mut(key) else { return false };
        if part.followed.as_ref().is_some_and(|known| *known <= followed) {
            return false;
        }
        part.followed = Some(followed);
        self.touched.insert(key.clone());
        self.changed = true;
        true
    }

    /// Its rule, where only one speaks of it.
    fn sole(&self) -> Option<&str> {
        let rule = self.parts.keys().next().map(|(rule, _)| rule.as_str())?;
        self.parts.keys().all(|(other, _)| other == rule).then_some(rule)
    }

    fn sum(&self) -> Option<(&str, Sum<'_>)> {
        let (rule, subject) = self.parts.keys().next().filter(|_| self.parts.len() == 1)?;
        Some((rule, Sum::of(rule, subject)?))
    }

    /// Whether it may be folded, or be folded into.
    fn free(&self) -> bool {
        self.folded.is_none() && self.verdict.silence.is_none()
    }

    /// Whether this one can be told by `sum`, of the same rule, at `time`.
    fn folds_into(&self, sum: &Self, time: Timestamp) -> bool {
        let free = self.free() && self.still_acked().is_none() && sum.free();
        let other_device = self.mac.is_some() && sum.mac.is_some() && self.mac != sum.mac;
        free && !other_device
            && self.own_severity() <= sum.own_severity()
            && self.last.distance(time) <= FOLD_WITHIN
            && sum.last.distance(time) <= FOLD_WITHIN
            && sum.sum().is_some_and(|(rule, wide)| {
                self.sole() == Some(rule) && self.parts.keys().all(|(r, s)| wide.covers(r, s))
            })
    }

    fn is_news(&self) -> bool {
        self.changed && self.status() == "open" && self.was != "open"
    }
}

/// The key of the same alert when its device was not known yet.
pub(super) fn address_key(seen: &Seen) -> Option<String> {
    let client =
        seen.finding.client.filter(|_| seen.mac.is_some() && seen.there_since.is_some())?;
    Some(key_of(&seen.finding, &client.to_string()))
}

/// Names the alert a finding belongs to: device (or lone address) and topic; or rule, device
/// and subject, where no other rule speaks of such a subject.
pub(super) fn alert_key(seen: &Seen) -> String {
    key_of(&seen.finding, &who(seen))
}

fn key_of(finding: &Finding, who: &str) -> String {
    match Topic::of(&finding.subject).text() {
        Some(topic) => format!("|{who}|{topic}"),
        None => format!("{}|{who}|{}", finding.rule, finding.subject),
    }
}

/// Names what a finding says: rule, device (or lone address), subject. The key of its alert
/// too, in files of before alerts had topics.
pub(crate) fn key(seen: &Seen) -> String {
    format!("{}|{}|{}", seen.finding.rule, who(seen), seen.finding.subject)
}

fn who(seen: &Seen) -> String {
    let who = seen.mac.map(|mac| mac.to_string());
    who.or_else(|| seen.finding.client.map(|ip| ip.to_string())).unwrap_or_default()
}

/// The alerts a transaction is about.
#[derive(Debug, Default)]
pub(super) struct Book {
    alerts: Vec<Alert>,
    /// What people said.
    feedback: Vec<Feedback>,
    /// Position by key.
    keys: HashMap<String, usize>,
    /// Positions by rule and client, where the rule has sums; by device and by address,
    /// since a device's first finding may come before the device is known.
    groups: HashMap<(String, String), VecDeque<usize>>,
    /// Alerts that others were folded into and that were folded themselves, and into which.
    moved: Vec<(i64, i64)>,
}

impl Book {
    /// An empty one in which this is in force.
    pub(super) fn new(feedback: Vec<Feedback>) -> Self {
        Self { feedback, ..Self::default() }
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.keys.contains_key(key)
    }

    /// Takes in an alert, unless it is there.
    pub(super) fn add(&mut self, mut alert: Alert) -> usize {
        if let Some(known) = self.keys.get(&alert.key) {
            return *known;
        }
        let (position, changed) = (self.alerts.len(), alert.changed);
        alert.judge(&self.feedback);
        // What the passing of time or another file's rules make of it is no change of its own.
        alert.changed = changed;
        self.keys.insert(alert.key.clone(), position);
        let rules: BTreeSet<String> = alert.parts.keys().map(|(rule, _)| rule.clone()).collect();
        self.alerts.push(alert);
        rules.iter().for_each(|rule| self.group(rule, position));
        position
    }

    /// Remembers that a rule with sums speaks of the alert's client.
    fn group(&mut self, rule: &str, position: usize) {
        if !sum::RULES.contains(&rule) {
            return;
        }
        let Some(alert) = self.alerts.get(position) else { return };
        for who in [&alert.mac, &alert.client].into_iter().flatten() {
            let group = self.groups.entry((rule.to_owned(), who.clone())).or_default();
            if group.contains(&position) {
                continue;
            }
            group.push_back(position);
            if group.len() > FOLD_MAX {
                group.pop_front();
            }
        }
    }

    /// Counts a finding on its alert, made with the number `next` where there is none, and
    /// folds what can be folded now. The alert's id.
    pub(super) fn count(&mut self, seen: &Seen, next: &mut i64) -> i64 {
        let known = self.keys.get(&alert_key(seen)).copied();
        let known = known.or_else(|| self.adopt(seen)).or_else(|| self.rename(seen));
        let position = known.unwrap_or_else(|| {
            *next += 1;
            self.add(Alert::new(*next - 1, seen))
        });
        let Some(alert) = self.alerts.get_mut(position) else { return 0 };
        let before = alert.own_severity();
        alert.count(seen);
        alert.judge(&self.feedback);
        let (id, severity) = (alert.id, alert.own_severity());
        if severity > before && alert.sum().is_some() {
            let folded = self.alerts.iter_mut().filter_map(|a| a.folded.as_mut());
            folded.filter(|f| f.into == id).for_each(|f| f.severity = severity);
        }
        self.group(&seen.finding.rule, position);
        self.fold(position, seen.time);
        id
    }

    /// An alert of before alerts had topics, under its key of then.
    fn rename(&mut self, seen: &Seen) -> Option<usize> {
        let position = self.keys.remove(&key(seen))?;
        let alert = self.alerts.get_mut(position)?;
        (alert.key, alert.topic) = (alert_key(seen), Topic::of(&seen.finding.subject).text());
        alert.changed = true;
        self.keys.insert(alert.key.clone(), position);
        Some(position)
    }

    /// The alert that was made of the same thing by the same address just before anybody knew
    /// whose address it is: it is the device's from now on. One from before the device came
    /// there was somebody else's.
    fn adopt(&mut self, seen: &Seen) -> Option<usize> {
        let (old, since) = (address_key(seen)?, seen.there_since?);
        let position = *self.keys.get(&old)?;
        let alert = self.alerts.get_mut(position)?;
        if alert.mac.is_some() || alert.last.plus(ADOPT_WITHIN) < since {
            return None;
        }
        (alert.mac, alert.changed) = (seen.mac.map(|mac| mac.to_string()), true);
        alert.key = alert_key(seen);
        self.keys.remove(&old);
        self.keys.insert(alert.key.clone(), position);
        let rules: BTreeSet<String> = alert.parts.keys().map(|(rule, _)| rule.clone()).collect();
        rules.iter().for_each(|rule| self.group(rule, position));
        Some(position)
    }

    /// The alert at `position` was just found: folds others into it, and it into another.
    fn fold(&mut self, position: usize, time: Timestamp) {
        let Some(alert) = self.alerts.get(position) else { return };
        let mut folds = Vec::new();
        if let Some(rule) = alert.sole() {
            let others = self.speaking(rule, alert);
            for (at, other) in others.filter_map(|at| Some((at, self.alerts.get(at)?))) {
                if other.folds_into(alert, time) {
                    folds.push((at, position));
                } else if alert.folds_into(other, time) {
                    folds.push((position, at));
                } else if other.sole().is_none() {
                    folds.extend(self.sums_of(at, time).map(|wide| (at, wide)));
                }
            }
        } else {
            folds.extend(self.sums_of(position, time).map(|wide| (position, wide)));
        }
        for (narrow, wide) in folds {
            self.fold_into(narrow, wide);
        }
    }

    /// The alerts of the same device or address of which the rule speaks.
    fn speaking<'a>(&'a self, rule: &'a str, alert: &'a Alert) -> impl Iterator<Item = usize> + 'a {
        let who = [&alert.mac, &alert.client].into_iter().flatten();
        let groups = who.filter_map(move |who| self.groups.get(&(rule.to_owned(), who.clone())));
        groups.flatten().copied()
    }

    /// The gravest of the sums that together say all that several rules say of an alert.
    fn sums_of(&self, position: usize, time: Timestamp) -> Option<usize> {
        let alert = self.alerts.get(position)?;
        if !alert.free() || alert.still_acked().is_some() || alert.last.distance(time) > FOLD_WITHIN
        {
            return None;
        }
        let mut all = Vec::new();
        for (rule, subject) in alert.parts.keys() {
            let covers = |at: &usize| {
                let sum = self.alerts.get(*at).filter(|sum| sum.free());
                let sum = sum.filter(|sum| sum.last.distance(time) <= FOLD_WITHIN);
                let other_device =
                    |sum: &&Alert| alert.mac.is_none() || sum.mac.is_none() || alert.mac == sum.mac;
                sum.filter(other_device).and_then(Alert::sum).is_some_and(|(of, wide)| {
                    of == rule && *at != position && wide.covers(rule, subject)
                })
            };
            all.extend(self.speaking(rule, alert).filter(covers).take(1));
            if all.is_empty() {
                return None;
            }
        }
        // One for each part, or it says more than they do.
        if all.len() < alert.parts.len() {
            return None;
        }
        let graver = |at: &usize| {
            let sum = self.alerts.get(*at);
            (sum.map(Alert::own_severity), std::cmp::Reverse(sum.map(|sum| sum.id)))
        };
        let gravest = all.into_iter().max_by_key(graver)?;
        let severity = self.alerts.get(gravest)?.own_severity();
        (alert.own_severity() <= severity).then_some(gravest)
    }

    fn fold_into(&mut self, narrow: usize, wide: usize) {
        let Some(sum) = self.alerts.get(wide).filter(|sum| sum.folded.is_none()) else { return };
        let folded = Folded { into: sum.id, severity: sum.own_severity() };
        let Some(alert) = self.alerts.get_mut(narrow).filter(|a| a.folded.is_none()) else {
            return;
        };
        (alert.folded, alert.changed) = (Some(folded), true);
        if alert.sum().is_none() {
            return;
        }
        // What had been folded into it follows; in the file too, where it is not known here.
        let id = alert.id;
        self.moved.push((id, folded.into));
        for alert in self.alerts.iter_mut().filter(|a| a.folded.is_some_and(|f| f.into == id)) {
            (alert.folded, alert.changed) = (Some(folded), true);
        }
    }

    /// All alerts, to look at or to change.
    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = &mut Alert> {
        self.alerts.iter_mut()
    }

    /// Judges all of them anew.
    pub(super) fn judge(&mut self) {
        let feedback = &self.feedback;
        self.alerts.iter_mut().for_each(|alert| alert.judge(feedback));
    }

    /// All alerts that are not as they came from the file.
    pub(super) fn changed(&self) -> impl Iterator<Item = &Alert> {
        self.alerts.iter().filter(|alert| alert.changed)
    }

    /// Pairs of ids: what was folded into the first is now folded into the second.
    pub(super) fn moved(&self) -> &[(i64, i64)] {
        &self.moved
    }

    #[cfg(test)]
    pub(super) fn into_alerts(self) -> Vec<Alert> {
        self.alerts
    }

    /// What is to be told.
    pub(super) fn news(&self) -> Vec<News> {
        let told = self.alerts.iter().filter(|alert| alert.is_news());
        told.map(|alert| News {
            id: alert.id,
            new: alert.is_new() || matches!(alert.was.as_str(), "note" | "learning"),
            severity: alert.severity(),
            rule: alert.verdict.rule.clone(),
            subject: alert.verdict.subject.clone(),
            client: alert.client.as_ref().and_then(|ip| ip.parse().ok()),
            why: alert.verdict.why.clone(),
        })
        .collect()
    }
}
