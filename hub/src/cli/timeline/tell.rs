//! Rows as sentences. Pure. Times in a sentence are of the zone it is told in; machine output
//! is told in UTC, so that it says the same everywhere.

use std::net::IpAddr;
use std::time::Duration;

use jiff::tz::TimeZone;

use crate::cli::context::Look;
use crate::cli::sheet::{Row, host};
use crate::cli::{flows, units, when};

/// A row as a sentence.
#[derive(Default)]
pub(super) struct Told {
    pub(super) at: &'static str,
    pub(super) client: &'static str,
    pub(super) client_name: &'static str,
    pub(super) severity: Option<String>,
    /// The program, with its number and its host: `curl (pid 412) on laptop`.
    pub(super) program: Option<String>,
    pub(super) text: String,
}

/// What belongs to a connection, beside its own row.
#[derive(Clone, Copy, Default)]
pub(super) struct Beside<'a> {
    pub(super) asked: Option<Row<'a>>,
    pub(super) owner: Option<Row<'a>>,
    /// An agent on that host tells of programs, so that none known is a gap.
    pub(super) watched: bool,
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
    let text = format!("asked for {name}{kind}{}: {outcome}", resolver(row));
    Told { at: "time", client: "client", client_name: "client_name", text, ..Told::default() }
}

/// ` (Pi-hole, 3 ms)`: who resolved it, as its log is called, and how long that took.
fn resolver(row: &Row<'_>) -> String {
    let source = match row.text("source") {
        source if source.starts_with("pihole") => "Pi-hole",
        source if source.starts_with("adguard") => "AdGuard Home",
        "dnsmasq-log" => "dnsmasq",
        "passive-dns" => "on the wire",
        source => source,
    };
    let status = Some(row.text("status")).filter(|status| matches!(*status, "cached" | "local"));
    let taken = row.number("latency_us").map(|us| match us {
        0..1_000 => "under 1 ms".to_owned(),
        us => units::duration(Duration::from_micros(us)),
    });
    let known = [Some(source.to_owned()), status.map(str::to_owned), taken];
    let known: Vec<_> = known.into_iter().flatten().filter(|text| !text.is_empty()).collect();
    if known.is_empty() { String::new() } else { format!(" ({})", known.join(", ")) }
}

pub(super) fn flow(row: &Row<'_>, _: &Look) -> Told {
    connected(row, Beside::default(), &TimeZone::UTC)
}

/// A connection with its question and its program, in one sentence.
pub(super) fn connected(row: &Row<'_>, beside: Beside<'_>, zone: &TimeZone) -> Told {
    let mut text = String::new();
    let mut to = place(row, "");
    if let Some(asked) = &beside.asked {
        text.push_str(&format!("resolved {}{}, ", row.text("name"), resolver(asked)));
        text.push_str(&row.time("start").map_or_else(String::new, |t| when::clock(t, zone) + " "));
    } else {
        let name = [row.text("name"), row.text("dst_name")].into_iter().find(|n| !n.is_empty());
        to = place(row, name.unwrap_or_default());
    }
    text.push_str(&format!("connected to {to}"));
    let age = row.number("name_age_ms").filter(|_| beside.asked.is_none());
    if let Some(age) = age.filter(|_| !row.text("name").is_empty()) {
        let age = units::duration(Duration::from_millis(age));
        text.push_str(&format!(", resolved {age} before"));
    }
    text.push_str(&volume(row));
    gaps(row, &beside, &mut text);
    let at = if beside.asked.is_some() { "asked" } else { "start" };
    let program = beside.owner.as_ref().and_then(program);
    Told { at, client: "src", client_name: "src_name", program, text, ..Told::default() }
}

/// What is not known and might be.
fn gaps(row: &Row<'_>, beside: &Beside<'_>, text: &mut String) {
    let nameless = row.text("name").is_empty() && row.text("dst_name").is_empty();
    if nameless && row.text("dst").parse().is_ok_and(is_public) {
        text.push_str(", no DNS seen");
    }
    if beside.watched && beside.owner.as_ref().and_then(program).is_none() {
        text.push_str(", no process known");
    }
}

