//! The wire: events as protobuf, batches of them zstd-compressed.
//!
//! Format version 1, protobuf (proto3 semantics). A batch is
//! `{1: version, 2: epoch, 3: first_seq, 4: repeated bytes event, 5: health, 6: sent_ns}`;
//! each event stands in it as its own encoded message, exactly the bytes the ring holds,
//! so that forwarding copies and never re-encodes. Event `i` has the sequence number
//! `first_seq + i`: a batch has no holes.
//!
//! Compatibility: fields are only added, numbers never reused; a reader skips what it does
//! not know, and an event kind it does not know becomes [`WireError::UnknownKind`], which
//! the hub counts and keeps going. One version of skew works both ways.
//!
//! Everything decoded here is hostile: sizes are checked before memory is taken, texts are
//! made printable, lists are cut to their maximum, and nothing panics.

use std::io::Read;
use std::net::IpAddr;

use prost::Message;

use crate::event::{
    ANSWERS_MAX, Answer, Body, Device, DeviceSource, Dns, DnsStatus, Endpoint, Event, Firewall,
    Flow, FlowPhase, Gap, Mac, Resolved, TEXT_BYTES_MAX, TcpState, Verdict, Volume,
};
use crate::finding::{EVIDENCE_MAX, Finding};
use crate::name::{Name, cut, printable};
use crate::time::Timestamp;

/// The version this code writes; it reads up to this one.
pub const VERSION: u32 = 1;
/// `Content-Type` of a batch.
pub const CONTENT_TYPE: &str = "application/vnd.agentmon.batch";
/// Most bytes of one encoded event.
pub const EVENT_BYTES_MAX: usize = 64 * 1024;
/// Most events in one batch.
pub const BATCH_EVENTS_MAX: usize = 50_000;
/// Most bytes of a batch before compression.
pub const BATCH_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most bytes of a batch as sent. Incompressible data does not occur in practice; the
/// bound equals the plain one plus zstd's own overhead.
pub const BODY_BYTES_MAX: usize = BATCH_BYTES_MAX + 64 * 1024;
/// Most counters in a health report.
pub const COUNTERS_MAX: usize = 512;
/// Compression level: 3 is zstd's default; on 64-bit ARM about 100 MB/s, far above need.
const ZSTD_LEVEL: i32 = 3;
/// Largest window a decoder accepts (2^24 = 16 MiB): level 3 uses at most 2 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 24;

/// Why bytes are no event or batch.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Not protobuf of this shape.
    #[error("not a valid message: {0}")]
    Protobuf(#[from] prost::DecodeError),
    /// Not zstd, cut short, or a window beyond the bound.
    #[error("not valid zstd data: {0}")]
    Zstd(std::io::Error),
    /// A maximum is exceeded.
    #[error("{what} exceeds the maximum of {max}")]
    TooLarge {
        /// Which one.
        what: &'static str,
        /// The maximum, in bytes or items.
        max: usize,
    },
    /// Written by a newer program.
    #[error("batch version {0} is newer than {VERSION}; update the hub first")]
    NewerVersion(u32),
    /// A kind of event this version does not know.
    #[error("event of an unknown kind; update the hub")]
    UnknownKind,
    /// A field that must be there is not, or makes no sense.
    #[error("bad field `{0}`")]
    Field(&'static str),
}

/// A sensor's own state, sent with every batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Program version, printable.
    pub version: String,
    /// Cumulative counters by name, e.g. `accepted`, `drop.ring.evicted`, `conntrack.enobufs`.
    pub counters: Vec<(String, u64)>,
    /// Events waiting in the ring.
    pub pending: u64,
    /// Bytes the ring takes.
    pub ring_bytes: u64,
    /// State of each collector: name and one line, `ok` or what is wrong.
    pub collectors: Vec<(String, String)>,
}

/// A decoded batch: its header, and the events still encoded.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Which life of the sender's ring the sequence numbers belong to.
    pub epoch: u64,
    /// Sequence number of the first event.
    pub first_seq: u64,
    /// Encoded events; see [`decode_event`].
    pub events: Vec<Vec<u8>>,
    /// The sender's state.
    pub health: Health,
    /// The sender's wall clock on sending: shows clock skew.
    pub sent: Timestamp,
}

