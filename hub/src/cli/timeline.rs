//! `agentmon timeline`: what happened, in sentences, in time order.
//!
//! Each kind of record is one query with its own filter terms and one function that makes
//! a sentence of a row. The newest of all kinds together are shown, oldest first. Gaps in
//! knowledge are shown as what they are: nothing may be concluded from silence there.

use agentmon_core::Timestamp;
use serde_json::{Value, json};

use super::args::ListArgs;
use super::condition::{self, Term, Terms};
use super::context::{Context, Exit, Look};
use super::directory::Directory;
use super::filter::{Key, Word};
use super::list::{self, SINCE_DEFAULT, Wanted};
use super::print::Printer;
use super::sheet::{Cell, Column, Kind, Paint, Record, Row, Sheet, host};
use super::{dns, firewall, flows, units, when};

/// One kind of record.
struct Source {
    /// Its word for `kind:`.
    kind: &'static str,
    terms: &'static Terms,
    /// The time at which it stands in the line.
    time: &'static str,
    select: &'static str,
    sheet: fn() -> Sheet,
    tell: fn(&Row<'_>, &Look) -> Told,
}

/// A row as a sentence.
struct Told {
    at: &'static str,
    client: &'static str,
    client_name: &'static str,
    severity: Option<String>,
    text: String,
}

const FINDING_TERMS: &Terms = &[
    (Key::Severity, Term::Severity("severity")),
    (Key::Rule, Term::Text("rule")),
    (Key::Client, Term::Address(&["client"])),
    (Key::Src, Term::Address(&["client"])),
    (Key::Device, Term::Device("mac", &["client"])),
    (Key::Domain, Term::Domain(&["subject"])),
    (Key::Name, Term::Text("subject")),
    (Key::Sensor, Term::Sensor("sensor")),
    (Key::Proc, Term::Nothing),
];
const DEVICE_TERMS: &Terms = &[
    (Key::Client, Term::Address(&["ip"])),
    (Key::Src, Term::Address(&["ip"])),
    (Key::Device, Term::Device("mac", &["ip"])),
    (Key::Proc, Term::Nothing),
];
/// A gap concerns everybody, so it passes every filter for a client or a name.
const GAP_TERMS: &Terms = &[(Key::Sensor, Term::Sensor("sensor")), (Key::Proc, Term::Nothing)];

const SOURCES: &[Source] = &[
    Source {
        kind: "dns",
        terms: dns::TERMS,
        time: "time",
        select: dns::SELECT,
        sheet: dns::sheet,
        tell: tell_dns,
    },
    Source {
        kind: "flow",
        terms: flows::TERMS,
        time: "coalesce(start, time)",
        select: flows::SELECT,
        sheet: flows::sheet,
        tell: tell_flow,
    },
    Source {
        kind: "firewall",
        terms: firewall::TERMS,
        time: "time",
        select: firewall::SELECT,
        sheet: firewall::sheet,
        tell: tell_firewall,
    },
    Source {
        kind: "finding",
        terms: FINDING_TERMS,
        time: "time",
        select: FINDING_SELECT,
        sheet: finding_sheet,
        tell: tell_finding,
    },
    Source {
        kind: "device",
        terms: DEVICE_TERMS,
        time: "time",
        select: DEVICE_SELECT,
        sheet: device_sheet,
        tell: tell_device,
    },
    Source {
        kind: "gap",
        terms: GAP_TERMS,
        time: "time",
        select: GAP_SELECT,
        sheet: gap_sheet,
        tell: tell_gap,
    },
];

const COLUMNS: &[Column] = &[
    Column::new("TIME", |r, l| r.when("time", l)),
    Column::new("CLIENT", |r, _| r.host("client", "client_name")),
    Column::new("WHAT", what),
];

fn what(row: &Row<'_>, _: &Look) -> Cell {
    let paint = match (row.text("kind"), row.text("severity")) {
        ("gap", _) => Paint::Warn,
        ("finding", severity) => Paint::of_severity(severity),
        ("firewall", _) => Paint::Bad,
        _ => Paint::Plain,
    };
    row.plain("text").paint(paint)
}

fn sheet() -> Sheet {
    Sheet::new(
        &[
            ("time", Kind::Time),
            ("kind", Kind::Plain),
            ("client", Kind::Plain),
            ("client_name", Kind::Plain),
            ("severity", Kind::Plain),
            ("text", Kind::Plain),
        ],
        COLUMNS,
    )
}

/// The newest of all kinds, oldest first.
pub(crate) fn run(args: &ListArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let wanted = Wanted::read(args, Some(SINCE_DEFAULT), context)?;
    let names = Directory::load(context.hub)?;
    let (kinds, words) = split_kinds(&wanted.words)?;
    check_words(&words)?;
    let mut all: Vec<(Timestamp, Record)> = Vec::new();
    for source in SOURCES.iter().filter(|s| kinds.is_empty() || kinds.iter().any(|k| k == s.kind)) {
        all.extend(read(source, &words, &wanted, &names, context)?);
    }
    all.sort_by_key(|(time, _)| *time);
    let rows = u64::try_from(all.len()).unwrap_or(u64::MAX);
    let skip = rows.saturating_sub(wanted.limit);
    let sheet = sheet();
    let mut printer = Printer::new(wanted.format, &sheet, &context.look, context.out);
    for (_, record) in all.iter().skip(usize::try_from(skip).unwrap_or(usize::MAX)) {
        printer.record(record)?;
    }
    printer.finish()?;
    if skip > 0 {
        let shown = units::plural(wanted.limit, "entry", "entries");
        context.say(&format!(
            "only the latest {shown}; earlier ones: --until, --limit N, or filter words"
        ));
    } else {
        list::say_if_cut(context, &wanted, &super::backend::Outcome::default(), rows);
    }
    Ok(Exit::Fine)
}

/// `kind:` words pick the sources; the others go to each.
fn split_kinds(words: &[Word]) -> anyhow::Result<(Vec<String>, Vec<Word>)> {
    let known: Vec<&str> = SOURCES.iter().map(|s| s.kind).collect();
    let (kinds, rest): (Vec<Word>, Vec<Word>) =
        words.iter().cloned().partition(|w| w.key == Key::Kind);
    let mut picked: Vec<String> = Vec::new();
    for word in &kinds {
        if let Some(bad) = word.values.iter().find(|v| !known.contains(&v.as_str())) {
            anyhow::bail!("kind: `{bad}` is none of {}", known.join(", "));
        }
        let named = |kind: &&str| word.values.iter().any(|v| v == kind) != word.negated;
        picked.extend(known.iter().filter(|k| named(k)).map(|k| (*k).to_owned()));
    }
    Ok((picked, rest))
}

/// A word no source knows is a mistake; one that only some know leaves the others out.
fn check_words(words: &[Word]) -> anyhow::Result<()> {
    for word in words {
        if !SOURCES.iter().any(|s| s.terms.iter().any(|(key, _)| *key == word.key)) {
            anyhow::bail!("`{}:` means nothing to the timeline", word.key.as_str());
        }
    }
    Ok(())
}

fn read(
    source: &Source,
    words: &[Word],
    wanted: &Wanted,
    names: &Directory,
    context: &mut Context<'_>,
) -> anyhow::Result<Vec<(Timestamp, Record)>> {
    let known = |w: &&Word| source.terms.iter().any(|(key, _)| *key == w.key);
    let mine: Vec<Word> = words.iter().filter(known).cloned().collect();
    let narrows = |w: &Word| !matches!(w.key, Key::Sensor | Key::Proc);
    // A filter this source cannot weigh (a port for DNS) leaves it out. Gaps stay unless
    // the question is about something a gap cannot be, a rule or a status.
    let weighs_all = mine.len() == words.len();
    let about_someone = |w: &Word| {
        matches!(w.key, Key::Client | Key::Src | Key::Dst | Key::Device | Key::Domain | Key::Name)
    };
    let stays = weighs_all
        || (source.kind == "gap" && words.iter().filter(|w| narrows(w)).all(about_someone));
    if !stays {
        return Ok(Vec::new());
    }
    let mut condition = condition::build(&mine, source.terms).map_err(anyhow::Error::msg)?;
    wanted.span(&mut condition, source.time);
    if let Some(since) = wanted.since.filter(|_| source.time != "time") {
        // Implied, since no flow ends before it begins; but this the store can skip by.
        condition.and("time >= CAST(? AS TIMESTAMP)", [Value::from(when::sql(since))]);
    }
    let sql =
        format!("{} WHERE {} ORDER BY {} DESC LIMIT ?", source.select, condition.sql, source.time);
    let mut params = condition.params;
    params.push(wanted.fetch().into());
    let sheet = (source.sheet)();
    let records = list::collect(context, names, &sheet, &sql, params)?;
    let line = |record: &Record| line(source, &sheet.row(record), &context.look);
    Ok(records.iter().map(line).collect())
}

fn line(source: &Source, row: &Row<'_>, look: &Look) -> (Timestamp, Record) {
    let told = (source.tell)(row, look);
    let time = row.time(told.at).or_else(|| row.time("time")).unwrap_or_default();
    let field = |key: &str| if key.is_empty() { Value::Null } else { row.value(key).clone() };
    let values = vec![
        json!(time.to_string()),
        json!(source.kind),
        field(told.client),
        field(told.client_name),
        json!(told.severity),
        json!(told.text),
    ];
    (time, Record { values })
}

fn tell_dns(row: &Row<'_>, _: &Look) -> Told {
    let (name, kind) = (row.text("name"), row.text("type"));
    let kind = if kind == "A" { String::new() } else { format!(" ({kind})") };
    let answers = row.list("answers");
    let outcome = match (row.text("status"), row.text("rcode")) {
        ("blocked", _) => match row.text("blocked_by") {
            "" => "blocked".to_owned(),
            by => format!("blocked by {by}"),
        },
        ("timeout", _) => "no answer".to_owned(),
        (_, "NXDOMAIN") => "no such name".to_owned(),
        (_, code) if !matches!(code, "" | "NOERROR") => code.to_owned(),
        (_, "NOERROR") if answers.is_empty() => "no such record".to_owned(),
        _ if answers.is_empty() => "asked".to_owned(),
        _ => answers,
    };
    Told {
        at: "time",
        client: "client",
        client_name: "client_name",
        severity: None,
        text: format!("asked for {name}{kind}: {outcome}"),
    }
}

fn tell_flow(row: &Row<'_>, look: &Look) -> Told {
    let name = [row.text("name"), row.text("dst_name")].into_iter().find(|n| !n.is_empty());
    let mut text = format!(
        "connected to {} {}",
        host(row.text("dst"), name.unwrap_or_default()),
        flows::port(row, look).text
    );
    if let Some(age) = row.number("name_age_ms").filter(|_| !row.text("name").is_empty()) {
        let age = units::duration(std::time::Duration::from_millis(age));
        text.push_str(&format!(", resolved {age} before"));
    }
    if let (Some(out), Some(inward)) = (row.number("bytes_out"), row.number("bytes_in")) {
        text.push_str(&format!(", {} out, {} in", units::bytes(out), units::bytes(inward)));
    }
    match (row.flag("open"), row.flag("replied")) {
        (true, _) => text.push_str(", still open"),
        (false, false) => text.push_str(", no reply"),
        (false, true) => {
            let taken = row.millis("duration_ms").text;
            if !taken.is_empty() {
                text.push_str(&format!(", took {taken}"));
            }
        }
    }
    Told { at: "start", client: "src", client_name: "src_name", severity: None, text }
}

fn tell_firewall(row: &Row<'_>, look: &Look) -> Told {
    let did = match row.text("verdict") {
        "drop" => "firewall dropped a packet to",
        "reject" => "firewall rejected a packet to",
        _ => "firewall logged a packet to",
    };
    let to = host(row.text("dst"), row.text("dst_name"));
    let rule = match row.text("prefix").trim() {
        "" => String::new(),
        prefix => format!(" (rule {prefix})"),
    };
    let text = format!("{did} {to} {}{rule}", flows::port(row, look).text);
    Told { at: "time", client: "src", client_name: "src_name", severity: None, text }
}

/// Columns of [`finding_sheet`].
pub(crate) const FINDING_SELECT: &str = "SELECT time, rule, subject, client, mac, score, severity, \
     why, evidence, alert FROM findings";

/// The fields of a finding.
pub(crate) fn finding_sheet() -> Sheet {
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
        FINDING_COLUMNS,
    )
}

