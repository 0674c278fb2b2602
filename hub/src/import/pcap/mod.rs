//! History from captures of packets: pcap and pcapng, as tcpdump and Wireshark write them.
//!
//! In: a capture, plain or gzip. Out: flows, DNS exchanges and what tier-0 thinks of them, as
//! wire batches ([`super`]). Runs in the command line's process. Memory: a block of
//! [`file::BLOCK_BYTES_MAX`], the connections that are open ([`flows`]), a batch of each stream.
//!
//! bytes -> [`file`] -> [`link`] -> `packet` -> [`flows`]
//!                                          \-> `dns_wire` -> `passive_dns::join`
//!
//! Exactly once: three streams (flows, DNS, findings) are named after the first frame, and what
//! each holds is decided by the frames before; a capture that has grown begins with the same.
//! A connection that goes on at the end is told as open, in a stream of that many frames.

mod file;
mod flows;
mod link;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Read;
use std::time::Duration;

use agentmon_core::event::{Body, Endpoint};
use agentmon_core::service::proto;
use agentmon_core::tier0::blocklist::Blocklist;
use agentmon_core::tier0::{Engine, Tier0Config};
use agentmon_core::time::Mono;
use agentmon_core::{Event, Timestamp, dns_wire};
use agentmon_router::collect::passive_dns::join::{Exchanges, Seen};
use agentmon_router::collect::passive_dns::tcp::{Segment, Streams as Tcp};
use agentmon_router::packet::{self, Packet, Transport};

use super::{Send, Span, Stream, epoch};
use file::{End, Frame, frames};
use flows::Table;
use link::Carried;

/// What DNS exchanges are marked with.
const SOURCE: &str = "pcap";
const DNS_PORT: u16 = 53;
/// Most questions waiting for their answer.
const EXCHANGES_MAX: usize = 65_536;
/// Most link types told of.
const LINKS_MAX: usize = 16;

/// One capture to import.
#[derive(Debug)]
pub struct Capture<R> {
    /// Its bytes, unpacked.
    pub input: R,
    /// When it was last written to.
    pub written: Timestamp,
    /// The time now: what has been silent since is over.
    pub now: Timestamp,
    /// Events of which times.
    pub span: Span,
}

/// What an import did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Frames read.
    pub frames: u64,
    /// Of those, IP packets.
    pub packets: u64,
    /// Frames cut within their headers, or with nonsense in them.
    pub unreadable: u64,
    /// Frames without a time that makes sense: left out, unless another came before.
    pub timeless: u64,
    /// Frames of link types that are not read, by what they are called.
    pub unknown_links: BTreeMap<String, u64>,
    /// Later fragments whose first was not seen.
    pub stray: u64,
    /// Connections ended early, to make room for others.
    pub crowded_out: u64,
    /// Connections.
    pub flows: u64,
    /// Of those, going on at the capture's end.
    pub open: u64,
    /// DNS exchanges.
    pub dns: u64,
    /// Messages of port 53 that are none.
    pub bad_dns: u64,
    /// The capture ends within a frame.
    pub cut: bool,
    /// What ended the reading early.
    pub broken: Option<&'static str>,
    /// Events outside the wanted times.
    pub passed: u64,
    /// Events that the store did not have yet.
    pub new_events: u64,
    /// Findings that the store did not have yet.
    pub new_findings: u64,
}

/// Reads a capture to its end and sends what it holds.
///
/// # Errors
/// When it is no capture or cannot be read, or `send` fails; what was sent stays, and the next
/// import goes on behind it.
pub fn pcap<R: Read>(
    capture: Capture<R>,
    config: &Tier0Config,
    lists: (Blocklist, &str),
    send: Send<'_>,
) -> anyhow::Result<Summary> {
    let mut reading = Reading::new(Engine::new(config, lists.0), lists.1, capture.span);
    let end = frames(capture.input, &mut |frame| reading.frame(frame, send))?;
    reading.finish(capture.now.since(capture.written), send)?;
    let mut summary = reading.summary;
    match end {
        End::Whole => {}
        End::Cut => summary.cut = true,
        End::Broken(why) => summary.broken = Some(why),
    }
    summary.stray = reading.table.stray;
    summary.crowded_out = reading.table.crowded_out;
    Ok(summary)
}

/// A capture on its way.
struct Reading {
    table: Table,
    exchanges: Exchanges,
    tcp: Tcp,
    engine: Engine,
    lists: String,
    span: Span,
    streams: Option<Streams>,
    /// Of the first frame; of the newest.
    times: Option<(Timestamp, Timestamp)>,
    /// The last frame's own.
    last: Option<Timestamp>,
    summary: Summary,
}

