//! What becomes of findings: folded or told, and the same in whatever portions they come.

use std::collections::BTreeSet;

use agentmon_core::event::Mac;

use super::*;

const MAC: Mac = Mac([0, 0, 0x5e, 0, 0x53, 7]);

/// `seconds client rule subject score`
fn seen(text: &str) -> Seen {
    let mut words = text.splitn(5, ' ');
    let mut word = || words.next().unwrap();
    let (time, client, rule) = (word().parse().unwrap(), word(), word());
    let (score, subject) = (word().parse().unwrap(), word());
    let (client, mac) = match client.strip_suffix('+') {
        Some(client) => (client, Some(MAC)),
        None => (client, None),
    };
    Seen {
        learning: false,
        time: Timestamp::from_secs(1_795_444_327).plus(std::time::Duration::from_secs(time)),
        sensor: 1,
        sensor_time: None,
        mac,
        there_since: None,
        finding: Finding {
            rule: rule.into(),
            subject: subject.into(),
            client: client.parse().ok(),
            mac,
            score,
            why: subject.into(),
            evidence: Vec::new(),
        },
    }
}

/// What stands in the file between two transactions, read again.
fn reopened(book: Book) -> Book {
    let mut again = Book::default();
    for alert in book.into_alerts() {
        let (was, changed, touched) = (alert.status().to_owned(), false, BTreeSet::new());
        let acked = alert.still_acked().is_some();
        let acked = alert.acked.filter(|_| acked);
        again.add(book::Alert { acked, was, changed, touched, ..alert });
    }
    again
}

/// `subject status`, with what it is folded into, by id; and what was told, by id.
fn play(found: &[Seen], portion: usize) -> (Vec<String>, Vec<i64>) {
    let (mut book, mut next, mut told) = (Book::default(), 1, Vec::new());
    for part in found.chunks(portion.max(1)) {
        for seen in part {
            book.count(seen, &mut next);
        }
        told.extend(book.news().into_iter().map(|news| news.id));
        book = reopened(book);
    }
    let alerts = book.into_alerts();
    let shown = alerts.iter().map(|a| {
        let into = a.folded.map_or_else(String::new, |f| format!(" {}", f.into));
        format!("{} {}{into}", a.verdict.subject, a.status())
    });
    (shown.collect(), told)
}

/// In one transaction: told once. In many: the same alerts, though what came before the
/// sum had been told.
#[track_caller]
fn check(lines: &[&str], alerts: &[&str], told_at_once: &[i64]) {
    let found: Vec<_> = lines.iter().map(|line| seen(line)).collect();
    assert_eq!(
        play(&found, usize::MAX),
        (alerts.iter().map(|a| (*a).to_owned()).collect(), told_at_once.to_vec())
    );
    assert_eq!(play(&found, 1).0, alerts);
}

#[test]
fn a_sum_takes_what_came_before_and_what_comes_after() {
    check(
        &[
            "0 192.0.2.7 dga 0.4 a.example",
            "9 192.0.2.7 dga 0.7 burst",
            "9 192.0.2.7 dga 0.2 b.example",
        ],
        &["a.example folded 2", "burst open", "b.example folded 2"],
        &[2],
    );
}

#[test]
fn only_what_it_covers() {
    check(
        &[
            "0 192.0.2.7 firewall 0.3 192.0.2.130:23/tcp",
            "0 192.0.2.7 firewall 0.3 192.0.2.131:23/tcp",
            "0 192.0.2.8 firewall 0.3 192.0.2.130:23/tcp",
            "1 192.0.2.7 firewall 0.7 many ports of 192.0.2.130",
        ],
        &[
            "192.0.2.130:23/tcp folded 4",
            "192.0.2.131:23/tcp open",
            "192.0.2.130:23/tcp open",
            "many ports of 192.0.2.130 open",
        ],
        &[2, 3, 4],
    );
    // What another rule says too is told besides.
    check(
        &[
            "0 192.0.2.7 firewall 0.3 192.0.2.130:23/tcp",
            "1 192.0.2.7 firewall 0.7 many ports of 192.0.2.130",
            "2 192.0.2.7 direct-ip 0.5 192.0.2.130:23/tcp",
        ],
        &["192.0.2.130:23/tcp open", "many ports of 192.0.2.130 open"],
        &[1, 2],
    );
}

#[test]
fn what_was_folded_into_a_sum_follows_it_into_a_greater_one() {
    check(
        &[
            "0 192.0.2.7 dga 0.4 a.example",
            "5 192.0.2.7 dga 0.45 unknown names",
            "9 192.0.2.7 dga 0.7 burst",
        ],
        &["a.example folded 3", "unknown names folded 3", "burst open"],
        &[3],
    );
}

#[test]
fn far_apart_in_time_are_two_things() {
    check(
        &[
            "0 192.0.2.7 dga 0.4 a.example",
            "3601 192.0.2.7 dga 0.7 burst",
            "7202 192.0.2.7 dga 0.4 b.example",
        ],
        &["a.example open", "burst open", "b.example open"],
        &[1, 2, 3],
    );
}

#[test]
fn what_is_worse_than_the_sum_is_told() {
    check(
        &["0 192.0.2.7 dga 0.9 a.example", "1 192.0.2.7 dga 0.7 burst"],
        &["a.example open", "burst open"],
        &[1, 2],
    );
    check(
        &[
            "0 192.0.2.7 dga 0.4 a.example",
            "1 192.0.2.7 dga 0.7 burst",
            "2 192.0.2.7 dga 0.9 a.example",
        ],
        &["a.example open", "burst open"],
        &[1, 2],
    );
    // It gets worse, but so does the sum.
    check(
        &[
            "0 192.0.2.7 dga 0.4 a.example",
            "1 192.0.2.7 dga 0.4 burst",
            "2 192.0.2.7 dga 0.7 burst",
            "3 192.0.2.7 dga 0.7 a.example",
        ],
        &["a.example folded 2", "burst open"],
        &[2],
    );
}

