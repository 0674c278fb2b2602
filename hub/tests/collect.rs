//! `agentmon collect --once` as a timer runs it, against a Pi-hole's web interface: what is
//! stored after any number of passes, and what a person is told when there is no answer.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{SystemTime, UNIX_EPOCH};

use fake::{FakePihole, Fault};
use tempfile::TempDir;

// The router's own doubles; it uses more of them.
#[path = "../../router/src/collect/pihole/fake.rs"]
#[allow(dead_code, reason = "the router's tests use all of it")]
mod fake;
#[path = "../../router/src/testhub.rs"]
#[allow(dead_code, reason = "the router's tests use all of it")]
mod testhub;
/// Where the double looks for it.
mod join {
    pub(crate) use agentmon_router::join::Join;
}

const CLIENT: &str = "192.0.2.31";

struct Rig {
    pihole: FakePihole,
    dir: TempDir,
    asked: u32,
}

impl Rig {
    fn new() -> Self {
        let (pihole, dir) = (FakePihole::start("127.0.0.1"), tempfile::tempdir().unwrap());
        let rig = Self { pihole, dir, asked: 0 };
        rig.write("password", "app-secret\n");
        rig.write("certificate", &rig.pihole.hub.ca_pem);
        rig
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// `count` questions of just now, with all their lines and their rows.
    fn ask(&mut self, count: u32) {
        self.ask_ago(5.0, count);
    }

    fn ask_ago(&mut self, seconds: f64, count: u32) {
        let begun = wall().as_secs_f64() - seconds;
        for _ in 0..count {
            let name = format!("n{}.example", self.asked);
            self.asked += 1;
            let time = begun + f64::from(self.asked % 1_000) / 1_000.0;
            self.pihole.with(|pihole| {
                pihole.line(time, &format!("query[A] {name} from {CLIENT}"));
                pihole.line(time, &format!("forwarded {name} to 192.0.2.53"));
                pihole.line(time, &format!("reply {name} is 203.0.113.80"));
                pihole.row(time - 0.000_4, &name, CLIENT);
            });
        }
    }

    fn collect(&self) -> Output {
        self.collect_from(&format!("https://{}", self.pihole.hub.address))
    }

    fn collect_from(&self, url: &str) -> Output {
        let file = |name: &str| self.dir.path().join(name);
        agentmon(&file("data"))
            .args(["collect", "--once", "--json", "--pihole", url, "--password-file"])
            .arg(file("password"))
            .arg("--certificate")
            .arg(file("certificate"))
            .output()
            .unwrap()
    }

    /// A pass that goes well, and what it says of itself.
    #[track_caller]
    fn passes(&self) -> serde_json::Value {
        let output = self.collect();
        let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{said}");
        let line: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(line["caught_up"], true, "{line}");
        line
    }

    /// A pass that fails, with all of these words.
    #[track_caller]
    fn fails(&self, output: &Output, says: &[&str]) {
        let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(says.iter().all(|words| said.contains(words)), "{says:?} in: {said}");
        assert!(!said.contains("app-secret"), "{said}");
    }

    /// The stored questions of the client, by name.
    #[track_caller]
    fn stored(&self) -> Vec<String> {
        let sql = "SELECT name, client, status, list_count(answers) AS n FROM dns ORDER BY name";
        let sql = ["sql", "--json", sql];
        let output = agentmon(&self.dir.path().join("data")).args(sql).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        let row = |line: &str| -> String {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!((&row["client"], &row["status"]), (&CLIENT.into(), &"forwarded".into()));
            row["name"].as_str().unwrap().to_owned()
        };
        text(&output.stdout).lines().map(row).collect()
    }

    /// Each of these questions once, and no others; the newest may wait for more of its answer
    /// until the next pass.
    #[track_caller]
    fn holds(&self, questions: std::ops::Range<u32>) {
        let mut stored = self.stored();
        stored.sort_unstable();
        let newest = format!("n{}.example", questions.end - 1);
        let mut expected: Vec<_> = questions.map(|n| format!("n{n}.example")).collect();
        expected.retain(|name| *name != newest || stored.contains(name));
        expected.sort_unstable();
        assert_eq!(stored, expected);
    }
}

fn agentmon(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_agentmon"));
    command.env("AGENTMON_DATA", data).env("TZ", "UTC").env_remove("NO_COLOR");
    command
}

#[allow(clippy::disallowed_methods, reason = "the program under test uses the machine's clock")]
fn wall() -> std::time::Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// What the log holds at the very first pass is of before; from then on each question is
/// stored once, over a log that forgot lines and a Pi-hole that began anew.
#[test]
fn pass_after_pass_each_question_once() {
    let mut rig = Rig::new();
    rig.ask_ago(3_600.0, 5);
    assert_eq!(rig.passes()["events"], 0);
    rig.ask(20);
    rig.passes();
    rig.holds(5..25);
    rig.passes();
    rig.holds(5..25);
    rig.ask(20);
    rig.passes();
    rig.holds(5..45);

    // More than the log keeps: what is gone from it stands in the database.
    rig.pihole.with(|pihole| pihole.room = 30);
    rig.ask(60);
    let line = rig.passes();
    assert!(line["counters"]["pihole.lines_missed"].as_u64() > Some(0), "{line}");
    rig.holds(5..105);

    // FTL's machine was restarted: its log is new, and so are its sessions.
    rig.pihole.with(|pihole| {
        pihole.restart();
        pihole.sessions.clear();
        pihole.room = 515;
    });
    rig.ask(20);
    rig.passes();
    rig.holds(5..125);
    rig.ask(1);
    rig.passes();
    rig.holds(5..126);
    assert!(rig.pihole.with(|pihole| pihole.sessions.is_empty()), "each pass ends its session");
}

/// What comes in an answer's place is told with what to do about it, ends the pass with 2, and
/// costs nothing: the next good pass goes on where the last one was.
#[test]
fn a_pass_without_an_answer_says_what_to_do() {
    let mut rig = Rig::new();
    rig.passes();
    rig.ask(10);

    rig.write("password", "wrong\n");
    rig.fails(&rig.collect(), &["refuses the password", "app password", "1 source failed"]);
    rig.write("password", "app-secret\n");

    let always = |below, status, headers, body: &str| {
        let fault = Fault::Always(below, status, headers, body.to_owned());
        rig.pihole.with(|pihole| pihole.fault = fault);
    };
    let seats = r#"{"error":{"key":"api_seats_exceeded","message":"API seats exceeded"}}"#;
    always("auth", 429, "", seats);
    rig.fails(&rig.collect(), &["all its sessions are taken", "max_sessions"]);
    always("logs", 429, "Retry-After: 90\r\n", "");
    rig.fails(&rig.collect(), &["is busy", "90 s"]);
    let page = "<!DOCTYPE html><title>Router</title><form>Password";
    always("", 200, "Content-Type: text/html\r\n", page);
    rig.fails(&rig.collect(), &["no Pi-hole v6", "check url"]);
    // In the middle of a pass.
    always("logs", 200, "Content-Type: text/html\r\n", page);
    rig.fails(&rig.collect(), &["no Pi-hole v6", "check url"]);
    always("logs", 401, "", "");
    rig.fails(&rig.collect(), &["ends each session at once"]);
    always("", 503, "", "starting");
    rig.fails(&rig.collect(), &["is busy", "503"]);

    // Nobody there: a port that was just free.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = format!("https://{free}");
    rig.fails(&rig.collect_from(&nobody), &["not reachable", "is its web interface on"]);
    // Another's certificate.
    rig.write("certificate", &FakePihole::start("127.0.0.1").hub.ca_pem);
    rig.fails(&rig.collect(), &["certificate", "copy it from"]);
    rig.write("certificate", &rig.pihole.hub.ca_pem);

    rig.pihole.with(|pihole| pihole.fault = Fault::None);
    rig.passes();
    rig.holds(0..10);
}
