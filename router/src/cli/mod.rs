//! The `agentmon-router` command line.
//!
//! In: arguments, standard input. Out: data on standard output, talk on standard error, an
//! exit code: 0 fine, 1 a problem was found (`check`, `score`), 2 it failed. A closed pipe
//! is no error. Arguments are read by hand: nine commands need no library on a router.

mod args;
mod ask;
mod check;
mod completions;
mod daemon;
mod help;
mod join;
mod score;
mod setup;
mod status;
mod tail;
#[cfg(test)]
mod tests;
mod uci;

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::config::{Config, DEFAULT_PATH};
use args::Args;

/// How a command ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Nothing to report.
    Fine,
    /// It did its work and found something wrong.
    Found,
}

/// What a command talks to.
struct Io<'a> {
    input: &'a mut dyn Read,
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
}

type Result = anyhow::Result<Outcome>;

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned());
    let (mut input, mut out, mut err) = (io::stdin(), io::stdout().lock(), io::stderr());
    let mut io = Io { input: &mut input, out: &mut out, err: &mut err };
    ExitCode::from(run(arguments.collect(), &mut io))
}

/// One command: exit code 0, 1 or 2.
fn run(arguments: Vec<String>, io: &mut Io<'_>) -> u8 {
    let result = dispatch(Args::new(arguments), io).and_then(|outcome| {
        io.out.flush()?;
        Ok(outcome)
    });
    match result {
        Ok(Outcome::Fine) => 0,
        Ok(Outcome::Found) => 1,
        Err(error) if is_broken_pipe(&error) => 0,
        Err(error) => {
            // Nothing is left to say it to when this fails.
            drop(writeln!(io.err, "agentmon-router: {error:#}"));
            2
        }
    }
}

fn dispatch(mut args: Args, io: &mut Io<'_>) -> Result {
    let Some(command) = args.word() else {
        if args.flag("--version") {
            writeln!(io.out, "agentmon-router {}", env!("CARGO_PKG_VERSION"))?;
            return Ok(Outcome::Fine);
        }
        let asked = args.flag("--help") || args.flag("-h");
        args.done()?;
        return help::overview(io, asked);
    };
    if command != "help" && (args.flag("--help") || args.flag("-h")) {
        return help::command(&command, io);
    }
    match command.as_str() {
        "run" => daemon::run(args),
        "check" => check::run(args, io),
        "setup" => setup::run(args, io),
        "status" => status::run(args, io),
        "tail" => tail::run(args, io),
        "alerts" => ask::alerts(args, io),
        "ack" => ask::ack(args, io),
        "flows" => ask::flows(args, io),
        "devices" => ask::devices(args, io),
        "score" => score::run(args, io),
        "allow" => ask::allow(args, io),
        "join" => join::run(args, io),
        "uci" => uci::run(args, io),
        "completions" => completions::run(args, io),
        "help" => match (args.word(), args.flag("--help")) {
            (Some(command), _) => help::command(&command, io),
            (None, true) => help::command("help", io),
            (None, false) => help::overview(io, true),
        },
        other => anyhow::bail!("no command `{}`; see agentmon-router --help", shown(other)),
    }
}

/// The configuration the command is about: that of `--config`, else the usual file, else
/// (when there is none) the defaults.
fn config(args: &mut Args) -> anyhow::Result<Config> {
    let given = args.value("--config")?.map(PathBuf::from);
    Ok(match config_path(given.as_deref()) {
        Some(path) => Config::load(&path)?,
        None => Config::default(),
    })
}

/// The file that was named, else the usual one where it exists, else what OpenWrt's service
/// was started with.
fn config_path(given: Option<&Path>) -> Option<PathBuf> {
    let made = Path::new(crate::uci::place::OUT).join(crate::uci::place::TOML_NAME);
    let usual = [PathBuf::from(DEFAULT_PATH), made];
    given.map(Path::to_owned).or_else(|| usual.into_iter().find(|path| path.exists()))
}

/// What a person typed, safe to print back.
fn shown(text: &str) -> String {
    agentmon_core::name::printable(text.as_bytes(), 100)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let io = cause.downcast_ref::<io::Error>();
        let json =
            cause.downcast_ref::<serde_json::Error>().and_then(serde_json::Error::io_error_kind);
        io.map(io::Error::kind).or(json) == Some(io::ErrorKind::BrokenPipe)
    })
}
