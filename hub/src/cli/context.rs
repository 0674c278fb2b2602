//! What every command is given: where data and talk go, how they look, the time, and the
//! hub. Tests hand in buffers, a fixed time and a store of their own.

use std::io::{self, IsTerminal, Write};

use agentmon_core::Timestamp;
use jiff::tz::TimeZone;

use super::args::Color;
use super::backend::Backend;

/// Narrowest table that is still laid out; below that lines wrap by themselves.
const WIDTH_MIN: u16 = 40;

/// How a command ended, other than by an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 0: fine.
    Fine,
    /// 1: found something, where the command was asked to say so that way.
    Found,
}

/// The reader of stdout has gone (`| head`): no error, the command just ends.
#[derive(Debug, thiserror::Error)]
#[error("the reader of the output has gone")]
pub(crate) struct ReaderGone;

/// How tables look.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    /// Times are shown in it.
    pub(crate) zone: TimeZone,
    /// Now, for "today" and ages.
    pub(crate) now: Timestamp,
    /// Columns of the terminal; `None`: as wide as the data.
    pub(crate) width: Option<u16>,
    /// Colours and bold.
    pub(crate) color: bool,
}

impl Look {
    /// For this process's stdout. Colours on a terminal, unless `NO_COLOR` (no-color.org)
    /// or a dumb terminal says otherwise; `--color` has the last word.
    pub(crate) fn of_stdout(color: Color, now: Timestamp) -> Self {
        let terminal = io::stdout().is_terminal();
        let set = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|t| t == "dumb");
        let color = match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => terminal && !set("NO_COLOR") && !dumb,
        };
        // The environment has been weighed; the styling library must not weigh it again.
        comfy_table_color(color);
        let columns = || std::env::var("COLUMNS").ok()?.parse().ok();
        let size = || terminal_size::terminal_size().map(|(w, _)| w.0);
        let width = if terminal { size().or_else(columns) } else { None };
        Self { zone: TimeZone::system(), now, width: width.map(|w| w.max(WIDTH_MIN)), color }
    }
}

fn comfy_table_color(on: bool) {
    crossterm::style::force_color_output(on);
}

/// Everything a command works with.
pub(crate) struct Context<'a> {
    /// Data.
    pub(crate) out: &'a mut dyn Write,
    /// Talk: notes, progress, hints.
    pub(crate) err: &'a mut dyn Write,
    pub(crate) look: Look,
    pub(crate) hub: &'a mut dyn Backend,
}

impl Context<'_> {
    /// One line of talk. A closed stderr stops nothing.
    pub(crate) fn say(&mut self, line: &str) {
        drop(writeln!(self.err, "{}", super::text::safe(line)));
    }
}

/// Marks a broken pipe of stdout, so that one of a socket is not mistaken for it.
pub(crate) struct Stdout<W>(pub(crate) W);

impl<W: Write> Write for Stdout<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.write(data).map_err(mark)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(mark)
    }
}

fn mark(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return io::Error::new(io::ErrorKind::BrokenPipe, ReaderGone);
    }
    error
}

/// Did the command fail only because nobody reads its output any more?
pub(crate) fn reader_gone(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let io = cause.downcast_ref::<io::Error>();
        cause.is::<ReaderGone>()
            || io.and_then(io::Error::get_ref).is_some_and(|inner| inner.is::<ReaderGone>())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn only_a_closed_stdout_is_no_error() {
        use anyhow::Context as _;
        let error = Stdout(Closed).write(b"x").context("writing the table").unwrap_err();
        assert!(reader_gone(&error));
        let other = Closed.write(b"x").context("asking the hub").unwrap_err();
        assert!(!reader_gone(&other));
    }
}
