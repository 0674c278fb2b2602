//! `agentmon status` and `agentmon reload`: the hub itself.

use serde_json::{Map, Value};

use super::args::StatusArgs;
use super::backend::{ask, one_row};
use super::context::{Context, Exit};
use super::text;
use crate::control::Request;

/// The hub's own account of itself, as lines or as one JSON object.
pub(crate) fn run(args: &StatusArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let Some((columns, row)) = one_row(context.hub, &Request::Status)? else {
        anyhow::bail!("the hub gave no status");
    };
    // One column holding an object, or one column per fact: both read the same here.
    let facts = match row.as_slice() {
        [Value::Object(facts)] => facts.clone(),
        [Value::String(json)] if json.starts_with('{') => serde_json::from_str(json)?,
        _ => columns.into_iter().zip(row).collect::<Map<_, _>>(),
    };
    if args.json {
        writeln!(context.out, "{}", text::safe_json(Value::Object(facts).to_string()))?;
        return Ok(Exit::Fine);
    }
    print(context, "", &facts)?;
    Ok(Exit::Fine)
}

fn print(
    context: &mut Context<'_>,
    prefix: &str,
    facts: &Map<String, Value>,
) -> anyhow::Result<()> {
    for (key, value) in facts {
        let key = format!("{prefix}{key}");
        match value {
            Value::Object(inner) => print(context, &format!("{key}."), inner)?,
            Value::String(s) => line(context, &key, s)?,
            other => line(context, &key, &other.to_string())?,
        }
    }
    Ok(())
}

fn line(context: &mut Context<'_>, key: &str, value: &str) -> anyhow::Result<()> {
    Ok(writeln!(context.out, "{:<24}  {}", text::safe(key), text::safe(value))?)
}

/// The hub says itself when the new configuration is refused.
pub(crate) fn reload(context: &mut Context<'_>) -> anyhow::Result<Exit> {
    ask(context.hub, &Request::Reload, &mut |_| Ok(()))?;
    context.say("the hub has read its configuration again");
    Ok(Exit::Fine)
}
