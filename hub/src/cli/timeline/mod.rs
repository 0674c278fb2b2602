//! `agentmon timeline`: what happened, in sentences, in time order.
//!
//! Each kind of record is one query with its own filter terms and one function that makes
//! a sentence of a row. A connection, the question it followed and the program that made it
//! are one sentence ([`weave`]). The newest of all kinds together are shown, oldest first.
//! Gaps in knowledge are shown as what they are: nothing may be concluded from silence there.
//!
//! Budget: a screenful of one device out of 30 days within half a second. It is looked for in
//! the newest hour first, then in more and more, until the screen is full.

mod join;
mod sources;
mod tell;
mod weave;

use std::time::Duration;

use agentmon_core::Timestamp;
use anyhow::Context as _;
use clap::Args;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::args::ListArgs;
use super::condition;
use super::context::{Context, Exit, Look};
use super::directory::Directory;
use super::filter::{Key, Word};
use super::list::{self, SINCE_DEFAULT, Wanted};
use super::print::{Format, Printer};
use super::sheet::{Cell, Column, Kind, Paint, Record, Row, Sheet, host};
use super::{owners, units, when};
use sources::{SOURCES, Source};
use tell::{Beside, Told};

#[derive(Args, Clone, Debug, Default)]
pub(crate) struct TimelineArgs {
    #[command(flatten)]
    pub(crate) list: ListArgs,
    /// Of one device: name, MAC or address
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// Of one program: its name (with *) or its process number
    #[arg(long, value_name = "PROGRAM")]
    process: Option<String>,
    /// About a name and everything below it
    #[arg(long, value_name = "NAME")]
    domain: Option<String>,
    /// About an address, whichever end
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<String>,
    /// Around this time
    #[arg(long, value_name = "TIME", conflicts_with_all = ["since", "until"])]
    at: Option<String>,
    /// How far around --at
    #[arg(long, value_name = "AGE", default_value = "5m")]
    around: String,
}

const COLUMNS: &[Column] =
    &[Column::new("TIME", |r, l| r.when("time", l)), Column::new("WHAT", what)];

fn what(row: &Row<'_>, _: &Look) -> Cell {
    let paint = match (row.text("kind"), row.text("severity")) {
        ("gap", _) => Paint::Warn,
        ("finding", severity) => Paint::of_severity(severity),
        ("firewall", _) => Paint::Bad,
        _ => Paint::Plain,
    };
    row.plain("sentence").paint(paint)
}

fn sheet() -> Sheet {
    let plain = |key| (key, Kind::Plain);
    let mut fields = vec![("time", Kind::Time)];
    let words = ["kind", "client", "client_name", "program", "severity", "text", "sentence"];
    fields.extend(words.map(plain));
    fields.extend(FACTS.map(plain));
    Sheet::new(&fields, COLUMNS)
}

/// Of a connection: what a program wants as fields.
const FACTS: [&str; 13] = [
    "asked",
    "name",
    "resolver",
    "start",
    "proto",
    "src",
    "sport",
    "dst",
    "dport",
    "bytes_out",
    "bytes_in",
    "duration_ms",
    "pid",
];

/// One line of the timeline.
struct Line {
    time: Timestamp,
    record: Record,
}

/// The first span looked through; longer ones while less than a screenful is found.
const FIRST_SPAN: Duration = Duration::from_secs(3 * 3_600);
/// More lines than this are read in one go.
const SCREEN_MAX: u64 = 10_000;

/// The newest of all kinds, oldest first.
pub(crate) fn run(args: &TimelineArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let mut wanted = Wanted::read(&span(args, &context.look)?, Some(SINCE_DEFAULT), context)?;
    wanted.words.extend(flags(args));
    owners::resolve(context.hub, &mut wanted.words)?;
    if args.process.is_some() {
        list::note_without_agents(context)?;
    }
    let names = Directory::load(context.hub)?;
    let (kinds, words) = split_kinds(&wanted.words)?;
    check_words(&words)?;
    let asked = Asked { kinds, words, wanted };
    let mut lines = newest(&asked, &names, context)?;
    lines.sort_by_key(|line| line.time);
    print(&asked, lines, context)?;
    say_drops(&asked, context)?;
    Ok(Exit::Fine)
}

/// What is looked for.
struct Asked {
    kinds: Vec<String>,
    words: Vec<Word>,
    wanted: Wanted,
}

