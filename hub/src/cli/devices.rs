//! `agentmon devices`: names, makers, addresses, when seen; one of them over time; names given
//! here.

use std::net::IpAddr;

use agentmon_core::event::Mac;
use serde_json::Value;

use super::args::{DevicesAction, DevicesArgs, FormatArgs, ListArgs};
use super::backend::ask;
use super::condition::{Term, Terms};
use super::context::{Context, Exit, Look};
use super::directory::Directory;
use super::filter::Key;
use super::list::{self, Wanted};
use super::print::Printer;
use super::sheet::{Cell, Column, Kind, Paint, Row, Sheet};
use crate::control::Request;

const TERMS: &Terms = &[
    (Key::Device, Term::Device("d.mac", &[], "d.last_seen")),
    (Key::Client, Term::Address(&["a.ip"])),
    (Key::Src, Term::Address(&["a.ip"])),
    (Key::Name, Term::Text("d.hostname")),
    (Key::Type, Term::Text("d.mac_kind")),
    (Key::Proc, Term::Nothing),
];

/// Addresses in one cell of the table; `show` and the other formats have all.
const ADDRESSES_SHOWN: usize = 3;

const COLUMNS: &[Column] = &[
    Column::new("NAME", name),
    Column::new("MAC", mac),
    Column::new("MAKER", |r, _| r.plain("vendor")),
    Column::new("ADDRESSES", addresses),
    Column::new("INTERFACE", |r, _| r.plain("iface")),
    Column::new("FIRST SEEN", |r, l| r.when("first_seen", l)),
    Column::new("LAST SEEN", |r, l| r.when("last_seen", l)),
    Column::new("ALERTS", alerts).right(),
];

/// A name somebody else gives it is shown with who that is.
fn name(row: &Row<'_>, _: &Look) -> Cell {
    match (row.text("name"), row.text("name_source")) {
        (name, "" | "lease") => Cell::new(name),
        (name, source) => Cell::new(&format!("{name} [{source}]")),
    }
}

/// Phones make up their addresses per network: such a MAC says little about the device.
fn mac(row: &Row<'_>, _: &Look) -> Cell {
    let text = row.text("mac");
    match row.text("mac_kind") {
        "" | "registered" => Cell::new(text),
        kind => Cell::new(&format!("{text} ({kind})")),
    }
}

/// The latest first.
fn addresses(row: &Row<'_>, _: &Look) -> Cell {
    let all = row.value("addresses").as_array().map(Vec::as_slice).unwrap_or_default();
    let shown: Vec<_> = all.iter().filter_map(Value::as_str).take(ADDRESSES_SHOWN).collect();
    let more = all.len() - shown.len();
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    Cell::new(&format!("{}{more}", shown.join(", ")))
}

fn alerts(row: &Row<'_>, _: &Look) -> Cell {
    row.count("open_alerts").paint(Paint::Bad)
}

fn sheet() -> Sheet {
    Sheet::new(
        &[
            ("name", Kind::Plain),
            ("name_source", Kind::Plain),
            ("mac", Kind::Plain),
            ("mac_kind", Kind::Plain),
            ("vendor", Kind::Plain),
            ("addresses", Kind::Plain),
            ("iface", Kind::Plain),
            ("first_seen", Kind::Time),
            ("last_seen", Kind::Time),
            ("open_alerts", Kind::Plain),
        ],
        COLUMNS,
    )
}

/// The list, one of them, or a name for one.
pub(crate) fn run(args: &DevicesArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    match (&args.action, args.list.words.as_slice()) {
        (Some(DevicesAction::Show { device, format }), _) => show(device, *format, context),
        (Some(DevicesAction::Name { device, name }), _) => call(device, name.as_deref(), context),
        // `agentmon devices 00:00:5e:00:53:01` can mean one thing only.
        (None, [one]) if one.parse::<Mac>().is_ok() || one.parse::<IpAddr>().is_ok() => {
            show(one, args.list.format, context)
        }
        (None, _) => all(&args.list, context),
    }
}

