//! The ring's SQL: pieces of transactions, what they take in pages, SQLite's errors.
//!
//! In: a connection or transaction and plain values. Out: rows written or deleted, sizes,
//! and SQLite's refusals as [`RingError`]. No state.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};

use agentmon_core::wire::COUNTERS_MAX;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, params};

use super::{Places, RingError, Totals, WAL_ROOM_BYTES};

/// SQLite's own default.
pub(super) const PAGE_BYTES: u64 = 4096;

pub(super) fn insert_events(
    tx: &Transaction<'_>,
    mut next: u64,
    events: &[&[u8]],
) -> rusqlite::Result<u64> {
    let mut insert = tx.prepare("INSERT INTO events VALUES (?, ?)")?;
    for event in events {
        insert.execute(params![signed(next), event])?;
        next += 1;
    }
    Ok(next)
}

/// Deletes the run `first..=through`; that it was complete is checked by the way.
pub(super) fn delete_through(
    tx: &Transaction<'_>,
    first: u64,
    through: u64,
) -> rusqlite::Result<Result<(), RingError>> {
    let deleted = tx.execute("DELETE FROM events WHERE seq <= ?", [signed(through)])?;
    if deleted as u64 == through + 1 - first {
        return Ok(Ok(()));
    }
    let path = tx.path().map(PathBuf::from).unwrap_or_default();
    Ok(Err(RingError::Damaged { path, what: "events are missing".to_owned() }))
}

/// Forgets the lives of the ring whose last event is before `first`.
pub(super) fn forget_epochs(
    tx: &Transaction<'_>,
    epochs: &mut VecDeque<(u64, u64)>,
    first: u64,
) -> rusqlite::Result<()> {
    let mut forgotten = false;
    while epochs.get(1).is_some_and(|(next_life, _)| *next_life <= first) {
        epochs.pop_front();
        forgotten = true;
    }
    if let (true, Some((oldest, _))) = (forgotten, epochs.front()) {
        tx.execute("DELETE FROM epochs WHERE first_seq < ?", [signed(*oldest)])?;
    }
    Ok(())
}

pub(super) fn with_totals(
    counters: &BTreeMap<String, u64>,
    totals: &Totals,
) -> BTreeMap<String, u64> {
    let mut all = counters.clone();
    all.extend(totals.named().map(|(name, value)| (name.to_owned(), value)));
    all
}

pub(super) fn write_counters(
    tx: &Transaction<'_>,
    counters: &BTreeMap<String, u64>,
    written: &BTreeMap<String, u64>,
) -> rusqlite::Result<()> {
    let mut put = tx.prepare("INSERT OR REPLACE INTO counters VALUES (?, ?)")?;
    for (name, value) in counters.iter().take(COUNTERS_MAX) {
        if written.get(name) != Some(value) {
            put.execute(params![name, signed(*value)])?;
        }
    }
    Ok(())
}

pub(super) fn write_places(
    tx: &Transaction<'_>,
    places: &Places,
    written: &Places,
) -> rusqlite::Result<()> {
    let mut put = tx.prepare("INSERT OR REPLACE INTO checkpoints VALUES (?, ?)")?;
    for (key, value) in places {
        if written.get(key) != Some(value) {
            put.execute(params![key, value])?;
        }
    }
    Ok(())
}

pub(super) fn pages(bytes_max: u64) -> u64 {
    bytes_max.saturating_sub(WAL_ROOM_BYTES) / PAGE_BYTES
}

/// Bytes of page an event takes: SQLite packs whole cells (payload, two varints, a 2-byte
/// pointer) into a leaf; a cell that does not fit goes on in overflow pages of its own.
pub(super) fn cost(event: &[u8]) -> u64 {
    const LEAF_BYTES: u64 = 4_084;
    let cell = event.len() as u64 + 16;
    match LEAF_BYTES.checked_div(cell) {
        Some(per_page @ 1..) => PAGE_BYTES / per_page,
        _ => (cell / LEAF_BYTES + 2) * PAGE_BYTES,
    }
}

/// Pages these events take, and some for the tree above them and the small tables.
pub(super) fn pages_for(events: &[&[u8]]) -> u64 {
    events.iter().map(|e| cost(e)).sum::<u64>() / PAGE_BYTES + 8
}

/// How many of the oldest to leave out so that the others take at most `pages_max`.
pub(super) fn skip_to_fit(events: &[&[u8]], pages_max: u64) -> usize {
    let mut room = pages_max.saturating_sub(8) * PAGE_BYTES;
    let kept = events.iter().rev().take_while(|event| {
        let left = room.checked_sub(cost(event));
        room = left.unwrap_or(0);
        left.is_some()
    });
    events.len() - kept.count()
}

pub(super) fn set(
    conn: &Connection,
    name: &str,
    value: impl rusqlite::ToSql,
) -> rusqlite::Result<()> {
    conn.pragma_update_and_check(None, name, value, |_| Ok(())).optional().map(drop)
}

pub(super) fn set_pages_max(conn: &Connection, pages: u64) -> rusqlite::Result<()> {
    set(conn, "max_page_count", signed(pages))
}

/// Copies the log into the file and empties it.
pub(super) fn checkpoint(conn: &Connection) -> rusqlite::Result<()> {
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}

pub(super) fn pragma(conn: &Connection, name: &str) -> rusqlite::Result<u64> {
    conn.pragma_query_value(None, name, |row| number(row, 0))
}

/// SQLite's integers are signed; ours use all 64 bits (epochs are random).
pub(super) const fn signed(n: u64) -> i64 {
    n.cast_signed()
}

pub(super) fn number(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(i64::cast_unsigned)
}

pub(super) fn classify(path: &Path, error: rusqlite::Error) -> RingError {
    let path = path.to_owned();
    let what = error.to_string();
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => RingError::DiskFull { path },
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => RingError::InUse { path },
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            RingError::Damaged { path, what }
        }
        // A column of another type than we wrote, a table that is gone: not what it was.
        None if matches!(error, rusqlite::Error::InvalidColumnType(..)) => {
            RingError::Damaged { path, what }
        }
        _ if what.starts_with("no such ") => RingError::Damaged { path, what },
        _ => RingError::Io { path, what },
    }
}
