//! Findings as records: shown by `alert` and `timeline`.

use super::condition::{Term, Terms};
use super::filter::Key;
use super::sheet::{Column, Kind, Sheet};

/// What filter words mean for findings.
pub(crate) const TERMS: &Terms = &[
    (Key::Severity, Term::Severity("severity")),
    (Key::Rule, Term::Text("rule")),
    (Key::Client, Term::Address(&["client"])),
    (Key::Src, Term::Address(&["client"])),
    (Key::Device, Term::Device("mac", &["client"], "time")),
    (Key::Domain, Term::Domain(&["subject"])),
    (Key::Name, Term::Text("subject")),
    (Key::Sensor, Term::Sensor("sensor")),
    (Key::Ip, Term::AddressOrPlace("client", "subject")),
    (Key::Proc, Term::Nothing),
];

/// Columns of [`sheet`].
pub(crate) const SELECT: &str = "SELECT time, rule, subject, client, mac, score, severity, \
     why, evidence, alert FROM findings";

/// The fields of a finding.
pub(crate) fn sheet() -> Sheet {
    Sheet::new(
        &[
            ("time", Kind::Time),
            ("rule", Kind::Plain),
            ("subject", Kind::Plain),
            ("client", Kind::Plain),
            ("client_name", Kind::DeviceAt("client", Some("mac"))),
            ("mac", Kind::Plain),
            ("score", Kind::Plain),
            ("severity", Kind::Plain),
            ("why", Kind::Plain),
            ("evidence", Kind::Json),
            ("alert", Kind::Plain),
        ],
        COLUMNS,
    )
}

/// How findings look in a table.
const COLUMNS: &[Column] = &[
    Column::new("TIME", |r, l| r.when("time", l)),
    Column::new("SEVERITY", |r, _| r.severity("severity")),
    Column::new("RULE", |r, _| r.plain("rule")),
    Column::new("ALERT", |r, _| r.plain("alert")).right(),
    Column::new("WHY", |r, _| r.plain("why")),
];
