//! The model as a whole: policies as people write them, processes, decisions.

use std::net::IpAddr;

use super::Strength;
use super::compile::{Authority, Catalogue, Problem};
use super::decide::{Destination, Scope, Verdict};
use super::lint::lint;
use super::meter::{Meter, Usage};
use super::policy::{Mode, Policy};
use crate::event::{Process, Program};
use crate::name::Name;
use crate::time::Timestamp;

const NOW: Timestamp = Timestamp::from_secs(1_795_444_327);

fn policy(text: &str) -> Policy {
    toml::from_str(text).unwrap_or_else(|e| panic!("{e}"))
}

#[track_caller]
fn ready(text: &str) -> Authority {
    Authority::compile(&policy(text), &Catalogue::default()).unwrap_or_else(|p| panic!("{p:?}"))
}

/// `claude:/opt/claude/claude > bash:/bin/bash > curl:/usr/bin/curl`: the oldest first.
fn process(chain: &str) -> Process {
    let mut programs: Vec<Program> = chain
        .split(" > ")
        .map(|one| {
            let mut words = one.split(' ');
            let first = words.next().unwrap();
            let (name, exe) = first.split_once(':').unwrap_or((first, ""));
            Program {
                name: name.into(),
                exe: (!exe.is_empty()).then(|| exe.into()),
                argv: words.map(str::to_owned).collect(),
                ..Program::default()
            }
        })
        .collect();
    let program = programs.pop().unwrap();
    programs.reverse();
    Process { os: "linux".into(), program, ancestors: programs, ..Process::default() }
}

struct To {
    names: Vec<Name>,
    ip: IpAddr,
    port: u16,
}

/// `api.example.com=203.0.113.5:443`, or without a name.
fn to(text: &str) -> To {
    let (names, address) = text.split_once('=').unwrap_or(("", text));
    let address: std::net::SocketAddr = address.parse().unwrap();
    let names = names.split(',').filter(|n| !n.is_empty()).map(|n| n.parse().unwrap());
    To { names: names.collect(), ip: address.ip(), port: address.port() }
}

/// The decision as `verdict subject strength`.
fn decided(authority: &Authority, chain: &str, destination: &str) -> String {
    let to = to(destination);
    let to = Destination { names: &to.names, ip: to.ip, port: to.port, proto: 6 };
    let scope = Scope { host: "laptop", groups: &[], user: Some("alice") };
    let decision = authority.decide(authority.identify(&process(chain)), &scope, &to, NOW);
    let strength = decision.strength.map_or("-", |s| s.as_str());
    format!("{} {} {strength}", decision.verdict.as_str(), decision.subject.unwrap_or("-"))
}

#[track_caller]
fn check(policy: &str, chain: &str, destination: &str, expected: &str) {
    assert_eq!(decided(&ready(policy), chain, destination), expected, "{chain} -> {destination}");
}

#[test]
fn the_shortest_policy_works_as_written() {
    let text = r#"authority = [{process = "claude-code", allowed = ["api.anthropic.com"]}]"#;
    check(text, "claude-code", "api.anthropic.com=203.0.113.5:443", "allowed claude-code name");
    check(text, "claude-code", "other.example=203.0.113.6:443", "outside claude-code name");
    check(text, "claude-code > curl", "other.example=203.0.113.6:443", "outside claude-code name");
    check(text, "firefox", "other.example=203.0.113.6:443", "no-grant - -");
    // With the catalogue's definition it is known by its path.
    let catalogue = Catalogue {
        process: policy("process = [{id = \"claude-code\", any = [{exe = \"~/.local/share/claude/versions/*\"}]}]").process,
        ..Catalogue::default()
    };
    let authority = Authority::compile(&policy(text), &catalogue).unwrap();
    let chain =
        "claude:/home/alice/.local/share/claude/versions/2.1 > bash:/bin/bash > curl:/usr/bin/curl";
    assert_eq!(
        decided(&authority, chain, "api.anthropic.com=203.0.113.5:443"),
        "allowed claude-code path"
    );
    assert_eq!(
        decided(&authority, "claude-code", "api.anthropic.com=203.0.113.5:443"),
        "no-grant - -"
    );
}

