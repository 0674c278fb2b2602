//! Many names in little memory: sorted 64-bit fingerprints with a bucket index.
//!
//! Every listed name is one `u64`: the upper 16 bits of its xxh3 hash choose one of 65,536
//! buckets and are not stored; the other 48 stand above a 16-bit tag that names the list.
//! So 64 bits are compared (two names collide with probability 2^-64 per pair: about one
//! false hit in 10^13 look-ups against a million names), a look-up is two cache misses per
//! label, and a million names take 8.3 MB.
//!
//! In: a name. Out: which list has it. Immutable; made by `builder`.
//! Budget: 8 bytes per name plus 262 KB; 0.1 us per label.
//!
//! Invariants: a look-up allocates nothing; a list's own exemptions hold for that list
//! alone, so that no list can silence another.

use std::fmt;

use xxhash_rust::xxh3::xxh3_64;

use crate::name::Name;

/// Most lists.
pub const LISTS_MAX: usize = 255;
/// Buckets: one for each value of the hash's upper 16 bits.
pub(super) const BUCKETS: usize = 1 << 16;
/// Tag of the configuration's own exemptions, which hold for all lists. The tag of list `n`,
/// counted from 1, is `n << 1` for its names and `n << 1 | 1` for its exemptions.
pub(super) const ALLOW_ALL: u16 = 0;

/// Names on lists. The default is empty and costs nothing.
#[derive(Clone, Default)]
pub struct Blocklist {
    /// By list number - 1.
    lists: Vec<List>,
    /// Where bucket `i` begins in `words`; one more entry for the end. Empty with `words`.
    index: Vec<u32>,
    /// `lower 48 bits of the hash << 16 | tag`, ascending within each bucket.
    words: Vec<u64>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct List {
    pub(super) name: String,
    pub(super) score: f64,
    /// Distinct names.
    pub(super) entries: usize,
}

/// A name was found on a list.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit<'a> {
    /// The list's name.
    pub list: &'a str,
    /// The part of the name that is listed: the name itself or one of its parents.
    pub entry: &'a str,
    /// The list's score.
    pub score: f64,
}

impl Blocklist {
    /// From parts that hold what the fields promise.
    pub(super) const fn from_parts(lists: Vec<List>, index: Vec<u32>, words: Vec<u64>) -> Self {
        Self { lists, index, words }
    }

    /// The graver of the lists that have this name or one of its parents, unless an
    /// exemption covers it; of equal ones the longest entry.
    #[must_use]
    pub fn lookup<'a>(&'a self, name: &'a Name) -> Option<Hit<'a>> {
        if self.words.is_empty() {
            return None;
        }
        // Nearly all names are on no list: one pass tells. No list holds a single label.
        let mut suffixes = name.suffixes().filter(|suffix| suffix.contains('.'));
        suffixes.find(|suffix| self.tags(suffix).next().is_some())?;
        self.best(name)
    }

    fn best<'a>(&'a self, name: &'a Name) -> Option<Hit<'a>> {
        let mut exempt = [false; LISTS_MAX + 1];
        for tag in name.suffixes().flat_map(|suffix| self.tags(suffix)) {
            if tag == ALLOW_ALL {
                return None;
            }
            if let Some(list) = exempt.get_mut(usize::from(tag >> 1)) {
                *list |= tag & 1 == 1;
            }
        }
        let mut best: Option<Hit<'a>> = None;
        for entry in name.suffixes() {
            for number in self.tags(entry).map(|tag| usize::from(tag >> 1)) {
                let Some(list) = number.checked_sub(1).and_then(|i| self.lists.get(i)) else {
                    continue;
                };
                let exempt = exempt.get(number).copied().unwrap_or(false);
                if !exempt && best.is_none_or(|hit| hit.score < list.score) {
                    best = Some(Hit { list: &list.name, entry, score: list.score });
                }
            }
        }
        best
    }

    /// Tags under which exactly this text is held.
    fn tags(&self, text: &str) -> impl Iterator<Item = u16> {
        let hash = hash_of(text);
        let wanted = low48(hash);
        let bucket = self.bucket(hash);
        let from = bucket.partition_point(|word| word >> 16 < wanted);
        let rest = bucket.get(from..).unwrap_or_default().iter();
        rest.take_while(move |word| **word >> 16 == wanted).map(|word| (word & 0xffff) as u16)
    }

    fn bucket(&self, hash: u64) -> &[u64] {
        let number = bucket_of(hash);
        let place = |i: usize| self.index.get(i).map_or(0, |n| *n as usize);
        self.words.get(place(number)..place(number + 1)).unwrap_or_default()
    }

    /// Names held, exemptions included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.words.len()
    }
    /// No name held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }
    /// Bytes of heap memory.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let lists = self.lists.iter().map(|l| size_of::<List>() + l.name.capacity());
        self.words.capacity() * 8 + self.index.capacity() * 4 + lists.sum::<usize>()
    }
    /// Each list's name, score and number of distinct names.
    pub fn lists(&self) -> impl Iterator<Item = (&str, f64, usize)> {
        self.lists.iter().map(|list| (list.name.as_str(), list.score, list.entries))
    }
}

impl fmt::Debug for Blocklist {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blocklist({} names of {:?})", self.len(), self.lists)
    }
}

/// The hash names are known by.
pub(super) fn hash_of(text: &str) -> u64 {
    xxh3_64(text.as_bytes())
}

/// The part of the hash that chooses the bucket.
pub(super) const fn bucket_of(hash: u64) -> usize {
    (hash >> 48) as usize
}

/// The part of the hash that is stored: the bucket says the rest.
pub(super) const fn low48(hash: u64) -> u64 {
    hash & 0xffff_ffff_ffff
}
