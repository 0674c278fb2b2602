//! What stands behind an alert: its parts, how its score came about, what it may be an
//! instance of, what would make it harmless, and what people said.

use std::collections::BTreeMap;
use std::io::Write;

use serde_json::{Map, Value, json};

use super::context::{Context, Look};
use super::directory::Directory;
use super::print::{Format, Printer, json_line};
use super::sheet::{Cell, Column, Kind, Record, Row, Sheet};
use super::{list, text, units, when};
use crate::alert::rules::{self, ATTACK};

/// Most parts shown.
const PARTS_MAX: u64 = 64;
/// Most feedbacks shown.
const FEEDBACK_MAX: u64 = 50;

/// What is known beside the alert's own row.
pub(super) struct Behind {
    /// What each rule says, worst first.
    pub(super) parts: Vec<Record>,
    /// What was said of this alert, or has a hand in it.
    pub(super) feedback: Vec<Record>,
    /// The incidents it is part of.
    pub(super) incidents: Vec<i64>,
}

const PART_COLUMNS: &[Column] = &[
    Column::new("RULE", |r, _| r.plain("rule")),
    Column::new("SCORE", |r, _| r.plain("score")).right(),
    Column::new("TIMES", |r, _| r.count("findings")).right(),
    Column::new("LAST SEEN", |r, l| r.when("last_seen", l)),
    Column::new("WHY", part_why),
];

fn part_why(row: &Row<'_>, _: &Look) -> Cell {
    match row.text("followed") {
        "" => row.plain("why"),
        followed => Cell::new(&format!("{}; {followed}", row.text("why"))),
    }
}

fn part_sheet() -> Sheet {
    Sheet::new(
        &[
            ("rule", Kind::Plain),
            ("subject", Kind::Plain),
            ("score", Kind::Plain),
            ("findings", Kind::Plain),
            ("first_seen", Kind::Time),
            ("last_seen", Kind::Time),
            ("why", Kind::Plain),
            ("followed_at", Kind::Time),
            ("followed", Kind::Plain),
        ],
        PART_COLUMNS,
    )
}

fn feedback_sheet() -> Sheet {
    Sheet::new(
        &[
            ("id", Kind::Plain),
            ("kind", Kind::Plain),
            ("made", Kind::Time),
            ("until", Kind::Time),
            ("undone", Kind::Time),
            ("comment", Kind::Plain),
        ],
        &[],
    )
}

impl Behind {
    /// Of one alert.
    pub(super) fn read(id: i64, context: &mut Context<'_>) -> anyhow::Result<Self> {
        let none = Directory::default();
        let sql = "SELECT rule, subject, score, findings, first_seen, last_seen, why, followed_at, \
             followed FROM alert_parts WHERE alert = ? ORDER BY score DESC, rule, subject LIMIT ?";
        let params = vec![id.into(), PARTS_MAX.into()];
        let parts = list::collect(context, &none, &part_sheet(), sql, params)?;
        let sql = "SELECT f.id, f.kind, f.made, f.until, f.undone, f.comment FROM feedback f \
             WHERE f.alert = ? OR EXISTS (FROM alerts a WHERE a.id = ? \
                 AND contains(a.reasons, '(feedback ' || f.id || ')')) ORDER BY f.id LIMIT ?";
        let params = vec![id.into(), id.into(), FEEDBACK_MAX.into()];
        let feedback = list::collect(context, &none, &feedback_sheet(), sql, params)?;
        let mut incidents = Vec::new();
        let sql = "SELECT DISTINCT incident FROM incident_findings WHERE alert = ? OR told_by = ? \
             ORDER BY 1 DESC";
        super::backend::query(context.hub, sql, vec![id.into(), id.into()], &mut |row| {
            incidents.extend(row.first().and_then(Value::as_i64));
            Ok(())
        })?;
        Ok(Self { parts, feedback, incidents })
    }

    /// The rules that speak of it; at least the alert's own.
    fn rules<'a>(&'a self, sheet: &'a Sheet, alert: &'a Row<'_>) -> Vec<&'a str> {
        let all: Vec<&str> = self.parts.iter().map(|part| sheet.row(part).text("rule")).collect();
        if all.is_empty() { vec![alert.text("rule")] } else { all }
    }

