//! The rules that hand packets to the queue of `enforce`: by nftables, or by iptables where
//! the kernel's nftables has no `queue`.
//!
//! In: a [`Hold`]. Out: text for `nft -f` and for `iptables-restore`; [`install`] puts the
//! first in force that the kernel takes. Runs as root, in `setup` or in the init script;
//! some calls of `nft` or `iptables`.
//!
//! Each rule matches only while the kernel has seen the pulse of a running agentmon within
//! the last second ([`PULSE`]): nftables keeps it as an element with a time-out, iptables as
//! an entry of `recent`. So a program that is frozen, starved or gone is out of the way by
//! itself, and `bypass` lets through what nobody reads.
//!
//! Invariants: everything stands in a table (nftables) or chains (iptables) of its own;
//! it is tried before it is put in force, and applied as one transaction for each table;
//! whatever fails, what was begun is taken away again and no other rule has changed; no rule
//! stops a packet but that which refuses what agentmon has marked.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use super::rules::{HOLD_TABLE, no_hold};
use super::setup::nft;
use crate::config::Config;
use crate::enforce::{ANSWER, PULSE, REFUSE};

/// The iptables chains, and the list of `recent`.
const CHAIN: &str = "AGENTMON_HOLD";
const RECENT: &str = "agentmon";
/// Longest message shown.
const MESSAGE_BYTES_MAX: usize = 500;

/// What is to be held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hold {
    /// Number of the queue.
    pub queue: u16,
    /// On these interfaces; none: on all but loopback. Names that can stand in a rule.
    pub interfaces: Vec<String>,
    /// Also the first packets of forwarded connections.
    pub addresses: bool,
}

impl Hold {
    /// What the configuration asks for, if it does.
    #[must_use]
    pub fn of(config: &Config) -> Option<Self> {
        let enforce = &config.enforce;
        enforce.enabled.then(|| Self {
            queue: enforce.queue,
            interfaces: enforce.interfaces.clone(),
            addresses: enforce.addresses,
        })
    }
}

/// By what the rules were put in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// `table inet agentmon_hold`.
    Nft,
    /// Chains `AGENTMON_HOLD` for IPv4, and for IPv6 where there is an ip6tables.
    Iptables,
}

/// Puts the rules in force, in place of earlier ones.
///
/// # Errors
/// Neither nftables nor iptables takes them; nothing of them is left then.
pub fn install(hold: &Hold) -> anyhow::Result<By> {
    let text = table(hold);
    let tried = nft(&["-c", "-f", "-"], Some(&text)).and_then(|_| nft(&["-f", "-"], Some(&text)));
    let Err(by_nft) = tried else {
        remove_iptables();
        return Ok(By::Nft);
    };
    match install_iptables(hold) {
        Ok(()) => Ok(By::Iptables),
        Err(by_iptables) => bail!(
            "neither nftables ({by_nft:#}; kmod-nft-queue missing?) nor iptables \
             ({by_iptables:#}; iptables-mod-nfqueue missing?)"
        ),
    }
}

/// Takes the rules away, however they were put in force. Not there is fine.
pub fn remove() {
    drop(nft(&["-f", "-"], Some(&no_hold())));
    remove_iptables();
}

/// The table, as nftables text that can be applied twice.
///
/// Questions are taken before any address is translated, so that an answer comes from where
/// the question went; and before the copies for the DNS collector are made: what is stopped
/// is told by who stopped it.
#[must_use]
pub fn table(hold: &Hold) -> String {
    let Hold { queue, interfaces, addresses } = hold;
    let from = match interfaces.as_slice() {
        [] => "iifname != \"lo\"".to_owned(),
        names => {
            let names: Vec<_> = names.iter().map(|name| format!("\"{name}\"")).collect();
            format!("iifname {{ {} }}", names.join(", "))
        }
    };
    let alive = "meta mark and 0x0 @alive";
    let to = format!("counter queue flags bypass to {queue}");
    let mut forward = String::new();
    if *addresses {
        forward = format!(
            "  chain forward {{\n    type filter hook forward priority -6; policy accept;\n    \
             meta mark {REFUSE:#x} meta l4proto tcp counter reject with tcp reset\n    \
             meta mark {REFUSE:#x} counter reject with icmpx type admin-prohibited\n    \
             {from} {alive} ct state new {to}\n  }}\n"
        );
    }
    format!(
        "# agentmon: holds packets in queue {queue} until agentmon lets them go on or stops them.\n\
         # In force only while agentmon runs. Remove with: nft delete table {HOLD_TABLE}\n\
         table {HOLD_TABLE}\n\
         delete table {HOLD_TABLE}\n\
         table {HOLD_TABLE} {{\n  \
         set alive {{\n    type mark\n    size 4\n    flags dynamic,timeout\n    timeout 1s\n  }}\n  \
         chain own {{\n    type filter hook output priority -300; policy accept;\n    \
         meta mark {PULSE:#x} oifname \"lo\" update @alive {{ meta mark and 0x0 timeout 1s }}\n    \
         meta mark {{ {PULSE:#x}, {ANSWER:#x} }} notrack\n  }}\n  \
         chain questions {{\n    type filter hook prerouting priority -150; policy accept;\n    \
         {from} {alive} udp dport 53 {to}\n    \
         {from} {alive} udp dport 853 ct state new {to}\n    \
         {from} {alive} tcp dport {{ 53, 853 }} tcp flags & (syn|ack) == syn {to}\n  }}\n\
         {forward}}}\n"
    )
}

