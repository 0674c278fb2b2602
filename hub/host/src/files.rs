//! Hashes and signers of program files, found in the background.
//!
//! In: an opened file and how the system tells it apart. Out: its SHA-256 and, where the system
//! checks such, whose signature is on it, some time later.
//! One thread, [`QUEUE_MAX`] files wait; a file is read once as long as it does not change.
//! Another file under the same name, or of a pid that is used again, is never taken for it.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};

use crate::platform::FileId;

/// Files waiting for their hash.
const QUEUE_MAX: usize = 256;
/// Hashes kept.
const HASHES_MAX: usize = 8_192;
/// Largest file read: browsers' are below 300 MB.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// Says who signed a file, if the signature is good; slow.
pub type Signer = fn(&File, &str) -> Option<String>;

/// What was found out of a file.
#[derive(Clone, Debug, Default)]
struct Found {
    sha256: Option<String>,
    signer: Option<String>,
}

/// A file to look at, with its path.
type Asked = (FileId, File, String);

/// What is known of files; cheap to clone.
#[derive(Clone, Debug)]
pub struct Files {
    /// `None`: asked for, not known yet.
    known: Arc<Mutex<HashMap<FileId, Option<Found>>>>,
    queue: SyncSender<Asked>,
}

impl Files {
    /// Starts the thread; it ends with the last clone.
    ///
    /// # Errors
    /// What the system says about a new thread.
    pub fn start() -> std::io::Result<Self> {
        Self::start_with(|_, _| None)
    }

    /// The same, where files are signed.
    ///
    /// # Errors
    /// What the system says about a new thread.
    pub fn start_with(signer: Signer) -> std::io::Result<Self> {
        let (queue, inbox) = sync_channel::<Asked>(QUEUE_MAX);
        let known: Arc<Mutex<HashMap<FileId, Option<Found>>>> = Arc::default();
        let results = Arc::clone(&known);
        std::thread::Builder::new().name("hashes".into()).spawn(move || {
            // Files come opened.
            crate::os::drop_all_privileges();
            for (id, mut file, path) in inbox {
                let signer = signer(&file, &path);
                let found = Found { sha256: sha256(&mut file).ok(), signer };
                let mut known = results.lock().unwrap_or_else(PoisonError::into_inner);
                known.insert(id, Some(found));
            }
        })?;
        Ok(Self { known, queue })
    }

    fn found(&self, id: &FileId) -> Option<Found> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned().flatten()
    }

    /// The hash, where it is known.
    #[must_use]
    pub fn get(&self, id: &FileId) -> Option<String> {
        self.found(id)?.sha256
    }

    /// Who signed it, known as soon as the hash is.
    #[must_use]
    pub fn signer(&self, id: &FileId) -> Option<String> {
        self.found(id)?.signer
    }

    /// Asks for a hash; `open` is called only where it is not known. False when too many wait.
    pub fn ask(
        &self,
        id: FileId,
        path: &str,
        open: impl FnOnce() -> std::io::Result<File>,
    ) -> bool {
        if id.size > FILE_BYTES_MAX {
            return false;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.contains_key(&id) {
            return true;
        }
        if known.len() >= HASHES_MAX {
            known.clear();
        }
        let Ok(file) = open() else { return false };
        // A pid or a name may be another's by now.
        if id_of(&file).ok() != Some(id) {
            return false;
        }
        let asked = self.queue.try_send((id, file, path.to_owned())).is_ok();
        if asked {
            known.insert(id, None);
        }
        asked
    }
}

/// Tells an opened file apart.
///
/// # Errors
/// What the system says.
pub fn id_of(file: &File) -> std::io::Result<FileId> {
    #[cfg(unix)]
    return Ok(file_id(&file.metadata()?));
    #[cfg(windows)]
    return crate::windows::file_id(file);
}

/// The same by what the system says of it.
#[cfg(unix)]
#[must_use]
pub fn file_id(m: &std::fs::Metadata) -> FileId {
    use std::os::unix::fs::MetadataExt;
    let mtime_ns = i128::from(m.mtime()) * 1_000_000_000 + i128::from(m.mtime_nsec());
    FileId { dev: m.dev(), ino: m.ino(), mtime_ns, size: m.len() }
}

fn sha256(file: &mut File) -> std::io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        hash.update(buffer.get(..n).unwrap_or_default());
    }
    Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_hashed_once_it_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, b"abc").unwrap();
        let id = id_of(&File::open(&path).unwrap()).unwrap();
        let files = Files::start_with(|_, path| Some(format!("by {path}"))).unwrap();
        assert_eq!(files.get(&id), None);
        assert!(files.ask(id, "x", || File::open(&path)));
        let mut hash = files.get(&id);
        while hash.is_none() {
            std::thread::sleep(std::time::Duration::from_millis(5));
            hash = files.get(&id);
        }
        assert_eq!(
            hash.as_deref(),
            Some("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
        );
        assert_eq!(files.signer(&id).as_deref(), Some("by x"));
        assert!(files.ask(id, "x", || panic!("known already")));
    }
}
