//! A made-up office for the tier-0 benchmark: 500 devices that ask for 100,000 different
//! names an hour, and connect. Seeded: the same events in every run.
//!
//! Half of the questions are for 2,000 names that everybody asks for (Zipf's law), the rest
//! spread over ever new ones: CDN hosts with hashes, telemetry, services, names of the house.
//! Some are refused, do not exist, come by an alias or as a service record. Every detector
//! has something to think about: one device floods generated names, one talks through names,
//! one goes to bare addresses, one scans, and the firewall stops what comes from outside.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use agentmon_core::event::{
    Answer, Body, Device, DeviceSource, Dns, DnsStatus, Endpoint, Event, Firewall, Flow, FlowPhase,
    Mac, TcpState, Verdict, Volume,
};
use agentmon_core::{Name, Timestamp};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

/// Devices.
pub(crate) const DEVICES: u16 = 500;
/// Different names in an hour of events, at load 1.
pub(crate) const NAMES_AN_HOUR: u32 = 100_000;
/// DNS exchanges in an hour, at load 1: 60 a second.
pub(crate) const EXCHANGES_AN_HOUR: u32 = 216_000;
/// Names that everybody asks for.
const POPULAR: u32 = 2_000;
/// Names on the list; one question in [`LISTED_EVERY`] is for one.
pub(crate) const LISTED: u32 = 1_000_000;
const LISTED_EVERY: u32 = 500;
/// How long connections last.
const LASTS_MS: u64 = 100;
/// 2026-11-23T14:00:00Z.
const BEGIN: Timestamp = Timestamp::from_secs(1_795_442_400);

/// The office. Makes events one by one, so that they take no memory.
pub(crate) struct Office {
    random: SmallRng,
    now: Timestamp,
    step: Duration,
    fresh: u32,
    flows: u64,
    /// Where the last answers pointed, for connections to follow.
    answers: [(u16, IpAddr); 256],
    at: usize,
}

impl Office {
    /// With `load` times the questions and connections of an ordinary office, and `load`
    /// times the different names.
    pub(crate) fn new(seed: u64, load: u32) -> Self {
        let step = Duration::from_secs(3_600) / (EXCHANGES_AN_HOUR * load);
        Self {
            random: SmallRng::seed_from_u64(seed),
            now: BEGIN,
            step,
            fresh: 0,
            flows: 0,
            answers: [(0, Ipv4Addr::new(198, 51, 100, 1).into()); 256],
            at: 0,
        }
    }

    /// The text of a block list; names of it are asked for.
    pub(crate) fn block_list() -> String {
        (0..LISTED).map(|n| format!("0.0.0.0 {}\n", listed(n))).collect()
    }

    fn below(&mut self, bound: u32) -> u32 {
        self.random.random_range(0..bound)
    }

    /// Few devices are busy, most are not.
    fn device(&mut self) -> u16 {
        let rank = f64::from(DEVICES + 1).powf(self.random.random::<f64>());
        (rank as u16).saturating_sub(1).min(DEVICES - 1)
    }

    /// What the leases tell, for every device.
    pub(crate) fn devices(&self) -> Vec<Event> {
        let device = |n: u16| Device {
            mac: mac(n),
            ip: client(n),
            hostname: Some(format!("device-{n}")),
            iface: Some("br-lan".to_owned()),
            source: DeviceSource::Lease,
        };
        (0..DEVICES).map(|n| Event { time: self.now, body: Body::Device(device(n)) }).collect()
    }

    /// The next exchange.
    pub(crate) fn dns(&mut self) -> Event {
        self.now = self.now.plus(self.step);
        let device = self.device();
        let (device, mut dns) = self.question(device);
        let address = self.address();
        match self.below(100) {
            // Answered by the resolver itself, or refused.
            0..12 => {
                dns.status = DnsStatus::Blocked;
                dns.blocked_by = Some("gravity blocked".to_owned());
                dns.answers.push(Answer::Address(Ipv4Addr::UNSPECIFIED.into()));
            }
            12..18 => dns.rcode = Some(3),
            18..24 => {
                dns.qtype = 65;
                let text = format!("HTTPS 1 . alpn=h2,h3 ipv4hint={address}");
                dns.answers.push(Answer::Other(text));
            }
            24..26 => {
                dns.qtype = 16;
                dns.answers.push(Answer::Other("TXT \"v=spf1 -all\"".to_owned()));
            }
            26..45 => {
                let edge = format!("edge{}.cdn.example.net", self.below(50));
                dns.answers.push(Answer::Cname(name(&edge)));
                dns.answers.push(Answer::Address(address));
            }
            _ => dns.answers.push(Answer::Address(address)),
        }
        if dns.destinations().any(|ip| ip == address) {
            self.remember(device, address);
        }
        Event { time: self.now, body: Body::Dns(dns) }
    }

