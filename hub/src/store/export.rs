//! The rows of a statement as a file: CSV, JSON lines or Parquet.
//!
//! In: one reading statement of a person, held to the rules of [`sandbox`]. Out: a file in the
//! folder of the older days, which is the only one this database may write to; the command
//! line takes it from there. Runs on the caller's thread over a reader's connection, bounded
//! by time like any query. The file is its owner's alone.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use duckdb::Connection;
use serde::{Deserialize, Serialize};

use super::{StoreError, days, query, sandbox};

/// Folder of unfinished exports inside [`days::DIR`]; emptied when the store is opened.
pub(crate) const DIR: &str = ".export";

/// Tells one export of this process from another.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// What the file is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// RFC 4180, with a header line
    Csv,
    /// One JSON object per line
    Json,
    /// Apache Parquet, compressed with zstd
    Parquet,
}

impl Format {
    const fn options(self) -> &'static str {
        match self {
            Self::Csv => "FORMAT csv, HEADER true",
            Self::Json => "FORMAT json, ARRAY false",
            Self::Parquet => "FORMAT parquet, COMPRESSION zstd",
        }
    }
}

/// A file of rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// Where it is; whoever asked takes it away.
    pub path: PathBuf,
    /// Rows in it.
    pub rows: u64,
    /// What it lacks: a sentence for each file of older days that is broken.
    pub warnings: Vec<String>,
}

/// Writes the statement's rows into a file.
///
/// # Errors
/// A statement that is refused or fails, or takes too long; a full disk.
pub fn run(
    connection: &Connection,
    sql: &str,
    format: Format,
    timeout_ms: u64,
) -> Result<Exported, StoreError> {
    sandbox::check(connection, sql)?;
    let home = days::home(connection)
        .ok_or_else(|| StoreError::Refused("a store in memory has no folder".into()))?;
    let folder = home.join(days::DIR).join(DIR);
    super::make_private_dir(&folder)?;
    let (process, nth) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let path = folder.join(format!("{process}-{nth}.tmp"));
    let io = |source| StoreError::Io { path: path.clone(), source };
    let mut options = File::options();
    options.create_new(true).write(true).mode(0o600).open(&path).map_err(io)?;
    let text = path.to_str().ok_or_else(|| StoreError::Refused("the path is not UTF-8".into()))?;
    // On a line of its own, so that a comment at the statement's end ends there.
    let copy = format!(
        "COPY (\n{}\n) TO {} ({}, USE_TMP_FILE false)",
        sql.trim().trim_end_matches(';'),
        days::quoted(text),
        format.options()
    );
    let outcome = query::limited(connection, timeout_ms, || {
        let warnings = days::shield(connection)?;
        Ok((connection.execute(&copy, [])?, warnings))
    });
    match outcome {
        Ok((rows, warnings)) => {
            Ok(Exported { rows: u64::try_from(rows).unwrap_or(u64::MAX), path, warnings })
        }
        Err(error) => {
            drop(std::fs::remove_file(&path));
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::store::{Limits, open_read, open_write};

    fn export(connection: &Connection, sql: &str, format: Format) -> Result<String, StoreError> {
        let exported = run(connection, sql, format, 60_000)?;
        let mode = std::fs::metadata(&exported.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let bytes = std::fs::read(&exported.path).unwrap();
        std::fs::remove_file(&exported.path).unwrap();
        Ok(format!("{} {}", exported.rows, String::from_utf8_lossy(&bytes)))
    }

    #[test]
    fn rows_as_each_kind_of_file() {
        let dir = tempfile::tempdir().unwrap();
        let writer = open_write(dir.path(), &Limits::default()).unwrap();
        writer
            .execute_batch(
                "INSERT INTO gaps VALUES ('2026-11-01 00:00:00.5', 1, 'a \"b\", c', '2026-11-01', 'x', NULL)",
            )
            .unwrap();
        let sql = "SELECT time, collector, lost FROM gaps -- all of them";
        let csv = "1 time,collector,lost\n2026-11-01 00:00:00.5,\"a \"\"b\"\", c\",\n";
        assert_eq!(export(&writer, sql, Format::Csv).unwrap(), csv);
        let json = "1 {\"time\":\"2026-11-01 00:00:00.5\",\"collector\":\"a \\\"b\\\", c\",\"lost\":null}\n";
        assert_eq!(
            export(&writer, "FROM gaps SELECT time, collector, lost;", Format::Json).unwrap(),
            json
        );
        assert!(export(&writer, sql, Format::Parquet).unwrap().starts_with("1 PAR1"));
        drop(writer);
        let reader = open_read(dir.path(), &Limits::default()).unwrap();
        assert_eq!(export(&reader, sql, Format::Csv).unwrap(), csv, "and while nothing may write");
    }

    #[test]
    fn nothing_but_reading_and_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let writer = open_write(dir.path(), &Limits::default()).unwrap();
        for sql in [
            "SELECT 1) TO '/tmp/elsewhere' (FORMAT csv); COPY (SELECT 1",
            "DELETE FROM gaps",
            "SELECT * FROM read_text('/etc/passwd')",
            "SELECT nonsense FROM gaps",
            "",
        ] {
            assert!(run(&writer, sql, Format::Csv, 60_000).is_err(), "{sql}");
        }
        let left = std::fs::read_dir(dir.path().join("days/.export")).unwrap().count();
        assert_eq!(left, 0, "what failed leaves nothing");
        let long =
            "SELECT count(*) FROM range(100000000) a, range(100000) b WHERE a.range % 7 = b.range";
        let error = run(&writer, long, Format::Csv, 50).unwrap_err();
        assert!(matches!(error, StoreError::TimedOut(50)), "{error}");
    }
}
