//! `agentmon devices`: names, addresses, when seen.

use agentmon_core::event::Mac;

use super::args::ListArgs;
use super::condition::{Term, Terms};
use super::context::{Context, Exit, Look};
use super::filter::Key;
use super::list::{self, Wanted};
use super::sheet::{Cell, Column, Kind, Paint, Row, Sheet};

const TERMS: &Terms = &[
    (Key::Device, Term::Device("d.mac", &["a.ip"])),
    (Key::Client, Term::Address(&["a.ip"])),
    (Key::Src, Term::Address(&["a.ip"])),
    (Key::Name, Term::Text("d.hostname")),
    (Key::Proc, Term::Nothing),
];

const COLUMNS: &[Column] = &[
    Column::new("NAME", |r, _| r.plain("name")),
    Column::new("MAC", mac),
    Column::new("ADDRESSES", |r, _| Cell::new(&r.list("addresses"))),
    Column::new("INTERFACE", |r, _| r.plain("iface")),
    Column::new("FIRST SEEN", |r, l| r.when("first_seen", l)),
    Column::new("LAST SEEN", |r, l| r.when("last_seen", l)),
    Column::new("ALERTS", alerts).right(),
];

/// Phones make up their addresses per network: such a MAC says little about the device.
fn mac(row: &Row<'_>, _: &Look) -> Cell {
    let text = row.text("mac");
    let made_up = text.parse::<Mac>().is_ok_and(Mac::is_local);
    if made_up { Cell::new(&format!("{text} (random)")) } else { Cell::new(text) }
}

fn alerts(row: &Row<'_>, _: &Look) -> Cell {
    row.count("open_alerts").paint(Paint::Bad)
}

fn sheet() -> Sheet {
    Sheet::new(
        &[
            ("name", Kind::Plain),
            ("mac", Kind::Plain),
            ("addresses", Kind::Plain),
            ("iface", Kind::Plain),
            ("first_seen", Kind::Time),
            ("last_seen", Kind::Time),
            ("open_alerts", Kind::Plain),
        ],
        COLUMNS,
    )
}

/// By name; nameless ones last.
pub(crate) fn run(args: &ListArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let wanted = Wanted::read(args, None, context)?;
    let condition = wanted.condition(TERMS, "d.last_seen")?;
    // An alert counts for the device by its MAC, or by an address where it has none.
    let sql = format!(
        "SELECT d.hostname, d.mac, list_sort(list(a.ip) FILTER (WHERE a.ip IS NOT NULL)), \
         any_value(d.iface), any_value(d.first_seen), any_value(d.last_seen), \
         (SELECT count(*) FROM alerts x WHERE x.status = 'open' AND (x.mac = d.mac \
          OR (x.mac IS NULL AND x.client IN (SELECT n.ip FROM address_names n \
              WHERE n.mac = d.mac)))) \
         FROM devices d LEFT JOIN device_addresses a USING (mac) WHERE {} \
         GROUP BY d.mac, d.hostname ORDER BY d.hostname NULLS LAST, d.mac LIMIT ?",
        condition.sql
    );
    list::run(context, &wanted, &sheet(), &sql, condition)?;
    Ok(Exit::Fine)
}
