//! Who is told what name, and that nobody can make others forgotten.

use super::*;
use crate::sample;

fn answer(client: &str, name: &str, ip: &str) -> Dns {
    sample::dns(client, name, &[ip])
}
fn at(s: i64) -> Timestamp {
    Timestamp::from_secs(1_795_000_000 + s)
}
#[track_caller]
fn check(names: &Names, client: &str, ip: &str, time: i64, expected: Option<(&str, u64)>) {
    let got = names.resolve(client.parse().unwrap(), ip.parse().unwrap(), at(time));
    let got = got.as_ref().map(|r| (r.name.as_str(), r.age_ms));
    assert_eq!(got, expected);
}

#[test]
fn only_the_client_that_asked_and_only_afterwards() {
    let mut names = Names::new(NamesConfig::default());
    names.learn(at(10), &answer("192.0.2.1", "a.example", "203.0.113.1"));
    check(&names, "192.0.2.1", "203.0.113.1", 12, Some(("a.example", 2000)));
    check(&names, "192.0.2.1", "203.0.113.1", 9, None);
    check(&names, "192.0.2.2", "203.0.113.1", 12, None);
    check(&names, "192.0.2.1", "203.0.113.1", 10 + 86_401, None);
}

#[test]
fn a_shared_address_goes_by_the_latest_name_before_the_flow() {
    let mut names = Names::new(NamesConfig::default());
    names.learn(at(10), &answer("192.0.2.1", "a.example", "203.0.113.1"));
    names.learn(at(20), &answer("192.0.2.1", "b.example", "203.0.113.1"));
    check(&names, "192.0.2.1", "203.0.113.1", 25, Some(("b.example", 5000)));
    check(&names, "192.0.2.1", "203.0.113.1", 15, Some(("a.example", 5000)));
    // Repeats keep the name before.
    names.learn(at(30), &answer("192.0.2.1", "b.example", "203.0.113.1"));
    check(&names, "192.0.2.1", "203.0.113.1", 35, Some(("b.example", 5000)));
    check(&names, "192.0.2.1", "203.0.113.1", 15, Some(("a.example", 5000)));
}

#[test]
fn a_late_answer_fills_the_place_before() {
    let mut names = Names::new(NamesConfig::default());
    names.learn(at(20), &answer("192.0.2.1", "b.example", "203.0.113.1"));
    names.learn(at(10), &answer("192.0.2.1", "a.example", "203.0.113.1"));
    check(&names, "192.0.2.1", "203.0.113.1", 15, Some(("a.example", 5000)));
    check(&names, "192.0.2.1", "203.0.113.1", 25, Some(("b.example", 5000)));
}

#[test]
fn a_blocked_answer_names_no_address() {
    let mut names = Names::new(NamesConfig::default());
    names.learn(at(10), &answer("192.0.2.1", "a.example", "0.0.0.0"));
    assert!(names.is_empty());
}

#[test]
fn the_hints_of_a_service_record_are_destinations_too() {
    let mut names = Names::new(NamesConfig::default());
    let mut dns = answer("192.0.2.1", "a.example", "203.0.113.9");
    let text = "HTTPS 1 . alpn=h2,h3 ipv4hint=203.0.113.1,203.0.113.2 ipv6hint=2001:db8::1";
    dns.answers = vec![crate::event::Answer::Other(text.to_owned())];
    // The same words in a text anybody may write.
    names.learn(at(10), &Dns { qtype: 16, ..dns.clone() });
    assert!(names.is_empty());
    names.learn(at(10), &Dns { qtype: 65, ..dns.clone() });
    for ip in ["203.0.113.1", "203.0.113.2", "2001:db8::1"] {
        check(&names, "192.0.2.1", ip, 12, Some(("a.example", 2000)));
    }
    dns.answers = vec![crate::event::Answer::Other("SVCB 1 . ipv4hint=203.0.113.7,203...".into())];
    names.learn(at(10), &Dns { qtype: 64, ..dns });
    assert_eq!(names.len(), 4);
}

#[test]
fn the_clock_is_set() {
    let mut names = Names::new(NamesConfig::default());
    let (old, new) = (Timestamp::from_secs(100), at(0));
    names.learn(old, &answer("192.0.2.1", "a.example", "203.0.113.1"));
    names.clock_set(old.plus(Duration::from_secs(5)), new);
    check(&names, "192.0.2.1", "203.0.113.1", 1, Some(("a.example", 6000)));
    names.clock_set(new, old);
    assert!(names.explains("192.0.2.1".parse().unwrap(), None, "203.0.113.1".parse().unwrap()));
    check(&names, "192.0.2.1", "203.0.113.1", 1, None);
}

