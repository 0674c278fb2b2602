//! Every kind and every field through the wire; hostile bodies.

use super::field::clean;
use super::*;
use prost::Message;

use crate::event::{
    Answer, Body, Connection, Device, DeviceSource, Direction, Dns, DnsStatus, Endpoint, Event,
    Firewall, Flow, FlowPhase, Gap, Mac, Process, ProcessPhase, Program, Resolved, TEXT_BYTES_MAX,
    TcpState, Verdict, Volume,
};
use crate::finding::Finding;
use crate::time::Timestamp;

fn samples() -> Vec<Event> {
    let e = |s: &str| {
        s.parse::<std::net::SocketAddr>().map(|a| Endpoint::new(a.ip(), a.port())).unwrap()
    };
    let time = Timestamp::from_nanos(1_795_444_327_000_000_123);
    let bodies = vec![
        Body::Dns(Dns {
            client: "192.0.2.9".parse().unwrap(),
            mac: Some(Mac([0, 0, 0x5e, 0, 0x53, 1])),
            name: "www.example.com".parse().unwrap(),
            qtype: 28,
            status: DnsStatus::Forwarded,
            rcode: Some(0),
            answers: vec![
                Answer::Cname("cdn.example.net".parse().unwrap()),
                Answer::Address("2001:db8::9".parse().unwrap()),
                Answer::Other("HTTPS 1 .".into()),
            ],
            ttl: Some(300),
            upstream: Some("198.51.100.53".into()),
            latency_us: Some(3_210),
            blocked_by: None,
            source: "dnsmasq-log".into(),
        }),
        Body::Flow(Flow {
            id: 0xdead_beef_0000_0001,
            phase: FlowPhase::Update,
            proto: 6,
            src: e("192.168.77.2:43164"),
            dst: e("203.0.113.2:8080"),
            nat_src: Some(e("203.0.113.1:43164")),
            nat_dst: None,
            start: Some(time),
            duration_ms: Some(3_212),
            volume: Some(Volume {
                bytes_out: 1_476,
                bytes_in: 50_424,
                packets_out: 9,
                packets_in: 8,
            }),
            tcp_state: Some(TcpState::Established),
            replied: true,
            offloaded: false,
            iface: Some("br-lan".into()),
            mac: None,
            resolved: Some(Resolved { name: "www.example.com".parse().unwrap(), age_ms: 12 }),
        }),
        Body::Firewall(Firewall {
            verdict: Verdict::Reject,
            prefix: "agentmon-reject ".into(),
            proto: 17,
            src: e("192.0.2.9:1000"),
            dst: e("[2001:db8::1]:53"),
            in_iface: Some("br-lan".into()),
            out_iface: Some("wan".into()),
            mac: Some(Mac([0, 0, 0x5e, 0, 0x53, 2])),
            bytes: 60,
        }),
        Body::Device(Device {
            mac: Mac([2, 0, 0, 0, 0, 1]),
            ip: "192.0.2.9".parse().unwrap(),
            hostname: Some("laptop".into()),
            iface: None,
            source: DeviceSource::Lease,
        }),
        Body::Finding(
            Finding {
                rule: "blocklist".into(),
                subject: "bad.example".into(),
                client: Some("192.0.2.9".parse().unwrap()),
                mac: None,
                score: 0.8,
                why: "bad.example stands on a list".into(),
                evidence: vec![],
            }
            .with("list", "test"),
        ),
        Body::Gap(Gap {
            collector: "conntrack".into(),
            from: time,
            reason: "enobufs".into(),
            lost: None,
        }),
        Body::Process(Box::new(process(time))),
        Body::Connection(Box::new(Connection {
            id: 7,
            phase: FlowPhase::Update,
            process: Some(3),
            pid: 412,
            name: Some("curl".into()),
            proto: 6,
            local: e("192.168.77.2:43164"),
            remote: e("[2001:db8::1]:443"),
            direction: Direction::In,
            start: Some(time),
            duration_ms: Some(41_000),
            volume: Some(Volume { bytes_out: 1, bytes_in: 2, packets_out: 3, packets_in: 4 }),
            user: Some("alice".into()),
            container: Some("net:4026532281".into()),
            how: "exec".into(),
            resolved: Some(Resolved { name: "www.example.com".parse().unwrap(), age_ms: 12 }),
        })),
    ];
    bodies.into_iter().map(|body| Event { time, body }).collect()
}

fn process(start: Timestamp) -> Process {
    let program = |pid: u32, name: &str| Program {
        id: u64::from(pid) << 32,
        pid,
        name: name.into(),
        exe: Some(format!("/usr/bin/{name}")),
        deleted: true,
        sha256: Some("0f".repeat(32)),
        argv: vec![name.into(), "--token".into(), "[redacted]".into()],
        user: Some("alice".into()),
        signer: Some("Example".into()),
        package: Some(format!("deb:{name}")),
    };
    Process {
        phase: ProcessPhase::Exec,
        os: "linux".into(),
        host: "laptop".into(),
        program: program(412, "curl"),
        start: Some(start),
        ancestors: vec![program(411, "bash"), program(400, "claude")],
        container: Some("net:4026532281".into()),
    }
}

#[test]
fn every_kind_round_trips() {
    for event in samples() {
        assert_eq!(decode_event(&encode_event(&event)).unwrap(), event);
    }
}

#[test]
fn batches_round_trip() {
    let batch = Batch {
        epoch: 7,
        first_seq: 41,
        events: samples().iter().map(encode_event).collect(),
        health: Health {
            version: "0.1.0".into(),
            counters: vec![("accepted".into(), 8)],
            pending: 8,
            ring_bytes: 4096,
            collectors: vec![("conntrack".into(), "ok".into())],
        },
        sent: Timestamp::from_secs(1),
    };
    assert_eq!(batch.last_seq(), Some(48));
    assert_eq!(decode_batch(&encode_batch(&batch).unwrap()).unwrap(), batch);
}

#[test]
fn a_decompression_bomb_is_refused() {
    let bomb = zstd::bulk::compress(&vec![0u8; BATCH_BYTES_MAX * 4], 19).unwrap();
    assert!(bomb.len() < 100_000);
    assert!(matches!(decode_batch(&bomb), Err(WireError::TooLarge { .. })));
}

#[test]
fn a_newer_version_and_an_unknown_kind_are_named() {
    let newer = pb::Batch { version: VERSION + 1, ..pb::Batch::default() }.encode_to_vec();
    let body = zstd::bulk::compress(&newer, 1).unwrap();
    assert!(matches!(decode_batch(&body), Err(WireError::NewerVersion(2))));
    // Field 15, an empty message: an event kind of the future.
    assert!(matches!(decode_event(&[0x7a, 0]), Err(WireError::UnknownKind)));
}

/// Texts that are too long or not printable are so once, and then stay as they are.
#[test]
fn texts_are_cleaned_once_and_for_all() {
    for text in ["\u{1b}[31m\\", &"x".repeat(300), &"\u{7}".repeat(100), &"é\\".repeat(90)] {
        let once = clean(text.to_owned(), TEXT_BYTES_MAX);
        assert!(once.len() <= TEXT_BYTES_MAX, "{once}");
        assert!(once.bytes().all(|b| (b' '..=b'~').contains(&b)), "{once}");
        assert_eq!(clean(once.clone(), TEXT_BYTES_MAX), once);
    }
}

proptest::proptest! {
    #[test]
    fn any_bytes_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..512)) {
        drop(decode_event(&bytes));
        drop(decode_batch(&bytes));
    }
}
