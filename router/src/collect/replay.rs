//! Events from a file of JSON lines: for tests and demonstrations.
//!
//! In: one event per line, in the form `agentmon-router tail --json` prints, from a file or
//! standard input. Out: the events, as fast as possible or at their own pace, at their own
//! time or shifted so that the first happens now. Runs until the end of the file; a line
//! that is no event is counted (`replay.bad_lines`), logged with its number, and passed over.
//!
//! Invariants: the checkpoint is the number of lines done and the shift, and it is committed
//! with their events: a restart neither loses nor doubles one. A line is at most
//! [`LINE_BYTES_MAX`] bytes.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::time::Duration;

use agentmon_core::time::Mono;
use agentmon_core::{Event, Timestamp};
use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::{Checkpoint, Collector, Context, DELIVERY_EVENTS_MAX, Delivery};
use crate::ratelimit::LogLimit;

/// Longest line read; longer ones are skipped and counted.
pub const LINE_BYTES_MAX: usize = 64 * 1024;
/// At a pace, what waited this long is delivered although the batch is small.
const PACE_STEP: Duration = Duration::from_millis(200);

/// Settings of the replay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether this collector runs.
    pub enabled: bool,
    /// The file; `-` is standard input.
    pub path: PathBuf,
    /// 0: as fast as possible; 1: as slowly as it happened; 60: an hour in a minute.
    pub pace: f64,
    /// Whether all times are moved so that the first event happens at the start.
    pub shift_to_now: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { enabled: false, path: PathBuf::new(), pace: 0.0, shift_to_now: false }
    }
}

impl Config {
    /// Whether the values make sense.
    ///
    /// # Errors
    /// The key below `[collect.replay]` and what is allowed.
    pub fn validate(&self) -> Result<(), (&'static str, String)> {
        if self.enabled && self.path.as_os_str().is_empty() {
            return Err(("path", "want a file of JSON lines, or `-` for standard input".into()));
        }
        if !(0.0..=1e6).contains(&self.pace) {
            return Err(("pace", "want 0 (as fast as possible) to 1000000".into()));
        }
        Ok(())
    }
}

/// The collector.
#[derive(Debug)]
pub struct Source {
    config: Config,
    place: Place,
    delivered: Place,
    limit: LogLimit,
}

/// How far the file was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    /// Lines done.
    lines: u64,
    /// Nanoseconds added to every time; decided by the first event.
    shift_ns: Option<i64>,
}

impl Source {
    /// Not yet reading.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let place = Place::default();
        Self { config, place, delivered: place, limit: LogLimit::default() }
    }

    fn open(&self) -> anyhow::Result<BufReader<Box<dyn Read>>> {
        let path = &self.config.path;
        let input: Box<dyn Read> = if path.as_os_str() == "-" {
            Box::new(std::io::stdin())
        } else {
            let context = || format!("collect.replay.path: {}", path.display());
            Box::new(File::open(path).with_context(context)?)
        };
        Ok(BufReader::with_capacity(64 * 1024, input))
    }

    /// The event in a line, moved in time; a bad one is counted.
    fn event(&mut self, line: &[u8], context: &Context) -> Option<Event> {
        if line.trim_ascii().is_empty() {
            return None;
        }
        match serde_json::from_slice::<Event>(line) {
            Ok(mut event) => {
                let wall = context.clock.wall();
                let shift = self.place.shift_ns.get_or_insert_with(|| {
                    if self.config.shift_to_now {
                        wall.nanos().saturating_sub(event.time.nanos())
                    } else {
                        0
                    }
                });
                event.time = Timestamp::from_nanos(event.time.nanos().saturating_add(*shift));
                Some(event)
            }
            Err(error) => {
                context.counters.counter("replay.bad_lines").inc();
                if let Some(more) = self.limit.allow("bad-line", context.clock.mono()) {
                    let path = self.config.path.display();
                    tracing::warn!("{path}:{}: not an event: {error}{more}", self.place.lines);
                }
                None
            }
        }
    }

    /// Hands over what was read up to `place`.
    fn deliver(
        &mut self,
        events: &mut Vec<Event>,
        place: Place,
        context: &Context,
    ) -> anyhow::Result<()> {
        let value = serde_json::to_vec(&place).context("replay checkpoint")?;
        let checkpoint = Some(Checkpoint { key: self.key(), value });
        context.outbox.send(Delivery { events: std::mem::take(events), checkpoint })?;
        self.delivered = place;
        Ok(())
    }

    fn key(&self) -> String {
        format!("replay:{}", self.config.path.display())
    }
}

