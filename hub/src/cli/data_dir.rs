//! Which directory holds the store.
//!
//! `--data DIR`, else `AGENTMON_DATA`, else `/var/lib/agentmon` for root, else
//! `$XDG_DATA_HOME/agentmon`, else `~/.local/share/agentmon` (XDG base directories).

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::bail;

use crate::store;

/// Where a service run by root keeps its data.
const SYSTEM_DIR: &str = "/var/lib/agentmon";

/// The directory by the rules above; `explicit` stands for `--data` and `AGENTMON_DATA`.
pub(crate) fn choose(explicit: Option<&Path>) -> anyhow::Result<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(dir) = explicit {
        return Ok(dir.to_owned());
    }
    // The owner of /proc/self is this process's effective user.
    let root = std::fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0);
    fallback(root, variable("XDG_DATA_HOME"), variable("HOME"))
}

/// Where a made-up day goes when no directory is named: beside the real data, never into it.
pub(crate) fn choose_for_demo(explicit: Option<&Path>) -> anyhow::Result<PathBuf> {
    let mut dir = choose(explicit)?.into_os_string();
    if explicit.is_none() {
        dir.push("-demo");
    }
    Ok(dir.into())
}

fn fallback(root: bool, xdg: Option<PathBuf>, home: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    if root {
        return Ok(SYSTEM_DIR.into());
    }
    // The specification: relative paths are invalid and ignored.
    match (xdg.filter(|p| p.is_absolute()), home) {
        (Some(xdg), _) => Ok(xdg.join("agentmon")),
        (None, Some(home)) => Ok(home.join(".local/share/agentmon")),
        (None, None) => bail!("no place for data: set --data DIR or AGENTMON_DATA"),
    }
}

/// Fails with the way forward where there is no store yet.
pub(crate) fn must_hold_a_store(dir: &Path) -> anyhow::Result<()> {
    match dir.join(store::FILE_NAME).try_exists() {
        Ok(true) => return Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => bail!(
            "{} is not readable for this user: run as the hub's user (or with sudo)",
            dir.display()
        ),
        _ => {}
    }
    bail!(
        "no agentmon data in {dir}\n\
         \n\
         Start collecting on this machine:          agentmon up --data {dir}\n\
         See it with a made-up day of a home:       agentmon up --demo --data {dir}\n\
         Read another directory:                    agentmon --data DIR ...\n\
         (a hub run as a service keeps its data in {SYSTEM_DIR}, readable by its own user)",
        dir = dir.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_places() {
        #[track_caller]
        fn check(root: bool, xdg: Option<&str>, home: Option<&str>, expected: Option<&str>) {
            let got = fallback(root, xdg.map(Into::into), home.map(Into::into)).ok();
            assert_eq!(got, expected.map(PathBuf::from));
        }
        check(true, Some("/x"), Some("/h"), Some("/var/lib/agentmon"));
        check(false, Some("/x"), Some("/h"), Some("/x/agentmon"));
        check(false, Some("x"), Some("/h"), Some("/h/.local/share/agentmon"));
        check(false, None, Some("/h"), Some("/h/.local/share/agentmon"));
        check(false, None, None, None);
        assert_eq!(choose(Some(Path::new("d"))).unwrap(), PathBuf::from("d"));
        assert_eq!(choose_for_demo(Some(Path::new("d"))).unwrap(), PathBuf::from("d"));
        let demo = choose_for_demo(None).unwrap();
        assert!(demo.to_str().is_some_and(|d| d.ends_with("/agentmon-demo")), "{demo:?}");
    }

    #[test]
    fn an_empty_directory_says_how_to_start() {
        let dir = tempfile::tempdir().unwrap();
        let error = must_hold_a_store(dir.path()).unwrap_err().to_string();
        assert!(error.contains("agentmon up --demo --data"), "{error}");
        std::fs::write(dir.path().join(store::FILE_NAME), b"").unwrap();
        must_hold_a_store(dir.path()).unwrap();
    }
}
