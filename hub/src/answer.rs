//! What each control request does: the same for a running hub and for the file alone.
//!
//! In: a [`Request`]. Out: [`Reply`]s. Queries run on a reader's connection
//! ([`crate::store::query`]); everything here changes something and runs with the writer.

use std::net::IpAddr;
use std::path::Path;

use agentmon_core::Timestamp;
use agentmon_core::event::{Mac, host_name};
use agentmon_core::wire;
use agentmon_router::join::Join;
use anyhow::{Context, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use duckdb::Connection;
use serde_json::Value;

use crate::config::PORT;
use crate::control::{Reply, Request};
use crate::detect::baseline;
use crate::ingest::Incoming;
use crate::store::days;
use crate::store::days::keep::{self, Desk};
use crate::store::days::plan::Retention;
use crate::store::export;
use crate::store::writer::{Who, Writer};
use crate::store::{FILE_NAME, StoreError, migrate, spans, zeek};
use crate::{alert, deliver, enroll, feeds, llm, tls};

/// Most addresses given to `enroll` that are kept for the certificate.
const EXTRA_NAMES_MAX: usize = 20;

/// One row and the end.
#[must_use]
pub fn row(columns: &[(&str, Value)]) -> Vec<Reply> {
    let kind = |v: &Value| match v {
        Value::Number(_) => "BIGINT",
        Value::Bool(_) => "BOOLEAN",
        Value::Object(_) => "STRUCT",
        _ => "VARCHAR",
    };
    vec![
        Reply::Columns {
            names: columns.iter().map(|(name, _)| (*name).to_owned()).collect(),
            types: columns.iter().map(|(_, value)| kind(value).to_owned()).collect(),
        },
        Reply::Row { values: columns.iter().map(|(_, value)| value.clone()).collect() },
        done(1),
    ]
}

/// The columns of [`feeds`].
pub const FEED_COLUMNS: [&str; 12] = [
    "name", "origin", "licence", "entries", "lines", "refused", "changed", "checked", "state",
    "failures", "report", "accepted",
];

/// The lists for routers, one row each.
///
/// # Errors
/// A folder that cannot be read.
pub fn feeds(data_dir: &Path) -> anyhow::Result<Vec<Reply>> {
    let time = |ms: i64| match ms {
        0 => Value::Null,
        ms => agentmon_core::Timestamp::from_nanos(ms.saturating_mul(1_000_000)).to_string().into(),
    };
    let feeds = feeds::all(data_dir)?;
    let names = FEED_COLUMNS.map(str::to_owned).into();
    let types = vec!["VARCHAR".to_owned(); FEED_COLUMNS.len()];
    let mut replies = vec![Reply::Columns { names, types }];
    let count = feeds.len() as u64;
    replies.extend(feeds.into_iter().map(|feed| {
        let state = if feed.error.is_empty() { "ok".to_owned() } else { feed.error };
        let values = vec![
            feed.name.into(),
            feed.origin.into(),
            feed.licence.into(),
            feed.entries.into(),
            feed.lines.into(),
            feed.refused.into(),
            time(feed.changed),
            time(feed.checked),
            state.into(),
            feed.failures.into(),
            feed.report.into(),
            feed.accepted.into(),
        ];
        Reply::Row { values }
    }));
    replies.push(done(count));
    Ok(replies)
}

/// The columns of [`targets`].
pub const TARGET_COLUMNS: [&str; 8] =
    ["name", "kind", "waiting", "sent", "failed", "given_up", "last_sent", "error"];

/// Who is told of alerts, one row each.
#[must_use]
pub fn targets(all: Vec<deliver::Status>) -> Vec<Reply> {
    let names = TARGET_COLUMNS.map(str::to_owned).into();
    let types = vec!["VARCHAR".to_owned(); TARGET_COLUMNS.len()];
    let mut replies = vec![Reply::Columns { names, types }];
    let count = all.len() as u64;
    replies.extend(all.into_iter().map(|target| {
        let values = vec![
            target.name.into(),
            target.kind.into(),
            target.waiting.into(),
            target.sent.into(),
            target.failed.into(),
            target.given_up.into(),
            target.last_sent.map(|time| time.to_string()).into(),
            target.error.into(),
        ];
        Reply::Row { values }
    }));
    replies.push(done(count));
    replies
}

/// The columns of [`llm`].
pub const LLM_COLUMNS: [&str; 7] =
    ["tier", "state", "model", "requests", "tokens", "micro_usd", "waiting"];

/// The tiers of language models, one row each.
#[must_use]
pub fn llm(tiers: Vec<llm::Status>) -> Vec<Reply> {
    let names = LLM_COLUMNS.map(str::to_owned).into();
    let types = vec!["VARCHAR".to_owned(); LLM_COLUMNS.len()];
    let mut replies = vec![Reply::Columns { names, types }];
    let count = tiers.len() as u64;
    replies.extend(tiers.into_iter().map(|tier| {
        let values = vec![
            tier.tier.into(),
            tier.state.into(),
            tier.model.into(),
            tier.requests.into(),
            tier.tokens.into(),
            tier.micro_usd.into(),
            tier.waiting.into(),
        ];
        Reply::Row { values }
    }));
    replies.push(done(count));
    replies
}

/// An answer of a model then and now.
#[must_use]
pub fn replayed(replayed: &llm::Replayed) -> Vec<Reply> {
    row(&[("before", replayed.before.as_str().into()), ("now", replayed.now.as_str().into())])
}

/// The next content of a list is taken, however small.
///
/// # Errors
/// There is no such list.
pub fn accept_feed(data_dir: &Path, name: &str) -> anyhow::Result<Vec<Reply>> {
    feeds::accept(data_dir, name)?;
    Ok(vec![done(1)])
}

/// Writes the rows of a statement into a file.
///
/// # Errors
/// As [`export::run`].
pub(crate) fn export(
    connection: &Connection,
    sql: &str,
    format: export::Format,
    timeout_ms: u64,
) -> anyhow::Result<Vec<Reply>> {
    let made = export::run(connection, sql, format, timeout_ms)?;
    let mut replies: Vec<Reply> =
        made.warnings.into_iter().map(|text| Reply::Warning { text }).collect();
    let path = made.path.to_str().context("the path is not UTF-8")?;
    replies.extend(row(&[("path", path.into()), ("rows", made.rows.into())]));
    Ok(replies)
}

/// Rolls days and deletes what is kept no longer, or says what would be done.
///
/// # Errors
/// What the store says; what was done until then stays done.
pub(crate) fn cleanup<D: Desk>(
    desk: &mut D,
    data_dir: &Path,
    rules: &Retention,
    now: Timestamp,
    dry_run: bool,
) -> anyhow::Result<Vec<Reply>> {
    let actions = match dry_run {
        true => desk.read(|c| keep::preview(c, rules, now))?,
        false => keep::round(desk, data_dir, rules, now, true)?,
    };
    let names = ["action", "table", "day", "rows", "bytes"].map(str::to_owned).into();
    let types = ["VARCHAR", "VARCHAR", "VARCHAR", "BIGINT", "BIGINT"].map(str::to_owned).into();
    let mut replies = vec![Reply::Columns { names, types }];
    let count = actions.len() as u64;
    replies.extend(actions.into_iter().map(|a| Reply::Row {
        values: vec![
            a.what.into(),
            a.table.into(),
            a.day.to_string().into(),
            a.rows.into(),
            a.bytes.into(),
        ],
    }));
    replies.push(done(count));
    Ok(replies)
}

const fn done(count: u64) -> Reply {
    Reply::Done { count, truncated: false }
}

/// Carries out a request that changes something.
///
/// # Errors
/// What is wrong with the request, or what the store says.
pub fn change(
    writer: &mut Writer,
    data_dir: &Path,
    request: &Request,
) -> anyhow::Result<Vec<Reply>> {
    let now = writer.now();
    match request {
        Request::Enroll { name, address } => {
            let ca = tls::Ca::load_or_make(data_dir)?;
            let address = address.as_deref().map(Address::parse).transpose()?;
            let (token, url) = writer.change(|c| -> anyhow::Result<_> {
                let token = enroll::enroll(c, name, now)?;
                if let Some(address) = &address {
                    remember_name(c, &address.host)?;
                }
                Ok((token, url(c, address.as_ref())?))
            })?;
            let join = Join::new(url.clone(), name.clone(), token, ca.pem);
            Ok(row(&[("join", join.encode().into()), ("url", url.into())]))
        }
        Request::Revoke { name } => {
            writer.change(|c| enroll::revoke(c, name, now))?;
            Ok(vec![done(1)])
        }
        Request::Ack { id, note, undo } => {
            let found =
                writer.change(|c| alert::acknowledge(c, *id, note.as_deref(), *undo, now))?;
            Ok(vec![done(u64::from(found))])
        }
        Request::Allow { feedback } => {
            let said = writer.change(|c| alert::say::allow(c, feedback, now))?;
            Ok(row(&[("id", said.id.into()), ("alerts", said.alerts.into())]))
        }
        Request::FalsePositive { alert, feedback } => {
            let said = writer.change(|c| alert::say::dismiss(c, *alert, feedback, now))?;
            Ok(row(&[("id", said.id.into()), ("alerts", said.alerts.into())]))
        }
        Request::Forget { id } => {
            let said = writer.change(|c| alert::say::forget(c, *id, now))?;
            let said = said.with_context(|| {
                format!("there is no feedback {id} in force; see `agentmon allow --list`")
            })?;
            Ok(row(&[("id", said.id.into()), ("alerts", said.alerts.into())]))
        }
        Request::ResetBaseline { who } => {
            let forgotten = writer.change(|c| baseline::reset(c, who, now))?;
            Ok(vec![done(u64::try_from(forgotten).unwrap_or(u64::MAX))])
        }
        Request::NameDevice { device, name } => {
            let who = match (device.parse::<Mac>(), device.parse::<IpAddr>()) {
                (Ok(mac), _) => Who::Mac(mac),
                (_, Ok(ip)) => Who::Address(ip.to_canonical()),
                _ => bail!("`{device}` is no MAC and no address"),
            };
            if name.as_ref().is_some_and(|name| host_name(name.as_bytes()).is_none()) {
                bail!("that names nothing: a placeholder, an address, or no letter in it");
            }
            Ok(vec![done(u64::from(writer.name_device(who, name.as_deref())?))])
        }
        Request::Import { name, batch } => {
            let incoming = import(writer, name, batch)?;
            let outcomes = writer.store(vec![incoming])?;
            Ok(vec![done(outcomes.iter().map(|o| o.stored).sum())])
        }
        Request::ImportSpan { name, log, epoch, since_us, until_us } => {
            let new = writer.change(|c| {
                let source = enroll::local_source(c, name, now)?;
                spans::note(c, source, (*log, *epoch), (*since_us, *until_us))
            })?;
            Ok(vec![done(new)])
        }
        Request::ImportZeek { name, chunk } => {
            let new = writer.change(|c| {
                let source = enroll::local_source(c, name, now)?;
                zeek::store(c, source, chunk)
            })?;
            Ok(vec![done(new)])
        }
        Request::Cleanup { dry_run, rules } => {
            let rules = rules.clone().unwrap_or_default();
            let dir = writer.data_dir().to_owned();
            cleanup(writer, &dir, &rules, now, *dry_run)
        }
        Request::Query { .. }
        | Request::Beacons { .. }
        | Request::Export { .. }
        | Request::Backtest { .. }
        | Request::Status
        | Request::Reload
        | Request::Feeds
        | Request::Targets
        | Request::LlmStatus
        | Request::LlmReplay { .. }
        | Request::TestTarget { .. }
        | Request::AcceptFeed { .. } => {
            bail!("not a change")
        }
    }
}

/// Decodes an import's batch for its local source.
///
/// # Errors
/// A batch that cannot be read, a name that cannot be used.
pub fn import(writer: &mut Writer, name: &str, batch: &str) -> anyhow::Result<Incoming> {
    let body = STANDARD.decode(batch).context("the batch is not base64")?;
    let batch = wire::decode_batch(&body).context("the batch cannot be read")?;
    let now = writer.now();
    let source = writer.change(|c| enroll::local_source(c, name, now))?;
    Ok(Incoming::from_batch(&batch, source, now, None))
}

/// Host and port as a person writes them: `hub`, `hub:9000`, `192.0.2.1`, `[2001:db8::1]:9000`.
struct Address {
    host: String,
    port: Option<u16>,
}

impl Address {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let text = text.trim();
        if let Ok(socket) = text.parse::<std::net::SocketAddr>() {
            return Ok(Self { host: socket.ip().to_string(), port: Some(socket.port()) });
        }
        let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
        let (host, port) = match bare.rsplit_once(':') {
            Some((host, port)) if bare.parse::<std::net::IpAddr>().is_err() => {
                let port = port.parse().with_context(|| format!("`{port}` is not a port"))?;
                (host, Some(port))
            }
            _ => (bare, None),
        };
        let host = host.to_ascii_lowercase();
        tls::check_name(&host)?;
        Ok(Self { host, port })
    }

    fn url(&self, port: u16) -> String {
        let port = self.port.unwrap_or(port);
        match self.host.parse::<std::net::Ipv6Addr>() {
            Ok(ip) => format!("https://[{ip}]:{port}"),
            Err(_) => format!("https://{}:{port}", self.host),
        }
    }
}

