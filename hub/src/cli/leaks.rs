//! `agentmon long` and `agentmon exfil`: how long devices talked with whom, and what they sent.
//!
//! Sums of connections, open ones with their live counters included, by device (through all
//! its addresses) and place (a registrable domain, or an address without a name). Detectors
//! judge the same sums ([`crate::detect::leaks`]); here they are shown, whatever is usual.
//! Only what leaves this network. At most [`GROUPS_MAX`] sums are read.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use agentmon_core::service::Service;
use clap::{Args, ValueEnum};
use serde_json::Value;

use super::args::ListArgs;
use super::backend::query;
use super::condition::{Term, Terms};
use super::context::{Context, Exit};
use super::filter::Key;
use super::list::{self, Wanted};
use super::places::{self, Part};
use super::print::Printer;
use super::sheet::{Cell, Column, Kind, Row, Sheet};
use super::units;
use crate::detect::leaks::long::rita;
use crate::detect::leaks::place::{Ground, Place, Who};

/// Most sums read.
const GROUPS_MAX: u64 = 900_000;

/// What `long` takes.
#[derive(Args, Debug)]
pub(crate) struct LongArgs {
    #[command(flatten)]
    pub(crate) list: ListArgs,
    /// Order of the rows
    #[arg(long, value_enum, default_value_t, value_name = "BY")]
    pub(crate) sort: LongOrder,
}

/// Order of `long`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LongOrder {
    /// The longest single connection first
    #[default]
    Longest,
    /// The longest sum over connections first
    Total,
    /// Most connections first
    Connections,
    /// Most bytes first
    Bytes,
}

/// What `exfil` takes.
#[derive(Args, Debug)]
pub(crate) struct ExfilArgs {
    #[command(flatten)]
    pub(crate) list: ListArgs,
    /// Order of the rows
    #[arg(long, value_enum, default_value_t, value_name = "BY")]
    pub(crate) sort: ExfilOrder,
    /// What names asked for carry, by registrable domain, in place of connections
    #[arg(long)]
    pub(crate) dns: bool,
}

/// Order of `exfil`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExfilOrder {
    /// Most bytes sent first
    #[default]
    Sent,
    /// Most sent for received first (from 1 MB on)
    Ratio,
    /// Sent in most hours first
    Hours,
}

const TERMS: &Terms = &[
    (Key::Client, Term::Address(&["src"])),
    (Key::Src, Term::Address(&["src"])),
    (Key::Dst, Term::AddressOrName("dst", "name")),
    (Key::Device, Term::Device("mac", &["src"], "time")),
    (Key::Domain, Term::Domain(&["name"])),
    (Key::Port, Term::Number("dport")),
    (Key::Proto, Term::Protocol("proto")),
    (Key::Status, Term::Text("CASE WHEN open THEN 'open' ELSE 'closed' END")),
    (Key::Sensor, Term::Sensor("sensor")),
    (Key::Class, Term::Class),
    (Key::Proc, Term::Nothing),
];

const DNS_TERMS: &Terms = &[
    (Key::Client, Term::Address(&["client"])),
    (Key::Src, Term::Address(&["client"])),
    (Key::Device, Term::Device("mac", &["client"], "time")),
    (Key::Domain, Term::Domain(&["name"])),
    (Key::Type, Term::RecordType("qtype")),
    (Key::Sensor, Term::Sensor("sensor")),
    (Key::Proc, Term::Nothing),
];

fn network(row: &Row<'_>) -> Cell {
    let [class, provider, country] = ["class", "provider", "country"].map(|key| row.text(key));
    Cell::new(&places::short(class, provider, country))
}

fn fraction(row: &Row<'_>, key: &str) -> Cell {
    row.value(key).as_f64().map_or_else(Cell::default, |n| Cell::new(&format!("{n:.1}")))
}

const LONG: &[Column] = &[
    Column::new("CLIENT", |r, _| r.host("client", "client_name")),
    Column::new("TO", |r, _| r.plain("to")),
    Column::new("CLASS", |r, _| network(r)),
    Column::new("PORT", |r, _| r.plain("port")).right(),
    Column::new("LONGEST", |r, _| r.millis("longest_ms")).right(),
    Column::new("TOTAL", |r, _| r.millis("total_ms")).right(),
    Column::new("CONNECTIONS", |r, _| r.count("connections")).right(),
    Column::new("OPEN", |r, _| r.count("open")).right(),
    Column::new("SENT", |r, _| r.bytes("sent")).right(),
    Column::new("RECEIVED", |r, _| r.bytes("received")).right(),
    Column::new("LAST", |r, l| r.when("last_seen", l)),
];

