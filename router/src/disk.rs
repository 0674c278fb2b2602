//! What ring, identity and forwarder need of files, where systems differ.
//!
//! In and out: paths and plain values. On Linux and macOS a file is made private by its mode;
//! on Windows it takes over what its folder allows, which `agentmon-host` sets when it makes
//! the folder. A folder cannot be synchronised on Windows: NTFS keeps a journal of names.

use std::fs::{Metadata, OpenOptions};
use std::io;
use std::path::Path;

/// A file that is created shall be its owner's alone.
pub(crate) fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

/// A new name in a folder survives a power cut after this.
///
/// # Errors
/// What the system says.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    #[cfg(unix)]
    std::fs::File::open(folder)?.sync_all()?;
    #[cfg(not(unix))]
    std::fs::metadata(folder)?;
    Ok(())
}

/// Tells two files of one name apart.
pub(crate) fn number(meta: &Metadata) -> u64 {
    #[cfg(unix)]
    return std::os::unix::fs::MetadataExt::ino(meta);
    #[cfg(windows)]
    return std::os::windows::fs::MetadataExt::creation_time(meta);
}

/// Bytes that may still be written to the file system of a folder. Where that is not asked
/// for, a full disk shows while writing.
///
/// # Errors
/// When there is no such folder.
pub(crate) fn free_bytes(folder: &Path) -> io::Result<u64> {
    #[cfg(target_os = "linux")]
    return crate::sys::free_bytes(folder);
    #[cfg(not(target_os = "linux"))]
    std::fs::metadata(folder).map(|_| u64::MAX)
}

/// Bytes nobody can guess.
///
/// # Errors
/// What the system says.
pub(crate) fn random(bytes: &mut [u8]) -> io::Result<()> {
    #[cfg(unix)]
    return io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, bytes);
    #[cfg(windows)]
    {
        let random = ring::rand::SystemRandom::new();
        ring::rand::SecureRandom::fill(&random, bytes)
            .map_err(|_| io::Error::other("the system gives no random bytes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_private_and_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let open = |name: &str| {
            let mut options = OpenOptions::new();
            let file = private(options.write(true).create_new(true)).open(dir.path().join(name));
            file.unwrap().metadata().unwrap()
        };
        let (a, b) = (open("a"), open("b"));
        assert_ne!(number(&a), number(&b));
        #[cfg(unix)]
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&a.permissions()) & 0o777, 0o600);
        assert!(sync_folder(dir.path()).is_ok() && free_bytes(dir.path()).unwrap() > 0);
        let gone = dir.path().join("none");
        assert!(sync_folder(&gone).is_err() && free_bytes(&gone).is_err());
        let (mut one, mut other) = ([0; 16], [0; 16]);
        random(&mut one).unwrap();
        random(&mut other).unwrap();
        assert_ne!(one, other);
    }
}
