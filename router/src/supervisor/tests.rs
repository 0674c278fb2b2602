//! Whole routers in one process: real threads, clock and files, a TLS hub.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::join;
use crate::status::CollectorStatus;
use crate::testhub::{Say, TestHub};

/// Waits for something that must come true; patience grows by `AGENTMON_PATIENCE`.
#[track_caller]
pub(super) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let factor = std::env::var("AGENTMON_PATIENCE").ok().and_then(|p| p.parse().ok()).unwrap_or(1);
    for _ in 0..factor * 1_500 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("not within patience: {what}");
}

/// A quiet router: only `replay`, when there is a file for it.
fn config(dir: &Path, replay: Option<&Path>) -> Config {
    let mut text = format!("state_dir = \"{}\"\n", dir.display());
    for collector in ["conntrack", "firewall", "passive_dns", "dnsmasq_log", "leases", "neighbours"]
    {
        text += &format!("[collect.{collector}]\nenabled = false\n");
    }
    if let Some(path) = replay {
        text += &format!("[collect.replay]\nenabled = true\npath = \"{}\"\n", path.display());
    }
    Config::parse(&text).unwrap()
}

fn write_events(path: &Path, n: u64) {
    let line = |i| {
        let ns = 1_795_000_000_000_000_000u64 + i * 1_000_000;
        format!(
            "{{\"time_ns\":{ns},\"kind\":\"gap\",\"collector\":\"c{i}\",\"from\":{ns},\"reason\":\"r\"}}\n"
        )
    };
    std::fs::write(path, (0..n).map(line).collect::<String>()).unwrap();
}

fn states(router: &RouterHandle) -> Vec<(String, String)> {
    let shown = |c: CollectorStatus| (c.name, c.state);
    router.status().collectors.into_iter().map(shown).collect()
}

#[test]
fn events_go_from_file_to_hub_and_a_restart_doubles_none() {
    let stored = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&stored);
    let hub = TestHub::start(move |asked| {
        let batch = asked.batch();
        count.fetch_add(batch.events.len() as u64, Ordering::SeqCst);
        Say::acked(&batch)
    });
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("events.ndjson");
    write_events(&file, 3_000);
    let state = dir.path().join("state");
    join::save(&state.join("identity.json"), &hub.join("secret")).unwrap();
    let router = start(config(&state, Some(&file))).unwrap();
    eventually("all events at the hub", || stored.load(Ordering::SeqCst) == 3_000);
    eventually("all acknowledged", || router.status().ring.acked == 3_000);
    assert_eq!(states(&router), [("replay".to_owned(), "done: 3000 lines".to_owned())]);
    assert!(router.status().forward.connected && !router.is_broken());
    router.stop();
    write_events(&file, 3_500);
    let router = start(config(&state, Some(&file))).unwrap();
    eventually("only the new ones follow", || router.status().ring.acked == 3_500);
    assert_eq!(stored.load(Ordering::SeqCst), 3_500);
    assert!(router.status().ring.conserves());
}

#[test]
fn stopping_sends_what_is_left() {
    let hub = TestHub::start(|asked| Say::acked(&asked.batch()));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("events.ndjson");
    let config = config(dir.path(), Some(&file));
    join::save(&dir.path().join("identity.json"), &hub.join("secret")).unwrap();
    write_events(&file, 0);
    let router = start(config.clone()).unwrap();
    eventually("connected", || router.status().forward.connected);
    write_events(&file, 10);
    router.reload(Config { state_dir: config.state_dir.clone(), ..config.clone() }).unwrap();
    router.stop();
    let sent: usize = hub.asked().iter().map(|a| a.batch().events.len()).sum();
    // The file grew after the replay had ended: nothing of it was read, nothing is invented.
    assert_eq!(sent, 0);
    let router = start(config).unwrap();
    eventually("read", || router.counters().snapshot()["pipeline.events"] == 10);
    router.stop();
    let sent: usize = hub.asked().iter().map(|a| a.batch().events.len()).sum();
    assert_eq!(sent, 10);
}

#[test]
fn a_failing_collector_is_retried_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("events.ndjson");
    let router = start(config(dir.path(), Some(&file))).unwrap();
    eventually("an error is shown", || {
        states(&router)
            .iter()
            .any(|(_, s)| s.contains("events.ndjson") && s.contains("next attempt"))
    });
    write_events(&file, 5);
    eventually("it recovers", || router.status().ring.pending == 5);
    assert!(router.counters().snapshot()["replay.restarts"] >= 1);
}

