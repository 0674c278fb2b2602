//! The `agentmon` binary as a person meets it: exit codes, pipes, environment. What the
//! commands print is tested in `hub/src/cli/tests`.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use agentmon_hub::store::{Limits, open_write};

fn agentmon(data: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_agentmon"));
    command.args(args).env("AGENTMON_DATA", data).env("TZ", "UTC").env_remove("NO_COLOR");
    command
}

fn store() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let connection = open_write(dir.path(), &Limits::default()).unwrap();
    connection.execute_batch(include_str!("../src/cli/tests/fixture.sql")).unwrap();
    dir
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[track_caller]
fn check(data: &Path, args: &[&str], code: i32, out: &str, err: &str) -> Output {
    let output = agentmon(data, args).output().unwrap();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{args:?}\n{stdout}\n{stderr}");
    assert!(stdout.contains(out), "{args:?}: {stdout}");
    assert!(stderr.contains(err), "{args:?}: {stderr}");
    output
}

#[test]
fn exit_codes() {
    let dir = store();
    let data = dir.path();
    check(data, &["alerts"], 0, "direct-ip", "");
    check(data, &["alerts", "--exit-code"], 1, "direct-ip", "");
    check(data, &["alerts", "--exit-code", "rule:none"], 0, "", "nothing found");
    check(data, &["alert", "99"], 2, "", "there is no alert 99");
    check(data, &["dns", "example.com"], 2, "", "domain:example.com");
    check(data, &["dns", "--no-such"], 2, "", "--no-such");
    check(data, &["sql", "DELETE FROM dns"], 2, "", "refused");
    // A negated word is no option.
    check(data, &["alerts", "-rule:dga", "--json"], 0, "direct-ip", "");
    check(data, &["--version"], 0, "agentmon ", "");
    check(data, &["completions", "bash"], 0, "_agentmon", "");
    check(data, &["completions", "fish"], 0, "agentmon", "");
}

/// Measuring needs no store; what is bad among the names is counted, not fatal.
#[test]
fn eval_measures_the_score_of_generated_names() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path.into_os_string().into_string().unwrap()
    };
    file("families/random.txt", b"xkqzvwpjhtrbn.com\nq7w9zk31xv8b2n.biz\n");
    file("families/words.txt", b"printer.lan\n");
    let families = dir.path().join("families").into_os_string().into_string().unwrap();
    let benign = file("benign.txt", b"www.wikipedia.org\n\xff\x00.example.org\nbad..name\n.\n");
    let eval = ["eval", "dga", "--positives", &families, "--negatives", &benign];
    let output = check(dir.path(), &[&eval[..], &["--json"]].concat(), 0, "\"auc\":", "");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for key in ["tpr_at_fpr_1e-2", "tpr_at_fpr_1e-3", "ns_per_name", "flagged_negatives"] {
        assert!(report[key].is_number(), "{key}: {report}");
        assert!(key == "ns_per_name" || report["without_tld"][key].is_number(), "{key}: {report}");
    }
    assert_eq!(report["bad_lines"], 1);
    assert_eq!(report["families"][0]["family"], "random");
    assert_eq!(report["families"][0]["tpr_at_fpr_1e-3"], 1.0);
    assert_eq!(report["families"][1]["flagged"], 0.0);
    check(dir.path(), &eval, 0, "without TLD", "");
    // A third of the names is not found: below the goal.
    check(dir.path(), &[&eval[..], &["--exit-code"]].concat(), 1, "words", "");
    let missing = ["eval", "dga", "--positives", "/nowhere", "--negatives", &benign];
    check(dir.path(), &missing, 2, "", "opening /nowhere");
    check(dir.path(), &["eval", "dga", "--negatives", &benign], 2, "", "--positives");
}

#[test]
fn without_data_it_says_how_to_start() {
    let dir = tempfile::tempdir().unwrap();
    let output = check(dir.path(), &["alerts"], 2, "", "agentmon up --demo --data");
    assert_eq!(text(&output.stdout), "");
    // Looking leaves no trace.
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn data_goes_to_stdout_and_talk_to_stderr() {
    let dir = store();
    let output =
        check(dir.path(), &["dns", "--since", "2020-01-01", "-n", "1", "--json"], 0, "", "only");
    assert_eq!(text(&output.stdout).lines().count(), 1);
    serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap();
}

/// `agentmon ... | head -1` is no error, whatever the size of the answer.
#[test]
fn a_reader_that_goes_away_is_no_error() {
    let dir = store();
    let sql = "SELECT range, repeat('x', 100) FROM range(500000)";
    let mut child = agentmon(dir.path(), &["sql", "--json", sql])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.starts_with("{\"range\":0"), "{first}");
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
}

#[test]
fn colours_follow_the_flag_and_not_the_pipe() {
    let dir = store();
    let plain = check(dir.path(), &["alerts"], 0, "high", "");
    assert!(!plain.stdout.contains(&0x1b));
    let args = ["alerts", "--color", "always"];
    let coloured = agentmon(dir.path(), &args).env("NO_COLOR", "1").output().unwrap();
    // The flag was typed for this very call; it beats the environment.
    assert!(text(&coloured.stdout).contains("\x1b[38;5;"), "{}", text(&coloured.stdout));
}

