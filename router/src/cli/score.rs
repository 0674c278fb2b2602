//! `score`: what the detectors say about a name, without a running router.
//!
//! The name is put through tier-0 as the DNS query it would be: same code, same verdict.

use agentmon_core::Name;
use agentmon_core::finding::Finding;
use agentmon_core::tier0::Engine;
use anyhow::Context as _;
use serde_json::json;

use super::args::Args;
use super::{Io, Outcome, Result, config};
use crate::lists;

pub(super) fn run(mut args: Args, io: &mut Io<'_>) -> Result {
    let config = config(&mut args)?.resolved();
    let json = args.flag("--json");
    let names = args.words()?;
    anyhow::ensure!(!names.is_empty(), "which name? For example: score www.example.com");
    let lists = lists::borrow(&config.tier0, &config.state_dir)?;
    let engine = Engine::new(&config.tier0, lists);
    let mut outcome = Outcome::Fine;
    for text in names {
        let name =
            Name::parse(text.as_bytes()).with_context(|| format!("`{}`", super::shown(&text)))?;
        let found = engine.verdict(&name);
        if !found.is_empty() {
            outcome = Outcome::Found;
        }
        if json {
            writeln!(io.out, "{}", json!({ "name": name, "findings": found }))?;
        } else {
            write(io, &name, &found)?;
        }
    }
    Ok(outcome)
}

fn write(io: &mut Io<'_>, name: &Name, found: &[Finding]) -> std::io::Result<()> {
    if found.is_empty() {
        return writeln!(io.out, "{name}: nothing found");
    }
    for f in found {
        writeln!(io.out, "{name}: {} {} {:.2}: {}", f.severity().as_str(), f.rule, f.score, f.why)?;
        for (key, value) in &f.evidence {
            writeln!(io.out, "  {key:<16} {value}")?;
        }
    }
    Ok(())
}
