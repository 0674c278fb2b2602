//! Addresses, pages, patterns, lists that allow or watch, several forms side by side; and
//! what the detector says of connections.

use super::super::tests::{dns, flow};
use super::super::{Engine, Found, Tier0Config};
use super::*;
use crate::event::{Body, Endpoint, Event};
use crate::sample::ip;
use crate::time::Timestamp;

fn list(name: &str, score: f64) -> ListConfig {
    ListConfig { name: name.into(), score, ..ListConfig::default() }
}

fn built(lists: &[(ListConfig, &str)]) -> Blocklist {
    let mut builder = Builder::new(10_000);
    for (list, text) in lists {
        let report = builder.list_of(list, text.as_bytes());
        assert!(report.is_clean(), "{report}");
    }
    builder.build()
}

/// `list entry` of the address, and whether it is pardoned.
fn of(lists: &Blocklist, text: &str, port: u16) -> String {
    let judged = lists.judge_address(ip(text), Some(port).filter(|port| *port > 0));
    match (judged.bad, judged.allowed) {
        (Some(hit), _) => format!("{} {}", hit.list, hit.entry),
        (None, Some((by, entry))) => format!("+{by} {entry}"),
        (None, None) => "-".to_owned(),
    }
}

#[test]
fn the_longest_network_of_the_gravest_list() {
    let lists = built(&[
        (list("nets", 0.5), "203.0.113.0/24\n203.0.113.64/26\n2001:db8::/32\n198.51.100.9:8080"),
        (list("hosts", 0.5), "203.0.113.66\n2001:db8:1::1\n[2001:db8:2::1]:443"),
        (list("grave", 0.9), "203.0.0.0/16"),
    ]);
    let check = |address: &str, port, expected: &str| {
        assert_eq!(of(&lists, address, port), expected, "{address}:{port}");
    };
    check("203.0.113.7", 0, "grave 203.0.0.0/16");
    check("203.1.113.7", 0, "-");
    check("2001:db8:7::1", 0, "nets 2001:db8::/32");
    check("2001:db8:1::1", 0, "hosts 2001:db8:1::1");
    check("198.51.100.9", 8_080, "nets 198.51.100.9:8080");
    check("198.51.100.9", 8_081, "-");
    check("198.51.100.9", 0, "-");
    check("2001:db8:2::1", 443, "hosts [2001:db8:2::1]:443");
    let lists = built(&[(list("a", 0.5), "203.0.113.0/24\n203.0.113.64/26\n203.0.113.66")]);
    assert_eq!(of(&lists, "203.0.113.66", 1), "a 203.0.113.66");
    assert_eq!(of(&lists, "203.0.113.67", 1), "a 203.0.113.64/26");
    assert_eq!(of(&lists, "::ffff:203.0.113.1", 1), "a 203.0.113.0/24");
}

#[test]
fn what_covers_strangers_or_the_own_network_is_refused() {
    let text = b"192.168.1.1\n10.0.0.0/8\n0.0.0.0/0\n::/0\n127.0.0.1/8\nfe80::1\n203.0.113.1";
    let report = Builder::new(10).list("x", 0.5, text);
    assert_eq!((report.entries, report.addresses, report.of(Kind::Refused)), (1, 1, 6));
}

#[test]
fn scored_addresses_need_enough_sources() {
    let text = "198.51.100.1\t1\n198.51.100.2\t2\n198.51.100.3\t3\n198.51.100.9\n";
    for (sources_min, expected) in [(0, 4), (1, 4), (3, 2), (4, 1)] {
        let mut builder = Builder::new(10);
        let list = ListConfig { sources_min, ..list("ipsum", 0.5) };
        let report = builder.list_of(&list, text.as_bytes());
        assert_eq!((report.entries, report.below), (expected, 4 - expected));
        assert!(report.is_clean());
    }
}

