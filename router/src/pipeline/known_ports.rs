//! The ports each device uses, in a small file: so that a restart learns none of them anew.
//!
//! In: tier-0's memory. Out: a file beside that of the known devices ([`super::known`]), a line
//! for each device with the seconds it was watched, replaced as a whole:
//!
//! ```text
//! agentmon known ports 1
//! 100::5e:0:5301 86400 7000/tcp 4444/tcp
//! ```
//!
//! Pipeline thread. Written when there is a new device or port, at most every
//! [`WRITE_EVERY`], and every [`LEARNT_EVERY`] while some device is watched for less than the
//! learning takes; a home's file is 2 KB.
//!
//! Invariants: at most [`FILE_BYTES_MAX`] are read; a file that is missing, or nonsense, means
//! that nothing is known; one that cannot be written costs a line in the log, no more.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agentmon_core::tier0::Engine;
use agentmon_core::tier0::unusual_port::{DEVICES_MAX, DevicePorts, KnownPorts, PORTS_MAX};
use agentmon_core::time::Mono;

use super::known::{LEARNT_EVERY, WRITE_EVERY, read, replace};
use crate::ratelimit::LogLimit;

const FILE_NAME: &str = "known-ports";
const HEADER: &str = "agentmon known ports 1";
/// Longest line: an address, a number, and `65535/udplite` so many times.
const LINE_BYTES_MAX: usize = 64 + PORTS_MAX * 14;
/// Largest file.
const FILE_BYTES_MAX: u64 = 64 + (DEVICES_MAX * LINE_BYTES_MAX) as u64;

/// The file.
#[derive(Debug, Default)]
pub(super) struct KnownPortsFile {
    path: PathBuf,
    /// What the file holds, by [`Engine::known_ports_changes`].
    written: u64,
    /// Some device's ports were still learnt when it was written.
    learning: bool,
    next: Option<Mono>,
    progress: Option<Mono>,
    limit: LogLimit,
}

