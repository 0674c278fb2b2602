//! New alerts as they come, one line each, on stdout.
//!
//! In: the store, asked every step. An alert is told when it is made; one that only counts
//! on is not told again. What is below medium waits for `agentmon alerts`.

use std::io::Write;

use serde_json::Value;

use super::hub::LocalHub;
use crate::cli::feed as show;
use crate::control::{Reply, Request};

/// Most alerts told in one step; the rest is told in the next.
const LINES_MAX: u64 = 50;
/// An answer that takes longer is waited for in the next step.
const TIMEOUT_MS: u64 = 10_000;

/// Remembers what was told.
pub(super) struct Feed {
    last: i64,
    /// The first alert told.
    first: Option<i64>,
}

impl Feed {
    /// Everything that is there already counts as told.
    pub(super) fn new(hub: &LocalHub) -> anyhow::Result<Self> {
        let rows = query(hub, "SELECT coalesce(max(id), 0) FROM alerts", vec![])?;
        let last = rows.first().and_then(|r| r.first()?.as_i64()).unwrap_or(0);
        Ok(Self { last, first: None })
    }

    /// The first alert told, for hints.
    pub(super) const fn first(&self) -> Option<i64> {
        self.first
    }

    /// Tells what is new.
    pub(super) fn tell(&mut self, hub: &LocalHub, out: &mut dyn Write) -> anyhow::Result<()> {
        let params = vec![self.last.into(), LINES_MAX.into()];
        let rows = query(hub, show::SELECT, params)?;
        for row in &rows {
            self.last = row.first().and_then(Value::as_i64).unwrap_or(self.last);
            if let Some(line) = show::line(row) {
                writeln!(out, "{line}")?;
                self.first.get_or_insert(self.last);
            }
        }
        out.flush()?;
        Ok(())
    }
}

fn query(hub: &LocalHub, sql: &str, params: Vec<Value>) -> anyhow::Result<Vec<Vec<Value>>> {
    let request =
        Request::Query { sql: sql.to_owned(), params, timeout_ms: TIMEOUT_MS, untrusted: false };
    let mut rows = Vec::new();
    hub.ask(&request, &mut |reply| {
        match reply {
            Reply::Row { values } => rows.push(values),
            Reply::Failed { error } => anyhow::bail!(error),
            Reply::Columns { .. } | Reply::Done { .. } | Reply::Warning { .. } => {}
        }
        Ok(())
    })?;
    Ok(rows)
}
