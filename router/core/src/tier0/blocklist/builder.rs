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
use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::ListConfig;
use super::address::Indicator;
use super::extras::Extras;
use super::format::{INDEX_BYTES, Output, TEXT_BYTES_MAX, Tag};
use super::patterns::PATTERNS_MAX;
use super::punycode;
use super::report::{ListReport, Why};
use super::set::{
    About, BUCKETS, Blocklist, LISTS_MAX, List, ListKind, PATTERNS, bucket_of, hash_of,
};
use super::syntax::{self, Entry, Format, What};
use crate::name::{Name, printable};
use crate::suffix::{Kind, suffix};

/// Longest line read; 255 octets of name and an address need less.
pub const LINE_BYTES_MAX: usize = 4_096;

/// Reads list texts, once: the hashes of their names in memory, all of them or those of
/// some buckets.
#[derive(Debug)]
pub struct Builder {
    lists: Vec<List>,
    /// Hashes of the names that are kept, by tag.
    kept: Vec<(Tag, Vec<u64>)>,
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
    extras: Extras,
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
    tag: Tag,
    /// Beyond [`LISTS_MAX`].
    refused: bool,
    format: Format,
    sources_min: u32,
    state: syntax::State,
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
            extras: Extras::default(),
        }
    }

    /// For another pass over the same texts, that takes the same names and keeps another
    /// portion of them.
    pub(super) fn again(&self, portion: Portion) -> Self {
        Self { cut: self.cut, ..Self::of(self.entries_max, portion) }
    }

    /// Exempts a name and all below it from every list.
    pub fn allow(&mut self, name: &Name) {
        self.push(hash_of(name.as_str()), Tag::ALLOW_ALL);
    }

    /// Exempts a network and all in it from every list.
    pub fn allow_net(&mut self, net: Indicator) {
        self.extras.spans.add(net);
        self.push(net.hash(), Tag::ALLOW_ALL);
    }

    /// Adds known-bad parts of names, as a list of its own; at most [`PATTERNS_MAX`].
    pub fn patterns(&mut self, patterns: &[String], score: f64) {
        if patterns.is_empty() {
            return;
        }
        let list = ListConfig { name: PATTERNS.into(), score, ..ListConfig::default() };
        self.begin(&list);
        let patterns = patterns.iter().take(PATTERNS_MAX).map(|p| p.to_ascii_lowercase());
        self.extras.patterns = patterns.collect();
        self.end();
    }

    /// Adds a list of bad names: its name, the score of a hit (0 to 1) and its text.
    pub fn list(&mut self, name: &str, score: f64, text: &[u8]) -> ListReport {
        self.list_of(&ListConfig { name: name.to_owned(), score, ..ListConfig::default() }, text)
    }

    /// Adds a list with these settings.
    pub fn list_of(&mut self, list: &ListConfig, text: &[u8]) -> ListReport {
        self.begin(list);
        self.feed(text);
        self.end()
    }

    /// Begins a list; its text follows by [`Self::feed`].
    pub fn begin(&mut self, list: &ListConfig) {
        let refused = self.lists.len() == LISTS_MAX;
        if !refused {
            self.lists.push(listed(list));
        }
        let tag = Tag::of(u8::try_from(self.lists.len()).unwrap_or(u8::MAX));
        let tag = if list.kind == ListKind::Allow { tag.exempting() } else { tag };
        let report = ListReport { name: list.name.clone(), ..ListReport::default() };
        self.open = Some(Open {
            tag,
            refused,
            format: list.format,
            sources_min: list.sources_min,
            state: syntax::State::default(),
            line: Vec::new(),
            report,
        });
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
        open.report.settle();
        open.report
    }

    fn line(&mut self, line: &[u8], open: &mut Open) {
        open.report.lines += 1;
        if open.refused {
            open.report.refuse(Why::ManyLists);
        } else if line.len() > LINE_BYTES_MAX {
            open.report.refuse(Why::LineTooLong);
        } else {
            let Open { state, tag, format, sources_min, report, .. } = open;
            let mut take = |entry: Result<Entry<'_>, Why>| match entry {
                Ok(entry) if !format.takes(entry.syntax) => report.refuse(Why::OtherFormat),
                Ok(entry) if entry.number.is_some_and(|n| n < *sources_min) => report.below += 1,
                Ok(entry) => {
                    if let Err(why) = self.entry(&entry, *tag, report) {
                        report.refuse(why);
                    }
                }
                Err(why) => report.refuse(why),
            };
            syntax::entries(line, state, &mut take);
        }
    }

    fn entry(&mut self, entry: &Entry<'_>, tag: Tag, report: &mut ListReport) -> Result<(), Why> {
        self.met += 1;
        if self.cut.is_some_and(|cut| self.met > cut) {
            return Err(Why::OverLimit);
        }
        let tag = if entry.allow { tag.exempting() } else { tag };
        let tag = if entry.page.is_some() && !tag.is_exempt() { tag.of_page() } else { tag };
        let (hash, translated) = match entry.what {
            What::Name(name) => {
                let (name, translated) = parse(name)?;
                let hash = hash_of(name.as_str());
                // Checked by the pass that keeps it.
                if !self.is_elsewhere(hash) && !tag.is_exempt() && covers_strangers(&name) {
                    return Err(Why::Suffix);
                }
                (hash, translated)
            }
            What::Net(net) => {
                if net.is_too_wide() {
                    return Err(Why::Wide);
                }
                if !tag.is_exempt() && !net.is_public() {
                    return Err(Why::Private);
                }
                self.extras.spans.add(net);
                report.addresses += 1;
                (net.hash(), false)
            }
        };
        if let Some(page) = entry.page.filter(|_| tag.is_page()) {
            report.pages += 1;
            // Of hosts beyond the maximum the page is not told.
            self.extras.page(hash, tag.list(), page);
        }
        report.entries += 1;
        report.exceptions += usize::from(tag.is_exempt());
        report.translated += usize::from(translated);
        let syntax = Format::ALL.iter().position(|format| *format == entry.syntax);
        if let Some(count) = syntax.and_then(|at| report.of_format.get_mut(at)) {
            *count += 1;
        }
        if !self.is_elsewhere(hash) {
            self.push(hash, tag);
        }
        Ok(())
    }

    fn is_elsewhere(&self, hash: u64) -> bool {
        !self.portion.buckets.contains(&bucket_of(hash))
    }

    fn push(&mut self, hash: u64, tag: Tag) {
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

    /// What was gathered beside the hashes; whole after the first pass.
    pub(super) fn extras(&self) -> &Extras {
        &self.extras
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
        if self.entries == 0 && self.lists.is_empty() {
            return Blocklist::default();
        }
        let mut bytes = Vec::with_capacity(self.entries * 8 + INDEX_BYTES + 4_096);
        let (lists, extras) = (self.lists.clone(), self.extras.clone());
        let mut output = Output::new(&mut bytes);
        let written = self.write(&mut output).and_then(|()| output.finish(&lists, &extras, 0));
        written.expect("a vector takes everything");
        bytes.shrink_to_fit();
        Blocklist::open(Arc::new(bytes)).expect("what was just written can be read")
    }
}

/// What the compiled form says of a list.
fn listed(list: &ListConfig) -> List {
    let text = |text: &str| printable(text.as_bytes(), TEXT_BYTES_MAX / 4);
    let about = &list.about;
    List {
        name: list.name.clone(),
        score: list.score,
        entries: 0,
        kind: list.kind,
        block: list.block,
        licence: text(&list.licence),
        about: About { origin: text(&about.origin), ..about.clone() },
        muted: false,
    }
}

/// The name as the DNS has it, and whether that is another script.
pub(super) fn parse(name: &[u8]) -> Result<(Name, bool), Why> {
    if name.is_ascii() {
        return Name::parse(name).map(|name| (name, false)).map_err(|_| Why::Label);
    }
    let name = punycode::to_ascii(name).ok_or(Why::Script)?;
    Name::parse(name.as_bytes()).map(|name| (name, true)).map_err(|_| Why::Label)
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
