//! Connections: the same flows, addresses and bytes as `conntrack -E` tells; long flows
//! while they last; what happens when events are lost or do not come.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agentmon_core::event::{Flow, FlowPhase};
use agentmon_core::time::{Clock as _, SystemClock};
use agentmon_router::collect::conntrack::{Config, Source};

use crate::lab::{Host, Lab, eventually};
use crate::traffic::{self, WAN};
use crate::watch::Watch;

/// Masquerading for the lan, and one port forwarded to it.
const NAT: &str = r#"
table inet home {
  chain forward {
    type filter hook forward priority 0; policy accept;
    ct state established,related accept
  }
  chain out {
    type nat hook postrouting priority 100; policy accept;
    oifname "rw" ip saddr 192.168.77.0/24 masquerade
  }
  chain in {
    type nat hook prerouting priority -100; policy accept;
    iifname "rw" tcp dport 8081 dnat ip to 192.168.77.2:8080
  }
}
"#;

fn lab(timestamps: bool) -> Option<Lab> {
    let stamp = if timestamps { "nf_conntrack_timestamp=1" } else { "nf_conntrack_timestamp=0" };
    let lab = Lab::new(&[
        "nf_conntrack_acct=1",
        "nf_conntrack_events=1",
        "nf_conntrack_tcp_timeout_time_wait=1",
        "nf_conntrack_tcp_timeout_close=1",
        "nf_conntrack_udp_timeout=1",
        "nf_conntrack_icmp_timeout=1",
        "nf_conntrack_icmpv6_timeout=1",
        stamp,
    ])?;
    lab.nft(NAT);
    Some(lab)
}

/// Dumps every second, so that expired flows are told soon.
fn config() -> Config {
    Config { dump_seconds: 1, poll_seconds: 1, resync_seconds: 1, ..Config::default() }
}

/// What identifies a flow and what passed, in `conntrack`'s order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    proto: u8,
    orig: [String; 4],
    reply: [String; 4],
    packets: [u64; 2],
    bytes: [u64; 2],
}

/// `[DESTROY] tcp 6 src=A dst=B sport=C dport=D packets=N bytes=N [...] src=...`.
fn parse(line: &str) -> Option<Line> {
    let rest = line.trim().strip_prefix("[DESTROY]")?;
    let proto = rest.split_whitespace().nth(1)?.parse().ok()?;
    let mut values = BTreeMap::<&str, Vec<&str>>::new();
    for (key, value) in rest.split_whitespace().filter_map(|word| word.split_once('=')) {
        values.entry(key).or_default().push(value);
    }
    let text = |key: &str, n: usize| values.get(key)?.get(n).map(|v| (*v).to_owned());
    let number = |key: &str, n: usize| values.get(key)?.get(n)?.parse::<u64>().ok();
    let tuple = |n: usize| {
        let ports = match (number("type", n), number("code", n)) {
            // What our record says of ICMP: no port, and the question's type and code.
            (Some(kind), Some(code)) if n == 0 => ["0".to_owned(), (kind << 8 | code).to_string()],
            (Some(_), Some(_)) => [String::new(), String::new()],
            _ => [text("sport", n)?, text("dport", n)?],
        };
        let [from, to] = ports;
        Some([text("src", n)?, text("dst", n)?, from, to])
    };
    Some(Line {
        proto,
        orig: tuple(0)?,
        reply: tuple(1)?,
        packets: [number("packets", 0)?, number("packets", 1)?],
        bytes: [number("bytes", 0)?, number("bytes", 1)?],
    })
}

/// Our record in the same form.
fn line(flow: &Flow) -> Line {
    let volume = flow.volume.expect("the kernel counts");
    let (seen, real) = (flow.nat_src.unwrap_or(flow.src), flow.nat_dst.unwrap_or(flow.dst));
    let tuple = |src: agentmon_core::event::Endpoint, dst: agentmon_core::event::Endpoint| {
        [src.ip.to_string(), dst.ip.to_string(), src.port.to_string(), dst.port.to_string()]
    };
    let mut reply = tuple(real, seen);
    if matches!(flow.proto, 1 | 58) {
        (reply[2], reply[3]) = (String::new(), String::new());
    }
    Line {
        proto: flow.proto,
        orig: tuple(flow.src, flow.dst),
        reply,
        packets: [volume.packets_out, volume.packets_in],
        bytes: [volume.bytes_out, volume.bytes_in],
    }
}

