//! Takes files of blocks and trees of values apart.
//!
//! Invariants: whatever the bytes, nothing panics and no more is read than the limits of
//! this crate; an offset out of the block is an error, not an empty value. A view borrows
//! the block, so that hostile offsets (many slots that point to one place) cost nothing.

use flate2::read::DeflateDecoder;
use thiserror::Error;

use super::{
    Block, HEADER_BYTES, MAGIC_DEFLATE, MAGIC_PLAIN, TYPE_ARRAY, TYPE_BLOB_8, TYPE_BLOB_16,
    TYPE_BLOB_32, TYPE_INT, TYPE_INT_32, TYPE_INT_64, TYPE_OBJECT, VALUE_MASK,
};
use crate::{ENTRIES_MAX, tarball::read_bounded};

/// Why a file cannot be read.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum AdbError {
    /// It does not begin as one.
    #[error("no apk v3 file: it begins with neither `ADB.` nor `ADBd`")]
    Magic,
    /// Its compression is broken, or it unpacks to too much.
    #[error("cannot be decompressed: {0}")]
    Compression(String),
    /// A block that is cut off, or of a kind that cannot stand there.
    #[error("a broken block at byte {0}")]
    Block(usize),
    /// A value that points out of its block, or is of another type than it must be.
    #[error("a broken value: {0}")]
    Value(&'static str),
    /// More than anybody needs.
    #[error("more than {ENTRIES_MAX} {0}")]
    TooMany(&'static str),
}

/// A file's schema and blocks.
#[derive(Debug)]
pub struct File {
    bytes: Vec<u8>,
    blocks: Vec<(Block, std::ops::Range<usize>)>,
    /// What it is: [`super::schema::PACKAGE`] or [`super::schema::INDEX`].
    pub schema: u32,
}

impl File {
    /// Reads a file, compressed or not.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, AdbError> {
        let magic = bytes.get(..4).ok_or(AdbError::Magic)?;
        let broken = |e: anyhow::Error| AdbError::Compression(format!("{e:#}"));
        let plain = if magic == MAGIC_PLAIN {
            read_bounded(bytes).map_err(broken)?
        } else if magic == MAGIC_DEFLATE {
            let packed = bytes.get(4..).unwrap_or_default();
            read_bounded(DeflateDecoder::new(packed)).map_err(broken)?
        } else {
            return Err(AdbError::Magic);
        };
        if plain.get(..4) != Some(MAGIC_PLAIN) {
            return Err(AdbError::Magic);
        }
        let schema = word(&plain, 4).ok_or(AdbError::Magic)?;
        Ok(Self { blocks: blocks(&plain)?, bytes: plain, schema })
    }

    /// Contents of the blocks of one kind.
    pub fn blocks(&self, kind: Block) -> impl Iterator<Item = &[u8]> {
        let of_kind = self.blocks.iter().filter(move |(k, _)| *k == kind);
        of_kind.filter_map(|(_, range)| self.bytes.get(range.clone()))
    }

    /// The tree of values.
    ///
    /// # Errors
    /// There is none, or it is of a version this cannot read.
    pub fn adb(&self) -> Result<Adb<'_>, AdbError> {
        let bytes = self.blocks(Block::Adb).next().ok_or(AdbError::Block(8))?;
        if bytes.len() < HEADER_BYTES || bytes.first() != Some(&0) {
            return Err(AdbError::Value("no header, or of an unknown version"));
        }
        Ok(Adb(bytes))
    }
}

fn blocks(file: &[u8]) -> Result<Vec<(Block, std::ops::Range<usize>)>, AdbError> {
    let mut blocks = Vec::new();
    let mut at = 8;
    while at < file.len() {
        let word = word(file, at).ok_or(AdbError::Block(at))?;
        // The fourth kind announces sizes of 1 GiB and more: none of ours.
        let kind = match word >> 30 {
            0 if blocks.is_empty() => Block::Adb,
            1 if !blocks.is_empty() => Block::Signature,
            2 if !blocks.is_empty() => Block::Data,
            _ => return Err(AdbError::Block(at)),
        };
        let size = (word & 0x3fff_ffff) as usize;
        let end = at.checked_add(size).filter(|&end| size >= 4 && end <= file.len());
        let end = end.ok_or(AdbError::Block(at))?;
        blocks.push((kind, at + 4..end));
        if blocks.len() > ENTRIES_MAX {
            return Err(AdbError::TooMany("blocks"));
        }
        at = end.next_multiple_of(8);
    }
    Ok(blocks)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(four.try_into().ok()?))
}

