//! A whole router whose every source is bad at once, each in its own way, beside one good log:
//! the status says of each what is wrong and what to do, and the good one is told all the same.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::sync::Mutex;

use agentmon_core::Timestamp;
use agentmon_core::event::Body;
use agentmon_core::wire::decode_event;

use super::tests::eventually;
use super::*;
use crate::join;
use crate::testhub::{Say, TestHub};

/// Lines of two processes that ask for the same at the same time, each with its own answer.
fn interleaved(now: Timestamp) -> String {
    let mut text = String::new();
    for (what, ends) in [
        ("query[A] both.example from 192.0.2.3", ["1", "2"]),
        ("forwarded both.example to 198.51.100.5", ["1", "2"]),
        ("reply both.example is 203.0.113.", ["1", "2"]),
    ] {
        for (pid, end) in ["71", "72"].into_iter().zip(ends) {
            let end = if what.contains("reply") || what.contains("from") { end } else { "3" };
            _ = writeln!(text, "{now} dns dnsmasq[{pid}]: {what}{end}");
        }
    }
    text
}

/// Bytes of no sense, always the same.
fn noise(count: u32) -> Vec<u8> {
    (0..count).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// The first half of a database of FTL's.
fn half_a_database(path: &Path) {
    let connection = rusqlite::Connection::open(path).unwrap();
    connection
        .execute_batch(
            "CREATE TABLE ftl (id INTEGER PRIMARY KEY, value BLOB); INSERT INTO ftl VALUES (0, 9);
             CREATE TABLE queries (id INTEGER PRIMARY KEY, timestamp INTEGER, type INTEGER,
                status INTEGER, domain TEXT, client TEXT);
             WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
             INSERT INTO queries SELECT i, 1700000000 + i, 1, 2, 'a.example', '192.0.2.9' FROM n",
        )
        .unwrap();
    drop(connection);
    let whole = std::fs::read(path).unwrap();
    std::fs::write(path, &whole[..whole.len() / 2]).unwrap();
}

#[test]
fn each_bad_source_is_explained_and_disturbs_no_other() {
    let told: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
    let stored = Arc::clone(&told);
    let hub = TestHub::start(move |asked| {
        let batch = asked.batch();
        for event in &batch.events {
            if let Body::Dns(dns) = decode_event(event).unwrap().body {
                let answers = dns.answers.iter().map(|answer| format!("{answer:?}"));
                let text = format!("{} {}", dns.client, answers.collect::<String>());
                stored.lock().unwrap().push((dns.name.to_string(), text));
            }
        }
        Say::acked(&batch)
    });
    let page = "<!DOCTYPE html><title>502 Bad Gateway</title>\n";
    let gateway = TestHub::start_as("127.0.0.1", move |_| Say::Http(200, "", page.into()));
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        std::fs::write(dir.path().join(name), bytes).unwrap();
        dir.path().join(name).display().to_string()
    };
    let state = dir.path().join("state");
    join::save(&state.join("identity.json"), &hub.join("secret")).unwrap();

    let [good, late, noisy] =
        ["good.log", "late.log", "noisy.log"].map(|name| file(name, b"begun\n"));
    let ftl = file("pihole-FTL.db", b"");
    std::fs::remove_file(&ftl).unwrap();
    half_a_database(ftl.as_ref());
    let mut text = format!(
        "state_dir = \"{}\"\n\
         collect.dnsmasq_log = {{ enabled = true, timezone = \"utc\", poll_ms = 50, \
            paths = [\"{good}\", \"{late}\", \"{noisy}\"] }}\n\
         collect.adguard = {{ enabled = true, from_start = true, path = \"{}\" }}\n\
         collect.pihole = {{ enabled = true, url = \"https://{}\", password_file = \"{}\", \
            certificate = \"{}\" }}\n\
         collect.pihole_ftl = {{ enabled = true, path = \"{ftl}\" }}\n\
         collect.leases = {{ paths = [\"{}\"] }}\n\
         tier0.blocklist.lists = [{{ name = \"ads\", path = \"{}\" }}]\n",
        state.display(),
        file("querylog.json", page.repeat(20).as_bytes()),
        gateway.address,
        file("password", b"secret"),
        file("ca.pem", gateway.ca_pem.as_bytes()),
        file("leases", &noise(5_000)),
        file("ads.txt", page.as_bytes()),
    );
    for collector in ["conntrack", "firewall", "passive_dns", "neighbours"] {
        text += &format!("collect.{collector}.enabled = false\n");
    }
    let router = start(Config::parse(&text).unwrap()).unwrap();
    let says = |who: &str, what: &str| {
        eventually(&format!("{who} says {what}"), || {
            let of = |c: &crate::status::CollectorStatus| {
                (c.name.starts_with(who) && c.state.contains(what)).then_some(())
            };
            router.status().collectors.iter().find_map(of).is_some()
        });
    };
    says("dnsmasq", "ok: ");
    eventually("all logs are open", || {
        let all = router.status().collectors;
        all.iter().filter(|c| c.state.starts_with("ok: ") && c.state.contains(".log")).count() == 3
    });

    let append = |path: &str, bytes: &[u8]| {
        let mut file = std::fs::File::options().append(true).open(path).unwrap();
        file.write_all(bytes).unwrap();
    };
    let now = || router.core.clock.wall();
    let ask = |time: Timestamp, name: &str| {
        format!("{time} dns dnsmasq[7]: query[A] {name} from 192.0.2.31\n").into_bytes()
    };
    append(&noisy, &noise(200_000));
    append(&late, &ask(now().minus(Duration::from_secs(3_600)), "late.example"));
    append(&good, &vec![b'x'; 1 << 20]);
    append(&good, format!("\n{}", interleaved(now())).as_bytes());
    append(&good, &ask(now(), "good.example"));

    says("dnsmasq", "holds no queries: set log-queries=extra");
    says("dnsmasq", "its clock is 60 min behind: set timezone");
    says("adguard", "holds no entries of a query log");
    says("pihole", "this is no Pi-hole v6");
    says("pihole-ftl", "half a copy");
    says("pihole-ftl", "next attempt");
    let lacks = router.status().lacks;
    let list = lacks.iter().find(|lack| lack.what == "block list").expect("it is told");
    assert!(list.detail.contains("ads") && list.detail.contains("web page"), "{list:?}");

    // None of it kept anything from what is good.
    eventually("all that was asked is at the hub", || {
        let told = told.lock().unwrap();
        let has = |name: &str, part: &str| told.iter().any(|(n, t)| n == name && t.contains(part));
        has("good.example", "192.0.2.31")
            && has("late.example", "192.0.2.31")
            && has("both.example", "203.0.113.1")
            && has("both.example", "203.0.113.2")
    });
    let told = told.lock().unwrap().clone();
    let of = |client: &str| {
        let ours =
            told.iter().filter(|(name, text)| name == "both.example" && text.starts_with(client));
        ours.map(|(_, text)| text.clone()).collect::<Vec<_>>()
    };
    for end in ["1", "2"] {
        let [text] = &of(&format!("192.0.2.3{end} "))[..] else { panic!("{told:?}") };
        assert!(text.contains(&format!("203.0.113.{end}")), "{text}");
    }
    let counters = router.counters().snapshot();
    for name in ["drop.tail.line_too_long", "adguard.bad_entry", "leases.bad_line"] {
        assert!(counters.get(name).is_some_and(|n| *n > 0), "{name}: {counters:?}");
    }
    assert!(router.status().ring.conserves());
}
