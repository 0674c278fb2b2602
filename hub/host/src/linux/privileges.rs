//! What this program may do, taken away as soon as it is not needed any more.
//!
//! | when, which thread | what is left |
//! |---|---|
//! | start, all | [`OPENING`]; none of it comes back by starting another program (`no_new_privs`) |
//! | everything is open, the watch | [`WATCHING`]: others' `/proc/PID/exe` and descriptors |
//! | from its start, every other thread | nothing |
//!
//! Capabilities belong to threads (capabilities(7)): each gives its own away. What the kernel
//! refuses here is told and not fatal: without privileges there is nothing to give away.

use rustix::io::{self, Errno};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs,
};

/// eBPF (`BPF`, `PERFMON`; `NET_ADMIN` for its hooks of cgroups), netlink groups and their
/// buffers (`NET_ADMIN`), and [`WATCHING`].
pub const OPENING: CapabilitySet = CapabilitySet::BPF
    .union(CapabilitySet::PERFMON)
    .union(CapabilitySet::NET_ADMIN)
    .union(WATCHING);
/// To see which file a foreign process runs, and which descriptors it holds.
pub const WATCHING: CapabilitySet = CapabilitySet::SYS_PTRACE.union(CapabilitySet::DAC_READ_SEARCH);

/// Of the whole program, before its first thread.
///
/// # Errors
/// What the kernel says.
pub fn at_start() -> io::Result<()> {
    set_no_new_privs(true)?;
    for one in CapabilitySet::all().iter().filter(|c| !OPENING.contains(*c)) {
        match remove_capability_from_bounding_set(one) {
            // Without CAP_SETPCAP there is nothing to keep from; older kernels have fewer.
            Ok(()) | Err(Errno::PERM | Errno::INVAL) => {}
            Err(error) => return Err(error),
        }
    }
    keep(OPENING)
}

/// Of the calling thread: what is not among these is gone for good.
///
/// # Errors
/// What the kernel says.
pub fn keep(these: CapabilitySet) -> io::Result<()> {
    let has = capabilities(None)?;
    let left = has.permitted & these;
    let inheritable = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: left, permitted: left, inheritable })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_thread_gave_away_is_gone_and_only_there() {
        let before = capabilities(None).unwrap().permitted;
        let inner = std::thread::spawn(|| {
            keep(WATCHING).unwrap();
            let kept = capabilities(None).unwrap();
            assert!(WATCHING.contains(kept.effective) && WATCHING.contains(kept.permitted));
            keep(CapabilitySet::empty()).unwrap();
            keep(OPENING).unwrap();
            capabilities(None).unwrap()
        });
        assert_eq!(inner.join().unwrap().permitted, CapabilitySet::empty());
        assert_eq!(capabilities(None).unwrap().permitted, before);
    }
}
