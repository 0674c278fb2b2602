//! One event to the wire and back: the dispatch over its kinds, and the small kinds.

use prost::Message;

use super::field::{
    clean, endpoint, ip_bytes, mac_bytes, pairs, some_text, text, to_endpoint, to_ip, to_mac,
    to_pairs,
};
use super::{EVENT_BYTES_MAX, WireError, pb};
use crate::event::{Body, Device, DeviceSource, Event, Firewall, Gap, TEXT_BYTES_MAX, Verdict};
use crate::finding::{EVIDENCE_MAX, Finding};
use crate::time::Timestamp;

/// Encodes one event: what the ring stores.
#[must_use]
pub fn encode_event(event: &Event) -> Vec<u8> {
    pb::Event::from(event).encode_to_vec()
}

/// Decodes one event.
///
/// # Errors
/// [`WireError`]: too large, no protobuf, unknown kind, or a field out of range.
pub fn decode_event(bytes: &[u8]) -> Result<Event, WireError> {
    if bytes.len() > EVENT_BYTES_MAX {
        return Err(WireError::TooLarge { what: "event bytes", max: EVENT_BYTES_MAX });
    }
    pb::Event::decode(bytes)?.try_into()
}

impl From<&Event> for pb::Event {
    fn from(e: &Event) -> Self {
        let body = match &e.body {
            Body::Dns(b) => pb::Body::Dns(b.into()),
            Body::Flow(b) => pb::Body::Flow(b.into()),
            Body::Firewall(b) => pb::Body::Firewall(b.into()),
            Body::Device(b) => pb::Body::Device(b.into()),
            Body::Finding(b) => pb::Body::Finding(b.into()),
            Body::Gap(b) => pb::Body::Gap(b.into()),
            Body::Process(b) => pb::Body::Process(b.as_ref().into()),
            Body::Connection(b) => pb::Body::Connection(b.as_ref().into()),
        };
        Self { time_ns: e.time.nanos(), body: Some(body) }
    }
}

impl TryFrom<pb::Event> for Event {
    type Error = WireError;
    fn try_from(e: pb::Event) -> Result<Self, WireError> {
        let body = match e.body.ok_or(WireError::UnknownKind)? {
            pb::Body::Dns(b) => Body::Dns(b.try_into()?),
            pb::Body::Flow(b) => Body::Flow(b.try_into()?),
            pb::Body::Firewall(b) => Body::Firewall(b.try_into()?),
            pb::Body::Device(b) => Body::Device(b.try_into()?),
            pb::Body::Finding(b) => Body::Finding(b.try_into()?),
            pb::Body::Gap(b) => Body::Gap(b.into()),
            pb::Body::Process(b) => Body::Process(Box::new(b.try_into()?)),
            pb::Body::Connection(b) => Body::Connection(Box::new(b.try_into()?)),
        };
        Ok(Self { time: Timestamp::from_nanos(e.time_ns), body })
    }
}

impl From<&Firewall> for pb::Firewall {
    fn from(b: &Firewall) -> Self {
        Self {
            verdict: b.verdict as u32,
            prefix: b.prefix.clone(),
            proto: u32::from(b.proto),
            src: Some(endpoint(b.src)),
            dst: Some(endpoint(b.dst)),
            in_iface: text(b.in_iface.as_ref()),
            out_iface: text(b.out_iface.as_ref()),
            mac: mac_bytes(b.mac),
            bytes: b.bytes,
        }
    }
}

impl TryFrom<pb::Firewall> for Firewall {
    type Error = WireError;
    fn try_from(b: pb::Firewall) -> Result<Self, WireError> {
        Ok(Self {
            verdict: match b.verdict {
                1 => Verdict::Drop,
                2 => Verdict::Reject,
                _ => Verdict::Logged,
            },
            prefix: clean(b.prefix, TEXT_BYTES_MAX),
            proto: u8::try_from(b.proto).map_err(|_| WireError::Field("proto"))?,
            src: to_endpoint(b.src, "src")?,
            dst: to_endpoint(b.dst, "dst")?,
            in_iface: some_text(b.in_iface),
            out_iface: some_text(b.out_iface),
            mac: to_mac(&b.mac)?,
            bytes: b.bytes,
        })
    }
}

impl From<&Device> for pb::Device {
    fn from(b: &Device) -> Self {
        Self {
            mac: b.mac.0.to_vec(),
            ip: ip_bytes(b.ip),
            hostname: text(b.hostname.as_ref()),
            iface: text(b.iface.as_ref()),
            source: match b.source {
                DeviceSource::Neighbour => 0,
                DeviceSource::Lease => 1,
                DeviceSource::Static => 2,
                DeviceSource::Ptr => 3,
                DeviceSource::Pihole => 4,
            },
        }
    }
}

impl TryFrom<pb::Device> for Device {
    type Error = WireError;
    fn try_from(b: pb::Device) -> Result<Self, WireError> {
        Ok(Self {
            mac: to_mac(&b.mac)?.ok_or(WireError::Field("mac"))?,
            ip: to_ip(&b.ip, "ip")?,
            hostname: some_text(b.hostname),
            iface: some_text(b.iface),
            source: match b.source {
                1 => DeviceSource::Lease,
                2 => DeviceSource::Static,
                3 => DeviceSource::Ptr,
                4 => DeviceSource::Pihole,
                _ => DeviceSource::Neighbour,
            },
        })
    }
}

impl From<&Finding> for pb::Finding {
    fn from(b: &Finding) -> Self {
        Self {
            rule: b.rule.clone(),
            subject: b.subject.clone(),
            client: b.client.map(ip_bytes).unwrap_or_default(),
            mac: mac_bytes(b.mac),
            score: b.score,
            why: b.why.clone(),
            evidence: pairs(&b.evidence),
        }
    }
}

impl TryFrom<pb::Finding> for Finding {
    type Error = WireError;
    fn try_from(b: pb::Finding) -> Result<Self, WireError> {
        Ok(Self {
            rule: clean(b.rule, TEXT_BYTES_MAX),
            subject: clean(b.subject, 1_024),
            client: if b.client.is_empty() { None } else { Some(to_ip(&b.client, "client")?) },
            mac: to_mac(&b.mac)?,
            score: if b.score.is_nan() { 0.0 } else { b.score.clamp(0.0, 1.0) },
            why: clean(b.why, 2_048),
            evidence: to_pairs(b.evidence, EVIDENCE_MAX),
        })
    }
}

impl From<&Gap> for pb::Gap {
    fn from(b: &Gap) -> Self {
        Self {
            collector: b.collector.clone(),
            from_ns: b.from.nanos(),
            reason: b.reason.clone(),
            lost: b.lost,
        }
    }
}

impl From<pb::Gap> for Gap {
    fn from(b: pb::Gap) -> Self {
        Self {
            collector: clean(b.collector, TEXT_BYTES_MAX),
            from: Timestamp::from_nanos(b.from_ns),
            reason: clean(b.reason, TEXT_BYTES_MAX),
            lost: b.lost,
        }
    }
}
