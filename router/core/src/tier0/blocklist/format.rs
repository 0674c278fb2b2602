//! The compiled form of lists: one block of bytes that is looked things up in as it lies,
//! in memory or mapped from a file.
//!
//! Layout, all numbers little-endian:
//!
//! ```text
//! words    8 bytes each: lower 48 bits of the hash << 16 | tag; ascending within a bucket
//! index    65,537 times 4 bytes: where each bucket begins among the words, and the end
//! lists    each: score (f64), distinct entries (u64), last change (i64, Unix seconds), times
//!          a smaller list was accepted (u32), kind | block << 2 (u8), then three texts, each
//!          length (u16) and bytes: name, licence, origin
//! extras   which lengths of networks there are: IPv4 (u32), IPv6 (u128), with ports (u8);
//!          patterns: number (u16), each length (u16) and text; pages: number (u32), then
//!          by hash: hash (u64), list (u16), length (u16), place (u32); then their texts
//! footer   magic and version (8), number of lists (u32), bytes of `lists` (u32), number of
//!          words (u64), bytes of `extras` (u64), what it was made of (u64), xxh3 of
//!          everything before this (u64)
//! ```
//!
//! The footer comes last, so that the form can be written as a stream and a file that was
//! cut short has none. Version 2.
//!
//! Invariants: reading checks every size against the bytes that are there, whatever they
//! are; the same lists give the same bytes, in however many portions they were compiled.

use std::io::{self, Write};

use xxhash_rust::xxh3::Xxh3Default as Xxh3;

use super::extras::Extras;
use super::set::{BUCKETS, LISTS_MAX, List, bucket_of, low48};

/// The last byte is the version.
const MAGIC: [u8; 8] = *b"agmlist\x02";
/// Bytes of the footer.
pub const FOOTER_BYTES: usize = 48;
/// Bytes of the checksum at its end.
const CHECKSUM_BYTES: usize = 8;
/// Bytes of the index.
pub(super) const INDEX_BYTES: usize = 4 * (BUCKETS + 1);
/// Bytes gathered before they are handed on.
const BUFFER_BYTES: usize = 32 * 1024;
/// Longest text of a list's name, licence or origin.
pub(super) const TEXT_BYTES_MAX: usize = 1_024;

/// Why bytes are no compiled lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Too short, or no footer at the end.
    #[error("not compiled lists, or cut short")]
    NotLists,
    /// Made by a newer or older program.
    #[error("compiled lists of another version")]
    OtherVersion,
    /// The parts do not fit together.
    #[error("damaged compiled lists ({0})")]
    Damaged(&'static str),
}

/// What the end of the compiled form says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footer {
    pub(super) lists: usize,
    pub(super) lists_bytes: usize,
    pub(super) words: usize,
    pub(super) extras_bytes: usize,
    /// What it was made of, as the one who compiled it said.
    pub source: u64,
    checksum: u64,
}

impl Footer {
    /// Reads the last [`FOOTER_BYTES`] of the form.
    ///
    /// # Errors
    /// [`FormatError`]: no footer, or one of another version.
    pub fn parse(bytes: &[u8]) -> Result<Self, FormatError> {
        let footer: &[u8; FOOTER_BYTES] = bytes.last_chunk().ok_or_else(|| older(bytes))?;
        let (magic, rest) = footer.split_at(MAGIC.len());
        match magic.split_last() {
            Some((_, name)) if !MAGIC.starts_with(name) => return Err(older(bytes)),
            _ if magic != MAGIC => return Err(FormatError::OtherVersion),
            _ => {}
        }
        let mut reader = Reader(rest);
        let size =
            |n: Option<u64>| n.and_then(|n| usize::try_from(n).ok()).ok_or(FormatError::NotLists);
        let lists = size(reader.u32().map(u64::from))?;
        let lists_bytes = size(reader.u32().map(u64::from))?;
        let (words, extras_bytes) = (size(reader.u64())?, size(reader.u64())?);
        let source = reader.u64().ok_or(FormatError::NotLists)?;
        let checksum = reader.u64().ok_or(FormatError::NotLists)?;
        Ok(Self { lists, lists_bytes, words, extras_bytes, source, checksum })
    }

