//! The binary form of ubus: attributes ("blob") and named values in them ("blobmsg").
//!
//! In and out: bytes, and [`serde_json::Value`] as the form in between. Pure; any thread.
//!
//! Format (libubox `blob.h`, `blobmsg.h`), all numbers big-endian:
//! - an attribute is a `u32` with bit 31 = extended, bits 24..31 = id, bits 0..24 = length,
//!   these four bytes included; then its payload; then zeros up to a multiple of four, which
//!   the length does not count;
//! - a named value is an extended attribute whose id is its type and whose payload begins
//!   with a `u16` length, the name, a NUL, padded together to a multiple of four;
//! - types: 1 array, 2 table, 3 string (with its NUL), 4 to 7 integers of 64 to 8 bits (8 is
//!   also the boolean), 8 double.
//!
//! Invariants: no input makes a decoder panic, read past its end, or nest deeper than
//! [`DEPTH_MAX`]. An empty table of 8 bytes becomes some hundred bytes of memory, so callers
//! bound what they hand in. What is written here reads back as it was, apart from what JSON
//! has and ubus has not: null is left out, a NUL ends no string but is left out.

use serde_json::{Map, Number, Value};

/// Deepest nesting read or written.
pub const DEPTH_MAX: usize = 16;
/// Longest name of a value.
pub const NAME_BYTES_MAX: usize = 255;

const EXTENDED: u32 = 1 << 31;
const LENGTH: u32 = (1 << 24) - 1;
const HEADER: usize = 4;

/// The types of named values.
pub mod kind {
    /// A list; its members have empty names.
    pub const ARRAY: u8 = 1;
    /// Named members.
    pub const TABLE: u8 = 2;
    /// Text with a NUL behind it.
    pub const STRING: u8 = 3;
    /// 64 bits, signed.
    pub const INT64: u8 = 4;
    /// 32 bits, signed.
    pub const INT32: u8 = 5;
    /// 16 bits, signed.
    pub const INT16: u8 = 6;
    /// 8 bits; libubox has no other boolean.
    pub const BOOL: u8 = 7;
    /// IEEE 754, 64 bits.
    pub const DOUBLE: u8 = 8;
}

/// The bytes are not what they claim to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlobError {
    /// A length that is smaller than its header or larger than what is there.
    #[error("an attribute's length does not fit")]
    Length,
    /// A name without end, or too long.
    #[error("a value's name does not fit")]
    Name,
    /// A number or string of another size than its type.
    #[error("a value does not fit its type")]
    Value,
    /// Nested too deep.
    #[error("nested deeper than {DEPTH_MAX}")]
    Depth,
    /// No named value where one should be.
    #[error("a value without a name and type")]
    Bare,
}

/// One attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Bit 31: a named value.
    pub extended: bool,
    /// Its id; the type of a named value.
    pub id: u8,
    /// Without header and padding.
    pub payload: &'a [u8],
}

/// Attributes one after the other; ends behind the first that makes no sense.
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    rest: &'a [u8],
}

/// The attributes in `bytes`.
#[must_use]
pub const fn attributes(bytes: &[u8]) -> Attributes<'_> {
    Attributes { rest: bytes }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<Attribute<'a>, BlobError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let taken = take(self.rest);
        self.rest = match taken {
            Some((_, rest)) => rest,
            None => &[],
        };
        Some(taken.map(|(attribute, _)| attribute).ok_or(BlobError::Length))
    }
}

fn take(bytes: &[u8]) -> Option<(Attribute<'_>, &[u8])> {
    let (head, _) = bytes.split_first_chunk::<HEADER>()?;
    let head = u32::from_be_bytes(*head);
    let length = (head & LENGTH) as usize;
    let payload = bytes.get(HEADER..length)?;
    // The last attribute's padding may be missing.
    let rest = bytes.get(padded(length)..).unwrap_or_default();
    let attribute =
        Attribute { extended: head & EXTENDED != 0, id: (head >> 24 & 0x7f) as u8, payload };
    Some((attribute, rest))
}

const fn padded(n: usize) -> usize {
    n.next_multiple_of(4)
}

/// A string attribute's text, without its NUL.
#[must_use]
pub fn text(payload: &[u8]) -> Option<&[u8]> {
    payload.split_last().and_then(|(last, text)| (*last == 0).then_some(text))
}

/// A 32-bit number.
#[must_use]
pub fn number(payload: &[u8]) -> Option<u32> {
    payload.try_into().ok().map(u32::from_be_bytes)
}

