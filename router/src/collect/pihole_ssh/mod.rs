//! DNS queries and answers of a Pi-hole elsewhere, by SSH: its log, as it grows.
//!
//! In: `pihole.log` there, read by SFTP with the system's `ssh` ([`crate::ssh`]). Out: one DNS
//! event per question, devices from DHCP lines, gaps. One thread, one connection that stays
//! open; memory about 0.5 MB, and what `ssh` takes.
//!
//! The data path: [`Follower`] (whole lines, once each) ->
//! [`Reader`](crate::collect::dnsmasq_log::Reader) (lines to exchanges, as for a log here).
//!
//! Invariants:
//! - every line takes part in exactly one committed delivery: the checkpoint holds the place
//!   in the file and the questions open there, and travels with the events;
//! - a lost connection is an error with its reason; the next run goes on at the same place,
//!   after the supervisor's pause;
//! - nothing is dropped without a counter (those of the log's reader: `dnsmasq_log.*`,
//!   `drop.tail.*`, `tail.*`; and `pihole_ssh.*`).

pub mod config;
pub mod database;

use std::time::Duration;

use agentmon_core::Event;
use agentmon_core::event::Body;
use agentmon_core::time::{Mono, Timestamp};
use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::dnsmasq_log::{Counted, Reader, State as ReaderState, join, reader};
use super::{Checkpoint, Closed, Collector, Context, DELIVERY_EVENTS_MAX, Delivery};
use crate::localtime::Zone;
use crate::ratelimit::LogLimit;
use crate::ssh::{Follower, Handle, Patience, Place, Session, SshError};
use crate::tail::Step;

pub use self::config::Config;

/// What the events of this collector are marked with.
pub(crate) const SOURCE: &str = "pihole-ssh";
/// A checkpoint without events (lines that say nothing) is committed this often.
const QUIET_COMMIT: Duration = Duration::from_secs(5);
/// A log whose new lines are dated this far from now is in another zone than we think.
const SKEW_MAX: Duration = Duration::from_secs(600);
/// Lines read between two looks at the clock and at the wish to stop.
const LINES_PER_LOOK: usize = 512;
/// Room kept free in a delivery: one line may end all open exchanges.
const DELIVERY_MARGIN: usize = join::EXCHANGES_MAX;

/// What is committed with the events.
#[derive(Serialize, Deserialize)]
struct Saved {
    place: Place,
    reader: ReaderState,
}

/// The collector of one Pi-hole's log.
#[derive(Debug)]
pub struct Source {
    config: Config,
    zone: Zone,
    follower: Follower<Handle>,
    reader: Reader,
    /// Events whose lines lie before the follower's place, not delivered yet.
    events: Vec<Event>,
    /// The place delivered last.
    delivered: Option<Place>,
    restore_failed: bool,
    counted: Option<Counted>,
    log_limit: LogLimit,
    /// How far the log's clock was from ours when a line came in, and whether ahead.
    skew: Option<(Duration, bool)>,
}

#[derive(Debug, PartialEq, Eq)]
enum Ended {
    AtEnd,
    Stopped,
}

/// When something happened last.
struct Times {
    line: Mono,
    commit: Mono,
}

