//! DNS queries of a Pi-hole on this machine, from its long-term database, as it grows.
//!
//! In: `pihole-FTL.db` of any version. Out: one DNS event per row (without answers: the
//! database has none), devices from the network table, gaps. One thread; memory below 1 MB.
//!
//! The data path: [`database`] (rows behind the last one read) -> deliveries. FTL writes once
//! a minute and goes on changing rows for a while: an event comes one to two minutes late.
//! The file is opened anew for each look, so that it may be replaced at any time.
//!
//! Invariants:
//! - every row is told once: the checkpoint holds the last row's id and the file's identity,
//!   and travels with the events. A file that was begun anew, or that is older than what was
//!   read, is read from its begin or its end, and told as a gap;
//! - a file that is locked, damaged, half copied or of an unknown version is an error with
//!   its remedy; the supervisor tries again, ever more rarely, and nothing is skipped;
//! - nothing is dropped without a counter (`pihole_ftl.*`, `drop.pihole_ftl.*`).

pub mod config;
pub mod database;

use std::path::Path;
use std::time::Duration;

use agentmon_core::Event;
use agentmon_core::event::{Body, Gap};
use agentmon_core::time::{Mono, Timestamp};
use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::{Checkpoint, Closed, Collector, Context, DELIVERY_EVENTS_MAX, Delivery};

use self::database::{Database, SOURCE};

pub use self::config::Config;

/// What status and counters call it.
const NAME: &str = "pihole-ftl";
/// How often the network table is read: FTL writes it once a minute, names change rarely.
const DEVICES_EVERY: Duration = Duration::from_secs(600);

/// What is committed with the events.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Place {
    /// Which file, and up to which row it was read.
    identity: String,
    after: i64,
    /// Time of that row.
    last: Timestamp,
}

/// The collector of one file.
#[derive(Debug)]
pub struct Source {
    config: Config,
    /// The key of its checkpoints, where the file is a copy made anew each time.
    key: Option<String>,
    place: Option<Place>,
    devices_due: Option<Mono>,
    restore_failed: bool,
}

enum Ended {
    AtEnd,
    Stopped,
}

impl Source {
    /// For one file. Nothing is opened yet.
    #[must_use]
    pub const fn new(config: Config) -> Self {
        Self { config, key: None, place: None, devices_due: None, restore_failed: false }
    }

    /// For copies of one file, whose place is kept under `key`.
    pub(in crate::collect) fn of_copies(config: Config, key: String) -> Self {
        Self { key: Some(key), ..Self::new(config) }
    }

    /// Reads what is new in a copy.
    pub(in crate::collect) fn look_once(
        &mut self,
        path: &Path,
        context: &Context,
    ) -> anyhow::Result<()> {
        path.clone_into(&mut self.config.path);
        self.count_restore(context);
        self.look(context).map(|_| ())
    }

    /// The last row that was read.
    pub(in crate::collect) fn row(&self) -> i64 {
        self.place.as_ref().map_or(0, |place| place.after)
    }

    fn count_restore(&mut self, context: &Context) {
        if std::mem::take(&mut self.restore_failed) {
            context.counters.counter("pihole_ftl.bad_checkpoint").inc();
        }
    }

    fn key(&self) -> String {
        if let Some(key) = &self.key {
            return key.clone();
        }
        format!("{NAME}:{}", self.config.path.display())
    }

    /// Reads what is new.
    fn look(&mut self, context: &Context) -> anyhow::Result<Ended> {
        let database = Database::open(&self.config.path)?;
        if self.begin(&database, context)?.is_err() {
            return Ok(Ended::Stopped);
        }
        loop {
            let now = context.clock.wall();
            let Some(place) = self.place.clone() else { return Ok(Ended::AtEnd) };
            let chunk = database.chunk(place.after, DELIVERY_EVENTS_MAX, now)?;
            let counter = |name: &str| context.counters.counter(name);
            counter("pihole_ftl.rows").add(chunk.rows.len() as u64 + chunk.bad);
            counter("pihole_ftl.hidden").add(chunk.hidden);
            counter("drop.pihole_ftl.bad_row").add(chunk.bad);
            let events: Vec<Event> = chunk.rows.into_iter().map(|(_, event)| event).collect();
            let last = events.last().map_or(place.last, |event| event.time);
            let moved = chunk.last != place.after;
            self.place = Some(Place { after: chunk.last, last, ..place });
            if moved && self.deliver(events, context).is_err() {
                return Ok(Ended::Stopped);
            }
            if context.stop.is_set() {
                return Ok(Ended::Stopped);
            }
            if !chunk.more {
                return self.tell_devices(&database, context);
            }
        }
    }

