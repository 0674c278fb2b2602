//! The same scenario, less tidy: as collectors really deliver it.

use std::time::Duration;

use agentmon_core::event::{Body, Event};
use agentmon_core::time::Timestamp;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

/// Collectors deliver events at most so late, in milliseconds: the nap of the netlink
/// reader, the resolver's log buffer.
pub(super) const LATE_MS_MAX: u64 = 1_500;
/// Quiet life before a scenario, so that detectors are past what they do at the start, and
/// after it, so that those that wait decide.
const QUIET: Duration = Duration::from_secs(600);

/// A way of playing a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// As written.
    AsSeen,
    /// Each event delivered up to [`LATE_MS_MAX`] late, so that the order changes.
    Shuffled,
    /// Each event delivered twice, as after a collector's restart.
    Doubled,
    /// The wall clock was wrong by so many seconds all the time.
    Shifted(i64),
    /// The wall clock jumps by so many seconds half-way through.
    Jumped(i64),
}

/// One thing the pipeline does.
#[derive(Clone, Debug)]
pub struct Step {
    /// When it really happens, whatever the clock says.
    pub truth: Timestamp,
    /// What the clock says then.
    pub clock: Timestamp,
    /// An event delivered; none: the second's tick.
    pub event: Option<Event>,
}

impl Variant {
    /// Deliveries and ticks (one each second, from before the first event until after the
    /// last) in the order in which they happen.
    #[must_use]
    pub fn steps(self, events: &[Event], seed: u64) -> Vec<Step> {
        let mut rng = StdRng::seed_from_u64(seed);
        let copies = if self == Self::Doubled { 2 } else { 1 };
        let late = if self == Self::Shuffled { LATE_MS_MAX } else { 0 };
        let mut steps = Vec::new();
        for event in events {
            let truth = event.time.plus(Duration::from_millis(rng.random_range(0..=late)));
            let step = Step { truth, clock: truth, event: Some(event.clone()) };
            steps.extend(std::iter::repeat_n(step, copies));
        }
        let begin = events.first().map_or(Timestamp::EPOCH, |e| e.time).minus(QUIET);
        let end = events.last().map_or(Timestamp::EPOCH, |e| e.time).plus(QUIET);
        for second in 0..end.since(begin).as_secs() {
            let truth = begin.plus(Duration::from_secs(second));
            steps.push(Step { truth, clock: truth, event: None });
        }
        steps.sort_by_key(|step| step.truth);
        let half = events.get(events.len() / 2).map_or(begin, |e| e.time);
        for step in &mut steps {
            match self {
                Self::Shifted(seconds) => step.shift(seconds),
                Self::Jumped(seconds) if step.truth >= half => step.shift(seconds),
                _ => {}
            }
        }
        steps
    }
}

impl Step {
    /// Every wall time moved.
    fn shift(&mut self, seconds: i64) {
        self.clock = moved(self.clock, seconds);
        let Some(event) = &mut self.event else { return };
        event.time = moved(event.time, seconds);
        match &mut event.body {
            Body::Flow(flow) => flow.start = flow.start.map(|t| moved(t, seconds)),
            Body::Gap(gap) => gap.from = moved(gap.from, seconds),
            Body::Process(process) => process.start = process.start.map(|t| moved(t, seconds)),
            Body::Connection(c) => c.start = c.start.map(|t| moved(t, seconds)),
            Body::Dns(_) | Body::Firewall(_) | Body::Device(_) | Body::Finding(_) => {}
        }
    }
}

fn moved(time: Timestamp, seconds: i64) -> Timestamp {
    let by = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { time.minus(by) } else { time.plus(by) }
}
