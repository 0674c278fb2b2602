//! Writes what the daemon reads on OpenWrt, and makes the folders it works in.
//!
//! In: checked [`Settings`]. Out: `router.toml` and lists in [`Where::out`], the hub's
//! identity in the state directory, folders with the right owner; and [`Placed`], which
//! tells the init script what changed. Runs as root, before the daemon; all of it on tmpfs
//! unless the settings themselves name a place on flash.
//!
//! Invariants: a file is replaced as a whole or not at all; one that says the same already
//! is not touched; a folder that belongs to somebody else, or is a link, is refused; only
//! folders named `agentmon` change owner.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use xxhash_rust::xxh3::xxh3_64;

use super::settings::{Hub, Settings};
use crate::config::Config;
use crate::join::{self, Join, TOKEN_BYTES_MAX};

/// Where generated files go on OpenWrt: `/var` is memory.
pub const OUT: &str = "/var/etc/agentmon";
/// The generated configuration, below [`Where::out`].
pub const TOML_NAME: &str = "router.toml";
/// Our own folders have this name, and the package's user.
pub const OWN: &str = "agentmon";
/// Largest file with a token or a certificate.
const SECRET_BYTES_MAX: u64 = 64 * 1024;
/// Most files of a folder that are given to its new owner.
const FILES_MAX: usize = 256;
/// Largest account database that is read.
const PASSWD_BYTES_MAX: u64 = 1024 * 1024;

/// Where to write, and for whom.
#[derive(Clone, Debug)]
pub struct Where {
    /// For generated files; [`OUT`].
    pub out: PathBuf,
    /// In place of the settings' state directory.
    pub state: Option<PathBuf>,
    /// Whom the daemon's folders shall belong to; else to who runs this.
    pub owner: Option<Owner>,
    /// The number of the package's own user: its folders may be there from an earlier start.
    pub trusted: Option<u32>,
}

/// A user of the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The generated configuration.
    pub toml: PathBuf,
    /// Whether a running daemon has something to read again.
    pub changed: bool,
    /// Changes when the daemon must be started again, because it cannot take it over.
    pub restart_key: u64,
    /// Folders the daemon reads besides those it writes.
    pub reads: Vec<PathBuf>,
    /// Folders the daemon writes.
    pub writes: Vec<PathBuf>,
}

/// Looks a user up.
///
/// # Errors
/// When there is none of that name.
pub fn owner(name: &str, passwd: &Path) -> anyhow::Result<Owner> {
    let text = read_bounded(passwd, PASSWD_BYTES_MAX)?;
    let text = String::from_utf8_lossy(&text);
    let fields = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let found = fields.into_iter().find_map(|f| match f.as_slice() {
        [user, _, uid, gid, ..] if *user == name => {
            Some(Owner { uid: uid.parse().ok()?, gid: gid.parse().ok()? })
        }
        _ => None,
    });
    found.with_context(|| format!("{}: no user `{name}`", passwd.display()))
}

/// The configuration with everything filled in that depends on where things are.
#[must_use]
pub fn config(settings: &Settings, at: &Where) -> Config {
    let mut config = settings.config.clone();
    if let Some(state) = &at.state {
        config.state_dir.clone_from(state);
    }
    for list in &settings.service.inline {
        if let Some(entry) = config.tier0.blocklist.lists.get_mut(list.index) {
            entry.path = lists_dir(at).join(format!("{}.txt", list.name));
        }
    }
    if settings.service.hub.says_something() {
        config.forward.identity = config.state_dir.join("identity.json");
    }
    config.resolved()
}

fn lists_dir(at: &Where) -> PathBuf {
    at.out.join("lists")
}

/// Writes everything.
///
/// # Errors
/// What is missing, or cannot be written; the files of before are still whole.
pub fn place(settings: &Settings, at: &Where) -> anyhow::Result<Placed> {
    let join = settings.service.hub.identity()?;
    let config = config(settings, at);
    let text = format!(
        "# Made from /etc/config/agentmon at every start and reload: change that instead.\n{}",
        config.to_toml().context("writing the configuration down")?
    );
    // Root takes back what an earlier start gave away.
    let root = Owner { uid: 0, gid: 0 };
    let own = at.owner.or((me() == 0).then_some(root));
    folder(&at.out, 0o755, None, None)?;
    let mut writes = vec![config.state_dir.clone()];
    writes.extend(config.ring.path.parent().map(Path::to_owned));
    writes.extend(config.devices.known_path.parent().map(Path::to_owned));
    let ssh = &config.collect.pihole_ssh;
    if ssh.enabled && !ssh.database.is_empty() {
        writes.push(ssh.copy_folder.clone());
    }
    if config.ring.snapshot_seconds > 0 {
        writes.extend(config.ring.snapshot_path.parent().map(Path::to_owned));
    }
    writes.sort();
    writes.dedup();
    for dir in &writes {
        folder(dir, 0o750, own, at.trusted)?;
    }
    let mut changed = inline_lists(settings, at)?;
    if let Some(join) = &join {
        // The forwarder looks for itself whether it changed.
        identity(&config.forward.identity, join, own)?;
    } else if let (Some(own), true) = (at.owner, config.forward.identity.exists()) {
        // Written by root (`agentmon-router join`), read by the service.
        give(&config.forward.identity, Some(own))?;
    }
    let toml = at.out.join(TOML_NAME);
    changed |= replace(&toml, text.as_bytes(), 0o644)?;
    let reads = reads(&config, at, &writes);
    let fixed = format!(
        "{:?}{:?}{:?}{reads:?}{writes:?}",
        config.state_dir, config.ring.path, config.status
    );
    Ok(Placed { toml, changed, restart_key: xxh3_64(fixed.as_bytes()), reads, writes })
}