/// The content of an ADB block.
#[derive(Clone, Copy, Debug)]
pub struct Adb<'a>(&'a [u8]);

impl<'a> Adb<'a> {
    /// All its bytes: what is hashed and signed.
    #[must_use]
    pub fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// The root.
    ///
    /// # Errors
    /// It is no object.
    pub fn root(self) -> Result<Row<'a>, AdbError> {
        let root = word(self.0, 4).ok_or(AdbError::Value("no root"))?;
        self.row(root)
    }

    fn row(self, value: u32) -> Result<Row<'a>, AdbError> {
        if value == 0 {
            return Ok(Row { adb: self, words: &[] });
        }
        if !matches!(value & !VALUE_MASK, TYPE_OBJECT | TYPE_ARRAY) {
            return Err(AdbError::Value("neither an object nor an array"));
        }
        let at = (value & VALUE_MASK) as usize;
        let count = word(self.0, at).ok_or(AdbError::Value("outside of its block"))? as usize;
        if count > ENTRIES_MAX + 1 {
            return Err(AdbError::TooMany("slots"));
        }
        let words = self.0.get(at..at + count * 4).and_then(|words| words.get(4..));
        Ok(Row { adb: self, words: words.ok_or(AdbError::Value("outside of its block"))? })
    }

    fn int(self, value: u32) -> Result<u64, AdbError> {
        let at = (value & VALUE_MASK) as usize;
        let outside = AdbError::Value("outside of its block");
        match value & !VALUE_MASK {
            0 if value == 0 => Ok(0),
            TYPE_INT => Ok(at as u64),
            TYPE_INT_32 => word(self.0, at).map(u64::from).ok_or(outside),
            TYPE_INT_64 => {
                let eight = self.0.get(at..at + 8).and_then(|b| b.try_into().ok());
                eight.map(u64::from_le_bytes).ok_or(outside)
            }
            _ => Err(AdbError::Value("no number")),
        }
    }

    fn blob(self, value: u32) -> Result<&'a [u8], AdbError> {
        let at = (value & VALUE_MASK) as usize;
        let width = match value & !VALUE_MASK {
            0 if value == 0 => return Ok(&[]),
            TYPE_BLOB_8 => 1,
            TYPE_BLOB_16 => 2,
            TYPE_BLOB_32 => 4,
            _ => return Err(AdbError::Value("no bytes")),
        };
        let outside = AdbError::Value("outside of its block");
        let Some(len) = self.0.get(at..at + width) else { return Err(outside) };
        let len = len.iter().rev().fold(0usize, |sum, &byte| (sum << 8) | usize::from(byte));
        let from = at + width;
        from.checked_add(len).and_then(|to| self.0.get(from..to)).ok_or(outside)
    }
}

/// An object or an array: slots from 1.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    adb: Adb<'a>,
    words: &'a [u8],
}

impl<'a> Row<'a> {
    /// How many slots there are.
    #[must_use]
    pub fn len(self) -> usize {
        self.words.len() / 4
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    fn slot(self, slot: usize) -> u32 {
        slot.checked_sub(1).and_then(|index| word(self.words, index * 4)).unwrap_or(0)
    }

    /// An object or array in a slot; an empty one where the slot is empty.
    ///
    /// # Errors
    /// The slot holds something else, or points outside.
    pub fn row(self, slot: usize) -> Result<Row<'a>, AdbError> {
        self.adb.row(self.slot(slot))
    }

