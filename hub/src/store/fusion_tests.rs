//! Alerts over a real file: detectors that agree, watched names, feedback and its undoing,
//! incidents.

use agentmon_core::event::{Body, FlowPhase};
use agentmon_core::finding::Finding;
use agentmon_core::sample::ip;
use agentmon_core::{Event, Timestamp};

use super::writer_tests::{Hub, at, dns, flow};
use crate::alert::feedback::New;
use crate::alert::{acknowledge, say};
use crate::control::Request;

/// While it learns, a beacon is kept and a list is told; afterwards what comes again is told.
#[test]
fn while_the_hub_learns_only_what_is_known_bad_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = Hub::open(dir.path());
    hub.send(1, 1, &all(&["-90 192.0.2.7 exfil 0.6 before.example"]));
    hub.writer.learn(true);
    hub.send(
        1,
        2,
        &all(&[
            "-80 192.0.2.7 beacon 0.7 a.example",
            "-79 192.0.2.7 blocklist 0.8 b.example",
            "-78 192.0.2.7 beacon 0.7 b.example",
            "-77 192.0.2.7 authority 0.6 c.example",
            "-76 192.0.2.7 exfil 0.6 before.example",
        ]),
    );
    // What was open before stays; the beacon does not make the list's word graver.
    let kept = "exfil before.example open 0.6, beacon a.example learning 0.7, \
         blocklist b.example open 0.8, authority c.example open 0.6";
    assert_eq!(hub.short(), kept);
    assert_eq!(hub.one::<u64>("SELECT count(*) FROM findings WHERE rule = 'beacon'"), 2);
    let reasons: String = hub.one("SELECT reasons FROM alerts WHERE id = 2");
    assert!(reasons.contains("found while learning: kept, not told"), "{reasons}");
    assert_eq!(hub.one::<u64>("SELECT count(*) FROM incident_findings WHERE alert = 2"), 0);
    // A restart forgets nothing; the end of learning alone tells nothing.
    drop(hub);
    let mut hub = Hub::open(dir.path());
    assert_eq!(hub.short(), kept);
    hub.send(1, 7, &all(&["-70 192.0.2.7 beacon 0.7 d.example"]));
    assert_eq!(hub.short(), format!("{kept}, beacon d.example open 0.7"));
    hub.send(1, 8, &all(&["-69 192.0.2.7 beacon 0.5 a.example"]));
    assert_eq!(hub.one::<String>("SELECT status FROM alerts WHERE id = 2"), "open");
    assert_eq!(hub.one::<f64>("SELECT round(score, 2) FROM alerts WHERE id = 2"), 0.7);
}

/// A person's interest is told also while the hub learns, once a connection follows.
#[test]
fn a_watched_name_is_told_while_the_hub_learns() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = Hub::open(dir.path());
    hub.writer.learn(true);
    hub.send(
        1,
        1,
        &[
            dns(-60, "192.0.2.7", "api.ai.example", "203.0.113.1"),
            found("-60 192.0.2.7 watched 0.3 ai.example"),
        ],
    );
    assert_eq!(hub.short(), "watched ai.example note 0.0");
    hub.send(1, 3, &[flow(-50, 1, FlowPhase::End, "192.0.2.7", "203.0.113.1", 9)]);
    assert_eq!(hub.short(), "watched ai.example open 0.3");
}

/// `seconds client rule score subject`
fn found(line: &str) -> Event {
    let words: Vec<&str> = line.split(' ').collect();
    let finding = Finding {
        rule: words[2].into(),
        subject: words[4].into(),
        client: Some(ip(words[1])),
        mac: None,
        score: words[3].parse().unwrap(),
        why: format!("{} {}", words[2], words[4]),
        evidence: Vec::new(),
    };
    Event { time: at(words[0].parse().unwrap()), body: Body::Finding(finding) }
}

fn all(lines: &[&str]) -> Vec<Event> {
    lines.iter().map(|line| found(line)).collect()
}

