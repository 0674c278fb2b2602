//! Many names and addresses in little memory: sorted 64-bit fingerprints with a bucket index.
//!
//! Every listed name or network is one `u64`: the upper 16 bits of its xxh3 hash choose one
//! of 65,536 buckets and are not stored; the other 48 stand above a 16-bit tag that names the
//! list. So 64 bits are compared (two entries collide with probability 2^-64 per pair: about
//! one false hit in 10^13 look-ups against a million names), a look-up is two cache misses
//! per label, and a million names take 8.3 MB.
//!
//! In: a name or an address. Out: which list has it. Immutable; the bytes (see `format`) lie
//! in memory or in a mapped file, whoever made it. Several forms may stand side by side: the
//! router's own lists, the hub's, the settings'. Budget: 8 bytes per entry plus 262 KB; 0.1 us
//! per label and form.
//!
//! Invariants: a look-up allocates nothing, and whatever the bytes are it ends and does not
//! panic; a list's own exemptions hold for that list alone, so that no list can silence
//! another; only the configuration's, and lists that say of themselves that they allow,
//! exempt from all.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::address::{Indicator, Spans};
use super::extras::Read as Extras;
use super::format::{
    FOOTER_BYTES, Footer, FormatError, INDEX_BYTES, Reader, Tag, put_text, read_lists,
};
use super::patterns;
use crate::name::Name;

/// Most lists.
pub const LISTS_MAX: usize = 255;
/// Most forms side by side.
pub const FORMS_MAX: usize = 4;
/// Buckets: one for each value of the hash's upper 16 bits.
pub(super) const BUCKETS: usize = 1 << 16;
/// What a host counts of its list's score that is listed for one of its pages: neither DNS
/// nor a connection tells which page was asked for, and the others may be innocent.
const PAGE_COUNTS: f64 = 0.5;
/// What the list of patterns is called, and the configuration's own exemptions.
pub(super) const PATTERNS: &str = "patterns";
const SETTINGS: &str = "settings";

/// Bytes that are held by somebody: a vector, a mapped file.
pub type Bytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// What a list is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ListKind {
    /// What stands on it is told.
    #[default]
    Bad,
    /// What stands on it is never told because of a list, with all below it.
    Allow,
    /// What stands on it is told once of each device, as worth knowing.
    Watch,
}

impl ListKind {
    const ALL: [Self; 3] = [Self::Bad, Self::Allow, Self::Watch];

    /// The word in configurations.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bad => "bad",
            Self::Allow => "allow",
            Self::Watch => "watch",
        }
    }
}

/// Where a list is from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct About {
    /// Its address or file.
    pub origin: String,
    /// When its content last changed, in Unix seconds; 0: not known.
    pub changed: i64,
    /// How many times a person accepted that it became much smaller.
    pub accepted: u32,
}

/// What compiled lists say of one of them.
#[derive(Clone, Debug, PartialEq)]
pub struct List {
    /// What findings call it.
    pub name: String,
    /// How grave a hit is, 0 to 1.
    pub score: f64,
    /// Distinct names and networks, exceptions included.
    pub entries: usize,
    /// What it is for.
    pub kind: ListKind,
    /// Whether it may be enforced.
    pub block: bool,
    /// Under which licence its content is.
    pub licence: String,
    /// Where it is from.
    pub about: About,
    /// Nobody wants it any more.
    pub(super) muted: bool,
}

impl List {
    pub(super) fn write(&self, entries: u64, out: &mut Vec<u8>) {
        let kind = ListKind::ALL.iter().position(|kind| *kind == self.kind).unwrap_or(0) as u8;
        out.extend_from_slice(&self.score.to_le_bytes());
        out.extend_from_slice(&entries.to_le_bytes());
        out.extend_from_slice(&self.about.changed.to_le_bytes());
        out.extend_from_slice(&self.about.accepted.to_le_bytes());
        out.push(kind | u8::from(self.block) << 2);
        [&self.name, &self.licence, &self.about.origin].iter().for_each(|text| put_text(text, out));
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let score = f64::from_bits(reader.u64()?);
        let entries = usize::try_from(reader.u64()?).ok()?;
        let changed = reader.u64()?.cast_signed();
        let (accepted, flags) = (reader.u32()?, reader.u8()?);
        let kind = *ListKind::ALL.get(usize::from(flags & 3))?;
        let name = reader.text().filter(|name| name.bytes().all(|b| b.is_ascii_graphic()))?;
        let (licence, origin) = (reader.text()?, reader.text()?);
        if !(0.0..=1.0).contains(&score) || flags > 7 {
            return None;
        }
        Some(Self {
            name: name.to_owned(),
            score,
            entries,
            kind,
            block: flags & 4 != 0,
            licence: licence.to_owned(),
            about: About { origin: origin.to_owned(), changed, accepted },
            muted: false,
        })
    }
}

