//! What was before: whether a place is new for a device, and who else goes there.
//!
//! In: one candidate. Out: first contacts, how many devices. One statement for each candidate,
//! and only for candidates: a scan of the history takes a fraction of a second.

use std::net::IpAddr;
use std::time::Duration;

use agentmon_core::Timestamp;
use duckdb::{Connection, params};

use super::DAY_S;
use super::place::{Place, Who};
use crate::store::StoreError;

/// How far back is asked, in days.
const LOOK_BACK_DAYS: u64 = 60;

/// What is known of a device's past with a place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Past {
    /// The device's first contact.
    pub(crate) first: Option<Timestamp>,
    /// Devices that were there.
    pub(crate) devices: u64,
    /// Devices that were anywhere at all.
    pub(crate) of: u64,
    /// Since when the device is known.
    pub(crate) known_since: Option<Timestamp>,
    /// When it is judged.
    pub(crate) now: Timestamp,
    /// How long learning takes.
    pub(crate) learning: Duration,
}

impl Past {
    /// Nothing can be new yet.
    pub(crate) fn is_learning(&self) -> bool {
        self.known_since.is_none_or(|since| self.now.since(since) < self.learning)
    }

    /// The device went there for the first time within these days, after it had been known
    /// for the days of learning: what it did in those is no news in the week after them.
    pub(crate) fn is_new(&self, days: u64) -> bool {
        let span = Duration::from_secs(days * DAY_S);
        let Some(since) = self.known_since else { return false };
        let first = self.first.unwrap_or(self.now);
        self.now.since(first) <= span && first.since(since) >= self.learning
    }

    /// It has gone there for two weeks.
    pub(crate) fn is_old(&self) -> bool {
        self.first.is_some_and(|first| self.now.since(first) >= Duration::from_secs(14 * DAY_S))
    }

    /// Half of the devices go there, at least three.
    pub(crate) const fn is_common(&self) -> bool {
        self.devices >= 3 && self.devices * 2 >= self.of
    }

    /// Others go there too.
    pub(crate) const fn is_shared(&self) -> bool {
        self.devices >= 2
    }
}

/// Looks it up.
pub(crate) fn past(
    db: &Connection,
    (who, place): (Who, &Place),
    now: Timestamp,
    learning: Duration,
) -> Result<Past, StoreError> {
    let (key, condition) = match place {
        Place::Domain(domain) => (domain.clone(), "(f.name = $4 OR ends_with(f.name, '.' || $4))"),
        Place::Address(address) => (address.to_string(), "f.dst = $4"),
    };
    let sql = format!(
        "WITH met AS (
             SELECT f.time, coalesce(f.mac, o.device, f.src) AS who
             FROM flows f LEFT JOIN address_owners o ON f.mac IS NULL AND o.address = f.src
                 AND f.time >= o.owned_since AND f.time < o.owned_until
             WHERE f.time > make_timestamp($1) AND f.time <= make_timestamp($2) AND {condition})
         SELECT (SELECT epoch_us(min(time)) FROM met WHERE who = $3),
             (SELECT count(DISTINCT who) FROM met),
             (SELECT count(*) FROM devices WHERE last_seen > make_timestamp($5)),
             epoch_us(greatest((SELECT min(hour) FROM arrivals),
                 (SELECT first_seen FROM devices WHERE mac = $3)))"
    );
    let from = now.minus(Duration::from_secs(LOOK_BACK_DAYS * DAY_S)).micros();
    let lately = now.minus(Duration::from_secs(14 * DAY_S)).micros();
    let time = |us: Option<i64>| us.map(Timestamp::from_micros);
    let row = db.query_row(&sql, params![from, now.micros(), who.text(), key, lately], |row| {
        Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, u64>(1)?, row.get(2)?, row.get(3)?))
    })?;
    let (first, devices, of, since) = row;
    Ok(Past { first: time(first), devices, of, known_since: time(since), now, learning })
}

