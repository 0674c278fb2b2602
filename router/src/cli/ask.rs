//! `alerts`, `ack`, `flows`, `devices`: what the running router knows, asked over its status
//! socket; the same answers that OpenWrt's bus gives.
//!
//! `--json` prints one row a line.

use std::io::{BufRead, BufReader, Read, Write};
use std::time::Duration;

use agentmon_core::Timestamp;
use anyhow::Context as _;
use serde_json::{Map, Value};

use super::args::Args;
use super::{Io, Outcome, Result, config, shown, status};
use crate::status::Request;

/// How long to wait for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest answer taken: 200 rows of 4 KB.
const ANSWER_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// A list command: its rows' key, its options, and one row for people.
struct List {
    method: &'static str,
    options: &'static [&'static str],
    empty: &'static str,
    write: fn(&Value, &mut dyn Write) -> std::io::Result<()>,
}

pub(super) fn alerts(mut args: Args, io: &mut Io<'_>) -> Result {
    let mut arguments = Map::new();
    if args.flag("--open") {
        arguments.insert("open".into(), true.into());
    }
    let options = &["device", "rule", "severity"];
    list(List { method: "alerts", options, empty: "no alerts", write: alert }, args, arguments, io)
}

pub(super) fn flows(args: Args, io: &mut Io<'_>) -> Result {
    let list_of = List { method: "flows", options: &["device"], empty: "no flows", write: flow };
    list(list_of, args, Map::new(), io)
}

pub(super) fn devices(args: Args, io: &mut Io<'_>) -> Result {
    let list_of = List { method: "devices", options: &[], empty: "no devices", write: device };
    list(list_of, args, Map::new(), io)
}

pub(super) fn ack(mut args: Args, io: &mut Io<'_>) -> Result {
    let socket = config(&mut args)?.resolved().status.socket;
    let note = args.value("--note")?;
    let words = args.words()?;
    let [id] = words.as_slice() else {
        anyhow::bail!("which alert? `agentmon-router alerts` shows their ids");
    };
    let mut arguments = Map::new();
    arguments.insert("id".into(), id.clone().into());
    if let Some(note) = note {
        arguments.insert("note".into(), note.into());
    }
    call(&socket, "ack", arguments)?;
    writeln!(io.out, "{}: acknowledged", shown(id))?;
    Ok(Outcome::Fine)
}

pub(super) fn allow(mut args: Args, io: &mut Io<'_>) -> Result {
    if args.flag("--list") {
        let list_of =
            List { method: "allowed", options: &[], empty: "no exceptions", write: exception };
        return list(list_of, args, Map::new(), io);
    }
    let socket = config(&mut args)?.resolved().status.socket;
    let mut arguments = Map::new();
    if let Some(which) = args.value("--remove")? {
        args.done()?;
        arguments.insert("which".into(), which.clone().into());
        call(&socket, "forbid", arguments)?;
        writeln!(io.out, "{}: no longer let through", shown(&which))?;
        return Ok(Outcome::Fine);
    }
    for option in ["device", "for", "why"] {
        if let Some(value) = args.value(&format!("--{option}"))? {
            arguments.insert(option.to_owned(), value.into());
        }
    }
    match args.words()?.as_slice() {
        [] if arguments.contains_key("device") => {}
        [what] => drop(arguments.insert("what".into(), what.clone().into())),
        _ => anyhow::bail!("which name or address? For example: allow shop.example.com --for 2h"),
    }
    let answer = call(&socket, "allow", arguments)?;
    exception(&answer["allowed"], io.out)?;
    Ok(Outcome::Fine)
}

fn list(list: List, mut args: Args, mut arguments: Map<String, Value>, io: &mut Io<'_>) -> Result {
    let socket = config(&mut args)?.resolved().status.socket;
    let json = args.flag("--json");
    if let Some(limit) = args.number::<u32>("--limit")? {
        arguments.insert("limit".into(), limit.into());
    }
    for option in list.options {
        if let Some(value) = args.value(&format!("--{option}"))? {
            arguments.insert((*option).to_owned(), value.into());
        }
    }
    args.done()?;
    let answer = call(&socket, list.method, arguments)?;
    let rows = answer[list.method].as_array().map(Vec::as_slice).unwrap_or_default();
    for row in rows {
        if json {
            writeln!(io.out, "{row}")?;
        } else {
            (list.write)(row, io.out)?;
        }
    }
    if rows.is_empty() && !json {
        writeln!(io.err, "{}", list.empty)?;
    }
    Ok(Outcome::Fine)
}

