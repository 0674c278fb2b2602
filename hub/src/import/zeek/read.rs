//! Lines of a Zeek log as fields by name, whatever the log's form.
//!
//! In: text, unpacked; TSV with its `#` header (fields in any order, unknown ones among them)
//! or one JSON object a line (Zeek's `LogAscii::use_json`). Out: [`Record`]s, or the reason a
//! line is none. Memory: one line of at most [`LINE_BYTES_MAX`] bytes.
//!
//! Everything is hostile: never panics; what is too long is passed over and told.
//! Format: docs.zeek.org, "Log Formats" (ASCII writer).

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{self, BufRead, Read};

use serde_json::{Map, Value};

/// Longest line taken in: certificates and file lists of a busy connection have tens of KiB.
pub const LINE_BYTES_MAX: usize = 256 * 1024;
/// Most fields of a TSV header; Zeek's widest log has about 40.
const FIELDS_MAX: usize = 512;

/// Why a line was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bad {
    /// Longer than [`LINE_BYTES_MAX`].
    TooLong,
    /// No UTF-8, which Zeek writes.
    NotText,
    /// Values before a header, or a header with too many fields.
    NoHeader,
    /// More or fewer values than the header has fields.
    FieldCount,
    /// Begins like JSON and is none.
    Json,
    /// No time, or none that can be.
    Time,
    /// No uid.
    Uid,
    /// No addresses, or none that are.
    Address,
    /// No name where the log is about one.
    Name,
}

impl Bad {
    /// Its word, as counted.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooLong => "too long",
            Self::NotText => "not text",
            Self::NoHeader => "without a header",
            Self::FieldCount => "cut short or too wide",
            Self::Json => "broken JSON",
            Self::Time => "without a time",
            Self::Uid => "without a uid",
            Self::Address => "without addresses",
            Self::Name => "without a name",
        }
    }
}

/// What the last read gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    Whole,
    /// The last one, without a newline: it may still be being written.
    Unended,
    TooLong,
    End,
}

/// The next line, without its newline.
pub(super) fn next_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Line> {
    line.clear();
    let most = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
    input.by_ref().take(most).read_until(b'\n', line)?;
    match line.last() {
        None => return Ok(Line::End),
        Some(b'\n') => {
            line.pop();
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            return Ok(Line::Whole);
        }
        Some(_) if line.len() < LINE_BYTES_MAX => return Ok(Line::Unended),
        Some(_) => {}
    }
    loop {
        let chunk = input.fill_buf()?;
        if chunk.is_empty() {
            return Ok(Line::TooLong);
        }
        let end = chunk.iter().position(|b| *b == b'\n');
        let used = end.map_or(chunk.len(), |i| i + 1);
        input.consume(used);
        if end.is_some() {
            return Ok(Line::TooLong);
        }
    }
}

/// What the header of a TSV log says.
#[derive(Clone, Debug)]
pub struct Header {
    separator: String,
    set_separator: String,
    empty: String,
    unset: String,
    /// `conn`, `dns` and so on.
    pub path: Option<String>,
    columns: HashMap<String, usize>,
    width: usize,
}

impl Default for Header {
    fn default() -> Self {
        Self {
            separator: "\t".to_owned(),
            set_separator: ",".to_owned(),
            empty: "(empty)".to_owned(),
            unset: "-".to_owned(),
            path: None,
            columns: HashMap::new(),
            width: 0,
        }
    }
}

impl Header {
    /// Takes in a line that begins with `#`. Logs put together have several headers; each is
    /// about what follows it.
    fn line(&mut self, text: &str) -> Result<(), Bad> {
        if let Some(separator) = text.strip_prefix("#separator ") {
            self.separator = unescape(separator).into_owned();
            if self.separator.is_empty() {
                self.separator = "\t".to_owned();
            }
            return Ok(());
        }
        let mut parts = text.split(self.separator.as_str());
        let key = parts.next().unwrap_or_default();
        let mut value = || parts.next().unwrap_or_default().to_owned();
        match key {
            "#set_separator" => self.set_separator = value(),
            "#empty_field" => self.empty = value(),
            "#unset_field" => self.unset = value(),
            "#path" => self.path = Some(value()),
            "#fields" => {
                let names: Vec<&str> = parts.take(FIELDS_MAX + 1).collect();
                if names.len() > FIELDS_MAX {
                    self.width = 0;
                    return Err(Bad::NoHeader);
                }
                self.width = names.len();
                self.columns =
                    names.into_iter().enumerate().map(|(i, n)| (n.to_owned(), i)).collect();
            }
            _ => {}
        }
        Ok(())
    }
}

