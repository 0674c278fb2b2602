//! Joins the lines of one DNS exchange: question, forwarding, aliases, answers.
//!
//! In: messages with their times, in the order of the log. Out: one DNS event per question.
//! Pure; runs on its collector's thread; at most [`EXCHANGES_MAX`] open questions of about
//! 300 bytes.
//!
//! How lines belong together:
//! - with `log-queries=extra` by the serial number; a `reply query is duplicate` line says
//!   that a question was answered together with the one before;
//! - without, by name and order: an answer is a *run* of lines of one process. It begins
//!   with the name that was asked for; behind `<CNAME>` follows the target's name. What
//!   kind of value it is tells which of several questions for the name it answers, and all
//!   clients that wait for the same name and type get the same answer;
//! - behind `validation result is BOGUS` comes an answer that the client does not get: it is
//!   told SERVFAIL, and so are we;
//! - an error line (`reply error is SERVFAIL`) has no name: it belongs to the only question
//!   on its way, or is kept until one times out.
//!
//! Invariants: every question gives exactly one event, whatever follows or does not; at
//! most [`RUNS_MAX`] runs and [`ERRORS_MAX`] kept errors; time is the lines' own.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use agentmon_core::Event;
use agentmon_core::event::{DnsStatus, TEXT_BYTES_MAX};
use agentmon_core::name::printable;
use agentmon_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::exchange::{Exchange, Outcome, key_of, name_of};
use super::leader::Leader;
use super::line::{Answer, Origin};
use super::run::Run;
use super::value::{Value, bare_rcode};

/// Most questions waiting for an answer. dnsmasq itself stops at 150 (`dns-forward-max`).
pub const EXCHANGES_MAX: usize = 512;
/// Most answers being printed at the same time, by different processes (TCP has its own).
pub const RUNS_MAX: usize = 8;
/// Most errors without a name that are kept for questions that time out.
pub const ERRORS_MAX: usize = 64;
/// How long a question waits for its answer: two tries of a stub resolver.
pub const ANSWER_SECONDS_MAX: u64 = 5;

/// Where a line stands: process, time, serial number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) pid: u32,
    pub(super) id: u32,
    pub(super) time: Timestamp,
    pub(super) fine: bool,
}

/// What the joiner could not join, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JoinCounts {
    /// Events made.
    pub exchanges: u64,
    /// Answers to questions that are not known (any more).
    pub orphan_answers: u64,
    /// Questions given out early because too many waited.
    pub evicted: u64,
    /// Questions without an answer in time.
    pub timeouts: u64,
    /// Names that broke a rule and were mended.
    pub bad_names: u64,
    /// Answers beyond the limit of one exchange.
    pub answers_cut: u64,
}

/// See the module's text. Serialised into the checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Joiner {
    pub(super) open: VecDeque<Exchange>,
    runs: Vec<Run>,
    pub(super) errors: VecDeque<(Timestamp, u16)>,
    next_seq: u64,
    /// The next answer of this process and serial number is forged or broken, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bogus: Option<(u32, u32, String)>,
    #[serde(skip)]
    counts: JoinCounts,
}

impl Joiner {
    pub(super) const fn counts(&self) -> JoinCounts {
        self.counts
    }

    /// Questions waiting.
    pub(super) fn waiting(&self) -> usize {
        self.open.len()
    }

    /// A client asked.
    pub(super) fn query(
        &mut self,
        at: Place,
        (name, qtype, client): (&[u8], u16, IpAddr),
        out: &mut Vec<Event>,
    ) {
        self.finish_run_of(at.pid, out);
        self.expire(at.time, out);
        self.bogus.take_if(|(pid, ..)| *pid == at.pid);
        if self.open.len() >= EXCHANGES_MAX
            && let Some(oldest) = self.open.pop_front()
        {
            self.counts.evicted += 1;
            self.give_up(oldest, DnsStatus::Unknown, out);
        }
        let (key, (name, mended)) = (key_of(name), name_of(name));
        self.counts.bad_names += u64::from(mended);
        let seq = self.next_seq;
        self.next_seq += 1;
        let (id, pid, time, fine) = (at.id, at.pid, at.time, at.fine);
        let upstream = None;
        self.open.push_back(Exchange {
            seq,
            id,
            pid,
            key,
            name,
            qtype,
            client,
            time,
            fine,
            upstream,
        });
    }