/// When an event is due, if they come at a pace.
struct Pace {
    speed: f64,
    begin: Option<(Timestamp, Mono)>,
}

impl Pace {
    fn due(&mut self, event: &Event, now: Mono) -> Mono {
        if self.speed == 0.0 {
            return now;
        }
        let (first, begun) = *self.begin.get_or_insert((event.time, now));
        begun.plus(event.time.since(first).div_f64(self.speed))
    }
}

impl Collector for Source {
    fn name(&self) -> &str {
        "replay"
    }

    fn checkpoint_key(&self) -> Option<String> {
        // Standard input cannot be read again.
        (self.config.path.as_os_str() != "-").then(|| self.key())
    }

    fn restore(&mut self, value: &[u8]) {
        match serde_json::from_slice(value) {
            Ok(place) => self.delivered = place,
            Err(error) => {
                tracing::warn!("replay begins anew, its checkpoint is unreadable: {error}")
            }
        }
    }

    fn run(&mut self, context: &Context) -> anyhow::Result<()> {
        let mut input = self.open()?;
        let mut line = Vec::new();
        // What was read but not delivered when the last run failed is read again.
        self.place = self.delivered;
        for _ in 0..self.place.lines {
            if read_line(&mut input, &mut line)? == Line::End {
                break;
            }
        }
        context.state.set("ok");
        let mut pace = Pace { speed: self.config.pace, begin: None };
        let mut events = Vec::new();
        let mut held = context.clock.mono();
        loop {
            let found = read_line(&mut input, &mut line)?;
            if found == Line::End || context.stop.is_set() {
                break;
            }
            let before = self.place;
            self.place.lines += 1;
            if found == Line::TooLong {
                context.counters.counter("drop.replay.line_too_long").inc();
                continue;
            }
            let Some(event) = self.event(&line, context) else { continue };
            let now = context.clock.mono();
            let due = pace.due(&event, now);
            if !events.is_empty() && due.since(held) > PACE_STEP {
                self.deliver(&mut events, before, context)?;
            }
            if context.stop.sleep(due.since(now)) {
                return Ok(());
            }
            if events.is_empty() {
                held = context.clock.mono();
            }
            events.push(event);
            // An empty buffer: the next line may be long in coming, as from a pipe.
            if events.len() >= DELIVERY_EVENTS_MAX || input.buffer().is_empty() {
                self.deliver(&mut events, self.place, context)?;
            }
        }
        self.deliver(&mut events, self.place, context)?;
        context.state.set(format!("done: {} lines", self.place.lines));
        Ok(())
    }
}

/// What [`read_line`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Whole,
    TooLong,
    End,
}

