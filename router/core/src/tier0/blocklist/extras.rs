//! What compiled lists hold besides hashes: which lengths of networks there are, patterns,
//! and the pages whose addresses were reduced to hosts.
//!
//! In: entries as they are read, bytes of the form as they lie. Budget: at most
//! [`PAGES_MAX`] pages of [`PAGE_BYTES_MAX`] bytes, 2 MB; the patterns are 13 KB at most.
//! Invariants: the same lists give the same bytes; damaged bytes are refused or harmless.

use super::address::Spans;
use super::format::{Reader, put_text};
use super::patterns::{self, PATTERNS_MAX};
use crate::name::printable;

/// Most pages told; hosts beyond are listed all the same.
pub(super) const PAGES_MAX: usize = 16_384;
/// Longest part of a page's address that is kept.
pub(super) const PAGE_BYTES_MAX: usize = 96;
/// Bytes of a page's row.
const ROW_BYTES: usize = 16;

/// Gathered while lists are read.
#[derive(Clone, Debug, Default)]
pub(super) struct Extras {
    pub(super) spans: Spans,
    pub(super) patterns: Vec<String>,
    /// Hash of the host, list, page.
    pages: Vec<(u64, u16, Box<str>)>,
}

impl Extras {
    /// Keeps a page to be told with a hit of its host; false: there are too many.
    pub(super) fn page(&mut self, hash: u64, list: usize, page: &[u8]) -> bool {
        let list = u16::try_from(list).unwrap_or(u16::MAX);
        if self.pages.len() >= PAGES_MAX {
            return false;
        }
        self.pages.push((hash, list, printable(page, PAGE_BYTES_MAX).into()));
        true
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.spans.v4.to_le_bytes());
        out.extend_from_slice(&self.spans.v6.to_le_bytes());
        out.push(self.spans.ports);
        out.extend_from_slice(&(self.patterns.len() as u16).to_le_bytes());
        self.patterns.iter().for_each(|pattern| put_text(pattern, out));
        let mut pages: Vec<_> = self.pages.iter().collect();
        // Of several pages of a host the first one is told.
        pages.sort_by_key(|(hash, list, _)| (*hash, *list));
        pages.dedup_by_key(|(hash, list, _)| (*hash, *list));
        out.extend_from_slice(&(pages.len() as u32).to_le_bytes());
        let mut place = 0u32;
        for (hash, list, page) in &pages {
            out.extend_from_slice(&hash.to_le_bytes());
            out.extend_from_slice(&list.to_le_bytes());
            out.extend_from_slice(&(page.len() as u16).to_le_bytes());
            out.extend_from_slice(&place.to_le_bytes());
            place += page.len() as u32;
        }
        pages.iter().for_each(|(.., page)| out.extend_from_slice(page.as_bytes()));
    }
}

/// The same as it lies in the form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) spans: Spans,
    pub(super) patterns: Vec<String>,
    /// Where the rows of the pages begin, from the begin of the extras; their number.
    rows: (usize, usize),
}

impl Read {
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let spans = Spans { v4: reader.u32()?, v6: reader.u128()?, ports: reader.u8()? };
        let number = usize::from(reader.u16()?);
        if number > PATTERNS_MAX {
            return None;
        }
        let mut found = Vec::with_capacity(number);
        for _ in 0..number {
            let pattern = reader.text()?;
            patterns::check(pattern).ok()?;
            found.push(pattern.to_owned());
        }
        let pages = reader.u32()? as usize;
        let start = bytes.len() - reader.0.len();
        if pages > PAGES_MAX || reader.0.len() < pages * ROW_BYTES {
            return None;
        }
        Some(Self { spans, patterns: found, rows: (start, pages) })
    }

    /// The page that made this list have this host.
    pub(super) fn page<'a>(&self, extras: &'a [u8], hash: u64, list: usize) -> Option<&'a str> {
        let (start, number) = self.rows;
        let rows = extras.get(start..start + number * ROW_BYTES)?.as_chunks::<ROW_BYTES>().0;
        let key = |row: &[u8; ROW_BYTES]| {
            let mut reader = Reader(row);
            (reader.u64().unwrap_or(0), usize::from(reader.u16().unwrap_or(0)))
        };
        let row = rows.get(rows.partition_point(|row| key(row) < (hash, list)))?;
        if key(row) != (hash, list) {
            return None;
        }
        let mut reader = Reader(row.get(10..)?);
        let (length, place) = (usize::from(reader.u16()?), reader.u32()? as usize);
        let from = (start + rows.len() * ROW_BYTES).checked_add(place)?;
        let text = extras.get(from..from.checked_add(length)?)?;
        let plain = text.iter().all(|b| matches!(b, b' '..=b'~'));
        std::str::from_utf8(text).ok().filter(|_| plain)
    }
}
