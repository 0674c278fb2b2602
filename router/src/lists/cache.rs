//! The compiled form as a file: written once, mapped from then on.
//!
//! In: a path in the state directory, and who writes the form. Out: a set whose bytes are
//! the file's pages: they count only as far as they are looked at, and on a disk the kernel
//! may drop and read them again.
//!
//! Invariants: a file is complete or not there (it is renamed into place); one that is
//! damaged, cut short or of another version is made anew, never believed; a set that is in
//! use stays as it is while a new one replaces its file. The checksum is checked by reading,
//! before anything is mapped, so that mapping costs no memory. No fsync: after a power loss
//! the checksum tells, and flash is spared.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agentmon_core::tier0::blocklist::{Blocklist, Check, FOOTER_BYTES, Footer, FormatError};
use anyhow::Context as _;

use crate::sys::Map;

/// Bytes read at a time for the checksum.
const CHUNK_BYTES: usize = 64 * 1024;

/// The set in that file, if it was made of `source` and is whole.
pub(super) fn load(path: &Path, source: u64) -> Option<Blocklist> {
    opened(path, Some(source))
}

/// The set in that file, whatever it was made of, if it is whole.
pub(super) fn old(path: &Path) -> Option<Blocklist> {
    opened(path, None)
}

fn opened(path: &Path, source: Option<u64>) -> Option<Blocklist> {
    let file = File::open(path).ok()?;
    match read(&file, source) {
        Ok(lists) => lists,
        Err(error) => {
            tracing::warn!("{}: {error:#}; the lists are compiled again", path.display());
            None
        }
    }
}

/// `None`: of other lists.
fn read(file: &File, source: Option<u64>) -> anyhow::Result<Option<Blocklist>> {
    // The end alone says what it was made of.
    let mut footer = [0; FOOTER_BYTES];
    let length = file.metadata()?.len();
    let at = length.checked_sub(FOOTER_BYTES as u64).ok_or(FormatError::NotLists)?;
    file.read_exact_at(&mut footer, at)?;
    match Footer::parse(&footer) {
        Ok(footer) if source.is_some_and(|source| footer.source != source) => return Ok(None),
        Err(FormatError::OtherVersion) => return Ok(None),
        other => drop(other?),
    }
    Ok(Some(whole(file)?.1))
}

/// The set in a file, after all of it was read and compared with its checksum.
pub(super) fn whole(mut file: &File) -> anyhow::Result<(Footer, Blocklist)> {
    let (mut check, mut chunk) = (Check::default(), vec![0; CHUNK_BYTES]);
    loop {
        match file.read(&mut chunk)? {
            0 => break,
            n => check.feed(chunk.get(..n).unwrap_or_default()),
        }
    }
    let footer = check.finish()?;
    Ok((footer, Blocklist::open(Arc::new(Map::of(file)?))?))
}

/// Makes the file anew with what `write` writes, and the set in it, unless `accept` refuses
/// it; then `None`, and the file of before stays. Where the file cannot be written, the set
/// is held in memory and a line says so.
///
/// # Errors
/// What `write` says of its sources.
pub(super) fn make(
    path: &Path,
    mut write: impl FnMut(&mut dyn Write) -> anyhow::Result<()>,
    mut accept: impl FnMut(&Blocklist) -> bool,
) -> anyhow::Result<Option<Blocklist>> {
    let new = path.with_extension("new");
    let kept = (|| {
        let file = create(&new)?;
        let mut file = Remembering { file, failed: false };
        if let Err(error) = write(&mut file) {
            anyhow::ensure!(file.failed, Unreadable(error));
            return Err(error);
        }
        let lists = Blocklist::open(Arc::new(Map::of(&file.file)?))?;
        if !accept(&lists) {
            drop(fs::remove_file(&new));
            return Ok(None);
        }
        fs::rename(&new, path)?;
        Ok(Some(lists))
    })();
    let error = match kept {
        Ok(lists) => return Ok(lists),
        Err(error) => error,
    };
    // What is there of it is of no use.
    drop(fs::remove_file(&new));
    let error = match error.downcast::<Unreadable>() {
        Ok(Unreadable(error)) => return Err(error),
        Err(error) => error,
    };
    tracing::warn!("{}: {error:#}; the block lists are held in memory", path.display());
    let mut bytes = Vec::new();
    write(&mut bytes)?;
    bytes.shrink_to_fit();
    let lists = Blocklist::open(Arc::new(bytes)).context("block lists")?;
    Ok(accept(&lists).then_some(lists))
}

pub(super) fn create(path: &PathBuf) -> io::Result<File> {
    // Not opened through a link that somebody laid there.
    drop(fs::remove_file(path));
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}

/// The sources could not be read: no fault of the file.
#[derive(Debug, thiserror::Error)]
#[error("{0:#}")]
struct Unreadable(anyhow::Error);

/// Remembers whether writing was what failed.
struct Remembering {
    file: File,
    failed: bool,
}

impl Write for Remembering {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes);
        self.failed |= matches!(&written, Err(error) if error.kind() != io::ErrorKind::Interrupted);
        written
    }
    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
