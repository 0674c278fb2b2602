//! The writer over a real file: exactly once, order, correlation, alerts, upkeep.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use agentmon_core::event::{
    Answer, Body, Connection, Device, DeviceSource, Direction, Dns, Endpoint, Flow, FlowPhase, Gap,
    Mac, Process, ProcessPhase, Program, Volume,
};
use agentmon_core::finding::Finding;
use agentmon_core::sample::{self, ip};
use agentmon_core::time::SimClock;
use agentmon_core::wire::{self, Batch, Health};
use agentmon_core::{Event, Timestamp};
use agentmon_router::counters::Counters;

use super::staging::Outcome;
use super::writer::Writer;
use super::{Limits, StoreError};
use crate::ingest::Incoming;

const NOW: i64 = 1_795_444_327;

pub(super) fn at(s: i64) -> Timestamp {
    Timestamp::from_secs(NOW + s)
}
pub(super) fn dns(s: i64, client: &str, name: &str, answer: &str) -> Event {
    let mut dns = Dns { ttl: Some(60), ..sample::dns(client, name, &[answer]) };
    dns.answers.insert(0, Answer::Cname("cdn.example.net".parse().unwrap()));
    Event { time: at(s), body: Body::Dns(dns) }
}
pub(super) fn flow(
    s: i64,
    id: u64,
    phase: FlowPhase,
    client: &str,
    server: &str,
    bytes: u64,
) -> Event {
    let mut flow = sample::flow(client, &format!("{server}:443"));
    let port = 40_000 + (id % 1_000) as u16;
    flow.src.port = port;
    let body = Body::Flow(Flow {
        id,
        phase,
        nat_src: Some(Endpoint::new(ip("203.0.113.1"), port)),
        start: Some(at(s - 5)),
        duration_ms: Some(5_000),
        volume: Some(Volume { bytes_out: bytes, bytes_in: 1, packets_out: 1, packets_in: 1 }),
        replied: true,
        ..flow
    });
    Event { time: at(s), body }
}
fn finding(s: i64, score: f64) -> Event {
    let body = Body::Finding(
        Finding {
            rule: "dga".into(),
            subject: "bad.example".into(),
            client: Some(ip("192.0.2.9")),
            mac: None,
            score,
            why: format!("score {score}"),
            evidence: vec![],
        }
        .with("entropy", 3.4),
    );
    Event { time: at(s), body }
}

/// A writer over a folder, with a clock that stands at [`NOW`].
pub(super) struct Hub {
    pub(super) writer: Writer,
    pub(super) clock: Arc<SimClock>,
}

impl Hub {
    pub(super) fn open(dir: &Path) -> Self {
        let clock = Arc::new(SimClock::at(at(0)));
        let writer =
            Writer::open(dir, &Limits::default(), Counters::default(), clock.clone()).unwrap();
        Self { writer, clock }
    }
    pub(super) fn send(&mut self, epoch: u64, first_seq: u64, events: &[Event]) -> Outcome {
        self.send_as(1, epoch, first_seq, events).unwrap()
    }
    fn send_as(
        &mut self,
        sensor: i32,
        epoch: u64,
        first_seq: u64,
        events: &[Event],
    ) -> Result<Outcome, StoreError> {
        use agentmon_core::time::Clock;
        let events = events.iter().map(wire::encode_event).collect();
        let now = self.clock.wall();
        let health = Health { counters: vec![("accepted".into(), first_seq)], ..Health::default() };
        let batch = Batch { epoch, first_seq, events, health, sent: now };
        let from = Some("192.0.2.1".into());
        let incoming = Incoming::from_batch(&batch, sensor, now, from);
        Ok(self.writer.store(vec![incoming])?[0])
    }
    pub(super) fn one<T: duckdb::types::FromSql>(&self, sql: &str) -> T {
        let reader = self.writer.readers().get().unwrap();
        reader.query_row(sql, [], |row| row.get(0)).unwrap()
    }
    pub(super) fn count(&self, table: &str) -> i64 {
        self.one(&format!("SELECT count(*) FROM {table}"))
    }
}

