//! TLS for syslog (RFC 5425): the server's settings, from PEM files.
//!
//! In: the paths of the configuration. Out: what a connection needs. Read when the collector
//! starts: a renewed certificate is taken with the next reload. TLS 1.2 and 1.3.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use super::config::Config;

/// Most certificates in one file.
const CERTIFICATES_MAX: usize = 64;

/// The server's side of every connection.
pub(super) fn server(config: &Config) -> anyhow::Result<Arc<ServerConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = certificates(&config.tls_cert)?;
    let key = PrivateKeyDer::from_pem_file(&config.tls_key)
        .map_err(|error| anyhow::anyhow!("{}: {error}", config.tls_key.display()))?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .context("TLS")?;
    let builder = if config.tls_client_ca.as_os_str().is_empty() {
        builder.with_no_client_auth()
    } else {
        let path = &config.tls_client_ca;
        let mut roots = RootCertStore::empty();
        for certificate in certificates(path)? {
            roots.add(certificate).with_context(|| path.display().to_string())?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let verifier = verifier.build().with_context(|| path.display().to_string())?;
        builder.with_client_cert_verifier(verifier)
    };
    let mut server = builder.with_single_cert(chain, key).with_context(|| {
        let (cert, key) = (config.tls_cert.display(), config.tls_key.display());
        format!("{cert} and {key} do not belong together")
    })?;
    // Senders of syslog never read: with a ticket unread, their closing the connection would be
    // a reset, and the kernel would throw away what they sent last.
    server.send_tls13_tickets = 0;
    Ok(Arc::new(server))
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let all = CertificateDer::pem_file_iter(path)
        .map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
    let all: Result<Vec<_>, _> = all.take(CERTIFICATES_MAX).collect();
    let all = all.map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
    anyhow::ensure!(!all.is_empty(), "{}: holds no certificate", path.display());
    Ok(all)
}
