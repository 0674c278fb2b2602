//! The agent on a host: which process owns which connection, with its ancestors as they were
//! when it began.
//!
//! ```text
//! kernel: sock_diag dumps, socket ends, process starts; /proc
//!    -> linux -> watch (tables of processes and sockets) -> ring -> forward -> hub
//! ```
//!
//! On Windows and macOS sockets are known by looking at all of them again and again:
//! `windows` or `macos` -> `poll` -> ring -> forward -> hub. [`platform`] has what is the same.
//!
//! Ring, forwarder and enrolment are those of the router. Command lines are made harmless by
//! [`redact`] before anything else sees them; environments are never read. What this cannot
//! see is said by `check` and in the sensor's state at the hub.

pub mod cli;
pub mod config;
pub mod files;
#[cfg(target_os = "linux")]
pub mod flows;
#[cfg(target_os = "linux")]
pub mod linux;
pub mod os;
pub mod packages;
pub mod platform;
pub mod poll;
pub mod processes;
pub mod purge;
pub mod redact;
pub mod run;
pub mod sockets;
#[cfg(target_os = "linux")]
pub mod watch;