/// Whether any answer within `days` held one of these addresses; those that one did.
pub(crate) fn resolved(
    db: &Connection,
    addresses: &[IpAddr],
    now: Timestamp,
    days: u64,
) -> Result<Vec<IpAddr>, StoreError> {
    if addresses.is_empty() {
        return Ok(Vec::new());
    }
    let wanted: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
    let sql = "SELECT DISTINCT answer FROM (
            SELECT unnest(answers) AS answer FROM dns
            WHERE answers IS NOT NULL AND time > make_timestamp($1) AND time <= make_timestamp($2))
        WHERE answer IN (SELECT unnest(string_split($3, ' ')))";
    let from = now.minus(Duration::from_secs(days * DAY_S)).micros();
    let mut statement = db.prepare(sql)?;
    let mut rows = statement.query(params![from, now.micros(), wanted.join(" ")])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.extend(row.get::<_, String>(0)?.parse::<IpAddr>());
    }
    Ok(found)
}

/// Addresses a device talked with, from sixty days ago up to the day before `now`.
pub(crate) fn addresses(
    db: &Connection,
    who: Who,
    now: Timestamp,
) -> Result<Vec<IpAddr>, StoreError> {
    let sql = "SELECT DISTINCT f.dst
         FROM flows f LEFT JOIN address_owners o ON f.mac IS NULL AND o.address = f.src
             AND f.time >= o.owned_since AND f.time < o.owned_until
         WHERE f.time > make_timestamp($1) AND f.time <= make_timestamp($2)
             AND coalesce(f.mac, o.device, f.src) = $3 AND f.replied";
    let from = now.minus(Duration::from_secs(LOOK_BACK_DAYS * DAY_S)).micros();
    let until = now.minus(Duration::from_secs(DAY_S)).micros();
    let mut statement = db.prepare(sql)?;
    let mut rows = statement.query(params![from, until, who.text()])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.extend(row.get::<_, String>(0)?.parse::<IpAddr>());
    }
    Ok(found)
}

/// A port's past.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct PortPast {
    /// The device used it up to the day before.
    pub(crate) used_before: bool,
    /// Other devices that used it.
    pub(crate) others: u64,
    known_since: Option<Timestamp>,
}

impl PortPast {
    pub(crate) fn is_learning(&self, now: Timestamp, learning: Duration) -> bool {
        self.known_since.is_none_or(|since| now.since(since) < learning)
    }
}

/// Looks it up; connections within this network count too.
pub(crate) fn port(
    db: &Connection,
    who: Who,
    service: agentmon_core::service::Service,
    now: Timestamp,
) -> Result<PortPast, StoreError> {
    let sql = "WITH met AS (
             SELECT f.time, coalesce(f.mac, o.device, f.src) AS who
             FROM flows f LEFT JOIN address_owners o ON f.mac IS NULL AND o.address = f.src
                 AND f.time >= o.owned_since AND f.time < o.owned_until
             WHERE f.time > make_timestamp($1) AND f.time <= make_timestamp($2)
                 AND f.dport = $4 AND f.proto = $5)
         SELECT coalesce(bool_or(who = $3 AND time <= make_timestamp($6)), false),
             count(DISTINCT who) FILTER (who <> $3),
             epoch_us(greatest((SELECT min(hour) FROM arrivals),
                 (SELECT first_seen FROM devices WHERE mac = $3)))
         FROM met";
    let from = now.minus(Duration::from_secs(LOOK_BACK_DAYS * DAY_S)).micros();
    let before = now.minus(Duration::from_secs(DAY_S)).micros();
    let values = params![from, now.micros(), who.text(), service.port, service.proto, before];
    let row = db.query_row(sql, values, |row| {
        Ok((row.get::<_, bool>(0)?, row.get::<_, u64>(1)?, row.get::<_, Option<i64>>(2)?))
    })?;
    let (used_before, others, since) = row;
    Ok(PortPast { used_before, others, known_since: since.map(Timestamp::from_micros) })
}
