//! Scans, and what looks like one.

use super::*;
use crate::event::{Body, Endpoint, Volume};
use crate::tier0::Tier0Config;
use crate::tier0::tests::{Script, dns, flow};

const CAMERA: &str = "192.168.1.5";

fn script(rule: &'static str) -> Script {
    Script::new(Tier0Config::default(), rule)
}

/// How a flow is reported when it is over.
fn ended(start: Flow, replied: bool, bytes_in: u64) -> Flow {
    let volume = Volume { bytes_out: 60, bytes_in, packets_out: 1, packets_in: 1 };
    Flow { phase: FlowPhase::End, replied, volume: Some(volume), ..start }
}

fn stopped(dst: &str) -> Body {
    let to = flow(CAMERA, dst);
    Body::Firewall(Firewall {
        verdict: Verdict::Drop,
        prefix: String::new(),
        proto: 6,
        src: Endpoint::new(to.src.ip, 40_000),
        dst: to.dst,
        in_iface: None,
        out_iface: None,
        mac: None,
        bytes: 60,
    })
}

#[test]
fn many_ports_of_one_address() {
    let mut s = script("port-scan");
    for n in 0..14 {
        s.flow(n, flow(CAMERA, &format!("203.0.113.9:{}", 20 + n)));
    }
    s.said(&[]);
    for n in 14..60 {
        s.flow(n, flow(CAMERA, &format!("203.0.113.9:{}", 20 + n)));
        // Closed ports refuse.
        s.flow(n, ended(flow(CAMERA, &format!("203.0.113.9:{}", 20 + n)), true, 40));
    }
    s.said(&["203.0.113.9"]);
}

#[test]
fn many_files_of_one_server() {
    let mut s = script("port-scan");
    for n in 0..200 {
        let start = flow(CAMERA, &format!("203.0.113.9:{}", 40_000 + n));
        s.flow(n, start.clone());
        s.flow(n, ended(start, true, 50_000));
    }
    s.said(&[]);
}

#[test]
fn slowly_is_no_port_scan() {
    let mut s = script("port-scan");
    for n in 0..60 {
        s.flow(n * 60, flow(CAMERA, &format!("203.0.113.9:{}", 20 + n)));
    }
    s.said(&[]);
}

#[test]
fn one_port_at_many_addresses() {
    let mut s = script("host-scan");
    for n in 0..60 {
        s.flow(n, flow(CAMERA, &format!("203.0.113.{n}:23")));
    }
    s.said(&["port 23/tcp"]);
}

/// A page's many servers, a resolver's, a game's; even when no name was seen for them.
#[test]
fn many_addresses_as_a_matter_of_course() {
    for place in ["443", "53", "27015"] {
        let mut s = script("host-scan");
        for n in 0..200 {
            let proto = if place == "443" { 6 } else { 17 };
            s.flow(n / 10, Flow { proto, ..flow(CAMERA, &format!("203.0.113.{n}:{place}")) });
        }
        s.said(&[]);
    }
    let mut s = script("host-scan");
    for n in 0..200 {
        let address = format!("203.0.113.{n}");
        s.dns(n / 10, dns(CAMERA, &format!("n{n}.example"), &[&address]));
        s.flow(n / 10, flow(CAMERA, &format!("{address}:7000")));
    }
    s.said(&[]);
}

#[test]
fn web_servers_that_do_not_answer() {
    let mut s = script("host-scan");
    for n in 0..60 {
        s.flow(n, ended(flow(CAMERA, &format!("203.0.113.{n}:80")), false, 0));
    }
    s.said(&["port 80/tcp"]);
}

/// What the firewall stopped is told by its own rule, and adds to what it let through.
#[test]
fn half_of_it_stopped() {
    let mut s = script("port-scan");
    for n in 0..30 {
        s.event(n, stopped(&format!("203.0.113.9:{}", 20 + n)));
    }
    s.said(&[]);
    for n in 0..9 {
        s.event(n, stopped(&format!("203.0.113.10:{}", 20 + n)));
        s.flow(n, flow(CAMERA, &format!("203.0.113.10:{}", 120 + n)));
    }
    s.said(&["203.0.113.10"]);
}

#[test]
fn nobody_outside_is_told_of() {
    let mut s = script("port-scan");
    for n in 0..60 {
        s.flow(n, flow("203.0.113.9", &format!("192.168.1.5:{}", 20 + n)));
    }
    s.said(&[]);
}
