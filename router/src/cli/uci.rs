//! `uci`: OpenWrt's settings for the init script and the package's own scripts.
//!
//! Lines on standard output are for the script: `toml PATH`, `changed yes|no`, `key HEX`,
//! `read DIR`, `write DIR`. Mistakes of the settings go to standard error, exit code 1.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::args::Args;
use super::{Io, Outcome, Result};
use crate::kernel::fw4;
use crate::uci::place::{self, Where};
use crate::uci::settings::Settings;
use crate::uci::{self, setup};

pub(super) fn run(mut args: Args, io: &mut Io<'_>) -> Result {
    let action = args.word().unwrap_or_default();
    let file = args.value("--uci")?.map_or_else(|| uci::DEFAULT_PATH.into(), PathBuf::from);
    let out = args.value("--out")?.map_or_else(|| place::OUT.into(), PathBuf::from);
    let state = args.value("--state")?.map(PathBuf::from);
    let user = args.value("--user")?;
    args.done()?;
    let dropins = out.join("nft.d");
    match action.as_str() {
        "render" => {
            let Some(settings) = load(&file, io)? else { return Ok(Outcome::Found) };
            let passwd = Path::new("/etc/passwd");
            let owner = user.map(|name| place::owner(&name, passwd)).transpose()?;
            let trusted = place::owner(place::OWN, passwd).ok().map(|own| own.uid);
            render(&settings, &Where { out, state, owner, trusted }, io)
        }
        "setup" => {
            let Some(settings) = load(&file, io)? else { return Ok(Outcome::Found) };
            let state = state.unwrap_or_else(|| settings.config.state_dir.clone());
            let (checks, noted) = setup::run(&settings, &state, &dropins);
            for check in checks.iter().filter(|check| !check.ok) {
                writeln!(io.err, "{check}")?;
            }
            noted.context("the note for the status page")?;
            Ok(Outcome::Fine)
        }
        "remove" => {
            fw4::remove(&dropins)?;
            Ok(Outcome::Fine)
        }
        _ => anyhow::bail!("want `uci render`, `uci setup` or `uci remove`"),
    }
}

/// The settings; `None` after their mistakes were told.
fn load(file: &Path, io: &mut Io<'_>) -> anyhow::Result<Option<Settings>> {
    match uci::load(file) {
        Ok(settings) => Ok(Some(settings)),
        Err(problems) => {
            for problem in problems {
                writeln!(io.err, "{problem}")?;
            }
            Ok(None)
        }
    }
}

fn render(settings: &Settings, at: &Where, io: &mut Io<'_>) -> Result {
    let placed = match place::place(settings, at) {
        Ok(placed) => placed,
        Err(error) => {
            writeln!(io.err, "{error:#}")?;
            return Ok(Outcome::Found);
        }
    };
    writeln!(io.out, "toml {}", placed.toml.display())?;
    writeln!(io.out, "changed {}", if placed.changed { "yes" } else { "no" })?;
    writeln!(io.out, "key {:016x}", placed.restart_key)?;
    for dir in &placed.reads {
        writeln!(io.out, "read {}", dir.display())?;
    }
    for dir in &placed.writes {
        writeln!(io.out, "write {}", dir.display())?;
    }
    Ok(Outcome::Fine)
}
