//! Code that runs inside a network namespace: sockets opened there belong to that host of
//! the lab, and `/proc/sys/net` is that host's.
//!
//! A namespace is a property of a thread, so each call gets a thread of its own.

use std::fs::File;
use std::thread::JoinHandle;

use rustix::fd::AsFd as _;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Starts `work` on a thread inside the namespace `host`.
///
/// # Panics
/// When there is no such namespace, or entering it is not allowed.
pub fn spawn<T: Send + 'static>(
    host: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    let path = format!("/run/netns/{host}");
    let thread = std::thread::Builder::new().name(format!("in {host}"));
    let started = thread.spawn(move || {
        let file = File::open(&path).unwrap_or_else(|e| panic!("no host {path}: {e}"));
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .unwrap_or_else(|e| panic!("cannot enter {path}: {e}"));
        work()
    });
    started.expect("a thread can be started")
}

/// Runs `work` inside the namespace `host` and waits for its result; a panic in there goes on
/// here.
pub fn run<T: Send + 'static>(host: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    spawn(host, work).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Writes a sysctl (dots as in `sysctl -w`) of `host`.
///
/// # Panics
/// When the kernel refuses; the message names the file.
pub fn sysctl(host: &str, name: &str, value: &str) {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    let value = value.to_owned();
    run(host, move || {
        std::fs::write(&path, &value).unwrap_or_else(|e| panic!("{path} = {value}: {e}"));
    });
}