const AGENT: &str = r#"
    [[process]]
    id = "agent"
    any = [{ exe = "/opt/agent/**" }, { exe_name = ["node", "bun"], argv = "*/@example/agent/*" }]
    except_children = ["ssh-agent", "dockerd"]
    [[process]]
    id = "git"
    any = [{ exe = "/usr/bin/git" }]
    tree = false
    [[process]]
    id = "browser"
    any = [{ name = "firefox" }]
    [[process]]
    id = "deploy"
    any = [{ exe = "/usr/bin/rsync", ancestor = "agent" }]

    [[authority]]
    process = "agent"
    allowed = ["api.example.com:443", "*.cdn.example", ".mirror.example", "lan:dns", "198.51.100.0/24"]
    denied = ["paste.mirror.example", "198.51.100.66"]
    [[authority]]
    process = "git"
    allowed = ["git.example.net"]
    [[authority]]
    process = "browser"
    allowed = ["*"]
    [[authority]]
    process = "deploy"
    allowed = ["target.example"]
"#;

#[test]
fn whose_authority_counts() {
    let target = "api.example.com=203.0.113.5:443";
    check(AGENT, "agent:/opt/agent/bin/agent", target, "allowed agent path");
    check(
        AGENT,
        "agent:/opt/agent/bin/agent > sh:/bin/sh > curl:/usr/bin/curl",
        target,
        "allowed agent path",
    );
    check(
        AGENT,
        "node:/usr/bin/node /usr/bin/node /lib/@example/agent/cli.js",
        target,
        "allowed agent argv",
    );
    check(AGENT, "node:/usr/bin/node /usr/bin/node /srv/app.js", target, "no-grant - -");
    // The file's name counts, not what the process calls itself.
    check(AGENT, "firefox:/tmp/x", target, "no-grant - -");
    // A tool is itself, but below an agent it is the agent.
    check(
        AGENT,
        "bash:/bin/bash > git:/usr/bin/git",
        "git.example.net=203.0.113.7:22",
        "allowed git path",
    );
    check(
        AGENT,
        "agent:/opt/agent/a > git:/usr/bin/git",
        "git.example.net=203.0.113.7:22",
        "outside agent path",
    );
    // Nobody leaves an agent by a name, but what is known better and nearer counts.
    check(
        AGENT,
        "agent:/opt/agent/a > firefox",
        "other.example=203.0.113.7:80",
        "outside agent path",
    );
    check(AGENT, "bash > firefox", "other.example=203.0.113.7:80", "allowed browser name");
    check(
        AGENT,
        "agent:/opt/agent/a > rsync:/usr/bin/rsync",
        "target.example=203.0.113.7:22",
        "allowed deploy path",
    );
    check(AGENT, "rsync:/usr/bin/rsync", "target.example=203.0.113.7:22", "no-grant - -");
    // Daemons that outlive it are not the agent, nor what runs below them.
    check(
        AGENT,
        "agent:/opt/agent/a > dockerd:/usr/bin/dockerd > sh:/bin/sh",
        target,
        "no-grant - -",
    );
}

#[test]
fn where_it_may_go() {
    let agent = "agent:/opt/agent/a";
    let is = |destination: &str, verdict: &str| {
        check(AGENT, agent, destination, &format!("{verdict} agent path"));
    };
    is("api.example.com=203.0.113.5:80", "outside");
    is("x.api.example.com=203.0.113.5:443", "outside");
    is("a.b.cdn.example=203.0.113.5:443", "allowed");
    is("cdn.example=203.0.113.5:443", "outside");
    is("mirror.example=203.0.113.5:443", "allowed");
    is("x.mirror.example=203.0.113.5:443", "allowed");
    is("paste.mirror.example=203.0.113.5:443", "denied");
    is("a.paste.mirror.example=203.0.113.5:443", "denied");
    // A name of the chain counts as well; a denied one among them denies.
    is("www.example=203.0.113.5:443", "outside");
    is("www.example,edge.cdn.example=203.0.113.5:443", "allowed");
    is("edge.cdn.example,paste.mirror.example=203.0.113.5:443", "denied");
    is("198.51.100.7:9", "allowed");
    is("198.51.100.66:9", "denied");
    is("nobody.example=198.51.100.7:9", "allowed");
    is("192.168.1.1:53", "allowed");
    is("192.168.1.1:80", "outside");
    is("[2001:db8::1]:443", "outside");
}

