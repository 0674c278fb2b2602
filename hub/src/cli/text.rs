//! The last gate before a terminal: no text leaves the command line raw.
//!
//! Names in the store are printable already (see `agentmon_core::name`), but a store is a
//! file: an older version, an import or another program may have written it. So every text
//! is made safe again here: control characters (C0, DEL, C1), line separators, direction
//! overrides, zero-width and tag characters become visible escapes; letters of any
//! language stay. Pure; one pass, no allocation for clean text.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Characters that move the cursor, change the terminal's state, reorder or hide text.
fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// Text for a table, CSV or a sentence: hostile characters as `\x1b` or `\u{202e}`.
pub(crate) fn safe(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_hostile) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match u32::from(c) {
            n if is_hostile(c) && n < 0x80 => push(&mut out, format_args!("\\x{n:02x}")),
            n if is_hostile(c) => push(&mut out, format_args!("\\u{{{n:x}}}")),
            _ => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// JSON text as one line: what `serde_json` leaves raw (DEL, C1, overrides) as `\uXXXX`,
/// so that the value read back is the value stored.
pub(crate) fn safe_json(json: String) -> String {
    if !json.chars().any(is_hostile) {
        return json;
    }
    let mut out = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if is_hostile(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                push(&mut out, format_args!("\\u{unit:04x}"));
            }
        } else {
            out.push(c);
        }
    }
    out
}

/// One CSV field (RFC 4180): quoted when it holds a comma, a quote or begins or ends with
/// a space; control characters are escaped before, so a field never spans lines.
pub(crate) fn csv_field(text: &str) -> Cow<'_, str> {
    let text = safe(text);
    let quote = text.contains([',', '"']) || text.starts_with(' ') || text.ends_with(' ');
    if quote { Cow::Owned(format!("\"{}\"", text.replace('"', "\"\""))) } else { text }
}

fn push(out: &mut String, args: std::fmt::Arguments<'_>) {
    out.write_fmt(args).expect("writing to a String cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_becomes_visible() {
        #[track_caller]
        fn check(input: &str, expected: &str) {
            assert_eq!(safe(input), expected);
        }
        check("www.example.com", "www.example.com");
        check("Küche-Lautsprecher 厨房", "Küche-Lautsprecher 厨房");
        check("a\x1b[31mb", "a\\x1b[31mb");
        check("\x1b]0;title\x07", "\\x1b]0;title\\x07");
        check("line\r\nbreak\ttab\0nul\x7f", "line\\x0d\\x0abreak\\x09tab\\x00nul\\x7f");
        check("c1\u{9b}31m", "c1\\u{9b}31m");
        check("exe\u{202e}gpj.", "exe\\u{202e}gpj.");
        check("zero\u{200b}width\u{feff}", "zero\\u{200b}width\\u{feff}");
        check("tag\u{e0041}", "tag\\u{e0041}");
    }

    #[test]
    fn json_reads_back_as_stored() {
        for text in ["plain", "a\x1b\u{9b}\u{202e}\u{7f}\u{e0041}ü\"\\", "\0\n"] {
            let json = safe_json(serde_json::to_string(text).unwrap());
            assert!(!json.chars().any(is_hostile), "{json:?}");
            assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }
    }

    #[test]
    fn csv_fields_are_quoted_where_rfc_4180_wants_it() {
        #[track_caller]
        fn check(input: &str, expected: &str) {
            assert_eq!(csv_field(input), expected);
        }
        check("plain", "plain");
        check("", "");
        check("a,b", "\"a,b\"");
        check("say \"x\"", "\"say \"\"x\"\"\"");
        check(" lead", "\" lead\"");
        check("two\r\nlines", "two\\x0d\\x0alines");
        check("a;b", "a;b");
    }

    proptest::proptest! {
        #[test]
        fn nothing_hostile_passes(text in "\\PC*|.*") {
            proptest::prop_assert!(!safe(&text).chars().any(is_hostile));
            proptest::prop_assert!(!csv_field(&text).chars().any(is_hostile));
        }
    }
}
