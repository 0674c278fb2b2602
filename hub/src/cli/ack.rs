//! `agentmon ack`: marks alerts as seen, or open again.

use super::args::AckArgs;
use super::backend::ask;
use super::context::{Context, Exit};
use crate::control::Request;

/// Longest note in bytes.
const NOTE_BYTES_MAX: usize = 4_096;

/// Each alert is one request; the first that fails ends the command.
pub(crate) fn run(args: &AckArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    if args.note.as_ref().is_some_and(|note| note.len() > NOTE_BYTES_MAX) {
        anyhow::bail!("--note: at most {NOTE_BYTES_MAX} bytes");
    }
    for id in &args.ids {
        let request = Request::Ack { id: *id, note: args.note.clone(), undo: args.undo };
        let outcome = ask(context.hub, &request, &mut |_| Ok(()))?;
        if outcome.count == 0 {
            anyhow::bail!("there is no alert {id}; see `agentmon alerts --all`");
        }
        let what = if args.undo { "open again" } else { "acknowledged" };
        context.say(&format!("alert {id} is {what}"));
    }
    Ok(Exit::Fine)
}