#[test]
fn a_batch_is_stored_once_and_overlaps_are_cut() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = Hub::open(dir.path());
    let events: Vec<_> =
        (0..10).map(|i| dns(i - 20, "192.0.2.1", "a.example", "203.0.113.1")).collect();
    let whole = Outcome { stored: 10, repeated: 0, bad: 0, acked: Some(14), cursor: Some(14) };
    assert_eq!(hub.send(7, 5, &events), whole);
    assert_eq!(hub.send(7, 5, &events), Outcome { stored: 0, repeated: 10, ..whole });
    // 10 to 19, of which 10 to 14 are known.
    let half = Outcome { stored: 5, repeated: 5, bad: 0, acked: Some(19), cursor: Some(19) };
    assert_eq!(hub.send(7, 10, &events), half);
    // A hole is the sender's loss; another epoch and another sensor begin anew.
    assert_eq!(hub.send(7, 100, &events).stored, 10);
    assert_eq!(hub.send(8, 1, &events).stored, 10);
    assert_eq!(hub.send_as(2, 7, 5, &events).unwrap().stored, 10);
    assert_eq!(hub.count("dns"), 45);
    assert_eq!(hub.one::<i64>("SELECT sum(events)::BIGINT FROM ingest_cursor"), 45);
    // And after a restart.
    drop(hub);
    let mut hub = Hub::open(dir.path());
    assert_eq!(hub.send(7, 100, &events).repeated, 10);
    assert_eq!(hub.send(8, 1, &events).repeated, 10);
    assert_eq!(hub.count("dns"), 45);
}

#[test]
fn a_batch_of_health_alone_is_no_event() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = Hub::open(dir.path());
    assert_eq!(hub.send(7, 5, &[]), Outcome::default());
    assert_eq!(hub.count("ingest_cursor"), 0);
    assert_eq!(hub.one::<u64>("SELECT value FROM sensor_counters WHERE name = 'accepted'"), 5);
    hub.send(7, 6, &[]);
    assert_eq!(hub.one::<u64>("SELECT value FROM sensor_counters WHERE name = 'accepted'"), 6);
    assert_eq!(hub.count("sensor_counters"), 1);
}

#[test]
fn a_failed_transaction_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = Hub::open(dir.path());
    let reader = hub.writer.readers().get().unwrap();
    // A table that refuses its rows, after others have taken theirs.
    reader.execute_batch("ALTER TABLE gaps RENAME TO away").unwrap();
    let gap = Gap { collector: "c".into(), from: at(-9), reason: "restart".into(), lost: None };
    let events = [
        dns(0, "192.0.2.1", "a.example", "203.0.113.1"),
        flow(1, 1, FlowPhase::Update, "192.0.2.1", "203.0.113.1", 5),
        Event { time: at(-1), body: Body::Gap(gap) },
    ];
    assert!(hub.send_as(1, 1, 1, &events).is_err());
    assert_eq!(hub.count("dns") + hub.count("flows_open") + hub.count("ingest_cursor"), 0);
    reader.execute_batch("ALTER TABLE away RENAME TO gaps").unwrap();
    assert_eq!(hub.send(1, 1, &events).stored, 3);
    assert_eq!((hub.count("dns"), hub.count("flows_open")), (1, 1));
}

#[test]
fn an_open_flow_is_replaced_and_ends_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = Hub::open(dir.path());
    let record = |s, phase, bytes| flow(s, 1, phase, "192.0.2.1", "203.0.113.1", bytes);
    hub.send(1, 1, &[record(0, FlowPhase::Update, 10), record(10, FlowPhase::Update, 20)]);
    assert_eq!((hub.count("flows_open"), hub.count("flows_done")), (1, 0));
    hub.send(1, 3, &[record(20, FlowPhase::Update, 30)]);
    assert_eq!(hub.one::<u64>("SELECT bytes_out FROM flows WHERE open"), 30);
    drop(hub);
    let mut hub = Hub::open(dir.path());
    hub.send(1, 4, &[record(30, FlowPhase::End, 40)]);
    assert_eq!((hub.count("flows_open"), hub.count("flows_done")), (0, 1));
    assert_eq!(hub.one::<u64>("SELECT bytes_out FROM flows WHERE NOT open"), 40);
    assert_eq!(
        hub.one::<u16>("SELECT nat_sport FROM flows"),
        40_001,
        "the view fills the kept port in"
    );
    // Begun and ended within one batch: never open.
    let short = |s, phase| flow(s, 2, phase, "192.0.2.1", "203.0.113.1", 1);
    hub.send(1, 5, &[short(40, FlowPhase::Update), short(41, FlowPhase::End)]);
    assert_eq!((hub.count("flows_open"), hub.count("flows_done")), (0, 2));
}

