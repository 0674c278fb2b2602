//! List texts -> sorted hashes, with a report on what was refused.
//!
//! In: the bytes of each list, hostile, in portions divided anywhere. Out: the names' hashes
//! in order, and a [`ListReport`] per list. Budget: 0.3 to 0.7 s per million names and pass;
//! 8 bytes per name kept, and 16 while [`Builder::build`] makes a set in memory.
//!
//! Invariants: at most `entries_max` names and [`LISTS_MAX`] lists, what is beyond is
//! counted; one bad line never loses a list; a name that would cover a whole public suffix
//! is refused and counted; how texts are divided into portions changes nothing.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::format::{INDEX_BYTES, Output};
use super::punycode;
use super::set::{ALLOW_ALL, BUCKETS, Blocklist, LISTS_MAX, List, bucket_of, hash_of};
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
    /// Names in other scripts, taken in their ASCII form (`xn--`).
    pub translated: usize,
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
        if self.translated > 0 {
            write!(f, ", {} of them from other scripts", self.translated)?;
        }
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

/// Reads list texts, once: the hashes of their names in memory, all of them or those of
/// some buckets.
#[derive(Debug)]
pub struct Builder {
    lists: Vec<List>,
    /// Hashes of the names that are kept, by tag.
    kept: Vec<(u16, Vec<u64>)>,
    kept_names: usize,
    portion: Portion,
    /// There were more names than the portion holds; none is kept.
    too_many: bool,
    /// Names of each bucket, doubles included: by this a further pass knows what fits.
    counts: Vec<u32>,
    entries: usize,
    entries_max: usize,
    /// Names met so far, good or bad, in the order of the texts.
    met: u64,
    /// The last of them that was taken, when `entries_max` is reached.
    cut: Option<u64>,
    open: Option<Open>,
}

/// Which names a pass keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Portion {
    /// Those of these buckets.
    pub(super) buckets: Range<usize>,
    /// At most so many.
    pub(super) names_max: usize,
}

/// The list that is being read.
#[derive(Debug)]
struct Open {
    tag: u16,
    /// Beyond [`LISTS_MAX`].
    refused: bool,
    /// Begin of a line whose end has not come yet.
    line: Vec<u8>,
    report: ListReport,
}

impl Open {
    /// Keeps the line's begin; of one that is too long only as much as shows that.
    fn hold(&mut self, part: &[u8]) {
        let room = (LINE_BYTES_MAX + 1).saturating_sub(self.line.len());
        self.line.extend_from_slice(part.get(..room).unwrap_or(part));
    }
}

impl Builder {
    /// Takes at most `entries_max` names over all lists.
    #[must_use]
    pub fn new(entries_max: usize) -> Self {
        Self::of(entries_max, Portion { buckets: 0..BUCKETS, names_max: usize::MAX })
    }

    pub(super) fn of(entries_max: usize, portion: Portion) -> Self {
        Self {
            lists: Vec::new(),
            kept: Vec::new(),
            kept_names: 0,
            portion,
            too_many: false,
            counts: vec![0; BUCKETS],
            entries: 0,
            entries_max,
            met: 0,
            cut: None,
            open: None,
        }
    }

    /// For another pass over the same texts, that takes the same names and keeps another
    /// portion of them.
    pub(super) fn again(&self, portion: Portion) -> Self {
        Self { cut: self.cut, ..Self::of(self.entries_max, portion) }
    }

    /// Exempts a name and all below it from every list.
    pub fn allow(&mut self, name: &Name) {
        self.push(hash_of(name.as_str()), ALLOW_ALL);
    }

    /// Adds a list: its name, the score of a hit (0 to 1) and its text.
    pub fn list(&mut self, name: &str, score: f64, text: &[u8]) -> ListReport {
        self.begin(name, score);
        self.feed(text);
        self.end()
    }

    /// Begins a list; its text follows by [`Self::feed`].
    pub fn begin(&mut self, name: &str, score: f64) {
        let refused = self.lists.len() == LISTS_MAX;
        if !refused {
            self.lists.push(List { name: name.to_owned(), score, entries: 0 });
        }
        let tag = u16::try_from(self.lists.len()).unwrap_or(u16::MAX) << 1;
        let report = ListReport { name: name.to_owned(), ..ListReport::default() };
        self.open = Some(Open { tag, refused, line: Vec::new(), report });
    }

    /// The next portion of the list's text, divided anywhere.
    pub fn feed(&mut self, text: &[u8]) {
        let Some(mut open) = self.open.take() else { return };
        for part in text.split_inclusive(|b| *b == b'\n') {
            match part.strip_suffix(b"\n") {
                Some(line) if open.line.is_empty() => self.line(line, &mut open),
                Some(end) => {
                    open.hold(end);
                    let line = std::mem::take(&mut open.line);
                    self.line(&line, &mut open);
                }
                None => open.hold(part),
            }
        }
        self.open = Some(open);
    }

    /// Ends the list: what became of it.
    pub fn end(&mut self) -> ListReport {
        let Some(mut open) = self.open.take() else { return ListReport::default() };
        let rest = std::mem::take(&mut open.line);
        if !rest.is_empty() {
            self.line(&rest, &mut open);
        }
        open.report
    }

