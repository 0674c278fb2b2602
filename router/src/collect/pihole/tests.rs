//! The collector as a whole against a Pi-hole that forgets, restarts and refuses; killed
//! anywhere.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use agentmon_core::event::DnsStatus;
use agentmon_core::time::{Clock as _, SimClock};
use tempfile::TempDir;

use super::fake::{FakePihole, Fault};
use super::*;
use crate::collect::{Outbox, State as StateLine, Stop};
use crate::counters::Counters;

/// 2026-11-23 14:00 UTC
const NOW: i64 = 1_795_442_400;
const CLIENT: &str = "192.0.2.31";

/// A Pi-hole, and a collector that is killed and started at will.
struct Rig {
    pihole: FakePihole,
    dir: TempDir,
    config: Config,
    source: Source,
    client: Option<Client>,
    context: Context,
    receiver: Receiver<Delivery>,
    clock: Arc<SimClock>,
    /// What the ring has.
    told: Vec<Event>,
    committed: Option<Checkpoint>,
    asked: u64,
}

impl Rig {
    fn new() -> Self {
        Self::with_certificate("127.0.0.1", |pihole| pihole.hub.ca_pem.clone())
    }

    fn with_certificate(name: &str, pem: impl Fn(&FakePihole) -> String) -> Self {
        let pihole = FakePihole::start(name);
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| -> PathBuf {
            std::fs::write(dir.path().join(name), text).unwrap();
            dir.path().join(name)
        };
        let config = Config {
            enabled: true,
            url: format!("https://{}", pihole.hub.address),
            password_file: file("password", "app-secret\n"),
            certificate: file("pem", &pem(&pihole)),
            poll_ms: 100,
            ..Config::default()
        };
        config.validate().unwrap();
        let (outbox, receiver) = Outbox::channel();
        let clock = Arc::new(SimClock::at(Timestamp::from_secs(NOW)));
        let context = Context {
            outbox,
            stop: Stop::default(),
            clock: clock.clone(),
            counters: Counters::default(),
            state: StateLine::default(),
        };
        Self {
            source: Source::new(config.clone()),
            pihole,
            dir,
            config,
            client: None,
            context,
            receiver,
            clock,
            told: Vec::new(),
            committed: None,
            asked: 0,
        }
    }

    fn now(&self) -> f64 {
        self.clock.wall().micros() as f64 / 1e6
    }

    fn wait(&self, millis: u64) {
        self.clock.advance(Duration::from_millis(millis));
    }

    /// A client's question with all its lines, and its row.
    fn ask(&mut self) -> String {
        let name = format!("n{}.example", self.asked);
        self.ask_for(&name);
        name
    }

    fn ask_for(&mut self, name: &str) {
        self.asked += 1;
        let now = self.now();
        self.pihole.with(|p| {
            p.line(now, &format!("query[A] {name} from {CLIENT}"));
            p.line(now + 0.001, &format!("forwarded {name} to 192.0.2.53"));
            p.line(now + 0.002, &format!("reply {name} is 203.0.113.80"));
            p.row(now - 0.000_4, name, CLIENT);
        });
        self.wait(10);
    }

    /// One turn of the collector's loop, as far as it gets.
    fn turn(&mut self) -> Result<(), Refusal> {
        let mut client = match self.client.take() {
            Some(client) => client,
            None => Client::new(&self.config, self.source.sid.take())?,
        };
        let done = self.source.look(&mut client, &self.context).and_then(|lines| {
            let silence = if lines > 0 { Duration::ZERO } else { Duration::from_secs(6) };
            self.source.idle(silence);
            self.source.fill(&mut client, &self.context)
        });
        self.client = Some(client);
        self.source.count(&self.context.counters);
        done
    }

    /// What was delivered so far gets into the ring, or not.
    fn commit(&mut self) {
        self.source.deliver(&self.context).unwrap();
        for delivery in self.receiver.try_iter() {
            self.told.extend(delivery.events);
            self.committed = delivery.checkpoint.or(self.committed.take());
        }
    }

