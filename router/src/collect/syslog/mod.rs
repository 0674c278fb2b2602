//! DNS queries and answers, leases, and packets the firewall stopped, from the syslog of
//! other machines.
//!
//! In: syslog (RFC 5424, RFC 3164) by UDP (RFC 5426), TCP (RFC 6587, octet counting and
//! newlines) and TLS (RFC 5425), as dnsmasq, Pi-hole, OpenWrt's logd and relays send it.
//! Out: one DNS event per question, devices from DHCP lines, gaps, findings about senders that
//! fell silent or come late. One thread for all
//! sockets; memory below 1 MB with one sender, by its bounds at most 15 MB (64 readers full
//! of open questions, 64 connections inside TLS).
//!
//! The data path: [`listen`] (sockets, who may send) -> [`frame`] (whole messages) ->
//! [`sources`] (rates, lateness, silence; [`alarm`]) -> [`hosts`] (one of the log collector's
//! readers for each machine).
//!
//! Invariants:
//! - every message is counted: read, not DNS, or dropped with a reason (`drop.syslog.*`);
//! - connections are read no faster than their events are taken, so that nothing of them is
//!   lost here; datagrams that came too fast are told as a gap;
//! - no sender can take the place, the rate or the memory of others.

pub mod alarm;
pub mod config;
mod connection;
mod counted;
pub mod frame;
mod hosts;
pub mod kernel;
mod listen;
#[doc(hidden)]
pub mod scene;
mod sources;
mod tls;

use std::time::Duration;

use agentmon_core::Event;
use agentmon_core::time::{Mono, Timestamp};

use super::gaps::Gaps;
use super::{Closed, Collector, Context, DELIVERY_EVENTS_MAX, Delivery};
use crate::collect::dnsmasq_log::join::EXCHANGES_MAX;
use crate::localtime::Zone;
use crate::ratelimit::LogLimit;

use self::counted::Counts;
use self::hosts::Hosts;
use self::listen::Sockets;
use self::sources::{Now, Sources};

pub use self::config::Config;
pub use ipnet::IpNet;

/// This collector's name in its events.
pub(crate) const SOURCE: &str = "syslog";

/// Longest wait for something to come: answers are given out this late at the most.
const WAIT: Duration = Duration::from_millis(200);
/// How often silence is looked for and the state line written anew.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Events of one turn that are delivered at once.
const DELIVER_FROM: usize = DELIVERY_EVENTS_MAX - EXCHANGES_MAX;

/// The collector of all syslog.
#[derive(Debug)]
pub struct Source {
    config: Config,
    sources: Sources,
    hosts: Hosts,
    events: Vec<Event>,
    /// Datagrams that came too fast.
    too_fast: Gaps,
    /// Datagrams the kernel had no room for.
    no_room: Gaps,
    /// Value of the counter when it was looked at last.
    dropped: u64,
    looked: Option<Mono>,
    log_limit: LogLimit,
}

impl Source {
    /// For this configuration. Nothing is bound yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let zone = Zone::of(&config.timezone);
        Self {
            sources: Sources::new(&config, zone),
            hosts: Hosts::default(),
            events: Vec::new(),
            too_fast: Gaps::of(SOURCE, "rate-limit"),
            no_room: Gaps::of(SOURCE, "udp-full"),
            dropped: 0,
            looked: None,
            log_limit: LogLimit::default(),
            config,
        }
    }

    /// One look at all sockets; false when the pipeline has gone.
    fn turn(
        &mut self,
        sockets: &mut Sockets,
        counts: &Counts,
        context: &Context,
    ) -> anyhow::Result<bool> {
        let found = sockets.wait(&mut self.sources, context.clock.mono(), WAIT)?;
        let now = Now { wall: context.clock.wall(), mono: context.clock.mono() };
        let Self { sources, hosts, events, .. } = self;
        let mut closed = Ok(());
        sockets.turn(&found, now.mono, sources, counts, |sources, peer, bytes| {
            hosts.message((peer, bytes), now, sources, counts, events);
            if events.len() >= DELIVER_FROM && closed.is_ok() {
                closed = deliver(events, context);
            }
        });
        self.hosts.idle(now.mono, counts, &mut self.events);
        self.losses(counts, now.wall, now.mono);
        Ok(closed.is_ok() && deliver(&mut self.events, context).is_ok())
    }

    fn losses(&mut self, counts: &Counts, wall: Timestamp, mono: Mono) {
        let dropped = counts.rate.get();
        self.too_fast.note(dropped.saturating_sub(self.dropped), wall);
        self.dropped = dropped;
        self.events.extend(self.too_fast.take(wall, mono));
    }

    /// Once a second: who fell silent, and how things are.
    fn look(&mut self, sockets: &mut Sockets, counts: &Counts, context: &Context) {
        let now = Now { wall: context.clock.wall(), mono: context.clock.mono() };
        if self.looked.is_some_and(|looked| now.mono.since(looked) < LOOK_EVERY) {
            return;
        }
        self.looked = Some(now.mono);
        let lost = sockets.dropped_by_kernel();
        counts.kernel.add(lost);
        self.no_room.note(lost, now.wall);
        self.events.extend(self.no_room.take(now.wall, now.mono));
        self.sources.idle(now, &mut self.events);
        if let Some(line) = self.hosts.take_unknown()
            && let Some(more) = self.log_limit.allow("unknown-line", now.mono)
        {
            tracing::info!("syslog: not understood: {line}{more}");
        }
        context.state.set(self.state(sockets, counts, now.mono));
    }

    fn state(&self, sockets: &Sockets, counts: &Counts, now: Mono) -> String {
        let (sources, problem) = self.sources.state(now);
        let (machines, waiting) = self.hosts.waiting();
        let places = sockets.places();
        if let Some(problem) = problem {
            return problem;
        }
        if sources == 0 {
            let refused = counts.not_allowed.get();
            let refused = if refused > 0 {
                format!("; {refused} were refused: see `allow`")
            } else {
                String::new()
            };
            return format!("nothing came yet on {places}{refused}");
        }
        if machines == 0 && counts.messages.get() > 100 {
            return format!(
                "{sources} senders on {places}, none with DNS: set log-queries=extra in dnsmasq"
            );
        }
        let open = sockets.open();
        format!(
            "ok: {places}: {sources} senders, {open} connections, {machines} machines with DNS, \
             {waiting} questions waiting"
        )
    }
}

/// Hands over all events; a delivery has its bound.
fn deliver(events: &mut Vec<Event>, context: &Context) -> Result<(), Closed> {
    while !events.is_empty() {
        let rest = events.split_off(events.len().min(DELIVERY_EVENTS_MAX));
        let events = std::mem::replace(events, rest);
        context.outbox.send(Delivery { events, checkpoint: None })?;
    }
    Ok(())
}

impl Collector for Source {
    fn name(&self) -> &str {
        SOURCE
    }

    fn run(&mut self, context: &Context) -> anyhow::Result<()> {
        let counts = Counts::new(&context.counters);
        self.dropped = counts.rate.get();
        self.looked = None;
        let mut sockets = Sockets::bind(&self.config)?;
        while !context.stop.is_set() {
            self.look(&mut sockets, &counts, context);
            if !self.turn(&mut sockets, &counts, context)? {
                return Ok(());
            }
        }
        self.hosts.finish(&counts, &mut self.events);
        // A pipeline that is gone already takes nothing any more.
        let _closed = deliver(&mut self.events, context);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
