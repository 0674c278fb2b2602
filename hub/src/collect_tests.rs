//! Passes over real files, ended anywhere.

use std::collections::BTreeMap;

use agentmon_core::tier0::Tier0Config;
use agentmon_core::tier0::blocklist::Blocklist;
use agentmon_core::time::SystemClock;
use agentmon_router::collect::dnsmasq_log;
use tempfile::TempDir;

use super::*;

const NOW: Timestamp = Timestamp::from_secs(1_795_444_327);

/// A log, a data directory, and what the hub holds: by epoch and number.
struct Rig {
    dir: TempDir,
    held: BTreeMap<(u64, u64), Vec<u8>>,
    /// Sends that still go well; afterwards the hub takes the batch and does not say so.
    good: usize,
}

impl Rig {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), held: BTreeMap::new(), good: usize::MAX }
    }

    fn log(&self, range: std::ops::Range<u32>) {
        let mut text = String::new();
        for i in range {
            let head =
                format!("Nov 23 14:{:02}:{:02} dnsmasq[7]: {i} 192.0.2.31/4000", i / 60, i % 60);
            text.push_str(&format!("{head} query[A] n{i}.example from 192.0.2.31\n"));
            text.push_str(&format!("{head} forwarded n{i}.example to 192.0.2.53\n"));
            text.push_str(&format!("{head} reply n{i}.example is 203.0.113.80\n"));
        }
        let path = self.dir.path().join("dns.log");
        let mut file = File::options().create(true).append(true).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn pass(&mut self) -> anyhow::Result<Passed> {
        let config = dnsmasq_log::Config {
            enabled: true,
            paths: vec![self.dir.path().join("dns.log")],
            from_start: true,
            poll_ms: 50,
            ..dnsmasq_log::Config::default()
        };
        let source = Box::new(dnsmasq_log::Source::new(config));
        let key = source.checkpoint_key().unwrap();
        let mut memory = Memory::open(self.dir.path(), "attic", &key, NOW)?;
        let mut engine = Engine::new(&Tier0Config::default(), Blocklist::default());
        let (held, good) = (&mut self.held, &mut self.good);
        let mut send = |batch: Batch| {
            let mut new = 0;
            for (seq, event) in (batch.first_seq..).zip(batch.events) {
                let known = held.insert((batch.epoch, seq), event.clone());
                assert!(known.is_none_or(|known| known == event), "{seq} says something else");
                new += 1;
            }
            *good = good.checked_sub(1).context("the line broke")?;
            Ok(new)
        };
        let time: (Arc<dyn Clock>, _) = (Arc::new(SystemClock), Some(Duration::from_secs(3_600)));
        pass(source, &mut memory, &mut engine, time, &mut send)
    }

    fn names(&self) -> BTreeMap<String, u32> {
        let mut names = BTreeMap::new();
        for event in self.held.values() {
            if let Body::Dns(dns) = wire::decode_event(event).unwrap().body {
                *names.entry(dns.name.as_str().to_owned()).or_default() += 1;
            }
        }
        names
    }
}

/// The newest questions may wait for the next pass; nothing is told twice.
#[track_caller]
fn once_each(rig: &Rig, at_least: usize) {
    let names = rig.names();
    assert!(names.values().all(|n| *n == 1), "{names:?}");
    assert!(names.len() >= at_least, "{} of {at_least}", names.len());
}

#[test]
fn pass_after_pass_tells_what_is_new() {
    let mut rig = Rig::new();
    rig.log(0..300);
    let first = rig.pass().unwrap();
    assert!(first.caught_up && first.state.starts_with("ok"), "{first:?}");
    once_each(&rig, 290);
    let before = rig.held.len();
    assert_eq!(rig.pass().unwrap().findings, 0);
    rig.log(300..600);
    rig.pass().unwrap();
    once_each(&rig, 590);
    assert!(rig.held.len() > before);
    assert_eq!(
        rig.held.keys().map(|(epoch, _)| epoch).collect::<std::collections::BTreeSet<_>>().len(),
        1
    );
}

/// The hub had taken the batch, but nobody heard it say so.
#[test]
fn a_broken_line_doubles_and_loses_nothing() {
    for good in 0..4 {
        let mut rig = Rig::new();
        rig.log(0..3_000);
        rig.good = good;
        let error = rig.pass().map(|_| ()).map_err(|error| error.to_string());
        rig.good = usize::MAX;
        rig.pass().unwrap();
        rig.pass().unwrap();
        once_each(&rig, 2_990);
        assert!(good == 3 || error == Err("the line broke".into()), "{good}: {error:?}");
    }
}

#[test]
fn two_at_a_time_are_refused() {
    let mut rig = Rig::new();
    rig.log(0..3);
    let key = format!("dnsmasq-log:{}", rig.dir.path().join("dns.log").display());
    let _other = Memory::open(rig.dir.path(), "attic", &key, NOW).unwrap();
    assert!(rig.pass().unwrap_err().to_string().contains("another `collect`"));
}

#[test]
fn a_damaged_memory_is_told() {
    let rig = Rig::new();
    drop(Memory::open(rig.dir.path(), "attic", "x", NOW).unwrap().save());
    let folder = rig.dir.path().join(FOLDER);
    let file = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    let file = file.into_iter().find(|p| p.extension().is_some_and(|e| e == "json")).unwrap();
    std::fs::write(file, "{").unwrap();
    let error = Memory::open(rig.dir.path(), "attic", "x", NOW).unwrap_err();
    assert!(format!("{error:#}").contains("remove it"), "{error:#}");
}
