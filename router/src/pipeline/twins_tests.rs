//! Records of packets and of logs -> records that go on.

use agentmon_core::event::Answer;
use proptest::prelude::*;

use super::*;

const ROUTER: &str = "192.0.2.1";
const PIHOLE: &str = "192.0.2.53";
const UPSTREAM: &str = "203.0.113.2";
const CLIENT: &str = "192.0.2.9";

fn dns(source: &str, client: &str, server: &str, name: &str) -> Dns {
    Dns {
        client: client.parse().unwrap(),
        mac: None,
        name: name.parse().unwrap(),
        qtype: 1,
        status: DnsStatus::Forwarded,
        rcode: Some(0),
        answers: vec![Answer::Address([198, 51, 100, 7].into())],
        ttl: None,
        upstream: Some(server.to_owned()),
        latency_us: None,
        blocked_by: None,
        source: source.to_owned(),
    }
}
fn wall(ms: i64) -> Timestamp {
    Timestamp::from_micros((1_795_000_000_000 + ms) * 1_000)
}
fn mono(ms: i64) -> Mono {
    Mono::from_nanos(u64::try_from(ms).unwrap() * 1_000_000 + 1)
}

#[derive(Default)]
struct Bench(Twins, Vec<String>);

impl Bench {
    /// A packet's record; its TTL and latency are known.
    fn packet(&mut self, ms: i64, client: &str, server: &str, name: &str) {
        let dns = Dns {
            ttl: Some(60),
            latency_us: Some(1_500),
            ..dns("passive-dns", client, server, name)
        };
        let on = self.0.passive(wall(ms), dns, mono(ms));
        self.1.extend(on.iter().map(say));
    }
    /// A log's record, of the second that has begun, read 300 ms later.
    fn log(&mut self, ms: i64, client: &str, server: &str, name: &str) {
        let mut time = wall(ms / 1_000 * 1_000);
        let mut dns = dns("dnsmasq-log", client, server, name);
        self.0.log(&mut time, &mut dns, mono(ms + 300));
        self.1.push(say(&event(time, dns)));
    }
    /// Time goes on; what has gone on so far.
    fn at(&mut self, ms: i64) -> Vec<String> {
        let due = self.0.due(mono(ms));
        self.1.extend(due.iter().map(say));
        std::mem::take(&mut self.1)
    }
}

fn say(event: &Event) -> String {
    let Body::Dns(dns) = &event.body else { panic!("{event:?}") };
    let ms = event.time.since(wall(0)).as_millis();
    let exact = if dns.ttl.is_some() { "+ttl" } else { "" };
    let timed = if dns.latency_us.is_some() { "+latency" } else { "" };
    format!("{ms} {} {} {}{exact}{timed}", dns.source, dns.client, dns.name)
}

#[test]
fn a_look_up_in_the_log_and_on_the_wire_is_one() {
    let mut bench = Bench::default();
    bench.packet(5_250, CLIENT, ROUTER, "www.example.com");
    bench.log(5_250, CLIENT, UPSTREAM, "www.example.com");
    assert_eq!(bench.at(60_000), ["5250 dnsmasq-log 192.0.2.9 www.example.com+ttl+latency"]);
    assert_eq!((bench.0.same, bench.0.relayed, bench.0.len()), (1, 0, 0));
}

#[test]
fn the_log_may_come_first() {
    let mut bench = Bench::default();
    bench.log(5_250, CLIENT, UPSTREAM, "www.example.com");
    bench.packet(5_700, CLIENT, ROUTER, "www.example.com");
    assert_eq!(bench.at(60_000), ["5000 dnsmasq-log 192.0.2.9 www.example.com"]);
    // Asked twice, told once: the second is one of its own.
    bench.packet(6_700, CLIENT, ROUTER, "www.example.com");
    assert_eq!(bench.at(60_000), ["6700 passive-dns 192.0.2.9 www.example.com+ttl+latency"]);
}

#[test]
fn what_no_log_tells_goes_on_after_a_moment() {
    let mut bench = Bench::default();
    bench.packet(5_000, CLIENT, UPSTREAM, "hidden.example.com");
    bench.log(5_000, CLIENT, UPSTREAM, "other.example.com");
    bench.log(5_000, "192.0.2.10", ROUTER, "hidden.example.com");
    assert_eq!(bench.at(7_999).len(), 2);
    assert_eq!(bench.at(8_001), ["5000 passive-dns 192.0.2.9 hidden.example.com+ttl+latency"]);
}

#[test]
fn a_resolver_known_to_be_told_is_waited_for_longer() {
    let mut bench = Bench::default();
    bench.packet(1_000, CLIENT, ROUTER, "one.example.com");
    bench.log(1_000, CLIENT, UPSTREAM, "one.example.com");
    bench.packet(2_000, CLIENT, ROUTER, "two.example.com");
    assert_eq!(bench.at(11_000).len(), 1);
    bench.log(2_000, CLIENT, UPSTREAM, "two.example.com");
    assert_eq!(bench.at(60_000), ["2000 dnsmasq-log 192.0.2.9 two.example.com+ttl+latency"]);
}

#[test]
fn a_log_that_is_behind_is_waited_for() {
    let mut bench = Bench::default();
    bench.packet(100_000, CLIENT, ROUTER, "www.example.com");
    // Read late, line by line.
    for n in 0..20 {
        let (mut time, mut old) =
            (wall(80_000 + n * 1_000), dns("dnsmasq-log", CLIENT, UPSTREAM, "old.example"));
        bench.0.log(&mut time, &mut old, mono(101_000 + n * 1_000));
        assert!(bench.at(101_000 + n * 1_000).is_empty());
    }
    let (mut time, mut dns) =
        (wall(100_000), dns("dnsmasq-log", CLIENT, UPSTREAM, "www.example.com"));
    bench.0.log(&mut time, &mut dns, mono(122_000));
    assert_eq!((bench.0.same, bench.0.len()), (1, 0));
    // A log that stands still is not.
    bench.packet(200_000, CLIENT, ROUTER, "more.example.com");
    assert_eq!(bench.at(210_001).len(), 1);
}