const EXFIL: &[Column] = &[
    Column::new("CLIENT", |r, _| r.host("client", "client_name")),
    Column::new("TO", |r, _| r.plain("to")),
    Column::new("CLASS", |r, _| network(r)),
    Column::new("SENT", |r, _| r.bytes("sent")).right(),
    Column::new("RECEIVED", |r, _| r.bytes("received")).right(),
    Column::new("RATIO", |r, _| fraction(r, "ratio")).right(),
    Column::new("HOURS", |r, _| r.count("hours")).right(),
    Column::new("CONNECTIONS", |r, _| r.count("connections")).right(),
    Column::new("FIRST", |r, l| r.when("first_seen", l)),
    Column::new("LAST", |r, l| r.when("last_seen", l)),
];

const NAMES: &[Column] = &[
    Column::new("CLIENT", |r, _| r.host("client", "client_name")),
    Column::new("BELOW", |r, _| r.plain("domain")),
    Column::new("NAMES", |r, _| r.count("names")).right(),
    Column::new("CARRY", |r, _| r.bytes("bytes")).right(),
    Column::new("A NAME", |r, _| r.bytes("bytes_a_name")).right(),
    Column::new("QUESTIONS", |r, _| r.count("questions")).right(),
    Column::new("FIRST", |r, l| r.when("first_seen", l)),
    Column::new("LAST", |r, l| r.when("last_seen", l)),
];

/// Whose, with whom, and by which port and protocol where that matters.
type At = (Who, Place, Option<(u16, u8)>);

/// One sum, of one device and place.
#[derive(Clone, Debug, Default)]
struct Sum {
    mac: Value,
    client: String,
    to: String,
    dst: String,
    port: Value,
    connections: u64,
    open: u64,
    longest_ms: u64,
    total_ms: u64,
    sent: u64,
    received: u64,
    hours: HashSet<i64>,
    first: String,
    last: String,
}

/// Sums of connections; hours are numbers of hours, as a text.
const SELECT: &str = "SELECT coalesce(mac, (SELECT any_value(o.device) FROM address_owners o \
     WHERE o.address = src AND max(time) >= o.owned_since AND max(time) < o.owned_until)), \
     src, name, dst, dport, proto, count(*), count(*) FILTER (open), \
     coalesce(max(duration_ms), 0), coalesce(sum(duration_ms), 0)::UBIGINT, \
     coalesce(sum(bytes_out), 0)::UBIGINT, coalesce(sum(bytes_in), 0)::UBIGINT, \
     list(DISTINCT epoch_us(date_trunc('hour', time)) // 3600000000) FILTER (bytes_out > 0), \
     min(coalesce(start, time)), max(time) FROM flows";

fn sums(
    list: &ListArgs,
    by_port: bool,
    context: &mut Context<'_>,
) -> anyhow::Result<(Vec<Sum>, Wanted)> {
    let since = if by_port { "24h" } else { "7d" };
    let wanted = Wanted::read(list, Some(since), context)?;
    let mut condition = wanted.condition(TERMS, "time")?;
    places::narrow(context, &wanted.words, "flows", "dst", &mut condition)?;
    let ground = ground(context)?;
    let sql = format!(
        "{SELECT} WHERE {} AND proto IN (6, 17) GROUP BY mac, src, name, dst, dport, proto \
         ORDER BY sum(bytes_out) DESC LIMIT {GROUPS_MAX}",
        condition.sql
    );
    let mut all = BTreeMap::<At, Sum>::new();
    let outcome = query(context.hub, &sql, condition.params, &mut |row| {
        add(&row, by_port, &ground, &mut all);
        Ok(())
    })?;
    if outcome.count >= GROUPS_MAX {
        context.say("only the largest sums were read: a shorter --since, or filter words");
    }
    Ok((all.into_values().collect(), wanted))
}

