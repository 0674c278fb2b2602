//! Tools that hide data in names, and ordinary traffic of the same shape.
//!
//! The tools are made up after the public documentation of the kinds there are: which part of
//! the name carries what, which types, how long. Rates and sizes vary with the seed.

use super::*;
use crate::event::{Answer, DnsStatus};
use crate::tier0::Tier0Config;
use crate::tier0::tests::{Script, dns, flow};
use crate::time::Timestamp;

const CLIENT: &str = "192.168.1.5";
const A: u16 = 1;
const NULL: u16 = 10;
const CNAME: u16 = 5;
const MX: u16 = 15;
const TXT: u16 = 16;
const KEY: u16 = 25;
const AAAA: u16 = 28;
const SRV: u16 = 33;

const HEX: &[u8] = b"0123456789abcdef";
const BASE32: &[u8] = b"abcdefghijklmnopqrstuvwxyz234567";
const BASE64: &[u8] = b"abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz0123456789-_";

/// splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % bound
    }
    fn text(&mut self, alphabet: &[u8], length: usize) -> String {
        let mut one = || char::from(alphabet[self.below(alphabet.len() as u64) as usize]);
        (0..length).map(|_| one()).collect()
    }
    /// So many characters in labels of at most 60.
    fn labels(&mut self, alphabet: &[u8], length: usize) -> String {
        let text = self.text(alphabet, length);
        let parts: Vec<&str> =
            (0..length).step_by(60).filter_map(|at| text.get(at..length.min(at + 60))).collect();
        parts.join(".")
    }
    fn one_of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len() as u64) as usize]
    }
}

/// Asks at `each` thousandths of a second; what rule dns-tunnel says, and when.
fn ask(
    seconds: u64,
    each_ms: u64,
    seed: u64,
    mut make: impl FnMut(&mut Random, u64) -> (u16, String),
) -> Vec<(i64, Finding)> {
    let mut s = Script::new(Tier0Config::default(), "dns-tunnel");
    let (mut random, mut now, mut number, mut ticked) = (Random(seed), 0, 0, 0);
    while now < seconds * 1_000 {
        while ticked + 60_000 < now {
            ticked += 60_000;
            s.tick(ticked as i64 / 1_000);
        }
        let (qtype, name) = make(&mut random, number);
        s.dns(now as i64 / 1_000, Dns { qtype, ..dns(CLIENT, &name, &[]) });
        now += each_ms / 2 + random.below(each_ms + 1);
        number += 1;
    }
    let found = s.found.into_iter().filter(|f| f.finding.rule == "dns-tunnel");
    found.map(|f| (f.time.secs() - 1_795_000_000, f.finding)).collect()
}

type Make = fn(&mut Random, u64) -> (u16, String);

/// A tool is found within a minute, and at a hundredth of its speed within ten.
#[track_caller]
fn tool(each_ms: u64, make: Make) {
    for seed in 0..3 {
        for (times, limit) in [(1, 60), (100, 600)] {
            let said = ask(limit as u64, each_ms * times, seed, make);
            let first = said.first().unwrap_or_else(|| panic!("seed {seed}, 1/{times}: nothing"));
            assert_eq!(first.1.subject, "evil.example");
            assert!(first.1.score >= 0.6, "{:?}", first.1);
            assert_eq!(said.len(), 1, "said once");
        }
    }
}

#[test]
fn whole_names_of_base_32_in_txt() {
    tool(250, |r, n| {
        let (data, id) = (r.labels(BASE32, 176), r.below(65_536));
        (TXT, format!("{data}.{n}.id-{id}.up.evil.example"))
    });
}

#[test]
fn whole_names_in_ordinary_types() {
    tool(1_000, |r, _| (A, format!("{}.evil.example", r.labels(HEX, 180))));
    tool(1_000, |r, _| (AAAA, format!("{}.evil.example", r.labels(BASE64, 190))));
    tool(500, |r, n| (A, format!("{n}.{}.evil.example", r.labels(BASE32, 120))));
}

#[test]
fn sessions_of_mixed_sizes() {
    tool(150, |r, _| {
        let length = r.one_of(&[8, 12, 80, 150]);
        (r.one_of(&[TXT, KEY]), format!("{}.s.evil.example", r.labels(BASE64, length)))
    });
    tool(300, |r, _| {
        let (length, qtype) = (r.one_of(&[18, 34, 34, 180]), r.one_of(&[TXT, MX, CNAME]));
        (qtype, format!("{}.evil.example", r.labels(HEX, length)))
    });
    tool(200, |r, _| (CNAME, format!("d{}.evil.example", r.text(BASE32, 60))));
}

