//! A reverse proxy before the hub, as operators put one there, that misbehaves when told.
//!
//! It ends TLS with a certificate signed by the hub's own CA (so the router trusts it), reads
//! whole HTTP requests, and passes them on to the real hub and its answers back, unless the
//! trouble in force says otherwise. What the bad line ([`super::proxy`]) cannot do because it
//! sees only ciphertext is done here: statuses, answers lost after the hub has stored, limits
//! on the size of a body.
//!
//! One thread per connection; every request is recorded with its time and its end, so that a
//! test can count attempts.

use std::io::{self, BufRead, BufReader, Read as _, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use agentmon_core::time::Mono;
use rcgen::{CertificateParams, DnType, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
};

use super::{netns, wait};

/// Most bytes of a request's or answer's head.
const HEAD_BYTES_MAX: u64 = 16 * 1024;

/// What it does to requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing: passes on.
    #[default]
    None,
    /// Answers with a status and more header lines; the hub never hears of it.
    Refuse(u16, &'static str),
    /// Passes on, then answers with that status instead: the hub has stored it.
    RefuseStored(u16),
    /// Refuses bodies of more bytes with 413, as nginx's `client_max_body_size` does.
    BodyMost(usize),
    /// Passes on so many bytes of the body, then closes both sides.
    CutBody(usize),
    /// Sends so many bytes of the hub's answer, then closes.
    CutAnswer(usize),
    /// Waits so many milliseconds before passing on.
    Slow(u64),
    /// Takes the request and never answers; the connection stays open.
    Hang,
}

/// A request that came in.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// When it had been read.
    pub at: Mono,
    /// Bytes of its body.
    pub bytes: usize,
    /// The status it was answered with; `None`: with none.
    pub status: Option<u16>,
}

#[derive(Debug)]
struct Shared {
    trouble: Mutex<Trouble>,
    asked: Mutex<Vec<Asked>>,
    hub: SocketAddr,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

/// The proxy. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Front(Arc<Shared>);

/// Head (with its empty line) and body of a request or an answer.
struct Message {
    head: String,
    body: Vec<u8>,
}

impl Front {
    /// Listens on `at` in `host` for sensors that know it as `name` (an address), and passes
    /// on to the hub at `to`, whose data lies in `data`.
    ///
    /// # Panics
    /// When the hub has no CA yet, or the address cannot be bound.
    #[must_use]
    pub fn start(host: &str, at: &str, name: &str, to: &str, data: &Path) -> Self {
        let read = |file: &str| {
            let path = data.join(file);
            std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
        };
        let (ca, key) = (read("ca.pem"), read("ca.key"));
        let shared = Arc::new(Shared {
            trouble: Mutex::default(),
            asked: Mutex::default(),
            hub: to.parse().expect("address:port"),
            server: server_config(name, &String::from_utf8_lossy(&key)),
            client: client_config(&ca),
        });
        let at: SocketAddr = at.parse().expect("address:port");
        let listener = netns::run(host, move || TcpListener::bind(at));
        let listener = listener.unwrap_or_else(|e| panic!("{host} {at}: {e}"));
        let serving = Arc::clone(&shared);
        // The threads stay in the namespace: their connections to the hub start there.
        drop(netns::spawn(host, move || {
            for stream in listener.incoming().flatten() {
                let serving = Arc::clone(&serving);
                // A client that goes away, or is sent away, ends its thread.
                std::thread::spawn(move || drop(serving.serve(stream)));
            }
        }));
        Self(shared)
    }

