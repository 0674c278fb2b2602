//! The real program: signals, kill -9, exit codes, closed pipes.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use agentmon_core::event::Body;
use agentmon_core::time::SystemClock;
use agentmon_core::wire::decode_event;
use agentmon_router::counters::Counters;
use agentmon_router::ring::{self, Ring};

const PROGRAM: &str = env!("CARGO_BIN_EXE_agentmon-router");

/// A router that replays a file, in a directory of its own.
struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new(events: u64) -> Self {
        let bench = Self { dir: tempfile::tempdir().expect("a temporary directory") };
        let line = |i: u64| {
            let ns = 1_795_000_000_000_000_000 + i * 1_000_000;
            format!(
                "{{\"time_ns\":{ns},\"kind\":\"gap\",\"collector\":\"{i}\",\"from\":{ns},\"reason\":\"r\"}}\n"
            )
        };
        fs::write(bench.path("events.ndjson"), (0..events).map(line).collect::<String>())
            .expect("writable");
        bench.configure("");
        // Asked by this one, whatever the test does to the router's own.
        fs::copy(bench.path("router.toml"), bench.path("ask.toml")).expect("writable");
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn configure(&self, more: &str) {
        let mut text = format!("state_dir = \"{}\"\n", self.path("state").display());
        for name in ["conntrack", "firewall", "passive_dns", "dnsmasq_log", "leases", "neighbours"]
        {
            text += &format!("[collect.{name}]\nenabled = false\n");
        }
        let events = self.path("events.ndjson");
        text += &format!("[collect.replay]\nenabled = true\npath = \"{}\"\n", events.display());
        fs::write(self.path("router.toml"), text + more).expect("writable");
    }

    fn command(&self, name: &str) -> Command {
        let config = if name == "run" { "router.toml" } else { "ask.toml" };
        let mut command = Command::new(PROGRAM);
        command.arg(name).arg("--config").arg(self.path(config));
        command
    }

    fn start(&self) -> Running {
        let mut child = self.command("run").stderr(Stdio::piped()).spawn().expect("the program");
        let log = BufReader::new(child.stderr.take().expect("piped"));
        Running { child, log }
    }

    fn status(&self) -> serde_json::Value {
        let output = self.command("status").arg("--json").output().expect("the program");
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    /// All events in the ring, by their number.
    fn stored(&self) -> Vec<u64> {
        let path = self.path("state/ring.db");
        let config = ring::Config { path, ..ring::Config::default() };
        let ring = Ring::open(&config, &Counters::default(), Arc::new(SystemClock)).expect("sound");
        let mut numbers = Vec::new();
        while let Some(peeked) = ring.peek(5_000, usize::MAX).expect("readable") {
            for event in &peeked.events {
                let Body::Gap(gap) = decode_event(event).expect("ours").body else { continue };
                numbers.push(gap.collector.parse().expect("a number"));
            }
            ring.ack(peeked.epoch, peeked.last_seq()).expect("writable");
        }
        assert!(ring.status().conserves());
        numbers
    }
}

struct Running {
    child: Child,
    log: BufReader<std::process::ChildStderr>,
}

impl Running {
    /// Reads the log up to a line with these words.
    #[track_caller]
    fn says(&mut self, words: &str) {
        let mut seen = String::new();
        for line in self.log.by_ref().lines().map_while(Result::ok) {
            if line.contains(words) {
                return;
            }
            seen = seen + &line + "\n";
        }
        panic!("ended without saying {words:?}:\n{seen}");
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().expect("kill(1)").success());
    }
}

/// Whatever a test thinks of it, it does not outlive the test.
impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let factor = std::env::var("AGENTMON_PATIENCE").ok().and_then(|p| p.parse().ok()).unwrap_or(1);
    for _ in 0..factor * 600 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("not within patience: {what}");
}

