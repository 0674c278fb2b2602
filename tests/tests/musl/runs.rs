//! What the static binaries do, each on its own processor or under the emulator: version,
//! configuration check, score, ring, join, replay, forward; and the refusal of netlink.

use std::fmt::Write as _;
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use agentmon_tests::lab::proc::binary;
use agentmon_tests::lab::wait::{eventually, want};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::router::Musl;

#[track_caller]
fn check(out: &Output, code: i32, said: &str) {
    let text =
        format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert_eq!(out.status.code(), Some(code), "{text}");
    assert!(text.contains(said), "want `{said}` in:\n{text}");
}

#[test]
fn it_says_its_version() {
    for musl in Musl::all() {
        check(&musl.run(&["--version"]), 0, concat!("agentmon-router ", env!("CARGO_PKG_VERSION")));
        check(&musl.run(&["no-such-command"]), 2, "no-such-command");
    }
}

#[test]
fn it_checks_a_configuration() {
    for musl in Musl::all() {
        let folder = Folder::new("ring.bytes_maximum = 5\n");
        check(&musl.run(&["check", "--config", &folder.config()]), 1, "bytes_maximum");
        folder.settings("ring.bytes_max = 5000000\n");
        check(&musl.run(&["check", "--config", &folder.config()]), 0, "");
    }
}

#[test]
fn it_scores_names() {
    for musl in Musl::all() {
        let folder = Folder::new("");
        let list = folder.file("list.txt");
        std::fs::write(&list, "0.0.0.0 listed.example\n").expect("writable");
        folder.settings(&format!(
            "[[tier0.blocklist.lists]]\nname = \"test\"\npath = \"{}\"\n",
            list.display()
        ));
        let config = folder.config();
        let score = |name: &str| musl.run(&["score", name, "--config", &config]);
        check(&score("www.listed.example"), 1, "test");
        check(&score("www.example.com"), 0, "www.example.com");
    }
}

/// Opened, written, closed, opened again, written again: nothing is lost or told twice.
#[test]
fn the_ring_outlives_the_program() {
    for musl in Musl::all() {
        let folder = Folder::new("");
        folder.events("first.ndjson", "first", 40);
        folder.events("second.ndjson", "second", 30);
        let pending = |replayed: Option<&str>, at_least: u64| {
            folder.settings(&format!("forward.enabled = false\n{}", folder.replay(replayed)));
            let router = Running::start(&musl, &folder);
            let ring = router.ring_holds(at_least);
            router.stop();
            number(&ring, "pending")
        };
        let first = pending(Some("first.ndjson"), 40);
        let again = pending(None, first);
        assert!((first..first + 30).contains(&again), "{first}, then {again}");
        let more = pending(Some("second.ndjson"), again + 30);
        assert!(more < again + 60, "{again}, then {more}");
    }
}

#[test]
fn events_reach_a_hub() {
    for musl in Musl::all() {
        let folder = Folder::new("");
        let hub = Hub::start(&folder);
        folder.events("events.ndjson", "sent", 50);
        folder.settings(&folder.replay(Some("events.ndjson")));
        join(&musl, &folder, &hub.enroll(musl.name));
        let router = Running::start(&musl, &folder);
        let count = "SELECT count(*) AS n FROM dns WHERE name LIKE '%.sent.example'";
        eventually(60.0, "all events are at the hub", || {
            let rows = hub.sql(count)?;
            want(rows.trim() == "{\"n\":50}", || format!("{rows}\n{}", router.log()))
        });
        eventually(60.0, "the hub's acknowledgement has emptied the ring", || {
            let ring = router.status()?.get("ring").cloned().unwrap_or_default();
            let sent = number(&ring, "acked") >= 50 && number(&ring, "pending") < 20;
            want(sent, || ring.to_string())
        });
        router.stop();
    }
}

/// No netlink at all: told in one line for the collector that needs it, while the others
/// deliver.
#[test]
fn a_kernel_without_netlink_is_told_once_and_stops_nothing_else() {
    let Some(musl) = Musl::aarch64().filter(Musl::is_emulated) else { return };
    let folder = Folder::new("");
    folder.events("events.ndjson", "seen", 20);
    let settings = folder.replay(Some("events.ndjson")).replace(CONNTRACK_OFF, "");
    folder.settings(&format!("forward.enabled = false\n{settings}"));
    let router = Running::start(&musl, &folder);
    drop(router.ring_holds(20));
    eventually(30.0, "the status names the collector that cannot see", || {
        let status = router.status()?;
        let collectors = status.get("collectors").and_then(Value::as_array).cloned();
        let collectors = collectors.unwrap_or_default();
        let conntrack = collectors.iter().find(|c| c["name"] == "conntrack");
        let state = conntrack.and_then(|c| c["state"].as_str()).unwrap_or_default();
        want(state.contains("netfilter over netlink"), || status.to_string())
    });
    let log = router.log();
    let told = log.lines().filter(|line| line.contains("netfilter over netlink")).count();
    assert_eq!(told, 1, "want one line that says it:\n{log}");
    assert!(!log.contains("panicked"), "{log}");
    router.stop();
}

/// The lines by which a configuration does without the kernel.
const CONNTRACK_OFF: &str = "collect.conntrack.enabled = false\n";

/// A folder with a configuration and all that a router writes.
struct Folder(TempDir);

