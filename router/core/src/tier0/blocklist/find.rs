//! In which line of a list an entry stands: compiled lists do not say, their texts do.
//!
//! In: the text, in portions divided anywhere. Out: the first line that lists the entry,
//! from 1. Reads like the builder, so that it finds what that found.

use super::builder::{LINE_BYTES_MAX, parse};
use super::set::hash_of;
use super::syntax::{self, What};
use super::word_of;

/// Looks for one entry.
#[derive(Debug)]
pub struct LineFinder {
    hash: u64,
    state: syntax::State,
    /// Begin of a line whose end has not come yet.
    line: Vec<u8>,
    lines: usize,
    found: Option<usize>,
}

impl LineFinder {
    /// For an entry as hits show it: `example.com`, `203.0.113.0/24`, `203.0.113.9:80`.
    #[must_use]
    pub fn new(entry: &str) -> Self {
        let hash = word_of(entry.as_bytes()).map_or_else(|| hash_of(entry), |net| net.hash());
        let state = syntax::State::default();
        Self { hash, state, line: Vec::new(), lines: 0, found: None }
    }

    /// The next portion of the text.
    pub fn feed(&mut self, text: &[u8]) {
        for part in text.split_inclusive(|b| *b == b'\n') {
            let room = (LINE_BYTES_MAX + 1).saturating_sub(self.line.len());
            self.line.extend_from_slice(part.get(..room).unwrap_or(part));
            if part.ends_with(b"\n") {
                self.end_line();
            }
        }
    }

    /// The line, when the text has ended.
    #[must_use]
    pub fn end(mut self) -> Option<usize> {
        if !self.line.is_empty() {
            self.end_line();
        }
        self.found
    }

    fn end_line(&mut self) {
        self.lines += 1;
        let line = std::mem::take(&mut self.line);
        if self.found.is_some() || line.len() > LINE_BYTES_MAX {
            return;
        }
        let (hash, mut found) = (self.hash, false);
        syntax::entries(&line, &mut self.state, &mut |entry| {
            found |= entry.is_ok_and(|entry| match entry.what {
                What::Name(name) => {
                    parse(name).is_ok_and(|(name, _)| hash_of(name.as_str()) == hash)
                }
                What::Net(net) => net.hash() == hash,
            });
        });
        if found {
            self.found = Some(self.lines);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(entry: &str, expected: Option<usize>) {
        const TEXT: &str = "# list\na.example\n0.0.0.0 b.example c.example\n203.0.113.0/24\n\
                            203.0.113.9:80\nb\u{fc}cher.example\n||d.example^\r\na.example";
        for portion in [1, 7, 1_000] {
            let mut finder = LineFinder::new(entry);
            TEXT.as_bytes().chunks(portion).for_each(|part| finder.feed(part));
            assert_eq!(finder.end(), expected, "{entry}");
        }
    }

    #[test]
    fn the_first_line_that_lists_it() {
        check("a.example", Some(2));
        check("c.example", Some(3));
        check("203.0.113.0/24", Some(4));
        check("203.0.113.9:80", Some(5));
        check("203.0.113.9", None);
        check("xn--bcher-kva.example", Some(6));
        check("d.example", Some(7));
        check("x.example", None);
    }
}
