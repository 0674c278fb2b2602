//! What was seen: the normalised records every collector produces and everything behind
//! it consumes.
//!
//! Wall time is stamped once, by the collector. Texts are printable ASCII (see
//! [`crate::name`]); addresses are plain IPv4 or IPv6 (IPv4-mapped addresses are turned
//! into IPv4 at the border by [`unmap`]).

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::finding::Finding;
use crate::name::Name;
use crate::time::Timestamp;

/// Longest free text field (interface, host name, prefix, upstream) in bytes.
pub const TEXT_BYTES_MAX: usize = 255;
/// Most answers kept of one DNS exchange; a response holds rarely more than 16.
pub const ANSWERS_MAX: usize = 32;

/// One observation.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// When it was seen (wall time of the collector, or the log line's own time).
    pub time: Timestamp,
    /// What was seen.
    pub body: Body,
}

/// The kinds of observation.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// A DNS exchange: query, status, answers.
    Dns(Dns),
    /// A connection, as the kernel's connection tracking sees it.
    Flow(Flow),
    /// A packet that the firewall rejected or dropped.
    Firewall(Firewall),
    /// A device showed itself: a lease or a neighbour entry.
    Device(Device),
    /// A tier-0 detector's opinion, made next to the collector.
    Finding(Finding),
    /// Something was not seen: the time span and the reason.
    Gap(Gap),
}

impl Body {
    /// The word used in counters, logs and `tail`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Dns(_) => "dns",
            Self::Flow(_) => "flow",
            Self::Firewall(_) => "firewall",
            Self::Device(_) => "device",
            Self::Finding(_) => "finding",
            Self::Gap(_) => "gap",
        }
    }
}

/// A link-layer address (IEEE 802 EUI-48).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// True for addresses a device made up itself (IEEE 802 "locally administered" bit):
    /// phones randomise theirs per network.
    #[must_use]
    pub const fn is_local(self) -> bool {
        self.0[0] & 2 != 0
    }
    /// True for broadcast and multicast, which name no device.
    #[must_use]
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }
}
/// Lower case with colons: `00:00:5e:00:53:01`.
impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}
impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
/// The text is no MAC address of six hexadecimal octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a MAC address (want six hexadecimal octets, as 00:00:5e:00:53:01)")]
pub struct MacError;

impl std::str::FromStr for Mac {
    type Err = MacError;
    fn from_str(s: &str) -> Result<Self, MacError> {
        let mut octets = [0u8; 6];
        let mut parts = s.split([':', '-']);
        for octet in &mut octets {
            let part = parts.next().ok_or(MacError)?;
            if part.is_empty() || part.len() > 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(MacError);
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| MacError)?;
        }
        if parts.next().is_some() { Err(MacError) } else { Ok(Self(octets)) }
    }
}
impl Serialize for Mac {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// How a DNS exchange ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DnsStatus {
    /// Seen a query, no word on its fate.
    #[default]
    Unknown,
    /// Answered by an upstream server.
    Forwarded,
    /// Answered from the cache (stale answers included).
    Cached,
    /// Answered from local data: hosts file, DHCP, configuration.
    Local,
    /// Refused by the resolver's block list, rule or upstream filter.
    Blocked,
    /// No answer within the collector's patience.
    Timeout,
}

impl DnsStatus {
    /// The word stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Forwarded => "forwarded",
            Self::Cached => "cached",
            Self::Local => "local",
            Self::Blocked => "blocked",
            Self::Timeout => "timeout",
        }
    }
}

/// One thing a DNS answer said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// A or AAAA.
    Address(IpAddr),
    /// The next name of a CNAME chain.
    Cname(Name),
    /// Any other record as printable text, at most [`TEXT_BYTES_MAX`] bytes.
    Other(String),
}

