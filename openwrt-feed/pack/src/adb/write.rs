//! Makes the tree of values and the blocks around it.
//!
//! Invariants: equal values are stored once, as apk's own tools do; offsets stay below 2^28;
//! what is too large for the format is refused.

use std::collections::HashMap;

use anyhow::{Context as _, ensure};

use super::{
    Block, HEADER_BYTES, MAGIC_DEFLATE, MAGIC_PLAIN, TYPE_ARRAY, TYPE_BLOB_8, TYPE_BLOB_16,
    TYPE_BLOB_32, TYPE_INT, TYPE_INT_32, TYPE_INT_64, TYPE_OBJECT, VALUE_MASK, Value,
};
use crate::tarball::dense;

/// Largest content of a block with a short header.
const BLOCK_BYTES_MAX: usize = 0x3fff_ffff - 4;

/// The content of an ADB block whose root is `value`.
///
/// # Errors
/// More than the format can hold.
pub fn adb(value: &Value) -> anyhow::Result<Vec<u8>> {
    let mut writer = Writer { bytes: vec![0; HEADER_BYTES], stored: HashMap::new() };
    let root = writer.value(value)?;
    let place = writer.bytes.get_mut(4..HEADER_BYTES).context("a header")?;
    place.copy_from_slice(&root.to_le_bytes());
    Ok(writer.bytes)
}

struct Writer {
    bytes: Vec<u8>,
    /// Where data is stored already, by its bytes.
    stored: HashMap<Vec<u8>, u32>,
}

impl Writer {
    fn value(&mut self, value: &Value) -> anyhow::Result<u32> {
        match value {
            Value::Null => Ok(0),
            Value::Int(number) => self.int(*number),
            Value::Blob(blob) => self.blob(blob, true),
            Value::Own(blob) => self.blob(blob, false),
            Value::Object(slots) => self.row(TYPE_OBJECT, slots),
            Value::Array(elements) => self.row(TYPE_ARRAY, elements),
        }
    }

    fn int(&mut self, number: u64) -> anyhow::Result<u32> {
        match u32::try_from(number) {
            Ok(small) if small <= VALUE_MASK => Ok(TYPE_INT | small),
            Ok(word) => Ok(TYPE_INT_32 | self.data(word.to_le_bytes().to_vec(), 4, true)?),
            Err(_) => Ok(TYPE_INT_64 | self.data(number.to_le_bytes().to_vec(), 4, true)?),
        }
    }

    fn blob(&mut self, blob: &[u8], shared: bool) -> anyhow::Result<u32> {
        let len = blob.len();
        if len == 0 {
            return Ok(0);
        }
        let (kind, align, mut data) = match (u8::try_from(len), u16::try_from(len)) {
            (Ok(len), _) => (TYPE_BLOB_8, 1, len.to_le_bytes().to_vec()),
            (_, Ok(len)) => (TYPE_BLOB_16, 2, len.to_le_bytes().to_vec()),
            _ => (TYPE_BLOB_32, 4, u32::try_from(len)?.to_le_bytes().to_vec()),
        };
        data.extend_from_slice(blob);
        Ok(kind | self.data(data, align, shared)?)
    }

    fn row(&mut self, kind: u32, values: &[Value]) -> anyhow::Result<u32> {
        let mut words = vec![0];
        for value in values {
            words.push(self.value(value)?);
        }
        while words.len() > 1 && words.last() == Some(&0) {
            words.pop();
        }
        if words.len() == 1 {
            return Ok(0);
        }
        let count = u32::try_from(words.len())?;
        if let Some(first) = words.first_mut() {
            *first = count;
        }
        let data = words.into_iter().flat_map(u32::to_le_bytes).collect();
        Ok(kind | self.data(data, 4, true)?)
    }

