//! A byte stream -> syslog messages: octet counting and separators (RFC 6587 section 3.4).
//!
//! In: bytes of a TCP or TLS connection in any pieces. Out: whole messages, each once. Pure;
//! the collector's thread; one buffer of at most [`MESSAGE_BYTES_MAX`] a connection.
//!
//! `57 <30>1 ...` is counted: a length, a blank, that many bytes. All else ends with a
//! newline, or with the NUL that OpenWrt's `log_trailer_null` writes. Each message says anew
//! by its first bytes which it is: no message begins with a digit, and relays that cannot
//! decide exist.
//!
//! Invariants: a message that is too long is counted once and never gathered; a half one at
//! the connection's end is no message, since half an address reads like a whole one; the
//! pieces make no difference.

/// Longest message. RFC 5425 section 4.3.1: a receiver should be able to take 8,192 octets.
pub const MESSAGE_BYTES_MAX: usize = 8_192;
/// Longest message that is skipped; a longer count is no syslog.
const COUNT_MAX: usize = 16 * 1024 * 1024;

/// What is in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A whole message.
    Message(&'a [u8]),
    /// A message of more than [`MESSAGE_BYTES_MAX`], left out.
    TooLong,
}

/// The stream is no syslog, or its place in it is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message of more than {COUNT_MAX} bytes is announced")]
pub struct FrameError;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Before a message.
    #[default]
    Start,
    /// In what may be a length.
    Count,
    /// In a counted message, with so many bytes missing.
    Counted(usize),
    /// In a counted message that is too long.
    SkipCounted(usize),
    /// In a message that ends with a separator.
    Line,
    /// In one that is too long.
    SkipLine,
}

/// See the module's text.
#[derive(Debug, Default)]
pub struct Frames {
    state: State,
    kept: Vec<u8>,
}

impl Frames {
    /// Whether a message has begun and not ended.
    #[must_use]
    pub fn is_inside(&self) -> bool {
        self.state != State::Start
    }

    /// Takes the next piece.
    ///
    /// # Errors
    /// [`FrameError`]: nothing more can be read from this connection.
    pub fn feed(
        &mut self,
        mut bytes: &[u8],
        mut found: impl FnMut(Frame<'_>),
    ) -> Result<(), FrameError> {
        while let Some(&first) = bytes.first() {
            match self.state {
                State::Start if is_end(first) => bytes = bytes.get(1..).unwrap_or_default(),
                State::Start => {
                    self.kept.clear();
                    let counted = matches!(first, b'1'..=b'9');
                    self.state = if counted { State::Count } else { State::Line };
                }
                State::Count => bytes = self.count(bytes)?,
                State::Counted(left) => {
                    let (now, rest) = bytes.split_at(left.min(bytes.len()));
                    self.kept.extend_from_slice(now);
                    bytes = rest;
                    self.state = State::Counted(left - now.len());
                    if now.len() == left {
                        found(Frame::Message(trimmed(&self.kept)));
                        self.state = State::Start;
                    }
                }
                State::SkipCounted(left) => {
                    let skip = left.min(bytes.len());
                    bytes = bytes.get(skip..).unwrap_or_default();
                    self.state = State::SkipCounted(left - skip);
                    if skip == left {
                        found(Frame::TooLong);
                        self.state = State::Start;
                    }
                }
                State::Line | State::SkipLine => bytes = self.line(bytes, &mut found),
            }
        }
        Ok(())
    }

    /// Digits of a length, or of a line that happens to begin with some.
    fn count<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], FrameError> {
        let digits = bytes.iter().take_while(|b| b.is_ascii_digit()).count();
        // Nine digits are more than any count that is taken; more need not be kept.
        let room = 9_usize.saturating_sub(self.kept.len());
        if digits > room {
            return Err(FrameError);
        }
        let (number, rest) = bytes.split_at(digits);
        self.kept.extend_from_slice(number);
        match rest.split_first() {
            None => {}
            Some((b' ', rest)) => {
                let number = std::str::from_utf8(&self.kept).ok().and_then(|n| n.parse().ok());
                self.state = match number.unwrap_or(usize::MAX) {
                    n if n > COUNT_MAX => return Err(FrameError),
                    n if n > MESSAGE_BYTES_MAX => State::SkipCounted(n),
                    n => State::Counted(n),
                };
                self.kept.clear();
                return Ok(rest);
            }
            Some(_) => self.state = State::Line,
        }
        Ok(rest)
    }

