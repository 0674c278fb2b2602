//! The fetcher before a hub that answers well and badly, over real TLS.

use agentmon_core::tier0::blocklist::{About, Builder, ListConfig};

use super::*;
use crate::testhub::{Say, TestHub};

/// A compiled form of one list with so many names.
fn form(names: usize, accepted: u32) -> Vec<u8> {
    let about = About { accepted, ..About::default() };
    let list = ListConfig { name: "ads".into(), about, ..ListConfig::default() };
    let config = agentmon_core::tier0::blocklist::Config {
        lists: vec![list],
        ..agentmon_core::tier0::blocklist::Config::default()
    };
    let text: String = (0..names).map(|i| format!("listed{i}.example\n")).collect();
    let mut out = Vec::new();
    agentmon_core::tier0::blocklist::compile::<std::io::Error>(
        &config,
        7,
        &mut |_, each| {
            each(text.as_bytes());
            Ok(())
        },
        &mut out,
    )
    .unwrap();
    out
}

fn sum(form: &[u8]) -> u64 {
    use agentmon_core::tier0::blocklist::Footer;
    Footer::parse(form).unwrap().checksum()
}

fn sent(form: &[u8]) -> Say {
    Say::Bytes(
        200,
        format!("Content-Type: {}\r\n", crate::forward::client::LISTS_TYPE),
        form.into(),
        0,
    )
}

struct Bench {
    dir: tempfile::TempDir,
    hub: TestHub,
    say: Arc<Mutex<Say>>,
    put: Arc<Mutex<Vec<Blocklist>>>,
    shared: Arc<Shared>,
}

impl Bench {
    fn new() -> Self {
        let say = Arc::new(Mutex::new(Say::status(404)));
        let answer = Arc::clone(&say);
        let hub = TestHub::start_as("127.0.0.1", move |_| answer.lock().unwrap().clone());
        let dir = tempfile::tempdir().unwrap();
        let identity = dir.path().join("identity.json");
        join::save(&identity, &hub.join("secret")).unwrap();
        let shared = Arc::new(Shared::default());
        let config = Config::default();
        shared.reconfigure(Settings { config, identity, shrink_percent: 50 });
        Self { dir, hub, say, put: Arc::default(), shared }
    }

    /// As after a start.
    fn fetcher(&self) -> Fetcher {
        let put = Arc::clone(&self.put);
        Fetcher::new(
            Arc::clone(&self.shared),
            self.dir.path(),
            Stop::default(),
            &Counters::default(),
            kept(self.dir.path()).unwrap_or_default(),
            1,
            Box::new(move |lists| put.lock().unwrap().push(lists)),
        )
    }

    /// Asks once; the state afterwards.
    fn asks(&self, fetcher: &mut Fetcher, say: Say) -> String {
        *self.say.lock().unwrap() = say;
        fetcher.step();
        assert!(!self.dir.path().join("hub-lists.new").exists(), "nothing half is left");
        self.shared.status().state
    }

    fn in_force(&self) -> usize {
        self.put.lock().unwrap().last().map_or(0, Blocklist::len)
    }
}

#[test]
fn new_lists_are_put_in_force_and_asked_for_by_their_tag() {
    let bench = Bench::new();
    let mut fetcher = bench.fetcher();
    assert_eq!(bench.asks(&mut fetcher, Say::status(404)), "the hub has no lists");
    let first = form(1_000, 0);
    assert_eq!(bench.asks(&mut fetcher, sent(&first)), "ok: 1000 entries of 1 lists");
    assert_eq!(bench.in_force(), 1_000);
    assert_eq!(fs::read(bench.dir.path().join(FILE)).unwrap(), first);
    let state = bench.asks(&mut fetcher, Say::status(304));
    assert_eq!(state, "ok: 1000 entries of 1 lists");
    let last = bench.hub.asked_for_lists().pop().unwrap();
    assert_eq!(last.if_none_match, format!("\"{:016x}\"", sum(&first)));
    assert_eq!((last.path.as_str(), last.authorization.as_str()), ("/v1/lists", "Bearer secret"));
    // After a restart, without asking: what was there; then the new one.
    let mut fetcher = bench.fetcher();
    assert_eq!(fetcher.lists.len(), 1_000);
    bench.asks(&mut fetcher, sent(&form(1_001, 0)));
    assert_eq!(bench.hub.asked_for_lists().pop().unwrap().if_none_match, last.if_none_match);
    assert_eq!(bench.in_force(), 1_001);
}