/// A log of a resolver, imported twice and once more after it has grown: each question is
/// there once, in a store that the import itself has made.
#[test]
fn an_import_is_exactly_once() {
    let dir = tempfile::tempdir().unwrap();
    let (data, log) = (dir.path().join("data"), dir.path().join("pihole.log"));
    let lines = |from: u32, to: u32| -> String {
        (from..to)
            .map(|i| {
                let head = format!("Nov 23 14:{:02}:{:02} dnsmasq[77]: {i}", i / 60, i % 60);
                format!(
                    "{head} 192.168.77.9/40000 query[A] n{i}.example from 192.168.77.9\n\
                     {head} 192.168.77.9/40000 forwarded n{i}.example to 192.0.2.1\n\
                     {head} 192.168.77.9/40000 reply n{i}.example is 203.0.113.5\n"
                )
            })
            .collect()
    };
    let import = ["import", "pihole-log", log.to_str().unwrap()];
    let count = |expected: &str| {
        let sql = "SELECT count(*), count(DISTINCT name) FROM dns";
        check(&data, &["sql", "--csv", sql], 0, expected, "");
    };
    // Written long ago: nothing at its end waits for an answer any more.
    let write = |text: String| {
        std::fs::write(&log, text).unwrap();
        let file = std::fs::File::options().append(true).open(&log).unwrap();
        let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_795_446_000);
        file.set_modified(long_ago).unwrap();
    };
    write(lines(0, 300));
    check(&data, &import, 0, "", "900 lines, 300 queries; 300 events");
    count("300,300");
    check(&data, &import, 0, "", "0 events and 0 findings were new");
    count("300,300");
    write(lines(0, 500));
    check(&data, &import, 0, "", "500 queries");
    count("500,500");
    let sql = "SELECT min(time), max(time) FROM dns";
    check(&data, &["sql", "--csv", sql], 0, "2026-11-23T14:00:00.000000Z,2026-11-23T14:08:19", "");
    check(&data, &["sensors"], 0, "imported", "");
    check(&data, &["sensors", "--json"], 0, "\"name\":\"import\"", "");
    check(&data, &["import", "pihole-log", "/no/such/file"], 2, "", "/no/such/file");
}

/// Ended anywhere, by Ctrl-C or harder: what is there is whole batches, and the next import
/// brings the rest, each once.
#[test]
fn an_import_that_was_ended_goes_on() {
    use rustix::process::{Pid, Signal, kill_process};
    const LINES: u32 = 45_000;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("events.txt");
    let line = |n: u32| {
        let ends = format!("src=192.0.2.{} dst=203.0.113.1 sport={}", n % 200 + 1, n % 60_000);
        format!(
            "[{}.5]\t[DESTROY] tcp 6 {ends} dport=443 packets=1 bytes={n} src=203.0.113.1 dst=192.0.2.{} sport=443 dport={} packets=1 bytes=1\n",
            1_795_000_000 + n,
            n % 200 + 1,
            n % 60_000
        )
    };
    std::fs::write(&file, (0..LINES).map(line).collect::<String>()).unwrap();
    let import = ["import", "conntrack", file.to_str().unwrap()];
    for (name, signal) in [("int", Signal::INT), ("kill", Signal::KILL)] {
        let data = dir.path().join(name);
        let mut child = agentmon(&data, &import).stderr(Stdio::null()).spawn().unwrap();
        // From the first rows on, or, on a slow machine, before them: both must do.
        let store = data.join("hub.duckdb");
        while !store.exists() && child.try_wait().unwrap().is_none() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        kill_process(Pid::from_child(&child), signal).ok();
        child.wait().unwrap();
        let sql = "SELECT count(*) % 20000 = 0 OR count(*) = 45000 FROM flows";
        let seen = agentmon(&data, &["sql", "--csv", sql]).output().unwrap();
        // Killed before there was a store to ask.
        assert!(text(&seen.stdout).contains("true") || !seen.status.success(), "{seen:?}");
        check(&data, &import, 0, "", "45,000 flows");
        let sql = "SELECT count(*), count(DISTINCT bytes_out) FROM flows";
        check(&data, &["sql", "--csv", sql], 0, "45000,45000", "");
        check(&data, &import, 0, "", "0 events were new");
    }
}

#[test]
fn a_bad_configuration_is_refused_before_anything_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let (data, file) = (dir.path().join("data"), dir.path().join("hub.toml"));
    let path = file.to_str().unwrap();
    for (text, says) in [
        ("[server]\nlisten = \"here\"\n", "hub.toml:2"),
        ("[store]\n\nmemory_mib = 1\n", "hub.toml:3: `store.memory_mib`: want"),
        ("[sever]\n", "sever"),
    ] {
        std::fs::write(&file, text).unwrap();
        check(&data, &["serve", "--config", path, "--check"], 2, "", says);
        check(&data, &["serve", "--config", path], 2, "", says);
    }
    std::fs::write(&file, "[store]\nmemory_mib = 256\n").unwrap();
    check(&data, &["serve", "--config", path, "--check"], 0, "", "");
    check(&data, &["serve", "--config", "/no/such/hub.toml"], 2, "", "/no/such/hub.toml");
    assert!(!data.exists());
}
