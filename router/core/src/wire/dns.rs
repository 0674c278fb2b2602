//! DNS exchanges to the wire and back.

use super::field::{clean, ip_bytes, mac_bytes, some_text, text, to_ip, to_mac, to_name, to_u16};
use super::{WireError, pb};
use crate::event::{ANSWERS_MAX, Answer, Dns, DnsStatus, TEXT_BYTES_MAX};

impl From<&Dns> for pb::Dns {
    fn from(d: &Dns) -> Self {
        let answers = d.answers.iter().take(ANSWERS_MAX).map(|a| pb::Answer {
            data: Some(match a {
                Answer::Address(ip) => pb::AnswerData::Address(ip_bytes(*ip)),
                Answer::Cname(name) => pb::AnswerData::Cname(name.as_str().to_owned()),
                Answer::Other(text) => pb::AnswerData::Other(text.clone()),
            }),
        });
        Self {
            client: ip_bytes(d.client),
            mac: mac_bytes(d.mac),
            name: d.name.as_str().to_owned(),
            qtype: u32::from(d.qtype),
            status: d.status as u32,
            rcode_1: d.rcode.map_or(0, |r| u32::from(r) + 1),
            answers: answers.collect(),
            ttl: d.ttl,
            upstream: text(d.upstream.as_ref()),
            latency_us: d.latency_us,
            blocked_by: text(d.blocked_by.as_ref()),
            source: d.source.clone(),
        }
    }
}

impl TryFrom<pb::Dns> for Dns {
    type Error = WireError;
    fn try_from(d: pb::Dns) -> Result<Self, WireError> {
        let mut answers = Vec::with_capacity(d.answers.len().min(ANSWERS_MAX));
        for answer in d.answers.into_iter().take(ANSWERS_MAX) {
            answers.push(match answer.data {
                Some(pb::AnswerData::Address(ip)) => Answer::Address(to_ip(&ip, "answer")?),
                Some(pb::AnswerData::Cname(name)) => Answer::Cname(to_name(&name, "answer")?),
                Some(pb::AnswerData::Other(text)) => Answer::Other(clean(text, TEXT_BYTES_MAX)),
                None => continue,
            });
        }
        Ok(Self {
            client: to_ip(&d.client, "client")?,
            mac: to_mac(&d.mac)?,
            name: to_name(&d.name, "name")?,
            qtype: to_u16(d.qtype, "qtype")?,
            status: match d.status {
                1 => DnsStatus::Forwarded,
                2 => DnsStatus::Cached,
                3 => DnsStatus::Local,
                4 => DnsStatus::Blocked,
                5 => DnsStatus::Timeout,
                _ => DnsStatus::Unknown,
            },
            rcode: match d.rcode_1 {
                0 => None,
                n => Some(to_u16(n - 1, "rcode")?),
            },
            answers,
            ttl: d.ttl,
            upstream: some_text(d.upstream),
            latency_us: d.latency_us,
            blocked_by: some_text(d.blocked_by),
            source: clean(d.source, TEXT_BYTES_MAX),
        })
    }
}