#[test]
fn signals_reload_and_stop() {
    let bench = Bench::new(100);
    let mut router = bench.start();
    router.says("agentmon-router 0");
    eventually("read", || bench.status()["ring"]["pending"] == 100);

    bench.configure("[ring]\nbytes_max = 1\n");
    router.signal("-HUP");
    router.says("configuration refused, the old one stays");
    assert_eq!(bench.status()["ring"]["pending"], 100);

    bench.configure("[ring]\nbytes_max = 4194304\n");
    router.signal("-HUP");
    router.says("configuration reloaded");
    assert_eq!(bench.status()["ring"]["capacity"], 3 * 1024 * 1024);

    router.signal("-TERM");
    router.says("stopping");
    assert!(router.child.wait().expect("waited for").success());
    assert_eq!(bench.stored(), (0..100).collect::<Vec<_>>());
}

#[test]
fn kill_9_at_any_instant_neither_loses_nor_doubles() {
    const EVENTS: u64 = 20_000;
    let bench = Bench::new(EVENTS);
    let mut kills = 0;
    for round in 0..30u64 {
        let mut router = bench.start();
        router.says("agentmon-router 0");
        // Later and later: from before the first commit to after the last.
        std::thread::sleep(Duration::from_millis(12 * round));
        let done = bench.status()["ring"]["accepted"] == EVENTS;
        drop(router);
        kills += 1;
        if done {
            break;
        }
    }
    assert!(kills > 1, "it was done before the first kill");
    let mut router = bench.start();
    router.says("agentmon-router 0");
    eventually("all read", || bench.status()["ring"]["accepted"] == EVENTS);
    router.signal("-TERM");
    assert!(router.child.wait().expect("waited for").success());
    let stored = bench.stored();
    assert!(stored == (0..EVENTS).collect::<Vec<_>>(), "{} stored", stored.len());
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let bench = Bench::new(500);
    let mut router = bench.start();
    router.says("agentmon-router 0");
    eventually("read", || bench.status()["ring"]["pending"] == 500);
    let mut tail = bench
        .command("tail")
        .args(["--last", "500", "--follow"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program");
    let mut first = String::new();
    let mut out = BufReader::new(tail.stdout.take().expect("piped"));
    out.read_line(&mut first).expect("a line");
    assert!(first.contains(" gap "), "{first}");
    drop(out);
    // It notices with the next event, which a second file brings.
    let more = fs::read_to_string(bench.path("events.ndjson")).expect("ours").repeat(2);
    fs::write(bench.path("more.ndjson"), more).expect("writable");
    let config = fs::read_to_string(bench.path("router.toml")).expect("ours");
    fs::write(bench.path("router.toml"), config.replace("events.ndjson", "more.ndjson"))
        .expect("writable");
    router.signal("-HUP");
    let output = tail.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty());
}

#[test]
fn a_configuration_that_is_wrong_starts_and_creates_nothing() {
    let bench = Bench::new(1);
    bench.configure("[forward]\nbatch_events = -1\n");
    let output = bench.command("run").output().expect("the program");
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("router.toml:") && error.contains("forward.batch_events"), "{error}");
    assert!(!Path::new(&bench.path("state")).exists());
}

#[test]
fn exit_codes() {
    let code = |arguments: &[&str]| {
        let output = Command::new(PROGRAM).args(arguments).output().expect("the program");
        output.status.code()
    };
    assert_eq!(code(&["--version"]), Some(0));
    assert_eq!(code(&["nonsense"]), Some(2));
    assert_eq!(code(&["check", "--config", "/nonexistent"]), Some(1));
}

