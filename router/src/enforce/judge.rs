//! One held packet -> what it is about, and what the lists say of that.
//!
//! In: the first bytes of an IP packet, and the lists. Out: a [`Judgement`]. Pure, no
//! allocation but for what is listed. Runs on the queue's thread. Budget: 5 us.
//!
//! Invariant: only a DNS question for a listed name, read to its end, or a packet to a
//! listed address is ever said to be listed; everything unclear goes on.

use agentmon_core::Name;
use agentmon_core::dns_wire;
use agentmon_core::event::Endpoint;
use agentmon_core::service::{has_ports, proto};

use super::gate::InForce;
use crate::packet::{self, Packet, Transport};

const DNS: u16 = 53;
/// DNS over TLS and over QUIC (RFC 7858, RFC 9250).
const DNS_OVER_TLS: u16 = 853;

/// What is known about a packet.
#[derive(Clone, Debug, PartialEq)]
pub enum Judgement {
    /// Nothing speaks against it.
    Pass,
    /// It could not be judged.
    Unjudged(Unjudged),
    /// It is about something listed.
    Listed(Box<Listed>),
}

/// Why a packet went on without having been judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unjudged {
    /// It could not be read.
    Unreadable,
    /// It begins a connection for DNS over TCP: the questions come in later packets.
    OverTcp,
    /// It begins DNS over TLS or QUIC: nobody can read the questions.
    Encrypted,
    /// It came from somebody who is none of our clients.
    Stranger,
}

impl Unjudged {
    /// All, for the counters.
    pub const ALL: [Self; 4] = [Self::Unreadable, Self::OverTcp, Self::Encrypted, Self::Stranger];

    /// The word of the counters.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::OverTcp => "dns_over_tcp",
            Self::Encrypted => "dns_encrypted",
            Self::Stranger => "strangers",
        }
    }
}

/// A packet that a list speaks against.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// Who sent it.
    pub client: Endpoint,
    /// Where it was going.
    pub to: Endpoint,
    /// IP protocol number.
    pub proto: u8,
    /// IP bytes.
    pub bytes: u32,
    /// The question, where that is what is listed; else the address is.
    pub question: Option<Question>,
    /// The list that has it.
    pub list: String,
    /// What stands there.
    pub entry: String,
}

/// A DNS question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Whose records.
    pub name: Name,
    /// Which.
    pub qtype: u16,
}

/// Judges a packet by its question, and with `by_place` by its address as well.
#[must_use]
pub fn judge(bytes: &[u8], lists: &InForce, by_place: bool) -> Judgement {
    let Ok(packet) = packet::parse(bytes) else {
        return Judgement::Unjudged(Unjudged::Unreadable);
    };
    if !lists.is_client(packet.src.ip) {
        return Judgement::Unjudged(Unjudged::Stranger);
    }
    let named = match question(&packet) {
        Ok(question) => question.and_then(|question| by_name(&packet, question, lists)),
        // Its address may be listed all the same.
        Err(why) => Some(Judgement::Unjudged(why)).filter(|_| !by_place),
    };
    let placed = || if by_place { by_address(&packet, lists) } else { None };
    named.or_else(placed).unwrap_or(Judgement::Pass)
}

/// The question a packet puts, if it puts one.
fn question(packet: &Packet<'_>) -> Result<Option<Question>, Unjudged> {
    match (packet.transport, packet.dst.port, packet.proto) {
        (Transport::Udp { data }, DNS, _) => {
            let message = dns_wire::decode(data).map_err(|_| Unjudged::Unreadable)?;
            if message.response {
                return Ok(None);
            }
            let question = message.question.ok_or(Unjudged::Unreadable)?;
            Ok(Some(Question { name: question.name, qtype: question.qtype }))
        }
        (_, DNS, proto::TCP) => Err(Unjudged::OverTcp),
        (_, DNS_OVER_TLS, proto::TCP | proto::UDP) => Err(Unjudged::Encrypted),
        // A datagram cut before its payload, or a later fragment: no port is known.
        (Transport::Other, 0 | DNS, proto::UDP) => Err(Unjudged::Unreadable),
        _ => Ok(None),
    }
}

fn by_name(packet: &Packet<'_>, question: Question, lists: &InForce) -> Option<Judgement> {
    let hit = lists.name(&question.name)?;
    Some(listed(packet, Some(question), hit))
}

fn by_address(packet: &Packet<'_>, lists: &InForce) -> Option<Judgement> {
    let port = has_ports(packet.proto).then_some(packet.dst.port);
    Some(listed(packet, None, lists.address(packet.dst.ip, port)?))
}

fn listed(
    packet: &Packet<'_>,
    question: Option<Question>,
    (list, entry): (String, String),
) -> Judgement {
    let (client, to, proto, bytes) = (packet.src, packet.dst, packet.proto, packet.length);
    Judgement::Listed(Box::new(Listed { client, to, proto, bytes, question, list, entry }))
}
