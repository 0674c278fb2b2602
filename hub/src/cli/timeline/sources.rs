//! The kinds of record that make up a timeline: one query, its filter terms and its
//! sentence each. Adding a kind is one entry in [`SOURCES`].

use super::tell::{self, Told};
use crate::cli::condition::{Term, Terms};
use crate::cli::context::Look;
use crate::cli::filter::Key;
use crate::cli::sheet::{Kind, Row, Sheet};
use crate::cli::{dns, findings, firewall, flows};

/// One kind of record.
pub(super) struct Source {
    /// Its word for `kind:`.
    pub(super) kind: &'static str,
    pub(super) terms: &'static Terms,
    /// The time at which it stands in the line.
    pub(super) time: &'static str,
    pub(super) select: &'static str,
    /// What the statement ends with, where that is long.
    pub(super) table: &'static str,
    pub(super) sheet: fn() -> Sheet,
    pub(super) tell: fn(&Row<'_>, &Look) -> Told,
}

/// Connections: what other records are joined to.
pub(super) const FLOW: Source = Source {
    kind: "flow",
    terms: flows::TERMS,
    time: "coalesce(start, time)",
    select: flows::SELECT,
    table: "flows",
    sheet: flows::sheet,
    tell: tell::flow,
};

pub(super) const SOURCES: &[Source] = &[
    Source {
        kind: "dns",
        terms: dns::TERMS,
        time: "time",
        select: dns::SELECT,
        table: "dns",
        sheet: dns::sheet,
        tell: tell::dns,
    },
    FLOW,
    Source {
        kind: "firewall",
        terms: firewall::TERMS,
        time: "time",
        select: firewall::SELECT,
        table: "firewall",
        sheet: firewall::sheet,
        tell: tell::firewall,
    },
    Source {
        kind: "finding",
        terms: findings::TERMS,
        time: "time",
        select: findings::SELECT,
        table: "findings",
        sheet: findings::sheet,
        tell: tell::finding,
    },
    Source {
        kind: "host",
        terms: CONNECTION_TERMS,
        time: "coalesce(start, time)",
        select: CONNECTION_SELECT,
        table: "",
        sheet: connection_sheet,
        tell: tell::connection,
    },
    Source {
        kind: "process",
        terms: PROCESS_TERMS,
        time: "time",
        select: PROCESS_SELECT,
        table: "",
        sheet: process_sheet,
        tell: tell::process,
    },
    Source {
        kind: "device",
        terms: DEVICE_TERMS,
        time: "time",
        select: DEVICE_SELECT,
        table: "",
        sheet: device_sheet,
        tell: tell::device,
    },
    Source {
        kind: "gap",
        terms: GAP_TERMS,
        time: "time",
        select: GAP_SELECT,
        table: "",
        sheet: gap_sheet,
        tell: tell::gap,
    },
];

/// A connection as its host saw it.
const CONNECTION_TERMS: &Terms = &[
    (Key::Client, Term::Address(&["src"])),
    (Key::Src, Term::Address(&["src"])),
    (Key::Dst, Term::AddressOrName("dst", "domain")),
    (Key::Ip, Term::Address(&["src", "dst"])),
    (Key::Device, Term::Device("NULL::VARCHAR", &["src", "dst"], "time")),
    (Key::Domain, Term::Domain(&["domain"])),
    (Key::Name, Term::Text("domain")),
    (Key::Port, Term::Number("dport")),
    (Key::Proto, Term::Protocol("proto")),
    (Key::Sensor, Term::Sensor("sensor")),
    (Key::Proc, Term::Program("program", "pid")),
];

/// Columns of [`connection_sheet`]: the connection, and what is known of its program.
/// More than one row for a connection while it lasts.
pub(super) const CONNECTION_SELECT: &str = "SELECT time, start, proto, src, sport, dst, dport, \
     direction, open, bytes_out, bytes_in, duration_ms, domain, pid, program, how, \
     host, parent, sensor || ' ' || id FROM (SELECT c.* EXCLUDE (name), c.name AS program, p.host, \
       CASE WHEN json_valid(p.ancestors) THEN p.ancestors->0->>'name' END AS parent FROM process_conns c LEFT JOIN ( \
         SELECT sensor, process, any_value(host) AS host, arg_max(ancestors, time) AS ancestors \
         FROM processes GROUP BY sensor, process) p USING (sensor, process) \
     WHERE c.direction <> 'listen')";

pub(super) fn connection_sheet() -> Sheet {
    Sheet::new(
        &[
            ("time", Kind::Time),
            ("start", Kind::Time),
            ("proto", Kind::Protocol),
            ("src", Kind::Plain),
            ("src_name", Kind::DeviceAt("src", None)),
            ("sport", Kind::Plain),
            ("dst", Kind::Plain),
            ("dst_name", Kind::DeviceAt("dst", None)),
            ("dport", Kind::Plain),
            ("direction", Kind::Plain),
            ("open", Kind::Plain),
            ("bytes_out", Kind::Bytes),
            ("bytes_in", Kind::Bytes),
            ("duration_ms", Kind::Millis),
            ("domain", Kind::Plain),
            ("pid", Kind::Plain),
            ("program", Kind::Plain),
            ("how", Kind::Plain),
            ("host", Kind::Plain),
            ("parent", Kind::Plain),
            ("id", Kind::Plain),
        ],
        &[],
    )
}

/// A host is the device of its name.
const PROCESS_TERMS: &Terms = &[
    (Key::Device, Term::Host("host")),
    (Key::Client, Term::Host("host")),
    (Key::Src, Term::Host("host")),
    (Key::Sensor, Term::Sensor("sensor")),
    (Key::Proc, Term::Program("name", "pid")),
];

/// Columns of [`process_sheet`].
const PROCESS_SELECT: &str = "SELECT time, phase, host, pid, name, exe, argv, \
     CASE WHEN json_valid(ancestors) THEN ancestors->0->>'name' END, user_name FROM processes";

fn process_sheet() -> Sheet {
    Sheet::new(
        &[
            ("time", Kind::Time),
            ("phase", Kind::Plain),
            ("host", Kind::Plain),
            ("pid", Kind::Plain),
            ("name", Kind::Plain),
            ("exe", Kind::Plain),
            ("argv", Kind::Plain),
            ("parent", Kind::Plain),
            ("user", Kind::Plain),
        ],
        &[],
    )
}

const DEVICE_TERMS: &Terms = &[
    (Key::Client, Term::Address(&["ip"])),
    (Key::Src, Term::Address(&["ip"])),
    (Key::Ip, Term::Address(&["ip"])),
    (Key::Device, Term::Device("mac", &["ip"], "time")),
    (Key::Proc, Term::Nothing),
];

/// A gap concerns everybody, so it passes every filter for a client or a name.
const GAP_TERMS: &Terms = &[(Key::Sensor, Term::Sensor("sensor")), (Key::Proc, Term::Nothing)];

const GAP_SELECT: &str = "SELECT time, (SELECT s.name FROM sensors s WHERE s.id = sensor), \
     collector, since, reason, lost FROM gaps";

fn gap_sheet() -> Sheet {
    Sheet::new(
        &[
            ("time", Kind::Time),
            ("sensor", Kind::Plain),
            ("collector", Kind::Plain),
            ("since", Kind::Time),
            ("reason", Kind::Plain),
            ("lost", Kind::Plain),
        ],
        &[],
    )
}

/// Columns of [`device_sheet`].
const DEVICE_SELECT: &str = "SELECT time, mac, hostname, ip FROM (SELECT d.first_seen AS time, \
     d.mac, d.hostname, (SELECT min_by(a.ip, a.first_seen) FROM device_addresses a \
     WHERE a.mac = d.mac) AS ip FROM devices d)";

fn device_sheet() -> Sheet {
    Sheet::new(
        &[
            ("time", Kind::Time),
            ("mac", Kind::Plain),
            ("hostname", Kind::Plain),
            ("ip", Kind::Plain),
        ],
        &[],
    )
}
