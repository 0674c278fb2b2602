//! Whole logs as tables: lines in, events out.

use super::*;
use agentmon_core::event::{Answer, DnsStatus};

/// 2026-11-23 14:00 UTC
pub(super) const NOW: Timestamp = Timestamp::from_secs(1_795_442_400);

/// An event in one line.
pub(in crate::collect) fn show(event: &Event) -> String {
    let dns = match &event.body {
        Body::Dns(dns) => dns,
        Body::Device(d) => {
            return format!("device {} {} {}", d.mac, d.ip, d.hostname.as_deref().unwrap_or("-"));
        }
        Body::Gap(g) => return format!("gap {} {:?}", g.reason, g.lost),
        other => return format!("{other:?}"),
    };
    let client = dns.client.to_string();
    let client = client.strip_prefix("192.0.2.").unwrap_or(&client);
    let mut text = format!("{client} {} {} {}", dns.qtype, dns.name, dns.status.as_str());
    if let Some(rcode) = dns.rcode {
        text.push_str(&format!(" {rcode}"));
    }
    for answer in &dns.answers {
        text.push_str(&match answer {
            Answer::Address(ip) => format!(" ={ip}"),
            Answer::Cname(name) => format!(" >{name}"),
            Answer::Other(other) => format!(" {other:?}"),
        });
    }
    if let Some(upstream) = &dns.upstream {
        text.push_str(&format!(" @{upstream}"));
    }
    if let Some(by) = &dns.blocked_by {
        text.push_str(&format!(" by:{by}"));
    }
    if let Some(us) = dns.latency_us {
        text.push_str(&format!(" {us}us"));
    }
    text
}

/// Reads `log` (with `CLIENT` numbers as `.31`) and compares the events.
#[track_caller]
fn check(log: &str, expected: &[&str]) {
    assert_eq!(events(log, true), expected);
}

fn events(log: &str, dated: bool) -> Vec<String> {
    let mut reader = Reader::new(Zone::utc());
    let mut out = Vec::new();
    for line in lines(log, dated) {
        reader.line(line.as_bytes(), NOW, &mut out);
    }
    reader.finish(&mut out);
    let counts = reader.counts();
    assert_eq!(counts.join.exchanges, counts.queries, "one event per question");
    assert_eq!(reader.waiting(), 0);
    out.iter().map(show).collect()
}

/// `~31` stands for 192.0.2.31; `+7 ` before a line for 7 s after the begin; `[9] ` for
/// another process.
fn lines(log: &str, dated: bool) -> Vec<String> {
    let mut second = 0;
    log.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(|line| {
            let mut line = line.replace('~', "192.0.2.");
            if let Some((number, rest)) = line.strip_prefix('+').and_then(|l| l.split_once(' ')) {
                second = number.parse().unwrap();
                line = rest.to_owned();
            }
            let (pid, line) = match line.strip_prefix('[').and_then(|l| l.split_once("] ")) {
                Some((pid, rest)) => (pid.to_owned(), rest.to_owned()),
                None => ("1".to_owned(), line),
            };
            if dated { format!("Nov 23 13:00:{second:02} dnsmasq[{pid}]: {line}") } else { line }
        })
        .collect()
}

#[test]
fn one_question_one_event() {
    check(
        "query[A] www.example.com from ~31
         forwarded www.example.com to ~1
         reply www.example.com is 203.0.113.80
         reply www.example.com is 203.0.113.81
         query[AAAA] WwW.Example.com from ~31
         cached WwW.Example.com is 2001:db8::80
         query[A] nope.example from ~32
         forwarded nope.example to ~1#5335
         reply nope.example is NXDOMAIN
         query[HTTPS] www.example.com from ~31
         forwarded www.example.com to ~1
         reply www.example.com is NODATA",
        &[
            "31 1 www.example.com forwarded 0 =203.0.113.80 =203.0.113.81 @192.0.2.1",
            "31 28 www.example.com cached 0 =2001:db8::80",
            "32 1 nope.example forwarded 3 @192.0.2.1#5335",
            "31 65 www.example.com forwarded 0 @192.0.2.1",
        ],
    );
}

