//! Processes of the lab: started inside a host, their output kept in a log file, ended by
//! their own id when dropped.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::wait::{eventually, want};

/// A running program.
#[derive(Debug)]
pub struct Proc {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Proc {
    /// Starts `program` inside the namespace `host`; its output is appended to `log`.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(host: &str, log: &Path, program: &Path, args: &[&str]) -> Self {
        Self::start_with(host, log, program, args, &[])
    }

    /// The same with environment variables.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start_with(
        host: &str,
        log: &Path,
        program: &Path,
        args: &[&str],
        env: &[(&str, &str)],
    ) -> Self {
        let out = File::options().create(true).append(true).open(log).expect("log file opens");
        let err = out.try_clone().expect("log file opens twice");
        // `ip netns exec` replaces itself, so the child's id is the program's id.
        let mut command = command(host, program, args);
        command.envs(env.iter().copied()).stdin(Stdio::null()).stdout(out).stderr(err);
        let child = command.spawn().unwrap_or_else(|e| panic!("{}: {e}", program.display()));
        let name = log.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
        Self { name, child, log: log.to_owned() }
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal)
            .unwrap_or_else(|e| panic!("{} {signal:?}: {e}", self.name));
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(mut self) {
        self.end();
    }

    /// SIGTERM, and waits until it has ended by itself.
    ///
    /// # Panics
    /// When it does not end within 20 s (stretched).
    pub fn stop(mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        eventually(20.0, &format!("{} ends after SIGTERM", self.name), || {
            let status = self.child.try_wait().expect("own child");
            status.ok_or_else(|| "still running".to_owned())
        })
    }

    /// Waits until the log holds `text`.
    ///
    /// # Panics
    /// When it does not within `seconds` (stretched).
    pub fn says(&self, seconds: f64, text: &str) {
        eventually(seconds, &format!("{} says {text:?}", self.name), || {
            let log = self.log_text();
            want(log.contains(text), || log)
        });
    }

    /// Whether it is still running.
    ///
    /// # Panics
    /// Never: it is our own child.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("own child").is_none()
    }

    /// All it has said so far.
    #[must_use]
    pub fn log_text(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Its process id in the lab's process namespace.
    ///
    /// # Panics
    /// Never: a child has a positive id.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Resident memory in KiB and CPU time used so far in clock ticks (100 per second).
    #[must_use]
    pub fn usage(&self) -> (u64, u64) {
        let file = |name: &str| {
            let path = format!("/proc/{}/{name}", self.child.id());
            std::fs::read_to_string(path).unwrap_or_default()
        };
        let status = file("status");
        let rss = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
        let rss = rss.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0);
        // Fields 14 and 15 (utime, stime), counted after the name in brackets: proc(5).
        let stat = file("stat");
        let after = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks = |n: usize| after.split_whitespace().nth(n).and_then(|f| f.parse().ok());
        (rss, ticks(11).unwrap_or(0) + ticks(12).unwrap_or(0))
    }

    fn end(&mut self) {
        // Already gone is as good as killed.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        self.end();
    }
}

/// A command inside the namespace `host`, not yet run.
#[must_use]
pub fn command(host: &str, program: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", host]).arg(program).args(args);
    command
}

/// Runs a tool to its end inside `host` and gives its standard output.
///
/// # Panics
/// When it fails: with its own words.
#[track_caller]
#[must_use]
pub fn output(host: &str, program: &Path, args: &[&str]) -> String {
    let out = command(host, program, args).stdin(Stdio::null()).output().expect("ip can be run");
    assert!(
        out.status.success(),
        "{} {args:?} in {host}: {}\n{}{}",
        program.display(),
        out.status,
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr),
    );
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// A program of this workspace: from `AGENTMON_BIN_DIR`, else beside the test.
///
/// # Panics
/// When it has not been built; the message says how to.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let beside = || {
        // target/PROFILE/deps/TEST-HASH -> target/PROFILE
        let test = std::env::current_exe().expect("own path");
        test.parent().and_then(Path::parent).expect("target/PROFILE").to_owned()
    };
    let folder = std::env::var_os("AGENTMON_BIN_DIR").map_or_else(beside, PathBuf::from);
    let file = folder.join(name);
    assert!(
        file.is_file(),
        "{} is not there: run `cargo build --workspace --bins` first, as ./dev test does \
         (or set AGENTMON_BIN_DIR)",
        file.display()
    );
    file
}
