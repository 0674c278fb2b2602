//! DNS names as printable, lower-case ASCII text.
//!
//! A name from the network is bytes: it may hold NULs, escape sequences, dots inside
//! labels or invalid UTF-8. [`Name`] is made once, at the border, and from then on is safe
//! to print, log, store and compare: every byte outside `!`..`~`, and `\`, `"` and a dot
//! inside a label, is written as `\DDD` (RFC 4343 section 2.1, RFC 1035 section 5.1).
//! Letters are lower-cased (names compare without case, RFC 4343; clients randomise case).
//! No trailing dot; the root is `.`.
//!
//! Invariants: 1 to [`NAME_TEXT_BYTES_MAX`] bytes of printable ASCII; at most 255 octets
//! in wire form; each label 1 to 63 octets.

use std::fmt;
use std::sync::Arc;

/// Longest text: 255 octets on the wire hold at most 250 label octets, each at most four
/// characters (`\DDD`), plus dots.
pub const NAME_TEXT_BYTES_MAX: usize = 1_024;
/// RFC 1035 section 2.3.4.
pub const NAME_WIRE_OCTETS_MAX: usize = 255;
/// RFC 1035 section 2.3.4.
pub const LABEL_OCTETS_MAX: usize = 63;

/// A DNS name: printable ASCII, lower case, without trailing dot. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

/// Why bytes are no DNS name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing there.
    #[error("empty name")]
    Empty,
    /// Two dots in a row, or a leading dot.
    #[error("empty label")]
    EmptyLabel,
    /// A label of more than 63 octets.
    #[error("label longer than {LABEL_OCTETS_MAX} octets")]
    LabelTooLong,
    /// More than 255 octets on the wire.
    #[error("name longer than {NAME_WIRE_OCTETS_MAX} octets")]
    TooLong,
}

impl Name {
    /// Reads presentation form as found in logs and lists: labels divided by dots,
    /// `\DDD` and `\C` escapes honoured, optional trailing dot, any other byte taken as is.
    ///
    /// # Errors
    /// [`NameError`] says which rule of RFC 1035 is broken.
    pub fn parse(text: &[u8]) -> Result<Self, NameError> {
        if text == b"." {
            return Ok(Self(Arc::from(".")));
        }
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        // The common case by far: plain characters only, nothing to escape.
        let mut builder = NameBuilder::new();
        let mut i = 0;
        let mut open = false;
        while let Some(&b) = text.get(i) {
            match b {
                b'.' => {
                    builder.end_label()?;
                    open = false;
                    i += 1;
                }
                b'\\' => {
                    let (byte, used) = unescape(text.get(i + 1..).unwrap_or_default());
                    builder.push(byte)?;
                    open = true;
                    i += 1 + used;
                }
                _ => {
                    builder.push(b)?;
                    open = true;
                    i += 1;
                }
            }
        }
        if open {
            builder.end_label()?;
        }
        builder.finish()
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Labels from left to right; none for the root.
    pub fn labels(&self) -> impl DoubleEndedIterator<Item = &str> {
        // Dots inside labels are escaped, so every dot divides.
        self.0.split('.').filter(|l| !l.is_empty())
    }

    /// This name and each parent, longest first: `a.b.c`, `b.c`, `c`. Empty for the root.
    pub fn suffixes(&self) -> impl Iterator<Item = &str> + Clone {
        let mut rest = (self.0.as_ref() != ".").then_some(self.0.as_ref());
        std::iter::from_fn(move || {
            let this = rest?;
            rest = this.split_once('.').map(|(_, parent)| parent);
            Some(this)
        })
    }

    /// The registrable domain (public suffix plus one label, the list's private part
    /// included), or `None` for a public suffix, a single label or a reverse name.
    #[must_use]
    pub fn registrable(&self) -> Option<&str> {
        if self.is_reverse() {
            return None;
        }
        crate::suffix::domain(&self.0)
    }

    /// The registrable domain, or the whole name where there is none.
    #[must_use]
    pub fn domain(&self) -> &str {
        self.registrable().unwrap_or(&self.0)
    }

    /// Names below `in-addr.arpa` and `ip6.arpa`: reverse look-ups.
    #[must_use]
    pub fn is_reverse(&self) -> bool {
        self.is_at_or_below("in-addr.arpa") || self.is_at_or_below("ip6.arpa")
    }

    /// Is this name `parent` or below it? Compares on label boundaries.
    #[must_use]
    pub fn is_at_or_below(&self, parent: &str) -> bool {
        self.0.strip_suffix(parent).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }
}

/// After a backslash: `DDD` (three digits up to 255) or one literal byte; a backslash at
/// the end stands for itself. Returns the byte and how many input bytes it took.
fn unescape(after: &[u8]) -> (u8, usize) {
    if let [a @ b'0'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', ..] = after {
        let value = u32::from(a - b'0') * 100 + u32::from(b - b'0') * 10 + u32::from(c - b'0');
        if let Ok(byte) = u8::try_from(value) {
            return (byte, 3);
        }
    }
    match after.first() {
        Some(&b) => (b, 1),
        None => (b'\\', 0),
    }
}

/// Builds a [`Name`] octet by octet: what the DNS message decoder uses.
#[derive(Debug)]
pub struct NameBuilder {
    text: String,
    label_octets: usize,
    wire_octets: usize,
}

impl Default for NameBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl NameBuilder {
    /// An empty name.
    #[must_use]
    pub fn new() -> Self {
        // 1: the root label's length octet.
        Self { text: String::with_capacity(64), label_octets: 0, wire_octets: 1 }
    }

