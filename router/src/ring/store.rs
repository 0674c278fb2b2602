//! The ring's SQLite file: one connection, one writer.
//!
//! Layout (`application_id` "agmr", `user_version` [`super::open::VERSION`]): `events(seq, data)` one
//! unbroken run of numbers; `epochs(first_seq, epoch)` says to which life of the ring a
//! number belongs; `counters` and `checkpoints` are replaced in place.
//!
//! Settings and why: WAL with synchronous=NORMAL (a crash of the process loses nothing, a
//! power cut at most the last commits); locking_mode=EXCLUSIVE (no shared-memory file, and a
//! second router is refused); wal_autocheckpoint 128 pages (small log);
//! max_page_count at *every* opening, because SQLite does not store it.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};

use agentmon_core::wire::EVENT_BYTES_MAX;
use rusqlite::{Connection, Transaction, params};

use super::damage::Kept;
use super::open::{
    CHECK_BYTES_MAX, check, connect, create_private, epochs, kept, prepare, random_epoch,
};
use super::sql::{
    PAGE_BYTES, checkpoint, classify, delete_through, forget_epochs, insert_events, number, pages,
    pages_for, pragma, set_pages_max, signed, skip_to_fit, with_totals, write_counters,
    write_places,
};
use super::{Mark, Peeked, Places, RingError, Totals};

/// Most events deleted in one transaction after an acknowledgement, to keep the log small.
const DELETE_EVENTS_MAX: u64 = 2_000;
/// How often an append that finds the file full makes twice as much room as before.
const EVICT_ROUNDS_MAX: u32 = 6;
/// An empty ring gives its space back when it is larger than this: on tmpfs it is memory.
const SHRINK_PAGES: u64 = 1_024;

/// The open file and what is known of it without asking SQLite.
pub(super) struct Store {
    conn: Connection,
    path: PathBuf,
    pages_max: u64,
    /// This life of the ring; stands in `epochs` from its first event on.
    epoch: u64,
    /// First number and epoch of each life that has events here, oldest first.
    epochs: VecDeque<(u64, u64)>,
    /// Number of the oldest event, and the number the next one gets: equal when empty.
    first: u64,
    next: u64,
    /// Everything up to here is acknowledged, although it may not be deleted yet.
    acked_through: u64,
    /// Epoch, first and last number of what is on its way to the hub.
    on_its_way: Option<(u64, u64, u64)>,
    /// Counters and checkpoints as they stand in the file.
    written: BTreeMap<String, u64>,
    places: Places,
}

impl Store {
    /// Opens or creates the file and begins a new epoch.
    pub(super) fn open(path: &Path, bytes_max: u64) -> Result<(Self, Kept), RingError> {
        create_private(path)?;
        let fail = |error| classify(path, error);
        let conn = connect(path).map_err(fail)?;
        let pages_max = pages(bytes_max);
        set_pages_max(&conn, pages_max).map_err(fail)?;
        prepare(&conn, path)?;
        check(&conn, path)?;
        let kept = kept(&conn).map_err(fail)?;
        let epochs = epochs(&conn).map_err(fail)?;
        let span = "SELECT coalesce(min(seq), 1), coalesce(max(seq), 0) + 1 FROM events";
        let (first, next) =
            conn.query_row(span, [], |row| Ok((number(row, 0)?, number(row, 1)?))).map_err(fail)?;
        let mut store = Self {
            conn,
            path: path.to_owned(),
            pages_max,
            epoch: random_epoch(path)?,
            epochs,
            first,
            next,
            acked_through: 0,
            on_its_way: None,
            written: kept.counters.clone(),
            places: kept.checkpoints.clone(),
        };
        store.verify_run()?;
        store.fit(&mut Totals::load(&kept.counters))?;
        let kept = Kept { counters: store.written.clone(), checkpoints: kept.checkpoints };
        Ok((store, kept))
    }

    /// Events in the file.
    pub(super) const fn pending(&self) -> u64 {
        self.next - self.first
    }
    pub(super) const fn epoch(&self) -> u64 {
        self.epoch
    }
    pub(super) const fn capacity(&self) -> u64 {
        self.pages_max * PAGE_BYTES
    }
    /// Bytes in use, free pages not counted.
    pub(super) fn bytes(&self) -> u64 {
        self.used_pages().unwrap_or(0) * PAGE_BYTES
    }

    /// What waits, by its numbers.
    pub(super) const fn mark(&self) -> Mark {
        Mark { epoch: self.epoch, first: self.first, next: self.next }
    }