impl KnownPortsFile {
    /// Begins to use the file beside `devices`: what it holds is known to `engine` from now on.
    pub(super) fn open(&mut self, devices: &Path, engine: &mut Engine) {
        let path = devices.with_file_name(FILE_NAME);
        if self.path == path || devices.as_os_str().is_empty() {
            return;
        }
        let kept = match read(&path, FILE_BYTES_MAX) {
            Ok(text) => parse(&text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => KnownPorts::default(),
            Err(error) => {
                tracing::warn!("{}: {error}; ports are learnt anew", path.display());
                KnownPorts::default()
            }
        };
        engine.remember_ports(kept);
        self.learning = engine.is_learning_ports();
        self.path = path;
    }

    /// Writes when it is time.
    pub(super) fn tick(&mut self, engine: &Engine, now: Mono) {
        let next = *self.next.get_or_insert(now.plus(WRITE_EVERY));
        let progress = *self.progress.get_or_insert(now.plus(LEARNT_EVERY));
        let learns = now >= progress && (self.learning || engine.is_learning_ports());
        if now >= next && (learns || engine.known_ports_changes() != self.written) {
            self.next = Some(now.plus(WRITE_EVERY));
            self.write(engine, now);
        }
    }

    /// Writes what is not written yet.
    pub(super) fn write(&mut self, engine: &Engine, now: Mono) {
        let learning = engine.is_learning_ports();
        let (known, changes) = engine.known_ports();
        if self.path.as_os_str().is_empty()
            || (changes == self.written && !learning && !self.learning)
        {
            return;
        }
        match replace(&self.path, &text(&known)) {
            Ok(()) => {
                (self.written, self.learning) = (changes, learning);
                self.progress = Some(now.plus(LEARNT_EVERY));
            }
            Err(error) => {
                if let Some(more) = self.limit.allow("known ports", now) {
                    let path = self.path.display();
                    tracing::warn!("{path}: {error}; after a restart ports are learnt anew{more}");
                }
            }
        }
    }
}

fn parse(text: &str) -> KnownPorts {
    let mut lines = text.lines();
    if lines.next() != Some(HEADER) {
        return KnownPorts::default();
    }
    KnownPorts { devices: lines.filter_map(device).take(DEVICES_MAX).collect() }
}

fn device(line: &str) -> Option<DevicePorts> {
    let mut words = line.split(' ');
    let (device, watched) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let ports = words.filter_map(|word| word.parse().ok()).take(PORTS_MAX).collect();
    Some(DevicePorts { device, watched: Duration::from_secs(watched), ports })
}

fn text(known: &KnownPorts) -> String {
    let mut text = format!("{HEADER}\n");
    for DevicePorts { device, watched, ports } in &known.devices {
        let _infallible = write!(text, "{device} {}", watched.as_secs());
        for port in ports {
            let _infallible = write!(text, " {port}");
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentmon_core::Timestamp;
    use agentmon_core::event::{Body, Event};
    use agentmon_core::sample::flow;
    use agentmon_core::tier0::blocklist::Blocklist;
    use agentmon_core::tier0::{Tier0Config, unusual_port};

    fn at(seconds: u64) -> Mono {
        Mono::from_nanos(seconds * 1_000_000_000)
    }

    fn engine() -> Engine {
        let unusual_port =
            unusual_port::Config { learning_seconds: 300, ..unusual_port::Config::default() };
        Engine::new(&Tier0Config { unusual_port, ..Tier0Config::default() }, Blocklist::default())
    }

    /// A camera connects, then; how many findings about ports.
    fn connects(engine: &mut Engine, second: i64, port: u16) -> usize {
        let (time, mut found) = (Timestamp::from_secs(1_795_000_000 + second), Vec::new());
        let flow = flow("192.168.1.5", &format!("203.0.113.9:{port}"));
        engine.on_event(&mut Event { time, body: Body::Flow(flow) }, &mut found);
        found.iter().filter(|found| found.finding.rule == "unusual-port").count()
    }

    #[test]
    fn a_restart_knows_the_ports() {
        let dir = tempfile::tempdir().unwrap();
        let devices = dir.path().join("known-devices");
        let path = dir.path().join(FILE_NAME);
        let (mut file, mut first) = (KnownPortsFile::default(), engine());
        file.open(&devices, &mut first);
        assert_eq!(connects(&mut first, 0, 7_000) + connects(&mut first, 250, 7_001), 0);
        file.tick(&first, at(0));
        assert!(!path.exists(), "not yet");
        file.tick(&first, at(600));
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("{HEADER}\n192.168.1.5 250 7000/tcp 7001/tcp\n"));
        // The end of learning is written, and then nothing until there is something new.
        assert_eq!(connects(&mut first, 310, 7_000), 0);
        file.tick(&first, at(5_000));
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("{HEADER}\n192.168.1.5 310 7000/tcp 7001/tcp\n"));
        std::fs::remove_file(&path).unwrap();
        file.tick(&first, at(20_000));
        file.write(&first, at(20_001));
        assert!(!path.exists(), "nothing new");
        assert_eq!(connects(&mut first, 320, 7_002), 1);
        file.write(&first, at(20_002));
        // Another life.
        let (mut file, mut second) = (KnownPortsFile::default(), engine());
        file.open(&devices, &mut second);
        let said = [7_000, 7_001, 7_002, 7_003].map(|port| connects(&mut second, 0, port));
        assert_eq!(said, [0, 0, 0, 1]);
    }

    #[test]
    fn nonsense_means_that_nothing_is_known() {
        assert_eq!(parse(""), KnownPorts::default());
        assert_eq!(parse("<html>\n192.0.2.1 9 1/tcp\n"), KnownPorts::default());
        let lines = "x\n192.0.2.1\n192.0.2.2 -1\n192.0.2.3 7 443/tcp nonsense 0x5/udp\n\u{fffd}";
        let some = parse(&format!("{HEADER}\n{lines}\n"));
        assert_eq!(text(&some), format!("{HEADER}\n192.0.2.3 7 443/tcp\n"));
        let most = parse(&format!("{HEADER}\n192.168.1.5 {} 443/tcp\n", u64::MAX));
        let mut engine = engine();
        engine.remember_ports(most);
        assert_eq!(connects(&mut engine, 0, 4_444), 1, "watched for long enough");
        let mut file = KnownPortsFile::default();
        file.open(Path::new("/proc/self/nowhere/known"), &mut engine);
        file.write(&engine, at(0));
    }
}
