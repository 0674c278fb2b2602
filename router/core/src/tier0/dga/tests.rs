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
fn missing_by(client: &str, name: &str) -> Dns {
    Dns { rcode: Some(NXDOMAIN), ..dns(client, name, &[]) }
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

/// What several devices ask for, and go on asking for, is no generator's.
#[test]
fn a_name_that_several_devices_ask_for_is_hardly_worth_telling() {
    let name = "xkqzvwpjhtrbn.com";
    let mut s = script();
    for i in 1..=5 {
        s.dns(i, dns(&format!("192.168.1.{i}"), name, &["203.0.113.1"]));
    }
    let scores: Vec<f64> = s.found.iter().map(|f| f.finding.score).collect();
    assert!(scores[..2].iter().all(|score| *score >= 0.2), "{scores:?}");
    assert!(scores[2..].iter().all(|score| *score < 0.2), "{scores:?}");
    let evidence = &s.found[4].finding.evidence;
    assert!(evidence.iter().any(|(key, value)| key == "devices" && value == "5"), "{evidence:?}");
}

/// The address of a device changes (privacy extensions, a second protocol): still one.
#[test]
fn one_device_with_many_addresses_is_one() {
    let name = "xkqzvwpjhtrbn.com";
    let mac = Some("00:00:5e:00:53:01".parse().unwrap());
    let mut s = script();
    for i in 1..=5 {
        s.dns(i, Dns { mac, ..missing_by(&format!("192.168.1.{i}"), name) });
    }
    assert!(s.found.iter().all(|f| f.finding.score >= 0.4), "{:?}", s.found);
}

#[test]
fn a_name_asked_for_days_ago_is_hardly_worth_telling() {
    let name = "xkqzvwpjhtrbn.com";
    let mut s = script();
    for hour in 0..48 {
        // A tick in between: silence that long would count as a jump of the clock.
        (0..12).for_each(|step| s.dns(hour * 3_600 + step * 300, dns("192.168.1.5", name, &[])));
    }
    let scores: Vec<f64> = s.found.iter().map(|f| f.finding.score).collect();
    assert!(scores.first().is_some_and(|score| *score >= 0.2), "{scores:?}");
    assert!(scores.last().is_some_and(|score| *score < 0.2), "{scores:?}");
}

/// One name in vain may be anything; each further one makes it worse, before it is a burst.
#[test]
fn company_raises_the_score() {
    let mut s = script();
    for (i, name) in generated(7).iter().enumerate() {
        s.dns(i as i64, missing(name));
    }
    let scores: Vec<f64> = s.found.iter().map(|f| f.finding.score).collect();
    assert!(scores.is_sorted(), "{scores:?}");
    assert!(scores.last() > scores.first().map(|first| first + 0.1).as_ref(), "{scores:?}");
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
