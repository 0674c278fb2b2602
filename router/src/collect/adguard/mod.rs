//! DNS queries and answers from the query log of AdGuard Home.
//!
//! In: its file `querylog.json`, one JSON object a line. Out: one DNS event a line, gaps.
//! One thread; memory below 1 MB.
//!
//! AdGuard Home keeps entries in memory and writes them in batches: `size_memory` in the
//! section `querylog` of its configuration says how many (1,000). Events come as late as
//! that; the state line says how late.
//!
//! Invariants: every line takes part in exactly one committed delivery; a line that is no
//! entry is counted (`adguard.bad_entry`) and disturbs nothing.

pub mod decode;

use std::path::PathBuf;
use std::time::Duration;

use agentmon_core::Event;
use agentmon_core::event::{Body, Gap};
use agentmon_core::time::{Mono, Timestamp};
use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::{Checkpoint, Closed, Collector, Context, DELIVERY_EVENTS_MAX, Delivery};
use crate::counters::{Counter, Counters};
use crate::ratelimit::LogLimit;
use crate::tail::position::Position;
use crate::tail::{Follower, Step};

/// This collector's name in its events and checkpoints.
pub(crate) const SOURCE: &str = "adguard";

/// Two DNS messages of 64 KiB in base64, and what stands around them.
const LINE_BYTES_MAX: usize = 192 * 1024;
/// Lines that are no entries move the checkpoint this often.
const QUIET_COMMIT: Duration = Duration::from_secs(5);
/// Entries this late are told in the state line.
const LATE: Duration = Duration::from_secs(60);

/// Settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether this collector runs.
    pub enabled: bool,
    /// The file. AdGuard Home writes it in batches: set `size_memory` in the section
    /// `querylog` of its configuration to 1, or events come late.
    pub path: PathBuf,
    /// At the very first start, read what the file holds already (false: only what is added).
    pub from_start: bool,
    /// How often to look for new lines, in milliseconds (50 to 10000).
    pub poll_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        let path = "/opt/AdGuardHome/data/querylog.json".into();
        Self { enabled: false, path, from_start: false, poll_ms: 500 }
    }
}

impl Config {
    /// Whether the values make sense.
    ///
    /// # Errors
    /// The key, and what is wrong with its value.
    pub fn validate(&self) -> Result<(), (&'static str, String)> {
        if self.path.file_name().is_none() || !self.path.is_absolute() {
            let text = format!("{} is no absolute path of a file", self.path.display());
            return Err(("path", text));
        }
        if !(50..=10_000).contains(&self.poll_ms) {
            return Err(("poll_ms", format!("want 50 to 10000, not {}", self.poll_ms)));
        }
        Ok(())
    }
}

#[derive(Clone, Debug)]
struct Counts {
    entries: Counter,
    bad: Counter,
    imperfect: Counter,
    rotated: Counter,
    lost_rotated: Counter,
    too_long: Counter,
    half_lines: Counter,
}

impl Counts {
    fn new(counters: &Counters) -> Self {
        Self {
            entries: counters.counter("adguard.entries"),
            bad: counters.counter("adguard.bad_entry"),
            imperfect: counters.counter("adguard.imperfect_entry"),
            rotated: counters.counter("tail.rotated"),
            lost_rotated: counters.counter("tail.lost_rotated"),
            too_long: counters.counter("drop.tail.line_too_long"),
            half_lines: counters.counter("drop.tail.half_line"),
        }
    }
}

/// The collector.
#[derive(Debug)]
pub struct Source {
    config: Config,
    follower: Follower,
    /// What the follower had counted when it was carried over last.
    carried: crate::tail::Counts,
    events: Vec<Event>,
    delivered: Option<Position>,
    lines: u64,
    entries: u64,
    /// How late the last entry was read.
    late: Duration,
    log_limit: LogLimit,
}

