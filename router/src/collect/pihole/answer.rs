//! Bodies of the REST interface -> what they say.
//!
//! In: bytes of an answer, at most [`BODY_BYTES_MAX`]. Out: a session, a page of log lines,
//! a page of queries, or the words of an error. Pure; any bytes give a result.
//!
//! Source: the OpenAPI description that Pi-hole v6 ships (`auth.yaml`, `logs.yaml`,
//! `queries.yaml`, `common.yaml`). Invariants: unknown keys are passed over; an element of
//! the wrong shape is counted and passed over, and loses nothing but itself; of a list at
//! most a named number of elements is kept.

use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::time::Duration;

use agentmon_core::Event;
use agentmon_core::event::{
    Body, Device, DeviceSource, Dns, Mac, TEXT_BYTES_MAX, host_name, unmap,
};
use agentmon_core::name::printable;
use agentmon_core::time::Timestamp;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};

use super::codes;
use crate::collect::dnsmasq_log::name_of;

/// Most bytes of an answer: 500 log lines of 260 bytes are 160 KB, escapes included.
pub(super) const BODY_BYTES_MAX: u64 = 2 * 1024 * 1024;
/// Most log lines of one answer; FTL's buffer holds 515.
pub(super) const LINES_MAX: usize = 4_096;
/// Most queries of one answer.
pub(super) const QUERIES_MAX: usize = 1_024;
/// Most devices of one answer; a home has dozens.
pub(super) const DEVICES_MAX: usize = 2_048;
/// Most addresses of one device: IPv6 privacy addresses change daily.
pub(super) const ADDRESSES_MAX: usize = 64;
/// Longest name of an interface kept; the kernel's have 15 bytes.
const IFACE_BYTES_MAX: usize = 32;
/// Longest session id taken: FTL's are 24 characters.
const SID_BYTES_MAX: usize = 128;
/// Longest latency believed: a clock that jumped makes hundreds of seconds.
const LATENCY_MAX: Duration = Duration::from_secs(60);

/// What `/api/auth` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Session {
    /// Whether one may go on.
    pub(super) valid: bool,
    /// What to show from now on; `None` where no password is set.
    pub(super) sid: Option<String>,
    /// A second factor is wanted.
    pub(super) totp: bool,
}

/// A page of `/api/logs/dnsmasq`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct LogPage {
    /// Lines, oldest first.
    pub(super) lines: Vec<LogLine>,
    /// The number the next line will have.
    pub(super) next_id: u64,
    /// FTL's process; older versions do not say.
    pub(super) pid: Option<u64>,
    /// Elements that could not be read: they have numbers too.
    pub(super) bad: usize,
}

/// One line of the log.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct LogLine {
    /// When it was written, by the Pi-hole's clock.
    pub(super) time: Option<Timestamp>,
    /// The message, without a prefix; empty for an element that could not be read.
    pub(super) message: String,
}

/// A page of `/api/queries`, newest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct QueryPage {
    /// What could be read.
    pub(super) records: Vec<Record>,
    /// How many there were, readable or not.
    pub(super) seen: usize,
    /// The smallest number among them.
    pub(super) oldest_id: Option<u64>,
}

/// One query of the long-term database.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Record {
    /// When it came in.
    pub(super) time: Timestamp,
    /// What is known; of the answer only its kind.
    pub(super) dns: Dns,
}

/// At most `N` elements; those of another shape are `None`.
struct Bounded<T, const N: usize> {
    items: Vec<Option<T>>,
    more: usize,
}

impl<T, const N: usize> Default for Bounded<T, N> {
    fn default() -> Self {
        Self { items: Vec::new(), more: 0 }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Lenient<T> {
    Is(T),
    IsNot(IgnoredAny),
}

impl<T> Lenient<T> {
    fn get(self) -> Option<T> {
        match self {
            Self::Is(value) => Some(value),
            Self::IsNot(_) => None,
        }
    }
}

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for Bounded<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List<T, const N: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for List<T, N> {
            type Value = Bounded<T, N>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut list = Bounded::default();
                while list.items.len() < N {
                    let Some(item) = seq.next_element::<Lenient<T>>()? else { return Ok(list) };
                    list.items.push(item.get());
                }
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    list.more += 1;
                }
                Ok(list)
            }
        }
        deserializer.deserialize_seq(List(PhantomData))
    }
}

