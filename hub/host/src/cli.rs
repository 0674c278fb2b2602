//! The `agentmon-host` command line.
//!
//! In: arguments, standard input. Out: data on standard output, talk on standard error; exit
//! code 0 fine, 1 something is missing (`check`), 2 it failed. A closed pipe is no error.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use agentmon_core::event::{Body, Direction};
use agentmon_core::name::printable;
use agentmon_core::service::proto_name;
use agentmon_core::time::SystemClock;
use agentmon_router::forward::client::{HubClient, Timeouts};
use agentmon_router::join::{self, Join, LINE_BYTES_MAX};
use clap::{Parser, Subcommand};

use crate::config::Config;
use crate::platform;

/// Which process owns which connection on this machine, told to the hub.
#[derive(Debug, Parser)]
#[command(name = "agentmon-host", version)]
struct Cli {
    /// The configuration [default: /etc/agentmon/host.toml, where it exists]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch and send, until stopped
    Run,
    /// What is open now, with its processes
    Once {
        /// One JSON object per line
        #[arg(long)]
        json: bool,
    },
    /// Take the line that `agentmon enroll` printed, from standard input or a file
    Join {
        /// The file with the line
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// Do not ask the hub whether it is good
        #[arg(long)]
        offline: bool,
    },
    /// Remove what the program has written: identity and ring
    Purge,
    /// What this machine lets the program see, and what it misses
    Check {
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli, &mut io::stdout().lock()) {
        Ok(code) => ExitCode::from(code),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to say it to when this fails.
            drop(writeln!(io::stderr(), "agentmon-host: {error:#}"));
            ExitCode::from(2)
        }
    }
}

fn run(cli: Cli, out: &mut dyn Write) -> anyhow::Result<u8> {
    let config = Config::find(cli.config.as_deref())?;
    match cli.command {
        Command::Run => crate::run::run(config).map(|()| 0),
        Command::Once { json } => once(&config, json, out).map(|()| 0),
        Command::Join { file, offline } => take_line(&config, file, offline).map(|()| 0),
        Command::Purge => crate::purge::purge(&config.resolved(), out).map(|()| 0),
        Command::Check { json } => check(&config, json, out),
    }
}

fn once(config: &Config, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut collect = config.collect.clone();
    collect.events = false;
    let mut watch = platform::open(&collect, Arc::new(SystemClock))?;
    let events = watch.snapshot()?;
    if json {
        for event in &events {
            writeln!(out, "{}", serde_json::to_string(event)?)?;
        }
        return Ok(());
    }
    writeln!(
        out,
        "{:<7} {:<16} {:<12} {:<5} {:<6} {:<28} REMOTE",
        "PID", "PROGRAM", "USER", "PROTO", "WAY", "LOCAL"
    )?;
    for event in &events {
        let Body::Connection(c) = &event.body else { continue };
        let remote =
            if c.direction == Direction::Listen { "*".to_owned() } else { c.remote.to_string() };
        let pid = if c.pid == 0 { "?".to_owned() } else { c.pid.to_string() };
        writeln!(
            out,
            "{pid:<7} {:<16} {:<12} {:<5} {:<6} {:<28} {remote}",
            c.name.as_deref().unwrap_or("?"),
            c.user.as_deref().unwrap_or("?"),
            proto_name(c.proto),
            c.direction.as_str(),
            c.local.to_string(),
        )?;
    }
    Ok(())
}

fn check(config: &Config, json: bool, out: &mut dyn Write) -> anyhow::Result<u8> {
    let watch = platform::open(&config.collect, Arc::new(SystemClock))?;
    let coverage = watch.coverage();
    if json {
        let lines: serde_json::Map<_, _> =
            coverage.lines.iter().map(|(k, v)| (k.clone(), v.clone().into())).collect();
        writeln!(out, "{}", serde_json::Value::Object(lines))?;
    } else {
        for (name, line) in &coverage.lines {
            writeln!(out, "{name:<10} {line}")?;
        }
        for what in watch.missed() {
            writeln!(out, "missed     {what}")?;
        }
    }
    Ok(u8::from(!matches!(coverage.method, "kernel" | "events")))
}

fn take_line(config: &Config, file: Option<PathBuf>, offline: bool) -> anyhow::Result<()> {
    let identity = config.clone().resolved().forward.identity;
    let mut line = String::new();
    let limit = LINE_BYTES_MAX as u64 + 1;
    match file {
        Some(path) => std::fs::File::open(&path)
            .map_err(|e| anyhow::anyhow!("{}: {e}", path.display()))?
            .take(limit)
            .read_to_string(&mut line)?,
        None => io::stdin().take(limit).read_to_string(&mut line)?,
    };
    let join = Join::decode(&line)?;
    if !offline {
        let client = HubClient::new(&join, Timeouts::default()).map_err(anyhow::Error::msg)?;
        let hello = client.hello().map_err(|refusal| anyhow::anyhow!("{}: {refusal}", join.url))?;
        anyhow::ensure!(
            hello.sensor == join.name,
            "the hub knows this token as `{}`, the join line says `{}`",
            printable(hello.sensor.as_bytes(), 64),
            join.name
        );
    }
    join::save(&identity, &join)?;
    // Told to a person; data goes to standard output.
    drop(writeln!(
        io::stderr(),
        "joined {} as {}; kept in {}",
        join.url,
        join.name,
        identity.display()
    ));
    Ok(())
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<io::Error>().map(io::Error::kind) == Some(io::ErrorKind::BrokenPipe)
    })
}