impl Hub {
    /// Everything a person sees of the alerts.
    fn alerts(&self) -> String {
        let row = "concat_ws(' ', id, dedup_key, topic, rule, subject, client, first_seen, last_seen, \
             findings, score, severity, why, reasons, status, acked_at, ack_note, folded_into)";
        self.one(&format!(
            "SELECT coalesce(string_agg({row}, chr(10) ORDER BY id), '') FROM alerts"
        ))
    }
    fn short(&self) -> String {
        let row = "concat_ws(' ', rule, subject, status, round(score, 2))";
        self.one(&format!("SELECT coalesce(string_agg({row}, ', ' ORDER BY id), '') FROM alerts"))
    }
    fn allow(&mut self, change: impl FnOnce(&mut New)) -> anyhow::Result<i64> {
        let mut new = New { comment: Some("mine".into()), ..New::default() };
        change(&mut new);
        Ok(self.writer.change(|c| say::allow(c, &new, at(0)))?.id)
    }
    fn forget(&mut self, id: i64) {
        let said = self.writer.change(|c| say::forget(c, id, at(0))).unwrap();
        assert!(said.is_some(), "there is no feedback {id}");
    }
}

#[test]
fn detectors_that_agree_make_one_alert_and_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = Hub::open(dir.path());
    hub.send(
        1,
        1,
        &all(&["-9 192.0.2.7 beacon 0.5 www.a.example", "-8 192.0.2.7 long 0.4 a.example"]),
    );
    hub.send(
        1,
        3,
        &all(&["-7 192.0.2.7 blocklist 0.6 a.example", "-6 192.0.2.8 beacon 0.5 a.example"]),
    );
    // 0.6 + 0.4 * 0.4 * 0.9 * 0.5
    assert_eq!(hub.short(), "blocklist a.example open 0.67, beacon a.example open 0.5");
    let why: String = hub.one("SELECT why FROM alerts WHERE id = 1");
    assert_eq!(why, "blocklist a.example (and beacon)");
    let reasons: String = hub.one("SELECT reasons FROM alerts WHERE id = 1");
    assert!(reasons.contains("beacon agrees (timing, 0.50): +0.07"), "{reasons}");
    assert_eq!(hub.count("alert_parts"), 4);
    // The same again changes nothing; after a restart it goes on.
    let before = hub.alerts();
    hub.send(
        1,
        3,
        &all(&["-7 192.0.2.7 blocklist 0.6 a.example", "-6 192.0.2.8 beacon 0.5 a.example"]),
    );
    assert_eq!(hub.alerts(), before);
    drop(hub);
    let mut hub = Hub::open(dir.path());
    hub.send(1, 5, &all(&["-5 192.0.2.7 dga 0.5 a.example"]));
    assert_eq!(hub.one::<u64>("SELECT findings FROM alerts WHERE id = 1"), 4);
    assert_eq!((hub.count("alerts"), hub.count("alert_parts")), (2, 5));
}

#[test]
fn what_hardly_anybody_talks_to_counts_more() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = Hub::open(dir.path());
    hub.writer
        .change(|c| {
            c.execute_batch(
                "INSERT INTO device_addresses SELECT '00:00:5e:00:53:0' || n, '192.0.2.' || n, \
                 '2026-11-20', '2026-11-23 14:00:00', 0 FROM range(1, 9) t(n)",
            )
            .map_err(super::StoreError::from)
        })
        .unwrap();
    drop(hub);
    let mut hub = Hub::open(dir.path());
    let asks: Vec<_> = (1..9)
        .map(|n| dns(-60, &format!("192.0.2.{n}"), "common.example", "203.0.113.1"))
        .chain([dns(-60, "192.0.2.1", "rare.example", "203.0.113.2")])
        .collect();
    hub.send(1, 1, &asks);
    hub.send(
        1,
        10,
        &all(&["-9 192.0.2.1 dga 0.6 common.example", "-8 192.0.2.1 dga 0.6 rare.example"]),
    );
    assert_eq!(hub.short(), "dga common.example open 0.45, dga rare.example open 0.65");
}

/// `(status, score)` of the only alert.
#[track_caller]
fn check_watched(hub: &Hub, expected: &str) {
    let row = "SELECT string_agg(concat_ws(' ', status, score, why), ', ') FROM alerts";
    assert_eq!(hub.one::<String>(row), expected);
}

const NOTE: &str = "note 0.0 watched ai.example; asked for, not connected";
const OPEN: &str = "open 0.25 watched ai.example; connected to 203.0.113.9 port 443 1.0 s later";

