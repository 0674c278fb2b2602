//! The demo home's network: what a resolver, a router and a firewall would have seen.
//!
//! The rule that keeps it honest: a device connects only to addresses it was told by an
//! answer before, unless an attack says otherwise.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use agentmon_core::event::{
    Answer, Body, Device as Seen, DeviceSource, Dns, DnsStatus, Endpoint, Firewall, Flow,
    FlowPhase, Gap, TcpState, Verdict, Volume,
};
use agentmon_core::{Event, Name, Timestamp};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::DAY_SECONDS;
use super::home::{Device, Profile, addresses};

/// The home's address on the internet.
pub(super) const WAN: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1));
/// The resolver the home's own resolver asks.
const UPSTREAM: &str = "192.0.2.1";
/// Flows longer than this are reported while they last.
const LONG_FLOW: Duration = Duration::from_secs(60);
/// How often a long flow is reported.
const UPDATE_EVERY: Duration = Duration::from_secs(600);

/// IP protocol numbers.
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;

/// Record type numbers.
pub(super) const A: u16 = 1;
pub(super) const TXT: u16 = 16;
const AAAA: u16 = 28;
const HTTPS: u16 = 65;

/// One connection to make.
#[derive(Clone, Copy, Debug)]
pub(super) struct Talk {
    pub(super) proto: u8,
    pub(super) port: u16,
    pub(super) out: u64,
    pub(super) inward: u64,
    pub(super) lasts: Duration,
}

impl Talk {
    /// HTTPS with that many bytes, over in seconds.
    pub(super) const fn https(out: u64, inward: u64, seconds: u64) -> Self {
        Self { proto: TCP, port: 443, out, inward, lasts: Duration::from_secs(seconds) }
    }
}

/// What a resolver said.
pub(super) struct Reply {
    pub(super) status: DnsStatus,
    pub(super) rcode: u16,
    pub(super) answers: Vec<Answer>,
}

impl Reply {
    /// From upstream, without error.
    pub(super) const fn fresh(answers: Vec<Answer>) -> Self {
        Self { status: DnsStatus::Forwarded, rcode: 0, answers }
    }
}

/// Collects the day's events.
pub(super) struct World {
    pub(super) rng: StdRng,
    pub(super) start: Timestamp,
    pub(super) end: Timestamp,
    /// Polls come so many times as rarely.
    pub(super) pace: f64,
    /// People read what nobody has read before.
    pub(super) wide: bool,
    offset_seconds: i64,
    events: Vec<Event>,
    /// Visits to come, in any order: what a device has been told depends on what came
    /// before, so they are played in time order at the end.
    visits: Vec<(Timestamp, Device, String, Talk)>,
    /// When what a client was told about a name runs out.
    told: HashMap<(IpAddr, String), Timestamp>,
    /// The same for the home's resolver.
    cached: HashMap<String, Timestamp>,
    flows: u64,
}

