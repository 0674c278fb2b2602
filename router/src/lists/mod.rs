//! Block lists from files into the set tier-0 asks.
//!
//! In: the paths of the configuration, and what the hub has compiled ([`hub`]). Out: the
//! finished set, mapped from its compiled form (`cache`). Compiling reads the lists as streams, with at most 10 MB of memory for lists of
//! any length, and takes about a second of a fast machine per million names; a form that was
//! compiled before from the very same files is taken as it is, within milliseconds.
//!
//! Runs on the thread that starts or reloads the router, never on the pipeline's. Everything
//! is read before anything is swapped. A list is at most [`LIST_BYTES_MAX`] bytes; lines
//! that are no names are reported, not fatal. A file that is no list at all (an error page,
//! an archive, empty), or that has lost most of its entries, is not taken: all lists stay as
//! they were compiled before, and the status says why.

mod cache;
pub mod hub;

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use agentmon_core::tier0::Tier0Config;
use agentmon_core::tier0::blocklist::{
    Blocklist, Config, LineFinder, ListConfig, ListReport, RULES_VERSION, SNIFF_BYTES, compile,
    no_list, shrunk,
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
    let mut key = format!("{program} {rules} {}", config.entries_max);
    let mut bytes = 0;
    for list in in_force(config) {
        let seen = open(list).and_then(|file| Ok(file.metadata()?));
        let seen = seen.with_context(|| called(list))?;
        bytes += seen.len();
        key += &format!("\n{list:?} {}", version(&seen));
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
        return Some(Blocklist::default());
    }
    let lists = cache::load(&dir.join(CACHE), found.source)?;
    tracing::info!("block lists: {} entries, compiled before", lists.len());
    Some(lists)
}

/// A list that is there and was not taken.
#[derive(Debug, thiserror::Error)]
#[error("not taken, {0}; what was read before stays")]
pub struct NotTaken(String);

/// The lists of files, and why some of them are not as their files are now.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The set.
    pub lists: Blocklist,
    /// Lists that cannot be read, or are none.
    pub refused: Vec<anyhow::Error>,
}

/// The set for the files as they are now: compiled before, or compiled now and kept in
/// `dir` for the next time. Where it cannot be kept it is held in memory. When one of the
/// files is not taken, all stay as they were before, if it was among them.
///
/// # Errors
/// The file that cannot be read, and why.
pub fn load(config: &Tier0Config, dir: &Path) -> anyhow::Result<Loaded> {
    let found = find(config)?;
    if let Some(lists) = ready(config, &found, dir) {
        return Ok(Loaded { lists, refused: Vec::new() });
    }
    let old = cache::old(&dir.join(CACHE)).map(|old| as_configured(old, &config.blocklist));
    let (good, mut refused) = acceptable(config)?;
    if !refused.is_empty() {
        let had = |name: &str| old.iter().flat_map(Blocklist::lists).any(|l| l.name == name);
        if let Some(old) = &old
            && config
                .blocklist
                .lists
                .iter()
                .any(|l| !good.blocklist.lists.contains(l) && had(&l.name))
        {
            return Ok(Loaded { lists: old.clone(), refused });
        }
    }
    let source = find(&good)?.source;
    let blocklist = good.blocklist.of_lists();
    if in_force(&blocklist).next().is_none() {
        return Ok(Loaded { lists: Blocklist::default(), refused });
    }
    let mut reports = Vec::new();
    let made = cache::make(
        &dir.join(CACHE),
        |out| {
            reports = compile(&blocklist, source, &mut read, out)?;
            Ok(())
        },
        |new| {
            let why = old.as_ref().map(|old| lost(old, new, &blocklist)).unwrap_or_default();
            let taken = why.is_empty();
            refused.extend(why);
            taken
        },
    )?;
    reports.iter().for_each(log);
    crate::sys::release_memory();
    Ok(Loaded { lists: made.or(old).unwrap_or_default(), refused })
}

/// What was compiled before, without lists that nobody wants any more.
fn as_configured(old: Blocklist, config: &Config) -> Blocklist {
    old.rescored(|name| in_force(config).find(|list| list.name == name).map(|list| list.score))
}

/// The configuration with those lists that begin like lists, and what the others are.
fn acceptable(config: &Tier0Config) -> anyhow::Result<(Tier0Config, Vec<anyhow::Error>)> {
    let (mut good, mut refused) = (config.clone(), Vec::new());
    good.blocklist.lists.clear();
    for list in in_force(&config.blocklist) {
        let mut start = Vec::new();
        let file = open(list).with_context(|| called(list))?;
        file.take(SNIFF_BYTES as u64).read_to_end(&mut start).with_context(|| called(list))?;
        match no_list(&start) {
            None => good.blocklist.lists.push(list.clone()),
            Some(what) => {
                let error = anyhow::Error::from(NotTaken(format!("it is {what}")));
                refused.push(error.context(called(list)));
            }
        }
    }
    Ok((good, refused))
}

/// Lists that have lost too much since they were compiled before.
fn lost(old: &Blocklist, new: &Blocklist, config: &Config) -> Vec<anyhow::Error> {
    let entries = |name: &str| old.lists().find(|l| l.name == name).map(|l| l.entries);
    let lost = new.lists().filter_map(|list| {
        let why = shrunk(entries(&list.name)?, list.entries, config.shrink_percent)?;
        let text = format!("{why} (if it is meant to be so, remove {CACHE} in state_dir)");
        let named = format!("tier0.blocklist: list `{}`", list.name);
        Some(anyhow::Error::from(NotTaken(text)).context(named))
    });
    lost.collect()
}

/// As [`load`], but what cannot be read is left out, and said: a list on a disk that is not
/// there (yet) must not keep a router from watching with the others.
#[must_use]
pub fn load_readable(config: &Tier0Config, dir: &Path) -> Loaded {
    let (config, mut missing) = readable(config);
    // One that goes away just now takes the others with it, until the next reload.
    let mut loaded = load(&config, dir).unwrap_or_else(|error| {
        missing.push(error);
        Loaded::default()
    });
    loaded.refused.extend(missing);
    loaded
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
    let Loaded { lists, refused } = load_readable(config, dir);
    AtStart { lists, later: false, missing: refused }
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

/// The set for a question or two, without keeping anything: compiled before, or in memory;
/// with the settings' own exemptions, and what the hub sent.
///
/// # Errors
/// The file that cannot be read, and why.
pub fn borrow(config: &Tier0Config, dir: &Path) -> anyhow::Result<Blocklist> {
    let lists = match ready(config, &find(config)?, dir) {
        Some(lists) => lists,
        None => {
            let mut bytes = Vec::new();
            compile(&acceptable(config)?.0.blocklist.of_lists(), 0, &mut read, &mut bytes)?;
            Blocklist::open(Arc::new(bytes))?
        }
    };
    Ok(config.blocklist.own().and(lists).and(hub::kept(dir).unwrap_or_default()))
}

/// The line of a list's file in which an entry stands.
#[must_use]
pub fn line_of(list: &ListConfig, entry: &str) -> Option<usize> {
    let mut finder = LineFinder::new(entry);
    read(list, &mut |text| finder.feed(text)).ok()?;
    finder.end()
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
    let (good, refused) = acceptable(config)?;
    if let Some(refused) = refused.into_iter().next() {
        return Err(refused);
    }
    compile(&good.blocklist.of_lists(), 0, &mut read, &mut io::sink())
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
