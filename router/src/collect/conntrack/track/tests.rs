//! Stories of flows: messages and dumps with their times -> records.

use std::net::Ipv4Addr;

use agentmon_core::event::Volume;
use agentmon_core::time::Mono;
use proptest::prelude::*;

use super::super::captured::{self, bytes};
use super::super::decode::{Count, Kind, STATUS_ASSURED, Tuple, decode};
use super::*;
use crate::netlink::messages;

const SECOND: u64 = 1_000_000_000;
/// 2026-11-23, and an hour after the machine's start.
const WALL: i64 = 1_795_444_327;
const UPTIME: Duration = Duration::from_secs(3_600);

/// `seconds` after the begin of the story.
fn at(seconds: f64) -> Now {
    let ns = (seconds * SECOND as f64) as u64;
    Now {
        wall: Timestamp::from_secs(WALL).plus(Duration::from_nanos(ns)),
        mono: Mono::from_nanos(100 * SECOND + ns),
    }
}

/// UDP flow number `n`.
fn udp(kind: Kind, n: u16) -> Raw {
    let (src, dst) = (Ipv4Addr::new(192, 0, 2, 9), Ipv4Addr::new(203, 0, 113, 7));
    Raw {
        kind,
        id: 1_000 + u32::from(n),
        zone: 0,
        orig: Tuple { src: src.into(), dst: dst.into(), proto: 17, src_port: n, dst_port: 443 },
        reply: None,
        status: 0,
        timeout: None,
        tcp_state: None,
        out: None,
        back: None,
        start_ns: None,
        stop_ns: None,
        event_ns: None,
    }
}
/// With that many bytes counted, and so many seconds left.
fn moved(raw: Raw, bytes: u64, left: u32) -> Raw {
    let count = Some(Count { packets: 1, bytes });
    Raw { out: count, back: Some(Count::default()), timeout: Some(left), ..raw }
}
fn ended(n: u16, bytes: u64) -> Raw {
    Raw { timeout: None, ..moved(udp(Kind::Destroy, n), bytes, 0) }
}

fn tracker() -> Tracker {
    let mut tracker = Tracker::new(100);
    tracker.observe(at(0.0));
    tracker
}

/// One dump of those entries; the `Update`s first, then what its end gave.
fn dump(t: &mut Tracker, seconds: f64, entries: &[Raw]) -> (Vec<Flow>, Vec<Flow>, DumpSummary) {
    let now = at(seconds);
    t.observe(now);
    t.begin_dump(Some(UPTIME + Duration::from_secs_f64(seconds)), now);
    let updates = entries.iter().filter_map(|raw| t.on_dump(raw, now)).collect();
    let mut late = Vec::new();
    let summary = t.finish_dump(true, now, |flow| late.push(flow));
    (updates, late, summary)
}

fn bytes_of(flow: &Flow) -> Option<u64> {
    flow.volume.map(|v: Volume| v.bytes())
}

#[test]
fn a_short_flow_is_a_start_and_an_end() {
    let mut t = tracker();
    let start = t.on_new(&udp(Kind::New, 1), at(1.0)).unwrap();
    assert_eq!((start.phase, start.start), (FlowPhase::Start, Some(at(1.0).wall)));
    assert_eq!((start.duration_ms, start.volume), (None, None));
    // One packet, then 30 s of silence until it expires.
    let end = t.on_destroy(&ended(1, 78), at(31.02));
    assert_eq!((end.phase, end.id, end.start), (FlowPhase::End, start.id, start.start));
    assert_eq!((end.duration_ms, bytes_of(&end)), (Some(20), Some(78)));
    assert_eq!(t.open(), 0);
}

