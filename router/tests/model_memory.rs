//! How much memory the model behind the status page takes when everything in it is full:
//! counted by an allocator of this test program alone.

#![allow(unsafe_code, reason = "an allocator cannot be written without")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicIsize, Ordering};

use agentmon_core::event::{
    Body, Device, DeviceSource, Dns, DnsStatus, Endpoint, Event, Flow, FlowPhase, Mac, Resolved,
    Volume,
};
use agentmon_core::finding::{EVIDENCE_MAX, Finding};
use agentmon_core::time::{Mono, Timestamp};
use agentmon_core::{Name, name};
use agentmon_router::model::{Model, alerts, devices, talk};

/// What the model's own file promises.
const BYTES_MAX: isize = 2_050_000;

static HELD: AtomicIsize = AtomicIsize::new(0);

struct Counting;

// SAFETY: passes every call on to the system's allocator unchanged; the counter is an atomic
// that itself never allocates.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: the caller's promises are the system allocator's conditions.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size() as isize, Ordering::Relaxed);
        // SAFETY: the caller's promises are the system allocator's conditions.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const NOW: Mono = Mono::from_nanos(1_000_000_000);

fn observe(model: &Model, body: Body) {
    model.observe(&Event { time: Timestamp::from_secs(1_795_000_000), body }, NOW);
}

/// The longest there is, another for each `n`.
fn long_name(n: usize) -> Name {
    let label = "x".repeat(60);
    format!("{n:05}.{label}.{label}.{label}.example").parse().expect("a name")
}

fn mac(n: usize) -> Mac {
    Mac([0, 0, 0x5e, 0, (n >> 8) as u8, n as u8])
}

fn flow(n: usize, phase: FlowPhase) -> Body {
    let ip = IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + (n % 256) as u32));
    Body::Flow(Flow {
        id: n as u64,
        phase,
        proto: 6,
        src: Endpoint::new(ip, 40_000),
        dst: Endpoint::new(Ipv4Addr::new(203, 0, 113, 1).into(), 443),
        nat_src: None,
        nat_dst: None,
        start: None,
        duration_ms: None,
        volume: Some(Volume { bytes_out: 1, bytes_in: 1, packets_out: 1, packets_in: 1 }),
        tcp_state: None,
        replied: true,
        offloaded: false,
        iface: None,
        mac: Some(mac(n % 256)),
        resolved: Some(Resolved { name: long_name(n), age_ms: 1 }),
    })
}

/// More of everything than there is room for.
fn fill(model: &Model) {
    for n in 0..2 * devices::DEVICES_MAX {
        for address in 0..2 * devices::ADDRESSES_MAX {
            let ip = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, n as u16, address as u16).into();
            let hostname = Some(name::cut("h".repeat(300), 255));
            let source = DeviceSource::Lease;
            observe(model, Body::Device(Device { mac: mac(n), ip, hostname, iface: None, source }));
        }
    }
    for n in 0..2 * talk::OPEN_MAX {
        observe(model, flow(n, FlowPhase::Update));
    }
    for n in 0..2 * alerts::ALERTS_MAX {
        let finding = Finding {
            rule: "r".repeat(300),
            subject: format!("{n:05}{}", "s".repeat(300)),
            client: Some(Ipv4Addr::new(192, 168, 1, 7).into()),
            mac: Some(mac(n)),
            score: 0.5,
            why: "w".repeat(1_000),
            evidence: vec![("k".repeat(100), "v".repeat(300)); EVIDENCE_MAX],
        };
        observe(model, Body::Finding(finding));
    }
    let dns = Dns {
        client: Ipv4Addr::new(192, 168, 1, 9).into(),
        mac: None,
        name: long_name(0),
        qtype: 1,
        status: DnsStatus::Cached,
        rcode: None,
        answers: vec![],
        ttl: None,
        upstream: None,
        latency_us: None,
        blocked_by: None,
        source: "test".into(),
    };
    observe(model, Body::Dns(dns));
    (0..1_000).for_each(|n| model.tick(Mono::from_nanos(n * 5_000_000_000), n));
}

#[test]
fn a_full_model_stays_within_its_promise() {
    let model = Model::default();
    let before = HELD.load(Ordering::Relaxed);
    // Twice: a hash table in use grows once more than its entries need.
    fill(&model);
    fill(&model);
    let held = HELD.load(Ordering::Relaxed) - before;
    let sizes = model.sizes();
    assert_eq!(sizes.devices, devices::DEVICES_MAX as u64);
    assert_eq!(sizes.flows_open, talk::OPEN_MAX as u64);
    assert_eq!(sizes.alerts, alerts::ALERTS_MAX as u64);
    assert_eq!(model.flows(usize::MAX, None).len(), talk::ROWS_MAX);
    assert!(held > 500_000, "only {held} bytes: the allocator is not counted");
    assert!(held <= BYTES_MAX, "{held} bytes");
    // Nothing of it grows any more.
    fill(&model);
    let grown = HELD.load(Ordering::Relaxed) - before - held;
    assert!(grown <= 4_096, "{grown} bytes more");
    let written = std::io::Write::write(
        &mut std::io::stderr(),
        format!("a full model holds {held} bytes\n").as_bytes(),
    );
    assert!(written.is_ok());
}