/// Named values as a table: of two with one name the later counts.
///
/// # Errors
/// The first thing that makes no sense; nothing of a broken table is used.
pub fn read_table(bytes: &[u8]) -> Result<Map<String, Value>, BlobError> {
    members(bytes, 1)
}

fn members(bytes: &[u8], depth: usize) -> Result<Map<String, Value>, BlobError> {
    attributes(bytes).map(|attribute| named(attribute?, depth)).collect()
}

/// A named value: its name and what it holds.
fn named(attribute: Attribute<'_>, depth: usize) -> Result<(String, Value), BlobError> {
    let (name, data) = split_name(attribute)?;
    let name = String::from_utf8_lossy(name).into_owned();
    Ok((name, value(attribute.id, data, depth)?))
}

/// Name and data of a named value.
///
/// # Errors
/// [`BlobError::Bare`] or [`BlobError::Name`].
pub fn split_name(attribute: Attribute<'_>) -> Result<(&[u8], &[u8]), BlobError> {
    if !attribute.extended {
        return Err(BlobError::Bare);
    }
    let payload = attribute.payload;
    let (length, _) = payload.split_first_chunk::<2>().ok_or(BlobError::Name)?;
    let length = usize::from(u16::from_be_bytes(*length));
    let name = payload.get(2..2 + length).ok_or(BlobError::Name)?;
    // A NUL within would end it for every other reader, and make two names out of one.
    if length > NAME_BYTES_MAX || payload.get(2 + length) != Some(&0) || name.contains(&0) {
        return Err(BlobError::Name);
    }
    // An empty value may lack the padding behind its name.
    Ok((name, payload.get(padded(2 + length + 1)..).unwrap_or_default()))
}

fn value(id: u8, data: &[u8], depth: usize) -> Result<Value, BlobError> {
    if depth > DEPTH_MAX {
        return Err(BlobError::Depth);
    }
    Ok(match id {
        kind::TABLE => Value::Object(members(data, depth + 1)?),
        kind::ARRAY => {
            let member = |attribute: Result<_, _>| Ok(named(attribute?, depth + 1)?.1);
            Value::Array(attributes(data).map(member).collect::<Result<_, _>>()?)
        }
        kind::STRING => {
            let text = text(data).ok_or(BlobError::Value)?;
            Value::String(String::from_utf8_lossy(text).into_owned())
        }
        kind::INT64 => i64::from_be_bytes(sized(data)?).into(),
        kind::INT32 => i32::from_be_bytes(sized(data)?).into(),
        kind::INT16 => i16::from_be_bytes(sized(data)?).into(),
        kind::BOOL => (sized::<1>(data)? != [0]).into(),
        kind::DOUBLE => {
            let number = f64::from_be_bytes(sized(data)?);
            Number::from_f64(number).map_or(Value::Null, Value::Number)
        }
        // Types of times to come are no reason to refuse the rest.
        _ => Value::Null,
    })
}

fn sized<const N: usize>(data: &[u8]) -> Result<[u8; N], BlobError> {
    data.try_into().map_err(|_| BlobError::Value)
}

