//! The settings' form and the daemon take the same values.
//!
//! For every setting of the daemon's own table, many values are typed into its field and
//! given to the program that reads the file. What the form takes, the daemon must take: else
//! a saved page stops the service. What the daemon takes, the form must take, up to sizes
//! that nobody means.

use agentmon_router::join::Join;
use agentmon_router::uci::schema::{Form, LIST, OTHER_PIHOLE, SECTIONS, SETTINGS, Setting};
use agentmon_router::uci::settings::parse;
use agentmon_tests::luci::bus::Fixture;
use serde_json::{Value, json};

use super::Stage;

/// Above this the form may be narrower than the daemon: counts, seconds (a year).
const MEANT_MAX: u64 = 31_536_000;

/// Settings that are chosen from a list, not typed.
const CHOICES: [&str; 4] = ["log_level", "enforce_block", "kind", "format"];

/// Words tried in fields of text, of any kind.
const WORDS: [&str; 44] = [
    "a",
    "a b",
    "-",
    "..",
    "<b>",
    "ä",
    "\u{202e}",
    "x'y",
    "\"",
    "example.com",
    "*.example.com",
    "a..b",
    "a_b.example",
    "EXAMPLE.com.",
    "https://hub.example.net",
    "https://hub.example.net/",
    "https://192.0.2.10:8743",
    "https://[2001:db8::1]:8743",
    "http://192.0.2.1",
    "123/udp",
    "443/tcp",
    "0/tcp",
    "70000/udp",
    "53/icmp",
    "192.0.2.1",
    "192.0.2.1/24",
    "192.0.2.0/33",
    "2001:db8::/32",
    "2001:db8::1",
    "2001:db8::/129",
    "1.2.3",
    "/",
    "/a",
    "/a/b.txt",
    "a/b",
    "/a/..",
    "local",
    "utc",
    "+02:00",
    "+25:00",
    "CET-1CEST,M3.5.0,M10.5.0/3",
    "UTC0",
    "CET",
    "agentmon-join1:e30",
];

fn words() -> Vec<String> {
    let mut words: Vec<_> = WORDS.iter().map(|word| (*word).to_owned()).collect();
    words.extend(["x".repeat(64), "x".repeat(65), format!("/{}", "x".repeat(200)), join()]);
    let mut cut = join();
    cut.truncate(cut.len() - 9);
    words.push(cut);
    words
}

/// A line as the hub makes it.
pub(super) fn join() -> String {
    let pem = "-----BEGIN CERTIFICATE-----\nMIIBAA==\n-----END CERTIFICATE-----\n".to_owned();
    Join::new("https://192.0.2.10:8743".into(), "attic".into(), "secret".into(), pem).encode()
}

/// What is tried in a field.
fn probes(form: Form) -> Vec<String> {
    let around = |n: u64| [n.saturating_sub(1), n, n + 1];
    let numbers =
        (0..40).flat_map(|i| around(1 << i)).chain((0..10).flat_map(|i| around(10_u64.pow(i))));
    let known = [24, 50_000, 100_000, 300, 3_600, 2_678_400, 65_535, MEANT_MAX]
        .into_iter()
        .flat_map(around);
    let units: &[&str] = match form {
        Form::Seconds => &["", "s", "m", "h", "d", " s", "M"],
        Form::Bytes => &["", "K", "m", "G", "kb", "MiB", " G"],
        Form::Count => &[""],
        Form::Fraction => {
            let texts = [
                "0", "0.0", "0.5", ".5", "5.", "1", "1.0", "1.01", "-0.1", "1e-1", "0,5", "x",
                "NaN", "inf",
            ];
            return texts.map(str::to_owned).to_vec();
        }
        _ => return words(),
    };
    let numbers: Vec<_> = numbers.chain(known).collect();
    let mut all: Vec<_> =
        numbers.iter().flat_map(|n| units.iter().map(move |unit| format!("{n}{unit}"))).collect();
    all.extend(
        ["-1", "1.5", "x", "1x", "s", "K", "B", "1 2", "0x10", "1e3", "+1"].map(str::to_owned),
    );
    all
}

/// Whether the program that reads the file takes it.
fn daemon_takes(setting: &Setting, value: &str) -> bool {
    let named = SECTIONS.iter().find(|(_, name)| *name == setting.section);
    let kind = named.map_or(setting.section, |(kind, _)| kind);
    let quoted = value.replace('\'', "'\\''");
    let lists = matches!(setting.form, Form::Texts | Form::Paths | Form::Nets | Form::Names);
    let word = if lists { "list" } else { "option" };
    let more = match (setting.section, setting.option) {
        // A list needs names from somewhere, and a Pi-hole somewhere to be.
        (LIST, "score" | "sources_min" | "licence") => "\toption path '/x'\n",
        (OTHER_PIHOLE, "url") => "\toption certificate '/x'\n",
        (OTHER_PIHOLE, "certificate") => "\toption url 'https://192.0.2.1'\n",
        (OTHER_PIHOLE, _) => "\toption url 'https://192.0.2.1'\n\toption certificate '/x'\n",
        _ => "",
    };
    let text = format!(
        "config {kind} '{}'\n\t{word} {} '{quoted}'\n{more}",
        setting.section, setting.option
    );
    parse(text.as_bytes()).is_ok()
}

