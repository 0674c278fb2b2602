//! Captured packets -> judgements.

use agentmon_core::event::{Body, DnsStatus};
use agentmon_core::tier0::blocklist;
use agentmon_core::time::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::netlink::captured::{self, bytes};
use crate::netlink::{messages, nflog};

/// `www.example.com` stands on a list of score 0.8 by its parent.
fn lists() -> Blocklist {
    let mut builder = blocklist::Config::default().builder();
    builder.list("bad", 0.8, b"example.com\n");
    builder.build()
}

/// The IP packet inside a captured NFLOG message.
fn packet(hex: &str) -> Vec<u8> {
    let bytes = bytes(hex);
    let message = messages(&bytes).next().unwrap().unwrap();
    nflog::decode(&message).unwrap().payload.to_vec()
}

#[track_caller]
fn stops(packet: &[u8], score_min: f64, expected: Option<&str>) {
    let name = match judge(packet, &lists(), score_min) {
        Judgement::Stop(stopped) => Some(stopped.name.to_string()),
        Judgement::Pass | Judgement::Unreadable => None,
    };
    assert_eq!(name.as_deref(), expected);
}

#[test]
fn only_questions_for_listed_names_are_stopped() {
    stops(&packet(captured::QUERY), 0.6, Some("www.example.com"));
    stops(&packet(captured::QUERY6), 0.6, Some("nx.example.com"));
    stops(&packet(captured::QUERY), 0.8, Some("www.example.com"));
    // Not grave enough.
    stops(&packet(captured::QUERY), 0.81, None);
    // Answers, whatever they say.
    stops(&packet(captured::ANSWER), 0.0, None);
    stops(&packet(captured::ANSWER6), 0.0, None);
    assert_eq!(judge(&packet(captured::QUERY), &Blocklist::default(), 0.0), Judgement::Pass);
}

#[test]
fn what_is_cut_goes_on() {
    let whole = packet(captured::QUERY);
    // The question ends four bytes before the packet does at the earliest.
    for length in 0..whole.len() - 4 {
        let cut = judge(&whole[..length], &lists(), 0.0);
        assert!(!matches!(cut, Judgement::Stop(_)), "{length} of {} bytes", whole.len());
    }
}

#[test]
fn a_stopped_question_is_told_as_blocked_by_us() {
    let Judgement::Stop(stopped) = judge(&packet(captured::QUERY), &lists(), 0.6) else {
        panic!("not stopped");
    };
    let event = stopped.event(Timestamp::from_secs(5));
    let Body::Dns(dns) = event.body else { panic!("no DNS record") };
    assert_eq!((dns.status, dns.source.as_str(), dns.qtype), (DnsStatus::Blocked, SOURCE, 1));
    assert_eq!(dns.blocked_by.as_deref(), Some("agentmon: bad"));
    assert_eq!(dns.client.to_string(), "192.168.77.2");
    assert!(dns.is_refused());
}

#[test]
fn settings_are_checked() {
    let with = |length, score_min| Config { length, score_min, ..Config::default() }.validate();
    assert!(with(32, 0.6).is_ok());
    assert_eq!(with(65, 0.6).unwrap_err().0, "length");
    assert_eq!(with(0, 0.6).unwrap_err().0, "length");
    assert_eq!(with(32, 1.1).unwrap_err().0, "score_min");
    assert_eq!(with(32, f64::NAN).unwrap_err().0, "score_min");
}

#[test]
fn the_heart_tells_a_packet_in_hand() {
    let heart = Heart::default();
    assert_eq!((heart.busy_with(), heart.line()), (None, None));
    heart.begin();
    let first = heart.busy_with();
    assert!(first.is_some() && first == heart.busy_with());
    heart.end(true);
    assert_eq!(heart.busy_with(), None);
    heart.begin();
    assert_ne!(heart.busy_with(), first);
    heart.end(false);
    assert_eq!(heart.line().as_deref(), Some("ok: 2 questions held, 1 dropped"));
}

proptest! {
    #[test]
    fn any_bytes_are_judged(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let judgement = judge(&bytes, &lists(), 0.0);
        // A listed name does not come about by chance.
        prop_assert!(!matches!(judgement, Judgement::Stop(_)));
    }
}
