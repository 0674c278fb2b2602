//! `.apk` packages (version 3) for OpenWrt 25.12 and newer.
//!
//! What OpenWrt's build adds to a package's own files, and what its `/lib/functions.sh`
//! expects to find: `/lib/apk/packages/NAME.list` (every file), `NAME.conffiles`,
//! `NAME.conffiles_static` (path and SHA-256), `NAME.rusers` (the account to make), and
//! scripts that call its `default_postinst` and `default_prerm`.
//!
//! Invariants: a package read back has the bytes whose SHA-256 stands in its tree; the same
//! recipe gives the same bytes.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context as _, bail, ensure};
use ring::digest::{SHA256, SHA512, digest};

use crate::adb::read::{Adb, File, Row};
use crate::adb::schema::{self, acl, dependency, file, folder, info, package};
use crate::adb::{Block, Value, write};
use crate::key::EcKey;
use crate::member::{Kind, Member, Package};
use crate::recipe::Recipe;
use crate::tree::{Tree, is_plain};

/// Bytes of a package's own identity: SHA-256 cut to the length of SHA-1.
const IDENTITY_BYTES: usize = 20;
/// Type of a symbolic link, as `stat` has it.
const LINK_MODE: u16 = 0o120_000;
/// Where OpenWrt keeps what apk itself does not know.
const REGISTRY: &str = "lib/apk/packages";

/// The file's name.
#[must_use]
pub fn file_name(recipe: &Recipe) -> String {
    format!("{}-{}.apk", recipe.name, recipe.version)
}

/// The package as bytes, signed where there is a key.
///
/// # Errors
/// A file too many or too large.
pub fn write(recipe: &Recipe, key: Option<&EcKey>) -> anyhow::Result<Vec<u8>> {
    let tree = with_registry(recipe)?;
    let folders = by_folder(&tree);
    let body = |identity: [u8; IDENTITY_BYTES]| {
        write::adb(&Value::Object(vec![
            description(recipe, &tree, identity),
            Value::Array(folders.iter().map(|(path, f)| paths(path, f, recipe.epoch)).collect()),
            scripts(recipe),
        ]))
    };
    // The identity is the hash of the tree with zeros in its own place. Its bytes never share
    // a place, so both trees are laid out alike.
    let blank = body([0; IDENTITY_BYTES])?;
    let hash = digest(&SHA256, &blank);
    let identity = hash.as_ref().get(..IDENTITY_BYTES).context("SHA-256 is longer")?;
    let adb = body(identity.try_into()?)?;
    let mut blocks = vec![(Block::Adb, adb)];
    sign(schema::PACKAGE, &mut blocks, key)?;
    for (path, (_, files)) in folders.values().enumerate() {
        for (number, member) in files.iter().enumerate() {
            if !member.bytes().is_empty() {
                let mut data = u32::try_from(path + 1)?.to_le_bytes().to_vec();
                data.extend(u32::try_from(number + 1)?.to_le_bytes());
                data.extend_from_slice(member.bytes());
                blocks.push((Block::Data, data));
            }
        }
    }
    write::compressed(&write::file(schema::PACKAGE, &blocks)?)
}

/// Adds a signature of the first block.
pub(crate) fn sign(
    schema: u32,
    blocks: &mut Vec<(Block, Vec<u8>)>,
    key: Option<&EcKey>,
) -> anyhow::Result<()> {
    if let (Some(key), Some((_, adb))) = (key, blocks.first()) {
        let signature = key.sign_adb(schema, digest(&SHA512, adb).as_ref())?;
        blocks.push((Block::Signature, signature));
    }
    Ok(())
}