    fn kill(&mut self) {
        self.receiver.try_iter().for_each(drop);
        self.source = Source::new(self.config.clone());
        self.client = None;
        if let Some(checkpoint) = &self.committed {
            assert_eq!(self.source.checkpoint_key().as_ref(), Some(&checkpoint.key));
            self.source.restore(&checkpoint.value);
        }
    }

    /// Until everything that can be found is found.
    fn settle(&mut self) {
        for _ in 0..40 {
            self.wait(9_000);
            self.turn().unwrap();
            self.commit();
        }
    }

    fn names(&self) -> BTreeMap<String, u32> {
        let mut names = BTreeMap::new();
        for event in &self.told {
            if let Body::Dns(dns) = &event.body {
                assert_eq!(dns.source, SOURCE);
                *names.entry(dns.name.as_str().to_owned()).or_default() += 1;
            }
        }
        names
    }

    fn counted(&self, name: &str) -> u64 {
        self.context.counters.snapshot().get(name).copied().unwrap_or(0)
    }

    fn dns(&self, name: &str) -> agentmon_core::event::Dns {
        let mut found = self.told.iter().filter_map(|event| match &event.body {
            Body::Dns(dns) if dns.name.as_str() == name => Some(dns.clone()),
            _ => None,
        });
        let one = found.next().unwrap_or_else(|| panic!("{name} was not told"));
        assert!(found.next().is_none(), "{name} was told twice");
        one
    }
}

#[test]
fn lines_become_exchanges() {
    let mut rig = Rig::new();
    rig.ask_for("before.example");
    rig.turn().unwrap();
    rig.ask_for("www.example.com");
    rig.settle();
    let dns = rig.dns("www.example.com");
    assert_eq!((dns.status, dns.rcode, dns.answers.len()), (DnsStatus::Forwarded, Some(0), 1));
    assert_eq!((dns.upstream.as_deref(), dns.latency_us), (Some("192.0.2.53"), Some(2_000)));
    // What was there at the very first start is somebody else's history.
    assert_eq!(rig.names().len(), 1);
    assert_eq!(rig.pihole.asked("GET", "/api/queries"), 0, "nothing was missing");
}

#[test]
fn what_the_log_forgot_is_looked_up() {
    let mut rig = Rig::new();
    rig.pihole.with(|p| p.room = 30);
    rig.turn().unwrap();
    let names: Vec<_> = (0..700).map(|_| rig.ask()).collect();
    rig.settle();
    assert_eq!(rig.names(), names.iter().map(|name| (name.clone(), 1)).collect());
    let found = rig.dns("n5.example");
    assert_eq!((found.status, found.rcode), (DnsStatus::Forwarded, None));
    assert_eq!(found.latency_us, Some(20_000));
    assert_eq!((rig.counted("pihole.filled"), rig.counted("pihole.lines_missed")), (690, 2_070));
    assert_eq!(rig.pihole.asked("GET", "/api/queries"), 2, "700 rows are two pages");
}

/// Random histories: each question is told exactly once, whatever happens.
#[test]
fn neither_lost_nor_doubled() {
    for seed in 0..12u64 {
        let mut rig = Rig::new();
        rig.pihole.with(|p| p.room = 60);
        rig.turn().unwrap();
        rig.commit();
        let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut names = Vec::new();
        for _ in 0..60 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            match random % 11 {
                0..=4 => names.extend((0..random / 11 % 30).map(|_| rig.ask())),
                5 | 6 => rig.turn().unwrap(),
                7 => {
                    rig.turn().unwrap();
                    rig.commit();
                }
                8 => rig.kill(),
                9 => rig.pihole.with(|p| p.restart()),
                _ => {
                    rig.pihole.with(|p| p.sessions.clear());
                    rig.wait(random / 11 % 12_000);
                }
            }
        }
        rig.settle();
        let want: BTreeMap<_, _> = names.iter().map(|name| (name.clone(), 1)).collect();
        let got = rig.names();
        let wrong: Vec<_> = got.iter().filter(|(name, n)| want.get(*name) != Some(*n)).collect();
        assert!(wrong.is_empty(), "seed {seed}: {wrong:?}");
        assert_eq!(got.len(), want.len(), "seed {seed}: some were lost");
        assert_eq!(rig.counted("drop.pihole.gap_given_up"), 0);
    }
}

