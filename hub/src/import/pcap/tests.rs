//! Captures made here: packets by etherparse, files by the formats' own words.

use std::collections::BTreeMap;

use agentmon_core::event::Flow;
use agentmon_core::wire::{self, Batch};
use etherparse::PacketBuilder;
use proptest::prelude::*;

use super::*;

/// 2026-11-23T14:32:07Z.
const BEGUN: i64 = 1_795_444_327_000_000;
const CLIENT: [u8; 4] = [192, 168, 1, 20];
const SERVER: [u8; 4] = [203, 0, 113, 9];

/// A frame: microseconds since [`BEGUN`], its bytes, its length on the wire.
type Sent = (i64, Vec<u8>, usize);

fn whole(at: i64, bytes: Vec<u8>) -> Sent {
    let length = bytes.len();
    (at, bytes, length)
}

/// A capture in one of the forms.
#[derive(Clone, Copy, Debug)]
enum Form {
    Micros,
    Nanos,
    BigEndian,
    /// pcapng with so many units a second, as a power of ten.
    Ng(u8),
}

const FORMS: [Form; 5] = [Form::Micros, Form::Nanos, Form::BigEndian, Form::Ng(6), Form::Ng(9)];

fn file(form: Form, link: u32, frames: &[Sent]) -> Vec<u8> {
    let number = |n: u32| match form {
        Form::BigEndian => n.to_be_bytes(),
        _ => n.to_le_bytes(),
    };
    let mut out = Vec::new();
    let magic = if matches!(form, Form::Nanos) { 0xa1b2_3c4d } else { 0xa1b2_c3d4 };
    match form {
        Form::Ng(power) => {
            out.extend(block(
                0x0a0d_0d0a,
                &[&[0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0], &[0xff; 8][..]],
            ));
            let link = u16::try_from(link).unwrap().to_le_bytes();
            let resolution = [9, 0, 1, 0, power, 0, 0, 0, 0, 0, 0, 0];
            out.extend(block(1, &[&link, &[0; 6], &resolution]));
        }
        _ => {
            for word in [magic, if number(1) == [1, 0, 0, 0] { 4 << 16 | 2 } else { 2 << 16 | 4 }] {
                out.extend(number(word));
            }
            for word in [0, 0, 262_144, link] {
                out.extend(number(word));
            }
        }
    }
    for (at, bytes, length) in frames {
        let micros = BEGUN + at;
        let (caught, length) = (bytes.len() as u32, *length as u32);
        if let Form::Ng(power) = form {
            let units = micros as u64 * 10u64.pow(u32::from(power) - 6);
            let words = [0, (units >> 32) as u32, units as u32, caught, length];
            let words: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
            let padding = vec![0; bytes.len().next_multiple_of(4) - bytes.len()];
            out.extend(block(6, &[&words, bytes, &padding]));
            continue;
        }
        let part =
            (micros % 1_000_000) as u32 * if matches!(form, Form::Nanos) { 1_000 } else { 1 };
        for word in [(micros / 1_000_000) as u32, part, caught, length] {
            out.extend(number(word));
        }
        out.extend(bytes);
    }
    out
}

fn block(kind: u32, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let length = (body.len() as u32 + 12).to_le_bytes();
    [&kind.to_le_bytes()[..], &length, &body, &length].concat()
}

/// What a hub keeps: events by stream and number. The same number must say the same.
#[derive(Default)]
struct Store {
    events: BTreeMap<(u64, u64), Vec<u8>>,
    /// Batches until it fails.
    left: Option<usize>,
}