#[test]
fn exceptions_hold_for_their_own_list_alone_and_allow_lists_for_all() {
    let allow = ListConfig { kind: ListKind::Allow, ..list("mine", 0.8) };
    let ads = (list("ads", 0.3), "ads.example\n203.0.113.0/24\n@@||fine.ads.example^\n");
    let bad = (list("bad", 0.9), "fine.ads.example\n203.0.113.9\n@@||ads.example^");
    let name = |text: &str| text.parse::<Name>().unwrap();
    let lists = built(&[ads.clone(), bad.clone()]);
    let hit = |lists: &Blocklist, text: &str| lists.lookup(&name(text)).map(|h| h.list.to_owned());
    assert_eq!(hit(&lists, "x.ads.example").as_deref(), Some("ads"));
    assert_eq!(hit(&lists, "fine.ads.example"), None, "each list exempts it from itself");
    let lists = built(&[ads, bad, (allow, "ads.example\n203.0.113.9")]);
    assert_eq!(hit(&lists, "x.ads.example"), None);
    assert_eq!(of(&lists, "203.0.113.9", 1), "+mine 203.0.113.9");
    assert_eq!(of(&lists, "203.0.113.8", 1), "ads 203.0.113.0/24");
    let asked = name("x.ads.example");
    let judged = lists.judge(&asked);
    assert_eq!(judged.allowed, Some(("mine", "ads.example")));
    assert_eq!(judged.pardoned.map(|hit| hit.list), Some("ads"));
}

#[test]
fn the_configurations_exemptions_hold_across_forms() {
    let config = Config {
        allow: vec!["fine.example".into(), "203.0.113.0/24".into(), "198.51.100.7".into()],
        patterns: vec!["evil-".into()],
        ..Config::default()
    };
    config.validate().unwrap();
    let text = "example.net\nfine.example\n203.0.113.9\n198.51.100.7\n";
    let lists = config.own().and(built(&[(list("bad", 0.9), text)]));
    let name = |text: &str| text.parse::<Name>().unwrap();
    assert_eq!(lists.lookup(&name("a.fine.example")), None);
    assert_eq!(lists.lookup(&name("a.example.net")).map(|hit| hit.list), Some("bad"));
    assert_eq!(of(&lists, "203.0.113.9", 1), "+settings 203.0.113.0/24");
    assert_eq!(of(&lists, "198.51.100.7", 1), "+settings 198.51.100.7");
    let evil = name("x.evil-7.example");
    let hit = lists.lookup(&evil).unwrap();
    assert_eq!((hit.list, hit.pattern, hit.entry), ("patterns", Some("evil-"), "evil-7.example"));
    assert_eq!(lists.lookup(&name("evil-7.fine.example")), None, "exempt from patterns too");
    assert_eq!(
        lists.judge(&name("evil-7.fine.example")).allowed,
        Some(("settings", "fine.example"))
    );
    let bad = Config { allow: vec!["a..b".into()], ..Config::default() };
    assert!(bad.validate().unwrap_err().to_string().contains("`allow[0]`"));
    let bad = Config { patterns: vec!["x*".into()], ..Config::default() };
    assert!(bad.validate().unwrap_err().to_string().contains("`patterns[0]`"));
}

#[test]
fn the_host_of_a_page_counts_half_and_is_not_enforced() {
    let urls = ListConfig { block: true, ..list("urls", 0.8) };
    let text = "https://files.example/x.exe\nhttp://203.0.113.9:81/bin\nhttps://all.example/\n";
    let lists = built(&[(urls, text)]);
    let asked: Name = "files.example".parse().unwrap();
    let judged = lists.judge(&asked);
    let hit = judged.bad.unwrap();
    assert_eq!((hit.score, hit.page, hit.block), (0.4, Some("/x.exe"), false));
    assert!(judged.block.is_none());
    let asked: Name = "all.example".parse().unwrap();
    let hit = lists.judge(&asked).block.unwrap();
    assert_eq!((hit.score, hit.page), (0.8, None));
    let hit = lists.lookup_address(ip("203.0.113.9"), Some(81)).unwrap();
    assert_eq!((hit.entry.to_string().as_str(), hit.page), ("203.0.113.9:81", Some("/bin")));
}

