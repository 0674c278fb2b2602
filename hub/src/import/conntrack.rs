//! History of connections from text: what `conntrack -E` printed while they happened, or one
//! look at the kernel's table (`conntrack -L`, `/proc/net/nf_conntrack`).
//!
//! In: lines, plain or gzip. Out: wire batches of flows, as for a log ([`super`]). Memory: one
//! batch, and the begins of connections whose end has not come, at most [`BEGUN_MAX`].
//!
//! Of events, an end is a flow; a begin only tells when it started. Of a table, each line is
//! a flow that goes on. Lines carry no time unless `conntrack -o timestamp` was asked for it;
//! then the file's own time is taken. Formats: conntrack-tools' `conntrack(8)`, libnetfilter_
//! conntrack's default output, the kernel's `net/netfilter/nf_conntrack_standalone.c`.
//!
//! Exactly once: a stream is named after the first line (and, of a table, the length of the
//! file), the sequence number is the line's.

use std::collections::HashMap;
use std::io::BufRead;
use std::net::IpAddr;

use agentmon_core::event::{Body, Endpoint, Flow, FlowPhase, TcpState, Volume};
use agentmon_core::{Event, Timestamp};
use anyhow::Context as _;

use super::{Line, Send, Span, Stream, epoch, next_line};

/// Most begins remembered: a full table of a large router.
const BEGUN_MAX: usize = 262_144;
/// What the kernel says of a connection that was answered, or not.
const UNREPLIED: &str = "[UNREPLIED]";

/// What an import did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Lines read.
    pub lines: u64,
    /// Lines that were not understood, or too long.
    pub unknown: u64,
    /// Lines without a time of their own.
    pub timeless: u64,
    /// Connections that had begun and not ended: left for the next import.
    pub open: u64,
    /// Events outside the wanted times.
    pub passed: u64,
    /// Flows read.
    pub flows: u64,
    /// Flows the store did not have.
    pub new_events: u64,
}

/// What a line tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    New,
    Update,
    Destroy,
    /// No event: a line of the table.
    Listed,
}

/// One direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Tuple {
    src: Option<IpAddr>,
    dst: Option<IpAddr>,
    sport: u16,
    dport: u16,
    packets: Option<u64>,
    bytes: Option<u64>,
}

/// A line, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    kind: Kind,
    time: Option<Timestamp>,
    proto: u8,
    state: Option<TcpState>,
    original: Tuple,
    reply: Tuple,
    replied: bool,
    offloaded: bool,
    /// `delta-time`: seconds from first to last packet.
    seconds: Option<u64>,
    /// The kernel's own, with `-o id`.
    id: Option<u64>,
}

/// Takes a line apart; `None` where it is no line of conntrack.
fn parse(line: &[u8]) -> Option<Record> {
    let text = std::str::from_utf8(line).ok()?;
    let mut words = text.split_ascii_whitespace().peekable();
    let time = words.peek().and_then(|w| timestamp(w));
    if time.is_some() {
        words.next();
    }
    let kind = match *words.peek()? {
        "[NEW]" => Kind::New,
        "[UPDATE]" => Kind::Update,
        "[DESTROY]" => Kind::Destroy,
        _ => Kind::Listed,
    };
    if kind != Kind::Listed {
        words.next();
    }
    // "ipv4 2" comes before "tcp 6" with -o extended, and in /proc.
    let mut word = words.next()?;
    let mut number: u8 = words.next()?.parse().ok()?;
    if matches!(word, "ipv4" | "ipv6") {
        word = words.next()?;
        number = words.next()?.parse().ok()?;
    }
    if !word.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')) {
        return None;
    }
    let mut record = Record {
        kind,
        time,
        proto: number,
        state: None,
        original: Tuple::default(),
        reply: Tuple::default(),
        replied: true,
        offloaded: false,
        seconds: None,
        id: None,
    };
    for word in words {
        take(&mut record, word);
    }
    let complete = |t: &Tuple| t.src.is_some() && t.dst.is_some();
    (complete(&record.original) && complete(&record.reply)).then_some(record)
}

