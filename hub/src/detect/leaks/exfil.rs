//! `exfil`: data that leaves: much at once, or little by little, to one place.
//!
//! In: for each device and place, what was sent and received on each of the last
//! [`DAYS`] days (a day ends `now`). Out: a finding for each place that fits one shape:
//!
//! - a burst: more than `burst_bytes` in a day, three times what came back, and four times
//!   what is usual for this device and place. A backup every night is usual after three of
//!   them; a call sends as much as it receives; photos go to where they always went.
//! - a drip (of which file sharing has many at a time): more than `drip_bytes` in a week, in parts spread over [`DRIP_HOURS`] hours, three
//!   times what came back, to a place that is new or has no name. Telemetry of years is known.
//! - a turn: where a device used to fetch, it now sends.
//!
//! Peers: Firewalla tells any 100 MB upload and a ratio above 1.5; Slips 100 MB in an hour;
//! neither knows what is usual. ATT&CK T1048, T1567, T1030.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use agentmon_core::Timestamp;
use agentmon_core::finding::Finding;
use duckdb::{Connection, params};

use super::past::{Past, past};
use super::place::{self, Ground, Place, TALKS, Who};
use super::weigh::Weighed;
use super::{Config, DAY_S, FINDINGS_MAX, LEARNING, LEARNING_MOST, SCORE_MIN};
use crate::destinations::Class;
use crate::store::StoreError;

/// As in findings.
pub(crate) const RULE: &str = "exfil";
/// Days looked at: two weeks of habit and the last one.
pub(crate) const DAYS: usize = 15;
/// Hours of the last three days in which a drip must have sent.
const DRIP_HOURS: u64 = 6;
/// Drips of a device to more addresses without a name than this are file sharing.
const SHARES_MIN: usize = 5;
/// Sent for received.
const RATIO_MIN: f64 = 3.0;
/// Times what is usual.
const USUAL_TIMES: u64 = 4;
/// Less in a day to one address is not looked at.
const DAY_BYTES_MIN: u64 = 65_536;
/// Most rows read; 80 devices make a hundredth of it.
const ROWS_MAX: usize = 2_000_000;

/// What a device and a place exchanged, day by day; the last 24 hours first.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Exchange {
    pub(crate) sent: [u64; DAYS],
    pub(crate) received: [u64; DAYS],
    /// Hours in which something was sent.
    pub(crate) hours: [u64; DAYS],
    pub(crate) connections: u64,
    /// The newest of the place's addresses and of the device's.
    pub(crate) dst: Option<IpAddr>,
    pub(crate) client: Option<IpAddr>,
    newest: i64,
}

/// The shape something has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Burst,
    Drip,
    Turn,
}

impl Exchange {
    fn add(&mut self, row: &Row) {
        let Some(day) = usize::try_from(row.day).ok().filter(|day| *day < DAYS) else { return };
        let add = |slot: Option<&mut u64>, n: u64| {
            if let Some(slot) = slot {
                *slot = slot.saturating_add(n);
            }
        };
        add(self.sent.get_mut(day), row.sent);
        add(self.received.get_mut(day), row.received);
        // Hours of several addresses of a place overlap: at least as many as the busiest had.
        if let Some(hours) = self.hours.get_mut(day) {
            *hours = row.hours.max(*hours);
        }
        self.connections += row.connections;
        if self.dst.is_none() || row.newest > self.newest {
            (self.newest, self.dst, self.client) = (row.newest, Some(row.dst), row.src);
        }
    }

    pub(crate) fn sent_within(&self, days: usize) -> u64 {
        self.sent.iter().take(days).fold(0, |all, n| all.saturating_add(*n))
    }

    pub(crate) fn received_within(&self, days: usize) -> u64 {
        self.received.iter().take(days).fold(0, |all, n| all.saturating_add(*n))
    }

    pub(crate) fn ratio(&self, days: usize) -> f64 {
        self.sent_within(days) as f64 / self.received_within(days).max(1) as f64
    }

    /// The median of earlier days on which something was sent, where there were three.
    fn usual(&self) -> Option<u64> {
        let mut days: Vec<u64> = self.sent.iter().skip(1).copied().filter(|n| *n > 0).collect();
        days.sort_unstable();
        (days.len() >= 3).then(|| days.get(days.len() / 2).copied()).flatten()
    }

