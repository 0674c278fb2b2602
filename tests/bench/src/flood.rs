//! Many short connections that never leave the machine: each packet has a source of its own,
//! so each is a flow to the kernel's connection tracking, and costs the sender as little as
//! possible. The addresses are those of a home network, routed to this machine itself
//! ([`SUBNET`]): flows within 127.0.0.0/8 our collector leaves out by default.
//!
//! In: how many, how fast. Out: how many were sent and refused. Runs on the calling
//! thread inside the benchmark's namespace (raw sockets, see raw(7)).

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::measure::Stopwatch;

/// All addresses of these flows: `ip route add local SUBNET dev lo` makes them ours.
pub(crate) const SUBNET: &str = "10.77.0.0/16";
/// Where everything goes.
const SINK: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 77, 255, 1), 9_999);
/// Source ports of one address, above the privileged ones.
const PORTS: u32 = 60_000;
const PORT_FIRST: u32 = 2_000;
/// IPv4 header and UDP header.
const HEADER_BYTES: usize = 28;
/// How often a paced sender looks at the clock.
const PACE_STEP: Duration = Duration::from_millis(10);

/// Sends flows that never repeat a source.
pub(crate) struct Flood {
    raw: Socket,
    /// Keeps the port open, so that the kernel answers nothing; never read.
    _sink: Socket,
    next: u32,
}

impl Flood {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let sink = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        // As small as the kernel lets it be: connection tracking is measured, not delivery.
        sink.set_recv_buffer_size(1)?;
        sink.bind(&SockAddr::from(SINK))?;
        // SOCK_RAW with IPPROTO_RAW: we write the IP header.
        let raw = Socket::new(Domain::IPV4, Type::from(3), Some(Protocol::from(255)))?;
        Ok(Self { raw, _sink: sink, next: 0 })
    }

    /// Sends `count` new flows, at most `per_second` (0: as fast as it goes), and returns
    /// how many the kernel took.
    pub(crate) fn send(&mut self, count: u32, per_second: u32) -> anyhow::Result<u32> {
        let to = SockAddr::from(SocketAddr::V4(SINK));
        let watch = Stopwatch::start();
        let mut taken = 0;
        for sent in 0..count {
            if per_second > 0 {
                let due = Duration::from_secs_f64(f64::from(sent) / f64::from(per_second));
                if due > watch.elapsed() + PACE_STEP {
                    std::thread::sleep(PACE_STEP);
                }
            }
            let packet = packet(self.next);
            self.next += 1;
            match self.raw.send_to(&packet, &to) {
                Ok(_) => taken += 1,
                // Connection tracking is full, or the queue is: refused, and counted.
                Err(e) if matches!(e.raw_os_error(), Some(EPERM | ENOBUFS)) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(taken)
    }
}

const EPERM: i32 = 1;
const ENOBUFS: i32 = 105;

/// An empty UDP packet (RFC 768) in IPv4 (RFC 791) from source number `n` to the sink. The
/// kernel fills in the IP checksum; a UDP checksum of zero means none.
fn packet(n: u32) -> [u8; HEADER_BYTES] {
    let [_, _, third, fourth] = (n / PORTS).to_be_bytes();
    let source_port = u16::try_from(PORT_FIRST + n % PORTS).unwrap_or(u16::MAX);
    let mut p = [0; HEADER_BYTES];
    p[0] = 0x45; // version 4, header of 5 words
    p[3] = HEADER_BYTES as u8;
    p[8] = 64; // time to live
    p[9] = 17; // UDP
    p[12..16].copy_from_slice(&[10, 77, third, fourth]);
    p[16..20].copy_from_slice(&SINK.ip().octets());
    p[20..22].copy_from_slice(&source_port.to_be_bytes());
    p[22..24].copy_from_slice(&SINK.port().to_be_bytes());
    p[25] = 8; // UDP length
    p
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_packets_of_a_million_are_the_same_flow() {
        let mut seen: Vec<[u8; HEADER_BYTES]> = (0..1_000_000).map(packet).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 1_000_000);
    }
}
