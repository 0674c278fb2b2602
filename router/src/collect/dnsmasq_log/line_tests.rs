//! Every known shape of message, one line each; then any bytes.

use proptest::prelude::*;

use super::super::value::{Value, address};
use super::*;

/// A message in one line: `kind|name|value...`.
fn show(message: &[u8]) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let Message { id, what } = Message::parse(message);
    let body = match what {
        What::Query { qtype, name, client } => format!("query {qtype} {} {client}", text(name)),
        What::Forwarded { name, to } => format!("forwarded {} {}", text(name), text(to)),
        What::Answer(a) => {
            let (name, value) = a.splits().next().unwrap();
            let value = match value {
                Value::Text(t) => format!("text:{}", text(t)),
                other => format!("{other:?}"),
            };
            let unknown = if a.unknown_source { "?" } else { "" };
            let source =
                if a.source.is_empty() { String::new() } else { format!("({})", text(a.source)) };
            let ede = a.ede.map(|e| format!(" ede:{}", text(e))).unwrap_or_default();
            format!("{unknown}{:?}{source} {} {value}{ede}", a.origin, text(name))
        }
        What::Lease(l) => {
            format!("lease {} {} {} {}", text(l.iface), l.ip, l.mac, text(l.name))
        }
        What::Rebind(name) => format!("rebind {}", text(name)),
        other => format!("{other:?}"),
    };
    if id == 0 { body } else { format!("#{id} {body}") }
}

#[track_caller]
fn check(message: &str, expected: &str) {
    assert_eq!(show(message.as_bytes()), expected, "{message}");
}

#[test]
fn queries() {
    let q = |kind: &str, number: u16| {
        check(
            &format!("query[{kind}] www.example.com from 192.0.2.31"),
            &format!("query {number} www.example.com 192.0.2.31"),
        );
    };
    q("A", 1);
    q("AAAA", 28);
    q("HTTPS", 65);
    q("SVCB", 64);
    q("TXT", 16);
    q("type=65400", 65_400);
    q("WHAT", 0);
    check("query[AAAA] www.example.com from 2001:db8::25", "query 28 www.example.com 2001:db8::25");
    check("query[A] x from ::ffff:192.0.2.1", "query 1 x 192.0.2.1");
    check("query[A] x from fe80::1%br-lan", "query 1 x fe80::1");
    check("query[NS] . from 192.0.2.31", "query 2 . 192.0.2.31");
    check("query[A]  from 192.0.2.31", "query 1 . 192.0.2.31");
    check("query[A] a b.example from 192.0.2.31", "query 1 a b.example 192.0.2.31");
    check("query[A] a from b from 192.0.2.31", "query 1 a from b 192.0.2.31");
    check("query[A] <name unprintable> from 192.0.2.31", "query 1 <name unprintable> 192.0.2.31");
    check("auth[A] www.example.com from 198.51.100.9", "query 1 www.example.com 198.51.100.9");
    check("non-query opcode 4 from 192.0.2.31", "Other");
    check("query[A] www.example.com from nowhere", "Unknown");
    check("query[A] www.example.com", "Unknown");
}

