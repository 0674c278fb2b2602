//! What the window holds: who asked for what, went where, moved how much.
//!
//! In: a span of time. Out: [`Seen`]: habits by local day with what is known of them, hours.
//! Each statement covers one local day, which DuckDB (that knows no zones here) is told as a
//! number. Bounded: [`WHATS_MAX`] of a kind for each device and day, the commonest first.

use std::collections::HashMap;
use std::net::IpAddr;

use agentmon_core::Timestamp;
use agentmon_core::event::is_public;
use duckdb::{Connection, params};

use super::profile::Days;
use super::{EVERYBODY, Key, Kind, Local};
use crate::destinations::Destinations;
use crate::store::StoreError;

/// Domains, places or ports of one device in one day.
const WHATS_MAX: u32 = 2_000;
/// Flows and questions in an hour, from which on a device was active.
const ACTIVE_MIN: u64 = 5;
/// Addresses that are not the internet's, as a regular expression: RFC 1918, 1122, 3927,
/// 6598, 4193, 4291 and multicast. `is_public` is the word on single addresses.
const INSIDE: &str = r"^(10\.|192\.168\.|172\.(1[6-9]|2[0-9]|3[01])\.|0\.|127\.|169\.254\.|100\.(6[4-9]|[789][0-9]|1[01][0-9]|12[0-7])\.|22[4-9]\.|2[345][0-9]\.|fe[89ab]|f[cdf]|::)";

/// One habit, as it showed in the window.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) key: Key,
    /// Local day.
    pub(super) day: i32,
    pub(super) first: Timestamp,
    /// Who it was, by address.
    pub(super) client: Option<IpAddr>,
    /// What the table has.
    pub(super) known: Option<(Days, Timestamp)>,
    /// Other devices with the same habit; of domains not known yet.
    pub(super) elsewhere: u32,
    /// Of a place: an address there, the port, and that no name led to it.
    pub(super) nameless: Option<(IpAddr, String)>,
}

/// One hour of one device.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct HourSeen {
    pub(super) who: String,
    pub(super) hour: Timestamp,
    pub(super) client: Option<IpAddr>,
    pub(super) up: u64,
    pub(super) down: u64,
    pub(super) flows: u64,
    pub(super) questions: u64,
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) items: Vec<Item>,
    pub(super) hours: Vec<HourSeen>,
}

impl Seen {
    /// Leaves out what lies before somebody's reset.
    pub(super) fn forget(&mut self, resets: &HashMap<String, Timestamp>) {
        let since = |who: &str| resets.get(who).max(resets.get(EVERYBODY)).copied();
        self.items.retain(|item| since(&item.key.0).is_none_or(|since| item.first >= since));
        let kept = |hour: &HourSeen| since(&hour.who).is_none_or(|since| hour.hour >= since);
        self.hours.retain(kept);
    }
}

/// Reads the window, `from` an hour's begin up to and with `now`.
///
/// # Errors
/// What DuckDB says.
pub(super) fn gather(
    db: &Connection,
    local: &Local,
    destinations: &Destinations,
    from: Timestamp,
    now: Timestamp,
) -> Result<Seen, StoreError> {
    let mut seen = Seen::default();
    let known = places_known(db)?;
    let end = Timestamp::from_micros(now.micros() + 1);
    let mut begin = from;
    while begin < end {
        let until = local.tomorrow(begin).min(end);
        let span = Span { begin, until, day: local.day(begin) };
        domains(db, span, &mut seen.items)?;
        places(db, span, destinations, &known, &mut seen.items)?;
        begin = until;
    }
    seen.hours = hours(db, from, end)?;
    let items = presence(&seen.hours, local);
    seen.items.extend(items);
    Ok(seen)
}

#[derive(Clone, Copy)]
struct Span {
    begin: Timestamp,
    until: Timestamp,
    day: i32,
}