#[test]
fn a_reload_is_all_or_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("one.ndjson"), dir.path().join("two.ndjson"));
    write_events(&one, 5);
    write_events(&two, 7);
    let list = dir.path().join("list.txt");
    let first = config(dir.path(), Some(&one));
    let router = start(first.clone()).unwrap();
    eventually("the first file is read", || router.status().ring.pending == 5);

    // A list that cannot be read: nothing changes, not even the replay.
    let mut bad = config(dir.path(), Some(&two));
    bad.tier0.blocklist.lists = vec![agentmon_core::tier0::blocklist::ListConfig {
        name: "test".into(),
        path: list.clone(),
        score: 0.5,
        ..Default::default()
    }];
    assert!(router.reload(bad.clone()).unwrap_err().to_string().contains("list.txt"));
    let mut moved = first.clone();
    moved.ring.path = "elsewhere.db".into();
    assert!(router.reload(moved).unwrap_err().to_string().contains("`ring.path` cannot change"));
    let mut invalid = first.clone();
    invalid.forward.batch_events = 0;
    assert!(router.reload(invalid).unwrap_err().to_string().contains("forward.batch_events"));
    assert_eq!(states(&router), [("replay".to_owned(), "done: 5 lines".to_owned())]);

    std::fs::write(&list, "bad.example\n").unwrap();
    router.reload(bad).unwrap();
    eventually("the second file is read", || router.status().ring.pending == 12);
    eventually("the list is in force", || {
        router.status().tier0.get("tier0.blocklist.entries") == Some(&1)
    });
    // Smaller and back again, while it runs.
    let mut small = first.clone();
    small.ring.bytes_max = crate::ring::RING_BYTES_MIN;
    router.reload(small).unwrap();
    assert_eq!(router.status().ring.capacity, crate::ring::RING_BYTES_MIN / 2);
    router.reload(first).unwrap();
    assert!(router.status().ring.conserves());
}

#[test]
fn a_second_router_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let router = start(config(dir.path(), None)).unwrap();
    let mut other = config(dir.path(), None);
    other.ring.path = dir.path().join("other.db");
    let error = format!("{:#}", start(other).unwrap_err());
    assert!(error.contains("status.sock") && error.contains("another agentmon-router"), "{error}");
    drop(router);
    // A socket left behind by a killed process is no obstacle.
    drop(std::os::unix::net::UnixListener::bind(dir.path().join("status.sock")).unwrap());
    start(config(dir.path(), None)).unwrap().stop();
    assert!(!dir.path().join("status.sock").exists());
}

