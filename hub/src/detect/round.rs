//! One round: every detector that is due judges what has come since it last did.
//!
//! In: the store, the clock, the detectors. Out: their findings in the store, and a board
//! that says how it went. Runs on the thread `detect` ([`super::service`]), one detector
//! after the other, each on a connection of its own; what it found and learnt goes through
//! the writer.
//!
//! Budget: a run is stopped after `run_seconds_max`; the rows it reads are DuckDB's matter,
//! within the store's threads and memory (they are the instance's: DuckDB knows none for one
//! connection), which is why never two detectors run at a time. Ingest waits for nothing but
//! the short transaction that stores a run's findings.
//!
//! Invariants: a detector that fails, panics or takes too long stops no other; it is counted
//! and tried again, ever more rarely; at most [`MOMENTS_MAX`] moments of one detector in one
//! round, the rest in the next ones.

#[cfg(test)]
use std::collections::HashMap;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use agentmon_core::Timestamp;
use agentmon_core::finding::Finding;
use agentmon_core::time::{Clock, Mono};
use agentmon_router::counters::Counters;
use agentmon_router::ratelimit::LogLimit;

use super::board::Board;
use super::plan::{self, Standing, Wish};
use super::{Learnt, Windowed};
use crate::store::StoreError;
use crate::store::found::{self, Mark, Run};
use crate::store::handle::{Handle, Refused};
use crate::store::query::Deadline;

/// Moments one detector judges in one round: a day of hours.
const MOMENTS_MAX: usize = 24;
/// A detector that fails sits out at most so many rounds.
const SKIPS_MAX: u32 = 64;

/// Why a round ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RoundError {
    /// The writer has stopped.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A detector and what only matters while this process runs.
struct Post {
    detector: Box<dyn Windowed>,
    /// Moments that did not fit into a round, and the round that is judged after the last.
    backlog: VecDeque<Timestamp>,
    backlog_round: i64,
    ran: Mono,
    failures: u32,
    skips: u32,
}

/// The detectors, round after round.
pub(crate) struct Rounds {
    posts: Vec<Post>,
    store: Handle,
    clock: Arc<dyn Clock>,
    counters: Counters,
    board: Arc<Board>,
    run_seconds_max: u64,
    lines: LogLimit,
}

impl Rounds {
    pub(crate) fn new(
        store: Handle,
        clock: Arc<dyn Clock>,
        counters: Counters,
        board: Arc<Board>,
    ) -> Self {
        let lines = LogLimit::default();
        Self { posts: Vec::new(), store, clock, counters, board, run_seconds_max: 120, lines }
    }

    /// Other detectors from now on; what they have judged is in the store.
    pub(crate) fn set(&mut self, detectors: Vec<Box<dyn Windowed>>, run_seconds_max: u64) {
        let ran = self.clock.mono();
        let post = |detector| Post {
            detector,
            backlog: VecDeque::new(),
            backlog_round: 0,
            ran,
            failures: 0,
            skips: 0,
        };
        self.posts = detectors.into_iter().map(post).collect();
        self.run_seconds_max = run_seconds_max;
        self.board.keep(&self.posts.iter().map(|post| post.detector.name()).collect::<Vec<_>>());
    }

    /// One round.
    ///
    /// # Errors
    /// The store is closed or broken; a detector's own error is none.
    pub(crate) fn turn(&mut self) -> Result<(), RoundError> {
        let began = self.clock.mono();
        let opened = self.store.run(|writer| writer.open_round())?;
        let wall = self.clock.wall();
        let marks = found::marks(&*self.store.readers().get()?)?;
        let mut found = 0;
        for at in 0..self.posts.len() {
            let Some(post) = self.posts.get_mut(at) else { continue };
            if post.skips > 0 {
                post.skips -= 1;
                continue;
            }
            let mark = marks.get(post.detector.name()).copied();
            // C6: what a sensor dates ahead of the hub's clock moves nothing forward.
            let now = match (post.detector.by_clock(), opened.newest) {
                (true, _) => Some(wall),
                (false, newest) => newest.map(|newest| newest.min(wall)),
            };
            let Some(now) = now else { continue };
            found += self.post(at, mark, now, opened.round)?;
        }
        let took = self.clock.mono().since(began);
        self.board.round(wall, took, found);
        Ok(())
    }

