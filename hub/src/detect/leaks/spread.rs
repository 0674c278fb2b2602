//! `fan-out`, `inner-scan`, `lateral`: a device that turns to many, or to its neighbours.
//!
//! In: connections of the last hour, and what the device did before. Out: findings for
//!
//! - more addresses of the Internet within an hour than [`FAN_OUT_MIN`] and four times what
//!   the device's busiest hours had: a worm, a scanner, a bot. Who always shared files is used
//!   to it, and a page brings a hundred addresses at most.
//! - one port tried at [`SCAN_TARGETS`] devices of this network, or any at as many where most
//!   did not answer. What phones do to find a TV goes to a group's address, not to each device.
//! - remote control (SSH, remote desktop, file sharing, ...) from a device to another where
//!   this was never seen.
//!
//! Connections within one segment do not pass the router and are only seen where a sensor
//! stands between: another VLAN, the guests' network, a host's own agent. ATT&CK T1046, T1021,
//! T1210, T1018.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use agentmon_core::Timestamp;
use agentmon_core::finding::Finding;
use agentmon_core::service::Service;
use duckdb::{Connection, params};

use super::place::{self, Ground, TALKS, Who};
use super::weigh::Weighed;
use super::{Config, DAY_S, FINDINGS_MAX, LEARNING, LEARNING_MOST};
use crate::store::StoreError;

/// As in findings.
pub(crate) const RULES: [&str; 3] = ["fan-out", "inner-scan", "lateral"];
/// Fewer addresses in an hour are ordinary.
const FAN_OUT_MIN: u64 = 300;
/// Times the device's own busiest hours.
const FAN_OUT_TIMES: u64 = 4;
/// Devices of this network.
const SCAN_TARGETS: usize = 12;
/// What controls a machine from afar, or opens its files.
const CONTROL: &[u16] = &[
    22, 23, 135, 139, 445, 512, 513, 514, 873, 1433, 2222, 2323, 3306, 3389, 4899, 5432, 5555,
    5800, 5900, 5901, 5985, 5986, 6379, 7547, 8291, 27_017,
];
/// Most rows read.
const ROWS_MAX: usize = 2_000_000;
const HOUR: Duration = Duration::from_secs(3_600);

/// How many addresses a device turned to within an hour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reach {
    pub(crate) addresses: u64,
    pub(crate) unanswered: u64,
    /// The 95th percentile of its earlier hours, and how many hours these are.
    pub(crate) usual: u64,
    pub(crate) hours: u64,
}

/// How grave so many addresses are.
pub(crate) fn weigh_reach(reach: Reach, learning: bool) -> Option<Weighed> {
    let many = reach.addresses >= FAN_OUT_MIN
        && reach.addresses >= reach.usual.saturating_mul(FAN_OUT_TIMES);
    let silent = reach.unanswered * 2 >= reach.addresses;
    let weighed = Weighed::new(0.35)
        .when(silent, 0.25, "most of them did not answer")
        .when(reach.addresses >= 1_000, 0.1, "more than a thousand")
        .at_most(LEARNING_MOST, learning && !silent, LEARNING);
    many.then_some(weighed)
}

/// Port and protocol.
type Port = (u16, u8);

/// A scan within this network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scan {
    /// The port tried; `None`: many.
    pub(crate) port: Option<Port>,
    pub(crate) targets: usize,
    pub(crate) answered: usize,
}

/// What a device did with others of this network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Inner {
    /// Port and protocol, target, answered.
    pub(crate) tries: BTreeSet<(Port, IpAddr, bool)>,
    pub(crate) client: Option<IpAddr>,
}

impl Inner {
    /// The port tried at most devices, how many these are and how many answered; port `None`:
    /// over all ports, where most did not answer.
    pub(crate) fn scan(&self) -> Option<Scan> {
        let mut by_port = BTreeMap::<Port, (BTreeSet<IpAddr>, BTreeSet<IpAddr>)>::new();
        let (mut all, mut answered) = (BTreeSet::new(), BTreeSet::new());
        for (port, target, replied) in &self.tries {
            let (targets, good) = by_port.entry(*port).or_default();
            targets.insert(*target);
            all.insert(*target);
            if *replied {
                good.insert(*target);
                answered.insert(*target);
            }
        }
        let busiest = by_port.iter().max_by_key(|(_, (targets, _))| targets.len());
        let (port, (targets, good)) = busiest?;
        if targets.len() >= SCAN_TARGETS {
            let (targets, answered) = (targets.len(), good.len());
            return Some(Scan { port: Some(*port), targets, answered });
        }
        let silent = answered.len() * 2 <= all.len();
        let (targets, answered) = (all.len(), answered.len());
        (targets >= SCAN_TARGETS && silent).then_some(Scan { port: None, targets, answered })
    }