fn ground(context: &mut Context<'_>) -> anyhow::Result<Ground> {
    let mut own = HashSet::new();
    let sql = "SELECT DISTINCT ip FROM device_addresses";
    query(context.hub, sql, vec![], &mut |row| {
        own.extend(row.first().and_then(Value::as_str).and_then(|ip| ip.parse::<IpAddr>().ok()));
        Ok(())
    })?;
    Ok(Ground::new(own, context.hub.destinations()))
}

fn add(row: &[Value], by_port: bool, ground: &Ground, all: &mut BTreeMap<At, Sum>) {
    let text = |at: usize| row.get(at).and_then(Value::as_str);
    let number = |at: usize| row.get(at).and_then(Value::as_u64).unwrap_or_default();
    let (Some(src), Some(dst)) = (text(1), text(3)) else { return };
    let (Some(who), Some((place, _))) = (Who::new(text(0), src), ground.leaves(src, text(2), dst))
    else {
        return;
    };
    let port = (u16::try_from(number(4)).unwrap_or(0), u8::try_from(number(5)).unwrap_or(0));
    let to = place.text();
    let sum = all.entry((who, place, by_port.then_some(port))).or_default();
    let last = text(14).unwrap_or_default();
    if sum.last.as_str() < last || sum.last.is_empty() {
        sum.mac = row.first().cloned().unwrap_or_default();
        (sum.client, sum.dst, sum.last) = (src.to_owned(), dst.to_owned(), last.to_owned());
    }
    let first = text(13).unwrap_or_default();
    if sum.first.is_empty() || first < sum.first.as_str() {
        sum.first = first.to_owned();
    }
    let service = Service { port: port.0, proto: port.1 };
    sum.port = if by_port { service.to_string().into() } else { Value::Null };
    sum.to = to;
    sum.connections += number(6);
    sum.open += number(7);
    sum.longest_ms = sum.longest_ms.max(number(8));
    sum.total_ms = sum.total_ms.saturating_add(number(9));
    sum.sent = sum.sent.saturating_add(number(10));
    sum.received = sum.received.saturating_add(number(11));
    let hours = row.get(12).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    sum.hours.extend(hours.iter().filter_map(Value::as_i64));
}

/// How long devices talked with whom.
pub(crate) fn long(args: &LongArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let (mut sums, wanted) = sums(&args.list, true, context)?;
    let key = |s: &Sum| match args.sort {
        LongOrder::Longest => s.longest_ms,
        LongOrder::Total => s.total_ms,
        LongOrder::Connections => s.connections,
        LongOrder::Bytes => s.sent.saturating_add(s.received),
    };
    sums.sort_by_cached_key(|s| (std::cmp::Reverse(key(s)), s.client.clone(), s.to.clone()));
    let mut fields = head();
    fields.extend([
        ("port", Kind::Plain),
        ("longest_ms", Kind::Millis),
        ("total_ms", Kind::Millis),
    ]);
    fields.extend([("connections", Kind::Plain), ("open", Kind::Plain)]);
    fields.extend([("sent", Kind::Bytes), ("received", Kind::Bytes), ("rita_score", Kind::Plain)]);
    fields.extend([("first_seen", Kind::Time), ("last_seen", Kind::Time)]);
    let rows = sums.into_iter().map(|s| {
        let score = (rita(s.total_ms / 1_000) * 1e6).round() / 1e6;
        let numbers = [s.longest_ms, s.total_ms, s.connections, s.open, s.sent, s.received];
        let mut row = values(&s);
        row.push(s.port);
        row.extend(numbers.map(Value::from));
        row.extend([score.into(), s.first.into(), s.last.into()]);
        row
    });
    print(context, &wanted, &Sheet::new(&fields, LONG), rows.collect())
}

