//! Rows against told events, and random histories of both.

use agentmon_core::Name;
use proptest::prelude::*;

use super::*;

const fn at(seconds: i64, millis: i64) -> Timestamp {
    Timestamp::from_micros(1_795_442_400_000_000 + seconds * 1_000_000 + millis * 1_000)
}

fn dns(name: &str, status: DnsStatus) -> Dns {
    Dns {
        client: "192.0.2.31".parse().unwrap(),
        mac: None,
        name: Name::parse(name.as_bytes()).unwrap(),
        qtype: 1,
        status,
        rcode: (status == DnsStatus::Forwarded).then_some(0),
        answers: Vec::new(),
        ttl: None,
        upstream: None,
        latency_us: None,
        blocked_by: None,
        source: "pihole".into(),
    }
}

fn event(time: Timestamp, name: &str, status: DnsStatus) -> Event {
    Event { time, body: Body::Dns(dns(name, status)) }
}

fn record(time: Timestamp, name: &str) -> Record {
    Record { time, dns: dns(name, DnsStatus::Forwarded) }
}

fn page(records: Vec<Record>, oldest_id: Option<u64>) -> QueryPage {
    QueryPage { seen: records.len(), records, oldest_id }
}

fn shown(events: &[Event]) -> Vec<String> {
    let one = |event: &Event| match &event.body {
        Body::Dns(dns) => format!("{} {}", dns.name.as_str(), dns.status.as_str()),
        other => other.kind().to_owned(),
    };
    events.iter().map(one).collect()
}

#[test]
fn what_was_told_is_not_told_again() {
    let mut missing = Missing::default();
    for (ms, name) in [(0, "a.example"), (100, "b.example"), (9_000, "c.example")] {
        let told = missing.tell(event(at(0, ms), name, DnsStatus::Forwarded));
        assert!(told.is_some());
    }
    missing.note(at(1, 0), at(8, 0), 3);
    let mut out = Vec::new();
    // Case, a moment's difference, and a second question for the same name.
    let rows = vec![
        record(at(9, 20), "c.example"),
        record(at(5, 0), "lost.example"),
        record(at(0, 300), "B.example"),
        record(at(0, 350), "b.example"),
        record(at(0, 2), "a.example"),
    ];
    assert!(missing.page(page(rows, Some(1)), false, &mut out));
    assert_eq!(shown(&out), ["lost.example forwarded", "b.example forwarded"]);
    assert_eq!(missing.spans(), 0);
}

#[test]
fn a_question_without_its_answer_is_completed() {
    let mut missing = Missing::default();
    missing.note(at(2, 0), at(4, 0), 9);
    assert_eq!(missing.tell(event(at(1, 0), "open.example", DnsStatus::Timeout)), None);
    assert_eq!(missing.tell(event(at(1, 0), "never.example", DnsStatus::Unknown)), None);
    assert!(missing.tell(event(at(60, 0), "far.example", DnsStatus::Timeout)).is_some());
    let mut out = Vec::new();
    assert!(missing.page(page(vec![record(at(1, 3), "open.example")], Some(1)), false, &mut out));
    assert_eq!(shown(&out), ["open.example forwarded", "never.example unknown"]);
}

#[test]
fn pages_go_on_below_and_end() {
    let mut missing = Missing::default();
    missing.note(at(0, 0), at(1, 0), 1);
    let mut out = Vec::new();
    assert_eq!(missing.wanted(Mono::from_nanos(0)), None);
    let settled = Mono::from_nanos(0).plus(SETTLE);
    let wanted = missing.wanted(settled).unwrap();
    assert_eq!((wanted.until - wanted.from, wanted.cursor), (8.0, None));
    assert!(!missing.page(page(Vec::new(), Some(70)), true, &mut out));
    assert_eq!(missing.wanted(settled).unwrap().cursor, Some(69));
    // A Pi-hole that gives the same page for ever.
    assert!(missing.page(page(Vec::new(), Some(70)), true, &mut out));
    missing.note(at(100, 0), at(101, 0), 1);
    assert!(missing.page(page(Vec::new(), Some(0)), true, &mut out));
    assert_eq!(missing.spans(), 0);
}

