//! The names the router's own resolver gives to addresses of this network: hosts files.
//!
//! In: the files that dnsmasq answers reverse look-ups from (`/etc/hosts`, on OpenWrt also the
//! folder `/tmp/hosts`, where static leases and odhcpd's names are). Out: a name for an
//! address. They are read, not asked for: a resolver passes on what it does not know itself,
//! and nobody out there needs to hear of private addresses.
//!
//! Format, `hosts(5)`: an address, then names, `#` begins a comment; the first name counts.
//! Pipeline thread; looks once in [`LOOK_EVERY`] and reads what has changed.
//!
//! Invariants: at most [`FILES_MAX`] files of [`FILE_BYTES_MAX`] bytes and [`ENTRIES_MAX`]
//! names; only private addresses; names are hostile and go through `host_name`.

use std::collections::HashMap;
use std::fs;
use std::io::Read as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use agentmon_core::event::{host_name, is_public};
use agentmon_core::time::Mono;

/// Most files, over all folders.
const FILES_MAX: usize = 32;
/// Most bytes read of one file: block lists may be hosts files too.
const FILE_BYTES_MAX: u64 = 128 * 1024;
/// Most names kept.
const ENTRIES_MAX: usize = 4_096;
/// How often to look.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// What a file was when it was read.
type Version = (PathBuf, u64, Option<SystemTime>);

/// The names.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    paths: Vec<PathBuf>,
    seen: Vec<Version>,
    names: HashMap<IpAddr, String>,
    next: Option<Mono>,
}

impl Hosts {
    /// Other files; read with the next look.
    pub(super) fn reconfigure(&mut self, paths: &[PathBuf]) {
        paths.clone_into(&mut self.paths);
        self.next = None;
    }

    pub(super) fn name(&self, ip: IpAddr) -> Option<&str> {
        self.names.get(&ip).map(String::as_str)
    }

    /// Looks when it is time.
    pub(super) fn tick(&mut self, now: Mono) {
        if self.next.is_some_and(|next| now < next) {
            return;
        }
        self.next = Some(now.plus(LOOK_EVERY));
        let seen: Vec<Version> = files(&self.paths).into_iter().filter_map(version).collect();
        if seen == self.seen {
            return;
        }
        self.names.clear();
        for (path, ..) in &seen {
            if let Ok(text) = read(path) {
                self.take(&text);
            }
        }
        self.seen = seen;
    }

    fn take(&mut self, text: &[u8]) {
        for line in text.split(|b| *b == b'\n') {
            let line = line.split(|b| *b == b'#').next().unwrap_or_default();
            let mut words =
                line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).take(2);
            let address = words.next().and_then(|word| std::str::from_utf8(word).ok());
            let address = address.and_then(|word| word.parse::<IpAddr>().ok());
            let address = address.map(|ip| ip.to_canonical()).filter(|ip| is_ours(*ip));
            let name = words.next().and_then(host_name);
            if let (Some(address), Some(name)) = (address, name)
                && self.names.len() < ENTRIES_MAX
            {
                // As resolvers do it: the first that stands there.
                self.names.entry(address).or_insert(name);
            }
        }
    }
}

fn is_ours(ip: IpAddr) -> bool {
    !is_public(ip) && !ip.is_loopback() && !ip.is_unspecified() && !ip.is_multicast()
}

/// The files, and those in the folders, in a lasting order.
fn files(paths: &[PathBuf]) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for path in paths {
        match fs::read_dir(path) {
            Ok(folder) => {
                let mut inner: Vec<_> =
                    folder.flatten().take(FILES_MAX).map(|entry| entry.path()).collect();
                inner.sort();
                all.extend(inner);
            }
            Err(_) => all.push(path.clone()),
        }
    }
    all.truncate(FILES_MAX);
    all
}

fn version(path: PathBuf) -> Option<Version> {
    let meta = fs::metadata(&path).ok().filter(fs::Metadata::is_file)?;
    Some((path, meta.len(), meta.modified().ok()))
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = crate::tail::position::open_regular(path)?;
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Mono {
        Mono::from_nanos(seconds * 1_000_000_000)
    }

    #[track_caller]
    fn check(text: &str, ip: &str, expected: Option<&str>) {
        let mut hosts = Hosts::default();
        hosts.take(text.as_bytes());
        assert_eq!(hosts.name(ip.parse().unwrap()), expected);
    }

    #[test]
    fn lines_of_hosts_files() {
        check("192.168.1.9 printer.lan printer\n", "192.168.1.9", Some("printer.lan"));
        check("# 192.168.1.9 printer\n", "192.168.1.9", None);
        check("192.168.1.9\tprinter # ours\r\n", "192.168.1.9", Some("printer"));
        check("192.168.1.9 one\n192.168.1.9 two\n", "192.168.1.9", Some("one"));
        check("fd00::9 tablet", "fd00::9", Some("tablet"));
        check("127.0.0.1 me\n0.0.0.0 ads.example\n203.0.113.9 www\n", "203.0.113.9", None);
        check("0.0.0.0 ads.example\n", "0.0.0.0", None);
        check("192.168.1.9 localhost\n192.168.1.9\nnonsense x\n", "192.168.1.9", None);
        check("192.168.1.9 a\x1b[2Jb\n", "192.168.1.9", Some("a\\x1b[2Jb"));
    }

    #[test]
    fn files_and_folders_are_read_when_they_change() {
        let dir = tempfile::tempdir().unwrap();
        let (file, folder) = (dir.path().join("hosts"), dir.path().join("more"));
        fs::create_dir(&folder).unwrap();
        fs::write(&file, "192.168.1.1 router\n").unwrap();
        let mut hosts = Hosts::default();
        hosts.reconfigure(&[file.clone(), folder.clone(), dir.path().join("none")]);
        let nine = "192.168.1.9".parse().unwrap();
        hosts.tick(at(0));
        assert_eq!((hosts.names.len(), hosts.name(nine)), (1, None));
        fs::write(folder.join("dhcp.cfg"), "192.168.1.9 printer\n").unwrap();
        hosts.tick(at(59));
        assert_eq!(hosts.name(nine), None, "not yet");
        hosts.tick(at(60));
        assert_eq!(hosts.name(nine), Some("printer"));
        fs::remove_file(&file).unwrap();
        hosts.tick(at(120));
        assert_eq!(hosts.names.len(), 1);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_bounded(text in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
            let mut hosts = Hosts::default();
            hosts.take(&text);
            proptest::prop_assert!(hosts.names.values().all(|n| n.bytes().all(|b| (b' '..=b'~').contains(&b))));
        }
    }
}
