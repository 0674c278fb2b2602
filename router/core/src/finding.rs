//! One detector's opinion about something that was seen.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::event::Mac;

/// Most evidence pairs in one finding.
pub const EVIDENCE_MAX: usize = 16;

/// How bad, in the words a person is told. Ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the words say it")]
pub enum Severity {
    Info,
    Low,
    Medium,
    High,
    Critical,
}

impl Severity {
    /// All, lowest first.
    pub const ALL: [Self; 5] = [Self::Info, Self::Low, Self::Medium, Self::High, Self::Critical];

    /// From a score in 0..=1: above .8 critical, from .6 high, from .4 medium, from .2 low.
    #[must_use]
    pub fn from_score(score: f64) -> Self {
        match score {
            s if s > 0.8 => Self::Critical,
            s if s >= 0.6 => Self::High,
            s if s >= 0.4 => Self::Medium,
            s if s >= 0.2 => Self::Low,
            _ => Self::Info,
        }
    }
    /// The word stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// A detector's opinion: pure function of events, so the same on router and hub.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Which detector, as in [`RULES`](crate::tier0::rules::RULES): `dga`, `direct-ip`. Lower
    /// case, dashes.
    pub rule: String,
    /// What it is about, in the rule's own terms: a domain, `address:port/proto`. With
    /// `rule` and the client it is the dedup key of the alert.
    pub subject: String,
    /// The client it concerns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<IpAddr>,
    /// The client's MAC where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// 0 = nothing, 1 = certain and grave. See [`Severity::from_score`].
    pub score: f64,
    /// One sentence in plain words.
    pub why: String,
    /// The numbers behind the score, as printable key and value; at most [`EVIDENCE_MAX`].
    #[serde(default)]
    pub evidence: Vec<(String, String)>,
}

impl Finding {
    /// The score as a word.
    #[must_use]
    pub fn severity(&self) -> Severity {
        Severity::from_score(self.score)
    }

    /// Adds one piece of evidence; silently at most [`EVIDENCE_MAX`], since detectors add a
    /// fixed handful each.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl ToString) -> Self {
        if self.evidence.len() < EVIDENCE_MAX {
            self.evidence.push((key.to_owned(), value.to_string()));
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn severity_steps() {
        let words = [0.0, 0.2, 0.4, 0.6, 0.8, 0.81].map(|s| Severity::from_score(s).as_str());
        assert_eq!(words, ["info", "low", "medium", "high", "high", "critical"]);
    }
}
