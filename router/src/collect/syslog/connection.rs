//! One sender's connection, plain or inside TLS: bytes in, messages out, never waiting.
//!
//! In: a connected socket. Out: [`Frame`]s. The collector's thread; at most one message of
//! 8 KiB gathered, and rustls's own buffers (16 KiB a record).
//!
//! Invariants: nothing here blocks; a connection that stands still inside a message or a
//! handshake is [`Connection::overdue`]; one read takes at most [`READS_MAX`] pieces, so
//! that a fast sender does not keep others waiting.

use std::io::{self, Read as _};
use std::net::{IpAddr, TcpStream};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use agentmon_core::time::Mono;
use rustls::{ServerConfig, ServerConnection};

use super::frame::{Frame, FrameError, Frames};
use crate::sys::Ready;

/// Most pieces taken from one connection before the next one's turn.
const READS_MAX: usize = 4;
/// A message must be complete, and a handshake done, after this time: a sender writes a
/// message in one go.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    /// By its sender.
    #[error("closed")]
    Closed,
    /// It is no syslog.
    #[error("{0}")]
    Frames(#[from] FrameError),
    /// It is no TLS, or not ours.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The line broke.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    pub(super) peer: IpAddr,
    tls: Option<Box<ServerConnection>>,
    frames: Frames,
    /// Something came.
    pub(super) heard: Mono,
    /// Since when a message or the handshake is unfinished.
    since: Option<Mono>,
}

impl Connection {
    /// A connection just taken; with `tls`, inside TLS.
    pub(super) fn new(
        stream: TcpStream,
        peer: IpAddr,
        tls: Option<&Arc<ServerConfig>>,
        now: Mono,
    ) -> Result<Self, Ended> {
        stream.set_nonblocking(true)?;
        let tls = tls.map(|config| ServerConnection::new(Arc::clone(config)));
        let tls = tls.transpose()?.map(Box::new);
        let since = tls.is_some().then_some(now);
        Ok(Self { stream, peer, tls, frames: Frames::default(), heard: now, since })
    }

    /// What to wait for on it.
    pub(super) fn wanted(&self, may_read: bool) -> (BorrowedFd<'_>, Ready) {
        let write = self.tls.as_ref().is_some_and(|tls| tls.wants_write());
        (self.stream.as_fd(), Ready { read: may_read, write })
    }

    /// Whether a message has begun and not ended.
    pub(super) fn is_inside(&self) -> bool {
        self.frames.is_inside()
    }

    /// Whether it stands still where no honest sender does.
    pub(super) fn overdue(&self, now: Mono) -> bool {
        self.since.is_some_and(|since| now.since(since) >= PATIENCE)
    }

    /// Takes what has come.
    pub(super) fn turn(
        &mut self,
        now: Mono,
        space: &mut [u8],
        mut found: impl FnMut(Frame<'_>),
    ) -> Result<(), Ended> {
        self.heard = now;
        let mut whole = false;
        let mut found = |frame: Frame<'_>| {
            whole = true;
            found(frame);
        };
        let outcome = match self.tls.take() {
            None => self.plain(space, &mut found),
            Some(mut tls) => {
                let outcome = self.secured(&mut tls, space, &mut found);
                self.tls = Some(tls);
                outcome
            }
        };
        let shaking = self.tls.as_ref().is_some_and(|tls| tls.is_handshaking());
        self.since = match self.since {
            _ if !shaking && !self.frames.is_inside() => None,
            Some(since) if !whole => Some(since),
            _ => Some(now),
        };
        outcome
    }

    fn plain(&mut self, space: &mut [u8], found: &mut impl FnMut(Frame<'_>)) -> Result<(), Ended> {
        for _ in 0..READS_MAX {
            match self.stream.read(space) {
                Ok(0) => return Err(Ended::Closed),
                Ok(n) => self.frames.feed(space.get(..n).unwrap_or_default(), &mut *found)?,
                Err(error) if is_later(&error) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn secured(
        &mut self,
        tls: &mut ServerConnection,
        space: &mut [u8],
        found: &mut impl FnMut(Frame<'_>),
    ) -> Result<(), Ended> {
        for _ in 0..READS_MAX {
            let read = tls.read_tls(&mut self.stream);
            let outcome = tls.process_new_packets();
            // Also what is to be said about bytes that are no TLS.
            let written = self.write(tls);
            outcome?;
            written?;
            let over = self.decrypted(tls, space, found)?;
            match read {
                Ok(0) => return Err(Ended::Closed),
                Ok(_) if over => return Err(Ended::Closed),
                Ok(_) => {}
                Err(error) if is_later(&error) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// What was decrypted; true at the end of the stream.
    fn decrypted(
        &mut self,
        tls: &mut ServerConnection,
        space: &mut [u8],
        found: &mut impl FnMut(Frame<'_>),
    ) -> Result<bool, Ended> {
        loop {
            match tls.reader().read(space) {
                Ok(0) => return Ok(true),
                Ok(n) => self.frames.feed(space.get(..n).unwrap_or_default(), &mut *found)?,
                Err(error) if is_later(&error) => return Ok(false),
                // Cut off without a farewell: what was whole is kept all the same.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(true),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn write(&mut self, tls: &mut ServerConnection) -> io::Result<()> {
        while tls.wants_write() {
            match tls.write_tls(&mut self.stream) {
                Ok(_) => {}
                Err(error) if is_later(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