impl Batch {
    /// Sequence number of the last event; `None` for a batch that carries only health.
    #[must_use]
    pub fn last_seq(&self) -> Option<u64> {
        let n = u64::try_from(self.events.len()).ok()?;
        n.checked_sub(1).map(|n| self.first_seq.saturating_add(n))
    }
}

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

/// Encodes and compresses a batch.
///
/// # Errors
/// When a maximum is exceeded, or the compressor fails (out of memory).
pub fn encode_batch(batch: &Batch) -> Result<Vec<u8>, WireError> {
    if batch.events.len() > BATCH_EVENTS_MAX {
        return Err(WireError::TooLarge { what: "events in a batch", max: BATCH_EVENTS_MAX });
    }
    let plain = pb::Batch::from(batch).encode_to_vec();
    if plain.len() > BATCH_BYTES_MAX {
        return Err(WireError::TooLarge { what: "batch bytes", max: BATCH_BYTES_MAX });
    }
    zstd::bulk::compress(&plain, ZSTD_LEVEL).map_err(WireError::Zstd)
}

/// Decompresses and decodes a batch; the events in it stay encoded.
///
/// # Errors
/// [`WireError`]; a decompression bomb is [`WireError::TooLarge`] after at most
/// [`BATCH_BYTES_MAX`] bytes of output.
pub fn decode_batch(body: &[u8]) -> Result<Batch, WireError> {
    if body.len() > BODY_BYTES_MAX {
        return Err(WireError::TooLarge { what: "body bytes", max: BODY_BYTES_MAX });
    }
    let mut decoder = zstd::stream::read::Decoder::new(body).map_err(WireError::Zstd)?;
    decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(WireError::Zstd)?;
    let mut plain = Vec::with_capacity(body.len().saturating_mul(4).min(BATCH_BYTES_MAX));
    let limit = u64::try_from(BATCH_BYTES_MAX).unwrap_or(u64::MAX) + 1;
    decoder.take(limit).read_to_end(&mut plain).map_err(WireError::Zstd)?;
    if plain.len() > BATCH_BYTES_MAX {
        return Err(WireError::TooLarge { what: "batch bytes", max: BATCH_BYTES_MAX });
    }
    let batch = pb::Batch::decode(plain.as_slice())?;
    if batch.version > VERSION {
        return Err(WireError::NewerVersion(batch.version));
    }
    if batch.version == 0 {
        return Err(WireError::Field("version"));
    }
    if batch.events.len() > BATCH_EVENTS_MAX {
        return Err(WireError::TooLarge { what: "events in a batch", max: BATCH_EVENTS_MAX });
    }
    Ok(batch.into())
}