#[test]
fn the_timeout_of_the_last_state_is_no_part_of_the_flow() {
    let check = |raw: Raw, lived: f64, expected| {
        let mut t = tracker();
        t.on_new(&Raw { kind: Kind::New, ..raw }, at(1.0));
        assert_eq!(t.on_destroy(&raw, at(1.0 + lived)).duration_ms, Some(expected));
    };
    let tcp = |state| {
        let mut raw = ended(1, 500);
        raw.orig.proto = 6;
        raw.tcp_state = Some(state);
        raw
    };
    check(ended(1, 78), 35.0, 5_000);
    check(Raw { status: STATUS_ASSURED, ..ended(1, 78) }, 125.0, 5_000);
    check(tcp(7), 123.5, 3_500);
    check(tcp(8), 12.0, 2_000);
    // Deleted long before it could expire: it lasted as long as it lived.
    check(tcp(3), 60.0, 60_000);
    check(ended(1, 78), 3.0, 3_000);
    // A tick early is expired all the same.
    check(ended(1, 78), 29.9, 0);
}

#[test]
fn kernel_stamps_beat_the_moment_of_reading() {
    let mut t = tracker();
    let stamp = |s: f64| Some(at(s).wall.nanos() as u64);
    let new = Raw { event_ns: stamp(1.000_1), ..udp(Kind::New, 1) };
    assert_eq!(t.on_new(&new, at(1.02)).unwrap().start, Some(at(1.000_1).wall));
    // Expired 33 s after it began, read a minute later.
    let end = Raw { start_ns: stamp(1.0), stop_ns: stamp(34.0), ..ended(1, 9) };
    assert_eq!(t.on_destroy(&end, at(90.0)).duration_ms, Some(3_000));
}

#[test]
fn a_long_flow_is_updated_when_it_moved() {
    let mut t = tracker();
    let entry = |bytes, left| moved(udp(Kind::Update, 1), bytes, left);
    let start = t.on_new(&udp(Kind::New, 1), at(0.0)).unwrap();
    assert_eq!(dump(&mut t, 1.0, &[entry(100, 30)]).0, []);
    let (updates, ..) = dump(&mut t, 16.0, &[entry(900, 28)]);
    assert_eq!((updates[0].id, updates[0].phase), (start.id, FlowPhase::Update));
    assert_eq!((bytes_of(&updates[0]), updates[0].duration_ms), (Some(900), Some(14_000)));
    // Nothing moved: no record, and its last packet stays where it was, even when somebody
    // gave the flow a longer time-out (offload does).
    assert_eq!(dump(&mut t, 31.0, &[entry(900, 86_400)]).0, []);
    let end = t.on_destroy(&ended(1, 900), at(44.5));
    assert_eq!((end.id, end.duration_ms), (start.id, Some(14_000)));
}

#[test]
fn a_flow_that_moved_only_before_its_first_dump_is_told_once() {
    let mut t = tracker();
    let entry = moved(udp(Kind::Update, 1), 1_000_000, 25);
    t.on_new(&udp(Kind::New, 1), at(0.0));
    assert_eq!(dump(&mut t, 14.0, &[entry]).0, []);
    assert_eq!(bytes_of(&dump(&mut t, 29.0, &[entry]).0[0]), Some(1_000_000));
    assert_eq!(dump(&mut t, 44.0, &[entry]).0, []);
}

#[test]
fn flows_older_than_the_sensor_have_no_start_unless_the_kernel_knows_it() {
    let mut t = tracker();
    let known = Raw {
        start_ns: Some(at(0.0).wall.minus(Duration::from_secs(600)).nanos() as u64),
        ..moved(udp(Kind::Update, 2), 50, 30)
    };
    // Stamped before the clock was set: older than the machine's start.
    let absurd = Raw { start_ns: Some(5), ..moved(udp(Kind::Update, 3), 50, 30) };
    let (updates, late, summary) =
        dump(&mut t, 0.0, &[moved(udp(Kind::Update, 1), 50, 30), known, absurd]);
    assert_eq!((updates.len(), late.len(), summary.missed_new), (0, 0, 0));
    let end = t.on_destroy(&ended(1, 80), at(40.0));
    assert_eq!((end.start, end.duration_ms, bytes_of(&end)), (None, None, Some(80)));
    let end = t.on_destroy(&ended(2, 80), at(40.0));
    assert_eq!(end.duration_ms, Some(610_000));
    assert_eq!(t.on_destroy(&ended(3, 80), at(40.0)).start, None);
}

