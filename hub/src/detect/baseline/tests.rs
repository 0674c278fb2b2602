//! Baselines over a real file: events in, alerts and tables out; weeks in seconds.

use agentmon_core::event::{Body, Device, DeviceSource, Flow, FlowPhase, Mac, Resolved, Volume};
use agentmon_core::sample::{self, ip};
use agentmon_core::time::Clock;
use agentmon_core::{Event, Timestamp};

use super::{Baseline, Config, EVERYBODY, reset};
use crate::demo;
use crate::detect::round_tests::Hub;

/// Monday, 2 November 2026, 00:00 UTC.
const MONDAY: i64 = 1_793_577_600;
pub(in crate::detect) const DAY: i64 = 86_400;
pub(in crate::detect) const HOUR: i64 = 3_600;
pub(in crate::detect) const MIB: u64 = 1 << 20;
/// The camera, which keeps to itself.
pub(in crate::detect) const CAMERA: Mac = Mac([0, 0, 0x5e, 0, 0x53, 7]);

pub(in crate::detect) fn at(s: i64) -> Timestamp {
    Timestamp::from_secs(MONDAY + s)
}

/// A hub at the begin of Monday.
fn hub(dir: &std::path::Path, config: &Config) -> Hub {
    let hub = Hub::open(dir, vec![Box::new(Baseline::new(config))]);
    hub.clock.set_wall(at(0));
    hub
}

fn utc() -> Config {
    Config { timezone: "utc".into(), ..Config::default() }
}

fn device(s: i64, mac: Mac, address: &str) -> Event {
    let source = DeviceSource::Neighbour;
    let device = Device { mac, ip: ip(address), hostname: None, iface: None, source };
    Event { time: at(s), body: Body::Device(device) }
}

pub(in crate::detect) fn asks(s: i64, address: &str, name: &str) -> Event {
    Event { time: at(s), body: Body::Dns(sample::dns(address, name, &["203.0.113.7"])) }
}

/// A finished connection.
pub(in crate::detect) struct To<'a> {
    pub(in crate::detect) address: &'a str,
    pub(in crate::detect) dst: &'a str,
    pub(in crate::detect) name: Option<&'a str>,
    pub(in crate::detect) up: u64,
    pub(in crate::detect) lasts: i64,
}

pub(in crate::detect) fn goes(s: i64, to: &To<'_>) -> Event {
    let flow = Flow {
        id: u64::try_from(s).unwrap().wrapping_mul(0x9e37_79b9_7f4a_7c15),
        phase: FlowPhase::End,
        start: Some(at(s - to.lasts)),
        duration_ms: Some(u64::try_from(to.lasts).unwrap() * 1_000),
        volume: Some(Volume { bytes_out: to.up, bytes_in: 9_000, packets_out: 9, packets_in: 9 }),
        replied: true,
        resolved: to.name.map(|name| Resolved { name: name.parse().unwrap(), age_ms: 5 }),
        ..sample::flow(to.address, to.dst)
    };
    Event { time: at(s), body: Body::Flow(flow) }
}

/// Sends a day of the camera's life, and judges it.
pub(in crate::detect) fn camera(hub: &mut Hub, day: i64, address: &str, more: Vec<Event>) {
    let mut events = vec![device(day * DAY + 1, CAMERA, address)];
    for hour in 0..24 {
        let s = day * DAY + hour * HOUR + 100;
        events.push(asks(s, address, "relay.camcloud.example"));
        let name = Some("relay.camcloud.example");
        events.push(goes(
            s + 60,
            &To { address, dst: "203.0.113.7:443", name, up: 5 * MIB, lasts: 30 },
        ));
    }
    events.extend(more);
    events.sort_by_key(|event| event.time);
    play(hub, &events, 6);
}

/// Sends events as time goes by, with a round every so many hours.
fn play(hub: &mut Hub, events: &[Event], hours: i64) {
    let step = hours * HOUR;
    let mut rest = events;
    while let Some(first) = rest.first() {
        let end = Timestamp::from_secs((first.time.secs().div_euclid(step) + 1) * step);
        let (now, later) = rest.split_at(rest.partition_point(|event| event.time < end));
        hub.clock.set_wall(end.max(hub.clock.wall()));
        now.chunks(20_000).for_each(|part| hub.send(part));
        hub.turn();
        rest = later;
    }
}

fn alerts(hub: &Hub) -> String {
    hub.text(
        "SELECT string_agg(concat_ws(' ', rule, subject, coalesce(mac, client), severity), '; '
             ORDER BY id) FROM alerts",
    )
}