#[test]
fn flows_get_names_in_either_order_of_arrival() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = Hub::open(dir.path());
    // The flow began at -5 s.
    hub.send(1, 1, &[dns(-6, "192.0.2.1", "early.example", "203.0.113.1")]);
    hub.send(1, 2, &[flow(0, 1, FlowPhase::End, "192.0.2.1", "203.0.113.1", 1)]);
    hub.send(1, 3, &[flow(0, 2, FlowPhase::End, "192.0.2.1", "203.0.113.2", 1)]);
    hub.send_as(2, 1, 1, &[dns(-6, "192.0.2.1", "late.example", "203.0.113.2")]).unwrap();
    hub.send_as(2, 1, 2, &[dns(-6, "192.0.2.77", "other.example", "203.0.113.3")]).unwrap();
    hub.send(1, 4, &[flow(0, 3, FlowPhase::End, "192.0.2.1", "203.0.113.3", 1)]);
    hub.writer.tick().unwrap();
    let names: String = hub.one(
        "SELECT string_agg(coalesce(name, '-') || '/' || coalesce(name_age_ms, 0), ' ' ORDER BY dst) FROM flows",
    );
    assert_eq!(names, "early.example/1000 late.example/1000 -/0");
    assert_eq!(
        hub.one::<u64>("SELECT value FROM hub_counters WHERE name = 'correlate.named_late'"),
        1
    );
}

#[test]
fn names_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = Hub::open(dir.path());
    hub.send(1, 1, &[dns(-60, "192.0.2.1", "a.example", "203.0.113.1")]);
    drop(hub);
    let mut hub = Hub::open(dir.path());
    hub.send(1, 2, &[flow(0, 1, FlowPhase::End, "192.0.2.1", "203.0.113.1", 1)]);
    assert_eq!(hub.one::<String>("SELECT name FROM flows"), "a.example");
}

#[test]
fn devices_name_rows_by_their_address() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = Hub::open(dir.path());
    let mac = Mac([0, 0, 0x5e, 0, 0x53, 9]);
    let seen = Device {
        mac,
        ip: ip("192.0.2.9"),
        hostname: Some("tv".into()),
        iface: None,
        source: DeviceSource::Lease,
    };
    let lease = Event { time: at(-10), body: Body::Device(seen) };
    hub.send(1, 1, &[lease, dns(-5, "192.0.2.9", "a.example", "203.0.113.1"), finding(0, 0.5)]);
    for table in ["dns", "findings", "alerts", "devices", "device_addresses"] {
        assert_eq!(
            hub.one::<String>(&format!("SELECT mac FROM {table}")),
            mac.to_string(),
            "{table}"
        );
    }
    assert_eq!(hub.one::<String>("SELECT dedup_key FROM alerts"), format!("|{mac}|bad.example"));
}

fn sighting(s: i64, mac: u8, address: &str, name: Option<&str>, source: DeviceSource) -> Event {
    let seen = Device {
        mac: Mac([0, 0, 0x5e, 0, 0x53, mac]),
        ip: ip(address),
        hostname: name.map(str::to_owned),
        iface: None,
        source,
    };
    Event { time: at(s), body: Body::Device(seen) }
}

/// A finding about `bad.example` by whoever is at the address.
fn found_at(s: i64, address: &str) -> Event {
    let mut event = finding(s, 0.5);
    let Body::Finding(finding) = &mut event.body else { unreachable!() };
    finding.client = Some(ip(address));
    event
}

/// Each alert as `device or address: findings`.
#[track_caller]
fn alerts_of(events: &[Event], expected: &str) {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = Hub::open(dir.path());
    for (n, event) in (1..).zip(events) {
        hub.send(1, n, std::slice::from_ref(event));
    }
    let sql = "SELECT coalesce(string_agg(coalesce(right(mac, 2), client) || ': ' || findings, ', ' ORDER BY id), '') FROM alerts";
    assert_eq!(hub.one::<String>(sql), expected);
}

