//! Sockets by `sock_diag` netlink: dumps, and the end of each.
//!
//! Format: `include/uapi/linux/sock_diag.h`, `inet_diag.h` (`inet_diag_req_v2` of 56 bytes,
//! `inet_diag_msg` of 72 bytes in host order but for ports and addresses), `tcp.h`
//! (`tcp_info`). In: datagrams. Out: [`Seen`] sockets. Decoding is pure.
//!
//! Invariants: never panics; of what the kernel adds later nothing is needed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use agentmon_core::event::{Endpoint, Volume, unmap};
use agentmon_core::service::proto;
use agentmon_router::netlink::message::{
    NLM_F_DUMP, NLMSG_DONE, NLMSG_ERROR, attributes, messages,
};
use agentmon_router::netlink::{NetlinkError, Received, Request, Socket};

pub use crate::platform::Seen;

/// `NETLINK_SOCK_DIAG`.
const PROTOCOL: isize = 4;
/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
/// `INET_DIAG_INFO`, and its bit in a request.
const INFO: u16 = 2;
/// `INET_DIAG_PROTOCOL`.
const PROTO: u16 = 10;
/// `SKNLGRP_INET_TCP_DESTROY` and so on: TCP and UDP of both families.
const DESTROY_GROUPS: [u32; 4] = [1, 2, 3, 4];
/// Of those, UDP's.
const UDP_GROUPS: [u32; 2] = [2, 4];
/// Every state but `TCP_TIME_WAIT` (6) and `TCP_NEW_SYN_RECV` (12), which nobody owns.
const STATES: u32 = 0x0fff & !(1 << 6);
/// `TCP_CLOSE`: of UDP, one that is not connected.
const CLOSE: u8 = 7;
/// `TCP_LISTEN`.
const LISTEN: u8 = 10;
/// Most datagrams of one dump: 64 sockets each, a million in all.
const DUMP_DATAGRAMS_MAX: usize = 16_384;

/// Reads one message of a dump or of an end.
#[must_use]
pub fn decode(body: &[u8], asked: u8) -> Option<Seen> {
    let (head, rest) = body.split_at_checked(72)?;
    let (family, state) = (*head.first()?, *head.get(1)?);
    let word = |at: usize| -> Option<u32> {
        Some(u32::from_ne_bytes(head.get(at..at + 4)?.try_into().ok()?))
    };
    let port = |at: usize| -> Option<u16> {
        Some(u16::from_be_bytes(head.get(at..at + 2)?.try_into().ok()?))
    };
    let ip = |at: usize| -> Option<IpAddr> {
        match i32::from(family) {
            AF_INET => {
                Some(Ipv4Addr::from(<[u8; 4]>::try_from(head.get(at..at + 4)?).ok()?).into())
            }
            AF_INET6 => {
                let v6 = <[u8; 16]>::try_from(head.get(at..at + 16)?).ok()?;
                Some(unmap(Ipv6Addr::from(v6).into()))
            }
            _ => None,
        }
    };
    let mut seen = Seen {
        cookie: u64::from(word(44)?) | u64::from(word(48)?) << 32,
        inode: word(68)?,
        proto: asked,
        local: Endpoint::new(ip(8)?, port(4)?),
        remote: Endpoint::new(ip(24)?, port(6)?),
        listens: false,
        uid: word(64)?,
        volume: None,
    };
    for attribute in attributes(rest).map_while(Result::ok) {
        match attribute.kind {
            PROTO => seen.proto = attribute.value.first().copied().unwrap_or(asked),
            INFO => seen.volume = volume(attribute.value),
            _ => {}
        }
    }
    seen.listens =
        state == LISTEN || (seen.proto == proto::UDP && state == CLOSE && seen.remote.port == 0);
    Some(seen)
}

const AF_INET: i32 = 2;
const AF_INET6: i32 = 10;

/// `tcp_info`: `bytes_acked` at 120, `bytes_received`, `segs_out`, `segs_in`.
fn volume(info: &[u8]) -> Option<Volume> {
    let long = |at: usize| Some(u64::from_ne_bytes(info.get(at..at + 8)?.try_into().ok()?));
    let word = |at: usize| Some(u32::from_ne_bytes(info.get(at..at + 4)?.try_into().ok()?));
    Some(Volume {
        bytes_out: long(120)?,
        bytes_in: long(128)?,
        packets_out: u64::from(word(136)?),
        packets_in: u64::from(word(140)?),
    })
}

fn request(family: i32, protocol: u8) -> Request {
    let mut body = [0u8; 56];
    body[0] = family as u8;
    body[1] = protocol;
    body[2] = 1 << (INFO - 1);
    body[4..8].copy_from_slice(&STATES.to_ne_bytes());
    Request::new(BY_FAMILY, NLM_F_DUMP).body(&body)
}

/// Asks for sockets.
#[derive(Debug)]
pub struct Diag {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Diag {
    /// Needs no privilege.
    ///
    /// # Errors
    /// A kernel without `CONFIG_INET_DIAG`.
    pub fn open() -> Result<Self, NetlinkError> {
        let socket = Socket::open(PROTOCOL)?;
        Ok(Self { socket, buffer: vec![0; agentmon_router::netlink::DATAGRAM_BYTES_MAX] })
    }

