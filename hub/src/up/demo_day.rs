//! The made-up day on its way through the real path: a file of events for the router's
//! replay collector, and the account of how far it has come.
//!
//! The day is made once per data directory and [`FRESH`]; `demo/day.json` remembers it. An
//! interrupted load goes on where it stopped (the replay's checkpoint), a finished one is
//! not repeated, an old day is followed by a new one.

use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use agentmon_core::Timestamp;
use agentmon_core::event::{Body, FlowPhase};
use agentmon_core::time::{Clock, Mono, SystemClock};
use agentmon_router::status::Status;
use anyhow::Context as _;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::demo;

/// A day that ended this long ago is history; a new one is made.
const FRESH: Duration = Duration::from_secs(6 * 3_600);
/// The pipeline has nothing left when the ring has not grown for so long: it commits what it
/// has at the latest a second after the first event, and the machine may be busy.
const QUIET: Duration = Duration::from_millis(2_500);

/// Commands that show what is in the day, and what each shows.
pub(crate) const TO_TRY: [(&str, &str); 8] = [
    ("alerts", "what tier-0 found in it"),
    ("alert 1", "why, and what happened around it"),
    ("timeline client:garage-camera --since 3h", "a camera that asks for made-up names"),
    ("flows client:agent-box -domain:example --since 2h", "the agent's direct connection"),
    ("firewall client:old-dvr", "a recorder that tries telnet everywhere"),
    ("flows --sort bytes -n 5", "the backup, and an upload that is none"),
    ("dns client:kids-tablet type:TXT -n 5", "a tunnel in TXT queries"),
    ("stats", "who asks and moves how much"),
];

/// What `demo/day.json` remembers.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Note {
    seed: u64,
    end_ns: i64,
    /// Events the store must have before the day is loaded.
    stored: u64,
    loaded: bool,
}

/// How far the day has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Loading,
    Loaded,
}

/// The day, prepared.
#[derive(Debug)]
pub(super) struct DemoDay {
    dir: PathBuf,
    note: Note,
    /// Events the ring had taken when it last grew, and when that was.
    grown: Option<(u64, Mono)>,
}

impl DemoDay {
    /// Takes up the day of this directory, or makes a new one.
    pub(super) fn prepare(data: &Path, seed: u64) -> anyhow::Result<Self> {
        let dir = data.join("demo");
        let now = SystemClock.wall();
        if let Some(note) = recall(&dir).filter(|n| n.seed == seed && is_fresh(n, now)) {
            return Ok(Self { dir, note, grown: None });
        }
        let offset = offset_seconds(now);
        let day = demo::day(seed, now, offset);
        // Starts are seen by tier-0 and not stored.
        let is_start = |b: &Body| matches!(b, Body::Flow(f) if f.phase == FlowPhase::Start);
        let stored = day.events.iter().filter(|e| !is_start(&e.body)).count();
        let stored = u64::try_from(stored).unwrap_or(u64::MAX);
        let this = Self {
            dir,
            note: Note { seed, end_ns: now.nanos(), stored, loaded: false },
            grown: None,
        };
        this.write(&day).with_context(|| format!("writing the demo to {}", this.dir.display()))?;
        Ok(this)
    }

    fn write(&self, day: &demo::Day) -> anyhow::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let (events, list) = self.files();
        fs::write(list, &day.blocklist)?;
        let mut file = BufWriter::with_capacity(1 << 20, fs::File::create(&events)?);
        for event in &day.events {
            serde_json::to_writer(&mut file, event)?;
            file.write_all(b"\n")?;
        }
        file.flush()?;
        // Last: a note without its files would be believed.
        self.remember()
    }

    fn remember(&self) -> anyhow::Result<()> {
        let (path, new) = (self.dir.join("day.json"), self.dir.join("day.json.new"));
        fs::write(&new, serde_json::to_vec(&self.note)?)?;
        Ok(fs::rename(new, path)?)
    }

    /// The events and the block list.
    pub(super) fn files(&self) -> (PathBuf, PathBuf) {
        // Named by its end: the replay's checkpoint belongs to this very day.
        let events = format!("day-{}.ndjson", self.note.end_ns / 1_000_000_000);
        (self.dir.join(events), self.dir.join("threats.hosts"))
    }

    /// Nothing is left to load.
    pub(super) const fn is_loaded(&self) -> bool {
        self.note.loaded
    }

    /// Looks at the router: loaded is what the hub has acknowledged.
    pub(super) fn progress(&mut self, status: &Status, now: Mono) -> anyhow::Result<Progress> {
        if self.note.loaded {
            return Ok(Progress::Loaded);
        }
        let replay = status.collectors.iter().find(|c| c.name == "replay");
        let read = replay.is_some_and(|c| c.state.starts_with("done"));
        let taken = status.ring.accepted;
        if !read || self.grown.is_none_or(|(seen, _)| taken != seen) {
            self.grown = Some((taken, now));
            return Ok(Progress::Loading);
        }
        let quiet = self.grown.is_some_and(|(_, since)| now.since(since) >= QUIET);
        if !quiet || status.ring.pending > 0 {
            return Ok(Progress::Loading);
        }
        self.note.loaded = true;
        self.remember()?;
        // 30 MB that nobody needs any more; harmless if they stay.
        drop(fs::remove_file(self.files().0));
        Ok(Progress::Loaded)
    }

    /// What is in it, and how to look at it.
    pub(super) fn what_to_try(&self, agentmon: &str, alert: Option<i64>) -> Vec<String> {
        let mut lines = vec![format!("the demo day is loaded ({} events). Try:", self.note.stored)];
        for (command, what) in TO_TRY {
            let command = match alert {
                Some(id) => command.replace("alert 1", &format!("alert {id}")),
                None => command.to_owned(),
            };
            lines.push(format!("  {agentmon} {command:<50}  # {what}"));
        }
        lines
    }
}

fn recall(dir: &Path) -> Option<Note> {
    serde_json::from_slice(&fs::read(dir.join("day.json")).ok()?).ok()
}

fn is_fresh(note: &Note, now: Timestamp) -> bool {
    now.distance(Timestamp::from_nanos(note.end_ns)) < FRESH
}

/// The local zone's distance from UTC now.
fn offset_seconds(now: Timestamp) -> i64 {
    let instant = jiff::Timestamp::from_second(now.secs()).unwrap_or_default();
    i64::from(TimeZone::system().to_offset(instant).seconds())
}
