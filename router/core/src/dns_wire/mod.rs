//! DNS messages as they stand on the wire, queries and responses.
//!
//! In: the payload of one UDP datagram, or of one TCP message without its length prefix,
//! possibly cut short (the kernel copies only the first bytes of a packet to us). Out: the
//! first question and the answers that could be read, and a flag when something was
//! missing. Runs on the collector's thread; no I/O, no state.
//!
//! Format: RFC 1035 section 4 with compression, RFC 6891 (EDNS, extended response code),
//! RFC 8914 (extended errors),
//! RFC 2181 section 8 (time to live), RFC 6762 section 10.2 (cache-flush bit of mDNS).
//!
//! Invariants:
//! - any bytes are read without panic, in time linear in their number: a name is followed
//!   only for records that are kept (at most [`ANSWERS_MAX`]), a compression pointer must
//!   point backwards, and one name follows at most [`POINTERS_MAX`] of them;
//! - every name and text that comes out is printable (see [`crate::name`]).

mod rdata;
mod types;

use crate::event::{ANSWERS_MAX, Answer, TEXT_BYTES_MAX};
use crate::name::{Name, NameBuilder, cut};

pub use types::{ede_name, rcode_name, type_name, type_number};

/// Most compression pointers one name may pass: one for each label a name can have
/// (127), so that every name a resolver accepts is read here too.
pub const POINTERS_MAX: usize = 127;
/// Octets of the fixed header.
const HEADER_OCTETS: usize = 12;
/// EDNS pseudo-record (RFC 6891 section 6.1.1).
const TYPE_OPT: u16 = 41;
/// EDNS option of an extended error (RFC 8914 section 2).
const OPTION_EDE: u16 = 15;

/// What could be read of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Chosen by the client; the response carries the same.
    pub id: u16,
    /// A response, not a query.
    pub response: bool,
    /// The server cut the message (TC): the client will ask again over TCP.
    pub truncated: bool,
    /// Extended error of a response (RFC 8914): its code, and what it says.
    pub ede: Option<(u16, String)>,
    /// Response code, the EDNS part included; see [`rcode_name`]. 0 in a query.
    pub rcode: u16,
    /// The first question; `None` where the message has none or is cut before its end.
    pub question: Option<Question>,
    /// Records of the answer section in their order, at most [`ANSWERS_MAX`].
    pub answers: Vec<Record>,
    /// The bytes end early, turn into nonsense, or hold more than [`ANSWERS_MAX`] answers:
    /// there was more than is given here, or the code's EDNS part may be missing.
    pub incomplete: bool,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Whose records.
    pub name: Name,
    /// Which records; see [`type_name`].
    pub qtype: u16,
    /// 1 = Internet; mDNS's "unicast reply wanted" bit is taken out.
    pub qclass: u16,
}

/// One record of the answer section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Whose record.
    pub name: Name,
    /// Its type; see [`type_name`].
    pub rtype: u16,
    /// Time to live in seconds.
    pub ttl: u32,
    /// What it says.
    pub data: Answer,
}

/// Why bytes are no DNS message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DnsWireError {
    /// Not even a header.
    #[error("{0} octets are too few for a DNS header of {HEADER_OCTETS}")]
    Short(usize),
    /// A notify, update or other operation that asks no question (RFC 6895 section 2.2).
    #[error("operation code {0} is no query")]
    Opcode(u8),
    /// The question is malformed: most likely this is not DNS at all.
    #[error("malformed question: {0}")]
    Question(&'static str),
}

impl Message {
    /// The extended error as an answer, in the words of dnsmasq's log: `EDE: TEXT`.
    #[must_use]
    pub fn ede_answer(&self) -> Option<Answer> {
        let (code, text) = self.ede.as_ref()?;
        let name = ede_name(*code);
        let all =
            if text.is_empty() { format!("EDE: {name}") } else { format!("EDE: {name}: {text}") };
        Some(Answer::Other(cut(all, TEXT_BYTES_MAX)))
    }

