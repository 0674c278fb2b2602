//! What of the window is unlike before: three rules over what was gathered.
//!
//! In: [`Seen`], the profiles from before the run. Out: findings, and the hours to remember as
//! odd. Reads the past of a device only when one of its hours is large.
//!
//! | rule | tells | of whom | is silent about |
//! |---|---|---|---|
//! | `new-domain` | a domain the device never asked for | devices that keep to a few domains | domains that a quarter of the devices know |
//! | `off-profile` | a place nobody resolved, or a port, it never went to | devices that keep to a few places | places explained by a name |
//! | `volume-anomaly` | an hour far above its own | all that have learnt | less than 3 (down: 4) times its busy days |

use std::collections::{BTreeMap, HashMap, HashSet};

use agentmon_core::Timestamp;
use agentmon_core::event::Mac;
use agentmon_core::finding::Finding;
use duckdb::{Connection, params};

use super::gather::{HourSeen, Item, Seen};
use super::profile::{self, Profile};
use super::volume::{self, Hour, Limits, Odd};
use super::{Config, EVERYBODY, KEPT_DAYS, Kind, Local};
use crate::store::StoreError;

const MIB: u64 = 1 << 20;
/// A device's new domains told in one window; a machine that gets new software asks for
/// several at once.
const NEW_MAX: usize = 3;
/// Known by so many of a hundred devices, a domain is nobody's secret.
const COMMON_PERCENT: usize = 25;
/// How often more than on busy days: uploads, downloads. Downloads are larger by nature: a
/// game, a system's update.
const TIMES: [f64; 2] = [3.0, 4.0];

/// An hour and its direction, to remember as odd.
pub(super) type OddHours = HashSet<(String, Timestamp, Way)>;

/// Which way bytes went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Way {
    Up,
    Down,
}

/// Judges the window.
///
/// # Errors
/// What DuckDB says.
pub(super) fn judge(
    db: &Connection,
    seen: &Seen,
    profiles: &HashMap<String, Profile>,
    config: &Config,
    local: &Local,
) -> Result<(Vec<Finding>, OddHours), StoreError> {
    let devices = profile::devices(profiles);
    let mut findings = new_domains(&seen.items, profiles, config, devices);
    findings.extend(off_profile(&seen.items, profiles, config));
    let mut odd = OddHours::new();
    for hour in seen.hours.iter().filter(|hour| hour.who != EVERYBODY) {
        if !profiles.get(&hour.who).is_some_and(|profile| profile.learnt) {
            continue;
        }
        for (way, bytes, least, times) in [
            (Way::Up, hour.up, config.up_mib, TIMES[0]),
            (Way::Down, hour.down, config.down_mib, TIMES[1]),
        ] {
            let least = least.saturating_mul(MIB);
            if bytes < least {
                continue;
            }
            let past = past(db, &hour.who, hour.hour, way, local)?;
            let days = usize::try_from(config.learning_days).unwrap_or(usize::MAX);
            let limits = Limits { z: config.volume_z, bytes: least, times, days };
            let (day, slot) = (local.day(hour.hour), local.slot(hour.hour));
            if let Some(found) = volume::odd(&past, day, slot, bytes, &limits) {
                odd.insert((hour.who.clone(), hour.hour, way));
                let top = top(db, hour, way)?;
                findings.push(volume_anomaly(hour, way, bytes, &found, top));
            }
        }
    }
    Ok((findings, odd))
}

/// One finding of each device that keeps to its domains and now asks for others.
fn new_domains(
    items: &[Item],
    profiles: &HashMap<String, Profile>,
    config: &Config,
    devices: usize,
) -> Vec<Finding> {
    let known_here: HashSet<&str> = items
        .iter()
        .filter(|i| i.key.0 == EVERYBODY && i.key.1 == Kind::Domain && i.known.is_none())
        .map(|i| i.key.2.as_str())
        .collect();
    let mut fresh: BTreeMap<&str, Vec<&Item>> = BTreeMap::new();
    for item in items {
        let (who, kind, _) = &item.key;
        let keeps = profiles.get(who).is_some_and(|p| p.keeps_to_domains(config.profile_max));
        if *kind == Kind::Domain && who != EVERYBODY && item.known.is_none() && keeps {
            fresh.entry(who).or_default().push(item);
        }
    }
    let mut findings = Vec::new();
    for (who, mut items) in fresh {
        items.sort_by_key(|item| (item.first, item.key.2.clone()));
        // The same domain on both sides of midnight is one.
        items.dedup_by(|a, b| a.key.2 == b.key.2);
        let common = |item: &Item| {
            let others = usize::try_from(item.elsewhere).unwrap_or(usize::MAX);
            others.saturating_mul(100) >= devices.saturating_mul(COMMON_PERCENT).max(1)
                && others > 1
        };
        items.retain(|item| !common(item));
        let Some(profile) = profiles.get(who) else { continue };
        for item in items.iter().take(NEW_MAX) {
            let to_all = known_here.contains(item.key.2.as_str());
            findings.push(new_domain(item, profile, to_all, devices));
        }
    }
    findings
}

