//! Flow records to the wire and back.

use super::field::{endpoint, mac_bytes, some_text, text, to_endpoint, to_mac, to_name};
use super::{WireError, pb};
use crate::event::{Flow, FlowPhase, Resolved, TcpState, Volume};
use crate::time::Timestamp;

pub(super) const fn phase_number(phase: FlowPhase) -> u32 {
    match phase {
        FlowPhase::End => 0,
        FlowPhase::Update => 1,
        FlowPhase::Start => 2,
    }
}

pub(super) const fn to_phase(number: u32) -> FlowPhase {
    match number {
        1 => FlowPhase::Update,
        2 => FlowPhase::Start,
        _ => FlowPhase::End,
    }
}

pub(super) const fn volume(v: Volume) -> pb::Volume {
    pb::Volume {
        bytes_out: v.bytes_out,
        bytes_in: v.bytes_in,
        packets_out: v.packets_out,
        packets_in: v.packets_in,
    }
}

pub(super) const fn to_volume(v: pb::Volume) -> Volume {
    Volume {
        bytes_out: v.bytes_out,
        bytes_in: v.bytes_in,
        packets_out: v.packets_out,
        packets_in: v.packets_in,
    }
}

impl From<&Flow> for pb::Flow {
    fn from(f: &Flow) -> Self {
        Self {
            id: f.id,
            phase: phase_number(f.phase),
            proto: u32::from(f.proto),
            src: Some(endpoint(f.src)),
            dst: Some(endpoint(f.dst)),
            nat_src: f.nat_src.map(endpoint),
            nat_dst: f.nat_dst.map(endpoint),
            start_ns: f.start.map(Timestamp::nanos),
            duration_ms: f.duration_ms,
            volume: f.volume.map(volume),
            tcp_state_1: f.tcp_state.map_or(0, |s| s as u32 + 1),
            replied: f.replied,
            offloaded: f.offloaded,
            iface: text(f.iface.as_ref()),
            mac: mac_bytes(f.mac),
            resolved_name: f
                .resolved
                .as_ref()
                .map(|r| r.name.as_str().to_owned())
                .unwrap_or_default(),
            resolved_age_ms: f.resolved.as_ref().map_or(0, |r| r.age_ms),
        }
    }
}

impl TryFrom<pb::Flow> for Flow {
    type Error = WireError;
    fn try_from(f: pb::Flow) -> Result<Self, WireError> {
        let tcp_state = match f.tcp_state_1 {
            0 => None,
            n => u8::try_from(n - 1).ok().and_then(TcpState::from_kernel),
        };
        let resolved = if f.resolved_name.is_empty() {
            None
        } else {
            Some(Resolved {
                name: to_name(&f.resolved_name, "resolved_name")?,
                age_ms: f.resolved_age_ms,
            })
        };
        Ok(Self {
            id: f.id,
            phase: to_phase(f.phase),
            proto: u8::try_from(f.proto).map_err(|_| WireError::Field("proto"))?,
            src: to_endpoint(f.src, "src")?,
            dst: to_endpoint(f.dst, "dst")?,
            nat_src: f.nat_src.map(|e| to_endpoint(Some(e), "nat_src")).transpose()?,
            nat_dst: f.nat_dst.map(|e| to_endpoint(Some(e), "nat_dst")).transpose()?,
            start: f.start_ns.map(Timestamp::from_nanos),
            duration_ms: f.duration_ms,
            volume: f.volume.map(to_volume),
            tcp_state,
            replied: f.replied,
            offloaded: f.offloaded,
            iface: some_text(f.iface),
            mac: to_mac(&f.mac)?,
            resolved,
        })
    }
}
