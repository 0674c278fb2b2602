//! `long` and `strobe`: connections that never end, and such that never cease to begin.
//!
//! In: for each device and place what the last day held, open connections with their live
//! counters included. Out: a finding for a connection of more than `long_seconds`, or for one
//! that is made anew again and again and so lasts the day; and for more than
//! `strobe_connections` connections.
//!
//! Notifications and message queues stay open on purpose, and most things at home keep some
//! connection to their maker: ports meant for that are left out, and what is known, named or
//! common is weighed down until it is not told. [`rita`] is the published base score by total
//! duration (sums over closed and open connections, RITA 5: 1, 4, 8, 12 hours).
//! ATT&CK T1571, T1572, T1219.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use agentmon_core::Timestamp;
use agentmon_core::finding::Finding;
use agentmon_core::service::{Service, proto};
use agentmon_core::tier0::ports::{self, Use};
use duckdb::{Connection, params};

use super::past::{Past, past};
use super::place::{self, Ground, Place, TALKS, Who};
use super::weigh::Weighed;
use super::{Config, DAY_S, FINDINGS_MAX, LEARNING, LEARNING_MOST, SCORE_MIN};
use crate::destinations::Class;
use crate::store::StoreError;

/// As in findings.
pub(crate) const LONG: &str = "long";
/// As in findings.
pub(crate) const STROBE: &str = "strobe";
/// Of a day, in connections that follow each other.
const ALL_DAY_S: u64 = 20 * 3_600;
/// Most rows read.
const ROWS_MAX: usize = 2_000_000;

/// What a device had with a place and port within the day.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Stay {
    pub(crate) connections: u64,
    pub(crate) longest_s: u64,
    /// Sum over connections.
    pub(crate) total_s: u64,
    pub(crate) open: u64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// Hours with a connection.
    pub(crate) hours: u64,
    pub(crate) dst: Option<IpAddr>,
    pub(crate) client: Option<IpAddr>,
    newest: i64,
}

/// A place at a port.
pub(crate) type At = (Who, Place, Service);

impl Stay {
    /// Two addresses of one place.
    pub(crate) fn add(&mut self, other: &Self) {
        self.connections += other.connections;
        self.longest_s = self.longest_s.max(other.longest_s);
        self.total_s = self.total_s.saturating_add(other.total_s);
        self.open += other.open;
        self.sent = self.sent.saturating_add(other.sent);
        self.received = self.received.saturating_add(other.received);
        self.hours = self.hours.max(other.hours);
        if self.dst.is_none() || other.newest > self.newest {
            (self.newest, self.dst, self.client) = (other.newest, other.dst, other.client);
        }
    }

    /// Lasts, by numbers alone.
    pub(crate) fn lasts(&self, config: &Config) -> bool {
        let renewed = self.connections >= 3 && self.total_s >= ALL_DAY_S && self.hours >= 20;
        self.longest_s >= config.long_seconds || renewed
    }
}

/// RITA's base score by the sum of durations.
pub(crate) fn rita(total_s: u64) -> f64 {
    let v = total_s as f64;
    let step = |from: f64, to: f64, base: f64| base + 0.2 * (v.min(to) - from) / (to - from);
    match total_s {
        0..3_600 => 0.0,
        3_600..14_400 => step(3_600.0, 14_400.0, 0.2),
        14_400..28_800 => step(14_400.0, 28_800.0, 0.4),
        _ => step(28_800.0, 43_200.0, 0.6),
    }
}

/// What the port says of a connection that stays.
fn is_meant_to(service: Service) -> bool {
    matches!(ports::known(service), Some(Use::Push | Use::Vpn))
}

/// How grave a lasting connection is.
pub(crate) fn weigh_long(stay: &Stay, past: &Past, class: Class, named: bool) -> Option<Weighed> {
    let longest = stay.longest_s.max(stay.total_s.min(DAY_S));
    let fetches = stay.received > 1_000_000_000 && stay.received / 50 > stay.sent;
    let weighed = Weighed::new(0.2)
        .when(longest >= 43_200, 0.05, "half a day or more")
        .when(!named, 0.2, "an address without a name")
        .when(past.is_new(7), 0.15, "a place new for this device")
        .when(class.hides(), 0.1, class.phrase())
        .when(matches!(class, Class::Hosting | Class::Residential), 0.1, class.phrase())
        .when(stay.sent > 4 * stay.received.max(250_000), 0.1, "it mostly sends")
        .when(fetches, -0.2, "but it fetches, as films and updates do")
        .when(past.is_old(), -0.15, "but a place it has known for weeks")
        .when(past.is_common(), -0.2, "but half of the devices go there")
        .at_most(LEARNING_MOST, past.is_learning(), LEARNING);
    (weighed.score() >= SCORE_MIN).then_some(weighed)
}

/// How grave a strobe is.
pub(crate) fn weigh_strobe(past: &Past, class: Class, named: bool) -> Option<Weighed> {
    let weighed = Weighed::new(0.5)
        .when(!named, 0.1, "an address without a name")
        .when(past.is_new(7), 0.1, "a place new for this device")
        .when(matches!(class, Class::Hosting | Class::Residential), 0.05, class.phrase())
        .when(past.is_old(), -0.15, "but a place it has known for weeks")
        .when(past.is_common(), -0.2, "but half of the devices go there");
    (weighed.score() >= SCORE_MIN).then_some(weighed)
}

