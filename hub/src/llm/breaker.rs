//! Leaves an endpoint alone that does not answer, and asks it again carefully.
//!
//! In: how exchanges ended, monotonic time. Out: whether to ask now. Pure.

use std::time::Duration;

use agentmon_core::time::Mono;

/// So many failures in a row before it is left alone.
const PATIENCE: u32 = 3;
/// First pause; doubled by each further failure.
const PAUSE_FIRST: Duration = Duration::from_secs(30);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(900);

/// One endpoint.
#[derive(Clone, Debug, Default)]
pub(super) struct Breaker {
    failures: u32,
    until: Option<Mono>,
}

impl Breaker {
    /// How long to leave it alone yet; `None`: it may be asked.
    pub(super) fn pause(&self, now: Mono) -> Option<Duration> {
        self.until.map(|until| until.since(now)).filter(|left| !left.is_zero())
    }

    /// It answered, well or badly.
    pub(super) fn answered(&mut self) {
        *self = Self::default();
    }

    /// It did not; it may have asked for patience.
    pub(super) fn failed(&mut self, now: Mono, asked: Option<Duration>) {
        self.failures = self.failures.saturating_add(1);
        let pause = match self.failures.checked_sub(PATIENCE) {
            None => Duration::from_secs(1),
            Some(more) => {
                let factor = 1_u32.checked_shl(more).unwrap_or(u32::MAX);
                PAUSE_FIRST.saturating_mul(factor).min(PAUSE_MAX)
            }
        };
        self.until = Some(now.plus(pause.max(asked.unwrap_or_default())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_failures_then_pauses_that_grow() {
        let (mut breaker, now) = (Breaker::default(), Mono::from_nanos(0));
        assert_eq!(breaker.pause(now), None);
        let mut pauses = Vec::new();
        for _ in 0..9 {
            breaker.failed(now, None);
            pauses.push(breaker.pause(now).unwrap_or_default().as_secs());
        }
        assert_eq!(pauses, [1, 1, 30, 60, 120, 240, 480, 900, 900]);
        assert_eq!(breaker.pause(now.plus(PAUSE_MAX)), None);
        breaker.answered();
        assert_eq!(breaker.pause(now), None);
        breaker.failed(now, Some(Duration::from_secs(7)));
        assert_eq!(breaker.pause(now), Some(Duration::from_secs(7)));
    }
}
