//! Starts, reloads and stops the router's threads: the library's front door.
//!
//! In: a checked [`Config`]. Out: a [`RouterHandle`] to ask, reload and stop. The binary
//! adds signals; the hub's single-machine mode calls the same. Threads: one per collector,
//! pipeline, forwarder, ubus, status socket.
//!
//! Order of stopping: collectors, then the bus, then the pipeline (which commits what they delivered),
//! then the forwarder (which sends for a moment more), then the status socket; each with a
//! bound, so that stopping ends within about 15 s whatever hangs.
//!
//! Reload is one step: everything that can fail (reading, checking, loading lists) happens
//! before anything is changed; then the changed parts are swapped.

#[cfg(test)]
mod bad_input_tests;
mod collectors;
mod source;
#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use agentmon_core::tier0::blocklist::Blocklist;
use agentmon_core::time::{Clock, Mono, SystemClock};
use anyhow::Context as _;

use crate::collect::neighbours::Neighbours;
use crate::collect::{Outbox, Stop};
use crate::config::Config;
use crate::counters::Counters;
use crate::enforce::Gate;
use crate::forward::{self, Forwarder};
use crate::lists;
use crate::model::Model;
use crate::pipeline::{self, Pipeline};
use crate::ring::snapshot::Snapshots;
use crate::ring::{self, Ring};
use crate::status::api::Source;
use crate::status::{self, Lack, Server, Status};
use crate::ubus;
use crate::wake::Wake;
use collectors::Running;
use source::{Loaded, Looked};

/// How long the pipeline may take to commit what is left.
const PIPELINE_PATIENCE: Duration = Duration::from_secs(5);
/// How long the forwarder may take to end a request.
const FORWARD_PATIENCE: Duration = Duration::from_secs(5);
/// How long a copy that is being written may take.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(5);
/// How long the fetcher of lists may take to end a request; it holds nothing others need.
const LISTS_PATIENCE: Duration = Duration::from_secs(1);
/// How long the bus's thread may take to end a call.
const BUS_PATIENCE: Duration = Duration::from_secs(3);
/// Stack of each thread: TLS and SQLite need about 100 KiB.
const STACK_BYTES: usize = 512 * 1024;

/// What the parts share.
pub(crate) struct Core {
    clock: Arc<dyn Clock>,
    counters: Counters,
    ring: Arc<Ring>,
    wake: Arc<Wake>,
    pipeline: Arc<pipeline::Shared>,
    forward: Arc<forward::Shared>,
    started: Mono,
    /// `None` once the router is stopping.
    outbox: Mutex<Option<Outbox>>,
    /// Held through a whole reload.
    config: Mutex<Config>,
    /// The same, for those who only look and must not wait for a reload.
    in_force: Mutex<Arc<Config>>,
    collectors: Arc<Mutex<Vec<Running>>>,
    /// Whose address it is: kept by one collector, read by others.
    neighbours: Neighbours,
    /// The block lists, for the part that enforces them.
    gate: Gate,
    /// Copies of the ring on flash.
    snapshots: Arc<Snapshots>,
    /// Why lists could not be read at the start.
    lists_missing: Mutex<Vec<String>>,
    /// Never changes while running.
    state_dir: PathBuf,
    /// What is known about the network right now.
    model: Arc<Model>,
    /// OpenWrt's message bus.
    ubus: Arc<ubus::Shared>,
    kernel: Mutex<Looked>,
    loaded: Mutex<Loaded>,
    /// Reads the configuration again, where somebody does.
    reload: Mutex<Option<Hook>>,
    /// Long lists are being compiled; until then nothing is listed.
    compiling: AtomicBool,
    /// The lists of files and those of the hub, and the way to the latter.
    lists: Mutex<Sets>,
    hub_lists: Arc<lists::hub::Shared>,
}

/// Where names and addresses are listed.
#[derive(Default)]
struct Sets {
    files: Blocklist,
    hub: Blocklist,
}