#[test]
fn alerts_follow_the_device_not_the_address() {
    use DeviceSource::{Lease, Neighbour};
    const HOUR: i64 = 3_600;
    let lease = |s, mac, address| sighting(s, mac, address, None, Lease);
    // One device, another address, and an IPv6 privacy address: one alert.
    alerts_of(
        &[
            lease(-9 * HOUR, 1, "192.0.2.9"),
            found_at(-8 * HOUR, "192.0.2.9"),
            lease(-5 * HOUR, 1, "192.0.2.77"),
            found_at(-4 * HOUR, "192.0.2.77"),
            sighting(-3 * HOUR, 1, "2001:db8::a1:b2", None, Neighbour),
            found_at(-2 * HOUR, "2001:db8::a1:b2"),
        ],
        "01: 3",
    );
    // Two devices that have an address one after the other: two alerts.
    alerts_of(
        &[
            lease(-9 * HOUR, 1, "192.0.2.9"),
            found_at(-8 * HOUR, "192.0.2.9"),
            lease(-5 * HOUR, 2, "192.0.2.9"),
            found_at(-4 * HOUR, "192.0.2.9"),
        ],
        "01: 1, 02: 1",
    );
    // Even when a finding about the first one comes after the second one is there.
    alerts_of(
        &[
            lease(-9 * HOUR, 1, "192.0.2.9"),
            lease(-5 * HOUR, 2, "192.0.2.9"),
            found_at(-4 * HOUR, "192.0.2.9"),
            found_at(-8 * HOUR, "192.0.2.9"),
        ],
        "02: 1, 01: 1",
    );
    // What was told of the address a moment before its device was known is the device's...
    alerts_of(
        &[
            found_at(-8 * HOUR, "192.0.2.9"),
            lease(-8 * HOUR + 60, 1, "192.0.2.9"),
            found_at(-7 * HOUR, "192.0.2.9"),
        ],
        "01: 2",
    );
    // ...what was told long before is not.
    alerts_of(
        &[
            found_at(-8 * HOUR, "192.0.2.9"),
            lease(-5 * HOUR, 1, "192.0.2.9"),
            found_at(-4 * HOUR, "192.0.2.9"),
        ],
        "192.0.2.9: 1, 01: 1",
    );
}

/// The kernel keeps a connection of an address that its device has left, for days.
#[test]
fn a_connection_is_of_the_device_that_began_it() {
    const HOUR: i64 = 3_600;
    let dir = tempfile::tempdir().unwrap();
    let mut hub = Hub::open(dir.path());
    let lease = |s, mac, address| sighting(s, mac, address, None, DeviceSource::Lease);
    let lasting = |s: i64, phase, begin: i64| {
        let mut event = flow(s, 5, phase, "192.0.2.9", "203.0.113.1", 10);
        let Body::Flow(flow) = &mut event.body else { unreachable!() };
        flow.start = Some(at(begin));
        flow.duration_ms = u64::try_from((s - begin) * 1_000).ok();
        event
    };
    let events = [
        lease(-9 * HOUR, 1, "192.0.2.9"),
        lasting(-8 * HOUR, FlowPhase::Update, -8 * HOUR),
        lease(-7 * HOUR, 1, "192.0.2.77"),
        lease(-6 * HOUR, 2, "192.0.2.9"),
        lasting(-5 * HOUR, FlowPhase::Update, -8 * HOUR),
        lasting(-4 * HOUR, FlowPhase::End, -8 * HOUR),
        flow(-3 * HOUR, 6, FlowPhase::End, "192.0.2.9", "203.0.113.1", 10),
        flow(-2 * HOUR, 7, FlowPhase::End, "192.0.2.77", "203.0.113.1", 10),
    ];
    for (n, event) in (1..).zip(&events) {
        hub.send(1, n, std::slice::from_ref(event));
    }
    let whose = "SELECT string_agg(right(mac, 2), ' ' ORDER BY time) FROM flows";
    assert_eq!(hub.one::<String>(whose), "01 02 01");
}

#[test]
fn a_device_seen_later_in_the_same_batch_has_its_alert() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = Hub::open(dir.path());
    let seen = sighting(-5, 1, "192.0.2.9", None, DeviceSource::Neighbour);
    hub.send(1, 1, &[found_at(-6, "192.0.2.9"), seen]);
    assert_eq!(hub.one::<String>("SELECT mac FROM alerts"), "00:00:5e:00:53:01");
}

