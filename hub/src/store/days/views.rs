//! The views readers use: hot rows and the rows of each listed file.
//!
//! [`rebuild`] writes them into the store, in the transaction that changes the list.
//! [`shield`] puts others before them for one transaction of a reader, where a file has
//! broken since, or the folder has been moved while no hub was there to notice.

use std::collections::BTreeMap;
use std::path::Path;

use duckdb::Connection;

use super::{Part, Rolled, StoreError, TABLES, check, home, parts, quoted};

/// Makes all views anew; the caller has begun a transaction.
///
/// # Errors
/// What DuckDB says.
pub(crate) fn rebuild(connection: &Connection, data_dir: &Path) -> Result<(), StoreError> {
    let parts = parts(connection)?;
    for table in TABLES {
        let body = body(table, &parts, data_dir)?;
        connection.execute_batch(&format!("CREATE OR REPLACE VIEW {} AS {body}", table.name))?;
    }
    let sql = "DELETE FROM hub_facts WHERE name = 'days'";
    connection.execute(sql, [])?;
    let sql = "INSERT INTO hub_facts (name, value) VALUES ('days', ?)";
    connection.execute(sql, [text(data_dir)?])?;
    Ok(())
}

/// Within a reader's transaction: leaves out files that have broken, and finds those of a
/// folder that was moved. Returns a sentence for each file that is left out, which are rows
/// an answer lacks. Costs a look at each file's size and time.
///
/// # Errors
/// What DuckDB says.
pub(crate) fn shield(connection: &Connection) -> Result<Vec<String>, StoreError> {
    let Some(data_dir) = home(connection) else { return Ok(Vec::new()) };
    let parts = parts(connection)?;
    if parts.is_empty() {
        return Ok(Vec::new());
    }
    let found = check::changed(&parts, &data_dir);
    let state = |part: &Part| {
        let found = found.iter().find(|f| f.part == *part);
        found.map_or_else(|| part.broken.clone(), |f| f.broken.clone())
    };
    let here: Option<String> = connection.query_row(
        "SELECT max(value) FROM hub_facts WHERE name = 'days'",
        [],
        |row| row.get(0),
    )?;
    let moved = here.as_deref() != Some(text(&data_dir)?);
    // The views know what the list knows.
    if moved || parts.iter().any(|part| state(part) != part.broken) {
        for table in TABLES {
            let listed: Vec<Part> =
                parts.iter().map(|p| Part { broken: state(p), ..p.clone() }).collect();
            let body = body(table, &listed, &data_dir)?;
            connection
                .execute_batch(&format!("CREATE OR REPLACE TEMP VIEW {} AS {body}", table.name))?;
        }
    }
    let told = |part: &Part| {
        state(part).map(|why| {
            format!(
                "{} is broken ({why}): {} rows of {} on {} are missing from the answer",
                part.file().display(),
                part.rows,
                part.table.name,
                part.day
            )
        })
    };
    Ok(parts.iter().filter_map(told).collect())
}

/// SQL of all rows of a table: hot, and of the files that are whole.
fn body(table: &Rolled, parts: &[Part], data_dir: &Path) -> Result<String, StoreError> {
    let mut sql = format!("FROM main.{}_hot", table.name);
    // Files of one schema have the same columns; another's lack some, which are NULL then.
    let mut files: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    let listed = parts.iter().filter(|p| p.table == table && p.broken.is_none());
    for part in listed {
        let path = data_dir.join(part.file());
        files.entry(part.schema).or_default().push(quoted(text(&path)?));
    }
    for files in files.values() {
        sql.push_str(&format!(
            " UNION ALL BY NAME SELECT *{} FROM {}",
            table.constant,
            read(files)
        ));
    }
    Ok(sql)
}

/// The rows of files, given as SQL texts.
pub(super) fn read(files: &[String]) -> String {
    format!("read_parquet([{}], hive_partitioning = false)", files.join(", "))
}

/// DuckDB takes paths as text.
pub(super) fn text(path: &Path) -> Result<&str, StoreError> {
    path.to_str().ok_or_else(|| StoreError::Unusable {
        path: path.to_owned(),
        reason: "the data directory's name is not UTF-8; choose another".into(),
    })
}