#[test]
fn attempts_are_counted_and_end() {
    let mut missing = Missing::default();
    missing.note(at(0, 0), at(1, 0), 7);
    assert_eq!(missing.tell(event(at(0, 0), "held.example", DnsStatus::Unknown)), None);
    let (now, mut out) = (Mono::from_nanos(1), Vec::new());
    assert_eq!(missing.failed(now, Duration::from_secs(30), 2, &mut out), None);
    assert_eq!(missing.wanted(now.plus(Duration::from_secs(29))), None);
    assert!(missing.wanted(now.plus(Duration::from_secs(30))).is_some());
    let given_up = missing.failed(now, Duration::ZERO, 2, &mut out).unwrap();
    assert_eq!((given_up.lines, shown(&out)), (7, vec!["held.example unknown".to_owned()]));
}

#[test]
fn spans_are_merged_and_bounded() {
    let mut missing = Missing::default();
    for second in 0..3 {
        assert_eq!(missing.note(at(second, 0), at(second, 0), 1), None);
    }
    assert_eq!(missing.spans(), 1);
    let mut given_up = 0;
    for minute in 1..=20 {
        given_up +=
            usize::from(missing.note(at(minute * 120, 0), at(minute * 120, 0), 1).is_some());
    }
    assert_eq!((missing.spans(), given_up), (SPANS_MAX, 21 - SPANS_MAX));
    // A clock that was set back, and a span of a year.
    missing.note(at(0, 0), at(-500, 0), 1);
    missing.note(at(-31_000_000, 0), at(5_000, 0), 1);
    let last = missing.spans.back().unwrap();
    assert_eq!(last.until.since(last.from), SPAN_MAX);
}

proptest! {
    /// Some questions are in the log, some lines of it are missing, all are rows: each comes
    /// out once, whatever the pages' size and wherever the program is started anew.
    #[test]
    fn each_once(
        lost in prop::collection::vec(any::<bool>(), 1..40),
        open in prop::collection::vec(any::<bool>(), 40),
        rows in 1usize..7,
        restart in any::<bool>(),
    ) {
        let mut missing = Missing::default();
        missing.note(at(0, 0), at(40, 0), 1);
        let name = |i: usize| format!("n{}.example", i / 3);
        let mut out = Vec::new();
        for i in (0..lost.len()).filter(|i| !lost[*i]) {
            let status = if open[i] { DnsStatus::Unknown } else { DnsStatus::Cached };
            out.extend(missing.tell(event(at(i as i64, 0), &name(i), status)));
        }
        let all: Vec<_> = (0..lost.len()).rev().map(|i| (i as u64 + 1, record(at(i as i64, 4), &name(i)))).collect();
        for chunk in all.chunks(rows) {
            if restart {
                let saved = serde_json::to_vec(&missing.saved()).unwrap();
                missing = serde_json::from_slice(&saved).unwrap();
            }
            let records = chunk.iter().map(|(_, r)| r.clone()).collect();
            missing.page(page(records, chunk.last().map(|(id, _)| *id)), true, &mut out);
        }
        missing.page(page(Vec::new(), None), false, &mut out);
        let mut got: Vec<_> = out.iter().map(|e| {
            let Body::Dns(dns) = &e.body else { panic!("dns") };
            (e.time.secs(), dns.name.as_str().to_owned())
        }).collect();
        got.sort();
        let want: Vec<_> = (0..lost.len()).map(|i| (at(i as i64, 0).secs(), name(i))).collect();
        prop_assert_eq!(got, want);
        prop_assert!(missing.recent.iter().all(|told| !told.met));
    }
}
