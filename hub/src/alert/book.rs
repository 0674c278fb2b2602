//! The alerts a transaction is about, and what its findings do to them.
//!
//! In: alerts from the file, then findings one by one. Out: the alerts as they will stand
//! and the news. Pure; the outcome is the same however findings are divided into
//! transactions.
//!
//! Folding: when a sum (see [`Sum`]) is found about a client, the alerts it covers, of the
//! same client and within [`FOLD_WITHIN`] of it, fold into its alert; what it covers and
//! comes later within that time does so at once. A folded alert keeps its key and counts
//! on silently; it unfolds when its severity rises above that of the sum. One that a
//! person has acknowledged is left as it is.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use agentmon_core::Timestamp;
use agentmon_core::finding::Severity;
use agentmon_core::tier0::sum::{self, Sum};

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

/// An alert as it will stand.
#[derive(Debug)]
pub(super) struct Alert {
    pub(super) id: i64,
    pub(super) key: String,
    pub(super) rule: String,
    pub(super) subject: String,
    pub(super) client: Option<String>,
    pub(super) mac: Option<String>,
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
    pub(super) findings: u64,
    pub(super) score: f64,
    pub(super) why: String,
    pub(super) acked: Option<Acked>,
    pub(super) folded: Option<Folded>,
    /// Came from the file.
    pub(super) old: bool,
    /// Is not as it came from the file.
    pub(super) changed: bool,
    /// Was folded and is told again.
    pub(super) unfolded: bool,
}

/// What a person had acknowledged.
#[derive(Debug)]
pub(super) struct Acked {
    pub(super) at: Option<Timestamp>,
    pub(super) note: Option<String>,
    pub(super) severity: Severity,
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
            key: key(seen),
            rule: finding.rule.clone(),
            subject: finding.subject.clone(),
            client: finding.client.map(|ip| ip.to_string()),
            mac: seen.mac.map(|mac| mac.to_string()),
            first: seen.time,
            last: seen.time,
            findings: 0,
            score: f64::NEG_INFINITY,
            why: String::new(),
            acked: None,
            folded: None,
            old: false,
            changed: true,
            unfolded: false,
        }
    }

    pub(super) fn severity(&self) -> Severity {
        Severity::from_score(self.score)
    }

    /// The word stored.
    pub(super) fn status(&self) -> &'static str {
        if self.still_acked().is_some() {
            "acked"
        } else if self.folded.is_some() {
            "folded"
        } else {
            "open"
        }
    }

    /// What was acknowledged, unless the worst is now worse than that.
    pub(super) fn still_acked(&self) -> Option<&Acked> {
        self.acked.as_ref().filter(|acked| self.severity() <= acked.severity)
    }

    fn count(&mut self, seen: &Seen) {
        self.changed = true;
        self.first = self.first.min(seen.time);
        self.last = self.last.max(seen.time);
        self.findings = self.findings.saturating_add(1);
        let score = score(&seen.finding);
        if score > self.score {
            self.score = score;
            self.why.clone_from(&seen.finding.why);
        }
        if self.folded.is_some_and(|folded| self.severity() > folded.severity) {
            (self.folded, self.unfolded) = (None, true);
        }
    }

    fn sum(&self) -> Option<Sum<'_>> {
        Sum::of(&self.rule, &self.subject)
    }

    /// Whether this one can be told by `sum`, of the same rule, at `time`.
    fn folds_into(&self, sum: &Self, time: Timestamp) -> bool {
        let free = self.folded.is_none() && self.still_acked().is_none() && sum.folded.is_none();
        let other_device = self.mac.is_some() && sum.mac.is_some() && self.mac != sum.mac;
        free && !other_device
            && self.severity() <= sum.severity()
            && self.last.distance(time) <= FOLD_WITHIN
            && sum.last.distance(time) <= FOLD_WITHIN
            && sum.sum().is_some_and(|wide| wide.covers(&self.rule, &self.subject))
    }

    fn is_news(&self) -> bool {
        let reopened = self.acked.is_some() || self.unfolded;
        self.changed && self.status() == "open" && (!self.old || reopened)
    }
}

/// The key of the same finding when its device was not known yet.
pub(super) fn address_key(seen: &Seen) -> Option<String> {
    let finding = &seen.finding;
    let client = finding.client.filter(|_| seen.mac.is_some() && seen.there_since.is_some())?;
    Some(format!("{}|{client}|{}", finding.rule, finding.subject))
}