/// How findings look in a table.
const FINDING_COLUMNS: &[Column] = &[
    Column::new("TIME", |r, l| r.when("time", l)),
    Column::new("SEVERITY", |r, _| r.severity("severity")),
    Column::new("RULE", |r, _| r.plain("rule")),
    Column::new("ALERT", |r, _| r.plain("alert")).right(),
    Column::new("WHY", |r, _| r.plain("why")),
];

fn tell_finding(row: &Row<'_>, _: &Look) -> Told {
    let severity = row.text("severity").to_owned();
    let alert = row.number("alert").map_or_else(String::new, |id| format!(" (alert {id})"));
    let text = format!("{severity} {}: {}{alert}", row.text("rule"), row.text("why"));
    Told {
        at: "time",
        client: "client",
        client_name: "client_name",
        severity: Some(severity),
        text,
    }
}

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

/// Times of the span are fields; the text must not depend on the reader's zone.
fn tell_gap(row: &Row<'_>, _: &Look) -> Told {
    let lost = match row.number("lost") {
        Some(n) => format!("{} lost", units::count(n)),
        None => "how much was lost is not known".to_owned(),
    };
    let span = match (row.time("since"), row.time("time")) {
        (Some(since), Some(time)) => units::duration(time.since(since)),
        _ => "some time".to_owned(),
    };
    let text = format!(
        "blind for {span}: {} of sensor {} ({}; {lost})",
        row.text("collector"),
        row.text("sensor"),
        row.text("reason"),
    );
    Told { at: "since", client: "", client_name: "", severity: None, text }
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

fn tell_device(row: &Row<'_>, _: &Look) -> Told {
    let text = format!("first seen on this network, MAC {}", row.text("mac"));
    Told { at: "time", client: "ip", client_name: "hostname", severity: None, text }
}
