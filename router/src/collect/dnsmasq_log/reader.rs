//! A log as a stream of events: the pure heart of the collector, and what
//! `agentmon import` feeds whole files through.
//!
//! In: lines, and the time they were read at. Out: DNS exchanges, devices (from DHCP), and
//! gaps where the log says itself that lines are missing. No I/O, no clock.
//!
//! Invariants: a reader restored from its [`State`] goes on as if it had never stopped;
//! every line is counted, and every question gives exactly one event.

use std::time::Duration;

use agentmon_core::Event;
use agentmon_core::event::{Body, Device, DeviceSource, Gap, TEXT_BYTES_MAX};
use agentmon_core::name::printable;
use agentmon_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::dhcp::Lease;
use super::exchange::SOURCE;
use super::join::{JoinCounts, Joiner, Place};
use super::line::{Message, What};
use super::prefix::{Prefixed, Program, Stamper};
use crate::localtime::Zone;

/// After this much silence an answer is complete: its lines are written in one go.
pub const RUN_IDLE_MS: u64 = 300;

/// How much of a line that was not understood is kept, to be shown.
const UNKNOWN_BYTES_MAX: usize = 200;

/// What a reader saw, since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadCounts {
    /// Lines, empty ones included.
    pub lines: u64,
    /// Questions of clients.
    pub queries: u64,
    /// Leases.
    pub leases: u64,
    /// Lines of other programs in the same file.
    pub other_programs: u64,
    /// Lines that were not understood.
    pub unknown_lines: u64,
    /// Answers of a kind that we do not know, read by their form.
    pub unknown_sources: u64,
    /// Questions for record types that we do not know.
    pub unknown_types: u64,
    /// Times the resolver said that it drops queries.
    pub overloads: u64,
    /// Lines that the resolver says it did not write.
    pub lines_lost: u64,
    /// What the joiner counted.
    pub join: JoinCounts,
}

/// What must be kept over a restart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    joiner: Joiner,
    last: Option<Timestamp>,
}

/// See the module's text.
#[derive(Debug)]
pub struct Reader {
    stamper: Stamper,
    joiner: Joiner,
    counts: ReadCounts,
    /// The last line that was not understood, until it is asked for.
    unknown: Option<String>,
}

impl Reader {
    /// For a log written in `zone`.
    #[must_use]
    pub fn new(zone: Zone) -> Self {
        Self {
            stamper: Stamper::new(zone),
            joiner: Joiner::default(),
            counts: ReadCounts::default(),
            unknown: None,
        }
    }

    /// Goes on where another reader stopped.
    #[must_use]
    pub fn resume(zone: Zone, state: State) -> Self {
        let mut reader = Self::new(zone);
        reader.stamper.set_last(state.last);
        reader.joiner = state.joiner;
        reader
    }

    /// What must be kept over a restart.
    #[must_use]
    pub fn state(&self) -> State {
        State { joiner: self.joiner.clone(), last: self.stamper.last() }
    }

    /// The time of the last line, as the log has it.
    #[must_use]
    pub const fn last(&self) -> Option<Timestamp> {
        self.stamper.last()
    }

    /// The last message that was not understood, printable; once.
    pub fn take_unknown(&mut self) -> Option<String> {
        self.unknown.take()
    }

