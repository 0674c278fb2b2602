//! Named counters: nothing is dropped silently.
//!
//! A counter's name is `part.what` or `drop.part.reason`: `conntrack.enobufs`,
//! `drop.tail.line_too_long`. Every name that begins with `drop.` stands for events that
//! were not kept. Counters only grow; `status` and every batch's health report show them.
//! Any thread; one relaxed atomic add each.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// All counters of one program. Cheap to clone; clones share the counters.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    map: Arc<Mutex<BTreeMap<String, Arc<AtomicU64>>>>,
}

/// One counter, kept by the code that counts.
#[derive(Clone, Debug)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }
    /// Adds 1.
    pub fn inc(&self) {
        self.add(1);
    }
    /// The value now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Counters {
    /// The counter of that name, made on first use. Not for hot paths: keep the result.
    #[must_use]
    pub fn counter(&self, name: &str) -> Counter {
        let mut map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        Counter(Arc::clone(map.entry(name.to_owned()).or_default()))
    }
    /// Every counter and its value, by name.
    #[must_use]
    pub fn snapshot(&self) -> BTreeMap<String, u64> {
        let map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        map.iter().map(|(k, v)| (k.clone(), v.load(Ordering::Relaxed))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_and_names_are_kept() {
        let counters = Counters::default();
        let a = counters.counter("drop.test.full");
        counters.clone().counter("drop.test.full").add(2);
        a.inc();
        assert_eq!(counters.snapshot(), BTreeMap::from([("drop.test.full".to_owned(), 3)]));
    }
}