impl Store {
    fn take(&mut self, batch: Batch) -> anyhow::Result<u64> {
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(1).ok_or_else(|| anyhow::anyhow!("broken off"))?;
        }
        let before = self.events.len();
        for (seq, event) in (batch.first_seq..).zip(batch.events) {
            let known = self.events.entry((batch.epoch, seq)).or_insert_with(|| event.clone());
            let (known, event) = (wire::decode_event(known), wire::decode_event(&event));
            assert_eq!(known.unwrap(), event.unwrap());
        }
        Ok((self.events.len() - before) as u64)
    }

    fn import(&mut self, bytes: &[u8], silence_s: u64, span: Span) -> anyhow::Result<Summary> {
        let written = Timestamp::from_micros(BEGUN);
        let now = written.plus(Duration::from_secs(silence_s));
        let capture = Capture { input: bytes, written, now, span };
        let config = Tier0Config::default();
        let lists = (Blocklist::default(), "");
        pcap(capture, &config, lists, &mut |batch: Batch| self.take(batch))
    }

    fn flows(&self) -> Vec<Flow> {
        let decoded = self.events.values().map(|event| wire::decode_event(event).unwrap());
        let flow = |event: Event| if let Body::Flow(flow) = event.body { Some(flow) } else { None };
        let mut flows: Vec<Flow> = decoded.filter_map(flow).collect();
        flows.sort_by_key(|f| (f.start, f.src.port));
        flows
    }

    /// One line for each.
    fn told(&self) -> Vec<String> {
        let flow = |f: &Flow| {
            let v = f.volume.unwrap();
            let start = f.start.unwrap().micros() - BEGUN;
            format!(
                "{} {}:{} {}:{} +{start} {}ms out {}/{} in {}/{} {} {:?}",
                f.proto,
                f.src.ip,
                f.src.port,
                f.dst.ip,
                f.dst.port,
                f.duration_ms.unwrap(),
                v.bytes_out,
                v.packets_out,
                v.bytes_in,
                v.packets_in,
                f.tcp_state.map_or("-", |s| s.as_str()),
                f.phase,
            )
        };
        self.flows().iter().map(flow).collect()
    }

    fn dns(&self) -> Vec<String> {
        let decoded = self.events.values().map(|event| wire::decode_event(event).unwrap());
        let dns = |event: Event| {
            let Body::Dns(d) = event.body else { return None };
            let answers: Vec<String> = d.addresses().map(|ip| ip.to_string()).collect();
            Some(format!(
                "{} {} {} {:?} {answers:?} {:?}",
                d.client, d.name, d.qtype, d.status, d.latency_us
            ))
        };
        decoded.filter_map(dns).collect()
    }
}

const LONG: u64 = 1_000_000;

fn import(bytes: &[u8]) -> (Store, Summary) {
    let mut store = Store::default();
    let summary = store.import(bytes, LONG, Span::default()).unwrap();
    (store, summary)
}

#[track_caller]
fn check(frames: &[Sent], expected: &[&str]) {
    let (store, _) = import(&file(Form::Micros, 1, frames));
    assert_eq!(store.told(), expected);
}

/// A TCP segment of the client, or the server, with flags of `SFRA`.
fn tcp(at: i64, client: bool, port: u16, flags: &str, data: &[u8]) -> Sent {
    let (src, dst) = if client { (CLIENT, SERVER) } else { (SERVER, CLIENT) };
    let (sport, dport) = if client { (port, 443) } else { (443, port) };
    let built = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(src, dst, 64);
    let mut built = built.tcp(sport, dport, 1_000, 1_024);
    for flag in flags.chars() {
        built = match flag {
            'S' => built.syn(),
            'F' => built.fin(),
            'R' => built.rst(),
            _ => built.ack(1),
        };
    }
    let mut out = Vec::new();
    built.write(&mut out, data).unwrap();
    whole(at, out)
}

fn connection(at: i64, port: u16) -> Vec<Sent> {
    vec![
        tcp(at, true, port, "S", b""),
        tcp(at + 1_000, false, port, "SA", b""),
        tcp(at + 2_000, true, port, "A", &[7; 100]),
        tcp(at + 500_000, false, port, "A", &[7; 1_000]),
        tcp(at + 600_000, false, port, "FA", b""),
        tcp(at + 700_000, true, port, "FA", b""),
        tcp(at + 701_000, false, port, "A", b""),
    ]
}

/// 40 bytes of headers on each segment: 120 + 100 and 160 + 1,000.
const WHOLE: &str =
    "6 192.168.1.20:40000 203.0.113.9:443 +0 701ms out 220/3 in 1160/4 TIME_WAIT End";

fn udp(at: i64, src: ([u8; 4], u16), dst: ([u8; 4], u16), data: &[u8]) -> Sent {
    let mut out = Vec::new();
    let built = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(src.0, dst.0, 64);
    built.udp(src.1, dst.1).write(&mut out, data).unwrap();
    whole(at, out)
}