/// One DNS exchange: what a client asked and what it was told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dns {
    /// Who asked.
    pub client: IpAddr,
    /// The client's MAC where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// What was asked for.
    pub name: Name,
    /// Record type number (RFC 1035 section 3.2.2 and IANA's registry); 1 = A, 28 = AAAA.
    pub qtype: u16,
    /// How it ended.
    #[serde(default)]
    pub status: DnsStatus,
    /// Response code (RFC 1035 section 4.1.1, RFC 6895): 0 NOERROR, 3 NXDOMAIN. `None`: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rcode: Option<u16>,
    /// At most [`ANSWERS_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<Answer>,
    /// Smallest time to live of the address answers in seconds, where seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u32>,
    /// The server that answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// Query to answer in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_us: Option<u32>,
    /// Which list or rule blocked it, where the resolver says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked_by: Option<String>,
    /// Collector that saw it: `dnsmasq-log`, `passive-dns`, `replay`.
    pub source: String,
}

impl Dns {
    /// Refused by the resolver: it says so, or every address it gave leads nowhere
    /// (`0.0.0.0`, `::`), as seen from outside.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        let mut addresses = self.addresses().peekable();
        let sunk = addresses.peek().is_some() && addresses.all(|ip| ip.is_unspecified());
        sunk || self.status == DnsStatus::Blocked
    }

    /// The addresses among the answers.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.answers.iter().filter_map(|a| match a {
            Answer::Address(ip) => Some(*ip),
            _ => None,
        })
    }
}

/// Where in its life a flow record was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FlowPhase {
    /// Just begun: no counters yet. Seen by tier-0; not forwarded.
    Start,
    /// Still open: counters so far. Replaces an earlier record of the same flow.
    Update,
    /// Over: final counters.
    #[default]
    End,
}

/// TCP states of the kernel (`enum tcp_conntrack` in
/// `include/uapi/linux/netfilter/nf_conntrack_tcp.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs, reason = "the names are the kernel's own")]
pub enum TcpState {
    None = 0,
    SynSent = 1,
    SynRecv = 2,
    Established = 3,
    FinWait = 4,
    CloseWait = 5,
    LastAck = 6,
    TimeWait = 7,
    Close = 8,
    SynSent2 = 9,
}

impl TcpState {
    const ALL: [Self; 10] = [
        Self::None,
        Self::SynSent,
        Self::SynRecv,
        Self::Established,
        Self::FinWait,
        Self::CloseWait,
        Self::LastAck,
        Self::TimeWait,
        Self::Close,
        Self::SynSent2,
    ];
    /// From the kernel's number.
    #[must_use]
    pub fn from_kernel(n: u8) -> Option<Self> {
        Self::ALL.get(usize::from(n)).copied()
    }
    /// The kernel's name, as `conntrack -L` prints it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::SynSent => "SYN_SENT",
            Self::SynRecv => "SYN_RECV",
            Self::Established => "ESTABLISHED",
            Self::FinWait => "FIN_WAIT",
            Self::CloseWait => "CLOSE_WAIT",
            Self::LastAck => "LAST_ACK",
            Self::TimeWait => "TIME_WAIT",
            Self::Close => "CLOSE",
            Self::SynSent2 => "SYN_SENT2",
        }
    }
}

/// Address and port; for ICMP the port is 0 on the source and `type << 8 | code` on the
/// destination side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Endpoint {
    /// IPv4 or IPv6.
    pub ip: IpAddr,
    /// Port in host order.
    pub port: u16,
}

impl Endpoint {
    /// Shorthand.
    #[must_use]
    pub const fn new(ip: IpAddr, port: u16) -> Self {
        Self { ip, port }
    }
}
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::net::SocketAddr::new(self.ip, self.port).fmt(f)
    }
}

/// What passed in one direction or both. Bytes are IP bytes, headers included, as the
/// kernel counts them (`CTA_COUNTERS_*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Originator to responder.
    pub bytes_out: u64,
    /// Responder to originator.
    pub bytes_in: u64,
    /// Originator to responder.
    pub packets_out: u64,
    /// Responder to originator.
    pub packets_in: u64,
}

impl Volume {
    /// Both directions.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes_out.saturating_add(self.bytes_in)
    }
}

