//! The running hub: opens, binds, serves, reloads, stops.
//!
//! In: a checked configuration and a place for data. Out: a [`Hub`] that answers sensors
//! by HTTPS and commands by its control socket. Order at the start: configuration, store
//! (whose lock makes this the only hub), certificates, port, control socket; at the stop:
//! no new requests, those in work finished, the queue written, the log folded in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use agentmon_core::time::Clock;
use agentmon_router::counters::Counters;
use agentmon_router::logging::LogHandle;
use agentmon_router::supervisor::RouterHandle;
use anyhow::{Context, bail};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::config::{Config, Place};
use crate::control::{Reply, Request};
use crate::control_server::{self, Answers};
use crate::enroll::Registry;
use crate::running::{Core, advertised, names};
use crate::store::StoreError;
use crate::store::handle::Handle;
use crate::store::writer::Writer;
use crate::{answer, deliver, detect, feeds, listener, llm, server, tls};

/// Requests in work at the stop are given this long.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// After the start there is more to do than to look at old days.
const KEEP_FIRST: Duration = Duration::from_secs(60);
/// How often old days are looked at.
const KEEP_EVERY: Duration = Duration::from_secs(600);
/// Every so many times with every byte of the files: once a day.
const KEEP_WHOLE_EVERY: u32 = 144;
/// How often names and age of the certificate are looked at.
const RENEW_EVERY: Duration = Duration::from_secs(600);

/// A running hub; stops when told to, or dropped.
pub struct Hub {
    core: Arc<Core>,
    runtime: Option<(Runtime, tokio::task::JoinHandle<()>)>,
    writer: Option<JoinHandle<Result<(), StoreError>>>,
    stop: watch::Sender<bool>,
    address: SocketAddr,
    socket: std::path::PathBuf,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Hub {
    /// Starts a hub.
    ///
    /// # Errors
    /// A bad configuration, a store that cannot be opened (another hub has it), a port
    /// that cannot be bound.
    pub fn start(
        config: Config,
        place: Place,
        clock: Arc<dyn Clock>,
        log: Option<LogHandle>,
    ) -> anyhow::Result<Self> {
        if let Err((key, allowed)) = config.validate() {
            bail!("`{key}`: {allowed}");
        }
        let file = place.config_file.as_deref().map(Config::load).transpose()?;
        let counters = Counters::default();
        let mut writer =
            Writer::open(&place.data_dir, &config.limits(), counters.clone(), Arc::clone(&clock))?;
        let data_dir = writer.data_dir().to_owned();
        let ca = tls::Ca::load_or_make(&place.data_dir)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .thread_name("hub")
            .worker_threads(2)
            .enable_all()
            .build()
            .context("starting the async runtime")?;
        let (tcp, control, socket) = {
            let _inside = runtime.enter();
            let tcp = runtime
                .block_on(tokio::net::TcpListener::bind(config.server.listen))
                .with_context(|| format!("server.listen: binding {}", config.server.listen))?;
            let (control, socket) = control_server::bind(&place.data_dir)?;
            (tcp, control, socket)
        };
        let address = tcp.local_addr().context("server.listen")?;
        let registry = Arc::new(Registry::default());
        let url = advertised(&config, address);
        let extra = writer.change(|c| -> Result<_, StoreError> {
            answer::set_fact(c, "url", &url)?;
            registry.reload(c)?;
            answer::extra_names(c)
        })?;
        let served = tls::Served::new(ca, names(&config, extra), clock.mono())?;
        let acceptor = TlsAcceptor::from(served.server_config()?);
        let routes = Arc::new(deliver::Routes::default());
        writer.tell(Arc::clone(&routes));
        writer.learn(config.detect.learning);
        let (store, thread) = Handle::start(writer).context("starting the writer")?;
        let lists = feeds::Service::start(
            config.lists.clone(),
            &place.data_dir,
            Some(store.clone()),
            Arc::clone(&clock),
        );
        let lists = Arc::new(lists.context("lists")?);
        let detect = detect::service::Service::start(
            config.detect.clone(),
            store.clone(),
            Arc::clone(&clock),
            counters.clone(),
        )?;
        let deliver = deliver::Service::start(
            &config.deliver,
            routes,
            store.clone(),
            counters.clone(),
            Arc::clone(&clock),
        );
        let deliver = deliver.context("deliver")?;
        let llm = llm::Service::start(config.llm.clone(), store.clone(), Arc::clone(&clock));
        let llm = llm.context("llm")?;
        let shared = Arc::new(server::Shared::new(
            store.clone(),
            Arc::clone(&registry),
            counters.clone(),
            Arc::clone(&clock),
            Duration::from_secs(config.server.request_seconds),
            config.server.ingests_max,
            Arc::clone(&lists),
        ));
        let bounds = listener::Bounds {
            total: config.server.connections_max,
            per_address: config.server.connections_per_address_max,
        };
        let core = Arc::new(Core {
            place,
            config: RwLock::new(config),
            store,
            registry,
            served,
            lists,
            detect,
            deliver,
            llm,
            started: clock.mono(),
            clock,
            listen: address,
            file_listen: file.map(|file| file.server.listen),
            log,
            data_dir,
            keeping: Mutex::new(()),
        });
        let (stop, stopped) = watch::channel(false);
        let router = server::router(shared);
        let serving = runtime.spawn(listener::run(
            tcp,
            acceptor,
            router,
            bounds,
            counters,
            stopped.clone(),
            STOP_PATIENCE,
        ));
        let answers: Arc<dyn Answers> = Arc::clone(&core) as Arc<dyn Answers>;
        runtime.spawn(control_server::run(control, answers, stopped.clone()));
        runtime.spawn(keep(Arc::clone(&core), stopped.clone()));
        runtime.spawn(renew(Arc::clone(&core), stopped));
        tracing::info!(%address, url, data = %core.place.data_dir.display(), "the hub is ready");
        Ok(Self {
            core,
            runtime: Some((runtime, serving)),
            writer: Some(thread),
            stop,
            address,
            socket,
        })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers a request as the control socket would.
    ///
    /// # Errors
    /// What the request runs into.
    pub fn ask(
        &self,
        request: &Request,
        on: &mut dyn FnMut(Reply) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.core.answer(request, on)
    }

    /// Makes (or renews) a sensor's token and returns its join line.
    ///
    /// # Errors
    /// A bad name or address, or what the store says.
    pub fn enroll(&self, name: &str, address: Option<&str>) -> anyhow::Result<String> {
        let request = Request::Enroll { name: name.into(), address: address.map(Into::into) };
        let mut line = None;
        self.ask(&request, &mut |reply| {
            if let Reply::Row { values } = reply {
                line = values.first().and_then(|v| v.as_str()).map(str::to_owned);
            }
            Ok(())
        })?;
        line.context("the hub made no join line")
    }

    /// As [`Hub::enroll`], for a sensor on this machine.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn enroll_local(&self, name: &str) -> anyhow::Result<String> {
        self.enroll(name, Some(&from_here(self.address).to_string()))
    }

    /// Reads the configuration file again; a bad one is refused and the old stays.
    ///
    /// # Errors
    /// What is wrong with the new one.
    pub fn reload(&self) -> anyhow::Result<()> {
        self.core.reload()
    }

    /// True once the writer has ended, which it should not before [`Hub::stop`].
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.writer.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Stops in order; returns when everything accepted is in the file.
    ///
    /// # Errors
    /// What the last writes ran into.
    pub fn stop(mut self) -> anyhow::Result<()> {
        self.shut_down()
    }

    fn shut_down(&mut self) -> anyhow::Result<()> {
        let Some((runtime, serving)) = self.runtime.take() else { return Ok(()) };
        self.stop.send_replace(true);
        // It has its own patience; a panic in it is in the log already.
        drop(runtime.block_on(serving));
        runtime.shutdown_timeout(Duration::from_secs(1));
        self.core.lists.stop();
        self.core.detect.stop();
        self.core.deliver.stop();
        self.core.llm.stop();
        self.core.store.stop();
        let joined = self.writer.take().map(JoinHandle::join);
        self.core.detect.join();
        drop(std::fs::remove_file(&self.socket));
        match joined {
            Some(Ok(result)) => result.context("closing the store"),
            Some(Err(_)) => bail!("the writer had panicked; what it had acknowledged is stored"),
            None => Ok(()),
        }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        if let Err(error) = self.shut_down() {
            tracing::error!(%error, "stopping the hub");
        }
    }
}

/// Serves until SIGTERM or SIGINT; SIGHUP reads the configuration again.
///
/// # Errors
/// What the start or the stop runs into, or that the writer has died.
pub fn run(
    config: Config,
    place: Place,
    clock: Arc<dyn Clock>,
    log: Option<LogHandle>,
    ready: impl FnOnce(&Hub),
) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (syslog, data) = (config.syslog.clone(), place.data_dir.clone());
    let hub = Hub::start(config, place, clock, log)?;
    let receiver = crate::receive::start(&syslog, &data, &hub)?;
    ready(&hub);
    let waited = hub.runtime.as_ref().context("the hub has stopped")?.0.block_on(async {
        let mut hangup = signal(SignalKind::hangup())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut look = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                _ = hangup.recv() => match tokio::task::block_in_place(|| hub.reload()) {
                    Ok(()) => tracing::info!("configuration read again"),
                    Err(error) => tracing::error!("configuration refused, the old one stays: {error:#}"),
                },
                _ = terminate.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
                _ = look.tick() => if hub.is_broken() {
                    bail!("the writer has ended; see the log above");
                },
            }
        }
    });
    tracing::info!("stopping");
    // First, so that what it has taken still reaches the store.
    receiver.into_iter().for_each(RouterHandle::stop);
    let stopped = hub.stop();
    waited.and(stopped)
}

