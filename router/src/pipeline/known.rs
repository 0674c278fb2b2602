//! The devices seen so far, in a small file: so that a restart makes none of them new.
//!
//! In: tier-0's memory. Out: a file of one line each, replaced as a whole:
//!
//! ```text
//! agentmon known devices 1 learnt 86400
//! 00:00:5e:00:53:01
//! ```
//!
//! Pipeline thread. Written when a device was seen for the first time, at most every
//! [`WRITE_EVERY`], and every [`LEARNT_EVERY`] while the learning lasts: a home's file is
//! 2 KB, and after the first day it rests for weeks.
//!
//! Invariants: at most [`FILE_BYTES_MAX`] are read; a file that is missing, or nonsense, means
//! that nothing is known; one that cannot be written costs a line in the log, no more.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agentmon_core::tier0::Engine;
use agentmon_core::tier0::new_device::{KNOWN_MAX, KnownDevices};
use agentmon_core::time::Mono;

use crate::ratelimit::LogLimit;

/// Least time between two writes.
pub(super) const WRITE_EVERY: Duration = Duration::from_secs(600);
/// How often the progress of learning is written.
pub(super) const LEARNT_EVERY: Duration = Duration::from_secs(3_600);
/// A first write comes soon: a person may try things out.
const FIRST_AFTER: Duration = Duration::from_secs(10);
/// Largest file: the header, and a line of 18 bytes for each device.
const FILE_BYTES_MAX: u64 = 64 + 18 * KNOWN_MAX as u64;
const HEADER: &str = "agentmon known devices 1 learnt ";

/// The file.
#[derive(Debug, Default)]
pub(super) struct Known {
    path: PathBuf,
    /// What the file holds, by [`Engine::known_changes`].
    written: u64,
    learnt: u64,
    next: Option<Mono>,
    limit: LogLimit,
}