#[test]
fn the_id_survives_a_restart_where_the_kernel_knows_the_start() {
    let start = Some(at(2.0).wall.nanos() as u64);
    let event_ns = start.map(|s| s + 40_000);
    let first = tracker().on_new(&Raw { event_ns, ..udp(Kind::New, 1) }, at(2.01)).unwrap();
    let mut second = tracker();
    let entry = Raw { start_ns: start, ..moved(udp(Kind::Update, 1), 50, 30) };
    dump(&mut second, 30.0, &[entry]);
    let end = second.on_destroy(&Raw { start_ns: start, ..ended(1, 80) }, at(60.0));
    assert_eq!(end.id, first.id);
    // The same tuple under the same kernel id, later: another flow.
    let later = tracker().on_new(&udp(Kind::New, 1), at(90.0)).unwrap();
    assert_ne!(later.id, first.id);
}

#[test]
fn a_dump_may_be_faster_than_the_event() {
    for dumps_before in [0, 2] {
        let mut t = tracker();
        for n in 0..dumps_before {
            dump(&mut t, f64::from(n), &[]);
        }
        let now = at(10.0);
        t.begin_dump(Some(UPTIME), now);
        assert_eq!(t.on_dump(&moved(udp(Kind::Update, 1), 5, 30), now), None);
        let start = t.on_new(&udp(Kind::New, 1), now).unwrap();
        assert_eq!((start.phase, start.start), (FlowPhase::Start, Some(now.wall)));
        let summary = t.finish_dump(true, now, |flow| panic!("{flow:?}"));
        assert_eq!(summary.missed_new, 0);
        assert_eq!(t.on_destroy(&ended(1, 5), at(11.0)).id, start.id);
    }
}

#[test]
fn a_flow_that_ended_during_the_dump_does_not_come_back() {
    let mut t = tracker();
    dump(&mut t, 0.0, &[]);
    t.on_new(&udp(Kind::New, 1), at(1.0));
    t.begin_dump(Some(UPTIME), at(15.0));
    t.on_destroy(&ended(1, 5), at(15.0));
    // The piece was made before its end.
    assert_eq!(t.on_dump(&moved(udp(Kind::Update, 1), 5, 1), at(15.0)), None);
    t.finish_dump(true, at(15.0), |flow| panic!("{flow:?}"));
    assert_eq!(t.open(), 0);
}

#[test]
fn a_lost_new_is_found_by_the_next_dump() {
    let mut t = tracker();
    dump(&mut t, 0.0, &[]);
    let (updates, late, summary) = dump(&mut t, 15.0, &[moved(udp(Kind::Update, 1), 5, 30)]);
    assert_eq!((updates.len(), summary.missed_new), (0, 1));
    assert_eq!((late[0].phase, late[0].start), (FlowPhase::Start, Some(at(15.0).wall)));
    assert_eq!(t.on_destroy(&ended(1, 5), at(50.0)).id, late[0].id);
}

#[test]
fn a_lost_destroy_is_found_by_two_dumps() {
    let mut t = tracker();
    dump(&mut t, 0.0, &[]);
    let start = t.on_new(&udp(Kind::New, 1), at(1.0)).unwrap();
    dump(&mut t, 15.0, &[moved(udp(Kind::Update, 1), 700, 20)]);
    assert_eq!(dump(&mut t, 30.0, &[]).1, []);
    let (_, late, summary) = dump(&mut t, 45.0, &[]);
    assert_eq!((late[0].phase, late[0].id, summary.vanished), (FlowPhase::End, start.id, 1));
    assert_eq!((late[0].duration_ms, bytes_of(&late[0])), (Some(4_000), Some(700)));
}

#[test]
fn an_incomplete_dump_proves_nothing() {
    let mut t = tracker();
    dump(&mut t, 0.0, &[]);
    t.on_new(&udp(Kind::New, 1), at(1.0));
    for n in 1..5 {
        t.begin_dump(Some(UPTIME), at(f64::from(n) * 15.0));
        t.finish_dump(false, at(f64::from(n) * 15.0), |flow| panic!("{flow:?}"));
    }
    assert_eq!(t.open(), 1);
}

