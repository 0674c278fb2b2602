//! Schema versions: numbered SQL files, applied in order, each in one transaction with
//! its own version number.
//!
//! Invariants: a file of a newer program is never altered; a migration that fails leaves
//! the file as it was; versions only grow.

use std::path::Path;

use duckdb::Connection;

use super::StoreError;

/// All migrations; the position is the version, from 1.
const MIGRATIONS: &[&str] = &[
    include_str!("migrations/0001_base.sql"),
    include_str!("migrations/0002_folding.sql"),
    include_str!("migrations/0003_peers.sql"),
    include_str!("migrations/0004_devices.sql"),
    include_str!("migrations/0005_zeek.sql"),
    include_str!("migrations/0006_processes.sql"),
    include_str!("migrations/0007_detect.sql"),
    include_str!("migrations/0008_outbox.sql"),
    include_str!("migrations/0009_days.sql"),
    include_str!("migrations/0010_fusion.sql"),
    include_str!("migrations/0011_llm.sql"),
    include_str!("migrations/0012_story.sql"),
    include_str!("migrations/0013_baseline.sql"),
    include_str!("migrations/0014_learning.sql"),
    include_str!("migrations/0015_indicators.sql"),
    include_str!("migrations/0016_programs.sql"),
    include_str!("migrations/0017_import_spans.sql"),
];

/// Newest version this program knows.
#[must_use]
pub fn known_version() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

/// The file's version; 0 for a file without tables.
///
/// # Errors
/// What DuckDB says; [`StoreError::Unusable`] for a DuckDB file of somebody else.
pub fn version(connection: &Connection, path: &Path) -> Result<i64, StoreError> {
    let tables = |condition: &str| -> Result<i64, StoreError> {
        let sql = format!("SELECT count(*) FROM duckdb_tables() WHERE NOT internal {condition}");
        Ok(connection.query_row(&sql, [], |row| row.get(0))?)
    };
    if tables("AND table_name = 'schema_version'")? == 1 {
        let sql = "SELECT coalesce(max(version), 0) FROM schema_version";
        return Ok(connection.query_row(sql, [], |row| row.get(0))?);
    }
    if tables("")? > 0 {
        return Err(StoreError::Unusable {
            path: path.to_owned(),
            reason: "a DuckDB file, but not one of agentmon's; use another data directory".into(),
        });
    }
    Ok(0)
}

/// Refuses a file of a newer program.
///
/// # Errors
/// [`StoreError::Newer`].
pub fn refuse_newer(connection: &Connection, path: &Path) -> Result<i64, StoreError> {
    let (found, known) = (version(connection, path)?, known_version());
    if found > known {
        return Err(StoreError::Newer { path: path.to_owned(), found, known });
    }
    Ok(found)
}

/// For readers, which cannot migrate: the version must be this program's.
///
/// # Errors
/// [`StoreError::Newer`], or [`StoreError::Unusable`] for an older one.
pub fn check_current(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let found = refuse_newer(connection, path)?;
    if found < known_version() {
        return Err(StoreError::Unusable {
            path: path.to_owned(),
            reason: format!(
                "schema version {found} is older than {}; start the hub once to bring it up to date",
                known_version()
            ),
        });
    }
    Ok(())
}

/// Applies what is missing.
///
/// # Errors
/// [`StoreError::Newer`], or what DuckDB says about a migration, which is then undone.
pub fn run(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    apply(connection, path, MIGRATIONS)
}

