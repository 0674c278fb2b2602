//! Who may still be looked at when there is more than can be read.
//!
//! In: how many packets the kernel had to throw away, and for each packet its client. Out:
//! whether to decode it. Pure, time is an argument. Budget: one hash look-up per packet
//! while pressed, nothing otherwise; at most [`CLIENTS_MAX`] clients.
//!
//! The kernel throws away whichever packet comes while the socket's buffer is full, so one
//! device that asks ten thousand times a second makes others invisible. Leaving most of its
//! packets undecoded costs a fiftieth of reading them: the buffer drains, and the others are
//! seen again.
//!
//! Invariants: nothing is left out while nothing is lost; what is left out is counted.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use agentmon_core::time::Mono;

/// Packets of one client looked at in a second while packets are being lost: 100 exchanges,
/// ten times what a browser's busiest second takes.
const PACKETS_MAX: u32 = 200;
/// So long after a loss shares stay in force.
const PRESSED: Duration = Duration::from_secs(10);
const WINDOW: Duration = Duration::from_secs(1);
/// Most clients counted; any more share one share (their addresses are forged).
const CLIENTS_MAX: usize = 1_024;

/// The account of the current second.
#[derive(Debug, Default)]
pub(super) struct Shares {
    pressed_until: Option<Mono>,
    window_end: Mono,
    packets: HashMap<IpAddr, u32>,
    strangers: u32,
    /// Packets left undecoded.
    pub(super) left_out: u64,
}

impl Shares {
    /// The kernel could not deliver so many packets.
    pub(super) fn lost(&mut self, packets: u64, now: Mono) {
        if packets > 0 {
            self.pressed_until = Some(now.plus(PRESSED));
        }
    }

    /// Whether a packet of that client is looked at.
    pub(super) fn admit(&mut self, client: IpAddr, now: Mono) -> bool {
        match self.pressed_until {
            None => return true,
            Some(until) if now >= until => {
                *self = Self { left_out: self.left_out, ..Self::default() };
                return true;
            }
            Some(_) => {}
        }
        if now >= self.window_end {
            self.window_end = now.plus(WINDOW);
            self.packets.clear();
            self.strangers = 0;
        }
        let known = self.packets.contains_key(&client) || self.packets.len() < CLIENTS_MAX;
        let count =
            if known { self.packets.entry(client).or_default() } else { &mut self.strangers };
        *count = count.saturating_add(1);
        let admitted = *count <= PACKETS_MAX;
        self.left_out += u64::from(!admitted);
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(n: u32) -> IpAddr {
        std::net::Ipv4Addr::from(0xc000_0200 + n).into()
    }
    fn at(ms: u64) -> Mono {
        Mono::from_nanos(5_000_000_000 + ms * 1_000_000)
    }
    /// How many of `n` packets of that client at that time are admitted.
    fn admitted(shares: &mut Shares, client: u32, ms: u64, n: u32) -> u32 {
        (0..n).map(|_| u32::from(shares.admit(ip(client), at(ms)))).sum()
    }

    #[test]
    fn nothing_is_left_out_while_nothing_is_lost() {
        let mut shares = Shares::default();
        assert_eq!(admitted(&mut shares, 1, 0, 100_000), 100_000);
        shares.lost(0, at(0));
        assert_eq!((admitted(&mut shares, 1, 1, 100_000), shares.left_out), (100_000, 0));
    }

    #[test]
    fn under_pressure_everybody_has_the_same_share() {
        let mut shares = Shares::default();
        shares.lost(7, at(0));
        assert_eq!(admitted(&mut shares, 1, 1, 10_000), PACKETS_MAX);
        assert_eq!(admitted(&mut shares, 2, 2, 150), 150);
        assert_eq!(shares.left_out, u64::from(10_000 - PACKETS_MAX));
        // The next second, a new share.
        assert_eq!(admitted(&mut shares, 1, 1_001, 10_000), PACKETS_MAX);
        // Over, ten seconds after the last loss.
        shares.lost(1, at(5_000));
        assert_eq!(admitted(&mut shares, 1, 14_999, 10_000), PACKETS_MAX);
        assert_eq!(admitted(&mut shares, 1, 15_000, 10_000), 10_000);
    }

    #[test]
    fn forged_addresses_share_one_share_and_no_memory() {
        let mut shares = Shares::default();
        shares.lost(1, at(0));
        let all: u32 = (0..50_000).map(|n| admitted(&mut shares, n, 1, 1)).sum();
        assert_eq!(all, u32::try_from(CLIENTS_MAX).unwrap() + PACKETS_MAX);
        assert_eq!(shares.packets.len(), CLIENTS_MAX);
    }
}
