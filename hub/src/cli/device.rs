//! `agentmon device D`: one device on one page: who it is, what it talks to, when it is awake,
//! what was found about it.
//!
//! The same queries and filter words as the lists; each section is a short one and says which
//! command shows the rest.

use agentmon_core::Timestamp;
use clap::Args;
use serde_json::{Map, Value, json};

use super::condition::{self, Condition, Terms};
use super::context::{Context, Exit};
use super::directory::Directory;
use super::filter::{Key, Word};
use super::print::{Format, json_line};
use super::sheet::{Cell, Column, Kind, Record, Row, Sheet};
use super::{alerts, dns, fused, incident, list, owners, text, units, when};

/// Rows of each section.
const ROWS_MAX: u64 = 10;

#[derive(Args, Debug)]
pub(crate) struct DeviceArgs {
    /// Its name, MAC or address
    pub(crate) device: String,
    /// One JSON object
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// The sections' rows: section, what, value, detail
    #[arg(long)]
    csv: bool,
    /// How far back traffic is looked at
    #[arg(long, value_name = "TIME", default_value = "7d")]
    since: String,
}

/// One section of the page.
struct Section {
    key: &'static str,
    title: &'static str,
    sheet: Sheet,
    records: Vec<Record>,
    /// Shows all of it.
    more: String,
}

/// Who it is.
struct Identity {
    mac: Option<String>,
    records: Record,
}

const IDENTITY: &str = "SELECT d.mac, d.hostname, d.name_source, d.vendor, d.mac_kind, d.iface, \
     d.first_seen, d.last_seen, (SELECT list(a.ip ORDER BY a.last_seen DESC) \
       FROM device_addresses a WHERE a.mac = d.mac) FROM devices d";

fn identity_sheet() -> Sheet {
    Sheet::new(
        &[
            ("mac", Kind::Plain),
            ("name", Kind::Plain),
            ("name_source", Kind::Plain),
            ("vendor", Kind::Plain),
            ("mac_kind", Kind::Plain),
            ("iface", Kind::Plain),
            ("first_seen", Kind::Time),
            ("last_seen", Kind::Time),
            ("addresses", Kind::Plain),
        ],
        &[],
    )
}

/// The page.
pub(crate) fn run(args: &DeviceArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    let since = when::parse(&args.since, context.look.now, &context.look.zone);
    let since = since.map_err(|error| anyhow::anyhow!("--since: {error}"))?;
    let identity = identify(&args.device, context)?;
    // From here on the one device meant, by its MAC where it has one.
    let who = identity.mac.clone().unwrap_or_else(|| args.device.clone());
    let mut who = [Word::of(Key::Device, who)];
    owners::resolve(context.hub, &mut who)?;
    let [who] = who;
    let names = Directory::load(context.hub)?;
    let page = [
        traffic(&who, since, &names, context)?,
        destinations(&who, since, &names, context)?,
        domains(&who, since, &names, context)?,
        hours(&who, since, &names, context)?,
        programs(&who, since, &names, context)?,
        found(&who, &names, context)?,
        incidents(&who, &names, context)?,
    ];
    match (args.json, args.csv) {
        (true, _) => {
            let line = as_json(&identity, &page).to_string();
            writeln!(context.out, "{}", text::safe_json(line))?;
        }
        (_, true) => csv(&identity, &page, context)?,
        _ => print(&identity, &page, context)?,
    }
    Ok(Exit::Fine)
}

