//! Pi-hole's long-term database (`pihole-FTL.db`, SQLite), of any version.
//!
//! In: the file, of a Pi-hole that runs or a copy of it. Out: rows as DNS events, in chunks,
//! and its network table as devices. Any thread; memory bounded by the chunk.
//!
//! The file is only read, never so much as a PRAGMA written to it, and in chunks, so that
//! FTL's own write once a minute is not kept waiting. Columns are found by name: FTL upgrades
//! its file step by step, and what an older version lacks is unknown. Up to version 9 the
//! rows are in `queries`, from 10 on in `query_storage` with most texts in tables of their
//! own, while rows from before still hold them in place. The table `session` holds live
//! secrets and is not looked at.

use std::fs::File;
use std::io::Read as _;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use agentmon_core::event::{
    Body, Device, DeviceSource, Dns, Mac, TEXT_BYTES_MAX, host_name, unmap,
};
use agentmon_core::name::printable;
use agentmon_core::{Event, Name, Timestamp};
use anyhow::{Context as _, bail, ensure};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, Row};

use crate::collect::pihole::codes;

/// What events are marked with.
pub const SOURCE: &str = "pihole-ftl";
/// Newest version of the database whose steps are known.
pub const VERSION_KNOWN: i64 = 21;
/// How long FTL may hold its file locked; it writes once a minute for a moment.
const BUSY: Duration = Duration::from_secs(10);
/// Longest text read of a column; a name has at most 253 bytes.
const COLUMN_BYTES_MAX: usize = 1_024;
/// FTL goes on changing rows for a while: younger ones are left for later.
const SETTLED: Duration = Duration::from_secs(60);
/// Longest latency believed: a clock that jumped makes hundreds of seconds.
const LATENCY_SECONDS_MAX: f64 = 60.0;
/// Most addresses of devices read; FTL keeps what it saw within a year.
const DEVICES_MAX: usize = 16_384;
/// Longest name of an interface kept; the kernel's have 15 bytes.
const IFACE_BYTES_MAX: usize = 32;

/// A database that can be read.
#[derive(Debug)]
pub struct Database {
    connection: Connection,
    version: i64,
    table: &'static str,
    sql: String,
    begun: Option<i64>,
    identity: String,
    newest: i64,
}