impl Folder {
    fn new(settings: &str) -> Self {
        let folder = Self(tempfile::tempdir().expect("a folder"));
        folder.settings(settings);
        folder
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn config(&self) -> String {
        self.file("router.toml").to_string_lossy().into_owned()
    }

    /// Writes the configuration; `settings` are dotted keys, or tables.
    fn settings(&self, settings: &str) {
        let text = format!("state_dir = \"{}\"\n{settings}", self.file("state").display());
        std::fs::create_dir_all(self.file("state")).expect("writable");
        std::fs::write(self.config(), text).expect("writable");
    }

    /// The settings of a router that only replays, or sees nothing at all.
    fn replay(&self, file: Option<&str>) -> String {
        let mut text = CONNTRACK_OFF.to_owned();
        for other in ["firewall", "passive_dns", "dnsmasq_log", "leases", "neighbours"] {
            writeln!(text, "collect.{other}.enabled = false").expect("a string");
        }
        if let Some(file) = file {
            let path = self.file(file);
            writeln!(
                text,
                "collect.replay.enabled = true\ncollect.replay.path = \"{}\"\n\
                 collect.replay.shift_to_now = true",
                path.display()
            )
            .expect("a string");
        }
        text
    }

    /// `count` DNS queries for names below `word.example`.
    fn events(&self, file: &str, word: &str, count: usize) {
        let line = |n: usize| {
            format!(
                "{{\"time_ns\":{},\"kind\":\"dns\",\"client\":\"192.168.77.25\",\
                 \"name\":\"n{n}.{word}.example\",\"qtype\":1,\"status\":\"forwarded\",\
                 \"rcode\":0,\"answers\":[{{\"address\":\"198.51.100.21\"}}],\"ttl\":300,\
                 \"source\":\"replay\"}}\n",
                1_780_300_801_000_000_000_u64 + n as u64 * 1_000_000
            )
        };
        let lines: String = (0..count).map(line).collect();
        std::fs::write(self.file(file), lines).expect("writable");
    }
}

fn number(of: &Value, key: &str) -> u64 {
    of.get(key).and_then(Value::as_u64).unwrap_or(0)
}

/// A process that is ended with its test.
struct Ended(Child);

impl Ended {
    fn terminate(&mut self) {
        kill_process(Pid::from_child(&self.0), Signal::TERM).expect("it still runs");
        let ended = eventually(30.0, "it ends after SIGTERM", || {
            self.0.try_wait().expect("own child").ok_or_else(|| "still running".to_owned())
        });
        assert!(ended.success(), "{ended}");
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        // Already gone is as good as killed.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn spawn(command: &mut Command, log: &Path) -> Ended {
    let out = File::options().create(true).append(true).open(log).expect("a log");
    let err = out.try_clone().expect("a log");
    Ended(command.stdout(out).stderr(err).spawn().expect("it starts"))
}

/// `agentmon-router run`.
struct Running<'a> {
    musl: &'a Musl,
    folder: &'a Folder,
    process: Ended,
}

impl<'a> Running<'a> {
    fn start(musl: &'a Musl, folder: &'a Folder) -> Self {
        let mut command = musl.command(&["run", "--config", &folder.config()]);
        let process = spawn(&mut command, &folder.file("router.log"));
        Self { musl, folder, process }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.file("router.log")).unwrap_or_default()
    }

    fn status(&self) -> Result<Value, String> {
        let out = self.musl.run(&["status", "--json", "--config", &self.folder.config()]);
        let said = || format!("{}\n{}", String::from_utf8_lossy(&out.stderr), self.log());
        serde_json::from_slice(&out.stdout).map_err(|e| format!("{e}: {}", said()))
    }

    /// Waits until so many events wait in the ring; gives its account.
    fn ring_holds(&self, at_least: u64) -> Value {
        eventually(60.0, &format!("{at_least} events in the ring"), || {
            let ring = self.status()?.get("ring").cloned().unwrap_or_default();
            let there = number(&ring, "pending") >= at_least;
            if there { Ok(ring) } else { Err(format!("{ring}\n{}", self.log())) }
        })
    }

    fn stop(mut self) {
        self.process.terminate();
    }
}

/// `agentmon serve` on a loopback port.
struct Hub {
    program: PathBuf,
    data: String,
    port: u16,
    _process: Ended,
}

impl Hub {
    fn start(folder: &Folder) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let port = free.expect("a free port").port();
        let (program, config) = (binary("agentmon"), folder.file("hub.toml"));
        std::fs::write(&config, format!("server.listen = \"127.0.0.1:{port}\"\n"))
            .expect("writable");
        let (data, log) = (folder.file("hub"), folder.file("hub.log"));
        let data = data.to_string_lossy().into_owned();
        let mut command = Command::new(&program);
        command.args(["--data", &data, "serve", "--config"]).arg(&config).stdin(Stdio::null());
        let process = spawn(&mut command, &log);
        eventually(60.0, "the hub is ready", || {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            want(said.contains("the hub is ready"), || said)
        });
        Self { program, data, port, _process: process }
    }

    fn ask(&self, args: &[&str]) -> Result<String, String> {
        let out = Command::new(&self.program)
            .args(["--data", &self.data])
            .args(args)
            .stdin(Stdio::null())
            .output()
            .map_err(|e| e.to_string())?;
        let (out, err) =
            (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        if err.is_empty() || !out.is_empty() { Ok(out.into_owned()) } else { Err(err.into_owned()) }
    }

    fn enroll(&self, sensor: &str) -> String {
        let address = format!("127.0.0.1:{}", self.port);
        let line = self.ask(&["enroll", sensor, "--address", &address]);
        line.unwrap_or_else(|e| panic!("enroll: {e}"))
    }

    fn sql(&self, query: &str) -> Result<String, String> {
        self.ask(&["sql", "--json", query])
    }
}

fn join(musl: &Musl, folder: &Folder, line: &str) {
    let file = folder.file("join.txt");
    std::fs::write(&file, line).expect("writable");
    let args = ["join", "--file", &file.to_string_lossy(), "--config", &folder.config()];
    check(&musl.run(&args), 0, "");
}
