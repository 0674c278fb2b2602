//! What the service asks of the system besides what it watches: signals, priority, a folder
//! of its own.
//!
//! Any thread; [`prepare`] before the first. On Linux and macOS a private folder is one of mode
//! 0700; on Windows one that only administrators and the system itself may open.

use std::io;
use std::path::Path;
use std::time::Duration;

/// Before the first thread: signals to stop are taken by [`wait_stop`] from now on.
///
/// # Errors
/// What the system says.
#[cfg(target_os = "linux")]
pub fn prepare() -> io::Result<()> {
    agentmon_router::sys::limit_memory_arenas();
    agentmon_router::sys::block_signals()
}

/// Waits at most `timeout`; true when asked to stop.
///
/// # Errors
/// What the system says.
#[cfg(target_os = "linux")]
pub fn wait_stop(timeout: Duration) -> io::Result<bool> {
    use agentmon_router::sys::{Signal, wait_signal};
    Ok(wait_signal(timeout)? == Some(Signal::Stop))
}

#[cfg(not(target_os = "linux"))]
static STOP: std::sync::LazyLock<agentmon_router::wake::Wake> =
    std::sync::LazyLock::new(agentmon_router::wake::Wake::default);

/// Before the first thread: signals to stop are taken by [`wait_stop`] from now on.
///
/// # Errors
/// What the system says.
#[cfg(not(target_os = "linux"))]
pub fn prepare() -> io::Result<()> {
    #[cfg(windows)]
    return crate::windows::on_console_end(stop);
    #[cfg(unix)]
    {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP])?;
        let wait = move || {
            // One that is asked twice ends all the same.
            while signals.forever().next().is_some() {
                stop();
            }
        };
        std::thread::Builder::new().name("signals".into()).spawn(wait).map(drop)
    }
}

/// Asks this program to stop.
#[cfg(not(target_os = "linux"))]
pub fn stop() {
    STOP.ring();
}

/// Waits at most `timeout`; true when asked to stop.
///
/// # Errors
/// None here.
#[cfg(not(target_os = "linux"))]
pub fn wait_stop(timeout: Duration) -> io::Result<bool> {
    Ok(STOP.wait(timeout))
}

/// Before the first thread: what is never needed is given away.
///
/// # Errors
/// What the system says; no harm.
pub fn drop_privileges() -> io::Result<()> {
    #[cfg(target_os = "linux")]
    crate::linux::privileges::at_start()?;
    Ok(())
}

/// Of the thread that watches, once everything is open. From here on nothing can be opened
/// again: a watch that fails ends the program, and who started it starts it again.
///
/// # Errors
/// What the system says; no harm.
pub fn keep_for_watching() -> io::Result<()> {
    #[cfg(target_os = "linux")]
    crate::linux::privileges::keep(crate::linux::privileges::WATCHING)?;
    Ok(())
}

/// Of a thread that needs none. Where there are none to give away nothing is lost.
pub fn drop_all_privileges() {
    #[cfg(target_os = "linux")]
    if let Err(error) = crate::linux::privileges::keep(rustix::thread::CapabilitySet::empty()) {
        tracing::debug!("privileges: {error}");
    }
}

/// Others' work comes first from now on.
///
/// # Errors
/// What the system says; no harm.
pub fn yield_to_others() -> io::Result<()> {
    #[cfg(unix)]
    return Ok(rustix::process::nice(10).map(drop)?);
    #[cfg(windows)]
    return crate::windows::yield_to_others();
}

/// Makes a folder, with those above it, that holds secrets.
///
/// # Errors
/// What the system says.
pub fn private_dir(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
    }
    #[cfg(windows)]
    return crate::windows::private_dir(path);
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_folder_for_secrets_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        private_dir(&path).unwrap();
        private_dir(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        std::fs::write(dir.path().join("file"), "").unwrap();
        assert!(private_dir(&dir.path().join("file/c")).is_err());
    }
}
