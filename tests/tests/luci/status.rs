//! Services > agentmon > Status.

use agentmon_tests::luci::bus::{Fixture, NOW};
use serde_json::json;

use super::Stage;

#[test]
fn everything_at_a_glance() {
    let Some(stage) = Stage::set("status", Fixture::default()) else { return };
    let browser = stage.open("status");
    for (part, texts) in [
        (
            "#agentmon-overview",
            &[
                "0.1.0",
                "attic-router",
                "1 d 2 h",
                "connected",
                "https://192.0.2.10:8743",
                "4 s ago",
                "1,234 events, 256 KiB",
                "3 MiB of 16 MiB",
                "17",
            ][..],
        ),
        (
            "#agentmon-collectors",
            &[
                "conntrack",
                "working",
                "184,220",
                "1 s ago",
                "problem",
                "permission denied",
                "2 h 0 min ago",
                "never",
                "kmod-nfnetlink-log",
            ],
        ),
        ("#agentmon-drops", &["drop.ring.evicted", "17", "drop.conntrack.enobufs", "2"]),
        ("#agentmon-talkers", &["tablet", "192.168.1.23", "700 MiB", "812", "2001:db8::31"]),
        ("#agentmon-kernel", &["byte counts", "sysctl -w net.netfilter.nf_conntrack_acct=1"]),
        (
            "#agentmon-latest",
            &["Name on a list: a1.example.net", "critical", "which is on the list trackers"],
        ),
    ] {
        for text in texts {
            browser.shows(part, text);
        }
    }
    browser.picture("page");
    stage.browser.close();
}

#[test]
fn the_curve_says_in_words_what_it_shows() {
    let Some(stage) = Stage::set("curve", Fixture::default()) else { return };
    stage.bus.status(|s| s["events_per_s"] = json!([0, 5, 40.4, 2.5]));
    let browser = stage.open("status");
    let image = browser.run("const s = document.querySelector('#agentmon-rates svg[role=img]'); return { label: s.getAttribute('aria-label'), title: s.querySelector('title').textContent, points: s.querySelector('polyline').getAttribute('points').trim().split(' ').length }");
    let label = "Events per second over the last 20 s: now 2.5, highest 40";
    assert_eq!(image, json!({ "label": label, "title": label, "points": 4 }));
    // The highest value is drawn highest: smallest y.
    let ys = browser.run("return document.querySelector('#agentmon-rates polyline').getAttribute('points').split(' ').map((p) => +p.split(',')[1])");
    let ys: Vec<f64> = serde_json::from_value(ys).expect("numbers");
    assert!(ys[2] < ys[1] && ys[1] < ys[3] && ys[3] < ys[0], "{ys:?}");
    stage.browser.close();
}

#[test]
fn it_goes_on_asking() {
    let Some(stage) = Stage::set("polls", Fixture::default()) else { return };
    let browser = stage.open("status");
    browser.shows("#agentmon-overview", "4 s ago");
    stage.bus.status(|s| {
        s["now"] = json!(NOW + 56_000);
        s["hub"]["state"] = json!("trying");
        s["hub"]["error"] = json!("192.0.2.10:8743: connection refused");
    });
    browser.shows("#agentmon-overview", "1 min ago");
    browser.shows("#agentmon-overview", "trying to connect");
    browser.shows("#agentmon-overview", "connection refused");
    assert_eq!(browser.count("#agentmon-overview"), 1);
    stage.browser.close();
}

#[test]
fn a_router_without_anything_yet() {
    let Some(stage) = Stage::set("empty", Fixture::empty()) else { return };
    stage.bus.status(|s| {
        s["now"] = json!(120_000);
        s["uptime_seconds"] = json!(60);
        s["hub"] = json!({ "state": "not_joined" });
        s["config"] =
            json!({ "error": "router.toml:3: `ring.bytes_max`: want 2097152 to 4294967296 bytes" });
    });
    let browser = stage.open("status");
    for (part, text) in [
        ("#agentmon-overview", "not joined"),
        ("#agentmon-overview", "for 1 min"),
        ("#agentmon-overview", "put the join line of a hub into the settings"),
        ("#agentmon-overview", "not set yet"),
        ("#agentmon-overview", "The last change is not in force: router.toml:3"),
        ("#agentmon-collectors", "No collector is switched on"),
        ("#agentmon-rates", "Nothing measured yet"),
        ("#agentmon-drops", "Nothing was lost"),
        ("#agentmon-talkers", "No connection has been seen yet"),
        ("#agentmon-latest", "No alerts yet"),
    ] {
        browser.shows(part, text);
    }
    browser.picture("page");
    for (page, text) in [("alerts", "No alerts yet"), ("devices", "No device has been seen yet")] {
        stage.open(page).shows("#view", text);
    }
    stage.browser.close();
}
