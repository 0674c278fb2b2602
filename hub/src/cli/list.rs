//! What all list commands share: time range, filter words, limit, and the way from a
//! query to the printed sheet.

use agentmon_core::Timestamp;
use serde_json::Value;

use super::args::ListArgs;
use super::backend::{Outcome, query};
use super::condition::{self, Condition, Terms};
use super::context::Context;
use super::directory::Directory;
use super::filter::{self, Key, Word};
use super::print::{Format, Printer};
use super::sheet::{Record, Sheet};
use super::{owners, units, when};
use crate::control::QUERY_ROWS_MAX;

/// Rows of a table unless `--limit` says otherwise.
pub(crate) const TABLE_ROWS_DEFAULT: u64 = 50;
/// How far back lists look that grow by the minute.
pub(crate) const SINCE_DEFAULT: &str = "24h";

/// A list command's arguments, understood.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) since: Option<Timestamp>,
    pub(crate) until: Option<Timestamp>,
    pub(crate) limit: u64,
    pub(crate) format: Format,
    pub(crate) words: Vec<Word>,
}

impl Wanted {
    /// Reads the arguments; `since` is the command's default.
    pub(crate) fn read(
        args: &ListArgs,
        since: Option<&str>,
        context: &mut Context<'_>,
    ) -> anyhow::Result<Self> {
        let look = &context.look;
        let point = |option: &str, text: &str| {
            when::parse(text, look.now, &look.zone)
                .map_err(|error| anyhow::anyhow!("--{option}: {error}"))
        };
        let format = args.format.format();
        let mut words = filter::parse(&args.words).map_err(anyhow::Error::msg)?;
        owners::resolve(context.hub, &mut words)?;
        let this = Self {
            since: args.since.as_deref().or(since).map(|t| point("since", t)).transpose()?,
            until: args.until.as_deref().map(|t| point("until", t)).transpose()?,
            limit: limit(args.limit, format),
            format,
            words,
        };
        if let (Some(since), Some(until)) = (this.since, this.until)
            && since > until
        {
            anyhow::bail!("--since {since} lies after --until {until}: nothing can be found");
        }
        if this.words.iter().any(|w| w.key == Key::Proc) {
            note_without_agents(context)?;
        }
        Ok(this)
    }

    /// The words in a table's terms, and its time column between since and until.
    pub(crate) fn condition(&self, terms: &Terms, time: &str) -> anyhow::Result<Condition> {
        let mut condition = condition::build(&self.words, terms).map_err(anyhow::Error::msg)?;
        self.span(&mut condition, time);
        Ok(condition)
    }

    /// Only the time range.
    pub(crate) fn span(&self, condition: &mut Condition, time: &str) {
        let param = |t: Timestamp| [Value::from(when::sql(t))];
        if let Some(since) = self.since {
            condition.and(&format!("{time} >= CAST(? AS TIMESTAMP)"), param(since));
        }
        if let Some(until) = self.until {
            condition.and(&format!("{time} <= CAST(? AS TIMESTAMP)"), param(until));
        }
    }

    /// One more than wanted, to know whether there is more.
    pub(crate) const fn fetch(&self) -> u64 {
        self.limit.saturating_add(1)
    }
}

/// Programs are known of hosts with an agent.
pub(crate) fn note_without_agents(context: &mut Context<'_>) -> anyhow::Result<()> {
    let mut any = false;
    query(context.hub, "SELECT 1 FROM process_conns LIMIT 1", vec![], &mut |_| {
        any = true;
        Ok(())
    })?;
    if !any {
        context.say("note: proc: matches nothing yet: no agent on a host has told of programs");
    }
    Ok(())
}

/// The limit asked for, or the format's own.
pub(crate) fn limit(asked: Option<u64>, format: Format) -> u64 {
    // One below the hub's own maximum, so that the extra row shows that there is more.
    let most = QUERY_ROWS_MAX - 1;
    let default = if format == Format::Table { TABLE_ROWS_DEFAULT } else { most };
    asked.unwrap_or(default).min(most)
}

/// Runs a query whose last parameter is the row limit, and prints its rows as they come.
/// Returns how many were printed.
pub(crate) fn run(
    context: &mut Context<'_>,
    wanted: &Wanted,
    sheet: &Sheet,
    sql: &str,
    condition: Condition,
) -> anyhow::Result<u64> {
    let names = directory(context, sheet)?;
    let mut printer = Printer::new(wanted.format, sheet, &context.look, context.out);
    let mut params = condition.params;
    params.push(wanted.fetch().into());
    let mut rows = 0u64;
    let outcome = query(context.hub, sql, params, &mut |row| {
        rows += 1;
        if rows > wanted.limit {
            return Ok(());
        }
        printer.record(&sheet.record(row, &names))
    })?;
    printer.finish()?;
    say_if_cut(context, wanted, &outcome, rows);
    Ok(rows.min(wanted.limit))
}

/// Names of devices, and of networks where the sheet tells them.
pub(crate) fn directory(context: &mut Context<'_>, sheet: &Sheet) -> anyhow::Result<Directory> {
    let names = Directory::load(context.hub)?;
    Ok(if sheet.tells_networks() { names.with(context.hub.destinations()) } else { names })
}

/// As [`run`], but hands the records over instead of printing them.
pub(crate) fn collect(
    context: &mut Context<'_>,
    names: &Directory,
    sheet: &Sheet,
    sql: &str,
    params: Vec<Value>,
) -> anyhow::Result<Vec<Record>> {
    let mut records = Vec::new();
    query(context.hub, sql, params, &mut |row| {
        records.push(sheet.record(row, names));
        Ok(())
    })?;
    Ok(records)
}

/// Talk after a list: cut short, or nothing there.
pub(crate) fn say_if_cut(context: &mut Context<'_>, wanted: &Wanted, outcome: &Outcome, rows: u64) {
    if rows > wanted.limit || outcome.truncated {
        context.say(&format!(
            "only the first {}; there are more: --limit N, a shorter --since, or filter words",
            units::plural(wanted.limit.min(rows), "row", "rows")
        ));
    } else if rows == 0 && wanted.format == Format::Table {
        let span = wanted.since.map_or_else(String::new, |since| {
            format!(" since {}", when::long(since, &context.look.zone))
        });
        context.say(&format!("nothing found{span}"));
    }
}
