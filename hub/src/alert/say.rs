//! What a person says of alerts, carried out: allow, false positive, take back.
//!
//! In: a checked request, within a transaction. Out: the feedback's row, and all alerts judged
//! anew in the same transaction. Runs within the writer.

use agentmon_core::Timestamp;
use agentmon_core::event::Mac;
use anyhow::{Context as _, bail};
use duckdb::{Connection, OptionalExt as _};

use super::feedback::{self, Kind, New};
use super::{rejudge, rules, topic};

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    /// The feedback's number.
    pub(crate) id: i64,
    /// Alerts that became another.
    pub(crate) alerts: u64,
}

/// Something is allowed from now on.
///
/// # Errors
/// What makes no sense; a device nobody knows; what DuckDB says.
pub(crate) fn allow(connection: &Connection, new: &New, now: Timestamp) -> anyhow::Result<Said> {
    let mut new = new.clone();
    new.device = new.device.map(|device| find_device(connection, &device)).transpose()?;
    say(connection, Kind::Allow, &new, None, now)
}

/// An alert is a false positive: its rules, about its topic, on its device.
///
/// # Errors
/// There is no such alert; it is known bad and nobody named the rule.
pub(crate) fn dismiss(
    connection: &Connection,
    alert: i64,
    new: &New,
    now: Timestamp,
) -> anyhow::Result<Said> {
    let sql = "SELECT coalesce(mac, client), rule, subject, topic FROM alerts WHERE id = ?";
    let row = connection
        .query_row(sql, [alert], |row| {
            let texts = (row.get::<_, Option<String>>(0)?, row.get(1)?, row.get(2)?);
            Ok((texts, row.get::<_, Option<String>>(3)?))
        })
        .optional()?;
    let Some(((device, lead, subject), about)) = row else {
        bail!("there is no alert {alert}; see `agentmon alerts --all`");
    };
    let (lead, subject): (String, String) = (lead, subject);
    // An alert of before alerts had topics.
    let about = about.or_else(|| topic::Topic::of(&subject).text());
    let mut new = New { device, ..new.clone() };
    match about {
        Some(about) if topic::address(&about).is_some() => new.ip = Some(about),
        Some(about) => new.domain = Some(about),
        None => {
            new.subject = Some(subject);
            if new.rule.is_none() && !rules::of(&lead).known_bad {
                new.rule = Some(lead);
            }
        }
    }
    let all = told_by(connection, alert)?;
    if let Some(rule) = &new.rule {
        if !all.contains(rule) {
            bail!("alert {alert} is told by {}, not by {rule}", all.join(", "));
        }
    } else if all.iter().all(|rule| rules::of(rule).known_bad) {
        let rules = all.join(", ");
        bail!(
            "alert {alert} is told by {rules}, which tells what is known to be bad; if it errs, \
             name it and say why: agentmon fp {alert} --rule {rules} --comment '...'"
        );
    }
    say(connection, Kind::FalsePositive, &new, Some(alert), now)
}

/// Takes a feedback back; `None` when there is none of that number in force.
///
/// # Errors
/// What DuckDB says.
pub(crate) fn forget(
    connection: &Connection,
    id: i64,
    now: Timestamp,
) -> anyhow::Result<Option<Said>> {
    if !feedback::undo(connection, id, now)? {
        return Ok(None);
    }
    Ok(Some(Said { id, alerts: rejudge(connection)? }))
}

fn say(
    connection: &Connection,
    kind: Kind,
    new: &New,
    alert: Option<i64>,
    now: Timestamp,
) -> anyhow::Result<Said> {
    let checked = feedback::check(kind, new)?;
    if checked.until.is_some_and(|until| until <= now) {
        bail!("it would have ended already");
    }
    let id = feedback::insert(connection, &checked, alert, now)?;
    Ok(Said { id, alerts: rejudge(connection)? })
}

fn told_by(connection: &Connection, alert: i64) -> anyhow::Result<Vec<String>> {
    let sql = "SELECT DISTINCT rule FROM alert_parts WHERE alert = ? ORDER BY rule";
    let mut statement = connection.prepare(sql)?;
    let rules = statement.query_map([alert], |row| row.get(0))?;
    Ok(rules.collect::<Result<_, _>>()?)
}

/// The device a person means, as alerts name it: its MAC; the address of one that is not known.
fn find_device(connection: &Connection, device: &str) -> anyhow::Result<String> {
    if let Ok(mac) = device.parse::<Mac>() {
        return Ok(mac.to_string());
    }
    if let Ok(ip) = device.parse::<std::net::IpAddr>() {
        let ip = ip.to_canonical().to_string();
        let sql = "SELECT mac FROM address_names WHERE ip = ?";
        let mac = connection.query_row(sql, [&ip], |row| row.get(0)).optional()?;
        return Ok(mac.unwrap_or(ip));
    }
    let sql = "SELECT min(mac), count(*) FROM devices WHERE lower(hostname) = lower(?)";
    let (mac, count): (Option<String>, i64) =
        connection.query_row(sql, [device], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if count > 1 {
        bail!("{count} devices are called `{device}`; give a MAC (agentmon devices)");
    }
    mac.with_context(|| format!("no device `{device}` was seen; see `agentmon devices`"))
}
