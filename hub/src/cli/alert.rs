//! `agentmon alert ID`: why, the evidence, and what happened around it.
//!
//! A sum (a burst, a scan) also shows the alerts folded into it.
//!
//! Around = the alert's client, some minutes before and after the alert's worst finding:
//! its DNS, connections, stopped packets and other findings, a screenful of each, and the
//! command that shows the rest.

use std::io::Write;
use std::time::Duration;

use agentmon_core::Timestamp;
use anyhow::Context as _;
use serde_json::{Map, Value, json};

use super::args::{AlertAction, AlertArgs};
use super::context::{Context, Exit, Look};
use super::directory::Directory;
use super::fused::Behind;
use super::print::{Format, Printer, json_line};
use super::sheet::{Record, Row, Sheet, host};
use super::{alerts, dns, findings, firewall, flows, list, targets, text, units, when};

/// Rows of each kind shown around an alert.
const AROUND_ROWS_MAX: u64 = 20;
/// Findings of the alert whose evidence is shown.
const FINDINGS_MAX: u64 = 5;
/// Most folded alerts shown.
const FOLDED_MAX: u64 = 20;

/// Everything there is to say about one alert.
struct Story {
    alert: Record,
    /// The findings fused into it, worst first.
    findings: Vec<Record>,
    /// The alerts it tells besides itself, oldest first.
    folded: Vec<Record>,
    behind: Behind,
    around: Vec<Section>,
    from: Timestamp,
    to: Timestamp,
}

/// One kind of record around the alert.
struct Section {
    title: &'static str,
    /// The command that shows all of them.
    command: &'static str,
    sheet: Sheet,
    records: Vec<Record>,
}

/// What is looked at around an alert.
struct Neighbour {
    title: &'static str,
    command: &'static str,
    select: &'static str,
    /// Whose record it is.
    client: &'static str,
    /// When it began; `time` is its end.
    begin: &'static str,
    sheet: fn() -> Sheet,
}

const AROUND: [Neighbour; 4] = [
    Neighbour {
        title: "DNS of this client",
        command: "dns",
        select: dns::SELECT,
        client: "client",
        begin: "time",
        sheet: dns::sheet,
    },
    Neighbour {
        title: "Connections of this client",
        command: "flows",
        select: flows::SELECT,
        client: "src",
        begin: "coalesce(start, time)",
        sheet: flows::sheet,
    },
    Neighbour {
        title: "Packets of this client that the firewall stopped",
        command: "firewall",
        select: firewall::SELECT,
        client: "src",
        begin: "time",
        sheet: firewall::sheet,
    },
    Neighbour {
        title: "Other findings about this client",
        command: FINDINGS,
        select: findings::SELECT,
        client: "client",
        begin: "time",
        sheet: findings::sheet,
    },
];

/// The command that shows findings.
const FINDINGS: &str = "timeline kind:finding";

/// Prints one alert.
pub(crate) fn run(args: &AlertArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    if let Some(AlertAction::Test { target }) = &args.action {
        return targets::test(target, context);
    }
    let id = args.id.context("which alert? see `agentmon alerts`")?;
    let around = when::duration(&args.around)
        .with_context(|| format!("--around {}: want an age as 5m or 1h", args.around))?;
    let story = read(id, around, context)?;
    if args.json {
        writeln!(context.out, "{}", text::safe_json(as_json(&story).to_string()))?;
    } else {
        print(&story, id, context)?;
    }
    Ok(Exit::Fine)
}

