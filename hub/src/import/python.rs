//! History of the Python program of the same name: its `events.db`.
//!
//! In: the DuckDB file (schema 1 to 4), read-only; the names its resolver gave to addresses.
//! Out: wire batches, as for a log ([`super`]): questions and connections, judged anew here.
//! Its alerts and what it learnt are counted, not taken: both were made of the same events.
//! Runs in the command line's process; memory: one day's rows of one table.
//!
//! Exactly once: each hour of each table is a stream, named after when the file was begun,
//! and the sequence number is the place within the hour by time and row id. Clients that the
//! file knows by name have a stream for each day: their addresses may become known later. A
//! file from which old rows were deleted, or that has grown at its end, adds what is new.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;

use agentmon_core::event::{Body, Dns, DnsStatus, Endpoint, Flow, FlowPhase, Volume};
use agentmon_core::name::Name;
use agentmon_core::tier0::Engine;
use agentmon_core::tier0::Tier0Config;
use agentmon_core::tier0::blocklist::Blocklist;
use agentmon_core::{Event, Timestamp};
use agentmon_router::collect::dnsmasq_log::record_type;
use anyhow::{Context as _, bail};
use duckdb::{AccessMode, Config, Connection, Row, params};

use super::{Send, Span, Stream, epoch};

/// The newest schema this program knows.
pub const VERSION_KNOWN: i64 = 4;
const DAY_US: i64 = 86_400_000_000;
const HOUR_US: i64 = 3_600_000_000;
/// What the collector is called in the store.
const SOURCE: &str = "agentmon-py";

/// What an import did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Version of the schema.
    pub version: i64,
    /// Rows read, of questions and of connections.
    pub rows: u64,
    /// Rows that made no sense.
    pub bad: u64,
    /// Rows whose client is a name that no address is known for.
    pub nameless: u64,
    /// The first of those names.
    pub unknown: Vec<String>,
    /// Alerts in the file: not taken.
    pub alerts: u64,
    /// Domains of alerts that a person called false.
    pub dismissed: Vec<String>,
    /// Proposals that wait for a person there: not taken.
    pub proposals: u64,
    /// Events outside the wanted times.
    pub passed: u64,
    /// Events that the store did not have yet.
    pub new_events: u64,
    /// Findings that the store did not have yet.
    pub new_findings: u64,
}

/// Most names told.
const UNKNOWN_MAX: usize = 10;
/// Most domains told.
const DISMISSED_MAX: i64 = 1_000;

/// The file.
#[derive(Debug)]
pub struct Database {
    connection: Connection,
    tables: Vec<String>,
    version: i64,
    /// When it was begun, as text.
    identity: String,
}

impl Database {
    /// Opens it; nothing is written.
    ///
    /// # Errors
    /// No such file, one of another program, or one that its program has open.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        anyhow::ensure!(path.is_file(), "{}: not a file", path.display());
        let config = Config::default()
            .enable_autoload_extension(false)?
            .access_mode(AccessMode::ReadOnly)?
            .threads(2)?
            .max_memory("512MiB")?;
        let connection = Connection::open_with_flags(path, config).map_err(|error| {
            let text = error.to_string();
            if text.contains("Could not set lock") {
                anyhow::anyhow!("{}: in use; stop the Python program first", path.display())
            } else if text.contains("newer version of DuckDB") {
                anyhow::anyhow!(
                    "{}: written by a newer DuckDB than this program's; write it anew there, in a form \
                     that is read here: ATTACH 'old.db' (STORAGE_VERSION 'v1.2.0'); COPY FROM DATABASE",
                    path.display()
                )
            } else {
                let text = agentmon_core::name::printable(text.as_bytes(), 300);
                anyhow::anyhow!("{}: {text}", path.display())
            }
        })?;
        connection
            .execute_batch("SET enable_external_access = false; SET lock_configuration = true")?;
        let tables: Vec<String> = connection
            .prepare("SELECT table_name FROM duckdb_tables() WHERE NOT internal ORDER BY 1")?
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        let has = |table: &str| tables.iter().any(|t| t == table);
        if !has("schema_version") || !has("dns_events") {
            bail!("{}: not the events.db of the Python agentmon", path.display());
        }
        let (version, identity) = connection
            .query_row(
                "SELECT coalesce(max(version), 0)::BIGINT, coalesce(min(applied_at)::VARCHAR, '') FROM schema_version",
                [],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .context("its version")?;
        Ok(Self { connection, tables, version, identity })
    }

