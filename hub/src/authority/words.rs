//! What the judge's findings say.
//!
//! In: a decision, a rule, a limit, with the connection and its process. Out: findings in words
//! a person can read, with the numbers behind them. Pure.

use agentmon_core::authority::ancestry::Rule;
use agentmon_core::authority::meter::Exceeded;
use agentmon_core::authority::{Decision, Mode, Verdict};
use agentmon_core::event::{Connection, Process};
use agentmon_core::finding::{Finding, Severity};
use agentmon_core::service::proto_name;

use super::judge::{ANCESTRY, Known, RULE};

/// Score of what is denied, outside a grant, flagged.
const SCORES: [f64; 3] = [0.8, 0.7, 0.3];

/// `curl < bash < claude`.
pub(super) fn chain(process: &Process) -> String {
    let all = std::iter::once(&process.program).chain(process.ancestors.iter().take(6));
    all.map(|p| p.name.as_str()).collect::<Vec<_>>().join(" < ")
}

/// What a decision is worth telling.
pub(super) fn authority(
    decision: &Decision<'_>,
    c: &Connection,
    known: Option<&Known>,
) -> Option<Finding> {
    let score = match (decision.mode, decision.verdict) {
        (Mode::Allow | Mode::Learn, _) => return None,
        (Mode::Flag, _) => SCORES[2],
        (Mode::Alert, Verdict::Denied | Verdict::PrivateAnswer) => SCORES[0],
        (Mode::Alert, _) => SCORES[1],
    };
    let program = c.name.as_deref().unwrap_or("a program nobody knows");
    let who = decision.subject.unwrap_or(program);
    let says = match decision.verdict {
        Verdict::Denied => "which its grant denies",
        Verdict::PrivateAnswer => "a public name that stands for a private address",
        Verdict::Outside if decision.weak => "which it may only when it is better known",
        Verdict::Outside => "which no grant of it allows",
        Verdict::UnknownProcess => "and nobody knows whose connection it is",
        _ => "for which it has no grant",
    };
    let started = match decision.subject {
        Some(subject) if known.is_some_and(|k| k.identity.is_some_and(|i| i.above > 0)) => {
            format!("{program}, started by {subject},")
        }
        _ => who.to_owned(),
    };
    let place = place(c);
    let host = known.map(|k| k.host.as_str()).filter(|h| !h.is_empty());
    let on = host.map(|h| format!(" on {h}")).unwrap_or_default();
    let mut finding = Finding {
        rule: RULE.into(),
        subject: format!("{who} -> {place}"),
        client: Some(c.local.ip),
        mac: None,
        score,
        why: format!("{started}{on} connected to {place}, {says}"),
        evidence: Vec::new(),
    }
    .with("verdict", decision.verdict.as_str())
    .with("program", program)
    .with("pid", c.pid)
    .with("address", c.remote);
    if let Some(known) = known {
        finding = finding.with("chain", &known.chain);
    }
    for (key, value) in [
        ("agent", decision.subject),
        ("known_by", decision.strength.map(|s| s.as_str())),
        ("rule", decision.rule),
        ("grant", decision.place),
        ("comment", decision.comment),
        ("user", c.user.as_deref()),
        ("host", host),
    ] {
        if let Some(value) = value {
            finding = finding.with(key, value);
        }
    }
    Some(finding)
}

/// `www.example.com:443/tcp`.
fn place(c: &Connection) -> String {
    let name = c.resolved.as_ref().map_or_else(|| c.remote.ip.to_string(), |r| r.name.to_string());
    format!("{name}:{}/{}", c.remote.port, proto_name(c.proto))
}

/// A limit that was passed.
pub(super) fn limit(e: &Exceeded<'_>, subject: &str, host: &str, c: &Connection) -> Finding {
    Finding {
        rule: RULE.into(),
        subject: format!("{subject}: {}", e.kind.as_str()),
        client: Some(c.local.ip),
        mac: None,
        score: SCORES[1],
        why: format!(
            "{subject} on {host} used {}, more than {} allows ({})",
            e.used,
            e.kind.as_str(),
            e.limit
        ),
        evidence: Vec::new(),
    }
    .with("limit", e.limit)
    .with("used", e.used)
    .with("grant", e.place)
}

/// A program that something started which should not have.
pub(super) fn ancestry(rule: &Rule, c: &Connection, known: &Known) -> Finding {
    let program = c.name.as_deref().unwrap_or("a program");
    let below = known.parent.as_deref().map(|p| format!(", started by {p},")).unwrap_or_default();
    let on = if known.host.is_empty() { String::new() } else { format!(" on {}", known.host) };
    let score = match rule.severity {
        Severity::Info => 0.1,
        Severity::Low => 0.3,
        Severity::Medium => 0.5,
        Severity::High => 0.7,
        Severity::Critical => 0.85,
    };
    let mut finding = Finding {
        rule: ANCESTRY.into(),
        subject: format!("{}: {}", rule.id, known.chain),
        client: Some(c.local.ip),
        mac: None,
        score,
        why: format!("{program}{below}{on} connected to {}: looks like {}", place(c), rule.title),
        evidence: Vec::new(),
    }
    .with("ancestry_rule", &rule.id)
    .with("chain", &known.chain)
    .with("pid", c.pid)
    .with("address", c.remote)
    .with("source", &rule.source);
    for (key, value) in
        [("file", known.exe.as_deref()), ("user", c.user.as_deref()), ("host", Some(&known.host))]
    {
        if let Some(value) = value {
            finding = finding.with(key, value);
        }
    }
    finding
}
