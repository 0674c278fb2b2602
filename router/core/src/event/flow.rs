//! The normalised flow record: the heart of everything behind the collectors.
//!
//! One flow makes several records (start, updates, end) under one id; each replaces the
//! one before. Originator and responder are as the originator meant them, before NAT.

use serde::{Deserialize, Serialize};

use super::{Endpoint, Mac};
use crate::name::Name;
use crate::time::Timestamp;

/// Where in its life a flow record was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FlowPhase {
    /// Just begun: no counters yet. Seen by tier-0; not forwarded.
    Start,
    /// Still open: counters so far. Replaces an earlier record of the same flow.
    Update,
    /// Over: final counters.
    #[default]
    End,
}

/// TCP states of the kernel (`enum tcp_conntrack` in
/// `include/uapi/linux/netfilter/nf_conntrack_tcp.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs, reason = "the names are the kernel's own")]
pub enum TcpState {
    None = 0,
    SynSent = 1,
    SynRecv = 2,
    Established = 3,
    FinWait = 4,
    CloseWait = 5,
    LastAck = 6,
    TimeWait = 7,
    Close = 8,
    SynSent2 = 9,
}

impl TcpState {
    const ALL: [Self; 10] = [
        Self::None,
        Self::SynSent,
        Self::SynRecv,
        Self::Established,
        Self::FinWait,
        Self::CloseWait,
        Self::LastAck,
        Self::TimeWait,
        Self::Close,
        Self::SynSent2,
    ];
    /// From the kernel's number.
    #[must_use]
    pub fn from_kernel(n: u8) -> Option<Self> {
        Self::ALL.get(usize::from(n)).copied()
    }
    /// The kernel's name, as `conntrack -L` prints it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::SynSent => "SYN_SENT",
            Self::SynRecv => "SYN_RECV",
            Self::Established => "ESTABLISHED",
            Self::FinWait => "FIN_WAIT",
            Self::CloseWait => "CLOSE_WAIT",
            Self::LastAck => "LAST_ACK",
            Self::TimeWait => "TIME_WAIT",
            Self::Close => "CLOSE",
            Self::SynSent2 => "SYN_SENT2",
        }
    }
}

/// What passed in one direction or both. Bytes are IP bytes, headers included, as the
/// kernel counts them (`CTA_COUNTERS_*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Originator to responder.
    pub bytes_out: u64,
    /// Responder to originator.
    pub bytes_in: u64,
    /// Originator to responder.
    pub packets_out: u64,
    /// Responder to originator.
    pub packets_in: u64,
}

impl Volume {
    /// Both directions.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes_out.saturating_add(self.bytes_in)
    }
}

/// The name by which a client had resolved an address, and how long before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// The name the client had asked for (not the end of a CNAME chain).
    pub name: Name,
    /// Answer to connection in milliseconds.
    pub age_ms: u64,
}

/// The normalised flow record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flow {
    /// Names the flow among all flows of this sensor: made of the kernel's id, the
    /// original tuple and the start. The same in every record of one flow.
    pub id: u64,
    /// Start, update or end.
    #[serde(default)]
    pub phase: FlowPhase,
    /// IP protocol number: 6 TCP, 17 UDP, 1 ICMP, 58 ICMPv6.
    pub proto: u8,
    /// Originator, before any NAT.
    pub src: Endpoint,
    /// Destination the originator meant, before any NAT.
    pub dst: Endpoint,
    /// The originator's address as the responder sees it, where source NAT changed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nat_src: Option<Endpoint>,
    /// The real responder, where destination NAT changed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nat_dst: Option<Endpoint>,
    /// First packet; `None` where the flow is older than the sensor's knowledge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Timestamp>,
    /// First to last packet in milliseconds, as well as it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// `None` where the kernel does not count (`nf_conntrack_acct` off) or not yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<Volume>,
    /// Last known state; TCP only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_state: Option<TcpState>,
    /// The responder has answered (`IPS_SEEN_REPLY`).
    #[serde(default)]
    pub replied: bool,
    /// Forwarded past the CPU, so that counters may stand still (`IPS_OFFLOAD`, `IPS_HW_OFFLOAD`).
    #[serde(default)]
    pub offloaded: bool,
    /// Interface on the originator's side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iface: Option<String>,
    /// The originator's MAC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// How the originator came to the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved: Option<Resolved>,
}