/// Both protocols, both families, both kinds of NAT.
fn surf(lab: &Lab) {
    traffic::tcp_out(lab, WAN[0], 8080, 1_000, 50_000);
    traffic::tcp_out(lab, WAN[1], 8080, 20_000, 300);
    let place = |text: &str| text.parse::<SocketAddr>().expect("a place");
    let server = (Host::Lan, place("192.168.77.2:8080"));
    traffic::tcp(lab, server, (Host::Wan, place("203.0.113.1:8081")), 700, 7_000);
    for ip in WAN {
        traffic::udp_server(lab, ip, 7, |bytes| Some(bytes.to_vec()));
        traffic::udp_ask(lab, ip, 7, vec![b'x'; 321], true);
    }
    traffic::udp_burst(lab, WAN[0], 50);
    WAN.iter().for_each(|ip| traffic::ping(lab, ip));
}

fn agrees_with_conntrack(timestamps: bool) {
    let Some(lab) = lab(timestamps) else { return };
    let mut oracle = lab.spawn(Host::Router, "conntrack -E -e DESTROY -o id");
    eventually("conntrack listens", || {
        let table = lab.exec(Host::Router, "cat /proc/net/netlink");
        // The group mask of DESTROY is 4.
        let listens = table.lines().any(|l| l.split_whitespace().nth(3) == Some("00000004"));
        if listens { Ok(()) } else { Err(table) }
    });
    let told = Arc::new(Mutex::new(Vec::new()));
    let output = BufReader::new(oracle.0.stdout.take().expect("piped"));
    let teller = Arc::clone(&told);
    std::thread::spawn(move || {
        for line in output.lines().map_while(Result::ok).filter_map(|l| parse(&l)) {
            teller.lock().expect("nobody panicked holding it").push(line);
        }
    });
    let watch = Watch::start(&lab, Source::new(config()));
    let before = SystemClock.wall();
    surf(&lab);
    traffic::wait_all_ended(&lab);
    let after = SystemClock.wall();

    let sorted = |mut lines: Vec<Line>| {
        lines.sort();
        lines
    };
    let flows = eventually("the oracle and we tell the same flows, and all of them", || {
        let expected = sorted(told.lock().expect("its reader lives").clone());
        let flows = watch.flows(FlowPhase::End);
        let ours = sorted(flows.iter().map(line).collect());
        let alike = ours == expected && expected.len() >= 57;
        if alike { Ok(flows) } else { Err(format!("{ours:#?} but {expected:#?}")) }
    });
    oracle.0.kill().expect("it runs");

    let starts: BTreeMap<u64, Flow> =
        watch.flows(FlowPhase::Start).into_iter().map(|f| (f.id, f)).collect();
    assert_eq!(starts.len(), flows.len(), "one start per flow");
    for flow in &flows {
        let start = starts.get(&flow.id).unwrap_or_else(|| panic!("no start of {flow:?}"));
        assert_eq!((start.start, start.src, start.dst), (flow.start, flow.src, flow.dst));
        let began = flow.start.expect("seen from its begin");
        assert!(before <= began && began <= after, "{flow:?}");
        // The time-out in which the kernel waited for more is no part of it.
        let lasted = Duration::from_millis(flow.duration_ms.expect("known"));
        assert!(lasted <= after.since(began), "{flow:?}");
    }
    assert_eq!(watch.gaps(), []);
    for name in ["conntrack.decode_errors", "conntrack.enobufs", "conntrack.untracked_ends"] {
        assert_eq!(watch.count(name), 0, "{name}");
    }
}

#[test]
fn flows_are_those_of_conntrack_with_kernel_timestamps() {
    agrees_with_conntrack(true);
}

#[test]
fn flows_are_those_of_conntrack_without_kernel_timestamps() {
    agrees_with_conntrack(false);
}

/// A connection that stays open: `say` makes the client send so many bytes.
fn long_connection(lab: &Lab) -> std::sync::mpsc::Sender<usize> {
    let (ready, is_ready) = channel();
    drop(lab.on(Host::Wan, move || {
        let listener = TcpListener::bind("203.0.113.2:9000").expect("free");
        ready.send(()).expect("the test waits");
        let (mut stream, _) = listener.accept().expect("a client");
        let mut buffer = [0; 4_096];
        while stream.read(&mut buffer).is_ok_and(|n| n > 0) {}
    }));
    is_ready.recv().expect("listens");
    let (say, sizes) = channel::<usize>();
    drop(lab.on(Host::Lan, move || {
        let mut stream = TcpStream::connect("203.0.113.2:9000").expect("answers");
        for size in sizes {
            stream.write_all(&vec![b'x'; size]).expect("sent");
        }
    }));
    say
}

