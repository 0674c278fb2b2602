//! DNS over TCP: messages out of segments.
//!
//! In: segments of port 53 as they were copied (their first 512 bytes). Out: DNS messages
//! without their two-byte length prefix (RFC 1035 section 4.2.2), cut where the copy was.
//! Pure, bounded: at most [`STREAMS_MAX`] directions of connections, [`BUFFER_BYTES_MAX`]
//! each.
//!
//! Invariants: bytes are read as a message only where a message begins: at the first byte
//! of the stream, or right behind the message before. A segment that is missing, or out of
//! order, ends the stream for us: better no name than a wrong one. A repeated segment
//! gives nothing twice.

use std::collections::HashMap;
use std::time::Duration;

use agentmon_core::event::Endpoint;
use agentmon_core::time::Mono;

use crate::packet::{TCP_FIN, TCP_RST, TCP_SYN};

/// Most directions followed at once; DNS over TCP is short and rare.
pub(super) const STREAMS_MAX: usize = 256;
/// Most bytes of one message waited for.
const BUFFER_BYTES_MAX: usize = 2_048;
/// A stream silent for so long is forgotten.
const IDLE: Duration = Duration::from_secs(30);

/// Sender and receiver.
pub type Direction = (Endpoint, Endpoint);

/// One segment.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// Number of its first byte.
    pub sequence: u32,
    /// Flag bits.
    pub flags: u8,
    /// What was copied of the payload.
    pub data: &'a [u8],
    /// The payload's length on the wire.
    pub length: u32,
}

/// All directions followed.
#[derive(Debug, Default)]
pub struct Streams {
    map: HashMap<Direction, Stream>,
    /// Streams given up: a segment was missing, or the table was full.
    pub broken: u64,
}

#[derive(Debug)]
struct Stream {
    /// Sequence number of the next byte.
    next: u32,
    /// Begin of a message not yet complete, its length prefix included.
    buffer: Vec<u8>,
    /// Bytes still to pass before the next message begins.
    skip: usize,
    seen: Mono,
}

impl Streams {
    /// Reads one segment; `message` gets each message that is now known as far as it can be.
    pub fn segment(
        &mut self,
        direction: Direction,
        segment: &Segment<'_>,
        now: Mono,
        mut message: impl FnMut(&[u8]),
    ) {
        if segment.flags & TCP_SYN != 0 {
            self.open(direction, segment.sequence.wrapping_add(1), now);
            return;
        }
        // Followed from its SYN on or not at all: elsewhere nobody knows where we are.
        let Some(stream) = self.map.get_mut(&direction) else { return };
        stream.seen = now;
        let followed = stream.take(segment, &mut message);
        if !followed {
            self.broken += 1;
        }
        if !followed || segment.flags & (TCP_FIN | TCP_RST) != 0 {
            self.map.remove(&direction);
        }
    }

    fn open(&mut self, direction: Direction, next: u32, now: Mono) {
        if self.map.len() >= STREAMS_MAX {
            self.map.retain(|_, stream| now.since(stream.seen) < IDLE);
        }
        if self.map.len() >= STREAMS_MAX {
            self.broken += 1;
            return;
        }
        self.map.insert(direction, Stream { next, buffer: Vec::new(), skip: 0, seen: now });
    }
}

impl Stream {
    /// False when the stream cannot be followed any further.
    fn take(&mut self, segment: &Segment<'_>, message: &mut impl FnMut(&[u8])) -> bool {
        let ahead = segment.sequence.wrapping_sub(self.next);
        if ahead > u32::MAX / 2 {
            return true; // Seen before (or a keep-alive, one byte back).
        }
        if ahead > 0 {
            return segment.length == 0;
        }
        self.next = self.next.wrapping_add(segment.length);
        let missing = usize::try_from(segment.length).unwrap_or(usize::MAX);
        let missing = missing.saturating_sub(segment.data.len());
        let skipped = self.skip.min(segment.data.len());
        self.skip -= skipped;
        self.buffer.extend_from_slice(segment.data.get(skipped..).unwrap_or_default());
        self.split(message);
        missing == 0 || self.cut(missing, message)
    }

