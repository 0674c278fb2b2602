//! `agentmon collect`: reads sources from a timer, or follows one, without a sensor.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use agentmon_core::tier0::Engine;
use agentmon_core::time::SystemClock;
use agentmon_core::wire::Batch;
use agentmon_router::collect::{Collector, dnsmasq_log, pihole, pihole_ftl, pihole_ssh};
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
    ensure!(!sources.is_empty(), "name a source: --pihole, --ssh, --pihole-ftl or --pihole-log");
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
    for place in &args.ssh {
        let config = ssh(place, args).with_context(|| format!("--ssh {place}"))?;
        if !config.log.is_empty() {
            let config = config.clone();
            all.push(Box::new(move || Box::new(pihole_ssh::Source::new(config.clone()))));
        }
        if !config.database.is_empty() {
            all.push(Box::new(move || Box::new(pihole_ssh::database::Source::new(config.clone()))));
        }
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

/// `agentmon@192.168.1.2`, `agentmon@pi.hole:2222`, `agentmon@[2001:db8::2]:22`.
fn ssh(place: &str, args: &CollectArgs) -> anyhow::Result<pihole_ssh::Config> {
    let form = "want USER@HOST or USER@HOST:PORT";
    let (user, rest) = place.split_once('@').context(form)?;
    let (host, port) = match rest.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').context(form)?;
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':').context(form)?) })
        }
        // More than one colon is an address without a port.
        None => match rest.rsplit_once(':').filter(|(host, _)| !host.contains(':')) {
            Some((host, port)) => (host, Some(port)),
            None => (rest, None),
        },
    };
    let file = |path: &Option<PathBuf>, option: &str| {
        let path = path.as_ref().with_context(|| format!("{option} is missing"))?;
        std::path::absolute(path).context("a file's path")
    };
    let config = pihole_ssh::Config {
        enabled: true,
        host: host.to_owned(),
        port: port.map_or(Ok(22), str::parse).context("the port")?,
        user: user.to_owned(),
        key: file(&args.ssh_key, "--ssh-key")?,
        known_hosts: file(&args.ssh_known_hosts, "--ssh-known-hosts")?,
        log: args.ssh_log.clone(),
        database: args.ssh_database.clone(),
        timezone: ZoneSetting::try_from(args.timezone.clone()).context("--timezone")?,
        from_start: args.from_start,
        ..pihole_ssh::Config::default()
    };
    config.validate().map_err(|(key, why)| anyhow::anyhow!("{key}: {why}"))?;
    Ok(config)
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

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::args::{Cli, Command};

    #[track_caller]
    fn check(place: &str, expected: Result<(&str, &str, u16), &str>) {
        let line = ["agentmon", "collect", "--ssh-key", "/k", "--ssh-known-hosts", "/h"];
        let cli = Cli::try_parse_from(line.into_iter().chain(["--ssh", place])).unwrap();
        let Command::Collect(args) = cli.command else { panic!("another command") };
        let found = ssh(place, &args).map_err(|error| format!("{error:#}"));
        match (&found, expected) {
            (Ok(c), Ok(parts)) => assert_eq!((&*c.user, &*c.host, c.port), parts, "{place}"),
            (Err(error), Err(words)) => assert!(error.contains(words), "{place}: {error}"),
            _ => panic!("{place}: {found:?}"),
        }
    }

    #[test]
    fn places_by_ssh() {
        check("agentmon@192.0.2.2", Ok(("agentmon", "192.0.2.2", 22)));
        check("pi@pi.hole:2222", Ok(("pi", "pi.hole", 2_222)));
        check("pi@2001:db8::2", Ok(("pi", "2001:db8::2", 22)));
        check("pi@[2001:db8::2]:2222", Ok(("pi", "2001:db8::2", 2_222)));
        check("pi@[2001:db8::2]", Ok(("pi", "2001:db8::2", 22)));
        check("pi.hole", Err("USER@HOST"));
        check("pi@[2001:db8::2", Err("USER@HOST"));
        check("pi@pi.hole:ssh", Err("port"));
        check("pi@pi.hole:0", Err("port"));
        check("pi@-oProxyCommand=id", Err("host"));
        check("@pi.hole", Err("user"));
    }
}
