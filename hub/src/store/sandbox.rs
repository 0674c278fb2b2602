//! May this SQL, written by a person (or one day a model), run here?
//!
//! In: untrusted text. Out: the statement to run, or why not. The text is parsed by
//! DuckDB's own parser (`json_serialize_sql`, which knows only SELECT and its kin:
//! VALUES, FROM, DESCRIBE, SHOW, SUMMARIZE, PIVOT), so no second grammar can disagree.
//!
//! Layers, each enough against most attacks:
//! 1. exactly one statement, and it reads (anything else does not serialise);
//! 2. table functions only from a list (the others read files, settings or the net,
//!    checkpoint, or run SQL from a string);
//! 3. tables only by plain names (a quoted path is a file scan);
//! 4. the transaction is READ ONLY ([`super::query`]);
//! 5. the instance has no external access and locked settings ([`super::open_write`]).

use duckdb::Connection;
use serde_json::Value;

use super::StoreError;

/// Longest statement in bytes.
pub const SQL_BYTES_MAX: usize = 64 * 1024;

/// Table functions that compute and touch nothing. Lower case.
const TABLE_FUNCTIONS: &[&str] = &[
    "range",
    "generate_series",
    "unnest",
    "json_each",
    "json_tree",
    "repeat",
    "duckdb_columns",
    "duckdb_tables",
    "duckdb_views",
    "duckdb_types",
    "duckdb_functions",
];

/// Checks the statement; the caller runs it as it stands.
///
/// # Errors
/// [`StoreError::Refused`] with the reason.
pub fn check(connection: &Connection, sql: &str) -> Result<(), StoreError> {
    let refuse = |why: &str| Err(StoreError::Refused(why.to_owned()));
    if sql.len() > SQL_BYTES_MAX {
        return refuse("the statement is longer than 64 KiB");
    }
    let tree: String = connection.query_row(
        "SELECT json_serialize_sql(?::VARCHAR, skip_null := true, skip_empty := true)",
        [strip_explain(sql)],
        |row| row.get(0),
    )?;
    let tree: Value = serde_json::from_str(&tree)
        .map_err(|e| StoreError::Refused(format!("the statement cannot be checked: {e}")))?;
    if tree.get("error").and_then(Value::as_bool) != Some(false) {
        let message = tree.get("error_message").and_then(Value::as_str).unwrap_or("no reason");
        return match tree.get("error_type").and_then(Value::as_str) {
            Some("parser") => refuse(message),
            _ => refuse(
                "only one reading statement (SELECT, FROM, WITH, VALUES, DESCRIBE, SUMMARIZE, SHOW, EXPLAIN of one) is allowed here",
            ),
        };
    }
    match tree.get("statements").and_then(Value::as_array).map(Vec::len) {
        Some(1) => walk(&tree),
        Some(0) | None => refuse("there is no statement"),
        Some(_) => refuse("one statement at a time"),
    }
}

/// EXPLAIN itself does not serialise; what it explains does, and is held to the same rules.
fn strip_explain(sql: &str) -> &str {
    let Some(rest) = strip_word(sql, "explain") else { return sql };
    strip_word(rest, "analyze").unwrap_or(rest)
}

fn strip_word<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let text = text.trim_start();
    let (head, rest) = text.split_at_checked(word.len())?;
    (head.eq_ignore_ascii_case(word) && rest.starts_with(char::is_whitespace)).then_some(rest)
}

/// Looks at every node of the tree.
fn walk(node: &Value) -> Result<(), StoreError> {
    match node {
        Value::Array(items) => items.iter().try_for_each(walk),
        Value::Object(fields) => {
            match fields.get("type").and_then(Value::as_str) {
                Some("TABLE_FUNCTION") => table_function(node)?,
                Some("BASE_TABLE") => base_table(node)?,
                _ => {}
            }
            fields.values().try_for_each(walk)
        }
        _ => Ok(()),
    }
}

fn table_function(node: &Value) -> Result<(), StoreError> {
    let name = node.pointer("/function/function_name").and_then(Value::as_str).unwrap_or("?");
    if TABLE_FUNCTIONS.contains(&name.to_ascii_lowercase().as_str()) {
        return Ok(());
    }
    Err(StoreError::Refused(format!(
        "the table function `{name}` is not allowed here (allowed: {})",
        TABLE_FUNCTIONS.join(", ")
    )))
}

