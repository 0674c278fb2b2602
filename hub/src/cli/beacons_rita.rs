//! `agentmon beacons --profile rita`: imported Zeek logs, scored as RITA does.
//!
//! Reads connections from the store, scores them in this process, prints the highest first.

use std::collections::BTreeSet;
use std::net::IpAddr;

use agentmon_core::Timestamp;
use anyhow::{Context as _, bail};
use serde_json::Value;

use super::args::{BeaconsArgs, RitaDefaults};
use super::backend::{Backend, query};
use super::context::{Context, Exit};
use super::list;
use super::print::Printer;
use super::sheet::{Cell, Column, Kind, Record, Row, Sheet};
use super::{units, when};
use crate::detect::beacon::rita::{self, Asked, Connection, Defaults, Logs, Settings, fuse};
use crate::store::zeek::SIGN;

const COLUMNS: &[Column] = &[
    Column::new("SCORE", |r, _| score(r, "final_score")).right(),
    Column::new("SEVERITY", |r, _| r.severity("severity")),
    Column::new("SOURCE", |r, _| r.plain("src")),
    Column::new("TO", |r, _| r.plain("dst")),
    Column::new("CONNECTIONS", |r, _| r.count("connections")).right(),
    Column::new("OPEN", |r, _| r.count("open")).right(),
    Column::new("BYTES", |r, _| r.bytes("bytes")).right(),
    Column::new("BEACON", |r, _| score(r, "score")).right(),
    Column::new("TIMES", |r, _| score(r, "ts_score")).right(),
    Column::new("SIZES", |r, _| score(r, "ds_score")).right(),
    Column::new("DURATION", |r, _| score(r, "dur_score")).right(),
    Column::new("HOURS", |r, _| score(r, "hist_score")).right(),
];

fn score(row: &Row<'_>, key: &str) -> Cell {
    row.value(key).as_f64().map_or_else(Cell::default, |s| Cell::new(&format!("{s:.3}")))
}

fn sheet() -> Sheet {
    let plain = |key| (key, Kind::Plain);
    let mut fields = vec![plain("src"), plain("dst"), plain("connections"), plain("open")];
    fields.extend([("bytes", Kind::Bytes)]);
    let scores =
        ["duration", "score", "ts_score", "ds_score", "dur_score", "hist_score", "final_score"];
    fields.extend(scores.map(plain));
    fields.extend([plain("prevalence"), plain("subdomains"), plain("severity")]);
    Sheet::new(&fields, COLUMNS)
}

/// Values in the order of [`sheet`].
fn record(row: &rita::Row) -> Record {
    let beacon = row.beacon.unwrap_or_default();
    let values = vec![
        row.src.map(|src| src.to_string()).unwrap_or_default().into(),
        row.dst.clone().into(),
        row.connections.into(),
        row.open.into(),
        row.bytes.into(),
        row.seconds.into(),
        beacon.score.into(),
        beacon.timestamps.into(),
        beacon.sizes.into(),
        beacon.duration.into(),
        beacon.histogram.into(),
        row.final_score.into(),
        row.prevalence.into(),
        row.subdomains.into(),
        fuse::severity(row.final_score).into(),
    ];
    Record { values }
}

/// Newest finished connection of each pair of addresses, those that ask a proxy apart: which
/// of them count is for [`Settings`] to say.
const NEWEST: &str = "SELECT c.src, c.dst, epoch_us(max(c.time)),
         EXISTS (FROM zeek_name n
             WHERE n.sensor = c.sensor AND n.uid = c.uid AND n.source = 'proxy') AS proxied
     FROM zeek_conn c WHERE NOT c.open";

