//! `agentmon flows`: connections, with the name by which the client had resolved the
//! address.

use super::args::{FlowOrder, FlowsArgs};
use super::condition::{Term, Terms};
use super::context::{Context, Exit, Look};
use super::filter::Key;
use super::list::{self, SINCE_DEFAULT, Wanted};
use super::places::{self, Part};
use super::sheet::{Cell, Column, Kind, Paint, Row, Sheet, host};

/// What filter words mean for `flows`.
pub(crate) const TERMS: &Terms = &[
    (Key::Client, Term::Address(&["src"])),
    (Key::Src, Term::Address(&["src"])),
    (Key::Dst, Term::AddressOrName("dst", "name")),
    (Key::Device, Term::Device("mac", &["src", "dst"], "time")),
    (Key::Domain, Term::Domain(&["name"])),
    (Key::Name, Term::Text("name")),
    (Key::Port, Term::Number("dport")),
    (Key::Proto, Term::Protocol("proto")),
    (Key::Status, Term::Text("CASE WHEN open THEN 'open' ELSE 'closed' END")),
    (Key::Sensor, Term::Sensor("sensor")),
    (Key::Class, Term::Class),
    (Key::Ip, Term::Address(&["src", "dst"])),
    (Key::Proc, Term::Owner),
];

const COLUMNS: &[Column] = &[
    Column::new("TIME", |r, l| r.when("time", l)),
    Column::new("CLIENT", |r, _| r.host("src", "src_name")),
    Column::new("TO", destination),
    Column::new("CLASS", network),
    Column::new("PORT", port).right(),
    Column::new("OUT", |r, _| r.bytes("bytes_out")).right(),
    Column::new("IN", |r, _| r.bytes("bytes_in")).right(),
    Column::new("DURATION", |r, _| r.millis("duration_ms")).right(),
    Column::new("STATE", state),
];

/// The name resolved before, else the device of the own network, and the address.
fn destination(row: &Row<'_>, _: &Look) -> Cell {
    let name = [row.text("name"), row.text("dst_name")].into_iter().find(|n| !n.is_empty());
    Cell::new(&host(row.text("dst"), name.unwrap_or_default()))
}

/// What the other end is in: `cloud amazon`.
fn network(row: &Row<'_>, _: &Look) -> Cell {
    let [class, provider, country] = ["dst_class", "dst_provider", "dst_country"];
    Cell::new(&places::short(row.text(class), row.text(provider), row.text(country)))
}

/// `443/tcp`; ICMP has no ports.
pub(crate) fn port(row: &Row<'_>, _: &Look) -> Cell {
    match row.text("proto") {
        icmp @ ("icmp" | "icmpv6") => Cell::new(icmp),
        proto => Cell::new(&format!("{}/{proto}", row.number("dport").unwrap_or_default())),
    }
}

fn state(row: &Row<'_>, _: &Look) -> Cell {
    match (row.flag("open"), row.flag("replied")) {
        (true, _) => Cell::new("open").paint(Paint::Good),
        (false, false) => Cell::new("no reply").paint(Paint::Warn),
        (false, true) => Cell::default(),
    }
}

/// The fields of a flow, in the order of [`SELECT`].
pub(crate) fn sheet() -> Sheet {
    Sheet::new(
        &[
            ("time", Kind::Time),
            ("start", Kind::Time),
            ("duration_ms", Kind::Millis),
            ("sensor", Kind::Plain),
            ("proto", Kind::Protocol),
            ("src", Kind::Plain),
            ("src_name", Kind::DeviceAt("src", Some("mac"))),
            ("sport", Kind::Plain),
            ("mac", Kind::Plain),
            ("dst", Kind::Plain),
            ("dst_name", Kind::DeviceAt("dst", None)),
            ("dst_class", Kind::NetworkOf("dst", Part::Class)),
            ("dst_provider", Kind::NetworkOf("dst", Part::Provider)),
            ("dst_country", Kind::NetworkOf("dst", Part::Country)),
            ("dst_asn", Kind::NetworkOf("dst", Part::Asn)),
            ("dport", Kind::Plain),
            ("name", Kind::Plain),
            ("name_age_ms", Kind::Millis),
            ("bytes_out", Kind::Bytes),
            ("bytes_in", Kind::Bytes),
            ("packets_out", Kind::Plain),
            ("packets_in", Kind::Plain),
            ("tcp_state", Kind::Plain),
            ("replied", Kind::Plain),
            ("offloaded", Kind::Plain),
            ("open", Kind::Plain),
            ("nat_src", Kind::Plain),
            ("nat_sport", Kind::Plain),
            ("nat_dst", Kind::Plain),
            ("nat_dport", Kind::Plain),
            ("iface", Kind::Plain),
        ],
        COLUMNS,
    )
}

/// Columns of [`sheet`].
pub(crate) const SELECT: &str = "SELECT time, start, duration_ms, \
     (SELECT s.name FROM sensors s WHERE s.id = sensor), proto, src, sport, mac, dst, dport, \
     name, name_age_ms, bytes_out, bytes_in, packets_out, packets_in, tcp_state, replied, \
     offloaded, open, nat_src, nat_sport, nat_dst, nat_dport, iface FROM flows";

/// Newest first, or the largest or longest.
pub(crate) fn run(args: &FlowsArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let wanted = Wanted::read(&args.list, Some(SINCE_DEFAULT), context)?;
    let mut condition = wanted.condition(TERMS, "time")?;
    places::narrow(context, &wanted.words, "flows", "dst", &mut condition)?;
    let order = match args.sort {
        FlowOrder::Time => "time DESC, src, sport, dst",
        FlowOrder::Bytes => {
            "coalesce(bytes_out, 0)::HUGEINT + coalesce(bytes_in, 0) DESC, time DESC, src, sport"
        }
        FlowOrder::Duration => "duration_ms DESC NULLS LAST, time DESC, src, sport",
    };
    let select = condition.over(SELECT, "flows");
    let sql = format!("{select} WHERE {} ORDER BY {order} LIMIT ?", condition.sql);
    list::run(context, &wanted, &sheet(), &sql, condition)?;
    Ok(Exit::Fine)
}