fn base_table(node: &Value) -> Result<(), StoreError> {
    let name = node.get("table_name").and_then(Value::as_str).unwrap_or("?");
    if !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Ok(());
    }
    Err(StoreError::Refused(format!(
        "`{name}` is not a plain table name; files cannot be read here"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Limits, open_write};

    fn allowed(connection: &Connection, sql: &str) {
        check(connection, sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
    }
    fn refused(connection: &Connection, sql: &str) {
        match check(connection, sql) {
            Err(StoreError::Refused(_)) => {}
            other => panic!("{sql}: {other:?}"),
        }
    }

    #[test]
    fn reading_is_allowed() {
        let dir = tempfile::tempdir().unwrap();
        let c = open_write(dir.path(), &Limits::default()).unwrap();
        for sql in [
            "SELECT 1",
            "select count(*) from dns;",
            "FROM flows SELECT src, sum(bytes_in) GROUP BY ALL",
            "WITH a AS (SELECT * FROM alerts) SELECT * FROM a JOIN findings f ON f.alert = a.id",
            "VALUES (1), (2)",
            "DESCRIBE flows",
            "SUMMARIZE dns",
            "SHOW TABLES",
            "EXPLAIN SELECT * FROM flows",
            "explain analyze SELECT * FROM flows",
            "SELECT unnest(answers) FROM dns",
            "SELECT * FROM range(10)",
            "SELECT 'COPY x TO y; DROP TABLE dns'",
            "SELECT * FROM dns WHERE name = 'a;b'",
        ] {
            allowed(&c, sql);
        }
    }

    #[test]
    fn everything_else_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let c = open_write(dir.path(), &Limits::default()).unwrap();
        for sql in [
            "",
            ";",
            "INSERT INTO gaps VALUES (now(), 1, 'a', now(), 'b', 1)",
            "DELETE FROM dns",
            "UPDATE alerts SET status = 'acked'",
            "DROP TABLE dns",
            "CREATE TABLE x AS SELECT 1",
            "CREATE OR REPLACE VIEW flows AS SELECT 1",
            "COPY dns TO '/tmp/out.csv'",
            "COPY (SELECT 1) TO '/tmp/out.csv'",
            "ATTACH '/tmp/other.db'",
            "INSTALL httpfs",
            "LOAD httpfs",
            "SET memory_limit = '100GB'",
            "RESET memory_limit",
            "PRAGMA database_list",
            "CALL pragma_version()",
            "CHECKPOINT",
            "EXPORT DATABASE '/tmp/x'",
            "VACUUM",
            "BEGIN",
            "COMMIT",
            "PREPARE p AS SELECT 1",
            "SELECT 1; DROP TABLE dns",
            "DROP TABLE dns; SELECT 1",
            "SELECT 1; SELECT 2",
            "EXPLAIN DELETE FROM dns",
            "EXPLAIN ANALYZE DELETE FROM dns",
            "EXPLAIN EXPLAIN ANALYZE DELETE FROM dns",
            "/* x */ EXPLAIN ANALYZE DELETE FROM dns",
            "SELECT * FROM read_csv('/etc/passwd')",
            "SELECT * FROM read_text('/etc/passwd')",
            "SELECT * FROM READ_BLOB('/etc/passwd')",
            "SELECT * FROM glob('/*')",
            "SELECT * FROM read_parquet('https://example.com/x.parquet')",
            "SELECT * FROM '/etc/passwd'",
            "SELECT * FROM 'x.parquet'",
            "FROM \"hub.duckdb\"",
            "SELECT * FROM duckdb_settings()",
            "SELECT * FROM duckdb_secrets()",
            "SELECT * FROM query('DROP TABLE dns')",
            "SELECT * FROM checkpoint()",
            "SELECT * FROM force_checkpoint()",
            "SELECT * FROM pragma_database_size()",
            "SELECT * FROM json_execute_serialized_sql('{}')",
            "SELECT (SELECT count(*) FROM read_text('/etc/passwd'))",
            "WITH a AS (SELECT * FROM glob('*')) SELECT * FROM a",
            "SELECT * FROM dns WHERE EXISTS (FROM read_csv('/etc/passwd'))",
            "SELECT nonsense FROM FROM",
        ] {
            refused(&c, sql);
        }
        refused(&c, &format!("SELECT '{}'", "x".repeat(SQL_BYTES_MAX)));
    }
}
