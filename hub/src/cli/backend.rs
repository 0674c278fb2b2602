//! How commands reach the store: through the running hub's socket, or by opening the
//! file where no hub runs. Which of the two is the client's business, not the commands'.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::client;
use crate::control::{Reply, Request};
use crate::destinations::Destinations;

/// A query of this program gives up after this long; the largest store answers in seconds.
const QUERY_TIMEOUT_MS: u64 = 120_000;

/// Called with each reply that is data; an error ends the request.
pub(crate) type OnReply<'a> = &'a mut dyn FnMut(Reply) -> anyhow::Result<()>;

/// Where requests go.
pub(crate) trait Backend {
    /// Asks and hands over every reply, [`Reply::Done`] and [`Reply::Failed`] included.
    fn ask(&mut self, request: &Request, on: OnReply<'_>) -> anyhow::Result<()>;

    /// The data directory; empty where there is none.
    fn folder(&self) -> PathBuf {
        PathBuf::new()
    }

    /// What kinds of networks there are, with what a person added.
    fn destinations(&mut self) -> Arc<Destinations> {
        Destinations::built_in()
    }
}

/// The hub of a data directory, running or not.
pub(crate) struct Hub {
    data: PathBuf,
    /// Warnings that have been printed.
    told: BTreeSet<String>,
}

impl Hub {
    /// Of that directory; nothing is opened before the first request.
    pub(crate) fn new(data: &Path) -> Self {
        Self { data: data.to_owned(), told: BTreeSet::new() }
    }
}

impl Backend for Hub {
    fn ask(&mut self, request: &Request, on: OnReply<'_>) -> anyhow::Result<()> {
        let told = &mut self.told;
        client::ask(&self.data, request, &mut |reply| match reply {
            // Once, however many queries a command makes of it.
            Reply::Warning { text } => {
                if told.insert(text.clone()) {
                    let line = format!("agentmon: warning: {}", super::text::safe(&text));
                    drop(writeln!(std::io::stderr(), "{line}"));
                }
                Ok(())
            }
            other => on(other),
        })
    }

    fn folder(&self) -> PathBuf {
        self.data.clone()
    }

    fn destinations(&mut self) -> Arc<Destinations> {
        Destinations::of_dir(&self.data)
    }
}

/// What came before the rows, and after them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) count: u64,
    pub(crate) truncated: bool,
}

/// Asks; a [`Reply::Failed`] becomes the error, a missing [`Reply::Done`] too.
pub(crate) fn ask(
    hub: &mut dyn Backend,
    request: &Request,
    on: OnReply<'_>,
) -> anyhow::Result<Outcome> {
    let mut outcome = None;
    hub.ask(request, &mut |reply| match reply {
        Reply::Done { count, truncated } => {
            outcome = Some(Outcome { count, truncated });
            Ok(())
        }
        Reply::Failed { error } => bail!(error),
        data => on(data),
    })?;
    outcome.context("the hub broke off in the middle of its answer; see its log")
}

/// A query written by this program.
pub(crate) fn query(
    hub: &mut dyn Backend,
    sql: &str,
    params: Vec<Value>,
    on_row: &mut dyn FnMut(Vec<Value>) -> anyhow::Result<()>,
) -> anyhow::Result<Outcome> {
    let request = Request::Query {
        sql: sql.to_owned(),
        params,
        timeout_ms: QUERY_TIMEOUT_MS,
        untrusted: false,
    };
    ask(hub, &request, &mut |reply| match reply {
        Reply::Row { values } => on_row(values),
        _ => Ok(()),
    })
}

/// A request answered by one row (or none).
pub(crate) fn one_row(
    hub: &mut dyn Backend,
    request: &Request,
) -> anyhow::Result<Option<(Vec<String>, Vec<Value>)>> {
    let (mut columns, mut row) = (Vec::new(), None);
    ask(hub, request, &mut |reply| {
        match reply {
            Reply::Columns { names, .. } => columns = names,
            Reply::Row { values } => row = row.take().or(Some(values)),
            _ => {}
        }
        Ok(())
    })?;
    Ok(row.map(|row| (columns, row)))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Script(Vec<Reply>);
    impl Backend for Script {
        fn ask(&mut self, _: &Request, on: OnReply<'_>) -> anyhow::Result<()> {
            self.0.drain(..).try_for_each(on)
        }
    }

    #[track_caller]
    fn check(replies: Vec<Reply>, expected: Result<(u64, usize), &str>) {
        let mut rows = 0;
        let got = query(&mut Script(replies), "SELECT 1", vec![], &mut |_| {
            rows += 1;
            Ok(())
        });
        match expected {
            Ok((count, seen)) => assert_eq!((got.unwrap().count, rows), (count, seen)),
            Err(text) => assert!(got.unwrap_err().to_string().contains(text)),
        }
    }

    #[test]
    fn an_answer_is_whole_or_an_error() {
        let row = || Reply::Row { values: vec![1.into()] };
        check(vec![row(), row(), Reply::Done { count: 2, truncated: false }], Ok((2, 2)));
        check(vec![row()], Err("broke off"));
        check(vec![row(), Reply::Failed { error: "timed out".into() }], Err("timed out"));
    }
}
