//! A copy of what waits, on flash: for a ring that lives in memory.
//!
//! In: the ring, a path and an interval. Out: a file that replaces the one before as a whole
//! (written beside it, synced, renamed), and, at a start without a ring, a ring made of it.
//! A thread of its own; the ring's mutex is held while a compact copy is written next to the
//! ring, in memory (some 100 ms for 16 MiB), not while flash is written.
//!
//! Exactly once (C3): a copied event keeps its (epoch, seq). After a power cut the restored
//! ring sends some events again which the hub has; it knows them by that pair. What is new
//! belongs to a new epoch, as after every opening, though its `seq` was used by the life that
//! the power cut ended. The collectors' places in their sources are not restored: what came
//! after them reached the hub already, and would be read again under other numbers.
//!
//! Flash wears: nothing is written unless switched on, nor when the same waits as last time;
//! when nothing waits, a copy that is there is removed, and none is made. Every byte is
//! counted (`snapshot.bytes`). A copy that does not fit on the disk, or would fill it, is not
//! begun.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use agentmon_core::time::{Clock, Mono};
use serde::Serialize;

use super::damage::suffixed;
use super::open::{connect, kept};
use super::{Config, Mark, Ring, RingError};
use crate::collect::Stop;
use crate::counters::{Counter, Counters};
use crate::disk::{self, free_bytes};
use crate::ratelimit::LogLimit;
use crate::wake::Wake;

/// Left free on the disk for everybody else.
const SPARE_BYTES: u64 = 512 * 1024;
/// How long to sleep while it is switched off.
const ASLEEP: Duration = Duration::from_secs(3_600);

/// What `status` says about the copy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SnapshotStatus {
    /// The file.
    pub path: PathBuf,
    /// Seconds between two copies.
    pub every_seconds: u64,
    /// `ok`, `nothing waits`, or `off: ` and why.
    pub state: String,
    /// Bytes written to the disk, over all lives of this ring.
    pub bytes_written: u64,
    /// Events in the copy.
    pub events: u64,
    /// Seconds since it was written.
    pub age_seconds: Option<u64>,
}

/// Makes copies; shared by the thread that does so and `status`.
pub struct Snapshots {
    ring: Arc<Ring>,
    clock: Arc<dyn Clock>,
    bytes: Counter,
    files: Counter,
    failures: Counter,
    bell: Wake,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    path: PathBuf,
    every: Duration,
    state: String,
    /// What the copy on disk holds, and since when.
    last: Option<(Mark, Mono)>,
    /// When the last attempt was made.
    tried: Option<Mono>,
    limit: LogLimit,
}

impl std::fmt::Debug for Snapshots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshots").finish_non_exhaustive()
    }
}

impl Snapshots {
    /// For a ring; nothing is written before the first interval has passed.
    #[must_use]
    pub fn new(
        ring: Arc<Ring>,
        config: &Config,
        counters: &Counters,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let snapshots = Self {
            ring,
            bytes: counters.counter("snapshot.bytes"),
            files: counters.counter("snapshot.files"),
            failures: counters.counter("snapshot.failures"),
            bell: Wake::default(),
            inner: Mutex::new(Inner { tried: Some(clock.mono()), ..Inner::default() }),
            clock,
        };
        snapshots.reconfigure(config);
        snapshots
    }

