//! Devices from the DHCP lease files of dnsmasq and odhcpd.
//!
//! In: lease files, read again when they change. Out: a device event for every lease that
//! is new or different. One thread that looks every few seconds; memory at most
//! [`FILE_BYTES_MAX`] while reading and about 200 bytes per lease.
//!
//! Invariants: a lease is told once until it changes, and once more after a restart; a file
//! that is missing, cut short or full of nonsense costs nothing that is known already; a
//! lease that vanished is forgotten, so that its return is news.

pub mod decode;

use std::collections::HashMap;
use std::fs::Metadata;
use std::io::{self, Read};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use agentmon_core::Event;
use agentmon_core::event::{Body, Device, DeviceSource};
use agentmon_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use self::decode::{Lease, decode};
use super::{Collector, Context, DELIVERY_EVENTS_MAX, Delivery};
use crate::tail::position::{FileId, mtime_ns, open_regular};

/// Most lease files.
pub const PATHS_MAX: usize = 16;
/// Most bytes read of one file: 4,096 leases of 256 bytes.
pub const FILE_BYTES_MAX: u64 = 1_048_576;
/// A file changed less than this before it was read may change again under the same time
/// stamp, so it is read once more.
const SETTLE: Duration = Duration::from_secs(2);

/// Settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether this collector runs.
    pub enabled: bool,
    /// Lease files of dnsmasq or odhcpd; those that do not exist are left alone.
    pub paths: Vec<PathBuf>,
    /// How often to look for changes, in milliseconds (200 to 60000).
    pub poll_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        let paths = [
            "/tmp/dhcp.leases",
            "/var/lib/misc/dnsmasq.leases",
            "/etc/pihole/dhcp.leases",
            "/tmp/hosts/odhcpd",
            "/tmp/odhcpd.leases",
        ];
        Self { enabled: true, paths: paths.map(PathBuf::from).to_vec(), poll_ms: 3_000 }
    }
}

impl Config {
    /// Whether the values make sense together.
    ///
    /// # Errors
    /// The key, and what is wrong with its value.
    pub fn validate(&self) -> Result<(), (&'static str, String)> {
        if self.paths.len() > PATHS_MAX {
            let n = self.paths.len();
            return Err(("paths", format!("want at most {PATHS_MAX} lease files, not {n}")));
        }
        if let Some(path) = self.paths.iter().find(|p| !p.is_absolute()) {
            return Err(("paths", format!("{} is no absolute path", path.display())));
        }
        if !(200..=60_000).contains(&self.poll_ms) {
            return Err(("poll_ms", format!("want 200 to 60000, not {}", self.poll_ms)));
        }
        Ok(())
    }
}

/// Which state of a file was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    id: FileId,
    size: u64,
    mtime_ns: i64,
}

impl Version {
    fn of(meta: &Metadata) -> Self {
        Self { id: FileId::of(meta), size: meta.len(), mtime_ns: mtime_ns(meta) }
    }
    fn is_settled(self, now: Timestamp) -> bool {
        Timestamp::from_nanos(self.mtime_ns).distance(now) >= SETTLE
    }
}

#[derive(Debug, Default)]
struct Known {
    version: Option<Version>,
    leases: HashMap<IpAddr, Lease>,
}

/// The collector.
#[derive(Debug)]
pub struct Source {
    config: Config,
    files: Vec<Known>,
}

impl Source {
    /// Not yet reading.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let files = config.paths.iter().map(|_| Known::default()).collect();
        Self { config, files }
    }

    /// Looks at all files once; the changed leases. The number of files that are there.
    fn look(&mut self, context: &Context, out: &mut Vec<Event>) -> io::Result<usize> {
        let mut present = 0;
        for (path, known) in self.config.paths.iter().zip(&mut self.files) {
            let now = context.clock.wall();
            let file = match open_regular(path) {
                Ok(file) => file,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(io::Error::new(e.kind(), format!("{}: {e}", path.display()))),
            };
            let meta = file.metadata()?;
            present += 1;
            let version = Version::of(&meta);
            if known.version == Some(version) {
                continue;
            }
            let mut bytes = Vec::new();
            file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
            known.version = version.is_settled(now).then_some(version);
            let decoded = decode(&bytes);
            let count = |name: &str, n: u64| {
                if n > 0 {
                    context.counters.counter(name).add(n);
                }
            };
            count("leases.bad_line", decoded.bad_lines);
            count("leases.without_mac", decoded.without_mac);
            count("drop.leases.too_many", decoded.cut);
            count("drop.leases.file_too_long", u64::from(meta.len() > FILE_BYTES_MAX));
            known.update(decoded.leases, now, out);
        }
        Ok(present)
    }
}

impl Known {
    /// Takes over the leases of a file; what is new or different goes out.
    fn update(&mut self, leases: Vec<Lease>, now: Timestamp, out: &mut Vec<Event>) {
        let mut next = HashMap::with_capacity(leases.len());
        for lease in leases {
            if self.leases.get(&lease.ip) != Some(&lease) && next.get(&lease.ip) != Some(&lease) {
                out.push(event(&lease, now));
            }
            next.insert(lease.ip, lease);
        }
        self.leases = next;
    }
}