/// The question for www.example.com, or its answer.
fn message(answer: bool) -> Vec<u8> {
    let mut out = vec![0xab, 0xcd, if answer { 0x81 } else { 1 }, if answer { 0x80 } else { 0 }];
    out.extend([0, 1, 0, u8::from(answer), 0, 0, 0, 0]);
    out.extend(b"\x03www\x07example\x03com\0\0\x01\0\x01");
    if answer {
        out.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4, 203, 0, 113, 9]);
    }
    out
}

const RESOLVER: ([u8; 4], u16) = ([192, 168, 1, 1], 53);

#[test]
fn every_form_of_file_says_the_same() {
    let mut frames = vec![
        udp(0, (CLIENT, 5_353), RESOLVER, &message(false)),
        udp(20_000, RESOLVER, (CLIENT, 5_353), &message(true)),
    ];
    frames.extend(connection(30_000, 40_000));
    for form in FORMS {
        let (store, summary) = import(&file(form, 1, &frames));
        assert_eq!((summary.frames, summary.packets, summary.flows), (9, 9, 2), "{form:?}");
        let dns = ["192.168.1.20 www.example.com 1 Forwarded [\"203.0.113.9\"] Some(20000)"];
        assert_eq!(store.dns(), dns, "{form:?}");
        let flows = [
            "17 192.168.1.20:5353 192.168.1.1:53 +0 20ms out 61/1 in 77/1 - End",
            &WHOLE.replace("+0", "+30000"),
        ];
        assert_eq!(store.told(), flows, "{form:?}");
    }
}

#[test]
fn connections_begin_and_end() {
    check(&connection(0, 40_000), &[WHOLE]);
    // Refused; then the same port again.
    let refused = [
        tcp(0, true, 40_000, "S", b""),
        tcp(1_000, false, 40_000, "RA", b""),
        tcp(500_000, true, 40_000, "S", b""),
        tcp(501_000, false, 40_000, "RA", b""),
    ];
    check(
        &refused,
        &[
            "6 192.168.1.20:40000 203.0.113.9:443 +0 1ms out 40/1 in 40/1 CLOSE End",
            "6 192.168.1.20:40000 203.0.113.9:443 +500000 1ms out 40/1 in 40/1 CLOSE End",
        ],
    );
    // Asked twice, never answered.
    let silent = [tcp(0, true, 40_000, "S", b""), tcp(1_000_000, true, 40_000, "S", b"")];
    check(
        &silent,
        &["6 192.168.1.20:40000 203.0.113.9:443 +0 1000ms out 80/2 in 0/0 SYN_SENT End"],
    );
    // From the middle: 443 is the service, whoever spoke first.
    let middle = [tcp(0, false, 40_000, "A", &[1; 10]), tcp(1_000, true, 40_000, "A", b"")];
    check(
        &middle,
        &["6 192.168.1.20:40000 203.0.113.9:443 +0 1ms out 40/1 in 50/1 ESTABLISHED End"],
    );
    let answer = [tcp(0, false, 40_000, "SA", b"")];
    check(&answer, &["6 192.168.1.20:40000 203.0.113.9:443 +0 0ms out 0/0 in 40/1 SYN_RECV End"]);
    // Silence of UDP ends it: two minutes.
    let (from, to) = ((CLIENT, 5_000), (SERVER, 6_000));
    let udp = [
        udp(0, from, to, b"x"),
        udp(100_000_000, to, from, b"y"),
        udp(221_000_000, from, to, b"z"),
    ];
    check(
        &udp,
        &[
            "17 192.168.1.20:5000 203.0.113.9:6000 +0 100000ms out 29/1 in 29/1 - End",
            "17 192.168.1.20:5000 203.0.113.9:6000 +221000000 0ms out 29/1 in 0/0 - End",
        ],
    );
}

#[test]
fn pings_of_both_families() {
    let mut frames = Vec::new();
    for (at, out) in [(0, true), (1_000, false)] {
        let (src, dst) = if out { (CLIENT, SERVER) } else { (SERVER, CLIENT) };
        let v4 = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(src, dst, 64);
        let mut bytes = Vec::new();
        match out {
            true => v4.icmpv4_echo_request(1, 1).write(&mut bytes, &[0; 56]).unwrap(),
            false => v4.icmpv4_echo_reply(1, 1).write(&mut bytes, &[0; 56]).unwrap(),
        }
        frames.push(whole(at, bytes));
    }
    check(&frames, &["1 192.168.1.20:0 203.0.113.9:2048 +0 1ms out 84/1 in 84/1 - End"]);
}

