//! Captured packets -> judgements; verdicts -> events.

use agentmon_core::Name;
use agentmon_core::event::{Body, DnsStatus, Endpoint, Mac, Verdict};
use agentmon_core::finding::Finding;
use agentmon_core::tier0::Tier0Config;
use agentmon_core::tier0::blocklist::{self, ListConfig};
use agentmon_core::time::Timestamp;
use proptest::prelude::*;

use super::told::{Act, FOLDS_MAX, Told};
use super::*;
use crate::netlink::captured::{self, bytes};
use crate::netlink::{messages, nflog};

/// Lists `bad` (to be blocked: `www.example.com` by its parent, 203.0.113.0/24) and `told`,
/// which is graver.
fn gate(block: bool) -> Gate {
    let mut builder = blocklist::Config::default().builder();
    let mut list = |name: &str, score, block, text: &[u8]| {
        let list = ListConfig { name: name.into(), score, block, ..ListConfig::default() };
        let report = builder.list_of(&list, text);
        assert!(report.is_clean(), "{report}");
    };
    list("bad", 0.8, block, b"example.com\n203.0.113.0/24\n");
    list("told", 0.9, false, b"www.example.com\nnowhere.example\n2001:db8:99::/48\n");
    let local = vec!["2001:db8:77::/48".parse().unwrap()];
    let gate = Gate::default();
    gate.set(builder.build(), &Tier0Config { local, ..Tier0Config::default() });
    gate
}

/// The IP packet inside a captured NFLOG message.
pub(super) fn packet(hex: &str) -> Vec<u8> {
    let bytes = bytes(hex);
    let message = messages(&bytes).next().unwrap().unwrap();
    nflog::decode(&message).unwrap().payload.to_vec()
}

/// What a judgement says, in a word or two.
fn words(judgement: &Judgement) -> String {
    match judgement {
        Judgement::Pass => "pass".into(),
        Judgement::Unjudged(why) => why.as_str().into(),
        Judgement::Listed(listed) => {
            format!("{} {} {}", listed.subject(), listed.list, listed.entry)
        }
    }
}

#[track_caller]
fn check(packet: &[u8], by_place: bool, expected: &str) {
    assert_eq!(words(&judge(packet, &gate(true).lists(), by_place)), expected);
}

#[test]
fn questions_for_listed_names_are_found() {
    check(&packet(captured::QUERY), false, "www.example.com bad example.com");
    check(&packet(captured::QUERY6), false, "nx.example.com bad example.com");
    // Answers, whatever they say: a server of ours is asked by the internet.
    check(&packet(captured::ANSWER6), false, "strangers");
    // A list that is not to be enforced only tells.
    let lists = gate(false).lists();
    assert_eq!(judge(&packet(captured::QUERY), &lists, true), Judgement::Pass);
    assert_eq!(judge(&packet(captured::QUERY), &Gate::default().lists(), true), Judgement::Pass);
}

/// An IPv4 packet of our client with this protocol, port and payload.
fn v4(proto: u8, to: [u8; 4], port: u16, data: &[u8]) -> Vec<u8> {
    let header = if proto == 6 { 20 } else { 8 };
    let mut out = vec![0x45, 0, 0, 20 + header + data.len() as u8, 0, 0, 0, 0, 64, proto, 0, 0];
    out.extend([192, 168, 77, 2]);
    out.extend(to);
    out.extend([0x9c, 0x40]);
    out.extend(port.to_be_bytes());
    if proto == 6 {
        out.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0, 0, 0, 0, 0, 0]);
    } else {
        out.extend([0, 8 + data.len() as u8, 0, 0]);
    }
    out.extend(data);
    out
}

#[test]
fn first_packets_to_listed_addresses_are_found_where_they_are_forwarded() {
    let syn = v4(6, [203, 0, 113, 9], 443, &[]);
    check(&syn, true, "203.0.113.9:443/tcp bad 203.0.113.0/24");
    check(&syn, false, "pass");
    check(&v4(17, [203, 0, 113, 9], 123, b"ntp"), true, "203.0.113.9:123/udp bad 203.0.113.0/24");
    check(&v4(6, [198, 51, 100, 9], 443, &[]), true, "pass");
    // By its address where its question is not on a list, or cannot be read.
    check(&v4(6, [203, 0, 113, 9], 53, &[]), true, "203.0.113.9:53/tcp bad 203.0.113.0/24");
    let mut stranger = syn;
    stranger[12..16].copy_from_slice(&[198, 51, 100, 1]);
    check(&stranger, true, "strangers");
}

