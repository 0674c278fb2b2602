//! Follows a log file: every line once, over rotation, truncation and restarts.
//!
//! In: a path and, after a restart, the [`Position`] committed last. Out: whole lines as
//! byte slices, and [`Loss`]es. Runs on its collector's thread; [`Follower::step`] never
//! blocks, an idle poll costs three system calls. Memory: one [`LineBuffer`] (136 KiB).
//!
//! What it survives, and how:
//! - *rename and create*: the open file is read to its end, also while the writer goes on
//!   writing to the renamed file, and left only when a younger file has content;
//! - *several rotations at once*: the files between are found beside the log
//!   ([`siblings`]) and read in order; where one was compressed or deleted, that is a [`Loss`];
//! - *copytruncate*: a file that shrank, or whose fingerprint changed although it did not
//!   shrink, is begun anew, after the unread rest of its copy, if there is one. (Lines
//!   written between the copying and the truncating are lost to everyone.)
//! - *half lines* wait for their newline; *restarts* find the file by its content, not by
//!   its inode alone ([`position`]).
//!
//! Polling instead of inotify: it works the same on overlay, tmpfs, NFS and FUSE, and a
//! log that writes 1,000 lines/s would wake an inotify reader 1,000 times a second.

mod find;
pub mod lines;
pub mod position;
pub mod siblings;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use lines::{LineBuffer, LineCounts};
use position::{
    FileId, HEAD_BYTES_MAX, Position, Print, ends_with, mtime_ns, open_regular, read_full_at,
};
use siblings::{Scene, first_since, look, younger};

/// See the module's text.
#[derive(Debug)]
pub struct Follower {
    path: PathBuf,
    lines: LineBuffer,
    open: Option<Open>,
    /// Where to go on, until a file was found there.
    resume: Option<Position>,
    /// The file that is there at first sight is not read, only what is added.
    skip_existing: bool,
    counts: Counts,
}

#[derive(Debug)]
struct Open {
    file: File,
    id: FileId,
    head: Print,
    mtime_ns: i64,
}

/// What happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Changes to a younger file.
    pub rotated: u64,
    /// Files that shrank or were written anew in place.
    pub truncated: u64,
    /// Rotated files that could not be read to their end.
    pub lost_rotated: u64,
    /// Unfinished last lines of files that were left.
    pub half_lines: u64,
    /// What the buffer did not hand out.
    pub lines: LineCounts,
}

/// What [`Follower::step`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// One line, without its newline.
    Line(&'a [u8]),
    /// Nothing to read now: ask again in 100 to 250 ms.
    Idle,
    /// Lines may be missing here.
    Loss(Loss),
}

/// Why lines may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// `log-rotated-away`, `log-truncated`.
    pub reason: &'static str,
    /// The last change of the file that was read before, nanoseconds since the epoch.
    pub since_ns: i64,
}

enum Fill {
    More,
    Idle,
    Loss(Loss),
}

enum Chunk {
    Data,
    End,
    /// The file does not hold any more what was read from it.
    Changed,
}

