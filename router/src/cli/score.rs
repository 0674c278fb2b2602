//! `score`: what the detectors say about a name, without a running router.
//!
//! The name is put through tier-0 as the DNS query it would be: same code, same verdict.

use std::net::{IpAddr, Ipv4Addr};

use agentmon_core::event::{Answer, Body, Dns, DnsStatus, Event};
use agentmon_core::tier0::{Engine, Found};
use agentmon_core::{Name, Timestamp};
use anyhow::Context as _;
use serde_json::json;

use super::args::Args;
use super::{Io, Outcome, Result, config};
use crate::lists;

pub(super) fn run(mut args: Args, io: &mut Io<'_>) -> Result {
    let config = config(&mut args)?;
    let json = args.flag("--json");
    let names = args.words()?;
    anyhow::ensure!(!names.is_empty(), "which name? For example: score www.example.com");
    let lists = lists::load(&config.tier0)?;
    let mut engine = Engine::new(&config.tier0, lists);
    let mut outcome = Outcome::Fine;
    for text in names {
        let name =
            Name::parse(text.as_bytes()).with_context(|| format!("`{}`", super::shown(&text)))?;
        let found = verdict(&mut engine, &name);
        if !found.is_empty() {
            outcome = Outcome::Found;
        }
        if json {
            let findings: Vec<_> = found.iter().map(|f| &f.finding).collect();
            writeln!(io.out, "{}", json!({ "name": name, "findings": findings }))?;
        } else {
            write(io, &name, &found)?;
        }
    }
    Ok(outcome)
}

fn verdict(engine: &mut Engine, name: &Name) -> Vec<Found> {
    let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let dns = Dns {
        client,
        mac: None,
        name: name.clone(),
        qtype: 1,
        status: DnsStatus::Forwarded,
        rcode: Some(0),
        answers: vec![Answer::Address(Ipv4Addr::new(203, 0, 113, 1).into())],
        ttl: None,
        upstream: None,
        latency_us: None,
        blocked_by: None,
        source: "score".into(),
    };
    let mut found = Vec::new();
    let mut event = Event { time: Timestamp::EPOCH, body: Body::Dns(dns) };
    engine.on_event(&mut event, &mut found);
    found
}

fn write(io: &mut Io<'_>, name: &Name, found: &[Found]) -> std::io::Result<()> {
    if found.is_empty() {
        return writeln!(io.out, "{name}: nothing found");
    }
    for found in found {
        let f = &found.finding;
        writeln!(io.out, "{name}: {} {} {:.2}: {}", f.severity().as_str(), f.rule, f.score, f.why)?;
        for (key, value) in &f.evidence {
            writeln!(io.out, "  {key:<16} {value}")?;
        }
    }
    Ok(())
}