#[test]
fn a_question_that_was_cut_short_is_looked_up() {
    let mut rig = Rig::new();
    rig.turn().unwrap();
    let long = format!("{0}.{0}.{0}.{1}.example", "a".repeat(63), "b".repeat(47));
    rig.ask_for(&long);
    rig.ask_for("short.example");
    rig.settle();
    assert_eq!(rig.dns(&long).client.to_string(), CLIENT);
    assert_eq!(rig.names().len(), 2);
    assert_eq!(rig.counted("pihole.lines_cut"), 1);
}

#[test]
fn an_answer_that_was_forgotten_is_completed() {
    let mut rig = Rig::new();
    rig.pihole.with(|p| p.room = 2);
    rig.turn().unwrap();
    let now = rig.now();
    rig.pihole.with(|p| {
        p.line(now, &format!("query[A] slow.example from {CLIENT}"));
        p.row(now, "slow.example", CLIENT);
    });
    rig.turn().unwrap();
    rig.wait(1_500);
    let now = rig.now();
    rig.pihole.with(|p| {
        for message in ["reply slow.example is 203.0.113.9", "read /etc/hosts - 3 names", "x", "y"]
        {
            p.line(now, message);
        }
    });
    rig.settle();
    let dns = rig.dns("slow.example");
    assert_eq!((dns.status, dns.rcode), (DnsStatus::Forwarded, None));
}

#[test]
fn a_database_that_does_not_answer_stops_nothing() {
    let mut rig = Rig::new();
    rig.pihole.with(|p| p.room = 3);
    rig.turn().unwrap();
    rig.ask();
    rig.ask();
    rig.pihole.with(|p| p.fault = Fault::Always("queries", 500, "", "<html>oops".into()));
    for _ in 0..8 {
        rig.wait(40_000);
        rig.ask();
        rig.turn().unwrap();
    }
    rig.commit();
    let gap = rig.told.iter().find_map(|event| match &event.body {
        Body::Gap(gap) => Some(gap.clone()),
        _ => None,
    });
    let gap = gap.expect("a gap is told");
    assert_eq!((gap.collector.as_str(), gap.lost), (SOURCE, Some(6)));
    assert_eq!(rig.counted("drop.pihole.gap_given_up"), 1);
    // The newest answer may still go on; the two of the gap are lost.
    let want: BTreeMap<_, _> = (2..9).map(|i| (format!("n{i}.example"), 1)).collect();
    assert_eq!(rig.names(), want);
}

#[track_caller]
fn refuses(change: impl FnOnce(&mut Rig), says: &str, pause: Option<u64>) {
    let mut rig = Rig::new();
    change(&mut rig);
    let refusal = rig.turn().unwrap_err();
    let text = refusal.to_string();
    assert!(text.contains(says), "{text}");
    assert!(!text.contains("app-secret") && !text.contains('\n'), "{text}");
    assert_eq!(refusal.pause().map(|p| p.as_secs()), pause, "{text}");
}

fn always(status: u16, headers: &'static str, body: &str) -> impl FnOnce(&mut Rig) {
    let fault = Fault::Always("", status, headers, body.to_owned());
    move |rig| rig.pihole.with(|p| p.fault = fault)
}

#[test]
fn refusals_say_how_to_mend_it() {
    let password = |text: &'static str| {
        move |rig: &mut Rig| std::fs::write(&rig.config.password_file, text).unwrap()
    };
    refuses(password("wrong"), "write an app password", Some(60));
    refuses(password(""), "write an app password", Some(60));
    refuses(|rig| rig.config.password_file = PathBuf::new(), "name it in password_file", Some(60));
    refuses(|rig| rig.pihole.with(|p| p.totp = true), "needs none", Some(60));
    refuses(|rig| rig.config.password_file = "/nowhere/p".into(), "/nowhere/p", None);
    refuses(|rig| rig.config.certificate = "/nowhere/c".into(), "/nowhere/c", None);
    refuses(|rig| rig.pihole.with(|p| p.seats = 0), "max_sessions", Some(30));
    refuses(always(429, "Retry-After: 7\r\n", ""), "busy", Some(7));
    refuses(always(503, "Retry-After: 99999\r\n", "<html>"), "busy", Some(600));
    refuses(always(200, "", "<!DOCTYPE html><html>"), "a web page and no JSON", None);
    refuses(always(200, "", "{\"session\":"), "not the JSON expected", None);
    refuses(always(302, "Location: https://192.0.2.9/x\r\n", ""), "sends us on to", None);
    refuses(always(404, "", "<html>"), "no Pi-hole v6", None);
    refuses(always(403, "", "{\"error\":{\"message\":\"Forbidden\"}}"), "webserver.acl", Some(60));
    refuses(always(500, "", ""), "has a problem (500", None);
    refuses(always(200, "", &" ".repeat(3 << 20)), "more than 2097152 bytes", None);
}