    /// What the client was told, in the order of the message; an extended error comes last.
    /// At most [`ANSWERS_MAX`].
    #[must_use]
    pub fn into_answers(self) -> Vec<Answer> {
        let ede = self.ede_answer();
        let room = ANSWERS_MAX - usize::from(ede.is_some());
        self.answers.into_iter().map(|record| record.data).take(room).chain(ede).collect()
    }

    /// The resolver says of itself that it keeps the answer back: blocked, censored, filtered
    /// or prohibited (RFC 8914 sections 4.16 to 4.19).
    #[must_use]
    pub fn is_kept_back(&self) -> bool {
        self.ede.as_ref().is_some_and(|(code, _)| (15..=18).contains(code))
    }

    /// Smallest time to live of the address answers, in seconds.
    #[must_use]
    pub fn address_ttl(&self) -> Option<u32> {
        let addresses = self.answers.iter().filter(|r| matches!(r.data, Answer::Address(_)));
        addresses.map(|r| r.ttl).min()
    }
}

/// Reads one message.
///
/// # Errors
/// [`DnsWireError`] where there is nothing to make use of. A message that is cut or
/// malformed behind its question is no error: see [`Message::incomplete`].
pub fn decode(bytes: &[u8]) -> Result<Message, DnsWireError> {
    let mut reader = Reader { message: bytes, at: 0, end: bytes.len() };
    let (mut message, counts) =
        header(&mut reader).map_err(|_| DnsWireError::Short(bytes.len()))?;
    let opcode = bytes.get(2).map_or(0, |b| b >> 3 & 15);
    if opcode != 0 {
        return Err(DnsWireError::Opcode(opcode));
    }
    match body(&mut reader, counts, &mut message) {
        Ok(()) => {}
        Err(Stop::Bad(what)) if message.question.is_none() => {
            return Err(DnsWireError::Question(what));
        }
        Err(_) => message.incomplete = true,
    }
    Ok(message)
}

/// Number of entries the four sections claim to have.
struct Counts {
    questions: u16,
    answers: u16,
    others: u32,
}

fn header(reader: &mut Reader<'_>) -> Result<(Message, Counts), Stop> {
    let (id, flags) = (reader.u16()?, reader.u16()?);
    let (questions, answers) = (reader.u16()?, reader.u16()?);
    let others = u32::from(reader.u16()?) + u32::from(reader.u16()?);
    let response = flags & 0x8000 != 0;
    let message = Message {
        id,
        response,
        truncated: flags & 0x0200 != 0,
        ede: None,
        rcode: if response { flags & 15 } else { 0 },
        question: None,
        answers: Vec::new(),
        incomplete: false,
    };
    Ok((message, Counts { questions, answers, others }))
}

fn body(reader: &mut Reader<'_>, counts: Counts, message: &mut Message) -> Result<(), Stop> {
    for i in 0..counts.questions {
        if i == 0 {
            let name = reader.name()?;
            let (qtype, qclass) = (reader.u16()?, reader.u16()? & 0x7fff);
            message.question = Some(Question { name, qtype, qclass });
        } else {
            reader.skip_name()?;
            reader.skip(4)?;
        }
    }
    for _ in 0..counts.answers {
        if message.answers.len() == ANSWERS_MAX {
            message.incomplete = true;
            reader.skip_name()?;
            reader.record()?;
        } else {
            let name = reader.name()?;
            let mut record = reader.record()?;
            let data = record.data.answer(record.rtype, record.class);
            message.answers.push(Record { name, rtype: record.rtype, ttl: record.ttl(), data });
        }
    }
    for _ in 0..counts.others {
        reader.skip_name()?;
        let mut record = reader.record()?;
        if record.rtype == TYPE_OPT && message.response {
            // RFC 6891 section 6.1.3: the upper 8 bits of the code stand where the time to
            // live has its own upper 8.
            message.rcode |= (record.ttl_field >> 20 & 0xff0) as u16;
            message.ede = message.ede.take().or(record.data.extended_error());
        }
    }
    Ok(())
}

/// Why reading stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// The bytes are at their end.
    End,
    /// They break the format.
    Bad(&'static str),
}

