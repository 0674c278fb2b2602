//! "Have I said this already?": a bounded memory of keys with a window.
//!
//! Each detector keeps one or two of these so that a thing seen a thousand times an hour
//! is one finding an hour. Bounded by a number of keys; when full, the oldest key goes and
//! is counted (the worst that follows is a repeated finding, never a lost one).

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use crate::time::Mono;

/// Keys seen within the window. Not refreshed by repeats: a lasting thing is said again
/// once per window.
#[derive(Debug)]
pub(super) struct Recent<K> {
    seen: HashMap<K, Mono>,
    /// The same keys, oldest first.
    order: VecDeque<K>,
    max: usize,
    window: Duration,
    evicted: u64,
}

impl<K: Copy + Eq + Hash> Recent<K> {
    pub(super) fn new(max: usize, window: Duration) -> Self {
        Self { seen: HashMap::new(), order: VecDeque::new(), max, window, evicted: 0 }
    }

    /// For what is said again after so many seconds, as detectors are configured.
    pub(super) fn each(max: usize, repeat_seconds: u64) -> Self {
        Self::new(max, Duration::from_secs(repeat_seconds))
    }

    /// Another such setting; it holds from the next key on.
    pub(super) const fn every(&mut self, repeat_seconds: u64) {
        self.window = Duration::from_secs(repeat_seconds);
    }

    /// True, and remembered, if the key was not seen within the window.
    pub(super) fn first(&mut self, key: K, now: Mono) -> bool {
        if self.contains(&key, now) {
            return false;
        }
        while let Some(oldest) = self.order.front() {
            let old = self.seen.get(oldest).is_none_or(|at| now.since(*at) >= self.window);
            if !old && self.order.len() < self.max {
                break;
            }
            self.evicted += u64::from(!old);
            self.seen.remove(oldest);
            self.order.pop_front();
        }
        self.seen.insert(key, now);
        self.order.push_back(key);
        true
    }

    /// True if the key was seen within the window, which then begins anew for it.
    pub(super) fn refresh(&mut self, key: &K, now: Mono) -> bool {
        let window = self.window;
        match self.seen.get_mut(key) {
            Some(at) if now.since(*at) < window => {
                *at = now;
                true
            }
            _ => false,
        }
    }

    /// Whether the key was seen within the window.
    pub(super) fn contains(&self, key: &K, now: Mono) -> bool {
        self.seen.get(key).is_some_and(|at| now.since(*at) < self.window)
    }

    /// Keys held.
    pub(super) fn len(&self) -> usize {
        self.seen.len()
    }
    /// Keys forgotten within their window because the memory was full.
    pub(super) const fn evicted(&self) -> u64 {
        self.evicted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Mono {
        Mono::from_nanos(s * 1_000_000_000)
    }

    #[test]
    fn once_per_window() {
        let mut recent = Recent::new(10, Duration::from_secs(60));
        let said: Vec<bool> =
            [0, 30, 59, 60, 61, 119, 120].map(|s| recent.first('a', at(s))).into();
        assert_eq!(said, [true, false, false, true, false, false, true]);
        assert_eq!((recent.len(), recent.evicted()), (1, 0));
    }

    #[test]
    fn kept_as_long_as_it_is_refreshed() {
        let mut recent = Recent::new(10, Duration::from_secs(60));
        assert!(!recent.refresh(&'a', at(0)));
        assert!(recent.first('a', at(0)));
        assert!(recent.refresh(&'a', at(59)) && recent.refresh(&'a', at(118)));
        assert!(!recent.refresh(&'a', at(178)));
    }

    #[test]
    fn bounded_and_counted() {
        let mut recent = Recent::new(10, Duration::from_secs(60));
        for key in 0..100 {
            assert!(recent.first(key, at(0)));
        }
        assert_eq!((recent.len(), recent.order.len(), recent.evicted()), (10, 10, 90));
        assert!(!recent.first(99, at(1)));
        // What expired makes room without being counted.
        assert!(recent.first(100, at(61)));
        assert_eq!((recent.len(), recent.evicted()), (1, 90));
    }
}
