//! The ring: events wait here, in SQLite, until the hub has acknowledged them.
//!
//! In: encoded events and the collectors' checkpoints, from the pipeline thread. Out:
//! batches for the forwarder thread. One connection behind a mutex; each call holds it for
//! one transaction of milliseconds.
//!
//! Invariants:
//! - C1: `accepted = acked + pending + in_doubt + dropped{reason}`, at any instant and after
//!   any crash:
//!   events, checkpoints and the counters that account for them are one transaction.
//! - C4: the file never exceeds [`Config::bytes_max`] less [`WAL_ROOM_BYTES`], the rest is
//!   room for the write-ahead log; when it is full the oldest go, counted.
//! - A pair (epoch, seq) names one event for ever. `seq` grows within a file, and every
//!   opening draws a new random epoch, so that neither a power cut that loses the last
//!   commits nor a ring on tmpfs that is gone after a reboot can use a pair twice.
//! - What is pending is one unbroken run of `seq`; deletion only ever takes from its begin.
//! - Only what the hub acknowledged, or an eviction, leaves the ring.
//!
//! An evicted event may have reached the hub already, when the answer to its batch was
//! lost. It is counted as in doubt until the hub says how far it got ([`Ring::ack`],
//! [`Ring::not_taken`]). Only when the router ends in between, at most one batch is counted as
//! evicted that the hub may have.
//!
//! Budget: about 1 MiB of page cache; 90 bytes of file per flow record.

mod damage;
mod open;
pub mod snapshot;
mod sql;
mod store;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use agentmon_core::time::Clock;
use serde::{Deserialize, Serialize};

use crate::collect::Checkpoint;
use crate::counters::Counters;
use store::Store;

/// Part of [`Config::bytes_max`] kept for the write-ahead log, which `max_page_count` does
/// not bound: 512 KiB between checkpoints plus the largest transaction.
pub const WAL_ROOM_BYTES: u64 = 1024 * 1024;
/// Smallest ring: the log's room and as much again.
pub const RING_BYTES_MIN: u64 = 2 * WAL_ROOM_BYTES;
/// Largest ring. Beyond this SQLite is the wrong tool and checking it at start takes long.
pub const RING_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// Most seconds between two snapshots: a month.
pub const SNAPSHOT_SECONDS_MAX: u64 = 31 * 86_400;
/// Longest checkpoint value kept.
pub const CHECKPOINT_BYTES_MAX: usize = 64 * 1024;
/// Most checkpoints kept: one per collector and file.
pub const CHECKPOINTS_MAX: usize = 64;

/// Settings of the ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The file. Empty: `ring.db` in the state directory. On a router with flash memory put
    /// it on tmpfs, such as `/tmp/agentmon/ring.db`: each event costs about 200 written bytes.
    pub path: PathBuf,
    /// Most bytes on disk, the write-ahead log included. 32 MiB hold about 250,000 flow
    /// records: a busy home of a few hours without its hub.
    pub bytes_max: u64,
    /// For a ring on tmpfs: how often to write what waits to `snapshot_path`, in seconds, so
    /// that a power cut loses less. 0: never, nothing is written.
    pub snapshot_seconds: u64,
    /// The file for that, on flash or a disk. Empty: `ring.snapshot` in the state directory.
    pub snapshot_path: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            path: PathBuf::new(),
            bytes_max: 32 * 1024 * 1024,
            snapshot_seconds: 0,
            snapshot_path: PathBuf::new(),
        }
    }
}

impl Config {
    /// Whether the values make sense.
    ///
    /// # Errors
    /// The key below `[ring]` and what is allowed.
    pub fn validate(&self) -> Result<(), (&'static str, String)> {
        if !(RING_BYTES_MIN..=RING_BYTES_MAX).contains(&self.bytes_max) {
            return Err(("bytes_max", format!("want {RING_BYTES_MIN} to {RING_BYTES_MAX} bytes")));
        }
        if self.snapshot_seconds > SNAPSHOT_SECONDS_MAX {
            return Err(("snapshot_seconds", format!("want at most {SNAPSHOT_SECONDS_MAX}")));
        }
        Ok(())
    }
}

