//! DNS as it passes by: messages of port 53, UDP and TCP, copied to us by NFLOG.
//!
//! In: the first 512 bytes of each packet that a rule `log group N` copied. Out: one [`Dns`]
//! record per exchange. It sees what no resolver's log shows: clients that ask somebody
//! else, and what they are told. Runs on a thread of its own. Budget: 5 us a packet.
//!
//! bytes -> `netlink::nflog` -> `packet` -> [`tcp`] -> `dns_wire` -> [`join`] -> delivery.
//!
//! Invariants: a packet seen on two hooks makes one record; lost packets are counted and
//! told as a gap, and while some are lost every client has the same share of attention; a
//! message that cannot be read is counted; nothing here can hold up a packet. Losses are
//! counted by the number of the next packet: those at the very end of a flood show with it.

pub mod join;
mod order;
mod shares;
pub mod tcp;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use agentmon_core::Event;
use agentmon_core::dns_wire;
use agentmon_core::event::{Body, Dns, Endpoint};
use agentmon_core::service::proto;
use agentmon_core::time::{Mono, Timestamp};
use serde::{Deserialize, Serialize};

use super::firewall::send;
use super::gaps::Gaps;
use super::neighbours::{Neighbours, Table};
use super::{Collector, Context};
use crate::counters::Counter;
use crate::netlink::nflog::{Group, Logged, Turn};
use crate::packet::{self, Packet, Transport};
use join::{Exchanges, Seen};
use shares::Shares;
use tcp::{Segment, Streams};

/// What the events of this collector are marked with.
pub(crate) const SOURCE: &str = "passive-dns";
/// Most answers fit; of longer ones what was copied is read.
const COPY_BYTES: u32 = 512;
/// An answer must be known before the connection it explains: nothing waits in the kernel.
const BATCH: u32 = 1;
const PORT: u16 = 53;
/// Most machines that ask for others.
const RESOLVERS_MAX: usize = 64;
/// Longest wait, so that time-outs and the wish to stop are heard.
const WAIT_MAX: Duration = Duration::from_millis(250);
/// Only a turn with so many packets is followed by a nap: a nap would blur the latency of
/// quiet hours, when a wake-up per packet costs nothing.
const BUSY_PACKETS: u64 = 32;
const NAP: Duration = Duration::from_millis(20);

/// Settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether this collector runs.
    pub enabled: bool,
    /// Number of the NFLOG group to which the firewall's rules copy port 53.
    pub group: u16,
    /// Most questions waiting for their answer, about 250 bytes each.
    pub exchanges_max: usize,
    /// Machines that ask for others, such as a Pi-hole whose log another sensor reads: what
    /// they ask names connections, but is not told of them. One whose log is read here
    /// (`dnsmasq_log.paths`) is found out without this.
    pub resolvers: Vec<IpAddr>,
}

impl Default for Config {
    fn default() -> Self {
        // 4,096: 800 questions a second, none of them answered, for 5 s.
        Self { enabled: true, group: 6, exchanges_max: 4_096, resolvers: Vec::new() }
    }
}

impl Config {
    /// Whether the values make sense.
    ///
    /// # Errors
    /// The key, and what is allowed.
    pub fn validate(&self) -> Result<(), (&'static str, String)> {
        let n = self.exchanges_max;
        if !(16..=1_048_576).contains(&n) {
            return Err(("exchanges_max", format!("want 16 to 1048576, not {n}")));
        }
        if self.resolvers.len() > RESOLVERS_MAX {
            let n = self.resolvers.len();
            return Err(("resolvers", format!("want at most {RESOLVERS_MAX}, not {n}")));
        }
        Ok(())
    }
}

/// The collector.
#[derive(Debug)]
pub struct Source {
    config: Config,
    neighbours: Neighbours,
}

