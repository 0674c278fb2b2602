//! Connections that the kernel's part told of, of every network namespace.
//!
//! In: [`Flow`]s as they begin and end, with their owners. Out: [`Connection`]s: one when it
//! has lasted for [`YOUNG`], one now and then while it lasts, one at the end. Pure.
//!
//! TCP is told when it is established; of UDP each peer of a socket is a connection, which is
//! over when the socket is closed or [`UDP_IDLE`] after the last word of it. A connected UDP
//! socket has no port of its own before its first datagram: it waits until a dump or its end
//! tells that.
//!
//! Invariants: told as over once; at most [`FLOWS_MAX`] are followed, of one UDP socket
//! [`PEERS_MAX`] peers; what is beyond is counted.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use agentmon_core::Timestamp;
use agentmon_core::event::{Connection, Direction, Endpoint, FlowPhase, Volume};
use agentmon_core::service::proto::{TCP, UDP};
use agentmon_core::time::Mono;
use xxhash_rust::xxh3::xxh3_64;

use crate::linux::diag::Seen;
use crate::linux::ebpf::{Flow, Way};
use crate::sockets::{Owner, UPDATE_EVERY};

/// Most connections followed.
pub const FLOWS_MAX: usize = 65_536;
/// Most peers of one UDP socket followed.
pub const PEERS_MAX: usize = 256;
/// The kernel's part says again each minute that a socket still sends to a peer.
const UDP_IDLE: Duration = Duration::from_secs(180);
/// Ended ones remembered until the next dump, which may have begun before.
const ENDED_MAX: usize = 16_384;
/// Dumps that lack a connection before it is taken for over: its end was lost.
const MISSED_MAX: u8 = 2;
/// One that is over sooner is told once, at its end: that halves what a busy host tells.
pub const YOUNG: Duration = Duration::from_millis(500);
/// How long dumps come sooner for one that was accepted by nobody known.
const OWNER_WANTED: Duration = Duration::from_secs(10);
/// Ports from here on are picked by systems, below by people (RFC 6335 and Linux's default).
const PICKED_FROM: u16 = 32_768;

#[derive(Clone, Debug)]
struct Live {
    id: u64,
    flow: Flow,
    owner: Option<Owner>,
    first: Timestamp,
    since: Mono,
    last: Mono,
    told: Option<Mono>,
    missed: u8,
    /// What the kernel says of its length, sleep included.
    lasted: Option<Duration>,
}

/// Both ends of a connection, as a dump has them.
type Ends = (u8, Endpoint, Endpoint);

/// All of them.
#[derive(Debug, Default)]
pub struct Flows {
    live: HashMap<u64, Vec<Live>>,
    count: usize,
    ended: VecDeque<(Ends, u64)>,
    /// Not told yet: short ones are told once, at their end.
    young: VecDeque<(Mono, u64)>,
    netns: u64,
    boot: u64,
    /// Whether what goes from this machine to itself is told.
    loopback: bool,
    /// Connections that could not be followed.
    pub full: u64,
    /// Ends that were never told.
    pub lost_ends: u64,
}

/// What a dump need not tell again.
#[derive(Debug, Default)]
pub struct Told {
    ends: HashSet<Ends>,
    cookies: HashSet<u64>,
}

impl Told {
    /// Whether the kernel's part told of this socket.
    #[must_use]
    pub fn has(&self, seen: &Seen) -> bool {
        match seen.proto {
            // One that is not connected is told as waiting, whatever it sends.
            UDP => !seen.listens && self.cookies.contains(&seen.cookie),
            _ => self.ends.contains(&(seen.proto, seen.local, seen.remote)),
        }
    }
}

impl Flows {
    /// `netns`: this program's own network namespace; `boot`: makes those of two boots differ.
    #[must_use]
    pub fn new(boot: &str, netns: u64, loopback: bool) -> Self {
        Self { boot: xxh3_64(boot.as_bytes()), netns, loopback, ..Self::default() }
    }

