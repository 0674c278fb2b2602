//! A day of a table becomes a file.
//!
//! [`write`] on any connection, so that batches are stored meanwhile; [`commit`] in one
//! transaction of the writer. Between the two the day may get late rows: then the file is not
//! what the day was, nothing is committed, and the next round tries again.
//!
//! Killed at any point: before the transaction the rows are hot and the file is not listed
//! (the next round writes it anew, under the same name); after it the file is listed and the
//! rows are gone. Times: about 2 s for a million flows, memory as DuckDB's limit says (the
//! sort spills).

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use agentmon_core::Timestamp;
use duckdb::{Connection, params};

use super::{
    DIR, Day, GONE_SECONDS, PARTS_MAX, Part, Rolled, StoreError, TABLES, check, file, folder,
    parts, quoted, views,
};

/// A day with hot rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hot {
    pub(crate) table: &'static Rolled,
    pub(crate) day: Day,
    pub(crate) rows: u64,
}

/// The days before `end` that have hot rows, oldest first. What is dated before 1970 stays
/// hot: no folder is named after it.
///
/// # Errors
/// What DuckDB says.
pub(crate) fn hot(connection: &Connection, end: Day) -> Result<Vec<Hot>, StoreError> {
    let mut all = Vec::new();
    for table in TABLES {
        let sql = format!(
            "SELECT time::DATE - DATE '1970-01-01', count(*) FROM {} \
             WHERE time < ?::TIMESTAMP AND time >= TIMESTAMP '1970-01-01' GROUP BY 1",
            table.base
        );
        let mut statement = connection.prepare(&sql)?;
        let mut rows = statement.query([end.to_string()])?;
        while let Some(row) = rows.next()? {
            let day = Day(i32::try_from(row.get::<_, i64>(0)?).unwrap_or(i32::MAX));
            all.push(Hot { table, day, rows: row.get(1)? });
        }
    }
    all.sort_by_key(|hot| (hot.day, hot.table.name));
    Ok(all)
}

/// What a day's hot rows were when they were read: their number, and a sum of what may
/// change in them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fingerprint(u64, Option<String>);

fn fingerprint(
    connection: &Connection,
    table: &Rolled,
    day: Day,
) -> Result<Fingerprint, StoreError> {
    let sql = format!(
        "SELECT count(*), CAST({} AS VARCHAR) FROM {} WHERE {}",
        table.changing,
        table.base,
        within(day)
    );
    Ok(connection.query_row(&sql, [], |row| Ok(Fingerprint(row.get(0)?, row.get(1)?)))?)
}

fn within(day: Day) -> String {
    let next = Day(day.0.saturating_add(1));
    format!("time >= TIMESTAMP '{day}' AND time < TIMESTAMP '{next}'")
}

/// A file that is whole on the disk, and not yet listed.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) part: Part,
    was: Fingerprint,
    /// Numbers of the files it holds too.
    merged: Vec<u32>,
}

/// Where a roll-over is; for tests that end it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The file is made and empty.
    Made,
    /// DuckDB has written it.
    Copied,
    /// It has its name.
    Named,
    #[cfg(test)]
    /// The transaction has done everything but commit.
    Staged,
    #[cfg(test)]
    /// It is committed.
    Committed,
}

/// Writes the hot rows of a day into a file; `None` where there are none.
///
/// # Errors
/// What DuckDB or the disk says; the file is taken away again.
pub(crate) fn write(
    connection: &Connection,
    data_dir: &Path,
    table: &'static Rolled,
    day: Day,
    at: &mut dyn FnMut(Step),
) -> Result<Option<Written>, StoreError> {
    make_folders(data_dir, table, day)?;
    // One snapshot for the fingerprint, the list and the rows; nothing is changed in it.
    connection.execute_batch("BEGIN")?;
    let written = write_within(connection, data_dir, table, day, at);
    connection.execute_batch("ROLLBACK")?;
    written
}

