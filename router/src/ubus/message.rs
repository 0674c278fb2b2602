//! ubus messages and their framing.
//!
//! In: bytes as they come from the socket, in pieces of any size. Out: [`Message`]s, and
//! frames to send. Pure.
//!
//! Format (ubus `ubusmsg.h`), big-endian: version `u8` = 0, type `u8`, sequence `u16`, peer
//! `u32`; then one attribute with id 0 around all others, always there, also when empty. A
//! message is at most [`MESSAGE_BYTES_MAX`] long.
//!
//! Invariants: [`Inbox`] holds at most its own limit, however long a message claims to be:
//! a longer one that ubus allows is passed over and told as [`Frame::TooLong`]; one that
//! ubus does not allow ends the connection, since nobody knows where the next one begins.

use super::blob::{self, Attribute, BlobError, Writer};

/// Longest attribute of a message (`UBUS_MAX_MSGLEN`).
pub const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// Header, and the header of the outer attribute.
pub const HEAD_BYTES: usize = 12;

/// Message types.
#[allow(missing_docs, reason = "the names are those of ubusmsg.h")]
pub mod kind {
    pub const HELLO: u8 = 0;
    pub const STATUS: u8 = 1;
    pub const DATA: u8 = 2;
    pub const PING: u8 = 3;
    pub const LOOKUP: u8 = 4;
    pub const INVOKE: u8 = 5;
    pub const ADD_OBJECT: u8 = 6;
    pub const REMOVE_OBJECT: u8 = 7;
    pub const SUBSCRIBE: u8 = 8;
    pub const UNSUBSCRIBE: u8 = 9;
    pub const NOTIFY: u8 = 10;
    pub const MONITOR: u8 = 11;
}

/// Attributes of a message.
#[allow(missing_docs, reason = "the names are those of ubusmsg.h")]
pub mod attr {
    pub const STATUS: u8 = 1;
    pub const OBJPATH: u8 = 2;
    pub const OBJID: u8 = 3;
    pub const METHOD: u8 = 4;
    pub const OBJTYPE: u8 = 5;
    pub const SIGNATURE: u8 = 6;
    pub const DATA: u8 = 7;
    pub const TARGET: u8 = 8;
    pub const ACTIVE: u8 = 9;
    pub const NO_REPLY: u8 = 10;
    pub const SUBSCRIBERS: u8 = 11;
    pub const USER: u8 = 12;
    pub const GROUP: u8 = 13;
}

/// How a request ended (`enum ubus_msg_status`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names are those of ubusmsg.h")]
pub enum Status {
    Ok = 0,
    InvalidCommand = 1,
    InvalidArgument = 2,
    MethodNotFound = 3,
    NotFound = 4,
    NoData = 5,
    PermissionDenied = 6,
    Timeout = 7,
    NotSupported = 8,
    UnknownError = 9,
}

impl Status {
    const ALL: [Self; 10] = [
        Self::Ok,
        Self::InvalidCommand,
        Self::InvalidArgument,
        Self::MethodNotFound,
        Self::NotFound,
        Self::NoData,
        Self::PermissionDenied,
        Self::Timeout,
        Self::NotSupported,
        Self::UnknownError,
    ];
    const WORDS: [&str; 10] = [
        "ok",
        "invalid command",
        "invalid argument",
        "method not found",
        "not found",
        "no data",
        "permission denied",
        "timed out",
        "not supported",
        "unknown error",
    ];

    /// From the wire; what is not known is an unknown error.
    #[must_use]
    pub fn from_wire(number: u32) -> Self {
        let known = usize::try_from(number).ok().and_then(|n| Self::ALL.get(n));
        known.copied().unwrap_or(Self::UnknownError)
    }

    /// In words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::WORDS.get(self as usize).copied().unwrap_or("unknown error")
    }
}

