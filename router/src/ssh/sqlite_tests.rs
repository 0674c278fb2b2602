//! Copies of a database that somebody writes to all the while, over a real `sshd`.

use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::Connection;

use super::super::sshd::{Sshd, patience};
use super::*;

/// Rows over some dozens of pages, of which every transaction changes all.
const ROWS: u32 = 400;

/// A database in that journal mode, whose rows all say 0.
fn database(path: &Path, mode: &str) -> Connection {
    let connection = Connection::open(path).unwrap();
    let set_up = format!(
        "PRAGMA journal_mode = {mode}; PRAGMA wal_autocheckpoint = 50; PRAGMA synchronous = OFF;
         CREATE TABLE t (id INTEGER PRIMARY KEY, v INTEGER, text TEXT);
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})
         INSERT INTO t SELECT i, 0, hex(randomblob(200)) FROM n"
    );
    connection.execute_batch(&set_up).unwrap();
    connection
}

/// How often the rows of a copy were changed: all alike, or it is no copy of any moment.
#[track_caller]
fn moment(copy: &Path) -> i64 {
    let copy = Connection::open(copy).unwrap();
    let one = |sql: &str| copy.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    let check: String = copy.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
    assert_eq!(one("SELECT count(*) FROM t"), i64::from(ROWS));
    assert_eq!(one("SELECT count(DISTINCT v) FROM t"), 1, "rows of different moments");
    one("SELECT max(v) FROM t")
}

/// Says so when it goes.
struct Ended<'a>(&'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[track_caller]
fn whole_while_written(mode: &str) {
    let Some(sshd) = Sshd::start() else { return };
    let (path, to) = (sshd.at("busy.db"), sshd.at("copy.db"));
    let writer = database(&path, mode);
    let done = AtomicBool::new(false);
    let mut session = sshd.connect(&sshd.target).unwrap();
    let what = |to| Copy {
        path: path.to_str().unwrap(),
        to,
        bytes_max: 1 << 30,
        pause: Duration::from_millis(3),
    };
    let stop = patience().stop;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (writer, mut n) = (writer, 0u64);
            while !done.load(Ordering::Relaxed) {
                writer.execute_batch("UPDATE t SET v = v + 1").unwrap();
                n += 1;
                // Bursts, and pauses in which a copy may succeed.
                std::thread::sleep(Duration::from_millis([0, 2, 0, 60][(n % 4) as usize]));
            }
        });
        // However this ends: the writer ends too.
        let _ended = Ended(&done);
        let (mut copies, mut before) = (0, 0);
        for _ in 0..40 {
            match copy(&mut session, what(&to), None, &stop) {
                Ok(_) => {
                    let now = moment(&to);
                    assert!(now >= before, "older than the copy before");
                    (copies, before) = (copies + 1, now);
                }
                // Told as such, and nothing is read of it.
                Err(CopyError::Changing) => {}
                Err(other) => panic!("{other}"),
            }
        }
        eprintln!("{mode}: {copies} of 40 copies succeeded while it was written to");
    });
    let at_rest = Connection::open(&path).unwrap();
    let newest: i64 = at_rest.query_row("SELECT max(v) FROM t", [], |row| row.get(0)).unwrap();
    copy(&mut session, what(&to), None, &stop).unwrap();
    assert_eq!(moment(&to), newest, "nobody writes any more");
}

#[test]
fn a_copy_is_of_one_moment_with_a_write_ahead_log() {
    whole_while_written("WAL");
}

#[test]
fn a_copy_is_of_one_moment_with_a_rollback_journal() {
    whole_while_written("DELETE");
}