#[test]
fn a_public_name_with_a_private_address_is_told() {
    let text = r#"authority = [{process = "a", allowed = ["api.example.com", "10.0.0.0/8"]}]"#;
    check(text, "a", "api.example.com=192.168.1.1:443", "private-answer a name");
    // Where the person named the network, the name does not matter.
    check(text, "a", "api.example.com=10.1.1.1:443", "allowed a name");
    check(text, "a", "other.example.org=192.168.1.1:443", "private-answer a name");
    check(text, "a", "nas.lan=192.168.1.1:443", "outside a name");
    check(
        r#"authority = [{process = "a", allowed = ["nas.lan"]}]"#,
        "a",
        "nas.lan=192.168.1.1:443",
        "allowed a name",
    );
}

#[test]
fn exceptions_win_until_they_are_over() {
    let text = |until: &str| {
        format!(
            r#"
            authority = [{{process = "a", denied = ["x.example"]}}]
            [[exception]]
            process = "a"
            allowed = ["x.example"]
            until = {until}
            reason = "a trial"
            "#
        )
    };
    let is = |until: &str, expected: &str| {
        check(&text(until), "a", "x.example=203.0.113.1:1", &format!("{expected} a name"));
    };
    is("2026-12-01", "excepted");
    is("2026-11-24T00:00:00Z", "excepted");
    is("\"2026-11-23T23:59:59+01:00\"", "excepted");
    is("2026-11-23", "denied");
    is("2026-11-23T14:00:00Z", "denied");
    let mut policy = policy(&text("2026-12-01"));
    policy.exception[0].reason.clear();
    let problems = Authority::compile(&policy, &Catalogue::default()).unwrap_err();
    assert!(problems[0].place == "exception[0].reason", "{problems:?}");
}

#[test]
fn grants_hold_on_their_hosts_for_their_users_and_for_who_is_known_well_enough() {
    let text = r#"
        defaults = { mode = "flag" }
        [[process]]
        id = "a"
        any = [{ name = "a" }, { exe = "/opt/a" }]
        [[authority]]
        process = "a"
        hosts = ["lap*", "group:dev"]
        users = ["alice"]
        allowed = ["x.example"]
        otherwise = "flag"
        [[authority]]
        process = "a"
        allowed = ["y.example"]
        require = "path"
    "#;
    let authority = ready(text);
    let decide = |scope: Scope<'_>, chain: &str, target: &str| {
        let to = to(target);
        let to = Destination { names: &to.names, ip: to.ip, port: to.port, proto: 6 };
        let decision = authority.decide(authority.identify(&process(chain)), &scope, &to, NOW);
        (decision.verdict, decision.mode, decision.weak)
    };
    let groups = ["dev".to_owned()];
    let (x, y) = ("x.example=203.0.113.1:1", "y.example=203.0.113.1:1");
    let at = |host, groups, user| Scope { host, groups, user };
    let allowed = (Verdict::Allowed, Mode::Allow, false);
    assert_eq!(decide(at("laptop", &[], Some("alice")), "a", x), allowed);
    assert_eq!(decide(at("server", &groups, Some("alice")), "a", x), allowed);
    assert_eq!(
        decide(at("server", &[], Some("alice")), "a", x),
        (Verdict::Outside, Mode::Alert, false)
    );
    assert_eq!(decide(at("laptop", &[], Some("bob")), "a", x).0, Verdict::Outside);
    assert_eq!(decide(at("laptop", &[], None), "a", x).0, Verdict::Outside);
    assert_eq!(decide(at("laptop", &[], None), "a", y), (Verdict::Outside, Mode::Alert, true));
    assert_eq!(decide(at("laptop", &[], None), "a:/opt/a", y), allowed);
    assert_eq!(decide(at("laptop", &[], None), "b", y), (Verdict::NoGrant, Mode::Flag, false));
    let to = to(x);
    let to = Destination { names: &to.names, ip: to.ip, port: to.port, proto: 6 };
    let unknown = authority.decide_unknown(&at("laptop", &[], None), &to, NOW);
    assert_eq!((unknown.verdict, unknown.mode), (Verdict::UnknownProcess, Mode::Flag));
}