/// The address by which this machine reaches what listens on `listen`.
fn from_here(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

async fn renew(core: Arc<Core>, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(RENEW_EVERY) => {}
            () = crate::listener::stopped(&mut stop) => return,
        }
        let core = Arc::clone(&core);
        let renewed = tokio::task::spawn_blocking(move || core.renew()).await;
        if let Ok(Err(error)) = renewed {
            tracing::error!("the server certificate could not be renewed: {error:#}");
        }
    }
}

/// Old days are rolled and deleted, their files looked at; once a day every byte of them.
async fn keep(core: Arc<Core>, mut stop: watch::Receiver<bool>) {
    for n in 0u32.. {
        let wait = if n == 0 { KEEP_FIRST } else { KEEP_EVERY };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = crate::listener::stopped(&mut stop) => return,
        }
        let core = Arc::clone(&core);
        // A panic in it is in the log already.
        drop(tokio::task::spawn_blocking(move || core.keep(n % KEEP_WHOLE_EVERY == 0)).await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_to_listen_on_is_not_one_to_connect_to() {
        #[track_caller]
        fn check(listen: &str, expected: &str) {
            assert_eq!(from_here(listen.parse().unwrap()).to_string(), expected);
        }
        check("0.0.0.0:8787", "127.0.0.1:8787");
        check("[::]:8787", "[::1]:8787");
        check("127.0.0.1:1", "127.0.0.1:1");
        check("192.0.2.7:1", "192.0.2.7:1");
    }
}