impl Known {
    /// Begins to use a file: what it holds is known to `engine` from now on.
    pub(super) fn open(&mut self, path: &Path, engine: &mut Engine) {
        if self.path == path || path.as_os_str().is_empty() {
            return;
        }
        path.clone_into(&mut self.path);
        let kept = match read(path, FILE_BYTES_MAX) {
            Ok(text) => parse(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => KnownDevices::default(),
            Err(error) => {
                tracing::warn!("{}: {error}; devices are learnt anew", path.display());
                KnownDevices::default()
            }
        };
        self.learnt = kept.learnt.as_secs();
        engine.remember_devices(&kept);
    }

    /// Writes when it is time.
    pub(super) fn tick(&mut self, engine: &Engine, now: Mono) {
        if self.path.as_os_str().is_empty() {
            return;
        }
        let next = *self.next.get_or_insert(now.plus(FIRST_AFTER));
        if now >= next {
            self.next = Some(now.plus(WRITE_EVERY));
            self.write(engine, now);
        }
    }

    /// Writes what is not written yet.
    pub(super) fn write(&mut self, engine: &Engine, now: Mono) {
        let changes = engine.known_changes();
        if self.path.as_os_str().is_empty() {
            return;
        }
        let (known, _) = engine.known_devices();
        let learnt = known.learnt.as_secs();
        let learns = engine.is_learning_devices() && learnt >= self.learnt + LEARNT_EVERY.as_secs();
        // Learning that ended is worth a line: else the next start goes on with it.
        let done = !engine.is_learning_devices() && self.learnt < engine.learning_devices_takes();
        if changes == self.written && !learns && !done {
            return;
        }
        match replace(&self.path, &text(&known)) {
            Ok(()) => (self.written, self.learnt) = (changes, learnt),
            Err(error) => {
                if let Some(more) = self.limit.allow("known", now) {
                    tracing::warn!(
                        "{}: {error}; after a restart devices are learnt anew{more}",
                        self.path.display()
                    );
                }
            }
        }
    }
}

/// At most `bytes_max` of a file.
pub(super) fn read(path: &Path, bytes_max: u64) -> io::Result<String> {
    let mut bytes = Vec::new();
    let file = crate::tail::position::open_regular(path)?;
    file.take(bytes_max).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn parse(text: &str) -> KnownDevices {
    let mut lines = text.lines();
    let header = lines.next().and_then(|line| line.strip_prefix(HEADER));
    let Some(learnt) = header.and_then(|seconds| seconds.parse().ok()) else {
        return KnownDevices::default();
    };
    let macs = lines.filter_map(|line| line.parse().ok()).take(KNOWN_MAX).collect();
    KnownDevices { macs, learnt: Duration::from_secs(learnt) }
}

fn text(known: &KnownDevices) -> String {
    let mut text = format!("{HEADER}{}\n", known.learnt.as_secs());
    for mac in &known.macs {
        text.push_str(&format!("{mac}\n"));
    }
    text
}

/// Puts a file in the place of another, as a whole.
pub(super) fn replace(path: &Path, text: &str) -> io::Result<()> {
    let beside = path.with_extension("new");
    // Whatever an interrupted write, or somebody else, has left there.
    drop(fs::remove_file(&beside));
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentmon_core::event::{Body, Device, DeviceSource, Event, Mac};
    use agentmon_core::tier0::blocklist::Blocklist;
    use agentmon_core::tier0::{Tier0Config, new_device};
    use agentmon_core::time::Timestamp;

    fn at(seconds: u64) -> Mono {
        Mono::from_nanos(seconds * 1_000_000_000)
    }

    fn engine(learn_seconds: u64) -> Engine {
        let new_device = new_device::Config { learn_seconds, ..new_device::Config::default() };
        Engine::new(&Tier0Config { new_device, ..Tier0Config::default() }, Blocklist::default())
    }

    /// A device shows itself, and some seconds pass; how many findings.
    fn sees(engine: &mut Engine, second: i64, mac: u8) -> usize {
        let time = |s: i64| Timestamp::from_secs(1_795_000_000 + s);
        let device = Device {
            mac: Mac([0, 0, 0x5e, 0, 0x53, mac]),
            ip: [192, 168, 1, mac].into(),
            hostname: None,
            iface: None,
            source: DeviceSource::Lease,
        };
        let mut found = Vec::new();
        engine.on_event(&mut Event { time: time(second), body: Body::Device(device) }, &mut found);
        (1..10).for_each(|n| engine.on_tick(time(second + n), &mut found));
        found.len()
    }

    #[test]
    fn a_restart_knows_who_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("known-devices");
        let (mut known, mut first) = (Known::default(), engine(30));
        known.open(&path, &mut first);
        assert_eq!(sees(&mut first, 0, 1) + sees(&mut first, 10, 2), 0);
        known.tick(&first, at(1));
        assert!(!path.exists(), "not yet");
        known.tick(&first, at(12));
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("{HEADER}19\n00:00:5e:00:53:01\n00:00:5e:00:53:02\n"));
        // The end of learning is written, and then nothing until there is a new one.
        assert_eq!(sees(&mut first, 40, 1), 0);
        known.tick(&first, at(1_000));
        assert!(fs::read_to_string(&path).unwrap().starts_with(&format!("{HEADER}49\n")));
        fs::remove_file(&path).unwrap();
        known.tick(&first, at(2_000));
        assert!(!path.exists(), "nothing new");
        assert_eq!(sees(&mut first, 60, 3), 1);
        known.write(&first, at(2_001));
        // Another life.
        let (mut known, mut second) = (Known::default(), engine(30));
        known.open(&path, &mut second);
        assert_eq!(
            [1, 2, 3, 4].map(|mac| sees(&mut second, 20 * i64::from(mac), mac)),
            [0, 0, 0, 1]
        );
    }

    #[test]
    fn nonsense_means_that_nothing_is_known() {
        assert_eq!(parse(""), KnownDevices::default());
        assert_eq!(parse("<html>\n00:00:5e:00:53:01\n"), KnownDevices::default());
        let some = parse(&format!("{HEADER}7\nnonsense\n00:00:5e:00:53:01\n\u{fffd}\n"));
        assert_eq!((some.macs.len(), some.learnt.as_secs()), (1, 7));
        let mut known = Known::default();
        known.open(Path::new("/proc/self/nowhere/known"), &mut engine(1));
        known.write(&engine(1), at(0));
    }

    #[test]
    fn a_link_in_its_place_is_replaced_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("known"), dir.path().join("other"));
        fs::write(&other, "precious").unwrap();
        std::os::unix::fs::symlink(&other, path.with_extension("new")).unwrap();
        replace(&path, "text").unwrap();
        assert_eq!(fs::read_to_string(&other).unwrap(), "precious");
        assert_eq!(fs::read_to_string(&path).unwrap(), "text");
    }
}
