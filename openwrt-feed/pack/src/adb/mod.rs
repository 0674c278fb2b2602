//! The binary form of version 3 of Alpine's package format, which OpenWrt 25.12 uses:
//! packages and indexes are one tree of values (`ADB`) in a file of blocks.
//!
//! Format (apk-tools, `doc/apk-v3.5`), everything little-endian:
//! - A file is `ADB.`, a schema word, then blocks; or the same compressed: `ADBd` before raw
//!   deflate, `ADBc` with a byte for the method (1 deflate, 2 zstd) and one for the level.
//! - A block is a 32-bit word (type in the two highest bits, length with the word in the
//!   rest), its content, and zeros up to a multiple of 8. First one ADB block, then
//!   signatures, then one DATA block per file.
//! - An ADB block is 8 bytes of header (versions 0, the root value last) and values. A value
//!   is a word: type in the four highest bits, then a small number or an offset into the
//!   block. Blobs are stored with their length in front (1, 2 or 4 bytes), objects and
//!   arrays as a row of words, the count (with itself) first. Equal data is stored once.
//!
//! [`write`] makes such files, [`read`] takes them apart; [`schema`] names the slots.

pub mod read;
pub mod schema;
pub mod write;

/// First bytes of a file as it is before compression.
pub const MAGIC_PLAIN: &[u8; 4] = b"ADB.";
/// First bytes of a file compressed by raw deflate.
pub const MAGIC_DEFLATE: &[u8; 4] = b"ADBd";

/// A value as this crate writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Nothing: an empty slot.
    Null,
    /// A number.
    Int(u64),
    /// Bytes or text; an empty one is nothing.
    Blob(Vec<u8>),
    /// Bytes that have a place of their own, never shared with equal ones.
    Own(Vec<u8>),
    /// Slots by their number, from 1; empty ones at the end are left out.
    Object(Vec<Value>),
    /// Elements in their final order.
    Array(Vec<Value>),
}

impl Value {
    /// Text.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self::Blob(text.as_bytes().to_vec())
    }
}

/// Kinds of block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// The tree of values.
    Adb,
    /// A signature of it.
    Signature,
    /// A file's bytes.
    Data,
}

pub(crate) const TYPE_INT: u32 = 0x1000_0000;
pub(crate) const TYPE_INT_32: u32 = 0x2000_0000;
pub(crate) const TYPE_INT_64: u32 = 0x3000_0000;
pub(crate) const TYPE_BLOB_8: u32 = 0x8000_0000;
pub(crate) const TYPE_BLOB_16: u32 = 0x9000_0000;
pub(crate) const TYPE_BLOB_32: u32 = 0xa000_0000;
pub(crate) const TYPE_ARRAY: u32 = 0xd000_0000;
pub(crate) const TYPE_OBJECT: u32 = 0xe000_0000;
pub(crate) const VALUE_MASK: u32 = 0x0fff_ffff;
/// Bytes of the header inside an ADB block; the root's word is its second half.
pub(crate) const HEADER_BYTES: usize = 8;