/// Names and addresses on lists. The default is empty and costs nothing.
#[derive(Clone, Default)]
pub struct Blocklist {
    forms: Vec<Form>,
}

/// One compiled form.
#[derive(Clone)]
struct Form {
    /// By list number - 1.
    lists: Vec<List>,
    bytes: Bytes,
    /// Entries in it.
    words: usize,
    extras: Extras,
    /// Where the extras begin.
    extras_at: usize,
    /// There is a list of watched names.
    watches: bool,
}

/// Something was found on a list.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit<'a, E = &'a str> {
    /// The list's name.
    pub list: &'a str,
    /// What of it is listed: the name itself or one of its parents; the network.
    pub entry: E,
    /// The list's score; half of it where a page of the host is listed.
    pub score: f64,
    /// Whether the list may be enforced, and the entry is no page's.
    pub block: bool,
    /// The page for which the host is listed, where that is known.
    pub page: Option<&'a str>,
    /// The entry is the address of a page, of which only the host can be seen.
    pub is_page: bool,
    /// The pattern that found it.
    pub pattern: Option<&'a str>,
}

/// Everything that lists say of one name or address.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judged<'a, E = &'a str> {
    /// The gravest list that has it; of equal ones the longest entry.
    pub bad: Option<Hit<'a, E>>,
    /// The gravest that may be enforced.
    pub block: Option<Hit<'a, E>>,
    /// A list of watched names that has it.
    pub watched: Option<Hit<'a, E>>,
    /// The list that exempts it from all, and what it says: nothing else holds then but
    /// `watched`.
    pub allowed: Option<(&'a str, E)>,
    /// What would be told of it were it not exempt.
    pub pardoned: Option<Hit<'a, E>>,
}

