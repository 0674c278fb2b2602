//! NFLOG: copies of packets that a firewall rule `log group N` made.
//!
//! In: datagrams of one group. Out: [`Logged`] packets, borrowed. Format:
//! `include/uapi/linux/netfilter/nfnetlink_log.h` (`NFULA_*`), numbers in network order.
//! One [`Group`] per collector, on its thread. Budget: no allocation per packet.
//!
//! Invariants: only the owner of the socket can hold the group, so a second program gets
//! a clear "in use"; what the kernel could not deliver shows as a gap in `NFULA_SEQ` and is
//! counted; nothing here can hold up a packet: the kernel copies and goes on.

use std::time::Duration;

use agentmon_core::event::Mac;
use agentmon_core::time::Timestamp;
use netlink_packet_netfilter::NetfilterProtoFamily;
use netlink_packet_netfilter::nflog::{
    ConfigCmd, ConfigFlags, ConfigMode, ConfigNla, CopyMode, Timeout, config_request,
};

use super::message::{Attribute, HEADER_BYTES, Malformed, Message, NLM_F_ACK, Request, messages};
use super::socket::{DATAGRAM_BYTES_MAX, NetlinkError, Received, Socket};

/// Subsystem number of NFLOG (`NFNL_SUBSYS_ULOG`) with `NFULNL_MSG_PACKET`.
pub const PACKET: u16 = 4 << 8;
/// Subsystem number of NFLOG with `NFULNL_MSG_CONFIG`.
pub const CONFIG: u16 = 4 << 8 | 1;
/// The kernel sends a batch that is not full after this time.
const KERNEL_BATCH: Duration = Duration::from_millis(100);
/// Datagrams read before other duties get their turn.
const READ_DATAGRAMS_MAX: usize = 4_096;
/// Receive buffer; a packet of 512 bytes is accounted with about 1,300.
const BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// One copied packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Logged<'a> {
    /// `NFULA_PREFIX` without its NUL: the rule's `log prefix`.
    pub prefix: &'a [u8],
    /// `NFULA_IFINDEX_INDEV`; of a bridge port, the bridge.
    pub in_index: Option<u32>,
    /// `NFULA_IFINDEX_OUTDEV`.
    pub out_index: Option<u32>,
    /// `NFULA_HWADDR`: the sender's link-layer address, on packets that came in.
    pub mac: Option<Mac>,
    /// `NFULA_TIMESTAMP`: when the packet arrived; absent on packets made here.
    pub time: Option<Timestamp>,
    /// `NFULA_SEQ`: number of the packet within the group.
    pub sequence: Option<u32>,
    /// `NFULA_PAYLOAD`: from the IP header on, cut to the rule's `snaplen`.
    pub payload: &'a [u8],
}

/// Kernel stamps further than this from the time of reading are of a clock that was set
/// since; the queue is never that long.
const STAMP_AGE_MAX: Duration = Duration::from_secs(60);
/// Longest turn of reading.
const TURN_MAX: Duration = Duration::from_secs(1);

impl Logged<'_> {
    /// When the packet passed, where the kernel says so and it fits the time of reading.
    #[must_use]
    pub fn time_near(&self, read: Timestamp) -> Option<Timestamp> {
        // A packet may pass between the look at the clock and the reading of the queue.
        self.time.filter(|t| t.since(read) <= TURN_MAX && read.since(*t) <= STAMP_AGE_MAX)
    }
}

/// Why a message is no packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not of this subsystem, or too short.
    #[error("no NFLOG packet")]
    Kind,
    /// A length that does not fit.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// Reads one message.
///
/// # Errors
/// [`DecodeError`]; the message is then to be counted and skipped.
pub fn decode<'a>(message: &Message<'a>) -> Result<Logged<'a>, DecodeError> {
    let attributes = match message.netfilter() {
        Some((_, attributes)) if message.kind == PACKET => attributes,
        _ => return Err(DecodeError::Kind),
    };
    let mut logged = Logged::default();
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            3 => logged.time = timestamp(&attribute),
            4 => logged.in_index = attribute.be32(),
            5 => logged.out_index = attribute.be32(),
            8 => logged.mac = hardware_address(&attribute),
            9 => logged.payload = attribute.value,
            10 => logged.prefix = text(attribute.value),
            12 => logged.sequence = attribute.be32(),
            _ => {}
        }
    }
    Ok(logged)
}

/// `struct nfulnl_msg_packet_timestamp`: seconds and microseconds.
fn timestamp(attribute: &Attribute<'_>) -> Option<Timestamp> {
    let (seconds, rest) = attribute.value.split_first_chunk::<8>()?;
    let micros = i64::from_be_bytes(*rest.first_chunk::<8>()?);
    let seconds = i64::from_be_bytes(*seconds);
    let total = seconds.checked_mul(1_000_000)?.checked_add(micros)?;
    (total > 0).then(|| Timestamp::from_micros(total))
}

/// `struct nfulnl_msg_packet_hw`: length, padding, up to 8 bytes.
fn hardware_address(attribute: &Attribute<'_>) -> Option<Mac> {
    let [l0, l1, _, _, address @ ..] = attribute.value else { return None };
    let octets = *address.first_chunk::<6>()?;
    let is_mac = u16::from_be_bytes([*l0, *l1]) == 6 && octets != [0; 6];
    is_mac.then_some(Mac(octets))
}

fn text(bytes: &[u8]) -> &[u8] {
    bytes.split(|b| *b == 0).next().unwrap_or_default()
}