    fn question(&mut self, device: u16) -> (u16, Dns) {
        let (own, text) = match self.below(100) {
            // Somebody is infected, somebody talks through names, somebody is of the house.
            0 => (7, format!("{}.example", word(self.random.random(), 12))),
            1 => (8, format!("{}.t.tunnel.example", hash(self.random.random()))),
            2 => (device, format!("printer{}.lan", self.below(20))),
            3 => (device, format!("{}.2.0.192.in-addr.arpa", self.below(250))),
            _ => (device, self.name()),
        };
        let dns = Dns {
            client: client(own),
            mac: Some(mac(own)).filter(|_| own % 10 != 0),
            name: name(&text),
            qtype: if own % 3 == 0 { 28 } else { 1 },
            status: DnsStatus::Forwarded,
            rcode: Some(0),
            answers: Vec::new(),
            ttl: Some(300),
            upstream: Some("198.51.100.53".to_owned()),
            latency_us: Some(self.random.random_range(200..60_000)),
            blocked_by: None,
            source: "dnsmasq-log".to_owned(),
        };
        (own, dns)
    }

    fn name(&mut self) -> String {
        if self.below(LISTED_EVERY) == 0 {
            let which = self.below(LISTED);
            return listed(which);
        }
        // Of the questions, as many are for new names as make the hour's number.
        let n = if self.below(EXCHANGES_AN_HOUR) < NAMES_AN_HOUR - POPULAR {
            self.fresh = self.fresh.wrapping_add(1);
            POPULAR + self.fresh
        } else {
            (f64::from(POPULAR).powf(self.random.random::<f64>())) as u32
        };
        let site = word(u64::from(n / 5) * 0x9e37_79b9, 9);
        match n % 5 {
            0 => format!("www.{site}.com"),
            1 => format!("{}.cdn.{site}.net", hash(u64::from(n))),
            2 => format!("api{}.eu-west-{}.{site}.co.uk", n % 40, n % 3),
            3 => format!("_https._tcp.{site}.org"),
            _ => format!("telemetry.{site}.io"),
        }
    }

    /// An address of the internet.
    fn address(&mut self) -> IpAddr {
        let n = self.below(40_000);
        match n % 4 {
            0 => Ipv6Addr::new(0x2600, 0x1f00, 0, 0, 0, 0, 1, n as u16).into(),
            _ => Ipv4Addr::from(0x2d00_0000 + n).into(),
        }
    }

    /// For a connection of that device.
    fn remember(&mut self, device: u16, address: IpAddr) {
        self.at = (self.at + 1) % self.answers.len();
        if let Some(place) = self.answers.get_mut(self.at) {
            *place = (device, address);
        }
    }

    /// The next change of a connection: begin, or end.
    pub(crate) fn flow(&mut self) -> Event {
        self.now = self.now.plus(self.step / 2);
        // Answered a moment ago, and longer ago than the connection lasts.
        let places = self.answers.len();
        let which = (self.at + 1 + self.random.random_range(0..places / 2)) % places;
        let (device, named) = self.answers.get(which).copied().unwrap_or((0, client(0)));
        let kind = self.below(200);
        let (device, dst) = match kind {
            0 => (9, Ipv4Addr::from(0xcb00_7100 + self.below(250)).into()),
            1 => (10, client(self.random.random_range(0..DEVICES))),
            // Two who do not ask the house's resolver.
            2 => (12 + device % 2, Ipv4Addr::new(198, 51, 100, 9).into()),
            3..8 => (device, client(11)),
            _ => (device, named),
        };
        let (port, proto) = match self.below(100) {
            _ if kind == 1 => (self.random.random_range(1..10_000), 6),
            _ if kind == 2 => (if device == 12 { 53 } else { 853 }, 6),
            0..75 => (443, 6),
            75..90 => (443, 17),
            90..94 => (80, 6),
            94..98 => (123, 17),
            // Few programs have ports of their own, and keep to them.
            _ => (5_000 + device % 7, 17),
        };
        self.flows += 1;
        let ends = self.flows.is_multiple_of(2);
        let volume = Volume { bytes_out: 4_000, bytes_in: 90_000, packets_out: 40, packets_in: 80 };
        let flow = Flow {
            id: self.flows / 2,
            phase: if ends { FlowPhase::End } else { FlowPhase::Start },
            proto,
            src: Endpoint::new(client(device), self.random.random_range(32_768..61_000)),
            dst: Endpoint::new(dst, port),
            nat_src: None,
            nat_dst: None,
            start: Some(self.now.minus(Duration::from_millis(if ends { LASTS_MS } else { 0 }))),
            duration_ms: ends.then_some(LASTS_MS),
            volume: ends.then_some(volume),
            tcp_state: (proto == 6).then_some(TcpState::Established),
            replied: ends,
            offloaded: false,
            iface: Some("br-lan".to_owned()),
            mac: Some(mac(device)),
            resolved: None,
        };
        Event { time: self.now, body: Body::Flow(flow) }
    }

