//! How the pages look: narrow windows, phones, dark mode, hostile and endless names.

use agentmon_tests::luci::bus::{Fixture, NOW, alert};
use serde_json::{Value, json};

use super::Stage;

const PAGES: [&str; 5] = ["status", "alerts", "devices", "settings", "overview"];

/// Narrowest window the pages are made for.
const NARROW: u32 = 320;

/// What sticks out of the window to the right: nothing may.
const STICKING_OUT: &str = "const width = document.documentElement.clientWidth; return { scrolls: document.documentElement.scrollWidth > width, width: innerWidth, out: Array.from(document.querySelectorAll('#view *')).filter((e) => e.checkVisibility() && e.getBoundingClientRect().right > width + 1 && !e.closest('.agentmon-hidden')).slice(0, 5).map((e) => e.outerHTML.slice(0, 120)) }";

/// Names as an attacker would choose them.
fn hostile() -> Vec<String> {
    vec![
        "<img src=x onerror=\"window.owned=1\">".into(),
        "<script>window.owned=1</script>".into(),
        "</td></table><h1>big</h1>".into(),
        "\"><svg onload=window.owned=1>".into(),
        "a\u{0}b\u{1b}[31mc\r\nd\te".into(),
        "\u{202e}gpj.exe\u{2066}\u{200b}".into(),
        "javascript:window.owned=1".into(),
        "%s %d %h ${7*7} {{7*7}}".into(),
        "M".repeat(4_000),
        "w.".repeat(2_000),
        "__proto__".into(),
    ]
}

fn hostile_fixture() -> Fixture {
    let fixture = Fixture::default();
    let names = hostile();
    fixture.alerts(|alerts| {
        *alerts = names
            .iter()
            .enumerate()
            .map(|(i, name)| {
                let mut one = alert(&format!("h{i}"), 1, "high", name, name, name);
                for key in ["subject", "why", "note", "mac", "ip"] {
                    one[key] = json!(name);
                }
                one["evidence"] = json!([name, name]);
                one
            })
            .collect();
        alerts[1]["id"] = json!(names[3]);
        alerts[2]["severity"] = json!(names[0]);
    });
    fixture.devices(|devices| {
        *devices = names.iter().map(|name| json!({ "name": name, "mac": name, "device": name, "ips": [name, name, name, name], "first_seen": NOW, "last_seen": NOW, "bytes": 1e18 })).collect();
    });
    fixture.status(|s| {
        for key in ["version", "sensor"] {
            s[key] = json!(names[0]);
        }
        for key in ["url", "error", "detail", "state"] {
            s["hub"][key] = json!(names[3]);
        }
        let each = |key: &str| names.iter().map(|name| json!({ key: name, "state": name, "detail": name, "name": name, "ip": name, "reason": name, "count": 1, "what": name, "mend": name })).collect::<Vec<Value>>();
        s["collectors"] = json!(each("name"));
        s["top_talkers"] = json!(each("device"));
        s["drops"] = json!(each("reason"));
        s["kernel"]["problems"] = json!(each("what"));
        s["config"]["error"] = json!(names[0]);
    });
    fixture
}

#[test]
fn hostile_names_are_text_and_nothing_else() {
    let Some(stage) = Stage::set("hostile", hostile_fixture()) else { return };
    stage.browser.size(NARROW, 700, false);
    for page in ["status", "alerts", "devices", "overview"] {
        let browser = stage.open(page);
        if page == "alerts" {
            browser.run(
                "document.querySelectorAll('#view details').forEach((d) => { d.open = true })",
            );
        }
        let text = browser.text("#view");
        assert!(text.contains("<img src=x onerror="), "{page} does not show the name: {text}");
        assert!(
            text.chars()
                .all(|c| !matches!(c, '\u{0}' | '\u{1b}' | '\u{202e}' | '\u{2066}' | '\u{200b}')),
            "{page} shows control characters"
        );
        assert_eq!(
            browser.count("#view img, #view h1, #view script, #view svg:not(.agentmon-spark)"),
            0,
            "{page} made markup of a name"
        );
        assert_eq!(browser.run("return window.owned ?? null"), Value::Null, "{page} ran a name");
        assert!(text.len() < 200_000, "{page} shows {} bytes", text.len());
        let links = browser.run("return Array.from(document.querySelectorAll('#view a'), (a) => a.getAttribute('href')).filter((h) => !h.startsWith('/cgi-bin/luci/'))");
        assert_eq!(links, json!([]), "{page} links to what it was told");
        let out = browser.run(STICKING_OUT);
        assert_eq!((&out["scrolls"], &out["out"]), (&json!(false), &json!([])), "{page}");
        browser.picture(page);
    }
    // The dialogue and the filter's choices, too.
    let browser = stage.open("alerts");
    browser.click("[data-key='ack-h0']");
    browser.shows(".modal", "<img src=x onerror=");
    browser.picture("dialogue");
    assert_eq!(browser.count(".modal img, .agentmon-filter img"), 0);
    assert_eq!(browser.run("return window.owned ?? null"), Value::Null);
    stage.browser.close();
}

