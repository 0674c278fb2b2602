//! Watched names and the connections that follow: a name that is asked for is a note, a
//! connection to what it stands for makes it an alert.
//!
//! In: watched findings as they are stored, flows as they are stored. Out: what followed, on
//! the part of the alert that it makes grave. Runs within the writer.
//!
//! A flow follows when the same device began it, to a name at or below the watched one that
//! it had asked for at most [`FOLLOWS_WITHIN`] before, and the other side answered: a refused
//! connection is none. Flows may come before the finding (another sensor saw them) or long
//! after: detectors tell of a watched name once a month, so what comes later counts too, each
//! time within that time of its own question.
//!
//! Bounds: [`ARMED_MAX`] notes wait; beyond, the oldest stay notes.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use agentmon_core::event::{Endpoint, Flow, Mac, Resolved};
use agentmon_core::{Name, Timestamp};
use duckdb::{Connection, params};

use super::book::Book;
use super::judge::{FOLLOWS_WITHIN, Followed};
use super::{News, Seen, feedback, rows, rules, topic};
use crate::correlate::{SLACK, Waiting};
use crate::store::StoreError;

/// Most notes waiting for a connection.
const ARMED_MAX: usize = 8_192;
/// Most findings of one transaction for which stored flows are looked through.
const LOOK_BACK_MAX: usize = 64;

/// One note that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Armed {
    entry: String,
    since: Timestamp,
}

/// The notes that wait, by device (MAC, or address of one that is not known).
#[derive(Debug, Default)]
pub(crate) struct Watches {
    by_who: HashMap<String, Vec<Armed>>,
}

/// A connection that follows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Hit {
    /// Whose: MAC first, then address.
    who: Vec<String>,
    entry: String,
    followed: Followed,
}

impl Watches {
    /// Reads what waits.
    ///
    /// # Errors
    /// What DuckDB says.
    pub(crate) fn load(connection: &Connection) -> Result<Self, StoreError> {
        let sql = format!(
            "SELECT coalesce(a.mac, a.client), p.subject, epoch_us(p.first_seen)
             FROM alert_parts p JOIN alerts a ON a.id = p.alert
             WHERE p.rule = 'watched' AND p.followed IS NULL AND coalesce(a.mac, a.client) IS NOT NULL
             ORDER BY p.last_seen DESC LIMIT {ARMED_MAX}"
        );
        let mut statement = connection.prepare(&sql)?;
        let mut rows = statement.query([])?;
        let mut this = Self::default();
        while let Some(row) = rows.next()? {
            let armed = Armed { entry: row.get(1)?, since: Timestamp::from_micros(row.get(2)?) };
            this.by_who.entry(row.get(0)?).or_default().push(armed);
        }
        Ok(this)
    }

    /// What this flow follows, most often nothing.
    pub(crate) fn saw(&self, flow: &Flow, began: Timestamp) -> Option<Hit> {
        if self.by_who.is_empty() || !flow.replied {
            return None;
        }
        self.named(flow.mac, flow.src.ip, flow.dst, began, flow.resolved.as_ref()?)
    }

    /// The same of a flow whose name came late.
    pub(crate) fn named_late(
        &self,
        flow: &Waiting,
        mac: Option<Mac>,
        resolved: &Resolved,
    ) -> Option<Hit> {
        if self.by_who.is_empty() || !flow.replied {
            return None;
        }
        let dst = Endpoint { ip: flow.dst, port: flow.dport };
        self.named(mac, flow.src, dst, flow.began, resolved)
    }

    fn named(
        &self,
        mac: Option<Mac>,
        src: IpAddr,
        dst: Endpoint,
        began: Timestamp,
        resolved: &Resolved,
    ) -> Option<Hit> {
        if Duration::from_millis(resolved.age_ms) > FOLLOWS_WITHIN {
            return None;
        }
        let who: Vec<String> = who(mac, &src.to_string());
        let waiting = who.iter().filter_map(|who| self.by_who.get(who)).flatten();
        let mut fitting = waiting.filter(|armed| {
            resolved.name.is_at_or_below(&armed.entry) && began.plus(SLACK) >= armed.since
        });
        let entry = fitting.next()?.entry.clone();
        let port = (dst.port != 0).then_some(dst.port);
        let text = sentence(&dst.ip.to_string(), port, resolved.age_ms);
        Some(Hit { who, entry, followed: Followed { at: began, text } })
    }
}