impl Source {
    /// Not yet reading; MACs only as far as the packets carry them.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self::with_neighbours(config, Neighbours::default())
    }

    /// Not yet reading; MACs that the packets do not carry come from that table.
    #[must_use]
    pub fn with_neighbours(config: Config, neighbours: Neighbours) -> Self {
        Self { config, neighbours }
    }
}

impl Collector for Source {
    fn name(&self) -> &str {
        SOURCE
    }

    fn run(&mut self, context: &Context) -> anyhow::Result<()> {
        let mut group = Group::bind(self.config.group, COPY_BYTES, BATCH)?;
        let mut reader = Reader::new(&self.config, context);
        context.state.set(format!(
            "ok: no packet so far; the firewall must copy port 53 to group {} \
             (`agentmon-router setup --rules` does that)",
            self.config.group
        ));
        while !context.stop.is_set() {
            group.wait(WAIT_MAX)?;
            let packets = reader.turn(context, &mut group, self.neighbours.snapshot())?;
            if packets > BUSY_PACKETS {
                std::thread::sleep(NAP);
            }
        }
        Ok(())
    }
}

/// What one run keeps between reads.
struct Reader {
    dns: Listener,
    gaps: Gaps,
    /// Last time that nothing was missing.
    intact: Timestamp,
    total: u64,
    packets: Counter,
    lost: Counter,
    left_out: Counter,
    decode_errors: Counter,
    repeated: Counter,
    crowded_out: Counter,
    relayed: Counter,
    broken_streams: Counter,
}

impl Reader {
    fn new(config: &Config, context: &Context) -> Self {
        let counter = |name: &str| context.counters.counter(name);
        Self {
            dns: Listener::new(config.exchanges_max),
            gaps: Gaps::new(SOURCE),
            intact: context.clock.wall(),
            total: 0,
            packets: counter("passive_dns.packets"),
            lost: counter("drop.passive_dns.enobufs"),
            left_out: counter("drop.passive_dns.flood"),
            decode_errors: counter("passive_dns.decode_errors"),
            repeated: counter("passive_dns.repeated"),
            crowded_out: counter("passive_dns.crowded_out"),
            relayed: counter("passive_dns.relayed"),
            broken_streams: counter("passive_dns.broken_streams"),
        }
    }

    /// Reads what waits and delivers it; returns how many packets that were.
    fn turn(
        &mut self,
        context: &Context,
        group: &mut Group,
        table: Arc<Table>,
    ) -> anyhow::Result<u64> {
        let (wall, mono) = (context.clock.wall(), context.clock.mono());
        let mut found = Vec::new();
        let now = Moment { wall, mono, earliest: self.intact };
        let turn = group.read(|logged| self.dns.packet(logged, &now, &mut found))?;
        found.extend(self.dns.exchanges.expire(mono).into_iter().map(|dns| (wall, dns)));
        self.count(&turn, wall, mono);
        if turn.packets > 0 {
            self.total += turn.packets;
            context.state.set(format!("ok: {} packets", self.total));
        }
        let event = |(time, mut dns): (Timestamp, Dns)| {
            dns.mac = dns.mac.or_else(|| table.get(&dns.client).map(|n| n.mac));
            Event { time, body: Body::Dns(dns) }
        };
        let mut events: Vec<Event> = found.into_iter().map(event).collect();
        events.extend(self.gaps.take(wall, mono));
        send(context, events)?;
        Ok(turn.packets)
    }

    fn count(&mut self, turn: &Turn, wall: Timestamp, mono: Mono) {
        self.packets.add(turn.packets);
        self.lost.add(turn.lost);
        self.decode_errors.add(turn.unreadable + std::mem::take(&mut self.dns.unreadable));
        self.repeated.add(std::mem::take(&mut self.dns.exchanges.repeated));
        self.crowded_out.add(std::mem::take(&mut self.dns.exchanges.crowded_out));
        self.relayed.add(std::mem::take(&mut self.dns.exchanges.relayed));
        self.broken_streams.add(std::mem::take(&mut self.dns.streams.broken));
        self.dns.shares.lost(turn.lost, mono);
        self.left_out.add(std::mem::take(&mut self.dns.shares.left_out));
        self.gaps.note(turn.lost, self.intact);
        self.intact = wall;
    }
}

