//! Tor, VPNs, addresses without a name, homes, ports, many addresses, neighbours.

use super::*;

const NETWORKS: &str = "@\ttor\t\tx; y; 2026\n198.51.100.128/25\n@\tvpn\tacme\tx; y; 2026\n\
    203.0.113.128/25\n@\thosting\tbox\tx; y; 2026\n192.0.2.128/25\n\
    @\tresidential\t\tx; y; 2026\n198.51.100.64/27\n";

fn home() -> Home {
    let home = Home::new();
    home.networks(NETWORKS);
    home
}

#[test]
fn a_device_that_begins_with_tor_is_told() {
    let home = home();
    home.talk(Talk { port: 9001, ..Talk::address(2, "198.51.100.130") });
    let findings = home.findings();
    let found = findings.iter().find(|f| f.rule == "destination").unwrap();
    assert_eq!((found.subject.as_str(), found.score), ("tor", 0.6));
    assert!(found.why.contains("the Tor network for the first time"), "{}", found.why);
}

#[test]
fn a_vpn_by_its_port_is_told_and_the_usual_one_is_not() {
    let home = home();
    let vpn = |ago, device| Talk {
        ago,
        port: 51_820,
        proto: 17,
        ..Talk::address(device, "203.0.113.130")
    };
    home.talk(vpn(HOUR, 1));
    let found = home.one("destination", "vpn");
    assert_eq!(evidence(&found, "provider"), "acme");

    let home = self::home();
    (0..20).for_each(|day| home.talk(vpn(day * DAY + HOUR, 1)));
    home.silent();
}

#[test]
fn an_address_that_nobody_resolved_is_told_once_it_lasts() {
    let home = home();
    let talk = |hour| Talk { ago: hour * HOUR, port: 8443, ..Talk::address(3, "192.0.2.200") };
    home.talk(talk(1));
    home.silent();
    (2..6).for_each(|hour| home.talk(talk(hour)));
    let findings = home.findings();
    let found = findings.iter().find(|f| f.rule == "lasting-address").unwrap();
    assert_eq!((found.subject.as_str(), evidence(found, "hours")), ("192.0.2.200", "5"));
    assert!(found.score >= 0.5 && found.why.contains("at a hosting provider"), "{found:?}");
    // An answer of the last weeks explains it, whoever asked.
    home.asks(10 * DAY, 1, "explained.example", 1, "192.0.2.200");
    assert!(!home.findings().iter().any(|f| f.rule == "lasting-address"));
}

#[test]
fn time_games_and_file_sharing_are_not() {
    let home = home();
    for hour in 0..12 {
        home.talk(Talk {
            ago: hour * HOUR,
            port: 123,
            proto: 17,
            ..Talk::address(1, "192.0.2.201")
        });
        home.talk(Talk {
            ago: hour * HOUR,
            port: 27_015,
            proto: 17,
            ..Talk::address(2, "192.0.2.202")
        });
        for peer in 0..30 {
            let dst = format!("198.51.100.{}", 64 + peer);
            let shares = Talk { ago: hour * HOUR, out: 500_000, ..Talk::address(4, &dst) };
            home.talk(Talk { port: 40_000 + u16::try_from(peer).unwrap(), proto: 17, ..shares });
        }
    }
    home.silent();
}

#[test]
fn a_lasting_connection_into_a_home_is_told() {
    let home = home();
    home.talk(Talk { out: 500_000, ..Talk::address(4, "198.51.100.70") });
    let found = home.one("home-peer", "198.51.100.70");
    assert!(found.why.contains("what seems to be a home's"), "{}", found.why);
}

#[test]
fn a_port_never_used_in_all_its_history() {
    let home = home();
    home.talk(Talk { port: 4444, ..Talk::address(3, "192.0.2.200") });
    let found = home.one("rare-port", "4444/tcp");
    assert!(found.why.contains("never used in all its history"), "{}", found.why);
    // Used two weeks ago, it is no news.
    home.talk(Talk { ago: 14 * DAY, port: 4444, ..Talk::address(3, "192.0.2.9") });
    home.silent();
}

#[test]
fn many_new_ports_are_one_finding() {
    let home = home();
    for port in 7_001..7_012 {
        home.talk(Talk { port, ..Talk::to(3, "a.game.example", "192.0.2.9") });
    }
    let findings: Vec<_> = home.findings().into_iter().filter(|f| f.rule == "rare-port").collect();
    assert_eq!(findings.len(), 1);
    assert_eq!(
        (findings[0].subject.as_str(), evidence(&findings[0], "count")),
        ("many ports", "11")
    );
}

#[test]
fn far_more_addresses_than_ever() {
    let many = |home: &Home, ago: i64, replied: bool| {
        for n in 0..400u16 {
            let dst = format!("198.18.{}.{}", n / 200, n % 200);
            home.talk(Talk { ago, replied, port: 80, ..Talk::address(2, &dst) });
        }
    };
    let home = home();
    many(&home, 600, false);
    let found = home.one("fan-out", "addresses");
    assert_eq!((evidence(&found, "addresses"), evidence(&found, "unanswered")), ("400", "400"));
    // Who always does so is used to it.
    let home = self::home();
    (0..10).for_each(|day| many(&home, day * DAY + 600, true));
    home.silent();
}

#[test]
fn a_scan_of_this_network_is_told_and_a_phone_that_looks_for_the_tv_is_not() {
    let home = home();
    for n in 10..40 {
        home.talk(Talk { port: 445, replied: false, ..Talk::address(1, &address(n)) });
    }
    let found = home.one("inner-scan", "445/tcp");
    assert_eq!(evidence(&found, "targets"), "30");

    let home = self::home();
    for n in 10..15 {
        home.talk(Talk { port: 8009, ..Talk::address(1, &address(n)) });
    }
    for group in ["239.255.255.250", "224.0.0.251", "192.168.77.255"] {
        home.talk(Talk { port: 1900, proto: 17, ..Talk::address(1, group) });
    }
    home.silent();
}

#[test]
fn remote_control_that_was_never_seen() {
    let home = home();
    let ssh =
        |ago, device, to: u8| (Talk { ago, port: 22, ..Talk::address(device, "") }, address(to));
    let said = |home: &Home, (talk, dst): (Talk<'_>, String)| home.talk(Talk { dst: &dst, ..talk });
    said(&home, ssh(100, 1, 3));
    let found = home.one("lateral", "192.168.77.3:22/tcp");
    assert!(found.why.contains("for the first time"), "{}", found.why);
    // Every day, and by either of its addresses.
    for day in 1..10 {
        said(&home, ssh(day * DAY, 1, 3));
    }
    home.silent();
}