/// Whether somebody could mean it: a number of a size that has a use.
fn meant(form: Form, value: &str) -> bool {
    let (digits, unit) = value.split_at(value.bytes().take_while(u8::is_ascii_digit).count());
    let number = digits.parse::<u64>().unwrap_or(u64::MAX);
    let factor = match (form, unit.trim().to_ascii_lowercase().as_str()) {
        (Form::Seconds, "m") => 60,
        (Form::Seconds, "h") => 3_600,
        (Form::Seconds, "d") => 86_400,
        (Form::Seconds | Form::Count, _) => 1,
        _ => {
            return !matches!(
                form,
                Form::Text | Form::Texts | Form::Path | Form::Paths | Form::Nets | Form::Names
            );
        }
    };
    number.checked_mul(factor).is_some_and(|n| n <= MEANT_MAX)
}

/// Types all values and tells which ones the form takes.
const TRY: &str = "const [selector, values] = arguments[0]; const input = document.querySelector(selector); return values.map((value) => { input.value = value; input.dispatchEvent(new Event('keyup', { bubbles: true })); input.dispatchEvent(new Event('blur')); return !input.classList.contains('cbi-input-invalid') })";

#[test]
fn the_form_and_the_daemon_take_the_same_values() {
    let Some(stage) = Stage::set("agreement", Fixture::default()) else { return };
    let browser = stage.open("settings");
    let mut differences = Vec::new();
    let fields = SETTINGS.iter().filter(|s| s.form != Form::Flag && !CHOICES.contains(&s.option));
    for setting in fields {
        let section = match setting.section {
            LIST => "example",
            OTHER_PIHOLE => "cellar",
            only => only,
        };
        let row = format!("#cbi-agentmon-{section}-{} .cbi-value-field", setting.option);
        let selector = format!("{row} input[type=text], {row} input[type=password]");
        let values = probes(setting.form);
        let verdicts = browser.run_with(TRY, &json!([selector, values]));
        let verdicts: Vec<bool> = serde_json::from_value(verdicts).expect("one verdict a value");
        // The field is as it was, for the fields that are checked against it.
        browser.run_with(TRY, &json!([selector, [""]]));
        for (value, form) in values.iter().zip(verdicts) {
            let daemon = daemon_takes(setting, value);
            if form && !daemon || daemon && !form && meant(setting.form, value) {
                let (section, option) = (setting.section, setting.option);
                differences
                    .push(format!("{section}.{option} {value:.80?}: form {form}, daemon {daemon}"));
            }
        }
    }
    assert!(
        differences.is_empty(),
        "{} differences:\n{}",
        differences.len(),
        differences.join("\n")
    );
    stage.browser.close();
}

#[test]
fn a_real_join_line_is_taken() {
    let Some(stage) = Stage::set("join", Fixture::default()) else { return };
    let browser = stage.open("settings");
    let line = join();
    let (half, rest) = line.split_at(line.len() / 2);
    let wrapped = format!(" {half} {rest} ");
    let values = json!([line, wrapped, half, rest, format!("{line}!"), "agentmon-join2:e30"]);
    let verdicts =
        browser.run_with(TRY, &json!(["#cbi-agentmon-hub-join input[type=password]", values]));
    assert_eq!(verdicts, json!([true, true, false, false, false, false]));
    stage.browser.close();
}

/// LuCI's checkbox knows `1` and `0`; UCI's readers know more words.
#[test]
fn every_word_for_on_and_off_is_understood() {
    let Some(stage) = Stage::set("words", Fixture::default()) else { return };
    for (word, on) in [
        ("1", true),
        ("yes", true),
        ("On", true),
        ("true", true),
        ("enabled", true),
        ("0", false),
        ("no", false),
        ("off", false),
        ("disabled", false),
    ] {
        let set = json!({ "section": "firewall", "values": { "enabled": word } });
        stage.host.uci().call("set", &set).expect("the section is there");
        let setting = SETTINGS.iter().find(|s| s.section == "firewall" && s.option == "enabled");
        assert!(daemon_takes(setting.expect("it is in the table"), word));
        let browser = stage.open("settings");
        let shown = browser.run("return document.querySelector('#cbi-agentmon-firewall-enabled input[type=checkbox]').checked");
        assert_eq!(shown, Value::Bool(on), "{word}");
    }
    stage.browser.close();
}
