//! Who sends, how much each may, how late it is, and whether it fell silent.
//!
//! In: an address, times, one message at a time. Out: whether to take it; gaps, and findings
//! (see [`alarm`](super::alarm)). Pure; the collector's thread; at most [`SOURCES_MAX`]
//! sources of about 300 bytes, of which the one silent longest gives way.
//!
//! Invariants: a source gets its rate and a burst of twice that, whatever others send; each
//! silence and each spell of lateness is told once. Who is allowed by its own address is
//! expected to send, and told when it never does; who came in by a whole network is known
//! from its first message on.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use agentmon_core::Event;
use agentmon_core::event::{Body, Gap};
use agentmon_core::time::{Mono, Timestamp};

use super::config::Config;
use super::{SOURCE, alarm};
use crate::collect::dnsmasq_log::prefix::Stamper;
use crate::localtime::Zone;

/// Most sources remembered at a time.
pub(super) const SOURCES_MAX: usize = 256;
/// A burst may be this many seconds' worth.
const BURST_SECONDS: i64 = 2;
const SECOND_NS: i64 = 1_000_000_000;
/// Being late is told again after this long.
const LATE_EVERY: Duration = Duration::from_secs(600);
/// Lateness is worth a finding when it lasts: a relay that hands over what it kept while its
/// line was cut is through with that sooner.
const LATE_LASTS: Duration = Duration::from_secs(60);

/// Wall and monotonic time of one look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    /// For events.
    pub(super) wall: Timestamp,
    /// For spans.
    pub(super) mono: Mono,
}

/// One address that sends.
#[derive(Debug)]
pub(super) struct Source {
    /// Nanoseconds of sending it has in hand; below zero: a connection that read ahead.
    credit: i64,
    filled: Mono,
    pub(super) stamper: Stamper,
    heard: Option<Now>,
    /// How far the last message was dated from now, and whether ahead.
    lag: (Duration, bool),
    late_told: Option<Mono>,
    /// Since when every message was late, and whether that was found already.
    late_since: Option<Mono>,
    late_found: bool,
    silent: bool,
    /// Named by its own address: since when something is expected of it.
    expected: Option<Now>,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Sources {
    map: HashMap<IpAddr, Source>,
    /// Who must send, until [`Sources::idle`] is asked first.
    expected: Vec<IpAddr>,
    zone: Zone,
    /// What one message costs of a source's credit.
    cost: i64,
    lag_most: Duration,
    silence: Option<Duration>,
}

impl Sources {
    pub(super) fn new(config: &Config, zone: Zone) -> Self {
        let silence = Duration::from_secs(config.silence_seconds);
        Self {
            map: HashMap::new(),
            expected: config.expected().take(SOURCES_MAX / 2).collect(),
            zone,
            cost: SECOND_NS / i64::from(config.messages_per_second.max(1)),
            lag_most: Duration::from_secs(config.lag_seconds),
            silence: (!silence.is_zero()).then_some(silence),
        }
    }

    /// The source; a new one takes the place of the one silent longest.
    pub(super) fn of(&mut self, ip: IpAddr, now: Mono) -> &mut Source {
        if !self.map.contains_key(&ip) && self.map.len() >= SOURCES_MAX {
            let age = |s: &Source| (s.expected.is_some(), s.heard.map(|at| at.mono));
            let oldest = self.map.iter().min_by_key(|(_, s)| age(s));
            if let Some(oldest) = oldest.map(|(ip, _)| *ip) {
                self.map.remove(&oldest);
            }
        }
        let zone = &self.zone;
        let source = self.map.entry(ip).or_insert_with(|| Source {
            credit: BURST_SECONDS * SECOND_NS,
            filled: now,
            stamper: Stamper::new(zone.clone()),
            heard: None,
            lag: (Duration::ZERO, false),
            late_told: None,
            late_since: None,
            late_found: false,
            silent: false,
            expected: None,
        });
        let gained = i64::try_from(now.since(source.filled).as_nanos()).unwrap_or(i64::MAX);
        source.credit = source.credit.saturating_add(gained).min(BURST_SECONDS * SECOND_NS);
        source.filled = now;
        source
    }