fn long_flows_are_told_while_they_last(timestamps: bool) {
    let Some(lab) = lab(timestamps) else { return };
    let watch = Watch::start(&lab, Source::new(config()));
    let say = long_connection(&lab);
    say.send(1_000).expect("open");
    let mut seen = 0;
    // Only a flow older than ten seconds is told before its end.
    for _ in 0..2 {
        say.send(100_000).expect("open");
        seen = eventually("the flow is told with more bytes", || {
            let bytes = watch
                .flows(FlowPhase::Update)
                .last()
                .map_or(0, |f| f.volume.expect("counted").bytes_out);
            if bytes > seen + 100_000 { Ok(bytes) } else { Err(format!("{bytes}")) }
        });
    }
    assert_eq!(watch.flows(FlowPhase::End), []);
    drop(say);
    let end = eventually("its end", || {
        watch.flows(FlowPhase::End).pop().ok_or_else(|| "no end".to_owned())
    });
    assert!(watch.flows(FlowPhase::Update).iter().all(|f| (f.id, f.start) == (end.id, end.start)));
    // Three writes and the headers of their packets.
    let bytes = end.volume.expect("counted").bytes_out;
    assert!((201_000..230_000).contains(&bytes), "{bytes}");
    assert!(end.duration_ms.expect("known") >= 10_000, "{end:?}");
}

#[test]
fn long_flows_are_told_while_they_last_with_kernel_timestamps() {
    long_flows_are_told_while_they_last(true);
}

#[test]
fn long_flows_are_told_while_they_last_without_kernel_timestamps() {
    long_flows_are_told_while_they_last(false);
}

#[test]
fn lost_events_are_counted_told_and_mended() {
    let Some(lab) = lab(false) else { return };
    // A buffer for a few events, read once in a second.
    let config = Config { buffer_bytes: 4_096, nap_ms: 1_000, ..config() };
    let watch = Watch::start(&lab, Source::new(config));
    let sent = traffic::udp_burst(&lab, WAN[0], 3_000);
    eventually("the loss is told", || {
        let gaps = watch.gaps();
        let told = gaps.iter().any(|g| g.collector == "conntrack" && g.reason == "enobufs");
        if told && watch.count("conntrack.enobufs") > 0 { Ok(()) } else { Err(format!("{gaps:?}")) }
    });
    traffic::wait_all_ended(&lab);
    eventually("no flow stays open", || {
        let (starts, ends) = (watch.flows(FlowPhase::Start), watch.flows(FlowPhase::End));
        let ended: BTreeSet<u64> = ends.iter().map(|f| f.id).collect();
        let open = starts.iter().filter(|f| !ended.contains(&f.id)).count();
        if open == 0 { Ok(()) } else { Err(format!("{open} open")) }
    });
    let ends = watch.flows(FlowPhase::End);
    let places: HashSet<_> = ends.iter().map(|f| f.dst).collect();
    assert_eq!(places.len(), ends.len(), "no flow ends twice");
    assert!(ends.len() <= sent, "no flow is made up");
}

#[test]
fn a_kernel_without_events_is_polled() {
    let Some(lab) = lab(false) else { return };
    lab.exec(Host::Router, "sysctl -qw net.netfilter.nf_conntrack_events=0");
    let watch = Watch::start(&lab, Source::new(config()));
    let mut port = 7_000;
    eventually("the silence is noticed", || {
        // New flows in every dump, as a busy network has them.
        traffic::udp_server(&lab, WAN[0], port, |bytes| Some(bytes.to_vec()));
        traffic::udp_ask(&lab, WAN[0], port, vec![0; 100], true);
        port += 1;
        let line = watch.state.get();
        if line.contains("nf_conntrack_events is 0") { Ok(()) } else { Err(line) }
    });
    let start = watch.flows(FlowPhase::Start).pop().expect("flows are found by dumps");
    let end = eventually("its end is inferred", || {
        let mut ends = watch.flows(FlowPhase::End).into_iter();
        ends.find(|f| f.id == start.id).ok_or_else(|| "still open".to_owned())
    });
    assert_eq!(end.volume.map(|v| (v.bytes_out, v.packets_in)), Some((128, 1)));
    assert_eq!(watch.count("conntrack.events"), 0);
}

#[test]
fn a_namespace_that_tracks_nothing_says_so() {
    let Some(lab) = Lab::new(&[]) else { return };
    let watch = Watch::start(&lab, Source::new(config()));
    let line = watch.state.get();
    assert!(line.contains("no firewall rule") && line.contains("agentmon-router setup"), "{line}");
}
