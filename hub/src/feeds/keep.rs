//! What is kept of each list: its text and where that is from, in `DATA/lists`.
//!
//! In: candidates. Out: `NAME.txt`, `NAME.json`. Invariants: both are replaced by renaming;
//! the text is one that passed [`inspect`]; what is wrong with a later one stands in the JSON,
//! and is what `agentmon feeds` shows, whether a hub runs or not.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use agentmon_core::Timestamp;
use agentmon_core::tier0::blocklist::{
    Builder, Kind, ListConfig, ListReport, SNIFF_BYTES, no_list, shrunk,
};
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::{Config, FOLDER, Source, derive};

/// Largest state file.
const STATE_BYTES_MAX: u64 = 64 * 1024;

/// One list's account.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Feed {
    /// Its name.
    pub name: String,
    /// Where it is from.
    pub origin: String,
    /// Its licence.
    pub licence: String,
    /// Names and networks taken.
    pub entries: usize,
    /// Lines of the text.
    pub lines: usize,
    /// Entries refused or not understood.
    pub refused: usize,
    /// What became of its lines.
    pub report: String,
    /// When its content last changed, Unix milliseconds; 0: never had any.
    pub changed: i64,
    /// When it was last looked at.
    pub checked: i64,
    /// What is wrong with what was found last; empty: nothing.
    pub error: String,
    /// Attempts in a row that failed.
    pub failures: u32,
    /// The server's entity tag and date of the text, to ask for newer ones.
    pub etag: String,
    /// See `etag`.
    pub last_modified: String,
    /// Tells what was last taken from other downloads.
    pub content: u64,
    /// Tells the kept text from others.
    pub list: u64,
    /// Tells the last refused text from others.
    pub refused_content: u64,
    /// How many times a person accepted that it became much smaller.
    pub accepted: u32,
    /// The server does not want to be asked before, Unix milliseconds.
    pub not_before: i64,
}

/// The folder of the lists.
#[must_use]
pub(super) fn folder(data_dir: &Path) -> PathBuf {
    data_dir.join(FOLDER)
}

/// The account of one list; empty where there is none.
pub(super) fn read(folder: &Path, name: &str) -> Feed {
    let path = folder.join(format!("{name}.json"));
    let mut text = String::new();
    let read = File::open(path).and_then(|f| f.take(STATE_BYTES_MAX).read_to_string(&mut text));
    let known = read.ok().and_then(|_| serde_json::from_str::<Feed>(&text).ok());
    Feed { name: name.to_owned(), ..known.unwrap_or_default() }
}

/// Writes it down.
pub(super) fn write(folder: &Path, feed: &Feed) -> anyhow::Result<()> {
    let json = serde_json::to_vec(feed)?;
    replace(&folder.join(format!("{}.json", feed.name)), &json)
}

/// Writes beside and renames: a crash leaves the whole file or none.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, bytes).with_context(|| new.display().to_string())?;
    fs::rename(&new, path).with_context(|| path.display().to_string())
}

/// The accounts of all lists of a data directory, by name; with a hub or without.
///
/// # Errors
/// A folder that cannot be read.
pub fn all(data_dir: &Path) -> anyhow::Result<Vec<Feed>> {
    let folder = folder(data_dir);
    let entries = match fs::read_dir(&folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| folder.display().to_string())?,
    };
    let names = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".json").map(str::to_owned));
    let mut feeds: Vec<Feed> = names.map(|name| read(&folder, &name)).collect();
    feeds.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(feeds)
}

fn wish(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.accept"))
}

/// The next content of this list is taken, however small.
///
/// # Errors
/// There is no such list.
pub fn accept(data_dir: &Path, name: &str) -> anyhow::Result<()> {
    anyhow::ensure!(
        all(data_dir)?.iter().any(|feed| feed.name == name),
        "there is no list `{}`; see agentmon feeds",
        agentmon_core::name::printable(name.as_bytes(), 64)
    );
    let path = wish(&folder(data_dir), name);
    fs::write(&path, "").with_context(|| path.display().to_string())
}

