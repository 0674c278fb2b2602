//! A copy of an SQLite database of another machine, while it is written to there.
//!
//! In: an open [`Session`] and a path. Out: the database and its write-ahead log in a folder of
//! ours. Runs on its collector's thread; memory: one packet.
//!
//! Locks cannot be taken there, so a copy is believed only when nothing had changed once it was
//! made ([`Mark`]): no rollback journal in use, the same size, time and change counter, and a
//! write-ahead log that reads the same once more, byte for byte. A checkpoint meanwhile does no
//! harm: it writes into the database what that log holds, and a reader takes it from there.
//! See <https://www.sqlite.org/fileformat2.html>, 1.3.7 (change counter) and 4 (write-ahead log).

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use xxhash_rust::xxh3::Xxh3;

use super::{Files, READ_BYTES, Session, SshError};
use crate::collect::Stop;

/// Times a database that changes while it is copied is copied anew.
const TRIES: u32 = 4;
/// Between two of them: FTL writes once a minute, for some seconds.
pub(crate) const PAUSE: Duration = Duration::from_secs(5);
/// Bytes of a database's header.
const HEADER_BYTES: usize = 100;

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CopyError {
    /// The other machine.
    #[error(transparent)]
    Ssh(#[from] SshError),
    /// This one.
    #[error("writing the copy")]
    Disk(#[from] io::Error),
    /// There is none.
    #[error("there is no {0}")]
    Absent(String),
    /// More than is taken.
    #[error("it and its log are longer than {0} bytes: raise copy_bytes_max")]
    TooLong(u64),
    /// It changed each time.
    #[error("it changed whenever it was copied, {TRIES} times")]
    Changing,
}

/// What changes when a database is written to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Size and time of the database and of its write-ahead log.
    files: [Option<(u64, u32)>; 2],
    /// The first bytes, which hold the change counter.
    header: Vec<u8>,
}

/// What is copied, where to, and how much at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Copy<'a> {
    pub(crate) path: &'a str,
    pub(crate) to: &'a Path,
    pub(crate) bytes_max: u64,
    /// Before it is tried anew; [`PAUSE`].
    pub(crate) pause: Duration,
}

/// Copies the database at `path` into the file `to`, and its write-ahead log beside it, unless
/// it is as it was when `last` was taken.
pub(crate) fn copy(
    session: &mut Session,
    copy: Copy<'_>,
    last: Option<&Mark>,
    stop: &Stop,
) -> Result<Option<Mark>, CopyError> {
    for attempt in 0..TRIES {
        if attempt > 0 && stop.sleep(copy.pause) {
            return Err(SshError::Stopped.into());
        }
        if is_being_written(session, copy.path)? {
            continue;
        }
        let before = mark(session, copy.path)?;
        if last == Some(&before) {
            return Ok(None);
        }
        let wal = format!("{}-wal", copy.path);
        let mut budget = copy.bytes_max;
        let first = pass(session, &wal, None, &mut budget, copy.bytes_max)?;
        let mut budget = copy.bytes_max;
        let main = pass(session, copy.path, Some(copy.to), &mut budget, copy.bytes_max)?;
        if main.is_none() {
            return Err(CopyError::Absent(copy.path.to_owned()));
        }
        let beside = beside(copy.to);
        let second = pass(session, &wal, Some(&beside), &mut budget, copy.bytes_max)?;
        let same = mark(session, copy.path)? == before && first == second;
        if same && !is_being_written(session, copy.path)? {
            return Ok(Some(before));
        }
    }
    Err(CopyError::Changing)
}

/// The name of the write-ahead log of a database here.
pub(crate) fn beside(path: &Path) -> std::path::PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

/// A rollback journal that is in use has content.
fn is_being_written(session: &mut Session, path: &str) -> Result<bool, SshError> {
    Ok(session.about(&format!("{path}-journal"))?.is_some_and(|about| about.size > 0))
}

fn mark(session: &mut Session, path: &str) -> Result<Mark, CopyError> {
    let Some(file) = session.file(path)? else { return Err(CopyError::Absent(path.to_owned())) };
    let header = Files::read(session, &file, 0, HEADER_BYTES)?;
    session.close(file)?;
    let mut of = |path: &str| -> Result<_, SshError> {
        Ok(session.about(path)?.map(|about| (about.size, about.changed)))
    };
    let files = [of(path)?, of(&format!("{path}-wal"))?];
    Ok(Mark { files, header })
}

/// Reads a file to its end, into another where that is wanted: length and hash of what it
/// holds; `None` when there is none, and then there is none here either.
fn pass(
    session: &mut Session,
    path: &str,
    to: Option<&Path>,
    budget: &mut u64,
    bytes_max: u64,
) -> Result<Option<(u64, u64)>, CopyError> {
    let Some(file) = session.file(path)? else {
        let gone = to.map_or(Ok(()), std::fs::remove_file);
        return match gone {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e.into()),
            _ => Ok(None),
        };
    };
    let mut out = to.map(File::create).transpose()?;
    let (mut at, mut hash) = (0u64, Xxh3::new());
    loop {
        let data = session.read(&file, at, READ_BYTES)?;
        if data.is_empty() {
            break;
        }
        at += data.len() as u64;
        let Some(left) = budget.checked_sub(data.len() as u64) else {
            return Err(CopyError::TooLong(bytes_max));
        };
        *budget = left;
        hash.update(&data);
        if let Some(out) = &mut out {
            out.write_all(&data)?;
        }
    }
    session.close(file)?;
    Ok(Some((at, hash.digest())))
}

#[cfg(test)]
#[path = "sqlite_tests.rs"]
mod tests;
