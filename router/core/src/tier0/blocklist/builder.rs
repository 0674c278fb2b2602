//! List texts -> a [`Blocklist`], with a report on what was refused.
//!
//! In: the bytes of each list, hostile. Out: the finished set and a [`ListReport`] per list.
//! Budget: 0.3 to 0.7 s and up to 24 MB for a million names, then 8.3 MB.
//!
//! Invariants: at most `entries_max` names and [`LISTS_MAX`] lists, what is beyond is
//! counted; one bad line never loses a list; a name that would cover a whole public suffix
//! is refused and counted.

use std::fmt;

use super::set::{ALLOW_ALL, BUCKETS, Blocklist, LISTS_MAX, List, bucket_of, hash_of, low48};
use super::syntax::{self, Entry};
use crate::name::Name;
use crate::suffix::{Kind, suffix};

/// Longest line read; 255 octets of name and an address need less.
pub const LINE_BYTES_MAX: usize = 4_096;
/// Most bad lines a report names.
const SAMPLES_MAX: usize = 5;

/// What became of one list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListReport {
    /// The list's name.
    pub name: String,
    /// Lines read.
    pub lines: usize,
    /// Names taken, doubles included.
    pub entries: usize,
    /// Names refused because they are public suffixes or single labels: all of `co.uk`.
    pub suffixes: usize,
    /// Entries not understood.
    pub bad: usize,
    /// Names beyond the maximum, not taken.
    pub over_limit: usize,
    /// The first refused entries: line number and reason.
    pub samples: Vec<(usize, &'static str)>,
}

impl ListReport {
    fn refuse(&mut self, why: &'static str) {
        if self.samples.len() < SAMPLES_MAX {
            self.samples.push((self.lines, why));
        }
    }
    /// Whether all of the list was understood and taken.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.suffixes + self.bad + self.over_limit == 0
    }
}

/// `phishing: 190214 names in 190230 lines; refused: 2 bad (line 7: not a domain name)`
impl fmt::Display for ListReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} names in {} lines", self.name, self.entries, self.lines)?;
        if self.is_clean() {
            return Ok(());
        }
        write!(f, "; refused: {} bad, {} public suffixes", self.bad, self.suffixes)?;
        write!(f, ", {} beyond the maximum", self.over_limit)?;
        for (i, (line, why)) in self.samples.iter().enumerate() {
            write!(f, "{}line {line}: {why}", if i == 0 { " (" } else { ", " })?;
        }
        if self.samples.is_empty() { Ok(()) } else { f.write_str(")") }
    }
}

/// Puts a [`Blocklist`] together from list texts.
#[derive(Debug)]
pub struct Builder {
    lists: Vec<List>,
    /// Hashes of the names by tag.
    hashes: Vec<(u16, Vec<u64>)>,
    entries: usize,
    entries_max: usize,
}

impl Builder {
    /// Takes at most `entries_max` names over all lists.
    #[must_use]
    pub const fn new(entries_max: usize) -> Self {
        Self { lists: Vec::new(), hashes: Vec::new(), entries: 0, entries_max }
    }

    /// Exempts a name and all below it from every list.
    pub fn allow(&mut self, name: &Name) {
        self.push(name, ALLOW_ALL);
    }

    /// Adds a list: its name, the score of a hit (0 to 1) and its text.
    pub fn list(&mut self, name: &str, score: f64, text: &[u8]) -> ListReport {
        let mut report = ListReport { name: name.to_owned(), ..ListReport::default() };
        if self.lists.len() == LISTS_MAX {
            report.over_limit = text.split(|b| *b == b'\n').count();
            return report;
        }
        self.lists.push(List { name: name.to_owned(), score, entries: 0 });
        let tag = u16::try_from(self.lists.len()).unwrap_or(u16::MAX) << 1;
        let text = text.strip_suffix(b"\n").unwrap_or(text);
        for line in text.split(|b| *b == b'\n') {
            report.lines += 1;
            if line.len() > LINE_BYTES_MAX {
                report.bad += 1;
                report.refuse("line too long");
                continue;
            }
            syntax::entries(line, |entry| self.entry(entry, tag, &mut report));
        }
        report
    }

