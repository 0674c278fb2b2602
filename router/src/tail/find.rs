//! Finds the file of a saved position again: under its own name, renamed, or copied.
//!
//! In: a position and the files that are there. Out: the file opened at that place, or the
//! next best place and a loss. Runs once per start, and where a file was truncated.

use std::fs::File;
use std::io;

use super::position::{FileId, Position, open_regular};
use super::siblings::{Sibling, first_since, look, younger};
use super::{Fill, Follower, Loss};

impl Follower {
    /// Finds the file of a saved position: under its own name or a rotated one.
    pub(super) fn find(&mut self, position: &Position) -> io::Result<Fill> {
        let siblings = look(&self.path)?.siblings;
        let named = match open_regular(&self.path) {
            Ok(file) => Some(file),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(e),
        };
        if let Some(file) = &named
            && FileId::of(&file.metadata()?) == position.id
            && !position.is_blank()
            && position.fits(file)?
        {
            return self.found(file.try_clone()?, Some(position));
        }
        if let Some(file) = copy_of(position, &siblings)? {
            return self.found(file, Some(position));
        }
        // The same content under another inode: restored from a backup, moved to a new disk.
        if let Some(file) = &named
            && !position.is_blank()
            && position.fits(file)?
        {
            return self.found(file.try_clone()?, Some(position));
        }
        let next = match younger(&siblings, None, position.mtime_ns).plain.first() {
            Some(sibling) => Some(open_regular(&sibling.path)?),
            None => named,
        };
        // No log at all: its disk may not be there yet.
        let Some(file) = next else { return Ok(Fill::Idle) };
        self.found(file, None)?;
        if position.is_blank() {
            return Ok(Fill::More);
        }
        self.counts.lost_rotated += 1;
        Ok(Fill::Loss(Loss { reason: "log-rotated-away", since_ns: position.mtime_ns }))
    }

    fn found(&mut self, file: File, at: Option<&Position>) -> io::Result<Fill> {
        self.open_at(file, at)?;
        self.resume = None;
        Ok(Fill::More)
    }
}

/// The rotated file that holds what was read under `position`: the very file, renamed, or
/// a copy of it. The one that changed last, where several would do.
pub(super) fn copy_of(position: &Position, siblings: &[Sibling]) -> io::Result<Option<File>> {
    if position.is_blank() {
        let first = first_since(siblings, position.id, position.mtime_ns);
        return first.map(|s| open_regular(&s.path)).transpose();
    }
    let mut plain: Vec<&Sibling> =
        siblings.iter().filter(|s| !s.compressed && s.size >= position.offset).collect();
    plain.sort_by_key(|s| (s.id != position.id, std::cmp::Reverse(s.mtime_ns)));
    for sibling in plain {
        let Ok(file) = open_regular(&sibling.path) else { continue };
        if position.fits(&file)? {
            return Ok(Some(file));
        }
    }
    Ok(None)
}
