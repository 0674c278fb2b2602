//! `agentmon new`: what was never there before: a device's new domains, places and ports,
//! and new devices.

use super::args::ListArgs;
use super::baseline::WHOSE;
use super::condition::{Term, Terms};
use super::context::{Context, Exit, Look};
use super::filter::Key;
use super::list::{self, Wanted};
use super::sheet::{Cell, Column, Kind, Paint, Row, Sheet};

const TERMS: &Terms = &[
    (Key::Device, Term::Device("mac", &["client"], "first_seen")),
    (Key::Client, Term::Address(&["client"])),
    (Key::Src, Term::Address(&["client"])),
    (Key::Kind, Term::Text("kind")),
    (Key::Domain, Term::Domain(&["what"])),
    (Key::Name, Term::Text("what")),
    (Key::Proc, Term::Nothing),
];

const COLUMNS: &[Column] = &[
    Column::new("FIRST SEEN", |r, l| r.when("first_seen", l)),
    Column::new("KIND", |r, _| r.plain("kind")),
    Column::new("WHAT", |r, _| r.plain("what")),
    Column::new("DEVICE", device),
    Column::new("KNOWN DAYS", |r, _| r.count("days_known")).right(),
    Column::new("DEVICES", |r, _| r.count("devices")).right(),
    Column::new("NEW TO", new_to),
];

fn device(row: &Row<'_>, _: &Look) -> Cell {
    let said = [row.text("name"), row.text("client"), row.text("mac")];
    Cell::new(said.into_iter().find(|text| !text.is_empty()).unwrap_or_default())
}

fn new_to(row: &Row<'_>, _: &Look) -> Cell {
    if row.flag("first_here") {
        Cell::new("everybody").paint(Paint::Note)
    } else {
        Cell::new("the device")
    }
}

/// Newest first.
pub(crate) fn run(args: &ListArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let sheet = Sheet::new(
        &[
            ("first_seen", Kind::Time),
            ("kind", Kind::Plain),
            ("what", Kind::Plain),
            ("mac", Kind::Plain),
            ("client", Kind::Plain),
            ("name", Kind::Plain),
            ("days_known", Kind::Plain),
            ("devices", Kind::Plain),
            ("first_here", Kind::Plain),
        ],
        COLUMNS,
    );
    let wanted = Wanted::read(args, Some(list::SINCE_DEFAULT), context)?;
    let condition = wanted.condition(TERMS, "first_seen")?;
    let sql = format!(
        "SELECT * FROM (
             SELECT x.first_seen, x.kind, x.what, x.mac, x.client,
                 (SELECT max(hostname) FROM devices d WHERE d.mac = x.mac) AS name,
                 k.days_known, p.devices, p.first >= x.first_seen AS first_here
             FROM (SELECT *, {WHOSE} FROM habits
                   WHERE kind IN ('domain', 'place', 'port') AND who <> '*') x
             LEFT JOIN (SELECT who, bit_count(bits) AS days_known FROM habits
                 WHERE kind = 'day') k ON k.who = x.who
             LEFT JOIN (SELECT kind, what, count(*) AS devices, min(first_seen) AS first
                 FROM habits WHERE who <> '*' GROUP BY ALL) p
                 ON p.kind = x.kind AND p.what = x.what
             UNION ALL
             SELECT first_seen, 'device', mac, mac, NULL, hostname, NULL, NULL, true FROM devices
         ) WHERE {} ORDER BY first_seen DESC, kind, what, mac, client LIMIT ?",
        condition.sql
    );
    list::run(context, &wanted, &sheet, &sql, condition)?;
    Ok(Exit::Fine)
}
