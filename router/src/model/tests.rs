//! Events in, what the page shows out.

use agentmon_core::event::{DeviceSource, Dns, DnsStatus, Endpoint, FlowPhase, Volume};
use agentmon_core::finding::Severity;

use super::*;

const T: Timestamp = Timestamp::from_secs(1_795_000_000);
const NOW: Mono = Mono::from_nanos(1_000_000_000);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn device(n: u8, address: &str, name: &str) -> Body {
    Body::Device(agentmon_core::event::Device {
        mac: Mac([0, 0, 0x5e, 0, 0x53, n]),
        ip: ip(address),
        hostname: Some(name.to_owned()),
        iface: None,
        source: DeviceSource::Lease,
    })
}

fn dns(client: &str, status: DnsStatus) -> Body {
    Body::Dns(Dns {
        client: ip(client),
        mac: None,
        name: "www.example.com".parse().unwrap(),
        qtype: 1,
        status,
        rcode: None,
        answers: vec![],
        ttl: None,
        upstream: None,
        latency_us: None,
        blocked_by: None,
        source: "dnsmasq-log".into(),
    })
}

fn flow(id: u64, src: &str, dst: &str, bytes_out: u64, bytes_in: u64) -> Body {
    Body::Flow(Flow {
        id,
        phase: FlowPhase::End,
        proto: 6,
        src: Endpoint::new(ip(src), 40_000),
        dst: Endpoint::new(ip(dst), 443),
        nat_src: None,
        nat_dst: None,
        start: Some(T),
        duration_ms: Some(5),
        volume: Some(Volume { bytes_out, bytes_in, packets_out: 1, packets_in: 1 }),
        tcp_state: None,
        replied: true,
        offloaded: false,
        iface: None,
        mac: None,
        resolved: None,
    })
}

fn finding(client: &str, subject: &str, score: f64) -> Body {
    Body::Finding(Finding {
        rule: "blocklist".into(),
        subject: subject.into(),
        client: Some(ip(client)),
        mac: None,
        score,
        why: "why".into(),
        evidence: vec![],
    })
}

fn model(bodies: Vec<Body>) -> Model {
    let model = Model::default();
    for (i, body) in bodies.into_iter().enumerate() {
        model.observe(&Event { time: Timestamp::from_secs(T.secs() + i as i64), body }, NOW);
    }
    model
}

#[test]
fn what_a_device_did_is_under_its_name() {
    let model = model(vec![
        device(7, "192.168.1.7", "laptop"),
        device(8, "192.168.1.8", "phone"),
        dns("192.168.1.7", DnsStatus::Forwarded),
        dns("192.168.1.7", DnsStatus::Blocked),
        flow(1, "192.168.1.7", "203.0.113.1", 100, 900),
        flow(2, "192.168.1.8", "203.0.113.1", 1, 2),
        // Somebody out there comes in: it is the responder's traffic, the other way round.
        flow(3, "203.0.113.9", "192.168.1.8", 10, 5_000),
        finding("192.168.1.7", "evil.example", 0.8),
    ]);
    let devices = model.devices(10);
    let shown: Vec<_> = devices
        .iter()
        .map(|(d, open)| {
            let asked = (d.asked.queries(), d.asked.blocked());
            (d.label(), asked, d.flows, d.bytes_in, d.bytes_out, *open)
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("phone".to_owned(), (0, 0), 2, 12, 5_001, 0),
            ("laptop".to_owned(), (2, 1), 1, 900, 100, 1),
        ]
    );
    let talkers = model.talkers(1, NOW);
    assert_eq!((talkers[0].device.as_str(), talkers[0].bytes), ("phone", 5_013));
    let flows = |who| model.flows(10, who).into_iter().map(|s| s.row.id).collect::<Vec<_>>();
    assert_eq!(flows(None), [3, 2, 1]);
    assert_eq!(flows(Some("PHONE")), [3, 2]);
    assert_eq!(flows(Some("192.168.1.7")), [1]);
    assert_eq!(flows(Some("00:00:5e:00:53:07")), [1]);
    assert!(flows(Some("nobody")).is_empty());
}