#[test]
fn a_session_that_ends_is_renewed_and_one_that_cannot_be_is_told() {
    let mut rig = Rig::new();
    rig.turn().unwrap();
    rig.pihole.with(|p| p.sessions.clear());
    rig.ask();
    rig.turn().unwrap();
    assert_eq!(rig.pihole.with(|p| p.logins), 2);
    rig.pihole.with(|p| p.fault = Fault::Always("logs", 401, "", "{}".into()));
    assert_eq!(rig.turn(), Err(Refusal::Session));
    rig.pihole.with(|p| p.fault = Fault::None);
    rig.settle();
    assert_eq!(rig.names().len(), 1);
    // A new password is taken up without a restart.
    rig.pihole.with(|p| (p.password, p.sessions) = (Some("new"), Default::default()));
    assert!(matches!(rig.turn(), Err(Refusal::Password(_))));
    std::fs::write(rig.dir.path().join("password"), "new").unwrap();
    rig.turn().unwrap();
}

#[test]
fn none_is_needed_where_no_password_is_set() {
    let mut rig = Rig::new();
    rig.pihole.with(|p| p.password = None);
    rig.config.password_file = PathBuf::new();
    rig.turn().unwrap();
    rig.ask();
    rig.settle();
    assert_eq!((rig.names().len(), rig.pihole.asked("GET", "/api/auth")), (1, 1));
}

/// Who is trusted: what the file's certificates signed for the name, and what stands in it.
#[test]
fn certificates() {
    let ca = |pihole: &FakePihole| pihole.hub.ca_pem.clone();
    let leaf = |pihole: &FakePihole| pihole.hub.leaf_pem.clone();
    let other = |_: &FakePihole| FakePihole::start("127.0.0.1").hub.ca_pem.clone();
    Rig::with_certificate("127.0.0.1", ca).turn().unwrap();
    Rig::with_certificate("pi.hole", leaf).turn().unwrap();
    let error = Rig::with_certificate("pi.hole", ca).turn().unwrap_err().to_string();
    assert!(error.contains("set address"), "{error}");
    let error = Rig::with_certificate("127.0.0.1", other).turn().unwrap_err().to_string();
    assert!(error.contains("copy it from"), "{error}");
    let error = Rig::with_certificate("127.0.0.1", |_| "no pem".into()).turn().unwrap_err();
    assert!(matches!(&error, Refusal::Settings(why) if why.contains("no certificate")), "{error}");
    // By name, at an address: what `address` is for.
    let mut rig = Rig::with_certificate("pi.hole", ca);
    rig.config.url = format!("https://pi.hole:{}", rig.pihole.hub.address.port());
    rig.config.address = "127.0.0.1".into();
    rig.turn().unwrap();
}

#[test]
fn nobody_there() {
    let mut rig = Rig::new();
    rig.config.url = "https://127.0.0.1:1".into();
    let refusal = rig.turn().unwrap_err();
    assert!(matches!(&refusal, Refusal::Unreachable(why) if why.contains("refused")), "{refusal}");
}

