//! Writes a scenario's events: a small language of what a home does, in seconds after the
//! scenario's begin. Deterministic: the same script gives the same bytes for ever, so the
//! random numbers are our own (splitmix64), not a crate's.

use std::net::IpAddr;

use agentmon_core::event::{
    Answer, Body, Device, DeviceSource, Dns, DnsStatus, Endpoint, Event, Firewall, Flow, FlowPhase,
    TcpState, Verdict, Volume,
};
use agentmon_core::name::Name;
use agentmon_core::time::Timestamp;

/// 2026-06-01T08:00:00Z.
pub(super) const BEGIN_SECONDS: i64 = 1_780_300_800;
/// Response code for "no such name" (RFC 1035 section 4.1.1).
pub const NXDOMAIN: u16 = 3;

/// Events under construction.
#[derive(Debug)]
pub struct Script {
    events: Vec<Event>,
    random: u64,
    flows: u64,
}

impl Script {
    /// Empty, with a seed for its random choices.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { events: Vec::new(), random: seed, flows: 0 }
    }

    /// The events, oldest first, one JSON object a line.
    ///
    /// # Panics
    /// Never: events can be written as JSON.
    #[must_use]
    pub fn ndjson(mut self) -> String {
        self.events.sort_by_key(|e| e.time);
        let line = |e| serde_json::to_string(e).expect("an event is plain data") + "\n";
        self.events.iter().map(line).collect()
    }

    /// A number below `bound` (splitmix64, Steele et al. 2014).
    pub fn below(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    /// `length` letters and digits drawn from `alphabet`.
    ///
    /// # Panics
    /// When the alphabet is empty.
    pub fn word(&mut self, alphabet: &str, length: u64) -> String {
        let letters: Vec<char> = alphabet.chars().collect();
        let bound = letters.len() as u64;
        let mut pick = || usize::try_from(self.below(bound)).ok().and_then(|n| letters.get(n));
        (0..length).map(|_| *pick().expect("an alphabet")).collect()
    }

    fn push(&mut self, second: f64, body: Body) {
        let begin = Timestamp::from_secs(BEGIN_SECONDS);
        let time = begin.plus(std::time::Duration::from_secs_f64(second));
        self.events.push(Event { time, body });
    }

    /// `client` asks for `name` and is told `answer` (an address), or that there is none.
    pub fn asks(&mut self, second: f64, client: &str, name: &str, answer: Option<&str>) {
        let mut dns = exchange(client, name);
        match answer {
            Some(address) => dns.answers.push(Answer::Address(ip(address))),
            None => dns.rcode = Some(NXDOMAIN),
        }
        self.push(second, Body::Dns(dns));
    }

    /// `client` asks for `name`, which is another name for `target`.
    pub fn asks_alias(&mut self, second: f64, client: &str, name: &str, target: &str, to: &str) {
        let mut dns = exchange(client, name);
        dns.answers.push(Answer::Cname(target.parse::<Name>().expect("a name")));
        dns.answers.push(Answer::Address(ip(to)));
        self.push(second, Body::Dns(dns));
    }

    /// The resolver itself refuses the name.
    pub fn is_refused(&mut self, second: f64, client: &str, name: &str) {
        let mut dns = exchange(client, name);
        dns.status = DnsStatus::Blocked;
        dns.blocked_by = Some("gravity".to_owned());
        self.push(second, Body::Dns(dns));
    }

    /// A TCP connection from begin to end, `seconds` long.
    pub fn connects(&mut self, second: f64, client: &str, to: &str, port: u16, seconds: f64) {
        self.flows += 1;
        let start = Timestamp::from_secs(BEGIN_SECONDS);
        let start = start.plus(std::time::Duration::from_secs_f64(second));
        let own_port = 40_000 + u16::try_from(self.flows % 20_000).unwrap_or(0);
        let flow = Flow {
            id: self.flows,
            phase: FlowPhase::Start,
            proto: 6,
            src: Endpoint::new(ip(client), own_port),
            dst: Endpoint::new(ip(to), port),
            nat_src: None,
            nat_dst: None,
            start: Some(start),
            duration_ms: None,
            volume: None,
            tcp_state: Some(TcpState::SynSent),
            replied: false,
            offloaded: false,
            iface: None,
            mac: None,
            resolved: None,
        };
        let end = Flow {
            phase: FlowPhase::End,
            duration_ms: Some(std::time::Duration::from_secs_f64(seconds).as_millis() as u64),
            volume: Some(Volume {
                bytes_out: 1_476,
                bytes_in: 50_424,
                packets_out: 9,
                packets_in: 8,
            }),
            tcp_state: Some(TcpState::TimeWait),
            replied: true,
            ..flow.clone()
        };
        self.push(second, Body::Flow(flow));
        self.push(second + seconds, Body::Flow(end));
    }

    /// A device shows itself: with a name it is a lease, without one the neighbour table.
    pub fn shows(&mut self, second: f64, mac: &str, at: &str, name: Option<&str>) {
        let source = if name.is_some() { DeviceSource::Lease } else { DeviceSource::Neighbour };
        let device = Device {
            mac: mac.parse().expect("a MAC"),
            ip: ip(at),
            hostname: name.map(str::to_owned),
            iface: Some("br-lan".to_owned()),
            source,
        };
        self.push(second, Body::Device(device));
    }

    /// `client` asks for a record of some type, and is told something in words, or nothing.
    pub fn asks_type(&mut self, second: f64, client: &str, name: &str, qtype: u16, words: &str) {
        let mut dns = exchange(client, name);
        dns.qtype = qtype;
        if !words.is_empty() {
            dns.answers.push(Answer::Other(words.to_owned()));
        }
        self.push(second, Body::Dns(dns));
    }

    /// A UDP exchange.
    pub fn sends(&mut self, second: f64, client: &str, to: &str, port: u16) {
        self.connects(second, client, to, port, 1.0);
        for event in self.events.iter_mut().rev().take(2) {
            if let Body::Flow(flow) = &mut event.body {
                (flow.proto, flow.tcp_state) = (17, None);
            }
        }
    }

    /// A TCP connection that nobody answers.
    pub fn tries(&mut self, second: f64, client: &str, to: &str, port: u16) {
        self.connects(second, client, to, port, 60.0);
        if let Some(Event { body: Body::Flow(end), .. }) = self.events.last_mut() {
            (end.replied, end.tcp_state) = (false, Some(TcpState::SynSent));
            end.volume = Some(Volume { bytes_out: 180, packets_out: 3, ..Volume::default() });
        }
    }

    /// A TCP connection that stays open, told of every five minutes.
    pub fn stays(&mut self, second: f64, client: &str, to: &str, port: u16, seconds: f64) {
        self.connects(second, client, to, port, seconds);
        let Some(Event { body: Body::Flow(end), .. }) = self.events.last().cloned() else { return };
        let mut passed = 300.0;
        while passed < seconds {
            let update = Flow {
                phase: FlowPhase::Update,
                duration_ms: Some(std::time::Duration::from_secs_f64(passed).as_millis() as u64),
                tcp_state: Some(TcpState::Established),
                ..end.clone()
            };
            self.push(second + passed, Body::Flow(update));
            passed += 300.0;
        }
    }

    /// The firewall stops a packet of `client`.
    pub fn is_stopped(&mut self, second: f64, client: &str, to: &str, port: u16) {
        let packet = Firewall {
            verdict: Verdict::Reject,
            prefix: "agentmon-reject".to_owned(),
            proto: 6,
            src: Endpoint::new(ip(client), 50_000),
            dst: Endpoint::new(ip(to), port),
            in_iface: Some("br-lan".to_owned()),
            out_iface: Some("wan".to_owned()),
            mac: None,
            bytes: 60,
        };
        self.push(second, Body::Firewall(packet));
    }
}

fn exchange(client: &str, name: &str) -> Dns {
    Dns {
        client: ip(client),
        mac: None,
        name: name.parse::<Name>().expect("a name"),
        qtype: 1,
        status: DnsStatus::Forwarded,
        rcode: Some(0),
        answers: Vec::new(),
        ttl: Some(300),
        upstream: None,
        latency_us: None,
        blocked_by: None,
        source: "replay".to_owned(),
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}
