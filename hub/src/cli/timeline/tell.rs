//! Rows as sentences. Pure; no times of the reader's zone, so that JSON says the same
//! everywhere.

use std::time::Duration;

use crate::cli::context::Look;
use crate::cli::sheet::{Row, host};
use crate::cli::{flows, units};

/// A row as a sentence.
pub(super) struct Told {
    pub(super) at: &'static str,
    pub(super) client: &'static str,
    pub(super) client_name: &'static str,
    pub(super) severity: Option<String>,
    pub(super) text: String,
}

pub(super) fn dns(row: &Row<'_>, _: &Look) -> Told {
    let (name, kind) = (row.text("name"), row.text("type"));
    let kind = if kind == "A" { String::new() } else { format!(" ({kind})") };
    let answers = row.list("answers");
    let outcome = match (row.text("status"), row.text("rcode")) {
        ("blocked", _) => match row.text("blocked_by") {
            "" => "blocked".to_owned(),
            by => format!("blocked by {by}"),
        },
        ("timeout", _) => "no answer".to_owned(),
        (_, "NXDOMAIN") => "no such name".to_owned(),
        (_, code) if !matches!(code, "" | "NOERROR") => code.to_owned(),
        (_, "NOERROR") if answers.is_empty() => "no such record".to_owned(),
        _ if answers.is_empty() => "asked".to_owned(),
        _ => answers,
    };
    Told {
        at: "time",
        client: "client",
        client_name: "client_name",
        severity: None,
        text: format!("asked for {name}{kind}: {outcome}"),
    }
}

pub(super) fn flow(row: &Row<'_>, look: &Look) -> Told {
    let name = [row.text("name"), row.text("dst_name")].into_iter().find(|n| !n.is_empty());
    let mut text = format!(
        "connected to {} {}",
        host(row.text("dst"), name.unwrap_or_default()),
        flows::port(row, look).text
    );
    if let Some(age) = row.number("name_age_ms").filter(|_| !row.text("name").is_empty()) {
        let age = units::duration(Duration::from_millis(age));
        text.push_str(&format!(", resolved {age} before"));
    }
    if let (Some(out), Some(inward)) = (row.number("bytes_out"), row.number("bytes_in")) {
        text.push_str(&format!(", {} out, {} in", units::bytes(out), units::bytes(inward)));
    }
    match (row.flag("open"), row.flag("replied")) {
        (true, _) => text.push_str(", still open"),
        (false, false) => text.push_str(", no reply"),
        (false, true) => {
            let taken = row.millis("duration_ms").text;
            if !taken.is_empty() {
                text.push_str(&format!(", took {taken}"));
            }
        }
    }
    Told { at: "start", client: "src", client_name: "src_name", severity: None, text }
}

pub(super) fn firewall(row: &Row<'_>, look: &Look) -> Told {
    let did = match row.text("verdict") {
        "drop" => "firewall dropped a packet to",
        "reject" => "firewall rejected a packet to",
        _ => "firewall logged a packet to",
    };
    let to = host(row.text("dst"), row.text("dst_name"));
    let rule = match row.text("prefix").trim() {
        "" => String::new(),
        prefix => format!(" (rule {prefix})"),
    };
    let text = format!("{did} {to} {}{rule}", flows::port(row, look).text);
    Told { at: "time", client: "src", client_name: "src_name", severity: None, text }
}

pub(super) fn finding(row: &Row<'_>, _: &Look) -> Told {
    let severity = row.text("severity").to_owned();
    let alert = row.number("alert").map_or_else(String::new, |id| format!(" (alert {id})"));
    let text = format!("{severity} {}: {}{alert}", row.text("rule"), row.text("why"));
    Told {
        at: "time",
        client: "client",
        client_name: "client_name",
        severity: Some(severity),
        text,
    }
}

/// Times of the span are fields; the text must not depend on the reader's zone.
pub(super) fn gap(row: &Row<'_>, _: &Look) -> Told {
    let lost = match row.number("lost") {
        Some(n) => format!("{} lost", units::count(n)),
        None => "how much was lost is not known".to_owned(),
    };
    let span = match (row.time("since"), row.time("time")) {
        (Some(since), Some(time)) => units::duration(time.since(since)),
        _ => "some time".to_owned(),
    };
    let text = format!(
        "blind for {span}: {} of sensor {} ({}; {lost})",
        row.text("collector"),
        row.text("sensor"),
        row.text("reason"),
    );
    Told { at: "since", client: "", client_name: "", severity: None, text }
}

pub(super) fn device(row: &Row<'_>, _: &Look) -> Told {
    let text = format!("first seen on this network, MAC {}", row.text("mac"));
    Told { at: "time", client: "ip", client_name: "hostname", severity: None, text }
}