/// The whole loop on its thread: tells, says how it is, and leaves no session behind.
#[test]
fn it_runs_and_says_good_bye() {
    let mut rig = Rig::new();
    let (mut source, context) = (Source::new(rig.config.clone()), rig.context.clone());
    let thread = std::thread::spawn(move || source.run(&context));
    let first = rig.receiver.recv().unwrap();
    assert!(first.events.is_empty() && first.checkpoint.is_some(), "the first place at once");
    let name = rig.ask();
    // The answer is complete when the log has been silent for a moment.
    let event = loop {
        rig.wait(400);
        let delivered = rig.receiver.recv_timeout(Duration::from_millis(20)).unwrap_or_default();
        if let Some(event) = delivered.events.into_iter().next() {
            break event;
        }
    };
    let Body::Dns(dns) = event.body else { panic!("{event:?}") };
    assert_eq!(dns.name.as_str(), name);
    assert!(rig.context.state.get().starts_with("ok: https://"), "{}", rig.context.state.get());
    rig.context.stop.stop();
    thread.join().unwrap().unwrap();
    assert_eq!(rig.pihole.with(|p| (p.logins, p.sessions.len())), (1, 0));
    assert_eq!(rig.pihole.asked("DELETE", "/api/auth"), 1);
}

/// A refused login is not repeated with every start of the supervisor.
#[test]
fn it_rests_when_refused() {
    let mut rig = Rig::new();
    rig.pihole.with(|p| p.password = Some("other"));
    let error = rig.source.run(&rig.context).unwrap_err().to_string();
    assert!(error.contains("app password"), "{error}");
    let stop = rig.context.stop.clone();
    let (context, mut source) = (rig.context.clone(), rig.source);
    let thread = std::thread::spawn(move || source.run(&context));
    while !rig.context.state.get().contains("next attempt in 60 s") {
        std::thread::yield_now();
    }
    stop.stop();
    thread.join().unwrap().unwrap();
    assert_eq!(rig.pihole.asked("POST", "/api/auth"), 1);
}

/// Its network table names devices; one that does not answer stops nothing.
#[test]
fn names_of_devices() {
    let mut rig = Rig::new();
    rig.pihole.with(|p| {
        let ip = |ip: &str, name| serde_json::json!({"ip": ip, "name": name, "lastSeen": NOW});
        p.devices = vec![
            serde_json::json!({"id": 1, "hwaddr": "00:00:5E:00:53:01", "interface": "eth0",
                "ips": [ip("192.0.2.7", Some("tv.lan")), ip("2001:db8::7", None), 7]}),
            serde_json::json!({"id": 2, "hwaddr": "ip-192.0.2.9", "ips": [ip("192.0.2.9", None)]}),
            serde_json::json!({"id": 3}),
        ];
    });
    let mut client = Client::new(&rig.config, None).unwrap();
    rig.source.names(&mut client, &rig.context).unwrap();
    let told: Vec<_> = rig.source.events.drain(..).map(|event| (event.time, event.body)).collect();
    let device = |ip: &str, name: Option<&str>| {
        let (ip, hostname) = (ip.parse().unwrap(), name.map(str::to_owned));
        let (iface, source) = (Some("eth0".into()), agentmon_core::event::DeviceSource::Pihole);
        let mac = "00:00:5e:00:53:01".parse().unwrap();
        let device = agentmon_core::event::Device { mac, ip, hostname, iface, source };
        (Timestamp::from_secs(NOW), Body::Device(device))
    };
    assert_eq!(told, [device("192.0.2.7", Some("tv.lan")), device("2001:db8::7", None)]);
    assert_eq!((rig.counted("pihole.devices"), rig.counted("drop.pihole.bad_device")), (2, 2));
    rig.source.names(&mut client, &rig.context).unwrap();
    assert!(rig.source.events.is_empty(), "not at every look");
    let oops = Fault::Always("network", 500, "", "<html>".into());
    rig.pihole.with(|p| p.fault = oops);
    rig.wait(601_000);
    rig.source.names(&mut client, &rig.context).unwrap();
    assert!(rig.source.events.is_empty());
}

#[test]
fn an_unreadable_checkpoint_is_told() {
    let mut rig = Rig::new();
    rig.source.restore(b"{\"place\":7}");
    assert!(rig.source.restore_failed);
    rig.turn().unwrap();
    assert_eq!(rig.source.reader.counts().lines, 0);
}
