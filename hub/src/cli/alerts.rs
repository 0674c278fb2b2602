//! `agentmon alerts`: what a person should look at, newest first.

use super::args::AlertsArgs;
use super::condition::{Term, Terms};
use super::context::{Context, Exit, Look};
use super::filter::Key;
use super::list::{self, Wanted};
use super::sheet::{Cell, Column, Kind, Paint, Row, Sheet};
use super::units;

/// Every rule that speaks of an alert.
const RULES: &str =
    "list_append((SELECT list(p.rule) FROM alert_parts p WHERE p.alert = alerts.id), rule)";

/// What filter words mean for alerts.
pub(crate) const TERMS: &Terms = &[
    (Key::Severity, Term::Severity("severity")),
    (Key::Rule, Term::AnyText(RULES)),
    (Key::Client, Term::Address(&["client"])),
    (Key::Src, Term::Address(&["client"])),
    (Key::Device, Term::Device("mac", &["client"], "last_seen")),
    (Key::Domain, Term::Domain(&["subject"])),
    (Key::Name, Term::Text("subject")),
    (Key::Status, Term::Text("status")),
    (Key::Ip, Term::AddressOrPlace("client", "subject")),
    (Key::Proc, Term::Nothing),
];

const COLUMNS: &[Column] = &[
    Column::new("ID", |r, _| r.plain("id")).right(),
    Column::new("LAST SEEN", |r, l| r.when("last_seen", l)),
    Column::new("SEVERITY", |r, _| r.severity("severity")),
    Column::new("RULE", |r, _| r.plain("rule")),
    Column::new("CLIENT", |r, _| r.host("client", "client_name")),
    Column::new("TIMES", |r, _| r.count("findings")).right(),
    Column::new("WHY", why),
];

fn why(row: &Row<'_>, _: &Look) -> Cell {
    match (row.text("status"), row.number("folds").unwrap_or_default()) {
        ("open", 0) => row.plain("why"),
        ("open", folds) => {
            let more = units::plural(folds, "alert", "alerts");
            Cell::new(&format!("{} (sums up {more})", row.text("why")))
        }
        ("folded", _) => {
            let into = row.plain("folded_into").text;
            Cell::new(&format!("[in alert {into}] {}", row.text("why"))).paint(Paint::Dim)
        }
        (status, _) => Cell::new(&format!("[{status}] {}", row.text("why"))).paint(Paint::Dim),
    }
}

/// The fields of an alert, in the order of [`SELECT`].
pub(crate) fn sheet() -> Sheet {
    Sheet::new(
        &[
            ("id", Kind::Plain),
            ("severity", Kind::Plain),
            ("score", Kind::Plain),
            ("rule", Kind::Plain),
            ("subject", Kind::Plain),
            ("client", Kind::Plain),
            ("client_name", Kind::DeviceAt("client", Some("mac"))),
            ("mac", Kind::Plain),
            ("first_seen", Kind::Time),
            ("last_seen", Kind::Time),
            ("findings", Kind::Plain),
            ("why", Kind::Plain),
            ("status", Kind::Plain),
            ("acked_at", Kind::Time),
            ("ack_note", Kind::Plain),
            ("folded_into", Kind::Plain),
            ("folds", Kind::Plain),
            ("topic", Kind::Plain),
            ("rules", Kind::Plain),
            ("seen_by", Kind::Plain),
            ("devices", Kind::Plain),
            ("reasons", Kind::Json),
        ],
        COLUMNS,
    )
}

/// Columns of [`sheet`].
pub(crate) const SELECT: &str = "SELECT id, severity, score, rule, subject, client, mac, \
     first_seen, last_seen, findings, why, status, acked_at, ack_note, folded_into, \
     (SELECT count(*) FROM alerts f WHERE f.folded_into = alerts.id), topic, \
     (SELECT list_sort(list(DISTINCT p.rule)) FROM alert_parts p WHERE p.alert = alerts.id), \
     seen_by, devices, reasons FROM alerts";

/// Open ones, unless `--all` or a `status:` word says otherwise.
pub(crate) fn run(args: &AlertsArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let wanted = Wanted::read(&args.list, None, context)?;
    let mut condition = wanted.condition(TERMS, "last_seen")?;
    let open = !args.all && !wanted.words.iter().any(|w| w.key == Key::Status);
    if open {
        condition.and("status = 'open'", []);
    }
    let sql = format!("{SELECT} WHERE {} ORDER BY last_seen DESC, id DESC LIMIT ?", condition.sql);
    let shown = list::run(context, &wanted, &sheet(), &sql, condition)?;
    if open {
        say_learning(context)?;
    }
    Ok(if args.exit_code && shown > 0 { Exit::Found } else { Exit::Fine })
}

/// What was found and is not told: nobody should take that for silence.
fn say_learning(context: &mut Context<'_>) -> anyhow::Result<()> {
    let sql = "SELECT count(*) FROM alerts WHERE status = 'learning'";
    let mut kept = 0;
    super::backend::query(context.hub, sql, Vec::new(), &mut |row| {
        kept = row.first().and_then(serde_json::Value::as_u64).unwrap_or_default();
        Ok(())
    })?;
    if kept > 0 {
        let kept = units::plural(kept, "alert", "alerts");
        context.say(&format!(
            "{kept} found while learning, not told: agentmon alerts status:learning"
        ));
    }
    Ok(())
}
