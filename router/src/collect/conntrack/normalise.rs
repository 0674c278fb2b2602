//! The kernel's terms -> the common record.
//!
//! In: a [`Raw`] message. Out: [`Facts`], the compact form the tracker keeps, and from it
//! a [`Flow`] without identity and time (the tracker adds those) and without device (the
//! session adds that). Pure; on the conntrack thread.
//!
//! The originator's view is the original tuple; NAT shows as a reply tuple that is not its
//! mirror: the reply's destination is the address the originator was given, the reply's
//! source is the real responder.

use agentmon_core::event::{Endpoint, Flow, FlowPhase, TcpState, Volume, unmap};

use super::decode::{Raw, STATUS_ASSURED, STATUS_OFFLOADED, STATUS_SEEN_REPLY, Tuple};

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// What is known of a flow, in the common terms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Facts {
    /// IP protocol number.
    pub proto: u8,
    /// Originator.
    pub src: Endpoint,
    /// What it meant to reach.
    pub dst: Endpoint,
    /// The originator's address behind source NAT.
    pub nat_src: Option<Endpoint>,
    /// The responder behind destination NAT.
    pub nat_dst: Option<Endpoint>,
    /// What passed, where the kernel counts and tells.
    pub volume: Option<Volume>,
    /// Last TCP state.
    pub tcp_state: Option<TcpState>,
    /// `CTA_STATUS`.
    pub status: u32,
}

impl Facts {
    /// From one message.
    #[must_use]
    pub fn new(raw: &Raw) -> Self {
        let (nat_src, nat_dst) = nat(raw);
        Self {
            proto: raw.orig.proto,
            src: source(&raw.orig),
            dst: Endpoint::new(unmap(raw.orig.dst), raw.orig.dst_port),
            nat_src,
            nat_dst,
            volume: volume(raw),
            tcp_state: raw.tcp_state.and_then(TcpState::from_kernel),
            status: raw.status,
        }
    }

    /// Takes over what a later message says; what it leaves out stays.
    pub fn update(&mut self, raw: &Raw) {
        let later = Self::new(raw);
        let volume = later.volume.or(self.volume);
        let tcp_state = later.tcp_state.or(self.tcp_state);
        *self = Self { volume, tcp_state, ..later };
    }

    /// Traffic went both ways for a while.
    #[must_use]
    pub const fn is_assured(&self) -> bool {
        self.status & STATUS_ASSURED != 0
    }

    /// The record, without identity, time and device.
    #[must_use]
    pub fn flow(&self, phase: FlowPhase) -> Flow {
        Flow {
            id: 0,
            phase,
            proto: self.proto,
            src: self.src,
            dst: self.dst,
            nat_src: self.nat_src,
            nat_dst: self.nat_dst,
            start: None,
            duration_ms: None,
            volume: self.volume,
            tcp_state: self.tcp_state,
            replied: self.status & STATUS_SEEN_REPLY != 0,
            offloaded: self.status & STATUS_OFFLOADED != 0,
            iface: None,
            mac: None,
            resolved: None,
        }
    }
}

/// What passed, where the kernel counts.
fn volume(raw: &Raw) -> Option<Volume> {
    let (out, back) = (raw.out?, raw.back.unwrap_or_default());
    Some(Volume {
        bytes_out: out.bytes,
        bytes_in: back.bytes,
        packets_out: out.packets,
        packets_in: back.packets,
    })
}

/// ICMP has no ports: its identifier stays out of the record.
fn source(tuple: &Tuple) -> Endpoint {
    let port = if is_icmp(tuple.proto) { 0 } else { tuple.src_port };
    Endpoint::new(unmap(tuple.src), port)
}

/// Source and destination after translation, where they differ.
fn nat(raw: &Raw) -> (Option<Endpoint>, Option<Endpoint>) {
    let (Some(reply), orig) = (&raw.reply, &raw.orig) else { return (None, None) };
    let icmp = is_icmp(orig.proto);
    // The reply of an ICMP flow has another type, and the identifier may be translated:
    // only its addresses compare.
    let moved = |was: (std::net::IpAddr, u16), is: (std::net::IpAddr, u16), port: u16| {
        let same = if icmp { was.0 == is.0 } else { was == is };
        (!same).then(|| Endpoint::new(unmap(is.0), if icmp { port } else { is.1 }))
    };
    (
        moved((orig.src, orig.src_port), (reply.dst, reply.dst_port), 0),
        moved((orig.dst, orig.dst_port), (reply.src, reply.src_port), orig.dst_port),
    )
}

const fn is_icmp(proto: u8) -> bool {
    matches!(proto, ICMP | ICMPV6)
}
