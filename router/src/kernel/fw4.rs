//! agentmon's rules beside OpenWrt's firewall (fw4): put in force, kept through its reloads.
//!
//! In: which rules are wanted, and the folder of the drop-in. Out: a [`Check`] for each.
//! Runs as root in the init script; a handful of `nft` calls.
//!
//! How it stays: fw4 includes `/usr/share/nftables.d/ruleset-post/*.nft` whenever it loads.
//! The package puts one file there that never changes and holds a single line: include
//! whatever is in [`DROPIN_DIR`], which is memory. That folder is empty at boot, so the
//! firewall never starts with rules of ours that this boot has not proved; `service firewall
//! restart` and `reload` bring back what was proved before. No flash is written.
//!
//! One include that fails makes the whole fw4 load fail, and the router is without a
//! firewall. Hence the invariants: every part is tried with `nft -c` before it is written,
//! the file as a whole once more, under the name it has until it is renamed; a part the
//! kernel does not take is left out and told; the text can be applied when the firewall has
//! none of what it names. No rule of ours decides over a packet, but for those of [`hold`]
//! where they are asked for.

use std::fs;
use std::path::Path;

use super::Check;
use super::hold::{self, By, Hold};
use super::probe::Groups;
use super::rules;
use super::setup::nft;

/// Memory, and only root writes there.
pub const DROPIN_DIR: &str = "/var/etc/agentmon/nft.d";
/// The one file in it.
pub const DROPIN_NAME: &str = "agentmon.nft";
/// Marks our rule in fw4's chain.
const COMMENT: &str = "agentmon";
/// fw4's table, and the chain through which each of its rejects goes.
const FW4: &str = "inet fw4";
const CHAIN: &str = "handle_reject";

/// The rules that are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The NFLOG groups.
    pub groups: Groups,
    /// The table `inet agentmon`.
    pub table: bool,
    /// Copies of what fw4 rejects, at most so many in a second.
    pub rejects: Option<u64>,
    /// What is handed to a queue.
    pub hold: Option<Hold>,
}

/// The part that holds packets.
const HOLD: &str = "rules that hold packets";
/// The part of the table `inet agentmon`.
const COPIES: &str = "rules for DNS copies";

/// Rules that are in force together or not at all.
#[derive(Clone, Debug)]
struct Part {
    what: &'static str,
    text: String,
    /// What the kernel may lack for it.
    kmod: &'static str,
    /// Only makes sense while fw4's table is there.
    in_fw4: bool,
}

fn parts(wish: &Wish) -> Vec<Part> {
    let table = wish.table.then(|| Part {
        what: COPIES,
        text: rules::table(wish.groups),
        kmod: "kmod-nfnetlink-log",
        in_fw4: false,
    });
    let rejects = wish.rejects.map(|rate| Part {
        what: "rule for copies of rejects",
        text: rejects(wish.groups.firewall, rate),
        kmod: "kmod-nfnetlink-log",
        in_fw4: true,
    });
    let hold = wish.hold.as_ref().map(|hold| Part {
        what: HOLD,
        text: hold::table(hold),
        kmod: "kmod-nft-queue",
        in_fw4: false,
    });
    table.into_iter().chain(rejects).chain(hold).collect()
}

/// fw4 sends every packet it rejects through one chain. Declaring table and chain first
/// makes the text hold even for a future fw4 that has no such chain.
fn rejects(group: u16, rate: u64) -> String {
    format!(
        "add table {FW4}\n\
         add chain {FW4} {CHAIN}\n\
         insert rule {FW4} {CHAIN} limit rate {rate}/second burst {rate} packets \
         log prefix \"agentmon-reject \" group {group} snaplen 96 comment \"{COMMENT}\"\n"
    )
}

/// Puts the rules in force, and into the drop-in; what is not wanted any more goes.
#[must_use]
pub fn apply(wish: &Wish, dir: &Path) -> Vec<Check> {
    let mut checks = apply_parts(parts(wish), dir);
    if let Some(hold) = &wish.hold {
        hold_otherwise(hold, &mut checks);
    }
    checks
}

/// Where nftables has no `queue`, iptables may have.
fn hold_otherwise(hold: &Hold, checks: &mut [Check]) {
    let Some(check) = checks.iter_mut().find(|check| check.what == HOLD && !check.ok) else {
        return;
    };
    if let Ok(By::Iptables) = hold::install(hold) {
        *check = Check::good(HOLD, "in force by iptables: this nftables has no queue");
    }
}