#[test]
fn a_full_table_costs_the_start_only() {
    let mut t = Tracker::new(1);
    t.observe(at(0.0));
    dump(&mut t, 0.0, &[]);
    assert!(t.on_new(&udp(Kind::New, 1), at(1.0)).is_some());
    assert!(t.on_new(&udp(Kind::New, 2), at(1.0)).is_some());
    let end = t.on_destroy(&ended(2, 78), at(40.0));
    assert_eq!((end.phase, end.start, bytes_of(&end)), (FlowPhase::End, None, Some(78)));
    assert_eq!(t.take_stats(), Stats { full: 1, untracked_ends: 1, clock_jumps: 0 });
}

#[test]
fn a_flow_that_was_turned_away_is_not_announced_again() {
    let mut t = Tracker::new(1);
    t.observe(at(0.0));
    dump(&mut t, 0.0, &[]);
    assert!(t.on_new(&udp(Kind::New, 1), at(1.0)).is_some());
    assert!(t.on_new(&udp(Kind::New, 2), at(1.0)).is_some());
    t.on_destroy(&ended(1, 5), at(2.0));
    // There is room now, and the dump shows it.
    let (_, late, summary) = dump(&mut t, 15.0, &[moved(udp(Kind::Update, 2), 5, 20)]);
    assert_eq!((late, summary.missed_new, t.open()), (vec![], 0, 1));
    assert_eq!(t.on_destroy(&ended(2, 5), at(40.0)).start, None);
}

#[test]
fn a_wall_clock_that_is_set_makes_no_flow_long() {
    // Far and near, forwards and backwards.
    for seconds in [86_400, -86_400, 5, -5i64] {
        let by = |time: Timestamp| Timestamp::from_nanos(time.nanos() + seconds * 1_000_000_000);
        let jump = |now: Now| Now { wall: by(now.wall), ..now };
        let mut t = tracker();
        dump(&mut t, 0.0, &[]);
        let start = t.on_new(&udp(Kind::New, 1), at(1.0)).unwrap();
        t.observe(jump(at(5.0)));
        let stamp = |now: Now| Some(now.wall.nanos() as u64);
        let raw = Raw { start_ns: stamp(at(1.0)), stop_ns: stamp(jump(at(34.0))), ..ended(1, 9) };
        let end = t.on_destroy(&raw, jump(at(34.0)));
        assert_eq!((end.duration_ms, end.start), (Some(3_000), start.start), "{seconds} s");
        assert_eq!(t.take_stats().clock_jumps, 1);
    }
}

#[test]
fn a_start_stamped_in_1970_becomes_true_when_the_clock_is_set() {
    let boot = |seconds: u64| Now {
        wall: Timestamp::from_secs(60).plus(Duration::from_secs(seconds)),
        mono: Mono::from_nanos((60 + seconds) * SECOND),
    };
    let mut t = Tracker::new(10);
    t.observe(boot(0));
    let start = t.on_new(&udp(Kind::New, 1), boot(1)).unwrap();
    let set = Now { wall: Timestamp::from_secs(WALL), ..boot(10) };
    t.observe(set);
    let end = t
        .on_destroy(&ended(1, 9), Now { wall: set.wall.plus(Duration::from_secs(30)), ..boot(40) });
    assert_eq!(end.id, start.id);
    assert_eq!(end.start, Some(Timestamp::from_secs(WALL - 9)));
    assert_eq!(end.duration_ms, Some(9_000));
}

