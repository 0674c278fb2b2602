//! The pipeline with a simulated clock and a real ring.

use agentmon_core::event::{Device, DeviceSource, Endpoint, Flow, Mac};
use agentmon_core::sample::{self, ip};
use agentmon_core::time::SimClock;
use agentmon_core::wire::decode_event;

use super::*;
use crate::collect::Outbox;
use crate::ring;

const START: i64 = 1_795_000_000;

struct Bench {
    pipeline: Pipeline,
    outbox: Outbox,
    ring: Arc<Ring>,
    clock: Arc<SimClock>,
    counters: Counters,
    wake: Arc<Wake>,
    shared: Arc<Shared>,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(SimClock::at(Timestamp::from_secs(START)));
        let counters = Counters::default();
        let config = ring::Config {
            path: dir.path().join("ring.db"),
            bytes_max: ring::RING_BYTES_MIN,
            ..ring::Config::default()
        };
        let ring = Arc::new(Ring::open(&config, &counters, clock.clone()).unwrap());
        let (outbox, inbox) = Outbox::channel();
        let (wake, shared) = (Arc::<Wake>::default(), Arc::<Shared>::default());
        let parts = Parts {
            inbox,
            ring: Arc::clone(&ring),
            wake: Arc::clone(&wake),
            stop: Stop::default(),
            clock: clock.clone(),
            counters: counters.clone(),
            model: Arc::default(),
        };
        let mut config = Tier0Config::default();
        config.direct_ip.startup_grace_seconds = 0;
        // A thousand questions at once are many, and not what these tests are about.
        config.query_rate.enabled = false;
        let mut builder = config.blocklist.builder();
        builder.list("test", 0.8, b"bad.example\n");
        let pipeline = Pipeline::new(parts, Arc::clone(&shared), &config, builder.build());
        Self { pipeline, outbox, ring, clock, counters, wake, shared, _dir: dir }
    }

    fn deliver(&mut self, bodies: Vec<Body>) {
        let time = self.clock.wall();
        let events = bodies.into_iter().map(|body| Event { time, body }).collect();
        self.pipeline.take(Delivery { events, checkpoint: None });
    }

    /// Time goes on and the thread looks around once.
    fn advance(&mut self, ms: u64) {
        self.clock.advance(Duration::from_millis(ms));
        self.pipeline.answer_requests();
        self.pipeline.tick_if_due();
        self.pipeline.flush_if_due();
    }

    fn pending(&self) -> u64 {
        self.ring.status().pending
    }

    fn stored(&self) -> Vec<Event> {
        let peeked = self.ring.peek(usize::MAX, usize::MAX).unwrap();
        let events = peeked.map(|p| p.events).unwrap_or_default();
        events.iter().map(|bytes| decode_event(bytes).unwrap()).collect()
    }
}

fn dns(name: &str) -> Body {
    Body::Dns(sample::dns("192.0.2.9", name, &["203.0.113.7"]))
}

fn flow(phase: FlowPhase) -> Body {
    let flow = sample::flow("192.0.2.9", "203.0.113.7:443");
    Body::Flow(Flow { phase, replied: true, ..flow })
}

fn device(mac: u8) -> Body {
    Body::Device(Device {
        mac: Mac([2, 0, 0, 0, 0, mac]),
        ip: ip("192.0.2.9"),
        hostname: None,
        iface: None,
        source: DeviceSource::Lease,
    })
}

#[test]
fn commits_after_a_second_and_rings_the_bell() {
    let mut bench = Bench::new();
    bench.deliver(vec![dns("a.example")]);
    bench.advance(0);
    assert!(bench.pipeline.patience() <= FLUSH_EVERY);
    assert_eq!((bench.pending(), bench.wake.wait(Duration::ZERO)), (0, false));
    bench.advance(1_000);
    assert_eq!((bench.pending(), bench.wake.wait(Duration::ZERO)), (1, true));
    assert_eq!(bench.shared.recent.last(5).events.len(), 1);
}

#[test]
fn commits_at_once_when_a_thousand_wait() {
    let mut bench = Bench::new();
    bench.deliver(vec![dns("a.example"); 999]);
    bench.advance(0);
    assert_eq!(bench.pending(), 0);
    bench.deliver(vec![dns("a.example")]);
    bench.advance(0);
    assert_eq!((bench.pending(), bench.counters.snapshot()["pipeline.commits"]), (1_000, 1));
}

