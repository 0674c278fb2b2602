//! What becomes of several detectors' words, of the network's and of people's.

use super::super::feedback::{self, Kind, New};
use super::*;

const AT: Timestamp = Timestamp::from_secs(1_795_444_327);
const WHO: &str = "00:00:5e:00:53:07";

/// `rule subject score`, each one finding at [`AT`].
fn parts(lines: &[&str]) -> Vec<Part> {
    let part = |line: &&str| {
        let words: Vec<&str> = line.split(' ').collect();
        let key = (words[0].to_owned(), words[1].to_owned());
        Part::of(&key, AT, words[2].parse().unwrap(), words[1])
    };
    lines.iter().map(part).collect()
}

fn verdict(lines: &[&str], facts: Facts, feedback: &[Feedback]) -> Verdict {
    let parts = parts(lines);
    judge(&parts.iter().collect::<Vec<_>>(), WHO, &facts, feedback)
}

/// Score in thousandths, leading rule, silence.
#[track_caller]
fn check(lines: &[&str], facts: Facts, feedback: &[Feedback], expected: (u32, &str, &str)) {
    let got = verdict(lines, facts, feedback);
    let silence = got.silence.map_or("", Silence::as_str);
    let score = (got.score * 1_000.0).round() as u32;
    assert_eq!((score, got.rule.as_str(), silence), expected, "{got:?}");
}

fn network(seen_by: u64, devices: u64) -> Facts {
    Facts { seen_by, devices, ..Facts::default() }
}

fn feedback(kind: Kind, change: impl FnOnce(&mut New)) -> Feedback {
    let mut new = New { comment: Some("mine".into()), ..New::default() };
    change(&mut new);
    Feedback { id: 1, ..feedback::check(kind, &new).unwrap() }
}

#[test]
fn one_detector_says_what_it_says() {
    check(&["dga a.example 0.7"], Facts::default(), &[], (700, "dga", ""));
    check(&["no-such-rule x 0.4"], Facts::default(), &[], (400, "no-such-rule", ""));
    check(&["dga a.example 0"], Facts::default(), &[], (0, "dga", ""));
    check(&[], Facts::default(), &[], (0, "", ""));
}

#[test]
fn detectors_that_look_at_other_things_confirm_each_other() {
    let beacon = "beacon a.example 0.7";
    // (1 - 0.7) * 0.4 * weight * score.
    check(&[beacon, "dga a.example 0.5"], Facts::default(), &[], (742, "beacon", ""));
    check(&[beacon, "blocklist a.example 0.5"], Facts::default(), &[], (760, "beacon", ""));
    check(
        &[beacon, "blocklist a.example 0.5", "dga a.example 0.5"],
        Facts::default(),
        &[],
        (794, "beacon", ""),
    );
    // One family has one voice, one rule with two subjects too.
    check(&[beacon, "long a.example 0.7"], Facts::default(), &[], (700, "beacon", ""));
    check(&[beacon, "beacon b.a.example 0.6"], Facts::default(), &[], (700, "beacon", ""));
    check(&["blocklist a.example 1", beacon], Facts::default(), &[], (1_000, "blocklist", ""));
}

/// `rule subject score`, those with a `+` found while the hub was learning.
#[track_caller]
fn check_learning(lines: &[&str], expected: (u32, &str, &str)) {
    let plain: Vec<&str> = lines.iter().map(|line| line.trim_end_matches('+')).collect();
    let mut parts = parts(&plain);
    for (part, line) in parts.iter_mut().zip(lines) {
        part.learning = line.ends_with('+');
    }
    let got = judge(&parts.iter().collect::<Vec<_>>(), WHO, &Facts::default(), &[]);
    let silence = got.silence.map_or("", Silence::as_str);
    assert_eq!(((got.score * 1e3).round() as u32, got.rule.as_str(), silence), expected, "{got:?}");
}