/// A value of another type than expected is as good as none.
fn lenient<'de, D: Deserializer<'de>, T: Deserialize<'de>>(d: D) -> Result<Option<T>, D::Error> {
    Ok(Lenient::deserialize(d)?.get())
}

/// Reads `/api/auth`.
pub(super) fn session(body: &[u8]) -> Result<Session, String> {
    #[derive(Deserialize)]
    struct Envelope {
        session: Inner,
    }
    #[derive(Deserialize)]
    struct Inner {
        #[serde(default)]
        valid: bool,
        #[serde(default, deserialize_with = "lenient")]
        sid: Option<String>,
        #[serde(default, deserialize_with = "lenient")]
        totp: Option<bool>,
    }
    let Envelope { session } = json(body)?;
    let sid = session.sid.filter(|sid| !sid.is_empty());
    if let Some(sid) = &sid
        && (sid.len() > SID_BYTES_MAX || !sid.bytes().all(|b| b.is_ascii_graphic()))
    {
        return Err("a session id that is none".to_owned());
    }
    Ok(Session { valid: session.valid, sid, totp: session.totp.unwrap_or(false) })
}

/// Reads `/api/logs/dnsmasq`.
pub(super) fn log_page(body: &[u8]) -> Result<LogPage, String> {
    #[derive(Deserialize)]
    struct Envelope {
        log: Bounded<Element, LINES_MAX>,
        #[serde(rename = "nextID")]
        next_id: u64,
        #[serde(default, deserialize_with = "lenient")]
        pid: Option<u64>,
    }
    #[derive(Deserialize)]
    struct Element {
        #[serde(default, deserialize_with = "lenient")]
        timestamp: Option<f64>,
        message: String,
    }
    let page: Envelope = json(body)?;
    let bad = page.log.items.iter().filter(|item| item.is_none()).count() + page.log.more;
    let line = |element: Element| LogLine {
        time: element.timestamp.and_then(time_of),
        message: element.message,
    };
    // A line that cannot be read still has a number.
    let lines = page.log.items.into_iter().map(|item| item.map(line).unwrap_or_default());
    Ok(LogPage { lines: lines.collect(), next_id: page.next_id, pid: page.pid, bad })
}

/// Reads `/api/queries`; `source` is what the records are marked with.
pub(super) fn query_page(body: &[u8], source: &str) -> Result<QueryPage, String> {
    #[derive(Deserialize)]
    struct Envelope {
        queries: Bounded<Query, QUERIES_MAX>,
    }
    let page: Envelope = json(body)?;
    let seen = page.queries.items.len() + page.queries.more;
    let mut found = QueryPage { seen, ..QueryPage::default() };
    for query in page.queries.items.into_iter().flatten() {
        found.oldest_id = Some(found.oldest_id.map_or(query.id, |id| id.min(query.id)));
        found.records.extend(query.record(source));
    }
    Ok(found)
}

#[derive(Deserialize)]
struct Query {
    id: u64,
    time: f64,
    #[serde(default, deserialize_with = "lenient", rename = "type")]
    kind: Option<String>,
    domain: String,
    client: Client,
    #[serde(default, deserialize_with = "lenient")]
    status: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    reply: Option<Reply>,
    #[serde(default, deserialize_with = "lenient")]
    upstream: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    cname: Option<String>,
}

#[derive(Deserialize)]
struct Client {
    ip: String,
}

#[derive(Deserialize)]
struct Reply {
    #[serde(default, deserialize_with = "lenient", rename = "type")]
    kind: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    time: Option<f64>,
}

impl Query {
    fn record(self, source: &str) -> Option<Record> {
        let client: IpAddr = self.client.ip.parse().ok()?;
        let time = time_of(self.time)?;
        let fate = self.status.as_deref().and_then(codes::fate_of_word).unwrap_or_default();
        let reply = self.reply.as_ref();
        let rcode = reply.and_then(|r| codes::rcode_of_word(r.kind.as_deref()?));
        let by = |by: &str| match &self.cname {
            Some(cname) => printable(format!("{by} {cname}").as_bytes(), TEXT_BYTES_MAX),
            None => by.to_owned(),
        };
        let dns = Dns {
            client: unmap(client),
            mac: None,
            name: name_of(self.domain.as_bytes()).0,
            qtype: codes::qtype_of_word(self.kind.as_deref().unwrap_or_default()),
            status: fate.status,
            rcode: rcode.filter(|_| fate.blocked_by.is_none()),
            answers: Vec::new(),
            ttl: None,
            upstream: self.upstream.as_deref().map(|to| printable(to.as_bytes(), TEXT_BYTES_MAX)),
            latency_us: reply.and_then(|r| r.time).and_then(latency_us),
            blocked_by: fate.blocked_by.map(by),
            source: source.to_owned(),
        };
        Some(Record { time, dns })
    }
}