#[test]
fn types_that_only_tools_ask_for() {
    for make in [
        (|r, _| (NULL, format!("{}.evil.example", r.labels(BASE32, 70)))) as Make,
        |r, _| (KEY, format!("{}.evil.example", r.labels(BASE32, 70))),
        |r, _| (SRV, format!("{}.evil.example", r.labels(BASE32, 70))),
        |r, _| (65_399, format!("{}.evil.example", r.labels(BASE32, 70))),
    ] {
        tool(250, make);
    }
}

/// Bytes that no host name has carry more for each.
#[test]
fn raw_bytes() {
    tool(300, |r, _| {
        let byte = |r: &mut Random| format!("\\{:03}", 128 + r.below(127));
        let label: String = (0..50).map(|_| byte(r)).collect();
        (A, format!("{label}.evil.example"))
    });
}

/// An implant's check-ins are short, what it steals is not.
#[test]
fn an_implant() {
    tool(500, |r, n| {
        let data = r.labels(HEX, 168);
        (A, format!("post.3{data}.{n:x}.1234abcd.evil.example"))
    });
}

/// Short names are found at full speed only: there is little in them.
#[test]
fn short_names() {
    for (each_ms, qtype, length) in [(150, A, 8), (150, TXT, 8), (80, A, 5), (400, CNAME, 16)] {
        let make = |r: &mut Random, _| (qtype, format!("{}.evil.example", r.text(BASE32, length)));
        let said = ask(60, each_ms, 1, make);
        assert_eq!(said.len(), 1, "{each_ms} {qtype} {length}");
    }
}

/// Fingerprints are asked for one by one; what asks for five a second is no scanner.
#[test]
fn names_like_fingerprints_at_full_speed() {
    let said = ask(60, 200, 1, |r, _| (A, format!("{}.evil.example", r.text(HEX, 32))));
    assert_eq!(said.len(), 1);
    assert!(said[0].0 <= 45, "{said:?}");
}

/// A session's number and a few bytes, once a second, in ordinary types; also below labels
/// that stay the same.
#[test]
fn idle_sessions() {
    let makes: [Make; 3] = [
        |r, _| (A, format!("{}.evil.example", r.text(HEX, 18))),
        |r, _| (TXT, format!("{}.evil.example", r.text(HEX, 34))),
        |r, _| (A, format!("{}.polls.of.the.second.stage.evil.example", r.text(HEX, 18))),
    ];
    for make in makes {
        for seed in 0..3 {
            assert_eq!(ask(60, 1_000, seed, make).len(), 1);
        }
    }
}

/// An implant checks in once a minute. By its names alone that is what a virus scanner does;
/// but it never connects to what it asks for, while the device does with all else.
#[test]
fn names_that_nobody_connects_to() {
    let play = |flows: bool, connects: bool| {
        let (mut s, mut random) = (Script::new(Tier0Config::default(), "dns-tunnel"), Random(5));
        for n in 0..480 {
            let at = n * 60;
            let site = format!("www.site{}.example", random.below(4_000));
            s.dns(at, dns(CLIENT, &site, &["203.0.113.9"]));
            if flows {
                s.flow(at, flow(CLIENT, "203.0.113.9:443"));
            }
            let name = format!("{}.evil.example", random.text(HEX, 8));
            s.dns(at + 30, dns(CLIENT, &name, &["198.51.100.7"]));
            if connects {
                s.flow(at + 30, flow(CLIENT, "198.51.100.7:443"));
            }
        }
        s.found.iter().filter(|f| f.finding.rule == "dns-tunnel").map(|f| f.time).next()
    };
    let begin = Timestamp::from_secs(1_795_000_000);
    assert!(play(true, false).is_some_and(|at| at.since(begin) < Duration::from_secs(6 * 3_600)));
    assert_eq!(play(true, true), None);
    assert_eq!(play(false, false), None, "connections are not seen here");
}

/// Of types only tools ask for a few will do.
#[test]
fn short_names_of_odd_types() {
    for qtype in [NULL, KEY, CNAME] {
        let make = |r: &mut Random, _| (qtype, format!("pa{}.evil.example", r.text(BASE32, 6)));
        assert_eq!(ask(60, 200, 1, make).len(), 1, "{qtype}");
        assert_eq!(ask(600, 15_000, 1, make).len(), 1, "{qtype}, slowly");
    }
}

/// A long name every half hour is 27 kB a day.
#[test]
fn a_trickle() {
    let said =
        ask(43_200, 1_800_000, 1, |r, _| (A, format!("{}.evil.example", r.labels(HEX, 200))));
    assert!(said.first().is_some_and(|(at, _)| *at < 36_000), "{said:?}");
}

