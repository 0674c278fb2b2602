//! The I/O of the conntrack collector: sockets, the loop of waiting, draining, dumping.
//!
//! Events come in on one socket; each dump has a socket and a short-lived thread of its own
//! (`dump`), because one read of a dump can make the kernel end thousands of expired flows,
//! whose DESTROYs must be drained meanwhile.
//!
//! Draining to `EAGAIN` and then a nap beats one wake-up per event: 61 % of the CPU time of
//! an event-by-event reader is the scheduler's.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use agentmon_core::Event;
use agentmon_core::event::{Body, Flow, Gap};
use agentmon_core::time::{Mono, Timestamp};
use anyhow::anyhow;

use super::decode::{self, Kind, Raw};
use super::dump;
use super::entry::Now;
use super::status::{Health, Totals};
use super::timeouts::{SYSCTL_FOLDER, Timeouts};
use super::track::Tracker;
use super::{Config, Neighbours};
use crate::collect::neighbours::Table;
use crate::collect::{Context, DELIVERY_EVENTS_MAX, Delivery};
use crate::counters::Counter;
use crate::netlink::message::{Message, NLMSG_MIN_TYPE};
use crate::netlink::{NETFILTER, NetlinkError, Received, Socket, messages};
use crate::sys::Batch;

/// `NFNLGRP_CONNTRACK_NEW` and `NFNLGRP_CONNTRACK_DESTROY`. UPDATE would be 5 to 7 more
/// events a connection and says nothing about bytes.
const GROUPS: [u32; 2] = [1, 3];
/// Datagrams read before other duties get their turn.
const DRAIN_DATAGRAMS_MAX: usize = 16_384;
/// A drain this long leaves no time for a nap: the queue may hold only some 10,000.
const BUSY_DATAGRAMS: usize = 2_048;
/// Longest wait, so that the wish to stop is heard.
const WAIT_MAX: Duration = Duration::from_millis(250);
/// While a dump is under way, events are drained at least this often.
const DUMP_DRAIN_EVERY: Duration = Duration::from_millis(5);
/// A table larger than this is left to the kernel's own garbage collector first, which ends
/// expired flows in slices of 10 ms: a dump ends them all in one call, faster than anybody
/// can read their DESTROYs. The event buffer holds 52,000.
const DUMP_ENTRIES_CALM: u64 = 32_768;
/// But at most so many times the usual pause between dumps: live counters must not stop.
/// The collector's scan comes within 60 s (`GC_SCAN_INTERVAL_MAX`, nf_conntrack_core.c).
const DUMP_POSTPONED_PAUSES: u32 = 5;
/// How often a postponed dump is thought over.
const DUMP_ASK_AGAIN: Duration = Duration::from_secs(1);

/// Opens, dumps, and reads until asked to stop.
pub(super) fn run(
    config: &Config,
    neighbours: &Neighbours,
    tracker: &mut Tracker,
    context: &Context,
) -> anyhow::Result<()> {
    let mut session = Session::open(config, neighbours, tracker, context)?;
    session.dump()?;
    while !context.stop.is_set() {
        let wait = session.next_dump.since(context.clock.mono()).min(WAIT_MAX);
        if session.events.wait(wait)? {
            let read = session.drain()?;
            session.deliver()?;
            session.show_life();
            if read < BUSY_DATAGRAMS {
                std::thread::sleep(Duration::from_millis(config.nap_ms));
            }
        }
        if context.clock.mono() >= session.next_dump && !session.postpone_dump() {
            session.dump()?;
        }
    }
    Ok(())
}

/// Everything one run holds.
struct Session<'a> {
    config: &'a Config,
    context: &'a Context,
    tracker: &'a mut Tracker,
    neighbours: &'a Neighbours,
    table: Arc<Table>,
    events: Socket,
    batch: Option<Box<Batch>>,
    out: Vec<Event>,
    counts: Counts,
    health: Health,
    next_dump: Mono,
    last_dump: Mono,
    /// Begin of a span in which events were lost, until the next dump has mended it.
    gap: Option<Timestamp>,
    /// Last time that the event socket was known to be read empty.
    caught_up: Timestamp,
    totals: Totals,
}

struct Counts {
    events: Counter,
    new: Counter,
    destroyed: Counter,
    dumps: Counter,
    dumps_postponed: Counter,
    dump_entries: Counter,
    enobufs: Counter,
    decode_errors: Counter,
    tracker_full: Counter,
    untracked_ends: Counter,
    missed_new: Counter,
    vanished: Counter,
    clock_jumps: Counter,
}

