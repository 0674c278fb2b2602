//! The day is the same for the same seed, holds what it says, and names nothing real.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::LazyLock;

use agentmon_core::event::{Body, FlowPhase, is_public};
use agentmon_core::finding::Severity;
use agentmon_core::tier0::blocklist::ListConfig;
use agentmon_core::tier0::{Engine, Found, Tier0Config};
use agentmon_core::{Event, Timestamp, wire};

use super::*;

/// 2026-11-23T14:32:07Z.
const END: Timestamp = Timestamp::from_secs(1_795_444_327);

/// The usual day and two others, with what tier-0 says about each: made once.
static DAYS: LazyLock<Vec<(u64, Day, Vec<Found>)>> = LazyLock::new(|| {
    let made = |seed| {
        let day = day(seed, END, 0);
        let found = findings(&day);
        (seed, day, found)
    };
    [SEED, 1, 2].map(made).into()
});

fn usual_day() -> &'static Day {
    &DAYS[0].1
}

fn encoded(day: &Day) -> Vec<Vec<u8>> {
    day.events.iter().map(wire::encode_event).collect()
}

#[test]
fn the_seed_alone_decides() {
    let (one, again) = (day(7, END, 3_600), day(7, END, 3_600));
    assert!(encoded(&one) == encoded(&again));
    assert_eq!(one.planted, again.planted);
    assert!(encoded(&one) != encoded(&day(8, END, 3_600)));
}

#[test]
fn a_day_of_a_busy_home() {
    let day = usual_day();
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    for event in &day.events {
        *kinds.entry(event.body.kind()).or_default() += 1;
    }
    assert!((50_000..=150_000).contains(&day.events.len()), "{}: {kinds:?}", day.events.len());
    for (kind, least) in [("dns", 20_000), ("flow", 20_000), ("firewall", 1_000), ("device", 1_000)]
    {
        assert!(kinds.get(kind).is_some_and(|n| *n >= least), "{kind}: {kinds:?}");
    }
    assert_eq!(kinds.get("gap"), Some(&1));
    let start = END.minus(std::time::Duration::from_secs(DAY_SECONDS));
    assert!(day.events.iter().all(|e| (start..=END).contains(&e.time)));
    assert!(day.events.is_sorted_by_key(|e| e.time));
    for planted in &day.planted {
        assert!(start <= planted.from && planted.from <= planted.to && planted.to <= END);
    }
}

/// Times between events are short, so that event time flows and never jumps.
#[test]
fn no_long_silence() {
    let day = usual_day();
    let longest = day.events.windows(2).map(|w| w[1].time.since(w[0].time)).max();
    assert!(longest.is_some_and(|gap| gap.as_secs() < 60), "{longest:?}");
}

#[test]
fn nobody_connects_without_having_asked_but_the_planted() {
    let day = usual_day();
    let mut told: HashSet<(IpAddr, IpAddr)> = HashSet::new();
    let mut unexplained: HashSet<(IpAddr, IpAddr)> = HashSet::new();
    // Flows in the order of their starts, as a kernel would report them.
    let mut events: Vec<&Event> = day.events.iter().collect();
    events.sort_by_key(|e| match &e.body {
        Body::Flow(flow) => flow.start.unwrap_or(e.time),
        _ => e.time,
    });
    for event in events {
        match &event.body {
            Body::Dns(dns) => told.extend(dns.addresses().map(|a| (dns.client, a))),
            Body::Flow(flow) if is_public(flow.dst.ip) && flow.dst.port != 123 => {
                let pair = (flow.src.ip, flow.dst.ip);
                if !told.contains(&pair) {
                    unexplained.insert(pair);
                }
            }
            _ => {}
        }
    }
    let planted = day.planted.iter().find(|p| p.name == "direct-ip").unwrap();
    let expected = (planted.client, "203.0.113.233".parse().unwrap());
    assert!(unexplained == HashSet::from([expected]), "{} unexplained", unexplained.len());
}

