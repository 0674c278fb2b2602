//! The headers of one IP packet, as far as they were copied.
//!
//! In: bytes from the IP header on, possibly cut short (NFLOG copies the first bytes only).
//! Out: addresses, protocol, ports, and the transport's payload. Pure, no allocation; used
//! by the firewall and passive DNS collectors on their threads.
//!
//! Formats: RFC 791 (IPv4), RFC 8200 (IPv6 and its extension headers), RFC 9293 (TCP),
//! RFC 768 (UDP), RFC 792 and RFC 4443 (ICMP).
//!
//! Invariants: never panics; at most [`EXTENSIONS_MAX`] IPv6 extension headers are
//! followed; bytes behind the packet's own length (link-layer padding) are not payload.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use agentmon_core::event::Endpoint;
use agentmon_core::service::proto;

/// RFC 8200 section 4.1 names six kinds, each of which should occur once.
pub const EXTENSIONS_MAX: usize = 8;
/// TCP flag bits.
pub const TCP_FIN: u8 = 0x01;
/// TCP flag bits.
pub const TCP_SYN: u8 = 0x02;
/// TCP flag bits.
pub const TCP_RST: u8 = 0x04;

/// One packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Sender; for ICMP the port is 0.
    pub src: Endpoint,
    /// Receiver; for ICMP the port is `type << 8 | code`.
    pub dst: Endpoint,
    /// Protocol behind the IP headers.
    pub proto: u8,
    /// The packet's whole length in bytes, IP header included, whatever was copied.
    pub length: u32,
    /// What the transport carries.
    pub transport: Transport<'a>,
}

/// The transport's header and payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport<'a> {
    /// A datagram.
    Udp {
        /// As much of its payload as was copied.
        data: &'a [u8],
    },
    /// A segment.
    Tcp {
        /// Sequence number of its first byte.
        sequence: u32,
        /// Flag bits.
        flags: u8,
        /// As much of its payload as was copied.
        data: &'a [u8],
        /// The payload's length on the wire.
        data_length: u32,
    },
    /// Another protocol, a later fragment, or cut before the end of the header.
    Other,
}

/// The bytes are no IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no IP packet, or cut within its IP header")]
pub struct NoPacket;

/// Reads the headers.
///
/// # Errors
/// [`NoPacket`] when not even the addresses are there.
pub fn parse(bytes: &[u8]) -> Result<Packet<'_>, NoPacket> {
    let network = match bytes.first().map(|b| b >> 4) {
        Some(4) => ipv4(bytes),
        Some(6) => ipv6(bytes),
        _ => None,
    }
    .ok_or(NoPacket)?;
    Ok(network.transport())
}

/// The IP layer: what is behind it, and where it ends.
struct Network<'a> {
    src: IpAddr,
    dst: IpAddr,
    proto: u8,
    length: u32,
    /// Bytes from the transport header on; empty for later fragments.
    rest: &'a [u8],
    /// The same in the whole packet.
    rest_length: u32,
}

fn ipv4(bytes: &[u8]) -> Option<Network<'_>> {
    let header = bytes.first_chunk::<20>()?;
    let [first, _, l0, l1, _, _, f0, f1, _, proto, _, _, addresses @ ..] = *header;
    let [s0, s1, s2, s3, d0, d1, d2, d3] = addresses;
    let header_length = usize::from(first & 15) * 4;
    if header_length < 20 {
        return None;
    }
    let length = u32::from(u16::from_be_bytes([l0, l1]));
    let later_fragment = u16::from_be_bytes([f0, f1]) & 0x1fff != 0;
    let rest = if later_fragment { &[] } else { within(bytes, header_length, length) };
    Some(Network {
        src: Ipv4Addr::new(s0, s1, s2, s3).into(),
        dst: Ipv4Addr::new(d0, d1, d2, d3).into(),
        proto,
        length,
        rest,
        rest_length: length.saturating_sub(u32::from(first & 15) * 4),
    })
}

fn ipv6(bytes: &[u8]) -> Option<Network<'_>> {
    let header = bytes.first_chunk::<40>()?;
    let length = u32::from(u16::from_be_bytes([header[4], header[5]])) + 40;
    let src: [u8; 16] = header.get(8..24)?.try_into().ok()?;
    let dst: [u8; 16] = header.get(24..40)?.try_into().ok()?;
    let mut next = header[6];
    let mut at = 40usize;
    let mut later_fragment = false;
    for _ in 0..EXTENSIONS_MAX {
        let Some(step) = extension(next, bytes.get(at..).unwrap_or_default()) else { break };
        (next, later_fragment) = (step.next, later_fragment || step.later_fragment);
        at += step.length;
    }
    let rest = if later_fragment { &[] } else { within(bytes, at, length) };
    Some(Network {
        src: Ipv6Addr::from(src).into(),
        dst: Ipv6Addr::from(dst).into(),
        proto: next,
        length,
        rest,
        rest_length: length.saturating_sub(u32::try_from(at).unwrap_or(u32::MAX)),
    })
}

