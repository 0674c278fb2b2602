//! `agentmon stats`: per device, how much it asked and how much it moved.
//!
//! A device is a MAC where one is known (by the record, or by who had the address last),
//! else an address: one line for a laptop with an IPv4 and three IPv6 addresses.

use super::args::ListArgs;
use super::condition::{self, Condition, Term, Terms};
use super::context::{Context, Exit, Look};
use super::filter::Key;
use super::list::{self, SINCE_DEFAULT, Wanted};
use super::sheet::{Cell, Column, Kind, Paint, Row, Sheet};

/// Flows begun by addresses of the internet are no client's doing: only addresses of a
/// known device or of private ranges (RFC 1918, 6598, 3927, 4193, 4291) count.
const LOCAL: &str = "(src IN (SELECT ip FROM device_addresses) OR regexp_matches(src, \
     '^(10\\.|192\\.168\\.|172\\.(1[6-9]|2[0-9]|3[01])\\.|127\\.|169\\.254\\.|\
     100\\.(6[4-9]|[7-9][0-9]|1[01][0-9]|12[0-7])\\.|f[cd]|fe[89ab]|::1$)'))";

/// Words both tables know; each table has its own meaning of them.
const DNS_TERMS: &Terms = &[
    (Key::Client, Term::Address(&["client"])),
    (Key::Src, Term::Address(&["client"])),
    (Key::Device, Term::Device("mac", &["client"], "time")),
    (Key::Domain, Term::Domain(&["name"])),
    (Key::Sensor, Term::Sensor("sensor")),
    (Key::Proc, Term::Nothing),
];
const FLOW_TERMS: &Terms = &[
    (Key::Client, Term::Address(&["src"])),
    (Key::Src, Term::Address(&["src"])),
    (Key::Device, Term::Device("mac", &["src"], "time")),
    (Key::Domain, Term::Domain(&["name"])),
    (Key::Dst, Term::AddressOrName("dst", "name")),
    (Key::Port, Term::Number("dport")),
    (Key::Proto, Term::Protocol("proto")),
    (Key::Sensor, Term::Sensor("sensor")),
    (Key::Proc, Term::Nothing),
];

const COLUMNS: &[Column] = &[
    Column::new("CLIENT", client),
    Column::new("QUERIES", |r, _| r.count("queries")).right(),
    Column::new("BLOCKED", blocked).right(),
    Column::new("NAMES", |r, _| r.count("names")).right(),
    Column::new("FLOWS", |r, _| r.count("flows")).right(),
    Column::new("OUT", |r, _| r.bytes("bytes_out")).right(),
    Column::new("IN", |r, _| r.bytes("bytes_in")).right(),
    Column::new("ALERTS", |r, _| r.count("open_alerts").paint(Paint::Bad)).right(),
    Column::new("LAST SEEN", |r, l| r.when("last_seen", l)),
];

fn client(row: &Row<'_>, _: &Look) -> Cell {
    let addresses = row.list("addresses");
    let name = [row.text("name"), row.text("mac")].into_iter().find(|n| !n.is_empty());
    Cell::new(&super::sheet::host(&addresses, name.unwrap_or_default()))
}

/// With the share of all queries, which says more than the number.
fn blocked(row: &Row<'_>, _: &Look) -> Cell {
    let (blocked, all) = (row.number("blocked"), row.number("queries"));
    match (blocked, all) {
        (Some(blocked), Some(all)) if blocked > 0 && all > 0 => {
            let percent = blocked.saturating_mul(100) / all;
            Cell::new(&format!("{} ({percent}%)", super::units::count(blocked)))
        }
        _ => Cell::default(),
    }
}

fn sheet() -> Sheet {
    Sheet::new(
        &[
            ("name", Kind::Plain),
            ("mac", Kind::Plain),
            ("addresses", Kind::Plain),
            ("queries", Kind::Plain),
            ("blocked", Kind::Plain),
            ("names", Kind::Plain),
            ("flows", Kind::Plain),
            ("bytes_out", Kind::Bytes),
            ("bytes_in", Kind::Bytes),
            ("open_alerts", Kind::Plain),
            ("last_seen", Kind::Time),
        ],
        COLUMNS,
    )
}

/// Most bytes first, then most queries.
pub(crate) fn run(args: &ListArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let wanted = Wanted::read(args, Some(SINCE_DEFAULT), context)?;
    let (sql, condition) = statement(&wanted)?;
    list::run(context, &wanted, &sheet(), &sql, condition)?;
    Ok(Exit::Fine)
}

fn statement(wanted: &Wanted) -> anyhow::Result<(String, Condition)> {
    let mut flows = wanted.condition(FLOW_TERMS, "time")?;
    flows.and(LOCAL, []);
    // Words only flows know (a port) leave nothing of DNS.
    let mut dns = match condition::unknown(&wanted.words, DNS_TERMS) {
        Some(_) => Condition::never(),
        None => condition::build(&wanted.words, DNS_TERMS).map_err(anyhow::Error::msg)?,
    };
    wanted.span(&mut dns, "time");
    let (asked, began) = (dns.from("dns"), flows.from("flows"));
    let sql = format!(
        "WITH seen AS ( \
           SELECT client AS ip, mac, time, 1 AS q, (status = 'blocked')::INTEGER AS b, name AS n, \
             0 AS f, 0 AS o, 0 AS i FROM {asked} WHERE {} \
           UNION ALL \
           SELECT src, mac, time, 0, 0, NULL, 1, coalesce(bytes_out, 0), coalesce(bytes_in, 0) \
             FROM {began} WHERE {}), \
         known AS (SELECT s.* EXCLUDE (mac), coalesce(s.mac, a.mac) AS mac FROM seen s \
           LEFT JOIN address_names a USING (ip)), \
         per AS (SELECT coalesce(mac, ip) AS device, any_value(mac) AS mac, \
           list_sort(list(DISTINCT ip)) AS addresses, sum(q) AS queries, sum(b) AS blocked, \
           count(DISTINCT n) AS names, sum(f) AS flows, sum(o) AS bytes_out, sum(i) AS bytes_in, \
           max(time) AS last_seen FROM known GROUP BY 1) \
         SELECT d.hostname, p.mac, p.addresses, p.queries, p.blocked, p.names, p.flows, \
           p.bytes_out, p.bytes_in, \
           (SELECT count(*) FROM alerts x WHERE x.status = 'open' AND (x.mac = p.mac \
             OR (x.mac IS NULL AND list_contains(p.addresses, x.client)))), \
           p.last_seen \
         FROM per p LEFT JOIN devices d ON d.mac = p.mac \
         ORDER BY p.bytes_out + p.bytes_in DESC, p.queries DESC, p.device LIMIT ?",
        dns.sql, flows.sql
    );
    dns.params.append(&mut flows.params);
    Ok((sql, dns))
}
