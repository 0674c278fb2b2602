//! Bytes in, whole lines out: the buffer between a file and its reader.
//!
//! In: chunks of a file, in order. Out: lines without their newline, as slices of the
//! buffer, and the file offset behind the last one. Pure, any thread, no allocation after
//! [`LineBuffer::new`].
//!
//! Invariants:
//! - memory is one buffer of 128 KiB and the longest line;
//! - a line of more than [`LINE_BYTES_MAX`] bytes (or as many as was said) is never gathered: it is counted once and
//!   skipped up to its newline, over any number of chunks and across restarts;
//! - a half line (no newline yet) stays in the buffer and before [`LineBuffer::offset`];
//! - the last [`CONTEXT_BYTES_MAX`] bytes before that offset stay in the buffer, because
//!   they tell later whether a file still holds what was read.

use std::ops::Range;

use memchr::memchr;

/// Longest line handed out, unless told otherwise. dnsmasq and syslog relays stop at 1 KiB to
/// 2 KiB.
pub const LINE_BYTES_MAX: usize = 8_192;
/// Bytes asked of the file at once: large enough that system calls cost nothing per line.
pub const CHUNK_BYTES: usize = 131_072;
/// Most bytes before the offset that are remembered.
pub const CONTEXT_BYTES_MAX: usize = 64;
/// What a buffer takes beside its longest line.
const REST_BYTES: usize = CONTEXT_BYTES_MAX + 1 + CHUNK_BYTES;

/// See the module's text.
#[derive(Debug)]
pub struct LineBuffer {
    bytes: Box<[u8]>,
    /// Longest line handed out.
    longest: usize,
    /// File offset of `bytes[0]`.
    base: u64,
    /// First byte not yet handed out.
    start: usize,
    /// Behind the last byte of the file that is here.
    end: usize,
    /// No newline in `start..scanned`.
    scanned: usize,
    /// Inside a line that is too long.
    skipping: bool,
    counts: LineCounts,
}

/// What was not handed out, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineCounts {
    /// Lines longer than [`LINE_BYTES_MAX`].
    pub too_long: u64,
    /// NUL bytes before a line: what a writer that keeps its own offset leaves in front
    /// when its file was truncated.
    pub nul_bytes: u64,
}

impl Default for LineBuffer {
    fn default() -> Self {
        Self::new()
    }
}

impl LineBuffer {
    /// Empty, at offset 0.
    #[must_use]
    pub fn new() -> Self {
        Self::for_lines(LINE_BYTES_MAX)
    }

    /// Empty, for lines of at most `longest` bytes.
    #[must_use]
    pub fn for_lines(longest: usize) -> Self {
        Self {
            bytes: vec![0; REST_BYTES + longest].into_boxed_slice(),
            longest,
            base: 0,
            start: 0,
            end: 0,
            scanned: 0,
            skipping: false,
            counts: LineCounts::default(),
        }
    }

    /// Forgets everything and goes to `offset` of another file, whose bytes before that
    /// offset are `context` (the last [`CONTEXT_BYTES_MAX`] are kept).
    pub fn seek(&mut self, offset: u64, skipping: bool, context: &[u8]) {
        let keep = context.len().min(CONTEXT_BYTES_MAX);
        let context = context.get(context.len() - keep..).unwrap_or_default();
        self.bytes[..keep].copy_from_slice(context);
        self.base = offset.saturating_sub(keep as u64);
        self.start = keep;
        self.end = keep;
        self.scanned = keep;
        self.skipping = skipping;
    }

    /// Room for the next chunk, at least [`CHUNK_BYTES`]. Moves what is left to the front.
    pub fn space(&mut self) -> &mut [u8] {
        let from = self.start.saturating_sub(CONTEXT_BYTES_MAX);
        if from > 0 {
            self.bytes.copy_within(from..self.end, 0);
            self.base += from as u64;
            self.start -= from;
            self.end -= from;
            self.scanned -= from;
        }
        let end = self.end;
        &mut self.bytes[end..end + CHUNK_BYTES]
    }

    /// `n` bytes of [`Self::space`] were filled.
    pub fn filled(&mut self, n: usize) {
        self.end = (self.end + n).min(self.bytes.len());
    }

    /// The next whole line, or `None` when more bytes are needed.
    pub fn next_line(&mut self) -> Option<Range<usize>> {
        loop {
            if self.skipping {
                let Some(newline) = memchr(b'\n', &self.bytes[self.start..self.end]) else {
                    self.drop_all();
                    return None;
                };
                self.start += newline + 1;
                self.scanned = self.start;
                self.skipping = false;
            }
            self.drop_nuls();
            let Some(found) = memchr(b'\n', &self.bytes[self.scanned..self.end]) else {
                self.scanned = self.end;
                if self.end - self.start > self.longest {
                    self.counts.too_long += 1;
                    self.skipping = true;
                    self.drop_all();
                }
                return None;
            };
            let line = self.start..self.scanned + found;
            self.start = line.end + 1;
            self.scanned = self.start;
            if line.len() > self.longest {
                self.counts.too_long += 1;
                continue;
            }
            return Some(self.without_return(line));
        }
    }

    fn drop_all(&mut self) {
        self.start = self.end;
        self.scanned = self.end;
    }

