//! Bursts and single names, and their benign twins.

use super::super::Tier0Config;
use super::super::tests::{Script, dns};
use super::*;
use crate::event::DnsStatus;

/// Pseudo-random labels as generators make them: 14 letters, the same in every run.
fn generated(n: usize) -> Vec<String> {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut letter = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b'a' + ((state >> 33) % 26) as u8)
    };
    (0..n).map(|_| (0..14).map(|_| letter()).collect::<String>() + ".com").collect()
}

fn missing(name: &str) -> Dns {
    Dns { rcode: Some(NXDOMAIN), ..dns("192.168.1.5", name, &[]) }
}
fn script() -> Script {
    Script::new(Tier0Config::default(), "dga")
}

#[test]
fn a_burst_is_one_finding_and_high() {
    let mut s = script();
    for (i, name) in generated(60).iter().enumerate() {
        s.dns(i as i64, missing(name));
    }
    let bursts = s.found.iter().filter(|f| f.finding.subject == "burst").count();
    assert_eq!(bursts, 1);
    assert!(s.found.len() <= 1 + SINGLES_MAX as usize, "{}", s.found.len());
    let burst = s.found.iter().find(|f| f.finding.subject == "burst").unwrap();
    assert_eq!(burst.finding.severity(), crate::finding::Severity::High);
    assert!(burst.time.secs() - 1_795_000_000 < 15, "told after a few names, not at the end");
}

#[test]
fn names_that_exist_count_less() {
    let exists = |name: &String| dns("192.168.1.5", name, &["203.0.113.1"]);
    let mut s = script();
    for (i, name) in generated(20).iter().enumerate() {
        s.dns(i as i64, exists(name));
    }
    assert!(s.found.iter().all(|f| f.finding.subject != "burst"));
    assert!(s.found.iter().all(|f| f.finding.score < 0.4), "{:?}", s.found);
    let mut s = script();
    for (i, name) in generated(60).iter().enumerate() {
        s.dns(i as i64, exists(name));
    }
    assert!(s.found.iter().any(|f| f.finding.subject == "burst"));
}

#[test]
fn a_single_name_is_told_once() {
    let name = "xkqzvwpjhtrbn.com";
    let mut s = script();
    s.dns(0, dns("192.168.1.5", name, &["203.0.113.1"]));
    s.dns(1, missing(&format!("www.{name}")));
    s.dns(2, Dns { qtype: 28, ..missing(name) });
    assert_eq!(s.found[0].finding.severity(), crate::finding::Severity::Low);
    s.said(&[name]);
    let mut s = script();
    s.dns(0, missing(name));
    assert_eq!(s.found[0].finding.severity(), crate::finding::Severity::Medium);
    assert_eq!(
        s.found[0].finding.why,
        "asked for xkqzvwpjhtrbn.com, which looks generated and does not exist"
    );
}

/// Spread over hours, as many names as in a burst are no burst.
#[test]
fn slow_names_are_no_burst() {
    let mut s = script();
    for (i, name) in generated(60).iter().enumerate() {
        s.dns(i as i64 * 300, missing(name));
    }
    assert!(s.found.iter().all(|f| f.finding.subject != "burst"));
}

/// Generators that put words together escape the score, not the count.
#[test]
fn many_unknown_names_of_any_look() {
    let words = ["garden", "window", "silver", "market", "bridge", "letter", "summer"];
    let mut s = script();
    let mut n = 0;
    for a in words {
        for b in words {
            s.dns(n, missing(&format!("{a}{b}.net")));
            n += 1;
        }
    }
    s.said(&["unknown names"]);
}

#[track_caller]
fn silent(exchanges: impl IntoIterator<Item = Dns>) {
    let mut s = script();
    for (i, dns) in exchanges.into_iter().enumerate() {
        s.dns(i as i64, dns);
    }
    s.said(&[]);
}

#[test]
fn benign_twins_stay_silent() {
    let labels: Vec<String> = generated(100).iter().map(|n| n.replace(".com", "")).collect();
    // Hashes below a CDN's and a cloud's domain.
    silent(labels.iter().map(|l| dns("192.168.1.5", &format!("{l}.cloudfront.net"), &[])));
    silent(labels.iter().map(|l| dns("192.168.1.5", &format!("{l}.cdn.example.com"), &[])));
    // A virus scanner or mail server asks a block list: hashes that do not exist.
    silent(labels.iter().map(|l| missing(&format!("{l}.hashes.example.net"))));
    // A browser finds out whether the resolver lies.
    silent(labels.iter().map(|l| missing(l)));
    silent(labels.iter().map(|l| missing(&format!("{l}.lan"))));
    // Reverse look-ups without a name.
    silent((0..100).map(|i| missing(&format!("{i}.113.0.203.in-addr.arpa"))));
    // Internationalised names.
    silent(["xn--bcher-kva.example", "xn--80ak6aa92e.com"].map(missing));
}

#[test]
fn blocked_advertisers_are_not_unknown_names() {
    let blocked = |i: usize| Dns {
        status: DnsStatus::Blocked,
        rcode: Some(NXDOMAIN),
        ..dns("192.168.1.5", &format!("tracker{i}.example"), &[])
    };
    silent((0..100).map(blocked));
}

#[test]
fn clients_are_told_apart() {
    let mut s = script();
    for (i, name) in generated(60).iter().enumerate() {
        let client = format!("192.168.1.{i}");
        s.dns(i as i64, Dns { rcode: Some(NXDOMAIN), ..dns(&client, name, &[]) });
    }
    assert!(s.found.iter().all(|f| f.finding.subject != "burst"));
}

/// A clock that is set in the middle of a burst does not hide it.
#[test]
fn a_clock_that_is_set_hides_nothing() {
    for jump in [1_000_000_000, -86_400] {
        let mut s = script();
        for (i, name) in generated(12).iter().enumerate() {
            s.dns(i as i64 + if i > 5 { jump } else { 0 }, missing(name));
        }
        assert!(s.found.iter().any(|f| f.finding.subject == "burst"), "{jump}");
    }
}

#[test]
fn forged_clients_are_bounded() {
    let mut s = script();
    for (i, name) in generated(1_500).iter().enumerate() {
        let client = std::net::Ipv4Addr::from(0x0a00_0000 + i as u32).to_string();
        s.dns(0, Dns { rcode: Some(NXDOMAIN), ..dns(&client, name, &[]) });
    }
    assert_eq!(s.status("tier0.dga.clients"), super::super::clients::CLIENTS_MAX as u64);
}

#[test]
fn configuration_is_checked() {
    let config = Config { burst: 1, ..Config::default() };
    assert_eq!(config.validate().unwrap_err().to_string(), "`burst` must lie between 2 and 128");
}