struct Streams {
    base: u64,
    flows: Stream,
    dns: Stream,
    findings: Stream,
}

impl Streams {
    fn new(first: &Frame<'_>, lists: &str, span: Span) -> Self {
        let time = first.time.map_or(0, Timestamp::micros).to_be_bytes();
        let base = epoch(&[b"pcap", &first.link.to_be_bytes(), &time, first.data]);
        let stream = |what: &str| {
            Stream::new(epoch(&[what.as_bytes(), &base.to_be_bytes(), lists.as_bytes()]), span)
        };
        let plain = |what: &str| Stream::new(epoch(&[what.as_bytes(), &base.to_be_bytes()]), span);
        let (flows, dns) = (plain("pcap-flows"), plain("pcap-dns"));
        Self { base, flows, dns, findings: stream("pcap-findings") }
    }
}

impl Reading {
    fn new(engine: Engine, lists: &str, span: Span) -> Self {
        Self {
            table: Table::default(),
            exchanges: Exchanges::new(EXCHANGES_MAX),
            tcp: Tcp::default(),
            engine,
            lists: lists.to_owned(),
            span,
            streams: None,
            times: None,
            last: None,
            summary: Summary::default(),
        }
    }

    fn frame(&mut self, frame: &Frame<'_>, send: Send<'_>) -> anyhow::Result<()> {
        self.summary.frames += 1;
        self.streams.get_or_insert_with(|| Streams::new(frame, &self.lists, self.span));
        let ip = match link::carried(frame.link, frame.data) {
            Carried::Ip(ip) => ip,
            Carried::Other => return Ok(()),
            Carried::UnknownLink => {
                self.unknown_link(frame.link);
                return Ok(());
            }
        };
        self.summary.timeless += u64::from(frame.time.is_none());
        let Some(time) = frame.time.or(self.last) else { return Ok(()) };
        self.last = Some(time);
        let (ip, length) = mended(ip, frame);
        let Ok(mut packet) = packet::parse(&ip) else {
            self.summary.unreadable += 1;
            return Ok(());
        };
        self.summary.packets += 1;
        packet.length = length.unwrap_or(packet.length);
        self.packet(time, &packet, link::fragment(&ip), send)
    }

    fn unknown_link(&mut self, link: i32) {
        let links = &mut self.summary.unknown_links;
        let name = format!("{link} ({})", link::name(link));
        if links.contains_key(&name) || links.len() < LINKS_MAX {
            *links.entry(name).or_default() += 1;
        }
    }

    fn packet(
        &mut self,
        time: Timestamp,
        packet: &Packet<'_>,
        piece: Option<(u32, bool)>,
        send: Send<'_>,
    ) -> anyhow::Result<()> {
        let (first, newest) = self.times.unwrap_or((time, time));
        let newest = newest.max(time);
        self.times = Some((first.min(time), newest));
        self.over(newest, send)?;
        let ports = matches!(packet.proto, proto::TCP | proto::UDP);
        let later = piece.is_some_and(|(_, later)| later);
        if ports && !later && packet.src.port == 0 && packet.dst.port == 0 {
            self.summary.unreadable += 1;
            return Ok(());
        }
        let mut ended = Vec::new();
        self.table.packet(time, packet, piece, &mut ended);
        self.flows(ended, send)?;
        if packet.src.port == DNS_PORT || packet.dst.port == DNS_PORT {
            self.dns(time, packet, send)?;
        }
        Ok(())
    }

    /// What is over by that time.
    fn over(&mut self, newest: Timestamp, send: Send<'_>) -> anyhow::Result<()> {
        let mut ended = Vec::new();
        self.table.expire(newest, &mut ended);
        self.flows(ended, send)?;
        let late = self.exchanges.expire(self.mono(newest));
        self.exchanged(newest, late, send)
    }

    fn dns(&mut self, time: Timestamp, packet: &Packet<'_>, send: Send<'_>) -> anyhow::Result<()> {
        let now = self.mono(time);
        let mut messages: Vec<Vec<u8>> = Vec::new();
        match packet.transport {
            Transport::Udp { data } => messages.push(data.to_vec()),
            Transport::Tcp { sequence, flags, data, data_length } => {
                let segment = Segment { sequence, flags, data, length: data_length };
                let direction = (packet.src, packet.dst);
                self.tcp.segment(direction, &segment, now, |m| messages.push(m.to_vec()));
            }
            Transport::Other => {}
        }
        for bytes in messages {
            let Ok(message) = dns_wire::decode(&bytes) else {
                self.summary.bad_dns += 1;
                continue;
            };
            let Some((client, server)) = sides(packet, message.response) else {
                self.summary.bad_dns += 1;
                continue;
            };
            let (mac, server) = (None, server.ip);
            let seen = Seen { client, server, mac, mono: now, stamp: Some(time), own: false };
            let mut records = Vec::new();
            self.exchanges.message(&seen, message, &mut records);
            self.exchanged(time, records, send)?;
        }
        Ok(())
    }