fn who(mac: Option<Mac>, address: &str) -> Vec<String> {
    mac.map(|mac| mac.to_string()).into_iter().chain([address.to_owned()]).collect()
}

/// No times in it but ages: an alert reads the same whenever it is read.
fn sentence(address: &str, port: Option<u16>, age_ms: u64) -> String {
    let port = port.map_or_else(String::new, |port| format!(" port {port}"));
    format!("connected to {address}{port} {}.{} s later", age_ms / 1_000, age_ms / 100 % 10)
}

/// Makes alerts of the notes that these connections follow.
///
/// # Errors
/// What DuckDB says; the caller rolls back.
pub(crate) fn follow(connection: &Connection, hits: &[Hit]) -> Result<Vec<News>, StoreError> {
    if hits.is_empty() {
        return Ok(Vec::new());
    }
    let topic = |hit: &Hit| topic::Topic::of(&hit.entry).text();
    let key = |hit: &Hit, who: &str| match topic(hit) {
        Some(topic) => format!("|{who}|{topic}"),
        None => format!("watched|{who}|{}", hit.entry),
    };
    let keys: Vec<String> = hits.iter().flat_map(|h| h.who.iter().map(|w| key(h, w))).collect();
    let mut book = Book::new(feedback::load(connection)?);
    rows::load_keys(connection, &keys, &mut book)?;
    for hit in hits {
        let keys: Vec<String> = hit.who.iter().map(|who| key(hit, who)).collect();
        let part = ("watched".to_owned(), hit.entry.clone());
        for alert in book.all_mut().filter(|alert| keys.contains(&alert.key)) {
            alert.follow(&part, hit.followed.clone());
        }
    }
    book.judge();
    rows::save(connection, &book)?;
    Ok(book.news())
}

/// Connections that were stored before the findings they follow.
///
/// # Errors
/// What DuckDB says.
pub(super) fn look_back(
    connection: &Connection,
    found: &[Seen],
    book: &mut Book,
) -> Result<(), StoreError> {
    let waiting = found.iter().filter(|seen| rules::of(&seen.finding.rule).waits);
    for seen in waiting.take(LOOK_BACK_MAX) {
        let Some(name) = topic::name(&seen.finding.subject) else { continue };
        let Some(followed) = first_flow(connection, seen, &name)? else { continue };
        let key = super::book::alert_key(seen);
        let part = (seen.finding.rule.clone(), seen.finding.subject.clone());
        for alert in book.all_mut().filter(|alert| alert.key == key) {
            alert.follow(&part, followed.clone());
        }
    }
    Ok(())
}

fn first_flow(
    connection: &Connection,
    seen: &Seen,
    name: &Name,
) -> Result<Option<Followed>, StoreError> {
    let Some(client) = seen.finding.client else { return Ok(None) };
    let (from, to) = (seen.time.minus(SLACK), seen.time.plus(FOLLOWS_WITHIN));
    let within_ms = u64::try_from(FOLLOWS_WITHIN.as_millis()).unwrap_or(u64::MAX);
    let sql = "SELECT epoch_us(coalesce(start, time)), dst, dport, name_age_ms FROM flows_hot
         WHERE time >= make_timestamp(?) AND coalesce(start, time) BETWEEN make_timestamp(?) AND make_timestamp(?)
             AND (src = ? OR mac = ?) AND replied AND (name = ? OR ends_with(name, ?))
             AND name_age_ms <= ?
         ORDER BY 1, dst, dport LIMIT 1";
    let mut statement = connection.prepare(sql)?;
    let (from, to) = (from.micros(), to.micros());
    let below = format!(".{name}");
    let mac = seen.mac.map(|mac| mac.to_string());
    let params = params![from, from, to, client.to_string(), mac, name.as_str(), below, within_ms];
    let mut rows = statement.query(params)?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let port: u16 = row.get(2)?;
    let text = sentence(&row.get::<_, String>(1)?, (port != 0).then_some(port), row.get(3)?);
    Ok(Some(Followed { at: Timestamp::from_micros(row.get(0)?), text }))
}
