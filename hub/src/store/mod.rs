//! The history: one DuckDB file, `hub.duckdb` in the data directory.
//!
//! In: rows from `ingest`, statements from `control`. Out: committed transactions, rows.
//! One process holds the file read-write; inside it one thread writes ([`writer`]) and
//! any number of cloned connections read ([`query`]). Without a running hub the command
//! line opens the same file itself ([`open_read`], [`open_write`]).
//!
//! Invariants, set at every open because DuckDB keeps none of them in the file:
//! extensions are never loaded or fetched, no file but the database, its spill folder and
//! the files of older days ([`days`]) can be reached from SQL, memory and threads are bounded.

mod arrivals;
mod commit;
#[cfg(test)]
mod crash_tests;
pub mod days;
#[cfg(test)]
mod disk_tests;
pub mod export;
mod fill;
pub(crate) mod found;
#[cfg(test)]
mod fusion_tests;
pub mod handle;
pub mod json;
mod memory;
pub mod migrate;
mod peers;
pub mod query;
#[cfg(test)]
mod query_tests;
pub mod readers;
pub(crate) mod rows;
pub mod sandbox;
pub(crate) mod spans;
pub mod staging;
#[cfg(test)]
mod story_tests;
pub mod writer;
#[cfg(test)]
mod writer_tests;
pub mod zeek;

use std::path::{Path, PathBuf};

use duckdb::{AccessMode, Config, Connection};

/// The database's name inside the data directory.
pub const FILE_NAME: &str = "hub.duckdb";
/// Where DuckDB spills what does not fit in memory.
const SPILL_DIR: &str = "spill";
/// Largest spill in MiB; a query that wants more fails instead of filling the disk.
const SPILL_MIB_MAX: u32 = 4_096;
/// Size of the log at which it is folded in. Each checkpoint rewrites the
/// newest row groups, so rarer is cheaper; replay after a crash takes about 40 ms per MiB.
const LOG_MIB: u32 = 64;

/// Of a new file, in bytes. DuckDB's 256 KiB leaves much of a column's last block empty;
/// 64 KiB saves 4 % on flows, and 32 KiB more than doubles them, because every block
/// repeats its dictionary.
const BLOCK_BYTES: u32 = 65_536;

/// Bounds of one opened store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// DuckDB's buffer memory in MiB; the process takes about 100 MiB on top.
    pub memory_mib: u32,
    /// Threads DuckDB runs queries with.
    pub threads: u32,
    /// The write-ahead log is folded into the file at this size in MiB.
    pub log_mib: u32,
}