fn identify(device: &str, context: &mut Context<'_>) -> anyhow::Result<Identity> {
    let sheet = identity_sheet();
    let (sql, key) = which(device);
    let sql = format!("{IDENTITY} WHERE {sql} ORDER BY d.last_seen DESC LIMIT 5");
    let found = list::collect(context, &Directory::default(), &sheet, &sql, vec![key.into()])?;
    match found.as_slice() {
        [one] => {
            Ok(Identity { mac: Some(sheet.row(one).text("mac").to_owned()), records: one.clone() })
        }
        // An address nobody is known at is somebody all the same.
        [] if device.parse::<std::net::IpAddr>().is_ok() => {
            let mut values = vec![Value::Null; 8];
            values.push(json!([device]));
            Ok(Identity { mac: None, records: Record { values } })
        }
        [] => anyhow::bail!("no device `{device}` was seen; see `agentmon devices`"),
        some => {
            let macs: Vec<_> = some.iter().map(|r| sheet.row(r).text("mac").to_owned()).collect();
            anyhow::bail!("`{device}` is several devices: {}", macs.join(", "))
        }
    }
}

/// As everywhere: a MAC, an address (who was seen there last), a name.
fn which(device: &str) -> (&'static str, String) {
    if let Ok(mac) = device.parse::<agentmon_core::event::Mac>() {
        return ("d.mac = ?", mac.to_string());
    }
    if let Ok(ip) = device.parse::<std::net::IpAddr>() {
        let sql = "d.mac = (SELECT n.mac FROM address_names n WHERE n.ip = ?)";
        return (sql, ip.to_canonical().to_string());
    }
    ("lower(d.hostname) = lower(?)", device.to_owned())
}

/// The device in a table's terms, since a time.
fn of(who: &Word, terms: &Terms, since: Option<(&str, Timestamp)>) -> anyhow::Result<Condition> {
    let words = std::slice::from_ref(who);
    let mut condition = condition::build(words, terms).map_err(anyhow::Error::msg)?;
    if let Some((column, since)) = since {
        let since = [Value::from(when::sql(since))];
        condition.and(&format!("{column} >= CAST(? AS TIMESTAMP)"), since);
    }
    Ok(condition)
}

/// Connections it began.
const OUTWARD: &Terms = &[(Key::Device, condition::Term::Device("mac", &["src"], "time"))];

const TRAFFIC: &[Column] = &[
    Column::new("WHAT", |r, _| r.plain("what")),
    Column::new("COUNT", |r, _| r.count("count")).right(),
    Column::new("NAMES", |r, _| r.count("names")).right(),
    Column::new("OUT", |r, _| r.bytes("bytes_out")).right(),
    Column::new("IN", |r, _| r.bytes("bytes_in")).right(),
];

fn traffic(
    who: &Word,
    since: Timestamp,
    names: &Directory,
    context: &mut Context<'_>,
) -> anyhow::Result<Section> {
    let mut asked = of(who, dns::TERMS, Some(("time", since)))?;
    let mut began = of(who, OUTWARD, Some(("time", since)))?;
    let (dns, flows) = (asked.from("dns"), began.from("flows"));
    let sql = format!(
        "SELECT 'questions', count(*), count(DISTINCT name), NULL, NULL FROM {dns} WHERE {} \
         UNION ALL SELECT 'connections', count(*), count(DISTINCT coalesce(name, dst)), \
           sum(bytes_out)::UBIGINT, sum(bytes_in)::UBIGINT FROM {flows} WHERE {}",
        asked.sql, began.sql
    );
    let params = asked.params.into_iter().chain(began.params).collect();
    let sheet = Sheet::new(
        &[
            ("what", Kind::Plain),
            ("count", Kind::Plain),
            ("names", Kind::Plain),
            ("bytes_out", Kind::Bytes),
            ("bytes_in", Kind::Bytes),
        ],
        TRAFFIC,
    );
    let records = list::collect(context, names, &sheet, &sql, params)?;
    Ok(Section { key: "traffic", title: "Traffic", sheet, records, more: stats(who) })
}

fn stats(who: &Word) -> String {
    format!("agentmon stats device:{}", who.text())
}

