//! The syntax of OpenWrt's configuration files (`/etc/config/NAME`), as libuci reads it.
//!
//! In: a file's bytes. Out: its sections in order, with the line of everything, or the line
//! and reason of the first thing that is no UCI. Pure; no allocation beyond what is there.
//!
//! Format: statements `package NAME`, `config TYPE [NAME]`, `option NAME [VALUE]` and
//! `list NAME VALUE`, also by their first letter; one a line, or several with `;`. A word is
//! made of plain, 'single' (nothing is special inside) and "double" quoted pieces; `\`
//! takes the next character as it is; quotes may span lines; `#` outside of quotes begins a
//! comment. A section that stands there twice is one; the later value of an option wins; a
//! `list` behind an `option` of the same name goes on from its value.
//!
//! Invariants: any bytes give an answer; every size has a maximum, and passing it is an
//! error, never a cut.

use std::iter::Peekable;
use std::str::Chars;

/// Largest file.
pub const FILE_BYTES_MAX: usize = 512 * 1024;
/// Longest word: a join line with its certificate fits.
pub const WORD_BYTES_MAX: usize = 32 * 1024;
/// Most sections.
pub const SECTIONS_MAX: usize = 512;
/// Most options in a section.
pub const OPTIONS_MAX: usize = 256;
/// Most values of a list.
pub const VALUES_MAX: usize = 4_096;

/// Something that is no UCI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// From 1.
    pub line: usize,
    /// What is wrong, and what was wanted.
    pub problem: String,
}

/// One `config TYPE NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Where it begins, from 1.
    pub line: usize,
    /// `config TYPE`.
    pub kind: String,
    /// Its name; `None` for an anonymous one.
    pub name: Option<String>,
    /// In the order of their first mention.
    pub options: Vec<Entry>,
}

/// One option or list of a section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where its last value stands.
    pub line: usize,
    /// Its name.
    pub name: String,
    /// One value, or all of a list.
    pub value: Value,
}

/// What an option holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `option`.
    One(String),
    /// `list`.
    Many(Vec<String>),
}

impl Section {
    /// The entry of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.options.iter().find(|entry| entry.name == name)
    }

    /// The text of an `option`.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        match &self.get(name)?.value {
            Value::One(text) => Some(text),
            Value::Many(_) => None,
        }
    }
}

/// Reads a whole file.
///
/// # Errors
/// The first thing that makes no sense.
pub fn parse(bytes: &[u8]) -> Result<Vec<Section>, SyntaxError> {
    if bytes.len() > FILE_BYTES_MAX {
        return fault(1, format!("the file is longer than {FILE_BYTES_MAX} bytes"));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
        SyntaxError { line: newlines(before) + 1, problem: "this is no UTF-8 text".to_owned() }
    })?;
    let mut words = Words { rest: text.chars().peekable(), line: 1 };
    let mut sections = Vec::new();
    let mut current = None;
    loop {
        let (line, words, end) = words.statement()?;
        if let Some((keyword, arguments)) = words.split_first() {
            statement(&mut sections, &mut current, line, keyword, arguments)?;
        }
        if end {
            return Ok(sections);
        }
    }
}

fn fault<T>(line: usize, problem: impl Into<String>) -> Result<T, SyntaxError> {
    Err(SyntaxError { line, problem: problem.into() })
}

fn newlines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

/// Carries one statement out; `current` is the section that options belong to.
fn statement(
    sections: &mut Vec<Section>,
    current: &mut Option<usize>,
    line: usize,
    keyword: &str,
    arguments: &[String],
) -> Result<(), SyntaxError> {
    match (keyword, arguments) {
        // Names the file, which has a name already.
        ("package" | "p", [_]) => Ok(()),
        ("config" | "c", [kind]) => begin(sections, line, kind, None).map(|i| *current = Some(i)),
        ("config" | "c", [kind, name]) => {
            begin(sections, line, kind, Some(name)).map(|i| *current = Some(i))
        }
        ("option" | "o" | "list" | "l", [name, values @ ..]) if values.len() <= 1 => {
            let many = keyword.starts_with('l');
            if many && values.is_empty() {
                return fault(line, format!("`list {}` lacks a value", shown(name)));
            }
            let Some(section) = current.and_then(|i| sections.get_mut(i)) else {
                return fault(line, format!("`{keyword}` stands before the first `config`"));
            };
            put(section, line, name, values.first().map_or("", |v| v), many)
        }
        ("package" | "p" | "config" | "c" | "option" | "o" | "list" | "l", []) => {
            fault(line, format!("`{keyword}` lacks a name"))
        }
        ("package" | "p" | "config" | "c" | "option" | "o" | "list" | "l", _) => fault(
            line,
            format!("too many words behind `{keyword}`: put quotes around a value with spaces"),
        ),
        _ => fault(line, format!("`{}` is none of config, option, list", shown(keyword))),
    }
}

