//! `authority`, `agents` and `processes` over a store of their own, with a policy beside it.

use std::path::{Path, PathBuf};

use super::*;

/// A store with a folder.
struct There(Connection, PathBuf);

impl Backend for There {
    fn ask(&mut self, request: &Request, on: OnReply<'_>) -> anyhow::Result<()> {
        let Request::Query { sql, params, timeout_ms, untrusted } = request else {
            anyhow::bail!("only queries");
        };
        query::run(
            &self.0,
            Query { sql, params, timeout_ms: *timeout_ms, untrusted: *untrusted },
            on,
        )
    }
    fn folder(&self) -> PathBuf {
        self.1.clone()
    }
}

/// An agent that starts curl, and a curl of nobody's, each with connections.
const ROWS: &str = r#"
    INSERT INTO processes (time, sensor, phase, process, host, os, pid, name, exe, deleted, argv, user_name, ancestors)
    SELECT '2026-11-23 14:00:00', 1, 'start', id, 'laptop', 'linux', id, 'curl', '/usr/bin/curl', false, ['curl'], 'alice', above
    FROM (VALUES (5, '[{"id":4,"pid":4,"name":"bash"},{"id":3,"pid":3,"name":"claude"}]'), (6, '[]')) t(id, above);
    INSERT INTO process_conns (time, sensor, id, open, process, pid, name, direction, proto, src, sport, dst, dport, bytes_out, how, domain)
    SELECT '2026-11-23 14:00:01'::TIMESTAMP + to_seconds(id), 1, id, false, process, process, 'curl', 'out', 6, '192.0.2.1', 40000 + id, '203.0.113.5', 443, 1000, 'exec', domain
    FROM (VALUES (1, 5, 'api.anthropic.com'), (2, 5, 'paste.example.com'), (3, 5, 'paste.example.com'), (4, 6, 'news.example.org'),
        (5, 5, 'a.paste.example.com'), (6, 5, 'b.paste.example.com'), (7, NULL, 'x.example.net')) t(id, process, domain);
"#;

fn there(dir: &Path, policy: &str) -> There {
    let connection = store::open_write(dir, &Limits::default()).unwrap();
    connection.execute_batch(ROWS).unwrap();
    std::fs::write(dir.join("authority.toml"), policy).unwrap();
    There(connection, dir.to_owned())
}

const POLICY: &str = r#"authority = [{process = "claude-code", allowed = ["api.anthropic.com"]}]"#;

#[track_caller]
fn says(ran: &Ran, exit: &str, lines: &[&str]) {
    assert!(ran.exit.starts_with(exit), "{} {}", ran.exit, ran.err);
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        let has = |l: &str| {
            let mut rest = l.split_whitespace();
            words.iter().all(|w| rest.any(|r| r == *w))
        };
        assert!(ran.out.lines().any(has), "`{line}` not in\n{}", ran.out);
    }
}

#[test]
fn a_policy_is_tried_on_the_past_and_explained() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = there(dir.path(), POLICY);
    let mut run = |command: &str| run_by(&mut hub, command, plain());
    let tested = run("authority test");
    says(
        &tested,
        "Found",
        &[
            "outside alert claude-code curl laptop paste.example.com 443 2",
            "allowed allow claude-code curl laptop api.anthropic.com 443 1 api.anthropic.com",
            "no-grant learn curl laptop news.example.org 443 1",
            "unknown-process flag x.example.net 443 1",
        ],
    );
    assert!(tested.out.lines().nth(1).is_some_and(|l| l.starts_with("outside")), "worst first");
    says(
        &run("authority explain 2"),
        "Fine",
        &[
            "process curl (5) /usr/bin/curl",
            "started by claude (3) <- counts",
            "subject claude-code, known by name",
            "verdict outside",
        ],
    );
    says(
        &run("authority explain 1"),
        "Fine",
        &["because of `api.anthropic.com`, authority[0].allowed[0]"],
    );
    says(&run("authority explain 99"), "failed: no connection 99", &[]);
    says(&run("authority check"), "Fine", &[]);
}