fn with_registry(recipe: &Recipe) -> anyhow::Result<Tree> {
    let mut tree = recipe.tree.clone();
    let name = &recipe.name;
    let mut add = |suffix: &str, text: String| {
        tree.add(Member::file(&format!("{REGISTRY}/{name}.{suffix}"), 0o644, text))
    };
    if !recipe.user.is_empty() {
        add("rusers", format!("{}\n", recipe.user))?;
    }
    if !recipe.conffiles.is_empty() {
        let mut fixed = String::new();
        for path in &recipe.conffiles {
            if let Some(member) = recipe.tree.get(path.trim_start_matches('/'))
                && member.is_leaf()
            {
                writeln!(fixed, "{path} {}", hex(digest(&SHA256, member.bytes()).as_ref()))?;
            }
        }
        add("conffiles", recipe.conffiles.join("\n") + "\n")?;
        if !fixed.is_empty() {
            add("conffiles_static", fixed)?;
        }
    }
    let mut list: Vec<_> =
        recipe.tree.members().filter(|m| m.is_leaf()).map(|m| format!("/{}", m.path)).collect();
    if !recipe.user.is_empty() {
        list.push(format!("/{REGISTRY}/{name}.rusers"));
    }
    list.sort();
    add("list", list.join("\n") + "\n")?;
    Ok(tree)
}

/// Folders by path, the root (empty) first, each with itself and the files in it.
fn by_folder(tree: &Tree) -> BTreeMap<&str, (u32, Vec<&Member>)> {
    let mut folders = BTreeMap::from([("", (0o755, Vec::new()))]);
    for member in tree.members() {
        if member.is_leaf() {
            let above = member.path.rsplit_once('/').map_or("", |(above, _)| above);
            folders.entry(above).or_insert((0o755, Vec::new())).1.push(member);
        } else {
            folders.insert(&member.path, (member.mode, Vec::new()));
        }
    }
    folders
}

fn description(recipe: &Recipe, tree: &Tree, identity: [u8; IDENTITY_BYTES]) -> Value {
    let mut slots = vec![Value::Null; info::DEPENDS];
    let mut set = |slot: usize, value: Value| {
        if let Some(place) = slots.get_mut(slot - 1) {
            *place = value;
        }
    };
    set(info::NAME, Value::text(&recipe.name));
    set(info::VERSION, Value::text(&recipe.version));
    set(info::HASHES, Value::Own(identity.to_vec()));
    set(info::DESCRIPTION, Value::text(&recipe.description.join(" ")));
    set(info::ARCH, Value::text(if recipe.arch == "all" { "noarch" } else { &recipe.arch }));
    set(info::LICENSE, Value::text(&recipe.license));
    set(info::ORIGIN, Value::text(&format!("feeds/agentmon/{}", recipe.name)));
    set(info::MAINTAINER, Value::text(&recipe.maintainer));
    set(info::URL, Value::text(&recipe.url));
    set(info::INSTALLED_SIZE, Value::Int(tree.bytes().max(1)));
    let depends = recipe.depends.iter().map(|name| Value::Object(vec![Value::text(name)]));
    set(info::DEPENDS, Value::Array(depends.collect()));
    Value::Object(slots)
}

fn owned_by_root(mode: u32) -> Value {
    Value::Object(vec![Value::Int(u64::from(mode)), Value::text("root"), Value::text("root")])
}

fn paths(path: &str, (mode, files): &(u32, Vec<&Member>), epoch: u64) -> Value {
    let files = files.iter().map(|member| {
        let name = member.path.rsplit_once('/').map_or(member.path.as_str(), |(_, name)| name);
        let (size, hash, target) = match &member.kind {
            Kind::Link(to) => {
                let target = [LINK_MODE.to_le_bytes().as_slice(), to.as_bytes()].concat();
                (0, Value::Null, Value::Blob(target))
            }
            Kind::File(_) | Kind::Folder => {
                let bytes = member.bytes();
                let hash = digest(&SHA256, bytes).as_ref().to_vec();
                (bytes.len() as u64, Value::Blob(hash), Value::Null)
            }
        };
        Value::Object(vec![
            Value::text(name),
            owned_by_root(member.mode),
            Value::Int(size),
            Value::Int(epoch),
            hash,
            target,
        ])
    });
    Value::Object(vec![Value::text(path), owned_by_root(*mode), Value::Array(files.collect())])
}

