//! One score out of all that detectors say about one subject.
//!
//! In: an alert's parts (what each rule says of each subject), the facts of the network, the
//! feedback of people. Out: a [`Verdict`]: score, which part leads, the sentences that say how
//! the score came about, and whether anything is left to tell. Pure, and the order of its
//! inputs does not matter.
//!
//! The score: the gravest part leads. Each other family of rules that agrees closes a share
//! of the distance to 1 ([`AGREES`], the rule's weight, its own score): two detectors with
//! the same evidence (both count names) are one family and do not raise each other. Then the
//! facts: what hardly any device here talks to counts more, what half of them talk to less.
//!
//! Invariants: between 0 and 1; never below what a list or the authority says (known bad),
//! unless feedback named that rule; feedback changes nothing that is stored of the parts, so
//! what is undone leaves no trace.

use std::net::IpAddr;

use agentmon_core::finding::Severity;
use agentmon_core::{Name, Timestamp};

use super::feedback::{Effect, Feedback};
use super::rules::{self, Family};
use super::topic;

/// Share of the distance to certainty that a full agreement closes.
const AGREES: f64 = 0.4;
/// Devices below which prevalence says nothing: half of three is one and a half.
const DEVICES_MIN: u64 = 5;
/// What everybody here does.
const COMMON: f64 = 0.15;
/// What one device alone does.
const RARE: f64 = 0.05;
/// What nobody here did before.
const NEW: f64 = 0.05;
/// A part that was called a false positive on another device.
const DOUBTED: f64 = 0.5;
/// Facts neither raise nor lower what is hardly worth a word.
const FACTS_FROM: f64 = 0.2;
/// A connection follows a watched name within this, or the name was only asked for.
pub(crate) const FOLLOWS_WITHIN: std::time::Duration = std::time::Duration::from_secs(300);

/// What one rule says of one subject.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Part {
    pub(crate) rule: String,
    pub(crate) subject: String,
    pub(crate) first: Timestamp,
    pub(crate) last: Timestamp,
    pub(crate) findings: u64,
    /// The highest of its findings, with that one's time and sentence.
    pub(crate) score: f64,
    pub(crate) worst: Timestamp,
    pub(crate) why: String,
    /// What came of it: for a watched name the connection.
    pub(crate) followed: Option<Followed>,
    /// All of its findings were made while the hub was learning.
    pub(crate) learning: bool,
    /// The subject, where it is a name or an address.
    pub(crate) name: Option<Name>,
    pub(crate) address: Option<IpAddr>,
}

/// A connection after a name was asked for.
#[derive(Clone, Debug, PartialEq, PartialOrd)]
pub(crate) struct Followed {
    pub(crate) at: Timestamp,
    pub(crate) text: String,
}

impl Part {
    /// Of one finding.
    pub(crate) fn of(key: &(String, String), time: Timestamp, score: f64, why: &str) -> Self {
        let (rule, subject) = key.clone();
        Self {
            name: topic::name(&subject),
            address: topic::address(&subject),
            rule,
            subject,
            first: time,
            last: time,
            findings: 1,
            score,
            worst: time,
            why: why.to_owned(),
            followed: None,
            learning: false,
        }
    }

    /// Takes in another of the same rule and subject. Of equally grave ones the earlier is
    /// told, so that the order of arrival does not matter.
    pub(crate) fn merge(&mut self, other: Self) {
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
        self.findings = self.findings.saturating_add(other.findings);
        self.learning &= other.learning;
        let graver = other.score.total_cmp(&self.score).then(self.worst.cmp(&other.worst));
        if graver.then_with(|| self.why.cmp(&other.why)).is_gt() {
            (self.score, self.worst, self.why) = (other.score, other.worst, other.why);
        }
    }

    /// Kept for later: the hub was learning, and nobody knows it to be bad or asked for it.
    fn learns(&self) -> bool {
        let rule = rules::of(&self.rule);
        self.learning && !rule.known_bad && !rule.waits
    }

    /// Only a note so far: what would make it an alert has not happened.
    pub(crate) fn waits(&self) -> bool {
        rules::of(&self.rule).waits && self.followed.is_none()
    }
}

/// What the network knows of the topic; fixed when the alert is made.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Facts {
    /// Devices that talked to it within the last days.
    pub(crate) seen_by: u64,
    /// Devices there were.
    pub(crate) devices: u64,
    /// When anybody first did, as far as the days kept at hand tell.
    pub(crate) since: Option<Timestamp>,
    /// Whether those days are enough for "new" to mean something.
    pub(crate) learned: bool,
}

/// Nothing to tell, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Silence {
    /// Asked for, not connected.
    Note,
    /// A person allows it.
    Allowed,
    /// A person called it a false positive.
    FalsePositive,
    /// Found while the hub was learning.
    Learning,
}

