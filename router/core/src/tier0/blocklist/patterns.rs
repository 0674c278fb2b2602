//! Known-bad parts of names, on label boundaries: `evil-` finds `evil-77.example`,
//! `coinhive` finds `coinhive.example` and `a.coinhive.example`, and neither finds
//! `notevil-.example` or `coinhives.example`.
//!
//! A pattern must begin at the name's begin or behind a dot; where it ends with a letter or
//! digit it must also end at a dot or at the name's end. Pure; nothing allocated. Budget:
//! 1 ns for each label and pattern. Invariant: at most [`PATTERNS_MAX`].

use crate::name::Name;

/// Most patterns.
pub const PATTERNS_MAX: usize = 128;
/// Shorter ones would find half of all names.
const PATTERN_BYTES_MIN: usize = 3;
/// A label and some more.
const PATTERN_BYTES_MAX: usize = 100;

/// Checks a pattern.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check(pattern: &str) -> Result<(), String> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if !(PATTERN_BYTES_MIN..=PATTERN_BYTES_MAX).contains(&pattern.len()) {
        return Err(format!("want {PATTERN_BYTES_MIN} to {PATTERN_BYTES_MAX} letters"));
    }
    if !pattern.bytes().all(fine) || !pattern.bytes().any(|b| b.is_ascii_alphanumeric()) {
        return Err("want letters, digits, `-`, `_` and dots".to_owned());
    }
    Ok(())
}

/// The part of the name that the pattern finds: from where it begins to the name's end.
pub(super) fn find<'n>(name: &'n Name, pattern: &str) -> Option<&'n str> {
    name.suffixes().find(|suffix| {
        suffix.strip_prefix(pattern).is_some_and(|rest| {
            let open = !pattern.ends_with(|c: char| c.is_ascii_alphanumeric());
            open || rest.is_empty() || rest.starts_with('.')
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn finds(pattern: &str, name: &str, expected: bool) {
        check(pattern).unwrap();
        let name: Name = name.parse().unwrap();
        assert_eq!(find(&name, pattern).is_some(), expected, "{pattern} in {name}");
    }

    #[test]
    fn on_label_boundaries_only() {
        finds("evil-", "evil-77.example", true);
        finds("evil-", "a.evil-77.example", true);
        finds("evil-", "notevil-77.example", false);
        finds("coinhive", "coinhive.example", true);
        finds("coinhive", "www.coinhive.example", true);
        finds("coinhive", "coinhives.example", false);
        finds("coinhive", "xcoinhive.example", false);
        finds("coinhive", "example.coinhive", true);
        finds("bad.example", "a.bad.example", true);
        finds("bad.example", "a.bad.example.net", true);
        finds("bad.example", "a.bad.examples", false);
    }

    #[test]
    fn patterns_that_find_half_the_world_are_refused() {
        assert!(check("a.").unwrap_err().contains("3 to 100"));
        assert!(check("...").unwrap_err().contains("letters"));
        assert!(check("a*b.example").unwrap_err().contains("letters"));
    }
}
