//! Answers a request from the file itself, while no hub runs: queries read-only, changes
//! read-write for as long as they take.

use std::path::Path;
use std::sync::Arc;

use agentmon_core::time::SystemClock;
use agentmon_router::counters::Counters;
use anyhow::bail;

use crate::answer;
use crate::control::{Reply, Request};
use crate::detect::backtest;
use crate::detect::beacon::answer as beacons;
use crate::store::writer::Writer;
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
    let limits = Limits::default();
    let replies = match request {
        Request::Query { sql, params, timeout_ms, untrusted } => {
            let connection = store::open_read(data_dir, &limits)?;
            let query =
                query::Query { sql, params, timeout_ms: *timeout_ms, untrusted: *untrusted };
            return query::run(&connection, query, on);
        }
        Request::Export { sql, format, timeout_ms } => {
            let connection = store::open_read(data_dir, &limits)?;
            answer::export(&connection, sql, *format, *timeout_ms)?
        }
        Request::Status => {
            let connection = store::open_read(data_dir, &limits)?;
            let mut facts = vec![("running", false.into())];
            facts.extend(answer::store_status(&connection, data_dir)?);
            answer::row(&facts)
        }
        Request::Beacons { until_us, score } => {
            let connection = store::open_read(data_dir, &limits)?;
            beacons::answer(&connection, data_dir, *until_us, *score)?
        }
        Request::Backtest { detect, .. } => {
            let connection = store::open_read(data_dir, &limits)?;
            let config = detect.as_deref().cloned().unwrap_or_default();
            backtest::answer(&connection, &config, request)?
        }
        Request::Feeds => answer::feeds(data_dir)?,
        Request::AcceptFeed { name } => answer::accept_feed(data_dir, name)?,
        Request::Targets | Request::TestTarget { .. } => {
            bail!("no hub runs on {}; nobody is told of alerts", data_dir.display())
        }
        Request::LlmStatus | Request::LlmReplay { .. } => {
            bail!("no hub runs on {}; no model is asked", data_dir.display())
        }
        Request::Reload => {
            bail!("no hub runs on {}; there is nothing to reload", data_dir.display())
        }
        Request::Enroll { .. }
        | Request::Revoke { .. }
        | Request::Ack { .. }
        | Request::Allow { .. }
        | Request::FalsePositive { .. }
        | Request::Forget { .. }
        | Request::ResetBaseline { .. }
        | Request::NameDevice { .. }
        | Request::Cleanup { .. }
        | Request::Import { .. }
        | Request::ImportSpan { .. }
        | Request::ImportZeek { .. } => {
            let clock = Arc::new(SystemClock);
            let mut writer = Writer::open(data_dir, &limits, Counters::default(), clock)?;
            let replies = answer::change(&mut writer, data_dir, request);
            writer.close()?;
            replies?
        }
    };
    replies.into_iter().try_for_each(on)
}