    /// Into the alert's object.
    pub(super) fn json(&self, alert: &Row<'_>, all: &mut Map<String, Value>) {
        let object = |sheet: &Sheet, record: &Record| -> Value {
            serde_json::from_str(&json_line(sheet, record)).unwrap_or_default()
        };
        let (parts, feedback) = (part_sheet(), feedback_sheet());
        let rows: Vec<_> = self.parts.iter().map(|part| object(&parts, part)).collect();
        all.insert("parts".into(), json!(rows));
        let rules = self.rules(&parts, alert);
        all.insert("attack".into(), Techniques::of(rules.iter().copied()).json());
        all.insert("benign_if".into(), json!(benign(&rules)));
        let rows: Vec<_> = self.feedback.iter().map(|row| object(&feedback, row)).collect();
        all.insert("feedback".into(), json!(rows));
        all.insert("incidents".into(), json!(self.incidents));
    }

    /// Below the alert's head.
    pub(super) fn print(&self, alert: &Row<'_>, context: &mut Context<'_>) -> anyhow::Result<()> {
        let parts = part_sheet();
        if let Value::Array(reasons) = alert.value("reasons")
            && !reasons.is_empty()
        {
            writeln!(context.out, "\nHow the score came about")?;
            for reason in reasons.iter().filter_map(Value::as_str) {
                writeln!(context.out, "  {}", text::safe(reason))?;
            }
        }
        if self.parts.len() > 1 {
            let told = units::plural(self.parts.len() as u64, "detector's word", "words");
            writeln!(context.out, "\nMade of {told}")?;
            records(Format::Table, &parts, &self.parts, context)?;
        }
        let rules = self.rules(&parts, alert);
        Techniques::of(rules.iter().copied()).print(context.out)?;
        writeln!(context.out, "\nHarmless if")?;
        for (rule, benign) in benign(&rules) {
            writeln!(context.out, "  {}: {benign}", text::safe(&rule))?;
        }
        self.print_feedback(context)?;
        for id in &self.incidents {
            writeln!(context.out, "\nPart of incident {id} (agentmon incident {id})")?;
        }
        Ok(())
    }

    fn print_feedback(&self, context: &mut Context<'_>) -> anyhow::Result<()> {
        if self.feedback.is_empty() {
            return Ok(());
        }
        writeln!(context.out, "\nFeedback")?;
        let (sheet, look) = (feedback_sheet(), &context.look);
        for row in self.feedback.iter().map(|record| sheet.row(record)) {
            let time = |key: &str| row.time(key).map(|t| when::short(t, look.now, &look.zone));
            let what = if row.text("kind") == "fp" { "a false positive" } else { "allowed" };
            let until = time("until").map_or_else(String::new, |until| format!(" until {until}"));
            let undone = time("undone").map_or_else(String::new, |at| format!(", undone {at}"));
            let comment = match row.text("comment") {
                "" => String::new(),
                comment => format!(": {}", text::safe(comment)),
            };
            let (id, made) = (row.plain("id").text, time("made").unwrap_or_default());
            writeln!(context.out, "  {id}  {made}  {what}{until}{undone}{comment}")?;
        }
        Ok(())
    }
}

/// Prints records that are there already.
pub(super) fn records(
    format: Format,
    sheet: &Sheet,
    records: &[Record],
    context: &mut Context<'_>,
) -> anyhow::Result<()> {
    let mut printer = Printer::new(format, sheet, &context.look, context.out);
    records.iter().try_for_each(|record| printer.record(record))?;
    printer.finish()
}

/// What would make it harmless, by rule.
fn benign(rules: &[&str]) -> BTreeMap<String, &'static str> {
    rules.iter().map(|rule| ((*rule).to_owned(), rules::of(rule).benign)).collect()
}

/// What rules stand for in MITRE ATT&CK.
pub(super) struct Techniques(BTreeMap<&'static str, &'static str>);

impl Techniques {
    /// Of all these rules.
    pub(super) fn of<'a>(rules: impl Iterator<Item = &'a str>) -> Self {
        Self(rules.flat_map(|rule| rules::of(rule).attack.iter().copied()).collect())
    }

    pub(super) fn json(&self) -> Value {
        let all: Vec<_> =
            self.0.iter().map(|(id, name)| json!({ "id": id, "name": name })).collect();
        json!({ "source": ATTACK, "techniques": all })
    }

    pub(super) fn print(&self, out: &mut dyn Write) -> std::io::Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        writeln!(out, "\nMay be ({ATTACK})")?;
        self.0.iter().try_for_each(|(id, name)| writeln!(out, "  {id:<9}  {name}"))
    }
}
