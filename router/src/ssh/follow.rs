//! Follows a log file of another machine: every line once, over rotation, truncation and lost
//! connections.
//!
//! In: [`Files`] and, after a restart, the [`Place`] committed last. Out: whole lines and
//! losses, as of [`crate::tail::Follower`], whose rules these are. What differs: no inode can
//! be seen, so a file is known by its first bytes and by those before the place where we are;
//! and times are in whole seconds. An open file stays itself when it is renamed. Runs on its
//! collector's thread; a quiet look costs three questions. Memory: one [`LineBuffer`].
//!
//! Invariants:
//! - new bytes come with those before them in one answer, so that a file that was written anew
//!   meanwhile is never taken for one that grew;
//! - after an error everything open is gone, and the place stays: [`Follower::disconnected`].

use serde::{Deserialize, Serialize};

use super::find::{self, folder_of};
use super::{About, Files, READ_BYTES};
use crate::tail::lines::LineBuffer;
use crate::tail::position::{HEAD_BYTES_MAX, Print};
use crate::tail::siblings::younger;
use crate::tail::{Counts, Loss, Step};

/// A place in a file that can be found again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// Behind the last line that was handed out.
    pub(super) offset: u64,
    /// The offset lies inside a line that is too long.
    #[serde(default)]
    pub(super) skipping: bool,
    /// The first bytes of the file.
    pub(super) head: Print,
    /// The bytes before the offset.
    pub(super) context: Print,
    /// Last change of the file that was seen, seconds since 1970.
    pub(super) changed: u32,
}

impl Place {
    /// Nothing was read yet, so no content can tell which file it was.
    pub(super) const fn is_blank(&self) -> bool {
        self.head.len == 0 && self.context.len == 0
    }

    fn loss(&self, reason: &'static str) -> Loss {
        Loss { reason, since_ns: i64::from(self.changed) * 1_000_000_000 }
    }
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Follower<H> {
    path: String,
    lines: LineBuffer,
    open: Option<Open<H>>,
    /// Where to go on, until a file was found there.
    resume: Option<Place>,
    /// The file that is there at first sight is not read, only what is added.
    skip_existing: bool,
    counts: Counts,
}

#[derive(Debug)]
struct Open<H> {
    file: H,
    head: Print,
    changed: u32,
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

impl<H> Follower<H> {
    /// Follows `path` from its end (what is there already is skipped), or from its begin.
    pub(crate) fn new(path: &str, from_start: bool) -> Self {
        Self {
            path: path.to_owned(),
            lines: LineBuffer::new(),
            open: None,
            resume: None,
            skip_existing: !from_start,
            counts: Counts::default(),
        }
    }

    /// Goes on where `place` was taken.
    pub(crate) fn resume(path: &str, place: Place) -> Self {
        Self { resume: Some(place), ..Self::new(path, true) }
    }

    /// Whether a file is open: false while none was ever there.
    pub(crate) const fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// What happened so far.
    pub(crate) fn counts(&self) -> Counts {
        Counts { lines: self.lines.counts(), ..self.counts }
    }

    /// The place behind the last line that [`Self::step`] gave; `None` before the first file.
    pub(crate) fn place(&self) -> Option<Place> {
        let Some(open) = &self.open else { return self.resume.clone() };
        Some(Place {
            offset: self.lines.offset(),
            skipping: self.lines.skipping(),
            head: open.head,
            context: Print::of(self.lines.context()),
            changed: open.changed,
        })
    }

    /// What was open is gone with the connection.
    pub(crate) fn disconnected(&mut self) {
        self.resume = self.place();
        self.open = None;
    }

    /// The next line, if there is one.
    ///
    /// # Errors
    /// When the files cannot be read. The place stays where it was.
    pub(crate) fn step<F: Files<File = H>>(&mut self, files: &mut F) -> Result<Step<'_>, F::Error> {
        loop {
            if let Some(line) = self.lines.next_line() {
                return Ok(Step::Line(self.lines.get(line)));
            }
            match self.fill(files)? {
                Fill::More => {}
                Fill::Idle => return Ok(Step::Idle),
                Fill::Loss(loss) => return Ok(Step::Loss(loss)),
            }
        }
    }