    /// Since the first packet; before it there was nothing.
    fn mono(&self, time: Timestamp) -> Mono {
        let first = self.times.map_or(time, |(first, _)| first);
        Mono::default().plus(time.since(first))
    }

    fn exchanged(
        &mut self,
        time: Timestamp,
        records: Vec<agentmon_core::event::Dns>,
        send: Send<'_>,
    ) -> anyhow::Result<()> {
        for mut dns in records {
            dns.source = SOURCE.into();
            self.summary.dns += 1;
            let event = self.judged(Event { time, body: Body::Dns(dns) }, send)?;
            let Some(streams) = &mut self.streams else { continue };
            self.summary.new_events += streams.dns.push(&event, send)?;
        }
        Ok(())
    }

    fn flows(&mut self, ended: Vec<Event>, send: Send<'_>) -> anyhow::Result<()> {
        for event in ended {
            self.summary.flows += 1;
            let event = self.judged(event, send)?;
            let Some(streams) = &mut self.streams else { continue };
            self.summary.new_events += streams.flows.push(&event, send)?;
        }
        Ok(())
    }

    fn judged(&mut self, mut event: Event, send: Send<'_>) -> anyhow::Result<Event> {
        let mut found = Vec::new();
        self.engine.on_event(&mut event, &mut found);
        for found in found {
            let finding = Event { time: found.time, body: Body::Finding(found.finding) };
            if let Some(streams) = &mut self.streams {
                self.summary.new_findings += streams.findings.push(&finding, send)?;
            }
        }
        Ok(event)
    }

    /// `silence`: how long nothing has been written to the capture.
    fn finish(&mut self, silence: Duration, send: Send<'_>) -> anyhow::Result<()> {
        let Some((_, newest)) = self.times else { return Ok(()) };
        self.over(newest.plus(silence), send)?;
        let open = self.table.open();
        let Some(mut streams) = self.streams.take() else { return Ok(()) };
        let (base, frames) = (streams.base.to_be_bytes(), self.summary.frames.to_be_bytes());
        let mut tail = Stream::new(epoch(&[b"pcap-open", &base, &frames]), self.span);
        for event in &open {
            self.summary.new_events += tail.push(event, send)?;
        }
        (self.summary.open, self.summary.flows) =
            (open.len() as u64, self.summary.flows + open.len() as u64);
        for stream in [&mut streams.dns, &mut streams.flows, &mut tail] {
            self.summary.new_events += stream.flush(send)?;
            self.summary.passed += stream.passed;
        }
        self.summary.new_findings += streams.findings.flush(send)?;
        Ok(())
    }
}

/// A card that cuts for the kernel shows packets before they are cut, without a length: it is
/// what the frame carried. Given back with that length, which may be more than a header can say.
fn mended<'a>(ip: &'a [u8], frame: &Frame<'_>) -> (Cow<'a, [u8]>, Option<u32>) {
    let (at, header) = match ip.first().map(|b| b >> 4) {
        Some(4) => (2, 0),
        _ => (4, 40),
    };
    if ip.get(at..at + 2) != Some(&[0, 0]) {
        return (Cow::Borrowed(ip), None);
    }
    let link = u32::try_from(frame.data.len().saturating_sub(ip.len())).unwrap_or(u32::MAX);
    let carried = frame.length.saturating_sub(link);
    let said = u16::try_from(carried.saturating_sub(header)).unwrap_or(u16::MAX);
    let mut owned = ip.to_vec();
    if let Some(length) = owned.get_mut(at..at + 2) {
        length.copy_from_slice(&said.to_be_bytes());
    }
    (Cow::Owned(owned), Some(carried))
}

/// Client and server: questions go to port 53, answers come from there.
fn sides(packet: &Packet<'_>, response: bool) -> Option<(Endpoint, Endpoint)> {
    let (client, server) =
        if response { (packet.dst, packet.src) } else { (packet.src, packet.dst) };
    (server.port == DNS_PORT).then_some((client, server))
}

#[cfg(test)]
mod tests;