/// The standard steps of OpenWrt, with the package's own after (or before) them.
fn scripts(recipe: &Recipe) -> Value {
    let own = |script: &Option<String>| {
        let text = script.as_deref().unwrap_or_default();
        text.lines()
            .filter(|line| !line.starts_with("#!"))
            .fold(String::new(), |s, line| s + line + "\n")
    };
    let name = &recipe.name;
    let standard = format!(
        "[ -s ${{IPKG_INSTROOT}}/lib/functions.sh ] || exit 0\n\
         . ${{IPKG_INSTROOT}}/lib/functions.sh\n\
         export root=\"${{IPKG_INSTROOT}}\"\n\
         export pkgname=\"{name}\"\n"
    );
    let install = format!(
        "[ \"${{IPKG_NO_SCRIPT}}\" = \"1\" ] && exit 0\n{standard}add_group_and_user\n\
         default_postinst\n{}",
        own(&recipe.scripts.postinst)
    );
    let texts = [
        String::new(),
        String::new(),
        format!("#!/bin/sh\n{install}"),
        format!("#!/bin/sh\n{standard}default_prerm\n{}", own(&recipe.scripts.prerm)),
        recipe
            .scripts
            .postrm
            .as_ref()
            .map_or(String::new(), |_| format!("#!/bin/sh\n{}", own(&recipe.scripts.postrm))),
        String::new(),
        format!("#!/bin/sh\nexport PKG_UPGRADE=1\n{install}"),
    ];
    Value::Object(texts.iter().map(|text| Value::text(text)).collect())
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads a package back; every file's bytes are compared with the hash in the tree.
///
/// # Errors
/// No package, or a broken one.
pub fn read(bytes: &[u8]) -> anyhow::Result<Package> {
    let file = File::parse(bytes)?;
    ensure!(file.schema == schema::PACKAGE, "an ADB file, but no package");
    let adb = file.adb()?;
    let root = adb.root()?;
    let mut package = described(root.row(package::INFO)?)?;
    let scripts = root.row(package::SCRIPTS)?;
    for (slot, name) in schema::SCRIPTS {
        let text = scripts.text(slot)?;
        if !text.is_empty() {
            package.scripts.push((name.to_owned(), text.to_owned()));
        }
    }
    package.members = members(root.row(package::PATHS)?, file.blocks(Block::Data))?;
    let name = package.field("name").unwrap_or_default();
    let list = package.member(&format!("{REGISTRY}/{name}.conffiles"));
    let list = list.map_or(String::new(), |m| String::from_utf8_lossy(m.bytes()).into_owned());
    package.conffiles = list.lines().map(str::to_owned).collect();
    package.checked = true;
    Ok(package)
}

/// The packages an index tells of.
///
/// # Errors
/// No index, or a broken one.
pub fn read_index(bytes: &[u8]) -> anyhow::Result<Vec<Package>> {
    let file = File::parse(bytes)?;
    ensure!(file.schema == schema::INDEX, "an ADB file, but no index");
    let packages = file.adb()?.root()?.row(schema::index::PACKAGES)?;
    (1..=packages.len()).map(|slot| described(packages.row(slot)?)).collect()
}

/// What an index says of a package: its own description, with the file's size, and the hash
/// of its tree in place of its identity.
///
/// # Errors
/// No package, or a broken one.
pub fn index_entry(bytes: &[u8]) -> anyhow::Result<Value> {
    let file = File::parse(bytes)?;
    ensure!(file.schema == schema::PACKAGE, "an ADB file, but no package");
    let adb = file.adb()?;
    let row = adb.root()?.row(package::INFO)?;
    let mut slots = vec![Value::Null; info::DEPENDS];
    let mut set = |slot: usize, value: Value| {
        if let Some(place) = slots.get_mut(slot - 1) {
            *place = value;
        }
    };
    for (slot, _) in info::TEXTS {
        set(slot, Value::text(row.text(slot)?));
    }
    set(info::HASHES, Value::Blob(digest(&SHA256, adb.bytes()).as_ref().to_vec()));
    set(info::INSTALLED_SIZE, Value::Int(row.int(info::INSTALLED_SIZE)?));
    set(info::FILE_SIZE, Value::Int(bytes.len() as u64));
    let depends = row.row(info::DEPENDS)?;
    let depends: anyhow::Result<Vec<_>> = (1..=depends.len())
        .map(|n| Ok(Value::Object(vec![Value::text(depends.row(n)?.text(dependency::NAME)?)])))
        .collect();
    set(info::DEPENDS, Value::Array(depends?));
    Ok(Value::Object(slots))
}

/// The blocks of a file that matter for its signature: schema, ADB, signatures.
///
/// # Errors
/// No such file.
pub fn signed_parts(bytes: &[u8]) -> anyhow::Result<(u32, Vec<u8>, Vec<Vec<u8>>)> {
    let file = File::parse(bytes)?;
    let adb: Adb<'_> = file.adb()?;
    let signatures = file.blocks(Block::Signature).map(<[u8]>::to_vec).collect();
    Ok((file.schema, adb.bytes().to_vec(), signatures))
}

fn described(row: Row<'_>) -> anyhow::Result<Package> {
    let mut package = Package::default();
    for (slot, name) in info::TEXTS {
        let text = row.text(slot)?;
        if !text.is_empty() {
            package.fields.push((name.to_owned(), text.to_owned()));
        }
    }
    for (slot, name) in info::NUMBERS {
        let number = row.int(slot)?;
        if number > 0 {
            package.fields.push((name.to_owned(), number.to_string()));
        }
    }
    package.fields.push(("hash".to_owned(), hex(row.blob(info::HASHES)?)));
    let depends = row.row(info::DEPENDS)?;
    for slot in 1..=depends.len() {
        package.depends.push(depends.row(slot)?.text(dependency::NAME)?.to_owned());
    }
    Ok(package)
}

fn members<'a>(
    paths: Row<'_>,
    mut data: impl Iterator<Item = &'a [u8]>,
) -> anyhow::Result<Vec<Member>> {
    let mut members = Vec::new();
    for path_number in 1..=paths.len() {
        let entry = paths.row(path_number)?;
        let above = entry.text(folder::NAME)?;
        if !above.is_empty() {
            ensure!(is_plain(above), "`{}`: leads out", above.escape_debug());
            let mode = mode(entry.row(folder::ACL)?)?;
            members.push(Member { path: above.to_owned(), mode, kind: Kind::Folder });
        }
        let files = entry.row(folder::FILES)?;
        for number in 1..=files.len() {
            let member = member(above, files.row(number)?, &mut || {
                let block = data.next().context("a file without its data")?;
                let (head, bytes) = block.split_at_checked(8).context("a short data block")?;
                let expected = [path_number, number].map(|n| n as u32).map(u32::to_le_bytes);
                ensure!(head == expected.concat(), "data of another file");
                Ok(bytes)
            })?;
            members.push(member);
            ensure!(members.len() <= crate::ENTRIES_MAX, "more than {} files", crate::ENTRIES_MAX);
        }
    }
    ensure!(data.next().is_none(), "data of no file");
    Ok(members)
}

