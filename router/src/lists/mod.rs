//! Block lists from files into the set tier-0 asks.
//!
//! In: the paths of the configuration. Out: the finished set, mapped from its compiled form
//! (`cache`). Compiling reads the lists as streams, with at most 10 MB of memory for lists of
//! any length, and takes about a second of a fast machine per million names; a form that was
//! compiled before from the very same files is taken as it is, within milliseconds.
//!
//! Runs on the thread that starts or reloads the router, never on the pipeline's. Everything
//! is read before anything is swapped. A list is at most [`LIST_BYTES_MAX`] bytes; lines
//! that are no names are reported, not fatal.

mod cache;

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use agentmon_core::tier0::Tier0Config;
use agentmon_core::tier0::blocklist::{
    Blocklist, Config, ListConfig, ListReport, RULES_VERSION, compile,
};
use anyhow::Context as _;
use xxhash_rust::xxh3::xxh3_64;

/// Largest list file: about 6 million names.
pub const LIST_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// Lists of so many bytes together are compiled before the router starts, within some
/// tenths of a second also on a small machine; longer ones while it already runs.
const AT_ONCE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Bytes of a list read at a time.
const CHUNK_BYTES: usize = 64 * 1024;
/// The compiled form, in the state directory.
const CACHE: &str = "lists.bin";

/// The lists as they are on disk now.
#[derive(Debug)]
struct Found {
    /// Names this very state of the files and settings.
    source: u64,
    /// Of all files.
    bytes: u64,
}

/// Looks at the files of the lists; reads none of them.
fn find(config: &Tier0Config) -> anyhow::Result<Found> {
    let config = &config.blocklist;
    let (program, rules) = (env!("CARGO_PKG_VERSION"), RULES_VERSION);
    let mut key = format!("{program} {rules} {} {:?}", config.entries_max, config.allow);
    let mut bytes = 0;
    for list in in_force(config) {
        let seen = open(list).and_then(|file| Ok(file.metadata()?));
        let seen = seen.with_context(|| called(list))?;
        bytes += seen.len();
        key += &format!("\n{:?} {:?} {} {}", list.name, list.path, list.score, version(&seen));
    }
    Ok(Found { source: xxh3_64(key.as_bytes()), bytes })
}

/// Tells two versions of a file apart without reading it: a change of any byte changes the
/// time of the last change, which no program can set.
fn version(seen: &Metadata) -> String {
    let (changed, nanos) = (seen.ctime(), seen.ctime_nsec());
    format!("{} {} {} {changed}.{nanos}", seen.dev(), seen.ino(), seen.len())
}

impl Found {
    /// Compiling them would keep the start waiting.
    const fn are_long(&self) -> bool {
        self.bytes > AT_ONCE_BYTES_MAX
    }
}

/// The set as it was compiled before from these very files; `None`: it was not.
fn ready(config: &Tier0Config, found: &Found, dir: &Path) -> Option<Blocklist> {
    if in_force(&config.blocklist).next().is_none() {
        return Some(config.blocklist.builder().build());
    }
    let lists = cache::load(&dir.join(CACHE), found.source)?;
    tracing::info!("block lists: {} names, compiled before", lists.len());
    Some(lists)
}

/// The set for the files as they are now: compiled before, or compiled now and kept in
/// `dir` for the next time. Where it cannot be kept it is held in memory.
///
/// # Errors
/// The file that cannot be read, and why.
pub fn load(config: &Tier0Config, dir: &Path) -> anyhow::Result<Blocklist> {
    let found = find(config)?;
    if let Some(lists) = ready(config, &found, dir) {
        return Ok(lists);
    }
    let mut reports = Vec::new();
    let lists = cache::make(&dir.join(CACHE), |out| {
        reports = compile(&config.blocklist, found.source, &mut read, out)?;
        Ok(())
    })?;
    reports.iter().for_each(log);
    crate::sys::release_memory();
    Ok(lists)
}

