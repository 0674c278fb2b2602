//! What people say of alerts: allowed, or a false positive; and taken back.
//!
//! In: a person's words, checked ([`New::check`]). Out: rows of `feedback`, and what each
//! means for a part of an alert ([`Feedback::effect`]). The rows never touch what detectors
//! said: alerts are judged again from their parts, so undoing restores them exactly.
//!
//! What is said holds for findings of before, and for later ones up to its end: a finding
//! whose own time (hub's clock) lies at the end or behind it counts again, with all that was
//! said of that subject. Known bad (lists, the authority) is silenced only where that rule is
//! named, with a comment.
//!
//! Bounds: [`FEEDBACK_MAX`] in force.

use std::net::IpAddr;

use agentmon_core::event::Mac;
use agentmon_core::{Name, Timestamp};
use duckdb::{Connection, params};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::judge::Part;
use super::rules;
use crate::store::StoreError;

/// Most rows in force at a time.
pub(crate) const FEEDBACK_MAX: usize = 4_096;
/// Longest comment in bytes.
pub(crate) const COMMENT_BYTES_MAX: usize = 4_096;

/// What a person says, as it is sent to the hub. What is `None` means any.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct New {
    /// A name and everything below it.
    pub domain: Option<String>,
    /// An address or a network.
    pub ip: Option<String>,
    /// A device: MAC, address, or name.
    pub device: Option<String>,
    /// A rule.
    pub rule: Option<String>,
    /// A subject in a rule's own terms.
    pub subject: Option<String>,
    /// Findings of this time or later are told again; microseconds since 1970.
    pub until: Option<i64>,
    /// Why.
    pub comment: Option<String>,
}

/// Allowed, or nothing at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Allow,
    FalsePositive,
}

impl Kind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::FalsePositive => "fp",
        }
    }
}

/// What a feedback does to one part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Not told: a person allows it.
    Allow,
    /// Not told: a person called it wrong.
    Dismiss,
    /// Counts half: called wrong on another device.
    Doubt,
}

/// One row in force.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Feedback {
    pub(crate) id: i64,
    pub(crate) kind: Kind,
    pub(crate) domain: Option<String>,
    pub(crate) net: Option<IpNet>,
    /// MAC, or the address of what has none.
    pub(crate) device: Option<String>,
    pub(crate) rule: Option<String>,
    pub(crate) subject: Option<String>,
    pub(crate) until: Option<Timestamp>,
    pub(crate) comment: Option<String>,
}

impl Feedback {
    /// What it means for this part of an alert of `who`.
    pub(crate) fn effect(&self, part: &Part, who: &str) -> Option<Effect> {
        if !self.is_about(part) {
            return None;
        }
        let here = self.device.as_ref().is_none_or(|device| device == who);
        match (self.kind, here) {
            (Kind::Allow, true) => Some(Effect::Allow),
            (Kind::FalsePositive, true) => Some(Effect::Dismiss),
            (Kind::FalsePositive, false) => Some(Effect::Doubt),
            (Kind::Allow, false) => None,
        }
    }

    fn is_about(&self, part: &Part) -> bool {
        let named = match &self.rule {
            Some(rule) => *rule == part.rule,
            None => !rules::of(&part.rule).known_bad,
        };
        let below =
            |domain: &String| part.name.as_ref().is_some_and(|name| name.is_at_or_below(domain));
        let within = |net: &IpNet| part.address.is_some_and(|ip| net.contains(&ip));
        named
            && self.until.is_none_or(|until| part.last < until)
            && self.domain.as_ref().is_none_or(below)
            && self.net.as_ref().is_none_or(within)
            && self.subject.as_ref().is_none_or(|subject| *subject == part.subject)
    }

    /// `: comment`, or nothing.
    pub(crate) fn remark(&self) -> String {
        self.comment.as_ref().map_or_else(String::new, |comment| format!(": {comment}"))
    }
}

/// What is wrong with a feedback.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub(crate) struct Refusal(String);

fn refuse<T>(text: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal(text.into()))
}

