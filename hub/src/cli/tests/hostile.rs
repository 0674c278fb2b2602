//! What a damaged or malicious store holds never reaches the terminal raw.

use super::*;

/// The only control characters a command may print: line ends.
#[track_caller]
fn check(command: &str) {
    let ran = run(command);
    for text in [&ran.out, &ran.err, &ran.exit] {
        let raw = text.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\r'));
        assert_eq!(raw, None, "{command}: {text:?}");
        assert!(!text.contains('\u{202e}'), "{command}: {text:?}");
    }
    assert!(ran.out.contains("evil") || ran.out.contains("red"), "{command} saw it: {}", ran.out);
}

#[test]
fn in_every_format_of_every_command() {
    for format in ["", " --json", " --csv"] {
        check(&format!("dns sensor:attic{format}"));
        check(&format!("alerts client:192.168.77.99{format}"));
        check(&format!("timeline client:192.168.77.99{format}"));
        check(&format!("sql{format} SELECT_*_FROM_dns_WHERE_sensor=2"));
    }
    check("alert 4");
    check("alert 4 --json");
}

#[test]
fn a_hostile_record_stays_one_line() {
    for (command, lines) in [
        ("alerts client:192.168.77.99 --json", 1),
        ("alerts client:192.168.77.99 --csv", 2),
        ("alerts client:192.168.77.99", 2),
    ] {
        assert_eq!(run(command).out.lines().count(), lines, "{command}");
    }
}

#[test]
fn json_gives_back_what_is_stored() {
    let out = run("dns --json sensor:attic").out;
    let row: serde_json::Value = serde_json::from_str(out.trim()).unwrap();
    assert_eq!(row["name"], "\x1b[31mred\x07\u{9b}.example,\"x\"");
    assert_eq!(row["type"], "TYPE65400");
    assert_eq!(row["rcode"], "RCODE17");
}

#[test]
fn what_a_person_typed_is_not_echoed_raw() {
    let ran = run("dns \x1b[31mfoo");
    assert!(ran.exit.starts_with("failed") && !ran.exit.contains('\x1b'), "{:?}", ran.exit);
}
