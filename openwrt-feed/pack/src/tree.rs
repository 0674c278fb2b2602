//! A package's files: a folder of the repository that mirrors the router's root, and what is
//! added to it.
//!
//! In: folders on this machine. Out: members sorted by path, with every folder above a file.
//! Git keeps no more of a mode than whether the owner may run a file, so that decides
//! between 0755 and 0644; files in `etc/config` may hold secrets and are 0600.
//!
//! Invariants: order and modes do not depend on this machine (umask, file system order);
//! what an editor left behind is passed over, as OpenWrt's build does; a link is refused,
//! there is no need for one.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, ensure};

use crate::member::{Kind, Member};
use crate::{ENTRIES_MAX, PATH_BYTES_MAX};

/// Files and folders by path.
#[derive(Clone, Debug, Default)]
pub struct Tree(BTreeMap<String, Member>);

impl Tree {
    /// Adds all of `folder` below `target` (empty: the root). A folder that is not there
    /// adds nothing.
    ///
    /// # Errors
    /// An unreadable file, a link, a path that is too long or no UTF-8.
    pub fn mirror(&mut self, folder: &Path, target: &str) -> anyhow::Result<()> {
        if !folder.exists() {
            return Ok(());
        }
        let listed = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
        for entry in listed {
            let entry = entry.with_context(|| folder.display().to_string())?;
            let path = entry.path();
            let name = entry.file_name().into_string();
            let Ok(name) = name else { anyhow::bail!("{}: no UTF-8", path.display()) };
            if name.ends_with('~') || name.starts_with(".#") {
                continue;
            }
            let inside = if target.is_empty() { name } else { format!("{target}/{name}") };
            let meta = fs::symlink_metadata(&path).with_context(|| path.display().to_string())?;
            if meta.is_dir() {
                self.mirror(&path, &inside)?;
            } else {
                ensure!(meta.is_file(), "{}: neither a file nor a folder", path.display());
                let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
                let runs = meta.permissions().mode() & 0o100 != 0;
                self.add(Member::file(&inside, usual_mode(&inside, runs), bytes))?;
            }
        }
        Ok(())
    }

    /// Adds or replaces one member, and the folders above it.
    ///
    /// # Errors
    /// A path that is no plain path from the root, or too long; too many entries.
    pub fn add(&mut self, member: Member) -> anyhow::Result<()> {
        let path = &member.path;
        ensure!(is_plain(path), "`{path}`: no plain path from the root");
        ensure!(path.len() <= PATH_BYTES_MAX, "`{path}`: longer than {PATH_BYTES_MAX} bytes");
        for (end, _) in path.match_indices('/') {
            let above = path.get(..end).unwrap_or_default();
            self.0.entry(above.to_owned()).or_insert_with(|| Member::folder(above));
        }
        self.0.insert(path.clone(), member);
        ensure!(self.0.len() <= ENTRIES_MAX, "more than {ENTRIES_MAX} files");
        Ok(())
    }

    /// Whether a file is there.
    #[must_use]
    pub fn has_file(&self, path: &str) -> bool {
        self.0.get(path).is_some_and(Member::is_leaf)
    }

    /// One member.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Member> {
        self.0.get(path)
    }

    /// All members, sorted by path: a folder comes before what is in it.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.0.values()
    }

    /// Bytes of all files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let len = |member: &Member| match &member.kind {
            Kind::File(bytes) => bytes.len() as u64,
            Kind::Folder | Kind::Link(_) => 0,
        };
        self.members().map(len).sum()
    }
}

/// The mode on the router of a file at `path`.
fn usual_mode(path: &str, runs: bool) -> u32 {
    match (path.starts_with("etc/config/"), runs) {
        (true, _) => 0o600,
        (false, true) => 0o755,
        (false, false) => 0o644,
    }
}

/// Whether a path cannot lead out of the root or mean two things.
#[must_use]
pub fn is_plain(path: &str) -> bool {
    let part_is_plain = |part: &str| !matches!(part, "" | "." | "..");
    !path.bytes().any(|b| b.is_ascii_control()) && path.split('/').all(part_is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, plain: bool) {
        assert_eq!(is_plain(path), plain, "{path:?}");
        assert_eq!(Tree::default().add(Member::file(path, 0o644, "")).is_ok(), plain);
    }

    #[test]
    fn paths_stay_inside() {
        check("etc/config/agentmon", true);
        check("etc/.hidden", true);
        check("", false);
        check("/etc/passwd", false);
        check("etc//passwd", false);
        check("etc/../passwd", false);
        check("./etc", false);
        check("etc/", false);
        check("etc/a\nb", false);
    }

    #[test]
    fn a_long_path_is_refused() {
        let path = "a".repeat(PATH_BYTES_MAX + 1);
        assert!(Tree::default().add(Member::file(&path, 0o644, "")).is_err());
    }

    #[test]
    fn a_folder_is_mirrored_with_modes() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, mode: u32| {
            let file = folder.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, path).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        };
        write("etc/config/a", 0o664);
        write("etc/init.d/a", 0o700);
        write("etc/init.d/a~", 0o700);
        write("lib/x.json", 0o600);
        let mut tree = Tree::default();
        tree.mirror(folder.path(), "").unwrap();
        tree.mirror(&folder.path().join("none"), "").unwrap();
        let seen: Vec<_> = tree.members().map(|m| (m.path.as_str(), m.mode)).collect();
        let want = [
            ("etc", 0o755),
            ("etc/config", 0o755),
            ("etc/config/a", 0o600),
            ("etc/init.d", 0o755),
            ("etc/init.d/a", 0o755),
            ("lib", 0o755),
            ("lib/x.json", 0o644),
        ];
        assert_eq!(seen, want);
    }

    #[test]
    fn a_link_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("link")).unwrap();
        let refused = Tree::default().mirror(folder.path(), "").unwrap_err();
        assert!(refused.to_string().contains("neither a file nor a folder"), "{refused}");
    }
}
