//! Which file of another machine is the one that was read: by content.
//!
//! In: a [`Place`] and the files that are there. Out: whether one fits, and where the rotated
//! files are.

use std::path::PathBuf;

use super::Files;
use super::follow::Place;
use crate::tail::lines::CONTEXT_BYTES_MAX;
use crate::tail::position::{FileId, Print};
use crate::tail::siblings::{SIBLINGS_MAX, Sibling, first_since, tag_of, without_doubles};

/// No file has this id.
const NO_FILE: FileId = FileId { dev: u64::MAX, ino: u64::MAX };

/// Folder and name of an absolute path of a file.
pub(super) fn folder_of(path: &str) -> Option<(&str, &str)> {
    let (folder, name) = path.rsplit_once('/')?;
    let fine = path.starts_with('/') && !name.is_empty() && !path.contains('\0');
    fine.then_some((if folder.is_empty() { "/" } else { folder }, name))
}

/// Whether the file begins with what was read from it.
pub(super) fn begins<F: Files>(
    files: &mut F,
    file: &F::File,
    head: Print,
) -> Result<bool, F::Error> {
    Ok(head.len == 0 || Print::of(&files.read(file, 0, usize::from(head.len))?) == head)
}

/// Whether the file holds, up to the offset, what was read under this place.
pub(super) fn fits<F: Files>(
    files: &mut F,
    file: &F::File,
    place: &Place,
) -> Result<bool, F::Error> {
    let length = usize::from(place.context.len);
    let before = place.offset.saturating_sub(length as u64);
    Ok(begins(files, file, place.head)?
        && (length == 0 || Print::of(&files.read(file, before, length)?) == place.context))
}

/// The bytes before `offset`, as many as are remembered.
pub(super) fn before<F: Files>(
    files: &mut F,
    file: &F::File,
    offset: u64,
) -> Result<Vec<u8>, F::Error> {
    let length = offset.min(CONTEXT_BYTES_MAX as u64);
    if length == 0 {
        return Ok(Vec::new());
    }
    files.read(file, offset - length, usize::try_from(length).unwrap_or(CONTEXT_BYTES_MAX))
}

/// The rotated files beside the log at `path`. Their ids are made up: they tell these files
/// apart, as long as the list is kept.
pub(super) fn siblings<F: Files>(files: &mut F, path: &str) -> Result<Vec<Sibling>, F::Error> {
    let Some((folder, name)) = folder_of(path) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for (candidate, about) in files.list(folder)? {
        let Some((tag, compressed)) = tag_of(name, &candidate) else { continue };
        if !about.is_file() || found.len() >= SIBLINGS_MAX {
            continue;
        }
        found.push(Sibling {
            path: PathBuf::from(folder).join(candidate),
            id: FileId { dev: 0, ino: found.len() as u64 },
            size: about.size,
            mtime_ns: i64::from(about.changed),
            tag,
            compressed,
        });
    }
    Ok(without_doubles(found))
}

/// The rotated file that holds what was read under `place`: the very file, renamed, or a
/// copy of it; open. The one that changed last, where several would do.
pub(super) fn copy_of<F: Files>(
    files: &mut F,
    place: &Place,
    siblings: &[Sibling],
) -> Result<Option<F::File>, F::Error> {
    if place.is_blank() {
        let first = first_since(siblings, NO_FILE, i64::from(place.changed));
        return match first {
            Some(sibling) => files.open(&sibling.path.to_string_lossy()),
            None => Ok(None),
        };
    }
    Ok(fitting(files, place, siblings)?.map(|(_, file)| file))
}

/// The open file among its siblings, after it was renamed.
pub(super) fn own<F: Files>(
    files: &mut F,
    place: &Place,
    siblings: &[Sibling],
) -> Result<Option<FileId>, F::Error> {
    if place.is_blank() {
        return Ok(None);
    }
    let Some((id, file)) = fitting(files, place, siblings)? else { return Ok(None) };
    files.close(file)?;
    Ok(Some(id))
}

fn fitting<F: Files>(
    files: &mut F,
    place: &Place,
    siblings: &[Sibling],
) -> Result<Option<(FileId, F::File)>, F::Error> {
    let plain = siblings.iter().filter(|s| !s.compressed && s.size >= place.offset);
    let mut plain: Vec<&Sibling> = plain.collect();
    plain.sort_by_key(|s| std::cmp::Reverse(s.mtime_ns));
    for sibling in plain {
        let Some(file) = files.open(&sibling.path.to_string_lossy())? else { continue };
        if fits(files, &file, place)? {
            return Ok(Some((sibling.id, file)));
        }
        files.close(file)?;
    }
    Ok(None)
}
