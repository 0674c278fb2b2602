//! The table of public suffixes against the crate `psl`, which is used by nothing but this
//! test: as the oracle, and as the source of `src/suffix/list.txt`.
//!
//! After `cargo update -p psl`: `AGENTMON_BLESS=1 cargo test -p agentmon-core --test suffix`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use agentmon_core::suffix::{self, Kind};
use proptest::prelude::*;
use proptest::sample::select;

const HEAD: &str = "\
# Public suffixes, as of the crate psl VERSION, whose rules are those of the Public Suffix List
# (https://publicsuffix.org/list/). This file is subject to the terms of the Mozilla Public
# License, v. 2.0: https://mozilla.org/MPL/2.0/. Names in their ASCII form, sorted from the right.
";

/// The rules of the `psl` crate, in ASCII: `com`, `*.ck`, `!www.ck`; and its version.
fn rules() -> (Vec<String>, String) {
    let (folder, version) = psl_source();
    let text = std::fs::read_to_string(folder.join("data/rules.txt")).expect("psl has its rules");
    let rules: Vec<_> = text.lines().filter(|line| !line.is_empty()).map(ascii).collect();
    assert!(rules.len() > 5_000, "only {} rules", rules.len());
    (rules, version)
}

fn psl_source() -> (PathBuf, String) {
    let run = |program: String, args: &[&str]| {
        let out =
            Command::new(&program).args(args).current_dir(env!("CARGO_MANIFEST_DIR")).output();
        let out = out.unwrap_or_else(|e| panic!("{program}: {e}"));
        assert!(out.status.success(), "{program}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).expect("UTF-8")
    };
    let version = run(std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into()), &["-vV"]);
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).expect("a host");
    let args = ["metadata", "--format-version", "1", "--offline", "--locked", "--filter-platform"];
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let out = run(cargo, &[args.as_slice(), &[host]].concat());
    let all: serde_json::Value = serde_json::from_str(&out).expect("cargo writes JSON");
    let packages = all["packages"].as_array().expect("packages");
    let psl = packages.iter().find(|package| package["name"] == "psl").expect("psl is used");
    let manifest = Path::new(psl["manifest_path"].as_str().expect("a path"));
    let version = psl["version"].as_str().expect("a version");
    (manifest.parent().expect("a folder").to_owned(), version.to_owned())
}

fn ascii(rule: &str) -> String {
    let labels = rule.split('.').map(|label| match label.is_ascii() {
        true => label.to_owned(),
        false => format!("xn--{}", punycode(label)),
    });
    labels.collect::<Vec<_>>().join(".")
}

/// RFC 3492, section 6.3.
fn punycode(label: &str) -> String {
    let mut out: String = label.chars().filter(char::is_ascii).collect();
    let basic = out.len() as u32;
    if basic > 0 {
        out.push('-');
    }
    let (mut code, mut delta, mut bias, mut done) = (128u32, 0u32, 72u32, basic);
    let count = label.chars().count() as u32;
    while done < count {
        let next = label.chars().map(u32::from).filter(|&c| c >= code).min().expect("one is left");
        delta += (next - code) * (done + 1);
        code = next;
        for letter in label.chars().map(u32::from) {
            delta += u32::from(letter < code);
            if letter == code {
                push_number(&mut out, delta, bias);
                bias = adapt(delta, done + 1, done == basic);
                (delta, done) = (0, done + 1);
            }
        }
        (delta, code) = (delta + 1, code + 1);
    }
    out
}

fn push_number(out: &mut String, mut number: u32, bias: u32) {
    let digit = |d: u32| char::from(b"abcdefghijklmnopqrstuvwxyz0123456789"[d as usize]);
    for k in (36u32..).step_by(36) {
        let threshold = k.saturating_sub(bias).clamp(1, 26);
        if number < threshold {
            return out.push(digit(number));
        }
        out.push(digit(threshold + (number - threshold) % (36 - threshold)));
        number = (number - threshold) / (36 - threshold);
    }
}