    /// How many rows there are to read.
    ///
    /// # Errors
    /// What DuckDB says.
    pub fn rows(&self) -> anyhow::Result<u64> {
        let tables =
            ["dns_events", "connection_events"].into_iter().filter(|table| self.has(table));
        let count = |table: &str| -> anyhow::Result<u64> {
            let sql = format!("SELECT count(*) FROM {table}");
            Ok(self.connection.query_row(&sql, [], |row| row.get(0))?)
        };
        tables.map(count).sum()
    }

    fn has(&self, table: &str) -> bool {
        self.tables.iter().any(|t| t == table)
    }

    /// The first and the last day that a table has rows of, in days since 1970.
    fn days(&self, table: &str) -> anyhow::Result<Option<(i64, i64)>> {
        let sql = format!("SELECT epoch_us(min(timestamp)), epoch_us(max(timestamp)) FROM {table}");
        let ends: (Option<i64>, Option<i64>) =
            self.connection.query_row(&sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(ends.0.zip(ends.1).map(|(a, b)| (a.div_euclid(DAY_US), b.div_euclid(DAY_US))))
    }
}

/// Sends all questions, then all connections, oldest first. `names`: the addresses of clients
/// that the file knows by name. `progress` is told how many rows were read.
///
/// # Errors
/// When the file cannot be read, or `send` fails; what was sent stays, and the next import
/// goes on behind it.
pub fn python(
    database: &Database,
    names: &HashMap<String, IpAddr>,
    config: &Tier0Config,
    lists: (Blocklist, &str),
    span: Span,
    progress: &dyn Fn(u64),
    send: Send<'_>,
) -> anyhow::Result<Summary> {
    let mut summary = Summary { version: database.version, ..Summary::default() };
    let mut run = Run {
        database,
        names,
        engine: Engine::new(config, lists.0),
        lists: lists.1,
        span,
        progress,
        send,
        summary: &mut summary,
    };
    run.table("dns_events", DNS, dns)?;
    if database.has("connection_events") {
        run.table("connection_events", CONNECTIONS, connection)?;
    }
    beside(database, &mut summary)?;
    Ok(summary)
}

/// What is in the file beside events.
fn beside(database: &Database, summary: &mut Summary) -> anyhow::Result<()> {
    let db = &database.connection;
    if database.has("alerts") {
        summary.alerts = db.query_row("SELECT count(*) FROM alerts", [], |row| row.get(0))?;
        let mut statement = db.prepare(
            "SELECT DISTINCT domain FROM alerts WHERE false_positive AND domain IS NOT NULL \
             ORDER BY 1 LIMIT ?",
        )?;
        let domains = statement.query_map([DISMISSED_MAX], |row| row.get::<_, String>(0))?;
        for domain in domains {
            // Whatever is no name cannot be allowed either.
            summary
                .dismissed
                .extend(Name::parse(domain?.as_bytes()).ok().map(|n| n.as_str().to_owned()));
        }
    }
    if database.has("pending_tune_actions") {
        let sql = "SELECT count(*) FROM pending_tune_actions WHERE status = 'pending'";
        summary.proposals = db.query_row(sql, [], |row| row.get(0))?;
    }
    Ok(())
}

/// A row becomes an event, or is counted.
enum Taken {
    /// With the client's name, where the file knows it by that.
    Event(Box<Body>, Option<String>),
    Bad,
    Nameless(String),
}

type Take = fn(&Row<'_>, &HashMap<String, IpAddr>) -> duckdb::Result<Taken>;

struct Run<'a> {
    database: &'a Database,
    names: &'a HashMap<String, IpAddr>,
    engine: Engine,
    lists: &'a str,
    span: Span,
    progress: &'a dyn Fn(u64),
    send: Send<'a>,
    summary: &'a mut Summary,
}

impl Run<'_> {
    fn table(&mut self, table: &str, columns: &str, take: Take) -> anyhow::Result<()> {
        let Some((first, last)) = self.database.days(table)? else { return Ok(()) };
        let sql = format!(
            "SELECT epoch_us(timestamp), {columns} FROM {table}
             WHERE epoch_us(timestamp) >= ? AND epoch_us(timestamp) < ? ORDER BY timestamp, id"
        );
        let mut statement = self.database.connection.prepare(&sql)?;
        for day in first..=last {
            let mut rows = statement.query(params![day * DAY_US, (day + 1) * DAY_US])?;
            let mut hour: Option<(i64, Streams)> = None;
            let mut named: HashMap<String, Streams> = HashMap::new();
            while let Some(row) = rows.next()? {
                let time = Timestamp::from_micros(row.get(0)?);
                let this = time.micros().div_euclid(HOUR_US);
                let mut streams = match hour.take() {
                    Some((open, streams)) if open == this => streams,
                    before => {
                        self.close(before.map(|(_, streams)| streams))?;
                        self.open(table, "hour", this)
                    }
                };
                let taken = take(row, self.names)?;
                let own = match &taken {
                    Taken::Event(_, Some(name)) => {
                        named.entry(name.clone()).or_insert_with(|| self.open(table, name, day))
                    }
                    _ => &mut streams,
                };
                self.row(time, taken, own)?;
                hour = Some((this, streams));
            }
            self.close(hour.map(|(_, streams)| streams))?;
            for streams in named.into_values() {
                self.close(Some(streams))?;
            }
        }
        Ok(())
    }