/// Why the ring did not do it.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// Somebody else fills the file system. Nothing was changed; try again.
    #[error("{path}: no space left for the ring; free some, or move it (ring.path)")]
    DiskFull {
        /// The file.
        path: PathBuf,
    },
    /// Another process has it.
    #[error("{path}: in use by another process; is another agentmon-router running?")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// A newer program wrote it.
    #[error(
        "{path}: ring format {found} is newer than this program's {known}; \
         update agentmon-router or move the file away"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The newest this program knows.
        known: i64,
    },
    /// A healthy database, but not a ring.
    #[error("{path}: is a database of another program; choose another ring.path")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file is no database, or broken inside.
    #[error("{path}: damaged: {what}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        what: String,
    },
    /// Anything else the operating system refused.
    #[error("{path}: {what}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system or SQLite says.
        what: String,
    },
}

/// A batch as it stands in the ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peeked {
    /// The life of the ring its numbers belong to.
    pub epoch: u64,
    /// Number of the first event; the others follow without a hole.
    pub first_seq: u64,
    /// Encoded events, at least one.
    pub events: Vec<Vec<u8>>,
}

impl Peeked {
    /// Number of the last event.
    #[must_use]
    pub fn last_seq(&self) -> u64 {
        let n = u64::try_from(self.events.len()).unwrap_or(u64::MAX);
        self.first_seq.saturating_add(n.saturating_sub(1))
    }
}

/// The account of the ring: `accepted = acked + pending + dropped`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RingStatus {
    /// Events ever handed to the ring.
    pub accepted: u64,
    /// Of these, acknowledged by the hub.
    pub acked: u64,
    /// Of these, waiting.
    pub pending: u64,
    /// Of these, evicted while nobody knew whether the hub had taken them.
    pub in_doubt: u64,
    /// Of these, lost, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Bytes in use in the file.
    pub bytes: u64,
    /// Bytes the file may take, the log's room not included.
    pub capacity: u64,
    /// The life of the ring that new events belong to.
    pub epoch: u64,
    /// Why the file cannot be opened: events are detected on, but lost for the hub, counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub off: Option<String>,
}

impl RingStatus {
    /// Invariant C1.
    #[must_use]
    pub fn conserves(&self) -> bool {
        let kept = self.acked + self.pending + self.in_doubt;
        self.accepted == kept + self.dropped.values().sum::<u64>()
    }
}

/// Why an event was not stored although it was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unstored {
    /// No space on the file system, and no room to wait in memory.
    DiskFull,
    /// The ring cannot be written for another reason.
    Io,
}

/// The ring of one router. Shared by threads.
pub struct Ring {
    inner: Mutex<Inner>,
    counters: Counters,
    clock: Arc<dyn Clock>,
}

struct Inner {
    config: Config,
    /// `None` after a failed attempt to open it, for the reason that is kept beside it.
    store: Option<Store>,
    off: Option<String>,
    /// What the file keeps was taken over.
    adopted: bool,
    totals: Totals,
    /// Latest checkpoint of every collector, committed or about to be.
    checkpoints: Places,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("status", &self.status()).finish_non_exhaustive()
    }
}

/// The ring's own counters: kept apart from [`Counters`] so that exactly what a transaction
/// did is what it writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Totals {
    accepted: u64,
    acked: u64,
    evicted: u64,
    too_large: u64,
    disk_full: u64,
    io: u64,
    damaged: u64,
    refused: u64,
    /// Evicted or acknowledged: that is not known yet.
    in_doubt: u64,
}

impl Totals {
    /// Kept in the file only: it does not only grow, as counters do.
    const IN_DOUBT: &'static str = "ring.in_doubt";
    const NAMES: [&'static str; 9] = [
        "accepted",
        "acked",
        "drop.ring.evicted",
        "drop.ring.too_large",
        "drop.ring.disk_full",
        "drop.ring.io",
        "drop.ring.damaged",
        "drop.ring.refused",
        Self::IN_DOUBT,
    ];

    const fn values(&self) -> [u64; 9] {
        let t = self;
        let [a, b, c] = [t.accepted, t.acked, t.evicted];
        [a, b, c, t.too_large, t.disk_full, t.io, t.damaged, t.refused, t.in_doubt]
    }

    fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Self::NAMES.into_iter().zip(self.values())
    }

    fn owns(name: &str) -> bool {
        Self::NAMES.contains(&name)
    }

    fn load(counters: &BTreeMap<String, u64>) -> Self {
        let get = |name| counters.get(name).copied().unwrap_or(0);
        let [accepted, acked, evicted, too_large, disk_full, io, damaged, refused, in_doubt] =
            Self::NAMES.map(get);
        // Whoever knew which ones these were has ended.
        let evicted = evicted + in_doubt;
        let in_doubt = 0;
        Self { accepted, acked, evicted, too_large, disk_full, io, damaged, refused, in_doubt }
    }

    const fn dropped(&self) -> u64 {
        self.evicted + self.too_large + self.disk_full + self.io + self.damaged + self.refused
    }

    const fn add(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.acked += other.acked;
        self.evicted += other.evicted;
        self.too_large += other.too_large;
        self.disk_full += other.disk_full;
        self.io += other.io;
        self.damaged += other.damaged;
        self.refused += other.refused;
        self.in_doubt += other.in_doubt;
    }

    /// So many of those in doubt were taken by the hub; the others were not.
    fn decide(&mut self, taken: u64) {
        let taken = taken.min(self.in_doubt);
        self.acked += taken;
        self.evicted += self.in_doubt - taken;
        self.in_doubt = 0;
    }

    /// Makes the account agree with what is really in the file. They differ only where a
    /// damaged one was set aside: what is missing was lost with it, and where even the
    /// counters were lost the account begins anew with what is there.
    fn settle_with(&mut self, pending: u64) {
        self.decide(0);
        let expected = self.accepted.saturating_sub(self.acked + self.dropped());
        self.damaged += expected.saturating_sub(pending);
        self.accepted = self.acked + self.dropped() + pending;
    }
}

