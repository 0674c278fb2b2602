//! DNS queries and answers of a Pi-hole (v6) by its REST interface.
//!
//! In: the log of FTL's resolver, line by line (`/api/logs/dnsmasq`), and, for what it did
//! not show in time, rows of the long-term database (`/api/queries`); its network table
//! (`/api/network/devices`). Out: one DNS event per question, devices from DHCP lines and from
//! the table, gaps. One thread; memory about 1 MB.
//!
//! The data path: [`client`] (sessions, TLS by [`trust`]) -> [`answer`] (JSON) -> [`follow`]
//! (which lines are new) -> [`Reader`](crate::collect::dnsmasq_log::Reader) (lines to
//! exchanges, as for a log file) -> [`missing`] (what the lines did not tell).
//!
//! FTL keeps about 500 lines of at most 260 bytes. They are fetched the more often the faster
//! they come; lines that were gone before, questions that were cut short, and the time of a
//! restart of FTL are looked up in the database. It knows no addresses: a question found
//! there has status, kind of answer, upstream and latency.
//!
//! Invariants:
//! - every question is told once: the checkpoint holds the place in the log, the questions
//!   open there and the spans to look up, and travels with the events;
//! - nothing is dropped without a counter (`pihole.*`, `drop.pihole.*`);
//! - the Pi-hole is left alone for as long as it asks for, and its session is ended.

mod answer;
mod client;
pub mod codes;
pub mod config;
mod counted;
mod fill;
mod follow;
mod missing;
mod trust;

use std::time::Duration;

use agentmon_core::Event;
use agentmon_core::event::Body;
use agentmon_core::time::{Mono, Timestamp};
use serde::{Deserialize, Serialize};

use super::dnsmasq_log::{Reader, State as ReaderState, join};
use super::{Checkpoint, Closed, Collector, Context, DELIVERY_EVENTS_MAX, Delivery};
use crate::localtime::Zone;
use crate::ratelimit::LogLimit;

use self::answer::LogPage;
use self::client::{Client, Refusal};
use self::counted::Counted;
use self::follow::{Place, Plan};
use self::missing::Missing;

pub use self::config::Config;

/// What the events of this collector are marked with.
pub(crate) const SOURCE: &str = "pihole";
/// A checkpoint without events (lines that say nothing) is committed this often.
const QUIET_COMMIT: Duration = Duration::from_secs(5);
/// Room kept free in a delivery: one line may end all open exchanges.
const DELIVERY_MARGIN: usize = join::EXCHANGES_MAX;
/// A question of at least this many bytes may have been cut: FTL keeps 255 (since 6.3: 259).
const CUT_BYTES: usize = 255;
/// A Pi-hole whose clock is this far from ours is told to the user.
const SKEW_MAX: Duration = Duration::from_secs(600);
/// No line at all for so long means that nothing is logged.
const SILENCE_MAX: Duration = Duration::from_secs(600);

/// What is committed with the events.
#[derive(Serialize, Deserialize)]
struct Saved {
    place: Place,
    reader: ReaderState,
    missing: Missing,
}

/// The collector of one Pi-hole.
#[derive(Debug)]
pub struct Source {
    config: Config,
    /// In `status` and counters.
    name: String,
    reader: Reader,
    place: Option<Place>,
    missing: Missing,
    /// Events of lines before `place`, not delivered yet.
    events: Vec<Event>,
    delivered: Option<Place>,
    /// The session, between two runs.
    sid: Option<String>,
    /// Not to be asked before, and why.
    resting: Option<(Mono, String)>,
    /// When to ask for the names of devices.
    names_due: Option<Mono>,
    restore_failed: bool,
    counted: Option<Counted>,
    log_limit: LogLimit,
    /// How far the Pi-hole's clock was from ours when a line came in, and whether ahead.
    skew: Option<(Duration, bool)>,
}