/// `[1700000000.123456]`
fn timestamp(word: &str) -> Option<Timestamp> {
    let (seconds, micros) = word.strip_prefix('[')?.strip_suffix(']')?.split_once('.')?;
    let micros: i64 = format!("{micros:0<6}").parse().ok().filter(|n| *n < 1_000_000)?;
    let seconds: i64 = seconds.parse().ok().filter(|n| (0..1 << 40).contains(n))?;
    Some(Timestamp::from_micros(seconds.saturating_mul(1_000_000).saturating_add(micros)))
}

/// One word behind the protocol: a pair of the first tuple until its second `src`, a state,
/// a mark; what is not known (mark, zone, use) is passed over.
fn take(record: &mut Record, word: &str) {
    let Some((key, value)) = word.split_once('=') else {
        match word {
            UNREPLIED => record.replied = false,
            "[OFFLOAD]" | "[HW_OFFLOAD]" => record.offloaded = true,
            _ if record.original.src.is_none() => {
                record.state = state(word).or(record.state);
            }
            _ => {}
        }
        return;
    };
    let second = record.original.dst.is_some() && (record.reply.src.is_some() || key == "src");
    let answered = record.reply.dst.is_some();
    let tuple = if second { &mut record.reply } else { &mut record.original };
    match key {
        "src" => tuple.src = value.parse::<IpAddr>().ok().map(|ip| ip.to_canonical()),
        "dst" => tuple.dst = value.parse::<IpAddr>().ok().map(|ip| ip.to_canonical()),
        "sport" => tuple.sport = value.parse().unwrap_or(0),
        "dport" => tuple.dport = value.parse().unwrap_or(0),
        "packets" => tuple.packets = value.parse().ok(),
        "bytes" => tuple.bytes = value.parse().ok(),
        // Of ICMP the identifier, before the addresses' second half; else the kernel's id, last.
        "id" if matches!(record.proto, 1 | 58) && !answered => {
            tuple.sport = value.parse().unwrap_or(0);
        }
        "id" => record.id = value.parse().ok(),
        "delta-time" => record.seconds = value.parse().ok(),
        _ => {}
    }
}

fn state(word: &str) -> Option<TcpState> {
    (0..=9).filter_map(TcpState::from_kernel).find(|state| state.as_str() == word)
}

/// Names a connection while it lasts.
type Key = (u8, Tuple, Option<u64>);

fn key(record: &Record) -> Key {
    let original = Tuple { packets: None, bytes: None, ..record.original };
    (record.proto, original, record.id)
}

/// The flow a line tells of; `start` as the line of its begin said.
fn flow(record: &Record, start: Option<Timestamp>, time: Timestamp) -> Option<Flow> {
    let (original, reply) = (record.original, record.reply);
    let src = Endpoint::new(original.src?, original.sport);
    let dst = Endpoint::new(original.dst?, original.dport);
    let (responder, seen) =
        (Endpoint::new(reply.src?, reply.sport), Endpoint::new(reply.dst?, reply.dport));
    let seconds = record.seconds.map(std::time::Duration::from_secs);
    let start = start.or_else(|| seconds.map(|s| time.minus(s)));
    let duration = start.map(|start| time.since(start));
    let volume = (original.bytes.is_some() || reply.bytes.is_some()).then(|| Volume {
        bytes_out: original.bytes.unwrap_or(0),
        bytes_in: reply.bytes.unwrap_or(0),
        packets_out: original.packets.unwrap_or(0),
        packets_in: reply.packets.unwrap_or(0),
    });
    // ICMP's answer has no ports of its own to differ in.
    let ports = matches!(record.proto, 6 | 17 | 33 | 132 | 136);
    let differs = |a: Endpoint, b: Endpoint| a.ip != b.ip || (ports && a.port != b.port);
    // A line of the table may be told again in the next look at it, from a start that whole
    // seconds round another way.
    let begun = start.filter(|_| record.kind != Kind::Listed);
    let named = format!("{:?} {begun:?}", key(record));
    Some(Flow {
        id: epoch(&[named.as_bytes()]),
        phase: if record.kind == Kind::Listed { FlowPhase::Update } else { FlowPhase::End },
        proto: record.proto,
        src,
        dst,
        nat_src: differs(seen, src).then_some(seen),
        nat_dst: differs(responder, dst).then_some(responder),
        start,
        duration_ms: duration.map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)),
        volume,
        tcp_state: record.state,
        replied: record.replied,
        offloaded: record.offloaded,
        iface: None,
        mac: None,
        resolved: None,
    })
}

