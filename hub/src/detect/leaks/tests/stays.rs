//! `long` and `strobe`, with notifications, VPNs, films and resolvers.

use super::*;

fn stay(device: u8, dst: &'static str, hours: i64) -> Talk<'static> {
    Talk { lasts: hours * HOUR, out: 40_000, inward: 90_000, ..Talk::address(device, dst) }
}

#[test]
fn a_connection_that_never_ends_to_an_address_is_told_open_or_not() {
    for open in [false, true] {
        let home = Home::new();
        home.talk(Talk { open, port: 8443, ..stay(1, "198.51.100.9", 30) });
        let found = home.one("long", "198.51.100.9:8443/tcp");
        let word = if open { "has been open for 1d 6h" } else { "was open for 1d 6h" };
        assert!(found.why.contains(word), "{}", found.why);
        assert_eq!(evidence(&found, "rita_score"), "0.800");
    }
}

#[test]
fn one_that_is_made_anew_all_day_is_told() {
    let home = Home::new();
    for hour in 0..23 {
        let part =
            Talk { ago: hour * HOUR + 60, lasts: 3_500, port: 8443, ..stay(1, "198.51.100.9", 1) };
        home.talk(part);
    }
    let found = home.findings().into_iter().find(|f| f.rule == "long").unwrap();
    assert!(found.why.contains("one after the other, last all day"), "{}", found.why);
    assert_eq!(found.subject, "198.51.100.9:8443/tcp");
}

#[test]
fn what_is_meant_to_stay_open_is_not() {
    let home = Home::new();
    for device in 1..=4 {
        for day in 0..20 {
            let push = Talk { ago: day * DAY, ..stay(device, "203.0.113.60", 23) };
            home.talk(Talk { name: Some("push.vendor.example"), ..push });
        }
    }
    home.talk(Talk { port: 5228, ..stay(1, "203.0.113.61", 40) });
    home.talk(Talk { port: 51_820, proto: 17, ..stay(2, "203.0.113.62", 40) });
    // Six hours of film, and a call of two.
    let film = Talk {
        name: Some("cdn.videohost.example"),
        inward: 9_000_000_000,
        ..stay(3, "203.0.113.63", 9)
    };
    home.talk(film);
    home.talk(Talk {
        name: Some("call.example"),
        port: 3478,
        proto: 17,
        ..stay(4, "203.0.113.64", 2)
    });
    home.silent();
}

#[test]
fn a_strobe_is_told_and_a_resolver_is_not() {
    let mut home = Home::new();
    home.config.strobe_connections = 1_000;
    for n in 0..1_200 {
        let talk = Talk { ago: n * 60, lasts: 1, ..Talk::to(2, "tick.example", "203.0.113.70") };
        home.talk(talk);
        home.talk(Talk { port: 53, proto: 17, ..Talk { name: None, dst: "203.0.113.53", ..talk } });
    }
    let found = home.one("strobe", "tick.example:443/tcp");
    assert_eq!(evidence(&found, "connections"), "1200");
}
