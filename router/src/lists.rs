//! Block lists from files into the set tier-0 asks.
//!
//! In: the paths of the configuration. Out: the finished set. Runs on the thread that
//! starts or reloads the router, never on the pipeline's: a million names take about a
//! second. Everything is read before anything is swapped. A list is at most
//! [`LIST_BYTES_MAX`] bytes; lines that are no names are reported, not fatal.

use std::fs::File;
use std::io::Read;

use agentmon_core::tier0::Tier0Config;
use agentmon_core::tier0::blocklist::{Blocklist, ListConfig};
use anyhow::Context as _;

/// Largest list file: about 6 million names.
pub const LIST_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// Reads all lists; what became of each is logged.
///
/// # Errors
/// The file that cannot be read, and why.
pub fn load(config: &Tier0Config) -> anyhow::Result<Blocklist> {
    let (lists, missing) = load_readable(config);
    match missing.into_iter().next() {
        Some(missing) => Err(missing),
        None => Ok(lists),
    }
}

/// Reads the lists that can be read, and says why the others cannot: a list on a disk that
/// is not there (yet) must not keep a router from watching with the others.
#[must_use]
pub fn load_readable(config: &Tier0Config) -> (Blocklist, Vec<anyhow::Error>) {
    let mut builder = config.blocklist.builder();
    let mut missing = Vec::new();
    if !config.blocklist.enabled {
        return (builder.build(), missing);
    }
    for list in &config.blocklist.lists {
        let text = match read(list).with_context(|| {
            format!("tier0.blocklist: list `{}`: {}", list.name, list.path.display())
        }) {
            Ok(text) => text,
            Err(error) => {
                missing.push(error);
                continue;
            }
        };
        let report = builder.list(&list.name, list.score, &text);
        if report.is_clean() {
            tracing::info!("block list {report}");
        } else {
            tracing::warn!("block list {report}");
        }
    }
    (builder.build(), missing)
}

fn read(list: &ListConfig) -> anyhow::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(&list.path)?.take(LIST_BYTES_MAX + 1).read_to_end(&mut text)?;
    anyhow::ensure!(text.len() as u64 <= LIST_BYTES_MAX, "longer than {LIST_BYTES_MAX} bytes");
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(path: &std::path::Path) -> Tier0Config {
        let mut config = Tier0Config::default();
        let list = ListConfig { name: "test".into(), path: path.into(), score: 0.8 };
        config.blocklist.lists = vec![list];
        config
    }

    #[test]
    fn reads_what_is_there_and_names_what_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("list.txt");
        let error = load(&config(&path)).unwrap_err();
        assert!(format!("{error:#}").contains("list `test`:"), "{error:#}");
        std::fs::write(&path, "bad.example\n?!\n0.0.0.0 worse.example\n").unwrap();
        let lists = load(&config(&path)).unwrap();
        assert_eq!(lists.len(), 2);
        assert!(lists.lookup(&"a.bad.example".parse().unwrap()).is_some());
        let mut both = config(&path);
        both.blocklist.lists.push(config(&dir.path().join("gone")).blocklist.lists.remove(0));
        let (lists, missing) = load_readable(&both);
        assert_eq!((lists.len(), missing.len()), (2, 1), "the other one is used");
    }
}
