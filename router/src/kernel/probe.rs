//! Looks whether the kernel can tell what agentmon wants to know.
//!
//! In: `/proc`, three netlink requests, one datagram over loopback. Out: a list of
//! [`Check`]s, each with what to do. Changes nothing; the NFLOG groups are bound for a
//! moment, and only when nobody holds them.

use std::net::UdpSocket;
use std::path::Path;

use super::Check;
use super::rules::TABLE;
use crate::collect::conntrack::timeouts::{SYSCTL_FOLDER, read_number};
use crate::config::CollectConfig;
use crate::netlink::message::NLM_F_ACK;
use crate::netlink::nflog::Group;
use crate::netlink::{DATAGRAM_BYTES_MAX, NETFILTER, NetlinkError, Request, Socket};

/// Without this nothing else can be asked.
const IN_THE_WAY: [&str; 1] = ["connection tracking"];
/// `NFNL_SUBSYS_CTNETLINK` with `IPCTNL_MSG_CT_GET_STATS`: asks for a number, costs nothing.
const CT_GET_STATS: u16 = 1 << 8 | 5;
/// Bit of `CAP_NET_ADMIN` (capability.h).
const CAP_NET_ADMIN: u32 = 12;

/// Which NFLOG groups to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Groups {
    /// Of the firewall collector.
    pub firewall: u16,
    /// Of the passive DNS collector.
    pub dns: u16,
}

impl From<&CollectConfig> for Groups {
    fn from(config: &CollectConfig) -> Self {
        Self { firewall: config.firewall.group, dns: config.passive_dns.group }
    }
}

/// Looks at everything, in the order of the data path.
#[must_use]
pub fn probe(groups: Groups) -> Vec<Check> {
    let mut checks = probe_tracking();
    if checks.iter().all(|check| check.ok || !IN_THE_WAY.contains(&check.what)) {
        checks.push(group("firewall log", groups.firewall));
        checks.push(group("DNS copies", groups.dns));
    }
    checks
}

/// Looks at connection tracking alone: binds nothing, so that it may be asked again and
/// again beside running collectors.
#[must_use]
pub fn probe_tracking() -> Vec<Check> {
    let folder = Path::new(SYSCTL_FOLDER);
    let mut checks = vec![capability(&std::fs::read_to_string("/proc/self/status"))];
    let netlink = netlink();
    let reachable = netlink.ok;
    checks.push(netlink);
    if reachable {
        checks.push(hook(read_number(folder, "nf_conntrack_count"), || {
            poke();
            read_number(folder, "nf_conntrack_count")
        }));
        checks.extend(switches(folder));
        checks.push(room(folder));
    }
    checks
}

/// `CapEff` of `/proc/self/status`.
fn capability(status: &std::io::Result<String>) -> Check {
    const WHAT: &str = "permission";
    let effective = status.as_ref().ok().and_then(|text| {
        let line = text.lines().find_map(|l| l.strip_prefix("CapEff:"))?;
        u64::from_str_radix(line.trim(), 16).ok()
    });
    match effective {
        Some(bits) if bits >> CAP_NET_ADMIN & 1 == 1 => Check::good(WHAT, "has CAP_NET_ADMIN"),
        Some(_) => Check::bad(
            WHAT,
            "CAP_NET_ADMIN is missing: the kernel will tell nothing",
            "run as root, or: setcap cap_net_admin+ep agentmon-router",
        ),
        None => Check::bad(WHAT, "capabilities cannot be read", "mount /proc"),
    }
}

/// Asks connection tracking for its number of entries.
fn netlink() -> Check {
    const WHAT: &str = "connection tracking";
    const ACTION: &str = "asking connection tracking";
    let asked = Socket::open(NETFILTER).and_then(|mut socket| {
        let request = Request::new(CT_GET_STATS, NLM_F_ACK).body(&[0; 4]);
        socket.ask(ACTION, request, &mut vec![0; DATAGRAM_BYTES_MAX])
    });
    match asked {
        Ok(()) => Check::good(WHAT, "answers over netlink"),
        Err(NetlinkError::Io { source, .. })
            if matches!(source.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) =>
        {
            Check::bad(
                WHAT,
                "the kernel's nf_conntrack_netlink is missing",
                "modprobe nf_conntrack_netlink (OpenWrt: install kmod-nf-conntrack-netlink)",
            )
        }
        Err(error) => Check::bad(WHAT, error.to_string(), "see there"),
    }
}

/// Connection tracking sleeps until some rule of this network namespace needs it. An entry
/// proves that it is awake; without one, a datagram to ourselves must make one.
fn hook(before: Option<u64>, after_a_packet: impl FnOnce() -> Option<u64>) -> Check {
    const WHAT: &str = "tracking active";
    let Some(before) = before else {
        return Check::bad(
            WHAT,
            "nf_conntrack is not loaded",
            "modprobe nf_conntrack (OpenWrt: install kmod-nf-conntrack)",
        );
    };
    if before > 0 {
        return Check::good(WHAT, format!("{before} connections tracked"));
    }
    match after_a_packet() {
        Some(after) if after > 0 => Check::good(WHAT, "a test packet was tracked"),
        _ => Check::bad(
            WHAT,
            "no rule of this network namespace uses conntrack: nothing is tracked",
            format!("agentmon-router setup --rules (adds the passive table {TABLE})"),
        ),
    }
}