#[test]
fn below_tags_tunnels_of_ppp_and_other_links() {
    let bare = |frame: &Sent| frame.1.get(14..).unwrap().to_vec();
    let under = |header: &[u8]| -> Vec<Sent> {
        let frame = |f: &Sent| whole(f.0, [header, &bare(f)].concat());
        connection(0, 40_000).iter().map(frame).collect()
    };
    let mac: &[u8] = &[2, 2, 2, 2, 2, 2, 4, 4, 4, 4, 4, 4];
    let ethernet = |rest: &[u8]| [mac, rest].concat();
    let any = [&[0, 0, 0, 1, 0, 6, 2, 2, 2, 2, 2, 2, 0, 0][..], &[8, 0]].concat();
    let mut any2 = vec![8, 0];
    any2.extend([0; 18]);
    let logged = [2, 0, 0, 7, 8, 0, 1, 0, 8, 0, 0, 0, 5, 0, 10, 0, b'x', 0, 0, 0, 0, 1, 9, 0];
    let links: [(u32, Vec<u8>); 10] = [
        (1, ethernet(&[0x81, 0, 0, 5, 8, 0])),
        (1, ethernet(&[0x88, 0xa8, 0, 5, 0x81, 0, 0, 7, 8, 0])),
        (1, ethernet(&[0x88, 0x64, 0x11, 0, 0, 1, 0, 62, 0, 0x21])),
        (0, vec![2, 0, 0, 0]),
        (108, vec![0, 0, 0, 2]),
        (101, vec![]),
        (113, any),
        (276, any2),
        (9, vec![0xff, 3, 0, 0x21]),
        (239, logged.to_vec()),
    ];
    for (link, header) in links {
        let (store, _) = import(&file(Form::Micros, link, &under(&header)));
        assert_eq!(store.told(), [WHOLE], "link type {link}");
    }
}

#[test]
fn ipv6_with_headers_before_the_transport() {
    let (src, dst) = (
        "2001:db8::1".parse::<std::net::Ipv6Addr>().unwrap(),
        "2001:db8::2".parse::<std::net::Ipv6Addr>().unwrap(),
    );
    let mut out = Vec::new();
    let built = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv6(src.octets(), dst.octets(), 64);
    built.udp(5_000, 6_000).write(&mut out, b"abcd").unwrap();
    // Hop-by-hop before UDP: 8 bytes more.
    let mut long = out.clone();
    long.splice(54..54, [17, 0, 1, 4, 0, 0, 0, 0]);
    long[20] = 0;
    long[19] += 8;
    check(
        &[whole(0, out), whole(1_000, long)],
        &["17 2001:db8::1:5000 2001:db8::2:6000 +0 1ms out 112/2 in 0/0 - End"],
    );
}

#[test]
fn pieces_of_a_datagram_count_for_its_flow() {
    let piece = |at: i64, place: u16, more: bool, data: &[u8]| {
        let (at, mut bytes, _) = udp(at, (CLIENT, 5_000), (SERVER, 6_000), data);
        bytes[18..20].copy_from_slice(&77u16.to_be_bytes());
        let place = place | if more { 0x2000 } else { 0 };
        bytes[20..22].copy_from_slice(&place.to_be_bytes());
        whole(at, bytes)
    };
    let frames = [
        piece(0, 0, true, &[1; 100]),
        piece(10, 13, true, &[0; 96]),
        piece(20, 25, false, &[0; 32]),
    ];
    // Headers of 28 on each.
    check(&frames, &["17 192.168.1.20:5000 203.0.113.9:6000 +0 0ms out 312/3 in 0/0 - End"]);
    let (store, summary) = import(&file(Form::Micros, 1, &frames[1..]));
    assert_eq!((summary.stray, store.told().len()), (2, 0));
}

