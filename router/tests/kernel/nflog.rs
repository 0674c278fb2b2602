//! Stopped packets, DNS as it passes by, and neighbours.

use std::net::{IpAddr, TcpStream};
use std::time::Duration;

use agentmon_core::event::{Answer, DnsStatus, Verdict};
use agentmon_router::collect::{firewall, neighbours, passive_dns};
use agentmon_router::kernel::probe::Groups;
use agentmon_router::kernel::setup;

use crate::lab::{Host, Lab, eventually};
use crate::traffic::{self, WAN};
use crate::watch::Watch;

const RULES: &str = r#"
table inet home {
  chain forward {
    type filter hook forward priority 0; policy accept;
    tcp dport 6666 log prefix "agentmon-reject " group 5 snaplen 96
    tcp dport 6666 reject with tcp reset
    udp dport 6667 log prefix "drop lan forward: " group 5 snaplen 96
    udp dport 6667 drop
  }
}
"#;

#[test]
fn stopped_packets_are_told_with_device_and_verdict() {
    let Some(lab) = Lab::new(&[]) else { return };
    lab.nft(RULES);
    let watch = Watch::start(&lab, firewall::Source::new(firewall::Config::default()));
    let refused = lab.on(Host::Lan, || TcpStream::connect("203.0.113.2:6666").is_err());
    assert!(refused.join().expect("client"));
    traffic::udp_ask(&lab, WAN[1], 6667, vec![0; 1_000], false);
    let told = eventually("both are told", || {
        let told = watch.firewall();
        if told.len() >= 2 { Ok(told) } else { Err(format!("{told:?}")) }
    });
    let mac = lab.exec(Host::Lan, "cat /sys/class/net/l0/address");
    let [rejected, dropped] = &told[..] else { panic!("{told:?}") };
    assert_eq!(
        (rejected.verdict, rejected.dst.to_string().as_str()),
        (Verdict::Reject, "203.0.113.2:6666")
    );
    assert_eq!(
        (dropped.verdict, dropped.dst.to_string().as_str()),
        (Verdict::Drop, "[2001:db8:99::2]:6667")
    );
    assert_eq!((dropped.bytes, dropped.prefix.as_str()), (1_048, "drop lan forward:"));
    for packet in &told {
        assert_eq!(packet.mac.map(|m| m.to_string()).as_deref(), Some(mac.trim()));
        let way = (packet.in_iface.as_deref(), packet.out_iface.as_deref());
        assert_eq!(way, (Some("rl"), Some("rw")));
    }
    assert_eq!(watch.count("firewall.decode_errors"), 0);
}

#[test]
fn packets_the_kernel_could_not_deliver_are_counted() {
    let Some(lab) = Lab::new(&[]) else { return };
    lab.nft(RULES);
    let watch = Watch::start(&lab, firewall::Source::new(firewall::Config::default()));
    // Faster than a reader that naps: more than its buffer holds.
    let sent: u64 = 30_000;
    let burst = lab.on(Host::Lan, move || {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("a socket");
        (0..sent).filter(|_| socket.send_to(b"x", "203.0.113.2:6667").is_ok()).count() as u64
    });
    let sent = burst.join().expect("burst");
    // A last one, so that a gap at the end shows too.
    eventually("every packet is told or counted as lost", || {
        traffic::udp_ask(&lab, WAN[0], 6667, vec![0; 9], false);
        let (told, lost) = (watch.firewall().len() as u64, watch.count("drop.firewall.enobufs"));
        if told + lost > sent { Ok(()) } else { Err(format!("{told} told, {lost} lost of {sent}")) }
    });
    let told: u64 = watch.gaps().iter().filter_map(|g| g.lost).sum();
    assert!(told <= watch.count("drop.firewall.enobufs"));
}

/// A question for type A, id 7.
pub(crate) fn question(name: &str) -> Vec<u8> {
    let mut out = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        out.push(u8::try_from(label.len()).expect("a label"));
        out.extend(label.bytes());
    }
    out.extend([0, 0, 1, 0, 1]);
    out
}

