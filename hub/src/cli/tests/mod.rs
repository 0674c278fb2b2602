//! Every command over a frozen history in a real store: arguments in, exit code, stdout
//! and stderr out. Fixed time (2026-11-23 14:32:07 UTC), zone UTC, no terminal.

mod filters;
mod hostile;
mod output;

use std::path::Path;
use std::sync::OnceLock;

use agentmon_core::Timestamp;
use clap::Parser;
use jiff::tz::TimeZone;

use super::args::Cli;
use super::backend::Hub;
use super::context::{Context, Look};
use super::filter;
use crate::store::{self, Limits};

/// 2026-11-23T14:32:07Z.
const NOW: Timestamp = Timestamp::from_secs(1_795_444_327);

/// The store is made once per test process; commands open it read-only.
fn data() -> &'static Path {
    static DIR: OnceLock<tempfile::TempDir> = OnceLock::new();
    let dir = DIR.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path());
        dir
    });
    dir.path()
}

fn fill(dir: &Path) {
    let connection = store::open_write(dir, &Limits::default()).unwrap();
    connection.execute_batch(include_str!("fixture.sql")).unwrap();
}

/// What a command did.
struct Ran {
    exit: String,
    out: String,
    err: String,
}

impl Ran {
    /// All of it as one text, for a snapshot.
    fn text(&self) -> String {
        let out = self.out.replace('\r', "\\r");
        format!("exit: {}\n--- stdout\n{out}--- stderr\n{}", self.exit, self.err)
    }
}

fn run_in(dir: &Path, command: &str, look: Look) -> Ran {
    // Words are divided by blanks, quotes are not understood: `_` stands for a blank.
    let args = ["agentmon"].into_iter().chain(command.split(' ')).map(|a| a.replace('_', " "));
    let cli = Cli::try_parse_from(filter::shield(args.map(Into::into))).unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut hub = Hub::new(dir);
    let mut context = Context { out: &mut out, err: &mut err, look, hub: &mut hub };
    let exit = match super::run(cli.command, &mut context) {
        Ok(exit) => format!("{exit:?}"),
        Err(error) => format!("failed: {}", super::complaint(&error)),
    };
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { exit, out: text(out), err: text(err) }
}

fn plain() -> Look {
    Look { zone: TimeZone::UTC, now: NOW, width: None, color: false }
}

fn run(command: &str) -> Ran {
    run_in(data(), command, plain())
}