#[test]
fn lists_may_be_enforced_or_not() {
    let block = ListConfig { block: true, ..list("soft", 0.3) };
    let lists = built(&[(list("grave", 0.9), "a.example\n203.0.113.9"), (block, "a.example")]);
    let asked: Name = "a.example".parse().unwrap();
    let judged = lists.judge(&asked);
    assert_eq!(judged.bad.map(|hit| hit.list), Some("grave"));
    assert_eq!(judged.block.map(|hit| hit.list), Some("soft"), "the gravest that may be");
    assert!(lists.judge_address(ip("203.0.113.9"), None).block.is_none());
}

#[test]
fn a_given_format_refuses_others() {
    let hosts = ListConfig { format: Format::Hosts, ..list("x", 0.5) };
    let report = Builder::new(10).list_of(&hosts, b"0.0.0.0 a.example\nb.example\n203.0.113.1\n");
    assert_eq!(report.entries, 1);
    assert_eq!(
        report.to_string(),
        "x: 1 entries in 3 lines (hosts); refused: 2 not of this list's format (line 2, 3)"
    );
    assert_eq!(report.format, Some(Format::Hosts));
}

#[test]
fn what_lists_say_of_themselves_survives() {
    let about =
        About { origin: "https://lists.example/x".into(), changed: 1_795_000_000, accepted: 3 };
    let given = ListConfig {
        kind: ListKind::Watch,
        block: true,
        licence: "CC0".into(),
        about: about.clone(),
        ..list("x", 0.25)
    };
    let lists = built(&[(given, "a.example\nb.example")]);
    let said = lists.lists().next().unwrap();
    assert_eq!((said.kind, said.block, said.licence.as_str()), (ListKind::Watch, true, "CC0"));
    assert_eq!((&said.about, said.entries, said.score), (&about, 2, 0.25));
    let other = lists.rescored(|name| (name == "x").then_some(0.5));
    assert_eq!(other.lists().map(|list| list.score).collect::<Vec<_>>(), [0.5]);
    assert_eq!(other.rescored(|_| None).lists().count(), 0);
}

#[test]
fn lists_that_lose_too_much() {
    let check = |old, new, percent, expected: Option<&str>| {
        assert_eq!(shrunk(old, new, percent).as_deref(), expected, "{old} to {new}, {percent} %");
    };
    check(1_000, 500, 50, None);
    check(1_000, 499, 50, Some("it shrank from 1000 to 499 entries"));
    check(1_000, 0, 50, Some("nothing is left of 1000 entries"));
    check(1_000, 0, 100, None);
    check(99, 1, 50, None);
    check(99, 0, 50, Some("nothing is left of 99 entries"));
    check(0, 0, 50, None);
    check(1_000, 999, 0, Some("it shrank from 1000 to 999 entries"));
    check(1_000, 5_000, 0, None);
}

/// Feeds events a second apart; shows `subject score` of each finding about a list.
#[track_caller]
fn says(bodies: Vec<Body>, expected: &[&str]) {
    let text = "203.0.113.9\n198.51.100.0/24\n203.0.113.77:8080\nhttps://203.0.113.80/x\n";
    let lists = built(&[(list("c2", 0.8), text)]);
    let mut config = Tier0Config::default();
    config.direct_ip.enabled = false;
    let mut engine = Engine::new(&config, lists);
    let mut found: Vec<Found> = Vec::new();
    for (i, body) in bodies.into_iter().enumerate() {
        let time = Timestamp::from_secs(1_795_000_000 + i as i64);
        engine.on_event(&mut Event { time, body }, &mut found);
    }
    let shown = |f: &Found| format!("{} {:.2}", f.finding.subject, f.finding.score);
    assert_eq!(found.iter().map(shown).collect::<Vec<_>>(), expected);
}

