//! The `agentmon` command line: arguments in, data on stdout, talk on stderr, exit code
//! out.
//!
//! Each command is one file with a `run`; it asks the hub through [`backend`] (so it works
//! while the hub runs and when it does not), and prints through [`print`]. Everything
//! printed passes [`text`]; every value of a query is a parameter ([`condition`]).
//!
//! Reading order: [`args`] -> [`filter`] -> [`condition`] -> [`list`] -> [`sheet`] ->
//! [`print`], then any command.

mod ack;
mod agents;
mod alert;
mod alerts;
mod allow;
mod args;
mod audit;
mod authority;
mod backend;
mod backtest;
mod baseline;
mod beacons;
mod beacons_rita;
mod cleanup;
mod collect;
mod condition;
mod context;
mod data_dir;
mod destinations;
mod device;
mod devices;
mod directory;
mod dns;
mod eval;
mod eval_beacon;
mod eval_day;
mod eval_tunnel;
mod export;
pub(crate) mod feed;
mod feeds;
mod filter;
mod findings;
mod firewall;
mod flows;
mod fused;
mod import;
mod import_conntrack;
pub(crate) mod import_pcap;
mod import_python;
mod import_zeek;
mod incident;
mod leaks;
mod list;
mod llm;
mod new;
mod owners;
mod places;
mod print;
mod processes;
mod sensors;
mod serve;
mod sheet;
mod sql;
mod stats;
mod status;
mod targets;
#[cfg(test)]
mod tests;
mod text;
mod timeline;
pub(crate) mod units;
mod vendors;
mod when;

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use agentmon_core::time::{Clock, SystemClock};
use clap::{CommandFactory, Parser};

use args::{Cli, Command};
use context::{Context, Exit, Look, Stdout};
pub(crate) use text::safe;
pub(crate) use when::from_answer;

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse_from(filter::shield(std::env::args_os()));
    match dispatch(cli) {
        Ok(Exit::Fine) => ExitCode::SUCCESS,
        Ok(Exit::Found) => ExitCode::from(1),
        Err(error) if context::reader_gone(&error) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(io::stderr(), "agentmon: {}", complaint(&error)));
            ExitCode::from(2)
        }
    }
}

/// The whole chain of causes, safe to print; its own line breaks stay.
fn complaint(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    text.lines().map(text::safe).collect::<Vec<_>>().join("\n")
}

fn dispatch(cli: Cli) -> anyhow::Result<Exit> {
    let look = Look::of_stdout(cli.color, SystemClock.wall());
    let mut out = BufWriter::new(Stdout(io::stdout().lock()));
    if let Command::Completions { shell } = cli.command {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "agentmon", &mut script);
        out.write_all(&script)?;
        out.flush()?;
        return Ok(Exit::Fine);
    }
    if let Command::Eval(args) = &cli.command {
        let exit = eval::run(args, &mut out, &look)?;
        out.flush()?;
        return Ok(exit);
    }
    let data = match &cli.command {
        Command::Up(args) if args.demo => data_dir::choose_for_demo(cli.data.as_deref())?,
        _ => data_dir::choose(cli.data.as_deref())?,
    };
    match &cli.command {
        Command::Up(args) => {
            crate::up::run(&args.options(data), &mut out, &mut io::stderr())?;
            return Ok(Exit::Fine);
        }
        Command::Serve(args) => return serve::run(args, &data),
        Command::Destinations(args) => {
            destinations::run(args, &data, &look, &mut out, &mut io::stderr())?;
            out.flush()?;
            return Ok(Exit::Fine);
        }
        Command::Vendors(args) => {
            vendors::run(args, &data, &look, &mut out, &mut io::stderr())?;
            out.flush()?;
            return Ok(Exit::Fine);
        }
        // Makes the store where there is none yet.
        Command::Enroll(_) | Command::Import(_) | Command::Collect(_) => {}
        _ => data_dir::must_hold_a_store(&data)?,
    }
    let mut hub = backend::Hub::new(&data);
    let mut err = io::stderr();
    let mut context = Context { out: &mut out, err: &mut err, look, hub: &mut hub };
    let exit = match &cli.command {
        Command::Collect(args) => collect::run(args, &data, &mut context)?,
        _ => run(cli.command, &mut context)?,
    };
    out.flush()?;
    Ok(exit)
}

/// Runs one command that talks to the hub.
fn run(command: Command, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    match command {
        Command::Alerts(args) => alerts::run(&args, context),
        Command::Alert(args) => alert::run(&args, context),
        Command::Ack(args) => ack::run(&args, context),
        Command::Allow(args) => allow::run(&args, context),
        Command::Fp(args) => allow::dismiss(&args, context),
        Command::Incident(args) => incident::run(&args, context),
        Command::Stats(args) => stats::run(&args, context),
        Command::Dns(args) => dns::run(&args, context),
        Command::Flows(args) => flows::run(&args, context),
        Command::Long(args) => leaks::long(&args, context),
        Command::Exfil(args) => leaks::exfil(&args, context),
        Command::Firewall(args) => firewall::run(&args, context),
        Command::Processes(args) => processes::run(&args, context),
        Command::Agents(args) => agents::run(&args, context),
        Command::Authority(args) => authority::run(&args, context),
        Command::Beacons(args) => beacons::run(&args, context),
        Command::Timeline(args) => timeline::run(&args, context),
        Command::Device(args) => device::run(&args, context),
        Command::Devices(args) => devices::run(&args, context),
        Command::Backtest(args) => backtest::run(&args, context),
        Command::Baseline(args) => baseline::run(&args, context),
        Command::New(args) => new::run(&args, context),
        Command::Vendors(_) | Command::Destinations(_) => unreachable!("needs no store"),
        Command::Feeds(args) => feeds::run(&args, context),
        Command::Llm(args) => llm::run(&args, context),
        Command::Targets(args) => targets::run(&args, context),
        Command::Sensors(args) => sensors::run(&args, context),
        Command::Enroll(args) => sensors::enroll(&args, context),
        Command::Sql(args) => sql::run(&args, context),
        Command::Import(args) => import::run(&args, context),
        Command::Export(args) => export::run(&args, context),
        Command::Cleanup(args) => cleanup::run(&args, context),
        Command::Status(args) => status::run(&args, context),
        Command::Reload => status::reload(context),
        Command::Eval(args) => eval::run(&args, context.out, &context.look),
        Command::Up(_) | Command::Serve(_) | Command::Collect(_) | Command::Completions { .. } => {
            unreachable!("handled before a store is needed")
        }
    }
}
