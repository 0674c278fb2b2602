//! One thread per collector: starts it, restores its checkpoint, starts it again when it
//! fails.
//!
//! A collector that returns an error, or panics, is started again after 1, 2, 4 ... 60
//! seconds; a minute of health starts the count anew. After a panic it is made anew and
//! goes on from its last committed checkpoint. Its state line says what is wrong.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use agentmon_core::time::Mono;
use serde::Serialize;

use super::Core;
use crate::collect::neighbours::Neighbours;
use crate::collect::{
    Collector, Context, State, Stop, Tally, adguard, conntrack, dnsmasq_log, firewall, leases,
    neighbours, passive_dns, pihole, pihole_ftl, pihole_ssh, replay, syslog,
};
use crate::config::Config;
use crate::enforce::{self, Gate};
use crate::ratelimit;
use crate::status::CollectorStatus;

/// Longest pause between two attempts.
const PAUSE_MOST: Duration = Duration::from_secs(60);
/// A run this long starts the count of failures anew.
const HEALTHY: Duration = Duration::from_secs(60);
/// How long a collector may take to notice that it should stop.
pub(super) const STOP_PATIENCE: Duration = Duration::from_secs(3);
/// How long to wait for what a collector delivered to be committed.
const FLUSH_PATIENCE: Duration = Duration::from_secs(5);

/// A collector that should run.
pub(super) struct Wanted {
    /// Its name in status: the second of a kind is `dnsmasq-log-2`.
    pub(super) name: String,
    /// Its settings as text: a change means a restart.
    settings: String,
    make: Box<dyn Fn() -> Box<dyn Collector> + Send>,
}

#[cfg(test)]
impl Wanted {
    pub(super) fn for_test(name: &'static str, make: fn() -> Box<dyn Collector>) -> Self {
        Self { name: name.to_owned(), settings: String::new(), make: Box::new(make) }
    }
}

/// A collector that runs.
pub(super) struct Running {
    pub(super) name: String,
    settings: String,
    pub(super) state: State,
    pub(super) tally: Arc<Tally>,
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

/// The collectors that are switched on, in the order of the data path.
///
/// `who` is the neighbour table they share: one collector writes it, others look addresses
/// up in it. `gate` holds the lists that are enforced.
pub(super) fn wanted(config: &Config, who: &Neighbours, gate: &Gate) -> Vec<Wanted> {
    let (flows, names, devices) = (who.clone(), who.clone(), who.clone());
    let (gate, hold) = (gate.clone(), &config.enforce);
    let config = &config.collect;
    let ssh = &config.pihole_ssh;
    let logs = config
        .dnsmasq_log
        .each()
        .map(|one_file| one("dnsmasq-log", &one_file, one_file.enabled, dnsmasq_log::Source::new));
    let piholes =
        config.pihole.each().map(|c| one(c.shown_name(), &c, c.enabled, pihole::Source::new));
    let all = [
        one("conntrack", &config.conntrack, config.conntrack.enabled, move |c| {
            conntrack::Source::with_neighbours(c, flows.clone())
        }),
        one("firewall", &config.firewall, config.firewall.enabled, firewall::Source::new),
        one("passive-dns", &config.passive_dns, config.passive_dns.enabled, move |c| {
            passive_dns::Source::with_neighbours(c, names.clone())
        }),
        one("enforce", hold, hold.enabled, move |c| enforce::Source::new(c, gate.clone())),
        one("adguard", &config.adguard, config.adguard.enabled, adguard::Source::new),
        one("syslog", &config.syslog, config.syslog.enabled, syslog::Source::new),
        one("pihole-ftl", &config.pihole_ftl, config.pihole_ftl.enabled, pihole_ftl::Source::new),
        one("pihole-ssh", ssh, ssh.enabled && !ssh.log.is_empty(), pihole_ssh::Source::new),
        one("pihole-ssh-ftl", ssh, ssh.enabled && !ssh.database.is_empty(), |config| {
            pihole_ssh::database::Source::new(config)
        }),
        one("leases", &config.leases, config.leases.enabled, leases::Source::new),
        one("neighbours", &config.neighbours, config.neighbours.enabled, move |c| {
            neighbours::Source::with_neighbours(c, devices.clone())
        }),
        one("replay", &config.replay, config.replay.enabled, replay::Source::new),
    ];
    let mut all: Vec<Wanted> = all.into_iter().chain(piholes).chain(logs).flatten().collect();
    number(&mut all);
    all
}

/// The collectors a router may have that do not run; `replay` is for tests.
pub(super) fn off(running: &[CollectorStatus]) -> Vec<&'static str> {
    // Those that need a machine to send, or a program to write, are no lack where they are off.
    let all =
        ["conntrack", "firewall", "passive-dns", "dnsmasq-log", "pihole", "leases", "neighbours"]
            .into_iter();
    let runs = |c: &CollectorStatus, name| c.name.split(':').next() == Some(name);
    all.filter(|name| !running.iter().any(|c| runs(c, name))).collect()
}

/// Tells several of a kind apart.
fn number(all: &mut [Wanted]) {
    let mut seen = BTreeMap::<String, u32>::new();
    for wanted in all {
        let n = seen.entry(wanted.name.clone()).and_modify(|n| *n += 1).or_insert(1);
        if *n > 1 {
            wanted.name = format!("{}-{n}", wanted.name);
        }
    }
}