fn new_domain(item: &Item, profile: &Profile, to_all: bool, devices: usize) -> Finding {
    let (who, _, domain) = &item.key;
    let others = if to_all {
        "nobody else here ever did".to_owned()
    } else {
        format!("{} of {devices} others did", item.elsewhere)
    };
    Finding {
        rule: "new-domain".into(),
        subject: domain.clone(),
        client: item.client,
        mac: who.parse::<Mac>().ok(),
        score: if to_all { 0.45 } else { 0.3 },
        why: format!(
            "a device that keeps to {} domains asked for {domain} for the first time in {} days; {others}",
            profile.domains, profile.days
        ),
        evidence: Vec::new(),
    }
    .with("first_seen", item.first)
    .with("days_known", profile.days)
    .with("domains_known", profile.domains)
    .with("new_domains_14d", profile.fresh_domains)
    .with("devices_with_it", item.elsewhere)
    .with("devices", devices)
    .with("benign_if", "its software was updated, or somebody set it up anew")
}

/// Places that no name explains, and ports, of devices that keep to a few.
fn off_profile(
    items: &[Item],
    profiles: &HashMap<String, Profile>,
    config: &Config,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for item in items {
        let (who, kind, what) = &item.key;
        let Some(profile) = profiles.get(who) else { continue };
        // A habit takes several days: until then it is told, under one alert.
        let days = item.known.map_or(0, |(days, _)| days.before(item.day));
        let habit = usize::try_from(days).is_ok_and(|days| days >= volume::ODD_DAYS);
        if who == EVERYBODY || habit || !profile.keeps_to_places(config.profile_max) {
            continue;
        }
        let finding = match (kind, &item.nameless) {
            (Kind::Place, Some((ip, port))) => {
                let why = format!(
                    "a device that keeps to {} places connected to {ip} ({what}, port {port}), where it never was, and no name led there",
                    profile.places
                );
                finding(item, what, 0.45, why).with("address", ip).with("port", port)
            }
            // Where no name led, the place is told instead.
            (Kind::Port, None) if item.known.is_none() => {
                let why = format!(
                    "a device that keeps to {} places used port {what} for the first time in {} days",
                    profile.places, profile.days
                );
                finding(item, what, 0.4, why)
            }
            _ => continue,
        };
        findings.push(finding.with("days_known", profile.days).with("days_before", days));
    }
    findings.sort_by(|a, b| (&a.subject, &a.why).cmp(&(&b.subject, &b.why)));
    findings
}

fn finding(item: &Item, subject: &str, score: f64, why: String) -> Finding {
    Finding {
        rule: "off-profile".into(),
        subject: subject.to_owned(),
        client: item.client,
        mac: item.key.0.parse::<Mac>().ok(),
        score,
        why,
        evidence: Vec::new(),
    }
    .with("first_seen", item.first)
    .with("benign_if", "its maker moved a service, or somebody set it up anew")
}

/// The device's hours before that one's day, and that day's.
fn past(
    db: &Connection,
    who: &str,
    hour: Timestamp,
    way: Way,
    local: &Local,
) -> Result<Vec<Hour>, StoreError> {
    let (column, bit) = match way {
        Way::Up => ("up", 1),
        Way::Down => ("down", 2),
    };
    let sql = format!(
        "SELECT epoch_us(hour), {column}, odd & {bit} <> 0 FROM hours
         WHERE who = ? AND hour >= make_timestamp(?) AND hour < make_timestamp(?)"
    );
    let from = hour.minus(std::time::Duration::from_secs(u64::from(KEPT_DAYS) * 86_400));
    let mut statement = db.prepare(&sql)?;
    let mut rows = statement.query(params![who, from.micros(), hour.micros()])?;
    let mut past = Vec::new();
    while let Some(row) = rows.next()? {
        let at = Timestamp::from_micros(row.get(0)?);
        let (day, slot) = (local.day(at), local.slot(at));
        past.push(Hour { day, slot, bytes: row.get(1)?, odd: row.get(2)? });
    }
    Ok(past)
}

/// Where most of an hour's bytes went.
fn top(db: &Connection, hour: &HourSeen, way: Way) -> Result<Option<String>, StoreError> {
    let column = if way == Way::Up { "bytes_out" } else { "bytes_in" };
    let sql = format!(
        "SELECT coalesce(name, dst) FROM flows
         WHERE coalesce(mac, src) = $1 AND time >= make_timestamp($2)
             AND coalesce(start, time) < make_timestamp($2) + INTERVAL 1 HOUR
         GROUP BY 1 ORDER BY sum({column}) DESC NULLS LAST LIMIT 1"
    );
    let mut statement = db.prepare(&sql)?;
    let mut rows = statement.query(params![hour.who, hour.hour.micros()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    Ok(row.get(0)?)
}

fn volume_anomaly(
    hour: &HourSeen,
    way: Way,
    bytes: u64,
    odd: &Odd,
    top: Option<String>,
) -> Finding {
    let (verb, subject, base) = match way {
        Way::Up => ("sent", "upload", 0.45),
        Way::Down => ("received", "download", 0.25),
    };
    let times = bytes as f64 / odd.busy.max(MIB) as f64;
    let top = top.unwrap_or_else(|| "several places".to_owned());
    Finding {
        rule: "volume-anomaly".into(),
        subject: subject.into(),
        client: hour.client,
        mac: hour.who.parse::<Mac>().ok(),
        score: base + (times.log2() / 20.0).clamp(0.0, 0.3),
        why: format!(
            "{verb} {} MiB within the hour from {}, most of it with {top}; its busy days' busiest hours had {} MiB",
            bytes / MIB, hour.hour, odd.busy / MIB
        ),
        evidence: Vec::new(),
    }
    .with("hour", hour.hour)
    .with("bytes", bytes)
    .with("usual_bytes", odd.median)
    .with("busy_bytes", odd.busy)
    .with("robust_z", format!("{:.1}", odd.z))
    .with("most_with", top)
    .with("benign_if", "a backup, a large upload or an update that somebody meant")
}
