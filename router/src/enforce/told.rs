//! What became of listed packets -> events, each with its reason.
//!
//! In: verdicts, from the queue's thread through a bounded channel. Out: for each a finding
//! of the rule `enforced` (score 0.1: it tells what was done, not how bad it is; that is the
//! word of the rules `blocklist` and `firewall`), and for what was stopped the record of the
//! question or packet, as its collector would have made it. Pure; runs on the thread that
//! watches over the queue's.
//!
//! Invariants: the first verdict about a client and a name or place is told at once, further
//! ones within [`Config::repeat_seconds`](super::Config) are counted and told together at its
//! end, so that a client that hammers makes two findings in that time; at most
//! [`FOLDS_MAX`] pairs are remembered, what is beyond is counted as `drop.enforce.folds_full`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use agentmon_core::event::{Body, Dns, DnsStatus, Endpoint, Event, Firewall, Mac, Verdict};
use agentmon_core::finding::Finding;
use agentmon_core::service::Service;
use agentmon_core::time::{Mono, Timestamp};

use super::judge::{Listed, Unjudged};

/// What records of stopped questions say of their origin.
pub const SOURCE: &str = "enforce";
/// The rule of the findings.
pub const RULE: &str = "enforced";
/// Most (client, name or place) pairs folded at a time.
pub(super) const FOLDS_MAX: usize = 1_024;
/// How bad it is that something was done about it: see the file's head.
const SCORE: f64 = 0.1;
/// Response code of an answer "no such name".
const NXDOMAIN: u16 = 3;

/// What is done with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Act {
    /// The question is answered: no such name.
    Nxdomain,
    /// The connection is refused.
    Reject,
    /// Silence.
    Drop,
}

impl Act {
    /// All, for the counters.
    pub(super) const ALL: [Self; 3] = [Self::Nxdomain, Self::Reject, Self::Drop];

    /// The word in findings and counters.
    #[must_use]
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Nxdomain => "nxdomain",
            Self::Reject => "reject",
            Self::Drop => "drop",
        }
    }
}

/// What became of a packet, and why.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Told {
    /// It was stopped.
    Stopped(Listed, Act),
    /// It would have been: this is a dry run.
    Would(Listed, Act),
    /// It went on by this exception.
    Excepted(Listed, String),
    /// It went on unjudged: from whom, where to.
    Unjudged(Unjudged, Endpoint, Endpoint, u8),
}

/// One of them, with when and whose.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Case {
    /// Wall time of the verdict.
    pub(super) time: Timestamp,
    /// The sender's MAC.
    pub(super) mac: Option<Mac>,
    /// What became of it.
    pub(super) told: Told,
}

/// What verdicts are folded by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    client: IpAddr,
    subject: String,
    verdict: &'static str,
    act: Option<Act>,
}

#[derive(Debug)]
struct Fold {
    since: Mono,
    /// After the one that was told.
    more: u64,
    latest: Case,
}

/// The folds.
#[derive(Debug)]
pub(super) struct Folds {
    open: HashMap<Key, Fold>,
    every: Duration,
    full: u64,
}

impl Folds {
    pub(super) fn new(every: Duration) -> Self {
        Self { open: HashMap::new(), every, full: 0 }
    }

    /// One verdict: what is to be told of it now.
    pub(super) fn add(&mut self, case: Case, now: Mono, out: &mut Vec<Event>) {
        let key = case.key();
        if let Some(fold) = self.open.get_mut(&key) {
            fold.more += 1;
            fold.latest = case;
            return;
        }
        if self.open.len() >= FOLDS_MAX {
            self.full += 1;
            return;
        }
        case.events(1, out);
        self.open.insert(key, Fold { since: now, more: 0, latest: case });
    }

    /// What is due: the sums of those whose time is over. With `all`, of all.
    pub(super) fn due(&mut self, now: Mono, all: bool, out: &mut Vec<Event>) {
        let every = self.every;
        self.open.retain(|_, fold| {
            if !all && now.since(fold.since) < every {
                return true;
            }
            if fold.more == 0 {
                return false;
            }
            fold.latest.events(fold.more, out);
            (fold.since, fold.more) = (now, 0);
            true
        });
    }

    /// Verdicts left out since the last call because there were too many pairs.
    pub(super) fn take_full(&mut self) -> u64 {
        std::mem::take(&mut self.full)
    }
}

impl Case {
    fn parts(&self) -> (&'static str, Option<&Listed>, Option<Act>) {
        match &self.told {
            Told::Stopped(listed, act) => (act.as_str(), Some(listed), Some(*act)),
            Told::Would(listed, act) => ("dry-run", Some(listed), Some(*act)),
            Told::Excepted(listed, _) => ("allowed", Some(listed), None),
            Told::Unjudged(why, ..) => (why.as_str(), None, None),
        }
    }

