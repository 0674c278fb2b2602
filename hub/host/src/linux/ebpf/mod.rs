//! Connections and processes, told by a program in the kernel.
//!
//! In: records of `ebpf/owners.bpf.c` by its ring buffer, of every network namespace. Out:
//! [`Told`], in the order in which it happened. Needs root (`CAP_BPF`, `CAP_PERFMON`; for UDP
//! also `CAP_NET_ADMIN` and a mounted cgroup v2), a kernel with BTF (5.8 and later) and the
//! machine's own process numbers. Once open, no privilege is needed any more.

mod record;

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use anyhow::Context as _;
use aya::maps::{MapData, RingBuf};
use aya::programs::{CgroupAttachMode, CgroupSock, CgroupSockAddr, RawTracePoint};
use aya::{Ebpf, include_bytes_aligned};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

pub use record::{Exec, Flow, Step, Told, Way};

/// `./dev ebpf` makes it of `owners.bpf.c`.
static OBJECT: &[u8] = include_bytes_aligned!("../../ebpf/owners.bpf.o");

/// Programs and the tracepoints they sit at.
const TRACEPOINTS: [(&str, &str); 4] = [
    ("set_state", "inet_sock_set_state"),
    ("process_fork", "sched_process_fork"),
    ("process_exec", "sched_process_exec"),
    ("process_exit", "sched_process_exit"),
];
/// Programs at the root of the cgroups.
const ADDRESSES: [&str; 4] = ["connect4", "connect6", "sendmsg4", "sendmsg6"];
/// Longest error told.
const ERROR_BYTES_MAX: usize = 240;
/// `proc_ns.h`: the inode of the machine's own namespace of process numbers.
const PID_NAMESPACE: &str = "pid:[4026531836]";

/// The program in the kernel, for as long as this lives.
pub struct Kernel {
    _programs: Ebpf,
    records: RingBuf<MapData>,
    /// The ring's descriptor: it says when there are records.
    news: OwnedFd,
    /// What it cannot tell of datagrams, if so.
    udp: Option<String>,
    /// As the records have it: how many there was no room for.
    lost: u32,
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernel").field("udp", &self.udp).finish_non_exhaustive()
    }
}

impl Kernel {
    /// Loads and attaches.
    ///
    /// # Errors
    /// Without the right, or on a kernel without BTF or raw tracepoints.
    pub fn open() -> anyhow::Result<Self> {
        let numbers = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        anyhow::ensure!(
            numbers.as_os_str() == PID_NAMESPACE,
            "inside a container, where processes have other numbers than the kernel tells"
        );
        let mut ebpf = Ebpf::load(OBJECT).context("loading the kernel's part")?;
        for (name, point) in TRACEPOINTS {
            let program: &mut RawTracePoint =
                ebpf.program_mut(name).context("the object has no such program")?.try_into()?;
            program.load().with_context(|| format!("the kernel refuses `{name}`"))?;
            program.attach(point).with_context(|| format!("attaching to `{point}`"))?;
        }
        let udp = datagrams(&mut ebpf).err().map(|error| short(&error));
        let map = ebpf.take_map("records").context("the object has no such map")?;
        let records = RingBuf::try_from(map)?;
        // The ring gives its descriptor away as a number only.
        let me = pidfd_open(getpid(), PidfdFlags::empty())?;
        let news = pidfd_getfd(me, records.as_raw_fd(), PidfdGetfdFlags::empty())?;
        Ok(Self { records, news, _programs: ebpf, udp, lost: 0 })
    }

    /// Why it tells nothing of UDP, if so.
    #[must_use]
    pub fn without_udp(&self) -> Option<&str> {
        self.udp.as_deref()
    }

    /// Everything since the last time, and how many there was no room for.
    pub fn take(&mut self, found: &mut Vec<Told>) -> u32 {
        let before = self.lost;
        while let Some(record) = self.records.next() {
            if let Some((told, lost)) = record::decode(&record) {
                self.lost = lost;
                found.push(told);
            }
        }
        self.lost.wrapping_sub(before)
    }

    /// To wait on.
    #[must_use]
    pub fn news(&self) -> BorrowedFd<'_> {
        self.news.as_fd()
    }
}

/// The part for UDP: hooks at the root of the cgroups.
fn datagrams(ebpf: &mut Ebpf) -> anyhow::Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").context("/proc/self/mounts")?;
    let root = cgroup_root(&mounts).context("no cgroup v2 is mounted")?;
    let root = File::open(root).with_context(|| root.to_owned())?;
    // `Single` is what a link wants; others' programs may be there all the same.
    for name in ADDRESSES {
        let program: &mut CgroupSockAddr =
            ebpf.program_mut(name).context("the object has no such program")?.try_into()?;
        program.load().with_context(|| format!("the kernel refuses `{name}`"))?;
        program.attach(root.as_fd(), CgroupAttachMode::Single).context(name)?;
    }
    let name = "sock_release";
    let program: &mut CgroupSock =
        ebpf.program_mut(name).context("the object has no such program")?.try_into()?;
    program.load().with_context(|| format!("the kernel refuses `{name}`"))?;
    program.attach(root.as_fd(), CgroupAttachMode::Single).context(name)?;
    Ok(())
}

/// An error in one line: the kernel's own words on a refused program are pages.
#[must_use]
pub fn short(error: &anyhow::Error) -> String {
    let lines = error.chain().map(|e| e.to_string().lines().next().unwrap_or_default().to_owned());
    let whole = lines.collect::<Vec<_>>().join(": ");
    agentmon_core::name::cut(whole, ERROR_BYTES_MAX)
}

/// Where cgroup v2 is mounted, as /proc/self/mounts has it.
fn cgroup_root(mounts: &str) -> Option<&str> {
    let fields = mounts.lines().map(|l| l.split(' '));
    fields
        .filter_map(|mut f| Some((f.nth(1)?, f.next()?)))
        .find(|(_, k)| *k == "cgroup2")
        .map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_version_of_cgroups_is_found_wherever_it_is() {
        let mixed = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
            cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(cgroup_root(mixed), Some("/sys/fs/cgroup/unified"));
        assert_eq!(cgroup_root("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n"), Some("/sys/fs/cgroup"));
        assert_eq!(cgroup_root("none /x cgroup rw 0 0\nx"), None);
    }
}
