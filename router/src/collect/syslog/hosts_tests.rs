//! Messages as dnsmasq, rsyslog and OpenWrt's logd send them, of one machine and of several;
//! wrong clocks; then anything at all.

use super::*;
use crate::collect::dnsmasq_log::reader::tests::show;
use crate::collect::syslog::config::Config;
use crate::counters::Counters;
use proptest::prelude::*;

const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

/// 2026-11-23 14:00 UTC and the time of day given.
fn now(seconds: u64) -> Now {
    let since = Duration::from_secs(seconds);
    Now {
        wall: Timestamp::from_secs(1_795_442_400).plus(since),
        mono: Mono::from_nanos(1).plus(since),
    }
}

struct Bench {
    hosts: Hosts,
    sources: Sources,
    counts: Counts,
    counters: Counters,
    out: Vec<Event>,
}

impl Bench {
    fn new() -> Self {
        let counters = Counters::default();
        Self {
            hosts: Hosts::default(),
            sources: Sources::new(&Config::default(), Zone::utc()),
            counts: Counts::new(&counters),
            counters,
            out: Vec::new(),
        }
    }

    fn say(&mut self, peer: IpAddr, at: u64, message: &[u8]) {
        let (sources, counts) = (&mut self.sources, &self.counts);
        self.hosts.message((peer, message), now(at), sources, counts, &mut self.out);
    }

    /// Everything that came out, once nothing more comes.
    fn end(mut self) -> (Vec<String>, std::collections::BTreeMap<String, u64>) {
        self.hosts.finish(&self.counts, &mut self.out);
        let mut shown: Vec<String> = self.out.iter().map(show).collect();
        shown.sort();
        (shown, self.counters.snapshot())
    }
}

#[track_caller]
fn check(messages: &[&str], expected: &[&str]) {
    let mut bench = Bench::new();
    messages.iter().for_each(|message| bench.say(PEER, 10, message.as_bytes()));
    let (shown, counters) = bench.end();
    assert_eq!(shown, expected);
    assert_eq!(counters["syslog.messages"], messages.len() as u64);
}

#[test]
fn an_exchange_in_every_form() {
    let said = [
        "query[A] www.example.com from 192.0.2.31",
        "forwarded www.example.com to 198.51.100.53",
        "reply www.example.com is 203.0.113.80",
    ];
    for before in [
        "<30>Nov 23 14:00:05 router dnsmasq[7]: ",
        "<30>Nov 23 14:00:05 dnsmasq[7]: ",
        "<30>1 2026-11-23T14:00:05.5Z router dnsmasq 7 - - ",
        "<30>1 2026-11-23T15:00:05+01:00 router pihole-FTL 7 - [x@1 a=\"] b\"] \u{feff}",
        "<30>1 - - dnsmasq - - - ",
        "<30>2026-11-23T14:00:05Z router dnsmasq[7]: ",
        "Nov 23 14:00:05 router dnsmasq[7]: ",
        "dnsmasq[7]: ",
        "<30>dnsmasq: ",
    ] {
        let messages: Vec<String> = said.iter().map(|line| format!("{before}{line}")).collect();
        let messages: Vec<&str> = messages.iter().map(String::as_str).collect();
        let shown = ["31 1 www.example.com forwarded 0 =203.0.113.80 @198.51.100.53"];
        let fine = before.contains(".5Z");
        let with_latency = format!("{} 0us", shown[0]);
        check(&messages, &[if fine { &with_latency } else { shown[0] }]);
    }
}

#[test]
fn other_programs_are_counted_and_nothing_else() {
    let mut bench = Bench::new();
    for message in [
        "<13>Nov 23 14:00:05 router cron[9]: (root) CMD (query[A] x.example from 192.0.2.1)",
        "<6>Nov 23 14:00:05 router kernel: [12.3] reject wan in: IN=eth1",
        "<13>1 2026-11-23T14:00:05Z router sshd 9 - - query[A] x.example from 192.0.2.1",
        "<30>Nov 23 14:00:05 router dnsmasq-tftp[9]: sent x",
        "<30>Nov 23 14:00:05 router dnsmasq[9]: some new line",
        "<30>Nov 23 14:00:05 router ",
        "<30>1 2026-11-23T14:00:05Z router",
        "",
        "<30>",
        "\u{fffd}\u{1b}[2J",
    ] {
        bench.say(PEER, 10, message.as_bytes());
    }
    let (shown, counters) = bench.end();
    assert!(shown.is_empty(), "{shown:?}");
    assert_eq!(counters["syslog.messages"], 10);
    assert_eq!(counters["syslog.not_dns"], 10);
}

