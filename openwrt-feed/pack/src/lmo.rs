//! Translations in the form LuCI loads: `.po` in, `.lmo` out.
//!
//! Format (LuCI's wiki, "LMO"): the translations, each padded to 4 bytes; an index of
//! (hash of the original, number of plural forms, offset, length), sorted by hash; the
//! index's offset. Numbers are 32 bit, big-endian. The key of a message with a context is
//! `context \1 original`, that of a plural form `original \2 number`; the plural rule itself
//! stands under key 0. The hash is Paul Hsieh's SuperFastHash.
//!
//! Invariants: an untranslated message is left out, so that LuCI shows the original; a
//! broken line is refused with its number.

use anyhow::{Context as _, bail, ensure};

/// Most plural forms of a message.
const FORMS_MAX: usize = 10;
/// Longest original or translation.
const TEXT_BYTES_MAX: usize = 4000;

#[derive(Default)]
struct Message {
    context: Option<String>,
    id: Option<String>,
    plural: Option<String>,
    forms: Vec<Option<String>>,
}

enum Field {
    None,
    Context,
    Id,
    Plural,
    Form(usize),
}

/// A compiled catalogue.
///
/// # Errors
/// A line that is no `.po`, with its number; nothing translated.
pub fn compile(po: &str) -> anyhow::Result<Vec<u8>> {
    let mut catalogue = Catalogue::default();
    let (mut message, mut field) = (Message::default(), Field::None);
    for (number, line) in po.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (next, text) = word(line).with_context(|| format!("line {}: `{line}`", number + 1))?;
        let begins = match (&next, &message) {
            (Some(Field::Context), _) => message.id.is_some(),
            (Some(Field::Id), m) => m.id.is_some(),
            _ => false,
        };
        if begins {
            catalogue.add(std::mem::take(&mut message));
        }
        if let Some(next) = next {
            field = next;
        }
        let place = match field {
            Field::None => bail!("line {}: text before any `msgid`", number + 1),
            Field::Context => message.context.get_or_insert_default(),
            Field::Id => message.id.get_or_insert_default(),
            Field::Plural => message.plural.get_or_insert_default(),
            Field::Form(form) => {
                if message.forms.len() <= form {
                    message.forms.resize(form + 1, None);
                }
                message.forms.get_mut(form).context("a form")?.get_or_insert_default()
            }
        };
        place.push_str(&text);
        ensure!(place.len() <= TEXT_BYTES_MAX, "line {}: text too long", number + 1);
    }
    catalogue.add(message);
    catalogue.finish()
}

/// The keyword of a line, if it has one, and its quoted text with escapes undone.
fn word(line: &str) -> anyhow::Result<(Option<Field>, String)> {
    let (keyword, quoted) = line.split_at(line.find('"').context("no quoted text")?);
    let keyword = keyword.trim();
    let field = match keyword {
        "" => None,
        "msgctxt" => Some(Field::Context),
        "msgid" => Some(Field::Id),
        "msgid_plural" => Some(Field::Plural),
        "msgstr" => Some(Field::Form(0)),
        other => {
            let form = other.strip_prefix("msgstr[").and_then(|n| n.strip_suffix(']'));
            let form: usize = form.context("an unknown keyword")?.parse()?;
            ensure!(form < FORMS_MAX, "more than {FORMS_MAX} plural forms");
            Some(Field::Form(form))
        }
    };
    let inside = quoted.strip_prefix('"').and_then(|q| q.strip_suffix('"'));
    Ok((field, unescape(inside.context("no closing quote")?)?))
}

/// LuCI's own tool undoes `\"` and `\\` and leaves the rest (`\n`) to the page.
fn unescape(text: &str) -> anyhow::Result<String> {
    let mut out = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => bail!("a quote inside the text"),
            '\\' => match letters.next().context("a backslash at the end")? {
                escaped @ ('"' | '\\') => out.push(escaped),
                other => out.extend(['\\', other]),
            },
            plain => out.push(plain),
        }
    }
    Ok(out)
}

#[derive(Default)]
struct Catalogue {
    texts: Vec<u8>,
    index: Vec<[u32; 4]>,
}

impl Catalogue {
    fn add(&mut self, message: Message) {
        let Some(id) = message.id else { return };
        if id.is_empty() {
            let header = message.forms.into_iter().flatten().next().unwrap_or_default();
            let rule = header.split("\\n").find_map(|line| line.strip_prefix("Plural-Forms: "));
            if let Some(rule) = rule {
                self.push(0, 0, rule);
            }
            return;
        }
        let count = message.forms.len();
        for (number, form) in message.forms.iter().enumerate() {
            let Some(text) = form.as_ref().filter(|text| !text.is_empty()) else { continue };
            let mut key = String::new();
            if let Some(context) = &message.context {
                key.push_str(context);
                key.push('\u{1}');
            }
            key.push_str(&id);
            if message.plural.is_some() {
                key.push_str(&format!("\u{2}{number}"));
            }
            if key != *text {
                self.push(hash(key.as_bytes()), count as u32, text);
            }
        }
    }

