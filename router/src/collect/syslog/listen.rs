//! The receiver's sockets: datagrams and connections in, messages out.
//!
//! In: what stands in the configuration. Out: (sender, message) for every message of a
//! sender that is allowed. The collector's thread; nothing here blocks but
//! [`Sockets::wait`]. Memory: 64 KiB, and a [`Connection`] each.
//!
//! Invariants: whoever is not allowed is not listened to; connections are bounded in all and
//! for each sender, and an idle one gives way to a new one; all that is not taken is counted.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use agentmon_core::event::unmap;
use agentmon_core::time::Mono;
use anyhow::Context as _;
use rustls::ServerConfig;

use super::config::Config;
use super::connection::{Connection, Ended};
use super::counted::Counts;
use super::frame::{Frame, MESSAGE_BYTES_MAX, trimmed};
use super::sources::Sources;
use super::tls;
use crate::ratelimit::LogLimit;
use crate::sys::{self, Ready};

/// Room for datagrams while the pipeline is behind: three seconds of 5,000 messages.
const RECEIVE_BYTES: usize = 4 * 1024 * 1024;
/// Most datagrams taken from one socket before the others' turn.
const DATAGRAMS_MAX: usize = 512;
/// Most connections taken from one socket before the others' turn.
const ACCEPTS_MAX: usize = 32;
/// One piece of a stream; also holds any datagram.
const PIECE_BYTES: usize = 65_536;
/// A connection that was silent for so long gives way to a new one when all are taken.
const IDLE: Duration = Duration::from_secs(60);
const READ: Ready = Ready { read: true, write: false };

/// See the module's text.
pub(super) struct Sockets {
    /// With how many datagrams the kernel had dropped at the last look.
    udp: Vec<(UdpSocket, u32)>,
    listeners: Vec<(TcpListener, Option<Arc<ServerConfig>>)>,
    connections: Vec<Connection>,
    space: Box<[u8]>,
    config: Config,
    log_limit: LogLimit,
}

/// What [`Sockets::wait`] found, in the order of the sockets.
pub(super) struct Found(Vec<Ready>);

impl Sockets {
    /// Binds everything, or says what could not be.
    pub(super) fn bind(config: &Config) -> anyhow::Result<Self> {
        let busy = |at: &SocketAddr| {
            let right = if at.port() < 1_024 { ", or no right to ports below 1024" } else { "" };
            format!("listening for syslog on {at} (taken by another program{right}?)")
        };
        let mut udp = Vec::new();
        for at in &config.udp {
            let socket = UdpSocket::bind(at).with_context(|| busy(at))?;
            socket.set_nonblocking(true)?;
            sys::set_receive_buffer(socket.as_fd(), RECEIVE_BYTES)?;
            udp.push((socket, 0));
        }
        let secure = if config.tls.is_empty() { None } else { Some(tls::server(config)?) };
        let mut listeners = Vec::new();
        let plain = config.tcp.iter().map(|at| (at, None));
        for (at, tls) in plain.chain(config.tls.iter().map(|at| (at, secure.clone()))) {
            let listener = TcpListener::bind(at).with_context(|| busy(at))?;
            listener.set_nonblocking(true)?;
            listeners.push((listener, tls));
        }
        Ok(Self {
            udp,
            listeners,
            connections: Vec::new(),
            space: vec![0; PIECE_BYTES].into_boxed_slice(),
            config: config.clone(),
            log_limit: LogLimit::default(),
        })
    }

