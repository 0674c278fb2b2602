//! The pulse that keeps the rules in force.
//!
//! The rules match only while the kernel has seen our pulse within the last second: a
//! datagram of this program to itself, with the mark [`PULSE`], which the rules note with a
//! time-out (see `kernel::hold`). So it is the kernel that takes the rules out of force
//! when this program is frozen, starved or gone, and nobody has to be awake for that.
//!
//! Runs on the thread that watches over the queue's, which sends one every 250 ms while the
//! queue's thread makes progress. Budget: four system calls.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::AsFd as _;

use crate::sys;

/// Mark of the pulse. Marks cannot come in over a network; on this machine setting one
/// needs `CAP_NET_ADMIN`.
pub const PULSE: u32 = 0x616d_0001;
/// Mark of packets that the rules shall refuse.
pub const REFUSE: u32 = 0x616d_0002;
/// Mark of our own answers, so that connection tracking leaves them alone.
pub const ANSWER: u32 = 0x616d_0003;

/// Sends pulses.
#[derive(Debug)]
pub(super) struct Pulse(Vec<UdpSocket>);

impl Pulse {
    /// For both families where there are both.
    pub(super) fn open() -> io::Result<Self> {
        let loopbacks: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        let mut sockets = Vec::new();
        let mut problem = None;
        for ip in loopbacks {
            match open(ip) {
                Ok(socket) => sockets.push(socket),
                Err(error) => problem = Some(error),
            }
        }
        match (sockets.is_empty(), problem) {
            (true, Some(error)) => Err(error),
            _ => Ok(Self(sockets)),
        }
    }

    /// One pulse; whether it was sent. Earlier ones are thrown away: they have done their
    /// work on the way.
    pub(super) fn beat(&self) -> bool {
        let sent = self.0.iter().filter(|socket| {
            while socket.recv(&mut [0]).is_ok() {}
            socket.send(&[0]).is_ok()
        });
        sent.count() > 0
    }
}

fn open(ip: IpAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((ip, 0))?;
    socket.connect(socket.local_addr()?)?;
    socket.set_nonblocking(true)?;
    sys::set_mark(socket.as_fd(), PULSE)?;
    Ok(socket)
}
