//! Files that are read where no inode can be seen: the little that SFTP 3 tells.
//!
//! [`Session`] is the real thing; tests have one over this machine's disk.

use super::{About, Handle, READ_BYTES, Session, SshError};

/// A file system that is read.
pub(crate) trait Files {
    /// An open file; it stays the same file when that is renamed.
    type File;
    /// Why it could not be read; afterwards every open file is gone.
    type Error;

    /// Opens a regular file; `None` when there is none of that name.
    fn open(&mut self, path: &str) -> Result<Option<Self::File>, Self::Error>;
    /// Closes it.
    fn close(&mut self, file: Self::File) -> Result<(), Self::Error>;
    /// At most `length` bytes, and no more than [`READ_BYTES`]; none at the end.
    fn read(&mut self, file: &Self::File, at: u64, length: usize) -> Result<Vec<u8>, Self::Error>;
    /// Of the file of that name, if there is one.
    fn about(&mut self, path: &str) -> Result<Option<About>, Self::Error>;
    /// Of an open file.
    fn about_open(&mut self, file: &Self::File) -> Result<About, Self::Error>;
    /// Names in a folder; those that are no text are left out.
    fn list(&mut self, folder: &str) -> Result<Vec<(String, About)>, Self::Error>;
}

impl Files for Session {
    type File = Handle;
    type Error = SshError;

    fn open(&mut self, path: &str) -> Result<Option<Handle>, SshError> {
        self.file(path)
    }
    fn close(&mut self, file: Handle) -> Result<(), SshError> {
        Self::close(self, file)
    }
    fn read(&mut self, file: &Handle, at: u64, length: usize) -> Result<Vec<u8>, SshError> {
        Self::read(self, file, at, u32::try_from(length).unwrap_or(READ_BYTES))
    }
    fn about(&mut self, path: &str) -> Result<Option<About>, SshError> {
        Self::about(self, path)
    }
    fn about_open(&mut self, file: &Handle) -> Result<About, SshError> {
        Self::about_open(self, file)
    }
    fn list(&mut self, folder: &str) -> Result<Vec<(String, About)>, SshError> {
        let names = Self::list(self, folder)?.into_iter();
        Ok(names.filter_map(|(name, about)| Some((String::from_utf8(name).ok()?, about))).collect())
    }
}