const DESTINATIONS: &[Column] = &[
    Column::new("TO", |r, _| r.plain("to")),
    Column::new("PORTS", |r, _| Cell::new(&r.list("ports"))),
    Column::new("TIMES", |r, _| r.count("flows")).right(),
    Column::new("OUT", |r, _| r.bytes("bytes_out")).right(),
    Column::new("IN", |r, _| r.bytes("bytes_in")).right(),
    Column::new("DEVICES", |r, _| r.count("devices")).right(),
    Column::new("LAST SEEN", |r, l| r.when("last_seen", l)),
];

/// Where most bytes went, and how many devices here go there.
fn destinations(
    who: &Word,
    since: Timestamp,
    names: &Directory,
    context: &mut Context<'_>,
) -> anyhow::Result<Section> {
    let mut began = of(who, OUTWARD, Some(("time", since)))?;
    let flows = began.from("flows");
    let sql = format!(
        "WITH own AS (SELECT coalesce(name, dst) AS whither, \
             list_sort(list(DISTINCT dport::VARCHAR))[:5] AS ports, count(*) AS n, \
             sum(bytes_out)::UBIGINT AS up, sum(bytes_in)::UBIGINT AS down, max(time) AS last \
           FROM {flows} WHERE {} GROUP BY 1 \
           ORDER BY coalesce(sum(bytes_out), 0) + coalesce(sum(bytes_in), 0) DESC LIMIT {ROWS_MAX}) \
         SELECT whither, ports, n, up, down, (SELECT count(DISTINCT coalesce(f.mac, f.src)) \
           FROM flows f WHERE f.time >= CAST(? AS TIMESTAMP) AND coalesce(f.name, f.dst) = whither), \
         last FROM own ORDER BY coalesce(up, 0) + coalesce(down, 0) DESC, whither",
        began.sql
    );
    let params = began.params.into_iter().chain([when::sql(since).into()]).collect();
    let sheet = Sheet::new(
        &[
            ("to", Kind::Plain),
            ("ports", Kind::Plain),
            ("flows", Kind::Plain),
            ("bytes_out", Kind::Bytes),
            ("bytes_in", Kind::Bytes),
            ("devices", Kind::Plain),
            ("last_seen", Kind::Time),
        ],
        DESTINATIONS,
    );
    let records = list::collect(context, names, &sheet, &sql, params)?;
    let more = format!("agentmon flows device:{} --sort bytes", who.text());
    Ok(Section { key: "talks_to", title: "Talks to, by bytes", sheet, records, more })
}

const DOMAINS: &[Column] = &[
    Column::new("DOMAIN", |r, _| r.plain("domain")),
    Column::new("QUESTIONS", |r, _| r.count("questions")).right(),
    Column::new("BLOCKED", |r, _| r.count("blocked")).right(),
    Column::new("SINCE", |r, l| r.when("first_seen", l)),
];

/// What it asked for first in this span, most recent first.
fn domains(
    who: &Word,
    since: Timestamp,
    names: &Directory,
    context: &mut Context<'_>,
) -> anyhow::Result<Section> {
    let mut asked = of(who, dns::TERMS, None)?;
    let dns = asked.from("dns");
    let sql = format!(
        "SELECT domain, count(*), count(*) FILTER (status = 'blocked'), min(time) FROM {dns} \
         WHERE {} GROUP BY domain HAVING min(time) >= CAST(? AS TIMESTAMP) \
         ORDER BY min(time) DESC, domain LIMIT {ROWS_MAX}",
        asked.sql
    );
    let params = asked.params.into_iter().chain([when::sql(since).into()]).collect();
    let sheet = Sheet::new(
        &[
            ("domain", Kind::Plain),
            ("questions", Kind::Plain),
            ("blocked", Kind::Plain),
            ("first_seen", Kind::Time),
        ],
        DOMAINS,
    );
    let records = list::collect(context, names, &sheet, &sql, params)?;
    let more = format!("agentmon dns device:{}", who.text());
    let title = "New to it in this time, as far as history goes";
    Ok(Section { key: "new_domains", title, sheet, records, more })
}