impl Default for Limits {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get().min(4));
        Self { memory_mib: 1_024, threads: u32::try_from(cores).unwrap_or(1), log_mib: LOG_MIB }
    }
}

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has the file open.
    #[error(
        "{path} is in use by process {pid}; ask that hub (its control socket stands beside the file) or stop it"
    )]
    Locked {
        /// The database file.
        path: PathBuf,
        /// Who holds it.
        pid: String,
    },
    /// Written by a newer program.
    #[error(
        "{path} has schema version {found}, this agentmon knows up to {known}; install the newer agentmon (the file was not changed)"
    )]
    Newer {
        /// The database file.
        path: PathBuf,
        /// Version in the file.
        found: i64,
        /// Newest version of this program.
        known: i64,
    },
    /// Not written by this program, or by an older one and opened for reading only.
    #[error("{path}: {reason}")]
    Unusable {
        /// The database file.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// No space left on the disk that holds the data.
    #[error("no space left for the database: {0}")]
    DiskFull(String),
    /// The statement is refused before it runs.
    #[error("refused: {0}")]
    Refused(String),
    /// The statement took too long.
    #[error("stopped after {0} ms: narrow the time range, or give it longer with --timeout")]
    TimedOut(u64),
    /// Anything else DuckDB says.
    #[error("database: {0}")]
    Db(String),
    /// A folder or file beside the database.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

impl From<duckdb::Error> for StoreError {
    fn from(error: duckdb::Error) -> Self {
        let text = error.to_string();
        if is_disk_full(&text) { Self::DiskFull(text) } else { Self::Db(text) }
    }
}

/// DuckDB has no error code for a full disk: it passes on the system's text, or its own
/// for a file of fixed size.
fn is_disk_full(text: &str) -> bool {
    ["No space left", "Disk quota exceeded", "disk is full", "File too large"]
        .iter()
        .any(|needle| text.contains(needle))
}

/// Opens (or makes) the store for writing and brings its schema up to date.
///
/// # Errors
/// [`StoreError::Locked`], [`StoreError::Newer`], or what DuckDB says.
pub fn open_write(data_dir: &Path, limits: &Limits) -> Result<Connection, StoreError> {
    make_private_dir(data_dir)?;
    let path = data_dir.join(FILE_NAME);
    // A file of a newer program is looked at read-only first: opening it read-write could
    // already fold its log with rules that are not ours.
    if path.exists() {
        let reader = open(&path, data_dir, limits, AccessMode::ReadOnly)?;
        migrate::refuse_newer(&reader, &path)?;
    }
    let mut connection = open(&path, data_dir, limits, AccessMode::ReadWrite)?;
    migrate::run(&mut connection, &path)?;
    days::settle(&connection, &absolute(data_dir)?)?;
    Ok(connection)
}

/// Opens the store for reading while no hub runs.
///
/// # Errors
/// [`StoreError::Unusable`] where there is no store or its schema is older, else as [`open_write`].
pub fn open_read(data_dir: &Path, limits: &Limits) -> Result<Connection, StoreError> {
    let path = data_dir.join(FILE_NAME);
    if !path.exists() {
        return Err(StoreError::Unusable {
            path,
            reason: "no such file: nothing has been recorded here yet (start `agentmon up` or `agentmon serve`, or name the folder with --data)".into(),
        });
    }
    let connection = open(&path, data_dir, limits, AccessMode::ReadOnly)?;
    migrate::check_current(&connection, &path)?;
    Ok(connection)
}

fn open(
    path: &Path,
    data_dir: &Path,
    limits: &Limits,
    mode: AccessMode,
) -> Result<Connection, StoreError> {
    // Views name files by their whole path; links on the way to them are gone through once.
    let data_dir = absolute(data_dir)?;
    let path = path.file_name().map_or_else(|| path.to_owned(), |name| data_dir.join(name));
    let spill = data_dir.join(SPILL_DIR);
    let config = Config::default()
        .enable_autoload_extension(false)?
        .access_mode(mode)?
        .threads(i64::from(limits.threads.max(1)))?
        .max_memory(&format!("{}MiB", limits.memory_mib))?
        .with("temp_directory", spill.to_string_lossy())?
        .with("max_temp_directory_size", format!("{SPILL_MIB_MAX}MiB"))?
        .with("checkpoint_threshold", format!("{}MiB", limits.log_mib))?
        .with("default_block_size", BLOCK_BYTES.to_string())?
        .with("storage_compatibility_version", "latest")?;
    let connection =
        Connection::open_with_flags(&path, config).map_err(|e| open_error(&path, e))?;
    // After opening, so that the database itself stays allowed. All hold for every
    // connection of this instance and cannot be taken back.
    let folder = |name: &str| days::quoted(&data_dir.join(name).to_string_lossy());
    let (days, lists) = (folder(days::DIR), folder(crate::feeds::FOLDER));
    connection.execute_batch(&format!(
        "SET allowed_directories = [{days}, {lists}];
         SET enable_external_access = false;
         SET parquet_metadata_cache = true;
         SET lock_configuration = true"
    ))?;
    Ok(connection)
}

fn absolute(dir: &Path) -> Result<PathBuf, StoreError> {
    dir.canonicalize().map_err(|source| StoreError::Io { path: dir.to_owned(), source })
}

fn open_error(path: &Path, error: duckdb::Error) -> StoreError {
    let text = error.to_string();
    if !text.contains("Could not set lock") {
        return error.into();
    }
    // "... Conflicting lock is held in /usr/bin/agentmon (PID 4711). See also ..."
    let pid = text.split_once("(PID ").and_then(|(_, rest)| rest.split_once(')'));
    let pid = pid.map_or_else(|| "unknown".to_owned(), |(pid, _)| pid.to_owned());
    StoreError::Locked { path: path.to_owned(), pid }
}

/// The data directory holds tokens' hashes, keys and everybody's browsing: only its
/// owner may look in.
pub(crate) fn make_private_dir(dir: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::DirBuilderExt;
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(dir).map_err(|source| StoreError::Io { path: dir.to_owned(), source })
}