/// Connections of the window and just before, with the names said in them.
const SELECT: &str = "SELECT epoch_us(c.time), c.src, c.dst, c.bytes_out, c.bytes_in, c.duration, \
     c.open, n.direct, n.proxied, n.hostless, n.others, n.signs
     FROM zeek_conn c LEFT JOIN (
         SELECT sensor, uid, list(DISTINCT name) FILTER (source IN ('tls', 'http')) AS direct,
             list(DISTINCT name) FILTER (source = 'proxy') AS proxied,
             bool_or(source = 'nohost') AS hostless,
             list(DISTINCT name) FILTER (source = 'mime') AS others,
             list(DISTINCT source || ' ' || name) FILTER (source LIKE 'sign %') AS signs
         FROM zeek_name GROUP BY sensor, uid
     ) n USING (sensor, uid)
     WHERE true";

/// Open ones as far as they were last told of; none is longer than a year.
const FROM: &str = " AND CAST(? AS TIMESTAMP) <= CASE WHEN c.open
     THEN c.time + to_microseconds((least(c.duration, 31536000) * 1000000)::BIGINT)
     ELSE c.time END";

/// Who has gone where under which name.
const EVER: &str = "SELECT DISTINCT c.src, c.dst, n.name FROM zeek_conn c
     JOIN zeek_name n USING (sensor, uid)
     WHERE NOT c.open AND n.source IN ('tls', 'http', 'proxy')";

/// When anybody first went to a name, or to an address.
const FIRST: &str = "SELECT n.name, epoch(min(c.time))::BIGINT FROM zeek_conn c
         JOIN zeek_name n USING (sensor, uid)
     WHERE n.source IN ('tls', 'http', 'proxy'){sensor} GROUP BY n.name
     UNION ALL
     SELECT c.dst, epoch(min(c.time))::BIGINT FROM zeek_conn c WHERE true{sensor} GROUP BY c.dst";

/// Names and addresses that lists of bad things have, and that somebody went to.
const LISTED: &str = "SELECT DISTINCT value FROM indicators
     WHERE gone IS NULL AND kind IN ('name', 'address') AND (
         value IN (SELECT dst FROM zeek_conn) OR value IN (SELECT name FROM zeek_name))";

/// When a question was asked, whatever the hub made of it.
const ASKED_AT: &str = "coalesce(c.sensor_time, c.time)";
const ASKED: &str = "SELECT epoch(date_trunc('hour', coalesce(c.sensor_time, c.time)))::BIGINT, \
     c.client, c.upstream, c.name, c.domain FROM dns c WHERE c.source = 'zeek'";

/// Addresses answered for names below domains with very many.
const RESOLVED: &str = "SELECT DISTINCT c.domain, unnest(c.answers) FROM dns c
     WHERE c.source = 'zeek' AND c.qtype = 1 {narrow} AND c.domain IN (
         SELECT c.domain FROM dns c WHERE c.source = 'zeek' {narrow}
         GROUP BY c.domain HAVING count(DISTINCT c.name) >= 100)";

/// Highest score first.
pub(crate) fn run(args: &BeaconsArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let settings = settings(args);
    let logs = logs(args, &settings, context)?;
    let rows = rita::analyse(&logs, &settings);
    let format = args.format.format();
    let limit = usize::try_from(list::limit(args.limit, format)).unwrap_or(usize::MAX);
    let sheet = sheet();
    let mut printer = Printer::new(format, &sheet, &context.look, context.out);
    rows.iter().take(limit).try_for_each(|row| printer.record(&record(row)))?;
    printer.finish()?;
    if logs.connections.is_empty() && logs.asked.is_empty() {
        context.say("no connections there: agentmon import zeek PATH brings some in");
    } else if rows.len() > limit {
        let n = units::plural(rows.len() as u64, "row", "rows");
        context.say(&format!("only the first {limit} of {n}: --limit N"));
    }
    Ok(Exit::Fine)
}

fn settings(args: &BeaconsArgs) -> Settings {
    let mut settings = Settings {
        external_to_internal: args.external_to_internal,
        defaults: match args.defaults {
            RitaDefaults::Code => Defaults::Code,
            RitaDefaults::Shipped => Defaults::Shipped,
        },
        ..Settings::default()
    };
    if !args.internal.is_empty() {
        settings.internal.clone_from(&args.internal);
    }
    settings
}

