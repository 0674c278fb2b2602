//! Which installed package a file belongs to: where nothing is signed, the next best.
//!
//! In: dpkg's lists (`/var/lib/dpkg/info/PACKAGE[:ARCH].list`, a path a line). Out: `deb:NAME`
//! for a path. Read once, in the background; 12 bytes per file of the system (3 MB for
//! 250,000). It says that a package put a file of that name there, not that the file is still
//! the package's own: that is the hash's to say.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use xxhash_rust::xxh3::xxh3_64;

/// dpkg's lists.
pub const DPKG: &str = "/var/lib/dpkg/info";
/// Files remembered.
const FILES_MAX: usize = 2_000_000;

/// Owners of files.
#[derive(Clone, Debug, Default)]
pub struct Packages(Arc<OnceLock<Table>>);

#[derive(Debug, Default)]
struct Table {
    names: Vec<String>,
    by_path: HashMap<u64, u32>,
}

impl Packages {
    /// Reads in the background; until then nobody owns anything.
    #[must_use]
    pub fn start(folder: &Path) -> Self {
        let packages = Self::default();
        let (table, folder) = (Arc::clone(&packages.0), folder.to_owned());
        // Without it there are no owners, which is what one that fails to start means too.
        drop(std::thread::Builder::new().name("packages".into()).spawn(move || {
            crate::os::drop_all_privileges();
            table.set(read(&folder))
        }));
        packages
    }

    /// The package of a path, also of `/bin/x` where the system has `/usr/bin/x`.
    #[must_use]
    pub fn owner(&self, path: &str) -> Option<String> {
        let table = self.0.get()?;
        let find = |path: &str| table.by_path.get(&xxh3_64(path.as_bytes()));
        let number = find(path).or_else(|| find(path.strip_prefix("/usr")?))?;
        let name = table.names.get(*number as usize)?;
        Some(format!("deb:{name}"))
    }

    /// Whether the lists are read.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.0.get().is_some()
    }
}

fn read(folder: &Path) -> Table {
    let mut table = Table::default();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let file = entry.file_name();
        let Some(name) = file.to_str().and_then(|f| f.strip_suffix(".list")) else { continue };
        let name = name.split(':').next().unwrap_or(name);
        let Ok(opened) = fs::File::open(entry.path()) else { continue };
        let number = u32::try_from(table.names.len()).unwrap_or(u32::MAX);
        table.names.push(name.to_owned());
        for line in BufReader::new(opened).split(b'\n').map_while(Result::ok) {
            if table.by_path.len() >= FILES_MAX {
                return table;
            }
            table.by_path.insert(xxh3_64(&line), number);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_packages() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("git.list"), "/.\n/usr/bin/git\n").unwrap();
        fs::write(dir.path().join("bash:amd64.list"), "/bin/bash\n").unwrap();
        fs::write(dir.path().join("git.md5sums"), "x  usr/bin/other\n").unwrap();
        let packages = Packages::start(dir.path());
        while !packages.is_ready() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert_eq!(packages.owner("/usr/bin/git").as_deref(), Some("deb:git"));
        assert_eq!(packages.owner("/usr/bin/bash").as_deref(), Some("deb:bash"));
        assert_eq!(packages.owner("/usr/bin/other"), None);
    }
}