/// Whether a person wishes that; asked for once.
pub(super) fn is_wished(folder: &Path, name: &str) -> bool {
    wish(folder, name).exists()
}

/// Files of lists that are not in the configuration any more go.
pub(super) fn forget_others(folder: &Path, config: &Config) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let kept =
            ["txt", "json", "accept"].iter().any(|e| path.extension().is_some_and(|x| x == *e));
        if kept && !config.sources.iter().any(|source| source.name == stem) {
            // One that stays does no harm: it is not compiled.
            drop(fs::remove_file(path));
        }
    }
}

/// Looks at a candidate, and keeps it where it is a list; true when the kept text changed.
pub(super) fn take(
    folder: &Path,
    source: &Source,
    config: &Config,
    feed: &mut Feed,
    download: &[u8],
    now_ms: i64,
) -> anyhow::Result<bool> {
    let content = xxh3_64(download);
    let wished = is_wished(folder, &source.name);
    feed.refused_content = 0;
    let path = folder.join(format!("{}.txt", source.name));
    let kept = || fs::read(&path).unwrap_or_default();
    let now = Timestamp::from_nanos(now_ms.saturating_mul(1_000_000));
    let taken = derive::list(source, download, kept, now).and_then(|derived| {
        let report = inspect(&source.list(), config, feed, &derived.text, wished)?;
        Ok((derived, report))
    });
    match taken {
        Ok((derived, report)) => {
            let list = xxh3_64(&derived.text);
            let changed = list != feed.list || !path.exists();
            if changed {
                replace(&path, &derived.text)?;
                let lost = shrunk(feed.entries, report.entries, config.shrink_percent);
                feed.accepted += u32::from(wished && lost.is_some());
                (feed.list, feed.changed) = (list, now_ms);
            }
            feed.content = content;
            let kinds = [Kind::Bad, Kind::Unsupported, Kind::Refused, Kind::OverLimit];
            feed.entries = report.entries;
            feed.lines = report.lines;
            feed.refused = kinds.iter().map(|kind| report.of(*kind)).sum();
            feed.report = match derived.left_out {
                nothing if nothing.is_empty() => report.to_string(),
                some => format!("{report}; left out: {some}"),
            };
            feed.error = String::new();
            // It was for this content.
            drop(fs::remove_file(wish(folder, &source.name)));
            Ok(changed)
        }
        Err(why) => {
            feed.error = format!("not taken: {why}");
            feed.refused_content = content;
            Ok(false)
        }
    }
}

/// Lets go of entries whose time is over; true when there were any.
pub(super) fn expire(folder: &Path, feed: &mut Feed, now_ms: i64) -> anyhow::Result<bool> {
    let path = folder.join(format!("{}.txt", feed.name));
    let now = Timestamp::from_nanos(now_ms.saturating_mul(1_000_000));
    let text = fs::read(&path).unwrap_or_default();
    let Some(rest) = derive::without_expired(&text, now) else { return Ok(false) };
    replace(&path, &rest)?;
    (feed.list, feed.changed) = (xxh3_64(&rest), now_ms);
    Ok(true)
}

/// Whether a text is a list, and one that may replace the kept one.
fn inspect(
    list: &ListConfig,
    config: &Config,
    feed: &Feed,
    text: &[u8],
    wished: bool,
) -> Result<ListReport, String> {
    if let Some(what) = no_list(text.get(..SNIFF_BYTES).unwrap_or(text)) {
        return Err(format!("it is {what}"));
    }
    let report = Builder::new(config.entries_max).list_of(list, text);
    if report.entries == 0 {
        let cut = agentmon_core::name::cut(report.to_string(), 300);
        return Err(format!("nothing in it can be used ({cut})"));
    }
    match shrunk(feed.entries, report.entries, config.shrink_percent) {
        Some(why) if !wished => Err(format!("{why}; agentmon feeds accept {}", list.name)),
        _ => Ok(report),
    }
}