/// What narrows both queries: the span asked for and the source.
fn narrowed(args: &BeaconsArgs, context: &Context<'_>) -> anyhow::Result<(String, Vec<Value>)> {
    let (mut sql, mut params) = (String::new(), Vec::<Value>::new());
    let look = &context.look;
    for (option, text, sign) in [("since", &args.since, ">="), ("until", &args.until, "<=")] {
        let Some(text) = text else { continue };
        let time = when::parse(text, look.now, &look.zone)
            .map_err(|error| anyhow::anyhow!("--{option}: {error}"))?;
        sql.push_str(&format!(" AND c.time {sign} CAST(? AS TIMESTAMP)"));
        params.push(when::sql(time).into());
    }
    if let Some(sensor) = &args.sensor {
        sql.push_str(" AND c.sensor = (SELECT id FROM sensors WHERE name = ?)");
        params.push(sensor.as_str().into());
    }
    Ok((sql, params))
}

/// The newest finished connection that counts.
fn newest(
    narrowed: &(String, Vec<Value>),
    settings: &Settings,
    context: &mut Context<'_>,
) -> anyhow::Result<Option<Timestamp>> {
    let sql = format!("{NEWEST}{} GROUP BY ALL", narrowed.0);
    let mut newest = None;
    let outcome = query(context.hub, &sql, narrowed.1.clone(), &mut |row| {
        let [src, dst, time, proxied] = row.as_slice() else { return Ok(()) };
        let (Some(src), Some(dst)) = (address(src), address(dst)) else { return Ok(()) };
        if settings.keeps(src, dst, proxied.as_bool() == Some(true)) {
            newest = newest.max(time.as_i64());
        }
        Ok(())
    })?;
    if outcome.truncated {
        bail!("more than {} pairs of addresses: a shorter --since", units::count(outcome.count));
    }
    Ok(newest.map(Timestamp::from_micros))
}

fn logs(
    args: &BeaconsArgs,
    settings: &Settings,
    context: &mut Context<'_>,
) -> anyhow::Result<Logs> {
    let narrowed = narrowed(args, context)?;
    let newest = newest(&narrowed, settings, context)?;
    let from = newest.map(|newest| {
        let from = newest.secs().saturating_sub(rita::WINDOW_SECONDS);
        when::sql(Timestamp::from_secs(from - from.rem_euclid(3_600)))
    });
    let (mut sql, mut params) = (format!("{SELECT}{}", narrowed.0), narrowed.1.clone());
    if let Some(from) = &from {
        sql.push_str(FROM);
        params.push(from.clone().into());
    }
    let (mut logs, hub) = (Logs::default(), &mut *context.hub);
    read(hub, &sql, params, "connections in a day", &mut |row| {
        logs.connections.push(connection(row)?);
        Some(())
    })?;
    let sql = format!("{EVER}{}", narrowed.0);
    read(hub, &sql, narrowed.1.clone(), "pairs and names", &mut |row| {
        let [src, dst, name] = row else { return None };
        logs.ever.insert((address(src)?, address(dst)?, name.as_str()?.to_owned()));
        Some(())
    })?;
    // A question has its time under another name: when it was asked, not when it was stored.
    let (mut narrow, mut params) = (narrowed.0.replace("c.time", ASKED_AT), narrowed.1);
    if let Some(from) = from {
        narrow.push_str(&format!(" AND {ASKED_AT} >= CAST(? AS TIMESTAMP)"));
        params.push(from.into());
    }
    let sql = format!("{ASKED}{narrow} GROUP BY ALL");
    read(hub, &sql, params.clone(), "questions in a day", &mut |row| {
        logs.asked.push(asked(row)?);
        Some(())
    })?;
    let sql = RESOLVED.replace("{narrow}", &narrow);
    params.extend_from_within(..);
    read(hub, &sql, params, "addresses of domains", &mut |row| {
        let [domain, ip] = row else { return None };
        // Names of a chain stand among the addresses.
        if let Some(ip) = address(ip) {
            logs.resolved.insert((domain.as_str()?.to_owned(), ip));
        }
        Some(())
    })?;
    if args.rolling {
        first_seen(args, &mut logs, hub)?;
    }
    if args.intel {
        read(hub, LISTED, Vec::new(), "entries of lists", &mut |row| {
            logs.listed.insert(row.first()?.as_str()?.to_owned());
            Some(())
        })?;
    }
    Ok(logs)
}

