//! What the pages say when the daemon, the right to ask it, or the router is not there.

use agentmon_tests::luci::bus::{Failure, Fixture, METHOD_NOT_FOUND, TIMEOUT};
use agentmon_tests::luci::rpc::Rights;
use serde_json::json;

use super::Stage;

const PAGES: [&str; 3] = ["status", "alerts", "devices"];

/// All pages tell a trouble that is there from the start, once.
#[track_caller]
fn tells(stage: &Stage, texts: &[&str]) {
    for page in PAGES {
        let browser = stage.open(page);
        for text in texts {
            browser.shows("#view", text);
        }
        assert_eq!(browser.count("#view .alert-message"), 1, "{page} tells it more than once");
        assert_eq!(browser.count("#maincontent > .alert-message"), 0, "{page} let an error out");
    }
}

#[test]
fn the_service_does_not_run() {
    let Some(stage) = Stage::set("not-running", Fixture::default()) else { return };
    stage.bus.fail(Some(Failure::NoObject));
    tells(
        &stage,
        &[
            "agentmon is not running",
            "service agentmon enable; service agentmon start",
            "logread -e agentmon",
        ],
    );
    stage.browser.picture("page");
    // It says so when the settings are the reason.
    let off = json!({ "section": "main", "values": { "enabled": "0" } });
    stage.host.uci().call("set", &off).expect("the section is there");
    tells(&stage, &["agentmon is switched off"]);
    // And goes on by itself once it runs.
    stage.bus.fail(None);
    stage.browser.shows("#view", "tablet");
    assert_eq!(stage.browser.count("#view .alert-message"), 0);
    stage.browser.close();
}

#[test]
fn nobody_without_the_right_sees_anything() {
    let Some(stage) = Stage::set("denied", Fixture::default()) else { return };
    stage.host.rights(Rights::none());
    tells(&stage, &["No permission", "luci-app-agentmon"]);
    assert!(!stage.browser.text("#view").contains("tablet"));
    stage.browser.close();
}

#[test]
fn a_daemon_that_hangs_or_is_of_another_version() {
    let Some(stage) = Stage::set("hangs", Fixture::default()) else { return };
    stage.bus.fail(Some(Failure::Status(TIMEOUT)));
    tells(&stage, &["agentmon does not answer"]);
    stage.bus.fail(Some(Failure::Status(METHOD_NOT_FOUND)));
    tells(&stage, &["agentmon is of another version"]);
    stage.bus.fail(Some(Failure::Status(9)));
    tells(&stage, &["The question failed"]);
    stage.browser.close();
}

#[test]
fn old_data_is_marked_as_old() {
    let Some(stage) = Stage::set("stale", Fixture::default()) else { return };
    let browser = stage.open("status");
    browser.shows("#agentmon-talkers", "tablet");
    assert_eq!(browser.count(".agentmon-stale"), 0);
    stage.bus.fail(Some(Failure::NoObject));
    browser.shows("#view", "agentmon is not running");
    browser.shows("#view .agentmon-age", "What is shown below is");
    browser.shows("#agentmon-talkers", "tablet");
    assert!(browser.count(".agentmon-stale") >= 1);
    browser.picture("page");
    // The age grows, and the same trouble is not announced again and again.
    let notice = "return document.querySelector('.agentmon-notices > .alert-message')";
    browser.run(&format!("window.told = (() => {{ {notice} }})()"));
    browser.wait(
        "the age grows",
        "return /is [3-9] s old/.test(document.querySelector('.agentmon-age').textContent)",
    );
    assert_eq!(
        browser.run(&format!("return window.told === (() => {{ {notice} }})()")),
        json!(true)
    );
    stage.bus.fail(None);
    browser.wait(
        "all is well again",
        "return !document.querySelector('.agentmon-stale, .agentmon-notices > *')",
    );
    stage.browser.close();
}

#[test]
fn the_router_is_gone_for_a_while() {
    let Some(stage) = Stage::set("gone", Fixture::default()) else { return };
    let browser = stage.open("devices");
    browser.shows("#view", "tablet");
    stage.host.down(true);
    browser.shows("#view", "The router does not answer");
    stage.host.down(false);
    browser.wait(
        "all is well again",
        "return !document.querySelector('.agentmon-stale, .agentmon-notices > *')",
    );
    // The browser itself complains of the refused requests.
    stage.browser.close_but_for(&["/ubus"]);
}

/// Replies that are no replies: each costs a cell or a notice, never the page.
#[test]
fn answers_that_make_no_sense() {
    let Some(stage) = Stage::set("nonsense", Fixture::default()) else { return };
    for reply in [
        json!({}),
        json!([]),
        json!("text"),
        json!({ "hub": 7, "collectors": {}, "events_per_s": "many", "ring": [], "top_talkers": [null, 3, "x", {}], "drops": [{ "count": {} }], "kernel": [[]], "now": "soon", "started": -1, "version": {}, "resources": null, "alerts": 1 }),
        json!({ "collectors": [{ "name": ["a"], "state": {}, "events": 1e300, "last_event": 1e300 }], "now": 1e300, "events_per_s": [null, "x", {}, -5, 1e308], "hub": { "last_ack": -1 } }),
    ] {
        stage.bus.status(|s| *s = reply.clone());
        let browser = stage.open("status");
        assert_eq!(browser.count("#maincontent > .alert-message"), 0, "{reply} broke the page");
        assert!(browser.count("#view section, #view .alert-message") >= 1, "{reply} shows nothing");
        let text = browser.text("#view");
        assert!(
            ["NaN", "undefined", "[object", "Invalid Date"].iter().all(|w| !text.contains(w)),
            "{reply}: {text}"
        );
    }
    stage.bus.status(|s| *s = json!({}));
    stage.bus.alerts(|a| *a = vec![json!(null), json!(5), json!({}), json!({ "id": {}, "time": "x", "severity": [], "evidence": "e", "score": "x", "title": 7, "count": "many" })]);
    stage.bus.devices(|d| {
        *d = vec![
            json!(null),
            json!({}),
            json!({ "ips": "x", "mac": {}, "bytes": "much", "last_seen": 9e18 }),
        ]
    });
    for (page, text) in [("alerts", "2 of 2 alerts"), ("devices", "2 of 2 devices")] {
        let browser = stage.open(page);
        browser.shows("#view", text);
        let text = browser.text("#view");
        assert!(
            ["NaN", "undefined", "[object", "Invalid Date"].iter().all(|w| !text.contains(w)),
            "{text}"
        );
    }
    stage.browser.close();
}
