//! Real sockets on loopback: every transport, and senders that mean no good. Time is a
//! simulated clock's where it matters, so that nothing here waits for it.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;

use agentmon_core::event::Body;
use agentmon_core::time::SimClock;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::*;
use crate::collect::{Outbox, State, Stop};
use crate::counters::Counters;

/// 2026-11-23 14:00 UTC
const NOW: Timestamp = Timestamp::from_secs(1_795_442_400);
/// Longest that anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A receiver that runs.
struct Running {
    context: Context,
    clock: Arc<SimClock>,
    deliveries: Receiver<Delivery>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
    /// What its state line said at first: where it listens.
    places: String,
}

impl Running {
    fn start(change: impl FnOnce(&mut Config)) -> Self {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let mut config = Config {
            enabled: true,
            udp: vec![any],
            tcp: vec![any],
            timezone: "utc".to_owned().try_into().unwrap(),
            ..Config::default()
        };
        change(&mut config);
        config.validate().unwrap();
        let (outbox, deliveries) = Outbox::channel();
        let clock = Arc::new(SimClock::at(NOW));
        let context = Context {
            outbox,
            stop: Stop::default(),
            clock: Arc::clone(&clock) as _,
            counters: Counters::default(),
            state: State::default(),
        };
        let own = context.clone();
        let thread = Some(std::thread::spawn(move || Source::new(config).run(&own)));
        let mut running = Self { context, clock, deliveries, thread, places: String::new() };
        running.until("it listens", || running.context.state.get().contains(" on "));
        running.places = running.context.state.get();
        running
    }