    /// Remote control that was answered.
    pub(crate) fn control(&self) -> impl Iterator<Item = (u16, u8, IpAddr)> {
        self.tries
            .iter()
            .filter(|((port, proto), _, replied)| *replied && *proto == 6 && CONTROL.contains(port))
            .map(|((port, proto), target, _)| (*port, *proto, *target))
    }
}

/// Findings of the three rules up to `now`.
pub(crate) fn run(
    db: &Connection,
    ground: &Ground,
    config: &Config,
    now: Timestamp,
) -> Result<Vec<Finding>, StoreError> {
    let since = db.query_row("SELECT epoch_us(min(hour)) FROM arrivals", [], |row| {
        row.get::<_, Option<i64>>(0)
    })?;
    let learning = Duration::from_secs(u64::from(config.learning_days) * DAY_S);
    let is_learning = since.is_none_or(|since| now.since(Timestamp::from_micros(since)) < learning);
    let mut findings = fan_out(db, ground, now, is_learning)?;
    for (who, inner) in inner(db, ground, now)? {
        let Some(client) = inner.client else { continue };
        if let Some(scan) = inner.scan() {
            findings.push(scanned(who, client, scan));
        } else if !is_learning {
            findings.extend(lateral(db, who, client, &inner, now)?);
        }
    }
    findings.truncate(RULES.len() * FINDINGS_MAX);
    Ok(findings)
}

fn fan_out(
    db: &Connection,
    ground: &Ground,
    now: Timestamp,
    learning: bool,
) -> Result<Vec<Finding>, StoreError> {
    // A few devices pass the first sieve; only their past is read.
    let sql = format!(
        "WITH {TALKS}, last_hour AS (
             SELECT coalesce(mac, src) AS who, any_value(mac) AS mac, arg_max(src, time) AS src,
                 count(DISTINCT dst) AS n, count(DISTINCT dst) FILTER (NOT replied) AS silent
             FROM talks GROUP BY coalesce(mac, src) HAVING n >= {FAN_OUT_MIN}),
         hours AS (
             SELECT coalesce(f.mac, o.device, f.src) AS who, count(DISTINCT f.dst) AS n
             FROM flows f LEFT JOIN address_owners o ON f.mac IS NULL AND o.address = f.src
                 AND f.time >= o.owned_since AND f.time < o.owned_until
             WHERE f.time > make_timestamp($3) AND f.time <= make_timestamp($1)
                 AND coalesce(f.mac, o.device, f.src) IN (SELECT who FROM last_hour)
             GROUP BY coalesce(f.mac, o.device, f.src), date_trunc('hour', f.time))
         SELECT l.mac, l.src, l.n, l.silent, coalesce(quantile_disc(h.n, 0.95), 0), count(h.n)
         FROM last_hour l LEFT JOIN hours h USING (who) GROUP BY l.mac, l.src, l.n, l.silent
         ORDER BY l.n DESC LIMIT {FINDINGS_MAX}"
    );
    let before = now.minus(Duration::from_secs(14 * DAY_S)).micros();
    let mut statement = db.prepare(&sql)?;
    let mut rows = statement.query(params![now.minus(HOUR).micros(), now.micros(), before])?;
    let mut findings = Vec::new();
    while let Some(row) = rows.next()? {
        let (mac, src): (Option<String>, String) = (row.get(0)?, row.get(1)?);
        let Some(who) = Who::new(mac.as_deref(), &src) else { continue };
        let Ok(client) = src.parse::<IpAddr>() else { continue };
        if !ground.is_own(client) {
            continue;
        }
        let reach = Reach {
            addresses: row.get(2)?,
            unanswered: row.get(3)?,
            usual: row.get(4)?,
            hours: row.get(5)?,
        };
        let Some(weighed) = weigh_reach(reach, learning) else { continue };
        let what = format!(
            "turned to {} addresses within an hour, its busiest hours had {}",
            reach.addresses, reach.usual
        );
        let finding = place::finding(RULES[0], who, client, "addresses".into(), weighed.score())
            .with("addresses", reach.addresses)
            .with("unanswered", reach.unanswered)
            .with("usual_of_an_hour", reach.usual)
            .with("hours_of_history", reach.hours)
            .with("benign_if", "file sharing or a scan that its owner has begun");
        findings.push(Finding { why: weighed.why(&what), ..finding });
    }
    Ok(findings)
}