/// Reads a file to its end and sends what it holds. `about`: when it was last written to, and
/// its length.
///
/// # Errors
/// When it cannot be read, or `send` fails; what was sent stays, and the next import goes on
/// behind it.
pub fn conntrack(
    input: &mut impl BufRead,
    about: (Timestamp, u64),
    span: Span,
    send: Send<'_>,
) -> anyhow::Result<Summary> {
    let mut summary = Summary::default();
    let mut begun: HashMap<Key, Timestamp> = HashMap::new();
    let (mut stream, mut line) = (None, Vec::new());
    loop {
        match next_line(input, &mut line).context("reading the file")? {
            Line::End => break,
            Line::Whole => summary.lines += 1,
            Line::TooLong => {
                summary.lines += 1;
                summary.unknown += 1;
                continue;
            }
        }
        let Some(record) = parse(&line) else {
            summary.unknown += 1;
            continue;
        };
        let stream = stream.get_or_insert_with(|| {
            let length = if record.kind == Kind::Listed { about.1 } else { 0 };
            Stream::new(epoch(&[b"conntrack", &line, &length.to_be_bytes()]), span)
        });
        summary.timeless += u64::from(record.time.is_none());
        let time = record.time.unwrap_or(about.0);
        let start = match record.kind {
            Kind::Update => continue,
            Kind::New => {
                // Beyond, an end says how long it lasted, or not.
                if begun.len() < BEGUN_MAX && record.time.is_some() {
                    begun.insert(key(&record), time);
                }
                continue;
            }
            Kind::Destroy => begun.remove(&key(&record)),
            Kind::Listed => None,
        };
        let Some(flow) = flow(&record, start, time) else { continue };
        summary.flows += 1;
        let event = Event { time, body: Body::Flow(flow) };
        summary.new_events += stream.push_at(summary.lines, &event, send)?;
    }
    if let Some(mut stream) = stream {
        summary.new_events += stream.flush(send)?;
        summary.passed = stream.passed;
    }
    summary.open = begun.len() as u64;
    Ok(summary)
}

#[cfg(test)]
mod tests {
    use agentmon_core::wire::{self, Batch};
    use proptest::prelude::*;

    use super::*;

    /// By conntrack-tools 1.4.7 on Linux 6.18: `conntrack -E -o timestamp` in a namespace with
    /// accounting, of `curl http://192.0.2.1:8080/` redirected to port 80.
    const NEW: &str = "[1795491649.932004]\t    [NEW] tcp      6 120 SYN_SENT src=192.0.2.7 dst=192.0.2.1 sport=53610 dport=8080 [UNREPLIED] src=192.0.2.1 dst=192.0.2.7 sport=80 dport=53610";
    const UPDATE: &str = "[1795491649.932079]\t [UPDATE] tcp      6 432000 ESTABLISHED src=192.0.2.7 dst=192.0.2.1 sport=53610 dport=8080 src=192.0.2.1 dst=192.0.2.7 sport=80 dport=53610 [ASSURED]";
    const DESTROY: &str = "[1795491656.487985]\t[DESTROY] tcp      6 TIME_WAIT src=192.0.2.7 dst=192.0.2.1 sport=53610 dport=8080 packets=6 bytes=398 src=192.0.2.1 dst=192.0.2.7 sport=80 dport=53610 packets=6 bytes=786 [ASSURED] delta-time=2";

