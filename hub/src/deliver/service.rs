//! The threads of the targets.
//!
//! In: the configuration, the bell of [`Routes`]. Out: messages; rows settled through the
//! writer; [`Status`] for people. A thread that is to stop while it sends is left behind: it
//! ends with its message, at most `timeout_seconds` later.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use agentmon_core::Timestamp;
use agentmon_core::finding::Severity;
use agentmon_core::time::Clock;
use agentmon_router::counters::Counters;
use anyhow::{Context as _, bail};

use super::config::{Config, Target};
use super::notice::{Notice, Reason};
use super::plan::{self, Now, REFUSED_MAX, Settled, State, Step};
use super::{Outcome, Routes, outbox, target};
use crate::store::handle::Handle;

/// A thread looks by itself this often, should a ring ever be missed.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// A stopped thread is given this long.
const STOP_PATIENCE: Duration = Duration::from_secs(2);
/// Old accounts are thrown away this often.
const TIDY_EVERY: Duration = Duration::from_secs(6 * 3_600);

/// How a target is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: String,
    /// Rows that wait.
    pub waiting: u64,
    /// Alerts told since the hub started.
    pub sent: u64,
    /// Messages that failed since then.
    pub failed: u64,
    /// Alerts given up since then.
    pub given_up: u64,
    /// When a message was taken last.
    pub last_sent: Option<Timestamp>,
    /// Why the last message failed, as long as none was taken since.
    pub error: Option<String>,
}

/// What a thread works with.
struct Post {
    target: Target,
    ca_file: PathBuf,
    store: Handle,
    routes: Arc<Routes>,
    counters: Counters,
    clock: Arc<dyn Clock>,
    stop: Arc<AtomicBool>,
    status: Arc<Mutex<Status>>,
}

struct Running {
    target: Target,
    ca_file: PathBuf,
    stop: Arc<AtomicBool>,
    status: Arc<Mutex<Status>>,
    thread: JoinHandle<()>,
}

/// All targets.
pub struct Service {
    routes: Arc<Routes>,
    store: Handle,
    counters: Counters,
    clock: Arc<dyn Clock>,
    running: Mutex<Vec<Running>>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").finish_non_exhaustive()
    }
}

impl Service {
    /// Starts a thread for each target.
    ///
    /// # Errors
    /// A thread that cannot be started, a store that cannot be written.
    pub fn start(
        config: &Config,
        routes: Arc<Routes>,
        store: Handle,
        counters: Counters,
        clock: Arc<dyn Clock>,
    ) -> anyhow::Result<Self> {
        let service = Self { routes, store, counters, clock, running: Mutex::new(Vec::new()) };
        service.reconfigure(config)?;
        Ok(service)
    }