    /// Bytes of the whole form; `None`: more than there can be.
    #[must_use]
    pub fn total_bytes(&self) -> Option<usize> {
        let words = self.words.checked_mul(8)?;
        let rest = INDEX_BYTES.checked_add(self.lists_bytes)?.checked_add(self.extras_bytes)?;
        words.checked_add(rest)?.checked_add(FOOTER_BYTES)
    }

    /// Names this very content: the checksum of everything before it.
    #[must_use]
    pub const fn checksum(&self) -> u64 {
        self.checksum
    }
}

/// Version 1 had a footer of 40 bytes.
fn older(bytes: &[u8]) -> FormatError {
    const OLD: usize = 40;
    let footer = bytes.len().checked_sub(OLD).and_then(|at| bytes.get(at..at + MAGIC.len()));
    match footer {
        Some([b'a', b'g', b'm', b'l', b'i', b's', b't', 1]) => FormatError::OtherVersion,
        _ => FormatError::NotLists,
    }
}

/// Reads numbers and texts one after the other; `None` where the bytes end.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (now, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*now)
    }
    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }
    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }
    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }
    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
    pub(super) fn u128(&mut self) -> Option<u128> {
        self.array().map(u128::from_le_bytes)
    }
    /// Printable ASCII of at most [`TEXT_BYTES_MAX`], with its length before it.
    pub(super) fn text(&mut self) -> Option<&'a str> {
        let length = usize::from(self.u16()?);
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        let plain = length <= TEXT_BYTES_MAX && text.iter().all(|b| matches!(b, b' '..=b'~'));
        std::str::from_utf8(text).ok().filter(|_| plain)
    }
}

/// Checks a whole form against its checksum without having it in memory at once.
#[derive(Default)]
pub struct Check {
    hash: Xxh3,
    /// The last bytes, which may be the footer.
    tail: Vec<u8>,
    bytes: usize,
}

impl Check {
    /// The next portion.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.bytes = self.bytes.saturating_add(bytes.len());
        self.tail.extend_from_slice(bytes);
        let ready = self.tail.len().saturating_sub(CHECKSUM_BYTES);
        if let Some(ready_bytes) = self.tail.get(..ready.saturating_sub(FOOTER_BYTES)) {
            self.hash.update(ready_bytes);
            let hashed = ready_bytes.len();
            self.tail.drain(..hashed);
        }
    }

    /// What the footer says, when everything before it is what was written.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn finish(mut self) -> Result<Footer, FormatError> {
        let footer = Footer::parse(&self.tail)?;
        if footer.total_bytes() != Some(self.bytes) {
            return Err(FormatError::NotLists);
        }
        let hashed = self.tail.len() - CHECKSUM_BYTES;
        self.hash.update(self.tail.get(..hashed).unwrap_or_default());
        if self.hash.digest() != footer.checksum {
            return Err(FormatError::Damaged("the checksum differs"));
        }
        Ok(footer)
    }
}

/// The lists' names, scores and where they are from.
pub(super) fn read_lists(bytes: &[u8], number: usize) -> Result<Vec<List>, FormatError> {
    const DAMAGED: FormatError = FormatError::Damaged("the table of lists");
    if number > LISTS_MAX {
        return Err(DAMAGED);
    }
    let mut reader = Reader(bytes);
    let mut lists = Vec::with_capacity(number);
    for _ in 0..number {
        lists.push(List::read(&mut reader).ok_or(DAMAGED)?);
    }
    if reader.0.is_empty() { Ok(lists) } else { Err(DAMAGED) }
}

/// Writes the form as a stream: words in order, then the rest.
pub(super) struct Output<'a> {
    out: &'a mut dyn Write,
    hash: Xxh3,
    buffer: Vec<u8>,
    index: Vec<u32>,
    words: u32,
    last: Option<(u64, u16)>,
    /// Distinct entries by list number.
    entries: [usize; LISTS_MAX + 1],
}

