//! Which hours of event time got events since when: how detectors learn of late ones.
//!
//! In: the time of each stored event. Out: rows of `arrivals`, one per hour of event time:
//! the number of the round before which something last fell into it. Runs on the writer
//! thread, within the transaction that stores the events.
//!
//! Memory and table: at most [`HOURS_MAX`] hours, about 2 MB. Cost: nothing for an event, one
//! row for each hour touched between two rounds. Invariant: what the rounds see and what is
//! stored agree, because both are one transaction.

use std::collections::{BTreeMap, BTreeSet};

use agentmon_core::Timestamp;
use duckdb::Connection;

use super::StoreError;
use super::rows::{ArrivalRows, Rows as _};

/// Five years and a half; beyond, the oldest are forgotten: late events in them are stored
/// but not judged again.
pub(crate) const HOURS_MAX: usize = 50_000;

/// The hours known.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    /// Begin of the hour in seconds, and the round before which something last came.
    hours: BTreeMap<i64, i64>,
    /// Not yet written.
    dirty: BTreeSet<i64>,
    /// The round that will be next.
    round: i64,
    newest: Option<Timestamp>,
    /// Something came since the last round.
    fresh: bool,
}

/// What a round begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Opened {
    /// All events before the end of this round are committed.
    pub(crate) round: i64,
    /// The newest event time stored.
    pub(crate) newest: Option<Timestamp>,
}

impl Arrivals {
    /// Reads the table again. The number of the round never goes back.
    ///
    /// # Errors
    /// What DuckDB says.
    pub(crate) fn reload(&mut self, connection: &Connection) -> Result<(), StoreError> {
        let sql = "SELECT epoch_us(hour) // 1000000, round FROM arrivals";
        let mut statement = connection.prepare(sql)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        self.hours = rows.collect::<Result<_, _>>()?;
        self.dirty.clear();
        let marks = "SELECT coalesce(max(round), 0) FROM detect_marks";
        let judged: i64 = connection.query_row(marks, [], |row| row.get(0))?;
        let stored = self.hours.values().copied().max().unwrap_or(0);
        self.fresh = true;
        self.round = self.round.max(judged + 1).max(stored);
        self.newest = match self.hours.keys().next_back() {
            Some(hour) => newest(connection, Timestamp::from_secs(*hour))?,
            None => None,
        };
        Ok(())
    }

    /// An event of that time is being stored.
    pub(crate) fn see(&mut self, time: Timestamp) {
        let hour = time.secs().div_euclid(3_600) * 3_600;
        self.newest = self.newest.max(Some(time));
        self.fresh = true;
        if self.hours.insert(hour, self.round) != Some(self.round) {
            self.dirty.insert(hour);
        }
    }

    /// Begins a round: what comes from now on counts for the next one.
    pub(crate) fn open(&mut self) -> Opened {
        if std::mem::take(&mut self.fresh) {
            self.round += 1;
        }
        Opened { round: self.round - 1, newest: self.newest }
    }

    /// Writes what has changed.
    ///
    /// # Errors
    /// What DuckDB says; the table is to be read again then.
    pub(crate) fn flush(&mut self, connection: &Connection) -> Result<(), StoreError> {
        let mut rows = ArrivalRows::default();
        for hour in std::mem::take(&mut self.dirty) {
            rows.hour.push(Timestamp::from_secs(hour));
            rows.round.append_value(self.hours.get(&hour).copied().unwrap_or(self.round));
            rows.rows += 1;
        }
        rows.upsert(connection, &["hour"])?;
        if self.hours.len() > HOURS_MAX {
            let excess = self.hours.len() - HOURS_MAX;
            let first = self.hours.keys().copied().nth(excess).unwrap_or(i64::MAX);
            self.hours = self.hours.split_off(&first);
            let sql = "DELETE FROM arrivals WHERE hour < make_timestamp(?)";
            connection.execute(sql, [Timestamp::from_secs(first).micros()])?;
        }
        Ok(())
    }
}

/// The newest event at or after `from`: among the hot rows, and only where they have none
/// (everything is old and in files already) in all.
fn newest(connection: &Connection, from: Timestamp) -> Result<Option<Timestamp>, StoreError> {
    let hot = newest_of(connection, from, ["dns_hot", "firewall_hot"])?;
    if hot.is_some() { Ok(hot) } else { newest_of(connection, from, ["dns", "firewall"]) }
}

fn newest_of(
    connection: &Connection,
    from: Timestamp,
    [dns, firewall]: [&str; 2],
) -> Result<Option<Timestamp>, StoreError> {
    let flows = if dns == "dns" { "flows" } else { "flows_hot" };
    let of = |table| {
        format!(
            "SELECT max(time) AS t FROM {table} WHERE time >= make_timestamp({})",
            from.micros()
        )
    };
    let tables = [dns, flows, firewall, "gaps"].map(of).join(" UNION ALL ");
    let sql = format!("SELECT epoch_us(max(t)) FROM ({tables})");
    let newest: Option<i64> = connection.query_row(&sql, [], |row| row.get(0))?;
    Ok(newest.map(Timestamp::from_micros))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Limits, open_write};

    fn at(hour: i64) -> Timestamp {
        Timestamp::from_secs(hour * 3_600 + 7)
    }

    fn stored(connection: &Connection) -> String {
        let sql = "SELECT coalesce(string_agg(concat(epoch_us(hour) // 3600000000, ':', round), ' ' ORDER BY hour), '') FROM arrivals";
        connection.query_row(sql, [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn an_hour_is_written_once_for_each_round_that_finds_it_changed() {
        let dir = tempfile::tempdir().unwrap();
        let connection = open_write(dir.path(), &Limits::default()).unwrap();
        let mut arrivals = Arrivals::default();
        arrivals.reload(&connection).unwrap();
        arrivals.see(at(10));
        arrivals.see(at(10));
        arrivals.see(at(12));
        assert_eq!(arrivals.dirty.len(), 2);
        arrivals.flush(&connection).unwrap();
        arrivals.see(at(10));
        assert!(arrivals.dirty.is_empty(), "the file says so already");
        assert_eq!(stored(&connection), "10:1 12:1");
        let opened = Opened { round: 1, newest: Some(at(12)) };
        assert_eq!((arrivals.open(), arrivals.open()), (opened, opened), "nothing came between");
        arrivals.see(at(10));
        arrivals.flush(&connection).unwrap();
        assert_eq!(stored(&connection), "10:2 12:1");
        // After a restart, with round 1 judged.
        connection
            .execute_batch("INSERT INTO detect_marks VALUES ('x', now()::TIMESTAMP, 1)")
            .unwrap();
        let mut again = Arrivals::default();
        again.reload(&connection).unwrap();
        assert_eq!(again.round, 2);
        again.see(at(11));
        assert_eq!((again.open().round, again.open().newest), (2, None.max(Some(at(11)))));
    }

    #[test]
    fn hours_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let connection = open_write(dir.path(), &Limits::default()).unwrap();
        let mut arrivals = Arrivals::default();
        let most = i64::try_from(HOURS_MAX).unwrap();
        (0..most + 10).for_each(|hour| arrivals.see(at(hour)));
        arrivals.flush(&connection).unwrap();
        let one = |sql: &str| -> i64 { connection.query_row(sql, [], |row| row.get(0)).unwrap() };
        assert_eq!((one("SELECT count(*) FROM arrivals"), arrivals.hours.len()), (most, HOURS_MAX));
        assert_eq!(one("SELECT min(epoch_us(hour)) // 3600000000 FROM arrivals"), 10);
    }
}