/// Of all days there are, whatever the span asked for.
fn first_seen(args: &BeaconsArgs, logs: &mut Logs, hub: &mut dyn Backend) -> anyhow::Result<()> {
    let (sensor, params): (_, Vec<Value>) = match &args.sensor {
        Some(name) => (
            " AND c.sensor = (SELECT id FROM sensors WHERE name = ?)",
            vec![name.as_str().into(), name.as_str().into()],
        ),
        None => ("", Vec::new()),
    };
    let sql = FIRST.replace("{sensor}", sensor);
    read(hub, &sql, params, "destinations", &mut |row| {
        let [dst, first] = row else { return None };
        let (dst, first) = (dst.as_str()?.to_owned(), first.as_i64()?);
        let known = logs.first_seen.entry(dst).or_insert(first);
        *known = first.min(*known);
        Some(())
    })
}

/// Reads all rows; `what`: of what there were too many.
fn read(
    hub: &mut dyn Backend,
    sql: &str,
    params: Vec<Value>,
    what: &str,
    on: &mut dyn FnMut(&[Value]) -> Option<()>,
) -> anyhow::Result<()> {
    let outcome = query(hub, sql, params, &mut |row| {
        on(&row).with_context(|| format!("a row of the {what} cannot be read"))
    })?;
    if outcome.truncated {
        bail!("more than {} {what}: choose a --sensor", units::count(outcome.count));
    }
    Ok(())
}

fn asked(row: &[Value]) -> Option<Asked> {
    let [hour, src, dst, name, domain] = row else { return None };
    Some(Asked {
        hour: hour.as_i64()?,
        src: address(src)?,
        dst: address(dst),
        name: name.as_str()?.to_owned(),
        domain: domain.as_str().map(str::to_owned),
    })
}

fn address(value: &Value) -> Option<IpAddr> {
    value.as_str()?.parse().ok()
}

fn connection(row: &[Value]) -> Option<Connection> {
    let [
        time,
        src,
        dst,
        bytes_out,
        bytes_in,
        seconds,
        open,
        direct,
        proxied,
        hostless,
        others,
        signs,
    ] = row
    else {
        return None;
    };
    let names = |value: &Value| -> BTreeSet<String> {
        let texts = value.as_array().into_iter().flatten().filter_map(Value::as_str);
        texts.map(str::to_owned).collect()
    };
    Some(Connection {
        time: time.as_i64()?.div_euclid(1_000_000),
        src: address(src)?,
        dst: address(dst)?,
        bytes_out: bytes_out.as_u64()?,
        bytes_in: bytes_in.as_u64()?,
        seconds: seconds.as_f64()?,
        open: open.as_bool()?,
        names: names(direct),
        proxied: names(proxied),
        hostless: hostless.as_bool() == Some(true),
        others: names(others),
        signs: names(signs).iter().filter_map(|text| sign(text)).collect(),
    })
}

/// Of `sign 1f... name`: the name, and the number.
fn sign(text: &str) -> Option<(String, u64)> {
    let (number, name) = text.strip_prefix(SIGN)?.split_once(' ')?;
    Some((name.to_owned(), u64::from_str_radix(number, 16).ok()?))
}