/// Names the alert a finding belongs to: rule, device (or lone address), subject.
pub(crate) fn key(seen: &Seen) -> String {
    let finding = &seen.finding;
    let who = seen.mac.map(|mac| mac.to_string());
    let who = who.or_else(|| finding.client.map(|ip| ip.to_string())).unwrap_or_default();
    format!("{}|{who}|{}", finding.rule, finding.subject)
}

/// The alerts a transaction is about.
#[derive(Debug, Default)]
pub(super) struct Book {
    alerts: Vec<Alert>,
    /// Position by key.
    keys: HashMap<String, usize>,
    /// Positions by rule and client, where the rule has sums; by device and by address,
    /// since a device's first finding may come before the device is known.
    groups: HashMap<(String, String), VecDeque<usize>>,
    /// Alerts that others were folded into and that were folded themselves, and into which.
    moved: Vec<(i64, i64)>,
}

impl Book {
    /// Takes in an alert, unless it is there.
    pub(super) fn add(&mut self, alert: Alert) -> usize {
        if let Some(known) = self.keys.get(&alert.key) {
            return *known;
        }
        let position = self.alerts.len();
        self.keys.insert(alert.key.clone(), position);
        if sum::RULES.contains(&alert.rule.as_str()) {
            for who in [&alert.mac, &alert.client].into_iter().flatten() {
                let group = self.groups.entry((alert.rule.clone(), who.clone())).or_default();
                group.push_back(position);
                if group.len() > FOLD_MAX {
                    group.pop_front();
                }
            }
        }
        self.alerts.push(alert);
        position
    }

    /// Counts a finding on its alert, made with the number `next` where there is none, and
    /// folds what can be folded now. The alert's id.
    pub(super) fn count(&mut self, seen: &Seen, next: &mut i64) -> i64 {
        let position = match self.keys.get(&key(seen)).copied().or_else(|| self.adopt(seen)) {
            Some(known) => known,
            None => {
                *next += 1;
                self.add(Alert::new(*next - 1, seen))
            }
        };
        let Some(alert) = self.alerts.get_mut(position) else { return 0 };
        let before = alert.severity();
        alert.count(seen);
        let (id, severity) = (alert.id, alert.severity());
        if severity > before && alert.sum().is_some() {
            let folded = self.alerts.iter_mut().filter_map(|a| a.folded.as_mut());
            folded.filter(|f| f.into == id).for_each(|f| f.severity = severity);
        }
        self.fold(position, seen.time);
        id
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
        alert.key = key(seen);
        self.keys.remove(&old);
        self.keys.insert(alert.key.clone(), position);
        if sum::RULES.contains(&alert.rule.as_str())
            && let Some(mac) = alert.mac.clone()
        {
            let group = self.groups.entry((alert.rule.clone(), mac)).or_default();
            group.push_back(position);
        }
        Some(position)
    }

    /// The alert at `position` was just found: folds others into it, and it into another.
    fn fold(&mut self, position: usize, time: Timestamp) {
        let Some(alert) = self.alerts.get(position) else { return };
        let groups = [&alert.mac, &alert.client].into_iter().flatten();
        let groups = groups.filter_map(|who| self.groups.get(&(alert.rule.clone(), who.clone())));
        let mut folds = Vec::new();
        for (at, other) in groups.flatten().filter_map(|at| Some((*at, self.alerts.get(*at)?))) {
            if other.folds_into(alert, time) {
                folds.push((at, position));
            } else if alert.folds_into(other, time) {
                folds.push((position, at));
            }
        }
        for (narrow, wide) in folds {
            self.fold_into(narrow, wide);
        }
    }

    fn fold_into(&mut self, narrow: usize, wide: usize) {
        let Some(sum) = self.alerts.get(wide).filter(|sum| sum.folded.is_none()) else { return };
        let folded = Folded { into: sum.id, severity: sum.severity() };
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
            new: !alert.old,
            severity: alert.severity(),
            rule: alert.rule.clone(),
            subject: alert.subject.clone(),
            client: alert.client.as_ref().and_then(|ip| ip.parse().ok()),
            why: alert.why.clone(),
        })
        .collect()
    }
}
