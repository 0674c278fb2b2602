//! `agentmon import`: history from files, with progress on a terminal.

use std::cell::Cell;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agentmon_core::Timestamp;
use agentmon_core::tier0::Tier0Config;
use agentmon_core::tier0::blocklist::{Blocklist, ListConfig};
use agentmon_core::time::{Clock, SystemClock};
use agentmon_core::wire::{self, Batch};
use agentmon_router::localtime::{Zone, ZoneSetting};
use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::args::{ImportArgs, ImportKind};
use super::backend::{Backend, ask, query};
use super::context::{Context, Exit};
use super::{import_conntrack, import_pcap, import_python, import_zeek, units, when};
use crate::control::Request;
use crate::import::ftl::{self, Database};
use crate::import::{self, Log, Sink, Span, Stored, Summary};

/// Largest block list read.
const LIST_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// File after file; the first that fails ends the command.
pub(crate) fn run(args: &ImportArgs, context: &mut Context<'_>) -> anyhow::Result<Exit> {
    match &args.kind {
        ImportKind::PiholeLog { files, sensor, blocklist, timezone, span } => {
            let span = span.read(context)?;
            logs(files, sensor, blocklist, timezone, span, context)?;
        }
        ImportKind::PiholeFtl { files, sensor, blocklist, span } => {
            let span = span.read(context)?;
            databases(files, sensor, blocklist, span, context)?;
        }
        ImportKind::Conntrack { files, sensor, span } => {
            let span = span.read(context)?;
            import_conntrack::run(files, sensor, span, context)?;
        }
        ImportKind::Pcap(args) => import_pcap::run(args, context)?,
        ImportKind::AgentmonPy(args) => import_python::run(args, context)?,
        ImportKind::Zeek { paths, sensor, span } => {
            let span = span.read(context)?;
            import_zeek::run(paths, sensor, span, context)?;
        }
    }
    Ok(Exit::Fine)
}

fn databases(
    files: &[PathBuf],
    sensor: &str,
    blocklist: &[PathBuf],
    span: Span,
    context: &mut Context<'_>,
) -> anyhow::Result<()> {
    for file in files {
        let (config, lists, fingerprint) = lists(blocklist)?;
        let database = Database::open(file)?;
        let bar = bar(file, u64::try_from(database.newest()).unwrap_or(0), Unit::Rows);
        let now = context.look.now;
        let mut send = To { hub: &mut *context.hub, sensor, progress: &|| () };
        let progress = |id: i64| bar.set_position(u64::try_from(id).unwrap_or(0));
        let lists = (lists, fingerprint.as_str());
        let summary = ftl::pihole_ftl(&database, now, &config, lists, span, &progress, &mut send)
            .with_context(|| format!("importing {}", file.display()));
        bar.finish_and_clear();
        context.say(&told_of_database(file, &summary?));
    }
    Ok(())
}

fn logs(
    files: &[PathBuf],
    sensor: &str,
    blocklist: &[PathBuf],
    timezone: &str,
    span: Span,
    context: &mut Context<'_>,
) -> anyhow::Result<()> {
    let setting = ZoneSetting::try_from(timezone.to_owned()).context("--timezone")?;
    let zone = Zone::of(&setting);
    for file in files {
        // Each log by itself: what one holds must not depend on the others.
        let (config, lists, fingerprint) = lists(blocklist)?;
        let job = Job { file, sensor, config, zone: zone.clone(), span };
        let summary = job.run((lists, &fingerprint), context)?;
        context.say(&told(file, &summary));
    }
    Ok(())
}

struct Job<'a> {
    file: &'a Path,
    sensor: &'a str,
    config: Tier0Config,
    zone: Zone,
    span: Span,
}

impl Job<'_> {
    fn run(&self, lists: (Blocklist, &str), context: &mut Context<'_>) -> anyhow::Result<Summary> {
        let read = Cell::new(0u64);
        let (input, written, bytes) = import::open(self.file, |n| read.set(read.get() + n))?;
        let bar = bar(self.file, bytes, Unit::Bytes);
        let (now, zone, span) = (context.look.now, self.zone.clone(), self.span);
        let log = Log { input, written, now, zone, span };
        let progress = || bar.set_position(read.get());
        let mut send = To { hub: &mut *context.hub, sensor: self.sensor, progress: &progress };
        let summary = import::pihole_log(log, &self.config, lists, &mut send)
            .with_context(|| format!("importing {}", self.file.display()));
        bar.finish_and_clear();
        summary
    }
}