#[test]
fn machines_and_processes_do_not_mix() {
    let mut bench = Bench::new();
    let line = |host: &str, pid, text: &str| {
        format!("<30>Nov 23 14:00:05 {host} dnsmasq[{pid}]: {text}").into_bytes()
    };
    let ask = "query[A] www.example.com from 192.0.2.31";
    // Four machines or processes ask for the same name; each gets an answer of its own.
    let who = [(PEER, "a", 7), (PEER, "b", 7), (OTHER, "a", 7), (PEER, "a", 8)];
    for (peer, host, pid) in who {
        bench.say(peer, 10, &line(host, pid, ask));
        bench.say(peer, 10, &line(host, pid, "forwarded www.example.com to 198.51.100.53"));
    }
    for (peer, host, pid) in who {
        bench.say(peer, 10, &line(host, pid, "reply www.example.com is <CNAME>"));
    }
    for (n, (peer, host, pid)) in who.into_iter().enumerate() {
        bench.say(peer, 10, &line(host, pid, &format!("reply c.example.com is 203.0.113.{n}")));
    }
    let (shown, counters) = bench.end();
    let own = |n| {
        let begin = "31 1 www.example.com forwarded 0 >c.example.com";
        format!("{begin} =203.0.113.{n} @198.51.100.53")
    };
    assert_eq!(shown, [own(0), own(1), own(2), own(3)]);
    assert_eq!(counters["syslog.orphan_answer"], 0);
}

#[test]
fn the_machine_itself_is_the_sender() {
    check(
        &["<30>Nov 23 14:00:05 a dnsmasq[7]: query[A] www.example.com from 127.0.0.1"],
        &["1 1 www.example.com unknown"],
    );
}

#[test]
fn a_lease_is_a_device() {
    check(
        &["<30>Nov 23 14:00:05 a dnsmasq-dhcp[7]: DHCPACK(br-lan) 192.0.2.31 00:00:5e:00:53:01 pc"],
        &["device 00:00:5e:00:53:01 192.0.2.31 pc"],
    );
}

#[test]
fn a_packet_the_firewall_stopped() {
    let said = "reject lan forward: IN=br-lan OUT=eth1 MAC=00:00:5e:00:53:01:00:00:5e:00:53:1f:08:00 \
                SRC=192.0.2.31 DST=203.0.113.80 LEN=60 PROTO=TCP SPT=51604 DPT=25 ";
    for before in [
        "<4>Nov 23 14:00:05 router kernel: [311423.870453] ",
        "<4>1 2026-11-23T14:00:05Z router kernel - - - [311423.870453] ",
        "<4>kernel: [ 203.842973] ",
        "Mon Nov 23 14:00:05 2026 kern.warn kernel: [311423.870453] ",
        "<4>Nov 23 14:00:05 kernel: ",
    ] {
        let mut bench = Bench::new();
        bench.say(PEER, 5, format!("{before}{said}").as_bytes());
        let [event] = &bench.out[..] else { panic!("{before}: {:?}", bench.out) };
        let Body::Firewall(packet) = &event.body else { panic!("{event:?}") };
        assert_eq!((event.time, packet.prefix.as_str()), (now(5).wall, "reject lan forward"));
        assert_eq!(packet.dst.to_string(), "203.0.113.80:25");
        assert_eq!(bench.end().1["syslog.packets"], 1);
    }
}

