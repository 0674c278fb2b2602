//! The DNS log collector against a real dnsmasq, on loopback: two of them, one forwarding to
//! the other, one server that is slow and one that is dumb; both forms of logging; the log
//! rotated under them as logrotate does it.
//!
//! Needs dnsmasq. Without it the test says so loudly and passes; with
//! `AGENTMON_REQUIRE_LAB=1` it fails.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use agentmon_core::Event;
use agentmon_core::event::{Answer, Body};
use agentmon_core::time::SystemClock;
use agentmon_router::collect::dnsmasq_log::{Config, Source};
use agentmon_router::collect::{Collector, Context, Delivery, Outbox, State, Stop};
use agentmon_router::counters::Counters;

const A: u16 = 1;
const PTR: u16 = 12;
const TXT: u16 = 16;
const AAAA: u16 = 28;

/// A dnsmasq of its own, gone with this value.
struct Dnsmasq(Child);

impl Dnsmasq {
    fn start(dir: &Path, name: &str, port: u16, conf: &str) -> Self {
        let file = dir.join(format!("{name}.conf"));
        let mut text = format!(
            "port={port}\nlisten-address=127.0.0.1\nbind-interfaces\nno-resolv\nno-hosts\n\
             keep-in-foreground\npid-file=\n{conf}"
        );
        if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
            text.push_str("user=root\n");
        }
        std::fs::write(&file, text).unwrap();
        let child = Command::new("dnsmasq")
            .arg(format!("--conf-file={}", file.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        Self(child)
    }
    /// Closes the log and opens it again.
    fn reopen_log(&self) {
        let done = Command::new("kill").args(["-USR2", &self.0.id().to_string()]).status();
        assert!(done.unwrap().success());
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        // Gone already is as good.
        let _gone = self.0.kill();
        let _status = self.0.wait();
    }
}

fn can_run() -> bool {
    let there = Command::new("dnsmasq").arg("--version").stdout(Stdio::null()).status().is_ok();
    let line = "LAB TEST LEFT OUT: real_dnsmasq: missing: dnsmasq (apt-get install dnsmasq-base)";
    assert!(there || std::env::var("AGENTMON_REQUIRE_LAB").as_deref() != Ok("1"), "{line}");
    if !there {
        // Straight to the descriptor: the test runner would swallow a print.
        let written = writeln!(std::io::stderr(), "\n{line}\n");
        written.expect("standard error can be written");
    }
    there
}

fn free_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A question on the wire (RFC 1035 section 4.1).
fn question(name: &str, qtype: u16) -> Vec<u8> {
    let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).unwrap());
        message.extend_from_slice(label.as_bytes());
    }
    message.push(0);
    message.extend(qtype.to_be_bytes());
    message.extend([0, 1]);
    message
}

/// Asks as 127.0.0.`client`; the socket, for waiting.
fn ask(port: u16, client: u8, name: &str, qtype: u16) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, client), 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket.send_to(&question(name, qtype), ("127.0.0.1", port)).unwrap();
    socket
}

/// Waits until the resolver answers at all.
fn wait_for(port: u16) {
    for _ in 0..200 {
        let socket = ask(port, 1, "up.example", A);
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        if socket.recv(&mut [0; 512]).is_ok() {
            return;
        }
    }
    panic!("dnsmasq does not answer on port {port}");
}

/// A server that answers every question for an address after a while.
fn slow_server(stop: Stop) -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let port = socket.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut message = [0; 512];
        while !stop.is_set() {
            let Ok((n, from)) = socket.recv_from(&mut message) else { continue };
            std::thread::sleep(Duration::from_millis(400));
            let end = message[12..n].iter().position(|b| *b == 0).unwrap() + 12 + 5;
            let mut reply = message[..end].to_vec();
            reply[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
            reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 203, 0, 113, 99]);
            socket.send_to(&reply, from).unwrap();
        }
    });
    port
}

/// The collector, running.
struct Watch {
    receiver: Receiver<Delivery>,
    stop: Stop,
    counters: Counters,
    seen: Vec<String>,
}

impl Watch {
    fn start(path: &Path) -> Self {
        let (outbox, receiver) = Outbox::channel();
        let (stop, counters) = (Stop::default(), Counters::default());
        let context = Context {
            outbox,
            stop: stop.clone(),
            clock: Arc::new(SystemClock),
            counters: counters.clone(),
            state: State::default(),
        };
        let mut source = Source::new(Config {
            enabled: true,
            paths: vec![path.to_owned()],
            from_start: true,
            poll_ms: 50,
            ..Config::default()
        });
        std::thread::spawn(move || source.run(&context).unwrap());
        Self { receiver, stop, counters, seen: Vec::new() }
    }

