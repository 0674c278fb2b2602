//! What `/proc` says of a process, read in one go and bounded.
//!
//! Format: proc(5). In: a pid. Out: [`Raw`], not yet safe to tell; [`crate::processes`]
//! makes it so. The root may be another folder, for tests. A process may be gone at any step:
//! that is `None`, never an error.

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agentmon_core::Timestamp;
use agentmon_core::name::printable;

use crate::files::file_id;
use crate::platform::{Facts, FileId, Raw};
use crate::processes::TICKS;

/// Read of a command line; the rest is not looked at. The kernel allows 2 MiB.
const CMDLINE_BYTES_MAX: u64 = 64 * 1024;
/// Descriptors of one process looked at.
const DESCRIPTORS_MAX: usize = 65_536;

/// The folder and what is fixed while the machine runs.
#[derive(Clone, Debug)]
pub struct ProcFs {
    root: PathBuf,
}

impl Default for ProcFs {
    fn default() -> Self {
        Self { root: PathBuf::from("/proc") }
    }
}

impl ProcFs {
    /// Another folder of the same form.
    #[must_use]
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    fn path(&self, pid: u32, file: &str) -> PathBuf {
        self.root.join(pid.to_string()).join(file)
    }

    /// Pids of all processes.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        let entries = fs::read_dir(&self.root).into_iter().flatten().flatten();
        entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).collect()
    }

    /// Parent and start alone: enough to tell one process of a pid from another.
    #[must_use]
    pub fn start(&self, pid: u32) -> Option<(u32, u64)> {
        let stat = fs::read(self.path(pid, "stat")).ok()?;
        let (ppid, start, _) = parse_stat(&stat)?;
        Some((ppid, start))
    }

    /// Everything.
    #[must_use]
    pub fn read(&self, pid: u32) -> Option<Raw> {
        let (ppid, start_ticks, comm) = parse_stat(&fs::read(self.path(pid, "stat")).ok()?)?;
        let (exe, file, deleted) = self.exe(pid);
        let uid = fs::metadata(self.root.join(pid.to_string())).ok()?.uid();
        Some(Raw {
            ppid,
            start_ticks,
            comm,
            exe,
            deleted,
            file,
            argv: self.argv(pid),
            uid,
            netns: self.netns(pid),
            ..Raw::default()
        })
    }

    /// The name of the file a process runs, the file, and whether the name is gone.
    #[must_use]
    pub fn exe(&self, pid: u32) -> (Option<Vec<u8>>, Option<FileId>, bool) {
        let link = self.path(pid, "exe");
        let file = fs::metadata(&link).ok().map(|m| file_id(&m));
        let name = fs::read_link(&link).ok();
        let name = name.map(|p| std::os::unix::ffi::OsStringExt::into_vec(p.into_os_string()));
        match name {
            Some(path) => match path.strip_suffix(b" (deleted)") {
                Some(short) => (Some(short.to_vec()), file, true),
                None => (Some(path), file, false),
            },
            None => (None, file, false),
        }
    }

    /// Its arguments, as far as they are looked at.
    #[must_use]
    pub fn argv(&self, pid: u32) -> Vec<Vec<u8>> {
        let mut bytes = Vec::new();
        let opened = fs::File::open(self.path(pid, "cmdline")).ok();
        // A process that ends meanwhile has none.
        let read = opened.map(|file| file.take(CMDLINE_BYTES_MAX).read_to_end(&mut bytes));
        if !matches!(read, Some(Ok(_))) || bytes.is_empty() {
            return Vec::new();
        }
        let whole = bytes.strip_suffix(&[0]).unwrap_or(&bytes);
        whole.split(|b| *b == 0).map(<[u8]>::to_vec).collect()
    }

    /// Inode of a process's network namespace.
    #[must_use]
    pub fn netns(&self, pid: u32) -> Option<u64> {
        let link = fs::read_link(self.path(pid, "ns/net")).ok()?;
        link.to_str()?.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
    }

    /// Inodes of the sockets a process holds.
    #[must_use]
    pub fn sockets(&self, pid: u32) -> Vec<u32> {
        let entries = fs::read_dir(self.path(pid, "fd")).into_iter().flatten().flatten();
        let links = entries.take(DESCRIPTORS_MAX).filter_map(|e| fs::read_link(e.path()).ok());
        links.filter_map(|l| socket_inode(l.to_str()?)).collect()
    }

    /// Owner of each socket, over all processes that may be looked at.
    #[must_use]
    pub fn owners(&self) -> HashMap<u32, u32> {
        let mut owners = HashMap::new();
        let mut pids = self.pids();
        // The oldest holder counts: a socket is often handed down to children.
        pids.sort_unstable_by_key(|pid| std::cmp::Reverse(*pid));
        for pid in pids {
            owners.extend(self.sockets(pid).into_iter().map(|inode| (inode, pid)));
        }
        owners
    }

    /// Opens the file a process runs, also where its name is gone.
    ///
    /// # Errors
    /// Gone, or somebody else's.
    pub fn open_exe(&self, pid: u32) -> std::io::Result<fs::File> {
        fs::File::open(self.path(pid, "exe"))
    }

    /// One small file, as text without the line end.
    #[must_use]
    pub fn text(&self, file: &str) -> Option<String> {
        Some(fs::read_to_string(self.root.join(file)).ok()?.trim_end().to_owned())
    }
}

