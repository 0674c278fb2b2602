//! `join`: takes a join line, asks the hub whether it is good, keeps it.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::Context as _;

use super::args::Args;
use super::{Io, Outcome, Result, config};
use crate::forward::client::{HubClient, Timeouts};
use crate::join::{self, Join, LINE_BYTES_MAX, PREFIX};
use crate::uci::{self, place};

pub(super) fn run(mut args: Args, io: &mut Io<'_>) -> Result {
    let given = args.has("--config");
    let identity = config(&mut args)?.resolved().forward.identity;
    let file = args.value("--file")?;
    let offline = args.flag("--offline");
    let words = args.words()?;
    anyhow::ensure!(
        !words.iter().any(|word| word.starts_with(PREFIX)),
        "the join line is a secret and must not stand on the command line, where others can \
         see it: give it on standard input or with --file; enrol again to make this one void"
    );
    // On OpenWrt the settings win at every reload: a line kept beside them would be forgotten.
    let settings = uci::load(Path::new(uci::DEFAULT_PATH)).ok();
    anyhow::ensure!(
        given || !settings.is_some_and(|settings| settings.service.hub.says_something()),
        "the hub stands in {}: change hub.join there, then: service agentmon reload",
        uci::DEFAULT_PATH
    );
    anyhow::ensure!(words.is_empty(), "unexpected argument `{}`", super::shown(&words.concat()));
    let join = Join::decode(&read(file.as_deref(), io)?)?;
    if !offline {
        let client = HubClient::new(&join, Timeouts::default()).map_err(anyhow::Error::msg)?;
        let hello = client.hello().map_err(|refusal| anyhow::anyhow!("{}: {refusal}", join.url))?;
        anyhow::ensure!(
            hello.sensor == join.name,
            "the hub knows this token as `{}`, the join line says `{}`",
            super::shown(&hello.sensor),
            join.name
        );
        let version = super::shown(&hello.version);
        writeln!(io.err, "{}: hub {version} welcomes {}", join.url, join.name)?;
    }
    join::save(&identity, &join)?;
    place::for_service(&identity)?;
    writeln!(io.err, "joined; kept in {}", identity.display())?;
    Ok(Outcome::Fine)
}

fn read(file: Option<&str>, io: &mut Io<'_>) -> anyhow::Result<String> {
    let mut line = Vec::new();
    let limit = LINE_BYTES_MAX as u64 + 1;
    match file {
        Some(path) if path != "-" => {
            let opened = File::open(path).with_context(|| super::shown(path))?;
            opened.take(limit).read_to_end(&mut line)?;
        }
        _ => {
            (&mut *io.input).take(limit).read_to_end(&mut line)?;
        }
    }
    Ok(String::from_utf8_lossy(&line).into_owned())
}
