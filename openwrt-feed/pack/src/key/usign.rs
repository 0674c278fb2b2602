//! ed25519 keys and signatures as OpenWrt's usign and OpenBSD's signify write them.
//!
//! Format: a line `untrusted comment: ...`, then base64 of a record. All begin with `Ed`.
//! Public key: 8 bytes of fingerprint, 32 of key. Signature: fingerprint, 64 bytes. Private
//! key: `BK`, rounds (0: not encrypted), 16 bytes of salt, the first 8 of SHA-512 of the key,
//! fingerprint, 64 bytes (seed, public key). The fingerprint is random and names the key's
//! file on a router: `/etc/opkg/keys/FINGERPRINT`.

use anyhow::{Context as _, anyhow, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ring::digest::{SHA512, digest};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

use super::random;
use crate::apk::hex;

const ALGORITHM: &[u8; 2] = b"Ed";
const FINGERPRINT_BYTES: usize = 8;
const COMMENT: &str = "untrusted comment: ";

/// A private key.
pub struct UsignKey {
    fingerprint: [u8; FINGERPRINT_BYTES],
    seed: [u8; 32],
    pair: Ed25519KeyPair,
}

impl std::fmt::Debug for UsignKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "UsignKey({})", hex(&self.fingerprint))
    }
}

/// A public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsignPublic {
    fingerprint: [u8; FINGERPRINT_BYTES],
    key: [u8; 32],
}

impl UsignKey {
    pub(super) fn generate() -> anyhow::Result<Self> {
        Self::new(random()?, random()?)
    }

    /// A key from its parts.
    ///
    /// # Errors
    /// None with 32 bytes.
    pub fn new(fingerprint: [u8; FINGERPRINT_BYTES], seed: [u8; 32]) -> anyhow::Result<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|e| anyhow!("{e}"))?;
        Ok(Self { fingerprint, seed, pair })
    }

    /// Reads a private key that is not encrypted.
    ///
    /// # Errors
    /// No such key.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let record: [u8; 104] = record(text)?;
        let (head, rest) = record.split_at(8);
        ensure!(head == b"EdBK\0\0\0\0", "no plain ed25519 key (a passphrase is not supported)");
        let (_salt, rest) = rest.split_at(16);
        let (checksum, rest) = rest.split_at(8);
        let (fingerprint, secret) = rest.split_at(FINGERPRINT_BYTES);
        ensure!(digest(&SHA512, secret).as_ref().starts_with(checksum), "a damaged key");
        let (seed, public) = secret.split_at(32);
        let key = Self::new(fingerprint.try_into()?, seed.try_into()?)?;
        ensure!(key.pair.public_key().as_ref() == public, "a damaged key");
        Ok(key)
    }

    pub(super) fn to_text(&self) -> String {
        let secret = [self.seed.as_slice(), self.pair.public_key().as_ref()].concat();
        let checksum = digest(&SHA512, &secret);
        let checksum = checksum.as_ref().get(..8).unwrap_or_default();
        let head = b"EdBK\0\0\0\0".as_slice();
        let record = [head, &[0; 16], checksum, &self.fingerprint, &secret].concat();
        text(&format!("private key {}", hex(&self.fingerprint)), &record)
    }

    /// What others check signatures with.
    #[must_use]
    pub fn public(&self) -> UsignPublic {
        let mut key = [0; 32];
        key.iter_mut().zip(self.pair.public_key().as_ref()).for_each(|(to, from)| *to = *from);
        UsignPublic { fingerprint: self.fingerprint, key }
    }

    /// The text of a signature file.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> String {
        let signature = self.pair.sign(message);
        let record = [ALGORITHM.as_slice(), &self.fingerprint, signature.as_ref()].concat();
        text(&format!("signed by key {}", hex(&self.fingerprint)), &record)
    }
}