impl Database {
    /// Opens a file, read-only.
    ///
    /// # Errors
    /// What it is, if it is no such database, and how to get a good copy.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let about = || format!("opening {}", path.display());
        let immutable = is_closed_wal(path).with_context(about)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_URI;
        let connection = Connection::open_with_flags(uri(path, immutable)?, flags)
            .map_err(explained)
            .with_context(about)?;
        Self::read(connection).with_context(about)
    }

    fn read(connection: Connection) -> anyhow::Result<Self> {
        connection.busy_timeout(BUSY)?;
        // The file may be anybody's: no function of its schema is run.
        connection.pragma_update(None, "trusted_schema", false)?;
        connection.pragma_update(None, "query_only", true)?;
        let layout = Layout::of(&connection)?;
        let sql = layout.sql()?;
        let newest = format!("SELECT coalesce(max(id), 0) FROM {}", layout.table);
        let newest = connection.query_row(&newest, [], |row| row.get(0)).map_err(explained)?;
        let (begun, identity) = identity(&connection, layout.table)?;
        let Layout { version, table, .. } = layout;
        Ok(Self { version, table, sql, begun, identity, newest, connection })
    }

    /// The greatest row id: for a progress bar.
    #[must_use]
    pub const fn newest(&self) -> i64 {
        self.newest
    }

    /// What tells this file from others, however many rows are deleted or added.
    #[must_use]
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Second in which FTL brought the file to version 2, or made it as such: older rows are
    /// version 1's, which has no such mark.
    #[must_use]
    pub const fn begun(&self) -> Option<i64> {
        self.begun
    }

    /// Version of the database.
    #[must_use]
    pub const fn version(&self) -> i64 {
        self.version
    }

    /// Rows behind `after`, at most `most`. The statement ends with it, and so does the lock.
    ///
    /// # Errors
    /// When the file cannot be read: locked, damaged, half a copy; with what to do about it.
    pub fn chunk(&self, after: i64, most: usize, now: Timestamp) -> anyhow::Result<Chunk> {
        let mut statement = self.connection.prepare(&self.sql).map_err(explained)?;
        let limit = i64::try_from(most).unwrap_or(i64::MAX);
        let mut rows = statement.query([after, limit]).map_err(explained)?;
        let (mut chunk, mut read) = (Chunk { last: after, ..Chunk::default() }, 0);
        while let Some(row) = rows.next().map_err(explained)? {
            let Raw { id, event, young, hidden } = raw(row, now)?;
            if young {
                chunk.waiting += 1;
                return Ok(chunk);
            }
            (read, chunk.last) = (read + 1, id);
            chunk.hidden += u64::from(hidden);
            match (u64::try_from(id), event) {
                (Ok(id), Some(event)) => chunk.rows.push((id, event)),
                _ => chunk.bad += 1,
            }
        }
        chunk.more = read == most;
        Ok(chunk)
    }

    /// Whether row `id` is there and of that time: then it is the file that was read so far,
    /// whatever became of its first rows.
    ///
    /// # Errors
    /// As [`chunk`](Self::chunk).
    pub fn holds(&self, id: i64, time: Timestamp) -> anyhow::Result<bool> {
        let sql = format!("SELECT timestamp FROM {} WHERE id = ?1", self.table);
        let of = |row: &Row<'_>| Ok(number(row.get_ref(0)?));
        let found = self.connection.query_row(&sql, [id], of).optional().map_err(explained)?;
        Ok(found.flatten().and_then(time_of) == Some(time))
    }

    /// What the Pi-hole knows of the devices: one event for each address with a MAC, dated
    /// when it was last seen there. Before version 3 there is no such table.
    ///
    /// # Errors
    /// As [`chunk`](Self::chunk).
    pub fn devices(&self) -> anyhow::Result<Vec<Event>> {
        let Some(sql) = self.devices_sql()? else { return Ok(Vec::new()) };
        let mut statement = self.connection.prepare(&sql).map_err(explained)?;
        let mut rows = statement.query([]).map_err(explained)?;
        let mut found = Vec::new();
        while let Some(row) = rows.next().map_err(explained)? {
            found.extend(device(row)?);
        }
        Ok(found)
    }

    /// MAC, address, time, name and interface. The addresses moved into a table of their own
    /// in version 5, their names in version 8.
    fn devices_sql(&self) -> anyhow::Result<Option<String>> {
        let columns = |table: &str| -> anyhow::Result<Vec<String>> {
            let sql = format!("SELECT name FROM pragma_table_info('{table}')");
            strings(&self.connection, &sql).map_err(explained)
        };
        // Of a table that is not there there are none.
        let (network, addresses) = (columns("network")?, columns("network_addresses")?);
        let has = |columns: &[String], names: &[&str]| {
            names.iter().all(|name| columns.iter().any(|column| column == name))
        };
        let by = |columns: &[String], table: &str, name: &str| {
            has(columns, &[name]).then(|| format!("{table}.{name}"))
        };
        let linked = has(&addresses, &["network_id", "ip", "lastSeen"]) && has(&network, &["id"]);
        let (from, ip, seen) = if linked {
            let join = "network_addresses AS a JOIN network AS n ON n.id = a.network_id";
            (join, "a.ip", "a.lastSeen")
        } else if has(&network, &["ip", "lastQuery"]) {
            ("network AS n", "n.ip", "n.lastQuery")
        } else {
            return Ok(None);
        };
        let name = by(&addresses, "a", "name").filter(|_| linked).or(by(&network, "n", "name"));
        let iface = by(&network, "n", "interface");
        let (name, iface) = [name, iface].map(|column| column.unwrap_or("NULL".into())).into();
        Ok(has(&network, &["hwaddr"]).then(|| {
            format!(
                "SELECT substr(n.hwaddr, 1, 64), substr({ip}, 1, 64), {seen}, \
                 substr({name}, 1, 256), substr({iface}, 1, 64) FROM {from} \
                 ORDER BY {seen} LIMIT {DEVICES_MAX}"
            )
        }))
    }
}