    /// Other targets, or other settings of the same.
    ///
    /// # Errors
    /// As [`Service::start`].
    pub fn reconfigure(&self, config: &Config) -> anyhow::Result<()> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let (stay, go): (Vec<_>, Vec<_>) =
            std::mem::take(&mut *running).into_iter().partition(|r| {
                r.ca_file == config.ca_file
                    && config.targets.contains(&r.target)
                    && !r.thread.is_finished()
            });
        *running = stay;
        for old in &go {
            old.stop.store(true, Ordering::SeqCst);
        }
        self.routes.set(&config.targets);
        finish(go);
        self.tidy(&config.targets)?;
        for target in &config.targets {
            if !running.iter().any(|r| r.target == *target) {
                running.push(self.post(target, &config.ca_file)?);
            }
        }
        Ok(())
    }

    fn tidy(&self, targets: &[Target]) -> anyhow::Result<()> {
        let targets = targets.to_vec();
        let gone = self.store.run(move |w| w.change(|c| outbox::tidy(c, &targets)))?;
        let gone = gone.context("tidying the outbox")?;
        self.counters.counter("drop.deliver.no_such_target").add(gone as u64);
        Ok(())
    }

    fn post(&self, target: &Target, ca_file: &Path) -> anyhow::Result<Running> {
        let kind = serde_json::to_value(target.kind).ok();
        let kind = kind.and_then(|k| k.as_str().map(str::to_owned)).unwrap_or_default();
        let status = Status { name: target.name.clone(), kind, ..Status::default() };
        let (stop, status) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(status)));
        let post = Post {
            target: target.clone(),
            ca_file: ca_file.to_owned(),
            store: self.store.clone(),
            routes: Arc::clone(&self.routes),
            counters: self.counters.clone(),
            clock: Arc::clone(&self.clock),
            stop: Arc::clone(&stop),
            status: Arc::clone(&status),
        };
        let name = format!("deliver-{}", target.name);
        let thread = std::thread::Builder::new().name(name).spawn(move || post.run());
        let thread = thread.with_context(|| format!("starting the thread of `{}`", target.name))?;
        Ok(Running { target: target.clone(), ca_file: ca_file.to_owned(), stop, status, thread })
    }

    /// How each target is.
    ///
    /// # Errors
    /// What the store says.
    pub fn status(&self) -> anyhow::Result<Vec<Status>> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let reader = self.store.readers().get()?;
        running
            .iter()
            .map(|r| {
                let mut status = r.status.lock().unwrap_or_else(PoisonError::into_inner).clone();
                status.waiting = outbox::waiting(&reader, &r.target.name)?;
                Ok(status)
            })
            .collect()
    }

    /// Sends a made-up alert, at once and past all rules.
    ///
    /// # Errors
    /// There is no such target, or why it was not taken.
    pub fn test(&self, name: &str) -> anyhow::Result<()> {
        let (target, ca_file) = {
            let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(found) = running.iter().find(|r| r.target.name == name) else {
                let names: Vec<_> = running.iter().map(|r| r.target.name.as_str()).collect();
                let known = if names.is_empty() {
                    "the configuration has none ([[deliver.targets]] in hub.toml)".to_owned()
                } else {
                    format!("there are: {}", names.join(", "))
                };
                bail!("there is no target `{name}`; {known}");
            };
            (found.target.clone(), found.ca_file.clone())
        };
        match target::send(&target, &ca_file, &[self.sample()]) {
            Outcome::Sent => Ok(()),
            Outcome::Refused(why) | Outcome::Later { why, .. } => bail!("`{name}`: {why}"),
        }
    }

    fn sample(&self) -> Notice {
        let now = self.clock.wall();
        Notice {
            // Different each time: a receiver that knows keys must not take it for an old one.
            row: -now.secs(),
            id: 0,
            reason: Reason::Test,
            severity: Severity::Medium,
            score: 0.5,
            rule: "test".to_owned(),
            subject: "test.example".to_owned(),
            device: "agentmon".to_owned(),
            client: None,
            mac: None,
            first_seen: now,
            last_seen: now,
            findings: 1,
            why: "You asked agentmon to try this target. Nothing has happened.".to_owned(),
        }
    }

    /// Ends the threads.
    pub fn stop(&self) {
        let running =
            std::mem::take(&mut *self.running.lock().unwrap_or_else(PoisonError::into_inner));
        for one in &running {
            one.stop.store(true, Ordering::SeqCst);
        }
        self.routes.ring();
        finish(running);
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Joins what ends in time.
fn finish(mut running: Vec<Running>) {
    let step = Duration::from_millis(10);
    let mut left = STOP_PATIENCE;
    while !left.is_zero() && running.iter().any(|r| !r.thread.is_finished()) {
        std::thread::sleep(step);
        left = left.saturating_sub(step);
    }
    for one in running.drain(..).filter(|r| r.thread.is_finished()) {
        if one.thread.join().is_err() {
            tracing::error!(target = %one.target.name, "its thread had panicked");
        }
    }
}

impl Post {
    fn run(&self) {
        let mut state = State::default();
        let mut tidied = self.clock.mono();
        while !self.stop.load(Ordering::SeqCst) {
            let seen = self.routes.rung();
            let wait = match self.step(&mut state) {
                Ok(wait) => wait,
                Err(error) => {
                    tracing::error!(name = %self.target.name, "deliver: {error:#}");
                    Some(LOOK_EVERY)
                }
            };
            if self.clock.mono().since(tidied) >= TIDY_EVERY {
                tidied = self.clock.mono();
                if let Err(error) = self.forget() {
                    tracing::warn!(name = %self.target.name, "deliver: old accounts: {error:#}");
                }
            }
            if let Some(wait) = wait.filter(|_| !self.stop.load(Ordering::SeqCst)) {
                self.routes.wait(seen, wait);
            }
        }
    }

    /// One look; how long to sleep, or `None`: look again at once.
    fn step(&self, state: &mut State) -> anyhow::Result<Option<Duration>> {
        let rows = outbox::look(&*self.store.readers().get()?, &self.target)?;
        let waiting: Vec<_> = rows.iter().map(|row| row.waiting).collect();
        let of = |which: &[usize]| -> Vec<Notice> {
            which.iter().filter_map(|i| rows.get(*i)).map(|row| row.notice.clone()).collect()
        };
        match plan::next(&self.target, state, &waiting, self.now()) {
            Step::Idle => Ok(Some(LOOK_EVERY)),
            Step::Wait(wait) => Ok(Some(wait)),
            Step::Settle(which, settled) => {
                self.settle(&of(&which), settled)?;
                Ok(None)
            }
            Step::Send(which) => {
                self.send(state, &of(&which))?;
                Ok(None)
            }
        }
    }

    fn forget(&self) -> anyhow::Result<()> {
        let (name, now) = (self.target.name.clone(), self.clock.wall());
        self.store.run(move |w| w.change(|c| outbox::forget(c, &name, now)))??;
        Ok(())
    }

    fn now(&self) -> Now {
        let wall = self.clock.wall();
        let local = jiff::Timestamp::from_microsecond(wall.micros())
            .map(|t| t.to_zoned_datetime(jiff::tz::TimeZone::system()));
        let minute = local.map_or(0, |t| {
            u16::from(t.hour().unsigned_abs()) * 60 + u16::from(t.minute().unsigned_abs())
        });
        Now { wall, mono: self.clock.mono(), minute }
    }

    fn send(&self, state: &mut State, notices: &[Notice]) -> anyhow::Result<()> {
        let outcome = target::send(&self.target, &self.ca_file, notices);
        let now = self.clock.mono();
        let name = self.target.name.as_str();
        match outcome {
            Outcome::Sent => {
                if state.failures > 0 {
                    tracing::info!(name, "deliver: it takes messages again");
                }
                state.succeeded(now);
                self.settle(notices, Settled::Sent)
            }
            Outcome::Refused(why) if notices.len() == 1 && state.refused + 1 >= REFUSED_MAX => {
                tracing::error!(
                    name,
                    alert = notices.first().map(|n| n.id),
                    why,
                    "deliver: given up"
                );
                self.note_failure(&why);
                state.succeeded(now);
                self.settle(notices, Settled::Refused)
            }
            Outcome::Refused(why) => {
                state.refused = if notices.len() == 1 { state.refused + 1 } else { 0 };
                state.alone = true;
                self.failed(state, notices, &why, None)
            }
            Outcome::Later { why, wait } => self.failed(state, notices, &why, wait),
        }
    }

    fn failed(
        &self,
        state: &mut State,
        notices: &[Notice],
        why: &str,
        wait: Option<Duration>,
    ) -> anyhow::Result<()> {
        let name = self.target.name.as_str();
        // The first of a series, then about every hour: waits reach a quarter of one.
        if state.failures == 0 || state.failures % 4 == 3 {
            tracing::warn!(
                name,
                why,
                failures = state.failures + 1,
                "deliver: not taken; trying again"
            );
        }
        state.failed(self.clock.mono(), wait);
        self.note_failure(why);
        let (rows, why) = (rows(notices), why.to_owned());
        self.store.run(move |w| w.change(|c| outbox::failed(c, &rows, &why)))??;
        Ok(())
    }

    fn note_failure(&self, why: &str) {
        self.counters.counter("deliver.failed").inc();
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.failed += 1;
        status.error = Some(why.to_owned());
    }

    fn settle(&self, notices: &[Notice], settled: Settled) -> anyhow::Result<()> {
        let (rows, now) = (rows(notices), self.clock.wall());
        let count = rows.len() as u64;
        self.store.run(move |w| w.change(|c| outbox::settle(c, &rows, settled, now)))??;
        let counter = match settled {
            Settled::Sent => "deliver.sent",
            Settled::Unneeded => "deliver.unneeded",
            Settled::Refused => "drop.deliver.refused",
            Settled::Expired => "drop.deliver.expired",
        };
        self.counters.counter(counter).add(count);
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        match settled {
            Settled::Sent => {
                status.sent += count;
                status.last_sent = Some(now);
                status.error = None;
            }
            Settled::Unneeded => {}
            Settled::Refused | Settled::Expired => status.given_up += count,
        }
        Ok(())
    }
}

fn rows(notices: &[Notice]) -> Vec<i64> {
    notices.iter().map(|notice| notice.row).collect()
}
