//! `agentmon import conntrack`: file after file, with progress on a terminal.

use std::cell::Cell;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::context::Context;
use super::import::{To, Unit, bar, passed};
use super::units;
use crate::import::conntrack::{Summary, conntrack};
use crate::import::{self, Span};

/// The first that cannot be read ends the command.
pub(super) fn run(
    files: &[PathBuf],
    sensor: &str,
    span: Span,
    context: &mut Context<'_>,
) -> anyhow::Result<()> {
    for file in files {
        let read = Cell::new(0u64);
        let (mut input, written, bytes) = import::open(file, |n| read.set(read.get() + n))?;
        let bar = bar(file, bytes, Unit::Bytes);
        let progress = || bar.set_position(read.get());
        let (sensor, hub) = (sensor, &mut *context.hub);
        let mut send = To { hub, sensor, progress: &progress };
        let summary = conntrack(&mut input, (written, bytes), span, &mut send)
            .with_context(|| format!("importing {}", file.display()));
        bar.finish_and_clear();
        context.say(&told(file, &summary?));
    }
    Ok(())
}

fn told(file: &Path, s: &Summary) -> String {
    let mut text = format!(
        "{}: {}, {}; {} were new",
        file.display(),
        units::plural(s.lines, "line", "lines"),
        units::plural(s.flows, "flow", "flows"),
        units::plural(s.new_events, "event", "events"),
    );
    if s.unknown > 0 {
        let n = units::plural(s.unknown, "line was", "lines were");
        text.push_str(&format!("; {n} not understood"));
    }
    if s.timeless > 0 {
        let n = units::plural(s.timeless, "line tells", "lines tell");
        text.push_str(&format!("; {n} no time, the file's own was taken (conntrack -o timestamp)"));
    }
    text.push_str(&passed(s.passed));
    if s.open > 0 {
        let n = units::plural(s.open, "connection", "connections");
        text.push_str(&format!("; {n} had not ended: import again when the file has grown"));
    }
    text
}
