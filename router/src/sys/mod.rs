//! The few system calls that no crate of ours wraps: the one folder of this crate
//! where `unsafe` is allowed.
//!
//! In and out: file descriptors and plain values. Any thread. Each call is one system
//! call; none keeps a pointer after it returns, besides [`Map`].

#![allow(unsafe_code, reason = "libc calls; every block says why it is sound")]

mod batch;
mod interrupt;
mod map;
mod raw;

use std::ffi::{CStr, CString};
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

pub use batch::Batch;
pub use interrupt::{allow_interrupts, interrupt};
pub use map::Map;
pub use raw::{RawSender, set_mark};

/// Sets the receive buffer past `net.core.rmem_max` (needs `CAP_NET_ADMIN`), or as far as
/// that limit allows, and returns the size the kernel now accounts with (twice the wish,
/// see socket(7)).
///
/// # Errors
/// What `getsockopt` says; a refused `setsockopt` shows in the returned size.
pub fn set_receive_buffer(fd: BorrowedFd<'_>, bytes: usize) -> io::Result<usize> {
    let wish = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    for option in [libc::SO_RCVBUFFORCE, libc::SO_RCVBUF] {
        // SAFETY: the pointer and length describe `wish`, which lives across the call.
        let result = unsafe {
            libc::setsockopt(
                fd.as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                (&raw const wish).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        if result == 0 {
            break;
        }
    }
    receive_buffer(fd)
}

/// The receive buffer's size as the kernel accounts it.
///
/// # Errors
/// What `getsockopt` says.
pub fn receive_buffer(fd: BorrowedFd<'_>) -> io::Result<usize> {
    let mut size: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: both pointers are to locals that live across the call, and `length` is the
    // size of what the first one points to.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUF,
            (&raw mut size).cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(size).unwrap_or(0))
}

/// Datagrams the kernel dropped because this socket's buffer was full, since it was made
/// (`SO_MEMINFO`, Linux 4.12).
///
/// # Errors
/// What `getsockopt` says.
pub fn dropped_datagrams(fd: BorrowedFd<'_>) -> io::Result<u32> {
    // include/uapi/linux/sock_diag.h: SK_MEMINFO_DROPS is the last of nine.
    let mut numbers = [0_u32; 9];
    let mut length = size_of::<[u32; 9]>() as libc::socklen_t;
    // SAFETY: both pointers are to locals that live across the call, and `length` is the
    // size of what the first one points to.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            numbers.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(numbers[8]) }
}

/// Sets how much a pipe holds; unprivileged, at most `fs.pipe-max-size` (see fcntl(2)).
///
/// # Errors
/// What `fcntl` says.
pub fn set_pipe_size(fd: BorrowedFd<'_>, bytes: usize) -> io::Result<usize> {
    let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    // SAFETY: plain numbers; the borrowed descriptor is open across the call.
    let size = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETPIPE_SZ, bytes) };
    usize::try_from(size).map_err(|_| io::Error::last_os_error())
}

/// Waits until the descriptor has something to read (or an error to tell), at most
/// `timeout`. A signal ends the wait early with `false`.
///
/// # Errors
/// What `poll` says.
pub fn wait_readable(fd: BorrowedFd<'_>, timeout: Duration) -> io::Result<bool> {
    let mut entry = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // Rounded up: a wait of half a millisecond must not become a busy loop.
    let ms = timeout.as_nanos().div_ceil(1_000_000);
    let ms = libc::c_int::try_from(ms).unwrap_or(libc::c_int::MAX);
    // SAFETY: one valid pollfd, and the count says one.
    let ready = unsafe { libc::poll(&raw mut entry, 1, ms) };
    if ready < 0 {
        let error = io::Error::last_os_error();
        return if error.kind() == io::ErrorKind::Interrupted { Ok(false) } else { Err(error) };
    }
    Ok(ready > 0)
}

/// What to wait for on a descriptor, and then what came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// Something to read, or the end.
    pub read: bool,
    /// Room to write.
    pub write: bool,
}

