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
    pub(super) sheet: fn() -> Sheet,
    pub(super) tell: fn(&Row<'_>, &Look) -> Told,
}

pub(super) const SOURCES: &[Source] = &[
    Source {
        kind: "dns",
        terms: dns::TERMS,
        time: "time",
        select: dns::SELECT,
        sheet: dns::sheet,
        tell: tell::dns,
    },
    Source {
        kind: "flow",
        terms: flows::TERMS,
        time: "coalesce(start, time)",
        select: flows::SELECT,
        sheet: flows::sheet,
        tell: tell::flow,
    },
    Source {
        kind: "firewall",
        terms: firewall::TERMS,
        time: "time",
        select: firewall::SELECT,
        sheet: firewall::sheet,
        tell: tell::firewall,
    },
    Source {
        kind: "finding",
        terms: findings::TERMS,
        time: "time",
        select: findings::SELECT,
        sheet: findings::sheet,
        tell: tell::finding,
    },
    Source {
        kind: "device",
        terms: DEVICE_TERMS,
        time: "time",
        select: DEVICE_SELECT,
        sheet: device_sheet,
        tell: tell::device,
    },
    Source {
        kind: "gap",
        terms: GAP_TERMS,
        time: "time",
        select: GAP_SELECT,
        sheet: gap_sheet,
        tell: tell::gap,
    },
];

const DEVICE_TERMS: &Terms = &[
    (Key::Client, Term::Address(&["ip"])),
    (Key::Src, Term::Address(&["ip"])),
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