#[test]
fn what_was_cut_counts_as_it_was_on_the_wire() {
    let cut = |frame: Sent| (frame.0, frame.1.get(..54).unwrap().to_vec(), frame.2);
    let frames: Vec<Sent> = connection(0, 40_000).into_iter().map(cut).collect();
    check(&frames, &[WHOLE]);
    // Cut within the ports: nobody knows whose it was.
    let cut: Vec<Sent> = connection(0, 40_000)
        .into_iter()
        .map(|f| (f.0, f.1.get(..34).unwrap().to_vec(), f.2))
        .collect();
    let (store, summary) = import(&file(Form::Micros, 1, &cut));
    assert_eq!((summary.unreadable, store.told().len()), (7, 0));
    // A card that cuts for the kernel: no length in the header.
    let mut large = tcp(0, true, 40_000, "A", &[1; 40_000]);
    large.1[16..18].copy_from_slice(&[0, 0]);
    check(
        &[large],
        &["6 192.168.1.20:40000 203.0.113.9:443 +0 0ms out 40040/1 in 0/0 ESTABLISHED End"],
    );
}

#[test]
fn dns_over_tcp_without_answer_and_nonsense() {
    let prefixed = |m: Vec<u8>| [&(m.len() as u16).to_be_bytes()[..], &m].concat();
    let segment = |at: i64, out: bool, sequence: u32, syn: bool, data: &[u8]| {
        let (src, dst) = if out { (CLIENT, RESOLVER.0) } else { (RESOLVER.0, CLIENT) };
        let (sport, dport) = if out { (50_000, 53) } else { (53, 50_000) };
        let built = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(src, dst, 64);
        let built = built.tcp(sport, dport, sequence, 1_024);
        let mut bytes = Vec::new();
        (if syn { built.syn() } else { built.ack(1) }).write(&mut bytes, data).unwrap();
        whole(at, bytes)
    };
    let frames = [
        segment(0, true, 10, true, b""),
        segment(10, false, 20, true, b""),
        segment(20, true, 11, false, &prefixed(message(false))),
        segment(5_020, false, 21, false, &prefixed(message(true))),
        udp(6_000, (CLIENT, 5_000), RESOLVER, b"no message"),
        udp(7_000, (CLIENT, 5_001), RESOLVER, &message(false)),
    ];
    let (store, summary) = import(&file(Form::Micros, 1, &frames));
    assert_eq!(
        store.dns(),
        [
            "192.168.1.20 www.example.com 1 Forwarded [\"203.0.113.9\"] Some(5000)",
            "192.168.1.20 www.example.com 1 Timeout [] None",
        ]
    );
    assert_eq!(summary.bad_dns, 1);
}

#[test]
fn unknown_links_are_named() {
    let frames = [whole(0, vec![0; 60]), whole(1, vec![0; 60])];
    let (_, summary) = import(&file(Form::Ng(6), 127, &frames));
    let told: Vec<_> = summary.unknown_links.iter().map(|(l, n)| (l.as_str(), *n)).collect();
    assert_eq!(told, [("127 (IEEE802_11_RADIOTAP)", 2)]);
    // ARP is no packet, and no reason to complain.
    let arp = [&[0xff; 12][..], &[8, 6], &[0; 28]].concat();
    let (_, summary) = import(&file(Form::Micros, 1, &[whole(0, arp)]));
    assert_eq!((summary.frames, summary.packets, summary.unknown_links.len()), (1, 0, 0));
}

/// Imported again, grown, broken off: each once.
#[test]
fn each_event_once() {
    let mut frames = Vec::new();
    for n in 0..40i64 {
        frames.push(udp(n * 3_000_000, (CLIENT, 5_000 + n as u16), RESOLVER, &message(false)));
        frames.extend(connection(n * 3_000_000 + 1_000, 40_000 + n as u16));
    }
    frames.sort_by_key(|frame| frame.0);
    let all = file(Form::Micros, 1, &frames);
    let (straight, summary) = import(&all);
    assert_eq!((summary.flows, summary.dns, summary.open), (80, 40, 0));
    let mut again = Store::default();
    again.import(&all, LONG, Span::default()).unwrap();
    let twice = again.import(&all, LONG, Span::default()).unwrap();
    assert_eq!((twice.new_events, twice.new_findings), (0, 0));
    assert_eq!(again.events, straight.events);
    // Broken off behind each batch.
    for left in 0..3 {
        let mut store = Store { left: Some(left), ..Store::default() };
        let end = store.import(&all, LONG, Span::default());
        assert_eq!(end.is_err(), left < 2, "{left}");
        store.left = None;
        store.import(&all, LONG, Span::default()).unwrap();
        assert_eq!(store.events, straight.events, "{left}");
    }
    // Read while it is written: within a frame, then whole.
    for cut in [100, all.len() / 2, all.len() - 10] {
        let mut store = Store::default();
        let summary = store.import(&all[..cut], 0, Span::default()).unwrap();
        assert!(summary.cut, "{cut}");
        store.import(&all, LONG, Span::default()).unwrap();
        let ended: Vec<Flow> = store
            .flows()
            .into_iter()
            .filter(|f| f.phase == agentmon_core::event::FlowPhase::End)
            .collect();
        assert_eq!(ended, straight.flows(), "{cut}");
        // What had been open has ended under its own name.
        assert!(store.flows().iter().all(|f| ended.iter().any(|e| e.id == f.id)), "{cut}");
        assert_eq!(store.dns().len(), 40);
    }
}