fn write_within(
    connection: &Connection,
    data_dir: &Path,
    table: &'static Rolled,
    day: Day,
    at: &mut dyn FnMut(Step),
) -> Result<Option<Written>, StoreError> {
    let was = fingerprint(connection, table, day)?;
    if was.0 == 0 {
        return Ok(None);
    }
    let mut listed = parts(connection)?;
    listed.retain(|p| p.table == table && p.day == day && p.broken.is_none());
    if listed.len() < PARTS_MAX {
        listed.clear();
    }
    let sql = "SELECT coalesce(max(number), 0) + 1, (SELECT max(version) FROM schema_version)
         FROM parts WHERE tab = ? AND day = ?::DATE";
    let (number, schema): (u32, i64) =
        connection.query_row(sql, params![table.name, day.to_string()], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    let path = data_dir.join(file(table, day, number));
    let rows = was.0 + listed.iter().map(|p| p.rows).sum::<u64>();
    let query = select(table, day, &listed, data_dir)?;
    let on_disk = copy(connection, &query, rows, &path, at)?;
    let part = Part {
        table,
        day,
        number,
        rows,
        bytes: on_disk.bytes,
        hash: on_disk.hash,
        modified: on_disk.modified,
        schema,
        broken: None,
    };
    Ok(Some(Written { part, was, merged: listed.iter().map(|p| p.number).collect() }))
}

/// The day's hot rows, and those of files that the new one is to stand for.
fn select(
    table: &Rolled,
    day: Day,
    merged: &[Part],
    data_dir: &Path,
) -> Result<String, StoreError> {
    let (hot, rows) = (table.hot, table.rows);
    let mut sql = format!("SELECT * FROM ({hot} WHERE {rows} AND {})", within(day));
    for part in merged {
        let path = data_dir.join(part.file());
        let file = views::read(&[quoted(views::text(&path)?)]);
        sql.push_str(&format!(" UNION ALL BY NAME FROM {file}"));
    }
    Ok(format!("SELECT * FROM ({sql}) ORDER BY {}", table.order))
}

struct OnDisk {
    bytes: u64,
    hash: u64,
    modified: i64,
}

/// Runs the query into a file that has its name only when all of it is on the disk.
fn copy(
    connection: &Connection,
    query: &str,
    rows: u64,
    path: &Path,
    at: &mut dyn FnMut(Step),
) -> Result<OnDisk, StoreError> {
    let unfinished = path.with_extension("parquet.tmp");
    let io = |source| StoreError::Io { path: path.to_owned(), source };
    let result = (|| {
        // Made here, so that it is its owner's alone from the first byte.
        let mut options = File::options();
        options.create(true).write(true).truncate(true).mode(0o600);
        options.open(&unfinished).map_err(io)?;
        at(Step::Made);
        let to = quoted(views::text(&unfinished)?);
        let copied = connection.execute(
            &format!(
                "COPY ({query}) TO {to} \
                 (FORMAT parquet, COMPRESSION zstd, PARQUET_VERSION v2, USE_TMP_FILE false)"
            ),
            [],
        )?;
        if u64::try_from(copied).ok() != Some(rows) {
            return Err(StoreError::Db(format!(
                "{}: {copied} rows written, {rows} expected",
                path.display()
            )));
        }
        at(Step::Copied);
        File::open(&unfinished).and_then(|file| file.sync_all()).map_err(io)?;
        let hash = check::hash(&unfinished).map_err(io)?;
        std::fs::rename(&unfinished, path).map_err(io)?;
        sync_folders(path).map_err(io)?;
        at(Step::Named);
        let about = std::fs::metadata(path).map_err(io)?;
        Ok(OnDisk { bytes: about.len(), hash, modified: check::modified(&about) })
    })();
    if result.is_err() {
        drop(std::fs::remove_file(&unfinished));
    }
    result
}

/// A new name is only there after a crash when its folder has been written, and so on up.
fn sync_folders(path: &Path) -> std::io::Result<()> {
    path.ancestors().skip(1).take(4).try_for_each(|folder| File::open(folder)?.sync_all())
}

fn make_folders(data_dir: &Path, table: &Rolled, day: Day) -> Result<(), StoreError> {
    let path = data_dir.join(folder(table, day));
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(&path).map_err(|source| StoreError::Io { path, source })
}

/// Lists the file and deletes the rows it holds; false, and nothing done, where the day has
/// changed since. The caller has begun the writer's transaction and commits it.
///
/// # Errors
/// What DuckDB says.
pub(crate) fn commit(
    connection: &Connection,
    data_dir: &Path,
    written: &Written,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let Part { table, day, .. } = written.part;
    if fingerprint(connection, table, day)? != written.was {
        return Ok(false);
    }
    list(connection, &written.part)?;
    let sql = format!("DELETE FROM {} WHERE {}", table.base, within(day));
    connection.execute(&sql, [])?;
    for number in &written.merged {
        unlist(connection, table, day, *number, now)?;
    }
    views::rebuild(connection, data_dir)?;
    Ok(true)
}

/// Lists a file.
///
/// # Errors
/// What DuckDB says.
pub(crate) fn list(connection: &Connection, part: &Part) -> Result<(), StoreError> {
    connection.execute(
        "INSERT INTO parts (tab, day, number, rows, bytes, hash, modified, schema)
         VALUES (?, ?::DATE, ?, ?, ?, ?, ?, ?)",
        params![
            part.table.name,
            part.day.to_string(),
            part.number,
            part.rows,
            part.bytes,
            part.hash,
            part.modified,
            part.schema
        ],
    )?;
    Ok(())
}

/// Lists a file no more; it is deleted later, see [`delete_gone`].
///
/// # Errors
/// What DuckDB says.
pub(crate) fn unlist(
    connection: &Connection,
    table: &Rolled,
    day: Day,
    number: u32,
    now: Timestamp,
) -> Result<(), StoreError> {
    let sql = "UPDATE parts SET gone = make_timestamp(?)
         WHERE tab = ? AND day = ?::DATE AND number = ?";
    connection.execute(sql, params![now.micros(), table.name, day.to_string(), number])?;
    Ok(())
}

/// Deletes files that have not been listed for longer than a query may take, or, while
/// nothing else has the store open, all of them.
///
/// # Errors
/// What DuckDB says; a file that cannot be deleted is tried again.
pub(crate) fn delete_gone(
    connection: &Connection,
    data_dir: &Path,
    now: Option<Timestamp>,
) -> Result<(), StoreError> {
    let end = now.map_or(i64::MAX / 2, |t| t.micros().saturating_sub(GONE_SECONDS * 1_000_000));
    let sql = "SELECT tab, day - DATE '1970-01-01', number FROM parts
         WHERE gone IS NOT NULL AND epoch_us(gone) < ?";
    let mut statement = connection.prepare(sql)?;
    let gone = statement.query_map([end], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let gone = gone.collect::<Result<Vec<(String, i64, u32)>, _>>()?;
    for (name, day, number) in gone {
        let table = TABLES.iter().find(|t| t.name == name);
        let (Some(table), Ok(day)) = (table, i32::try_from(day)) else { continue };
        let path = data_dir.join(file(table, Day(day), number));
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(file = %path.display(), %error, "cannot be deleted; trying again");
                continue;
            }
            _ => {}
        }
        // Only when it is empty, which is when it should go.
        drop(path.parent().map(std::fs::remove_dir));
        let sql = "DELETE FROM parts WHERE tab = ? AND day = ?::DATE AND number = ?";
        connection.execute(sql, params![name, Day(day).to_string(), number])?;
    }
    Ok(())
}

