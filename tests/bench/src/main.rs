//! `agentmon-bench [--json] [NAME...]`: measures agentmon and its peers in one run.
//!
//! In: names of benchmarks, none for all. Out: one line per figure on stdout (a table, or
//! JSON lines with `--json`), talk on stderr. Exit 0: every goal met; 1: a goal missed, or
//! not comparable because a peer is not installed; 2: could not measure.
//!
//! Each benchmark runs in a process of its own (the same program again, `inside NAME`),
//! those that flood the kernel in network, mount and process namespaces of their own: it
//! ends at its time limit together with everything it started, and leaves nothing behind.
//!
//! Adding a benchmark = one file and one line in [`BENCHMARKS`].

mod blocklist;
mod conntrack;
mod detectors;
mod dns_log;
mod flood;
mod hub;
mod hub_peer;
mod measure;
mod office;
mod report;
mod ring;
mod router;
mod synthetic;
mod tier0;
mod timeline;
mod world;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};

use report::{Figure, Outcome, Report};

/// One benchmark.
struct Benchmark {
    name: &'static str,
    /// One line for `--list`.
    about: &'static str,
    /// Programs of this workspace it runs: `dev` builds them first.
    programs: &'static [&'static str],
    /// In namespaces of its own (needs root).
    isolated: bool,
    /// Killed after this long.
    limit: Duration,
    run: fn(&mut Report) -> anyhow::Result<()>,
}

const BENCHMARKS: &[Benchmark] = &[
    Benchmark {
        name: "conntrack",
        about: "CPU per connection event and losses against conntrack -E and ulogd2",
        programs: &[],
        isolated: true,
        limit: Duration::from_secs(900),
        run: conntrack::run,
    },
    Benchmark {
        name: "dns-log",
        about: "lines of a DNS log to tier-0 verdicts, with a million blocked names",
        programs: &[],
        isolated: false,
        limit: Duration::from_secs(180),
        run: dns_log::run,
    },
    Benchmark {
        name: "blocklist",
        about: "three million listed names: bytes, look-ups, false hits, against HashSet and fst",
        programs: &[],
        isolated: false,
        limit: Duration::from_secs(300),
        run: blocklist::run,
    },
    Benchmark {
        name: "tier0",
        about: "every detector on: time of an event, memory, ten times the load",
        programs: &[],
        isolated: false,
        limit: Duration::from_secs(300),
        run: tier0::run,
    },
    Benchmark {
        name: "ring",
        about: "events through the SQLite ring, against a transaction per row",
        programs: &[],
        isolated: false,
        limit: Duration::from_secs(180),
        run: ring::run,
    },
    Benchmark {
        name: "router",
        about: "memory, CPU and size of the packaged router at 100 flows a second",
        programs: &["small/agentmon-router"],
        isolated: true,
        limit: Duration::from_secs(120),
        run: router::run,
    },
    Benchmark {
        name: "hub",
        about: "batches over HTTPS to committed rows, and bytes of a row, against SQLite",
        programs: &["agentmon"],
        isolated: false,
        limit: Duration::from_secs(240),
        run: hub::run,
    },
    Benchmark {
        name: "timeline",
        about: "the timeline of one device out of thirty days",
        programs: &["agentmon"],
        isolated: false,
        limit: Duration::from_secs(600),
        run: timeline::run,
    },
];

const USAGE: &str = "\
Measures agentmon and its peers in one run; a figure beside a peer is told as a ratio too.
./dev bench [NAME...] builds what is needed first.

usage: agentmon-bench [--json] [NAME...]   measure (all, or the named)
       agentmon-bench --list               what there is
       agentmon-bench --detectors          measure each detector; docs/detectors.md
       agentmon-bench --programs [NAME...] the programs these run, one a line";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match args.as_slice() {
        ["inside", name] => inside(name),
        ["role", role @ ..] => conntrack::role(role).map(|()| ExitCode::SUCCESS),
        ["--help" | "-h"] => say(USAGE),
        ["--list"] => list(),
        ["--detectors"] => detectors::markdown().and_then(|text| say(text.trim_end())),
        ["--programs", names @ ..] => programs(names),
        ["--json", names @ ..] => measure_all(names, true),
        names => measure_all(names, false),
    };
    result.unwrap_or_else(|e| {
        report::talk(&format!("{e:#}"));
        ExitCode::from(2)
    })
}

fn say(text: &str) -> anyhow::Result<ExitCode> {
    writeln!(std::io::stdout(), "{text}")?;
    Ok(ExitCode::SUCCESS)
}

fn list() -> anyhow::Result<ExitCode> {
    let line = |b: &Benchmark| format!("{:<10} {}", b.name, b.about);
    say(&BENCHMARKS.iter().map(line).collect::<Vec<_>>().join("\n"))
}

fn programs(names: &[&str]) -> anyhow::Result<ExitCode> {
    let mut all: Vec<&str> = chosen(names)?.iter().flat_map(|b| b.programs).copied().collect();
    all.sort_unstable();
    all.dedup();
    say(&all.join("\n"))
}

/// The named benchmarks in their own order; all when none is named.
fn chosen(names: &[&str]) -> anyhow::Result<Vec<&'static Benchmark>> {
    if let Some(unknown) = names.iter().find(|n| !BENCHMARKS.iter().any(|b| b.name == **n)) {
        let known: Vec<&str> = BENCHMARKS.iter().map(|b| b.name).collect();
        bail!("no benchmark {unknown:?}; there are: {}\n{USAGE}", known.join(", "));
    }
    let all = BENCHMARKS.iter();
    Ok(all.filter(|b| names.is_empty() || names.contains(&b.name)).collect())
}

fn measure_all(names: &[&str], json: bool) -> anyhow::Result<ExitCode> {
    let chosen = chosen(names)?;
    report::talk(&measure::machine());
    let mut figures: Vec<Figure> = Vec::new();
    let mut failed = false;
    for benchmark in chosen {
        report::talk(&format!("{}: {}", benchmark.name, benchmark.about));
        let run = world::run(benchmark.name, benchmark.isolated, benchmark.limit, |figure| {
            figures.push(figure);
        });
        if let Err(e) = run {
            failed = true;
            report::talk(&format!("{}: CANNOT BE MEASURED: {e:#}", benchmark.name));
        }
    }
    let text = if json { report::json_lines(&figures)? } else { report::table(&figures) };
    std::io::stdout().write_all(text.as_bytes())?;
    let missed = figures.iter().any(|f| matches!(f.outcome(), Outcome::Missed | Outcome::Unknown));
    Ok(ExitCode::from(if failed { 2 } else { u8::from(missed) }))
}

/// The measuring process itself: hands each figure to the parent as soon as it has it.
fn inside(name: &str) -> anyhow::Result<ExitCode> {
    let benchmark = chosen(&[name])?.pop().context("one name, one benchmark")?;
    if benchmark.isolated {
        world::prepare()?;
    }
    (benchmark.run)(&mut Report::new(benchmark.name))?;
    Ok(ExitCode::SUCCESS)
}