#[test]
fn a_panic_is_counted_and_survived() {
    struct Bomb;
    impl crate::collect::Collector for Bomb {
        fn name(&self) -> &str {
            "bomb"
        }
        fn run(&mut self, _: &crate::collect::Context) -> anyhow::Result<()> {
            panic!("a test's panic");
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let router = start(config(dir.path(), None)).unwrap();
    let bomb = collectors::Wanted::for_test("bomb", || Box::new(Bomb));
    lock(&router.core.collectors).push(collectors::start(bomb, &router.core).unwrap());
    eventually("counted", || router.counters().snapshot().get("bomb.panics") >= Some(&1));
    eventually("shown", || states(&router).iter().any(|(_, s)| s.contains("internal error")));
    assert!(!router.is_broken());
}

/// A disk that is gone must not keep the rest of the settings from being changed.
#[test]
fn a_list_that_went_away_is_left_out_of_a_reload() {
    let dir = tempfile::tempdir().unwrap();
    let (own, usb) = (dir.path().join("own.txt"), dir.path().join("usb.txt"));
    std::fs::write(&own, "bad.example\n").unwrap();
    std::fs::write(&usb, "worse.example\n").unwrap();
    let mut config = config(dir.path(), None);
    config.tier0.blocklist.lists = [("own", &own), ("usb", &usb)]
        .map(|(name, path)| agentmon_core::tier0::blocklist::ListConfig {
            name: name.into(),
            path: path.clone(),
            score: 0.5,
            ..Default::default()
        })
        .into();
    let router = start(config.clone()).unwrap();
    assert_eq!(router.status().lacks, []);
    std::fs::remove_file(&usb).unwrap();
    config.forward.batch_events = 17;
    router.reload(config.clone()).unwrap();
    let lacks = router.status().lacks;
    assert!(lacks.len() == 1 && lacks[0].detail.contains("usb.txt"), "{lacks:?}");
    std::fs::write(&usb, "worse.example\n").unwrap();
    router.reload(config).unwrap();
    assert_eq!(router.status().lacks, []);
}

/// The machine's clock, wrong by a number of seconds.
struct WrongClock(std::sync::atomic::AtomicI64);

impl Clock for WrongClock {
    fn wall(&self) -> agentmon_core::time::Timestamp {
        let wrong = self.0.load(Ordering::SeqCst).saturating_mul(1_000_000_000);
        agentmon_core::time::Timestamp::from_nanos(SystemClock.wall().nanos() + wrong)
    }
    fn mono(&self) -> Mono {
        SystemClock.mono()
    }
}

/// A router without a battery begins in 1970, until NTP sets it: what it saw before reaches
/// the hub, and a name resolved before explains a connection made after.
#[test]
fn events_of_1970_are_kept_and_make_no_findings() {
    use agentmon_core::event::Body;
    use agentmon_core::wire::decode_event;

    let seen = Arc::new(Mutex::new(Vec::new()));
    let all = Arc::clone(&seen);
    let hub = TestHub::start(move |asked| {
        let batch = asked.batch();
        let events = batch.events.iter().map(|bytes| decode_event(bytes).unwrap());
        lock(&all).extend(events.map(|event| event.body));
        Say::acked(&batch)
    });
    let dir = tempfile::tempdir().unwrap();
    join::save(&dir.path().join("identity.json"), &hub.join("secret")).unwrap();
    let clock = Arc::new(WrongClock(0.into()));
    let now = SystemClock.wall().secs();
    clock.0.store(60 - now, Ordering::SeqCst);
    let flow = |id: u32, dst: &str| {
        let ns = i64::from(id);
        format!(
            "{{\"time_ns\":{ns},\"kind\":\"flow\",\"id\":{id},\"phase\":\"end\",\"proto\":6,\
             \"src\":{{\"ip\":\"192.168.77.25\",\"port\":{}}},\"dst\":{{\"ip\":\"{dst}\",\"port\":443}},\
             \"start\":{ns},\"duration_ms\":5,\"replied\":true,\"offloaded\":false}}\n",
            40_000 + id
        )
    };
    let dns = "{\"time_ns\":1,\"kind\":\"dns\",\"client\":\"192.168.77.25\",\"name\":\"api.example.net\",\
               \"qtype\":1,\"status\":\"forwarded\",\"rcode\":0,\"answers\":[{\"address\":\"198.51.100.20\"}],\
               \"ttl\":300,\"source\":\"replay\"}\n";
    let (before, after) = (dir.path().join("before.ndjson"), dir.path().join("after.ndjson"));
    std::fs::write(&before, dns.to_owned() + &flow(1, "198.51.100.20")).unwrap();
    std::fs::write(&after, flow(2, "198.51.100.20") + &flow(3, "198.51.100.66")).unwrap();
    let with = |path: &Path| {
        let mut config = config(dir.path(), Some(path));
        config.collect.replay.shift_to_now = true;
        config.tier0.direct_ip.startup_grace_seconds = 0;
        config.tier0.direct_ip.grace_seconds = 0;
        config
    };
    let router = start_with(with(&before), Arc::clone(&clock) as _).unwrap();
    let bodies = |want: usize| lock(&seen).len() >= want;
    eventually("what was seen in 1970 is at the hub", || bodies(2));
    clock.0.store(0, Ordering::SeqCst);
    eventually("the jump is noticed", || {
        router.counters().snapshot().get("pipeline.clock_set").is_some_and(|n| *n >= 1)
    });
    router.reload(with(&after)).unwrap();
    // The one finding is about the address that no answer explains, which proves that the
    // detector is awake; it comes last, as the flow does.
    eventually("what was seen after it too", || bodies(5));
    let status = router.status();
    router.stop();
    let seen = lock(&seen);
    let findings: Vec<_> =
        seen.iter().filter_map(|b| if let Body::Finding(f) = b { Some(f) } else { None }).collect();
    assert_eq!((seen.len(), findings.len()), (5, 1), "{seen:?}");
    assert!(format!("{:?}", findings[0]).contains("198.51.100.66"), "{findings:?}");
    assert!(status.ring.conserves() && status.ring.accepted == 5, "{:?}", status.ring);
    assert!(
        seen.iter().all(|b| !matches!(b, Body::Flow(f) if f.start.is_some_and(|s| s.secs() < 0)))
    );
}
