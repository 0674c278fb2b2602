//! House rules that a machine can check: file headers, the README's map, dependency rules,
//! left-out tests, words that do not belong into a public repository.
//!
//! Each rule is a pure function from a file (path, text) to complaints, tried on an example
//! that breaks it: a check that cannot fail is worse than none.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The router's third-party crates, one a line; grows only with a reason in the commit.
const ROUTER_LIST: &str = "tests/tests/router-dependencies.txt";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the root").to_owned()
}

/// Every file of the repository that git knows or would add, as text; binaries are left out.
fn files() -> Vec<(String, String)> {
    let list = ["ls-files", "--cached", "--others", "--exclude-standard"];
    let out = Command::new("git").args(list).current_dir(root()).output().expect("git runs");
    assert!(out.status.success(), "git ls-files: {}", String::from_utf8_lossy(&out.stderr));
    let names = String::from_utf8(out.stdout).expect("file names are UTF-8");
    let read =
        |name: &str| Some((name.to_owned(), std::fs::read_to_string(root().join(name)).ok()?));
    let files: Vec<_> = names.lines().filter_map(read).collect();
    assert!(files.len() > 30, "only {} files seen: the rules would check nothing", files.len());
    files
}

#[track_caller]
fn check(rule: fn(&str, &str) -> Vec<String>, broken: (&str, &str)) {
    assert_eq!(rule(broken.0, broken.1).len(), 1, "the rule does not see its own example");
    let complaints: Vec<_> = files().iter().flat_map(|(name, text)| rule(name, text)).collect();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

fn is_rust(name: &str) -> bool {
    name.ends_with(".rs")
}

#[test]
fn every_source_file_says_what_it_is_for() {
    fn rule(name: &str, text: &str) -> Vec<String> {
        let bare = is_rust(name) && !text.trim_start().starts_with("//!");
        bare.then(|| format!("{name}: begins without a `//!` comment")).into_iter().collect()
    }
    check(rule, ("a.rs", "use std::fs;\n"));
}

#[test]
fn a_test_left_out_says_why() {
    fn rule(name: &str, text: &str) -> Vec<String> {
        let bare = concat!("#[", "ignore]");
        let lines = text.lines().enumerate().filter(|(_, l)| is_rust(name) && l.contains(bare));
        lines.map(|(n, _)| format!("{name}:{}: {bare} without a reason", n + 1)).collect()
    }
    check(rule, ("a.rs", concat!("#[", "ignore]\nfn a() {}\n")));
}

#[test]
fn no_word_of_a_single_machine() {
    fn rule(name: &str, text: &str) -> Vec<String> {
        // In pieces, so that this file keeps its own rule.
        let words = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("registry.", "npm")];
        let hit = |line: &str| words.iter().any(|word| line.contains(word));
        let lines = text.lines().enumerate().filter(|(_, line)| hit(line));
        lines.map(|(n, line)| format!("{name}:{}: {line}", n + 1)).collect()
    }
    check(rule, ("a.md", concat!("see /wo", "rk/notes\n")));
}

#[test]
fn the_map_in_the_readme_names_every_folder() {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("README.md");
    let mut missing = BTreeSet::new();
    for (name, _) in files() {
        let folder = name.split_once('/').map(|(top, _)| format!("`{top}/`"));
        let package = name.strip_suffix("/Cargo.toml").map(|package| format!("`{package}/`"));
        missing.extend([folder, package].into_iter().flatten().filter(|f| !readme.contains(f)));
    }
    assert!(missing.is_empty(), "README.md's map lacks {missing:?}");
    for named in readme.lines().filter_map(|l| l.strip_prefix("| `")?.split_once("/`")) {
        assert!(
            root().join(named.0).is_dir(),
            "README.md's map names {}, which is not there",
            named.0
        );
    }
}

/// Names of all crates in a package's tree for this machine, build and test crates left out.
fn tree(package: &str) -> BTreeSet<String> {
    let args = [
        "tree",
        "--locked",
        "--offline",
        "--target",
        "x86_64-unknown-linux-gnu",
        "--edges",
        "normal",
        "--prefix",
        "none",
    ];
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(args).args(["--format", "{p}", "--package", package]).current_dir(root());
    let out = command.output().expect("cargo runs");
    assert!(out.status.success(), "cargo tree: {}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).expect("crate names are UTF-8");
    text.lines().filter_map(|l| l.split_whitespace().next()).map(str::to_owned).collect()
}

#[track_caller]
fn check_tree(package: &str, forbidden: &[&str]) {
    let tree = tree(package);
    assert!(tree.contains(package), "cargo tree shows no {package}: {tree:?}");
    let found: Vec<_> = forbidden.iter().filter(|name| tree.contains(**name)).collect();
    assert!(found.is_empty(), "{package} must not depend on {found:?}");
}

#[test]
fn core_does_no_input_or_output() {
    let io = ["rusqlite", "duckdb", "tokio", "mio", "netlink-sys", "ureq", "rustls", "tracing"];
    check_tree("agentmon-core", &io);
}

#[test]
fn the_router_carries_no_runtime_and_no_analytics() {
    check_tree("agentmon-router", &["tokio", "duckdb", "arrow", "clap", "axum", "hyper"]);
}

#[test]
fn the_hub_is_seen_by_the_same_check() {
    // The negative control: what is forbidden above is found where it is.
    let tree = tree("agentmon-hub");
    assert!(["tokio", "duckdb", "clap"].iter().all(|name| tree.contains(*name)), "{tree:?}");
}

#[test]
fn the_routers_dependencies_are_the_listed_ones() {
    let listed = std::fs::read_to_string(root().join(ROUTER_LIST)).unwrap_or_default();
    let listed: BTreeSet<_> = listed.lines().map(str::to_owned).collect();
    let is_ours = |name: &String| name.starts_with("agentmon-");
    let found: BTreeSet<_> = tree("agentmon-router").into_iter().filter(|n| !is_ours(n)).collect();
    if std::env::var_os("AGENTMON_BLESS").is_some() {
        let lines: Vec<_> = found.iter().map(|name| format!("{name}\n")).collect();
        std::fs::write(root().join(ROUTER_LIST), lines.concat()).expect("list is writable");
        return;
    }
    let (new, gone): (Vec<_>, Vec<_>) =
        (found.difference(&listed).collect(), listed.difference(&found).collect());
    assert!(
        new.is_empty() && gone.is_empty(),
        "not in {ROUTER_LIST}: {new:?}; no longer used: {gone:?}. If that is meant: \
         AGENTMON_BLESS=1 cargo test -p agentmon-tests --test tidy, and say why in the commit"
    );
}