impl Silence {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Allowed => "allowed",
            Self::FalsePositive => "fp",
            Self::Learning => "learning",
        }
    }
}

/// What a person is told of an alert.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) score: f64,
    /// Of the leading part.
    pub(crate) rule: String,
    pub(crate) subject: String,
    pub(crate) why: String,
    /// How the score came about, in sentences.
    pub(crate) reasons: Vec<String>,
    pub(crate) silence: Option<Silence>,
}

/// A part with what is left of its score.
struct Weighed<'a> {
    part: &'a Part,
    score: f64,
    silence: Option<Silence>,
}

/// Judges an alert of the device `who` (its MAC or lone address). `parts` in any order.
///
/// Advice ([`rules::OPINION`]) comes last and only upwards: to the next severity at most.
pub(crate) fn judge(parts: &[&Part], who: &str, facts: &Facts, feedback: &[Feedback]) -> Verdict {
    let (advice, seen): (Vec<&Part>, Vec<&Part>) =
        parts.iter().partition(|part| part.rule == rules::OPINION);
    if seen.is_empty() {
        return judge_seen(&advice, who, facts, feedback);
    }
    let mut verdict = judge_seen(&seen, who, facts, feedback);
    let advised = advice.iter().map(|part| part.score).fold(0.0, f64::max);
    let raised = advised.min(next_severity(verdict.score));
    if verdict.silence.is_none() && raised > verdict.score {
        verdict.reasons.push(format!("a language model takes it for worse: {raised:.2}"));
        verdict.score = raised;
    }
    verdict
}

/// The lowest score of the severity above.
fn next_severity(score: f64) -> f64 {
    let now = Severity::from_score(score);
    [0.2, 0.4, 0.6].into_iter().find(|s| Severity::from_score(*s) > now).unwrap_or(score)
}

/// Judges what detectors have seen.
fn judge_seen(parts: &[&Part], who: &str, facts: &Facts, feedback: &[Feedback]) -> Verdict {
    let mut reasons = Vec::new();
    let mut all: Vec<Weighed<'_>> = parts.iter().map(|part| weigh(part, who, feedback)).collect();
    all.sort_by(|a, b| gravest(a, b));
    let live: Vec<&Weighed<'_>> = all.iter().filter(|w| w.silence.is_none()).collect();
    let Some(lead) = live.first() else { return silent(&all, who, feedback) };
    let mut score = lead.score;
    reasons.push(format!("{} says {:.2}", lead.part.rule, lead.score));
    say_feedback(&all, who, feedback, &mut reasons);
    let mut others = Vec::new();
    for (family, best) in agreeing(&live, rules::of(&lead.part.rule).family) {
        let rule = rules::of(&best.part.rule);
        let more = (1.0 - score) * AGREES * rule.weight * best.score;
        score += more;
        others.push(best.part.rule.clone());
        let (name, family) = (&best.part.rule, family.as_str());
        reasons.push(format!("{name} agrees ({family}, {:.2}): +{more:.2}", best.score));
    }
    let floor = live.iter().filter(|w| rules::of(&w.part.rule).known_bad).map(|w| w.score);
    let floor = floor.fold(0.0, f64::max);
    if lead.score >= FACTS_FROM {
        score = weigh_facts(score, lead.part.first, facts, &mut reasons);
    }
    if floor > score {
        reasons.push(format!("known bad: not below {floor:.2}"));
    }
    Verdict {
        score: even(score).max(floor).clamp(0.0, 1.0),
        rule: lead.part.rule.clone(),
        subject: lead.part.subject.clone(),
        why: sentence(lead.part, &others),
        reasons,
        silence: None,
    }
}

/// To a millionth: sums of tenths are not quite what people add up.
fn even(score: f64) -> f64 {
    (score * 1e6).round() / 1e6
}

/// Gravest first; the names decide between equals, so that the order of arrival does not.
fn gravest(a: &Weighed<'_>, b: &Weighed<'_>) -> std::cmp::Ordering {
    let names = |w: &Weighed<'_>| (w.part.rule.clone(), w.part.subject.clone());
    b.score.total_cmp(&a.score).then_with(|| names(a).cmp(&names(b)))
}

fn weigh<'a>(part: &'a Part, who: &str, feedback: &[Feedback]) -> Weighed<'a> {
    let effects = || feedback.iter().filter_map(|f| f.effect(part, who));
    let has = |effect| effects().any(|e| e == effect);
    let silence = if has(Effect::Allow) {
        Some(Silence::Allowed)
    } else if has(Effect::Dismiss) {
        Some(Silence::FalsePositive)
    } else if part.waits() {
        Some(Silence::Note)
    } else if part.learns() {
        Some(Silence::Learning)
    } else {
        None
    };
    let score = if has(Effect::Doubt) { part.score * DOUBTED } else { part.score };
    Weighed { part, score, silence }
}