/// Waits until one of the descriptors is ready for what is wanted of it, at most `timeout`;
/// a signal ends the wait early. An error or the end of a connection shows as readable.
///
/// # Errors
/// What `poll` says.
pub fn wait_any<const N: usize>(
    wanted: [(BorrowedFd<'_>, Ready); N],
    timeout: Duration,
) -> io::Result<[Ready; N]> {
    let mut entries = wanted.map(entry);
    poll(&mut entries, timeout)?;
    Ok(entries.map(ready))
}

/// The same for any number of descriptors.
///
/// # Errors
/// What `poll` says.
pub fn wait_many(wanted: &[(BorrowedFd<'_>, Ready)], timeout: Duration) -> io::Result<Vec<Ready>> {
    let mut entries: Vec<libc::pollfd> = wanted.iter().map(|one| entry(*one)).collect();
    poll(&mut entries, timeout)?;
    Ok(entries.into_iter().map(ready).collect())
}

fn entry((fd, want): (BorrowedFd<'_>, Ready)) -> libc::pollfd {
    let read = if want.read { libc::POLLIN } else { 0 };
    let write = if want.write { libc::POLLOUT } else { 0 };
    libc::pollfd { fd: fd.as_raw_fd(), events: read | write, revents: 0 }
}

fn ready(entry: libc::pollfd) -> Ready {
    Ready { read: entry.revents & !libc::POLLOUT != 0, write: entry.revents & libc::POLLOUT != 0 }
}

/// The entries were made of borrowed descriptors, which are open until this returns.
fn poll(entries: &mut [libc::pollfd], timeout: Duration) -> io::Result<()> {
    let ms = timeout.as_nanos().div_ceil(1_000_000);
    let ms = libc::c_int::try_from(ms).unwrap_or(libc::c_int::MAX);
    // SAFETY: as many valid entries as the count says, alive across the call.
    let n = unsafe { libc::poll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, ms) };
    if n >= 0 {
        return Ok(());
    }
    // What a failed call left in the entries means nothing.
    entries.iter_mut().for_each(|entry| entry.revents = 0);
    let error = io::Error::last_os_error();
    if error.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(error) }
}

/// Sends this process the signal that makes its service read the configuration again.
pub fn ask_own_reload() {
    // SAFETY: plain numbers; the signal is blocked in every thread and waited for on one
    // (see `block_signals`), which is what a caller must have seen to.
    unsafe { libc::kill(libc::getpid(), libc::SIGHUP) };
}

/// The user this process acts as; 0 is root.
#[must_use]
pub fn user_id() -> u32 {
    // SAFETY: takes nothing, always succeeds.
    unsafe { libc::geteuid() }
}

/// From now on the calling thread gives way to all others that want a CPU (nice 10, which
/// on Linux is a thread's own, see setpriority(2)). Needs no privilege; refusal is no harm.
pub fn yield_to_others() {
    // SAFETY: plain numbers; 0 is the calling thread.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 10) };
}

/// The name of a network interface of this network namespace.
#[must_use]
pub fn interface_name(index: u32) -> Option<String> {
    let mut name = [0 as libc::c_char; libc::IF_NAMESIZE];
    // SAFETY: the buffer has the IF_NAMESIZE bytes that if_indextoname(3) asks for.
    let found = unsafe { libc::if_indextoname(index, name.as_mut_ptr()) };
    if found.is_null() {
        return None;
    }
    // SAFETY: on success the buffer holds a NUL-terminated string.
    let text = unsafe { CStr::from_ptr(name.as_ptr()) };
    Some(agentmon_core::name::printable(text.to_bytes(), libc::IF_NAMESIZE))
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM or SIGINT.
    Stop,
    /// SIGHUP.
    Reload,
}

/// SIGTERM, SIGINT and SIGHUP as a set.
fn signals() -> libc::sigset_t {
    // SAFETY: sigset_t is plain data that sigemptyset fills in; the calls only write to it.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
            libc::sigaddset(&raw mut set, signal);
        }
        set
    }
}

/// Blocks those signals on this thread and all it starts from now on; [`wait_signal`]
/// receives them.
///
/// # Errors
/// What `pthread_sigmask` says.
pub fn block_signals() -> io::Result<()> {
    let set = signals();
    // SAFETY: the set lives across the call; the old mask is not asked for.
    let error =
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) };
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}

/// Waits for one of those signals, at most `timeout`.
///
/// # Errors
/// What `sigtimedwait` says.
pub fn wait_signal(timeout: Duration) -> io::Result<Option<Signal>> {
    let set = signals();
    // The largest waits are hours; the casts cannot lose anything.
    let timeout = libc::timespec {
        // `time_t`, whose name libc deprecates for musl.
        tv_sec: timeout.as_secs() as _,
        tv_nsec: timeout.subsec_nanos() as libc::c_long,
    };
    // SAFETY: set and timeout live across the call; the details are not asked for.
    let signal =
        unsafe { libc::sigtimedwait(&raw const set, std::ptr::null_mut(), &raw const timeout) };
    match signal {
        libc::SIGHUP => Ok(Some(Signal::Reload)),
        libc::SIGTERM | libc::SIGINT => Ok(Some(Signal::Stop)),
        _ => {
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EAGAIN | libc::EINTR) => Ok(None),
                _ => Err(error),
            }
        }
    }
}

