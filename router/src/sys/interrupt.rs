//! Ends a thread's waiting in a system call that knows no time-out.
//!
//! A signal with a handler that does nothing makes the call return `EINTR`. SIGURG is used:
//! ignored by default, so that one gone astray does no harm.

use std::io;
use std::mem::MaybeUninit;
use std::os::unix::thread::JoinHandleExt as _;
use std::thread::JoinHandle;

const SIGNAL: libc::c_int = libc::SIGURG;

extern "C" fn nothing(_: libc::c_int) {}

/// Makes the calling thread one that [`interrupt`] wakes.
///
/// # Errors
/// What the system says; it has no reason to.
pub fn allow_interrupts() -> io::Result<()> {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: sigaction is plain old data; without flags (no SA_RESTART) a waiting call ends
    // early; the handler touches nothing and so is safe at any moment. The set is filled by
    // sigemptyset before it is used.
    let result = unsafe {
        let action = action.as_mut_ptr();
        (*action).sa_sigaction = nothing as extern "C" fn(libc::c_int) as libc::sighandler_t;
        libc::sigemptyset(&raw mut (*action).sa_mask);
        libc::sigaction(SIGNAL, action, std::ptr::null_mut())
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: the set is emptied before it is used and lives across the calls.
    let result = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), SIGNAL);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, set.as_ptr(), std::ptr::null_mut())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(result)) }
}

/// Wakes a thread that has called [`allow_interrupts`]; on another one it does nothing.
pub fn interrupt<T>(thread: &JoinHandle<T>) {
    // SAFETY: the handle keeps the thread's id valid, ended or not, until it is joined.
    // A number to glibc and a pointer to musl; std always has the number.
    unsafe { libc::pthread_kill(thread.as_pthread_t() as libc::pthread_t, SIGNAL) };
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_waiting_read_ends_early() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let (ready, is_ready) = channel();
        let thread = std::thread::spawn(move || {
            allow_interrupts().unwrap();
            ready.send(()).unwrap();
            reader.read(&mut [0; 1]).unwrap_err().kind()
        });
        is_ready.recv().unwrap();
        while !thread.is_finished() {
            interrupt(&thread);
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(thread.join().unwrap(), io::ErrorKind::Interrupted);
        drop(writer);
    }
}