#[test]
fn alerts_are_filtered_and_told() {
    let model = model(vec![
        device(7, "192.168.1.7", "laptop"),
        finding("192.168.1.7", "evil.example", 0.8),
        finding("192.168.1.9", "ads.example", 0.3),
    ]);
    let subjects = |filter: AlertFilter| {
        let (list, total) = model.alerts(1_000, &filter);
        assert_eq!(list.len(), total);
        list.into_iter().map(|told| told.alert.subject).collect::<Vec<_>>()
    };
    let all = AlertFilter::default();
    assert_eq!(subjects(all.clone()), ["ads.example", "evil.example"]);
    let severity = Some(Severity::High);
    assert_eq!(subjects(AlertFilter { severity, ..all.clone() }), ["evil.example"]);
    let device = Some("laptop".to_owned());
    assert_eq!(subjects(AlertFilter { device, ..all.clone() }), ["evil.example"]);
    let device = Some("192.168.1.9".to_owned());
    assert_eq!(subjects(AlertFilter { device, ..all.clone() }), ["ads.example"]);
    let since = Some(Timestamp::from_secs(T.secs() + 2));
    assert_eq!(subjects(AlertFilter { since, ..all.clone() }), ["ads.example"]);
    let rule = Some("dga".to_owned());
    assert!(subjects(AlertFilter { rule, ..all.clone() }).is_empty());
    let told = model.news.take(NOW).unwrap();
    assert_eq!((told.device.as_str(), told.alert.subject.as_str()), ("laptop", "evil.example"));
    assert!(model.ack(told.alert.id, "mine") && !model.ack(1, ""));
    assert_eq!(subjects(AlertFilter { open: true, ..all }), ["ads.example"]);
}

#[test]
fn times_before_the_first_clock_are_set_right() {
    let model = Model::default();
    let boot = Timestamp::from_secs(100);
    model.observe(&Event { time: boot, body: device(7, "192.168.1.7", "laptop") }, NOW);
    model.observe(&Event { time: boot, body: finding("192.168.1.7", "x.example", 0.8) }, NOW);
    model.clock_set(Timestamp::from_secs(160), T);
    let expected = Timestamp::from_secs(T.secs() - 60);
    assert_eq!(model.devices(1)[0].0.first_seen, expected);
    assert_eq!(model.alerts(1, &AlertFilter::default()).0[0].alert.first, expected);
    // A clock that was right and is set again changes nothing.
    model.clock_set(T, Timestamp::from_secs(T.secs() + 3_600));
    assert_eq!(model.devices(1)[0].0.last_seen, expected);
}

#[test]
fn everything_stays_within_its_bounds() {
    let model = Model::default();
    for n in 0..20_000u32 {
        let address = std::net::Ipv4Addr::from(0x0a00_0000 + n).to_string();
        let body = match n % 4 {
            0 => device(n as u8, &address, "x"),
            1 => dns(&address, DnsStatus::Forwarded),
            2 => flow(u64::from(n), &address, "203.0.113.1", 1, 1),
            _ => finding(&address, &format!("n{n}.example"), 0.5),
        };
        model.observe(&Event { time: T, body }, NOW);
        if n % 100 == 0 {
            let start = flow(u64::from(n) << 32, &address, "203.0.113.1", 0, 0);
            let Body::Flow(start) = start else { unreachable!() };
            let body = Body::Flow(Flow { phase: FlowPhase::Start, ..start });
            model.observe(&Event { time: T, body }, NOW);
        }
    }
    let sizes = model.sizes();
    assert_eq!(sizes.devices, devices::DEVICES_MAX as u64);
    assert_eq!(sizes.alerts, alerts::ALERTS_MAX as u64);
    assert!(sizes.flows_open <= talk::OPEN_MAX as u64);
    assert!(sizes.devices_evicted > 0 && sizes.alerts_evicted > 0);
    assert_eq!(model.flows(10_000, None).len(), talk::ROWS_MAX);
}

proptest::proptest! {
    #[test]
    fn any_events_never_panic(
        events in proptest::collection::vec((0u8..5, 0u8..6, 0u64..4, 0u64..9, 0i64..4), 0..200),
    ) {
        let model = Model::default();
        for (kind, who, id, bytes, time) in events {
            let address = ["192.168.1.1", "10.0.0.1", "203.0.113.1", "fd00::1", "::1", "0.0.0.0"]
                [usize::from(who)];
            let body = match kind {
                0 => device(who, address, "x"),
                1 => dns(address, DnsStatus::Blocked),
                2 => flow(id, address, "192.168.1.1", bytes, bytes * 2),
                3 => match flow(id, address, "10.0.0.1", bytes, 1) {
                    Body::Flow(flow) => Body::Flow(Flow { phase: FlowPhase::Update, ..flow }),
                    other => other,
                },
                _ => finding(address, "s", bytes as f64 / 4.0),
            };
            let time = Timestamp::from_secs([0, 5, T.secs(), i64::MAX][time as usize]);
            model.observe(&Event { time, body }, Mono::from_nanos(bytes << 36));
            model.clock_set(Timestamp::EPOCH, time);
        }
        let devices = model.devices(1_000);
        proptest::prop_assert!(devices.iter().all(|(d, _)| d.asked.blocked() <= d.asked.queries()));
        let known: std::collections::BTreeSet<_> = devices.iter().flat_map(|(d, _)| &d.ips).collect();
        let all: usize = devices.iter().map(|(d, _)| d.ips.len()).sum();
        proptest::prop_assert_eq!(known.len(), all, "an address belongs to one device");
    }
}