#[test]
fn a_device_has_stays_names_and_a_maker() {
    use DeviceSource::{Lease, Neighbour, Ptr, Static};
    const HOUR: i64 = 3_600;
    let dir = tempfile::tempdir().unwrap();
    let mut hub = Hub::open(dir.path());
    let story = [
        sighting(-9 * HOUR, 1, "192.0.2.9", Some("esp32"), Lease),
        sighting(-8 * HOUR, 2, "192.0.2.9", Some("*"), Lease),
        sighting(-7 * HOUR, 2, "192.0.2.9", Some("tv.lan"), Ptr),
        sighting(-6 * HOUR, 1, "192.0.2.9", None, Neighbour),
        sighting(-6 * HOUR, 1, "192.0.2.9", Some("boiler"), Static),
    ];
    for (n, event) in (1..).zip(&story) {
        hub.send(1, n, std::slice::from_ref(event));
        // What is read back is what was known.
        drop(hub);
        hub = Hub::open(dir.path());
    }
    let stays = "SELECT string_agg(right(mac, 2) || ' ' || epoch(last_seen - first_seen), ', ' ORDER BY first_seen) FROM device_addresses";
    assert_eq!(hub.one::<String>(stays), "01 0.0, 02 0.0, 01 0.0");
    let owners =
        "SELECT string_agg(right(device, 2), ' ' ORDER BY owned_since) FROM address_owners";
    assert_eq!(hub.one::<String>(owners), "01 02 01");
    let devices = "SELECT string_agg(concat_ws(' ', right(mac, 2), hostname, name_source, mac_kind, vendor), ', ' ORDER BY mac) FROM devices";
    let maker = "ICANN, IANA Department";
    assert_eq!(
        hub.one::<String>(devices),
        format!("01 boiler static registered {maker}, 02 tv.lan ptr registered {maker}")
    );
    let names = "SELECT string_agg(concat_ws(' ', right(mac, 2), source, name), ', ' ORDER BY mac, source) FROM device_names";
    assert_eq!(hub.one::<String>(names), "01 lease esp32, 01 static boiler, 02 ptr tv.lan");
}

#[test]
fn a_new_device_that_the_hub_knows_is_not_new() {
    let new = |s: i64, mac: u8| {
        let mut event = found_at(s, "192.0.2.9");
        let Body::Finding(finding) = &mut event.body else { unreachable!() };
        (finding.rule, finding.mac) = ("new-device".into(), Some(Mac([0, 0, 0x5e, 0, 0x53, mac])));
        finding.subject = finding.mac.unwrap().to_string();
        event
    };
    let seen = |s, mac| sighting(s, mac, "192.0.2.9", None, DeviceSource::Lease);
    let dir = tempfile::tempdir().unwrap();
    let mut hub = Hub::open(dir.path());
    hub.send(1, 1, &[seen(-90_000, 1), seen(-20, 1), new(-15, 1), seen(-10, 2), new(-5, 2)]);
    let alerts =
        "SELECT string_agg(right(subject, 2) || ' ' || severity, ', ' ORDER BY id) FROM alerts";
    assert_eq!(hub.one::<String>(alerts), "01 info, 02 medium");
    let evidence = "SELECT evidence FROM findings ORDER BY id DESC LIMIT 1";
    assert!(hub.one::<String>(evidence).contains("IANA"), "the maker is told");
}

#[test]
fn findings_fuse_into_one_alert() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = Hub::open(dir.path());
    hub.send(1, 1, &[finding(-10, 0.5), finding(-30, 0.3)]);
    hub.send(1, 3, &[finding(-5, 0.45)]);
    let row = "SELECT concat_ws(' ', id, findings, score, severity, why, status, epoch(last_seen - first_seen)) FROM alerts";
    assert_eq!(hub.one::<String>(row), "1 3 0.5 medium score 0.5 open 25.0");
    let ids = "SELECT string_agg(id || ':' || alert, ' ' ORDER BY id) FROM findings";
    assert_eq!(hub.one::<String>(ids), "1:1 2:1 3:1");
    assert_eq!(hub.one::<String>("SELECT evidence FROM findings LIMIT 1"), r#"{"entropy":"3.4"}"#);
}