impl Sets {
    /// All of them, with what the settings themselves say.
    fn all(&self, config: &Config) -> Blocklist {
        config.tier0.blocklist.own().and(self.files.clone()).and(self.hub.clone())
    }
}

/// Something to be done later.
type Hook = Box<dyn Fn() + Send>;

/// A running router.
pub struct RouterHandle {
    core: Arc<Core>,
    pipeline: Thread,
    forwarder: Thread,
    snapshots: Thread,
    hub_lists: Thread,
    bus: Thread,
    server: Server,
}

struct Thread {
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for RouterHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RouterHandle").finish_non_exhaustive()
    }
}

/// Starts a router with the system's clocks.
///
/// # Errors
/// What cannot be opened or bound: the ring, the lists, the status socket.
pub fn start(config: Config) -> anyhow::Result<RouterHandle> {
    start_with(config, Arc::new(SystemClock))
}

/// Starts a router with the given clocks.
///
/// # Errors
/// As [`start`].
pub fn start_with(config: Config, clock: Arc<dyn Clock>) -> anyhow::Result<RouterHandle> {
    config.validate()?;
    let config = config.resolved();
    create_private_dir(&config.state_dir)?;
    let at_start = lists::at_start(&config.tier0, &config.state_dir);
    let later = at_start.later;
    let hub = config.hub_lists.enabled.then(|| lists::hub::kept(&config.state_dir)).flatten();
    let sets = Sets { files: at_start.lists, hub: hub.unwrap_or_default() };
    let lists = sets.all(&config);
    let neighbours = Neighbours::default();
    let gate = Gate::new(neighbours.clone());
    gate.set(lists.clone(), &config.tier0);
    if let Err(error) = gate.load(&config.state_dir, clock.wall()) {
        tracing::error!("exceptions of enforce cannot be read, none is in force: {error:#}");
    }
    let counters = Counters::default();
    restore(&config.ring);
    let ring = Arc::new(Ring::open_or_wait(&config.ring, &counters, Arc::clone(&clock))?);
    let snapshots =
        Arc::new(Snapshots::new(Arc::clone(&ring), &config.ring, &counters, Arc::clone(&clock)));
    let (outbox, inbox) = Outbox::channel();
    let core = Arc::new(Core {
        started: clock.mono(),
        clock,
        counters: counters.clone(),
        ring,
        wake: Arc::default(),
        pipeline: Arc::default(),
        forward: forward::Shared::new(config.forward.clone()),
        outbox: Mutex::new(Some(outbox)),
        config: Mutex::new(config.clone()),
        in_force: Mutex::new(Arc::new(config.clone())),
        collectors: Arc::default(),
        neighbours,
        gate,
        snapshots,
        state_dir: config.state_dir.clone(),
        model: Arc::new(Model::new(&counters)),
        ubus: Arc::new(ubus::Shared::new(config.ubus.clone())),
        kernel: Mutex::default(),
        loaded: Mutex::default(),
        reload: Mutex::default(),
        lists_missing: Mutex::new(without(&at_start.missing)),
        compiling: AtomicBool::new(later),
        lists: Mutex::new(sets),
        hub_lists: Arc::default(),
    });
    lock(&core.loaded).0 = core.started;
    let source: Arc<dyn Source> = Arc::<Core>::clone(&core);
    let server = Server::start(&config.status, Arc::clone(&source), Arc::clone(&core.pipeline))?;
    let parts = pipeline::Parts {
        inbox,
        ring: Arc::clone(&core.ring),
        wake: Arc::clone(&core.wake),
        stop: Stop::default(),
        clock: Arc::clone(&core.clock),
        counters: core.counters.clone(),
        model: Arc::clone(&core.model),
    };
    core.pipeline.look_ups(look_ups(&config));
    core.pipeline.devices(config.devices.clone());
    let pipeline = start_pipeline(&core, parts, &config, lists)?;
    let forwarder = start_forwarder(&core)?;
    let snapshots = start_snapshots(&core)?;
    let hub_lists = start_hub_lists(&core, &config)?;
    let bus = start_bus(&core, source)?;
    let handle = RouterHandle { core, pipeline, forwarder, snapshots, hub_lists, bus, server };
    handle.core.run_collectors(&config)?;
    if later {
        let core = Arc::clone(&handle.core);
        spawn("lists", move || core.late_lists())?;
    }
    Ok(handle)
}

