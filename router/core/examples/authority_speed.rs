//! How long a decision of a policy with 1,000 rules takes.
//!
//! `cargo run --release -p agentmon-core --example authority_speed`
//!
//! 100 processes with ten patterns each (names, names with all below them, networks, ports),
//! and a second policy in which one process has all 1,000. Prints the time of a decision in
//! the mean over a million, half of them hits, and of finding a subject among 100 definitions.

#![allow(clippy::print_stdout, reason = "a measuring program's output")]

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use agentmon_core::authority::{Authority, Catalogue, Destination, Policy, Scope, Verdict};
use agentmon_core::event::{Process, Program};
use agentmon_core::name::Name;
use agentmon_core::time::{Clock, SystemClock, Timestamp};

const RULES: u32 = 1_000;
const DECISIONS: u32 = 1_000_000;

fn main() {
    for subjects in [100, 1] {
        let policy: Policy = serde_json::from_value(policy(subjects)).expect("a policy");
        let authority = Authority::compile(&policy, &Catalogue::default()).expect("it compiles");
        let (decision, identity) =
            (decisions(&authority, subjects), identities(&authority, subjects));
        println!(
            "{} rules, {subjects} subjects: {:.0} ns per decision, {:.0} ns to find a subject",
            authority.rules(),
            decision.as_secs_f64() * 1e9 / f64::from(DECISIONS),
            identity.as_secs_f64() * 1e9 / f64::from(DECISIONS / 100),
        );
    }
}

fn policy(subjects: u32) -> serde_json::Value {
    let rules = RULES / subjects;
    let pattern = |s: u32, r: u32| match r % 4 {
        0 => format!("api{r}.s{s}.example.com:443"),
        1 => format!("*.r{r}.s{s}.example.net"),
        2 => format!(".r{r}.s{s}.example.org"),
        _ => format!("198.{}.{}.0/24", 51 + s % 100, r % 256),
    };
    let grant = |s: u32| {
        let allowed: Vec<String> = (0..rules).map(|r| pattern(s, r)).collect();
        serde_json::json!({"process": format!("p{s}"), "allowed": allowed, "hosts": ["lap*"]})
    };
    let define = |s: u32| serde_json::json!({"id": format!("p{s}"), "any": [{"exe": [format!("/opt/p{s}/**")]}]});
    serde_json::json!({
        "process": (0..subjects).map(define).collect::<Vec<_>>(),
        "authority": (0..subjects).map(grant).collect::<Vec<_>>(),
    })
}

fn process(s: u32) -> Process {
    let program = |exe: String| Program { exe: Some(exe), ..Program::default() };
    Process {
        program: program("/usr/bin/curl".into()),
        ancestors: vec![program("/bin/bash".into()), program(format!("/opt/p{s}/bin/agent"))],
        ..Process::default()
    }
}

fn decisions(authority: &Authority, subjects: u32) -> Duration {
    let ip = |n: u32| IpAddr::from(Ipv4Addr::from(0xcb00_7100 + n % 256));
    let cases: Vec<_> = (0..1_000)
        .map(|n| {
            let (s, r) = (n % subjects, n % (RULES / subjects) / 4 * 4);
            let name = if n % 2 == 0 {
                format!("api{r}.s{s}.example.com")
            } else {
                format!("a.b{n}.example")
            };
            let names: Vec<Name> = vec![
                name.parse().expect("a name"),
                "edge.cdn.example.net".parse().expect("a name"),
            ];
            (authority.identify(&process(s)), names, ip(n))
        })
        .collect();
    let scope = Scope { host: "laptop", groups: &[], user: Some("alice") };
    let now = Timestamp::from_secs(1_795_444_327);
    let (mut allowed, clock) = (0u32, SystemClock);
    let start = clock.mono();
    for (identity, names, ip) in cases.iter().cycle().take(DECISIONS as usize) {
        let to = Destination { names, ip: *ip, port: 443, proto: 6 };
        let decision = authority.decide(*identity, &scope, &to, now);
        allowed += u32::from(decision.verdict == Verdict::Allowed);
    }
    let took = clock.mono().since(start);
    assert_eq!(allowed, DECISIONS / 2, "half of them are hits");
    took
}

fn identities(authority: &Authority, subjects: u32) -> Duration {
    let processes: Vec<Process> = (0..subjects).map(process).collect();
    let clock = SystemClock;
    let start = clock.mono();
    let found = processes.iter().cycle().take(DECISIONS as usize / 100);
    let found = found.filter(|p| authority.identify(p).is_some()).count();
    let took = clock.mono().since(start);
    assert_eq!(found, DECISIONS as usize / 100);
    took
}
