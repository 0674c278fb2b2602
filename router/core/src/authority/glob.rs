//! Texts with `*` and `?`, for paths, arguments, hosts and users.
//!
//! `?` is one character, `*` any number of them; in a path neither crosses a `/`, and `**`
//! does. `~/` at the beginning of a path stands for every user's home. Matching takes
//! `text * pattern` steps at worst (one remembered star), never exponential ones: texts and
//! patterns come from outside.

/// Where homes are: `/home/alice`, `/root`, `/Users/alice`, `C:/Users/alice`.
const HOMES: [&str; 4] = ["/home/*/", concat!("/root", "/"), "/Users/*/", "?:/Users/*/"];

/// A pattern for one kind of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Glob {
    /// Alternatives: several only for `~/`.
    forms: Vec<String>,
    path: bool,
}

impl Glob {
    /// For paths: Windows' `\` is `/`, and letters are equal there whatever their case.
    pub(super) fn path(text: &str) -> Self {
        let text = text.replace('\\', "/");
        let forms = match text.strip_prefix("~/") {
            Some(rest) => HOMES.iter().map(|home| format!("{home}{rest}")).collect(),
            None => vec![text],
        };
        Self { forms, path: true }
    }

    /// For anything else: `*` matches all.
    pub(super) fn text(text: &str) -> Self {
        Self { forms: vec![text.to_owned()], path: false }
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        if !self.path {
            return self.forms.iter().any(|form| matches(form.as_bytes(), text.as_bytes(), false));
        }
        let windows = text.as_bytes().get(1) == Some(&b':') || text.contains('\\');
        if !windows {
            return self.forms.iter().any(|form| matches(form.as_bytes(), text.as_bytes(), true));
        }
        let text = text.replace('\\', "/").to_lowercase();
        self.forms.iter().any(|form| matches(form.to_lowercase().as_bytes(), text.as_bytes(), true))
    }
}

/// Whether the whole text has this form. Two stars are remembered, the last `*` and the last
/// `**`: a later star makes an earlier one of its kind superfluous.
fn matches(form: &[u8], text: &[u8], path: bool) -> bool {
    let (mut f, mut t) = (0, 0);
    // Where to go on after a mismatch: behind the star, and the text it reaches to.
    let mut single: Option<(usize, usize)> = None;
    let mut double: Option<(usize, usize)> = None;
    loop {
        match (form.get(f), text.get(t)) {
            (None, None) => return true,
            (Some(b'*'), _) if form.get(f + 1) == Some(&b'*') || !path => {
                f += form.iter().skip(f).take_while(|b| **b == b'*').count();
                (double, single) = (Some((f, t)), None);
                continue;
            }
            (Some(b'*'), _) => {
                f += 1;
                single = Some((f, t));
                continue;
            }
            (Some(b'?'), Some(c)) if !path || *c != b'/' => (f, t) = (f + 1, t + 1),
            (Some(a), Some(c)) if a == c => (f, t) = (f + 1, t + 1),
            _ => match (single, double) {
                (Some((back, reach)), _) if text.get(reach).is_some_and(|c| *c != b'/') => {
                    (f, t) = (back, reach + 1);
                    single = Some((back, t));
                }
                (_, Some((back, reach))) if reach < text.len() => {
                    (f, t) = (back, reach + 1);
                    (double, single) = (Some((back, t)), None);
                }
                _ => return false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn path(form: &str, text: &str, expected: bool) {
        assert_eq!(Glob::path(form).matches(text), expected, "{form} {text}");
    }

    #[track_caller]
    fn text(form: &str, text: &str, expected: bool) {
        assert_eq!(Glob::text(form).matches(text), expected, "{form} {text}");
    }

    #[test]
    fn paths() {
        path("/usr/bin/curl", "/usr/bin/curl", true);
        path("/usr/bin/curl", "/usr/bin/curl2", false);
        path("/usr/*/curl", "/usr/bin/curl", true);
        path("/usr/*/curl", "/usr/local/bin/curl", false);
        path("/usr/**/curl", "/usr/local/bin/curl", true);
        path("/opt/**", "/opt/a/b/c", true);
        path("**/claude", "/home/alice/.local/bin/claude", true);
        path("/a/**/b/*.so", "/a/x/b/y/b/z.so", true);
        path("/a/**/b/*.so", "/a/x/b/y/c/z.so", false);
        path("/usr/bin/pytho?3", "/usr/bin/python3", true);
        path("/usr?bin/x", "/usr/bin/x", false);
        path(
            "~/.local/share/claude/versions/*",
            "/home/alice/.local/share/claude/versions/2.0.1",
            true,
        );
        path(
            "~/.local/share/claude/versions/*",
            "/home/bob/.local/share/claude/versions/2.0.1",
            true,
        );
        path(
            "~/.local/share/claude/versions/*",
            "/tmp/home/alice/.local/share/claude/versions/2",
            false,
        );
        path("~/x", "C:\\Users\\Alice\\X", true);
        path("?:\\Program Files\\*\\a.exe", "C:\\Program Files\\Foo\\A.EXE", true);
        path("", "", true);
        path("*", "", true);
    }

    #[test]
    fn texts() {
        text(
            "*/@anthropic-ai/claude-code/*",
            "/usr/lib/node_modules/@anthropic-ai/claude-code/cli.js",
            true,
        );
        text("laptop-*", "laptop-7", true);
        text("laptop-*", "Laptop-7", false);
        text("*a*b*c", "xxaxxbxxbxxc", true);
        text("*a*b*c", "xxaxxcxxb", false);
    }

    #[test]
    fn a_hostile_pattern_ends_soon() {
        let form = "*a".repeat(200) + "b";
        assert!(!matches(form.as_bytes(), "a".repeat(4_000).as_bytes(), false));
        assert!(!matches(
            ("*a/**".repeat(50) + "b").as_bytes(),
            "a/".repeat(2_000).as_bytes(),
            true
        ));
    }

    proptest::proptest! {
        #[test]
        fn a_text_matches_itself_and_all(text in "[a-z/.]{0,40}") {
            proptest::prop_assert!(matches(text.as_bytes(), text.as_bytes(), true));
            proptest::prop_assert!(matches(b"**", text.as_bytes(), true));
            proptest::prop_assert!(matches(b"*", text.as_bytes(), false));
        }

        /// The same as trying every way.
        #[test]
        fn agrees_with_every_way_tried(form in "[ab/*?]{0,8}", text in "[ab/]{0,8}", path in proptest::bool::ANY) {
            proptest::prop_assert_eq!(
                matches(form.as_bytes(), text.as_bytes(), path),
                slow(form.as_bytes(), text.as_bytes(), path),
            );
        }
    }

    fn slow(form: &[u8], text: &[u8], path: bool) -> bool {
        match form {
            [] => text.is_empty(),
            [b'*', b'*', rest @ ..] if path => {
                (0..=text.len()).any(|n| slow(rest, &text[n..], path))
            }
            [b'*', rest @ ..] => (0..=text.len())
                .take_while(|n| !path || !text[..*n].contains(&b'/'))
                .any(|n| slow(rest, &text[n..], path)),
            [b'?', rest @ ..] => {
                text.first().is_some_and(|c| !path || *c != b'/') && slow(rest, &text[1..], path)
            }
            [c, rest @ ..] => text.first() == Some(c) && slow(rest, &text[1..], path),
        }
    }
}