/// By name; nameless ones last.
fn all(args: &ListArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let wanted = Wanted::read(args, None, context)?;
    let condition = wanted.condition(TERMS, "d.last_seen")?;
    // An alert counts for the device by its MAC, or by an address where it has none.
    let sql = format!(
        "SELECT d.hostname, any_value(d.name_source), d.mac, any_value(d.mac_kind), \
         any_value(d.vendor), \
         list(a.ip ORDER BY a.last_seen DESC, a.ip) FILTER (WHERE a.ip IS NOT NULL), \
         any_value(d.iface), any_value(d.first_seen), any_value(d.last_seen), \
         (SELECT count(*) FROM alerts x WHERE x.status = 'open' AND (x.mac = d.mac \
          OR (x.mac IS NULL AND x.client IN (SELECT n.ip FROM address_names n \
              WHERE n.mac = d.mac)))) \
         FROM devices d LEFT JOIN (SELECT mac, ip, max(last_seen) AS last_seen \
           FROM device_addresses GROUP BY mac, ip) a USING (mac) WHERE {} \
         GROUP BY d.mac, d.hostname ORDER BY d.hostname NULLS LAST, d.mac LIMIT ?",
        condition.sql
    );
    list::run(context, &wanted, &sheet(), &sql, condition)?;
    Ok(Exit::Fine)
}

const STORY: &[Column] = &[
    Column::new("WHAT", |r, _| r.plain("what")),
    Column::new("VALUE", |r, _| r.plain("value")),
    Column::new("SOURCE", |r, _| r.plain("source")),
    Column::new("FROM", |r, l| r.when("from", l)),
    Column::new("TO", |r, l| r.when("to", l)),
];

/// What was ever known of one device, newest last. The device by MAC, the one seen last at an
/// address, or all of a name.
fn show(device: &str, format: FormatArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let sheet = Sheet::new(
        &[
            ("mac", Kind::Plain),
            ("what", Kind::Plain),
            ("value", Kind::Plain),
            ("source", Kind::Plain),
            ("from", Kind::Time),
            ("to", Kind::Time),
        ],
        STORY,
    );
    let (which, key) = match (device.parse::<Mac>(), device.parse::<IpAddr>()) {
        (Ok(mac), _) => ("mac = ?", mac.to_string()),
        (_, Ok(ip)) => (
            "mac = (SELECT n.mac FROM address_names n WHERE n.ip = ?)",
            ip.to_canonical().to_string(),
        ),
        _ => ("lower(hostname) = lower(?)", device.to_owned()),
    };
    let sql = format!(
        "WITH one AS (SELECT * FROM devices WHERE {which}), story AS ( \
           SELECT mac, 1 AS nth, 'device' AS what, mac AS value, mac_kind AS source, \
             first_seen AS since, last_seen AS until FROM one \
           UNION ALL SELECT mac, 2, 'maker', vendor, NULL, NULL, NULL FROM one \
             WHERE vendor IS NOT NULL \
           UNION ALL SELECT n.mac, 3, 'name', n.name, n.source, n.first_seen, n.last_seen \
             FROM device_names n JOIN one USING (mac) \
           UNION ALL SELECT a.mac, 4, 'address', a.ip, NULL, a.first_seen, a.last_seen \
             FROM device_addresses a JOIN one USING (mac)) \
         SELECT mac, what, value, source, since, until FROM story \
         ORDER BY mac, nth, since, until, value"
    );
    let key = vec![Value::from(key)];
    let records = list::collect(context, &Directory::default(), &sheet, &sql, key)?;
    if records.is_empty() {
        anyhow::bail!("no device `{device}` was seen; see `agentmon devices`");
    }
    let mut printer = Printer::new(format.format(), &sheet, &context.look, context.out);
    records.iter().try_for_each(|record| printer.record(record))?;
    printer.finish()?;
    Ok(Exit::Fine)
}

fn call(device: &str, name: Option<&str>, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let request = Request::NameDevice { device: device.to_owned(), name: name.map(str::to_owned) };
    let outcome = ask(context.hub, &request, &mut |_| Ok(()))?;
    match (outcome.count, name) {
        (0, Some(_)) => anyhow::bail!("no device `{device}` was seen; see `agentmon devices`"),
        (0, None) => anyhow::bail!("`{device}` was given no name here"),
        (_, Some(name)) => context.say(&format!("{device} is called {name} from now on")),
        (_, None) => context.say(&format!("{device} is called what it calls itself again")),
    }
    Ok(Exit::Fine)
}