    /// A number in a slot; 0 where it is empty.
    ///
    /// # Errors
    /// The slot holds something else, or points outside.
    pub fn int(self, slot: usize) -> Result<u64, AdbError> {
        self.adb.int(self.slot(slot))
    }

    /// Bytes in a slot; none where it is empty.
    ///
    /// # Errors
    /// The slot holds something else, or points outside.
    pub fn blob(self, slot: usize) -> Result<&'a [u8], AdbError> {
        self.adb.blob(self.slot(slot))
    }

    /// Text in a slot.
    ///
    /// # Errors
    /// As [`Self::blob`], or no UTF-8.
    pub fn text(self, slot: usize) -> Result<&'a str, AdbError> {
        str::from_utf8(self.blob(slot)?).map_err(|_| AdbError::Value("text that is no UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Value, write};
    use super::*;

    fn sample() -> Vec<u8> {
        let inner = Value::Array(vec![Value::text("x"), Value::Int(1 << 40)]);
        let root = Value::Object(vec![Value::Int(0x2000_0000), inner, Value::Blob(vec![7; 300])]);
        let adb = write::adb(&root).unwrap();
        write::file(7, &[(Block::Adb, adb), (Block::Data, vec![1, 2, 3])]).unwrap()
    }

    #[track_caller]
    fn check_sample(bytes: &[u8]) {
        let file = File::parse(bytes).unwrap();
        assert_eq!(file.schema, 7);
        let root = file.adb().unwrap().root().unwrap();
        assert_eq!((root.len(), root.int(1)), (3, Ok(0x2000_0000)));
        let inner = root.row(2).unwrap();
        assert_eq!((inner.text(1), inner.int(2)), (Ok("x"), Ok(1 << 40)));
        assert_eq!(root.blob(3), Ok([7; 300].as_slice()));
        assert_eq!((root.blob(4), root.int(0)), (Ok([].as_slice()), Ok(0)));
        assert_eq!(root.text(1), Err(AdbError::Value("no bytes")));
        assert_eq!(file.blocks(Block::Data).collect::<Vec<_>>(), [[1, 2, 3]]);
    }

    #[test]
    fn what_was_written_is_read() {
        check_sample(&sample());
        check_sample(&write::compressed(&sample()).unwrap());
    }

    #[track_caller]
    fn refused(bytes: &[u8], why: &AdbError) {
        assert_eq!(&File::parse(bytes).unwrap_err(), why);
    }

    #[test]
    fn what_is_none_is_refused() {
        refused(b"", &AdbError::Magic);
        refused(b"ADBx1234", &AdbError::Magic);
        refused(b"ADB.123", &AdbError::Magic);
        // A signature before there is anything to sign; a block longer than the file.
        refused(b"ADB.1234\x04\0\0\x40", &AdbError::Block(8));
        refused(b"ADB.1234\xff\0\0\0", &AdbError::Block(8));
        refused(b"ADB.1234\x03\0\0\0", &AdbError::Block(8));
        assert!(matches!(File::parse(b"ADBdxx"), Err(AdbError::Compression(_))));
    }

    /// Goes through everything a tree can hold, some levels deep.
    fn walk(row: Row<'_>, depth: usize) {
        for slot in 0..=row.len().min(20) {
            drop((row.int(slot), row.text(slot)));
            if let Ok(inner) = row.row(slot)
                && depth > 0
            {
                walk(inner, depth - 1);
            }
        }
    }

    fn try_all(bytes: &[u8]) {
        if let Ok(file) = File::parse(bytes)
            && let Ok(root) = file.adb().and_then(Adb::root)
        {
            walk(root, 3);
        }
    }

    proptest! {
        #[test]
        fn anything_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            try_all(&[b"ADB.1234".as_slice(), &bytes].concat());
            try_all(&[b"ADBd".as_slice(), &bytes].concat());
        }

        #[test]
        fn a_broken_file_is_read_or_refused(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        ) {
            let mut bytes = sample();
            for (at, to) in changes {
                let at = at.index(bytes.len());
                *bytes.get_mut(at).unwrap() = to;
            }
            try_all(&bytes);
        }
    }
}