#[test]
fn what_a_resolver_passes_on_is_its_clients() {
    let mut bench = Bench::default();
    // The Pi-hole asks twice for one client's question: another port, another try.
    bench.packet(3_100, PIHOLE, UPSTREAM, "www.example.com");
    bench.packet(3_200, PIHOLE, UPSTREAM, "www.example.com");
    bench.log(3_100, CLIENT, UPSTREAM, "www.example.com");
    // A latency of the resolver is none of the client.
    assert_eq!(bench.at(60_000), ["3200 dnsmasq-log 192.0.2.9 www.example.com+ttl"]);
    assert_eq!((bench.0.same, bench.0.relayed), (0, 2));
    // Its own questions stay its own; so do those to another server.
    bench.packet(61_000, PIHOLE, UPSTREAM, "updates.example.com");
    bench.packet(61_000, PIHOLE, "203.0.113.9", "www.example.com");
    bench.log(61_000, CLIENT, UPSTREAM, "www.example.com");
    let mut told = bench.at(99_000);
    told.sort();
    assert_eq!(
        told,
        [
            "61000 dnsmasq-log 192.0.2.9 www.example.com",
            "61000 passive-dns 192.0.2.53 updates.example.com+ttl+latency",
            "61000 passive-dns 192.0.2.53 www.example.com+ttl+latency",
        ]
    );
}

#[test]
fn who_asks_past_the_resolver_is_told_as_such() {
    let past = "192.0.2.10";
    let mut bench = Bench::default();
    for n in 0..10 {
        let (ms, name) = (n * 20_000, format!("www-{n}.example.com"));
        // The Pi-hole for its client: what the client asks it does not pass by.
        bench.packet(ms, PIHOLE, UPSTREAM, &name);
        // Another asks the same server itself, once for the same name; and the client asks
        // elsewhere too.
        bench.packet(
            ms,
            past,
            UPSTREAM,
            &if n == 9 { name.clone() } else { format!("my-{n}.example") },
        );
        if n >= 5 {
            bench.packet(
                ms,
                CLIENT,
                "203.0.113.8",
                &if n == 9 { name.clone() } else { "his.example".into() },
            );
        }
        bench.log(ms, CLIENT, UPSTREAM, &name);
        bench.0.due(mono(ms + 15_000)).iter().for_each(|event| bench.1.push(say(event)));
    }
    assert_eq!((bench.0.same, bench.0.relayed), (0, 10));
    let told = bench.at(300_000);
    let both: Vec<_> = told.iter().filter(|line| line.contains("www-9")).collect();
    assert_eq!(both.len(), 3, "{told:?}");
}

#[test]
fn the_same_name_hours_ago_is_another_look_up() {
    let mut bench = Bench::default();
    bench.packet(3_600_000, CLIENT, ROUTER, "www.example.com");
    // A log that is being caught up with.
    let (mut time, mut old) = (wall(0), dns("dnsmasq-log", CLIENT, UPSTREAM, "www.example.com"));
    bench.0.log(&mut time, &mut old, mono(3_600_100));
    assert_eq!((time, old.ttl), (wall(0), None));
    assert_eq!(bench.at(3_700_000).len(), 1);
}

#[test]
fn a_flood_that_no_log_tells_takes_half_the_room() {
    let mut bench = Bench::default();
    bench.packet(0, CLIENT, ROUTER, "one.example.com");
    bench.log(0, CLIENT, UPSTREAM, "one.example.com");
    for n in 0..3 * HELD_MAX {
        bench.packet(100, "192.0.2.66", "198.51.100.50", &format!("wild-{n}.example"));
    }
    assert_eq!((bench.0.len(), bench.1.len()), (HELD_MAX / 2, 1 + 3 * HELD_MAX - HELD_MAX / 2));
    bench.1.clear();
    bench.packet(200, CLIENT, ROUTER, "two.example.com");
    bench.log(200, CLIENT, UPSTREAM, "two.example.com");
    assert_eq!(bench.1, ["200 dnsmasq-log 192.0.2.9 two.example.com+ttl+latency"]);
}

proptest! {
    /// Every packet goes on or has a twin; memory stays bounded, and nothing is left behind.
    #[test]
    fn conservation(steps in proptest::collection::vec((0u8..3, 0u8..3, 0u8..3, any::<bool>(), 0i64..4_000), 0..120)) {
        let mut bench = Bench::default();
        let (mut packets, mut logs, mut ms) = (0, 0, 0);
        let mut on = 0;
        for (client, server, name, log, wait) in steps {
            ms += wait;
            on += bench.at(ms).len();
            let (client, server) = (format!("192.0.2.{client}"), format!("203.0.113.{server}"));
            let name = format!("{name}.example");
            if log {
                logs += 1;
                bench.log(ms, &client, &server, &name);
            } else {
                packets += 1;
                bench.packet(ms, &client, &server, &name);
            }
        }
        on += bench.at(ms + 60_000).len();
        let twins = usize::try_from(bench.0.same + bench.0.relayed).unwrap();
        prop_assert_eq!(on + twins, packets + logs);
        prop_assert!(bench.0.held.is_empty() && bench.0.waiting.is_empty());
        bench.0.forget(mono(ms + 60_000));
        prop_assert!(bench.0.told.is_empty() && bench.0.told_order.is_empty());
    }
}