/// What devices sent.
pub(crate) fn exfil(args: &ExfilArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    if args.dns {
        return names(args, context);
    }
    let (mut sums, wanted) = sums(&args.list, false, context)?;
    sums.retain(|s| s.sent > 0);
    let ratio = |s: &Sum| s.sent as f64 / s.received.max(1) as f64;
    sums.sort_by(|a, b| {
        let by_hours = b.hours.len().cmp(&a.hours.len());
        let first = match args.sort {
            ExfilOrder::Sent => std::cmp::Ordering::Equal,
            ExfilOrder::Hours => by_hours,
            ExfilOrder::Ratio => {
                let counts = |s: &Sum| if s.sent >= 1_000_000 { ratio(s) } else { 0.0 };
                counts(b).total_cmp(&counts(a))
            }
        };
        first.then(b.sent.cmp(&a.sent)).then(a.client.cmp(&b.client)).then(a.to.cmp(&b.to))
    });
    let mut fields = head();
    fields.extend([("sent", Kind::Bytes), ("received", Kind::Bytes), ("ratio", Kind::Plain)]);
    fields.extend([("hours", Kind::Plain), ("connections", Kind::Plain)]);
    fields.extend([("first_seen", Kind::Time), ("last_seen", Kind::Time)]);
    let rows = sums.into_iter().map(|s| {
        let mut row = values(&s);
        let ratio = (ratio(&s) * 1_000.0).round() / 1_000.0;
        row.extend([s.sent.into(), s.received.into(), ratio.into(), s.hours.len().into()]);
        row.extend([s.connections.into(), s.first.into(), s.last.into()]);
        row
    });
    print(context, &wanted, &Sheet::new(&fields, EXFIL), rows.collect())
}

/// The fields of [`values`].
fn head() -> Vec<(&'static str, Kind)> {
    vec![
        ("mac", Kind::Plain),
        ("client", Kind::Plain),
        ("client_name", Kind::DeviceAt("client", Some("mac"))),
        ("to", Kind::Plain),
        ("dst", Kind::Plain),
        ("class", Kind::NetworkOf("dst", Part::Class)),
        ("provider", Kind::NetworkOf("dst", Part::Provider)),
        ("country", Kind::NetworkOf("dst", Part::Country)),
    ]
}

fn values(s: &Sum) -> Vec<Value> {
    vec![s.mac.clone(), s.client.clone().into(), s.to.clone().into(), s.dst.clone().into()]
}

/// What distinct names carry, by device and registrable domain.
fn names(args: &ExfilArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let wanted = Wanted::read(&args.list, Some("7d"), context)?;
    let condition = wanted.condition(DNS_TERMS, "time")?;
    let order = match args.sort {
        ExfilOrder::Sent => "bytes",
        ExfilOrder::Ratio => "bytes / names",
        ExfilOrder::Hours => "names",
    };
    let sql = format!(
        "SELECT any_value(mac), max_by(client, last), domain, count(*) AS names, \
             sum(strlen(name) - strlen(domain) - 1)::UBIGINT AS bytes, (bytes // names)::UBIGINT, \
             sum(n)::UBIGINT, min(first), max(last) \
         FROM (SELECT mac, client, domain, name, count(*) AS n, min(time) AS first, \
                 max(time) AS last FROM dns \
             WHERE {} AND name <> domain AND NOT ends_with(domain, '.arpa') \
             GROUP BY mac, client, domain, name) \
         GROUP BY coalesce(mac, client), domain ORDER BY {order} DESC, domain LIMIT ?",
        condition.sql
    );
    let sheet = Sheet::new(
        &[
            ("mac", Kind::Plain),
            ("client", Kind::Plain),
            ("client_name", Kind::DeviceAt("client", Some("mac"))),
            ("domain", Kind::Plain),
            ("names", Kind::Plain),
            ("bytes", Kind::Bytes),
            ("bytes_a_name", Kind::Bytes),
            ("questions", Kind::Plain),
            ("first_seen", Kind::Time),
            ("last_seen", Kind::Time),
        ],
        NAMES,
    );
    list::run(context, &wanted, &sheet, &sql, condition)?;
    Ok(Exit::Fine)
}

fn print(
    context: &mut Context<'_>,
    wanted: &Wanted,
    sheet: &Sheet,
    rows: Vec<Vec<Value>>,
) -> anyhow::Result<Exit> {
    let names = list::directory(context, sheet)?;
    let limit = usize::try_from(wanted.limit).unwrap_or(usize::MAX);
    let count = rows.len();
    let mut printer = Printer::new(wanted.format, sheet, &context.look, context.out);
    rows.into_iter().take(limit).try_for_each(|row| printer.record(&sheet.record(row, &names)))?;
    printer.finish()?;
    let count = u64::try_from(count).unwrap_or(u64::MAX);
    if count > wanted.limit {
        let shown = units::plural(wanted.limit, "row", "rows");
        context.say(&format!("only the first {shown} of {count}: --limit N, or filter words"));
    } else if count == 0 {
        list::say_if_cut(context, wanted, &super::backend::Outcome::default(), 0);
    }
    Ok(Exit::Fine)
}
