//! History from Pi-hole's long-term database (`pihole-FTL.db`), of any version.
//!
//! In: the file, of a Pi-hole that runs or a copy of it, as [`Database`] reads it. Out: wire
//! batches, as for a log ([`super`]). Runs in the command line's process; memory bounded by
//! [`CHUNK_ROWS`] rows.
//!
//! Exactly once: a stream is named after the time at which the file was begun, and the sequence
//! number is the row's own id, which FTL never uses twice; rows that FTL has deleted since
//! change nothing. Version 1 does not say when it was begun, and the upgrade to version 2 gives
//! its own time for it. So rows from before that time are told apart, in an upgraded file as in
//! one that still is of version 1: each of their days is a stream, named after its first row.
//! An import before and one after the upgrade agree, and of a file that lost its oldest rows at
//! most one day, the one that lost some, is stored again. The network table is a stream of its
//! own, named after what it says: the same table again changes nothing.

use agentmon_core::event::Body;
use agentmon_core::tier0::blocklist::Blocklist;
use agentmon_core::tier0::{Engine, Tier0Config};
use agentmon_core::{Event, Timestamp, wire};
use anyhow::bail;

use super::{Send, Span, Stream, epoch};

pub use agentmon_router::collect::pihole_ftl::database::{Database, VERSION_KNOWN, newer};

/// Rows read at a time: a tenth of a second.
pub const CHUNK_ROWS: usize = 20_000;
/// Findings are numbered within blocks of so many rows.
const BLOCK_ROWS: u64 = 16_384;
/// Most findings of a block; a row makes at most a handful.
const BLOCK_FINDINGS: u64 = 1 << 20;

/// What an import did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Version of the database.
    pub version: i64,
    /// Rows read.
    pub rows: u64,
    /// Rows that made no sense.
    pub bad: u64,
    /// Rows in which the Pi-hole hides names or clients (privacy level).
    pub hidden: u64,
    /// Rows too young to be final: left for the next import.
    pub waiting: u64,
    /// Addresses of devices read.
    pub devices: u64,
    /// Events outside the wanted times.
    pub passed: u64,
    /// Events that the store did not have yet.
    pub new_events: u64,
    /// Findings that the store did not have yet.
    pub new_findings: u64,
}

/// Sends all rows, oldest first, then the devices. `progress` is told the id reached.
///
/// # Errors
/// When the file cannot be read, or `send` fails; what was sent stays, and the next import
/// goes on behind it.
pub fn pihole_ftl(
    database: &Database,
    now: Timestamp,
    config: &Tier0Config,
    lists: (Blocklist, &str),
    span: Span,
    progress: &dyn Fn(i64),
    send: Send<'_>,
) -> anyhow::Result<Summary> {
    let mut streams = Streams::new(database, Engine::new(config, lists.0), lists.1, span);
    let mut summary = Summary { version: database.version(), ..Summary::default() };
    let mut after = 0;
    loop {
        let chunk = database.chunk(after, CHUNK_ROWS, now)?;
        summary.rows += chunk.rows.len() as u64 + chunk.bad;
        summary.bad += chunk.bad;
        summary.hidden += chunk.hidden;
        summary.waiting += chunk.waiting;
        for (id, event) in chunk.rows {
            streams.take(id, event, send, &mut summary)?;
        }
        let unreadable = summary.rows > 0 && summary.rows == summary.bad;
        if unreadable && summary.version > VERSION_KNOWN {
            bail!("none of its rows makes sense: {}", newer(summary.version));
        }
        if !chunk.more {
            break;
        }
        after = chunk.last;
        progress(after);
    }
    summary.new_events += streams.events.flush(send)?;
    summary.new_findings += streams.findings.flush(send)?;
    summary.passed = streams.passed + streams.events.passed;
    devices(database, send, &mut summary)?;
    Ok(summary)
}

fn devices(database: &Database, send: Send<'_>, summary: &mut Summary) -> anyhow::Result<()> {
    let found = database.devices()?;
    let encoded: Vec<u8> = found.iter().flat_map(wire::encode_event).collect();
    let identity = database.identity().as_bytes();
    let mut stream = Stream::new(epoch(&[b"ftl-devices", identity, &encoded]), Span::default());
    summary.devices = found.len() as u64;
    for event in &found {
        summary.new_events += stream.push(event, send)?;
    }
    summary.new_events += stream.flush(send)?;
    Ok(())
}

/// The streams of events, and of findings by these lists.
fn named(identity: &[u8], lists: &str, span: Span) -> (Stream, Stream) {
    let findings = epoch(&[b"ftl-findings", identity, lists.as_bytes()]);
    (Stream::new(epoch(&[b"ftl-events", identity]), span), Stream::new(findings, span))
}

struct Streams {
    events: Stream,
    findings: Stream,
    engine: Engine,
    /// Which lists judged.
    lists: String,
    /// What names the file, and the second from which on it names its rows.
    file: (String, Option<i64>),
    /// The day, while rows are of before that second.
    day: Option<i64>,
    /// Events of which times.
    span: Span,
    /// Events outside it, in streams that are done with.
    passed: u64,
    /// The block of rows, and findings in it so far.
    block: (u64, u64),
}

impl Streams {
    fn new(database: &Database, engine: Engine, lists: &str, span: Span) -> Self {
        let (events, findings) = named(database.identity().as_bytes(), lists, span);
        let file = (database.identity().to_owned(), database.begun());
        let lists = lists.to_owned();
        Self { events, findings, engine, lists, file, day: None, span, passed: 0, block: (0, 0) }
    }

    /// Goes to the stream of a row: the file's, or in rows of version 1 its day's.
    fn turn(
        &mut self,
        (id, time): (u64, Timestamp),
        send: Send<'_>,
        summary: &mut Summary,
    ) -> anyhow::Result<()> {
        let (identity, begun) = &self.file;
        let old = begun.is_none_or(|begun| time.secs() < begun);
        let day = old.then(|| time.secs().div_euclid(86_400));
        if self.day == day {
            return Ok(());
        }
        summary.new_events += self.events.flush(send)?;
        summary.new_findings += self.findings.flush(send)?;
        self.passed += self.events.passed;
        let name = match day {
            Some(day) => format!("day {day} first {id} {}", time.secs()),
            None => identity.clone(),
        };
        (self.events, self.findings) = named(name.as_bytes(), &self.lists, self.span);
        self.day = day;
        Ok(())
    }

    fn take(
        &mut self,
        id: u64,
        mut event: Event,
        send: Send<'_>,
        summary: &mut Summary,
    ) -> anyhow::Result<()> {
        self.turn((id, event.time), send, summary)?;
        let mut found = Vec::new();
        self.engine.on_event(&mut event, &mut found);
        summary.new_events += self.events.push_at(id, &event, send)?;
        if id / BLOCK_ROWS != self.block.0 {
            self.block = (id / BLOCK_ROWS, 0);
        }
        for found in found {
            self.block.1 += 1;
            let seq = self.block.0 * BLOCK_FINDINGS + self.block.1;
            let event = Event { time: found.time, body: Body::Finding(found.finding) };
            summary.new_findings += self.findings.push_at(seq, &event, send)?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "ftl_tests.rs"]
mod tests;