/// The messages as they stand on the wire. Field numbers are for ever.
mod pb {
    use prost::{Message, Oneof};

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Batch {
        #[prost(uint32, tag = "1")]
        pub(super) version: u32,
        #[prost(uint64, tag = "2")]
        pub(super) epoch: u64,
        #[prost(uint64, tag = "3")]
        pub(super) first_seq: u64,
        #[prost(bytes = "vec", repeated, tag = "4")]
        pub(super) events: Vec<Vec<u8>>,
        #[prost(message, optional, tag = "5")]
        pub(super) health: Option<Health>,
        #[prost(sint64, tag = "6")]
        pub(super) sent_ns: i64,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Health {
        #[prost(string, tag = "1")]
        pub(super) version: String,
        #[prost(message, repeated, tag = "2")]
        pub(super) counters: Vec<Counter>,
        #[prost(uint64, tag = "3")]
        pub(super) pending: u64,
        #[prost(uint64, tag = "4")]
        pub(super) ring_bytes: u64,
        #[prost(message, repeated, tag = "5")]
        pub(super) collectors: Vec<Pair>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Counter {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(uint64, tag = "2")]
        pub(super) value: u64,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Pair {
        #[prost(string, tag = "1")]
        pub(super) key: String,
        #[prost(string, tag = "2")]
        pub(super) value: String,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Event {
        #[prost(sint64, tag = "1")]
        pub(super) time_ns: i64,
        #[prost(oneof = "Body", tags = "2, 3, 4, 5, 6, 7")]
        pub(super) body: Option<Body>,
    }

    #[derive(Clone, PartialEq, Oneof)]
    pub(super) enum Body {
        #[prost(message, tag = "2")]
        Dns(Dns),
        #[prost(message, tag = "3")]
        Flow(Flow),
        #[prost(message, tag = "4")]
        Firewall(Firewall),
        #[prost(message, tag = "5")]
        Device(Device),
        #[prost(message, tag = "6")]
        Finding(Finding),
        #[prost(message, tag = "7")]
        Gap(Gap),
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Dns {
        #[prost(bytes = "vec", tag = "1")]
        pub(super) client: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")]
        pub(super) mac: Vec<u8>,
        #[prost(string, tag = "3")]
        pub(super) name: String,
        #[prost(uint32, tag = "4")]
        pub(super) qtype: u32,
        #[prost(uint32, tag = "5")]
        pub(super) status: u32,
        /// Response code plus one; 0 = not known.
        #[prost(uint32, tag = "6")]
        pub(super) rcode_1: u32,
        #[prost(message, repeated, tag = "7")]
        pub(super) answers: Vec<Answer>,
        #[prost(uint32, optional, tag = "8")]
        pub(super) ttl: Option<u32>,
        #[prost(string, tag = "9")]
        pub(super) upstream: String,
        #[prost(uint32, optional, tag = "10")]
        pub(super) latency_us: Option<u32>,
        #[prost(string, tag = "11")]
        pub(super) blocked_by: String,
        #[prost(string, tag = "12")]
        pub(super) source: String,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Answer {
        #[prost(oneof = "AnswerData", tags = "1, 2, 3")]
        pub(super) data: Option<AnswerData>,
    }

    #[derive(Clone, PartialEq, Oneof)]
    pub(super) enum AnswerData {
        #[prost(bytes, tag = "1")]
        Address(Vec<u8>),
        #[prost(string, tag = "2")]
        Cname(String),
        #[prost(string, tag = "3")]
        Other(String),
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Endpoint {
        #[prost(bytes = "vec", tag = "1")]
        pub(super) ip: Vec<u8>,
        #[prost(uint32, tag = "2")]
        pub(super) port: u32,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Flow {
        #[prost(fixed64, tag = "1")]
        pub(super) id: u64,
        /// 0 end, 1 update, 2 start.
        #[prost(uint32, tag = "2")]
        pub(super) phase: u32,
        #[prost(uint32, tag = "3")]
        pub(super) proto: u32,
        #[prost(message, optional, tag = "4")]
        pub(super) src: Option<Endpoint>,
        #[prost(message, optional, tag = "5")]
        pub(super) dst: Option<Endpoint>,
        #[prost(message, optional, tag = "6")]
        pub(super) nat_src: Option<Endpoint>,
        #[prost(message, optional, tag = "7")]
        pub(super) nat_dst: Option<Endpoint>,
        #[prost(sint64, optional, tag = "8")]
        pub(super) start_ns: Option<i64>,
        #[prost(uint64, optional, tag = "9")]
        pub(super) duration_ms: Option<u64>,
        #[prost(message, optional, tag = "10")]
        pub(super) volume: Option<Volume>,
        /// Kernel's number plus one; 0 = none.
        #[prost(uint32, tag = "11")]
        pub(super) tcp_state_1: u32,
        #[prost(bool, tag = "12")]
        pub(super) replied: bool,
        #[prost(bool, tag = "13")]
        pub(super) offloaded: bool,
        #[prost(string, tag = "14")]
        pub(super) iface: String,
        #[prost(bytes = "vec", tag = "15")]
        pub(super) mac: Vec<u8>,
        #[prost(string, tag = "16")]
        pub(super) resolved_name: String,
        #[prost(uint64, tag = "17")]
        pub(super) resolved_age_ms: u64,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Volume {
        #[prost(uint64, tag = "1")]
        pub(super) bytes_out: u64,
        #[prost(uint64, tag = "2")]
        pub(super) bytes_in: u64,
        #[prost(uint64, tag = "3")]
        pub(super) packets_out: u64,
        #[prost(uint64, tag = "4")]
        pub(super) packets_in: u64,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Firewall {
        #[prost(uint32, tag = "1")]
        pub(super) verdict: u32,
        #[prost(string, tag = "2")]
        pub(super) prefix: String,
        #[prost(uint32, tag = "3")]
        pub(super) proto: u32,
        #[prost(message, optional, tag = "4")]
        pub(super) src: Option<Endpoint>,
        #[prost(message, optional, tag = "5")]
        pub(super) dst: Option<Endpoint>,
        #[prost(string, tag = "6")]
        pub(super) in_iface: String,
        #[prost(string, tag = "7")]
        pub(super) out_iface: String,
        #[prost(bytes = "vec", tag = "8")]
        pub(super) mac: Vec<u8>,
        #[prost(uint32, tag = "9")]
        pub(super) bytes: u32,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Device {
        #[prost(bytes = "vec", tag = "1")]
        pub(super) mac: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")]
        pub(super) ip: Vec<u8>,
        #[prost(string, tag = "3")]
        pub(super) hostname: String,
        #[prost(string, tag = "4")]
        pub(super) iface: String,
        #[prost(uint32, tag = "5")]
        pub(super) source: u32,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Finding {
        #[prost(string, tag = "1")]
        pub(super) rule: String,
        #[prost(string, tag = "2")]
        pub(super) subject: String,
        #[prost(bytes = "vec", tag = "3")]
        pub(super) client: Vec<u8>,
        #[prost(bytes = "vec", tag = "4")]
        pub(super) mac: Vec<u8>,
        #[prost(double, tag = "5")]
        pub(super) score: f64,
        #[prost(string, tag = "6")]
        pub(super) why: String,
        #[prost(message, repeated, tag = "7")]
        pub(super) evidence: Vec<Pair>,
    }

    #[derive(Clone, PartialEq, Message)]
    pub(super) struct Gap {
        #[prost(string, tag = "1")]
        pub(super) collector: String,
        #[prost(sint64, tag = "2")]
        pub(super) from_ns: i64,
        #[prost(string, tag = "3")]
        pub(super) reason: String,
        #[prost(uint64, optional, tag = "4")]
        pub(super) lost: Option<u64>,
    }
}

// --- to the wire -------------------------------------------------------------------------

fn ip_bytes(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}
fn mac_bytes(mac: Option<Mac>) -> Vec<u8> {
    mac.map(|m| m.0.to_vec()).unwrap_or_default()
}
fn endpoint(e: Endpoint) -> pb::Endpoint {
    pb::Endpoint { ip: ip_bytes(e.ip), port: u32::from(e.port) }
}
fn text(t: Option<&String>) -> String {
    t.cloned().unwrap_or_default()
}
fn pairs(list: &[(String, String)]) -> Vec<pb::Pair> {
    list.iter().map(|(k, v)| pb::Pair { key: k.clone(), value: v.clone() }).collect()
}

impl From<&Batch> for pb::Batch {
    fn from(b: &Batch) -> Self {
        let counters =
            b.health.counters.iter().map(|(n, v)| pb::Counter { name: n.clone(), value: *v });
        Self {
            version: VERSION,
            epoch: b.epoch,
            first_seq: b.first_seq,
            events: b.events.clone(),
            health: Some(pb::Health {
                version: b.health.version.clone(),
                counters: counters.collect(),
                pending: b.health.pending,
                ring_bytes: b.health.ring_bytes,
                collectors: pairs(&b.health.collectors),
            }),
            sent_ns: b.sent.nanos(),
        }
    }
}

impl From<&Event> for pb::Event {
    fn from(e: &Event) -> Self {
        let body = match &e.body {
            Body::Dns(b) => pb::Body::Dns(b.into()),
            Body::Flow(b) => pb::Body::Flow(b.into()),
            Body::Firewall(b) => pb::Body::Firewall(pb::Firewall {
                verdict: b.verdict as u32,
                prefix: b.prefix.clone(),
                proto: u32::from(b.proto),
                src: Some(endpoint(b.src)),
                dst: Some(endpoint(b.dst)),
                in_iface: text(b.in_iface.as_ref()),
                out_iface: text(b.out_iface.as_ref()),
                mac: mac_bytes(b.mac),
                bytes: b.bytes,
            }),
            Body::Device(b) => pb::Body::Device(pb::Device {
                mac: b.mac.0.to_vec(),
                ip: ip_bytes(b.ip),
                hostname: text(b.hostname.as_ref()),
                iface: text(b.iface.as_ref()),
                source: match b.source {
                    DeviceSource::Neighbour => 0,
                    DeviceSource::Lease => 1,
                },
            }),
            Body::Finding(b) => pb::Body::Finding(pb::Finding {
                rule: b.rule.clone(),
                subject: b.subject.clone(),
                client: b.client.map(ip_bytes).unwrap_or_default(),
                mac: mac_bytes(b.mac),
                score: b.score,
                why: b.why.clone(),
                evidence: pairs(&b.evidence),
            }),
            Body::Gap(b) => pb::Body::Gap(pb::Gap {
                collector: b.collector.clone(),
                from_ns: b.from.nanos(),
                reason: b.reason.clone(),
                lost: b.lost,
            }),
        };
        Self { time_ns: e.time.nanos(), body: Some(body) }
    }
}

impl From<&Dns> for pb::Dns {
    fn from(d: &Dns) -> Self {
        let answers = d.answers.iter().take(ANSWERS_MAX).map(|a| pb::Answer {
            data: Some(match a {
                Answer::Address(ip) => pb::AnswerData::Address(ip_bytes(*ip)),
                Answer::Cname(name) => pb::AnswerData::Cname(name.as_str().to_owned()),
                Answer::Other(text) => pb::AnswerData::Other(text.clone()),
            }),
        });
        Self {
            client: ip_bytes(d.client),
            mac: mac_bytes(d.mac),
            name: d.name.as_str().to_owned(),
            qtype: u32::from(d.qtype),
            status: d.status as u32,
            rcode_1: d.rcode.map_or(0, |r| u32::from(r) + 1),
            answers: answers.collect(),
            ttl: d.ttl,
            upstream: text(d.upstream.as_ref()),
            latency_us: d.latency_us,
            blocked_by: text(d.blocked_by.as_ref()),
            source: d.source.clone(),
        }
    }
}

impl From<&Flow> for pb::Flow {
    fn from(f: &Flow) -> Self {
        Self {
            id: f.id,
            phase: match f.phase {
                FlowPhase::End => 0,
                FlowPhase::Update => 1,
                FlowPhase::Start => 2,
            },
            proto: u32::from(f.proto),
            src: Some(endpoint(f.src)),
            dst: Some(endpoint(f.dst)),
            nat_src: f.nat_src.map(endpoint),
            nat_dst: f.nat_dst.map(endpoint),
            start_ns: f.start.map(Timestamp::nanos),
            duration_ms: f.duration_ms,
            volume: f.volume.map(|v| pb::Volume {
                bytes_out: v.bytes_out,
                bytes_in: v.bytes_in,
                packets_out: v.packets_out,
                packets_in: v.packets_in,
            }),
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

// --- from the wire -----------------------------------------------------------------------

fn to_ip(bytes: &[u8], field: &'static str) -> Result<IpAddr, WireError> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Ok(IpAddr::from(v4));
    }
    let v6 = <[u8; 16]>::try_from(bytes).map_err(|_| WireError::Field(field))?;
    Ok(IpAddr::from(v6).to_canonical())
}
fn to_mac(bytes: &[u8]) -> Result<Option<Mac>, WireError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    <[u8; 6]>::try_from(bytes).map(|m| Some(Mac(m))).map_err(|_| WireError::Field("mac"))
}
fn to_u16(n: u32, field: &'static str) -> Result<u16, WireError> {
    u16::try_from(n).map_err(|_| WireError::Field(field))
}
fn to_endpoint(e: Option<pb::Endpoint>, field: &'static str) -> Result<Endpoint, WireError> {
    let e = e.ok_or(WireError::Field(field))?;
    Ok(Endpoint { ip: to_ip(&e.ip, field)?, port: to_u16(e.port, field)? })
}
/// Printable and at most `max` bytes; already printable text is kept as it is.
fn clean(text: String, max: usize) -> String {
    let fine = text.len() <= max && text.bytes().all(|b| (b' '..=b'~').contains(&b));
    if fine { text } else { cut(printable(text.as_bytes(), max), max) }
}
fn some_text(text: String) -> Option<String> {
    (!text.is_empty()).then(|| clean(text, TEXT_BYTES_MAX))
}
fn to_name(text: &str, field: &'static str) -> Result<Name, WireError> {
    Name::parse(text.as_bytes()).map_err(|_| WireError::Field(field))
}
fn to_pairs(list: Vec<pb::Pair>, most: usize) -> Vec<(String, String)> {
    let pair = |p: pb::Pair| (clean(p.key, TEXT_BYTES_MAX), clean(p.value, 1_024));
    list.into_iter().take(most).map(pair).collect()
}

impl From<pb::Batch> for Batch {
    fn from(b: pb::Batch) -> Self {
        let h = b.health.unwrap_or_default();
        let counters = h.counters.into_iter().take(COUNTERS_MAX);
        Self {
            epoch: b.epoch,
            first_seq: b.first_seq,
            events: b.events,
            health: Health {
                version: clean(h.version, TEXT_BYTES_MAX),
                counters: counters.map(|c| (clean(c.name, TEXT_BYTES_MAX), c.value)).collect(),
                pending: h.pending,
                ring_bytes: h.ring_bytes,
                collectors: to_pairs(h.collectors, COUNTERS_MAX),
            },
            sent: Timestamp::from_nanos(b.sent_ns),
        }
    }
}

impl TryFrom<pb::Event> for Event {
    type Error = WireError;
    fn try_from(e: pb::Event) -> Result<Self, WireError> {
        let body = match e.body.ok_or(WireError::UnknownKind)? {
            pb::Body::Dns(b) => Body::Dns(b.try_into()?),
            pb::Body::Flow(b) => Body::Flow(b.try_into()?),
            pb::Body::Firewall(b) => Body::Firewall(Firewall {
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
            }),
            pb::Body::Device(b) => Body::Device(Device {
                mac: to_mac(&b.mac)?.ok_or(WireError::Field("mac"))?,
                ip: to_ip(&b.ip, "ip")?,
                hostname: some_text(b.hostname),
                iface: some_text(b.iface),
                source: if b.source == 1 { DeviceSource::Lease } else { DeviceSource::Neighbour },
            }),
            pb::Body::Finding(b) => Body::Finding(Finding {
                rule: clean(b.rule, TEXT_BYTES_MAX),
                subject: clean(b.subject, 1_024),
                client: if b.client.is_empty() { None } else { Some(to_ip(&b.client, "client")?) },
                mac: to_mac(&b.mac)?,
                score: if b.score.is_nan() { 0.0 } else { b.score.clamp(0.0, 1.0) },
                why: clean(b.why, 2_048),
                evidence: to_pairs(b.evidence, EVIDENCE_MAX),
            }),
            pb::Body::Gap(b) => Body::Gap(Gap {
                collector: clean(b.collector, TEXT_BYTES_MAX),
                from: Timestamp::from_nanos(b.from_ns),
                reason: clean(b.reason, TEXT_BYTES_MAX),
                lost: b.lost,
            }),
        };
        Ok(Self { time: Timestamp::from_nanos(e.time_ns), body })
    }
}

impl TryFrom<pb::Dns> for Dns {
    type Error = WireError;
    fn try_from(d: pb::Dns) -> Result<Self, WireError> {
        let mut answers = Vec::with_capacity(d.answers.len().min(ANSWERS_MAX));
        for answer in d.answers.into_iter().take(ANSWERS_MAX) {
            answers.push(match answer.data {
                Some(pb::AnswerData::Address(ip)) => Answer::Address(to_ip(&ip, "answer")?),
                Some(pb::AnswerData::Cname(name)) => Answer::Cname(to_name(&name, "answer")?),
                Some(pb::AnswerData::Other(text)) => Answer::Other(clean(text, TEXT_BYTES_MAX)),
                None => continue,
            });
        }
        Ok(Self {
            client: to_ip(&d.client, "client")?,
            mac: to_mac(&d.mac)?,
            name: to_name(&d.name, "name")?,
            qtype: to_u16(d.qtype, "qtype")?,
            status: match d.status {
                1 => DnsStatus::Forwarded,
                2 => DnsStatus::Cached,
                3 => DnsStatus::Local,
                4 => DnsStatus::Blocked,
                5 => DnsStatus::Timeout,
                _ => DnsStatus::Unknown,
            },
            rcode: match d.rcode_1 {
                0 => None,
                n => Some(to_u16(n - 1, "rcode")?),
            },
            answers,
            ttl: d.ttl,
            upstream: some_text(d.upstream),
            latency_us: d.latency_us,
            blocked_by: some_text(d.blocked_by),
            source: clean(d.source, TEXT_BYTES_MAX),
        })
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
            phase: match f.phase {
                1 => FlowPhase::Update,
                2 => FlowPhase::Start,
                _ => FlowPhase::End,
            },
            proto: u8::try_from(f.proto).map_err(|_| WireError::Field("proto"))?,
            src: to_endpoint(f.src, "src")?,
            dst: to_endpoint(f.dst, "dst")?,
            nat_src: f.nat_src.map(|e| to_endpoint(Some(e), "nat_src")).transpose()?,
            nat_dst: f.nat_dst.map(|e| to_endpoint(Some(e), "nat_dst")).transpose()?,
            start: f.start_ns.map(Timestamp::from_nanos),
            duration_ms: f.duration_ms,
            volume: f.volume.map(|v| Volume {
                bytes_out: v.bytes_out,
                bytes_in: v.bytes_in,
                packets_out: v.packets_out,
                packets_in: v.packets_in,
            }),
            tcp_state,
            replied: f.replied,
            offloaded: f.offloaded,
            iface: some_text(f.iface),
            mac: to_mac(&f.mac)?,
            resolved,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Event> {
        let e = |s: &str| {
            s.parse::<std::net::SocketAddr>().map(|a| Endpoint::new(a.ip(), a.port())).unwrap()
        };
        let time = Timestamp::from_nanos(1_795_444_327_000_000_123);
        let bodies = vec![
            Body::Dns(Dns {
                client: "192.0.2.9".parse().unwrap(),
                mac: Some(Mac([0, 0, 0x5e, 0, 0x53, 1])),
                name: "www.example.com".parse().unwrap(),
                qtype: 28,
                status: DnsStatus::Forwarded,
                rcode: Some(0),
                answers: vec![
                    Answer::Cname("cdn.example.net".parse().unwrap()),
                    Answer::Address("2001:db8::9".parse().unwrap()),
                    Answer::Other("HTTPS 1 .".into()),
                ],
                ttl: Some(300),
                upstream: Some("198.51.100.53".into()),
                latency_us: Some(3_210),
                blocked_by: None,
                source: "dnsmasq-log".into(),
            }),
            Body::Flow(Flow {
                id: 0xdead_beef_0000_0001,
                phase: FlowPhase::Update,
                proto: 6,
                src: e("192.168.77.2:43164"),
                dst: e("203.0.113.2:8080"),
                nat_src: Some(e("203.0.113.1:43164")),
                nat_dst: None,
                start: Some(time),
                duration_ms: Some(3_212),
                volume: Some(Volume {
                    bytes_out: 1_476,
                    bytes_in: 50_424,
                    packets_out: 9,
                    packets_in: 8,
                }),
                tcp_state: Some(TcpState::Established),
                replied: true,
                offloaded: false,
                iface: Some("br-lan".into()),
                mac: None,
                resolved: Some(Resolved { name: "www.example.com".parse().unwrap(), age_ms: 12 }),
            }),
            Body::Firewall(Firewall {
                verdict: Verdict::Reject,
                prefix: "agentmon-reject ".into(),
                proto: 17,
                src: e("192.0.2.9:1000"),
                dst: e("[2001:db8::1]:53"),
                in_iface: Some("br-lan".into()),
                out_iface: Some("wan".into()),
                mac: Some(Mac([0, 0, 0x5e, 0, 0x53, 2])),
                bytes: 60,
            }),
            Body::Device(Device {
                mac: Mac([2, 0, 0, 0, 0, 1]),
                ip: "192.0.2.9".parse().unwrap(),
                hostname: Some("laptop".into()),
                iface: None,
                source: DeviceSource::Lease,
            }),
            Body::Finding(
                Finding {
                    rule: "blocklist".into(),
                    subject: "bad.example".into(),
                    client: Some("192.0.2.9".parse().unwrap()),
                    mac: None,
                    score: 0.8,
                    why: "bad.example stands on a list".into(),
                    evidence: vec![],
                }
                .with("list", "test"),
            ),
            Body::Gap(Gap {
                collector: "conntrack".into(),
                from: time,
                reason: "enobufs".into(),
                lost: None,
            }),
        ];
        bodies.into_iter().map(|body| Event { time, body }).collect()
    }

    #[test]
    fn every_kind_round_trips() {
        for event in samples() {
            assert_eq!(decode_event(&encode_event(&event)).unwrap(), event);
        }
    }

    #[test]
    fn batches_round_trip() {
        let batch = Batch {
            epoch: 7,
            first_seq: 41,
            events: samples().iter().map(encode_event).collect(),
            health: Health {
                version: "0.1.0".into(),
                counters: vec![("accepted".into(), 6)],
                pending: 6,
                ring_bytes: 4096,
                collectors: vec![("conntrack".into(), "ok".into())],
            },
            sent: Timestamp::from_secs(1),
        };
        assert_eq!(batch.last_seq(), Some(46));
        assert_eq!(decode_batch(&encode_batch(&batch).unwrap()).unwrap(), batch);
    }

    #[test]
    fn a_decompression_bomb_is_refused() {
        let bomb = zstd::bulk::compress(&vec![0u8; BATCH_BYTES_MAX * 4], 19).unwrap();
        assert!(bomb.len() < 100_000);
        assert!(matches!(decode_batch(&bomb), Err(WireError::TooLarge { .. })));
    }

    #[test]
    fn a_newer_version_and_an_unknown_kind_are_named() {
        let newer = pb::Batch { version: VERSION + 1, ..pb::Batch::default() }.encode_to_vec();
        let body = zstd::bulk::compress(&newer, 1).unwrap();
        assert!(matches!(decode_batch(&body), Err(WireError::NewerVersion(2))));
        // Field 15, an empty message: an event kind of the future.
        assert!(matches!(decode_event(&[0x7a, 0]), Err(WireError::UnknownKind)));
    }

    /// Texts that are too long or not printable are so once, and then stay as they are.
    #[test]
    fn texts_are_cleaned_once_and_for_all() {
        for text in ["\u{1b}[31m\\", &"x".repeat(300), &"\u{7}".repeat(100), &"é\\".repeat(90)] {
            let once = clean(text.to_owned(), TEXT_BYTES_MAX);
            assert!(once.len() <= TEXT_BYTES_MAX, "{once}");
            assert!(once.bytes().all(|b| (b' '..=b'~').contains(&b)), "{once}");
            assert_eq!(clean(once.clone(), TEXT_BYTES_MAX), once);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..512)) {
            drop(decode_event(&bytes));
            drop(decode_batch(&bytes));
        }
    }
}