    /// Waits until this event was seen.
    #[track_caller]
    fn sees(&mut self, expected: &str) {
        while !self.seen.iter().any(|s| s == expected) {
            let delivery = self.receiver.recv_timeout(Duration::from_secs(20));
            let delivery =
                delivery.unwrap_or_else(|_| panic!("no {expected:?} in {:#?}", self.seen));
            self.seen.extend(delivery.events.iter().map(show));
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.stop();
    }
}

/// `CLIENT TYPE NAME STATUS RCODE ANSWERS`, the client without 127.0.0.
fn show(event: &Event) -> String {
    let Body::Dns(dns) = &event.body else { return format!("{event:?}") };
    let client = dns.client.to_string();
    let client = client.strip_prefix("127.0.0.").unwrap();
    let mut text = format!("{client} {} {} {}", dns.qtype, dns.name, dns.status.as_str());
    if let Some(rcode) = &dns.rcode {
        write!(text, " {rcode}").unwrap();
    }
    for answer in &dns.answers {
        match answer {
            Answer::Address(ip) => write!(text, " ={ip}"),
            Answer::Cname(name) => write!(text, " >{name}"),
            Answer::Other(other) => write!(text, " {other:?}"),
        }
        .unwrap();
    }
    text
}

const UPSTREAM: &str = "\
address=/www.example.com/203.0.113.80
address=/www.example.com/2001:db8::80
cname=alias.example.com,target.example.com
host-record=target.example.com,203.0.113.81
host-record=target.example.com,203.0.113.82
txt-record=txt.example.com,203.0.113.1
local=/example.net/
ptr-record=31.2.0.192.in-addr.arpa,laptop.example.com
local-ttl=300
";

/// Question by question: client, type, name, and the event.
const QUESTIONS: &[(u8, u16, &str, &str)] = &[
    (3, A, "www.example.com", "forwarded 0 =203.0.113.80"),
    (4, AAAA, "www.example.com", "forwarded 0 =2001:db8::80"),
    (4, A, "WWW.Example.com", "cached 0 =203.0.113.80"),
    (3, TXT, "txt.example.com", "forwarded 0 \"203.0.113.1\""),
    (3, A, "nope.example.net", "forwarded 3"),
    (3, PTR, "31.2.0.192.in-addr.arpa", "forwarded 0 \"laptop.example.com\""),
    (3, A, "outside.example", "forwarded 5"),
    (5, A, "ads.example.org", "blocked 0 =0.0.0.0"),
    (5, A, "gone.example.org", "local 3"),
    (5, A, "nas.example.org", "local 0 =192.0.2.5"),
    (5, A, "a b.example.net", "forwarded 3"),
];

fn expected(client: u8, qtype: u16, name: &str, outcome: &str) -> String {
    let name = name.to_lowercase().replace(' ', "\\032");
    format!("{client} {qtype} {name} {outcome}")
}

fn run(extra: bool) {
    if !can_run() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let log: PathBuf = dir.path().join("queries.log");
    let stop = Stop::default();
    let slow = slow_server(stop.clone());
    // Takes questions and never answers.
    let dumb = UdpSocket::bind("127.0.0.1:0").unwrap();
    let SocketAddr::V4(dumb_at) = dumb.local_addr().unwrap() else { unreachable!() };
    let (upper, port) = (free_port(), free_port());
    let _upstream = Dnsmasq::start(dir.path(), "upstream", upper, UPSTREAM);
    let conf = format!(
        "server=127.0.0.1#{upper}\nserver=/slow.example/127.0.0.1#{slow}\n\
         server=/dumb.example/127.0.0.1#{}\naddress=/ads.example.org/0.0.0.0\n\
         address=/gone.example.org/\naddress=/nas.example.org/192.0.2.5\n\
         log-facility={}\nlog-queries{}\n",
        dumb_at.port(),
        log.display(),
        if extra { "=extra" } else { "" }
    );
    let resolver = Dnsmasq::start(dir.path(), "resolver", port, &conf);
    wait_for(upper);
    wait_for(port);
    let mut watch = Watch::start(&log);
    for (client, qtype, name, outcome) in QUESTIONS {
        ask(port, *client, name, *qtype).recv(&mut [0; 512]).unwrap();
        watch.sees(&expected(*client, *qtype, name, outcome));
    }

    // An alias: the order of the addresses is dnsmasq's own.
    ask(port, 3, "alias.example.com", A).recv(&mut [0; 512]).unwrap();
    let begin = "3 1 alias.example.com forwarded 0 >target.example.com =203.0.113.8";
    while !watch.seen.iter().any(|s| s.starts_with(begin) && s.matches(" =").count() == 2) {
        let delivery = watch.receiver.recv_timeout(Duration::from_secs(20));
        let delivery = delivery.unwrap_or_else(|_| panic!("no alias in {:#?}", watch.seen));
        watch.seen.extend(delivery.events.iter().map(show));
    }

    // Three clients wait for one answer; a fourth question is never answered.
    let _waiting = ask(port, 6, "x.dumb.example", A);
    let sockets = [7, 8, 9].map(|client| ask(port, client, "x.slow.example", A));
    sockets.iter().for_each(|s| assert!(s.recv(&mut [0; 512]).is_ok()));
    for client in [7, 8, 9] {
        watch.sees(&expected(client, A, "x.slow.example", "forwarded 0 =203.0.113.99"));
    }

    // Rotated: dnsmasq goes on writing to the renamed file until it is told.
    std::fs::rename(&log, dir.path().join("queries.log.1")).unwrap();
    ask(port, 5, "before.example.net", A).recv(&mut [0; 512]).unwrap();
    resolver.reopen_log();
    ask(port, 5, "after.example.net", A).recv(&mut [0; 512]).unwrap();
    watch.sees(&expected(5, A, "before.example.net", "forwarded 3"));
    watch.sees(&expected(5, A, "after.example.net", "forwarded 3"));
    watch.sees(&expected(6, A, "x.dumb.example", "timeout"));

    stop.stop();
    let own = |s: &&String| !s.contains("up.example");
    assert_eq!(
        watch.seen.iter().filter(own).count(),
        QUESTIONS.len() + 1 + 4 + 2,
        "{:#?}",
        watch.seen
    );
    let counts = watch.counters.snapshot();
    assert_eq!(counts["tail.rotated"], 1);
    assert_eq!(counts["dnsmasq_log.unknown_line"], 0);
    assert_eq!(counts["dnsmasq_log.orphan_answer"], 0);
}

#[test]
fn with_serial_numbers() {
    run(true);
}

#[test]
fn by_name_and_order() {
    run(false);
}