#[test]
fn what_was_found_while_learning_is_kept_unless_it_is_known_bad() {
    check_learning(&["beacon a.example 0.7+"], (700, "beacon", "learning"));
    check_learning(&["beacon a.example 0.7+", "dga a.example 0.5+"], (700, "beacon", "learning"));
    check_learning(&["blocklist a.example 0.6+"], (600, "blocklist", ""));
    check_learning(&["authority a.example 0.6+"], (600, "authority", ""));
    check_learning(&["blocklist a.example 0.6+", "beacon a.example 0.7+"], (600, "blocklist", ""));
    check_learning(&["beacon a.example 0.7+", "dga a.example 0.5"], (500, "dga", ""));
    check_learning(&["watched a.example 0.3+"], (0, "watched", "note"));
    check_learning(&["watched a.example 0.3+", "dga a.example 0.5+"], (500, "dga", "learning"));
    // Whatever the order in which findings come: one outside of learning is enough.
    let [mut first, second] = [true, false].map(|learning| Part {
        learning,
        ..Part::of(&("dga".into(), "a.example".into()), AT, 0.5, "why")
    });
    let mut other = second.clone();
    other.merge(first.clone());
    first.merge(second);
    assert!(!first.learning && !other.learning);
}

#[test]
fn what_the_network_knows_counts() {
    let dga = &["dga a.example 0.6"];
    check(dga, network(1, 20), &[], (650, "dga", ""));
    check(dga, network(2, 20), &[], (600, "dga", ""));
    check(dga, network(10, 20), &[], (450, "dga", ""));
    check(dga, network(3, 4), &[], (600, "dga", ""));
    check(&["new-domain a.example 0.1"], network(1, 20), &[], (100, "new-domain", ""));
    let since = |seconds: i64, learned| Facts {
        since: Some(Timestamp::from_secs(AT.secs() - seconds)),
        learned,
        ..network(2, 20)
    };
    check(dga, since(60, true), &[], (650, "dga", ""));
    check(dga, since(60, false), &[], (600, "dga", ""));
    check(dga, since(86_400, true), &[], (600, "dga", ""));
    // Known bad is bad, however many go there.
    check(&["blocklist a.example 0.9"], network(20, 20), &[], (900, "blocklist", ""));
    check(
        &["dga a.example 0.95", "blocklist a.example 0.9"],
        network(20, 20),
        &[],
        (900, "dga", ""),
    );
}

#[test]
fn a_score_reads_as_people_add_it_up() {
    let got = verdict(&["dga a.example 0.8"], network(1, 20), &[]);
    assert_eq!(got.score.to_string(), "0.85");
}

#[test]
fn a_watched_name_is_a_note_until_something_follows() {
    let watched = "watched ai.example 0.25";
    check(&[watched], Facts::default(), &[], (0, "watched", "note"));
    check(&[watched, "dga ai.example 0.5"], Facts::default(), &[], (500, "dga", ""));
    let mut part = parts(&[watched]).remove(0);
    let text = "connected to 203.0.113.9 port 443 0.2 s later".to_owned();
    part.followed = Some(Followed { at: AT, text });
    let got = judge(&[&part], WHO, &Facts::default(), &[]);
    assert_eq!((got.score, got.silence), (0.25, None));
    assert!(got.why.contains("connected to 203.0.113.9 port 443"), "{}", got.why);
    let note = verdict(&[watched], Facts::default(), &[]);
    assert!(note.why.contains("asked for, not connected"), "{}", note.why);
    assert!(note.reasons.iter().any(|r| r.contains("within 5 minutes")), "{:?}", note.reasons);
}