#[test]
fn a_sum_folds_the_alerts_it_covers() {
    let about = |s: i64, subject: &str, score: f64| {
        let mut event = finding(s, score);
        let Body::Finding(finding) = &mut event.body else { unreachable!() };
        finding.subject = subject.into();
        event
    };
    let dir = tempfile::tempdir().unwrap();
    let mut hub = Hub::open(dir.path());
    hub.send(1, 1, &[about(-5_000, "old.example", 0.4), about(-9, "a.example", 0.4)]);
    hub.send(1, 3, &[about(-8, "unknown names", 0.45), about(-8, "b.example", 0.4)]);
    hub.send(1, 5, &[about(-7, "burst", 0.7)]);
    hub.send(1, 6, &[about(-6, "c.example", 0.4), about(-6, "a.example", 0.4)]);
    let alerts = "SELECT string_agg(concat_ws(' ', subject, status, folded_into, findings), ', ' ORDER BY id) FROM alerts";
    let expected = "old.example open 1, a.example folded 5 2, unknown names folded 5 1, \
                    b.example folded 5 1, burst open 1, c.example folded 5 1";
    assert_eq!(hub.one::<String>(alerts), expected);
    let orphans = "SELECT count(*) FROM findings ANTI JOIN alerts a ON alert = a.id";
    assert_eq!((hub.count("findings"), hub.one::<i64>(orphans)), (7, 0));
    assert_eq!(hub.one::<i64>("SELECT count(DISTINCT dedup_key) FROM alerts"), 6);

    // A person has seen one; it is left alone, and undoing that folds it again.
    let mut ack = |undo| {
        let change = |c: &_| crate::alert::acknowledge(c, 2, Some("mine"), undo, at(0));
        assert!(hub.writer.change(change).unwrap());
        hub.one::<String>("SELECT concat_ws(' ', status, folded_into) FROM alerts WHERE id = 2")
    };
    assert_eq!((ack(false), ack(true)), ("acked 5".to_owned(), "folded 5".to_owned()));
}

#[test]
fn an_acknowledged_alert_opens_again_only_when_it_gets_worse() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = Hub::open(dir.path());
    hub.send(1, 1, &[finding(0, 0.5)]);
    let ack = "UPDATE alerts SET status = 'acked', acked_at = TIMESTAMP '2026-11-23 15:00:00', ack_note = 'known'";
    hub.writer.change(|c| Ok::<_, StoreError>(c.execute_batch(ack)?)).unwrap();
    let state =
        "SELECT concat_ws(' ', findings, severity, status, ack_note, acked_at IS NULL) FROM alerts";
    hub.send(1, 2, &[finding(1, 0.55)]);
    assert_eq!(hub.one::<String>(state), "2 medium acked known false");
    hub.send(1, 3, &[finding(2, 0.7)]);
    assert_eq!(hub.one::<String>(state), "3 high open known true");
}

#[test]
fn scores_from_the_network_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = Hub::open(dir.path());
    hub.send(
        1,
        1,
        &[finding(0, f64::NAN), finding(0, f64::INFINITY), finding(0, -3.0), finding(0, 9.0)],
    );
    assert_eq!(hub.one::<f64>("SELECT max(score) FROM findings"), 1.0);
    assert_eq!(hub.one::<f64>("SELECT min(score) FROM findings"), 0.0);
    assert_eq!(hub.count("alerts"), 1);
}

#[test]
fn wrong_clocks_are_flagged_and_gaps_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = Hub::open(dir.path());
    let mut early = dns(0, "192.0.2.1", "a.example", "203.0.113.1");
    early.time = Timestamp::from_secs(100);
    let gap = Gap {
        collector: "conntrack".into(),
        from: at(-9),
        reason: "enobufs".into(),
        lost: Some(3),
    };
    hub.send(1, 1, &[early, Event { time: at(-1), body: Body::Gap(gap) }]);
    assert_eq!(hub.one::<i64>("SELECT epoch_us(time) FROM dns"), at(0).micros());
    assert_eq!(hub.one::<i64>("SELECT epoch_us(sensor_time) FROM dns"), 100_000_000);
    assert_eq!(hub.one::<u64>("SELECT lost FROM gaps"), 3);
    assert_eq!(
        hub.one::<String>("SELECT array_to_string(answers, ' ') FROM dns"),
        "cdn.example.net 203.0.113.1"
    );
}

#[test]
fn bad_events_are_counted_by_reason() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = Hub::open(dir.path());
    let good = wire::encode_event(&dns(0, "192.0.2.1", "a.example", "203.0.113.1"));
    let events = vec![vec![0x7a, 0], good, vec![0xff]];
    let batch = Batch { epoch: 1, first_seq: 1, events, health: Health::default(), sent: at(0) };
    let outcome = hub.writer.store(vec![Incoming::from_batch(&batch, 1, at(0), None)]).unwrap();
    assert_eq!(
        outcome,
        [Outcome { stored: 1, repeated: 0, bad: 2, acked: Some(3), cursor: Some(3) }]
    );
    let counters = "SELECT string_agg(name || '=' || value, ' ' ORDER BY name) FROM hub_counters";
    assert_eq!(hub.one::<String>(counters), "drop.ingest.malformed=1 drop.ingest.unknown_kind=1");
    // They go on after a restart.
    drop(hub);
    let hub = Hub::open(dir.path());
    assert_eq!(hub.one::<String>(counters), "drop.ingest.malformed=1 drop.ingest.unknown_kind=1");
}