#[test]
fn a_watched_name_is_told_when_a_connection_follows() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = Hub::open(dir.path());
    let ask = |s| dns(s, "192.0.2.9", "api.ai.example", "203.0.113.9");
    let connect = |s, id, phase| flow(s, id, phase, "192.0.2.9", "203.0.113.9", 10);
    hub.send(1, 1, &[ask(-100), found("-100 192.0.2.9 watched 0.25 ai.example")]);
    check_watched(&hub, NOTE);
    // Refused: no connection. By somebody else: not this device's.
    let mut refused = connect(-90, 1, FlowPhase::End);
    if let Body::Flow(flow) = &mut refused.body {
        flow.replied = false;
    }
    let other = flow(-90, 2, FlowPhase::End, "192.0.2.8", "203.0.113.9", 10);
    hub.send(1, 3, &[refused, dns(-96, "192.0.2.8", "api.ai.example", "203.0.113.9"), other]);
    check_watched(&hub, NOTE);
    // The note waits, over a restart too; the device asks again, and connects.
    drop(hub);
    let mut hub = Hub::open(dir.path());
    hub.send(1, 6, &[ask(-16), connect(-10, 3, FlowPhase::Update)]);
    check_watched(&hub, OPEN);
    let before = hub.alerts();
    hub.send(1, 8, &[connect(-5, 3, FlowPhase::End), connect(-4, 4, FlowPhase::End)]);
    assert_eq!(hub.alerts(), before, "what follows later changes nothing");
}

#[test]
fn a_connection_may_be_known_before_the_finding_or_get_its_name_late() {
    let ask = dns(-16, "192.0.2.9", "ai.example", "203.0.113.9");
    let connect = flow(-10, 3, FlowPhase::End, "192.0.2.9", "203.0.113.9", 10);
    let watched = found("-16 192.0.2.9 watched 0.25 ai.example");
    let orders: [&[&[&Event]]; 4] = [
        &[&[&ask, &watched, &connect]],
        &[&[&ask, &connect], &[&watched]],
        &[&[&connect], &[&ask, &watched]],
        &[&[&watched], &[&connect], &[&ask]],
    ];
    for order in orders {
        let dir = tempfile::tempdir().unwrap();
        let mut hub = Hub::open(dir.path());
        let mut seq = 1;
        for batch in order {
            let events: Vec<Event> = batch.iter().map(|event| (*event).clone()).collect();
            hub.send(1, seq, &events);
            seq += events.len() as u64;
            hub.writer.tick().unwrap();
        }
        check_watched(&hub, OPEN);
    }
}

#[test]
fn what_is_allowed_is_silent_until_its_end_and_known_bad_never_by_the_way() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = Hub::open(dir.path());
    hub.send(1, 1, &all(&["-90 192.0.2.7 beacon 0.7 a.example"]));
    // For half a minute before now, in event time.
    let id = hub
        .allow(|n| {
            n.domain = Some("a.example".into());
            n.until = Some(at(5).micros());
        })
        .unwrap();
    assert_eq!(hub.short(), "beacon a.example allowed 0.0");
    hub.send(1, 2, &all(&["4 192.0.2.7 beacon 0.7 a.example"]));
    assert_eq!(hub.short(), "beacon a.example allowed 0.0");
    hub.send(1, 3, &all(&["6 192.0.2.7 blocklist 0.6 a.example"]));
    assert_eq!(hub.short(), "blocklist a.example open 0.6");
    hub.send(1, 4, &all(&["7 192.0.2.7 beacon 0.7 a.example"]));
    assert_eq!(hub.short(), "beacon a.example open 0.77");
    hub.forget(id);
    assert_eq!(hub.short(), "beacon a.example open 0.77");
    let refused = hub.allow(|n| (n.rule, n.comment) = (Some("blocklist".into()), None));
    assert!(refused.unwrap_err().to_string().contains("--comment"));
    let refused = hub.allow(|n| n.device = Some("nobody".into()));
    assert!(refused.unwrap_err().to_string().contains("no device `nobody`"));
    let refused = hub.allow(|n| (n.rule, n.until) = (Some("dga".into()), Some(at(-1).micros())));
    assert!(refused.unwrap_err().to_string().contains("ended already"));
}

