//! `setup`: turns on what the kernel needs, and adds or removes agentmon's firewall table.

use super::args::Args;
use super::{Io, Outcome, Result, config};
use crate::kernel::hold::{self, By, Hold};
use crate::kernel::probe::Groups;
use crate::kernel::{rules, setup};

pub(super) fn run(mut args: Args, io: &mut Io<'_>) -> Result {
    let (install, remove, print) =
        (args.flag("--rules"), args.flag("--remove"), args.flag("--print"));
    let config = config(&mut args)?;
    let groups = Groups::from(&config.collect);
    let hold = Hold::of(&config);
    args.done()?;
    anyhow::ensure!(
        u8::from(install) + u8::from(remove) + u8::from(print) <= 1,
        "`--rules`, `--remove` and `--print` exclude each other"
    );
    if print {
        let hold = hold.map(|hold| hold::table(&hold) + "\n").unwrap_or_default();
        let snippet = rules::firewall_snippet(groups);
        write!(io.out, "{}\n{hold}{snippet}", rules::table(groups))?;
        return Ok(Outcome::Fine);
    }
    if remove {
        setup::remove()?;
        writeln!(io.out, "table {} is gone", rules::TABLE)?;
        return Ok(Outcome::Fine);
    }
    let mut outcome = Outcome::Fine;
    for done in setup::switches() {
        writeln!(io.out, "{done}")?;
        if !done.ok {
            outcome = Outcome::Found;
        }
    }
    if install {
        setup::install(groups)?;
        writeln!(io.out, "table {} is in force", rules::TABLE)?;
        if let Some(hold) = hold {
            match hold::install(&hold)? {
                By::Nft => writeln!(io.out, "table {} is in force", rules::HOLD_TABLE)?,
                By::Iptables => writeln!(
                    io.out,
                    "the kernel's nftables has no queue: chains of iptables are in force"
                )?,
            }
        }
    }
    Ok(outcome)
}
