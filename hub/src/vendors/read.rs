//! The registry's files, and how a table of them is written.
//!
//! In: `oui.csv`, `mam.csv`, `oui36.csv` as the IEEE publishes them
//! (`Registry,Assignment,Organization Name,Organization Address`, RFC 4180), or tables in our
//! own form. Out: the lines of one table, sorted. A download that is an error page gives no
//! block and is refused, so that it never takes a good table's place.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use super::{BLOCKS_MAX, FILE_BYTES_MAX, NAME_BYTES_MAX};

/// Fewer blocks than this over all files are no registry: MA-S alone has 7,000.
const BLOCKS_MIN: usize = 1_000;

/// Blocks and their makers.
type Blocks = BTreeMap<String, String>;

/// A maker's name in one line, of letters that stand for themselves.
pub(super) fn name(text: &str) -> Option<String> {
    let plain = |c: char| if c.is_alphanumeric() || (' '..='~').contains(&c) { c } else { ' ' };
    let words: String = text.chars().map(plain).collect();
    let mut name = words.split_whitespace().collect::<Vec<_>>().join(" ");
    while name.len() > NAME_BYTES_MAX {
        name.pop();
    }
    (!name.is_empty()).then_some(name)
}

/// The name as it stands in a table, if it may stand there.
pub(super) fn is_name(text: &str) -> Option<&str> {
    let fine = |c: char| c.is_alphanumeric() || (' '..='~').contains(&c);
    (!text.is_empty() && text.len() <= NAME_BYTES_MAX && text.chars().all(fine)).then_some(text)
}

/// Reads all files into the text of one table; `about` is its first line.
///
/// # Errors
/// A file that cannot be read or holds no block; fewer blocks than any registry has.
pub fn read_sources(files: &[PathBuf], about: &str) -> anyhow::Result<String> {
    let mut all = Blocks::new();
    for path in files {
        let mut bytes = Vec::new();
        let file = fs::File::open(path).with_context(|| path.display().to_string())?;
        file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
        let before = all.len();
        read_text(&String::from_utf8_lossy(&bytes), &mut all);
        ensure!(
            all.len() > before,
            "{}: no block of a maker in it; wanted are the IEEE's oui.csv, mam.csv, oui36.csv",
            path.display()
        );
    }
    ensure!(
        all.len() >= BLOCKS_MIN,
        "only {} blocks: that is not the registry; the table stays as it was",
        all.len()
    );
    let lines = all.iter().take(BLOCKS_MAX).map(|(prefix, name)| format!("{prefix}\t{name}\n"));
    Ok(format!("# {about}\n{}", lines.collect::<String>()))
}

fn read_text(text: &str, into: &mut Blocks) {
    for record in records(text) {
        let (prefix, owner) = match record.as_slice() {
            [_, prefix, owner, ..] => (prefix, owner),
            [one] => match one.split_once('\t') {
                Some((prefix, owner)) => {
                    add(prefix, owner, into);
                    continue;
                }
                None => continue,
            },
            _ => continue,
        };
        add(prefix, owner, into);
    }
}

fn add(prefix: &str, owner: &str, into: &mut Blocks) {
    let prefix = prefix.trim().to_ascii_uppercase();
    let fits = [6, 7, 9].contains(&prefix.len()) && prefix.bytes().all(|b| b.is_ascii_hexdigit());
    // Nobody's name, and blocks that are divided further.
    let nobody = ["private", "ieee registration authority"];
    let owner = name(owner).filter(|name| !nobody.contains(&name.to_ascii_lowercase().as_str()));
    if let Some(owner) = owner.filter(|_| fits && into.len() < BLOCKS_MAX) {
        into.insert(prefix, owner);
    }
}

/// Records of comma-separated values: fields in quotes may hold commas, line breaks and, each
/// doubled, quotes.
fn records(text: &str) -> Vec<Vec<String>> {
    let (mut all, mut record, mut field, mut quoted) =
        (Vec::new(), Vec::new(), String::new(), false);
    let mut letters = text.chars().peekable();
    while let Some(c) = letters.next() {
        match c {
            '"' if quoted && letters.peek() == Some(&'"') => {
                letters.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => record.push(std::mem::take(&mut field)),
            '\n' if !quoted => {
                record.push(std::mem::take(&mut field));
                all.push(std::mem::take(&mut record));
            }
            '\r' => {}
            c => field.push(c),
        }
    }
    record.push(field);
    all.push(record);
    all
}

/// Puts a table in its place, as a whole.
///
/// # Errors
/// What cannot be written; the table of before is still there.
pub fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let beside = path.with_extension("new");
    drop(fs::remove_file(&beside));
    let options = fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(&beside);
    let mut file = options.with_context(|| beside.display().to_string())?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all())?;
    fs::rename(&beside, path).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[(&str, &str)]) {
        let mut blocks = Blocks::new();
        read_text(text, &mut blocks);
        let got: Vec<_> = blocks.iter().map(|(p, n)| (p.as_str(), n.as_str())).collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn the_registrys_files() {
        let head = "Registry,Assignment,Organization Name,Organization Address\r\n";
        check(
            &format!(
                "{head}MA-L,00005e,\"Maker, \"\"Inc\"\"\",\"Way 1\nTown\"\r\nMA-S,70B3D5001,Other ,x\r\n"
            ),
            &[("00005E", "Maker, \"Inc\""), ("70B3D5001", "Other")],
        );
        check(
            &format!("{head}MA-L,00005F,Private,\r\nMA-L,70B3D5,IEEE Registration Authority,x"),
            &[],
        );
        check(
            "# about\n00005E\tMaker\n00005E0\tOther\n",
            &[("00005E", "Maker"), ("00005E0", "Other")],
        );
        check("<html>\n<body>429, too many</body>\n", &[]);
        check("MA-L,00005E,\x1b[31mred\u{202e}\x07,x\n", &[("00005E", "[31mred")]);
        check("MA-L,00005E,Prüftechnik GmbH,x\n", &[("00005E", "Prüftechnik GmbH")]);
    }

    #[test]
    fn no_error_page_replaces_a_table() {
        let dir = tempfile::tempdir().unwrap();
        let (page, few) = (dir.path().join("page"), dir.path().join("few"));
        fs::write(&page, "<html>Too many requests</html>").unwrap();
        fs::write(&few, "MA-L,00005E,Maker,x\n").unwrap();
        for (file, says) in [(&page, "no block"), (&few, "only 1 blocks")] {
            let error = read_sources(std::slice::from_ref(file), "x").unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        let whole: String = (0..2_000).map(|n| format!("MA-L,{n:06X},Maker {n},x\n")).collect();
        fs::write(&few, whole).unwrap();
        let text = read_sources(&[few], "IEEE, today").unwrap();
        let table = dir.path().join("vendors.tsv");
        write(&table, &text).unwrap();
        let table = super::super::Vendors::parse(&fs::read_to_string(table).unwrap());
        assert_eq!((table.len(), table.about(), table.bad()), (2_000, "IEEE, today", 0));
    }

    proptest::proptest! {
        #[test]
        fn any_text_never_panics(text in "[\"\\n\\r,a-f0-9\\t é\\x1b]{0,200}") {
            read_text(&text, &mut Blocks::new());
        }
    }
}