    /// A compact copy in a new file, journal included.
    pub(super) fn copy_to(&self, to: &Path) -> Result<(), RingError> {
        let name = to.to_string_lossy();
        self.conn.execute("VACUUM INTO ?", [name]).map(drop).map_err(|e| classify(to, e))
    }

    /// Appends events and writes changed checkpoints and counters, in one transaction.
    pub(super) fn append(
        &mut self,
        events: &[Vec<u8>],
        places: &Places,
        totals: &mut Totals,
        counters: &BTreeMap<String, u64>,
    ) -> Result<(), RingError> {
        self.settle(totals)?;
        let mut after = *totals;
        after.accepted += events.len() as u64;
        let mut fit: Vec<&[u8]> = events.iter().map(Vec::as_slice).collect();
        fit.retain(|event| event.len() <= EVENT_BYTES_MAX);
        after.too_large += (events.len() - fit.len()) as u64;
        // More than half the ring at once: its own oldest go before they were ever stored.
        let skipped = skip_to_fit(&fit, self.pages_max / 2);
        after.evicted += skipped as u64;
        let fit = fit.get(skipped..).unwrap_or_default();

        // They would be younger than what is still in the file, so that goes altogether.
        let mut room = if skipped > 0 { self.pages_max } else { pages_for(fit) };
        for _ in 0..EVICT_ROUNDS_MAX {
            match self.try_append(fit, places, after, counters, room) {
                Err(RingError::DiskFull { .. }) if self.is_own_limit(room)? => room *= 2,
                Err(error) => return Err(error),
                Ok(committed) => {
                    *totals = committed;
                    return Ok(());
                }
            }
        }
        Err(RingError::DiskFull { path: self.path.clone() })
    }

    /// One attempt: makes `room` pages free by evicting, then inserts. SQLite rolls
    /// back by itself when it runs full.
    fn try_append(
        &mut self,
        events: &[&[u8]],
        places: &Places,
        mut totals: Totals,
        counters: &BTreeMap<String, u64>,
        room: u64,
    ) -> Result<Totals, RingError> {
        let fail = |error| classify(&self.path, error);
        let tx = self.conn.unchecked_transaction().map_err(fail)?;
        let first = self.evict_for(&tx, room)?;
        self.count_evicted(first - self.first, &mut totals);
        let mut epochs = self.epochs.clone();
        forget_epochs(&tx, &mut epochs, first).map_err(fail)?;
        if !events.is_empty() && epochs.back().is_none_or(|(_, epoch)| *epoch != self.epoch) {
            if first == self.next {
                tx.execute("DELETE FROM epochs", []).map_err(fail)?;
                epochs.clear();
            }
            let row = params![signed(self.next), signed(self.epoch)];
            tx.execute("INSERT INTO epochs VALUES (?, ?)", row).map_err(fail)?;
            epochs.push_back((self.next, self.epoch));
        }
        let next = insert_events(&tx, self.next, events).map_err(fail)?;
        let counters = with_totals(counters, &totals);
        write_counters(&tx, &counters, &self.written).map_err(fail)?;
        write_places(&tx, places, &self.places).map_err(fail)?;
        tx.commit().map_err(fail)?;
        (self.first, self.next, self.epochs, self.written) = (first, next, epochs, counters);
        self.places.clone_from(places);
        Ok(totals)
    }

    /// Deletes the oldest until `room` pages are free or nothing is left; returns the
    /// number of the oldest event then.
    fn evict_for(&self, tx: &Transaction<'_>, room: u64) -> Result<u64, RingError> {
        let fail = |error| classify(&self.path, error);
        let mut first = self.first;
        loop {
            let free = pragma(tx, "freelist_count").map_err(fail)?;
            let used = pragma(tx, "page_count").map_err(fail)?.saturating_sub(free);
            let available = self.pages_max.saturating_sub(used);
            if available >= room || first == self.next {
                return Ok(first);
            }
            let rows = self.next - first;
            let missing = room - available;
            // As many rows as hold the missing pages on average, and a few more.
            let n = (rows.saturating_mul(missing) / used.max(1) + 8).min(rows);
            delete_through(tx, first, first + n - 1).map_err(fail)??;
            first += n;
        }
    }

    /// The file is at the size we gave it, rather than the file system full.
    fn is_own_limit(&self, room: u64) -> Result<bool, RingError> {
        let pages = pragma(&self.conn, "page_count").map_err(|e| classify(&self.path, e))?;
        Ok(self.pending() > 0 && pages + room + 16 >= self.pages_max)
    }