impl UsignPublic {
    /// Reads a public key.
    ///
    /// # Errors
    /// No such key.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let record: [u8; 42] = record(text)?;
        let (head, rest) = record.split_at(2);
        ensure!(head == ALGORITHM, "no ed25519 key");
        let (fingerprint, key) = rest.split_at(FINGERPRINT_BYTES);
        Ok(Self { fingerprint: fingerprint.try_into()?, key: key.try_into()? })
    }

    /// The text of its file.
    #[must_use]
    pub fn to_text(&self) -> String {
        let record = [ALGORITHM.as_slice(), &self.fingerprint, &self.key].concat();
        text(&format!("public key {}", hex(&self.fingerprint)), &record)
    }

    /// The name of its file on a router.
    #[must_use]
    pub fn file_name(&self) -> String {
        hex(&self.fingerprint)
    }

    /// Checks the text of a signature file.
    ///
    /// # Errors
    /// It is by another key, or of another message.
    pub fn verify(&self, message: &[u8], signature: &str) -> anyhow::Result<()> {
        let record: [u8; 74] = record(signature)?;
        let (head, rest) = record.split_at(2);
        ensure!(head == ALGORITHM, "no ed25519 signature");
        let (fingerprint, signature) = rest.split_at(FINGERPRINT_BYTES);
        ensure!(
            fingerprint == self.fingerprint,
            "signed by key {}, not {}",
            hex(fingerprint),
            self.file_name()
        );
        let public = UnparsedPublicKey::new(&ED25519, self.key);
        public.verify(message, signature).map_err(|_| anyhow!("the signature is wrong"))
    }
}

fn text(comment: &str, record: &[u8]) -> String {
    format!("{COMMENT}{comment}\n{}\n", BASE64_STANDARD.encode(record))
}

fn record<const N: usize>(text: &str) -> anyhow::Result<[u8; N]> {
    let mut lines = text.lines();
    ensure!(lines.next().is_some_and(|l| l.starts_with(COMMENT)), "no `{COMMENT}` line");
    let record = BASE64_STANDARD.decode(lines.next().context("no second line")?.trim())?;
    let len = record.len();
    record.try_into().map_err(|_| anyhow!("{len} bytes, not {N}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> UsignKey {
        UsignKey::new([1, 2, 3, 4, 5, 6, 7, 8], [9; 32]).unwrap()
    }

    #[test]
    fn keys_are_read_as_written() {
        let again = UsignKey::parse(&key().to_text()).unwrap();
        assert_eq!(again.public(), key().public());
        assert_eq!(UsignPublic::parse(&key().public().to_text()).unwrap(), key().public());
        assert_eq!(key().public().file_name(), "0102030405060708");
        assert_eq!(format!("{:?}", key()), "UsignKey(0102030405060708)");
    }

    #[test]
    fn a_signature_fits_its_message_and_key_alone() {
        let signature = key().sign(b"text");
        assert_eq!(signature, key().sign(b"text"));
        let public = key().public();
        assert!(public.verify(b"text", &signature).is_ok());
        assert!(public.verify(b"Text", &signature).is_err());
        let other = UsignKey::generate().unwrap().public();
        let said = other.verify(b"text", &signature).unwrap_err().to_string();
        assert!(said.contains("signed by key 0102030405060708"), "{said}");
    }

    #[test]
    fn a_damaged_key_is_refused() {
        let text = key().to_text();
        let (comment, record) = text.split_once('\n').unwrap();
        let mut bytes = BASE64_STANDARD.decode(record.trim()).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        let damaged = format!("{comment}\n{}\n", BASE64_STANDARD.encode(bytes));
        assert!(UsignKey::parse(&damaged).unwrap_err().to_string().contains("damaged"));
        assert!(UsignKey::parse(&key().public().to_text()).is_err());
        assert!(UsignKey::parse("").is_err());
    }

    proptest! {
        #[test]
        fn anything_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let file = text("x", &bytes);
            drop((UsignKey::parse(&file), UsignPublic::parse(&file)));
            assert!(key().public().verify(b"x", &file).is_err());
        }
    }
}