fn read(id: i64, around: Duration, context: &mut Context<'_>) -> anyhow::Result<Story> {
    let names = Directory::load(context.hub)?.with(context.hub.destinations());
    let sheet = alerts::sheet();
    let sql = format!("{} WHERE id = ?", alerts::SELECT);
    let found = list::collect(context, &names, &sheet, &sql, vec![id.into()])?;
    let alert = found
        .into_iter()
        .next()
        .with_context(|| format!("there is no alert {id}; see `agentmon alerts --all`"))?;

    let findings_sheet = findings::sheet();
    let sql = format!(
        "{} WHERE alert = ? ORDER BY score DESC, time LIMIT {FINDINGS_MAX}",
        findings::SELECT
    );
    let findings = list::collect(context, &names, &findings_sheet, &sql, vec![id.into()])?;
    let sql = format!(
        "{} WHERE folded_into = ? ORDER BY first_seen, id LIMIT {FOLDED_MAX}",
        alerts::SELECT
    );
    let folded = list::collect(context, &names, &sheet, &sql, vec![id.into()])?;
    // The worst finding says when; without one (long deleted) the alert itself does.
    let row = sheet.row(&alert);
    let centre = findings.first().and_then(|f| findings_sheet.row(f).time("time"));
    let centre = centre.or_else(|| row.time("last_seen")).unwrap_or_default();
    let (from, to) = (centre.minus(around), centre.plus(around));
    let client = row.text("client").to_owned();
    let mut sections = Vec::new();
    if !client.is_empty() {
        for neighbour in AROUND {
            sections.push(section(neighbour, &client, id, centre, around, &names, context)?);
        }
    }
    let behind = Behind::read(id, context)?;
    Ok(Story { alert, findings, folded, behind, around: sections, from, to })
}

/// The records of one kind that overlap the span, the nearest first when there are many.
fn section(
    of: Neighbour,
    client: &str,
    alert: i64,
    centre: Timestamp,
    around: Duration,
    names: &Directory,
    context: &mut Context<'_>,
) -> anyhow::Result<Section> {
    let sheet = (of.sheet)();
    // The alert's own findings are shown above, and so are those folded into it.
    let other = if of.command == FINDINGS {
        "alert NOT IN (SELECT id FROM alerts WHERE ? IN (id, folded_into))"
    } else {
        "? IS NOT NULL"
    };
    let sql = format!(
        "FROM ({} WHERE {} = ? AND time >= CAST(? AS TIMESTAMP) AND {} <= CAST(? AS TIMESTAMP) \
         AND {other} ORDER BY abs(epoch_us(time) - CAST(? AS BIGINT)) LIMIT {}) ORDER BY time",
        of.select,
        of.client,
        of.begin,
        AROUND_ROWS_MAX + 1
    );
    let params = vec![
        client.into(),
        when::sql(centre.minus(around)).into(),
        when::sql(centre.plus(around)).into(),
        alert.into(),
        centre.micros().into(),
    ];
    let records = list::collect(context, names, &sheet, &sql, params)?;
    Ok(Section { title: of.title, command: of.command, sheet, records })
}

fn as_json(story: &Story) -> Value {
    let object = |sheet: &Sheet, record: &Record| {
        let line = json_line(sheet, record);
        serde_json::from_str::<Map<String, Value>>(&line).unwrap_or_default()
    };
    let mut all = object(&alerts::sheet(), &story.alert);
    let sheet = findings::sheet();
    let evidence = story.findings.first().map(|f| sheet.row(f).value("evidence").clone());
    all.insert("evidence".into(), evidence.unwrap_or(Value::Null));
    let findings: Vec<_> = story.findings.iter().map(|f| object(&sheet, f)).collect();
    all.insert("worst_findings".into(), json!(findings));
    story.behind.json(&alerts::sheet().row(&story.alert), &mut all);
    let folded: Vec<_> = story.folded.iter().map(|f| object(&alerts::sheet(), f)).collect();
    all.insert("folded_alerts".into(), json!(folded));
    let mut around = Map::new();
    around.insert("since".into(), json!(story.from.to_string()));
    around.insert("until".into(), json!(story.to.to_string()));
    for section in &story.around {
        let key = section.command.split(' ').next_back().unwrap_or(section.command);
        let key = key.trim_start_matches("kind:").to_owned();
        let rows: Vec<_> = section.records.iter().map(|r| object(&section.sheet, r)).collect();
        around.insert(key, json!(rows));
    }
    all.insert("around".into(), Value::Object(around));
    Value::Object(all)
}

fn print(story: &Story, id: i64, context: &mut Context<'_>) -> anyhow::Result<()> {
    let look = context.look.clone();
    let sheet = alerts::sheet();
    let row = sheet.row(&story.alert);
    head(context.out, &row, &look)?;
    evidence(context.out, story, &look)?;
    story.behind.print(&row, context)?;
    folded(context.out, story, &row, &look)?;
    let client = row.text("client");
    for section in &story.around {
        around(context, section, story, client)?;
    }
    if row.text("status") == "open" {
        context.say(&format!("seen and fine? agentmon ack {id} --note 'why'"));
        context.say(&format!("wrong? agentmon fp {id} --comment 'why'; meant? agentmon allow"));
    }
    Ok(())
}