#[test]
fn a_device_is_itself_before_and_after_it_is_known() {
    check(
        &[
            "0 192.0.2.7 dga 0.4 a.example",
            "1 192.0.2.7+ dga 0.7 burst",
            "2 192.0.2.9+ dga 0.4 b.example",
        ],
        &["a.example folded 2", "burst open", "b.example folded 2"],
        &[2],
    );
}

#[test]
fn findings_about_nobody_are_not_folded() {
    check(
        &["0 - firewall 0.1 inbound", "1 - firewall 0.7 fan-out"],
        &["inbound open", "fan-out open"],
        &[1, 2],
    );
}

proptest::proptest! {
    /// However findings are divided into transactions, the alerts are the same; each
    /// finding has its alert, and nothing is folded into what is folded itself.
    #[test]
    fn portions_do_not_matter(
        picks in proptest::collection::vec((0u64..5_000, 0usize..3, 0usize..5, 0usize..3), 1..40),
        portion in 1usize..10,
    ) {
        let found: Vec<_> = picks.iter().map(|(time, client, subject, score)| {
            let client = ["192.0.2.7", "192.0.2.7+", "192.0.2.8"][*client];
            let subject = ["burst", "unknown names", "a.example", "b.example", "c.example"][*subject];
            seen(&format!("{time} {client} dga {} {subject}", [0.3, 0.5, 0.7][*score]))
        }).collect();
        let whole = play(&found, usize::MAX).0;
        proptest::prop_assert_eq!(&play(&found, portion).0, &whole);
        for alert in &whole {
            if let Some((_, into)) = alert.split_once(" folded ") {
                let into: usize = into.parse().unwrap();
                let sum = &whole[into - 1];
                proptest::prop_assert!(!sum.contains(" folded"), "{} into {}", alert, sum);
            }
        }
    }
}

#[test]
fn what_sums_of_all_its_rules_tell_is_folded() {
    let both = [
        "0 192.0.2.7 firewall 0.3 192.0.2.130:23/tcp",
        "0 192.0.2.7 direct-ip 0.5 192.0.2.130:23/tcp",
        "1 192.0.2.7 direct-ip 0.6 many addresses",
    ];
    check(&both, &["192.0.2.130:23/tcp open", "many addresses open"], &[1, 2]);
    let three = [both[0], both[1], both[2], "2 192.0.2.7 firewall 0.7 fan-out"];
    let folded = ["192.0.2.130:23/tcp folded 2", "many addresses open", "fan-out open"];
    check(&three, &folded, &[2, 3]);
    // The sums first.
    let turned =
        [three[3], three[2], three[0], three[1], "3 192.0.2.7 firewall 0.3 192.0.2.130:23/tcp"];
    let folded = ["fan-out open", "many addresses open", "192.0.2.130:23/tcp folded 1"];
    check(&turned, &folded, &[1, 2]);
    // A third rule says more.
    let more = [three[0], three[1], three[2], three[3], "4 192.0.2.7 blocklist 0.3 192.0.2.130"];
    check(&more, &["192.0.2.130:23/tcp open", "many addresses open", "fan-out open"], &[1, 2, 3]);
}

#[test]
fn detectors_that_agree_make_one_alert() {
    check(
        &[
            "0 192.0.2.7 beacon 0.5 www.a.example",
            "1 192.0.2.7 blocklist 0.7 a.example",
            "2 192.0.2.7 long 0.4 www.a.example",
            "3 192.0.2.7 beacon 0.5 203.0.113.9:443/tcp",
            "4 192.0.2.7 blocklist 0.9 203.0.113.9",
            "5 192.0.2.8 beacon 0.5 www.a.example",
        ],
        &["a.example open", "203.0.113.9 open", "www.a.example open"],
        &[1, 2, 3],
    );
}

/// What stands after these findings: by key, everything a person sees but the number.
fn state(found: &[Seen]) -> Vec<String> {
    let (mut book, mut next) = (Book::default(), 1);
    for seen in found {
        book.count(seen, &mut next);
    }
    let mut shown: Vec<String> = book
        .into_alerts()
        .iter()
        .map(|a| {
            let parts: Vec<_> = a.parts.values().collect();
            format!(
                "{} {} {:?} {} {} {} {parts:?}",
                a.key,
                a.status(),
                a.verdict,
                a.first,
                a.last,
                a.findings
            )
        })
        .collect();
    shown.sort();
    shown
}

proptest::proptest! {
    /// The same findings in any order make the same alerts.
    #[test]
    fn order_does_not_matter(
        picks in proptest::collection::vec((0u64..3_000, 0usize..2, 0usize..5, 0usize..5, 0u32..10), 1..25),
        turn in 0usize..25,
    ) {
        let found: Vec<_> = picks.iter().map(|(time, client, rule, subject, score)| {
            let client = ["192.0.2.7+", "192.0.2.8"][*client];
            let rule = ["beacon", "blocklist", "exfil", "watched", "new-domain"][*rule];
            let subject =
                ["a.example", "b.a.example", "c.example", "203.0.113.9:443/tcp", "203.0.113.9"][*subject];
            seen(&format!("{time} {client} {rule} {} {subject}", f64::from(*score) / 10.0))
        }).collect();
        let whole = state(&found);
        let mut turned: Vec<_> = found;
        let turn = turn % turned.len();
        turned.rotate_left(turn);
        proptest::prop_assert_eq!(&state(&turned), &whole);
        turned.reverse();
        proptest::prop_assert_eq!(&state(&turned), &whole);
    }
}
