//! Memories of fixed size: what was seen, how many different ones, and a table that keeps
//! what matters most.
//!
//! In: hashes and steady time. Out: answers that may be slightly wrong, in a known direction
//! each. Pure; nothing here grows after it was made.
//!
//! - [`Seen`]: "was this there before?" (a Bloom filter in two generations). May say yes
//!   wrongly, about 1 time in 100 when full; never says no wrongly within its span.
//! - [`Distinct`]: "how many different ones?" (linear counting, Whang et al. 1990), exact to
//!   5 % up to 300.
//! - [`Table`]: state by key, four places to a key; the least worth in a full row makes
//!   room, counted.

use std::time::Duration;

use crate::time::Mono;

/// Bits of a filter for each entry: with four hashes 1.2 % are taken for seen.
const BITS_EACH: usize = 10;

/// What was seen within the last span or two.
#[derive(Debug)]
pub(super) struct Seen {
    now: Vec<u64>,
    before: Vec<u64>,
    entries: usize,
    entries_max: usize,
    since: Mono,
    span: Duration,
    saturated: u64,
}

impl Seen {
    /// For `entries_max` entries in each span; twice 1.25 bytes each, rounded up.
    pub(super) fn new(entries_max: usize, span: Duration) -> Self {
        let words = (entries_max * BITS_EACH / 64).next_power_of_two();
        Self {
            now: vec![0; words],
            before: vec![0; words],
            entries: 0,
            entries_max,
            since: Mono::default(),
            span,
            saturated: 0,
        }
    }

    /// True, and remembered, if it was not there.
    pub(super) fn first(&mut self, hash: u64, at: Mono) -> bool {
        let over = at.since(self.since) >= self.span;
        if over || self.entries >= self.entries_max {
            self.saturated += u64::from(!over);
            std::mem::swap(&mut self.now, &mut self.before);
            self.now.fill(0);
            (self.entries, self.since) = (0, at);
        }
        if Self::holds(&self.now, hash) {
            return false;
        }
        // Taken over into this generation, so that what is used stays.
        let old = Self::holds(&self.before, hash);
        self.entries += 1;
        for (word, bit) in Self::places(self.now.len(), hash) {
            if let Some(word) = self.now.get_mut(word) {
                *word |= bit;
            }
        }
        !old
    }

    /// Whether it was there; remembers nothing.
    pub(super) fn contains(&self, hash: u64) -> bool {
        Self::holds(&self.now, hash) || Self::holds(&self.before, hash)
    }

    /// Times a generation was full before its span was over: from then on the memory
    /// reaches less far back.
    pub(super) const fn saturated(&self) -> u64 {
        self.saturated
    }

    fn holds(words: &[u64], hash: u64) -> bool {
        let mut places = Self::places(words.len(), hash);
        places.all(|(word, bit)| words.get(word).is_some_and(|word| word & bit != 0))
    }

    /// Four places by two halves of the hash (Kirsch and Mitzenmacher 2006).
    fn places(words: usize, hash: u64) -> impl Iterator<Item = (usize, u64)> {
        let (mut place, step) = (hash, (hash >> 32) | 1);
        std::iter::repeat_with(move || {
            place = place.wrapping_add(step.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let word = usize::try_from(place >> 8).unwrap_or(0) & (words - 1);
            (word, 1 << (place & 63))
        })
        .take(4)
    }
}

/// Different ones among many, in 32 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Distinct([u64; 4]);

impl Distinct {
    const BITS: u32 = 256;

    pub(super) fn insert(&mut self, hash: u64) {
        let word = usize::try_from(hash >> 6 & 3).unwrap_or(0);
        if let Some(word) = self.0.get_mut(word) {
            *word |= 1 << (hash & 63);
        }
    }

    /// Those of both.
    pub(super) fn with(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] | other.0[i]))
    }

    /// An estimate; at most 1,420, when every bit is set.
    pub(super) fn count(&self) -> u32 {
        let set: u32 = self.0.iter().map(|word| word.count_ones()).sum();
        let bits = f64::from(Self::BITS);
        let zero = f64::from((Self::BITS - set).max(1));
        let count = (bits * (bits / zero).ln()).round();
        // Between 0 and 256 ln 256.
        count as u32
    }
}

/// What a [`Table`] keeps.
pub(super) trait Kept: Default {
    /// How much it would be missed; the least makes room.
    fn worth(&self, at: Mono) -> f32;
}

/// Places in a row.
const WAYS: usize = 4;

/// State by key, of a fixed number of rows with four places each.
#[derive(Debug)]
pub(super) struct Table<S> {
    /// Key 0 is an empty place.
    places: Vec<(u64, S)>,
    rows: usize,
    used: usize,
    evicted: u64,
}

