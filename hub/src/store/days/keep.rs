//! A round of upkeep: files are looked at, old days rolled, expired ones deleted, the disk
//! budget held.
//!
//! In: the store by a [`Desk`], the rules, the time. Out: what was done. The running hub does
//! it every few minutes on a thread of its own, `agentmon cleanup` at once. Files are written
//! on a reader's connection; the writer only runs short transactions, so batches are stored
//! meanwhile.
//!
//! What is deleted goes by the newest day that has anything, if that is not after the clock's:
//! a clock that is years ahead deletes nothing (C6). Rolling loses nothing, and goes by the
//! clock.

use std::path::{Path, PathBuf};

use agentmon_core::Timestamp;
use duckdb::Connection;

use super::plan::{self, Action, Retention, State, What};
use super::{Day, StoreError, TABLES, check, parts, roll};
use crate::store::handle::Handle;
use crate::store::writer::Writer;

/// Most days rolled in one round; the next one goes on.
const ROLLS_MAX: usize = 400;

/// A table that stays in the database.
struct Kept {
    name: &'static str,
    /// What is too old, before the time `$1`; of numbered rows never the newest, so that no
    /// number is given twice.
    old: &'static str,
    days: fn(&Retention) -> u32,
}

/// What refers to another before that.
const KEPT: &[Kept] = &[
    Kept { name: "gaps", old: "time < $1::TIMESTAMP", days: |r| r.gaps_days },
    Kept {
        name: "findings",
        old: "time < $1::TIMESTAMP AND id < (SELECT max(id) FROM findings)",
        days: |r| r.findings_days,
    },
    Kept {
        name: "alerts",
        old: "last_seen < $1::TIMESTAMP AND id < (SELECT max(id) FROM alerts)",
        days: |r| r.findings_days,
    },
    Kept {
        name: "zeek_name",
        old: "(sensor, uid) IN (SELECT (sensor, uid) FROM zeek_conn WHERE time < $1::TIMESTAMP)",
        days: |r| r.flows_days,
    },
    Kept { name: "zeek_conn", old: "time < $1::TIMESTAMP", days: |r| r.flows_days },
    Kept { name: "process_conns", old: "time < $1::TIMESTAMP", days: |r| r.flows_days },
    Kept { name: "programs", old: "last_seen < $1::TIMESTAMP", days: |r| r.flows_days },
    Kept { name: "processes", old: "time < $1::TIMESTAMP", days: |r| r.flows_days },
];

/// The store, running or not.
pub(crate) trait Desk {
    /// Reads on a connection of its own.
    ///
    /// # Errors
    /// What it runs into.
    fn read<T>(
        &mut self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError>;
    /// Runs with the writer.
    ///
    /// # Errors
    /// What it runs into.
    fn write<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Writer) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError>;
}

impl Desk for Writer {
    fn read<T>(
        &mut self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let reader = self.readers().get()?;
        work(&reader)
    }

    fn write<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Writer) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        work(self)
    }
}

impl Desk for Handle {
    fn read<T>(
        &mut self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let reader = self.readers().get()?;
        work(&reader)
    }

    fn write<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Writer) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.run(work).map_err(|refused| StoreError::Refused(refused.to_string()))?
    }
}

/// What a round did, or would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) what: &'static str,
    pub(crate) table: &'static str,
    /// A day; of tables that are no files, the first day that stays.
    pub(crate) day: Day,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
}

impl From<&Action> for Done {
    fn from(action: &Action) -> Self {
        let &Action { what, table, day, rows, bytes, .. } = action;
        Self { what: what.as_str(), table: table.name, day, rows, bytes }
    }
}

/// What a round would do now.
///
/// # Errors
/// What DuckDB says.
pub(crate) fn preview(
    connection: &Connection,
    rules: &Retention,
    now: Timestamp,
) -> Result<Vec<Done>, StoreError> {
    let today = today(connection, now)?;
    let state = state(connection, now)?;
    let expired = plan::expire(&state, rules, today);
    let evicted = plan::evict(&state, rules, today, &expired);
    let gone = |a: &Action| {
        evicted.iter().any(|e| (e.table, e.day, e.number) == (a.table, a.day, a.number))
    };
    let rolled = plan::roll(&state, rules, &expired, Day::of(now));
    let rolled = rolled.iter().filter(|a| !gone(a));
    let mut done: Vec<Done> =
        expired.iter().chain(rolled).chain(&evicted).map(Done::from).collect();
    done.extend(expire_kept(connection, rules, today, false)?);
    Ok(done)
}

/// Does all that is due.
///
/// # Errors
/// What DuckDB or the disk says; what was done until then stays done.
pub(crate) fn round<D: Desk>(
    desk: &mut D,
    data_dir: &Path,
    rules: &Retention,
    now: Timestamp,
    whole: bool,
) -> Result<Vec<Done>, StoreError> {
    look(desk, data_dir, whole)?;
    let today = desk.read(|c| today(c, now))?;
    let mut done = Vec::new();
    let start = desk.read(|c| state(c, now))?;
    let expired = plan::expire(&start, rules, today);
    let due = plan::roll(&start, rules, &expired, Day::of(now));
    done.extend(delete(desk, data_dir, expired, now)?);
    for action in due.into_iter().take(ROLLS_MAX) {
        done.extend(roll_day(desk, data_dir, &action, now)?);
    }
    let after = desk.read(|c| state(c, now))?;
    done.extend(delete(desk, data_dir, plan::evict(&after, rules, today, &[]), now)?);
    let rules = rules.clone();
    done.extend(desk.write(move |writer| writer.change(|c| expire_kept(c, &rules, today, true)))?);
    let dir = data_dir.to_owned();
    let rolled = done.iter().any(|d| d.table == "flows");
    desk.write(move |writer| {
        if rolled {
            writer.forget_peers()?;
        }
        writer.change(|c| roll::delete_gone(c, &dir, Some(now)))
    })?;
    Ok(done)
}