    /// Questions waiting for their answers.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.joiner.waiting()
    }

    /// Whether a question asked at `time` or before still waits: it will give an event.
    #[must_use]
    pub fn waits_since(&self, time: Timestamp) -> bool {
        self.joiner.open.iter().any(|question| question.time <= time)
    }

    /// What was seen so far.
    #[must_use]
    pub fn counts(&self) -> ReadCounts {
        ReadCounts { join: self.joiner.counts(), ..self.counts }
    }

    /// One line, without its newline. `now` dates lines that have no date, and tells the
    /// year of those that have no year: for an old file, the time it was last written.
    pub fn line(&mut self, line: &[u8], now: Timestamp, out: &mut Vec<Event>) {
        match self.stamper.read(line, now) {
            Some(prefixed) => self.prefixed(&prefixed, out),
            None => self.counts.lines += 1,
        }
    }

    /// One line whose prefix was read elsewhere: its time is the log's time from here on.
    pub fn prefixed(&mut self, prefixed: &Prefixed<'_>, out: &mut Vec<Event>) {
        self.counts.lines += 1;
        self.stamper.set_last(Some(prefixed.time));
        if matches!(prefixed.program, Program::Kernel | Program::Other) {
            self.counts.other_programs += 1;
            return;
        }
        // DHCP has many messages that say nothing about a device.
        let quiet = prefixed.program == Program::Dhcp;
        let (pid, time, fine) = (prefixed.pid, prefixed.time, prefixed.fine);
        let at = Place { pid, id: 0, time, fine };
        self.body(at, &prefixed.message, quiet, out);
    }

    /// One message without a prefix, as Pi-hole's REST interface gives them, and when it was
    /// written.
    pub fn dated(&mut self, message: &[u8], time: Timestamp, out: &mut Vec<Event>) {
        self.counts.lines += 1;
        self.stamper.set_last(Some(time));
        if message.is_empty() {
            return;
        }
        let fine = time.micros() % 1_000_000 != 0;
        self.body(Place { pid: 0, id: 0, time, fine }, message, message.starts_with(b"DHCP"), out);
    }

    fn body(&mut self, at: Place, text: &[u8], quiet: bool, out: &mut Vec<Event>) {
        let message = Message::parse(text);
        if !matches!(message.what, What::Unknown) {
            self.message(Place { id: message.id, ..at }, message.what, out);
        } else if !quiet {
            self.counts.unknown_lines += 1;
            self.unknown = Some(printable(text, UNKNOWN_BYTES_MAX));
        }
    }

    fn message(&mut self, at: Place, what: What<'_>, out: &mut Vec<Event>) {
        match what {
            What::Query { qtype, name, client } => {
                self.counts.queries += 1;
                self.counts.unknown_types += u64::from(qtype == 0);
                self.joiner.query(at, (name, qtype, client), out);
            }
            What::Forwarded { name, to } => self.joiner.forwarded(at, name, to, out),
            What::Answer(answer) => {
                self.counts.unknown_sources += u64::from(answer.unknown_source);
                self.joiner.answer(at, &answer, out);
            }
            What::Duplicate => self.joiner.duplicate(at, out),
            What::Bogus(ede) => self.joiner.bogus(at, ede, out),
            What::Rebind(name) => self.joiner.rebind(at, name, out),
            What::Lease(lease) => {
                self.counts.leases += 1;
                out.push(device(at.time, &lease));
            }
            What::Started => self.joiner.finish(out),
            What::Overload => self.counts.overloads += 1,
            What::LinesLost(lost) => {
                self.counts.lines_lost = self.counts.lines_lost.saturating_add(lost);
                out.push(gap(at.time, "log-lost", Some(lost)));
            }
            What::Dnssec | What::Other | What::Unknown => {}
        }
    }

    /// Nothing was written for `silence`: answers are complete, and late ones given up.
    pub fn idle(&mut self, silence: Duration, out: &mut Vec<Event>) {
        if silence < Duration::from_millis(RUN_IDLE_MS) {
            return;
        }
        if let Some(last) = self.stamper.last() {
            self.joiner.idle(last.plus(silence), out);
        }
    }

    /// The log is over: what still waits goes out as it is.
    pub fn finish(&mut self, out: &mut Vec<Event>) {
        self.joiner.finish(out);
    }
}

fn device(time: Timestamp, lease: &Lease<'_>) -> Event {
    let text = |bytes: &[u8]| (!bytes.is_empty()).then(|| printable(bytes, TEXT_BYTES_MAX - 3));
    let body = Device {
        mac: lease.mac,
        ip: lease.ip,
        hostname: text(lease.name),
        iface: text(lease.iface),
        source: DeviceSource::Lease,
    };
    Event { time, body: Body::Device(body) }
}

/// Something may be missing after `from`.
pub(crate) fn gap(from: Timestamp, reason: &str, lost: Option<u64>) -> Event {
    let gap = Gap { collector: SOURCE.to_owned(), from, reason: reason.to_owned(), lost };
    Event { time: from, body: Body::Gap(gap) }
}

#[cfg(test)]
#[path = "reader_tests.rs"]
pub(in crate::collect) mod tests;

#[cfg(test)]
#[path = "reader_histories.rs"]
pub(super) mod histories;
