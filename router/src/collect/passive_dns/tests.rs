//! Captured packets -> exchanges.

use agentmon_core::event::{Answer, DnsStatus};
use proptest::prelude::*;

use super::*;
use crate::netlink::captured::{self, bytes};
use crate::netlink::{messages, nflog};

/// A turn that reads the packet `ms` after the clock's zero, a second after it passed.
fn moment(logged: &Logged<'_>, ms: u64) -> Moment {
    let wall = logged.time.unwrap().plus(Duration::from_secs(1));
    Moment { wall, mono: Mono::from_nanos(ms * 1_000_000), earliest: wall }
}

/// What these packets, one millisecond apart, come to; then five seconds pass.
fn heard(packets: &[&str]) -> (Vec<Dns>, Listener) {
    let mut listener = Listener::new(100);
    let mut found = Vec::new();
    for (ms, hex) in (1_000u64..).zip(packets) {
        let bytes = bytes(hex);
        let logged = nflog::decode(&messages(&bytes).next().unwrap().unwrap()).unwrap();
        listener.packet(&logged, &moment(&logged, ms), &mut found);
    }
    let mut found: Vec<Dns> = found.into_iter().map(|(_, dns)| dns).collect();
    found.extend(listener.exchanges.expire(Mono::from_nanos(10_000_000_000)));
    (found, listener)
}

#[test]
fn an_exchange_over_udp() {
    let (found, listener) = heard(&[captured::QUERY, captured::ANSWER]);
    let [dns] = &found[..] else { panic!("{found:?}") };
    assert_eq!(
        (dns.client.to_string().as_str(), dns.name.as_str()),
        ("192.168.77.2", "www.example.com")
    );
    assert_eq!((dns.qtype, dns.status, dns.rcode), (1, DnsStatus::Forwarded, Some(0)));
    let answers = [
        Answer::Cname("cdn.example.com".parse().unwrap()),
        Answer::Address([203, 0, 113, 80].into()),
    ];
    assert_eq!(dns.answers, answers);
    assert_eq!((dns.ttl, dns.upstream.as_deref()), (Some(30), Some("203.0.113.2")));
    assert!(dns.mac.is_some() && dns.latency_us.is_some());
    assert_eq!(listener.unreadable, 0);
}

#[test]
fn a_name_that_does_not_exist_over_ipv6() {
    let (found, _) = heard(&[captured::QUERY6, captured::ANSWER6]);
    let [dns] = &found[..] else { panic!("{found:?}") };
    assert_eq!((dns.name.as_str(), dns.rcode), ("nx.example.com", Some(3)));
    assert_eq!(dns.client.to_string(), "2001:db8:77::2");
}

#[test]
fn an_exchange_over_tcp() {
    let (found, listener) = heard(&captured::OVER_TCP);
    let [dns] = &found[..] else { panic!("{found:?}") };
    assert_eq!((dns.name.as_str(), dns.answers.len()), ("tcp.example.com", 2));
    assert_eq!((listener.unreadable, listener.streams.broken), (0, 0));
}

#[test]
fn halves_and_repeats() {
    let check = |packets: &[&str], expected: &[DnsStatus]| {
        let (found, _) = heard(packets);
        assert_eq!(found.iter().map(|d| d.status).collect::<Vec<_>>(), expected);
    };
    check(&[captured::QUERY], &[DnsStatus::Timeout]);
    check(&[captured::ANSWER], &[DnsStatus::Forwarded]);
    check(
        &[captured::QUERY, captured::QUERY, captured::ANSWER, captured::ANSWER],
        &[DnsStatus::Forwarded],
    );
    // No DNS at all.
    let (found, listener) = heard(&[captured::REJECTED_TCP, captured::DROPPED_UDP6]);
    assert_eq!((found.len(), listener.unreadable), (0, 1));
}

#[test]
fn an_answer_is_never_later_than_it_was() {
    let whole = bytes(captured::ANSWER);
    let logged = nflog::decode(&messages(&whole).next().unwrap().unwrap()).unwrap();
    let time_of = |logged: &Logged<'_>, now: Moment| {
        let mut found = Vec::new();
        Listener::new(4).packet(logged, &now, &mut found);
        found[0].0
    };
    let now = moment(&logged, 0);
    assert_eq!(Some(time_of(&logged, now)), logged.time);
    // No stamp, or one of a clock that was set since: not before the queue was empty.
    let earliest = now.wall.minus(Duration::from_millis(20));
    let now = Moment { earliest, ..now };
    assert_eq!(time_of(&Logged { time: None, ..logged }, now), earliest);
    let old = Some(Timestamp::from_secs(5));
    assert_eq!(time_of(&Logged { time: old, ..logged }, now), earliest);
}

proptest! {
    #[test]
    fn damaged_packets_never_panic(
        which in 0usize..4,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let hex = [captured::QUERY, captured::ANSWER, captured::ANSWER6, captured::OVER_TCP[3]][which];
        let whole = bytes(hex);
        let logged = nflog::decode(&messages(&whole).next().unwrap().unwrap()).unwrap();
        let mut payload = logged.payload.to_vec();
        for (place, value) in changes {
            let place = place.index(payload.len());
            payload[place] = value;
        }
        let payload = &payload[..cut.index(payload.len() + 1)];
        let mut listener = Listener::new(4);
        let mut found = Vec::new();
        listener.packet(&Logged { payload, ..logged }, &moment(&logged, 0), &mut found);
        prop_assert!(found.len() <= 1);
    }
}
