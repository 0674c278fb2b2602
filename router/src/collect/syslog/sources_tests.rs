//! Rates, bounds, silences and lateness of senders, with made-up times.

use super::*;

fn sources(per_second: u32) -> Sources {
    let config = Config { messages_per_second: per_second, ..Config::default() };
    Sources::new(&config, Zone::utc())
}

fn ip(n: u32) -> IpAddr {
    IpAddr::from(n.to_be_bytes())
}

fn at(second: u64) -> Now {
    let wall = Timestamp::from_secs(1_795_442_400).plus(Duration::from_secs(second));
    Now { wall, mono: Mono::from_nanos((second + 1) * 1_000_000_000) }
}

#[test]
fn each_source_has_its_own_rate() {
    let mut sources = sources(10);
    let mut taken =
        |who, second| (0..100).filter(|_| sources.take(ip(who), at(second).mono)).count();
    assert_eq!(taken(1, 0), 20, "a burst");
    assert_eq!(taken(1, 0), 0);
    assert_eq!(taken(2, 0), 20, "another has its own");
    assert_eq!(taken(1, 1), 10, "a second's worth");
    assert_eq!(taken(1, 1_000), 20, "no more than a burst is saved up");
}

#[test]
fn connections_read_on_credit_and_then_wait() {
    let mut sources = sources(10);
    for _ in 0..30 {
        sources.pay(ip(1), at(0).mono);
    }
    assert!(!sources.may_read(ip(1), at(1).mono));
    assert!(sources.may_read(ip(1), at(2).mono));
}

#[test]
fn sources_are_bounded_and_the_oldest_goes() {
    let mut sources = sources(1);
    let mut out = Vec::new();
    for n in 0..SOURCES_MAX as u32 + 50 {
        sources.heard(ip(n), at(u64::from(n)).wall, at(u64::from(n)), &mut out);
    }
    assert_eq!(sources.map.len(), SOURCES_MAX);
    assert!(!sources.map.contains_key(&ip(49)) && sources.map.contains_key(&ip(50)));
    assert!(out.is_empty());
}

/// Gaps as seconds and reason; findings as their rule and client.
fn reasons(out: &[Event]) -> Vec<(i64, String)> {
    let gap = |event: &Event| match &event.body {
        Body::Gap(gap) => (event.time.since(gap.from).as_secs() as i64, gap.reason.clone()),
        Body::Finding(f) => (0, format!("{} {}", f.rule, f.client.unwrap())),
        other => panic!("{other:?}"),
    };
    out.iter().map(gap).collect()
}

#[test]
fn a_silence_is_told_when_it_begins_and_when_it_ends() {
    let (mut sources, mut out) = (sources(1), Vec::new());
    sources.heard(ip(1), at(0).wall, at(0), &mut out);
    for second in [100, 1_799, 1_800, 1_900, 2_000] {
        sources.idle(at(second), &mut out);
    }
    let told = [(1_800, "silent".to_owned()), (0, "log-silent 0.0.0.1".to_owned())];
    assert_eq!(reasons(&out), told);
    assert!(sources.state(at(2_400).mono).1.unwrap().contains("silent for 40 min"));
    sources.heard(ip(1), at(3_000).wall, at(3_000), &mut out);
    assert_eq!(reasons(&out)[2..], [(3_000, "silent".to_owned())]);
    assert_eq!(sources.state(at(3_000).mono), (1, None));
}

#[test]
fn who_is_named_and_never_sends_is_told() {
    let allow = ["192.0.2.1/32", "192.0.2.2/32", "198.51.100.0/24", "127.0.0.1/32", "::1/128"];
    let allow = allow.map(|net| net.parse().unwrap()).to_vec();
    let mut sources = Sources::new(&Config { allow, ..Config::default() }, Zone::utc());
    let mut out = Vec::new();
    sources.idle(at(0), &mut out);
    assert_eq!(sources.map.len(), 2, "neither networks nor this machine");
    let told: IpAddr = "192.0.2.2".parse().unwrap();
    sources.heard(told, at(1_000).wall, at(1_000), &mut out);
    sources.idle(at(1_799), &mut out);
    assert!(out.is_empty());
    sources.idle(at(1_800), &mut out);
    sources.idle(at(1_900), &mut out);
    let expected = [(1_800, "silent".to_owned()), (0, "log-silent 192.0.2.1".to_owned())];
    assert_eq!(reasons(&out), expected);
}

#[test]
fn lateness_is_told_once_in_a_while() {
    let (mut sources, mut out) = (sources(1), Vec::new());
    assert!(!sources.heard(ip(1), at(0).wall, at(300), &mut out));
    assert!(sources.heard(ip(1), at(0).wall, at(301), &mut out));
    assert!(sources.heard(ip(1), at(0).wall, at(360), &mut out));
    assert_eq!(reasons(&out), [(301, "late".to_owned())]);
    assert!(sources.state(at(360).mono).1.unwrap().contains("6 min late"));
    assert!(!sources.heard(ip(1), at(900).wall, at(900), &mut out));
    assert!(sources.heard(ip(1), at(9_000).wall, at(1_000), &mut out));
    assert_eq!(reasons(&out)[1..], [(0, "clock-ahead".to_owned())]);
    assert!(!sources.heard(ip(1), at(1_000).wall, at(1_000), &mut out));
    assert_eq!(sources.state(at(1_000).mono), (1, None));
}

/// A cut line is made up for at once; a clock that is wrong stays wrong.
#[test]
fn lateness_that_lasts_is_found_once() {
    let found = |out: &[Event]| out.iter().filter(|e| matches!(e.body, Body::Finding(_))).count();
    let (mut sources, mut out) = (sources(1), Vec::new());
    for second in 1_000..1_059 {
        sources.heard(ip(1), at(second - 900).wall, at(second), &mut out);
    }
    sources.heard(ip(1), at(1_059).wall, at(1_059), &mut out);
    assert_eq!(found(&out), 0, "caught up within a minute");
    for second in 1_100..2_500 {
        sources.heard(ip(1), at(second - 400).wall, at(second), &mut out);
    }
    assert_eq!(found(&out), 1);
    assert!(reasons(&out).contains(&(0, "log-late 0.0.0.1".to_owned())));
}