/// Lists that had to be left out, as lines for the status.
fn without(missing: &[anyhow::Error]) -> Vec<String> {
    for missing in missing {
        tracing::error!("{missing:#}; going on without it");
    }
    let line = |why: &anyhow::Error| match why.downcast_ref::<lists::NotTaken>() {
        Some(_) => format!("{why:#}"),
        None => format!("off: {why:#}"),
    };
    missing.iter().map(line).collect()
}

/// What the fetcher of the hub's lists goes by.
fn hub_settings(config: &Config) -> lists::hub::Settings {
    lists::hub::Settings {
        config: config.hub_lists.clone(),
        identity: config.forward.identity.clone(),
        shrink_percent: config.tier0.blocklist.shrink_percent,
    }
}

fn start_hub_lists(core: &Arc<Core>, config: &Config) -> anyhow::Result<Thread> {
    let stop = Stop::default();
    core.hub_lists.reconfigure(hub_settings(config));
    let weak = Arc::downgrade(core);
    let put = move |lists: Blocklist| {
        if let Some(core) = weak.upgrade() {
            core.take_hub_lists(lists);
        }
    };
    let mut fetcher = lists::hub::Fetcher::new(
        Arc::clone(&core.hub_lists),
        &core.state_dir,
        stop.clone(),
        &core.counters,
        lock(&core.lists).hub.clone(),
        core.ring.status().epoch,
        Box::new(put),
    );
    let panics = core.counters.counter("lists.panics");
    let ended = stop.clone();
    let thread = spawn("hub-lists", move || {
        while catch_unwind(AssertUnwindSafe(|| fetcher.run())).is_err() {
            panics.inc();
            if ended.sleep(Duration::from_secs(1)) {
                return;
            }
        }
    })?;
    Ok(Thread { stop, thread: Some(thread) })
}

/// A ring of what a power cut left on flash; without it, the watch goes on.
fn restore(config: &ring::Config) {
    match ring::snapshot::restore(config) {
        Ok(None) => {}
        Ok(Some(events)) => tracing::info!(
            "{events} events restored from {}; the hub knows those it has",
            config.snapshot_path.display()
        ),
        Err(error) => tracing::error!("{error}; the ring begins empty"),
    }
}

fn start_snapshots(core: &Arc<Core>) -> anyhow::Result<Thread> {
    let stop = Stop::default();
    let (snapshots, end) = (Arc::clone(&core.snapshots), stop.clone());
    let thread = spawn("snapshots", move || snapshots.run(&end))?;
    Ok(Thread { stop, thread: Some(thread) })
}

fn start_pipeline(
    core: &Arc<Core>,
    parts: pipeline::Parts,
    config: &Config,
    lists: Blocklist,
) -> anyhow::Result<Thread> {
    let stop = parts.stop.clone();
    let panics = core.counters.counter("pipeline.panics");
    let ended = stop.clone();
    let mut pipeline = Pipeline::new(parts, Arc::clone(&core.pipeline), &config.tier0, lists);
    let thread = spawn("pipeline", move || {
        // A detector that trips over one event must not end the watch over all others.
        while catch_unwind(AssertUnwindSafe(|| pipeline.run())).is_err() {
            panics.inc();
            if ended.sleep(Duration::from_secs(1)) {
                return;
            }
        }
    })?;
    Ok(Thread { stop, thread: Some(thread) })
}

