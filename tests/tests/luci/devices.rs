//! Services > agentmon > Devices.

use agentmon_tests::luci::browser::Browser;
use agentmon_tests::luci::bus::Fixture;
use serde_json::json;

use super::Stage;

/// The first column, in its order.
fn names(browser: &Browser) -> Vec<String> {
    let names = browser.run("return Array.from(document.querySelectorAll('.agentmon tr[role=row] td:first-child'), (c) => c.innerText)");
    serde_json::from_value(names).expect("texts")
}

#[test]
fn devices_are_listed_sorted_and_filtered() {
    let Some(stage) = Stage::set("devices", Fixture::default()) else { return };
    let browser = stage.open("devices");
    // Last seen first.
    assert_eq!(names(browser), ["tablet", "tv", "camera"]);
    for text in ["00:00:5e:00:53:17", "2001:db8::23", "700 MiB", "734,003", "and 2 more"] {
        browser.shows("#view .table", text);
    }
    browser.picture("page");
    browser.click("[data-key=sort-name]");
    assert_eq!(names(browser), ["camera", "tablet", "tv"]);
    assert_eq!(browser.run("return Array.from(document.querySelectorAll('[aria-sort]'), (h) => [h.innerText.split(' ')[0], h.getAttribute('aria-sort')])"), json!([["Name", "ascending"]]));
    assert_eq!(browser.run("return document.activeElement.dataset.key"), json!("sort-name"));
    browser.click("[data-key=sort-bytes]");
    assert_eq!(names(browser), ["tablet", "tv", "camera"]);
    let filter = ".agentmon-filter input";
    for (words, expected) in [
        ("TV", &["tv"][..]),
        ("192.168.1.43", &["camera"]),
        ("53:17", &["tablet"]),
        ("192.168 tab", &["tablet"]),
        ("nobody", &[]),
    ] {
        browser.fill(filter, words);
        assert_eq!(names(browser), expected, "{words}");
    }
    browser.shows("#view", "No device fits the filter");
    browser.fill(filter, "");
    // The typed filter and the order stay while the data is renewed.
    browser.fill(filter, "t");
    stage.bus.devices(|devices| devices.push(json!({ "name": "thermostat", "name_source": "static", "mac": "da:a1:19:00:53:99", "mac_kind": "random", "ips": [], "last_seen": 1, "bytes": 1 })));
    browser.wait(
        "news came",
        "return document.querySelector('#view').innerText.includes('3 of 4 devices')",
    );
    assert_eq!(names(browser), ["tablet", "tv", "thermostat"]);
    browser.shows("#view .table", "before the clock was set");
    // A MAC it made up itself, and who gives it its name.
    browser.shows("#view .table", "random");
    let named = "return document.querySelectorAll('[title=\"Name from the settings\"]').length";
    assert_eq!(browser.run(named), json!(1));
    browser.fill(filter, "random");
    assert_eq!(names(browser), ["thermostat"]);
    stage.browser.close();
}
