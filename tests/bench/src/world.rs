//! A process per benchmark, and namespaces around those that need them.
//!
//! Outside: [`run`] starts this program again and reads its figures. Inside:
//! [`prepare`] turns a fresh network namespace into a machine whose loopback is tracked.
//!
//! Invariant: at the time limit, or when this program is killed, everything that a
//! benchmark has started in its process namespace dies with it.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::flood::SUBNET;
use crate::measure::{Stopwatch, tool};
use crate::report::{Figure, talk};

/// Runs a benchmark and hands over its figures as they come.
pub(crate) fn run(
    name: &str,
    isolated: bool,
    limit: Duration,
    mut each: impl FnMut(Figure),
) -> anyhow::Result<()> {
    let me = std::env::current_exe()?;
    let mut command = if isolated {
        let mut unshare = Command::new(tool("unshare").context("unshare is not installed")?);
        unshare.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        unshare.arg(me);
        unshare
    } else {
        Command::new(me)
    };
    let mut child = command.args(["inside", name]).stdout(Stdio::piped()).spawn()?;
    let lines = BufReader::new(child.stdout.take().context("stdout was piped")?).lines();
    let (sender, receiver) = channel();
    let reader = std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    let watch = Stopwatch::start();
    let ended = loop {
        match receiver.recv_timeout(limit.saturating_sub(watch.elapsed())) {
            Ok(line) => each(serde_json::from_str(&line).with_context(|| line.clone())?),
            Err(RecvTimeoutError::Disconnected) => break true,
            Err(RecvTimeoutError::Timeout) => break false,
        }
    };
    if !ended {
        child.kill()?;
    }
    let status = child.wait()?;
    if !ended {
        bail!("not done after {} s", limit.as_secs());
    }
    drop(reader.join());
    if isolated && status.code() == Some(1) {
        bail!("no namespaces: run as root, or see the message above");
    }
    if !status.success() {
        bail!("{status}");
    }
    Ok(())
}

/// Inside: loopback up, connection tracking on and complete, short time-outs so that flows
/// end while somebody watches.
pub(crate) fn prepare() -> anyhow::Result<()> {
    run_tool("ip", &["link", "set", "lo", "up"], "")?;
    run_tool("ip", &["route", "add", "local", SUBNET, "dev", "lo"], "")?;
    // Tracking starts with the first rule that asks for it (nft 1.0.6 wants the newlines).
    let rules = "table ip bench {\n chain out {\n  type filter hook output priority 0;\n  \
                 ct state new counter\n }\n}\n";
    run_tool("nft", &["-f", "-"], rules)?;
    for (name, value) in [
        ("net/netfilter/nf_conntrack_acct", "1"),
        ("net/netfilter/nf_conntrack_events", "1"),
        ("net/netfilter/nf_conntrack_udp_timeout", "1"),
        ("net/netfilter/nf_conntrack_udp_timeout_stream", "1"),
    ] {
        let path = Path::new("/proc/sys").join(name);
        std::fs::write(&path, value).with_context(|| format!("{} = {value}", path.display()))?;
    }
    Ok(())
}

/// Runs a tool to its end and gives its standard output.
pub(crate) fn run_tool(name: &str, args: &[&str], input: &str) -> anyhow::Result<Vec<u8>> {
    let program = tool(name).with_context(|| format!("{name} is not installed"))?;
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    // Small inputs only: they fit into the pipe.
    std::io::Write::write_all(&mut child.stdin.take().context("piped")?, input.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("{name} {args:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output.stdout)
}

/// A folder for a benchmark's files, beside this program: on a disk, where `/tmp` may be
/// memory.
pub(crate) fn scratch() -> anyhow::Result<tempfile::TempDir> {
    Ok(tempfile::tempdir_in(beside()?)?)
}

/// A program of this workspace: from `AGENTMON_BIN_DIR`, else beside this one.
pub(crate) fn program(name: &str) -> anyhow::Result<PathBuf> {
    let folder = std::env::var_os("AGENTMON_BIN_DIR").map(PathBuf::from);
    built(folder.map_or_else(beside, Ok)?.join(name))
}

/// The same as packaged: built with the size profile, beside this one's profile.
pub(crate) fn small_program(name: &str) -> anyhow::Result<PathBuf> {
    let beside = || anyhow::Ok(beside()?.with_file_name("small"));
    let folder = std::env::var_os("AGENTMON_SMALL_DIR").map(PathBuf::from);
    built(folder.map_or_else(beside, Ok)?.join(name))
}

fn beside() -> anyhow::Result<PathBuf> {
    Ok(std::env::current_exe()?.parent().context("a program is in a folder")?.to_owned())
}

fn built(file: PathBuf) -> anyhow::Result<PathBuf> {
    if !file.is_file() {
        bail!(
            "{} is not there: `./dev bench` builds it (or set AGENTMON_BIN_DIR, AGENTMON_SMALL_DIR)",
            file.display()
        );
    }
    talk(&format!("measuring {}", file.display()));
    Ok(file)
}

/// A command that is killed when this process dies, however it dies; without setpriv(1)
/// only when it ends in good order.
pub(crate) fn dies_with_us(program: &Path) -> Command {
    let Some(setpriv) = tool("setpriv") else { return Command::new(program) };
    let mut command = Command::new(setpriv);
    // It replaces itself, so the id stays.
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}
