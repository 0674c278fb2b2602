//! `agentmon up --demo` as a person starts it: the made-up day goes through the real path
//! (replay, tier-0, ring, HTTPS, store), commands are answered while it runs and after it
//! has stopped, and what was planted for tier-0 is what the alerts name.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use agentmon_core::Timestamp;
use agentmon_core::tier0::rules::RULES;
use agentmon_hub::demo;
use serde_json::Value;

/// A loaded machine takes its time; a hang must still end.
const PATIENCE: Duration = Duration::from_secs(240);

fn agentmon(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_agentmon"));
    command.env("AGENTMON_DATA", data).env("TZ", "UTC").env_remove("AGENTMON_LOG");
    command
}

/// Ends with the test, whatever becomes of it.
struct Up(Child);

impl Drop for Up {
    fn drop(&mut self) {
        // Already over is fine.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Lines of a pipe, read on a thread so that waiting for one has an end.
fn lines(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (send, receive) = channel();
    std::thread::spawn(move || {
        BufReader::new(pipe).lines().map_while(Result::ok).try_for_each(|l| send.send(l))
    });
    receive
}

#[track_caller]
fn wait_for(lines: &Receiver<String>, text: &str) -> Vec<String> {
    let mut seen = Vec::new();
    loop {
        let line = lines.recv_timeout(PATIENCE);
        seen.push(line.unwrap_or_else(|e| panic!("no `{text}` ({e}) in {seen:#?}")));
        if seen.last().is_some_and(|line| line.contains(text)) {
            return seen;
        }
    }
}

fn rows(data: &Path, args: &[&str]) -> Vec<Value> {
    let output = agentmon(data).args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// About one of the demo's devices, by tier-0: the hub's own detectors judge in rounds, which
/// may come before this looks or after.
fn is_tier0(row: &Value) -> bool {
    let text = |key: &str| row[key].as_str().unwrap_or_default();
    text("client").starts_with("192.168.77.") && RULES.iter().any(|rule| rule.name == text("rule"))
}

/// Client and rule of tier-0's alerts about the demo's devices.
fn told(alerts: &[Value]) -> BTreeSet<(String, String)> {
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    let pair = |row: &Value| (text(row, "client"), text(row, "rule"));
    alerts.iter().filter(|row| is_tier0(row)).map(pair).collect()
}

#[test]
fn a_demo_loads_answers_and_stops_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut up = Up(agentmon(&data)
        .args(["up", "--demo"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap());
    let feed = lines(up.0.stdout.take().unwrap());
    let talk = lines(up.0.stderr.take().unwrap());
    let start = wait_for(&talk, "Ctrl-C ends").join("\n");
    assert!(start.contains("is up") && start.contains("alerts"), "{start}");
    wait_for(&talk, "the demo day is loaded");

    // While it runs.
    let ask = ["alerts", "--json", "--all", "severity:>=medium"];
    let running = rows(&data, &ask);
    let day = demo::day(demo::SEED, Timestamp::from_secs(1_795_444_327), 0);
    let planted: BTreeSet<(String, String)> = day
        .planted
        .iter()
        .filter_map(|p| Some((p.client.to_string(), p.tier0?.to_owned())))
        .collect();
    assert_eq!(told(&running), planted);
    // Each is told once: what led up to a burst or a scan is folded into it.
    let open = rows(&data, &["alerts", "--json", "severity:>=low"]);
    assert_eq!(open.iter().filter(|row| is_tier0(row)).count(), planted.len(), "{open:#?}");
    let folds: u64 = open.iter().filter_map(|row| row["folds"].as_u64()).sum();
    let folded = rows(&data, &["alerts", "--json", "status:folded"]);
    assert!(folds > 10 && folded.len() as u64 == folds, "{folds}: {folded:#?}");
    let count = |data: &Path| {
        rows(
            data,
            &[
                "sql",
                "--json",
                "SELECT (SELECT count(*) FROM dns WHERE client LIKE '192.168.77.%') AS dns, (SELECT count(*) FROM flows_done WHERE src LIKE '192.168.77.%') AS flows",
            ],
        )
    };
    let stored = count(&data);
    assert!(stored[0]["dns"].as_u64().unwrap() > 20_000, "{stored:?}");
    // The feed told each of them.
    let mut lines: Vec<String> = Vec::new();
    while let Ok(line) = feed.recv_timeout(Duration::from_secs(2)) {
        lines.push(line);
    }
    for (client, rule) in &planted {
        let tells = |line: &&String| line.contains(&format!("({client})")) && line.contains(rule);
        assert!(lines.iter().any(|l| tells(&l)), "{client} {rule}: {lines:#?}");
    }

    // Ctrl-C.
    let pid = up.0.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let status = up.0.wait().unwrap();
    assert_eq!(status.code(), Some(0), "{:#?}", talk.iter().collect::<Vec<_>>());

    // When it does not run: the same answers from the file.
    assert_eq!(told(&rows(&data, &ask)), planted);
    assert_eq!(count(&data), stored);
    let sensors = rows(&data, &["sensors", "--json", "sensor:local"]);
    assert_eq!((sensors.len(), &sensors[0]["pending"]), (1, &Value::from(0)), "{sensors:#?}");

    // Again: the day is there already and is not loaded twice.
    let again = agentmon(&data).args(["up", "--demo", "--exit-after-demo"]).output().unwrap();
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    assert_eq!(count(&data), stored);
    let acked = agentmon(&data).args(["ack", "1", "--note", "seen"]).output().unwrap();
    assert!(acked.status.success(), "{}", String::from_utf8_lossy(&acked.stderr));
}
