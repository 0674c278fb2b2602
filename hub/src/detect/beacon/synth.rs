//! Series of times of known truth: hearts, chance, people. For tests and for `eval beacon`.
//!
//! In: a random source, what to make, seconds. Out: whole seconds from 0 on, sorted. Pure.

use rand::Rng as _;
use rand::rngs::StdRng;

/// A heart: each beat follows the one before by the period, give or take the jitter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Beat {
    /// Seconds.
    pub period: f64,
    /// Part of the period, evenly spread to both sides.
    pub jitter: f64,
    /// Part of the beats that nobody saw.
    pub missed: f64,
}

/// A heart for so many seconds.
#[must_use]
pub fn beats(rng: &mut StdRng, beat: Beat, seconds: f64) -> Vec<i64> {
    let mut time = rng.random_range(0.0..beat.period);
    let mut times = Vec::new();
    while time < seconds {
        if rng.random::<f64>() >= beat.missed {
            times.push(time as i64);
        }
        time += beat.period * (1.0 + beat.jitter * rng.random_range(-1.0..=1.0));
    }
    times
}

/// Independent events, `mean` seconds between them (a Poisson process).
#[must_use]
pub fn chance(rng: &mut StdRng, mean: f64, seconds: f64) -> Vec<i64> {
    let mut gap = || -mean * (1.0 - rng.random::<f64>()).ln();
    let mut time = gap();
    let mut times = Vec::new();
    while time < seconds {
        times.push(time as i64);
        time += gap();
    }
    times
}

/// Somebody comes, does a few things, and goes again.
#[must_use]
pub fn sessions(rng: &mut StdRng, mean: f64, seconds: f64) -> Vec<i64> {
    let mut times = Vec::new();
    for begin in chance(rng, mean, seconds) {
        let things = 1 + chance(rng, 1.0, 8.0).len();
        let mut time = begin as f64;
        for _ in 0..things {
            times.push(time as i64);
            time += -40.0 * (1.0 - rng.random::<f64>()).ln();
        }
    }
    times.sort_unstable();
    times
}
