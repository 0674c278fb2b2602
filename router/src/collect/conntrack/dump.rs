//! One dump of the connection table, read on a thread of its own.
//!
//! Out: the dump's datagrams in order, at most [`PIECES_MAX`] waiting; then whether it was
//! complete. The thread lives as long as the dump (some milliseconds a thousand flows) and
//! gives way to the one that drains events: reading a dump ends expired flows faster than
//! anybody else does, and what it ends must be read before the event buffer is full.
//! Wire: a `GET` request with `NLM_F_DUMP` and no filter; entries come as messages of type
//! NEW until `NLMSG_DONE`.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use agentmon_core::time::Clock;

use super::decode::CT_GET;
use crate::collect::{Context, Stop};
use crate::netlink::message::{Message, NLM_F_DUMP, NLM_F_DUMP_INTR, NLMSG_DONE};
use crate::netlink::{
    DATAGRAM_BYTES_MAX, NETFILTER, NetlinkError, Received, Request, Socket, messages,
};
use crate::sys;

/// Most datagrams read ahead; the kernel builds the next one only when asked.
const PIECES_MAX: usize = 8;
/// The kernel builds each piece in milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);
const ACTION: &str = "reading the connection table";

/// The reader's end: whether the dump was complete.
pub(super) type Outcome = JoinHandle<anyhow::Result<bool>>;

/// Asks for the table; the pieces come through the channel.
///
/// # Errors
/// When the socket cannot be opened or the request is not taken.
pub(super) fn start(context: &Context) -> anyhow::Result<(Receiver<Vec<u8>>, Outcome)> {
    let mut socket = Socket::open(NETFILTER)?;
    let request = Request::new(CT_GET, NLM_F_DUMP).body(&[0; 4]);
    socket.send("asking for the connection table", request)?;
    let (sender, pieces) = sync_channel(PIECES_MAX);
    let (clock, stop) = (context.clock.clone(), context.stop.clone());
    let reader = std::thread::Builder::new().name("conntrack-dump".into()).spawn(move || {
        sys::yield_to_others();
        Ok(read(&socket, &sender, clock.as_ref(), &stop)?)
    })?;
    Ok((pieces, reader))
}

/// Until `NLMSG_DONE`; false when something was lost on the way.
fn read(
    socket: &Socket,
    sender: &SyncSender<Vec<u8>>,
    clock: &dyn Clock,
    stop: &Stop,
) -> Result<bool, NetlinkError> {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    let mut complete = true;
    let mut quiet_since = clock.mono();
    while !stop.is_set() {
        match socket.receive(&mut buffer)? {
            Received::Data(piece) => {
                quiet_since = clock.mono();
                let (whole, done) = look(piece)?;
                complete &= whole;
                // Nobody listens any more: the session has failed and says so itself.
                if sender.send(piece.to_vec()).is_err() {
                    return Ok(false);
                }
                if done {
                    return Ok(complete);
                }
            }
            Received::Overrun | Received::Skipped => complete = false,
            Received::Empty if clock.mono().since(quiet_since) > PATIENCE => {
                return Err(NetlinkError::Silent { action: ACTION, seconds: PATIENCE.as_secs() });
            }
            Received::Empty => {
                socket.wait(Duration::from_millis(100))?;
            }
        }
    }
    Ok(false)
}

/// Whether the piece is undisturbed, and whether it is the last.
fn look(piece: &[u8]) -> Result<(bool, bool), NetlinkError> {
    let mut whole = true;
    for message in messages(piece).flatten() {
        whole &= message.flags & NLM_F_DUMP_INTR == 0;
        if let Some(number) = message.outcome() {
            return end(&message, number).map(|done| (whole, done));
        }
    }
    Ok((whole, false))
}

fn end(message: &Message<'_>, number: i32) -> Result<bool, NetlinkError> {
    match number {
        0 => Ok(message.kind == NLMSG_DONE),
        // nfnetlink's answer for a subsystem that nobody registered.
        libc::EINVAL | libc::EOPNOTSUPP => Err(NetlinkError::Module {
            action: ACTION,
            module: "nf_conntrack_netlink (OpenWrt: kmod-nf-conntrack-netlink)",
        }),
        n => Err(NetlinkError::from_io(ACTION, std::io::Error::from_raw_os_error(n))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::captured::{self, bytes};
    use super::*;

    fn done(number: i32, flags: u16) -> Vec<u8> {
        Request::new(NLMSG_DONE, flags).body(&(-number).to_ne_bytes()).finish(1)
    }

    #[test]
    fn a_dump_ends_with_done_and_may_be_disturbed() {
        let entry = bytes(captured::DUMP_DNAT);
        assert_eq!(look(&entry).unwrap(), (true, false));
        assert_eq!(look(&[entry.clone(), done(0, 0)].concat()).unwrap(), (true, true));
        assert_eq!(look(&[entry, done(0, NLM_F_DUMP_INTR)].concat()).unwrap(), (false, true));
    }

    #[test]
    fn a_refusal_says_what_to_load() {
        let error = look(&done(libc::EINVAL, 0)).unwrap_err().to_string();
        assert!(error.contains("kmod-nf-conntrack-netlink"), "{error}");
        let error = look(&done(libc::EPERM, 0)).unwrap_err().to_string();
        assert!(error.contains("CAP_NET_ADMIN"), "{error}");
    }
}
