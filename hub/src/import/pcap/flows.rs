//! From packets to connections.
//!
//! In: packets in the order of the capture, with their times. Out: one flow for each
//! connection, when it has ended: by FIN of both sides or RST, by a new SYN on the same ends,
//! or by silence. Pure; time is the packets'.
//!
//! Invariants: at most [`FLOWS_MAX`] connections and [`FRAGMENTS_MAX`] datagrams in pieces;
//! beyond, the one next to be given up ends early, counted. What comes out and in which order
//! is decided by the packets alone. Time that goes back makes no negative duration.
//!
//! Who began it: whoever sent the first SYN; without one, who does not use the well-known
//! port, else the first to speak.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use agentmon_core::event::{Body, Endpoint, Flow, FlowPhase, TcpState, Volume};
use agentmon_core::service::proto;
use agentmon_core::{Event, Timestamp};
use agentmon_router::packet::{Packet, TCP_FIN, TCP_RST, TCP_SYN, Transport};

use crate::import::epoch;

/// Most connections followed: a full table of a large router.
const FLOWS_MAX: usize = 262_144;
/// Most datagrams in pieces.
const FRAGMENTS_MAX: usize = 4_096;
/// TCP flag bit.
const TCP_ACK: u8 = 0x10;
/// Ports below are a service's.
const WELL_KNOWN: u16 = 1_024;

/// How long silence lasts until a connection is over. An open TCP connection: RFC 5382's
/// least, which spans two keep-alives at their default. The rest as Linux has it.
const TCP_OPEN: Duration = Duration::from_secs(2 * 3_600 + 4 * 60);
const TCP_OPENING: Duration = Duration::from_secs(120);
/// Late acknowledgements.
const TCP_CLOSED: Duration = Duration::from_secs(10);
const UDP: Duration = Duration::from_secs(120);
const ICMP: Duration = Duration::from_secs(30);
const OTHER: Duration = Duration::from_secs(600);

/// The protocol and both ends, the smaller first.
type Key = (u8, End, End);
type End = (IpAddr, u16);

/// A connection on its way.
#[derive(Debug)]
struct Live {
    src: Endpoint,
    dst: Endpoint,
    /// Of ICMP: what its first packet was.
    kind: u16,
    start: Timestamp,
    last: Timestamp,
    until: Timestamp,
    volume: Volume,
    state: TcpState,
    /// Who has sent a FIN: its beginner, the other.
    fins: [bool; 2],
}

/// All that are open.
#[derive(Debug, Default)]
pub(super) struct Table {
    flows: HashMap<Key, Live>,
    /// By when they are given up.
    order: BTreeSet<(Timestamp, Key)>,
    /// Of datagrams in pieces: which connection, and whether its beginner sent them.
    fragments: HashMap<(IpAddr, IpAddr, u8, u32), (Key, bool)>,
    /// Ended before their time, to make room.
    pub(super) crowded_out: u64,
    /// Pieces whose first one was not seen.
    pub(super) stray: u64,
}

impl Table {
    /// One packet; connections that are over go to `ended`. `piece`: of a fragment, what all
    /// of its datagram share, and whether it is a later one.
    pub(super) fn packet(
        &mut self,
        time: Timestamp,
        packet: &Packet<'_>,
        piece: Option<(u32, bool)>,
        ended: &mut Vec<Event>,
    ) {
        let (src, dst) = ends(packet);
        let datagram = piece.map(|(id, _)| (src.ip, dst.ip, packet.proto, id));
        if let (Some(datagram), Some((_, true))) = (datagram, piece) {
            match self.fragments.get(&datagram).copied() {
                Some((key, out)) => self.count(time, key, out, packet),
                None => self.stray += 1,
            }
            return;
        }
        let key = key(packet.proto, src, dst);
        let flags = flags(packet);
        let fresh = flags & (TCP_SYN | TCP_ACK) == TCP_SYN;
        // The same ends again, and no repeated SYN.
        let over =
            |live: &Live| fresh && !matches!(live.state, TcpState::SynSent | TcpState::SynRecv);
        if self.flows.get(&key).is_some_and(over) {
            self.end(&key, ended);
        }
        if !self.flows.contains_key(&key) {
            self.make_room(ended);
            self.begin(time, key, packet);
        }
        let out = self.flows.get(&key).is_some_and(|live| live.src == src);
        self.count(time, key, out, packet);
        if let Some(datagram) = datagram {
            if self.fragments.len() >= FRAGMENTS_MAX {
                self.fragments.clear();
            }
            self.fragments.insert(datagram, (key, out));
        }
    }

    fn begin(&mut self, time: Timestamp, key: Key, packet: &Packet<'_>) {
        let (src, dst) = ends(packet);
        let flags = flags(packet);
        let answer = flags & TCP_SYN != 0 && flags & TCP_ACK != 0;
        let server_first = flags & TCP_SYN == 0
            && has_ports(packet.proto)
            && src.port < WELL_KNOWN
            && dst.port >= WELL_KNOWN;
        let (src, dst) = if answer || server_first { (dst, src) } else { (src, dst) };
        let live = Live {
            src,
            dst,
            kind: packet.dst.port,
            start: time,
            last: time,
            until: time,
            volume: Volume::default(),
            state: TcpState::None,
            fins: [false; 2],
        };
        self.order.insert((live.until, key));
        self.flows.insert(key, live);
    }

