//! Services > agentmon > Settings.

use agentmon_tests::luci::app;
use agentmon_tests::luci::browser::Browser;
use agentmon_tests::luci::bus::Fixture;
use agentmon_tests::luci::rpc::Rights;
use serde_json::{Value, json};

use super::Stage;

const SAVE: &str = ".cbi-button-save";
/// Options of which the installed file shows an example, since they have no default.
const WITHOUT_DEFAULT: [&str; 10] = [
    "database",
    "licence",
    "url",
    "name",
    "join",
    "address",
    "known_path",
    "tls_cert",
    "tls_key",
    "tls_client_ca",
];

fn field(section: &str, option: &str) -> String {
    format!("#cbi-agentmon-{section}-{option}")
}

/// Types a value and tells whether the form takes it.
fn takes(browser: &Browser, section: &str, option: &str, value: &str) -> bool {
    let input = format!(
        "{} .cbi-value-field input[type=text], {0} .cbi-value-field input[type=password]",
        field(section, option)
    );
    browser.fill(&input, value);
    let script = "const i = document.querySelector(arguments[0]); i.dispatchEvent(new Event('blur')); return !i.classList.contains('cbi-input-invalid')";
    browser.run_with(script, &json!(input)) == json!(true)
}

/// Every option of the file the package installs, those commented out included:
/// section, option, value, whether it is a list.
fn options() -> Vec<(String, String, String, bool)> {
    let file = app().join("../agentmon/files/etc/config/agentmon");
    let text = std::fs::read_to_string(&file).expect("the settings the package installs");
    let (mut found, mut section) = (Vec::new(), String::new());
    for line in text.lines() {
        let line = line.trim().trim_start_matches("# ");
        let quoted = line.split('\'').nth(1).unwrap_or_default().to_owned();
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["config", _, _] if line.contains('\'') => section = quoted,
            [kind @ ("option" | "list"), name, _] if line.contains('\'') => {
                found.push((section.clone(), name.to_owned(), quoted, kind == "list"));
            }
            _ => {}
        }
    }
    found
}

#[test]
fn every_setting_has_a_field_with_its_default() {
    let Some(stage) = Stage::set("fields", Fixture::default()) else { return };
    let browser = stage.open("settings");
    browser.picture("page");
    let all = options();
    assert!(all.len() > 60, "only {} options were read", all.len());
    for (section, option, value, list) in all {
        let script = "const f = document.querySelector(arguments[0]); if (!f) return null; const i = f.querySelector('.cbi-value-field input, .cbi-value-field select'); return { type: i.type, value: i.value, checked: i.checked, placeholder: i.placeholder ?? '', title: f.querySelector('label').textContent }";
        let shown = browser.run_with(script, &json!(field(&section, &option)));
        assert!(shown.is_object(), "{section}.{option} has no field");
        assert!(!shown["title"].as_str().unwrap_or_default().is_empty(), "{section}.{option}");
        match shown["type"].as_str() {
            Some("checkbox") => {
                assert_eq!(shown["checked"], json!(value == "1"), "{section}.{option}")
            }
            Some("text") if !list && !WITHOUT_DEFAULT.contains(&option.as_str()) => {
                let advice = "change its default in resources/agentmon/fields.js";
                assert_eq!(shown["placeholder"], json!(value), "{section}.{option}: {advice}");
            }
            _ => {}
        }
    }
    stage.browser.close();
}

#[test]
fn nonsense_is_refused_while_typing() {
    let Some(stage) = Stage::set("nonsense-settings", Fixture::default()) else { return };
    let browser = stage.open("settings");
    for (section, option, good, bad) in [
        ("main", "log_rejects_rate", &["1", "100"][..], &["0", "-1", "1e3", "x"][..]),
        (
            "hub",
            "url",
            &["https://192.0.2.10:8743"],
            &[
                "http://192.0.2.10",
                "192.0.2.10",
                "https://",
                "javascript:alert(1)",
                "https://a b",
                "https://a/b",
            ],
        ),
        ("hub", "join", &[], &["agentmon-join1:", "abc", "agentmon-join1:e30"]),
        ("hub", "name", &["attic-router", "a"], &["a b", "<b>", "ä"]),
        ("hub", "token_file", &["/etc/agentmon/token"], &["etc/token", "token"]),
        ("hub", "health_interval", &["30s", "5m", "30", "5 m"], &["s", "0s", "-5s", "1w", "9d"]),
        ("hub", "batch_size", &["512K", "1M", "65536", "512KB"], &["0", "1T", "-1", "K"]),
        ("ring", "size", &["16M", "1G", "33554432", "16 mb"], &["16", "1K", "99G", "lots"]),
        ("ring", "path", &["/tmp/agentmon/ring.db"], &["ring.db", "../ring"]),
        ("ring", "snapshot_interval", &["0", "1h", "24h"], &["1", "1s", "never"]),
        ("conntrack", "flows_max", &["32768"], &["0", "many", "1.5"]),
        ("firewall", "group", &["0", "5", "65535"], &["65536", "-1", "a", "6"]),
        ("dga", "suspicious", &["0", "0.5", "1"], &["1.1", "-0.1", "half", "0,5"]),
        (
            "direct_ip",
            "allow_service",
            &["123/udp", "443/tcp"],
            &["123", "udp/123", "70000/tcp", "53/x"],
        ),
        (
            "direct_ip",
            "allow",
            &["198.51.100.0/24", "2001:db8::1"],
            &["198.51.100.0/33", "example.com", "300.1.1.1"],
        ),
        ("direct_ip", "resolver", &["192.168.1.1", "2001:db8::53"], &["dns", "192.168.1"]),
        ("main", "local_network", &["2001:db8:1234::/48", "10.0.0.0/8"], &["10.0.0.0/40", "home"]),
        (
            "blocklist",
            "allow",
            &["example.com", "a.b.example"],
            &["exa mple", "a..b", "http://example.com"],
        ),
        ("example", "score", &["0.8"], &["2", "high"]),
    ] {
        for value in good {
            assert!(takes(browser, section, option, value), "{section}.{option} refuses {value}");
        }
        for value in bad {
            assert!(!takes(browser, section, option, value), "{section}.{option} takes {value}");
        }
        assert!(takes(browser, section, option, ""), "{section}.{option} refuses to be empty");
    }
    // A list that is on has a file or names.
    browser.click(&format!("{} input[type=checkbox]", field("example", "enabled")));
    assert!(!takes(browser, "example", "path", ""));
    assert!(takes(browser, "example", "path", "/etc/agentmon/lists/example.txt"));
    // What is wrong is not saved.
    let before = stage.host.uci().text();
    assert!(!takes(browser, "ring", "size", "16 bananas"));
    browser.click(SAVE);
    browser.shows(".modal", "Size");
    browser.shows(".modal", "a size from 2M to 4G");
    browser.picture("refused");
    assert_eq!(stage.host.uci().text(), before);
    // LuCI tells the console, too, why it did not save.
    stage.browser.close_but_for(&["contains an invalid input value"]);
}

