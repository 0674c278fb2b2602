//! The service: watch, ring, forwarder.
//!
//! In: a checked [`Config`]. Out: nothing until a signal ends it. Threads: this one waits for
//! signals, one watches, one sends. A watch that cannot be opened is tried again after a while; events
//! wait in the ring for a hub that is away.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use agentmon_core::Event;
use agentmon_core::event::{Body, Gap};
use agentmon_core::time::{Clock, SystemClock};
use agentmon_core::wire;
use agentmon_router::collect::Stop;
use agentmon_router::counters::Counters;
use agentmon_router::forward::{self, Forwarder};
use agentmon_router::logging;
use agentmon_router::ring::Ring;
use agentmon_router::wake::Wake;

use crate::config::Config;
use crate::{os, platform};

/// How long to wait before a watch that failed is opened again.
const AGAIN: Duration = Duration::from_secs(5);
/// Longest wait for news: a wish to stop is noticed within it.
const NAP: Duration = Duration::from_millis(250);
/// How often to look whether a thread has ended by itself.
const LOOK_EVERY: Duration = Duration::from_secs(5);

type States = Arc<Mutex<Vec<(String, String)>>>;

/// Runs until it is asked to stop: SIGTERM or SIGINT, on Windows the service's end or Ctrl-C.
///
/// # Errors
/// What cannot be opened, or a part that ended by itself.
pub fn run(config: Config) -> anyhow::Result<()> {
    let config = config.resolved();
    // Before the first thread, so that all inherit it.
    os::prepare()?;
    logging::init(&config.log)?;
    os::private_dir(&config.state_dir)
        .map_err(|e| anyhow::anyhow!("{}: {e}", config.state_dir.display()))?;
    // Others' work comes first.
    if let Err(error) = os::yield_to_others() {
        tracing::debug!("lower priority: {error}");
    }
    if let Err(error) = os::drop_privileges() {
        tracing::warn!("privileges are kept: {error}");
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let counters = Counters::default();
    let ring = Arc::new(Ring::open_or_wait(&config.ring, &counters, Arc::clone(&clock))?);
    let (wake, stop, states) = (Arc::new(Wake::default()), Stop::default(), States::default());
    let said = Arc::clone(&states);
    let parts = forward::Parts {
        ring: Arc::clone(&ring),
        wake: Arc::clone(&wake),
        stop: stop.clone(),
        clock: Arc::clone(&clock),
        counters: counters.clone(),
        collectors: Arc::new(move || said.lock().unwrap_or_else(PoisonError::into_inner).clone()),
    };
    let mut forwarder = Forwarder::new(parts, forward::Shared::new(config.forward.clone()));
    let sender = std::thread::Builder::new().name("forward".into()).spawn(move || {
        os::drop_all_privileges();
        forwarder.run()
    })?;
    let (ended, bell) = (stop.clone(), Arc::clone(&wake));
    let watcher = std::thread::Builder::new().name("watch".into()).spawn(move || {
        let mut opened = false;
        while !ended.is_set() {
            let parts = (&config, &clock, &counters);
            if let Err(error) = watch(parts, &ring, &bell, &ended, &states, &mut opened) {
                if opened && cfg!(target_os = "linux") {
                    tracing::error!("watch: {error:#}; ending, to be started afresh");
                    return;
                }
                tracing::error!("watch: {error:#}; again in {} s", AGAIN.as_secs());
                *states.lock().unwrap_or_else(PoisonError::into_inner) =
                    vec![("watch".into(), format!("{error:#}"))];
                let _stopping = ended.sleep(AGAIN);
            }
        }
    })?;
    os::drop_all_privileges();
    tracing::info!("agentmon-host {} runs", env!("CARGO_PKG_VERSION"));
    let broken = loop {
        if os::wait_stop(LOOK_EVERY)? {
            break false;
        }
        if watcher.is_finished() || sender.is_finished() {
            break true;
        }
    };
    stop.stop();
    let watched = watcher.join();
    wake.ring();
    let sent = sender.join();
    anyhow::ensure!(
        !broken && watched.is_ok() && sent.is_ok(),
        "a part has ended by itself; see the log"
    );
    Ok(())
}

/// `opened`: set as soon as everything is open, and privileges are gone.
fn watch(
    (config, clock, counters): (&Config, &Arc<dyn Clock>, &Counters),
    ring: &Ring,
    wake: &Wake,
    stop: &Stop,
    states: &States,
    opened: &mut bool,
) -> anyhow::Result<()> {
    let mut watch = platform::open(&config.collect, Arc::clone(clock))?;
    *opened = true;
    for (name, line) in &watch.coverage().lines {
        match line.as_str() {
            "ok" => tracing::info!("{name}: ok"),
            missing => tracing::warn!("{name}: {missing}"),
        }
    }
    if let Err(error) = os::keep_for_watching() {
        tracing::warn!("privileges are kept: {error}");
    }
    watch.coverage().lines.clone_into(&mut states.lock().unwrap_or_else(PoisonError::into_inner));
    let accepted = counters.counter("host.events");
    let mut told = std::collections::BTreeMap::new();
    // What happened before this moment nobody saw; the hub must not take it for a way around.
    let now = clock.wall();
    let gap = Gap { collector: "watch".into(), from: now, reason: "restart".into(), lost: None };
    let mut events = vec![Event { time: now, body: Body::Gap(gap) }];
    while !stop.is_set() {
        let pause = watch.step(&mut events)?;
        if !events.is_empty() {
            let encoded: Vec<Vec<u8>> = events.drain(..).map(|e| wire::encode_event(&e)).collect();
            accepted.add(encoded.len() as u64);
            if let Err(error) = ring.append(&encoded, &[]) {
                counters.counter("drop.ring.append").add(encoded.len() as u64);
                tracing::debug!("ring: {error}");
            }
            wake.ring();
        }
        for (name, value) in watch.lost() {
            let before = told.insert(*name, *value).unwrap_or(0);
            counters.counter(name).add(value.saturating_sub(before));
        }
        watch.wait(pause.min(NAP))?;
    }
    Ok(())
}