    fn count(&mut self, time: Timestamp, key: Key, out: bool, packet: &Packet<'_>) {
        let Some(live) = self.flows.get_mut(&key) else { return };
        let (bytes, packets) = match out {
            true => (&mut live.volume.bytes_out, &mut live.volume.packets_out),
            false => (&mut live.volume.bytes_in, &mut live.volume.packets_in),
        };
        *bytes = bytes.saturating_add(u64::from(packet.length));
        *packets = packets.saturating_add(1);
        live.last = live.last.max(time);
        if packet.proto == proto::TCP {
            live.segment(flags(packet), out);
        }
        self.order.remove(&(live.until, key));
        live.until = live.last.plus(live.patience(key.0));
        self.order.insert((live.until, key));
    }

    /// What has been silent for too long at that time.
    pub(super) fn expire(&mut self, now: Timestamp, ended: &mut Vec<Event>) {
        while let Some((_, key)) = self.order.first().copied().filter(|(until, _)| *until <= now) {
            self.end(&key, ended);
        }
    }

    fn make_room(&mut self, ended: &mut Vec<Event>) {
        if self.flows.len() < FLOWS_MAX {
            return;
        }
        if let Some((_, key)) = self.order.first().copied() {
            self.crowded_out += 1;
            self.end(&key, ended);
        }
    }

    fn end(&mut self, key: &Key, ended: &mut Vec<Event>) {
        let Some(live) = self.flows.remove(key) else { return };
        self.order.remove(&(live.until, *key));
        ended.push(live.told(key, FlowPhase::End));
    }

    /// What goes on at the capture's end, as it stands; oldest first.
    pub(super) fn open(&self) -> Vec<Event> {
        let live =
            |(_, key): &(Timestamp, Key)| Some(self.flows.get(key)?.told(key, FlowPhase::Update));
        self.order.iter().filter_map(live).collect()
    }
}

impl Live {
    fn segment(&mut self, flags: u8, out: bool) {
        if let Some(fin) = self.fins.get_mut(usize::from(!out)) {
            *fin |= flags & TCP_FIN != 0;
        }
        self.state = match self.state {
            TcpState::Close => TcpState::Close,
            _ if flags & TCP_RST != 0 => TcpState::Close,
            _ if self.fins == [true; 2] => TcpState::TimeWait,
            _ if self.fins != [false; 2] => TcpState::FinWait,
            TcpState::None | TcpState::SynSent if flags & TCP_SYN != 0 => match flags & TCP_ACK {
                0 => TcpState::SynSent,
                _ => TcpState::SynRecv,
            },
            _ => TcpState::Established,
        };
    }

    fn patience(&self, protocol: u8) -> Duration {
        match (protocol, self.state) {
            (proto::TCP, TcpState::TimeWait | TcpState::Close) => TCP_CLOSED,
            (proto::TCP, TcpState::SynSent | TcpState::SynRecv) => TCP_OPENING,
            (proto::TCP, _) => TCP_OPEN,
            (proto::UDP, _) => UDP,
            (proto::ICMP | proto::ICMPV6, _) => ICMP,
            _ => OTHER,
        }
    }

    fn told(&self, key: &Key, phase: FlowPhase) -> Event {
        let named = format!("{key:?} {}", self.start);
        let icmp = matches!(key.0, proto::ICMP | proto::ICMPV6);
        let dst = Endpoint { port: if icmp { self.kind } else { self.dst.port }, ..self.dst };
        let flow = Flow {
            id: epoch(&[b"pcap-flow", named.as_bytes()]),
            phase,
            proto: key.0,
            src: self.src,
            dst,
            nat_src: None,
            nat_dst: None,
            start: Some(self.start),
            duration_ms: u64::try_from(self.last.since(self.start).as_millis()).ok(),
            volume: Some(self.volume),
            tcp_state: (key.0 == proto::TCP).then_some(self.state),
            replied: self.volume.packets_in > 0,
            offloaded: false,
            iface: None,
            mac: None,
            resolved: None,
        };
        Event { time: self.last, body: Body::Flow(flow) }
    }
}

const fn has_ports(protocol: u8) -> bool {
    matches!(protocol, proto::TCP | proto::UDP)
}

/// ICMP's are the same both ways: its kinds are no ports.
fn ends(packet: &Packet<'_>) -> (Endpoint, Endpoint) {
    match has_ports(packet.proto) {
        true => (packet.src, packet.dst),
        false => (Endpoint::new(packet.src.ip, 0), Endpoint::new(packet.dst.ip, 0)),
    }
}

fn key(protocol: u8, a: Endpoint, b: Endpoint) -> Key {
    let (a, b) = ((a.ip, a.port), (b.ip, b.port));
    (protocol, a.min(b), a.max(b))
}

const fn flags(packet: &Packet<'_>) -> u8 {
    match packet.transport {
        Transport::Tcp { flags, .. } => flags,
        _ => 0,
    }
}
