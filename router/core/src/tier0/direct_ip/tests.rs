//! What is told, what is left alone, and that a clock that is set changes neither.

use super::super::Tier0Config;
use super::super::tests::{Script, dns, flow};
use super::*;
use crate::event::{Body, Device, DeviceSource, Endpoint};

/// No learning at the start, unless a test is about it.
fn script() -> Script {
    script_with(|_| {})
}
fn script_with(change: impl Fn(&mut Config)) -> Script {
    let mut config = Tier0Config::default();
    config.direct_ip.startup_grace_seconds = 0;
    change(&mut config.direct_ip);
    config.validate().unwrap();
    let mut s = Script::new(config, "direct-ip");
    // DNS is seen here, of these clients as well.
    for client in ["192.168.1.5", "192.168.1.6", "fd00::5", "2001:db8:1::5"] {
        s.dns(0, dns(client, "other.example", &["203.0.113.250"]));
    }
    s
}
const WEB: &str = "203.0.113.9:443";

#[test]
fn an_unexplained_connection_is_told_after_the_grace_period() {
    let mut s = script();
    s.flow(0, flow("192.168.1.5", WEB));
    s.tick(2);
    s.said(&[]);
    s.tick(3);
    s.said(&["203.0.113.9:443/tcp"]);
    // Once an hour.
    s.flow(100, flow("192.168.1.5", WEB));
    s.flow(200, flow("192.168.1.5", "203.0.113.9:80"));
    s.tick(300);
    s.said(&[]);
    s.flow(600, flow("192.168.1.6", WEB));
    s.tick(603);
    s.said(&["203.0.113.9:443/tcp"]);
}

#[test]
fn an_answer_before_or_a_little_after_explains_it() {
    let mut s = script();
    s.dns(0, dns("192.168.1.5", "a.example", &["203.0.113.9"]));
    s.flow(1, flow("192.168.1.5", WEB));
    s.tick(60);
    s.said(&[]);
    let mut s = script();
    s.flow(0, flow("192.168.1.5", WEB));
    s.dns(2, dns("192.168.1.5", "a.example", &["203.0.113.9"]));
    s.tick(60);
    s.said(&[]);
    assert_eq!(s.status("tier0.direct_ip.late_answers"), 1);
    // Somebody else's answer does not.
    s.flow(70, flow("192.168.1.6", WEB));
    s.tick(80);
    s.said(&["203.0.113.9:443/tcp"]);
}

#[track_caller]
fn silent(change: impl Fn(&mut Config), flow: Flow) {
    let mut s = script_with(change);
    s.flow(0, flow);
    s.tick(60);
    s.said(&[]);
}

#[test]
fn what_is_left_alone() {
    let to = |dst: &str| flow("192.168.1.5", dst);
    let udp = |dst: &str| Flow { proto: proto::UDP, ..to(dst) };
    silent(|_| {}, to("192.168.2.1:80"));
    silent(|_| {}, udp("224.0.0.251:5353"));
    silent(|_| {}, udp("[ff02::fb]:5353"));
    silent(|_| {}, Flow { proto: proto::ICMP, ..to("203.0.113.9:2048") });
    silent(|_| {}, flow("198.51.100.7", "203.0.113.9:443"));
    silent(|_| {}, udp("203.0.113.9:123"));
    silent(|_| {}, udp("203.0.113.9:53"));
    silent(|_| {}, to("203.0.113.9:853"));
    silent(|c| c.allow = vec!["203.0.113.0/24".parse().unwrap()], to(WEB));
    silent(|c| c.ignore_clients = vec!["192.168.1.5/32".parse().unwrap()], to(WEB));
    silent(|c| c.allow_services = vec!["443/tcp".parse().unwrap()], to(WEB));
    silent(|c| c.enabled = false, to(WEB));
    let redirected = Endpoint::new("192.168.1.1".parse().unwrap(), 53);
    silent(|_| {}, Flow { nat_dst: Some(redirected), ..to(WEB) });
}

#[track_caller]
fn told(change: impl Fn(&mut Config), flow: Flow, subject: &str) {
    let mut s = script_with(change);
    s.flow(0, flow);
    s.tick(60);
    s.said(&[subject]);
}