#[test]
fn aliases_belong_to_the_name_that_was_asked() {
    check(
        "query[A] www.example.com from ~31
         forwarded www.example.com to ~1
         reply www.example.com is <CNAME>
         reply cdn.example.net is <CNAME>
         reply edge.example.net is 203.0.113.1
         reply edge.example.net is 203.0.113.2
         query[AAAA] www.example.com from ~31
         cached www.example.com is <CNAME>
         cached cdn.example.net is <CNAME>
         cached edge.example.net is NODATA-IPv6
         query[HTTPS] www.example.com from ~31
         forwarded www.example.com to ~1
         reply www.example.com is <CNAME>",
        &[
            "31 1 www.example.com forwarded 0 >cdn.example.net >edge.example.net =203.0.113.1 =203.0.113.2 @192.0.2.1",
            "31 28 www.example.com cached 0 >cdn.example.net >edge.example.net",
            "31 65 www.example.com forwarded 0 @192.0.2.1",
        ],
    );
}

#[test]
fn questions_that_cross_are_told_apart_by_type() {
    check(
        "query[A] www.example.com from ~31
         forwarded www.example.com to ~1
         query[AAAA] www.example.com from ~31
         forwarded www.example.com to ~1
         query[HTTPS] www.example.com from ~31
         forwarded www.example.com to ~1
         reply www.example.com is NODATA
         reply www.example.com is <CNAME>
         reply cdn.example.net is 2001:db8::1
         reply www.example.com is <CNAME>
         reply cdn.example.net is 203.0.113.1",
        &[
            "31 65 www.example.com forwarded 0 @192.0.2.1",
            "31 28 www.example.com forwarded 0 >cdn.example.net =2001:db8::1 @192.0.2.1",
            "31 1 www.example.com forwarded 0 >cdn.example.net =203.0.113.1 @192.0.2.1",
        ],
    );
}

#[test]
fn two_address_families_at_once() {
    check(
        "query[A] www.example.com from ~31
         query[AAAA] www.example.com from ~31
         forwarded www.example.com to ~1
         forwarded www.example.com to ~1
         reply www.example.com is <CNAME>
         reply cdn.example.net is 2001:db8::1
         reply www.example.com is <CNAME>
         reply cdn.example.net is 203.0.113.1
         reply cdn.example.net is 203.0.113.2",
        &[
            "31 28 www.example.com forwarded 0 >cdn.example.net =2001:db8::1 @192.0.2.1",
            "31 1 www.example.com forwarded 0 >cdn.example.net =203.0.113.1 =203.0.113.2 @192.0.2.1",
        ],
    );
}

#[test]
fn everybody_who_waits_gets_the_answer() {
    check(
        "query[A] x.example from ~31
         forwarded x.example to ~1
         query[A] x.example from ~32
         query[AAAA] x.example from ~33
         forwarded x.example to ~1
         query[A] x.example from ~34
         reply x.example is 203.0.113.9
         query[A] y.example from ~31",
        &[
            "32 1 x.example forwarded 0 =203.0.113.9 @192.0.2.1",
            "34 1 x.example forwarded 0 =203.0.113.9 @192.0.2.1",
            "31 1 x.example forwarded 0 =203.0.113.9 @192.0.2.1",
            "33 28 x.example unknown @192.0.2.1",
            "31 1 y.example unknown",
        ],
    );
}

#[test]
fn a_name_that_does_not_exist_does_so_for_every_type() {
    check(
        "query[A] x.example from ~31
         forwarded x.example to ~1
         query[AAAA] x.example from ~31
         forwarded x.example to ~1
         query[AAAA] x.example from ~32
         reply x.example is NXDOMAIN
         query[A] x.example from ~33
         reply x.example is NXDOMAIN",
        &[
            "31 28 x.example forwarded 3 @192.0.2.1",
            "32 28 x.example forwarded 3 @192.0.2.1",
            "31 1 x.example forwarded 3 @192.0.2.1",
            "33 1 x.example forwarded 3",
        ],
    );
}