/// Registrable domains that were answered, by device and by everybody; those whose newest
/// day is this one are left out, since there is nothing to learn of them.
fn domains(db: &Connection, span: Span, items: &mut Vec<Item>) -> Result<(), StoreError> {
    let sql = format!(
        "WITH w AS (
             SELECT coalesce(mac, client) AS who, domain, client, min(time) AS first, count(*) AS n
             FROM dns WHERE time >= make_timestamp($1) AND time < make_timestamp($2)
                 AND coalesce(rcode, 0) = 0 AND status NOT IN ('blocked', 'local', 'timeout')
             GROUP BY ALL),
         g AS (
             SELECT who, domain AS what, min(first) AS first, arg_min(client, first) AS client,
                 sum(n) AS n FROM w GROUP BY ALL
             UNION ALL
             SELECT '{EVERYBODY}', domain, min(first), arg_min(client, first), sum(n) FROM w
             GROUP BY domain),
         p AS (SELECT what, count(*) AS others FROM habits
               WHERE kind = 'domain' AND who <> '{EVERYBODY}' GROUP BY what)
         SELECT g.who, g.what, epoch_us(g.first), g.client, h.day, h.bits,
             epoch_us(h.first_seen), coalesce(p.others, 0)
         FROM g LEFT JOIN habits h ON h.who = g.who AND h.kind = 'domain' AND h.what = g.what
             LEFT JOIN p ON p.what = g.what
         WHERE h.day IS NULL OR h.day <> $3 OR g.first < h.first_seen
         QUALIFY row_number() OVER (PARTITION BY g.who ORDER BY g.n DESC, g.what) <= {WHATS_MAX}"
    );
    let mut statement = db.prepare(&sql)?;
    let mut rows = statement.query(params![span.begin.micros(), span.until.micros(), span.day])?;
    while let Some(row) = rows.next()? {
        let client: String = row.get(3)?;
        let days = row.get::<_, Option<i32>>(4)?.zip(row.get::<_, Option<u64>>(5)?);
        let known = days
            .zip(row.get::<_, Option<i64>>(6)?)
            .map(|((newest, bits), first)| (Days { newest, bits }, Timestamp::from_micros(first)));
        items.push(Item {
            key: (row.get(0)?, Kind::Domain, row.get(1)?),
            day: span.day,
            first: Timestamp::from_micros(row.get(2)?),
            client: client.parse().ok(),
            known,
            elsewhere: row.get(7)?,
            nameless: None,
        });
    }
    Ok(())
}

/// Habits of the table.
pub(super) type Known = HashMap<Key, (Days, Timestamp)>;

fn places_known(db: &Connection) -> Result<Known, StoreError> {
    known(db, "'place', 'port'")
}

/// The days and hours of the week that the table has.
///
/// # Errors
/// What DuckDB says.
pub(super) fn presence_known(db: &Connection) -> Result<Known, StoreError> {
    known(db, "'day', 'hour'")
}

fn known(db: &Connection, kinds: &str) -> Result<Known, StoreError> {
    let sql = format!(
        "SELECT who, kind, what, day, bits, epoch_us(first_seen) FROM habits WHERE kind IN ({kinds})"
    );
    let mut statement = db.prepare(&sql)?;
    let mut rows = statement.query([])?;
    let mut known = Known::new();
    while let Some(row) = rows.next()? {
        let kind = match row.get::<_, String>(1)?.as_str() {
            "place" => Kind::Place,
            "port" => Kind::Port,
            "day" => Kind::Day,
            _ => Kind::Hour,
        };
        let days = Days { newest: row.get(3)?, bits: row.get(4)? };
        known.insert((row.get(0)?, kind, row.get(2)?), (days, Timestamp::from_micros(row.get(5)?)));
    }
    Ok(known)
}

/// Providers (or networks) and ports outside that answered.
fn places(
    db: &Connection,
    span: Span,
    destinations: &Destinations,
    known: &Known,
    items: &mut Vec<Item>,
) -> Result<(), StoreError> {
    let sql = format!(
        "SELECT coalesce(mac, src) AS who, any_value(src), dst, dport, proto, epoch_us(min(time)) AS first,
             bool_and(name IS NULL), count(*) AS n
         FROM flows WHERE time >= make_timestamp($1) AND time < make_timestamp($2) AND replied
             AND (mac IS NOT NULL OR regexp_matches(src, '{INSIDE}'))
             AND NOT regexp_matches(dst, '{INSIDE}')
         GROUP BY who, dst, dport, proto
         QUALIFY row_number() OVER (PARTITION BY who ORDER BY n DESC, dst) <= {WHATS_MAX}
         ORDER BY first"
    );
    let mut statement = db.prepare(&sql)?;
    let mut rows = statement.query(params![span.begin.micros(), span.until.micros()])?;
    let mut found: HashMap<Key, Item> = HashMap::new();
    while let Some(row) = rows.next()? {
        let (who, src, dst): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let Some(ip) = dst.parse::<IpAddr>().ok().filter(|ip| is_public(*ip)) else { continue };
        let port = format!("{}/{}", row.get::<_, u16>(3)?, protocol(row.get(4)?));
        let first = Timestamp::from_micros(row.get(5)?);
        let nameless = row.get::<_, bool>(6)?.then(|| (ip, port.clone()));
        let place = place(destinations, ip);
        for (who, kind, what) in [
            (who.clone(), Kind::Place, place.clone()),
            (who, Kind::Port, port),
            (EVERYBODY.to_owned(), Kind::Place, place),
        ] {
            let key = (who, kind, what);
            let item = found.entry(key).or_insert_with_key(|key| Item {
                key: key.clone(),
                day: span.day,
                first,
                client: src.parse().ok(),
                known: known.get(key).copied(),
                elsewhere: 0,
                nameless: nameless.clone(),
            });
            item.first = item.first.min(first);
            // One look-up that led there explains the place.
            if nameless.is_none() {
                item.nameless = None;
            }
        }
    }
    items.extend(found.into_values());
    Ok(())
}

