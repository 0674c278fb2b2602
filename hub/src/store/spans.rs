//! Which times of a log have been imported.
//!
//! In: the log's epoch, a span, the epoch of its stream. Out: rows of `import_spans`, in the
//! caller's transaction; beside them `ingest_cursor` says how far each stream is stored.

use duckdb::{Connection, params};

use super::StoreError;

/// Most spans of one log: each is weighed for each event of it.
const SPANS_MAX: i64 = 1_024;

/// Notes a span; the same again changes nothing. Returns how many rows that made.
///
/// # Errors
/// Too many spans of that log; what DuckDB says.
pub(crate) fn note(
    connection: &Connection,
    sensor: i32,
    (log, epoch): (u64, u64),
    (since_us, until_us): (Option<i64>, Option<i64>),
) -> Result<u64, StoreError> {
    let count = |sql: &str, n: u64| -> Result<i64, StoreError> {
        Ok(connection.query_row(sql, params![sensor, n], |row| row.get(0))?)
    };
    if count("SELECT count(*) FROM import_spans WHERE sensor = ? AND epoch = ?", epoch)? > 0 {
        return Ok(0);
    }
    if count("SELECT count(*) FROM import_spans WHERE sensor = ? AND log = ?", log)? >= SPANS_MAX {
        let why = format!(
            "{SPANS_MAX} different spans of that log were imported already; import the whole of it"
        );
        return Err(StoreError::Refused(why));
    }
    let sql = "INSERT INTO import_spans (sensor, log, epoch, since_us, until_us)
         VALUES (?, ?, ?, ?, ?)";
    connection.execute(sql, params![sensor, log, epoch, since_us, until_us])?;
    Ok(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Limits, open_write};

    #[test]
    fn each_once_and_not_too_many() {
        let dir = tempfile::tempdir().unwrap();
        let connection = open_write(dir.path(), &Limits::default()).unwrap();
        assert_eq!(note(&connection, 1, (7, 8), (Some(1), None)).unwrap(), 1);
        assert_eq!(note(&connection, 1, (7, 8), (Some(1), None)).unwrap(), 0);
        assert_eq!(note(&connection, 2, (7, 8), (Some(1), None)).unwrap(), 1);
        connection
            .execute_batch(
                "INSERT INTO import_spans SELECT 1, 7, 100 + n, n, NULL FROM range(1023) r(n)",
            )
            .unwrap();
        let error = note(&connection, 1, (7, 9), (None, Some(1))).unwrap_err();
        assert!(error.to_string().contains("1024 different spans"), "{error}");
        assert_eq!(note(&connection, 1, (70, 9), (None, Some(1))).unwrap(), 1);
    }
}