    /// From the next request on.
    pub fn set(&self, trouble: Trouble) {
        *self.0.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    /// All requests so far.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        self.0.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Shared {
    fn serve(&self, stream: TcpStream) -> io::Result<()> {
        let connection =
            ServerConnection::new(Arc::clone(&self.server)).map_err(io::Error::other)?;
        let mut client = BufReader::new(StreamOwned::new(connection, stream));
        loop {
            let request = Message::read(&mut client)?;
            let at = wait::now();
            let bytes = request.body.len();
            let answer = self.answer(&request);
            let status = answer.as_ref().ok().and_then(|a| status_of(&a.head));
            let asked = Asked { at, bytes, status };
            self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(asked);
            let answer = answer?;
            let text = [answer.head.as_bytes(), &answer.body].concat();
            let cut = match self.trouble() {
                Trouble::CutAnswer(most) => most.min(text.len()),
                _ => text.len(),
            };
            let out = client.get_mut();
            out.write_all(text.get(..cut).unwrap_or_default())?;
            out.flush()?;
            if cut < text.len() {
                return Ok(());
            }
        }
    }

    /// What the client is told; an error closes the connection.
    fn answer(&self, request: &Message) -> io::Result<Message> {
        match self.trouble() {
            Trouble::Refuse(status, headers) => Ok(Message::refusal(status, headers)),
            Trouble::BodyMost(most) if request.body.len() > most => Ok(Message::refusal(413, "")),
            Trouble::RefuseStored(status) => {
                self.ask_hub(request, usize::MAX).map(|_| Message::refusal(status, ""))
            }
            Trouble::CutBody(most) => self.ask_hub(request, most),
            Trouble::Slow(ms) => {
                wait::pause(ms);
                self.ask_hub(request, usize::MAX)
            }
            Trouble::Hang => {
                // Until the trouble is over; the client has long gone then.
                while self.trouble() == Trouble::Hang {
                    wait::pause(50);
                }
                Err(io::ErrorKind::TimedOut.into())
            }
            Trouble::None | Trouble::BodyMost(_) | Trouble::CutAnswer(_) => {
                self.ask_hub(request, usize::MAX)
            }
        }
    }

    /// Passes the request on, at most so many bytes of its body; the hub's answer.
    fn ask_hub(&self, request: &Message, most: usize) -> io::Result<Message> {
        let name = ServerName::from(self.hub.ip());
        let tls =
            ClientConnection::new(Arc::clone(&self.client), name).map_err(io::Error::other)?;
        let mut hub = BufReader::new(StreamOwned::new(tls, TcpStream::connect(self.hub)?));
        let out = hub.get_mut();
        out.write_all(request.head.as_bytes())?;
        out.write_all(request.body.get(..most.min(request.body.len())).unwrap_or_default())?;
        out.flush()?;
        if most < request.body.len() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Message::read(&mut hub)
    }

    fn trouble(&self) -> Trouble {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Message {
    /// Bodies by Content-Length alone: neither of our programs sends any other.
    fn read(input: &mut impl BufRead) -> io::Result<Self> {
        let mut head = String::new();
        let mut limited = input.take(HEAD_BYTES_MAX);
        while !head.ends_with("\r\n\r\n") {
            if limited.read_line(&mut head)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let length = head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
        });
        let mut body = vec![0; length.unwrap_or(0)];
        input.read_exact(&mut body)?;
        Ok(Self { head, body })
    }

    /// As web servers say it: in HTML.
    fn refusal(status: u16, headers: &str) -> Self {
        let body = format!("<html><h1>{status}</h1></html>\n").into_bytes();
        let head =
            format!("HTTP/1.1 {status} No\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
        Self { head, body }
    }
}

fn status_of(head: &str) -> Option<u16> {
    head.split_whitespace().nth(1)?.parse().ok()
}

/// A certificate for `name`, signed with the hub's CA key.
fn server_config(name: &str, ca_key: &str) -> Arc<ServerConfig> {
    let ca_key = KeyPair::from_pem(ca_key).expect("the hub's CA key");
    let mut ca = CertificateParams::default();
    // The issuer's name as the hub writes it: by its key.
    let id: String =
        ca.key_identifier(&ca_key).iter().take(4).map(|b| format!("{b:02x}")).collect();
    ca.distinguished_name.push(DnType::CommonName, format!("agentmon hub CA {id}"));
    let key = KeyPair::generate().expect("a key");
    let leaf = CertificateParams::new([name.to_owned()]).expect("a name");
    let leaf = leaf.signed_by(&key, &Issuer::new(ca, ca_key)).expect("signed");
    let private = PrivateKeyDer::try_from(key.serialize_der()).expect("own key");
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("ring knows them")
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], private)
        .expect("own certificate");
    Arc::new(config)
}

fn client_config(ca_pem: &[u8]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(ca_pem).expect("the hub's CA");
    roots.add(ca).expect("the hub's CA");
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("ring knows them")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
