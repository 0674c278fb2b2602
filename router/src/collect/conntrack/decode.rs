//! ctnetlink messages -> [`Raw`]: what the kernel says about one flow, in its own terms.
//!
//! In: one netlink message of subsystem conntrack. Out: a plain struct; no allocation, no
//! time, no state. Format: `include/uapi/linux/netfilter/nfnetlink_conntrack.h` (attribute
//! numbers), numbers in network order. Runs on the conntrack thread for every event.
//!
//! Invariants: never panics; an unknown or odd optional attribute is ignored; without a
//! readable original tuple there is no flow, hence an error.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::netlink::message::{Attribute, Attributes, Malformed, Message, NLM_F_CREATE_OR_EXCL};

/// Subsystem number of ctnetlink (`NFNL_SUBSYS_CTNETLINK`), the high byte of the type.
pub const SUBSYSTEM: u16 = 1;
/// `IPCTNL_MSG_CT_NEW`: new, update, or one entry of a dump.
pub const CT_NEW: u16 = SUBSYSTEM << 8;
/// `IPCTNL_MSG_CT_GET`.
pub const CT_GET: u16 = SUBSYSTEM << 8 | 1;
/// `IPCTNL_MSG_CT_DELETE`.
pub const CT_DELETE: u16 = SUBSYSTEM << 8 | 2;

/// `IPS_SEEN_REPLY`.
pub const STATUS_SEEN_REPLY: u32 = 0x2;
/// `IPS_ASSURED`.
pub const STATUS_ASSURED: u32 = 0x4;
/// `IPS_OFFLOAD | IPS_HW_OFFLOAD`.
pub const STATUS_OFFLOADED: u32 = 0x4000 | 0x8000;

/// Which kind of news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A flow began.
    New,
    /// A flow changed, or a dump shows it.
    Update,
    /// A flow is over.
    Destroy,
}

/// One direction of a flow. For ICMP the source port is the identifier, and the
/// destination port is `type << 8 | code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Sender.
    pub src: IpAddr,
    /// Receiver.
    pub dst: IpAddr,
    /// IP protocol number.
    pub proto: u8,
    /// Sender's port, or the ICMP identifier.
    pub src_port: u16,
    /// Receiver's port, or ICMP type and code.
    pub dst_port: u16,
}

/// Packets and bytes of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// `CTA_COUNTERS_PACKETS`.
    pub packets: u64,
    /// `CTA_COUNTERS_BYTES`.
    pub bytes: u64,
}

/// Everything agentmon reads from one message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Raw {
    /// New, update or destroy.
    pub kind: Kind,
    /// `CTA_ID`: unique among the flows alive.
    pub id: u32,
    /// `CTA_ZONE` (or the original tuple's own zone).
    pub zone: u16,
    /// `CTA_TUPLE_ORIG`: as the originator sent it.
    pub orig: Tuple,
    /// `CTA_TUPLE_REPLY`: as the answer comes back; differs from the mirrored original
    /// where NAT is at work.
    pub reply: Option<Tuple>,
    /// `CTA_STATUS`.
    pub status: u32,
    /// `CTA_TIMEOUT`: seconds left; absent in DESTROY.
    pub timeout: Option<u32>,
    /// `CTA_PROTOINFO_TCP_STATE`.
    pub tcp_state: Option<u8>,
    /// `CTA_COUNTERS_ORIG`; only in DESTROY and dumps, and only with `nf_conntrack_acct`.
    pub out: Option<Count>,
    /// `CTA_COUNTERS_REPLY`.
    pub back: Option<Count>,
    /// `CTA_TIMESTAMP_START`, wall nanoseconds; only with `nf_conntrack_timestamp`.
    pub start_ns: Option<u64>,
    /// `CTA_TIMESTAMP_STOP`: when the entry expired (not the last packet).
    pub stop_ns: Option<u64>,
    /// `CTA_TIMESTAMP_EVENT` (kernel 6.14 and later): when the event was made.
    pub event_ns: Option<u64>,
}

/// Why a message tells of no flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Another subsystem or an unknown message of this one.
    #[error("no conntrack message")]
    Kind,
    /// Shorter than its header.
    #[error("message shorter than its header")]
    Short,
    /// A length that does not fit.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// No original tuple, or one without addresses or protocol.
    #[error("no readable original tuple")]
    Tuple,
}

/// Reads one message.
///
/// # Errors
/// [`DecodeError`]; the message is then to be counted and skipped.
pub fn decode(message: &Message<'_>) -> Result<Raw, DecodeError> {
    let kind = match message.kind {
        CT_NEW if message.flags & NLM_F_CREATE_OR_EXCL != 0 => Kind::New,
        CT_NEW => Kind::Update,
        CT_DELETE => Kind::Destroy,
        _ => return Err(DecodeError::Kind),
    };
    let (_, attributes) = message.netfilter().ok_or(DecodeError::Short)?;
    let mut fields = Fields::default();
    for attribute in attributes {
        fields.take(&attribute?)?;
    }
    let (orig, tuple_zone) = fields.orig.ok_or(DecodeError::Tuple)?;
    Ok(Raw {
        kind,
        id: fields.id,
        zone: fields.zone.or(tuple_zone).unwrap_or(0),
        orig,
        reply: fields.reply.map(|(tuple, _)| tuple),
        status: fields.status,
        timeout: fields.timeout,
        tcp_state: fields.tcp_state,
        out: fields.out,
        back: fields.back,
        start_ns: fields.start_ns,
        stop_ns: fields.stop_ns,
        event_ns: fields.event_ns,
    })
}

