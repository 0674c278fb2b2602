//! What the queue's thread shows of itself to the one that watches over it.
//!
//! A few counters; no locks, so that looking can hold nobody up.

use std::sync::atomic::{AtomicU64, Ordering};

/// How a packet fared, for the line in `status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fared {
    /// It went on.
    On,
    /// It went on, and was listed: by an exception, or in a dry run.
    Spared,
    /// It was stopped.
    Stopped,
}

/// The state of the queue's thread.
#[derive(Debug, Default)]
pub(super) struct Heart {
    /// Packets taken up and given back; odd while one is in hand.
    beats: AtomicU64,
    spared: AtomicU64,
    stopped: AtomicU64,
}

impl Heart {
    /// A packet is in hand.
    pub(super) fn begin(&self) {
        self.beats.fetch_add(1, Ordering::Relaxed);
    }
    /// Its verdict is given.
    pub(super) fn end(&self, fared: Fared) {
        match fared {
            Fared::On => {}
            Fared::Spared => drop(self.spared.fetch_add(1, Ordering::Relaxed)),
            Fared::Stopped => drop(self.stopped.fetch_add(1, Ordering::Relaxed)),
        }
        self.beats.fetch_add(1, Ordering::Relaxed);
    }
    /// Number of the packet in hand, if there is one.
    pub(super) fn busy_with(&self) -> Option<u64> {
        Some(self.beats.load(Ordering::Relaxed)).filter(|beats| beats % 2 == 1)
    }
    /// The line for `status`, once there was a packet.
    pub(super) fn line(&self) -> Option<String> {
        let get = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let (beats, spared, stopped) = (get(&self.beats), get(&self.spared), get(&self.stopped));
        (beats > 0).then(|| {
            let held = beats.div_ceil(2);
            format!("{held} packets held, {stopped} stopped, {spared} listed and let through")
        })
    }
}
