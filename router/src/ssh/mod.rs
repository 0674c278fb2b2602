//! Files of another machine, read by SFTP over the system's `ssh`.
//!
//! In: a [`Target`] and names of files there. Out: their bytes and attributes. Runs on the
//! thread of whoever reads; each question waits for its answer, at most [`ANSWER_SECONDS`],
//! and no longer than until the wish to stop.
//!
//! `ssh` is a program of its own so that keys, algorithms and their repairs are the system's;
//! and SFTP instead of commands, so that no shell of the other machine reads what we write.
//! That machine may let its user do nothing else (`ForceCommand internal-sftp -R`).
//!
//! Invariants: the host's key is checked, and nothing is asked of a person; memory is one
//! packet; nothing there is written; the process ends with its [`Session`].

mod files;
mod find;
mod follow;
mod packet;
mod session;
mod sqlite;
mod target;

#[cfg(test)]
pub(crate) mod sshd;

use agentmon_core::time::Clock;
use std::sync::Arc;

use crate::collect::Stop;

pub(crate) use self::files::Files;
pub(crate) use self::follow::{Follower, Place, is_path};
#[cfg(test)]
pub(crate) use self::packet::examples;
pub(crate) use self::packet::{About, READ_BYTES};
pub(crate) use self::session::{Handle, Session};
pub(crate) use self::sqlite::{Copy, CopyError, Mark, PAUSE as COPY_PAUSE, copy};
pub(crate) use self::target::Target;

/// Longest wait for an answer; the connection itself may take as long.
pub(crate) const ANSWER_SECONDS: u64 = 45;

/// What the decoder makes of a packet, which may be any bytes: how many of them were taken.
/// For fuzzing.
#[doc(hidden)]
#[must_use]
pub fn any_packet(packet: &[u8]) -> usize {
    packet::taken(packet)
}

/// What a session waits with.
#[derive(Clone)]
pub(crate) struct Patience {
    pub(crate) stop: Stop,
    pub(crate) clock: Arc<dyn Clock>,
}

/// Why nothing was read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SshError {
    /// There is no such program.
    #[error("there is no ssh here: install OpenSSH's client (package openssh-client)")]
    Missing,
    /// Another program of that name: Dropbear's.
    #[error(
        "`ssh` here says it is {0:?}, which lacks what is needed: install OpenSSH's client \
         (package openssh-client)"
    )]
    NotOpenSsh(String),
    /// It ended, and said why.
    #[error("ssh ended: {0}")]
    Ended(String),
    /// No answer for [`ANSWER_SECONDS`].
    #[error("no answer for {ANSWER_SECONDS} s")]
    Silent,
    /// What came is no SFTP.
    #[error("what came is no SFTP ({0}): does the login there print something?")]
    NoSftp(&'static str),
    /// The other machine refuses.
    #[error("{what} {path}: {}", why(*.status))]
    Refused {
        /// "opening".
        what: &'static str,
        /// The file.
        path: String,
        /// `SSH_FX_*`.
        status: u32,
    },
    /// The file is a folder, a pipe, a device.
    #[error("{0} is no regular file")]
    NoFile(String),
    /// Asked to stop.
    #[error("asked to stop")]
    Stopped,
    /// The pipes to `ssh`.
    #[error("talking to ssh")]
    Io(#[from] std::io::Error),
}

/// Words of `SSH_FX_*`.
fn why(status: u32) -> &'static str {
    match status {
        packet::NO_SUCH_FILE => "no such file there",
        packet::PERMISSION_DENIED => "the user may not read it there",
        8 => "the server there cannot do that",
        _ => "the server there failed",
    }
}