/// The same for `iptables-restore`, of one family: text for each of its tables. Where a
/// table cannot be had, `optional` ones are gone without.
struct Text {
    table: &'static str,
    optional: bool,
    rules: String,
    /// Chain of the kernel, what comes before the jump, and the chain that is jumped to.
    jumps: Vec<(&'static str, String, String)>,
}

fn iptables(hold: &Hold, v6: bool) -> Vec<Text> {
    let mask = if v6 { "::" } else { "0.0.0.0" };
    let recent = |what: &str| format!("-m recent --name {RECENT} {what} --mask {mask} --rsource");
    let (alive, queue) = (recent("--rcheck --seconds 1"), hold.queue);
    let to = format!("-j NFQUEUE --queue-num {queue} --queue-bypass");
    let chain = |name: &str| format!(":{name} - [0:0]\n");
    let from = |chain: &'static str, target: &str| match hold.interfaces.as_slice() {
        [] => vec![(chain, "! -i lo".to_owned(), target.to_owned())],
        names => names.iter().map(|n| (chain, format!("-i {n}"), target.to_owned())).collect(),
    };
    let (pulse, questions) = (format!("{CHAIN}_PULSE"), format!("{CHAIN}_DNS"));
    let new = "-m conntrack --ctstate NEW";
    let mut mangle = chain(&pulse) + &chain(&questions);
    // `--set` alone would match; the chain goes on with the next rule all the same.
    let _infallible = write!(
        mangle,
        "-A {pulse} -m mark --mark {PULSE:#x} {}\n\
         -A {questions} -p udp --dport 53 {alive} {to}\n\
         -A {questions} -p udp --dport 853 {new} {alive} {to}\n\
         -A {questions} -p tcp --syn -m multiport --dports 53,853 {alive} {to}\n",
        recent("--set"),
    );
    let mut jumps = vec![("OUTPUT", "-o lo".to_owned(), pulse)];
    jumps.extend(from("PREROUTING", &questions));
    let mut texts = vec![Text { table: "mangle", optional: false, rules: mangle, jumps }];
    if hold.addresses {
        let unreachable = if v6 { "icmp6-adm-prohibited" } else { "icmp-admin-prohibited" };
        let refused = format!("-A {CHAIN} -m mark --mark {REFUSE:#x}");
        let rules = format!(
            "{}{refused} -p tcp -j REJECT --reject-with tcp-reset\n\
             {refused} -j REJECT --reject-with {unreachable}\n\
             -A {CHAIN} {new} {alive} {to}\n",
            chain(CHAIN)
        );
        let jumps = from("FORWARD", CHAIN);
        texts.push(Text { table: "filter", optional: false, rules, jumps });
    }
    let rules = format!(
        "{}-A {CHAIN} -m mark --mark {PULSE:#x} -j CT --notrack\n\
         -A {CHAIN} -m mark --mark {ANSWER:#x} -j CT --notrack\n",
        chain(CHAIN)
    );
    let jumps = vec![("OUTPUT", String::new(), CHAIN.to_owned())];
    // Without it our own answers are connections of their own in the table.
    texts.push(Text { table: "raw", optional: true, rules, jumps });
    texts
}

/// The programs of a family.
const FAMILIES: [(&str, bool); 2] = [("iptables", false), ("ip6tables", true)];

fn install_iptables(hold: &Hold) -> anyhow::Result<()> {
    remove_iptables();
    for (program, v6) in FAMILIES {
        if v6 && !is_there(program) {
            continue;
        }
        for text in iptables(hold, v6) {
            if let Err(error) = apply(program, &text)
                && !text.optional
            {
                remove_iptables();
                return Err(error);
            }
        }
    }
    Ok(())
}