    fn line(&mut self, line: &[u8], open: &mut Open) {
        open.report.lines += 1;
        if open.refused {
            open.report.over_limit += 1;
        } else if line.len() > LINE_BYTES_MAX {
            open.report.bad += 1;
            open.report.refuse("line too long");
        } else {
            syntax::entries(line, |entry| self.entry(entry, open.tag, &mut open.report));
        }
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
        self.met += 1;
        if self.cut.is_some_and(|cut| self.met > cut) {
            report.over_limit += 1;
            return report.refuse("more names than `entries_max`");
        }
        let name = match parse(name, report) {
            Ok(name) => name,
            Err(why) => {
                report.bad += 1;
                return report.refuse(why);
            }
        };
        let hash = hash_of(name.as_str());
        // Checked by the pass that keeps it.
        if self.is_elsewhere(hash) {
            return;
        }
        if tag & 1 == 0 && covers_strangers(&name) {
            report.suffixes += 1;
            return report.refuse("a public suffix, not a name somebody registered");
        }
        report.entries += 1;
        self.push(hash, tag);
    }

    fn is_elsewhere(&self, hash: u64) -> bool {
        !self.portion.buckets.contains(&bucket_of(hash))
    }

    fn push(&mut self, hash: u64, tag: u16) {
        self.entries += 1;
        if self.entries >= self.entries_max && self.cut.is_none() {
            self.cut = Some(self.met);
        }
        if let Some(count) = self.counts.get_mut(bucket_of(hash)) {
            *count = count.saturating_add(1);
        }
        if self.too_many || self.is_elsewhere(hash) {
            return;
        }
        if self.kept_names >= self.portion.names_max {
            (self.kept, self.too_many) = (Vec::new(), true);
            return;
        }
        self.kept_names += 1;
        // Looked for from the end: a list's names come one after the other.
        match self.kept.iter_mut().rfind(|(t, _)| *t == tag) {
            Some((_, hashes)) => hashes.push(hash),
            None => self.kept.push((tag, vec![hash])),
        }
    }

    /// The lists read so far.
    pub(super) fn lists(&self) -> &[List] {
        &self.lists
    }

    /// More names than the portion holds: read again in these portions.
    pub(super) fn portions(&self) -> Option<Vec<Portion>> {
        if !self.too_many {
            return None;
        }
        let mut portions = Vec::new();
        let mut next = Portion { buckets: 0..0, names_max: 0 };
        for (bucket, count) in self.counts.iter().map(|count| *count as usize).enumerate() {
            if next.names_max + count > self.portion.names_max && !next.buckets.is_empty() {
                let begin = Portion { buckets: bucket..bucket, names_max: 0 };
                portions.push(std::mem::replace(&mut next, begin));
            }
            next.buckets.end = bucket + 1;
            next.names_max += count;
        }
        portions.push(next);
        Some(portions)
    }

    /// Writes what is kept, in order: by hash, then tag.
    pub(super) fn write(self, output: &mut Output<'_>) -> io::Result<()> {
        if self.too_many {
            return Err(io::Error::other("a list changed while it was read"));
        }
        let mut kept = self.kept;
        for (_, hashes) in &mut kept {
            hashes.sort_unstable();
        }
        // The least of what is left of each tag, as (hash, tag, place among `kept`).
        let mut left: Vec<_> = kept.iter().map(|(_, hashes)| hashes.iter()).collect();
        let mut heads = BinaryHeap::new();
        for (i, ((tag, _), hashes)) in kept.iter().zip(&mut left).enumerate() {
            heads.extend(hashes.next().map(|hash| Reverse((*hash, *tag, i))));
        }
        while let Some(mut head) = heads.peek_mut() {
            let Reverse((hash, tag, i)) = *head;
            output.word(hash, tag)?;
            match left.get_mut(i).and_then(Iterator::next) {
                Some(next) => *head = Reverse((*next, tag, i)),
                None => drop(PeekMut::pop(head)),
            }
        }
        Ok(())
    }

    /// The finished set, in memory.
    ///
    /// # Panics
    /// Never: memory takes what is written, and what was written can be read.
    #[must_use]
    pub fn build(self) -> Blocklist {
        if self.entries == 0 {
            return Blocklist::of_no_names(self.lists);
        }
        let mut bytes = Vec::with_capacity(self.entries * 8 + INDEX_BYTES + 4_096);
        let lists = self.lists.clone();
        let mut output = Output::new(&mut bytes);
        let written = self.write(&mut output).and_then(|()| output.finish(&lists, 0));
        written.expect("a vector takes everything");
        bytes.shrink_to_fit();
        Blocklist::open(Arc::new(bytes)).expect("what was just written can be read")
    }
}

/// The name as the DNS has it.
fn parse(name: &[u8], report: &mut ListReport) -> Result<Name, &'static str> {
    const BAD: &str = "label or name too long, or a label empty";
    if name.is_ascii() {
        return Name::parse(name).map_err(|_| BAD);
    }
    let name = punycode::to_ascii(name).ok_or("no name in any script (want UTF-8)")?;
    report.translated += 1;
    Name::parse(name.as_bytes()).map_err(|_| BAD)
}

/// An entry for all of `com`, `co.uk` or `github.io` is a mistake, and would cover thousands
/// of owners who have nothing to do with each other.
pub(super) fn covers_strangers(name: &Name) -> bool {
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
