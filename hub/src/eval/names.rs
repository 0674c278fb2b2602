//! Names from files, for measuring.
//!
//! In: a file (plain or gzip, also a pipe), or a directory of them, each a family of its
//! own. One name per line; of lines with tabs or commas the first column; empty lines and
//! lines that begin with `#` say nothing. Out: names, and how many lines were none.
//! Bounds: [`LINE_BYTES_MAX`], [`NAMES_MAX`] for each file.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use agentmon_core::Name;
use anyhow::{Context, Result, bail};
use flate2::bufread::MultiGzDecoder;

/// Longest line that is looked at; a name has at most 1 KiB of text.
pub const LINE_BYTES_MAX: usize = 8 * 1024;
/// Most names of one file.
pub const NAMES_MAX: usize = 20_000_000;
/// Files of a directory that hold names, with or without `.gz`; so that a description
/// beside them is no family.
const KINDS: [&str; 4] = ["txt", "csv", "list", "names"];

/// The names of one file.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// The file's name up to the first dot.
    pub family: String,
    /// In the file's order.
    pub names: Vec<Name>,
    /// Lines that hold no name.
    pub bad_lines: u64,
}

/// A file, or each file of a directory in alphabetical order.
///
/// # Errors
/// What cannot be read, or holds no name at all.
pub fn read(path: &Path) -> Result<Vec<Names>> {
    let about = path.metadata().with_context(|| format!("opening {}", path.display()))?;
    if !about.is_dir() {
        return Ok(vec![file(path)?]);
    }
    let mut files = Vec::new();
    for entry in path.read_dir().with_context(|| format!("reading {}", path.display()))? {
        let entry = entry.with_context(|| format!("reading {}", path.display()))?.path();
        if entry.is_file() && holds_names(&entry) {
            files.push(entry);
        }
    }
    if files.is_empty() {
        bail!("no files of names (.txt, .csv, .list, .names, also .gz) in {}", path.display());
    }
    files.sort();
    let mut families = files.iter().map(|path| lines_of(path)).collect::<Result<Vec<Names>>>()?;
    // An empty family among others is nothing to stop for.
    families.retain(|family| !family.names.is_empty());
    if families.is_empty() {
        bail!("none of the {} files in {} holds names", files.len(), path.display());
    }
    Ok(families)
}

fn holds_names(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    match name.rsplit_once('.') {
        Some((front, kind)) => !front.is_empty() && KINDS.contains(&kind),
        None => true,
    }
}

fn file(path: &Path) -> Result<Names> {
    let names = lines_of(path)?;
    if names.names.is_empty() {
        bail!("{} holds no names ({} other lines)", path.display(), names.bad_lines);
    }
    Ok(names)
}

fn lines_of(path: &Path) -> Result<Names> {
    let reading = || format!("reading {}", path.display());
    let input = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let mut input = BufReader::with_capacity(256 * 1024, input);
    let packed = input.fill_buf().with_context(reading)?.starts_with(&[0x1f, 0x8b]);
    let mut names = if packed {
        lines(BufReader::new(MultiGzDecoder::new(input))).with_context(reading)?
    } else {
        lines(input).with_context(reading)?
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    names.family = name.split('.').next().unwrap_or_default().to_owned();
    Ok(names)
}

/// Reads lines of bytes: names are no UTF-8.
fn lines(mut input: impl BufRead) -> Result<Names> {
    let mut names = Names::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        let limit = LINE_BYTES_MAX as u64 + 1;
        if (&mut input).take(limit).read_until(b'\n', &mut line)? == 0 {
            return Ok(names);
        }
        if line.len() > LINE_BYTES_MAX {
            if !line.ends_with(b"\n") {
                input.skip_until(b'\n')?;
            }
            names.bad_lines += 1;
            continue;
        }
        let text = line.trim_ascii();
        let text = text.split(|b| matches!(b, b'\t' | b',')).next().unwrap_or_default();
        let text = text.trim_ascii_end();
        if text.is_empty() || text.starts_with(b"#") {
            continue;
        }
        match Name::parse(text) {
            Ok(name) if names.names.len() < NAMES_MAX => names.names.push(name),
            Ok(_) => bail!("more than {NAMES_MAX} names"),
            Err(_) => names.bad_lines += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[track_caller]
    fn check(text: &[u8], expected: &[&str], bad: u64) {
        let names = lines(text).unwrap();
        let texts: Vec<&str> = names.names.iter().map(Name::as_str).collect();
        assert_eq!((texts.as_slice(), names.bad_lines), (expected, bad));
    }

    #[test]
    fn lines_become_names() {
        check(b"a.example\nB.Example.\n", &["a.example", "b.example"], 0);
        check(b"a.example\r\n\r\n# remark\nb.example", &["a.example", "b.example"], 0);
        check(b"a.example\t7\nb.example,x\n", &["a.example", "b.example"], 0);
        check(b"a..example\n.\n", &["."], 1);
        check(b"a\xff.example\n", &["a\\255.example"], 0);
        check(&[b'x'; 100], &[], 1);
        let long = [&[b'x'; 20_000][..], b"\nb.example"].concat();
        check(&long, &["b.example"], 1);
        // Exactly at the bound, its line break included or not.
        for size in [LINE_BYTES_MAX - 1, LINE_BYTES_MAX, LINE_BYTES_MAX + 1] {
            check(&[&vec![b'x'; size][..], b"\nb.example\n"].concat(), &["b.example"], 1);
        }
    }

    #[test]
    fn a_directory_is_one_family_for_each_file() {
        let dir = tempfile::tempdir().unwrap();
        let write =
            |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
        write("b.txt", b"x.example\n");
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(b"y.example\nz.example\n").unwrap();
        write("a.txt.gz", &packed.finish().unwrap());
        write("plain", b"p.example\n");
        write("ABOUT.md", b"no.family\n");
        write("labels.tsv", b"name\tfamily\n");
        write("empty.txt", b"");
        write(".hidden", b"no.family\n");
        let read = read(dir.path()).unwrap();
        let seen: Vec<_> = read.iter().map(|f| (f.family.as_str(), f.names.len())).collect();
        assert_eq!(seen, [("a", 2), ("b", 1), ("plain", 1)]);
    }

    #[test]
    fn what_holds_no_names_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let complaint = |path: &Path| format!("{:#}", read(path).unwrap_err());
        assert!(complaint(dir.path()).contains("no files of names"));
        let empty = dir.path().join("empty.txt");
        std::fs::write(&empty, "# nothing\n").unwrap();
        assert!(complaint(&empty).contains("holds no names"));
        assert!(complaint(&dir.path().join("none")).contains("opening"));
        // Not gzip behind the first two bytes.
        std::fs::write(&empty, b"\x1f\x8bnonsense").unwrap();
        assert!(complaint(&empty).contains("reading"));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..3_000)) {
            let breaks = bytes.iter().filter(|b| **b == b'\n').count() as u64;
            let names = lines(&bytes[..]).unwrap();
            assert!(names.names.len() as u64 + names.bad_lines <= breaks + 1);
        }
    }
}