/// Some rows.
#[derive(Debug, Default)]
pub struct Chunk {
    /// Those that make sense, with their ids.
    pub rows: Vec<(u64, Event)>,
    /// Where the next chunk begins.
    pub last: i64,
    /// Whether there may be more behind it.
    pub more: bool,
    /// Rows that made no sense.
    pub bad: u64,
    /// Rows in which the Pi-hole hides names or clients (privacy level).
    pub hidden: u64,
    /// Rows too young to be final.
    pub waiting: u64,
}

/// One address of a device; those without a MAC (`ip-192.0.2.7`) name none.
fn device(row: &Row<'_>) -> anyhow::Result<Option<Event>> {
    let word = |i| -> anyhow::Result<Option<Vec<u8>>> { Ok(text(row.get_ref(i)?)) };
    let plain = |bytes: Option<Vec<u8>>| bytes.and_then(|b| String::from_utf8(b).ok());
    let mac = plain(word(0)?).and_then(|mac| mac.parse::<Mac>().ok());
    let ip = plain(word(1)?).and_then(|ip| ip.parse::<IpAddr>().ok());
    let time = number(row.get_ref(2)?).and_then(time_of);
    let (Some(mac), Some(ip), Some(time)) = (mac, ip, time) else { return Ok(None) };
    let iface = word(4)?.map(|name| printable(&name, IFACE_BYTES_MAX)).filter(|n| !n.is_empty());
    let hostname = word(3)?.and_then(|name| host_name(&name));
    let source = DeviceSource::Pihole;
    let device = Device { mac, ip: unmap(ip), hostname, iface, source };
    Ok(Some(Event { time, body: Body::Device(device) }))
}

/// Which columns are where.
struct Layout {
    version: i64,
    table: &'static str,
    columns: Vec<String>,
    tables: Vec<String>,
}

impl Layout {
    fn of(connection: &Connection) -> anyhow::Result<Self> {
        let sql = "SELECT name FROM sqlite_master WHERE type = 'table' LIMIT 1000";
        let tables = strings(connection, sql).map_err(explained)?;
        let has = |name: &str| tables.iter().any(|table| table == name);
        ensure!(has("ftl"), "it is a database, but not Pi-hole's: it has no table `ftl`");
        let version = "SELECT value FROM ftl WHERE id = 0";
        let version = connection.query_row(version, [], |row| Ok(integer(row.get_ref(0)?)));
        let version = version.optional().map_err(explained)?.flatten();
        let version = version.context("Pi-hole's database has no version in table `ftl`")?;
        ensure!(version >= 1, "Pi-hole's database has version {version}, which never was");
        let table = match (has("query_storage"), has("queries")) {
            (true, _) => "query_storage",
            (false, true) => "queries",
            _ if version > VERSION_KNOWN => bail!("it has no table of queries: {}", newer(version)),
            _ => bail!("Pi-hole's database has no table of queries: is it a whole copy?"),
        };
        let columns = format!("SELECT name FROM pragma_table_info('{table}')");
        let columns = strings(connection, &columns).map_err(explained)?;
        Ok(Self { version, table, columns, tables })
    }

    /// One row of everything that is needed.
    fn sql(&self) -> anyhow::Result<String> {
        for needed in ["id", "timestamp", "type", "status", "domain", "client"] {
            if self.has(needed) {
                continue;
            }
            let table = self.table;
            if self.version > VERSION_KNOWN {
                bail!("its table {table} has no column {needed}: {}", newer(self.version));
            }
            bail!("its table {table} has no column {needed}: is it a whole copy?");
        }
        let columns = [
            "q.id".to_owned(),
            "q.timestamp".to_owned(),
            "q.type".to_owned(),
            "q.status".to_owned(),
            self.text("domain", "domain_by_id", "domain"),
            self.text("client", "client_by_id", "ip"),
            self.text("forward", "forward_by_id", "forward"),
            self.text("additional_info", "addinfo_by_id", "content"),
            self.plain("reply_type"),
            self.plain("reply_time"),
        ];
        let (columns, table) = (columns.join(", "), self.table);
        Ok(format!("SELECT {columns} FROM {table} AS q WHERE q.id > ?1 ORDER BY q.id LIMIT ?2"))
    }