const HOURS: &[Column] = &[
    Column::new("HOUR", |r, _| r.plain("hour")).right(),
    Column::new("DAYS ACTIVE", |r, _| r.count("days")).right(),
    Column::new("EVENTS", |r, _| r.count("events")).right(),
];

/// When it is awake, by hour of the day, in UTC.
fn hours(
    who: &Word,
    since: Timestamp,
    names: &Directory,
    context: &mut Context<'_>,
) -> anyhow::Result<Section> {
    let mut asked = of(who, dns::TERMS, Some(("time", since)))?;
    let mut began = of(who, OUTWARD, Some(("time", since)))?;
    let (dns, flows) = (asked.from("dns"), began.from("flows"));
    let sql = format!(
        "SELECT hour(time), count(DISTINCT time::DATE), count(*) FROM ( \
           SELECT time FROM {dns} WHERE {} UNION ALL SELECT time FROM {flows} WHERE {}) \
         GROUP BY 1 ORDER BY 1",
        asked.sql, began.sql
    );
    let params = asked.params.into_iter().chain(began.params).collect();
    let fields = [("hour", Kind::Plain), ("days", Kind::Plain), ("events", Kind::Plain)];
    let sheet = Sheet::new(&fields, HOURS);
    let records = list::collect(context, names, &sheet, &sql, params)?;
    let title = "Awake, by hour of the day (UTC)";
    Ok(Section { key: "hours", title, sheet, records, more: stats(who) })
}

const PROGRAMS: &[Column] = &[
    Column::new("PROGRAM", |r, _| r.plain("program")),
    Column::new("CONNECTIONS", |r, _| r.count("connections")).right(),
    Column::new("OUT", |r, _| r.bytes("bytes_out")).right(),
    Column::new("LAST SEEN", |r, l| r.when("last_seen", l)),
];

/// Its programs, where an agent tells of them.
fn programs(
    who: &Word,
    since: Timestamp,
    names: &Directory,
    context: &mut Context<'_>,
) -> anyhow::Result<Section> {
    let terms: &Terms =
        &[(Key::Device, condition::Term::Device("NULL::VARCHAR", &["src"], "time"))];
    let condition = of(who, terms, Some(("time", since)))?;
    let sql = format!(
        "SELECT coalesce(name, '(not known)'), count(*), sum(bytes_out)::UBIGINT, max(time) \
         FROM connections WHERE direction = 'out' AND {} GROUP BY 1 \
         ORDER BY 2 DESC, 1 LIMIT {ROWS_MAX}",
        condition.sql
    );
    let sheet = Sheet::new(
        &[
            ("program", Kind::Plain),
            ("connections", Kind::Plain),
            ("bytes_out", Kind::Bytes),
            ("last_seen", Kind::Time),
        ],
        PROGRAMS,
    );
    let records = list::collect(context, names, &sheet, &sql, condition.params)?;
    let more = format!("agentmon timeline --device {} kind:host", who.text());
    Ok(Section { key: "programs", title: "Programs", sheet, records, more })
}

fn found(who: &Word, names: &Directory, context: &mut Context<'_>) -> anyhow::Result<Section> {
    let condition = of(who, alerts::TERMS, None)?;
    let sql = format!(
        "{} WHERE status IN ('open', 'acked') AND {} ORDER BY status = 'open' DESC, score DESC, \
         last_seen DESC, id LIMIT {ROWS_MAX}",
        alerts::SELECT,
        condition.sql
    );
    let sheet = alerts::sheet();
    let records = list::collect(context, names, &sheet, &sql, condition.params)?;
    let more = format!("agentmon alerts --all device:{}", who.text());
    Ok(Section { key: "alerts", title: "Alerts", sheet, records, more })
}