fn adapt(delta: u32, points: u32, first: bool) -> u32 {
    let mut delta = if first { delta / 700 } else { delta / 2 };
    delta += delta / points;
    let mut k = 0;
    while delta > 35 * 26 / 2 {
        (delta, k) = (delta / 35, k + 36);
    }
    k + 36 * delta / (delta + 38)
}

fn list() -> String {
    let (rules, version) = rules();
    let mut parts = [BTreeSet::new(), BTreeSet::new()];
    for rule in &rules {
        let example = rule.trim_start_matches('!').replace('*', "any");
        let kind = psl::suffix(example.as_bytes()).expect("a suffix").typ();
        let private = kind.expect("a rule is known") == psl::Type::Private;
        let reversed: Vec<_> =
            rule.trim_start_matches('!').rsplit('.').map(str::to_owned).collect();
        parts[usize::from(private)].insert((reversed, rule));
    }
    let lines = |part: &BTreeSet<(Vec<String>, &String)>| -> String {
        part.iter().map(|(_, rule)| format!("{rule}\n")).collect()
    };
    let [registries, private] = &parts;
    let head = HEAD.replace("VERSION", &version);
    format!("{head}=icann\n{}=private\n{}", lines(registries), lines(private))
}

#[test]
fn the_list_is_that_of_the_psl_crate() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/suffix/list.txt");
    let list = list();
    if std::env::var_os("AGENTMON_BLESS").is_some() {
        std::fs::write(&file, &list).expect("the list is writable");
        return;
    }
    let here = std::fs::read_to_string(&file).expect("the list is readable");
    assert!(here == list, "run AGENTMON_BLESS=1 cargo test -p agentmon-core --test suffix");
}

/// Where one rule is `*.b.c` and another `*.a.b.c`, the list's algorithm has `a.b.c` match the
/// first; psl forgets it there.
fn psl_forgets(name: &str) -> bool {
    static WILD: OnceLock<BTreeSet<String>> = OnceLock::new();
    let wild = WILD.get_or_init(|| {
        rules().0.iter().filter_map(|rule| rule.strip_prefix("*.").map(str::to_owned)).collect()
    });
    let under_wild = name.split_once('.').is_some_and(|(_, parent)| wild.contains(parent));
    under_wild && wild.contains(name)
}

#[track_caller]
fn check(name: &str) {
    if psl_forgets(name) {
        assert_eq!(suffix::suffix(name).map(|s| s.text), Some(name));
        return;
    }
    let theirs = psl::suffix(name.as_bytes());
    let ours = suffix::suffix(name);
    assert_eq!(ours.map(|s| s.text.as_bytes()), theirs.map(|s| s.as_bytes()), "{name}");
    let kind = theirs.and_then(|s| s.typ()).map(|kind| match kind {
        psl::Type::Icann => Kind::Registry,
        psl::Type::Private => Kind::Private,
    });
    assert_eq!(ours.and_then(|s| s.kind), kind, "{name}");
    assert_eq!(suffix::domain(name), psl::domain_str(name), "{name}");
}

#[test]
fn every_rule_is_told_as_psl_tells_it() {
    for rule in rules().0 {
        let name = rule.trim_start_matches('!').replace('*', "any");
        check(&name);
        check(&format!("example.{name}"));
        check(&format!("www.example.{name}"));
        if let Some((_, parent)) = name.split_once('.') {
            check(parent);
            check(&format!("zz.{parent}"));
        }
    }
}

proptest! {
    #[test]
    fn any_name_is_told_as_psl_tells_it(
        labels in prop::collection::vec(
            prop_oneof![select(some_labels()), "[a-z0-9-]{1,8}".prop_map(String::from)], 1..6,
        ),
    ) {
        check(&labels.join("."));
    }
}

fn some_labels() -> Vec<String> {
    let labels: BTreeSet<String> = rules()
        .0
        .iter()
        .flat_map(|r| r.split('.'))
        .filter(|l| l.len() < 12)
        .map(str::to_owned)
        .collect();
    labels.into_iter().filter(|label| !label.contains(['*', '!'])).collect()
}