#[test]
fn serial_numbers_join_exactly() {
    check(
        "1 ~31/1 query[A] a.example from ~31
         1 ~31/1 forwarded a.example to ~1
         2 ~32/1 query[A] a.example from ~32
         3 ~33/1 query[TXT] b.example from ~33
         3 ~33/1 forwarded b.example to ~1
         3 dnssec-query[DS] example to ~1
         3 reply example is DS for keytag 1, algo 8, digest 2
         1 ~31/1 validation result is INSECURE
         1 ~31/1 reply a.example is <CNAME>
         1 ~31/1 reply c.example is 203.0.113.1
         2 ~32/1 reply query is duplicate
         3 ~33/1 reply b.example is 203.0.113.2
         4 ~31/1 query[A] bad.example from ~31
         4 ~31/1 forwarded bad.example to ~1
         4 ~31/1 reply error is SERVFAIL (EDE: DNSSEC bogus)",
        &[
            "32 1 a.example forwarded 0 >c.example =203.0.113.1 @192.0.2.1",
            "31 1 a.example forwarded 0 >c.example =203.0.113.1 @192.0.2.1",
            "33 16 b.example forwarded 0 \"203.0.113.2\" @192.0.2.1",
            "31 1 bad.example forwarded 2 \"EDE: DNSSEC bogus\" @192.0.2.1",
        ],
    );
}

#[test]
fn local_and_reverse_answers() {
    check(
        "query[A] nas.lan from ~31
         /etc/hosts nas.lan is ~5
         query[PTR] 5.2.0.192.in-addr.arpa from ~31
         /etc/hosts ~5 is nas.lan
         query[PTR] 10.2.0.192.in-addr.arpa from ~31
         config ~10 is NXDOMAIN
         query[PTR] 31.2.0.192.in-addr.arpa from ~31
         forwarded 31.2.0.192.in-addr.arpa to ~1
         query[PTR] 5.2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa from ~31
         forwarded 5.2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa to ~1
         reply 2001:db8::25 is phone.example.com
         reply ~31 is laptop.example.com
         query[A] laptop from ~31
         DHCP laptop.lan is ~31
         query[A] tracker.example from ~31
         config tracker.example is 0.0.0.0
         query[A] listed.example from ~31
         /tmp/adblock.hosts listed.example is ::",
        &[
            "31 1 nas.lan local 0 =192.0.2.5",
            "31 12 5.2.0.192.in-addr.arpa local 0 \"nas.lan\"",
            "31 12 10.2.0.192.in-addr.arpa local 3",
            "31 12 5.2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa forwarded 0 \"phone.example.com\" @192.0.2.1",
            "31 12 31.2.0.192.in-addr.arpa forwarded 0 \"laptop.example.com\" @192.0.2.1",
            "31 1 laptop local 0 =192.0.2.31",
            "31 1 tracker.example blocked 0 =0.0.0.0 by:config",
            "31 1 listed.example blocked 0 =:: by:/tmp/adblock.hosts",
        ],
    );
}

#[test]
fn blocked_by_pi_hole() {
    check(
        "query[A] ads.example.net from ~31
         gravity blocked ads.example.net is 0.0.0.0
         query[HTTPS] ads.example.net from ~31
         gravity blocked ads.example.net is NODATA
         query[A] old.example.net from ~31
         exactly blacklisted old.example.net is 0.0.0.0
         query[A] shop.example.com from ~31
         forwarded shop.example.com to ~1
         reply shop.example.com is <CNAME>
         reply ads.example.net is blocked during CNAME inspection
         gravity blocked (CNAME) shop.example.com is 0.0.0.0
         query[A] up.example from ~31
         forwarded up.example to ~1
         reply up.example is blocked due to upstream response (answer)
         query[A] mask.icloud.com from ~31
         special domain mask.icloud.com is NXDOMAIN
         query[A] rate.example from ~31
         Rate-limiting rate.example is REFUSED (EDE: blocked)
         query[A] rebind.example from ~31
         forwarded rebind.example to ~1
         possible DNS-rebind attack detected: rebind.example",
        &[
            "31 1 ads.example.net blocked 0 =0.0.0.0 by:gravity blocked",
            "31 65 ads.example.net blocked 0 by:gravity blocked",
            "31 1 old.example.net blocked 0 =0.0.0.0 by:exactly blacklisted",
            "31 1 shop.example.com blocked 0 =0.0.0.0 @192.0.2.1 by:gravity blocked (CNAME)",
            "31 1 up.example blocked @192.0.2.1 by:upstream answer refused by the resolver",
            "31 1 mask.icloud.com blocked 3 by:special domain",
            "31 1 rate.example blocked 5 \"EDE: blocked\" by:Rate-limiting",
            "31 1 rebind.example blocked @192.0.2.1 by:DNS-rebind protection",
        ],
    );
}