#[test]
fn flow_records_add_up() {
    let day = usual_day();
    let mut last: HashMap<u64, (u64, Timestamp)> = HashMap::new();
    let mut ended: HashSet<u64> = HashSet::new();
    for event in &day.events {
        let Body::Flow(flow) = &event.body else { continue };
        assert!(!ended.contains(&flow.id), "a record after the end");
        let bytes = flow.volume.map_or(0, |v| v.bytes());
        let (before, start) = last.get(&flow.id).copied().unwrap_or((0, event.time));
        assert!(bytes >= before, "counters never fall");
        last.insert(flow.id, (bytes, start));
        if flow.phase == FlowPhase::End {
            ended.insert(flow.id);
            let began = flow.start.unwrap();
            let lasted = event.time.since(began).as_millis();
            assert_eq!(u128::from(flow.duration_ms.unwrap()), lasted);
        }
    }
}

#[test]
fn nothing_in_it_is_real() {
    let day = usual_day();
    let documentation = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => v4.is_documentation() || v4.is_private() || v4.is_unspecified(),
        IpAddr::V6(v6) => {
            let head = (v6.segments()[0], v6.segments()[1]);
            head == (0x2001, 0xdb8) || head.0 == 0xfd00
        }
    };
    for event in &day.events {
        match &event.body {
            Body::Dns(dns) => {
                assert!(dns.name.is_at_or_below("example"), "{}", dns.name);
                assert!(documentation(dns.client) && dns.addresses().all(documentation));
            }
            Body::Flow(flow) => assert!(documentation(flow.src.ip) && documentation(flow.dst.ip)),
            Body::Firewall(p) => assert!(documentation(p.src.ip) && documentation(p.dst.ip)),
            Body::Device(d) => assert!(d.mac.0[2..5] == [0x5e, 0, 0x53]),
            Body::Finding(_) | Body::Gap(_) | Body::Process(_) | Body::Connection(_) => {}
        }
    }
}

/// What tier-0 says about the day, list included.
fn findings(day: &Day) -> Vec<Found> {
    let mut config = Tier0Config::default();
    config.blocklist.lists.push(ListConfig { name: LIST_NAME.into(), ..ListConfig::default() });
    let mut builder = config.blocklist.builder();
    builder.list(LIST_NAME, 0.8, day.blocklist.as_bytes());
    let mut engine = Engine::new(&config, builder.build());
    let mut found = Vec::new();
    for event in &day.events {
        engine.on_event(&mut event.clone(), &mut found);
    }
    engine.on_tick(END.plus(std::time::Duration::from_secs(60)), &mut found);
    found
}

/// A finding belongs to a planted attack: its client, its rule, in its time.
fn belongs(found: &Found, planted: &Planted) -> bool {
    // Verdicts that wait (for an answer that may still come) arrive a little later.
    let patience = std::time::Duration::from_secs(60);
    found.finding.client == Some(planted.client)
        && planted.tier0 == Some(found.finding.rule.as_str())
        && (planted.from..=planted.to.plus(patience)).contains(&found.time)
}

#[test]
fn tier_0_finds_what_was_planted_for_it() {
    for (seed, day, found) in DAYS.iter() {
        for planted in day.planted.iter().filter(|p| p.tier0.is_some()) {
            let right = |f: &&Found| {
                let subject = planted.subject.as_deref().unwrap_or_default();
                belongs(f, planted) && f.finding.subject.contains(subject)
            };
            let best = found.iter().filter(right).map(|f| f.finding.severity()).max();
            assert!(
                best.is_some_and(|s| s >= Severity::Medium),
                "seed {seed}: {} not found ({best:?})",
                planted.name
            );
        }
    }
}

#[test]
fn tier_0_is_silent_about_the_rest() {
    for (seed, day, found) in DAYS.iter() {
        for found in found.iter().filter(|f| f.finding.severity() >= Severity::Medium) {
            let finding = &found.finding;
            let twin = day.twins.iter().find(|t| finding.subject.contains(&t.subject));
            // One planted thing may be noticed by several rules, and windowed ones early.
            let planted = day.planted.iter().any(|p| {
                belongs(found, p)
                    || p.subject.as_ref().is_some_and(|s| finding.subject.contains(s.as_str()))
            });
            assert!(planted && twin.is_none(), "seed {seed}: {} {finding:?}", found.time);
        }
    }
}