#[test]
fn vanished_flows_end_with_what_was_known_and_are_not_counted_twice() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = Hub::open(dir.path());
    let server = "203.0.113.1";
    // 1: gone with the old epoch. 2: found again under id 1002 (same ports), going on.
    hub.send(
        1,
        1,
        &[
            flow(0, 1, FlowPhase::Update, "192.0.2.1", server, 10),
            flow(0, 2, FlowPhase::Update, "192.0.2.1", server, 20),
        ],
    );
    hub.clock.advance(Duration::from_secs(30));
    // Found in the kernel's table by the restarted sensor: when it began is not known.
    let found = |s, bytes| {
        let mut event = flow(s, 1_002, FlowPhase::Update, "192.0.2.1", server, bytes);
        if let Body::Flow(flow) = &mut event.body {
            flow.start = None;
        }
        event
    };
    hub.send(2, 1, &[found(30, 25)]);
    hub.writer.tick().unwrap();
    assert_eq!(hub.count("flows_open"), 3, "not yet");
    hub.clock.advance(Duration::from_secs(700));
    hub.send(2, 2, &[found(700, 30)]);
    hub.writer.tick().unwrap();
    assert_eq!((hub.count("flows_open"), hub.count("flows_done")), (1, 1));
    assert_eq!(hub.one::<u64>("SELECT bytes_out FROM flows_done"), 10);
    assert_eq!(hub.one::<i64>("SELECT sum(bytes_out)::BIGINT FROM flows"), 40);
}

#[test]
fn epochs_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = Hub::open(dir.path());
    let event = [dns(0, "192.0.2.1", "a.example", "203.0.113.1")];
    for epoch in 0..300 {
        hub.clock.advance(Duration::from_secs(1));
        hub.send(epoch, 1, &event);
    }
    assert_eq!(hub.count("ingest_cursor"), 256);
    assert_eq!(hub.one::<u64>("SELECT min(epoch) FROM ingest_cursor"), 44);
}

/// A year of a log's days: each is known again.
#[test]
fn files_that_were_imported_are_not_forgotten() {
    use agentmon_core::time::Clock;
    let dir = tempfile::tempdir().unwrap();
    let mut hub = Hub::open(dir.path());
    let events = vec![wire::encode_event(&dns(0, "192.0.2.1", "a.example", "203.0.113.1"))];
    let now = hub.clock.wall();
    for _ in 0..2 {
        let incoming = |epoch| {
            let health = Health::default();
            let batch = Batch { epoch, first_seq: 1, events: events.clone(), health, sent: now };
            Incoming::from_batch(&batch, 1, now, None)
        };
        hub.writer.store((0..366).map(incoming).collect()).unwrap();
        assert_eq!((hub.count("ingest_cursor"), hub.count("dns")), (366, 366));
    }
}

#[test]
fn a_process_and_its_connection_read_as_the_router_saw_the_flow() {
    let dir = tempfile::tempdir().unwrap();
    let policy = "authority = [{process = \"claude-code\", allowed = [\"api.anthropic.com\"]}]";
    std::fs::write(dir.path().join("authority.toml"), policy).unwrap();
    let mut hub = Hub::open(dir.path());
    let program = |id: u64, name: &str| Program {
        id,
        pid: 412,
        name: name.into(),
        argv: vec![name.into(), "https://www.example.com".into()],
        ..Program::default()
    };
    let process = Process {
        phase: ProcessPhase::Start,
        program: program(u64::MAX, "curl"),
        ancestors: vec![program(7, "claude")],
        ..Process::default()
    };
    let owned = |direction| {
        Body::Connection(Box::new(Connection {
            id: 5,
            phase: FlowPhase::End,
            process: Some(u64::MAX),
            pid: 412,
            name: Some("curl".into()),
            proto: 6,
            local: Endpoint::new(ip("192.0.2.1"), 40_001),
            remote: Endpoint::new(ip("203.0.113.1"), 443),
            direction,
            start: Some(at(1)),
            duration_ms: Some(40),
            volume: Some(Volume { bytes_out: 10, bytes_in: 20, packets_out: 1, packets_in: 1 }),
            user: None,
            container: None,
            how: "exec".into(),
            resolved: None,
        }))
    };
    let events = [
        dns(0, "192.0.2.1", "www.example.com", "203.0.113.1"),
        Event { time: at(1), body: Body::Process(Box::new(process)) },
        Event { time: at(1), body: owned(Direction::Out) },
        flow(1, 1, FlowPhase::End, "192.0.2.1", "203.0.113.1", 5),
    ];
    assert_eq!(hub.send(1, 1, &events).stored, 4);
    let joined: String = hub.one(
        "SELECT concat_ws(' ', c.name, p.ancestors->0->>'name', f.bytes_out, c.bytes_in, c.domain)
         FROM flows f JOIN connections c USING (proto, src, sport, dst, dport)
         JOIN processes p USING (process)",
    );
    assert_eq!(joined, "curl claude 5 20 www.example.com");
    // The name it had asked for is known here, and its agent may not go there.
    let alert: String =
        hub.one("SELECT concat_ws(' | ', rule, subject, severity, client) FROM alerts");
    assert_eq!(alert, "authority | claude-code -> www.example.com:443/tcp | high | 192.0.2.1");
    // What was accepted from outside stands the other way round.
    hub.send(1, 5, &[Event { time: at(9), body: owned(Direction::In) }]);
    let inward: String = hub
        .one("SELECT concat_ws(' ', src, sport, dst, dport, bytes_out, bytes_in) FROM connections");
    assert_eq!(inward, "203.0.113.1 443 192.0.2.1 40001 20 10");
}

