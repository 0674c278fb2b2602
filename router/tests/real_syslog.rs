//! The syslog receiver and the pipe against real writers: what a real dnsmasq logs, sent on
//! by util-linux's `logger` in each form and over each transport it has; and a dnsmasq that
//! logs straight into a FIFO.
//!
//! Needs dnsmasq and logger. Without them the tests say so loudly and pass; with
//! `AGENTMON_REQUIRE_LAB=1` they fail.

use std::io::Write as _;
use std::net::UdpSocket;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;
use std::time::Duration;

use agentmon_core::Event;
use agentmon_core::event::{Body, DnsStatus};
use agentmon_core::time::SystemClock;
use agentmon_router::collect::{
    Collector, Context, Delivery, Outbox, State, Stop, dnsmasq_log, syslog,
};
use agentmon_router::counters::Counters;

/// A dnsmasq of its own, gone with this value.
struct Dnsmasq(Child, u16);

impl Dnsmasq {
    /// Answers everything below `example` itself and logs to `log`.
    fn start(log: &Path) -> Self {
        let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new("dnsmasq");
        command.args(["-k", "--conf-file=/dev/null", "--listen-address=127.0.0.1"]);
        command.args(["--bind-interfaces", "--no-resolv", "--no-hosts", "--pid-file="]);
        command.args(["--address=/example/192.0.2.1", "--log-queries=extra"]);
        command.args([format!("--port={port}"), format!("--log-facility={}", log.display())]);
        if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
            command.arg("--user=root");
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        let this = Self(child, port);
        this.ask("up.example");
        this
    }

