//! Whether bytes are the text of a list at all: by how they begin.
//!
//! In: the first [`SNIFF_BYTES`] of a file or answer. Out: what they are instead. Servers
//! answer with an error page under a list's name, mirrors hand out archives, disks fill up.
//! Pure.

/// How much of a text tells.
pub const SNIFF_BYTES: usize = 4_096;

/// What it is, where it is no list; in words that follow "it is".
#[must_use]
pub fn no_list(start: &[u8]) -> Option<&'static str> {
    let starts = |with: &[u8]| start.starts_with(with);
    if starts(b"\x1f\x8b") {
        return Some("compressed (gzip)");
    }
    if starts(b"PK\x03\x04") || starts(b"\x28\xb5\x2f\xfd") || starts(b"\xfd7zXZ") || starts(b"BZh")
    {
        return Some("an archive");
    }
    if starts(b"\xff\xfe") || starts(b"\xfe\xff") {
        return Some("text in UTF-16 (want UTF-8)");
    }
    let text = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start).trim_ascii_start();
    match text.first() {
        None => return Some("empty"),
        Some(b'<') => return Some("a web page (HTML or XML): an error page?"),
        Some(b'{') => return Some("JSON: an error message?"),
        _ => {}
    }
    // No list has NULs; half a page of them is a file that a crash left behind.
    (text.iter().filter(|b| **b == 0).count() * 2 > text.len()).then_some("binary")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(start: &[u8], expected: Option<&str>) {
        let got = no_list(start);
        let as_expected = match (got, expected) {
            (Some(got), Some(expected)) => got.contains(expected),
            (got, expected) => got == expected,
        };
        assert!(as_expected, "{got:?}, want {expected:?}");
    }

    #[test]
    fn what_is_no_list() {
        check(b"# list\nexample.com\n", None);
        check(b"\xef\xbb\xbfexample.com\n", None);
        check(b"[Adblock Plus 2.0]\n", None);
        check(b"a", None);
        check(b"", Some("empty"));
        check(b" \r\n\n", Some("empty"));
        check(b"\xef\xbb\xbf", Some("empty"));
        check(b"<!DOCTYPE html><html>", Some("web page"));
        check(b"\n\n<html><head>", Some("web page"));
        check(b"{\"error\":404}", Some("JSON"));
        check(b"\x1f\x8b\x08", Some("gzip"));
        check(b"PK\x03\x04", Some("archive"));
        check(b"\xff\xfee\0x\0", Some("UTF-16"));
        check(&[0; 100], Some("binary"));
    }
}