#[test]
fn a_camera_that_leaves_its_ways_is_told_and_one_that_does_not_is_silent() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = hub(dir.path(), &utc());
    for day in 0..9 {
        camera(&mut hub, day, "192.168.1.7", vec![]);
    }
    assert_eq!(alerts(&hub), "");
    // The same life, with an update's download and its usual names at another address.
    camera(&mut hub, 9, "192.168.1.77", vec![]);
    assert_eq!(alerts(&hub), "", "a device that has changed its address is the same device");
    let (address, s) = ("192.168.1.77", 10 * DAY + 10 * HOUR);
    let odd = vec![
        asks(s, address, "drop.elsewhere.example"),
        goes(s + 60, &To { address, dst: "[2001:db8:99::1]:443", name: None, up: 90, lasts: 5 }),
        goes(
            s + 90,
            &To {
                address,
                dst: "203.0.113.7:8443",
                name: Some("relay.camcloud.example"),
                up: 90,
                lasts: 5,
            },
        ),
        goes(
            s + 1_800,
            &To {
                address,
                dst: "203.0.113.7:443",
                name: Some("relay.camcloud.example"),
                up: 900 * MIB,
                lasts: 600,
            },
        ),
    ];
    camera(&mut hub, 10, address, odd);
    let mac = CAMERA;
    assert_eq!(
        alerts(&hub),
        format!(
            "new-domain elsewhere.example {mac} medium; off-profile 2001:db8:99::/48 {mac} medium; \
             off-profile 8443/tcp {mac} medium; volume-anomaly upload {mac} high"
        )
    );
    let why = "SELECT concat(why, evidence) FROM findings WHERE rule = 'volume-anomaly'";
    let why = hub.text(why);
    assert!(why.contains("sent 905 MiB") && why.contains("relay.camcloud.example"), "{why}");
    assert_eq!(
        hub.text("SELECT string_agg(strftime(hour, '%d %H'), ',') FROM hours WHERE odd = 1"),
        "12 10"
    );
}

#[test]
fn nothing_is_told_before_a_device_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = hub(dir.path(), &utc());
    for day in 0..6 {
        let s = day * DAY + 5 * HOUR;
        let name = format!("n{day}.place{day}.example");
        let address = "192.168.1.7";
        let dst = format!("[2001:db8:{day}::1]:443");
        let to = To { address, dst: &dst, name: None, up: 9_000 * MIB, lasts: 60 };
        camera(&mut hub, day, address, vec![asks(s, address, &name), goes(s + 9, &to)]);
    }
    assert_eq!(alerts(&hub), "");
}

#[test]
fn an_odd_upload_is_learnt_only_when_it_comes_on_several_days() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = hub(dir.path(), &utc());
    let backup = |day: i64| {
        let (address, name) = ("192.168.1.7", Some("relay.camcloud.example"));
        let to = To { address, dst: "203.0.113.7:443", name, up: 900 * MIB, lasts: 600 };
        vec![goes(day * DAY + 3 * HOUR + 1_800, &to)]
    };
    for day in 0..8 {
        camera(&mut hub, day, "192.168.1.7", vec![]);
    }
    let mut told = Vec::new();
    for day in 8..14 {
        camera(&mut hub, day, "192.168.1.7", backup(day));
        told.push(hub.text("SELECT coalesce(sum(findings), 0)::BIGINT::VARCHAR FROM alerts"));
    }
    assert_eq!(told, ["1", "2", "3", "3", "3", "3"], "one alert; from the fourth day on, a habit");
}

#[test]
fn the_same_window_twice_learns_nothing_new_and_late_events_are_learnt() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = hub(dir.path(), &utc());
    for day in 0..2 {
        camera(&mut hub, day, "192.168.1.7", vec![]);
    }
    let state = |hub: &Hub| {
        hub.text(
            "SELECT concat((SELECT string_agg(h::VARCHAR, ' ' ORDER BY h::VARCHAR) FROM habits h),
                 (SELECT string_agg(h::VARCHAR, ' ' ORDER BY who, hour) FROM hours h))",
        )
    };
    let before = state(&hub);
    // Detectors new to the file judge the present again.
    hub.store
        .run(|w| {
            w.change(|c| {
                Ok::<_, crate::store::StoreError>(c.execute_batch("DELETE FROM detect_marks")?)
            })
        })
        .unwrap()
        .unwrap();
    hub.turn();
    assert_eq!(state(&hub), before);
    // A sensor was away for 20 hours.
    let late = asks(2 * DAY - 20 * HOUR, "192.168.1.7", "late.example");
    hub.wait(HOUR);
    hub.send(&[late]);
    hub.turn();
    let days = "SELECT concat_ws(' ', bits, strftime(first_seen, '%d %H')) FROM habits WHERE kind = 'domain' AND what = 'late.example' AND who <> '*'";
    assert_eq!(hub.text(days), "1 03 04");
    let count =
        "SELECT questions::VARCHAR FROM hours WHERE who <> '*' AND hour = '2026-11-03 04:00:00'";
    assert_eq!(hub.text(count), "2", "the hour is counted anew, not twice");
}

