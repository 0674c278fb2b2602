//! How long a tier-0 verdict takes, with a blocklist of a million names.
//!
//! `cargo run --release -p agentmon-core --example tier0_speed`
//!
//! 75 clients look up names, a quarter of them seen for the first time, and connect to what
//! they are told; one name in 1,000 is listed. Prints building time and size of the list,
//! and mean, median and 99th percentile of [`Engine::on_event`] for DNS exchanges and
//! flows. Time per event includes about 40 ns of reading the clock.

#![allow(clippy::print_stdout, reason = "a measuring program's output")]

use std::net::{IpAddr, Ipv4Addr};

use agentmon_core::event::{Answer, Body, Dns, DnsStatus, Endpoint, Event, Flow, FlowPhase};
use agentmon_core::tier0::blocklist::Builder;
use agentmon_core::tier0::{Engine, Tier0Config};
use agentmon_core::time::{Clock, SystemClock, Timestamp};

const LISTED: u32 = 1_000_000;
const EXCHANGES: u32 = 400_000;

fn main() {
    let text: String = (0..LISTED).map(|i| format!("{}\n", listed(i))).collect();
    let clock = SystemClock;
    let start = clock.mono();
    let mut builder = Builder::new(4_000_000);
    println!("{}", builder.list("million", 0.8, text.as_bytes()));
    let lists = builder.build();
    println!(
        "built in {:.2} s, {:.2} MB for {} names",
        clock.mono().since(start).as_secs_f64(),
        lists.size_bytes() as f64 / 1e6,
        lists.len()
    );
    let mut config = Tier0Config::default();
    config.direct_ip.startup_grace_seconds = 0;
    let mut engine = Engine::new(&config, lists);
    let mut events: Vec<(Event, Event)> = (0..EXCHANGES).map(exchange).collect();
    let (mut found, mut dns_times, mut flow_times) = (Vec::new(), Vec::new(), Vec::new());
    let start = clock.mono();
    for (dns, flow) in &mut events {
        let begin = clock.mono();
        engine.on_event(dns, &mut found);
        let middle = clock.mono();
        engine.on_event(flow, &mut found);
        dns_times.push(middle.since(begin).as_nanos());
        flow_times.push(clock.mono().since(middle).as_nanos());
    }
    let total = clock.mono().since(start);
    show("dns", &mut dns_times);
    show("flow", &mut flow_times);
    println!(
        "{} findings; {:.0} events/s on one core, clock reading included",
        found.len(),
        f64::from(2 * EXCHANGES) / total.as_secs_f64()
    );
    untimed(engine, &mut events);
    decoding();
}

/// A response of two records: a name, an alias and an address.
fn decoding() {
    let mut message = vec![0x12, 0x34, 0x81, 0x80, 0, 1, 0, 2, 0, 0, 0, 0];
    message.extend(b"\x03www\x07example\x03com\0\0\x01\0\x01");
    message.extend(b"\xc0\x0c\0\x05\0\x01\0\0\0\x3c\0\x07\x04host\xc0\x10");
    message.extend(b"\xc0\x2d\0\x01\0\x01\0\0\0\x3c\0\x04\xc0\0\x02\x07");
    let decoded = agentmon_core::dns_wire::decode(&message).expect("a valid message");
    assert_eq!((decoded.answers.len(), decoded.incomplete), (2, false));
    let start = processor_ns();
    for _ in 0..EXCHANGES {
        std::hint::black_box(
            agentmon_core::dns_wire::decode(std::hint::black_box(&message)).is_ok(),
        );
    }
    let each = (processor_ns() - start) / u64::from(EXCHANGES);
    println!(
        "decoding a DNS response of {} bytes: mean {each} ns of processor time",
        message.len()
    );
}

/// The same events again without a clock in between.
fn untimed(mut engine: Engine, events: &mut [(Event, Event)]) {
    let mut found = Vec::new();
    let start = processor_ns();
    for (dns, _) in events.iter_mut() {
        engine.on_event(dns, &mut found);
    }
    let each = (processor_ns() - start) / u64::from(EXCHANGES);
    println!("dns, no clock in between: mean {each} ns of processor time");
    for (name, value) in engine.status() {
        println!("  {name} {value}");
    }
}

/// Time this thread had a processor, whatever else ran beside it (`sched-stats.rst`).
fn processor_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Scattered but reproducible.
fn mix(n: u32) -> u32 {
    let n = n.wrapping_mul(0x9e37_79b1);
    (n ^ n >> 15).wrapping_mul(0x85eb_ca77)
}

const SYLLABLES: [&str; 16] = [
    "ban", "cor", "del", "fin", "gar", "hol", "jun", "kan", "lem", "mar", "nor", "pel", "ros",
    "sel", "tor", "win",
];

/// A pronounceable word for each number.
fn word(n: u32) -> String {
    (0..6).map(|i| SYLLABLES[(n >> (4 * i) & 15) as usize]).collect()
}

fn listed(i: u32) -> String {
    format!("{}.example", word(i))
}

fn exchange(i: u32) -> (Event, Event) {
    let time = Timestamp::from_micros(1_795_000_000_000_000 + i64::from(i) * 500);
    let client = IpAddr::from(Ipv4Addr::from(0xc0a8_0100 + mix(i) % 75));
    let which = if i.is_multiple_of(4) { i } else { mix(i) % 2_000 };
    let name = match i % 1_000 {
        0 => format!("www.{}", listed(mix(i) % LISTED)),
        _ => format!("cdn{}.{}.co.uk", which % 10, word(which.wrapping_add(0x0100_0000))),
    };
    let address = IpAddr::from(Ipv4Addr::from(0x2d00_0000 + which));
    let dns = Dns {
        client,
        mac: None,
        name: name.parse().expect("a valid name"),
        qtype: 1,
        status: DnsStatus::Forwarded,
        rcode: Some(0),
        answers: vec![
            Answer::Cname("edge.cdn.example.net".parse().expect("a valid name")),
            Answer::Address(address),
        ],
        ttl: Some(300),
        upstream: None,
        latency_us: None,
        blocked_by: None,
        source: "speed".into(),
    };
    let flow = Flow {
        id: u64::from(i),
        phase: FlowPhase::Start,
        proto: 6,
        src: Endpoint::new(client, 40_000),
        dst: Endpoint::new(address, 443),
        nat_src: None,
        nat_dst: None,
        start: Some(time),
        duration_ms: None,
        volume: None,
        tcp_state: None,
        replied: false,
        offloaded: false,
        iface: None,
        mac: None,
        resolved: None,
    };
    (Event { time, body: Body::Dns(dns) }, Event { time, body: Body::Flow(flow) })
}

fn show(what: &str, times: &mut [u128]) {
    times.sort_unstable();
    let mean = times.iter().sum::<u128>() / times.len().max(1) as u128;
    let at = |part: usize| times.get(times.len() * part / 1_000).copied().unwrap_or(0);
    println!(
        "{what}: mean {mean} ns, median {} ns, p99 {} ns, p99.9 {} ns",
        at(500),
        at(990),
        at(999)
    );
}