impl Source {
    /// For one Pi-hole. Nothing is opened yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            name: config.shown_name(),
            config,
            reader: Reader::new(Zone::utc()),
            place: None,
            missing: Missing::default(),
            events: Vec::new(),
            delivered: None,
            sid: None,
            resting: None,
            names_due: None,
            restore_failed: false,
            counted: None,
            log_limit: LogLimit::default(),
            skew: None,
        }
    }

    fn key(&self) -> String {
        format!("{SOURCE}:{}", self.config.url)
    }

    /// Reads, tells and looks up until asked to stop or until there is no answer.
    fn follow(&mut self, client: &mut Client, context: &Context) -> Result<(), Refusal> {
        let mut looked = context.clock.mono();
        let (mut last_line, mut last_commit) = (looked, looked);
        // Lines of the first look may be old.
        let mut live = false;
        loop {
            let lines = self.look(client, context)?;
            let now = context.clock.mono();
            let elapsed = now.since(looked);
            looked = now;
            if lines > 0 {
                last_line = now;
                self.skew = self.skew_now(context).filter(|_| live);
            }
            live = true;
            self.idle(now.since(last_line));
            self.fill(client, context)?;
            self.names(client, context)?;
            let stopped = context.stop.is_set();
            let due = self.delivered.is_none() || now.since(last_commit) >= QUIET_COMMIT;
            let moved = self.delivered != self.place;
            if !self.events.is_empty() || (moved && (due || stopped)) {
                last_commit = now;
                if self.deliver(context).is_err() {
                    return Ok(());
                }
            }
            self.count(&context.counters);
            self.say_state(context, now.since(last_line));
            if self.missing.spans() == 0 {
                context.state.caught_up();
            }
            let most = Duration::from_millis(self.config.poll_ms);
            let pause = follow::pause(if live { lines } else { 0 }, elapsed, most);
            if stopped || context.stop.sleep(pause) {
                return Ok(());
            }
        }
    }

    /// One page of the log; how many lines were new.
    fn look(&mut self, client: &mut Client, context: &Context) -> Result<u64, Refusal> {
        let mut page = client.log(self.place.map(|place| place.next))?;
        let mut plan = follow::plan(self.place.as_ref(), &page, false);
        if plan == Plan::AskAll {
            page = client.log(None)?;
            plan = follow::plan(self.place.as_ref(), &page, true);
        }
        let wall = context.clock.wall();
        let counted = self.counted(&context.counters);
        counted.bad_elements.add(u64::try_from(page.bad).unwrap_or(u64::MAX));
        match plan {
            Plan::Read { skip, first, lost, restarted } => {
                if restarted {
                    counted.restarts.inc();
                }
                self.note_lost(&page, (lost, restarted), wall);
                let new = u64::try_from(page.lines.len() - skip).unwrap_or(u64::MAX);
                // Closed: the program ends, and the next run goes on at the checkpoint.
                let _closed = self.read(page, skip, first, context);
                Ok(new)
            }
            Plan::Begin | Plan::AskAll => {
                let last = page.lines.iter().rev().find_map(|line| line.time).unwrap_or(wall);
                self.place = Some(Place { pid: page.pid, next: page.next_id, last });
                Ok(0)
            }
        }
    }

    /// Lines are missing somewhere between the last line read and the end of the page: at its
    /// front when they were gone, at its end when they came while the page was made.
    fn note_lost(&mut self, page: &LogPage, (lost, restarted): (u64, bool), wall: Timestamp) {
        let Some(place) = self.place.filter(|_| lost > 0 || restarted) else { return };
        let mut times = page.lines.iter().filter_map(|line| line.time);
        let until = if lost > 0 { times.next_back() } else { times.next() };
        let until = until.unwrap_or(wall);
        if let Some(counted) = &self.counted {
            counted.lost_lines.add(lost);
        }
        self.note_span(place.last, until, lost);
    }

    /// The lines of a page, from `skip` on.
    fn read(
        &mut self,
        page: LogPage,
        skip: usize,
        first: u64,
        context: &Context,
    ) -> Result<(), Closed> {
        let wall = context.clock.wall();
        let mut place =
            Place { pid: page.pid, next: first, last: self.place.map_or(wall, |place| place.last) };
        let mut fresh = Vec::new();
        for line in page.lines.into_iter().skip(skip) {
            let time = line.time.unwrap_or(wall);
            if is_cut(&line.message) {
                self.counted(&context.counters).cut_lines.inc();
                self.note_span(time, time, 1);
            } else {
                self.reader.dated(line.message.as_bytes(), time, &mut fresh);
            }
            place = Place { next: place.next.saturating_add(1), last: time, ..place };
            self.place = Some(place);
            self.tell(&mut fresh);
            if self.events.len() + DELIVERY_MARGIN >= DELIVERY_EVENTS_MAX {
                self.deliver(context)?;
            }
        }
        self.place = Some(Place { next: page.next_id, ..place });
        Ok(())
    }

    /// Nothing was written for `silence`.
    fn idle(&mut self, silence: Duration) {
        let mut fresh = Vec::new();
        self.reader.idle(silence, &mut fresh);
        self.tell(&mut fresh);
        if let Some(place) = self.place {
            self.missing.forget(place.last);
        }
    }

    /// Marks events as ours and hands them on.
    fn tell(&mut self, fresh: &mut Vec<Event>) {
        for mut event in fresh.drain(..) {
            match &mut event.body {
                Body::Dns(dns) => SOURCE.clone_into(&mut dns.source),
                Body::Gap(gap) => SOURCE.clone_into(&mut gap.collector),
                _ => {}
            }
            self.events.extend(self.missing.tell(event));
        }
    }

    /// Hands over all events with the place to go on from.
    fn deliver(&mut self, context: &Context) -> Result<(), Closed> {
        self.count(&context.counters);
        let checkpoint = self.place.and_then(|place| self.checkpoint(place));
        self.delivered = self.place;
        let mut events = std::mem::take(&mut self.events);
        // Only the last piece may carry the place: it is the one that completes it.
        while events.len() > DELIVERY_EVENTS_MAX {
            let rest = events.split_off(DELIVERY_EVENTS_MAX);
            context.outbox.send(Delivery { events, checkpoint: None })?;
            events = rest;
        }
        context.outbox.send(Delivery { events, checkpoint })
    }

    fn checkpoint(&self, place: Place) -> Option<Checkpoint> {
        let saved = Saved { place, reader: self.reader.state(), missing: self.missing.saved() };
        // Maps with text keys and plain numbers only: this cannot fail.
        let value = serde_json::to_vec(&saved).ok()?;
        Some(Checkpoint { key: self.key(), value })
    }

    fn skew_now(&self, context: &Context) -> Option<(Duration, bool)> {
        let (last, now) = (self.reader.last()?, context.clock.wall());
        Some((last.distance(now), last > now))
    }

    fn say_state(&mut self, context: &Context, silence: Duration) {
        if let Some(line) = self.reader.take_unknown()
            && let Some(more) = self.log_limit.allow("unknown-line", context.clock.mono())
        {
            tracing::info!("{}: not understood: {line}{more}", self.config.url);
        }
        let url = &self.config.url;
        let counts = self.reader.counts();
        context.state.set(
            if counts.queries == 0 && (counts.lines > 100 || silence >= SILENCE_MAX) {
                format!("{url} logs no queries: switch query logging on there (pihole logging on)")
            } else if let Some((skew, ahead)) = self.skew.filter(|(skew, _)| *skew > SKEW_MAX) {
                let (minutes, side) = (skew.as_secs() / 60, if ahead { "ahead" } else { "behind" });
                format!("{url}: its clock is {minutes} min {side}: set the clock there, or here")
            } else {
                let spans = match self.missing.spans() {
                    0 => String::new(),
                    n => format!(", {n} gaps being looked up"),
                };
                format!("ok: {url}, {} questions waiting{spans}", self.reader.waiting())
            },
        );
    }

    /// Waits for as long as the Pi-hole, or good manners, ask for; true when asked to stop.
    fn rest(&mut self, context: &Context) -> bool {
        let Some((until, why)) = self.resting.take() else { return context.stop.is_set() };
        loop {
            let left = until.since(context.clock.mono());
            if left.is_zero() || context.stop.is_set() {
                return context.stop.is_set();
            }
            context.state.set(format!("{why}; next attempt in {} s", left.as_secs()));
            if context.stop.sleep(left.min(Duration::from_secs(5))) {
                return true;
            }
        }
    }
}