/// The name by which a client had resolved an address, and how long before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// The name the client had asked for (not the end of a CNAME chain).
    pub name: Name,
    /// Answer to connection in milliseconds.
    pub age_ms: u64,
}

/// The normalised flow record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flow {
    /// Names the flow among all flows of this sensor: made of the kernel's id, the
    /// original tuple and the start. The same in every record of one flow.
    pub id: u64,
    /// Start, update or end.
    #[serde(default)]
    pub phase: FlowPhase,
    /// IP protocol number: 6 TCP, 17 UDP, 1 ICMP, 58 ICMPv6.
    pub proto: u8,
    /// Originator, before any NAT.
    pub src: Endpoint,
    /// Destination the originator meant, before any NAT.
    pub dst: Endpoint,
    /// The originator's address as the responder sees it, where source NAT changed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nat_src: Option<Endpoint>,
    /// The real responder, where destination NAT changed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nat_dst: Option<Endpoint>,
    /// First packet; `None` where the flow is older than the sensor's knowledge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Timestamp>,
    /// First to last packet in milliseconds, as well as it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// `None` where the kernel does not count (`nf_conntrack_acct` off) or not yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<Volume>,
    /// Last known state; TCP only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_state: Option<TcpState>,
    /// The responder has answered (`IPS_SEEN_REPLY`).
    #[serde(default)]
    pub replied: bool,
    /// Forwarded past the CPU, so that counters may stand still (`IPS_OFFLOAD`, `IPS_HW_OFFLOAD`).
    #[serde(default)]
    pub offloaded: bool,
    /// Interface on the originator's side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iface: Option<String>,
    /// The originator's MAC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// How the originator came to the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved: Option<Resolved>,
}

/// What the firewall did with a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Logged; nothing says that it was stopped.
    #[default]
    Logged,
    /// Silently discarded.
    Drop,
    /// Discarded with a reply.
    Reject,
}

impl Verdict {
    /// The word stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Logged => "logged",
            Self::Drop => "drop",
            Self::Reject => "reject",
        }
    }
}

/// A packet the firewall stopped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Firewall {
    /// What happened to it.
    #[serde(default)]
    pub verdict: Verdict,
    /// The rule's log prefix, printable.
    #[serde(default)]
    pub prefix: String,
    /// IP protocol number.
    pub proto: u8,
    /// Sender.
    pub src: Endpoint,
    /// Receiver.
    pub dst: Endpoint,
    /// Interface it came in by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_iface: Option<String>,
    /// Interface it would have left by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out_iface: Option<String>,
    /// Sender's MAC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// IP bytes of the packet, where known.
    #[serde(default)]
    pub bytes: u32,
}

/// How a device was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceSource {
    /// A DHCP lease.
    Lease,
    /// The kernel's neighbour table (ARP, NDP).
    #[default]
    Neighbour,
}

impl DeviceSource {
    /// The word stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lease => "lease",
            Self::Neighbour => "neighbour",
        }
    }
}

/// A device showed itself at an address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Device {
    /// Its link-layer address.
    pub mac: Mac,
    /// The address it has now.
    pub ip: IpAddr,
    /// The name it gave, printable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Interface it is behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iface: Option<String>,
    /// Lease or neighbour entry.
    #[serde(default)]
    pub source: DeviceSource,
}

/// A span of time in which a collector may have missed something.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gap {
    /// Which collector.
    pub collector: String,
    /// Begin of the span.
    pub from: Timestamp,
    /// Why: `enobufs`, `log-lost`, `restart`.
    pub reason: String,
    /// How many things were missed, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<u64>,
}

