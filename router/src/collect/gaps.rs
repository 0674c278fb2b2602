//! Losses -> at most one [`Gap`] every few seconds: a flood loses thousands of packets in
//! a thousand reads, and one line says it all.
//!
//! Pure: time is an argument. Invariant: every loss noted comes out in exactly one gap.

use std::time::Duration;

use agentmon_core::Event;
use agentmon_core::event::{Body, Gap};
use agentmon_core::time::{Mono, Timestamp};

/// Least time between two gaps of one collector.
const EVERY: Duration = Duration::from_secs(5);

/// Losses not yet told.
#[derive(Debug)]
pub(super) struct Gaps {
    collector: &'static str,
    reason: &'static str,
    from: Option<Timestamp>,
    lost: u64,
    told: Option<Mono>,
}

impl Gaps {
    pub(super) const fn new(collector: &'static str) -> Self {
        Self::of(collector, "enobufs")
    }

    /// Losses of another kind.
    pub(super) const fn of(collector: &'static str, reason: &'static str) -> Self {
        Self { collector, reason, from: None, lost: 0, told: None }
    }

    /// So many things were lost since `from`.
    pub(super) fn note(&mut self, lost: u64, from: Timestamp) {
        if lost > 0 {
            self.from.get_or_insert(from);
            self.lost = self.lost.saturating_add(lost);
        }
    }

    /// The gap, when there is one and the last one is old enough.
    pub(super) fn take(&mut self, wall: Timestamp, mono: Mono) -> Option<Event> {
        if self.told.is_some_and(|told| mono.since(told) < EVERY) {
            return None;
        }
        let from = self.from.take()?;
        self.told = Some(mono);
        let gap = Gap {
            collector: self.collector.into(),
            from,
            reason: self.reason.into(),
            lost: Some(std::mem::take(&mut self.lost)),
        };
        Some(Event { time: wall, body: Body::Gap(gap) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_gathered() {
        let mut gaps = Gaps::new("firewall");
        let mut at = |seconds: u64, lost| {
            let wall = Timestamp::from_secs(seconds as i64);
            gaps.note(lost, wall);
            let event = gaps.take(wall, Mono::from_nanos(seconds * 1_000_000_000))?;
            let Body::Gap(gap) = event.body else { panic!("a gap") };
            Some((gap.from.secs(), gap.lost.unwrap()))
        };
        assert_eq!(at(10, 0), None);
        assert_eq!(at(11, 3), Some((11, 3)));
        assert_eq!(at(12, 4), None);
        assert_eq!(at(13, 5), None);
        assert_eq!(at(16, 0), Some((12, 9)));
        assert_eq!(at(30, 0), None);
    }
}
