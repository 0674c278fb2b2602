//! Requests to services that the configuration names: what is common to alerts and models.
//!
//! In: an address, headers, a body. Out: status and the begin of the answer, or why there is
//! none. Blocks the caller, at most as long as the agent's time-out.
//!
//! Invariants: no redirection is followed (a body and a key go where the configuration says,
//! or nowhere); of an answer at most `bytes_max` bytes are read; no error text holds the
//! address, whose path may be a secret.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use agentmon_core::name::printable;
use anyhow::Context as _;
use ureq::Agent;
use ureq::http::{Method, Request, Uri};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};

/// The machine itself, by name or loopback address.
pub(crate) fn is_here(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether it is an address to send to; `secret`: with a key or token.
///
/// # Errors
/// What is wrong with it; not the address.
pub(crate) fn check_url(url: &str, secret: bool) -> Result<(), String> {
    let wanted = || "want an address as https://host/path".to_owned();
    let uri: Uri = url.parse().map_err(|_| wanted())?;
    let host = uri.host().filter(|h| !h.is_empty()).ok_or_else(wanted)?;
    if uri.authority().is_some_and(|a| a.as_str().contains('@')) {
        return Err("name and password do not belong into the address".to_owned());
    }
    match uri.scheme_str() {
        Some("https") => Ok(()),
        Some("http") if secret && !is_here(host.trim_matches(['[', ']'])) => {
            Err("want https: the secret would travel in the clear".to_owned())
        }
        Some("http") => Ok(()),
        _ => Err(wanted()),
    }
}

/// A client that trusts the certificates of a file, which is read only for https.
///
/// # Errors
/// A file without certificates.
pub(crate) fn agent(ca_file: &Path, https: bool, timeout: Duration) -> anyhow::Result<Agent> {
    let mut tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()));
    if https {
        let pem =
            std::fs::read(ca_file).with_context(|| format!("ca_file: {}", ca_file.display()))?;
        let trusted: Vec<Certificate<'static>> = parse_pem(&pem)
            .filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            })
            .collect();
        anyhow::ensure!(!trusted.is_empty(), "ca_file: no certificate in {}", ca_file.display());
        tls = tls.root_certs(RootCerts::new_with_certs(&trusted));
    }
    Ok(Agent::config_builder()
        .tls_config(tls.build())
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(concat!("agentmon/", env!("CARGO_PKG_VERSION")))
        .max_idle_connections(0)
        .timeout_global(Some(timeout))
        .build()
        .new_agent())
}

/// What is sent.
pub(crate) struct Sending<'a> {
    pub(crate) method: Method,
    pub(crate) url: &'a str,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: String,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// `Retry-After` in seconds.
    pub(crate) retry_after: Option<Duration>,
    /// At most as many bytes as asked for, and one more where there were more.
    pub(crate) body: Vec<u8>,
}

/// Sends it and reads the answer.
///
/// # Errors
/// Why there is none, for people.
pub(crate) fn call(agent: &Agent, sending: Sending<'_>, bytes_max: u64) -> Result<Answer, String> {
    let mut request = Request::builder().method(sending.method).uri(sending.url);
    for (name, value) in sending.headers {
        request = request.header(name, value);
    }
    // A header with a line break: our own, or a secret that is none.
    let request = request
        .body(sending.body)
        .map_err(|error| format!("the request cannot be made: {error}"))?;
    let mut response = agent.run(request).map_err(|error| reason(&error))?;
    let wait = response.headers().get("retry-after").and_then(|v| v.to_str().ok());
    let retry_after = wait.and_then(|v| v.trim().parse().ok()).map(Duration::from_secs);
    let status = response.status().as_u16();
    let mut body = Vec::new();
    let read = response.body_mut().as_reader().take(bytes_max + 1).read_to_end(&mut body);
    match read {
        // An answer that breaks off has said its status: that is enough for an error.
        Err(_) if status >= 300 => Ok(Answer { status, retry_after, body }),
        Err(error) => Err(format!("the answer breaks off: {}", safe(&error.to_string()))),
        Ok(_) => Ok(Answer { status, retry_after, body }),
    }
}

fn safe(text: &str) -> String {
    printable(text.as_bytes(), 200)
}

/// Without the address: ureq's own texts may quote it.
fn reason(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(what) => format!("no answer in time ({what})"),
        ureq::Error::HostNotFound => "there is no host of that name".to_owned(),
        ureq::Error::ConnectionFailed => "no connection".to_owned(),
        ureq::Error::BadUri(_) => "the address is none".to_owned(),
        ureq::Error::Io(error) => safe(&error.to_string()),
        ureq::Error::Rustls(error) => safe(&format!("TLS: {error}")),
        _ => "the exchange failed".to_owned(),
    }
}