/// What the decoders make of the body of an answer, whichever it is of: for fuzzing.
#[doc(hidden)]
#[must_use]
pub fn any_answer(body: &[u8]) -> Vec<Event> {
    drop((answer::session(body), answer::error_words(body)));
    let (mut reader, mut events) = (Reader::new(Zone::utc()), Vec::new());
    for line in answer::log_page(body).unwrap_or_default().lines {
        let time = line.time.unwrap_or(Timestamp::EPOCH);
        reader.dated(line.message.as_bytes(), time, &mut events);
    }
    reader.finish(&mut events);
    let rows = answer::query_page(body, SOURCE).unwrap_or_default().records;
    events.extend(rows.into_iter().map(|row| Event { time: row.time, body: Body::Dns(row.dns) }));
    events.extend(answer::devices(body).unwrap_or_default().0);
    events
}

/// A question that FTL may have cut short, so that its client cannot be trusted.
fn is_cut(message: &str) -> bool {
    message.len() >= CUT_BYTES && message.contains("query[")
}

impl Collector for Source {
    fn name(&self) -> &str {
        &self.name
    }

    fn checkpoint_key(&self) -> Option<String> {
        Some(self.key())
    }

    fn restore(&mut self, value: &[u8]) {
        match serde_json::from_slice::<Saved>(value) {
            Ok(saved) => {
                self.place = Some(saved.place);
                self.delivered = self.place;
                self.reader = Reader::resume(Zone::utc(), saved.reader);
                self.missing = saved.missing;
            }
            Err(error) => {
                tracing::warn!(url = %self.config.url, %error,
                    "unreadable checkpoint of the Pi-hole: going on at its log's end");
                self.restore_failed = true;
            }
        }
    }

    fn run(&mut self, context: &Context) -> anyhow::Result<()> {
        if std::mem::take(&mut self.restore_failed) {
            context.counters.counter(&format!("{}.bad_checkpoint", self.name)).inc();
        }
        let stopped = self.rest(context);
        let mut client = Client::new(&self.config, self.sid.take())?;
        let outcome = if stopped { Ok(()) } else { self.follow(&mut client, context) };
        self.counted(&context.counters).logins.add(client.logins);
        if outcome.is_ok() || context.stop.is_set() {
            // What was read is handed over; a pipeline that is gone commits nothing, and
            // nothing is lost: the lines are read again after the restart.
            if self.delivered != self.place || !self.events.is_empty() {
                let _closed = self.deliver(context);
            }
            client.logout();
            return Ok(());
        }
        self.sid = client.into_session();
        if let Err(refusal) = &outcome {
            let now = context.clock.mono();
            let why = refusal.to_string();
            self.resting = refusal.pause().map(|pause| (now.plus(pause), why));
        }
        Ok(outcome?)
    }
}

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
