//! Who may talk to whom, on hosts whose agent tells of processes.
//!
//! In: `authority.toml` in the data directory (a person's policy), the shipped catalogue of
//! AI agents with the person's `agents.toml` over it, the rules of who should not start whom
//! with the person's `ancestry.toml` over them, events. Out: findings of rules `authority` and
//! `ancestry` as connections arrive ([`judge`]), and answers about the past ([`replay`]).
//! What a policy means is decided in the core, the same everywhere.

pub(crate) mod ancestry;
pub(crate) mod catalogue;
pub(crate) mod judge;
pub(crate) mod learn;
pub(crate) mod replay;
pub(crate) mod settings;
mod words;

use std::path::{Path, PathBuf};

use agentmon_core::authority::{Policy, Problem};
use anyhow::Context as _;

/// The policy's name in the data directory.
const POLICY: &str = "authority.toml";
/// Largest policy read.
const POLICY_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Where the policy is.
pub(crate) fn policy_path(data_dir: &Path) -> PathBuf {
    data_dir.join(POLICY)
}

/// Reads a policy; `None` where there is no file.
///
/// # Errors
/// A file that cannot be read, or is none: with its line.
pub(crate) fn read_policy(path: &Path) -> anyhow::Result<Option<Policy>> {
    let Some(text) = read_text(path)? else { return Ok(None) };
    toml::from_str(&text).map(Some).with_context(|| path.display().to_string())
}

pub(crate) fn read_text(path: &Path) -> anyhow::Result<Option<String>> {
    let shown = || path.display().to_string();
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(shown),
        Ok(meta) => anyhow::ensure!(
            meta.len() <= POLICY_BYTES_MAX,
            "{}: longer than {POLICY_BYTES_MAX} bytes",
            shown()
        ),
    }
    std::fs::read_to_string(path).map(Some).with_context(shown)
}

/// Problems as one error.
fn joined(problems: &[Problem]) -> anyhow::Error {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    anyhow::anyhow!("{}", lines.join("; "))
}