    #[track_caller]
    fn until(&self, what: &str, is: impl Fn() -> bool) {
        for _ in 0..PATIENCE.as_millis() / 10 {
            if is() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("never: {what}; {:?}; {}", self.counters(), self.context.state.get());
    }

    fn counters(&self) -> BTreeMap<String, u64> {
        self.context.counters.snapshot()
    }

    #[track_caller]
    fn until_counted(&self, name: &str, n: u64) {
        self.until(&format!("{name} = {n}"), || self.counters().get(name) == Some(&n));
    }

    /// Where it listens, as its state line says.
    fn at(&self, kind: &str) -> SocketAddr {
        let (_, rest) = self.places.split_once(&format!("{kind} ")).unwrap();
        rest.split([',', ':', ';', ' ']).take(2).collect::<Vec<_>>().join(":").parse().unwrap()
    }

    fn tcp(&self) -> TcpStream {
        let stream = TcpStream::connect(self.at("tcp")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn datagram(&self, bytes: &[u8]) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(bytes, self.at("udp")).unwrap();
    }

    /// Stops it; every event it gave.
    fn end(mut self) -> Vec<Event> {
        self.context.stop.stop();
        drop(self.context);
        // Its last words may be more than the queue holds: taken while it says them.
        let events = self.deliveries.iter().flat_map(|delivery| delivery.events).collect();
        self.thread.take().unwrap().join().unwrap().unwrap();
        events
    }
}

fn line(name: &str) -> String {
    format!("<30>Nov 23 14:00:00 router dnsmasq[7]: query[A] {name} from 192.0.2.31")
}

/// The names asked for, sorted.
fn names(events: &[Event]) -> Vec<String> {
    let name = |event: &Event| match &event.body {
        Body::Dns(dns) => Some(dns.name.as_str().to_owned()),
        _ => None,
    };
    let mut names: Vec<_> = events.iter().filter_map(name).collect();
    names.sort();
    names
}

fn gaps(events: &[Event]) -> Vec<(String, Option<u64>)> {
    let gap = |event: &Event| match &event.body {
        Body::Gap(gap) => Some((gap.reason.clone(), gap.lost)),
        _ => None,
    };
    events.iter().filter_map(gap).collect()
}

#[test]
fn datagrams_and_both_framings() {
    let running = Running::start(|_| {});
    running.datagram(line("udp.example").as_bytes());
    running.datagram(format!("{}\n\0", line("udp2.example")).as_bytes());
    let mut stream = running.tcp();
    let (counted, ended) = (line("counted.example"), line("newline.example"));
    let text = format!("{} {counted}{ended}\n{}\0", counted.len(), line("nul.example"));
    // In pieces, as a network cuts them.
    for piece in text.as_bytes().chunks(7) {
        stream.write_all(piece).unwrap();
    }
    running.until_counted("syslog.queries", 5);
    drop(stream);
    let events = running.end();
    assert_eq!(
        names(&events),
        ["counted.example", "newline.example", "nul.example", "udp.example", "udp2.example"]
    );
    assert!(gaps(&events).is_empty());
}

#[test]
fn who_is_not_allowed_is_not_heard() {
    let running = Running::start(|c| c.allow = vec!["192.0.2.0/24".parse().unwrap()]);
    running.datagram(line("udp.example").as_bytes());
    let mut stream = running.tcp();
    // Closed at once; what was written meanwhile may come back as an error.
    let _reset = stream.write_all(line("tcp.example").as_bytes());
    assert!(matches!(stream.read(&mut [0; 8]), Ok(0) | Err(_)));
    running.until_counted("drop.syslog.not_allowed", 2);
    running.clock.advance(Duration::from_secs(2));
    running.until("it is said", || running.context.state.get().contains("2 were refused"));
    assert!(running.end().is_empty());
}

#[test]
fn what_is_too_long_or_no_text_disturbs_nothing() {
    let running = Running::start(|_| {});
    let mut stream = running.tcp();
    let long = vec![b'x'; 1 << 20];
    let noise: Vec<u8> =
        (0..100_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for (bytes, name) in [(&long, "a.example"), (&noise, "b.example")] {
        stream.write_all(b"<30>").unwrap();
        stream.write_all(bytes).unwrap();
        stream.write_all(format!("\n{}\n", line(name)).as_bytes()).unwrap();
        if name == "b.example" {
            break;
        }
        stream.write_all(format!("{} ", long.len()).as_bytes()).unwrap();
        stream.write_all(&long).unwrap();
    }
    running.until("both lengths are seen", || running.counters()["drop.syslog.too_long"] >= 2);
    running.datagram(&long[..60_000]);
    running.datagram(&noise[..5_000]);
    running.datagram(b"");
    running.datagram(line("c.example").as_bytes());
    running.until("the last is read", || running.counters()["syslog.queries"] >= 2);
    drop(stream);
    let events = running.end();
    let names = names(&events);
    // Noise may announce a length and end its connection; nothing else suffers.
    assert!(names.starts_with(&["a.example".to_owned()]), "{names:?}");
    assert_eq!(names.last().map(String::as_str), Some("c.example"));
}

#[test]
fn datagrams_beyond_the_rate_are_a_gap_and_connections_wait() {
    let running = Running::start(|c| c.messages_per_second = 10);
    for n in 0..50 {
        running.datagram(line(&format!("u{n}.example")).as_bytes());
    }
    running.until_counted("drop.syslog.rate", 30);
    let mut stream = running.tcp();
    for n in 0..40 {
        writeln!(stream, "{}", line(&format!("t{n}.example"))).unwrap();
    }
    running.until("all of the connection is read, as time allows", || {
        running.clock.advance(Duration::from_millis(100));
        running.counters()["syslog.queries"] == 60
    });
    running.clock.advance(Duration::from_secs(10));
    drop(stream);
    let events = running.end();
    assert_eq!(names(&events).len(), 60);
    let gaps = gaps(&events);
    assert!(gaps.iter().all(|(reason, _)| reason == "rate-limit"), "{gaps:?}");
    assert_eq!(gaps.iter().map(|(_, lost)| lost.unwrap()).sum::<u64>(), 30);
}

#[test]
fn who_stands_still_inside_a_message_is_let_go() {
    let running = Running::start(|_| {});
    let (mut slow, mut quiet) = (running.tcp(), running.tcp());
    writeln!(quiet, "{}", line("quiet.example")).unwrap();
    running.until_counted("syslog.connections", 2);
    // A byte now and then does not help.
    for byte in b"<30>Nov" {
        slow.write_all(&[*byte]).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        running.clock.advance(Duration::from_secs(5));
    }
    running.until_counted("drop.syslog.half_message", 1);
    assert!(matches!(slow.read(&mut [0; 8]), Ok(0) | Err(_)));
    writeln!(quiet, "{}", line("still.example")).unwrap();
    running.until_counted("syslog.queries", 2);
    assert_eq!(names(&running.end()), ["quiet.example", "still.example"]);
}

#[test]
fn connections_are_bounded_and_idle_ones_give_way() {
    let running = Running::start(|c| c.connections_max = 8);
    let first = running.tcp();
    let _second = running.tcp();
    running.until_counted("syslog.connections", 2);
    let mut third = running.tcp();
    running.until_counted("drop.syslog.connections", 1);
    assert!(matches!(third.read(&mut [0; 8]), Ok(0) | Err(_)));
    running.clock.advance(Duration::from_secs(61));
    let mut fourth = running.tcp();
    running.until_counted("syslog.connections", 3);
    writeln!(fourth, "{}", line("fourth.example")).unwrap();
    running.until_counted("syslog.queries", 1);
    drop(first);
    assert_eq!(names(&running.end()), ["fourth.example"]);
}

#[test]
fn a_silence_is_told_and_the_end_of_it() {
    let running = Running::start(|_| {});
    running.datagram(line("a.example").as_bytes());
    running.until_counted("syslog.queries", 1);
    running.clock.advance(Duration::from_secs(1_801));
    running.until("it is said", || running.context.state.get().contains("127.0.0.1 is silent"));
    let back = line("b.example").replace("14:00:00", "14:30:01");
    running.datagram(back.as_bytes());
    running.until_counted("syslog.queries", 2);
    running.clock.advance(Duration::from_secs(2));
    running.until("it is well again", || running.context.state.get().starts_with("ok: "));
    let events = running.end();
    assert_eq!(gaps(&events), [("silent".to_owned(), None), ("silent".to_owned(), None)]);
    let found = events.iter().filter_map(|event| match &event.body {
        Body::Finding(f) => Some((f.rule.as_str(), f.client.map(|ip| ip.to_string()))),
        _ => None,
    });
    let expected = (alarm::SILENT, Some("127.0.0.1".to_owned()));
    assert_eq!(found.collect::<Vec<_>>(), [expected], "once, and not when it ends");
}

/// A CA, and a certificate of it for `name` with its key, as PEM.
struct Pems {
    ca: String,
    cert: String,
    key: String,
}

fn pems(name: &str) -> Pems {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_cert = ca.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    Pems { ca: ca_cert.pem(), cert: leaf.pem(), key: key.serialize_pem() }
}

fn secured(dir: &Path, server: &Pems, client_ca: Option<&str>) -> Running {
    let write = |name: &str, text: &str| {
        std::fs::write(dir.join(name), text).unwrap();
        dir.join(name)
    };
    let (cert, key) = (write("cert.pem", &server.cert), write("key.pem", &server.key));
    let ca = client_ca.map(|text| write("ca.pem", text)).unwrap_or_default();
    Running::start(|config| {
        config.tls = std::mem::take(&mut config.tcp);
        (config.tls_cert, config.tls_key, config.tls_client_ca) = (cert, key, ca);
    })
}

fn client(
    running: &Running,
    ca: &str,
    own: Option<&Pems>,
) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match own {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let chain = vec![CertificateDer::from_pem_slice(own.cert.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    let name = ServerName::try_from("hub.example").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let stream = TcpStream::connect(running.at("tls")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    StreamOwned::new(connection, stream)
}

#[test]
fn messages_inside_tls() {
    let (dir, server) = (tempfile::tempdir().unwrap(), pems("hub.example"));
    let running = secured(dir.path(), &server, None);
    let mut stream = client(&running, &server.ca, None);
    let mut expected = Vec::new();
    for n in 0..500 {
        let line = line(&format!("n{n}.example"));
        write!(stream, "{} {line}", line.len()).unwrap();
        expected.push(format!("n{n}.example"));
    }
    running.until_counted("syslog.queries", 500);
    // Half a message, and gone without a farewell.
    stream.write_all(b"99 <30>").unwrap();
    drop(stream);
    running.until_counted("drop.syslog.half_message", 1);
    expected.sort();
    assert_eq!(names(&running.end()), expected);
}

#[test]
fn what_is_no_tls_is_let_go() {
    let (dir, server) = (tempfile::tempdir().unwrap(), pems("hub.example"));
    let running = secured(dir.path(), &server, None);
    let mut plain = TcpStream::connect(running.at("tls")).unwrap();
    plain.set_read_timeout(Some(PATIENCE)).unwrap();
    writeln!(plain, "{}", line("plain.example")).unwrap();
    running.until_counted("syslog.bad_stream", 1);
    // And one that never begins.
    let mut mute = TcpStream::connect(running.at("tls")).unwrap();
    mute.set_read_timeout(Some(PATIENCE)).unwrap();
    running.until_counted("syslog.connections", 2);
    running.clock.advance(Duration::from_secs(31));
    assert!(matches!(mute.read(&mut [0; 8]), Ok(0) | Err(_)));
    assert!(running.end().is_empty());
}

#[test]
fn a_sender_must_show_its_certificate_where_one_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let (server, sender, stranger) = (pems("hub.example"), pems("router"), pems("router"));
    let running = secured(dir.path(), &server, Some(&sender.ca));
    for own in [None, Some(&stranger)] {
        let mut stream = client(&running, &server.ca, own);
        // Writing may succeed before the refusal is read.
        let _refused = writeln!(stream, "{}", line("no.example"));
        assert!(matches!(stream.read(&mut [0; 8]), Ok(0) | Err(_)));
    }
    running.until_counted("syslog.bad_stream", 2);
    let mut stream = client(&running, &server.ca, Some(&sender));
    writeln!(stream, "{}", line("yes.example")).unwrap();
    running.until_counted("syslog.queries", 1);
    assert_eq!(names(&running.end()), ["yes.example"]);
}

#[test]
fn what_is_missing_is_said() {
    #[track_caller]
    fn check(change: impl FnOnce(&mut Config), says: &str) {
        let mut config = Config { udp: Vec::new(), ..Config::default() };
        change(&mut config);
        let error = Sockets::bind(&config).map(|_| ()).unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains(says), "{error}");
    }
    let (dir, one, other) = (tempfile::tempdir().unwrap(), pems("a"), pems("b"));
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("cert"), &one.cert).unwrap();
    std::fs::write(path("key"), &other.key).unwrap();
    std::fs::write(path("empty"), "").unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let tls = |c: &mut Config, cert: &str, key: &str| {
        (c.tls, c.tls_cert, c.tls_key) = (vec![any], path(cert), path(key));
    };
    check(|c| tls(c, "nowhere", "key"), "nowhere");
    check(|c| tls(c, "empty", "key"), "holds no certificate");
    check(|c| tls(c, "cert", "empty"), "empty");
    check(|c| tls(c, "cert", "key"), "do not belong together");
    let taken = UdpSocket::bind(any).unwrap();
    check(|c| c.udp = vec![taken.local_addr().unwrap()], "taken by another program");
}