#[test]
fn errors_without_a_name() {
    // The only question on its way; asked again elsewhere; of two nobody knows which.
    check(
        "query[A] a.example from ~31
         forwarded a.example to ~1
         reply error is SERVFAIL
         query[A] b.example from ~31
         forwarded b.example to ~1
         reply error is REFUSED
         forwarded b.example to ~2
         reply b.example is 203.0.113.1
         query[A] c.example from ~31
         forwarded c.example to ~1
         query[A] d.example from ~31
         forwarded d.example to ~1
         reply error is SERVFAIL
         reply d.example is 203.0.113.2
         +9 query[A] e.example from ~31
         config error is REFUSED (EDE: not ready)",
        &[
            "31 1 a.example forwarded 2 @192.0.2.1",
            "31 1 b.example forwarded 0 =203.0.113.1 @192.0.2.2",
            "31 1 d.example forwarded 0 =203.0.113.2 @192.0.2.1",
            "31 1 c.example forwarded 2 @192.0.2.1",
            "31 1 e.example local 5 \"EDE: not ready\"",
        ],
    );
}

/// The resolver prints what it was told; its client gets an error.
#[test]
fn forged_answers_do_not_reach_the_client() {
    check(
        "query[A] a.example from ~31
         forwarded a.example to 192.0.2.1
         dnssec-query[DS] example to 192.0.2.1
         reply example is no DS
         validation result is BOGUS
         reply a.example is <CNAME>
         reply b.example is 203.0.113.1
         query[A] c.example from ~31
         forwarded c.example to 192.0.2.1
         validation result is SECURE
         reply c.example is 203.0.113.2
         7 ~31/1 query[A] d.example from ~31
         7 ~31/1 forwarded d.example to 192.0.2.1
         7 ~31/1 validation d.example is BOGUS (EDE: DNSSEC signature expired)
         7 ~31/1 reply d.example is 203.0.113.3
         8 ~31/1 query[A] e.example from ~31
         8 ~31/1 validation e.example is BOGUS
         query[A] f.example from ~31
         forwarded f.example to 192.0.2.1
         reply f.example is 203.0.113.4",
        &[
            "31 1 a.example forwarded 2 \"EDE: DNSSEC bogus\" @192.0.2.1",
            "31 1 c.example forwarded 0 =203.0.113.2 @192.0.2.1",
            "31 1 d.example forwarded 2 \"EDE: DNSSEC signature expired\" @192.0.2.1",
            "31 1 f.example forwarded 0 =203.0.113.4 @192.0.2.1",
            "31 1 e.example unknown",
        ],
    );
}

#[test]
fn late_and_lost_answers() {
    check(
        "reply orphan.example is 203.0.113.1
         query[A] a.example from ~31
         forwarded a.example to ~1
         query[A] b.example from ~31
         +6 query[A] c.example from ~31
         reply a.example is 203.0.113.1
         started, version 2.90 cachesize 150
         query[A] d.example from ~31",
        &[
            "31 1 a.example timeout @192.0.2.1",
            "31 1 b.example unknown",
            "31 1 c.example unknown",
            "31 1 d.example unknown",
        ],
    );
}

#[test]
fn stale_answers_and_their_refresh() {
    check(
        "query[A] a.example from ~31
         cached-stale a.example is 203.0.113.1
         forwarded a.example to ~1
         reply a.example is 203.0.113.2
         query[A] b.example from ~31
         cached b.example is <CNAME>
         forwarded b.example to ~1
         reply b.example is <CNAME>
         reply c.example is 203.0.113.3",
        &[
            "31 1 a.example cached 0 =203.0.113.1",
            "31 1 b.example forwarded 0 >c.example =203.0.113.3 @192.0.2.1",
        ],
    );
}

