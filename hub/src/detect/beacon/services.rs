//! What each device did with each service, as times.
//!
//! In: flows and DNS exchanges of a span, grouped by DuckDB: one row for each device and name
//! (or address, where the device had asked for no name), with the times as a list. Out:
//! [`Service`]s: what belongs to one registrable domain, or to one address, all its names,
//! ports and addresses. A device is its MAC, or the address where none is known.
//!
//! [`read`] tells all of them, [`read_times`] no more than when, which is what a rhythm is made
//! of; [`details`] then adds the rest for the few that matter. A home's day has a million pairs
//! of device and name: sums, samples and deviations of each cost more than all else.
//!
//! Memory: 8 bytes for each flow and question of the span, once here and once in DuckDB,
//! within its limit. Rows of more than [`TIMES_MAX`] times are left out and counted: five a
//! second all day long is no heart.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use agentmon_core::Timestamp;
use agentmon_core::name::Name;
use duckdb::arrow::array::{
    Array as _, AsArray as _, BooleanArray, Float64Array, Int64Array, ListArray, RecordBatch,
    StringArray,
};
use duckdb::{Connection, params};

use crate::store::StoreError;

/// Most times of one device and name.
pub const TIMES_MAX: usize = 432_000;
/// Things that happened before which nothing can be said: rows of fewer are kept for what
/// they say of others only.
pub const TIMES_MIN: usize = 4;

/// A device did this with one name or address, one way.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Use {
    /// Seconds since 1970, in any order.
    pub times: Vec<i64>,
    /// Bytes sent, all together.
    pub bytes_out: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// How much the bytes sent differ: the standard deviation of their logarithm. 0 for
    /// questions.
    pub spread: f64,
    /// Lowest and highest port.
    pub ports: Option<(u16, u16)>,
    /// One of the addresses.
    pub address: Option<IpAddr>,
    /// Seconds for which the answers were good.
    pub ttl: Option<u32>,
}

/// How a device used a name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Target {
    /// By connections.
    pub flows: Option<Box<Use>>,
    /// By questions.
    pub questions: Option<Box<Use>>,
}

/// One device and one service.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Service {
    /// The device's MAC, or its address.
    pub device: String,
    /// One of its addresses.
    pub client: Option<IpAddr>,
    /// The registrable domain; else the name; else the address.
    pub group: String,
    /// There is a name.
    pub named: bool,
    /// By name or address.
    pub targets: BTreeMap<String, Target>,
    /// Devices that use it, this one included.
    pub devices: usize,
}

/// All services of a span.
#[derive(Clone, Debug, Default)]
pub struct Services {
    /// In no order.
    pub all: Vec<Service>,
    /// Devices seen.
    pub devices: usize,
    /// Rows with more than [`TIMES_MAX`] times.
    pub too_many: u64,
    /// Flows and questions read.
    pub events: u64,
}

/// `{grain}`: seconds within which things are one. The inner grouping is of use where it makes
/// few of many; with a grain of a second it would only cost.
const FLOWS: &str = "SELECT device, any_value(client) AS client, target, named,
        any_value(address) AS address, {times} AS times, sum(sent)::DOUBLE AS bytes_out,
        sum(got)::DOUBLE AS bytes_in, stddev_pop(ln(1 + sent / n)) AS spread,
        min(low)::BIGINT AS low, max(high)::BIGINT AS high
    FROM {source} GROUP BY device, target, named";
const TIMES: &str = "SELECT device, target, named, {times} AS times
    FROM {source} GROUP BY device, target, named";
const FLOW: &str = "(SELECT coalesce(mac, src) AS device, src AS client,
        coalesce(name, dst) AS target, name IS NOT NULL AS named, dst AS address,
        epoch(coalesce(start, time))::BIGINT AS moment, coalesce(bytes_out, 0) AS sent,
        coalesce(bytes_in, 0) AS got, dport AS low, dport AS high, 1 AS n
    FROM flows WHERE time > make_timestamp($1) AND time <= make_timestamp($2))";
const QUESTIONS: &str = "SELECT device, any_value(client) AS client, target, true AS named,
        {times} AS times, max(low)::BIGINT AS low
    FROM {source} GROUP BY device, target";
const QUESTION: &str = "(SELECT coalesce(mac, client) AS device, client, name AS target,
        true AS named, NULL::VARCHAR AS address, epoch(time)::BIGINT AS moment, 0 AS sent,
        0 AS got, ttl AS low, ttl AS high, 1 AS n
    FROM dns WHERE time > make_timestamp($1) AND time <= make_timestamp($2)
        AND status <> 'local')";
const GRAIN: &str = "(SELECT device, any_value(client) AS client, target, named,
        any_value(address) AS address, min(moment) AS moment, sum(sent) AS sent, sum(got) AS got,
        min(low) AS low, max(high) AS high, count(*) AS n
    FROM {source} GROUP BY device, target, named, moment // {grain})";

