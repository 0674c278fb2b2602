//! Netlink messages and attributes, read in place.
//!
//! In: one datagram from the kernel. Out: borrowed messages and attributes, no allocation:
//! this is the hot path of conntrack (see `collect::conntrack` for its budget).
//! Format: `include/uapi/linux/netlink.h` (`nlmsghdr`, `nlattr`; host byte order, each
//! padded to 4 bytes) and `include/uapi/linux/netfilter/nfnetlink.h` (`nfgenmsg`).
//!
//! Invariants: never panics and always ends, whatever the bytes are; every slice handed
//! out lies inside the datagram; a broken length ends the iteration with one error.

/// `NLMSG_ERROR`: an error number, or 0 for an acknowledgement.
pub const NLMSG_ERROR: u16 = 2;
/// `NLMSG_DONE`: the end of a dump.
pub const NLMSG_DONE: u16 = 3;
/// Numbers below are for netlink itself, above for the protocol.
pub const NLMSG_MIN_TYPE: u16 = 16;

/// `NLM_F_REQUEST`.
pub const NLM_F_REQUEST: u16 = 0x1;
/// `NLM_F_ACK`.
pub const NLM_F_ACK: u16 = 0x4;
/// `NLM_F_DUMP_INTR`: the table changed under the dump; some entries may be missing.
pub const NLM_F_DUMP_INTR: u16 = 0x10;
/// `NLM_F_ROOT | NLM_F_MATCH`.
pub const NLM_F_DUMP: u16 = 0x300;
/// `NLM_F_CREATE | NLM_F_EXCL`: on a conntrack message, a new flow.
pub const NLM_F_CREATE_OR_EXCL: u16 = 0x600;

/// Bytes of `nlmsghdr`.
pub const HEADER_BYTES: usize = 16;
/// Bytes of `nfgenmsg`.
pub const NFGEN_BYTES: usize = 4;
/// Low bits of an attribute's type; the two above say "nested" and "network order".
const NLA_TYPE_MASK: u16 = 0x3fff;

/// A length that does not fit what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a netlink length does not fit its buffer")]
pub struct Malformed;

/// One message of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// `nlmsg_type`.
    pub kind: u16,
    /// `nlmsg_flags`.
    pub flags: u16,
    /// `nlmsg_seq`: that of the request it answers; 0 for events.
    pub sequence: u32,
    /// What follows the header.
    pub body: &'a [u8],
}

impl<'a> Message<'a> {
    /// For `NLMSG_ERROR` and `NLMSG_DONE`: the error number, positive; 0 means success.
    /// `None` for every other message.
    #[must_use]
    pub fn outcome(&self) -> Option<i32> {
        if !matches!(self.kind, NLMSG_ERROR | NLMSG_DONE) {
            return None;
        }
        let number = self.body.first_chunk().map_or(0, |b| i32::from_ne_bytes(*b));
        Some(number.saturating_neg().max(0))
    }

    /// Address family and attributes of a netfilter message.
    #[must_use]
    pub fn netfilter(&self) -> Option<(u8, Attributes<'a>)> {
        let (head, rest) = self.body.split_first_chunk::<NFGEN_BYTES>()?;
        Some((head[0], Attributes { rest }))
    }
}

/// Messages of one datagram, in order.
#[derive(Clone, Debug)]
pub struct Messages<'a> {
    rest: &'a [u8],
}

/// The messages of a datagram.
#[must_use]
pub const fn messages(datagram: &[u8]) -> Messages<'_> {
    Messages { rest: datagram }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let parsed = take_message(self.rest);
        self.rest = parsed.map_or(&[], |(_, rest)| rest);
        Some(parsed.map(|(message, _)| message).ok_or(Malformed))
    }
}

fn take_message(bytes: &[u8]) -> Option<(Message<'_>, &[u8])> {
    let header = bytes.first_chunk::<HEADER_BYTES>()?;
    let [l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, ..] = *header;
    let length = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).ok()?;
    let body = bytes.get(HEADER_BYTES..length)?;
    let message = Message {
        kind: u16::from_ne_bytes([k0, k1]),
        flags: u16::from_ne_bytes([f0, f1]),
        sequence: u32::from_ne_bytes([s0, s1, s2, s3]),
        body,
    };
    Some((message, bytes.get(padded(length)..).unwrap_or_default()))
}

/// One attribute, its flag bits removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// `nla_type` without the two flag bits.
    pub kind: u16,
    /// What follows the attribute header.
    pub value: &'a [u8],
}

impl<'a> Attribute<'a> {
    /// The attributes inside a nested one.
    #[must_use]
    pub const fn nested(&self) -> Attributes<'a> {
        Attributes { rest: self.value }
    }
    /// The value as a number in network order, if it has that size.
    #[must_use]
    pub fn be16(&self) -> Option<u16> {
        self.value.try_into().ok().map(u16::from_be_bytes)
    }
    /// The value as a number in network order, if it has that size.
    #[must_use]
    pub fn be32(&self) -> Option<u32> {
        self.value.try_into().ok().map(u32::from_be_bytes)
    }
    /// The value as a number in network order, if it has that size.
    #[must_use]
    pub fn be64(&self) -> Option<u64> {
        self.value.try_into().ok().map(u64::from_be_bytes)
    }
}

/// Attributes in order.
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    rest: &'a [u8],
}