impl<S: Kept> Table<S> {
    /// `rows` is a power of two.
    pub(super) fn new(rows: usize) -> Self {
        debug_assert!(rows.is_power_of_two());
        let places = std::iter::repeat_with(|| (0, S::default())).take(rows * WAYS).collect();
        Self { places, rows, used: 0, evicted: 0 }
    }

    fn row(&self, key: u64) -> std::ops::Range<usize> {
        let row = usize::try_from(key >> 16).unwrap_or(0) & (self.rows - 1);
        row * WAYS..row * WAYS + WAYS
    }

    /// The key's state, if it has one.
    pub(super) fn get_mut(&mut self, key: u64) -> Option<&mut S> {
        let (key, row) = (key.max(1), self.row(key.max(1)));
        let places = self.places.get_mut(row)?;
        places.iter_mut().find(|(k, _)| *k == key).map(|(_, state)| state)
    }

    /// The key's state, new if it has none; with whether it is new.
    pub(super) fn entry(&mut self, key: u64, at: Mono) -> (&mut S, bool) {
        let key = key.max(1);
        let row = self.row(key);
        let begin = row.start;
        let places = self.places.get(row).unwrap_or_default();
        let known = places.iter().position(|(k, _)| *k == key);
        let place = known.or_else(|| places.iter().position(|(k, _)| *k == 0));
        let place = place.unwrap_or_else(|| {
            let worths = places.iter().map(|(_, state)| state.worth(at)).enumerate();
            worths.min_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(place, _)| place)
        });
        let (old, state) = &mut self.places[begin + place];
        if known.is_none() {
            if *old == 0 {
                self.used += 1;
            } else {
                self.evicted += 1;
            }
            (*old, *state) = (key, S::default());
        }
        (state, known.is_none())
    }

    pub(super) fn len(&self) -> usize {
        self.used
    }
    /// States forgotten to make room.
    pub(super) const fn evicted(&self) -> u64 {
        self.evicted
    }
}

/// One number of two: for keys of several parts.
pub(super) fn mix(a: u64, b: u64) -> u64 {
    let mixed = (a ^ b.rotate_left(29)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93)
}

/// The hash of an address.
pub(super) fn of_ip(ip: std::net::IpAddr) -> u64 {
    match ip {
        std::net::IpAddr::V4(v4) => mix(u64::from(v4.to_bits()), 4),
        std::net::IpAddr::V6(v6) => {
            let bits = v6.to_bits();
            mix((bits >> 64) as u64, bits as u64)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xxhash_rust::xxh3::xxh3_64;

    fn hash(n: u64) -> u64 {
        xxh3_64(&n.to_le_bytes())
    }

    fn at(seconds: u64) -> Mono {
        Mono::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn seen_once_within_the_span() {
        let mut seen = Seen::new(10_000, Duration::from_secs(60));
        let new = (0..5_000).filter(|n| seen.first(hash(*n), at(1))).count();
        assert!(new > 4_950, "{new} of 5000");
        assert!((0..5_000).all(|n| seen.contains(hash(n)) && !seen.first(hash(n), at(61))));
        assert!((0..5_000).all(|n| !seen.first(hash(n), at(122))), "used, therefore kept");
        seen.first(hash(9_999), at(200));
        seen.first(hash(9_998), at(300));
        assert!(!seen.contains(hash(1)), "two spans later");
        assert_eq!(seen.saturated(), 0);
    }

    #[test]
    fn a_full_memory_reaches_less_far_and_says_so() {
        let mut seen = Seen::new(1_000, Duration::from_secs(60));
        let bytes = seen.now.len();
        let new = (0..100_000).filter(|n| seen.first(hash(*n), at(1))).count();
        assert!(new > 95_000, "{new}");
        assert!(seen.saturated() >= 90 && seen.now.len() == bytes);
    }

    #[test]
    fn counts_different_ones() {
        for n in [0u32, 1, 5, 15, 40, 100, 300] {
            let mut distinct = Distinct::default();
            (0..n).for_each(|i| distinct.insert(hash(u64::from(i))));
            (0..n).for_each(|i| distinct.insert(hash(u64::from(i))));
            let off = distinct.count().abs_diff(n);
            assert!(off <= n / 8 + 1, "{n}: {}", distinct.count());
        }
    }

    #[derive(Debug, Default)]
    struct Weight(f32);
    impl Kept for Weight {
        fn worth(&self, _: Mono) -> f32 {
            self.0
        }
    }

    #[test]
    fn the_heaviest_stay() {
        let mut table = Table::<Weight>::new(16);
        for n in 0..8 {
            table.entry(hash(n), at(0)).0.0 = 100.0;
        }
        for n in 1_000..5_000 {
            let (state, new) = table.entry(hash(n), at(0));
            assert!(new);
            state.0 += 1.0;
        }
        assert!((0..8).all(|n| table.get_mut(hash(n)).is_some_and(|w| w.0 == 100.0)));
        assert_eq!((table.len(), table.evicted()), (64, 4_008 - 64));
    }
}