impl World {
    pub(super) fn new(seed: u64, end: Timestamp, offset_seconds: i64) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            start: end.minus(Duration::from_secs(DAY_SECONDS)),
            end,
            pace: 1.0,
            wide: false,
            offset_seconds,
            events: Vec::with_capacity(150_000),
            visits: Vec::new(),
            told: HashMap::new(),
            cached: HashMap::new(),
            flows: 0,
        }
    }

    /// All events in time order, none beyond the end.
    pub(super) fn finish(mut self) -> Vec<Event> {
        let mut visits = std::mem::take(&mut self.visits);
        visits.sort_by_key(|(time, ..)| *time);
        for (time, device, name, talk) in visits {
            self.play(time, &device, &name, talk);
        }
        let end = self.end;
        self.events.retain(|e| e.time <= end);
        self.events.sort_by_key(|e| e.time);
        self.events
    }

    /// Seconds after the start, as a time.
    pub(super) fn at(&self, seconds: f64) -> Timestamp {
        self.start.plus(Duration::from_secs_f64(seconds.max(0.0)))
    }

    /// Hour of the local day, 0 to 23.
    pub(super) fn hour(&self, time: Timestamp) -> i64 {
        (time.secs() + self.offset_seconds).rem_euclid(86_400) / 3_600
    }

    /// `value` give or take `percent`.
    pub(super) fn about(&mut self, value: f64, percent: f64) -> f64 {
        value * (1.0 + self.rng.random_range(-percent..=percent) / 100.0)
    }

    /// A number of bytes about `value`, spread as widely as real transfers.
    pub(super) fn bytes(&mut self, value: u64) -> u64 {
        (self.about(value as f64, 60.0)) as u64
    }

    fn push(&mut self, time: Timestamp, body: Body) {
        self.events.push(Event { time, body });
    }

    /// One DNS exchange as it is: the question is a name and a record type.
    pub(super) fn exchange(
        &mut self,
        time: Timestamp,
        device: &Device,
        question: (&str, u16),
        reply: Reply,
    ) {
        let ((name, qtype), Reply { status, rcode, answers }) = (question, reply);
        let forwarded = matches!(status, DnsStatus::Forwarded);
        let latency = self.rng.random_range(4_000..60_000);
        let dns = Dns {
            client: device.ip,
            mac: Some(device.mac),
            name: name.parse().expect("the demo's names are names"),
            qtype,
            status,
            rcode: Some(rcode),
            ttl: (!answers.is_empty()).then_some(300),
            answers,
            upstream: forwarded.then(|| UPSTREAM.to_owned()),
            latency_us: forwarded.then_some(latency),
            blocked_by: (status == DnsStatus::Blocked).then(|| "gravity".to_owned()),
            source: "demo".to_owned(),
        };
        self.push(time, Body::Dns(dns));
    }

    /// A query the resolver's list refuses.
    pub(super) fn refused(&mut self, time: Timestamp, device: &Device, name: &str) {
        let null = vec![Answer::Address(IpAddr::V4(Ipv4Addr::UNSPECIFIED))];
        let reply = Reply { status: DnsStatus::Blocked, rcode: 0, answers: null };
        self.exchange(time, device, (name, A), reply);
    }

    /// A query for a name that does not exist.
    pub(super) fn missing(&mut self, time: Timestamp, device: &Device, name: &str) {
        let reply = Reply { status: DnsStatus::Forwarded, rcode: 3, answers: Vec::new() };
        self.exchange(time, device, (name, A), reply);
    }

    /// A query with a text answer.
    pub(super) fn text(&mut self, time: Timestamp, device: &Device, name: &str, answer: &str) {
        let answer = vec![Answer::Other(format!("TXT \"{answer}\""))];
        self.exchange(time, device, (name, TXT), Reply::fresh(answer));
    }

    /// Makes sure the device knows the name's addresses; asks when it has forgotten them.
    fn resolve(&mut self, time: Timestamp, device: &Device, name: &str) {
        let key = (device.ip, name.to_owned());
        if self.told.get(&key).is_some_and(|until| *until > time) {
            return;
        }
        let ttl = Duration::from_secs(self.rng.random_range(60..900));
        let known = self.cached.get(name).is_some_and(|until| *until > time);
        let status = if known { DnsStatus::Cached } else { DnsStatus::Forwarded };
        self.cached.insert(name.to_owned(), time.plus(ttl));
        self.told.insert(key, time.plus(ttl));
        let answers = |ipv6| -> Vec<Answer> {
            let alias = name.starts_with("cdn").then(|| alias_of(name));
            let addresses = addresses(name, ipv6).into_iter().map(Answer::Address);
            alias.map(Answer::Cname).into_iter().chain(addresses).collect()
        };
        if !matches!(device.profile, Profile::Plug | Profile::Camera | Profile::Appliance) {
            let reply = Reply { status, rcode: 0, answers: Vec::new() };
            self.exchange(time, device, (name, HTTPS), reply);
        }
        if device.ip.is_ipv6() || self.rng.random_bool(0.5) {
            let reply = Reply { status, rcode: 0, answers: answers(true) };
            self.exchange(time, device, (name, AAAA), reply);
        }
        if device.ip.is_ipv4() {
            let reply = Reply { status, rcode: 0, answers: answers(false) };
            self.exchange(time, device, (name, A), reply);
        }
    }

    /// Resolves a name where needed and connects to one of its addresses.
    pub(super) fn visit(&mut self, time: Timestamp, device: &Device, name: &str, talk: Talk) {
        self.visits.push((time, *device, name.to_owned(), talk));
    }

    fn play(&mut self, time: Timestamp, device: &Device, name: &str, talk: Talk) {
        self.resolve(time, device, name);
        let choices = addresses(name, device.ip.is_ipv6());
        let pick = self.rng.random_range(0..choices.len());
        let Some(ip) = choices.get(pick).copied() else { return };
        let after = Duration::from_millis(self.rng.random_range(5..400));
        self.connect(time.plus(after), device, Endpoint::new(ip, talk.port), talk);
    }

    /// Connects to an address, whatever is known about it.
    pub(super) fn connect(&mut self, time: Timestamp, device: &Device, to: Endpoint, talk: Talk) {
        self.flows += 1;
        let port = self.rng.random_range(32_768..61_000);
        let source = Endpoint::new(device.ip, port);
        let inside = matches!(to.ip, IpAddr::V4(v4) if v4.is_private());
        let nat = (device.ip.is_ipv4() && !inside).then(|| Endpoint::new(WAN, port));
        let flow = Flow {
            // Any distinct numbers do; spread like the hashes real ones are.
            id: self.flows.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            phase: FlowPhase::End,
            proto: talk.proto,
            src: source,
            dst: to,
            nat_src: nat,
            nat_dst: None,
            start: Some(time),
            duration_ms: Some(millis(talk.lasts)),
            volume: Some(volume(talk.out, talk.inward)),
            tcp_state: (talk.proto == TCP).then_some(TcpState::TimeWait),
            replied: talk.inward > 0,
            offloaded: false,
            iface: Some("br-lan".to_owned()),
            mac: Some(device.mac),
            resolved: None,
        };
        if talk.lasts > LONG_FLOW {
            self.report_while_it_lasts(time, &flow, talk);
        }
        self.push(time.plus(talk.lasts), Body::Flow(flow));
    }

    /// The start, and the counters so far now and then.
    fn report_while_it_lasts(&mut self, time: Timestamp, flow: &Flow, talk: Talk) {
        let begun = Flow {
            phase: FlowPhase::Start,
            duration_ms: None,
            volume: None,
            tcp_state: (talk.proto == TCP).then_some(TcpState::Established),
            ..flow.clone()
        };
        self.push(time, Body::Flow(begun.clone()));
        let mut passed = UPDATE_EVERY;
        while passed < talk.lasts {
            let part = passed.as_secs_f64() / talk.lasts.as_secs_f64();
            let so_far = |bytes: u64| (bytes as f64 * part) as u64;
            let update = Flow {
                phase: FlowPhase::Update,
                duration_ms: Some(millis(passed)),
                volume: Some(volume(so_far(talk.out), so_far(talk.inward))),
                ..begun.clone()
            };
            self.push(time.plus(passed), Body::Flow(update));
            passed += UPDATE_EVERY;
        }
    }

    /// A packet the firewall stopped.
    pub(super) fn stopped(
        &mut self,
        time: Timestamp,
        from: (Endpoint, Option<&Device>),
        to: Endpoint,
        proto: u8,
        verdict: Verdict,
    ) {
        let outward = from.1.is_some();
        let (lan, wan) = (Some("br-lan".to_owned()), Some("wan".to_owned()));
        let packet = Firewall {
            verdict,
            prefix: if outward { "reject lan out: ".into() } else { "drop wan in: ".into() },
            proto,
            src: from.0,
            dst: to,
            in_iface: if outward { lan } else { wan.clone() },
            out_iface: if outward { wan } else { None },
            mac: from.1.map(|d| d.mac),
            bytes: 60,
        };
        self.push(time, Body::Firewall(packet));
    }

    /// A device showed itself.
    pub(super) fn seen(&mut self, time: Timestamp, device: &Device, source: DeviceSource) {
        let hostname = (source == DeviceSource::Lease).then(|| device.name.to_owned());
        let iface = Some("br-lan".to_owned());
        let seen = Seen { mac: device.mac, ip: device.ip, hostname, iface, source };
        self.push(time, Body::Device(seen));
    }

    /// A collector was blind for a while.
    pub(super) fn gap(&mut self, from: Timestamp, lasts: Duration, reason: &str, lost: u64) {
        let (collector, reason) = ("conntrack".to_owned(), reason.to_owned());
        let gap = Gap { collector, from, reason, lost: Some(lost) };
        self.push(from.plus(lasts), Body::Gap(gap));
    }
}

/// `cdn3.video.example` -> `edge.video.example`: the end of the CNAME chain.
fn alias_of(name: &str) -> Name {
    let parent = name.split_once('.').map_or(name, |(_, parent)| parent);
    format!("edge.{parent}").parse().expect("the demo's names are names")
}

/// Packets by a usual size; headers are in the bytes already.
fn volume(out: u64, inward: u64) -> Volume {
    // Acknowledgements: one small packet for two full ones of the other direction.
    let packets = |mine: u64, theirs: u64| (mine / 1_400).max(theirs / 2_800) + 1;
    Volume {
        bytes_out: out,
        bytes_in: inward,
        packets_out: packets(out, inward),
        packets_in: if inward == 0 { 0 } else { packets(inward, out) },
    }
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}
