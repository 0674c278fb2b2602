//! DNS queries and answers from the log file of dnsmasq or Pi-hole.
//!
//! In: a file or a FIFO that dnsmasq writes (`log-queries` or better `log-queries=extra`, and
//! `log-facility=FILE`; see [`fifo`] for what speaks against the latter), Pi-hole's `pihole.log`, or a syslog file that holds such lines.
//! Out: one DNS event per question, devices from DHCP lines, gaps. One thread per file;
//! memory about 0.5 MB; under 1.5 us per line.
//!
//! The data path: [`crate::tail`] (whole lines, once each) -> [`prefix`] (time, program)
//! -> [`line`] (what it says) -> [`join`] (lines to exchanges). [`Reader`] is the last
//! three together, without I/O.
//!
//! Invariants:
//! - every line takes part in exactly one committed delivery: the checkpoint holds the
//!   place in the file *and* the questions still open there, and travels with the events;
//! - nothing is dropped without a counter (`dnsmasq_log.*`, `drop.tail.*`, `tail.*`).

pub mod config;
mod counted;
pub mod dhcp;
pub(in crate::collect) mod exchange;
mod fifo;
pub mod join;
mod leader;
pub mod line;
mod notice;
pub mod prefix;
pub mod reader;
mod run;
mod source;
mod tag;
mod types;
pub mod value;

use std::path::{Path, PathBuf};
use std::time::Duration;

use agentmon_core::Event;
use agentmon_core::time::{Mono, Timestamp};
use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::{Checkpoint, Closed, Collector, Context, DELIVERY_EVENTS_MAX, Delivery};
use crate::counters::Counters;
use crate::localtime::Zone;
use crate::ratelimit::LogLimit;
use crate::tail::position::Position;
use crate::tail::{Counts as TailCounts, Follower, Step};

pub use self::config::{Config, PATHS_MAX};
pub(in crate::collect) use self::counted::Counted;
pub(crate) use self::exchange::{SOURCE, name_of};
pub use self::reader::{ReadCounts, Reader, State};
pub use self::types::number_of as record_type;

/// A checkpoint without events (lines that say nothing) is committed this often.
const QUIET_COMMIT_SECONDS: u64 = 5;
/// A log whose new lines are dated this far from now is in another zone than we think.
const SKEW_MAX: Duration = Duration::from_secs(600);
/// Lines read between two looks at the clock and at the wish to stop.
const LINES_PER_LOOK: usize = 512;
/// Room kept free in a delivery: one line may end all open exchanges.
const DELIVERY_MARGIN: usize = join::EXCHANGES_MAX;

/// What is committed with the events.
#[derive(Serialize, Deserialize)]
struct Saved {
    position: Position,
    reader: State,
}

/// The collector of one file.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    config: Config,
    zone: Zone,
    follower: Follower,
    reader: Reader,
    /// Events whose lines lie before the follower's position, not delivered yet.
    events: Vec<Event>,
    /// The position delivered last.
    delivered: Option<Position>,
    restore_failed: bool,
    counted: Option<Counted>,
    log_limit: LogLimit,
    /// How far the log's clock was from ours when a line came in, and whether ahead.
    skew: Option<(Duration, bool)>,
}