    /// The oldest unacknowledged events of one epoch.
    pub(super) fn peek(
        &self,
        events_max: usize,
        bytes_max: usize,
    ) -> Result<Option<Peeked>, RingError> {
        let start = self.first.max(self.acked_through + 1);
        if start >= self.next {
            return Ok(None);
        }
        let Some((epoch, end)) = self.epoch_at(start) else {
            return Err(self.damaged("events without an epoch"));
        };
        let fail = |error| classify(&self.path, error);
        let sql = "SELECT seq, data FROM events WHERE seq >= ? AND seq < ? ORDER BY seq LIMIT ?";
        let mut query = self.conn.prepare(sql).map_err(fail)?;
        let limit = i64::try_from(events_max).unwrap_or(i64::MAX);
        let mut rows = query.query(params![signed(start), signed(end), limit]).map_err(fail)?;
        let mut peeked = Peeked { epoch, first_seq: start, events: Vec::new() };
        let mut bytes = 0;
        while let Some(row) = rows.next().map_err(fail)? {
            let data = row.get_ref(1).map_err(fail)?.as_blob().unwrap_or_default();
            bytes += data.len();
            if bytes > bytes_max && !peeked.events.is_empty() {
                break;
            }
            if number(row, 0).map_err(fail)? != start + peeked.events.len() as u64 {
                return Err(self.damaged("a hole in the sequence of events"));
            }
            peeked.events.push(data.to_vec());
        }
        if peeked.events.is_empty() {
            return Err(self.damaged("events are missing"));
        }
        Ok(Some(peeked))
    }

    /// The epoch that `seq` belongs to, and the first number behind it.
    fn epoch_at(&self, seq: u64) -> Option<(u64, u64)> {
        let i = self.epochs.partition_point(|(first, _)| *first <= seq).checked_sub(1)?;
        let end = self.epochs.get(i + 1).map_or(self.next, |(first, _)| *first);
        self.epochs.get(i).map(|(_, epoch)| (*epoch, end))
    }

    /// Notes an acknowledgement. Only the oldest epoch with unacknowledged events can be
    /// meant; anything else is an answer to something that is gone.
    pub(super) fn ack(&mut self, epoch: u64, seq: u64, totals: &mut Totals) {
        if let Some((_, first, _)) = self.on_its_way.take_if(|(life, ..)| *life == epoch) {
            // What was evicted of it are its first ones.
            totals.decide((seq + 1).saturating_sub(first));
        }
        let start = self.first.max(self.acked_through + 1);
        match self.epoch_at(start) {
            Some((oldest, end)) if oldest == epoch && start < self.next => {
                self.acked_through = self.acked_through.max(seq.min(end - 1));
            }
            _ => {}
        }
    }

    /// Notes what goes to the hub; of what went before nothing more will be heard.
    pub(super) fn sending(&mut self, epoch: u64, first: u64, last: u64, totals: &mut Totals) {
        totals.decide(0);
        self.on_its_way = Some((epoch, first, last));
    }

    pub(super) const fn not_taken(&mut self) {
        self.on_its_way = None;
    }

    /// The `n` oldest go for want of room.
    fn count_evicted(&self, n: u64, totals: &mut Totals) {
        let behind = self.first + n;
        let in_doubt = self.on_its_way.map_or(0, |(_, first, last)| {
            behind.min(last + 1).saturating_sub(self.first.max(first))
        });
        totals.in_doubt += in_doubt;
        totals.evicted += n - in_doubt;
    }

    /// Deletes the oldest event, if it is the one that is meant.
    pub(super) fn refuse(
        &mut self,
        epoch: u64,
        seq: u64,
        totals: &mut Totals,
    ) -> Result<(), RingError> {
        self.settle(totals)?;
        let is_oldest = seq == self.first && self.pending() > 0;
        if is_oldest && self.epoch_at(seq).is_some_and(|(life, _)| life == epoch) {
            let mut after = *totals;
            after.refused += 1;
            self.delete_oldest(1, &after)?;
            *totals = after;
        }
        Ok(())
    }

    /// Deletes what is acknowledged, in steps that keep the log small.
    pub(super) fn settle(&mut self, totals: &mut Totals) -> Result<(), RingError> {
        while self.first <= self.acked_through && self.first < self.next {
            let through = self.acked_through.min(self.next - 1);
            let n = (through + 1 - self.first).min(DELETE_EVENTS_MAX);
            let mut after = *totals;
            after.acked += n;
            self.delete_oldest(n, &after)?;
            *totals = after;
        }
        Ok(())
    }