    fn told(line: &str) -> String {
        let Some(record) = parse(line.as_bytes()) else { return "nothing".into() };
        let time = record.time.unwrap_or(Timestamp::from_secs(1_000));
        let Some(f) = flow(&record, None, time) else { return "no flow".into() };
        let nat = |e: Option<Endpoint>| e.map_or("-".into(), |e| format!("{}:{}", e.ip, e.port));
        format!(
            "{:?} {} {}:{} {}:{} nat {} {} {} {:?} {:?} {:?}",
            record.kind,
            f.proto,
            f.src.ip,
            f.src.port,
            f.dst.ip,
            f.dst.port,
            nat(f.nat_src),
            nat(f.nat_dst),
            if f.replied { "replied" } else { "silent" },
            f.tcp_state,
            f.volume.map(|v| (v.bytes_out, v.bytes_in, v.packets_out, v.packets_in)),
            f.duration_ms,
        )
    }

    #[track_caller]
    fn check(line: &str, expected: &str) {
        assert_eq!(told(line), expected, "{line}");
    }

    #[test]
    fn each_program_s_lines() {
        check(
            NEW,
            "New 6 192.0.2.7:53610 192.0.2.1:8080 nat - 192.0.2.1:80 silent Some(SynSent) None None",
        );
        check(
            DESTROY,
            "Destroy 6 192.0.2.7:53610 192.0.2.1:8080 nat - 192.0.2.1:80 replied Some(TimeWait) Some((398, 786, 6, 6)) Some(2000)",
        );
        // The same run: conntrack -E -o extended,id,timestamp
        check(
            "[1795491656.488085]\t[DESTROY] ipv6     10 udp      17 src=2001:db8::7 dst=2001:db8::1 sport=58286 dport=9 packets=1 bytes=49 [UNREPLIED] src=2001:db8::1 dst=2001:db8::7 sport=9 dport=58286 packets=0 bytes=0 delta-time=2 id=3734954818",
            "Destroy 17 2001:db8::7:58286 2001:db8::1:9 nat - - silent None Some((49, 0, 1, 0)) Some(2000)",
        );
        check(
            "[1795491656.488061]\t[DESTROY] ipv4     2 icmp     1 src=192.0.2.7 dst=192.0.2.1 type=8 code=0 id=9 packets=1 bytes=28 src=192.0.2.1 dst=192.0.2.7 type=0 code=0 id=9 packets=1 bytes=28 delta-time=2 id=570792061",
            "Destroy 1 192.0.2.7:9 192.0.2.1:0 nat - - replied None Some((28, 28, 1, 1)) Some(2000)",
        );
        // conntrack -L, -L -o extended, and /proc/net/nf_conntrack
        check(
            "tcp      6 1 TIME_WAIT src=192.0.2.7 dst=192.0.2.1 sport=53610 dport=8080 packets=6 bytes=398 src=192.0.2.1 dst=192.0.2.7 sport=80 dport=53610 packets=6 bytes=786 [ASSURED] mark=0 delta-time=1 use=1",
            "Listed 6 192.0.2.7:53610 192.0.2.1:8080 nat - 192.0.2.1:80 replied Some(TimeWait) Some((398, 786, 6, 6)) Some(1000)",
        );
        check(
            "ipv4     2 udp      17 1 src=192.0.2.7 dst=192.0.2.1 sport=60767 dport=53 packets=1 bytes=84 [UNREPLIED] src=192.0.2.1 dst=192.0.2.7 sport=53 dport=60767 packets=0 bytes=0 mark=0 delta-time=0 use=1",
            "Listed 17 192.0.2.7:60767 192.0.2.1:53 nat - - silent None Some((84, 0, 1, 0)) Some(0)",
        );
        check(
            "ipv6     10 udp      17 1 src=2001:0db8:0000:0000:0000:0000:0000:0007 dst=2001:0db8:0000:0000:0000:0000:0000:0001 sport=58286 dport=9 packets=1 bytes=49 [UNREPLIED] src=2001:0db8:0000:0000:0000:0000:0000:0001 dst=2001:0db8:0000:0000:0000:0000:0000:0007 sport=9 dport=58286 packets=0 bytes=0 mark=0 zone=0 delta-time=0 use=2",
            "Listed 17 2001:db8::7:58286 2001:db8::1:9 nat - - silent None Some((49, 0, 1, 0)) Some(0)",
        );
        check("conntrack v1.4.7 (conntrack-tools): 4 flow entries have been shown.", "nothing");
    }

