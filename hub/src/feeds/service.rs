//! The thread of the lists: what is due is fetched or read, what changed is compiled.
//!
//! In: the configuration, wishes of `agentmon feeds accept`. Out: accounts ([`super::keep`])
//! and the compiled form, in memory for whoever asks ([`Served`]) and in a file for the next
//! start. Invariants: what is served is whole; while compiling, and when it fails, what was
//! served stays; a list that fails is tried again after [`RETRY_FIRST`], then ever later, up
//! to its own interval.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use agentmon_core::tier0::blocklist::{About, Check, ListConfig, ListKind, compile};
use agentmon_core::time::Clock;
use anyhow::Context as _;
use axum::body::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use super::fetch::{self, Answer};
use super::keep::{self, Feed};
use super::{Config, LOOK_EVERY, Source, table};
use crate::secret::{self, Secret};
use crate::store::handle::Handle;

/// The compiled form.
const COMPILED: &str = "compiled.bin";
/// The list of the names in `lists.watched`.
const WATCHED: &str = "watched";
/// Wait after a first failure.
const RETRY_FIRST: Duration = Duration::from_secs(60);
/// How often a file is looked at.
const FILE_EVERY_MS: i64 = 5_000;

/// The compiled lists, as routers get them.
#[derive(Clone, Debug)]
pub struct Served {
    /// The compiled form.
    pub bytes: Bytes,
    /// Names this content.
    pub checksum: u64,
}

/// What the thread and those who ask share.
struct Shared {
    config: Mutex<(Config, bool)>,
    bell: Condvar,
    stop: Mutex<bool>,
    served: RwLock<Option<Served>>,
    folder: PathBuf,
    /// Where what the lists say is kept beside them.
    store: Option<Handle>,
    clock: Arc<dyn Clock>,
}

/// The running thread.
pub struct Service {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").finish_non_exhaustive()
    }
}

impl Service {
    /// Starts it; serves at once what was compiled before.
    ///
    /// # Errors
    /// A folder that cannot be made, a thread that cannot be started.
    pub fn start(
        config: Config,
        data_dir: &Path,
        store: Option<Handle>,
        clock: Arc<dyn Clock>,
    ) -> anyhow::Result<Self> {
        let folder = keep::folder(data_dir);
        if !config.sources.is_empty() {
            fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        }
        let served = compiled_before(&folder).filter(|_| has_any(&config));
        let shared = Arc::new(Shared {
            config: Mutex::new((config, true)),
            bell: Condvar::new(),
            stop: Mutex::new(false),
            served: RwLock::new(served),
            folder,
            store,
            clock,
        });
        let inner = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("lists".into()).spawn(move || inner.run());
        let thread = Mutex::new(Some(thread.context("starting the thread of the lists")?));
        Ok(Self { shared, thread })
    }

