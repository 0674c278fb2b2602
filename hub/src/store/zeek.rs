//! Rows of Zeek's logs: connections by uid, and the names said in them.
//!
//! In: a [`Chunk`] of one log. Out: rows of `zeek_conn`, `zeek_name`, `zeek_file`, in the
//! caller's transaction. The same chunk again changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use agentmon_core::Timestamp;
use duckdb::Connection;
use serde::{Deserialize, Serialize};

use super::StoreError;
use super::rows::{Rows, ZeekConnRows, ZeekNameRows};

/// Most connections and names of one chunk: at worst 1.5 KiB each, half a request.
pub const CHUNK_ROWS_MAX: usize = 10_000;

/// Source of a name under which something of another type came than was asked for.
pub const MIME: &str = "mime";
/// Begin of the source of a name under which a program showed itself (HTTP's user agent, TLS's
/// JA3): the same number is the same program.
pub const SIGN: &str = "sign ";

/// One connection, as its last record of this chunk tells it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conn {
    /// Begin, in microseconds since 1970.
    pub time_us: i64,
    /// IP protocol.
    pub proto: u8,
    /// Who began it.
    pub src: IpAddr,
    /// Its port.
    pub sport: u16,
    /// With whom.
    pub dst: IpAddr,
    /// Its port.
    pub dport: u16,
    /// Zeek's word for the application's protocol.
    pub service: Option<String>,
    /// Seconds.
    pub duration: f64,
    /// IP bytes of the source.
    pub bytes_out: u64,
    /// IP bytes of the destination.
    pub bytes_in: u64,
    /// Not over yet.
    pub open: bool,
}

impl Conn {
    /// Does this record come after `other` of the same uid?
    #[must_use]
    pub fn replaces(&self, other: &Self) -> bool {
        match (self.open, other.open) {
            (false, true) => true,
            (true, false) => false,
            _ => self.duration >= other.duration,
        }
    }
}

/// A name said in a connection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Said {
    /// The connection.
    pub uid: String,
    /// The name.
    pub name: String,
    /// `tls`, `http`, `proxy` (asked to go on there), or `nohost`: HTTP without a name.
    /// Else what was said besides: [`MIME`], or [`SIGN`] and a number.
    pub source: String,
}

/// Rows of one log, and how far it has been read with them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Chunk {
    /// Which log.
    pub log: u64,
    /// Lines of it that are done with this chunk.
    pub lines: u64,
    /// By uid.
    pub conns: BTreeMap<String, Conn>,
    /// Names.
    pub said: BTreeSet<Said>,
}

impl Chunk {
    /// A record; a later one of the same uid takes its place.
    pub fn push(&mut self, uid: String, conn: Conn) {
        match self.conns.get(&uid) {
            Some(known) if !conn.replaces(known) => {}
            _ => drop(self.conns.insert(uid, conn)),
        }
    }

    /// Connections and names in it.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.conns.len() + self.said.len()
    }
}

/// Stores a chunk; how many connections and names were new.
///
/// # Errors
/// What DuckDB says.
pub fn store(connection: &Connection, sensor: i32, chunk: &Chunk) -> Result<u64, StoreError> {
    let mut new = conns(connection, sensor, chunk)?;
    new += names(connection, sensor, chunk)?;
    // Never less than before: rows of the lines between are there.
    let (log, lines) = (chunk.log, chunk.lines);
    let known = "SELECT max(lines) FROM zeek_file WHERE sensor = ? AND log = ?";
    let known: Option<u64> =
        connection.query_row(known, duckdb::params![sensor, log], |row| row.get(0))?;
    if known.is_none_or(|known| lines > known) {
        let old = "DELETE FROM zeek_file WHERE sensor = ? AND log = ?";
        connection.execute(old, duckdb::params![sensor, log])?;
        let insert = "INSERT INTO zeek_file (sensor, log, lines) VALUES (?, ?, ?)";
        connection.execute(insert, duckdb::params![sensor, log, lines])?;
    }
    Ok(new)
}