impl<'a> Output<'a> {
    pub(super) fn new(out: &'a mut dyn Write) -> Self {
        Self {
            out,
            hash: Xxh3::new(),
            buffer: Vec::with_capacity(BUFFER_BYTES + 16),
            index: Vec::with_capacity(BUCKETS + 1),
            words: 0,
            last: None,
            entries: [0; LISTS_MAX + 1],
        }
    }

    /// The next entry: not before the one before, by hash and then tag. Doubles are dropped.
    pub(super) fn word(&mut self, hash: u64, tag: Tag) -> io::Result<()> {
        if self.last == Some((hash, tag.0)) {
            return Ok(());
        }
        self.last = Some((hash, tag.0));
        while self.index.len() <= bucket_of(hash) {
            self.index.push(self.words);
        }
        self.words = self.words.checked_add(1).ok_or_else(|| io::Error::other("too many names"))?;
        if let Some(entries) = self.entries.get_mut(tag.list()) {
            *entries += 1;
        }
        self.put(&(low48(hash) << 16 | u64::from(tag.0)).to_le_bytes())
    }

    /// Everything behind the words.
    pub(super) fn finish(mut self, lists: &[List], extras: &Extras, source: u64) -> io::Result<()> {
        self.index.resize(BUCKETS + 1, self.words);
        for place in std::mem::take(&mut self.index) {
            self.put(&place.to_le_bytes())?;
        }
        let mut table = Vec::new();
        for (number, list) in lists.iter().enumerate() {
            let entries = self.entries.get(number + 1).copied().unwrap_or(0) as u64;
            list.write(entries, &mut table);
        }
        self.put(&table)?;
        let mut more = Vec::new();
        extras.write(&mut more);
        self.put(&more)?;
        self.put(&MAGIC)?;
        self.put(&u32::try_from(lists.len()).map_err(io::Error::other)?.to_le_bytes())?;
        self.put(&u32::try_from(table.len()).map_err(io::Error::other)?.to_le_bytes())?;
        self.put(&u64::from(self.words).to_le_bytes())?;
        self.put(&(more.len() as u64).to_le_bytes())?;
        self.put(&source.to_le_bytes())?;
        self.hand_on()?;
        let checksum = self.hash.digest();
        self.out.write_all(&checksum.to_le_bytes())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER_BYTES { self.hand_on() } else { Ok(()) }
    }

    fn hand_on(&mut self) -> io::Result<()> {
        self.hash.update(&self.buffer);
        self.out.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}

/// A text with its length before it; what is too long is cut.
pub(super) fn put_text(text: &str, out: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    let bytes = bytes.get(..TEXT_BYTES_MAX).unwrap_or(bytes);
    out.extend_from_slice(&(bytes.len() as u16).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// What stands beside a hash: of which list, and what kind of entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tag(pub(super) u16);

impl Tag {
    const EXEMPT: u16 = 1;
    const PAGE: u16 = 1 << 9;
    /// The configuration's own exemptions, which hold for all lists.
    pub(super) const ALLOW_ALL: Self = Self(Self::EXEMPT);

    /// An entry of the list of that number, counted from 1.
    pub(super) const fn of(list: u8) -> Self {
        Self((list as u16) << 1)
    }
    /// The list exempts it.
    pub(super) const fn exempting(self) -> Self {
        Self(self.0 | Self::EXEMPT)
    }
    /// It was the address of a page.
    pub(super) const fn of_page(self) -> Self {
        Self(self.0 | Self::PAGE)
    }
    pub(super) const fn is_exempt(self) -> bool {
        self.0 & Self::EXEMPT != 0
    }
    pub(super) const fn is_page(self) -> bool {
        self.0 & Self::PAGE != 0
    }
    /// Counted from 1; 0: the configuration.
    pub(super) const fn list(self) -> usize {
        (self.0 >> 1 & 0xff) as usize
    }
}
