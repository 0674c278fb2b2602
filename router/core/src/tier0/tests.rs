//! What the detectors' tests share: short events, and a script of them.

use crate::event::{Answer, Body, Dns, DnsStatus, Endpoint, Event, Flow, FlowPhase};
use crate::time::Timestamp;

use super::blocklist::{self, Blocklist};
use super::{Engine, Found, Tier0Config};

/// 2026-11-18: a clock that is set.
const START: i64 = 1_795_000_000;

/// An A or AAAA exchange that was answered.
pub(super) fn dns(client: &str, name: &str, addresses: &[&str]) -> Dns {
    Dns {
        client: client.parse().unwrap(),
        mac: None,
        name: name.parse().unwrap(),
        qtype: 1,
        status: DnsStatus::Forwarded,
        rcode: Some(0),
        answers: addresses.iter().map(|ip| Answer::Address(ip.parse().unwrap())).collect(),
        ttl: None,
        upstream: None,
        latency_us: None,
        blocked_by: None,
        source: "test".into(),
    }
}

/// A TCP connection just begun.
pub(super) fn flow(client: &str, dst: &str) -> Flow {
    let dst: std::net::SocketAddr = dst.parse().unwrap();
    Flow {
        id: 1,
        phase: FlowPhase::Start,
        proto: 6,
        src: Endpoint::new(client.parse().unwrap(), 40_000),
        dst: Endpoint::new(dst.ip(), dst.port()),
        nat_src: None,
        nat_dst: None,
        start: None,
        duration_ms: None,
        volume: None,
        tcp_state: None,
        replied: false,
        offloaded: false,
        iface: None,
        mac: None,
        resolved: None,
    }
}

/// An engine with these lists: name, score, text.
#[track_caller]
pub(super) fn engine_with_lists(config: &blocklist::Config, lists: &[(&str, f64, &str)]) -> Engine {
    let mut builder = config.builder();
    for (name, score, text) in lists {
        assert!(builder.list(name, *score, text.as_bytes()).is_clean());
    }
    let config = Tier0Config { blocklist: config.clone(), ..Tier0Config::default() };
    Engine::new(&config, builder.build())
}

/// Feeds an engine; times are seconds since some start.
pub(super) struct Script {
    engine: Engine,
    rule: &'static str,
    pub(super) found: Vec<Found>,
}

impl Script {
    pub(super) fn new(config: Tier0Config, rule: &'static str) -> Self {
        Self { engine: Engine::new(&config, Blocklist::default()), rule, found: Vec::new() }
    }
    pub(super) fn event(&mut self, at: i64, body: Body) {
        let time = Timestamp::from_secs(START + at);
        self.engine.on_event(&mut Event { time, body }, &mut self.found);
    }
    pub(super) fn dns(&mut self, at: i64, dns: Dns) {
        self.event(at, Body::Dns(dns));
    }
    pub(super) fn flow(&mut self, at: i64, flow: Flow) {
        self.event(at, Body::Flow(flow));
    }
    pub(super) fn tick(&mut self, at: i64) {
        self.engine.on_tick(Timestamp::from_secs(START + at), &mut self.found);
    }
    /// The subjects of the rule's findings since the last call.
    #[track_caller]
    pub(super) fn said(&mut self, expected: &[&str]) {
        let said: Vec<Found> =
            self.found.drain(..).filter(|f| f.finding.rule == self.rule).collect();
        let subjects: Vec<&str> = said.iter().map(|f| f.finding.subject.as_str()).collect();
        assert_eq!(subjects, expected);
    }
    #[track_caller]
    pub(super) fn status(&self, name: &str) -> u64 {
        self.engine.status().iter().find(|(n, _)| *n == name).expect("a status of that name").1
    }
}

#[test]
fn defaults_are_valid_and_unknown_keys_are_not() {
    Tier0Config::default().validate().unwrap();
    assert_eq!(serde_json::from_str::<Tier0Config>("{}").unwrap(), Tier0Config::default());
    let unknown = serde_json::from_str::<Tier0Config>(r#"{"dga":{"enabeld":true}}"#);
    assert!(unknown.unwrap_err().to_string().contains("enabeld"));
}

#[test]
fn a_problem_names_the_whole_key() {
    let mut config = Tier0Config::default();
    config.direct_ip.many = 0;
    assert_eq!(config.validate().unwrap_err().to_string(), "`direct_ip.many` must be at least 1");
}

#[test]
fn status_names_are_sorted_and_single() {
    let engine = Engine::new(&Tier0Config::default(), Blocklist::default());
    let names: Vec<&str> = engine.status().iter().map(|(name, _)| *name).collect();
    assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
}

/// A reload keeps what was learnt and said.
#[test]
fn reconfigure_keeps_memories() {
    let mut config = Tier0Config::default();
    config.direct_ip.startup_grace_seconds = 0;
    let mut s = Script::new(config.clone(), "direct-ip");
    s.dns(0, dns("192.168.1.5", "a.example", &["203.0.113.9"]));
    s.flow(1, flow("192.168.1.5", "203.0.113.10:443"));
    config.direct_ip.grace_seconds = 30;
    s.engine.reconfigure(&config, Blocklist::default());
    s.flow(2, flow("192.168.1.5", "203.0.113.9:443"));
    s.tick(60);
    s.said(&["203.0.113.10:443/tcp"]);
}