#[test]
fn what_cannot_be_judged_goes_on_and_is_counted() {
    check(&v4(6, [198, 51, 100, 9], 53, &[]), false, "dns_over_tcp");
    check(&v4(6, [198, 51, 100, 9], 853, &[]), false, "dns_encrypted");
    check(&v4(17, [198, 51, 100, 9], 853, b"quic"), false, "dns_encrypted");
    check(&v4(17, [198, 51, 100, 9], 53, b"not DNS"), false, "unreadable");
    check(&v4(17, [198, 51, 100, 9], 53, &[0; 12]), false, "unreadable");
    check(&[0x45; 10], false, "unreadable");
    // Told where the question is looked at, not a second time.
    check(&v4(6, [198, 51, 100, 9], 853, &[]), true, "pass");
}

#[test]
fn what_is_cut_goes_on() {
    let whole = packet(captured::QUERY);
    // The question ends four bytes before the packet does at the earliest.
    for length in 0..whole.len() - 4 {
        let cut = judge(&whole[..length], &gate(true).lists(), false);
        assert!(!matches!(cut, Judgement::Listed(_)), "{length} of {} bytes", whole.len());
    }
}

#[test]
fn the_internet_is_none_of_our_clients() {
    let lists = gate(true).lists();
    for (ip, expected) in [
        ("192.168.77.2", true),
        ("fe80::1", true),
        ("2001:db8:77::9", true),
        ("198.51.100.1", false),
        ("2001:db8:1::1", false),
    ] {
        assert_eq!(lists.is_client(ip.parse().unwrap()), expected, "{ip}");
    }
}

fn listed(question: bool) -> Listed {
    let packet = if question { packet(captured::QUERY) } else { v4(6, [203, 0, 113, 9], 443, &[]) };
    match judge(&packet, &gate(true).lists(), true) {
        Judgement::Listed(listed) => *listed,
        other => panic!("{other:?}"),
    }
}

fn case(told: Told) -> Case {
    Case { time: Timestamp::from_secs(5), mac: Some(Mac([0, 0, 0x5e, 0, 0x53, 1])), told }
}

const fn at(seconds: u64) -> Mono {
    Mono::from_nanos(seconds * 1_000_000_000)
}

/// What is told of one verdict: the record, if any, and the finding.
fn told(told: Told) -> (Option<Body>, Finding) {
    let mut events = Vec::new();
    Folds::new(Duration::from_secs(60)).add(case(told), at(0), &mut events);
    let last = events.pop().unwrap();
    let Body::Finding(finding) = last.body else { panic!("a finding") };
    (events.pop().map(|event| event.body), finding)
}

fn evidence<'a>(finding: &'a Finding, key: &str) -> Option<&'a str> {
    finding.evidence.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
}

#[test]
fn a_stopped_question_is_told_as_blocked_by_us_and_why() {
    let (record, finding) = told(Told::Stopped(listed(true), Act::Nxdomain));
    let Some(Body::Dns(dns)) = record else { panic!("no DNS record") };
    assert_eq!((dns.status, dns.source.as_str(), dns.qtype), (DnsStatus::Blocked, SOURCE, 1));
    assert_eq!((dns.blocked_by.as_deref(), dns.rcode), (Some("agentmon: bad"), Some(3)));
    assert_eq!(dns.client.to_string(), "192.168.77.2");
    assert!(dns.is_refused());
    assert_eq!((finding.rule.as_str(), finding.subject.as_str()), (RULE, "www.example.com"));
    assert_eq!(evidence(&finding, "verdict"), Some("nxdomain"));
    assert_eq!(
        (evidence(&finding, "list"), evidence(&finding, "entry")),
        (Some("bad"), Some("example.com"))
    );
    assert!(finding.why.contains("the list bad has example.com"), "{}", finding.why);
}

#[test]
fn a_stopped_connection_is_told_as_a_packet_the_firewall_stopped() {
    let (record, finding) = told(Told::Stopped(listed(false), Act::Reject));
    let Some(Body::Firewall(packet)) = record else { panic!("no firewall record") };
    assert_eq!((packet.verdict, packet.prefix.as_str()), (Verdict::Reject, "agentmon: bad"));
    assert_eq!((packet.dst.to_string().as_str(), packet.bytes), ("203.0.113.9:443", 40));
    assert_eq!(finding.subject, "203.0.113.9:443/tcp");
}

#[test]
fn what_went_on_is_told_without_a_record() {
    let (record, finding) = told(Told::Would(listed(true), Act::Nxdomain));
    assert_eq!((record, evidence(&finding, "verdict")), (None, Some("dry-run")));
    assert_eq!(evidence(&finding, "would"), Some("nxdomain"));
    let (record, finding) = told(Told::Excepted(listed(true), "example.com for x".into()));
    assert_eq!((record, evidence(&finding, "verdict")), (None, Some("allowed")));
    assert_eq!(evidence(&finding, "exception"), Some("example.com for x"));
    let end = |text: &str, port| Endpoint::new(text.parse().unwrap(), port);
    let over_tcp =
        Told::Unjudged(Unjudged::OverTcp, end("192.168.1.7", 4), end("198.51.100.9", 53), 6);
    let (record, finding) = told(over_tcp);
    assert_eq!((record, finding.subject.as_str()), (None, "198.51.100.9:53/tcp"));
    assert!(finding.why.contains("DNS over TCP"), "{}", finding.why);
}