/// When a turn of reading takes place.
#[derive(Clone, Copy, Debug)]
struct Moment {
    wall: Timestamp,
    mono: Mono,
    /// When the queue was last known to be empty: no packet of this turn is older.
    earliest: Timestamp,
}

impl Moment {
    /// When the packet passed. A connection is explained by an answer *before* it, so where
    /// the kernel gives no stamp (packets made on this machine), the error must be to the
    /// early side.
    fn of(&self, logged: &Logged<'_>) -> Timestamp {
        logged.time_near(self.wall).unwrap_or(self.earliest.min(self.wall))
    }
}

/// Finished exchanges and when they finished.
type Found = Vec<(Timestamp, Dns)>;

/// Packets -> exchanges, without I/O.
#[derive(Debug)]
struct Listener {
    exchanges: Exchanges,
    streams: Streams,
    shares: Shares,
    /// Packets that were no DNS.
    unreadable: u64,
}

impl Listener {
    fn new(exchanges_max: usize) -> Self {
        let exchanges = Exchanges::new(exchanges_max);
        Self { exchanges, streams: Streams::default(), shares: Shares::default(), unreadable: 0 }
    }

    /// One copied packet; finished exchanges go to `found`.
    fn packet(&mut self, logged: &Logged<'_>, now: &Moment, found: &mut Found) {
        let Ok(packet) = packet::parse(logged.payload) else {
            self.unreadable += 1;
            return;
        };
        let client = if packet.dst.port == PORT { packet.src.ip } else { packet.dst.ip };
        if !self.shares.admit(client, now.mono) {
            return;
        }
        match packet.transport {
            Transport::Udp { data } => self.message(data, &packet, logged, now, found),
            Transport::Tcp { sequence, flags, data, data_length } => {
                let segment = Segment { sequence, flags, data, length: data_length };
                let mut messages = Vec::new();
                let direction = (packet.src, packet.dst);
                self.streams.segment(direction, &segment, now.mono, |m| messages.push(m.to_vec()));
                for message in messages {
                    self.message(&message, &packet, logged, now, found);
                }
            }
            // A later fragment of a datagram: its first one told what it could.
            Transport::Other if packet.proto == proto::UDP => {}
            Transport::Other => self.unreadable += 1,
        }
    }

    fn message(
        &mut self,
        bytes: &[u8],
        packet: &Packet<'_>,
        logged: &Logged<'_>,
        now: &Moment,
        found: &mut Found,
    ) {
        let Ok(message) = dns_wire::decode(bytes) else {
            self.unreadable += 1;
            return;
        };
        let Some((client, server)) = sides(packet, message.response) else {
            self.unreadable += 1;
            return;
        };
        let mac = logged.mac.filter(|mac| !message.response && !mac.is_group());
        let stamp = logged.time_near(now.wall);
        // Only what this machine sends leaves without having come in.
        let own = !message.response && logged.in_index.is_none() && logged.out_index.is_some();
        let seen = Seen { client, server: server.ip, mac, mono: now.mono, stamp, own };
        let mut records = Vec::new();
        self.exchanges.message(&seen, message, &mut records);
        found.extend(records.into_iter().map(|dns| (now.of(logged), dns)));
    }
}

/// Client and server, if the message goes the way it says: questions to port 53, answers
/// from there.
fn sides(packet: &Packet<'_>, response: bool) -> Option<(Endpoint, Endpoint)> {
    let (client, server) =
        if response { (packet.dst, packet.src) } else { (packet.src, packet.dst) };
    (server.port == PORT).then_some((client, server))
}

#[cfg(test)]
mod tests;