/// The folders of all files that the daemon only reads.
fn reads(config: &Config, at: &Where, writes: &[PathBuf]) -> Vec<PathBuf> {
    let lists = config.tier0.blocklist.lists.iter().map(|list| &list.path);
    let identity = std::iter::once(&config.forward.identity);
    let files = collected(config).into_iter().chain(lists).chain(identity);
    let files = files.filter(|path| !path.as_os_str().is_empty());
    let mut folders: Vec<PathBuf> =
        files.filter_map(|file| file.parent()).map(Path::to_owned).collect();
    folders.push(at.out.clone());
    folders.sort();
    folders.dedup();
    // What lies below another one comes with it.
    let all = folders.clone();
    folders.retain(|dir| {
        !writes.contains(dir) && !all.iter().any(|other| other != dir && dir.starts_with(other))
    });
    folders
}

/// What the collectors that are on read, their secrets included.
fn collected(config: &Config) -> Vec<&PathBuf> {
    let c = &config.collect;
    let others = c.pihole.others.iter().flat_map(|one| [&one.password_file, &one.certificate]);
    let piholes = [&c.pihole.password_file, &c.pihole.certificate].into_iter().chain(others);
    let all: [(bool, Vec<&PathBuf>); 7] = [
        (c.dnsmasq_log.enabled, c.dnsmasq_log.paths.iter().collect()),
        (c.leases.enabled, c.leases.paths.iter().collect()),
        (c.adguard.enabled, vec![&c.adguard.path]),
        (c.pihole.enabled, piholes.collect()),
        (c.pihole_ftl.enabled, vec![&c.pihole_ftl.path]),
        (c.pihole_ssh.enabled, vec![&c.pihole_ssh.key, &c.pihole_ssh.known_hosts]),
        (c.syslog.enabled, vec![&c.syslog.tls_cert, &c.syslog.tls_key, &c.syslog.tls_client_ca]),
    ];
    all.into_iter().filter(|(enabled, _)| *enabled).flat_map(|(_, files)| files).collect()
}

impl Hub {
    /// Whether any of it is set.
    #[must_use]
    pub const fn says_something(&self) -> bool {
        self.join.is_some() || self.url.is_some() || self.ca.is_some() || self.token_file.is_some()
    }

    /// The hub to trust, from the join line and what overrides parts of it. `None`: not
    /// said here.
    ///
    /// # Errors
    /// The option that is missing, or the file that is no such thing, in UCI's terms.
    pub fn identity(&self) -> anyhow::Result<Option<Join>> {
        if !self.says_something() {
            return Ok(None);
        }
        let known = self.join.clone();
        let mut join = known.unwrap_or_else(|| {
            Join::new(String::new(), String::new(), String::new(), String::new())
        });
        let given = |value: &mut String, new: &Option<String>| {
            if let Some(new) = new {
                value.clone_from(new);
            }
        };
        given(&mut join.url, &self.url);
        given(&mut join.name, &self.name);
        given(&mut join.token, &secret("token_file", self.token_file.as_deref())?);
        given(&mut join.ca_pem, &secret("ca", self.ca.as_deref())?);
        for (option, value) in [
            ("url", &join.url),
            ("name", &join.name),
            ("token_file", &join.token),
            ("ca", &join.ca_pem),
        ] {
            ensure!(
                !value.is_empty(),
                "agentmon.hub.{option}: is wanted too where `join` is not set"
            );
        }
        ensure!(join.token.len() <= TOKEN_BYTES_MAX, "agentmon.hub.token_file: holds no token");
        // What stands in a join line passes the same check.
        let checked =
            Join::decode(&join.encode()).map_err(|e| anyhow::anyhow!("agentmon.hub: {e}"));
        checked.map(Some)
    }
}

