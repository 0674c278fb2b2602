//! Many names in little memory: sorted 64-bit fingerprints with a bucket index.
//!
//! Every listed name is one `u64`: the upper 16 bits of its xxh3 hash choose one of 65,536
//! buckets and are not stored; the other 48 stand above a 16-bit tag that names the list.
//! So 64 bits are compared (two names collide with probability 2^-64 per pair: about one
//! false hit in 10^13 look-ups against a million names), a look-up is two cache misses per
//! label, and a million names take 8.3 MB.
//!
//! In: list text. Out: a [`Blocklist`], immutable, and a [`ListReport`] for each list.
//! Budget: 8 bytes per name plus 262 KB; building takes up to 16 bytes per name on top.
//!
//! Invariants: a look-up allocates nothing; at most `entries_max` names and [`LISTS_MAX`]
//! lists, what is beyond is counted; names that would cover a whole public suffix are
//! refused and counted; a list's own exemptions hold for that list alone, so that no
//! list can silence another.

use std::fmt;

use xxhash_rust::xxh3::xxh3_64;

use super::syntax::{self, Entry};
use crate::name::Name;

/// Most lists.
pub const LISTS_MAX: usize = 255;
/// Longest line read; 255 octets of name and an address need less.
pub const LINE_BYTES_MAX: usize = 4_096;
/// Most bad lines a report names.
const SAMPLES_MAX: usize = 5;
const BUCKETS: usize = 1 << 16;
/// Tag of the configuration's own exemptions, which hold for all lists.
const ALLOW_ALL: u16 = 0;

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
struct List {
    name: String,
    score: f64,
    entries: usize,
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
    /// The graver of the lists that have this name or one of its parents, unless an
    /// exemption covers it; of equal ones the longest entry.
    #[must_use]
    pub fn lookup<'a>(&'a self, name: &'a Name) -> Option<Hit<'a>> {
        if self.words.is_empty() {
            return None;
        }
        // Nearly all names are on no list: one pass tells.
        name.suffixes().find(|suffix| self.tags(suffix).next().is_some())?;
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
        let hash = xxh3_64(text.as_bytes());
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

/// The part of the hash that is stored: the bucket says the rest.
const fn low48(hash: u64) -> u64 {
    hash & 0xffff_ffff_ffff
}

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
        let hash = xxh3_64(name.as_str().as_bytes());
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
            return Blocklist { lists: self.lists, ..Blocklist::default() };
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
        Blocklist { lists: self.lists, index, words }
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
    let private = psl::suffix(text.as_bytes()).is_some_and(|s| s.typ() == Some(psl::Type::Private));
    let Some((_, parent)) = text.split_once('.').filter(|_| private) else { return true };
    let sibling = format!("no-such-label-{}.{parent}", text.len());
    psl::suffix(sibling.as_bytes()).is_none_or(|suffix| suffix.as_bytes() != sibling.as_bytes())
}

const fn bucket_of(hash: u64) -> usize {
    (hash >> 48) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    /// Two lists and one exemption of the configuration.
    fn sample() -> Blocklist {
        let mut builder = Builder::new(1_000);
        let ads = builder.list("ads", 0.3, b"ads.example.com\nexample.net\n@@||fine.example.net^");
        let bad = builder.list("malware", 0.9, b"0.0.0.0 EXAMPLE.net\nevil.example\n");
        assert!(ads.is_clean() && bad.is_clean());
        builder.allow(&name("good.evil.example"));
        builder.build()
    }

    #[track_caller]
    fn check(text: &str, expected: Option<(&str, &str)>) {
        let (lists, name) = (sample(), name(text));
        assert_eq!(lists.lookup(&name).map(|hit| (hit.list, hit.entry)), expected, "{text}");
    }

    #[test]
    fn names_and_what_lies_below() {
        check("ads.example.com", Some(("ads", "ads.example.com")));
        check("x.y.ads.example.com", Some(("ads", "ads.example.com")));
        check("example.com", None);
        check("bads.example.com", None);
        check("ads.example.com.example", None);
        check("com", None);
        check(".", None);
    }

    #[test]
    fn the_graver_list_wins_and_exemptions_win_over_both() {
        check("www.example.net", Some(("malware", "example.net")));
        // The first list's own exemption does not silence the second.
        check("fine.example.net", Some(("malware", "example.net")));
        check("evil.example", Some(("malware", "evil.example")));
        check("good.evil.example", None);
        check("a.good.evil.example", None);
    }

    #[test]
    fn a_lists_own_exemption() {
        let mut builder = Builder::new(10);
        builder.list("ads", 0.3, b"example.net\n@@||fine.example.net^\n");
        let lists = builder.build();
        assert!(lists.lookup(&name("fine.example.net")).is_none());
        assert!(lists.lookup(&name("example.net")).is_some());
    }

    #[test]
    fn an_empty_set_finds_nothing() {
        assert!(Blocklist::default().lookup(&name("example.com")).is_none());
        assert!(Builder::new(10).build().lookup(&name("example.com")).is_none());
        assert_eq!(Blocklist::default().memory_bytes(), 0);
    }

    #[test]
    fn reports_say_what_was_refused_and_where() {
        let mut builder = Builder::new(3);
        let text = b"# head\r\ncom\r\nco.uk\r\ngithub.io\r\na.example\r\na/b\r\n\r\nb.example\r\na.example\r\nc.example";
        let report = builder.list("x", 0.5, text);
        assert_eq!(
            report.to_string(),
            "x: 3 names in 10 lines; refused: 1 bad, 3 public suffixes, 1 beyond the maximum \
             (line 2: a public suffix, not a name somebody registered, \
             line 3: a public suffix, not a name somebody registered, \
             line 4: a public suffix, not a name somebody registered, \
             line 6: not a domain name, line 10: more names than `entries_max`)"
        );
        let lists = builder.build();
        assert_eq!(lists.len(), 2, "a double is held once");
        assert_eq!(lists.lists().collect::<Vec<_>>(), [("x", 0.5, 2)]);
    }

    #[track_caller]
    fn strangers(text: &str, expected: bool) {
        assert_eq!(covers_strangers(&name(text)), expected, "{text}");
    }

    #[test]
    fn public_suffixes_cover_strangers_and_single_machines_do_not() {
        strangers("com", true);
        strangers("co.uk", true);
        strangers("anything.ck", true);
        strangers("github.io", true);
        strangers("s3.amazonaws.com", true);
        strangers("localhost", true);
        strangers("example.com", false);
        strangers("someone.github.io", false);
        strangers("ec2-192-0-2-1.compute-1.amazonaws.com", false);
    }

    #[test]
    fn very_long_lines_and_names_are_bad_lines() {
        let mut builder = Builder::new(10);
        let label = "a".repeat(64);
        let line = "x".repeat(LINE_BYTES_MAX + 1);
        let report = builder.list("x", 0.5, format!("{label}.example\n{line}\n").as_bytes());
        assert_eq!((report.bad, report.entries), (2, 0));
    }

    #[test]
    fn lists_beyond_the_maximum_are_refused() {
        let mut builder = Builder::new(1_000);
        for i in 0..LISTS_MAX {
            assert!(builder.list("x", 0.5, format!("a{i}.example").as_bytes()).is_clean());
        }
        assert_eq!(builder.list("y", 0.5, b"y.example").over_limit, 1);
        let (lists, last) = (builder.build(), name(&format!("a{}.example", LISTS_MAX - 1)));
        assert!(lists.lookup(&last).is_some());
        assert!(lists.lookup(&name("y.example")).is_none());
    }

    #[test]
    fn size_of_many_names() {
        let mut builder = Builder::new(usize::MAX);
        let text: String = (0..3_000).map(|i| format!("host{i}.example\n")).collect();
        assert!(builder.list("many", 0.5, text.as_bytes()).is_clean());
        let lists = builder.build();
        assert_eq!(lists.len(), 3_000);
        assert!(lists.memory_bytes() < 3_000 * 8 + 270_000, "{}", lists.memory_bytes());
        for i in 0..3_000 {
            assert!(lists.lookup(&name(&format!("www.host{i}.example"))).is_some());
            assert!(lists.lookup(&name(&format!("most{i}.example"))).is_none());
        }
    }

    proptest::proptest! {
        /// The same answer as the plainest way to do it.
        #[test]
        fn agrees_with_a_plain_set(
            listed in proptest::collection::vec("[ab]{1,2}(\\.[ab]{1,2}){1,3}", 1..40),
            asked in "[ab]{1,2}(\\.[ab]{1,2}){0,4}",
        ) {
            let mut builder = Builder::new(1_000);
            builder.list("x", 0.5, listed.join("\n").as_bytes());
            let (lists, asked) = (builder.build(), name(&asked));
            let expected = asked.suffixes().find(|s| listed.iter().any(|l| l == s));
            proptest::prop_assert_eq!(lists.lookup(&asked).map(|hit| hit.entry), expected);
        }

        #[test]
        fn any_text(text in proptest::collection::vec(proptest::num::u8::ANY, 0..2_000)) {
            let mut builder = Builder::new(100);
            drop(builder.list("x", 0.5, &text).to_string());
            drop(builder.build());
        }
    }
}