/// Pairs of device and target, `$3`.
const WANTED: &str = "(SELECT s.* FROM {source} s WHERE (s.device, s.target) IN (
        SELECT (w.device, w.target) FROM (SELECT unnest(from_json($3,
            '[{\"device\":\"VARCHAR\",\"target\":\"VARCHAR\"}]')) AS w)))";

fn statement(outer: &str, times: &str, inner: &str, grain: u32) -> String {
    let grained = GRAIN.replace("{source}", inner).replace("{grain}", &grain.to_string());
    let source = if grain > 1 { &grained } else { inner };
    outer.replace("{source}", source).replace("{times}", times)
}

/// Reads `(from, to]`; things of one device and target within `grain` seconds are one.
///
/// # Errors
/// What DuckDB says.
pub fn read(
    db: &Connection,
    from: Timestamp,
    to: Timestamp,
    grain: u32,
) -> Result<Services, StoreError> {
    gather(db, from, to, grain, [FLOWS, QUESTIONS])
}

/// As [`read`], but of each use its times alone.
///
/// # Errors
/// What DuckDB says.
pub fn read_times(
    db: &Connection,
    from: Timestamp,
    to: Timestamp,
    grain: u32,
) -> Result<Services, StoreError> {
    gather(db, from, to, grain, [TIMES, TIMES])
}

fn gather(
    db: &Connection,
    from: Timestamp,
    to: Timestamp,
    grain: u32,
    [flows, questions]: [&str; 2],
) -> Result<Services, StoreError> {
    let mut gather = Gather::default();
    for (outer, inner, asks) in [(flows, FLOW, false), (questions, QUESTION, true)] {
        let mut statement = db.prepare(&statement(outer, "list(moment)", inner, grain))?;
        for batch in statement.query_arrow(params![from.micros(), to.micros()])? {
            gather.batch(&batch, asks);
        }
    }
    Ok(gather.done())
}

/// What [`read_times`] left out, of these services; arguments as there.
///
/// # Errors
/// What DuckDB says.
pub fn details<'a>(
    db: &Connection,
    from: Timestamp,
    to: Timestamp,
    grain: u32,
    services: impl Iterator<Item = &'a mut Service>,
) -> Result<(), StoreError> {
    let mut wanted: HashMap<String, HashMap<String, &mut Target>> = HashMap::new();
    let mut clients: HashMap<String, Vec<&mut Option<IpAddr>>> = HashMap::new();
    let mut pairs = Vec::new();
    for Service { device, client, targets, .. } in services {
        clients.entry(device.clone()).or_default().push(client);
        let of = wanted.entry(device.clone()).or_default();
        for (name, target) in targets {
            pairs.push(serde_json::json!({"device": device, "target": name}));
            of.insert(name.clone(), target);
        }
    }
    if pairs.is_empty() {
        return Ok(());
    }
    let pairs = serde_json::Value::from(pairs).to_string();
    for (outer, inner, asks) in [(FLOWS, FLOW, false), (QUESTIONS, QUESTION, true)] {
        let inner = WANTED.replace("{source}", inner);
        let mut statement = db.prepare(&statement(outer, "[]::BIGINT[]", &inner, grain))?;
        for batch in statement.query_arrow(params![from.micros(), to.micros(), pairs])? {
            let Some(columns) = Columns::of(&batch) else { continue };
            for row in 0..batch.num_rows() {
                let (device, target) = (columns.device.value(row), columns.target.value(row));
                let target = wanted.get_mut(device).and_then(|of| of.get_mut(target));
                let Some(target) = target else { continue };
                let using = if asks { &mut target.questions } else { &mut target.flows };
                if let Some(using) = using {
                    let times = std::mem::take(&mut using.times);
                    **using = Use { times, ..columns.using(row, Vec::new(), asks) };
                }
                for client in clients.get_mut(device).into_iter().flatten() {
                    **client = client.or(columns.client(row));
                }
            }
        }
    }
    Ok(())
}

/// Puts uses together into services.
#[derive(Debug, Default)]
pub struct Gather {
    services: HashMap<(String, String), Service>,
    /// Registrable domains of names met.
    domains: HashMap<String, String>,
    devices: HashSet<String>,
    too_many: u64,
    events: u64,
}

fn text<'a>(batch: &'a RecordBatch, column: &str) -> Option<&'a StringArray> {
    batch.column_by_name(column)?.as_string_opt::<i32>()
}

fn int<'a>(batch: &'a RecordBatch, column: &str) -> Option<&'a Int64Array> {
    batch.column_by_name(column)?.as_any().downcast_ref()
}

fn real<'a>(batch: &'a RecordBatch, column: &str) -> Option<&'a Float64Array> {
    batch.column_by_name(column)?.as_any().downcast_ref()
}

