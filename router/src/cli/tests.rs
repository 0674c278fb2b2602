//! The command line, end to end in this process.

use std::path::Path;

use super::*;
use crate::join;
use crate::testhub::{Say, TestHub};

/// Runs a command line; gives exit code, standard output, standard error.
fn cli(arguments: &[&str], input: &str) -> (u8, String, String) {
    let (mut out, mut err, mut input) = (Vec::new(), Vec::new(), input.as_bytes());
    let mut io = Io { input: &mut input, out: &mut out, err: &mut err };
    let code = run(arguments.iter().map(|a| (*a).to_owned()).collect(), &mut io);
    (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

#[track_caller]
fn check(arguments: &str, expected: u8, says: &str) {
    let (code, out, err) = cli(&arguments.split_whitespace().collect::<Vec<_>>(), "");
    assert_eq!(code, expected, "{out}{err}");
    let shown = if expected == 2 { err } else { out };
    assert!(shown.contains(says), "{shown}");
}

fn config_file(dir: &Path, text: &str) -> String {
    let path = dir.join("router.toml");
    std::fs::write(&path, format!("state_dir = \"{}\"\n{text}", dir.display())).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn help_and_mistakes() {
    check("--help", 0, "Commands:");
    check("--version", 0, env!("CARGO_PKG_VERSION"));
    check("", 2, "a command is missing");
    check("frobnicate", 2, "no command `frobnicate`");
    check("status --wat", 2, "unknown option `--wat`");
    check("status extra", 2, "unexpected argument `extra`");
    for name in help::names() {
        check(&format!("{name} --help"), 0, "Example");
        check(&format!("help {name}"), 0, "Usage: agentmon-router");
    }
    for shell in ["bash", "zsh", "fish"] {
        check(&format!("completions {shell}"), 0, "score");
    }
    check("completions", 2, "bash, zsh or fish");
}

#[test]
fn check_names_the_place() {
    let dir = tempfile::tempdir().unwrap();
    let good = config_file(dir.path(), "");
    check(&format!("check --config {good}"), 0, "router.toml: ok");
    let bad = config_file(dir.path(), "\n[ring]\nsize = 1\n");
    check(&format!("check --config {bad}"), 1, "router.toml:4: `ring.size`: unknown field");
    let list = config_file(
        dir.path(),
        "[[tier0.blocklist.lists]]\nname = \"ads\"\npath = \"/nonexistent/ads\"\n",
    );
    check(&format!("check --config {list}"), 1, "list `ads`: /nonexistent/ads");
    check("check --config /nonexistent/router.toml", 1, "/nonexistent/router.toml");
    check("check --print-default", 0, "[ring]");
}

#[test]
fn setup_prints_without_doing() {
    let dir = tempfile::tempdir().unwrap();
    let other = config_file(dir.path(), "[collect.passive_dns]\ngroup = 77\n");
    check(&format!("setup --print --config {other}"), 0, "group 77 snaplen");
    check("setup --print --remove", 2, "exclude each other");
}

#[test]
fn score_explains() {
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("list.txt");
    std::fs::write(&list, "bad.example\n").unwrap();
    let text = format!(
        "[[tier0.blocklist.lists]]\nname = \"ads\"\npath = \"{}\"\nscore = 0.5\n",
        list.display()
    );
    let config = config_file(dir.path(), &text);
    check(&format!("score fine.example --config {config}"), 0, "fine.example: nothing found");
    check(&format!("score a.bad.example --config {config}"), 1, "a.bad.example: medium blocklist");
    check(&format!("score --json bad.example --config {config}"), 1, "\"rule\":\"blocklist\"");
    check(&format!("score --config {config}"), 2, "which name?");
    check(&format!("score a..b --config {config}"), 2, "`a..b`: empty label");
}

#[test]
fn join_asks_the_hub_and_keeps_the_identity() {
    let hub = TestHub::start(|asked| match (asked.path.as_str(), asked.authorization.as_str()) {
        ("/v1/hello", "Bearer good") => {
            Say::Http(200, "", r#"{"sensor":"attic","version":"0.1.0"}"#.into())
        }
        ("/v1/hello", "Bearer other") => {
            Say::Http(200, "", r#"{"sensor":"cellar","version":"0.1.0"}"#.into())
        }
        _ => Say::Http(401, "", "unknown token".into()),
    });
    let dir = tempfile::tempdir().unwrap();
    let config = config_file(dir.path(), "");
    let identity = dir.path().join("identity.json");
    let join = |line: &str| cli(&["join", "--config", &config], line);

    let (code, _, err) = join(&hub.join("wrong").encode());
    assert!(code == 2 && err.contains("401: unknown token"), "{err}");
    let (code, _, err) = join(&hub.join("other").encode());
    assert!(code == 2 && err.contains("knows this token as `cellar`"), "{err}");
    let (code, _, err) = join("hello\n");
    assert!(code == 2 && err.contains("not a join line"), "{err}");
    let line = hub.join("good").encode();
    let (code, _, err) = cli(&["join", "--config", &config, &line], "");
    assert!(code == 2 && err.contains("must not stand on the command line"), "{err}");
    assert!(!err.contains(&line));
    assert!(!identity.exists());

    let (code, out, err) = join(&format!("{line}\n"));
    assert!(code == 0 && out.is_empty() && err.contains("welcomes attic"), "{err}");
    assert_eq!(join::load(&identity).unwrap(), Some(hub.join("good")));

    // Without a hub, from a file.
    std::fs::remove_file(&identity).unwrap();
    let file = dir.path().join("line");
    std::fs::write(&file, hub.join("wrong").encode()).unwrap();
    let file = file.to_str().unwrap();
    let (code, ..) = cli(&["join", "--offline", "--file", file, "--config", &config], "");
    assert_eq!((code, join::load(&identity).unwrap()), (0, Some(hub.join("wrong"))));
}

#[test]
fn status_and_tail_of_a_running_router() {
    let dir = tempfile::tempdir().unwrap();
    let events = dir.path().join("events.ndjson");
    let line = "{\"time_ns\":1000000000,\"kind\":\"device\",\"mac\":\"00:00:5e:00:53:01\",\"ip\":\"192.0.2.9\"}\n";
    std::fs::write(&events, line).unwrap();
    let mut text = format!("[collect.replay]\nenabled = true\npath = \"{}\"\n", events.display());
    for name in ["conntrack", "firewall", "passive_dns", "dnsmasq_log", "leases", "neighbours"] {
        text += &format!("[collect.{name}]\nenabled = false\n");
    }
    let config = config_file(dir.path(), &text);
    check(&format!("status --config {config}"), 2, "is `agentmon-router run` running?");
    let router = crate::supervisor::start(Config::load(Path::new(&config)).unwrap()).unwrap();
    while router.status().ring.pending == 0 {
        std::thread::yield_now();
    }
    check(&format!("status --config {config}"), 0, "1 waiting");
    check(&format!("status --config {config}"), 0, "not joined");
    check(&format!("status --json --config {config}"), 0, "\"pending\":1");
    check(&format!("tail --config {config}"), 0, "device   00:00:5e:00:53:01 192.0.2.9");
    let (_, out, _) = cli(&["tail", "--json", "--config", &config], "");
    assert_eq!(out.lines().count(), 1);
    assert!(serde_json::from_str::<agentmon_core::Event>(&out).is_ok());
    router.stop();
    check(&format!("status --config {config}"), 2, "status.sock");
}

#[test]
fn a_closed_pipe_is_no_error() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (mut out, mut err) = (Closed, Vec::new());
    let mut io = Io { input: &mut io::empty(), out: &mut out, err: &mut err };
    assert_eq!(run(vec!["--help".into()], &mut io), 0);
    assert!(err.is_empty());
}
