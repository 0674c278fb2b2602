//! The hub's own certificates: a CA made on the first start, that sensors pin, and a
//! server certificate under it.
//!
//! In: names and addresses sensors may reach the hub by. Out: `ca.pem` and `ca.key` (mode
//! 0600) in the data directory, and a rustls server configuration.
//!
//! The server certificate and its key live in memory only and are made anew at every
//! start, when names or addresses change, and every [`RENEW_AFTER`]: what is never stored
//! cannot leak or expire unnoticed. Both are valid from 1970 on, because a router without
//! a battery clock boots there; trust comes from the pinned CA and the token, not from dates.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use agentmon_core::time::Mono;
use anyhow::{Context, bail};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// The CA's certificate: public, what sensors get by enrolling.
pub const CA_CERT: &str = "ca.pem";
/// The CA's key: whoever has it can pose as the hub.
pub const CA_KEY: &str = "ca.key";
/// A server certificate is replaced after this time (it is valid for 50 years).
pub const RENEW_AFTER: Duration = Duration::from_secs(30 * 86_400);
/// Most names in a certificate; a machine with many containers has many addresses.
const NAMES_MAX: usize = 100;

/// The CA of this hub.
#[derive(Debug)]
pub struct Ca {
    /// Its certificate.
    pub pem: String,
    key: KeyPair,
}

impl Ca {
    /// Reads the CA, or makes it where there is none.
    ///
    /// # Errors
    /// Files that cannot be read or written, a key that is none.
    pub fn load_or_make(data_dir: &Path) -> anyhow::Result<Self> {
        let (key_path, pem_path) = (data_dir.join(CA_KEY), data_dir.join(CA_CERT));
        let key = match std::fs::read_to_string(&key_path) {
            Ok(text) => KeyPair::from_pem(&text).with_context(|| {
                format!("{}: no usable key; put the right one back, or remove it and {CA_CERT} and enrol all sensors anew", key_path.display())
            })?,
            Err(e) if e.kind() == ErrorKind::NotFound => {
                let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
                write_whole(&key_path, key.serialize_pem().as_bytes(), 0o600)?;
                key
            }
            Err(e) => return Err(e).with_context(|| key_path.display().to_string()),
        };
        let pem = match std::fs::read_to_string(&pem_path) {
            Ok(pem) => pem,
            // A certificate made again of the same key and name is the same trust anchor.
            Err(e) if e.kind() == ErrorKind::NotFound => {
                let pem = ca_params(&key)?.self_signed(&key)?.pem();
                write_whole(&pem_path, pem.as_bytes(), 0o644)?;
                pem
            }
            Err(e) => return Err(e).with_context(|| pem_path.display().to_string()),
        };
        Ok(Self { pem, key })
    }

    /// Makes a server certificate for these names.
    fn issue(&self, names: &BTreeSet<String>) -> anyhow::Result<CertifiedKey> {
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.subject_alt_names = names.iter().filter_map(|name| subject(name)).collect();
        params.distinguished_name.push(DnType::CommonName, "agentmon hub");
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        valid_long(&mut params);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let issuer_params = ca_params(&self.key)?;
        let issuer = Issuer::from_params(&issuer_params, &self.key);
        let leaf = params.signed_by(&key, &issuer)?;
        let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let chain: Vec<CertificateDer<'static>> = vec![leaf.der().clone()];
        Ok(CertifiedKey::new(chain, ring::sign::any_supported_type(&der)?))
    }
}

/// The same for the same key: the issuer's name in a leaf must match the pinned CA.
fn ca_params(key: &KeyPair) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    let id: String =
        params.key_identifier(key).iter().take(4).map(|b| format!("{b:02x}")).collect();
    params.distinguished_name.push(DnType::CommonName, format!("agentmon hub CA {id}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid_long(&mut params);
    Ok(params)
}

fn valid_long(params: &mut CertificateParams) {
    // 1970 to 2049: the years of UTCTime (RFC 5280 section 4.1.2.5.1), which even the
    // oldest libraries read.
    params.not_before = date_time_ymd(1970, 1, 1);
    params.not_after = date_time_ymd(2049, 12, 31);
}

fn subject(name: &str) -> Option<SanType> {
    match name.parse::<IpAddr>() {
        Ok(ip) => Some(SanType::IpAddress(ip)),
        Err(_) => Some(SanType::DnsName(name.try_into().ok()?)),
    }
}

/// Writes beside and renames: a crash leaves the whole file or none.
fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let write = || -> std::io::Result<()> {
        match std::fs::remove_file(&new) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(mode).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&new, path)
    };
    write().with_context(|| format!("writing {}", path.display()))
}

