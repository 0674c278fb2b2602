//! `agentmon import pcap`: capture after capture, with progress on a terminal.

use std::cell::Cell;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::context::Context;
use super::import::{SpanArgs, To, Unit, bar, lists, passed};
use super::units;
use crate::import;
use crate::import::pcap::{Capture, Summary, pcap};

/// Captures of packets (pcap, pcapng), plain or .gz
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct PcapArgs {
    /// Captures, as tcpdump and Wireshark write them
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Name under which the history appears in `agentmon sensors`
    #[arg(long, value_name = "NAME", default_value = "pcap")]
    sensor: String,
    /// A block list to judge names and addresses by (repeatable); its file name is what
    /// findings call it
    #[arg(long, value_name = "FILE")]
    blocklist: Vec<PathBuf>,
    #[command(flatten)]
    span: SpanArgs,
}

/// The first that cannot be read ends the command.
pub(super) fn run(args: &PcapArgs, context: &mut Context<'_>) -> anyhow::Result<()> {
    let span = args.span.read(context)?;
    for file in &args.files {
        // Each by itself: what one holds must not depend on the others.
        let (config, blocklist, fingerprint) = lists(&args.blocklist)?;
        let read = Cell::new(0u64);
        let (input, written, bytes) = import::open(file, |n| read.set(read.get() + n))?;
        let bar = bar(file, bytes, Unit::Bytes);
        let now = context.look.now;
        let progress = || bar.set_position(read.get());
        let (sensor, hub) = (args.sensor.as_str(), &mut *context.hub);
        let mut send = To { hub, sensor, progress: &progress };
        let capture = Capture { input, written, now, span };
        let summary = pcap(capture, &config, (blocklist, &fingerprint), &mut send)
            .with_context(|| format!("importing {}", file.display()));
        bar.finish_and_clear();
        context.say(&told(file, &summary?));
    }
    Ok(())
}

fn told(file: &Path, s: &Summary) -> String {
    let mut text = format!(
        "{}: {}, {}, {}; {} and {} were new",
        file.display(),
        units::plural(s.frames, "frame", "frames"),
        units::plural(s.flows, "flow", "flows"),
        units::plural(s.dns, "DNS exchange", "DNS exchanges"),
        units::plural(s.new_events, "event", "events"),
        units::plural(s.new_findings, "finding", "findings"),
    );
    for (link, n) in &s.unknown_links {
        let n = units::plural(*n, "frame", "frames");
        text.push_str(&format!("; {n} of link type {link} left out: it is not one that is read"));
    }
    let parts = [
        (s.unreadable, "packet cut within its headers", "packets cut within their headers"),
        (s.timeless, "frame without a time", "frames without a time"),
        (s.stray, "fragment without its first", "fragments without their first"),
        (s.bad_dns, "message of port 53 that is no DNS", "messages of port 53 that are no DNS"),
        (s.crowded_out, "flow ended early for want of room", "flows ended early for want of room"),
    ];
    for (n, one, many) in parts.into_iter().filter(|(n, ..)| *n > 0) {
        text.push_str(&format!("; {}", units::plural(n, one, many)));
    }
    text.push_str(&passed(s.passed));
    if s.open > 0 {
        let n = units::plural(s.open, "flow goes", "flows go");
        text.push_str(&format!("; {n} on at its end"));
    }
    if s.cut {
        text.push_str("; it ends within a frame: cut, or still being written");
    }
    if let Some(why) = s.broken {
        text.push_str(&format!("; NOT READ TO ITS END: there is {why}"));
    }
    text
}