#[test]
fn a_false_positive_counts_half_elsewhere_and_never_hides_a_list() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = Hub::open(dir.path());
    let fp = |hub: &mut Hub, alert, rule: Option<&str>| {
        let new =
            New { rule: rule.map(str::to_owned), comment: Some("mine".into()), ..New::default() };
        hub.writer.change(|c| say::dismiss(c, alert, &new, at(0)))
    };
    hub.send(
        1,
        1,
        &all(&[
            "-9 192.0.2.7 dga 0.7 a.example",
            "-8 192.0.2.8 dga 0.7 a.example",
            "-7 192.0.2.7 unusual-port 0.5 4444/tcp",
            "-6 192.0.2.7 unusual-port 0.5 5555/tcp",
            "-5 192.0.2.7 blocklist 0.9 b.example",
        ]),
    );
    let id = fp(&mut hub, 1, None).unwrap().id;
    fp(&mut hub, 3, None).unwrap();
    assert_eq!(
        hub.short(),
        "dga a.example fp 0.0, dga a.example open 0.35, unusual-port 4444/tcp fp 0.0, \
         unusual-port 5555/tcp open 0.5, blocklist b.example open 0.9"
    );
    // Later ones too.
    hub.send(1, 6, &all(&["-4 192.0.2.7 dga 0.9 a.example", "-3 192.0.2.9 dga 0.8 a.example"]));
    let scores = "SELECT string_agg(concat_ws(' ', status, score), ', ' ORDER BY id) FROM alerts \
         WHERE subject = 'a.example'";
    assert_eq!(hub.one::<String>(scores), "fp 0.0, open 0.35, open 0.4");
    hub.forget(id);
    assert_eq!(hub.one::<String>(scores), "open 0.9, open 0.7, open 0.8");
    for (alert, rule, expected) in [
        (5, None, "name it and say why"),
        (5, Some("dga"), "is told by blocklist, not by dga"),
        (99, None, "there is no alert 99"),
    ] {
        let error = fp(&mut hub, alert, rule).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    fp(&mut hub, 5, Some("blocklist")).unwrap();
    assert_eq!(hub.one::<String>("SELECT status FROM alerts WHERE id = 5"), "fp");
}

#[test]
fn an_alert_of_an_older_file_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = Hub::open(dir.path());
    let old = "INSERT INTO alerts (id, dedup_key, rule, subject, client, first_seen, last_seen, \
         findings, score, severity, why, status) VALUES (1, 'dga|192.0.2.7|a.example', 'dga', \
         'a.example', '192.0.2.7', '2026-11-01', '2026-11-02', 7, 0.7, 'high', 'old', 'open')";
    hub.writer.change(|c| c.execute_batch(old).map_err(super::StoreError::from)).unwrap();
    drop(hub);
    let mut hub = Hub::open(dir.path());
    hub.send(
        1,
        1,
        &all(&["-9 192.0.2.7 dga 0.5 a.example", "-8 192.0.2.7 blocklist 0.5 a.example"]),
    );
    let row =
        "SELECT concat_ws(' ', count(*), max(dedup_key), max(findings), max(why)) FROM alerts";
    assert_eq!(hub.one::<String>(row), "1 |192.0.2.7|a.example 9 old (and blocklist)");
}

const INCIDENTS: &str = "SELECT coalesce(string_agg(concat_ws(' ', id, device, status, severity, \
     alerts, findings, array_to_string(rules, '+')), ', ' ORDER BY id), '') FROM incidents";

#[test]
fn an_incident_is_what_was_found_about_one_device_at_about_the_same_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = Hub::open(dir.path());
    hub.send(
        1,
        1,
        &all(&[
            "-30000 192.0.2.7 beacon 0.5 a.example",
            "-24000 192.0.2.7 exfil 0.7 a.example",
            "-24100 192.0.2.7 new 0.1 b.example",
            "-24000 192.0.2.8 exfil 0.7 a.example",
            "-3600 192.0.2.7 dga 0.6 c.example",
            "-60 192.0.2.9 new 0.1 d.example",
        ]),
    );
    assert_eq!(
        hub.one::<String>(INCIDENTS),
        "1 192.0.2.7 closed high 2 3 beacon+exfil+new, 4 192.0.2.8 closed high 1 1 exfil, \
         5 192.0.2.7 open high 1 1 dga"
    );
    // A late finding joins two; the lower number stays.
    hub.send(
        1,
        7,
        &all(&["-17500 192.0.2.7 long 0.5 e.example", "-10800 192.0.2.7 long 0.5 f.example"]),
    );
    let joined =
        "1 192.0.2.7 open high 5 6 beacon+dga+exfil+long+new, 4 192.0.2.8 closed high 1 1 exfil";
    assert_eq!(hub.one::<String>(INCIDENTS), joined);
    // What is allowed is no part of it; undone, it is as before.
    let id = hub.allow(|n| n.rule = Some("long".into())).unwrap();
    assert!(hub.one::<String>(INCIDENTS).contains("5 192.0.2.7 open high 1 1 dga"));
    hub.forget(id);
    assert_eq!(hub.one::<String>(INCIDENTS), joined);
    for alert in hub.one::<String>("SELECT string_agg(id, ' ') FROM alerts").split(' ') {
        let id = alert.parse().unwrap();
        assert!(hub.writer.change(|c| acknowledge(c, id, None, false, at(0))).unwrap());
    }
    assert!(hub.one::<String>(INCIDENTS).contains("1 192.0.2.7 acked"));
}