/// Reads `/api/network/devices`: an event for each address of a device with a MAC, dated when
/// it was last seen there; and how many elements could not be read.
pub(super) fn devices(body: &[u8]) -> Result<(Vec<Event>, usize), String> {
    #[derive(Deserialize)]
    struct Envelope {
        devices: Bounded<Known, DEVICES_MAX>,
    }
    let Envelope { devices } = json(body)?;
    let (mut events, mut bad) = (Vec::new(), devices.more);
    for known in devices.items {
        let Some(known) = known else {
            bad += 1;
            continue;
        };
        // `ip-192.0.2.7` where the Pi-hole does not know the MAC.
        let Ok(mac) = known.hwaddr.parse::<Mac>() else { continue };
        let iface = known.interface.map(|name| printable(name.as_bytes(), IFACE_BYTES_MAX));
        let iface = iface.filter(|name| !name.is_empty());
        bad += known.ips.more;
        for address in known.ips.items {
            match address.and_then(|address| address.event(mac, iface.as_deref())) {
                Some(event) => events.push(event),
                None => bad += 1,
            }
        }
    }
    Ok((events, bad))
}

#[derive(Deserialize)]
struct Known {
    hwaddr: String,
    #[serde(default, deserialize_with = "lenient")]
    interface: Option<String>,
    ips: Bounded<Address, ADDRESSES_MAX>,
}

#[derive(Deserialize)]
struct Address {
    ip: IpAddr,
    #[serde(default, deserialize_with = "lenient")]
    name: Option<String>,
    #[serde(rename = "lastSeen")]
    last_seen: f64,
}

impl Address {
    fn event(self, mac: Mac, iface: Option<&str>) -> Option<Event> {
        let time = time_of(self.last_seen)?;
        let hostname = self.name.and_then(|name| host_name(name.as_bytes()));
        let (ip, iface) = (unmap(self.ip), iface.map(str::to_owned));
        let device = Device { mac, ip, hostname, iface, source: DeviceSource::Pihole };
        Some(Event { time, body: Body::Device(device) })
    }
}

/// The words of an error body: `{"error":{"key":...,"message":...,"hint":...}}`.
pub(super) fn error_words(body: &[u8]) -> Option<(String, String)> {
    #[derive(Deserialize)]
    struct Envelope {
        error: Inner,
    }
    #[derive(Deserialize)]
    struct Inner {
        #[serde(default)]
        key: String,
        #[serde(default)]
        message: String,
        #[serde(default, deserialize_with = "lenient")]
        hint: Option<String>,
    }
    let Envelope { error } = serde_json::from_slice(body).ok()?;
    let hint = error.hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
    let words = printable(format!("{}{hint}", error.message).as_bytes(), 200);
    Some((printable(error.key.as_bytes(), 64), words))
}

fn json<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| {
        let head = body.trim_ascii_start();
        if head.starts_with(b"<") {
            "a web page and no JSON".to_owned()
        } else {
            printable(format!("not the JSON expected ({error})").as_bytes(), 200)
        }
    })
}

/// Seconds since 1970 with a fraction; microseconds, since a double holds no more.
pub(super) fn time_of(seconds: f64) -> Option<Timestamp> {
    let sane = seconds.is_finite() && (0.0..1e10).contains(&seconds);
    sane.then(|| Timestamp::from_micros((seconds * 1e6).round() as i64))
}

/// `reply.time` is in seconds as FTL writes it, whatever its description says: the column
/// `reply_time` as it stands.
fn latency_us(seconds: f64) -> Option<u32> {
    let believed = seconds.is_finite() && seconds > 0.0 && seconds <= LATENCY_MAX.as_secs_f64();
    believed.then_some((seconds * 1e6) as u32)
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
