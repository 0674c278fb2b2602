//! The program itself, as a service: what it may do while it runs, and what it leaves behind.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use agentmon_core::time::{Clock as _, SystemClock};
use agentmon_host::linux::privileges::{OPENING, WATCHING};

mod seen;

const PROGRAM: &str = env!("CARGO_BIN_EXE_agentmon-host");

fn command(dir: &Path, what: &str) -> Command {
    let config = dir.join("host.toml");
    let text = format!("state_dir = {:?}\n[forward]\nenabled = false\n", dir.join("state"));
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new(PROGRAM);
    command.arg("--config").arg(&config).arg(what);
    command
}

/// A running one; ended with this.
struct Service(Child);

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Name, permitted capabilities and `NoNewPrivs` of each of its threads.
fn threads(pid: u32) -> Vec<(String, u64, bool)> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let read = |path: &Path| {
        let text = std::fs::read_to_string(path.join("status")).ok()?;
        let field =
            |name: &str| text.lines().find_map(|l| Some(l.strip_prefix(name)?.trim().to_owned()));
        let may = u64::from_str_radix(&field("CapPrm:")?, 16).ok()?;
        let effective = u64::from_str_radix(&field("CapEff:")?, 16).ok()?;
        Some((field("Name:")?, may | effective, field("NoNewPrivs:")? == "1"))
    };
    tasks.filter_map(|t| read(&t.path())).collect()
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let clock = SystemClock;
    let end = clock.mono().plus(seen::patience());
    while !done() {
        assert!(clock.mono() < end, "not seen: {what}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn it_gives_away_what_it_may_do_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = command(dir.path(), "run");
    let mut service = Service(run.stderr(Stdio::null()).spawn().unwrap());
    let pid = service.0.id();
    until("all privileges that are not needed are gone", || {
        let all = threads(pid);
        let left = |name: &str| all.iter().find(|t| t.0 == name).map(|t| t.1);
        left("watch").is_some_and(|may| may & !WATCHING.bits() == 0)
            && left("forward") == Some(0)
            && all.iter().all(|t| t.2 && (t.0 == "watch" || t.1 & OPENING.bits() == 0))
    });
    let nice = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let nice = nice.rsplit(") ").next().unwrap().split(' ').nth(16).unwrap().parse::<i32>();
    assert!(nice.unwrap() >= 10, "others' work comes first");
    let state = dir.path().join("state");
    assert!(state.join("ring.db").exists());
    // Asked to end, it does.
    let term = Command::new("kill").arg(pid.to_string()).status().unwrap();
    assert!(term.success() && service.0.wait().unwrap().success());

    std::fs::write(state.join("identity.json"), "{}").unwrap();
    let purge = || command(dir.path(), "purge").output().unwrap();
    let said = purge();
    assert!(said.status.success(), "{said:?}");
    assert!(String::from_utf8_lossy(&said.stdout).contains("identity.json"));
    assert!(!state.exists());
    // Again there is nothing; what is somebody else's stays.
    assert!(purge().stdout.is_empty());
    std::fs::create_dir(&state).unwrap();
    std::fs::write(state.join("mine"), "x").unwrap();
    let said = purge();
    assert!(said.status.success() && state.join("mine").exists(), "{said:?}");
}
