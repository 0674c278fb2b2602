//! What a scenario must come to, and whether it did.

use agentmon_core::Finding;
use agentmon_core::finding::Severity;
use agentmon_core::tier0::Tier0Config;
use serde::Deserialize;

/// `expect.toml`. No `[[finding]]` at all: the scenario must stay silent.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// The scenario of the same shape on the other side: attack and benign twin.
    pub twin: String,
    /// Settings of the detectors, where the usual ones would make a scenario of days.
    #[serde(default)]
    pub settings: Tier0Config,
    /// Rules that must find nothing beyond mere information, where even their findings are of
    /// low severity.
    #[serde(default)]
    pub silent: Vec<String>,
    /// Findings that must be made. Any other finding is an error.
    #[serde(default)]
    pub finding: Vec<Wanted>,
}

/// One finding that must be made.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// The detector.
    pub rule: String,
    /// Exact, or with a trailing `*` the beginning.
    pub subject: String,
    /// The client's address.
    pub client: Option<String>,
    /// How often, at least.
    #[serde(default = "one")]
    pub at_least: usize,
    /// How often, at most: more would be noise.
    #[serde(default = "one")]
    pub at_most: usize,
    /// Lowest and highest score allowed.
    pub score: [f64; 2],
    /// Latest moment of the first one, in seconds after the scenario's first event.
    pub within_seconds: u64,
}

fn one() -> usize {
    1
}

impl Wanted {
    fn is_met_by(&self, finding: &Finding) -> bool {
        let subject = match self.subject.strip_suffix('*') {
            Some(beginning) => finding.subject.starts_with(beginning),
            None => finding.subject == self.subject,
        };
        let client = finding.client.map(|ip| ip.to_string());
        finding.rule == self.rule && subject && (self.client.is_none() || self.client == client)
    }
}

/// Complaints; empty when everything expected was found and nothing else that a person is
/// told (medium and above: lower findings are kept for questions, they worry nobody).
/// `found`: how many seconds after the first event, and what.
#[must_use]
pub fn judge(expect: &Expect, found: &[(u64, Finding)]) -> Vec<String> {
    let mut complaints = Vec::new();
    for wanted in &expect.finding {
        let hits: Vec<_> = found.iter().filter(|(_, f)| wanted.is_met_by(f)).collect();
        let what = format!("{} {}", wanted.rule, wanted.subject);
        if hits.len() < wanted.at_least || hits.len() > wanted.at_most {
            let (least, most) = (wanted.at_least, wanted.at_most);
            complaints.push(format!("{what}: {} times, want {least} to {most}", hits.len()));
        }
        let [low, high] = wanted.score;
        let outside = |score: f64| score < low || score > high;
        for score in hits.iter().map(|(_, f)| f.score).filter(|score| outside(*score)) {
            complaints.push(format!("{what}: score {score}, want {low} to {high}"));
        }
        let latest = wanted.within_seconds;
        if let Some((after, _)) = hits.first().filter(|(after, _)| *after > latest) {
            complaints.push(format!("{what}: after {after} s, want within {latest} s"));
        }
    }
    let is_silent = |f: &Finding| expect.silent.contains(&f.rule);
    let is_told = |f: &Finding| {
        let least = if is_silent(f) { Severity::Low } else { Severity::Medium };
        f.severity() >= least
    };
    let is_wanted = |f: &Finding| expect.finding.iter().any(|wanted| wanted.is_met_by(f));
    for (after, extra) in found.iter().filter(|(_, f)| is_told(f) && !is_wanted(f)) {
        let Finding { rule, subject, client, score, why, .. } = extra;
        complaints.push(format!(
            "not expected, after {after} s: {rule} {subject} {client:?} {score}: {why}"
        ));
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expect() -> Expect {
        let text = "twin = 'b'\nsilent = ['quiet']\n[[finding]]\nrule = 'dga'\nsubject = 'x*'\nat_most = 2\n\
                    score = [0.5, 0.9]\nwithin_seconds = 10\n";
        toml::from_str(text).expect("valid")
    }

    fn found(rule: &str, subject: &str, score: f64, after: u64) -> (u64, Finding) {
        let (rule, subject, why) = (rule.to_owned(), subject.to_owned(), String::new());
        let evidence = Vec::new();
        (after, Finding { rule, subject, client: None, mac: None, score, why, evidence })
    }

    #[track_caller]
    fn check(found: &[(u64, Finding)], complaints: &[&str]) {
        let got = judge(&expect(), found);
        let matches = got.iter().zip(complaints).all(|(got, want)| got.contains(want));
        assert!(matches && got.len() == complaints.len(), "{got:?}, want {complaints:?}");
    }

    #[test]
    fn every_kind_of_miss_is_told() {
        check(&[found("dga", "x1", 0.6, 3)], &[]);
        check(&[], &["0 times"]);
        check(&[found("dga", "x1", 0.6, 11)], &["after 11 s"]);
        check(&[found("dga", "x1", 0.95, 3)], &["score 0.95"]);
        let three = [1, 2, 3].map(|n| found("dga", "x1", 0.6, n));
        check(&three, &["3 times"]);
        let good = found("dga", "x1", 0.6, 3);
        check(&[good.clone(), found("dga", "y", 0.6, 3)], &["not expected, after 3 s: dga y"]);
        check(&[good.clone(), found("dga", "y", 0.39, 3)], &[]);
        check(&[good, found("quiet", "y", 0.2, 3)], &["not expected, after 3 s: quiet y"]);
    }
}