/// Where imports of one sensor go, with a bar that shows how far the file is read.
pub(super) struct To<'a> {
    pub(super) hub: &'a mut dyn Backend,
    pub(super) sensor: &'a str,
    pub(super) progress: &'a dyn Fn(),
}

impl Sink for To<'_> {
    fn batch(&mut self, batch: Batch) -> anyhow::Result<u64> {
        (self.progress)();
        store(self.hub, self.sensor, batch)
    }

    fn stored(&mut self, log: u64, span: Span, epoch: u64) -> anyhow::Result<Vec<Stored>> {
        stored(self.hub, self.sensor, (log, epoch), span)
    }
}

/// What is stored of a log, by streams.
pub(super) fn stored(
    hub: &mut dyn Backend,
    sensor: &str,
    (log, epoch): (u64, u64),
    span: Span,
) -> anyhow::Result<Vec<Stored>> {
    let whole = span == Span::default();
    if !whole {
        let us = |t: Option<Timestamp>| t.map(Timestamp::micros);
        let (since_us, until_us) = (us(span.since), us(span.until));
        let name = sensor.to_owned();
        let request = Request::ImportSpan { name, log, epoch, since_us, until_us };
        ask(hub, &request, &mut |_| Ok(()))?;
    }
    let sql = "SELECT c.epoch, c.seq, s.since_us, s.until_us
         FROM ingest_cursor c JOIN sensors n ON n.id = c.sensor
             LEFT JOIN import_spans s
                 ON s.sensor = c.sensor AND s.epoch = c.epoch AND s.log = CAST(? AS UBIGINT)
         WHERE n.name = ? AND (s.log IS NOT NULL OR c.epoch = CAST(? AS UBIGINT))";
    let log = serde_json::Value::from(log.to_string());
    let mut parts = Vec::new();
    let asked = query(hub, sql, vec![log.clone(), sensor.into(), log], &mut |row| {
        let number = |at: usize| row.get(at).and_then(serde_json::Value::as_u64);
        let time = |at: usize| {
            let us = row.get(at).and_then(serde_json::Value::as_i64);
            us.map(Timestamp::from_micros)
        };
        let span = Span { since: time(2), until: time(3) };
        let (epoch, seq) = number(0).zip(number(1)).context("the hub told no cursor")?;
        parts.push(Stored { epoch, span, seq });
        Ok(())
    });
    match asked {
        Ok(_) => Ok(parts),
        // No store yet, or one of an older program: then there are no parts, and what came
        // whole is known by its numbers.
        Err(_) if whole => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Sends one batch; the hub says how many of its events it did not have yet.
pub(super) fn store(hub: &mut dyn Backend, sensor: &str, mut batch: Batch) -> anyhow::Result<u64> {
    // Its distance to the hub's clock is what event times are corrected by.
    batch.sent = SystemClock.wall();
    let encoded = wire::encode_batch(&batch).context("encoding a batch")?;
    let request = Request::Import { name: sensor.to_owned(), batch: STANDARD.encode(encoded) };
    Ok(ask(hub, &request, &mut |_| Ok(()))?.count)
}

/// The detectors' configuration with the given lists, the lists, and what tells them from
/// others.
pub(super) fn lists(paths: &[PathBuf]) -> anyhow::Result<(Tier0Config, Blocklist, String)> {
    let mut config = Tier0Config::default();
    let mut texts = Vec::new();
    for path in paths {
        let size = std::fs::metadata(path).map(|m| m.len());
        let size = size.with_context(|| format!("--blocklist {}", path.display()))?;
        anyhow::ensure!(
            size <= LIST_BYTES_MAX,
            "--blocklist {}: larger than {}",
            path.display(),
            units::bytes(LIST_BYTES_MAX)
        );
        let text =
            std::fs::read(path).with_context(|| format!("--blocklist {}", path.display()))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = agentmon_core::name::printable(name.as_bytes(), 64).replace(' ', "_");
        config.blocklist.lists.push(ListConfig {
            name: name.clone(),
            path: path.clone(),
            ..ListConfig::default()
        });
        texts.push((name, text));
    }
    config.blocklist.validate().context("--blocklist")?;
    let mut builder = config.blocklist.builder();
    let mut fingerprint = String::new();
    for (list, (name, text)) in config.blocklist.lists.iter().zip(&texts) {
        builder.list(name, list.score, text);
        fingerprint.push_str(&format!("{name} {}\n", text.len()));
    }
    Ok((config, builder.build(), fingerprint))
}

/// Which of a file's events are imported, by their own times.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct SpanArgs {
    /// Only events from this time on, by their own time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    since: Option<String>,
    /// Only events up to this time, by their own time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    until: Option<String>,
}

impl SpanArgs {
    pub(super) fn read(&self, context: &Context<'_>) -> anyhow::Result<Span> {
        let look = &context.look;
        let point = |option: &str, text: &Option<String>| {
            let parse = |t: &String| {
                when::parse(t, look.now, &look.zone)
                    .map_err(|error| anyhow::anyhow!("--{option}: {error}"))
            };
            text.as_ref().map(parse).transpose()
        };
        let (since, until) = (point("since", &self.since)?, point("until", &self.until)?);
        if let (Some(since), Some(until)) = (since, until) {
            anyhow::ensure!(since <= until, "--since {since} lies after --until {until}");
        }
        Ok(Span { since, until })
    }
}

/// Of events that were not wanted.
pub(super) fn passed(n: u64) -> String {
    match n {
        0 => String::new(),
        n => {
            let n = units::plural(n, "event", "events");
            format!("; {n} outside --since and --until passed over")
        }
    }
}

/// What a bar counts: bytes of the file as it lies on the disk, so that it ends at the end
/// also for .gz; or row ids of a database.
#[derive(Clone, Copy)]
pub(super) enum Unit {
    Bytes,
    Rows,
}

pub(super) fn bar(file: &Path, length: u64, unit: Unit) -> ProgressBar {
    let target = if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr_with_hz(8)
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(Some(length), target);
    let style = ProgressStyle::with_template(match unit {
        Unit::Bytes => "{msg} [{wide_bar}] {bytes}/{total_bytes} {eta}",
        Unit::Rows => "{msg} [{wide_bar}] {pos}/{len} {eta}",
    });
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    bar.set_message(super::text::safe(&name).into_owned());
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}

fn told(file: &Path, s: &Summary) -> String {
    let mut text = format!(
        "{}: {}, {}; {} and {} were new",
        file.display(),
        units::plural(s.lines, "line", "lines"),
        units::plural(s.queries, "query", "queries"),
        units::plural(s.new_events, "event", "events"),
        units::plural(s.new_findings, "finding", "findings"),
    );
    if s.lines > 0 && s.queries == 0 {
        text.push_str("; is this a DNS log? (dnsmasq needs log-queries=extra)");
    }
    if s.unknown + s.too_long > 0 {
        let n = units::plural(s.unknown + s.too_long, "line was", "lines were");
        text.push_str(&format!("; {n} not understood"));
    }
    text.push_str(&passed(s.passed));
    if s.waiting > 0 {
        let n = units::plural(s.waiting, "query", "queries");
        text.push_str(&format!("; {n} at the end may still be answered: import again later"));
    }
    text
}

fn told_of_database(file: &Path, s: &ftl::Summary) -> String {
    let mut text = format!(
        "{}: {} (database version {}); {} and {} were new",
        file.display(),
        units::plural(s.rows, "query", "queries"),
        s.version,
        units::plural(s.new_events, "event", "events"),
        units::plural(s.new_findings, "finding", "findings"),
    );
    text.push_str(&passed(s.passed));
    if s.devices > 0 {
        let n = units::plural(s.devices, "address", "addresses");
        text.push_str(&format!("; {n} of devices"));
    }
    if s.version > ftl::VERSION_KNOWN {
        text.push_str("; that version is newer than this program: what is new in it was not read");
    }
    if s.bad > 0 {
        let n = units::plural(s.bad, "row", "rows");
        text.push_str(&format!("; {n} made no sense: left out"));
    }
    if s.hidden > 0 {
        text.push_str(&format!(
            "; the Pi-hole's privacy level hides names or clients in {}",
            s.hidden
        ));
    }
    if s.waiting > 0 {
        text.push_str("; the newest may still change: import again later");
    }
    text
}