    /// The streams of an hour, or of a client's day.
    fn open(&self, table: &str, whose: &str, number: i64) -> Streams {
        let (file, number) = (self.database.identity.as_bytes(), number.to_be_bytes());
        let name = |kind: &[u8], lists: &str| {
            epoch(&[kind, file, table.as_bytes(), whose.as_bytes(), &number, lists.as_bytes()])
        };
        Streams {
            events: Stream::new(name(b"python-events", ""), self.span),
            findings: Stream::new(name(b"python-findings", self.lists), self.span),
        }
    }

    fn close(&mut self, open: Option<Streams>) -> anyhow::Result<()> {
        if let Some(mut streams) = open {
            self.summary.new_events += streams.events.flush(self.send)?;
            self.summary.new_findings += streams.findings.flush(self.send)?;
            self.summary.passed += streams.events.passed;
            (self.progress)(self.summary.rows);
        }
        Ok(())
    }

    fn row(&mut self, time: Timestamp, taken: Taken, streams: &mut Streams) -> anyhow::Result<()> {
        self.summary.rows += 1;
        let body = match taken {
            Taken::Event(body, _) if time.is_plausible() => *body,
            Taken::Nameless(name) => {
                self.summary.nameless += 1;
                let unknown = &mut self.summary.unknown;
                if unknown.len() < UNKNOWN_MAX && !unknown.contains(&name) {
                    unknown.push(name);
                }
                return Ok(());
            }
            Taken::Event(..) | Taken::Bad => {
                self.summary.bad += 1;
                return Ok(());
            }
        };
        let mut event = Event { time, body };
        let mut found = Vec::new();
        self.engine.on_event(&mut event, &mut found);
        self.summary.new_events += streams.events.push(&event, self.send)?;
        for found in found {
            let event = Event { time: found.time, body: Body::Finding(found.finding) };
            self.summary.new_findings += streams.findings.push(&event, self.send)?;
        }
        Ok(())
    }
}

struct Streams {
    events: Stream,
    findings: Stream,
}

/// An address, or the one that a name stands for, and that name.
fn client(text: &str, names: &HashMap<String, IpAddr>) -> Result<(IpAddr, Option<String>), Taken> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok((ip.to_canonical(), None));
    }
    let known = names.get(text).map(|ip| (ip.to_canonical(), Some(text.to_owned())));
    known.ok_or_else(|| Taken::Nameless(agentmon_core::name::printable(text.as_bytes(), 64)))
}

const DNS: &str = "client, domain, query_type, blocked, upstream, response_time_ms";

