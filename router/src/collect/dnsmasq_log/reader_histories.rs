//! Histories at random, and stopped anywhere: what must hold whatever the lines say.

use proptest::prelude::*;

use super::tests::{NOW, show};
use super::*;

/// The sample that the restart tests read, in both forms of logging.
pub(in crate::collect::dnsmasq_log) fn sample(extra: bool) -> Vec<String> {
    let mut log = Vec::new();
    for i in 0..12u32 {
        let client = format!("192.0.2.{}", 31 + i % 3);
        let id = if extra { format!("{} {client}/6{i:03} ", i + 1) } else { String::new() };
        let mut line =
            |text: String| log.push(format!("Nov 23 13:00:{:02} dnsmasq[1]: {id}{text}", i * 2));
        line(format!("query[A] n{i}.example from {client}"));
        match i % 4 {
            0 => line(format!("cached n{i}.example is 203.0.113.{i}")),
            1 => line(format!("gravity blocked n{i}.example is 0.0.0.0")),
            2 => {
                line(format!("forwarded n{i}.example to 192.0.2.1"));
                line(format!("reply n{i}.example is <CNAME>"));
                line(format!("reply cdn{i}.example is 203.0.113.{i}"));
                line(format!("reply cdn{i}.example is 203.0.113.{}", i + 100));
            }
            _ => line(format!("forwarded n{i}.example to 192.0.2.1")),
        }
    }
    log
}

#[test]
fn stopped_and_resumed_behind_every_line() {
    for extra in [false, true] {
        let log = sample(extra);
        let read = |from: &mut Reader, lines: &[String]| {
            let mut out = Vec::new();
            lines.iter().for_each(|line| from.line(line.as_bytes(), NOW, &mut out));
            out
        };
        let mut whole_reader = Reader::new(Zone::utc());
        let mut whole = read(&mut whole_reader, &log);
        whole_reader.finish(&mut whole);
        assert_eq!(whole.len(), 12);
        for cut in 0..=log.len() {
            let mut first = Reader::new(Zone::utc());
            let mut found = read(&mut first, &log[..cut]);
            let saved = serde_json::to_vec(&first.state()).unwrap();
            let mut second = Reader::resume(Zone::utc(), serde_json::from_slice(&saved).unwrap());
            found.extend(read(&mut second, &log[cut..]));
            second.finish(&mut found);
            assert_eq!(found, whole, "cut behind line {cut}");
        }
    }
}

fn any_line() -> impl Strategy<Value = String> {
    let name = prop_oneof![Just("a.example"), Just("b.example"), Just("192.0.2.7"), Just("error")];
    let value = prop_oneof![
        Just("203.0.113.1"),
        Just("2001:db8::1"),
        Just("<CNAME>"),
        Just("NODATA"),
        Just("NXDOMAIN"),
        Just("SERVFAIL"),
        Just("some text is text"),
        Just("duplicate"),
    ];
    let source = prop_oneof![
        Just("reply"),
        Just("reply"),
        Just("cached"),
        Just("config"),
        Just("gravity blocked (CNAME)"),
    ];
    let id = prop_oneof![
        Just(String::new()),
        Just(String::new()),
        (1u32..5).prop_map(|i| format!("{i} 192.0.2.3/99 "))
    ];
    let body = prop_oneof![
        (prop_oneof![Just("A"), Just("AAAA"), Just("PTR"), Just("TXT"), Just("ANY")], name.clone())
            .prop_map(|(t, n)| format!("query[{t}] {n} from 192.0.2.3")),
        name.clone().prop_map(|n| format!("forwarded {n} to 192.0.2.1")),
        (source, name, value).prop_map(|(s, n, v)| format!("{s} {n} is {v}")),
        Just("reply query is duplicate".to_owned()),
        Just("possible DNS-rebind attack detected: a.example".to_owned()),
        "[ -~]{0,30}",
    ];
    (0u32..60, 1u32..3, id, body).prop_map(|(second, pid, id, body)| {
        format!("Nov 23 13:00:{second:02} dnsmasq[{pid}]: {id}{body}")
    })
}

proptest! {
    /// Whatever the lines say: as many events as questions, and a restart changes nothing.
    #[test]
    fn any_history(lines in proptest::collection::vec(any_line(), 0..80), cut in 0usize..80) {
        let mut whole = Vec::new();
        let mut reader = Reader::new(Zone::utc());
        lines.iter().for_each(|line| reader.line(line.as_bytes(), NOW, &mut whole));
        reader.finish(&mut whole);
        let queries = usize::try_from(reader.counts().queries).unwrap();
        prop_assert_eq!(whole.iter().filter(|e| matches!(e.body, Body::Dns(_))).count(), queries);

        let cut = cut.min(lines.len());
        let mut found = Vec::new();
        let mut reader = Reader::new(Zone::utc());
        lines[..cut].iter().for_each(|line| reader.line(line.as_bytes(), NOW, &mut found));
        let saved = serde_json::to_vec(&reader.state()).unwrap();
        let mut reader = Reader::resume(Zone::utc(), serde_json::from_slice(&saved).unwrap());
        lines[cut..].iter().for_each(|line| reader.line(line.as_bytes(), NOW, &mut found));
        reader.finish(&mut found);
        prop_assert_eq!(found, whole);
    }

    #[test]
    fn any_bytes(lines in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..120), 0..30)) {
        let mut out = Vec::new();
        let mut reader = Reader::new(Zone::utc());
        lines.iter().for_each(|line| reader.line(line, NOW, &mut out));
        reader.finish(&mut out);
        prop_assert_eq!(reader.counts().lines, lines.len() as u64);
    }
}

