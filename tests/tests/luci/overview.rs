//! The card on Status > Overview.

use agentmon_tests::luci::bus::{Failure, Fixture};
use agentmon_tests::luci::rpc::Rights;
use serde_json::json;

use super::Stage;

const CARD: &str = "#view .agentmon";

#[test]
fn the_card_says_whether_all_is_well() {
    let Some(stage) = Stage::set("card", Fixture::default()) else { return };
    let browser = stage.open("overview");
    for text in [
        "1 of 3 with trouble",
        "leases",
        "connected",
        "1,234 events waiting",
        "4 waiting",
        "critical",
        "Name on a list: a1.example.net",
    ] {
        browser.shows(CARD, text);
    }
    browser.picture("page");
    // Drawn anew at every poll, it must not lose its looks in between.
    browser.run("window.sheet = document.getElementById('agentmon-style').sheet");
    stage.bus.status(|s| {
        s["alerts"] = json!({ "open": 0, "high": 0 });
        s["collectors"][3]["state"] = json!("ok");
    });
    browser.shows(CARD, "all 3 working");
    browser.shows(CARD, "none waiting");
    let same = "return window.sheet != null && window.sheet === document.getElementById('agentmon-style').sheet";
    assert_eq!(browser.run(same), json!(true));
    stage.bus.fail(Some(Failure::NoObject));
    browser.shows(CARD, "not running");
    stage.browser.close();
}

#[test]
fn who_may_not_see_it_gets_no_card() {
    let Some(stage) = Stage::set("no-card", Fixture::default()) else { return };
    stage.host.rights(Rights::none());
    let browser = stage.open("overview");
    browser.wait("it was asked", "return performance.getEntriesByType('resource').filter((e) => e.name.includes('/ubus')).length >= 1");
    assert_eq!(browser.count(CARD), 0);
    assert_eq!(browser.count("#maincontent > .alert-message"), 0);
    stage.browser.close();
}
