//! Connections to read with: clones of one root, bounded, and all ended together when the
//! file is to be closed.
//!
//! In: a root connection from the writer. Out: a [`Reader`] for each query, on any thread.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use duckdb::{Connection, InterruptHandle};

use super::StoreError;

/// Most queries at a time.
pub const READERS_MAX: usize = 16;

/// Connections for reading, cloned from one root; they can all be ended, so that the file
/// can be closed.
pub struct Readers {
    inner: Mutex<Inner>,
    gone: Condvar,
}

struct Inner {
    root: Option<Connection>,
    running: HashMap<u64, Arc<InterruptHandle>>,
    next: u64,
}

impl std::fmt::Debug for Readers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Readers").finish_non_exhaustive()
    }
}

impl Readers {
    pub(super) fn new(root: Connection) -> Self {
        let inner = Inner { root: Some(root), running: HashMap::new(), next: 0 };
        Self { inner: Mutex::new(inner), gone: Condvar::new() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection of one's own, until dropped.
    ///
    /// # Errors
    /// When [`READERS_MAX`] read already, or the store is closed.
    pub fn get(self: &Arc<Self>) -> Result<Reader, StoreError> {
        let mut inner = self.lock();
        if inner.running.len() >= READERS_MAX {
            let why = format!("{READERS_MAX} queries run already; try again when one has ended");
            return Err(StoreError::Refused(why));
        }
        let root = inner.root.as_ref();
        let root = root.ok_or_else(|| StoreError::Refused("the store is being closed".into()))?;
        let connection = root.try_clone()?;
        let number = inner.next;
        inner.next += 1;
        inner.running.insert(number, connection.interrupt_handle());
        Ok(Reader { connection: Some(connection), number, readers: Arc::clone(self) })
    }

    /// Ends all queries and lets go of the file; returns when the last has ended.
    pub(super) fn close(&self) {
        let mut inner = self.lock();
        inner.root = None;
        while !inner.running.is_empty() {
            inner.running.values().for_each(|handle| handle.interrupt());
            // Again and again: an interrupt between two steps of a statement is lost.
            let wait = Duration::from_millis(20);
            inner = self.gone.wait_timeout(inner, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(super) fn open(&self, root: Connection) {
        self.lock().root = Some(root);
    }
}

/// A reading connection.
pub struct Reader {
    connection: Option<Connection>,
    number: u64,
    readers: Arc<Readers>,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("number", &self.number).finish_non_exhaustive()
    }
}

impl std::ops::Deref for Reader {
    type Target = Connection;
    fn deref(&self) -> &Connection {
        self.connection.as_ref().expect("taken only by drop")
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // First the connection, then the mark: who waits for the mark opens the file anew.
        drop(self.connection.take());
        self.readers.lock().running.remove(&self.number);
        self.readers.gone.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Limits, open_write};

    #[test]
    fn readers_are_bounded_and_end_with_the_store() {
        let dir = tempfile::tempdir().unwrap();
        let root = open_write(dir.path(), &Limits::default()).unwrap();
        let readers = Arc::new(Readers::new(root));
        let mut held: Vec<_> = (0..READERS_MAX).map(|_| readers.get().unwrap()).collect();
        assert!(matches!(readers.get(), Err(StoreError::Refused(_))));
        let long = held.pop().unwrap();
        let sql = "SELECT count(*) FROM range(100000000) a, range(1000) b
                   WHERE a.range % 7 = b.range";
        let query = std::thread::spawn(move || long.query_row(sql, [], |r| r.get::<_, i64>(0)));
        held.clear();
        readers.close();
        assert!(query.join().unwrap().is_err(), "interrupted");
        assert!(matches!(readers.get(), Err(StoreError::Refused(_))));
    }
}