#[test]
fn a_long_flow_is_no_burst_in_its_last_hour() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = hub(dir.path(), &utc());
    camera(&mut hub, 0, "192.168.1.7", vec![]);
    let to = To {
        address: "192.168.1.7",
        dst: "203.0.113.9:443",
        name: None,
        up: 400 * MIB,
        lasts: 4 * HOUR,
    };
    let mut events = vec![device(DAY, CAMERA, "192.168.1.7"), goes(DAY + 12 * HOUR, &to)];
    let name = Some("relay.camcloud.example");
    let small = To { name, up: 5 * MIB, lasts: 30, ..to };
    events.extend((5..15).map(|hour| goes(DAY + hour * HOUR + 160, &small)));
    events.sort_by_key(|event| event.time);
    play(&mut hub, &events, 1);
    let hours = "SELECT string_agg((up // 1048576)::VARCHAR, ' ' ORDER BY hour) FROM hours
         WHERE who <> '*' AND hour BETWEEN '2026-11-03 07:00:00' AND '2026-11-03 12:00:00'";
    assert_eq!(hub.text(hours), "5 105 105 105 105 5");
}

#[test]
fn a_day_on_which_clocks_change_is_one_day() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config { timezone: "CET-1CEST,M3.5.0,M10.5.0/3".into(), ..Config::default() };
    let mut hub = hub(dir.path(), &config);
    // From Saturday, 24 October 2026 to Monday: Sunday has 25 hours.
    let back = 9 * DAY + HOUR * 2;
    hub.clock.set_wall(at(-back));
    let events: Vec<_> =
        (0..49).map(|hour| asks(hour * HOUR - back, "192.168.1.7", "a.example")).collect();
    play(&mut hub, &events, 3);
    let bits = "SELECT string_agg(concat_ws(' ', who, bits), ', ' ORDER BY who) FROM habits WHERE kind = 'day'";
    assert_eq!(hub.text(bits), "*, 192.168.1.7".replace("*,", "* 3,").replace(".7", ".7 3"));
}

#[test]
fn a_reset_forgets_and_learns_from_then_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = hub(dir.path(), &utc());
    for day in 0..3 {
        camera(&mut hub, day, "192.168.1.7", vec![]);
    }
    let now = hub.clock.wall();
    let who = CAMERA.to_string();
    let gone = hub.store.run(move |w| w.change(|c| reset(c, &who, now))).unwrap().unwrap();
    assert!(gone > 0);
    camera(&mut hub, 3, "192.168.1.7", vec![]);
    let days = "SELECT string_agg(concat_ws(' ', bit_count(bits)), ', ' ORDER BY who) FROM habits WHERE kind = 'day'";
    assert_eq!(hub.text(days), "4, 1", "the network has four days, the camera begins anew");
    let now = hub.clock.wall();
    hub.store.run(move |w| w.change(|c| reset(c, EVERYBODY, now))).unwrap().unwrap();
    camera(&mut hub, 4, "192.168.1.7", vec![]);
    assert_eq!(hub.text(days), "1, 1", "and all of it");
}

/// A week of 78 devices and their people to learn, and days to judge: two of them thinly
/// peopled, or a whole week at the pace of a real home with `AGENTMON_WEEKS=1` (a minute).
#[test]
fn days_of_78_devices_tell_less_than_three_things_each() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = hub(dir.path(), &utc());
    let whole = std::env::var_os("AGENTMON_WEEKS").is_some();
    let (judged, pace) = if whole { (7, 3.0) } else { (2, 40.0) };
    let mut told = Vec::new();
    for day in 0..7 + judged {
        let seed = 7_000 + u64::try_from(day).unwrap();
        let mut events = demo::quiet_day(seed, at((day + 1) * DAY), 78, pace);
        // Each day of the demo numbers its flows from one.
        for event in &mut events {
            if let Body::Flow(flow) = &mut event.body {
                flow.id = flow.id.wrapping_add(seed);
            }
        }
        play(&mut hub, &events, 6);
        told.push(hub.text("SELECT count(*)::VARCHAR FROM findings"));
    }
    let devices = "SELECT count(*)::VARCHAR FROM habits
         WHERE kind = 'day' AND who <> '*' AND bit_count(bits) >= 9";
    assert_eq!(hub.text(devices), "78");
    let all = "SELECT string_agg(concat_ws(' ', time, rule, subject, mac, why), '\n' ORDER BY id)
         FROM findings";
    let count = told.last().unwrap().parse::<i64>().unwrap();
    assert!(count <= judged * 3, "{told:?}\n{}", hub.text(all));
    assert_eq!(hub.board("/detectors/baseline/errors"), 0);
    if whole {
        let events = "SELECT concat((SELECT count(*) FROM flows), ' flows, ', count(*)) FROM dns";
        eprintln!("findings by day: {told:?}; {} questions", hub.text(events));
    }
}