    /// The question went to a server.
    pub(super) fn forwarded(&mut self, at: Place, name: &[u8], to: &[u8], out: &mut Vec<Event>) {
        let key = key_of(name);
        if let Some(i) = self.runs.iter().position(|r| r.pid == at.pid) {
            let run = &self.runs[i];
            let own = if at.id == 0 { run.asked == key } else { run.id == at.id };
            if own && run.may_be_asked_again() {
                self.runs.remove(i);
            } else {
                self.finish_run(i, out);
            }
        }
        self.expire(at.time, out);
        let own = |e: &Exchange| match at.id {
            0 => e.pid == at.pid && e.is_named(name, key),
            id => e.id == id,
        };
        // Of several, the newest that was not forwarded yet.
        let newest = self.open.iter().rposition(|e| own(e) && e.upstream.is_none());
        let newest = newest.or_else(|| self.open.iter().rposition(own));
        if let Some(exchange) = newest.and_then(|i| self.open.get_mut(i)) {
            exchange.upstream = Some(printable(to, TEXT_BYTES_MAX));
        }
    }

    /// One line of an answer.
    pub(super) fn answer(&mut self, at: Place, answer: &Answer<'_>, out: &mut Vec<Event>) {
        if let Some(i) = self.runs.iter().position(|r| r.pid == at.pid) {
            if self.continue_run(i, at, answer) {
                return;
            }
            self.finish_run(i, out);
        }
        self.expire(at.time, out);
        self.begin_run(at, answer, out);
    }

    /// Adds the line to the run if it is the run's next.
    fn continue_run(&mut self, i: usize, at: Place, answer: &Answer<'_>) -> bool {
        let Some(run) = self.runs.get_mut(i).filter(|run| run.id == at.id) else { return false };
        for (name, value) in answer.splits() {
            if is_aside(value) {
                return true;
            }
            let key = key_of(name);
            if run.is_refused_by(answer.origin, key) {
                run.refuse(at, answer, (key, name, value));
                return true;
            }
            if run.takes(answer.origin, key, value) {
                run.add(at, answer, (key, name, value));
                return true;
            }
        }
        false
    }

    /// The first line of an answer: finds the question.
    fn begin_run(&mut self, at: Place, answer: &Answer<'_>, out: &mut Vec<Event>) {
        let mut first = None;
        for (name, value) in answer.splits() {
            if is_aside(value) {
                return;
            }
            let leader = match bare_rcode(name, value) {
                Some(code) if at.id == 0 => match self.leader_of_error(at, answer.origin, code) {
                    Leader::Unknown => return,
                    found => found,
                },
                _ => self.leader(at, answer.origin, name, value),
            };
            first.get_or_insert((name, value, leader));
            if leader != Leader::Unknown {
                first = Some((name, value, leader));
                break;
            }
        }
        let Some((name, value, leader)) = first else { return };
        // Kept as a run even if nobody asked, as far as is known: the lines behind an alias
        // must not be taken for answers of their own.
        let mut run = Run::new(at, answer, (key_of(name), name, value));
        if let Leader::One(seq) = leader
            && let Some(question) = self.open.iter().find(|e| e.seq == seq)
        {
            run.leader = Some(seq);
            run.any = question.qtype == 255;
            run.asked = question.key;
        }
        let own = |(pid, id, _): &mut (u32, u32, String)| (*pid, *id) == (at.pid, at.id);
        run.bogus = self.bogus.take_if(own).map(|(.., reason)| reason);
        if self.runs.len() >= RUNS_MAX {
            self.finish_run(0, out);
        }
        self.runs.push(run);
    }

    /// `reply query is duplicate`: the question of this serial number got the same answer
    /// as the one before.
    pub(super) fn duplicate(&mut self, at: Place, out: &mut Vec<Event>) {
        let Some(own) = self.open.iter().find(|e| at.id != 0 && e.id == at.id) else { return };
        let seq = own.seq;
        let same = |run: &Run| {
            let leader = self.open.iter().find(|e| Some(e.seq) == run.leader);
            leader.is_some_and(|e| e.name == own.name && e.qtype == own.qtype)
        };
        if let Some(i) = self.runs.iter().position(|r| r.pid == at.pid && same(r))
            && self.runs[i].follow(seq)
        {
            return;
        }
        self.finish_run_of(at.pid, out);
        if let Some(exchange) = self.take(seq) {
            self.give_up(exchange, DnsStatus::Forwarded, out);
        }
    }

    /// The resolver found an answer forged or broken, and prints it next.
    pub(super) fn bogus(&mut self, at: Place, ede: Option<&[u8]>, out: &mut Vec<Event>) {
        self.finish_run_of(at.pid, out);
        let reason = ede.map(|text| printable(text, TEXT_BYTES_MAX - 5));
        self.bogus = Some((at.pid, at.id, reason.unwrap_or_default()));
    }

    /// The resolver threw an answer away because it points into the local network.
    pub(super) fn rebind(&mut self, at: Place, name: &[u8], out: &mut Vec<Event>) {
        self.finish_run_of(at.pid, out);
        let key = key_of(name);
        let own = |e: &&Exchange| match at.id {
            0 => e.pid == at.pid && e.is_named(name, key),
            id => e.id == id,
        };
        let Some(seq) = self.open.iter().find(own).map(|e| e.seq) else { return };
        let Some(exchange) = self.take(seq) else { return };
        let mut outcome = Outcome::default();
        outcome.block("DNS-rebind protection");
        self.emit(exchange, outcome, Some((at.time, at.fine)), out);
    }