/// Two dozen infected machines send through one domain, each a little.
#[test]
fn several_share_a_parent() {
    let mut s = Script::new(Tier0Config::default(), "dns-tunnel");
    let mut random = Random(3);
    for n in 0..200 {
        let client = format!("192.168.1.{}", 10 + n % 24);
        let name = format!("{}.evil.example", random.labels(HEX, 120));
        s.dns(n * 15, dns(&client, &name, &[]));
    }
    let of_all = |f: &&Found| f.finding.rule == "dns-tunnel" && f.finding.client.is_none();
    let found: Vec<&Found> = s.found.iter().filter(of_all).collect();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].finding.subject, "evil.example");
    let mut s = Script::new(Tier0Config::default(), "dns-tunnel");
    for n in 0..60 {
        let client = format!("192.168.1.{}", 10 + n % 3);
        let name = format!("{}.evil.example", random.labels(HEX, 200));
        s.dns(n * 30, dns(&client, &name, &[]));
    }
    let network = s.found.iter().filter(|f| f.finding.rule == "dns-tunnel");
    assert!(network.count() >= 1);
}

/// Ordinary questions of one device, for hours: nothing is said.
#[track_caller]
fn ordinary(hours: u64, each_ms: u64, make: Make) {
    for seed in 0..2 {
        let said = ask(hours * 3_600, each_ms, seed, make);
        assert!(said.is_empty(), "{said:?}");
    }
}

/// Virus scanners ask about fingerprints: a few a minute, and hundreds during a scan.
#[test]
fn reputation() {
    ordinary(24, 60_000, |r, _| (A, format!("{}.av.example", r.text(HEX, 32))));
    ordinary(24, 60_000, |r, _| (TXT, format!("{}.files.av.example", r.text(HEX, 40))));
    ordinary(24, 60_000, |r, _| (A, format!("a-0.19-b3000081.{}.av.example", r.text(BASE32, 26))));
    ordinary(1, 15_000, |r, _| (A, format!("{}.{}.av.example", r.text(HEX, 10), r.text(HEX, 22))));
    let scan = ask(600, 1_800, 1, |r, _| (A, format!("{}.av.example", r.text(HEX, 32))));
    assert!(scan.is_empty(), "{scan:?}");
}

/// A mail server asks three blocklists about every sender.
#[test]
fn mail_blocklists() {
    ordinary(12, 4_000, |r, n| {
        let ip: Vec<String> = (0..4).map(|_| r.below(256).to_string()).collect();
        (A, format!("{}.{}.example", ip.join("."), ["list", "other", "third"][n as usize % 3]))
    });
    ordinary(6, 6_000, |r, _| {
        let nibbles: Vec<String> = (0..32).map(|_| r.text(HEX, 1)).collect();
        (A, format!("{}.list.example", nibbles.join(".")))
    });
}

#[test]
fn trackers_and_cache_busters() {
    ordinary(12, 30_000, |r, n| (A, format!("{}-{n}.pixel.example", r.text(HEX, 12))));
    ordinary(12, 20_000, |r, n| {
        (A, format!("{}.check.example", 1_795_000_000 + n * 20 + r.below(5)))
    });
    ordinary(12, 60_000, |r, _| {
        let uuid: Vec<String> = [8, 4, 4, 4, 12].iter().map(|n| r.text(HEX, *n)).collect();
        (A, format!("{}.rum.example", uuid.join("-")))
    });
}

#[test]
fn content_networks() {
    ordinary(12, 5_000, |r, _| {
        let (n, site, host) = (r.below(9), r.below(40), r.below(60));
        (A, format!("r{n}---sn-{site:x}h7e{host:02}.video.example"))
    });
    ordinary(12, 15_000, |r, _| (A, format!("d{}.cdn.example", r.text(BASE32, 13))));
}

#[test]
fn devices_that_count() {
    ordinary(12, 2_000, |_, n| (A, format!("sn004829135-{n:06}.telemetry.example")));
    ordinary(12, 10_000, |r, n| {
        (A, format!("{n}.t{}.fw-2-14-3.sn004829135.telemetry.example", r.below(100)))
    });
}

/// What the resolver's search list makes of every name.
#[test]
fn search_lists() {
    ordinary(12, 2_000, |r, _| {
        let (host, site) = (r.below(20), r.below(2_000));
        (A, format!("h{host}.s{site}x.com.house.example"))
    });
}

#[test]
fn services_and_reverse() {
    ordinary(2, 1_000, |r, _| {
        (33, format!("{}\\032tv._airplay._tcp.house.example", r.text(BASE32, 6)))
    });
    ordinary(2, 500, |r, _| (12, format!("{}.2.0.192.in-addr.arpa", r.below(256))));
    ordinary(2, 500, |r, _| (A, format!("{}.local", r.text(BASE32, 20))));
    ordinary(2, 500, |r, _| (A, r.text(BASE32, 12)));
}