fn one<C, S>(
    name: impl Into<String>,
    config: &C,
    enabled: bool,
    new: impl Fn(C) -> S + Send + 'static,
) -> Option<Wanted>
where
    C: Clone + Serialize + Send + 'static,
    S: Collector + 'static,
{
    let config = config.clone();
    enabled.then(|| Wanted {
        name: name.into(),
        settings: serde_json::to_string(&config).unwrap_or_default(),
        make: Box::new(move || Box::new(new(config.clone()))),
    })
}

impl Running {
    /// Whether it already runs with these very settings.
    pub(super) fn is(&self, wanted: &Wanted) -> bool {
        self.name == wanted.name && self.settings == wanted.settings
    }

    /// Asks it to stop, without waiting.
    pub(super) fn ask_to_stop(&self) {
        self.stop.stop();
    }

    /// Waits until it has stopped; one that hangs in a system call is left behind, since it
    /// can do no more harm than hold its thread.
    pub(super) fn wait(&mut self) {
        if let Some(thread) = self.thread.take()
            && !super::join_within(thread, STOP_PATIENCE)
        {
            tracing::error!("{}: does not stop; left behind", self.name);
        }
    }
}

/// Starts a collector on its own thread.
pub(super) fn start(wanted: Wanted, core: &Arc<Core>) -> anyhow::Result<Running> {
    let Wanted { name, settings, make } = wanted;
    let state = State::default();
    state.set("starting");
    let stop = Stop::default();
    let tally = Tally::new(Arc::clone(&core.clock));
    let context = Context {
        outbox: core.outbox().counted(Arc::clone(&tally)),
        stop: stop.clone(),
        clock: Arc::clone(&core.clock),
        counters: core.counters.clone(),
        state: state.clone(),
    };
    let core = Arc::clone(core);
    let thread = super::spawn(&name, move || supervise(make.as_ref(), &context, &core))?;
    Ok(Running { name, settings, state, tally, stop, thread: Some(thread) })
}

fn supervise(make: &dyn Fn() -> Box<dyn Collector>, context: &Context, core: &Core) {
    let mut collector = restored(make, core);
    let mut failures = 0u32;
    // The last line in the log: the same problem is told once a minute.
    let mut told: Option<(String, Mono)> = None;
    while !context.stop.is_set() {
        let begun = context.clock.mono();
        let outcome = catch_unwind(AssertUnwindSafe(|| collector.run(context)));
        if context.stop.is_set() {
            return;
        }
        let problem = match outcome {
            Ok(Ok(())) => {
                // It has nothing more to read.
                return;
            }
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => {
                context.counters.counter(&format!("{}.panics", collector.name())).inc();
                collector = restored(make, core);
                "internal error (see the log)".to_owned()
            }
        };
        if context.clock.mono().since(begun) >= HEALTHY {
            failures = 0;
        }
        let pause = pause(failures);
        failures = failures.saturating_add(1);
        context.counters.counter(&format!("{}.restarts", collector.name())).inc();
        context.state.set(format!("{problem}; next attempt in {} s", pause.as_secs()));
        if told.as_ref().is_none_or(|(last, at)| {
            *last != problem || context.clock.mono().since(*at) >= ratelimit::EVERY
        }) {
            let (name, seconds) = (collector.name(), pause.as_secs());
            tracing::warn!("{name}: {problem}; next attempt in {seconds} s");
            told = Some((problem, context.clock.mono()));
        }
        if context.stop.sleep(pause) {
            return;
        }
        context.state.set("starting");
    }
}

fn pause(failures: u32) -> Duration {
    Duration::from_secs(1 << failures.min(6)).min(PAUSE_MOST)
}

/// A new collector, at the place up to which everything is committed.
fn restored(make: &dyn Fn() -> Box<dyn Collector>, core: &Core) -> Box<dyn Collector> {
    let mut collector = make();
    if let Some(key) = collector.checkpoint_key() {
        // What a predecessor delivered counts, even if it is not in the ring yet.
        core.pipeline.flush(FLUSH_PATIENCE);
        if let Some(value) = core.ring.checkpoints().get(&key) {
            collector.restore(value);
        }
    }
    collector
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute() {
        let seconds = [0, 1, 2, 5, 6, 7, 1000].map(|n| pause(n).as_secs());
        assert_eq!(seconds, [1, 2, 4, 32, 60, 60, 60]);
    }

    #[test]
    fn only_changed_settings_differ() {
        let base = Config::default();
        let mut changed = base.clone();
        changed.collect.replay.enabled = true;
        let (who, gate) = (Neighbours::default(), Gate::default());
        let names =
            |c: &Config| wanted(c, &who, &gate).into_iter().map(|w| w.name).collect::<Vec<_>>();
        assert!(!names(&base).contains(&"replay".to_owned()));
        assert!(!names(&base).contains(&"enforce".to_owned()), "watching is the default");
        assert!(names(&changed).contains(&"replay".to_owned()));
        changed.collect.dnsmasq_log.enabled = true;
        changed.collect.dnsmasq_log.paths = vec!["/var/log/a.log".into(), "/var/log/b.log".into()];
        assert!(names(&changed).ends_with(&["dnsmasq-log".to_owned(), "dnsmasq-log-2".to_owned()]));
        changed.collect.pihole.enabled = true;
        changed.collect.pihole.others = vec![Default::default()];
        let piholes = names(&changed).into_iter().filter(|name| name.starts_with("pihole"));
        assert_eq!(piholes.collect::<Vec<_>>(), ["pihole", "pihole:2"]);
        let settings = |c: &Config| wanted(c, &who, &gate).first().map(|w| w.settings.clone());
        assert_eq!(settings(&base), settings(&changed));
    }
}
