//! Older days as Parquet files, and one view over them and what is hot.
//!
//! The newest days of a table are hot: rows of `hub.duckdb`, where they are written. A day
//! that is over for a while becomes a file, sorted by device and compressed with zstd:
//!
//! ```text
//! DATA/days/flows/day=2026-11-01/part-000001.parquet
//! ```
//!
//! Readers see neither: the views `dns`, `flows` and `firewall` are the rows of both. Any
//! engine that reads Parquet reads the folder too, and to delete a day is to delete a folder.
//!
//! Table `parts` lists the files that count. Invariants:
//! - a row is hot or in exactly one listed file: the file is whole on the disk (synced,
//!   renamed) before one transaction lists it, deletes its rows and makes the views anew;
//! - the views name each file, so a reader's snapshot has the files that go with its rows;
//! - a file that is missing or is not what was written is left out of the views and named
//!   ([`check`]); everything else is answered;
//! - a file no row lists any more is deleted after [`GONE_SECONDS`], longer than any query
//!   that may still read it; one that was never listed goes when the store is opened.
//!
//! Days are UTC days of a row's `time`. Rows that come late for a rolled day are hot like any
//! other, and become a further file of that day; [`PARTS_MAX`] of them are made one.

pub(crate) mod check;
#[cfg(test)]
mod crash_tests;
pub(crate) mod keep;
pub mod plan;
pub(crate) mod roll;
#[cfg(test)]
mod tests;
mod views;

use std::path::{Path, PathBuf};

use duckdb::Connection;

use super::StoreError;

pub(crate) use views::{rebuild, shield};

/// The folder of the files inside the data directory.
pub const DIR: &str = "days";
/// Files of one day and table before they are made one.
pub(crate) const PARTS_MAX: usize = 8;
/// A file that is no longer listed stays this long, for queries that began before: they
/// take at most [`super::query::QUERY_TIMEOUT_MS_MAX`].
const GONE_SECONDS: i64 = 1_200;

/// A table whose older days become files.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rolled {
    /// The name readers use; also the folder's.
    pub(crate) name: &'static str,
    /// What its files are made of, by the columns readers see.
    pub(crate) hot: &'static str,
    /// Which of those rows; all but open flows.
    pub(crate) rows: &'static str,
    /// The table they are deleted from.
    pub(crate) base: &'static str,
    /// Sums up what is updated in place, so that a change is noticed.
    pub(crate) changing: &'static str,
    /// Order of rows within a file: what belongs to one device lies together, which compresses
    /// and lets a question about it skip the rest.
    pub(crate) order: &'static str,
    /// Columns that rows in files have by being there.
    pub(crate) constant: &'static str,
}

/// All of them.
pub(crate) const TABLES: &[Rolled] = &[
    Rolled {
        name: "dns",
        hot: "SELECT * FROM dns_hot",
        rows: "true",
        base: "dns_hot",
        changing: "0",
        order: "client, time",
        constant: "",
    },
    Rolled {
        name: "flows",
        hot: "SELECT * EXCLUDE (open) FROM flows_hot",
        rows: "NOT open",
        base: "flows_done",
        // A name that comes late.
        changing: "sum(hash(peer, name_age_ms)::HUGEINT)",
        order: "src, time",
        constant: ", false AS open",
    },
    Rolled {
        name: "firewall",
        hot: "SELECT * FROM firewall_hot",
        rows: "true",
        base: "firewall_hot",
        changing: "0",
        order: "src, time",
        constant: "",
    },
];

/// 9999-12-30: what has a date of four digits, and a next day.
const LAST_DAY: i32 = 2_932_895;

/// A UTC day, counted from 1970-01-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Day(pub(crate) i32);

impl Day {
    /// The day of a time; the last one for all that is beyond.
    pub(crate) fn of(time: agentmon_core::Timestamp) -> Self {
        let day = time.micros().div_euclid(86_400_000_000);
        Self(i32::try_from(day).unwrap_or(LAST_DAY).min(LAST_DAY))
    }

    /// So many days before.
    pub(crate) const fn minus(self, days: u32) -> Self {
        Self(self.0.saturating_sub_unsigned(days))
    }
}

/// `2026-11-01`.
impl std::fmt::Display for Day {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use jiff::ToSpan as _;
        match jiff::civil::date(1970, 1, 1).checked_add(self.0.days()) {
            Ok(date) => write!(f, "{date}"),
            Err(_) => write!(f, "day {}", self.0),
        }
    }
}

/// One file, as `parts` lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) table: &'static Rolled,
    pub(crate) day: Day,
    pub(crate) number: u32,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    /// xxh3-64 of the whole file.
    pub(crate) hash: u64,
    /// When the file was last written to, in nanoseconds; as long as it and the size stay,
    /// the content is taken to have stayed.
    pub(crate) modified: i64,
    /// Of the columns in it.
    pub(crate) schema: i64,
    /// What is wrong with it.
    pub(crate) broken: Option<String>,
}

impl Part {
    /// Its file, below the data directory.
    pub(crate) fn file(&self) -> PathBuf {
        file(self.table, self.day, self.number)
    }
}

pub(crate) fn file(table: &Rolled, day: Day, number: u32) -> PathBuf {
    folder(table, day).join(format!("part-{number:06}.parquet"))
}

fn folder(table: &Rolled, day: Day) -> PathBuf {
    Path::new(DIR).join(table.name).join(format!("day={day}"))
}

/// The listed files, oldest day first. One of a table this program does not know, as a newer
/// one's, is left alone.
///
/// # Errors
/// What DuckDB says.
pub(crate) fn parts(connection: &Connection) -> Result<Vec<Part>, StoreError> {
    let sql = "SELECT tab, day - DATE '1970-01-01', number, rows, bytes, hash, modified, schema,
             broken
         FROM parts WHERE gone IS NULL ORDER BY day, tab, number";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut parts = Vec::new();
    while let Some(row) = rows.next()? {
        let name: String = row.get(0)?;
        let Some(table) = TABLES.iter().find(|t| t.name == name) else { continue };
        parts.push(Part {
            table,
            day: Day(i32::try_from(row.get::<_, i64>(1)?).unwrap_or(i32::MAX)),
            number: row.get(2)?,
            rows: row.get(3)?,
            bytes: row.get(4)?,
            hash: row.get(5)?,
            modified: row.get(6)?,
            schema: row.get(7)?,
            broken: row.get(8)?,
        });
    }
    Ok(parts)
}

/// The data directory of an opened store; `None` in memory.
pub(crate) fn home(connection: &Connection) -> Option<PathBuf> {
    connection.path()?.parent().map(Path::to_owned)
}

/// A text in SQL.
pub(crate) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// What a store opened for writing does first: nothing else has the files now.
///
/// # Errors
/// What DuckDB or the disk says.
pub(crate) fn settle(connection: &Connection, data_dir: &Path) -> Result<(), StoreError> {
    roll::clear_away(connection, data_dir)?;
    let found = check::changed(&parts(connection)?, data_dir);
    connection.execute_batch("BEGIN")?;
    let written = check::note(connection, &found).and_then(|()| rebuild(connection, data_dir));
    let end = if written.is_ok() { "COMMIT" } else { "ROLLBACK" };
    connection.execute_batch(end)?;
    written
}
