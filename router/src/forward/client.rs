//! The hub as the router sees it: three requests over HTTPS, and what the answers mean.
//!
//! In: an identity and request bodies. Out: an answer, or a refusal sorted by what to do
//! about it. Blocks the forwarder thread, at most [`Timeouts::request`].
//!
//! TLS 1.3; only the CA of the identity is trusted, no public root is even compiled in; no proxy of the environment is used and no
//! redirect followed, so that the token goes to the hub alone.

use std::fmt;
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use agentmon_core::name::printable;
use agentmon_core::wire::CONTENT_TYPE;
use rustls::SupportedCipherSuite;
use rustls::crypto::{CryptoProvider, ring};
use serde::Deserialize;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};
use ureq::{Agent, Body, http::Response};

use crate::join::Join;

/// Most bytes read of an answer.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;
/// Most certificates in an identity.
const CERTIFICATES_MAX: usize = 8;
/// Bytes of lists read at a time.
const COPY_BYTES: usize = 32 * 1024;
/// Longest wait a hub may ask for; longer ones are cut.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// How long to wait for the hub.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For the connection, TLS included.
    pub connect: Duration,
    /// For the hub's answer, once all is sent: a hub that hangs is noticed by this.
    pub answer: Duration,
    /// For a whole request.
    pub request: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        // A full batch on a slow uplink (512 KiB at 100 kbit/s) takes 40 s.
        Self {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(30),
            request: Duration::from_secs(90),
        }
    }
}

/// A hub one may talk to.
#[derive(Debug)]
pub struct HubClient {
    agent: Agent,
    url: String,
    authorization: String,
}

/// The hub has stored the events up to `acked` of `epoch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Ack {
    /// The life of the ring the batch came from.
    pub epoch: u64,
    /// Last number stored.
    pub acked: u64,
    /// Up to where it has stored this epoch, whatever this batch held; `None`: nothing of
    /// it, or a hub that does not say.
    #[serde(default)]
    pub cursor: Option<u64>,
}

/// The hub's greeting.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Hello {
    /// The name it knows this sensor by.
    pub sensor: String,
    /// Its version.
    pub version: String,
}

/// What came of asking for lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// All that the hub sent was written.
    Whole,
    /// It has what is known already.
    Unchanged,
    /// It has none, or is too old to.
    Nothing,
}

/// Why the hub did not take it, by what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// 401, 403: the token is unknown or revoked. A person must act.
    Token(String),
    /// 409, 426: the two programs do not understand each other. A person must act.
    Version(String),
    /// 413: send less at once.
    TooLarge,
    /// 429, 503: later; perhaps the hub says when.
    Busy {
        /// What it said.
        why: String,
        /// When it wants to be asked again.
        after: Option<Duration>,
    },
    /// Any other answer, or one that makes no sense.
    Other(String),
    /// No answer: name, route, port, TLS or time-out.
    Unreachable(String),
}

impl Refusal {
    /// Whether the hub may have stored the batch all the same: it is not known who answered,
    /// or nobody did.
    #[must_use]
    pub const fn leaves_doubt(&self) -> bool {
        matches!(self, Self::Busy { .. } | Self::Other(_) | Self::Unreachable(_))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(why) => {
                write!(f, "the hub refuses the token ({why}); enrol and join again")
            }
            Self::Version(why) => {
                write!(f, "the hub refuses the version ({why}); update the older")
            }
            Self::TooLarge => f.write_str("the hub finds the batch too large"),
            Self::Busy { why, .. } => write!(f, "the hub is busy ({why})"),
            Self::Other(why) => write!(f, "unexpected answer: {why}"),
            Self::Unreachable(why) => write!(f, "hub not reachable: {why}"),
        }
    }
}

impl HubClient {
    /// A client for the identity's hub.
    ///
    /// # Errors
    /// When the identity holds no certificate.
    pub fn new(join: &Join, timeouts: Timeouts) -> Result<Self, String> {
        let certificates = certificates(&join.ca_pem)?;
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .unversioned_rustls_crypto_provider(Arc::new(tls13()))
            .root_certs(RootCerts::new_with_certs(&certificates))
            .build();
        let agent = Agent::config_builder()
            .tls_config(tls)
            .https_only(true)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .user_agent(concat!("agentmon-router/", env!("CARGO_PKG_VERSION")))
            .max_idle_connections(1)
            .max_idle_connections_per_host(1)
            .timeout_connect(Some(timeouts.connect))
            .timeout_recv_response(Some(timeouts.answer))
            .timeout_global(Some(timeouts.request))
            .build()
            .new_agent();
        let authorization = format!("Bearer {}", join.token);
        Ok(Self { agent, url: join.url.clone(), authorization })
    }

    /// Sends one encoded batch.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn ingest(&self, body: &[u8]) -> Result<Ack, Refusal> {
        let request = self
            .agent
            .post(format!("{}/v1/ingest", self.url))
            .header("authorization", &self.authorization)
            .header("content-type", CONTENT_TYPE);
        json(read(request.send(body))?)
    }

    /// Asks whether the hub knows this sensor.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn hello(&self) -> Result<Hello, Refusal> {
        let request = self
            .agent
            .get(format!("{}/v1/hello", self.url))
            .header("authorization", &self.authorization);
        json(read(request.call())?)
    }

    /// Asks for the compiled lists, unless they are among those `known` by their checksums;
    /// they are written to `out`, at most `bytes_max` bytes.
    ///
    /// # Errors
    /// [`Refusal`]; what was written then is not whole.
    pub fn lists(
        &self,
        known: &[u64],
        bytes_max: u64,
        out: &mut dyn Write,
    ) -> Result<Fetched, Refusal> {
        let mut request = self
            .agent
            .get(format!("{}/v1/lists", self.url))
            .header("authorization", &self.authorization);
        if !known.is_empty() {
            let tags: Vec<String> = known.iter().map(|sum| etag(*sum)).collect();
            request = request.header("if-none-match", tags.join(", "));
        }
        let result = request.call();
        match result.as_ref().map(|response| response.status().as_u16()) {
            Ok(304) => return Ok(Fetched::Unchanged),
            Ok(404) => return Ok(Fetched::Nothing),
            Ok(200) => {}
            _ => return Err(read(result).err().unwrap_or_else(|| odd("no lists"))),
        }
        let mut response = result.map_err(|error| Refusal::Unreachable(explain(&error)))?;
        let kind = response.headers().get("content-type").and_then(|kind| kind.to_str().ok());
        if kind != Some(LISTS_TYPE) {
            return Err(odd(&format!("no lists but {}", kind.unwrap_or("something"))));
        }
        let mut body = response.body_mut().with_config().limit(bytes_max + 1).reader();
        copy(&mut body, bytes_max, out)
    }
}