fn event(lease: &Lease, time: Timestamp) -> Event {
    let body = Device {
        mac: lease.mac,
        ip: lease.ip,
        hostname: lease.hostname.clone(),
        iface: lease.iface.clone(),
        source: DeviceSource::Lease,
    };
    Event { time, body: Body::Device(body) }
}

impl Collector for Source {
    fn name(&self) -> &str {
        "leases"
    }

    fn run(&mut self, context: &Context) -> anyhow::Result<()> {
        let told = context.counters.counter("leases.devices");
        loop {
            let mut events = Vec::new();
            let present = self.look(context, &mut events)?;
            let known: usize = self.files.iter().map(|f| f.leases.len()).sum();
            context.state.set(if present == 0 {
                "no lease file there: this machine hands out no addresses, or set collect.leases.paths"
                    .to_owned()
            } else {
                format!("ok: {known} leases in {present} files")
            });
            told.add(events.len() as u64);
            while !events.is_empty() {
                let rest = events.split_off(events.len().min(DELIVERY_EVENTS_MAX));
                let delivery = Delivery { events, checkpoint: None };
                if context.outbox.send(delivery).is_err() {
                    return Ok(());
                }
                events = rest;
            }
            if context.stop.sleep(Duration::from_millis(self.config.poll_ms)) {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use agentmon_core::time::SystemClock;

    use super::*;
    use crate::collect::{Outbox, State, Stop};
    use crate::counters::Counters;

    fn context() -> (Context, std::sync::mpsc::Receiver<Delivery>) {
        let (outbox, receiver) = Outbox::channel();
        let context = Context {
            outbox,
            stop: Stop::default(),
            clock: Arc::new(SystemClock),
            counters: Counters::default(),
            state: State::default(),
        };
        (context, receiver)
    }

    #[track_caller]
    fn looks(source: &mut Source, context: &Context, expected: &[&str]) {
        let mut events = Vec::new();
        source.look(context, &mut events).unwrap();
        let got: Vec<String> = events
            .iter()
            .map(|e| match &e.body {
                Body::Device(d) => format!("{} {}", d.ip, d.hostname.as_deref().unwrap_or("-")),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(got, expected);
    }

    const A: &str = "0 00:00:5e:00:53:01 192.0.2.1 one *\n";
    const B: &str = "0 00:00:5e:00:53:02 192.0.2.2 two *\n";

    #[test]
    fn only_what_changed_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("leases");
        let (context, _receiver) = context();
        let mut source = Source::new(Config { paths: vec![path.clone()], ..Config::default() });
        looks(&mut source, &context, &[]);
        fs::write(&path, A).unwrap();
        looks(&mut source, &context, &["192.0.2.1 one"]);
        looks(&mut source, &context, &[]);
        fs::write(&path, format!("{A}{B}")).unwrap();
        looks(&mut source, &context, &["192.0.2.2 two"]);
        fs::write(&path, format!("{A}{}", B.replace("two", "*"))).unwrap();
        looks(&mut source, &context, &["192.0.2.2 -"]);
        // Another device at the same address; then gone and back.
        fs::write(&path, A.replace("53:01", "53:09")).unwrap();
        looks(&mut source, &context, &["192.0.2.1 one"]);
        fs::write(&path, format!("{A}{B}")).unwrap();
        looks(&mut source, &context, &["192.0.2.1 one", "192.0.2.2 two"]);
        fs::remove_file(&path).unwrap();
        looks(&mut source, &context, &[]);
        fs::write(&path, format!("{A}{B}")).unwrap();
        looks(&mut source, &context, &[]);
    }

    #[test]
    fn the_same_size_under_the_same_time_stamp_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("leases");
        let (context, _receiver) = context();
        let mut source = Source::new(Config { paths: vec![path.clone()], ..Config::default() });
        fs::write(&path, A).unwrap();
        let stamp = fs::metadata(&path).unwrap().modified().unwrap();
        looks(&mut source, &context, &["192.0.2.1 one"]);
        fs::write(&path, A.replace("one", "new")).unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_modified(stamp).unwrap();
        looks(&mut source, &context, &["192.0.2.1 new"]);
    }

    #[test]
    fn runs_until_stopped_and_says_what_it_sees() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("leases");
        fs::write(&path, format!("{A}{B}nonsense\n")).unwrap();
        let (context, receiver) = context();
        let (stop, state, counters) =
            (context.stop.clone(), context.state.clone(), context.counters.clone());
        let mut source = Source::new(Config { paths: vec![path], poll_ms: 200, enabled: true });
        let thread = std::thread::spawn(move || source.run(&context));
        let delivery = receiver.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!(delivery.events.len(), 2);
        stop.stop();
        thread.join().unwrap().unwrap();
        assert_eq!(state.get(), "ok: 2 leases in 1 files");
        assert!(counters.snapshot()["leases.bad_line"] >= 1);
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        let good = Config::default();
        assert_eq!(good.validate(), Ok(()));
        let relative = Config { paths: vec!["leases".into()], ..good.clone() };
        assert!(relative.validate().unwrap_err().1.contains("absolute"));
        let hasty = Config { poll_ms: 1, ..good };
        assert!(hasty.validate().unwrap_err().0.contains("poll_ms"));
    }
}
