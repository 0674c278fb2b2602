//! How long the kernel keeps a silent flow, by protocol and state.
//!
//! Needed because a conntrack entry ends when it *expires*, not with its last packet: last
//! packet = expiry - timeout of the last state. In: the files of
//! `/proc/sys/net/netfilter` (per network namespace; kernel documentation
//! `networking/nf_conntrack-sysctl`). Out: seconds. Read at the start and with every dump:
//! about 20 small files, 0.2 ms.

use std::path::Path;
use std::time::Duration;

use agentmon_core::event::TcpState;

/// Where the kernel keeps them.
pub const SYSCTL_FOLDER: &str = "/proc/sys/net/netfilter";

/// Seconds by protocol and state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// By number of the state (`enum tcp_conntrack`).
    tcp: [u32; 10],
    udp: u32,
    udp_stream: u32,
    icmp: u32,
    icmpv6: u32,
    gre: u32,
    gre_stream: u32,
    generic: u32,
}

impl Default for Timeouts {
    /// The kernel's own defaults (`net/netfilter/nf_conntrack_proto_*.c`).
    fn default() -> Self {
        Self {
            tcp: [600, 120, 60, 432_000, 120, 60, 30, 120, 10, 120],
            udp: 30,
            udp_stream: 120,
            icmp: 30,
            icmpv6: 30,
            gre: 30,
            gre_stream: 180,
            generic: 600,
        }
    }
}

impl Timeouts {
    /// Reads what is there; the kernel's default stands in for what is not.
    #[must_use]
    pub fn read(folder: &Path) -> Self {
        let mut timeouts = Self::default();
        let set = |name: &str, place: &mut u32| {
            if let Some(value) = read_number(folder, name) {
                *place = u32::try_from(value).unwrap_or(u32::MAX);
            }
        };
        let names = [
            (TcpState::SynSent, "syn_sent"),
            (TcpState::SynRecv, "syn_recv"),
            (TcpState::Established, "established"),
            (TcpState::FinWait, "fin_wait"),
            (TcpState::CloseWait, "close_wait"),
            (TcpState::LastAck, "last_ack"),
            (TcpState::TimeWait, "time_wait"),
            (TcpState::Close, "close"),
            // The kernel uses SYN_SENT's value for a simultaneous open too.
            (TcpState::SynSent2, "syn_sent"),
        ];
        for (state, name) in names {
            if let Some(place) = timeouts.tcp.get_mut(state as usize) {
                set(&format!("nf_conntrack_tcp_timeout_{name}"), place);
            }
        }
        set("nf_conntrack_udp_timeout", &mut timeouts.udp);
        set("nf_conntrack_udp_timeout_stream", &mut timeouts.udp_stream);
        set("nf_conntrack_icmp_timeout", &mut timeouts.icmp);
        set("nf_conntrack_icmpv6_timeout", &mut timeouts.icmpv6);
        set("nf_conntrack_gre_timeout", &mut timeouts.gre);
        set("nf_conntrack_gre_timeout_stream", &mut timeouts.gre_stream);
        set("nf_conntrack_generic_timeout", &mut timeouts.generic);
        timeouts
    }

    /// How long a flow of that protocol and state may be silent. `assured`: traffic in
    /// both directions for a while (`IPS_ASSURED`), which gives UDP its longer value.
    #[must_use]
    pub fn of(&self, proto: u8, tcp_state: Option<u8>, assured: bool) -> Duration {
        let seconds = match (proto, assured) {
            (6, _) => {
                let state = usize::from(tcp_state.unwrap_or(TcpState::Established as u8));
                self.tcp.get(state).copied().unwrap_or(self.generic)
            }
            (17 | 136, false) => self.udp,
            (17 | 136, true) => self.udp_stream,
            (1, _) => self.icmp,
            (58, _) => self.icmpv6,
            (47, false) => self.gre,
            (47, true) => self.gre_stream,
            _ => self.generic,
        };
        Duration::from_secs(u64::from(seconds))
    }
}

/// One number of a sysctl file; `None` where it does not exist or is no number.
#[must_use]
pub fn read_number(folder: &Path, name: &str) -> Option<u64> {
    std::fs::read_to_string(folder.join(name)).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_win_over_defaults_and_rubbish_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text);
        write("nf_conntrack_udp_timeout", "60\n").unwrap();
        write("nf_conntrack_tcp_timeout_established", "7440\n").unwrap();
        write("nf_conntrack_tcp_timeout_close", "what\n").unwrap();
        let timeouts = Timeouts::read(folder.path());
        let seconds = |proto, state, assured| timeouts.of(proto, state, assured).as_secs();
        assert_eq!(seconds(17, None, false), 60);
        assert_eq!(seconds(17, None, true), 120);
        assert_eq!(seconds(6, Some(3), true), 7_440);
        assert_eq!(seconds(6, Some(8), true), 10);
        assert_eq!(seconds(6, Some(200), true), 600);
        assert_eq!(seconds(1, None, false), 30);
        assert_eq!(seconds(132, None, false), 600);
    }
}
