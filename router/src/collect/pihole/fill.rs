//! Looks up in the Pi-hole's database what its log did not show, and in its network table who
//! is who.
//!
//! One page a turn, so that the log is not kept waiting. A database that does not answer is
//! asked again some times; a span that is given up then is told as a gap, and counted.

use std::time::Duration;

use agentmon_core::Event;
use agentmon_core::time::Timestamp;

use super::client::{Client, Refusal};
use super::missing::{self, SPAN_MAX, Span};
use super::{Context, SOURCE, Source};
use crate::collect::dnsmasq_log::reader;

/// Rows of one page: some 250 KB of JSON, and half a delivery.
pub(super) const PAGE_ROWS: usize = 500;
/// Attempts for one span.
const TRIES_MAX: u32 = 5;
/// Between two of them.
const TRY_PAUSE: Duration = Duration::from_secs(30);

/// How often the names of devices are asked for: they change rarely.
pub(super) const NAMES_EVERY: Duration = Duration::from_secs(600);

impl Source {
    /// Lines are missing between two times.
    pub(super) fn note_span(&mut self, from: Timestamp, until: Timestamp, lines: u64) {
        if let Some(counted) = &self.counted {
            counted.spans.inc();
        }
        if until.since(from) > SPAN_MAX {
            self.events.push(gap(from, "pihole-history", None));
        }
        if let Some(mut given_up) = self.missing.note(from, until, lines) {
            self.events.extend(missing::release(&mut given_up));
            self.give_up(&given_up);
        }
    }

    /// One page of the oldest span that has waited long enough.
    pub(super) fn fill(&mut self, client: &mut Client, context: &Context) -> Result<(), Refusal> {
        let now = context.clock.mono();
        // What was read and is not told yet would be told twice.
        if self.missing.until().is_some_and(|until| self.reader.waits_since(until)) {
            return Ok(());
        }
        let Some(wanted) = self.missing.wanted(now) else { return Ok(()) };
        match client.queries((wanted.from, wanted.until), PAGE_ROWS, wanted.cursor) {
            Ok(page) => {
                let counted = self.counted(&context.counters);
                let bad = page.seen.saturating_sub(page.records.len());
                counted.bad_rows.add(u64::try_from(bad).unwrap_or(u64::MAX));
                let (full, before) = (page.seen >= PAGE_ROWS, self.events.len());
                self.missing.page(page, full, &mut self.events);
                let found = u64::try_from(self.events.len() - before).unwrap_or(u64::MAX);
                self.counted(&context.counters).filled.add(found);
                Ok(())
            }
            Err(refusal @ (Refusal::Session | Refusal::Password(_))) => Err(refusal),
            Err(refusal) => {
                // If it is gone altogether, the next look at the log says so.
                if let Some(more) = self.log_limit.allow("fill", now) {
                    tracing::warn!("{}: looking up a gap: {refusal}{more}", self.config.url);
                }
                let pause = refusal.pause().unwrap_or(TRY_PAUSE);
                let failed = self.missing.failed(now, pause, TRIES_MAX, &mut self.events);
                if let Some(span) = failed {
                    self.give_up(&span);
                }
                Ok(())
            }
        }
    }

    /// The names of devices, now and then; a Pi-hole that does not tell them is asked again the
    /// next time.
    pub(super) fn names(&mut self, client: &mut Client, context: &Context) -> Result<(), Refusal> {
        let now = context.clock.mono();
        if self.names_due.is_some_and(|due| now < due) {
            return Ok(());
        }
        self.names_due = Some(now.plus(NAMES_EVERY));
        match client.devices() {
            Ok((events, bad)) => {
                let counted = self.counted(&context.counters);
                counted.bad_devices.add(u64::try_from(bad).unwrap_or(u64::MAX));
                counted.devices.add(u64::try_from(events.len()).unwrap_or(u64::MAX));
                self.events.extend(events);
                Ok(())
            }
            Err(refusal @ (Refusal::Session | Refusal::Password(_))) => Err(refusal),
            Err(refusal) => {
                if let Some(more) = self.log_limit.allow("names", now) {
                    tracing::warn!("{}: names of devices: {refusal}{more}", self.config.url);
                }
                Ok(())
            }
        }
    }

    fn give_up(&mut self, span: &Span) {
        if let Some(counted) = &self.counted {
            counted.given_up.inc();
        }
        let lost = Some(span.lines).filter(|lines| *lines > 0);
        self.events.push(gap(span.from, "pihole-log", lost));
    }
}

fn gap(from: Timestamp, reason: &str, lost: Option<u64>) -> Event {
    let mut event = reader::gap(from, reason, lost);
    if let agentmon_core::event::Body::Gap(gap) = &mut event.body {
        SOURCE.clone_into(&mut gap.collector);
    }
    event
}