impl Counts {
    fn new(context: &Context) -> Self {
        let counter = |name: &str| context.counters.counter(&format!("conntrack.{name}"));
        Self {
            events: counter("events"),
            new: counter("new"),
            destroyed: counter("destroyed"),
            dumps: counter("dumps"),
            dumps_postponed: counter("dumps_postponed"),
            dump_entries: counter("dump_entries"),
            enobufs: counter("enobufs"),
            decode_errors: counter("decode_errors"),
            tracker_full: counter("tracker_full"),
            untracked_ends: counter("untracked_ends"),
            missed_new: counter("missed_new"),
            vanished: counter("vanished"),
            clock_jumps: counter("clock_jumps"),
        }
    }
}

/// Entries in this namespace's connection table, expired ones that nobody ended yet
/// included; `None` where the kernel does not say.
fn entries_in_table() -> Option<u64> {
    let path = Path::new(SYSCTL_FOLDER).join("nf_conntrack_count");
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

impl<'a> Session<'a> {
    fn open(
        config: &'a Config,
        neighbours: &'a Neighbours,
        tracker: &'a mut Tracker,
        context: &'a Context,
    ) -> Result<Self, NetlinkError> {
        let events = Socket::open(NETFILTER)?;
        let buffer_bytes = events.set_receive_buffer(config.buffer_bytes)?;
        for group in GROUPS {
            events.join(group)?;
        }
        let clock = &context.clock;
        Ok(Self {
            config,
            context,
            tracker,
            neighbours,
            table: neighbours.snapshot(),
            events,
            batch: None,
            out: Vec::new(),
            counts: Counts::new(context),
            health: Health::new(config, buffer_bytes),
            next_dump: clock.mono(),
            last_dump: Mono::default(),
            gap: None,
            caught_up: clock.wall(),
            totals: Totals::default(),
        })
    }

    fn now(&self) -> Now {
        Now { wall: self.context.clock.wall(), mono: self.context.clock.mono() }
    }

    /// Reads events until none waits (or the turn is over); returns how many datagrams.
    fn drain(&mut self) -> anyhow::Result<usize> {
        let mut batch = self.batch.take().unwrap_or_default();
        let result = self.drain_into(&mut batch);
        self.batch = Some(batch);
        result
    }

    fn drain_into(&mut self, batch: &mut Batch) -> anyhow::Result<usize> {
        self.tracker.observe(self.now());
        self.table = self.neighbours.snapshot();
        let mut read = 0;
        while read < DRAIN_DATAGRAMS_MAX {
            let now = self.now();
            match self.events.receive_batch(batch)? {
                Received::Data(batch) => {
                    read += batch.len();
                    for datagram in batch.iter() {
                        match datagram {
                            Some(datagram) => self.on_events(datagram, now)?,
                            None => self.counts.decode_errors.inc(),
                        }
                    }
                }
                Received::Overrun => self.on_overrun(),
                Received::Skipped => self.counts.decode_errors.inc(),
                Received::Empty => {
                    self.caught_up = now.wall;
                    break;
                }
            }
        }
        Ok(read)
    }

    fn on_events(&mut self, datagram: &[u8], now: Now) -> anyhow::Result<()> {
        for message in messages(datagram) {
            let Ok(raw) =
                message.map_err(decode::DecodeError::from).and_then(|m| decode::decode(&m))
            else {
                self.counts.decode_errors.inc();
                continue;
            };
            self.counts.events.inc();
            self.totals.events += 1;
            if self.is_excluded(&raw) {
                continue;
            }
            let flow = match raw.kind {
                Kind::New => {
                    self.counts.new.inc();
                    self.tracker.on_new(&raw, now)
                }
                Kind::Destroy => {
                    self.counts.destroyed.inc();
                    Some(self.tracker.on_destroy(&raw, now))
                }
                Kind::Update => None,
            };
            if let Some(flow) = flow {
                self.give(flow, now.wall)?;
            }
        }
        Ok(())
    }

    fn is_excluded(&self, raw: &Raw) -> bool {
        !self.config.loopback && (is_loopback(raw.orig.src) || is_loopback(raw.orig.dst))
    }

    /// Does not wait for the next dump to say that events have begun.
    fn show_life(&mut self) {
        if self.health.on_life(&self.totals) {
            self.context.state.set(self.health.line(self.tracker.open()));
        }
    }

    /// The kernel could not queue events for us: ask for a dump soon, not too often.
    fn on_overrun(&mut self) {
        self.counts.enobufs.inc();
        self.gap.get_or_insert(self.caught_up);
        self.dump_soon();
    }

    /// Whether a dump that is due waits for the kernel's garbage collector.
    fn postpone_dump(&mut self) -> bool {
        let now = self.context.clock.mono();
        let pause = self.health.pause(self.config);
        let entries = entries_in_table();
        let wait = entries.is_some_and(|n| n > DUMP_ENTRIES_CALM)
            && !self.health.is_polling()
            && now.since(self.last_dump) < pause * DUMP_POSTPONED_PAUSES;
        if wait {
            self.next_dump = now.plus(DUMP_ASK_AGAIN);
            self.counts.dumps_postponed.inc();
        }
        wait
    }

    /// Reads the whole connection table.
    fn dump(&mut self) -> anyhow::Result<()> {
        let now = self.now();
        self.tracker.observe(now);
        self.tracker.timeouts = Timeouts::read(Path::new(SYSCTL_FOLDER));
        self.tracker.begin_dump(uptime(), now);
        let gap = self.gap.take();
        let (pieces, outcome) = dump::start(self.context)?;
        let mut complete = true;
        loop {
            self.drain()?;
            match pieces.recv_timeout(DUMP_DRAIN_EVERY) {
                Ok(piece) => complete &= self.on_dump_piece(&piece)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        complete &= outcome.join().unwrap_or_else(|_| Err(anyhow!("the dump's reader died")))?;
        self.finish_dump(complete, gap)
    }

    /// False when the piece could not be read to its end.
    fn on_dump_piece(&mut self, piece: &[u8]) -> anyhow::Result<bool> {
        let now = self.now();
        for message in messages(piece) {
            let Ok(message) = message else {
                self.counts.decode_errors.inc();
                return Ok(false);
            };
            if message.kind >= NLMSG_MIN_TYPE {
                self.on_dump_entry(&message, now)?;
            }
        }
        Ok(true)
    }

    fn on_dump_entry(&mut self, message: &Message<'_>, now: Now) -> anyhow::Result<()> {
        let Ok(raw) = decode::decode(message) else {
            self.counts.decode_errors.inc();
            return Ok(());
        };
        self.counts.dump_entries.inc();
        self.totals.counted |= raw.out.is_some();
        if !self.is_excluded(&raw)
            && let Some(flow) = self.tracker.on_dump(&raw, now)
        {
            self.give(flow, now.wall)?;
        }
        Ok(())
    }

    fn finish_dump(&mut self, complete: bool, gap: Option<Timestamp>) -> anyhow::Result<()> {
        // DESTROYs that the dump itself caused, and NEWs it was faster than.
        self.drain()?;
        let now = self.now();
        let mut flows = Vec::new();
        let summary = self.tracker.finish_dump(complete, now, |flow| flows.push(flow));
        for flow in flows {
            self.give(flow, now.wall)?;
        }
        self.counts.dumps.inc();
        self.counts.missed_new.add(summary.missed_new);
        self.counts.vanished.add(summary.vanished);
        let stats = self.tracker.take_stats();
        self.counts.tracker_full.add(stats.full);
        self.counts.untracked_ends.add(stats.untracked_ends);
        self.counts.clock_jumps.add(stats.clock_jumps);
        if let Some(from) = gap {
            self.give_gap(from, now.wall)?;
        }
        self.deliver()?;
        let totals = std::mem::take(&mut self.totals);
        self.health.on_dump(&summary, &totals, gap.is_some());
        self.context.state.set(self.health.line(self.tracker.open()));
        self.last_dump = now.mono;
        self.next_dump = now.mono.plus(self.health.pause(self.config));
        if self.gap.is_some() {
            // Lost again while mending.
            self.dump_soon();
        }
        Ok(())
    }

    fn dump_soon(&mut self) {
        let earliest = self.last_dump.plus(Duration::from_secs(self.config.resync_seconds));
        self.next_dump = self.next_dump.min(earliest);
    }

    fn give_gap(&mut self, from: Timestamp, now: Timestamp) -> anyhow::Result<()> {
        let gap = Gap { collector: "conntrack".into(), from, reason: "enobufs".into(), lost: None };
        self.push(Event { time: now, body: Body::Gap(gap) })
    }

    /// Adds what the neighbour table knows and queues the record.
    fn give(&mut self, mut flow: Flow, time: Timestamp) -> anyhow::Result<()> {
        if let Some(neighbour) = self.table.get(&flow.src.ip) {
            flow.mac = Some(neighbour.mac);
            flow.iface = Some(neighbour.iface.as_ref().to_owned());
        }
        self.push(Event { time, body: Body::Flow(flow) })
    }

    fn push(&mut self, event: Event) -> anyhow::Result<()> {
        self.out.push(event);
        if self.out.len() >= DELIVERY_EVENTS_MAX { self.deliver() } else { Ok(()) }
    }

    /// Waits while the pipeline is behind: the socket's buffer is the queue.
    fn deliver(&mut self) -> anyhow::Result<()> {
        if self.out.is_empty() {
            return Ok(());
        }
        let events = std::mem::take(&mut self.out);
        Ok(self.context.outbox.send(Delivery { events, checkpoint: None })?)
    }
}

const fn is_loopback(ip: IpAddr) -> bool {
    ip.is_loopback()
}

/// How long the machine has been running.
fn uptime() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/uptime").ok()?;
    let seconds: f64 = text.split_whitespace().next()?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}
