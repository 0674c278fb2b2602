//! The forwarder's settings and state, as other threads see them.
//!
//! In: settings from the supervisor. Out: the state line for `status`. Each lock is held
//! for a copy.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use agentmon_core::time::Mono;
use agentmon_core::wire;
use serde::{Deserialize, Serialize};

/// Settings of the forwarder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether events are sent to a hub. Without one the ring keeps the newest.
    pub enabled: bool,
    /// What `agentmon-router join` wrote. Empty: `identity.json` in the state directory.
    pub identity: PathBuf,
    /// Most events in one batch.
    pub batch_events: usize,
    /// Most bytes of a batch before compression.
    pub batch_bytes: usize,
    /// An idle sensor reports its health this often, in seconds.
    pub health_seconds: u64,
}

impl Default for Config {
    fn default() -> Self {
        // 5,000 flow records are about 450 KB: one request a second carries a home, and a
        // backlog goes at 100,000 events a second on a LAN.
        Self {
            enabled: true,
            identity: PathBuf::new(),
            batch_events: 5_000,
            batch_bytes: 512 * 1024,
            health_seconds: 30,
        }
    }
}

impl Config {
    /// Whether the values make sense.
    ///
    /// # Errors
    /// The key below `[forward]` and what is allowed.
    pub fn validate(&self) -> Result<(), (&'static str, String)> {
        let events_max = wire::BATCH_EVENTS_MAX;
        // Room for health and framing beside the events.
        let bytes_max = wire::BATCH_BYTES_MAX / 2;
        if !(1..=events_max).contains(&self.batch_events) {
            return Err(("batch_events", format!("want 1 to {events_max}")));
        }
        if !(wire::EVENT_BYTES_MAX..=bytes_max).contains(&self.batch_bytes) {
            return Err(("batch_bytes", format!("want {} to {bytes_max}", wire::EVENT_BYTES_MAX)));
        }
        if !(1..=3_600).contains(&self.health_seconds) {
            return Err(("health_seconds", "want 1 to 3600".to_owned()));
        }
        Ok(())
    }
}

/// What `status` says about the connection to the hub.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ForwardStatus {
    /// The hub's URL, once joined.
    pub url: Option<String>,
    /// The name the hub knows this sensor by.
    pub sensor: Option<String>,
    /// One line: `connected`, or what is wrong and when the next attempt is.
    pub state: String,
    /// The last attempt worked.
    pub connected: bool,
    /// Seconds since the hub last acknowledged something; `None`: never.
    pub last_ack_seconds: Option<u64>,
}

/// The forwarder as other threads see it.
#[derive(Debug)]
pub struct Shared {
    target: Mutex<Target>,
    status: Mutex<(ForwardStatus, Option<Mono>)>,
}

/// The configuration in force; a change is noticed by its number.
#[derive(Debug)]
struct Target {
    config: Config,
    generation: u64,
}

impl Shared {
    /// `config.identity` must be a full path.
    #[must_use]
    pub fn new(config: Config) -> Arc<Self> {
        let target = Mutex::new(Target { config, generation: 1 });
        Arc::new(Self { target, status: Mutex::default() })
    }

    /// Another configuration from the next request on.
    pub fn reconfigure(&self, config: Config) {
        let mut target = self.target.lock().unwrap_or_else(PoisonError::into_inner);
        if target.config != config {
            *target = Target { config, generation: target.generation + 1 };
        }
    }

    /// The state now.
    #[must_use]
    pub fn status(&self, now: Mono) -> ForwardStatus {
        let locked = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut status, acked) = locked.clone();
        status.last_ack_seconds = acked.map(|at| now.since(at).as_secs());
        status
    }

    /// The configuration, when it is not the one of that number.
    pub(super) fn newer_than(&self, generation: u64) -> Option<(Config, u64)> {
        let target = self.target.lock().unwrap_or_else(PoisonError::into_inner);
        (target.generation != generation).then(|| (target.config.clone(), target.generation))
    }

    pub(super) fn note(&self, change: impl FnOnce(&mut ForwardStatus, &mut Option<Mono>)) {
        let mut locked = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let (status, acked) = &mut *locked;
        change(status, acked);
    }
}