    /// Hands out every complete message in the buffer.
    fn split(&mut self, message: &mut impl FnMut(&[u8])) {
        while let Some((prefix, rest)) = self.buffer.split_first_chunk::<2>() {
            let length = usize::from(u16::from_be_bytes(*prefix));
            let Some(whole) = rest.get(..length) else {
                if self.buffer.len() > BUFFER_BYTES_MAX {
                    self.skip = length - rest.len();
                    message(rest);
                    self.buffer.clear();
                }
                return;
            };
            message(whole);
            self.buffer.drain(..length + 2);
        }
    }

    /// The copy ends here although the segment goes on for `missing` bytes: hands out what
    /// there is of the message, and passes over the rest.
    fn cut(&mut self, missing: usize, message: &mut impl FnMut(&[u8])) -> bool {
        if let Some((prefix, rest)) = self.buffer.split_first_chunk::<2>() {
            self.skip = usize::from(u16::from_be_bytes(*prefix)).saturating_sub(rest.len());
            message(rest);
        } else if !self.buffer.is_empty() {
            return false; // Cut within a length prefix.
        }
        self.buffer.clear();
        // More than this message is missing: where the next one begins is unknown.
        self.skip.checked_sub(missing).map(|left| self.skip = left).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn direction() -> Direction {
        let end = |last, port| Endpoint::new([192, 0, 2, last].into(), port);
        (end(1, 40_000), end(2, 53))
    }

    /// Segments as (sequence, flags, copied bytes, length on the wire) -> messages.
    fn run(segments: &[(u32, u8, &[u8], usize)]) -> (Vec<String>, Streams) {
        let (mut streams, mut out) = (Streams::default(), Vec::new());
        for (sequence, flags, data, length) in segments {
            let length = *length as u32;
            let segment = Segment { sequence: *sequence, flags: *flags, data, length };
            streams.segment(direction(), &segment, Mono::default(), |m| {
                out.push(String::from_utf8_lossy(m).into_owned());
            });
        }
        (out, streams)
    }

    #[track_caller]
    fn check(segments: &[(u32, u8, &[u8], usize)], expected: &[&str], broken: u64) {
        let (out, streams) = run(segments);
        assert_eq!(
            (out.iter().map(String::as_str).collect::<Vec<_>>().as_slice(), streams.broken),
            (expected, broken)
        );
    }

    const SYN: (u32, u8, &[u8], usize) = (99, TCP_SYN, b"", 0);

    #[test]
    fn messages_in_one_and_in_several_segments() {
        check(&[SYN, (100, 0, b"\0\x03abc", 5)], &["abc"], 0);
        check(&[SYN, (100, 0, b"\0\x03abc\0\x02de", 9)], &["abc", "de"], 0);
        check(&[SYN, (100, 0, b"\0\x03", 2), (102, 0, b"abc", 3)], &["abc"], 0);
        check(
            &[SYN, (100, 0, b"\0", 1), (101, 0, b"\x03ab", 3), (104, 0, b"c\0\x01d", 4)],
            &["abc", "d"],
            0,
        );
        // Sequence numbers wrap.
        let syn = (u32::MAX - 1, TCP_SYN, &b""[..], 0);
        check(&[syn, (u32::MAX, 0, b"\0\x03a", 3), (2, 0, b"bc", 2)], &["abc"], 0);
    }

    #[test]
    fn nothing_comes_twice_and_nothing_is_guessed() {
        let first = (100, 0, &b"\0\x03abc"[..], 5);
        check(&[SYN, first, first, (105, 0, b"", 0), (105, 0, b"\0\x01d", 3)], &["abc", "d"], 0);
        // A missing segment ends it.
        check(&[SYN, first, (110, 0, b"\0\x01d", 3), (105, 0, b"\0\x01e", 3)], &["abc"], 1);
        // No SYN: somewhere in the middle.
        check(&[first], &[], 0);
        check(&[SYN, (100, TCP_FIN, b"\0\x03abc", 5), (105, 0, b"\0\x01d", 3)], &["abc"], 0);
    }

    #[test]
    fn a_cut_copy_gives_what_there_is() {
        // 10 bytes of message, 4 copied; the next message follows in a later segment.
        check(&[SYN, (100, 0, b"\0\x0aabcd", 12), (112, 0, b"\0\x01e", 3)], &["abcd", "e"], 0);
        // The message goes on in the next segment, which is passed over.
        check(&[SYN, (100, 0, b"\0\x0aabcd", 8), (108, 0, b"ghij\0\x01k", 7)], &["abcd", "k"], 0);
        // Another message began in the part that was not copied.
        check(&[SYN, (100, 0, b"\0\x05abcd", 12), (112, 0, b"\0\x01e", 3)], &["abcd"], 1);
        check(&[SYN, (100, 0, b"\0", 12)], &[], 1);
    }

    #[test]
    fn memory_is_bounded() {
        let mut streams = Streams::default();
        let syn = Segment { sequence: 0, flags: TCP_SYN, data: b"", length: 0 };
        for port in 0..1_000 {
            let from = Endpoint::new([192, 0, 2, 1].into(), port);
            streams.segment((from, direction().1), &syn, Mono::default(), |_| {});
        }
        assert_eq!((streams.map.len(), streams.broken), (STREAMS_MAX, 1_000 - STREAMS_MAX as u64));
        // Idle ones make room.
        let later = Mono::default().plus(IDLE);
        streams.segment(direction(), &syn, later, |_| {});
        assert_eq!(streams.map.len(), 1);
        // One endless message is cut.
        let piece = [0xffu8; 1_000];
        let mut longest = 0;
        for n in 0..70u32 {
            let segment =
                Segment { sequence: 1 + n * 1_000, flags: 0, data: &piece, length: 1_000 };
            streams.segment(direction(), &segment, later, |m| longest = longest.max(m.len()));
            assert!(streams.map.values().all(|s| s.buffer.len() <= BUFFER_BYTES_MAX + 1_000));
        }
        assert!(longest > BUFFER_BYTES_MAX && longest <= BUFFER_BYTES_MAX + 1_000);
    }

    proptest! {
        /// However a stream is cut into segments, the same messages come out.
        #[test]
        fn segmentation_does_not_matter(
            texts in proptest::collection::vec("[a-z]{0,40}", 0..6),
            cuts in proptest::collection::vec(1usize..30, 1..30),
        ) {
            let mut stream = Vec::new();
            for text in &texts {
                stream.extend((text.len() as u16).to_be_bytes());
                stream.extend(text.as_bytes());
            }
            let mut segments = vec![SYN];
            let (mut at, mut sizes) = (0, cuts.iter().cycle());
            while at < stream.len() {
                let end = stream.len().min(at + sizes.next().unwrap());
                segments.push((100 + at as u32, 0, &stream[at..end], end - at));
                at = end;
            }
            let (out, streams) = run(&segments);
            prop_assert_eq!(out, texts);
            prop_assert_eq!(streams.broken, 0);
        }

        #[test]
        fn any_segments_never_panic(
            segments in proptest::collection::vec((90u32..140, any::<u8>(), proptest::collection::vec(any::<u8>(), 0..20), 0usize..40), 0..20),
        ) {
            let segments: Vec<_> = segments.iter().map(|(s, f, d, l)| (*s, *f, &d[..], *l)).collect();
            let (out, _) = run(&segments);
            prop_assert!(out.len() <= 400);
        }
    }
}