    fn entry(&mut self, entry: Entry<'_>, tag: u16, report: &mut ListReport) {
        let (name, tag) = match entry {
            Entry::Block(name) => (name, tag),
            Entry::Allow(name) => (name, tag | 1),
            Entry::Bad(why) => {
                report.bad += 1;
                return report.refuse(why);
            }
        };
        let Ok(name) = Name::parse(name) else {
            report.bad += 1;
            return report.refuse("label or name too long, or a label empty");
        };
        if tag & 1 == 0 && covers_strangers(&name) {
            report.suffixes += 1;
            return report.refuse("a public suffix, not a name somebody registered");
        }
        if self.entries >= self.entries_max {
            report.over_limit += 1;
            return report.refuse("more names than `entries_max`");
        }
        report.entries += 1;
        self.push(&name, tag);
    }

    fn push(&mut self, name: &Name, tag: u16) {
        self.entries += 1;
        let hash = hash_of(name.as_str());
        // Looked for from the end: a list's names come one after the other.
        match self.hashes.iter_mut().rfind(|(t, _)| *t == tag) {
            Some((_, hashes)) => hashes.push(hash),
            None => self.hashes.push((tag, vec![hash])),
        }
    }

    /// The finished set: a counting sort by bucket, then each bucket by itself. Doubles
    /// are dropped.
    #[must_use]
    pub fn build(mut self) -> Blocklist {
        if self.entries == 0 {
            return Blocklist::from_parts(self.lists, Vec::new(), Vec::new());
        }
        let mut words = vec![0u64; self.entries];
        let mut ends = self.bucket_starts();
        for (tag, hashes) in std::mem::take(&mut self.hashes) {
            for hash in hashes {
                let Some(end) = ends.get_mut(bucket_of(hash)) else { continue };
                if let Some(word) = words.get_mut(*end as usize) {
                    *word = low48(hash) << 16 | u64::from(tag);
                }
                *end += 1;
            }
        }
        let index = sort_buckets(&mut words, &ends);
        for word in &words {
            let tag = (word & 0xffff) as u16;
            let list = usize::from(tag >> 1).checked_sub(1).filter(|_| tag & 1 == 0);
            if let Some(list) = list.and_then(|i| self.lists.get_mut(i)) {
                list.entries += 1;
            }
        }
        Blocklist::from_parts(self.lists, index, words)
    }

    /// Where each bucket begins when all have what was counted.
    fn bucket_starts(&self) -> Vec<u32> {
        let mut starts = vec![0u32; BUCKETS];
        for hash in self.hashes.iter().flat_map(|(_, hashes)| hashes) {
            if let Some(count) = starts.get_mut(bucket_of(*hash)) {
                *count += 1;
            }
        }
        let mut sum = 0;
        for start in &mut starts {
            sum += std::mem::replace(start, sum);
        }
        starts
    }
}

/// Sorts within buckets (`ends`: where each ends), closes the holes that doubles leave, and
/// returns the index.
fn sort_buckets(words: &mut Vec<u64>, ends: &[u32]) -> Vec<u32> {
    let mut index = Vec::with_capacity(BUCKETS + 1);
    index.push(0);
    let (mut from, mut to) = (0, 0);
    for end in ends.iter().map(|end| *end as usize) {
        if let Some(bucket) = words.get_mut(from..end) {
            bucket.sort_unstable();
        }
        let mut last = None;
        for i in from..end {
            let word = words.get(i).copied();
            if word != last {
                last = word;
                words.swap(i, to);
                to += 1;
            }
        }
        from = end;
        index.push(to as u32);
    }
    words.truncate(to);
    words.shrink_to_fit();
    index
}

/// An entry for all of `com`, `co.uk` or `github.io` is a mistake, and would cover thousands
/// of owners who have nothing to do with each other.
fn covers_strangers(name: &Name) -> bool {
    if name.registrable().is_some() {
        return false;
    }
    // Where the public suffix list says `*.compute-1.amazonaws.com`, every single machine
    // is a "suffix"; then any other name in its place would be one as well.
    let text = name.as_str();
    let private = suffix(text).is_some_and(|s| s.kind == Some(Kind::Private));
    let Some((_, parent)) = text.split_once('.').filter(|_| private) else { return true };
    let sibling = format!("no-such-label-{}.{parent}", text.len());
    suffix(&sibling).is_none_or(|suffix| suffix.text != sibling)
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
