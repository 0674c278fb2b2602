//! Runs one reading statement and hands its rows out as they come.
//!
//! Runs on the caller's thread over its own connection; a helper thread interrupts the
//! statement at its time limit. Bounds: [`QUERY_ROWS_MAX`] rows, DuckDB's memory limit,
//! the time given. The transaction is READ ONLY whatever the statement says.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use duckdb::arrow::array::RecordBatch;
use duckdb::types::Value as SqlValue;
use duckdb::{Connection, Statement, params_from_iter};
use serde_json::Value;

use super::{StoreError, json, sandbox};
use crate::control::{QUERY_ROWS_MAX, Reply};

/// Longest time a statement may take in milliseconds, whatever was asked for.
pub const QUERY_TIMEOUT_MS_MAX: u64 = 600_000;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// One statement.
    pub sql: &'a str,
    /// Values for `?`.
    pub params: &'a [Value],
    /// Time limit.
    pub timeout_ms: u64,
    /// Held to the rules of [`sandbox`].
    pub untrusted: bool,
}

/// Runs it: `Columns`, `Row`s, `Done` go to `on`; an error from `on` (the reader is gone)
/// ends the statement.
///
/// # Errors
/// [`StoreError`], or the error of `on`.
pub fn run(
    connection: &Connection,
    query: Query<'_>,
    on: &mut dyn FnMut(Reply) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    if query.untrusted {
        sandbox::check(connection, query.sql)?;
    }
    let (outcome, passed) = within(connection, query.timeout_ms, || {
        warn(connection, on).and_then(|()| stream(connection, query, on))
    })?;
    match outcome {
        Err(error) if passed && error.is::<StoreError>() => {
            Err(StoreError::TimedOut(query.timeout_ms).into())
        }
        other => other,
    }
}

/// Runs what reads in one snapshot and within a time.
///
/// # Errors
/// [`StoreError::TimedOut`], else the error of `work`.
pub(super) fn limited<T>(
    connection: &Connection,
    timeout_ms: u64,
    work: impl FnOnce() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    match within(connection, timeout_ms, work)? {
        (Err(_), true) => Err(StoreError::TimedOut(timeout_ms)),
        (outcome, _) => outcome,
    }
}

/// The outcome of `work`, and whether its time had passed.
fn within<T>(
    connection: &Connection,
    timeout_ms: u64,
    work: impl FnOnce() -> T,
) -> Result<(T, bool), StoreError> {
    let deadline = Deadline::start(connection, timeout_ms.min(QUERY_TIMEOUT_MS_MAX));
    connection.execute_batch("BEGIN TRANSACTION READ ONLY")?;
    let outcome = work();
    let passed = deadline.stop();
    // The statement may have ended the transaction itself by failing; then there is
    // nothing to roll back and the error says only that.
    drop(connection.execute_batch("ROLLBACK"));
    Ok((outcome, passed))
}

/// Says which files the answer lacks; within the statement's own snapshot.
fn warn(
    connection: &Connection,
    on: &mut dyn FnMut(Reply) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    super::days::shield(connection)?.into_iter().try_for_each(|text| on(Reply::Warning { text }))
}

fn stream(
    connection: &Connection,
    query: Query<'_>,
    on: &mut dyn FnMut(Reply) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut statement = connection.prepare(query.sql).map_err(StoreError::from)?;
    let params = query.params.iter().map(parameter).collect::<Result<Vec<_>, _>>()?;
    let schema = {
        let rows = statement.stream_arrow(params_from_iter(params)).map_err(StoreError::from)?;
        rows.get_schema()
    };
    on(Reply::Columns {
        names: schema.fields().iter().map(|f| f.name().clone()).collect(),
        types: schema.fields().iter().map(|f| json::type_name(f.data_type())).collect(),
    })?;
    let mut count = 0;
    while let Some(batch) = next(&statement)? {
        for row in 0..batch.num_rows() {
            if count == QUERY_ROWS_MAX {
                return on(Reply::Done { count, truncated: true });
            }
            on(Reply::Row { values: json::row(&batch, row) })?;
            count += 1;
        }
    }
    on(Reply::Done { count, truncated: false })
}

/// The iterator of `stream_arrow` panics on a failed fetch (an interrupt is one); the
/// step below it returns the error.
fn next(statement: &Statement<'_>) -> Result<Option<RecordBatch>, StoreError> {
    Ok(statement.step()?.map(|array| RecordBatch::from(&array)))
}

fn parameter(value: &Value) -> Result<SqlValue, StoreError> {
    Ok(match value {
        Value::Null => SqlValue::Null,
        Value::Bool(b) => SqlValue::Boolean(*b),
        Value::String(s) => SqlValue::Text(s.clone()),
        Value::Number(n) => match (n.as_i64(), n.as_u64(), n.as_f64()) {
            (Some(n), _, _) => SqlValue::BigInt(n),
            (_, Some(n), _) => SqlValue::UBigInt(n),
            (_, _, Some(n)) => SqlValue::Double(n),
            _ => return Err(StoreError::Refused(format!("parameter {n} is out of range"))),
        },
        Value::Array(_) | Value::Object(_) => {
            return Err(StoreError::Refused("parameters are null, bool, number or string".into()));
        }
    })
}

/// Interrupts the connection's statement when the time is over.
pub(crate) struct Deadline {
    done: std::sync::mpsc::Sender<()>,
    passed: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Deadline {
    pub(crate) fn start(connection: &Connection, timeout_ms: u64) -> Self {
        let (done, wait) = channel();
        let passed = Arc::new(AtomicBool::new(false));
        let (flag, handle) = (Arc::clone(&passed), connection.interrupt_handle());
        let body = move || {
            let mut patience = Duration::from_millis(timeout_ms);
            // Again and again: an interrupt between two steps of a statement is lost.
            while wait.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
                flag.store(true, Ordering::SeqCst);
                handle.interrupt();
                patience = Duration::from_millis(20);
            }
        };
        // Without a thread to spare the statement runs unlimited rather than not at all.
        let thread = std::thread::Builder::new().name("query-deadline".into()).spawn(body).ok();
        Self { done, passed, thread }
    }

    /// Ends the watch; true when the time had passed.
    pub(crate) fn stop(self) -> bool {
        drop(self.done);
        if let Some(thread) = self.thread {
            // It cannot panic; if it did, the flag still says what happened.
            drop(thread.join());
        }
        self.passed.load(Ordering::SeqCst)
    }
}