/// `::ffff:192.0.2.1` -> `192.0.2.1`; all else unchanged.
#[must_use]
pub fn unmap(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

/// A globally routable unicast address: not private, loopback, link-local, shared (RFC
/// 6598), documentation, multicast or reserved (IANA special-purpose address registries).
///
/// The documentation ranges (RFC 5737, RFC 3849) count as public on purpose: no real
/// traffic carries them, and laboratories use them as "the internet".
#[must_use]
pub fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            !(v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_broadcast()
                || a == 0
                || a >= 240
                || (a == 100 && (64..128).contains(&b))
                || (a == 192 && b == 0 && c == 0)
                || (a == 198 && (18..20).contains(&b)))
        }
        IpAddr::V6(v6) => {
            let s = v6.segments();
            // Global unicast is 2000::/3; 64:ff9b::/96 is NAT64 to public IPv4 (RFC 6052).
            (s[0] & 0xe000 == 0x2000) || (s[0] == 0x64 && s[1] == 0xff9b)
        }
    }
}

impl Serialize for Timestamp {
    /// Nanoseconds since the Unix epoch.
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_i64(self.nanos())
    }
}
impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        i64::deserialize(d).map(Self::from_nanos)
    }
}

/// NDJSON form, used by the `replay` collector and `tail --json`: one flat object with
/// `time_ns`, `kind` and the record's own fields.
#[derive(Serialize, Deserialize)]
struct Line<B> {
    time_ns: Timestamp,
    #[serde(flatten)]
    body: B,
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum BodyRef<'a> {
    Dns(&'a Dns),
    Flow(&'a Flow),
    Firewall(&'a Firewall),
    Device(&'a Device),
    Finding(&'a Finding),
    Gap(&'a Gap),
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum BodyOwned {
    Dns(Dns),
    Flow(Flow),
    Firewall(Firewall),
    Device(Device),
    Finding(Finding),
    Gap(Gap),
}

impl Serialize for Event {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let body = match &self.body {
            Body::Dns(b) => BodyRef::Dns(b),
            Body::Flow(b) => BodyRef::Flow(b),
            Body::Firewall(b) => BodyRef::Firewall(b),
            Body::Device(b) => BodyRef::Device(b),
            Body::Finding(b) => BodyRef::Finding(b),
            Body::Gap(b) => BodyRef::Gap(b),
        };
        Line { time_ns: self.time, body }.serialize(s)
    }
}
impl<'de> Deserialize<'de> for Event {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let line = Line::<BodyOwned>::deserialize(d)?;
        let body = match line.body {
            BodyOwned::Dns(b) => Body::Dns(b),
            BodyOwned::Flow(b) => Body::Flow(b),
            BodyOwned::Firewall(b) => Body::Firewall(b),
            BodyOwned::Device(b) => Body::Device(b),
            BodyOwned::Finding(b) => Body::Finding(b),
            BodyOwned::Gap(b) => Body::Gap(b),
        };
        Ok(Self { time: line.time_ns, body })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_addresses() {
        for public in ["8.8.8.8", "203.0.113.7", "2001:db8::1", "2a00:1450::1", "64:ff9b::808:808"]
        {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for private in [
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "127.0.0.1",
            "169.254.1.1",
            "100.64.0.1",
            "224.0.0.251",
            "255.255.255.255",
            "0.0.0.0",
            "198.18.0.1",
            "::1",
            "fe80::1",
            "fd00::1",
            "ff02::fb",
            "::ffff:10.0.0.1",
        ] {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
    }

    #[test]
    fn mac_text_round_trips() {
        let mac: Mac = "00-00-5E-00-53-0a".parse().unwrap();
        assert_eq!(mac.to_string(), "00:00:5e:00:53:0a");
        assert!("00:00:5e:00:53".parse::<Mac>().is_err());
        assert!("00:00:5e:00:53:0a:0b".parse::<Mac>().is_err());
        assert!("00:00:5e:00:53:+a".parse::<Mac>().is_err());
    }

    #[test]
    fn ndjson_reads_back() {
        let text = r#"{"time_ns":1795444327000000000,"kind":"dns","client":"192.0.2.9","name":"www.example.com","qtype":1,"source":"replay","answers":[{"address":"203.0.113.9"}]}"#;
        let event: Event = serde_json::from_str(text).unwrap();
        let again: Event = serde_json::from_str(&serde_json::to_string(&event).unwrap()).unwrap();
        assert_eq!(event, again);
    }
}
