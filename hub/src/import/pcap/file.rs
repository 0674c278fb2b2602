//! Captures as files: pcap and pcapng, block after block.
//!
//! In: bytes, unpacked. Out: frames with their time, link type and length on the wire. Memory:
//! one buffer of [`BLOCK_BYTES_MAX`], whatever lengths the file claims.
//!
//! Formats: draft-ietf-opsawg-pcap and draft-ietf-opsawg-pcapng, taken apart by pcap-parser.
//!
//! Invariants: never panics; what stands before a block that cannot be read is read, the rest
//! is given up and the reason told.

use std::io::{Cursor, Read};

use agentmon_core::Timestamp;
use anyhow::Context as _;
use pcap_parser::pcapng::Block;
use pcap_parser::traits::{PcapNGPacketBlock as _, PcapReaderIterator};
use pcap_parser::{LegacyPcapReader, PcapBlockOwned, PcapError, PcapNGReader};

/// Longest block read: tcpdump's longest packet is 256 KiB; a section may carry keys.
pub(super) const BLOCK_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most interfaces of one section.
const INTERFACES_MAX: usize = 4_096;
/// The buffer is filled whole each time, and then the end of the file is seen; more cannot help.
const REFILLS_MAX: u32 = 3;
/// Of what begins like this (a section header block's type) the rest is pcapng.
const SECTION: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

/// What was captured of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    /// When; `None` where the file does not say, or nothing that makes sense.
    pub(super) time: Option<Timestamp>,
    /// Link type (tcpdump.org/linktypes.html).
    pub(super) link: i32,
    pub(super) data: &'a [u8],
    /// On the wire, with its link header.
    pub(super) length: u32,
}

/// How a file ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    Whole,
    /// Within a block: still being written, or cut.
    Cut,
    /// With what is no block.
    Broken(&'static str),
}

/// Takes each frame.
pub(super) type Each<'a> = &'a mut dyn FnMut(&Frame<'_>) -> anyhow::Result<()>;

/// An interface of a pcapng section.
#[derive(Clone, Copy, Debug)]
struct Interface {
    link: i32,
    /// Units a second; `None` where they make no sense.
    resolution: Option<u64>,
    offset_s: i64,
}

/// Reads a capture to its end.
///
/// # Errors
/// When it is none, or `each` fails.
pub(super) fn frames(mut input: impl Read, each: Each<'_>) -> anyhow::Result<End> {
    let mut head = Vec::new();
    input.by_ref().take(4).read_to_end(&mut head).context("reading the capture")?;
    let ng = head == SECTION;
    let input = Full(Cursor::new(head).chain(input));
    let none = "no capture: neither pcap nor pcapng";
    let reader: Result<Box<dyn PcapReaderIterator + '_>, _> = match ng {
        true => PcapNGReader::new(BLOCK_BYTES_MAX, input).map(|r| Box::new(r) as Box<_>),
        false => LegacyPcapReader::new(BLOCK_BYTES_MAX, input).map(|r| Box::new(r) as Box<_>),
    };
    let mut reader = reader.map_err(|_| anyhow::anyhow!(none))?;
    let mut about = About::default();
    let mut refills = 0;
    loop {
        match reader.next() {
            Ok((size, block)) => {
                refills = 0;
                about.block(&block, each)?;
                reader.consume(size);
            }
            Err(PcapError::Eof) => return Ok(End::Whole),
            Err(PcapError::UnexpectedEof) => return Ok(End::Cut),
            Err(PcapError::Incomplete(_)) if refills < REFILLS_MAX => {
                refills += 1;
                reader.refill().map_err(|_| anyhow::anyhow!("the capture cannot be read on"))?;
            }
            Err(PcapError::Incomplete(_) | PcapError::BufferTooSmall) => {
                return Ok(End::Broken("a block that claims to be larger than 4 MiB"));
            }
            Err(PcapError::ReadError) => anyhow::bail!("the capture cannot be read on"),
            Err(_) => return Ok(End::Broken("what is no block of a capture")),
        }
    }
}

/// What headers have said.
#[derive(Debug, Default)]
struct About {
    /// Of pcap: its link type, and whether times are in nanoseconds.
    link: i32,
    nanos: bool,
    interfaces: Vec<Interface>,
}

impl About {
    fn block(&mut self, block: &PcapBlockOwned<'_>, each: Each<'_>) -> anyhow::Result<()> {
        match block {
            PcapBlockOwned::LegacyHeader(header) => {
                // Above are the length of a check sum and flags.
                self.link = header.network.0 & 0x0fff_ffff;
                self.nanos = header.is_nanosecond_precision();
            }
            PcapBlockOwned::Legacy(b) => {
                let part = if self.nanos { b.ts_usec } else { b.ts_usec.saturating_mul(1_000) };
                let (link, length) = (self.link, b.origlen);
                let time = time(i64::from(b.ts_sec), u64::from(part));
                each(&Frame { time, link, data: b.data, length })?;
            }
            PcapBlockOwned::NG(Block::SectionHeader(_)) => self.interfaces.clear(),
            PcapBlockOwned::NG(Block::InterfaceDescription(b)) => {
                if self.interfaces.len() < INTERFACES_MAX {
                    let (link, offset_s) = (b.linktype.0, b.if_tsoffset);
                    let resolution = b.ts_resolution().filter(|r| *r > 0);
                    self.interfaces.push(Interface { link, resolution, offset_s });
                }
            }
            PcapBlockOwned::NG(Block::EnhancedPacket(b)) => {
                let nth = usize::try_from(b.if_id).unwrap_or(usize::MAX);
                if let Some(of) = self.interfaces.get(nth) {
                    let units = (u64::from(b.ts_high) << 32) | u64::from(b.ts_low);
                    let (time, link, length) = (of.time(units), of.link, b.origlen);
                    each(&Frame { time, link, data: b.packet_data(), length })?;
                }
            }
            PcapBlockOwned::NG(Block::SimplePacket(b)) => {
                if let Some(of) = self.interfaces.first() {
                    let (link, length) = (of.link, b.origlen);
                    each(&Frame { time: None, link, data: b.packet_data(), length })?;
                }
            }
            // Names, statistics, secrets, journal: nothing that passed by.
            PcapBlockOwned::NG(_) => {}
        }
        Ok(())
    }
}

impl Interface {
    fn time(&self, units: u64) -> Option<Timestamp> {
        let resolution = self.resolution?;
        let nanos = u128::from(units % resolution) * 1_000_000_000 / u128::from(resolution);
        let seconds = i64::try_from(units / resolution).ok()?.checked_add(self.offset_s)?;
        time(seconds, u64::try_from(nanos).ok()?)
    }
}

/// Up to the year 2242.
fn time(seconds: i64, nanos: u64) -> Option<Timestamp> {
    let seconds = u64::try_from(seconds).ok().filter(|s| *s < 1 << 33)?;
    let since = std::time::Duration::from_secs(seconds) + std::time::Duration::from_nanos(nanos);
    Some(Timestamp::EPOCH.plus(since))
}

/// Fills every buffer: the parser takes a short read for the end of what there is.
struct Full<R>(R);

impl<R: Read> Read for Full<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.0.read(rest) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}