fn conns(connection: &Connection, sensor: i32, chunk: &Chunk) -> Result<u64, StoreError> {
    let mut rows = ZeekConnRows::default();
    for (uid, conn) in &chunk.conns {
        rows.sensor.append_value(sensor);
        rows.uid.push(uid);
        rows.time.push(Timestamp::from_micros(conn.time_us));
        rows.proto.append_value(conn.proto);
        rows.src.show(conn.src);
        rows.sport.append_value(conn.sport);
        rows.dst.show(conn.dst);
        rows.dport.append_value(conn.dport);
        rows.service.option(conn.service.as_deref());
        rows.duration.append_value(conn.duration);
        rows.bytes_out.append_value(conn.bytes_out);
        rows.bytes_in.append_value(conn.bytes_in);
        rows.open.append_value(conn.open);
        rows.rows += 1;
    }
    if rows.len() == 0 {
        return Ok(0);
    }
    let columns = ZeekConnRows::COLUMNS.join(", ");
    let stage = rows.stage(connection)?;
    let same = "t.sensor = s.sensor AND t.uid = s.uid";
    let replaced = connection.execute(
        &format!(
            "DELETE FROM zeek_conn AS t USING {stage} s WHERE {same}
                 AND (t.open AND NOT s.open OR t.open = s.open AND s.duration >= t.duration)"
        ),
        [],
    )?;
    let inserted = connection.execute(
        &format!(
            "INSERT INTO zeek_conn ({columns}) SELECT {columns} FROM {stage} s
                 WHERE NOT EXISTS (FROM zeek_conn t WHERE {same})"
        ),
        [],
    )?;
    connection.execute_batch(&format!("DROP TABLE {stage}"))?;
    Ok(u64::try_from(inserted.saturating_sub(replaced)).unwrap_or(0))
}

fn names(connection: &Connection, sensor: i32, chunk: &Chunk) -> Result<u64, StoreError> {
    let mut rows = ZeekNameRows::default();
    for said in &chunk.said {
        rows.sensor.append_value(sensor);
        rows.uid.push(&said.uid);
        rows.name.push(&said.name);
        rows.source.push(&said.source);
        rows.rows += 1;
    }
    if rows.len() == 0 {
        return Ok(0);
    }
    let stage = rows.stage(connection)?;
    let columns = ZeekNameRows::COLUMNS.join(", ");
    let sql = format!(
        "INSERT INTO zeek_name ({columns}) SELECT {columns} FROM {stage} s
             WHERE NOT EXISTS (FROM zeek_name t WHERE t.sensor = s.sensor AND t.uid = s.uid
                 AND t.name = s.name AND t.source = s.source)"
    );
    let inserted = connection.execute(&sql, [])?;
    connection.execute_batch(&format!("DROP TABLE {stage}"))?;
    Ok(u64::try_from(inserted).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Limits, open_write};

    fn conn(open: bool, duration: f64) -> Conn {
        Conn {
            time_us: 1_795_000_000_000_000,
            proto: 6,
            src: "192.168.7.2".parse().unwrap(),
            sport: 50_000,
            dst: "203.0.113.9".parse().unwrap(),
            dport: 443,
            service: None,
            duration,
            bytes_out: 1,
            bytes_in: 2,
            open,
        }
    }

    fn chunk(lines: u64, open: bool, duration: f64) -> Chunk {
        let mut chunk = Chunk { log: u64::MAX >> 1, lines, ..Chunk::default() };
        chunk.push("C1".into(), conn(open, duration));
        let said = |name: &str| Said { uid: "C1".into(), name: name.into(), source: "tls".into() };
        chunk.said.insert(said("api.example"));
        chunk
    }

    /// Whatever comes later, the last record of a connection stands.
    #[test]
    fn the_last_record_of_a_uid_stands() {
        let dir = tempfile::tempdir().unwrap();
        let connection = open_write(dir.path(), &Limits::default()).unwrap();
        let check = |lines, open, duration, new: u64, expected: (bool, f64, u64)| {
            let chunk = chunk(lines, open, duration);
            assert_eq!(store(&connection, 1, &chunk).unwrap(), new);
            let sql =
                "SELECT c.open, c.duration, f.lines FROM zeek_conn c, zeek_file f, zeek_name n";
            let row = |row: &duckdb::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
            // One row: each of the three tables has one.
            let rows: Vec<(bool, f64, u64)> = connection
                .prepare(sql)
                .unwrap()
                .query_map([], row)
                .unwrap()
                .collect::<Result<_, _>>()
                .unwrap();
            assert_eq!(rows, [expected]);
        };
        check(10, true, 3_600.0, 2, (true, 3_600.0, 10));
        check(10, true, 3_600.0, 0, (true, 3_600.0, 10));
        check(20, true, 7_200.0, 0, (true, 7_200.0, 20));
        // An older report, read later: nothing goes back.
        check(5, true, 3_600.0, 0, (true, 7_200.0, 20));
        check(30, false, 7_000.0, 0, (false, 7_000.0, 30));
        check(40, true, 7_200.0, 0, (false, 7_000.0, 40));
    }

    #[test]
    fn within_a_chunk_the_last_record_stands_too() {
        let mut chunk = chunk(1, true, 3_600.0);
        chunk.push("C1".into(), conn(false, 5.0));
        chunk.push("C1".into(), conn(true, 7_200.0));
        assert_eq!(chunk.conns.values().collect::<Vec<_>>(), [&conn(false, 5.0)]);
        assert_eq!(chunk.rows(), 2);
    }
}