/// The place of a section: a new one, or that of the same name.
fn begin(
    sections: &mut Vec<Section>,
    line: usize,
    kind: &str,
    name: Option<&String>,
) -> Result<usize, SyntaxError> {
    if kind.is_empty() || !kind.bytes().all(|b| b.is_ascii_graphic()) {
        return fault(line, format!("`{}` is no section type", shown(kind)));
    }
    if let Some(name) = name {
        check_name(line, name)?;
        let known = sections.iter().position(|s| s.name.as_ref() == Some(name));
        if let Some((i, section)) = known.and_then(|i| Some((i, sections.get(i)?))) {
            if section.kind == kind {
                return Ok(i);
            }
            let (other, at) = (shown(&section.kind), section.line);
            let problem = format!("`{name}` is a section of type `{other}` already (line {at})");
            return fault(line, problem);
        }
    }
    if sections.len() >= SECTIONS_MAX {
        return fault(line, format!("more than {SECTIONS_MAX} sections"));
    }
    let (kind, name) = (kind.to_owned(), name.cloned());
    sections.push(Section { line, kind, name, options: Vec::new() });
    Ok(sections.len() - 1)
}

fn put(
    section: &mut Section,
    line: usize,
    name: &str,
    value: &str,
    many: bool,
) -> Result<(), SyntaxError> {
    check_name(line, name)?;
    let value = value.to_owned();
    let Some(entry) = section.options.iter_mut().find(|entry| entry.name == name) else {
        if section.options.len() >= OPTIONS_MAX {
            return fault(line, format!("more than {OPTIONS_MAX} options in one section"));
        }
        let value = if many { Value::Many(vec![value]) } else { Value::One(value) };
        section.options.push(Entry { line, name: name.to_owned(), value });
        return Ok(());
    };
    entry.line = line;
    match &mut entry.value {
        Value::Many(values) if many => {
            if values.len() >= VALUES_MAX {
                return fault(line, format!("more than {VALUES_MAX} values in `list {name}`"));
            }
            values.push(value);
        }
        Value::One(first) if many => {
            entry.value = Value::Many(vec![std::mem::take(first), value]);
        }
        other => *other = Value::One(value),
    }
    Ok(())
}

fn check_name(line: usize, name: &str) -> Result<(), SyntaxError> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if !name.is_empty() && name.bytes().all(good) {
        return Ok(());
    }
    fault(line, format!("`{}` is no name: want letters, digits and underscores", shown(name)))
}

/// A piece of the file, safe to print.
fn shown(text: &str) -> String {
    agentmon_core::name::printable(text.as_bytes(), 60)
}

/// The text, word by word.
struct Words<'a> {
    rest: Peekable<Chars<'a>>,
    line: usize,
}

/// How a word ended.
#[derive(PartialEq, Eq)]
enum End {
    Blank,
    Statement,
    Text,
}

impl Words<'_> {
    fn next(&mut self) -> Option<char> {
        let c = self.rest.next();
        self.line += usize::from(c == Some('\n'));
        c
    }

    /// The words up to the end of the statement; its line, and whether the text ends there.
    fn statement(&mut self) -> Result<(usize, Vec<String>, bool), SyntaxError> {
        let (mut words, mut line) = (Vec::new(), self.line);
        loop {
            while self.rest.next_if(|c| matches!(c, ' ' | '\t' | '\r')).is_some() {}
            if words.is_empty() {
                line = self.line;
            }
            let (word, end) = self.word()?;
            words.extend(word);
            // More than any statement has; who wrote the rest learns of it from these.
            if words.len() > 3 {
                words.truncate(4);
            }
            if end != End::Blank {
                return Ok((line, words, end == End::Text));
            }
        }
    }

    /// One word; `None` where there is none. Empty quotes are a word.
    fn word(&mut self) -> Result<(Option<String>, End), SyntaxError> {
        let (mut word, mut any) = (String::new(), false);
        loop {
            if word.len() > WORD_BYTES_MAX {
                return fault(self.line, format!("a word of more than {WORD_BYTES_MAX} bytes"));
            }
            let begin = self.line;
            let end = match self.next() {
                None => End::Text,
                Some('\n' | ';') => End::Statement,
                Some(' ' | '\t' | '\r') => End::Blank,
                Some('#') => {
                    while self.rest.next_if(|c| *c != '\n').is_some() {}
                    continue;
                }
                Some('\\') => {
                    match self.next() {
                        // A line goes on on the next.
                        Some('\n') => {}
                        Some(c) => {
                            word.push(c);
                            any = true;
                        }
                        None => return fault(begin, "a backslash ends the file"),
                    }
                    continue;
                }
                Some(quote @ ('\'' | '"')) => {
                    self.quoted(quote, &mut word, begin)?;
                    any = true;
                    continue;
                }
                Some('\0') => return fault(begin, "a NUL byte"),
                Some(c) => {
                    word.push(c);
                    any = true;
                    continue;
                }
            };
            return Ok((any.then_some(word), end));
        }
    }

    /// The rest of a quoted piece.
    fn quoted(&mut self, quote: char, word: &mut String, begin: usize) -> Result<(), SyntaxError> {
        loop {
            if word.len() > WORD_BYTES_MAX {
                return fault(begin, format!("a word of more than {WORD_BYTES_MAX} bytes"));
            }
            let c = match self.next() {
                Some(c) if c == quote => return Ok(()),
                Some('\\') if quote == '"' => self.next(),
                c => c,
            };
            match c {
                Some('\0') => return fault(self.line, "a NUL byte"),
                Some(c) => word.push(c),
                None => return fault(begin, format!("a quote ({quote}) that is never closed")),
            }
        }
    }
}

#[cfg(test)]
#[path = "syntax_tests.rs"]
mod tests;