#[test]
fn what_is_allowed_is_not_told() {
    let beacon = &["beacon www.a.example 0.7"];
    let allow = |change: fn(&mut New)| feedback(Kind::Allow, change);
    #[track_caller]
    fn quiet(lines: &[&str], by: Feedback) {
        check(lines, Facts::default(), &[by], (0, "beacon", "allowed"));
    }
    #[track_caller]
    fn told(lines: &[&str], by: Feedback) {
        check(lines, Facts::default(), &[by], (700, "beacon", ""));
    }
    quiet(beacon, allow(|n| n.domain = Some("a.example".into())));
    quiet(beacon, allow(|n| n.domain = Some("*.A.example.".into())));
    quiet(beacon, allow(|n| n.rule = Some("beacon".into())));
    quiet(beacon, allow(|n| n.device = Some("00-00-5E-00-53-07".into())));
    quiet(&["beacon 203.0.113.9:443/tcp 0.7"], allow(|n| n.ip = Some("203.0.113.0/24".into())));
    quiet(&["beacon [2001:db8::1]:443/tcp 0.7"], allow(|n| n.ip = Some("2001:db8::/32".into())));
    told(beacon, allow(|n| n.domain = Some("b.a.example".into())));
    told(beacon, allow(|n| n.domain = Some("www.a.example.b.example".into())));
    told(&["beacon xa.example 0.7"], allow(|n| n.domain = Some("a.example".into())));
    told(beacon, allow(|n| n.rule = Some("dga".into())));
    told(beacon, allow(|n| n.device = Some("192.0.2.7".into())));
    told(beacon, allow(|n| n.ip = Some("203.0.113.9".into())));
    // All that is named must fit.
    told(beacon, allow(|n| (n.domain, n.rule) = (Some("a.example".into()), Some("dga".into()))));
    // It ends for what is seen from then on.
    let until = |seconds: i64| {
        feedback(Kind::Allow, |n| {
            n.rule = Some("beacon".into());
            n.until = Some(AT.micros() + seconds * 1_000_000);
        })
    };
    quiet(beacon, until(1));
    told(beacon, until(0));
    told(beacon, until(-1));
}

#[test]
fn known_bad_is_silent_only_where_its_rule_is_named() {
    let bad = &["blocklist a.example 0.9"];
    let by_domain = feedback(Kind::Allow, |n| n.domain = Some("a.example".into()));
    check(bad, Facts::default(), std::slice::from_ref(&by_domain), (900, "blocklist", ""));
    let both = &["blocklist a.example 0.5", "beacon a.example 0.9"];
    check(both, Facts::default(), &[by_domain], (500, "blocklist", ""));
    let named = feedback(Kind::Allow, |n| {
        (n.domain, n.rule) = (Some("a.example".into()), Some("blocklist".into()));
    });
    check(bad, Facts::default(), &[named], (0, "blocklist", "allowed"));
}

#[test]
fn a_false_positive_is_one_here_and_a_doubt_elsewhere() {
    let fp = |device: &str| {
        feedback(Kind::FalsePositive, |n| {
            (n.domain, n.device) = (Some("a.example".into()), Some(device.into()));
        })
    };
    check(&["dga a.example 0.8"], Facts::default(), &[fp(WHO)], (0, "dga", "fp"));
    check(&["dga a.example 0.8"], Facts::default(), &[fp("192.0.2.9")], (400, "dga", ""));
    check(&["blocklist a.example 0.8"], Facts::default(), &[fp(WHO)], (800, "blocklist", ""));
    check(&["dga b.example 0.8"], Facts::default(), &[fp(WHO)], (800, "dga", ""));
}

