//! The messages as they stand on the wire, for prost. Field numbers are for ever: fields
//! are only added, numbers never reused.
//!
//! Nothing is checked here: what comes in goes through the conversions beside this file.

use prost::{Message, Oneof};

#[derive(Clone, PartialEq, Message)]
pub(super) struct Batch {
    #[prost(uint32, tag = "1")]
    pub(super) version: u32,
    #[prost(uint64, tag = "2")]
    pub(super) epoch: u64,
    #[prost(uint64, tag = "3")]
    pub(super) first_seq: u64,
    #[prost(bytes = "vec", repeated, tag = "4")]
    pub(super) events: Vec<Vec<u8>>,
    #[prost(message, optional, tag = "5")]
    pub(super) health: Option<Health>,
    #[prost(sint64, tag = "6")]
    pub(super) sent_ns: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Health {
    #[prost(string, tag = "1")]
    pub(super) version: String,
    #[prost(message, repeated, tag = "2")]
    pub(super) counters: Vec<Counter>,
    #[prost(uint64, tag = "3")]
    pub(super) pending: u64,
    #[prost(uint64, tag = "4")]
    pub(super) ring_bytes: u64,
    #[prost(message, repeated, tag = "5")]
    pub(super) collectors: Vec<Pair>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Counter {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(uint64, tag = "2")]
    pub(super) value: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Pair {
    #[prost(string, tag = "1")]
    pub(super) key: String,
    #[prost(string, tag = "2")]
    pub(super) value: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Event {
    #[prost(sint64, tag = "1")]
    pub(super) time_ns: i64,
    #[prost(oneof = "Body", tags = "2, 3, 4, 5, 6, 7, 8, 9")]
    pub(super) body: Option<Body>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Body {
    #[prost(message, tag = "2")]
    Dns(Dns),
    #[prost(message, tag = "3")]
    Flow(Flow),
    #[prost(message, tag = "4")]
    Firewall(Firewall),
    #[prost(message, tag = "5")]
    Device(Device),
    #[prost(message, tag = "6")]
    Finding(Finding),
    #[prost(message, tag = "7")]
    Gap(Gap),
    #[prost(message, tag = "8")]
    Process(Process),
    #[prost(message, tag = "9")]
    Connection(Connection),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Dns {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) client: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) mac: Vec<u8>,
    #[prost(string, tag = "3")]
    pub(super) name: String,
    #[prost(uint32, tag = "4")]
    pub(super) qtype: u32,
    #[prost(uint32, tag = "5")]
    pub(super) status: u32,
    /// Response code plus one; 0 = not known.
    #[prost(uint32, tag = "6")]
    pub(super) rcode_1: u32,
    #[prost(message, repeated, tag = "7")]
    pub(super) answers: Vec<Answer>,
    #[prost(uint32, optional, tag = "8")]
    pub(super) ttl: Option<u32>,
    #[prost(string, tag = "9")]
    pub(super) upstream: String,
    #[prost(uint32, optional, tag = "10")]
    pub(super) latency_us: Option<u32>,
    #[prost(string, tag = "11")]
    pub(super) blocked_by: String,
    #[prost(string, tag = "12")]
    pub(super) source: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Answer {
    #[prost(oneof = "AnswerData", tags = "1, 2, 3")]
    pub(super) data: Option<AnswerData>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum AnswerData {
    #[prost(bytes, tag = "1")]
    Address(Vec<u8>),
    #[prost(string, tag = "2")]
    Cname(String),
    #[prost(string, tag = "3")]
    Other(String),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Endpoint {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) ip: Vec<u8>,
    #[prost(uint32, tag = "2")]
    pub(super) port: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Flow {
    #[prost(fixed64, tag = "1")]
    pub(super) id: u64,
    /// 0 end, 1 update, 2 start.
    #[prost(uint32, tag = "2")]
    pub(super) phase: u32,
    #[prost(uint32, tag = "3")]
    pub(super) proto: u32,
    #[prost(message, optional, tag = "4")]
    pub(super) src: Option<Endpoint>,
    #[prost(message, optional, tag = "5")]
    pub(super) dst: Option<Endpoint>,
    #[prost(message, optional, tag = "6")]
    pub(super) nat_src: Option<Endpoint>,
    #[prost(message, optional, tag = "7")]
    pub(super) nat_dst: Option<Endpoint>,
    #[prost(sint64, optional, tag = "8")]
    pub(super) start_ns: Option<i64>,
    #[prost(uint64, optional, tag = "9")]
    pub(super) duration_ms: Option<u64>,
    #[prost(message, optional, tag = "10")]
    pub(super) volume: Option<Volume>,
    /// Kernel's number plus one; 0 = none.
    #[prost(uint32, tag = "11")]
    pub(super) tcp_state_1: u32,
    #[prost(bool, tag = "12")]
    pub(super) replied: bool,
    #[prost(bool, tag = "13")]
    pub(super) offloaded: bool,
    #[prost(string, tag = "14")]
    pub(super) iface: String,
    #[prost(bytes = "vec", tag = "15")]
    pub(super) mac: Vec<u8>,
    #[prost(string, tag = "16")]
    pub(super) resolved_name: String,
    #[prost(uint64, tag = "17")]
    pub(super) resolved_age_ms: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Volume {
    #[prost(uint64, tag = "1")]
    pub(super) bytes_out: u64,
    #[prost(uint64, tag = "2")]
    pub(super) bytes_in: u64,
    #[prost(uint64, tag = "3")]
    pub(super) packets_out: u64,
    #[prost(uint64, tag = "4")]
    pub(super) packets_in: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Firewall {
    #[prost(uint32, tag = "1")]
    pub(super) verdict: u32,
    #[prost(string, tag = "2")]
    pub(super) prefix: String,
    #[prost(uint32, tag = "3")]
    pub(super) proto: u32,
    #[prost(message, optional, tag = "4")]
    pub(super) src: Option<Endpoint>,
    #[prost(message, optional, tag = "5")]
    pub(super) dst: Option<Endpoint>,
    #[prost(string, tag = "6")]
    pub(super) in_iface: String,
    #[prost(string, tag = "7")]
    pub(super) out_iface: String,
    #[prost(bytes = "vec", tag = "8")]
    pub(super) mac: Vec<u8>,
    #[prost(uint32, tag = "9")]
    pub(super) bytes: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Device {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) mac: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) ip: Vec<u8>,
    #[prost(string, tag = "3")]
    pub(super) hostname: String,
    #[prost(string, tag = "4")]
    pub(super) iface: String,
    #[prost(uint32, tag = "5")]
    pub(super) source: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Finding {
    #[prost(string, tag = "1")]
    pub(super) rule: String,
    #[prost(string, tag = "2")]
    pub(super) subject: String,
    #[prost(bytes = "vec", tag = "3")]
    pub(super) client: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub(super) mac: Vec<u8>,
    #[prost(double, tag = "5")]
    pub(super) score: f64,
    #[prost(string, tag = "6")]
    pub(super) why: String,
    #[prost(message, repeated, tag = "7")]
    pub(super) evidence: Vec<Pair>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Gap {
    #[prost(string, tag = "1")]
    pub(super) collector: String,
    #[prost(sint64, tag = "2")]
    pub(super) from_ns: i64,
    #[prost(string, tag = "3")]
    pub(super) reason: String,
    #[prost(uint64, optional, tag = "4")]
    pub(super) lost: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Program {
    #[prost(fixed64, tag = "1")]
    pub(super) id: u64,
    #[prost(uint32, tag = "2")]
    pub(super) pid: u32,
    #[prost(string, tag = "3")]
    pub(super) name: String,
    #[prost(string, tag = "4")]
    pub(super) exe: String,
    #[prost(bool, tag = "5")]
    pub(super) deleted: bool,
    #[prost(string, tag = "6")]
    pub(super) sha256: String,
    #[prost(string, repeated, tag = "7")]
    pub(super) argv: Vec<String>,
    #[prost(string, tag = "8")]
    pub(super) user: String,
    #[prost(string, tag = "9")]
    pub(super) signer: String,
    #[prost(string, tag = "10")]
    pub(super) package: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Process {
    /// 0 running, 1 start, 2 exec, 3 exit.
    #[prost(uint32, tag = "1")]
    pub(super) phase: u32,
    #[prost(string, tag = "2")]
    pub(super) os: String,
    #[prost(string, tag = "3")]
    pub(super) host: String,
    #[prost(message, optional, tag = "4")]
    pub(super) program: Option<Program>,
    #[prost(sint64, optional, tag = "5")]
    pub(super) start_ns: Option<i64>,
    #[prost(message, repeated, tag = "6")]
    pub(super) ancestors: Vec<Program>,
    #[prost(string, tag = "7")]
    pub(super) container: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Connection {
    #[prost(fixed64, tag = "1")]
    pub(super) id: u64,
    /// 0 end, 1 update, 2 start.
    #[prost(uint32, tag = "2")]
    pub(super) phase: u32,
    #[prost(fixed64, optional, tag = "3")]
    pub(super) process: Option<u64>,
    #[prost(uint32, tag = "4")]
    pub(super) pid: u32,
    #[prost(string, tag = "5")]
    pub(super) name: String,
    #[prost(uint32, tag = "6")]
    pub(super) proto: u32,
    #[prost(message, optional, tag = "7")]
    pub(super) local: Option<Endpoint>,
    #[prost(message, optional, tag = "8")]
    pub(super) remote: Option<Endpoint>,
    /// 0 out, 1 in, 2 listen.
    #[prost(uint32, tag = "9")]
    pub(super) direction: u32,
    #[prost(sint64, optional, tag = "10")]
    pub(super) start_ns: Option<i64>,
    #[prost(uint64, optional, tag = "11")]
    pub(super) duration_ms: Option<u64>,
    #[prost(message, optional, tag = "12")]
    pub(super) volume: Option<Volume>,
    #[prost(string, tag = "13")]
    pub(super) user: String,
    #[prost(string, tag = "14")]
    pub(super) container: String,
    #[prost(string, tag = "15")]
    pub(super) how: String,
    #[prost(string, tag = "16")]
    pub(super) resolved_name: String,
    #[prost(uint64, tag = "17")]
    pub(super) resolved_age_ms: u64,
}
