//! What a running router tells about itself: the parts' states put together for whoever
//! asks, over ubus or the status socket.
//!
//! Any thread. Looking at the kernel takes some milliseconds and is done at most once in
//! [`KERNEL_EVERY`]; everything else is copied out of memory.

use std::sync::Arc;
use std::time::Duration;

use agentmon_core::Name;
use agentmon_core::finding::{Finding, Severity};
use agentmon_core::time::{Mono, Timestamp};

use super::{Core, collectors, lock};
use crate::collect::Delivery;
use crate::config::Config;
use crate::enforce::Gate;
use crate::kernel::{Check, probe};
use crate::model::{AlertFilter, Model};
use crate::status::api::{Source, VERDICT_PATIENCE};
use crate::status::{CollectorStatus, Report, Resources, Status};

/// How often to look at the kernel's switches.
const KERNEL_EVERY: Duration = Duration::from_secs(60);
/// Devices in "who talks most".
const TALKERS: usize = 10;

/// What was seen of the kernel, and when.
#[derive(Debug, Default)]
pub(super) struct Looked {
    at: Option<(Mono, Timestamp)>,
    checks: Vec<Check>,
}

/// When the configuration in force was read, and why a later one was refused.
pub(super) type Loaded = (Mono, Option<String>);

impl Source for Core {
    fn model(&self) -> &Model {
        &self.model
    }

    fn now(&self) -> (Timestamp, Mono) {
        (self.clock.wall(), self.clock.mono())
    }

    fn status(&self) -> Status {
        let now = self.clock.mono();
        let collectors = lock(&self.collectors);
        let row = |c: &collectors::Running| CollectorStatus {
            name: c.name.clone(),
            state: c.state.get(),
            events: c.tally.events(),
            last_event_ms: c.tally.age_ms(now),
        };
        let collectors = collectors.iter().map(row).collect();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: now.since(self.started).as_secs(),
            collectors,
            ring: self.ring.status(),
            forward: self.forward.status(now),
            tier0: self.tier0_status(),
            snapshot: self.snapshots.status(),
            lacks: self.lacks(),
            hub_lists: self.hub_lists.status(),
            ubus: self.ubus.state.get(),
            model: self.model.sizes(),
            counters: self.counters.snapshot(),
        }
    }

    fn report(&self) -> Report {
        let (wall, now) = self.now();
        let config = Arc::clone(&lock(&self.in_force));
        let ago = |then: Mono| wall.minus(now.since(then));
        let open = AlertFilter { open: true, ..AlertFilter::default() };
        let high = AlertFilter { severity: Some(Severity::High), ..open.clone() };
        let (kernel_checked, kernel) = self.look_at_kernel(&config, wall, now);
        let (loaded, refused) = lock(&self.loaded).clone();
        let status = self.status();
        Report {
            off: collectors::off(&status.collectors),
            now: wall,
            started: ago(self.started),
            loaded: ago(loaded),
            refused,
            forwards: config.forward.enabled,
            ring_path: config.ring.path.clone(),
            per_second: self.model.per_second(),
            talkers: self.model.talkers(TALKERS, now),
            alerts_open: self.model.alerts(0, &open).1 as u64,
            alerts_high: self.model.alerts(0, &high).1 as u64,
            kernel,
            kernel_checked,
            resources: Resources::own(),
            status,
        }
    }

    fn verdict(&self, name: &Name) -> Option<Vec<Finding>> {
        let answer = self.pipeline.verdict(name.clone());
        // Nothing may come for a second: an empty delivery makes the pipeline look at once.
        if let Some(outbox) = lock(&self.outbox).as_ref() {
            drop(outbox.try_send(Delivery::default()));
        }
        answer.recv_timeout(VERDICT_PATIENCE).ok()
    }

    fn gate(&self) -> Option<&Gate> {
        Some(&self.gate)
    }

    fn ask_reload(&self) -> bool {
        let hook = lock(&self.reload);
        hook.as_ref().map(|hook| hook()).is_some()
    }
}

impl Core {
    /// What the kernel lacks for the collectors that are on; nothing when none needs it.
    fn look_at_kernel(
        &self,
        config: &Config,
        wall: Timestamp,
        now: Mono,
    ) -> (Option<Timestamp>, Vec<Check>) {
        let collect = &config.collect;
        if !(collect.conntrack.enabled || collect.firewall.enabled || collect.passive_dns.enabled) {
            return (None, Vec::new());
        }
        let mut looked = lock(&self.kernel);
        if looked.at.is_none_or(|(at, _)| now.since(at) >= KERNEL_EVERY) {
            looked.checks = probe::probe_tracking();
            looked.at = Some((now, wall));
        }
        (looked.at.map(|(_, wall)| wall), looked.checks.clone())
    }
}