    /// One octet of the current label, as it stands on the wire.
    ///
    /// # Errors
    /// When the label or the name gets too long.
    pub fn push(&mut self, octet: u8) -> Result<(), NameError> {
        if self.label_octets == 0 {
            self.wire_octets += 1;
        }
        self.label_octets += 1;
        self.wire_octets += 1;
        if self.label_octets > LABEL_OCTETS_MAX {
            return Err(NameError::LabelTooLong);
        }
        if self.wire_octets > NAME_WIRE_OCTETS_MAX {
            return Err(NameError::TooLong);
        }
        match octet.to_ascii_lowercase() {
            b @ (b'.' | b'\\' | b'"' | 0..=b' ' | 0x7f..) => {
                self.text.push('\\');
                for digit in [b / 100, b / 10 % 10, b % 10] {
                    self.text.push(char::from(b'0' + digit));
                }
            }
            b => self.text.push(char::from(b)),
        }
        Ok(())
    }

    /// The current label is complete.
    ///
    /// # Errors
    /// When it is empty.
    pub fn end_label(&mut self) -> Result<(), NameError> {
        if self.label_octets == 0 {
            return Err(NameError::EmptyLabel);
        }
        self.label_octets = 0;
        self.text.push('.');
        Ok(())
    }

    /// The finished name; no label at all is the root.
    ///
    /// # Errors
    /// None today; room for checks over the whole name.
    pub fn finish(mut self) -> Result<Name, NameError> {
        if self.text.is_empty() {
            return Ok(Name(Arc::from(".")));
        }
        if self.text.ends_with('.') {
            self.text.pop();
        }
        Ok(Name(Arc::from(self.text)))
    }
}

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({})", self.0)
    }
}
impl std::str::FromStr for Name {
    type Err = NameError;
    fn from_str(s: &str) -> Result<Self, NameError> {
        Self::parse(s.as_bytes())
    }
}
impl serde::Serialize for Name {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}
impl<'de> serde::Deserialize<'de> for Name {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Any bytes as printable text of at most `max` input bytes: control characters, bytes
/// outside ASCII, quotes and backslashes as `\xNN`, a cut marked by `...`. For log fields
/// that are no DNS names: interface names, host names, prefixes.
#[must_use]
pub fn printable(bytes: &[u8], max: usize) -> String {
    let mut out = String::with_capacity(bytes.len().min(max));
    for &b in bytes.iter().take(max) {
        match b {
            b' '..=b'~' if b != b'\\' => out.push(char::from(b)),
            _ => {
                out.push_str("\\x");
                for nibble in [b >> 4, b & 15] {
                    out.push(char::from_digit(u32::from(nibble), 16).unwrap_or('?'));
                }
            }
        }
    }
    if bytes.len() > max {
        out.push_str("...");
    }
    out
}

/// Printable ASCII cut to `max` bytes (at least 3), a cut marked by `...`.
#[must_use]
pub fn cut(mut text: String, max: usize) -> String {
    if text.len() > max {
        let keep = (0..=max.saturating_sub(3)).rev().find(|n| text.is_char_boundary(*n));
        text.truncate(keep.unwrap_or(0));
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(input: &[u8], expected: Result<&str, NameError>) {
        assert_eq!(Name::parse(input).as_ref().map(Name::as_str), expected.as_ref().copied());
    }

    #[test]
    fn parses_presentation_form() {
        check(b"WWW.Example.COM.", Ok("www.example.com"));
        check(b".", Ok("."));
        check(b"_sip._tcp.example.com", Ok("_sip._tcp.example.com"));
        check(b"a\\.b.example", Ok("a\\046b.example"));
        check(b"a\\000b.example", Ok("a\\000b.example"));
        check(b"a\x1b[31mb.example", Ok("a\\027[31mb.example"));
        check(b"\xff\xfe.example", Ok("\\255\\254.example"));
        check(b"end\\", Ok("end\\092"));
        check(b"", Err(NameError::Empty));
        check(b"a..b", Err(NameError::EmptyLabel));
        check(&[b'a'; 64], Err(NameError::LabelTooLong));
        let long = [[b'a'; 63].as_slice(); 4].join(&b'.');
        check(&long, Err(NameError::TooLong));
    }

    #[test]
    fn text_form_reads_back_as_itself() {
        let every: Vec<u8> = (0..=255u8).collect();
        for chunk in every.chunks(50) {
            let mut b = NameBuilder::new();
            chunk.iter().for_each(|&o| b.push(o).unwrap());
            b.end_label().unwrap();
            let name = b.finish().unwrap();
            assert_eq!(Name::parse(name.as_str().as_bytes()).unwrap(), name);
            assert!(name.as_str().bytes().all(|b| b.is_ascii_graphic()));
        }
    }

    #[test]
    fn domains_and_suffixes() {
        let name: Name = "a.b.example.co.uk".parse().unwrap();
        assert_eq!(name.registrable(), Some("example.co.uk"));
        assert_eq!(name.suffixes().count(), 5);
        assert!(name.is_at_or_below("example.co.uk"));
        assert!(!name.is_at_or_below("xample.co.uk"));
        let reverse: Name = "1.2.0.192.in-addr.arpa".parse().unwrap();
        assert_eq!(reverse.registrable(), None);
        assert_eq!("localhost".parse::<Name>().unwrap().domain(), "localhost");
    }

    #[test]
    fn printable_hides_control_bytes() {
        assert_eq!(printable(b"br-lan", 16), "br-lan");
        assert_eq!(printable(b"\x1b]0;x\x07", 16), "\\x1b]0;x\\x07");
        assert_eq!(printable(b"abcdef", 3), "abc...");
        assert_eq!(cut("abcdef".into(), 6), "abcdef");
        assert_eq!(cut("abcdefg".into(), 6), "abc...");
    }
}
