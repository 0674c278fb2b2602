//! rtnetlink neighbour messages -> address, MAC, interface.
//!
//! In: one message of type `RTM_NEWNEIGH` or `RTM_DELNEIGH`. Out: a plain struct, no
//! allocation. Format: `include/uapi/linux/neighbour.h` (`struct ndmsg`, then attributes
//! `NDA_DST` and `NDA_LLADDR`), `include/uapi/linux/rtnetlink.h`. Pure.
//!
//! Invariants: never panics; only entries that name a device come out: no failed or
//! unfinished resolution, no multicast, no address without a MAC.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use agentmon_core::event::Mac;

use crate::netlink::message::{Message, attributes};

/// `RTM_NEWNEIGH`.
pub const NEW: u16 = 28;
/// `RTM_GETNEIGH`.
pub const GET: u16 = 30;
/// Bytes of `struct ndmsg`.
pub const HEADER_BYTES: usize = 12;

/// `NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE | NUD_PERMANENT`: the MAC is, or was
/// lately, right. Not `NUD_INCOMPLETE`, `NUD_FAILED`; not `NUD_NOARP`, which loopback and
/// multicast entries have.
const STATES: u16 = 0x02 | 0x04 | 0x08 | 0x10 | 0x80;

/// One neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Raw {
    /// Its address.
    pub ip: IpAddr,
    /// Its link-layer address.
    pub mac: Mac,
    /// Index of the interface it is behind.
    pub index: u32,
}

/// Reads one message; `None` when it names no device.
#[must_use]
pub fn decode(message: &Message<'_>) -> Option<Raw> {
    let (header, rest) = message.body.split_first_chunk::<HEADER_BYTES>()?;
    let [_, _, _, _, i0, i1, i2, i3, s0, s1, _, _] = *header;
    if message.kind != NEW || u16::from_ne_bytes([s0, s1]) & STATES == 0 {
        return None;
    }
    let (mut ip, mut mac) = (None, None);
    for attribute in attributes(rest) {
        let attribute = attribute.ok()?;
        match attribute.kind {
            1 => ip = address(attribute.value),
            2 => mac = attribute.value.try_into().ok().map(Mac),
            _ => {}
        }
    }
    let (ip, mac) = (ip?.to_canonical(), mac?);
    let names_a_device =
        !ip.is_multicast() && !ip.is_unspecified() && !mac.is_group() && mac.0 != [0; 6];
    let index = u32::from_ne_bytes([i0, i1, i2, i3]);
    names_a_device.then_some(Raw { ip, mac, index })
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(v4).into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|v6| Ipv6Addr::from(v6).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn body(state: u16, ip: &[u8], mac: &[u8]) -> Vec<u8> {
        let mut out = vec![2, 0, 0, 0];
        out.extend(7u32.to_ne_bytes());
        out.extend(state.to_ne_bytes());
        out.extend([0, 1]);
        for (kind, value) in [(1u16, ip), (2, mac)] {
            out.extend((value.len() as u16 + 4).to_ne_bytes());
            out.extend(kind.to_ne_bytes());
            out.extend(value);
            out.resize(out.len().next_multiple_of(4), 0);
        }
        out
    }

    #[track_caller]
    fn check(kind: u16, body: &[u8], expected: Option<&str>) {
        let message = Message { kind, flags: 0, sequence: 0, body };
        let shown = decode(&message).map(|n| format!("{} {} {}", n.ip, n.mac, n.index));
        assert_eq!(shown.as_deref(), expected);
    }

    #[test]
    fn only_devices_come_out() {
        const MAC: [u8; 6] = [0, 0, 0x5e, 0, 0x53, 1];
        const IP: [u8; 4] = [192, 0, 2, 9];
        let v6 = "2001:db8::9".parse::<Ipv6Addr>().unwrap().octets();
        let group = "ff02::fb".parse::<Ipv6Addr>().unwrap().octets();
        let reachable = 0x02;
        check(NEW, &body(reachable, &IP, &MAC), Some("192.0.2.9 00:00:5e:00:53:01 7"));
        check(NEW, &body(0x04, &v6, &MAC), Some("2001:db8::9 00:00:5e:00:53:01 7"));
        check(29, &body(reachable, &IP, &MAC), None);
        check(NEW, &body(0x01, &IP, &MAC), None);
        check(NEW, &body(0x20, &IP, &MAC), None);
        check(NEW, &body(0x40, &IP, &MAC), None);
        check(NEW, &body(reachable, &group, &MAC), None);
        check(NEW, &body(reachable, &IP, &[1, 0, 0x5e, 0, 0, 1]), None);
        check(NEW, &body(reachable, &IP, &[0; 6]), None);
        check(NEW, &body(reachable, &IP, &[1, 2, 3, 4]), None);
        check(NEW, &body(reachable, &IP, &MAC)[..11], None);
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(raw) = decode(&Message { kind: NEW, flags: 0, sequence: 0, body: &body }) {
                prop_assert!(!raw.mac.is_group());
            }
        }
    }
}