#[test]
fn upstream() {
    check(
        "forwarded www.example.com to 127.0.0.1#5335",
        "forwarded www.example.com 127.0.0.1#5335",
    );
    check("forwarded a to b to 2001:db8::53#5335", "forwarded a to b 2001:db8::53#5335");
    check("reply www.example.com is 192.0.2.80", "Upstream www.example.com Address(192.0.2.80)");
    check(
        "reply www.example.com is 2001:db8::80",
        "Upstream www.example.com Address(2001:db8::80)",
    );
    check("reply www.example.com is <CNAME>", "Upstream www.example.com Cname");
    check("reply www.example.com is NODATA", "Upstream www.example.com NoData(None)");
    check("reply www.example.com is NODATA-IPv4", "Upstream www.example.com NoData(Some(1))");
    check("reply www.example.com is NODATA-IPv6", "Upstream www.example.com NoData(Some(28))");
    check("reply www.example.com is NXDOMAIN", "Upstream www.example.com NxDomain");
    check("reply www.example.com is <HTTPS>", "Upstream www.example.com text:<HTTPS>");
    check("reply 192.0.2.31 is laptop.example.com", "Upstream 192.0.2.31 text:laptop.example.com");
    check("reply error is SERVFAIL", "Upstream error Rcode(2)");
    check("reply error is not implemented", "Upstream error Rcode(4)");
    check("reply error is 23", "Upstream error text:23");
    check(
        "reply error is SERVFAIL (EDE: DNSSEC bogus)",
        "Upstream error Rcode(2) ede:DNSSEC bogus",
    );
    check("reply txt.example.com is hello world", "Upstream txt.example.com text:hello world");
    check("reply is truncated", "Other");
    check("reply example.com is truncated[DS]", "Upstream example.com Truncated");
    check("reply query is duplicate", "Duplicate");
    check("reply opcode is not implemented", "Other");
    for dnssec in [
        "com is DNSKEY keytag 12345, algo 8",
        "example.com is DS for keytag 12345, algo 8, digest 2",
        "example.com is DS keytag 12345, algo 8, digest 2",
        "example.com is no DS",
        "example.com is no DS/cut",
        "example.com is BOGUS DNSKEY",
    ] {
        let name = dnssec.split(' ').next().unwrap();
        check(&format!("reply {dnssec}"), &format!("Upstream {name} Dnssec"));
    }
    for blocked in [
        "blocked due to upstream response (header)",
        "blocked due to upstream response (answer)",
        "blocked during CNAME inspection",
    ] {
        check(&format!("reply x.example is {blocked}"), "Upstream x.example Blocked");
    }
    check("validation result is BOGUS", "Bogus(None)");
    check("validation 31.2.0.192.in-addr.arpa is BOGUS", "Bogus(None)");
    let expired = "validation www.example.com is BOGUS (EDE: DNSSEC signature expired)";
    check(expired, &format!("Bogus(Some({:?}))", b"DNSSEC signature expired"));
    for dnssec in [
        "dnssec-query[DS] example.com to 127.0.0.1#5335",
        "dnssec-retry[DS] example.com to 127.0.0.1#5335",
        "validation result is INSECURE",
        "validation www.example.com is INSECURE",
        "5801 dnssec-query[DS] example.com to 192.0.2.1",
    ] {
        assert!(show(dnssec.as_bytes()).ends_with("Dnssec"), "{dnssec}");
    }
}

#[test]
fn local() {
    check("cached www.example.com is 192.0.2.80", "Cache www.example.com Address(192.0.2.80)");
    check("cached-stale www.example.com is <CNAME>", "Cache www.example.com Cname");
    check("cached reply is truncated", "Other");
    check("config localhost is NODATA", "Local localhost NoData(None)");
    check("config error is REFUSED (EDE: not ready)", "Local error Rcode(5) ede:not ready");
    check("/etc/hosts nas is 192.0.2.5", "Local(/etc/hosts) nas Address(192.0.2.5)");
    check("/etc/hosts 192.0.2.5 is nas", "Local(/etc/hosts) 192.0.2.5 text:nas");
    check("/etc/hosts is a file", "Unknown");
    check("DHCP laptop.example.com is 192.0.2.31", "Local laptop.example.com Address(192.0.2.31)");
    check("auth host.example.com is 192.0.2.9", "Local host.example.com Address(192.0.2.9)");
    check("auth reply is truncated", "Other");
    check("Pi-hole hostname pi.hole is 192.0.2.2", "Local pi.hole Address(192.0.2.2)");
    check("ipset add vpn 203.0.113.5 www.example.com", "Other");
    check("nftset add 4#inet#fw4#vpn 203.0.113.5 www.example.com", "Other");
}