fn head(out: &mut dyn Write, row: &Row<'_>, look: &Look) -> anyhow::Result<()> {
    let time = |key: &str| row.time(key).map(|t| when::long(t, &look.zone));
    let client = host(row.text("client"), row.text("client_name"));
    let times = units::plural(row.number("findings").unwrap_or_default(), "time", "times");
    writeln!(
        out,
        "Alert {}: {} {} (score {})",
        row.plain("id").text,
        row.plain("severity").text,
        row.plain("rule").text,
        row.plain("score").text
    )?;
    writeln!(out, "  {}", row.plain("why").text)?;
    writeln!(out)?;
    let mut fact = |name: &str, value: &str| -> std::io::Result<()> {
        if value.is_empty() { Ok(()) } else { writeln!(out, "  {name:<9} {}", text::safe(value)) }
    };
    fact("about", row.text("subject"))?;
    fact("client", &client)?;
    fact("mac", row.text("mac"))?;
    fact("first", &time("first_seen").unwrap_or_default())?;
    fact("last", &format!("{} ({times})", time("last_seen").unwrap_or_default()))?;
    let into = row.number("folded_into").map(|id| format!("told by alert {id}"));
    fact("folded", &into.unwrap_or_default())?;
    let status = match (row.text("status"), time("acked_at"), row.text("ack_note")) {
        (status, Some(at), "") => format!("{status} {at}"),
        (status, Some(at), note) => format!("{status} {at}: {note}"),
        (status, None, _) => status.to_owned(),
    };
    fact("status", &status)?;
    Ok(())
}

fn evidence(out: &mut dyn Write, story: &Story, look: &Look) -> anyhow::Result<()> {
    let sheet = findings::sheet();
    let Some(worst) = story.findings.first() else { return Ok(()) };
    let row = sheet.row(worst);
    let time = row.time("time").map(|t| when::short(t, look.now, &look.zone));
    writeln!(out, "\nEvidence (worst finding, {})", time.unwrap_or_default())?;
    match row.value("evidence") {
        Value::Object(pairs) => {
            for (key, value) in pairs {
                let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                writeln!(out, "  {:<20}  {}", text::safe(key), text::safe(&value))?;
            }
        }
        other => writeln!(out, "  {}", text::safe(&other.to_string()))?,
    }
    Ok(())
}

/// The alerts this one tells too.
fn folded(out: &mut dyn Write, story: &Story, row: &Row<'_>, look: &Look) -> anyhow::Result<()> {
    let all = row.number("folds").unwrap_or_default();
    if all == 0 {
        return Ok(());
    }
    writeln!(out, "\nFolded into it: {}", units::plural(all, "alert", "alerts"))?;
    let sheet = alerts::sheet();
    for alert in story.folded.iter().map(|record| sheet.row(record)) {
        let time = alert.time("first_seen").map(|t| when::short(t, look.now, &look.zone));
        let (id, severity) = (alert.plain("id").text, alert.plain("severity").text);
        let why = alert.plain("why").text;
        writeln!(out, "  {}  {severity:<8}  {why}  (alert {id})", time.unwrap_or_default())?;
    }
    if all > story.folded.len() as u64 {
        writeln!(out, "  the first {}; all: agentmon alerts status:folded", story.folded.len())?;
    }
    Ok(())
}

fn around(
    context: &mut Context<'_>,
    section: &Section,
    story: &Story,
    client: &str,
) -> anyhow::Result<()> {
    let look = &context.look;
    let time = |t: Timestamp| when::short(t, look.now, &look.zone);
    writeln!(context.out, "\n{}, {} to {}", section.title, time(story.from), time(story.to))?;
    if section.records.is_empty() {
        writeln!(context.out, "  none")?;
        return Ok(());
    }
    let shown = usize::try_from(AROUND_ROWS_MAX).unwrap_or(usize::MAX);
    let mut printer = Printer::new(Format::Table, &section.sheet, look, context.out);
    section.records.iter().take(shown).try_for_each(|record| printer.record(record))?;
    printer.finish()?;
    if section.records.len() > shown {
        writeln!(
            context.out,
            "  the {shown} nearest; all: agentmon {} client:{} --since {} --until {}",
            section.command,
            text::safe(client),
            story.from,
            story.to
        )?;
    }
    Ok(())
}