impl Facts for ProcFs {
    const OS: &'static str = "linux";

    fn host(&self) -> String {
        self.text("sys/kernel/hostname").unwrap_or_default()
    }
    fn boot(&self) -> String {
        self.text("sys/kernel/random/boot_id").unwrap_or_default()
    }
    fn pids(&self) -> Vec<u32> {
        Self::pids(self)
    }
    fn start(&self, pid: u32) -> Option<u64> {
        Self::start(self, pid).map(|(_, start)| start)
    }
    fn read(&self, pid: u32) -> Option<Raw> {
        Self::read(self, pid)
    }
    fn started(&self, ticks: u64, now: Timestamp) -> Option<Timestamp> {
        let uptime = self.text("uptime")?;
        let uptime: f64 = uptime.split(' ').next()?.parse().ok()?;
        let age = Duration::from_secs_f64(uptime.max(0.0))
            .saturating_sub(Duration::from_millis(ticks.saturating_mul(1_000 / TICKS)));
        Some(now.minus(age))
    }
    /// The machine's own accounts; numbers of containers stay numbers.
    fn user(&self, uid: u32) -> Option<String> {
        let passwd = fs::read_to_string("/etc/passwd").ok()?;
        let line = passwd.lines().find(|l| l.split(':').nth(2) == Some(&uid.to_string()))?;
        Some(printable(line.split(':').next()?.as_bytes(), 63))
    }
    fn open_exe(&self, pid: u32) -> std::io::Result<fs::File> {
        Self::open_exe(self, pid)
    }
    fn own_netns(&self) -> Option<u64> {
        self.netns(std::process::id())
    }
    fn container(&self, pid: u32, netns: u64) -> String {
        let cgroup = self.text(&format!("{pid}/cgroup"));
        super::containers::name(netns, cgroup.as_deref(), super::containers::NAMES.as_ref())
    }
}

fn socket_inode(link: &str) -> Option<u32> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// `pid (comm) state ppid ... starttime`: the name may hold blanks and brackets, so the last
/// bracket ends it.
fn parse_stat(stat: &[u8]) -> Option<(u32, u64, Vec<u8>)> {
    let open = stat.iter().position(|b| *b == b'(')?;
    let close = stat.iter().rposition(|b| *b == b')')?;
    let comm = stat.get(open + 1..close)?.to_vec();
    let rest = std::str::from_utf8(stat.get(close + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    // Fields 4 (ppid) and 22 (starttime) of proc(5); the state is the first here.
    let ppid = fields.nth(1)?.parse().ok()?;
    let start = fields.nth(17)?.parse().ok()?;
    Some((ppid, start, comm))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_brackets_and_escapes() {
        let stat =
            b"42 (a) b (\x1b[2J)) S 7 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 123456 99 0";
        assert_eq!(parse_stat(stat), Some((7, 123_456, b"a) b (\x1b[2J)".to_vec())));
        assert_eq!(parse_stat(b"42 (a"), None);
        assert_eq!(parse_stat(b"42 (a) S x"), None);
    }

    #[test]
    fn this_process_and_its_sockets() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let proc = ProcFs::default();
        let me = std::process::id();
        let raw = proc.read(me).unwrap();
        assert_eq!(
            raw.exe.as_deref().map(|e| String::from_utf8_lossy(e).into_owned()),
            std::env::current_exe().ok().map(|p| p.display().to_string())
        );
        assert!(
            raw.start_ticks > 0
                && !raw.argv.is_empty()
                && raw.netns.is_some()
                && raw.file.is_some()
        );
        assert_eq!(proc.start(me), Some((raw.ppid, raw.start_ticks)));
        let sockets = proc.sockets(me);
        assert!(!sockets.is_empty());
        assert!(sockets.iter().all(|inode| proc.owners().contains_key(inode)));
        drop(listener);
        assert_eq!(proc.read(u32::MAX), None);
    }

    proptest::proptest! {
        #[test]
        fn any_stat_never_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            drop(parse_stat(&bytes));
        }
    }
}