    /// Waits until something has come, at most `timeout`.
    pub(super) fn wait(
        &self,
        sources: &mut Sources,
        now: Mono,
        timeout: Duration,
    ) -> io::Result<Found> {
        let udp = self.udp.iter().map(|(socket, _)| (socket.as_fd(), READ));
        let tcp = self.listeners.iter().map(|(listener, _)| (listener.as_fd(), READ));
        let open = self.connections.iter().map(|c| c.wanted(sources.may_read(c.peer, now)));
        let wanted: Vec<(BorrowedFd<'_>, Ready)> = udp.chain(tcp).chain(open).collect();
        sys::wait_many(&wanted, timeout).map(Found)
    }

    /// Takes what has come, fairly: some of each.
    pub(super) fn turn(
        &mut self,
        found: &Found,
        now: Mono,
        sources: &mut Sources,
        counts: &Counts,
        mut message: impl FnMut(&mut Sources, IpAddr, &[u8]),
    ) {
        let (udp, rest) = found.0.split_at_checked(self.udp.len()).unwrap_or_default();
        let (tcp, open) = rest.split_at_checked(self.listeners.len()).unwrap_or_default();
        for (i, _) in udp.iter().enumerate().filter(|(_, ready)| ready.read) {
            self.datagrams(i, now, sources, counts, &mut message);
        }
        // From behind, so that removing one moves none that is still to come.
        for (i, ready) in open.iter().enumerate().rev() {
            let inert = !ready.read && !ready.write;
            let Some(connection) = self.connections.get_mut(i).filter(|_| !inert) else { continue };
            let peer = connection.peer;
            let outcome = connection.turn(now, &mut self.space, |frame| match frame {
                Frame::Message(bytes) => {
                    sources.pay(peer, now);
                    message(sources, peer, bytes);
                }
                Frame::TooLong => counts.too_long.inc(),
            });
            if let Err(ended) = outcome {
                self.ended(i, &ended, now, counts);
            }
        }
        for (i, _) in tcp.iter().enumerate().filter(|(_, ready)| ready.read) {
            self.accept(i, now, counts);
        }
        let overdue = |connection: &Connection| connection.overdue(now);
        while let Some(i) = self.connections.iter().position(overdue) {
            self.say(now, "overdue", self.connections.get(i), &"stands still inside a message");
            self.close(i, counts);
        }
    }

    fn datagrams(
        &mut self,
        i: usize,
        now: Mono,
        sources: &mut Sources,
        counts: &Counts,
        message: &mut impl FnMut(&mut Sources, IpAddr, &[u8]),
    ) {
        let Some((socket, _)) = self.udp.get(i) else { return };
        for _ in 0..DATAGRAMS_MAX {
            // An error is that of an earlier datagram (ICMP), or nothing more to read.
            let Ok((n, from)) = socket.recv_from(&mut self.space) else { return };
            let peer = unmap(from.ip());
            let bytes = trimmed(self.space.get(..n).unwrap_or_default());
            if !self.config.allows(peer) {
                counts.not_allowed.inc();
                if let Some(more) = self.log_limit.allow("not-allowed", now) {
                    tracing::warn!("syslog: {peer} may not send: not in `allow`{more}");
                }
            } else if !sources.take(peer, now) {
                counts.rate.inc();
            } else if bytes.len() > MESSAGE_BYTES_MAX {
                counts.too_long.inc();
            } else {
                message(sources, peer, bytes);
            }
        }
    }

    fn accept(&mut self, i: usize, now: Mono, counts: &Counts) {
        for _ in 0..ACCEPTS_MAX {
            let Some((listener, tls)) = self.listeners.get(i) else { return };
            let Ok((stream, from)) = listener.accept() else { return };
            let (peer, tls) = (unmap(from.ip()), tls.clone());
            if !self.config.allows(peer) {
                counts.not_allowed.inc();
                if let Some(more) = self.log_limit.allow("not-allowed", now) {
                    tracing::warn!("syslog: {peer} may not connect: not in `allow`{more}");
                }
            } else if !self.has_room(peer, now, counts) {
                counts.connections_refused.inc();
                if let Some(more) = self.log_limit.allow("connections", now) {
                    tracing::warn!("syslog: no room for another connection of {peer}{more}");
                }
            } else {
                match Connection::new(stream, peer, tls.as_ref(), now) {
                    Ok(connection) => {
                        counts.connections.inc();
                        self.connections.push(connection);
                    }
                    Err(error) => self.say(now, "connection", None, &error),
                }
            }
        }
    }

    /// Whether there is room; if need be, after an idle connection was closed.
    fn has_room(&mut self, peer: IpAddr, now: Mono, counts: &Counts) -> bool {
        let own = self.connections.iter().filter(|c| c.peer == peer).count();
        let crowded = own >= self.config.connections_per_source();
        if !crowded && self.connections.len() < self.config.connections_max {
            return true;
        }
        let all = self.connections.iter().enumerate();
        let all = all.filter(|(_, c)| !crowded || c.peer == peer);
        match all.min_by_key(|(_, c)| c.heard) {
            Some((i, connection)) if now.since(connection.heard) >= IDLE => {
                self.close(i, counts);
                true
            }
            _ => false,
        }
    }

    fn ended(&mut self, i: usize, ended: &Ended, now: Mono, counts: &Counts) {
        if !matches!(ended, Ended::Closed | Ended::Io(_)) {
            counts.bad_stream.inc();
            self.say(now, "stream", self.connections.get(i), ended);
        }
        self.close(i, counts);
    }

    fn close(&mut self, i: usize, counts: &Counts) {
        let connection = self.connections.swap_remove(i);
        counts.half_message.add(u64::from(connection.is_inside()));
    }

    fn say(
        &self,
        now: Mono,
        cause: &'static str,
        connection: Option<&Connection>,
        what: &dyn std::fmt::Display,
    ) {
        if let Some(more) = self.log_limit.allow(cause, now) {
            let peer = connection.map_or_else(|| "a sender".to_owned(), |c| c.peer.to_string());
            tracing::warn!("syslog: {peer}: {what}{more}");
        }
    }

    /// Datagrams the kernel had no room for since the last look.
    pub(super) fn dropped_by_kernel(&mut self) -> u64 {
        let mut all = 0;
        for (socket, before) in &mut self.udp {
            // A kernel that cannot tell: nothing to tell.
            let now = sys::dropped_datagrams(socket.as_fd()).unwrap_or(*before);
            all += u64::from(now.wrapping_sub(*before));
            *before = now;
        }
        all
    }

    /// Connections open now.
    pub(super) fn open(&self) -> usize {
        self.connections.len()
    }

    /// Where it listens, for people: `udp 0.0.0.0:5514`.
    pub(super) fn places(&self) -> String {
        let udp = self.udp.iter().map(|(socket, _)| ("udp", socket.local_addr()));
        let tcp = self.listeners.iter().map(|(listener, tls)| {
            (if tls.is_some() { "tls" } else { "tcp" }, listener.local_addr())
        });
        let known = udp.chain(tcp).filter_map(|(kind, at)| Some(format!("{kind} {}", at.ok()?)));
        known.collect::<Vec<_>>().join(", ")
    }
}