/// Serial number and client.
type Who = (u32, u8);

/// A resolver in small: takes questions, answers them in any order, joins equal ones, and
/// writes the log that dnsmasq would write with serial numbers.
#[derive(Default)]
struct Resolver {
    log: Vec<String>,
    serial: u32,
    /// Questions on their way: what, and who waits.
    pending: Vec<((u8, u16), Vec<Who>)>,
}

impl Resolver {
    fn line(&mut self, (id, client): Who, text: &str) {
        let line = format!("Nov 23 13:00:00 dnsmasq[1]: {id} 192.0.2.{client}/40000 {text}");
        self.log.push(line);
    }

    fn ask(&mut self, name: u8, qtype: u16, client: u8, cached: bool) {
        self.serial += 1;
        let who = (self.serial, client);
        let kind = match qtype {
            1 => "A",
            28 => "AAAA",
            _ => "HTTPS",
        };
        self.line(who, &format!("query[{kind}] n{name}.example from 192.0.2.{client}"));
        if cached {
            return self.say(who, "cached", name, qtype);
        }
        if let Some((_, waiting)) = self.pending.iter_mut().find(|(q, _)| *q == (name, qtype)) {
            waiting.push(who);
            return;
        }
        self.line(who, &format!("forwarded n{name}.example to 192.0.2.1"));
        self.pending.push(((name, qtype), vec![who]));
    }

    fn answer(&mut self, which: usize) {
        if self.pending.is_empty() {
            return;
        }
        let ((name, qtype), waiting) = self.pending.remove(which % self.pending.len());
        self.say(waiting[0], "reply", name, qtype);
        for who in waiting.iter().skip(1) {
            self.line(*who, "reply query is duplicate");
        }
    }

    /// What a name is depends on its number: some have aliases, some do not exist.
    fn say(&mut self, who: Who, source: &str, name: u8, qtype: u16) {
        if name == 0 {
            return self.line(who, &format!("{source} n0.example is NXDOMAIN"));
        }
        let mut owner = format!("n{name}.example");
        for alias in 1..=name % 3 {
            self.line(who, &format!("{source} {owner} is <CNAME>"));
            // Aliases are shared, and one of them is also asked for by itself.
            owner = format!("n{}.example", name % 3 + alias);
        }
        let values: &[&str] = match (qtype, name % 4) {
            (1, 0) => &["NODATA-IPv4"],
            (1, _) => &["203.0.113.1", "203.0.113.2"],
            (28, 1) => &["NODATA-IPv6"],
            (28, _) => &["2001:db8::1"],
            (_, 2) => &["<HTTPS>"],
            _ => &["NODATA"],
        };
        values.iter().for_each(|value| self.line(who, &format!("{source} {owner} is {value}")));
    }
}

proptest! {
    /// Without serial numbers the same log gives the same events.
    #[test]
    fn names_and_order_tell_what_serial_numbers_tell(
        steps in proptest::collection::vec((0u8..5, 0usize..3, 31u8..34, 0u8..8), 1..120),
    ) {
        let mut resolver = Resolver::default();
        for (name, kind, client, what) in steps {
            match what {
                0..3 => resolver.answer(usize::from(name) * 7 + kind),
                3 => resolver.ask(name, [1, 28, 65][kind], client, true),
                _ => resolver.ask(name, [1, 28, 65][kind], client, false),
            }
        }
        while !resolver.pending.is_empty() {
            resolver.answer(1);
        }
        let read = |lines: &mut dyn Iterator<Item = String>| {
            let mut out = Vec::new();
            let mut reader = Reader::new(Zone::utc());
            lines.for_each(|line| reader.line(line.as_bytes(), NOW, &mut out));
            reader.finish(&mut out);
            // Which server answered is only known of the question that was forwarded.
            let brief = |e| show(e).replace(" @192.0.2.1", "");
            let mut shown: Vec<String> = out.iter().map(brief).collect();
            shown.sort();
            shown
        };
        let with = read(&mut resolver.log.iter().cloned());
        let plain = |line: &String| {
            let (stamp, rest) = line.split_once("]: ").unwrap();
            format!("{stamp}]: {}", rest.splitn(3, ' ').nth(2).unwrap())
        };
        let kept = resolver.log.iter().filter(|line| !line.ends_with("duplicate"));
        let without = read(&mut kept.map(plain));
        prop_assert_eq!(with, without);
    }
}
