//! `status`: asks the running router and prints its answer.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;

use super::args::Args;
use super::{Io, Outcome, Result, config};
use crate::status::Request;

/// How long to wait for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn run(mut args: Args, io: &mut Io<'_>) -> Result {
    let socket = config(&mut args)?.resolved().status.socket;
    let json = args.flag("--json");
    args.done()?;
    let mut answer = String::new();
    let stream = ask(&socket, &Request::Status)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    BufReader::new(stream).read_line(&mut answer)?;
    if json {
        io.out.write_all(answer.as_bytes())?;
        return Ok(Outcome::Fine);
    }
    let status: Value = serde_json::from_str(&answer).context("the router's answer")?;
    if let Some(error) = status["error"].as_str() {
        anyhow::bail!("the router says: {}", super::shown(error));
    }
    write(&status, io.out)?;
    Ok(Outcome::Fine)
}

/// Connects to the running router and sends a request.
pub(super) fn ask(socket: &Path, request: &Request) -> anyhow::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket).with_context(|| {
        format!("no router answers at {}; is `agentmon-router run` running?", socket.display())
    })?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    Ok(stream)
}

/// For people; tolerant of fields a newer or older router does not have.
fn write(status: &Value, out: &mut dyn Write) -> std::io::Result<()> {
    let text = |v: &Value| super::shown(v.as_str().unwrap_or("-"));
    let number = |v: &Value| v.as_u64().unwrap_or(0);
    let (ring, forward) = (&status["ring"], &status["forward"]);
    writeln!(
        out,
        "agentmon-router {}, up {}",
        text(&status["version"]),
        duration(number(&status["uptime_seconds"]))
    )?;
    let target = match forward["url"].as_str() {
        Some(url) => format!("{} as {}: ", super::shown(url), text(&forward["sensor"])),
        None => String::new(),
    };
    let ago = match forward["last_ack_seconds"].as_u64() {
        Some(seconds) => format!(" (last answer {} ago)", duration(seconds)),
        None => String::new(),
    };
    let state =
        agentmon_core::name::printable(forward["state"].as_str().unwrap_or("-").as_bytes(), 500);
    writeln!(out, "hub         {target}{state}{ago}")?;
    let capacity = number(&ring["capacity"]).max(1);
    writeln!(
        out,
        "ring        {} waiting, {} of {} KiB ({} %); {} accepted, {} at the hub",
        number(&ring["pending"]),
        number(&ring["bytes"]) / 1024,
        capacity / 1024,
        number(&ring["bytes"]) * 100 / capacity,
        number(&ring["accepted"]),
        number(&ring["acked"]),
    )?;
    let learning = number(&status["tier0"]["tier0.direct_ip.learning_seconds"]);
    if learning > 0 {
        let left = duration(learning);
        writeln!(
            out,
            "learning    for {left} more: connections by address are noted, not reported"
        )?;
    }
    let line =
        |v: &Value| agentmon_core::name::printable(v.as_str().unwrap_or("-").as_bytes(), 500);
    let snapshot = &status["snapshot"];
    if snapshot.is_object() {
        writeln!(
            out,
            "snapshot    {}: {}; {} events, {} KiB written so far",
            line(&snapshot["path"]),
            line(&snapshot["state"]),
            number(&snapshot["events"]),
            number(&snapshot["bytes_written"]) / 1024,
        )?;
    }
    for lack in status["lacks"].as_array().into_iter().flatten() {
        let (what, why, mend) = (line(&lack["what"]), line(&lack["detail"]), line(&lack["mend"]));
        writeln!(out, "LACK        {what}: {why}; mend: {mend}")?;
    }
    // No bus is no news: most machines have none.
    if let Some(bus) = status["ubus"].as_str().filter(|bus| !bus.starts_with("off")) {
        writeln!(out, "ubus        {}", agentmon_core::name::printable(bus.as_bytes(), 500))?;
    }
    if number(&status["tier0"]["tier0.blocklist.compiling"]) > 0 {
        writeln!(out, "lists       long block lists are being read; nothing is listed until then")?;
    }
    writeln!(out, "collectors")?;
    for collector in status["collectors"].as_array().into_iter().flatten() {
        let state = collector["state"].as_str().unwrap_or("-");
        let state = agentmon_core::name::printable(state.as_bytes(), 500);
        writeln!(out, "  {:<12} {state}", text(&collector["name"]))?;
    }
    for (title, wanted) in [("lost", true), ("counters", false)] {
        let counters = status["counters"].as_object().into_iter().flatten();
        let of_kind: Vec<_> = counters
            .filter(|(name, value)| name.starts_with("drop.") == wanted && number(value) > 0)
            .collect();
        if of_kind.is_empty() {
            continue;
        }
        writeln!(out, "{title}")?;
        for (name, value) in of_kind {
            writeln!(out, "  {:<32} {:>12}", super::shown(name), number(value))?;
        }
    }
    Ok(())
}

/// `3 d 4 h`, `5 min 6 s`: the two largest units.
fn duration(seconds: u64) -> String {
    let (d, h, m, s) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    match (d, h, m) {
        (0, 0, 0) => format!("{s} s"),
        (0, 0, _) => format!("{m} min {s} s"),
        (0, ..) => format!("{h} h {m} min"),
        _ => format!("{d} d {h} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_shows_what_matters_and_nothing_raw() {
        let status = serde_json::json!({
            "version": "0.1.0", "uptime_seconds": 93_784,
            "forward": {"url": "https://192.0.2.1:8743", "sensor": "attic", "state": "connected",
                        "connected": true, "last_ack_seconds": 3},
            "ring": {"accepted": 10, "acked": 7, "pending": 2, "bytes": 8192, "capacity": 1_048_576,
                     "dropped": {"evicted": 1}},
            "snapshot": {"path": "/etc/s", "state": "ok", "events": 3, "bytes_written": 4096},
            "lacks": [{"what": "rules", "detail": "off: no nft", "mend": "update"}],
            "collectors": [{"name": "conntrack", "state": "ok\u{1b}[31m"}],
            "tier0": {"tier0.direct_ip.learning_seconds": 200},
            "counters": {"accepted": 10, "drop.ring.evicted": 1, "forward.failures": 0},
        });
        let mut out = Vec::new();
        write(&status, &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "agentmon-router 0.1.0, up 1 d 2 h\n\
             hub         https://192.0.2.1:8743 as attic: connected (last answer 3 s ago)\n\
             ring        2 waiting, 8 of 1024 KiB (0 %); 10 accepted, 7 at the hub\n\
             learning    for 3 min 20 s more: connections by address are noted, not reported\n\
             snapshot    /etc/s: ok; 3 events, 4 KiB written so far\n\
             LACK        rules: off: no nft; mend: update\n\
             collectors\n\
             \x20 conntrack    ok\\x1b[31m\n\
             lost\n\
             \x20 drop.ring.evicted                           1\n\
             counters\n\
             \x20 accepted                                   10\n"
        );
    }
}
