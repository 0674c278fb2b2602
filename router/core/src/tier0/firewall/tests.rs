//! Single places, scans, the noise of the internet, and their benign twins.

use super::super::Tier0Config;
use super::super::tests::Script;
use super::*;
use crate::event::{Body, Endpoint};

fn script() -> Script {
    Script::new(Tier0Config::default(), "firewall")
}
fn packet(src: &str, dst: &str) -> Firewall {
    let dst: std::net::SocketAddr = dst.parse().unwrap();
    Firewall {
        verdict: Verdict::Reject,
        prefix: "reject wan out: ".into(),
        proto: 6,
        src: Endpoint::new(src.parse().unwrap(), 40_000),
        dst: Endpoint::new(dst.ip(), dst.port()),
        in_iface: Some("br-lan".into()),
        out_iface: Some("wan".into()),
        mac: None,
        bytes: 60,
    }
}
fn put(s: &mut Script, at: i64, src: &str, dst: &str) {
    s.event(at, Body::Firewall(packet(src, dst)));
}

#[test]
fn a_stopped_place_is_told_once() {
    let mut s = script();
    put(&mut s, 0, "192.168.1.5", "203.0.113.9:445");
    put(&mut s, 1, "192.168.1.5", "203.0.113.9:445");
    s.said(&["203.0.113.9:445/tcp"]);
    // Another client, and towards another network of the house.
    put(&mut s, 2, "192.168.1.6", "203.0.113.9:445");
    put(&mut s, 3, "192.168.1.6", "192.168.2.7:22");
    s.said(&["203.0.113.9:445/tcp", "192.168.2.7:22/tcp"]);
    put(&mut s, 500, "192.168.1.5", "203.0.113.9:445");
    s.said(&[]);
    for t in 1..9 {
        s.tick(t * 500);
    }
    put(&mut s, 4_000, "192.168.1.5", "203.0.113.9:445");
    s.said(&["203.0.113.9:445/tcp"]);
}

#[test]
fn a_client_that_insists() {
    let mut s = script();
    for t in 0..60 {
        put(&mut s, t, "192.168.1.5", "203.0.113.9:445");
    }
    let scores: Vec<f64> = s.found.iter().map(|f| f.finding.score).collect();
    assert_eq!(scores, [0.3, 0.4]);
    s.said(&["203.0.113.9:445/tcp", "203.0.113.9:445/tcp"]);
}

#[test]
fn many_addresses_are_a_scan() {
    let mut s = script();
    for i in 0..200 {
        put(&mut s, i / 10, "192.168.1.5", &format!("203.0.113.{i}:23"));
    }
    let singles: Vec<String> = (0..10).map(|i| format!("203.0.113.{i}:23/tcp")).collect();
    let mut expected: Vec<&str> = singles.iter().map(String::as_str).collect();
    expected.push("fan-out");
    s.said(&expected);
    assert_eq!(s.status("tier0.firewall.folded"), 190);
}

#[test]
fn many_ports_of_one_address_are_a_scan() {
    let mut s = script();
    for port in 1..100 {
        put(&mut s, 0, "192.168.1.5", &format!("192.168.2.7:{port}"));
    }
    assert_eq!(s.found.last().unwrap().finding.subject, "many ports of 192.168.2.7");
    assert_eq!(s.found.len(), 11);
}

/// The twin of a scan: as many addresses, but over hours (a phone that tries its
/// update servers again and again).
#[test]
fn the_same_number_over_hours_is_no_scan() {
    let mut s = script();
    for i in 0..200i64 {
        put(&mut s, i * 30, "192.168.1.5", &format!("203.0.113.{}:443", i % 24));
    }
    assert!(s.found.iter().all(|f| f.finding.score < 0.4), "{:?}", s.found);
}

#[test]
fn the_internets_noise_is_one_line_an_hour() {
    let mut s = script();
    for i in 0..1_000u32 {
        let src = std::net::Ipv4Addr::from(0xc633_6400 + i % 300);
        put(&mut s, i64::from(i), &src.to_string(), "203.0.113.1:23");
    }
    s.said(&[]);
    for t in 0..10 {
        s.tick(1_000 + t * 400);
    }
    let found = &s.found[0].finding;
    assert_eq!(found.why, "the firewall stopped 1000 packets from at least 64 outside addresses");
    assert_eq!(found.severity(), crate::finding::Severity::Info);
    s.said(&["inbound"]);
    for t in 10..40 {
        s.tick(1_000 + t * 400);
    }
    s.said(&[]);
}

#[track_caller]
fn silent(packet: Firewall) {
    let mut s = script();
    s.event(0, Body::Firewall(packet));
    s.said(&[]);
}

#[test]
fn what_is_left_alone() {
    silent(Firewall { verdict: Verdict::Logged, ..packet("192.168.1.5", "203.0.113.9:1") });
    silent(packet("192.168.1.5", "239.255.255.250:1900"));
    silent(packet("192.168.1.5", "255.255.255.255:67"));
    silent(packet("192.168.1.5", "192.168.1.255:137"));
    silent(packet("fe80::1", "[ff02::fb]:5353"));
}

#[test]
fn a_flood_from_forged_addresses_is_bounded() {
    let mut s = script();
    for i in 0..2_000u32 {
        let src = std::net::Ipv4Addr::from(0x0a00_0000 + i);
        put(&mut s, 0, &src.to_string(), "203.0.113.9:1");
    }
    assert_eq!(s.status("tier0.firewall.clients"), super::super::clients::CLIENTS_MAX as u64);
    assert_eq!(s.status("tier0.firewall.evicted"), 2_000 - 1_024);
}

#[test]
fn configuration_is_checked() {
    let config = Config { scan_ports: 1, ..Config::default() };
    assert_eq!(
        config.validate().unwrap_err().to_string(),
        "`scan_ports` must lie between 2 and 64"
    );
}
