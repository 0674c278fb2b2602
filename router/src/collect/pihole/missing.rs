//! What the log did not show, until it is found in the long-term database.
//!
//! In: spans in which lines are missing, the events that were told, pages of queries. Out:
//! events that nobody told yet. Pure; time is an argument; part of the checkpoint.
//!
//! The log's lines and the database's rows have no number in common. A row and an event are
//! the same question when client, name and type are equal and the times are at most
//! [`SLACK`] apart; each event stands for one row. So a span is looked up a little wider than
//! it is, and what was told already is recognised.
//!
//! A question whose answer may stand in a missing line is held instead of told as unanswered,
//! and completed from its row.
//!
//! Invariants: every held event comes out, completed or as it was; a row comes out at most
//! once; at most [`SPANS_MAX`] spans, [`RECENT_MAX`] events remembered, [`HELD_MAX`] held.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use agentmon_core::Event;
use agentmon_core::event::{Body, Dns, DnsStatus};
use agentmon_core::time::{Mono, Timestamp};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use super::answer::{QueryPage, Record};

/// Most spans that wait to be looked up.
pub(super) const SPANS_MAX: usize = 16;
/// Most told events remembered, 24 bytes each.
pub(super) const RECENT_MAX: usize = 8_192;
/// Most of them kept over a restart.
const RECENT_SAVED_MAX: usize = 512;
/// Most unanswered questions held.
pub(super) const HELD_MAX: usize = 512;
/// The database dates a question when it comes in, the log when its line is written.
pub(super) const SLACK: Duration = Duration::from_secs(1);
/// A question may be this much older than the missing line that answers it.
const LOOK_BACK: Duration = Duration::from_secs(6);
/// By then all questions read before were told, and FTL has stored the rows.
pub(super) const SETTLE: Duration = Duration::from_secs(8);
/// Spans that follow each other closely become one, up to this length.
const MERGED_MAX: Duration = Duration::from_secs(60);
/// What FTL keeps in memory (`webserver.api.maxHistory`, `database.maxHistory`); the part of
/// a longer span that lies before is given up.
pub(super) const SPAN_MAX: Duration = Duration::from_secs(24 * 3_600);

/// A span of the log, by the Pi-hole's clock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Span {
    pub(super) from: Timestamp,
    pub(super) until: Timestamp,
    /// Missing lines, where they can be counted.
    pub(super) lines: u64,
    /// Rows up to this number are still to be looked at; `None`: all.
    #[serde(default)]
    cursor: Option<u64>,
    /// Unanswered questions around it.
    #[serde(default)]
    held: Vec<(Timestamp, Dns)>,
    /// Failed attempts.
    #[serde(skip)]
    tries: u32,
    #[serde(skip)]
    due: Option<Mono>,
}

/// What to ask for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Wanted {
    pub(super) from: f64,
    pub(super) until: f64,
    pub(super) cursor: Option<u64>,
}

/// A told event.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Told {
    time: Timestamp,
    key: u64,
    /// Its row was met in the span that is being looked up.
    met: bool,
}

/// See the module's text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Missing {
    spans: VecDeque<Span>,
    recent: VecDeque<Told>,
    #[serde(skip)]
    pub(super) forgotten: u64,
}

impl Missing {
    /// Spans that wait.
    pub(super) fn spans(&self) -> usize {
        self.spans.len()
    }

    /// Lines are missing between two times. A span that is given up for it is returned.
    pub(super) fn note(&mut self, from: Timestamp, until: Timestamp, lines: u64) -> Option<Span> {
        let until = until.max(from);
        let from = from.max(until.minus(SPAN_MAX));
        if let Some(last) = self.spans.back_mut()
            && last.cursor.is_none()
            && from >= last.from
            && from <= last.until.plus(SLACK + LOOK_BACK)
            && until.since(last.from) <= MERGED_MAX
        {
            last.until = last.until.max(until);
            last.lines = last.lines.saturating_add(lines);
            last.due = None;
            return None;
        }
        let given_up = if self.spans.len() >= SPANS_MAX { self.spans.pop_front() } else { None };
        let (cursor, held, tries, due) = (None, Vec::new(), 0, None);
        self.spans.push_back(Span { from, until, lines, cursor, held, tries, due });
        given_up
    }

    /// Passes an event on, or holds it back.
    pub(super) fn tell(&mut self, event: Event) -> Option<Event> {
        let Body::Dns(dns) = &event.body else { return Some(event) };
        self.remember(event.time, key_of(dns), false);
        let time = event.time;
        if !is_open(dns) {
            return Some(event);
        }
        let held: usize = self.spans.iter().map(|span| span.held.len()).sum();
        let near =
            |span: &&mut Span| time >= span.from.minus(LOOK_BACK) && time <= span.until.plus(SLACK);
        match (self.spans.iter_mut().find(near), event.body) {
            (Some(span), Body::Dns(dns)) if held < HELD_MAX => {
                span.held.push((time, dns));
                None
            }
            (_, body) => Some(Event { time, body }),
        }
    }

    fn remember(&mut self, time: Timestamp, key: u64, met: bool) {
        if self.recent.len() >= RECENT_MAX {
            self.recent.pop_front();
            self.forgotten += 1;
        }
        self.recent.push_back(Told { time, key, met });
    }

