//! The rotated files beside a log file, and which of them are younger than a given one.
//!
//! Rotation names: `FILE.1` (higher = older; newsyslog begins at 0), `FILE-20260508` and
//! the like (higher = younger), each also with the extension kept last (`name-1.log`), and
//! compressed forms of all. [`look`] reads the directory; [`younger`] decides, pure.
//!
//! Invariants: at most [`SIBLINGS_MAX`] are kept, of at most [`ENTRIES_MAX`] directory
//! entries; one rule orders a set: numbers if the reference file has a number, texts if it
//! has a text, else the time of the last change.

use std::cmp::Reverse;
use std::io;
use std::path::{Path, PathBuf};

use super::position::{FileId, mtime_ns};

/// Most rotated files considered.
pub const SIBLINGS_MAX: usize = 256;
/// Most directory entries looked at.
pub const ENTRIES_MAX: usize = 65_536;

/// Times a directory that changes is read again before that is left to the next poll.
const LOOKS_MAX: usize = 4;

const COMPRESSED: [&str; 6] = ["gz", "xz", "zst", "bz2", "lz4", "Z"];

/// What a rotated file's name says about its age.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tag {
    /// `.1`, `.2`: the higher the older.
    Number(u32),
    /// `-20260508`, `.old`: the higher (as text) the younger.
    Text(String),
}

/// One rotated file.
#[derive(Clone, Debug)]
pub struct Sibling {
    /// Where it is.
    pub path: PathBuf,
    /// Which file.
    pub id: FileId,
    /// Bytes.
    pub size: u64,
    /// Last change.
    pub mtime_ns: i64,
    /// Its name's word.
    pub tag: Tag,
    /// Cannot be read on from here.
    pub compressed: bool,
}

/// A log and its rotated files at one moment.
#[derive(Debug)]
pub struct Scene {
    /// What the log's own name stands for, if anything: which file, and its bytes.
    pub named: Option<(FileId, u64)>,
    /// The rotated files.
    pub siblings: Vec<Sibling>,
}

/// The log at `path` and the rotated files beside it.
///
/// A directory is not read at one moment: while a rotation renames its files, one of them
/// may be missed. So it is read until two readings name the same files.
///
/// # Errors
/// When the directory cannot be read; `WouldBlock` while a rotation is going on: ask again.
pub fn look(path: &Path) -> io::Result<Scene> {
    let mut before = look_once(path)?;
    for _ in 0..LOOKS_MAX {
        let after = look_once(path)?;
        let key = |scene: &Scene| {
            let mut ids: Vec<_> = scene.siblings.iter().map(|s| (s.path.clone(), s.id)).collect();
            ids.sort_by(|a, b| a.0.cmp(&b.0));
            (scene.named.map(|(id, _)| id), ids)
        };
        if key(&before) == key(&after) {
            return Ok(after);
        }
        before = after;
    }
    Err(io::ErrorKind::WouldBlock.into())
}

fn look_once(path: &Path) -> io::Result<Scene> {
    let named = match std::fs::metadata(path) {
        Ok(meta) => Some((FileId::of(&meta), meta.len())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(e),
    };
    Ok(Scene { named, siblings: scan(path)? })
}

fn scan(path: &Path) -> io::Result<Vec<Sibling>> {
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let Some(name) = path.file_name().and_then(|n| n.to_str()) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)?.take(ENTRIES_MAX) {
        let entry = entry?;
        let Some((tag, compressed)) = entry.file_name().to_str().and_then(|n| tag_of(name, n))
        else {
            continue;
        };
        // Gone meanwhile: rotation goes on while we look.
        let Ok(meta) = std::fs::metadata(entry.path()) else { continue };
        if !meta.is_file() || found.len() >= SIBLINGS_MAX {
            continue;
        }
        found.push(Sibling {
            path: entry.path(),
            id: FileId::of(&meta),
            size: meta.len(),
            mtime_ns: mtime_ns(&meta),
            tag,
            compressed,
        });
    }
    Ok(without_doubles(found))
}

/// Without those that were compressed just now: the plain file still is there.
pub(crate) fn without_doubles(mut found: Vec<Sibling>) -> Vec<Sibling> {
    let plain: Vec<Tag> = found.iter().filter(|s| !s.compressed).map(|s| s.tag.clone()).collect();
    found.retain(|s| !s.compressed || !plain.contains(&s.tag));
    found
}

/// What the name says of a rotated file's age and form: `name` is the log file, `candidate`
/// another name of its directory.
pub(crate) fn tag_of(name: &str, candidate: &str) -> Option<(Tag, bool)> {
    if candidate == name {
        return None;
    }
    let (plain, compressed) = match candidate.rsplit_once('.') {
        Some((plain, ext)) if COMPRESSED.contains(&ext) => (plain, true),
        _ => (candidate, false),
    };
    let rest = plain.strip_prefix(name).or_else(|| {
        let (stem, ext) = name.rsplit_once('.')?;
        plain.strip_prefix(stem)?.strip_suffix(ext)?.strip_suffix('.')
    })?;
    let tag = rest.strip_prefix(['.', '-', '_'])?;
    let dated = tag.starts_with(|c: char| c.is_ascii_digit());
    if !dated && !["old", "bak", "prev"].contains(&tag) {
        return None;
    }
    // More digits than a rotation count has are a date.
    let number = if tag.len() <= 5 { tag.parse().ok() } else { None };
    Some((number.map_or_else(|| Tag::Text(tag.to_owned()), Tag::Number), compressed))
}