/// The fields of one line.
#[derive(Debug)]
pub enum Record<'a> {
    /// Values in the header's order.
    Tsv(&'a Header, Vec<&'a str>),
    /// An object.
    Json(Map<String, Value>),
}

impl Record<'_> {
    /// A value as text; `None` where it is unset or empty.
    #[must_use]
    pub fn text(&self, key: &str) -> Option<Cow<'_, str>> {
        match self {
            Self::Tsv(header, values) => {
                let value = values.get(*header.columns.get(key)?)?;
                let said = *value != header.unset && *value != header.empty && !value.is_empty();
                said.then(|| unescape(value))
            }
            Self::Json(map) => match map.get(key)? {
                Value::String(text) if !text.is_empty() => Some(text.into()),
                Value::Number(number) => Some(number.to_string().into()),
                _ => None,
            },
        }
    }

    /// The members of a set or vector.
    #[must_use]
    pub fn list(&self, key: &str) -> Vec<Cow<'_, str>> {
        match self {
            Self::Tsv(header, values) => {
                let value = header.columns.get(key).and_then(|i| values.get(*i));
                let said = value.filter(|v| **v != header.unset && **v != header.empty);
                let parts = said.map(|v| v.split(header.set_separator.as_str()));
                parts.into_iter().flatten().map(unescape).collect()
            }
            Self::Json(map) => {
                let items = map.get(key).and_then(Value::as_array);
                items.into_iter().flatten().filter_map(json_text).collect()
            }
        }
    }

    /// A count.
    #[must_use]
    pub fn count(&self, key: &str) -> Option<u64> {
        self.text(key)?.parse().ok()
    }

    /// An interval in seconds: finite and not negative.
    #[must_use]
    pub fn seconds(&self, key: &str) -> Option<f64> {
        let seconds: f64 = self.text(key)?.parse().ok()?;
        (seconds.is_finite() && seconds >= 0.0).then_some(seconds)
    }
}

fn json_text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(text.into()),
        Value::Number(number) => Some(number.to_string().into()),
        _ => None,
    }
}

/// `\xHH` as the byte it stands for, where the result is text.
fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains("\\x") {
        return text.into();
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let digits = || {
            let [b'x', a, b] = tail.first_chunk::<3>()? else { return None };
            let digit = |d: &u8| char::from(*d).to_digit(16);
            u8::try_from(digit(a)? * 16 + digit(b)?).ok()
        };
        let byte = if *first == b'\\' { digits() } else { None };
        out.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { tail.get(3..).unwrap_or_default() } else { tail };
    }
    String::from_utf8(out).map_or_else(|_| text.into(), Into::into)
}

