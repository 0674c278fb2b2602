//! Every command over a frozen history in a real store: arguments in, exit code, stdout
//! and stderr out. Fixed time (2026-11-23 14:32:07 UTC), zone UTC, no terminal.

mod authority;
mod baseline;
mod filters;
mod help;
mod hostile;
mod output;

use std::sync::{Mutex, OnceLock, PoisonError};

use agentmon_core::Timestamp;
use clap::Parser;
use duckdb::Connection;
use jiff::tz::TimeZone;

use super::args::Cli;
use super::backend::{Backend, OnReply};
use super::context::{Context, Look};
use super::filter;
use crate::control::Request;
use crate::store::query::{self, Query};
use crate::store::{self, Limits};

/// 2026-11-23T14:32:07Z.
const NOW: Timestamp = Timestamp::from_secs(1_795_444_327);

/// The store: made once per test process, and held open, since opening costs more than
/// asking.
struct Fixture {
    /// Deleted with the process.
    _dir: tempfile::TempDir,
    connection: Mutex<Connection>,
}

fn fixture() -> &'static Fixture {
    static FIXTURE: OnceLock<Fixture> = OnceLock::new();
    FIXTURE.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let connection = store::open_write(dir.path(), &Limits::default()).unwrap();
        connection.execute_batch(include_str!("fixture.sql")).unwrap();
        Fixture { _dir: dir, connection: Mutex::new(connection) }
    })
}

/// Asks the fixture by a connection of its own.
struct Held(Connection);

impl Held {
    fn new() -> Self {
        let shared = fixture().connection.lock().unwrap_or_else(PoisonError::into_inner);
        Self(shared.try_clone().unwrap())
    }
}

impl Backend for Held {
    fn ask(&mut self, request: &Request, on: OnReply<'_>) -> anyhow::Result<()> {
        let Request::Query { sql, params, timeout_ms, untrusted } = request else {
            anyhow::bail!("the fixture only answers queries");
        };
        let query = Query { sql, params, timeout_ms: *timeout_ms, untrusted: *untrusted };
        query::run(&self.0, query, on)
    }
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

fn run_by(hub: &mut dyn Backend, command: &str, look: Look) -> Ran {
    // Words are divided by blanks, quotes are not understood: `_` stands for a blank.
    let args = ["agentmon"].into_iter().chain(command.split(' ')).map(|a| a.replace('_', " "));
    let cli = Cli::try_parse_from(filter::shield(args.map(Into::into))).unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut context = Context { out: &mut out, err: &mut err, look, hub };
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

fn run_with(command: &str, look: Look) -> Ran {
    run_by(&mut Held::new(), command, look)
}

fn run(command: &str) -> Ran {
    run_with(command, plain())
}
