//! `tail`: the running router's last events.

use std::io::{BufRead, BufReader};

use agentmon_core::Event;

use super::args::Args;
use super::{Io, Outcome, Result, config, status};
use crate::show::EventLine;
use crate::status::Request;

/// How many of the past, unless asked otherwise.
const LAST: usize = 20;

pub(super) fn run(mut args: Args, io: &mut Io<'_>) -> Result {
    let socket = config(&mut args)?.resolved().status.socket;
    let last = args.number("--last")?.unwrap_or(LAST);
    let follow = args.flag("--follow") || args.flag("-f");
    let json = args.flag("--json");
    args.done()?;
    let stream = status::ask(&socket, &Request::Tail { last, follow })?;
    for line in BufReader::new(stream).lines() {
        let line = line?;
        if json {
            writeln!(io.out, "{line}")?;
        } else {
            match serde_json::from_str::<Event>(&line) {
                Ok(event) => writeln!(io.out, "{}", EventLine(&event))?,
                Err(_) => writeln!(io.out, "{}", super::shown(&line))?,
            }
        }
        io.out.flush()?;
    }
    Ok(Outcome::Fine)
}