fn look_ups(config: &Config) -> pipeline::LookUps {
    let collect = &config.collect;
    pipeline::LookUps {
        log_is_read: collect.dnsmasq_log.enabled
            || collect.adguard.enabled
            || collect.pihole.enabled
            || collect.syslog.enabled,
        resolvers: collect.passive_dns.resolvers.clone(),
        own: crate::own_addresses::read().into_iter().collect(),
    }
}

fn start_forwarder(core: &Arc<Core>) -> anyhow::Result<Thread> {
    let stop = Stop::default();
    let collectors = Arc::clone(&core.collectors);
    let parts = forward::Parts {
        ring: Arc::clone(&core.ring),
        wake: Arc::clone(&core.wake),
        stop: stop.clone(),
        clock: Arc::clone(&core.clock),
        counters: core.counters.clone(),
        collectors: Arc::new(move || {
            lock(&collectors).iter().map(|c| (c.name.clone(), c.state.get())).collect()
        }),
    };
    let panics = core.counters.counter("forward.panics");
    let ended = stop.clone();
    let mut forwarder = Forwarder::new(parts, Arc::clone(&core.forward));
    let thread = spawn("forward", move || {
        while catch_unwind(AssertUnwindSafe(|| forwarder.run())).is_err() {
            panics.inc();
            if ended.sleep(Duration::from_secs(1)) {
                return;
            }
        }
    })?;
    Ok(Thread { stop, thread: Some(thread) })
}

fn start_bus(core: &Arc<Core>, source: Arc<dyn Source>) -> anyhow::Result<Thread> {
    let stop = Stop::default();
    let parts = ubus::Parts {
        source,
        shared: Arc::clone(&core.ubus),
        stop: stop.clone(),
        clock: Arc::clone(&core.clock),
        counters: core.counters.clone(),
    };
    let panics = core.counters.counter("ubus.panics");
    let thread = spawn("ubus", move || {
        // What somebody asks over the bus must not end the bus for all others.
        while catch_unwind(AssertUnwindSafe(|| ubus::run(&parts))).is_err() {
            panics.inc();
            if parts.stop.sleep(Duration::from_secs(1)) {
                return;
            }
        }
    })?;
    Ok(Thread { stop, thread: Some(thread) })
}

impl RouterHandle {
    /// Everything a person or the hub may want to know, now.
    #[must_use]
    pub fn status(&self) -> Status {
        self.core.status()
    }

    /// The program's counters.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.core.counters
    }

    /// Swaps in another configuration, as a whole or not at all.
    ///
    /// # Errors
    /// What is wrong with it; the old one stays in force.
    pub fn reload(&self, config: Config) -> anyhow::Result<()> {
        let result = self.core.reload(config);
        match &result {
            Ok(()) => {
                *lock(&self.core.loaded) = (self.core.clock.mono(), None);
            }
            Err(error) => self.refused(error),
        }
        result
    }

    /// Says on the status page why a new configuration is not in force.
    pub fn refused(&self, error: &anyhow::Error) {
        lock(&self.core.loaded).1 = Some(format!("{error:#}"));
    }

    /// What to do when somebody asks over ubus or the status socket for the configuration to
    /// be read again. Must return at once.
    pub fn on_reload(&self, hook: impl Fn() + Send + 'static) {
        *lock(&self.core.reload) = Some(Box::new(hook));
    }

    /// A part that should run has ended by itself: the process should end and be restarted.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        [&self.pipeline, &self.forwarder]
            .iter()
            .any(|part| part.thread.as_ref().is_none_or(JoinHandle::is_finished))
    }

    /// Stops everything in order and commits what was seen; see the file's head.
    pub fn stop(mut self) {
        self.stop_all();
    }

    fn stop_all(&mut self) {
        if self.pipeline.thread.is_none() {
            return;
        }
        self.core.stop_collectors();
        self.bus.stop.stop();
        self.core.ubus.poke();
        self.bus.end(BUS_PATIENCE, "ubus");
        self.hub_lists.stop.stop();
        self.core.hub_lists.wake();
        self.pipeline.end(PIPELINE_PATIENCE, "pipeline");
        self.forwarder.stop.stop();
        self.core.wake.ring();
        self.forwarder.end(FORWARD_PATIENCE, "forwarder");
        self.snapshots.stop.stop();
        self.core.snapshots.wake();
        self.snapshots.end(SNAPSHOT_PATIENCE, "snapshots");
        self.hub_lists.end(LISTS_PATIENCE, "hub-lists");
        // What is left now is all there is.
        self.core.snapshots.take();
        self.server.stop();
    }
}