    /// Until when what is asked for next may have been read.
    pub(super) fn until(&self) -> Option<Timestamp> {
        self.spans.front().map(|span| span.until.plus(SLACK + SLACK))
    }

    /// What to ask for now, if anything.
    pub(super) fn wanted(&mut self, now: Mono) -> Option<Wanted> {
        let span = self.spans.front_mut()?;
        if *span.due.get_or_insert(now.plus(SETTLE)) > now {
            return None;
        }
        let (from, until) = (span.from.minus(LOOK_BACK), span.until.plus(SLACK));
        Some(Wanted { from: seconds(from), until: seconds(until), cursor: span.cursor })
    }

    /// A page of what was wanted; true when the span is done. `full` pages have more behind
    /// them.
    pub(super) fn page(&mut self, page: QueryPage, full: bool, out: &mut Vec<Event>) -> bool {
        for record in page.records {
            self.row(record, out);
        }
        let Some(span) = self.spans.front_mut() else { return true };
        let next = page.oldest_id.and_then(|id| id.checked_sub(1));
        match next.filter(|id| full && span.cursor.is_none_or(|before| *id < before)) {
            Some(next) => {
                span.cursor = Some(next);
                false
            }
            None => {
                drop(self.close(out));
                true
            }
        }
    }

    /// One row of the database.
    fn row(&mut self, record: Record, out: &mut Vec<Event>) {
        let key = key_of(&record.dns);
        let same = self
            .recent
            .iter_mut()
            .filter(|told| told.key == key && !told.met && record.time.distance(told.time) <= SLACK)
            .min_by_key(|told| record.time.distance(told.time));
        let Some(told) = same else {
            // Spans close by see this row too.
            self.remember(record.time, key, true);
            out.push(Event { time: record.time, body: Body::Dns(record.dns) });
            return;
        };
        told.met = true;
        let time = told.time;
        let Some(span) = self.spans.front_mut() else { return };
        let held = span.held.iter().position(|(at, dns)| *at == time && key_of(dns) == key);
        if let Some((time, dns)) = held.map(|i| span.held.swap_remove(i)) {
            out.push(Event { time, body: Body::Dns(completed(dns, record.dns)) });
        }
    }

    /// The attempt failed; after the last one the span is given up and returned.
    pub(super) fn failed(
        &mut self,
        now: Mono,
        pause: Duration,
        most: u32,
        out: &mut Vec<Event>,
    ) -> Option<Span> {
        let span = self.spans.front_mut()?;
        span.tries += 1;
        span.due = Some(now.plus(pause));
        if span.tries < most { None } else { self.close(out) }
    }

    /// Ends the first span; what it still holds goes out as it is.
    fn close(&mut self, out: &mut Vec<Event>) -> Option<Span> {
        let mut span = self.spans.pop_front()?;
        for told in &mut self.recent {
            told.met = false;
        }
        out.extend(release(&mut span));
        Some(span)
    }

    /// Forgets what no span can need any more; `last` is the time of the newest line.
    pub(super) fn forget(&mut self, last: Timestamp) {
        let oldest = self.spans.iter().map(|span| span.from).min().unwrap_or(last).min(last);
        let horizon = oldest.minus(LOOK_BACK + SLACK + SLACK);
        let far = last.plus(SPAN_MAX);
        self.recent.retain(|told| told.time >= horizon && told.time <= far);
    }

    /// What is kept over a restart.
    pub(super) fn saved(&self) -> Self {
        let skip = self.recent.len().saturating_sub(RECENT_SAVED_MAX);
        Self {
            spans: self.spans.clone(),
            recent: self.recent.iter().skip(skip).copied().collect(),
            forgotten: 0,
        }
    }
}

/// The events a span still holds.
pub(super) fn release(span: &mut Span) -> impl Iterator<Item = Event> + '_ {
    span.held.drain(..).map(|(time, dns)| Event { time, body: Body::Dns(dns) })
}

/// Asked, and no answer known.
fn is_open(dns: &Dns) -> bool {
    let unanswered = matches!(dns.status, DnsStatus::Unknown | DnsStatus::Timeout);
    unanswered && dns.rcode.is_none() && dns.answers.is_empty()
}

/// What the log knew, and what the database knows of the rest.
fn completed(log: Dns, row: Dns) -> Dns {
    Dns {
        status: if row.status == DnsStatus::Unknown { log.status } else { row.status },
        rcode: row.rcode,
        upstream: log.upstream.or(row.upstream),
        latency_us: row.latency_us,
        blocked_by: row.blocked_by,
        ..log
    }
}

fn seconds(t: Timestamp) -> f64 {
    t.micros() as f64 / 1e6
}

/// Client, type and name, case aside. A type that the one side does not know is no
/// difference: both then say 0, or the question is told twice, which is less than lost.
fn key_of(dns: &Dns) -> u64 {
    let mut hash = Xxh3::new();
    match dns.client {
        IpAddr::V4(ip) => hash.update(&ip.octets()),
        IpAddr::V6(ip) => hash.update(&ip.octets()),
    }
    hash.update(&dns.qtype.to_be_bytes());
    hash.update(dns.name.as_str().to_ascii_lowercase().as_bytes());
    hash.digest()
}

#[cfg(test)]
#[path = "missing_tests.rs"]
mod tests;