    /// Which shape it has, by numbers alone.
    pub(crate) fn shape(&self, config: &Config) -> Option<Shape> {
        let today = self.sent_within(1);
        let unusual =
            |n: u64| self.usual().is_none_or(|usual| n > usual.saturating_mul(USUAL_TIMES));
        if today >= config.burst_bytes && self.ratio(1) >= RATIO_MIN && unusual(today) {
            return Some(Shape::Burst);
        }
        let (earlier_in, earlier_out) = (
            self.received_within(DAYS) - self.received_within(1),
            self.sent_within(DAYS) - self.sent_within(1),
        );
        let fetched = earlier_in >= 50_000_000 && earlier_out < earlier_in / 4;
        if fetched && today >= config.burst_bytes / 5 && self.ratio(1) >= RATIO_MIN {
            return Some(Shape::Turn);
        }
        let hours: u64 = self.hours.iter().take(3).sum();
        let drips = self.sent_within(7) >= config.drip_bytes && hours >= DRIP_HOURS;
        (drips && self.ratio(7) >= RATIO_MIN).then_some(Shape::Drip)
    }
}

/// How grave it is, and why; `None`: not worth telling.
pub(crate) fn weigh(
    shape: Shape,
    exchange: &Exchange,
    past: &Past,
    class: Class,
    named: bool,
) -> Option<Weighed> {
    // What has always dripped is telemetry.
    if shape == Shape::Drip && named && !past.is_new(7) && !past.is_learning() {
        return None;
    }
    let today = exchange.sent_within(1);
    let weighed = Weighed::new(0.4)
        .when(past.is_new(7), 0.15, "a place new for this device")
        .when(!named, 0.15, "an address without a name")
        .when(class.hides(), 0.15, "it hides where the data goes")
        .when(matches!(class, Class::Hosting | Class::Residential), 0.05, class.phrase())
        .when(shape == Shape::Burst && today >= 1_000_000_000, 0.1, "more than a gigabyte")
        .when(past.is_old(), -0.15, "but a place it has known for weeks")
        .when(past.is_common(), -0.2, "but half of the devices go there")
        .when(!past.is_common() && past.devices >= 3, -0.1, "but others go there too")
        .at_most(LEARNING_MOST, past.is_learning(), LEARNING);
    (weighed.score() >= SCORE_MIN).then_some(weighed)
}

/// One row of the answer.
struct Row {
    src: Option<IpAddr>,
    dst: IpAddr,
    day: i64,
    sent: u64,
    received: u64,
    hours: u64,
    connections: u64,
    newest: i64,
}

