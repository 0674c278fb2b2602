//! A netlink socket: open, join groups, ask, receive without waiting.
//!
//! In: requests. Out: raw datagrams from the kernel (nobody else's are let through).
//! Runs on the thread of the collector that owns it; reads never block, waiting is a call
//! of its own. Budget: one system call per datagram; the caller owns the buffer.
//!
//! Invariants: a lost datagram (`ENOBUFS`) is told as [`Received::Overrun`], never
//! swallowed; errors name the capability, module or kernel option that is missing.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use netlink_sys::{Socket as RawSocket, SocketAddr};

use super::message::{Messages, Request, messages};
use crate::sys::{self, Batch};

/// Receive buffer for one datagram. Dumps come in pieces of up to 32 KiB since kernel 4.4;
/// a smaller buffer makes the kernel send smaller, more pieces or cut batches.
pub const DATAGRAM_BYTES_MAX: usize = 64 * 1024;

/// Why netlink does not work here, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// No capability.
    #[error(
        "{action}: not permitted; run as root or give the program CAP_NET_ADMIN \
         (setcap cap_net_admin+ep FILE, or AmbientCapabilities= in its unit)"
    )]
    Permission {
        /// What was tried.
        action: &'static str,
    },
    /// The kernel (or the emulator in front of it) has no such protocol.
    #[error(
        "{action}: this kernel does not offer netfilter over netlink; load nfnetlink \
         (OpenWrt: kmod-nfnetlink), and do not run under an emulator such as qemu-user"
    )]
    Protocol {
        /// What was tried.
        action: &'static str,
    },
    /// nfnetlink is there, the subsystem asked for is not.
    #[error("{action}: the kernel module is missing; load {module}")]
    Module {
        /// What was tried.
        action: &'static str,
        /// What to load.
        module: &'static str,
    },
    /// Another program holds the NFLOG group.
    #[error("{action}: in use by another program; choose another group in the configuration")]
    Busy {
        /// What was tried.
        action: &'static str,
    },
    /// The kernel did not answer a request.
    #[error("{action}: no answer from the kernel within {seconds} s")]
    Silent {
        /// What was tried.
        action: &'static str,
        /// How long.
        seconds: u64,
    },
    /// Everything else.
    #[error("{action}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl NetlinkError {
    /// Sorts a system error by what mends it.
    #[must_use]
    pub fn from_io(action: &'static str, source: io::Error) -> Self {
        match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Self::Permission { action },
            Some(libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT | libc::ESOCKTNOSUPPORT) => {
                Self::Protocol { action }
            }
            Some(libc::EBUSY | libc::EADDRINUSE) => Self::Busy { action },
            _ => Self::Io { action, source },
        }
    }
}

/// What one read gave.
#[derive(Debug)]
pub enum Received<D> {
    /// What the kernel sent.
    Data(D),
    /// Nothing waiting.
    Empty,
    /// The socket buffer was full: an unknown number of messages is lost.
    Overrun,
    /// A datagram to be skipped: from another process, or larger than the buffer.
    Skipped,
}

/// An open netlink socket.
#[derive(Debug)]
pub struct Socket {
    inner: RawSocket,
    sequence: u32,
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

impl Socket {
    /// Opens and binds a socket of that protocol (`NETLINK_NETFILTER`, `NETLINK_ROUTE`).
    ///
    /// # Errors
    /// [`NetlinkError`], with what is missing.
    pub fn open(protocol: isize) -> Result<Self, NetlinkError> {
        let action = "opening a netlink socket";
        let mut inner = RawSocket::new(protocol).map_err(|e| NetlinkError::from_io(action, e))?;
        inner.bind_auto().map_err(|e| NetlinkError::from_io(action, e))?;
        Ok(Self { inner, sequence: 0 })
    }

    /// The socket below, for options.
    #[must_use]
    pub const fn raw(&self) -> &RawSocket {
        &self.inner
    }

    /// Asks for a receive buffer of `bytes`; returns what the kernel accounts with.
    ///
    /// # Errors
    /// When the buffer's size cannot be read back.
    pub fn set_receive_buffer(&self, bytes: usize) -> Result<usize, NetlinkError> {
        sys::set_receive_buffer(self.as_fd(), bytes)
            .map_err(|e| NetlinkError::from_io("setting the receive buffer", e))
    }

    /// Joins a multicast group.
    ///
    /// # Errors
    /// [`NetlinkError::Permission`] without `CAP_NET_ADMIN`.
    pub fn join(&self, group: u32) -> Result<(), NetlinkError> {
        self.inner
            .add_membership(group)
            .map_err(|e| NetlinkError::from_io("subscribing to kernel events", e))
    }

    /// Waits until there is something to receive, at most `timeout`.
    ///
    /// # Errors
    /// What `poll` says.
    pub fn wait(&self, timeout: Duration) -> Result<bool, NetlinkError> {
        sys::wait_readable(self.as_fd(), timeout)
            .map_err(|e| NetlinkError::from_io("waiting for the kernel", e))
    }

