//! The lists the hub has compiled: fetched when they are new, mapped, kept through restarts.
//!
//! In: the identity (whose hub, token, CA) and `hub-lists.bin` of before. Out: a set for the
//! detectors, and a line for `status`. One thread of its own; it asks every
//! [`Config::seconds`] with the checksum of what it has, so that nothing is sent twice.
//!
//! Invariants: what is fetched is at most [`Config::bytes_max`] long, of this program's
//! version, whole by its checksum, and no list of it has lost too much
//! (`tier0.blocklist.shrink_percent`) unless a person at the hub accepted that; else what was
//! there stays. The file is replaced by renaming. Lists that are gone from the hub's
//! configuration go; a hub that is away, or has no lists at all, changes nothing.
//! While a new file is fetched, the disk (tmpfs on OpenWrt) holds two.

use std::fs::{self, File};
use std::io::{Seek as _, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use agentmon_core::tier0::blocklist::{Blocklist, shrunk};
use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::cache;
use crate::collect::Stop;
use crate::counters::{Counter, Counters};
use crate::forward::backoff::Backoff;
use crate::forward::client::{Fetched, HubClient, Refusal, Timeouts};
use crate::join::{self, Join};
use crate::wake::Wake;

/// The file, in the state directory.
pub const FILE: &str = "hub-lists.bin";
/// Wait after the first failure; doubled after each further one, up to the usual interval.
const FIRST_WAIT: Duration = Duration::from_secs(30);
/// How often to look for an identity while there is none.
const IDENTITY_EVERY: Duration = Duration::from_secs(5);
/// A list of 3 million names at 500 kbit/s takes 7 minutes.
const REQUEST_TIME: Duration = Duration::from_secs(900);

/// Settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether lists are fetched from the hub, where the router has joined one.
    pub enabled: bool,
    /// How often to ask whether they have changed, in seconds.
    pub seconds: u64,
    /// Longest file taken, in bytes: 3 million names are 25 MB. On OpenWrt it lies in memory.
    pub bytes_max: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { enabled: true, seconds: 900, bytes_max: 32 * 1024 * 1024 }
    }
}

impl Config {
    /// Whether the values make sense.
    ///
    /// # Errors
    /// The key, and what is allowed.
    pub fn validate(&self) -> Result<(), (&'static str, String)> {
        if !(10..=604_800).contains(&self.seconds) {
            return Err(("seconds", "want 10 to 604800 seconds".to_owned()));
        }
        if !(1 << 20..=1 << 30).contains(&self.bytes_max) {
            return Err(("bytes_max", "want 1048576 to 1073741824 bytes".to_owned()));
        }
        Ok(())
    }
}

/// What `status` tells of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HubLists {
    /// One line: `ok: ...`, or what is wrong.
    pub state: String,
    /// Names and addresses in them.
    pub entries: usize,
    /// Bytes of the file.
    pub bytes: usize,
    /// What the hub sent last was not taken.
    pub refused: bool,
}

/// What was fetched before; `None`: nothing, or of another version.
#[must_use]
pub fn kept(dir: &Path) -> Option<Blocklist> {
    cache::old(&dir.join(FILE))
}

/// Settings and state, as other threads see them.
#[derive(Debug, Default)]
pub struct Shared {
    settings: Mutex<Settings>,
    status: Mutex<HubLists>,
    wake: Wake,
}

/// What the fetcher goes by.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// Its own.
    pub config: Config,
    /// Where the identity is.
    pub identity: PathBuf,
    /// See `tier0.blocklist.shrink_percent`.
    pub shrink_percent: u8,
}

