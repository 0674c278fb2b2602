//! Starts, execs and ends of processes, by the kernel's proc connector.
//!
//! Format: `include/uapi/linux/connector.h` (`cn_msg` of 20 bytes) and `cn_proc.h`
//! (`proc_event`: what, cpu, timestamp in ns, then pids). In: datagrams. Out: [`ProcEvent`]s.
//! Needs root and the machine's own network namespace; says nothing of names or files: those
//! are read from `/proc` at once, before the process is gone.

use agentmon_router::netlink::message::messages;
use agentmon_router::netlink::{NetlinkError, Received, Request, Socket};

/// `NETLINK_CONNECTOR`.
const PROTOCOL: isize = 11;
/// `CN_IDX_PROC`, the group, and `CN_VAL_PROC`.
const PROC: u32 = 1;
/// `PROC_CN_MCAST_LISTEN`.
const LISTEN: u32 = 1;
/// `NLMSG_DONE`, which the connector wants as its type.
const DONE: u16 = 3;
/// Bytes of `cn_msg` and of the head of `proc_event`.
const HEADS: usize = 20 + 16;

/// What happened to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcEvent {
    /// A child began: parent and child.
    Fork(u32, u32),
    /// It became another program.
    Exec(u32),
    /// It ended.
    Exit(u32),
}

/// Reads one message's body; threads of a process are not told.
#[must_use]
pub fn decode(body: &[u8]) -> Option<ProcEvent> {
    let word = |at: usize| -> Option<u32> {
        Some(u32::from_ne_bytes(body.get(at..at + 4)?.try_into().ok()?))
    };
    if word(0)? != PROC || word(4)? != PROC {
        return None;
    }
    // Each event has thread and process numbers; they are equal in the first thread.
    match word(20)? {
        // PROC_EVENT_FORK: parent_pid, parent_tgid, child_pid, child_tgid.
        0x1 => (word(HEADS + 8)? == word(HEADS + 12)?)
            .then(|| Some(ProcEvent::Fork(word(HEADS + 4)?, word(HEADS + 12)?)))?,
        // PROC_EVENT_EXEC: process_pid, process_tgid.
        0x2 => Some(ProcEvent::Exec(word(HEADS + 4)?)),
        // PROC_EVENT_EXIT: process_pid, process_tgid.
        0x8000_0000 => {
            (word(HEADS)? == word(HEADS + 4)?).then(|| Some(ProcEvent::Exit(word(HEADS)?)))?
        }
        _ => None,
    }
}

/// Is told of processes.
#[derive(Debug)]
pub struct Connector {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Connector {
    /// Needs root and the machine's own network namespace.
    ///
    /// # Errors
    /// Without either, or on a kernel without `CONFIG_PROC_EVENTS`.
    pub fn open() -> Result<Self, NetlinkError> {
        let mut socket = Socket::open(PROTOCOL)?;
        socket.set_receive_buffer(4 * 1024 * 1024)?;
        socket.join(PROC)?;
        let mut body = Vec::with_capacity(24);
        for word in [PROC, PROC, 0, 0] {
            body.extend_from_slice(&word.to_ne_bytes());
        }
        body.extend_from_slice(&4u16.to_ne_bytes());
        body.extend_from_slice(&0u16.to_ne_bytes());
        body.extend_from_slice(&LISTEN.to_ne_bytes());
        socket.send("listening to processes", Request::new(DONE, 0).body(&body))?;
        Ok(Self { socket, buffer: vec![0; 8_192] })
    }

    /// Everything since the last time; true when the kernel had to drop some.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn take(&mut self, found: &mut Vec<ProcEvent>) -> Result<bool, NetlinkError> {
        let mut lost = false;
        loop {
            match self.socket.receive(&mut self.buffer)? {
                Received::Data(data) => {
                    let messages = messages(data).map_while(Result::ok);
                    found.extend(messages.filter_map(|m| decode(m.body)));
                }
                Received::Empty => return Ok(lost),
                Received::Overrun => lost = true,
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

    fn message(what: u32, words: &[u32]) -> Vec<u8> {
        let head = [PROC, PROC, 0, 0, 40, what, 0, 0, 0];
        head.iter().chain(words).flat_map(|w| w.to_ne_bytes()).collect()
    }

    #[test]
    fn processes_but_not_their_threads() {
        assert_eq!(decode(&message(1, &[10, 10, 20, 20])), Some(ProcEvent::Fork(10, 20)));
        assert_eq!(decode(&message(1, &[10, 10, 21, 20])), None);
        assert_eq!(decode(&message(2, &[20, 20])), Some(ProcEvent::Exec(20)));
        assert_eq!(decode(&message(0x8000_0000, &[20, 20, 0, 0])), Some(ProcEvent::Exit(20)));
        assert_eq!(decode(&message(0x8000_0000, &[21, 20, 0, 0])), None);
        assert_eq!(decode(&message(4, &[20, 20])), None);
        assert_eq!(decode(&message(2, &[])), None);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..100)) {
            let read = decode(&bytes);
            proptest::prop_assert!(read.is_none() || bytes.len() >= HEADS);
        }
    }
}
