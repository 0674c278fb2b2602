//! The question, the connection and the program behind it as one: which DNS answer a
//! connection followed, and which program made it.
//!
//! In: records of connections, of questions and of what agents on hosts told, in any order.
//! Out: for each connection the question and the program that belong to it. Pure.
//!
//! A question belongs to the first connection of the same device (its MAC, or address) to the
//! name it asked for, within [`ASKED_WITHIN`] and up to [`SLACK`] after its begin: two sensors'
//! clocks differ. A program belongs to the connection with the same protocol, addresses and
//! ports that began nearest to it, within [`SAME_WITHIN`]: ports are used again.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use agentmon_core::Timestamp;

use super::super::sheet::Row;
use crate::correlate::SLACK;

/// An answer that was used later than this is told as an age.
const ASKED_WITHIN: Duration = Duration::from_secs(60);
/// An agent may find a connection a while after it began.
const SAME_WITHIN: Duration = Duration::from_secs(120);

/// What belongs to each connection, by position.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Woven {
    pub(super) asked: HashMap<usize, usize>,
    pub(super) owner: HashMap<usize, usize>,
}

/// When a connection began, as well as it is known.
pub(super) fn began(row: &Row<'_>) -> Timestamp {
    row.time("start").or_else(|| row.time("time")).unwrap_or_default()
}