#[test]
fn blocked() {
    let b = |reason: &str| {
        check(
            &format!("{reason} ads.example.net is 0.0.0.0"),
            &format!("Blocked({reason}) ads.example.net Address(0.0.0.0)"),
        );
    };
    for reason in [
        "gravity blocked",
        "gravity blocked (CNAME)",
        "regex denied",
        "regex denied (CNAME)",
        "exactly denied",
        "regex blacklisted",
        "exactly blacklisted",
        "/etc/pihole/gravity.list",
        "special domain",
        "Apple iCloud Private Relay domain",
        "blocked upstream with known address",
        "blocked upstream with NXDOMAIN + no RA",
        "to be blocked (gravity database is not available)",
    ] {
        b(reason);
    }
    check("gravity blocked a is ::", "Blocked(gravity blocked) a Address(::)");
    check("gravity blocked a is NODATA", "Blocked(gravity blocked) a NoData(None)");
    check(
        "Rate-limiting a is REFUSED (EDE: blocked)",
        "Blocked(Rate-limiting) a Rcode(5) ede:blocked",
    );
    // Words of a later version.
    check("newly denied x.example is NXDOMAIN", "?Blocked(newly denied) x.example NxDomain");
    check(
        "Some new zone x.example is 192.0.2.1",
        "?Local(Some new zone) x.example Address(192.0.2.1)",
    );
    check("the weather is nice", "Unknown");
}

#[test]
fn serial_numbers() {
    let q = "query[A] www.example.com from 192.0.2.31";
    let plain = "query 1 www.example.com 192.0.2.31";
    check(&format!("5801 192.0.2.31/64520 {q}"), &format!("#5801 {plain}"));
    check(&format!("UDP 5804 192.0.2.31/64523 {q}"), &format!("#5804 {plain}"));
    check(&format!("TCP 5803 2001:db8::25/40112 {q}"), &format!("#5803 {plain}"));
    check("5801 192.0.2.31/64520 validation result is SECURE", "#5801 Dnssec");
    check("5801 reply com is 192.0.2.1", "#5801 Dnssec");
    check(
        "5805 192.0.2.31/64524 cached www.example.com is 192.0.2.80 (DNSSEC signed)",
        "#5805 Cache www.example.com Address(192.0.2.80)",
    );
    check(
        "5805 192.0.2.31/1 /etc/hosts nas is 192.0.2.5",
        "#5805 Local(/etc/hosts) nas Address(192.0.2.5)",
    );
}

#[test]
fn notices() {
    check("started, version 2.93 cachesize 1000", "Started");
    check("Maximum number of concurrent DNS queries reached (max: 150)", "Overload");
    check("possible DNS-rebind attack detected: www.example.com", "rebind www.example.com");
    check("overflow: 12 log entries lost", "LinesLost(12)");
    for other in [
        "compile time options: IPv6 GNU-getopt no-DBus",
        "using nameserver 192.0.2.1#53",
        "read /etc/hosts - 8 names",
        "exiting on receipt of SIGTERM",
        "reducing DNS packet size for nameserver 192.0.2.1 to 1232",
        "server 192.0.2.1#53: queries sent 1234, retried 3, failed 0",
        "DHCP, IP range 192.0.2.100 -- 192.0.2.199, lease time 12h",
    ] {
        check(other, "Other");
    }
    check("", "Unknown");
    check("something new", "Unknown");
}

