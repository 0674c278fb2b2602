//! The timeline of one device out of thirty days of a home.
//!
//! A real `agentmon serve` with default settings stores a month of 75 devices: connections and
//! the questions they followed, in the order of time. Then `agentmon timeline` is asked as a
//! person asks it, the program's start and its way through the socket included: the busiest
//! device and a quiet one, the last screenful and a quarter of an hour two weeks back. Each is
//! asked a few times; the middle counts.

use std::time::Duration;

use agentmon_core::event::{Answer, Body, Dns, DnsStatus, Flow};
use agentmon_core::time::{Clock as _, SystemClock};
use agentmon_core::wire::{Batch, Health, encode_batch, encode_event};
use agentmon_core::{Event, Timestamp};
use agentmon_router::forward::client::{HubClient, Timeouts};
use anyhow::{Context as _, anyhow, ensure};

use crate::hub::Hub;
use crate::measure::Stopwatch;
use crate::report::{Figure, Goal, Report, talk};
use crate::synthetic::Home;
use crate::world::scratch;

const DAYS: u64 = 30;
/// Connections of the month; each has its question.
const FLOWS: u64 = 1_000_000;
const BATCH_EVENTS: usize = 5_000;
const TIMES: usize = 5;

pub(crate) fn run(report: &mut Report) -> anyhow::Result<()> {
    let folder = scratch()?;
    let hub = Hub::start(folder.path())?;
    let join = hub.enroll("router")?;
    let client = HubClient::new(&join, Timeouts::default()).map_err(|e| anyhow!(e))?;
    talk("timeline: a month");
    let begin = SystemClock.wall().minus(Duration::from_secs(DAYS * 86_400));
    store(&client, begin)?;
    // By number of connections: the first, and one in the middle of the field.
    let rank = "SELECT mac, count(*) AS n FROM flows GROUP BY 1 ORDER BY 2 DESC";
    let rows = hub.ask(&["sql", "--json", rank])?;
    let mac = |nth: usize| -> anyhow::Result<String> {
        let line = rows.lines().nth(nth).context("fewer devices than expected")?;
        let row: serde_json::Value = serde_json::from_str(line)?;
        Ok(row.get("mac").and_then(serde_json::Value::as_str).context("no MAC")?.to_owned())
    };
    let back = begin.plus(Duration::from_secs(15 * 86_400)).to_string();
    for (who, nth) in [("busiest", 0), ("a quiet", 40)] {
        let mac = mac(nth)?;
        let last = ["timeline", "--device", &mac, "--since", "31d"];
        figure(report, &hub, &format!("{who} device, last screenful of a month"), &last)?;
        let at = ["timeline", "--device", &mac, "--at", &back, "--around", "15m"];
        figure(report, &hub, &format!("{who} device, half an hour two weeks back"), &at)?;
    }
    Ok(())
}

fn figure(report: &mut Report, hub: &Hub, what: &str, args: &[&str]) -> anyhow::Result<()> {
    let mut taken = Vec::new();
    for _ in 0..TIMES {
        let watch = Stopwatch::start();
        let said = hub.ask(args)?;
        taken.push(watch.elapsed().as_secs_f64() * 1e3);
        ensure!(said.contains("connected to"), "agentmon {args:?} tells nothing: {said}");
    }
    taken.sort_by(f64::total_cmp);
    let middle = taken.get(TIMES / 2).copied().unwrap_or(f64::NAN);
    report.add(Figure::new(what, middle, "ms").goal(Goal::AtMost(500.0)))
}

/// The month in batches, each acknowledged before the next.
fn store(client: &HubClient, begin: Timestamp) -> anyhow::Result<()> {
    let mut home = Home::since(7, begin);
    let step = Duration::from_secs(DAYS * 86_400) / u32::try_from(FLOWS).unwrap_or(u32::MAX);
    let (mut at, mut first_seq, mut events) = (begin, 1, Vec::new());
    let mut flush = |events: &mut Vec<Vec<u8>>| -> anyhow::Result<()> {
        let events = std::mem::take(events);
        let count = events.len() as u64;
        let sent = SystemClock.wall();
        let batch = Batch { epoch: 1, first_seq, events, health: Health::default(), sent };
        client.ingest(&encode_batch(&batch)?).map_err(|refusal| anyhow!("{refusal}"))?;
        first_seq += count;
        Ok(())
    };
    for _ in 0..FLOWS {
        at = at.plus(step);
        let Body::Flow(flow) = home.flow().body else { continue };
        let flow =
            Flow { start: flow.duration_ms.map(|ms| at.minus(Duration::from_millis(ms))), ..flow };
        if let Some(asked) = question(&flow, at) {
            events.push(encode_event(&asked));
        }
        events.push(encode_event(&Event { time: at, body: Body::Flow(flow) }));
        if events.len() >= BATCH_EVENTS {
            flush(&mut events)?;
        }
    }
    flush(&mut events)
}

/// What the device had asked before.
fn question(flow: &Flow, end: Timestamp) -> Option<Event> {
    let resolved = flow.resolved.as_ref()?;
    let began = flow.start.unwrap_or(end);
    let dns = Dns {
        client: flow.src.ip,
        mac: flow.mac,
        name: resolved.name.clone(),
        qtype: 1,
        status: DnsStatus::Forwarded,
        rcode: Some(0),
        answers: vec![Answer::Address(flow.dst.ip)],
        ttl: Some(60),
        upstream: None,
        latency_us: Some(3_000),
        blocked_by: None,
        source: "pihole".into(),
    };
    let time = began.minus(Duration::from_millis(resolved.age_ms));
    Some(Event { time, body: Body::Dns(dns) })
}
