//! What a running hub does for the control socket, and for the program it runs in.
//!
//! In: a [`Request`]. Out: [`Reply`]s. Queries run on the caller's thread with a reader's
//! connection, changes on the writer's; after a change everybody knows who may send.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use agentmon_core::time::{Clock, Mono};
use agentmon_router::logging::LogHandle;
use anyhow::bail;

use crate::config::{Config, Place};
use crate::control::{Reply, Request};
use crate::control_server::Answers;
use crate::detect::beacon::answer as beacons;
use crate::enroll::Registry;
use crate::store::days::keep;
use crate::store::handle::Handle;
use crate::store::query;
use crate::store::writer::Writer;
use crate::{answer, deliver, detect, feeds, llm, tls};

/// What requests work with.
pub(crate) struct Core {
    pub(crate) place: Place,
    pub(crate) config: RwLock<Config>,
    pub(crate) store: Handle,
    pub(crate) registry: Arc<Registry>,
    pub(crate) served: Arc<tls::Served>,
    pub(crate) lists: Arc<feeds::Service>,
    pub(crate) detect: detect::service::Service,
    pub(crate) deliver: deliver::Service,
    pub(crate) llm: llm::Service,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) started: Mono,
    pub(crate) listen: SocketAddr,
    /// What the configuration file said of it at the start.
    pub(crate) file_listen: Option<SocketAddr>,
    pub(crate) log: Option<LogHandle>,
    /// The data directory by its whole path.
    pub(crate) data_dir: PathBuf,
    /// One clean-up at a time.
    pub(crate) keeping: Mutex<()>,
}

pub(crate) fn names(config: &Config, extra: Vec<String>) -> BTreeSet<String> {
    let mut names = tls::own_names(&config.server.names);
    names.extend(extra);
    names
}

/// What stands in join lines: the first configured name, else the address listened on,
/// else the host name.
pub(crate) fn advertised(config: &Config, address: SocketAddr) -> String {
    let host = config.server.names.first().cloned().or_else(|| {
        let ip = address.ip();
        (!ip.is_unspecified()).then(|| ip.to_string())
    });
    let host = host.or_else(tls::host_name).unwrap_or_else(|| "localhost".into());
    match host.parse::<std::net::Ipv6Addr>() {
        Ok(ip) => format!("https://[{ip}]:{}", address.port()),
        Err(_) => format!("https://{host}:{}", address.port()),
    }
}

