//! Keys that sign a feed's indexes: ed25519 for `Packages` (usign), EC P-256 for
//! `packages.adb` (apk).
//!
//! Invariants: keys come from files named on the command line and are never printed; a
//! private key's file is readable by its owner alone and is never overwritten; signatures
//! are deterministic.

mod ec;
mod usign;

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, anyhow};
use ring::rand::{SecureRandom as _, SystemRandom};

pub use ec::{EcKey, EcPublic};
pub use usign::{UsignKey, UsignPublic};

/// Names of the four files of a feed's keys.
pub const FILES: [&str; 4] = ["feed.sec", "feed.pub", "feed-private.pem", "feed-public.pem"];

/// The keys of a feed.
#[derive(Debug)]
pub struct FeedKeys {
    /// Signs `Packages`.
    pub usign: UsignKey,
    /// Signs `packages.adb` and the `.apk` packages.
    pub ec: EcKey,
}

impl FeedKeys {
    /// New keys, written to `folder`, which is made if need be.
    ///
    /// # Errors
    /// One of the files is there already, or cannot be written.
    pub fn generate(folder: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let keys = Self { usign: UsignKey::generate()?, ec: EcKey::generate()? };
        let [usign, usign_public, ec, ec_public] = FILES;
        put(&folder.join(usign), &keys.usign.to_text(), 0o600)?;
        put(&folder.join(usign_public), &keys.usign.public().to_text(), 0o644)?;
        put(&folder.join(ec), &keys.ec.to_pem()?, 0o600)?;
        put(&folder.join(ec_public), &keys.ec.public().to_pem()?, 0o644)?;
        Ok(keys)
    }

    /// Reads the keys that [`Self::generate`] wrote.
    ///
    /// # Errors
    /// A file that is not there or no key.
    pub fn load(folder: &Path) -> anyhow::Result<Self> {
        let [usign, _, ec, _] = FILES;
        let text = |name: &str| {
            let file = folder.join(name);
            std::fs::read_to_string(&file).with_context(|| file.display().to_string())
        };
        Ok(Self {
            usign: UsignKey::parse(&text(usign)?).context(usign)?,
            ec: EcKey::parse(&text(ec)?).context(ec)?,
        })
    }
}

fn put(file: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let mut options = OpenOptions::new();
    let open = options.write(true).create_new(true).mode(mode).open(file);
    let context = || format!("{} (keys are never overwritten)", file.display());
    open.and_then(|mut file| file.write_all(text.as_bytes())).with_context(context)
}

fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| anyhow!("the system gives no randomness"))?;
    Ok(bytes)
}
