//! Many names in little memory: sorted 64-bit fingerprints with a bucket index.
//!
//! Every listed name is one `u64`: the upper 16 bits of its xxh3 hash choose one of 65,536
//! buckets and are not stored; the other 48 stand above a 16-bit tag that names the list.
//! So 64 bits are compared (two names collide with probability 2^-64 per pair: about one
//! false hit in 10^13 look-ups against a million names), a look-up is two cache misses per
//! label, and a million names take 8.3 MB.
//!
//! In: a name. Out: which list has it. Immutable; the bytes (see `format`) lie in memory or
//! in a mapped file, whoever made it. Budget: 8 bytes per name plus 262 KB; 0.1 us per label.
//!
//! Invariants: a look-up allocates nothing, and whatever the bytes are it ends and does not
//! panic; a list's own exemptions hold for that list alone, so that no list can silence
//! another.

use std::fmt;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use super::format::{FOOTER_BYTES, Footer, FormatError, INDEX_BYTES, read_lists};
use crate::name::Name;

/// Most lists.
pub const LISTS_MAX: usize = 255;
/// Buckets: one for each value of the hash's upper 16 bits.
pub(super) const BUCKETS: usize = 1 << 16;
/// Tag of the configuration's own exemptions, which hold for all lists. The tag of list `n`,
/// counted from 1, is `n << 1` for its names and `n << 1 | 1` for its exemptions.
pub(super) const ALLOW_ALL: u16 = 0;

/// Bytes that are held by somebody: a vector, a mapped file.
pub type Bytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// Names on lists. The default is empty and costs nothing.
#[derive(Clone, Default)]
pub struct Blocklist {
    /// By list number - 1.
    lists: Vec<List>,
    /// The compiled form; `None` where there are no names.
    bytes: Option<Bytes>,
    /// Names in it.
    words: usize,
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
    /// Takes the compiled form as it lies. Sizes are checked, the checksum is not: whoever
    /// has the bytes from a file does that first (see [`super::Check`]).
    ///
    /// # Errors
    /// [`FormatError`]: not the compiled form, or its parts do not fit together.
    pub fn open(bytes: Bytes) -> Result<Self, FormatError> {
        let all = (*bytes).as_ref();
        let footer = Footer::parse(all)?;
        if footer.total_bytes() != Some(all.len()) {
            return Err(FormatError::NotLists);
        }
        let words = footer.words;
        let rest = all.get(words * 8..all.len() - FOOTER_BYTES).unwrap_or_default();
        let (index, lists) = rest.split_at_checked(INDEX_BYTES).ok_or(FormatError::NotLists)?;
        let lists = read_lists(lists, footer.lists)?;
        let places = index.as_chunks::<4>().0.iter().map(|place| u32::from_le_bytes(*place));
        let ends = (places.clone().next(), places.clone().next_back());
        if !places.is_sorted() || ends != (Some(0), u32::try_from(words).ok()) {
            return Err(FormatError::Damaged("the index"));
        }
        Ok(Self { lists, bytes: Some(bytes).filter(|_| words > 0), words })
    }

    /// Lists without a name on them.
    pub(super) const fn of_no_names(lists: Vec<List>) -> Self {
        Self { lists, bytes: None, words: 0 }
    }

    /// The graver of the lists that have this name or one of its parents, unless an
    /// exemption covers it; of equal ones the longest entry.
    #[must_use]
    pub fn lookup<'a>(&'a self, name: &'a Name) -> Option<Hit<'a>> {
        let bytes = (**self.bytes.as_ref()?).as_ref();
        let words = Words { bytes, number: self.words };
        // Nearly all names are on no list: one pass tells. No list holds a single label.
        let mut suffixes = name.suffixes().filter(|suffix| suffix.contains('.'));
        suffixes.find(|suffix| words.tags(suffix).next().is_some())?;
        self.best(words, name)
    }

