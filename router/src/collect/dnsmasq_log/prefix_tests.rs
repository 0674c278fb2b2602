//! Every known shape of prefix, one line each; clocks set back; then any bytes.

use super::*;
use proptest::prelude::*;

/// 2026-11-23 14:00 UTC
const NOW: Timestamp = Timestamp::from_secs(1_795_442_400);
const Q: &str = "query[A] www.example.com from 192.0.2.31";

#[track_caller]
fn check(line: &str, time: &str, program: Program, pid: u32, message: &str) {
    let mut stamper = Stamper::new(Zone::utc());
    let got = stamper.read(line.as_bytes(), NOW).unwrap();
    assert_eq!(got.time.to_string().trim_end_matches('Z'), format!("2026-{time}"));
    assert_eq!((got.program, got.pid), (program, pid));
    assert_eq!(String::from_utf8_lossy(&got.message), message);
}

#[test]
fn shapes() {
    use Program::{Dhcp, Dnsmasq, Other};
    let c = |line: &str, time, pid| check(&format!("{line}{Q}"), time, Dnsmasq, pid, Q);
    c("May  8 01:57:01 dnsmasq[1234]: ", "05-08T01:57:01.000000", 1234);
    c("May 18 01:57:01 pihole dnsmasq[1234]: ", "05-18T01:57:01.000000", 1234);
    c("dnsmasq: ", "11-23T14:00:00.000000", 0);
    c("", "11-23T14:00:00.000000", 0);
    c("Mon Mar 23 13:16:49 2026 daemon.info dnsmasq[1]: ", "03-23T13:16:49.000000", 1);
    c("<30>Mar 23 13:16:49 router dnsmasq[1234]: ", "03-23T13:16:49.000000", 1234);
    c("<30>Mar 23 13:16:49 dnsmasq[1234]: ", "03-23T13:16:49.000000", 1234);
    let rfc5424 = "<30>1 2026-03-23T13:16:49.123456+01:00 router dnsmasq 1234 - ";
    c(&format!("{rfc5424}- "), "03-23T12:16:49.123456", 1234);
    c(&format!("{rfc5424}[a b=\"c\"] "), "03-23T12:16:49.123456", 1234);
    c(&format!("{rfc5424}[a b=\"\\] \\\"\"][c d=\"e\"] "), "03-23T12:16:49.123456", 1234);
    c("<30>1 - router dnsmasq 7 - - ", "11-23T14:00:00.000000", 7);
    c("2026-03-23T13:16:49.5Z router dnsmasq[9]: ", "03-23T13:16:49.500000", 9);
    c("2026-06-28 08:47:18.378 ", "06-28T08:47:18.378000", 0);
    check(
        "May  8 01:57:01 dnsmasq-dhcp[7]: DHCPACK(x) ",
        "05-08T01:57:01.000000",
        Dhcp,
        7,
        "DHCPACK(x) ",
    );
    check("Mar 23 13:16:49 dnsmasq-tftp: x", "03-23T13:16:49.000000", Other, 0, "x");
    let cron = "router cron[7]: (root) CMD";
    check(&format!("Mar 23 13:16:49 {cron}"), "03-23T13:16:49.000000", Other, 0, cron);
}

#[test]
fn hosts() {
    #[track_caller]
    fn check(line: &str, host: &str) {
        let mut stamper = Stamper::new(Zone::utc());
        let got = stamper.read(line.as_bytes(), NOW).unwrap();
        assert_eq!(String::from_utf8_lossy(got.host), host);
    }
    check("<30>Mar 23 13:16:49 router dnsmasq[1]: x", "router");
    check("<30>Mar 23 13:16:49 dnsmasq[1]: x", "");
    check("<30>Mar 23 13:16:49 router cron[1]: x", "router");
    check("<30>Mar 23 13:16:49 cron[1]: x y: z", "");
    check("<30>1 2026-03-23T13:16:49Z router dnsmasq 1 - - x", "router");
    check("<30>1 2026-03-23T13:16:49Z - dnsmasq 1 - - x", "");
    check("2026-03-23T13:16:49+01:00 router dnsmasq[1]: x", "router");
    check("dnsmasq: x", "");
}

#[test]
fn elements_of_the_rest_api() {
    let line = format!(r#"{{"timestamp":1795442401.25,"message":"{Q}","prio":null}}"#);
    check(&line, "11-23T14:00:01.250000", Program::Dnsmasq, 0, Q);
    let escaped = r#"{"message":"a \"b\"","timestamp":null}"#;
    check(escaped, "11-23T14:00:00.000000", Program::Dnsmasq, 0, "a \"b\"");
    check("{broken", "11-23T14:00:00.000000", Program::Dnsmasq, 0, "{broken");
}

#[test]
fn empty_lines() {
    let mut stamper = Stamper::new(Zone::utc());
    assert_eq!(stamper.read(b"", NOW), None);
    assert_eq!(stamper.read(b"May  8 01:57:01 ", NOW), None);
}

/// Lines and the seconds between them, as the clock on the wall goes on.
#[test]
fn time_goes_on_over_new_year_and_in_an_hour_that_exists_twice() {
    let zone = "CET-1CEST,M3.5.0,M10.5.0/3".to_owned().try_into().unwrap();
    let mut stamper = Stamper::new(Zone::of(&zone));
    // 2027-01-01 12:00 UTC
    let now = Timestamp::from_secs(1_798_804_800);
    let mut last = None;
    for (stamp, seconds) in [
        ("Oct 25 01:59:59", 0),
        ("Oct 25 02:00:00", 1),
        ("Oct 25 02:59:59", 3_599),
        ("Oct 25 02:00:00", 1),
        ("Oct 25 02:58:00", 3_480),
        ("Oct 25 03:00:00", 120),
        ("Dec 31 23:59:59", 5_864_399),
        ("Jan  1 00:00:00", 1),
    ] {
        let time = stamper.read(format!("{stamp} dnsmasq[1]: x").as_bytes(), now).unwrap().time;
        let passed = last.map_or(0, |last| time.since(last).as_secs());
        assert_eq!(passed, seconds, "{stamp} is {time}");
        last = Some(time);
    }
    assert_eq!(last.unwrap().to_string(), "2026-12-31T23:00:00.000000Z");
}

proptest! {
    #[test]
    fn any_bytes(line in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut stamper = Stamper::new(Zone::utc());
        if let Some(got) = stamper.read(&line, NOW) {
            prop_assert!(got.message.len() <= line.len());
        }
    }
    #[test]
    fn nearly_right(line in "(<[0-9]{0,4}>)?(1 )?([A-Z][a-z]{2} [ 0-9][0-9] [0-9:]{8}|[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9:]{8}[.0-9]{0,12}([+-][0-9:]{2,5}|Z)?) .{0,40}") {
        let mut stamper = Stamper::new(Zone::utc());
        let _seen = stamper.read(line.as_bytes(), NOW);
    }
}
