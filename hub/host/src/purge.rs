//! Removes what this program has written, and nothing else.
//!
//! In: the configuration. Out: a line for each file that is gone. The ring with its side files,
//! its snapshot, the identity, and the state folder where that is empty then. What the kernel
//! was given is gone with the process: nothing of it is pinned. Program, unit and configuration
//! were put there by whoever installed them: the unit's head says how to take them away.

use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::config::Config;

/// What SQLite puts beside a database.
const BESIDE: [&str; 4] = ["", "-wal", "-shm", "-journal"];

/// Removes it; asked again there is nothing to do.
///
/// # Errors
/// What the system says, with the file.
pub fn purge(config: &Config, out: &mut dyn Write) -> anyhow::Result<()> {
    let databases = [&config.ring.path, &config.ring.snapshot_path];
    let beside = |path: &PathBuf| BESIDE.map(|end| with_end(path, end));
    let files = databases.into_iter().flat_map(beside).chain([config.forward.identity.clone()]);
    for file in files {
        if gone(std::fs::remove_file(&file)).with_context(|| file.display().to_string())? {
            writeln!(out, "removed {}", file.display())?;
        }
    }
    let folder = &config.state_dir;
    match gone(std::fs::remove_dir(folder)) {
        Ok(true) => writeln!(out, "removed {}", folder.display())?,
        Ok(false) => {}
        Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {
            writeln!(out, "kept {}: others' files are in there", folder.display())?;
        }
        Err(error) => return Err(error).with_context(|| folder.display().to_string()),
    }
    Ok(())
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

/// Whether it was there.
fn gone(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        other => other.map(|()| true),
    }
}
