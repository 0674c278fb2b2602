//! House rules of the app's scripts that a machine can check without running them.
//!
//! Each rule is a function from a file to complaints, tried on an example that breaks it.

use std::path::Path;

use agentmon_tests::luci::app;

const LINES_MAX: usize = 300;

/// Name and text of every script of the app.
fn scripts() -> Vec<(String, String)> {
    let (mut found, mut folders) = (Vec::new(), vec![app().join("htdocs")]);
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).expect("a folder of the app").flatten();
        for path in entries.map(|entry| entry.path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "js") {
                found.push((name(&path), std::fs::read_to_string(&path).expect("UTF-8")));
            }
        }
    }
    assert!(found.len() >= 10, "only {} scripts seen: the rules would check nothing", found.len());
    found
}

fn name(path: &Path) -> String {
    path.strip_prefix(app()).unwrap_or(path).display().to_string()
}

#[track_caller]
fn check(rule: fn(&str) -> Option<String>, broken: &str) {
    assert!(rule(broken).is_some(), "the rule does not see its own example");
    let complaints: Vec<_> = scripts()
        .iter()
        .filter_map(|(name, text)| rule(text).map(|complaint| format!("{name}: {complaint}")))
        .collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

fn line_with(text: &str, wrong: impl Fn(&str) -> bool) -> Option<String> {
    text.lines().find(|line| wrong(line)).map(str::to_owned)
}

#[test]
fn no_script_makes_markup_of_text() {
    const WAYS: [&str; 8] = [
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "DOMParser",
        "dom.parse",
        "eval(",
        "new Function",
    ];
    check(
        |text| line_with(text, |line| WAYS.iter().any(|way| line.contains(way))),
        "a.innerHTML = b;",
    );
}

/// LuCI's `E()` reads a bare string as markup; in a list it is text.
#[test]
fn no_element_gets_a_bare_string() {
    fn rule(text: &str) -> Option<String> {
        const TEXTS: [&str; 6] = ["'", "\"", "`", "_(", "text.", "String("];
        let bare = |line: &str| {
            let mut calls = line.split("E('").skip(1);
            calls.any(|call| {
                let Some((attributes, children)) = call.split_once("}, ") else { return false };
                let nested = attributes.matches('{').count() > 1;
                !nested && TEXTS.iter().any(|start| children.starts_with(start))
            })
        };
        line_with(text, bare)
    }
    check(rule, "return E('p', { 'class': 'a' }, text.clean(name));");
    check(rule, "return E('p', {}, name) + E('p', {}, 'x');");
}

#[test]
fn every_script_is_strict_short_and_says_what_it_is_for() {
    check(|text| (!text.starts_with("'use strict';\n")).then(|| "is not strict".into()), "x");
    check(
        |text| (!text.contains("\n/*\n * ")).then(|| "says nothing of itself".into()),
        "'use strict';",
    );
    fn long(text: &str) -> Option<String> {
        let lines = text.lines().count();
        (lines > LINES_MAX).then(|| format!("{lines} lines"))
    }
    check(long, &"\n".repeat(LINES_MAX + 1));
}

/// LuCI's build runs every script through jsmin, which knows no regular expression behind a
/// word and joins lines at its own discretion.
#[test]
fn scripts_survive_the_minifier() {
    let behind_a_word =
        |line: &str| ["return /", "typeof /", "case /"].iter().any(|w| line.contains(w));
    let comment = |line: &str| line.trim_start().starts_with(['*', '/']);
    assert!(behind_a_word("return /x/.test(y)"));
    for (name, text) in scripts() {
        let found = line_with(&text, |line| !comment(line) && behind_a_word(line));
        assert_eq!(found, None, "{name}");
        assert_eq!(
            line_with(&text, |line| line.contains("+ +") || line.contains("- -")),
            None,
            "{name}"
        );
    }
}
