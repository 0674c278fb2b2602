//! Opening a ring's file: whose it is, whether it is sound, how SQLite shall treat it.
//!
//! In: a path. Out: a connection with everything set, and what the file keeps besides
//! events. Runs at the start, and again should the file be replaced. Reading a file through
//! takes about 0.2 s per 100 MiB; above [`CHECK_BYTES_MAX`] it is left out.

use std::collections::VecDeque;
use std::fs;
use std::path::Path;
use std::time::Duration;

use agentmon_core::wire::COUNTERS_MAX;
use rusqlite::{Connection, OpenFlags};

use super::damage::Kept;
use super::sql::{PAGE_BYTES, classify, number, pragma, set};
use super::{RingError, WAL_ROOM_BYTES};
use crate::disk;

/// "agmr": what `file` and SQLite show for a ring.
const APPLICATION_ID: i64 = 0x6167_6d72;
/// The format this program writes, and the newest it reads.
pub(super) const VERSION: i64 = 1;
/// The log is copied into the file when it has this many pages (512 KiB): half of its room,
/// the other half is for the transaction that goes beyond. Each copying waits for the disk.
const WAL_PAGES: i64 = 128;
/// Above this size a file is not read through at opening (about 0.2 s per 100 MiB).
pub(super) const CHECK_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// How long to wait for a predecessor that is just ending.
const BUSY_WAIT: Duration = Duration::from_secs(2);

const SCHEMA: &str = "
    CREATE TABLE events(seq INTEGER PRIMARY KEY, data BLOB NOT NULL);
    CREATE TABLE epochs(first_seq INTEGER PRIMARY KEY, epoch INTEGER NOT NULL);
    CREATE TABLE counters(name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE checkpoints(key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
";

/// SQLite gives the log the mode of the file, so it is created by us: readable only by its
/// owner, since it says who talked to whom.
pub(super) fn create_private(path: &Path) -> Result<(), RingError> {
    let io = |what: std::io::Error| RingError::Io { path: path.to_owned(), what: what.to_string() };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(io)?;
    }
    let mut options = fs::OpenOptions::new();
    disk::private(options.create(true).truncate(false).write(true)).open(path).map_err(io)?;
    Ok(())
}

pub(super) fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(BUSY_WAIT)?;
    // Before the first read: the log's index then lives in this process's memory.
    set(&conn, "locking_mode", "exclusive")?;
    Ok(conn)
}

/// Refuses what is not ours, creates the tables in a new file, sets the journal up.
pub(super) fn prepare(conn: &Connection, path: &Path) -> Result<(), RingError> {
    let fail = |error| classify(path, error);
    let application =
        conn.pragma_query_value(None, "application_id", |r| r.get(0)).map_err(fail)?;
    let version: i64 = conn.pragma_query_value(None, "user_version", |r| r.get(0)).map_err(fail)?;
    let tables: i64 =
        conn.query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get(0)).map_err(fail)?;
    match (application, version, tables) {
        (APPLICATION_ID, VERSION, _) => {}
        (APPLICATION_ID, found, _) if found > VERSION => {
            return Err(RingError::Newer { path: path.to_owned(), found, known: VERSION });
        }
        (0, 0, 0) => {}
        _ => return Err(RingError::Foreign { path: path.to_owned() }),
    }
    set(conn, "journal_mode", "wal").map_err(fail)?;
    set(conn, "synchronous", "normal").map_err(fail)?;
    set(conn, "temp_store", "memory").map_err(fail)?;
    set(conn, "cache_size", -1024).map_err(fail)?;
    set(conn, "wal_autocheckpoint", WAL_PAGES).map_err(fail)?;
    let room = i64::try_from(WAL_ROOM_BYTES).unwrap_or(i64::MAX);
    set(conn, "journal_size_limit", room).map_err(fail)?;
    if tables == 0 {
        let tx = conn.unchecked_transaction().map_err(fail)?;
        tx.execute_batch(SCHEMA).map_err(fail)?;
        set(&tx, "application_id", APPLICATION_ID).map_err(fail)?;
        set(&tx, "user_version", VERSION).map_err(fail)?;
        tx.commit().map_err(fail)?;
    }
    Ok(())
}

/// Reads the file through, unless it is too large to do that at every start.
pub(super) fn check(conn: &Connection, path: &Path) -> Result<(), RingError> {
    let fail = |error| classify(path, error);
    if pragma(conn, "page_count").map_err(fail)? * PAGE_BYTES > CHECK_BYTES_MAX {
        return Ok(());
    }
    let verdict: String =
        conn.query_row("PRAGMA quick_check(1)", [], |r| r.get(0)).map_err(fail)?;
    if verdict == "ok" {
        return Ok(());
    }
    // One line, printable: it quotes what it found.
    let what = agentmon_core::name::printable(verdict.as_bytes(), 200);
    Err(RingError::Damaged { path: path.to_owned(), what })
}

pub(super) fn kept(conn: &Connection) -> rusqlite::Result<Kept> {
    let mut kept = Kept::default();
    let mut query = conn.prepare("SELECT name, value FROM counters LIMIT ?")?;
    let limit = i64::try_from(COUNTERS_MAX).unwrap_or(i64::MAX);
    for row in query.query_map([limit], |r| Ok((r.get(0)?, number(r, 1)?)))? {
        let (name, value) = row?;
        kept.counters.insert(name, value);
    }
    let mut query = conn.prepare("SELECT key, value FROM checkpoints")?;
    for row in query.query_map([], |r| Ok((r.get(0)?, r.get(1)?)))? {
        let (key, value) = row?;
        kept.checkpoints.insert(key, value);
    }
    Ok(kept)
}

pub(super) fn epochs(conn: &Connection) -> rusqlite::Result<VecDeque<(u64, u64)>> {
    let mut query = conn.prepare("SELECT first_seq, epoch FROM epochs ORDER BY first_seq")?;
    let rows = query.query_map([], |r| Ok((number(r, 0)?, number(r, 1)?)))?;
    rows.collect()
}

/// 64 random bits: 2^32 openings until two are equal by chance.
pub(super) fn random_epoch(path: &Path) -> Result<u64, RingError> {
    let mut bytes = [0; 8];
    disk::random(&mut bytes)
        .map_err(|e| RingError::Io { path: path.to_owned(), what: format!("random bytes: {e}") })?;
    Ok(u64::from_ne_bytes(bytes))
}

/// The counters and checkpoints of a file that may be damaged.
pub(super) fn read_kept(path: &Path) -> Option<Kept> {
    let conn = connect(path).ok()?;
    // With this SQLite also reads a file that is shorter than its header says.
    set(&conn, "writable_schema", true).ok()?;
    kept(&conn).ok()
}