struct Extension {
    next: u8,
    length: usize,
    later_fragment: bool,
}

/// One IPv6 extension header; `None` for the transport, or where it was cut.
fn extension(kind: u8, bytes: &[u8]) -> Option<Extension> {
    let [next, units, o0, o1] = *bytes.first_chunk::<4>()?;
    let (length, later_fragment) = match kind {
        // Hop-by-hop, routing, destination, mobility, HIP, Shim6: units of 8 behind the first.
        0 | 43 | 60 | 135 | 139 | 140 => ((usize::from(units) + 1) * 8, false),
        44 => (8, u16::from_be_bytes([o0, o1]) & 0xfff8 != 0),
        // Authentication header: units of 4, less 2 (RFC 4302).
        51 => ((usize::from(units) + 2) * 4, false),
        _ => return None,
    };
    Some(Extension { next, length, later_fragment })
}

/// From `start` to the packet's own end, as far as copied.
fn within(bytes: &[u8], start: usize, length: u32) -> &[u8] {
    let end = usize::try_from(length).unwrap_or(usize::MAX).min(bytes.len());
    bytes.get(start..end).unwrap_or_default()
}

impl<'a> Network<'a> {
    fn transport(self) -> Packet<'a> {
        let (src_port, dst_port, transport) = match self.proto {
            proto::UDP => udp(self.rest),
            proto::TCP => tcp(self.rest, self.rest_length),
            proto::ICMP | proto::ICMPV6 => {
                let kind = self.rest.first_chunk().map_or(0, |b| u16::from_be_bytes(*b));
                (0, kind, Transport::Other)
            }
            _ => (0, 0, Transport::Other),
        };
        Packet {
            src: Endpoint::new(self.src.to_canonical(), src_port),
            dst: Endpoint::new(self.dst.to_canonical(), dst_port),
            proto: self.proto,
            length: self.length,
            transport,
        }
    }
}

fn ports(bytes: &[u8]) -> Option<(u16, u16)> {
    let [s0, s1, d0, d1] = *bytes.first_chunk::<4>()?;
    Some((u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1])))
}

fn udp(bytes: &[u8]) -> (u16, u16, Transport<'_>) {
    let (src, dst) = ports(bytes).unwrap_or_default();
    let transport = bytes.get(8..).map_or(Transport::Other, |data| Transport::Udp { data });
    (src, dst, transport)
}