#[test]
fn what_makes_no_sense_is_refused() {
    #[track_caller]
    fn check(change: impl FnOnce(&mut New), expected: &str) {
        let mut new = New::default();
        change(&mut new);
        let error = feedback::check(Kind::Allow, &new).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    check(|_| (), "name a domain, an address, a device or a rule");
    check(|n| n.domain = Some(String::new()), "is no domain");
    check(|n| n.ip = Some("a.example".into()), "is no address and no network");
    check(|n| n.rule = Some("B L".into()), "is no rule");
    check(|n| n.rule = Some("blocklist".into()), "say why it may be silent, with --comment");
    check(
        |n| (n.rule, n.comment) = (Some("blocklist".into()), Some("  ".into())),
        "with --comment",
    );
    check(|n| (n.domain, n.ip) = (Some("a.example".into()), Some("192.0.2.1".into())), "give two");
    check(
        |n| (n.rule, n.comment) = (Some("dga".into()), Some("x".repeat(5_000))),
        "at most 4096 bytes",
    );
}

proptest::proptest! {
    /// Whatever is said, the score stays a score, order does not matter, and known bad is
    /// never below its own word.
    #[test]
    fn a_score_is_a_score(
        picks in proptest::collection::vec((0usize..8, 0usize..3, 0u32..=100), 1..8),
        seen_by in 0u64..30,
        devices in 0u64..30,
        turn in 0usize..8,
    ) {
        const RULES: [&str; 8] =
            ["beacon", "blocklist", "dga", "direct-ip", "exfil", "new-domain", "watched", "else"];
        let lines: Vec<String> = picks.iter().map(|(rule, subject, score)| {
            let subject = ["a.example", "b.a.example", "c.a.example"][*subject];
            format!("{} {subject} {}", RULES[*rule], f64::from(*score) / 100.0)
        }).collect();
        let mut parts = parts(&lines.iter().map(String::as_str).collect::<Vec<_>>());
        let facts = network(seen_by, devices);
        let words = [feedback(Kind::FalsePositive, |n| n.domain = Some("b.a.example".into()))];
        let judged = |parts: &[Part]| judge(&parts.iter().collect::<Vec<_>>(), WHO, &facts, &words);
        let whole = judged(&parts);
        proptest::prop_assert!((0.0..=1.0).contains(&whole.score), "{:?}", whole);
        let bad = parts.iter().filter(|p| p.rule == "blocklist").map(|p| p.score).fold(0.0, f64::max);
        proptest::prop_assert!(whole.score >= bad, "{:?} below {}", whole, bad);
        let turn = turn % parts.len();
        parts.rotate_left(turn);
        proptest::prop_assert_eq!(judged(&parts), whole);
    }

    /// Advice never lowers, and raises to the next severity at most, never to critical.
    #[test]
    fn advice_goes_up_one_step_at_most(
        score in 0u32..=100,
        advised in 0u32..=100,
        rule in 0usize..4,
        devices in 0u64..30,
    ) {
        let rule = ["beacon", "blocklist", "dga", "watched"][rule];
        let line = format!("{rule} a.example {}", f64::from(score) / 100.0);
        let advice = format!("second-opinion a.example {}", f64::from(advised) / 100.0);
        let before = verdict(&[&line], network(1, devices), &[]);
        let after = verdict(&[&advice, &line], network(1, devices), &[]);
        let step = |v: &Verdict| {
            let severity = Severity::from_score(v.score);
            Severity::ALL.iter().position(|s| *s == severity).unwrap()
        };
        proptest::prop_assert!(after.score >= before.score);
        proptest::prop_assert!(step(&after) <= step(&before) + 1);
        if after.score > before.score {
            proptest::prop_assert!(Severity::from_score(after.score) < Severity::Critical);
        }
        proptest::prop_assert_eq!(&after.rule, &before.rule);
        proptest::prop_assert_eq!(after.silence, before.silence);
    }

    /// Findings of one part merge to the same part in any order.
    #[test]
    fn merging_commutes(
        picks in proptest::collection::vec((0i64..5, 0u32..4, 0usize..3), 2..8),
        turn in 0usize..8,
    ) {
        let key = ("dga".to_owned(), "a.example".to_owned());
        let one = |(time, score, why): &(i64, u32, usize)| {
            Part::of(&key, Timestamp::from_secs(*time), f64::from(*score), ["x", "y", "z"][*why])
        };
        let merged = |picks: &[(i64, u32, usize)]| {
            let mut all = picks.iter().map(one);
            let mut whole = all.next().unwrap();
            all.for_each(|part| whole.merge(part));
            whole
        };
        let mut turned = picks.clone();
        turned.rotate_left(turn % picks.len());
        proptest::prop_assert_eq!(merged(&picks), merged(&turned));
    }
}