/// A device is one client whatever address it uses.
#[test]
fn a_device_asks_by_one_address_and_connects_by_another() {
    let mac = Some(Mac([0, 0, 0x5e, 0, 0x53, 1]));
    let (v4, v6) = ("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
    let address = "203.0.113.1".parse().unwrap();
    let mut names = Names::new(NamesConfig::default());
    names.learn_device(at(0), &Dns { mac, ..answer("192.0.2.1", "a.example", "203.0.113.1") });
    for client in [v4, v6] {
        let resolved = names.resolve_device(client, mac, address, at(2)).unwrap();
        assert_eq!((resolved.name.as_str(), resolved.age_ms), ("a.example", 2000));
        assert!(names.explains(client, mac, address));
    }
    assert_eq!(names.len(), 1);
    // Before the MAC was known, answers were kept by address; the latest counts.
    names.learn_device(at(5), &answer("192.0.2.1", "b.example", "203.0.113.1"));
    let resolved = names.resolve_device(v4, mac, address, at(6)).unwrap();
    assert_eq!((resolved.name.as_str(), resolved.age_ms), ("b.example", 1000));
}

#[test]
fn who_never_asks_is_explained_by_anybodys_answer() {
    let [a, b, c] = ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(|ip| ip.parse().unwrap());
    let address = "203.0.113.1".parse().unwrap();
    let mut names = Names::new(NamesConfig::default());
    assert!(!names.sees_answers());
    names.learn(at(0), &answer("192.0.2.1", "a.example", "203.0.113.1"));
    names.learn(at(0), &answer("192.0.2.2", "b.example", "203.0.113.2"));
    assert!(names.sees_answers());
    assert!(names.explains(a, None, address));
    assert!(!names.explains(b, None, address), "asks here, so its own answers count");
    assert!(names.explains(c, None, address));
    assert!(!names.explains(c, None, "203.0.113.3".parse().unwrap()));
}

/// Many answers, many of them repeated at the same moment under changing names.
#[test]
fn bounded_and_counted() {
    let mut names = Names::new(NamesConfig { entries_max: 10, keep_seconds: 3600 });
    for i in 0..100i64 {
        let ip = format!("203.0.113.{i}");
        for name in ["a.example", "b.example"].into_iter().cycle().take(50) {
            names.learn(at(i), &answer("192.0.2.1", name, &ip));
        }
    }
    assert_eq!((names.len(), names.evicted()), (10, 90));
    let client = &names.clients[&"192.0.2.1".parse::<IpAddr>().unwrap()];
    assert_eq!((client.map.len(), client.order.len()), (10, 10));
    check(&names, "192.0.2.1", "203.0.113.99", 99, Some(("b.example", 0)));
}

#[test]
fn one_clients_flood_does_not_make_others_forgotten() {
    let mut names = Names::new(NamesConfig { entries_max: 100, keep_seconds: 3600 });
    names.learn(at(0), &answer("192.0.2.1", "a.example", "203.0.113.1"));
    for i in 0..1_000u32 {
        let ip = std::net::Ipv4Addr::from(0xcb00_0000 + i).to_string();
        names.learn(at(1), &answer("192.0.2.66", "flood.example", &ip));
    }
    check(&names, "192.0.2.1", "203.0.113.1", 2, Some(("a.example", 2000)));
    assert_eq!(names.len(), 100);
}

#[test]
fn what_is_answered_again_stays_longer() {
    let mut names = Names::new(NamesConfig { entries_max: 10, keep_seconds: 3600 });
    for i in 0..100 {
        names.learn(at(i), &answer("192.0.2.1", "hot.example", "203.0.113.200"));
        let ip = format!("203.0.113.{i}");
        names.learn(at(i), &answer("192.0.2.1", "cold.example", &ip));
    }
    check(&names, "192.0.2.1", "203.0.113.200", 100, Some(("hot.example", 1000)));
}

#[test]
fn forged_clients_are_bounded() {
    let mut names = Names::new(NamesConfig::default());
    for i in 0..1_500u32 {
        let client = std::net::Ipv4Addr::from(0x0a00_0000 + i).to_string();
        names.learn(at(0), &answer(&client, "a.example", "203.0.113.1"));
    }
    assert_eq!((names.clients.len(), names.len()), (CLIENTS_MAX, CLIENTS_MAX));
    assert_eq!(names.evicted(), 1_500 - CLIENTS_MAX as u64);
}

#[test]
fn new_limits_hold_at_once() {
    let mut names = Names::new(NamesConfig::default());
    for i in 0..100 {
        names.learn(at(0), &answer("192.0.2.1", "a.example", &format!("203.0.113.{i}")));
    }
    names.reconfigure(NamesConfig { entries_max: 10, keep_seconds: 3600 });
    assert_eq!(names.len(), 10);
}

proptest::proptest! {
    #[test]
    fn the_largest_client_is_known(
        answers in proptest::collection::vec((0u8..12, 0u8..40), 0..300),
        entries_max in 1usize..30,
    ) {
        let mut names = Names::new(NamesConfig { entries_max, ..NamesConfig::default() });
        for (n, (client, address)) in answers.into_iter().enumerate() {
            let (client, address) = (format!("192.0.2.{client}"), format!("203.0.113.{address}"));
            names.learn(at(n as i64), &answer(&client, "a.example", &address));
            let sizes = names.clients.iter().map(|(ip, c)| (c.map.len(), *ip));
            assert_eq!(names.sizes, sizes.collect());
            assert_eq!(names.len(), names.sizes.iter().map(|(size, _)| size).sum::<usize>());
            assert!(names.len() <= entries_max);
        }
    }
}