/// What a killed program has left: files that were not finished, exports that nobody took,
/// and files no longer listed.
/// A finished file that was never listed stays until the day is rolled anew, under its name:
/// should the list be an older one, put back, then it is not this program that deletes.
///
/// # Errors
/// What DuckDB says.
pub(super) fn clear_away(connection: &Connection, data_dir: &Path) -> Result<(), StoreError> {
    delete_gone(connection, data_dir, None)?;
    for file in entries(&data_dir.join(DIR).join(crate::store::export::DIR)) {
        drop(std::fs::remove_file(&file));
    }
    for table in TABLES {
        let days = entries(&data_dir.join(DIR).join(table.name));
        for file in days.iter().flat_map(|day| entries(day)) {
            let name = file.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            if name.starts_with("part-") && name.ends_with(".parquet.tmp") {
                drop(std::fs::remove_file(&file));
            }
        }
    }
    Ok(())
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let read = std::fs::read_dir(folder).into_iter().flatten();
    read.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

/// Deletes the hot rows of a day.
///
/// # Errors
/// What DuckDB says.
pub(crate) fn forget_hot(
    connection: &Connection,
    table: &Rolled,
    day: Day,
) -> Result<(), StoreError> {
    connection.execute(&format!("DELETE FROM {} WHERE {}", table.base, within(day)), [])?;
    Ok(())
}