/// The agent's batch comes before the resolver's: what a connection was for is known when its
/// answer is, not a false alarm before; and a hub that is restarted knows who runs.
#[test]
fn a_hosts_connection_waits_for_the_answer_that_explains_it() {
    let dir = tempfile::tempdir().unwrap();
    let policy = "authority = [{process = \"claude-code\", allowed = [\"api.anthropic.com\"]}]";
    std::fs::write(dir.path().join("authority.toml"), policy).unwrap();
    let mut hub = Hub::open(dir.path());
    let program = Program { id: 7, pid: 412, name: "claude".into(), ..Program::default() };
    let process = Process { phase: ProcessPhase::Start, program, ..Process::default() };
    let connection = |id: u64, server: &str| {
        let body = Body::Connection(Box::new(Connection {
            id,
            phase: FlowPhase::Update,
            process: Some(7),
            pid: 412,
            name: Some("claude".into()),
            proto: 6,
            local: Endpoint::new(ip("192.0.2.1"), 40_001),
            remote: Endpoint::new(ip(server), 443),
            direction: Direction::Out,
            start: Some(at(1)),
            duration_ms: None,
            volume: None,
            user: None,
            container: None,
            how: "exec".into(),
            resolved: None,
        }));
        Event { time: at(1), body }
    };
    let events = [
        Event { time: at(1), body: Body::Process(Box::new(process)) },
        connection(1, "203.0.113.1"),
        connection(2, "203.0.113.2"),
    ];
    hub.send(1, 1, &events);
    let answer = dns(0, "192.0.2.1", "api.anthropic.com", "203.0.113.1");
    hub.send_as(2, 1, 1, &[answer]).unwrap();
    let mut ticks = |seconds| {
        hub.clock.advance(Duration::from_secs(seconds));
        hub.writer.tick().unwrap();
        (
            hub.one::<String>("SELECT coalesce(string_agg(domain, ' '), '') FROM connections"),
            hub.one::<String>("SELECT coalesce(string_agg(subject, ' '), '') FROM alerts"),
        )
    };
    assert_eq!(ticks(2), ("api.anthropic.com".into(), String::new()));
    // The other one has no answer: after a while its address is all there is.
    assert_eq!(ticks(40).1, "claude-code -> 203.0.113.2:443/tcp");
    // A hub that stops keeps nobody waiting, and begins with who runs.
    hub.send(1, 4, &[connection(3, "203.0.113.3")]);
    assert_eq!(hub.count("alerts"), 1);
    hub.writer.close().unwrap();
    let mut hub = Hub::open(dir.path());
    assert_eq!(hub.count("alerts"), 2);
    hub.send(1, 5, &[connection(4, "203.0.113.4")]);
    hub.writer.tick().unwrap();
    hub.clock.advance(Duration::from_secs(2));
    hub.writer.tick().unwrap();
    hub.clock.advance(Duration::from_secs(40));
    hub.writer.tick().unwrap();
    assert_eq!(
        hub.one::<String>("SELECT subject FROM alerts WHERE id = 3"),
        "claude-code -> 203.0.113.4:443/tcp"
    );
}
