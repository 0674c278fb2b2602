//! What the detectors' tests share: short events, and a script of them.

use proptest::prelude::*;

use crate::event::{Body, Dns, Event, Firewall, Flow, Verdict};
use crate::finding::{EVIDENCE_MAX, Finding};
use crate::name::Name;
use crate::time::Timestamp;

pub(super) use crate::sample::{dns, flow};

use super::blocklist::{self, Blocklist};
use super::{Engine, Found, Tier0Config};

/// 2026-11-18: a clock that is set.
const START: i64 = 1_795_000_000;

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
    pub(super) engine: Engine,
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

/// One step of a random history, small enough that things meet.
fn step() -> impl Strategy<Value = (i64, Body)> {
    let client = (1u8..5).prop_map(|n| format!("192.168.1.{n}"));
    let place = (0u8..40, 1u16..30).prop_map(|(n, port)| format!("203.0.113.{n}:{port}"));
    let name = prop_oneof![
        "[a-z]{14}\\.com",
        "(www|cdn)\\.(example|listed)\\.(net|org)",
        "[ -~]{1,30}\\.example",
    ];
    let asks = (client.clone(), name, 0u8..40, 0u16..4).prop_filter_map("a name", |parts| {
        let (client, name, address, rcode) = parts;
        let name = name.parse().ok()?;
        let told = dns(&client, "x.example", &[&format!("203.0.113.{address}")]);
        Some(Body::Dns(Dns { name, rcode: Some(rcode), ..told }))
    });
    let connects = (client.clone(), place.clone())
        .prop_map(|(client, place)| Body::Flow(flow(&client, &place)));
    let stopped = (client, place, any::<bool>()).prop_map(|(client, place, inbound)| {
        let flow = flow(&client, &place);
        let (src, dst) = if inbound { (flow.dst, flow.src) } else { (flow.src, flow.dst) };
        Body::Firewall(Firewall {
            verdict: Verdict::Drop,
            prefix: String::new(),
            proto: 6,
            src,
            dst,
            in_iface: None,
            out_iface: None,
            mac: None,
            bytes: 60,
        })
    });
    // Mostly forward, sometimes back, sometimes far.
    let time = prop_oneof![8 => 0i64..60, 2 => -30i64..0, 1 => -100_000i64..100_000_000];
    (time, prop_oneof![asks, connects, stopped])
}

fn play(steps: &[(i64, Body)]) -> (Vec<Found>, Vec<(&'static str, u64)>) {
    let mut config = Tier0Config::default();
    config.names.entries_max = 20;
    config.direct_ip.startup_grace_seconds = 0;
    config.direct_ip.many = 3;
    let mut builder = config.blocklist.builder();
    assert!(builder.list("test", 0.8, b"listed.net").is_clean());
    let mut engine = Engine::new(&config, builder.build());
    let (mut found, mut now) = (Vec::new(), START);
    for (passed, body) in steps {
        now += passed;
        let time = Timestamp::from_secs(now);
        engine.on_event(&mut Event { time, body: body.clone() }, &mut found);
        engine.on_tick(time, &mut found);
        assert!(engine.names().len() <= 20);
    }
    (found, engine.status())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happens: the same history gives the same findings, and every finding is
    /// one a person and the wire can take.
    #[test]
    fn any_history(steps in proptest::collection::vec(step(), 0..150)) {
        let (found, status) = play(&steps);
        prop_assert_eq!((&found, &status), (&play(&steps).0, &play(&steps).1));
        let made = status.iter().filter(|(name, _)| name.ends_with(".findings"));
        prop_assert_eq!(made.map(|(_, n)| n).sum::<u64>(), found.len() as u64);
        for Found { finding, .. } in &found {
            prop_assert!((0.0..=1.0).contains(&finding.score));
            prop_assert!(!finding.subject.is_empty() && finding.evidence.len() <= EVIDENCE_MAX);
            let texts = finding.evidence.iter().flat_map(|(k, v)| [k, v]);
            for text in texts.chain([&finding.subject, &finding.why]) {
                prop_assert!(text.bytes().all(|b| (b' '..=b'~').contains(&b)), "{}", text);
            }
        }
    }
}

#[test]
fn a_verdict_is_what_would_be_found_and_remembers_nothing() {
    let lists: &[(&str, f64, &str)] = &[("malware", 0.8, "evil.example")];
    let mut engine = engine_with_lists(&blocklist::Config::default(), lists);
    for name in ["www.example.com", "a.evil.example", "xjwqkzvbtrpfhgd.example", "."] {
        let name: Name = name.parse().unwrap();
        let (once, twice) = (engine.verdict(&name), engine.verdict(&name));
        assert_eq!(once, twice);
        let mut question = dns("127.0.0.1", name.as_str(), &[]);
        (question.rcode, question.source) = (Some(0), "score".into());
        let mut found = Vec::new();
        let mut event = Event { time: Timestamp::from_secs(1), body: Body::Dns(question) };
        engine.on_event(&mut event, &mut found);
        let found: Vec<Finding> = found.into_iter().map(|f| f.finding).collect();
        assert_eq!(once, found, "{name}");
        assert_eq!(found.is_empty(), ["www.example.com", "."].contains(&name.as_str()), "{name}");
    }
}

/// `MAC's last octet, address` of who asks for a listed name, a minute apart: how often it is
/// told.
#[track_caller]
fn told_of_devices(asked: &[(u8, &str)], expected: usize) {
    let mut engine =
        engine_with_lists(&blocklist::Config::default(), &[("ads", 0.8, "listed.example")]);
    let mut found = Vec::new();
    for (minute, (mac, client)) in (0..).zip(asked) {
        let mut dns = dns(client, "listed.example", &[]);
        dns.mac = (*mac > 0).then_some(crate::event::Mac([0, 0, 0x5e, 0, 0x53, *mac]));
        let time = Timestamp::from_secs(START + 60 * minute);
        engine.on_event(&mut Event { time, body: Body::Dns(dns) }, &mut found);
    }
    let told = found.iter().filter(|f| f.finding.rule == "blocklist").count();
    assert_eq!(told, expected, "{asked:?}");
}

#[test]
fn a_device_is_one_whatever_its_address_and_an_address_may_be_two() {
    told_of_devices(&[(1, "192.0.2.1"), (1, "192.0.2.2"), (1, "2001:db8::a1:b2")], 1);
    told_of_devices(&[(1, "192.0.2.1"), (2, "192.0.2.1"), (1, "192.0.2.1")], 2);
    told_of_devices(&[(0, "192.0.2.1"), (0, "192.0.2.1"), (0, "192.0.2.2")], 2);
}