    fn has(&self, column: &str) -> bool {
        self.columns.iter().any(|known| known == column)
    }

    fn plain(&self, column: &str) -> String {
        if self.has(column) { format!("q.{column}") } else { "NULL".to_owned() }
    }

    /// A text in place, or by its number in a table of texts; per row, since a file that was
    /// upgraded has both.
    fn text(&self, column: &str, texts: &str, text: &str) -> String {
        let most = COLUMN_BYTES_MAX;
        if !self.has(column) || !self.tables.iter().any(|table| table == texts) {
            return self.plain(column);
        }
        let linked = format!("SELECT substr(t.{text}, 1, {most}) FROM {texts} AS t");
        // `additional_info` is a TEXT column in files of before version 11: the number of a
        // text is kept there as text, and found all the same, since `id` is a number.
        format!(
            "CASE WHEN typeof(q.{column}) = 'integer' OR q.{column} GLOB '[0-9]*' \
             AND q.{column} NOT GLOB '*[^0-9]*' THEN ({linked} WHERE t.id = q.{column}) \
             ELSE substr(q.{column}, 1, {most}) END"
        )
    }
}

/// What is told of a version that cannot be read.
#[must_use]
pub fn newer(version: i64) -> String {
    format!(
        "database version {version} is newer than what this program knows ({VERSION_KNOWN}); \
         update agentmon"
    )
}

fn strings(connection: &Connection, sql: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare(sql)?;
    statement.query_map([], |row| row.get(0))?.collect()
}

/// When the file's counters began (from version 2 on), and what tells it from others,
/// however many rows are deleted or added: that, else its first row.
fn identity(connection: &Connection, table: &str) -> anyhow::Result<(Option<i64>, String)> {
    let begun = "SELECT CAST(value AS TEXT) FROM ftl WHERE id = 2";
    let begun: Option<Option<String>> =
        connection.query_row(begun, [], |row| row.get(0)).optional().map_err(explained)?;
    if let Some(begun) = begun.flatten() {
        return Ok((begun.parse().ok(), format!("begun {begun}")));
    }
    let first = format!("SELECT id || ' ' || timestamp FROM {table} ORDER BY id LIMIT 1");
    let first: Option<Option<String>> =
        connection.query_row(&first, [], |row| row.get(0)).optional().map_err(explained)?;
    Ok((None, format!("first {}", first.flatten().unwrap_or_default())))
}

struct Raw {
    id: i64,
    event: Option<Event>,
    young: bool,
    hidden: bool,
}

/// One row; `event` is `None` where it makes no sense.
fn raw(row: &Row<'_>, now: Timestamp) -> anyhow::Result<Raw> {
    let id = integer(row.get_ref(0)?).context("a row without an id")?;
    let time = number(row.get_ref(1)?).and_then(time_of);
    // A time in the future is a wrong clock, not a young row.
    let young = time.is_some_and(|t| t <= now && now.since(t) < SETTLED);
    let (name, client) = (text(row.get_ref(4)?), text(row.get_ref(5)?));
    let hidden = name.as_deref() == Some(b"hidden") || client.as_deref() == Some(b"0.0.0.0");
    let client = client.as_deref().and_then(|ip| std::str::from_utf8(ip).ok()?.parse().ok());
    let known = (time, name.and_then(|name| Name::parse(&name).ok()), client);
    let (Some(time), Some(name), Some(client)) = known else {
        return Ok(Raw { id, event: None, young, hidden });
    };
    let fate = codes::fate_of_code(integer(row.get_ref(3)?).unwrap_or(0));
    let shown = |bytes: Vec<u8>| printable(&bytes, TEXT_BYTES_MAX);
    let info = text(row.get_ref(7)?).map(shown);
    let blocked_by = fate.blocked_by.map(|by| match info.filter(|_| by.ends_with("(CNAME)")) {
        Some(cname) => printable(format!("{by} {cname}").as_bytes(), TEXT_BYTES_MAX),
        None => by.to_owned(),
    });
    let rcode = integer(row.get_ref(8)?).and_then(codes::rcode_of_code);
    let client: IpAddr = client;
    let dns = Dns {
        client: unmap(client),
        mac: None,
        name,
        qtype: codes::qtype_of_code(integer(row.get_ref(2)?).unwrap_or(0)),
        status: fate.status,
        rcode: rcode.filter(|_| blocked_by.is_none()),
        answers: Vec::new(),
        ttl: None,
        upstream: text(row.get_ref(6)?).filter(|to| !to.is_empty()).map(shown),
        latency_us: number(row.get_ref(9)?).and_then(latency_us),
        blocked_by,
        source: SOURCE.to_owned(),
    };
    Ok(Raw { id, event: Some(Event { time, body: Body::Dns(dns) }), young, hidden })
}

