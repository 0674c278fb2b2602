//! Translatable strings: those in the app's scripts, and gettext catalogues.
//!
//! A string is what stands in `_('...')` in a script, and every `title` of the menu and
//! `description` of the ACL file, as LuCI's own scanner finds them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// A `.po` or `.pot` file: original and translation, in order.
#[derive(Debug, Default)]
pub struct Catalogue {
    entries: BTreeMap<String, String>,
}

impl Catalogue {
    /// Reads a catalogue.
    ///
    /// # Panics
    /// When it cannot be read.
    #[must_use]
    pub fn read(path: &Path) -> Self {
        let text =
            std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Self::parse(&text)
    }

    /// Reads a catalogue's text: `msgid` and `msgstr`, each perhaps over several lines.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let (mut entries, mut original, mut into) = (BTreeMap::new(), String::new(), None);
        for line in text.lines() {
            let (keyword, quoted) = match line.split_once('"') {
                Some((keyword, rest)) => (
                    keyword.trim(),
                    unescape(rest.trim_end().strip_suffix('"').unwrap_or_default()),
                ),
                None => continue,
            };
            match (keyword, into) {
                ("msgid", _) => (original, into) = (quoted, Some(false)),
                ("msgstr", _) => {
                    into = Some(true);
                    entries.insert(original.clone(), quoted);
                }
                ("", Some(false)) => original.push_str(&quoted),
                ("", Some(true)) => entries.entry(original.clone()).or_default().push_str(&quoted),
                _ => into = None,
            }
        }
        Self { entries }
    }

    /// Original and translation, without the header.
    #[must_use]
    pub fn pairs(&self) -> BTreeMap<&str, &str> {
        let pairs = self.entries.iter().map(|(k, v)| (k.as_str(), v.as_str()));
        pairs.filter(|(original, _)| !original.is_empty()).collect()
    }

    /// The originals.
    #[must_use]
    pub fn originals(&self) -> BTreeSet<String> {
        self.pairs().keys().map(|original| (*original).to_owned()).collect()
    }
}

/// The template of the app as it should be: each string with the files it stands in.
///
/// # Panics
/// When a file of the app cannot be read.
#[must_use]
pub fn template(app: &Path) -> String {
    let mut places: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in files(app) {
        let text =
            std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let name = file.strip_prefix(app).expect("a file of the app").display().to_string();
        let found = if name.ends_with(".js") { in_script(&text) } else { in_json(&text) };
        for string in found {
            places.entry(string).or_default().insert(name.clone());
        }
    }
    let mut text = "msgid \"\"\nmsgstr \"Content-Type: text/plain; charset=UTF-8\"\n".to_owned();
    for (string, files) in places {
        let comments: String = files.iter().map(|file| format!("#: {file}\n")).collect();
        write!(text, "\n{comments}msgid \"{}\"\nmsgstr \"\"\n", escape(&string))
            .expect("a string takes all");
    }
    text
}

/// All scripts, and the JSON files with titles.
fn files(app: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![app.join("htdocs"), app.join("root")]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of the app").flatten() {
            let path = entry.path();
            let wanted = path.extension().is_some_and(|e| e == "js" || e == "json");
            if path.is_dir() {
                folders.push(path)
            } else if wanted {
                found.push(path)
            }
        }
    }
    found
}

/// The strings in `_('...')` or `_("...")`.
#[must_use]
pub fn in_script(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (before, rest) in
        text.match_indices("_(").filter_map(|(at, _)| Some((text.get(..at)?, text.get(at + 2..)?)))
    {
        let part_of_a_name =
            before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$');
        let Some(quote) = rest.chars().next().filter(|c| !part_of_a_name && "'\"".contains(*c))
        else {
            continue;
        };
        let mut escaped = false;
        let body = rest.chars().skip(1).take_while(|&c| {
            let end = c == quote && !escaped;
            escaped = c == '\\' && !escaped;
            !end
        });
        found.push(unescape(&body.collect::<String>()));
    }
    found
}

fn in_json(text: &str) -> Vec<String> {
    fn walk(value: &Value, found: &mut Vec<String>) {
        for (key, inner) in value.as_object().into_iter().flatten() {
            match inner.as_str().filter(|_| key == "title" || key == "description") {
                Some(title) => found.push(title.to_owned()),
                None => walk(inner, found),
            }
        }
    }
    let mut found = Vec::new();
    walk(&serde_json::from_str(text).expect("JSON of the app"), &mut found);
    found
}

fn unescape(text: &str) -> String {
    let (mut out, mut letters) = (String::new(), text.chars());
    while let Some(letter) = letters.next() {
        match (letter, letter == '\\') {
            (_, true) => match letters.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some(other) => out.push(other),
                None => {}
            },
            (other, _) => out.push(other),
        }
    }
    out
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(script: &str, expected: &[&str]) {
        assert_eq!(in_script(script), expected);
    }

    #[test]
    fn strings_of_a_script() {
        check("_('a') + _(\"b\")", &["a", "b"]);
        check("_('it\\'s')", &["it's"]);
        check("_('say \"hi\"')", &["say \"hi\""]);
        check("foo_('no'); N_(1, 'x')", &[]);
        check("_(name)", &[]);
    }

    #[test]
    fn a_catalogue_is_read() {
        let text = "msgid \"\"\nmsgstr \"\"\n\"Language: de\\n\"\n\n#: a.js\nmsgid \"one\"\nmsgstr \"eins\"\nmsgid \"\"\n\"two \"\n\"more\"\nmsgstr \"zwei \\\"q\\\"\"\n";
        let catalogue = Catalogue::parse(text);
        let expected = [("one", "eins"), ("two more", "zwei \"q\"")];
        assert_eq!(catalogue.pairs().into_iter().collect::<Vec<_>>(), expected);
    }
}