    /// How many are followed.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether none is.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether this one's beginning was told.
    #[must_use]
    pub fn has(&self, flow: &Flow) -> bool {
        self.live.contains_key(&flow.socket)
    }

    /// Whether it is one of this program's own network namespace.
    #[must_use]
    pub fn is_ours(&self, flow: &Flow) -> bool {
        u64::from(flow.netns) == self.netns
    }

    fn wanted(&self, flow: &Flow) -> bool {
        let inner = |end: &Endpoint| end.ip.is_loopback();
        let internal = inner(&flow.remote)
            || (inner(&flow.local) && (flow.way == Way::Listens || flow.remote.port == 0));
        self.loopback || !internal
    }

    /// One began.
    pub fn began(
        &mut self,
        flow: &Flow,
        owner: Option<Owner>,
        now: Timestamp,
        mono: Mono,
    ) -> Vec<Connection> {
        let mut out = Vec::new();
        if !self.wanted(flow) {
            return out;
        }
        if flow.proto == UDP {
            let peers = self.live.entry(flow.socket).or_default();
            if let Some(live) = peers.iter_mut().find(|l| l.flow.remote == flow.remote) {
                live.last = mono;
                return out;
            }
            if peers.len() >= PEERS_MAX {
                self.full += 1;
                return out;
            }
        } else if let Some(old) = self.live.remove(&flow.socket) {
            // The socket is another one by now.
            self.lost_ends += 1;
            out.extend(self.over(old, None, now, mono));
        }
        if self.count >= FLOWS_MAX {
            self.full += 1;
            return out;
        }
        let mut live = self.fresh(flow, owner, now, mono);
        if flow.way == Way::Listens {
            live.told = Some(mono);
            out.push(tell(&live, FlowPhase::Update, mono));
        } else {
            if self.young.len() >= FLOWS_MAX {
                // Told at its end.
                self.young.pop_front();
            }
            self.young.push_back((mono, flow.socket));
        }
        self.count += 1;
        self.live.entry(flow.socket).or_default().push(live);
        out
    }

    fn fresh(&self, flow: &Flow, owner: Option<Owner>, now: Timestamp, mono: Mono) -> Live {
        let words = [self.boot, flow.socket, flow.at_ns, u64::from(flow.remote.port)];
        let mut key: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
        key.extend_from_slice(flow.remote.ip.to_string().as_bytes());
        Live {
            id: xxh3_64(&key),
            flow: *flow,
            owner,
            first: now,
            since: mono,
            last: mono,
            told: None,
            missed: 0,
            lasted: None,
        }
    }

    /// One is over, or (UDP) all of a socket are. `closer`: who closed it, where that is known.
    pub fn ended(
        &mut self,
        flow: &Flow,
        closer: Option<Owner>,
        now: Timestamp,
        mono: Mono,
    ) -> Vec<Connection> {
        if let Some(all) = self.live.remove(&flow.socket) {
            return self.over(all, Some((flow, closer)), now, mono);
        }
        if flow.proto != TCP || flow.way == Way::Listens || !self.wanted(flow) {
            return Vec::new();
        }
        // Nobody answered, or it is older than the kernel's part.
        let live = self.fresh(flow, closer, now, mono);
        vec![tell(&live, FlowPhase::End, mono)]
    }

    fn over(
        &mut self,
        all: Vec<Live>,
        last: Option<(&Flow, Option<Owner>)>,
        _now: Timestamp,
        mono: Mono,
    ) -> Vec<Connection> {
        self.count -= all.len();
        let mut out = Vec::with_capacity(all.len());
        for mut live in all {
            if let Some((flow, closer)) = &last {
                live.flow.volume = flow.volume;
                if flow.way == Way::In || live.owner.is_none() {
                    live.owner = closer.clone().or(live.owner);
                }
                if live.flow.local.port == 0 {
                    live.flow.local = flow.local;
                }
                let span = Duration::from_nanos(flow.at_ns.saturating_sub(live.flow.at_ns));
                live.lasted = Some(span);
            }
            if self.ended.len() >= ENDED_MAX {
                self.ended.pop_front();
            }
            self.ended.push_back((ends(&live.flow), live.flow.cookie));
            out.push(tell(&live, FlowPhase::End, mono));
        }
        out
    }