    /// The rest of a message up to its separator.
    fn line<'a>(&mut self, bytes: &'a [u8], found: &mut impl FnMut(Frame<'_>)) -> &'a [u8] {
        let end = memchr::memchr2(b'\n', 0, bytes);
        let (now, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
        let fits = self.kept.len() + now.len() <= MESSAGE_BYTES_MAX;
        if self.state == State::Line && fits {
            self.kept.extend_from_slice(now);
        } else {
            self.state = State::SkipLine;
        }
        let Some((_, rest)) = rest.split_first().filter(|_| end.is_some()) else { return rest };
        found(match self.state {
            State::Line => Frame::Message(trimmed(&self.kept)),
            _ => Frame::TooLong,
        });
        self.state = State::Start;
        rest
    }
}

const fn is_end(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r' | 0)
}

/// Without the separators some senders write although they count, or send in a datagram.
#[must_use]
pub fn trimmed(message: &[u8]) -> &[u8] {
    let end = message.iter().rposition(|b| !is_end(*b)).map_or(0, |last| last + 1);
    message.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LONG: &str = "(too long)";

    fn read(input: &[u8], step: usize) -> (Vec<String>, Result<bool, FrameError>) {
        let (mut frames, mut found) = (Frames::default(), Vec::new());
        for piece in input.chunks(step) {
            let outcome = frames.feed(piece, |frame| {
                found.push(match frame {
                    Frame::Message(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                    Frame::TooLong => LONG.to_owned(),
                });
            });
            assert!(frames.kept.capacity() <= 2 * MESSAGE_BYTES_MAX);
            if let Err(error) = outcome {
                return (found, Err(error));
            }
        }
        let inside = frames.is_inside();
        (found, Ok(inside))
    }

    #[track_caller]
    fn check(input: &[u8], expected: &[&str], rest: Result<bool, FrameError>) {
        for step in [1, 2, 3, 7, input.len().max(1)] {
            let (found, outcome) = read(input, step);
            assert_eq!(found, expected, "in steps of {step}");
            assert_eq!(outcome, rest, "in steps of {step}");
        }
    }

    #[test]
    fn messages() {
        check(b"", &[], Ok(false));
        check(b"<30>a\n<30>b\r\n", &["<30>a", "<30>b"], Ok(false));
        check(b"<30>a\0<30>b\0", &["<30>a", "<30>b"], Ok(false));
        check(b"5 <30>a5 <30>b", &["<30>a", "<30>b"], Ok(false));
        check(b"6 <30>a\n5 <30>b\n<30>c\n", &["<30>a", "<30>b", "<30>c"], Ok(false));
        check(b"7 <3>a\nbc<3>d\n", &["<3>a\nbc", "<3>d"], Ok(false));
        check(b"\n\n\0<30>a\n\n", &["<30>a"], Ok(false));
        check(b"2026-03-23T13:16:49Z a b: c\n", &["2026-03-23T13:16:49Z a b: c"], Ok(false));
        check(b"no priority\n", &["no priority"], Ok(false));
        check(b"0 is no length\n", &["0 is no length"], Ok(false));
    }

    #[test]
    fn half_messages_are_none() {
        check(b"<30>half", &[], Ok(true));
        check(b"12 <30>half", &[], Ok(true));
        check(b"12", &[], Ok(true));
        check(b"<30>a\n<30>half", &["<30>a"], Ok(true));
    }

    #[test]
    fn too_long_is_skipped_once_and_the_next_is_whole() {
        let long = vec![b'x'; 1 << 20];
        let whole = "y".repeat(MESSAGE_BYTES_MAX);
        let mut input = [b"<", &long[..], b"\n1048576 ", &long, b"<30>a\n8192 "].concat();
        input.extend(whole.bytes());
        input.extend(b"<30>b\n");
        for step in [1_000, 16_384, input.len()] {
            let (found, rest) = read(&input, step);
            assert_eq!(found, [LONG, LONG, "<30>a", &whole, "<30>b"]);
            assert_eq!(rest, Ok(false));
        }
    }

    #[test]
    fn what_is_no_syslog_ends_the_connection() {
        check(b"99999999999999999999 x", &[], Err(FrameError));
        check(b"99999999 x", &[], Err(FrameError));
        check(b"<30>a\n123456789012 ", &["<30>a"], Err(FrameError));
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces(
            input in proptest::collection::vec(
                prop_oneof![Just(b'\n'), Just(b' '), Just(0u8), b'0'..=b'9', any::<u8>()],
                0..600),
            step in 1usize..200,
        ) {
            prop_assert_eq!(read(&input, step), read(&input, 1));
        }

        #[test]
        fn counted_messages_come_out_as_they_went_in(
            messages in proptest::collection::vec("<[0-9]{1,3}>[a-z \n]{0,60}[a-z]", 0..20),
            step in 1usize..200,
        ) {
            let input: String = messages.iter().map(|m| format!("{} {m}", m.len())).collect();
            prop_assert_eq!(read(input.as_bytes(), step), (messages, Ok(false)));
        }
    }
}