    /// Time went on to `now` (log time): finished answers and forgotten questions go out.
    pub(super) fn idle(&mut self, now: Timestamp, out: &mut Vec<Event>) {
        self.finish_runs(out);
        self.expire(now, out);
    }

    /// Nothing more will come: the log's end, or the resolver began anew.
    pub(super) fn finish(&mut self, out: &mut Vec<Event>) {
        self.finish_runs(out);
        while let Some(exchange) = self.open.pop_front() {
            self.give_up(exchange, DnsStatus::Unknown, out);
        }
        self.errors.clear();
    }

    fn finish_runs(&mut self, out: &mut Vec<Event>) {
        while !self.runs.is_empty() {
            self.finish_run(0, out);
        }
    }

    fn finish_run_of(&mut self, pid: u32, out: &mut Vec<Event>) {
        if let Some(i) = self.runs.iter().position(|r| r.pid == pid) {
            self.finish_run(i, out);
        }
    }

    /// The answer is complete: it goes to everybody who waits for it.
    fn finish_run(&mut self, i: usize, out: &mut Vec<Event>) {
        let mut run = self.runs.remove(i);
        if let Some(reason) = run.bogus.take() {
            run.outcome.refuse_bogus(&reason);
        }
        self.counts.answers_cut += u64::from(run.outcome.cut);
        let leader = run.leader.or_else(|| self.leader_by_kind(&run));
        let Some(leader) = leader.and_then(|seq| self.take(seq)) else {
            self.counts.orphan_answers += 1;
            return;
        };
        let answered = Some((run.time, run.fine));
        let shared = run.id == 0 && run.origin == Origin::Upstream;
        let mut i = 0;
        while let Some(other) = self.open.get(i) {
            // A name that does not exist has no type (RFC 8020), and the line does not say
            // which type it is about: one such answer is as good for all.
            let of_type = other.qtype == leader.qtype || run.outcome.rcode == Some(3);
            let same = other.key == leader.key && of_type;
            let gets = if shared {
                same && other.pid == leader.pid && other.name == leader.name
            } else {
                run.followers.contains(&other.seq)
            };
            if gets && let Some(mut other) = self.open.remove(i) {
                other.upstream = other.upstream.or_else(|| leader.upstream.clone());
                self.emit(other, run.outcome.clone(), answered, out);
            } else {
                i += 1;
            }
        }
        self.emit(leader, run.outcome, answered, out);
    }

    fn take(&mut self, seq: u64) -> Option<Exchange> {
        let i = self.open.iter().position(|e| e.seq == seq)?;
        self.open.remove(i)
    }

    /// Questions older than [`ANSWER_SECONDS_MAX`]. A log whose clock was set back counts
    /// as late too: otherwise its questions would wait until that time comes again.
    fn expire(&mut self, now: Timestamp, out: &mut Vec<Event>) {
        let late = |e: &Exchange| now.distance(e.time) >= Duration::from_secs(ANSWER_SECONDS_MAX);
        while let Some(front) = self.open.front().filter(|e| late(e)) {
            if self.runs.iter().any(|r| r.leader == Some(front.seq)) {
                // Being answered just now.
                return;
            }
            let Some(exchange) = self.open.pop_front() else { return };
            self.counts.timeouts += 1;
            let status = match exchange.upstream {
                Some(_) => DnsStatus::Timeout,
                None => DnsStatus::Unknown,
            };
            self.give_up(exchange, status, out);
        }
    }

    /// An event without an answer; an error that had no name is as good a reason as any.
    fn give_up(&mut self, exchange: Exchange, status: DnsStatus, out: &mut Vec<Event>) {
        let mut outcome = Outcome { status, ..Outcome::default() };
        if exchange.upstream.is_some()
            && let Some(i) = self.errors.iter().position(|(time, _)| *time >= exchange.time)
            && let Some((_, code)) = self.errors.remove(i)
        {
            outcome.status = DnsStatus::Forwarded;
            outcome.rcode = Some(code);
        }
        self.emit(exchange, outcome, None, out);
    }

    fn emit(
        &mut self,
        exchange: Exchange,
        outcome: Outcome,
        answered: Option<(Timestamp, bool)>,
        out: &mut Vec<Event>,
    ) {
        self.counts.exchanges += 1;
        out.push(exchange.into_event(outcome, answered));
    }
}

/// Lines between the lines of an answer that are no part of it.
const fn is_aside(value: Value<'_>) -> bool {
    matches!(value, Value::Dnssec | Value::Truncated)
}
