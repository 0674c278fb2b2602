//! Runs the kernel collectors alone and prints what they see as NDJSON: for looking at a
//! machine, and what the kernel tests drive inside their network namespaces.
//!
//! ```text
//! watch [COLLECTOR]... [KEY=VALUE]...     # watch conntrack conntrack.dump_seconds=1
//! watch --count conntrack                 # only count the events
//! ```
//! Ends when standard input does, and then prints the counters to standard error, one
//! JSON object.

use std::io::{Read, Write};
use std::sync::Arc;

use agentmon_core::time::SystemClock;
use agentmon_router::collect::neighbours::{self, Neighbours};
use agentmon_router::collect::{
    Collector, Context, Outbox, State, Stop, conntrack, firewall, passive_dns,
};
use agentmon_router::counters::Counters;
use anyhow::Context as _;

#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    conntrack: conntrack::Config,
    firewall: firewall::Config,
    passive_dns: passive_dns::Config,
    neighbours: neighbours::Config,
}

fn main() -> anyhow::Result<()> {
    let (settings, words): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|a| a.contains('='));
    let config: Config = toml::from_str(&settings.join("\n")).context("reading KEY=VALUE")?;
    let only_count = words.iter().any(|w| w == "--count");
    let neighbours = Neighbours::default();
    let (outbox, deliveries) = Outbox::channel();
    let counters = Counters::default();
    let stop = Stop::default();

    let mut threads = Vec::new();
    for name in words.iter().filter(|w| !w.starts_with("--")) {
        let mut collector = collector(name, &config, &neighbours)?;
        let context = Context {
            outbox: outbox.clone(),
            stop: stop.clone(),
            clock: Arc::new(SystemClock),
            counters: counters.clone(),
            state: State::default(),
        };
        threads.push(std::thread::spawn(move || {
            let result = collector.run(&context);
            eprintln!("{}: {}", collector.name(), context.state.get());
            if let Err(error) = result {
                eprintln!("{}: {error:#}", collector.name());
            }
        }));
    }
    drop(outbox);

    let ender = stop.clone();
    std::thread::spawn(move || {
        drop(std::io::stdin().read_to_end(&mut Vec::new()));
        ender.stop();
    });
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut seen = 0u64;
    for delivery in deliveries {
        seen += delivery.events.len() as u64;
        if !only_count {
            for event in delivery.events {
                serde_json::to_writer(&mut out, &event)?;
                out.write_all(b"\n")?;
            }
            out.flush()?;
        }
    }
    for thread in threads {
        drop(thread.join());
    }
    counters.counter("watch.events").add(seen);
    eprintln!("{}", serde_json::to_string(&counters.snapshot())?);
    Ok(())
}

fn collector(
    name: &str,
    config: &Config,
    neighbours: &Neighbours,
) -> anyhow::Result<Box<dyn Collector>> {
    let shared = neighbours.clone();
    Ok(match name {
        "conntrack" => {
            Box::new(conntrack::Source::with_neighbours(config.conntrack.clone(), shared))
        }
        "firewall" => Box::new(firewall::Source::new(config.firewall.clone())),
        "passive-dns" => {
            Box::new(passive_dns::Source::with_neighbours(config.passive_dns.clone(), shared))
        }
        "neighbours" => {
            Box::new(neighbours::Source::with_neighbours(config.neighbours.clone(), shared))
        }
        other => anyhow::bail!("no kernel collector is called {other}"),
    })
}