    /// Whether a datagram may be taken; if so, it is paid for.
    pub(super) fn take(&mut self, ip: IpAddr, now: Mono) -> bool {
        let cost = self.cost;
        let source = self.of(ip, now);
        let may = source.credit >= cost;
        if may {
            source.credit -= cost;
        }
        may
    }

    /// Whether more may be read from a source's connections.
    pub(super) fn may_read(&mut self, ip: IpAddr, now: Mono) -> bool {
        self.of(ip, now).credit > 0
    }

    /// A message that was read already is paid for, also on credit: nothing is lost.
    pub(super) fn pay(&mut self, ip: IpAddr, now: Mono) {
        let cost = self.cost;
        let source = self.of(ip, now);
        source.credit = source.credit.saturating_sub(cost);
    }

    /// A message dated `time` has come. True: it is far from now, which was told.
    pub(super) fn heard(
        &mut self,
        ip: IpAddr,
        time: Timestamp,
        now: Now,
        out: &mut Vec<Event>,
    ) -> bool {
        let lag_most = self.lag_most;
        let source = self.of(ip, now.mono);
        if source.silent
            && let Some(last) = source.heard
        {
            out.push(gap(now.wall, last.wall, "silent", None));
        }
        source.silent = false;
        source.heard = Some(now);
        source.lag = (time.distance(now.wall), time > now.wall);
        let late = source.lag.0 > lag_most;
        if !late {
            source.late_told = None;
            source.late_since = None;
            source.late_found = false;
            return false;
        }
        let since = *source.late_since.get_or_insert(now.mono);
        if !source.late_found && now.mono.since(since) >= LATE_LASTS {
            source.late_found = true;
            out.push(alarm::late(now.wall, ip, source.lag, lag_most));
        }
        if source.late_told.is_none_or(|told| now.mono.since(told) >= LATE_EVERY) {
            source.late_told = Some(now.mono);
            let (from, reason) =
                if source.lag.1 { (now.wall, "clock-ahead") } else { (time, "late") };
            // Nothing is lost, but detectors that wait for it have given up.
            out.push(gap(now.wall, from, reason, Some(0)));
        }
        late
    }

    /// Time went on: who fell silent?
    pub(super) fn idle(&mut self, now: Now, out: &mut Vec<Event>) {
        let Some(silence) = self.silence else { return };
        for ip in std::mem::take(&mut self.expected) {
            self.of(ip, now.mono).expected = Some(now);
        }
        for (ip, source) in self.map.iter_mut().filter(|(_, source)| !source.silent) {
            let Some(last) = source.heard.or(source.expected) else { continue };
            let lasts = now.mono.since(last.mono);
            if lasts >= silence {
                source.silent = true;
                out.push(gap(now.wall, last.wall, "silent", None));
                out.push(alarm::silent(now.wall, *ip, lasts, source.heard.map(|at| at.wall)));
            }
        }
    }

    /// What there is to say, worst first; and how many sources are heard.
    pub(super) fn state(&self, now: Mono) -> (usize, Option<String>) {
        let heard = self.map.values().filter(|source| source.heard.is_some()).count();
        let silent = self.map.iter().filter(|(_, source)| source.silent);
        let silent = silent.map(|(ip, s)| {
            let last = s.heard.or(s.expected);
            let minutes = last.map_or(0, |last| now.since(last.mono).as_secs()) / 60;
            format!("{ip} is silent for {minutes} min: is its log still sent here?")
        });
        let late = self.map.iter().filter(|(_, s)| s.lag.0 > self.lag_most).map(|(ip, s)| {
            let (minutes, side) = (s.lag.0.as_secs() / 60, if s.lag.1 { "ahead" } else { "late" });
            format!("{ip} is {minutes} min {side}: set timezone, or its machine's clock")
        });
        (heard, silent.chain(late).min())
    }
}

fn gap(time: Timestamp, from: Timestamp, reason: &str, lost: Option<u64>) -> Event {
    let gap = Gap { collector: SOURCE.to_owned(), from, reason: reason.to_owned(), lost };
    Event { time, body: Body::Gap(gap) }
}

#[cfg(test)]
#[path = "sources_tests.rs"]
mod tests;
