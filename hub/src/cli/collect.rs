//! `agentmon collect`: reads sources from a timer, or follows one, without a sensor.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use agentmon_core::tier0::Engine;
use agentmon_core::time::SystemClock;
use agentmon_core::wire::Batch;
use agentmon_router::collect::{Collector, dnsmasq_log, pihole, pihole_ftl};
use agentmon_router::localtime::ZoneSetting;
use anyhow::{Context as _, bail, ensure};
use serde_json::json;

use super::args::CollectArgs;
use super::context::{Context, Exit};
use super::import::{lists, store};
use super::units;
use crate::collect::{Memory, Passed, pass};

/// Longest pause after a failure, while following.
const PAUSE_MOST: Duration = Duration::from_secs(60);

/// Source after source; one that fails keeps no other from being read.
pub(crate) fn run(
    args: &CollectArgs,
    data: &std::path::Path,
    context: &mut Context<'_>,
) -> anyhow::Result<Exit> {
    let sources = sources(args)?;
    ensure!(!sources.is_empty(), "name a source: --pihole, --pihole-ftl or --pihole-log");
    if !args.once {
        ensure!(sources.len() == 1, "without --once, one source at a time");
    }
    let (mut failures, mut count) = (0u32, 0);
    for make in sources {
        loop {
            let source = make();
            let name = source.checkpoint_key().unwrap_or_else(|| source.name().to_owned());
            let passed = one(args, data, source, &name, context);
            report(args, &name, &passed, context)?;
            let Err(_) = passed else { break };
            count += 1;
            if args.once {
                break;
            }
            let pause = Duration::from_secs(1 << failures.min(6)).min(PAUSE_MOST);
            failures += 1;
            std::thread::sleep(pause);
        }
    }
    if count > 0 {
        bail!("{} failed", units::plural(count, "source", "sources"));
    }
    Ok(Exit::Fine)
}

type Make = Box<dyn Fn() -> Box<dyn Collector>>;

fn sources(args: &CollectArgs) -> anyhow::Result<Vec<Make>> {
    let wrong = |(key, why): (&str, String)| anyhow::anyhow!("{key}: {why}");
    let whole = |path: &PathBuf| std::path::absolute(path).context("a file's path");
    let mut all: Vec<Make> = Vec::new();
    for url in &args.pihole {
        let file = |path: &Option<PathBuf>| path.as_ref().map(whole).transpose();
        let config = pihole::Config {
            enabled: true,
            url: url.clone(),
            address: args.address.clone().unwrap_or_default(),
            password_file: file(&args.password_file)?.unwrap_or_default(),
            certificate: file(&args.certificate)?.unwrap_or_default(),
            ..pihole::Config::default()
        };
        config.validate().map_err(wrong).with_context(|| format!("--pihole {url}"))?;
        all.push(Box::new(move || Box::new(pihole::Source::new(config.clone()))));
    }
    for path in &args.pihole_ftl {
        let config = pihole_ftl::Config {
            enabled: true,
            path: whole(path)?,
            from_start: args.from_start,
            ..pihole_ftl::Config::default()
        };
        config.validate().map_err(wrong).context("--pihole-ftl")?;
        all.push(Box::new(move || Box::new(pihole_ftl::Source::new(config.clone()))));
    }
    for path in &args.pihole_log {
        let config = dnsmasq_log::Config {
            enabled: true,
            paths: vec![whole(path)?],
            from_start: args.from_start,
            timezone: ZoneSetting::try_from(args.timezone.clone()).context("--timezone")?,
            ..dnsmasq_log::Config::default()
        };
        config.validate().map_err(wrong).context("--pihole-log")?;
        all.push(Box::new(move || Box::new(dnsmasq_log::Source::new(config.clone()))));
    }
    Ok(all)
}

fn one(
    args: &CollectArgs,
    data: &std::path::Path,
    source: Box<dyn Collector>,
    name: &str,
    context: &mut Context<'_>,
) -> anyhow::Result<Passed> {
    let (config, lists, _) = lists(&args.blocklist)?;
    let mut engine = Engine::new(&config, lists);
    let mut memory = Memory::open(data, &args.sensor, name, context.look.now)?;
    let hub = &mut *context.hub;
    let mut send = |batch: Batch| store(hub, &args.sensor, batch);
    let longest = args.once.then(|| Duration::from_secs(args.longest));
    pass(source, &mut memory, &mut engine, (Arc::new(SystemClock), longest), &mut send)
}

fn report(
    args: &CollectArgs,
    name: &str,
    passed: &anyhow::Result<Passed>,
    context: &mut Context<'_>,
) -> anyhow::Result<()> {
    if args.json {
        let mut line = match passed {
            Ok(passed) => serde_json::to_value(passed).context("a pass as JSON")?,
            Err(error) => json!({ "error": super::text::safe(&format!("{error:#}")) }),
        };
        if let Some(line) = line.as_object_mut() {
            line.insert("source".into(), name.into());
        }
        writeln!(context.out, "{line}")?;
        return Ok(context.out.flush()?);
    }
    context.say(&match passed {
        Ok(passed) => told(name, passed),
        Err(error) => format!("{name}: {error:#}"),
    });
    Ok(())
}

fn told(name: &str, passed: &Passed) -> String {
    let mut text = format!(
        "{name}: {} and {}; {} new",
        units::plural(passed.events, "event", "events"),
        units::plural(passed.findings, "finding", "findings"),
        passed.new,
    );
    if !passed.caught_up {
        text.push_str(&format!("; not to its end yet ({})", passed.state));
    }
    let lost: u64 =
        passed.counters.iter().filter(|(name, _)| name.starts_with("drop.")).map(|(_, n)| n).sum();
    if lost > 0 {
        text.push_str(&format!("; {lost} lost or not understood (--json says what)"));
    }
    text
}