/// As [`load`], but what cannot be read is left out, and said: a list on a disk that is not
/// there (yet) must not keep a router from watching with the others.
#[must_use]
pub fn load_readable(config: &Tier0Config, dir: &Path) -> (Blocklist, Vec<anyhow::Error>) {
    let (config, mut missing) = readable(config);
    // One that goes away just now takes the others with it, until the next reload.
    let lists = load(&config, dir).unwrap_or_else(|error| {
        missing.push(error);
        Blocklist::default()
    });
    (lists, missing)
}

/// What a router begins with.
#[derive(Debug)]
pub struct AtStart {
    /// Empty, when they are to come later.
    pub lists: Blocklist,
    /// They are long and not compiled yet: [`load_readable`], while the router runs.
    pub later: bool,
    /// Lists that cannot be read.
    pub missing: Vec<anyhow::Error>,
}

/// The lists as far as they can be had without keeping the start waiting.
#[must_use]
pub fn at_start(config: &Tier0Config, dir: &Path) -> AtStart {
    let (readable, missing) = readable(config);
    if let Ok(found) = find(&readable)
        && found.are_long()
    {
        let ready = ready(&readable, &found, dir);
        let later = ready.is_none();
        return AtStart { lists: ready.unwrap_or_default(), later, missing };
    }
    let (lists, missing) = load_readable(config, dir);
    AtStart { lists, later: false, missing }
}

/// Whether a list can be read.
///
/// # Errors
/// Why not.
pub fn require(list: &ListConfig) -> anyhow::Result<()> {
    open(list).map(drop).with_context(|| called(list))
}

/// The configuration with those lists that can be read, and why the others cannot.
#[must_use]
pub fn readable(config: &Tier0Config) -> (Tier0Config, Vec<anyhow::Error>) {
    let (mut config, mut missing) = (config.clone(), Vec::new());
    if config.blocklist.enabled {
        config.blocklist.lists.retain(|list| match open(list) {
            Ok(_) => true,
            Err(error) => {
                missing.push(error.context(called(list)));
                false
            }
        });
    }
    (config, missing)
}

/// The set for a question or two, without keeping anything: compiled before, or in memory.
///
/// # Errors
/// The file that cannot be read, and why.
pub fn borrow(config: &Tier0Config, dir: &Path) -> anyhow::Result<Blocklist> {
    match ready(config, &find(config)?, dir) {
        Some(lists) => Ok(lists),
        None => {
            let mut bytes = Vec::new();
            compile(&config.blocklist, 0, &mut read, &mut bytes)?;
            Ok(Blocklist::open(Arc::new(bytes))?)
        }
    }
}

/// What would become of each list.
///
/// # Errors
/// The file that cannot be read, and why.
pub fn check(config: &Tier0Config) -> anyhow::Result<Vec<ListReport>> {
    find(config)?;
    if !config.blocklist.enabled {
        return Ok(Vec::new());
    }
    compile(&config.blocklist, 0, &mut read, &mut io::sink())
}

fn in_force(config: &Config) -> impl Iterator<Item = &ListConfig> {
    config.lists.iter().filter(|_| config.enabled)
}

fn log(report: &ListReport) {
    if report.is_clean() {
        tracing::info!("block list {report}");
    } else {
        tracing::warn!("block list {report}");
    }
}

fn open(list: &ListConfig) -> anyhow::Result<File> {
    let file = File::open(&list.path)?;
    anyhow::ensure!(file.metadata()?.len() <= LIST_BYTES_MAX, "longer than {LIST_BYTES_MAX} bytes");
    Ok(file)
}

fn called(list: &ListConfig) -> String {
    format!("tier0.blocklist: list `{}`: {}", list.name, list.path.display())
}

fn read(list: &ListConfig, each: &mut dyn FnMut(&[u8])) -> anyhow::Result<()> {
    let mut file = open(list).with_context(|| called(list))?.take(LIST_BYTES_MAX);
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(n) => each(chunk.get(..n).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).with_context(|| called(list)),
        }
    }
}

#[cfg(test)]
mod tests;