fn dns(row: &Row<'_>, names: &HashMap<String, IpAddr>) -> duckdb::Result<Taken> {
    let (who, domain, kind): (String, String, String) = (row.get(1)?, row.get(2)?, row.get(3)?);
    let (blocked, upstream): (bool, Option<String>) = (row.get(4)?, row.get(5)?);
    let milliseconds: Option<f64> = row.get(6)?;
    let (client, own) = match client(&who, names) {
        Ok(client) => client,
        Err(taken) => return Ok(taken),
    };
    let Ok(name) = Name::parse(domain.as_bytes()) else { return Ok(Taken::Bad) };
    let Some(qtype) = record_type(kind.to_ascii_uppercase().as_bytes()) else {
        return Ok(Taken::Bad);
    };
    let micros = milliseconds.map(|ms| ms * 1_000.0).filter(|us| (0.0..4e9).contains(us));
    let status = match (blocked, &upstream) {
        (true, _) => DnsStatus::Blocked,
        (false, Some(_)) => DnsStatus::Forwarded,
        (false, None) => DnsStatus::Unknown,
    };
    Ok(Taken::Event(
        Box::new(Body::Dns(Dns {
            client,
            mac: None,
            name,
            qtype,
            status,
            rcode: None,
            answers: Vec::new(),
            ttl: None,
            upstream: upstream.map(|text| agentmon_core::name::printable(text.as_bytes(), 100)),
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "within bounds"
            )]
            latency_us: micros.map(|us| us as u32),
            blocked_by: None,
            source: SOURCE.into(),
        })),
        own,
    ))
}

const CONNECTIONS: &str =
    "client, src_port, dst_ip, dst_port, protocol, bytes_sent, bytes_recv, duration_seconds, id";

fn connection(row: &Row<'_>, names: &HashMap<String, IpAddr>) -> duckdb::Result<Taken> {
    let (who, to, protocol): (String, String, String) = (row.get(1)?, row.get(3)?, row.get(5)?);
    let (sport, dport): (i64, i64) = (row.get(2)?, row.get(4)?);
    let (sent, received): (Option<i64>, Option<i64>) = (row.get(6)?, row.get(7)?);
    let (seconds, id): (Option<f64>, String) = (row.get(8)?, row.get(9)?);
    let (src, own) = match client(&who, names) {
        Ok(client) => client,
        Err(taken) => return Ok(taken),
    };
    let proto = match protocol.to_ascii_lowercase().as_str() {
        "tcp" => 6,
        "udp" => 17,
        "icmp" => 1,
        "icmpv6" => 58,
        other => match other.parse::<u8>() {
            Ok(number) => number,
            Err(_) => return Ok(Taken::Bad),
        },
    };
    let (Ok(dst), Ok(sport), Ok(dport)) =
        (to.parse::<IpAddr>(), u16::try_from(sport), u16::try_from(dport))
    else {
        return Ok(Taken::Bad);
    };
    let bytes = |n: Option<i64>| n.and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
    let (bytes_out, bytes_in) = (bytes(sent), bytes(received));
    // It wrote 0 where the router did not count.
    let volume =
        (bytes_out + bytes_in > 0).then_some(Volume { bytes_out, bytes_in, ..Volume::default() });
    let time = Timestamp::from_micros(row.get(0)?);
    let duration =
        seconds.filter(|s| (0.0..1e9).contains(s)).map(std::time::Duration::from_secs_f64);
    Ok(Taken::Event(
        Box::new(Body::Flow(Flow {
            id: epoch(&[b"python-flow", id.as_bytes()]),
            phase: FlowPhase::End,
            proto,
            src: Endpoint { ip: src, port: sport },
            dst: Endpoint { ip: dst.to_canonical(), port: dport },
            nat_src: None,
            nat_dst: None,
            // Its time is when the router told that the connection was new.
            start: Some(time),
            duration_ms: duration.and_then(|d| u64::try_from(d.as_millis()).ok()),
            volume,
            tcp_state: None,
            replied: bytes_in > 0,
            offloaded: false,
            iface: None,
            mac: None,
            resolved: None,
        })),
        own,
    ))
}

#[cfg(test)]
#[path = "python_tests.rs"]
mod tests;
