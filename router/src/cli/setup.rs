//! `setup`: turns on what the kernel needs, and adds or removes agentmon's firewall table.

use super::args::Args;
use super::{Io, Outcome, Result, config};
use crate::kernel::probe::Groups;
use crate::kernel::{rules, setup};

pub(super) fn run(mut args: Args, io: &mut Io<'_>) -> Result {
    let (install, remove, print) =
        (args.flag("--rules"), args.flag("--remove"), args.flag("--print"));
    let groups = Groups::from(&config(&mut args)?.collect);
    args.done()?;
    anyhow::ensure!(
        u8::from(install) + u8::from(remove) + u8::from(print) <= 1,
        "`--rules`, `--remove` and `--print` exclude each other"
    );
    if print {
        write!(io.out, "{}\n{}", rules::table(groups), rules::firewall_snippet(groups))?;
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
    }
    Ok(outcome)
}
