//! The pages before the real daemon: a whole router in this process on the test ubusd, fed
//! from a file. What the fixture makes up elsewhere is here as the router says it.

use std::path::PathBuf;
use std::sync::Arc;

use agentmon_router::config::Config;
use agentmon_router::supervisor::{self, RouterHandle};
use agentmon_tests::luci::browser::Browser;
use agentmon_tests::luci::bus::OnBus;
use agentmon_tests::luci::can_run;
use agentmon_tests::luci::host::Host;
use agentmon_tests::ubusd::{Acl, Ubusd};
use serde_json::{Value, json};

/// 2026-11-18 in nanoseconds.
const T: u64 = 1_795_000_000_000_000_000;

/// What a device may call itself.
const NASTY: &str = "<img src=x onerror=window.owned=1>";

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn socket(&self) -> PathBuf {
        self.dir.path().join("ubus.sock")
    }

    fn ubusd(&self) -> Ubusd {
        Ubusd::start(&self.socket(), Acl::default()).expect("the bus starts")
    }

    fn router(&self) -> RouterHandle {
        let dir = self.dir.path();
        let events = dir.join("events.ndjson");
        let lines: String = events_of_a_home().iter().map(|event| format!("{event}\n")).collect();
        std::fs::write(&events, lines).expect("the events are written");
        let mut text = format!("state_dir = \"{}\"\n", dir.join("router").display());
        for off in ["conntrack", "firewall", "passive_dns", "dnsmasq_log", "leases", "neighbours"] {
            text += &format!("[collect.{off}]\nenabled = false\n");
        }
        text += &format!("[collect.replay]\nenabled = true\npath = \"{}\"\n", events.display());
        text += &format!("[ubus]\nsocket = \"{}\"\n", self.socket().display());
        supervisor::start(Config::parse(&text).expect("a configuration")).expect("it starts")
    }
}

fn events_of_a_home() -> Vec<Value> {
    let device = |n: u8, name: &str| json!({ "time_ns": T, "kind": "device", "mac": format!("00:00:5e:00:53:0{n}"), "ip": format!("192.168.1.{n}"), "hostname": name, "source": "lease" });
    let end = |ip: &str, port: u16| json!({ "ip": ip, "port": port });
    vec![
        device(7, "laptop"),
        device(8, NASTY),
        json!({
            "time_ns": T + 1, "kind": "dns", "client": "192.168.1.7", "name": "www.example.com",
            "qtype": 1, "status": "forwarded", "source": "dnsmasq-log",
            "answers": [{ "address": "203.0.113.1" }],
        }),
        json!({
            "time_ns": T + 2, "kind": "flow", "id": 7, "proto": 6, "phase": "end",
            "src": end("192.168.1.7", 40_000), "dst": end("203.0.113.1", 443),
            "volume": { "bytes_out": 100, "bytes_in": 900, "packets_out": 1, "packets_in": 1 },
        }),
        json!({
            "time_ns": T + 3, "kind": "finding", "rule": "blocklist", "subject": "evil.example",
            "client": "192.168.1.8", "score": 0.9, "why": "asked for evil.example",
            "evidence": [["list", "malware"]],
        }),
    ]
}

#[test]
fn the_pages_show_what_the_daemon_says() {
    if !can_run("daemon") {
        return;
    }
    let place = Place { dir: tempfile::tempdir().expect("a folder") };
    let mut ubusd = place.ubusd();
    let router = place.router();
    let host = Host::start(Arc::new(OnBus(place.socket())));
    let browser = Browser::start("daemon");
    browser.open(&host.url("status"));
    for (part, texts) in [
        (
            "#agentmon-overview",
            &[env!("CARGO_PKG_VERSION"), "not joined", "join line of a hub", "KiB of 31 MiB"][..],
        ),
        ("#agentmon-collectors", &["replay", "finished", "conntrack", "off"]),
        ("#agentmon-talkers", &["laptop", "192.168.1.7", "1,000 B"]),
        ("#agentmon-rates", &["Events per second over the last 5 min"]),
        ("#agentmon-latest", &["Name on a block list: evil.example", "critical", NASTY]),
    ] {
        texts.iter().for_each(|text| browser.shows(part, text));
    }
    browser.picture("status");
    browser.open(&host.url("devices"));
    browser.shows("#view", "2 of 2 devices");
    browser.shows("#view .table", NASTY);
    browser.shows("#view .table", "00:00:5e:00:53:07");
    browser.open(&host.url("alerts"));
    browser.click("[data-alert] summary");
    browser.shows("[data-alert]", "list: malware");
    acknowledge(&browser);
    browser.open(&host.url("overview"));
    browser.shows("#view .agentmon", "none waiting");
    assert_eq!(
        (browser.count("#view img"), browser.run("return window.owned ?? null")),
        (0, Value::Null)
    );

    // It is stopped, and started again; then the bus is.
    browser.open(&host.url("status"));
    browser.shows("#agentmon-talkers", "laptop");
    router.stop();
    browser.shows("#view", "agentmon is not running");
    browser.shows("#view", "What is shown below is");
    let _router = place.router();
    browser.wait(
        "it is there again",
        "return !document.querySelector('.agentmon-stale, .agentmon-notices > *')",
    );
    ubusd.stop();
    browser.shows("#view", "agentmon is not running");
    let _ubusd = place.ubusd();
    browser.wait(
        "it is there again",
        "return !document.querySelector('.agentmon-stale, .agentmon-notices > *')",
    );
    browser.close();
}

/// Acknowledges the only alert and finds the note again, as the daemon keeps it.
fn acknowledge(browser: &Browser) {
    browser.click("[data-key^=ack-]");
    browser.fill("#agentmon-note", "known <b>device</b>");
    browser.click("[data-key=send-ack]");
    browser.shows("#view", "0 of 1 alerts");
    browser.click(".agentmon-filter input[type=checkbox]");
    browser.click("[data-alert] summary");
    browser.shows("[data-alert]", "known <b>device</b>");
    browser.shows("[data-alert]", "acknowledged");
}