/// The same names, asked by several, or refused by the resolver, or connected to.
#[test]
fn what_speaks_for_it() {
    let name = |r: &mut Random| format!("{}.shop.example", r.text(BASE32, 44));
    let play = |each: &dyn Fn(&mut Script, i64, &str)| {
        let (mut s, mut random) = (Script::new(Tier0Config::default(), "dns-tunnel"), Random(5));
        for n in 0..120 {
            each(&mut s, n * 3, &name(&mut random));
        }
        s.found.iter().filter(|f| f.finding.rule == "dns-tunnel").count()
    };
    let asked = |s: &mut Script, at, name: &str| s.dns(at, dns(CLIENT, name, &["203.0.113.9"]));
    assert_eq!(play(&asked), 1);
    let by_two = |s: &mut Script, at, name: &str| {
        s.dns(at, dns(CLIENT, name, &["203.0.113.9"]));
        s.dns(at + 1, dns("192.168.1.6", name, &["203.0.113.9"]));
    };
    assert_eq!(play(&by_two), 0);
    let connected = |s: &mut Script, at, name: &str| {
        s.dns(at, dns(CLIENT, name, &["203.0.113.9"]));
        s.flow(at, flow(CLIENT, "203.0.113.9:443"));
    };
    assert_eq!(play(&connected), 0);
    let refused = |s: &mut Script, at, name: &str| {
        s.dns(at, Dns { status: DnsStatus::Blocked, ..dns(CLIENT, name, &[]) });
    };
    assert_eq!(play(&refused), 0);
}

#[test]
fn allowed_and_long_answers() {
    let mut config = Tier0Config::default();
    config.dns_tunnel.allow.push("evil.example".into());
    let mut s = Script::new(config, "dns-tunnel");
    let mut random = Random(8);
    for n in 0..50 {
        s.dns(n, dns(CLIENT, &format!("{}.evil.example", random.labels(HEX, 200)), &[]));
    }
    s.said(&[]);
    // The way back: a small question, a long answer.
    let mut s = Script::new(Tier0Config::default(), "dns-tunnel");
    for n in 0..60 {
        let answers = vec![Answer::Other(random.text(BASE64, 200))];
        let name = format!("{}.evil.example", random.text(BASE32, 40));
        s.dns(n, Dns { qtype: TXT, answers, ..dns(CLIENT, &name, &[]) });
    }
    s.said(&["evil.example"]);
}

/// Whatever is asked, memory stays as it is and what was full is counted.
#[test]
fn nothing_grows() {
    let mut s = Script::new(Tier0Config::default(), "dns-tunnel");
    let mut random = Random(9);
    for n in 0..60_000 {
        let name = format!("{}.n{}.example", random.text(BASE32, 12), random.below(1 << 40));
        let client = format!("192.168.{}.{}", random.below(2), random.below(250));
        s.dns(n / 100, dns(&client, &name, &[]));
    }
    let places = |rows: usize| (rows * 4) as u64;
    assert!(s.status("tier0.dns_tunnel.pairs") <= places(PAIRS_ROWS));
    assert!(s.status("tier0.dns_tunnel.domains") <= places(DOMAINS_ROWS));
    assert!(s.status("tier0.dns_tunnel.evicted") > 0);
}

/// Long names in ordinary types that one device alone asks for: too few for a tunnel that
/// shares its domain with others, at a hundredth of the speed too.
#[test]
fn long_names_below_a_domain_of_its_own() {
    tool(200, |r, _| (A, format!("{}.evil.example", r.text(HEX, 60))));
    tool(200, |r, _| (A, format!("{}.evil.example", r.text(BASE32, 40))));
}

/// The same from several devices, or with a name that a second one asks for too, is software
/// that many have.
#[test]
fn long_names_of_software_that_several_have() {
    for (devices, connects) in [(3, false), (1, true)] {
        let (mut s, mut random) = (Script::new(Tier0Config::default(), "dns-tunnel"), Random(9));
        for n in 0..90u64 {
            let client = format!("192.168.1.{}", 20 + n % devices);
            let name = format!("{}.telemetry.example", random.text(BASE32, 40));
            s.dns(n as i64 * 13, dns(&client, &name, &["198.51.100.7"]));
            if connects {
                s.flow(n as i64 * 13, flow(&client, "198.51.100.7:443"));
            }
        }
        let said: Vec<_> = s.found.iter().filter(|f| f.finding.rule == "dns-tunnel").collect();
        assert!(said.is_empty(), "{devices} devices: {said:?}");
    }
}
