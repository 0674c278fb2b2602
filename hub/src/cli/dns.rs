//! `agentmon dns`: who asked for what, and what came of it.

use super::args::ListArgs;
use super::condition::{Term, Terms};
use super::context::{Context, Exit, Look};
use super::filter::Key;
use super::list::{self, SINCE_DEFAULT, Wanted};
use super::sheet::{Cell, Column, Kind, Paint, Row, Sheet};

/// What filter words mean for `dns`.
pub(crate) const TERMS: &Terms = &[
    (Key::Client, Term::Address(&["client"])),
    (Key::Src, Term::Address(&["client"])),
    (Key::Device, Term::Device("mac", &["client"], "time")),
    (Key::Domain, Term::Domain(&["name"])),
    (Key::Name, Term::Text("name")),
    (Key::Type, Term::RecordType("qtype")),
    (Key::Status, Term::Text("status")),
    (Key::Sensor, Term::Sensor("sensor")),
    (Key::Ip, Term::AddressOrAnswer("client", "answers")),
    (Key::Proc, Term::Nothing),
];

const COLUMNS: &[Column] = &[
    Column::new("TIME", |r, l| r.when("time", l)),
    Column::new("CLIENT", |r, _| r.host("client", "client_name")),
    Column::new("TYPE", |r, _| r.plain("type")),
    Column::new("NAME", |r, _| r.plain("name")),
    Column::new("STATUS", status),
    Column::new("ANSWER", answer),
];

fn status(row: &Row<'_>, _: &Look) -> Cell {
    let paint = match row.text("status") {
        "blocked" => Paint::Bad,
        "timeout" => Paint::Warn,
        "cached" | "local" => Paint::Dim,
        _ => Paint::Plain,
    };
    row.plain("status").paint(paint)
}

/// What the client was told: answers, or the reason for none.
fn answer(row: &Row<'_>, _: &Look) -> Cell {
    let answers = row.list("answers");
    let (rcode, list) = (row.text("rcode"), row.text("blocked_by"));
    match (answers.is_empty(), rcode, list) {
        (_, _, list) if !list.is_empty() => Cell::new(&format!("by {list}")).paint(Paint::Dim),
        (false, ..) => Cell::new(&answers),
        (true, "NXDOMAIN" | "SERVFAIL" | "REFUSED", _) => Cell::new(rcode).paint(Paint::Warn),
        (true, "NOERROR", _) => Cell::new("no such record").paint(Paint::Dim),
        (true, other, _) => Cell::new(other),
    }
}

/// The fields of a DNS record, in the order of [`SELECT`].
pub(crate) fn sheet() -> Sheet {
    Sheet::new(
        &[
            ("time", Kind::Time),
            ("sensor", Kind::Plain),
            ("client", Kind::Plain),
            ("client_name", Kind::DeviceAt("client", Some("mac"))),
            ("mac", Kind::Plain),
            ("name", Kind::Plain),
            ("domain", Kind::Plain),
            ("type", Kind::RecordType),
            ("status", Kind::Plain),
            ("rcode", Kind::ResponseCode),
            ("answers", Kind::Plain),
            ("ttl", Kind::Plain),
            ("upstream", Kind::Plain),
            ("latency_us", Kind::Plain),
            ("blocked_by", Kind::Plain),
            ("source", Kind::Plain),
        ],
        COLUMNS,
    )
}

/// Columns of [`sheet`].
pub(crate) const SELECT: &str = "SELECT time, (SELECT s.name FROM sensors s WHERE s.id = sensor), \
     client, mac, name, domain, qtype, status, rcode, answers, ttl, upstream, latency_us, \
     blocked_by, source FROM dns";

/// Newest first.
pub(crate) fn run(args: &ListArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let wanted = Wanted::read(args, Some(SINCE_DEFAULT), context)?;
    let mut condition = wanted.condition(TERMS, "time")?;
    let select = condition.over(SELECT, "dns");
    let sql = format!("{select} WHERE {} ORDER BY time DESC, name, client LIMIT ?", condition.sql);
    list::run(context, &wanted, &sheet(), &sql, condition)?;
    Ok(Exit::Fine)
}
