//! Hashes of program files, made in the background.
//!
//! In: an opened file and how the kernel tells it apart. Out: its SHA-256, some time later.
//! One thread, [`QUEUE_MAX`] files wait; a file is read once as long as it does not change.
//! Another file under the same name, or of a pid that is used again, is never taken for it.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};

use crate::linux::procfs::{FileId, file_id};

/// Files waiting for their hash.
const QUEUE_MAX: usize = 256;
/// Hashes kept.
const HASHES_MAX: usize = 8_192;
/// Largest file read: browsers' are below 300 MB.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// What is known of files; cheap to clone.
#[derive(Clone, Debug)]
pub struct Files {
    known: Arc<Mutex<HashMap<FileId, Option<String>>>>,
    queue: SyncSender<(FileId, File)>,
}

impl Files {
    /// Starts the thread; it ends with the last clone.
    ///
    /// # Errors
    /// What the system says about a new thread.
    pub fn start() -> std::io::Result<Self> {
        let (queue, inbox) = sync_channel::<(FileId, File)>(QUEUE_MAX);
        let known: Arc<Mutex<HashMap<FileId, Option<String>>>> = Arc::default();
        let results = Arc::clone(&known);
        std::thread::Builder::new().name("hashes".into()).spawn(move || {
            for (id, file) in inbox {
                let hash = sha256(file).ok();
                let mut known = results.lock().unwrap_or_else(PoisonError::into_inner);
                known.insert(id, hash);
            }
        })?;
        Ok(Self { known, queue })
    }

    /// The hash, where it is known.
    #[must_use]
    pub fn get(&self, id: &FileId) -> Option<String> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned().flatten()
    }

    /// Asks for a hash; `open` is called only where it is not known. False when too many wait.
    pub fn ask(&self, id: FileId, open: impl FnOnce() -> std::io::Result<File>) -> bool {
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
        if file.metadata().map(|m| file_id(&m)).ok() != Some(id) {
            return false;
        }
        let asked = self.queue.try_send((id, file)).is_ok();
        if asked {
            known.insert(id, None);
        }
        asked
    }
}

fn sha256(mut file: File) -> std::io::Result<String> {
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
        let id = crate::linux::procfs::file_id(&std::fs::metadata(&path).unwrap());
        let files = Files::start().unwrap();
        assert_eq!(files.get(&id), None);
        assert!(files.ask(id, || File::open(&path)));
        let mut hash = files.get(&id);
        while hash.is_none() {
            std::thread::sleep(std::time::Duration::from_millis(5));
            hash = files.get(&id);
        }
        assert_eq!(
            hash.as_deref(),
            Some("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
        );
        assert!(files.ask(id, || panic!("known already")));
    }
}
