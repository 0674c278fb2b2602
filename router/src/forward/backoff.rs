//! How long to wait before the next attempt: exponential with full jitter, so that a
//! hundred sensors do not return to a restarted hub in the same second (Brooker,
//! "Exponential Backoff And Jitter", AWS Architecture Blog, 2015). Pure.

use std::time::Duration;

/// Longest wait after the first failure.
const FIRST: Duration = Duration::from_secs(1);
/// Longest wait after any failure.
pub const MOST: Duration = Duration::from_secs(60);
/// Shortest wait: even the luckiest draw must not hammer.
const LEAST: Duration = Duration::from_millis(200);

/// Counts failures in a row.
#[derive(Debug)]
pub struct Backoff {
    failures: u32,
    random: u64,
}

impl Backoff {
    /// `seed` should differ between sensors: the ring's epoch does.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { failures: 0, random: seed }
    }

    /// It worked: the next failure is a first one.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }

    /// Failures in a row.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// One more failure: how long to wait now.
    pub fn after_failure(&mut self) -> Duration {
        let most = FIRST.saturating_mul(1 << self.failures.min(16)).min(MOST);
        self.failures = self.failures.saturating_add(1);
        self.between(LEAST, most)
    }

    /// Around `d`, 10 % either way: for waits of fixed length.
    pub fn about(&mut self, d: Duration) -> Duration {
        self.between(d.mul_f64(0.9), d.mul_f64(1.1))
    }

    fn between(&mut self, least: Duration, most: Duration) -> Duration {
        // SplitMix64 (Steele, Lea, Flood 2014): statistics, not secrecy.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let unit = (z ^ (z >> 31)) as f64 / u64::MAX as f64;
        least + most.saturating_sub(least).mul_f64(unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_a_minute_and_starts_again() {
        let mut backoff = Backoff::new(1);
        for failures in 0..100 {
            let wait = backoff.after_failure();
            let most = Duration::from_secs(1 << failures.min(6)).min(MOST);
            assert!((LEAST..=most).contains(&wait), "{failures}: {wait:?}");
        }
        backoff.reset();
        assert!(backoff.after_failure() <= FIRST);
    }

    #[test]
    fn two_sensors_do_not_step_together() {
        let draws = |seed| {
            let mut backoff = Backoff::new(seed);
            (0..8).map(|_| backoff.after_failure()).collect::<Vec<_>>()
        };
        assert_ne!(draws(1), draws(2));
    }
}