fn apply_parts(parts: Vec<Part>, dir: &Path) -> Vec<Check> {
    let tables = match nft(&["list", "tables"], None) {
        Ok(tables) => tables,
        Err(error) => return parts.iter().map(|part| no_nft(part, &error)).collect(),
    };
    let fw4 = tables.lines().any(|line| line.trim() == format!("table {FW4}"));
    let mut checks = Vec::new();
    let (mut good, mut now) = (String::new(), forget_rejects(fw4));
    for (what, end) in [(COPIES, rules::no_table()), (HOLD, rules::no_hold())] {
        if !parts.iter().any(|part| part.what == what) {
            now += &end;
        }
    }
    if !parts.iter().any(|part| part.what == HOLD) {
        hold::remove();
    }
    for part in parts {
        if let Err(error) = nft(&["-c", "-f", "-"], Some(&part.text)) {
            checks.push(Check::bad(
                part.what,
                format!("left out: {error:#}"),
                format!("install {}, then: service agentmon restart", part.kmod),
            ));
            continue;
        }
        good += &part.text;
        if part.in_fw4 && !fw4 {
            checks.push(Check::bad(
                part.what,
                "off: OpenWrt's firewall (fw4) is not running here",
                "service firewall start; before OpenWrt 22.03 there is none",
            ));
            continue;
        }
        now += &part.text;
        checks.push(Check::good(part.what, "in force"));
    }
    if let Err(error) = nft(&["-f", "-"], Some(&now)) {
        for check in checks.iter_mut().filter(|check| check.ok) {
            let mend = "see the log of the kernel: dmesg";
            *check = Check::bad(check.what, format!("off: {error:#}"), mend);
        }
    }
    if let Err(error) = keep(&good, dir) {
        checks.push(Check::bad(
            "rules after a restart of the firewall",
            format!("would be lost: {error:#}"),
            "make room in /tmp, then: service agentmon restart",
        ));
    }
    checks
}

fn no_nft(part: &Part, error: &anyhow::Error) -> Check {
    let detail = format!("off: {error:#}");
    Check::bad(part.what, detail, "OpenWrt 22.03 or newer, whose firewall is fw4, has nft")
}

/// Replaces the drop-in, after a last look at the very file; an empty one is none.
fn keep(text: &str, dir: &Path) -> anyhow::Result<()> {
    let (path, new) = (dir.join(DROPIN_NAME), dir.join(".agentmon.nft.new"));
    if text.is_empty() {
        return Ok(gone(&path)?);
    }
    fs::create_dir_all(dir)?;
    let written = fs::write(&new, text).map_err(anyhow::Error::from).and_then(|()| {
        nft(&["-c", "-f", &new.to_string_lossy()], None)?;
        Ok(fs::rename(&new, &path)?)
    });
    if written.is_err() {
        // The old one was proved too, but for other wishes.
        gone(&new)?;
        gone(&path)?;
    }
    written
}

fn gone(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Deletes our rules in fw4's chain, as text for `nft -f`.
fn forget_rejects(fw4: bool) -> String {
    let listed =
        if fw4 { nft(&["-a", "list", "chain", "inet", "fw4", CHAIN], None).ok() } else { None };
    let handles = listed.as_deref().unwrap_or_default().lines().filter_map(our_handle);
    handles.map(|handle| format!("delete rule {FW4} {CHAIN} handle {handle}\n")).collect()
}

/// The number of a listed rule, if it is ours.
fn our_handle(line: &str) -> Option<u64> {
    let (rule, handle) = line.rsplit_once(" # handle ")?;
    rule.trim_end().ends_with(&format!("comment \"{COMMENT}\"")).then_some(())?;
    handle.trim().parse().ok()
}

/// Takes all of it away: drop-in, rules, table. Nothing there is fine.
///
/// # Errors
/// What could not be removed, after everything was tried.
pub fn remove(dir: &Path) -> anyhow::Result<()> {
    let file = gone(&dir.join(DROPIN_NAME)).and_then(|()| gone(&dir.join(".agentmon.nft.new")));
    // The folder is ours; that it is not there, or not empty, is no matter.
    drop(fs::remove_dir(dir));
    let Ok(tables) = nft(&["list", "tables"], None) else {
        // Without nft there are no rules of ours.
        return Ok(file?);
    };
    hold::remove();
    let fw4 = tables.lines().any(|line| line.trim() == format!("table {FW4}"));
    let gone = rules::no_table() + &rules::no_hold() + &forget_rejects(fw4);
    nft(&["-f", "-"], Some(&gone))?;
    Ok(file?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_part_decides_over_a_packet() {
        let groups = Groups { firewall: 5, dns: 6 };
        let wish = Wish { groups, table: true, rejects: Some(7), hold: None };
        let all = parts(&wish);
        assert_eq!(all.len(), 2);
        let text = &all[1].text;
        assert!(text.contains("limit rate 7/second") && text.contains("group 5"), "{text}");
        for verdict in [" drop", " reject ", " accept", "jump", "queue num", "return"] {
            assert!(!text.contains(verdict), "{verdict}: {text}");
        }
    }

    #[test]
    fn only_our_own_rule_is_found() {
        let line = "\t\tlimit rate 7/second log prefix \"agentmon-reject \" group 5 comment \"agentmon\" # handle 12";
        assert_eq!(our_handle(line), Some(12));
        assert_eq!(our_handle("\t\treject comment \"!fw4: agentmon\" # handle 9"), None);
        assert_eq!(our_handle("\t\treject # handle 9"), None);
        assert_eq!(our_handle("comment \"agentmon\" # handle 9; flush ruleset"), None);
        assert_eq!(our_handle(""), None);
    }
}