fn secret(option: &str, path: Option<&Path>) -> anyhow::Result<Option<String>> {
    let Some(path) = path else { return Ok(None) };
    let bytes =
        read_bounded(path, SECRET_BYTES_MAX).with_context(|| format!("agentmon.hub.{option}"))?;
    let text = String::from_utf8(bytes)
        .ok()
        .with_context(|| format!("agentmon.hub.{option}: {} is no text", path.display()))?;
    Ok(Some(if option == "ca" { text } else { text.trim().to_owned() }))
}

/// Writes the lists whose names stand in the settings, removes others; whether any changed.
fn inline_lists(settings: &Settings, at: &Where) -> anyhow::Result<bool> {
    let dir = lists_dir(at);
    let mut changed = false;
    let mut wanted = Vec::new();
    for list in &settings.service.inline {
        folder(&dir, 0o755, None, None)?;
        let path = dir.join(format!("{}.txt", list.name));
        changed |= replace(&path, (list.domains.join("\n") + "\n").as_bytes(), 0o644)?;
        wanted.push(path);
    }
    for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
        if !wanted.contains(&entry.path()) {
            // One that stays does no harm: no configuration names it.
            drop(fs::remove_file(entry.path()));
        }
    }
    Ok(changed)
}

/// The hub's identity, unless it is there already.
fn identity(path: &Path, join: &Join, own: Option<Owner>) -> anyhow::Result<()> {
    let known = join::load(path).ok().flatten();
    if known.as_ref() != Some(join) {
        join::save(path, join)?;
    }
    give(path, own)
}

/// Lets the service read what root has just written: `agentmon-router join` on OpenWrt.
/// Without the package's user the service runs as root.
///
/// # Errors
/// When the file cannot be given away.
pub fn for_service(path: &Path) -> anyhow::Result<()> {
    let user = owner(OWN, Path::new("/etc/passwd")).ok();
    give(path, user.filter(|_| me() == 0 && Path::new(OUT).is_dir()))
}

/// Makes a folder, or sees to it that the one there is fit for us.
fn folder(path: &Path, mode: u32, own: Option<Owner>, trusted: Option<u32>) -> anyhow::Result<()> {
    let problem = || format!("the folder {}", path.display());
    if !path.exists() {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(problem)?;
        }
        match fs::DirBuilder::new().mode(mode).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error).with_context(problem);
            }
            _ => {}
        }
    }
    if path.file_name().is_none_or(|name| name != OWN) {
        // Somebody else's, such as a disk's: taken as it is.
        return Ok(());
    }
    let found = fs::symlink_metadata(path).with_context(problem)?;
    ensure!(found.is_dir(), "{}: is no folder (a link?); remove it", path.display());
    // In /tmp anybody could have made it before us, with links in it.
    let ours = [Some(me()), Some(0), own.map(|o| o.uid), trusted];
    ensure!(
        ours.contains(&Some(found.uid())),
        "{}: belongs to user {}, not to agentmon; remove it",
        path.display(),
        found.uid()
    );
    if found.permissions().mode() & 0o7777 != mode {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).with_context(problem)?;
    }
    give(path, own)?;
    for entry in fs::read_dir(path).with_context(problem)?.flatten().take(FILES_MAX) {
        if entry.file_type().is_ok_and(|kind| kind.is_file()) {
            give(&entry.path(), own)?;
        }
    }
    Ok(())
}

/// Who runs this.
fn me() -> u32 {
    fs::metadata("/proc/self").map_or(0, |process| process.uid())
}

/// Changes the owner, where it is another.
fn give(path: &Path, own: Option<Owner>) -> anyhow::Result<()> {
    let Some(own) = own else { return Ok(()) };
    let found = fs::symlink_metadata(path)?;
    if (found.uid(), found.gid()) == (own.uid, own.gid) {
        return Ok(());
    }
    lchown(path, Some(own.uid), Some(own.gid))
        .with_context(|| format!("giving {} to user {}", path.display(), own.uid))
}

/// Replaces a file as a whole; false when it says the same already.
pub(super) fn replace(path: &Path, bytes: &[u8], mode: u32) -> anyhow::Result<bool> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(false);
    }
    let new = path.with_extension("new");
    let written = write_new(&new, bytes, mode).and_then(|()| fs::rename(&new, path));
    if let Err(error) = written {
        drop(fs::remove_file(&new));
        return Err(error).with_context(|| format!("writing {}", path.display()));
    }
    Ok(true)
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    // The process's umask must not decide who can read it.
    file.set_permissions(fs::Permissions::from_mode(mode))
}

fn read_bounded(path: &Path, limit: u64) -> anyhow::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let read = fs::File::open(path).and_then(|f| f.take(limit + 1).read_to_end(&mut bytes));
    read.with_context(|| path.display().to_string())?;
    ensure!(bytes.len() as u64 <= limit, "{}: longer than {limit} bytes", path.display());
    Ok(bytes)
}

#[cfg(test)]
#[path = "place_tests.rs"]
mod tests;