fn mode(row: Row<'_>) -> anyhow::Result<u32> {
    Ok(u32::try_from(row.int(acl::MODE)? & 0o7777)?)
}

fn member<'a>(
    above: &str,
    row: Row<'_>,
    next_data: &mut dyn FnMut() -> anyhow::Result<&'a [u8]>,
) -> anyhow::Result<Member> {
    let name = row.text(file::NAME)?;
    ensure!(is_plain(name) && !name.contains('/'), "`{}`: no name", name.escape_debug());
    let path = if above.is_empty() { name.to_owned() } else { format!("{above}/{name}") };
    let target = row.blob(file::TARGET)?;
    let size = row.int(file::SIZE)?;
    let kind = if let Some((kind, to)) = target.split_at_checked(2) {
        if kind != LINK_MODE.to_le_bytes() {
            bail!("`{path}`: neither a file nor a symbolic link");
        }
        Kind::Link(str::from_utf8(to).context("a link's target")?.to_owned())
    } else {
        let bytes = if size > 0 { next_data()? } else { &[] };
        ensure!(bytes.len() as u64 == size, "`{path}`: {} bytes, not {size}", bytes.len());
        let hash = digest(&SHA256, bytes);
        ensure!(hash.as_ref() == row.blob(file::HASHES)?, "`{path}`: another checksum");
        Kind::File(bytes.to_vec())
    };
    Ok(Member { path, mode: mode(row.row(file::ACL)?)?, kind })
}
