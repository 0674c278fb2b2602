//! A hub for tests: real TLS on a loopback port, answers by a closure.
//!
//! Speaks just enough HTTP/1.1 for our own client: one request after the other on a
//! connection, bodies by Content-Length.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use agentmon_core::wire::{Batch, decode_batch};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::join::Join;

/// What the hub was asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) authorization: String,
    pub(crate) content_type: String,
    pub(crate) if_none_match: String,
    /// All header lines.
    pub(crate) headers: String,
    pub(crate) body: Vec<u8>,
}

impl Asked {
    #[track_caller]
    pub(crate) fn batch(&self) -> Batch {
        decode_batch(&self.body).unwrap()
    }
}

/// What it answers.
#[derive(Clone, Debug)]
pub(crate) enum Say {
    /// A status, extra header lines, a body.
    Http(u16, &'static str, String),
    /// The same with a body of any bytes, and so many more announced than there come.
    Bytes(u16, String, Vec<u8>, usize),
    /// Nothing: the connection is cut after the request was read.
    HangUp,
    /// Nothing, and the connection stays open.
    Never,
}

impl Say {
    pub(crate) fn status(status: u16) -> Self {
        Self::Http(status, "", String::new())
    }
    /// What our hub says when it has stored all of a batch.
    pub(crate) fn acked(batch: &Batch) -> Self {
        Self::acked_to(batch.epoch, batch.last_seq().unwrap_or(0))
    }
    pub(crate) fn acked_to(epoch: u64, seq: u64) -> Self {
        Self::Http(200, "", format!("{{\"epoch\":{epoch},\"acked\":{seq}}}"))
    }
}

type Answer = Mutex<dyn FnMut(&Asked) -> Say + Send>;

/// Listens until dropped.
pub(crate) struct TestHub {
    pub(crate) address: SocketAddr,
    pub(crate) ca_pem: String,
    /// Its own certificate.
    pub(crate) leaf_pem: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    stop: Arc<AtomicBool>,
}

impl TestHub {
    /// `answer` is called for each request, in order. There are no lists.
    pub(crate) fn start(mut answer: impl FnMut(&Asked) -> Say + Send + 'static) -> Self {
        let lists = |asked: &Asked| asked.path == "/v1/lists";
        Self::start_as(
            "127.0.0.1",
            move |asked| {
                if lists(asked) { Say::status(404) } else { answer(asked) }
            },
        )
    }

    /// With a certificate for another name.
    pub(crate) fn start_as(name: &str, answer: impl FnMut(&Asked) -> Say + Send + 'static) -> Self {
        let (config, ca_pem, leaf_pem) = certificates(name);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let stop = Arc::<AtomicBool>::default();
        let answer: Arc<Answer> = Arc::new(Mutex::new(answer));
        let (log, end) = (Arc::clone(&asked), Arc::clone(&stop));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if end.load(Ordering::SeqCst) {
                    return;
                }
                let (config, log, answer) = (Arc::clone(&config), log.clone(), answer.clone());
                std::thread::spawn(move || serve(stream.unwrap(), config, &log, &answer));
            }
        });
        Self { address, ca_pem, leaf_pem, asked, stop }
    }

    /// A join for this hub.
    pub(crate) fn join(&self, token: &str) -> Join {
        let url = format!("https://{}", self.address);
        Join::new(url, "attic".into(), token.into(), self.ca_pem.clone())
    }

    /// All requests so far, but for lists.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        let all = self.asked.lock().unwrap();
        all.iter().filter(|asked| asked.path != "/v1/lists").cloned().collect()
    }

    /// All requests for lists so far.
    pub(crate) fn asked_for_lists(&self) -> Vec<Asked> {
        let all = self.asked.lock().unwrap();
        all.iter().filter(|asked| asked.path == "/v1/lists").cloned().collect()
    }
}

impl Drop for TestHub {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
    }
}

/// A CA and a server certificate for `name` signed by it.
fn certificates(name: &str) -> (Arc<ServerConfig>, String, String) {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_cert = ca.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    (Arc::new(config), ca_cert.pem(), leaf.pem())
}

fn serve(stream: TcpStream, config: Arc<ServerConfig>, log: &Mutex<Vec<Asked>>, answer: &Answer) {
    let connection = ServerConnection::new(config).unwrap();
    let mut tls = BufReader::new(StreamOwned::new(connection, stream));
    while let Some(asked) = read(&mut tls) {
        log.lock().unwrap().push(asked.clone());
        let (status, headers, body, more) = match (answer.lock().unwrap())(&asked) {
            Say::Http(status, headers, body) => (status, headers.to_owned(), body.into_bytes(), 0),
            Say::Bytes(status, headers, body, more) => (status, headers, body, more),
            Say::HangUp => return,
            // Until the client has had enough.
            Say::Never => return drop(tls.read_line(&mut String::new())),
        };
        let length = body.len() + more;
        let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n{headers}\r\n");
        let out = tls.get_mut();
        let sent = out.write_all(head.as_bytes()).and_then(|()| out.write_all(&body));
        if sent.and_then(|()| out.flush()).is_err() || more > 0 {
            return;
        }
    }
}

/// `None` when the client has gone, or never trusted us.
fn read(input: &mut impl BufRead) -> Option<Asked> {
    let mut line = String::new();
    input.read_line(&mut line).ok().filter(|n| *n > 0)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let header = |headers: &str, name: &str| {
        let value = headers.lines().find_map(|l| {
            let (key, value) = l.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        });
        value.unwrap_or_default()
    };
    let mut headers = String::new();
    while !headers.ends_with("\r\n\r\n") && headers != "\r\n" {
        input.read_line(&mut headers).ok().filter(|n| *n > 0)?;
    }
    let mut body = vec![0; header(&headers, "content-length").parse().unwrap_or(0)];
    input.read_exact(&mut body).ok()?;
    let [authorization, content_type, if_none_match] =
        ["authorization", "content-type", "if-none-match"].map(|name| header(&headers, name));
    Some(Asked { method, path, authorization, content_type, if_none_match, headers, body })
}