#[test]
fn agents_with_what_they_contacted() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = there(dir.path(), POLICY);
    let ran = run_by(&mut hub, "agents", plain());
    says(
        &ran,
        "Fine",
        &[
            "laptop claude-code name curl paste.example.com 443 other outside 2",
            "laptop claude-code name curl api.anthropic.com 443 needs allowed 1",
        ],
    );
    assert!(!ran.out.contains("news.example.org"), "{}", ran.out);
    let json = run_by(&mut hub, "agents --json -n 1", plain()).out;
    let row: serde_json::Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!(
        (row["agent"].as_str(), row["source_date"].as_str()),
        (Some("claude-code"), Some("2026-08-22"))
    );
    says(&run_by(&mut hub, "processes", plain()), "Fine", &["laptop 5 curl bash < claude alice 5"]);
}

#[test]
fn grants_are_proposed_and_what_is_wrong_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub =
        there(dir.path(), "authority = [{process = \"claude-code\", allowed = [\"x\", \"x\"]}]");
    let learnt = run_by(&mut hub, "authority learn --process claude-code", plain());
    says(
        &learnt,
        "Fine",
        &[
            "\"api.anthropic.com:443\", # 1 connections on 1 days",
            "\"*.example.com:443\", # 4 connections on 1 days, 3 names",
        ],
    );
    // What is proposed is a policy, and allows what was seen.
    std::fs::write(dir.path().join("authority.toml"), &learnt.out).unwrap();
    let tested = run_by(&mut hub, "authority test", plain());
    says(&tested, "Fine", &["allowed allow claude-code curl laptop a.paste.example.com 443 1"]);
    std::fs::write(
        dir.path().join("authority.toml"),
        "authority = [{process = \"x\", allowed = [\"10.0.0.0/99\"]}]",
    )
    .unwrap();
    says(
        &run_by(&mut hub, "authority check", plain()),
        "Found",
        &["error: authority[0].allowed[0]:", "warning: authority[0].process: `x` is not defined,"],
    );
    says(
        &run_by(&mut hub, "authority test", plain()),
        "failed: error: authority[0].allowed[0]",
        &[],
    );
    std::fs::remove_file(dir.path().join("authority.toml")).unwrap();
    assert!(run_by(&mut hub, "authority check", plain()).exit.contains("there is no policy"));
}

/// The list an agent was given, and what it did; the twin is held by its list.
#[test]
fn an_agents_own_settings_beside_what_it_reached() {
    let dir = tempfile::tempdir().unwrap();
    let mut hub = there(dir.path(), POLICY);
    let file = dir.path().join("settings.json");
    let command = format!("authority audit --claude-settings {}", file.display());
    let mut run = |settings: &str| {
        std::fs::write(&file, settings).unwrap();
        run_by(&mut hub, &command, plain())
    };
    let ran = run(r#"{"sandbox": {"enabled": true, "allowUnsandboxedCommands": false, "network": {
            "allowedDomains": ["a.paste.example.com", "never.example"], "deniedDomains": ["b.paste.example.com"]}}}"#);
    says(
        &ran,
        "Found",
        &[
            "claude-code denied laptop curl b.paste.example.com 443 1",
            "claude-code beyond laptop curl paste.example.com 443 2",
            "claude-code unused never.example",
            "claude-code own laptop curl api.anthropic.com 443 1",
            "claude-code given laptop curl a.paste.example.com 443 1",
        ],
    );
    assert!(!ran.out.contains("news.example.org"), "another program's: {}", ran.out);
    assert!(ran.out.lines().nth(1).is_some_and(|l| l.contains("denied")), "worst first");
    let held = run(
        r#"{"sandbox": {"enabled": false, "network": {"allowedDomains": ["*.example.com", "paste.example.com"]}}, "permissions": {}}"#,
    );
    says(&held, "Fine", &["claude-code given laptop curl paste.example.com 443 2"]);
    assert!(held.err.contains("the sandbox is not switched on"), "{}", held.err);
    assert!(run("[]").exit.contains("settings.json"));
    let codex = dir.path().join("config.toml");
    std::fs::write(&codex, "sandbox_mode = \"read-only\"").unwrap();
    let none =
        run_by(&mut hub, &format!("authority audit --codex-config {}", codex.display()), plain());
    assert!(
        none.exit == "Fine" && none.err.contains("codex: no connection of it was seen"),
        "{}",
        none.err
    );
}
