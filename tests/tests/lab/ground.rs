//! The ground the lab stands on: hosts, NAT, the kernel's accounting, the resolver.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use agentmon_tests::lab::conntrack::Oracle;
use agentmon_tests::lab::proxy::{Fault, TcpProxy};
use agentmon_tests::lab::world::{LAN, RTR_WAN, TV};
use agentmon_tests::lab::{dns, in_world, netns, traffic};

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

#[test]
fn the_line_breaks_as_told() {
    in_world(|_| {
        // An echo that counts what it got, behind the line.
        let got = Arc::new(AtomicUsize::new(0));
        let counting = Arc::clone(&got);
        let listener = netns::run("hub", || TcpListener::bind("192.168.77.10:7")).expect("bound");
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut buffer = [0; 4_096];
                while let Ok(used @ 1..) = stream.read(&mut buffer) {
                    counting.fetch_add(used, Ordering::SeqCst);
                    drop(stream.write_all(&buffer[..used]));
                }
            }
        });
        let line = TcpProxy::start("hub", "192.168.77.10:70", "192.168.77.10:7");
        // Sends 1,000 bytes and waits for the echo: how much the server got and came back.
        let exchange = || {
            got.store(0, Ordering::SeqCst);
            let (mut stream, _) = traffic::connect("tv", TV, "192.168.77.10:70").expect("taken");
            stream.set_read_timeout(Some(Duration::from_millis(400))).expect("set");
            let mut back = vec![0; 1_000];
            let sent = stream.write_all(&[7; 1_000]).is_ok();
            let back = if sent && stream.read_exact(&mut back).is_ok() { 1_000 } else { 0 };
            (got.load(Ordering::SeqCst), back)
        };
        for (fault, expected, faults) in [
            (Fault::None, (1_000, 1_000), 0),
            (Fault::Delay(20), (1_000, 1_000), 0),
            (Fault::LoseReply(500), (1_000, 0), 1),
            (Fault::CutRequest(500), (0, 0), 1),
            (Fault::Silence, (0, 0), 1),
            (Fault::Refuse, (0, 0), 1),
            (Fault::None, (1_000, 1_000), 0),
        ] {
            let before = line.faults();
            line.set(fault);
            assert_eq!(exchange(), expected, "{fault:?}");
            assert_eq!(line.faults() - before, faults, "{fault:?} is counted");
        }
    });
}