    /// All sockets of TCP and UDP, both families, of this network namespace.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn dump(&mut self, found: &mut Vec<Seen>) -> Result<(), NetlinkError> {
        found.clear();
        for family in [AF_INET, AF_INET6] {
            for protocol in [proto::TCP, proto::UDP] {
                self.dump_one(family, protocol, found)?;
            }
        }
        Ok(())
    }

    fn dump_one(
        &mut self,
        family: i32,
        protocol: u8,
        found: &mut Vec<Seen>,
    ) -> Result<(), NetlinkError> {
        let action = "asking for sockets";
        let sequence = self.socket.send(action, request(family, protocol))?;
        for _ in 0..DUMP_DATAGRAMS_MAX {
            let data = match self.socket.receive(&mut self.buffer)? {
                Received::Data(data) => data,
                Received::Empty => {
                    if !self.socket.wait(Duration::from_secs(2))? {
                        return Err(NetlinkError::Silent { action, seconds: 2 });
                    }
                    continue;
                }
                Received::Overrun | Received::Skipped => continue,
            };
            for message in messages(data).map_while(Result::ok).filter(|m| m.sequence == sequence) {
                match message.kind {
                    NLMSG_DONE => return Ok(()),
                    // A kernel without the protocol's module says so once.
                    NLMSG_ERROR => return Ok(()),
                    _ => found.extend(decode(message.body, protocol)),
                }
            }
        }
        Ok(())
    }
}

/// Is told of each socket's end.
#[derive(Debug)]
pub struct Ends {
    socket: Socket,
    buffer: Vec<u8>,
}

/// What one look at the ends gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looked {
    /// All there was.
    All,
    /// The kernel had to drop some.
    Overrun,
}

/// Whose ends are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Groups {
    /// TCP's and UDP's.
    All,
    /// UDP's.
    Udp,
}

impl Ends {
    /// Needs `CAP_NET_ADMIN`.
    ///
    /// # Errors
    /// Without it, or on a kernel without `CONFIG_INET_DIAG_DESTROY`'s groups.
    pub fn open(groups: Groups) -> Result<Self, NetlinkError> {
        let socket = Socket::open(PROTOCOL)?;
        socket.set_receive_buffer(4 * 1024 * 1024)?;
        let groups = if groups == Groups::All { &DESTROY_GROUPS[..] } else { &UDP_GROUPS };
        for group in groups {
            socket.join(*group)?;
        }
        Ok(Self { socket, buffer: vec![0; agentmon_router::netlink::DATAGRAM_BYTES_MAX] })
    }

    /// Everything since the last time.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn take(&mut self, found: &mut Vec<Seen>) -> Result<Looked, NetlinkError> {
        let mut looked = Looked::All;
        loop {
            match self.socket.receive(&mut self.buffer)? {
                Received::Data(data) => {
                    let messages = messages(data).map_while(Result::ok);
                    found.extend(messages.filter_map(|m| decode(m.body, proto::TCP)));
                }
                Received::Empty => return Ok(looked),
                Received::Overrun => looked = Looked::Overrun,
                Received::Skipped => {}
            }
        }
    }

    /// To wait on.
    #[must_use]
    pub const fn socket(&self) -> &Socket {
        &self.socket
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An `inet_diag_msg` as the kernel lays it out.
    fn message(family: u8, state: u8) -> Vec<u8> {
        let mut bytes = vec![0; 72];
        (bytes[0], bytes[1]) = (family, state);
        bytes[4..6].copy_from_slice(&40_000u16.to_be_bytes());
        bytes[6..8].copy_from_slice(&443u16.to_be_bytes());
        bytes[8..12].copy_from_slice(&[192, 0, 2, 1]);
        bytes[24..28].copy_from_slice(&[203, 0, 113, 5]);
        bytes[44..48].copy_from_slice(&7u32.to_ne_bytes());
        bytes[64..68].copy_from_slice(&1_000u32.to_ne_bytes());
        bytes[68..72].copy_from_slice(&99u32.to_ne_bytes());
        bytes
    }

    #[test]
    fn a_socket_with_its_counts() {
        let mut bytes = message(2, 1);
        let mut info = vec![0u8; 280];
        info[120..128].copy_from_slice(&10u64.to_ne_bytes());
        info[128..136].copy_from_slice(&20u64.to_ne_bytes());
        bytes.extend_from_slice(&284u16.to_ne_bytes());
        bytes.extend_from_slice(&INFO.to_ne_bytes());
        bytes.extend_from_slice(&info);
        let seen = decode(&bytes, proto::TCP).unwrap();
        assert_eq!((seen.cookie, seen.inode, seen.uid, seen.listens), (7, 99, 1_000, false));
        assert_eq!(format!("{} {}", seen.local, seen.remote), "192.0.2.1:40000 203.0.113.5:443");
        let volume = seen.volume.unwrap();
        assert_eq!((volume.bytes_out, volume.bytes_in), (10, 20));
        assert!(decode(&message(2, LISTEN), proto::TCP).unwrap().listens);
        assert_eq!(decode(&message(9, 1), proto::TCP), None);
        assert_eq!(decode(&bytes[..71], proto::TCP), None);
    }

    #[test]
    fn this_machines_own_sockets_are_there() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let mut found = Vec::new();
        Diag::open().unwrap().dump(&mut found).unwrap();
        assert!(found.iter().any(|s| s.listens && s.local.port == port && s.inode > 0));
        let local = stream.local_addr().unwrap().port();
        assert!(found.iter().any(|s| s.local.port == local && s.remote.port == port));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
            drop(decode(&bytes, 6));
        }
    }
}
