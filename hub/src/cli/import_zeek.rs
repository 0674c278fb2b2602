//! `agentmon import zeek`: log after log, with progress on a terminal.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};

use agentmon_core::wire::Batch;
use anyhow::Context as _;

use super::backend::{Backend, ask, query};
use super::context::Context;
use super::import::{Unit, bar, passed, store, stored};
use super::units;
use crate::control::Request;
use crate::import::zeek::record::Kind;
use crate::import::zeek::{self, Sinks, Summary};
use crate::import::{self, Sink, Span, Stored};
use crate::store::zeek::Chunk;

/// The first that cannot be read ends the command; what is no log is passed over.
pub(super) fn run(
    paths: &[PathBuf],
    sensor: &str,
    span: Span,
    context: &mut Context<'_>,
) -> anyhow::Result<()> {
    let mut logs = 0u64;
    for (kind, path) in zeek::find(paths)? {
        let summary = one(&path, kind, sensor, span, context.hub);
        match summary.with_context(|| format!("importing {}", path.display()))? {
            Some(summary) => {
                logs += 1;
                context.say(&told(&path, &summary));
            }
            None => context.say(&format!("{}: not a log that is read; left out", path.display())),
        }
    }
    anyhow::ensure!(
        logs > 0,
        "no log of Zeek found (conn, dns, http, ssl or open_*; *.log or *.log.gz)"
    );
    Ok(())
}

fn one(
    path: &Path,
    kind: Option<Kind>,
    sensor: &str,
    span: Span,
    hub: &mut dyn Backend,
) -> anyhow::Result<Option<Summary>> {
    let read = Cell::new(0u64);
    let (mut input, _, bytes) = import::open(path, |n| read.set(read.get() + n))?;
    let bar = bar(path, bytes, Unit::Bytes);
    // All three sinks ask the same hub, one after the other.
    let hub = RefCell::new(hub);
    let mut batch = Events { hub: &hub, sensor };
    let mut chunk = |chunk: Chunk| {
        bar.set_position(read.get());
        let request = Request::ImportZeek { name: sensor.to_owned(), chunk };
        Ok(ask(&mut **hub.borrow_mut(), &request, &mut |_| Ok(()))?.count)
    };
    let mut known = |log: u64| known(&mut **hub.borrow_mut(), sensor, log);
    let mut sinks = Sinks { batch: &mut batch, chunk: &mut chunk, span, known: &mut known };
    let summary = zeek::log(&mut input, kind, &mut sinks);
    bar.finish_and_clear();
    summary
}

/// Where its events go.
struct Events<'a, 'h> {
    hub: &'a RefCell<&'h mut dyn Backend>,
    sensor: &'a str,
}

impl Sink for Events<'_, '_> {
    fn batch(&mut self, batch: Batch) -> anyhow::Result<u64> {
        store(&mut **self.hub.borrow_mut(), self.sensor, batch)
    }

    fn stored(&mut self, log: u64, span: Span, epoch: u64) -> anyhow::Result<Vec<Stored>> {
        stored(&mut **self.hub.borrow_mut(), self.sensor, (log, epoch), span)
    }
}

/// Lines of a log that an earlier import has read.
fn known(hub: &mut dyn Backend, sensor: &str, log: u64) -> anyhow::Result<u64> {
    if let Ok(lines) = lines(hub, sensor, log) {
        return Ok(lines);
    }
    // There may be no store yet, or one of an older program: only a change makes one.
    let nothing = Chunk { log, ..Chunk::default() };
    let request = Request::ImportZeek { name: sensor.to_owned(), chunk: nothing };
    ask(hub, &request, &mut |_| Ok(()))?;
    lines(hub, sensor, log)
}

fn lines(hub: &mut dyn Backend, sensor: &str, log: u64) -> anyhow::Result<u64> {
    let sql = "SELECT max(lines) FROM zeek_file f JOIN sensors s ON s.id = f.sensor
        WHERE s.name = ? AND log = CAST(? AS UBIGINT)";
    let params = vec![sensor.into(), log.to_string().into()];
    let mut lines = None;
    query(hub, sql, params, &mut |row| {
        lines = row.first().and_then(serde_json::Value::as_u64);
        Ok(())
    })?;
    Ok(lines.unwrap_or(0))
}

fn told(path: &Path, s: &Summary) -> String {
    let mut text = format!(
        "{}: {}; {} and {} were new",
        path.display(),
        units::plural(s.lines, "line", "lines"),
        units::plural(s.new_events, "event", "events"),
        units::plural(s.new_rows, "row", "rows"),
    );
    for (why, n) in &s.bad {
        text.push_str(&format!("; {} {why}", units::plural(*n, "line", "lines")));
    }
    text.push_str(&passed(s.passed));
    if s.waiting > 0 {
        text.push_str("; the last line is still being written: import again later");
    }
    text
}
