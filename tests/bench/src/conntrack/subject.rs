//! The programs that listen to connection tracking, started and counted alike.
//!
//! Each reports what it has seen in its own way; [`Subject::finish`] turns that into the
//! number of events (NEW and DESTROY each count one).

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::measure::{Stopwatch, tool};

/// Who listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Our collector alone, its events thrown away.
    Collector,
    /// `conntrack -E`, one line per event into a file.
    Conntrack,
    /// ulogd2: flows joined in its hash table, one log line each.
    Ulogd,
}

impl Kind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Collector => "agentmon's collector",
            Self::Conntrack => "conntrack -E",
            Self::Ulogd => "ulogd2 NFCT",
        }
    }

    /// The system's tool it needs: name and Debian package.
    const fn tool(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Collector => None,
            Self::Conntrack => Some(("conntrack", "conntrack")),
            Self::Ulogd => Some(("ulogd", "ulogd2")),
        }
    }

    /// What must be installed first, if something must.
    pub(super) fn missing(self) -> Option<String> {
        let (name, package) = self.tool()?;
        tool(name).is_none().then(|| format!("not installed (apt-get install {package})"))
    }
}

/// What a listener has seen.
#[derive(Clone, Copy, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Seen {
    /// NEW and DESTROY together.
    pub(super) events: u64,
    /// Times the kernel said that its buffer was full.
    pub(super) enobufs: u64,
}

/// A listener that runs.
pub(super) struct Subject {
    kind: Kind,
    child: Child,
    folder: PathBuf,
}

/// Netlink receive buffer given to ulogd2, whose default is not enough.
const ULOGD_BUFFER_BYTES: &str = "67108864";
/// Longest wait for a program to listen, or to end.
const PATIENCE: Duration = Duration::from_secs(20);