#[test]
fn captured_messages_make_whole_records() {
    let raw = |hex: &str| {
        let bytes = bytes(hex);
        decode(&messages(&bytes).next().unwrap().unwrap()).unwrap()
    };
    let (new, end) = (raw(captured::NEW_TCP), raw(captured::DESTROY_TCP));
    let wall = Timestamp::from_nanos(i64::try_from(new.event_ns.unwrap()).unwrap());
    let now = |s: u64| Now {
        wall: wall.plus(Duration::from_secs(s)),
        mono: Mono::from_nanos((5 + s) * SECOND),
    };
    let mut t = Tracker::new(10);
    t.timeouts = Timeouts::default();
    t.observe(now(0));
    let start = t.on_new(&new, now(0)).unwrap();
    let flow = t.on_destroy(&end, now(2));
    assert_eq!(flow.id, start.id);
    assert_eq!(flow.nat_src.unwrap().to_string(), "203.0.113.1:40002");
    assert_eq!((flow.nat_dst, flow.replied, flow.offloaded), (None, true, false));
    assert_eq!(flow.tcp_state.unwrap().as_str(), "TIME_WAIT");
    let volume = Volume { bytes_out: 400, bytes_in: 1_167, packets_out: 6, packets_in: 6 };
    assert_eq!(flow.volume, Some(volume));

    let dnat = t.on_destroy(&raw(captured::DESTROY_DNAT), now(3));
    assert_eq!(dnat.nat_dst.unwrap().to_string(), "192.168.77.2:8080");
    assert_eq!(dnat.nat_src, None);

    let ping = t.on_new(&raw(captured::NEW_ICMP), now(3)).unwrap();
    assert_eq!((ping.src.port, ping.dst.port), (0, 8 << 8));
    assert_eq!(ping.nat_src.unwrap().to_string(), "203.0.113.1:0");
    let ping6 = t.on_new(&raw(captured::NEW_ICMP6), now(3)).unwrap();
    assert_eq!((ping6.nat_src, ping6.nat_dst, ping6.dst.port), (None, None, 128 << 8));
}

#[test]
fn an_entry_is_small() {
    assert!(size_of::<Entry>() <= 216, "{}", size_of::<Entry>());
}

#[derive(Clone, Debug)]
enum Step {
    New(u16),
    Destroy(u16, u64),
    Dump(Vec<(u16, u64, u32)>, bool),
    Jump(i64),
    Wait(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let n = 0u16..6;
    prop_oneof![
        n.clone().prop_map(Step::New),
        (n.clone(), any::<u64>()).prop_map(|(n, b)| Step::Destroy(n, b)),
        (proptest::collection::vec((n, any::<u64>(), 0u32..200), 0..6), any::<bool>())
            .prop_map(|(entries, complete)| Step::Dump(entries, complete)),
        any::<i64>().prop_map(Step::Jump),
        (0u32..100_000).prop_map(Step::Wait),
    ]
}

proptest! {
    /// Whatever order things come in: memory is bounded, no duration exceeds the time the
    /// story took, every DESTROY gives one End.
    #[test]
    fn any_story_keeps_the_invariants(steps in proptest::collection::vec(step(), 0..60)) {
        let mut t = Tracker::new(4);
        let (mut wall, mut ms) = (WALL * 1_000_000_000, 0u64);
        for step in steps {
            let now = Now {
                wall: Timestamp::from_nanos(wall),
                mono: Mono::from_nanos(SECOND + ms * 1_000_000),
            };
            t.observe(now);
            let mut out = Vec::new();
            match step {
                Step::New(n) => out.extend(t.on_new(&udp(Kind::New, n), now)),
                Step::Destroy(n, b) => {
                    let raw = Raw { start_ns: Some(b), stop_ns: Some(b / 2), ..ended(n, b) };
                    let end = t.on_destroy(&raw, now);
                    prop_assert_eq!(end.phase, FlowPhase::End);
                    out.push(end);
                }
                Step::Dump(entries, complete) => {
                    t.begin_dump(None, now);
                    for (n, b, left) in entries {
                        out.extend(t.on_dump(&moved(udp(Kind::Update, n), b, left), now));
                    }
                    t.finish_dump(complete, now, |flow| out.push(flow));
                }
                Step::Jump(by) => wall = wall.saturating_add(by),
                Step::Wait(by) => {
                    ms += u64::from(by);
                    wall = wall.saturating_add(i64::from(by) * 1_000_000);
                }
            }
            prop_assert!(t.open() <= 4);
            for flow in out {
                prop_assert!(flow.duration_ms.unwrap_or(0) <= ms, "{:?} after {} ms", flow, ms);
            }
        }
    }
}
