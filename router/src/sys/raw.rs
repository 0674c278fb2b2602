//! Whole IP packets, sent as they are: raw(7), with our own headers.
//!
//! In: a packet from its IP header on. Out: it is on its way by the routing table. Needs
//! `CAP_NET_RAW`. One thread. Invariant: never waits.

use std::io;
use std::mem::size_of;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Sockets for both families.
#[derive(Debug)]
pub struct RawSender {
    v4: OwnedFd,
    /// `None` on a kernel without IPv6.
    v6: Option<OwnedFd>,
}

impl RawSender {
    /// Opens them; what they send bears the mark.
    ///
    /// # Errors
    /// Mostly `EPERM`, without the capability.
    pub fn open(mark: u32) -> io::Result<Self> {
        let v4 = socket(libc::AF_INET)?;
        set_mark(v4.as_fd(), mark)?;
        let v6 = match socket(libc::AF_INET6) {
            Ok(v6) => {
                set_mark(v6.as_fd(), mark)?;
                Some(v6)
            }
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => None,
            Err(error) => return Err(error),
        };
        Ok(Self { v4, v6 })
    }

    /// Sends a packet to its receiver. A link-local one is behind the interface of this
    /// index.
    ///
    /// # Errors
    /// What the kernel says: no way there, no room just now.
    pub fn send(&self, packet: &[u8], to: IpAddr, interface: u32) -> io::Result<()> {
        match to {
            IpAddr::V4(ip) => {
                let address = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: 0,
                    sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(ip.octets()) },
                    sin_zero: [0; 8],
                };
                send(self.v4.as_fd(), packet, &address)
            }
            IpAddr::V6(ip) => {
                let Some(v6) = &self.v6 else { return Err(libc_error(libc::EAFNOSUPPORT)) };
                let link_local = ip.is_unicast_link_local();
                let address = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: 0,
                    sin6_flowinfo: 0,
                    sin6_addr: libc::in6_addr { s6_addr: ip.octets() },
                    sin6_scope_id: if link_local { interface } else { 0 },
                };
                send(v6.as_fd(), packet, &address)
            }
        }
    }
}

fn libc_error(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

/// `IPPROTO_RAW`: what is sent brings its header along, in both families.
fn socket(family: libc::c_int) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no pointers; the result is checked before it is used.
    let fd = unsafe { libc::socket(family, kind, libc::IPPROTO_RAW) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn send<A>(fd: BorrowedFd<'_>, packet: &[u8], to: &A) -> io::Result<()> {
    // SAFETY: both pointers and lengths describe live values: the packet, and one of the two
    // socket address structures of above.
    let sent = unsafe {
        libc::sendto(
            fd.as_raw_fd(),
            packet.as_ptr().cast(),
            packet.len(),
            libc::MSG_NOSIGNAL,
            std::ptr::from_ref(to).cast(),
            size_of::<A>() as libc::socklen_t,
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Marks everything a socket sends (`SO_MARK`). Needs `CAP_NET_ADMIN`.
///
/// # Errors
/// What the kernel says, mostly `EPERM`.
pub fn set_mark(fd: BorrowedFd<'_>, mark: u32) -> io::Result<()> {
    // SAFETY: the pointer and length describe `mark`, which lives across the call.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MARK,
            (&raw const mark).cast(),
            size_of::<u32>() as libc::socklen_t,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