#[test]
fn nothing_bad_replaces_what_is_there() {
    let bench = Bench::new();
    let mut fetcher = bench.fetcher();
    let good = form(1_000, 0);
    bench.asks(&mut fetcher, sent(&good));
    let next = form(1_100, 0);
    let flipped = |at: usize| {
        let mut bytes = next.clone();
        bytes[at] ^= 1;
        bytes
    };
    let version = next.len() - agentmon_core::tier0::blocklist::FOOTER_BYTES + 7;
    let kind = format!("Content-Type: {}\r\n", crate::forward::client::LISTS_TYPE);
    let html = Say::Http(200, "Content-Type: text/html\r\n", "<html>log in</html>".into());
    let html_as_lists = Say::Bytes(200, kind.clone(), b"<html>log in</html>".to_vec(), 0);
    for (say, says) in [
        (Say::status(500), "500"),
        (Say::status(401), "refuses the token"),
        (Say::status(302), "302"),
        (html, "no lists but text/html"),
        (html_as_lists, "not compiled lists"),
        (sent(&next[..next.len() / 2]), "not compiled lists"),
        (sent(&[]), "not compiled lists"),
        (Say::Bytes(200, kind, next[..5_000].to_vec(), next.len() - 5_000), "cut off after"),
        (sent(&flipped(100)), "the checksum differs"),
        (sent(&flipped(next.len() - 1)), "the checksum differs"),
        (sent(&flipped(version)), "another version"),
        (Say::HangUp, "not reachable"),
        (sent(&form(10, 0)), "shrank from 1000 to 10 entries"),
        (sent(&form(0, 0)), "nothing is left of 1000 entries"),
    ] {
        let state = bench.asks(&mut fetcher, say);
        assert!(state.contains(says), "`{says}` is not in: {state}");
        assert!(state.contains("stay"), "{state}");
        assert_eq!(fs::read(bench.dir.path().join(FILE)).unwrap(), good);
        assert_eq!((fetcher.lists.len(), bench.in_force()), (1_000, 1_000));
    }
    assert_eq!(bench.put.lock().unwrap().len(), 1, "put in force once");
    // Then all is well again.
    assert_eq!(bench.asks(&mut fetcher, sent(&next)), "ok: 1100 entries of 1 lists");
    assert!(!bench.shared.status().refused);
}

#[test]
fn what_was_refused_is_not_fetched_again() {
    let bench = Bench::new();
    let mut fetcher = bench.fetcher();
    let (good, small) = (form(1_000, 0), form(10, 0));
    bench.asks(&mut fetcher, sent(&good));
    let state = bench.asks(&mut fetcher, sent(&small));
    assert!(state.contains("agentmon feeds accept ads"), "{state}");
    assert_eq!(bench.asks(&mut fetcher, Say::status(304)), state, "still told");
    assert!(bench.shared.status().refused);
    let asked = bench.hub.asked_for_lists().pop().unwrap().if_none_match;
    let both = [sum(&good), sum(&small)].map(|sum| format!("\"{sum:016x}\"")).join(", ");
    assert_eq!(asked, both);
    // A person at the hub says that it is meant to be so.
    assert_eq!(bench.asks(&mut fetcher, sent(&form(10, 1))), "ok: 10 entries of 1 lists");
    assert_eq!(bench.in_force(), 10);
}

#[test]
fn too_long_files_are_given_up_early() {
    let bench = Bench::new();
    let mut fetcher = bench.fetcher();
    let mut settings = bench.shared.settings();
    settings.config.bytes_max = 1 << 20;
    bench.shared.reconfigure(settings);
    let state = bench.asks(&mut fetcher, sent(&form(200_000, 0)));
    assert!(state.contains("longer than 1048576 bytes (hub_lists.bytes_max)"), "{state}");
    assert!(!bench.dir.path().join(FILE).exists());
}

#[test]
fn off_and_not_joined() {
    let bench = Bench::new();
    let mut fetcher = bench.fetcher();
    bench.asks(&mut fetcher, sent(&form(100, 0)));
    let mut settings = bench.shared.settings();
    settings.config.enabled = false;
    bench.shared.reconfigure(settings.clone());
    assert!(bench.asks(&mut fetcher, Say::HangUp).starts_with("off"));
    assert_eq!(bench.in_force(), 0);
    settings.config.enabled = true;
    settings.identity = "/nonexistent/identity.json".into();
    bench.shared.reconfigure(settings);
    assert_eq!(bench.asks(&mut fetcher, Say::HangUp), "not joined");
}

#[test]
fn lists_that_are_gone_at_the_hub_go() {
    let old = {
        let mut builder = Builder::new(10_000);
        let text: String = (0..500).map(|i| format!("a{i}.example\n")).collect();
        builder.list("gone", 0.8, text.as_bytes());
        builder.list("stays", 0.8, b"b.example\n");
        builder.build()
    };
    let mut builder = Builder::new(10_000);
    builder.list("stays", 0.8, b"b.example\n");
    assert_eq!(lost(&old, &builder.build(), 50), None);
}

#[test]
fn waits_grow_and_are_bounded() {
    let bench = Bench::new();
    let mut fetcher = bench.fetcher();
    *bench.say.lock().unwrap() = Say::status(500);
    let waits: Vec<u64> = (0..8).map(|_| fetcher.step().as_secs()).collect();
    assert!((27..=33).contains(&waits[0]) && (54..=66).contains(&waits[1]), "{waits:?}");
    assert!((810..=990).contains(&waits[7]), "{waits:?}");
}

#[test]
fn configuration_is_checked() {
    assert!(Config::default().validate().is_ok());
    assert!(Config { seconds: 1, ..Config::default() }.validate().is_err());
    assert!(Config { bytes_max: 5, ..Config::default() }.validate().is_err());
}