/// A tuple and the zone written inside it.
type ZonedTuple = (Tuple, Option<u16>);

#[derive(Default)]
struct Fields {
    id: u32,
    zone: Option<u16>,
    orig: Option<ZonedTuple>,
    reply: Option<ZonedTuple>,
    status: u32,
    timeout: Option<u32>,
    tcp_state: Option<u8>,
    out: Option<Count>,
    back: Option<Count>,
    start_ns: Option<u64>,
    stop_ns: Option<u64>,
    event_ns: Option<u64>,
}

impl Fields {
    fn take(&mut self, attribute: &Attribute<'_>) -> Result<(), Malformed> {
        match attribute.kind {
            1 => self.orig = tuple(attribute.nested())?,
            2 => self.reply = tuple(attribute.nested())?,
            3 => self.status = attribute.be32().unwrap_or(0),
            4 => self.tcp_state = tcp_state(attribute.nested())?,
            7 => self.timeout = attribute.be32(),
            9 => self.out = count(attribute.nested())?,
            10 => self.back = count(attribute.nested())?,
            12 => self.id = attribute.be32().unwrap_or(0),
            18 => self.zone = attribute.be16(),
            20 => (self.start_ns, self.stop_ns) = pair(attribute.nested())?,
            27 => self.event_ns = attribute.be64(),
            _ => {}
        }
        Ok(())
    }
}

/// `CTA_TUPLE_*`; `None` when addresses or protocol are missing.
fn tuple(attributes: Attributes<'_>) -> Result<Option<ZonedTuple>, Malformed> {
    let (mut src, mut dst, mut proto, mut zone) = (None, None, None, None);
    let mut ports = Ports::default();
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            1 => {
                for part in attribute.nested() {
                    let part = part?;
                    match part.kind {
                        1 | 3 => src = address(part.value),
                        2 | 4 => dst = address(part.value),
                        _ => {}
                    }
                }
            }
            2 => {
                for part in attribute.nested() {
                    let part = part?;
                    if part.kind == 1 {
                        proto = part.value.first().copied();
                    } else {
                        ports.take(&part);
                    }
                }
            }
            3 => zone = attribute.be16(),
            _ => {}
        }
    }
    let (Some(src), Some(dst), Some(proto)) = (src, dst, proto) else { return Ok(None) };
    let tuple = Tuple { src, dst, proto, src_port: ports.src, dst_port: ports.dst };
    Ok(Some((tuple, zone)))
}

/// `CTA_PROTO_*` behind the protocol number.
#[derive(Default)]
struct Ports {
    src: u16,
    dst: u16,
}

impl Ports {
    fn take(&mut self, part: &Attribute<'_>) {
        let byte = || part.value.first().copied().map_or(0, u16::from);
        match part.kind {
            // Ports, or the identifier of ICMP and ICMPv6.
            2 | 4 | 7 => self.src = part.be16().unwrap_or(0),
            3 => self.dst = part.be16().unwrap_or(0),
            // Type and code of ICMP and ICMPv6.
            5 | 8 => self.dst |= byte() << 8,
            6 | 9 => self.dst |= byte(),
            _ => {}
        }
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::V4(Ipv4Addr::from(v4)));
    }
    <[u8; 16]>::try_from(bytes).ok().map(|v6| IpAddr::V6(Ipv6Addr::from(v6)))
}

/// `CTA_PROTOINFO` -> `CTA_PROTOINFO_TCP` -> `CTA_PROTOINFO_TCP_STATE`: all three are 1.
fn tcp_state(attributes: Attributes<'_>) -> Result<Option<u8>, Malformed> {
    for attribute in attributes {
        let attribute = attribute?;
        if attribute.kind != 1 {
            continue;
        }
        for part in attribute.nested() {
            let part = part?;
            if part.kind == 1 {
                return Ok(part.value.first().copied());
            }
        }
    }
    Ok(None)
}

/// `CTA_COUNTERS_*`: 64-bit packets and bytes.
fn count(attributes: Attributes<'_>) -> Result<Option<Count>, Malformed> {
    let (packets, bytes) = pair(attributes)?;
    Ok(packets.zip(bytes).map(|(packets, bytes)| Count { packets, bytes }))
}

/// Two 64-bit numbers under 1 and 2.
fn pair(attributes: Attributes<'_>) -> Result<(Option<u64>, Option<u64>), Malformed> {
    let (mut first, mut second) = (None, None);
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            1 => first = attribute.be64(),
            2 => second = attribute.be64(),
            _ => {}
        }
    }
    Ok((first, second))
}

#[cfg(test)]
mod tests;