#[test]
fn groups_of_hosts() {
    let text = |groups: &str| {
        format!(
            "authority = [{{process = \"a\", hosts = [\"group:dev\", \"desk\"], allowed = [\"x.example\"]}}]\n[group]\n{groups}"
        )
    };
    let is = |groups: &str, host: &str, expected: Verdict| {
        let authority = ready(&text(groups));
        let to = to("x.example=203.0.113.1:1");
        let to = Destination { names: &to.names, ip: to.ip, port: to.port, proto: 6 };
        let scope = Scope { host, ..Scope::default() };
        let decision = authority.decide(authority.identify(&process("a")), &scope, &to, NOW);
        assert_eq!(decision.verdict, expected, "{host} in {groups}");
    };
    let (dev, nested) = ("dev = [\"lap*\"]", "dev = [\"lap*\", \"group:lab\"]\nlab = \"bench-?\"");
    is(dev, "laptop", Verdict::Allowed);
    is(dev, "desk", Verdict::Allowed);
    is(dev, "bench-1", Verdict::NoGrant);
    is(nested, "bench-1", Verdict::Allowed);
    is(nested, "server", Verdict::NoGrant);
    // Whoever asks may know of groups the policy does not.
    is("lab = \"bench-?\"", "bench-1", Verdict::NoGrant);
    lints(&format!("{}\n{A}", text(nested)), &[]);
}

/// By what each kind of matcher knows a process, and that each is asked for.
#[test]
fn what_a_process_is_known_by() {
    let program = Program {
        name: "tool".into(),
        exe: Some("/opt/tool/bin/tool".into()),
        sha256: Some("ab".repeat(32)),
        argv: vec!["tool".into(), "--serve".into()],
        user: Some("alice".into()),
        signer: Some("EXAMPLE123".into()),
        package: Some("deb:tool".into()),
        ..Program::default()
    };
    let process = Process { os: "linux".into(), program, ..Process::default() };
    let check = |matcher: &str, expected: Option<Strength>| {
        let text = format!("[[process]]\nid = \"a\"\nany = [{{ {matcher} }}]");
        let found = ready(&text).identify(&process).map(|i| i.strength);
        assert_eq!(found, expected, "{matcher}");
    };
    let hash = "ab".repeat(32).to_uppercase();
    check("name = \"tool\"", Some(Strength::Name));
    check("argv = \"--serve\"", Some(Strength::Argv));
    check("path = \"/opt/*/bin/tool\"", Some(Strength::Path));
    check("package = \"deb:tool\"", Some(Strength::Path));
    check(&format!("hash = \"{hash}\""), Some(Strength::Hash));
    check("signature = \"EXAMPLE*\"", Some(Strength::Signed));
    check("name = \"tool\", signer = \"EXAMPLE123\"", Some(Strength::Signed));
    check("name = \"tool\", user = \"alice\", os = \"linux\"", Some(Strength::Name));
    check("name = \"tool\", signer = \"OTHER\"", None);
    check("name = \"tool\", user = \"bob\"", None);
    check("name = \"tool\", os = [\"macos\", \"windows\"]", None);
    check("path = \"/opt/*/tool\"", None);
}

#[test]
fn what_holds_for_every_process() {
    let text = r#"
        [[authority]]
        denied = ["bad.example"]
        otherwise = "learn"
        [[authority]]
        process = "a"
        allowed = ["*"]
    "#;
    check(text, "a", "bad.example=203.0.113.1:1", "denied a name");
    check(text, "a", "good.example=203.0.113.1:1", "allowed a name");
    check(text, "b", "good.example=203.0.113.1:1", "outside - -");
}