#[test]
fn nothing_sticks_out_of_a_narrow_window() {
    let Some(stage) = Stage::set("narrow", Fixture::default()) else { return };
    for phone in [false, true] {
        stage.browser.size(NARROW, 700, phone);
        for page in PAGES {
            let browser = stage.open(page);
            if page == "alerts" {
                browser.run(
                    "document.querySelectorAll('#view details').forEach((d) => { d.open = true })",
                );
            }
            browser.picture(&format!("{page}-{}", if phone { "phone" } else { "window" }));
            let out = browser.run(STICKING_OUT);
            // A scroll bar may take some of it: narrower still.
            assert_eq!(out["width"], json!(NARROW), "the window is not narrow");
            assert_eq!((&out["scrolls"], &out["out"]), (&json!(false), &json!([])), "{page}");
        }
    }
    // Each cell brings its column's title where the heading is gone.
    let browser = stage.open("devices");
    let titles = browser.run("return Array.from(document.querySelectorAll('#view .tr:nth-child(2) .td'), (c) => getComputedStyle(c, '::before').content)");
    assert_eq!(titles[0], json!("\"Name\""));
    assert_eq!(titles.as_array().map(Vec::len), Some(9));
    stage.browser.close();
}

#[test]
fn everything_is_readable_in_light_and_dark() {
    let Some(stage) = Stage::set("contrast", Fixture::default()) else { return };
    for dark in [false, true] {
        stage.browser.dark(dark);
        for page in PAGES {
            let browser = stage.open(page);
            assert_eq!(
                browser.run("return document.documentElement.dataset.darkmode"),
                json!(dark.to_string())
            );
            browser.picture(&format!("{page}-{}", if dark { "dark" } else { "light" }));
            let seen = browser.run(include_str!("../../luci/contrast.js"));
            assert!(seen["looked"].as_u64() > Some(5), "{page}: {seen}");
            // The stand-in's theme and the app are ours; a real theme's own colours are not.
            let ours = |line: &&Value| {
                !stage.host.real_luci() || line.as_str().is_some_and(|l| l.contains("agentmon"))
            };
            let poor: Vec<_> =
                seen["found"].as_array().into_iter().flatten().filter(ours).collect();
            assert!(poor.is_empty(), "{page}, dark {dark}: {poor:#?}");
        }
    }
    // The check itself sees what is hard to read.
    stage.browser.run("document.querySelector('#view').appendChild(Object.assign(document.createElement('p'), { textContent: 'pale', style: 'color: #888; background: #777' }))");
    let seen = stage.browser.run(include_str!("../../luci/contrast.js"));
    assert!(seen["found"].to_string().contains("pale"), "{seen}");
    stage.browser.close();
}

/// What somebody with a screen reader needs: names of tables, controls and images, headings
/// in order, and no meaning by colour alone.
#[test]
fn who_does_not_see_can_use_it() {
    let Some(stage) = Stage::set("accessible", Fixture::default()) else { return };
    for page in ["status", "alerts", "devices"] {
        let browser = stage.open(page);
        let nameless = browser.run("return Array.from(document.querySelectorAll('#view table, #view svg, #view input, #view select, #view button, #view meter')).filter((e) => !(e.getAttribute('aria-label') || e.textContent.trim() || e.closest('label')?.textContent.trim())).map((e) => e.outerHTML.slice(0, 100))");
        assert_eq!(nameless, json!([]), "{page}");
        let tables = browser.run("return Array.from(document.querySelectorAll('#view table')).filter((t) => !t.querySelector('th[scope=col], [role=rowheader]')).length");
        assert_eq!(tables, json!(0), "{page} has a table without headings");
        let badges = browser.run("return Array.from(document.querySelectorAll('#view .agentmon-badge')).filter((b) => b.innerText.replace(/[^a-z0-9]/gi, '') == '').length");
        assert_eq!(badges, json!(0), "{page} says something by colour alone");
        let twice = browser.run("const ids = Array.from(document.querySelectorAll('#view [id]'), (e) => e.id); return ids.filter((id, i) => ids.indexOf(id) != i)");
        assert_eq!(twice, json!([]), "{page} has an id twice");
    }
    stage.browser.close();
}
