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

mod batch;
mod dns;
mod event;
mod field;
mod flow;
mod pb;
mod process;
#[cfg(test)]
mod tests;

pub use batch::{
    BATCH_BYTES_MAX, BATCH_EVENTS_MAX, BODY_BYTES_MAX, Batch, COUNTERS_MAX, Health, decode_batch,
    encode_batch,
};
pub use event::{decode_event, encode_event};

/// The version this code writes; it reads up to this one.
pub const VERSION: u32 = 1;
/// `Content-Type` of a batch.
pub const CONTENT_TYPE: &str = "application/vnd.agentmon.batch";
/// Most bytes of one encoded event.
pub const EVENT_BYTES_MAX: usize = 64 * 1024;

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