/// A line as a record; `None` for headers and empty lines.
pub(super) fn record<'a>(
    header: &'a mut Header,
    line: &'a [u8],
) -> Result<Option<Record<'a>>, Bad> {
    let text = std::str::from_utf8(line).map_err(|_| Bad::NotText)?;
    if text.is_empty() {
        return Ok(None);
    }
    if text.starts_with('#') {
        return header.line(text).map(|()| None);
    }
    if text.starts_with('{') {
        return serde_json::from_str(text)
            .map(|map| Some(Record::Json(map)))
            .map_err(|_| Bad::Json);
    }
    if header.width == 0 {
        return Err(Bad::NoHeader);
    }
    let values: Vec<&str> = text.split(header.separator.as_str()).take(header.width + 1).collect();
    if values.len() != header.width {
        return Err(Bad::FieldCount);
    }
    Ok(Some(Record::Tsv(header, values)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "#separator \\x09\n#set_separator\t,\n#empty_field\t(empty)\n\
        #unset_field\t-\n#path\tdns\n#fields\tts\tquery\tanswers\textra\n";

    /// Field texts of the last line of a log, or why it is none.
    fn read(log: &str, key: &str) -> Result<Option<String>, Bad> {
        let mut header = Header::default();
        let mut last = Ok(None);
        for line in log.lines() {
            let got = record(&mut header, line.as_bytes());
            last = got.map(|r| r.and_then(|r| r.text(key).map(Cow::into_owned)));
        }
        last
    }

    #[track_caller]
    fn check(line: &str, key: &str, expected: Result<Option<&str>, Bad>) {
        let got = read(&format!("{HEAD}{line}"), key);
        assert_eq!(got.as_ref().map(Option::as_deref), expected.as_ref().map(|o| *o));
    }

    #[test]
    fn fields_by_name() {
        check("1.5\twww.example.com\t-\t(empty)", "query", Ok(Some("www.example.com")));
        check("1.5\twww.example.com\t-\t(empty)", "answers", Ok(None));
        check("1.5\twww.example.com\t-\t(empty)", "extra", Ok(None));
        check("1.5\twww.example.com\t-\t(empty)", "unknown", Ok(None));
        check("1.5\ta\\x09b\\x\t-\t-", "query", Ok(Some("a\tb\\x")));
        check("1.5\twww.exam", "query", Err(Bad::FieldCount));
        check("1\t2\t3\t4\t5", "query", Err(Bad::FieldCount));
        check("{\"ts\":1.5,\"query\":\"q\",\"new\":[1]}", "query", Ok(Some("q")));
        check("{\"ts\":1.5,\"query\":\"q\"}", "ts", Ok(Some("1.5")));
        check("{\"ts\":1.5,\"quer", "query", Err(Bad::Json));
        check("#close\t2026-11-23", "query", Ok(None));
        assert_eq!(read("some words", "query"), Err(Bad::NoHeader));
    }

    #[test]
    fn lists_of_both_forms() {
        let mut header = Header::default();
        for line in HEAD.lines() {
            assert!(record(&mut header, line.as_bytes()).unwrap().is_none());
        }
        let tsv = record(&mut header, b"1\tq\tcdn.example.net,192.0.2.1\t-").unwrap().unwrap();
        assert_eq!(tsv.list("answers"), ["cdn.example.net", "192.0.2.1"]);
        assert!(tsv.list("extra").is_empty());
        let mut header = Header::default();
        let json = record(&mut header, br#"{"answers":["a",2,null]}"#).unwrap().unwrap();
        assert_eq!(json.list("answers"), ["a", "2"]);
    }

    #[test]
    fn lines_are_bounded() {
        let mut log = vec![b'x'; LINE_BYTES_MAX * 2];
        log.extend(b"\nshort\r\nhalf");
        let (mut input, mut line) = (log.as_slice(), Vec::new());
        assert_eq!(next_line(&mut input, &mut line).unwrap(), Line::TooLong);
        assert!(line.len() <= LINE_BYTES_MAX);
        assert_eq!(next_line(&mut input, &mut line).unwrap(), Line::Whole);
        assert_eq!(line, b"short");
        assert_eq!(next_line(&mut input, &mut line).unwrap(), Line::Unended);
        assert_eq!(next_line(&mut input, &mut line).unwrap(), Line::End);
    }

    proptest::proptest! {
        #[test]
        fn anything_at_all_is_read_or_refused(
            lines in proptest::collection::vec("(#fields|#separator|#path|\\{|)?[ -~\t\\\\]{0,80}", 0..20),
        ) {
            let mut header = Header::default();
            for line in &lines {
                if let Ok(Some(record)) = record(&mut header, line.as_bytes()) {
                    for key in ["ts", "a", ""] {
                        drop((record.text(key), record.list(key), record.seconds(key)));
                    }
                }
            }
        }
    }
}
