//! `off-hours`: a device that is busy at an hour at which it always sleeps.
//!
//! In: what each device moved in each hour of the last [`DAYS`] days. Out: a finding where the
//! last full hour was busy, while at this hour of the day, and the ones before and after, it
//! was busy on not one of the days it was there at all. What is busy is the device's own
//! measure: a tenth of what its active hours move, so that a phone's pulse at night is none.
//! Hours are of UTC: with the ones beside it a change of the clocks shifts nothing into the
//! night. Days of the week are judged apart where there are enough of them.
//!
//! Detection after a week; quiet hours count as samples, as hours are taken from the calendar
//! and not from the rows. ATT&CK T1029, T1020.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use agentmon_core::Timestamp;
use agentmon_core::finding::Finding;
use duckdb::{Connection, params};

use super::place::{self, Ground, TALKS, Who};
use super::weigh::Weighed;
use super::{DAY_S, FINDINGS_MAX};
use crate::store::StoreError;

/// As in findings.
pub(crate) const RULE: &str = "off-hours";
/// Days looked at.
pub(crate) const DAYS: i64 = 28;
/// Days on which the device must have been there.
const DAYS_MIN: usize = 7;
/// Less is never busy.
const BUSY_BYTES_MIN: u64 = 5_000_000;
const HOUR_S: i64 = 3_600;

/// Hours before the judged one, 1 the latest, with what was moved in them.
pub(crate) type Hours = BTreeMap<i64, u64>;

/// What speaks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Odd {
    /// From where on this device is busy.
    pub(crate) busy: u64,
    /// Days it was there, and was never busy at this hour.
    pub(crate) days: usize,
}

/// Judges an hour that moved `bytes`; `weekday` 0 to 6 of that hour's day.
pub(crate) fn odd(bytes: u64, weekday: i64, earlier: &Hours) -> Option<Odd> {
    let mut active: Vec<u64> = earlier.values().copied().filter(|n| *n >= 100_000).collect();
    active.sort_unstable();
    let usual = active.get(active.len() * 3 / 4).copied()?;
    let busy = (usual / 10).max(BUSY_BYTES_MIN);
    if bytes < busy {
        return None;
    }
    let there = |day: i64| earlier.range(day * 24 - 12..day * 24 + 12).any(|(_, n)| *n > 0);
    let weekend = |day: i64| matches!((weekday - day).rem_euclid(7), 5 | 6);
    let days: Vec<i64> = (1..=DAYS).filter(|day| there(*day)).collect();
    let alike: Vec<i64> = days.iter().copied().filter(|day| weekend(*day) == weekend(0)).collect();
    // Days of the same kind where there are enough; else all.
    let pool = if alike.len() >= DAYS_MIN { alike } else { days };
    let was_busy = |day: &&i64| {
        let around = **day * 24 - 1..=**day * 24 + 1;
        earlier.range(around).any(|(_, n)| *n >= busy / 2)
    };
    let never = pool.iter().find(was_busy).is_none();
    (pool.len() >= DAYS_MIN && never).then_some(Odd { busy, days: pool.len() })
}

/// What a device moved in the judged hour.
#[derive(Clone, Debug, Default)]
struct Device {
    mac: Option<String>,
    client: String,
    sent: u64,
    bytes: u64,
    earlier: Hours,
}

/// Findings about the last full hour before `now`.
pub(crate) fn run(
    db: &Connection,
    ground: &Ground,
    now: Timestamp,
) -> Result<Vec<Finding>, StoreError> {
    let begin = now.secs() - now.secs().rem_euclid(HOUR_S) - HOUR_S;
    let until = Timestamp::from_secs(begin + HOUR_S);
    let from = Timestamp::from_secs(begin).minus(Duration::from_secs(DAYS as u64 * DAY_S));
    let sql = format!(
        "WITH {TALKS}
         SELECT coalesce(mac, src), any_value(mac), arg_max(src, time),
             ({begin} - epoch_us(date_trunc('hour', time)) // 1000000) // {HOUR_S},
             coalesce(sum(bytes_out), 0)::UBIGINT,
             coalesce(sum(bytes_out), 0)::UBIGINT + coalesce(sum(bytes_in), 0)::UBIGINT
         FROM talks GROUP BY coalesce(mac, src), date_trunc('hour', time)"
    );
    let mut statement = db.prepare(&sql)?;
    let mut rows = statement.query(params![from.micros(), until.micros() - 1])?;
    let mut devices = BTreeMap::<String, Device>::new();
    while let Some(row) = rows.next()? {
        let device = devices.entry(row.get(0)?).or_default();
        let ago: i64 = row.get(3)?;
        if ago == 0 {
            (device.mac, device.client) = (row.get(1)?, row.get(2)?);
            (device.sent, device.bytes) = (row.get(4)?, row.get(5)?);
        } else {
            device.earlier.insert(ago, row.get(5)?);
        }
    }
    let weekday = (begin.div_euclid(DAY_S.cast_signed()) + 3).rem_euclid(7);
    let findings = devices.into_values().filter_map(|device| {
        let client: IpAddr = device.client.parse().ok()?;
        let who = Who::new(device.mac.as_deref(), &device.client)?;
        let odd = odd(device.bytes, weekday, &device.earlier)?;
        ground.is_own(client).then(|| told(who, client, &device, odd, begin))
    });
    Ok(findings.take(FINDINGS_MAX).collect())
}

fn told(who: Who, client: IpAddr, device: &Device, odd: Odd, begin: i64) -> Finding {
    let sends = device.sent * 2 > device.bytes && device.sent >= 20_000_000;
    let weighed = Weighed::new(0.3).when(sends, 0.15, "it mostly sends");
    let what = format!(
        "moved {} within an hour at which it was never busy on {} days",
        place::bytes(device.bytes),
        odd.days
    );
    let finding = place::finding(RULE, who, client, "activity".into(), weighed.score())
        .with("hour", Timestamp::from_secs(begin))
        .with("bytes", device.bytes)
        .with("sent_bytes", device.sent)
        .with("busy_from_bytes", odd.busy)
        .with("days_never_busy", odd.days)
        .with("benign_if", "somebody was up late, or an update ran");
    Finding { why: weighed.why(&what), ..finding }
}