    /// Where to go on in this file.
    fn begin(
        &mut self,
        database: &Database,
        context: &Context,
    ) -> anyhow::Result<Result<(), Closed>> {
        let identity = database.identity().to_owned();
        let Some(place) = &self.place else {
            let after = if self.config.from_start { 0 } else { database.newest() };
            let last = context.clock.wall();
            self.place = Some(Place { identity, after, last });
            // The very first place at once: without it a restart would skip what came since.
            return Ok(self.deliver(Vec::new(), context));
        };
        let (same, older) = (place.identity == identity, database.newest() < place.after);
        if same && !older {
            return Ok(Ok(()));
        }
        // In version 1 the first row is all that names a file, until it is deleted.
        if !same && !older && database.holds(place.after, place.last)? {
            self.place = Some(Place { identity, ..place.clone() });
            return Ok(self.deliver(Vec::new(), context));
        }
        context.counters.counter("pihole_ftl.begun_anew").inc();
        // Rows of an older copy were read already; those of a new file were not.
        let after = if same { database.newest() } else { 0 };
        let reason = if same { "pihole-database-older" } else { "pihole-database-new" };
        let gap = gap(place.last, reason);
        self.place = Some(Place { identity, after, last: place.last });
        Ok(self.deliver(vec![gap], context))
    }

    fn tell_devices(&mut self, database: &Database, context: &Context) -> anyhow::Result<Ended> {
        let now = context.clock.mono();
        if self.devices_due.is_some_and(|due| now < due) {
            return Ok(Ended::AtEnd);
        }
        self.devices_due = Some(now.plus(DEVICES_EVERY));
        let devices = database.devices()?;
        context.counters.counter("pihole_ftl.devices").add(devices.len() as u64);
        for some in devices.chunks(DELIVERY_EVENTS_MAX) {
            if context.outbox.send(Delivery { events: some.to_vec(), checkpoint: None }).is_err() {
                return Ok(Ended::Stopped);
            }
        }
        Ok(Ended::AtEnd)
    }

    fn deliver(&self, events: Vec<Event>, context: &Context) -> Result<(), Closed> {
        // Texts and numbers only: this cannot fail.
        let value = self.place.as_ref().and_then(|place| serde_json::to_vec(place).ok());
        let checkpoint = value.map(|value| Checkpoint { key: self.key(), value });
        context.outbox.send(Delivery { events, checkpoint })
    }
}

fn gap(from: Timestamp, reason: &str) -> Event {
    let gap = Gap { collector: SOURCE.to_owned(), from, reason: reason.to_owned(), lost: None };
    Event { time: from, body: Body::Gap(gap) }
}

impl Collector for Source {
    fn name(&self) -> &str {
        NAME
    }

    fn checkpoint_key(&self) -> Option<String> {
        Some(self.key())
    }

    fn restore(&mut self, value: &[u8]) {
        match serde_json::from_slice(value) {
            Ok(place) => self.place = Some(place),
            Err(error) => {
                tracing::warn!(path = %self.config.path.display(), %error,
                    "unreadable checkpoint of Pi-hole's database: going on at its end");
                self.restore_failed = true;
            }
        }
    }

    fn run(&mut self, context: &Context) -> anyhow::Result<()> {
        self.count_restore(context);
        loop {
            let ended = self.look(context);
            let path = self.config.path.display();
            let ended = ended.with_context(|| format!("Pi-hole's database {path}"));
            if matches!(ended?, Ended::Stopped) {
                return Ok(());
            }
            let row = self.row();
            context.state.set(format!("ok: {path}, read up to row {row}"));
            context.state.caught_up();
            if context.stop.sleep(Duration::from_secs(self.config.poll_seconds)) {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests;
