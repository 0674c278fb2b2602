//! What the model behind the status page costs the pipeline per event.
//!
//! `cargo run --release -p agentmon-router --example model_speed`
//!
//! 80 devices ask, connect, show themselves and are found out; 4,000 connections are open at
//! a time. Prints the mean of [`Model::observe`] by kind, and how long the pipeline may be
//! held up by somebody who asks for the fullest lists.

#![allow(clippy::print_stdout, reason = "a measuring program's output")]

use std::net::{IpAddr, Ipv4Addr};

use agentmon_core::event::{
    Body, Device, DeviceSource, Dns, DnsStatus, Endpoint, Event, Flow, FlowPhase, Mac, Resolved,
    Volume,
};
use agentmon_core::finding::Finding;
use agentmon_core::time::{Clock, SystemClock, Timestamp};
use agentmon_router::model::{AlertFilter, Model};

const EVENTS: u32 = 1_000_000;
const OPEN: u32 = 4_000;

fn main() {
    let model = Model::default();
    let clock = SystemClock;
    for n in 0..80 {
        observe(&model, device(n));
    }
    for (what, make) in
        [("dns", dns as fn(u32) -> Body), ("flow", flow), ("device", device), ("finding", finding)]
    {
        let bodies: Vec<Body> = (0..EVENTS / 10).map(make).collect();
        let start = clock.mono();
        for body in bodies.iter().cycle().take(EVENTS as usize) {
            let time = Timestamp::from_secs(1_795_000_000);
            // The body is borrowed for a moment only, as in the pipeline.
            model.observe(&Event { time, body: body.clone() }, start);
        }
        let with = clock.mono().since(start);
        let start = clock.mono();
        for body in bodies.iter().cycle().take(EVENTS as usize) {
            std::hint::black_box(body.clone());
        }
        let clones = clock.mono().since(start);
        let each = with.saturating_sub(clones).as_nanos() / u128::from(EVENTS);
        println!("{what:<8} {each:>6} ns an event");
    }
    held(&clock, "alerts", || drop(model.alerts(200, &AlertFilter::default())));
    held(&clock, "flows", || drop(model.flows(200, Some("device-7"))));
    held(&clock, "devices", || drop(model.devices(256)));
    println!("{:?}", model.sizes());
}

fn held(clock: &SystemClock, what: &str, work: impl Fn()) {
    const TIMES: u32 = 1_000;
    let start = clock.mono();
    (0..TIMES).for_each(|_| work());
    println!("{what:<8} {:>6} us to copy", (clock.mono().since(start) / TIMES).as_micros());
}

fn observe(model: &Model, body: Body) {
    let event = Event { time: Timestamp::from_secs(1_795_000_000), body };
    model.observe(&event, SystemClock.mono());
}

fn ip(n: u32) -> IpAddr {
    Ipv4Addr::from(0xc0a8_0100 + n % 80).into()
}

fn mac(n: u32) -> Mac {
    Mac([0, 0, 0x5e, 0, 0x53, (n % 80) as u8])
}

fn device(n: u32) -> Body {
    Body::Device(Device {
        mac: mac(n),
        ip: ip(n),
        hostname: Some(format!("device-{}", n % 80)),
        iface: None,
        source: DeviceSource::Lease,
    })
}

fn dns(n: u32) -> Body {
    Body::Dns(Dns {
        client: ip(n),
        mac: Some(mac(n)),
        name: "www.example.com".parse().expect("a name"),
        qtype: 1,
        status: DnsStatus::Forwarded,
        rcode: None,
        answers: vec![],
        ttl: None,
        upstream: None,
        latency_us: None,
        blocked_by: None,
        source: "dnsmasq-log".into(),
    })
}

/// Each flow is begun, and ended when [`OPEN`] others have begun.
fn flow(n: u32) -> Body {
    let ends = n % 2 == 1;
    let id = if ends { (n / 2).wrapping_sub(OPEN) } else { n / 2 };
    Body::Flow(Flow {
        id: id.into(),
        phase: if ends { FlowPhase::End } else { FlowPhase::Start },
        proto: 6,
        src: Endpoint::new(ip(n), 40_000),
        dst: Endpoint::new(Ipv4Addr::new(203, 0, 113, 1).into(), 443),
        nat_src: None,
        nat_dst: None,
        start: None,
        duration_ms: None,
        volume: Some(Volume { bytes_out: 100, bytes_in: 900, packets_out: 1, packets_in: 1 }),
        tcp_state: None,
        replied: true,
        offloaded: false,
        iface: None,
        mac: Some(mac(n)),
        resolved: Some(Resolved { name: "www.example.com".parse().expect("a name"), age_ms: 5 }),
    })
}

fn finding(n: u32) -> Body {
    Body::Finding(Finding {
        rule: "blocklist".into(),
        subject: format!("listed{}.example", n % 1_000),
        client: Some(ip(n)),
        mac: Some(mac(n)),
        score: 0.5,
        why: "asked for it: on list malware".into(),
        evidence: vec![("list".into(), "malware".into()); 5],
    })
}
