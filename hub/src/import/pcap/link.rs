//! From a frame to the IP packet in it.
//!
//! In: a frame and its link type. Out: the bytes from the IP header on. Pure; no allocation.
//!
//! Formats: tcpdump.org/linktypes.html; IEEE 802.1Q and 802.1ad (tags), RFC 2516 (PPPoE),
//! RFC 1661 (PPP), pcap-linktype's LINUX_SLL, LINUX_SLL2 and NFLOG.
//!
//! Invariants: never panics; at most [`TAGS_MAX`] tags are followed.

/// Most VLAN tags before a packet; more than two are rare.
const TAGS_MAX: usize = 8;
/// Most attributes of a logged packet.
const ATTRIBUTES_MAX: usize = 64;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carried<'a> {
    Ip(&'a [u8]),
    /// ARP and the like, or cut within the link header.
    Other,
    /// The link type is not one that is read.
    UnknownLink,
}

/// Looks behind the link header.
pub(super) fn carried(link: i32, frame: &[u8]) -> Carried<'_> {
    let ip = match link {
        // NULL, LOOP: the family, in an order of bytes that differs; IP says itself which it is.
        0 | 108 => frame.get(4..),
        // ETHERNET
        1 => tagged(frame, 12),
        // PPP
        9 => ppp(frame),
        // RAW as three systems number it, IPV4, IPV6
        12 | 14 | 101 | 228 | 229 => Some(frame),
        // LINUX_SLL, LINUX_SLL2: what tcpdump -i any makes
        113 => tagged(frame, 14),
        276 => frame.first_chunk::<2>().and_then(|kind| behind(*kind, frame.get(20..)?, TAGS_MAX)),
        // NFLOG
        239 => logged(frame),
        _ => return Carried::UnknownLink,
    };
    match ip.filter(|ip| matches!(ip.first().map(|b| b >> 4), Some(4 | 6))) {
        Some(ip) => Carried::Ip(ip),
        None => Carried::Other,
    }
}

/// The kind of packet stands at `at`, the packet behind it.
fn tagged(frame: &[u8], at: usize) -> Option<&[u8]> {
    let (kind, rest) = frame.get(at..)?.split_first_chunk::<2>()?;
    behind(*kind, rest, TAGS_MAX)
}

fn behind(kind: [u8; 2], rest: &[u8], tags: usize) -> Option<&[u8]> {
    match u16::from_be_bytes(kind) {
        0x0800 | 0x86dd => Some(rest),
        0x8100 | 0x88a8 | 0x9100 if tags > 0 => {
            let (kind, rest) = rest.get(2..)?.split_first_chunk::<2>()?;
            behind(*kind, rest, tags - 1)
        }
        0x8864 => ppp(rest.get(6..)?),
        _ => None,
    }
}

fn ppp(frame: &[u8]) -> Option<&[u8]> {
    let frame = frame.strip_prefix(&[0xff, 0x03]).unwrap_or(frame);
    let (kind, rest) = frame.split_first_chunk::<2>()?;
    matches!(u16::from_be_bytes(*kind), 0x0021 | 0x0057).then_some(rest)
}

/// Attributes of `NFULNL_MSG_PACKET` (`linux/netfilter/nfnetlink_log.h`) behind four bytes, in
/// the order of bytes of the machine that wrote them.
fn logged(frame: &[u8]) -> Option<&[u8]> {
    payload(frame.get(4..)?, u16::from_le_bytes)
        .or_else(|| payload(frame.get(4..)?, u16::from_be_bytes))
}

fn payload(mut rest: &[u8], number: fn([u8; 2]) -> u16) -> Option<&[u8]> {
    const PAYLOAD: u16 = 9;
    for _ in 0..ATTRIBUTES_MAX {
        let [l0, l1, t0, t1] = *rest.first_chunk::<4>()?;
        let length = usize::from(number([l0, l1]));
        if number([t0, t1]) == PAYLOAD {
            return rest.get(4..);
        }
        rest = rest.get(length.max(4).next_multiple_of(4)..)?;
    }
    None
}

/// Of a packet that is a fragment: what all fragments of it share, and whether this is not
/// the first.
pub(super) fn fragment(ip: &[u8]) -> Option<(u32, bool)> {
    let word = |at: usize| Some(u16::from_be_bytes(*ip.get(at..)?.first_chunk::<2>()?));
    if ip.first()? >> 4 == 4 {
        let (id, place) = (word(4)?, word(6)?);
        return (place & 0x3fff != 0).then_some((u32::from(id), place & 0x1fff != 0));
    }
    let (mut next, mut at) = (*ip.get(6)?, 40usize);
    for _ in 0..agentmon_router::packet::EXTENSIONS_MAX {
        match next {
            0 | 43 | 60 => {
                next = *ip.get(at)?;
                at += (usize::from(*ip.get(at + 1)?) + 1) * 8;
            }
            44 => {
                let id = u32::from_be_bytes(*ip.get(at + 4..)?.first_chunk::<4>()?);
                return Some((id, word(at + 2)? & 0xfff8 != 0));
            }
            _ => return None,
        }
    }
    None
}

/// What tcpdump calls a link type.
pub(super) const fn name(link: i32) -> &'static str {
    match link {
        3 => "AX25",
        6 => "IEEE802_5",
        7 => "ARCNET",
        8 => "SLIP",
        10 => "FDDI",
        50 => "PPP_HDLC",
        51 => "PPP_ETHER",
        104 => "C_HDLC",
        105 => "IEEE802_11",
        107 => "FRELAY",
        117 => "PFLOG",
        119 => "IEEE802_11_PRISM",
        122 => "IP_OVER_FC",
        127 => "IEEE802_11_RADIOTAP",
        147..=162 => "USER",
        163 => "IEEE802_11_AVS",
        187 => "BLUETOOTH_HCI_H4",
        189 => "USB_LINUX",
        192 => "PPI",
        195 => "IEEE802_15_4_WITHFCS",
        201 => "BLUETOOTH_HCI_H4_WITH_PHDR",
        220 => "USB_LINUX_MMAPPED",
        227 => "CAN_SOCKETCAN",
        230 => "IEEE802_15_4_NOFCS",
        249 => "USBPCAP",
        251 => "BLUETOOTH_LE_LL",
        252 => "WIRESHARK_UPPER_PDU",
        253 => "NETLINK",
        258 => "PKTAP",
        _ => "of no known name",
    }
}