/// Writes attributes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Attributes that were written elsewhere, to be handed on.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let mut writer = Self { bytes: bytes.to_vec() };
        writer.pad();
        writer
    }

    /// The attributes written so far.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// A 32-bit number.
    #[must_use]
    pub fn u32(mut self, id: u8, number: u32) -> Self {
        self.plain(id, &number.to_be_bytes());
        self
    }

    /// One byte.
    #[must_use]
    pub fn u8(mut self, id: u8, number: u8) -> Self {
        self.plain(id, &[number]);
        self
    }

    /// A string with its NUL.
    #[must_use]
    pub fn text(mut self, id: u8, text: &str) -> Self {
        let start = self.open(u32::from(id) << 24);
        self.string(text);
        self.close(start);
        self
    }

    /// Bytes as they are: a payload taken from elsewhere.
    #[must_use]
    pub fn raw(mut self, id: u8, payload: &[u8]) -> Self {
        self.plain(id, payload);
        self
    }

    /// Named values inside an attribute.
    #[must_use]
    pub fn table(mut self, id: u8, table: &Map<String, Value>) -> Self {
        let start = self.open(u32::from(id) << 24);
        self.members(table, 1);
        self.close(start);
        self
    }

    /// One named value, on its own.
    #[must_use]
    pub fn named(mut self, name: &str, value: &Value) -> Self {
        self.value(name, value, 1);
        self
    }

    /// One named 32-bit number: what a method's signature is made of.
    #[must_use]
    pub fn named_u32(mut self, name: &str, number: u32) -> Self {
        let start = self.open_named(name, kind::INT32);
        self.bytes.extend(number.to_be_bytes());
        self.close(start);
        self
    }

    /// A named table of what another writer holds.
    #[must_use]
    pub fn named_table(mut self, name: &str, members: &Self) -> Self {
        let start = self.open_named(name, kind::TABLE);
        self.bytes.extend(&members.bytes);
        self.close(start);
        self
    }

    fn plain(&mut self, id: u8, payload: &[u8]) {
        let start = self.open(u32::from(id & 0x7f) << 24);
        self.bytes.extend(payload);
        self.close(start);
    }

    /// Begins an attribute; its length is filled in by [`Self::close`].
    fn open(&mut self, head: u32) -> usize {
        let start = self.bytes.len();
        self.bytes.extend(head.to_be_bytes());
        start
    }

    fn open_named(&mut self, name: &str, kind: u8) -> usize {
        let start = self.open(EXTENDED | u32::from(kind) << 24);
        let text = name.bytes().filter(|b| *b != 0).take(NAME_BYTES_MAX);
        let text: Vec<u8> = text.collect();
        // At most NAME_BYTES_MAX, so that the cast keeps it.
        self.bytes.extend((text.len() as u16).to_be_bytes());
        self.bytes.extend(&text);
        self.bytes.push(0);
        self.pad();
        start
    }

    fn close(&mut self, start: usize) {
        let length = (self.bytes.len() - start) as u32 & LENGTH;
        if let Some(head) = self.bytes.get_mut(start..start + HEADER) {
            let bits = <[u8; HEADER]>::try_from(&*head).map_or(0, u32::from_be_bytes);
            head.copy_from_slice(&(bits | length).to_be_bytes());
        }
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(padded(self.bytes.len()), 0);
    }

    fn string(&mut self, text: &str) {
        self.bytes.extend(text.bytes().filter(|b| *b != 0));
        self.bytes.push(0);
    }

    fn members(&mut self, table: &Map<String, Value>, depth: usize) {
        for (name, member) in table {
            self.value(name, member, depth);
        }
    }

    fn value(&mut self, name: &str, value: &Value, depth: usize) {
        let (kind, number) = match value {
            _ if depth > DEPTH_MAX => return,
            Value::Null => return,
            Value::Object(_) => (kind::TABLE, None),
            Value::Array(_) => (kind::ARRAY, None),
            Value::String(_) => (kind::STRING, None),
            Value::Bool(yes) => (kind::BOOL, Some(vec![u8::from(*yes)])),
            Value::Number(number) => match whole(number) {
                Some(whole) => (kind::INT64, Some(whole.to_be_bytes().to_vec())),
                None => {
                    let number = number.as_f64().unwrap_or_default();
                    (kind::DOUBLE, Some(number.to_be_bytes().to_vec()))
                }
            },
        };
        let start = self.open_named(name, kind);
        match value {
            Value::Object(table) => self.members(table, depth + 1),
            Value::Array(list) => {
                list.iter().for_each(|member| self.value("", member, depth + 1));
            }
            Value::String(text) => self.string(text),
            _ => self.bytes.extend(number.unwrap_or_default()),
        }
        self.close(start);
    }
}

