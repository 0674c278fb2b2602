//! What each device did with each service, as times.
//!
//! In: flows and DNS exchanges of a span, grouped by DuckDB: one row for each device and name
//! (or address, where the device had asked for no name), with the times as a list. Out:
//! [`Service`]s: what belongs to one registrable domain, or to one address, all its names,
//! ports and addresses. A device is its MAC, or the address where none is known.
//!
//! Memory: 8 bytes for each flow and question of the span, once here and once in DuckDB,
//! within its limit. Rows of more than [`TIMES_MAX`] times are left out and counted: five a
//! second all day long is no heart.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;

use agentmon_core::Timestamp;
use agentmon_core::name::Name;
use duckdb::arrow::array::{
    Array as _, AsArray as _, Float64Array, Int64Array, ListArray, RecordBatch, StringArray,
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
    pub flows: Option<Use>,
    /// By questions.
    pub questions: Option<Use>,
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
        any_value(address) AS address, list(moment) AS times, sum(sent)::DOUBLE AS bytes_out,
        sum(got)::DOUBLE AS bytes_in, stddev_pop(ln(1 + sent / n)) AS spread,
        min(low)::BIGINT AS low, max(high)::BIGINT AS high
    FROM {source} GROUP BY device, target, named";
const FLOW: &str = "(SELECT coalesce(mac, src) AS device, src AS client,
        coalesce(name, dst) AS target, name IS NOT NULL AS named, dst AS address,
        epoch(coalesce(start, time))::BIGINT AS moment, coalesce(bytes_out, 0) AS sent,
        coalesce(bytes_in, 0) AS got, dport AS low, dport AS high, 1 AS n
    FROM flows WHERE time > make_timestamp($1) AND time <= make_timestamp($2))";
const QUESTIONS: &str = "SELECT device, any_value(client) AS client, target, true AS named,
        list(moment) AS times, max(low)::BIGINT AS low
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

fn statement(outer: &str, inner: &str, grain: u32) -> String {
    let grained = GRAIN.replace("{source}", inner).replace("{grain}", &grain.to_string());
    outer.replace("{source}", if grain > 1 { &grained } else { inner })
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
    let mut gather = Gather::default();
    let both =
        [(statement(FLOWS, FLOW, grain), false), (statement(QUESTIONS, QUESTION, grain), true)];
    for (sql, questions) in both {
        let mut statement = db.prepare(&sql)?;
        for batch in statement.query_arrow(params![from.micros(), to.micros()])? {
            gather.batch(&batch, questions);
        }
    }
    Ok(gather.done())
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

impl Gather {
    fn batch(&mut self, batch: &RecordBatch, questions: bool) {
        let (Some(device), Some(client), Some(target)) =
            (text(batch, "device"), text(batch, "client"), text(batch, "target"))
        else {
            return;
        };
        let (Some(named), Some(times)) = (
            batch.column_by_name("named").and_then(|c| c.as_boolean_opt()),
            batch.column_by_name("times").and_then(|c| c.as_list_opt::<i32>()),
        ) else {
            return;
        };
        let address = text(batch, "address");
        let (low, high) = (int(batch, "low"), int(batch, "high"));
        let (out, inward, spread) =
            (real(batch, "bytes_out"), real(batch, "bytes_in"), real(batch, "spread"));
        for row in 0..batch.num_rows() {
            if device.is_null(row) || target.is_null(row) {
                continue;
            }
            let Some(times) = seconds(times, row) else { continue };
            self.events += times.len() as u64;
            let number = |column: Option<&Int64Array>| {
                column.filter(|c| c.is_valid(row)).map(|c| c.value(row))
            };
            let float = |column: Option<&Float64Array>| {
                column.filter(|c| c.is_valid(row)).map_or(0.0, |c| c.value(row))
            };
            let port = |column| number(column).and_then(|p| u16::try_from(p).ok());
            let using = Use {
                times,
                bytes_out: float(out) as u64,
                bytes_in: float(inward) as u64,
                spread: float(spread),
                ports: if questions { None } else { port(low).zip(port(high)) },
                address: address
                    .filter(|a| a.is_valid(row))
                    .and_then(|a| a.value(row).parse().ok()),
                ttl: number(low).filter(|_| questions).and_then(|t| u32::try_from(t).ok()),
            };
            let client =
                client.is_valid(row).then(|| client.value(row)).and_then(|c| c.parse().ok());
            self.add(
                device.value(row),
                client,
                (target.value(row), named.value(row)),
                using,
                questions,
            );
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
            target.questions = Some(using);
        } else {
            target.flows = Some(using);
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