/// The fixed part of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What it is: see [`kind`].
    pub kind: u8,
    /// Chosen by who asks; the answer carries it again.
    pub seq: u16,
    /// Whom it is for, or from whom it is.
    pub peer: u32,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its header.
    pub header: Header,
    /// The attributes, without the one around them.
    pub body: Vec<u8>,
}

/// A message's attributes, of each the last one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parsed<'a> {
    /// How a request ended.
    pub status: Option<u32>,
    /// An object's name.
    pub path: Option<&'a [u8]>,
    /// An object's number.
    pub object: Option<u32>,
    /// A method's or notification's name.
    pub method: Option<&'a [u8]>,
    /// Number of a signature.
    pub object_type: Option<u32>,
    /// Methods and their arguments, as named values.
    pub signature: Option<&'a [u8]>,
    /// Arguments or result, as named values.
    pub data: Option<&'a [u8]>,
    /// The object that is listened to.
    pub target: Option<u32>,
    /// Whether somebody listens.
    pub active: Option<bool>,
    /// The asker wants no answer.
    pub no_reply: bool,
    /// Who asks: the user's name.
    pub user: Option<&'a [u8]>,
    /// Who asks: the group's name.
    pub group: Option<&'a [u8]>,
}

impl Message {
    /// Its attributes. Unknown ones are passed over, as ubusd does.
    ///
    /// # Errors
    /// When a length does not fit, or an attribute is not of its type.
    pub fn parse(&self) -> Result<Parsed<'_>, BlobError> {
        let mut parsed = Parsed::default();
        for attribute in blob::attributes(&self.body) {
            parsed.take(attribute?)?;
        }
        Ok(parsed)
    }
}

impl<'a> Parsed<'a> {
    fn take(&mut self, attribute: Attribute<'a>) -> Result<(), BlobError> {
        let payload = attribute.payload;
        let number = || blob::number(payload).ok_or(BlobError::Value).map(Some);
        let text = || blob::text(payload).ok_or(BlobError::Value).map(Some);
        let flag = || payload.first().map(|b| *b != 0).ok_or(BlobError::Value);
        match attribute.id {
            attr::STATUS => self.status = number()?,
            attr::OBJPATH => self.path = text()?,
            attr::OBJID => self.object = number()?,
            attr::METHOD => self.method = text()?,
            attr::OBJTYPE => self.object_type = number()?,
            attr::SIGNATURE => self.signature = Some(payload),
            attr::DATA => self.data = Some(payload),
            attr::TARGET => self.target = number()?,
            attr::ACTIVE => self.active = Some(flag()?),
            attr::NO_REPLY => self.no_reply = flag()?,
            attr::USER => self.user = text()?,
            attr::GROUP => self.group = text()?,
            _ => {}
        }
        Ok(())
    }
}

/// A message as bytes, or `None` when it is longer than ubus allows.
#[must_use]
pub fn frame(header: Header, body: &Writer) -> Option<Vec<u8>> {
    let length = body.bytes().len() + 4;
    if length > MESSAGE_BYTES_MAX {
        return None;
    }
    let mut bytes = Vec::with_capacity(HEAD_BYTES + body.bytes().len());
    bytes.extend([0, header.kind]);
    bytes.extend(header.seq.to_be_bytes());
    bytes.extend(header.peer.to_be_bytes());
    bytes.extend((length as u32).to_be_bytes());
    bytes.extend(body.bytes());
    Some(bytes)
}

/// What came out of an [`Inbox`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A whole message.
    Message(Message),
    /// A message longer than the inbox takes; its body is passed over.
    TooLong(Header),
}

/// The peer does not speak ubus: nothing after this can be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Another version of the protocol.
    #[error("protocol version {0}, not 0")]
    Version(u8),
    /// An impossible length.
    #[error("a message of {0} bytes")]
    Length(usize),
}

/// Gathers pieces until they are messages.
#[derive(Debug)]
pub struct Inbox {
    bytes: Vec<u8>,
    /// Bytes of a message passed over that are still to come.
    skip: usize,
    /// Longest body kept.
    limit: usize,
}