/// The last hour within this network.
fn inner(
    db: &Connection,
    ground: &Ground,
    now: Timestamp,
) -> Result<BTreeMap<Who, Inner>, StoreError> {
    let sql = format!(
        "WITH {TALKS}
         SELECT mac, arg_max(src, time), dst, dport, proto, bool_or(replied)
         FROM talks WHERE proto IN (6, 17)
         GROUP BY mac, CASE WHEN mac IS NULL THEN src END, dst, dport, proto LIMIT {ROWS_MAX}"
    );
    let mut statement = db.prepare(&sql)?;
    let mut rows = statement.query(params![now.minus(HOUR).micros(), now.micros()])?;
    let mut all = BTreeMap::<Who, Inner>::new();
    while let Some(row) = rows.next()? {
        let (mac, src): (Option<String>, String) = (row.get(0)?, row.get(1)?);
        let Some(who) = Who::new(mac.as_deref(), &src) else { continue };
        let (Ok(src), Ok(dst)) = (src.parse(), row.get::<_, String>(2)?.parse::<IpAddr>()) else {
            continue;
        };
        let group = dst.is_multicast() || matches!(dst, IpAddr::V4(v4) if v4.octets()[3] == 255);
        // A resolver or a time server of the house is everybody's.
        let service = (row.get::<_, u16>(3)?, row.get::<_, u8>(4)?);
        let house = matches!(service.0, 53 | 67 | 123 | 547 | 853);
        if group || house || src == dst || !ground.is_own(src) || !ground.is_own(dst) {
            continue;
        }
        let inner = all.entry(who).or_default();
        inner.client = Some(src);
        inner.tries.insert((service, dst, row.get(5)?));
    }
    Ok(all)
}

fn scanned(who: Who, client: IpAddr, Scan { port, targets, answered }: Scan) -> Finding {
    let service = port.map(|(port, proto)| Service { port, proto });
    let what = service.map_or_else(|| "many ports".to_owned(), |s| format!("port {s}"));
    let weighed =
        Weighed::new(0.5).when(answered * 2 <= targets, 0.15, "most of them did not answer").when(
            port.is_some_and(|(port, _)| CONTROL.contains(&port)),
            0.1,
            "a port that controls machines",
        );
    let why =
        weighed.why(&format!("tried {what} at {targets} devices of this network within an hour"));
    let subject = service.map_or_else(|| "many ports".to_owned(), |s| s.to_string());
    let finding = place::finding(RULES[1], who, client, subject, weighed.score())
        .with("targets", targets)
        .with("answered", answered)
        .with("benign_if", "a program that looks for devices, run on purpose");
    Finding { why, ..finding }
}

/// Remote control never seen between these two.
fn lateral(
    db: &Connection,
    who: Who,
    client: IpAddr,
    inner: &Inner,
    now: Timestamp,
) -> Result<Option<Finding>, StoreError> {
    let sql = "SELECT
             coalesce(bool_or(coalesce(t.device, f.dst) = coalesce(
                 (SELECT mac FROM address_names WHERE ip = $5), $5)), false), count(*)
         FROM flows f
         LEFT JOIN address_owners o ON f.mac IS NULL AND o.address = f.src
             AND f.time >= o.owned_since AND f.time < o.owned_until
         LEFT JOIN address_owners t ON t.address = f.dst
             AND f.time >= t.owned_since AND f.time < t.owned_until
         WHERE f.time > make_timestamp($1) AND f.time <= make_timestamp($2) AND f.replied
             AND f.dport = $4 AND coalesce(f.mac, o.device, f.src) = $3
             AND f.dst IN (SELECT ip FROM device_addresses UNION SELECT $5)";
    let from = now.minus(Duration::from_secs(60 * DAY_S)).micros();
    let until = now.minus(HOUR).micros();
    let mut fresh = Vec::new();
    let mut ever = false;
    for (port, proto, target) in inner.control().take(64) {
        let values = params![from, until, who.text(), port, target.to_string()];
        let (known, times): (bool, u64) =
            db.query_row(sql, values, |row| Ok((row.get(0)?, row.get(1)?)))?;
        ever |= times > 0;
        if !known {
            fresh.push((Service { port, proto }, target));
        }
    }
    let Some((service, target)) = fresh.first().copied() else { return Ok(None) };
    let targets: BTreeSet<IpAddr> = fresh.iter().map(|(_, target)| *target).collect();
    let weighed = Weighed::new(0.3)
        .when(!ever, 0.1, "this device never controlled another by that port")
        .when(targets.len() >= 3, 0.25, "several devices at once");
    let what = match targets.len() {
        1 => format!("connected to {target} port {service}, for the first time"),
        n => format!(
            "connected to {n} devices of this network by ports that control machines, for the first time"
        ),
    };
    let names: Vec<String> = fresh.iter().take(8).map(|(s, t)| format!("{t}:{s}")).collect();
    let subject =
        if targets.len() == 1 { format!("{target}:{service}") } else { "several devices".into() };
    let finding = place::finding(RULES[2], who, client, subject, weighed.score())
        .with("targets", targets.len())
        .with("where", names.join(" "))
        .with("benign_if", "somebody who administers these machines");
    Ok(Some(Finding { why: weighed.why(&what), ..finding }))
}
