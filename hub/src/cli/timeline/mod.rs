//! `agentmon timeline`: what happened, in sentences, in time order.
//!
//! Each kind of record is one query with its own filter terms and one function that makes
//! a sentence of a row. The newest of all kinds together are shown, oldest first. Gaps in
//! knowledge are shown as what they are: nothing may be concluded from silence there.

mod sources;
mod tell;

use agentmon_core::Timestamp;
use serde_json::{Value, json};

use super::args::ListArgs;
use super::condition;
use super::context::{Context, Exit, Look};
use super::directory::Directory;
use super::filter::{Key, Word};
use super::list::{self, SINCE_DEFAULT, Wanted};
use super::print::Printer;
use super::sheet::{Cell, Column, Kind, Paint, Record, Row, Sheet};
use super::{units, when};
use sources::{SOURCES, Source};

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
    super::places::narrow(context, &mine, "flows", "dst", &mut condition)?;
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