/// One datagram from loopback to itself.
fn poke() {
    let sent = UdpSocket::bind("127.0.0.1:0").and_then(|socket| {
        let to = socket.local_addr()?;
        socket.send_to(b"agentmon", to)
    });
    // Loopback may be down: then nothing was tracked, which is what the caller will see.
    drop(sent);
}

/// The kernel's switches that decide what can be known.
fn switches(folder: &Path) -> Vec<Check> {
    let look =
        |what, name: &'static str, good: &str, bad: &str, good_values: &[u64]| match read_number(
            folder, name,
        ) {
            Some(value) if good_values.contains(&value) => Check::good(what, good),
            Some(value) => Check::bad(
                what,
                format!("net.netfilter.{name} is {value}: {bad}"),
                format!("agentmon-router setup, or: sysctl -w net.netfilter.{name}=1"),
            ),
            None => Check::good(what, format!("this kernel has no {name}; {bad}")),
        };
    vec![
        look("byte counts", "nf_conntrack_acct", "on", "flows have no volume", &[1]),
        look(
            "flow times",
            "nf_conntrack_timestamp",
            "on",
            "agentmon stamps flows itself, to some milliseconds",
            &[1],
        ),
        look(
            "flow events",
            "nf_conntrack_events",
            "on",
            "flows older than agentmon are only seen by dumps",
            &[1],
        ),
    ]
}

/// How full the connection table is.
fn room(folder: &Path) -> Check {
    const WHAT: &str = "room for connections";
    let number = |name| read_number(folder, name);
    let (Some(count), Some(max)) = (number("nf_conntrack_count"), number("nf_conntrack_max"))
    else {
        return Check::good(WHAT, "not known");
    };
    let detail = format!("{count} of {max}");
    if count.saturating_mul(10) < max.saturating_mul(9) {
        return Check::good(WHAT, detail);
    }
    let mend = format!("sysctl -w net.netfilter.nf_conntrack_max={}", max.saturating_mul(2));
    Check::bad(WHAT, format!("{detail}: soon new connections are refused"), mend)
}

/// Whether the NFLOG group can be had, or is in use (by a running agentmon, mostly).
fn group(what: &'static str, number: u16) -> Check {
    match Group::bind(number, 64, 1) {
        Ok(_) => Check::good(what, format!("group {number} is free")),
        Err(NetlinkError::Busy { .. }) => {
            Check::good(what, format!("group {number} is read by a program already"))
        }
        Err(error) => Check::bad(
            what,
            error.to_string(),
            "modprobe nfnetlink_log (OpenWrt: kmod-nfnetlink-log)",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(check: &Check, ok: bool, words: &str) {
        let text = check.to_string();
        assert!(check.ok == ok && text.contains(words) && !text.contains('\n'), "{check:?}");
        assert_eq!(check.mend.is_none(), ok, "what is wrong says what to do");
    }

    #[test]
    fn the_capability_is_one_bit() {
        let status = |bits: &str| Ok(format!("Name:\tx\nCapEff:\t{bits}\nSeccomp:\t0\n"));
        check(&capability(&status("0000000000001000")), true, "CAP_NET_ADMIN");
        check(&capability(&status("ffffffffffffefff")), false, "setcap");
        check(&capability(&status("what")), false, "/proc");
        check(&capability(&Err(std::io::Error::other("gone"))), false, "/proc");
    }

    #[test]
    fn an_entry_or_a_test_packet_proves_the_hook() {
        check(&hook(Some(12), || panic!("not needed")), true, "12 connections");
        check(&hook(Some(0), || Some(2)), true, "test packet");
        check(&hook(Some(0), || Some(0)), false, "no rule");
        check(&hook(None, || None), false, "modprobe");
    }

    #[test]
    fn switches_are_read_and_absent_ones_are_no_fault() {
        let folder = tempfile::tempdir().unwrap();
        let set = |name: &str, value: &str| std::fs::write(folder.path().join(name), value);
        set("nf_conntrack_acct", "0\n").unwrap();
        set("nf_conntrack_events", "2\n").unwrap();
        let [acct, times, events] = &switches(folder.path())[..] else { panic!("three") };
        check(acct, false, "nf_conntrack_acct=1");
        check(times, true, "stamps flows itself");
        check(events, false, "nf_conntrack_events is 2");
        set("nf_conntrack_acct", "1\n").unwrap();
        check(&switches(folder.path())[0], true, "on");
    }

    #[test]
    fn a_full_table_is_told_before_it_is_full() {
        let folder = tempfile::tempdir().unwrap();
        let set = |name: &str, value: &str| std::fs::write(folder.path().join(name), value);
        set("nf_conntrack_max", "1000").unwrap();
        set("nf_conntrack_count", "899").unwrap();
        check(&room(folder.path()), true, "899 of 1000");
        set("nf_conntrack_count", "900").unwrap();
        check(&room(folder.path()), false, "nf_conntrack_max=2000");
    }
}