impl Core {
    fn config(&self) -> Config {
        self.config.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn reload(&self) -> anyhow::Result<()> {
        let Some(file) = &self.place.config_file else {
            bail!(
                "the hub was started without a configuration file; there is nothing to read again"
            )
        };
        let mut new = Config::load(file)?;
        // A command line's --listen stands as long as the file says what it said then.
        if self.file_listen == Some(new.server.listen) {
            new.server.listen = self.config().server.listen;
        }
        if let Err(key) = new.check_reload(&self.config()) {
            bail!("`{key}` cannot change while the hub runs; restart it");
        }
        let url = advertised(&new, self.listen);
        self.run(move |writer| writer.change(|c| answer::set_fact(c, "url", &url)))??;
        if let Some(log) = &self.log {
            log.reload(&new.log);
        }
        self.lists.reconfigure(&new.lists);
        self.detect.reconfigure(&new.detect);
        let learning = new.detect.learning;
        self.run(move |writer| writer.learn(learning))?;
        self.deliver.reconfigure(&new.deliver)?;
        self.llm.reconfigure(&new.llm);
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = new;
        self.renew()
    }

    pub(crate) fn renew(&self) -> anyhow::Result<()> {
        let extra = answer::extra_names(&*self.store.readers().get()?)?;
        if self.served.renew(&names(&self.config(), extra), self.clock.mono())? {
            tracing::info!("new server certificate");
        }
        Ok(())
    }

    fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Writer) -> T + Send + 'static,
    ) -> anyhow::Result<T> {
        Ok(self.store.run(work)?)
    }

    /// On the writer's thread; then everybody knows who may send and by which names.
    fn change(&self, request: &Request) -> anyhow::Result<Vec<Reply>> {
        let (request, place) = (request.clone(), self.place.clone());
        let registry = Arc::clone(&self.registry);
        let replies = self.run(move |writer| {
            let replies = answer::change(writer, &place.data_dir, &request)?;
            writer.change(|c| registry.reload(c))?;
            Ok::<_, anyhow::Error>(replies)
        })??;
        self.renew()?;
        Ok(replies)
    }

    /// The batch goes through the queue like any sensor's.
    fn import(&self, name: &str, batch: &str) -> anyhow::Result<Vec<Reply>> {
        let (name, batch) = (name.to_owned(), batch.to_owned());
        let incoming = self.run(move |writer| answer::import(writer, &name, &batch))??;
        let outcome = self.store.store_blocking(incoming)?;
        Ok(vec![Reply::Done { count: outcome.stored, truncated: false }])
    }

    /// By this hub's own rules.
    fn cleanup(&self, dry_run: bool) -> anyhow::Result<Vec<Reply>> {
        let Ok(_alone) = self.keeping.try_lock() else {
            bail!("a clean-up runs already; try again when it has ended")
        };
        let (mut desk, rules) = (self.store.clone(), self.config().retention);
        answer::cleanup(&mut desk, &self.data_dir, &rules, self.clock.wall(), dry_run)
    }

    /// What is due of it, by itself; `whole`: with every byte of the files read.
    pub(crate) fn keep(&self, whole: bool) {
        let rules = self.config().retention;
        let Ok(_alone) = self.keeping.try_lock() else { return };
        let (mut desk, now) = (self.store.clone(), self.clock.wall());
        let done = match rules.automatic {
            true => keep::round(&mut desk, &self.data_dir, &rules, now, whole).map(drop),
            false => keep::look(&mut desk, &self.data_dir, whole),
        };
        if let Err(error) = done {
            tracing::error!(%error, "old days could not be rolled or deleted; trying again");
        }
    }

    fn status(&self) -> anyhow::Result<Vec<Reply>> {
        let reader = self.store.readers().get()?;
        let mut facts = vec![
            ("running", true.into()),
            ("pid", std::process::id().into()),
            ("listen", self.listen.to_string().into()),
            ("uptime_seconds", self.clock.mono().since(self.started).as_secs().into()),
            ("events_waiting", u64::try_from(self.store.waiting()).unwrap_or(u64::MAX).into()),
        ];
        facts.push(("detect", self.detect.status()));
        facts.extend(answer::store_status(&reader, &self.place.data_dir)?);
        Ok(answer::row(&facts))
    }
}

impl Answers for Core {
    fn answer(
        &self,
        request: &Request,
        on: &mut dyn FnMut(Reply) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let replies = match request {
            Request::Query { sql, params, timeout_ms, untrusted } => {
                let reader = self.store.readers().get()?;
                let query =
                    query::Query { sql, params, timeout_ms: *timeout_ms, untrusted: *untrusted };
                return query::run(&reader, query, on);
            }
            Request::Status => self.status()?,
            Request::Beacons { until_us, score } => {
                let reader = self.store.readers().get()?;
                beacons::answer(&reader, &self.place.data_dir, *until_us, *score)?
            }
            Request::Backtest { .. } => {
                let reader = self.store.readers().get()?;
                detect::backtest::answer(&reader, &self.config().detect, request)?
            }
            Request::Feeds => answer::feeds(&self.place.data_dir)?,
            Request::Targets => answer::targets(self.deliver.status()?),
            Request::LlmStatus => answer::llm(self.llm.status()?),
            Request::LlmReplay { id } => answer::replayed(&self.llm.replay(*id)?),
            Request::TestTarget { name } => {
                self.deliver.test(name)?;
                vec![Reply::Done { count: 1, truncated: false }]
            }
            Request::AcceptFeed { name } => answer::accept_feed(&self.place.data_dir, name)?,
            Request::Reload => {
                self.reload()?;
                vec![Reply::Done { count: 1, truncated: false }]
            }
            Request::Export { sql, format, timeout_ms } => {
                let reader = self.store.readers().get()?;
                answer::export(&reader, sql, *format, *timeout_ms)?
            }
            Request::Cleanup { dry_run, .. } => self.cleanup(*dry_run)?,
            Request::Import { name, batch } => self.import(name, batch)?,
            Request::Enroll { .. }
            | Request::Revoke { .. }
            | Request::Ack { .. }
            | Request::Allow { .. }
            | Request::FalsePositive { .. }
            | Request::Forget { .. }
            | Request::ResetBaseline { .. }
            | Request::NameDevice { .. }
            | Request::ImportSpan { .. }
            | Request::ImportZeek { .. } => self.change(request)?,
        };
        replies.into_iter().try_for_each(on)
    }
}