#[test]
fn only_the_wanted_times_and_clocks_that_jump() {
    let mut frames = connection(0, 40_000);
    frames.extend(connection(100_000_000, 40_001));
    let bytes = file(Form::Micros, 1, &frames);
    let since = Some(Timestamp::from_micros(BEGUN + 50_000_000));
    let mut store = Store::default();
    let summary = store.import(&bytes, LONG, Span { since, until: None }).unwrap();
    assert_eq!((summary.passed, store.told().len()), (1, 1));
    let summary =
        Store::default().import(&bytes, LONG, Span { since: None, until: since }).unwrap();
    assert_eq!((summary.passed, summary.new_events), (1, 1));
    // A day back in the middle, and a day on.
    let day = 86_400_000_000;
    let mut frames = connection(0, 40_000);
    frames[3].0 -= day;
    frames[5].0 += day;
    let (store, _) = import(&file(Form::Micros, 1, &frames));
    assert!(store.flows().iter().all(|f| f.duration_ms.unwrap() <= 86_400_000 + 701));
    let sum: u64 = store
        .flows()
        .iter()
        .map(|f| f.volume.unwrap().packets_out + f.volume.unwrap().packets_in)
        .sum();
    assert_eq!(sum, 7);
}

#[test]
fn hostile_files() {
    let good = file(Form::Ng(6), 1, &connection(0, 40_000));
    // A block that claims 4 GB, behind what is whole.
    let mut huge = good.clone();
    huge.extend([6, 0, 0, 0, 0xf0, 0xff, 0xff, 0xff]);
    huge.extend(vec![0; 5 * 1024 * 1024]);
    let (store, summary) = import(&huge);
    assert_eq!((summary.broken.is_some(), store.told()), (true, vec![WHOLE.to_owned()]));
    let mut huge = file(Form::Micros, 1, &connection(0, 40_000));
    huge.extend([0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0]);
    huge.extend(vec![0; 5 * 1024 * 1024]);
    let (store, summary) = import(&huge);
    assert_eq!((summary.broken.is_some(), store.told()), (true, vec![WHOLE.to_owned()]));
    for bytes in [&b""[..], b"x", b"\x0a\x0d\x0d\x0a", b"Some words of text, no capture at all."] {
        let error = Store::default().import(bytes, LONG, Span::default()).unwrap_err();
        assert!(error.to_string().contains("neither pcap nor pcapng"), "{error}");
    }
    // A pcapng without an interface, and a packet of one that was never described.
    let (_, summary) =
        import(&block(0x0a0d_0d0a, &[&[0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0], &[0xff; 8]]));
    assert_eq!(summary.frames, 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300), link in 0u32..300) {
        drop(Store::default().import(&bytes, LONG, Span::default()));
        let frames = [whole(0, bytes.clone()), whole(1, [&[0x45, 0][..], &bytes].concat()), whole(2, [&[0x60, 0][..], &bytes].concat())];
        import(&file(Form::Ng(6), link, &frames));
    }

    #[test]
    fn never_panics_on_what_looks_right(at in 0usize..2_000, byte in any::<u8>(), ng in any::<bool>()) {
        let form = if ng { Form::Ng(6) } else { Form::Micros };
        let mut frames = connection(0, 40_000);
        frames.push(udp(5, (CLIENT, 5_000), RESOLVER, &message(true)));
        let mut bytes = file(form, 1, &frames);
        let at = at % bytes.len();
        bytes[at] = byte;
        drop(Store::default().import(&bytes, LONG, Span::default()));
    }
}