/// A client that hammers makes two findings a minute, and none is forgotten.
#[test]
fn verdicts_are_folded() {
    let mut folds = Folds::new(Duration::from_secs(60));
    let mut told = Vec::new();
    let mut packets = |folds: &mut Folds, seconds: std::ops::Range<u64>| {
        let mut out = Vec::new();
        for second in seconds {
            folds.add(case(Told::Stopped(listed(true), Act::Drop)), at(second), &mut out);
            folds.due(at(second), false, &mut out);
        }
        let findings = out.iter().filter_map(|event| match &event.body {
            Body::Finding(finding) => evidence(finding, "packets").map(str::to_owned),
            _ => None,
        });
        told.extend(findings);
        told.join(" ")
    };
    assert_eq!(packets(&mut folds, 0..60), "1");
    assert_eq!(packets(&mut folds, 60..61), "1 60");
    assert_eq!(packets(&mut folds, 61..120), "1 60");
    let mut out = Vec::new();
    folds.due(at(120), true, &mut out);
    assert_eq!(out.len(), 2, "the record and the finding of those 59");
    folds.due(at(180), false, &mut out);
    assert_eq!(out.len(), 2);
    // Quiet for a while: the next is told at once.
    assert_eq!(packets(&mut folds, 181..182), "1 60 1");
}

#[test]
fn folds_are_bounded_and_what_is_beyond_is_counted() {
    let mut folds = Folds::new(Duration::from_secs(60));
    let mut out = Vec::new();
    for n in 0..FOLDS_MAX + 3 {
        let mut listed = listed(true);
        listed.question.as_mut().unwrap().name =
            Name::parse(format!("n{n}.example").as_bytes()).unwrap();
        folds.add(case(Told::Would(listed, Act::Drop)), at(0), &mut out);
    }
    assert_eq!((out.len(), folds.take_full(), folds.take_full()), (FOLDS_MAX, 3, 0));
}

#[test]
fn settings_are_checked() {
    let wrong = |change: fn(&mut Config)| {
        let mut config = Config::default();
        change(&mut config);
        config.validate().err().map(|(key, _)| key)
    };
    assert_eq!(wrong(|_| {}), None);
    assert_eq!(wrong(|c| c.length = 65).as_deref(), Some("length"));
    assert_eq!(wrong(|c| c.length = 0).as_deref(), Some("length"));
    assert_eq!(wrong(|c| c.repeat_seconds = 0).as_deref(), Some("repeat_seconds"));
    assert_eq!(wrong(|c| c.interfaces = vec!["br-lan".into(), "eth0.1".into()]), None);
    for bad in ["", "a name", "0123456789abcdef", "x\"; drop", "lo}"] {
        let config = Config { interfaces: vec![bad.into()], ..Config::default() };
        assert_eq!(config.validate().unwrap_err().0, "interfaces", "{bad}");
    }
    let exception =
        Exception { what: "a.example".into(), until: "soon".into(), ..Exception::default() };
    let config = Config { exceptions: vec![Exception::default(), exception], ..Config::default() };
    assert_eq!(config.validate().unwrap_err().0, "exceptions[0].what");
    let config = Config { exceptions: config.exceptions[1..].to_vec(), ..config };
    assert_eq!(config.validate().unwrap_err().0, "exceptions[0].until");
    let config = Config { lists: [("x".to_owned(), Block::Drop)].into(), ..Config::default() };
    assert_eq!((config.block_of("x"), config.block_of("y")), (Block::Drop, Block::Nxdomain));
}

#[test]
fn the_heart_tells_a_packet_in_hand() {
    use heart::Fared;
    let heart = Heart::default();
    assert_eq!((heart.busy_with(), heart.line()), (None, None));
    heart.begin();
    let first = heart.busy_with();
    assert!(first.is_some() && first == heart.busy_with());
    heart.end(Fared::Stopped);
    assert_eq!(heart.busy_with(), None);
    heart.begin();
    assert_ne!(heart.busy_with(), first);
    heart.end(Fared::On);
    let line = "2 packets held, 1 stopped, 0 listed and let through";
    assert_eq!(heart.line().as_deref(), Some(line));
}

proptest! {
    #[test]
    fn any_bytes_are_judged(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        // A listed name does not come about by chance.
        let judgement = judge(&bytes, &gate(true).lists(), false);
        prop_assert!(!matches!(judgement, Judgement::Listed(_)));
        drop(judge(&bytes, &gate(true).lists(), true));
    }
}