    /// Stores bytes, or finds equal ones that are aligned well enough.
    fn data(&mut self, data: Vec<u8>, align: usize, shared: bool) -> anyhow::Result<u32> {
        if shared
            && let Some(&offset) = self.stored.get(&data)
            && (offset as usize).is_multiple_of(align)
        {
            return Ok(offset);
        }
        self.bytes.resize(self.bytes.len().next_multiple_of(align), 0);
        let offset = u32::try_from(self.bytes.len())?;
        ensure!(offset <= VALUE_MASK, "more than the format can address");
        self.bytes.extend_from_slice(&data);
        if shared {
            self.stored.insert(data, offset);
        }
        Ok(offset)
    }
}

/// A file: magic, schema, then the blocks.
///
/// # Errors
/// A block that is too large.
pub fn file(schema: u32, blocks: &[(Block, Vec<u8>)]) -> anyhow::Result<Vec<u8>> {
    let mut file = MAGIC_PLAIN.to_vec();
    file.extend(schema.to_le_bytes());
    for (kind, content) in blocks {
        ensure!(content.len() <= BLOCK_BYTES_MAX, "a block of {} bytes", content.len());
        let kind: u32 = match kind {
            Block::Adb => 0,
            Block::Signature => 1,
            Block::Data => 2,
        };
        let word = (kind << 30) | (u32::try_from(content.len())? + 4);
        file.extend(word.to_le_bytes());
        file.extend_from_slice(content);
        // The file's own header is 8 bytes long, so its end tells the padding.
        file.resize(file.len().next_multiple_of(8), 0);
    }
    Ok(file)
}

/// The file as it is shipped: raw deflate behind its own magic.
///
/// # Errors
/// None that a buffer in memory can cause.
pub fn compressed(file: &[u8]) -> anyhow::Result<Vec<u8>> {
    let packed = dense(file, zopfli::Format::Deflate)?;
    Ok([MAGIC_DEFLATE.as_slice(), &packed].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: &Value, expected: &[u8]) {
        let adb = adb(value).unwrap();
        assert_eq!(adb.get(4..).unwrap(), expected, "{value:?}");
    }

    #[test]
    fn values_have_the_documented_form() {
        check(&Value::Null, &[0, 0, 0, 0]);
        check(&Value::Int(5), &[5, 0, 0, 0x10]);
        check(&Value::Int(0x1000_0000), &[8, 0, 0, 0x20, 0, 0, 0, 0x10]);
        check(&Value::Int(1 << 32), &[8, 0, 0, 0x30, 0, 0, 0, 0, 1, 0, 0, 0]);
        check(&Value::text("ab"), &[8, 0, 0, 0x80, 2, b'a', b'b']);
        check(&Value::text(""), &[0, 0, 0, 0]);
        check(&Value::Array(vec![Value::Null]), &[0, 0, 0, 0]);
        let object = Value::Object(vec![Value::Null, Value::Int(7), Value::Null]);
        check(&object, &[8, 0, 0, 0xe0, 3, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0x10]);
    }

    #[test]
    fn equal_values_are_stored_once_and_own_ones_are_not() {
        let twice = |v: fn(Vec<u8>) -> Value| {
            adb(&Value::Array(vec![v(b"abc".to_vec()), v(b"abc".to_vec())])).unwrap().len()
        };
        assert_eq!(twice(Value::Own) - twice(Value::Blob), 4);
    }

    #[test]
    fn long_blobs_have_longer_lengths() {
        let word = |len: usize| {
            let adb = adb(&Value::Blob(vec![1; len])).unwrap();
            adb.get(7).copied().unwrap()
        };
        assert_eq!([word(255), word(256), word(65_535), word(65_536)], [0x80, 0x90, 0x90, 0xa0]);
    }

    #[test]
    fn blocks_are_padded_to_eight() {
        let file = file(0x1234, &[(Block::Adb, vec![1; 5]), (Block::Data, vec![])]).unwrap();
        let expected = [
            *b"ADB.\x34\x12\0\0",
            [9, 0, 0, 0, 1, 1, 1, 1],
            [1, 0, 0, 0, 0, 0, 0, 0],
            [4, 0, 0, 0x80, 0, 0, 0, 0],
        ];
        assert_eq!(file, expected.concat());
    }
}
