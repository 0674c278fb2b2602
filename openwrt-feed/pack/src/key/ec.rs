//! EC P-256 keys in PEM, and signatures of ADB files as apk makes them.
//!
//! Format (apk-tools, `src/adb.c`): a signature block holds version 0, the hash's number (4:
//! SHA-512), 16 bytes that name the key (the start of SHA-512 of its uncompressed point), and
//! an ECDSA signature in DER. What is signed is SHA-512 of: the schema word, those 18 bytes,
//! and SHA-512 of the ADB block. P-256 takes the first half of that hash.

use anyhow::{Context as _, anyhow, ensure};
use p256::ecdsa::signature::hazmat::{PrehashSigner as _, PrehashVerifier as _};
use p256::ecdsa::{Signature, SigningKey, VerifyingKey};
use p256::elliptic_curve::sec1::ToSec1Point as _;
use p256::pkcs8::{
    DecodePrivateKey as _, DecodePublicKey as _, EncodePrivateKey as _, EncodePublicKey as _,
    LineEnding,
};
use ring::digest::{Context, SHA512, digest};

use super::random;

/// Version of the signature, and the number of SHA-512.
const HEAD: [u8; 2] = [0, 4];
const ID_BYTES: usize = 16;

/// A private key.
pub struct EcKey(p256::SecretKey);

impl std::fmt::Debug for EcKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EcKey")
    }
}

/// A public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EcPublic(p256::PublicKey);

impl EcKey {
    pub(super) fn generate() -> anyhow::Result<Self> {
        // All but 1 in 2^32 random numbers are keys.
        for _ in 0..8 {
            if let Ok(key) = p256::SecretKey::from_slice(&random::<32>()?) {
                return Ok(Self(key));
            }
        }
        Err(anyhow!("the system's randomness is broken"))
    }

    /// Reads a PEM file, `PRIVATE KEY` or openssl's older `EC PRIVATE KEY`.
    ///
    /// # Errors
    /// No such key.
    pub fn parse(pem: &str) -> anyhow::Result<Self> {
        let begin = pem.find("-----BEGIN EC PRIVATE KEY").or(pem.find("-----BEGIN PRIVATE KEY"));
        let pem = begin.and_then(|at| pem.get(at..)).context("no private key in PEM")?;
        let key = if pem.starts_with("-----BEGIN EC") {
            p256::SecretKey::from_sec1_pem(pem).map_err(|e| anyhow!("no P-256 key: {e}"))?
        } else {
            p256::SecretKey::from_pkcs8_pem(pem).map_err(|e| anyhow!("no P-256 key: {e}"))?
        };
        Ok(Self(key))
    }

    pub(super) fn to_pem(&self) -> anyhow::Result<String> {
        let pem = self.0.to_pkcs8_pem(LineEnding::LF).map_err(|e| anyhow!("PEM: {e}"))?;
        Ok(pem.to_string())
    }

    /// What others check signatures with.
    #[must_use]
    pub fn public(&self) -> EcPublic {
        EcPublic(self.0.public_key())
    }

    /// The content of a signature block; `hash` is SHA-512 of the ADB block.
    ///
    /// # Errors
    /// None with a SHA-512.
    pub fn sign_adb(&self, schema: u32, hash: &[u8]) -> anyhow::Result<Vec<u8>> {
        let head = [HEAD.as_slice(), &self.public().id()].concat();
        let key = SigningKey::from(&self.0);
        let signature: Signature =
            key.sign_prehash(&signed(schema, &head, hash)).map_err(|e| anyhow!("{e}"))?;
        Ok([head.as_slice(), signature.to_der().as_bytes()].concat())
    }
}

impl EcPublic {
    /// Reads a PEM file.
    ///
    /// # Errors
    /// No such key.
    pub fn parse(pem: &str) -> anyhow::Result<Self> {
        let key = p256::PublicKey::from_public_key_pem(pem);
        Ok(Self(key.map_err(|e| anyhow!("no P-256 public key in PEM: {e}"))?))
    }

    /// The text of its file.
    ///
    /// # Errors
    /// None.
    pub fn to_pem(&self) -> anyhow::Result<String> {
        self.0.to_public_key_pem(LineEnding::LF).map_err(|e| anyhow!("PEM: {e}"))
    }

    /// The bytes by which a signature names its key.
    fn id(&self) -> [u8; ID_BYTES] {
        let hash = digest(&SHA512, self.0.to_sec1_point(false).as_bytes());
        let mut id = [0; ID_BYTES];
        id.iter_mut().zip(hash.as_ref()).for_each(|(to, from)| *to = *from);
        id
    }

    /// Checks a file's signature: its schema, its ADB block, and its signature blocks, one
    /// of which must be by this key.
    ///
    /// # Errors
    /// None is, or it is wrong.
    pub fn verify_adb(&self, schema: u32, adb: &[u8], blocks: &[Vec<u8>]) -> anyhow::Result<()> {
        let head = [HEAD.as_slice(), &self.id()].concat();
        let ours = blocks.iter().find_map(|block| block.strip_prefix(head.as_slice()));
        ensure!(!blocks.is_empty(), "not signed");
        let signature = Signature::from_der(ours.context("signed by another key")?);
        let signature = signature.map_err(|e| anyhow!("a broken signature: {e}"))?;
        let hash = signed(schema, &head, digest(&SHA512, adb).as_ref());
        let key = VerifyingKey::from(&self.0);
        key.verify_prehash(&hash, &signature).map_err(|_| anyhow!("the signature is wrong"))
    }
}

fn signed(schema: u32, head: &[u8], hash: &[u8]) -> Vec<u8> {
    let mut context = Context::new(&SHA512);
    context.update(&schema.to_le_bytes());
    context.update(head);
    context.update(hash);
    context.finish().as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> EcKey {
        EcKey(p256::SecretKey::from_slice(&[number; 32]).unwrap())
    }

    #[test]
    fn keys_are_read_as_written() {
        let again = EcKey::parse(&key(1).to_pem().unwrap()).unwrap();
        assert_eq!(again.public(), key(1).public());
        let public = EcPublic::parse(&key(1).public().to_pem().unwrap()).unwrap();
        assert_eq!(public, key(1).public());
        let old = key(1).0.to_sec1_pem(LineEnding::LF).unwrap();
        assert_eq!(EcKey::parse(&old).unwrap().public(), key(1).public());
        assert!(EcKey::parse("").is_err());
        assert!(EcKey::parse(&key(1).public().to_pem().unwrap()).is_err());
        assert_eq!(format!("{:?}", key(1)), "EcKey");
    }

    #[test]
    fn a_signature_fits_its_file_and_key_alone() {
        let hash = digest(&SHA512, b"adb");
        let block = key(1).sign_adb(7, hash.as_ref()).unwrap();
        assert_eq!(block, key(1).sign_adb(7, hash.as_ref()).unwrap());
        let public = key(1).public();
        assert!(public.verify_adb(7, b"adb", std::slice::from_ref(&block)).is_ok());
        let refused = |public: &EcPublic, schema, adb: &[u8], blocks: &[Vec<u8>]| {
            public.verify_adb(schema, adb, blocks).unwrap_err().to_string()
        };
        let blocks = [block];
        assert_eq!(refused(&public, 8, b"adb", &blocks), "the signature is wrong");
        assert_eq!(refused(&public, 7, b"ADB", &blocks), "the signature is wrong");
        assert_eq!(refused(&key(2).public(), 7, b"adb", &blocks), "signed by another key");
        assert_eq!(refused(&public, 7, b"adb", &[]), "not signed");
    }
}