/// The certificate in use: replaced while connections run.
pub struct Served {
    ca: Ca,
    current: RwLock<(Arc<CertifiedKey>, BTreeSet<String>, Mono)>,
}

impl std::fmt::Debug for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Served").finish_non_exhaustive()
    }
}

impl Served {
    /// A first certificate for `names`.
    ///
    /// # Errors
    /// When no certificate can be made.
    pub fn new(ca: Ca, names: BTreeSet<String>, now: Mono) -> anyhow::Result<Arc<Self>> {
        let key = Arc::new(ca.issue(&names)?);
        Ok(Arc::new(Self { ca, current: RwLock::new((key, names, now)) }))
    }

    /// The CA's certificate.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca.pem
    }

    /// Makes a new certificate where names have changed or it is old; true when it did.
    ///
    /// # Errors
    /// When no certificate can be made; the old one stays.
    pub fn renew(&self, names: &BTreeSet<String>, now: Mono) -> anyhow::Result<bool> {
        {
            let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
            if current.1 == *names && now.since(current.2) < RENEW_AFTER {
                return Ok(false);
            }
        }
        let key = Arc::new(self.ca.issue(names)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = (key, names.clone(), now);
        Ok(true)
    }

    /// A TLS 1.2/1.3 server that shows the current certificate.
    ///
    /// # Errors
    /// When the provider has no such protocol versions.
    pub fn server_config(self: &Arc<Self>) -> anyhow::Result<Arc<ServerConfig>> {
        let provider = Arc::new(ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Resolver(Arc::clone(self))));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

#[derive(Debug)]
struct Resolver(Arc<Served>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = self.0.current.read().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(&current.0))
    }
}

/// Checks a name for a certificate.
///
/// # Errors
/// When it is neither a host name nor an address.
pub fn check_name(name: &str) -> anyhow::Result<()> {
    if name.is_empty() || name.len() > 253 || rustls::pki_types::ServerName::try_from(name).is_err()
    {
        bail!("`{name}` is neither a host name nor an IP address");
    }
    Ok(())
}

/// Everything this machine may be called: the configured names, its host name,
/// `localhost`, and the addresses it has now.
#[must_use]
pub fn own_names(configured: &[String]) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into();
    names.extend(configured.iter().cloned());
    names.extend(host_name());
    let addresses = agentmon_router::own_addresses::read();
    let room = NAMES_MAX.saturating_sub(names.len());
    names.extend(addresses.into_iter().take(room).map(|ip| ip.to_string()));
    names
}

/// The machine's own name, where it is one that a certificate can hold.
#[must_use]
pub fn host_name() -> Option<String> {
    let system = rustix::system::uname();
    let name = system.nodename().to_str().ok()?.to_ascii_lowercase();
    (check_name(&name).is_ok() && name.parse::<IpAddr>().is_err()).then_some(name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_ca_is_made_once_and_kept_private() {
        let dir = tempfile::tempdir().unwrap();
        let first = Ca::load_or_make(dir.path()).unwrap();
        let again = Ca::load_or_make(dir.path()).unwrap();
        assert_eq!(first.pem, again.pem);
        let mode = std::fs::metadata(dir.path().join(CA_KEY)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_key_is_not_replaced_silently() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(CA_KEY), "nonsense").unwrap();
        let error = format!("{:#}", Ca::load_or_make(dir.path()).unwrap_err());
        assert!(error.contains("ca.key") && error.contains("enrol"), "{error}");
    }

    #[test]
    fn a_new_certificate_comes_with_new_names_or_age() {
        let dir = tempfile::tempdir().unwrap();
        let names = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<BTreeSet<_>>();
        let at = |s: u64| Mono::from_nanos(s * 1_000_000_000);
        let ca = Ca::load_or_make(dir.path()).unwrap();
        let served = Served::new(ca, names(&["localhost"]), at(0)).unwrap();
        assert!(!served.renew(&names(&["localhost"]), at(1_000)).unwrap());
        assert!(served.renew(&names(&["localhost", "192.0.2.1"]), at(1_000)).unwrap());
        assert!(served.renew(&names(&["localhost", "192.0.2.1"]), at(2_600_000)).unwrap());
    }

    #[test]
    fn names_for_certificates() {
        for good in ["hub", "hub.example", "192.0.2.1", "2001:db8::1"] {
            check_name(good).unwrap();
        }
        for bad in ["", "a b", "https://hub", "hub:8787", "-", "ä.example"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