impl Source {
    /// For the one file of `config` (see [`Config::each`]). Nothing is opened yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let path = config.paths.first().cloned().unwrap_or_default();
        let zone = Zone::of(&config.timezone);
        Self {
            follower: Follower::new(&path, config.from_start),
            reader: Reader::new(zone.clone()),
            path,
            config,
            zone,
            events: Vec::new(),
            delivered: None,
            restore_failed: false,
            counted: None,
            log_limit: LogLimit::default(),
            skew: None,
        }
    }

    /// Reads up to the end of the file, and delivers.
    fn read_all(&mut self, context: &Context) -> anyhow::Result<Ended> {
        let mut now = context.clock.wall();
        let mut until_look = LINES_PER_LOOK;
        loop {
            let step = self.follower.step();
            match step.with_context(|| reading(&self.path))? {
                Step::Line(line) => self.reader.line(line, now, &mut self.events),
                Step::Loss(loss) => {
                    let from = Timestamp::from_nanos(loss.since_ns);
                    self.events.push(reader::gap(from, loss.reason, None));
                }
                Step::Idle => return Ok(Ended::AtEnd),
            }
            until_look -= 1;
            let full = self.events.len() + DELIVERY_MARGIN >= DELIVERY_EVENTS_MAX;
            if full && self.deliver(context).is_err() {
                return Ok(Ended::Stopped);
            }
            if until_look == 0 {
                until_look = LINES_PER_LOOK;
                now = context.clock.wall();
                if context.stop.is_set() {
                    return Ok(Ended::Stopped);
                }
            }
        }
    }

    /// Hands over all events with the place to go on from.
    fn deliver(&mut self, context: &Context) -> Result<(), Closed> {
        self.count(&context.counters);
        let position = self.follower.position();
        let checkpoint = position.clone().and_then(|position| self.checkpoint(position));
        let events = std::mem::take(&mut self.events);
        self.delivered = position;
        context.outbox.send(Delivery { events, checkpoint })
    }

    fn checkpoint(&self, position: Position) -> Option<Checkpoint> {
        let saved = Saved { position, reader: self.reader.state() };
        // Maps with text keys and plain numbers only: this cannot fail.
        let value = serde_json::to_vec(&saved).ok()?;
        Some(Checkpoint { key: self.key(), value })
    }

    fn key(&self) -> String {
        format!("{}:{}", exchange::SOURCE, self.path.display())
    }

    fn count(&mut self, counters: &Counters) {
        self.count_with(counters, self.follower.counts());
    }

    fn count_with(&mut self, counters: &Counters, tail: TailCounts) {
        let counted = self.counted.get_or_insert_with(|| Counted::new(counters));
        counted.update(self.reader.counts(), tail);
    }

    fn skew_now(&self, context: &Context) -> Option<(Duration, bool)> {
        let (last, now) = (self.reader.last()?, context.clock.wall());
        Some((last.distance(now), last > now))
    }

    fn say_unknown(&mut self, now: Mono) {
        if let Some(line) = self.reader.take_unknown()
            && let Some(more) = self.log_limit.allow("unknown-line", now)
        {
            tracing::info!("{}: not understood: {line}{more}", self.path.display());
        }
    }

    fn say_state(&self, context: &Context) {
        let path = self.path.display();
        let counts = self.reader.counts();
        context.state.set(if !self.follower.is_open() {
            format!(
                "{path} is not there: set log-facility={path} and log-queries=extra in dnsmasq, \
                 or switch Pi-hole's query logging on (pihole logging on)"
            )
        } else if counts.lines > 100 && counts.queries == 0 {
            format!("{path} holds no queries: set log-queries=extra in dnsmasq")
        } else if let Some((skew, ahead)) = self.skew.filter(|(skew, _)| *skew > SKEW_MAX) {
            let (minutes, side) = (skew.as_secs() / 60, if ahead { "ahead" } else { "behind" });
            format!(
                "{path}: its clock is {minutes} min {side}: set timezone, or its machine's clock"
            )
        } else {
            format!("ok: {path}, {} questions waiting", self.reader.waiting())
        });
    }
}

enum Ended {
    AtEnd,
    Stopped,
}

fn reading(path: &Path) -> String {
    format!("reading the DNS log {} (is it readable for this user?)", path.display())
}

impl Collector for Source {
    fn name(&self) -> &str {
        exchange::SOURCE
    }

    fn checkpoint_key(&self) -> Option<String> {
        Some(self.key())
    }

    fn restore(&mut self, value: &[u8]) {
        match serde_json::from_slice::<Saved>(value) {
            Ok(saved) => {
                self.delivered = Some(saved.position.clone());
                self.follower = Follower::resume(&self.path, saved.position);
                self.reader = Reader::resume(self.zone.clone(), saved.reader);
            }
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error,
                    "unreadable checkpoint of the DNS log: going on at the log's end");
                self.restore_failed = true;
            }
        }
    }

    fn run(&mut self, context: &Context) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.config.paths.len() == 1,
            "one collector reads one log file, not {}",
            self.config.paths.len()
        );
        if std::mem::take(&mut self.restore_failed) {
            context.counters.counter("dnsmasq_log.bad_checkpoint").inc();
        }
        if fifo::is_fifo(&self.path) {
            return self.run_fifo(context);
        }
        let mut last_line: Mono = context.clock.mono();
        let mut last_commit = last_line;
        let mut lines = self.reader.counts().lines;
        // Lines of the first look may be old.
        let mut live = false;
        loop {
            let ended = self.read_all(context);
            if ended.is_err() {
                // The next run opens the file anew, at the same place.
                if let Some(position) = self.follower.position() {
                    self.follower = Follower::resume(&self.path, position);
                }
            }
            let stopped = matches!(ended?, Ended::Stopped) || context.stop.is_set();
            let now = context.clock.mono();
            if lines != self.reader.counts().lines {
                lines = self.reader.counts().lines;
                last_line = now;
                self.skew = self.skew_now(context).filter(|_| live);
                self.say_unknown(now);
            }
            live = true;
            self.reader.idle(now.since(last_line), &mut self.events);
            let moved = self.delivered != self.follower.position();
            // The very first place at once: without it a restart would skip what came since.
            let due = self.delivered.is_none()
                || now.since(last_commit) >= Duration::from_secs(QUIET_COMMIT_SECONDS);
            if !self.events.is_empty() || (moved && (due || stopped)) {
                last_commit = now;
                if self.deliver(context).is_err() {
                    return Ok(());
                }
            }
            self.count(&context.counters);
            self.say_state(context);
            context.state.caught_up();
            if stopped || context.stop.sleep(Duration::from_millis(self.config.poll_ms)) {
                return self.last_words(context);
            }
        }
    }
}

impl Source {
    /// Asked to stop: what was read is handed over; open questions go with the checkpoint.
    fn last_words(&mut self, context: &Context) -> anyhow::Result<()> {
        if self.delivered != self.follower.position() || !self.events.is_empty() {
            // A pipeline that is gone already commits nothing, and nothing is lost: the
            // lines are read again after the restart.
            let _closed = self.deliver(context);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