/// Reads the next line; one that is too long is skipped to its end.
fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> std::io::Result<Line> {
    line.clear();
    let read = input.by_ref().take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', line)?;
    if read == 0 {
        return Ok(Line::End);
    }
    if line.ends_with(b"\n") || line.len() <= LINE_BYTES_MAX {
        return Ok(Line::Whole);
    }
    loop {
        line.clear();
        let read = input.by_ref().take(LINE_BYTES_MAX as u64).read_until(b'\n', line)?;
        if read == 0 || line.ends_with(b"\n") {
            return Ok(Line::TooLong);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::Receiver;

    use agentmon_core::time::SimClock;

    use super::super::{Outbox, State, Stop};
    use super::*;
    use crate::counters::Counters;

    const NOW: i64 = 1_795_000_000;

    fn context() -> (Context, Receiver<Delivery>) {
        let (outbox, inbox) = Outbox::channel();
        let context = Context {
            outbox,
            stop: Stop::default(),
            clock: Arc::new(SimClock::at(Timestamp::from_secs(NOW))),
            counters: Counters::default(),
            state: State::default(),
        };
        (context, inbox)
    }

    /// A gap event at second `i`.
    fn line(i: i64) -> String {
        let ns = i * 1_000_000_000;
        format!(
            "{{\"time_ns\":{ns},\"kind\":\"gap\",\"collector\":\"test\",\"from\":{ns},\"reason\":\"r\"}}\n"
        )
    }

    fn source(text: &str, change: impl FnOnce(&mut Config)) -> (Source, tempfile::NamedTempFile) {
        use std::io::Write;
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let mut config = Config { enabled: true, path: file.path().into(), ..Config::default() };
        change(&mut config);
        config.validate().unwrap();
        (Source::new(config), file)
    }

    fn seconds(deliveries: &[Delivery]) -> Vec<i64> {
        deliveries.iter().flat_map(|d| &d.events).map(|e| e.time.secs()).collect()
    }

    #[test]
    fn bad_lines_are_counted_and_passed_over() {
        let text = format!("{}nonsense\n\n{}\n{}", line(1), "x".repeat(70_000), line(2).trim());
        let (mut source, _file) = source(&text, |_| {});
        let (context, inbox) = context();
        source.run(&context).unwrap();
        assert_eq!(seconds(&inbox.try_iter().collect::<Vec<_>>()), [1, 2]);
        let counters = context.counters.snapshot();
        assert_eq!((counters["replay.bad_lines"], counters["drop.replay.line_too_long"]), (1, 1));
        assert_eq!(context.state.get(), "done: 5 lines");
    }

    #[test]
    fn a_restart_at_any_checkpoint_neither_loses_nor_doubles() {
        let text: String = (0..5_000).map(line).collect();
        let (mut first, _file) = source(&text, |c| c.shift_to_now = true);
        let (context, inbox) = context();
        first.run(&context).unwrap();
        let all: Vec<Delivery> = inbox.try_iter().collect();
        let expected: Vec<i64> = (NOW..NOW + 5_000).collect();
        assert_eq!(seconds(&all), expected);
        for cut in 0..all.len() {
            let (before, _) = all.split_at(cut);
            let mut again = Source::new(first.config.clone());
            if let Some(checkpoint) = before.last().and_then(|d| d.checkpoint.as_ref()) {
                assert_eq!(Some(&checkpoint.key), again.checkpoint_key().as_ref());
                again.restore(&checkpoint.value);
            }
            again.run(&context).unwrap();
            let after: Vec<Delivery> = inbox.try_iter().collect();
            assert_eq!([seconds(before), seconds(&after)].concat(), expected);
        }
    }

    #[test]
    fn a_pace_divides_the_time_between_events() {
        let event = |s| serde_json::from_str::<Event>(&line(s)).unwrap();
        let mut pace = Pace { speed: 60.0, begin: None };
        let now = Mono::from_nanos(5_000_000_000);
        assert_eq!(pace.due(&event(100), now), now);
        assert_eq!(pace.due(&event(160), now), now.plus(Duration::from_secs(1)));
        assert_eq!(Pace { speed: 0.0, begin: None }.due(&event(7), now), now);
    }

    #[test]
    fn at_a_pace_nothing_is_held_back_for_long() {
        // A second apart at twice the pace: each is delivered before the wait for the next.
        let text: String = (1..4).map(line).collect();
        let (mut source, _file) = source(&text, |c| c.pace = 2.0);
        let (context, inbox) = context();
        source.run(&context).unwrap();
        let sizes: Vec<_> = inbox.try_iter().map(|d| d.events.len()).filter(|n| *n > 0).collect();
        assert_eq!(sizes, [1, 1, 1]);
    }

    #[test]
    fn a_missing_file_is_an_error_that_names_it() {
        let config = Config { path: "/nonexistent/x.ndjson".into(), ..Config::default() };
        let error = Source::new(config).run(&context().0).unwrap_err();
        assert!(format!("{error:#}").contains("collect.replay.path: /nonexistent/x.ndjson"));
    }
}