impl Source {
    /// For this configuration. Nothing is opened yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            follower: Follower::new(&config.path, config.from_start).with_lines(LINE_BYTES_MAX),
            carried: crate::tail::Counts::default(),
            events: Vec::new(),
            delivered: None,
            lines: 0,
            entries: 0,
            late: Duration::ZERO,
            log_limit: LogLimit::default(),
            config,
        }
    }

    /// Reads up to the end of the file, or until asked to stop, and delivers what is many.
    fn read_all(&mut self, context: &Context, counts: &Counts) -> anyhow::Result<()> {
        let (now, mono) = (context.clock.wall(), context.clock.mono());
        while !context.stop.is_set() {
            let path = &self.config.path;
            let step = self.follower.step().with_context(|| {
                format!("reading the query log {} (is it readable for this user?)", path.display())
            })?;
            match step {
                Step::Line(line) => {
                    self.lines += 1;
                    match decode::decode(line, now) {
                        Ok(entry) => {
                            self.entries += 1;
                            counts.entries.inc();
                            counts.imperfect.add(u64::from(entry.imperfect));
                            self.late = now.since(entry.event.time);
                            self.events.push(entry.event);
                        }
                        Err(error) => {
                            counts.bad.inc();
                            if let Some(more) = self.log_limit.allow("bad-entry", mono) {
                                tracing::warn!("{}: an entry is {error}{more}", path.display());
                            }
                        }
                    }
                }
                Step::Loss(loss) => self.events.push(gap(loss.reason, loss.since_ns)),
                Step::Idle => return Ok(()),
            }
            if self.events.len() >= DELIVERY_EVENTS_MAX && self.deliver(context).is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Hands over all events with the place to go on from.
    fn deliver(&mut self, context: &Context) -> Result<(), Closed> {
        self.delivered = self.follower.position();
        // Numbers and short texts only: this cannot fail.
        let value = self.delivered.as_ref().and_then(|at| serde_json::to_vec(at).ok());
        let checkpoint = value.map(|value| Checkpoint { key: self.key(), value });
        let events = std::mem::take(&mut self.events);
        context.outbox.send(Delivery { events, checkpoint })
    }

    fn key(&self) -> String {
        format!("{SOURCE}:{}", self.config.path.display())
    }

    fn carry(&mut self, counts: &Counts) {
        let (now, before) = (self.follower.counts(), self.carried);
        counts.rotated.add(now.rotated - before.rotated);
        counts.lost_rotated.add(now.lost_rotated - before.lost_rotated);
        counts.too_long.add(now.lines.too_long - before.lines.too_long);
        counts.half_lines.add(now.half_lines - before.half_lines);
        self.carried = now;
    }

    fn state(&self) -> String {
        let path = self.config.path.display();
        if !self.follower.is_open() {
            return format!(
                "{path} is not there: switch the query log of AdGuard Home on, with its file"
            );
        }
        if self.lines > 10 && self.entries == 0 {
            return format!("{path} holds no entries of a query log");
        }
        if self.late > LATE {
            return format!(
                "ok: {path}, {} s late: set size_memory in AdGuard Home's querylog to 1",
                self.late.as_secs()
            );
        }
        format!("ok: {path}")
    }
}

fn gap(reason: &str, since_ns: i64) -> Event {
    let from = Timestamp::from_nanos(since_ns);
    let gap = Gap { collector: SOURCE.to_owned(), from, reason: reason.to_owned(), lost: None };
    Event { time: from, body: Body::Gap(gap) }
}

impl Collector for Source {
    fn name(&self) -> &str {
        SOURCE
    }

    fn checkpoint_key(&self) -> Option<String> {
        Some(self.key())
    }

    fn restore(&mut self, value: &[u8]) {
        match serde_json::from_slice::<Position>(value) {
            Ok(position) => {
                self.delivered = Some(position.clone());
                self.follower =
                    Follower::resume(&self.config.path, position).with_lines(LINE_BYTES_MAX);
            }
            Err(error) => tracing::warn!(path = %self.config.path.display(), %error,
                "unreadable checkpoint of the query log: going on at its end"),
        }
    }

    fn run(&mut self, context: &Context) -> anyhow::Result<()> {
        let counts = Counts::new(&context.counters);
        let mut committed: Mono = context.clock.mono();
        loop {
            let read = self.read_all(context, &counts);
            self.carry(&counts);
            read?;
            let stopped = context.stop.is_set();
            let moved = self.delivered != self.follower.position();
            let now = context.clock.mono();
            let due = self.delivered.is_none() || now.since(committed) >= QUIET_COMMIT;
            if !self.events.is_empty() || (moved && (due || stopped)) {
                committed = now;
                if self.deliver(context).is_err() {
                    return Ok(());
                }
            }
            context.state.set(self.state());
            if stopped || context.stop.sleep(Duration::from_millis(self.config.poll_ms)) {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests;
