//! Services > agentmon > Alerts.

use agentmon_tests::luci::browser::Browser;
use agentmon_tests::luci::bus::{Fixture, NOT_FOUND, alert};
use agentmon_tests::luci::rpc::Rights;
use serde_json::{Value, json};

use super::Stage;

/// The ids of the rows shown, in their order.
fn rows(browser: &Browser) -> Vec<String> {
    let ids = browser.run(
        "return Array.from(document.querySelectorAll('[data-alert]'), (r) => r.dataset.alert)",
    );
    serde_json::from_value(ids).expect("texts")
}

const WORDS: &str = ".agentmon-filter input[type=search]";
const SELECTS: &str = ".agentmon-filter label:nth-of-type";

#[track_caller]
fn check(
    browser: &Browser,
    words: &str,
    severity: &str,
    device: &str,
    rule: &str,
    expected: &[&str],
) {
    browser.fill(WORDS, words);
    for (place, value) in [(2, severity), (3, device), (4, rule)] {
        browser.choose(&format!("{SELECTS}({place}) select"), value);
    }
    assert_eq!(rows(browser), expected);
    assert!(browser.text("#view").contains(&format!("{} of 4 alerts", expected.len())));
}

#[test]
fn the_filter_narrows() {
    let Some(stage) = Stage::set("filter", Fixture::default()) else { return };
    let browser = stage.open("alerts");
    check(browser, "", "", "", "", &["a1", "a2", "a3", "a4"]);
    browser.picture("page");
    check(browser, "GENERATED", "", "", "", &["a2"]);
    check(browser, "trackers tablet", "", "", "", &["a1"]);
    check(browser, "203.0.113.9", "", "", "", &["a3"]);
    check(browser, "nothing like it", "", "", "", &[]);
    browser.shows("#view", "No alert fits the filter");
    check(browser, "", "high", "", "", &["a1", "a2"]);
    check(browser, "", "critical", "", "", &["a1"]);
    check(browser, "", "", "camera", "", &["a4"]);
    check(browser, "", "", "", "direct-ip", &["a3"]);
    check(browser, "", "medium", "tv", "dga", &["a2"]);
    check(browser, "", "medium", "camera", "", &[]);
    // A choice that no alert has any more stays chosen.
    stage.bus.alerts(|alerts| alerts.retain(|one| one["device"] != "camera"));
    browser.wait(
        "the rest is there",
        "return document.querySelector('#view').innerText.includes('0 of 3 alerts')",
    );
    let chosen = browser
        .run("return document.querySelector('.agentmon-filter label:nth-of-type(3) select').value");
    assert_eq!(chosen, json!("camera"));
    stage.browser.close();
}

#[test]
fn an_alert_is_acknowledged_with_a_note() {
    let Some(stage) = Stage::set("ack", Fixture::default()) else { return };
    let browser = stage.open("alerts");
    browser.click("[data-key='ack-a2']");
    browser.shows(".modal", "Many generated names");
    browser.picture("dialogue");
    browser.fill("#agentmon-note", "  my own <b>test</b>  ");
    browser.click("[data-key='send-ack']");
    browser.wait("the row goes", "return document.querySelectorAll('[data-alert]').length == 3");
    assert_eq!(stage.bus.calls("ack").len(), 1);
    let sent = &stage.bus.calls("ack")[0];
    assert_eq!((&sent["id"], &sent["note"]), (&json!("a2"), &json!("my own <b>test</b>")));
    assert_eq!(rows(browser), ["a1", "a3", "a4"]);
    assert!(
        browser.run("return !document.body.classList.contains('modal-overlay-active')")
            == json!(true)
    );
    // It can be looked at again, with the note as text.
    browser.click(".agentmon-filter input[type=checkbox]");
    assert_eq!(rows(browser), ["a1", "a2", "a3", "a4"]);
    browser.shows("[data-alert=a2]", "acknowledged");
    browser.click("[data-alert=a2] summary");
    browser.shows("[data-alert=a2]", "my own <b>test</b>");
    stage.browser.close();
}

#[test]
fn an_alert_is_acknowledged_from_the_keyboard() {
    let Some(stage) = Stage::set("keyboard", Fixture::default()) else { return };
    let browser = stage.open("alerts");
    let press = |key: &str| {
        let down = "document.activeElement.dispatchEvent(new KeyboardEvent('keydown', { key: arguments[0], bubbles: true }))";
        browser.run_with(down, &json!(key));
    };
    browser.run("document.querySelector('[data-key=ack-a1]').focus()");
    browser.run("document.activeElement.click()");
    // Thought better of it: the focus goes back.
    browser.click(".modal .right > button");
    assert_eq!(browser.run("return document.activeElement.dataset.key"), json!("ack-a1"));
    browser.run("document.activeElement.click()");
    assert_eq!(browser.run("return document.activeElement.id"), json!("agentmon-note"));
    press("Enter");
    browser.wait("the row goes", "return document.querySelectorAll('[data-alert]').length == 3");
    assert_eq!(stage.bus.calls("ack")[0]["id"], json!("a1"));
    stage.browser.close();
}

#[test]
fn an_acknowledgement_can_fail() {
    let Some(stage) = Stage::set("ack-fails", Fixture::default()) else { return };
    let browser = stage.open("alerts");
    browser.click("[data-key='ack-a1']");
    stage.bus.fail(Some(agentmon_tests::luci::bus::Failure::Status(NOT_FOUND)));
    browser.click("[data-key='send-ack']");
    browser.shows(".modal [role=alert]", "It was not acknowledged");
    // Somebody with no right to it cannot even try.
    stage.bus.fail(None);
    stage.host.rights(Rights::read_only());
    let browser = stage.open("alerts");
    let dead = browser
        .run("return Array.from(document.querySelectorAll('[data-key^=ack-]'), (b) => b.disabled)");
    assert_eq!(dead, json!([true, true, true, true]));
    stage.browser.close();
}

#[test]
fn evidence_stays_open_and_the_focus_where_it_is() {
    let Some(stage) = Stage::set("evidence", Fixture::default()) else { return };
    let browser = stage.open("alerts");
    browser.click("[data-alert=a1] summary");
    for text in [
        "list: trackers",
        "answer: 198.51.100.7",
        "0.83",
        "3 times since",
        "00:00:5e:00:53:17",
        "name on a list",
    ] {
        browser.shows("[data-alert=a1]", text);
    }
    browser.picture("open");
    browser.run("document.querySelector('[data-key=ack-a1]').focus()");
    stage.bus.alerts(|alerts| alerts.insert(0, alert("a0", 0, "info", "dga", "tv", "News")));
    browser.wait("news came", "return document.querySelectorAll('[data-alert]').length == 5");
    browser.shows("[data-alert=a1] details", "list: trackers");
    assert_eq!(browser.run("return document.activeElement.dataset.key"), json!("ack-a1"));
    stage.browser.close();
}

#[test]
fn many_alerts_are_said_to_be_more_than_shown() {
    let Some(stage) = Stage::set("many", Fixture::default()) else { return };
    stage.bus.alerts(|alerts| {
        let one = |i: i64| alert(&format!("n{i}"), i, "low", "dga", "tv", "One of many");
        *alerts = (0..230).map(one).collect::<Vec<Value>>();
    });
    let browser = stage.open("alerts");
    browser.shows("#view", "200 of 200 alerts");
    browser.shows("#view", "30 older ones are not shown");
    assert_eq!(rows(browser).len(), 200);
    stage.browser.close();
}