#[test]
fn wrong_clocks() {
    #[track_caller]
    fn check(date: &str, expected: i64, gap: Option<&str>) {
        let mut bench = Bench::new();
        let line = format!("<30>{date} a dnsmasq[7]: query[A] x.example from 192.0.2.31");
        bench.say(PEER, 0, line.as_bytes());
        bench.hosts.finish(&bench.counts, &mut bench.out);
        let mut found = None;
        let mut told = None;
        for event in &bench.out {
            match &event.body {
                Body::Dns(dns) => {
                    assert_eq!(dns.source, "syslog");
                    found = Some(event.time.secs() - now(0).wall.secs());
                }
                Body::Gap(gap) => told = Some((gap.reason.as_str(), gap.collector.as_str())),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(found, Some(expected));
        assert_eq!(told, gap.map(|gap| (gap, "syslog")));
    }
    check("Nov 23 14:00:00", 0, None);
    check("Nov 23 14:01:00", 60, None);
    check("Nov 23 14:01:01", 0, None);
    check("Nov 23 13:55:00", -300, None);
    // Kept by a relay while its line was cut: the date is right, and it is said.
    check("Nov 23 13:54:59", -301, Some("late"));
    check("Nov 22 14:00:00", -86_400, Some("late"));
    check("Nov 22 13:59:59", 0, Some("late"));
    check("Jan  1 00:00:17", 0, Some("late"));
    check("1970-01-01T00:00:17Z", 0, Some("late"));
    check("2038-01-01T00:00:17Z", 0, Some("clock-ahead"));
}

#[test]
fn one_sender_with_many_names_takes_no_others_places() {
    let mut bench = Bench::new();
    let say = |bench: &mut Bench, peer, host: u32| {
        let line =
            format!("<30>Nov 23 14:00:05 h{host} dnsmasq[7]: query[A] x.example from 192.0.2.31");
        bench.say(peer, 10, line.as_bytes());
    };
    say(&mut bench, OTHER, 0);
    (0..1_000).for_each(|n| say(&mut bench, PEER, n));
    assert_eq!(bench.hosts.hosts.len(), HOSTS_PER_SOURCE_MAX + 1);
    assert!(bench.hosts.hosts.iter().any(|host| host.peer == OTHER));
    for n in 0..1_000u32 {
        say(&mut bench, IpAddr::from((0x0a00_0000 + n).to_be_bytes()), 0);
    }
    assert_eq!(bench.hosts.hosts.len(), HOSTS_MAX);
    let (shown, counters) = bench.end();
    assert_eq!(shown.len(), 2_001, "every question gives one event");
    let places = (HOSTS_PER_SOURCE_MAX + 1) as u64;
    assert!(counters["syslog.hosts_evicted"] > 2_001 - HOSTS_MAX as u64 - places);
}

proptest! {
    #[test]
    fn any_messages_of_anybody(
        messages in proptest::collection::vec(
            (0u32..40, 0u64..20_000, prop_oneof![
                "<[0-9]{0,4}>(1 )?[A-Za-z0-9:.\\- ]{0,30}dnsmasq(-dhcp)?(\\[[0-9]{0,3}\\])?:? (query\\[A\\] x.example from 192.0.2.1|reply x.example is [A-Z<>0-9.]{0,12})",
                "<30>Nov 23 14:00:05 [a-z]{1,3} dnsmasq\\[[0-9]\\]: query\\[A\\] [a-z.]{1,20} from 192.0.2.1",
                "\\PC{0,80}",
            ]),
            0..120),
    ) {
        let mut bench = Bench::new();
        let n = messages.len() as u64;
        for (peer, at, text) in messages {
            bench.say(IpAddr::from(peer.to_be_bytes()), at, text.as_bytes());
            bench.hosts.idle(now(at).mono, &bench.counts, &mut bench.out);
            prop_assert!(bench.hosts.hosts.len() <= HOSTS_MAX);
        }
        bench.hosts.finish(&bench.counts, &mut bench.out);
        let out = bench.out.iter().filter(|e| matches!(e.body, Body::Dns(_))).count() as u64;
        let counters = bench.counters.snapshot();
        prop_assert_eq!(counters["syslog.messages"], n);
        prop_assert_eq!(counters["syslog.queries"], out);
    }
}
