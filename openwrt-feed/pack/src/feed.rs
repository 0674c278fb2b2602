//! A whole feed: packages of both formats for each architecture, their indexes, and the
//! public keys that check them.
//!
//! Out, below the output folder: `ARCH/` with `*.ipk`, `*.apk`, `Packages`, `Packages.gz`,
//! `Packages.sig` (opkg) and `packages.adb` (apk), and `keys/` with the public keys. Put on
//! any web server, the folder is a feed.
//!
//! Invariants: built anew from nothing: what an earlier run left in `ARCH/` is removed; the
//! same input gives the same bytes.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, ensure};
use ring::digest::{SHA256, digest};

use crate::adb::{Block, Value, schema, write};
use crate::apk::{self, hex};
use crate::ipk;
use crate::key::{EcKey, FeedKeys, UsignKey};
use crate::recipe::{self, Recipe};
use crate::tarball::{gunzip, gzip, untar};

/// What goes in.
#[derive(Debug)]
pub struct Input<'a> {
    /// The folder `openwrt-feed` of the repository.
    pub feed: &'a Path,
    /// Package architecture and static binary, such as `aarch64_cortex-a72`.
    pub binaries: &'a [(String, Vec<u8>)],
    /// Seconds since 1970: the time of every file.
    pub epoch: u64,
    /// Keys; without them nothing is signed.
    pub keys: Option<&'a FeedKeys>,
}

/// Writes a feed below `out`; returns the files' paths and sizes, sorted.
///
/// # Errors
/// What cannot be read, packed or written.
pub fn build(input: &Input<'_>, out: &Path) -> anyhow::Result<Vec<(String, u64)>> {
    ensure!(!input.binaries.is_empty(), "no binary to pack");
    let mut written = Vec::new();
    let mut put = |path: String, bytes: &[u8]| -> anyhow::Result<()> {
        let file = out.join(&path);
        let folder = file.parent().context("a folder")?;
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        fs::write(&file, bytes).with_context(|| file.display().to_string())?;
        written.push((path, bytes.len() as u64));
        Ok(())
    };
    for (arch, binary) in input.binaries {
        let folder = out.join(arch);
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
        }
        let recipes = recipes(input, arch, binary)?;
        for (name, bytes) in files(&recipes, input.keys)? {
            put(format!("{arch}/{name}"), &bytes)?;
        }
    }
    if let Some(keys) = input.keys {
        let public = keys.usign.public();
        put(format!("keys/{}", public.file_name()), public.to_text().as_bytes())?;
        put("keys/agentmon.pem".to_owned(), keys.ec.public().to_pem()?.as_bytes())?;
    }
    written.sort();
    Ok(written)
}

fn recipes(input: &Input<'_>, arch: &str, binary: &[u8]) -> anyhow::Result<Vec<Recipe>> {
    let daemon =
        recipe::agentmon(&input.feed.join("agentmon"), binary.to_vec(), arch, input.epoch)?;
    let folder = input.feed.join("luci-app-agentmon");
    let app = recipe::luci_app(&folder, input.epoch)?;
    let mut recipes = recipe::translations(&app, &folder)?;
    recipes.extend([daemon, app]);
    recipes.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(recipes)
}

/// Packages and indexes of one architecture: name and bytes.
fn files(recipes: &[Recipe], keys: Option<&FeedKeys>) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let (mut ipks, mut apks) = (Vec::new(), Vec::new());
    for recipe in recipes {
        ipks.push((ipk::file_name(recipe), ipk::write(recipe)?));
        apks.push((apk::file_name(recipe), apk::write(recipe, keys.map(|k| &k.ec))?));
    }
    let mut files = opkg_index(&ipks, keys.map(|k| &k.usign))?;
    files.push(("packages.adb".to_owned(), apk_index(&apks, keys.map(|k| &k.ec))?));
    files.extend(ipks);
    files.extend(apks);
    Ok(files)
}

/// `Packages`, the same compressed, and its signature.
///
/// # Errors
/// Something that is no package.
pub fn opkg_index(
    packages: &[(String, Vec<u8>)],
    key: Option<&UsignKey>,
) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let mut text = String::new();
    for (name, bytes) in packages {
        let outer = untar(&gunzip(bytes)?)?;
        let control = outer.iter().find(|member| member.path == "control.tar.gz");
        let control = untar(&gunzip(control.context("no control.tar.gz")?.bytes())?)?;
        let control = control.iter().find(|member| member.path == "control");
        let control = str::from_utf8(control.context("no control file")?.bytes())?;
        let found = format!(
            "Filename: {name}\nSize: {}\nSHA256sum: {}\n",
            bytes.len(),
            hex(digest(&SHA256, bytes).as_ref())
        );
        let (head, description) =
            control.split_once("Description:").context("no description in a control file")?;
        text.push_str(&format!("{head}{found}Description:{description}\n"));
    }
    let mut files = vec![("Packages.gz".to_owned(), gzip(text.as_bytes())?)];
    files
        .extend(key.map(|key| ("Packages.sig".to_owned(), key.sign(text.as_bytes()).into_bytes())));
    files.push(("Packages".to_owned(), text.into_bytes()));
    Ok(files)
}

/// `packages.adb`.
///
/// # Errors
/// Something that is no package.
pub fn apk_index(packages: &[(String, Vec<u8>)], key: Option<&EcKey>) -> anyhow::Result<Vec<u8>> {
    let mut entries = Vec::new();
    for (_, bytes) in packages {
        entries.push((apk::read(bytes)?.field("name").unwrap_or_default().to_owned(), bytes));
    }
    // By name, as apk looks packages up.
    entries.sort();
    let entries: Result<Vec<_>, _> =
        entries.iter().map(|(_, bytes)| apk::index_entry(bytes)).collect();
    let root = Value::Object(vec![Value::Null, Value::Array(entries?)]);
    let mut blocks = vec![(Block::Adb, write::adb(&root)?)];
    apk::sign(schema::INDEX, &mut blocks, key)?;
    write::compressed(&write::file(schema::INDEX, &blocks)?)
}
