//! The compiled form of lists: one block of bytes that is looked things up in as it lies,
//! in memory or mapped from a file.
//!
//! Layout, all numbers little-endian:
//!
//! ```text
//! words    8 bytes each: lower 48 bits of the hash << 16 | tag; ascending within a bucket
//! index    65,537 times 4 bytes: where each bucket begins among the words, and the end
//! lists    each: score (f64), distinct names (u64), length of its name (u16), its name
//! footer   magic and version (8), number of lists (u32), bytes of `lists` (u32), number of
//!          words (u64), what it was made of (u64), xxh3 of everything before this (u64)
//! ```
//!
//! The footer comes last, so that the form can be written as a stream and a file that was
//! cut short has none. Version 1.
//!
//! Invariants: reading checks every size against the bytes that are there, whatever they
//! are; the same lists give the same bytes, in however many portions they were compiled.

use std::io::{self, Write};

use xxhash_rust::xxh3::Xxh3Default as Xxh3;

use super::set::{BUCKETS, LISTS_MAX, List, bucket_of, low48};

/// The last byte is the version.
const MAGIC: [u8; 8] = *b"agmlist\x01";
/// Bytes of the footer.
pub const FOOTER_BYTES: usize = 40;
/// Bytes of the checksum at its end.
const CHECKSUM_BYTES: usize = 8;
/// Bytes of the index.
pub(super) const INDEX_BYTES: usize = 4 * (BUCKETS + 1);
/// Bytes gathered before they are handed on.
const BUFFER_BYTES: usize = 32 * 1024;

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
        let footer: &[u8; FOOTER_BYTES] = bytes.last_chunk().ok_or(FormatError::NotLists)?;
        let (magic, mut rest) = footer.split_at(MAGIC.len());
        match magic.split_last() {
            Some((_, name)) if !MAGIC.starts_with(name) => return Err(FormatError::NotLists),
            _ if magic != MAGIC => return Err(FormatError::OtherVersion),
            _ => {}
        }
        let mut number = |bytes: usize| {
            let (mut value, (now, later)) = ([0; 8], rest.split_at(bytes.min(rest.len())));
            value.iter_mut().zip(now).for_each(|(to, from)| *to = *from);
            rest = later;
            u64::from_le_bytes(value)
        };
        let mut size = |bytes| usize::try_from(number(bytes)).map_err(|_| FormatError::NotLists);
        let (lists, lists_bytes, words) = (size(4)?, size(4)?, size(8)?);
        let (source, checksum) = (number(8), number(8));
        Ok(Self { lists, lists_bytes, words, source, checksum })
    }

    /// Bytes of the whole form; `None`: more than there can be.
    #[must_use]
    pub fn total_bytes(&self) -> Option<usize> {
        let words = self.words.checked_mul(8)?;
        words.checked_add(INDEX_BYTES)?.checked_add(self.lists_bytes)?.checked_add(FOOTER_BYTES)
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

/// The lists' names and scores.
pub(super) fn read_lists(mut bytes: &[u8], number: usize) -> Result<Vec<List>, FormatError> {
    const DAMAGED: FormatError = FormatError::Damaged("the table of lists");
    if number > LISTS_MAX {
        return Err(DAMAGED);
    }
    let mut lists = Vec::with_capacity(number);
    for _ in 0..number {
        let (score, rest) = bytes.split_first_chunk::<8>().ok_or(DAMAGED)?;
        let (entries, rest) = rest.split_first_chunk::<8>().ok_or(DAMAGED)?;
        let (length, rest) = rest.split_first_chunk::<2>().ok_or(DAMAGED)?;
        let (name, rest) =
            rest.split_at_checked(usize::from(u16::from_le_bytes(*length))).ok_or(DAMAGED)?;
        let score = f64::from_le_bytes(*score);
        let plain = name.iter().all(u8::is_ascii_graphic) && (0.0..=1.0).contains(&score);
        let name = std::str::from_utf8(name).ok().filter(|_| plain).ok_or(DAMAGED)?;
        let entries = usize::try_from(u64::from_le_bytes(*entries)).map_err(|_| DAMAGED)?;
        lists.push(List { name: name.to_owned(), score, entries });
        bytes = rest;
    }
    if bytes.is_empty() { Ok(lists) } else { Err(DAMAGED) }
}

/// Writes the form as a stream: words in order, then the rest.
pub(super) struct Output<'a> {
    out: &'a mut dyn Write,
    hash: Xxh3,
    buffer: Vec<u8>,
    index: Vec<u32>,
    words: u32,
    last: Option<(u64, u16)>,
    /// Distinct names by list number.
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

    /// The next name: not before the one before, by hash and then tag. Doubles are dropped.
    pub(super) fn word(&mut self, hash: u64, tag: u16) -> io::Result<()> {
        if self.last == Some((hash, tag)) {
            return Ok(());
        }
        self.last = Some((hash, tag));
        while self.index.len() <= bucket_of(hash) {
            self.index.push(self.words);
        }
        self.words = self.words.checked_add(1).ok_or_else(|| io::Error::other("too many names"))?;
        if tag & 1 == 0
            && let Some(entries) = self.entries.get_mut(usize::from(tag >> 1))
        {
            *entries += 1;
        }
        self.put(&(low48(hash) << 16 | u64::from(tag)).to_le_bytes())
    }

    /// Everything behind the words.
    pub(super) fn finish(mut self, lists: &[List], source: u64) -> io::Result<()> {
        self.index.resize(BUCKETS + 1, self.words);
        for place in std::mem::take(&mut self.index) {
            self.put(&place.to_le_bytes())?;
        }
        let mut lists_bytes = 0;
        for (number, list) in lists.iter().enumerate() {
            let entries = self.entries.get(number + 1).copied().unwrap_or(0) as u64;
            let length = u16::try_from(list.name.len()).map_err(io::Error::other)?;
            self.put(&list.score.to_le_bytes())?;
            self.put(&entries.to_le_bytes())?;
            self.put(&length.to_le_bytes())?;
            self.put(list.name.as_bytes())?;
            lists_bytes += 18 + u32::from(length);
        }
        self.put(&MAGIC)?;
        self.put(&u32::try_from(lists.len()).map_err(io::Error::other)?.to_le_bytes())?;
        self.put(&lists_bytes.to_le_bytes())?;
        self.put(&u64::from(self.words).to_le_bytes())?;
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