fn call(
    socket: &std::path::Path,
    method: &str,
    arguments: Map<String, Value>,
) -> anyhow::Result<Value> {
    let request = Request::Call { method: method.to_owned(), arguments };
    let stream = status::ask(socket, &request)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new(stream.take(ANSWER_BYTES_MAX)).read_line(&mut line)?;
    let mut answer: Value = serde_json::from_str(&line).context("the router's answer")?;
    if let Some(error) = answer["error"].as_str() {
        anyhow::bail!("the router says: {}", agentmon_core::name::printable(error.as_bytes(), 300));
    }
    Ok(answer["answer"].take())
}

/// A text of a row; `-` where it is not known. The router has made it printable, but who
/// answers at the socket may be another.
fn text(row: &Value, key: &str) -> String {
    row[key].as_str().map_or_else(|| "-".to_owned(), shown)
}

fn time(row: &Value, key: &str) -> String {
    let ms = row[key].as_i64().unwrap_or(0);
    Timestamp::from_micros(ms.saturating_mul(1_000)).to_string()
}

fn number(row: &Value, key: &str) -> u64 {
    row[key].as_u64().unwrap_or(0)
}

fn alert(row: &Value, out: &mut dyn Write) -> std::io::Result<()> {
    let acked = if row["acked"] == true { ", acknowledged" } else { "" };
    writeln!(
        out,
        "{}  {:<8} {}  {}  {} ({} times{acked})",
        text(row, "id"),
        text(row, "severity"),
        time(row, "time"),
        text(row, "device"),
        text(row, "title"),
        number(row, "count"),
    )?;
    writeln!(out, "    {}", text(row, "why"))
}

fn flow(row: &Value, out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(
        out,
        "{}  {:<20} {} port {} {} {} ({} B out, {} B in, {})",
        time(row, "time"),
        text(row, "device"),
        text(row, "dst"),
        number(row, "dst_port"),
        text(row, "proto"),
        text(row, "name"),
        number(row, "bytes_out"),
        number(row, "bytes_in"),
        text(row, "state"),
    )
}

fn device(row: &Value, out: &mut dyn Write) -> std::io::Result<()> {
    let ips = row["ips"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let ips = ips.map(shown).collect::<Vec<_>>().join(" ");
    writeln!(
        out,
        "{:<20} {:<17}{}  {} questions ({} refused), {} flows, {} B, last {}  {ips}",
        text(row, "device"),
        text(row, "mac"),
        match row["mac_kind"].as_str() {
            Some("random") => " (random)",
            Some("virtual") => " (virtual)",
            _ => "",
        },
        number(row, "queries"),
        number(row, "blocked"),
        number(row, "flows"),
        number(row, "bytes"),
        time(row, "last_seen"),
    )
}

fn exception(row: &Value, out: &mut dyn Write) -> std::io::Result<()> {
    let or = |key, otherwise: &str| match row[key].as_str() {
        None | Some("") => otherwise.to_owned(),
        Some(text) => shown(text),
    };
    let origin = if row["added"] == true { "added" } else { "configured" };
    writeln!(
        out,
        "{}  {}  for {}  until {}  ({origin}) {}",
        text(row, "id"),
        or("what", "everything"),
        or("device", "everybody"),
        or("until", "it is removed"),
        or("why", ""),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(write: fn(&Value, &mut dyn Write) -> std::io::Result<()>, row: Value, expected: &str) {
        let mut out = Vec::new();
        write(&row, &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn rows_are_lines_and_nothing_is_raw() {
        check(
            alert,
            json!({
                "id": "ab", "severity": "high", "time": 1_795_000_000_123i64, "count": 2,
                "device": "lap\u{1b}top", "title": "Name: x", "why": "asked", "acked": true,
            }),
            "ab  high     2026-11-18T11:06:40.123000Z  lap\\x1btop  Name: x (2 times, acknowledged)\n    asked\n",
        );
        check(
            flow,
            json!({
                "time": 0, "device": "laptop", "dst": "203.0.113.1", "dst_port": 443,
                "proto": "tcp", "bytes_out": 1, "bytes_in": 2, "state": "open",
            }),
            "1970-01-01T00:00:00.000000Z  laptop               203.0.113.1 port 443 tcp - (1 B out, 2 B in, open)\n",
        );
        check(
            device,
            json!({ "device": "laptop", "mac": "00:00:5e:00:53:07", "ips": ["192.0.2.1"], "queries": 3 }),
            "laptop               00:00:5e:00:53:07  3 questions (0 refused), 0 flows, 0 B, last 1970-01-01T00:00:00.000000Z  192.0.2.1\n",
        );
        // A router of another version, or no router at all.
        check(
            device,
            json!({}),
            "-                    -                  0 questions (0 refused), 0 flows, 0 B, last 1970-01-01T00:00:00.000000Z  \n",
        );
    }
}
