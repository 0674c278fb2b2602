//! `agentmon baseline`: how well each device is known, what is normal for it, and how to
//! forget that.

use std::net::IpAddr;

use agentmon_core::event::Mac;
use clap::{Args, Subcommand};
use serde_json::Value;

use super::args::ListArgs;
use super::backend::{ask, query};
use super::condition::{Term, Terms};
use super::context::{Context, Exit, Look};
use super::filter::Key;
use super::list::{self, Wanted};
use super::sheet::{Cell, Column, Kind, Row, Sheet};
use crate::control::Request;
use crate::detect::baseline::EVERYBODY;

/// The word for the network as a whole.
const NETWORK: &str = "network";

#[derive(Args, Debug)]
pub(crate) struct BaselineArgs {
    #[command(subcommand)]
    pub(crate) action: Option<BaselineAction>,
    #[command(flatten)]
    pub(crate) list: ListArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BaselineAction {
    /// Its domains, places, ports and hours, and what it moves
    Show {
        /// MAC, address or name; `network` for all together
        device: String,
        #[command(flatten)]
        list: ListArgs,
    },
    /// Forgets what was learnt; it learns anew from now on
    Reset {
        /// MAC, address or name; `network`; `all`
        device: String,
    },
}

const TERMS: &Terms = &[
    (Key::Device, Term::Device("mac", &["client"], "first_seen")),
    (Key::Client, Term::Address(&["client"])),
    (Key::Src, Term::Address(&["client"])),
    (Key::Proc, Term::Nothing),
];

const COLUMNS: &[Column] = &[
    Column::new("DEVICE", device_cell),
    Column::new("DAYS", |r, _| r.count("days")).right(),
    Column::new("SINCE", |r, l| r.when("first_seen", l)),
    Column::new("DOMAINS", |r, _| r.count("domains")).right(),
    Column::new("PLACES", |r, _| r.count("places")).right(),
    Column::new("PORTS", |r, _| r.count("ports")).right(),
    Column::new("HOURS", |r, _| r.count("hours")).right(),
    Column::new("UP/HOUR", |r, _| r.bytes("up_median")).right(),
    Column::new("DOWN/HOUR", |r, _| r.bytes("down_median")).right(),
    Column::new("ODD", |r, _| r.count("odd_hours")).right(),
];

fn device_cell(row: &Row<'_>, _: &Look) -> Cell {
    match (row.text("name"), row.text("client"), row.text("mac")) {
        ("", "", "") => Cell::new(NETWORK),
        ("", "", mac) => Cell::new(mac),
        ("", client, _) => Cell::new(client),
        (name, ..) => Cell::new(name),
    }
}

/// Whose: `who` is a MAC, an address, or the network.
pub(crate) const WHOSE: &str = "CASE WHEN regexp_full_match(who, '([0-9a-f]{2}:){5}[0-9a-f]{2}') THEN who END AS mac, \
     CASE WHEN who <> '*' AND NOT regexp_full_match(who, '([0-9a-f]{2}:){5}[0-9a-f]{2}') \
          THEN who END AS client";

/// All, one of them, or a new beginning.
pub(crate) fn run(args: &BaselineArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    match &args.action {
        Some(BaselineAction::Show { device, list }) => show(device, list, context),
        Some(BaselineAction::Reset { device }) => reset(device, context),
        None => all(&args.list, context),
    }
}

fn all(args: &ListArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let sheet = Sheet::new(
        &[
            ("mac", Kind::Plain),
            ("client", Kind::Plain),
            ("name", Kind::Plain),
            ("days", Kind::Plain),
            ("first_seen", Kind::Time),
            ("last_day", Kind::Plain),
            ("domains", Kind::Plain),
            ("places", Kind::Plain),
            ("ports", Kind::Plain),
            ("hours", Kind::Plain),
            ("up_median", Kind::Bytes),
            ("down_median", Kind::Bytes),
            ("odd_hours", Kind::Plain),
        ],
        COLUMNS,
    );
    let wanted = Wanted::read(args, None, context)?;
    let condition = wanted.condition(TERMS, "first_seen")?;
    let sql = format!(
        "SELECT * FROM (
             SELECT x.mac, x.client, (SELECT max(hostname) FROM devices d WHERE d.mac = x.mac), \
                 bit_count(x.bits) AS days, x.first_seen,
                 ('1970-01-01'::DATE + x.day)::VARCHAR AS last_day, \
                 coalesce(k.domains, 0), coalesce(k.places, 0), coalesce(k.ports, 0), \
                 coalesce(k.slots, 0), coalesce(v.up, 0), coalesce(v.down, 0), coalesce(v.odd, 0)
             FROM (SELECT *, {WHOSE} FROM habits WHERE kind = 'day') x
             LEFT JOIN (SELECT who, count(*) FILTER (kind = 'domain') AS domains, \
                     count(*) FILTER (kind = 'place') AS places, \
                     count(*) FILTER (kind = 'port') AS ports, \
                     count(*) FILTER (kind = 'hour') AS slots FROM habits GROUP BY who) k \
                 ON k.who = x.who
             LEFT JOIN (SELECT who, round(median(up))::UBIGINT AS up, \
                     round(median(down))::UBIGINT AS down, count(*) FILTER (odd > 0) AS odd \
                     FROM hours GROUP BY who) v ON v.who = x.who
         ) WHERE {} ORDER BY mac IS NULL AND client IS NULL DESC, 3 NULLS LAST, mac, client LIMIT ?",
        condition.sql
    );
    list::run(context, &wanted, &sheet, &sql, condition)?;
    Ok(Exit::Fine)
}