/// Where an address is: whose it is, as far as the built-in table knows, else its network.
pub(super) fn place(destinations: &Destinations, ip: IpAddr) -> String {
    if let Some(provider) = destinations.of(ip).provider {
        return provider.to_owned();
    }
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            format!("{a}.{b}.{c}.0/24")
        }
        IpAddr::V6(v6) => {
            let [a, b, c, ..] = v6.segments();
            format!("{}/48", std::net::Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0))
        }
    }
}

fn protocol(number: u8) -> String {
    match number {
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        1 | 58 => "icmp".to_owned(),
        n => format!("proto {n}"),
    }
}

/// Volumes and counts of the window's hours. A flow's bytes are spread evenly over the time
/// it lasted: a backup of ten hours is no burst in its last one.
fn hours(db: &Connection, from: Timestamp, end: Timestamp) -> Result<Vec<HourSeen>, StoreError> {
    let sql = format!(
        "WITH f AS (
             SELECT coalesce(mac, src) AS who, src, coalesce(bytes_out, 0) AS up,
                 coalesce(bytes_in, 0) AS down, epoch_us(time) AS t1,
                 least(epoch_us(coalesce(start, time - to_microseconds(
                     1000 * least(coalesce(duration_ms, 0), 86400000 * 30)::BIGINT))),
                     epoch_us(time)) AS t0
             FROM flows
             WHERE time >= make_timestamp($1) AND coalesce(start, '-infinity'::TIMESTAMP) < make_timestamp($2)
                 AND (mac IS NOT NULL OR regexp_matches(src, '{INSIDE}'))
                 AND NOT regexp_matches(dst, '{INSIDE}')),
         h AS (
             SELECT *, unnest(range((greatest(t0, $1) // 3600000000) * 3600000000,
                 least(t1, $2 - 1) + 1, 3600000000)) AS hour
             FROM f WHERE t0 < $2),
         s AS (
             SELECT who, src, hour, 1 AS flows, 0 AS questions,
                 up * part AS up, down * part AS down
             FROM (SELECT *, CASE WHEN t1 > t0 THEN greatest(0,
                     least(t1, hour + 3600000000) - greatest(t0, hour)) / (t1 - t0)
                 ELSE 1 END AS part FROM h)
             UNION ALL
             SELECT coalesce(mac, client), client, (epoch_us(time) // 3600000000) * 3600000000,
                 0, 1, 0, 0
             FROM dns WHERE time >= make_timestamp($1) AND time < make_timestamp($2)),
         d AS (
             SELECT who, hour, any_value(src) AS src, sum(up) AS up, sum(down) AS down,
                 sum(flows) AS flows, sum(questions) AS questions
             FROM s GROUP BY who, hour)
         SELECT who, hour, src, round(up)::UBIGINT, round(down)::UBIGINT, flows::UBIGINT,
             questions::UBIGINT FROM d
         UNION ALL
         SELECT '{EVERYBODY}', hour, NULL, round(sum(up))::UBIGINT, round(sum(down))::UBIGINT,
             sum(flows)::UBIGINT, sum(questions)::UBIGINT FROM d GROUP BY hour
         ORDER BY ALL"
    );
    let mut statement = db.prepare(&sql)?;
    let mut rows = statement.query(params![from.micros(), end.micros()])?;
    let mut hours = Vec::new();
    while let Some(row) = rows.next()? {
        hours.push(HourSeen {
            who: row.get(0)?,
            hour: Timestamp::from_micros(row.get(1)?),
            client: row.get::<_, Option<String>>(2)?.and_then(|ip| ip.parse().ok()),
            up: row.get(3)?,
            down: row.get(4)?,
            flows: row.get(5)?,
            questions: row.get(6)?,
        });
    }
    Ok(hours)
}

/// The days and hours of the week on which somebody was there.
fn presence(hours: &[HourSeen], local: &Local) -> Vec<Item> {
    let mut found: HashMap<(Key, i32), Item> = HashMap::new();
    for hour in hours {
        let day = local.day(hour.hour);
        let active = hour.flows.saturating_add(hour.questions) >= ACTIVE_MIN;
        let slot = active.then(|| (Kind::Hour, local.slot(hour.hour).label()));
        for (kind, what) in [Some((Kind::Day, String::new())), slot].into_iter().flatten() {
            let key = (hour.who.clone(), kind, what);
            let item = found.entry((key.clone(), day)).or_insert_with(|| Item {
                key,
                day,
                first: hour.hour,
                client: None,
                known: None,
                elsewhere: 0,
                nameless: None,
            });
            item.first = item.first.min(hour.hour);
        }
    }
    found.into_values().collect()
}