/// The columns of an answer; those that [`read_times`] does not ask for may be missing.
struct Columns<'a> {
    device: &'a StringArray,
    target: &'a StringArray,
    named: &'a BooleanArray,
    times: &'a ListArray,
    client: Option<&'a StringArray>,
    address: Option<&'a StringArray>,
    ends: [Option<&'a Int64Array>; 2],
    sums: [Option<&'a Float64Array>; 3],
}

impl<'a> Columns<'a> {
    fn of(batch: &'a RecordBatch) -> Option<Self> {
        Some(Self {
            device: text(batch, "device")?,
            target: text(batch, "target")?,
            named: batch.column_by_name("named")?.as_boolean_opt()?,
            times: batch.column_by_name("times")?.as_list_opt::<i32>()?,
            client: text(batch, "client"),
            address: text(batch, "address"),
            ends: ["low", "high"].map(|column| int(batch, column)),
            sums: ["bytes_out", "bytes_in", "spread"].map(|column| real(batch, column)),
        })
    }

    fn client(&self, row: usize) -> Option<IpAddr> {
        self.client.filter(|c| c.is_valid(row))?.value(row).parse().ok()
    }

    fn using(&self, row: usize, times: Vec<i64>, questions: bool) -> Use {
        let [low, high] =
            self.ends.map(|c| c.filter(|c| c.is_valid(row)).map(|column| column.value(row)));
        let [out, inward, spread] = self
            .sums
            .map(|c| c.filter(|c| c.is_valid(row)).map_or(0.0, |column| column.value(row)));
        let port = |n: Option<i64>| n.and_then(|p| u16::try_from(p).ok());
        let address = self.address.filter(|a| a.is_valid(row));
        Use {
            times,
            bytes_out: out as u64,
            bytes_in: inward as u64,
            spread,
            ports: if questions { None } else { port(low).zip(port(high)) },
            address: address.and_then(|a| a.value(row).parse().ok()),
            ttl: low.filter(|_| questions).and_then(|ttl| u32::try_from(ttl).ok()),
        }
    }
}

impl Gather {
    fn batch(&mut self, batch: &RecordBatch, questions: bool) {
        let Some(columns) = Columns::of(batch) else { return };
        for row in 0..batch.num_rows() {
            if columns.device.is_null(row) || columns.target.is_null(row) {
                continue;
            }
            let Some(times) = seconds(columns.times, row) else { continue };
            self.events += times.len() as u64;
            let using = columns.using(row, times, questions);
            let target = (columns.target.value(row), columns.named.value(row));
            let client = columns.client(row);
            self.add(columns.device.value(row), client, target, using, questions);
        }
    }

    /// A device used a name (`named`) or an address, by connections or by questions.
    pub fn add(
        &mut self,
        device: &str,
        client: Option<IpAddr>,
        (target, named): (&str, bool),
        using: Use,
        questions: bool,
    ) {
        if !self.devices.contains(device) {
            self.devices.insert(device.to_owned());
        }
        if using.times.len() > TIMES_MAX {
            self.too_many += 1;
            return;
        }
        if (!named && is_inside(target)) || (named && is_own(target)) {
            return;
        }
        let group = if named { self.domain(target) } else { target.to_owned() };
        let service = self.services.entry((device.to_owned(), group)).or_default();
        service.client = service.client.or(client);
        service.named = named;
        let target = service.targets.entry(target.to_owned()).or_default();
        if questions {
            target.questions = Some(Box::new(using));
        } else {
            target.flows = Some(Box::new(using));
        }
    }

    fn domain(&mut self, name: &str) -> String {
        if let Some(domain) = self.domains.get(name) {
            return domain.clone();
        }
        let domain = Name::parse(name.as_bytes())
            .map_or_else(|_| name.to_owned(), |name| name.domain().to_owned());
        self.domains.insert(name.to_owned(), domain.clone());
        domain
    }

    /// All of them.
    #[must_use]
    pub fn done(self) -> Services {
        let mut users: HashMap<&str, usize> = HashMap::new();
        for (_, group) in self.services.keys() {
            *users.entry(group).or_default() += 1;
        }
        let users: HashMap<String, usize> =
            users.into_iter().map(|(group, n)| (group.to_owned(), n)).collect();
        let all = self.services.into_iter().map(|((device, group), service)| {
            let devices = users.get(&group).copied().unwrap_or(1);
            Service { device, group, devices, ..service }
        });
        Services {
            all: all.collect(),
            devices: self.devices.len(),
            too_many: self.too_many,
            events: self.events,
        }
    }
}

fn seconds(times: &ListArray, row: usize) -> Option<Vec<i64>> {
    let list = times.is_valid(row).then(|| times.value(row))?;
    Some(list.as_any().downcast_ref::<Int64Array>()?.values().to_vec())
}

/// An address of one's own net, or none that leads anywhere.
fn is_inside(address: &str) -> bool {
    let Ok(address) = address.parse::<IpAddr>() else { return false };
    let local = match address {
        IpAddr::V4(ip) => ip.is_private() || ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
    };
    local || address.is_multicast() || address.is_loopback() || address.is_unspecified()
}

/// Names of one's own net: single labels, and those that lead nowhere else.
fn is_own(name: &str) -> bool {
    const OWN: [&str; 8] =
        [".lan", ".local", ".home", ".internal", ".localdomain", ".arpa", ".invalid", ".test"];
    !name.contains('.') || OWN.iter().any(|own| name.ends_with(own))
}