impl Subject {
    /// Starts it and waits until it listens. Its files go into `folder`, empty so far.
    pub(super) fn start(kind: Kind, folder: &Path) -> anyhow::Result<Self> {
        let mut command = match kind {
            Kind::Collector => {
                let mut command = Command::new(std::env::current_exe()?);
                command.args(["role", "collector"]);
                command.stdin(Stdio::piped()).stdout(Stdio::piped());
                command
            }
            Kind::Conntrack => {
                let mut command = Command::new(tool("conntrack").context("conntrack")?);
                // Without -b: release 1.4.7 gives that buffer to another of its sockets.
                command.args(["-E", "-e", "NEW,DESTROY"]);
                command.stdout(std::fs::File::create(folder.join("events.log"))?);
                // It ends with "conntrack v1.4.7: N flow events have been shown.".
                command.stderr(Stdio::piped());
                command
            }
            Kind::Ulogd => {
                let config = folder.join("ulogd.conf");
                std::fs::write(&config, ulogd_config(folder)?)?;
                let mut command = Command::new(tool("ulogd").context("ulogd")?);
                command.arg("-c").arg(config);
                command.stdout(Stdio::null()).stderr(Stdio::null());
                command
            }
        };
        let child = command.spawn()?;
        let mut subject = Self { kind, child, folder: folder.to_owned() };
        subject.wait_listening()?;
        Ok(subject)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Until the kernel lists a netlink socket in the groups NEW (1) and DESTROY (3).
    fn wait_listening(&mut self) -> anyhow::Result<()> {
        let watch = Stopwatch::start();
        while !listening(&std::fs::read_to_string("/proc/net/netlink")?) {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended early: {status}: {}", self.kind.name(), self.last_words());
            }
            if watch.elapsed() > PATIENCE {
                bail!("{} does not listen to connection tracking", self.kind.name());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn last_words(&mut self) -> String {
        let mut text = String::new();
        if let Some(pipe) = &mut self.child.stderr {
            // Nothing to read is nothing to tell.
            drop(pipe.take(4_096).read_to_string(&mut text));
        }
        let log = std::fs::read_to_string(self.folder.join("ulogd.log")).unwrap_or_default();
        format!("{text}{log}").trim().to_owned()
    }

    /// Ends it and asks what it has seen.
    pub(super) fn finish(mut self) -> anyhow::Result<Seen> {
        match self.kind {
            Kind::Collector => {
                drop(self.child.stdin.take()); // end of input: stop
                let mut line = String::new();
                let out = self.child.stdout.take().context("stdout was piped")?;
                BufReader::new(out).read_line(&mut line)?;
                self.wait()?;
                Ok(serde_json::from_str(&line).with_context(|| line.clone())?)
            }
            Kind::Conntrack => {
                self.signal(rustix::process::Signal::INT)?;
                let mut text = String::new();
                let mut err = self.child.stderr.take().context("stderr was piped")?;
                err.read_to_string(&mut text)?;
                self.wait()?;
                let events = shown(&text).with_context(|| text.clone())?;
                Ok(Seen { events, enobufs: text.matches("ENOBUFS").count() as u64 })
            }
            Kind::Ulogd => {
                self.signal(rustix::process::Signal::TERM)?;
                self.wait()?;
                // One line per flow whose beginning and end were both seen.
                let file = std::fs::File::open(self.folder.join("flows.log"))?;
                let flows = BufReader::new(file).split(b'\n').count() as u64;
                let log = std::fs::read_to_string(self.folder.join("ulogd.log"))?;
                let enobufs = log.matches("We are losing events").count() as u64;
                Ok(Seen { events: flows * 2, enobufs })
            }
        }
    }

    fn signal(&self, signal: rustix::process::Signal) -> anyhow::Result<()> {
        let pid = rustix::process::Pid::from_child(&self.child);
        Ok(rustix::process::kill_process(pid, signal)?)
    }

    fn wait(&mut self) -> anyhow::Result<()> {
        let watch = Stopwatch::start();
        while self.child.try_wait()?.is_none() {
            if watch.elapsed() > PATIENCE {
                bail!("{} does not end", self.kind.name());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        // Already gone is as good as killed.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Columns of `/proc/net/netlink`: `sk Eth Pid Groups ...`, groups as a hexadecimal mask.
fn listening(table: &str) -> bool {
    const NETLINK_NETFILTER: &str = "12";
    const NEW_AND_DESTROY: u32 = 0b101;
    table.lines().any(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, NETLINK_NETFILTER, _, groups, ..] = fields.as_slice() else { return false };
        u32::from_str_radix(groups, 16).is_ok_and(|g| g & NEW_AND_DESTROY == NEW_AND_DESTROY)
    })
}

/// From the closing line of `conntrack -E`.
fn shown(text: &str) -> Option<u64> {
    let (before, _) = text.rsplit_once(" flow events have been shown")?;
    before.rsplit([' ', ':']).next()?.parse().ok()
}

/// NEW and DESTROY joined by the hash table, one text line per flow.
fn ulogd_config(folder: &Path) -> anyhow::Result<String> {
    let conntrack_plugin = ulogd_plugin("ulogd_inpflow_NFCT.so")?;
    let plugins = conntrack_plugin.parent().unwrap_or(Path::new("/")).display();
    let folder = folder.display();
    Ok(format!(
        r#"[global]
logfile="{folder}/ulogd.log"
loglevel=5
plugin="{plugins}/ulogd_inpflow_NFCT.so"
plugin="{plugins}/ulogd_filter_IP2STR.so"
plugin="{plugins}/ulogd_filter_PRINTFLOW.so"
plugin="{plugins}/ulogd_output_LOGEMU.so"
stack=ct1:NFCT,ip2str1:IP2STR,print1:PRINTFLOW,emu1:LOGEMU
[ct1]
netlink_socket_buffer_size={ULOGD_BUFFER_BYTES}
netlink_socket_buffer_maxsize={ULOGD_BUFFER_BYTES}
event_mask=0x00000005
hash_enable=1
hash_max_entries=2000000
[emu1]
file="{folder}/flows.log"
sync=0
"#
    ))
}

/// Debian keeps the plugins in `/usr/lib/TRIPLET/ulogd`, others in `/usr/lib/ulogd`.
fn ulogd_plugin(name: &str) -> anyhow::Result<PathBuf> {
    let lib = Path::new("/usr/lib");
    let triplets = std::fs::read_dir(lib)?.filter_map(Result::ok).map(|e| e.path());
    let folders = std::iter::once(lib.to_owned()).chain(triplets);
    let mut files = folders.map(|folder| folder.join("ulogd").join(name));
    files.find(|f| f.is_file()).with_context(|| format!("ulogd has no {name} under /usr/lib"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peer_tells_how_much_it_has_shown() {
        let text = "conntrack v1.4.7 (conntrack-tools): 101431 flow events have been shown.\n";
        assert_eq!(shown(text), Some(101_431));
        assert_eq!(shown("Operation failed"), None);
    }

    #[test]
    fn listening_is_read_from_the_kernel() {
        let head = "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks\n";
        let other = "ffff888 0   1          00000005 0        0        0     2\n";
        let new_only = "ffff888 12  1          00000001 0        0        0     2\n";
        let both = "ffff888 12  1          00000005 0        0        0     2\n";
        assert!(!listening(&format!("{head}{other}{new_only}")));
        assert!(listening(&format!("{head}{both}")));
    }
}