impl<E> Default for Judged<'_, E> {
    fn default() -> Self {
        Self { bad: None, block: None, watched: None, allowed: None, pardoned: None }
    }
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
        let extras_at = all.len() - FOOTER_BYTES - footer.extras_bytes;
        let rest = all.get(words * 8..extras_at).unwrap_or_default();
        let (index, lists) = rest.split_at_checked(INDEX_BYTES).ok_or(FormatError::NotLists)?;
        let lists = read_lists(lists, footer.lists)?;
        let places = index.as_chunks::<4>().0.iter().map(|place| u32::from_le_bytes(*place));
        let ends = (places.clone().next(), places.clone().next_back());
        if !places.is_sorted() || ends != (Some(0), u32::try_from(words).ok()) {
            return Err(FormatError::Damaged("the index"));
        }
        let extras = all.get(extras_at..all.len() - FOOTER_BYTES).and_then(Extras::parse);
        let extras = extras.ok_or(FormatError::Damaged("the extras"))?;
        let watches = lists.iter().any(|list| list.kind == ListKind::Watch);
        Ok(Self { forms: vec![Form { lists, bytes, words, extras, extras_at, watches }] })
    }

    /// These and others, side by side; at most [`FORMS_MAX`] forms.
    #[must_use]
    pub fn and(mut self, others: Self) -> Self {
        self.forms.extend(others.forms);
        self.forms.truncate(FORMS_MAX);
        self
    }

    /// Lists of other names are as if they were not there; the others get these scores.
    #[must_use]
    pub fn rescored(mut self, score: impl Fn(&str) -> Option<f64>) -> Self {
        for list in self.forms.iter_mut().flat_map(|form| &mut form.lists) {
            match score(&list.name) {
                Some(score) => list.score = score,
                None => list.muted = true,
            }
        }
        self
    }

    /// The graver of the lists that have this name or one of its parents, unless an
    /// exemption covers it; of equal ones the longest entry.
    #[must_use]
    pub fn lookup<'a>(&'a self, name: &'a Name) -> Option<Hit<'a>> {
        self.judge(name).bad
    }

    /// Everything the lists say of a name.
    #[must_use]
    pub fn judge<'a>(&'a self, name: &'a Name) -> Judged<'a> {
        // No list holds a single label, but exemptions may.
        let keys = name.suffixes().map(|suffix| (suffix, hash_of(suffix)));
        let mut judged =
            self.judged(keys.clone(), || keys.clone().filter(|(s, _)| s.contains('.')));
        if judged.allowed.is_none() {
            let found = self.by_pattern(name, || self.exempts(keys.clone()));
            match found {
                Some(Pattern::Found(hit)) => {
                    better(&mut judged.bad, hit);
                    if hit.block {
                        better(&mut judged.block, hit);
                    }
                }
                Some(Pattern::Allowed(hit, allowed)) => {
                    (judged.pardoned, judged.allowed) = (Some(hit), Some(allowed));
                }
                None => {}
            }
        }
        judged
    }

    /// The gravest list that has this address, this port of it, or a network around it,
    /// unless an exemption covers it; of equal ones the longest prefix. Without a port,
    /// entries with one are not asked.
    #[must_use]
    pub fn lookup_address(&self, ip: IpAddr, port: Option<u16>) -> Option<Hit<'_, Indicator>> {
        self.judge_address(ip, port).bad
    }

    /// Everything the lists say of an address.
    #[must_use]
    pub fn judge_address(&self, ip: IpAddr, port: Option<u16>) -> Judged<'_, Indicator> {
        let mut spans = Spans::default();
        self.forms.iter().for_each(|form| spans.merge(form.extras.spans));
        let keys = spans.covering(ip, port).map(|net| (net, net.hash()));
        self.judged(keys.clone(), || keys.clone())
    }

    /// `all` are what may exempt, `listed` what may be listed: longest first.
    fn judged<'a, E: Copy, I: Iterator<Item = (E, u64)> + Clone>(
        &'a self,
        all: impl Iterator<Item = (E, u64)> + Clone,
        listed: impl Fn() -> I,
    ) -> Judged<'a, E> {
        let mut judged = Judged::default();
        // Nearly all names are on no list: one pass tells.
        let mut hashes = listed().map(|(_, hash)| hash);
        if !hashes.any(|hash| self.forms.iter().any(|form| form.tags(hash).next().is_some())) {
            return judged;
        }
        let mut exempt = [[false; LISTS_MAX + 1]; FORMS_MAX];
        for (entry, hash) in all {
            for (form, exempt) in self.forms.iter().zip(&mut exempt) {
                for tag in form.tags(hash) {
                    let by = form.exempts_from_all(tag);
                    judged.allowed = judged.allowed.or(by.map(|list| (list, entry)));
                    if let Some(list) = exempt.get_mut(tag.list()) {
                        *list |= tag.is_exempt();
                    }
                }
            }
        }
        for (entry, hash) in listed() {
            for (form, exempt) in self.forms.iter().zip(&exempt) {
                for tag in form.tags(hash).filter(|tag| !tag.is_exempt()) {
                    let exempt = exempt.get(tag.list()).copied().unwrap_or(false);
                    if !exempt && let Some((kind, hit)) = form.hit(tag, entry, hash) {
                        judged.take(kind, hit);
                    }
                }
            }
        }
        judged
    }

    /// Whether anything exempts a name from all lists; for what is found by a pattern.
    fn exempts<'a>(
        &'a self,
        keys: impl Iterator<Item = (&'a str, u64)>,
    ) -> Option<(&'a str, &'a str)> {
        for (entry, hash) in keys {
            for form in &self.forms {
                if let Some(list) = form.tags(hash).find_map(|tag| form.exempts_from_all(tag)) {
                    return Some((list, entry));
                }
            }
        }
        None
    }

    fn by_pattern<'a>(
        &'a self,
        name: &'a Name,
        exempt: impl Fn() -> Option<(&'a str, &'a str)>,
    ) -> Option<Pattern<'a>> {
        let mut best: Option<Hit<'a>> = None;
        for form in &self.forms {
            let Some(list) = form.lists.iter().find(|list| list.name == PATTERNS && !list.muted)
            else {
                continue;
            };
            for pattern in &form.extras.patterns {
                if let Some(entry) = patterns::find(name, pattern) {
                    let hit = Hit {
                        list: &list.name,
                        entry,
                        score: list.score,
                        block: list.block,
                        page: None,
                        is_page: false,
                        pattern: Some(pattern),
                    };
                    better(&mut best, hit);
                }
            }
        }
        let hit = best?;
        Some(match exempt() {
            Some(allowed) => Pattern::Allowed(hit, allowed),
            None => Pattern::Found(hit),
        })
    }

    /// Entries held, exemptions included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.forms.iter().map(|form| form.words).sum()
    }
    /// Nothing held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.forms.iter().all(|form| form.words == 0 && form.extras.patterns.is_empty())
    }
    /// Bytes of the compiled forms, in memory or mapped.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.forms.iter().map(|form| (*form.bytes).as_ref().len()).sum()
    }
    /// Each list, with its number of distinct entries.
    pub fn lists(&self) -> impl Iterator<Item = &List> {
        self.forms.iter().flat_map(|form| &form.lists).filter(|list| !list.muted)
    }
    /// Whether any list is one of watched names.
    #[must_use]
    pub fn watches(&self) -> bool {
        self.forms.iter().any(|form| form.watches)
    }
    /// Parts of names that are known bad.
    pub fn patterns(&self) -> impl Iterator<Item = &str> {
        self.forms.iter().flat_map(|form| &form.extras.patterns).map(String::as_str)
    }
}