impl Source {
    /// For the log of one Pi-hole. Nothing is opened yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let zone = Zone::of(&config.timezone);
        Self {
            follower: Follower::new(&config.log, config.from_start),
            reader: Reader::new(zone.clone()),
            zone,
            config,
            events: Vec::new(),
            delivered: None,
            restore_failed: false,
            counted: None,
            log_limit: LogLimit::default(),
            skew: None,
        }
    }

    fn key(&self) -> String {
        format!("{SOURCE}:{}:{}", self.config.target().shown(), self.config.log)
    }

    /// Follows the log until asked to stop or until it cannot be read.
    fn follow(&mut self, session: &mut Session, context: &Context) -> Result<(), SshError> {
        let now = context.clock.mono();
        let mut times = Times { line: now, commit: now };
        // Lines of the first look may be old.
        let mut live = false;
        loop {
            let lines = self.reader.counts().lines;
            let ended = self.read_all(session, context)?;
            let stopped = ended == Ended::Stopped || context.stop.is_set();
            let now = context.clock.mono();
            if lines != self.reader.counts().lines {
                times.line = now;
                self.skew = self.skew_now(context).filter(|_| live);
                self.say_unknown(now);
            }
            live = true;
            let mut fresh = Vec::new();
            self.reader.idle(now.since(times.line), &mut fresh);
            self.tell(&mut fresh);
            if self.commit(&mut times, stopped, now, context).is_err() {
                return Ok(());
            }
            self.count(context);
            self.say_state(context);
            context.state.caught_up();
            if stopped || context.stop.sleep(Duration::from_millis(self.config.poll_ms)) {
                return Ok(());
            }
        }
    }

    /// Delivers what there is, or the place alone when that is due.
    fn commit(
        &mut self,
        times: &mut Times,
        stopped: bool,
        now: Mono,
        context: &Context,
    ) -> Result<(), Closed> {
        let moved = self.delivered != self.follower.place();
        // The very first place at once: without it a restart would skip what came since.
        let due = self.delivered.is_none() || now.since(times.commit) >= QUIET_COMMIT;
        if self.events.is_empty() && !(moved && (due || stopped)) {
            return Ok(());
        }
        times.commit = now;
        self.deliver(context)
    }

    /// Reads up to the end of the file.
    fn read_all(&mut self, session: &mut Session, context: &Context) -> Result<Ended, SshError> {
        let mut now = context.clock.wall();
        let mut until_look = LINES_PER_LOOK;
        let mut fresh = Vec::new();
        loop {
            match self.follower.step(session)? {
                Step::Line(line) => self.reader.line(line, now, &mut fresh),
                Step::Loss(loss) => {
                    let from = Timestamp::from_nanos(loss.since_ns);
                    fresh.push(reader::gap(from, loss.reason, None));
                }
                Step::Idle => return Ok(Ended::AtEnd),
            }
            self.tell(&mut fresh);
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

    /// Marks events as ours.
    fn tell(&mut self, fresh: &mut Vec<Event>) {
        for event in fresh.iter_mut() {
            match &mut event.body {
                Body::Dns(dns) => SOURCE.clone_into(&mut dns.source),
                Body::Gap(gap) => SOURCE.clone_into(&mut gap.collector),
                _ => {}
            }
        }
        self.events.append(fresh);
    }

    /// Hands over all events with the place to go on from.
    fn deliver(&mut self, context: &Context) -> Result<(), Closed> {
        self.count(context);
        let place = self.follower.place();
        let checkpoint = place.clone().and_then(|place| self.checkpoint(place));
        let events = std::mem::take(&mut self.events);
        self.delivered = place;
        context.outbox.send(Delivery { events, checkpoint })
    }

    fn checkpoint(&self, place: Place) -> Option<Checkpoint> {
        let saved = Saved { place, reader: self.reader.state() };
        // Maps with text keys and plain numbers only: this cannot fail.
        let value = serde_json::to_vec(&saved).ok()?;
        Some(Checkpoint { key: self.key(), value })
    }

    fn count(&mut self, context: &Context) {
        let tail = self.follower.counts();
        let counted = self.counted.get_or_insert_with(|| Counted::new(&context.counters));
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
            tracing::info!("{}: not understood: {line}{more}", self.key());
        }
    }

    fn say_state(&self, context: &Context) {
        let (there, log) = (self.config.target().shown(), &self.config.log);
        let counts = self.reader.counts();
        context.state.set(if !self.follower.is_open() {
            format!("{there} has no {log}: switch query logging on there (pihole logging on)")
        } else if counts.lines > 100 && counts.queries == 0 {
            format!("{there}: {log} holds no queries: switch query logging on there")
        } else if let Some((skew, ahead)) = self.skew.filter(|(skew, _)| *skew > SKEW_MAX) {
            let (minutes, side) = (skew.as_secs() / 60, if ahead { "ahead" } else { "behind" });
            format!("{there}: its clock is {minutes} min {side}: set timezone, or its clock")
        } else {
            format!("ok: {there}, {log}, {} questions waiting", self.reader.waiting())
        });
    }
}

impl Collector for Source {
    fn name(&self) -> &str {
        SOURCE
    }

    fn checkpoint_key(&self) -> Option<String> {
        Some(self.key())
    }

    fn restore(&mut self, value: &[u8]) {
        match serde_json::from_slice::<Saved>(value) {
            Ok(saved) => {
                self.delivered = Some(saved.place.clone());
                self.follower = Follower::resume(&self.config.log, saved.place);
                self.reader = Reader::resume(self.zone.clone(), saved.reader);
            }
            Err(error) => {
                tracing::warn!(log = %self.key(), %error,
                    "unreadable checkpoint of the remote log: going on at its end");
                self.restore_failed = true;
            }
        }
    }

    fn run(&mut self, context: &Context) -> anyhow::Result<()> {
        if std::mem::take(&mut self.restore_failed) {
            context.counters.counter("pihole_ssh.bad_checkpoint").inc();
        }
        let patience = Patience { stop: context.stop.clone(), clock: context.clock.clone() };
        let target = self.config.target();
        let outcome = Session::open(&target, patience).and_then(|mut session| {
            context.counters.counter("pihole_ssh.connections").inc();
            self.follow(&mut session, context)
        });
        // Whatever was open is gone, also when the next run has to begin anew.
        self.follower.disconnected();
        if outcome.is_ok() || matches!(outcome, Err(SshError::Stopped)) {
            // What was read is handed over. A pipeline that is gone commits nothing, and
            // nothing is lost: the lines are read again after the restart.
            if self.delivered != self.follower.place() || !self.events.is_empty() {
                let _closed = self.deliver(context);
            }
            return Ok(());
        }
        outcome.with_context(|| format!("{} by ssh", target.shown()))
    }
}

#[cfg(test)]
mod tests;