/// What compiled lists are sent as.
pub const LISTS_TYPE: &str = "application/vnd.agentmon.lists";

/// The entity tag of compiled lists with that checksum (RFC 9110 section 8.8.3).
#[must_use]
pub fn etag(checksum: u64) -> String {
    format!("\"{checksum:016x}\"")
}

fn odd(what: &str) -> Refusal {
    Refusal::Other(printable(what.as_bytes(), 200))
}

fn copy(body: &mut dyn Read, bytes_max: u64, out: &mut dyn Write) -> Result<Fetched, Refusal> {
    let (mut chunk, mut bytes) = (vec![0; COPY_BYTES], 0u64);
    loop {
        match body.read(&mut chunk) {
            Ok(0) => return Ok(Fetched::Whole),
            Ok(n) => {
                bytes += n as u64;
                if bytes > bytes_max {
                    return Err(Refusal::TooLarge);
                }
                out.write_all(chunk.get(..n).unwrap_or_default())
                    .map_err(|error| odd(&format!("writing them: {error}")))?;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => {
                let text = printable(error.to_string().as_bytes(), 200);
                return Err(Refusal::Unreachable(format!("cut off after {bytes} bytes: {text}")));
            }
        }
    }
}

/// TLS 1.3 alone: our hub speaks it, and what is not offered cannot be attacked.
fn tls13() -> CryptoProvider {
    let all = ring::default_provider();
    let modern = |suite: &SupportedCipherSuite| suite.tls13().is_some();
    CryptoProvider { cipher_suites: all.cipher_suites.into_iter().filter(modern).collect(), ..all }
}

/// The certificates of a PEM text.
///
/// # Errors
/// What is wrong with it, in words.
pub fn certificates(pem: &str) -> Result<Vec<Certificate<'static>>, String> {
    let mut found = Vec::new();
    for item in parse_pem(pem.as_bytes()).take(CERTIFICATES_MAX) {
        match item.map_err(|e| format!("not PEM: {e}"))? {
            PemItem::Certificate(certificate) => found.push(certificate),
            _ => return Err("holds something else than certificates".to_owned()),
        }
    }
    if found.is_empty() { Err("holds no certificate".to_owned()) } else { Ok(found) }
}

/// A successful answer's text; everything else as a refusal.
fn read(result: Result<Response<Body>, ureq::Error>) -> Result<String, Refusal> {
    let mut response = result.map_err(|error| Refusal::Unreachable(explain(&error)))?;
    let status = response.status().as_u16();
    let after = response.headers().get("retry-after").and_then(|v| retry_after(v.to_str().ok()?));
    let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
    if (200..300).contains(&status) {
        let body = body.map_err(|error| Refusal::Unreachable(explain(&error)))?;
        return String::from_utf8(body).map_err(|_| Refusal::Other("not text".to_owned()));
    }
    let text = printable(body.unwrap_or_default().trim_ascii(), 200);
    let why = if text.is_empty() { status.to_string() } else { format!("{status}: {text}") };
    Err(match status {
        401 | 403 => Refusal::Token(why),
        409 | 426 => Refusal::Version(why),
        413 => Refusal::TooLarge,
        429 | 503 => Refusal::Busy { why, after },
        _ => Refusal::Other(why),
    })
}

fn json<T: serde::de::DeserializeOwned>(text: String) -> Result<T, Refusal> {
    serde_json::from_str(&text).map_err(|e| Refusal::Other(format!("not the JSON expected: {e}")))
}

/// Seconds; the form with a date is not used by our hub and ignored.
fn retry_after(value: &str) -> Option<Duration> {
    let seconds: u64 = value.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

/// A connection error with what a person can do about it.
fn explain(error: &ureq::Error) -> String {
    let text = error.to_string();
    let hint = if text.contains("UnknownIssuer") || text.contains("BadSignature") {
        "; its certificate is not from the CA known since joining: was the hub set up anew? \
         Enrol and join again"
    } else if text.contains("not valid for name") {
        "; its certificate is for another name or address: enrol with the address in use"
    } else if text.contains("not valid yet") || text.contains("expired") {
        "; is the clock right on both sides?"
    } else {
        ""
    };
    format!("{}{hint}", printable(text.as_bytes(), 300))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_bounded() {
        assert_eq!(retry_after(" 7 "), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("99999999"), Some(RETRY_AFTER_MAX));
        assert_eq!(retry_after("Mon, 23 Nov 2026 14:00:00 GMT"), None);
        assert_eq!(retry_after("-1"), None);
    }

    #[test]
    fn a_private_key_is_no_certificate() {
        let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        assert!(certificates(&key).unwrap_err().contains("something else"));
        assert!(certificates("").unwrap_err().contains("no certificate"));
    }
}