    /// Sends a request and returns its sequence number.
    ///
    /// # Errors
    /// What `send` says.
    pub fn send(&mut self, action: &'static str, request: Request) -> Result<u32, NetlinkError> {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        let bytes = request.finish(self.sequence);
        self.inner
            .send_to(&bytes, &SocketAddr::new(0, 0), 0)
            .map_err(|e| NetlinkError::from_io(action, e))?;
        Ok(self.sequence)
    }

    /// One datagram, without waiting.
    ///
    /// # Errors
    /// Whatever is neither "nothing there" nor "buffer overrun".
    pub fn receive<'b>(&self, buffer: &'b mut [u8]) -> Result<Received<&'b [u8]>, NetlinkError> {
        let room = buffer.len();
        let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
        let (length, from) = match self.inner.recv_from(&mut &mut buffer[..], flags) {
            Ok(got) => got,
            Err(error) => return without_data(error),
        };
        // Port 0 is the kernel. Another process with CAP_NET_ADMIN could send to us.
        match buffer.get(..length) {
            Some(data) if from.port_number() == 0 && length <= room => Ok(Received::Data(data)),
            _ => Ok(Received::Skipped),
        }
    }

    /// All datagrams that wait, at most a batch of small ones, with one system call.
    ///
    /// # Errors
    /// Whatever is neither "nothing there" nor "buffer overrun".
    pub fn receive_batch<'b>(
        &self,
        batch: &'b mut Batch,
    ) -> Result<Received<&'b Batch>, NetlinkError> {
        match batch.receive(self.as_fd()) {
            Ok(()) => Ok(Received::Data(batch)),
            Err(error) => without_data(error),
        }
    }

    /// Sends a request and waits for its acknowledgement; other messages are dropped.
    ///
    /// # Errors
    /// The error number of the answer as [`NetlinkError`], or [`NetlinkError::Silent`].
    pub fn ask(
        &mut self,
        action: &'static str,
        request: Request,
        buffer: &mut [u8],
    ) -> Result<(), NetlinkError> {
        const WAITS_MAX: u64 = 20;
        let sequence = self.send(action, request)?;
        for _ in 0..WAITS_MAX {
            if let Some(number) = self.outcome_of(sequence, buffer)? {
                return match number {
                    0 => Ok(()),
                    n => Err(NetlinkError::from_io(action, io::Error::from_raw_os_error(n))),
                };
            }
            self.wait(Duration::from_millis(100))?;
        }
        Err(NetlinkError::Silent { action, seconds: WAITS_MAX / 10 })
    }

    /// Reads what waits until the outcome of that request comes by.
    fn outcome_of(&self, sequence: u32, buffer: &mut [u8]) -> Result<Option<i32>, NetlinkError> {
        // A busy group may push packets between request and answer; bounded all the same.
        for _ in 0..10_000 {
            let Received::Data(data) = (match self.receive(buffer)? {
                Received::Empty => return Ok(None),
                other => other,
            }) else {
                continue;
            };
            if let Some(number) = outcome_in(messages(data), sequence) {
                return Ok(Some(number));
            }
        }
        Ok(None)
    }
}

/// What a read that gave nothing means.
fn without_data<D>(error: io::Error) -> Result<Received<D>, NetlinkError> {
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EINTR) => Ok(Received::Empty),
        Some(libc::ENOBUFS) => Ok(Received::Overrun),
        _ => Err(NetlinkError::from_io("receiving from the kernel", error)),
    }
}

fn outcome_in(messages: Messages<'_>, sequence: u32) -> Option<i32> {
    messages.flatten().filter(|m| m.sequence == sequence).find_map(|m| m.outcome())
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.inner.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn says(number: i32, words: &str) {
        let error = NetlinkError::from_io("testing", io::Error::from_raw_os_error(number));
        let text = error.to_string();
        assert!(text.contains(words) && text.lines().count() == 1, "{text}");
    }

    #[test]
    fn errors_say_what_to_do() {
        says(libc::EPERM, "CAP_NET_ADMIN");
        says(libc::EPROTONOSUPPORT, "qemu");
        says(libc::EBUSY, "another group");
        says(libc::EINVAL, "testing: ");
    }

    #[test]
    fn the_kernel_answers_a_wrong_request_with_an_error() {
        // Routing netlink needs no capability: an unknown type is refused by number.
        let mut socket = Socket::open(netlink_sys::protocols::NETLINK_ROUTE).unwrap();
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        assert!(matches!(socket.receive(&mut buffer).unwrap(), Received::Empty));
        let request = Request::new(0x3fff, super::super::message::NLM_F_ACK).body(&[0; 16]);
        assert!(matches!(
            socket.ask("testing", request, &mut buffer),
            Err(NetlinkError::Io { source, .. }) if source.raw_os_error() == Some(libc::EOPNOTSUPP)
        ));
    }
}