    fn best<'a>(&'a self, words: Words<'_>, name: &'a Name) -> Option<Hit<'a>> {
        let mut exempt = [false; LISTS_MAX + 1];
        for tag in name.suffixes().flat_map(|suffix| words.tags(suffix)) {
            if tag == ALLOW_ALL {
                return None;
            }
            if let Some(list) = exempt.get_mut(usize::from(tag >> 1)) {
                *list |= tag & 1 == 1;
            }
        }
        let mut best: Option<Hit<'a>> = None;
        for entry in name.suffixes() {
            for number in words.tags(entry).map(|tag| usize::from(tag >> 1)) {
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

    /// Names held, exemptions included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.words
    }
    /// No name held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words == 0
    }
    /// Bytes of the compiled form, in memory or mapped.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.bytes.as_ref().map_or(0, |bytes| (**bytes).as_ref().len())
    }
    /// Each list's name, score and number of distinct names.
    pub fn lists(&self) -> impl Iterator<Item = (&str, f64, usize)> {
        self.lists.iter().map(|list| (list.name.as_str(), list.score, list.entries))
    }
}

/// The words and the index behind them.
#[derive(Clone, Copy)]
struct Words<'a> {
    bytes: &'a [u8],
    number: usize,
}

impl<'a> Words<'a> {
    /// Tags under which exactly this text is held.
    fn tags(self, text: &str) -> impl Iterator<Item = u16> + use<'a> {
        let hash = hash_of(text);
        let wanted = low48(hash);
        let bucket = self.bucket(hash);
        let from = first_at_least(bucket, wanted);
        let rest = bucket.get(from..).unwrap_or_default().iter();
        let rest = rest.map(|word| u64::from_le_bytes(*word));
        rest.take_while(move |word| word >> 16 == wanted).map(|word| (word & 0xffff) as u16)
    }

    fn bucket(self, hash: u64) -> &'a [[u8; 8]] {
        let place = |i: usize| {
            let at = self.number * 8 + i * 4;
            let place = self.bytes.get(at..).and_then(|rest| rest.first_chunk::<4>());
            place.map_or(0, |place| u32::from_le_bytes(*place) as usize * 8)
        };
        let number = bucket_of(hash);
        let bucket = self.bytes.get(place(number)..place(number + 1));
        bucket.unwrap_or_default().as_chunks::<8>().0
    }
}

/// How far from where it is expected a hash is looked for first: two or three cache lines.
const WINDOW_WORDS: usize = 8;

/// Where the first word of that hash or a higher one stands. Hashes are spread evenly, so
/// it is nearly always near its share of the bucket; if it is not, all of it is searched.
fn first_at_least(bucket: &[[u8; 8]], wanted: u64) -> usize {
    let below = |word: &[u8; 8]| u64::from_le_bytes(*word) >> 16 < wanted;
    let expected = ((u128::from(wanted) * bucket.len() as u128) >> 48) as usize;
    let (from, to) = (expected.saturating_sub(WINDOW_WORDS), expected + WINDOW_WORDS);
    let to = to.min(bucket.len());
    let found = from + bucket.get(from..to).unwrap_or_default().partition_point(below);
    let right_of_lower = found > from || bucket.get(..from).and_then(<[_]>::last).is_none_or(below);
    let left_of_higher = found < to || bucket.get(to).is_none_or(|word| !below(word));
    if right_of_lower && left_of_higher { found } else { bucket.partition_point(below) }
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

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        /// Evenly spread or all in a heap: the same place as a plain search finds.
        #[test]
        fn the_expected_place_is_only_a_guess(
            mut even in proptest::collection::vec(0u64..1 << 48, 0..100),
            heap in proptest::collection::vec(0u64..60, 0..100),
            wanted in 0u64..1 << 48,
        ) {
            even.extend(heap);
            even.sort_unstable();
            let bucket: Vec<[u8; 8]> = even.iter().map(|h| (h << 16 | 2).to_le_bytes()).collect();
            for wanted in even.iter().copied().chain([0, wanted, wanted % 60, (1 << 48) - 1]) {
                let plain = even.partition_point(|hash| *hash < wanted);
                proptest::prop_assert_eq!(first_at_least(&bucket, wanted), plain);
            }
        }
    }
}
