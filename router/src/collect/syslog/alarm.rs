//! What the receiver finds wrong with a sender: it fell silent, or its messages come late.
//!
//! In: who, since when, by how much. Out: a finding for each spell. Pure. These are the only
//! findings that no detector of tier 0 makes: only who receives knows that nothing came.
//!
//! They matter because whoever takes over a machine may silence its log first, and because
//! detectors of names see nothing of a network whose resolver is not heard.

use std::net::IpAddr;
use std::time::Duration;

use agentmon_core::Event;
use agentmon_core::event::Body;
use agentmon_core::finding::Finding;
use agentmon_core::time::Timestamp;

use super::config::Config;

/// A sender was heard, or is expected, and says nothing.
pub const SILENT: &str = "log-silent";
/// A sender's messages are dated far from now, for minutes.
pub const LATE: &str = "log-late";

/// What everybody should know about one of these findings.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// As in [`Finding::rule`].
    pub name: &'static str,
    /// What it tells, in a few words.
    pub tells: &'static str,
    /// From where on it speaks, with the numbers of these settings.
    pub threshold: fn(&Config) -> String,
}

/// Both.
pub static RULES: [Rule; 2] = [
    Rule {
        name: LATE,
        tells: "a log that comes late, or whose clock is wrong",
        threshold: |c| format!("{} s for a minute", c.lag_seconds),
    },
    Rule {
        name: SILENT,
        tells: "a log that fell silent, or never came",
        threshold: |c| format!("{} s of silence", c.silence_seconds),
    },
];

/// Blind in part: worth a look today.
const SILENT_SCORE: f64 = 0.5;
/// What is late is still seen.
const LATE_SCORE: f64 = 0.4;

/// `heard`: when it was heard last, if ever.
pub(super) fn silent(
    time: Timestamp,
    sender: IpAddr,
    lasts: Duration,
    heard: Option<Timestamp>,
) -> Event {
    let minutes = lasts.as_secs() / 60;
    let why = match heard {
        Some(_) => format!("{sender} sent its log and has been silent for {minutes} min"),
        None => format!("{sender} may send its log and has sent nothing for {minutes} min"),
    };
    let heard = heard.map_or_else(|| "never".to_owned(), |at| at.to_string());
    let finding = finding(SILENT, sender, SILENT_SCORE, why);
    event(time, finding.with("last message", heard).with("silent", format!("{minutes} min")))
}

/// `lag`: how far the last message was dated from now, and whether ahead.
pub(super) fn late(
    time: Timestamp,
    sender: IpAddr,
    lag: (Duration, bool),
    allowed: Duration,
) -> Event {
    let (minutes, side) = (lag.0.as_secs() / 60, if lag.1 { "ahead of" } else { "behind" });
    let why = format!("the log of {sender} is {minutes} min {side} the time it arrives at");
    let finding = finding(LATE, sender, LATE_SCORE, why);
    let finding = finding.with("distance", format!("{} s", lag.0.as_secs()));
    event(time, finding.with("allowed", format!("{} s", allowed.as_secs())))
}

fn finding(rule: &str, sender: IpAddr, score: f64, why: String) -> Finding {
    Finding {
        rule: rule.to_owned(),
        subject: "syslog".to_owned(),
        client: Some(sender),
        mac: None,
        score,
        why,
        evidence: Vec::new(),
    }
}

fn event(time: Timestamp, finding: Finding) -> Event {
    Event { time, body: Body::Finding(finding) }
}