fn fact(connection: &Connection, name: &str) -> Result<Option<String>, StoreError> {
    let sql = "SELECT max(value) FROM hub_facts WHERE name = ?";
    Ok(connection.query_row(sql, [name], |row| row.get(0))?)
}

/// Keeps a fact for commands that run without the hub.
///
/// # Errors
/// What DuckDB says.
pub fn set_fact(connection: &Connection, name: &str, value: &str) -> Result<(), StoreError> {
    if fact(connection, name)?.as_deref() == Some(value) {
        return Ok(());
    }
    connection.execute("DELETE FROM hub_facts WHERE name = ?", [name])?;
    connection.execute("INSERT INTO hub_facts (name, value) VALUES (?, ?)", [name, value])?;
    Ok(())
}

/// Where sensors reach the hub: the address asked for, else the one the hub has noted,
/// else the host name.
fn url(connection: &Connection, address: Option<&Address>) -> Result<String, StoreError> {
    let noted = fact(connection, "url")?;
    let port = noted.as_deref().and_then(|u| u.rsplit_once(':')?.1.parse().ok()).unwrap_or(PORT);
    let fallback = || format!("https://{}:{port}", tls::host_name().unwrap_or("localhost".into()));
    Ok(address.map(|a| a.url(port)).or(noted).unwrap_or_else(fallback))
}