    /// Deletes the `n` oldest and writes the totals that say why, in one transaction.
    fn delete_oldest(&mut self, n: u64, totals: &Totals) -> Result<(), RingError> {
        let fail = |error| classify(&self.path, error);
        let tx = self.conn.unchecked_transaction().map_err(fail)?;
        delete_through(&tx, self.first, self.first + n - 1).map_err(fail)??;
        let mut epochs = self.epochs.clone();
        forget_epochs(&tx, &mut epochs, self.first + n).map_err(fail)?;
        let counters = with_totals(&self.written, totals);
        write_counters(&tx, &counters, &self.written).map_err(fail)?;
        tx.commit().map_err(fail)?;
        (self.epochs, self.written) = (epochs, counters);
        self.first += n;
        Ok(())
    }

    /// Gives the space of an emptied ring back to the file system.
    pub(super) fn shrink_when_empty(&mut self) -> Result<(), RingError> {
        let pages = pragma(&self.conn, "page_count").map_err(|e| classify(&self.path, e))?;
        if self.pending() > 0 || pages <= SHRINK_PAGES {
            return Ok(());
        }
        self.vacuum()
    }

    /// Another size from now on.
    pub(super) fn resize(&mut self, bytes_max: u64, totals: &mut Totals) -> Result<(), RingError> {
        self.pages_max = pages(bytes_max);
        self.fit(totals)
    }

    /// Brings the file below its limit: only needed after the limit became smaller.
    fn fit(&mut self, totals: &mut Totals) -> Result<(), RingError> {
        let fail = |error| classify(&self.path, error);
        if pragma(&self.conn, "page_count").map_err(fail)? > self.pages_max {
            while self.used_pages()? > self.pages_max * 3 / 4 && self.pending() > 0 {
                let n = self.pending().min(DELETE_EVENTS_MAX);
                let mut after = *totals;
                self.count_evicted(n, &mut after);
                self.delete_oldest(n, &after)?;
                *totals = after;
            }
            self.vacuum()?;
        }
        set_pages_max(&self.conn, self.pages_max).map_err(|error| classify(&self.path, error))
    }

    fn vacuum(&self) -> Result<(), RingError> {
        let fail = |error| classify(&self.path, error);
        self.conn.execute_batch("VACUUM").map_err(fail)?;
        checkpoint(&self.conn).map_err(fail)?;
        set_pages_max(&self.conn, self.pages_max).map_err(fail)
    }

    fn used_pages(&self) -> Result<u64, RingError> {
        let fail = |error| classify(&self.path, error);
        let free = pragma(&self.conn, "freelist_count").map_err(fail)?;
        Ok(pragma(&self.conn, "page_count").map_err(fail)?.saturating_sub(free))
    }

    /// The run of numbers has no hole, and every number has an epoch.
    fn verify_run(&self) -> Result<(), RingError> {
        if self.pending() == 0 {
            return Ok(());
        }
        if self.epoch_at(self.first).is_none() {
            return Err(self.damaged("events without an epoch"));
        }
        let fail = |error| classify(&self.path, error);
        if pragma(&self.conn, "page_count").map_err(fail)? * PAGE_BYTES > CHECK_BYTES_MAX {
            return Ok(());
        }
        let count = self
            .conn
            .query_row("SELECT count(*) FROM events", [], |row| number(row, 0))
            .map_err(fail)?;
        if count == self.pending() { Ok(()) } else { Err(self.damaged("events are missing")) }
    }

    fn damaged(&self, what: &str) -> RingError {
        RingError::Damaged { path: self.path.clone(), what: what.to_owned() }
    }
}

#[cfg(test)]
impl Store {
    /// As if somebody else had filled the disk: the file cannot grow.
    pub(super) fn choke(&self, on: bool) {
        let now = pragma(&self.conn, "page_count").unwrap();
        set_pages_max(&self.conn, if on { now } else { self.pages_max }).unwrap();
    }
    /// Lives of the ring that are remembered, in memory and in the file.
    pub(super) fn lives(&self) -> (usize, usize) {
        let count = |row: &rusqlite::Row<'_>| number(row, 0);
        let stored = self.conn.query_row("SELECT count(*) FROM epochs", [], count).unwrap();
        (self.epochs.len(), usize::try_from(stored).unwrap())
    }
    pub(super) fn execute(&self, sql: &str) {
        self.conn.execute_batch(sql).unwrap();
    }
}