#[test]
fn connections_to_listed_addresses_are_told_once() {
    let to = |dst: &str| Body::Flow(flow("192.168.1.5", dst));
    says(vec![to("203.0.113.9:443"), to("203.0.113.9:80")], &["203.0.113.9 0.80"]);
    says(
        vec![to("198.51.100.7:443"), to("198.51.100.8:443")],
        &["198.51.100.7 0.80", "198.51.100.8 0.80"],
    );
    says(vec![to("203.0.113.77:8081"), to("203.0.113.77:8080")], &["203.0.113.77 0.80"]);
    says(vec![to("203.0.113.80:443")], &["203.0.113.80 0.40"]);
    says(vec![to("203.0.113.10:443"), to("192.168.1.9:443")], &[]);
    says(
        vec![to("203.0.113.9:443"), Body::Flow(flow("192.168.1.6", "203.0.113.9:443"))],
        &["203.0.113.9 0.80", "203.0.113.9 0.80"],
    );
}

#[test]
fn answers_with_listed_addresses() {
    let asks = || Body::Dns(dns("192.168.1.5", "new.example", &["203.0.113.9", "203.0.113.10"]));
    let to = || Body::Flow(flow("192.168.1.5", "203.0.113.9:443"));
    says(vec![asks(), asks(), to()], &["203.0.113.9 0.60", "203.0.113.9 0.80"]);
    says(vec![to(), asks()], &["203.0.113.9 0.80"]);
    // A port says nothing of an answer.
    says(vec![Body::Dns(dns("192.168.1.5", "new.example", &["203.0.113.77"]))], &[]);
}

#[test]
fn listed_addresses_that_come_in() {
    let from = |replied, phase| {
        let flow = flow("203.0.113.9", "192.168.1.5:22");
        Body::Flow(Flow { replied, phase, ..flow })
    };
    says(vec![from(false, FlowPhase::End), from(true, FlowPhase::Start)], &[]);
    says(vec![from(true, FlowPhase::End), from(true, FlowPhase::End)], &["203.0.113.9 0.20"]);
    let forwarded = Flow {
        nat_dst: Some(Endpoint::new(ip("192.168.1.5"), 22)),
        replied: true,
        phase: FlowPhase::End,
        ..flow("203.0.113.9", "192.0.2.1:22")
    };
    says(vec![Body::Flow(forwarded)], &["203.0.113.9 0.20"]);
}

#[test]
fn findings_of_addresses_say_why() {
    let lists = built(&[(list("c2", 0.8), "203.0.113.0/24\n")]);
    let mut engine = Engine::new(&Tier0Config::default(), lists);
    let mut found = Vec::new();
    let body = Body::Flow(flow("192.168.1.5", "203.0.113.9:443"));
    engine.on_event(&mut Event { time: Timestamp::from_secs(1), body }, &mut found);
    let finding = &found[0].finding;
    assert_eq!(finding.why, "connected to 203.0.113.9:443/tcp: on list c2 (entry 203.0.113.0/24)");
    let evidence: Vec<_> = finding.evidence.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(
        evidence,
        ["list=c2", "entry=203.0.113.0/24", "address=203.0.113.9", "service=443/tcp"]
    );
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(100))]

    /// The same answer as looking at every network.
    #[test]
    fn agrees_with_looking_at_every_network(
        nets in proptest::collection::vec((0u8..4, 0u8..8, 24u8..=32), 1..30),
        asked in proptest::collection::vec((0u8..4, 0u8..8), 20),
    ) {
        let nets: Vec<IpNet> = nets
            .iter()
            .map(|(c, d, length)| format!("203.0.{c}.{d}/{length}").parse::<IpNet>().unwrap().trunc())
            .collect();
        let text: String = nets.iter().map(|net| format!("{net}\n")).collect();
        let lists = built(&[(list("x", 0.5), &text)]);
        for (c, d) in asked {
            let address = ip(&format!("203.0.{c}.{d}"));
            let longest = nets.iter().filter(|net| net.contains(&address)).max_by_key(|n| n.prefix_len());
            let wanted = longest.map(|net| Indicator::net(*net));
            proptest::prop_assert_eq!(lists.lookup_address(address, None).map(|h| h.entry), wanted);
        }
    }
}
