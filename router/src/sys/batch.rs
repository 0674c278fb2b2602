//! Many netlink datagrams with one system call: `recvmmsg(2)`.
//!
//! In: a netlink socket. Out: the datagrams that wait, in slots that are used again by the
//! next call. Belongs to one thread. Budget: [`SLOTS`] × [`SLOT_BYTES`] of memory.
//!
//! Invariants: never waits; a datagram from anybody but the kernel, or larger than its
//! slot, is told as `None`, never handed out or cut in silence; an error behind the first
//! datagram is told by the next call (the kernel keeps it, see `do_recvmmsg` in
//! net/socket.c).

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Datagrams of one call.
pub(super) const SLOTS: usize = 32;
/// Room for one datagram: a connection event has some 200 bytes, and 700 with every
/// attribute that the kernel knows.
pub(super) const SLOT_BYTES: usize = 2 * 1024;

/// Room for the datagrams of one call.
#[derive(Debug)]
pub struct Batch {
    bytes: Box<[u8]>,
    /// Length of each datagram read; `None`: not to be read.
    lengths: [Option<usize>; SLOTS],
    filled: usize,
}

impl Default for Batch {
    fn default() -> Self {
        let bytes = vec![0; SLOTS * SLOT_BYTES].into_boxed_slice();
        Self { bytes, lengths: [None; SLOTS], filled: 0 }
    }
}

impl Batch {
    /// The datagrams of the last call in order; `None` for one to be skipped.
    pub fn iter(&self) -> impl Iterator<Item = Option<&[u8]>> {
        let slots = self.bytes.chunks_exact(SLOT_BYTES).zip(&self.lengths);
        slots.take(self.filled).map(|(slot, length)| slot.get(..(*length)?))
    }

    /// Datagrams of the last call.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.filled
    }

    /// Whether the last call gave none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Reads what waits, at most [`SLOTS`] datagrams.
    ///
    /// # Errors
    /// What the kernel says when there is nothing to read: `EAGAIN`, or `ENOBUFS` once after
    /// datagrams were lost.
    pub fn receive(&mut self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.filled = 0;
        // SAFETY: sockaddr_nl is plain old data; all zeros is a valid value.
        let mut senders: [libc::sockaddr_nl; SLOTS] = unsafe { std::mem::zeroed() };
        // SAFETY: as above; null pointers and zero lengths say "nothing here".
        let mut parts: [libc::iovec; SLOTS] = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        let mut heads: [libc::mmsghdr; SLOTS] = unsafe { std::mem::zeroed() };
        let slots = self.bytes.chunks_exact_mut(SLOT_BYTES);
        for (((head, part), sender), slot) in
            heads.iter_mut().zip(&mut parts).zip(&mut senders).zip(slots)
        {
            part.iov_base = slot.as_mut_ptr().cast();
            part.iov_len = SLOT_BYTES;
            head.msg_hdr.msg_name = std::ptr::from_mut(sender).cast();
            head.msg_hdr.msg_namelen = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
            head.msg_hdr.msg_iov = part;
            head.msg_hdr.msg_iovlen = 1;
        }
        // MSG_TRUNC makes the kernel tell the whole length of a datagram that was cut.
        let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
        // SAFETY: `heads` has SLOTS entries; each points to a slot, a part and a sender of
        // its own that live and are not touched across the call, with their true sizes.
        let got = unsafe {
            libc::recvmmsg(
                fd.as_raw_fd(),
                heads.as_mut_ptr(),
                SLOTS as libc::c_uint,
                flags as _,
                std::ptr::null_mut(),
            )
        };
        self.filled = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
        for ((length, head), sender) in self.lengths.iter_mut().zip(&heads).zip(&senders) {
            let read = head.msg_len as usize;
            // Port 0 is the kernel. Another process with CAP_NET_ADMIN could send to us.
            *length = (sender.nl_pid == 0 && read <= SLOT_BYTES).then_some(read);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;

    use super::*;

    fn pair() -> (UnixDatagram, UnixDatagram) {
        UnixDatagram::pair().unwrap()
    }

    #[test]
    fn what_waits_is_read_in_order_and_no_more() {
        let (sender, receiver) = pair();
        let mut batch = Batch::default();
        for n in 0..5u8 {
            sender.send(&vec![n; usize::from(n) + 1]).unwrap();
        }
        batch.receive(receiver.as_fd()).unwrap();
        let read: Vec<_> = batch.iter().map(|d| d.unwrap().to_vec()).collect();
        assert_eq!(read, [vec![0], vec![1; 2], vec![2; 3], vec![3; 4], vec![4; 5]]);
        let error = batch.receive(receiver.as_fd()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EAGAIN));
        assert!(batch.is_empty() && batch.iter().next().is_none());
    }

    #[test]
    fn one_larger_than_its_slot_is_told_and_the_next_one_comes_whole() {
        let (sender, receiver) = pair();
        sender.send(&[7; SLOT_BYTES + 1]).unwrap();
        sender.send(&[8; SLOT_BYTES]).unwrap();
        let mut batch = Batch::default();
        batch.receive(receiver.as_fd()).unwrap();
        let read: Vec<_> = batch.iter().collect();
        assert_eq!(read, [None, Some(&[8; SLOT_BYTES][..])]);
    }

    #[test]
    fn at_most_the_slots_are_filled() {
        let (sender, receiver) = pair();
        // A Unix socket's queue may be shorter than two batches: read between.
        let mut batch = Batch::default();
        let (mut sent, mut read) = (0, 0);
        sender.set_nonblocking(true).unwrap();
        while sent < 2 * SLOTS {
            while sent < 2 * SLOTS && sender.send(b"x").is_ok() {
                sent += 1;
            }
            batch.receive(receiver.as_fd()).unwrap();
            assert!(batch.len() <= SLOTS);
            read += batch.iter().flatten().count();
        }
        while batch.receive(receiver.as_fd()).is_ok() {
            read += batch.len();
        }
        assert_eq!(read, 2 * SLOTS);
    }
}