/// The answer: one address; silence for names that begin with `dead`.
pub(crate) fn answer(question: &[u8]) -> Option<Vec<u8>> {
    if question[13..].starts_with(b"dead") {
        return None;
    }
    let mut out = question.to_vec();
    (out[2], out[3], out[7]) = (0x81, 0x80, 1);
    out.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 203, 0, 113, 80]);
    Some(out)
}

#[test]
fn dns_is_read_as_it_passes_by() {
    let Some(lab) = Lab::new(&[]) else { return };
    let install = lab.on(Host::Router, || setup::install(Groups { firewall: 5, dns: 6 }));
    install.join().expect("thread").expect("agentmon's own table is accepted");
    let watch = Watch::start(&lab, passive_dns::Source::new(passive_dns::Config::default()));
    for ip in WAN {
        traffic::udp_server(&lab, ip, 53, answer);
        traffic::udp_ask(&lab, ip, 53, question("www.example.com"), true);
    }
    traffic::udp_ask(&lab, WAN[0], 53, question("dead.example.com"), false);
    let told = eventually("three exchanges", || {
        let told = watch.dns();
        if told.len() >= 3 { Ok(told) } else { Err(format!("{told:?}")) }
    });
    let [v4, v6, dead] = &told[..] else { panic!("{told:?}") };
    for (dns, client, server) in [(v4, "192.168.77.2", WAN[0]), (v6, "2001:db8:77::2", WAN[1])] {
        assert_eq!(
            (dns.client.to_string().as_str(), dns.upstream.as_deref()),
            (client, Some(server))
        );
        assert_eq!((dns.name.as_str(), dns.status), ("www.example.com", DnsStatus::Forwarded));
        assert_eq!(dns.answers, [Answer::Address(IpAddr::from([203, 0, 113, 80]))]);
        assert!(dns.latency_us.is_some() && dns.mac.is_some(), "{dns:?}");
    }
    assert_eq!((dead.name.as_str(), dead.status), ("dead.example.com", DnsStatus::Timeout));
    assert_eq!(watch.count("passive_dns.decode_errors"), 0);
}

#[test]
fn two_readers_of_one_group_are_told_apart() {
    let Some(lab) = Lab::new(&[]) else { return };
    let _first = Watch::start(&lab, firewall::Source::new(firewall::Config::default()));
    let second = lab.on(Host::Router, || {
        agentmon_router::netlink::nflog::Group::bind(5, 96, 1).map(drop).map_err(|e| e.to_string())
    });
    let error = second.join().expect("thread").expect_err("the group is taken");
    assert!(error.contains("another"), "{error}");
}

#[test]
fn neighbours_are_devices() {
    let Some(lab) = Lab::new(&[]) else { return };
    let shared = neighbours::Neighbours::default();
    let config = neighbours::Config { dump_seconds: 1, ..Default::default() };
    let source = neighbours::Source::with_neighbours(config, shared.clone());
    let watch = Watch::start(&lab, source);
    // Any packet makes the router resolve both ends.
    traffic::udp_ask(&lab, WAN[0], 9, vec![0], false);
    let mac = lab.exec(Host::Lan, "cat /sys/class/net/l0/address");
    let lan = IpAddr::from([192, 168, 77, 2]);
    eventually("the lan host is told", || {
        let told = watch.devices();
        let found = told.iter().any(|d| {
            d.ip == lan && d.mac.to_string() == mac.trim() && d.iface.as_deref() == Some("rl")
        });
        if found { Ok(()) } else { Err(format!("{told:?}")) }
    });
    assert_eq!(shared.snapshot().get(&lan).map(|n| n.mac.to_string()).as_deref(), Some(mac.trim()));
    std::thread::sleep(Duration::from_secs(2));
    let told = watch.devices().iter().filter(|d| d.ip == lan).count();
    assert_eq!(told, 1, "told once, though dumped several times");
}
