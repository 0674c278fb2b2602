//! A POST or PUT to a receiver, and what its answer means.
//!
//! In: an address, headers, a body. Out: [`Outcome`]. Blocks the target's own thread, at
//! most the target's `timeout_seconds`. Answers: RFC 9110 section 15, Retry-After section
//! 10.2.3; 425 RFC 8470, 429 RFC 6585.
//!
//! Invariants: no redirection is followed (a body and a token go where the configuration
//! says, or nowhere); of the answer at most [`ANSWER_MAX`] bytes are read; no error text
//! holds the address's path, which may be a secret.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use agentmon_core::name::printable;
use anyhow::Context as _;
use ureq::Agent;
use ureq::http::{Method, Request, Uri};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};

use super::Outcome;

/// Read of an answer, for its error text.
const ANSWER_MAX: u64 = 2_048;
/// Longest wait a receiver may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);

/// Whether it is an address to send to.
///
/// # Errors
/// What is wrong with it; not the address.
pub(super) fn check_url(url: &str, token: bool) -> Result<(), String> {
    let wanted = || "want an address as https://host/path".to_owned();
    let uri: Uri = url.parse().map_err(|_| wanted())?;
    let host = uri.host().filter(|h| !h.is_empty()).ok_or_else(wanted)?;
    if uri.authority().is_some_and(|a| a.as_str().contains('@')) {
        return Err("name and password do not belong into the address".to_owned());
    }
    match uri.scheme_str() {
        Some("https") => Ok(()),
        Some("http") if token && !super::config::is_here(host.trim_matches(['[', ']'])) => {
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
pub(super) fn agent(ca_file: &Path, https: bool, timeout: Duration) -> anyhow::Result<Agent> {
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
pub(super) struct Sending<'a> {
    pub(super) method: Method,
    pub(super) url: &'a str,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: String,
}

/// Sends it.
pub(super) fn send(agent: &Agent, sending: Sending<'_>) -> Outcome {
    let mut request = Request::builder().method(sending.method).uri(sending.url);
    for (name, value) in sending.headers {
        request = request.header(name, value);
    }
    let request = match request.body(sending.body) {
        Ok(request) => request,
        // A header with a line break: our own, or a secret that is none.
        Err(error) => return Outcome::later(format!("the request cannot be made: {error}")),
    };
    match agent.run(request) {
        Ok(mut response) => {
            let status = response.status().as_u16();
            let wait = response.headers().get("retry-after").and_then(|v| v.to_str().ok());
            let wait = wait.and_then(|v| v.trim().parse().ok()).map(Duration::from_secs);
            let mut text = Vec::new();
            let answer = response.body_mut().as_reader().take(ANSWER_MAX).read_to_end(&mut text);
            let text = if answer.is_ok() { printable(&text, 200) } else { String::new() };
            meaning(status, wait, &text)
        }
        Err(error) => Outcome::later(reason(&error)),
    }
}

/// What a status means for the message.
fn meaning(status: u16, wait: Option<Duration>, text: &str) -> Outcome {
    let said = if text.is_empty() {
        format!("the receiver answers {status}")
    } else {
        format!("the receiver answers {status}: {text}")
    };
    match status {
        200..=299 => Outcome::Sent,
        // This message will never do.
        400 | 413 | 415 | 422 => Outcome::Refused(said),
        _ => Outcome::Later { why: said, wait: wait.map(|w| w.min(RETRY_AFTER_MAX)) },
    }
}

/// Without the address: ureq's own texts may quote it.
fn reason(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(what) => format!("no answer in time ({what})"),
        ureq::Error::HostNotFound => "there is no host of that name".to_owned(),
        ureq::Error::ConnectionFailed => "no connection".to_owned(),
        ureq::Error::BadUri(_) => "the address is none".to_owned(),
        ureq::Error::Io(error) => printable(error.to_string().as_bytes(), 200),
        ureq::Error::Rustls(error) => printable(format!("TLS: {error}").as_bytes(), 200),
        _ => "the exchange failed".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(status: u16, want: &str) {
        let got = match meaning(status, Some(Duration::from_secs(1 << 40)), "x") {
            Outcome::Sent => "sent",
            Outcome::Refused(_) => "refused",
            Outcome::Later { wait, .. } => {
                assert_eq!(wait, Some(RETRY_AFTER_MAX));
                "later"
            }
        };
        assert_eq!(got, want, "{status}");
    }

    #[test]
    fn statuses() {
        check(200, "sent");
        check(204, "sent");
        check(301, "later");
        check(400, "refused");
        check(401, "later");
        check(404, "later");
        check(413, "refused");
        check(429, "later");
        check(500, "later");
        check(529, "later");
    }
}
