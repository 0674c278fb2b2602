//! From measured values to a threat score and its word.
//!
//! In: a value with its four thresholds, the base scores, the modifiers. Out: scores. Pure
//! arithmetic. Invariant: a base score is 0 or from 0.2 to 0.8; only modifiers go beyond.

use super::Defaults;

/// Values from which a base score is 0.2, 0.4, 0.6 and 0.8, with straight lines between.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds(pub [f64; 4]);

/// Seconds a pair was connected, all its connections together.
pub const LONG: Thresholds = Thresholds([3_600.0, 14_400.0, 28_800.0, 43_200.0]);
/// Distinct names below a registered domain.
pub const SUBDOMAINS: Thresholds = Thresholds([100.0, 500.0, 800.0, 1_000.0]);
/// Of a pair with a connection a second, all day.
pub const STROBE: f64 = 0.8;
/// Added where HTTP requests to an address named no host.
pub const HOSTLESS: f64 = 0.1;
/// Added where something of another type came than was asked for.
pub const OTHER_TYPE: f64 = 0.15;
/// Added to a domain with very many names that only those who asked for them went to.
pub const INDIRECT: f64 = 0.15;
/// Of a destination that a list of bad things names.
pub const LISTED: f64 = 0.8;
/// Added to it where so many bytes went there and back.
pub const LISTED_MUCH: f64 = 0.15;
/// Bytes that are much.
pub const LISTED_BYTES: u64 = 25_000_000;
/// Added where a destination is new in a rolling set of logs, taken off where it is old.
const FIRST_SEEN: f64 = 0.15;
/// Days up to which it is new, and from which it is old.
const FIRST_SEEN_DAYS: [i64; 2] = [7, 30];
/// Part of the hosts of one's own up to which a destination is rare.
const RARE: f64 = 0.02;
/// Part of them from which it is common.
const COMMON: f64 = 0.5;

/// The base score of a value.
#[must_use]
pub fn bucket(value: f64, thresholds: Thresholds) -> f64 {
    let [base, low, medium, high] = thresholds.0;
    let between = |from: f64, to: f64, value: f64| 0.2 * (value - from) / (to - from);
    match value {
        v if v.is_nan() || v < base => 0.0,
        v if v < low => 0.2 + between(base, low, v),
        v if v < medium => 0.4 + between(low, medium, v),
        v => 0.6 + between(medium, high, v.min(high)),
    }
}

/// What the share of own hosts that went there adds or takes off.
#[must_use]
pub fn prevalence(share: f64, defaults: Defaults) -> f64 {
    match share {
        s if s <= RARE => defaults.prevalence(),
        s if s >= COMMON => -defaults.prevalence(),
        _ => 0.0,
    }
}

/// What the time since a destination was first seen adds or takes off.
#[must_use]
pub const fn first_seen(seconds: i64) -> f64 {
    const DAY: i64 = 86_400;
    match seconds {
        s if s <= FIRST_SEEN_DAYS[0] * DAY => FIRST_SEEN,
        s if s >= FIRST_SEEN_DAYS[1] * DAY => -FIRST_SEEN,
        _ => 0.0,
    }
}

/// The highest base score and all modifiers.
#[must_use]
pub fn fuse(base: &[f64], modifiers: &[f64]) -> f64 {
    base.iter().copied().fold(0.0, f64::max) + modifiers.iter().sum::<f64>()
}

/// The word for a final score.
#[must_use]
pub fn severity(score: f64) -> &'static str {
    match score {
        s if s > 0.8 => "critical",
        s if s >= 0.6 => "high",
        s if s >= 0.4 => "medium",
        s if s >= 0.2 => "low",
        _ => "none",
    }
}