fn apply(connection: &mut Connection, path: &Path, all: &[&str]) -> Result<(), StoreError> {
    let found = refuse_newer(connection, path)?;
    for (version, sql) in (1i64..).zip(all) {
        if version <= found {
            continue;
        }
        // Dropping an uncommitted transaction rolls it back.
        let transaction = connection.transaction()?;
        transaction.execute_batch(
            "CREATE TABLE IF NOT EXISTS schema_version (
                 version BIGINT NOT NULL, applied TIMESTAMP NOT NULL)",
        )?;
        transaction.execute_batch(sql).map_err(|e| StoreError::Unusable {
            path: path.to_owned(),
            reason: format!("migration to schema version {version} failed and was undone: {e}"),
        })?;
        // `now()` is TIMESTAMPTZ; the cast through epoch avoids the session's time zone.
        transaction.execute(
            "INSERT INTO schema_version VALUES (?, make_timestamp(epoch_us(now())))",
            [version],
        )?;
        transaction.commit()?;
        tracing::info!(version, path = %path.display(), "store schema brought up to date");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Limits, open_read, open_write};

    fn tables(connection: &Connection) -> i64 {
        let sql = "SELECT count(*) FROM duckdb_tables() WHERE NOT internal";
        connection.query_row(sql, [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn a_fresh_file_gets_the_schema_and_opens_again() {
        let dir = tempfile::tempdir().unwrap();
        let connection = open_write(dir.path(), &Limits::default()).unwrap();
        let (count, path) = (tables(&connection), dir.path().join("hub.duckdb"));
        assert_eq!(version(&connection, &path).unwrap(), known_version());
        drop(connection);
        let again = open_write(dir.path(), &Limits::default()).unwrap();
        assert_eq!(tables(&again), count);
        drop(again);
        assert_eq!(tables(&open_read(dir.path(), &Limits::default()).unwrap()), count);
    }

    #[test]
    fn a_file_of_any_earlier_version_is_brought_up_to_date() {
        for old in 1..MIGRATIONS.len() {
            let mut connection = Connection::open_in_memory().unwrap();
            let path = Path::new("memory");
            apply(&mut connection, path, &MIGRATIONS[..old]).unwrap();
            let alert = "INSERT INTO alerts (id, dedup_key, rule, subject, first_seen, last_seen,
                 findings, score, severity, why, status) SELECT 1, 'k', 'dga', 's', now(), now(),
                 1, 0.5, 'medium', 'w', 'open'";
            connection.execute_batch(alert).unwrap();
            run(&mut connection, path).unwrap();
            assert_eq!(version(&connection, path).unwrap(), known_version());
            let kept = "SELECT concat_ws(' ', id, status, folded_into) FROM alerts";
            let kept: String = connection.query_row(kept, [], |row| row.get(0)).unwrap();
            assert_eq!(kept, "1 open");
        }
    }

    #[test]
    fn flows_stored_before_they_said_peers_by_number_read_the_same() {
        let mut connection = Connection::open_in_memory().unwrap();
        let path = Path::new("memory");
        apply(&mut connection, path, &MIGRATIONS[..2]).unwrap();
        // Two to the same place, one by another name, one by none; every column that a
        // view changes is filled once.
        let rows = "INSERT INTO flows_done (time, sensor, proto, src, sport, dst, dport, nat_src,
                start, bytes_in, replied, offloaded, name, name_age_ms)
            SELECT '2026-11-23 14:00:00'::TIMESTAMP + to_seconds(n), 1, 6, '192.0.2.1', 40000 + n,
                '203.0.113.' || (n // 4), 443, CASE WHEN n = 1 THEN '198.51.100.1' END,
                '2026-11-23 13:59:58.123', n, true, false,
                [NULL, 'a.example', 'a.example', 'b.example'][1 + n % 4], n
            FROM range(8) r(n)";
        connection.execute_batch(rows).unwrap();
        connection.execute_batch("CREATE TEMP TABLE was AS FROM flows").unwrap();
        run(&mut connection, path).unwrap();
        let one = |sql: &str| -> i64 { connection.query_row(sql, [], |row| row.get(0)).unwrap() };
        assert_eq!(one("SELECT count(*) FROM (FROM was EXCEPT FROM flows)"), 0);
        assert_eq!((one("SELECT count(*) FROM flows"), one("SELECT count(*) FROM peers")), (8, 6));
        let columns = "SELECT string_agg(column_name, ' ' ORDER BY column_index) FROM \
             duckdb_columns() WHERE table_name =";
        let of = |table: &str| -> String {
            let sql = format!("{columns} '{table}'");
            connection.query_row(&sql, [], |row| row.get(0)).unwrap()
        };
        assert_eq!(of("flows"), of("was"), "statements that name no columns go on working");
    }

    #[test]
    fn a_newer_file_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let connection = open_write(dir.path(), &Limits::default()).unwrap();
        connection
            .execute_batch("INSERT INTO schema_version VALUES (999, '2026-01-01'); CHECKPOINT")
            .unwrap();
        drop(connection);
        let path = dir.path().join("hub.duckdb");
        let before = std::fs::read(&path).unwrap();
        for error in [
            open_write(dir.path(), &Limits::default()).unwrap_err(),
            open_read(dir.path(), &Limits::default()).unwrap_err(),
        ] {
            let text = error.to_string();
            assert!(matches!(error, StoreError::Newer { found: 999, .. }), "{text}");
            assert!(text.contains("999") && text.contains(&known_version().to_string()));
        }
        assert!(std::fs::read(&path).unwrap() == before, "the newer file was changed");
    }

    #[test]
    fn a_failing_migration_changes_nothing() {
        let mut connection = Connection::open_in_memory().unwrap();
        let bad = ["CREATE TABLE one (a INTEGER)", "CREATE TABLE two (a INTEGER); SELECT nonsense"];
        let path = Path::new("memory");
        let error = apply(&mut connection, path, &bad).unwrap_err().to_string();
        assert!(error.contains("version 2"), "{error}");
        assert_eq!(version(&connection, path).unwrap(), 1);
        assert_eq!(tables(&connection), 2, "schema_version and one, not two");
    }

    #[test]
    fn somebody_elses_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let other = Connection::open(dir.path().join("hub.duckdb")).unwrap();
        other.execute_batch("CREATE TABLE theirs (a INTEGER)").unwrap();
        drop(other);
        let error = open_write(dir.path(), &Limits::default()).unwrap_err();
        assert!(matches!(error, StoreError::Unusable { .. }), "{error}");
    }
}
