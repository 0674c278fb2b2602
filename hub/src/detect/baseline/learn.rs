//! What is remembered of a window: habits and hours, and how to forget them.
//!
//! In: [`Seen`]. Out: [`Changes`]: only rows that differ from what the tables have, written in
//! the transaction that stores the run's findings. Invariant: the same window twice changes
//! nothing the second time.

use std::collections::HashMap;
use std::time::Duration;

use agentmon_core::Timestamp;
use duckdb::{Connection, params};

use super::gather::{HourSeen, Seen, presence_known};
use super::judge::{OddHours, Way};
use super::profile::Days;
use super::{EVERYBODY, KEPT_DAYS, Key, Local};
use crate::store::StoreError;
use crate::store::rows::{HabitRows, HourRows, Rows as _};

/// Rows to write.
pub(super) struct Changes {
    habits: HashMap<Key, (Days, Timestamp)>,
    hours: Vec<(HourSeen, u8)>,
    /// What is older goes.
    oldest_day: i32,
    oldest_hour: Timestamp,
}

/// When somebody's baseline was reset, by device; [`EVERYBODY`] means all.
///
/// # Errors
/// What DuckDB says.
pub(super) fn resets(db: &Connection) -> Result<HashMap<String, Timestamp>, StoreError> {
    let sql = "SELECT who, epoch_us(max(since)) FROM baseline_resets GROUP BY who";
    let mut statement = db.prepare(sql)?;
    let rows =
        statement.query_map([], |row| Ok((row.get(0)?, Timestamp::from_micros(row.get(1)?))))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Forgets a device, or all with [`EVERYBODY`]: it learns anew from `now` on. Returns how many
/// habits there were.
///
/// # Errors
/// What DuckDB says.
pub(crate) fn reset(
    connection: &Connection,
    who: &str,
    now: Timestamp,
) -> Result<usize, StoreError> {
    let all = who == EVERYBODY;
    let habits = connection.execute("DELETE FROM habits WHERE ? OR who = ?", params![all, who])?;
    connection.execute("DELETE FROM hours WHERE ? OR who = ?", params![all, who])?;
    connection.execute("DELETE FROM baseline_resets WHERE ? OR who = ?", params![all, who])?;
    let sql = "INSERT INTO baseline_resets (who, since) VALUES (?, make_timestamp(?))";
    connection.execute(sql, params![who, now.micros()])?;
    Ok(habits)
}

/// Puts tables of the connection's own before what was learnt: as it was known at `since`, to
/// judge the past with. Days after it are taken off the bits; what was seen first on its own
/// day, before it, keeps that day.
///
/// # Errors
/// What DuckDB says.
pub(crate) fn as_of(
    connection: &Connection,
    config: &super::Config,
    since: Timestamp,
) -> Result<(), StoreError> {
    let local = Local::parse(&config.timezone).unwrap_or_default();
    let (day, us) = (local.day(since), since.micros());
    // By name: a table of the connection's own may hide it already.
    let sql = "SELECT '\"' || replace(current_database(), '\"', '\"\"') || '\".main'";
    let main: String = connection.query_row(sql, [], |row| row.get(0))?;
    Ok(connection.execute_batch(&format!(
        "CREATE OR REPLACE TEMP TABLE habits AS
             SELECT * EXCLUDE (old, today) REPLACE (
                 CASE WHEN day < {day} THEN day WHEN today THEN {day} ELSE {day} - 1 END AS day,
                 CASE WHEN day < {day} THEN bits WHEN today THEN 1::UBIGINT ELSE old END AS bits)
             FROM (SELECT *, old = 0 AND epoch_us(first_seen) >= {us} - 86400000000 AS today
                   FROM (SELECT *, CASE WHEN day - {day} >= 63 THEN 0::UBIGINT
                             ELSE bits >> greatest(day - {day} + 1, 0)::UBIGINT END AS old
                         FROM {main}.habits WHERE first_seen < make_timestamp({us})));
         CREATE OR REPLACE TEMP TABLE hours AS
             FROM {main}.hours WHERE hour < make_timestamp({us});
         CREATE OR REPLACE TEMP TABLE baseline_resets AS
             FROM {main}.baseline_resets WHERE since < make_timestamp({us})"
    ))?)
}

/// What differs from the tables.
///
/// # Errors
/// What DuckDB says.
pub(super) fn changes(
    db: &Connection,
    seen: Seen,
    odd: OddHours,
    local: &Local,
    now: Timestamp,
) -> Result<Changes, StoreError> {
    let oldest_day = local.day(now).saturating_sub(i32::try_from(KEPT_DAYS).unwrap_or(i32::MAX));
    let oldest_hour = now.minus(Duration::from_secs(u64::from(KEPT_DAYS) * 86_400));
    // The others came with the window.
    let presence = presence_known(db)?;
    let mut habits: HashMap<Key, (Days, Timestamp)> = HashMap::new();
    let mut changed: HashMap<Key, bool> = HashMap::new();
    for item in seen.items {
        let before = item.known.or_else(|| presence.get(&item.key).copied());
        let start = || before.unwrap_or((Days::default(), item.first));
        let (days, first) = habits.entry(item.key.clone()).or_insert_with(start);
        let news = days.see(item.day) | (item.first < *first) | before.is_none();
        *first = item.first.min(*first);
        *changed.entry(item.key).or_default() |= news;
    }
    habits.retain(|key, _| changed.get(key).copied().unwrap_or_default());
    let stored = hours(db, seen.hours.iter().map(|hour| hour.hour).min(), now)?;
    let flagged = seen.hours.into_iter().map(|hour| {
        let is = |way| odd.contains(&(hour.who.clone(), hour.hour, way));
        let flags = u8::from(is(Way::Up)) | (u8::from(is(Way::Down)) << 1);
        (hour, flags)
    });
    let differs = |(hour, flags): &(HourSeen, u8)| {
        let key = (hour.who.clone(), hour.hour);
        stored.get(&key) != Some(&(hour.up, hour.down, hour.flows, hour.questions, *flags))
    };
    let hours = flagged.filter(differs).collect();
    Ok(Changes { habits, hours, oldest_day, oldest_hour })
}

type Stored = HashMap<(String, Timestamp), (u64, u64, u64, u64, u8)>;

fn hours(db: &Connection, from: Option<Timestamp>, to: Timestamp) -> Result<Stored, StoreError> {
    let Some(from) = from else { return Ok(Stored::new()) };
    let sql = "SELECT who, epoch_us(hour), up, down, flows, questions, odd FROM hours
         WHERE hour BETWEEN make_timestamp(?) AND make_timestamp(?)";
    let mut statement = db.prepare(sql)?;
    let rows = statement.query_map(params![from.micros(), to.micros()], |row| {
        let key = (row.get(0)?, Timestamp::from_micros(row.get(1)?));
        Ok((key, (row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?)))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

impl Changes {
    /// Writes them, and lets go of what is too old.
    pub(super) fn write(self, connection: &Connection) -> Result<(), StoreError> {
        let mut rows = HabitRows::default();
        for ((who, kind, what), (days, first)) in &self.habits {
            rows.who.push(who);
            rows.kind.push(kind.as_str());
            rows.what.push(what);
            rows.first_seen.push(*first);
            rows.day.append_value(days.newest);
            rows.bits.append_value(days.bits);
            rows.rows += 1;
        }
        rows.upsert(connection, &["who", "kind", "what"])?;
        let mut rows = HourRows::default();
        for (hour, odd) in &self.hours {
            rows.who.push(&hour.who);
            rows.hour.push(hour.hour);
            rows.up.append_value(hour.up);
            rows.down.append_value(hour.down);
            rows.flows.append_value(hour.flows);
            rows.questions.append_value(hour.questions);
            rows.odd.append_value(*odd);
            rows.rows += 1;
        }
        rows.upsert(connection, &["who", "hour"])?;
        connection.execute("DELETE FROM habits WHERE day <= ?", [self.oldest_day])?;
        let sql = "DELETE FROM hours WHERE hour < make_timestamp(?)";
        connection.execute(sql, [self.oldest_hour.micros()])?;
        Ok(())
    }
}