enum Pattern<'a> {
    Found(Hit<'a>),
    Allowed(Hit<'a>, (&'a str, &'a str)),
}

impl<'a, E: Copy> Judged<'a, E> {
    fn take(&mut self, kind: ListKind, hit: Hit<'a, E>) {
        match kind {
            ListKind::Watch => better(&mut self.watched, hit),
            ListKind::Allow => {}
            ListKind::Bad if self.allowed.is_some() => better(&mut self.pardoned, hit),
            ListKind::Bad => {
                better(&mut self.bad, hit);
                if hit.block {
                    better(&mut self.block, hit);
                }
            }
        }
    }
}

/// The graver one; of equal ones the first.
fn better<'a, E: Copy>(best: &mut Option<Hit<'a, E>>, hit: Hit<'a, E>) {
    if best.is_none_or(|best| best.score < hit.score) {
        *best = Some(hit);
    }
}

impl Form {
    /// Tags under which exactly this hash is held.
    fn tags(&self, hash: u64) -> impl Iterator<Item = Tag> + use<'_> {
        let wanted = low48(hash);
        let bucket = self.bucket(hash);
        let from = first_at_least(bucket, wanted);
        let rest = bucket.get(from..).unwrap_or_default().iter();
        let rest = rest.map(|word| u64::from_le_bytes(*word));
        rest.take_while(move |word| word >> 16 == wanted).map(|word| Tag((word & 0xffff) as u16))
    }

    fn bucket(&self, hash: u64) -> &[[u8; 8]] {
        let bytes = (*self.bytes).as_ref();
        let place = |i: usize| {
            let at = self.words * 8 + i * 4;
            let place = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>());
            place.map_or(0, |place| u32::from_le_bytes(*place) as usize * 8)
        };
        let number = bucket_of(hash);
        let bucket = bytes.get(place(number)..place(number + 1));
        bucket.unwrap_or_default().as_chunks::<8>().0
    }

    fn list(&self, tag: Tag) -> Option<&List> {
        tag.list().checked_sub(1).and_then(|i| self.lists.get(i)).filter(|list| !list.muted)
    }

    /// The name of the list that by this exempts from all lists.
    fn exempts_from_all(&self, tag: Tag) -> Option<&str> {
        if tag == Tag::ALLOW_ALL {
            return Some(SETTINGS);
        }
        let list = self.list(tag).filter(|list| list.kind == ListKind::Allow)?;
        Some(&list.name)
    }

    fn hit<E>(&self, tag: Tag, entry: E, hash: u64) -> Option<(ListKind, Hit<'_, E>)> {
        let list = self.list(tag)?;
        let is_page = tag.is_page();
        let page = || {
            let bytes = (*self.bytes).as_ref();
            let extras = bytes.get(self.extras_at..bytes.len().checked_sub(FOOTER_BYTES)?)?;
            self.extras.page(extras, hash, tag.list())
        };
        let hit = Hit {
            list: &list.name,
            entry,
            score: if is_page { list.score * PAGE_COUNTS } else { list.score },
            block: list.block && !is_page,
            page: is_page.then(page).flatten(),
            is_page,
            pattern: None,
        };
        Some((list.kind, hit))
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
        let names: Vec<_> = self.lists().map(|list| &list.name).collect();
        write!(f, "Blocklist({} entries of {names:?})", self.len())
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