    fn client(&self) -> Endpoint {
        match &self.told {
            Told::Stopped(l, _) | Told::Would(l, _) | Told::Excepted(l, _) => l.client,
            Told::Unjudged(_, client, ..) => *client,
        }
    }

    fn subject(&self) -> String {
        match &self.told {
            Told::Stopped(l, _) | Told::Would(l, _) | Told::Excepted(l, _) => l.subject(),
            Told::Unjudged(_, _, to, proto) => place(*to, *proto),
        }
    }

    fn key(&self) -> Key {
        let (verdict, _, act) = self.parts();
        Key { client: self.client().ip, subject: self.subject(), verdict, act }
    }

    /// A finding that stands for so many verdicts, and the record of what was stopped.
    fn events(&self, packets: u64, out: &mut Vec<Event>) {
        let event = |body| Event { time: self.time, body };
        if let Told::Stopped(listed, act) = &self.told {
            out.push(event(listed.record(*act, self.mac)));
        }
        out.push(event(Body::Finding(self.finding(packets))));
    }

    fn finding(&self, packets: u64) -> Finding {
        let (verdict, listed, act) = self.parts();
        let mut finding = Finding {
            rule: RULE.into(),
            subject: self.subject(),
            client: Some(self.client().ip),
            mac: self.mac,
            score: SCORE,
            why: self.why(),
            evidence: Vec::new(),
        };
        finding = finding.with("verdict", verdict).with("packets", packets);
        if let (Some(act), "dry-run") = (act, verdict) {
            finding = finding.with("would", act.as_str());
        }
        if let Some(listed) = listed {
            finding = finding.with("list", &listed.list).with("entry", &listed.entry);
            if let Some(question) = &listed.question {
                finding = finding.with("asked", listed.to).with("type", question.qtype);
            }
        }
        if let Told::Excepted(_, exception) = &self.told {
            finding = finding.with("exception", exception);
        }
        finding
    }

    fn why(&self) -> String {
        let listed = |l: &Listed| format!("the list {} has {}", l.list, l.entry);
        match &self.told {
            Told::Stopped(l, Act::Nxdomain) => {
                format!("the question was answered with \"no such name\": {}", listed(l))
            }
            Told::Stopped(l, Act::Reject) => format!("the connection was refused: {}", listed(l)),
            Told::Stopped(l, Act::Drop) => format!("the packet was dropped: {}", listed(l)),
            Told::Would(l, _) => format!("dry run, nothing was stopped: {}", listed(l)),
            Told::Excepted(l, exception) => {
                format!("it went on by the exception `{exception}`: {}", listed(l))
            }
            Told::Unjudged(Unjudged::OverTcp, ..) => {
                "it asks by DNS over TCP, which is not judged".into()
            }
            Told::Unjudged(Unjudged::Encrypted, ..) => {
                "it asks by encrypted DNS, which nobody can judge".into()
            }
            Told::Unjudged(why, ..) => format!("it was not judged: {}", why.as_str()),
        }
    }
}

fn place(to: Endpoint, proto: u8) -> String {
    Service { port: to.port, proto }.at(to.ip)
}

impl Listed {
    /// What it is about, as the alert's key has it.
    #[must_use]
    pub fn subject(&self) -> String {
        match &self.question {
            Some(question) => question.name.to_string(),
            None => place(self.to, self.proto),
        }
    }

    /// The record of a packet that was stopped: a question that was refused by agentmon, or
    /// a packet that a firewall stopped.
    fn record(&self, act: Act, mac: Option<Mac>) -> Body {
        match &self.question {
            Some(question) => Body::Dns(Dns {
                client: self.client.ip,
                mac,
                name: question.name.clone(),
                qtype: question.qtype,
                status: DnsStatus::Blocked,
                rcode: (act == Act::Nxdomain).then_some(NXDOMAIN),
                answers: Vec::new(),
                ttl: None,
                upstream: None,
                latency_us: None,
                blocked_by: Some(format!("agentmon: {}", self.list)),
                source: SOURCE.to_owned(),
            }),
            None => Body::Firewall(Firewall {
                verdict: if act == Act::Reject { Verdict::Reject } else { Verdict::Drop },
                prefix: format!("agentmon: {}", self.list),
                proto: self.proto,
                src: self.client,
                dst: self.to,
                in_iface: None,
                out_iface: None,
                mac,
                bytes: self.bytes,
            }),
        }
    }
}