fn integer(value: ValueRef<'_>) -> Option<i64> {
    match value {
        ValueRef::Integer(n) => Some(n),
        ValueRef::Real(n) if n.is_finite() => Some(n as i64),
        ValueRef::Text(text) | ValueRef::Blob(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        _ => None,
    }
}

fn number(value: ValueRef<'_>) -> Option<f64> {
    match value {
        ValueRef::Integer(n) => Some(n as f64),
        ValueRef::Real(n) => Some(n),
        _ => None,
    }
}

fn text(value: ValueRef<'_>) -> Option<Vec<u8>> {
    match value {
        ValueRef::Text(text) | ValueRef::Blob(text) => {
            Some(text.get(..text.len().min(COLUMN_BYTES_MAX)).unwrap_or_default().to_vec())
        }
        _ => None,
    }
}

fn time_of(seconds: f64) -> Option<Timestamp> {
    let sane = (0.0..1e10).contains(&seconds);
    sane.then(|| Timestamp::from_micros((seconds * 1e6).round() as i64))
}

fn latency_us(seconds: f64) -> Option<u32> {
    let believed = seconds > 0.0 && seconds <= LATENCY_SECONDS_MAX;
    believed.then_some((seconds * 1e6) as u32)
}

/// Whether the file is in write-ahead mode and nobody has it open: then it can be read
/// without making files beside it, which a reader of such a file otherwise must.
fn is_closed_wal(path: &Path) -> anyhow::Result<bool> {
    let mut head = Vec::new();
    File::open(path)?.take(100).read_to_end(&mut head)?;
    ensure!(!head.is_empty(), "it is empty");
    ensure!(
        head.starts_with(b"SQLite format 3\0") && head.len() == 100,
        "it is no SQLite database; Pi-hole's is /etc/pihole/pihole-FTL.db"
    );
    let mut beside = path.as_os_str().to_owned();
    beside.push("-wal");
    // Bytes 18 and 19: 1 for a rollback journal, 2 for write-ahead.
    Ok(head.get(18..20) == Some(&[2, 2]) && !Path::new(&beside).exists())
}

/// `file:` with what has a meaning in it escaped.
fn uri(path: &Path, immutable: bool) -> anyhow::Result<String> {
    let path = std::path::absolute(path)?;
    let mut uri = "file:".to_owned();
    for byte in path.as_os_str().as_encoded_bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-".contains(byte) {
            uri.push(char::from(*byte));
        } else {
            uri.push_str(&format!("%{byte:02X}"));
        }
    }
    uri.push_str(if immutable { "?immutable=1" } else { "?mode=ro" });
    Ok(uri)
}

/// What SQLite says, with what a person can do about it.
fn explained(error: rusqlite::Error) -> anyhow::Error {
    let hint = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "it is locked: FTL or another program is writing to it; try again, or import a copy"
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            "it is damaged or only half a copy: was it copied while FTL wrote to it? Make a good \
             copy with `sqlite3 /etc/pihole/pihole-FTL.db \"VACUUM INTO 'copy.db'\"`, or copy it \
             while FTL is stopped, with pihole-FTL.db-wal if that is there"
        }
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            "it cannot be opened for reading as it is: FTL's file needs the rights of user pihole \
             (or root); a copy that was made while FTL wrote to it needs its -wal or -journal \
             file beside it, in a folder that is writable"
        }
        _ => return anyhow::Error::new(error),
    };
    anyhow::Error::new(error).context(hint)
}

#[cfg(test)]
#[path = "database_tests.rs"]
mod tests;