#[test]
fn a_finding_follows_its_cause_and_does_not_wait() {
    let mut bench = Bench::new();
    bench.deliver(vec![dns("a.example"), dns("www.bad.example"), dns("b.example")]);
    bench.advance(100);
    let kinds: Vec<_> = bench.stored().iter().map(|e| e.body.kind()).collect();
    assert_eq!(kinds, ["dns", "dns", "finding", "dns"]);
    let Some(Body::Finding(finding)) = bench.stored().get(2).map(|e| e.body.clone()) else {
        panic!("no finding")
    };
    assert_eq!((finding.rule.as_str(), finding.subject.as_str()), ("blocklist", "bad.example"));
    assert_eq!(bench.counters.snapshot()["tier0.findings"], 1);
}

/// A connection that no answer explains.
fn unexplained() -> Body {
    let mut unexplained = flow(FlowPhase::Start);
    if let Body::Flow(flow) = &mut unexplained {
        flow.dst = Endpoint::new(ip("198.51.100.77"), 4_444);
        flow.src.ip = ip("192.168.1.9");
    }
    unexplained
}

/// A client whose DNS is seen: only then is silence telling.
fn seen() -> Body {
    let mut seen = dns("a.example");
    if let Body::Dns(dns) = &mut seen {
        dns.client = ip("192.168.1.9");
    }
    seen
}

#[test]
fn a_detector_that_waits_decides_in_silence() {
    let mut bench = Bench::new();
    bench.deliver(vec![seen(), unexplained()]);
    // Only monotonic time passes, and the wall clock jumps about: neither matters.
    for second in 0..120 {
        if second % 10 == 0 {
            bench.clock.set_wall(Timestamp::from_secs(START + 86_400 * (second % 3)));
        }
        bench.advance(1_000);
    }
    let rules: Vec<_> = bench
        .stored()
        .into_iter()
        .filter_map(|e| if let Body::Finding(f) = e.body { Some(f.rule) } else { None })
        .collect();
    assert_eq!(rules, ["direct-ip"]);
}

/// Three seconds of grace are three, not up to four.
#[test]
fn what_waits_is_decided_when_its_time_has_come() {
    let mut bench = Bench::new();
    let findings = |bench: &Bench| {
        let stored = bench.stored();
        stored.iter().filter(|e| matches!(e.body, Body::Finding(_))).count()
    };
    bench.deliver(vec![seen()]);
    bench.advance(1_100);
    assert!(bench.pipeline.patience() > LOOK);
    bench.deliver(vec![unexplained()]);
    for _ in 0..11 {
        assert!(bench.pipeline.patience() <= LOOK);
        bench.advance(250);
    }
    bench.advance(200);
    assert_eq!(findings(&bench), 0);
    bench.advance(250);
    bench.advance(100);
    assert_eq!(findings(&bench), 1);
    assert!(!bench.pipeline.engine.is_waiting());
}

#[test]
fn starts_of_flows_are_for_tier_0_alone() {
    let mut bench = Bench::new();
    bench.deliver(vec![dns("a.example"), flow(FlowPhase::Start), flow(FlowPhase::End)]);
    bench.advance(1_000);
    let stored = bench.stored();
    assert_eq!(stored.iter().map(|e| e.body.kind()).collect::<Vec<_>>(), ["dns", "flow"]);
    let Some(Body::Flow(flow)) = stored.last().map(|e| e.body.clone()) else { panic!() };
    assert_eq!(flow.resolved.map(|r| r.name.to_string()).as_deref(), Some("a.example"));
    assert_eq!(bench.counters.snapshot()["pipeline.flow_starts"], 1);
}

#[test]
fn macs_are_filled_in_where_they_lack() {
    let mut bench = Bench::new();
    bench.deliver(vec![dns("a.example"), device(7), dns("a.example"), flow(FlowPhase::End)]);
    bench.advance(1_000);
    let macs: Vec<_> = bench
        .stored()
        .iter()
        .map(|e| match &e.body {
            Body::Dns(d) => d.mac.map(|m| m.0[5]),
            Body::Flow(f) => f.mac.map(|m| m.0[5]),
            _ => Some(0),
        })
        .collect();
    assert_eq!(macs, [None, Some(0), Some(7), Some(7)]);
}