/// All exchanges in which something was sent, by device and place.
pub(crate) fn read(
    db: &Connection,
    ground: &Ground,
    now: Timestamp,
) -> Result<HashMap<(Who, Place), Exchange>, StoreError> {
    let sql = format!(
        "WITH {TALKS}
         SELECT mac, arg_max(src, time), name, dst,
             (($2 - epoch_us(time)) // {day_us})::BIGINT AS day,
             sum(bytes_out)::UBIGINT, sum(bytes_in)::UBIGINT,
             count(DISTINCT date_trunc('hour', time)), count(*), epoch_us(max(time))
         FROM talks WHERE bytes_out > 0
         GROUP BY mac, CASE WHEN mac IS NULL THEN src END, name, dst, day
         HAVING sum(bytes_out) >= {DAY_BYTES_MIN} LIMIT {ROWS_MAX}",
        day_us = DAY_S * 1_000_000,
    );
    let from = now.minus(Duration::from_secs(DAYS as u64 * DAY_S)).micros();
    let mut statement = db.prepare(&sql)?;
    let mut rows = statement.query(params![from, now.micros()])?;
    let mut all = HashMap::<(Who, Place), Exchange>::new();
    while let Some(row) = rows.next()? {
        let (mac, src): (Option<String>, String) = (row.get(0)?, row.get(1)?);
        let (name, dst): (Option<String>, String) = (row.get(2)?, row.get(3)?);
        let Some(who) = Who::new(mac.as_deref(), &src) else { continue };
        let Some((place, dst)) = ground.leaves(&src, name.as_deref(), &dst) else { continue };
        let row = Row {
            src: src.parse().ok(),
            dst,
            day: row.get(4)?,
            sent: row.get(5)?,
            received: row.get::<_, Option<u64>>(6)?.unwrap_or_default(),
            hours: row.get(7)?,
            connections: row.get(8)?,
            newest: row.get(9)?,
        };
        all.entry((who, place)).or_default().add(&row);
    }
    Ok(all)
}

/// Findings up to `now`.
pub(crate) fn run(
    db: &Connection,
    ground: &Ground,
    config: &Config,
    now: Timestamp,
) -> Result<Vec<Finding>, StoreError> {
    let mut candidates: Vec<_> = read(db, ground, now)?
        .into_iter()
        .filter_map(|(key, exchange)| Some((exchange.shape(config)?, key, exchange)))
        .collect();
    // Who sends a little to many addresses shares files.
    let mut shares = HashMap::<Who, usize>::new();
    let nameless = |shape: &Shape, to: &Place| *shape == Shape::Drip && !to.has_name();
    for (_, (who, _), _) in candidates.iter().filter(|(shape, (_, to), _)| nameless(shape, to)) {
        *shares.entry(*who).or_default() += 1;
    }
    let shared = |who: &Who| shares.get(who).is_some_and(|n| *n > SHARES_MIN);
    candidates.retain(|(shape, (who, to), _)| !(nameless(shape, to) && shared(who)));
    candidates.sort_by_key(|(_, key, e)| (std::cmp::Reverse(e.sent_within(7)), key.clone()));
    candidates.truncate(FINDINGS_MAX);
    let learning = Duration::from_secs(u64::from(config.learning_days) * DAY_S);
    let mut findings = Vec::new();
    for (shape, (who, to), exchange) in candidates {
        let past = past(db, (who, &to), now, learning)?;
        let Some(dst) = exchange.dst else { continue };
        let of = ground.of(dst);
        let Some(weighed) = weigh(shape, &exchange, &past, of.class, to.has_name()) else {
            continue;
        };
        let client = exchange.client.unwrap_or(dst);
        let finding = place::finding(RULE, who, client, to.text(), weighed.score());
        let finding = evidence(place::with_network(finding, &of), shape, &exchange, &past);
        let why = weighed.why(&what(shape, &exchange, &to));
        findings.push(Finding { why, ..finding });
    }
    Ok(findings)
}

fn what(shape: Shape, e: &Exchange, to: &Place) -> String {
    let (to, bytes) = (to.text(), place::bytes);
    match shape {
        Shape::Burst => match e.usual() {
            Some(usual) => format!(
                "sent {} to {to} within a day, usual are {}",
                bytes(e.sent_within(1)),
                bytes(usual)
            ),
            None => format!(
                "sent {} to {to} within a day and received {}",
                bytes(e.sent_within(1)),
                bytes(e.received_within(1))
            ),
        },
        Shape::Drip => format!(
            "sent {} to {to} little by little, in {} hours of three days",
            bytes(e.sent_within(7)),
            e.hours.iter().take(3).sum::<u64>()
        ),
        Shape::Turn => format!(
            "sent {} to {to} within a day, from where it used to fetch",
            bytes(e.sent_within(1))
        ),
    }
}

fn evidence(finding: Finding, shape: Shape, e: &Exchange, past: &Past) -> Finding {
    let days = if shape == Shape::Drip { 7 } else { 1 };
    let benign = match shape {
        Shape::Burst | Shape::Turn => {
            "a backup, an upload of photos or a video someone meant to make"
        }
        Shape::Drip => "a program you know that reports or synchronises",
    };
    let finding = finding
        .with("shape", format!("{shape:?}").to_lowercase())
        .with("sent_bytes", e.sent_within(days))
        .with("received_bytes", e.received_within(days))
        .with("ratio", format!("{:.1}", e.ratio(days)))
        .with("days", days)
        .with("hours_of_3_days", e.hours.iter().take(3).sum::<u64>())
        .with("connections", e.connections)
        .with("devices_there", past.devices)
        .with("benign_if", benign);
    let finding = match e.usual() {
        Some(usual) => finding.with("usual_bytes_a_day", usual),
        None => finding,
    };
    match past.first {
        Some(first) => finding.with("first_contact", first),
        None => finding,
    }
}