/// An address outside one's own and special networks, where a name would be expected.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => {
            let local = v4.is_private() || v4.is_loopback() || v4.is_link_local();
            !(local || v4.is_multicast() || v4.is_broadcast() || v4.is_unspecified())
        }
        IpAddr::V6(v6) => {
            let first = v6.segments().first().copied().unwrap_or_default();
            let local = first & 0xfe00 == 0xfc00 || first & 0xffc0 == 0xfe80;
            !(local || v6.is_loopback() || v6.is_multicast() || v6.is_unspecified())
        }
    }
}

/// `203.0.113.5:443`, with the protocol where it is not TCP; behind a name in parentheses.
fn place(row: &Row<'_>, name: &str) -> String {
    let (address, port) = (row.text("dst"), row.number("dport").unwrap_or_default());
    let address = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    let at = match row.text("proto") {
        icmp @ ("icmp" | "icmpv6") => return format!("{} by {icmp}", host(row.text("dst"), name)),
        "tcp" => format!("{address}:{port}"),
        proto => format!("{address}:{port}/{proto}"),
    };
    host(&at, name)
}

fn volume(row: &Row<'_>) -> String {
    let mut text = String::new();
    if let (Some(out), Some(inward)) = (row.number("bytes_out"), row.number("bytes_in")) {
        text.push_str(&format!(", {} out / {} in", units::bytes(out), units::bytes(inward)));
    }
    let taken = row.millis("duration_ms").text;
    match (row.flag("open"), taken.is_empty()) {
        (true, true) => text.push_str(", still open"),
        (true, false) => text.push_str(&format!(", still open after {taken}")),
        (false, false) => text.push_str(&format!(", {taken}")),
        (false, true) => {}
    }
    // Only a router knows of answers.
    let silent = row.sheet.fields.iter().any(|f| f.key == "replied") && !row.flag("replied");
    if silent && !row.flag("open") {
        text.push_str(", no reply");
    }
    text
}

/// `curl (pid 412, from claude-code) on laptop`.
fn program(row: &Row<'_>) -> Option<String> {
    let key = if row.sheet.fields.iter().any(|f| f.key == "program") { "program" } else { "name" };
    let name = row.text(key);
    let pid = row.number("pid");
    if name.is_empty() && pid.is_none() {
        return None;
    }
    let name = if name.is_empty() { "a program" } else { name };
    let from = match row.text("parent") {
        "" => String::new(),
        parent => format!(", from {parent}"),
    };
    let pid = pid.map_or_else(String::new, |pid| format!(" (pid {pid}{from})"));
    let host = match row.text("host") {
        "" => String::new(),
        host => format!(" on {host}"),
    };
    Some(format!("{name}{pid}{host}"))
}

/// A connection that only its host saw.
pub(super) fn connection(row: &Row<'_>, _: &Look) -> Told {
    let name = [row.text("domain"), row.text("dst_name")].into_iter().find(|n| !n.is_empty());
    let did = if row.text("direction") == "in" {
        let from = host(row.text("src"), row.text("src_name"));
        format!("was reached by {from} on port {}", row.number("dport").unwrap_or_default())
    } else {
        format!("connected to {}", place(row, name.unwrap_or_default()))
    };
    let text = format!("{did}{}, seen by its host only", volume(row));
    let inward = row.text("direction") == "in";
    let (client, client_name) = if inward { ("dst", "dst_name") } else { ("src", "src_name") };
    let program = program(row).or_else(|| Some("a program nobody could name".to_owned()));
    Told { at: "start", client, client_name, program, text, severity: None }
}

pub(super) fn process(row: &Row<'_>, _: &Look) -> Told {
    let did = match row.text("phase") {
        "running" => "was running already",
        "start" => "began",
        "exec" => "became another program",
        _ => "ended",
    };
    let command = match (row.text("phase"), row.list("argv")) {
        ("exit", _) => String::new(),
        (_, argv) if argv.is_empty() => String::new(),
        (_, argv) => format!(": {}", argv.replace(", ", " ")),
    };
    let user = match row.text("user") {
        "" => String::new(),
        user => format!(" as {user}"),
    };
    let text = format!("{did}{user}{command}");
    Told { at: "time", program: program(row), text, ..Told::default() }
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
    Told { at: "time", client: "src", client_name: "src_name", text, ..Told::default() }
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
        ..Told::default()
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
    Told { at: "since", text, ..Told::default() }
}

pub(super) fn device(row: &Row<'_>, _: &Look) -> Told {
    let text = format!("first seen on this network, MAC {}", row.text("mac"));
    Told { at: "time", client: "ip", client_name: "hostname", text, ..Told::default() }
}
