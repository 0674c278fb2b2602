//! A small ubusd for tests: OpenWrt's message bus, as far as agentmon and its page need it.
//!
//! In: connections on a Unix socket. Out: what the real daemon answers; its rules are in
//! [`state`], which is pure. One thread accepts, one per client reads. Frames are written
//! under the state's lock, so that all clients see one order; a client that does not read
//! for [`PATIENCE`] is cut off.
//!
//! On top of the real one, a test can: stop and start it, cut each write into pieces, stop
//! reading for a while, send any bytes to the clients, and say which user the next client
//! is (the real one asks the kernel).
//!
//! Differs from the real one: `NO_REPLY` of a call is handed on to the callee; there is no
//! passing of file descriptors and no monitoring.

pub mod acl;
pub mod client;
pub mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use agentmon_router::ubus::message::{Frame, Inbox, MESSAGE_BYTES_MAX};
use anyhow::Context as _;

pub use acl::Acl;
pub use client::Client;
use state::{Send, State};

/// A client that does not read for so long is cut off.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Most clients at once.
pub const CLIENTS_MAX: usize = 64;

/// A running ubusd; stopped and its socket removed when dropped.
#[derive(Debug)]
pub struct Ubusd {
    socket: PathBuf,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    inner: Mutex<Inner>,
    stop: AtomicBool,
    /// Clients' messages wait while this is set.
    stalled: AtomicBool,
    /// Largest write; 0: all at once.
    piece: AtomicUsize,
}

#[derive(Debug, Default)]
struct Inner {
    state: State,
    streams: BTreeMap<u32, UnixStream>,
    /// Who connects next.
    user: Option<String>,
}

impl Ubusd {
    /// Listens at `socket`; what was there is replaced, as the real one does.
    ///
    /// # Errors
    /// When the path cannot be bound.
    pub fn start(socket: &Path, acl: Acl) -> anyhow::Result<Self> {
        drop(std::fs::remove_file(socket));
        let listener = UnixListener::bind(socket)
            .with_context(|| format!("test ubusd: {}", socket.display()))?;
        let shared = Arc::new(Shared::default());
        shared.lock().state = State::new(acl);
        let accepting = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&listener, &shared)
        });
        Ok(Self { socket: socket.to_owned(), shared, accepting: Some(accepting) })
    }

    /// Where it listens.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Whose name the clients carry that connect from now on; `root` may do everything.
    pub fn connect_as(&self, user: &str) {
        self.shared.lock().user = Some(user.to_owned());
    }

    /// New rules, as a SIGHUP makes the real one read them.
    pub fn reload(&self, acl: Acl) {
        self.shared.lock().state.acl = acl;
    }

    /// Writes at most so many bytes at a time from now on; 0: all at once.
    pub fn write_in_pieces(&self, bytes: usize) {
        self.shared.piece.store(bytes, Ordering::SeqCst);
    }

    /// Whether to leave clients' messages lying.
    pub fn stall(&self, stalled: bool) {
        self.shared.stalled.store(stalled, Ordering::SeqCst);
    }

    /// Any bytes to every client.
    pub fn inject(&self, bytes: &[u8]) {
        let mut inner = self.shared.lock();
        let clients: Vec<_> = inner.streams.keys().copied().collect();
        for client in clients {
            inner.write(client, bytes, 0);
        }
    }

    /// Paths of the objects there are.
    #[must_use]
    pub fn objects(&self) -> Vec<String> {
        self.shared.lock().state.paths()
    }

    /// Clients connected now.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.shared.lock().streams.len()
    }

    /// Ends it: every client sees the end of its connection.
    pub fn stop(&mut self) {
        let Some(accepting) = self.accepting.take() else { return };
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.stalled.store(false, Ordering::SeqCst);
        // Wakes the accepting thread.
        drop(UnixStream::connect(&self.socket));
        accepting.join().expect("the accepting thread does not panic");
        drop(std::fs::remove_file(&self.socket));
        let mut inner = self.shared.lock();
        inner.state = State::default();
        for stream in std::mem::take(&mut inner.streams).into_values() {
            drop(stream.shutdown(std::net::Shutdown::Both));
        }
    }
}

impl Drop for Ubusd {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn deliver(&mut self, out: Vec<Send>, piece: usize) {
        for Send { to, bytes } in out {
            self.write(to, &bytes, piece);
        }
    }

    fn write(&mut self, client: u32, bytes: &[u8], piece: usize) {
        let Some(mut stream) = self.streams.get(&client) else { return };
        let piece = if piece == 0 { bytes.len().max(1) } else { piece };
        let mut pieces = bytes.chunks(piece);
        if !pieces.all(|piece| stream.write_all(piece).is_ok()) {
            // Its reader sees the end and cleans up.
            drop(stream.shutdown(std::net::Shutdown::Both));
        }
    }
}

fn accept(listener: &UnixListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let mut inner = shared.lock();
        let prepared = stream.set_write_timeout(Some(PATIENCE)).and_then(|()| stream.try_clone());
        let Ok(reader) = prepared else { continue };
        if inner.streams.len() >= CLIENTS_MAX {
            continue;
        }
        let user = inner.user.clone().unwrap_or_else(|| "root".to_owned());
        let (client, hello) = inner.state.connect(&user);
        inner.streams.insert(client, stream);
        inner.deliver(vec![hello], shared.piece.load(Ordering::SeqCst));
        drop(inner);
        let shared = Arc::clone(shared);
        std::thread::spawn(move || serve(client, reader, &shared));
    }
}

fn serve(client: u32, mut stream: UnixStream, shared: &Shared) {
    let mut inbox = Inbox::new(MESSAGE_BYTES_MAX);
    let mut piece = vec![0; 16 * 1024];
    'connection: while let Ok(n) = stream.read(&mut piece) {
        if n == 0 {
            break;
        }
        inbox.push(piece.get(..n).unwrap_or_default());
        loop {
            while shared.stalled.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(5));
            }
            match inbox.next_frame() {
                Ok(Some(Frame::Message(message))) => {
                    let mut inner = shared.lock();
                    let out = inner.state.message(client, &message);
                    inner.deliver(out, shared.piece.load(Ordering::SeqCst));
                }
                Ok(Some(Frame::TooLong(_))) | Err(_) => break 'connection,
                Ok(None) => break,
            }
        }
    }
    let mut inner = shared.lock();
    inner.streams.remove(&client);
    let out = inner.state.disconnect(client);
    inner.deliver(out, shared.piece.load(Ordering::SeqCst));
}
