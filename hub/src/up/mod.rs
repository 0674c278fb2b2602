//! `agentmon up`: hub and router in one process on this machine, no configuration needed.
//!
//! In: [`Options`]. Out: a running hub with the sensor `local`, a start summary and hints
//! on stderr, new alerts on stdout, one line each, until asked to stop. The parts are the
//! very ones of `agentmon serve` and `agentmon-router run`, joined over HTTPS on loopback:
//! what works here works on two machines.
//!
//! Order: hub first (so that the sensor has somewhere to send), router second; stopping is
//! the reverse, so that what was seen last still reaches the store. Everything lies below
//! the data directory: `hub.duckdb` and the hub's own files, `router/` (ring, identity),
//! `demo/`.

pub(crate) mod demo_day;
mod feed;
mod hub;
mod kernel_setup;
pub mod sources;

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agentmon_core::time::{Clock, SystemClock};
use agentmon_router::collect::syslog::IpNet;
use agentmon_router::join::{self, Join};
use agentmon_router::logging;
use agentmon_router::status::CollectorStatus;
use agentmon_router::supervisor::{self, RouterHandle};
use anyhow::Context as _;

use crate::store;
use demo_day::{DemoDay, Progress};
use feed::Feed;
use hub::LocalHub;
use kernel_setup::KernelSetup;
use sources::{Lack, Machine, Wishes};

/// The name this machine's own sensor has.
pub const SENSOR: &str = "local";
/// How long collectors have to say what they see before the summary is printed, in steps
/// of [`STEP`].
const SETTLE_STEPS: u32 = 15;
/// How often to look for new alerts, progress and the wish to stop.
const STEP: Duration = Duration::from_millis(200);

/// What the person asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// The data directory.
    pub data: PathBuf,
    /// Where other sensors may reach the hub; loopback by default.
    pub listen: SocketAddr,
    /// Logs to follow besides those at the usual places.
    pub logs: Vec<PathBuf>,
    /// Where to take syslog, by datagram and TCP.
    pub syslog: Vec<SocketAddr>,
    /// Who may send it.
    pub syslog_from: Vec<IpNet>,
    /// Play the made-up day.
    pub demo: Option<u64>,
    /// End when the made-up day is loaded.
    pub exit_after_demo: bool,
    /// Switch on what the kernel needs to be told first.
    pub kernel_setup: bool,
}

/// Runs until asked to stop.
///
/// # Errors
/// What cannot be opened or bound; a part that ended by itself.
pub fn run(options: &Options, out: &mut dyn Write, err: &mut dyn Write) -> anyhow::Result<()> {
    store::make_private_dir(&options.data)?;
    logging::init(&log_config())?;
    // Undone when `up` ends, also when something below cannot start.
    let _kernel = options.kernel_setup.then(|| KernelSetup::make(err)).transpose()?;
    let machine = Machine::look();
    let day = options.demo.map(|seed| DemoDay::prepare(&options.data, seed)).transpose()?;
    let hub = LocalHub::start(&options.data, options.listen)?;
    let outcome = with_hub(options, &machine, day, &hub, (out, err));
    outcome.and(hub.stop())
}

/// Warnings only, and no second word about alerts: the feed tells them.
fn log_config() -> logging::Config {
    let modules = [("agentmon_hub::alert".to_owned(), "error".to_owned())].into();
    logging::Config { level: "warn".into(), modules, ..logging::Config::default() }
}

fn with_hub(
    options: &Options,
    machine: &Machine,
    day: Option<DemoDay>,
    hub: &LocalHub,
    (out, err): (&mut dyn Write, &mut dyn Write),
) -> anyhow::Result<()> {
    let state_dir = options.data.join("router");
    let replay = day.as_ref().filter(|d| !d.is_loaded()).map(DemoDay::files);
    let wishes = Wishes {
        logs: options.logs.clone(),
        syslog: options.syslog.clone(),
        syslog_from: options.syslog_from.clone(),
        replay,
    };
    let (config, lacks) = sources::configure(&state_dir, &wishes, machine);
    enroll(&state_dir, hub)?;
    let mut feed = Feed::new(hub)?;
    let router = supervisor::start(config).context("starting the collectors")?;
    let collectors = settled(&router, hub);
    say(
        err,
        &summary(&invocation(&options.data), &options.data, &collectors, &lacks, hub.address()),
    );
    let outcome = watch(options, day, (&router, hub), &mut feed, (out, err));
    // In order: what was seen is committed and sent before the hub goes.
    router.stop();
    outcome
}

/// The collectors' states once none of them is still starting.
fn settled(router: &RouterHandle, hub: &LocalHub) -> Vec<CollectorStatus> {
    let mut collectors = router.status().collectors;
    for _ in 0..SETTLE_STEPS {
        if collectors.iter().all(|c| c.state != "starting") || hub.wait_for_stop(STEP) {
            break;
        }
        collectors = router.status().collectors;
    }
    collectors
}

/// Gives this machine's sensor a fresh token; the old one is void.
fn enroll(state_dir: &Path, hub: &LocalHub) -> anyhow::Result<()> {
    let line = hub.enroll(SENSOR).context("enrolling this machine's own sensor")?;
    Ok(join::save(&state_dir.join("identity.json"), &Join::decode(&line)?)?)
}