/// Joins them.
pub(super) fn weave(flows: &[Row<'_>], dns: &[Row<'_>], owners: &[Row<'_>]) -> Woven {
    let mut order: Vec<(Timestamp, usize)> =
        flows.iter().enumerate().map(|(at, row)| (began(row), at)).collect();
    order.sort_unstable();
    Woven { asked: questions(flows, &order, dns), owner: programs(flows, &order, owners) }
}

fn questions(
    flows: &[Row<'_>],
    order: &[(Timestamp, usize)],
    dns: &[Row<'_>],
) -> HashMap<usize, usize> {
    let mut known: HashMap<(&str, &str), Vec<(Timestamp, usize)>> = HashMap::new();
    for (at, row) in dns.iter().enumerate() {
        let Some(time) = row.time("time") else { continue };
        // A device may ask by one address and connect by another.
        for who in [row.text("mac"), row.text("client")].into_iter().filter(|who| !who.is_empty()) {
            known.entry((who, row.text("name"))).or_default().push((time, at));
        }
    }
    known.values_mut().for_each(|questions| questions.sort_unstable());
    let (mut asked, mut used) = (HashMap::new(), HashSet::new());
    for (began, at) in order {
        let Some(flow) = flows.get(*at).filter(|flow| !flow.text("name").is_empty()) else {
            continue;
        };
        let of = |who| known.get(&(who, flow.text("name"))).map(Vec::as_slice).unwrap_or_default();
        let questions = of(flow.text("mac")).iter().chain(of(flow.text("src")));
        let fits = |(time, nth): &&(Timestamp, usize)| {
            let answers = dns.get(*nth).map(|row| row.value("answers").clone());
            let has = answers.as_ref().and_then(|a| a.as_array()).is_some_and(|answers| {
                answers.iter().any(|answer| answer.as_str() == Some(flow.text("dst")))
            });
            has && !used.contains(nth)
                && time.minus(SLACK) <= *began
                && began.since(*time) <= ASKED_WITHIN
        };
        if let Some((_, nth)) = questions.filter(fits).max() {
            used.insert(*nth);
            asked.insert(*at, *nth);
        }
    }
    asked
}

/// What finds a connection again, whoever saw it.
fn tuple<'a>(row: &Row<'a>) -> (&'a str, &'a str, u64, &'a str, u64) {
    let port = |key| row.number(key).unwrap_or_default();
    (row.text("proto"), row.text("src"), port("sport"), row.text("dst"), port("dport"))
}

fn programs(
    flows: &[Row<'_>],
    order: &[(Timestamp, usize)],
    owners: &[Row<'_>],
) -> HashMap<usize, usize> {
    let mut known: HashMap<_, Vec<usize>> = HashMap::new();
    for (at, row) in owners.iter().enumerate() {
        known.entry(tuple(row)).or_default().push(at);
    }
    let mut found = HashMap::new();
    for (time, at) in order {
        let Some(flow) = flows.get(*at) else { continue };
        let same = known.get(&tuple(flow)).map(Vec::as_slice).unwrap_or_default();
        let near = same.iter().filter_map(|nth| {
            let owner = owners.get(*nth)?;
            let apart = began(owner).distance(*time);
            // Of a connection whose begin nobody saw, any time within its life will do.
            let within =
                began(owner) <= *time && owner.time("time").is_some_and(|end| end >= *time);
            (apart <= SAME_WITHIN || within).then_some((apart, *nth))
        });
        if let Some((_, nth)) = near.min() {
            found.insert(*at, nth);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::super::sheet::{Kind, Record, Sheet};
    use super::*;

    fn at(seconds: u64) -> Value {
        json!(Timestamp::from_secs(1_795_444_000 + i64::try_from(seconds).unwrap()).to_string())
    }

    fn sheet(keys: &[&str]) -> Sheet {
        Sheet::new(&keys.iter().map(|key| (*key, Kind::Plain)).collect::<Vec<_>>(), &[])
    }

    /// `begin src dst sport name`
    fn flow(line: &str) -> Record {
        let w: Vec<&str> = line.split(' ').collect();
        let name = if w[4] == "-" { Value::Null } else { json!(w[4]) };
        let start = at(w[0].parse().unwrap());
        let sport: u64 = w[3].parse().unwrap();
        let mac = if w[1] == "2001:db8::7" { json!("m7") } else { Value::Null };
        let values = vec![
            start.clone(),
            start,
            json!("tcp"),
            json!(w[1]),
            mac,
            json!(sport),
            json!(w[2]),
            json!(443),
            name,
        ];
        Record { values }
    }
    const FLOW: &[&str] =
        &["time", "start", "proto", "src", "mac", "sport", "dst", "dport", "name"];

    /// `time client name answer`
    fn dns(line: &str) -> Record {
        let w: Vec<&str> = line.split(' ').collect();
        let mac = if w[1] == "192.0.2.7" { json!("m7") } else { Value::Null };
        let answers = json!(["cdn.example.net", w[3]]);
        Record { values: vec![at(w[0].parse().unwrap()), json!(w[1]), mac, json!(w[2]), answers] }
    }
    const DNS: &[&str] = &["time", "client", "mac", "name", "answers"];

    fn rows<'a>(sheet: &'a Sheet, records: &'a [Record]) -> Vec<Row<'a>> {
        records.iter().map(|record| sheet.row(record)).collect()
    }

    /// For each connection the question and the owner, by position.
    #[track_caller]
    fn check(flows: &[&str], questions: &[&str], owners: &[&str], expected: &[(i64, i64)]) {
        let (sf, sd) = (sheet(FLOW), sheet(DNS));
        let flows: Vec<_> = flows.iter().map(|l| flow(l)).collect();
        let questions: Vec<_> = questions.iter().map(|l| dns(l)).collect();
        let owners: Vec<_> = owners.iter().map(|l| flow(l)).collect();
        let woven = weave(&rows(&sf, &flows), &rows(&sd, &questions), &rows(&sf, &owners));
        let find = |map: &HashMap<usize, usize>, nth: usize| {
            map.get(&nth).map_or(-1, |found| i64::try_from(*found).unwrap())
        };
        let got: Vec<_> =
            (0..flows.len()).map(|n| (find(&woven.asked, n), find(&woven.owner, n))).collect();
        assert_eq!(got, expected);
    }

    const A: &str = "10 192.0.2.7 203.0.113.1 4001 a.example";

    #[test]
    fn a_question_belongs_to_the_first_connection_after_it() {
        check(&[A], &["10 192.0.2.7 a.example 203.0.113.1"], &[], &[(0, -1)]);
        check(&[A], &["12 192.0.2.7 a.example 203.0.113.1"], &[], &[(0, -1)]);
        check(&[A], &["13 192.0.2.7 a.example 203.0.113.1"], &[], &[(-1, -1)]);
        check(
            &["80 192.0.2.7 203.0.113.1 1 a.example"],
            &["19 192.0.2.7 a.example 203.0.113.1"],
            &[],
            &[(-1, -1)],
        );
        check(&[A], &["9 192.0.2.8 a.example 203.0.113.1"], &[], &[(-1, -1)]);
        check(&[A], &["9 192.0.2.7 b.example 203.0.113.1"], &[], &[(-1, -1)]);
        check(&[A], &["9 192.0.2.7 a.example 203.0.113.2"], &[], &[(-1, -1)]);
        // The latest one; once.
        check(
            &["11 192.0.2.7 203.0.113.1 2 a.example", A],
            &["3 192.0.2.7 a.example 203.0.113.1", "9 192.0.2.7 a.example 203.0.113.1"],
            &[],
            &[(0, -1), (1, -1)],
        );
        // Asked by IPv4, connected by IPv6: the same device.
        check(
            &["10 2001:db8::7 2001:db8:1::1 1 a.example"],
            &["10 192.0.2.7 a.example 2001:db8:1::1"],
            &[],
            &[(0, -1)],
        );
    }

    #[test]
    fn a_program_owns_the_connection_that_began_when_it_did() {
        check(&[A], &[], &["11 192.0.2.7 203.0.113.1 4001 -"], &[(-1, 0)]);
        check(&[A], &[], &["11 192.0.2.7 203.0.113.1 4002 -"], &[(-1, -1)]);
        check(&[A], &[], &["11 192.0.2.8 203.0.113.1 4001 -"], &[(-1, -1)]);
        check(&[A], &[], &["131 192.0.2.7 203.0.113.1 4001 -"], &[(-1, -1)]);
        // The port is used again.
        check(
            &[A, "90 192.0.2.7 203.0.113.1 4001 a.example"],
            &[],
            &["91 192.0.2.7 203.0.113.1 4001 -", "11 192.0.2.7 203.0.113.1 4001 -"],
            &[(-1, 1), (-1, 0)],
        );
    }
}
