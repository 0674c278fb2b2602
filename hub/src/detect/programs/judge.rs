//! Whether there is something to say about a program. Pure.

use agentmon_core::Timestamp;
use agentmon_core::finding::Finding;

use super::gather::Seen;

/// Its names as rules.
pub(super) const NEW: &str = "new-program";
pub(super) const UNKNOWN: &str = "unknown-program";
pub(super) const REPLACED: &str = "program-replaced";
const DAY_US: i64 = 86_400_000_000;
/// A file with so many contents before is built again and again.
const CHURN: u64 = 2;
/// Where anybody may write, and nobody installs.
const ODD: [&str; 8] = [
    "/tmp/",
    "/var/tmp/",
    "/dev/shm/",
    "/private/tmp/",
    "/Downloads/",
    r"\Temp\",
    r"\Users\Public\",
    r"\Downloads\",
];
/// Where people build programs, and language tools keep theirs.
const BUILT: [&str; 9] = [
    "/target/debug/",
    "/target/release/",
    "/go-build",
    "/node_modules/",
    "/.venv/",
    "/.cargo/",
    "/.rustup/",
    "/.nvm/",
    "/.pyenv/",
];
/// Where only administrators write.
const SYSTEM: [&str; 9] = [
    "/usr/",
    "/bin/",
    "/sbin/",
    "/lib",
    "/opt/",
    "/Applications/",
    "/System/",
    r"C:\Windows\",
    r"C:\Program Files",
];

/// At most one opinion for each program: the gravest.
pub(super) fn finding(seen: &Seen, learning_days: u32) -> Option<Finding> {
    if seen.same {
        return None;
    }
    if seen.others > 0 {
        return replaced(seen);
    }
    if seen.known {
        return None;
    }
    let learning = i64::from(learning_days).saturating_mul(DAY_US);
    let learnt = seen.since.is_some_and(|since| seen.first.saturating_sub(since) >= learning);
    if !learnt {
        return None;
    }
    Some(unknown(seen).unwrap_or_else(|| new(seen)))
}

fn within(exe: &str, places: &[&str]) -> bool {
    places.iter().any(|place| exe.contains(place))
}

fn in_system(exe: &str) -> bool {
    SYSTEM.iter().any(|place| exe.starts_with(place)) && !exe.starts_with("/usr/local/")
}

/// Nobody vouches for it, where somebody vouches for others.
fn unknown(seen: &Seen) -> Option<Finding> {
    let vouched = seen.signer.is_some() || seen.package.is_some();
    if vouched || !(seen.packs || seen.signs) {
        return None;
    }
    let odd = within(&seen.exe, &ODD) || seen.deleted;
    let score = match () {
        () if odd => 0.6,
        () if seen.elsewhere || within(&seen.exe, &BUILT) => 0.25,
        () => 0.4,
    };
    let what = if seen.signs { "nobody signed" } else { "no package has" };
    Some(say(seen, UNKNOWN, score, format!("which {what}, used the network for the first time")))
}

fn new(seen: &Seen) -> Finding {
    let score = if seen.elsewhere { 0.1 } else { 0.25 };
    say(seen, NEW, score, "used the network for the first time".into())
}

/// Another content under the same path.
fn replaced(seen: &Seen) -> Option<Finding> {
    let signed_before = seen.before_signer.is_some();
    let score = match () {
        () if seen.signer.is_some() && seen.signer == seen.before_signer => return None,
        () if signed_before => 0.8,
        // What another host has as well, and what something that installs put there.
        () if seen.elsewhere || (seen.upgrade && in_system(&seen.exe)) => return None,
        // Built again and again: by whoever develops it.
        () if seen.others >= CHURN || within(&seen.exe, &BUILT) => return None,
        () if seen.package.is_some() => 0.3,
        () if in_system(&seen.exe) => 0.6,
        () => 0.35,
    };
    let says = match (&seen.before_signer, &seen.signer) {
        (Some(before), None) => format!("was signed by {before} and is not signed any more"),
        (Some(before), Some(now)) => format!("was signed by {before} and is now by {now}"),
        _ if seen.package.is_some() => "has another content, and no upgrade was seen".to_owned(),
        _ => "has another content than before".to_owned(),
    };
    let at = seen.before_seen.map_or(Timestamp::EPOCH, Timestamp::from_micros);
    let finding = say(seen, REPLACED, score, says);
    Some(finding.with("before", seen.before.as_deref().unwrap_or("")).with("before_seen", at))
}

fn say(seen: &Seen, rule: &str, score: f64, says: String) -> Finding {
    let mut finding = Finding {
        rule: rule.into(),
        subject: format!("{} on {}", seen.exe, seen.host),
        client: seen.address.parse().ok(),
        mac: None,
        score,
        why: format!("{} on {}, {says}; it talked to {}", seen.exe, seen.host, seen.place),
        evidence: Vec::new(),
    }
    .with("program", &seen.name)
    .with("file", &seen.exe)
    .with("host", &seen.host)
    .with("place", &seen.place)
    .with("first_seen", Timestamp::from_micros(seen.first));
    for (key, value) in [
        ("sha256", Some(seen.sha256.as_str()).filter(|s| !s.is_empty())),
        ("package", seen.package.as_deref()),
        ("signer", seen.signer.as_deref()),
        ("user", seen.user.as_deref()),
    ] {
        if let Some(value) = value {
            finding = finding.with(key, value);
        }
    }
    if seen.deleted {
        finding = finding.with("deleted", true);
    }
    finding
}