/// Nothing is left to tell: the gravest part says what it would have been.
fn silent(all: &[Weighed<'_>], who: &str, feedback: &[Feedback]) -> Verdict {
    let Some(lead) = all.first() else { return Verdict::default() };
    let mut reasons = Vec::new();
    say_feedback(all, who, feedback, &mut reasons);
    if all.iter().any(|w| w.silence == Some(Silence::Note)) {
        let minutes = FOLLOWS_WITHIN.as_secs() / 60;
        reasons.push(format!("asked for, not connected within {minutes} minutes: a note"));
    }
    // A person's word comes before what was learnt from, and that before what never happened.
    let first = |silence: &Silence| match silence {
        Silence::Allowed => 0,
        Silence::FalsePositive => 1,
        Silence::Learning => 2,
        Silence::Note => 3,
    };
    let silence = all.iter().filter_map(|w| w.silence).min_by_key(first).unwrap_or(Silence::Note);
    let (why, score) = match silence {
        Silence::Note => (format!("{}; asked for, not connected", lead.part.why), 0.0),
        // What it would have been: the gravest of those that are kept.
        Silence::Learning => {
            reasons.push("found while learning: kept, not told".to_owned());
            let kept = all.iter().filter(|w| w.silence == Some(Silence::Learning));
            (lead.part.why.clone(), kept.map(|w| w.score).fold(0.0, f64::max))
        }
        _ => (lead.part.why.clone(), 0.0),
    };
    Verdict {
        score,
        rule: lead.part.rule.clone(),
        subject: lead.part.subject.clone(),
        why,
        reasons,
        silence: Some(silence),
    }
}

/// The best part of each family but the leader's, in the order of families.
fn agreeing<'a>(live: &[&'a Weighed<'a>], but: Family) -> Vec<(Family, &'a Weighed<'a>)> {
    let best = |family: Family| {
        let mut those = live.iter().filter(|w| rules::of(&w.part.rule).family == family);
        those.find(|w| w.score > 0.0).map(|w| (family, *w))
    };
    Family::ALL.into_iter().filter(|family| *family != but).filter_map(best).collect()
}

fn weigh_facts(score: f64, first: Timestamp, facts: &Facts, reasons: &mut Vec<String>) -> f64 {
    let mut score = score;
    let Facts { seen_by, devices, .. } = *facts;
    if devices >= DEVICES_MIN && seen_by * 2 >= devices {
        score -= COMMON;
        reasons.push(format!("{seen_by} of {devices} devices here talk to it: -{COMMON:.2}"));
    } else if devices >= DEVICES_MIN && seen_by == 1 {
        score += RARE;
        reasons.push(format!("of {devices} devices here only this one talks to it: +{RARE:.2}"));
    }
    let day = std::time::Duration::from_secs(86_400);
    if facts.learned && facts.since.is_some_and(|since| first.since(since) < day) {
        score += NEW;
        reasons.push(format!("nobody here talked to it a day before: +{NEW:.2}"));
    }
    score.clamp(0.0, 1.0)
}

/// One sentence for each feedback that has a hand in it.
fn say_feedback(all: &[Weighed<'_>], who: &str, feedback: &[Feedback], reasons: &mut Vec<String>) {
    let mut said: Vec<&Feedback> =
        feedback.iter().filter(|f| all.iter().any(|w| f.effect(w.part, who).is_some())).collect();
    said.sort_by_key(|f| f.id);
    for feedback in said {
        let parts = all.iter().filter_map(|w| Some((w.part, feedback.effect(w.part, who)?)));
        let parts: Vec<_> = parts.collect();
        let Some((_, effect)) = parts.first() else { continue };
        let mut rules: Vec<&str> = parts.iter().map(|(part, _)| part.rule.as_str()).collect();
        rules.sort_unstable();
        rules.dedup();
        let (rules, nth) = (rules.join(", "), feedback.id);
        reasons.push(match effect {
            Effect::Allow => format!("{rules} allowed (feedback {nth}){}", feedback.remark()),
            Effect::Dismiss => {
                format!("{rules} called a false positive (feedback {nth}){}", feedback.remark())
            }
            Effect::Doubt => {
                format!("{rules} halved: called a false positive elsewhere (feedback {nth})")
            }
        });
    }
}

fn sentence(lead: &Part, others: &[String]) -> String {
    let mut text = lead.why.clone();
    if let Some(followed) = &lead.followed {
        text.push_str(&format!("; {}", followed.text));
    }
    if !others.is_empty() {
        text.push_str(&format!(" (and {})", others.join(", ")));
    }
    text
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