/// A place in a message and the end of what may be read there (of the message, or of one
/// record's data).
#[derive(Clone, Copy, Debug)]
struct Reader<'a> {
    message: &'a [u8],
    at: usize,
    end: usize,
}

/// The fixed fields of a record and its data.
struct RawRecord<'a> {
    rtype: u16,
    class: u16,
    ttl_field: u32,
    data: Reader<'a>,
}

impl RawRecord<'_> {
    /// RFC 2181 section 8: a value with the top bit set counts as zero.
    const fn ttl(&self) -> u32 {
        if self.ttl_field >> 31 == 0 { self.ttl_field } else { 0 }
    }
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], Stop> {
        let to = self.at.checked_add(n).filter(|to| *to <= self.end).ok_or(Stop::End)?;
        let bytes = self.message.get(self.at..to).ok_or(Stop::End)?;
        self.at = to;
        Ok(bytes)
    }
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        self.take(N)?.try_into().map_err(|_| Stop::End)
    }
    fn u8(&mut self) -> Result<u8, Stop> {
        self.array().map(|[b]| b)
    }
    fn u16(&mut self) -> Result<u16, Stop> {
        self.array().map(u16::from_be_bytes)
    }
    fn u32(&mut self) -> Result<u32, Stop> {
        self.array().map(u32::from_be_bytes)
    }
    fn skip(&mut self, n: usize) -> Result<(), Stop> {
        self.take(n).map(|_| ())
    }
    fn rest(&mut self) -> &'a [u8] {
        let bytes = self.message.get(self.at..self.end).unwrap_or_default();
        self.at = self.end;
        bytes
    }

    /// The part of a record behind its owner's name.
    fn record(&mut self) -> Result<RawRecord<'a>, Stop> {
        let (rtype, class, ttl_field) = (self.u16()?, self.u16()? & 0x7fff, self.u32()?);
        let length = usize::from(self.u16()?);
        let from = self.at;
        self.skip(length)?;
        let data = Reader { message: self.message, at: from, end: self.at };
        Ok(RawRecord { rtype, class, ttl_field, data })
    }

    /// A name, its compression pointers followed (RFC 1035 section 4.1.4).
    fn name(&mut self) -> Result<Name, Stop> {
        let mut builder = NameBuilder::new();
        let mut place = *self;
        let mut pointers = 0;
        // Each pointer must lead to before the piece it ends: no loops, by construction.
        let mut before = self.at;
        loop {
            match place.label()? {
                Label::Octets(octets) => {
                    for &octet in octets {
                        builder.push(octet).map_err(|_| Stop::Bad("name too long"))?;
                    }
                    builder.end_label().map_err(|_| Stop::Bad("empty label"))?;
                }
                Label::Pointer(target) => {
                    if pointers == 0 {
                        self.at = place.at;
                    }
                    pointers += 1;
                    if target >= before || pointers > POINTERS_MAX {
                        return Err(Stop::Bad("compression pointer leads nowhere"));
                    }
                    before = target;
                    place = Self { message: self.message, at: target, end: self.message.len() };
                }
                Label::Root => break,
            }
        }
        if pointers == 0 {
            self.at = place.at;
        }
        builder.finish().map_err(|_| Stop::Bad("name"))
    }

    /// Passes over a name without following its pointer: what is skipped costs its length.
    fn skip_name(&mut self) -> Result<(), Stop> {
        while let Label::Octets(_) = self.label()? {}
        Ok(())
    }

    fn label(&mut self) -> Result<Label<'a>, Stop> {
        let first = self.u8()?;
        match first >> 6 {
            0 if first == 0 => Ok(Label::Root),
            0 => self.take(usize::from(first)).map(Label::Octets),
            3 => Ok(Label::Pointer(usize::from(first & 0x3f) << 8 | usize::from(self.u8()?))),
            // 01 was for extended labels (RFC 6891 section 5, obsolete), 10 was never used.
            _ => Err(Stop::Bad("unknown kind of label")),
        }
    }
}

enum Label<'a> {
    Octets(&'a [u8]),
    Pointer(usize),
    Root,
}

#[cfg(test)]
mod tests;