    /// The next packet the firewall stops: nearly always the internet's noise.
    pub(crate) fn packet(&mut self) -> Event {
        self.now = self.now.plus(self.step);
        let outside = Endpoint::new(Ipv4Addr::from(0x2e00_0000 + self.below(9_000)).into(), 40_000);
        let own = Endpoint::new(client(10), 41_000);
        let from_inside = self.below(20) == 0;
        let port = self.random.random_range(1..10_000);
        let to = Endpoint::new(Ipv4Addr::new(203, 0, 113, 1).into(), port);
        let packet = Firewall {
            verdict: Verdict::Drop,
            prefix: "drop wan in".to_owned(),
            proto: 6,
            src: if from_inside { own } else { outside },
            dst: to,
            in_iface: Some(if from_inside { "br-lan" } else { "wan" }.to_owned()),
            out_iface: None,
            mac: from_inside.then(|| mac(10)),
            bytes: 60,
        };
        Event { time: self.now, body: Body::Firewall(packet) }
    }
}

fn client(device: u16) -> IpAddr {
    let [high, low] = (device + 10).to_be_bytes();
    // One in eight asks by IPv6.
    if device % 8 == 1 {
        Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0, device + 10).into()
    } else {
        Ipv4Addr::new(10, 77, high, low).into()
    }
}

fn mac(device: u16) -> Mac {
    let [high, low] = device.to_be_bytes();
    Mac([0x00, 0x00, 0x5e, 0x00, 0x52 + high, low])
}

fn name(text: &str) -> Name {
    let Ok(name) = text.parse() else { unreachable!("made of letters: {text}") };
    name
}

fn listed(n: u32) -> String {
    format!("ads{n}.{}.com", word(u64::from(n) * 0x85eb_ca77, 7))
}

/// Something pronounceable.
fn word(mut seed: u64, letters: usize) -> String {
    const LETTERS: [&[u8]; 2] = [b"bcdfghklmnprstvw", b"aeiou"];
    seed = (seed ^ seed >> 31).wrapping_mul(0x94d0_49bb_1331_11eb);
    let letter = |i: usize| {
        let from = LETTERS[i % 2];
        seed = seed.rotate_left(11).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        char::from(from[(seed >> 33) as usize % from.len()])
    };
    (0..letters).map(letter).collect()
}

/// What a CDN puts before a name.
fn hash(seed: u64) -> String {
    let mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("{mixed:016x}{:08x}", mixed.rotate_left(17) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// What the figures are said to be about.
    #[test]
    fn an_hour_has_its_names_and_devices() {
        let mut office = Office::new(1, 1);
        let (mut names, mut clients) = (HashSet::new(), HashSet::new());
        let mut last = BEGIN;
        for _ in 0..EXCHANGES_AN_HOUR {
            let event = office.dns();
            assert!(event.time > last);
            last = event.time;
            let Body::Dns(dns) = event.body else { panic!("a question") };
            clients.insert(dns.client);
            names.insert(dns.name);
        }
        assert_eq!(last.since(BEGIN).as_secs().div_ceil(10), 360, "an hour");
        assert_eq!(clients.len(), usize::from(DEVICES));
        let expected = NAMES_AN_HOUR as usize..=NAMES_AN_HOUR as usize * 12 / 10;
        assert!(expected.contains(&names.len()), "{}", names.len());
    }

    #[test]
    fn the_same_seed_makes_the_same_events() {
        let (mut one, mut two) = (Office::new(7, 10), Office::new(7, 10));
        for _ in 0..100 {
            assert_eq!(one.dns(), two.dns());
            assert_eq!(one.flow(), two.flow());
            assert_eq!(one.packet(), two.packet());
        }
    }
}
