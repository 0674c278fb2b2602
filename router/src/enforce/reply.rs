//! A held question -> the packet that answers it with "no such name".
//!
//! In: the first bytes of an IP packet with a DNS question over UDP. Out: a whole IP packet
//! from where the question was going to where it came from, or nothing where an answer
//! would not be right. Pure; some 100 ns.
//!
//! Formats: RFC 791, RFC 8200, RFC 768, RFC 1071 (checksums), RFC 1035, RFC 6891 (EDNS),
//! RFC 8914 (extended error 15, "Blocked").
//!
//! Invariants:
//! - only a plain question is answered: one entry, no answers, opcode 0, from a port that no
//!   server has, between unicast addresses; two of our kind cannot talk to each other;
//! - the answer is at most [`GROWTH_MAX`] bytes longer than the question: nobody can use it
//!   to make more traffic than he sends;
//! - the question comes back as it was, letter case included, and is never cached: without
//!   an SOA record (RFC 2308 section 5) the next question is asked, and may then be allowed.

use std::net::IpAddr;

use crate::packet::{self, Transport};

/// Bytes by which an answer may be longer than its question: the extended error.
const GROWTH_MAX: usize = 6;
/// Octets of the DNS header.
const HEADER: usize = 12;
/// Longest name on the wire (RFC 1035 section 2.3.4).
const NAME_OCTETS_MAX: usize = 255;
const TYPE_OPT: u16 = 41;
/// What we say we can take over UDP; the flag day's value, like that of resolvers.
const UDP_SIZE: u16 = 1_232;
const OPTION_ERROR: u16 = 15;
const ERROR_BLOCKED: u16 = 15;
/// QR and RA; opcode and RD are the question's.
const RESPONSE: u8 = 0x80;
const RECURSION_AVAILABLE: u8 = 0x80;
const NXDOMAIN: u8 = 3;
/// Hop limit: the client is near.
const HOPS: u8 = 64;
const UDP: u8 = 17;

/// The answering packet.
#[must_use]
pub fn nxdomain(question: &[u8]) -> Option<Vec<u8>> {
    let packet = packet::parse(question).ok()?;
    let Transport::Udp { data } = packet.transport else { return None };
    let (client, server) = (packet.src, packet.dst);
    let strange = |ip: IpAddr| {
        let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
        ip.is_multicast() || ip.is_unspecified() || ip.is_loopback() || broadcast
    };
    if strange(client.ip) || strange(server.ip) || client.port <= server.port {
        return None;
    }
    let answer = answer(data)?;
    debug_assert!(answer.len() <= data.len() + GROWTH_MAX);
    match (client.ip, server.ip) {
        (IpAddr::V4(to), IpAddr::V4(from)) => {
            let segment = udp(server.port, client.port, &answer)?;
            let length = u16::try_from(20 + segment.len()).ok()?;
            let mut out = vec![0x45, 0];
            out.extend(length.to_be_bytes());
            // No identification, not to be fragmented (RFC 6864).
            out.extend([0, 0, 0x40, 0, HOPS, UDP, 0, 0]);
            out.extend(from.octets());
            out.extend(to.octets());
            let sum = checksum(&[&out]);
            put(&mut out, 10, sum);
            finish(out, segment, &[&from.octets(), &to.octets()])
        }
        (IpAddr::V6(to), IpAddr::V6(from)) => {
            let segment = udp(server.port, client.port, &answer)?;
            let length = u16::try_from(segment.len()).ok()?;
            let mut out = vec![0x60, 0, 0, 0];
            out.extend(length.to_be_bytes());
            out.extend([UDP, HOPS]);
            out.extend(from.octets());
            out.extend(to.octets());
            finish(out, segment, &[&from.octets(), &to.octets()])
        }
        _ => None,
    }
}

/// A datagram without its checksum.
fn udp(from: u16, to: u16, data: &[u8]) -> Option<Vec<u8>> {
    let length = u16::try_from(8 + data.len()).ok()?;
    let mut out = Vec::with_capacity(8 + data.len());
    for field in [from, to, length, 0] {
        out.extend(field.to_be_bytes());
    }
    out.extend(data);
    Some(out)
}

/// Puts the datagram behind the IP header, with its checksum over the pseudo header
/// (RFC 768, RFC 8200 section 8.1; both sum up to the same words).
fn finish(mut header: Vec<u8>, mut segment: Vec<u8>, addresses: &[&[u8]; 2]) -> Option<Vec<u8>> {
    let length = u16::try_from(segment.len()).ok()?.to_be_bytes();
    let sum = checksum(&[addresses[0], addresses[1], &[0, UDP], &length, &segment]);
    // Zero means "none".
    put(&mut segment, 6, if sum == 0 { 0xffff } else { sum });
    header.extend(segment);
    Some(header)
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    for (to, from) in bytes.iter_mut().skip(at).zip(value.to_be_bytes()) {
        *to = from;
    }
}