const HABIT_TERMS: &Terms = &[
    (Key::Kind, Term::Text("kind")),
    (Key::Domain, Term::Domain(&["what"])),
    (Key::Name, Term::Text("what")),
    (Key::Proc, Term::Nothing),
];

const HABIT_COLUMNS: &[Column] = &[
    Column::new("KIND", |r, _| r.plain("kind")),
    Column::new("WHAT", |r, _| r.plain("what")),
    Column::new("DAYS", |r, _| r.count("days")).right(),
    Column::new("FIRST SEEN", |r, l| r.when("first_seen", l)),
    Column::new("LAST DAY", |r, _| r.plain("last_day")),
    Column::new("DEVICES", |r, _| r.count("devices")).right(),
    Column::new("UP", |r, _| r.bytes("up")).right(),
    Column::new("DOWN", |r, _| r.bytes("down")).right(),
];

/// Habits by kind, the firmest first; then the volumes by hour of the day (UTC).
fn show(device: &str, args: &ListArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let sheet = Sheet::new(
        &[
            ("kind", Kind::Plain),
            ("what", Kind::Plain),
            ("days", Kind::Plain),
            ("first_seen", Kind::Time),
            ("last_day", Kind::Plain),
            ("devices", Kind::Plain),
            ("up", Kind::Bytes),
            ("down", Kind::Bytes),
        ],
        HABIT_COLUMNS,
    );
    let wanted = Wanted::read(args, None, context)?;
    let who = who(device, context)?;
    let mut condition = wanted.condition(HABIT_TERMS, "first_seen")?;
    let sql = format!(
        "SELECT kind, what, days, first_seen, last_day, devices, up, down FROM (
             SELECT h.who, h.kind, h.what, bit_count(h.bits) AS days, h.first_seen,
                 ('1970-01-01'::DATE + h.day)::VARCHAR AS last_day, p.devices,
                 NULL::UBIGINT AS up, NULL::UBIGINT AS down
             FROM habits h LEFT JOIN (SELECT kind, what, count(*) AS devices FROM habits
                 WHERE who <> '*' GROUP BY ALL) p USING (kind, what)
             UNION ALL
             SELECT who, 'volume', strftime(hour, '%H:00Z'), count(*), min(hour),
                 strftime(max(hour), '%Y-%m-%d'), NULL, round(median(up))::UBIGINT,
                 round(median(down))::UBIGINT
             FROM hours WHERE odd = 0 GROUP BY who, strftime(hour, '%H:00Z')
         ) WHERE {} AND who = ? ORDER BY kind, days DESC, what LIMIT ?",
        condition.sql
    );
    condition.params.push(who.into());
    list::run(context, &wanted, &sheet, &sql, condition)?;
    Ok(Exit::Fine)
}

fn reset(device: &str, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let all = device == "all";
    let who = if all { EVERYBODY.to_owned() } else { who(device, context)? };
    if who == EVERYBODY && !all {
        anyhow::bail!(
            "the network learns from its devices: `agentmon baseline reset all` forgets both"
        );
    }
    let outcome = ask(context.hub, &Request::ResetBaseline { who }, &mut |_| Ok(()))?;
    context.say(&format!("{} things forgotten; learning anew from now on", outcome.count));
    Ok(Exit::Fine)
}

/// As it stands in `habits`.
fn who(device: &str, context: &mut Context<'_>) -> anyhow::Result<String> {
    if device == NETWORK {
        return Ok(EVERYBODY.to_owned());
    }
    let (sql, key) = match (device.parse::<Mac>(), device.parse::<IpAddr>()) {
        (Ok(mac), _) => ("SELECT CAST(? AS VARCHAR)", mac.to_string()),
        (_, Ok(ip)) => (
            "SELECT coalesce((SELECT max(mac) FROM address_names WHERE ip = $1), $1)",
            ip.to_canonical().to_string(),
        ),
        _ => ("SELECT mac FROM devices WHERE lower(hostname) = lower(?)", device.to_owned()),
    };
    let mut found = Vec::new();
    query(context.hub, sql, vec![Value::from(key)], &mut |row| {
        found.extend(row.first().and_then(Value::as_str).map(str::to_owned));
        Ok(())
    })?;
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => anyhow::bail!("no device `{device}` was seen; see `agentmon devices`"),
        several => anyhow::bail!(
            "`{device}` is {} devices; name one by its MAC: {}",
            several.len(),
            several.join(", ")
        ),
    }
}
