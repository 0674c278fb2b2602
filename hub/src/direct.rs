//! Answers a request from the file itself, while no hub runs: queries read-only, changes
//! read-write for as long as they take.

use std::path::Path;

use anyhow::bail;

use crate::control::{Reply, Request};
use crate::store::{self, Limits, query};

/// Answers one request; every reply goes to `on`.
///
/// # Errors
/// What the store says; in particular who else has the file open.
pub fn answer(
    data_dir: &Path,
    request: &Request,
    on: &mut dyn FnMut(Reply) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    match request {
        Request::Query { sql, params, timeout_ms, untrusted } => {
            let connection = store::open_read(data_dir, &Limits::default())?;
            let query =
                query::Query { sql, params, timeout_ms: *timeout_ms, untrusted: *untrusted };
            query::run(&connection, query, on)
        }
        _ => bail!("not without a running hub: start `agentmon serve` or `agentmon up`"),
    }
}
