//! Who sends, how much each may, how late it is, and whether it fell silent.
//!
//! In: an address, times, one message at a time. Out: whether to take it; gap events. Pure;
//! the collector's thread; at most [`SOURCES_MAX`] sources of about 300 bytes, of which the
//! one silent longest gives way.
//!
//! Invariants: a source gets its rate and a burst of twice that, whatever others send; each
//! silence and each spell of lateness is told once.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use agentmon_core::Event;
use agentmon_core::event::{Body, Gap};
use agentmon_core::time::{Mono, Timestamp};

use super::SOURCE;
use super::config::Config;
use crate::collect::dnsmasq_log::prefix::Stamper;
use crate::localtime::Zone;

/// Most sources remembered at a time.
pub(super) const SOURCES_MAX: usize = 256;
/// A burst may be this many seconds' worth.
const BURST_SECONDS: i64 = 2;
const SECOND_NS: i64 = 1_000_000_000;
/// Being late is told again after this long.
const LATE_EVERY: Duration = Duration::from_secs(600);

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
    silent: bool,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Sources {
    map: HashMap<IpAddr, Source>,
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
            zone,
            cost: SECOND_NS / i64::from(config.messages_per_second.max(1)),
            lag_most: Duration::from_secs(config.lag_seconds),
            silence: (!silence.is_zero()).then_some(silence),
        }
    }

    /// The source; a new one takes the place of the one silent longest.
    pub(super) fn of(&mut self, ip: IpAddr, now: Mono) -> &mut Source {
        if !self.map.contains_key(&ip) && self.map.len() >= SOURCES_MAX {
            let oldest = self.map.iter().min_by_key(|(_, s)| s.heard.map(|at| at.mono));
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
            silent: false,
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
        } else if source.late_told.is_none_or(|told| now.mono.since(told) >= LATE_EVERY) {
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
        for source in self.map.values_mut().filter(|source| !source.silent) {
            let Some(last) = source.heard else { continue };
            if now.mono.since(last.mono) >= silence {
                source.silent = true;
                out.push(gap(now.wall, last.wall, "silent", None));
            }
        }
    }

    /// What there is to say, worst first; and how many sources are heard.
    pub(super) fn state(&self, now: Mono) -> (usize, Option<String>) {
        let heard = self.map.values().filter(|source| source.heard.is_some()).count();
        let silent = self.map.iter().filter(|(_, source)| source.silent);
        let silent = silent.map(|(ip, s)| {
            let seconds = s.heard.map_or(0, |last| now.since(last.mono).as_secs());
            format!("{ip} is silent for {} min: is its log still sent here?", seconds / 60)
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
mod tests {
    use super::*;

    fn sources(per_second: u32) -> Sources {
        let config = Config { messages_per_second: per_second, ..Config::default() };
        Sources::new(&config, Zone::utc())
    }

    fn ip(n: u32) -> IpAddr {
        IpAddr::from(n.to_be_bytes())
    }

    fn at(second: u64) -> Now {
        let wall = Timestamp::from_secs(1_795_442_400).plus(Duration::from_secs(second));
        Now { wall, mono: Mono::from_nanos((second + 1) * 1_000_000_000) }
    }

    #[test]
    fn each_source_has_its_own_rate() {
        let mut sources = sources(10);
        let mut taken =
            |who, second| (0..100).filter(|_| sources.take(ip(who), at(second).mono)).count();
        assert_eq!(taken(1, 0), 20, "a burst");
        assert_eq!(taken(1, 0), 0);
        assert_eq!(taken(2, 0), 20, "another has its own");
        assert_eq!(taken(1, 1), 10, "a second's worth");
        assert_eq!(taken(1, 1_000), 20, "no more than a burst is saved up");
    }

    #[test]
    fn connections_read_on_credit_and_then_wait() {
        let mut sources = sources(10);
        for _ in 0..30 {
            sources.pay(ip(1), at(0).mono);
        }
        assert!(!sources.may_read(ip(1), at(1).mono));
        assert!(sources.may_read(ip(1), at(2).mono));
    }

    #[test]
    fn sources_are_bounded_and_the_oldest_goes() {
        let mut sources = sources(1);
        let mut out = Vec::new();
        for n in 0..SOURCES_MAX as u32 + 50 {
            sources.heard(ip(n), at(u64::from(n)).wall, at(u64::from(n)), &mut out);
        }
        assert_eq!(sources.map.len(), SOURCES_MAX);
        assert!(!sources.map.contains_key(&ip(49)) && sources.map.contains_key(&ip(50)));
        assert!(out.is_empty());
    }

    fn reasons(out: &[Event]) -> Vec<(i64, String)> {
        let gap = |event: &Event| match &event.body {
            Body::Gap(gap) => (event.time.since(gap.from).as_secs() as i64, gap.reason.clone()),
            other => panic!("{other:?}"),
        };
        out.iter().map(gap).collect()
    }

    #[test]
    fn a_silence_is_told_when_it_begins_and_when_it_ends() {
        let (mut sources, mut out) = (sources(1), Vec::new());
        sources.heard(ip(1), at(0).wall, at(0), &mut out);
        for second in [100, 599, 600, 700, 800] {
            sources.idle(at(second), &mut out);
        }
        assert_eq!(reasons(&out), [(600, "silent".to_owned())]);
        assert!(sources.state(at(900).mono).1.unwrap().contains("silent for 15 min"));
        sources.heard(ip(1), at(1_000).wall, at(1_000), &mut out);
        assert_eq!(reasons(&out)[1..], [(1_000, "silent".to_owned())]);
        assert_eq!(sources.state(at(1_000).mono), (1, None));
    }

    #[test]
    fn lateness_is_told_once_in_a_while() {
        let (mut sources, mut out) = (sources(1), Vec::new());
        assert!(!sources.heard(ip(1), at(0).wall, at(300), &mut out));
        assert!(sources.heard(ip(1), at(0).wall, at(301), &mut out));
        assert!(sources.heard(ip(1), at(0).wall, at(400), &mut out));
        assert_eq!(reasons(&out), [(301, "late".to_owned())]);
        assert!(sources.state(at(400).mono).1.unwrap().contains("6 min late"));
        assert!(sources.heard(ip(1), at(9_000).wall, at(1_000), &mut out));
        assert_eq!(reasons(&out)[1..], [(0, "clock-ahead".to_owned())]);
        assert!(!sources.heard(ip(1), at(1_000).wall, at(1_000), &mut out));
        assert_eq!(sources.state(at(1_000).mono), (1, None));
    }
}