impl Asked {
    fn has(&self, kind: &str) -> bool {
        self.kinds.is_empty() || self.kinds.iter().any(|k| k == kind)
    }
}

/// `--at` as a span.
fn span(args: &TimelineArgs, look: &Look) -> anyhow::Result<ListArgs> {
    let mut list = args.list.clone();
    if let Some(at) = &args.at {
        let at = when::parse(at, look.now, &look.zone);
        let at = at.map_err(|error| anyhow::anyhow!("--at: {error}"))?;
        let around = when::duration(&args.around)
            .with_context(|| format!("--around {}: want an age as 5m or 1h", args.around))?;
        list.since = Some(at.minus(around).to_string());
        list.until = Some(at.plus(around).to_string());
    }
    Ok(list)
}

/// The options as the filter words they stand for.
fn flags(args: &TimelineArgs) -> Vec<Word> {
    let all = [
        (Key::Device, &args.device),
        (Key::Proc, &args.process),
        (Key::Domain, &args.domain),
        (Key::Ip, &args.ip),
    ];
    let given = all.into_iter().filter_map(|(key, value)| Some((key, value.clone()?)));
    given.map(|(key, value)| Word::of(key, value)).collect()
}

/// The latest lines, and the silences that reach into their time.
fn print(asked: &Asked, mut lines: Vec<Line>, context: &mut Context<'_>) -> anyhow::Result<()> {
    let wanted = &asked.wanted;
    let quiet = silent(asked, context)?;
    let rows = u64::try_from(lines.len() + quiet.len()).unwrap_or(u64::MAX);
    let skip = rows.saturating_sub(wanted.limit);
    let cut = usize::try_from(skip).unwrap_or(usize::MAX).min(lines.len());
    lines.drain(..cut);
    // One that began before what is shown is told at its begin.
    let from = lines.first().map(|line| line.time).filter(|_| skip > 0).or(wanted.since);
    lines.extend(quiet.iter().map(|silence| silence.line(from)));
    lines.sort_by_key(|line| line.time);
    let sheet = sheet();
    let mut printer = Printer::new(wanted.format, &sheet, &context.look, context.out);
    lines.iter().try_for_each(|line| printer.record(&line.record))?;
    printer.finish()?;
    if skip > 0 {
        let shown = units::plural(wanted.limit, "entry", "entries");
        context.say(&format!(
            "only the latest {shown}; earlier ones: --until, --limit N, or filter words"
        ));
    } else {
        list::say_if_cut(context, wanted, &super::backend::Outcome::default(), rows);
    }
    Ok(())
}

