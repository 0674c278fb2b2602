//! A program of this machine: the alerts come on its standard input as JSON, as a webhook's
//! body. Taken when it ends with 0; killed after the target's time.
//!
//! Invariants: no shell, no alert's text among the arguments or in the environment, of which
//! only `PATH`, `HOME` and `LANG` are passed on.

use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use agentmon_core::name::printable;
use anyhow::Context as _;
use serde_json::json;

use super::super::Outcome;
use super::super::notice::Notice;
use super::To;

/// How often to look whether it has ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Read of what it says on standard error.
const SAID_MAX: u64 = 1_024;
/// Wait for that, once it has ended.
const SAID_PATIENCE: Duration = Duration::from_millis(500);

pub(super) fn send(to: &To<'_>, notices: &[Notice]) -> anyhow::Result<Outcome> {
    let Some((program, arguments)) = to.target.command.split_first() else {
        anyhow::bail!("command: there is none");
    };
    let body = json!({"version": 1, "source": "agentmon", "alerts": notices}).to_string();
    let kept = ["PATH", "HOME", "LANG"].map(|name| (name, std::env::var_os(name)));
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(kept.into_iter().filter_map(|(name, value)| Some((name, value?))))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {program}"))?;
    feed(&mut child, body)?;
    let said = listen(&mut child)?;
    Ok(match wait(&mut child, to.target.timeout())? {
        Some(status) if status.success() => Outcome::Sent,
        Some(status) => {
            // Its children may hold the pipe open after its end.
            let said = said.recv_timeout(SAID_PATIENCE).unwrap_or_default();
            Outcome::later(format!("{status}{said}"))
        }
        None => {
            Outcome::later(format!("it ran for more than {:?} and was killed", to.target.timeout()))
        }
    })
}

/// Writes on a thread of its own: a program that does not read must not hold up the clock.
fn feed(child: &mut Child, body: String) -> anyhow::Result<()> {
    let Some(mut stdin) = child.stdin.take() else { return Ok(()) };
    let write = move || drop(stdin.write_all(body.as_bytes()));
    std::thread::Builder::new().name("deliver-stdin".into()).spawn(write).context("a thread")?;
    Ok(())
}

fn wait(child: &mut Child, timeout: Duration) -> anyhow::Result<Option<std::process::ExitStatus>> {
    let looks = timeout.as_millis() / LOOK_EVERY.as_millis();
    for _ in 0..=looks {
        if let Some(status) = child.try_wait().context("waiting for it")? {
            return Ok(Some(status));
        }
        std::thread::sleep(LOOK_EVERY);
    }
    child.kill().context("killing it")?;
    child.wait().context("waiting for it")?;
    Ok(None)
}

/// What it says on standard error, the begin of it; the rest is read and forgotten.
fn listen(child: &mut Child) -> anyhow::Result<Receiver<String>> {
    let (tell, said) = channel();
    let Some(mut stderr) = child.stderr.take() else { return Ok(said) };
    let read = move || {
        let mut text = Vec::new();
        drop(stderr.by_ref().take(SAID_MAX).read_to_end(&mut text));
        let text = printable(text.trim_ascii(), 200);
        drop(tell.send(if text.is_empty() { text } else { format!(": {text}") }));
        drop(std::io::copy(&mut stderr, &mut std::io::sink()));
    };
    std::thread::Builder::new().name("deliver-stderr".into()).spawn(read).context("a thread")?;
    Ok(said)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::super::config::{Kind, Target};
    use super::super::super::notice::tests::sample;
    use super::*;

    fn run(script: &str, timeout_seconds: u64) -> Outcome {
        let target = Target {
            kind: Kind::Command,
            command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            timeout_seconds,
            ..Target::default()
        };
        send(&To { target: &target, ca_file: PathBuf::new() }, &[sample(3)]).unwrap()
    }

    #[test]
    fn takes_json_and_tells_why_not() {
        assert_eq!(run("grep -q '\"subject\":\"qx7kz.example\"'", 10), Outcome::Sent);
        match run("echo no bell >&2; exit 3", 10) {
            Outcome::Later { why, .. } => {
                assert!(why.contains('3') && why.contains("no bell"), "{why}")
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn is_killed_in_time() {
        match run("exec sleep 600", 1) {
            Outcome::Later { why, .. } => assert!(why.contains("killed"), "{why}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn sees_little_of_the_environment() {
        assert_eq!(run("test -z \"$CARGO_MANIFEST_DIR\" && test -n \"$PATH\"", 10), Outcome::Sent);
    }
}