    fn fill<F: Files<File = H>>(&mut self, files: &mut F) -> Result<Fill, F::Error> {
        if self.open.is_none() {
            return match self.resume.clone() {
                Some(place) => self.find(&place, files),
                None => self.first(files),
            };
        }
        match self.read_chunk(files)? {
            Chunk::Data => Ok(Fill::More),
            Chunk::Changed => self.truncated(files),
            Chunk::End => self.at_end(files),
        }
    }

    fn read_chunk<F: Files<File = H>>(&mut self, files: &mut F) -> Result<Chunk, F::Error> {
        let Some(open) = &mut self.open else { return Ok(Chunk::End) };
        let context = self.lines.read_context();
        let (before, from) = (context.len(), self.lines.read_offset());
        let data = files.read(&open.file, from - before as u64, READ_BYTES as usize)?;
        let Some(new) = data.strip_prefix(context) else {
            // Less than asked for is allowed, though no server we know does it.
            let cut = context.starts_with(&data) && files.about_open(&open.file)?.size >= from;
            return Ok(if cut { Chunk::End } else { Chunk::Changed });
        };
        if new.is_empty() {
            return Ok(Chunk::End);
        }
        if usize::from(open.head.len) < HEAD_BYTES_MAX && from == before as u64 {
            // From the file's begin: the head is here.
            open.head = Print::of(data.get(..HEAD_BYTES_MAX).unwrap_or(&data));
        } else {
            let head = files.read(&open.file, 0, HEAD_BYTES_MAX)?;
            if Print::of(head.get(..usize::from(open.head.len)).unwrap_or(&head)) != open.head {
                return Ok(Chunk::Changed);
            }
            open.head = Print::of(&head);
        }
        if let Some(space) = self.lines.space().get_mut(..new.len()) {
            space.copy_from_slice(new);
        }
        self.lines.filled(new.len());
        Ok(Chunk::Data)
    }

    /// Nothing more in the open file for now: truncated, rotated, or just quiet?
    fn at_end<F: Files<File = H>>(&mut self, files: &mut F) -> Result<Fill, F::Error> {
        let Some(open) = &mut self.open else { return Ok(Fill::Idle) };
        let now = files.about_open(&open.file)?;
        let same = now.changed == open.changed || find::begins(files, &open.file, open.head)?;
        if now.size < self.lines.read_offset() || !same {
            return self.truncated(files);
        }
        open.changed = now.changed;
        match files.about(&self.path)? {
            None => Ok(Fill::Idle),
            Some(named) if (named.size, named.changed) == (now.size, now.changed) => Ok(Fill::Idle),
            Some(_) => self.changed_name(files),
        }
    }

    /// The path may name another file than the open one.
    fn changed_name<F: Files<File = H>>(&mut self, files: &mut F) -> Result<Fill, F::Error> {
        let Some(named) = files.open(&self.path)? else { return Ok(Fill::Idle) };
        let place = self.place().unwrap_or_default();
        if !place.is_blank() && find::fits(files, &named, &place)? {
            // It has only grown; or it is a copy that was moved into place.
            if let Some(open) = &mut self.open {
                files.close(std::mem::replace(&mut open.file, named))?;
            }
            return Ok(Fill::Idle);
        }
        // Lines written between our reaching the end and the first line of the next file.
        let last = self.read_chunk(files)?;
        if !matches!(last, Chunk::End) {
            files.close(named)?;
            return match last {
                Chunk::Changed => self.truncated(files),
                _ => Ok(Fill::More),
            };
        }
        self.rotated(named, &place, files)
    }

    /// Goes on to the oldest younger file, which mostly is the named one.
    fn rotated<F: Files<File = H>>(
        &mut self,
        named: H,
        place: &Place,
        files: &mut F,
    ) -> Result<Fill, F::Error> {
        let siblings = find::siblings(files, &self.path)?;
        let own = find::own(files, place, &siblings)?;
        let later = younger(&siblings, own, i64::from(place.changed));
        let next = match later.plain.first() {
            Some(sibling) => {
                files.close(named)?;
                files.open(&sibling.path.to_string_lossy())?
            }
            // Empty: the writer has not changed over yet.
            None if files.about_open(&named)?.size == 0 => {
                files.close(named)?;
                None
            }
            None => Some(named),
        };
        // Gone meanwhile: the next look sees where.
        let Some(next) = next else { return Ok(Fill::Idle) };
        self.counts.rotated += 1;
        self.counts.half_lines += u64::from(self.lines.pending() > 0);
        self.open_at(next, None, files)?;
        if later.compressed == 0 {
            return Ok(Fill::More);
        }
        self.counts.lost_rotated += later.compressed as u64;
        Ok(Fill::Loss(place.loss("log-rotated-away")))
    }

