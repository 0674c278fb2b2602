//! A file's bytes without reading them: mapped, read-only.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::ptr::NonNull;

/// The mapped bytes of a file; unmapped when dropped.
///
/// The file must not be changed or cut while it is mapped: whoever maps it keeps it where
/// no other user may write, and replaces it by renaming another one into its place.
#[derive(Debug)]
pub struct Map {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the memory is read-only and belongs to this value alone.
unsafe impl Send for Map {}
// SAFETY: as above; reading needs no exclusion.
unsafe impl Sync for Map {}

impl Map {
    /// The whole file as it is now.
    ///
    /// # Errors
    /// What `mmap` says; an empty file cannot be mapped.
    pub fn of(file: &File) -> io::Result<Self> {
        let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        let (protection, flags) = (libc::PROT_READ, libc::MAP_SHARED);
        // SAFETY: a new mapping at an address the kernel chooses; nothing of ours is there.
        let start = unsafe {
            libc::mmap(std::ptr::null_mut(), length, protection, flags, file.as_raw_fd(), 0)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // Look-ups go anywhere: reading ahead would only fill memory.
        // SAFETY: the range is the mapping just made; advice changes no contents.
        unsafe { libc::madvise(start, length, libc::MADV_RANDOM) };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::Other)?;
        Ok(Self { start, length })
    }
}

impl AsRef<[u8]> for Map {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: start and length are the mapping's, which lives as long as `self`; nobody
        // writes to the file (see the type).
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `of`, to which no reference is left.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn a_file_is_its_bytes_also_when_its_name_is_gone() {
        let mut file = tempfile::tempfile().unwrap();
        assert!(Map::of(&file).is_err(), "an empty file");
        let text: Vec<u8> = (0..10_000u32).flat_map(u32::to_le_bytes).collect();
        file.write_all(&text).unwrap();
        let map = Map::of(&file).unwrap();
        drop(file);
        assert!(map.as_ref() == text);
    }
}