    fn drop_nuls(&mut self) {
        while self.start < self.end && self.bytes[self.start] == 0 {
            self.start += 1;
            self.counts.nul_bytes += 1;
        }
        self.scanned = self.scanned.max(self.start);
    }

    /// Relays on other systems end lines by CR LF.
    fn without_return(&self, mut line: Range<usize>) -> Range<usize> {
        if self.bytes[line.clone()].last() == Some(&b'\r') {
            line.end -= 1;
        }
        line
    }

    /// The bytes of a line that [`Self::next_line`] just gave.
    #[must_use]
    pub fn get(&self, line: Range<usize>) -> &[u8] {
        self.bytes.get(line).unwrap_or_default()
    }

    /// File offset behind the last line handed out.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.base + self.start as u64
    }
    /// File offset where the next chunk must come from.
    #[must_use]
    pub const fn read_offset(&self) -> u64 {
        self.base + self.end as u64
    }
    /// Whether [`Self::offset`] lies inside a line that is being skipped.
    #[must_use]
    pub const fn skipping(&self) -> bool {
        self.skipping
    }
    /// The last bytes before [`Self::offset`].
    #[must_use]
    pub fn context(&self) -> &[u8] {
        &self.bytes[self.start.saturating_sub(CONTEXT_BYTES_MAX)..self.start]
    }
    /// The last bytes before [`Self::read_offset`].
    #[must_use]
    pub fn read_context(&self) -> &[u8] {
        &self.bytes[self.end.saturating_sub(CONTEXT_BYTES_MAX)..self.end]
    }
    /// Bytes of an unfinished line.
    #[must_use]
    pub const fn pending(&self) -> usize {
        self.end - self.start
    }
    /// What was not handed out so far.
    #[must_use]
    pub const fn counts(&self) -> LineCounts {
        self.counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds `input` in pieces of `step` bytes; returns the lines and the buffer.
    fn feed(input: &[u8], step: usize) -> (Vec<Vec<u8>>, LineBuffer) {
        let mut buffer = LineBuffer::new();
        let mut lines = Vec::new();
        for piece in input.chunks(step) {
            buffer.space()[..piece.len()].copy_from_slice(piece);
            buffer.filled(piece.len());
            while let Some(line) = buffer.next_line() {
                lines.push(buffer.get(line).to_vec());
            }
        }
        (lines, buffer)
    }

    #[track_caller]
    fn check(input: &[u8], expected: &[&[u8]], pending: usize) {
        for step in [1, 2, 3, 7, input.len().clamp(1, CHUNK_BYTES)] {
            let (lines, buffer) = feed(input, step);
            assert_eq!(lines, expected, "in steps of {step}");
            assert_eq!(buffer.pending(), pending, "in steps of {step}");
            assert_eq!(buffer.read_offset(), input.len() as u64);
        }
    }

    #[test]
    fn lines() {
        check(b"", &[], 0);
        check(b"a\n", &[b"a"], 0);
        check(b"a\n\nb\r\nc", &[b"a", b"", b"b"], 1);
        check(b"\0\0\0a\n", &[b"a"], 0);
        check(b"a\0b\n\xff\xfe\n", &[b"a\0b", b"\xff\xfe"], 0);
        check(b"half", &[], 4);
    }

    #[test]
    fn too_long_is_skipped_once_and_the_next_line_is_whole() {
        let mut input = vec![b'x'; LINE_BYTES_MAX];
        input.extend(b"\n");
        input.extend(vec![b'y'; LINE_BYTES_MAX + 1]);
        input.extend(b"\n");
        input.extend(vec![b'z'; 3 * CHUNK_BYTES]);
        input.extend(b"\nlast\n");
        for step in [1_000, CHUNK_BYTES] {
            let (lines, buffer) = feed(&input, step);
            assert_eq!(lines.len(), 2);
            assert_eq!(lines[0].len(), LINE_BYTES_MAX);
            assert_eq!(lines[1], b"last");
            assert_eq!(buffer.counts().too_long, 2);
        }
    }

    #[test]
    fn context_is_what_stands_before_the_offset() {
        let input: Vec<u8> = (0..500u32).flat_map(|i| format!("line {i}\n").into_bytes()).collect();
        let (_, mut buffer) = feed(&input, 100);
        assert_eq!(buffer.context(), &input[input.len() - CONTEXT_BYTES_MAX..]);
        buffer.seek(7, true, b"abcdefg");
        assert_eq!((buffer.offset(), buffer.read_offset(), buffer.skipping()), (7, 7, true));
        assert_eq!(buffer.context(), b"abcdefg");
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces(
            input in proptest::collection::vec(
                prop_oneof![Just(b'\n'), Just(0u8), Just(b'\r'), any::<u8>()], 0..2_000),
            step in 1usize..300,
        ) {
            let (lines, buffer) = feed(&input, step);
            prop_assert_eq!(&lines, &feed(&input, CHUNK_BYTES).0);
            prop_assert_eq!(lines.len(), input.iter().filter(|b| **b == b'\n').count());
            prop_assert_eq!(buffer.read_offset(), input.len() as u64);
            prop_assert!(buffer.offset() <= buffer.read_offset());
        }
    }
}