    /// The open file was truncated in place: first the rest of its copy, then anew.
    fn truncated<F: Files<File = H>>(&mut self, files: &mut F) -> Result<Fill, F::Error> {
        let Some(place) = self.place() else { return Ok(Fill::Idle) };
        let pending = self.lines.pending() > 0;
        let siblings = find::siblings(files, &self.path)?;
        let copy = find::copy_of(files, &place, &siblings)?;
        self.counts.truncated += 1;
        if let Some(file) = copy {
            self.open_at(file, Some(&place), files)?;
            return Ok(Fill::More);
        }
        let Some(open) = self.open.take() else { return Ok(Fill::Idle) };
        self.open_at(open.file, None, files)?;
        if !pending {
            return Ok(Fill::More);
        }
        self.counts.half_lines += 1;
        Ok(Fill::Loss(place.loss("log-truncated")))
    }

    /// First sight of the log.
    fn first<F: Files<File = H>>(&mut self, files: &mut F) -> Result<Fill, F::Error> {
        let Some(file) = files.open(&self.path)? else {
            // What appears later is new from its first line on.
            self.skip_existing = false;
            return Ok(Fill::Idle);
        };
        let size = if self.skip_existing { files.about_open(&file)?.size } else { 0 };
        self.open_at(file, None, files)?;
        self.skip_existing = false;
        if size > 0 {
            self.seek(size, false, files)?;
            // The rest of a line that is being written just now is no line.
            let inside = self.lines.context().last() != Some(&b'\n');
            self.seek(size, inside, files)?;
        }
        Ok(Fill::More)
    }

    /// After a restart or a lost connection: the file of a place, under its own name or a
    /// rotated one.
    fn find<F: Files<File = H>>(&mut self, place: &Place, files: &mut F) -> Result<Fill, F::Error> {
        if let Some(named) = files.open(&self.path)? {
            if !place.is_blank() && find::fits(files, &named, place)? {
                return self.found(named, Some(place), files);
            }
            files.close(named)?;
        }
        let siblings = find::siblings(files, &self.path)?;
        if let Some(file) = find::copy_of(files, place, &siblings)? {
            return self.found(file, Some(place), files);
        }
        let next = match younger(&siblings, None, i64::from(place.changed)).plain.first() {
            Some(sibling) => sibling.path.to_string_lossy().into_owned(),
            None => self.path.clone(),
        };
        // No log at all: its disk may not be there yet.
        let Some(file) = files.open(&next)? else { return Ok(Fill::Idle) };
        self.found(file, None, files)?;
        if place.is_blank() {
            return Ok(Fill::More);
        }
        self.counts.lost_rotated += 1;
        Ok(Fill::Loss(place.loss("log-rotated-away")))
    }

    fn found<F: Files<File = H>>(
        &mut self,
        file: H,
        at: Option<&Place>,
        files: &mut F,
    ) -> Result<Fill, F::Error> {
        self.open_at(file, at, files)?;
        self.resume = None;
        Ok(Fill::More)
    }

    /// Makes `file` the open one, at its begin or at a place that fits it.
    fn open_at<F: Files<File = H>>(
        &mut self,
        file: H,
        at: Option<&Place>,
        files: &mut F,
    ) -> Result<(), F::Error> {
        let About { changed, .. } = files.about_open(&file)?;
        let head = Print::of(&files.read(&file, 0, HEAD_BYTES_MAX)?);
        if let Some(old) = self.open.replace(Open { file, head, changed }) {
            files.close(old.file)?;
        }
        let place = at.cloned().unwrap_or_default();
        self.seek(place.offset, place.skipping, files)
    }

    fn seek<F: Files<File = H>>(
        &mut self,
        offset: u64,
        skipping: bool,
        files: &mut F,
    ) -> Result<(), F::Error> {
        let Some(open) = &self.open else { return Ok(()) };
        let context = find::before(files, &open.file, offset)?;
        self.lines.seek(offset, skipping, &context);
        Ok(())
    }
}

/// The folder of the log that is followed, and its name: an absolute path of a file.
pub(crate) fn is_path(path: &str) -> bool {
    folder_of(path).is_some()
}

#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;