    /// Another path or interval from now on.
    pub fn reconfigure(&self, config: &Config) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.path != config.snapshot_path {
            inner.last = None;
        }
        inner.path.clone_from(&config.snapshot_path);
        inner.every = Duration::from_secs(config.snapshot_seconds);
        drop(inner);
        self.bell.ring();
    }

    /// Works until asked to stop. The last copy is made by [`Snapshots::take`], when no
    /// event can come any more.
    pub fn run(&self, stop: &Stop) {
        while !stop.is_set() {
            match self.due_in() {
                Some(Duration::ZERO) => self.take(),
                wait => drop(self.bell.wait(wait.unwrap_or(ASLEEP))),
            }
        }
    }

    /// Ends [`Snapshots::run`], once its stop is set.
    pub fn wake(&self) {
        self.bell.ring();
    }

    /// How long until a copy is due; `None`: never.
    fn due_in(&self) -> Option<Duration> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = inner.tried.map_or(inner.every, |at| self.clock.mono().since(at));
        (!inner.every.is_zero()).then(|| inner.every.saturating_sub(passed))
    }

    /// Makes a copy now, if it is switched on and something new waits.
    pub fn take(&self) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.every.is_zero() {
            return;
        }
        let now = self.clock.mono();
        inner.tried = Some(now);
        let (path, last) = (inner.path.clone(), inner.last.as_ref().map(|(mark, _)| *mark));
        match self.copy(&path, last) {
            Ok(Copied::Written(mark)) => {
                inner.last = Some((mark, now));
                inner.state = "ok".into();
            }
            Ok(Copied::Same) => inner.state = "ok".into(),
            Ok(Copied::Nothing) => {
                inner.last = None;
                inner.state = "ok: nothing waits".into();
            }
            Err(error) => {
                self.failures.inc();
                inner.state = format!("off: {error}");
                if let Some(more) = inner.limit.allow("snapshot", now) {
                    tracing::warn!("ring snapshot: {error}{more}");
                }
            }
        }
    }

    fn copy(&self, path: &Path, last: Option<Mark>) -> Result<Copied, RingError> {
        let io =
            |error: io::Error| RingError::Io { path: path.to_owned(), what: error.to_string() };
        let beside = suffixed(&self.ring.path(), ".copy");
        // A left-over of a process that was killed; SQLite wants a new file.
        remove(&beside).map_err(io)?;
        let copied = self.ring.copy_to(&beside, last);
        let result = match copied {
            Ok(None) => Ok(Copied::Same),
            Ok(Some(mark)) if mark.events() == 0 => {
                // A disk that is read-only refuses even to remove what is not there.
                if path.exists() {
                    remove(path).map_err(io)?;
                }
                Ok(Copied::Nothing)
            }
            Ok(Some(mark)) => self.publish(&beside, path).map(|()| Copied::Written(mark)),
            Err(error) => Err(error),
        };
        remove(&beside).map_err(io)?;
        result
    }

    /// From memory to the disk, as a whole or not at all.
    fn publish(&self, from: &Path, to: &Path) -> Result<(), RingError> {
        let io = |error: io::Error| match error.kind() {
            io::ErrorKind::StorageFull => RingError::DiskFull { path: to.to_owned() },
            _ => RingError::Io { path: to.to_owned(), what: error.to_string() },
        };
        let bytes = fs::metadata(from).map_err(io)?.len();
        let dir = to.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(dir).map_err(io)?;
        if free_bytes(dir).map_err(io)? < bytes.saturating_add(SPARE_BYTES) {
            return Err(RingError::DiskFull { path: to.to_owned() });
        }
        let new = suffixed(to, ".new");
        let written = write_synced(from, &new).and_then(|()| {
            fs::rename(&new, to)?;
            disk::sync_folder(dir)
        });
        self.bytes.add(bytes);
        if let Err(error) = written {
            // Best effort: the error that matters is the first.
            drop(remove(&new));
            return Err(io(error));
        }
        self.files.inc();
        Ok(())
    }

    /// For `status`; `None` when it is switched off.
    #[must_use]
    pub fn status(&self) -> Option<SnapshotStatus> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        (!inner.every.is_zero()).then(|| SnapshotStatus {
            path: inner.path.clone(),
            every_seconds: inner.every.as_secs(),
            state: if inner.state.is_empty() {
                "ok: not yet due".into()
            } else {
                inner.state.clone()
            },
            bytes_written: self.bytes.get(),
            events: inner.last.map_or(0, |(mark, _)| mark.events()),
            age_seconds: inner.last.map(|(_, at)| self.clock.mono().since(at).as_secs()),
        })
    }
}

enum Copied {
    Written(Mark),
    Same,
    Nothing,
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn write_synced(from: &Path, to: &Path) -> io::Result<()> {
    remove(to)?;
    let mut out = disk::private(fs::OpenOptions::new().write(true).create_new(true)).open(to)?;
    io::copy(&mut fs::File::open(from)?, &mut out)?;
    out.sync_all()
}

/// Before the ring is opened: where there is none, and a copy of one, makes it of that. The
/// number of events it holds; `None`: nothing to restore.
///
/// # Errors
/// Why the copy is of no use. It stays where it is, until the next one replaces it.
pub fn restore(config: &Config) -> Result<Option<u64>, RingError> {
    let (ring, copy) = (&config.path, &config.snapshot_path);
    let io = |error: io::Error| RingError::Io { path: copy.clone(), what: error.to_string() };
    if config.snapshot_seconds == 0 || ring.exists() || !copy.exists() {
        return Ok(None);
    }
    if fs::metadata(copy).map_err(io)?.len() > config.bytes_max {
        let what = format!("larger than ring.bytes_max ({})", config.bytes_max);
        return Err(RingError::Io { path: copy.clone(), what });
    }
    if let Some(dir) = ring.parent() {
        fs::create_dir_all(dir).map_err(io)?;
    }
    let new = suffixed(ring, ".restored");
    let restored = write_synced(copy, &new).map_err(io).and_then(|()| prepare(&new, copy));
    let ready = restored.and_then(|n| fs::rename(&new, ring).map(|()| Some(n)).map_err(io));
    for name in [new.clone(), suffixed(&new, "-journal"), suffixed(&new, "-wal")] {
        remove(&name).map_err(io)?;
    }
    ready
}

/// Looks the copy over and takes the collectors' places out; the number of events in it.
fn prepare(new: &Path, copy: &Path) -> Result<u64, RingError> {
    let fail = |error| super::sql::classify(copy, error);
    let conn = connect(new).map_err(fail)?;
    super::open::check(&conn, copy)?;
    kept(&conn).map_err(fail)?;
    conn.execute("DELETE FROM checkpoints", []).map_err(fail)?;
    let count = "SELECT count(*) FROM events";
    conn.query_row(count, [], |row| super::sql::number(row, 0)).map_err(fail)
}

#[cfg(test)]
#[path = "snapshot_tests.rs"]
mod tests;
