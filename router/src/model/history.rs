//! Events a second over the last five minutes. Pure; [`STEPS`] numbers.

use std::collections::VecDeque;
use std::time::Duration;

use agentmon_core::time::Mono;

/// Steps kept.
pub const STEPS: usize = 60;
/// Length of a step.
pub const STEP: Duration = Duration::from_secs(5);

/// The last steps, and the one that is being counted.
#[derive(Debug, Default)]
pub(super) struct History {
    /// Events in each finished step, newest last; empty before the first tick.
    steps: VecDeque<u64>,
    begun: Option<Mono>,
    /// Events before the current step.
    base: u64,
}

impl History {
    /// `total` events up to `now`. Called about once a second; time in which nobody called
    /// (a suspended machine) shows as silence.
    pub(super) fn tick(&mut self, now: Mono, total: u64) {
        let Some(begun) = self.begun else {
            (self.begun, self.base) = (Some(now), total);
            return;
        };
        let passed = now.since(begun).as_nanos() / STEP.as_nanos();
        let passed = usize::try_from(passed).unwrap_or(usize::MAX);
        if passed == 0 {
            return;
        }
        for silent in 0..passed.min(STEPS) {
            let events = if silent == 0 { total.saturating_sub(self.base) } else { 0 };
            if self.steps.len() >= STEPS {
                self.steps.pop_front();
            }
            self.steps.push_back(events);
        }
        self.base = total;
        let steps = u32::try_from(passed).unwrap_or(u32::MAX);
        self.begun = Some(begun.plus(STEP.saturating_mul(steps)));
    }

    /// Mean events a second of each step, newest last; [`STEPS`] numbers, zero for the time
    /// before the start.
    pub(super) fn per_second(&self) -> Vec<f64> {
        let before = STEPS.saturating_sub(self.steps.len());
        let steps = self.steps.iter().map(|n| *n as f64 / STEP.as_secs_f64());
        std::iter::repeat_n(0.0, before).chain(steps).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Mono {
        Mono::from_nanos(ms * 1_000_000)
    }

    #[track_caller]
    fn check(ticks: &[(u64, u64)], expected_last: &[f64]) {
        let mut history = History::default();
        ticks.iter().for_each(|(ms, total)| history.tick(at(*ms), *total));
        let shown = history.per_second();
        assert_eq!(shown.len(), STEPS);
        assert!(shown.ends_with(expected_last), "{shown:?}");
        let before = &shown[..STEPS - expected_last.len()];
        assert!(before.iter().all(|n| *n == 0.0), "{shown:?}");
    }

    #[test]
    fn each_step_is_a_mean() {
        check(&[], &[]);
        check(&[(1_000, 7)], &[]);
        check(&[(1_000, 7), (5_999, 12)], &[]);
        check(&[(1_000, 7), (6_000, 12)], &[1.0]);
        check(&[(1_000, 0), (6_000, 5), (11_000, 15), (16_000, 15)], &[1.0, 2.0, 0.0]);
        // Late ticks do not stretch the steps.
        check(&[(1_000, 0), (6_900, 5), (11_100, 15)], &[1.0, 2.0]);
        // A machine that slept.
        check(&[(1_000, 0), (6_000, 5), (26_000, 10)], &[1.0, 1.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn it_keeps_the_newest() {
        let mut history = History::default();
        (0..200).for_each(|i| history.tick(at(i * 5_000), i * i));
        assert_eq!(history.per_second().last(), Some(&((199.0 * 199.0 - 198.0 * 198.0) / 5.0)));
        history.tick(at(100_000_000), 0);
        assert!(history.per_second().iter().all(|n| *n == 0.0));
        assert_eq!(history.per_second().len(), STEPS);
    }
}