    /// What a dump that was taken just now need not tell. What ended since the last one is
    /// forgotten with it.
    pub fn told(&mut self) -> Told {
        let mut told = Told::default();
        for live in self.live.values().flatten().filter(|l| self.netns == u64::from(l.flow.netns)) {
            told.ends.insert(ends(&live.flow));
            told.cookies.insert(live.flow.cookie);
        }
        for (ends, cookie) in self.ended.drain(..) {
            told.ends.insert(ends);
            told.cookies.insert(cookie);
        }
        told
    }

    /// Everything that is open in the own namespace: counts, missing ends, late ports.
    pub fn dumped(&mut self, all: &[Seen], now: Timestamp, mono: Mono) -> Vec<Connection> {
        let tcp: HashMap<Ends, &Seen> = all
            .iter()
            .filter(|s| s.proto == TCP)
            .map(|s| ((s.proto, s.local, s.remote), s))
            .collect();
        let udp: HashMap<u64, &Seen> =
            all.iter().filter(|s| s.proto == UDP).map(|s| (s.cookie, s)).collect();
        let (mut gone, mut out) = (Vec::new(), Vec::new());
        for (socket, peers) in &mut self.live {
            for live in peers.iter_mut().filter(|l| self.netns == u64::from(l.flow.netns)) {
                if live.flow.proto == UDP {
                    let local = udp.get(&live.flow.cookie).map(|s| s.local);
                    if let Some(local) = local.filter(|l| live.flow.local.port == 0 && l.port != 0)
                    {
                        live.flow.local = local;
                        live.told = Some(mono);
                        out.push(tell(live, FlowPhase::Update, mono));
                    }
                    continue;
                }
                match tcp.get(&ends(&live.flow)) {
                    Some(seen) => {
                        live.flow.volume = seen.volume.unwrap_or(live.flow.volume);
                        live.missed = 0;
                    }
                    None => live.missed += 1,
                }
                if live.missed > MISSED_MAX {
                    gone.push(*socket);
                }
            }
        }
        for socket in gone {
            self.lost_ends += 1;
            let all = self.live.remove(&socket).unwrap_or_default();
            out.extend(self.over(all, None, now, mono));
        }
        out
    }

    /// Gives accepted connections of nobody to who waits at their port.
    pub fn adopt(
        &mut self,
        listener: impl Fn(u8, u16) -> Option<Owner>,
        mono: Mono,
    ) -> Vec<Connection> {
        let own = self.netns;
        let nobodys = |l: &&mut Live| {
            l.owner.is_none() && l.flow.way == Way::In && u64::from(l.flow.netns) == own
        };
        let mut out = Vec::new();
        for live in self.live.values_mut().flatten().filter(nobodys) {
            if let Some(owner) = listener(live.flow.proto, live.flow.local.port) {
                live.owner = Some(Owner { how: "listener", ..owner });
                out.push(tell(live, FlowPhase::Update, mono));
            }
        }
        out
    }

    /// Whether a dump is wanted soon: for a socket's own port, or for who waits at one.
    #[must_use]
    pub fn waits(&self, mono: Mono) -> bool {
        let nobodys = |l: &Live| {
            l.owner.is_none() && l.flow.way == Way::In && mono.since(l.since) < OWNER_WANTED
        };
        let waits = |l: &&Live| l.flow.local.port == 0 || nobodys(l);
        let ours = self.live.values().flatten().filter(|l| u64::from(l.flow.netns) == self.netns);
        ours.into_iter().any(|l| waits(&l))
    }