#[test]
fn processes_of_tcp_questions_do_not_mix() {
    check(
        "query[A] a.example from ~31
         forwarded a.example to ~1
         [7] query[TXT] a.example from ~32
         [7] forwarded a.example to ~1
         reply a.example is <CNAME>
         [7] reply a.example is some text is here
         reply b.example is 203.0.113.1",
        &[
            "31 1 a.example forwarded 0 >b.example =203.0.113.1 @192.0.2.1",
            "32 16 a.example forwarded 0 \"some text is here\" @192.0.2.1",
        ],
    );
}

#[test]
fn hostile_names_and_texts() {
    check(
        "query[A] x is y.example from ~31
         forwarded x is y.example to ~1
         reply x is y.example is 203.0.113.1
         query[TXT] t.example from ~31
         forwarded t.example to ~1
         reply t.example is other.example is 203.0.113.2
         query[A] a..b.example from ~31
         config a..b.example is NXDOMAIN
         query[A] <name unprintable> from ~31
         config <name unprintable> is NXDOMAIN",
        &[
            "31 1 x\\032is\\032y.example forwarded 0 =203.0.113.1 @192.0.2.1",
            "31 16 t.example forwarded 0 \"other.example is 203.0.113.2\" @192.0.2.1",
            "31 1 a.b.example local 3",
            "31 1 <name\\032unprintable> local 3",
        ],
    );
}

#[test]
fn any_asks_for_all_types() {
    check(
        "query[ANY] a.example from ~31
         forwarded a.example to ~1
         reply a.example is 203.0.113.1
         reply a.example is 2001:db8::1
         reply a.example is <MX>",
        &["31 255 a.example forwarded 0 =203.0.113.1 =2001:db8::1 \"<MX>\" @192.0.2.1"],
    );
}

#[test]
fn leases_gaps_and_other_programs() {
    let mut reader = Reader::new(Zone::utc());
    let mut out = Vec::new();
    for line in [
        "May  8 01:57:01 dnsmasq-dhcp[7]: DHCPACK(br-lan) 192.0.2.31 00:00:5e:00:53:1f lap\x1b[2Jtop",
        "May  8 01:57:01 dnsmasq-dhcp[7]: 1608555112 tags: lan, br-lan",
        "May  8 01:57:02 dnsmasq[7]: overflow: 12 log entries lost",
        "May  8 01:57:03 router cron[9]: query[A] a.example from 192.0.2.1",
        "May  8 01:57:03 dnsmasq[7]: a line of another time",
        "",
    ] {
        reader.line(line.as_bytes(), NOW, &mut out);
    }
    let shown: Vec<_> = out.iter().map(show).collect();
    let lease = "device 00:00:5e:00:53:1f 192.0.2.31 lap\\x1b[2Jtop";
    assert_eq!(shown, [lease, "gap log-lost Some(12)"]);
    assert_eq!(out[0].time.to_string(), "2026-05-08T01:57:01.000000Z");
    let counts = reader.counts();
    assert_eq!((counts.lines, counts.leases, counts.lines_lost), (6, 1, 12));
    assert_eq!((counts.other_programs, counts.unknown_lines), (1, 1));
}

#[test]
fn latency_where_the_log_has_fractions() {
    let log = "2026-06-28 08:47:18.378 query[A] a.example from 192.0.2.31
        2026-06-28 08:47:18.379 forwarded a.example to 192.0.2.1
        2026-06-28 08:47:18.401 reply a.example is 203.0.113.1";
    let mut reader = Reader::new(Zone::utc());
    let mut out = Vec::new();
    log.lines().for_each(|line| reader.line(line.trim().as_bytes(), NOW, &mut out));
    reader.idle(Duration::from_millis(RUN_IDLE_MS), &mut out);
    let shown: Vec<_> = out.iter().map(show).collect();
    assert_eq!(shown, ["31 1 a.example forwarded 0 =203.0.113.1 @192.0.2.1 23000us"]);
    assert_eq!(out[0].time.to_string(), "2026-06-28T08:47:18.378000Z");
}