/// A power cut: the program is killed and its memory disk is gone. What was copied to flash
/// comes back under its own numbers, by which a hub stores nothing twice.
#[test]
fn a_power_cut_loses_what_was_not_copied_and_doubles_nothing() {
    let bench = Bench::new(5_000);
    let flash = bench.path("flash/ring.snapshot");
    let copying =
        format!("[ring]\nsnapshot_seconds = 1\nsnapshot_path = \"{}\"\n", flash.display());
    bench.configure(&copying);
    let mut router = bench.start();
    router.says("agentmon-router 0");
    eventually("all copied", || bench.status()["snapshot"]["events"] == 5_000);
    let epoch = bench.status()["ring"]["epoch"].clone();
    let written = bench.status()["snapshot"]["bytes_written"].as_u64().expect("a number");
    assert!(written >= fs::metadata(&flash).expect("there").len());
    drop(router);
    fs::remove_dir_all(bench.path("state")).expect("ours");

    // Nothing new comes: the replay has nothing to read.
    fs::write(bench.path("events.ndjson"), "").expect("writable");
    let mut router = bench.start();
    router.says("5000 events restored");
    eventually("restored", || bench.status()["ring"]["pending"] == 5_000);
    assert_ne!(bench.status()["ring"]["epoch"], epoch, "new events get numbers of their own");
    router.signal("-TERM");
    assert!(router.child.wait().expect("waited for").success());
    let path = bench.path("state/ring.db");
    let config = ring::Config { path, ..ring::Config::default() };
    let ring = Ring::open(&config, &Counters::default(), Arc::new(SystemClock)).expect("sound");
    let first = ring.peek(5_000, usize::MAX).expect("readable").expect("there");
    assert_eq!((first.epoch, first.events.len()), (epoch.as_u64().expect("a number"), 5_000));
    drop(ring);
    assert_eq!(bench.stored(), (0..5_000).collect::<Vec<_>>());
}

#[test]
fn what_it_found_is_asked_for_and_acknowledged() {
    let bench = Bench::new(0);
    let finding = r#"{"time_ns":1795000000000000000,"kind":"finding","rule":"blocklist","subject":"evil.example","client":"192.0.2.7","score":0.8,"why":"asked for evil.example"}"#;
    fs::write(bench.path("events.ndjson"), format!("{finding}\n")).expect("writable");
    let mut running = bench.start();
    eventually("read", || bench.status()["ring"]["accepted"] == 1);
    let ask = |command: &str, more: &[&str]| {
        let output = bench.command(command).args(more).output().expect("the program");
        let text = String::from_utf8([output.stdout, output.stderr].concat()).expect("text");
        (output.status.code(), text)
    };
    let (code, alerts) = ask("alerts", &["--json"]);
    assert_eq!(code, Some(0), "{alerts}");
    let alert: serde_json::Value = serde_json::from_str(&alerts).expect("one line of JSON");
    let id = alert["id"].as_str().expect("an id").to_owned();
    let (code, shown) = ask("ack", &[&id, "--note", "mine"]);
    assert_eq!((code, shown), (Some(0), format!("{id}: acknowledged\n")));
    assert_eq!(ask("alerts", &["--open"]), (Some(0), "no alerts\n".to_owned()));
    let (code, shown) = ask("alerts", &["--device", "192.0.2.7"]);
    assert!(code == Some(0) && shown.contains("acknowledged"), "{shown}");
    let (code, shown) = ask("ack", &["0"]);
    assert!(code == Some(2) && shown.contains("no such alert"), "{shown}");
    let (code, shown) = ask("alerts", &["--severity", "worst"]);
    assert!(code == Some(2) && shown.contains("info, low, medium"), "{shown}");
    assert_eq!(ask("flows", &[]), (Some(0), "no flows\n".to_owned()));
    assert_eq!(ask("devices", &["--limit", "3"]), (Some(0), "no devices\n".to_owned()));

    // What LuCI and scripts ask over the bus comes the same way.
    let mut socket = UnixStream::connect(bench.path("state/status.sock")).expect("it listens");
    socket.write_all(b"{\"op\":\"call\",\"method\":\"reload\"}\n").expect("it reads");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("it answers");
    assert_eq!(answer, "{\"answer\":{\"reloading\":true}}\n");
    running.says("configuration reloaded");
    drop(running);
}