/// Saves and waits until the form shows what was stored.
fn save(stage: &Stage, until: impl Fn() -> bool) {
    stage.browser.click(SAVE);
    let stored = || if until() { Ok(()) } else { Err(stage.host.uci().text()) };
    agentmon_tests::lab::eventually(10.0, "the settings are stored", stored);
}

#[test]
fn what_is_saved_is_what_was_typed() {
    let Some(stage) = Stage::set("save", Fixture::default()) else { return };
    let get = |section: &str, option: &str| stage.host.uci().get(section, option);
    let browser = stage.open("settings");
    assert!(takes(browser, "hub", "join", &super::agreement::join()));
    assert_eq!(
        browser.run("return document.querySelector('#cbi-agentmon-hub-join input').type"),
        json!("password")
    );
    assert!(takes(browser, "ring", "size", "32M"));
    assert!(takes(browser, "conntrack", "dump_interval", ""));
    browser.click(&format!("{} input[type=checkbox]", field("firewall", "enabled")));
    browser.choose(&format!("{} select", field("main", "log_level")), "debug");
    let list = field("direct_ip", "resolver");
    browser.fill(&format!("{list} input[type=text]"), "192.168.1.1");
    browser.click(&format!("{list} .cbi-button-add"));
    save(&stage, || get("ring", "size") == Some(json!("32M")));
    let text = |value: Option<Value>| value.map(|v| v.to_string()).unwrap_or_default();
    assert_eq!(text(get("hub", "join")), format!("{:?}", super::agreement::join()));
    assert_eq!(text(get("firewall", "enabled")), "\"0\"");
    // What is hidden now is kept for when it is switched on again.
    assert_eq!(text(get("firewall", "group")), "\"5\"");
    assert_eq!(text(get("main", "log_level")), "\"debug\"");
    assert_eq!(text(get("direct_ip", "resolver")), "[\"192.168.1.1\"]");
    // The service would start with it.
    let read = agentmon_router::uci::settings::parse(stage.host.uci().text().as_bytes());
    assert!(read.is_ok(), "{read:?}");
    // An emptied field is left out: the default is in force.
    assert_eq!(get("conntrack", "dump_interval"), None);
    assert_eq!(text(get("main", "enabled")), "\"1\"");
    stage.browser.close();
}

#[test]
fn lists_are_added_and_removed() {
    let Some(stage) = Stage::set("lists", Fixture::default()) else { return };
    let browser = stage.open("settings");
    browser.fill("#cbi-agentmon-list .cbi-section-create-name", "ads");
    browser.click("#cbi-agentmon-list .cbi-section-create .cbi-button-add");
    browser
        .wait("its fields are there", "return !!document.querySelector('#cbi-agentmon-ads-path')");
    assert!(takes(browser, "ads", "path", "/etc/agentmon/lists/ads.txt"));
    save(&stage, || stage.host.uci().get("ads", "path").is_some());
    assert_eq!(stage.host.uci().names("list"), ["example", "ads"]);
    browser.click("#cbi-agentmon-list .cbi-section-remove button");
    agentmon_tests::lab::eventually(10.0, "the first list is gone", || {
        match stage.host.uci().names("list") {
            names if names == ["ads"] => Ok(()),
            names => Err(names.join(" ")),
        }
    });
    stage.browser.close();
}

#[test]
fn a_removed_section_can_be_set_again() {
    let Some(stage) = Stage::set("removed", Fixture::default()) else { return };
    stage.host.uci().call("delete", &json!({ "section": "hub" })).expect("it was there");
    let browser = stage.open("settings");
    assert!(takes(browser, "hub", "join", &super::agreement::join()));
    save(&stage, || stage.host.uci().get("hub", "join").is_some());
    assert_eq!(stage.host.uci().names("hub"), ["hub"]);
    stage.browser.close();
}

#[test]
fn who_may_only_look_changes_nothing() {
    let Some(stage) = Stage::set("look-only", Fixture::default()) else { return };
    stage.host.rights(Rights::read_only());
    let browser = stage.open("settings");
    let free = browser.run("return Array.from(document.querySelectorAll('#view .cbi-map input:not([type=hidden]), #view .cbi-map select, .cbi-page-actions button')).filter((e) => !e.disabled && e.offsetParent).map((e) => e.id || e.textContent)");
    assert_eq!(free, json!([]));
    stage.browser.close();
}