fn incidents(who: &Word, names: &Directory, context: &mut Context<'_>) -> anyhow::Result<Section> {
    let condition = of(who, incident::TERMS, None)?;
    let sql = format!(
        "{} WHERE {} ORDER BY last_seen DESC, id DESC LIMIT {ROWS_MAX}",
        incident::SELECT,
        condition.sql
    );
    let sheet = incident::sheet();
    let records = list::collect(context, names, &sheet, &sql, condition.params)?;
    let more = format!("agentmon incident --all device:{}", who.text());
    Ok(Section { key: "incidents", title: "Incidents", sheet, records, more })
}

fn as_json(identity: &Identity, page: &[Section]) -> Value {
    let object = |sheet: &Sheet, record: &Record| -> Value {
        serde_json::from_str(&json_line(sheet, record)).unwrap_or_default()
    };
    let mut all = Map::new();
    all.insert("device".into(), object(&identity_sheet(), &identity.records));
    for section in page {
        let rows: Vec<_> = section.records.iter().map(|r| object(&section.sheet, r)).collect();
        all.insert(section.key.into(), json!(rows));
    }
    Value::Object(all)
}

/// One shape for all sections: programs that want them apart take JSON.
fn csv(identity: &Identity, page: &[Section], context: &mut Context<'_>) -> anyhow::Result<()> {
    let sheet =
        Sheet::new(&[("section", Kind::Plain), ("key", Kind::Plain), ("value", Kind::Plain)], &[]);
    let (who, own) = (identity_sheet(), std::slice::from_ref(&identity.records));
    let sections = page.iter().map(|s| (s.key, &s.sheet, s.records.as_slice()));
    let mut lines = Vec::new();
    for (key, fields, records) in [("device", &who, own)].into_iter().chain(sections) {
        for record in records {
            for (field, value) in fields.fields.iter().zip(&record.values) {
                let value = super::print::csv_value(value);
                let values = vec![json!(key), json!(field.key), json!(value)];
                lines.push(Record { values });
            }
        }
    }
    fused::records(Format::Csv, &sheet, &lines, context)
}

fn print(identity: &Identity, page: &[Section], context: &mut Context<'_>) -> anyhow::Result<()> {
    head(&identity_sheet().row(&identity.records), context)?;
    for section in page.iter().filter(|section| !section.records.is_empty()) {
        writeln!(context.out, "\n{}", section.title)?;
        fused::records(Format::Table, &section.sheet, &section.records, context)?;
        if u64::try_from(section.records.len()).unwrap_or(u64::MAX) >= ROWS_MAX {
            writeln!(context.out, "  more: {}", text::safe(&section.more))?;
        }
    }
    Ok(())
}

fn head(row: &Row<'_>, context: &mut Context<'_>) -> anyhow::Result<()> {
    let look = context.look.clone();
    let long = |key: &str| row.time(key).map(|t| when::long(t, &look.zone)).unwrap_or_default();
    let name = match row.text("name") {
        "" => row.list("addresses"),
        name => name.to_owned(),
    };
    writeln!(context.out, "{}", text::safe(&name))?;
    let source = match row.text("name_source") {
        "" => String::new(),
        source => format!("named by {source}"),
    };
    let mac = match (row.text("mac"), row.text("mac_kind")) {
        (mac, "" | "registered") => mac.to_owned(),
        (mac, kind) => format!("{mac} ({kind})"),
    };
    let facts = [
        ("mac", mac),
        ("maker", row.text("vendor").to_owned()),
        ("name", source),
        ("addresses", row.list("addresses")),
        ("interface", row.text("iface").to_owned()),
        ("first", long("first_seen")),
        ("last", long("last_seen")),
    ];
    for (key, value) in facts.iter().filter(|(_, value)| !value.is_empty()) {
        writeln!(context.out, "  {key:<9} {}", text::safe(value))?;
    }
    let age = row.time("last_seen").map(|last| look.now.since(last));
    if let Some(age) = age.filter(|age| age.as_secs() > 3_600) {
        context.say(&format!("it was last seen {} ago", units::duration(age)));
    }
    Ok(())
}