/// What came after a file.
#[derive(Debug, Default)]
pub struct Younger<'a> {
    /// Readable, oldest first; empty files are left out.
    pub plain: Vec<&'a Sibling>,
    /// Compressed, and so lost to us.
    pub compressed: usize,
}

/// The siblings that are younger than the file `id`, last changed at `changed_ns`. `None`
/// when that file exists no more: its inode may be another file's by now.
#[must_use]
pub fn younger(siblings: &[Sibling], id: Option<FileId>, changed_ns: i64) -> Younger<'_> {
    let own = siblings.iter().find(|s| Some(s.id) == id).map(|s| &s.tag);
    let mut found: Vec<&Sibling> = siblings
        .iter()
        .filter(|s| Some(s.id) != id && s.size > 0)
        .filter(|s| match (own, &s.tag) {
            (Some(Tag::Number(own)), Tag::Number(n)) => n < own,
            (Some(Tag::Text(own)), Tag::Text(t)) => t > own,
            (Some(_), _) => false,
            (None, _) => s.mtime_ns > changed_ns,
        })
        .collect();
    found.sort_by_key(|s| match &s.tag {
        Tag::Number(n) => (if own.is_none() { s.mtime_ns } else { 0 }, Reverse(*n), ""),
        Tag::Text(t) => (if own.is_none() { s.mtime_ns } else { 0 }, Reverse(0), t.as_str()),
    });
    let compressed = found.iter().filter(|s| s.compressed).count();
    found.retain(|s| !s.compressed);
    Younger { plain: found, compressed }
}

/// The oldest readable sibling with lines that were written after `changed_ns`, when the
/// file `id` was still empty: that file, renamed, or a copy made of it since.
#[must_use]
pub fn first_since(siblings: &[Sibling], id: FileId, changed_ns: i64) -> Option<&Sibling> {
    siblings
        .iter()
        .filter(|s| !s.compressed && s.size > 0)
        .filter(|s| s.id == id || s.mtime_ns > changed_ns)
        .min_by_key(|s| match &s.tag {
            Tag::Number(n) => (s.mtime_ns, Reverse(*n), ""),
            Tag::Text(t) => (s.mtime_ns, Reverse(0), t.as_str()),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn tag(name: &str, candidate: &str, expected: Option<(Tag, bool)>) {
        assert_eq!(tag_of(name, candidate), expected, "{candidate}");
    }
    fn text(t: &str) -> Tag {
        Tag::Text(t.to_owned())
    }

    #[test]
    fn names_of_rotated_files() {
        tag("dns.log", "dns.log", None);
        tag("dns.log", "dns.log.1", Some((Tag::Number(1), false)));
        tag("dns.log", "dns.log.0", Some((Tag::Number(0), false)));
        tag("dns.log", "dns.log.12.gz", Some((Tag::Number(12), true)));
        tag("dns.log", "dns.log-20260508", Some((text("20260508"), false)));
        tag("dns.log", "dns.log-20260508.zst", Some((text("20260508"), true)));
        tag("dns.log", "dns.log.2026-05-08T10:00", Some((text("2026-05-08T10:00"), false)));
        tag("dns.log", "dns-20260508.log", Some((text("20260508"), false)));
        tag("dns.log", "dns.1.log", Some((Tag::Number(1), false)));
        tag("dns.log", "dns.log.old", Some((text("old"), false)));
        tag("dns.log", "dns.log.swp", None);
        tag("dns.log", "dns.logger.1", None);
        tag("dns.log", "dns-FTL.log", None);
        tag("dns.log", "dns2.log", None);
        tag("messages", "messages.1", Some((Tag::Number(1), false)));
        tag("messages", "other.1", None);
    }

    fn sibling(ino: u64, tag: Tag, mtime_ns: i64, compressed: bool) -> Sibling {
        let id = FileId { dev: 1, ino };
        Sibling { path: PathBuf::new(), id, size: 9, mtime_ns, tag, compressed }
    }

    #[track_caller]
    fn after(siblings: &[Sibling], ino: u64, changed: i64, plain: &[u64], compressed: usize) {
        let found = younger(siblings, Some(FileId { dev: 1, ino }), changed);
        assert_eq!(found.plain.iter().map(|s| s.id.ino).collect::<Vec<_>>(), plain);
        assert_eq!(found.compressed, compressed);
    }

    #[test]
    fn younger_by_number_by_date_and_by_change() {
        let n = |ino, n, t| sibling(ino, Tag::Number(n), t, false);
        let numbers = [n(10, 1, 50), n(30, 3, 50), n(20, 2, 50)];
        after(&numbers, 30, 50, &[20, 10], 0);
        after(&numbers, 20, 50, &[10], 0);
        after(&numbers, 10, 50, &[], 0);
        let dates = [
            sibling(1, text("20260508"), 1, false),
            sibling(3, text("20260510"), 3, true),
            sibling(2, text("20260509"), 2, false),
        ];
        after(&dates, 1, 1, &[2], 1);
        // The file itself is gone: what changed after its last change.
        after(&[n(1, 2, 10), n(2, 1, 20), sibling(3, Tag::Number(3), 9, true)], 99, 9, &[1, 2], 0);
    }
}
