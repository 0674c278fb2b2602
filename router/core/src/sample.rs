//! Short events for tests: what most of them need, the rest by struct update.
//!
//! In: texts that are written down in a test and therefore parse; others panic. Out: plain
//! records. Compiled for this crate's own tests, and for others' with the feature
//! `test-support`; never part of a program.

use std::net::{IpAddr, SocketAddr};

use crate::event::{Answer, Dns, DnsStatus, Endpoint, Flow, FlowPhase};

/// An address.
///
/// # Panics
/// When the text is none.
#[must_use]
#[track_caller]
pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// An A exchange that was answered by an upstream server, with these addresses.
///
/// # Panics
/// When a text is no address or name.
#[must_use]
#[track_caller]
pub fn dns(client: &str, name: &str, addresses: &[&str]) -> Dns {
    Dns {
        client: ip(client),
        mac: None,
        name: name.parse().expect("a name"),
        qtype: 1,
        status: DnsStatus::Forwarded,
        rcode: Some(0),
        answers: addresses.iter().map(|address| Answer::Address(ip(address))).collect(),
        ttl: None,
        upstream: None,
        latency_us: None,
        blocked_by: None,
        source: "test".into(),
    }
}

/// A TCP connection that has just begun, to `address:port`.
///
/// # Panics
/// When a text is no address.
#[must_use]
#[track_caller]
pub fn flow(client: &str, dst: &str) -> Flow {
    let dst: SocketAddr = dst.parse().expect("an address and port");
    Flow {
        id: 1,
        phase: FlowPhase::Start,
        proto: 6,
        src: Endpoint::new(ip(client), 40_000),
        dst: Endpoint::new(dst.ip(), dst.port()),
        nat_src: None,
        nat_dst: None,
        start: None,
        duration_ms: None,
        volume: None,
        tcp_state: None,
        replied: false,
        offloaded: false,
        iface: None,
        mac: None,
        resolved: None,
    }
}