    /// Those that have lasted for [`YOUNG`] and are not told yet.
    pub fn grown(&mut self, mono: Mono) -> Vec<Connection> {
        let mut out = Vec::new();
        while let Some((_, socket)) = self.young.pop_front_if(|(at, _)| mono.since(*at) >= YOUNG) {
            let peers = self.live.get_mut(&socket).into_iter().flatten();
            for live in peers.filter(|l| l.told.is_none() && l.flow.local.port != 0) {
                live.told = Some(mono);
                out.push(tell(live, FlowPhase::Update, mono));
            }
        }
        out
    }

    /// What is due: not told for a while, or (UDP) without a word for long.
    pub fn due(&mut self, now: Timestamp, mono: Mono) -> Vec<Connection> {
        let (mut out, mut idle) = (Vec::new(), Vec::new());
        for (socket, peers) in &mut self.live {
            let silent = |l: &Live| l.flow.proto == UDP && mono.since(l.last) >= UDP_IDLE;
            if peers.iter().any(silent) {
                let (over, stay): (Vec<_>, Vec<_>) =
                    std::mem::take(peers).into_iter().partition(silent);
                *peers = stay;
                idle.push((*socket, over));
            }
            for live in peers.iter_mut() {
                let late = live.told.is_some_and(|told| mono.since(told) >= UPDATE_EVERY);
                if late && live.flow.way != Way::Listens {
                    live.told = Some(mono);
                    out.push(tell(live, FlowPhase::Update, mono));
                }
            }
        }
        for (socket, over) in idle {
            if self.live.get(&socket).is_some_and(Vec::is_empty) {
                self.live.remove(&socket);
            }
            out.extend(self.over(over, None, now, mono));
        }
        out
    }
}

const fn ends(flow: &Flow) -> Ends {
    (flow.proto, flow.local, flow.remote)
}

/// Nobody says who began with datagrams: a port that people pick, asked from one that a
/// system picked, is a server's.
const fn direction(flow: &Flow) -> Direction {
    match flow.way {
        Way::Listens => Direction::Listen,
        Way::In => Direction::In,
        Way::Out if flow.proto == UDP => {
            let serves = flow.local.port < PICKED_FROM && flow.remote.port >= PICKED_FROM;
            if serves { Direction::In } else { Direction::Out }
        }
        Way::Out => Direction::Out,
    }
}

