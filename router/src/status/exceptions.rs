//! `allow`, `allowed`, `forbid`: exceptions from what is enforced, while the router runs.
//!
//! In: the arguments of a call. Out: what holds now, or why not. Any thread; writes a small
//! file when something changes.

use agentmon_core::time::Timestamp;
use serde_json::{Value, json};

use super::api::{Arguments, Refusal, Source};
use crate::enforce::{AddError, Exception, Rule, duration};

/// Adds one.
pub(super) fn allow(source: &dyn Source, given: &Arguments<'_>) -> Result<Value, Refusal> {
    let text = |key| Ok::<_, Refusal>(given.text(key)?.unwrap_or_default().to_owned());
    let now = source.now().0;
    let until = match given.text("for")? {
        None => String::new(),
        Some(text) => {
            let time = duration(text).map_err(|why| Refusal::Argument("for", why))?;
            now.plus(time).to_string()
        }
    };
    let exception =
        Exception { what: text("what")?, device: text("device")?, until, why: text("why")? };
    let gate = source.gate().ok_or(Refusal::NotSupported)?;
    let rule = gate.allow(&exception, now).map_err(refused)?;
    Ok(json!({ "allowed": row(&rule, true) }))
}

/// Takes some away.
pub(super) fn forbid(source: &dyn Source, given: &Arguments<'_>) -> Result<Value, Refusal> {
    let want = || Refusal::Argument("which", "want an id, a name or an address".into());
    let which = given.text("which")?.ok_or_else(want)?;
    let gate = source.gate().ok_or(Refusal::NotSupported)?;
    match gate.forbid(which).map_err(refused)? {
        0 => Err(Refusal::Argument("which", "no exception that was added is called so".into())),
        removed => Ok(json!({ "removed": removed })),
    }
}

/// All that hold.
pub(super) fn allowed(source: &dyn Source) -> Result<Value, Refusal> {
    let gate = source.gate().ok_or(Refusal::NotSupported)?;
    let (exceptions, now): (_, Timestamp) = (gate.exceptions(), source.now().0);
    let rows: Vec<_> = exceptions.iter(now).map(|(rule, added)| row(rule, added)).collect();
    Ok(json!({ "allowed": rows }))
}

fn row(rule: &Rule, added: bool) -> Value {
    let Exception { what, device, until, why } = &rule.written;
    json!({
        "id": rule.id(), "what": what, "device": device, "until": until, "why": why,
        "added": added,
    })
}

fn refused(error: AddError) -> Refusal {
    match error {
        AddError::Wrong(key, why) => Refusal::Argument(key, why),
        other => Refusal::Exception(other.to_string()),
    }
}
