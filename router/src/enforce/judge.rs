//! One held packet -> whether it may go on.
//!
//! In: the first bytes of an IP packet and the block lists. Out: a [`Judgement`]. Pure, no
//! allocation beyond the name. Runs on the queue's thread. Budget: 5 us.
//!
//! Invariant: only a DNS question for a listed name, read to its end, is ever stopped;
//! everything unclear goes on.

use agentmon_core::Name;
use agentmon_core::dns_wire;
use agentmon_core::event::{Body, Dns, DnsStatus, Endpoint, Event};
use agentmon_core::tier0::blocklist::Blocklist;
use agentmon_core::time::Timestamp;

use crate::packet::{self, Transport};

const PORT: u16 = 53;
/// What records of stopped questions say of their origin.
pub const SOURCE: &str = "enforce";

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq)]
pub enum Judgement {
    /// It goes on.
    Pass,
    /// It goes on because it could not be read.
    Unreadable,
    /// It is dropped.
    Stop(Stopped),
}

/// A question that is not put.
#[derive(Clone, Debug, PartialEq)]
pub struct Stopped {
    /// Who asks.
    pub client: Endpoint,
    /// For what.
    pub name: Name,
    /// For which records.
    pub qtype: u16,
    /// The list that has it.
    pub list: String,
}

/// Judges a packet: stopped is a question whose name, or a parent of it, stands on a list
/// with a score of at least `score_min`.
#[must_use]
pub fn judge(bytes: &[u8], lists: &Blocklist, score_min: f64) -> Judgement {
    let Ok(packet) = packet::parse(bytes) else { return Judgement::Unreadable };
    let Transport::Udp { data } = packet.transport else { return Judgement::Unreadable };
    if packet.dst.port != PORT {
        return Judgement::Pass;
    }
    let Ok(message) = dns_wire::decode(data) else { return Judgement::Unreadable };
    if message.response {
        return Judgement::Pass;
    }
    let Some(question) = message.question else { return Judgement::Unreadable };
    let list = match lists.lookup(&question.name) {
        Some(hit) if hit.score >= score_min => hit.list.to_owned(),
        _ => return Judgement::Pass,
    };
    let (name, qtype) = (question.name, question.qtype);
    Judgement::Stop(Stopped { client: packet.src, name, qtype, list })
}

impl Stopped {
    /// The record of it: a question that was blocked, by agentmon.
    #[must_use]
    pub fn event(self, time: Timestamp) -> Event {
        let dns = Dns {
            client: self.client.ip,
            mac: None,
            name: self.name,
            qtype: self.qtype,
            status: DnsStatus::Blocked,
            rcode: None,
            answers: Vec::new(),
            ttl: None,
            upstream: None,
            latency_us: None,
            blocked_by: Some(format!("agentmon: {}", self.list)),
            source: SOURCE.to_owned(),
        };
        Event { time, body: Body::Dns(dns) }
    }
}
