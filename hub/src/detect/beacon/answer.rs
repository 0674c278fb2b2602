//! The answer to a question for beacons: rows, as any query's.
//!
//! In: a reading connection, the end of the spans. Out: [`Reply`]s. Runs where the store is:
//! the times of a day's flows stay there.

use std::path::Path;

use agentmon_core::Timestamp;
use duckdb::Connection;
use serde_json::{Value, json};

use super::find::{Beacon, Span, find};
use crate::control::Reply;
use crate::destinations::Destinations;
use crate::store::StoreError;

/// The columns of a row.
pub const COLUMNS: [&str; 22] = [
    "src",
    "mac",
    "dst",
    "rank",
    "score",
    "period_s",
    "jitter",
    "missed",
    "beats",
    "via",
    "events",
    "bytes",
    "bytes_out",
    "bytes_in",
    "devices",
    "port",
    "network",
    "severity",
    "why",
    "time",
    "last_seen",
    "ahead",
];

/// All spans; `until_us`: their end, the newest event where there is none.
///
/// # Errors
/// What the store says.
pub fn answer(
    db: &Connection,
    data_dir: &Path,
    until_us: Option<i64>,
    score: f64,
) -> Result<Vec<Reply>, StoreError> {
    let until = match until_us {
        Some(until) => Some(until),
        None => db.query_row(
            "SELECT epoch_us(max(time)) FROM (
                 SELECT max(time) AS time FROM flows UNION ALL SELECT max(time) FROM dns)",
            [],
            |row| row.get(0),
        )?,
    };
    let mut replies = vec![Reply::Columns {
        names: COLUMNS.map(str::to_owned).to_vec(),
        types: vec!["VARCHAR".to_owned(); COLUMNS.len()],
    }];
    let beacons = match until {
        Some(until) => {
            let networks = Destinations::of_dir(data_dir);
            let until = Timestamp::from_micros(until);
            find(db, until, &[Span::Day, Span::Fortnight], &networks, score)?
        }
        None => Vec::new(),
    };
    let count = beacons.len() as u64;
    replies.extend(beacons.iter().map(|beacon| Reply::Row { values: values(beacon) }));
    replies.push(Reply::Done { count, truncated: false });
    Ok(replies)
}

/// In the order of [`COLUMNS`].
fn values(beacon: &Beacon) -> Vec<Value> {
    let rhythm = &beacon.rhythm;
    let rounded = |value: f64| json!((value * 1_000.0).round() / 1_000.0);
    let time = |seconds: i64| json!(Timestamp::from_secs(seconds).to_string());
    let mac = beacon.device.contains(':') && beacon.device.len() == 17;
    vec![
        json!(beacon.client.map_or_else(|| beacon.device.clone(), |ip| ip.to_string())),
        json!(mac.then_some(&beacon.device)),
        json!(beacon.target),
        rounded(beacon.rank.rank),
        rounded(rhythm.score),
        json!(rhythm.period.round()),
        rounded(rhythm.jitter),
        rounded(rhythm.missed),
        json!(rhythm.beats),
        json!(beacon.via.as_str()),
        json!(beacon.events),
        json!(beacon.bytes_out.saturating_add(beacon.bytes_in)),
        json!(beacon.bytes_out),
        json!(beacon.bytes_in),
        json!(beacon.devices),
        json!(beacon.port),
        json!(beacon.network),
        json!(beacon.severity().as_str()),
        json!(beacon.rank.reasons),
        time(beacon.seen.0),
        time(beacon.seen.1),
        rounded(rhythm.ahead),
    ]
}