    /// Asks until it is answered.
    fn ask(&self, name: &str) {
        let socket = UdpSocket::bind("127.0.0.9:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            message.push(u8::try_from(label.len()).unwrap());
            message.extend_from_slice(label.as_bytes());
        }
        message.extend([0, 0, 1, 0, 1]);
        for _ in 0..120 {
            socket.send_to(&message, ("127.0.0.1", self.1)).unwrap();
            if socket.recv(&mut [0; 512]).is_ok() {
                return;
            }
        }
        panic!("dnsmasq does not answer");
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
    let is_there = |name: &&str| {
        let asked = Command::new(name).arg("--version").stdout(Stdio::null()).status();
        asked.is_ok()
    };
    let missing: Vec<_> =
        ["dnsmasq", "logger", "mkfifo"].into_iter().filter(|name| !is_there(name)).collect();
    let line = format!("LAB TEST LEFT OUT: real_syslog: missing: {}", missing.join(", "));
    let required = std::env::var("AGENTMON_REQUIRE_LAB").as_deref() == Ok("1");
    assert!(missing.is_empty() || !required, "{line}");
    if !missing.is_empty() {
        // Straight to the descriptor: the test runner would swallow a print.
        let written = writeln!(std::io::stderr(), "\n{line}\n");
        written.expect("standard error can be written");
    }
    missing.is_empty()
}

/// A collector that runs.
struct Running {
    context: Context,
    deliveries: Receiver<Delivery>,
    thread: JoinHandle<anyhow::Result<()>>,
}

fn start(mut source: impl Collector + 'static) -> Running {
    let (outbox, deliveries) = Outbox::channel();
    let context = Context {
        outbox,
        stop: Stop::default(),
        clock: Arc::new(SystemClock),
        counters: Counters::default(),
        state: State::default(),
    };
    let own = context.clone();
    let thread = std::thread::spawn(move || source.run(&own));
    Running { context, deliveries, thread }
}

impl Running {
    #[track_caller]
    fn until(&self, what: &str, is: impl Fn(&Self) -> bool) {
        for _ in 0..3_000 {
            if is(self) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("never: {what}: {:?}", self.context.counters.snapshot());
    }

    fn counted(&self, name: &str) -> u64 {
        self.context.counters.snapshot().get(name).copied().unwrap_or(0)
    }

    fn end(self) -> Vec<Event> {
        self.context.stop.stop();
        drop(self.context);
        // Its last words may be more than the queue holds: taken while it says them.
        let events = self.deliveries.iter().flat_map(|delivery| delivery.events).collect();
        self.thread.join().unwrap().unwrap();
        events
    }
}

/// Names that were asked for and answered by the resolver itself.
fn answered(events: &[Event]) -> Vec<&str> {
    let name = |event| match event {
        &Event { body: Body::Dns(ref dns), .. } if dns.status == DnsStatus::Local => {
            // Asked by the machine itself, which is the sender.
            assert_eq!(dns.client.to_string(), "127.0.0.1");
            Some(dns.name.as_str())
        }
        _ => None,
    };
    let mut names: Vec<_> = events.iter().filter_map(name).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// dnsmasq's own lines: the part behind `dnsmasq[7]: `.
fn bodies(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap();
    let body = |line: &str| line.split_once("]: ").map(|(_, body)| format!("{body}\n"));
    text.lines().filter_map(body).collect()
}

#[test]
fn what_dnsmasq_says_sent_on_by_logger_in_every_form() {
    if !can_run() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("dns.log");
    let dnsmasq = Dnsmasq::start(&log);
    for n in 0..5 {
        dnsmasq.ask(&format!("n{n}.example"));
    }
    drop(dnsmasq);
    let said = bodies(&log);
    let queries = said.matches("query[").count() as u64;
    assert!(queries >= 6, "{said}");
    for form in [
        &["--udp", "--rfc3164"][..],
        &["--udp", "--rfc5424"],
        &["--tcp", "--rfc3164"],
        &["--tcp", "--rfc5424"],
        &["--tcp", "--rfc5424=notime,nohost"],
        &["--tcp", "--rfc5424", "--octet-count"],
    ] {
        let any = vec!["127.0.0.1:0".parse().unwrap()];
        let running = start(syslog::Source::new(syslog::Config {
            enabled: true,
            udp: any.clone(),
            tcp: any,
            ..syslog::Config::default()
        }));
        running.until("it listens", |r| r.context.state.get().contains("tcp 127"));
        let state = running.context.state.get();
        let kind = if form[0] == "--udp" { "udp " } else { "tcp " };
        let port = state.split_once(kind).unwrap().1.trim_start_matches("127.0.0.1:");
        let port: String = port.chars().take_while(char::is_ascii_digit).collect();
        let mut logger = Command::new("logger")
            .args(form)
            .args(["--server", "127.0.0.1", "--port", &port])
            .args(["--priority", "daemon.info", "--tag", "dnsmasq", "--id=7"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        logger.stdin.take().unwrap().write_all(said.as_bytes()).unwrap();
        assert!(logger.wait().unwrap().success(), "{form:?}");
        running.until("all are read", |r| r.counted("syslog.queries") == queries);
        running.until("all are joined", |r| r.counted("syslog.exchanges") == queries);
        assert_eq!(running.counted("syslog.late"), 0, "{form:?}");
        let events = running.end();
        let names = ["n0.example", "n1.example", "n2.example", "n3.example", "n4.example"];
        assert_eq!(answered(&events)[..5], names, "{form:?}");
    }
}

#[test]
fn a_real_dnsmasq_logs_into_a_pipe() {
    if !can_run() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("dns.fifo");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let running = start(dnsmasq_log::Source::new(dnsmasq_log::Config {
        enabled: true,
        paths: vec![pipe.clone()],
        ..dnsmasq_log::Config::default()
    }));
    running.until("it is open", |r| r.context.state.get().contains("a pipe"));
    // Far more than a pipe holds, by two runs of dnsmasq.
    let each = 1_500;
    let ask = |dnsmasq: &Dnsmasq| (0..each).for_each(|n| dnsmasq.ask(&format!("n{n}.example")));
    ask(&Dnsmasq::start(&pipe));
    let dnsmasq = Dnsmasq::start(&pipe);
    ask(&dnsmasq);
    running.until("all are read", |r| r.counted("dnsmasq_log.queries") >= 2 * each + 2);
    assert_eq!(running.counted("drop.dnsmasq_log.pipe_behind"), 0);
    let events = running.end();
    let told = events.iter().filter(|e| matches!(e.body, Body::Dns(_))).count();
    assert!(told as u64 >= 2 * each + 2);
    // Nobody reads the pipe any more: dnsmasq goes on.
    ask(&dnsmasq);
}
