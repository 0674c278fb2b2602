//! DNS queries and answers from the log file of dnsmasq or Pi-hole.
//!
//! In: a file that dnsmasq writes (`log-queries` or better `log-queries=extra`, and
//! `log-facility=FILE`), Pi-hole's `pihole.log`, or a syslog file that holds such lines.
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

pub mod dhcp;
mod exchange;
pub mod join;
pub mod line;
pub mod prefix;
pub mod reader;
mod run;
mod types;

use std::path::{Path, PathBuf};
use std::time::Duration;

use agentmon_core::Event;
use agentmon_core::time::{Mono, Timestamp};
use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::{Checkpoint, Closed, Collector, Context, DELIVERY_EVENTS_MAX, Delivery};
use crate::counters::{Counter, Counters};
use crate::localtime::{Zone, ZoneSetting};
use crate::ratelimit::LogLimit;
use crate::tail::position::Position;
use crate::tail::{Counts as TailCounts, Follower, Step};

pub use self::reader::{ReadCounts, Reader, State};

/// Most log files.
pub const PATHS_MAX: usize = 16;
/// A checkpoint without events (lines that say nothing) is committed this often.
const QUIET_COMMIT_SECONDS: u64 = 5;
/// A log whose new lines are dated this far from now is in another zone than we think.
const SKEW_MAX: Duration = Duration::from_secs(600);
/// Lines read between two looks at the clock and at the wish to stop.
const LINES_PER_LOOK: usize = 512;
/// Room kept free in a delivery: one line may end all open exchanges.
const DELIVERY_MARGIN: usize = join::EXCHANGES_MAX;

/// Settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether this collector runs.
    pub enabled: bool,
    /// The log files, each read on a thread of its own.
    pub paths: Vec<PathBuf>,
    /// The zone of dates in the log: "local", "utc", "+02:00", or a POSIX TZ string.
    pub timezone: ZoneSetting,
    /// At the very first start, read what the file holds already (false: only what is added).
    pub from_start: bool,
    /// How often to look for new lines, in milliseconds (50 to 10000).
    pub poll_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: false,
            paths: vec![PathBuf::from("/var/log/pihole/pihole.log")],
            timezone: ZoneSetting::Local,
            from_start: false,
            poll_ms: 200,
        }
    }
}

impl Config {
    /// The same settings for each file alone: a collector reads one.
    pub fn each(&self) -> impl Iterator<Item = Self> + '_ {
        self.paths.iter().map(|path| Self { paths: vec![path.clone()], ..self.clone() })
    }

    /// Whether the values make sense together.
    ///
    /// # Errors
    /// The key, and what is wrong with its value.
    pub fn validate(&self) -> Result<(), (&'static str, String)> {
        let paths = |problem: String| Err(("paths", problem));
        if self.enabled && self.paths.is_empty() {
            return paths("name at least one log file, or set enabled = false".into());
        }
        if self.paths.len() > PATHS_MAX {
            return paths(format!("want at most {PATHS_MAX} log files, not {}", self.paths.len()));
        }
        for (i, path) in self.paths.iter().enumerate() {
            if path.file_name().is_none() || !path.is_absolute() {
                return paths(format!("{} is no absolute path of a file", path.display()));
            }
            if self.paths.iter().take(i).any(|other| other == path) {
                return paths(format!("{} stands there twice", path.display()));
            }
        }
        if !(50..=10_000).contains(&self.poll_ms) {
            return Err(("poll_ms", format!("want 50 to 10000, not {}", self.poll_ms)));
        }
        Ok(())
    }
}

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
        let counted = self.counted.get_or_insert_with(|| Counted::new(counters));
        counted.update(self.reader.counts(), self.follower.counts());
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
            let due = now.since(last_commit) >= Duration::from_secs(QUIET_COMMIT_SECONDS);
            if !self.events.is_empty() || (moved && (due || stopped)) {
                last_commit = now;
                if self.deliver(context).is_err() {
                    return Ok(());
                }
            }
            self.count(&context.counters);
            self.say_state(context);
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

/// Carries the totals of this collector over into the shared counters.
#[derive(Debug)]
struct Counted {
    counters: Vec<(Counter, u64)>,
}

impl Counted {
    const NAMES: [&'static str; 19] = [
        "dnsmasq_log.lines",
        "dnsmasq_log.queries",
        "dnsmasq_log.leases",
        "dnsmasq_log.other_program",
        "dnsmasq_log.unknown_line",
        "dnsmasq_log.unknown_source",
        "dnsmasq_log.unknown_type",
        "dnsmasq_log.resolver_overload",
        "drop.dnsmasq_log.lines_lost",
        "dnsmasq_log.exchanges",
        "dnsmasq_log.orphan_answer",
        "dnsmasq_log.evicted",
        "dnsmasq_log.timeout",
        "dnsmasq_log.bad_name",
        "dnsmasq_log.answers_cut",
        "tail.rotated",
        "tail.truncated",
        "tail.lost_rotated",
        "drop.tail.line_too_long",
    ];

    fn new(counters: &Counters) -> Self {
        let counters = Self::NAMES.iter().map(|name| (counters.counter(name), 0)).collect();
        Self { counters }
    }

    fn update(&mut self, read: ReadCounts, tail: TailCounts) {
        let join = read.join;
        let totals = [
            read.lines,
            read.queries,
            read.leases,
            read.other_programs,
            read.unknown_lines,
            read.unknown_sources,
            read.unknown_types,
            read.overloads,
            read.lines_lost,
            join.exchanges,
            join.orphan_answers,
            join.evicted,
            join.timeouts,
            join.bad_names,
            join.answers_cut,
            tail.rotated,
            tail.truncated,
            tail.lost_rotated,
            tail.lines.too_long,
        ];
        for ((counter, seen), total) in self.counters.iter_mut().zip(totals) {
            counter.add(total.saturating_sub(*seen));
            *seen = total;
        }
    }
}

#[cfg(test)]
mod tests;