    /// What routers get; `None`: there are no lists (yet).
    #[must_use]
    pub fn served(&self) -> Option<Served> {
        self.shared.served.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Another configuration, from the next look on.
    pub fn reconfigure(&self, config: &Config) {
        let mut now = self.shared.config.lock().unwrap_or_else(PoisonError::into_inner);
        if now.0 != *config {
            *now = (config.clone(), true);
            self.shared.bell.notify_all();
        }
    }

    /// Ends the thread; a fetch that runs is left behind.
    pub fn stop(&self) {
        *self.shared.stop.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.bell.notify_all();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread.filter(JoinHandle::is_finished) {
            drop(thread.join());
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop();
    }
}

fn has_any(config: &Config) -> bool {
    !(config.sources.is_empty()
        && config.watched.is_empty()
        && config.patterns.is_empty()
        && config.allow.is_empty())
}

fn compiled_before(folder: &Path) -> Option<Served> {
    let bytes = fs::read(folder.join(COMPILED)).ok()?;
    let mut check = Check::default();
    check.feed(&bytes);
    let checksum = check.finish().ok()?.checksum();
    Some(Served { bytes: bytes.into(), checksum })
}

impl Shared {
    fn run(&self) {
        loop {
            let (config, new) = {
                let mut now = self.config.lock().unwrap_or_else(PoisonError::into_inner);
                let seen = now.clone();
                now.1 = false;
                seen
            };
            if let Err(error) = self.look(&config, new) {
                tracing::error!("lists: {error:#}");
            }
            let now = self.config.lock().unwrap_or_else(PoisonError::into_inner);
            let waited = self.bell.wait_timeout_while(now, LOOK_EVERY, |now| {
                !now.1 && !*self.stop.lock().unwrap_or_else(PoisonError::into_inner)
            });
            drop(waited);
            if *self.stop.lock().unwrap_or_else(PoisonError::into_inner) {
                return;
            }
        }
    }

    /// Everything that is due.
    fn look(&self, config: &Config, new: bool) -> anyhow::Result<()> {
        if !has_any(config) {
            *self.served.write().unwrap_or_else(PoisonError::into_inner) = None;
            if new && self.folder.exists() {
                keep::forget_others(&self.folder, config);
            }
            return Ok(());
        }
        fs::create_dir_all(&self.folder).with_context(|| self.folder.display().to_string())?;
        if new {
            keep::forget_others(&self.folder, config);
        }
        let mut changed = new;
        for source in &config.sources {
            changed |= self.see_to(source, config)?;
        }
        if changed {
            self.compile(config)?;
            self.remember(config);
        }
        Ok(())
    }

    /// What the lists say, into the store. What fails is tried again with the next change, or
    /// the next start.
    fn remember(&self, config: &Config) {
        let Some(store) = &self.store else { return };
        let now = self.clock.wall();
        if let Err(error) = table::forget_others(store, config, now) {
            tracing::warn!("lists: what is no longer set stays in the store for now: {error:#}");
        }
        for source in &config.sources {
            let feed = keep::read(&self.folder, &source.name);
            match table::sync(store, &self.folder, source, &feed, now) {
                Ok(0) => {}
                Ok(new) => tracing::info!("list {}: {new} new entries in the store", source.name),
                Err(error) => tracing::warn!("list {}: not in the store: {error:#}", source.name),
            }
        }
    }

    /// One list, if it is due; true when its text changed.
    fn see_to(&self, source: &Source, config: &Config) -> anyhow::Result<bool> {
        let now = self.clock.wall().nanos() / 1_000_000;
        let mut feed = keep::read(&self.folder, &source.name);
        let known =
            Feed { origin: source.origin(), licence: source.licence.clone(), ..feed.clone() };
        let moved = feed.origin != known.origin;
        feed = known;
        if moved {
            // Another place: nothing that the old one said holds.
            (feed.etag, feed.last_modified, feed.checked) = (String::new(), String::new(), 0);
        }
        let wished = keep::is_wished(&self.folder, &source.name);
        if !is_due(source, &feed, now, wished) {
            return Ok(false);
        }
        let before = feed.error.clone();
        let outcome = if source.url.is_empty() {
            self.read_file(source, config, &mut feed, now)
        } else {
            self.read_web(source, config, &mut feed, now)
        };
        let changed = outcome.unwrap_or_else(|error| {
            feed.error = agentmon_core::name::cut(format!("{error:#}"), 500);
            false
        });
        feed.failures = if feed.error.is_empty() { 0 } else { feed.failures.saturating_add(1) };
        feed.checked = now;
        if !feed.error.is_empty() && feed.error != before {
            let stays = if feed.changed > 0 { "; the last good one stays" } else { "" };
            tracing::warn!("list {}: {}{stays}", feed.name, feed.error);
        } else if changed {
            tracing::info!("list {}", feed.report);
        }
        keep::write(&self.folder, &feed)?;
        Ok(changed)
    }

    fn read_file(
        &self,
        source: &Source,
        config: &Config,
        feed: &mut Feed,
        now: i64,
    ) -> anyhow::Result<bool> {
        let file = File::open(&source.path).with_context(|| source.path.display().to_string())?;
        let text = fetch::read(file, config.bytes_max)?;
        let content = xxh3_64(&text);
        let wished = keep::is_wished(&self.folder, &source.name);
        if !wished && content == feed.content && feed.entries > 0 {
            feed.error = String::new();
            return keep::expire(&self.folder, feed, now);
        }
        if !wished && content == feed.refused_content {
            return Ok(false);
        }
        keep::take(&self.folder, source, config, feed, &text, now)
    }

    fn read_web(
        &self,
        source: &Source,
        config: &Config,
        feed: &mut Feed,
        now: i64,
    ) -> anyhow::Result<bool> {
        let agent = fetch::agent(&config.ca_file, source.url.starts_with("https://"))?;
        // A refused text was not kept: it has to come again, if only to be refused again.
        // Of a feed whose entries outlast it, what it still has must come again as well.
        let known = feed.refused_content == 0 && feed.changed > 0 && source.keep_days == 0;
        let (etag, date) =
            if known { (feed.etag.as_str(), feed.last_modified.as_str()) } else { ("", "") };
        let key = secret::read(&source.key_file, "").context("key_file")?;
        let key = key.as_ref().map(Secret::expose);
        match fetch::fetch(&agent, &source.url, etag, date, key, config.bytes_max)? {
            Answer::Unchanged => {
                feed.error = String::new();
                keep::expire(&self.folder, feed, now)
            }
            Answer::Later(wait, why) => {
                feed.not_before = now.saturating_add(wait.as_millis() as i64);
                anyhow::bail!("{why}, wants to be asked again in {} s", wait.as_secs())
            }
            Answer::Text { text, etag, last_modified } => {
                let changed = keep::take(&self.folder, source, config, feed, &text, now)?;
                if feed.error.is_empty() {
                    (feed.etag, feed.last_modified) = (etag, last_modified);
                }
                Ok(changed)
            }
        }
    }

    /// Compiles what is kept, and serves it.
    fn compile(&self, config: &Config) -> anyhow::Result<()> {
        let folder = &self.folder;
        let mut lists: Vec<ListConfig> = Vec::new();
        for source in &config.sources {
            let feed = keep::read(folder, &source.name);
            if folder.join(format!("{}.txt", source.name)).exists() {
                let about = About {
                    origin: source.origin(),
                    changed: feed.changed / 1_000,
                    accepted: feed.accepted,
                };
                lists.push(ListConfig { about, ..source.list() });
            }
        }
        if !config.watched.is_empty() {
            let kind = ListKind::Watch;
            lists.push(ListConfig { name: WATCHED.into(), kind, ..ListConfig::default() });
        }
        let mut read = |list: &ListConfig, each: &mut dyn FnMut(&[u8])| -> anyhow::Result<()> {
            if list.path.as_os_str().is_empty() {
                each(config.watched.join("\n").as_bytes());
                return Ok(());
            }
            let path = folder.join(&list.path);
            each(&fs::read(&path).with_context(|| path.display().to_string())?);
            Ok(())
        };
        let (mut form, blocklist) = (Vec::new(), config.compiled_of(&lists));
        compile(&blocklist, 0, &mut read, &mut form)?;
        let mut check = Check::default();
        check.feed(&form);
        let checksum = check.finish().context("compiling")?.checksum();
        let same = self.served.read().unwrap_or_else(PoisonError::into_inner);
        if same.as_ref().is_some_and(|served| served.checksum == checksum) {
            return Ok(());
        }
        drop(same);
        keep::replace(&folder.join(COMPILED), &form)?;
        tracing::info!("lists compiled: {} bytes of {} lists", form.len(), lists.len());
        let served = Some(Served { bytes: form.into(), checksum });
        *self.served.write().unwrap_or_else(PoisonError::into_inner) = served;
        Ok(())
    }
}

/// Whether it is time to look at a list again. A clock that was set back makes it due.
fn is_due(source: &Source, feed: &Feed, now: i64, wished: bool) -> bool {
    let usual = i64::try_from(source.refresh_seconds).unwrap_or(i64::MAX).saturating_mul(1_000);
    let age = now - feed.checked;
    if now < feed.not_before && age >= 0 && feed.not_before - now <= usual {
        return false;
    }
    let every = if source.url.is_empty() || (wished && feed.failures <= 1) {
        FILE_EVERY_MS
    } else if feed.failures > 0 {
        let wait = RETRY_FIRST.saturating_mul(1 << (feed.failures - 1).min(12));
        i64::try_from(wait.as_millis()).unwrap_or(i64::MAX).min(usual)
    } else {
        usual
    };
    feed.checked == 0 || age >= every || age < 0
}