#[test]
fn classes_are_opened() {
    let text = r#"
        authority = [{process = "a", allowed = ["ai:all:443"]}]
        [class]
        "ai:one" = [".one.example:80", "198.51.100.0/24"]
        "ai:all" = ["ai:one", "two.example"]
    "#;
    check(text, "a", "x.one.example=203.0.113.1:443", "allowed a name");
    check(text, "a", "x.one.example=203.0.113.1:80", "outside a name");
    check(text, "a", "two.example=203.0.113.1:443", "allowed a name");
    check(text, "a", "198.51.100.7:443", "allowed a name");
}

#[test]
fn limits_are_told_once_in_their_span() {
    let authority = ready(
        r#"authority = [{process = "a", allowed = ["*"], max_upload = "100B/hour", max_connections = "2/day"}]"#,
    );
    let identity = authority.identify(&process("a"));
    let mut meter = Meter::default();
    let mut charge = |host: &str, upload: u64, at: i64| {
        let scope = Scope { host, ..Scope::default() };
        let usage = Usage { upload, download: 5, connections: 1 };
        let now = NOW.plus(std::time::Duration::from_secs(at as u64));
        let told = authority.charge(&mut meter, identity, &scope, usage, now);
        told.iter().map(|e| format!("{} {}", e.kind.as_str(), e.used)).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(charge("laptop", 60, 0), "");
    assert_eq!(charge("server", 60, 1), "", "each host has its own");
    assert_eq!(charge("laptop", 60, 2), "max_upload 120");
    assert_eq!(charge("laptop", 60, 3), "max_connections 3");
    assert_eq!(charge("laptop", 60, 3_600), "");
    assert_eq!(charge("laptop", 60, 3_601), "max_upload 120");
}

/// Problems as `place: text` up to the first colon of the text.
fn problems(text: &str) -> Vec<String> {
    let show = |p: &Problem| format!("{} {}: {}", if p.error { "E" } else { "W" }, p.place, p.text);
    lint(&policy(text), &Catalogue::default(), NOW).iter().map(show).collect()
}

#[track_caller]
fn lints(text: &str, expected: &[&str]) {
    let found = problems(text);
    let same =
        found.len() == expected.len() && found.iter().zip(expected).all(|(f, e)| f.contains(e));
    assert!(same, "{found:#?}\nexpected {expected:#?}");
}

const A: &str = "[[process]]\nid = \"a\"\nany = [{ exe = \"/a\" }]\n";

#[test]
fn what_is_wrong_or_does_nothing_is_told() {
    let with_a = |rest: &str, expected: &[&str]| lints(&format!("{A}{rest}"), expected);
    with_a("[[authority]]\nprocess = \"a\"\nallowed = [\"x.example\"]", &[]);
    with_a("", &["W process[0]: `a` has no grant"]);
    lints(
        "authority = [{process = \"b\", allowed = [\"x.example\"]}]",
        &["W authority[0].process: `b` is not defined"],
    );
    with_a("[[authority]]\nprocess = \"a\"", &["W authority[0]: allows nothing"]);
    with_a(
        "[[authority]]\nprocess = \"a\"\nallowed = [\"x.example\", \"y.x.example\", \"*.z.example\", \"a.z.example:443\"]\ndenied = [\"x.example\"]",
        &[
            "allowed[0]: `x.example` is dead",
            "allowed[1]: `y.x.example` is dead",
            "allowed[3]: `a.z.example:443` is shadowed",
        ],
    );
    with_a(
        "[[authority]]\nprocess = \"a\"\nallowed = [\"x.example\", \"x.example\"]\n[[authority]]\nprocess = \"a\"\nhosts = \"h\"\nallowed = [\"x.example\"]",
        &[
            "authority[0].allowed[1]: `x.example` is shadowed",
            "authority[1].allowed[0]: `x.example` is shadowed",
        ],
    );
    // On one host only: the denial does not kill the grant that holds everywhere.
    with_a(
        "[[authority]]\nprocess = \"a\"\nallowed = [\"x.example\"]\n[[authority]]\nprocess = \"a\"\nhosts = \"h\"\ndenied = [\"x.example\"]",
        &[],
    );
    with_a(
        "[[authority]]\nprocess = \"a\"\ndenied = [\"x.example\"]\n[[exception]]\nprocess = \"a\"\nallowed = [\"y.x.example\"]\nuntil = 2027-01-01\nreason = \"r\"",
        &["exception[0].allowed[0]: lets `y.x.example` through, which `x.example`"],
    );
    with_a(
        "[[exception]]\nprocess = \"a\"\nallowed = [\"x.example\"]\nuntil = 2026-01-01\nreason = \"r\"",
        &["W exception[0].until: is over since 2026-01-01"],
    );
}

#[test]
fn what_contradicts_itself_is_told() {
    let with_a = |rest: &str, expected: &[&str]| lints(&format!("{A}{rest}"), expected);
    with_a(
        "[[authority]]\nprocess = \"a\"\nhosts = \"group:none\"\nallowed = [\"x.example\"]",
        &["W authority[0].hosts: no host is in group `none`"],
    );
    with_a(
        "[[process]]\nid = \"b\"\nany = [{ exe = \"/a\" }]\n[[authority]]\nprocess = [\"a\", \"b\"]\nallowed = [\"x.example\"]",
        &["W process[1]: `b` is dead: `a` looks the same"],
    );
    with_a(
        "[[authority]]\nprocess = \"a\"\nallowed = [\"x.example\"]\notherwise = \"alert\"\n[[authority]]\nprocess = \"a\"\nallowed = [\"y.example\"]\notherwise = \"allow\"",
        &[
            "W authority[1].otherwise: another grant of the same process says something else; the strictest holds: alert",
        ],
    );
    // On other hosts it may say something else.
    with_a(
        "[[authority]]\nprocess = \"a\"\nallowed = [\"x.example\"]\notherwise = \"alert\"\n[[authority]]\nprocess = \"a\"\nhosts = \"h\"\nallowed = [\"y.example\"]\notherwise = \"allow\"",
        &[],
    );
}

#[test]
fn what_cannot_be_used_is_refused_with_its_place() {
    let defined = "[[authority]]\nprocess = \"a\"\nallowed = [\"x.example\"]";
    let first = |text: &str| problems(text).first().cloned().unwrap_or_default();
    let check = |text: &str, expected: &str| {
        let found = first(text);
        assert!(found.starts_with("E ") && found.contains(expected), "{found} for {text}");
        assert!(Authority::compile(&policy(text), &Catalogue::default()).is_err());
    };
    check(&format!("version = 2\n{A}{defined}"), "version: this program reads version 1");
    check(&format!("{A}{A}{defined}"), "process[1].id: `a` is defined twice");
    check("[[process]]\nid = \"a\"\nany = [{}]", "process[0].any[0]: says nothing");
    check(
        "[[process]]\nid = \"a\"\nany = [{ ancestor = \"a\" }]",
        "`a` would have to run below itself",
    );
    check(
        "[[process]]\nid = \"a\"\nany = [{ ancestor = \"b\" }]\n[[process]]\nid = \"b\"\nany = [{ ancestor = \"a\" }]",
        "`a` would have to run below itself",
    );
    check("[[process]]\nid = \"a\"\nany = [{ ancestor = \"zz\" }]", "no process `zz` is defined");
    check("[[process]]\nid = \"a\"\nany = [{ sha256 = \"12\" }]", "64 hexadecimal digits");
    check(
        "authority = [{process = \"a\", allowed = [\"ai:none\"]}]",
        "authority[0].allowed[0]: no class `ai:none`",
    );
    check(
        "authority = [{allowed = [\"a:b\"]}]\nclass = {\"a:b\" = [\"c:d\"], \"c:d\" = [\"a:b\"]}",
        "class `a:b` contains itself",
    );
    check("[group]\na = \"group:a\"", "group.a: group `a` contains itself");
    check(
        "authority = [{process = \"p\", hosts = \"group:a\", allowed = [\"x.example\"]}]\n[group]\na = [\"h\", \"group:b\"]\nb = \"group:a\"",
        "group.a: group `a` contains itself",
    );
    check("[group]\na = []", "group.a: is empty");
    check("authority = [{denied = [\"10.0.0.0/99\"]}]", "authority[0].denied[0]: `10.0.0.0/99`");
    for unreadable in [
        "authority = [{procces = \"a\"}]",
        "authority = [{max_upload = \"1 lot\"}]",
        "[[exception]]\nallowed = \"x\"\nreason = \"r\"\nuntil = 2026-02-30",
        "[[exception]]\nallowed = \"x\"\nreason = \"r\"\nuntil = \"soon\"",
        "[[exception]]\nallowed = \"x\"\nreason = \"r\"",
    ] {
        assert!(toml::from_str::<Policy>(unreadable).is_err(), "{unreadable}");
    }
}

proptest::proptest! {
    /// Whatever a policy says: it is refused or decides, the same each time; what is denied is
    /// never allowed; and more grants never make a denial of them an allowance.
    #[test]
    fn any_policy_decides_or_is_refused(
        allowed in proptest::collection::vec("(\\*\\.|\\.)?[ab]\\.example(:443)?|lan|\\*|198\\.51\\.100\\.0/2[0-9]", 0..6),
        denied in proptest::collection::vec("(\\*\\.)?[ab]\\.example|198\\.51\\.100\\.[0-9]{1,2}", 0..4),
        names in proptest::collection::vec("([xy]\\.)?[abc]\\.example", 0..3),
        last in 0u8..100, port in 442u16..445,
    ) {
        let quoted = |list: &[String]| list.iter().map(|t| format!("\"{t}\"")).collect::<Vec<_>>().join(",");
        let text = format!(
            "authority = [{{process = \"a\", allowed = [{}], denied = [{}]}}]", quoted(&allowed), quoted(&denied));
        let policy = policy(&text);
        let problems = lint(&policy, &Catalogue::default(), NOW);
        let authority = match Authority::compile(&policy, &Catalogue::default()) {
            Ok(authority) => authority,
            Err(errors) => {
                proptest::prop_assert!(errors.iter().any(|e| e.error) && problems.iter().any(|p| p.error));
                return Ok(());
            }
        };
        let names: Vec<Name> = names.iter().map(|n| n.parse().unwrap()).collect();
        let ip = IpAddr::from([198, 51, 100, last]);
        let to = Destination { names: &names, ip, port, proto: 6 };
        let decision = authority.decide(authority.identify(&process("a")), &Scope::default(), &to, NOW);
        let hit = |text: &String, denies: bool| {
            let p: super::Pattern = text.parse().unwrap();
            use super::pattern::Place;
            let at = match &p.place {
                Place::Any => true,
                Place::Net(net) => net.contains(&ip),
                Place::Exact(n) => names.iter().any(|m| if denies { m.is_at_or_below(n.as_str()) } else { m == n }),
                Place::Below(n) => names.iter().any(|m| m != n && m.is_at_or_below(n.as_str())),
                Place::AtOrBelow(n) => names.iter().any(|m| m.is_at_or_below(n.as_str())),
                Place::Lan | Place::Loopback | Place::Class(_) => false,
            };
            at && p.fits(port, 6)
        };
        let expected = if denied.iter().any(|t| hit(t, true)) { Verdict::Denied }
            else if allowed.iter().any(|t| hit(t, false)) { Verdict::Allowed }
            else { Verdict::Outside };
        proptest::prop_assert_eq!(decision.verdict, expected);
        // What the lint calls dead decides nothing.
        let dead = |p: &&Problem| p.text.contains("is dead");
        for problem in problems.iter().filter(dead) {
            proptest::prop_assert!(decision.place != Some(problem.place.as_str()));
        }
    }

    #[test]
    fn any_text_is_a_policy_or_none(text in "\\PC{0,120}") {
        if let Ok(policy) = toml::from_str::<Policy>(&text) {
            drop(lint(&policy, &Catalogue::default(), NOW));
        }
    }

    /// However long a chain and whatever stands in it: the subject stands in the chain.
    #[test]
    fn the_subject_is_in_the_chain(
        chain in proptest::collection::vec("agent:/opt/agent/a|node|git:/usr/bin/git|firefox|dockerd|rsync:/usr/bin/rsync|\\PC{0,9}", 1..20)
    ) {
        let authority = ready(AGENT);
        let process = process(&chain.join(" > "));
        let found = authority.identify(&process);
        proptest::prop_assert!(found.is_none_or(|f| f.above <= process.ancestors.len()));
        proptest::prop_assert_eq!(found, authority.identify(&process));
    }
}