impl Drop for RouterHandle {
    fn drop(&mut self) {
        self.stop_all();
    }
}

impl Thread {
    fn end(&mut self, patience: Duration, name: &str) {
        self.stop.stop();
        if let Some(thread) = self.thread.take()
            && !join_within(thread, patience)
        {
            tracing::warn!("{name}: still busy after {} s; left behind", patience.as_secs());
        }
    }
}

impl Core {
    fn outbox(&self) -> Outbox {
        // Collectors are only started while the router runs; afterwards a closed one will do.
        lock(&self.outbox).clone().unwrap_or_else(|| Outbox::channel().0)
    }

    fn tier0_status(&self) -> pipeline::Tier0Status {
        let mut tier0 = self.pipeline.status();
        let compiling = u64::from(self.compiling.load(Ordering::Relaxed));
        tier0.insert("tier0.blocklist.compiling", compiling);
        tier0
    }

    /// What is off although it is switched on, and why.
    fn lacks(&self) -> Vec<Lack> {
        let list = |why: &String| Lack {
            what: "block list".into(),
            detail: why.clone(),
            mend: "see to the file, then reload".into(),
        };
        let mut lacks: Vec<Lack> = lock(&self.lists_missing).iter().map(list).collect();
        let hub = self.hub_lists.status();
        lacks.extend(hub.refused.then(|| Lack {
            what: "lists of the hub".into(),
            detail: hub.state,
            mend: "see to the lists at the hub (agentmon feeds)".into(),
        }));
        lacks.extend(status::noted(&self.state_dir));
        lacks.extend(self.ring.status().off.map(|why| Lack {
            what: "ring".into(),
            detail: format!("off, what is seen is lost for the hub: {why}"),
            mend: "free some space, or choose another ring.path".into(),
        }));
        let copy = self.snapshots.status().filter(|copy| copy.state.starts_with("off"));
        lacks.extend(copy.map(|copy| Lack {
            what: "copy of the ring on flash".into(),
            detail: copy.state,
            mend: "free some space, or choose another ring.snapshot_path".into(),
        }));
        lacks
    }

    fn reload(self: &Arc<Self>, config: Config) -> anyhow::Result<()> {
        config.validate()?;
        let config = config.resolved();
        let mut current = lock(&self.config);
        for (key, changed) in [
            ("state_dir", config.state_dir != current.state_dir),
            ("ring.path", config.ring.path != current.ring.path),
            ("status", config.status != current.status),
        ] {
            anyhow::ensure!(!changed, "`{key}` cannot change while running; restart instead");
        }
        // A list that is new must be there; one whose disk has gone since must not keep
        // everything else from being changed.
        let known = &current.tier0.blocklist.lists;
        let added = config.tier0.blocklist.lists.iter().filter(|list| !known.contains(list));
        added.into_iter().try_for_each(lists::require)?;
        let (readable, missing) = lists::readable(&config.tier0);
        let loaded = lists::load(&readable, &config.state_dir)?;
        let missing: Vec<_> = missing.into_iter().chain(loaded.refused).collect();
        if config.ring.bytes_max != current.ring.bytes_max {
            self.ring.resize(config.ring.bytes_max)?;
        }
        // From here on nothing fails that would leave half a configuration in force.
        *lock(&self.lists_missing) = without(&missing);
        let mut sets = lock(&self.lists);
        sets.files = loaded.lists;
        self.put_in_force(&sets, &config);
        *lock(&self.in_force) = Arc::new(config.clone());
        drop(sets);
        self.hub_lists.reconfigure(hub_settings(&config));
        self.snapshots.reconfigure(&config.ring);
        self.pipeline.look_ups(look_ups(&config));
        self.pipeline.devices(config.devices.clone());
        self.forward.reconfigure(config.forward.clone());
        self.ubus.reconfigure(config.ubus.clone());
        self.wake.ring();
        if let Err(error) = self.run_collectors(&config) {
            tracing::error!("a collector cannot be started: {error:#}");
        }
        *current = config;
        Ok(())
    }