    /// One detector's part of a round; the findings that were news.
    fn post(
        &mut self,
        at: usize,
        mark: Option<Mark>,
        now: Timestamp,
        round: i64,
    ) -> Result<usize, RoundError> {
        self.plan(at, mark, now, round)?;
        let mut found = 0;
        for _ in 0..MOMENTS_MAX {
            let Some(post) = self.posts.get_mut(at) else { break };
            let Some(moment) = post.backlog.front().copied() else { break };
            let name = post.detector.name();
            let began = self.clock.mono();
            let outcome = self.judge(at, moment);
            let took = self.clock.mono().since(began);
            let told = match outcome {
                Ok(told) => told,
                Err(Failed::Closed(error)) => return Err(error),
                Err(Failed::Detector(error)) => {
                    self.failed(at, moment, took, &error);
                    break;
                }
            };
            found += told;
            self.counters.counter("detect.findings").add(u64::try_from(told).unwrap_or(0));
            self.board.ran(name, moment, took, told);
            if let Some(post) = self.posts.get_mut(at) {
                post.backlog.pop_front();
                (post.ran, post.failures) = (self.clock.mono(), 0);
            }
        }
        Ok(found)
    }

    /// Fills an empty backlog with the moments that are due.
    fn plan(
        &mut self,
        at: usize,
        mark: Option<Mark>,
        now: Timestamp,
        round: i64,
    ) -> Result<(), RoundError> {
        let Some(post) = self.posts.get_mut(at).filter(|post| post.backlog.is_empty()) else {
            return Ok(());
        };
        let hours = if post.detector.by_clock() {
            vec![now]
        } else {
            let judged = mark.map_or(-1, |mark| mark.round);
            found::hours_since(&*self.store.readers().get()?, judged, round)?
        };
        let wish = Wish { every: post.detector.every(), reach: post.detector.reach() };
        let idle = self.clock.mono().since(post.ran);
        let standing = Standing { judged: mark.map(|mark| mark.judged), idle };
        post.backlog = plan::moments(wish, standing, now, &hours).into();
        post.backlog_round = round;
        Ok(())
    }

    /// One run, and its outcome into the store.
    fn judge(&mut self, at: usize, moment: Timestamp) -> Result<usize, Failed> {
        let Some(post) = self.posts.get_mut(at) else { return Ok(0) };
        let reader = self.store.readers().get().map_err(Failed::of)?;
        let deadline = Deadline::start(&reader, self.run_seconds_max.saturating_mul(1_000));
        let detector = &mut post.detector;
        let run = catch_unwind(AssertUnwindSafe(|| {
            let findings = detector.run(&reader, moment)?;
            Ok::<(Vec<Finding>, Option<Learnt>), StoreError>((findings, detector.learn()))
        }));
        let passed = deadline.stop();
        drop(reader);
        let (findings, learnt) = match run {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) if passed => {
                return Err(Failed::Detector(format!(
                    "took longer than {} s",
                    self.run_seconds_max
                )));
            }
            Ok(Err(error)) => return Err(Failed::of(error)),
            Err(_) => return Err(Failed::Detector("panicked; see the log".into())),
        };
        let detector = post.detector.name();
        let round = (post.backlog.len() == 1).then_some(post.backlog_round);
        let run = Run { detector, now: moment, round, findings, learnt };
        let stored = self.store.run(move |writer| writer.found(run));
        stored.map_err(|refused| Failed::Closed(refused.into()))?.map_err(Failed::of)
    }

    /// It sits out some rounds, twice as many with each failure in a row.
    fn failed(&mut self, at: usize, moment: Timestamp, took: Duration, error: &str) {
        let Some(post) = self.posts.get_mut(at) else { return };
        let name = post.detector.name();
        post.failures = post.failures.saturating_add(1);
        post.skips = 1u32.checked_shl(post.failures - 1).unwrap_or(SKIPS_MAX).min(SKIPS_MAX) - 1;
        // Planned anew when it is its turn again.
        post.backlog.clear();
        self.counters.counter(&format!("detect.{name}.errors")).inc();
        self.board.failed(name, moment, took, error);
        if self.lines.allow(name, self.clock.mono()).is_some() {
            tracing::error!(detector = name, %moment, "a detector failed, the others go on: {error}");
        }
    }
}

enum Failed {
    /// The store is closed: the round is over.
    Closed(RoundError),
    /// This detector's own trouble.
    Detector(String),
}

impl Failed {
    fn of(error: StoreError) -> Self {
        match error {
            StoreError::Refused(_) => Self::Closed(error.into()),
            other => Self::Detector(other.to_string()),
        }
    }
}

/// For tests: the names of detectors and what their marks say.
#[cfg(test)]
pub(super) fn marks_of(store: &Handle) -> HashMap<String, Mark> {
    found::marks(&store.readers().get().unwrap()).unwrap()
}