/// The control socket's form of each request reads back as it was.
#[test]
fn requests_are_the_same_on_the_line() {
    let feedback = New { domain: Some("a.example".into()), until: Some(7), ..New::default() };
    let request = Request::FalsePositive { alert: 3, feedback: feedback.clone() };
    let text = serde_json::to_string(&request).unwrap();
    let Request::FalsePositive { alert: 3, feedback: read } = serde_json::from_str(&text).unwrap()
    else {
        panic!("{text}");
    };
    assert_eq!(read, feedback);
}

/// What a person may say, by number.
fn word(hub: &mut Hub, pick: usize) -> Option<i64> {
    let alert = i64::try_from(pick).unwrap_or_default() % 3 + 1;
    let said = match pick % 6 {
        0 => hub.allow(|n| n.domain = Some("a.example".into())),
        1 => hub.allow(|n| n.ip = Some("203.0.113.0/24".into())),
        2 => hub.allow(|n| n.rule = Some("blocklist".into())),
        3 => hub.allow(|n| {
            n.device = Some("192.0.2.7".into());
            n.until = Some(at(10).micros());
        }),
        _ => {
            let new = New { comment: Some("mine".into()), ..New::default() };
            hub.writer.change(|c| say::dismiss(c, alert, &new, at(0))).map(|said| said.id)
        }
    };
    said.ok()
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(12))]

    /// Feedback taken back leaves no trace: alerts are what they are in a hub that never heard
    /// it, whatever was found meanwhile, and whichever is taken back first.
    #[test]
    fn undoing_restores_the_scoring_exactly(
        picks in proptest::collection::vec((-5_000i64..100, 0usize..2, 0usize..5, 0usize..5, 0u32..10), 3..14),
        words in proptest::collection::vec((0usize..14, 0usize..12), 1..5),
        backwards in proptest::prelude::any::<bool>(),
    ) {
        let lines: Vec<String> = picks.iter().map(|(time, client, rule, subject, score)| {
            let client = ["192.0.2.7", "192.0.2.8"][*client];
            let rule = ["beacon", "blocklist", "dga", "watched", "new"][*rule];
            let subject =
                ["a.example", "b.a.example", "burst", "203.0.113.9:443/tcp", "203.0.113.9"][*subject];
            format!("{time} {client} {rule} {} {subject}", f64::from(*score) / 10.0)
        }).collect();
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (mut plain, mut told) = (Hub::open(one.path()), Hub::open(two.path()));
        let mut said = Vec::new();
        for (nth, line) in lines.iter().enumerate() {
            let seq = nth as u64 + 1;
            plain.send(1, seq, &[found(line)]);
            told.send(1, seq, &[found(line)]);
            for (_, pick) in words.iter().filter(|(at, _)| *at == nth) {
                said.extend(word(&mut told, *pick));
            }
        }
        if backwards {
            said.reverse();
        }
        said.into_iter().for_each(|id| told.forget(id));
        // A sum may have been silent when it would have folded others; that is all.
        let columns = "concat_ws(' ', id, dedup_key, rule, subject, score, severity, why, reasons, findings)";
        let shown = format!("SELECT string_agg({columns}, chr(10) ORDER BY id) FROM alerts");
        proptest::prop_assert_eq!(told.one::<String>(&shown), plain.one::<String>(&shown));
        let open = "SELECT count(*) FROM feedback WHERE undone IS NULL";
        proptest::prop_assert_eq!(told.one::<i64>(open), 0);
    }
}

/// Times of findings are the store's; a test's clock stands.
#[test]
fn the_clock_of_these_tests_stands() {
    assert_eq!(at(0), Timestamp::from_secs(1_795_444_327));
}