fn apply(program: &str, text: &Text) -> anyhow::Result<()> {
    let restore = format!("{program}-restore");
    let jumps = text.jumps.iter().map(|(from, when, to)| format!("-I {from} {when} -j {to}\n"));
    let whole = format!("*{}\n{}{}COMMIT\n", text.table, text.rules, jumps.collect::<String>());
    let what = || format!("{program}, table {}", text.table);
    run(&restore, &["--test", "--noflush"], &whole).with_context(what)?;
    run(&restore, &["--noflush"], &whole).with_context(what)
}

fn is_there(program: &str) -> bool {
    Command::new(program).arg("-V").stdin(Stdio::null()).output().is_ok_and(|o| o.status.success())
}

/// Jumps first, then chains. What is not there fails, which is as good; `recent` forgets
/// its list when no rule names it any more.
fn remove_iptables() {
    for (program, _) in FAMILIES {
        for table in ["mangle", "filter", "raw"] {
            let Ok(rules) = list(program, table) else { continue };
            for rule in rules.lines() {
                let ours = rule.contains(&format!("-j {CHAIN}"));
                if let Some(rest) = rule.strip_prefix("-A ").filter(|_| ours) {
                    let words = ["-t", table, "-D"].into_iter().chain(rest.split_whitespace());
                    drop(run(program, &words.collect::<Vec<_>>(), ""));
                }
            }
            let chains = rules.lines().filter_map(|rule| rule.strip_prefix("-N "));
            for chain in chains.filter(|chain| chain.starts_with(CHAIN)) {
                drop(run(program, &["-t", table, "-F", chain], ""));
                drop(run(program, &["-t", table, "-X", chain], ""));
            }
        }
    }
}

fn list(program: &str, table: &str) -> anyhow::Result<String> {
    let output = Command::new(program).args(["-t", table, "-S"]).stdin(Stdio::null()).output()?;
    anyhow::ensure!(output.status.success(), "{program} -t {table} -S");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn run(program: &str, arguments: &[&str], input: &str) -> anyhow::Result<()> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{program} does not start"))?;
    if let Some(mut pipe) = child.stdin.take() {
        // A refusal closes the pipe early; its message is better than "broken pipe".
        drop(pipe.write_all(input.as_bytes()));
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let message = agentmon_core::name::printable(output.stderr.trim_ascii(), MESSAGE_BYTES_MAX);
        bail!("{program}: {message}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold(interfaces: &[&str], addresses: bool) -> Hold {
        let interfaces = interfaces.iter().map(|name| (*name).to_owned()).collect();
        Hold { queue: 17, interfaces, addresses }
    }

    /// Each rule with a queue lets through what nobody reads, and waits for the pulse.
    #[test]
    fn nothing_is_held_without_a_reader_or_a_pulse() {
        for addresses in [false, true] {
            let text = table(&hold(&[], addresses));
            let queues: Vec<_> = text.lines().filter(|line| line.contains("queue flags")).collect();
            assert_eq!(queues.len(), if addresses { 4 } else { 3 });
            for line in queues {
                assert!(line.contains("queue flags bypass to 17"), "{line}");
                assert!(line.contains("iifname != \"lo\" meta mark and 0x0 @alive"), "{line}");
            }
            assert_eq!(text.matches("policy accept").count(), if addresses { 3 } else { 2 });
            assert!(!text.contains("drop") && text.contains("timeout 1s"));
            for v6 in [false, true] {
                for text in iptables(&hold(&[], addresses), v6) {
                    for line in text.rules.lines().filter(|line| line.contains("NFQUEUE")) {
                        assert!(line.ends_with("--queue-num 17 --queue-bypass"), "{line}");
                        assert!(line.contains("--rcheck --seconds 1 --mask"), "{line}");
                        assert!(line.contains("--rsource -j NFQUEUE"), "{line}");
                    }
                    assert!(!text.rules.contains("-j DROP"));
                }
            }
        }
    }

    #[test]
    fn interfaces_are_named() {
        let hold = hold(&["br-lan", "wlan0"], true);
        assert_eq!(table(&hold).matches("iifname { \"br-lan\", \"wlan0\" } meta").count(), 4);
        let jumps: Vec<_> =
            iptables(&hold, false).into_iter().flat_map(|text| text.jumps).collect();
        let from = |chain| jumps.iter().filter(|j| j.0 == chain).map(|j| &*j.1).collect::<Vec<_>>();
        assert_eq!(from("PREROUTING"), ["-i br-lan", "-i wlan0"]);
        assert_eq!(from("FORWARD"), ["-i br-lan", "-i wlan0"]);
    }
}
