//! The last events, for `tail`: the ring itself is empty a second after it was filled when
//! the hub is near.
//!
//! Written by the pipeline thread after each commit, read by status connections. At most
//! [`EVENTS_MAX`] events and [`BYTES_MAX`] bytes; a reader that is slower sees how many it
//! missed.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// Most events kept.
pub const EVENTS_MAX: usize = 512;
/// Most bytes of encoded events kept.
pub const BYTES_MAX: usize = 256 * 1024;

/// Shared by the pipeline and status connections.
#[derive(Debug, Default)]
pub struct Recent {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    events: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Number of events ever shown here.
    total: u64,
}

/// What a reader gets.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Encoded events, oldest first.
    pub events: Vec<Vec<u8>>,
    /// Events that had gone before the reader came.
    pub missed: u64,
    /// Where to go on.
    pub cursor: u64,
}

impl Recent {
    /// Adds what was just committed.
    pub fn push(&self, events: &[Vec<u8>]) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.total += events.len() as u64;
        let skip = events.len().saturating_sub(EVENTS_MAX);
        if skip > 0 {
            inner.events.clear();
            inner.bytes = 0;
        }
        for event in events.iter().skip(skip) {
            inner.bytes += event.len();
            inner.events.push_back(event.clone());
            while inner.events.len() > EVENTS_MAX || inner.bytes > BYTES_MAX {
                let Some(oldest) = inner.events.pop_front() else { break };
                inner.bytes -= oldest.len();
            }
        }
    }

    /// The last `n` events.
    #[must_use]
    pub fn last(&self, n: usize) -> Seen {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let skip = inner.events.len().saturating_sub(n);
        let events = inner.events.iter().skip(skip).cloned().collect();
        Seen { events, missed: 0, cursor: inner.total }
    }

    /// The events after `cursor`.
    #[must_use]
    pub fn after(&self, cursor: u64) -> Seen {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = inner.total.saturating_sub(cursor);
        let there = inner.events.len() as u64;
        let skip = usize::try_from(there.saturating_sub(wanted)).unwrap_or(usize::MAX);
        let events = inner.events.iter().skip(skip).cloned().collect();
        Seen { events, missed: wanted.saturating_sub(there), cursor: inner.total }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(from: u64, to: u64) -> Vec<Vec<u8>> {
        (from..to).map(|i| i.to_le_bytes().to_vec()).collect()
    }

    #[test]
    fn a_reader_sees_each_event_once_or_how_many_it_missed() {
        let recent = Recent::default();
        recent.push(&events(0, 10));
        let seen = recent.last(3);
        assert_eq!((seen.events, seen.cursor), (events(7, 10), 10));
        recent.push(&events(10, 12));
        let seen = recent.after(10);
        assert_eq!(seen, Seen { events: events(10, 12), missed: 0, cursor: 12 });
        recent.push(&events(12, 2_000));
        let seen = recent.after(12);
        assert_eq!(seen.events, events(2_000 - EVENTS_MAX as u64, 2_000));
        assert_eq!(seen.missed, 2_000 - 12 - EVENTS_MAX as u64);
        recent.push(&[vec![0; BYTES_MAX + 1]]);
        assert_eq!(recent.after(2_000).missed, 1);
    }
}
