//! agentmon's own firewall table, as nftables text.
//!
//! In: NFLOG group numbers. Out: text for `nft -f` (nftables 1.0.6 and later) and for a
//! person to read. Pure.
//!
//! Invariants: no rule holds a verdict, every chain's policy is accept: a packet takes the
//! same way with the table as without it; the text can be applied twice.

use super::probe::Groups;

/// Family and name.
pub const TABLE: &str = "inet agentmon";
/// Longest DNS copy; see `collect::passive_dns`.
const SNAPLEN: u32 = 512;

/// The table.
///
/// The chain `track` hangs on no hook, and nothing jumps to it: its mention of `ct` alone
/// makes the kernel track connections in this network namespace, at no cost per rule. The
/// copies are made before the firewall decides (priority below `filter`), so that a question
/// the firewall stops is still seen. A packet over loopback passes output and input; the
/// copy on input is left out.
#[must_use]
pub fn table(groups: Groups) -> String {
    let dns = groups.dns;
    let log =
        format!("log prefix \"agentmon-dns \" group {dns} snaplen {SNAPLEN} queue-threshold 1");
    let copies: String = ["udp dport 53", "udp sport 53", "tcp dport 53", "tcp sport 53"]
        .map(|what| format!("    {what} {log}\n"))
        .concat();
    let chain = |hook: &str, first: &str| {
        format!(
            "  chain {hook} {{\n    type filter hook {hook} priority -5; policy accept;\n\
             {first}{copies}  }}\n"
        )
    };
    format!(
        "# agentmon: makes the kernel track connections, and copies DNS to NFLOG group {dns}.\n\
         # Decides over no packet. Remove with: nft delete table {TABLE}\n\
         table {TABLE}\n\
         delete table {TABLE}\n\
         table {TABLE} {{\n  \
           chain track {{\n    ct state new\n  }}\n\
         {}{}{}}}\n",
        chain("input", "    iifname \"lo\" return\n"),
        chain("forward", ""),
        chain("output", ""),
    )
}

/// The end of the table; declared first, so that it is there to be deleted.
#[must_use]
pub fn no_table() -> String {
    format!("table {TABLE}\ndelete table {TABLE}\n")
}

/// Family and name of the table that hands packets to a queue, for `enforce`; see
/// [`hold`](super::hold). Apart from the other, so that a kernel without `queue` has the rest.
pub const HOLD_TABLE: &str = "inet agentmon_hold";

/// The end of that table.
#[must_use]
pub fn no_hold() -> String {
    format!("table {HOLD_TABLE}\ndelete table {HOLD_TABLE}\n")
}

/// What to write into one's own firewall so that agentmon sees what it stops: the verdict
/// stays where it is, in the user's own rules.
#[must_use]
pub fn firewall_snippet(groups: Groups) -> String {
    let group = groups.firewall;
    format!(
        "# Before each rule that rejects or drops, the same match with a log statement; the\n\
         # prefix must say reject or drop:\n\
         #   iifname \"br-lan\" tcp dport 25 log prefix \"agentmon-reject \" group {group} snaplen 96\n\
         #   iifname \"br-lan\" tcp dport 25 reject\n\
         # As the last rules of a chain whose policy is drop:\n\
         log prefix \"agentmon-drop \" group {group} snaplen 96\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUPS: Groups = Groups { firewall: 5, dns: 6 };

    #[test]
    fn the_table_decides_nothing() {
        let text = table(GROUPS);
        let rules = text.lines().filter(|l| !l.trim_start().starts_with(['#', 't']));
        for word in ["drop", "reject", "queue num", "jump", "goto", "dnat", "snat", "mark"] {
            assert!(!rules.clone().any(|l| l.contains(word)), "{word}");
        }
        assert_eq!(text.matches("policy accept").count(), 3);
        assert_eq!(text.matches("group 6 snaplen 512").count(), 12);
    }

    #[test]
    fn the_snippet_names_the_group() {
        let text = firewall_snippet(Groups { firewall: 77, dns: 6 });
        assert!(text.lines().all(|l| l.starts_with('#') || l.starts_with("log prefix")));
        assert_eq!(text.matches("group 77").count(), 2);
    }
}
