//! Alerts on their way to people.
//!
//! ```text
//! writer's transaction: alerts + outbox -> thread of each target: look -> plan -> send -> settle
//! ```
//!
//! In: what the writer put into the outbox. Out: messages, and what became of them. One
//! thread for each target, so that one that hangs holds up no other; nothing here holds up
//! ingest.
//!
//! Invariants: every alert a target wants is told at least once, under one key; a target that
//! is down is tried again ever later, and gets together what has gathered; what is given up
//! is counted with a reason and told by `status`.

pub mod config;
mod http;
mod notice;
mod outbox;
mod plan;
mod quiet;
mod service;
mod target;
#[cfg(test)]
mod tests;

use std::sync::{Condvar, Mutex, PoisonError, RwLock};
use std::time::Duration;

use agentmon_core::Timestamp;
use agentmon_router::counters::Counters;
use duckdb::Connection;

pub use config::Config;
use config::Target;
pub use service::{Service, Status};

use crate::alert::News;
use crate::store::StoreError;

/// What a receiver made of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It has it.
    Sent,
    /// It will never take this message.
    Refused(String),
    /// Not now: it is down, busy, or something is wrong with the settings.
    Later {
        /// For people; no secret in it.
        why: String,
        /// How long it asked to wait.
        wait: Option<Duration>,
    },
}

impl Outcome {
    fn later(why: String) -> Self {
        Self::Later { why, wait: None }
    }
}

/// What the writer knows of targets, and how it wakes their threads.
#[derive(Debug, Default)]
pub struct Routes {
    targets: RwLock<Vec<Target>>,
    /// Counts what may have changed: rows, settings, the wish to stop.
    rung: Mutex<u64>,
    bell: Condvar,
}

impl Routes {
    /// Within the transaction that stores the news: rows for whoever wants them.
    ///
    /// # Errors
    /// What DuckDB says; the caller rolls back.
    pub(crate) fn enqueue(
        &self,
        connection: &Connection,
        news: &[News],
        now: Timestamp,
        counters: &Counters,
    ) -> Result<usize, StoreError> {
        if news.is_empty() {
            return Ok(0);
        }
        let targets = self.targets.read().unwrap_or_else(PoisonError::into_inner);
        outbox::enqueue(connection, news, &targets, now, counters)
    }

    /// After the commit.
    pub(crate) fn ring(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.bell.notify_all();
    }

    fn set(&self, targets: &[Target]) {
        *self.targets.write().unwrap_or_else(PoisonError::into_inner) = targets.to_vec();
        self.ring();
    }

    /// Sleeps until something may have changed since `seen`, or the time has passed.
    fn wait(&self, seen: u64, longest: Duration) -> u64 {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.bell.wait_timeout_while(rung, longest, |rung| *rung == seen);
        let (rung, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *rung
    }

    fn rung(&self) -> u64 {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