fn tcp(bytes: &[u8], whole: u32) -> (u16, u16, Transport<'_>) {
    let (src, dst) = ports(bytes).unwrap_or_default();
    let Some(&[_, _, _, _, s0, s1, s2, s3, _, _, _, _, offset, flags]) = bytes.first_chunk::<14>()
    else {
        return (src, dst, Transport::Other);
    };
    let header = (offset >> 4) * 4;
    let data = bytes.get(usize::from(header)..).unwrap_or_default();
    let transport = Transport::Tcp {
        sequence: u32::from_be_bytes([s0, s1, s2, s3]),
        flags,
        data: if header < 20 { &[] } else { data },
        data_length: whole.saturating_sub(u32::from(header)),
    };
    (src, dst, transport)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v4(proto: u8, fragment: u16, transport: &[u8]) -> Vec<u8> {
        let length = 20 + transport.len() as u16;
        let mut out = vec![0x45, 0];
        out.extend(length.to_be_bytes());
        out.extend([0, 0]);
        out.extend(fragment.to_be_bytes());
        out.extend([64, proto, 0, 0, 192, 0, 2, 1, 203, 0, 113, 5]);
        out.extend(transport);
        out
    }

    /// `extensions`: (its own type, its bytes after the next-header byte).
    fn v6(extensions: &[(u8, Vec<u8>)], proto: u8, transport: &[u8]) -> Vec<u8> {
        let mut rest = Vec::new();
        for (i, (_, body)) in extensions.iter().enumerate() {
            rest.push(extensions.get(i + 1).map_or(proto, |e| e.0));
            rest.extend(body);
        }
        rest.extend(transport);
        let mut out = vec![0x60, 0, 0, 0];
        out.extend((rest.len() as u16).to_be_bytes());
        out.extend([extensions.first().map_or(proto, |e| e.0), 64]);
        out.extend("2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
        out.extend("2001:db8::2".parse::<Ipv6Addr>().unwrap().octets());
        out.extend(rest);
        out
    }

    const UDP: [u8; 10] = [0x30, 0x39, 0, 53, 0, 10, 0, 0, 0xab, 0xcd];

    #[track_caller]
    fn check(bytes: &[u8], expected: &str, data: &[u8]) {
        let p = parse(bytes).unwrap();
        assert_eq!(format!("{} > {} {}", p.src, p.dst, p.proto), expected);
        let got = match p.transport {
            Transport::Udp { data } | Transport::Tcp { data, .. } => data,
            Transport::Other => &[],
        };
        assert_eq!(got, data);
    }

    #[test]
    fn headers_of_both_families() {
        check(&v4(17, 0, &UDP), "192.0.2.1:12345 > 203.0.113.5:53 17", &[0xab, 0xcd]);
        check(&v6(&[], 17, &UDP), "[2001:db8::1]:12345 > [2001:db8::2]:53 17", &[0xab, 0xcd]);
        check(&v4(1, 0, &[8, 0, 1, 2]), "192.0.2.1:0 > 203.0.113.5:2048 1", &[]);
        check(&v6(&[], 58, &[128, 0]), "[2001:db8::1]:0 > [2001:db8::2]:32768 58", &[]);
        check(&v4(47, 0, &UDP), "192.0.2.1:0 > 203.0.113.5:0 47", &[]);
    }

    #[test]
    fn a_segment_tells_how_long_it_was() {
        let mut tcp =
            vec![0x9c, 0x42, 0, 53, 0, 0, 0, 9, 0, 0, 0, 0, 0x60, TCP_SYN, 0, 0, 0, 0, 0, 0];
        tcp.extend([1, 1, 1, 1, b'a', b'b', b'c', b'd']);
        let whole = v4(6, 0, &tcp);
        let cut = &whole[..whole.len() - 2];
        for (bytes, expected) in [(&whole[..], &b"abcd"[..]), (cut, b"ab")] {
            let Transport::Tcp { sequence, flags, data, data_length } =
                parse(bytes).unwrap().transport
            else {
                panic!("a segment");
            };
            assert_eq!((sequence, flags, data, data_length), (9, TCP_SYN, expected, 4));
        }
    }

    #[test]
    fn padding_is_no_payload_and_later_fragments_have_no_ports() {
        let mut padded = v4(17, 0, &UDP);
        padded.extend([0; 20]);
        check(&padded, "192.0.2.1:12345 > 203.0.113.5:53 17", &[0xab, 0xcd]);
        check(&v4(17, 0x2000, &UDP), "192.0.2.1:12345 > 203.0.113.5:53 17", &[0xab, 0xcd]);
        check(&v4(17, 0x00b9, &UDP), "192.0.2.1:0 > 203.0.113.5:0 17", &[]);
        let fragment = |offset: u16| {
            let [a, b] = offset.to_be_bytes();
            v6(&[(44, vec![0, a, b, 0, 0, 0, 1])], 17, &UDP)
        };
        check(&fragment(1), "[2001:db8::1]:12345 > [2001:db8::2]:53 17", &[0xab, 0xcd]);
        check(&fragment(8), "[2001:db8::1]:0 > [2001:db8::2]:0 17", &[]);
    }

    #[test]
    fn extension_headers_are_followed_and_bounded() {
        let options = |kind| (kind, vec![0u8; 7]);
        let ah = (51, vec![4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let bytes = v6(&[options(0), options(43), ah, options(60)], 17, &UDP);
        check(&bytes, "[2001:db8::1]:12345 > [2001:db8::2]:53 17", &[0xab, 0xcd]);
        let endless: Vec<_> = (0..EXTENSIONS_MAX + 1).map(|_| options(60)).collect();
        check(&v6(&endless, 17, &UDP), "[2001:db8::1]:0 > [2001:db8::2]:0 60", &[]);
    }

    #[test]
    fn what_is_cut_too_early_is_no_packet() {
        for bytes in [&[][..], &[0x45; 19], &[0x60; 39], &[0x44; 40], &[0x50; 60]] {
            assert_eq!(parse(bytes), Err(NoPacket), "{bytes:?}");
        }
        check(&v4(17, 0, &UDP)[..22], "192.0.2.1:0 > 203.0.113.5:0 17", &[]);
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(version in prop_oneof![Just(0x45u8), Just(0x4f), Just(0x60), any::<u8>()], rest in proptest::collection::vec(any::<u8>(), 0..120)) {
            let bytes: Vec<u8> = std::iter::once(version).chain(rest).collect();
            if let Ok(packet) = parse(&bytes)
                && let Transport::Tcp { data, .. } | Transport::Udp { data } = packet.transport
            {
                prop_assert!(data.len() < bytes.len());
            }
        }
    }
}