/// An integer, if it is one; beyond `i64` it stays at the largest.
fn whole(number: &Number) -> Option<i64> {
    number.as_i64().or_else(|| number.as_u64().map(|_| i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[track_caller]
    fn written(writer: Writer, expected: &[u8]) {
        assert_eq!(writer.bytes(), expected);
    }

    #[test]
    fn the_layout_is_that_of_libubox() {
        written(Writer::default().u32(3, 1), b"\x03\x00\x00\x08\x00\x00\x00\x01");
        written(Writer::default().u8(10, 1), b"\x0a\x00\x00\x05\x01\x00\x00\x00");
        written(Writer::default().text(4, "send"), b"\x04\x00\x00\x09send\0\0\0\0");
        written(
            Writer::default().named("severity", &json!("high")),
            b"\x83\x00\x00\x15\x00\x08severity\0\0high\0\0\0\0",
        );
        written(
            Writer::default().named("n", &json!(-2)),
            b"\x84\x00\x00\x10\x00\x01n\0\xff\xff\xff\xff\xff\xff\xff\xfe",
        );
        written(
            Writer::default().named("yes", &json!(true)),
            b"\x87\x00\x00\x0d\x00\x03yes\0\0\0\x01\0\0\0",
        );
        written(
            Writer::default().named("a", &json!(["x", null])),
            b"\x81\x00\x00\x14\x00\x01a\0\x83\x00\x00\x0a\x00\x00\0\0x\0\0\0",
        );
        written(
            Writer::default().named_u32("limit", 5),
            b"\x85\x00\x00\x10\x00\x05limit\0\x00\x00\x00\x05",
        );
        written(
            Writer::default().table(7, &json!({"t": {}}).as_object().unwrap().clone()),
            b"\x07\x00\x00\x0c\x82\x00\x00\x08\x00\x01t\0",
        );
    }

    #[track_caller]
    fn check(bytes: &[u8], expected: Result<Value, BlobError>) {
        assert_eq!(read_table(bytes).map(Value::Object), expected);
    }

    #[test]
    fn hostile_bytes_are_refused_and_unknown_types_are_null() {
        check(b"", Ok(json!({})));
        check(b"\x83\x00\x00", Err(BlobError::Length));
        check(b"\x83\x00\x00\x03", Err(BlobError::Length));
        check(b"\x83\x00\x00\x00\x00\x01n\0", Err(BlobError::Length));
        check(b"\x83\xff\xff\xff\x00\x01n\0x\0\0\0", Err(BlobError::Length));
        check(b"\x03\x00\x00\x0a\x00\x01n\0x\0\0\0", Err(BlobError::Bare));
        check(b"\x83\x00\x00\x05\x00\0\0\0", Err(BlobError::Name));
        check(b"\x83\x00\x00\x0a\xff\xffn\0x\0\0\0", Err(BlobError::Name));
        check(b"\x83\x00\x00\x0a\x00\x01nox\0\0\0", Err(BlobError::Name));
        check(b"\x83\x00\x00\x0e\x00\x02\0n\0\0\0\0x\0\0\0", Err(BlobError::Name));
        check(b"\x83\x00\x00\x09\x00\x01n\0x\0\0\0", Err(BlobError::Value));
        check(b"\x83\x00\x00\x08\x00\x01n\0", Err(BlobError::Value));
        check(b"\x85\x00\x00\x0a\x00\x01n\0\0\0\0\0", Err(BlobError::Value));
        check(b"\xff\x00\x00\x0a\x00\x01n\0\0\0\0\0", Ok(json!({ "n": null })));
        check(b"\x83\x00\x00\x0a\x00\x01n\0x\0", Ok(json!({ "n": "x" })));
        check(b"\x83\x00\x00\x0a\x00\x01n\0\xff\0\0\0", Ok(json!({ "n": "\u{fffd}" })));
        check(b"\x86\x00\x00\x0a\x00\x01n\0\xff\xfe\0\0", Ok(json!({ "n": -2 })));
        let nan = [b"\x88\x00\x00\x10\x00\x01n\0".as_slice(), &f64::NAN.to_be_bytes()].concat();
        check(&nan, Ok(json!({ "n": null })));
    }

    #[test]
    fn nesting_has_an_end() {
        let nest = |depth| (0..depth).fold(json!({}), |inner, _| json!({ "t": inner }));
        let bytes = |value: &Value| {
            let Value::Object(table) = value else { panic!("a table") };
            let mut writer = Writer::default();
            writer.members(table, 1);
            writer.bytes
        };
        let deepest = nest(DEPTH_MAX);
        check(&bytes(&deepest), Ok(deepest));
        // Written only as deep as it may be read.
        check(&bytes(&nest(DEPTH_MAX + 3)), Ok(nest(DEPTH_MAX)));
        let one_more =
            Writer::default().named_table("t", &Writer { bytes: bytes(&nest(DEPTH_MAX)) });
        check(one_more.bytes(), Err(BlobError::Depth));
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (-1e9..1e9f64).prop_map(Value::from),
            "[^\0]{0,20}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 64, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
                prop::collection::btree_map("[a-z_]{0,9}", inner, 0..8)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(value in any_value()) {
            let writer = Writer::default().named("v", &value);
            prop_assert_eq!(writer.bytes().len() % 4, 0);
            let read = read_table(writer.bytes()).map(|mut table| table.remove("v"));
            prop_assert_eq!(read, Ok(Some(value)));
        }

        #[test]
        fn any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(attributes(&bytes).count() <= bytes.len() / HEADER + 1);
            drop(read_table(&bytes));
        }

        #[test]
        fn a_flipped_byte_never_panics(value in any_value(), at in 0usize..400, to: u8) {
            let mut bytes = Writer::default().named("v", &value).bytes;
            if let Some(byte) = bytes.get_mut(at) {
                *byte = to;
            }
            drop(read_table(&bytes));
        }
    }
}