#[test]
fn the_newest_checkpoint_goes_with_its_events() {
    let mut bench = Bench::new();
    for (i, value) in [b"1", b"2"].iter().enumerate() {
        let checkpoint = Some(Checkpoint { key: "log".into(), value: value.to_vec() });
        let events = vec![Event { time: bench.clock.wall(), body: dns("a.example") }; i + 1];
        bench.pipeline.take(Delivery { events, checkpoint });
    }
    assert!(bench.ring.checkpoints().is_empty());
    bench.advance(1_000);
    assert_eq!((bench.pending(), bench.ring.checkpoints()["log"].as_slice()), (3, b"2".as_slice()));
    // Also one that comes alone, as from a log without anything of interest.
    let checkpoint = Some(Checkpoint { key: "log".into(), value: b"3".to_vec() });
    bench.pipeline.take(Delivery { events: Vec::new(), checkpoint });
    bench.advance(1_000);
    assert_eq!(bench.ring.checkpoints()["log"], b"3");
}

#[test]
fn a_full_disk_is_waited_out_then_counted_then_over() {
    let mut bench = Bench::new();
    bench.ring.choke(true);
    bench.deliver(vec![dns("a.example"); 1_010]);
    bench.advance(1_000);
    assert_eq!(bench.pipeline.pending.events.len(), 1_010);
    // Room for about 1 MiB in memory; detection goes on meanwhile.
    for _ in 0..30 {
        bench.deliver(vec![dns("a.example"); 1_000]);
        bench.advance(100);
        assert!(bench.pipeline.pending.bytes <= PENDING_BYTES_MAX);
    }
    bench.deliver(vec![dns("bad.example")]);
    let held = bench.pipeline.pending.events.len() as u64;
    let status = bench.ring.status();
    assert!(status.conserves() && status.dropped["disk_full"] > 1_000, "{status:?}");
    assert_eq!(status.dropped["disk_full"] + held, 31_012);
    assert_eq!(bench.counters.snapshot()["tier0.findings"], 1);
    bench.ring.choke(false);
    bench.advance(1_000);
    let status = bench.ring.status();
    assert!(status.conserves(), "{status:?}");
    assert_eq!(status.accepted, 31_012);
    assert_eq!(bench.stored().last().map(|e| e.body.kind()), Some("finding"));
}

#[test]
fn what_was_delivered_before_the_end_is_committed() {
    let mut bench = Bench::new();
    let event = || Event { time: Timestamp::from_secs(START), body: dns("a.example") };
    // As many as the queue holds: nobody takes them out yet.
    for _ in 0..DELIVERIES_MAX {
        let delivery = Delivery { events: vec![event(); 10], checkpoint: None };
        bench.outbox.send(delivery).unwrap();
    }
    bench.pipeline.parts.stop.stop();
    bench.pipeline.run();
    assert_eq!(bench.pending(), 10 * DELIVERIES_MAX as u64);
}

#[test]
fn a_flush_covers_what_still_stands_in_the_queue() {
    let mut bench = Bench::new();
    let event = Event { time: Timestamp::from_secs(START), body: dns("a.example") };
    bench.outbox.send(Delivery { events: vec![event], checkpoint: None }).unwrap();
    let shared = Arc::clone(&bench.shared);
    let asker = std::thread::spawn(move || shared.flush(Duration::from_secs(60)));
    while !asker.is_finished() {
        bench.pipeline.answer_requests();
        std::thread::yield_now();
    }
    assert!(asker.join().unwrap());
    assert_eq!(bench.pending(), 1);
}

#[test]
fn new_lists_are_in_force_from_the_next_event_on() {
    let mut bench = Bench::new();
    let config = Tier0Config::default();
    let mut builder = config.blocklist.builder();
    builder.list("new", 0.5, b"worse.example\n");
    bench.shared.reconfigure(config, builder.build());
    bench.advance(0);
    bench.deliver(vec![dns("bad.example"), dns("worse.example")]);
    bench.advance(1_000);
    let kinds: Vec<_> = bench.stored().iter().map(|e| e.body.kind()).collect();
    assert_eq!(kinds, ["dns", "dns", "finding"]);
    assert_eq!(bench.shared.status()["tier0.blocklist.entries"], 1);
}

/// NTP may be quicker than the first tick.
#[test]
fn a_clock_set_before_the_first_tick_is_noticed() {
    let mut bench = Bench::new();
    let set = |bench: &Bench| bench.counters.snapshot().get("pipeline.clock_set").copied();
    bench.clock.set_wall(Timestamp::from_secs(START + 86_400));
    bench.advance(1_000);
    assert_eq!(set(&bench), Some(1));
    bench.advance(1_000);
    assert_eq!(set(&bench), Some(1));
}