    /// Whoever holds the sets says what is in force.
    fn put_in_force(&self, sets: &Sets, config: &Config) {
        let lists = sets.all(config);
        self.gate.set(lists.clone(), &config.tier0);
        self.pipeline.reconfigure(config.tier0.clone(), lists);
    }

    /// New lists of the hub; a reload that is going on puts them in force itself.
    fn take_hub_lists(&self, lists: Blocklist) {
        let mut sets = lock(&self.lists);
        sets.hub = lists;
        let config = Arc::clone(&lock(&self.in_force));
        self.put_in_force(&sets, &config);
    }

    /// Compiles lists that are too long to wait for; a reload waits meanwhile.
    fn late_lists(&self) {
        crate::sys::yield_to_others();
        let config = lock(&self.config);
        let loaded = lists::load_readable(&config.tier0, &config.state_dir);
        let mut sets = lock(&self.lists);
        sets.files = loaded.lists;
        self.put_in_force(&sets, &config);
        *lock(&self.lists_missing) = without(&loaded.refused);
        self.compiling.store(false, Ordering::Relaxed);
    }

    /// Makes the running collectors those of the configuration; unchanged ones run on.
    fn run_collectors(self: &Arc<Self>, config: &Config) -> anyhow::Result<()> {
        let mut running = lock(&self.collectors);
        let wanted = collectors::wanted(config, &self.neighbours, &self.gate);
        let (keep, mut end): (Vec<_>, Vec<_>) =
            running.drain(..).partition(|r: &Running| wanted.iter().any(|w| r.is(w)));
        end.iter().for_each(Running::ask_to_stop);
        end.iter_mut().for_each(Running::wait);
        *running = keep;
        for wanted in wanted {
            if !running.iter().any(|r| r.is(&wanted)) {
                running.push(collectors::start(wanted, self)?);
            }
        }
        Ok(())
    }

    fn stop_collectors(&self) {
        let mut running = std::mem::take(&mut *lock(&self.collectors));
        running.iter().for_each(Running::ask_to_stop);
        running.iter_mut().for_each(Running::wait);
        *lock(&self.outbox) = None;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A named thread with a small stack.
pub(crate) fn spawn(
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> anyhow::Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .stack_size(STACK_BYTES)
        .spawn(work)
        .with_context(|| format!("cannot start the thread `{name}`"))
}

/// Waits for a thread to end; false when it does not in time.
pub(crate) fn join_within(thread: JoinHandle<()>, patience: Duration) -> bool {
    let step = Duration::from_millis(10);
    let mut waited = Duration::ZERO;
    while !thread.is_finished() {
        if waited >= patience {
            return false;
        }
        std::thread::sleep(step);
        waited += step;
    }
    if thread.join().is_err() {
        tracing::error!("a thread ended by a panic");
    }
    true
}

/// The state directory holds secrets and says who talked to whom.
fn create_private_dir(path: &std::path::Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(path)
        .with_context(|| format!("state_dir: {}", path.display()))
}
