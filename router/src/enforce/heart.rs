//! What the queue's thread shows of itself to the one that watches over it.
//!
//! Three counters; no locks, so that looking can hold nobody up.

use std::sync::atomic::{AtomicU64, Ordering};

/// The state of the queue's thread.
#[derive(Debug, Default)]
pub(super) struct Heart {
    /// Packets taken up; odd while one is in hand.
    beats: AtomicU64,
    stopped: AtomicU64,
}

impl Heart {
    /// A packet is in hand.
    pub(super) fn begin(&self) {
        self.beats.fetch_add(1, Ordering::Relaxed);
    }
    /// Its verdict is given.
    pub(super) fn end(&self, stopped: bool) {
        self.stopped.fetch_add(u64::from(stopped), Ordering::Relaxed);
        self.beats.fetch_add(1, Ordering::Relaxed);
    }
    /// Number of the packet in hand, if there is one.
    pub(super) fn busy_with(&self) -> Option<u64> {
        Some(self.beats.load(Ordering::Relaxed)).filter(|beats| beats % 2 == 1)
    }
    /// The line for `status`, once there was a packet.
    pub(super) fn line(&self) -> Option<String> {
        let (beats, stopped) =
            (self.beats.load(Ordering::Relaxed), self.stopped.load(Ordering::Relaxed));
        (beats > 0).then(|| format!("ok: {} questions held, {stopped} dropped", beats.div_ceil(2)))
    }
}