#[test]
fn silence_completes_and_gives_up() {
    let mut reader = Reader::new(Zone::utc());
    let mut out = Vec::new();
    for line in lines(
        "query[A] a.example from ~31\n query[A] b.example from ~31\n cached b.example is ~9",
        true,
    ) {
        reader.line(line.as_bytes(), NOW, &mut out);
    }
    reader.idle(Duration::from_millis(RUN_IDLE_MS - 1), &mut out);
    assert_eq!(out.len(), 0);
    reader.idle(Duration::from_millis(RUN_IDLE_MS), &mut out);
    assert_eq!(out.iter().map(show).collect::<Vec<_>>(), ["31 1 b.example cached 0 =192.0.2.9"]);
    reader.idle(Duration::from_secs(5), &mut out);
    assert_eq!(show(&out[1]), "31 1 a.example unknown");
}

#[test]
fn too_many_open_questions_go_out_early() {
    let mut reader = Reader::new(Zone::utc());
    let mut out = Vec::new();
    for i in 0..2_000 {
        let line = format!("Nov 23 13:00:00 dnsmasq[1]: query[A] n{i}.example from 192.0.2.31");
        reader.line(line.as_bytes(), NOW, &mut out);
        assert!(reader.waiting() <= super::super::join::EXCHANGES_MAX);
    }
    reader.finish(&mut out);
    assert_eq!(out.len(), 2_000);
    assert_eq!(reader.counts().join.evicted, 1_488);
    let Body::Dns(dns) = &out[0].body else { panic!("no DNS event") };
    assert_eq!(dns.status, DnsStatus::Unknown);
}

#[test]
fn a_clock_set_back_does_not_hold_questions() {
    let mut reader = Reader::new(Zone::utc());
    let mut out = Vec::new();
    for line in [
        "Nov 23 13:00:00 dnsmasq[1]: query[A] a.example from 192.0.2.31",
        "Nov 23 12:00:00 dnsmasq[1]: query[A] b.example from 192.0.2.31",
    ] {
        reader.line(line.as_bytes(), NOW, &mut out);
    }
    assert_eq!(out.len(), 1);
}

/// Every known shape, one a line: `id`, tab, line.
const SHAPES: &str = include_str!("shapes.tsv");

fn shapes() -> impl Iterator<Item = (&'static str, &'static str)> {
    SHAPES.lines().filter(|line| !line.starts_with("# ")).map(|line| line.split_once('\t').unwrap())
}

#[test]
fn every_known_shape_is_understood() {
    for (id, line) in shapes().filter(|(id, _)| !id.starts_with("LF-")) {
        let mut reader = Reader::new(Zone::utc());
        let program = if id.starts_with(['D', 'R']) && id.contains("D-") {
            "dnsmasq-dhcp"
        } else {
            "dnsmasq"
        };
        let line = match id.strip_prefix('P') {
            Some(_) => line.to_owned(),
            None => format!("Nov 23 13:00:00 {program}[1]: {line}"),
        };
        let mut out = Vec::new();
        reader.line(line.as_bytes(), NOW, &mut out);
        let counts = reader.counts();
        assert_eq!(counts.unknown_lines + counts.unknown_sources + counts.unknown_types, 0, "{id}");
        assert_eq!(counts.other_programs, 0, "{id}");
        reader.finish(&mut out);
        let expected = match id {
            "Q-opcode" | "P8" => 0,
            "P9" | "D-ack" | "D-ack-n" | "D-xid" | "D6-rep" | "M-lost" => 1,
            "X-q" | "X-v6" | "X-tcp" | "X-udp" => 1,
            _ => usize::from(id.starts_with("Q-") || id.starts_with('P')),
        };
        assert_eq!(out.len(), expected, "{id}: {line}");
    }
}

#[test]
fn every_known_shape_cut_anywhere() {
    let mut reader = Reader::new(Zone::utc());
    let mut out = Vec::new();
    for (_, line) in shapes() {
        for n in 0..line.len() {
            reader.line(&line.as_bytes()[..n], NOW, &mut out);
            reader.line(&line.as_bytes()[n..], NOW, &mut out);
            let dated = [b"Nov 23 13:00:00 dnsmasq[1]: ", &line.as_bytes()[..n]].concat();
            reader.line(&dated, NOW, &mut out);
        }
    }
    reader.finish(&mut out);
    let counts = reader.counts();
    assert_eq!(counts.join.exchanges, counts.queries);
}