/// The certificate must be good for every name that stands in a join line.
fn remember_name(connection: &Connection, name: &str) -> Result<(), StoreError> {
    let mut names = extra_names(connection)?;
    if !names.iter().any(|n| n == name) {
        names.push(name.to_owned());
        let from = names.len().saturating_sub(EXTRA_NAMES_MAX);
        set_fact(connection, "names", &names.get(from..).unwrap_or_default().join(" "))?;
    }
    Ok(())
}

/// Names given to `enroll` earlier.
///
/// # Errors
/// What DuckDB says.
pub fn extra_names(connection: &Connection) -> Result<Vec<String>, StoreError> {
    let names = fact(connection, "names")?.unwrap_or_default();
    Ok(names.split_whitespace().map(str::to_owned).collect())
}

/// What can be said of the store by looking at it.
///
/// # Errors
/// What DuckDB says.
pub fn store_status(
    connection: &Connection,
    data_dir: &Path,
) -> Result<Vec<(&'static str, Value)>, StoreError> {
    let path = data_dir.join(FILE_NAME);
    let bytes = |path: &Path| std::fs::metadata(path).map_or(0, |m| m.len());
    let mut wal = path.clone().into_os_string();
    wal.push(".wal");
    let one = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    let mut counters = serde_json::Map::new();
    let mut statement = connection.prepare("SELECT name, value FROM hub_counters ORDER BY name")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        counters.insert(row.get(0)?, row.get::<_, u64>(1)?.into());
    }
    let parts = days::parts(connection)?;
    let rolled = |table: &str| -> i64 {
        let of = parts.iter().filter(|p| p.table.name == table && p.broken.is_none());
        of.map(|p| i64::try_from(p.rows).unwrap_or(i64::MAX)).sum()
    };
    // As the next query would find them.
    let broken: Vec<Value> = days::shield(connection)?.into_iter().map(Value::from).collect();
    Ok(vec![
        ("version", env!("CARGO_PKG_VERSION").into()),
        ("schema", migrate::version(connection, &path)?.into()),
        ("data", data_dir.display().to_string().into()),
        ("url", fact(connection, "url")?.into()),
        ("file_bytes", bytes(&path).into()),
        ("log_bytes", bytes(Path::new(&wal)).into()),
        ("sensors", one("SELECT count(*) FROM sensors WHERE token_hash IS NOT NULL")?.into()),
        ("flows", (one("SELECT count(*) FROM flows_done")? + rolled("flows")).into()),
        ("flows_open", one("SELECT count(*) FROM flows_open")?.into()),
        ("dns", (one("SELECT count(*) FROM dns_hot")? + rolled("dns")).into()),
        ("alerts_open", one("SELECT count(*) FROM alerts WHERE status = 'open'")?.into()),
        ("alerts_learning", one("SELECT count(*) FROM alerts WHERE status = 'learning'")?.into()),
        ("files", parts.len().into()),
        ("files_bytes", parts.iter().map(|p| p.bytes).sum::<u64>().into()),
        ("oldest_day", parts.first().map(|p| p.day.to_string()).into()),
        ("broken_files", Value::Array(broken)),
        ("counters", Value::Object(counters)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(address: &str, expected: Option<&str>) {
        let got = Address::parse(address).ok().map(|a| a.url(8787));
        assert_eq!(got.as_deref(), expected, "{address}");
    }

    #[test]
    fn addresses_as_people_write_them() {
        check("hub", Some("https://hub:8787"));
        check("Hub.Example:9000", Some("https://hub.example:9000"));
        check("192.0.2.1", Some("https://192.0.2.1:8787"));
        check("192.0.2.1:9", Some("https://192.0.2.1:9"));
        check("2001:db8::1", Some("https://[2001:db8::1]:8787"));
        check("[2001:db8::1]", Some("https://[2001:db8::1]:8787"));
        check("[2001:db8::1]:9", Some("https://[2001:db8::1]:9"));
        check("https://hub", None);
        check("hub:port", None);
        check("a b", None);
        check("", None);
    }
}
