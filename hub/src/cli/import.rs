//! `agentmon import`: history from files.
use super::args::ImportArgs;
use super::context::{Context, Exit};
pub(crate) fn run(_args: &ImportArgs, _context: &mut Context<'_>) -> anyhow::Result<Exit> {
    anyhow::bail!("not there yet")
}