/// Bytes that may still be written to the file system of a folder.
///
/// # Errors
/// When there is no such folder.
pub fn free_bytes(folder: &Path) -> io::Result<u64> {
    let name = CString::new(folder.as_os_str().as_bytes())?;
    // SAFETY: statvfs is plain numbers, for which zeros are valid.
    let mut found: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are valid for the call; the name ends with a NUL.
    if unsafe { libc::statvfs(name.as_ptr(), &raw mut found) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // Their types differ between C libraries and targets.
    #[allow(clippy::unnecessary_cast, reason = "u32 on some targets")]
    Ok((found.f_bavail as u64).saturating_mul(found.f_frsize as u64))
}

/// What counts as a large block: rare, so that a system call for each costs nothing.
#[cfg(target_env = "gnu")]
const LARGE_BLOCK_BYTES: libc::c_int = 1024 * 1024;

/// glibc gives each thread its own 64 MiB arena; two are enough for a few quiet threads and
/// keep the resident size small. Nothing to do with other C libraries.
pub fn limit_memory_arenas() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt only sets numbers; called before any thread is started.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
        // Large blocks go back to the system when they are freed; left alone, glibc keeps
        // the next ones of the size it has seen.
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES);
    }
}

/// Gives memory that is free back to the system, after a burst; other C libraries than
/// glibc do so by themselves.
pub fn release_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes a number and may be called at any time, by any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn loopback_has_a_name_and_nonsense_has_none() {
        assert_eq!(interface_name(1).as_deref(), Some("lo"));
        assert_eq!(interface_name(u32::MAX), None);
    }

    #[test]
    fn a_folder_has_room_and_none_has_not() {
        assert!(free_bytes(std::path::Path::new("/")).unwrap() > 0);
        assert!(free_bytes(std::path::Path::new("/nonexistent")).is_err());
    }

    #[test]
    fn a_pipe_is_readable_once_written() {
        use std::io::Write;
        let (reader, mut writer) = std::io::pipe().unwrap();
        assert!(!wait_readable(reader.as_fd(), Duration::ZERO).unwrap());
        writer.write_all(b"x").unwrap();
        assert!(wait_readable(reader.as_fd(), Duration::from_secs(5)).unwrap());
        assert!(set_pipe_size(reader.as_fd(), 131_072).unwrap() >= 131_072);
    }

    #[test]
    fn waiting_for_several_tells_them_apart() {
        use std::io::Write;
        use std::os::unix::net::UnixStream;
        let (a, b) = UnixStream::pair().unwrap();
        let (c, mut d) = UnixStream::pair().unwrap();
        d.write_all(b"x").unwrap();
        let read = Ready { read: true, write: false };
        let both = Ready { read: true, write: true };
        let wait = || wait_any([(a.as_fd(), both), (c.as_fd(), read)], Duration::ZERO).unwrap();
        assert_eq!(wait(), [Ready { read: false, write: true }, read]);
        drop(b);
        assert!(wait()[0].read, "the end shows as readable");
        let many = wait_many(&[(a.as_fd(), both), (c.as_fd(), read)], Duration::ZERO).unwrap();
        assert!(many.len() == 2 && many[0].read && many[1] == read);
        assert!(wait_many(&[], Duration::ZERO).unwrap().is_empty());
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        set_receive_buffer(socket.as_fd(), 4_096).unwrap();
        assert_eq!(dropped_datagrams(socket.as_fd()).unwrap(), 0);
        for _ in 0..100 {
            socket.send_to(&[0; 1_000], socket.local_addr().unwrap()).unwrap();
        }
        assert!((50..100).contains(&dropped_datagrams(socket.as_fd()).unwrap()));
    }

    #[test]
    fn the_receive_buffer_grows_to_what_is_asked() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let before = receive_buffer(socket.as_fd()).unwrap();
        // Smaller than any rmem_max, so that it works without privilege too.
        let after = set_receive_buffer(socket.as_fd(), 32_768).unwrap();
        assert_eq!(after, 65_536);
        assert_ne!(before, after);
    }
}