/// What was read of one kind.
type Found = (&'static Source, Sheet, Vec<Record>);

/// Looks through longer and longer spans, newest first.
fn newest(
    asked: &Asked,
    names: &Directory,
    context: &mut Context<'_>,
) -> anyhow::Result<Vec<Line>> {
    let end = asked.wanted.until.unwrap_or(context.look.now).min(context.look.now);
    let (mut span, limit) = (FIRST_SPAN, asked.wanted.limit);
    loop {
        let since = end.minus(span);
        let shorter = asked.wanted.since.is_none_or(|all| all < since);
        if !shorter || limit > SCREEN_MAX {
            break;
        }
        let wanted = Wanted { since: Some(since), ..asked.wanted.clone() };
        let found = read_all(asked, &wanted, names, context)?;
        let rows = found.iter().map(|(_, _, records)| records.len() as u64).sum::<u64>();
        // Some of them are told by others; what is not enough as it is need not be joined.
        if rows > limit {
            let lines = tell_all(&found, &wanted, names, context)?;
            if lines.len() as u64 > limit {
                return Ok(lines);
            }
        }
        span = longer(span, rows, limit);
    }
    let found = read_all(asked, &asked.wanted, names, context)?;
    tell_all(&found, &asked.wanted, names, context)
}

/// As long as should hold twice what is wanted, going by what the last one held.
fn longer(span: Duration, rows: u64, limit: u64) -> Duration {
    let times = limit.saturating_mul(2).checked_div(rows).unwrap_or(64).clamp(4, 64);
    span.saturating_mul(u32::try_from(times).unwrap_or(64))
}

fn read_all(
    asked: &Asked,
    wanted: &Wanted,
    names: &Directory,
    context: &mut Context<'_>,
) -> anyhow::Result<Vec<Found>> {
    let mut found = Vec::new();
    for source in SOURCES.iter().filter(|source| asked.has(source.kind)) {
        let records = read(source, &asked.words, wanted, names, context)?;
        found.push((source, (source.sheet)(), records));
    }
    Ok(found)
}

fn tell_all(
    found: &[Found],
    wanted: &Wanted,
    names: &Directory,
    context: &mut Context<'_>,
) -> anyhow::Result<Vec<Line>> {
    let joined = join::join(found, names, context)?;
    let zone = zone(wanted.format, &context.look);
    let mut lines = Vec::new();
    for (source, sheet, records) in found {
        for (nth, record) in records.iter().enumerate() {
            let row = sheet.row(record);
            if joined.is_told(source.kind, &row) {
                continue;
            }
            let beside = joined.beside(source.kind, nth);
            lines.push(line(source, &row, beside, &zone, &context.look));
        }
    }
    Ok(lines)
}

/// People read their own time, programs UTC.
fn zone(format: Format, look: &Look) -> TimeZone {
    if format == Format::Table { look.zone.clone() } else { TimeZone::UTC }
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
) -> anyhow::Result<Vec<Record>> {
    let known = |w: &&Word| source.terms.iter().any(|(key, _)| *key == w.key);
    let mine: Vec<Word> = words.iter().filter(known).cloned().collect();
    // A filter this source cannot weigh (a port for DNS) leaves it out. Gaps stay unless
    // the question is about something a gap cannot be, a rule or a status.
    let weighs_all = mine.len() == words.len();
    let stays = weighs_all || (source.kind == "gap" && concerns_gaps(words));
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
    let select = condition.over(source.select, source.table);
    let sql = format!("{select} WHERE {} ORDER BY {} DESC LIMIT ?", condition.sql, source.time);
    let mut params = condition.params;
    params.push(wanted.fetch().into());
    let sheet = (source.sheet)();
    let mut records = list::collect(context, names, &sheet, &sql, params)?;
    if source.kind == "host" {
        // Its newest row tells of a connection.
        let mut told = std::collections::HashSet::new();
        records.retain(|record| told.insert(sheet.row(record).text("id").to_owned()));
    }
    Ok(records)
}

/// A gap concerns everybody, so it passes every filter for somebody or a name.
fn concerns_gaps(words: &[Word]) -> bool {
    let about_someone = |w: &Word| {
        matches!(
            w.key,
            Key::Client | Key::Src | Key::Dst | Key::Device | Key::Domain | Key::Name | Key::Ip
        )
    };
    words.iter().filter(|w| !matches!(w.key, Key::Sensor | Key::Proc)).all(about_someone)
}

fn line(
    source: &Source,
    row: &Row<'_>,
    beside: Option<Beside<'_>>,
    zone: &TimeZone,
    look: &Look,
) -> Line {
    let told = match beside {
        Some(beside) => tell::connected(row, beside, zone),
        None => (source.tell)(row, look),
    };
    let asked = beside.and_then(|beside| beside.asked);
    let time = match (told.at, &asked) {
        ("asked", Some(asked)) => asked.time("time"),
        (at, _) => row.time(at),
    };
    let time = time.or_else(|| row.time("time")).unwrap_or_default();
    let mut values = sentence(source.kind, row, &told, time);
    values.extend(FACTS.iter().map(|key| fact(key, row, beside)));
    Line { time, record: Record { values } }
}

/// The fields every line has.
fn sentence(kind: &str, row: &Row<'_>, told: &Told, time: Timestamp) -> Vec<Value> {
    let field = |key: &str| if key.is_empty() { Value::Null } else { row.value(key).clone() };
    let (client, name) = (field(told.client), field(told.client_name));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let device = host(&text(&client), &text(&name));
    // The program says on which host it is, where that is known.
    let who = match &told.program {
        Some(program) if program.contains(" on ") || device.is_empty() => program.clone(),
        Some(program) => {
            let device = if text(&name).is_empty() { text(&client) } else { text(&name) };
            format!("{program} on {device}")
        }
        None => device,
    };
    let whole = if who.is_empty() { told.text.clone() } else { format!("{who} {}", told.text) };
    vec![
        json!(time.to_string()),
        json!(kind),
        client,
        name,
        json!(told.program),
        json!(told.severity),
        json!(told.text),
        json!(whole),
    ]
}

fn fact(key: &str, row: &Row<'_>, beside: Option<Beside<'_>>) -> Value {
    let Some(beside) = beside else { return Value::Null };
    let of =
        |row: Option<Row<'_>>, key: &str| row.map_or(Value::Null, |row| row.value(key).clone());
    match key {
        "asked" => of(beside.asked, "time"),
        "resolver" => of(beside.asked, "source"),
        "pid" => of(beside.owner, "pid"),
        key => row.value(key).clone(),
    }
}

/// A sensor of which nothing was heard for longer than this is silent.
const SILENT_AFTER: Duration = Duration::from_secs(300);

/// A sensor of which nothing is heard.
struct Silence {
    sensor: String,
    last: Timestamp,
    span: Duration,
}

impl Silence {
    /// As a line, where it began or where what is shown begins.
    fn line(&self, from: Option<Timestamp>) -> Line {
        let time = from.map_or(self.last, |from| from.max(self.last));
        let (sensor, span) = (&self.sensor, units::duration(self.span));
        let text =
            format!("nothing heard from sensor {sensor} for {span}: what it saw is not known");
        let mut values = vec![json!(time.to_string()), json!("gap")];
        values.extend([Value::Null, Value::Null, Value::Null, Value::Null]);
        values.extend([json!(text.clone()), json!(text)]);
        values.extend(FACTS.iter().map(|_| Value::Null));
        Line { time, record: Record { values } }
    }
}

/// Sensors of which nothing has been heard up to the end of the span.
fn silent(asked: &Asked, context: &mut Context<'_>) -> anyhow::Result<Vec<Silence>> {
    let terms = &[(Key::Sensor, super::condition::Term::Sensor("id"))];
    let words = &asked.words;
    let of: Vec<Word> = words.iter().filter(|w| w.key == Key::Sensor).cloned().collect();
    if !asked.has("gap") || !concerns_gaps(words) {
        return Ok(Vec::new());
    }
    let condition = condition::build(&of, terms).map_err(anyhow::Error::msg)?;
    let sql = format!(
        "SELECT name, last_seen FROM sensors WHERE token_hash IS NOT NULL AND revoked_at IS NULL \
         AND last_seen IS NOT NULL AND {} ORDER BY name",
        condition.sql
    );
    let end = asked.wanted.until.unwrap_or(context.look.now).min(context.look.now);
    let mut silent = Vec::new();
    super::backend::query(context.hub, &sql, condition.params, &mut |row| {
        let [Value::String(name), Value::String(last)] = row.as_slice() else { return Ok(()) };
        let last = when::from_answer(last).unwrap_or_default();
        let span = end.since(last);
        if span > SILENT_AFTER {
            silent.push(Silence { sensor: name.clone(), last, span });
        }
        Ok(())
    })?;
    Ok(silent)
}

/// What sensors lost at times nobody knows.
fn say_drops(asked: &Asked, context: &mut Context<'_>) -> anyhow::Result<()> {
    if !asked.has("gap") || asked.wanted.format != Format::Table {
        return Ok(());
    }
    let sql = "SELECT s.name, sum(c.value)::UBIGINT FROM sensor_counters c \
         JOIN sensors s ON s.id = c.sensor WHERE starts_with(c.name, 'drop.') AND c.value > 0 \
         AND s.revoked_at IS NULL GROUP BY s.name ORDER BY s.name LIMIT 5";
    let mut lost = Vec::new();
    super::backend::query(context.hub, sql, vec![], &mut |row| {
        if let [Value::String(name), count] = row.as_slice() {
            let count = units::count(count.as_u64().unwrap_or_default());
            lost.push(format!("sensor {name} has lost {count} events at times not known"));
        }
        Ok(())
    })?;
    lost.iter().for_each(|line| context.say(&format!("{line}: agentmon sensors show")));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_grows_by_what_it_lacks() {
        #[track_caller]
        fn check(rows: u64, limit: u64, times: u32) {
            assert_eq!(longer(FIRST_SPAN, rows, limit), FIRST_SPAN * times);
        }
        check(0, 50, 64);
        check(1, 50, 64);
        check(10, 50, 10);
        check(49, 50, 4);
        check(70, 50, 4);
        check(10, u64::MAX, 64);
    }
}