#[test]
fn dhcp_messages() {
    let mac = "00:00:5e:00:53:1f";
    let ack = "lease br-lan 192.0.2.31 00:00:5e:00:53:1f ";
    check(&format!("DHCPACK(br-lan) 192.0.2.31 {mac} laptop"), &format!("{ack}laptop"));
    check(&format!("DHCPACK(br-lan) 192.0.2.31 {mac} "), ack);
    check(&format!("DHCPACK(br-lan) 192.0.2.31 {mac}"), ack);
    check(
        &format!("1608555112 DHCPACK(br-lan) 192.0.2.31 {mac} x"),
        &format!("#1608555112 {ack}x"),
    );
    check(
        "DHCPREPLY(br-lan) 2001:db8::31 00:01:00:01:2c:ab:cd:ef:00:00:5e:00:53:1f laptop",
        "lease br-lan 2001:db8::31 00:00:5e:00:53:1f laptop",
    );
    for other in [
        "DHCPDISCOVER(br-lan) 00:00:5e:00:53:1f ",
        "DHCPOFFER(br-lan) 192.0.2.31 00:00:5e:00:53:1f ",
        "DHCPNAK(br-lan) 203.0.113.9 00:00:5e:00:53:1f wrong address",
        "DHCPREPLY(br-lan) 00:01:00:01:2c:ab:cd:ef:00:00:5e:00:53:1f ",
        "BOOTP(br-lan) 192.0.2.44 00:00:5e:00:53:1f ",
        "RTR-ADVERT(br-lan) 2001:db8::",
        "DHCPINFORMATION-REQUEST(br-lan) 00:01:00:01:2c:ab:cd:ef:00:00:5e:00:53:1f ",
    ] {
        check(other, "Other");
    }
}

#[test]
fn a_name_with_words_in_it_can_be_read_in_every_way() {
    let What::Answer(a) = Message::parse(b"reply x is y.example is 192.0.2.1").what else {
        panic!("no answer");
    };
    let names: Vec<_> = a.splits().map(|(name, _)| String::from_utf8_lossy(name)).collect();
    assert_eq!(names, ["x", "x is y.example"]);
}

/// Every known line, to be cut and bent.
const SHAPES: &[&str] = &[
    "5801 192.0.2.31/64520 query[AAAA] www.example.com from 192.0.2.31",
    "5801 192.0.2.31/64520 forwarded www.example.com to 192.0.2.1#5335",
    "TCP 5801 192.0.2.31/64520 reply error is SERVFAIL (EDE: DNSSEC bogus)",
    "cached www.example.com is 2001:db8::80 (DNSSEC signed)",
    "gravity blocked (CNAME) www.example.com is 0.0.0.0",
    "to be blocked (gravity database is not available) www.example.com is 0.0.0.0",
    "/etc/hosts nas.example.com is 192.0.2.5",
    "1608555112 DHCPACK(br-lan) 192.0.2.31 00:00:5e:00:53:1f laptop",
    "DHCPREPLY(br-lan) 2001:db8::31 00:01:00:01:2c:ab:cd:ef:00:00:5e:00:53:1f laptop",
    "overflow: 12 log entries lost",
    "possible DNS-rebind attack detected: www.example.com",
];

#[test]
fn cut_anywhere() {
    for line in SHAPES {
        for n in 0..line.len() {
            show(line.get(..n).unwrap().as_bytes());
            show(line.get(n..).unwrap().as_bytes());
        }
    }
}

#[test]
fn what_is_no_address() {
    for text in ["", "a.a.0.0", "1.2.3", "1.2.3.4.5", "256.1.1.1", "1.2.3.", "1..2.3", "NODATA"] {
        assert_eq!(address(text.as_bytes()), None, "{text}");
    }
}

proptest! {
    #[test]
    fn any_bytes(message in proptest::collection::vec(any::<u8>(), 0..300)) {
        show(&message);
    }
    #[test]
    fn bent(which in 0..SHAPES.len(), at in 0usize..100, byte: u8) {
        let mut line = SHAPES[which].as_bytes().to_vec();
        let at = at % line.len();
        line[at] = byte;
        show(&line);
    }
    #[test]
    fn addresses_read_back(ip: std::net::IpAddr) {
        let canonical = agentmon_core::event::unmap(ip);
        prop_assert_eq!(address(ip.to_string().as_bytes()), Some(canonical));
    }
    #[test]
    fn no_other_addresses(text in "[0-9.:a-f]{0,20}") {
        let expected = text.parse::<std::net::IpAddr>().ok().map(agentmon_core::event::unmap);
        let got = address(text.as_bytes());
        // Zeros in front of a number are read here and refused by the standard library.
        if got != expected {
            prop_assert!(expected.is_none() && text.split('.').any(|p| p.len() > 1 && p.starts_with('0')));
        }
    }
}
