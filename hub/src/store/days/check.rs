//! Is a file still what was written?
//!
//! In: the listed parts and the files. Out: what is wrong with which. Two looks: the quick
//! one before each query compares size and time of the last change, and reads a file only
//! where those differ; the whole one, once a day, reads all (about 1 s for each GB). DuckDB
//! itself would read changed bytes without a word: pages carry no checksum.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use duckdb::{Connection, params};
use xxhash_rust::xxh3::Xxh3;

use super::{Part, StoreError};

/// Something has become known of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) part: Part,
    /// What is wrong now; `None`: nothing any more.
    pub(crate) broken: Option<String>,
    /// When it was last written to.
    pub(crate) modified: i64,
}

/// The parts of which something has become known that is not listed: broken, whole again, or
/// whole with another time of change (a copied folder).
pub(crate) fn changed(parts: &[Part], data_dir: &Path) -> Vec<Found> {
    parts.iter().filter_map(|part| look(part, data_dir, false)).collect()
}

/// The same, with every byte read.
pub(crate) fn changed_bytes(parts: &[Part], data_dir: &Path) -> Vec<Found> {
    parts.iter().filter_map(|part| look(part, data_dir, true)).collect()
}

fn look(part: &Part, data_dir: &Path, whole: bool) -> Option<Found> {
    let path = data_dir.join(part.file());
    let found = |broken: Option<String>, modified: i64| {
        let news = broken != part.broken || modified != part.modified;
        news.then(|| Found { part: part.clone(), broken, modified })
    };
    let about = match std::fs::metadata(&path) {
        Ok(about) => about,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return found(Some("missing".into()), part.modified);
        }
        Err(error) => return found(Some(error.to_string()), part.modified),
    };
    if about.len() != part.bytes {
        let why = format!("{} bytes instead of {}", about.len(), part.bytes);
        return found(Some(why), part.modified);
    }
    let modified = modified(&about);
    if modified == part.modified && part.broken.is_none() && !whole {
        return None;
    }
    match hash(&path) {
        Ok(hash) if hash == part.hash => found(None, modified),
        Ok(_) => found(Some("its content has changed".into()), part.modified),
        Err(error) => found(Some(error.to_string()), part.modified),
    }
}

/// Nanoseconds since 1970.
pub(super) fn modified(about: &std::fs::Metadata) -> i64 {
    about.mtime().saturating_mul(1_000_000_000).saturating_add(about.mtime_nsec())
}

/// xxh3-64 of the whole file: against wear and accidents, not against an attacker, who could
/// as well change the table.
pub(super) fn hash(path: &Path) -> std::io::Result<u64> {
    let mut file = File::open(path)?;
    let mut hash = Xxh3::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            return Ok(hash.digest());
        }
        hash.update(buffer.get(..n).unwrap_or_default());
    }
}

/// Lists what was found; the caller has begun a transaction and makes the views anew.
///
/// # Errors
/// What DuckDB says.
pub(crate) fn note(connection: &Connection, found: &[Found]) -> Result<(), StoreError> {
    let sql = "UPDATE parts SET broken = ?, modified = ?
         WHERE tab = ? AND day = ?::DATE AND number = ?";
    for Found { part, broken, modified } in found {
        let day = part.day.to_string();
        connection.execute(sql, params![broken, modified, part.table.name, day, part.number])?;
        match broken {
            Some(why) => tracing::error!(
                file = %part.file().display(), why, rows = part.rows,
                "a file of past days is broken; it is left out until it is put back"
            ),
            None if part.broken.is_some() => {
                tracing::info!(file = %part.file().display(), "a file of past days is whole again");
            }
            None => {}
        }
    }
    Ok(())
}
