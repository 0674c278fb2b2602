//! A bad line between router and hub: a TCP proxy whose faults a test switches.
//!
//! It sees only TLS, so it works on bytes: refuse, cut, hold back, or lose the reply to a
//! request that the hub has already taken. Every fault that happened is counted, so that a
//! test can assert that it tested something.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{netns, wait};

/// What the line does to connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// Closes every connection at once, open ones too.
    Refuse,
    /// Takes connections and bytes and passes nothing on.
    Silence,
    /// Passes at most so many bytes towards the hub, then closes.
    CutRequest(u64),
    /// Passes so many bytes towards the hub; from then on drops the hub's answers, and
    /// closes once the hub has answered.
    LoseReply(u64),
    /// Waits so many milliseconds before each piece.
    Delay(u64),
}

#[derive(Debug, Default)]
struct Shared {
    fault: Mutex<Fault>,
    connections: AtomicU64,
    faults: AtomicU64,
}

/// The proxy.
#[derive(Clone, Debug)]
pub struct TcpProxy(Arc<Shared>);

impl TcpProxy {
    /// Listens on `at` in `host` and passes connections on to `to`.
    ///
    /// # Panics
    /// When the address cannot be bound.
    #[must_use]
    pub fn start(host: &str, at: &str, to: &str) -> Self {
        let shared = Arc::new(Shared::default());
        let at: SocketAddr = at.parse().expect("address:port");
        let to: SocketAddr = to.parse().expect("address:port");
        let listener = netns::run(host, move || TcpListener::bind(at));
        let listener = listener.unwrap_or_else(|e| panic!("{host} {at}: {e}"));
        let accepting = Arc::clone(&shared);
        // The thread stays in the namespace: its connections to the hub start there.
        drop(netns::spawn(host, move || {
            for client in listener.incoming().flatten() {
                accepting.connections.fetch_add(1, Ordering::Relaxed);
                accepting.carry(client, to);
            }
        }));
        Self(shared)
    }

    /// From now on, for open connections too.
    pub fn set(&self, fault: Fault) {
        *self.0.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    /// Connections taken so far.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.0.connections.load(Ordering::Relaxed)
    }

    /// Faults that happened so far.
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.0.faults.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn fault(&self) -> Fault {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self) {
        self.faults.fetch_add(1, Ordering::Relaxed);
    }

    /// Two pumps per connection; an error or a fault ends both.
    fn carry(self: &Arc<Self>, client: TcpStream, to: SocketAddr) {
        if self.fault() == Fault::Refuse {
            self.count();
            return;
        }
        let Ok(hub) = TcpStream::connect_timeout(&to, Duration::from_secs(2)) else {
            return;
        };
        // Bytes passed towards the hub since the fault in force was set.
        let sent = Arc::new(Mutex::new((Fault::None, 0)));
        for (from, into, towards_hub) in [(&client, &hub, true), (&hub, &client, false)] {
            let (Ok(from), Ok(into)) = (from.try_clone(), into.try_clone()) else {
                return;
            };
            let (shared, sent) = (Arc::clone(self), Arc::clone(&sent));
            std::thread::spawn(move || {
                shared.pump(&from, &into, towards_hub, &sent);
                // Already closed by the other pump is just as well.
                drop(from.shutdown(Shutdown::Both));
                drop(into.shutdown(Shutdown::Both));
            });
        }
    }

    fn pump(
        &self,
        mut from: &TcpStream,
        mut into: &TcpStream,
        towards_hub: bool,
        sent: &Mutex<(Fault, u64)>,
    ) {
        let mut buffer = [0; 16 * 1024];
        drop(from.set_read_timeout(Some(Duration::from_millis(50))));
        loop {
            let used = match from.read(&mut buffer) {
                Ok(0) => return,
                Ok(used) => used,
                Err(e) if is_timeout(&e) && self.fault() != Fault::Refuse => continue,
                Err(_) => return,
            };
            let piece = buffer.get(..used).unwrap_or_default();
            let piece = match self.decide(piece, towards_hub, sent) {
                Some(piece) => piece,
                None => return,
            };
            if into.write_all(piece).is_err() {
                return;
            }
        }
    }

    /// What to pass on of a piece; `None` closes the connection.
    fn decide<'a>(
        &self,
        piece: &'a [u8],
        towards_hub: bool,
        sent: &Mutex<(Fault, u64)>,
    ) -> Option<&'a [u8]> {
        let fault = self.fault();
        let mut sent = sent.lock().unwrap_or_else(PoisonError::into_inner);
        if sent.0 != fault {
            *sent = (fault, 0);
        }
        let before = sent.1;
        if towards_hub {
            sent.1 += piece.len() as u64;
        }
        match fault {
            Fault::None => Some(piece),
            Fault::Delay(ms) => {
                wait::pause(ms);
                Some(piece)
            }
            Fault::Refuse => {
                self.count();
                None
            }
            Fault::Silence => {
                self.count();
                Some(&[])
            }
            Fault::CutRequest(most) if towards_hub && before + piece.len() as u64 > most => {
                self.count();
                None
            }
            Fault::LoseReply(after) if !towards_hub && before >= after => {
                self.count();
                None
            }
            Fault::CutRequest(_) | Fault::LoseReply(_) => Some(piece),
        }
    }
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}