/// Checks what a person said, and reads it; `device` is already a MAC or an address.
///
/// # Errors
/// What makes no sense, in a sentence.
pub(crate) fn check(kind: Kind, new: &New) -> Result<Feedback, Refusal> {
    let comment = new.comment.clone().filter(|c| !c.trim().is_empty());
    if comment.as_ref().is_some_and(|c| c.len() > COMMENT_BYTES_MAX) {
        return refuse(format!("a comment has at most {COMMENT_BYTES_MAX} bytes"));
    }
    let domain = match &new.domain {
        None => None,
        Some(text) => match Name::parse(text.trim_start_matches("*.").as_bytes()) {
            Ok(name) if name.labels().next().is_some() => Some(name.as_str().to_owned()),
            _ => return refuse(format!("`{text}` is no domain")),
        },
    };
    let net = new.ip.as_deref().map(read_net).transpose()?;
    if domain.is_some() && net.is_some() {
        return refuse("a finding is about a domain or an address; give two, one for each");
    }
    let what = [&new.domain, &new.ip, &new.device, &new.rule, &new.subject];
    if what.iter().all(|part| part.is_none()) {
        return refuse("what is allowed? name a domain, an address, a device or a rule");
    }
    if let Some(rule) = &new.rule {
        if !rules::is_rule_name(rule) {
            return refuse(format!("`{rule}` is no rule; see docs/detectors.md"));
        }
        if rules::of(rule).known_bad && comment.is_none() {
            return refuse(format!(
                "{rule} tells what is known to be bad; say why it may be silent, with --comment"
            ));
        }
    }
    Ok(Feedback {
        id: 0,
        kind,
        domain,
        net,
        device: new.device.as_deref().map(canonical),
        rule: new.rule.clone(),
        subject: new.subject.clone(),
        until: new.until.map(Timestamp::from_micros),
        comment,
    })
}

fn read_net(text: &str) -> Result<IpNet, Refusal> {
    let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    match net {
        Ok(IpNet::V6(net)) if net.prefix_len() == 128 => Ok(net.addr().to_canonical().into()),
        Ok(net) => Ok(net.trunc()),
        Err(_) => refuse(format!("`{text}` is no address and no network")),
    }
}

/// A MAC or an address as alerts have it.
fn canonical(device: &str) -> String {
    let mac = device.parse::<Mac>().map(|mac| mac.to_string());
    let ip = || device.parse::<IpAddr>().map(|ip| ip.to_canonical().to_string());
    mac.or_else(|_| ip()).unwrap_or_else(|_| device.to_owned())
}

/// Everything in force.
///
/// # Errors
/// What DuckDB says.
pub(crate) fn load(connection: &Connection) -> Result<Vec<Feedback>, StoreError> {
    let sql = format!(
        "SELECT id, kind, domain, net, device, rule, subject, epoch_us(until), comment \
         FROM feedback WHERE undone IS NULL ORDER BY id DESC LIMIT {FEEDBACK_MAX}"
    );
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query([])?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        let kind: String = row.get(1)?;
        all.push(Feedback {
            id: row.get(0)?,
            kind: if kind == "fp" { Kind::FalsePositive } else { Kind::Allow },
            domain: row.get(2)?,
            net: row.get::<_, Option<String>>(3)?.and_then(|net| net.parse().ok()),
            device: row.get(4)?,
            rule: row.get(5)?,
            subject: row.get(6)?,
            until: row.get::<_, Option<i64>>(7)?.map(Timestamp::from_micros),
            comment: row.get(8)?,
        });
    }
    Ok(all)
}

/// Stores one; its number. The caller judges again.
///
/// # Errors
/// What DuckDB says; too many in force.
pub(crate) fn insert(
    connection: &Connection,
    new: &Feedback,
    alert: Option<i64>,
    now: Timestamp,
) -> Result<i64, StoreError> {
    let count = "SELECT count(*) FROM feedback WHERE undone IS NULL";
    let held: usize = connection.query_row(count, [], |row| row.get(0))?;
    if held >= FEEDBACK_MAX {
        let text =
            format!("{FEEDBACK_MAX} feedbacks are in force; undo some: agentmon allow --list");
        return Err(StoreError::Db(text));
    }
    let next = "SELECT coalesce(max(id), 0) + 1 FROM feedback";
    let id: i64 = connection.query_row(next, [], |row| row.get(0))?;
    connection.execute(
        "INSERT INTO feedback (id, kind, made, until, domain, net, device, rule, subject, comment, alert)
         VALUES (?, ?, make_timestamp(?), make_timestamp(?), ?, ?, ?, ?, ?, ?, ?)",
        params![
            id, new.kind.as_str(), now.micros(), new.until.map(Timestamp::micros), new.domain,
            new.net.map(|net| net.to_string()), new.device, new.rule, new.subject, new.comment,
            alert
        ],
    )?;
    Ok(id)
}

/// Takes one back; false when there is none of that number in force.
///
/// # Errors
/// What DuckDB says.
pub(crate) fn undo(connection: &Connection, id: i64, now: Timestamp) -> Result<bool, StoreError> {
    let sql = "UPDATE feedback SET undone = make_timestamp(?) WHERE id = ? AND undone IS NULL";
    Ok(connection.execute(sql, params![now.micros(), id])? > 0)
}