/// What the day up to `now` held, by device, place and port.
pub(crate) fn read(
    db: &Connection,
    ground: &Ground,
    now: Timestamp,
    span: Duration,
) -> Result<HashMap<At, Stay>, StoreError> {
    // Only what may matter: the sum is cut to the span, so that an old connection that ends
    // today does not bring its weeks along.
    let sql = format!(
        "WITH {TALKS}, cut AS (
             SELECT *, least(coalesce(duration_ms, 0), (epoch_us(time) - $1) // 1000)::UBIGINT AS part
             FROM talks)
         SELECT mac, arg_max(src, time), name, dst, dport, proto, count(*),
             (max(coalesce(duration_ms, 0)) // 1000)::UBIGINT, (sum(part) // 1000)::UBIGINT,
             count(*) FILTER (open), coalesce(sum(bytes_out), 0)::UBIGINT,
             coalesce(sum(bytes_in), 0)::UBIGINT, count(DISTINCT date_trunc('hour', time)),
             epoch_us(max(time))
         FROM cut
         GROUP BY mac, CASE WHEN mac IS NULL THEN src END, name, dst, dport, proto
         HAVING max(coalesce(duration_ms, 0)) >= 600000 OR sum(part) >= 3600000 OR count(*) >= 500
         LIMIT {ROWS_MAX}"
    );
    let mut statement = db.prepare(&sql)?;
    let mut rows = statement.query(params![now.minus(span).micros(), now.micros()])?;
    let mut all = HashMap::<At, Stay>::new();
    while let Some(row) = rows.next()? {
        let (mac, src): (Option<String>, String) = (row.get(0)?, row.get(1)?);
        let (name, dst): (Option<String>, String) = (row.get(2)?, row.get(3)?);
        let Some(who) = Who::new(mac.as_deref(), &src) else { continue };
        let Some((to, dst)) = ground.leaves(&src, name.as_deref(), &dst) else { continue };
        let service = Service { port: row.get(4)?, proto: row.get(5)? };
        let stay = Stay {
            connections: row.get(6)?,
            longest_s: row.get(7)?,
            total_s: row.get(8)?,
            open: row.get(9)?,
            sent: row.get(10)?,
            received: row.get(11)?,
            hours: row.get(12)?,
            dst: Some(dst),
            client: src.parse().ok(),
            newest: row.get(13)?,
        };
        all.entry((who, to, service)).or_default().add(&stay);
    }
    Ok(all)
}

/// Findings of both rules up to `now`.
pub(crate) fn run(
    db: &Connection,
    ground: &Ground,
    config: &Config,
    now: Timestamp,
) -> Result<Vec<Finding>, StoreError> {
    let all = read(db, ground, now, Duration::from_secs(DAY_S))?;
    let transport = |s: Service| s.proto == proto::TCP || s.proto == proto::UDP;
    let asks = |s: Service| matches!(s.port, 53 | 123 | 853);
    let lasting = |(at, stay): &(&At, &Stay)| {
        transport(at.2) && stay.lasts(config) && !is_meant_to(at.2) && !asks(at.2)
    };
    let strobes = |(at, stay): &(&At, &Stay)| {
        transport(at.2) && stay.connections >= config.strobe_connections && !asks(at.2)
    };
    let mut findings = Vec::new();
    for (rule, which) in [(LONG, &lasting as &dyn Fn(&(&At, &Stay)) -> bool), (STROBE, &strobes)] {
        let mut found: Vec<_> = all.iter().filter(which).collect();
        found.sort_by_key(|((who, to, service), stay)| {
            let length = std::cmp::Reverse((stay.longest_s, stay.connections));
            (length, *who, to.clone(), service.port, service.proto)
        });
        for (at, stay) in found.into_iter().take(FINDINGS_MAX) {
            findings.extend(judge(db, ground, config, rule, at, stay, now)?);
        }
    }
    Ok(findings)
}

fn judge(
    db: &Connection,
    ground: &Ground,
    config: &Config,
    rule: &str,
    (who, to, service): &At,
    stay: &Stay,
    now: Timestamp,
) -> Result<Option<Finding>, StoreError> {
    let Some(dst) = stay.dst else { return Ok(None) };
    let learning = Duration::from_secs(u64::from(config.learning_days) * DAY_S);
    let past = past(db, (*who, to), now, learning)?;
    let of = ground.of(dst);
    let weighed = if rule == LONG {
        weigh_long(stay, &past, of.class, to.has_name())
    } else {
        weigh_strobe(&past, of.class, to.has_name())
    };
    let Some(weighed) = weighed else { return Ok(None) };
    let subject = format!("{}:{service}", to.text());
    let client = stay.client.unwrap_or(dst);
    let finding = place::finding(rule, *who, client, subject, weighed.score());
    let what = if rule == STROBE {
        format!(
            "made {} connections to {} port {service} within a day",
            stay.connections,
            to.text()
        )
    } else if stay.longest_s >= config.long_seconds {
        let open = if stay.open > 0 { "has been open" } else { "was open" };
        let lasted = place::seconds(stay.longest_s);
        format!("a connection to {} port {service} {open} for {lasted}", to.text())
    } else {
        format!(
            "{} connections to {} port {service}, one after the other, last all day",
            stay.connections,
            to.text()
        )
    };
    let finding = place::with_network(finding, &of)
        .with("longest_s", stay.longest_s)
        .with("total_s", stay.total_s)
        .with("connections", stay.connections)
        .with("open", stay.open)
        .with("sent_bytes", stay.sent)
        .with("received_bytes", stay.received)
        .with("rita_score", format!("{:.3}", rita(stay.total_s)))
        .with("devices_there", past.devices)
        .with(
            "benign_if",
            "a program you know keeps it open: remote access, a message queue, a tunnel of yours",
        );
    Ok(Some(Finding { why: weighed.why(&what), ..finding }))
}
