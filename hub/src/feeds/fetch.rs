//! One list from the web: a conditional GET, bounded in every direction.
//!
//! In: an address, what is known of the last answer. Out: a text, "unchanged", or why not.
//! Blocks the thread of the lists, at most [`FETCH_TIME`]. Format: RFC 9110 sections 13.1
//! (conditions) and 10.2.3 (Retry-After); gzip (RFC 1952) whether declared or not.
//!
//! Invariants: https answers are only followed to https; nothing of this network is sent but
//! the program's name; a small answer that unpacks to more than the maximum is refused as
//! soon as it does.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use agentmon_core::name::printable;
use anyhow::{Context as _, bail};
use flate2::read::MultiGzDecoder;
use ureq::Agent;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};

/// For a whole fetch: 128 MiB at 2 Mbit/s.
const FETCH_TIME: Duration = Duration::from_secs(600);
const CONNECT_TIME: Duration = Duration::from_secs(20);
/// Mirrors redirect once or twice.
const REDIRECTS_MAX: u32 = 5;
/// Longest wait a server may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(7 * 86_400);

/// What a server said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// What is known is still true.
    Unchanged,
    /// A text, and how to ask for a newer one.
    Text { text: Vec<u8>, etag: String, last_modified: String },
    /// Come again after this time.
    Later(Duration, String),
}

/// A client that trusts the certificates of a file.
pub(super) fn agent(ca_file: &Path, https_only: bool) -> anyhow::Result<Agent> {
    let mut tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()));
    if https_only {
        let pem = std::fs::read(ca_file)
            .with_context(|| format!("lists.ca_file: {}", ca_file.display()))?;
        let trusted: Vec<Certificate<'static>> = parse_pem(&pem)
            .filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            })
            .collect();
        anyhow::ensure!(!trusted.is_empty(), "lists.ca_file: no certificate in it");
        tls = tls.root_certs(RootCerts::new_with_certs(&trusted));
    }
    Ok(Agent::config_builder()
        .tls_config(tls.build())
        .https_only(https_only)
        .http_status_as_error(false)
        .max_redirects(REDIRECTS_MAX)
        .user_agent(concat!("agentmon/", env!("CARGO_PKG_VERSION")))
        .max_idle_connections(0)
        .timeout_connect(Some(CONNECT_TIME))
        .timeout_global(Some(FETCH_TIME))
        .build()
        .new_agent())
}

/// Fetches, unless the server says that nothing has changed.
///
/// # Errors
/// What went wrong, for people.
pub(super) fn fetch(
    agent: &Agent,
    url: &str,
    etag: &str,
    last_modified: &str,
    key: Option<&str>,
    bytes_max: u64,
) -> anyhow::Result<Answer> {
    let mut request = agent.get(url);
    if let Some(key) = key {
        // It goes to the server that was named, and nowhere a redirection leads.
        request = request.header("auth-key", key).config().max_redirects(0).build();
    }
    if !etag.is_empty() {
        request = request.header("if-none-match", etag);
    }
    if !last_modified.is_empty() {
        request = request.header("if-modified-since", last_modified);
    }
    let mut response = request.call().map_err(|e| anyhow::anyhow!("{}", safe(&e.to_string())))?;
    let header = |name: &str| {
        let value = response.headers().get(name).and_then(|v| v.to_str().ok());
        value.map(|v| v.chars().take(200).collect::<String>()).unwrap_or_default()
    };
    let status = response.status().as_u16();
    match status {
        200 => {}
        304 => return Ok(Answer::Unchanged),
        429 | 503 => {
            let seconds = header("retry-after").trim().parse().unwrap_or(0);
            let wait = Duration::from_secs(seconds).min(RETRY_AFTER_MAX);
            return Ok(Answer::Later(wait, format!("the server answers {status}")));
        }
        _ => bail!("the server answers {status}"),
    }
    let (etag, last_modified) = (header("etag"), header("last-modified"));
    if header("content-length").parse::<u64>().is_ok_and(|length| length > bytes_max) {
        bail!("longer than {bytes_max} bytes (lists.bytes_max)");
    }
    let body = response.body_mut().with_config().limit(bytes_max + 1).reader();
    let packed = read(body, bytes_max)?;
    let text = if packed.starts_with(b"\x1f\x8b") {
        read(MultiGzDecoder::new(packed.as_slice()), bytes_max).context("unpacking it")?
    } else {
        packed
    };
    Ok(Answer::Text { text, etag, last_modified })
}

/// All of it, or an error as soon as it is more than that.
pub(super) fn read(from: impl Read, bytes_max: u64) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = from.take(bytes_max + 1).read_to_end(&mut bytes);
    read.map_err(|e| anyhow::anyhow!("it ended early: {}", safe(&e.to_string())))?;
    if bytes.len() as u64 > bytes_max {
        bail!("longer than {bytes_max} bytes (lists.bytes_max)");
    }
    Ok(bytes)
}

fn safe(text: &str) -> String {
    printable(text.as_bytes(), 200)
}