impl Inbox {
    /// Takes messages with bodies of up to `limit` bytes.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self { bytes: Vec::new(), skip: 0, limit }
    }

    /// Bytes held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.bytes.len()
    }

    /// More bytes. The caller reads in small pieces and takes all frames after each, so
    /// that at most one unfinished message and one piece are held.
    pub fn push(&mut self, piece: &[u8]) {
        let passed = self.skip.min(piece.len());
        self.skip -= passed;
        self.bytes.extend(piece.get(passed..).unwrap_or_default());
    }

    /// The next frame, if it is there.
    ///
    /// # Errors
    /// [`FrameError`]: close the connection.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some((head, rest)) = self.bytes.split_first_chunk::<HEAD_BYTES>() else {
            return Ok(None);
        };
        let [version, kind, s0, s1, p0, p1, p2, p3, l0, l1, l2, l3] = *head;
        if version != 0 {
            return Err(FrameError::Version(version));
        }
        let length = (u32::from_be_bytes([l0, l1, l2, l3]) & 0x00ff_ffff) as usize;
        if !(4..=MESSAGE_BYTES_MAX).contains(&length) {
            return Err(FrameError::Length(length));
        }
        let header = Header {
            kind,
            seq: u16::from_be_bytes([s0, s1]),
            peer: u32::from_be_bytes([p0, p1, p2, p3]),
        };
        // ubusd reads as many bytes as the length says, without padding.
        let length = length - 4;
        if length > self.limit {
            let there = rest.len().min(length);
            self.skip = length - there;
            self.bytes.drain(..HEAD_BYTES + there);
            return Ok(Some(Frame::TooLong(header)));
        }
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let message = Message { header, body: body.to_vec() };
        self.bytes.drain(..HEAD_BYTES + length);
        if self.bytes.is_empty() {
            // A single large message must not hold its room for ever.
            self.bytes.shrink_to(4096);
        }
        Ok(Some(Frame::Message(message)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEADER: Header = Header { kind: kind::INVOKE, seq: 0x1234, peer: 0xdead_beef };

    fn event() -> Vec<u8> {
        let body = Writer::default().u32(attr::OBJID, 1).text(attr::METHOD, "send");
        frame(HEADER, &body).unwrap()
    }

    #[test]
    fn a_frame_is_header_and_outer_attribute() {
        let empty = frame(Header { kind: kind::HELLO, seq: 0, peer: 7 }, &Writer::default());
        assert_eq!(empty.unwrap(), b"\0\0\0\0\0\0\0\x07\0\0\0\x04");
        assert_eq!(
            event(),
            b"\0\x05\x12\x34\xde\xad\xbe\xef\0\0\0\x18\x03\0\0\x08\0\0\0\x01\x04\0\0\x09send\0\0\0\0"
        );
        let most = Writer::default().raw(attr::DATA, &vec![0; MESSAGE_BYTES_MAX - 8]);
        assert_eq!(frame(HEADER, &most).map(|f| f.len()), Some(MESSAGE_BYTES_MAX + 8));
        let more = Writer::default().raw(attr::DATA, &vec![0; MESSAGE_BYTES_MAX - 7]);
        assert_eq!(frame(HEADER, &more), None);
    }

    fn all(inbox: &mut Inbox) -> Result<Vec<Frame>, FrameError> {
        std::iter::from_fn(|| inbox.next_frame().transpose()).collect()
    }

    #[test]
    fn pieces_of_any_size_make_the_same_messages() {
        let stream = [event(), event(), event()].concat();
        for size in 1..stream.len() {
            let mut inbox = Inbox::new(1_000);
            let mut frames = Vec::new();
            for piece in stream.chunks(size) {
                inbox.push(piece);
                frames.extend(all(&mut inbox).unwrap());
            }
            assert_eq!((frames.len(), inbox.held()), (3, 0), "pieces of {size}");
            let Frame::Message(message) = &frames[2] else { panic!("a message") };
            assert_eq!(message.header, HEADER);
            let parsed = message.parse().unwrap();
            assert_eq!((parsed.object, parsed.method), (Some(1), Some(b"send".as_slice())));
        }
    }

    #[test]
    fn a_message_too_long_is_passed_over_without_being_kept() {
        let long = Writer::default().raw(attr::DATA, &[9; 5_000]);
        let stream = [frame(HEADER, &long).unwrap(), event()].concat();
        let mut inbox = Inbox::new(100);
        let mut frames = Vec::new();
        for piece in stream.chunks(64) {
            inbox.push(piece);
            frames.extend(all(&mut inbox).unwrap());
            assert!(inbox.held() <= HEAD_BYTES + 100 + 64);
        }
        assert!(matches!(&frames[..], [Frame::TooLong(HEADER), Frame::Message(_)]), "{frames:?}");
    }

    #[track_caller]
    fn refused(bytes: &[u8], expected: FrameError) {
        let mut inbox = Inbox::new(100);
        inbox.push(bytes);
        assert_eq!(all(&mut inbox), Err(expected));
    }

    #[test]
    fn impossible_lengths_end_the_connection() {
        refused(b"\0\0\0\0\0\0\0\0\0\0\0\x03", FrameError::Length(3));
        refused(b"\0\0\0\0\0\0\0\0\0\0\0\0", FrameError::Length(0));
        refused(b"\0\0\0\0\0\0\0\0\0\x10\0\x01", FrameError::Length(MESSAGE_BYTES_MAX + 1));
        refused(b"\0\0\0\0\0\0\0\0\xff\xff\xff\xff", FrameError::Length(0x00ff_ffff));
        refused(b"HTTP/1.1 400 Bad", FrameError::Version(b'H'));
    }

    #[track_caller]
    fn check(body: &[u8], expected: Result<Parsed<'_>, BlobError>) {
        let message = Message { header: HEADER, body: body.to_vec() };
        assert_eq!(message.parse(), expected);
    }

    #[test]
    fn attributes_are_of_their_type_and_unknown_ones_are_passed_over() {
        check(b"", Ok(Parsed::default()));
        check(
            b"\x01\0\0\x08\0\0\0\x06\x0a\0\0\x05\x01\0\0\0\x7f\0\0\x04",
            Ok(Parsed { status: Some(6), no_reply: true, ..Parsed::default() }),
        );
        check(b"\x01\0\0\x07\0\0\0\x06", Err(BlobError::Value));
        check(b"\x04\0\0\x08send", Err(BlobError::Value));
        check(b"\x0a\0\0\x04", Err(BlobError::Value));
        check(b"\x04\0\0\xff", Err(BlobError::Length));
    }

    #[test]
    fn states_have_words() {
        assert_eq!(Status::from_wire(6), Status::PermissionDenied);
        assert_eq!(Status::from_wire(6).as_str(), "permission denied");
        assert_eq!(Status::from_wire(13), Status::UnknownError);
        assert_eq!(Status::from_wire(u32::MAX).as_str(), "unknown error");
    }

    proptest! {
        #[test]
        fn any_stream_never_panics_and_is_bounded(
            stream in prop::collection::vec(any::<u8>(), 0..2_000), size in 1usize..300,
        ) {
            let mut inbox = Inbox::new(256);
            for piece in stream.chunks(size) {
                inbox.push(piece);
                let Ok(frames) = all(&mut inbox) else { return Ok(()) };
                for frame in frames {
                    if let Frame::Message(message) = frame {
                        prop_assert!(message.parse().is_ok() || !message.body.is_empty());
                    }
                }
                prop_assert!(inbox.held() <= HEAD_BYTES + 256 + size);
            }
        }

        #[test]
        fn any_body_never_panics(body in prop::collection::vec(any::<u8>(), 0..300)) {
            let message = Message { header: HEADER, body };
            prop_assert!(message.parse().is_ok() || !message.body.is_empty());
        }
    }
}