fn tell(live: &Live, phase: FlowPhase, mono: Mono) -> Connection {
    let (flow, owner) = (&live.flow, live.owner.as_ref());
    let counted = flow.volume != Volume::default();
    let lasted = live.lasted.unwrap_or_else(|| mono.since(live.since));
    Connection {
        id: live.id,
        phase,
        process: owner.map(|o| o.process),
        pid: owner.map_or(0, |o| o.pid),
        name: owner.map(|o| o.name.clone()),
        proto: flow.proto,
        local: flow.local,
        remote: flow.remote,
        direction: direction(flow),
        start: Some(live.first),
        duration_ms: Some(u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX)),
        volume: (counted && flow.way != Way::Listens).then_some(flow.volume),
        user: Some(flow.uid.to_string()),
        container: owner.and_then(|o| o.container.clone()),
        how: owner.map_or("none", |o| o.how).to_owned(),
        resolved: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: u32 = 7;

    fn end(text: &str) -> Endpoint {
        let a: std::net::SocketAddr = text.parse().unwrap();
        Endpoint::new(a.ip(), a.port())
    }
    fn flow(socket: u64, proto: u8, local: &str, remote: &str) -> Flow {
        Flow {
            at_ns: socket * 1_000,
            socket,
            cookie: socket + 100,
            pid: 5,
            start_ns: 1,
            name: [0; 16],
            netns: OURS,
            uid: 1_000,
            proto,
            way: Way::Out,
            local: end(local),
            remote: end(remote),
            volume: Volume::default(),
        }
    }
    fn owner(pid: u32) -> Option<Owner> {
        Some(Owner {
            process: u64::from(pid),
            pid,
            name: "x".into(),
            container: None,
            how: "kernel",
        })
    }
    fn at(seconds: u64) -> (Timestamp, Mono) {
        (
            Timestamp::EPOCH.plus(Duration::from_secs(seconds)),
            Mono::from_nanos(seconds * 1_000_000_000),
        )
    }
    fn words(list: &[Connection]) -> Vec<String> {
        let word = |c: &Connection| {
            format!("{:?} {} {} {}>{}", c.phase, c.pid, c.direction.as_str(), c.local, c.remote)
        };
        list.iter().map(word).collect()
    }
    fn flows() -> Flows {
        Flows::new("b", u64::from(OURS), false)
    }
    fn seen(f: &Flow) -> Seen {
        Seen {
            cookie: f.cookie,
            inode: 1,
            proto: f.proto,
            local: f.local,
            remote: f.remote,
            listens: false,
            uid: 0,
            volume: Some(Volume { bytes_out: 9, ..Volume::default() }),
        }
    }

    /// Begins, and lasts long enough to be told.
    fn began(
        all: &mut Flows,
        flow: &Flow,
        owner: Option<Owner>,
        (t, m): (Timestamp, Mono),
    ) -> Vec<Connection> {
        let mut told = all.began(flow, owner, t, m);
        assert!(all.grown(m).is_empty(), "too young to be told");
        told.extend(all.grown(m.plus(YOUNG)));
        told
    }

    #[test]
    fn tcp_from_begin_to_end_with_true_length_and_bytes() {
        let (mut all, (t, m)) = (flows(), at(10));
        let mut one = flow(1, TCP, "192.0.2.1:40000", "203.0.113.5:443");
        one.at_ns = 1_000_000_000;
        assert_eq!(
            words(&began(&mut all, &one, owner(5), (t, m))),
            ["Update 5 out 192.0.2.1:40000>203.0.113.5:443"]
        );
        assert!(all.told().has(&seen(&one)), "a dump does not tell it again");
        // Told late, all at once: its length is the kernel's.
        one.at_ns = 1_050_000_000;
        one.volume = Volume { bytes_out: 1, bytes_in: 2, packets_out: 3, packets_in: 4 };
        let over = all.ended(&one, owner(5), t, m);
        assert_eq!((over[0].duration_ms, over[0].volume.unwrap().bytes_in), (Some(50), 2));
        assert!(all.is_empty());
        assert!(all.told().has(&seen(&one)), "nor one that ended while it was taken");
        assert!(!all.told().has(&seen(&one)), "but no longer than that");
    }

    #[test]
    fn who_closes_an_accepted_connection_had_it() {
        let (mut all, (t, m)) = (flows(), at(10));
        let mut one = flow(1, TCP, "192.0.2.1:22", "203.0.113.5:50000");
        one.way = Way::In;
        assert_eq!(
            words(&began(&mut all, &one, owner(1), (t, m))),
            ["Update 1 in 192.0.2.1:22>203.0.113.5:50000"]
        );
        assert_eq!(
            words(&all.ended(&one, owner(9), t, m)),
            ["End 9 in 192.0.2.1:22>203.0.113.5:50000"]
        );
        // One that nobody answered is told as over, one that waits only as beginning.
        let refused = flow(2, TCP, "192.0.2.1:40001", "203.0.113.5:444");
        assert_eq!(
            words(&all.ended(&refused, owner(5), t, m)),
            ["End 5 out 192.0.2.1:40001>203.0.113.5:444"]
        );
        let mut waits = flow(3, TCP, "0.0.0.0:80", "0.0.0.0:0");
        waits.way = Way::Listens;
        assert_eq!(
            words(&began(&mut all, &waits, owner(5), (t, m))),
            ["Update 5 listen 0.0.0.0:80>0.0.0.0:0"]
        );
        let inside = flow(4, TCP, "127.0.0.1:40001", "127.0.0.1:444");
        assert!(began(&mut all, &inside, owner(5), (t, m)).is_empty());
        assert!(all.ended(&inside, owner(5), t, m).is_empty());
    }

    #[test]
    fn each_peer_of_a_socket_of_datagrams() {
        let (mut all, (t, m)) = (flows(), at(10));
        let dns = flow(1, UDP, "0.0.0.0:40000", "192.0.2.53:53");
        assert_eq!(
            words(&began(&mut all, &dns, owner(5), (t, m))),
            ["Update 5 out 0.0.0.0:40000>192.0.2.53:53"]
        );
        assert!(began(&mut all, &dns, owner(5), (t, m)).is_empty(), "told once");
        let other = flow(1, UDP, "0.0.0.0:40000", "192.0.2.54:53");
        assert_eq!(began(&mut all, &other, owner(5), (t, m)).len(), 1);
        let serves = flow(2, UDP, "192.0.2.1:53", "192.0.2.9:50000");
        assert_eq!(
            words(&began(&mut all, &serves, owner(6), (t, m))),
            ["Update 6 in 192.0.2.1:53>192.0.2.9:50000"]
        );
        let release = flow(1, UDP, "0.0.0.0:40000", "0.0.0.0:0");
        assert_eq!(all.ended(&release, owner(5), t, m).len(), 2);
        assert_eq!(all.len(), 1);
        let (t, m) = at(10 + 180);
        assert_eq!(words(&all.due(t, m)), ["End 6 in 192.0.2.1:53>192.0.2.9:50000"]);
        assert!(all.is_empty() && all.live.is_empty());
    }

    #[test]
    fn a_connected_socket_of_datagrams_waits_for_its_own_port() {
        let (mut all, (t, m)) = (flows(), at(10));
        let mut one = flow(1, UDP, "0.0.0.0:0", "203.0.113.5:443");
        assert!(began(&mut all, &one, owner(5), (t, m)).is_empty());
        assert!(all.waits(m));
        one.local = end("192.0.2.1:50000");
        assert_eq!(
            words(&all.dumped(&[seen(&one)], t, m)),
            ["Update 5 out 192.0.2.1:50000>203.0.113.5:443"]
        );
        assert!(!all.waits(m));
        // Or its end tells it.
        let mut two = flow(2, UDP, "0.0.0.0:0", "203.0.113.5:443");
        all.began(&two, owner(5), t, m);
        two.local = end("192.0.2.1:50001");
        assert_eq!(
            words(&all.ended(&two, owner(5), t, m)),
            ["End 5 out 192.0.2.1:50001>203.0.113.5:443"]
        );
    }

    #[test]
    fn an_end_that_was_lost_and_an_evil_number_of_peers() {
        let (mut all, (t, m)) = (flows(), at(10));
        let one = flow(1, TCP, "192.0.2.1:40000", "203.0.113.5:443");
        let mut elsewhere = flow(2, TCP, "192.0.2.1:40000", "203.0.113.5:443");
        elsewhere.netns = 8;
        all.began(&one, owner(5), t, m);
        all.began(&elsewhere, owner(5), t, m);
        assert!(all.dumped(&[seen(&one)], t, m).is_empty());
        assert!(all.dumped(&[], t, m).is_empty() && all.dumped(&[], t, m).is_empty());
        assert_eq!(all.dumped(&[], t, m).len(), 1, "of the own namespace alone");
        assert_eq!((all.len(), all.lost_ends), (1, 1));
        for peer in 0..1_000u16 {
            let to = format!("203.0.113.5:{}", 1_000 + peer);
            all.began(&flow(9, UDP, "192.0.2.1:40000", &to), owner(5), t, m);
        }
        assert_eq!((all.len(), all.full), (1 + PEERS_MAX, 1_000 - PEERS_MAX as u64));
    }
}
