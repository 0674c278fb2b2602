//! What leaks, and what hides: detectors over days of connections and questions.
//!
//! In: the views `flows` and `dns`, the tables `devices`, `sensors`, `gaps`; the kinds of
//! networks ([`crate::destinations`]). Out: findings about devices, not addresses: one whose
//! address changes mid-way is one (by its MAC, or by whose the address was at the time), and
//! about places, not addresses either: what one registrable domain stands for is one place.
//!
//! | rule | tells | silent twin |
//! |---|---|---|
//! | `exfil` | far more sent than usual, or little by little, to one place | the nightly backup, photos, calls |
//! | `exfil-dns` | data in names, over days | virus scanners' and mail look-ups, CDNs |
//! | `long` | a connection that never ends, to a place that is new or has no name | push services, VPNs, films |
//! | `strobe` | a connection every second | resolvers, time servers |
//! | `fan-out` | far more addresses than ever | browsing, file sharing that was always there |
//! | `inner-scan` | one port tried at many devices of this network | the phone that finds the TV |
//! | `lateral` | remote control between devices that never did so | the desk that logs in to the NAS every day |
//! | `destination` | a device begins to use Tor or a VPN | the one that always did |
//! | `lasting-address` | talks for hours with an address nobody resolved | NTP, calls, games |
//! | `home-peer` | a lasting connection into somebody's home | file sharing, games |
//! | `rare-port` | a port this device never used in all its history | the daily SSH |
//! | `off-hours` | busy at an hour at which it always sleeps | phones' updates at night |
//! | `sensor-silent` | a sensor that is silent, late, or loses events | one that is revoked |
//!
//! Scores are sums of named steps ([`weigh`]), so that a finding can say why. While fewer than
//! [`Config::learning_days`] of history are there nothing can be new, and no score that rests
//! on habits is more than low.
//!
//! Invariants: nothing is kept but what the tables say; at most [`FINDINGS_MAX`] findings of
//! one rule in a run, the gravest.

mod detectors;
mod dns;
pub(crate) mod exfil;
pub(crate) mod long;
mod off_hours;
mod past;
pub(crate) mod place;
mod silent;
mod spread;
mod strange;
#[cfg(test)]
mod tests;
pub(crate) mod weigh;

use serde::{Deserialize, Serialize};

pub(crate) use detectors::all;

/// Most findings of one rule in one run.
pub(crate) const FINDINGS_MAX: usize = 50;
/// A finding below this is not told at all.
pub(crate) const SCORE_MIN: f64 = 0.2;
/// Nothing that rests on habits is graver than this while they are being learnt.
pub(crate) const LEARNING_MOST: f64 = 0.35;
/// How it is said.
pub(crate) const LEARNING: &str = "habits are still being learnt";
/// A day.
pub(crate) const DAY_S: u64 = 86_400;

/// Settings of these detectors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether they run.
    pub enabled: bool,
    /// Days of history before anything can be new; until then nothing here is more than low.
    pub learning_days: u32,
    /// So many bytes sent to one place within a day are looked at (100 MB).
    pub burst_bytes: u64,
    /// So many bytes sent to one place within a week, in small parts, are looked at (5 MB).
    pub drip_bytes: u64,
    /// So many seconds in one connection are long (8 hours).
    pub long_seconds: u64,
    /// So many connections to one place within a day are a strobe: one a second.
    pub strobe_connections: u64,
    /// Domains, addresses and networks that none of these rules tells of.
    pub allow: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            learning_days: 7,
            burst_bytes: 100_000_000,
            drip_bytes: 5_000_000,
            long_seconds: 28_800,
            strobe_connections: 86_400,
            allow: Vec::new(),
        }
    }
}

impl Config {
    /// Whether the values make sense.
    ///
    /// # Errors
    /// The key and what is allowed.
    pub fn validate(&self) -> Result<(), (String, String)> {
        let within = |key: &str, n: u64, from: u64, to: u64| {
            let wrong = || Err((key.to_owned(), format!("want {from} to {to}")));
            if (from..=to).contains(&n) { Ok(()) } else { wrong() }
        };
        within("learning_days", self.learning_days.into(), 0, 365)?;
        within("burst_bytes", self.burst_bytes, 1_000_000, 1 << 50)?;
        within("drip_bytes", self.drip_bytes, 100_000, 1 << 50)?;
        within("long_seconds", self.long_seconds, 600, 30 * DAY_S)?;
        within("strobe_connections", self.strobe_connections, 1_000, 1 << 40)?;
        place::Allowed::new(&self.allow).map(|_| ()).map_err(|why| ("allow".to_owned(), why))
    }
}