/// Are the files what they were? The views leave out what is not.
///
/// # Errors
/// What DuckDB says.
pub(crate) fn look<D: Desk>(desk: &mut D, data_dir: &Path, whole: bool) -> Result<(), StoreError> {
    let parts = desk.read(parts)?;
    let found = match whole {
        true => check::changed_bytes(&parts, data_dir),
        false => check::changed(&parts, data_dir),
    };
    if found.is_empty() {
        return Ok(());
    }
    let dir = data_dir.to_owned();
    desk.write(move |writer| {
        writer.change(|c| {
            check::note(c, &found)?;
            super::rebuild(c, &dir)
        })
    })
}

fn state(connection: &Connection, now: Timestamp) -> Result<State, StoreError> {
    let sql = "SELECT (used_blocks * block_size)::UBIGINT FROM pragma_database_size()
         WHERE database_name = current_database()";
    let blocks: u64 = connection.query_row(sql, [], |row| row.get(0))?;
    let log =
        super::home(connection).map(|dir| dir.join(format!("{}.wal", crate::store::FILE_NAME)));
    let log = log.and_then(|path| std::fs::metadata(path).ok()).map_or(0, |about| about.len());
    Ok(State {
        parts: parts(connection)?,
        hot: roll::hot(connection, Day::of(now))?,
        database_bytes: blocks.saturating_add(log),
    })
}

/// The newest day that has anything, and not after the clock's.
fn today(connection: &Connection, now: Timestamp) -> Result<Day, StoreError> {
    let newest: Vec<String> =
        TABLES.iter().map(|t| format!("(SELECT max(epoch_us(time)) FROM {})", t.base)).collect();
    let sql = format!(
        "SELECT greatest({}, (SELECT epoch_us(max(day)::TIMESTAMP) FROM parts WHERE gone IS NULL))",
        newest.join(", ")
    );
    let newest: Option<i64> = connection.query_row(&sql, [], |row| row.get(0))?;
    Ok(newest.map_or(Day::of(now), |us| Day::of(Timestamp::from_micros(us).min(now))))
}

fn roll_day<D: Desk>(
    desk: &mut D,
    data_dir: &Path,
    action: &Action,
    now: Timestamp,
) -> Result<Option<Done>, StoreError> {
    let (table, day) = (action.table, action.day);
    let written = desk.read(|c| roll::write(c, data_dir, table, day, &mut |_| ()))?;
    let Some(written) = written else { return Ok(None) };
    let (dir, listed) = (data_dir.to_owned(), written.clone());
    let committed =
        desk.write(move |writer| writer.change(|c| roll::commit(c, &dir, &listed, now)))?;
    if !committed {
        tracing::info!(table = table.name, %day, "late rows came while a day was rolled; later");
        return Ok(None);
    }
    let part = &written.part;
    tracing::info!(file = %part.file().display(), rows = part.rows, bytes = part.bytes, "a day was rolled");
    Ok(Some(Done { bytes: part.bytes, ..action.into() }))
}

/// Deletes files and hot days in one transaction.
fn delete<D: Desk>(
    desk: &mut D,
    data_dir: &Path,
    actions: Vec<Action>,
    now: Timestamp,
) -> Result<Vec<Done>, StoreError> {
    if actions.is_empty() {
        return Ok(Vec::new());
    }
    let done: Vec<Done> = actions.iter().map(Done::from).collect();
    let dir: PathBuf = data_dir.to_owned();
    desk.write(move |writer| {
        writer.change(|c| -> Result<(), StoreError> {
            for action in &actions {
                match action.number {
                    Some(number) => roll::unlist(c, action.table, action.day, number, now)?,
                    None => roll::forget_hot(c, action.table, action.day)?,
                }
            }
            super::rebuild(c, &dir)
        })?;
        for action in &actions {
            let name = match action.what {
                What::Evict => "store.evicted_rows",
                _ => "store.expired_rows",
            };
            writer.counters().counter(name).add(action.rows);
        }
        Ok(())
    })?;
    for action in &done {
        tracing::info!(what = action.what, table = action.table, day = %action.day, rows = action.rows, "a day was deleted");
    }
    Ok(done)
}

/// Counts, and deletes where told to, what is too old in tables that are no files.
fn expire_kept(
    connection: &Connection,
    rules: &Retention,
    today: Day,
    delete: bool,
) -> Result<Vec<Done>, StoreError> {
    let mut done = Vec::new();
    for Kept { name: table, old, days } in KEPT {
        let days = days(rules);
        if days == 0 {
            continue;
        }
        let day = today.minus(days);
        let old = format!("FROM {table} WHERE {old}");
        let rows: u64 =
            connection.query_row(&format!("SELECT count(*) {old}"), [day.to_string()], |row| {
                row.get(0)
            })?;
        if rows == 0 {
            continue;
        }
        if delete {
            connection.execute(&format!("DELETE {old}"), [day.to_string()])?;
        }
        done.push(Done { what: What::Expire.as_str(), table, day, rows, bytes: 0 });
    }
    Ok(done)
}