    #[test]
    fn lines_made_up() {
        // Behind a router's address, as without accounting.
        check(
            "tcp      6 431999 ESTABLISHED src=192.0.2.7 dst=203.0.113.1 sport=40000 dport=443 src=203.0.113.1 dst=198.51.100.9 sport=443 dport=41000 [OFFLOAD] mark=0 use=1",
            "Listed 6 192.0.2.7:40000 203.0.113.1:443 nat 198.51.100.9:41000 - replied Some(Established) None None",
        );
        check("    [NEW] tcp 6 src=192.0.2.7 dst=nonsense", "nothing");
        check("", "nothing");
        check("[NEW]", "nothing");
        check("tcp 6 src=192.0.2.7", "nothing");
    }

    fn import(text: &str, span: Span) -> (Summary, Vec<Event>) {
        let mut events = Vec::new();
        let mut send = |batch: Batch| {
            let seqs = batch.first_seq..;
            for (seq, event) in seqs.zip(&batch.events) {
                assert!(seq <= text.lines().count() as u64);
                events.push(wire::decode_event(event).unwrap());
            }
            Ok(batch.events.len() as u64)
        };
        let about = (Timestamp::from_secs(1_800_000_000), text.len() as u64);
        let summary = conntrack(&mut text.as_bytes(), about, span, &mut send).unwrap();
        (summary, events)
    }

    #[test]
    fn a_begin_gives_its_end_a_start() {
        let text = format!("{NEW}\nnonsense\n{UPDATE}\n{DESTROY}\n{NEW}\n");
        let (summary, events) = import(&text, Span::default());
        assert_eq!((summary.lines, summary.unknown, summary.flows, summary.open), (5, 1, 1, 1));
        let [Event { time, body: Body::Flow(flow) }] = events.as_slice() else { panic!() };
        assert_eq!(*time, Timestamp::from_micros(1_795_491_656_487_985));
        assert_eq!(flow.start, Some(Timestamp::from_micros(1_795_491_649_932_004)));
        assert_eq!(flow.duration_ms, Some(6_555));
    }

    #[test]
    fn only_the_wanted_times() {
        let later = DESTROY.replace("1795491656", "1795492656");
        let text = format!("{DESTROY}\n{later}\n");
        let since = Some(Timestamp::from_secs(1_795_492_000));
        let (summary, events) = import(&text, Span { since, until: None });
        assert_eq!((summary.flows, summary.passed, events.len()), (2, 1, 1));
        let (summary, _) = import(&text, Span { since: None, until: since });
        assert_eq!((summary.passed, summary.new_events), (1, 1));
    }

    proptest! {
        #[test]
        fn never_panics(line in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&line);
        }
        #[test]
        fn never_panics_on_what_looks_right(words in prop::collection::vec(
            prop::sample::select(vec!["[NEW]", "[DESTROY]", "tcp", "6", "ipv4", "2", "src=192.0.2.1", "dst=192.0.2.2",
                "sport=70000", "bytes=99999999999999999999", "id=1", "[1.2]", "[9999999999999999.1]", "delta-time=18446744073709551615", "=", "ESTABLISHED", "icmp", "1"]), 0..30)) {
            let line = words.join(" ");
            drop(told(&line));
        }
    }
}
