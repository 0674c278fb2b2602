//! What to do with a ring file that is broken: set it aside, begin a new one, and carry
//! over what can still be read of the account and of the collectors' places.
//!
//! The set-aside copy is for a person to look at; [`DAMAGED_FILES_MAX`] of them are kept,
//! because a ring often lives on a small tmpfs. Runs at opening and, should SQLite find
//! damage later, under the ring's mutex.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use agentmon_core::time::Clock;

use super::open::read_kept;
use super::store::Store;
use super::{CHECKPOINT_BYTES_MAX, CHECKPOINTS_MAX, Config, Places, RingError};

/// Most set-aside files (each with its log) kept beside a ring.
pub(super) const DAMAGED_FILES_MAX: usize = 1;
/// Longest name taken over from a damaged file.
const NAME_BYTES_MAX: usize = 256;

/// What a file keeps besides events.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// All counters of the program at the last commit.
    pub(super) counters: BTreeMap<String, u64>,
    /// The collectors' places.
    pub(super) checkpoints: Places,
}

/// An open ring file.
pub(super) struct Opened {
    pub(super) store: Store,
    pub(super) kept: Kept,
    /// A damaged file was in the way and was set aside.
    pub(super) replaced: bool,
}

/// Opens the file; a damaged one is set aside and replaced by an empty one.
pub(super) fn open_or_replace(config: &Config, clock: &dyn Clock) -> Result<Opened, RingError> {
    match Store::open(&config.path, config.bytes_max) {
        Ok((store, kept)) => Ok(Opened { store, kept, replaced: false }),
        Err(RingError::Damaged { path, what }) => {
            let kept = salvage(&path);
            set_aside(&path, &what, clock)?;
            let (store, _) = Store::open(&path, config.bytes_max)?;
            Ok(Opened { store, kept, replaced: true })
        }
        Err(error) => Err(error),
    }
}

/// Reads counters and checkpoints out of a broken file, as far as they go. Nothing found is
/// trusted beyond its size: collectors check their own checkpoints.
fn salvage(path: &Path) -> Kept {
    let mut kept = read_kept(path).unwrap_or_default();
    kept.counters.retain(|name, _| plain(name));
    kept.checkpoints.retain(|key, value| plain(key) && value.len() <= CHECKPOINT_BYTES_MAX);
    while kept.checkpoints.len() > CHECKPOINTS_MAX {
        kept.checkpoints.pop_last();
    }
    kept
}

fn plain(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.chars().any(char::is_control)
}

/// Renames the file and its log to `NAME.damaged-SECONDS`, removes older ones, says so.
pub(super) fn set_aside(path: &Path, what: &str, clock: &dyn Clock) -> Result<(), RingError> {
    let io = |error: std::io::Error| RingError::Io {
        path: path.to_owned(),
        what: format!("damaged ({what}), and it cannot be set aside: {error}"),
    };
    remove_older(path, DAMAGED_FILES_MAX - 1);
    let aside = suffixed(path, &format!(".damaged-{}", clock.wall().secs()));
    fs::rename(path, &aside).map_err(io)?;
    for log in ["-wal", "-shm"] {
        match fs::rename(suffixed(path, log), suffixed(&aside, log)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
            _ => {}
        }
    }
    tracing::error!(
        "{}: the ring is damaged ({what}); set aside as {}, going on with an empty one; \
         events that had not reached the hub are lost",
        path.display(),
        aside.display(),
    );
    Ok(())
}

/// `path` with something behind its name.
pub(super) fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The set-aside files of this ring without their logs, oldest first.
pub(super) fn set_aside_files(path: &Path) -> Vec<PathBuf> {
    let Some(name) = path.file_name().and_then(|n| n.to_str()) else { return Vec::new() };
    let prefix = format!("{name}.damaged-");
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut found: Vec<(u64, PathBuf)> = fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let stamp = entry.file_name().to_str()?.strip_prefix(&prefix)?.parse().ok()?;
            Some((stamp, entry.path()))
        })
        .collect();
    found.sort();
    found.into_iter().map(|(_, path)| path).collect()
}

/// Removes all but the newest `keep` set-aside files. One that cannot be removed stays: the
/// ring's own life does not depend on it.
fn remove_older(path: &Path, keep: usize) {
    let files = set_aside_files(path);
    for old in files.iter().take(files.len().saturating_sub(keep)) {
        for file in [old.clone(), suffixed(old, "-wal"), suffixed(old, "-shm")] {
            drop(fs::remove_file(file));
        }
    }
}
