//! `agentmon firewall`: packets the firewall stopped.

use super::args::ListArgs;
use super::condition::{Term, Terms};
use super::context::{Context, Exit};
use super::filter::Key;
use super::flows;
use super::list::{self, SINCE_DEFAULT, Wanted};
use super::sheet::{Column, Kind, Sheet};

/// What filter words mean for `firewall`.
pub(crate) const TERMS: &Terms = &[
    (Key::Client, Term::Address(&["src"])),
    (Key::Src, Term::Address(&["src"])),
    (Key::Dst, Term::Address(&["dst"])),
    (Key::Device, Term::Device("mac", &["src", "dst"], "time")),
    (Key::Port, Term::Number("dport")),
    (Key::Proto, Term::Protocol("proto")),
    (Key::Rule, Term::Text("trim(prefix)")),
    (Key::Status, Term::Text("verdict")),
    (Key::Sensor, Term::Sensor("sensor")),
    (Key::Ip, Term::Address(&["src", "dst"])),
    (Key::Proc, Term::Nothing),
];

const COLUMNS: &[Column] = &[
    Column::new("TIME", |r, l| r.when("time", l)),
    Column::new("VERDICT", |r, _| r.plain("verdict")),
    Column::new("FROM", |r, _| r.host("src", "src_name")),
    Column::new("TO", |r, _| r.host("dst", "dst_name")),
    Column::new("PORT", flows::port).right(),
    Column::new("RULE", |r, _| r.plain("prefix")),
    Column::new("IN", |r, _| r.plain("in_iface")),
    Column::new("OUT", |r, _| r.plain("out_iface")),
];

/// The fields of a stopped packet, in the order of [`SELECT`].
pub(crate) fn sheet() -> Sheet {
    Sheet::new(
        &[
            ("time", Kind::Time),
            ("sensor", Kind::Plain),
            ("verdict", Kind::Plain),
            ("prefix", Kind::Plain),
            ("proto", Kind::Protocol),
            ("src", Kind::Plain),
            ("src_name", Kind::DeviceAt("src", Some("mac"))),
            ("sport", Kind::Plain),
            ("dst", Kind::Plain),
            ("dst_name", Kind::DeviceAt("dst", None)),
            ("dport", Kind::Plain),
            ("in_iface", Kind::Plain),
            ("out_iface", Kind::Plain),
            ("mac", Kind::Plain),
            ("bytes", Kind::Bytes),
        ],
        COLUMNS,
    )
}

/// Columns of [`sheet`].
pub(crate) const SELECT: &str = "SELECT time, (SELECT s.name FROM sensors s WHERE s.id = sensor), \
     verdict, prefix, proto, src, sport, dst, dport, in_iface, out_iface, mac, bytes \
     FROM firewall";

/// Newest first.
pub(crate) fn run(args: &ListArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let wanted = Wanted::read(args, Some(SINCE_DEFAULT), context)?;
    let mut condition = wanted.condition(TERMS, "time")?;
    let select = condition.over(SELECT, "firewall");
    let sql =
        format!("{select} WHERE {} ORDER BY time DESC, src, sport, dst LIMIT ?", condition.sql);
    list::run(context, &wanted, &sheet(), &sql, condition)?;
    Ok(Exit::Fine)
}