    fn push(&mut self, key: u32, forms: u32, text: &str) {
        self.index.push([key, forms, self.texts.len() as u32, text.len() as u32]);
        self.texts.extend_from_slice(text.as_bytes());
        self.texts.resize(self.texts.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> anyhow::Result<Vec<u8>> {
        ensure!(!self.index.is_empty(), "nothing is translated");
        self.index.sort();
        let start = self.texts.len() as u32;
        let numbers = self.index.iter().flatten().copied().chain([start]);
        let mut out = self.texts;
        out.extend(numbers.flat_map(u32::to_be_bytes));
        Ok(out)
    }
}

/// SuperFastHash, its length as the seed.
fn hash(data: &[u8]) -> u32 {
    let two = |a: u8, b: u8| u32::from(u16::from_le_bytes([a, b]));
    let signed = |b: u8| i32::from(b.cast_signed()).cast_unsigned();
    let mut hash = data.len() as u32;
    let (fours, rest) = data.as_chunks::<4>();
    for &[a, b, c, d] in fours {
        hash = hash.wrapping_add(two(a, b));
        hash = (hash << 16) ^ (two(c, d) << 11) ^ hash;
        hash = hash.wrapping_add(hash >> 11);
    }
    match *rest {
        [a, b, c] => {
            hash = hash.wrapping_add(two(a, b));
            hash ^= hash << 16;
            hash ^= signed(c) << 18;
            hash = hash.wrapping_add(hash >> 11);
        }
        [a, b] => {
            hash = hash.wrapping_add(two(a, b));
            hash ^= hash << 11;
            hash = hash.wrapping_add(hash >> 17);
        }
        [a] => {
            hash = hash.wrapping_add(signed(a));
            hash ^= hash << 10;
            hash = hash.wrapping_add(hash >> 1);
        }
        _ => {}
    }
    hash ^= hash << 3;
    hash = hash.wrapping_add(hash >> 5);
    hash ^= hash << 4;
    hash = hash.wrapping_add(hash >> 17);
    hash ^= hash << 25;
    hash.wrapping_add(hash >> 6)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Looks a key up as LuCI does.
    fn look(lmo: &[u8], key: u32) -> Option<String> {
        let number = |at: usize| {
            u32::from_be_bytes(lmo.get(at..at + 4).unwrap().try_into().unwrap()) as usize
        };
        let end = lmo.len() - 4;
        let mut at = number(end);
        while at < end {
            if number(at) == key as usize {
                let (from, len) = (number(at + 8), number(at + 12));
                return Some(String::from_utf8(lmo.get(from..from + len).unwrap().into()).unwrap());
            }
            at += 16;
        }
        None
    }

    const PO: &str = r#"
msgid ""
msgstr ""
"Content-Type: text/plain; charset=UTF-8\n"
"Plural-Forms: nplurals=2; plural=(n != 1);\n"

#: view/status.js:7
msgid "Alerts"
msgstr "Warnungen"

msgctxt "verb"
msgid "Watch"
msgstr "Beobachten"

msgid "one \"quoted\" "
"device"
msgid_plural "%d devices"
msgstr[0] "ein Gerät"
msgstr[1] "%d Geräte"

msgid "Untranslated"
msgstr ""
"#;

    #[test]
    fn messages_are_found_under_their_keys() {
        let lmo = compile(PO).unwrap();
        let text = |key: &str| look(&lmo, hash(key.as_bytes()));
        assert_eq!(text("Alerts").as_deref(), Some("Warnungen"));
        assert_eq!(text("verb\u{1}Watch").as_deref(), Some("Beobachten"));
        assert_eq!(text("Watch"), None);
        assert_eq!(text("one \"quoted\" device\u{2}0").as_deref(), Some("ein Gerät"));
        assert_eq!(text("one \"quoted\" device\u{2}1").as_deref(), Some("%d Geräte"));
        assert_eq!(text("Untranslated"), None);
        assert_eq!(look(&lmo, 0).as_deref(), Some("nplurals=2; plural=(n != 1);"));
    }

    #[track_caller]
    fn check_hash(text: &str, expected: u32) {
        assert_eq!(hash(text.as_bytes()), expected, "{text:?}");
    }

    // Values from LuCI's own hash function.
    #[test]
    fn hashes_are_those_luci_makes() {
        check_hash("A", 0x1747_60d3);
        check_hash("Save", 0x2199_66c7);
        check_hash("Status", 0x6633_59c9);
        check_hash("Änd", 0xfdb1_0752);
        check_hash("überall", 0xb71f_ff6c);
    }

    #[track_caller]
    fn refused(po: &str, why: &str) {
        let said = format!("{:#}", compile(po).unwrap_err());
        assert!(said.contains(why), "{said}");
    }

    #[test]
    fn broken_lines_are_refused() {
        refused("msgid \"a\"\nmsgstr \"b", "line 2");
        refused("\"a\"", "before any");
        refused("msgstr[10] \"a\"", "plural forms");
        refused("msgfoo \"a\"", "unknown keyword");
        refused("msgid \"a\"\nmsgstr \"\"", "nothing is translated");
    }

    proptest! {
        #[test]
        fn anything_is_compiled_or_refused(po in "(msgid |msgstr |msgctxt |\"|a|\\\\|\n){0,60}") {
            drop(compile(&po));
        }
    }
}