impl Follower {
    /// Follows `path` from its end (what is there already is skipped), or from its begin.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, from_start: bool) -> Self {
        Self {
            path: path.into(),
            lines: LineBuffer::new(),
            open: None,
            resume: None,
            skip_existing: !from_start,
            counts: Counts::default(),
        }
    }

    /// Goes on where `position` was taken.
    #[must_use]
    pub fn resume(path: impl Into<PathBuf>, position: Position) -> Self {
        Self { resume: Some(position), ..Self::new(path, true) }
    }

    /// With lines of up to `longest` bytes; before the first step.
    #[must_use]
    pub fn with_lines(mut self, longest: usize) -> Self {
        self.lines = LineBuffer::for_lines(longest);
        self
    }

    /// The file that is followed.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a file is open: false while none was ever there.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// The place behind the last line that [`Self::step`] gave; `None` before the first file.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        let Some(open) = &self.open else { return self.resume.clone() };
        Some(Position {
            id: open.id,
            offset: self.lines.offset(),
            skipping: self.lines.skipping(),
            head: open.head,
            context: Print::of(self.lines.context()),
            mtime_ns: open.mtime_ns,
        })
    }

    /// Bytes of the open file handed out, and its size.
    #[must_use]
    pub fn progress(&self) -> (u64, u64) {
        let size = self.open.as_ref().and_then(|o| o.file.metadata().ok()).map_or(0, |m| m.len());
        (self.lines.offset(), size)
    }

    /// What happened so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts { lines: self.lines.counts(), ..self.counts }
    }

    /// The next line, if there is one.
    ///
    /// # Errors
    /// When the file or its directory cannot be read. The position stays where it was.
    pub fn step(&mut self) -> io::Result<Step<'_>> {
        loop {
            if let Some(line) = self.lines.next_line() {
                return Ok(Step::Line(self.lines.get(line)));
            }
            match self.fill() {
                Ok(Fill::More) => {}
                Ok(Fill::Idle) => return Ok(Step::Idle),
                Ok(Fill::Loss(loss)) => return Ok(Step::Loss(loss)),
                // A rotation is going on just now.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Step::Idle),
                Err(e) => return Err(e),
            }
        }
    }

    fn fill(&mut self) -> io::Result<Fill> {
        if self.open.is_none() {
            return match self.resume.clone() {
                Some(position) => self.find(&position),
                None => self.first(),
            };
        }
        match self.read_chunk()? {
            Chunk::Data => Ok(Fill::More),
            Chunk::Changed => self.truncated(),
            Chunk::End => self.at_end(),
        }
    }

    /// Reads on, then makes sure that the file still is the one read before: in this
    /// order, so that a truncation between the two is not taken for new lines.
    fn read_chunk(&mut self) -> io::Result<Chunk> {
        let Some(open) = &self.open else { return Ok(Chunk::End) };
        let offset = self.lines.read_offset();
        let n = loop {
            match open.file.read_at(self.lines.space(), offset) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        if n == 0 {
            return Ok(Chunk::End);
        }
        if !self.is_same(offset)? {
            return Ok(Chunk::Changed);
        }
        self.lines.filled(n);
        if let Some(open) = &mut self.open
            && usize::from(open.head.len) < HEAD_BYTES_MAX
        {
            open.head = head_of(&open.file)?;
        }
        Ok(Chunk::Data)
    }

    /// Whether the open file still holds what was read from it up to `offset`. Of a file
    /// that was empty so far only a copy made of it since can tell.
    fn is_same(&self, offset: u64) -> io::Result<bool> {
        let Some(open) = &self.open else { return Ok(false) };
        if open.head.len == 0 {
            return Ok(first_since(&look(&self.path)?.siblings, open.id, open.mtime_ns).is_none());
        }
        Ok(open.head.fits(&open.file, 0)?
            && ends_with(&open.file, offset, self.lines.read_context())?)
    }

    /// Nothing more in the open file for now: truncated, rotated, or just quiet?
    fn at_end(&mut self) -> io::Result<Fill> {
        let Some(open) = &self.open else { return Ok(Fill::Idle) };
        let meta = open.file.metadata()?;
        let read = self.lines.read_offset();
        // Also when it was written anew up to exactly the old size.
        let changed = mtime_ns(&meta) != open.mtime_ns;
        if meta.len() < read || (changed && !self.is_same(read)?) {
            return self.truncated();
        }
        let Some(open) = &mut self.open else { return Ok(Fill::Idle) };
        open.mtime_ns = mtime_ns(&meta);
        let id = open.id;
        match std::fs::metadata(&self.path) {
            Ok(named) if FileId::of(&named) == id => return Ok(Fill::Idle),
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        self.rotated(&look(&self.path)?)
    }

    /// The path names another file, or none: goes on to the oldest younger file with
    /// content. Without one, the writer has not changed over yet.
    fn rotated(&mut self, scene: &Scene) -> io::Result<Fill> {
        let Some(open) = &self.open else { return Ok(Fill::Idle) };
        let later = younger(&scene.siblings, Some(open.id), open.mtime_ns);
        let next = match (later.plain.first(), scene.named) {
            (Some(sibling), _) => (sibling.path.clone(), sibling.id),
            (None, Some((id, size))) if size > 0 && id != open.id => (self.path.clone(), id),
            _ => return Ok(Fill::Idle),
        };
        // Lines written between our reaching the end and the first line of the next file.
        match self.read_chunk()? {
            Chunk::Data => return Ok(Fill::More),
            Chunk::Changed => return self.truncated(),
            Chunk::End => {}
        }
        let since_ns = self.open.as_ref().map_or(0, |o| o.mtime_ns);
        let file = match open_regular(&next.0) {
            Ok(file) if FileId::of(&file.metadata()?) == next.1 => file,
            // Renamed or deleted meanwhile: look again at the next poll.
            Ok(_) => return Ok(Fill::Idle),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Fill::Idle),
            Err(e) => return Err(e),
        };
        // A copy of what was read, moved into place (an editor, `sed -i`), is no new file.
        let same = self.position().filter(|p| !p.is_blank() && p.offset > 0);
        let same = same.filter(|p| p.fits(&file).unwrap_or(false));
        self.counts.rotated += 1;
        if same.is_none() {
            self.counts.half_lines += u64::from(self.lines.pending() > 0);
        }
        self.open_at(file, same.as_ref())?;
        if later.compressed == 0 {
            return Ok(Fill::More);
        }
        self.counts.lost_rotated += later.compressed as u64;
        Ok(Fill::Loss(Loss { reason: "log-rotated-away", since_ns }))
    }

    /// The open file was truncated in place: first the rest of its copy, then anew.
    fn truncated(&mut self) -> io::Result<Fill> {
        let Some(position) = self.position() else { return Ok(Fill::Idle) };
        let pending = self.lines.pending() > 0;
        let copy = find::copy_of(&position, &look(&self.path)?.siblings)?;
        self.counts.truncated += 1;
        if let Some(file) = copy {
            self.open_at(file, Some(&position))?;
            return Ok(Fill::More);
        }
        let Some(open) = self.open.take() else { return Ok(Fill::Idle) };
        self.open_at(open.file, None)?;
        if !pending {
            return Ok(Fill::More);
        }
        self.counts.half_lines += 1;
        Ok(Fill::Loss(Loss { reason: "log-truncated", since_ns: position.mtime_ns }))
    }

    /// First sight of the log.
    fn first(&mut self) -> io::Result<Fill> {
        let skip = std::mem::take(&mut self.skip_existing);
        let file = match open_regular(&self.path) {
            Ok(file) => file,
            // What appears later is new from its first line on.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Fill::Idle),
            Err(e) => {
                self.skip_existing = skip;
                return Err(e);
            }
        };
        let size = if skip { file.metadata()?.len() } else { 0 };
        self.open_at(file, None)?;
        if size > 0 {
            self.seek(size, false)?;
            // The rest of a line that is being written just now is no line.
            let inside = self.lines.context().last() != Some(&b'\n');
            self.seek(size, inside)?;
        }
        Ok(Fill::More)
    }

    /// Makes `file` the open one, at its begin or at a position that fits it.
    fn open_at(&mut self, file: File, at: Option<&Position>) -> io::Result<()> {
        let meta = file.metadata()?;
        let head = head_of(&file)?;
        self.open = Some(Open { file, id: FileId::of(&meta), head, mtime_ns: mtime_ns(&meta) });
        match at {
            Some(position) => self.seek(position.offset, position.skipping),
            None => self.seek(0, false),
        }
    }

    fn seek(&mut self, offset: u64, skipping: bool) -> io::Result<()> {
        let Some(open) = &self.open else { return Ok(()) };
        let mut space = [0u8; lines::CONTEXT_BYTES_MAX];
        let before = offset.saturating_sub(space.len() as u64);
        let want = usize::try_from(offset - before).unwrap_or(space.len()).min(space.len());
        let context = space.get_mut(..want).unwrap_or_default();
        let n = read_full_at(&open.file, context, before)?;
        self.lines.seek(offset, skipping, context.get(..n).unwrap_or_default());
        Ok(())
    }
}

/// The first bytes of a file.
fn head_of(file: &File) -> io::Result<Print> {
    let mut space = [0u8; HEAD_BYTES_MAX];
    let n = read_full_at(file, &mut space, 0)?;
    Ok(Print::of(space.get(..n).unwrap_or_default()))
}

#[cfg(test)]
mod tests;
