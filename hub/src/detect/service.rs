//! The thread `detect`: a round of detectors every `detect.round_seconds`.
//!
//! In: the running hub's store and clock, the configuration (also a new one). Out: rounds
//! ([`super::round`]), and how they went ([`super::board`]). It waits for nobody and nobody
//! waits for it: at the stop a run in work is interrupted with the store's readers.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use agentmon_core::time::Clock;
use agentmon_router::counters::Counters;
use anyhow::Context as _;
use serde_json::Value;

use super::board::Board;
use super::round::{RoundError, Rounds};
use super::{Config, registry};
use crate::store::handle::Handle;

#[derive(Debug)]
struct Wish {
    config: Config,
    new: bool,
    stop: bool,
}

#[derive(Debug)]
struct Shared {
    wish: Mutex<Wish>,
    bell: Condvar,
}

/// The running thread.
pub(crate) struct Service {
    shared: Arc<Shared>,
    board: Arc<Board>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Service {
    /// Starts it.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub(crate) fn start(
        config: Config,
        store: Handle,
        clock: Arc<dyn Clock>,
        counters: Counters,
    ) -> anyhow::Result<Self> {
        let board = Arc::new(Board::default());
        let wish = Mutex::new(Wish { config, new: true, stop: false });
        let shared = Arc::new(Shared { wish, bell: Condvar::new() });
        let rounds = Rounds::new(store, clock, counters, Arc::clone(&board));
        let inner = Arc::clone(&shared);
        let thread =
            std::thread::Builder::new().name("detect".into()).spawn(move || inner.run(rounds));
        let thread = Mutex::new(Some(thread.context("starting the thread of the detectors")?));
        Ok(Self { shared, board, thread })
    }

    /// Another configuration, from the next round on.
    pub(crate) fn reconfigure(&self, config: &Config) {
        let mut wish = self.shared.wish.lock().unwrap_or_else(PoisonError::into_inner);
        if wish.config != *config {
            (wish.config, wish.new) = (config.clone(), true);
            self.shared.bell.notify_all();
        }
    }

    /// How the rounds went.
    pub(crate) fn status(&self) -> Value {
        let mut status = self.board.json();
        let wish = self.shared.wish.lock().unwrap_or_else(PoisonError::into_inner);
        if let Value::Object(fields) = &mut status {
            fields.insert("learning".into(), wish.config.learning.into());
        }
        status
    }

    /// No round begins from now on.
    pub(crate) fn stop(&self) {
        self.shared.wish.lock().unwrap_or_else(PoisonError::into_inner).stop = true;
        self.shared.bell.notify_all();
    }

    /// Waits for the thread, once the store is closed.
    pub(crate) fn join(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A panic in it is in the log already.
        drop(thread.map(JoinHandle::join));
    }
}

impl Shared {
    fn run(&self, mut rounds: Rounds) {
        let mut config = Config { enabled: false, ..Config::default() };
        loop {
            let wish = self.wish.lock().unwrap_or_else(PoisonError::into_inner);
            let patience = Duration::from_secs(config.round_seconds);
            let idle = |wish: &mut Wish| !wish.stop && !wish.new;
            let waited = self.bell.wait_timeout_while(wish, patience, idle);
            let mut wish = waited.unwrap_or_else(PoisonError::into_inner).0;
            if wish.stop {
                return;
            }
            if std::mem::take(&mut wish.new) {
                config = wish.config.clone();
                let detectors = if config.enabled { registry(&config) } else { Vec::new() };
                rounds.set(detectors, config.run_seconds_max);
            }
            drop(wish);
            if !config.enabled {
                continue;
            }
            match rounds.turn() {
                Ok(()) => {}
                // The writer opens the file anew after an error, or is being stopped.
                Err(RoundError::Refused(_)) => return,
                Err(RoundError::Store(error)) => tracing::debug!(%error, "a round ended early"),
            }
        }
    }
}
