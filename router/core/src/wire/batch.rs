//! Batches: packed, compressed, and taken apart again with every size checked before
//! memory is taken for it.

use std::io::Read;

use prost::Message;

use super::field::{clean, pairs, to_pairs};
use super::{VERSION, WireError, pb};
use crate::event::TEXT_BYTES_MAX;
use crate::time::Timestamp;

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
    /// Encoded events; see [`decode_event`](super::decode_event).
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
