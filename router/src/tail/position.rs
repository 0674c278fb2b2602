//! A place in a file that can be found again after the file was renamed, copied or
//! truncated and the program restarted.
//!
//! Inode numbers are used again at once by most file systems, device numbers change over a
//! boot, and a truncated file may have grown past the old offset. So a position also holds
//! two fingerprints: of the file's first bytes and of the bytes right before the offset. A
//! file is "the same" only where both still fit.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::lines::CONTEXT_BYTES_MAX;

/// Most bytes at the begin of a file that go into its fingerprint: two or three lines,
/// and so at least one time stamp.
pub const HEAD_BYTES_MAX: usize = 256;

/// Opens a regular file for reading. Anything else is refused: a pipe would block, a device
/// never ends.
///
/// # Errors
/// As [`File::open`]; `InvalidInput` for what is no regular file.
pub fn open_regular(path: &Path) -> io::Result<File> {
    // Not to wait for a writer, should it be a pipe.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        let text = format!("{} is no regular file", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    Ok(file)
}

/// Which file, as the kernel numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FileId {
    /// Device.
    pub dev: u64,
    /// Inode.
    pub ino: u64,
}

impl FileId {
    /// Of an open or named file.
    #[must_use]
    pub fn of(meta: &Metadata) -> Self {
        Self { dev: meta.dev(), ino: meta.ino() }
    }
}

/// Modification time in nanoseconds since the epoch.
#[must_use]
pub fn mtime_ns(meta: &Metadata) -> i64 {
    meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec())
}

/// Length and hash of some bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Print {
    /// How many bytes.
    pub len: u16,
    /// Their xxh3.
    pub hash: u64,
}

impl Print {
    /// Of at most 65,535 bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self { len: u16::try_from(bytes.len()).unwrap_or(u16::MAX), hash: xxh3_64(bytes) }
    }
    /// Whether the file has these bytes at `offset`.
    pub(super) fn fits(self, file: &File, offset: u64) -> io::Result<bool> {
        if self.len == 0 {
            return Ok(true);
        }
        let mut space = [0u8; HEAD_BYTES_MAX];
        let Some(bytes) = space.get_mut(..usize::from(self.len)) else { return Ok(false) };
        let n = read_full_at(file, bytes, offset)?;
        Ok(n == bytes.len() && xxh3_64(bytes) == self.hash)
    }
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The file at that time.
    pub id: FileId,
    /// Behind the last line that was handed out.
    pub offset: u64,
    /// The offset lies inside a line that is too long.
    #[serde(default)]
    pub skipping: bool,
    /// The first bytes of the file, at most [`HEAD_BYTES_MAX`].
    pub head: Print,
    /// The bytes before the offset, at most [`CONTEXT_BYTES_MAX`].
    pub context: Print,
    /// Last change of the file that was seen; younger files hold later lines.
    pub mtime_ns: i64,
}

impl Position {
    /// Whether `file` holds, up to the offset, what was read under this position.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn fits(&self, file: &File) -> io::Result<bool> {
        if file.metadata()?.len() < self.offset {
            return Ok(false);
        }
        let before = self.offset.saturating_sub(u64::from(self.context.len));
        Ok(self.head.fits(file, 0)? && self.context.fits(file, before)?)
    }

    /// Nothing was read yet, so only the inode can tell which file it was.
    #[must_use]
    pub const fn is_blank(&self) -> bool {
        self.head.len == 0 && self.context.len == 0
    }
}

/// Whether the bytes of `file` that end at `offset` are `expected`.
///
/// # Errors
/// When the file cannot be read.
pub fn ends_with(file: &File, offset: u64, expected: &[u8]) -> io::Result<bool> {
    let mut space = [0u8; CONTEXT_BYTES_MAX];
    let Some(bytes) = space.get_mut(..expected.len()) else { return Ok(false) };
    let n = read_full_at(file, bytes, offset.saturating_sub(expected.len() as u64))?;
    Ok(n == expected.len() && bytes == expected)
}

/// Reads until `bytes` is full or the file ends.
///
/// # Errors
/// When the file cannot be read.
pub fn read_full_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < bytes.len() {
        match file.read_at(&mut bytes[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}