/// The Internet checksum (RFC 1071) over pieces of which only the last may be odd.
fn checksum(pieces: &[&[u8]]) -> u16 {
    let words = pieces.iter().flat_map(|piece| piece.chunks(2));
    let word = |w: &[u8]| match *w {
        [a, b] => u32::from(u16::from_be_bytes([a, b])),
        [a] => u32::from(a) << 8,
        _ => 0,
    };
    let mut sum: u32 = words.map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

/// The DNS message that answers this one.
fn answer(question: &[u8]) -> Option<Vec<u8>> {
    let &[id0, id1, flags, _, 0, 1, 0, 0, 0, 0, _, _] = question.first_chunk::<HEADER>()? else {
        return None;
    };
    // A response already, or no query (RFC 6895 section 2.2).
    if flags & 0xf8 != 0 {
        return None;
    }
    let end = question_end(question)?;
    let edns = wants_edns(question, end);
    let mut out = vec![id0, id1, RESPONSE | (flags & 1), RECURSION_AVAILABLE | NXDOMAIN];
    out.extend([0, 1, 0, 0, 0, 0, 0, u8::from(edns)]);
    out.extend(question.get(HEADER..end)?);
    if edns {
        // Root name, type, size, extended code and version and flags, length; then the option.
        out.push(0);
        for field in [TYPE_OPT, UDP_SIZE, 0, 0, 6, OPTION_ERROR, 2, ERROR_BLOCKED] {
            out.extend(field.to_be_bytes());
        }
    }
    Some(out)
}

/// Where the only question ends; names of questions are not compressed.
fn question_end(message: &[u8]) -> Option<usize> {
    let mut at = HEADER;
    loop {
        let length = usize::from(*message.get(at)?);
        if length > 63 || at - HEADER >= NAME_OCTETS_MAX {
            return None;
        }
        at += 1 + length;
        if length == 0 {
            break;
        }
    }
    let end = at + 4;
    (end <= message.len()).then_some(end)
}

/// Whether an OPT record follows as the first additional one, where every resolver puts it
/// (a signature would be the last: RFC 8945 section 5.1).
fn wants_edns(message: &[u8], end: usize) -> bool {
    let additional = message.get(10..12).is_some_and(|count| count != [0, 0]);
    let [high, low] = TYPE_OPT.to_be_bytes();
    // Eleven octets: an answer with EDNS is only for a question that had them.
    additional && message.get(end..end + 11).is_some_and(|opt| opt.starts_with(&[0, high, low]))
}

#[cfg(test)]
mod tests {
    use agentmon_core::dns_wire;
    use proptest::prelude::*;

    use super::*;
    use crate::enforce::tests::packet;
    use crate::netlink::captured;

    /// A question for `WwW.bad.example`, with these counts and what follows.
    fn message(flags: u8, counts: [u8; 4], more: &[u8]) -> Vec<u8> {
        let [qd, an, ns, ar] = counts;
        let mut out = vec![0xab, 0xcd, flags, 0x20, 0, qd, 0, an, 0, ns, 0, ar];
        out.extend(b"\x03WwW\x03bad\x07example\x00\x00\x1c\x00\x01");
        out.extend(more);
        out
    }

    const OPT: [u8; 11] = [0, 0, 41, 0x04, 0xd0, 0, 0, 0x80, 0, 0, 0];

    #[test]
    fn the_question_comes_back_with_no_such_name() {
        let question = message(1, [1, 0, 0, 0], &[]);
        let got = answer(&question).unwrap();
        assert_eq!(got[..12], [0xab, 0xcd, 0x81, 0x83, 0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(got[12..], question[12..], "letter case and all");
        let read = dns_wire::decode(&got).unwrap();
        assert!(read.response && read.rcode == 3 && read.answers.is_empty() && !read.incomplete);
        // Recursion was not wanted.
        assert_eq!(answer(&message(0, [1, 0, 0, 0], &[])).unwrap()[2..4], [0x80, 0x83]);
    }

    #[test]
    fn with_edns_it_says_why() {
        let question = message(1, [1, 0, 0, 1], &OPT);
        let got = answer(&question).unwrap();
        assert_eq!(got[10..12], [0, 1]);
        let opt = &got[got.len() - 17..];
        assert_eq!(opt, [0, 0, 41, 0x04, 0xd0, 0, 0, 0, 0, 0, 6, 0, 15, 0, 2, 0, 15]);
        assert_eq!(got.len(), question.len() + GROWTH_MAX);
        let read = dns_wire::decode(&got).unwrap();
        assert_eq!((read.rcode, read.incomplete), (3, false));
        // Cut within the record, or another record: no EDNS.
        for more in [&OPT[..10], &[0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]] {
            assert_eq!(answer(&message(1, [1, 0, 0, 1], more)).unwrap()[10..12], [0, 0]);
        }
    }

    #[test]
    fn what_is_no_plain_question_is_not_answered() {
        for (flags, counts) in [
            (0x81, [1, 0, 0, 0]),
            (0x29, [1, 0, 0, 0]),
            (1, [0, 0, 0, 0]),
            (1, [2, 0, 0, 0]),
            (1, [1, 1, 0, 0]),
            (1, [1, 0, 1, 0]),
        ] {
            assert_eq!(answer(&message(flags, counts, &[])), None, "{flags:#x} {counts:?}");
        }
        let whole = message(1, [1, 0, 0, 0], &[]);
        for length in 0..whole.len() {
            assert_eq!(answer(&whole[..length]), None, "{length}");
        }
        let mut pointer = whole.clone();
        pointer[12] = 0xc0;
        assert_eq!(answer(&pointer), None);
    }

    /// Every checksum of a packet, over what it covers, is zero when it is right.
    #[track_caller]
    fn is_sound(packet: &[u8]) {
        let (header, addresses) = if packet[0] >> 4 == 4 {
            assert_eq!(checksum(&[&packet[..20]]), 0, "IP header");
            assert_eq!(usize::from(packet[2]) << 8 | usize::from(packet[3]), packet.len());
            (20, &packet[12..20])
        } else {
            assert_eq!(usize::from(packet[4]) << 8 | usize::from(packet[5]), packet.len() - 40);
            (40, &packet[8..40])
        };
        let length = u16::try_from(packet.len() - header).unwrap().to_be_bytes();
        assert_eq!(packet[header + 4..header + 6], length);
        assert_eq!(checksum(&[addresses, &[0, 17], &length, &packet[header..]]), 0, "UDP");
    }

    #[test]
    fn the_packet_goes_back_the_way_it_came() {
        for captured in [captured::QUERY, captured::QUERY6] {
            let question = packet(captured);
            let asked = packet::parse(&question).unwrap();
            let bytes = nxdomain(&question).unwrap();
            is_sound(&bytes);
            let answered = packet::parse(&bytes).unwrap();
            assert_eq!((answered.src, answered.dst), (asked.dst, asked.src));
            let Transport::Udp { data } = answered.transport else { panic!("a datagram") };
            let (Transport::Udp { data: had }, read) = (asked.transport, dns_wire::decode(data))
            else {
                panic!("a datagram");
            };
            let (read, had) = (read.unwrap(), dns_wire::decode(had).unwrap());
            assert_eq!((read.id, read.question), (had.id, had.question));
            assert!(bytes.len() <= question.len() + GROWTH_MAX);
        }
        for captured in [captured::ANSWER, captured::ANSWER6] {
            assert_eq!(nxdomain(&packet(captured)), None, "an answer is not answered");
        }
    }

    #[test]
    fn servers_and_crowds_are_not_answered() {
        let v4 = packet(captured::QUERY);
        let with = |at: usize, bytes: &[u8]| {
            let mut packet = v4.clone();
            packet[at..at + bytes.len()].copy_from_slice(bytes);
            nxdomain(&packet)
        };
        assert!(with(12, &[192, 0, 2, 9]).is_some());
        assert_eq!(with(20, &[0, 53]), None, "from a server's port");
        assert_eq!(with(20, &[0, 0]), None, "from no port");
        for address in [[0, 0, 0, 0], [127, 0, 0, 1], [224, 0, 0, 251], [255; 4]] {
            assert_eq!(with(12, &address), None, "from {address:?}");
            assert_eq!(with(16, &address), None, "to {address:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_make_no_long_answer(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            if let Some(answer) = nxdomain(&bytes) {
                prop_assert!(answer.len() <= bytes.len() + GROWTH_MAX);
            }
        }

        /// The same behind headers that are right, so that the message is looked at.
        #[test]
        fn any_message_makes_a_sound_answer_or_none(
            v6 in any::<bool>(), ar in 0u8..3,
            name in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..70), 0..8),
            more in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut data = vec![1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, ar];
            for label in name {
                data.push(u8::try_from(label.len()).unwrap());
                data.extend(label);
            }
            data.extend([0, 0, 1, 0, 1]);
            data.extend(more);
            let template = packet(if v6 { captured::QUERY6 } else { captured::QUERY });
            let header = if v6 { 40 } else { 20 };
            let mut bytes = template[..header + 8].to_vec();
            bytes.extend(&data);
            let length = u16::try_from(bytes.len() - if v6 { 40 } else { 0 }).unwrap();
            put(&mut bytes, if v6 { 4 } else { 2 }, length);
            if let Some(answer) = nxdomain(&bytes) {
                is_sound(&answer);
                prop_assert!(answer.len() <= bytes.len() + GROWTH_MAX);
                prop_assert_eq!(dns_wire::decode(&answer[header + 8..]).unwrap().rcode, 3);
            }
        }
    }
}