#[test]
fn what_is_not() {
    let udp = |dst: &str| Flow { proto: proto::UDP, ..flow("192.168.1.5", dst) };
    let net = |text: &str| vec![text.parse().unwrap()];
    told(|_| {}, udp("203.0.113.9:443"), "203.0.113.9:443/udp");
    told(|c| c.resolvers = net("198.51.100.53/32"), udp("203.0.113.9:53"), "203.0.113.9:53/udp");
    let ping = Flow { proto: proto::ICMP, ..flow("192.168.1.5", "203.0.113.9:2048") };
    told(|c| c.icmp = true, ping, "203.0.113.9/icmp");
    let v6 = || flow("fd00::5", "[2001:db8::9]:443");
    told(|_| {}, v6(), "[2001:db8::9]:443/tcp");
}

/// With IPv6, clients have public addresses: known from the neighbour table.
#[test]
fn a_neighbour_with_a_public_address_is_a_client() {
    let connects = || flow("2001:db8:1::5", "[2001:db8:2::9]:443");
    silent(|_| {}, connects());
    let mut s = script();
    let body = Body::Device(Device {
        mac: Mac([2, 0, 0, 0, 0, 1]),
        ip: "2001:db8:1::5".parse().unwrap(),
        hostname: None,
        iface: None,
        source: DeviceSource::Neighbour,
    });
    s.event(0, body);
    s.flow(1, connects());
    s.tick(60);
    s.said(&["[2001:db8:2::9]:443/tcp"]);
}

#[test]
fn without_any_dns_nothing_is_said() {
    let mut config = Tier0Config::default();
    config.direct_ip.startup_grace_seconds = 0;
    let mut s = Script::new(config, "direct-ip");
    s.flow(0, flow("192.168.1.5", WEB));
    s.tick(60);
    s.said(&[]);
    assert_eq!(s.status("tier0.direct_ip.blind"), 1);
}

#[test]
fn the_start_is_for_learning() {
    let mut s = script_with(|c| c.startup_grace_seconds = 300);
    let left = |s: &Script| s.status("tier0.direct_ip.learning_seconds");
    assert_eq!(left(&s), 300);
    s.tick(0);
    s.tick(180);
    assert_eq!(left(&s), 120);
    s.flow(299, flow("192.168.1.5", WEB));
    s.flow(320, flow("192.168.1.5", WEB));
    assert_eq!(left(&s), 0);
    s.flow(320, flow("192.168.1.5", "203.0.113.10:443"));
    s.tick(330);
    s.said(&["203.0.113.10:443/tcp"]);
    // Learnt for as long as it is used.
    for hour in 1..60 {
        s.flow(hour * 3600, flow("192.168.1.5", WEB));
        s.tick(hour * 3600 + 10);
    }
    s.said(&[]);
}

#[test]
fn many_addresses_are_one_finding() {
    let mut s = script_with(|c| c.many = 3);
    for i in 0..50 {
        s.flow(i, flow("192.168.1.5", &format!("203.0.113.{i}:6881")));
    }
    s.tick(60);
    let first = ["203.0.113.0:6881/tcp", "203.0.113.1:6881/tcp", "203.0.113.2:6881/tcp"];
    s.said(&[&first[..], &["many addresses"]].concat());
    assert_eq!(s.status("tier0.direct_ip.folded"), 46);
}

#[test]
fn bounded() {
    let mut s = script();
    for i in 0..6_000u32 {
        let dst = std::net::Ipv4Addr::from(0xcb00_0000 + i);
        s.flow(0, flow("192.168.1.5", &format!("{dst}:1")));
    }
    assert_eq!(s.status("tier0.direct_ip.pending"), PENDING_MAX as u64);
    assert_eq!(s.status("tier0.direct_ip.saturated"), 6_000 - PENDING_MAX as u64);
}

/// The clock is set, by years or back by a day, at every point of a sequence: nothing
/// is said that is not said without the jump, and nothing is left out.
#[test]
fn a_clock_that_is_set_changes_nothing() {
    for jump in [1_700_000_000i64, 40_000, -86_400] {
        for at in 0..5 {
            let mut s = script();
            let t = |step: i64| step + if step > at { jump } else { 0 };
            s.dns(t(0), dns("192.168.1.5", "a.example", &["203.0.113.9"]));
            s.flow(t(1), flow("192.168.1.5", WEB));
            s.flow(t(2), flow("192.168.1.5", "203.0.113.10:443"));
            s.tick(t(3));
            s.tick(t(4));
            s.said(&[]);
            for step in 5..8 {
                s.tick(t(step));
            }
            s.said(&["203.0.113.10:443/tcp"]);
        }
    }
}