/// The attributes in a buffer.
#[must_use]
pub const fn attributes(bytes: &[u8]) -> Attributes<'_> {
    Attributes { rest: bytes }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<Attribute<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let parsed = take_attribute(self.rest);
        self.rest = parsed.map_or(&[], |(_, rest)| rest);
        Some(parsed.map(|(attribute, _)| attribute).ok_or(Malformed))
    }
}

fn take_attribute(bytes: &[u8]) -> Option<(Attribute<'_>, &[u8])> {
    let [l0, l1, k0, k1] = *bytes.first_chunk::<4>()?;
    let length = usize::from(u16::from_ne_bytes([l0, l1]));
    let value = bytes.get(4..length)?;
    let kind = u16::from_ne_bytes([k0, k1]) & NLA_TYPE_MASK;
    Some((Attribute { kind, value }, bytes.get(padded(length)..).unwrap_or_default()))
}

/// Rounded up to 4 bytes; saturates on hostile lengths.
const fn padded(length: usize) -> usize {
    length.saturating_add(3) & !3
}

/// A request: header, then whatever is appended, the length set at the end.
#[derive(Clone, Debug)]
pub struct Request(Vec<u8>);

impl Request {
    /// A request of that type, sequence number to be set by the socket.
    #[must_use]
    pub fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
        bytes.resize(HEADER_BYTES, 0);
        Self(bytes)
    }
    /// Appends bytes after the header, padded to 4.
    #[must_use]
    pub fn body(mut self, body: &[u8]) -> Self {
        self.0.extend_from_slice(body);
        self.0.resize(padded(self.0.len()), 0);
        self
    }
    /// The finished message under that sequence number.
    #[must_use]
    pub fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        if let Some(place) = self.0.get_mut(0..4) {
            place.copy_from_slice(&length.to_ne_bytes());
        }
        if let Some(place) = self.0.get_mut(8..12) {
            place.copy_from_slice(&sequence.to_ne_bytes());
        }
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut out = u16::try_from(value.len() + 4).unwrap().to_ne_bytes().to_vec();
        out.extend_from_slice(&kind.to_ne_bytes());
        out.extend_from_slice(value);
        out.resize(padded(out.len()), 0);
        out
    }

    #[test]
    fn messages_follow_each_other() {
        let mut bytes = Request::new(0x100, 0).body(&[1, 2, 3]).finish(7);
        bytes.extend(Request::new(NLMSG_DONE, 0).body(&0i32.to_ne_bytes()).finish(7));
        let all: Vec<_> = messages(&bytes).collect::<Result<_, _>>().unwrap();
        assert_eq!(all.len(), 2);
        assert_eq!((all[0].kind, all[0].sequence, all[0].body), (0x100, 7, &[1, 2, 3, 0][..]));
        assert_eq!((all[0].outcome(), all[1].outcome()), (None, Some(0)));
    }

    #[test]
    fn an_error_carries_its_number() {
        let bytes = Request::new(NLMSG_ERROR, 0).body(&(-libc::EPERM).to_ne_bytes()).finish(1);
        assert_eq!(messages(&bytes).next().unwrap().unwrap().outcome(), Some(libc::EPERM));
    }

    #[test]
    fn attributes_lose_their_flag_bits_and_padding() {
        let mut bytes = attribute(0x8001, &attribute(2, &[9]));
        bytes.extend(attribute(0x4000 | 7, &5u32.to_be_bytes()));
        let all: Vec<_> = attributes(&bytes).collect::<Result<_, _>>().unwrap();
        assert_eq!((all[0].kind, all[1].kind, all[1].be32()), (1, 7, Some(5)));
        let inner = all[0].nested().next().unwrap().unwrap();
        assert_eq!((inner.kind, inner.value, inner.be16()), (2, &[9][..], None));
    }

    #[test]
    fn a_broken_length_is_one_error_and_the_end() {
        for bad in [&[3, 0, 1, 0][..], &[9, 0, 1, 0, 0], &[4, 0, 1]] {
            assert_eq!(attributes(bad).collect::<Vec<_>>(), [Err(Malformed)], "{bad:?}");
        }
        let mut bytes = Request::new(0x100, 0).finish(1);
        bytes[0] = 15;
        assert_eq!(messages(&bytes).collect::<Vec<_>>(), [Err(Malformed)]);
        bytes[0..4].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert_eq!(messages(&bytes).collect::<Vec<_>>(), [Err(Malformed)]);
    }

    proptest! {
        #[test]
        fn any_bytes_end_and_stay_inside(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let mut body_bytes = 0;
            for message in messages(&bytes).flatten() {
                body_bytes += message.body.len() + HEADER_BYTES;
                let mut inner = 0;
                for attribute in attributes(message.body).flatten() {
                    inner += attribute.value.len() + 4;
                }
                prop_assert!(inner <= message.body.len());
            }
            prop_assert!(body_bytes <= bytes.len());
            prop_assert!(attributes(&bytes).count() <= bytes.len() / 4 + 1);
        }

        #[test]
        fn what_is_written_reads_back(
            values in proptest::collection::vec((0u16..NLA_TYPE_MASK, proptest::collection::vec(any::<u8>(), 0..40)), 0..8)
        ) {
            let bytes: Vec<u8> = values.iter().flat_map(|(k, v)| attribute(*k, v)).collect();
            let read: Vec<_> = attributes(&bytes).map(|a| a.unwrap()).map(|a| (a.kind, a.value.to_vec())).collect();
            prop_assert_eq!(read, values);
        }
    }
}
