//! Whether a device connects to what it asks for, as devices do.
//!
//! A resolver, a mail filter or a crawler asks for many names it never connects to, and where
//! connections are not seen nobody does: only of a device that mostly does is it strange when
//! it never connects to the names below one domain. In: names new for a device, connections
//! to names it had resolved. Out: yes or no. Pure; 528 bytes; devices share 64 places by
//! hash, which makes the answer vaguer, in the cautious direction when one of them is a
//! resolver.

use std::time::Duration;

use crate::time::Mono;

const PLACES: usize = 64;
/// After this long half of it counts.
const FADES: Duration = Duration::from_secs(3_600);
/// Fewer connections are no habit.
const CONNECTIONS_LEAST: u32 = 20;

/// Counts of 64 groups of devices.
#[derive(Debug)]
pub(super) struct Habits {
    asked: [u32; PLACES],
    connected: [u32; PLACES],
    since: Mono,
}

impl Default for Habits {
    fn default() -> Self {
        Self { asked: [0; PLACES], connected: [0; PLACES], since: Mono::default() }
    }
}

impl Habits {
    /// The device asks for a name it has not asked for within the last hour.
    pub(super) fn asks(&mut self, device: u64, at: Mono) {
        self.fade(at);
        add(&mut self.asked, device);
    }

    /// The device connects to a name it had resolved.
    pub(super) fn connected(&mut self, device: u64, at: Mono) {
        self.fade(at);
        add(&mut self.connected, device);
    }

    /// Whether at least every second name was followed by a connection.
    pub(super) fn connects(&mut self, device: u64, at: Mono) -> bool {
        self.fade(at);
        let of = |counts: &[u32; PLACES]| counts.get(place(device)).copied().unwrap_or(0);
        let connected = of(&self.connected);
        connected >= CONNECTIONS_LEAST && connected.saturating_mul(2) >= of(&self.asked)
    }

    fn fade(&mut self, at: Mono) {
        if at.since(self.since) >= FADES {
            self.since = at;
            self.asked.iter_mut().chain(&mut self.connected).for_each(|count| *count /= 2);
        }
    }
}

fn place(device: u64) -> usize {
    usize::try_from(device % PLACES as u64).unwrap_or(0)
}

fn add(counts: &mut [u32; PLACES], device: u64) {
    if let Some(count) = counts.get_mut(place(device)) {
        *count = count.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Mono {
        Mono::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn every_second_name_and_often_enough() {
        let mut habits = Habits::default();
        (0..40).for_each(|n| habits.asks(7, at(n)));
        (0..19).for_each(|n| habits.connected(7, at(n)));
        assert!(!habits.connects(7, at(40)), "too few to know");
        habits.connected(7, at(40));
        assert!(habits.connects(7, at(40)));
        assert!(!habits.connects(8, at(40)), "another device");
        habits.asks(7, at(41));
        assert!(!habits.connects(7, at(41)), "more questions than connections explain");
        (0..60).for_each(|_| habits.connected(7, at(50)));
        assert!(habits.connects(7, at(3_700)), "half of it after an hour");
        assert!(habits.connects(7, at(7_400)), "a quarter: 20");
        assert!(!habits.connects(7, at(11_100)), "too long ago");
    }
}
