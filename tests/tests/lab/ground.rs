//! The ground the lab stands on: hosts, NAT, the kernel's accounting, the resolver.

use agentmon_tests::lab::conntrack::Oracle;
use agentmon_tests::lab::world::{LAN, RTR_WAN, TV};
use agentmon_tests::lab::{dns, in_world, traffic};

#[test]
fn nat_and_the_kernels_accounting() {
    in_world(|world| {
        traffic::serve_tcp("wan", 8080);
        traffic::serve_udp("wan", "198.51.100.7:9000");
        let oracle = Oracle::start(world);
        let tcp = traffic::tcp("lan", LAN, "203.0.113.2:8080", 1_000, 50_000);
        let udp = traffic::udp("tv", TV, "198.51.100.7:9000", 5, 100);

        let line = oracle.end_of(17, udp);
        assert_eq!((line.out, line.back), ((5, 640), (5, 640)));
        assert_eq!(line.seen_as.ip().to_string(), RTR_WAN);
        let line = oracle.end_of(6, tcp);
        assert!(line.out.1 > 1_000 && line.back.1 > 50_000, "{line:?}");
        assert_eq!(line.seen_as.ip().to_string(), RTR_WAN);
    });
}

#[test]
fn forwarded_ports_reach_the_device_behind() {
    in_world(|world| {
        traffic::serve_tcp("tv", 443);
        let oracle = Oracle::start(world);
        let client = traffic::tcp("wan", "203.0.113.2", "203.0.113.1:8443", 10, 10);
        let line = oracle.end_of(6, client);
        assert_eq!(line.answered_by.to_string(), "192.168.77.3:443");
    });
}

#[test]
fn the_firewall_rejects_and_drops() {
    in_world(|_| {
        traffic::serve_tcp("wan", 6666);
        let refused = traffic::connect("lan", LAN, "203.0.113.2:6666").expect_err("rejected");
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        let silent = traffic::connect("wan", "203.0.113.2", "203.0.113.1:22").expect_err("dropped");
        assert_eq!(silent.kind(), std::io::ErrorKind::TimedOut);
    });
}

#[test]
fn the_resolver_answers_and_logs() {
    in_world(|world| {
        let _internet = dns::internet(world, &[("example.com", "198.51.100.10")]);
        let _resolver = dns::resolver(world);
        let reply = dns::ask("lan", LAN, "www.example.com", dns::A);
        assert_eq!(reply.addresses, ["198.51.100.10".parse::<std::net::IpAddr>().expect("ip")]);
        assert_eq!(dns::ask("lan", LAN, "nothing.example.net", dns::A).rcode, 3);
        let log = std::fs::read_to_string(dns::resolver_log(world)).expect("the log is there");
        assert!(log.contains("query[A] www.example.com from 192.168.77.2"), "{log}");
        assert!(log.contains("reply www.example.com is 198.51.100.10"), "{log}");
    });
}
