//! What the lab needs of the machine: root, and a few tools. Missing things are named in one
//! loud line; with `AGENTMON_REQUIRE_LAB=1` they fail the test instead of leaving it out.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Tool and Debian package.
const TOOLS: [(&str, &str); 6] = [
    ("ip", "iproute2"),
    ("unshare", "util-linux"),
    ("nft", "nftables"),
    ("conntrack", "conntrack"),
    ("dnsmasq", "dnsmasq-base"),
    ("udhcpc", "udhcpc"),
];

/// Everything that is missing, in words; empty when the lab can run.
#[must_use]
pub fn missing() -> Vec<String> {
    let mut missing = Vec::new();
    let lacks = |(tool, package): &(&str, &str)| {
        find(tool).is_none().then(|| format!("{tool} (apt-get install {package})"))
    };
    missing.extend(TOOLS.iter().filter_map(lacks));
    if missing.is_empty() && !can_make_namespaces() {
        missing.push("root, or rather the right to make namespaces (run as root)".to_owned());
    }
    missing
}

/// Whether a test that needs the lab can go on. Says loudly what is missing if not.
///
/// # Panics
/// When something is missing and `AGENTMON_REQUIRE_LAB=1` forbids leaving tests out.
#[must_use]
pub fn lab_can_run(test: &str) -> bool {
    let missing = missing();
    if missing.is_empty() {
        return true;
    }
    leave_out("LAB", test, &missing);
    false
}

/// Says in one loud line that a test is left out and what it lacks.
///
/// # Panics
/// When `AGENTMON_REQUIRE_LAB=1` forbids leaving tests out.
pub fn leave_out(kind: &str, test: &str, missing: &[String]) {
    let line = format!("{kind} TEST LEFT OUT: {test}: missing: {}", missing.join(", "));
    assert!(std::env::var("AGENTMON_REQUIRE_LAB").is_ok_and(|v| v == "1").eq(&false), "{line}");
    // Straight to the descriptor: the test runner would swallow a print of a passing test.
    let written = writeln!(std::io::stderr(), "\n{line}\n");
    written.expect("standard error can be written");
}

/// Where a tool is. `/usr/sbin` is looked at too: it is not on every user's path.
#[must_use]
pub fn find(tool: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let folders = path.split(':').chain(["/usr/sbin", "/sbin"]);
    folders.map(|folder| Path::new(folder).join(tool)).find(|file| file.is_file())
}

fn can_make_namespaces() -> bool {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--net", "--pid", "--fork", "--mount-proc", "true"]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
