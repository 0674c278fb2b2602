//! Turns on what the kernel needs to tell, when a person asks for it.
//!
//! In: the wish. Out: a line per thing done, or why it could not be. Effects: up to three
//! files under `/proc/sys/net/netfilter`, and the table [`TABLE`], both only in this
//! network namespace and only until the next boot (see `config/sysctl-agentmon.conf` for
//! longer).
//!
//! Invariants: a table is checked (`nft -c`) before it is applied, and applied as one
//! transaction; what is in force already is left alone; nothing is ever switched off.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use super::Check;
use super::hold;
use super::probe::Groups;
use super::rules::{TABLE, no_table, table};
use crate::collect::conntrack::timeouts::{SYSCTL_FOLDER, read_number};

/// What agentmon wants, by sysctl; absent ones are not for this kernel.
const SWITCHES: [(&str, &str); 3] = [
    ("byte counts", "nf_conntrack_acct"),
    ("flow times", "nf_conntrack_timestamp"),
    ("flow events", "nf_conntrack_events"),
];
/// Longest message of `nft` shown.
const MESSAGE_BYTES_MAX: usize = 500;

/// Sets the kernel's switches.
#[must_use]
pub fn switches() -> Vec<Check> {
    switches_in(Path::new(SYSCTL_FOLDER))
}

/// Sets the one that makes old connections tell their end.
#[must_use]
pub fn events() -> Vec<Check> {
    set_all(Path::new(SYSCTL_FOLDER), &SWITCHES[2..])
}

fn switches_in(folder: &Path) -> Vec<Check> {
    set_all(folder, &SWITCHES)
}

fn set_all(folder: &Path, switches: &[(&'static str, &str)]) -> Vec<Check> {
    let set = |&(what, name): &(&'static str, &str)| match read_number(folder, name) {
        None => Check::good(what, format!("this kernel has no {name}")),
        Some(1) => Check::good(what, format!("net.netfilter.{name} is 1 already")),
        Some(old) => match std::fs::write(folder.join(name), "1\n") {
            Ok(()) => Check::good(what, format!("net.netfilter.{name}: {old} -> 1")),
            Err(error) => Check::bad(
                what,
                format!("net.netfilter.{name} stays {old}: {error}"),
                format!("as root: sysctl -w net.netfilter.{name}=1"),
            ),
        },
    };
    switches.iter().map(set).collect()
}

/// Installs agentmon's table, or brings it up to date.
///
/// # Errors
/// When `nft` is missing, may not, or does not accept the text; nothing has changed then.
pub fn install(groups: Groups) -> anyhow::Result<()> {
    let text = table(groups);
    nft(&["-c", "-f", "-"], Some(&text)).context("checking agentmon's table")?;
    nft(&["-f", "-"], Some(&text)).context("installing agentmon's table")?;
    Ok(())
}

/// Whether the table is there.
///
/// # Errors
/// When `nft` is missing or may not.
pub fn is_installed() -> anyhow::Result<bool> {
    let tables = nft(&["list", "tables"], None).context("listing tables")?;
    Ok(tables.lines().any(|line| line.trim() == format!("table {TABLE}")))
}

/// Removes the tables; nothing of them stays. Not there is fine.
///
/// # Errors
/// When `nft` is missing or may not.
pub fn remove() -> anyhow::Result<()> {
    hold::remove();
    nft(&["-f", "-"], Some(&no_table())).context("removing agentmon's table")?;
    Ok(())
}

/// Runs `nft` and returns what it printed.
pub(super) fn nft(arguments: &[&str], input: Option<&str>) -> anyhow::Result<String> {
    let mut child = Command::new("nft")
        .args(arguments)
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("nft does not start (install nftables)")?;
    if let (Some(mut pipe), Some(text)) = (child.stdin.take(), input) {
        // A refusal closes the pipe early; its message is better than "broken pipe".
        drop(pipe.write_all(text.as_bytes()));
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let message = agentmon_core::name::printable(output.stderr.trim_ascii(), MESSAGE_BYTES_MAX);
        bail!("nft {}: {message}", arguments.join(" "));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_there_and_not_yet_on_is_set() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("nf_conntrack_acct"), "0\n").unwrap();
        std::fs::write(path("nf_conntrack_events"), "1\n").unwrap();
        let done = switches_in(folder.path());
        let details: Vec<_> = done.iter().map(|c| c.detail.as_str()).collect();
        assert_eq!(
            details,
            [
                "net.netfilter.nf_conntrack_acct: 0 -> 1",
                "this kernel has no nf_conntrack_timestamp",
                "net.netfilter.nf_conntrack_events is 1 already",
            ]
        );
        assert_eq!(read_number(folder.path(), "nf_conntrack_acct"), Some(1));
        assert!(!path("nf_conntrack_timestamp").exists());
    }
}