/// How to ask this store from another terminal: by the program's name where the search
/// path finds it, else by its full path, as after a build in a clone.
fn invocation(data: &Path) -> String {
    let this = std::env::current_exe().ok();
    let found = std::env::var_os("PATH")
        .and_then(|path| {
            std::env::split_paths(&path).map(|dir| dir.join("agentmon")).find(|p| p.is_file())
        })
        .and_then(|path| path.canonicalize().ok());
    let program = match this {
        Some(this) if found.as_ref() != Some(&this) => this.display().to_string(),
        _ => "agentmon".to_owned(),
    };
    format!("{program} --data {}", data.display())
}

/// What is seen, what is not, and how to go on.
fn summary(
    agentmon: &str,
    data: &Path,
    collectors: &[CollectorStatus],
    lacks: &[Lack],
    listen: SocketAddr,
) -> String {
    let data = data.display();
    let mut lines = vec![format!("agentmon {} is up; data in {data}", env!("CARGO_PKG_VERSION"))];
    for collector in collectors.iter().filter(|c| c.name != "replay") {
        let sees = collector.state.starts_with("ok");
        let mark = if sees { "sees" } else { "lacks" };
        lines.push(format!("  {mark:<6} {}: {}", collector.name, collector.state));
    }
    lines.extend(lacks.iter().map(|lack| format!("  off    {}: {}", lack.what, lack.mend)));
    if lacks.iter().any(|lack| lack.kernel) {
        let how = "as root, with --kernel-setup, this program sets up the kernel's part itself";
        lines.push(format!("  {how}"));
    }
    lines.push(if listen.ip().is_loopback() {
        "  other machines cannot join; --listen ADDRESS:PORT lets them".to_owned()
    } else {
        format!("  other machines join at {listen}: {agentmon} enroll NAME")
    });
    lines.push("ask in another terminal:".to_owned());
    for command in ["alerts", "timeline --since 10m", "stats", "devices"] {
        lines.push(format!("  {agentmon} {command}"));
    }
    lines.push("new alerts appear below; Ctrl-C ends".to_owned());
    said(&lines)
}

/// Lines as they may be printed: states and paths are texts from elsewhere.
fn said(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{}\n", crate::cli::safe(line))).collect()
}

/// Talk: a closed stderr stops nothing.
fn say(err: &mut dyn Write, text: &str) {
    drop(err.write_all(text.as_bytes()));
}

/// Tells alerts as they come, until asked to stop.
fn watch(
    options: &Options,
    mut day: Option<DemoDay>,
    (router, hub): (&RouterHandle, &LocalHub),
    feed: &mut Feed,
    (out, err): (&mut dyn Write, &mut dyn Write),
) -> anyhow::Result<()> {
    loop {
        let stopping = hub.wait_for_stop(STEP);
        let loaded = match &mut day {
            Some(demo) => match demo.progress(&router.status(), SystemClock.mono())? {
                Progress::Loading => false,
                Progress::Loaded => true,
            },
            None => false,
        };
        feed.tell(hub, out)?;
        if loaded && let Some(demo) = day.take() {
            say(err, &said(&demo.what_to_try(&invocation(&options.data), feed.first())));
            if options.exit_after_demo {
                return Ok(());
            }
        }
        if stopping {
            return Ok(());
        }
        anyhow::ensure!(!router.is_broken(), "the router's threads ended; see the log above");
        anyhow::ensure!(!hub.is_broken(), "the hub ended; see the log above");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_says_what_is_seen_and_how_to_see_more() {
        let state = |name: &str, state: &str| CollectorStatus {
            name: name.into(),
            state: state.into(),
            events: 0,
            last_event_ms: None,
        };
        let collectors = [
            state("conntrack", "ok: 12 flows"),
            state("firewall", "no table \x1b[2J; use --kernel-setup"),
            state("replay", "done: 10 lines"),
        ];
        let lack = |what, mend: &str, kernel| Lack { what, mend: mend.into(), kernel };
        let lacks = [
            lack("the resolver's log", "name it with --pihole-log", false),
            lack("byte counts", "nf_conntrack_acct is 0", true),
        ];
        let text = summary(
            "agentmon --data /d",
            Path::new("/d"),
            &collectors,
            &lacks,
            "127.0.0.1:8471".parse().unwrap(),
        );
        let expected = format!(
            "agentmon {} is up; data in /d\n\
             \x20 sees   conntrack: ok: 12 flows\n\
             \x20 lacks  firewall: no table \\x1b[2J; use --kernel-setup\n\
             \x20 off    the resolver's log: name it with --pihole-log\n\
             \x20 off    byte counts: nf_conntrack_acct is 0\n\
             \x20 as root, with --kernel-setup, this program sets up the kernel's part itself\n\
             \x20 other machines cannot join; --listen ADDRESS:PORT lets them\n\
             ask in another terminal:\n\
             \x20 agentmon --data /d alerts\n\
             \x20 agentmon --data /d timeline --since 10m\n\
             \x20 agentmon --data /d stats\n\
             \x20 agentmon --data /d devices\n\
             new alerts appear below; Ctrl-C ends\n",
            env!("CARGO_PKG_VERSION")
        );
        assert_eq!(text, expected);
        let open = summary(
            "agentmon --data /d",
            Path::new("/d"),
            &[],
            &[],
            "192.0.2.1:8471".parse().unwrap(),
        );
        assert!(
            open.contains("other machines join at 192.0.2.1:8471: agentmon --data /d enroll NAME")
        );
    }
}