/// What one turn of reading met besides packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// Packets handed out.
    pub packets: u64,
    /// Packets the kernel could not deliver.
    pub lost: u64,
    /// Messages that could not be read.
    pub unreadable: u64,
}

/// A bound NFLOG group.
#[derive(Debug)]
pub struct Group {
    socket: Socket,
    buffer: Vec<u8>,
    expected: Option<u32>,
    /// Losses told that the sequence numbers have not shown yet.
    owed: u64,
}

impl Group {
    /// Binds the group and asks for the first `copy_bytes` of each packet (or the rule's
    /// `snaplen`, whichever is less), at once when `batch` packets are there.
    ///
    /// # Errors
    /// [`NetlinkError`]: no capability, no such subsystem, or the group is taken.
    pub fn bind(number: u16, copy_bytes: u32, batch: u32) -> Result<Self, NetlinkError> {
        let socket = Socket::open(super::NETFILTER)?;
        socket.set_receive_buffer(BUFFER_BYTES)?;
        let mut group =
            Self { socket, buffer: vec![0; DATAGRAM_BYTES_MAX], expected: None, owed: 0 };
        group.configure(number, vec![ConfigCmd::Bind.into()])?;
        group.configure(
            number,
            vec![
                ConfigMode::new(copy_bytes, CopyMode::Packet).into(),
                ConfigFlags::SEQ.into(),
                ConfigNla::QThresh(batch),
                Timeout::from(KERNEL_BATCH).into(),
            ],
        )?;
        Ok(group)
    }

    fn configure(&mut self, number: u16, settings: Vec<ConfigNla>) -> Result<(), NetlinkError> {
        let action = "binding an NFLOG group";
        let message = config_request(NetfilterProtoFamily::Unspec, number, settings);
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        let body = bytes.get(HEADER_BYTES..).unwrap_or_default();
        let request = Request::new(CONFIG, NLM_F_ACK).body(body);
        self.socket.ask(action, request, &mut self.buffer).map_err(|e| match e {
            // The kernel's answer to a second reader is EPERM as well.
            NetlinkError::Permission { .. } if is_held(number) => NetlinkError::Busy { action },
            NetlinkError::Io { source, .. }
                if matches!(source.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) =>
            {
                NetlinkError::Module {
                    action,
                    module: "nfnetlink_log (OpenWrt: kmod-nfnetlink-log)",
                }
            }
            other => other,
        })
    }

    /// Waits at most `timeout` for packets.
    ///
    /// # Errors
    /// What `poll` says.
    pub fn wait(&self, timeout: Duration) -> Result<bool, NetlinkError> {
        self.socket.wait(timeout)
    }

    /// Hands out what waits, until nothing does or the turn is over.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn read(&mut self, mut each: impl FnMut(&Logged<'_>)) -> Result<Turn, NetlinkError> {
        let mut turn = Turn::default();
        for _ in 0..READ_DATAGRAMS_MAX {
            match self.socket.receive(&mut self.buffer)? {
                Received::Data(datagram) => {
                    let before = turn.lost;
                    take(datagram, &mut self.expected, &mut turn, &mut each);
                    turn.lost = before + settle(&mut self.owed, turn.lost - before);
                }
                // One at least; the next packet's number will say how many. There may be
                // none for long, at the end of a flood.
                Received::Overrun => {
                    turn.lost += 1;
                    self.owed += 1;
                }
                Received::Skipped => turn.unreadable += 1,
                Received::Empty => break,
            }
        }
        Ok(turn)
    }
}

/// What a gap in the numbers adds to the losses that have been told.
fn settle(owed: &mut u64, gap: u64) -> u64 {
    if gap == 0 {
        return 0;
    }
    gap.saturating_sub(std::mem::take(owed))
}

/// Whether some program reads the group. One line each, the group's number first; the file
/// is that of this thread's network namespace.
fn is_held(number: u16) -> bool {
    let list = std::fs::read_to_string("/proc/thread-self/net/netfilter/nfnetlink_log");
    list.is_ok_and(|list| is_listed(&list, number))
}

fn is_listed(list: &str, number: u16) -> bool {
    let mut groups = list.lines().filter_map(|line| line.split_whitespace().next());
    groups.any(|first| first.parse() == Ok(number))
}

fn take(
    datagram: &[u8],
    expected: &mut Option<u32>,
    turn: &mut Turn,
    each: &mut impl FnMut(&Logged<'_>),
) {
    for message in messages(datagram) {
        let Ok(message) = message else {
            turn.unreadable += 1;
            continue;
        };
        // A batch ends with NLMSG_DONE; a late acknowledgement says nothing new.
        if message.outcome().is_some() {
            continue;
        }
        match decode(&message) {
            Ok(logged) => {
                turn.packets += 1;
                turn.lost += gap(expected, logged.sequence);
                each(&logged);
            }
            Err(_) => turn.unreadable += 1,
        }
    }
}

/// How many numbers are missing before this one. Numbers wrap; one that is behind (the
/// group was bound anew) starts over.
fn gap(expected: &mut Option<u32>, sequence: Option<u32>) -> u64 {
    let Some(sequence) = sequence else { return 0 };
    let missing = expected.map_or(0, |e| sequence.wrapping_sub(e));
    *expected = Some(sequence.wrapping_add(1));
    if missing < u32::MAX / 2 { u64::from(missing) } else { 0 }
}

#[cfg(test)]
mod tests;