impl Shared {
    /// Other settings; the hub is asked at once.
    pub fn reconfigure(&self, settings: Settings) {
        let mut now = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        if *now != settings {
            *now = settings;
            self.wake.ring();
        }
    }
    /// For `status`.
    #[must_use]
    pub fn status(&self) -> HubLists {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    /// Ends the current wait.
    pub fn wake(&self) {
        self.wake.ring();
    }
    fn settings(&self) -> Settings {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    fn note(&self, lists: &Blocklist, state: String, refused: bool) {
        let (entries, bytes) = (lists.len(), lists.size_bytes());
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        if status.state != state {
            if refused {
                tracing::error!("lists of the hub: {state}");
            } else {
                tracing::info!("lists of the hub: {state}");
            }
        }
        *status = HubLists { state, entries, bytes, refused };
    }
}

/// The thread's own state.
pub struct Fetcher {
    shared: Arc<Shared>,
    dir: PathBuf,
    stop: Stop,
    /// Puts new ones in force.
    put: Box<dyn Fn(Blocklist) + Send>,
    lists: Blocklist,
    /// Checksum of the file.
    have: Option<u64>,
    /// What was not taken, so that it is not fetched again, and why.
    refused: Option<(u64, String)>,
    hub: Option<(Join, HubClient)>,
    failures: u32,
    jitter: Backoff,
    fetched: Counter,
    failed: Counter,
    not_taken: Counter,
}

/// What came of asking.
#[derive(Debug, PartialEq)]
enum Outcome {
    New,
    Unchanged,
    /// The hub has none.
    None,
    /// Not taken; the checksum where the same would be sent again.
    Refused(Option<u64>, String),
}

impl Fetcher {
    /// Not yet asking; `lists` are those in force, from [`kept`]. `seed` should differ
    /// between routers.
    #[must_use]
    pub fn new(
        shared: Arc<Shared>,
        dir: &Path,
        stop: Stop,
        counters: &Counters,
        lists: Blocklist,
        seed: u64,
        put: Box<dyn Fn(Blocklist) + Send>,
    ) -> Self {
        let have = checksum(&dir.join(FILE)).filter(|_| lists.size_bytes() > 0);
        Self {
            shared,
            dir: dir.to_owned(),
            stop,
            put,
            lists,
            have,
            refused: None,
            hub: None,
            failures: 0,
            jitter: Backoff::new(seed),
            fetched: counters.counter("lists.fetched"),
            failed: counters.counter("lists.failures"),
            not_taken: counters.counter("drop.lists.refused"),
        }
    }

    /// Asks until told to stop.
    pub fn run(&mut self) {
        while !self.stop.is_set() {
            let wait = self.step();
            self.shared.wake.wait(wait);
        }
    }

    /// Asks once; how long to wait then.
    fn step(&mut self) -> Duration {
        let settings = self.shared.settings();
        if !settings.config.enabled {
            if self.lists.size_bytes() > 0 {
                self.lists = Blocklist::default();
                (self.put)(Blocklist::default());
            }
            self.have = None;
            self.shared.note(&self.lists, "off (hub_lists.enabled = false)".into(), false);
            return Duration::from_secs(3_600);
        }
        match join::load(&settings.identity) {
            Ok(Some(join)) if self.hub.as_ref().is_some_and(|(known, _)| *known == join) => {}
            Ok(Some(join)) => {
                let timeouts = Timeouts { request: REQUEST_TIME, ..Timeouts::default() };
                match HubClient::new(&join, timeouts) {
                    Ok(client) => self.hub = Some((join, client)),
                    Err(why) => return self.fail(&why, settings.config.seconds),
                }
            }
            Ok(None) => {
                self.hub = None;
                self.shared.note(&self.lists, "not joined".into(), false);
                return IDENTITY_EVERY;
            }
            Err(error) => return self.fail(&error.to_string(), settings.config.seconds),
        }
        match self.ask(&settings) {
            Ok(outcome) => self.take(outcome, settings.config.seconds),
            Err(error) => self.fail(&format!("{error:#}"), settings.config.seconds),
        }
    }

    fn take(&mut self, outcome: Outcome, seconds: u64) -> Duration {
        self.failures = 0;
        let usual = Duration::from_secs(seconds);
        match outcome {
            Outcome::New => {
                self.fetched.inc();
                self.refused = None;
                (self.put)(self.lists.clone());
            }
            Outcome::Refused(checksum, why) => {
                self.not_taken.inc();
                let text = format!("not taken: {why}; what was there stays");
                self.shared.note(&self.lists, text.clone(), true);
                match checksum {
                    Some(checksum) => self.refused = Some((checksum, text)),
                    None => return self.wait_after_failure(seconds),
                }
                return self.jitter.about(usual);
            }
            Outcome::Unchanged => {
                if let Some((_, why)) = &self.refused {
                    self.shared.note(&self.lists, why.clone(), true);
                    return self.jitter.about(usual);
                }
            }
            Outcome::None => {
                let text = if self.lists.is_empty() {
                    "the hub has no lists"
                } else {
                    "the hub has no lists any more; the last ones stay"
                };
                self.shared.note(&self.lists, text.into(), false);
                return self.jitter.about(usual);
            }
        }
        let names = self.lists.lists().count();
        let text = format!("ok: {} entries of {names} lists", self.lists.len());
        self.shared.note(&self.lists, text, false);
        self.jitter.about(usual)
    }

    fn fail(&mut self, why: &str, seconds: u64) -> Duration {
        self.failed.inc();
        let stays = if self.lists.is_empty() { "" } else { "; the last ones stay" };
        self.shared.note(&self.lists, format!("cannot be fetched: {why}{stays}"), false);
        self.wait_after_failure(seconds)
    }

    fn wait_after_failure(&mut self, seconds: u64) -> Duration {
        let wait = FIRST_WAIT.saturating_mul(1 << self.failures.min(10));
        self.failures = self.failures.saturating_add(1);
        self.jitter.about(wait.min(Duration::from_secs(seconds)))
    }

    fn ask(&mut self, settings: &Settings) -> anyhow::Result<Outcome> {
        let Some((_, client)) = &self.hub else { return Ok(Outcome::None) };
        let new = self.dir.join(FILE).with_extension("new");
        let mut file = cache::create(&new).with_context(|| new.display().to_string())?;
        let known = self.have.into_iter().chain(self.refused.as_ref().map(|(sum, _)| *sum));
        let known: Vec<u64> = known.collect();
        let fetched = client.lists(&known, settings.config.bytes_max, &mut file);
        let outcome = match fetched {
            Ok(Fetched::Unchanged) => Ok(Outcome::Unchanged),
            Ok(Fetched::Nothing) => Ok(Outcome::None),
            Ok(Fetched::Whole) => self.judge(&mut file, &new, settings.shrink_percent),
            Err(Refusal::TooLarge) => {
                let most = settings.config.bytes_max;
                let why = format!("longer than {most} bytes (hub_lists.bytes_max)");
                Ok(Outcome::Refused(None, why))
            }
            Err(refusal) => Err(anyhow::anyhow!("{refusal}")),
        };
        if !matches!(outcome, Ok(Outcome::New)) {
            drop(fs::remove_file(&new));
        }
        outcome
    }

    /// Whether what came may replace what is there; then it does.
    fn judge(&mut self, file: &mut File, new: &Path, percent: u8) -> anyhow::Result<Outcome> {
        file.flush()?;
        file.rewind()?;
        let (footer, lists) = match cache::whole(file) {
            Ok(whole) => whole,
            Err(error) => return Ok(Outcome::Refused(None, format!("{error:#}"))),
        };
        if let Some(why) = lost(&self.lists, &lists, percent) {
            return Ok(Outcome::Refused(Some(footer.checksum()), why));
        }
        let path = self.dir.join(FILE);
        fs::rename(new, &path).with_context(|| path.display().to_string())?;
        (self.lists, self.have) = (lists, Some(footer.checksum()));
        Ok(Outcome::New)
    }
}

/// The first list that is still there and has lost too much, unless a person at the hub
/// accepted it.
fn lost(old: &Blocklist, new: &Blocklist, percent: u8) -> Option<String> {
    new.lists().find_map(|list| {
        let before = old.lists().find(|old| old.name == list.name)?;
        if before.about.accepted != list.about.accepted {
            return None;
        }
        let why = shrunk(before.entries, list.entries, percent)?;
        Some(format!(
            "list `{}`: {why} (if it is meant to be so: agentmon feeds accept {}, at the hub)",
            list.name, list.name
        ))
    })
}

fn checksum(path: &Path) -> Option<u64> {
    use agentmon_core::tier0::blocklist::{FOOTER_BYTES, Footer};
    use std::os::unix::fs::FileExt as _;
    let file = File::open(path).ok()?;
    let at = file.metadata().ok()?.len().checked_sub(FOOTER_BYTES as u64)?;
    let mut footer = [0; FOOTER_BYTES];
    file.read_exact_at(&mut footer, at).ok()?;
    Footer::parse(&footer).ok().map(|footer| footer.checksum())
}

#[cfg(test)]
mod tests;