impl Ring {
    /// Opens or creates the file at `config.path`; adds the counters kept in it to
    /// `counters`. A damaged file is set aside and a new one begun.
    ///
    /// # Errors
    /// [`RingError::InUse`], [`RingError::Newer`], [`RingError::Foreign`],
    /// [`RingError::DiskFull`], [`RingError::Io`].
    pub fn open(
        config: &Config,
        counters: &Counters,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, RingError> {
        let ring = Self::closed(config, counters, clock);
        ring.with_store(&mut ring.lock(), |_, _, _| Ok(()))?;
        Ok(ring)
    }

    /// The same, but where the file cannot be opened for now (no space, a disk that is not
    /// there or read-only), or must not be (another program's), goes on without: events are
    /// counted as lost, [`RingStatus::off`] says why, and every use tries again.
    ///
    /// # Errors
    /// [`RingError::InUse`]: two routers of one ring would send everything twice.
    pub fn open_or_wait(
        config: &Config,
        counters: &Counters,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, RingError> {
        let ring = Self::closed(config, counters, clock);
        match ring.with_store(&mut ring.lock(), |_, _, _| Ok(())) {
            Err(error @ RingError::InUse { .. }) => return Err(error),
            Err(error) => tracing::error!("{error}; going on without the ring, trying again"),
            Ok(()) => {}
        }
        Ok(ring)
    }

    fn closed(config: &Config, counters: &Counters, clock: Arc<dyn Clock>) -> Self {
        let inner = Inner {
            config: config.clone(),
            store: None,
            off: None,
            adopted: false,
            totals: Totals::default(),
            checkpoints: Places::default(),
        };
        // There from the start, so that `status` shows a zero.
        counters.counter("ring.damaged_files").add(0);
        Self { inner: Mutex::new(inner), counters: counters.clone(), clock }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.lock().config.path.clone()
    }

    /// Writes a compact copy to a new file, unless `known` says what the copy would; `None`
    /// then. An empty ring is not copied.
    fn copy_to(&self, to: &Path, known: Option<Mark>) -> Result<Option<Mark>, RingError> {
        let mut inner = self.lock();
        self.with_store(&mut inner, |store, totals, _| {
            store.settle(totals)?;
            let mark = store.mark();
            if Some(mark) == known {
                return Ok(None);
            }
            if mark.events() > 0 {
                store.copy_to(to)?;
            }
            Ok(Some(mark))
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends events and checkpoints in one transaction, evicting the oldest events where
    /// the room does not suffice. After an error none of the events is stored or accepted.
    ///
    /// # Errors
    /// [`RingError::DiskFull`] and [`RingError::Io`]: keep the events and try again, or give
    /// up on them with [`Ring::give_up`].
    pub fn append(&self, events: &[Vec<u8>], checkpoints: &[Checkpoint]) -> Result<(), RingError> {
        let mut inner = self.lock();
        inner.note(checkpoints);
        let others = self.counters.snapshot();
        self.with_store(&mut inner, |store, totals, places| {
            store.append(events, places, totals, &others)
        })
    }

    /// Counts `n` events as accepted and lost: they could not be stored.
    pub fn give_up(&self, n: u64, why: Unstored) {
        let mut inner = self.lock();
        let before = inner.totals;
        inner.totals.accepted += n;
        match why {
            Unstored::DiskFull => inner.totals.disk_full += n,
            Unstored::Io => inner.totals.io += n,
        }
        publish(&self.counters, &before, &inner.totals);
    }

    /// The oldest events not yet acknowledged, at most `events_max` and (but for a first
    /// one that is larger) `bytes_max`; all of one epoch. `None`: nothing waits.
    ///
    /// # Errors
    /// [`RingError::Io`] when the file cannot be read.
    pub fn peek(&self, events_max: usize, bytes_max: usize) -> Result<Option<Peeked>, RingError> {
        let mut inner = self.lock();
        self.with_store(&mut inner, |store, _, _| store.peek(events_max, bytes_max))
    }

    /// Deletes the events of `epoch` up to and including `seq`. Numbers of an unknown epoch,
    /// or beyond what is there, delete nothing that was not meant.
    ///
    /// # Errors
    /// [`RingError::DiskFull`], [`RingError::Io`]: the events are still in the file, but will
    /// not be handed out again; they are deleted as soon as the file can be written.
    pub fn ack(&self, epoch: u64, seq: u64) -> Result<(), RingError> {
        let mut inner = self.lock();
        self.with_store(&mut inner, |store, totals, _| {
            store.ack(epoch, seq, totals);
            store.settle(totals)
        })?;
        // Giving space back is a courtesy: the acknowledgement stands without it.
        drop(self.with_store(&mut inner, |store, _, _| store.shrink_when_empty()));
        Ok(())
    }

    /// The events `first..=last` of `epoch` are on their way: until [`Self::ack`] or
    /// [`Self::not_taken`] says more, those of them that are evicted are in doubt.
    pub fn sending(&self, epoch: u64, first: u64, last: u64) {
        let mut inner = self.lock();
        let Inner { store: Some(store), totals, .. } = &mut *inner else { return };
        let before = *totals;
        store.sending(epoch, first, last, totals);
        publish(&self.counters, &before, totals);
    }

    /// The hub did not take what was on its way.
    pub fn not_taken(&self) {
        let mut inner = self.lock();
        let before = inner.totals;
        if let Some(store) = &mut inner.store {
            store.not_taken();
        }
        inner.totals.decide(0);
        publish(&self.counters, &before, &inner.totals);
    }

    /// Deletes the one event `seq` of `epoch`, which must be the oldest: the hub will never
    /// take it. Counted as dropped.
    ///
    /// # Errors
    /// [`RingError::DiskFull`], [`RingError::Io`]: it is still there.
    pub fn refuse(&self, epoch: u64, seq: u64) -> Result<(), RingError> {
        let mut inner = self.lock();
        self.with_store(&mut inner, |store, totals, _| store.refuse(epoch, seq, totals))
    }

    /// Every collector's latest checkpoint.
    #[must_use]
    pub fn checkpoints(&self) -> BTreeMap<String, Vec<u8>> {
        self.lock().checkpoints.clone()
    }

    /// Another size from now on; a smaller one evicts the oldest, counted.
    ///
    /// # Errors
    /// As [`Ring::append`]; the old size stays.
    pub fn resize(&self, bytes_max: u64) -> Result<(), RingError> {
        let mut inner = self.lock();
        self.with_store(&mut inner, |store, totals, _| store.resize(bytes_max, totals))?;
        inner.config.bytes_max = bytes_max;
        Ok(())
    }

    /// The account, now.
    #[must_use]
    pub fn status(&self) -> RingStatus {
        let inner = self.lock();
        let totals = inner.totals;
        let dropped = totals.named().filter_map(|(name, n)| {
            let reason = name.strip_prefix("drop.ring.")?;
            (n > 0).then(|| (reason.to_owned(), n))
        });
        let store = inner.store.as_ref();
        // What the file holds, not what the account says: the two must agree. Only while a
        // file that failed cannot be opened again does the account speak alone.
        let gone = totals.acked + totals.dropped() + totals.in_doubt;
        let accounted = totals.accepted.saturating_sub(gone);
        RingStatus {
            accepted: totals.accepted,
            acked: totals.acked,
            pending: store.map_or(accounted, Store::pending),
            in_doubt: totals.in_doubt,
            dropped: dropped.collect(),
            bytes: store.map_or(0, Store::bytes),
            capacity: store.map_or(0, Store::capacity),
            epoch: store.map_or(0, Store::epoch),
            off: inner.off.clone().filter(|_| store.is_none()),
        }
    }

    /// Runs `work` on the open file. A file found damaged is replaced, and `work` tried once
    /// more on the new one.
    fn with_store<T>(
        &self,
        inner: &mut Inner,
        work: impl Fn(&mut Store, &mut Totals, &Places) -> Result<T, RingError>,
    ) -> Result<T, RingError> {
        match self.attempt(inner, &work) {
            Err(RingError::Damaged { path, what }) => {
                inner.store = None;
                damage::set_aside(&path, &what, self.clock.as_ref())?;
                self.counters.counter("ring.damaged_files").inc();
                self.attempt(inner, &work)
            }
            result => result,
        }
    }

    /// `work` on the file, which is opened again where it is not open. What `work` did to
    /// the totals is committed, whatever it returned.
    fn attempt<T>(
        &self,
        inner: &mut Inner,
        work: &impl Fn(&mut Store, &mut Totals, &Places) -> Result<T, RingError>,
    ) -> Result<T, RingError> {
        let Inner { config, store, off, adopted, totals, checkpoints } = inner;
        let before = *totals;
        let open = match store {
            Some(open) => open,
            None => match damage::open_or_replace(config, self.clock.as_ref()) {
                Ok(opened) => {
                    *off = None;
                    self.counters.counter("ring.damaged_files").add(u64::from(opened.replaced));
                    if !std::mem::replace(adopted, true) {
                        self.adopt(opened.kept, totals, checkpoints);
                    }
                    totals.settle_with(opened.store.pending());
                    store.insert(opened.store)
                }
                Err(error) => {
                    *off = Some(error.to_string());
                    return Err(error);
                }
            },
        };
        let result = work(open, totals, checkpoints);
        publish(&self.counters, &before, totals);
        result
    }

    /// Goes on from what an earlier process wrote; what was counted since the start without
    /// the file is added to it.
    fn adopt(&self, kept: damage::Kept, totals: &mut Totals, checkpoints: &mut Places) {
        totals.add(&Totals::load(&kept.counters));
        for (name, value) in kept.counters.iter().filter(|(name, _)| !Totals::owns(name)) {
            self.counters.counter(name).add(*value);
        }
        for (key, value) in kept.checkpoints {
            checkpoints.entry(key).or_insert(value);
        }
    }
}

/// What waits in a ring, by its numbers: two that are equal hold the same events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    epoch: u64,
    first: u64,
    next: u64,
}

impl Mark {
    /// How many events wait.
    const fn events(&self) -> u64 {
        self.next - self.first
    }
}

/// Collectors' places in their sources, by key.
type Places = BTreeMap<String, Vec<u8>>;

impl Inner {
    /// Remembers the newest place of each collector, to be written with the next commit.
    fn note(&mut self, checkpoints: &[Checkpoint]) {
        for checkpoint in checkpoints {
            let known = self.checkpoints.contains_key(&checkpoint.key);
            let room = known || self.checkpoints.len() < CHECKPOINTS_MAX;
            if room && checkpoint.value.len() <= CHECKPOINT_BYTES_MAX {
                self.checkpoints.insert(checkpoint.key.clone(), checkpoint.value.clone());
            }
        }
    }
}

/// Shows in `counters` by how much the ring's own grew.
fn publish(counters: &Counters, before: &Totals, after: &Totals) {
    for ((name, after), before) in after.named().zip(before.values()) {
        if after > before && name != Totals::IN_DOUBT {
            counters.counter(name).add(after - before);
        }
    }
}

#[cfg(test)]
impl Ring {
    /// As if somebody else had filled the disk.
    pub(crate) fn choke(&self, on: bool) {
        if let Some(store) = &self.lock().store {
            store.choke(on);
        }
    }
}
